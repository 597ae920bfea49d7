//! Carries out a Cluster's steps.

use std::sync::Arc;

use api::cluster::{Cluster, Machine, MachineDeployment, MachineSet};
use api::meta::ContractReference;
use api::names::{finalizers, labels};
use kube::api::PropagationPolicy;
use runtime::reconcile::{Error, ObjectKey, Store};
use serde_json::json;

use super::plan::{Observed, Step};
use crate::Wiring;
use crate::contract::Referenced;
use crate::edit::{Edit, controller_of};

/// The writers that steps go through.
#[derive(Clone, Debug)]
pub struct Act {
    pub wiring: Wiring,
    pub clusters: Store<Cluster>,
    pub deployments: Store<MachineDeployment>,
    pub sets: Store<MachineSet>,
    pub machines: Store<Machine>,
}

impl Act {
    /// Carries out one step; twice is as once.
    ///
    /// # Errors
    /// As the API answers.
    pub async fn step(&self, observed: &Observed, step: &Step) -> Result<(), Error> {
        let cluster = &observed.cluster;
        let key = ObjectKey::of(&cluster.metadata);
        let meta = self.clusters.get(&key).unwrap_or_else(|| Arc::clone(cluster)).metadata.clone();
        let word = match step {
            Step::AddFinalizer => {
                Edit::of(&meta).finalizer(finalizers::CLUSTER).apply(&self.clusters).await?;
                "add-finalizer"
            }
            Step::RemoveFinalizer => {
                Edit::of(&meta).without_finalizer(finalizers::CLUSTER).apply(&self.clusters).await?;
                "remove-finalizer"
            }
            Step::CopyEndpoint { host, port } => {
                let endpoint = json!({"host": host, "port": port});
                Edit::of(&meta).spec("controlPlaneEndpoint", endpoint).apply(&self.clusters).await?;
                "copy-endpoint"
            }
            Step::OwnInfrastructure => {
                self.own(cluster, cluster.spec.infrastructure_ref.as_ref(), &observed.infrastructure).await?;
                "own-infrastructure"
            }
            Step::OwnControlPlane => {
                self.own(cluster, cluster.spec.control_plane_ref.as_ref(), &observed.control_plane).await?;
                "own-control-plane"
            }
            Step::DeleteDeployment(meta) => {
                self.deployments.delete(meta, Some(PropagationPolicy::Background)).await?;
                "delete-machinedeployment"
            }
            Step::DeleteSet(meta) => {
                self.sets.delete(meta, Some(PropagationPolicy::Background)).await?;
                "delete-machineset"
            }
            Step::DeleteMachine(meta) => {
                self.machines.delete(meta, Some(PropagationPolicy::Background)).await?;
                "delete-machine"
            }
            Step::DeleteControlPlane => {
                self.delete(cluster.spec.control_plane_ref.as_ref(), &observed.control_plane).await?;
                "delete-control-plane"
            }
            Step::DeleteInfrastructure => {
                self.delete(cluster.spec.infrastructure_ref.as_ref(), &observed.infrastructure).await?;
                "delete-infrastructure"
            }
        };
        self.wiring.log.record("cluster", word, format_args!("Cluster {key}"), "ok");
        Ok(())
    }

    async fn own(&self, cluster: &Cluster, reference: Option<&ContractReference>, referenced: &Referenced) -> Result<(), Error> {
        let (Some(object), Some(reference)) = (referenced.found(), reference) else { return Ok(()) };
        let store = self.wiring.externals.store(&reference.api_group, &reference.kind).await?;
        let name = cluster.metadata.name.as_deref().unwrap_or_default();
        let edit = Edit::of(&object.metadata).owner(controller_of(cluster)).label(labels::CLUSTER_NAME, name);
        edit.apply(&store).await?;
        Ok(())
    }

    async fn delete(&self, reference: Option<&ContractReference>, referenced: &Referenced) -> Result<(), Error> {
        let (Some(object), Some(reference)) = (referenced.found(), reference) else { return Ok(()) };
        let store = self.wiring.externals.store(&reference.api_group, &reference.kind).await?;
        store.delete(&object.metadata, Some(PropagationPolicy::Background)).await?;
        Ok(())
    }
}
