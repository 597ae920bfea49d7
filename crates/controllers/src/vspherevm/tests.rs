//! The plan of a VSphereVM, branch by branch.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::conditions;
use api::infrastructure::{CloneMode, IdentityKind, IdentityReference, NetworkDevice, PowerOffMode, VSphereVM};
use api::ipam::{IPAddress, IPAddressClaim};
use api::meta::ContractReference;
use api::names::annotations::CLONE_INTENT;
use api::names::finalizers;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use runtime::defects::Defects;
use vsphere::device::{DISK, FirstClassDiskId, VMXNET3};
use vsphere::{
    DeviceBacking, FaultReport, GuestState, ManagedObjectReference, Marker, Network, Owner, Placement, Task, TaskState, Template,
    VSphereError, VirtualDevice, VirtualMachine, VirtualMachinePowerState,
};

use super::intent::{Intent, SHOWS_WITHIN};
use super::network::wanted_claims;
use super::plan::{
    Bootstrap, Claims, LEGACY_PROVISIONED, LOOK_AGAIN, Look, MachineLook, Observed, PROVISIONED, Plan, SOFT_IN_PROGRESS, SOFT_POWER_OFF,
    Stand, Step, TaskLook, instance_uuid, is_outcome_unknown, is_untouched, plan,
};
use super::status;

const UID: &str = "faf10879-cfb6-4a1d-bf41-584509fc0bcb";
const OTHER_UUID: &str = "0a0a0a0a-cfb6-4a1d-bf41-584509fc0bcb";
const CONFIG: &str = "version: v1alpha1\nmachine:\n  type: worker\n";

pub(super) fn reference(kind: &str, id: &str) -> ManagedObjectReference {
    ManagedObjectReference::new(kind, id)
}

pub(super) fn owner() -> Owner {
    Owner { installation: "i".to_owned(), cluster: "c".to_owned(), machine: "m".to_owned() }
}

fn now() -> Timestamp {
    "2026-03-01T08:00:00Z".parse().unwrap()
}

fn template() -> Template {
    Template {
        reference: reference("VirtualMachine", "vm-1"),
        path: "/dc1/vm/talos".to_owned(),
        snapshot: Some(reference("VirtualMachineSnapshot", "snapshot-1")),
        wanted_snapshot: None,
        devices: Vec::new(),
    }
}

pub(super) fn placement() -> Placement {
    Placement {
        datacenter: reference("Datacenter", "dc"),
        datacenter_name: "dc1".to_owned(),
        folder: reference("Folder", "group-v1"),
        folder_path: "/dc1/vm/lab".to_owned(),
        pool: reference("ResourcePool", "resgroup-1"),
        datastore: None,
        template: template(),
        networks: vec![Network { name: "VM Network".to_owned(), backing: DeviceBacking::network("VM Network") }],
    }
}

#[test]
fn a_member_of_etcd_does_not_go_before_it_has_left() {
    let member = Observed { member: Some("node".to_owned()), ..observed().recorded(machine()).deleting() };
    let planned = plan(&member);
    assert_eq!(planned.steps, []);
    let told = super::status::status(&member, &planned, None);
    let condition = conditions::get(&told.conditions, PROVISIONED).unwrap();
    assert!(condition.message.contains("Machine node to leave etcd"), "{condition:?}");
    assert_ne!(plan(&Observed { member: None, ..member }).steps, []);
    // What never had a virtual machine takes nothing from etcd.
    let early = Observed { member: Some("node".to_owned()), ..observed().deleting() };
    assert!(plan(&early).steps.contains(&Step::RemoveFinalizer));
}

fn vm() -> VSphereVM {
    let mut vm = VSphereVM::default();
    vm.metadata.name = Some("node".to_owned());
    vm.metadata.uid = Some(UID.to_owned());
    vm.metadata.finalizers = Some(vec![finalizers::VSPHERE_VM.to_owned()]);
    let pool = ContractReference { name: "pool".to_owned(), kind: "InClusterIPPool".to_owned(), ..ContractReference::default() };
    let card = NetworkDevice { network_name: "VM Network".to_owned(), addresses_from_pools: vec![pool], ..NetworkDevice::default() };
    vm.spec.clone.network.devices = vec![card];
    vm
}

