//! What is to be done for a VSphereVM. Pure; the safety rules about machines live here.
//!
//! ```text
//!   claims -> addresses -> intent stored -> clone, powered off -> read (MAC, UUIDs) -> configuration delivered -> power on -> addresses -> ready
//!                 |                 |
//!                 |   unknown outcome: a running clone of the template that nobody else claims? wait. A machine of our name or UUID? ours (valid
//!                 |   marker): adopt; not ours: say so. Neither: clone (the name in its folder is the lock).
//!   deleting: running clone cancelled or awaited -> marker checked -> power off -> foreign disks detached -> destroy -> claims released -> finalizer
//! ```
//!
//! A machine that is gone is never made again: its Machine is to be replaced. A machine without our valid marker is never changed or destroyed.

use std::sync::Arc;
use std::time::Duration;

use api::conditions::{self, Severity, Status};
use api::infrastructure::{CloneMode, IdentityReference, NetworkStatus, ProvisioningMode, VSphereVM};
use api::ipam::IPAddressClaim;
use api::names::finalizers;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use runtime::defects::{Defect, Defects};
use runtime::reconcile::Wait;
use vsphere::spec::{CloneRequest, DataDisk, Delivery, check_size, clone_spec, is_delivered};
use vsphere::{
    ManagedObjectReference, Marker, Owner, Placement, Reaction, Seen, Task, TaskState, VSphereError, VirtualDevice, VirtualMachine,
    VirtualMachinePowerState, is_ours,
};

use super::intent::{self, Intent, SHOWS_WITHIN};
use super::network::{self, Claim};
use super::teardown;
use crate::edit::{has_finalizer, is_deleting};

/// The condition that tells how far the machine is, in the words of both generations.
pub const PROVISIONED: &str = "VirtualMachineProvisioned";
pub const LEGACY_PROVISIONED: &str = "VMProvisioned";
/// The condition that tells whether the addresses are there.
pub const ADDRESSES: &str = "IPAddressClaimsFulfilled";

/// Upstream's condition and word for a guest that was asked to shut down.
pub const SOFT_POWER_OFF: &str = "GuestSoftPowerOffSucceeded";
pub const SOFT_IN_PROGRESS: &str = "GuestSoftPowerOffInProgress";

/// Upstream's word for a machine that was there and is gone.
pub const VM_LOST: &str = "NotFoundByBIOSUUID";

/// How long after a failed task the next attempt comes, at least.
pub(super) const TASK_RETRY: Duration = Duration::from_secs(60);
/// How often an outcome that nothing tells of is looked up.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The default of memoryMiB, and the least of numCPUs.
const MEMORY_MIB: i64 = 2048;
const CPUS: i32 = 2;

/// What vCenter said about the machine's task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskLook {
    /// It does not remember it.
    Forgotten,
    Known(Box<Task>),
}

/// What vCenter said about the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MachineLook {
    /// No reference to it is known.
    #[default]
    Unknown,
    /// It was there and is not any more.
    Gone,
    /// Read whole.
    Read(Box<VirtualMachine>),
    /// As the watch shows it; enough for one that runs.
    Seen(Box<Seen>),
}

/// What was looked up in vCenter. What was not needed is empty.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// What stopped the look.
    pub error: Option<VSphereError>,
    /// Whether vCenter was asked at all.
    pub is_asked: bool,
    pub placement: Option<Arc<Placement>>,
    pub task: Option<TaskLook>,
    pub machine: MachineLook,
    /// The machines of our name in our folder, or of our instance UUID. None: not looked for.
    pub candidates: Option<Vec<VirtualMachine>>,
    /// Clones of the template that no other VSphereVM has recorded.
    pub clones: Vec<Task>,
    pub host_name: Option<String>,
}

impl Look {
    /// Whether the task that was in flight destroyed this very machine: no other look is needed to know that it is gone.
    pub(super) fn is_destroyed(&self, vm: &VSphereVM) -> bool {
        let Some(TaskLook::Known(task)) = &self.task else { return false };
        let is_done = task.what == "VirtualMachine.destroy" && matches!(task.state, TaskState::Succeeded(_));
        is_done && task.entity.is_some() && task.entity == vm_reference(vm)
    }
}

