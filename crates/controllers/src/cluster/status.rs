//! What a Cluster tells: phase, initialization, counts and the conditions of both generations. Pure.
//!
//! Condition types, reasons and the forms of messages are upstream's; messages add since when and why where upstream has a bare word.

use std::sync::Arc;

use api::cluster::{Cluster, ClusterPhase, ClusterStatus, Machine, ReplicaCounts};
use api::conditions::{self, Condition, Severity, Status, get, is_true};
use api::meta::FailureDomain;
use jiff::{SignedDuration, Timestamp};
use runtime::reconcile::Wait;
use serde_json::Value;

use super::plan::{Deletion, Observed, Plan};
use super::strays;
use crate::aggregate::{self, Member, Reasons};
use crate::contract::{External, Referenced};
use crate::controlplane::is_control_plane;
use crate::mirror;
use crate::remediation::remediating;
use crate::status::set_paused;
use crate::workload::Connection;

const INITIALIZATION_WAIT: &str = "Waiting for control plane provider to indicate the control plane has been initialized";

/// The condition, of ours, that is there while Nodes belong to no Machine.
pub const STRAY_NODES: &str = "StrayNodes";

/// What is told of Nodes without a Machine, when that is news.
pub fn new_strays(cluster: &Cluster, new: &ClusterStatus) -> Option<String> {
    let told = |status: &ClusterStatus| get(&status.conditions, STRAY_NODES).map(|told| told.message.clone());
    let (old, new) = (cluster.status.as_ref().and_then(told), told(new));
    new.filter(|new| old.as_ref() != Some(new))
}

/// Computes the status from the old one and what was observed.
pub fn status(observed: &Observed, plan: &Plan) -> ClusterStatus {
    let cluster = &observed.cluster;
    let mut status = cluster.status.clone().unwrap_or_default();
    let generation = cluster.metadata.generation;
    set_paused(&mut status.conditions, plan.is_paused, generation, observed.now);
    if plan.is_paused {
        return status;
    }
    status.observed_generation = generation;
    initialization(observed, &mut status);
    status.phase = Some(phase(observed, &status));
    counts(observed, &mut status);
    legacy(observed, &mut status);
    current(observed, plan, &mut status);
    status
}

fn initialization(observed: &Observed, status: &mut ClusterStatus) {
    let is_provisioned = match &observed.infrastructure {
        Referenced::None => true,
        Referenced::Missing { .. } => false,
        Referenced::Found(object) => object.is_provisioned(),
    };
    // Both never go back.
    if is_provisioned {
        status.initialization.infrastructure_provisioned = Some(true);
    }
    let is_initialized = match &observed.control_plane {
        // Without a control-plane object the first control-plane Machine with a Node counts.
        Referenced::None => observed.machines.iter().any(|machine| is_control_plane(machine) && node_of(machine).is_some()),
        Referenced::Missing { .. } => false,
        Referenced::Found(object) => object.is_control_plane_initialized(),
    };
    if is_initialized {
        status.initialization.control_plane_initialized = Some(true);
    }
    if let Some(object) = observed.infrastructure.found().filter(|object| object.is_provisioned()) {
        status.failure_domains = failure_domains(object);
    }
}

fn node_of(machine: &Machine) -> Option<&str> {
    machine.status.as_ref()?.node_ref.as_ref().map(|node| node.name.as_str())
}

/// A list in v1beta2; a map from name to the rest in v1beta1.
fn failure_domains(object: &External) -> Vec<FailureDomain> {
    match &object.status.failure_domains {
        Value::Array(list) => list.iter().filter_map(|domain| serde_json::from_value(domain.clone()).ok()).collect(),
        Value::Object(map) => {
            let named = map.iter().map(|(name, domain)| {
                let domain: FailureDomain = serde_json::from_value(domain.clone()).unwrap_or_default();
                FailureDomain { name: name.clone(), ..domain }
            });
            let mut list: Vec<FailureDomain> = named.collect();
            list.sort_by(|a, b| a.name.cmp(&b.name));
            list
        }
        _ => Vec::new(),
    }
}

