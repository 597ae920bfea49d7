//! Which Machines a MachineHealthCheck finds unhealthy, and which of them their owners are asked to replace. Pure.
//!
//! ```text
//!   verdict            HealthCheckSucceeded    asked for: OwnerRemediated
//!   healthy            True                    taken back
//!   undecided          as it was               as it was
//!   unhealthy, and     False                   False (WaitingForRemediation): from here on it is the owner's condition
//!     too many are     False                   taken back, unless the owner has begun
//! ```
//!
//! A check replaces nothing by itself. It never asks for more than its limit allows, and takes back what nobody has begun when the limit is
//! passed later. A Machine that cannot be judged (its cluster's API is away, its time has not run out, the control plane is not up yet) is
//! neither healthy nor unhealthy; for the limit it counts as not healthy, as upstream, and so does one that is being deleted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::cluster::{Cluster, Machine, MachineHealthCheck};
use api::conditions::{Status, get};
use api::names::{annotations, labels};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use crate::clone::kind_of;
use crate::contract::{External, Referenced};
use crate::controlplane::is_control_plane;
use crate::edit::{is_deleting, is_paused};
use crate::remediation::{self, HEALTHY, OWNER};
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
    /// What `remediation.templateRef` leads to.
    pub template: Template,
    /// Objects made from the template, by the name of their Machine.
    pub requests: BTreeMap<String, Arc<External>>,
    pub now: Timestamp,
}

/// The template of objects that replace Machines from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Template {
    /// None is named: the owners replace.
    #[default]
    None,
    There,
    /// Why nothing can be made from it.
    Unusable(String),
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
    /// Tell a Machine its verdict, and its owner what is asked for.
    Tell { machine: Arc<Machine>, verdict: Verdict, wish: Wish },
    /// Make the object from the template that replaces the Machine from outside.
    Request { machine: Arc<Machine> },
    /// That object is needed no longer.
    EndRequest { request: Arc<External> },
}

/// What becomes of the condition that asks a Machine's owner to replace it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    AsItIs,
    Asked,
    TakenBack,
}

/// What to do, and what was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub is_paused: bool,
    pub verdicts: Vec<(String, Verdict)>,
    /// Machines that the selector takes in and that are being deleted.
    pub going: Vec<String>,
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
        if is_paused(None, &machine.metadata) {
            continue;
        }
        if is_skipped(machine) {
            // What was asked for before somebody said otherwise.
            if remediation::is_asked_and_not_begun(machine) && !is_deleting(&machine.metadata) {
                let verdict = Verdict::Undecided { until: None };
                plan.steps.push(Step::Tell { machine: Arc::clone(machine), verdict, wish: Wish::TakenBack });
            }
            continue;
        }
        let name = machine.metadata.name.clone().unwrap_or_default();
        if is_deleting(&machine.metadata) {
            plan.going.push(name);
            continue;
        }
        let verdict = judge(observed, cluster, machine);
        match &verdict {
            Verdict::Healthy => plan.healthy += 1,
            Verdict::Unhealthy { .. } => plan.unhealthy += 1,
            Verdict::Undecided { until } => plan.again_at = [plan.again_at, *until].into_iter().flatten().min(),
        }
        plan.verdicts.push((name, verdict));
    }
    let total = plan.total();
    plan.allowed = allowed(check, total, total.saturating_sub(plan.healthy));
    ask(observed, &mut plan);
    plan
}

impl Plan {
    /// Machines that the check is about.
    pub fn total(&self) -> i32 {
        i32::try_from(self.verdicts.len().saturating_add(self.going.len())).unwrap_or(i32::MAX)
    }
}

/// Tells the verdicts, and asks for what may be done about them.
fn ask(observed: &Observed, plan: &mut Plan) {
    let mut steps = Vec::new();
    for (name, verdict) in &plan.verdicts {
        let Some(machine) = observed.machines.iter().find(|machine| machine.metadata.name.as_ref() == Some(name)) else { continue };
        let request = observed.requests.get(name).filter(|request| !request.is_deleting());
        let wish = match verdict {
            Verdict::Healthy if remediation::condition(machine, OWNER).is_some() => Wish::TakenBack,
            Verdict::Unhealthy { .. } if plan.allowed.is_none() && remediation::is_asked_and_not_begun(machine) => Wish::TakenBack,
            Verdict::Unhealthy { .. } if plan.allowed.is_some() && observed.template == Template::None => {
                // One that is under way is its owner's to complete.
                let is_open = remediation::condition(machine, OWNER).is_none_or(|asked| asked.status == Status::True);
                if is_open { Wish::Asked } else { Wish::AsItIs }
            }
            _ => Wish::AsItIs,
        };
        if wish != Wish::AsItIs || is_untold(machine, verdict) {
            steps.push(Step::Tell { machine: Arc::clone(machine), verdict: verdict.clone(), wish });
        }
        match (verdict, request) {
            (Verdict::Healthy, Some(request)) => steps.push(Step::EndRequest { request: Arc::clone(request) }),
            (Verdict::Unhealthy { .. }, None) if plan.allowed.is_some() && observed.template == Template::There => {
                steps.push(Step::Request { machine: Arc::clone(machine) });
            }
            _ => {}
        }
    }
    plan.steps.extend(steps);
}

/// What the reference to a template leads to, in words when it is unusable.
pub fn template_of(found: &Referenced) -> Template {
    match found {
        Referenced::None => Template::None,
        Referenced::Missing { kind, name } => Template::Unusable(format!("{kind} {name} does not exist")),
        Referenced::Found(object) if object.is_deleting() => {
            Template::Unusable(format!("{} {} is being deleted", object.kind, object.metadata.name.as_deref().unwrap_or_default()))
        }
        Referenced::Found(object) if kind_of(&object.kind) == object.kind => {
            Template::Unusable(format!("{} is no kind of templates: its name does not end in Template", object.kind))
        }
        Referenced::Found(_) => Template::There,
    }
}

/// Whether a check looks after a Machine.
pub fn selects(check: &MachineHealthCheck, machine: &Machine) -> bool {
    let empty = BTreeMap::new();
    let labels = machine.metadata.labels.as_ref().unwrap_or(&empty);
    check.spec.cluster_name == machine.spec.cluster_name && check.spec.selector.matches(labels)
}

/// Whether a Machine has a verdict, and is in no check's care any more. What its owner has begun is the owner's to end.
pub fn is_left_behind(machine: &Machine, checks: &[Arc<MachineHealthCheck>]) -> bool {
    let is_begun = remediation::condition(machine, OWNER).is_some() && !remediation::is_asked_and_not_begun(machine);
    let is_cared_for = checks.iter().any(|check| !is_deleting(&check.metadata) && selects(check, machine));
    remediation::condition(machine, HEALTHY).is_some() && !is_begun && !is_cared_for && !is_deleting(&machine.metadata)
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
    let told = remediation::condition(machine, HEALTHY);
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
    let legacy = machine.status.as_ref().map(|status| &status.deprecated.v1beta1);
    if let Some((reason, message)) = legacy.map(|legacy| (legacy.failure_reason.as_deref(), legacy.failure_message.as_deref()))
        && (reason.is_some() || message.is_some())
    {
        let message = [reason, message].into_iter().flatten().collect::<Vec<_>>().join(": ");
        return Verdict::Unhealthy { reason: "MachineHasFailure", message: format!("the machine has failed for good: {message}") };
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
fn allowed(check: &MachineHealthCheck, total: i32, unhealthy: i32) -> Option<i32> {
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
