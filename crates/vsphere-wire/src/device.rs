//! Virtual devices and their backings, as a virtual machine has them and as a specification adds, edits or removes them.

use crate::value::{ManagedObjectReference, Raw, Value};
use crate::xml::Name;

/// The paravirtual network card.
pub const VMXNET3: &str = "VirtualVmxnet3";
/// A disk.
pub const DISK: &str = "VirtualDisk";
/// The paravirtual SCSI controller.
pub const PARAVIRTUAL_SCSI: &str = "ParaVirtualSCSIController";
/// A disk's file.
pub const FLAT_BACKING: &str = "VirtualDiskFlatVer2BackingInfo";
/// A standard network.
pub const NETWORK_BACKING: &str = "VirtualEthernetCardNetworkBackingInfo";
/// A distributed port group.
pub const PORT_BACKING: &str = "VirtualEthernetCardDistributedVirtualPortBackingInfo";
/// An opaque network (NSX).
pub const OPAQUE_BACKING: &str = "VirtualEthernetCardOpaqueNetworkBackingInfo";

/// The types of network cards that vSphere knows.
const ETHERNET: [&str; 7] = [
    "VirtualVmxnet3",
    "VirtualVmxnet3Vrdma",
    "VirtualVmxnet2",
    "VirtualVmxnet",
    "VirtualE1000",
    "VirtualE1000e",
    "VirtualSriovEthernetCard",
];

family! {
    /// A device. The members of disks, network cards and controllers beside those that all devices have.
    VirtualDevice or "VirtualDevice" {
        /// Unique in its machine; negative in a specification that adds it.
        key: i32 = "key",
        device_info: Option<Raw> = "deviceInfo",
        backing: Option<DeviceBacking> = "backing",
        connectable: Option<VirtualDeviceConnectInfo> = "connectable",
        slot_info: Option<Raw> = "slotInfo",
        controller_key: Option<i32> = "controllerKey",
        unit_number: Option<i32> = "unitNumber",
        numa_node: Option<i32> = "numaNode",
        /// Disk: KiB.
        capacity_kib: Option<i64> = "capacityInKB",
        /// Disk: bytes.
        capacity_bytes: Option<i64> = "capacityInBytes",
        shares: Option<Raw> = "shares",
        storage_io_allocation: Option<Raw> = "storageIOAllocation",
        disk_object_id: Option<String> = "diskObjectId",
        /// Disk: set for a first-class disk (a persistent volume).
        first_class_disk: Option<FirstClassDiskId> = "vDiskId",
        /// Network card: `manual`, `generated` or `assigned`.
        address_type: Option<String> = "addressType",
        /// Network card: lower-case pairs with colons.
        mac_address: Option<String> = "macAddress",
        is_wake_on_lan_enabled: Option<bool> = "wakeOnLanEnabled",
        resource_allocation: Option<Raw> = "resourceAllocation",
        external_id: Option<String> = "externalId",
        is_upt_compatible: Option<bool> = "uptCompatibilityEnabled",
        /// Controller: its bus.
        bus_number: Option<i32> = "busNumber",
        /// Controller: the keys of its devices.
        devices: Vec<i32> = "device",
        is_hot_add_remove: Option<bool> = "hotAddRemove",
        shared_bus: Option<String> = "sharedBus",
        scsi_unit_number: Option<i32> = "scsiCtlrUnitNumber",
    }
    /// What is behind a device: a disk's file, a card's network.
    DeviceBacking or "VirtualDiskFlatVer2BackingInfo" {
        /// Disk: `[datastore] folder/file.vmdk`; empty for a name of the server's choice.
        file_name: Option<String> = "fileName",
        datastore: Option<ManagedObjectReference> = "datastore",
        backing_object_id: Option<String> = "backingObjectId",
        disk_mode: Option<String> = "diskMode",
        is_split: Option<bool> = "split",
        is_write_through: Option<bool> = "writeThrough",
        is_thin_provisioned: Option<bool> = "thinProvisioned",
        is_eagerly_scrubbed: Option<bool> = "eagerlyScrub",
        uuid: Option<String> = "uuid",
        content_id: Option<String> = "contentId",
        change_id: Option<String> = "changeId",
        /// Disk: the disk that this one is a child of, in a linked clone.
        parent: Option<Box<DeviceBacking>> = "parent",
        delta_disk_format: Option<String> = "deltaDiskFormat",
        is_digest_enabled: Option<bool> = "digestEnabled",
        delta_grain_size: Option<i32> = "deltaGrainSize",
        delta_disk_format_variant: Option<String> = "deltaDiskFormatVariant",
        sharing: Option<String> = "sharing",
        key_id: Option<Raw> = "keyId",
        /// Network card on a standard network: its name.
        device_name: Option<String> = "deviceName",
        is_auto_detected: Option<bool> = "useAutoDetect",
        network: Option<ManagedObjectReference> = "network",
        is_in_passthrough_mode: Option<bool> = "inPassthroughMode",
        /// Network card on a distributed port group.
        port: Option<PortConnection> = "port",
        opaque_network_id: Option<String> = "opaqueNetworkId",
        opaque_network_type: Option<String> = "opaqueNetworkType",
    }
}

