//! What tasks do. An operation claims what it needs when it is asked for, is checked again when it runs, and changes the inventory in
//! one step when its time is over: nobody sees half of it.

use jiff::Timestamp;
use vsphere_wire::machine::{VirtualMachineCloneSpec, VirtualMachineConfigSpec};

use super::clone;
use super::construction::take_snapshot;
use super::device_change::Outside;
use super::failure::Failure;
use super::inventory::{Inventory, Kind, Reference, stored_name};
use super::val::Val;
use crate::hypervisor::{Disk, Nic, PoweredOn, VmId};

/// What a task does.
#[derive(Clone, Debug)]
pub enum Operation {
    Clone {
        source: Reference,
        folder: Reference,
        name: String,
        spec: Box<VirtualMachineCloneSpec>,
    },
    Reconfigure {
        vm: Reference,
        spec: Box<VirtualMachineConfigSpec>,
    },
    PowerOn {
        vm: Reference,
    },
    PowerOff {
        vm: Reference,
    },
    Destroy {
        entity: Reference,
    },
    Rename {
        entity: Reference,
        name: String,
    },
    Snapshot {
        vm: Reference,
        name: String,
        description: String,
    },
    /// Looks for a file: `[datastore] directory`, a name.
    Search {
        browser: Reference,
        directory: String,
        pattern: String,
    },
}

/// What guests are to hear.
#[derive(Clone, Debug)]
pub enum GuestEvent {
    PoweredOn(Box<PoweredOn>),
    PoweredOff(VmId),
    Destroyed(VmId),
}

/// What came of an operation.
#[derive(Debug, Default)]
pub struct Done {
    pub result: Option<Val>,
    pub guests: Vec<GuestEvent>,
    /// What happened to which object, for the log and the events.
    pub object: String,
}

impl Operation {
    /// The method that asks for it.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Clone { .. } => "CloneVM_Task",
            Self::Reconfigure { .. } => "ReconfigVM_Task",
            Self::PowerOn { .. } => "PowerOnVM_Task",
            Self::PowerOff { .. } => "PowerOffVM_Task",
            Self::Destroy { .. } => "Destroy_Task",
            Self::Rename { .. } => "Rename_Task",
            Self::Snapshot { .. } => "CreateSnapshot_Task",
            Self::Search { .. } => "SearchDatastore_Task",
        }
    }

    /// As a task's description names it.
    pub fn description(&self) -> &'static str {
        match self {
            Self::Clone { .. } => "VirtualMachine.clone",
            Self::Reconfigure { .. } => "VirtualMachine.reconfigure",
            Self::PowerOn { .. } => "VirtualMachine.powerOn",
            Self::PowerOff { .. } => "VirtualMachine.powerOff",
            Self::Destroy { entity } if entity.kind == "Folder" => "Folder.destroy",
            Self::Destroy { .. } => "VirtualMachine.destroy",
            Self::Rename { .. } => "ManagedEntity.rename",
            Self::Snapshot { .. } => "VirtualMachine.createSnapshot",
            Self::Search { .. } => "HostDatastoreBrowser.search",
        }
    }

    /// As the log names it.
    pub fn step(&self) -> &'static str {
        match self {
            Self::Clone { .. } => "clone",
            Self::Reconfigure { .. } => "reconfigure",
            Self::PowerOn { .. } => "power-on",
            Self::PowerOff { .. } => "power-off",
            Self::Destroy { .. } => "destroy",
            Self::Rename { .. } => "rename",
            Self::Snapshot { .. } => "snapshot",
            Self::Search { .. } => "search",
        }
    }

    /// The kind of event that its success is.
    pub fn event(&self) -> Option<&'static str> {
        match self {
            Self::Clone { .. } => Some("VmClonedEvent"),
            Self::Reconfigure { .. } => Some("VmReconfiguredEvent"),
            Self::PowerOn { .. } => Some("VmPoweredOnEvent"),
            Self::PowerOff { .. } => Some("VmPoweredOffEvent"),
            Self::Destroy { .. } => Some("VmRemovedEvent"),
            Self::Rename { .. } => Some("VmRenamedEvent"),
            Self::Snapshot { .. } | Self::Search { .. } => None,
        }
    }

    /// What it works on.
    pub fn entity(&self) -> &Reference {
        match self {
            Self::Clone { source: entity, .. }
            | Self::Reconfigure { vm: entity, .. }
            | Self::PowerOn { vm: entity }
            | Self::PowerOff { vm: entity }
            | Self::Destroy { entity }
            | Self::Rename { entity, .. }
            | Self::Snapshot { vm: entity, .. }
            | Self::Search { browser: entity, .. } => entity,
        }
    }

    /// Whether the entity is its alone while it runs.
    fn locks(&self) -> bool {
        !matches!(self, Self::Clone { .. } | Self::Search { .. })
    }

    /// Claims what the operation needs, for `task`.
    ///
    /// # Errors
    /// When it is taken.
    pub fn claim(&self, inventory: &mut Inventory, task: &Reference) -> Result<(), Failure> {
        if let Self::Clone { folder, name, .. } = self {
            let name = stored_name(name);
            if !inventory.is_name_free(folder, &name) {
                let object = inventory.child(folder, &name).unwrap_or_else(|| folder.clone());
                return Err(Failure::duplicate_name(&name, &object));
            }
            inventory.claimed.insert((folder.id.clone(), name), task.clone());
        }
        if self.locks()
            && let Some(vm) = inventory.change_vm(self.entity())
        {
            if let Some(busy) = &vm.busy {
                return Err(Failure::task_in_progress(busy));
            }
            vm.busy = Some(task.clone());
        }
        Ok(())
    }

    /// Does it.
    ///
    /// # Errors
    /// When it cannot be done; then nothing is changed.
    pub fn perform(&self, inventory: &mut Inventory, now: Timestamp) -> Result<Done, Failure> {
        match self {
            Self::Clone { source, folder, name, spec } => perform_clone(inventory, source, folder, name, spec, now),
            Self::Reconfigure { vm, spec } => perform_reconfigure(inventory, vm, spec, now),
            Self::PowerOn { vm } => power_on(inventory, vm, now),
            Self::PowerOff { vm } => power_off(inventory, vm),
            Self::Destroy { entity } => destroy(inventory, entity),
            Self::Rename { entity, name } => rename(inventory, entity, name),
            Self::Snapshot { vm, name, description } => snapshot(inventory, vm, name, description, now),
            Self::Search { browser, directory, pattern } => search(inventory, browser, directory, pattern),
        }
    }
}

