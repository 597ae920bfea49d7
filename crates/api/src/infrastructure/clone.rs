//! How a virtual machine is cloned: the fields that VSphereMachine, its template and VSphereVM share.

use std::collections::BTreeMap;

use crate::meta::ContractReference;
use crate::object::{object, words};

words! {
    /// How the disks of a clone come to be.
    pub enum CloneMode {
        /// They refer to a snapshot of the template.
        LinkedClone = "linkedClone",
        /// They are copied.
        FullClone = "fullClone",
    }
}

words! {
    /// How a virtual machine is switched off.
    pub enum PowerOffMode {
        /// At once.
        Hard = "hard",
        /// By its operating system, for ever.
        Soft = "soft",
        /// By its operating system, and at once after a while.
        TrySoft = "trySoft",
    }
}

words! {
    /// How the space of a disk is taken.
    pub enum ProvisioningMode {
        /// When it is used.
        Thin = "Thin",
        /// At once, not zeroed.
        Thick = "Thick",
        /// At once, zeroed.
        EagerlyZeroed = "EagerlyZeroed",
    }
}

words! {
    /// Encryption of migrations.
    pub enum MigrateEncryption {
        /// Where both hosts can.
        Opportunistic = "opportunistic",
        /// Never.
        Disabled = "disabled",
        /// Always.
        Required = "required",
    }
}

words! {
    /// Encryption of fault tolerance.
    pub enum FaultToleranceEncryption {
        /// Where both hosts can.
        Opportunistic = "ftEncryptionOpportunistic",
        /// Never.
        Disabled = "ftEncryptionDisabled",
        /// Always.
        Required = "ftEncryptionRequired",
    }
}

object! {
    /// How a virtual machine is cloned.
    pub struct CloneSpec {
        /// Sizes of the disks after the first, in GiB; they have to exist in the template.
        #[serde(rename = "additionalDisksGiB")]
        #[schemars(length(max = 128))]
        pub additional_disks_gib: Vec<i32>,
        /// How the disks come to be; linkedClone when absent.
        pub clone_mode: Option<CloneMode>,
        /// Key that encrypts the machine.
        #[serde(rename = "cryptoKeyID")]
        #[schemars(length(min = 1, max = 128))]
        pub crypto_key_id: Option<String>,
        /// Storage profile that encrypts the machine.
        #[schemars(length(min = 1, max = 128))]
        pub crypto_profile: Option<String>,
        /// Additional settings of the machine.
        #[serde(rename = "customVMXKeys")]
        pub custom_vmx_keys: BTreeMap<String, String>,
        /// Additional disks.
        #[schemars(length(max = 29), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
        pub data_disks: Vec<DataDisk>,
        /// Datacenter; a name, path or glob.
        #[schemars(length(min = 1, max = 2048))]
        pub datacenter: Option<String>,
        /// Datastore.
        #[schemars(length(min = 1, max = 2048))]
        pub datastore: Option<String>,
        /// Size of the first disk, in GiB.
        #[serde(rename = "diskGiB")]
        #[schemars(range(min = 1))]
        pub disk_gib: Option<i32>,
        /// Folder.
        #[schemars(length(min = 1, max = 2048))]
        pub folder: Option<String>,
        /// Encryption of fault tolerance.
        pub ft_encryption_mode: Option<FaultToleranceEncryption>,
        /// Hardware version, `vmx-N`.
        #[schemars(length(min = 1, max = 128))]
        pub hardware_version: Option<String>,
        /// Memory, in MiB.
        #[serde(rename = "memoryMiB")]
        #[schemars(range(min = 1))]
        pub memory_mib: Option<i64>,
        /// Encryption of migrations.
        pub migrate_encryption: Option<MigrateEncryption>,
        /// Nested virtualization.
        #[serde(rename = "nestedHV")]
        pub nested_hv: Option<bool>,
        /// Network cards.
        pub network: NetworkSpec,
        /// Processors.
        #[serde(rename = "numCPUs")]
        #[schemars(range(min = 2))]
        pub num_cpus: Option<i32>,
        /// Cores in a socket.
        #[schemars(range(min = 0))]
        pub num_cores_per_socket: Option<i32>,
        /// PCI devices that are passed through.
        #[schemars(length(max = 128))]
        pub pci_devices: Vec<PciDevice>,
        /// Resource pool; a name, path or glob.
        #[schemars(length(min = 1, max = 2048))]
        pub resource_pool: Option<String>,
        /// Shares, limits and reservations.
        pub resources: ResourceAllocation,
        /// vCenter.
        #[schemars(length(min = 1, max = 1024))]
        pub server: Option<String>,
        /// Snapshot of the template; its current one when absent.
        #[schemars(length(min = 1, max = 1024))]
        pub snapshot: Option<String>,
        /// Storage policy.
        #[schemars(length(min = 1, max = 1024))]
        pub storage_policy_name: Option<String>,
        /// Tags, by their identifiers.
        #[serde(rename = "tagIDs")]
        #[schemars(length(max = 128), inner(length(min = 1, max = 1024)))]
        pub tag_ids: Vec<String>,
        /// Template; a name, path or identifier.
        #[schemars(length(min = 1, max = 2048))]
        pub template: String,
        /// Thumbprint of vCenter's certificate.
        #[schemars(length(min = 1, max = 1024))]
        pub thumbprint: Option<String>,
    }
    required ["network", "template"]
}

object! {
    /// An additional disk.
    pub struct DataDisk {
        /// Name.
        #[schemars(length(min = 1, max = 1024))]
        pub name: String,
        /// How its space is taken.
        pub provisioning_mode: Option<ProvisioningMode>,
        /// Size, in GiB.
        #[serde(rename = "sizeGiB")]
        #[schemars(range(min = 1))]
        pub size_gib: i32,
    }
    required ["name", "sizeGiB"]
}

