//! VSphereCluster and its template: the vCenter and the endpoint of a cluster.

use crate::conditions::{Condition, DeprecatedConditions};
use crate::meta::{ApiEndpoint, FailureDomain, LabelSelector, TemplateMeta};
use crate::object::{object, resource, words};

resource! {
    /// VSphereCluster is the Schema of a cluster's infrastructure.
    VSphereCluster: NamespaceResourceScope, "infrastructure.cluster.x-k8s.io" / "v1beta2", "vsphereclusters" {
        /// What is wanted.
        spec: VSphereClusterSpec,
        /// What was observed.
        status: Option<VSphereClusterStatus>,
    }
}

resource! {
    /// VSphereClusterTemplate is the Schema of equal clusters' infrastructure.
    VSphereClusterTemplate: NamespaceResourceScope, "infrastructure.cluster.x-k8s.io" / "v1beta2", "vsphereclustertemplates" {
        /// What is wanted.
        spec: VSphereClusterTemplateSpec,
    }
}

object! {
    /// Desired state of a VSphereClusterTemplate.
    pub struct VSphereClusterTemplateSpec {
        /// What VSphereClusters made from it are like.
        pub template: VSphereClusterTemplateResource,
    }
    required ["template"]
}

object! {
    /// What VSphereClusters made from a template are like.
    #[schemars(extend("minProperties" = 1))]
    pub struct VSphereClusterTemplateResource {
        /// Labels and annotations.
        pub metadata: TemplateMeta,
        /// Specification.
        pub spec: VSphereClusterSpec,
    }
}

object! {
    /// Desired state of a VSphereCluster.
    pub struct VSphereClusterSpec {
        /// Cluster modules in use (anti-affinity).
        #[schemars(length(max = 512))]
        pub cluster_modules: Vec<ClusterModule>,
        /// Where the cluster's API answers.
        pub control_plane_endpoint: ApiEndpoint,
        /// No cluster modules are made.
        pub disable_cluster_module: Option<bool>,
        /// Deployment zones that are used; none when absent.
        pub failure_domain_selector: Option<LabelSelector>,
        /// Credentials.
        pub identity_ref: Option<IdentityReference>,
        /// vCenter.
        #[schemars(length(min = 1, max = 1024))]
        pub server: String,
        /// Thumbprint of vCenter's certificate.
        #[schemars(length(min = 1, max = 1024))]
        pub thumbprint: Option<String>,
    }
    required ["server"]
}

words! {
    /// What holds the credentials.
    pub enum IdentityKind {
        /// A Secret in the cluster's namespace.
        Secret = "Secret",
        /// A VSphereClusterIdentity.
        VSphereClusterIdentity = "VSphereClusterIdentity",
    }
}

object! {
    /// Credentials of a cluster.
    pub struct IdentityReference {
        /// What holds them.
        pub kind: IdentityKind,
        /// Its name.
        #[schemars(length(min = 1, max = 253))]
        pub name: String,
    }
    required ["kind", "name"]
}

object! {
    /// A cluster module.
    pub struct ClusterModule {
        /// It is for control planes.
        pub control_plane: bool,
        /// Its identifier.
        #[serde(rename = "moduleUUID")]
        #[schemars(length(min = 1, max = 2048))]
        pub module_uuid: String,
        /// Object whose machines it holds.
        #[schemars(length(min = 1, max = 253))]
        pub target_object_name: String,
    }
    required ["controlPlane", "moduleUUID", "targetObjectName"]
}

object! {
    /// Observed state of a VSphereCluster.
    #[schemars(extend("minProperties" = 1))]
    pub struct VSphereClusterStatus {
        /// Conditions.
        #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
        pub conditions: Vec<Condition>,
        /// What the v1beta1 generation says.
        pub deprecated: DeprecatedConditions,
        /// Places where machines can be put.
        #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
        pub failure_domains: Vec<FailureDomain>,
        /// How far it is.
        pub initialization: InfrastructureInitialization,
        /// Version of vCenter.
        #[schemars(length(min = 1, max = 256))]
        pub v_center_version: Option<String>,
    }
}

object! {
    /// How far infrastructure is.
    #[schemars(extend("minProperties" = 1))]
    pub struct InfrastructureInitialization {
        /// It is there.
        pub provisioned: Option<bool>,
    }
}
