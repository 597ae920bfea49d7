//! Cluster: what a user asks for, and where its parts stand.

use serde_json::Value;

use crate::conditions::{Condition, Deprecated};
use crate::meta::{ApiEndpoint, ContractReference, FailureDomain};
use crate::object::{object, resource, words};
use crate::schema::CONDITION_TYPE;

resource! {
    /// Cluster is the Schema of a Kubernetes cluster.
    Cluster: NamespaceResourceScope, "cluster.x-k8s.io" / "v1beta2", "clusters" {
        /// What is wanted.
        spec: ClusterSpec,
        /// What was observed.
        status: Option<ClusterStatus>,
    }
}

object! {
    /// Desired state of a Cluster.
    #[schemars(extend("minProperties" = 1))]
    pub struct ClusterSpec {
        /// Additional conditions that count for Available.
        #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["conditionType"]))]
        pub availability_gates: Vec<ConditionGate>,
        /// Networks of the cluster.
        pub cluster_network: ClusterNetwork,
        /// Where the cluster's API answers.
        pub control_plane_endpoint: ApiEndpoint,
        /// The control plane.
        pub control_plane_ref: Option<ContractReference>,
        /// The infrastructure.
        pub infrastructure_ref: Option<ContractReference>,
        /// True: nobody reconciles the cluster or anything that belongs to it.
        pub paused: Option<bool>,
        /// Managed topology (ClusterClass); carried through, not interpreted.
        #[schemars(with = "Option<crate::schema::AnyObject>")]
        pub topology: Option<Value>,
    }
}

words! {
    /// Whether a gate's condition is good when True or when False.
    pub enum Polarity {
        /// True is good.
        Positive = "Positive",
        /// False is good.
        Negative = "Negative",
    }
}

object! {
    /// A condition that has to hold as well.
    pub struct ConditionGate {
        /// Type of the condition.
        #[schemars(length(min = 1, max = 316), extend("pattern" = CONDITION_TYPE))]
        pub condition_type: String,
        /// Whether True is good; absent means it is.
        pub polarity: Option<Polarity>,
    }
    required ["conditionType"]
}

object! {
    /// Networks of a cluster.
    #[schemars(extend("minProperties" = 1))]
    pub struct ClusterNetwork {
        /// Port of the API server.
        #[schemars(range(min = 1, max = 65535))]
        pub api_server_port: Option<i32>,
        /// Addresses of pods.
        pub pods: NetworkRanges,
        /// DNS domain of services.
        #[schemars(length(min = 1, max = 253))]
        pub service_domain: Option<String>,
        /// Addresses of services.
        pub services: NetworkRanges,
    }
}

object! {
    /// Ranges of addresses.
    pub struct NetworkRanges {
        /// Ranges in CIDR form; host bits are accepted.
        #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 43)))]
        pub cidr_blocks: Vec<String>,
    }
    required ["cidrBlocks"]
}

words! {
    /// Where a cluster is in its life.
    pub enum ClusterPhase {
        /// Nothing done yet.
        Pending = "Pending",
        /// Infrastructure is being made.
        Provisioning = "Provisioning",
        /// Infrastructure is there.
        Provisioned = "Provisioned",
        /// Being deleted.
        Deleting = "Deleting",
        /// Failed for good.
        Failed = "Failed",
        /// Not known.
        Unknown = "Unknown",
    }
}

object! {
    /// Observed state of a Cluster.
    #[schemars(extend("minProperties" = 1))]
    pub struct ClusterStatus {
        /// Conditions.
        #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
        pub conditions: Vec<Condition>,
        /// Counts of control-plane machines.
        pub control_plane: Option<ReplicaCounts>,
        /// What the v1beta1 generation says.
        pub deprecated: Deprecated,
        /// Places where machines can be put.
        #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
        pub failure_domains: Vec<FailureDomain>,
        /// How far the first set-up is.
        pub initialization: ClusterInitialization,
        /// Generation that was observed.
        #[schemars(range(min = 1))]
        pub observed_generation: Option<i64>,
        /// Where the cluster is in its life.
        pub phase: Option<ClusterPhase>,
        /// Counts of worker machines.
        pub workers: Option<ReplicaCounts>,
    }
}

object! {
    /// How far the first set-up of a cluster is; both never go back.
    #[schemars(extend("minProperties" = 1))]
    pub struct ClusterInitialization {
        /// The control plane's API answered once.
        pub control_plane_initialized: Option<bool>,
        /// The infrastructure is there.
        pub infrastructure_provisioned: Option<bool>,
    }
}

object! {
    /// Counts of machines.
    pub struct ReplicaCounts {
        /// Available machines.
        pub available_replicas: Option<i32>,
        /// Wanted machines.
        pub desired_replicas: Option<i32>,
        /// Ready machines.
        pub ready_replicas: Option<i32>,
        /// Machines.
        pub replicas: Option<i32>,
        /// Machines that have the wanted specification.
        pub up_to_date_replicas: Option<i32>,
        /// Versions that an upgrade goes through.
        #[schemars(length(min = 1, max = 32))]
        pub upgrade_plan: Vec<VersionStep>,
        /// Machines by version.
        #[schemars(length(min = 1, max = 32))]
        pub versions: Vec<VersionCount>,
    }
}

object! {
    /// A version that an upgrade goes through.
    pub struct VersionStep {
        /// Kubernetes version.
        #[schemars(length(min = 1, max = 256))]
        pub version: String,
    }
    required ["version"]
}

object! {
    /// How many machines have a version.
    pub struct VersionCount {
        /// Machines.
        #[schemars(range(min = 1))]
        pub replicas: Option<i32>,
        /// Kubernetes version.
        #[schemars(length(min = 1, max = 256))]
        pub version: String,
    }
    required ["version"]
}
