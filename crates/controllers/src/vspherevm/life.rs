//! Lives of one machine with any mishap at any time, against a model of vCenter: at most one machine is made, and its object never goes while the machine, or a clone that
//! becomes it, is there. When the mishaps stop, a deletion ends with nothing left.

use std::sync::Arc;

use api::names::annotations::CLONE_INTENT;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use vsphere::{TaskState, VSphereError, VirtualMachine, VirtualMachinePowerState};

use super::intent::Intent;
use super::plan::{Look, MachineLook, Observed, Step, TaskLook, is_outcome_unknown, is_untouched, plan, task_reference, vm_reference};
use super::status;
use super::tests::{machine, observed, owner, placement, reference, report, settings, task};
use crate::edit::is_deleting;

/// How a process dies: so many steps are carried out, one more has its effect on vCenter, and nothing of that is recorded.
#[derive(Clone, Copy, Debug)]
struct Death {
    steps: usize,
    /// Whether what the steps recorded was written together with the status.
    is_told: bool,
}

#[derive(Clone, Debug)]
enum Event {
    /// One pass.
    Pass,
    /// One pass in a process that dies.
    Killed(Death),
    /// The clone ends, well or not.
    CloneEnds(bool),
    /// vCenter forgets the tasks that have ended.
    TasksForgotten,
    /// The status is lost, as in a restore or a move.
    StatusLost,
    Credentials(bool),
    /// Whether Machine and Cluster are there.
    Owner(bool),
    Reachable(bool),
    /// Whether template and folder can be resolved.
    Placed(bool),
    Deleted,
    Wait(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Pass),
        3 => (0..3_usize, any::<bool>()).prop_map(|(steps, is_told)| Event::Killed(Death { steps, is_told })),
        2 => any::<bool>().prop_map(Event::CloneEnds),
        1 => Just(Event::TasksForgotten),
        1 => Just(Event::StatusLost),
        1 => any::<bool>().prop_map(Event::Credentials),
        1 => any::<bool>().prop_map(Event::Owner),
        1 => any::<bool>().prop_map(Event::Reachable),
        1 => any::<bool>().prop_map(Event::Placed),
        1 => Just(Event::Deleted),
        2 => (1..90_u8).prop_map(Event::Wait),
    ]
}

/// The object as the API holds it, and vCenter's truth.
struct World {
    /// With the object in it; what was looked up is filled in by [`World::look`].
    observed: Observed,
    is_gone: bool,
    machine: Option<VirtualMachine>,
    tasks: Vec<vsphere::Task>,
    has_credentials: bool,
    has_owner: bool,
    is_reachable: bool,
    is_placed: bool,
    made: usize,
}

impl World {
    fn new() -> Self {
        Self {
            observed: observed(),
            is_gone: false,
            machine: None,
            tasks: Vec::new(),
            has_credentials: true,
            has_owner: true,
            is_reachable: true,
            is_placed: true,
            made: 0,
        }
    }

    fn vm(&mut self) -> &mut api::infrastructure::VSphereVM {
        Arc::make_mut(&mut self.observed.vm)
    }

    fn now(&self) -> Timestamp {
        self.observed.now
    }

    fn is_cloning(&self) -> bool {
        self.tasks.iter().any(|task| task.what == "VirtualMachine.clone" && !task.is_over())
    }

