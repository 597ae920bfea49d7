//! Carries out a VSphereMachine's steps.

use std::sync::Arc;

use api::cluster::Machine;
use api::infrastructure::{VSphereMachine, VSphereVM};
use api::names::{finalizers, labels};
use kube::api::PropagationPolicy;
use runtime::reconcile::{Error, ObjectKey, Store};
use serde_json::json;

use super::plan::{Observed, Step};
use crate::Wiring;
use crate::edit::Edit;

/// The writers that steps go through.
#[derive(Clone, Debug)]
pub struct Act {
    pub wiring: Wiring,
    pub store: Store<VSphereMachine>,
    pub vms: Store<VSphereVM>,
    pub machines: Store<Machine>,
}

impl Act {
    /// Carries out one step; twice is as once.
    ///
    /// # Errors
    /// As the API answers.
    pub async fn step(&self, observed: &Observed, step: &Step) -> Result<(), Error> {
        let key = ObjectKey::of(&observed.object.metadata);
        let meta = self.store.get(&key).unwrap_or_else(|| Arc::clone(&observed.object)).metadata.clone();
        let word = match step {
            Step::AddFinalizer => {
                Edit::of(&meta).finalizer(finalizers::VSPHERE_MACHINE).apply(&self.store).await?;
                "add-finalizer"
            }
            Step::RemoveFinalizer => {
                Edit::of(&meta).without_finalizer(finalizers::VSPHERE_MACHINE).apply(&self.store).await?;
                "remove-finalizer"
            }
            Step::CreateVm(vm) => {
                match self.vms.create(vm).await {
                    // A create whose answer was lost; whose it is shows in the next pass.
                    Err(error) if error.is_already_exists() => drop(self.vms.fetch(&ObjectKey::of(&vm.metadata)).await?),
                    other => drop(other?),
                }
                "create-vspherevm"
            }
            Step::UpdateVm { patch } => {
                if let Some(vm) = &observed.vm {
                    self.vms.merge(&ObjectKey::of(&vm.metadata), patch.clone()).await?;
                }
                "update-vspherevm"
            }
            Step::DeleteVm(meta) => {
                self.vms.delete(meta, Some(PropagationPolicy::Background)).await?;
                "delete-vspherevm"
            }
            Step::SetProviderId(id) => {
                Edit::of(&meta).spec("providerID", json!(id)).apply(&self.store).await?;
                "set-provider-id"
            }
            Step::LabelMachine { host } => {
                if let Some(machine) = &observed.machine {
                    Edit::of(&machine.metadata).label(labels::ESXI_HOST, host).apply(&self.machines).await?;
                }
                "label-machine"
            }
        };
        self.wiring.log.record("vspheremachine", word, format_args!("VSphereMachine {key}"), "ok");
        Ok(())
    }
}
