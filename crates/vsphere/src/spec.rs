//! Specifications for clones and reconfigurations, built from what was resolved. Pure.
//!
//! A clone: powered off, with the ownership marker, without secrets; the template's network cards replaced, vApp settings dropped (they would win over guestinfo), disk
//! UUIDs shown to the guest. A linked clone's disks cannot be grown; a full clone's can, and never shrink.

use std::collections::BTreeMap;

use base64::Engine as _;
use vsphere_wire::device::{DISK, DeviceBacking, VMXNET3, VirtualDevice, VirtualDeviceConfigSpec};
use vsphere_wire::machine::{
    OptionValue, VirtualMachineCloneSpec, VirtualMachineConfigSpec, VirtualMachineFlagInfo, VirtualMachineRelocateSpec,
};
use vsphere_wire::value::AnyValue;

use crate::error::VSphereError;
use crate::inventory::{Placement, Template};
use crate::marker::{DISKS_KEY, Marker};

/// The longest value of a guestinfo key, in bytes.
pub const GUESTINFO_LIMIT: usize = 64 * 1024;
/// Where Talos reads its configuration.
pub const USERDATA_KEY: &str = "guestinfo.userdata";
/// Network settings as cloud-init has them; kept for compatibility.
pub const METADATA_KEY: &str = "guestinfo.metadata";

const GIB: i64 = 1024 * 1024 * 1024;

/// What a machine is to be, beside where it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneRequest {
    /// The name in its folder.
    pub name: String,
    pub instance_uuid: String,
    /// Whose the machine is. There is no reason to leave it out but to see the rule checker notice.
    pub marker: Option<Marker>,
    pub is_linked: bool,
    pub cpus: i32,
    /// None: as the template has it.
    pub cores_per_socket: Option<i32>,
    pub memory_mib: i64,
    /// The system disk's size in GiB; None or 0: as the template has it.
    pub disk_gib: Option<i32>,
    /// Sizes of the template's further disks, in order.
    pub additional_disks_gib: Vec<i32>,
    /// Disks beside the template's.
    pub data_disks: Vec<DataDisk>,
    /// Whether the guest may run virtual machines itself; None: as the template has it.
    pub is_nested: Option<bool>,
    /// MAC addresses of the network cards; None: of vCenter's choice. One for each network of the placement.
    pub macs: Vec<Option<String>>,
    /// Further settings of the user's.
    pub extra_config: BTreeMap<String, String>,
}

/// A disk that the clone gets beside the template's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataDisk {
    pub gib: i32,
    /// None: as the datastore has it.
    pub is_thin: Option<bool>,
    /// Zeroed before its first use.
    pub is_eager: bool,
}

/// What does not fit, although the clone is possible: to be told.
pub type Remarks = Vec<String>;

/// The clone's specification.
///
/// # Errors
/// When a linked clone has no snapshot, or a disk would have to shrink.
pub fn clone_spec(request: &CloneRequest, placement: &Placement) -> Result<(VirtualMachineCloneSpec, Remarks), VSphereError> {
    let template = &placement.template;
    if request.is_linked && template.snapshot.is_none() {
        return Err(VSphereError::NoSnapshot { template: template.path.clone(), wanted: template.wanted_snapshot.clone() });
    }
    let (mut changes, remarks) = disk_changes(request, template)?;
    changes.extend(template.devices.iter().filter(|device| device.is_ethernet()).cloned().map(VirtualDeviceConfigSpec::detach));
    changes.extend(nic_changes(request, placement));
    changes.extend(data_disk_changes(request, template)?);
    let mut extra_config: Vec<OptionValue> =
        request.extra_config.iter().map(|(key, value)| OptionValue::text(key.clone(), value.clone())).collect();
    extra_config.extend(request.marker.iter().flat_map(Marker::options));
    let config = VirtualMachineConfigSpec {
        instance_uuid: Some(request.instance_uuid.to_ascii_lowercase()),
        flags: Some(VirtualMachineFlagInfo { is_disk_uuid_enabled: Some(true), ..Default::default() }),
        cpus: Some(request.cpus),
        cores_per_socket: request.cores_per_socket,
        memory_mib: Some(request.memory_mib),
        device_changes: changes,
        extra_config,
        is_vapp_config_removed: Some(true),
        is_nested_virtualization_enabled: request.is_nested,
        ..Default::default()
    };
    let move_type = if request.is_linked { "createNewChildDiskBacking" } else { "moveAllDiskBackingsAndConsolidate" };
    let spec = VirtualMachineCloneSpec {
        location: VirtualMachineRelocateSpec {
            folder: Some(placement.folder.clone()),
            datastore: placement.datastore.clone(),
            disk_move_type: Some(move_type.to_owned()),
            pool: Some(placement.pool.clone()),
            ..Default::default()
        },
        is_template: false,
        config: Some(config),
        customization: None,
        is_powered_on: false,
        snapshot: template.snapshot.clone().filter(|_| request.is_linked),
        with_memory: None,
        tpm_provision_policy: None,
    };
    Ok((spec, remarks))
}

