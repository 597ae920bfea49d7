//! What is to be done for a MachineSet. Pure.
//!
//! The names of new Machines are stored first, so that a call whose answer was lost makes no second Machine. Then a Machine is created, with
//! the names of its bootstrap and infrastructure objects in it, and then those objects are cloned. So the Machine is their intent: whoever comes back after a loss finds Machines without objects and clones what is missing, and nothing is
//! ever left behind. (Upstream creates the objects first and has to clean up.)
//!
//! Numbers: never more Machines than wanted, those being deleted included; never fewer than wanted by our doing, but for Machines that a health
//! check asks to replace: those go first, and the next pass makes up for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::cluster::{Cluster, DeletionOrder, Machine, MachineDeployment, MachineSet};
use api::conditions::{self, Status, get};
use api::meta::TemplateMeta;
use api::names::{annotations, finalizers, labels};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use super::remediation;
use crate::contract::Referenced;
use crate::edit::{controller_reference, has_finalizer, is_deleting, is_paused};
use crate::machinedeployment::plan as deployment;
use crate::naming::PLANNED_MACHINES;
use crate::rounds::Rounds;

/// What is known when a MachineSet is planned.
#[derive(Clone, Debug)]
pub struct Observed {
    pub set: Arc<MachineSet>,
    pub cluster: Option<Arc<Cluster>>,
    /// The MachineDeployment that controls the set.
    pub deployment: Option<Arc<MachineDeployment>>,
    /// Machines that the set controls, or may adopt, by name.
    pub machines: Vec<Arc<Machine>>,
    /// Bootstrap and infrastructure object of each Machine, by its name.
    pub objects: BTreeMap<String, (Referenced, Referenced)>,
    pub bootstrap_template: Referenced,
    pub infrastructure_template: Referenced,
    /// The Cluster's control plane.
    pub control_plane: Referenced,
    pub now: Timestamp,
}

/// One outside effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Finalizer, cluster label, and the Cluster as an owner where nobody controls the set.
    Claim,
    /// Make the Cluster an owner of a template.
    OwnBootstrapTemplate,
    OwnInfrastructureTemplate,
    /// Become the controller of a Machine that matches the selector.
    Adopt(Arc<Machine>),
    /// Draw names for so many more Machines and store them.
    PlanMachines {
        count: usize,
    },
    /// Store that only these are still to be created.
    KeepPlanned(Vec<String>),
    CreateMachine {
        name: String,
    },
    CloneBootstrap(Arc<Machine>),
    CloneInfrastructure(Arc<Machine>),
    DeleteMachine(Arc<Machine>),
    /// Store how often in a row replacements did not last; none: they do.
    StoreRounds(Option<Rounds>),
    /// Tell a Machine why it is not replaced now.
    TellRemediation {
        machine: Arc<Machine>,
        reason: &'static str,
        message: String,
    },
    /// Tell a Machine that it is replaced, then delete it.
    Remediate(Arc<Machine>),
    /// Bring fields that change without replacement into a Machine.
    SyncMachine(Arc<Machine>, Value),
    /// Tell a Machine whether it has the wanted specification.
    TellUpToDate {
        machine: Arc<Machine>,
        is_up_to_date: bool,
        message: String,
    },
    RemoveFinalizer,
}

/// So many Machines are planned, and made, before the set looks again.
const MOST_PLANNED: usize = 20;

/// How long after a failed preflight check it is made again: what it looks at is another provider's, and not all of it is watched.
const HELD: Duration = Duration::from_secs(15);

/// What keeps the set from creating Machines: the reason word and the sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    pub reason: &'static str,
    pub message: String,
    /// When to look again, where no change may tell that it is over.
    pub again: Option<Duration>,
}

/// What to do, and where the set stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub is_paused: bool,
    pub blocked: Option<Blocked>,
    /// Machines that have to go before a set that is being deleted.
    pub deletion_left: Option<usize>,
    /// Look again at this time at the latest.
    pub again_at: Option<Timestamp>,
    /// Look again so much later, where no change may tell that it is time.
    pub again_after: Option<Duration>,
}

