//! A person at the vSphere client: what happens to VMs without any of our clients asking for it.
//!
//! For tests of what the product must cope with and must leave alone. Nothing here takes time or makes a task; all of it shows in
//! property collectors, logs and [`crate::hypervisor::VmTruth::changes`] like everything else.

use super::construction::{VM_CHILDREN, bare_vm, first_in};
use super::device::{Backing, Device, Disk, Hardware};
use super::failure::Failure;
use super::inventory::{Inventory, Kind, Reference, stored_name};
use super::operation::{self, Operation, label};
use super::{Out, State, VCenter, machine};
use crate::hypervisor::{Origin, VmId};
use vsphere_wire::machine::{VirtualMachineCloneSpec, VirtualMachineRelocateSpec};

/// Somebody with a console.
#[derive(Clone, Debug)]
pub struct Person {
    vcenter: VCenter,
}

/// Why an act was not possible, in the API's word for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self(format!("{}: {}", failure.kind(), failure.message))
    }
}

impl Person {
    pub(super) fn new(vcenter: VCenter) -> Self {
        Self { vcenter }
    }

    /// The VM or template called `name`, wherever it is.
    pub fn find(&self, name: &str) -> Option<VmId> {
        let state = self.vcenter.state();
        state.inventory.vms().find(|(object, _)| object.name == name).map(|(object, _)| VmId(object.reference.id.clone()))
    }

    fn perform(&self, vm: &VmId, act: &'static str, operation: &Operation) -> Result<(), Refused> {
        let now = self.vcenter.0.options.clock.now();
        self.vcenter.act(|state| {
            let reference = machine(vm);
            let object = label(&state.inventory, &reference);
            let done = operation.perform(&mut state.inventory, now)?;
            note(state, &reference, act);
            state.outbox.push_back(Out::Log { step: act, object, result: "by hand".to_owned() });
            state.outbox.extend(done.guests.into_iter().map(Out::Guest));
            Ok(())
        })
    }

    /// Takes a VM's power away.
    ///
    /// # Errors
    /// When it is off, or not there.
    pub fn power_off(&self, vm: &VmId) -> Result<(), Refused> {
        self.perform(vm, "power-off", &Operation::PowerOff { vm: machine(vm) })
    }

    /// Gives the account another password. Sessions that are open stay so.
    pub fn set_password(&self, password: &str) {
        password.clone_into(&mut self.vcenter.state().password);
    }

    /// Switches a VM on.
    ///
    /// # Errors
    /// When it is on, a template, or not there.
    pub fn power_on(&self, vm: &VmId) -> Result<(), Refused> {
        self.perform(vm, "power-on", &Operation::PowerOn { vm: machine(vm) })
    }

    /// Sets a VM back to a snapshot from before it first ran: it is off, and nothing is on its disk but what it was cloned with.
    ///
    /// # Errors
    /// When it is not there.
    pub fn revert(&self, vm: &VmId) -> Result<(), Refused> {
        // An error means that it is off already.
        let _ = self.power_off(vm);
        self.vcenter.act(|state| {
            let reference = machine(vm);
            let disk_id = state.inventory.fresh_uuid();
            state.inventory.change_vm(&reference).ok_or_else(|| Failure::not_found(&reference))?.disk_id = disk_id;
            note(state, &reference, "revert");
            let object = label(&state.inventory, &reference);
            state.outbox.push_back(Out::Log { step: "revert", object, result: "by hand".to_owned() });
            Ok(())
        })
    }

    /// Gives a VM another name.
    ///
    /// # Errors
    /// When the name is taken in its folder.
    pub fn rename(&self, vm: &VmId, name: &str) -> Result<(), Refused> {
        self.perform(vm, "rename", &Operation::Rename { entity: machine(vm), name: name.to_owned() })
    }

    /// Deletes a VM, switched off first if it is on.
    ///
    /// # Errors
    /// When it is not there, or linked clones build on it.
    pub fn delete(&self, vm: &VmId) -> Result<(), Refused> {
        // An error means that it is off already.
        let _ = self.power_off(vm);
        self.perform(vm, "destroy", &Operation::Destroy { entity: machine(vm) })
    }