fn phase(observed: &Observed, status: &ClusterStatus) -> ClusterPhase {
    if observed.cluster.metadata.deletion_timestamp.is_some() {
        return ClusterPhase::Deleting;
    }
    let failure = [&observed.infrastructure, &observed.control_plane].into_iter().filter_map(|part| part.found()?.failure()).next();
    if failure.is_some() {
        return ClusterPhase::Failed;
    }
    let is_provisioned = status.initialization.infrastructure_provisioned == Some(true);
    if is_provisioned && observed.cluster.spec.control_plane_endpoint.is_valid() {
        return ClusterPhase::Provisioned;
    }
    if observed.cluster.spec.infrastructure_ref.is_some() || observed.cluster.spec.control_plane_ref.is_some() {
        return ClusterPhase::Provisioning;
    }
    ClusterPhase::Pending
}

fn count(machines: &[&Arc<Machine>], condition: &str) -> i32 {
    let holds = |machine: &Arc<Machine>| machine.status.as_ref().is_some_and(|status| is_true(&status.conditions, condition));
    i32::try_from(machines.iter().filter(|machine| holds(machine)).count()).unwrap_or(i32::MAX)
}

fn counts(observed: &Observed, status: &mut ClusterStatus) {
    status.control_plane = observed.control_plane.found().map(|object| ReplicaCounts {
        desired_replicas: object.spec.replicas,
        replicas: object.status.replicas,
        ready_replicas: object.status.ready_replicas,
        available_replicas: object.status.available_replicas.or(object.status.ready_replicas),
        up_to_date_replicas: object.status.up_to_date_replicas.or(object.status.updated_replicas),
        ..ReplicaCounts::default()
    });
    let workers: Vec<&Arc<Machine>> = observed.machines.iter().filter(|machine| !is_control_plane(machine)).collect();
    if observed.deployments.is_empty() && observed.sets.is_empty() && workers.is_empty() {
        status.workers = None;
        return;
    }
    let standalone_sets = observed.sets.iter().filter(|set| crate::edit::controller_reference(&set.metadata).is_none());
    let in_sets: i32 = standalone_sets.map(|set| set.spec.replicas.unwrap_or(0)).sum();
    let in_deployments: i32 = observed.deployments.iter().map(|deployment| deployment.spec.replicas.unwrap_or(0)).sum();
    let alone = workers.iter().filter(|machine| crate::edit::controller_reference(&machine.metadata).is_none()).count();
    status.workers = Some(ReplicaCounts {
        desired_replicas: Some(in_sets + in_deployments + i32::try_from(alone).unwrap_or(0)),
        replicas: Some(i32::try_from(workers.len()).unwrap_or(i32::MAX)),
        ready_replicas: Some(count(&workers, "Ready")),
        available_replicas: Some(count(&workers, "Available")),
        up_to_date_replicas: Some(count(&workers, "UpToDate")),
        ..ReplicaCounts::default()
    });
}

fn legacy(observed: &Observed, status: &mut ClusterStatus) {
    let is_initialized = status.initialization.control_plane_initialized == Some(true);
    let list = &mut status.deprecated.v1beta1.conditions;
    let infrastructure = &observed.infrastructure;
    let shown = mirror::shown_legacy("InfrastructureReady", "Ready", infrastructure, External::is_provisioned, "WaitingForInfrastructure");
    conditions::set_legacy(list, shown, observed.now);
    let control_plane = &observed.control_plane;
    let is_ready = |object: &External| object.status.ready == Some(true);
    let shown = mirror::shown_legacy("ControlPlaneReady", "Ready", control_plane, is_ready, "WaitingForControlPlane");
    conditions::set_legacy(list, shown, observed.now);
    let initialized = if is_initialized {
        conditions::legacy_true("ControlPlaneInitialized")
    } else {
        let reason = "WaitingForControlPlaneProviderInitialized";
        conditions::legacy_false("ControlPlaneInitialized", reason, Severity::Info, INITIALIZATION_WAIT)
    };
    conditions::set_legacy(list, initialized, observed.now);
    if let Some(ready) = conditions::summarize_legacy(list, &["ControlPlaneReady", "InfrastructureReady"]) {
        conditions::set_legacy(list, ready, observed.now);
    }
    let failure = [infrastructure, control_plane].into_iter().filter_map(|part| part.found()?.failure()).next();
    status.deprecated.v1beta1.failure_reason = failure.as_ref().map(|(reason, _)| reason.clone());
    status.deprecated.v1beta1.failure_message = failure.map(|(_, message)| message);
}

