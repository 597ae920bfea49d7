//! Carries out a VSphereVM's steps: claims through the API, the rest through vCenter. Never decides.
//!
//! Every step that starts a task records it at once, in one write with what the pass tells. A step whose answer is lost fails with an error that says so; the next pass looks at the world. Only the clone
//! could do harm when carried out twice, and its intent stands in an annotation before the call.

use std::sync::Arc;

use api::infrastructure::{VSphereVM, VSphereVMStatus};
use api::ipam::{IPAddressClaim, IPAddressClaimSpec};
use api::names::{annotations, finalizers, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::api::PropagationPolicy;
use runtime::reconcile::{ApiError, EventType, ObjectKey, Recorder, Store};
use serde_json::{Map, Value, json};
use thiserror::Error;
use vsphere::spec::{delivery_spec, detach_spec, marker_spec};
use vsphere::{ManagedObjectReference, Reaction, VCenter, VSphereError};

use super::network::Claim;
use super::plan::{Observed, Plan, Step, task_reference, without_effect};
use super::status;
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

/// What a step leaves in the status for the next passes to go by.
#[derive(Debug, Default)]
struct Record {
    /// The machine, when it becomes known now.
    machine: Option<String>,
    task: Option<String>,
    retry_after: Option<Time>,
}

impl Record {
    fn put(&self, status: &mut VSphereVMStatus) {
        if let Some(machine) = &self.machine {
            status.vm_ref = Some(machine.clone());
        }
        status.task_ref.clone_from(&self.task);
        status.retry_after.clone_from(&self.retry_after);
    }

    fn fields(&self) -> Map<String, Value> {
        let machine = self.machine.iter().map(|machine| ("vmRef", json!(machine)));
        let others = [("taskRef", json!(self.task)), ("retryAfter", json!(self.retry_after))];
        machine.chain(others).map(|(name, value)| (name.to_owned(), value)).collect()
    }
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
    /// Carries out one step of a plan; twice is as once.
    ///
    /// # Errors
    /// As the API and vCenter answer.
    pub async fn step(&self, observed: &Observed, plan: &Plan, step: &Step, vcenter: Option<&dyn VCenter>) -> Result<(), StepError> {
        let key = ObjectKey::of(&observed.vm.metadata);
        let result = self.carry_out(observed, plan, step, vcenter).await;
        let object = format_args!("VSphereVM {key}");
        match &result {
            Ok(()) => self.wiring.log.record("vspherevm", step.word(), object, "ok"),
            Err(error) => self.wiring.log.record("vspherevm", step.word(), object, format_args!("failed: {error}")),
        }
        result
    }

    async fn carry_out(&self, observed: &Observed, plan: &Plan, step: &Step, vcenter: Option<&dyn VCenter>) -> Result<(), StepError> {
        let record = |record: Record| self.record(observed, plan, record);
        let vm = self.latest(observed);
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
                record(Record { task: Some(task.id), ..Record::default() }).await?;
                let sizes = remarks.into_iter().map(|remark| ("DiskSizeIgnored", remark));
                for (reason, remark) in sizes.chain(without_effect(&vm).into_iter().map(|remark| ("SettingIgnored", remark))) {
                    self.recorder.event(&vm.object_ref(&()), EventType::Warning, reason, remark);
                }
            }
            Step::Adopt { machine } => {
                record(Record { machine: Some(machine.to_string()), ..Record::default() }).await?;
            }
            Step::StoreBiosUuid(uuid) => drop(Edit::of(&vm.metadata).spec("biosUUID", json!(uuid)).apply(&self.store).await?),
            Step::ForgetTask { retry_after } => {
                record(Record { retry_after: retry_after.map(Time), ..Record::default() }).await?;
            }
            Step::Deliver { machine, delivery } => {
                let task = server()?.reconfigure(machine, delivery_spec(delivery)).await;
                self.follow(observed, plan, task).await?;
            }
            Step::PowerOn { machine } => {
                let task = server()?.power_on(machine).await;
                self.follow(observed, plan, task).await?;
            }
            Step::ShutDownGuest { machine } => done(server()?.shut_down_guest(machine).await)?,
            Step::PowerOff { machine } => {
                let task = server()?.power_off(machine).await;
                self.follow(observed, plan, task).await?;
            }
            Step::Cancel { task } => match server()?.cancel(task).await {
                // It has ended, or cannot be stopped: its end is awaited.
                Err(error) if error.is_about_server() => return Err(error.into()),
                Err(_) | Ok(()) => {}
            },
            Step::RewriteMarker { machine, marker } => {
                let task = server()?.reconfigure(machine, marker_spec(marker)).await;
                self.follow(observed, plan, task).await?;
            }
            Step::Detach { machine, disks } => {
                let task = server()?.reconfigure(machine, detach_spec(disks.clone())).await;
                self.follow(observed, plan, task).await?;
            }
            Step::Destroy { machine } => {
                let task = server()?.destroy(machine).await;
                self.follow(observed, plan, task).await?;
            }
        }
        Ok(())
    }

    /// Records the task of a call. What was so already, and what is gone, shows in the next pass; the task before it is over then, and nothing would tell of it any more.
    async fn follow(&self, observed: &Observed, plan: &Plan, task: Result<ManagedObjectReference, VSphereError>) -> Result<(), StepError> {
        match task {
            Ok(task) => self.record(observed, plan, Record { task: Some(task.id), ..Record::default() }).await,
            Err(error) => {
                done(Err(error))?;
                if task_reference(&self.latest(observed)).is_some() {
                    self.record(observed, plan, Record::default()).await?;
                }
                Ok(())
            }
        }
    }

    /// The object as an earlier step left it.
    fn latest(&self, observed: &Observed) -> Arc<VSphereVM> {
        self.store.get(&ObjectKey::of(&observed.vm.metadata)).unwrap_or_else(|| Arc::clone(&observed.vm))
    }

    /// Records what a step did, and tells in the same write what its pass comes to.
    async fn record(&self, observed: &Observed, plan: &Plan, record: Record) -> Result<(), StepError> {
        let vm = self.latest(observed);
        let mut recorded = (*vm).clone();
        // Never of a later object of the same name.
        recorded.metadata.uid.clone_from(&observed.vm.metadata.uid);
        record.put(recorded.status.get_or_insert_default());
        let recorded = Arc::new(recorded);
        let new = status::status(&Observed { vm: Arc::clone(&recorded), ..observed.clone() }, plan, None);
        let written = crate::status::record(&self.store, &*recorded, vm.status.as_ref(), &new, record.fields()).await?;
        if written.is_some() {
            self.announce(&vm, &new);
        }
        Ok(())
    }

    /// Tells what a pass came to.
    ///
    /// # Errors
    /// As the API answers.
    pub async fn tell(&self, vm: &VSphereVM, new: &VSphereVMStatus) -> Result<(), ApiError> {
        if crate::status::patch(&self.store, vm, vm.status.as_ref(), new).await?.is_some() {
            self.announce(vm, new);
        }
        Ok(())
    }

    /// The event of a machine that stands elsewhere than it did.
    fn announce(&self, vm: &VSphereVM, new: &VSphereVMStatus) {
        if let Some((event_type, reason, message)) = status::event(vm, new) {
            self.recorder.event(&vm.object_ref(&()), event_type, &reason, message);
        }
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
