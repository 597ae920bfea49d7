//! What a Machine tells: phase, addresses, Node, deletion times and the conditions of both generations. Pure.
//!
//! Condition types and reasons are upstream's. The Machine's own `Ready` of v1beta1 leaves NodeHealthy out, as upstream does; the one of
//! v1beta2 counts it. HealthCheckSucceeded and OwnerRemediated are others' to write and are kept.

use api::cluster::{Machine, MachineDeletionStatus, MachinePhase, MachineStatus, NodeSystemInfo};
use api::conditions::{self, Condition, New, Severity, Status, get, is_true};
use api::meta::{NameReference, Time};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use runtime::reconcile::Wait;

use super::held;
use super::plan::{Deletion, NodeWait, Observed, Plan};
use crate::contract::{External, Referenced};
use crate::mirror;
use crate::status::set_paused;
use crate::workload::Role;

/// How long the objects that a new Machine references may take to appear: they are made a moment after it.
pub const NASCENT: SignedDuration = SignedDuration::from_secs(1);

/// The condition, of ours, that a cloud provider has yet to initialize the Node: there only while that takes longer than it should. Ready
/// does not count it, as upstream's does not.
pub const NODE_INITIALIZED: &str = "NodeInitialized";

/// Whether the Machine was made a moment ago and what it references was not yet: there is nothing to tell.
pub fn is_nascent(observed: &Observed, plan: &Plan) -> bool {
    let meta = &observed.machine.metadata;
    let is_new = observed.machine.status.is_none() && meta.deletion_timestamp.is_none() && !plan.is_paused;
    let is_missing = |part: &Referenced| matches!(part, Referenced::Missing { .. });
    let until = meta.creation_timestamp.as_ref().and_then(|made| made.0.checked_add(NASCENT).ok());
    is_new && (is_missing(&observed.bootstrap) || is_missing(&observed.infrastructure)) && until.is_some_and(|until| observed.now < until)
}

/// Computes the status from the old one and what was observed.
pub fn status(observed: &Observed, plan: &Plan) -> MachineStatus {
    let machine = &observed.machine;
    let mut status = machine.status.clone().unwrap_or_default();
    let generation = machine.metadata.generation;
    set_paused(&mut status.conditions, plan.is_paused, generation, observed.now);
    if plan.is_paused {
        return status;
    }
    status.observed_generation = generation;
    progress(observed, plan, &mut status);
    deletion_times(observed, plan, &mut status);
    legacy(observed, plan, &mut status);
    current(observed, plan, &mut status);
    let phase = phase(observed, plan, &status);
    if status.phase != Some(phase) {
        status.phase = Some(phase);
        status.last_updated = Some(Time(observed.now));
    }
    status
}

fn progress(observed: &Observed, plan: &Plan, status: &mut MachineStatus) {
    let has_data = observed.bootstrap.found().is_some_and(|object| object.data_secret().is_some());
    let is_given = observed.machine.spec.bootstrap.config_ref.is_none() && observed.machine.spec.bootstrap.data_secret_name.is_some();
    if has_data || is_given {
        status.initialization.bootstrap_data_secret_created = Some(true);
    }
    if let Some(object) = observed.infrastructure.found().filter(|object| object.is_provisioned()) {
        status.initialization.infrastructure_provisioned = Some(true);
        status.addresses.clone_from(&object.status.addresses);
        status.failure_domain = object.status.failure_domain.clone().or_else(|| object.spec.failure_domain.clone());
    }
    if let Some(node) = &plan.node {
        status.node_ref = node.metadata.name.clone().map(|name| NameReference { name });
        status.node_info = node_info(node);
    }
}

fn node_info(node: &Node) -> Option<NodeSystemInfo> {
    let info = node.status.as_ref()?.node_info.as_ref()?;
    Some(NodeSystemInfo {
        architecture: info.architecture.clone(),
        boot_id: info.boot_id.clone(),
        container_runtime_version: info.container_runtime_version.clone(),
        kernel_version: info.kernel_version.clone(),
        kube_proxy_version: info.kube_proxy_version.clone(),
        kubelet_version: info.kubelet_version.clone(),
        machine_id: info.machine_id.clone(),
        operating_system: info.operating_system.clone(),
        os_image: info.os_image.clone(),
        swap: None,
        system_uuid: info.system_uuid.clone(),
    })
}