const MACHINES_READY: Reasons = Reasons { good: "Ready", bad: "NotReady", unknown: "ReadyUnknown", none: "NoReplicas" };
const MACHINES_UP_TO_DATE: Reasons = Reasons { good: "UpToDate", bad: "NotUpToDate", unknown: "UpToDateUnknown", none: "NoReplicas" };
const WORKERS_AVAILABLE: Reasons = Reasons { good: "Available", bad: "NotAvailable", unknown: "AvailableUnknown", none: "NoWorkers" };
const ROLLING_OUT: Reasons = Reasons { good: "RollingOut", bad: "NotRollingOut", unknown: "", none: "" };
const SCALING_UP: Reasons = Reasons { good: "ScalingUp", bad: "NotScalingUp", unknown: "", none: "" };
const SCALING_DOWN: Reasons = Reasons { good: "ScalingDown", bad: "NotScalingDown", unknown: "", none: "" };

fn member(machine: &Arc<Machine>) -> Member<'_> {
    Member {
        kind: "Machine",
        name: machine.metadata.name.as_deref().unwrap_or_default(),
        conditions: machine.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default(),
    }
}

fn current(observed: &Observed, plan: &Plan, status: &mut ClusterStatus) {
    let (generation, now) = (observed.cluster.metadata.generation, observed.now);
    let (control_plane, workers): (Vec<Member<'_>>, Vec<Member<'_>>) = {
        let (control_plane, workers): (Vec<_>, Vec<_>) = observed.machines.iter().partition(|machine| is_control_plane(machine));
        (control_plane.into_iter().map(member).collect(), workers.into_iter().map(member).collect())
    };
    let deployments: Vec<Member<'_>> = observed
        .deployments
        .iter()
        .map(|deployment| Member {
            kind: "MachineDeployment",
            name: deployment.metadata.name.as_deref().unwrap_or_default(),
            conditions: deployment.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default(),
        })
        .collect();
    let is_initialized = status.initialization.control_plane_initialized == Some(true);
    let initialized = if is_initialized { ("Initialized", "") } else { ("NotInitialized", "Control plane not yet initialized") };
    let provisioned = "status.initialization.provisioned is false";
    let unavailable = "does not report the condition Available";
    let is_ready = |object: &External| object.status.ready == Some(true);
    let all = vec![
        probe(observed, &status.conditions),
        mirror::shown("InfrastructureReady", "Ready", "Infrastructure", &observed.infrastructure, External::is_provisioned, provisioned),
        conditions::new("ControlPlaneInitialized", is_initialized, initialized.0, initialized.1),
        mirror::shown("ControlPlaneAvailable", "Available", "Control plane", &observed.control_plane, is_ready, unavailable),
        aggregate::all("WorkersAvailable", "Available", &deployments, WORKERS_AVAILABLE),
        aggregate::any("RollingOut", "RollingOut", &deployments, ROLLING_OUT),
        remediating(&observed.machines),
        aggregate::any("ScalingDown", "ScalingDown", &deployments, SCALING_DOWN),
        aggregate::any("ScalingUp", "ScalingUp", &deployments, SCALING_UP),
        aggregate::all("ControlPlaneMachinesReady", "Ready", &control_plane, MACHINES_READY),
        aggregate::all("WorkerMachinesReady", "Ready", &workers, MACHINES_READY),
        aggregate::all("ControlPlaneMachinesUpToDate", "UpToDate", &control_plane, MACHINES_UP_TO_DATE),
        aggregate::all("WorkerMachinesUpToDate", "UpToDate", &workers, MACHINES_UP_TO_DATE),
        deleting(plan.deletion.as_ref(), &status.conditions, now),
    ];
    for condition in all {
        conditions::set(&mut status.conditions, condition, generation, now);
    }
    match strays::told(observed) {
        Some(told) => drop(conditions::set(&mut status.conditions, conditions::new(STRAY_NODES, true, STRAY_NODES, told), generation, now)),
        None if observed.connection.is_connected() => conditions::remove(&mut status.conditions, STRAY_NODES),
        None => {}
    }
    let positive = ["RemoteConnectionProbe", "InfrastructureReady", "ControlPlaneAvailable", "WorkersAvailable"];
    let mut available = conditions::summarize("Available", &status.conditions, &positive, &["Deleting"], "Available");
    available.reason = match available.status {
        Status::True => "Available",
        Status::False => "NotAvailable",
        Status::Unknown => "AvailableUnknown",
    };
    conditions::set(&mut status.conditions, available, generation, now);
    if let Some(place) = status.conditions.iter().position(|condition| condition.type_ == "Available") {
        let available = status.conditions.remove(place);
        status.conditions.insert(0, available);
    }
}

