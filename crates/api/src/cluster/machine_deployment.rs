//! MachineDeployment: equal Machines, and the way from one specification to the next.

use crate::cluster::{MachineNaming, MachineTemplate, SetDeletion, VersionCount};
use crate::conditions::{Condition, LegacyCondition};
use crate::meta::{IntOrString, LabelSelector, Time};
use crate::object::{object, resource, words};

resource! {
    /// MachineDeployment is the Schema of equal machines with controlled change.
    MachineDeployment: NamespaceResourceScope, "cluster.x-k8s.io" / "v1beta2", "machinedeployments" {
        /// What is wanted.
        spec: MachineDeploymentSpec,
        /// What was observed.
        status: Option<MachineDeploymentStatus>,
    }
}

object! {
    /// Desired state of a MachineDeployment.
    pub struct MachineDeploymentSpec {
        /// Cluster that it belongs to.
        #[schemars(length(min = 1, max = 63))]
        pub cluster_name: String,
        /// Which machines go first.
        pub deletion: SetDeletion,
        /// How machines are named.
        pub machine_naming: MachineNaming,
        /// True: changes of the template wait; scaling goes on.
        pub paused: Option<bool>,
        /// How unhealthy machines are replaced.
        pub remediation: Remediation,
        /// Wanted machines; 1 when absent.
        pub replicas: Option<i32>,
        /// How a new specification is brought in.
        pub rollout: Rollout,
        /// Labels by which it knows its machines.
        pub selector: LabelSelector,
        /// What its machines are like.
        pub template: MachineTemplate,
    }
    required ["clusterName", "selector", "template"]
}

object! {
    /// How unhealthy machines are replaced.
    #[schemars(extend("minProperties" = 1))]
    pub struct Remediation {
        /// At most so many at a time.
        pub max_in_flight: Option<IntOrString>,
    }
}

object! {
    /// How a new specification is brought in.
    #[schemars(extend("minProperties" = 1))]
    pub struct Rollout {
        /// Machines older than this are replaced from then on.
        #[schemars(with = "Option<crate::schema::DateTime>")]
        pub after: Option<Time>,
        /// How.
        pub strategy: RolloutStrategy,
    }
}

words! {
    /// How machines are replaced.
    pub enum RolloutStrategyType {
        /// Step by step.
        RollingUpdate = "RollingUpdate",
        /// When somebody deletes them.
        OnDelete = "OnDelete",
    }
}

object! {
    /// How machines are replaced.
    #[schemars(extend("minProperties" = 1))]
    pub struct RolloutStrategy {
        /// Limits of a rolling update.
        pub rolling_update: RollingUpdate,
        /// The way.
        #[serde(rename = "type")]
        pub type_: Option<RolloutStrategyType>,
    }
    required ["type"]
}

object! {
    /// Limits of a rolling update.
    #[schemars(extend("minProperties" = 1))]
    pub struct RollingUpdate {
        /// So many machines more than wanted.
        pub max_surge: Option<IntOrString>,
        /// So many machines fewer than wanted.
        pub max_unavailable: Option<IntOrString>,
    }
}

words! {
    /// Where a MachineDeployment is.
    pub enum MachineDeploymentPhase {
        /// Machines are being added.
        ScalingUp = "ScalingUp",
        /// Machines are being removed.
        ScalingDown = "ScalingDown",
        /// As wanted.
        Running = "Running",
        /// Failed for good.
        Failed = "Failed",
        /// Not known.
        Unknown = "Unknown",
    }
}

object! {
    /// Observed state of a MachineDeployment.
    #[schemars(extend("minProperties" = 1))]
    pub struct MachineDeploymentStatus {
        /// Available machines.
        pub available_replicas: Option<i32>,
        /// Conditions.
        #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
        pub conditions: Vec<Condition>,
        /// What the v1beta1 generation says.
        pub deprecated: DeprecatedMachineDeployment,
        /// Generation that was observed.
        #[schemars(range(min = 1))]
        pub observed_generation: Option<i64>,
        /// Where it is.
        pub phase: Option<MachineDeploymentPhase>,
        /// Ready machines.
        pub ready_replicas: Option<i32>,
        /// Machines.
        pub replicas: Option<i32>,
        /// The selector as text, for the scale subresource.
        #[schemars(length(min = 1, max = 4096))]
        pub selector: Option<String>,
        /// Machines that have the wanted specification.
        pub up_to_date_replicas: Option<i32>,
        /// Machines by version.
        #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["version"]))]
        pub versions: Vec<VersionCount>,
    }
}

object! {
    /// `status.deprecated` of a MachineDeployment.
    pub struct DeprecatedMachineDeployment {
        /// The v1beta1 view.
        pub v1beta1: LegacyMachineDeploymentStatus,
    }
}

object! {
    /// What only the v1beta1 generation of a MachineDeployment has in its status.
    pub struct LegacyMachineDeploymentStatus {
        /// Available machines.
        pub available_replicas: Option<i32>,
        /// Conditions with severity.
        pub conditions: Vec<LegacyCondition>,
        /// Ready machines.
        pub ready_replicas: Option<i32>,
        /// Wanted machines that are not available.
        pub unavailable_replicas: Option<i32>,
        /// Machines that have the wanted specification.
        pub updated_replicas: Option<i32>,
    }
}
