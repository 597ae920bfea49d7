//! VSphereClusterIdentity: credentials that several namespaces may use.

use crate::conditions::{Condition, DeprecatedConditions};
use crate::meta::LabelSelector;
use crate::object::{object, resource};

resource! {
    /// VSphereClusterIdentity is the Schema of shared credentials.
    VSphereClusterIdentity: ClusterResourceScope, "infrastructure.cluster.x-k8s.io" / "v1beta2", "vsphereclusteridentities" {
        /// What is wanted.
        spec: VSphereClusterIdentitySpec,
        /// What was observed.
        status: Option<ReadyStatus>,
    }
}

object! {
    /// Shared credentials.
    pub struct VSphereClusterIdentitySpec {
        /// Namespaces that may use them; none when absent.
        pub allowed_namespaces: Option<AllowedNamespaces>,
        /// Secret with username and password, in the controllers' namespace.
        #[schemars(length(min = 1, max = 253))]
        pub secret_name: String,
    }
    required ["secretName"]
}

object! {
    /// Namespaces that may use an identity.
    pub struct AllowedNamespaces {
        /// By their labels; an empty selector allows all.
        pub selector: Option<LabelSelector>,
    }
}

object! {
    /// Observed state of a VSphereClusterIdentity or VSphereDeploymentZone.
    #[schemars(extend("minProperties" = 1))]
    pub struct ReadyStatus {
        /// Conditions.
        #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
        pub conditions: Vec<Condition>,
        /// What the v1beta1 generation says.
        pub deprecated: DeprecatedConditions,
        /// It can be used.
        pub ready: Option<bool>,
    }
}
