//! Which Machines a MachineHealthCheck finds unhealthy. Pure.
//!
//! Counts and verdicts only: replacing Machines is not done by this version, so nothing is marked for its owner. A Machine that cannot be
//! judged (its cluster's API is away, its time has not run out, the control plane is not up yet) is neither healthy nor unhealthy.

use std::sync::Arc;
use std::time::Duration;

use api::cluster::{Cluster, Machine, MachineHealthCheck};
use api::conditions::{Status, get};
use api::names::{annotations, labels};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use crate::controlplane::is_control_plane;
use crate::edit::{is_deleting, is_paused};
use crate::workload::Connection;

/// How long a Machine may take to get its Node when the check does not say.
const STARTUP_LIMIT: Duration = Duration::from_secs(600);

/// What is known when a check is planned.
#[derive(Clone, Debug)]
pub struct Observed {
    pub check: Arc<MachineHealthCheck>,
    pub cluster: Option<Arc<Cluster>>,
    /// Machines that the selector takes in, by name.
    pub machines: Vec<Arc<Machine>>,
    pub connection: Connection,
    pub nodes: Vec<Arc<Node>>,
    pub now: Timestamp,
}

/// What is found about one Machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Healthy,
    Unhealthy {
        reason: &'static str,
        message: String,
    },
    /// Not known before this time, or before something changes.
    Undecided {
        until: Option<Timestamp>,
    },
}

/// One outside effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Cluster label, the Cluster as an owner.
    Claim,
    /// Tell a Machine its verdict.
    Tell { machine: Arc<Machine>, verdict: Verdict },
}

/// What to do, and what was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub is_paused: bool,
    pub verdicts: Vec<(String, Verdict)>,
    pub healthy: i32,
    pub unhealthy: i32,
    /// How many more unhealthy Machines may be replaced; none when there are too many.
    pub allowed: Option<i32>,
    pub again_at: Option<Timestamp>,
}

/// Decides for one check.
pub fn plan(observed: &Observed) -> Plan {
    let check = &observed.check;
    if is_paused(observed.cluster.as_deref(), &check.metadata) {
        return Plan { is_paused: true, ..Plan::default() };
    }
    if is_deleting(&check.metadata) {
        return Plan::default();
    }
    let mut plan = Plan::default();
    let Some(cluster) = &observed.cluster else { return plan };
    if is_unclaimed(check, cluster) {
        plan.steps.push(Step::Claim);
    }
    for machine in &observed.machines {
        if is_paused(None, &machine.metadata) || is_skipped(machine) || is_deleting(&machine.metadata) {
            continue;
        }
        let verdict = judge(observed, cluster, machine);
        match &verdict {
            Verdict::Healthy => plan.healthy += 1,
            Verdict::Unhealthy { .. } => plan.unhealthy += 1,
            Verdict::Undecided { until } => plan.again_at = [plan.again_at, *until].into_iter().flatten().min(),
        }
        if is_untold(machine, &verdict) {
            plan.steps.push(Step::Tell { machine: Arc::clone(machine), verdict: verdict.clone() });
        }
        plan.verdicts.push((machine.metadata.name.clone().unwrap_or_default(), verdict));
    }
    plan.allowed = allowed(check, plan.verdicts.len(), plan.unhealthy);
    plan
}

fn is_unclaimed(check: &MachineHealthCheck, cluster: &Cluster) -> bool {
    let is_labelled = check.metadata.labels.as_ref().and_then(|known| known.get(labels::CLUSTER_NAME)) == Some(&check.spec.cluster_name);
    let is_owned = check.metadata.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == cluster.metadata.uid.as_ref());
    !is_labelled || !is_owned
}

fn is_skipped(machine: &Machine) -> bool {
    machine.metadata.annotations.as_ref().is_some_and(|known| known.contains_key(annotations::SKIP_REMEDIATION))
}

fn is_untold(machine: &Machine, verdict: &Verdict) -> bool {
    let told = machine.status.as_ref().and_then(|status| get(&status.conditions, "HealthCheckSucceeded"));
    match verdict {
        Verdict::Healthy => told.is_none_or(|told| told.status != Status::True),
        Verdict::Unhealthy { reason, message } => {
            told.is_none_or(|told| told.status != Status::False || told.reason != *reason || told.message != *message)
        }
        Verdict::Undecided { .. } => false,
    }
}

fn after(since: Timestamp, seconds: i32) -> Timestamp {
    since.checked_add(SignedDuration::from_secs(i64::from(seconds.max(0)))).unwrap_or(Timestamp::MAX)
}