/// Gives back what `task` has claimed.
pub fn release(inventory: &mut Inventory, task: &Reference) {
    inventory.claimed.retain(|_, holder| holder != task);
    let entity = inventory.task(task).map(|task| task.entity.clone());
    let is_busy = |entity: &Reference| inventory.vm(entity).is_some_and(|vm| vm.busy.as_ref() == Some(task));
    if let Some(entity) = entity.filter(is_busy)
        && let Some(vm) = inventory.change_vm(&entity)
    {
        vm.busy = None;
    }
}

/// `vm-42 name`, for the log.
pub fn label(inventory: &Inventory, reference: &Reference) -> String {
    match inventory.get(reference) {
        Some(object) => format!("{} {}", reference.id, object.name),
        None => reference.id.clone(),
    }
}

fn settle_outside(inventory: &mut Inventory, outside: Outside) {
    for volume in outside.destroyed_volumes {
        inventory.volumes.remove(&volume);
    }
    inventory.volumes.extend(outside.attached_volumes);
}

fn perform_clone(
    inventory: &mut Inventory,
    source: &Reference,
    folder: &Reference,
    name: &str,
    spec: &VirtualMachineCloneSpec,
    now: Timestamp,
) -> Result<Done, Failure> {
    clone::check(inventory, source, folder, name, spec)?;
    let name = stored_name(name);
    if let Some(taken) = inventory.child(folder, &name) {
        return Err(Failure::duplicate_name(&name, &taken));
    }
    let (vm, outside) = clone::make(inventory, source, &name, spec, now)?;
    let made = inventory.insert("VirtualMachine", "vm-", &name, Some(folder), Kind::Vm(Box::new(vm)));
    inventory.touch_around(&made);
    settle_outside(inventory, outside);
    let mut done = Done { result: Some(Val::reference(&made)), guests: Vec::new(), object: label(inventory, &made) };
    if spec.is_powered_on {
        done.guests = power_on(inventory, &made, now)?.guests;
    }
    Ok(done)
}