/// Nothing of the machine exists; its address is there, and vCenter was asked.
pub(super) fn observed() -> Observed {
    let vm = vm();
    let mut claims = wanted_claims(&vm);
    let mut claim = IPAddressClaim::default();
    claim.metadata.finalizers = Some(vec![finalizers::IP_CLAIM_PROTECTION.to_owned()]);
    let mut address = IPAddress::default();
    address.spec.address = "10.0.0.20".to_owned();
    address.spec.prefix = Some(24);
    claims[0].claim = Some(Arc::new(claim));
    claims[0].address = Some(Arc::new(address));
    Observed {
        vm: Arc::new(vm),
        now: now(),
        is_paused: false,
        owner: Some(owner()),
        identity: None,
        bootstrap: Bootstrap::Data(CONFIG.to_owned()),
        claims,
        owned_claims: Vec::new(),
        identity_error: None,
        member: None,
        vip: None,
        look: Look { is_asked: true, placement: Some(Arc::new(placement())), candidates: Some(Vec::new()), ..Look::default() },
        defects: Defects::none(),
    }
}

impl Observed {
    fn with(mut self, change: impl FnOnce(&mut VSphereVM)) -> Self {
        change(Arc::make_mut(&mut self.vm));
        self
    }

    fn look(mut self, change: impl FnOnce(&mut Look)) -> Self {
        change(&mut self.look);
        self
    }

    /// The machine is recorded and was read.
    fn recorded(self, machine: VirtualMachine) -> Self {
        let id = machine.reference.to_string();
        self.with(|vm| vm.status.get_or_insert_default().vm_ref = Some(id)).look(|look| look.machine = MachineLook::Read(Box::new(machine)))
    }

    fn deleting(self) -> Self {
        self.with(|vm| vm.metadata.deletion_timestamp = Some(Time(now())))
    }

    /// The intent of a clone is stored, and nothing else.
    fn intended(self) -> Self {
        self.with(|vm| {
            let since = now() - SHOWS_WITHIN;
            let intent = Intent::new(vm, UID, &owner(), &placement(), None, since);
            vm.metadata.annotations.get_or_insert_default().insert(CLONE_INTENT.to_owned(), intent.text());
        })
    }

    /// An intent that a person made unreadable.
    fn spoilt(self) -> Self {
        self.with(|vm| drop(vm.metadata.annotations.get_or_insert_default().insert(CLONE_INTENT.to_owned(), "{".to_owned())))
    }

    /// The condition tells this reason.
    fn told(self, reason: &'static str) -> Self {
        self.with(|vm| {
            let list = &mut vm.status.get_or_insert_default().conditions;
            conditions::set(list, conditions::new(PROVISIONED, false, reason, "it"), None, now());
        })
    }

    fn task(self, what: &str, state: TaskState) -> Self {
        let task = task(what, state);
        self.with(|vm| vm.status.get_or_insert_default().task_ref = Some("task-1".to_owned()))
            .look(|look| look.task = Some(TaskLook::Known(Box::new(task))))
    }
}

pub(super) fn task(what: &str, state: TaskState) -> Task {
    Task {
        reference: reference("Task", "task-1"),
        what: what.to_owned(),
        entity: None,
        state,
        progress: None,
        is_cancelled: false,
        queued: now(),
        is_followed: true,
    }
}

/// A machine with a valid marker, powered off.
pub(super) fn machine() -> VirtualMachine {
    let mut card = VirtualDevice::new(VMXNET3, 4000);
    card.mac_address = Some("00:50:56:00:00:01".to_owned());
    let marker = Marker::new(owner(), UID);
    VirtualMachine {
        reference: reference("VirtualMachine", "vm-57"),
        name: "node".to_owned(),
        folder: None,
        is_template: false,
        instance_uuid: UID.to_owned(),
        bios_uuid: "b95b13fa-dd72-5777-8b59-51ecae5d0371".to_owned(),
        power: VirtualMachinePowerState::PoweredOff,
        connection: "connected".to_owned(),
        vmx_path: "[ds] node/node.vmx".to_owned(),
        devices: vec![card],
        extra_config: settings(&marker),
        host: None,
        guest: GuestState::default(),
        question: None,
    }
}

pub(super) fn settings(marker: &Marker) -> BTreeMap<String, String> {
    marker.options().into_iter().map(|option| (option.key, option.value.text().unwrap().to_owned())).collect()
}

fn running() -> VirtualMachine {
    VirtualMachine { power: VirtualMachinePowerState::PoweredOn, ..machine() }
}

fn words(plan: &Plan) -> Vec<&'static str> {
    plan.steps.iter().map(Step::word).collect()
}

fn reason(plan: &Plan) -> &'static str {
    match &plan.stand {
        Stand::Not { reason, .. } => reason,
        Stand::Provisioned => "Provisioned",
        Stand::AsBefore => "AsBefore",
    }
}

