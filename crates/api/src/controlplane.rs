//! `controlplane.cluster.x-k8s.io/v1alpha3`: TalosControlPlane.

use serde_json::Value;

use crate::bootstrap::{ConfigPatch, HostnameSpec};
use crate::conditions::LegacyCondition;
use crate::meta::{IntOrString, ObjectReference};
use crate::object::{object, resource};
use crate::schema::V_VERSION;

resource! {
    /// TalosControlPlane is the Schema of a control plane on Talos.
    TalosControlPlane: NamespaceResourceScope, "controlplane.cluster.x-k8s.io" / "v1alpha3", "taloscontrolplanes" {
        /// What is wanted.
        spec: TalosControlPlaneSpec,
        /// What was observed.
        status: Option<TalosControlPlaneStatus>,
    }
}

object! {
    /// Desired state of a TalosControlPlane.
    pub struct TalosControlPlaneSpec {
        /// Machine configuration of its machines.
        pub control_plane_config: ControlPlaneConfig,
        /// Template of its machines' infrastructure.
        pub infrastructure_template: ObjectReference,
        /// Wanted machines; 1 when absent.
        pub replicas: Option<i32>,
        /// How a new specification is brought in.
        #[schemars(extend("x-default" = {"rollingUpdate": {"maxSurge": 1}, "type": "RollingUpdate"}))]
        pub rollout_strategy: Option<ControlPlaneRolloutStrategy>,
        /// Kubernetes version, with its `v`.
        #[schemars(length(min = 2), extend("pattern" = V_VERSION))]
        pub version: String,
    }
    required ["controlPlaneConfig", "infrastructureTemplate", "version"]
}

object! {
    /// Machine configuration of control planes.
    pub struct ControlPlaneConfig {
        /// For all of them.
        pub controlplane: ControlPlaneTalosConfig,
        /// For the first one, of old Talos releases; not used.
        pub init: Option<ControlPlaneTalosConfig>,
    }
    required ["controlplane"]
}

object! {
    /// A TalosConfig's specification as this group has it: `generateType` is free text.
    pub struct ControlPlaneTalosConfig {
        /// JSON patches (RFC 6902), applied in order before the strategic ones.
        pub config_patches: Vec<ConfigPatch>,
        /// The configuration itself, for `generateType: none`.
        pub data: Option<String>,
        /// What is generated.
        pub generate_type: String,
        /// Where the host name comes from.
        pub hostname: Option<HostnameSpec>,
        /// Strategic merge patches, YAML each.
        pub strategic_patches: Vec<String>,
        /// Contract: the Talos release whose configuration is generated.
        pub talos_version: Option<String>,
    }
    required ["generateType"]
}

object! {
    /// How machines of a control plane are replaced.
    pub struct ControlPlaneRolloutStrategy {
        /// Limits of a rolling update.
        pub rolling_update: Option<ControlPlaneRollingUpdate>,
        /// `RollingUpdate` or `OnDelete`.
        #[serde(rename = "type")]
        pub type_: Option<String>,
    }
}

object! {
    /// Limits of a rolling update of a control plane.
    pub struct ControlPlaneRollingUpdate {
        /// So many machines more than wanted: 0 or 1.
        pub max_surge: Option<IntOrString>,
    }
}

object! {
    /// Observed state of a TalosControlPlane.
    pub struct TalosControlPlaneStatus {
        /// etcd has been bootstrapped.
        pub bootstrapped: Option<bool>,
        /// Conditions.
        pub conditions: Vec<LegacyCondition>,
        /// Words of a terminal failure.
        pub failure_message: Option<String>,
        /// Reason of a terminal failure.
        pub failure_reason: Option<String>,
        /// The API has answered once.
        pub initialized: Option<bool>,
        /// Generation that was observed.
        pub observed_generation: Option<i64>,
        /// The API answers.
        pub ready: Option<bool>,
        /// Ready machines.
        pub ready_replicas: Option<i32>,
        /// Machines.
        pub replicas: Option<i32>,
        /// Selector as text, for the scale subresource.
        pub selector: Option<String>,
        /// Wanted machines that are not ready.
        pub unavailable_replicas: Option<i32>,
        /// Lowest Kubernetes version of its machines.
        pub version: Option<String>,
    }
}

impl ControlPlaneTalosConfig {
    /// The specification of the TalosConfig that a machine gets. An unknown `generateType` is taken as a control plane's.
    pub fn to_talos_config(&self) -> crate::bootstrap::TalosConfigSpec {
        use crate::bootstrap::GenerateType;
        let generate_type = match self.generate_type.as_str() {
            "init" => GenerateType::Init,
            "worker" | "join" => GenerateType::Worker,
            "none" => GenerateType::None,
            _ => GenerateType::ControlPlane,
        };
        crate::bootstrap::TalosConfigSpec {
            config_patches: self.config_patches.clone(),
            data: self.data.clone(),
            generate_type,
            hostname: self.hostname.clone(),
            strategic_patches: self.strategic_patches.clone(),
            talos_version: self.talos_version.clone(),
        }
    }
}

/// A patch value that was not given reads as JSON null.
impl ConfigPatch {
    /// The value, or null.
    pub fn value_or_null(&self) -> Value {
        self.value.clone().unwrap_or(Value::Null)
    }
}
