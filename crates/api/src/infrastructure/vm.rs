//! VSphereVM: one virtual machine in vCenter.

use crate::conditions::{Condition, Deprecated};
use crate::infrastructure::{CloneMode, CloneSpec, NetworkStatus, PowerOffMode};
use crate::meta::Time;
use crate::object::{object, resource};

resource! {
    /// VSphereVM is the Schema of one virtual machine.
    VSphereVM: NamespaceResourceScope, "infrastructure.cluster.x-k8s.io" / "v1beta2", "vspherevms" {
        /// What is wanted.
        spec: VSphereVMSpec,
        /// What was observed.
        status: Option<VSphereVMStatus>,
    }
}

object! {
    /// Desired state of a VSphereVM.
    pub struct VSphereVMSpec {
        /// BIOS UUID that vCenter gave, once known.
        #[serde(rename = "biosUUID")]
        #[schemars(length(min = 1, max = 1024))]
        pub bios_uuid: Option<String>,
        /// Secret with the machine configuration.
        pub bootstrap_ref: Option<BootstrapReference>,
        /// How it is cloned.
        #[serde(flatten)]
        pub clone: CloneSpec,
        /// Seconds that a soft power-off may take, for trySoft.
        #[schemars(range(min = 1))]
        pub guest_soft_power_off_timeout_seconds: Option<i32>,
        /// Operating system: Linux or Windows.
        #[schemars(length(min = 1, max = 128))]
        pub os: Option<String>,
        /// How it is switched off; hard when absent.
        pub power_off_mode: Option<PowerOffMode>,
    }
    required ["network", "template"]
}

object! {
    /// A Secret with a machine configuration.
    pub struct BootstrapReference {
        /// Name.
        #[schemars(length(min = 1, max = 253))]
        pub name: String,
    }
    required ["name"]
}

object! {
    /// Observed state of a VSphereVM.
    #[schemars(extend("minProperties" = 1))]
    pub struct VSphereVMStatus {
        /// Its addresses.
        #[schemars(length(max = 128), inner(length(min = 1, max = 39)))]
        pub addresses: Vec<String>,
        /// How its disks came to be.
        pub clone_mode: Option<CloneMode>,
        /// Conditions.
        #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
        pub conditions: Vec<Condition>,
        /// What the v1beta1 generation says.
        pub deprecated: Deprecated,
        /// Host that it runs on.
        #[schemars(length(min = 1, max = 1024))]
        pub host: Option<String>,
        /// Cluster module that it is in.
        #[serde(rename = "moduleUUID")]
        #[schemars(length(max = 2048))]
        pub module_uuid: Option<String>,
        /// Its network cards.
        #[schemars(length(max = 128))]
        pub network: Vec<NetworkStatus>,
        /// It runs and has its addresses.
        pub ready: Option<bool>,
        /// After a failed task: when to try again.
        #[schemars(with = "Option<crate::schema::DateTime>")]
        pub retry_after: Option<Time>,
        /// Snapshot that it was cloned from.
        #[schemars(length(min = 1, max = 1024))]
        pub snapshot: Option<String>,
        /// Task that runs in vCenter.
        #[schemars(length(min = 1, max = 2048))]
        pub task_ref: Option<String>,
        /// vCenter's reference to it.
        #[schemars(length(min = 1, max = 2048))]
        pub vm_ref: Option<String>,
    }
}
