//! What a VSphereVM tells: addresses, cards, host, and the conditions of both generations. Pure.

use api::conditions::{self, Severity};
use api::infrastructure::{CloneMode, VSphereVM, VSphereVMStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use vsphere::VSphereError;

use super::plan::{
    ADDRESSES, Claims, LEGACY_PROVISIONED, Observed, PROVISIONED, Plan, SOFT_IN_PROGRESS, SOFT_POWER_OFF, Stand, task_reference, until,
};
use crate::edit::is_deleting;
use crate::status::set_paused;

const VCENTER: &str = "VCenterAvailable";
const LEGACY_ADDRESSES: &str = "IPAddressClaimed";

/// Computes the status from the old one, what was observed and planned, and the error of a step that failed.
pub fn status(observed: &Observed, plan: &Plan, failure: Option<&VSphereError>) -> VSphereVMStatus {
    let vm = &observed.vm;
    let (generation, now) = (vm.metadata.generation, observed.now);
    let mut status = vm.status.clone().unwrap_or_default();
    set_paused(&mut status.conditions, plan.is_paused, generation, now);
    if plan.is_paused {
        return status;
    }
    vcenter(observed, plan, failure, &mut status);
    addresses(observed, plan, &mut status);
    facts(observed, plan, &mut status);
    let rest = rest(observed, failure);
    provisioned(observed, plan, failure.map(|error| (error, rest)), &mut status);
    ready(observed, &mut status);
    if rest.is_some() {
        status.retry_after = rest.map(Time);
    }
    status
}

/// Until when a step that was refused rests, whatever wakes meanwhile: as its fault asks.
fn rest(observed: &Observed, failure: Option<&VSphereError>) -> Option<Timestamp> {
    let delay = failure.filter(|error| !error.is_about_server())?.reaction().delay().filter(|delay| !delay.is_zero())?;
    observed.now.checked_add(SignedDuration::try_from(delay).ok()?).ok()
}

fn vcenter(observed: &Observed, plan: &Plan, failure: Option<&VSphereError>, status: &mut VSphereVMStatus) {
    let (generation, now) = (observed.vm.metadata.generation, observed.now);
    let error = failure.or(plan.server_error.as_ref()).filter(|error| error.is_about_server()).map(ToString::to_string);
    let trouble = observed.identity_error.clone().map(|message| ("CredentialsNotAvailable", message));
    let trouble = trouble.or_else(|| error.map(|message| ("VCenterUnreachable", message)));
    let legacy = &mut status.deprecated.v1beta1.conditions;
    if let Some((reason, message)) = trouble {
        conditions::set(&mut status.conditions, conditions::new(VCENTER, false, reason, message.as_str()), generation, now);
        conditions::set_legacy(legacy, conditions::legacy_false(VCENTER, reason, Severity::Error, message), now);
    } else if observed.look.is_asked {
        conditions::set(&mut status.conditions, conditions::new(VCENTER, true, "Available", ""), generation, now);
        conditions::set_legacy(legacy, conditions::legacy_true(VCENTER), now);
    }
}

fn addresses(observed: &Observed, plan: &Plan, status: &mut VSphereVMStatus) {
    let (generation, now) = (observed.vm.metadata.generation, observed.now);
    let legacy = &mut status.deprecated.v1beta1.conditions;
    match &plan.claims {
        Claims::None => {}
        Claims::Fulfilled => {
            conditions::set(&mut status.conditions, conditions::new(ADDRESSES, true, "Fulfilled", ""), generation, now);
            conditions::set_legacy(legacy, conditions::legacy_true(LEGACY_ADDRESSES), now);
        }
        Claims::Waiting { reason, message } => {
            conditions::set(&mut status.conditions, conditions::new(ADDRESSES, false, reason, message.as_str()), generation, now);
            conditions::set_legacy(legacy, conditions::legacy_false(LEGACY_ADDRESSES, reason, Severity::Info, message.as_str()), now);
        }
    }
}

fn facts(observed: &Observed, plan: &Plan, status: &mut VSphereVMStatus) {
    let spec = &observed.vm.spec.clone;
    let placement = observed.look.placement.as_ref();
    if status.vm_ref.is_some() && status.clone_mode.is_none() {
        let mode = spec.clone_mode.unwrap_or_default();
        status.clone_mode = Some(mode);
        let snapshot = placement.and_then(|placement| placement.template.snapshot.as_ref()).filter(|_| mode == CloneMode::LinkedClone);
        status.snapshot = snapshot.map(|snapshot| snapshot.id.clone());
    }
    if let Some(host) = &observed.look.host_name {
        status.host = Some(host.clone());
    }
    if let Some(cards) = &plan.cards {
        status.network.clone_from(cards);
        status.addresses = cards.iter().flat_map(|card| card.ip_addrs.iter().cloned()).collect();
    }
}

fn provisioned(observed: &Observed, plan: &Plan, failure: Option<(&VSphereError, Option<Timestamp>)>, status: &mut VSphereVMStatus) {
    let (generation, now) = (observed.vm.metadata.generation, observed.now);
    let known = conditions::get(&status.conditions, PROVISIONED).map(|condition| condition.reason.clone());
    let stand = match failure.filter(|(error, _)| !error.is_about_server()) {
        Some((error, rest)) => {
            let reason = match &plan.stand {
                Stand::Not { reason: "Deleting" | SOFT_IN_PROGRESS, .. } => "Deleting",
                Stand::Not { reason: "PoweringOn", .. } => "PoweringOnFailed",
                _ if status.vm_ref.is_some() => "TaskFailure",
                _ => "CloningFailed",
            };
            Stand::Not { reason, severity: Severity::Warning, message: format!("{error}{}", until(rest)) }
        }
        None if failure.is_some() => plan.stand.clone(),
        None => begun(observed, plan),
    };
    let legacy = &mut status.deprecated.v1beta1.conditions;
    match stand {
        // The first word of an object that nothing is known of yet.
        Stand::AsBefore if known.is_none() => {
            let message = "nothing was asked of vCenter yet";
            conditions::set(&mut status.conditions, conditions::new(PROVISIONED, false, "NotProvisioned", message), generation, now);
            conditions::set_legacy(legacy, conditions::legacy_false(LEGACY_PROVISIONED, "NotProvisioned", Severity::Info, message), now);
        }
        Stand::AsBefore => {}
        Stand::Provisioned => {
            conditions::set(&mut status.conditions, conditions::new(PROVISIONED, true, "Provisioned", ""), generation, now);
            conditions::set_legacy(legacy, conditions::legacy_true(LEGACY_PROVISIONED), now);
        }
        Stand::Not { reason, severity, message } => {
            if reason == SOFT_IN_PROGRESS {
                // The message stays the same, so that the time of the transition is the time of the asking.
                let asked = "the guest was asked to shut down";
                conditions::set_legacy(legacy, conditions::legacy_false(SOFT_POWER_OFF, reason, Severity::Info, asked), now);
            }
            conditions::set(&mut status.conditions, conditions::new(PROVISIONED, false, reason, message.as_str()), generation, now);
            conditions::set_legacy(legacy, conditions::legacy_false(LEGACY_PROVISIONED, reason, severity, message), now);
        }
    }
}

/// Where the plan says that the machine stands; with a task that the plan has started, since when and which: the words stay as they are while it runs.
fn begun(observed: &Observed, plan: &Plan) -> Stand {
    let mut stand = plan.stand.clone();
    if let (Stand::Not { message, .. }, Some(task)) = (&mut stand, task_reference(&observed.vm))
        && plan.starts_task()
    {
        *message = format!("{message} since {} ({})", observed.now.strftime("%T"), task.id);
    }
    stand
}

fn ready(observed: &Observed, status: &mut VSphereVMStatus) {
    let (generation, now) = (observed.vm.metadata.generation, observed.now);
    if is_deleting(&observed.vm.metadata) {
        let message = conditions::get(&status.conditions, PROVISIONED).map(|condition| condition.message.clone()).unwrap_or_default();
        conditions::set(&mut status.conditions, conditions::new("Deleting", true, "Deleting", message.as_str()), generation, now);
        conditions::set(&mut status.conditions, conditions::new("Ready", false, "Deleting", message.as_str()), generation, now);
        let list = &mut status.deprecated.v1beta1.conditions;
        conditions::set_legacy(list, conditions::legacy_false("Ready", "Deleting", Severity::Info, message), now);
        status.ready = Some(false);
        return;
    }
    let has_addresses = conditions::get(&status.conditions, ADDRESSES).is_some();
    let all = [PROVISIONED, VCENTER, ADDRESSES];
    let counted = if has_addresses { &all[..] } else { &all[..2] };
    // A vCenter that was not asked yet takes nothing away.
    let counted: Vec<&str> =
        counted.iter().copied().filter(|name| *name != VCENTER || conditions::get(&status.conditions, VCENTER).is_some()).collect();
    let new = conditions::summarize("Ready", &status.conditions, &counted, &[], "Ready");
    conditions::set(&mut status.conditions, new, generation, now);
    let list = &mut status.deprecated.v1beta1.conditions;
    if let Some(new) = conditions::summarize_legacy(list, &[LEGACY_ADDRESSES, VCENTER, LEGACY_PROVISIONED]) {
        conditions::set_legacy(list, new, now);
    }
    // A machine that was ready stays so while vCenter is away: it says nothing about the machine.
    let is_there = conditions::is_true(&status.conditions, PROVISIONED);
    status.ready = Some(is_there);
}

/// The event that tells a change of the machine's stand: reason and message.
pub fn event(vm: &VSphereVM, new: &VSphereVMStatus) -> Option<(runtime::reconcile::EventType, String, String)> {
    let condition = conditions::get(&new.conditions, PROVISIONED)?;
    let old = vm.status.as_ref().and_then(|status| conditions::get(&status.conditions, PROVISIONED));
    if old.is_some_and(|old| old.reason == condition.reason && old.status == condition.status) {
        return None;
    }
    let legacy = conditions::get_legacy(&new.deprecated.v1beta1.conditions, LEGACY_PROVISIONED);
    let is_warning = legacy.is_some_and(|legacy| matches!(legacy.severity, Some(Severity::Warning | Severity::Error)));
    let event_type = if is_warning { runtime::reconcile::EventType::Warning } else { runtime::reconcile::EventType::Normal };
    let addresses = new.addresses.join(", ");
    let message =
        if condition.message.is_empty() { format!("it runs and has the addresses {addresses}") } else { condition.message.clone() };
    Some((event_type, condition.reason.clone(), message))
}
