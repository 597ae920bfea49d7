//! How a VSphereVM goes: a part of its plan. Pure.
//!
//! Nothing is switched off, changed or destroyed before its marker was found valid; addresses are released when the machine is gone.

use std::time::Duration;

use api::conditions;
use api::infrastructure::{PowerOffMode, VSphereVM};
use api::names::finalizers;
use jiff::Timestamp;
use runtime::defects::Defect;
use runtime::reconcile::Wait;
use vsphere::{Marker, Owner, VirtualDevice, VirtualMachine, VirtualMachinePowerState, is_ours};

use super::plan::{
    LOOK_AGAIN, MachineLook, Observed, Plan, SOFT_IN_PROGRESS, SOFT_POWER_OFF, Step, TASK_RETRY, TaskLook, ask_again, instance_uuid,
    is_meant, is_provably_ours, is_told, is_untouched, name, pause, server_error, task, task_reference, unanswered, unsettled,
    vm_reference, wait, wait_for_clone,
};
use crate::edit::{has_finalizer, is_deleting};

/// How long a trySoft power-off waits for the guest, unless the machine says otherwise.
const SOFT_TIMEOUT: Duration = Duration::from_secs(300);
/// Everything of the machine is gone: lets addresses and object go.
fn release(observed: &Observed, plan: &mut Plan) {
    let held = observed
        .owned_claims
        .iter()
        .filter(|claim| has_finalizer(&claim.metadata, finalizers::IP_CLAIM_PROTECTION) || !is_deleting(&claim.metadata));
    plan.steps.extend(held.map(|claim| Step::ReleaseClaim(claim.metadata.clone())));
    plan.steps.push(Step::RemoveFinalizer);
}

pub(super) fn deleting(observed: &Observed, plan: &mut Plan) {
    let vm = &observed.vm;
    if is_untouched(vm) || observed.defects.has(Defect::ForgetVm) {
        return release(observed, plan);
    }
    if let Some(member) = observed.member.as_ref().filter(|_| !observed.defects.has(Defect::GoBeforeLeaving)) {
        let on =
            format!("Machine {member} to leave etcd, which it does when it is deleted itself: delete the Machine, not what it is made of");
        plan.waits("Deleting", wait(observed, on).to_string());
        return;
    }
    if let Some(message) = &observed.identity_error {
        plan.warns("Deleting", format!("{} cannot be removed from vCenter: {message}", name(vm)));
        return;
    }
    let Some(owner) = &observed.owner else {
        plan.warns("Deleting", "whose machine this is cannot be told: its VSphereMachine or Cluster is gone, and no clone intent that can be read is stored with it; put them back, or remove the virtual machine by hand and then the finalizer");
        return;
    };
    if observed.look.error.is_some() {
        server_error(observed, plan);
        if let Some(error) = observed.look.error.as_ref().filter(|error| !error.is_about_server()) {
            plan.warns("Deleting", error.to_string());
        }
        return;
    }
    if let (Some(reference), Some(TaskLook::Known(running))) = (task_reference(vm), &observed.look.task)
        && !running.is_over()
    {
        if running.what == "VirtualMachine.clone" && !running.is_cancelled {
            plan.steps.push(Step::Cancel { task: reference.clone() });
        }
        let on = format!("{} ({}) to end", running.what, reference.id);
        if !is_told(vm, "Deleting", &reference) {
            plan.waits("Deleting", Wait { since: running.queued, ..wait(observed, on) }.to_string());
        }
        plan.again = ask_again(running);
        return;
    }
    if observed.look.is_destroyed(vm) {
        return release(observed, plan);
    }
    if task(observed, plan) {
        return;
    }
    // A clone that failed needs no rest before it is cleaned up; a failed destruction does.
    if vm_reference(vm).is_some() && pause(observed, plan) {
        return;
    }
    match &observed.look.machine {
        MachineLook::Gone => release(observed, plan),
        MachineLook::Read(machine) => take_down(observed, machine, owner, plan),
        MachineLook::Seen(_) => {}
        MachineLook::Unknown => lost(observed, owner, plan),
    }
}

/// No reference is known. Only a look that was complete, and not too early, shows that there is no machine.
fn lost(observed: &Observed, owner: &Owner, plan: &mut Plan) {
    let vm = &observed.vm;
    let is_named = |candidate: &&VirtualMachine| observed.defects.has(Defect::DestroyByName) && candidate.name == name(vm);
    let Some(candidates) = &observed.look.candidates else {
        plan.waits("Deleting", wait(observed, format!("vCenter to be searched for {}", name(vm))).to_string());
        plan.again = Some(LOOK_AGAIN);
        return;
    };
    if observed.look.clones.iter().any(|task| !task.is_over()) {
        plan.waits("Deleting", wait_for_clone(observed, "a running clone whose outcome is not known yet").to_string());
        plan.again = Some(LOOK_AGAIN);
    } else if let Some(ours) = candidates.iter().find(|candidate| is_provably_ours(observed, candidate, owner) || is_named(candidate)) {
        plan.steps.push(Step::Adopt { machine: ours.reference.clone() });
    } else if let Some(doubtful) = candidates.iter().find(|candidate| is_meant(observed, candidate, owner)) {
        let message = format!(
            "virtual machine {} ({}) carries this Machine's ownership marker, but another instance UUID than the marker: it is left alone; remove it in vCenter if it may go",
            doubtful.name, doubtful.reference.id
        );
        plan.warns("Deleting", message);
        plan.again = Some(TASK_RETRY);
    } else if let Some(left) = unsettled(observed) {
        plan.waits("Deleting", unanswered(observed));
        plan.again = Some(left);
    } else {
        release(observed, plan);
    }
}

