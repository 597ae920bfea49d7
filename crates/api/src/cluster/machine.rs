//! Machine: one node, from its request to its removal.

use crate::cluster::ConditionGate;
use crate::conditions::{Condition, Deprecated};
use crate::meta::{ContractReference, MachineAddress, NameReference, Time};
use crate::object::{object, resource, words};
use crate::schema::{LABEL_VALUE, TAINT_KEY};

resource! {
    /// Machine is the Schema of one node.
    Machine: NamespaceResourceScope, "cluster.x-k8s.io" / "v1beta2", "machines" {
        /// What is wanted.
        spec: MachineSpec,
        /// What was observed.
        status: Option<MachineStatus>,
    }
}

object! {
    /// Desired state of a Machine.
    pub struct MachineSpec {
        /// Where its bootstrap data comes from.
        pub bootstrap: Bootstrap,
        /// Cluster that it belongs to.
        #[schemars(length(min = 1, max = 63))]
        pub cluster_name: String,
        /// How long the steps of its deletion may take.
        pub deletion: MachineDeletion,
        /// Place to put it in.
        #[schemars(length(min = 1, max = 256))]
        pub failure_domain: Option<String>,
        /// Its infrastructure.
        pub infrastructure_ref: ContractReference,
        /// Seconds that it has to be ready before it counts as available.
        #[schemars(range(min = 0))]
        pub min_ready_seconds: Option<i32>,
        /// Its identity at the provider; a Node with the same one is its Node.
        #[serde(rename = "providerID")]
        #[schemars(length(min = 1, max = 512))]
        pub provider_id: Option<String>,
        /// Additional conditions that count for Ready.
        #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["conditionType"]))]
        pub readiness_gates: Vec<ConditionGate>,
        /// Taints that its Node gets.
        #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key", "effect"]))]
        pub taints: Vec<MachineTaint>,
        /// Kubernetes version.
        #[schemars(length(min = 1, max = 256))]
        pub version: Option<String>,
    }
    required ["bootstrap", "clusterName", "infrastructureRef"]
}

object! {
    /// Where bootstrap data comes from.
    pub struct Bootstrap {
        /// Object that makes the data.
        pub config_ref: Option<ContractReference>,
        /// Secret that holds the data.
        #[schemars(length(min = 0, max = 253))]
        pub data_secret_name: Option<String>,
    }
}

object! {
    /// How long the steps of a deletion may take, in seconds; 0 or absent waits for ever, but for the Node's deletion (10).
    #[schemars(extend("minProperties" = 1))]
    pub struct MachineDeletion {
        /// Removal of the Node object.
        #[schemars(range(min = 0))]
        pub node_deletion_timeout_seconds: Option<i32>,
        /// Drain.
        #[schemars(range(min = 0))]
        pub node_drain_timeout_seconds: Option<i32>,
        /// Detachment of volumes.
        #[schemars(range(min = 0))]
        pub node_volume_detach_timeout_seconds: Option<i32>,
    }
}

words! {
    /// What a taint does.
    pub enum TaintEffect {
        /// New pods stay away.
        NoSchedule = "NoSchedule",
        /// New pods stay away if they can.
        PreferNoSchedule = "PreferNoSchedule",
        /// Pods leave.
        NoExecute = "NoExecute",
    }
}

words! {
    /// When a taint is put.
    pub enum TaintPropagation {
        /// Whenever it is missing.
        Always = "Always",
        /// Once, with the Node's first labels.
        OnInitialization = "OnInitialization",
    }
}

object! {
    /// A taint that a Machine's Node gets.
    pub struct MachineTaint {
        /// What it does.
        pub effect: TaintEffect,
        /// Key.
        #[schemars(length(min = 1, max = 317), extend("pattern" = TAINT_KEY))]
        pub key: String,
        /// When it is put.
        pub propagation: TaintPropagation,
        /// Value.
        #[schemars(length(min = 1, max = 63), extend("pattern" = LABEL_VALUE))]
        pub value: Option<String>,
    }
    required ["effect", "key", "propagation"]
}