/// Decides for one MachineSet.
pub fn plan(observed: &Observed) -> Plan {
    let meta = &observed.set.metadata;
    if is_paused(observed.cluster.as_deref(), meta) {
        return Plan { is_paused: true, ..Plan::default() };
    }
    if is_deleting(meta) {
        return deletion(observed);
    }
    let mut plan = Plan::default();
    let Some(cluster) = &observed.cluster else { return plan };
    if is_unclaimed(&observed.set) {
        plan.steps.push(Step::Claim);
    }
    if is_without_owner(&observed.bootstrap_template, cluster) {
        plan.steps.push(Step::OwnBootstrapTemplate);
    }
    if is_without_owner(&observed.infrastructure_template, cluster) {
        plan.steps.push(Step::OwnInfrastructureTemplate);
    }
    let uid = meta.uid.as_deref();
    for machine in &observed.machines {
        let is_ours = controller_reference(&machine.metadata).is_some_and(|owner| Some(owner.uid.as_str()) == uid);
        if !is_ours {
            plan.steps.push(Step::Adopt(Arc::clone(machine)));
        }
    }
    members(observed, &mut plan);
    if is_deleting(&cluster.metadata) {
        // Its Machines go soon; none is made or taken any more.
        return plan;
    }
    scale(observed, &mut plan);
    remediation::plan(observed, &mut plan);
    plan
}

fn is_unclaimed(set: &MachineSet) -> bool {
    let meta = &set.metadata;
    let is_labelled = meta.labels.as_ref().and_then(|known| known.get(labels::CLUSTER_NAME)) == Some(&set.spec.cluster_name);
    let has_owner = meta.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
    !has_finalizer(meta, finalizers::MACHINE_SET) || !is_labelled || !has_owner
}

fn is_without_owner(template: &Referenced, cluster: &Cluster) -> bool {
    let Some(object) = template.found().filter(|object| !object.is_deleting()) else { return false };
    !object.metadata.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == cluster.metadata.uid.as_ref())
}

/// What is missing around the Machines that are there.
fn members(observed: &Observed, plan: &mut Plan) {
    let verdict = verdict(observed);
    for machine in &observed.machines {
        if is_deleting(&machine.metadata) {
            // How long its deletion may take is still the user's to change.
            if let Some(patch) = sync_limits(&observed.set, machine) {
                plan.steps.push(Step::SyncMachine(Arc::clone(machine), patch));
            }
            continue;
        }
        let name = machine.metadata.name.clone().unwrap_or_default();
        let (bootstrap, infrastructure) = observed.objects.get(&name).unwrap_or(&(Referenced::None, Referenced::None));
        let begun = machine.status.as_ref().map(|status| &status.initialization);
        let had_data = begun.is_some_and(|begun| begun.bootstrap_data_secret_created == Some(true));
        let had_infrastructure = begun.is_some_and(|begun| begun.infrastructure_provisioned == Some(true));
        // What was there and is gone is not made again: the Machine has failed and is to be replaced.
        if matches!(bootstrap, Referenced::Missing { .. }) && !had_data {
            match blocked(&observed.bootstrap_template, "BootstrapTemplateCloningFailed") {
                None => plan.steps.push(Step::CloneBootstrap(Arc::clone(machine))),
                Some(blocked) => plan.blocked = Some(blocked),
            }
        }
        if matches!(infrastructure, Referenced::Missing { .. }) && !had_infrastructure {
            match blocked(&observed.infrastructure_template, "InfrastructureTemplateCloningFailed") {
                None => plan.steps.push(Step::CloneInfrastructure(Arc::clone(machine))),
                Some(blocked) => plan.blocked = Some(blocked),
            }
        }
        if let Some(patch) = sync(&observed.set, machine) {
            plan.steps.push(Step::SyncMachine(Arc::clone(machine), patch));
        }
        let told = machine.status.as_ref().and_then(|status| get(&status.conditions, "UpToDate"));
        let (is_up_to_date, message) = &verdict;
        if told.is_none_or(|told| told.status != Status::from(*is_up_to_date) || told.message != *message) {
            plan.steps.push(Step::TellUpToDate { machine: Arc::clone(machine), is_up_to_date: *is_up_to_date, message: message.clone() });
        }
    }
}