fn disk_changes(request: &CloneRequest, template: &Template) -> Result<(Vec<VirtualDeviceConfigSpec>, Remarks), VSphereError> {
    let mut disks: Vec<&VirtualDevice> = template.devices.iter().filter(|device| device.is_disk()).collect();
    disks.sort_by_key(|disk| disk.key);
    let wanted = std::iter::once(("diskGiB", request.disk_gib.unwrap_or(0)))
        .chain(request.additional_disks_gib.iter().map(|gib| ("additionalDisksGiB", *gib)));
    let mut changes = Vec::new();
    let mut remarks = Remarks::new();
    for (index, (field, gib)) in wanted.enumerate() {
        if gib == 0 {
            continue;
        }
        let Some(disk) = disks.get(index) else {
            remarks.push(format!("{field} {gib} has no effect: template {} has only {} disk(s)", template.path, disks.len()));
            continue;
        };
        let has = disk.capacity().unwrap_or(0);
        let wants = i64::from(gib).saturating_mul(GIB);
        if has == wants {
            continue;
        }
        let has_gib = has / GIB;
        if request.is_linked {
            remarks.push(format!(
                "{field} {gib} has no effect: disk {} of template {} has {has_gib} GiB, and the disks of a linked clone cannot be resized (use fullClone, or resize the template)",
                index + 1,
                template.path
            ));
        } else if wants < has {
            let reason = format!(
                "{field} {gib} would shrink disk {} of template {}, which has {has_gib} GiB: disks can only grow",
                index + 1,
                template.path
            );
            return Err(VSphereError::Refused { reason });
        } else {
            let mut disk = (*disk).clone();
            disk.capacity_bytes = Some(wants);
            disk.capacity_kib = Some(wants / 1024);
            changes.push(VirtualDeviceConfigSpec::edit(disk));
        }
    }
    Ok((changes, remarks))
}

/// Places on the first disk's controller: unit 7 is the controller's own, 15 the last.
const UNITS: std::ops::RangeInclusive<i32> = 0..=15;
const RESERVED_UNIT: i32 = 7;

fn data_disk_changes(request: &CloneRequest, template: &Template) -> Result<Vec<VirtualDeviceConfigSpec>, VSphereError> {
    if request.data_disks.is_empty() {
        return Ok(Vec::new());
    }
    let refused = |reason: String| VSphereError::Refused { reason };
    let first = template.devices.iter().filter(|device| device.is_disk()).min_by_key(|disk| disk.key);
    let Some(controller) = first.and_then(|disk| disk.controller_key) else {
        return Err(refused(format!(
            "dataDisks cannot be added: template {} has no disk whose controller they could share",
            template.path
        )));
    };
    let taken: Vec<i32> = template
        .devices
        .iter()
        .filter(|device| device.controller_key == Some(controller))
        .filter_map(|device| device.unit_number)
        .collect();
    let mut free = UNITS.filter(|unit| *unit != RESERVED_UNIT && !taken.contains(unit));
    let mut changes = Vec::new();
    for (number, wanted) in (1..).zip(&request.data_disks) {
        let Some(unit) = free.next() else {
            return Err(refused(format!("dataDisks: no place is left on the controller of template {}'s first disk", template.path)));
        };
        let mut disk = VirtualDevice::new(DISK, -200 - number);
        disk.backing = Some(DeviceBacking {
            // The server chooses the file, beside the machine's others.
            file_name: Some(String::new()),
            disk_mode: Some("persistent".to_owned()),
            is_thin_provisioned: wanted.is_thin,
            is_eagerly_scrubbed: wanted.is_eager.then_some(true),
            ..DeviceBacking::default()
        });
        disk.controller_key = Some(controller);
        disk.unit_number = Some(unit);
        disk.capacity_kib = Some(i64::from(wanted.gib).saturating_mul(GIB / 1024));
        changes.push(VirtualDeviceConfigSpec::create(disk));
    }
    Ok(changes)
}

fn nic_changes(request: &CloneRequest, placement: &Placement) -> Vec<VirtualDeviceConfigSpec> {
    let macs = request.macs.iter().map(Option::as_deref).chain(std::iter::repeat(None));
    let keys = (1..).map(|number: i32| -100 - number);
    let cards = placement.networks.iter().zip(macs).zip(keys).map(|((network, mac), key)| {
        let mut card = VirtualDevice::new(VMXNET3, key);
        card.backing = Some(network.backing.clone());
        card.address_type = Some(if mac.is_some() { "manual" } else { "generated" }.to_owned());
        card.mac_address = mac.map(str::to_owned);
        card
    });
    cards.map(VirtualDeviceConfigSpec::add).collect()
}