fn judge(observed: &Observed, cluster: &Cluster, machine: &Machine) -> Verdict {
    let marked = machine.metadata.annotations.as_ref().is_some_and(|known| known.contains_key(annotations::REMEDIATE_MACHINE));
    if marked {
        let message = format!("marked for replacement by the annotation {}", annotations::REMEDIATE_MACHINE);
        return Verdict::Unhealthy { reason: "HasRemediateMachineAnnotation", message };
    }
    let status = cluster.status.as_ref();
    let initialized = status.and_then(|status| get(&status.conditions, "ControlPlaneInitialized"));
    let is_initialized = initialized.is_some_and(|condition| condition.status == Status::True);
    if !is_initialized && !is_control_plane(machine) {
        return Verdict::Undecided { until: None };
    }
    let mut next: Option<Timestamp> = None;
    let mut wait = |until: Timestamp| next = Some(next.map_or(until, |next| next.min(until)));
    let own = machine.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    for wanted in &observed.check.spec.checks.unhealthy_machine_conditions {
        let Some(found) = get(own, &wanted.type_).filter(|found| found.status == wanted.status) else { continue };
        let until = after(found.last_transition_time.0, wanted.timeout_seconds);
        if observed.now >= until {
            let message = format!("Condition {} on Machine is {} for more than {} s", wanted.type_, wanted.status, wanted.timeout_seconds);
            return Verdict::Unhealthy { reason: "UnhealthyMachine", message };
        }
        wait(until);
    }
    let node_ref = machine.status.as_ref().and_then(|status| status.node_ref.as_ref());
    let Some(node_ref) = node_ref else { return startup(observed, cluster, machine) };
    if !observed.connection.is_connected() {
        return Verdict::Undecided { until: None };
    }
    let Some(node) = observed.nodes.iter().find(|node| node.metadata.name.as_ref() == Some(&node_ref.name)) else {
        return Verdict::Unhealthy { reason: "NodeDeleted", message: format!("Node {} has been deleted", node_ref.name) };
    };
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    for condition in conditions {
        for wanted in observed.check.spec.checks.unhealthy_node_conditions.iter() {
            if wanted.type_ != condition.type_ || wanted.status != condition.status {
                continue;
            }
            let since = condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
            let until = after(since, wanted.timeout_seconds);
            if observed.now >= until {
                let message = format!("Condition {} on Node is {} for more than {} s", wanted.type_, wanted.status, wanted.timeout_seconds);
                return Verdict::Unhealthy { reason: "UnhealthyNode", message };
            }
            wait(until);
        }
    }
    next.map_or(Verdict::Healthy, |until| Verdict::Undecided { until: Some(until) })
}

/// A Machine without a Node: its time counts from when everything it needs was there.
fn startup(observed: &Observed, cluster: &Cluster, machine: &Machine) -> Verdict {
    let limit = match observed.check.spec.checks.node_startup_timeout_seconds {
        Some(0) => return Verdict::Undecided { until: None },
        Some(seconds) => seconds,
        None => i32::try_from(STARTUP_LIMIT.as_secs()).unwrap_or(i32::MAX),
    };
    let since_true = |list: &[api::conditions::Condition], type_: &str| {
        get(list, type_).filter(|condition| condition.status == Status::True).map(|condition| condition.last_transition_time.0)
    };
    let of_cluster = cluster.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let of_machine = machine.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let beginnings = [
        machine.metadata.creation_timestamp.as_ref().map(|time| time.0),
        since_true(of_cluster, "ControlPlaneInitialized"),
        since_true(of_cluster, "InfrastructureReady"),
        since_true(of_machine, "InfrastructureReady"),
    ];
    let Some(begun) = beginnings.into_iter().flatten().max() else { return Verdict::Undecided { until: None } };
    let until = after(begun, limit);
    if observed.now >= until {
        Verdict::Unhealthy { reason: "NodeStartupTimeout", message: format!("Node failed to report startup in {limit} s") }
    } else {
        Verdict::Undecided { until: Some(until) }
    }
}

/// How many unhealthy Machines may be replaced; none when there are more than the check allows (or it is out of its range).
fn allowed(check: &MachineHealthCheck, total: usize, unhealthy: i32) -> Option<i32> {
    let total = i32::try_from(total).unwrap_or(i32::MAX);
    let trigger = &check.spec.remediation.trigger_if;
    if let Some((least, most)) = trigger.unhealthy_in_range.as_deref().and_then(range) {
        let is_inside = (least..=most).contains(&unhealthy);
        return is_inside.then(|| (most - unhealthy).clamp(0, total));
    }
    let most = trigger.unhealthy_less_than_or_equal_to.as_ref().and_then(|limit| limit.of(total, false)).unwrap_or(total);
    (unhealthy <= most).then(|| (most - unhealthy).clamp(0, total))
}

/// `[2-5]`.
fn range(text: &str) -> Option<(i32, i32)> {
    let (least, most) = text.strip_prefix('[')?.strip_suffix(']')?.split_once('-')?;
    Some((least.trim().parse().ok()?, most.trim().parse().ok()?))
}