/// The machine's configuration.
#[derive(Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// The secret is not there, or has no value.
    Missing { secret: String },
    /// Its text: a secret.
    Data(String),
}

impl std::fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { secret } => write!(f, "Missing({secret})"),
            Self::Data(_) => f.write_str("Data"),
        }
    }
}

/// What is known when a VSphereVM is planned.
#[derive(Clone, Debug)]
pub struct Observed {
    pub vm: Arc<VSphereVM>,
    pub now: Timestamp,
    pub is_paused: bool,
    /// Whose machine it is, as stored with the intent; before, as its owners tell; none while these are not all there.
    pub owner: Option<Owner>,
    /// Who signs in, when the VSphereCluster tells.
    pub identity: Option<IdentityReference>,
    pub bootstrap: Bootstrap,
    /// The wanted claims.
    pub claims: Vec<Claim>,
    /// Every claim that the VSphereVM owns.
    pub owned_claims: Vec<Arc<IPAddressClaim>>,
    /// Why nobody can sign in, if so.
    pub identity_error: Option<String>,
    /// The Machine that has to leave etcd before its virtual machine may go; none when it has, or never was a member.
    pub member: Option<String>,
    /// The cluster's virtual address, when its endpoint is one.
    pub vip: Option<std::net::IpAddr>,
    pub look: Look,
    pub defects: Defects,
}

/// One outside effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    AddFinalizer,
    RemoveFinalizer,
    CreateClaim(Claim),
    /// Puts our finalizer on a claim: its address must not be released while the machine lives.
    ProtectClaim(ObjectMeta),
    /// Takes it off, and deletes the claim.
    ReleaseClaim(ObjectMeta),
    /// From now on a clone may exist.
    StoreIntent(Box<Intent>),
    Clone {
        placement: Arc<Placement>,
        request: Box<CloneRequest>,
    },
    /// Records the machine as ours; the task that made it is over.
    Adopt {
        machine: ManagedObjectReference,
    },
    StoreBiosUuid(String),
    /// The task is over (or unknown): nothing is in flight.
    ForgetTask {
        retry_after: Option<Timestamp>,
    },
    Deliver {
        machine: ManagedObjectReference,
        delivery: Box<Delivery>,
    },
    PowerOn {
        machine: ManagedObjectReference,
    },
    ShutDownGuest {
        machine: ManagedObjectReference,
    },
    PowerOff {
        machine: ManagedObjectReference,
    },
    Cancel {
        task: ManagedObjectReference,
    },
    /// Writes the marker with the instance UUID that vCenter gave, on a machine that our own clone task made.
    RewriteMarker {
        machine: ManagedObjectReference,
        marker: Marker,
    },
    Detach {
        machine: ManagedObjectReference,
        disks: Vec<VirtualDevice>,
    },
    Destroy {
        machine: ManagedObjectReference,
    },
}

impl PartialEq for Claim {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Where the machine stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Nothing new to tell.
    AsBefore,
    /// It runs and has its addresses.
    Provisioned,
    Not {
        reason: &'static str,
        severity: Severity,
        message: String,
    },
}

/// Whether the addresses are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claims {
    /// None is wanted.
    None,
    Fulfilled,
    Waiting {
        reason: &'static str,
        message: String,
    },
}

/// What to do, and where the machine stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub is_paused: bool,
    pub claims: Claims,
    pub stand: Stand,
    /// The cards, when they are known now.
    pub cards: Option<Vec<NetworkStatus>>,
    /// When to look again, if nothing wakes before.
    pub again: Option<Duration>,
    /// vCenter's error, to be told and retried.
    pub server_error: Option<VSphereError>,
}

impl Plan {
    pub(super) fn waits(&mut self, reason: &'static str, message: impl Into<String>) {
        self.stand = Stand::Not { reason, severity: Severity::Info, message: message.into() };
    }

