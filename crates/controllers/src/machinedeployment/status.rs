//! What a MachineDeployment tells: counts, phase and the conditions of both generations. Pure.

use std::sync::Arc;

use api::cluster::{MachineDeploymentPhase, MachineDeploymentStatus};
use api::conditions::{self, New, Severity, get_legacy};

use super::plan::{Observed, Plan, most_unavailable};
use crate::aggregate::{self, Member, Reasons};
use crate::edit::is_deleting;
use crate::machineset::status::{
    count, deleting, has, has_ready_node, is_available, member, scaling_down, scaling_up, unless_zero, versions,
};
use crate::status::set_paused;

const READY: Reasons = Reasons { good: "Ready", bad: "NotReady", unknown: "ReadyUnknown", none: "NoReplicas" };
const UP_TO_DATE: Reasons = Reasons { good: "UpToDate", bad: "NotUpToDate", unknown: "UpToDateUnknown", none: "NoReplicas" };

/// Computes the status from the old one and what was observed.
pub fn status(observed: &Observed, plan: &Plan) -> MachineDeploymentStatus {
    let deployment = &observed.deployment;
    let mut status = deployment.status.clone().unwrap_or_default();
    let generation = deployment.metadata.generation;
    set_paused(&mut status.conditions, plan.is_paused, generation, observed.now);
    if plan.is_paused {
        return status;
    }
    let machines = &observed.machines;
    status.observed_generation = generation;
    status.selector = Some(deployment.spec.selector.to_query()).filter(|query| !query.is_empty());
    status.replicas = Some(count(machines, |_| true));
    status.ready_replicas = Some(count(machines, |machine| has(machine, "Ready")));
    status.available_replicas = Some(count(machines, |machine| has(machine, "Available")));
    status.up_to_date_replicas = Some(count(machines, |machine| has(machine, "UpToDate")));
    status.versions = versions(machines);
    legacy(observed, plan, &mut status);
    status.phase = Some(phase(observed, &status));
    current(observed, plan, &mut status);
    status
}

fn wanted(observed: &Observed) -> i32 {
    if is_deleting(&observed.deployment.metadata) { 0 } else { observed.deployment.spec.replicas.unwrap_or(1) }
}

/// Ready Machines against wanted ones decide, as upstream.
fn phase(observed: &Observed, status: &MachineDeploymentStatus) -> MachineDeploymentPhase {
    let failed = |set: &Arc<api::cluster::MachineSet>| {
        let view = set.status.as_ref().map(|status| &status.deprecated.v1beta1);
        view.is_some_and(|view| view.failure_reason.is_some() || view.failure_message.is_some())
    };
    if observed.sets.iter().any(failed) {
        return MachineDeploymentPhase::Failed;
    }
    let ready = status.deprecated.v1beta1.ready_replicas.unwrap_or(0);
    let present = status.replicas.unwrap_or(0);
    match wanted(observed) {
        wanted if ready < wanted => MachineDeploymentPhase::ScalingUp,
        wanted if ready > wanted || present > wanted => MachineDeploymentPhase::ScalingDown,
        _ => MachineDeploymentPhase::Running,
    }
}

fn legacy(observed: &Observed, plan: &Plan, status: &mut MachineDeploymentStatus) {
    let now = observed.now;
    let machines = &observed.machines;
    let view = &mut status.deprecated.v1beta1;
    let available = count(machines, is_available);
    let in_sets: i32 = observed.sets.iter().map(|set| set.spec.replicas.unwrap_or(0)).sum();
    view.ready_replicas = unless_zero(count(machines, has_ready_node));
    view.available_replicas = unless_zero(available);
    view.unavailable_replicas = unless_zero((in_sets.max(wanted(observed)) - available).max(0));
    view.updated_replicas = status.up_to_date_replicas.and_then(unless_zero);
    let least = wanted(observed) - most_unavailable(&observed.deployment);
    let list = &mut view.conditions;
    let enough = if available >= least {
        conditions::legacy_true("Available")
    } else {
        let message = format!("Minimum availability requires {least} replicas, current {available} available");
        conditions::legacy_false("Available", "WaitingForAvailableMachines", Severity::Warning, message)
    };
    conditions::set_legacy(list, enough, now);
    let set_ready = plan.current.as_ref().and_then(|set| {
        let conditions = &set.status.as_ref()?.deprecated.v1beta1.conditions;
        get_legacy(conditions, "Ready").cloned()
    });
    let set_ready = match set_ready {
        Some(ready) => conditions::LegacyCondition { type_: "MachineSetReady".to_owned(), ..ready },
        None => conditions::legacy_false("MachineSetReady", "WaitingForMachineSet", Severity::Info, ""),
    };
    conditions::set_legacy(list, set_ready, now);
    if let Some(ready) = conditions::summarize_legacy(list, &["Available", "MachineSetReady"]) {
        conditions::set_legacy(list, ready, now);
    }
}

fn available(observed: &Observed) -> New<'static> {
    let (wanted, limit) = (wanted(observed), most_unavailable(&observed.deployment));
    let present = count(&observed.machines, |machine| has(machine, "Available"));
    let least = wanted - limit;
    if present >= least {
        return conditions::new("Available", true, "Available", "");
    }
    let message = format!(
        "{present} available replicas, at least {least} required (spec.strategy.rollout.maxUnavailable is {limit}, spec.replicas is {wanted})"
    );
    conditions::new("Available", false, "NotAvailable", message)
}

/// Not rolling out; but a specification that differs is told here, where people look for it.
fn rolling_out(observed: &Observed, plan: &Plan) -> New<'static> {
    if plan.outdated.is_empty() {
        return conditions::new("RollingOut", false, "NotRollingOut", "");
    }
    let outdated = count(&observed.machines, |machine| !has(machine, "UpToDate"));
    let differences = plan.outdated.iter().map(|difference| format!("\n* {difference}")).collect::<String>();
    let message = format!("{outdated} replicas have an older specification and are kept: this version does not replace them{differences}");
    conditions::new("RollingOut", false, "NotRollingOut", message)
}

fn current(observed: &Observed, plan: &Plan, status: &mut MachineDeploymentStatus) {
    let (generation, now) = (observed.deployment.metadata.generation, observed.now);
    let (present, wanted) = (count(&observed.machines, |_| true), wanted(observed));
    let members: Vec<Member<'_>> = observed.machines.iter().map(member).collect();
    let blocked = plan.current.as_ref().and_then(|set| {
        let list = &set.status.as_ref()?.deprecated.v1beta1.conditions;
        get_legacy(list, "MachinesCreated").filter(|created| created.status == conditions::Status::False)?.message.clone()
    });
    let remediating = Reasons { good: "Remediating", bad: "NotRemediating", unknown: "", none: "" };
    let all = [
        available(observed),
        rolling_out(observed, plan),
        scaling_up(present, wanted, blocked.as_deref()),
        scaling_down(present, wanted),
        aggregate::all("MachinesReady", "Ready", &members, READY),
        aggregate::all("MachinesUpToDate", "UpToDate", &members, UP_TO_DATE),
        aggregate::any("Remediating", "Remediating", &members, remediating),
        deleting_sets(plan.deletion_left, present),
    ];
    for condition in all {
        conditions::set(&mut status.conditions, condition, generation, now);
    }
}

fn deleting_sets(left: Option<usize>, machines: i32) -> New<'static> {
    let machines = usize::try_from(machines).unwrap_or(0);
    deleting(left.map(|sets| if machines > 0 { machines } else { sets }))
}
