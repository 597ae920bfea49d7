//! Cloning: a copy that inherits everything of its source that the specification does not change, and gets its own identity.
//!
//! A linked clone's disks are differences to a snapshot's; without a snapshot there is nothing to build on, and a difference cannot be
//! larger than what it is a difference to. An instance UUID that is taken is not given twice: the clone gets another one.

use jiff::Timestamp;
use vsphere_wire::machine::{DiskLocator, VirtualMachineCloneSpec, VirtualMachineConfigSpec};

use super::device::{Backing, Device};
use super::device_change::{self, Outside};
use super::failure::Failure;
use super::inventory::{Inventory, Kind, Reference};
use super::vm::Vm;
use crate::hypervisor::Origin;

/// A linked clone's disks are made so.
pub const LINKED: &str = "createNewChildDiskBacking";

/// The longest value of a guest variable.
const MAX_VARIABLE: usize = 64 * 1024;

/// Checks what a clone call refers to, before there is a task.
///
/// # Errors
/// When a reference leads nowhere or a required one is missing.
pub fn check(
    inventory: &Inventory,
    source: &Reference,
    folder: &Reference,
    name: &str,
    spec: &VirtualMachineCloneSpec,
) -> Result<(), Failure> {
    let vm = inventory.vm(source).ok_or_else(|| Failure::not_found(source))?;
    let is_vm_folder = match inventory.get(folder).map(|object| &object.kind) {
        Some(Kind::Folder { child_types, .. }) => child_types.contains(&"VirtualMachine"),
        Some(_) => false,
        None => return Err(Failure::not_found(folder)),
    };
    if !is_vm_folder {
        return Err(Failure::invalid_argument("folder"));
    }
    if name.is_empty() || name.chars().count() > 80 {
        return Err(Failure::invalid_argument("name"));
    }
    let location = &spec.location;
    for reference in [&location.pool, &location.datastore, &location.host, &location.folder, &spec.snapshot].into_iter().flatten() {
        if inventory.get(reference).is_none() {
            return Err(Failure::not_found(reference));
        }
    }
    if location.pool.is_none() && !spec.is_template && vm.pool.is_none() {
        return Err(Failure::invalid_argument("spec.location.pool"));
    }
    if spec.snapshot.as_ref().is_some_and(|snapshot| !vm.snapshots.contains(snapshot)) {
        return Err(Failure::invalid_argument("spec.snapshot"));
    }
    Ok(())
}

/// Makes the clone: what becomes the new VM, its name still free in its folder.
///
/// # Errors
/// When the specification cannot be carried out.
pub fn make(
    inventory: &Inventory,
    source: &Reference,
    name: &str,
    spec: &VirtualMachineCloneSpec,
    now: Timestamp,
) -> Result<(Vm, Outside), Failure> {
    let original = inventory.vm(source).ok_or_else(|| Failure::not_found(source))?;
    let location = &spec.location;
    let datastore = location.datastore.clone().unwrap_or_else(|| original.home_datastore.clone());
    let store = inventory.get(&datastore).map(|object| object.name.clone()).unwrap_or_default();
    let directory = free_directory(inventory, &datastore, name);
    let base = spec.snapshot.as_ref().and_then(|snapshot| inventory.snapshot(snapshot));
    let mut devices: Vec<Device> = base.map_or_else(|| original.devices.clone(), |snapshot| snapshot.devices.clone());
    // A volume belongs to whom it was given to, not to copies.
    devices.retain(|device| device.disk().is_none_or(|disk| disk.volume.is_none()));
    let mut needed = 0;
    let mut number = 0;
    for device in &mut devices {
        let key = device.key;
        if let Some(disk) = device.disk_mut() {
            let locator = location.disks.iter().find(|locator| locator.disk_id == key);
            let target = locator.map_or_else(|| datastore.clone(), |locator| locator.datastore.clone());
            let target_store = inventory.get(&target).ok_or_else(|| Failure::not_found(&target))?.name.clone();
            let is_linked = is_linked(location.disk_move_type.as_deref(), locator);
            if is_linked && base.is_none() {
                return Err(Failure::invalid_argument("spec.snapshot"));
            }
            let suffix = if number == 0 { String::new() } else { format!("_{number}") };
            number += 1;
            if !is_linked {
                needed += disk.capacity;
            }
            disk.backing = Backing {
                file: format!("[{target_store}] {directory}/{name}{suffix}.vmdk"),
                datastore: target,
                uuid: inventory.fresh_uuid(),
                is_thin: disk.backing.is_thin,
                mode: disk.backing.mode.clone(),
                parent: is_linked.then(|| Box::new(Backing { is_foreign: true, ..disk.backing.clone() })),
                is_foreign: false,
            };
        }
        if let Some(nic) = device.nic_mut()
            && nic.address_type != "manual"
        {
            nic.mac = inventory.fresh_mac();
        }
    }
    if inventory.free(&datastore) < needed {
        return Err(Failure::no_disk_space(&store));
    }
    let pool = if spec.is_template { None } else { location.pool.clone().or_else(|| original.pool.clone()) };
    let host = location.host.clone().or_else(|| pool.as_ref().and_then(|pool| host_for(inventory, pool)));
    let mut vm = Vm {
        bios_uuid: inventory.fresh_uuid(),
        instance_uuid: inventory.fresh_uuid(),
        is_template: spec.is_template,
        is_powered_on: false,
        devices,
        pool,
        host: host.unwrap_or_else(|| original.host.clone()),
        home: format!("[{store}] {directory}/{name}.vmx"),
        home_datastore: datastore,
        snapshots: Vec::new(),
        current_snapshot: None,
        disk_id: inventory.fresh_uuid(),
        tools: None,
        boot_time: None,
        created: now,
        change_version: now,
        origin: Origin::Api,
        acts: Vec::new(),
        busy: None,
        ..original.clone()
    };
    let datacenter = inventory.datacenter_of(source).ok_or_else(|| Failure::not_found(source))?;
    let mut outside = device_change::apply(inventory, &datacenter, &mut vm, name, &location.device_changes)?;
    if let Some(config) = &spec.config {
        let more = configure(inventory, &datacenter, &mut vm, None, name, config)?;
        outside.attached_volumes.extend(more.attached_volumes);
        outside.destroyed_volumes.extend(more.destroyed_volumes);
    }
    Ok((vm, outside))
}