    /// Whether a step of it starts a task in vCenter.
    pub(super) fn starts_task(&self) -> bool {
        let starts = |step: &Step| {
            matches!(
                step,
                Step::Clone { .. }
                    | Step::Deliver { .. }
                    | Step::PowerOn { .. }
                    | Step::PowerOff { .. }
                    | Step::RewriteMarker { .. }
                    | Step::Detach { .. }
                    | Step::Destroy { .. }
            )
        };
        self.steps.iter().any(starts)
    }

    pub(super) fn warns(&mut self, reason: &'static str, message: impl Into<String>) {
        self.stand = Stand::Not { reason, severity: Severity::Warning, message: message.into() };
    }
}

/// A wait for something that shows in the condition: since the machine was last provisioned, or its deletion was asked for.
pub(super) fn wait(observed: &Observed, on: impl Into<String>) -> Wait {
    let meta = &observed.vm.metadata;
    let known = observed.vm.status.as_ref().and_then(|status| conditions::get(&status.conditions, PROVISIONED));
    let transition = known.filter(|known| known.status != Status::True).map(|known| &known.last_transition_time);
    Wait::since_transition(on, meta.deletion_timestamp.as_ref().or(transition), observed.now)
}

/// A wait for what came of a clone that was not answered.
pub(super) fn wait_for_clone(observed: &Observed, on: impl Into<String>) -> Wait {
    let wait = wait(observed, on);
    match Intent::of(&observed.vm) {
        Some(intent) => Wait { since: intent.since, ..wait },
        None => wait,
    }
}

/// Decides.
pub fn plan(observed: &Observed) -> Plan {
    let mut plan = Plan {
        steps: Vec::new(),
        is_paused: observed.is_paused,
        claims: Claims::None,
        stand: Stand::AsBefore,
        cards: None,
        again: None,
        server_error: None,
    };
    if observed.is_paused {
        return plan;
    }
    if is_deleting(&observed.vm.metadata) {
        if has_finalizer(&observed.vm.metadata, finalizers::VSPHERE_VM) {
            teardown::deleting(observed, &mut plan);
            look_again(&mut plan);
        }
        return plan;
    }
    alive(observed, &mut plan);
    look_again(&mut plan);
    plan
}

/// A step that turned out to be needless starts no task, and nothing tells of it.
fn look_again(plan: &mut Plan) {
    let is_clone = |step: &Step| matches!(step, Step::Clone { .. });
    if plan.again.is_none() && plan.starts_task() && !plan.steps.iter().any(is_clone) {
        plan.again = Some(LOOK_AGAIN);
    }
}

/// The reference in `status.vmRef`, `VirtualMachine:vm-57`.
pub fn vm_reference(vm: &VSphereVM) -> Option<ManagedObjectReference> {
    let (kind, id) = vm.status.as_ref()?.vm_ref.as_deref()?.split_once(':')?;
    Some(ManagedObjectReference::new(kind, id))
}

/// The reference in `status.taskRef`, `task-59`.
pub fn task_reference(vm: &VSphereVM) -> Option<ManagedObjectReference> {
    let id = vm.status.as_ref()?.task_ref.as_deref().filter(|id| !id.is_empty())?;
    Some(ManagedObjectReference::new("Task", id))
}

/// Whether a clone may have been sent: its intent is stored, and nothing that came of it is known.
pub fn is_outcome_unknown(vm: &VSphereVM) -> bool {
    intent::is_stored(vm) && vm_reference(vm).is_none() && task_reference(vm).is_none()
}

/// Whether nothing was ever asked of vCenter for this object.
pub fn is_untouched(vm: &VSphereVM) -> bool {
    !intent::is_stored(vm) && vm_reference(vm).is_none() && task_reference(vm).is_none() && vm.spec.bios_uuid.is_none()
}

/// The instance UUID that is asked for: the object's own uid, and what was asked for once ever after.
pub fn instance_uuid(vm: &VSphereVM) -> String {
    Intent::of(vm).map_or_else(|| vm.metadata.uid.clone().unwrap_or_default().to_ascii_lowercase(), |intent| intent.instance)
}

