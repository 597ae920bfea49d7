//! Carries out a Machine's steps.

use std::sync::Arc;

use api::cluster::{Cluster, Machine};
use api::meta::ContractReference;
use api::names::{finalizers, labels};
use kube::Resource as _;
use kube::api::PropagationPolicy;
use runtime::reconcile::{Error, EventType, ObjectKey, Recorder, Store};
use serde_json::json;

use super::plan::{Observed, Step};
use crate::Wiring;
use crate::contract::Referenced;
use crate::edit::{Edit, controller_of, controller_reference, owner_of};

/// The writers that steps go through.
#[derive(Clone, Debug)]
pub struct Act {
    pub wiring: Wiring,
    pub recorder: Recorder,
    pub clusters: Store<Cluster>,
    pub machines: Store<Machine>,
}

impl Act {
    /// Carries out one step; twice is as once.
    ///
    /// # Errors
    /// As the API answers. Steps in the workload cluster are handed in and never fail here.
    pub async fn step(&self, observed: &Observed, step: &Step) -> Result<(), Error> {
        let machine = &observed.machine;
        let key = ObjectKey::of(&machine.metadata);
        let cluster_key = ObjectKey { namespace: key.namespace.clone(), name: machine.spec.cluster_name.clone() };
        let word = match step {
            Step::Claim => {
                self.claim(observed).await?;
                "claim"
            }
            Step::OwnBootstrap => {
                self.own(machine, machine.spec.bootstrap.config_ref.as_ref(), &observed.bootstrap).await?;
                "own-bootstrap"
            }
            Step::OwnInfrastructure => {
                self.own(machine, Some(&machine.spec.infrastructure_ref), &observed.infrastructure).await?;
                "own-infrastructure"
            }
            Step::CopySpec { data_secret_name, provider_id, failure_domain } => {
                let latest = self.latest(machine);
                let mut edit = Edit::of(&latest.metadata);
                if let Some(name) = data_secret_name {
                    edit = edit.spec("bootstrap", json!({"dataSecretName": name}));
                }
                if let Some(id) = provider_id {
                    edit = edit.spec("providerID", json!(id));
                }
                if let Some(domain) = failure_domain {
                    edit = edit.spec("failureDomain", json!(domain));
                }
                edit.apply(&self.machines).await?;
                "copy-spec"
            }
            Step::PatchNode { node, patch } => {
                self.wiring.workload.patch_node(&cluster_key, node, patch.clone());
                "hand-in-node-patch"
            }
            Step::DeleteNode { node, uid } => {
                self.wiring.workload.delete_node(&cluster_key, node, uid);
                "hand-in-node-deletion"
            }
            Step::Inspect => {
                self.wiring.workload.inspect(&cluster_key);
                "hand-in-inspection"
            }
            Step::Look { node, what } => {
                self.wiring.workload.look(&cluster_key, node, *what);
                "hand-in-look"
            }
            Step::Evict { node, eviction } => {
                self.wiring.workload.evict(&cluster_key, node, eviction.clone());
                "hand-in-eviction"
            }
            Step::Tell { is_warning, reason, message } => {
                let kind = if *is_warning { EventType::Warning } else { EventType::Normal };
                self.recorder.event(&machine.object_ref(&()), kind, reason, message.clone());
                return Ok(());
            }
            Step::DeleteInfrastructure => {
                self.delete(Some(&machine.spec.infrastructure_ref), &observed.infrastructure).await?;
                "delete-infrastructure"
            }
            Step::DeleteBootstrap => {
                self.delete(machine.spec.bootstrap.config_ref.as_ref(), &observed.bootstrap).await?;
                "delete-bootstrap"
            }
            Step::RemoveFinalizer => {
                let latest = self.latest(machine);
                Edit::of(&latest.metadata).without_finalizer(finalizers::MACHINE).apply(&self.machines).await?;
                "remove-finalizer"
            }
        };
        self.wiring.log.record("machine", word, format_args!("Machine {key}"), "ok");
        Ok(())
    }

    /// The Machine as an earlier step left it.
    fn latest(&self, machine: &Arc<Machine>) -> Arc<Machine> {
        self.machines.get(&ObjectKey::of(&machine.metadata)).unwrap_or_else(|| Arc::clone(machine))
    }

    async fn claim(&self, observed: &Observed) -> Result<(), Error> {
        let machine = self.latest(&observed.machine);
        let mut edit = Edit::of(&machine.metadata).finalizer(finalizers::MACHINE);
        edit = edit.label(labels::CLUSTER_NAME, &machine.spec.cluster_name);
        let has_owner = machine.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
        if let Some(cluster) = observed.cluster.as_deref().filter(|_| !has_owner) {
            edit = edit.owner(owner_of(cluster));
        }
        edit.apply(&self.machines).await?;
        Ok(())
    }

    async fn own(&self, machine: &Machine, reference: Option<&ContractReference>, referenced: &Referenced) -> Result<(), Error> {
        let (Some(object), Some(reference)) = (referenced.found(), reference) else { return Ok(()) };
        let store = self.wiring.externals.store(&reference.api_group, &reference.kind).await?;
        let mut edit = Edit::of(&object.metadata).label(labels::CLUSTER_NAME, &machine.spec.cluster_name);
        // What cloned the object owned it until now.
        if let Some(owner) = controller_reference(&object.metadata).filter(|owner| owner.kind != "Machine") {
            edit = edit.without_owner(&owner.uid);
        }
        edit.owner(controller_of(machine)).apply(&store).await?;
        Ok(())
    }

    async fn delete(&self, reference: Option<&ContractReference>, referenced: &Referenced) -> Result<(), Error> {
        let (Some(object), Some(reference)) = (referenced.found(), reference) else { return Ok(()) };
        let store = self.wiring.externals.store(&reference.api_group, &reference.kind).await?;
        store.delete(&object.metadata, Some(PropagationPolicy::Background)).await?;
        Ok(())
    }
}
