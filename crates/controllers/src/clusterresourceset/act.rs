//! Carries out a ClusterResourceSet's steps.

use std::sync::Arc;

use api::addons::{
    ClusterResourceSet, ClusterResourceSetBinding, ClusterResourceSetBindingSpec, ResourceBinding, ResourceRef, ResourceSetBinding,
    ResourceSetSource,
};
use api::cluster::Cluster;
use api::meta::Time;
use api::names::finalizers;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Patch;
use runtime::reconcile::{Error, ObjectKey, Store};
use serde_json::json;

use super::plan::{Observed, Step};
use crate::Wiring;
use crate::edit::{Edit, owner_of};

/// The writers that steps go through.
#[derive(Clone, Debug)]
pub struct Act {
    pub wiring: Wiring,
    pub sets: Store<ClusterResourceSet>,
    pub bindings: Store<ClusterResourceSetBinding>,
    pub secrets: Store<Secret>,
    pub config_maps: Store<ConfigMap>,
}

impl Act {
    /// Carries out one step; twice is as once.
    ///
    /// # Errors
    /// As the API answers. Applying is handed in and never fails here.
    pub async fn step(&self, observed: &Observed, step: &Step) -> Result<(), Error> {
        let set = &observed.set;
        let key = ObjectKey::of(&set.metadata);
        let (word, object) = match step {
            Step::AddFinalizer => {
                Edit::of(&set.metadata).finalizer(finalizers::CLUSTER_RESOURCE_SET).apply(&self.sets).await?;
                ("add-finalizer", String::new())
            }
            Step::RemoveFinalizer => {
                Edit::of(&set.metadata).without_finalizer(finalizers::CLUSTER_RESOURCE_SET).apply(&self.sets).await?;
                ("remove-finalizer", String::new())
            }
            Step::OwnSource(source) => {
                self.own(set, source).await?;
                ("own-source", source.name.clone())
            }
            Step::Apply { cluster, source, work, objects } => {
                self.wiring.workload.apply(cluster, work, objects.as_ref().clone());
                ("hand-in", format!("{} {} for Cluster {cluster}", source.kind, source.name))
            }
            Step::Bind { cluster, source, hash, is_applied } => {
                self.bind(observed, cluster, source, hash, *is_applied).await?;
                ("bind", format!("{} {} to Cluster {}", source.kind, source.name, ObjectKey::of(&cluster.metadata)))
            }
            Step::Unbind(binding) => {
                self.unbind(set, binding).await?;
                ("unbind", ObjectKey::of(&binding.metadata).to_string())
            }
        };
        let result = if object.is_empty() { "ok" } else { &object };
        self.wiring.log.record(super::NAME, word, format_args!("ClusterResourceSet {key}"), result);
        Ok(())
    }

    async fn own(&self, set: &ClusterResourceSet, source: &ResourceRef) -> Result<(), Error> {
        let key = ObjectKey { namespace: set.metadata.namespace.clone(), name: source.name.clone() };
        match source.kind {
            ResourceSetSource::Secret => {
                if let Some(secret) = self.secrets.get(&key) {
                    Edit::of(&secret.metadata).owner(owner_of(set)).apply(&self.secrets).await?;
                }
            }
            ResourceSetSource::ConfigMap => {
                if let Some(config_map) = self.config_maps.get(&key) {
                    Edit::of(&config_map.metadata).owner(owner_of(set)).apply(&self.config_maps).await?;
                }
            }
        }
        Ok(())
    }

    /// The binding of a cluster carries its name and belongs to it.
    async fn bind(
        &self,
        observed: &Observed,
        cluster: &Arc<Cluster>,
        source: &ResourceRef,
        hash: &str,
        is_applied: bool,
    ) -> Result<(), Error> {
        let set_name = observed.set.metadata.name.clone().unwrap_or_default();
        let told = ResourceBinding {
            applied: is_applied,
            hash: Some(hash.to_owned()),
            kind: source.kind,
            last_applied_time: Some(Time(observed.now)),
            name: source.name.clone(),
        };
        let key = ObjectKey::of(&cluster.metadata);
        let Some(present) = self.bindings.get(&key) else {
            let metadata = ObjectMeta {
                name: Some(key.name.clone()),
                namespace: key.namespace.clone(),
                owner_references: Some(vec![owner_of(&**cluster)]),
                ..ObjectMeta::default()
            };
            let entry = ResourceSetBinding { cluster_resource_set_name: set_name, resources: vec![told] };
            let spec = ClusterResourceSetBindingSpec { bindings: vec![entry], cluster_name: key.name };
            self.bindings.create(&ClusterResourceSetBinding { metadata, spec }).await?;
            return Ok(());
        };
        let mut bindings = present.spec.bindings.clone();
        match bindings.iter_mut().find(|entry| entry.cluster_resource_set_name == set_name) {
            Some(entry) => match entry.resources.iter_mut().find(|known| known.kind == told.kind && known.name == told.name) {
                Some(known) => *known = told,
                None => entry.resources.push(told),
            },
            None => bindings.push(ResourceSetBinding { cluster_resource_set_name: set_name, resources: vec![told] }),
        }
        self.write(&present, &bindings).await
    }

    async fn unbind(&self, set: &ClusterResourceSet, binding: &ClusterResourceSetBinding) -> Result<(), Error> {
        let mut bindings = binding.spec.bindings.clone();
        bindings.retain(|entry| Some(&entry.cluster_resource_set_name) != set.metadata.name.as_ref());
        if bindings.is_empty() {
            self.bindings.delete(&binding.metadata, None).await?;
            return Ok(());
        }
        self.write(binding, &bindings).await
    }

    async fn write(&self, binding: &ClusterResourceSetBinding, bindings: &[ResourceSetBinding]) -> Result<(), Error> {
        let meta = &binding.metadata;
        let patch = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version}, "spec": {"bindings": bindings}});
        self.bindings.patch(&ObjectKey::of(meta), &Patch::Merge(patch)).await?;
        Ok(())
    }
}