fn deletion_times(observed: &Observed, plan: &Plan, status: &mut MachineStatus) {
    let Some(deletion) = &plan.deletion else { return };
    let now = Time(observed.now);
    let mut times = status.deletion.clone().unwrap_or_default();
    match deletion {
        Deletion::PreDrainHook { .. } => times.wait_for_pre_drain_hook_start_time.get_or_insert(now),
        Deletion::Drain { progress, .. } => times.node_drain_start_time.get_or_insert(Time(progress.since)),
        Deletion::VolumeDetach { progress, .. } => times.wait_for_node_volume_detach_start_time.get_or_insert(Time(progress.since)),
        Deletion::PreTerminateHook { .. } => times.wait_for_pre_terminate_hook_start_time.get_or_insert(now),
        _ => return,
    };
    if times != MachineDeletionStatus::default() {
        status.deletion = Some(times);
    }
}

/// A failure that the bootstrap or infrastructure provider calls final, or infrastructure that was there and is gone.
fn failure(observed: &Observed) -> Option<(String, String)> {
    let told = [&observed.bootstrap, &observed.infrastructure].into_iter().filter_map(|part| part.found()?.failure()).next();
    told.or_else(|| {
        let was_provisioned =
            observed.machine.status.as_ref().is_some_and(|status| status.initialization.infrastructure_provisioned == Some(true));
        match &observed.infrastructure {
            Referenced::Missing { kind, name } if was_provisioned => {
                Some(("InvalidConfiguration".to_owned(), format!("{kind} {name} was there and is gone")))
            }
            _ => None,
        }
    })
}

fn phase(observed: &Observed, plan: &Plan, status: &MachineStatus) -> MachinePhase {
    if let Some(deletion) = &plan.deletion {
        return if *deletion == Deletion::Completed { MachinePhase::Deleted } else { MachinePhase::Deleting };
    }
    if failure(observed).is_some() {
        return MachinePhase::Failed;
    }
    let is_provisioned = status.initialization.infrastructure_provisioned == Some(true);
    let is_bootstrapped = status.initialization.bootstrap_data_secret_created == Some(true);
    match (status.node_ref.is_some() && is_provisioned, is_provisioned, is_bootstrapped) {
        (true, _, _) => MachinePhase::Running,
        (_, true, _) => MachinePhase::Provisioned,
        (_, _, true) => MachinePhase::Provisioning,
        _ => MachinePhase::Pending,
    }
}

fn bootstrap_holds(object: &External) -> bool {
    object.data_secret().is_some()
}

