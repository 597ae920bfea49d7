//! The ClusterResourceSet controller: brings manifests into clusters as soon as their APIs answer, once.

mod act;
pub mod plan;
pub mod source;
pub mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::addons::{ClusterResourceSet, ClusterResourceSetBinding, ResourceRef, ResourceSetSource};
use api::cluster::Cluster;
use api::names::secrets;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use runtime::reconcile::{Action, Error, ObjectKey, Reconciler, Store};

use crate::edit::is_deleting;
use crate::{Started, Wiring};
use act::Act;
use plan::{Observed, Source, Target};

/// The controller's name.
pub const NAME: &str = "clusterresourceset";
/// Between two looks at one object: what changes together is looked at once.
const REST: Duration = Duration::from_millis(50);

struct Sets {
    act: Act,
    clusters: Store<Cluster>,
}

/// Wires the controller.
pub fn start(wiring: &Wiring) -> Started {
    let store = wiring.stores.get::<ClusterResourceSet>();
    let act = Act {
        wiring: wiring.clone(),
        sets: store.clone(),
        bindings: wiring.stores.get(),
        secrets: wiring.stores.get(),
        config_maps: wiring.stores.get(),
    };
    let reconciler = Sets { act, clusters: wiring.stores.get() };
    let naming = |kind: ResourceSetSource| {
        let store = store.clone();
        move |meta: &ObjectMeta| -> Vec<ObjectKey> {
            let sets = store.in_namespace(meta.namespace.as_deref().unwrap_or_default());
            let names = |set: &&Arc<ClusterResourceSet>| {
                set.spec.resources.iter().any(|source| source.kind == kind && Some(&source.name) == meta.name.as_ref())
            };
            sets.iter().filter(names).map(|set| ObjectKey::of(&set.metadata)).collect()
        }
    };
    let (of_secret, of_config_map) = (naming(ResourceSetSource::Secret), naming(ResourceSetSource::ConfigMap));
    let in_namespace = {
        let store = store.clone();
        move |namespace: &str| -> Vec<ObjectKey> { store.in_namespace(namespace).iter().map(|set| ObjectKey::of(&set.metadata)).collect() }
    };
    let (for_clusters, for_bindings) = (in_namespace.clone(), in_namespace.clone());
    let controller = wiring
        .controller(NAME, reconciler)
        .rest(REST)
        .watches(move |secret: &Secret| of_secret(&secret.metadata))
        .watches(move |config_map: &ConfigMap| of_config_map(&config_map.metadata))
        .watches_when(is_other_cluster, move |cluster: &Cluster| for_clusters(cluster.metadata.namespace.as_deref().unwrap_or_default()))
        .watches(move |binding: &ClusterResourceSetBinding| for_bindings(binding.metadata.namespace.as_deref().unwrap_or_default()));
    let waker = controller.waker();
    wiring.workload.subscribe(Arc::new(move |change| {
        if change.node.is_none() {
            for key in in_namespace(change.cluster.namespace()) {
                waker.wake(&key);
            }
        }
    }));
    wiring.started(controller)
}

/// Whether a Cluster may be selected otherwise, or be paused. How far it is shows in the connection to it.
fn is_other_cluster(old: &Cluster, new: &Cluster) -> bool {
    crate::change::of_metadata(&old.metadata, &new.metadata) || old.spec.paused != new.spec.paused
}

impl Sets {
    fn source(&self, set: &ClusterResourceSet, source: &ResourceRef) -> Source {
        let key = ObjectKey { namespace: set.metadata.namespace.clone(), name: source.name.clone() };
        let (meta, data) = match source.kind {
            ResourceSetSource::Secret => {
                let Some(secret) = self.act.secrets.get(&key) else { return Source::Missing };
                if secret.type_.as_deref() != Some(secrets::RESOURCE_SET_TYPE) {
                    let message = format!("Secret {} must have type {} to be applied", source.name, secrets::RESOURCE_SET_TYPE);
                    return Source::Unusable { reason: "WrongSecretType", message };
                }
                let text = |data: &k8s_openapi::ByteString| String::from_utf8_lossy(&data.0).into_owned();
                let data: BTreeMap<String, String> = secret.data.iter().flatten().map(|(key, data)| (key.clone(), text(data))).collect();
                (secret.metadata.clone(), data)
            }
            ResourceSetSource::ConfigMap => {
                let Some(config_map) = self.act.config_maps.get(&key) else { return Source::Missing };
                (config_map.metadata.clone(), config_map.data.clone().unwrap_or_default())
            }
        };
        match source::objects(&data) {
            Err(error) => {
                let message = format!("{} {}: {error}", source.kind, source.name);
                Source::Unusable { reason: "RetrievingResourceFailed", message }
            }
            Ok(objects) => {
                let is_owned = meta.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == set.metadata.uid.as_ref());
                Source::Found { hash: source::hash(&data), objects: Arc::new(objects), is_owned }
            }
        }
    }

    fn observe(&self, set: Arc<ClusterResourceSet>) -> Observed {
        let wiring = &self.act.wiring;
        let namespace = set.metadata.namespace.clone().unwrap_or_default();
        let sources: Vec<(ResourceRef, Source)> =
            set.spec.resources.iter().map(|source| (source.clone(), self.source(&set, source))).collect();
        let empty = BTreeMap::new();
        let clusters = self.clusters.in_namespace(&namespace).into_iter();
        let selected = clusters.filter(|cluster| {
            let selector = &set.spec.cluster_selector;
            let labels = cluster.metadata.labels.as_ref().unwrap_or(&empty);
            !selector.is_empty() && selector.matches(labels) && !is_deleting(&cluster.metadata)
        });
        let targets = selected.map(|cluster| {
            let key = ObjectKey::of(&cluster.metadata);
            let applied = sources.iter().map(|(source, found)| match found {
                Source::Found { hash, .. } => wiring.workload.applied(&key, &plan::work(&set, source, hash)),
                _ => None,
            });
            Target {
                connection: wiring.workload.connection(&key),
                binding: self.act.bindings.get(&key),
                applied: applied.collect(),
                cluster,
            }
        });
        let targets = targets.collect();
        let mut bindings = self.act.bindings.in_namespace(&namespace);
        bindings.retain(|binding| {
            let names = binding.spec.bindings.iter().map(|entry| Some(&entry.cluster_resource_set_name));
            names.into_iter().any(|name| name == set.metadata.name.as_ref())
        });
        Observed { set, sources, targets, bindings, now: wiring.clock.now_seconds() }
    }
}

#[async_trait]
impl Reconciler for Sets {
    type Kind = ClusterResourceSet;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(set) = self.act.sets.get(key) else { return Ok(Action::Done) };
        let observed = self.observe(set);
        let plan = plan::plan(&observed);
        let mut result = Ok(());
        for step in &plan.steps {
            result = self.act.step(&observed, step).await;
            if result.is_err() {
                break;
            }
        }
        let Some(set) = self.act.sets.get(key) else {
            result?;
            return Ok(Action::Done);
        };
        let observed = Observed { set, ..observed };
        let new = status::status(&observed, &plan);
        let written = crate::status::patch(&self.act.sets, &*observed.set, observed.set.status.as_ref(), &new).await;
        result?;
        written.map(drop).or_else(crate::status::unless_gone)?;
        Ok(Action::Done)
    }
}
