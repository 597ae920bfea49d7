//! What a MachineDeployment tells: counts, phase and the conditions of both generations. Pure.

use std::sync::Arc;

use api::cluster::{Machine, MachineDeploymentPhase, MachineDeploymentStatus, MachineSet};
use api::conditions::{self, New, Severity, get, get_legacy};
use jiff::Timestamp;
use runtime::defects::Defect;

use super::plan::{Observed, Plan, is_on_delete, is_rollout_paused, most_unavailable, shortcomings};
use crate::aggregate::{self, Member, Reasons};
use crate::edit::{controller_reference, is_deleting};
use crate::machineset::status::{
    count, deleting, has, has_ready_node, is_available, member, scaling_down, scaling_up, unless_zero, versions,
};
use crate::remediation::remediating;
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
    if observed.defects.has(Defect::NonsenseReplicas) && status.replicas != deployment.spec.replicas {
        status.replicas = Some(i32::MAX);
    }
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
    let failed = |set: &Arc<MachineSet>| {
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

/// So many Machines are named that a rollout waits for; the rest is counted.
const NAMED: usize = 3;

/// Rolling out while Machines are not up to date, or a former set still has some: what differs, and what is waited for, and since when.
fn rolling_out(observed: &Observed, plan: &Plan) -> New<'static> {
    let outdated: Vec<&Arc<Machine>> = observed.machines.iter().filter(|machine| is_outdated(observed, plan, machine)).collect();
    if outdated.is_empty() || plan.deletion_left.is_some() {
        return conditions::new("RollingOut", false, "NotRollingOut", "");
    }
    let mut lines: Vec<String> = Vec::new();
    for set in &observed.sets {
        let differences = shortcomings(&observed.deployment, set, observed.now);
        if outdated.iter().any(|machine| is_of(machine, set)) {
            lines.extend(differences.into_iter().filter(|difference| !lines.contains(difference)).collect::<Vec<_>>());
        }
    }
    let (stays, more) = waited_for(observed, plan, &outdated);
    lines.extend(stays);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    let mut message = format!("Rolling out {} not up-to-date replicas", outdated.len());
    for line in lines {
        message.push_str("\n* ");
        message.push_str(&line);
    }
    conditions::new("RollingOut", true, "RollingOut", message)
}

fn is_of(machine: &Machine, set: &MachineSet) -> bool {
    controller_reference(&machine.metadata).map(|owner| &owner.uid) == set.metadata.uid.as_ref()
}

fn is_outdated(observed: &Observed, plan: &Plan, machine: &Machine) -> bool {
    let is_current = plan.outdated.is_empty() && plan.current.as_ref().is_some_and(|set| is_of(machine, set));
    !is_current && observed.sets.iter().any(|set| is_of(machine, set) && !shortcomings(&observed.deployment, set, observed.now).is_empty())
}

/// What stands between now and the next step: lines, and how many more there would be.
fn waited_for(observed: &Observed, plan: &Plan, outdated: &[&Arc<Machine>]) -> (Vec<String>, usize) {
    let deployment = &observed.deployment;
    if is_rollout_paused(deployment) {
        return (vec!["the rollout is paused (spec.paused)".to_owned()], 0);
    }
    if plan.is_breaking_deadlock {
        return (
            vec![
                "a Machine that is not available is behind one that goes first: that one goes, though one fewer is available then"
                    .to_owned(),
            ],
            0,
        );
    }
    let mut lines = Vec::new();
    let new = plan.current.as_ref().filter(|_| plan.outdated.is_empty());
    lines.extend(new.and_then(|set| blocked(set)).map(|why| format!("waiting: {why}")));
    for machine in observed.machines.iter().filter(|machine| is_deleting(&machine.metadata)) {
        let condition = machine.status.as_ref().and_then(|status| get(&status.conditions, "Deleting"));
        let why = condition.map(|condition| first_line(&condition.message)).filter(|why| !why.is_empty());
        let since = machine.metadata.deletion_timestamp.as_ref().map(|time| time.0);
        lines.push(waiting(machine, "to be gone", since, why));
    }
    for machine in observed.machines.iter().filter(|machine| new.is_some_and(|set| is_of(machine, set))) {
        if is_deleting(&machine.metadata) || has(machine, "Available") {
            continue;
        }
        let condition = |type_: &str| machine.status.as_ref().and_then(|status| get(&status.conditions, type_));
        let since = condition("Available").map(|condition| condition.last_transition_time.0);
        let why = condition("Ready").filter(|ready| ready.status != conditions::Status::True).or_else(|| condition("Available"));
        let why = why.map(|condition| first_line(&condition.message)).filter(|why| !why.is_empty());
        lines.push(waiting(machine, "to be available", since, why));
    }
    if lines.is_empty() && is_on_delete(deployment) {
        lines.push(format!("strategy OnDelete: each of the {} is replaced when somebody deletes it", outdated.len()));
    }
    let more = lines.len().saturating_sub(NAMED);
    lines.truncate(NAMED);
    (lines, more)
}

fn waiting(machine: &Machine, what: &str, since: Option<Timestamp>, why: Option<&str>) -> String {
    let name = machine.metadata.name.as_deref().unwrap_or_default();
    let since = since.map(|since| format!(" since {}", since.strftime("%T"))).unwrap_or_default();
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    format!("waiting{since} for Machine {name} {what}{why}")
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default().trim_start_matches("* ").trim_end_matches(':')
}

/// Why a set makes no Machines.
fn blocked(set: &MachineSet) -> Option<String> {
    let list = &set.status.as_ref()?.deprecated.v1beta1.conditions;
    get_legacy(list, "MachinesCreated").filter(|created| created.status == conditions::Status::False)?.message.clone()
}

fn current(observed: &Observed, plan: &Plan, status: &mut MachineDeploymentStatus) {
    let (generation, now) = (observed.deployment.metadata.generation, observed.now);
    let (present, wanted) = (count(&observed.machines, |_| true), wanted(observed));
    let members: Vec<Member<'_>> = observed.machines.iter().map(member).collect();
    let blocked = plan.current.as_ref().and_then(|set| blocked(set));
    let all = [
        available(observed),
        rolling_out(observed, plan),
        scaling_up(present, wanted, blocked.as_deref()),
        scaling_down(present, wanted),
        aggregate::all("MachinesReady", "Ready", &members, READY),
        aggregate::all("MachinesUpToDate", "UpToDate", &members, UP_TO_DATE),
        remediating(&observed.machines),
        deleting_sets(plan.deletion_left, present),
    ];
    for condition in all {
        conditions::set(&mut status.conditions, condition, generation, now);
    }
}

fn deleting_sets(left: Option<usize>, machines: i32) -> New<'static> {
    let machines = usize::try_from(machines).unwrap_or(0);
    match left {
        Some(1) if machines == 0 => conditions::new("Deleting", true, "Deleting", "Deleting 1 MachineSet"),
        Some(sets) if machines == 0 && sets > 0 => conditions::new("Deleting", true, "Deleting", format!("Deleting {sets} MachineSets")),
        left => deleting(left.map(|_| machines)),
    }
}