/// For how long yet finding nothing proves nothing: what was asked for a moment ago may not show.
pub(super) fn unsettled(observed: &Observed) -> Option<Duration> {
    let intent = Intent::of(&observed.vm)?;
    let passed = Duration::try_from(observed.now.duration_since(intent.since)).unwrap_or_default();
    Some(SHOWS_WITHIN.saturating_sub(passed)).filter(|left| !left.is_zero())
}

/// The wait that [`unsettled`] asks for.
pub(super) fn unanswered(observed: &Observed) -> String {
    let on = format!("a clone to show that was asked for and not answered: {}", name(&observed.vm));
    wait_for_clone(observed, on).limit(SHOWS_WITHIN).to_string()
}

pub(super) fn name(vm: &VSphereVM) -> &str {
    vm.metadata.name.as_deref().unwrap_or_default()
}

fn alive(observed: &Observed, plan: &mut Plan) {
    let vm = &observed.vm;
    if !has_finalizer(&vm.metadata, finalizers::VSPHERE_VM) {
        plan.steps.push(Step::AddFinalizer);
    }
    if !claims(observed, plan) {
        return;
    }
    if let Some(message) = &observed.identity_error {
        plan.warns("WaitingForCredentials", message.clone());
        return;
    }
    if observed.owner.is_none() {
        plan.waits("WaitingForOwner", wait(observed, "the Machine and the Cluster that this machine belongs to").to_string());
        return;
    }
    if server_error(observed, plan) || task(observed, plan) || pause(observed, plan) {
        return;
    }
    match &observed.look.machine {
        MachineLook::Gone => gone(vm, plan),
        MachineLook::Read(machine) => present(observed, machine, plan),
        MachineLook::Seen(seen) => {
            if let Some(question) = &seen.question {
                plan.warns("WaitingForAnswer", asked(question));
                return;
            }
            let macs: Vec<String> = vm.status.iter().flat_map(|status| &status.network).map(|card| card.mac_addr.clone()).collect();
            running(observed, &macs, &seen.guest, plan);
        }
        MachineLook::Unknown => absent(observed, plan),
    }
}

fn gone(vm: &VSphereVM, plan: &mut Plan) {
    let reference = vm_reference(vm).map(|reference| format!(" ({})", reference.id)).unwrap_or_default();
    let message = format!(
        "virtual machine {}{reference} no longer exists in vCenter; it is not made again: delete its Machine to have it replaced",
        name(vm)
    );
    plan.warns(VM_LOST, message);
}

/// Sees to the claims. Whether all of them have their address.
fn claims(observed: &Observed, plan: &mut Plan) -> bool {
    if observed.claims.is_empty() {
        return true;
    }
    for claim in &observed.claims {
        match &claim.claim {
            None => plan.steps.push(Step::CreateClaim(claim.clone())),
            Some(known) if !has_finalizer(&known.metadata, finalizers::IP_CLAIM_PROTECTION) && !is_deleting(&known.metadata) => {
                plan.steps.push(Step::ProtectClaim(known.metadata.clone()));
            }
            Some(_) => {}
        }
    }
    let waiting: Vec<String> = observed.claims.iter().filter(|claim| claim.address.is_none()).map(told).collect();
    if waiting.is_empty() {
        plan.claims = Claims::Fulfilled;
        return true;
    }
    let is_made = observed.claims.iter().all(|claim| claim.claim.is_some());
    let reason = if is_made { "WaitingForIPAddress" } else { "IPAddressClaimsBeingCreated" };
    let known = observed.vm.status.as_ref().and_then(|status| conditions::get(&status.conditions, ADDRESSES));
    let since = known.filter(|known| known.status != Status::True).map(|known| &known.last_transition_time);
    let message = Wait::since_transition(format!("addresses: {}", waiting.join("; ")), since, observed.now).to_string();
    plan.claims = Claims::Waiting { reason, message: message.clone() };
    if is_untouched(&observed.vm) {
        plan.waits("WaitingForStaticIPAllocation", message);
    }
    false
}

