//! Carries out a VSphereVM's steps: claims through the API, the rest through vCenter. Never decides.
//!
//! Every step that starts a task records it at once. A step whose answer is lost fails with an error that says so; the next pass looks at the world. Only the clone
//! could do harm when carried out twice, and its intent stands in an annotation before the call.

use std::sync::Arc;

use api::infrastructure::VSphereVM;
use api::ipam::{IPAddressClaim, IPAddressClaimSpec};
use api::names::{annotations, finalizers, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::PropagationPolicy;
use runtime::reconcile::{ApiError, EventType, ObjectKey, Recorder, Store};
use serde_json::{Value, json};
use thiserror::Error;
use vsphere::spec::{delivery_spec, detach_spec, marker_spec};
use vsphere::{ManagedObjectReference, Reaction, VCenter, VSphereError};

use super::network::Claim;
use super::plan::{Observed, Step, task_reference, without_effect};
use crate::Wiring;
use crate::edit::{Edit, cluster_name, has_finalizer, owner_of};

/// Why a step failed.
#[derive(Debug, Error)]
pub enum StepError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    VSphere(#[from] VSphereError),
    /// A step that needs vCenter although nobody signed in: the plan is wrong.
    #[error("step {0} needs vCenter, which was not asked")]
    NoVCenter(&'static str),
}

/// The writers that steps go through.
#[derive(Clone, Debug)]
pub struct Act {
    pub wiring: Wiring,
    pub store: Store<VSphereVM>,
    pub claims: Store<IPAddressClaim>,
    pub recorder: Recorder,
}

impl Step {
    /// The step's name in the log.
    pub fn word(&self) -> &'static str {
        match self {
            Self::AddFinalizer => "add-finalizer",
            Self::RemoveFinalizer => "remove-finalizer",
            Self::CreateClaim(_) => "create-claim",
            Self::ProtectClaim(_) => "protect-claim",
            Self::ReleaseClaim(_) => "release-claim",
            Self::StoreIntent(_) => "store-intent",
            Self::Clone { .. } => "clone",
            Self::Adopt { .. } => "adopt",
            Self::StoreBiosUuid(_) => "store-bios-uuid",
            Self::ForgetTask { .. } => "forget-task",
            Self::Deliver { .. } => "deliver",
            Self::PowerOn { .. } => "power-on",
            Self::ShutDownGuest { .. } => "shut-down-guest",
            Self::PowerOff { .. } => "power-off",
            Self::Cancel { .. } => "cancel",
            Self::RewriteMarker { .. } => "rewrite-marker",
            Self::Detach { .. } => "detach",
            Self::Destroy { .. } => "destroy",
        }
    }
}

impl Act {
    /// Carries out one step; twice is as once.
    ///
    /// # Errors
    /// As the API and vCenter answer.
    pub async fn step(&self, observed: &Observed, step: &Step, vcenter: Option<&dyn VCenter>) -> Result<(), StepError> {
        let key = ObjectKey::of(&observed.vm.metadata);
        let result = self.carry_out(observed, step, vcenter).await;
        let object = format_args!("VSphereVM {key}");
        match &result {
            Ok(()) => self.wiring.log.record("vspherevm", step.word(), object, "ok"),
            Err(error) => self.wiring.log.record("vspherevm", step.word(), object, format_args!("failed: {error}")),
        }
        result
    }

    async fn carry_out(&self, observed: &Observed, step: &Step, vcenter: Option<&dyn VCenter>) -> Result<(), StepError> {
        let key = ObjectKey::of(&observed.vm.metadata);
        let vm = self.store.get(&key).unwrap_or_else(|| Arc::clone(&observed.vm));
        let server = || vcenter.ok_or(StepError::NoVCenter(step.word()));
        match step {
            Step::AddFinalizer => drop(Edit::of(&vm.metadata).finalizer(finalizers::VSPHERE_VM).apply(&self.store).await?),
            Step::RemoveFinalizer => drop(Edit::of(&vm.metadata).without_finalizer(finalizers::VSPHERE_VM).apply(&self.store).await?),
            Step::CreateClaim(claim) => self.create_claim(&vm, claim).await?,
            Step::ProtectClaim(meta) => drop(Edit::of(meta).finalizer(finalizers::IP_CLAIM_PROTECTION).apply(&self.claims).await?),
            Step::ReleaseClaim(meta) => self.release_claim(meta).await?,
            Step::StoreIntent(intent) => {
                drop(Edit::of(&vm.metadata).annotation(annotations::CLONE_INTENT, &intent.text()).apply(&self.store).await?);
            }
            Step::Clone { placement, request } => {
                let (task, remarks) = server()?.clone_machine(placement, request).await?;
                self.record_task(&key, &vm, &task).await?;
                let sizes = remarks.into_iter().map(|remark| ("DiskSizeIgnored", remark));
                for (reason, remark) in sizes.chain(without_effect(&vm).into_iter().map(|remark| ("SettingIgnored", remark))) {
                    self.recorder.event(&vm.object_ref(&()), EventType::Warning, reason, remark);
                }
            }
            Step::Adopt { machine } => {
                self.write(&key, &vm, json!({"vmRef": machine.to_string(), "taskRef": null, "retryAfter": null})).await?;
            }
            Step::StoreBiosUuid(uuid) => drop(Edit::of(&vm.metadata).spec("biosUUID", json!(uuid)).apply(&self.store).await?),
            Step::ForgetTask { retry_after } => {
                let retry_after = retry_after.map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time);
                self.write(&key, &vm, json!({"taskRef": null, "retryAfter": retry_after})).await?;
            }
            Step::Deliver { machine, delivery } => {
                let task = server()?.reconfigure(machine, delivery_spec(delivery)).await;
                self.follow(&key, &vm, task).await?;
            }
            Step::PowerOn { machine } => {
                let task = server()?.power_on(machine).await;
                self.follow(&key, &vm, task).await?;
            }
            Step::ShutDownGuest { machine } => done(server()?.shut_down_guest(machine).await)?,
            Step::PowerOff { machine } => {
                let task = server()?.power_off(machine).await;
                self.follow(&key, &vm, task).await?;
            }
            Step::Cancel { task } => match server()?.cancel(task).await {
                // It has ended, or cannot be stopped: its end is awaited.
                Err(error) if error.is_about_server() => return Err(error.into()),
                Err(_) | Ok(()) => {}
            },
            Step::RewriteMarker { machine, marker } => {
                let task = server()?.reconfigure(machine, marker_spec(marker)).await;
                self.follow(&key, &vm, task).await?;
            }
            Step::Detach { machine, disks } => {
                let task = server()?.reconfigure(machine, detach_spec(disks.clone())).await;
                self.follow(&key, &vm, task).await?;
            }
            Step::Destroy { machine } => {
                let task = server()?.destroy(machine).await;
                self.follow(&key, &vm, task).await?;
            }
        }
        Ok(())
    }

    /// Records the task of a call. What was so already, and what is gone, shows in the next pass; the task before it is over then, and nothing would tell of it any more.
    async fn follow(&self, key: &ObjectKey, vm: &VSphereVM, task: Result<ManagedObjectReference, VSphereError>) -> Result<(), StepError> {
        match task {
            Ok(task) => self.record_task(key, vm, &task).await,
            Err(error) => {
                done(Err(error))?;
                if task_reference(vm).is_some() {
                    self.write(key, vm, json!({"taskRef": null, "retryAfter": null})).await?;
                }
                Ok(())
            }
        }
    }

    async fn record_task(&self, key: &ObjectKey, vm: &VSphereVM, task: &ManagedObjectReference) -> Result<(), StepError> {
        self.write(key, vm, json!({"taskRef": task.id, "retryAfter": null})).await
    }

    /// Writes fields of the status that no other writer touches; never into a later object of the same name.
    async fn write(&self, key: &ObjectKey, vm: &VSphereVM, fields: Value) -> Result<(), StepError> {
        self.store.merge_status(key, json!({"metadata": {"uid": vm.metadata.uid}, "status": fields})).await?;
        Ok(())
    }

    async fn create_claim(&self, vm: &VSphereVM, claim: &Claim) -> Result<(), StepError> {
        let cluster = cluster_name(&vm.metadata).map(str::to_owned);
        let object = IPAddressClaim {
            metadata: ObjectMeta {
                name: Some(claim.name.clone()),
                namespace: vm.metadata.namespace.clone(),
                labels: cluster.as_ref().map(|cluster| [(labels::CLUSTER_NAME.to_owned(), cluster.clone())].into()),
                finalizers: Some(vec![finalizers::IP_CLAIM_PROTECTION.to_owned()]),
                owner_references: Some(vec![owner_of(vm)]),
                ..ObjectMeta::default()
            },
            spec: IPAddressClaimSpec { cluster_name: cluster, pool_ref: claim.pool.clone() },
            status: None,
        };
        match self.claims.create(&object).await {
            // A create whose answer was lost.
            Err(error) if error.is_already_exists() => drop(self.claims.fetch(&ObjectKey::of(&object.metadata)).await?),
            other => drop(other?),
        }
        Ok(())
    }

    async fn release_claim(&self, meta: &ObjectMeta) -> Result<(), StepError> {
        self.claims.delete(meta, Some(PropagationPolicy::Background)).await?;
        let Some(claim) = self.claims.fetch(&ObjectKey::of(meta)).await? else { return Ok(()) };
        if claim.metadata.uid == meta.uid && has_finalizer(&claim.metadata, finalizers::IP_CLAIM_PROTECTION) {
            let edit = Edit::of(&claim.metadata).without_finalizer(finalizers::IP_CLAIM_PROTECTION).apply(&self.claims).await;
            match edit {
                Err(error) if error.is_not_found() => {}
                other => drop(other?),
            }
        }
        Ok(())
    }
}

/// A call that was not needed any more went well.
fn done(result: Result<(), VSphereError>) -> Result<(), StepError> {
    match result {
        Err(error) if matches!(error.reaction(), Reaction::Done | Reaction::Gone) => Ok(()),
        other => Ok(other?),
    }
}