object! {
    /// Network of a virtual machine.
    pub struct NetworkSpec {
        /// Network cards, in order.
        #[schemars(length(max = 128))]
        pub devices: Vec<NetworkDevice>,
        /// Routes.
        #[schemars(length(max = 512))]
        pub routes: Vec<NetworkRoute>,
    }
    required ["devices"]
}

object! {
    /// One network card.
    pub struct NetworkDevice {
        /// Pools that its addresses come from.
        #[schemars(length(max = 128))]
        pub addresses_from_pools: Vec<ContractReference>,
        /// Name of the interface.
        #[schemars(length(min = 1, max = 1024))]
        pub device_name: Option<String>,
        /// DHCP for IPv4.
        pub dhcp4: Option<bool>,
        /// What DHCP for IPv4 may set.
        pub dhcp4_overrides: Option<DhcpOverrides>,
        /// DHCP for IPv6.
        pub dhcp6: Option<bool>,
        /// What DHCP for IPv6 may set.
        pub dhcp6_overrides: Option<DhcpOverrides>,
        /// Gateway for IPv4.
        #[schemars(length(min = 1, max = 64))]
        pub gateway4: Option<String>,
        /// Gateway for IPv6.
        #[schemars(length(min = 1, max = 64))]
        pub gateway6: Option<String>,
        /// Fixed addresses in CIDR form.
        #[schemars(length(max = 128), inner(length(min = 1, max = 39)))]
        pub ip_addrs: Vec<String>,
        /// Hardware address.
        #[schemars(length(min = 1, max = 23))]
        pub mac_addr: Option<String>,
        /// Largest packet, in bytes.
        pub mtu: Option<i64>,
        /// DNS servers.
        #[schemars(length(max = 128), inner(length(min = 1, max = 64)))]
        pub nameservers: Vec<String>,
        /// Network that it is connected to; a name or path.
        #[schemars(length(min = 1, max = 2048))]
        pub network_name: String,
        /// Routes.
        #[schemars(length(max = 512))]
        pub routes: Vec<NetworkRoute>,
        /// DNS search domains.
        #[schemars(length(max = 128), inner(length(min = 1, max = 1024)))]
        pub search_domains: Vec<String>,
        /// The card gets no address.
        #[serde(rename = "skipIPAllocation")]
        pub skip_ip_allocation: Option<bool>,
    }
    required ["networkName"]
}

object! {
    /// What DHCP may set.
    pub struct DhcpOverrides {
        /// Host name that is sent.
        #[schemars(length(max = 1024))]
        pub hostname: Option<String>,
        /// Metric of routes.
        #[schemars(range(min = 0))]
        pub route_metric: Option<i32>,
        /// The host name is sent.
        pub send_hostname: Option<bool>,
        /// DNS servers are taken.
        #[serde(rename = "useDNS")]
        pub use_dns: Option<bool>,
        /// Domains are taken.
        #[schemars(length(max = 128))]
        pub use_domains: Option<String>,
        /// The host name is taken.
        pub use_hostname: Option<bool>,
        /// The packet size is taken.
        #[serde(rename = "useMTU")]
        pub use_mtu: Option<bool>,
        /// Time servers are taken.
        #[serde(rename = "useNTP")]
        pub use_ntp: Option<bool>,
        /// Routes are taken.
        #[schemars(length(max = 128))]
        pub use_routes: Option<String>,
    }
}

object! {
    /// A route.
    pub struct NetworkRoute {
        /// Metric.
        #[schemars(range(min = 0))]
        pub metric: i32,
        /// Network in CIDR form.
        #[schemars(length(min = 1, max = 39))]
        pub to: String,
        /// Gateway.
        #[schemars(length(min = 1, max = 39))]
        pub via: String,
    }
    required ["metric", "to", "via"]
}

object! {
    /// A PCI device that is passed through.
    pub struct PciDevice {
        /// Label of the device.
        #[schemars(length(min = 1, max = 1024))]
        pub custom_label: Option<String>,
        /// Device identifier.
        pub device_id: Option<i32>,
        /// Profile of a virtual GPU.
        #[serde(rename = "vGPUProfile")]
        #[schemars(length(min = 1, max = 1024))]
        pub vgpu_profile: Option<String>,
        /// Vendor identifier.
        pub vendor_id: Option<i32>,
    }
}

object! {
    /// Shares, limits and reservations of a virtual machine.
    #[schemars(extend("minProperties" = 1))]
    pub struct ResourceAllocation {
        /// Most.
        pub limits: ResourceAmounts,
        /// Reserved.
        pub requests: ResourceAmounts,
        /// Shares.
        pub shares: ResourceShares,
    }
}

object! {
    /// Amounts of processor (MHz) and memory, as quantities.
    #[schemars(extend("minProperties" = 1))]
    pub struct ResourceAmounts {
        /// Processor.
        #[schemars(with = "Option<crate::schema::Quantity>")]
        pub cpu: Option<serde_json::Value>,
        /// Memory.
        #[schemars(with = "Option<crate::schema::Quantity>")]
        pub memory: Option<serde_json::Value>,
    }
}

object! {
    /// Shares of processor and memory.
    #[schemars(extend("minProperties" = 1))]
    pub struct ResourceShares {
        /// Processor.
        #[schemars(range(min = 1))]
        pub cpu: Option<i32>,
        /// Memory.
        #[schemars(range(min = 1))]
        pub memory: Option<i32>,
    }
}