fn legacy(observed: &Observed, plan: &Plan, status: &mut MachineStatus) {
    let now = observed.now;
    let list = &mut status.deprecated.v1beta1.conditions;
    let shown = mirror::shown_legacy("BootstrapReady", "Ready", &observed.bootstrap, bootstrap_holds, "WaitingForDataSecret");
    conditions::set_legacy(list, shown, now);
    let infrastructure = &observed.infrastructure;
    let shown = mirror::shown_legacy("InfrastructureReady", "Ready", infrastructure, External::is_provisioned, "WaitingForInfrastructure");
    conditions::set_legacy(list, shown, now);
    let node = match node_health(observed, plan, &status.conditions) {
        NodeHealth { status: Status::True, .. } => conditions::legacy_true("NodeHealthy"),
        _ if plan.node.is_none() && status.node_ref.is_none() => {
            conditions::legacy_false("NodeHealthy", "WaitingForNodeRef", Severity::Info, "")
        }
        _ if matches!(plan.node_wait, Some(NodeWait::Lost { .. })) => {
            conditions::legacy_false("NodeHealthy", "NodeNotFound", Severity::Error, "")
        }
        NodeHealth { status: Status::Unknown, message, .. } => conditions::legacy_unknown("NodeHealthy", "NodeConditionsFailed", message),
        NodeHealth { message, .. } => conditions::legacy_false("NodeHealthy", "NodeConditionsFailed", Severity::Warning, message),
    };
    conditions::set_legacy(list, node, now);
    let hook = |name: &str, is_waiting: bool, hooks: &[String]| {
        if is_waiting {
            conditions::legacy_false(name, "WaitingExternalHook", Severity::Info, format!("waiting for {}", hooks.join(", ")))
        } else {
            conditions::legacy_true(name)
        }
    };
    match &plan.deletion {
        None => {}
        Some(Deletion::PreDrainHook { hooks }) => {
            conditions::set_legacy(list, hook("PreDrainDeleteHookSucceeded", true, hooks), now);
        }
        Some(Deletion::Drain { .. }) => {
            conditions::set_legacy(list, hook("PreDrainDeleteHookSucceeded", false, &[]), now);
            let draining = "Draining the node before deletion";
            conditions::set_legacy(list, conditions::legacy_false("DrainingSucceeded", "Draining", Severity::Info, draining), now);
        }
        Some(Deletion::VolumeDetach { .. }) => {
            conditions::set_legacy(list, hook("PreDrainDeleteHookSucceeded", false, &[]), now);
            conditions::set_legacy(list, conditions::legacy_true("DrainingSucceeded"), now);
            let waiting = "Waiting for node volumes to be detached";
            let detaching = conditions::legacy_false("VolumeDetachSucceeded", "WaitingForVolumeDetach", Severity::Info, waiting);
            conditions::set_legacy(list, detaching, now);
        }
        Some(Deletion::PreTerminateHook { hooks }) => {
            conditions::set_legacy(list, hook("PreDrainDeleteHookSucceeded", false, &[]), now);
            conditions::set_legacy(list, hook("PreTerminateDeleteHookSucceeded", true, hooks), now);
        }
        Some(_) => {
            conditions::set_legacy(list, hook("PreDrainDeleteHookSucceeded", false, &[]), now);
            conditions::set_legacy(list, hook("PreTerminateDeleteHookSucceeded", false, &[]), now);
        }
    }
    let order = [
        "InfrastructureReady",
        "BootstrapReady",
        "HealthCheckSucceeded",
        "OwnerRemediated",
        "PreDrainDeleteHookSucceeded",
        "PreTerminateDeleteHookSucceeded",
    ];
    if let Some(ready) = conditions::summarize_legacy(list, &order) {
        conditions::set_legacy(list, ready, now);
    }
    let failure = failure(observed);
    status.deprecated.v1beta1.failure_reason = failure.as_ref().map(|(reason, _)| reason.clone());
    status.deprecated.v1beta1.failure_message = failure.map(|(_, message)| message);
}

/// When a condition last changed its status.
fn transition(known: &[Condition], type_: &str) -> Option<Timestamp> {
    get(known, type_).map(|condition| condition.last_transition_time.0)
}

/// When a condition of the Cluster last changed its status.
fn of_cluster(observed: &Observed, type_: &str) -> Option<Timestamp> {
    transition(&observed.cluster.as_ref()?.status.as_ref()?.conditions, type_)
}

/// A wait as upstream begins to tell it, with since when.
fn waiting(on: &str, since: Option<Timestamp>, observed: &Observed) -> String {
    // A beginning that nothing tells is the Machine's own: the text must not move with the clock.
    let since = since.map(Time).or_else(|| observed.machine.metadata.creation_timestamp.clone());
    sentence(&Wait::since_transition(on, since.as_ref(), observed.now))
}

/// A wait as the beginning of a sentence.
fn sentence(wait: &Wait) -> String {
    wait.to_string().replacen('w', "W", 1)
}

/// How the Node is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NodeHealth {
    status: Status,
    reason: &'static str,
    message: String,
}

/// How long what was last known of a Node stands while its cluster does not answer. Upstream's `--remote-conditions-grace-period`.
const NODE_GRACE: SignedDuration = SignedDuration::from_mins(5);