fn take_down(observed: &Observed, machine: &VirtualMachine, owner: &Owner, plan: &mut Plan) {
    let vm = &observed.vm;
    let reference = machine.reference.clone();
    let is_checked = observed.defects.has(Defect::DestroyByName) || is_ours(&machine.extra_config, &machine.instance_uuid, owner);
    if !is_checked {
        let marker = Marker::read(&machine.extra_config);
        if marker.is_some_and(|marker| marker.owner == *owner && marker.is_valid_for(&instance_uuid(vm))) {
            // Our clone, under another UUID than asked for; it went before its marker was written anew.
            plan.steps.push(Step::RewriteMarker { machine: reference, marker: Marker::new(owner.clone(), &machine.instance_uuid) });
            plan.waits("Deleting", format!("writing the ownership marker of {}", machine.reference.id));
            return;
        }
        let message = format!(
            "virtual machine {} ({}) carries no valid ownership marker of this Machine: it is left alone; remove it by hand in vCenter if it may go",
            machine.name, machine.reference.id
        );
        plan.warns("Deleting", message);
        plan.again = Some(TASK_RETRY);
        return;
    }
    if machine.is_out_of_reach() {
        plan.warns(
            "Deleting",
            format!(
                "virtual machine {} is {} in vCenter: it can be removed when its host or datastore is back",
                machine.name, machine.connection
            ),
        );
        plan.again = Some(TASK_RETRY);
        return;
    }
    if machine.power == VirtualMachinePowerState::PoweredOn {
        return switch_off(observed, machine, plan);
    }
    let foreign = machine.foreign_disks();
    if !foreign.is_empty() && !observed.defects.has(Defect::DestroyByName) {
        let files: Vec<&str> = foreign.iter().filter_map(VirtualDevice::file_name).collect();
        plan.waits("Deleting", format!("detaching disks that were not made with {}: {}", machine.name, files.join(", ")));
        plan.steps.push(Step::Detach { machine: reference, disks: foreign });
        return;
    }
    plan.waits("Deleting", format!("destroying {} ({})", machine.name, machine.reference.id));
    plan.steps.push(Step::Destroy { machine: reference });
}

/// When the guest was asked to shut down: when the condition that tells so came about.
fn asked_since(vm: &VSphereVM) -> Option<Timestamp> {
    let condition = conditions::get_legacy(&vm.status.as_ref()?.deprecated.v1beta1.conditions, SOFT_POWER_OFF)?;
    (condition.reason.as_deref() == Some(SOFT_IN_PROGRESS)).then_some(condition.last_transition_time.0)
}

fn switch_off(observed: &Observed, machine: &VirtualMachine, plan: &mut Plan) {
    let vm = &observed.vm;
    let reference = machine.reference.clone();
    let mode = vm.spec.power_off_mode.unwrap_or_default();
    let timeout = vm.spec.guest_soft_power_off_timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let limit = timeout.map_or(SOFT_TIMEOUT, Duration::from_secs);
    let has_tools = machine.guest.host_name.is_some();
    let left = asked_since(vm).map(|since| {
        let passed = Duration::try_from(observed.now.duration_since(since)).unwrap_or_default();
        limit.saturating_sub(passed)
    });
    // How long the guest is waited for, once it was asked.
    let shutting_down = || {
        let asked = Wait { since: asked_since(vm).unwrap_or(observed.now), ..wait(observed, format!("{} to shut down", machine.name)) };
        let is_limited = mode == PowerOffMode::TrySoft;
        if is_limited { asked.limit(limit) } else { asked }.to_string()
    };
    match (mode, left) {
        (PowerOffMode::Hard, _) | (PowerOffMode::TrySoft, Some(Duration::ZERO)) => {
            plan.waits("Deleting", format!("powering off {} ({})", machine.name, machine.reference.id));
            plan.steps.push(Step::PowerOff { machine: reference });
        }
        (PowerOffMode::TrySoft, None) if !has_tools => {
            plan.waits(
                "Deleting",
                format!("powering off {} ({}): it has no VMware tools to be asked by", machine.name, machine.reference.id),
            );
            plan.steps.push(Step::PowerOff { machine: reference });
        }
        (PowerOffMode::Soft, None) if !has_tools => {
            let message = format!(
                "{} cannot be shut down softly: no VMware tools run in it; set powerOffMode to hard or trySoft, or switch it off by hand",
                machine.name
            );
            plan.warns("Deleting", message);
        }
        (_, None) => {
            plan.waits(SOFT_IN_PROGRESS, shutting_down());
            plan.steps.push(Step::ShutDownGuest { machine: reference });
            plan.again = (mode == PowerOffMode::TrySoft).then_some(limit);
        }
        (mode, Some(left)) => {
            plan.waits(SOFT_IN_PROGRESS, shutting_down());
            plan.again = (mode == PowerOffMode::TrySoft).then_some(left);
        }
    }
}
