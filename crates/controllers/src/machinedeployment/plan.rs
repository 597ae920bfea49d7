//! What is to be done for a MachineDeployment. Pure.
//!
//! There is one current MachineSet: the one whose template asks for the wanted machine, and that is young enough for `rollout.after`. None
//! there: one is made, under the next revision. The others give their Machines up to it, step by step ([`rollout`]); sets that have given
//! everything up stay as the history, as many as upstream keeps. What changes without replacing Machines is brought into the current set, the
//! time limits into the others too, for the Machines that they are giving up.

use std::sync::Arc;

use api::cluster::{Cluster, DeletionOrder, Machine, MachineDeployment, MachineSet, RolloutStrategyType, SetDeletion};
use api::names::{annotations, finalizers, labels};
use jiff::Timestamp;
use runtime::defects::{Defect, Defects};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::rollout::{self, Decision, Limits, SetState};
use super::template;
use crate::edit::{controller_reference, has_finalizer, is_deleting, is_paused};
use crate::machineset::plan::order_of_going;
use crate::machineset::status::has;

/// What is known when a MachineDeployment is planned.
#[derive(Clone, Debug)]
pub struct Observed {
    pub deployment: Arc<MachineDeployment>,
    pub cluster: Option<Arc<Cluster>>,
    /// The sets that the deployment controls, by name.
    pub sets: Vec<Arc<MachineSet>>,
    /// The Machines of these sets.
    pub machines: Vec<Arc<Machine>>,
    pub now: Timestamp,
    pub defects: Defects,
}

/// One outside effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Finalizer, cluster label, the Cluster as an owner.
    Claim,
    /// Make the set of the wanted template. Its name follows from the deployment and the sets that are there.
    CreateSet {
        replicas: i32,
        revision: i64,
    },
    /// Change exactly these fields of a set.
    PatchSet {
        name: String,
        patch: Value,
    },
    /// Tell the revision on the deployment.
    TellRevision(String),
    DeleteSet(Arc<MachineSet>),
    RemoveFinalizer,
}

/// What to do, and where the deployment stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub is_paused: bool,
    /// The set that replicas are brought to; while there is none of the wanted template, the newest.
    pub current: Option<Arc<MachineSet>>,
    /// Why the current set is not one of the wanted template. Empty when it is.
    pub outdated: Vec<String>,
    /// Whether a set gives a Machine up outside the limits, because nothing could move within them.
    pub is_breaking_deadlock: bool,
    /// When `rollout.after` comes, where that is still to be.
    pub look_again: Option<Timestamp>,
    /// Sets that have to go before a deployment that is being deleted.
    pub deletion_left: Option<usize>,
}

/// So many sets that have given everything up are kept where nobody says how many: upstream's default of `revisionHistoryLimit`.
pub const HISTORY: usize = 1;

