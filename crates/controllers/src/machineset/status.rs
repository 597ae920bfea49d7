//! What a MachineSet tells: counts and the conditions of both generations. Pure.
//!
//! Counts are of Machines that exist, those being deleted included, so they never lie outside what the set has had.

use std::sync::Arc;

use api::cluster::{Machine, MachineSetStatus, VersionCount};
use api::conditions::{self, LegacyCondition, New, Severity, Status, get_legacy, is_true};

use super::plan::{Observed, Plan, machine_labels};
use crate::aggregate::{self, Member, Reasons};
use crate::edit::is_deleting;
use crate::remediation::remediating;
use crate::status::set_paused;

const READY: Reasons = Reasons { good: "Ready", bad: "NotReady", unknown: "ReadyUnknown", none: "NoReplicas" };
const UP_TO_DATE: Reasons = Reasons { good: "UpToDate", bad: "NotUpToDate", unknown: "UpToDateUnknown", none: "NoReplicas" };

/// A Machine as a member of an aggregate.
pub fn member(machine: &Arc<Machine>) -> Member<'_> {
    Member {
        kind: "Machine",
        name: machine.metadata.name.as_deref().unwrap_or_default(),
        conditions: machine.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default(),
    }
}

/// How many of the Machines satisfy a test.
pub fn count(machines: &[Arc<Machine>], holds: impl Fn(&Machine) -> bool) -> i32 {
    i32::try_from(machines.iter().filter(|machine| holds(machine)).count()).unwrap_or(i32::MAX)
}

/// The v1beta1 generation leaves a count of zero out; tables show nothing for it.
pub fn unless_zero(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

/// Whether a Machine's condition is True.
pub fn has(machine: &Machine, condition: &str) -> bool {
    machine.status.as_ref().is_some_and(|status| is_true(&status.conditions, condition))
}

/// Whether a Machine has a Node that is ready: what counts as ready in the v1beta1 generation.
pub fn has_ready_node(machine: &Machine) -> bool {
    has(machine, "NodeReady") && machine.status.as_ref().is_some_and(|status| status.node_ref.is_some())
}

/// Whether a Machine counts as available in the v1beta1 generation: its Node is ready (long enough is the v1beta2 generation's matter).
pub fn is_available(machine: &Machine) -> bool {
    has_ready_node(machine) && has(machine, "Available")
}

/// Machines by Kubernetes version, as their Nodes report it, else as they ask for it.
pub fn versions(machines: &[Arc<Machine>]) -> Vec<VersionCount> {
    let mut counts: std::collections::BTreeMap<String, i32> = std::collections::BTreeMap::new();
    for machine in machines {
        let reported = machine.status.as_ref().and_then(|status| status.node_info.as_ref()).map(|info| info.kubelet_version.clone());
        if let Some(version) = reported.filter(|version| !version.is_empty()).or_else(|| machine.spec.version.clone()) {
            *counts.entry(version).or_default() += 1;
        }
    }
    counts.into_iter().map(|(version, replicas)| VersionCount { replicas: Some(replicas), version }).collect()
}

/// Computes the status from the old one and what was observed.
pub fn status(observed: &Observed, plan: &Plan) -> MachineSetStatus {
    let set = &observed.set;
    let mut status = set.status.clone().unwrap_or_default();
    let generation = set.metadata.generation;
    set_paused(&mut status.conditions, plan.is_paused, generation, observed.now);
    if plan.is_paused {
        return status;
    }
    let machines = &observed.machines;
    status.observed_generation = generation;
    status.selector = Some(set.spec.selector.to_query()).filter(|query| !query.is_empty());
    status.replicas = Some(count(machines, |_| true));
    status.ready_replicas = Some(count(machines, |machine| has(machine, "Ready")));
    status.available_replicas = Some(count(machines, |machine| has(machine, "Available")));
    status.up_to_date_replicas = Some(count(machines, |machine| has(machine, "UpToDate")));
    status.versions = versions(machines);
    legacy(observed, plan, &mut status);
    current(observed, plan, &mut status);
    status
}

fn wanted(observed: &Observed) -> i32 {
    if is_deleting(&observed.set.metadata) { 0 } else { observed.set.spec.replicas.unwrap_or(0) }
}

fn legacy(observed: &Observed, plan: &Plan, status: &mut MachineSetStatus) {
    let now = observed.now;
    let machines = &observed.machines;
    let labels = machine_labels(&observed.set);
    let view = &mut status.deprecated.v1beta1;
    let ready = count(machines, has_ready_node);
    view.ready_replicas = unless_zero(ready);
    view.available_replicas = unless_zero(count(machines, is_available));
    view.fully_labeled_replicas = unless_zero(count(machines, |machine| {
        let known = machine.metadata.labels.as_ref();
        labels.iter().all(|(key, value)| known.and_then(|known| known.get(key)) == Some(value))
    }));
    let list = &mut view.conditions;
    let created = match &plan.blocked {
        Some(blocked) => conditions::legacy_false("MachinesCreated", blocked.reason, Severity::Error, blocked.message.clone()),
        None => conditions::legacy_true("MachinesCreated"),
    };
    conditions::set_legacy(list, created, now);
    conditions::set_legacy(list, machines_ready(machines), now);
    let (present, wanted) = (count(machines, |_| true), wanted(observed));
    if present < wanted {
        let message = format!("Scaling up MachineSet to {wanted} replicas (actual {present})");
        conditions::set_legacy(list, conditions::legacy_false("Resized", "ScalingUp", Severity::Warning, message), now);
    } else if present > wanted {
        let message = format!("Scaling down MachineSet to {wanted} replicas (actual {present})");
        conditions::set_legacy(list, conditions::legacy_false("Resized", "ScalingDown", Severity::Warning, message), now);
    } else if ready == present || get_legacy(list, "Resized").is_none() {
        conditions::set_legacy(list, conditions::legacy_true("Resized"), now);
    }
    if let Some(ready) = conditions::summarize_legacy(list, &["MachinesCreated", "Resized", "MachinesReady"]) {
        conditions::set_legacy(list, ready, now);
    }
}

/// The Machines' v1beta1 Ready as one: the worst one's words.
pub fn machines_ready(machines: &[Arc<Machine>]) -> LegacyCondition {
    let known = |machine: &Arc<Machine>| {
        let status = machine.status.as_ref()?;
        get_legacy(&status.deprecated.v1beta1.conditions, "Ready").cloned()
    };
    let bad = machines.iter().filter_map(known).filter(|condition| condition.status != Status::True);
    let rank = |condition: &LegacyCondition| match (condition.status, condition.severity) {
        (Status::False, None | Some(Severity::Error)) => 0,
        (Status::False, Some(Severity::Warning)) => 1,
        (Status::False, Some(Severity::Info)) => 2,
        _ => 3,
    };
    match bad.min_by_key(rank) {
        None => conditions::legacy_true("MachinesReady"),
        Some(worst) => LegacyCondition { type_: "MachinesReady".to_owned(), ..worst },
    }
}

/// ScalingUp: fewer Machines than wanted, and what stands in the way.
pub fn scaling_up(present: i32, wanted: i32, blocked: Option<&str>) -> New<'static> {
    if present >= wanted {
        return conditions::new("ScalingUp", false, "NotScalingUp", "");
    }
    let mut message = format!("Scaling up from {present} to {wanted} replicas");
    if let Some(blocked) = blocked {
        message.push_str(" is blocked because:\n* ");
        message.push_str(blocked);
    }
    conditions::new("ScalingUp", true, "ScalingUp", message)
}

