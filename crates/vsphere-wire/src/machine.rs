//! Specifications of virtual machines (clone, reconfigure), and what is read back about their guests and snapshots.

use jiff::Timestamp;

use crate::device::VirtualDeviceConfigSpec;
use crate::value::{AnyValue, ManagedObjectReference, Raw};

data! {
    /// How to clone.
    VirtualMachineCloneSpec = "VirtualMachineCloneSpec" {
        location: VirtualMachineRelocateSpec = "location",
        is_template: bool = "template",
        config: Option<VirtualMachineConfigSpec> = "config",
        customization: Option<Raw> = "customization",
        is_powered_on: bool = "powerOn",
        /// The snapshot that a linked clone is a child of.
        snapshot: Option<ManagedObjectReference> = "snapshot",
        with_memory: Option<bool> = "memory",
        tpm_provision_policy: Option<String> = "tpmProvisionPolicy",
    }
    /// Where a machine and its disks go.
    #[derive(Default)]
    VirtualMachineRelocateSpec = "VirtualMachineRelocateSpec" {
        service: Option<Raw> = "service",
        folder: Option<ManagedObjectReference> = "folder",
        datastore: Option<ManagedObjectReference> = "datastore",
        /// `createNewChildDiskBacking` for a linked clone.
        disk_move_type: Option<String> = "diskMoveType",
        pool: Option<ManagedObjectReference> = "pool",
        host: Option<ManagedObjectReference> = "host",
        disks: Vec<DiskLocator> = "disk",
        transform: Option<String> = "transform",
        device_changes: Vec<VirtualDeviceConfigSpec> = "deviceChange",
        profiles: Vec<Raw> = "profile",
        crypto: Option<Raw> = "cryptoSpec",
    }
    /// Where one disk goes.
    DiskLocator = "VirtualMachineRelocateSpecDiskLocator" {
        disk_id: i32 = "diskId",
        datastore: ManagedObjectReference = "datastore",
        disk_move_type: Option<String> = "diskMoveType",
        backing: Option<crate::device::DeviceBacking> = "diskBackingInfo",
        profiles: Vec<Raw> = "profile",
        chain: Option<Raw> = "backing",
        filters: Vec<Raw> = "filterSpec",
    }
    /// What to set; what is absent stays as it is.
    #[derive(Default)]
    VirtualMachineConfigSpec = "VirtualMachineConfigSpec" {
        /// The state that the change is meant for: another one fails with ConcurrentAccess.
        change_version: Option<String> = "changeVersion",
        name: Option<String> = "name",
        /// Hardware version: `vmx-15`.
        version: Option<String> = "version",
        create_date: Option<Timestamp> = "createDate",
        /// BIOS UUID.
        uuid: Option<String> = "uuid",
        instance_uuid: Option<String> = "instanceUuid",
        guest_id: Option<String> = "guestId",
        alternate_guest_name: Option<String> = "alternateGuestName",
        annotation: Option<String> = "annotation",
        files: Option<VirtualMachineFileInfo> = "files",
        tools: Option<Raw> = "tools",
        flags: Option<VirtualMachineFlagInfo> = "flags",
        console_preferences: Option<Raw> = "consolePreferences",
        power_op_info: Option<Raw> = "powerOpInfo",
        is_rebooted_by_power_off: Option<bool> = "rebootPowerOff",
        cpus: Option<i32> = "numCPUs",
        vcpu_config: Vec<Raw> = "vcpuConfig",
        cores_per_socket: Option<i32> = "numCoresPerSocket",
        memory_mib: Option<i64> = "memoryMB",
        is_memory_hot_add_enabled: Option<bool> = "memoryHotAddEnabled",
        is_cpu_hot_add_enabled: Option<bool> = "cpuHotAddEnabled",
        is_cpu_hot_remove_enabled: Option<bool> = "cpuHotRemoveEnabled",
        device_changes: Vec<VirtualDeviceConfigSpec> = "deviceChange",
        cpu_allocation: Option<Raw> = "cpuAllocation",
        memory_allocation: Option<Raw> = "memoryAllocation",
        latency_sensitivity: Option<Raw> = "latencySensitivity",
        extra_config: Vec<OptionValue> = "extraConfig",
        swap_placement: Option<String> = "swapPlacement",
        boot_options: Option<Raw> = "bootOptions",
        vapp_config: Option<Raw> = "vAppConfig",
        is_vapp_config_removed: Option<bool> = "vAppConfigRemoved",
        is_change_tracking_enabled: Option<bool> = "changeTrackingEnabled",
        firmware: Option<String> = "firmware",
        managed_by: Option<Raw> = "managedBy",
        is_memory_reservation_locked: Option<bool> = "memoryReservationLockedToMax",
        is_nested_virtualization_enabled: Option<bool> = "nestedHVEnabled",
        is_vpmc_enabled: Option<bool> = "vPMCEnabled",
        scheduled_upgrade: Option<Raw> = "scheduledHardwareUpgradeInfo",
        profiles: Vec<Raw> = "vmProfile",
        crypto: Option<Raw> = "crypto",
    }
    /// Where a machine's files lie.
    #[derive(Default)]
    VirtualMachineFileInfo = "VirtualMachineFileInfo" {
        /// `[datastore] folder/name.vmx`.
        machine: Option<String> = "vmPathName",
        snapshots: Option<String> = "snapshotDirectory",
        suspend: Option<String> = "suspendDirectory",
        logs: Option<String> = "logDirectory",
    }
    /// Switches of a machine.
    #[derive(Default)]
    VirtualMachineFlagInfo = "VirtualMachineFlagInfo" {
        is_acceleration_disabled: Option<bool> = "disableAcceleration",
        is_logging_enabled: Option<bool> = "enableLogging",
        /// Whether disks show their UUIDs to the guest: volumes need it.
        is_disk_uuid_enabled: Option<bool> = "diskUuidEnabled",
        is_vbs_enabled: Option<bool> = "vbsEnabled",
    }
    /// A key of `extraConfig` with its value; an empty value removes the key.
    OptionValue = "OptionValue" typed {
        key: String = "key",
        value: AnyValue = "value",
    }
    /// What the guest says about one of its network cards.
    GuestNicInfo = "GuestNicInfo" {
        network: Option<String> = "network",
        addresses: Vec<String> = "ipAddress",
        mac_address: Option<String> = "macAddress",
        is_connected: bool = "connected",
        /// The key of the device; -1 for interfaces that are no adapter.
        device_key: i32 = "deviceConfigId",
        dns_config: Option<Raw> = "dnsConfig",
        ip_config: Option<NetIpConfigInfo> = "ipConfig",
        netbios_config: Option<Raw> = "netBIOSConfig",
    }
    /// The addresses of a card, with prefixes.
    NetIpConfigInfo = "NetIpConfigInfo" {
        addresses: Vec<NetIpConfigInfoIpAddress> = "ipAddress",
        dhcp: Option<Raw> = "dhcp",
        is_auto_configuration_enabled: Option<bool> = "autoConfigurationEnabled",
    }
    /// One address.
    NetIpConfigInfoIpAddress = "NetIpConfigInfoIpAddress" {
        address: String = "ipAddress",
        prefix_length: i32 = "prefixLength",
        origin: Option<String> = "origin",
        state: Option<String> = "state",
        lifetime: Option<Timestamp> = "lifetime",
    }
    /// A machine's snapshots.
    VirtualMachineSnapshotInfo = "VirtualMachineSnapshotInfo" {
        current: Option<ManagedObjectReference> = "currentSnapshot",
        roots: Vec<VirtualMachineSnapshotTree> = "rootSnapshotList",
    }
    /// A snapshot and those that follow it.
    VirtualMachineSnapshotTree = "VirtualMachineSnapshotTree" {
        snapshot: ManagedObjectReference = "snapshot",
        machine: ManagedObjectReference = "vm",
        name: String = "name",
        description: String = "description",
        id: Option<i32> = "id",
        create_time: Timestamp = "createTime",
        state: VirtualMachinePowerState = "state",
        is_quiesced: bool = "quiesced",
        backup_manifest: Option<String> = "backupManifest",
        children: Vec<VirtualMachineSnapshotTree> = "childSnapshotList",
        is_replay_supported: Option<bool> = "replaySupported",
    }
    /// A question that the machine waits on.
    VirtualMachineQuestionInfo = "VirtualMachineQuestionInfo" {
        id: String = "id",
        text: String = "text",
        choice: Raw = "choice",
        messages: Vec<Raw> = "message",
    }
    /// An opaque network's identity.
    OpaqueNetworkSummary = "OpaqueNetworkSummary" {
        network: Option<ManagedObjectReference> = "network",
        name: String = "name",
        is_accessible: bool = "accessible",
        ip_pool_name: String = "ipPoolName",
        ip_pool_id: Option<i32> = "ipPoolId",
        opaque_network_id: String = "opaqueNetworkId",
        opaque_network_type: String = "opaqueNetworkType",
    }
}

enumeration! {
    /// Whether a machine runs.
    VirtualMachinePowerState = "VirtualMachinePowerState" { PoweredOff = "poweredOff", PoweredOn = "poweredOn", Suspended = "suspended" }
}

impl OptionValue {
    /// A key with a text.
    pub fn text(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: AnyValue::string(value) }
    }
}