words! {
    /// Where a Machine is in its life.
    pub enum MachinePhase {
        /// Bootstrap data is awaited.
        Pending = "Pending",
        /// Infrastructure is being made.
        Provisioning = "Provisioning",
        /// Infrastructure is there, the Node is awaited.
        Provisioned = "Provisioned",
        /// Its Node is known.
        Running = "Running",
        /// Being changed in place.
        Updating = "Updating",
        /// Being deleted.
        Deleting = "Deleting",
        /// Deleted at the provider.
        Deleted = "Deleted",
        /// Failed for good.
        Failed = "Failed",
        /// Not known.
        Unknown = "Unknown",
    }
}

object! {
    /// Observed state of a Machine.
    #[schemars(extend("minProperties" = 1))]
    pub struct MachineStatus {
        /// Its addresses.
        #[schemars(length(max = 256))]
        pub addresses: Vec<MachineAddress>,
        /// When its certificates end.
        #[schemars(with = "Option<crate::schema::DateTime>")]
        pub certificates_expiry_date: Option<Time>,
        /// Conditions.
        #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
        pub conditions: Vec<Condition>,
        /// Since when the steps of its deletion run.
        pub deletion: Option<MachineDeletionStatus>,
        /// What the v1beta1 generation says.
        pub deprecated: Deprecated,
        /// Place that it is in.
        #[schemars(length(min = 1, max = 256))]
        pub failure_domain: Option<String>,
        /// How far its first set-up is.
        pub initialization: MachineInitialization,
        /// When its phase last changed.
        #[schemars(with = "Option<crate::schema::DateTime>")]
        pub last_updated: Option<Time>,
        /// What its Node says about itself.
        pub node_info: Option<NodeSystemInfo>,
        /// Its Node.
        pub node_ref: Option<NameReference>,
        /// Generation that was observed.
        #[schemars(range(min = 1))]
        pub observed_generation: Option<i64>,
        /// Where it is in its life.
        pub phase: Option<MachinePhase>,
    }
}

object! {
    /// How far a Machine's first set-up is.
    #[schemars(extend("minProperties" = 1))]
    pub struct MachineInitialization {
        /// Bootstrap data is there.
        pub bootstrap_data_secret_created: Option<bool>,
        /// Infrastructure is there.
        pub infrastructure_provisioned: Option<bool>,
    }
}

object! {
    /// Since when the steps of a deletion run.
    pub struct MachineDeletionStatus {
        /// Drain.
        #[schemars(with = "Option<crate::schema::DateTime>")]
        pub node_drain_start_time: Option<Time>,
        /// Detachment of volumes.
        #[schemars(with = "Option<crate::schema::DateTime>")]
        pub wait_for_node_volume_detach_start_time: Option<Time>,
        /// Waiting for somebody's work before the drain.
        #[schemars(with = "Option<crate::schema::DateTime>")]
        pub wait_for_pre_drain_hook_start_time: Option<Time>,
        /// Waiting for somebody's work before the infrastructure goes.
        #[schemars(with = "Option<crate::schema::DateTime>")]
        pub wait_for_pre_terminate_hook_start_time: Option<Time>,
    }
}

object! {
    /// What a Node says about itself.
    pub struct NodeSystemInfo {
        /// Processor architecture.
        pub architecture: String,
        /// Identity of the current boot.
        #[serde(rename = "bootID")]
        pub boot_id: String,
        /// Container runtime and its version.
        pub container_runtime_version: String,
        /// Kernel version.
        pub kernel_version: String,
        /// kube-proxy version.
        pub kube_proxy_version: String,
        /// kubelet version.
        pub kubelet_version: String,
        /// Identity from /etc/machine-id.
        #[serde(rename = "machineID")]
        pub machine_id: String,
        /// Operating system.
        pub operating_system: String,
        /// Operating system's image.
        pub os_image: String,
        /// Swap.
        pub swap: Option<NodeSwap>,
        /// SMBIOS UUID.
        #[serde(rename = "systemUUID")]
        pub system_uuid: String,
    }
    required [
        "architecture", "bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "kubeletVersion", "machineID",
        "operatingSystem", "osImage", "systemUUID",
    ]
}

object! {
    /// Swap of a Node.
    pub struct NodeSwap {
        /// Bytes.
        pub capacity: Option<i64>,
    }
}