/// A claim that has no address, and why, if its pool says.
fn told(claim: &Claim) -> String {
    let status = claim.claim.as_ref().and_then(|claim| claim.status.as_ref());
    let condition = status.and_then(|status| conditions::get(&status.conditions, "Ready"));
    let why = condition.filter(|condition| !condition.message.is_empty()).map(|condition| format!(" ({})", condition.message));
    format!("{} from {} {}{}", claim.name, claim.pool.kind, claim.pool.name, why.unwrap_or_default())
}

/// Whether vCenter's error stops the pass.
pub(super) fn server_error(observed: &Observed, plan: &mut Plan) -> bool {
    let Some(error) = &observed.look.error else { return false };
    plan.server_error = Some(error.clone());
    plan.again = error.reaction().delay();
    if !error.is_about_server() {
        if matches!(error, VSphereError::Missing { .. } | VSphereError::Ambiguous { .. }) {
            // What is missing may be made by a person at any time; nothing tells.
            plan.again = Some(TASK_RETRY);
        }
        plan.warns("CloningFailed", error.to_string());
    }
    true
}

/// Sees to the task. Whether the pass ends here.
pub(super) fn task(observed: &Observed, plan: &mut Plan) -> bool {
    let vm = &observed.vm;
    let (Some(reference), Some(look)) = (task_reference(vm), &observed.look.task) else { return false };
    let has_machine = vm_reference(vm).is_some();
    match look {
        TaskLook::Forgotten => {
            plan.steps.push(Step::ForgetTask { retry_after: None });
            plan.again = Some(Duration::ZERO);
            true
        }
        TaskLook::Known(task) => match &task.state {
            TaskState::Running => {
                let since = task.queued.strftime("%T");
                let (reason, doing) = match task.what.as_str() {
                    "VirtualMachine.powerOn" => ("PoweringOn", "to be powered on"),
                    "VirtualMachine.clone" => ("Cloning", "to be cloned"),
                    _ if has_machine => ("PoweringOn", "to be configured"),
                    _ => ("Cloning", "to be cloned"),
                };
                if !is_told(vm, reason, &reference) {
                    plan.waits(reason, format!("waiting for {} {doing} since {since} ({})", name(vm), reference.id));
                }
                plan.again = ask_again(task);
                true
            }
            TaskState::Succeeded(Some(machine)) if !has_machine && machine.kind == "VirtualMachine" => {
                plan.steps.push(Step::Adopt { machine: machine.clone() });
                true
            }
            TaskState::Succeeded(_) => {
                let delivered = vm_reference(vm).filter(|_| task.what == "VirtualMachine.reconfigure" && !is_deleting(&vm.metadata));
                if let Some(machine) = delivered {
                    // The only reconfiguration of a machine that is to live is the delivery of its configuration.
                    plan.waits("PoweringOn", format!("powering on {} ({})", name(vm), machine.id));
                    plan.steps.push(Step::PowerOn { machine });
                    return true;
                }
                plan.steps.push(Step::ForgetTask { retry_after: None });
                // Where the machine was looked at as well, the pass goes on with it.
                observed.look.machine == MachineLook::Unknown
            }
            TaskState::Failed(report) if report.reaction() == Reaction::Done => {
                plan.steps.push(Step::ForgetTask { retry_after: None });
                true
            }
            TaskState::Failed(report) => {
                let delay =
                    if report.reaction() == Reaction::Duplicate { LOOK_AGAIN } else { report.reaction().delay().unwrap_or(TASK_RETRY) };
                let retry_after = SignedDuration::try_from(delay).ok().and_then(|delay| observed.now.checked_add(delay).ok());
                plan.steps.push(Step::ForgetTask { retry_after });
                plan.again = Some(delay);
                let reason = match task.what.as_str() {
                    "VirtualMachine.powerOn" => "PoweringOnFailed",
                    _ if has_machine => "TaskFailure",
                    _ => "CloningFailed",
                };
                let error = VSphereError::Fault { action: format!("{} of {}", task.what, name(vm)), fault: report.clone() };
                plan.warns(reason, format!("{error} ({}){}", reference.id, until(retry_after)));
                true
            }
        },
    }
}

