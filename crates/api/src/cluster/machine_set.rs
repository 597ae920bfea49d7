//! MachineSet: a number of equal Machines. Also the machine template that MachineDeployment shares.

use crate::cluster::{MachineSpec, VersionCount};
use crate::conditions::{Condition, LegacyCondition};
use crate::meta::{LabelSelector, TemplateMeta};
use crate::object::{object, resource, words};

resource! {
    /// MachineSet is the Schema of a number of equal machines.
    MachineSet: NamespaceResourceScope, "cluster.x-k8s.io" / "v1beta2", "machinesets" {
        /// What is wanted.
        spec: MachineSetSpec,
        /// What was observed.
        status: Option<MachineSetStatus>,
    }
}

object! {
    /// Desired state of a MachineSet.
    pub struct MachineSetSpec {
        /// Cluster that it belongs to.
        #[schemars(length(min = 1, max = 63))]
        pub cluster_name: String,
        /// Which machines go first.
        pub deletion: SetDeletion,
        /// How machines are named.
        pub machine_naming: MachineNaming,
        /// Wanted machines; 1 when absent.
        pub replicas: Option<i32>,
        /// Labels by which it knows its machines.
        pub selector: LabelSelector,
        /// What its machines are like.
        pub template: MachineTemplate,
    }
    required ["clusterName", "selector", "template"]
}

object! {
    /// What machines of a set are like.
    pub struct MachineTemplate {
        /// Labels and annotations.
        pub metadata: TemplateMeta,
        /// Specification.
        pub spec: MachineSpec,
    }
    required ["spec"]
}

words! {
    /// Which machines go first when scaling down.
    pub enum DeletionOrder {
        /// Any.
        Random = "Random",
        /// Youngest.
        Newest = "Newest",
        /// Oldest.
        Oldest = "Oldest",
    }
}

object! {
    /// Which machines of a set go first.
    #[schemars(extend("minProperties" = 1))]
    pub struct SetDeletion {
        /// The order; Random when absent.
        pub order: Option<DeletionOrder>,
    }
}

object! {
    /// How machines are named.
    #[schemars(extend("minProperties" = 1))]
    pub struct MachineNaming {
        /// Go template that has to contain `{{ .random }}`.
        #[schemars(length(min = 1, max = 256))]
        pub template: Option<String>,
    }
}

object! {
    /// Observed state of a MachineSet.
    #[schemars(extend("minProperties" = 1))]
    pub struct MachineSetStatus {
        /// Available machines.
        pub available_replicas: Option<i32>,
        /// Conditions.
        #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
        pub conditions: Vec<Condition>,
        /// What the v1beta1 generation says.
        pub deprecated: DeprecatedMachineSet,
        /// Generation that was observed.
        #[schemars(range(min = 1))]
        pub observed_generation: Option<i64>,
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
    /// `status.deprecated` of a MachineSet.
    pub struct DeprecatedMachineSet {
        /// The v1beta1 view.
        pub v1beta1: LegacyMachineSetStatus,
    }
}

object! {
    /// What only the v1beta1 generation of a MachineSet has in its status.
    pub struct LegacyMachineSetStatus {
        /// Available machines.
        pub available_replicas: Option<i32>,
        /// Conditions with severity.
        pub conditions: Vec<LegacyCondition>,
        /// Words of a terminal failure.
        #[schemars(length(min = 1, max = 10240))]
        pub failure_message: Option<String>,
        /// Reason of a terminal failure.
        pub failure_reason: Option<String>,
        /// Machines with all labels of the template.
        pub fully_labeled_replicas: Option<i32>,
        /// Ready machines.
        pub ready_replicas: Option<i32>,
    }
}