fn is_linked(whole: Option<&str>, locator: Option<&DiskLocator>) -> bool {
    locator.and_then(|locator| locator.disk_move_type.as_deref()).or(whole) == Some(LINKED)
}

/// A directory for a VM's files that no other VM uses: its name, or that with a number.
fn free_directory(inventory: &Inventory, datastore: &Reference, name: &str) -> String {
    let is_free = |directory: &String| !inventory.vms().any(|(_, vm)| vm.home_datastore == *datastore && vm.directory() == directory);
    let candidates = std::iter::once(name.to_owned()).chain((1..).map(|number| format!("{name}_{number}")));
    candidates.into_iter().find(is_free).unwrap_or_else(|| name.to_owned())
}

/// The host of a pool's cluster with the fewest VMs.
pub fn host_for(inventory: &Inventory, pool: &Reference) -> Option<Reference> {
    let Kind::Pool { owner, .. } = &inventory.get(pool)?.kind else { return None };
    let Kind::Cluster { hosts, .. } = &inventory.get(owner)?.kind else { return None };
    hosts.iter().min_by_key(|host| inventory.vms().filter(|(_, vm)| vm.host == **host).count()).cloned()
}

/// Changes a VM's settings as a specification says. `itself` is its reference, once it has one.
///
/// # Errors
/// When a setting cannot be made; `vm` must be thrown away then.
pub fn configure(
    inventory: &Inventory,
    datacenter: &Reference,
    vm: &mut Vm,
    itself: Option<&Reference>,
    name: &str,
    spec: &VirtualMachineConfigSpec,
) -> Result<Outside, Failure> {
    if let Some(uuid) = spec.uuid.as_deref().filter(|uuid| !uuid.is_empty()) {
        vm.bios_uuid = checked_uuid(uuid).ok_or_else(|| Failure::invalid_argument("configSpec.uuid"))?;
    }
    if let Some(uuid) = spec.instance_uuid.as_deref().filter(|uuid| !uuid.is_empty()) {
        let uuid = checked_uuid(uuid).ok_or_else(|| Failure::invalid_argument("configSpec.instanceUuid"))?;
        let is_taken = inventory.vms().any(|(object, other)| other.instance_uuid == uuid && Some(&object.reference) != itself);
        vm.instance_uuid = if is_taken { inventory.fresh_uuid() } else { uuid };
    }
    if let Some(cpus) = spec.cpus {
        if cpus < 1 {
            return Err(Failure::invalid_argument("configSpec.numCPUs"));
        }
        vm.cpus = cpus;
    }
    if let Some(cores) = spec.cores_per_socket {
        vm.cores_per_socket = cores.max(1);
    }
    if let Some(memory) = spec.memory_mib {
        if memory < 4 || memory % 4 != 0 {
            return Err(Failure::invalid_argument("configSpec.memoryMB"));
        }
        vm.memory_mib = memory;
    }
    if let Some(flags) = &spec.flags
        && let Some(is_enabled) = flags.is_disk_uuid_enabled
    {
        vm.is_disk_uuid_enabled = is_enabled;
    }
    set(&mut vm.annotation, spec.annotation.as_ref());
    set(&mut vm.guest_id, spec.guest_id.as_ref());
    set(&mut vm.version, spec.version.as_ref());
    set(&mut vm.firmware, spec.firmware.as_ref());
    if spec.is_vapp_config_removed == Some(true) {
        vm.has_vapp_config = false;
    }
    for option in &spec.extra_config {
        let value = option.value.text().ok_or_else(|| Failure::invalid_argument("configSpec.extraConfig"))?;
        if option.key.is_empty() || value.len() > MAX_VARIABLE {
            return Err(Failure::invalid_argument("configSpec.extraConfig"));
        }
        vm.set_extra(&option.key, value);
    }
    device_change::apply(inventory, datacenter, vm, name, &spec.device_changes)
}

fn set(setting: &mut String, value: Option<&String>) {
    if let Some(value) = value {
        setting.clone_from(value);
    }
}

fn checked_uuid(uuid: &str) -> Option<String> {
    uuid::Uuid::parse_str(uuid).ok().map(|uuid| uuid.hyphenated().to_string())
}