/// Whether the condition tells of this task, in these words.
pub(super) fn is_told(vm: &VSphereVM, reason: &str, task: &ManagedObjectReference) -> bool {
    let known = vm.status.as_ref().and_then(|status| conditions::get(&status.conditions, PROVISIONED));
    known.is_some_and(|known| known.reason == reason && known.message.ends_with(&format!("({})", task.id)))
}

/// When to ask about a running task, if nothing tells of its end.
pub(super) fn ask_again(task: &Task) -> Option<Duration> {
    (!task.is_followed).then_some(LOOK_AGAIN)
}

/// When a failure is followed by the next attempt, as the end of a message.
pub(super) fn until(retry_after: Option<Timestamp>) -> String {
    retry_after.map(|at| format!("; next attempt at {}", at.strftime("%T"))).unwrap_or_default()
}

/// Whether a failed task is to rest for some time yet.
pub(super) fn pause(observed: &Observed, plan: &mut Plan) -> bool {
    let until = observed.vm.status.as_ref().and_then(|status| status.retry_after.as_ref()).map(|time| time.0);
    let left = until.and_then(|until| Duration::try_from(until.duration_since(observed.now)).ok()).filter(|left| !left.is_zero());
    plan.again = left;
    left.is_some()
}

fn asked(question: &str) -> String {
    format!("the machine waits for an answer in vCenter: {question}")
}

/// The machine is there and was read.
fn present(observed: &Observed, machine: &VirtualMachine, plan: &mut Plan) {
    let vm = &observed.vm;
    if vm.spec.bios_uuid.is_none() && !machine.bios_uuid.is_empty() {
        plan.steps.push(Step::StoreBiosUuid(machine.bios_uuid.clone()));
    }
    let macs = network::macs(machine);
    if machine.is_out_of_reach() {
        plan.warns(
            "NotReachable",
            format!("virtual machine {} is {} in vCenter: its host or its datastore is out of reach", name(vm), machine.connection),
        );
        plan.again = Some(TASK_RETRY);
        return;
    }
    if let Some(question) = &machine.question {
        plan.warns("WaitingForAnswer", asked(question));
        return;
    }
    if machine.power == VirtualMachinePowerState::PoweredOn {
        running(observed, &macs, &machine.guest, plan);
        return;
    }
    plan.cards = Some(network::cards(vm, &observed.claims, &macs, &machine.guest, observed.vip));
    if machine.bios_uuid.is_empty() || macs.len() < vm.spec.clone.network.devices.len() || macs.iter().any(String::is_empty) {
        plan.waits("Cloning", wait(observed, format!("vCenter to tell UUID and MAC addresses of {}", machine.reference.id)).to_string());
        plan.again = Some(Duration::from_secs(2));
        return;
    }
    match delivery(observed, machine, &macs) {
        Err(why) => plan.warns("CloningFailed", why),
        Ok(None) => plan.waits("WaitingForBootstrapData", waiting_for_data(observed)),
        Ok(Some(delivery)) if is_delivered(&delivery, &machine.extra_config) => {
            plan.steps.push(Step::PowerOn { machine: machine.reference.clone() });
            plan.waits("PoweringOn", format!("powering on {} ({})", name(vm), machine.reference.id));
        }
        Ok(Some(delivery)) => {
            plan.steps.push(Step::Deliver { machine: machine.reference.clone(), delivery: Box::new(delivery) });
            plan.waits("PoweringOn", format!("handing {} ({}) its configuration", name(vm), machine.reference.id));
        }
    }
}

fn waiting_for_data(observed: &Observed) -> String {
    match &observed.bootstrap {
        Bootstrap::Missing { secret } => wait(observed, format!("secret {secret} with the machine configuration")).to_string(),
        Bootstrap::Data(_) => String::new(),
    }
}