/// When what was last known of the Node stops to stand; none while its cluster answers.
pub fn doubted_at(observed: &Observed) -> Option<Timestamp> {
    crate::workload::doubted_at(&observed.connection, observed.away_since, NODE_GRACE)
}

/// What was last known of the Node, while that stands: a cluster that is away for a moment, or not reached yet after a start, is no news.
fn last_known(observed: &Observed, known: &[Condition], type_: &str) -> Option<NodeHealth> {
    doubted_at(observed).filter(|until| observed.now < *until)?;
    let seen = get(known, type_)?;
    let reasons = ["NodeHealthy", "NodeNotHealthy", "NodeHealthUnknown", "NodeReady", "NodeNotReady", "NodeReadyUnknown"];
    let reason = reasons.into_iter().find(|reason| seen.reason == *reason)?;
    Some(NodeHealth { status: seen.status, reason, message: seen.message.clone() })
}

/// The Node's conditions that count: Ready must be True, pressure of any kind must be False.
fn node_health(observed: &Observed, plan: &Plan, known: &[Condition]) -> NodeHealth {
    let unknown = |reason, message: String| NodeHealth { status: Status::Unknown, reason, message };
    if let Some(wait) = &plan.node_wait {
        return match wait {
            NodeWait::ControlPlaneInitialized => {
                let since = of_cluster(observed, "ControlPlaneInitialized");
                unknown("InspectionFailed", waiting("Cluster control plane to be initialized", since, observed))
            }
            NodeWait::Infrastructure { kind } => {
                let since = transition(known, "InfrastructureReady");
                unknown("InspectionFailed", waiting(&format!("{kind} to be provisioned"), since, observed))
            }
            NodeWait::ProviderId { kind } => {
                let since = transition(known, "InfrastructureReady");
                unknown("InspectionFailed", waiting(&format!("{kind} to report spec.providerID"), since, observed))
            }
            NodeWait::Connection { state } => unknown("ConnectionDown", format!("Workload cluster {state}")),
            NodeWait::Node { provider_id } => {
                // The later of both: before, there was nothing to wait for.
                let since = [transition(known, "InfrastructureReady"), of_cluster(observed, "ControlPlaneInitialized")];
                let since = since.into_iter().flatten().max();
                unknown("InspectionFailed", waiting(&format!("a Node with spec.providerID {provider_id} to exist"), since, observed))
            }
            NodeWait::Lost { node } => NodeHealth {
                status: Status::False,
                reason: "NodeDeleted",
                message: format!("Node {node} has been deleted while the Machine still exists"),
            },
        };
    }
    let Some(node) = &plan.node else {
        return if plan.deletion.is_some() {
            unknown("NodeDoesNotExist", "Node does not exist".to_owned())
        } else {
            unknown("InspectionFailed", "Waiting for the Cluster to exist".to_owned())
        };
    };
    if !observed.connection.is_connected() {
        return unknown("ConnectionDown", format!("Workload cluster {}", observed.connection));
    }
    let told = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut faults = Vec::new();
    let mut worst = Status::True;
    let mut has_ready = false;
    for condition in told {
        let good = match condition.type_.as_str() {
            "Ready" => "True",
            "MemoryPressure" | "DiskPressure" | "PIDPressure" => "False",
            _ => continue,
        };
        has_ready |= condition.type_ == "Ready";
        if condition.status == good {
            continue;
        }
        let is_unknown = condition.status == "Unknown";
        worst = if is_unknown && worst != Status::False { Status::Unknown } else { Status::False };
        let text = condition.message.clone().filter(|text| !text.is_empty());
        let text = text.unwrap_or_else(|| format!("Condition is {}", condition.status));
        faults.push(format!("* Node.{}: {text}", condition.type_));
    }
    if !has_ready {
        return unknown("NodeConditionsFailed", "* Node.Ready: Condition not yet reported".to_owned());
    }
    faults.extend(held_by(observed, node, Role::Network).map(|told| format!("* Pod network: {told}")));
    match worst {
        Status::True => NodeHealth { status: Status::True, reason: "NodeHealthy", message: String::new() },
        Status::Unknown => unknown("NodeHealthUnknown", faults.join("\n")),
        Status::False => NodeHealth { status: Status::False, reason: "NodeNotHealthy", message: faults.join("\n") },
    }
}