fn message(plan: &Plan) -> &str {
    match &plan.stand {
        Stand::Not { message, .. } => message,
        Stand::Provisioned | Stand::AsBefore => "",
    }
}

pub(super) fn report(kind: &str) -> Box<FaultReport> {
    Box::new(FaultReport { kind: kind.to_owned(), message: "no".to_owned(), details: Vec::new(), object: None, causes: Vec::new() })
}

/// Name of the case, what is observed, the steps, the reason told.
type Case = (&'static str, Observed, &'static [&'static str], &'static str);

fn check(cases: Vec<Case>) {
    for (name, observed, steps, told) in cases {
        let plan = plan(&observed);
        assert_eq!((words(&plan).as_slice(), reason(&plan)), (steps, told), "{name}: {plan:?}");
    }
}

#[test]
fn before_there_is_a_machine() {
    let without_address = || {
        let mut observed = observed();
        observed.claims[0].address = None;
        observed
    };
    let unclaimed = || {
        let mut observed = without_address();
        observed.claims[0].claim = None;
        observed
    };
    let unprotected = || {
        let mut observed = without_address();
        observed.claims[0].claim = Some(Arc::default());
        observed
    };
    let foreign = || VirtualMachine { extra_config: BTreeMap::new(), ..machine() };
    let renamed = || VirtualMachine { name: "renamed".to_owned(), ..machine() };
    // vCenter gave it another UUID: its marker is for the one that was asked for.
    let reassigned = || VirtualMachine { instance_uuid: OTHER_UUID.to_owned(), ..machine() };
    let by_our_clone = || task("VirtualMachine.clone", TaskState::Succeeded(Some(reference("VirtualMachine", "vm-57"))));
    check(vec![
        ("paused", Observed { is_paused: true, ..observed() }, &[], "AsBefore"),
        (
            "no finalizer",
            unclaimed().with(|vm| vm.metadata.finalizers = None),
            &["add-finalizer", "create-claim"],
            "WaitingForStaticIPAllocation",
        ),
        ("no claim", unclaimed(), &["create-claim"], "WaitingForStaticIPAllocation"),
        ("claim without our finalizer", unprotected(), &["protect-claim"], "WaitingForStaticIPAllocation"),
        ("no address", without_address(), &[], "WaitingForStaticIPAllocation"),
        ("no identity", Observed { identity_error: Some("no secret".to_owned()), ..observed() }, &[], "WaitingForCredentials"),
        ("no owner", Observed { owner: None, ..observed() }, &[], "WaitingForOwner"),
        (
            "no configuration",
            Observed { bootstrap: Bootstrap::Missing { secret: "s".to_owned() }, ..observed() },
            &[],
            "WaitingForBootstrapData",
        ),
        ("nothing there", observed(), &["store-intent", "clone"], "Cloning"),
        ("lost clone, nothing there", observed().intended(), &["store-intent", "clone"], "Cloning"),
        ("lost clone, too early to tell", Observed { now: now() - SHOWS_WITHIN, ..observed().intended() }, &[], "Cloning"),
        (
            "its status was lost, and it is gone",
            observed().intended().with(|vm| vm.spec.bios_uuid = Some("b95b13fa".to_owned())),
            &[],
            "NotFoundByBIOSUUID",
        ),
        (
            "lost clone, still running",
            observed().intended().look(|look| look.clones = vec![task("VirtualMachine.clone", TaskState::Running)]),
            &[],
            "Cloning",
        ),
        ("lost clone, there", observed().intended().look(|look| look.candidates = Some(vec![machine()])), &["adopt"], "Cloning"),
        ("ours under another name", observed().look(|look| look.candidates = Some(vec![renamed()])), &["adopt"], "Cloning"),
        ("not ours", observed().look(|look| look.candidates = Some(vec![foreign()])), &[], "CloningFailed"),
        ("another UUID, no proof", observed().intended().look(|look| look.candidates = Some(vec![reassigned()])), &[], "CloningFailed"),
        (
            "another UUID, our clone made it",
            observed().intended().look(|look| {
                look.candidates = Some(vec![reassigned()]);
                look.clones = vec![by_our_clone()];
            }),
            &["adopt"],
            "Cloning",
        ),
        (
            "no snapshot",
            observed().look(|look| {
                let mut placement = placement();
                placement.template.snapshot = None;
                look.placement = Some(Arc::new(placement));
            }),
            &[],
            "CloningFailed",
        ),
        (
            "too large",
            Observed { bootstrap: Bootstrap::Data(format!("{CONFIG}# {}\nx: {}", "", "y".repeat(70_000))), ..observed() },
            &[],
            "CloningFailed",
        ),
        (
            "no Talos configuration",
            Observed { bootstrap: Bootstrap::Data("#cloud-config\n".to_owned()), ..observed() },
            &[],
            "CloningFailed",
        ),
    ]);
}

#[test]
fn a_full_clone_needs_no_snapshot() {
    let observed = observed()
        .with(|vm| vm.spec.clone.clone_mode = Some(CloneMode::FullClone))
        .look(|look| look.placement = Some(Arc::new(Placement { template: Template { snapshot: None, ..template() }, ..placement() })));
    assert_eq!(words(&plan(&observed)), ["store-intent", "clone"]);
}

#[test]
fn the_clone_is_marked_named_and_identified() {
    let planned = plan(&observed());
    let Some(Step::Clone { request, .. }) = planned.steps.last() else { panic!("{planned:?}") };
    assert_eq!((request.name.as_str(), request.instance_uuid.as_str()), ("node", UID));
    assert_eq!(request.marker, Some(Marker::new(owner(), UID)));
    assert_eq!((request.is_linked, request.cpus, request.memory_mib), (true, 2, 2048));
}

#[test]
fn while_a_task_is_in_flight() {
    let recorded = || observed().with(|vm| vm.status.get_or_insert_default().vm_ref = Some("VirtualMachine:vm-57".to_owned()));
    let made = || TaskState::Succeeded(Some(reference("VirtualMachine", "vm-57")));
    check(vec![
        ("clone runs", observed().task("VirtualMachine.clone", TaskState::Running), &[], "Cloning"),
        ("power-on runs", recorded().task("VirtualMachine.powerOn", TaskState::Running), &[], "PoweringOn"),
        ("delivery runs", recorded().task("VirtualMachine.reconfigure", TaskState::Running), &[], "PoweringOn"),
        ("clone done", observed().task("VirtualMachine.clone", made()), &["adopt"], "AsBefore"),
        ("delivery done", recorded().task("VirtualMachine.reconfigure", TaskState::Succeeded(None)), &["power-on"], "PoweringOn"),
        ("power-on done", recorded().task("VirtualMachine.powerOn", TaskState::Succeeded(None)), &["forget-task"], "AsBefore"),
        (
            "power-on done, and the machine was looked at",
            observed().recorded(running()).task("VirtualMachine.powerOn", TaskState::Succeeded(None)),
            &["forget-task", "store-bios-uuid"],
            "Provisioned",
        ),
        (
            "clone failed",
            observed().task("VirtualMachine.clone", TaskState::Failed(report("NoDiskSpace"))),
            &["forget-task"],
            "CloningFailed",
        ),
        (
            "power-on failed",
            recorded().task("VirtualMachine.powerOn", TaskState::Failed(report("NoCompatibleHost"))),
            &["forget-task"],
            "PoweringOnFailed",
        ),
        ("delivery failed", recorded().task("VirtualMachine.reconfigure", TaskState::Failed(report("X"))), &["forget-task"], "TaskFailure"),
        (
            "forgotten",
            observed().task("x", TaskState::Running).look(|look| look.task = Some(TaskLook::Forgotten)),
            &["forget-task"],
            "AsBefore",
        ),
        (
            "resting after a failure",
            observed().with(|vm| vm.status.get_or_insert_default().retry_after = "2026-03-01T08:01:00Z".parse().ok().map(Time)),
            &[],
            "AsBefore",
        ),
    ]);
}

#[test]
fn a_task_keeps_the_words_that_it_was_begun_with() {
    let begun = plan(&observed());
    let recorded = observed().with(|vm| vm.status.get_or_insert_default().task_ref = Some("task-1".to_owned()));
    let told = status::status(&recorded, &begun, None);
    let words = conditions::get(&told.conditions, PROVISIONED).unwrap().message.clone();
    assert_eq!(words, "cloning node from /dc1/vm/talos into /dc1/vm/lab since 08:00:00 (task-1)");
    let runs = observed().with(|vm| vm.status = Some(told)).task("VirtualMachine.clone", TaskState::Running);
    assert_eq!(reason(&plan(&runs)), "AsBefore");
    let other = runs.with(|vm| vm.status.get_or_insert_default().task_ref = Some("task-2".to_owned()));
    assert!(message(&plan(&other)).ends_with("(task-2)"));
    // A call that failed, and one that was needless, started nothing.
    let failed = VSphereError::Unreachable { server: "vc".to_owned(), reason: "away".to_owned() };
    for (observed, failure) in [(&recorded, Some(&failed)), (&observed(), None)] {
        let told = status::status(observed, &begun, failure);
        let words = &conditions::get(&told.conditions, PROVISIONED).unwrap().message;
        assert_eq!(words, "cloning node from /dc1/vm/talos into /dc1/vm/lab");
    }
}

#[test]
fn a_task_that_nothing_tells_of_is_asked_about() {
    let running = |is_followed: bool| {
        observed().task("VirtualMachine.clone", TaskState::Running).look(|look| {
            let Some(TaskLook::Known(task)) = &mut look.task else { panic!("no task") };
            task.is_followed = is_followed;
        })
    };
    for change in [|observed: Observed| observed, Observed::deleting] {
        assert_eq!(plan(&change(running(true))).again, None);
        assert_eq!(plan(&change(running(false))).again, Some(LOOK_AGAIN));
    }
    let needless = plan(&observed().with(|vm| vm.spec.bios_uuid = Some("u".to_owned())).recorded(machine()));
    assert_eq!((words(&needless).as_slice(), needless.again), (&["deliver"][..], Some(LOOK_AGAIN)));
}

#[test]
fn a_failed_task_rests_as_its_fault_asks() {
    for (kind, seconds) in [("NoDiskSpace", 60), ("FileLocked", 5), ("NoPermission", 300), ("DuplicateName", 5)] {
        let plan = plan(&observed().task("VirtualMachine.clone", TaskState::Failed(report(kind))));
        assert_eq!(plan.again.map(|delay| delay.as_secs()), Some(seconds), "{kind}");
        let [Step::ForgetTask { retry_after: Some(until) }] = plan.steps.as_slice() else { panic!("{plan:?}") };
        assert_eq!(until.as_second() - now().as_second(), i64::try_from(seconds).unwrap(), "{kind}");
    }
}

#[test]
fn when_the_machine_is_there() {
    let known = || observed().with(|vm| vm.spec.bios_uuid = Some(machine().bios_uuid));
    let delivered = || {
        let planned = plan(&known().recorded(machine()));
        let Some(Step::Deliver { delivery, .. }) = planned.steps.into_iter().next() else { panic!("no delivery") };
        let options = vsphere::spec::delivery_spec(&delivery).extra_config;
        let extra_config = options.into_iter().map(|option| (option.key, option.value.text().unwrap().to_owned())).collect();
        VirtualMachine { extra_config, ..machine() }
    };
    let without_mac = || VirtualMachine { devices: Vec::new(), ..machine() };
    check(vec![
        ("fresh", observed().recorded(machine()), &["store-bios-uuid", "deliver"], "PoweringOn"),
        ("delivered", known().recorded(delivered()), &["power-on"], "PoweringOn"),
        ("runs", known().recorded(running()), &[], "Provisioned"),
        ("no UUID yet", observed().recorded(VirtualMachine { bios_uuid: String::new(), ..machine() }), &[], "Cloning"),
        ("no MAC yet", known().recorded(without_mac()), &[], "Cloning"),
        ("out of reach", known().recorded(VirtualMachine { connection: "inaccessible".to_owned(), ..machine() }), &[], "NotReachable"),
        ("asks", known().recorded(VirtualMachine { question: Some("moved or copied?".to_owned()), ..machine() }), &[], "WaitingForAnswer"),
        ("gone", known().recorded(machine()).look(|look| look.machine = MachineLook::Gone), &[], "NotFoundByBIOSUUID"),
        (
            "without configuration",
            Observed { bootstrap: Bootstrap::Missing { secret: "s".to_owned() }, ..known().recorded(machine()) },
            &[],
            "WaitingForBootstrapData",
        ),
    ]);
    let planned = plan(&known().recorded(running()));
    assert_eq!(planned.claims, Claims::Fulfilled);
    assert_eq!(planned.cards.unwrap()[0].ip_addrs, ["10.0.0.20"]);
}

#[test]
fn a_marker_is_written_for_the_uuid_that_vcenter_gave() {
    let planned = plan(&observed().recorded(VirtualMachine { instance_uuid: OTHER_UUID.to_owned(), ..machine() }));
    let Some(Step::Deliver { delivery, .. }) = planned.steps.last() else { panic!("{planned:?}") };
    assert_eq!(delivery.marker, Marker::new(owner(), OTHER_UUID));
    assert!(delivery.userdata.contains("10.0.0.20/24") && delivery.userdata.contains("00:50:56:00:00:01"), "{}", delivery.userdata);
}

#[test]
fn a_machine_without_addresses_given_waits_for_tools() {
    let mut observed = observed().recorded(running());
    observed.claims.clear();
    Arc::make_mut(&mut observed.vm).spec.clone.network.devices[0].addresses_from_pools.clear();
    let planned = plan(&observed);
    assert_eq!(reason(&planned), "WaitingForIPAllocation");
    assert!(message(&planned).contains("vmtoolsd"), "{planned:?}");
}

#[test]
fn a_deletion_looks_before_it_destroys() {
    let gone = || observed().deleting();
    let recorded = |machine| observed().recorded(machine).deleting();
    let claim = || {
        let mut claim = IPAddressClaim::default();
        claim.metadata.finalizers = Some(vec![finalizers::IP_CLAIM_PROTECTION.to_owned()]);
        vec![Arc::new(claim)]
    };
    let volume = || {
        let mut disk = VirtualDevice::new(DISK, 2001);
        disk.first_class_disk = Some(FirstClassDiskId { id: "x".to_owned() });
        VirtualMachine { devices: vec![disk], ..machine() }
    };
    let foreign = || VirtualMachine { extra_config: BTreeMap::new(), ..running() };
    let other_owner = || {
        let owner = Owner { machine: "another".to_owned(), ..owner() };
        VirtualMachine { extra_config: settings(&Marker::new(owner, UID)), ..running() }
    };
    let reassigned = || VirtualMachine { instance_uuid: OTHER_UUID.to_owned(), ..running() };
    let cancelled = || {
        let mut task = task("VirtualMachine.clone", TaskState::Running);
        task.is_cancelled = true;
        task
    };
    let of_machine = |state, id: &str| {
        let destruction = Task { entity: Some(reference("VirtualMachine", id)), ..task("VirtualMachine.destroy", state) };
        let known = recorded(machine()).task("VirtualMachine.destroy", TaskState::Running);
        known.look(|look| (look.machine, look.task) = (MachineLook::Unknown, Some(TaskLook::Known(Box::new(destruction)))))
    };
    check(vec![
        ("never asked for", Observed { owned_claims: claim(), ..gone() }, &["release-claim", "remove-finalizer"], "AsBefore"),
        ("finalizer gone", gone().with(|vm| vm.metadata.finalizers = None), &[], "AsBefore"),
        ("runs", recorded(running()), &["power-off"], "Deleting"),
        ("is off", recorded(machine()), &["destroy"], "Deleting"),
        ("has a volume", recorded(volume()), &["detach"], "Deleting"),
        ("not ours", recorded(foreign()), &[], "Deleting"),
        ("another Machine's", recorded(other_owner()), &[], "Deleting"),
        ("ours, UUID reassigned", recorded(reassigned()), &["rewrite-marker"], "Deleting"),
        ("out of reach", recorded(VirtualMachine { connection: "orphaned".to_owned(), ..machine() }), &[], "Deleting"),
        (
            "destroyed",
            Observed { owned_claims: claim(), ..recorded(machine()) }.look(|look| look.machine = MachineLook::Gone),
            &["release-claim", "remove-finalizer"],
            "AsBefore",
        ),
        (
            "lost clone runs",
            gone().intended().look(|look| look.clones = vec![task("VirtualMachine.clone", TaskState::Running)]),
            &[],
            "Deleting",
        ),
        ("lost clone there", gone().intended().look(|look| look.candidates = Some(vec![machine()])), &["adopt"], "AsBefore"),
        ("lost clone, nothing there", gone().intended(), &["remove-finalizer"], "AsBefore"),
        ("lost clone, told as deleting before", gone().intended().told("Deleting"), &["remove-finalizer"], "AsBefore"),
        ("lost clone, not searched for", gone().intended().look(|look| look.candidates = None), &[], "Deleting"),
        ("lost clone, too early to tell", Observed { now: now() - SHOWS_WITHIN, ..gone().intended() }, &[], "Deleting"),
        (
            "lost clone, of another UUID and no proof",
            gone().intended().look(|look| look.candidates = Some(vec![reassigned()])),
            &[],
            "Deleting",
        ),
        ("lost clone, intent spoilt", Observed { owner: None, ..gone().spoilt() }, &[], "Deleting"),
        (
            "lost clone, foreign one",
            gone().intended().look(|look| look.candidates = Some(vec![foreign()])),
            &["remove-finalizer"],
            "AsBefore",
        ),
        ("clone runs", gone().task("VirtualMachine.clone", TaskState::Running), &["cancel"], "Deleting"),
        (
            "clone is being cancelled",
            gone().task("x", TaskState::Running).look(|look| look.task = Some(TaskLook::Known(Box::new(cancelled())))),
            &[],
            "Deleting",
        ),
        (
            "its destruction has ended well",
            Observed { owned_claims: claim(), ..of_machine(TaskState::Succeeded(None), "vm-57") },
            &["release-claim", "remove-finalizer"],
            "AsBefore",
        ),
        ("another's destruction has ended well", of_machine(TaskState::Succeeded(None), "vm-58"), &["forget-task"], "AsBefore"),
        ("destruction runs", recorded(machine()).task("VirtualMachine.destroy", TaskState::Running), &[], "Deleting"),
        ("no identity", Observed { identity_error: Some("gone".to_owned()), ..recorded(machine()) }, &[], "Deleting"),
        ("no owner", Observed { owner: None, ..recorded(machine()) }, &[], "Deleting"),
    ]);
}

#[test]
fn what_a_condition_tells_decides_nothing() {
    for reason in ["Deleting", "WaitingForCredentials", "WaitingForOwner", "PoweringOnFailed", "Cloning"] {
        assert!(is_outcome_unknown(&observed().intended().told(reason).vm), "{reason}");
        assert!(is_untouched(&observed().told(reason).vm), "{reason}");
        assert!(!is_untouched(&observed().told(reason).spoilt().vm), "{reason}");
    }
}

#[test]
fn the_intent_is_stored_before_the_clone_with_all_it_takes_to_find_it() {
    let identity = IdentityReference { kind: IdentityKind::Secret, name: "c".to_owned() };
    let planned = plan(&Observed { identity: Some(identity.clone()), ..observed() });
    let [Step::StoreIntent(intent), Step::Clone { .. }] = planned.steps.as_slice() else { panic!("{planned:?}") };
    let mut vm = vm();
    vm.metadata.annotations = Some([(CLONE_INTENT.to_owned(), intent.text())].into());
    assert_eq!(Intent::of(&vm).as_ref(), Some(&**intent));
    assert_eq!((intent.owner(), intent.template(), intent.folder_path.as_str()), (owner(), template().reference, "/dc1/vm/lab"));
    assert_eq!((intent.since, &intent.identity), (now(), &Some(identity)));
    // Another object's uid, as after a move: the machine is still searched for under the UUID that was asked for.
    vm.metadata.uid = Some(OTHER_UUID.to_owned());
    assert_eq!(instance_uuid(&vm), UID);
}

#[test]
fn a_refused_step_rests_as_its_fault_asks() {
    let fault = VSphereError::Fault { action: "it".to_owned(), fault: report("NoPermission") };
    let observed = observed();
    let status = status::status(&observed, &plan(&observed), Some(&fault));
    assert_eq!(status.retry_after.as_ref().map(|time| time.0.as_second() - now().as_second()), Some(300));
    let resting = observed.with(|vm| vm.status = Some(status));
    assert!(plan(&resting).steps.is_empty());
}

#[test]
fn a_soft_power_off_is_patient_within_its_limit() {
    let with_tools = || VirtualMachine { guest: GuestState { host_name: Some("node".to_owned()), nics: Vec::new() }, ..running() };
    let mode = |mode| move |vm: &mut VSphereVM| vm.spec.power_off_mode = Some(mode);
    let asked = |vm: &mut VSphereVM| {
        let list = &mut vm.status.get_or_insert_default().deprecated.v1beta1.conditions;
        let condition = conditions::legacy_false(SOFT_POWER_OFF, SOFT_IN_PROGRESS, conditions::Severity::Info, "asked");
        conditions::set_legacy(list, condition, now());
    };
    let recorded = |machine| observed().recorded(machine).deleting();
    let later = |observed: Observed| Observed { now: "2026-03-01T08:05:00Z".parse().unwrap(), ..observed };
    check(vec![
        ("hard", recorded(with_tools()).with(mode(PowerOffMode::Hard)), &["power-off"], "Deleting"),
        ("soft, not asked", recorded(with_tools()).with(mode(PowerOffMode::Soft)), &["shut-down-guest"], SOFT_IN_PROGRESS),
        ("soft, no tools", recorded(running()).with(mode(PowerOffMode::Soft)), &[], "Deleting"),
        ("soft, asked long ago", later(recorded(with_tools()).with(mode(PowerOffMode::Soft)).with(asked)), &[], SOFT_IN_PROGRESS),
        ("trySoft, no tools", recorded(running()).with(mode(PowerOffMode::TrySoft)), &["power-off"], "Deleting"),
        ("trySoft, not asked", recorded(with_tools()).with(mode(PowerOffMode::TrySoft)), &["shut-down-guest"], SOFT_IN_PROGRESS),
        ("trySoft, asked", recorded(with_tools()).with(mode(PowerOffMode::TrySoft)).with(asked), &[], SOFT_IN_PROGRESS),
        ("trySoft, overdue", later(recorded(with_tools()).with(mode(PowerOffMode::TrySoft)).with(asked)), &["power-off"], "Deleting"),
    ]);
}

#[test]
fn a_wait_tells_since_when_and_stays_the_same() {
    let without_address = || {
        let mut observed = observed();
        observed.claims[0].address = None;
        observed
    };
    let without_data = || Observed { bootstrap: Bootstrap::Missing { secret: "s".to_owned() }, ..observed() };
    let running_clone = |look: &mut Look| look.clones = vec![task("VirtualMachine.clone", TaskState::Running)];
    let guest = GuestState { host_name: Some("node".to_owned()), nics: Vec::new() };
    let asked = observed().recorded(VirtualMachine { guest, ..running() }).deleting();
    let asked = asked.with(|vm| vm.spec.power_off_mode = Some(PowerOffMode::TrySoft));
    for (observed, expected) in [
        (without_address(), "waiting for addresses: node-0-0 from InClusterIPPool pool since 08:00:00"),
        (without_data(), "waiting for secret s with the machine configuration since 08:00:00"),
        (Observed { owner: None, ..observed() }, "waiting for the Machine and the Cluster that this machine belongs to since 08:00:00"),
        (
            observed().intended().look(running_clone),
            "waiting for a running clone of /dc1/vm/talos whose outcome is not known yet since 07:59:55",
        ),
        (observed().intended().deleting().look(running_clone), "waiting for a running clone whose outcome is not known yet since 07:59:55"),
        (
            observed().task("VirtualMachine.destroy", TaskState::Running).deleting(),
            "waiting for VirtualMachine.destroy (task-1) to end since 08:00:00",
        ),
        (asked, "waiting for node to shut down since 08:00:00 (limit 08:05:00)"),
    ] {
        let planned = plan(&observed);
        assert_eq!(message(&planned), expected);
        let status = status::status(&observed, &planned, None);
        let later = Observed { now: now() + SignedDuration::from_secs(3), ..observed }.with(|vm| vm.status = Some(status.clone()));
        assert_eq!(status::status(&later, &plan(&later), None), status, "{expected}");
    }
    let failed = plan(&observed().task("VirtualMachine.clone", TaskState::Failed(report("NoDiskSpace"))));
    assert!(message(&failed).ends_with("; next attempt at 08:01:00"), "{}", message(&failed));
}

#[test]
fn an_outage_takes_nothing_back() {
    let error = VSphereError::Unreachable { server: "vc".to_owned(), reason: "connection refused".to_owned() };
    let observed = observed()
        .recorded(running())
        .with(|vm| {
            let status = vm.status.get_or_insert_default();
            status.ready = Some(true);
            conditions::set(&mut status.conditions, conditions::new(PROVISIONED, true, "Provisioned", ""), None, now());
            conditions::set_legacy(&mut status.deprecated.v1beta1.conditions, conditions::legacy_true(LEGACY_PROVISIONED), now());
        })
        .look(|look| {
            look.machine = MachineLook::Unknown;
            look.error = Some(error);
        });
    let planned = plan(&observed);
    assert!(planned.steps.is_empty());
    let status = status::status(&observed, &planned, None);
    assert_eq!(status.ready, Some(true));
    assert!(conditions::is_true(&status.conditions, PROVISIONED));
    let ready = conditions::get(&status.conditions, "Ready").unwrap();
    assert!(ready.status == conditions::Status::False && ready.message.contains("connection refused"), "{ready:?}");
}

#[test]
fn a_failed_step_is_told_under_its_name() {
    let fault = |kind: &str| VSphereError::Fault { action: "it".to_owned(), fault: report(kind) };
    for (observed, expected) in [(observed(), "CloningFailed"), (observed().recorded(machine()), "PoweringOnFailed")] {
        let planned = plan(&observed);
        let status = status::status(&observed, &planned, Some(&fault("NoPermission")));
        let condition = conditions::get(&status.conditions, PROVISIONED).unwrap();
        assert_eq!(condition.reason, expected);
        assert!(condition.message.contains("NoPermission"));
    }
}