    /// What the controller sees.
    fn look(&self) -> Observed {
        let mut seen = self.observed.clone();
        let vm = Arc::clone(&seen.vm);
        seen.owner = Intent::of(&vm).map(|intent| intent.owner()).or(self.has_owner.then(owner));
        seen.identity_error = (!self.has_credentials).then(|| "no secret".to_owned());
        seen.look = Look::default();
        if !self.has_credentials || seen.owner.is_none() || (is_deleting(&vm.metadata) && is_untouched(&vm)) {
            return seen;
        }
        seen.look.is_asked = true;
        if !self.is_reachable {
            seen.look.error = Some(VSphereError::Unreachable { server: "vc".to_owned(), reason: "away".to_owned() });
            return seen;
        }
        seen.look.placement = self.is_placed.then(|| Arc::new(placement()));
        let mut is_on = false;
        if let Some(reference) = task_reference(&vm) {
            let known = self.tasks.iter().find(|task| task.reference == reference);
            is_on = !is_deleting(&vm.metadata) && known.is_some_and(|task| task.what == "VirtualMachine.powerOn");
            seen.look.task = Some(known.map_or(TaskLook::Forgotten, |task| TaskLook::Known(Box::new(task.clone()))));
        }
        if task_reference(&vm).is_some() && !is_on {
            return seen;
        }
        if vm_reference(&vm).is_some() {
            seen.look.machine = self.machine.clone().map_or(MachineLook::Gone, |machine| MachineLook::Read(Box::new(machine)));
        } else if !self.is_placed && !is_deleting(&vm.metadata) {
            let near = Vec::new();
            seen.look.error = Some(VSphereError::Missing { what: "folder", wanted: "f".to_owned(), place: "dc".to_owned(), near });
        } else {
            if is_outcome_unknown(&vm) {
                seen.look.clones = self.tasks.iter().filter(|task| task.what == "VirtualMachine.clone").cloned().collect();
            }
            seen.look.candidates = Some(self.machine.iter().cloned().collect());
        }
        seen
    }

    fn pass(&mut self, death: Option<Death>) {
        if self.is_gone {
            return;
        }
        let seen = self.look();
        let plan = plan(&seen);
        let was_unknown = is_outcome_unknown(&self.observed.vm);
        for (number, step) in plan.steps.iter().enumerate() {
            let is_recorded = death.is_none_or(|death| number < death.steps);
            let task = self.effect(step);
            if !is_recorded {
                return;
            }
            let was = self.vm().status.clone();
            self.record(step, task);
            if self.is_gone {
                return;
            }
            if self.vm().status != was {
                // In the same write; or alone, when the write of both was refused.
                let told = Observed { vm: Arc::clone(&self.observed.vm), ..seen.clone() };
                if death.is_none_or(|death| death.is_told) {
                    self.vm().status = Some(status::status(&told, &plan, None));
                }
            }
        }
        if death.is_some() {
            return;
        }
        let told = Observed { vm: Arc::clone(&self.observed.vm), ..seen };
        self.vm().status = Some(status::status(&told, &plan, None));
        let is_found = plan.steps.iter().any(|step| matches!(step, Step::Adopt { .. } | Step::Clone { .. }));
        assert!(!was_unknown || is_found || is_outcome_unknown(&self.observed.vm), "forgotten by {plan:?}");
    }

    /// What a step does in vCenter: the task that it starts.
    fn effect(&mut self, step: &Step) -> Option<String> {
        let (what, state) = match step {
            Step::Clone { request, .. } => {
                assert!(self.machine.is_none() && !self.is_cloning(), "cloned twice");
                let made = VirtualMachine {
                    instance_uuid: request.instance_uuid.clone(),
                    extra_config: settings(request.marker.as_ref().unwrap()),
                    ..machine()
                };
                assert_eq!(made.name, request.name);
                ("VirtualMachine.clone", TaskState::Running)
            }
            Step::Deliver { delivery, .. } => {
                for option in vsphere::spec::delivery_spec(delivery).extra_config {
                    let text = option.value.text().unwrap().to_owned();
                    self.machine.as_mut().unwrap().extra_config.insert(option.key, text);
                }
                ("VirtualMachine.reconfigure", TaskState::Succeeded(None))
            }
            Step::PowerOn { .. } => {
                self.machine.as_mut().unwrap().power = VirtualMachinePowerState::PoweredOn;
                ("VirtualMachine.powerOn", TaskState::Succeeded(None))
            }
            Step::PowerOff { .. } => {
                self.machine.as_mut().unwrap().power = VirtualMachinePowerState::PoweredOff;
                ("VirtualMachine.powerOff", TaskState::Succeeded(None))
            }
            Step::Destroy { .. } => {
                self.machine = None;
                ("VirtualMachine.destroy", TaskState::Succeeded(None))
            }
            Step::Cancel { task } => {
                let known = self.tasks.iter_mut().find(|known| known.reference == *task).unwrap();
                known.is_cancelled = true;
                known.state = TaskState::Failed(report("RequestCanceled"));
                return None;
            }
            _ => return None,
        };
        self.made += 1;
        let id = format!("task-{}", self.made);
        self.tasks.push(vsphere::Task { reference: reference("Task", &id), ..task(what, state) });
        Some(id)
    }