fn delivery(observed: &Observed, machine: &VirtualMachine, macs: &[String]) -> Result<Option<Delivery>, String> {
    let (Some(owner), Bootstrap::Data(config)) = (&observed.owner, &observed.bootstrap) else { return Ok(None) };
    let userdata = network::userdata(config, &observed.vm, &observed.claims, macs).map_err(|error| error.to_string())?;
    check_size(userdata.len()).map_err(|error| error.to_string())?;
    // What was recorded at the first delivery stays: disks that were attached since are not ours.
    let disks = machine.extra_config.get(vsphere::marker::DISKS_KEY).filter(|text| !text.is_empty()).cloned();
    Ok(Some(Delivery {
        marker: Marker::new(owner.clone(), &machine.instance_uuid),
        disks: disks.unwrap_or_else(|| machine.own_disks()),
        metadata: network::metadata(&observed.vm, &observed.claims, macs),
        userdata,
    }))
}

/// The machine runs.
fn running(observed: &Observed, macs: &[String], guest: &vsphere::GuestState, plan: &mut Plan) {
    let vm = &observed.vm;
    let cards = network::cards(vm, &observed.claims, macs, guest, observed.vip);
    let lacking = network::without_address(vm, &cards);
    let has_any = cards.iter().any(|card| !card.ip_addrs.is_empty());
    if lacking.is_empty() && (has_any || cards.is_empty()) {
        plan.stand = Stand::Provisioned;
    } else {
        let on = format!(
            "VMware tools to report an address on {} (no address was given beforehand, so they are the only source: is the vmtoolsd extension in the image, and does DHCP answer?)",
            lacking.join(", ")
        );
        plan.waits("WaitingForIPAllocation", wait(observed, on).to_string());
    }
    plan.cards = Some(cards);
}

/// Nothing that belongs to this object is known.
fn absent(observed: &Observed, plan: &mut Plan) {
    let (Some(placement), Some(candidates), Some(owner)) = (&observed.look.placement, &observed.look.candidates, &observed.owner) else {
        return;
    };
    let vm = &observed.vm;
    let is_afresh = observed.defects.has(Defect::CloneAfresh) && is_outcome_unknown(vm);
    if !is_afresh {
        if observed.look.clones.iter().any(|task| !task.is_over()) {
            let on = format!("a running clone of {} whose outcome is not known yet", placement.template.path);
            plan.waits("Cloning", wait_for_clone(observed, on).to_string());
            plan.again = Some(LOOK_AGAIN);
            return;
        }
        if let Some(ours) = candidates.iter().find(|candidate| is_provably_ours(observed, candidate, owner)) {
            plan.steps.push(Step::Adopt { machine: ours.reference.clone() });
            plan.waits("Cloning", format!("{} is there already as {}", name(vm), ours.reference.id));
            return;
        }
        if let Some(foreign) = candidates.iter().find(|candidate| candidate.name == name(vm)) {
            let message = format!(
                "{}/{} exists ({}) and was not made for this Machine (no valid ownership marker): it is left alone; rename or remove it, or delete the Machine",
                placement.folder_path, foreign.name, foreign.reference.id
            );
            plan.warns("CloningFailed", message);
            plan.again = Some(TASK_RETRY);
            return;
        }
        if vm.spec.bios_uuid.is_some() {
            return gone(vm, plan);
        }
        if let Some(left) = unsettled(observed).filter(|_| is_outcome_unknown(vm)) {
            plan.waits("Cloning", unanswered(observed));
            plan.again = Some(left);
            return;
        }
    }
    let Bootstrap::Data(config) = &observed.bootstrap else {
        plan.waits("WaitingForBootstrapData", waiting_for_data(observed));
        return;
    };
    let size = network::userdata(config, vm, &observed.claims, &network::placeholder_macs(vm)).map(|text| text.len());
    let checked = size.map_err(|error| error.to_string()).and_then(|size| check_size(size).map_err(|error| error.to_string()));
    if let Err(why) = checked {
        plan.warns("CloningFailed", why);
        return;
    }
    let request = request(observed, owner, is_afresh);
    if let Err(error) = clone_spec(&request, placement) {
        plan.again = error.reaction().delay();
        plan.warns("CloningFailed", error.to_string());
        return;
    }
    plan.waits("Cloning", format!("cloning {} from {} into {}", request.name, placement.template.path, placement.folder_path));
    let intent = Intent::new(vm, &request.instance_uuid, owner, placement, observed.identity.clone(), observed.now);
    plan.steps.push(Step::StoreIntent(Box::new(intent)));
    plan.steps.push(Step::Clone { placement: placement.clone(), request: Box::new(request) });
}

