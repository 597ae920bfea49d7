//! Looks up in vCenter what a plan needs, and no more: a machine that runs and is settled costs no call.

use std::collections::BTreeSet;

use vsphere::{
    Credentials, Link, ManagedObjectReference, PlacementRequest, Reaction, TaskState, VCenter, VCenters, VSphereError, VirtualMachine,
};

use api::infrastructure::VSphereVM;

use super::intent::Intent;
use super::plan::{Look, MachineLook, TaskLook, instance_uuid, is_outcome_unknown, is_untouched, task_reference, vm_reference};
use crate::edit::is_deleting;

/// The names of a machine's placement.
pub fn placement(vm: &VSphereVM) -> PlacementRequest {
    let spec = &vm.spec.clone;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    PlacementRequest {
        datacenter: text(&spec.datacenter),
        folder: text(&spec.folder),
        datastore: text(&spec.datastore),
        resource_pool: text(&spec.resource_pool),
        template: spec.template.clone(),
        snapshot: spec.snapshot.clone().filter(|name| !name.is_empty()),
        networks: spec.network.devices.iter().map(|card| card.network_name.clone()).collect(),
    }
}

/// Tells the tasks that other VSphereVMs have recorded.
type Claimed<'a> = &'a (dyn Fn() -> BTreeSet<String> + Sync);

/// Looks.
pub async fn look(vcenters: &dyn VCenters, credentials: &Credentials, vm: &VSphereVM, claimed: Claimed<'_>) -> Look {
    let mut look = Look::default();
    if is_deleting(&vm.metadata) && is_untouched(vm) {
        return look;
    }
    look.is_asked = true;
    let vcenter = vcenters.vcenter(credentials);
    if let Err(error) = fill(&*vcenter, vm, claimed, &mut look).await {
        look.error = Some(error);
    }
    look
}

async fn fill(vcenter: &dyn VCenter, vm: &VSphereVM, claimed: Claimed<'_>, look: &mut Look) -> Result<(), VSphereError> {
    // While the server is away, its watch tells when it is back.
    if let Link::Down { error, .. } = vcenter.link()
        && error.reaction() == Reaction::Later
    {
        return Err(error);
    }
    let is_leaving = is_deleting(&vm.metadata);
    let placed = vcenter.place(&placement(vm)).await;
    let placement_error = match placed {
        Ok(placement) => {
            look.placement = Some(placement);
            None
        }
        Err(error) if error.is_about_server() => return Err(error),
        Err(error) => Some(error),
    };
    if let Some(task) = task_reference(vm) {
        let task = vcenter.task(&task).await?;
        let done = task.as_ref().filter(|task| matches!(task.state, TaskState::Succeeded(_))).map(|task| task.what.clone());
        look.task = Some(task.map_or(TaskLook::Forgotten, |task| TaskLook::Known(Box::new(task))));
        let goes_on = match done.as_deref() {
            Some("VirtualMachine.powerOn") => !is_leaving,
            Some("VirtualMachine.powerOff") => is_leaving,
            _ => false,
        };
        // What follows from another task's end comes first; then it is looked again.
        if !goes_on || vm_reference(vm).is_none() {
            return Ok(());
        }
    }
    if let Some(reference) = vm_reference(vm) {
        look.machine = machine(vcenter, vm, &reference, is_leaving).await?;
        let host = match &look.machine {
            MachineLook::Read(machine) => machine.host.clone(),
            MachineLook::Seen(seen) => seen.host.clone(),
            MachineLook::Gone | MachineLook::Unknown => None,
        };
        if let Some(host) = host.filter(|_| !is_leaving) {
            look.host_name = vcenter.host_name(&host).await.unwrap_or_default();
        }
        return Ok(());
    }
    if let Some(error) = placement_error.filter(|_| !is_leaving) {
        return Err(error);
    }
    search(vcenter, vm, claimed, look).await
}

/// Asks the server itself for a machine that no reference is known of: the running clones first, because one that ends meanwhile then shows as a machine. What the intent
/// stored counts as much as where a clone would go now: the template may have been replaced since, or the folder be gone.
async fn search(vcenter: &dyn VCenter, vm: &VSphereVM, claimed: Claimed<'_>, look: &mut Look) -> Result<(), VSphereError> {
    let intent = Intent::of(vm);
    if let Some(intent) = intent.as_ref().filter(|_| is_outcome_unknown(vm)) {
        let clones = vcenter.clones_of(&intent.template()).await?;
        let claimed = claimed();
        look.clones = clones.into_iter().filter(|task| !claimed.contains(&task.reference.id)).collect();
    }
    let name = vm.metadata.name.as_deref().unwrap_or_default();
    let placed = look.placement.as_ref().map(|placement| placement.folder_path.clone());
    let folders: BTreeSet<String> = intent.iter().map(|intent| intent.folder_path.clone()).chain(placed).collect();
    let mut found: BTreeSet<ManagedObjectReference> = vcenter.find_instance(&instance_uuid(vm)).await?.into_iter().collect();
    for folder in &folders {
        found.extend(vcenter.find_named(folder, name).await?);
    }
    if let Some(intent) = intent.filter(|_| is_deleting(&vm.metadata)) {
        found.extend(vcenter.machines_of(&intent.owner()).await?);
    }
    let mut candidates: Vec<VirtualMachine> = Vec::new();
    for reference in found {
        candidates.extend(vcenter.machine(&reference).await?);
    }
    look.candidates = Some(candidates);
    Ok(())
}

/// The machine: as the watch shows it when it runs and its hardware is known, else read.
async fn machine(
    vcenter: &dyn VCenter,
    vm: &VSphereVM,
    reference: &ManagedObjectReference,
    is_leaving: bool,
) -> Result<MachineLook, VSphereError> {
    let has_hardware = vm.status.as_ref().is_some_and(|status| status.network.len() >= vm.spec.clone.network.devices.len());
    if !is_leaving && vm.spec.bios_uuid.is_some() && has_hardware {
        let is_settled = |power: &str, connection: &str| power == "poweredOn" && matches!(connection, "connected" | "");
        if let Some(seen) = vcenter.seen(reference).filter(|seen| is_settled(&seen.power, &seen.connection)) {
            return Ok(MachineLook::Seen(Box::new(seen)));
        }
    }
    Ok(match vcenter.machine(reference).await? {
        Some(machine) => MachineLook::Read(Box::new(machine)),
        None => MachineLook::Gone,
    })
}