/// What is delivered to a machine before its first start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The marker with the instance UUID that vCenter really gave.
    pub marker: Marker,
    /// The disks made with the machine.
    pub disks: String,
    /// The machine configuration.
    pub userdata: String,
    /// Network settings in the form of cloud-init.
    pub metadata: String,
}

/// The one reconfiguration between clone and power-on.
pub fn delivery_spec(delivery: &Delivery) -> VirtualMachineConfigSpec {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let mut extra_config = delivery.marker.options();
    let mut set = |key: &str, value: String| extra_config.push(OptionValue::text(key, value));
    if !delivery.disks.is_empty() {
        set(DISKS_KEY, delivery.disks.clone());
    }
    set(METADATA_KEY, encode(&delivery.metadata));
    set("guestinfo.metadata.encoding", "base64".to_owned());
    set(USERDATA_KEY, encode(&delivery.userdata));
    set("guestinfo.userdata.encoding", "base64".to_owned());
    VirtualMachineConfigSpec { extra_config, ..Default::default() }
}

/// Whether a machine's settings already hold this delivery.
pub fn is_delivered(delivery: &Delivery, extra_config: &BTreeMap<String, String>) -> bool {
    delivery_spec(delivery).extra_config.iter().all(|option| extra_config.get(&option.key).map(String::as_str) == option.value.text())
}

/// Writes the marker anew: for a machine that is known to be ours by other means.
pub fn marker_spec(marker: &Marker) -> VirtualMachineConfigSpec {
    VirtualMachineConfigSpec { extra_config: marker.options(), ..Default::default() }
}

/// Takes disks off a machine without touching their files.
pub fn detach_spec(disks: Vec<VirtualDevice>) -> VirtualMachineConfigSpec {
    VirtualMachineConfigSpec { device_changes: disks.into_iter().map(VirtualDeviceConfigSpec::detach).collect(), ..Default::default() }
}

/// Checks that a configuration of this many bytes fits into a guestinfo value.
///
/// # Errors
/// When its base64 form is longer than 64 KiB.
pub fn check_size(bytes: usize) -> Result<(), VSphereError> {
    let encoded = bytes.div_ceil(3) * 4;
    if encoded <= GUESTINFO_LIMIT {
        return Ok(());
    }
    let most = GUESTINFO_LIMIT / 4 * 3;
    let reason = format!(
        "the machine configuration has {bytes} bytes ({encoded} in base64), more than the {most} that fit into a guestinfo value: move inline manifests and files to URLs, or make them smaller"
    );
    Err(VSphereError::Refused { reason })
}

