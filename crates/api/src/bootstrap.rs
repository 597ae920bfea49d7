//! `bootstrap.cluster.x-k8s.io/v1beta1`: TalosConfig and its template.
//!
//! `status.talosConfig` stays in every version: upstream dropped it from v1beta1, but users' scripts read it.
//! `generateType: join` exists in v1alpha3 only; stored it is `worker`, and it is given back to who reads v1alpha3.

use serde_json::Value;

use crate::conditions::{Condition, LegacyCondition};
use crate::object::{object, resource, words};

resource! {
    /// TalosConfig is the Schema of a machine's configuration.
    TalosConfig: NamespaceResourceScope, "bootstrap.cluster.x-k8s.io" / "v1beta1", "talosconfigs" {
        /// What is wanted.
        spec: TalosConfigSpec,
        /// What was observed.
        status: Option<TalosConfigStatus>,
    }
}

resource! {
    /// TalosConfigTemplate is the Schema of configurations of equal machines.
    TalosConfigTemplate: NamespaceResourceScope, "bootstrap.cluster.x-k8s.io" / "v1beta1", "talosconfigtemplates" {
        /// What is wanted.
        spec: TalosConfigTemplateSpec,
    }
}

object! {
    /// Desired state of a TalosConfigTemplate.
    pub struct TalosConfigTemplateSpec {
        /// What TalosConfigs made from it are like.
        pub template: TalosConfigTemplateResource,
    }
    required ["template"]
}

object! {
    /// What TalosConfigs made from a template are like.
    pub struct TalosConfigTemplateResource {
        /// Specification.
        pub spec: TalosConfigSpec,
    }
}

words! {
    /// What machine configuration is generated.
    pub enum GenerateType {
        /// For a control plane.
        ControlPlane = "controlplane",
        /// For a worker.
        Worker = "worker",
        /// For the first control plane of old Talos releases.
        Init = "init",
        /// None: `data` is taken as it is.
        None = "none",
    }
}

object! {
    /// Desired state of a TalosConfig.
    pub struct TalosConfigSpec {
        /// JSON patches (RFC 6902), applied in order before the strategic ones.
        pub config_patches: Vec<ConfigPatch>,
        /// The configuration itself, for `generateType: none`.
        pub data: Option<String>,
        /// What is generated.
        pub generate_type: GenerateType,
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
    /// One JSON patch operation.
    pub struct ConfigPatch {
        /// add, remove, replace, move, copy or test.
        pub op: String,
        /// JSON pointer.
        pub path: String,
        /// Value; any JSON.
        #[schemars(with = "crate::schema::Anything")]
        pub value: Option<Value>,
    }
    required ["op", "path"]
}

object! {
    /// Where a host name comes from.
    pub struct HostnameSpec {
        /// `MachineName` or `InfrastructureName`.
        pub source: Option<String>,
    }
}

object! {
    /// Observed state of a TalosConfig.
    pub struct TalosConfigStatus {
        /// Conditions.
        #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
        pub conditions: Vec<Condition>,
        /// Secret with the machine configuration.
        #[schemars(length(min = 1, max = 253))]
        pub data_secret_name: Option<String>,
        /// What the older generation says.
        pub deprecated: DeprecatedTalosConfig,
        /// How far it is.
        pub initialization: TalosConfigInitialization,
        /// Generation that was observed.
        pub observed_generation: Option<i64>,
        /// Client configuration for the cluster's Talos API (YAML).
        pub talos_config: Option<String>,
    }
}

object! {
    /// `status.deprecated` of a TalosConfig.
    pub struct DeprecatedTalosConfig {
        /// The v1alpha3 view.
        pub v1beta: LegacyTalosConfigStatus,
    }
}

object! {
    /// What only v1alpha3 of a TalosConfig has in its status.
    pub struct LegacyTalosConfigStatus {
        /// Conditions with severity.
        pub conditions: Vec<LegacyCondition>,
        /// Words of a terminal failure.
        pub failure_message: Option<String>,
        /// Reason of a terminal failure.
        pub failure_reason: Option<String>,
    }
}

object! {
    /// How far a TalosConfig is.
    #[schemars(extend("minProperties" = 1))]
    pub struct TalosConfigInitialization {
        /// The machine configuration is there.
        pub data_secret_created: Option<bool>,
    }
}