    /// What is written of a step.
    fn record(&mut self, step: &Step, task: Option<String>) {
        let (machine, is_cloning) = (self.machine.is_some(), self.is_cloning());
        let vm = self.vm();
        if let Some(id) = task {
            let status = vm.status.get_or_insert_default();
            (status.task_ref, status.retry_after) = (Some(id), None);
        }
        match step {
            Step::StoreIntent(intent) => {
                vm.metadata.annotations.get_or_insert_default().insert(CLONE_INTENT.to_owned(), intent.text());
            }
            Step::Adopt { machine } => {
                let status = vm.status.get_or_insert_default();
                (status.vm_ref, status.task_ref, status.retry_after) = (Some(machine.to_string()), None, None);
            }
            Step::StoreBiosUuid(uuid) => vm.spec.bios_uuid = Some(uuid.clone()),
            Step::ForgetTask { retry_after } => {
                let status = vm.status.get_or_insert_default();
                (status.task_ref, status.retry_after) = (None, retry_after.map(Time));
            }
            Step::RemoveFinalizer => {
                assert!(!machine, "the object goes, its machine stays");
                assert!(!is_cloning, "the object goes while its machine is made");
                self.is_gone = true;
            }
            _ => {}
        }
    }

    fn clone_ends(&mut self, is_well: bool) {
        let Some(running) = self.tasks.iter_mut().find(|task| !task.is_over()) else { return };
        if !is_well {
            running.state = TaskState::Failed(report("NoDiskSpace"));
            return;
        }
        let made = machine();
        running.state = TaskState::Succeeded(Some(made.reference.clone()));
        self.machine = Some(made);
    }

    fn later(&mut self, seconds: i64) {
        self.observed.now = self.now() + SignedDuration::from_secs(seconds);
    }

    fn meet(&mut self, event: &Event) {
        match *event {
            Event::Pass => self.pass(None),
            Event::Killed(death) => self.pass(Some(death)),
            Event::CloneEnds(is_well) => self.clone_ends(is_well),
            Event::TasksForgotten => self.tasks.retain(|task| !task.is_over()),
            Event::StatusLost => self.vm().status = None,
            Event::Credentials(has) => self.has_credentials = has,
            Event::Owner(has) => self.has_owner = has,
            Event::Reachable(is) => self.is_reachable = is,
            Event::Placed(is) => self.is_placed = is,
            Event::Deleted => {
                let now = Time(self.now());
                self.vm().metadata.deletion_timestamp.get_or_insert(now);
            }
            Event::Wait(seconds) => self.later(i64::from(seconds)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_machine_is_made_twice_or_left_behind(events in prop::collection::vec(event(), 1..40)) {
        let mut world = World::new();
        for event in &events {
            world.meet(event);
        }
        // The mishaps stop; the owners stay away.
        for event in [Event::Credentials(true), Event::Reachable(true), Event::Placed(false), Event::Owner(false), Event::Deleted] {
            world.meet(&event);
        }
        for _ in 0..40 {
            world.pass(None);
            world.clone_ends(true);
            world.later(61);
        }
        let left = plan(&world.look());
        prop_assert!(world.is_gone, "still there: {left:?}");
        prop_assert!(world.machine.is_none());
    }
}