fn perform_reconfigure(
    inventory: &mut Inventory,
    reference: &Reference,
    spec: &VirtualMachineConfigSpec,
    now: Timestamp,
) -> Result<Done, Failure> {
    let vm = inventory.vm(reference).ok_or_else(|| Failure::not_found(reference))?;
    let name = inventory.get(reference).map(|object| object.name.clone()).unwrap_or_default();
    if spec.change_version.as_ref().is_some_and(|version| !version.is_empty() && *version != format!("{:.6}", vm.change_version)) {
        return Err(Failure::concurrent_access());
    }
    if vm.is_template {
        let allowed = VirtualMachineConfigSpec {
            change_version: spec.change_version.clone(),
            name: spec.name.clone(),
            annotation: spec.annotation.clone(),
            ..VirtualMachineConfigSpec::default()
        };
        if allowed != *spec {
            return Err(Failure::not_supported());
        }
    }
    let datacenter = inventory.datacenter_of(reference).ok_or_else(|| Failure::not_found(reference))?;
    let mut changed = vm.clone();
    let outside = clone::configure(inventory, &datacenter, &mut changed, Some(reference), &name, spec)?;
    if let Some(new_name) = spec.name.as_ref().filter(|new| stored_name(new) != name) {
        rename(inventory, reference, new_name)?;
    }
    changed.change_version = now;
    inventory.touch_around(reference);
    if let Some(vm) = inventory.change_vm(reference) {
        *vm = changed;
    }
    inventory.touch_around(reference);
    settle_outside(inventory, outside);
    Ok(Done { object: label(inventory, reference), ..Done::default() })
}

fn power_on(inventory: &mut Inventory, reference: &Reference, now: Timestamp) -> Result<Done, Failure> {
    let name = inventory.get(reference).map(|object| object.name.clone()).unwrap_or_default();
    let server = inventory.server.clone();
    let networks: Vec<String> = inventory
        .vm(reference)
        .map(|vm| vm.nics().map(|nic| inventory.get(nic.port.network()).map(|object| object.name.clone()).unwrap_or_default()).collect())
        .unwrap_or_default();
    let vm = inventory.vm(reference).ok_or_else(|| Failure::not_found(reference))?;
    if vm.is_template {
        return Err(Failure::not_supported());
    }
    if vm.is_powered_on {
        return Err(Failure::power_state("poweredOn", "poweredOn"));
    }
    let Some(vm) = inventory.change_vm(reference) else { return Err(Failure::not_found(reference)) };
    vm.is_powered_on = true;
    vm.boot_time = Some(now);
    let nics = vm.nics().zip(networks).map(|(nic, network)| Nic { mac: nic.mac.clone(), network }).collect();
    let event = PoweredOn {
        id: VmId(reference.id.clone()),
        name,
        bios_uuid: vm.bios_uuid.clone(),
        instance_uuid: vm.instance_uuid.clone(),
        nics,
        template_version: vm.talos_version.clone(),
        disks: disks(vm),
        vcenter: server,
        fresh_disk_id: vm.disk_id.clone(),
    };
    Ok(Done { guests: vec![GuestEvent::PoweredOn(Box::new(event))], object: label(inventory, reference), result: None })
}

/// The disks of a VM, as guests and the checker see them.
pub fn disks(vm: &super::vm::Vm) -> Vec<Disk> {
    let disk = |device: &super::device::Device| {
        let disk = device.disk()?;
        Some(Disk {
            key: device.key,
            file: disk.backing.file.clone(),
            capacity: disk.capacity,
            parent_file: disk.backing.parent.as_ref().map(|parent| parent.file.clone()),
            is_persistent: disk.volume.is_some(),
        })
    };
    vm.devices.iter().filter_map(disk).collect()
}

/// Takes the power away.
pub fn power_off(inventory: &mut Inventory, reference: &Reference) -> Result<Done, Failure> {
    let vm = inventory.vm(reference).ok_or_else(|| Failure::not_found(reference))?;
    if !vm.is_powered_on {
        return Err(Failure::power_state("poweredOff", "poweredOff"));
    }
    if let Some(vm) = inventory.change_vm(reference) {
        vm.is_powered_on = false;
        vm.boot_time = None;
        vm.tools = None;
    }
    let guests = vec![GuestEvent::PoweredOff(VmId(reference.id.clone()))];
    Ok(Done { guests, object: label(inventory, reference), result: None })
}