/// ScalingDown: more Machines than wanted.
pub fn scaling_down(present: i32, wanted: i32) -> New<'static> {
    if present <= wanted {
        return conditions::new("ScalingDown", false, "NotScalingDown", "");
    }
    conditions::new("ScalingDown", true, "ScalingDown", format!("Scaling down from {present} to {wanted} replicas"))
}

/// Deleting, with how many Machines are left.
pub fn deleting(left: Option<usize>) -> New<'static> {
    match left {
        None => conditions::new("Deleting", false, "NotDeleting", ""),
        Some(0) => conditions::new("Deleting", true, "DeletionCompleted", "Deletion completed"),
        Some(1) => conditions::new("Deleting", true, "Deleting", "Deleting 1 Machine"),
        Some(left) => conditions::new("Deleting", true, "Deleting", format!("Deleting {left} Machines")),
    }
}

fn current(observed: &Observed, plan: &Plan, status: &mut MachineSetStatus) {
    let (generation, now) = (observed.set.metadata.generation, observed.now);
    let (present, wanted) = (count(&observed.machines, |_| true), wanted(observed));
    let members: Vec<Member<'_>> = observed.machines.iter().map(member).collect();
    let blocked = plan.blocked.as_ref().map(|blocked| blocked.message.as_str());
    let all = [
        scaling_up(present, wanted, blocked),
        scaling_down(present, wanted),
        aggregate::all("MachinesReady", "Ready", &members, READY),
        aggregate::all("MachinesUpToDate", "UpToDate", &members, UP_TO_DATE),
        remediating(&observed.machines),
        deleting(plan.deletion_left),
    ];
    for condition in all {
        conditions::set(&mut status.conditions, condition, generation, now);
    }
}