/// What this holds the Node back for, and what is missing; none when it does not.
fn held_by(observed: &Observed, node: &Node, role: Role) -> Option<String> {
    let held = held::held(node).into_iter().find(|held| held.by == role)?;
    held::told(held, node, observed.inspection.as_ref(), observed.now)
}

/// The condition that tells of a Node that a cloud provider has to initialize first; none of one that needs none, or has it.
fn uninitialized(observed: &Observed, plan: &Plan) -> Option<New<'static>> {
    let node = plan.node.as_ref().filter(|_| plan.deletion.is_none())?;
    let told = held_by(observed, node, Role::CloudProvider)?;
    Some(conditions::new(NODE_INITIALIZED, false, "WaitingForCloudProvider", told))
}

fn node_ready(observed: &Observed, plan: &Plan, known: &[Condition]) -> NodeHealth {
    let health = node_health(observed, plan, known);
    let (true, Some(node)) = (observed.connection.is_connected(), &plan.node) else { return health };
    let ready = node.status.iter().flat_map(|status| status.conditions.iter().flatten()).find(|condition| condition.type_ == "Ready");
    let message = |text: &Option<String>| text.clone().map(|text| format!("* Node.Ready: {text}")).unwrap_or_default();
    match ready {
        None => health,
        Some(ready) if ready.status == "True" => NodeHealth { status: Status::True, reason: "NodeReady", message: String::new() },
        Some(ready) if ready.status == "False" => {
            let network = held_by(observed, node, Role::Network).map(|told| format!("\n* Pod network: {told}")).unwrap_or_default();
            let message = format!("{}{network}", message(&ready.message));
            NodeHealth { status: Status::False, reason: "NodeNotReady", message }
        }
        Some(ready) => NodeHealth { status: Status::Unknown, reason: "NodeReadyUnknown", message: message(&ready.message) },
    }
}

fn current(observed: &Observed, plan: &Plan, status: &mut MachineStatus) {
    let (generation, now) = (observed.machine.metadata.generation, observed.now);
    let bootstrap = mirror::shown(
        "BootstrapConfigReady",
        "Ready",
        "Bootstrap",
        &observed.bootstrap,
        bootstrap_holds,
        "status.initialization.dataSecretCreated is false",
    );
    let infrastructure = mirror::shown(
        "InfrastructureReady",
        "Ready",
        "Infrastructure",
        &observed.infrastructure,
        External::is_provisioned,
        "status.initialization.provisioned is false",
    );
    for condition in [bootstrap, infrastructure] {
        conditions::set(&mut status.conditions, condition, generation, now);
    }
    let known = |type_| last_known(observed, &status.conditions, type_);
    let healthy = known("NodeHealthy").unwrap_or_else(|| node_health(observed, plan, &status.conditions));
    let ready = known("NodeReady").unwrap_or_else(|| node_ready(observed, plan, &status.conditions));
    let all = [
        New { type_: "NodeHealthy", status: healthy.status, reason: healthy.reason, message: healthy.message },
        New { type_: "NodeReady", status: ready.status, reason: ready.reason, message: ready.message },
        deleting(observed, plan.deletion.as_ref(), status),
    ];
    for condition in all {
        conditions::set(&mut status.conditions, condition, generation, now);
    }
    match uninitialized(observed, plan) {
        Some(told) => drop(conditions::set(&mut status.conditions, told, generation, now)),
        // What cannot be seen is as it was.
        None if plan.node.is_some() && observed.connection.is_connected() => conditions::remove(&mut status.conditions, NODE_INITIALIZED),
        None => {}
    }
    let mut positive = vec!["BootstrapConfigReady", "InfrastructureReady", "NodeHealthy"];
    let optional = ["HealthCheckSucceeded", "OwnerRemediated"];
    positive.extend(optional.into_iter().filter(|name| get(&status.conditions, name).is_some()));
    let gates = &observed.machine.spec.readiness_gates;
    positive.extend(gates.iter().map(|gate| gate.condition_type.as_str()));
    let summary = conditions::summarize("Ready", &status.conditions, &positive, &["Deleting"], "Ready");
    conditions::set(&mut status.conditions, summary, generation, now);
    let available = available(observed, status);
    conditions::set(&mut status.conditions, available, generation, now);
    // Available and Ready come first, as upstream prints them.
    let rank = |type_: &str| match type_ {
        "Available" => 0,
        "Ready" => 1,
        _ => 2,
    };
    status.conditions.sort_by_key(|condition| rank(&condition.type_));
}

