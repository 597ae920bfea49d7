//! What is to be done for a MachineDeployment. Pure.
//!
//! There is one current MachineSet: the one whose template asks for the wanted machine, else the newest. Replicas are brought to it. A new
//! template is **not** rolled out by this version: Machines of an older specification stay, and the conditions say which and why.
//!
//! Numbers: the sets' replicas together are the deployment's; when other sets have some, they count.

use std::sync::Arc;

use api::cluster::{Cluster, DeletionOrder, Machine, MachineDeployment, MachineSet, SetDeletion};
use api::names::{annotations, finalizers, labels};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::template;
use crate::edit::{has_finalizer, is_deleting, is_paused};

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
}

/// One outside effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Finalizer, cluster label, the Cluster as an owner.
    Claim,
    /// Make the first set. Its name follows from the deployment and the sets that still go.
    CreateSet,
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
    /// The set that replicas are brought to.
    pub current: Option<Arc<MachineSet>>,
    /// What the current set's machines lack of the wanted specification.
    pub outdated: Vec<String>,
    /// Sets that have to go before a deployment that is being deleted.
    pub deletion_left: Option<usize>,
}

/// How many Machines there may be during a rollout.
pub fn most_replicas(deployment: &MachineDeployment) -> i32 {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let surge = deployment.spec.rollout.strategy.rolling_update.max_surge.as_ref().and_then(|surge| surge.of(wanted, true));
    wanted.saturating_add(surge.unwrap_or(1).max(0))
}

/// How many Machines may be missing.
pub fn most_unavailable(deployment: &MachineDeployment) -> i32 {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let limit = deployment.spec.rollout.strategy.rolling_update.max_unavailable.as_ref().and_then(|limit| limit.of(wanted, false));
    limit.unwrap_or(0).clamp(0, wanted.max(0))
}

/// The revision of a set.
pub fn revision(set: &MachineSet) -> i64 {
    let told = set.metadata.annotations.as_ref().and_then(|known| known.get(annotations::REVISION));
    told.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The set that replicas are brought to: the one with the wanted template (the oldest of several), else the newest.
pub fn current_set(deployment: &MachineDeployment, sets: &[Arc<MachineSet>]) -> Option<Arc<MachineSet>> {
    let staying = || sets.iter().filter(|set| !is_deleting(&set.metadata));
    let age = |set: &&Arc<MachineSet>| (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.clone());
    let matching = staying().filter(|set| template::differences(&set.spec.template, &deployment.spec.template).is_empty()).min_by_key(age);
    matching.or_else(|| staying().max_by_key(|set| (revision(set), age(set)))).cloned()
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
    plan.current = current_set(deployment, &observed.sets);
    let Some(current) = plan.current.clone() else {
        if !is_deleting(&cluster.metadata) {
            plan.steps.push(Step::CreateSet);
        }
        return plan;
    };
    plan.outdated = template::differences(&current.spec.template, &deployment.spec.template);
    for (set, replicas) in shares(deployment, &current, &observed.sets) {
        let is_current = set.metadata.uid == current.metadata.uid;
        if let Some(patch) = set_patch(deployment, &set, replicas, is_current) {
            plan.steps.push(Step::PatchSet { name: set.metadata.name.clone().unwrap_or_default(), patch });
        }
    }
    let told = meta.annotations.as_ref().and_then(|known| known.get(annotations::REVISION));
    let wanted = current.metadata.annotations.as_ref().and_then(|known| known.get(annotations::REVISION));
    if let Some(wanted) = wanted.filter(|wanted| told != Some(wanted)) {
        plan.steps.push(Step::TellRevision(wanted.clone()));
    }
    plan
}

fn is_unclaimed(deployment: &MachineDeployment, cluster: &Cluster) -> bool {
    let meta = &deployment.metadata;
    let is_labelled = meta.labels.as_ref().and_then(|known| known.get(labels::CLUSTER_NAME)) == Some(&deployment.spec.cluster_name);
    let is_owned = meta.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == cluster.metadata.uid.as_ref());
    !has_finalizer(meta, finalizers::MACHINE_DEPLOYMENT) || !is_labelled || !is_owned
}

/// How many replicas each set gets: other sets keep theirs as far as they fit, the oldest gives first; the current one gets the rest.
fn shares(deployment: &MachineDeployment, current: &Arc<MachineSet>, sets: &[Arc<MachineSet>]) -> Vec<(Arc<MachineSet>, i32)> {
    let wanted = deployment.spec.replicas.unwrap_or(1).max(0);
    let is_other = |set: &&Arc<MachineSet>| set.metadata.uid != current.metadata.uid && !is_deleting(&set.metadata);
    let mut others: Vec<Arc<MachineSet>> = sets.iter().filter(is_other).cloned().collect();
    others.sort_by_key(|set| std::cmp::Reverse((revision(set), set.metadata.name.clone())));
    let mut left = wanted;
    let mut shares = Vec::new();
    for set in others {
        let kept = set.spec.replicas.unwrap_or(0).clamp(0, left);
        left -= kept;
        shares.push((set, kept));
    }
    shares.push((Arc::clone(current), left));
    shares
}

/// The merge patch that brings a set's replicas, told numbers and (for the current one) changeable fields to what they should be.
fn set_patch(deployment: &MachineDeployment, set: &MachineSet, replicas: i32, is_current: bool) -> Option<Value> {
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
    if is_current {
        // Absent is Random, which the API writes into sets.
        let order = |deletion: &SetDeletion| deletion.order.unwrap_or(DeletionOrder::Random);
        if order(&set.spec.deletion) != order(&deployment.spec.deletion) {
            spec.insert("deletion".to_owned(), json!({"order": order(&deployment.spec.deletion)}));
        }
        if let Some(change) = template_change(deployment, set) {
            spec.insert("template".to_owned(), change);
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

/// What changes in a set's template without replacing Machines.
fn template_change(deployment: &MachineDeployment, set: &MachineSet) -> Option<Value> {
    let mut wanted = set.spec.template.clone();
    let from = &deployment.spec.template;
    wanted.spec.deletion = from.spec.deletion.clone();
    wanted.spec.min_ready_seconds = from.spec.min_ready_seconds;
    wanted.spec.readiness_gates.clone_from(&from.spec.readiness_gates);
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
    plan.current = current_set(&observed.deployment, &observed.sets);
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