    /// Copies a VM, settings and all, beside it. The copy stays off.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn clone_vm(&self, source: &VmId, name: &str) -> Result<VmId, Refused> {
        let now = self.vcenter.0.options.clock.now();
        self.vcenter.act(|state| {
            let reference = machine(source);
            let inventory = &mut state.inventory;
            let folder =
                inventory.get(&reference).and_then(|object| object.parent.clone()).ok_or_else(|| Failure::not_found(&reference))?;
            let datacenter = inventory.datacenter_of(&reference).ok_or_else(|| Failure::not_found(&reference))?;
            let pool = inventory
                .vm(&reference)
                .and_then(|vm| vm.pool.clone())
                .or_else(|| first_in(inventory, &datacenter, |kind| matches!(kind, Kind::Pool { .. })));
            let spec = VirtualMachineCloneSpec {
                location: VirtualMachineRelocateSpec { pool, ..VirtualMachineRelocateSpec::default() },
                is_template: false,
                config: None,
                customization: None,
                is_powered_on: false,
                snapshot: None,
                with_memory: None,
                tpm_provision_policy: None,
            };
            let operation = Operation::Clone { source: reference, folder: folder.clone(), name: name.to_owned(), spec: Box::new(spec) };
            operation.perform(inventory, now)?;
            let made = inventory.child(&folder, &stored_name(name)).ok_or_else(|| Failure::not_found(&folder))?;
            adopt(state, &made, "clone")
        })
    }

    /// Makes an empty VM called `name` in the folder at an inventory path (`/dc1/vm/team`), switched off.
    ///
    /// # Errors
    /// When the folder is not there or the name is taken.
    pub fn create_vm(&self, folder: &str, name: &str) -> Result<VmId, Refused> {
        let now = self.vcenter.0.options.clock.now();
        self.vcenter.act(|state| {
            let inventory = &mut state.inventory;
            let folder = vm_folder(inventory, folder)?;
            if !inventory.is_name_free(&folder, name) {
                return Err(Failure::duplicate_name(name, &folder).into());
            }
            let datacenter = inventory.datacenter_of(&folder).ok_or_else(|| Failure::not_found(&folder))?;
            let first = |is_wanted| first_in(inventory, &datacenter, is_wanted);
            let host = first(|kind| matches!(kind, Kind::Host { .. })).ok_or_else(|| Refused("there is no host".to_owned()))?;
            let datastore =
                first(|kind| matches!(kind, Kind::Datastore { .. })).ok_or_else(|| Refused("there is no datastore".to_owned()))?;
            let network = first(|kind| matches!(kind, Kind::Network | Kind::Portgroup { is_uplink: false, .. }));
            let pool = first(|kind| matches!(kind, Kind::Pool { .. }));
            let mut vm = bare_vm(inventory, name, &host, &datastore, network.as_ref(), &[1 << 30], Origin::Person, now);
            vm.pool = pool;
            let made = inventory.insert("VirtualMachine", "vm-", name, Some(&folder), Kind::Vm(Box::new(vm)));
            inventory.touch_around(&made);
            adopt(state, &made, "create")
        })
    }

    /// Makes a folder in the folder at an inventory path.
    ///
    /// # Errors
    /// When that is not there or the name is taken.
    pub fn create_folder(&self, parent: &str, name: &str) -> Result<(), Refused> {
        self.vcenter.act(|state| {
            let folder = state.inventory.find_path(parent).ok_or_else(|| Refused(format!("there is no folder {parent}")))?;
            create_folder(&mut state.inventory, &folder, name)?;
            Ok(())
        })
    }

    /// Moves a VM to the folder at an inventory path.
    ///
    /// # Errors
    /// When that is not there, or has something of the VM's name.
    pub fn move_vm(&self, vm: &VmId, folder: &str) -> Result<(), Refused> {
        self.vcenter.act(|state| {
            let reference = machine(vm);
            let inventory = &mut state.inventory;
            let folder = vm_folder(inventory, folder)?;
            let name = inventory.get(&reference).ok_or_else(|| Failure::not_found(&reference))?.name.clone();
            if !inventory.is_name_free(&folder, &name) {
                return Err(Failure::duplicate_name(&name, &folder).into());
            }
            inventory.move_to(&reference, &folder);
            note(state, &reference, "move");
            Ok(())
        })
    }

    /// Gives a VM a persistent volume (a first class disk), as a storage driver does; answers its id. It outlives the VM.
    ///
    /// # Errors
    /// When the VM is not there.
    pub fn attach_volume(&self, vm: &VmId, gib: u64) -> Result<String, Refused> {
        self.vcenter.act(|state| {
            let reference = machine(vm);
            let inventory = &mut state.inventory;
            let found = inventory.vm(&reference).ok_or_else(|| Failure::not_found(&reference))?;
            let id = inventory.fresh_uuid();
            let datastore = found.home_datastore.clone();
            let store = inventory.get(&datastore).map(|object| object.name.clone()).unwrap_or_default();
            let file = format!("[{store}] fcd/{id}.vmdk");
            let unit = found.free_unit(1000);
            let backing = Backing {
                file: file.clone(),
                datastore,
                uuid: inventory.fresh_uuid(),
                is_thin: true,
                mode: "independent_persistent".to_owned(),
                parent: None,
                is_foreign: false,
            };
            let disk = Disk { capacity: gib << 30, backing, volume: Some(id.clone()) };
            let device =
                Device { key: found.free_key(2000 + unit), controller: Some(1000), unit: Some(unit), hardware: Hardware::Disk(disk) };
            if let Some(vm) = inventory.change_vm(&reference) {
                vm.devices.push(device);
            }
            inventory.touch_around(&reference);
            inventory.volumes.insert(id.clone(), file);
            note(state, &reference, "attach-volume");
            let object = label(&state.inventory, &reference);
            state.outbox.push_back(Out::Log { step: "attach-volume", object, result: "by hand".to_owned() });
            Ok(id)
        })
    }

    /// Sets a variable of a VM; an empty value removes it.
    ///
    /// # Errors
    /// When the VM is not there.
    pub fn set_variable(&self, vm: &VmId, key: &str, value: &str) -> Result<(), Refused> {
        self.vcenter.act(|state| {
            let reference = machine(vm);
            let found = state.inventory.change_vm(&reference).ok_or_else(|| Failure::not_found(&reference))?;
            found.set_extra(key, value);
            note(state, &reference, "set-variable");
            Ok(())
        })
    }
}

