//! VSphereMachine and its template: the infrastructure of a Machine.

use crate::conditions::{Condition, Deprecated};
use crate::infrastructure::{CloneSpec, InfrastructureInitialization, PowerOffMode};
use crate::meta::{MachineAddress, TemplateMeta};
use crate::object::{object, resource};

resource! {
    /// VSphereMachine is the Schema of a machine's infrastructure.
    VSphereMachine: NamespaceResourceScope, "infrastructure.cluster.x-k8s.io" / "v1beta2", "vspheremachines" {
        /// What is wanted.
        spec: VSphereMachineSpec,
        /// What was observed.
        status: Option<VSphereMachineStatus>,
    }
}

resource! {
    /// VSphereMachineTemplate is the Schema of equal machines' infrastructure.
    VSphereMachineTemplate: NamespaceResourceScope, "infrastructure.cluster.x-k8s.io" / "v1beta2", "vspheremachinetemplates" {
        /// What is wanted.
        spec: VSphereMachineTemplateSpec,
    }
}

object! {
    /// Desired state of a VSphereMachineTemplate.
    pub struct VSphereMachineTemplateSpec {
        /// What VSphereMachines made from it are like.
        pub template: VSphereMachineTemplateResource,
    }
    required ["template"]
}

object! {
    /// What VSphereMachines made from a template are like.
    #[schemars(extend("minProperties" = 1))]
    pub struct VSphereMachineTemplateResource {
        /// Labels and annotations.
        pub metadata: TemplateMeta,
        /// Specification.
        pub spec: VSphereMachineSpec,
    }
}

object! {
    /// Desired state of a VSphereMachine.
    pub struct VSphereMachineSpec {
        /// How the virtual machine is cloned.
        #[serde(flatten)]
        pub clone: CloneSpec,
        /// Seconds that a soft power-off may take, for trySoft.
        #[schemars(range(min = 1))]
        pub guest_soft_power_off_timeout_seconds: Option<i32>,
        /// How the VSphereVM is named.
        pub naming: VirtualMachineNaming,
        /// Operating system: Linux or Windows.
        #[schemars(length(min = 1, max = 128))]
        pub os: Option<String>,
        /// How the machine is switched off; hard when absent.
        pub power_off_mode: Option<PowerOffMode>,
        /// Its identity at the provider.
        #[serde(rename = "providerID")]
        #[schemars(length(min = 1, max = 512))]
        pub provider_id: Option<String>,
    }
    required ["network", "template"]
}

object! {
    /// How VSphereVMs are named.
    #[schemars(extend("minProperties" = 1))]
    pub struct VirtualMachineNaming {
        /// Go template.
        #[schemars(length(min = 1, max = 1024))]
        pub template: Option<String>,
    }
}

object! {
    /// Observed state of a VSphereMachine.
    #[schemars(extend("minProperties" = 1))]
    pub struct VSphereMachineStatus {
        /// Its addresses.
        #[schemars(length(max = 128))]
        pub addresses: Vec<MachineAddress>,
        /// Conditions.
        #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
        pub conditions: Vec<Condition>,
        /// What the v1beta1 generation says.
        pub deprecated: Deprecated,
        /// How far it is.
        pub initialization: InfrastructureInitialization,
        /// Its network cards.
        #[schemars(length(max = 128))]
        pub network: Vec<NetworkStatus>,
    }
}

object! {
    /// A network card as it is.
    pub struct NetworkStatus {
        /// It is connected.
        pub connected: Option<bool>,
        /// Addresses.
        #[schemars(length(max = 128), inner(length(min = 1, max = 39)))]
        pub ip_addrs: Vec<String>,
        /// Hardware address.
        #[schemars(length(min = 1, max = 17))]
        pub mac_addr: String,
        /// Network.
        #[schemars(length(min = 1, max = 1024))]
        pub network_name: Option<String>,
    }
    required ["macAddr"]
}