/// How many sets that have given everything up are kept. The field exists in v1beta1 only; what it said is kept with what the stored version
/// cannot express.
pub fn history_limit(deployment: &MachineDeployment) -> usize {
    let kept = deployment.metadata.annotations.as_ref().and_then(|known| known.get(annotations::CONVERSION_DATA));
    let kept: Option<Value> = kept.and_then(|text| serde_json::from_str(text).ok());
    let entries = kept.as_ref().and_then(|kept| kept.get("v1beta1")?.as_array()).into_iter().flatten();
    let limit = entries
        .filter(|entry| entry.get("p").is_some_and(|path| path == "/spec/revisionHistoryLimit"))
        .find_map(|entry| entry.get("v")?.as_u64());
    limit.map_or(HISTORY, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// How many Machines there may be during a rollout.
pub fn most_replicas(deployment: &MachineDeployment) -> i32 {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let surge = deployment.spec.rollout.strategy.rolling_update.max_surge.as_ref().and_then(|surge| surge.of(wanted, true));
    wanted.saturating_add(surge.unwrap_or(1).max(0))
}

/// How many Machines may be missing. Where neither more nor fewer were allowed, nothing could ever be replaced: then one.
pub fn most_unavailable(deployment: &MachineDeployment) -> i32 {
    let wanted = deployment.spec.replicas.unwrap_or(1).max(0);
    let limit = deployment.spec.rollout.strategy.rolling_update.max_unavailable.as_ref().and_then(|limit| limit.of(wanted, false));
    let least = i32::from(most_replicas(deployment) <= wanted);
    limit.unwrap_or(0).max(least).clamp(0, wanted)
}

/// The revision of a set.
pub fn revision(set: &MachineSet) -> i64 {
    let told = set.metadata.annotations.as_ref().and_then(|known| known.get(annotations::REVISION));
    told.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// When Machines that are older are replaced: `rollout.after`, once it has come.
pub fn replaced_before(deployment: &MachineDeployment, now: Timestamp) -> Option<Timestamp> {
    deployment.spec.rollout.after.as_ref().map(|after| after.0).filter(|after| *after <= now)
}

/// Why a set's Machines are not what the deployment wants, in upstream's words; empty when they are.
pub fn shortcomings(deployment: &MachineDeployment, set: &MachineSet, now: Timestamp) -> Vec<String> {
    let mut found = template::differences(&set.spec.template, &deployment.spec.template);
    let made = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    if replaced_before(deployment, now).zip(made).is_some_and(|(after, made)| made < after) {
        found.push("MachineDeployment spec.rollout.after expired".to_owned());
    }
    found
}

fn age(set: &Arc<MachineSet>) -> (Option<Timestamp>, Option<String>) {
    (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.clone())
}

/// The set that has the wanted template (the oldest of several), else the newest.
pub fn current_set(deployment: &MachineDeployment, sets: &[Arc<MachineSet>], now: Timestamp) -> Option<Arc<MachineSet>> {
    let staying = || sets.iter().filter(|set| !is_deleting(&set.metadata));
    let matching = staying().filter(|set| shortcomings(deployment, set, now).is_empty()).min_by_key(|set| age(set));
    matching.or_else(|| staying().max_by_key(|set| (revision(set), age(set)))).cloned()
}

/// Whether the user has stopped the rollout. Scaling goes on.
pub fn is_rollout_paused(deployment: &MachineDeployment) -> bool {
    deployment.spec.paused == Some(true)
}

/// Whether Machines are replaced only when somebody deletes them.
pub fn is_on_delete(deployment: &MachineDeployment) -> bool {
    deployment.spec.rollout.strategy.type_ == Some(RolloutStrategyType::OnDelete)
}

/// Decides for one MachineDeployment.
pub fn plan(observed: &Observed) -> Plan {
    let deployment = &observed.deployment;
    let meta = &deployment.metadata;
    if is_paused(observed.cluster.as_deref(), meta) {
        return Plan { is_paused: true, ..Plan::default() };
    }
    if is_deleting(meta) {
        return deletion(observed);
    }
    let mut plan = Plan::default();
    let Some(cluster) = &observed.cluster else { return plan };
    if is_unclaimed(deployment, cluster) {
        plan.steps.push(Step::Claim);
    }
    plan.look_again = deployment.spec.rollout.after.as_ref().map(|after| after.0).filter(|after| *after > observed.now);
    plan.current = current_set(deployment, &observed.sets, observed.now);
    plan.outdated = plan.current.as_ref().map(|set| shortcomings(deployment, set, observed.now)).unwrap_or_default();
    let is_there = plan.current.is_some() && plan.outdated.is_empty();
    let is_making = !is_there && !is_rollout_paused(deployment) && !is_deleting(&cluster.metadata);
    if is_making {
        let decision = decide(observed, None, &others(observed, None));
        plan.steps.push(Step::CreateSet { replicas: decision.current, revision: last_revision(observed, None) + 1 });
        return plan;
    }
    let Some(current) = plan.current.clone() else { return plan };
    scale(observed, &current, is_there, &mut plan);
    let told = meta.annotations.as_ref().and_then(|known| known.get(annotations::REVISION));
    let revision = if is_there { current_revision(observed, &current) } else { revision(&current) };
    if revision > 0 && told != Some(&revision.to_string()) {
        plan.steps.push(Step::TellRevision(revision.to_string()));
    }
    if is_there {
        forget(observed, &current, &mut plan);
    }
    plan
}

/// The sets that give way, the oldest first.
fn others(observed: &Observed, current: Option<&MachineSet>) -> Vec<Arc<MachineSet>> {
    let is_other = |set: &&Arc<MachineSet>| current.is_none_or(|current| set.metadata.uid != current.metadata.uid);
    let mut others: Vec<Arc<MachineSet>> = observed.sets.iter().filter(is_other).cloned().collect();
    others.sort_by_key(age);
    others
}

/// The highest revision that is known, but for one set's.
fn last_revision(observed: &Observed, but: Option<&MachineSet>) -> i64 {
    let known = others(observed, but).iter().map(|set| revision(set)).max().unwrap_or(0);
    let told = observed.deployment.metadata.annotations.as_ref().and_then(|known| known.get(annotations::REVISION));
    let told = told.filter(|_| but.is_none()).and_then(|text| text.parse().ok()).unwrap_or(0);
    known.max(told)
}

/// The current set's revision: the highest. One that is taken up again moves on.
fn current_revision(observed: &Observed, current: &MachineSet) -> i64 {
    revision(current).max(last_revision(observed, Some(current)) + 1)
}

/// A set as the planner of the rollout sees it. One that is being deleted has no replicas, and its Machines go.
fn state(observed: &Observed, set: &MachineSet) -> SetState {
    let of_set = |machine: &&Arc<Machine>| controller_reference(&machine.metadata).map(|owner| &owner.uid) == set.metadata.uid.as_ref();
    let machines: Vec<Arc<Machine>> = observed.machines.iter().filter(of_set).cloned().collect();
    let count = i32::try_from(machines.len()).unwrap_or(i32::MAX);
    if is_deleting(&set.metadata) {
        return SetState { going: count, ..SetState::default() };
    }
    let staying: Vec<bool> = order_of_going(set, &machines).iter().map(|machine| has(machine, "Available")).collect();
    let going = count.saturating_sub(i32::try_from(staying.len()).unwrap_or(i32::MAX));
    let known = set.metadata.annotations.as_ref().and_then(|known| known.get(annotations::DESIRED_REPLICAS));
    SetState { replicas: set.spec.replicas.unwrap_or(0), going, staying, known_wanted: known.and_then(|text| text.parse().ok()) }
}

fn limits(observed: &Observed) -> Limits {
    let deployment = &observed.deployment;
    let beyond = |defect| i32::from(observed.defects.has(defect));
    let wanted = deployment.spec.replicas.unwrap_or(1).max(0);
    Limits {
        wanted,
        surge: most_replicas(deployment).saturating_sub(wanted).saturating_add(beyond(Defect::SurgeBeyond)),
        unavailable: most_unavailable(deployment).saturating_add(beyond(Defect::UnavailableBeyond)),
    }
}

fn decide(observed: &Observed, current: Option<&MachineSet>, others: &[Arc<MachineSet>]) -> Decision {
    let deployment = &observed.deployment;
    let current = current.map(|set| state(observed, set)).unwrap_or_default();
    let others: Vec<SetState> = others.iter().map(|set| state(observed, set)).collect();
    if is_on_delete(deployment) {
        rollout::on_delete(deployment.spec.replicas.unwrap_or(1), &current, &others)
    } else {
        rollout::rolling(limits(observed), &current, &others)
    }
}

/// Brings every set to its replicas and its changeable fields.
fn scale(observed: &Observed, current: &Arc<MachineSet>, is_there: bool, plan: &mut Plan) {
    let deployment = &observed.deployment;
    let others = others(observed, Some(current));
    let staying: Vec<Arc<MachineSet>> = others.iter().filter(|set| !is_deleting(&set.metadata)).cloned().collect();
    let mut targets: Vec<(Arc<MachineSet>, i32)> = Vec::new();
    if is_rollout_paused(deployment) || !is_there {
        let sets: Vec<Arc<MachineSet>> = std::iter::once(current).chain(staying.iter().rev()).cloned().collect();
        let states: Vec<SetState> = sets.iter().map(|set| state(observed, set)).collect();
        targets.extend(sets.into_iter().zip(rollout::shares(limits(observed), &states)));
        targets.reverse();
    } else {
        let decision = decide(observed, Some(current), &others);
        plan.is_breaking_deadlock = decision.is_breaking_deadlock;
        targets.extend(others.iter().cloned().zip(decision.others));
        targets.retain(|(set, _)| !is_deleting(&set.metadata));
        targets.push((Arc::clone(current), decision.current));
    }
    for (set, replicas) in targets {
        let is_current = set.metadata.uid == current.metadata.uid;
        let revision = (is_current && is_there).then(|| current_revision(observed, current));
        if let Some(patch) = set_patch(deployment, &set, replicas, is_current, revision) {
            plan.steps.push(Step::PatchSet { name: set.metadata.name.clone().unwrap_or_default(), patch });
        }
    }
}

/// When everything is as wanted, the oldest of the empty sets go, but for the history.
fn forget(observed: &Observed, current: &MachineSet, plan: &mut Plan) {
    let others = others(observed, Some(current));
    let mut empty: Vec<&Arc<MachineSet>> = others.iter().filter(|set| !is_deleting(&set.metadata)).collect();
    let is_empty = |set: &Arc<MachineSet>| {
        let state = state(observed, set);
        (state.replicas, state.going, state.staying.len()) == (0, 0, 0)
    };
    let new = state(observed, current);
    let has_all = new.replicas == observed.deployment.spec.replicas.unwrap_or(1) && new.is_at_rest() && !new.has_unavailable();
    if !has_all || !empty.iter().all(|set| is_empty(set)) {
        return;
    }
    empty.sort_by_key(|set| (revision(set), age(set)));
    let surplus = empty.len().saturating_sub(history_limit(&observed.deployment));
    plan.steps.extend(empty.into_iter().take(surplus).map(|set| Step::DeleteSet(Arc::clone(set))));
}

fn is_unclaimed(deployment: &MachineDeployment, cluster: &Cluster) -> bool {
    let meta = &deployment.metadata;
    let is_labelled = meta.labels.as_ref().and_then(|known| known.get(labels::CLUSTER_NAME)) == Some(&deployment.spec.cluster_name);
    let is_owned = meta.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == cluster.metadata.uid.as_ref());
    !has_finalizer(meta, finalizers::MACHINE_DEPLOYMENT) || !is_labelled || !is_owned
}

/// The merge patch that brings a set's replicas, told numbers and (for the current one) changeable fields to what they should be.
fn set_patch(deployment: &MachineDeployment, set: &MachineSet, replicas: i32, is_current: bool, revision: Option<i64>) -> Option<Value> {
    let mut spec = Map::new();
    if set.spec.replicas != Some(replicas) {
        spec.insert("replicas".to_owned(), json!(replicas));
    }
    let mut new_annotations = Map::new();
    let numbers = [
        (annotations::DESIRED_REPLICAS, deployment.spec.replicas.unwrap_or(1).to_string()),
        (annotations::MAX_REPLICAS, most_replicas(deployment).to_string()),
    ];
    for (key, value) in numbers {
        if set.metadata.annotations.as_ref().and_then(|known| known.get(key)) != Some(&value) {
            new_annotations.insert(key.to_owned(), json!(value));
        }
    }
    if let Some(revision) = revision.filter(|revision| *revision != self::revision(set)) {
        new_annotations.insert(annotations::REVISION.to_owned(), json!(revision.to_string()));
        // A set that is taken up again remembers what it was.
        let was = set.metadata.annotations.as_ref().and_then(|known| known.get(annotations::REVISION));
        let history = set.metadata.annotations.as_ref().and_then(|known| known.get(annotations::REVISION_HISTORY));
        if let Some(was) = was {
            let history = history.map_or_else(|| was.clone(), |history| format!("{history},{was}"));
            new_annotations.insert(annotations::REVISION_HISTORY.to_owned(), json!(history));
        }
    }
    if let Some(change) = template_change(deployment, set, is_current) {
        spec.insert("template".to_owned(), change);
    }
    if is_current {
        // Absent is Random, which the API writes into sets.
        let order = |deletion: &SetDeletion| deletion.order.unwrap_or(DeletionOrder::Random);
        if order(&set.spec.deletion) != order(&deployment.spec.deletion) {
            spec.insert("deletion".to_owned(), json!({"order": order(&deployment.spec.deletion)}));
        }
    }
    if spec.is_empty() && new_annotations.is_empty() {
        return None;
    }
    let mut metadata = Map::new();
    metadata.insert("uid".to_owned(), json!(set.metadata.uid));
    if spec.contains_key("replicas") {
        metadata.insert("resourceVersion".to_owned(), json!(set.metadata.resource_version));
    }
    if !new_annotations.is_empty() {
        metadata.insert("annotations".to_owned(), Value::Object(new_annotations));
    }
    let mut patch = Map::new();
    patch.insert("metadata".to_owned(), Value::Object(metadata));
    if !spec.is_empty() {
        patch.insert("spec".to_owned(), Value::Object(spec));
    }
    Some(Value::Object(patch))
}

/// What changes in a set's template without replacing Machines. A set that gives way keeps what tells it from others.
fn template_change(deployment: &MachineDeployment, set: &MachineSet, is_current: bool) -> Option<Value> {
    let mut wanted = set.spec.template.clone();
    let from = &deployment.spec.template;
    wanted.spec.deletion = from.spec.deletion.clone();
    wanted.spec.min_ready_seconds = from.spec.min_ready_seconds;
    wanted.spec.readiness_gates.clone_from(&from.spec.readiness_gates);
    if !is_current {
        return crate::status::difference(&json!(&set.spec.template), &json!(&wanted));
    }
    wanted.spec.taints.clone_from(&from.spec.taints);
    wanted.metadata.annotations.clone_from(&from.metadata.annotations);
    let hash = set.spec.template.metadata.labels.get(labels::MACHINE_TEMPLATE_HASH).cloned();
    wanted.metadata.labels.clone_from(&from.metadata.labels);
    if let Some(hash) = hash {
        wanted.metadata.labels.insert(labels::MACHINE_TEMPLATE_HASH.to_owned(), hash);
    }
    wanted.metadata.labels.insert(labels::CLUSTER_NAME.to_owned(), deployment.spec.cluster_name.clone());
    crate::status::difference(&json!(&set.spec.template), &json!(&wanted))
}

fn deletion(observed: &Observed) -> Plan {
    let mut plan = Plan { deletion_left: Some(observed.sets.len()), ..Plan::default() };
    plan.current = current_set(&observed.deployment, &observed.sets, observed.now);
    for set in observed.sets.iter().filter(|set| !is_deleting(&set.metadata)) {
        plan.steps.push(Step::DeleteSet(Arc::clone(set)));
    }
    if observed.sets.is_empty() && has_finalizer(&observed.deployment.metadata, finalizers::MACHINE_DEPLOYMENT) {
        plan.steps.push(Step::RemoveFinalizer);
    }
    plan
}

/// The number that a set's hash label begins with: follows from the machine that is asked for.
pub fn template_hash(deployment: &MachineDeployment) -> u32 {
    let mut asked = deployment.spec.template.spec.clone();
    asked.deletion = Default::default();
    asked.min_ready_seconds = None;
    asked.readiness_gates.clear();
    asked.taints.clear();
    let digest = Sha256::digest(serde_json::to_vec(&asked).unwrap_or_default());
    digest.iter().take(4).fold(0, |hash, byte| hash << 8 | u32::from(*byte))
}