fn destroy(inventory: &mut Inventory, entity: &Reference) -> Result<Done, Failure> {
    let object = label(inventory, entity);
    let doomed: Vec<Reference> = match inventory.get(entity).map(|object| &object.kind) {
        Some(Kind::Vm(_)) => vec![entity.clone()],
        Some(Kind::Folder { .. }) if inventory.get(entity).is_some_and(is_own_folder) => {
            inventory.contents(entity, true).into_iter().filter(|inside| inside.kind == "VirtualMachine").collect()
        }
        Some(_) => return Err(Failure::not_supported()),
        None => return Err(Failure::not_found(entity)),
    };
    for vm in &doomed {
        if inventory.vm(vm).is_some_and(|vm| vm.is_powered_on) {
            return Err(Failure::power_state("poweredOff", "poweredOn"));
        }
        if inventory.has_linked_children(vm) {
            return Err(Failure::resource_in_use(&label(inventory, vm)));
        }
    }
    let mut guests = Vec::new();
    for vm in doomed {
        remove_vm(inventory, &vm);
        guests.push(GuestEvent::Destroyed(VmId(vm.id.clone())));
    }
    if entity.kind == "Folder" {
        let folders: Vec<Reference> = inventory.contents(entity, true).into_iter().collect();
        for inside in folders.iter().chain([entity]) {
            inventory.remove(inside);
        }
    }
    Ok(Done { guests, object, result: None })
}

/// Whether a folder was made by people, and is not one of a datacenter's own four.
fn is_own_folder(object: &super::inventory::Object) -> bool {
    object.parent.as_ref().is_some_and(|parent| parent.kind == "Folder")
}

/// Takes a VM out of the inventory, its snapshots with it. Volumes stay.
pub fn remove_vm(inventory: &mut Inventory, vm: &Reference) {
    inventory.touch_around(vm);
    let snapshots = inventory.vm(vm).map(|vm| vm.snapshots.clone()).unwrap_or_default();
    for snapshot in snapshots {
        inventory.remove(&snapshot);
    }
    inventory.remove(vm);
}

/// Gives an entity another name.
pub fn rename(inventory: &mut Inventory, entity: &Reference, name: &str) -> Result<Done, Failure> {
    let name = stored_name(name);
    let object = inventory.get(entity).ok_or_else(|| Failure::not_found(entity))?;
    if let Some(parent) = object.parent.clone()
        && object.name != name
        && !inventory.is_name_free(&parent, &name)
    {
        let taken = inventory.child(&parent, &name).unwrap_or(parent);
        return Err(Failure::duplicate_name(&name, &taken));
    }
    if let Some(object) = inventory.change(entity) {
        object.name = name;
    }
    Ok(Done { object: label(inventory, entity), ..Done::default() })
}

fn snapshot(inventory: &mut Inventory, reference: &Reference, name: &str, description: &str, now: Timestamp) -> Result<Done, Failure> {
    let vm = inventory.vm(reference).ok_or_else(|| Failure::not_found(reference))?;
    if vm.is_template {
        return Err(Failure::not_supported());
    }
    let made = take_snapshot(inventory, reference, name, description, now).ok_or_else(|| Failure::not_found(reference))?;
    inventory.touch_around(reference);
    Ok(Done { result: Some(Val::reference(&made)), object: label(inventory, reference), guests: Vec::new() })
}

fn search(inventory: &Inventory, browser: &Reference, path: &str, pattern: &str) -> Result<Done, Failure> {
    let store = path.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (store, directory) = store.ok_or_else(|| Failure::invalid_argument("datastorePath"))?;
    let directory = directory.trim().trim_end_matches('/');
    let is_it = |object: &&super::inventory::Object| {
        object.name == store && matches!(&object.kind, Kind::Datastore { browser: own, .. } if own == browser)
    };
    let datastore = inventory.objects().find(is_it).ok_or_else(|| Failure::invalid_argument("datastorePath"))?.reference.clone();
    let mut files: Vec<String> = Vec::new();
    for (_, vm) in inventory.vms() {
        files.extend(std::iter::once(&vm.home).chain(vm.disks().map(|disk| &disk.backing.file)).cloned());
    }
    let inside = format!("[{store}] {directory}{}", if directory.is_empty() { "" } else { "/" });
    let found: Vec<&str> = files.iter().filter_map(|file| file.strip_prefix(inside.as_str())).filter(|file| !file.contains('/')).collect();
    if found.is_empty() && !directory.is_empty() {
        return Err(Failure::file_not_found(path));
    }
    let is_match = |file: &&&str| {
        pattern.is_empty() || pattern == "*" || **file == pattern || pattern.strip_prefix('*').is_some_and(|end| file.ends_with(end))
    };
    let file = |name: &&str| Val::data("FileInfo", [("path", Val::string(*name)), ("fileSize", Val::long(0_i64))]);
    let result = Val::data(
        "HostDatastoreBrowserSearchResults",
        [
            ("datastore", Val::reference(&datastore)),
            ("folderPath", Val::string(path)),
            ("file", Val::Array("FileInfo", found.iter().filter(is_match).map(file).collect())),
        ],
    );
    Ok(Done { result: Some(result), object: path.to_owned(), guests: Vec::new() })
}