/// The text of an option, for comparison.
pub fn option_text(value: &AnyValue) -> &str {
    value.text().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Network;
    use crate::marker::Owner;
    use vsphere_wire::ManagedObjectReference;
    use vsphere_wire::device::DeviceOperation;

    fn template(has_snapshot: bool) -> Template {
        let mut disk = VirtualDevice::new(DISK, 2000);
        disk.capacity_bytes = Some(10 * GIB);
        Template {
            reference: ManagedObjectReference::new("VirtualMachine", "vm-9"),
            path: "/DC0/vm/talos".to_owned(),
            snapshot: has_snapshot.then(|| ManagedObjectReference::new("VirtualMachineSnapshot", "snapshot-9")),
            wanted_snapshot: None,
            devices: vec![disk, VirtualDevice::new("VirtualE1000", 4000)],
        }
    }

    fn placement(has_snapshot: bool) -> Placement {
        Placement {
            datacenter: ManagedObjectReference::new("Datacenter", "datacenter-1"),
            datacenter_name: "DC0".to_owned(),
            folder: ManagedObjectReference::new("Folder", "group-v1"),
            folder_path: "/DC0/vm".to_owned(),
            pool: ManagedObjectReference::new("ResourcePool", "resgroup-1"),
            datastore: None,
            template: template(has_snapshot),
            networks: vec![Network { name: "VM Network".to_owned(), backing: DeviceBacking::network("VM Network") }],
        }
    }

    fn owner() -> Owner {
        Owner { installation: "i".to_owned(), cluster: "c".to_owned(), machine: "m".to_owned() }
    }

    fn request(is_linked: bool, disk_gib: i32) -> CloneRequest {
        CloneRequest {
            name: "node".to_owned(),
            instance_uuid: "U".to_owned(),
            marker: Some(Marker::new(owner(), "U")),
            is_linked,
            cpus: 2,
            cores_per_socket: None,
            memory_mib: 2048,
            disk_gib: Some(disk_gib),
            additional_disks_gib: vec![5],
            data_disks: Vec::new(),
            is_nested: None,
            macs: vec![None],
            extra_config: BTreeMap::new(),
        }
    }

    #[test]
    fn a_clone_replaces_the_cards_and_carries_the_marker() {
        let (spec, remarks) = clone_spec(&request(true, 10), &placement(true)).unwrap();
        assert_eq!(spec.snapshot.as_ref().unwrap().id, "snapshot-9");
        assert!(!spec.is_powered_on);
        let config = spec.config.unwrap();
        assert_eq!(config.instance_uuid.as_deref(), Some("u"));
        let operations: Vec<_> =
            config.device_changes.iter().map(|change| (change.operation.clone().unwrap(), change.device.key)).collect();
        assert_eq!(operations, [(DeviceOperation::Remove, 4000), (DeviceOperation::Add, -101)]);
        assert!(config.device_changes.iter().all(|change| change.file_operation.is_none()));
        assert_eq!(config.extra_config.len(), 4);
        assert_eq!(remarks, ["additionalDisksGiB 5 has no effect: template /DC0/vm/talos has only 1 disk(s)"]);
    }

    #[test]
    fn a_linked_clone_without_snapshot_is_refused() {
        assert!(matches!(clone_spec(&request(true, 10), &placement(false)), Err(VSphereError::NoSnapshot { .. })));
        assert!(clone_spec(&request(false, 10), &placement(false)).is_ok());
    }

    #[test]
    fn sizes_are_never_ignored_silently() {
        let (spec, _) = clone_spec(&request(false, 20), &placement(true)).unwrap();
        let config = spec.config.unwrap();
        assert_eq!(config.device_changes[0].operation, Some(DeviceOperation::Edit));
        assert_eq!(config.device_changes[0].device.capacity_bytes, Some(20 * GIB));
        assert_eq!(spec.snapshot, None);
        let (_, remarks) = clone_spec(&request(true, 20), &placement(true)).unwrap();
        assert!(remarks[0].contains("diskGiB 20 has no effect"), "{remarks:?}");
        let error = clone_spec(&request(false, 5), &placement(true)).unwrap_err();
        assert!(error.to_string().contains("would shrink"), "{error}");
    }

    #[test]
    fn data_disks_take_the_free_places_of_the_first_disks_controller() {
        let mut placement = placement(true);
        let units = [0, 6, 8];
        for (disk, unit) in (2000..).zip(units) {
            let mut device = VirtualDevice::new(DISK, disk);
            device.controller_key = Some(1000);
            device.unit_number = Some(unit);
            placement.template.devices.retain(|known| known.key != disk);
            placement.template.devices.push(device);
        }
        let wanted = DataDisk { gib: 20, is_thin: Some(true), is_eager: false };
        let mut request = CloneRequest { data_disks: vec![wanted; 7], ..request(true, 0) };
        let places = |request: &CloneRequest| {
            let changes = clone_spec(request, &placement).unwrap().0.config.unwrap().device_changes;
            let disks = changes.into_iter().map(|change| change.device).filter(|device| device.key < -200);
            disks.map(|disk| (disk.controller_key, disk.unit_number.unwrap(), disk.capacity())).collect::<Vec<_>>()
        };
        let expected = [1, 2, 3, 4, 5, 9, 10].map(|unit| (Some(1000), unit, Some(20 * GIB)));
        assert_eq!(places(&request), expected);
        request.data_disks = vec![wanted; 13];
        assert!(matches!(clone_spec(&request, &placement), Err(VSphereError::Refused { .. })));
    }

    #[test]
    fn the_limit_counts_the_encoded_form() {
        assert!(check_size(48 * 1024).is_ok());
        assert!(check_size(48 * 1024 + 1).is_err());
    }

    #[test]
    fn a_delivery_is_recognized() {
        let delivery = Delivery {
            marker: Marker::new(owner(), "u"),
            disks: "a".to_owned(),
            userdata: "machine: {}".to_owned(),
            metadata: "instance-id: x".to_owned(),
        };
        let mut settings: BTreeMap<String, String> = delivery_spec(&delivery)
            .extra_config
            .iter()
            .map(|option| (option.key.clone(), option_text(&option.value).to_owned()))
            .collect();
        assert_eq!(settings["guestinfo.userdata"], "bWFjaGluZToge30=");
        assert!(is_delivered(&delivery, &settings));
        settings.insert("guestinfo.userdata".to_owned(), String::new());
        assert!(!is_delivered(&delivery, &settings));
    }
}
