//! Which manifests go into which cluster, and what is told about it. Pure.
//!
//! Each source (a Secret of the right type, or a ConfigMap) is applied once to each selected cluster, as soon as its API answers; the
//! binding remembers that. Applying creates what is missing and changes nothing that is there, so a second time does no harm.

use std::sync::Arc;

use api::addons::{ClusterResourceSet, ClusterResourceSetBinding, ResourceRef, ResourceSetStrategy};
use api::cluster::Cluster;
use api::names::finalizers;
use jiff::Timestamp;
use runtime::reconcile::ObjectKey;
use serde_json::Value;

use crate::edit::{has_finalizer, is_deleting, is_paused};
use crate::workload::{Applied, Connection};

/// A source as it was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// There is no such object (yet).
    Missing,
    /// It cannot be used: the reason word and the sentence.
    Unusable { reason: &'static str, message: String },
    /// The objects in it, and the hash of its data.
    Found { hash: String, objects: Arc<Vec<Value>>, is_owned: bool },
}

/// A selected cluster as it was found.
#[derive(Clone, Debug)]
pub struct Target {
    pub cluster: Arc<Cluster>,
    pub connection: Connection,
    pub binding: Option<Arc<ClusterResourceSetBinding>>,
    /// What came of each source's objects, in the order of the sources.
    pub applied: Vec<Option<Applied>>,
}

/// What is known when a set is planned.
#[derive(Clone, Debug)]
pub struct Observed {
    pub set: Arc<ClusterResourceSet>,
    pub sources: Vec<(ResourceRef, Source)>,
    pub targets: Vec<Target>,
    /// Bindings that name the set, of whichever cluster.
    pub bindings: Vec<Arc<ClusterResourceSetBinding>>,
    pub now: Timestamp,
}

/// One outside effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    AddFinalizer,
    /// Make the set an owner of a source.
    OwnSource(ResourceRef),
    /// Hand a source's objects in.
    Apply {
        cluster: ObjectKey,
        source: ResourceRef,
        work: String,
        objects: Arc<Vec<Value>>,
    },
    /// Remember in the binding of a cluster what came of a source.
    Bind {
        cluster: Arc<Cluster>,
        source: ResourceRef,
        hash: String,
        is_applied: bool,
    },
    /// Forget the set in a binding.
    Unbind(Arc<ClusterResourceSetBinding>),
    RemoveFinalizer,
}

/// What stands in the way: the reason word and the sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub reason: &'static str,
    pub message: String,
}

/// What to do, and where the set stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub is_paused: bool,
    pub troubles: Vec<Trouble>,
}

/// Names a source's objects of one hash, for the question what came of them.
pub fn work(set: &ClusterResourceSet, source: &ResourceRef, hash: &str) -> String {
    format!("ClusterResourceSet {} {} {} {hash}", ObjectKey::of(&set.metadata), source.kind, source.name)
}

/// Whether the binding tells that a source was applied; with the strategy `Reconcile` only this content of it.
pub fn is_bound(set: &ClusterResourceSet, binding: Option<&ClusterResourceSetBinding>, source: &ResourceRef, hash: &str) -> bool {
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let entry = binding.and_then(|binding| binding.spec.bindings.iter().find(|entry| entry.cluster_resource_set_name == name));
    let told = entry.and_then(|entry| entry.resources.iter().find(|told| told.kind == source.kind && told.name == source.name));
    let is_content_bound = set.spec.strategy == Some(ResourceSetStrategy::Reconcile);
    told.is_some_and(|told| told.applied && (!is_content_bound || told.hash.as_deref() == Some(hash)))
}

/// Decides for one set.
pub fn plan(observed: &Observed) -> Plan {
    let set = &observed.set;
    let meta = &set.metadata;
    if is_paused(None, meta) {
        return Plan { is_paused: true, ..Plan::default() };
    }
    let mut plan = Plan::default();
    if is_deleting(meta) {
        plan.steps.extend(observed.bindings.iter().map(|binding| Step::Unbind(Arc::clone(binding))));
        if observed.bindings.is_empty() && has_finalizer(meta, finalizers::CLUSTER_RESOURCE_SET) {
            plan.steps.push(Step::RemoveFinalizer);
        }
        return plan;
    }
    if !has_finalizer(meta, finalizers::CLUSTER_RESOURCE_SET) {
        plan.steps.push(Step::AddFinalizer);
    }
    for (source, found) in &observed.sources {
        match found {
            Source::Missing => {
                let message = format!("{} {} does not exist", source.kind, source.name);
                plan.troubles.push(Trouble { reason: "RetrievingResourceFailed", message });
            }
            Source::Unusable { reason, message } => plan.troubles.push(Trouble { reason, message: message.clone() }),
            Source::Found { is_owned: false, .. } => plan.steps.push(Step::OwnSource(source.clone())),
            Source::Found { .. } => {}
        }
    }
    for target in observed.targets.iter().filter(|target| !is_paused(Some(&target.cluster), &target.cluster.metadata)) {
        for ((source, found), applied) in observed.sources.iter().zip(&target.applied) {
            let Source::Found { hash, objects, .. } = found else { continue };
            bring(observed, target, source, hash, objects, applied.as_ref(), &mut plan);
        }
    }
    plan
}

fn bring(
    observed: &Observed,
    target: &Target,
    source: &ResourceRef,
    hash: &str,
    objects: &Arc<Vec<Value>>,
    applied: Option<&Applied>,
    plan: &mut Plan,
) {
    if is_bound(&observed.set, target.binding.as_deref(), source, hash) {
        return;
    }
    let name = target.cluster.metadata.name.as_deref().unwrap_or_default();
    let hand_in = || Step::Apply {
        cluster: ObjectKey::of(&target.cluster.metadata),
        source: source.clone(),
        work: work(&observed.set, source, hash),
        objects: Arc::clone(objects),
    };
    match applied {
        Some(Applied::Done) => {
            plan.steps.push(Step::Bind {
                cluster: Arc::clone(&target.cluster),
                source: source.clone(),
                hash: hash.to_owned(),
                is_applied: true,
            });
        }
        Some(Applied::Pending) => plan.troubles.push(Trouble {
            reason: "ApplyingResources",
            message: format!("Cluster {name}: {} {} is being applied", source.kind, source.name),
        }),
        Some(Applied::Failed(error)) => {
            plan.troubles.push(Trouble {
                reason: "ApplyFailed",
                message: format!("Cluster {name}: {} {} was not applied: {error}", source.kind, source.name),
            });
            plan.steps.push(hand_in());
        }
        None if target.connection.is_connected() => plan.steps.push(hand_in()),
        None => {
            plan.troubles.push(Trouble { reason: "RemoteClusterClientFailed", message: format!("Cluster {name}: {}", target.connection) })
        }
    }
}
