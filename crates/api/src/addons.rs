//! `addons.cluster.x-k8s.io/v1beta2`: manifests that are applied to a cluster once its API answers.

use crate::conditions::{Condition, DeprecatedConditions};
use crate::meta::{LabelSelector, Time};
use crate::object::{object, resource, words};

resource! {
    /// ClusterResourceSet is the Schema of manifests for clusters.
    ClusterResourceSet: NamespaceResourceScope, "addons.cluster.x-k8s.io" / "v1beta2", "clusterresourcesets" {
        /// What is wanted.
        spec: ClusterResourceSetSpec,
        /// What was observed.
        status: Option<ClusterResourceSetStatus>,
    }
}

words! {
    /// How often manifests are applied.
    pub enum ResourceSetStrategy {
        /// Once.
        ApplyOnce = "ApplyOnce",
        /// Whenever they change.
        Reconcile = "Reconcile",
    }
}

words! {
    /// What holds the manifests.
    pub enum ResourceSetSource {
        /// A Secret of type `addons.cluster.x-k8s.io/resource-set`.
        Secret = "Secret",
        /// A ConfigMap.
        ConfigMap = "ConfigMap",
    }
}

object! {
    /// Desired state of a ClusterResourceSet.
    pub struct ClusterResourceSetSpec {
        /// Clusters that get the manifests.
        pub cluster_selector: LabelSelector,
        /// Where the manifests are.
        #[schemars(length(min = 1, max = 100))]
        pub resources: Vec<ResourceRef>,
        /// How often they are applied; ApplyOnce when absent.
        pub strategy: Option<ResourceSetStrategy>,
    }
    required ["clusterSelector", "resources"]
}

object! {
    /// A Secret or ConfigMap with manifests, in the set's namespace.
    pub struct ResourceRef {
        /// Kind.
        pub kind: ResourceSetSource,
        /// Name.
        #[schemars(length(min = 1, max = 253))]
        pub name: String,
    }
    required ["kind", "name"]
}

object! {
    /// Observed state of a ClusterResourceSet.
    #[schemars(extend("minProperties" = 1))]
    pub struct ClusterResourceSetStatus {
        /// Conditions.
        #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
        pub conditions: Vec<Condition>,
        /// What the v1beta1 generation says.
        pub deprecated: DeprecatedConditions,
        /// Generation that was observed.
        #[schemars(range(min = 1))]
        pub observed_generation: Option<i64>,
    }
}

resource! {
    /// ClusterResourceSetBinding is the Schema of what a cluster has been given.
    ClusterResourceSetBinding: NamespaceResourceScope, "addons.cluster.x-k8s.io" / "v1beta2", "clusterresourcesetbindings" {
        /// What was applied.
        spec: ClusterResourceSetBindingSpec,
    }
}

object! {
    /// What a cluster has been given, by set.
    pub struct ClusterResourceSetBindingSpec {
        /// One entry for each set.
        #[schemars(length(max = 100))]
        pub bindings: Vec<ResourceSetBinding>,
        /// The cluster.
        #[schemars(length(min = 1, max = 63))]
        pub cluster_name: String,
    }
    required ["clusterName"]
}

object! {
    /// What a cluster has been given by one set.
    pub struct ResourceSetBinding {
        /// The set.
        #[schemars(length(min = 1, max = 253))]
        pub cluster_resource_set_name: String,
        /// One entry for each source.
        #[schemars(length(max = 100))]
        pub resources: Vec<ResourceBinding>,
    }
    required ["clusterResourceSetName"]
}

object! {
    /// Whether one source has been applied.
    pub struct ResourceBinding {
        /// It has.
        pub applied: bool,
        /// Hash of what was applied.
        #[schemars(length(min = 1, max = 256))]
        pub hash: Option<String>,
        /// Kind of the source.
        pub kind: ResourceSetSource,
        /// When it was last tried.
        #[schemars(with = "Option<crate::schema::DateTime>")]
        pub last_applied_time: Option<Time>,
        /// Name of the source.
        #[schemars(length(min = 1, max = 253))]
        pub name: String,
    }
    required ["applied", "kind", "name"]
}