data! {
    /// Whether a device is and starts connected.
    VirtualDeviceConnectInfo = "VirtualDeviceConnectInfo" {
        migrate_connect: Option<String> = "migrateConnect",
        starts_connected: bool = "startConnected",
        allows_guest_control: bool = "allowGuestControl",
        is_connected: bool = "connected",
        status: Option<String> = "status",
    }
    /// A port of a distributed switch.
    PortConnection = "DistributedVirtualSwitchPortConnection" {
        switch_uuid: String = "switchUuid",
        portgroup_key: Option<String> = "portgroupKey",
        port_key: Option<String> = "portKey",
        connection_cookie: Option<i32> = "connectionCookie",
    }
    /// The id of a first-class disk.
    FirstClassDiskId = "ID" {
        id: String = "id",
    }
    /// A change of one device.
    VirtualDeviceConfigSpec = "VirtualDeviceConfigSpec" typed {
        /// `add`, `edit` or `remove`.
        operation: Option<DeviceOperation> = "operation",
        /// `create`, `destroy` or `replace`: what becomes of the file behind it. Absent: a removed disk's file stays.
        file_operation: Option<DeviceFileOperation> = "fileOperation",
        device: VirtualDevice = "device",
        profile: Vec<Raw> = "profile",
    }
}

enumeration! {
    /// What becomes of a device.
    DeviceOperation = "VirtualDeviceConfigSpecOperation" { Add = "add", Remove = "remove", Edit = "edit" }
    /// What becomes of the file behind it.
    DeviceFileOperation = "VirtualDeviceConfigSpecFileOperation" { Create = "create", Destroy = "destroy", Replace = "replace" }
}

impl VirtualDevice {
    /// A device of this type with nothing but a key.
    pub fn new(kind: impl Into<std::borrow::Cow<'static, str>>, key: i32) -> Self {
        let mut device = Self::empty(key);
        device.kind = Name::vim(kind);
        device
    }

    fn empty(key: i32) -> Self {
        Self {
            kind: Name::vim("VirtualDevice"),
            key,
            device_info: None,
            backing: None,
            connectable: None,
            slot_info: None,
            controller_key: None,
            unit_number: None,
            numa_node: None,
            capacity_kib: None,
            capacity_bytes: None,
            shares: None,
            storage_io_allocation: None,
            disk_object_id: None,
            first_class_disk: None,
            address_type: None,
            mac_address: None,
            is_wake_on_lan_enabled: None,
            resource_allocation: None,
            external_id: None,
            is_upt_compatible: None,
            bus_number: None,
            devices: Vec::new(),
            is_hot_add_remove: None,
            shared_bus: None,
            scsi_unit_number: None,
            others: Vec::new(),
        }
    }

    /// Whether it is a disk.
    pub fn is_disk(&self) -> bool {
        self.kind.local == DISK
    }

    /// Whether it is a network card.
    pub fn is_ethernet(&self) -> bool {
        ETHERNET.contains(&self.kind.local.as_ref())
    }

    /// A disk's size in bytes, whichever way the server gives it.
    pub fn capacity(&self) -> Option<i64> {
        self.capacity_bytes.or_else(|| self.capacity_kib.and_then(|kib| kib.checked_mul(1024)))
    }

    /// The file behind a disk.
    pub fn file_name(&self) -> Option<&str> {
        self.backing.as_ref().and_then(|backing| backing.file_name.as_deref())
    }
}

impl DeviceBacking {
    /// A backing of this type with nothing in it.
    pub fn new(kind: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self {
            kind: Name::vim(kind),
            file_name: None,
            datastore: None,
            backing_object_id: None,
            disk_mode: None,
            is_split: None,
            is_write_through: None,
            is_thin_provisioned: None,
            is_eagerly_scrubbed: None,
            uuid: None,
            content_id: None,
            change_id: None,
            parent: None,
            delta_disk_format: None,
            is_digest_enabled: None,
            delta_grain_size: None,
            delta_disk_format_variant: None,
            sharing: None,
            key_id: None,
            device_name: None,
            is_auto_detected: None,
            network: None,
            is_in_passthrough_mode: None,
            port: None,
            opaque_network_id: None,
            opaque_network_type: None,
            others: Vec::new(),
        }
    }

    /// A card on a standard network.
    pub fn network(name: impl Into<String>) -> Self {
        Self { device_name: Some(name.into()), ..Self::new(NETWORK_BACKING) }
    }

    /// A card on a distributed port group.
    pub fn port_group(switch_uuid: impl Into<String>, portgroup_key: impl Into<String>) -> Self {
        let port = PortConnection {
            switch_uuid: switch_uuid.into(),
            portgroup_key: Some(portgroup_key.into()),
            port_key: None,
            connection_cookie: None,
        };
        Self { port: Some(port), ..Self::new(PORT_BACKING) }
    }

    /// A card on an opaque network.
    pub fn opaque(id: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { opaque_network_id: Some(id.into()), opaque_network_type: Some(kind.into()), ..Self::new(OPAQUE_BACKING) }
    }
}

impl VirtualDeviceConfigSpec {
    /// Adds a device without a file of its own.
    pub fn add(device: VirtualDevice) -> Self {
        Self { operation: Some(DeviceOperation::Add), file_operation: None, device, profile: Vec::new() }
    }

    /// Adds a disk and makes its file.
    pub fn create(device: VirtualDevice) -> Self {
        Self { file_operation: Some(DeviceFileOperation::Create), ..Self::add(device) }
    }

    /// Changes a device.
    pub fn edit(device: VirtualDevice) -> Self {
        Self { operation: Some(DeviceOperation::Edit), ..Self::add(device) }
    }

    /// Takes a device away; a disk's file stays where it is.
    pub fn detach(device: VirtualDevice) -> Self {
        Self { operation: Some(DeviceOperation::Remove), ..Self::add(device) }
    }
}

/// Reads devices from the value of `config.hardware.device`.
///
/// # Errors
/// When the value is no array of devices.
pub fn devices(value: &crate::value::AnyValue) -> Result<Vec<VirtualDevice>, crate::value::DecodeError> {
    value.decode_array::<VirtualDevice>()
}

impl Default for DeviceBacking {
    fn default() -> Self {
        Self::new(FLAT_BACKING)
    }
}

const _: () = assert!(VirtualDevice::IS_TYPE_WRITTEN);