/// Whether the set's Machines have the wanted specification, and what differs.
fn verdict(observed: &Observed) -> (bool, String) {
    let Some(deployment) = &observed.deployment else { return (true, String::new()) };
    let differences = deployment::shortcomings(deployment, &observed.set, observed.now);
    let message = differences.iter().map(|difference| format!("* {difference}")).collect::<Vec<_>>().join("\n");
    (differences.is_empty(), message)
}

fn blocked(template: &Referenced, reason: &'static str) -> Option<Blocked> {
    match template {
        Referenced::Missing { kind, name } => Some(Blocked { reason, message: format!("{kind} {name} does not exist"), again: None }),
        Referenced::Found(object) if object.is_deleting() => {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            Some(Blocked { reason, message: format!("{} {name} is being deleted", object.kind), again: None })
        }
        _ => None,
    }
}

/// The names of Machines that are to be created, as the set's annotation has them.
pub fn planned(set: &MachineSet) -> Vec<String> {
    let text = set.metadata.annotations.as_ref().and_then(|known| known.get(PLANNED_MACHINES)).map_or("", String::as_str);
    text.split(';').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn scale(observed: &Observed, plan: &mut Plan) {
    let wanted = usize::try_from(observed.set.spec.replicas.unwrap_or(0)).unwrap_or(0);
    let present = observed.machines.len();
    let room = wanted.saturating_sub(present);
    let stored = planned(&observed.set);
    let is_made = |name: &String| observed.machines.iter().any(|machine| machine.metadata.name.as_ref() == Some(name));
    let planned: Vec<String> = stored.iter().filter(|name| !is_made(name)).take(room).cloned().collect();
    // What is done is forgotten before its Machine can go: a name is never used twice.
    let is_done = planned.is_empty() && !stored.is_empty();
    if (is_done && room == 0) || stored.iter().filter(|name| !is_made(name)).count() > room {
        plan.steps.push(Step::KeepPlanned(planned.clone()));
    }
    if present < wanted {
        if is_left_to_the_next(observed) {
            return;
        }
        match barrier(observed) {
            Some(blocked) => plan.blocked = Some(blocked),
            // Few at a time: what is wanted may change while they are made.
            None if planned.is_empty() => plan.steps.push(Step::PlanMachines { count: room.min(MOST_PLANNED) }),
            None => plan.steps.extend(planned.into_iter().map(|name| Step::CreateMachine { name })),
        }
        return;
    }
    let going = observed.machines.iter().filter(|machine| is_deleting(&machine.metadata)).count();
    let surplus = present.saturating_sub(wanted).saturating_sub(going);
    for machine in order_of_going(&observed.set, &observed.machines).into_iter().take(surplus) {
        plan.steps.push(Step::DeleteMachine(machine));
    }
}

/// What keeps the set from making any Machine now.
pub fn barrier(observed: &Observed) -> Option<Blocked> {
    let is_off = observed.set.metadata.annotations.as_ref().is_some_and(|known| known.contains_key(annotations::DISABLE_MACHINE_CREATE));
    let message = format!("annotation {} keeps Machines from being created", annotations::DISABLE_MACHINE_CREATE);
    let off = is_off.then_some(Blocked { reason: "PreflightCheckFailed", message, again: None });
    off.or_else(|| preflight(observed))
        .or_else(|| blocked(&observed.bootstrap_template, "BootstrapTemplateCloningFailed"))
        .or_else(|| blocked(&observed.infrastructure_template, "InfrastructureTemplateCloningFailed"))
}

/// Whether what is missing is made by the deployment's current set instead: Machines that somebody deletes are replaced by new ones.
fn is_left_to_the_next(observed: &Observed) -> bool {
    observed.deployment.as_ref().is_some_and(|deployment| {
        deployment::is_on_delete(deployment) && !deployment::is_rollout_paused(deployment) && !verdict(observed).0
    })
}

/// What keeps the control plane from taking new workers in, in upstream's words. Checks can be skipped by name, with upstream's annotation.
/// One that has never run holds nothing here: the Machines are made, and their VMs wait for it.
fn preflight(observed: &Observed) -> Option<Blocked> {
    let plane = observed.control_plane.found()?;
    let name = plane.metadata.name.as_deref().unwrap_or_default();
    let skipped = observed.set.metadata.annotations.as_ref().and_then(|known| known.get(annotations::SKIP_PREFLIGHT_CHECKS));
    let skipped: Vec<&str> = skipped.map_or("", String::as_str).split(',').map(str::trim).collect();
    let failed = |check: &str, what: String| {
        let is_on = !skipped.contains(&"All") && !skipped.contains(&check);
        let message = || format!("{what} ({check:?} preflight check failed)");
        is_on.then(|| Blocked { reason: "PreflightCheckFailed", message: message(), again: Some(HELD) })
    };
    let stable = || {
        let (wanted, running) = plane.spec.version.as_deref().zip(plane.status.version.as_deref())?;
        let is_upgrading = wanted.trim_start_matches('v') != running.trim_start_matches('v');
        is_upgrading.then(|| failed("ControlPlaneIsStable", format!("{} {name} is upgrading from {running} to {wanted}", plane.kind)))?
    };
    let skew = || {
        let worker = observed.set.spec.template.spec.version.as_deref()?;
        let running = plane.status.version.as_deref().or(plane.spec.version.as_deref())?;
        let ((major, minor), (plane_major, plane_minor)) = minor_of(worker).zip(minor_of(running))?;
        let why = if (major, minor) > (plane_major, plane_minor) {
            "higher than ControlPlane version"
        } else if major == plane_major && minor + OLDEST_MINOR < plane_minor {
            "more than 3 minor versions older than the ControlPlane version"
        } else {
            return None;
        };
        let policy = "do not conform to the kubernetes version skew policy as MachineSet version is";
        failed("KubernetesVersionSkew", format!("MachineSet version ({worker}) and ControlPlane version ({running}) {policy} {why}"))
    };
    stable().or_else(skew)
}

/// A kubelet may be so many minors older than the API server.
const OLDEST_MINOR: u64 = 3;

/// Major and minor of a version.
fn minor_of(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The Machines in the order in which they go: marked ones, then those that never had a Node, then unhealthy ones, then those that are not
/// available (yet), then as the set's deletion order says. What never ran goes before what does not run well now: it may be well again.
pub fn order_of_going(set: &MachineSet, machines: &[Arc<Machine>]) -> Vec<Arc<Machine>> {
    let order = set.spec.deletion.order.unwrap_or_default();
    let mut staying: Vec<Arc<Machine>> = machines.iter().filter(|machine| !is_deleting(&machine.metadata)).cloned().collect();
    let rank = |machine: &Machine| -> u8 {
        let is_marked = machine.metadata.annotations.as_ref().is_some_and(|known| known.contains_key(annotations::DELETE_MACHINE));
        if is_marked {
            0
        } else if machine.status.as_ref().is_none_or(|status| status.node_ref.is_none()) {
            1
        } else if is_unhealthy(machine) {
            2
        } else if machine.status.as_ref().is_none_or(|status| !conditions::is_true(&status.conditions, "Available")) {
            3
        } else {
            4
        }
    };
    let created = |machine: &Machine| machine.metadata.creation_timestamp.as_ref().map(|time| time.0);
    staying.sort_by(|a, b| {
        let by_age = match order {
            // Any will do; the name, which ends in random characters, decides.
            DeletionOrder::Random => std::cmp::Ordering::Equal,
            DeletionOrder::Newest => created(b).cmp(&created(a)),
            DeletionOrder::Oldest => created(a).cmp(&created(b)),
        };
        rank(a).cmp(&rank(b)).then(by_age).then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
    staying
}

/// Failed, or found unhealthy.
fn is_unhealthy(machine: &Machine) -> bool {
    let Some(status) = &machine.status else { return true };
    let legacy = &status.deprecated.v1beta1;
    let is_bad = |type_: &str| get(&status.conditions, type_).is_some_and(|condition| condition.status != Status::True);
    legacy.failure_reason.is_some()
        || legacy.failure_message.is_some()
        || is_bad("NodeReady")
        || is_bad("HealthCheckSucceeded")
        || conditions::is_true(&status.conditions, "Deleting")
}

fn deletion(observed: &Observed) -> Plan {
    let mut plan = Plan { deletion_left: Some(observed.machines.len()), ..Plan::default() };
    for machine in observed.machines.iter().filter(|machine| !is_deleting(&machine.metadata)) {
        plan.steps.push(Step::DeleteMachine(Arc::clone(machine)));
    }
    if observed.machines.is_empty() && has_finalizer(&observed.set.metadata, finalizers::MACHINE_SET) {
        plan.steps.push(Step::RemoveFinalizer);
    }
    plan
}

/// Labels that a set's Machines carry: the template's, and who they belong to.
pub fn machine_labels(set: &MachineSet) -> BTreeMap<String, String> {
    let mut wanted = set.spec.template.metadata.labels.clone();
    wanted.insert(labels::CLUSTER_NAME.to_owned(), set.spec.cluster_name.clone());
    wanted.insert(labels::SET_NAME.to_owned(), set.metadata.name.clone().unwrap_or_default());
    if let Some(deployment) = set.metadata.labels.as_ref().and_then(|known| known.get(labels::DEPLOYMENT_NAME)) {
        wanted.insert(labels::DEPLOYMENT_NAME.to_owned(), deployment.clone());
    }
    wanted
}

/// The merge patch that brings a Machine's changeable fields to its set's template; none when they are there.
fn sync(set: &MachineSet, machine: &Machine) -> Option<Value> {
    let template = &set.spec.template.spec;
    let mut spec = Map::new();
    let pairs = [
        ("deletion", as_json(&template.deletion), as_json(&machine.spec.deletion)),
        ("minReadySeconds", as_json(&template.min_ready_seconds), as_json(&machine.spec.min_ready_seconds)),
        ("readinessGates", as_json(&template.readiness_gates), as_json(&machine.spec.readiness_gates)),
        ("taints", as_json(&template.taints), as_json(&machine.spec.taints)),
    ];
    for (field, wanted, present) in pairs {
        if field == "deletion" {
            if let Some(change) = limits_change(&wanted, &present) {
                spec.insert(field.to_owned(), change);
            }
        } else if wanted != present {
            let is_empty = wanted.is_null() || wanted.as_array().is_some_and(Vec::is_empty);
            spec.insert(field.to_owned(), if is_empty { Value::Null } else { wanted });
        }
    }
    let wanted = TemplateMeta { labels: machine_labels(set), annotations: set.spec.template.metadata.annotations.clone() };
    let mut metadata = Map::new();
    for (part, wanted, present) in [
        ("labels", &wanted.labels, machine.metadata.labels.as_ref()),
        ("annotations", &wanted.annotations, machine.metadata.annotations.as_ref()),
    ] {
        let lacking = wanted.iter().filter(|(key, value)| present.and_then(|present| present.get(*key)) != Some(*value));
        let change: Map<String, Value> = lacking.map(|(key, value)| (key.clone(), json!(value))).collect();
        if !change.is_empty() {
            metadata.insert(part.to_owned(), Value::Object(change));
        }
    }
    if spec.is_empty() && metadata.is_empty() {
        return None;
    }
    metadata.insert("uid".to_owned(), json!(machine.metadata.uid));
    let mut patch = Map::new();
    patch.insert("metadata".to_owned(), Value::Object(metadata));
    if !spec.is_empty() {
        patch.insert("spec".to_owned(), Value::Object(spec));
    }
    Some(Value::Object(patch))
}

/// Each limit on its own: the one that the API defaults on Machines is not taken away.
fn limits_change(wanted: &Value, present: &Value) -> Option<Value> {
    let limits = wanted.as_object().into_iter().flatten().filter(|(limit, seconds)| present.get(*limit) != Some(*seconds));
    let change: Map<String, Value> = limits.map(|(limit, seconds)| (limit.clone(), seconds.clone())).collect();
    (!change.is_empty()).then_some(Value::Object(change))
}

/// The merge patch that brings the limits of a Machine's deletion to its set's template.
fn sync_limits(set: &MachineSet, machine: &Machine) -> Option<Value> {
    let change = limits_change(&as_json(&set.spec.template.spec.deletion), &as_json(&machine.spec.deletion))?;
    Some(json!({"metadata": {"uid": machine.metadata.uid}, "spec": {"deletion": change}}))
}

fn as_json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// The name of the object's owner of this kind, for keys.
pub fn owner_name<'a>(meta: &'a ObjectMeta, kind: &str) -> Option<&'a str> {
    controller_reference(meta).filter(|owner| owner.kind == kind).map(|owner| owner.name.as_str())
}