/// The folder for VMs at an inventory path.
fn vm_folder(inventory: &Inventory, path: &str) -> Result<Reference, Refused> {
    let is_one = |found: &Reference| matches!(inventory.get(found).map(|object| &object.kind), Some(Kind::Folder { child_types, .. }) if *child_types == VM_CHILDREN);
    inventory.find_path(path).filter(is_one).ok_or_else(|| Refused(format!("there is no folder for VMs at {path}")))
}

fn note(state: &mut State, vm: &Reference, act: &str) {
    if let Some(vm) = state.inventory.change_vm(vm) {
        vm.acts.push(act.to_owned());
    }
}

/// Marks a VM as a person's.
fn adopt(state: &mut State, made: &Reference, act: &'static str) -> Result<VmId, Refused> {
    if let Some(vm) = state.inventory.change_vm(made) {
        vm.origin = Origin::Person;
        vm.acts = vec![act.to_owned()];
    }
    let object = operation::label(&state.inventory, made);
    state.outbox.push_back(Out::Log { step: act, object, result: "by hand".to_owned() });
    Ok(VmId(made.id.clone()))
}

/// Makes a folder for VMs.
pub(super) fn create_folder(inventory: &mut Inventory, parent: &Reference, name: &str) -> Result<Reference, Failure> {
    let Some(Kind::Folder { child_types, .. }) = inventory.get(parent).map(|object| &object.kind) else {
        return Err(Failure::not_found(parent));
    };
    let child_types = *child_types;
    if name.is_empty() {
        return Err(Failure::invalid_argument("name"));
    }
    let name = stored_name(name);
    if !inventory.is_name_free(parent, &name) {
        let taken = inventory.child(parent, &name).unwrap_or_else(|| parent.clone());
        return Err(Failure::duplicate_name(&name, &taken));
    }
    let prefix = if child_types == VM_CHILDREN { "group-v" } else { "group-" };
    Ok(inventory.insert("Folder", prefix, &name, Some(parent), Kind::Folder { child_types, children: Vec::new() }))
}