/// When a Machine that is ready becomes available; none when it is not ready, or needs no time.
pub fn available_at(machine: &Machine, status: &MachineStatus) -> Option<Timestamp> {
    let ready = get(&status.conditions, "Ready").filter(|condition| condition.status == Status::True)?;
    let seconds = machine.spec.min_ready_seconds.filter(|seconds| *seconds > 0)?;
    ready.last_transition_time.0.checked_add(SignedDuration::from_secs(i64::from(seconds))).ok()
}

fn available(observed: &Observed, status: &MachineStatus) -> New<'static> {
    if !is_true(&status.conditions, "Ready") {
        return conditions::new("Available", false, "NotReady", "");
    }
    match available_at(&observed.machine, status) {
        Some(at) if at > observed.now => {
            let message = format!(
                "waiting for {} s of being ready, until {}",
                observed.machine.spec.min_ready_seconds.unwrap_or(0),
                at.strftime("%T")
            );
            conditions::new("Available", false, "WaitingForMinReadySeconds", message)
        }
        _ => conditions::new("Available", true, "Available", ""),
    }
}

fn deleting(observed: &Observed, deletion: Option<&Deletion>, status: &MachineStatus) -> New<'static> {
    let begun = get(&status.conditions, "Deleting").filter(|condition| condition.status == Status::True);
    let begun = begun.map(|condition| condition.last_transition_time.clone());
    let times = status.deletion.clone().unwrap_or_default();
    let wait = |on: String, since: Option<Time>| Wait::since_transition(on, since.as_ref(), observed.now);
    let gone = |left: &str| wait(format!("{left} to be deleted"), begun.clone());
    let hooked = |which: &str, hooks: &[String], since: Option<Time>| {
        format!("{} (hooks: {})", sentence(&wait(format!("{which} hooks to succeed"), since)), hooks.join(","))
    };
    let (reason, message) = match deletion {
        None => return conditions::new("Deleting", false, "NotDeleting", ""),
        Some(Deletion::PreDrainHook { hooks }) => {
            ("WaitingForPreDrainHook", hooked("pre-drain", hooks, times.wait_for_pre_drain_hook_start_time))
        }
        Some(Deletion::Drain { node, progress }) => ("DrainingNode", progress.told(&format!("Node {node} to be drained"))),
        Some(Deletion::VolumeDetach { node, progress }) => {
            ("WaitingForVolumeDetach", progress.told(&format!("volumes of Node {node} to be detached")))
        }
        Some(Deletion::PreTerminateHook { hooks }) => {
            ("WaitingForPreTerminateHook", hooked("pre-terminate", hooks, times.wait_for_pre_terminate_hook_start_time))
        }
        Some(Deletion::Infrastructure { left }) => ("WaitingForInfrastructureDeletion", sentence(&gone(left))),
        Some(Deletion::Bootstrap { left }) => ("WaitingForBootstrapDeletion", sentence(&gone(left))),
        Some(Deletion::Node { left, until }) => ("DeletingNode", sentence(&Wait { until: *until, ..gone(left) })),
        Some(Deletion::Completed) => ("DeletionCompleted", "Deletion completed".to_owned()),
    };
    conditions::new("Deleting", true, reason, message)
}