/// By its marker; or, when vCenter gave it another instance UUID than the one asked for, by the clone task that made it.
pub(super) fn is_provably_ours(observed: &Observed, candidate: &VirtualMachine, owner: &Owner) -> bool {
    if is_ours(&candidate.extra_config, &candidate.instance_uuid, owner) {
        return true;
    }
    let is_made = observed.look.clones.iter().any(|task| task.state == TaskState::Succeeded(Some(candidate.reference.clone())));
    is_meant(observed, candidate, owner) && is_made
}

/// Whether it has our name, and the marker that we asked for.
pub(super) fn is_meant(observed: &Observed, candidate: &VirtualMachine, owner: &Owner) -> bool {
    let marker = Marker::read(&candidate.extra_config);
    let is_asked = marker.is_some_and(|marker| marker.owner == *owner && marker.is_valid_for(&instance_uuid(&observed.vm)));
    candidate.name == name(&observed.vm) && is_asked
}

fn request(observed: &Observed, owner: &Owner, is_afresh: bool) -> CloneRequest {
    let vm = &observed.vm;
    let spec = &vm.spec.clone;
    let uuid = if is_afresh { uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name(vm).as_bytes()).to_string() } else { instance_uuid(vm) };
    let marker = Marker::new(owner.clone(), &uuid);
    CloneRequest {
        name: if is_afresh { format!("{}-again", name(vm)) } else { name(vm).to_owned() },
        marker: (!observed.defects.has(Defect::CloneWithoutMarker)).then_some(marker),
        instance_uuid: uuid,
        is_linked: spec.clone_mode.unwrap_or_default() == CloneMode::LinkedClone,
        cpus: spec.num_cpus.unwrap_or(CPUS).max(CPUS),
        cores_per_socket: spec.num_cores_per_socket.filter(|cores| *cores > 0),
        memory_mib: spec.memory_mib.filter(|memory| *memory > 0).unwrap_or(MEMORY_MIB),
        disk_gib: spec.disk_gib,
        additional_disks_gib: spec.additional_disks_gib.clone(),
        data_disks: spec.data_disks.iter().map(data_disk).collect(),
        is_nested: spec.nested_hv,
        macs: spec.network.devices.iter().map(|card| card.mac_addr.clone().filter(|mac| !mac.is_empty())).collect(),
        extra_config: spec.custom_vmx_keys.clone(),
    }
}

fn data_disk(disk: &api::infrastructure::DataDisk) -> DataDisk {
    DataDisk {
        gib: disk.size_gib,
        is_thin: disk.provisioning_mode.map(|mode| mode == ProvisioningMode::Thin),
        is_eager: disk.provisioning_mode == Some(ProvisioningMode::EagerlyZeroed),
    }
}

/// The settings of a machine that are kept but have no effect yet: each is told, none is passed over in silence.
pub fn without_effect(vm: &VSphereVM) -> Vec<String> {
    let spec = &vm.spec.clone;
    let settings = [
        ("storagePolicyName", spec.storage_policy_name.as_ref().is_some_and(|name| !name.is_empty())),
        ("tagIDs", !spec.tag_ids.is_empty()),
        ("pciDevices", !spec.pci_devices.is_empty()),
        ("hardwareVersion", spec.hardware_version.is_some()),
        ("resources", spec.resources != api::infrastructure::ResourceAllocation::default()),
        ("cryptoProfile", spec.crypto_profile.is_some() || spec.crypto_key_id.is_some()),
        ("migrateEncryption", spec.migrate_encryption.is_some()),
        ("ftEncryptionMode", spec.ft_encryption_mode.is_some()),
    ];
    settings.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| format!("{name} has no effect: it is not carried out yet")).collect()
}