/// How long a cluster may be away before the probe counts as failed. Upstream's `--remote-connection-grace-period`.
const CONNECTION_GRACE: SignedDuration = SignedDuration::from_secs(50);

/// When a cluster that was reached before counts as out of reach; none while it answers.
pub fn doubted_at(observed: &Observed) -> Option<Timestamp> {
    crate::workload::doubted_at(&observed.connection, observed.away_since, CONNECTION_GRACE)
}

fn probe(observed: &Observed, known: &[Condition]) -> conditions::New<'static> {
    let was_reached = get(known, "RemoteConnectionProbe").is_some_and(|condition| condition.status == Status::True);
    if was_reached && doubted_at(observed).is_some_and(|until| observed.now < until) {
        return conditions::new("RemoteConnectionProbe", true, "ProbeSucceeded", "");
    }
    match &observed.connection {
        Connection::Connected { .. } => conditions::new("RemoteConnectionProbe", true, "ProbeSucceeded", ""),
        other => conditions::new("RemoteConnectionProbe", false, "ProbeFailed", format!("Remote connection probe failed: {other}")),
    }
}

fn deleting(deletion: Option<&Deletion>, known: &[Condition], now: Timestamp) -> conditions::New<'static> {
    let begun = get(known, "Deleting").filter(|condition| condition.status == Status::True);
    let wait = |on: &str| Wait::since_transition(format!("{on} to be deleted"), begun.map(|c| &c.last_transition_time), now);
    match deletion {
        None => conditions::new("Deleting", false, "NotDeleting", ""),
        Some(Deletion::Workers { left }) => {
            let (shown, rest) = left.split_at(left.len().min(5));
            let more = if rest.is_empty() { String::new() } else { format!(", ... ({} more)", rest.len()) };
            let message = format!("{}: {}{more}", wait("workers"), shown.join(", "));
            conditions::new("Deleting", true, "WaitingForWorkersDeletion", message)
        }
        Some(Deletion::ControlPlane { left }) => {
            conditions::new("Deleting", true, "WaitingForControlPlaneDeletion", wait(left).to_string())
        }
        Some(Deletion::Infrastructure { left }) => {
            conditions::new("Deleting", true, "WaitingForInfrastructureDeletion", wait(left).to_string())
        }
        Some(Deletion::Completed) => conditions::new("Deleting", true, "DeletionCompleted", ""),
    }
}

/// The events that the change from one status to the next is worth, as reason and message.
pub fn events(cluster: &Cluster, new: &ClusterStatus) -> Vec<(String, String)> {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let old = cluster.status.as_ref();
    let mut events = Vec::new();
    if old.and_then(|old| old.phase) != new.phase
        && let Some(phase) = new.phase
    {
        events.push((phase.to_string(), format!("Cluster {name} is {phase}")));
    }
    for type_ in ["InfrastructureReady", "ControlPlaneInitialized", "Available"] {
        let was = old.and_then(|old| get(&old.conditions, type_)).map(|condition| condition.status);
        let is = get(&new.conditions, type_).map(|condition| condition.status);
        if is == Some(Status::True) && was != is {
            events.push((type_.to_owned(), format!("Cluster {name} {type_} is now True")));
        }
    }
    events
}
