//! The simulated vCenter: the inventory, which is the truth, and the SOAP face it shows.
//!
//! ```text
//! face (HTTPS, SOAP, sessions) -> methods -> operations, as tasks on handed-in time -> inventory -> property collectors
//!                                                                                        |-> guests (power)  |-> log, events
//! ```
//! It is stricter than a lenient test server where a client would be hurt by the real one: requests in the schema's order, linked clones
//! only from snapshots, names locked while a clone runs, templates that cannot be reconfigured, collectors with real versions. What
//! happens to guests and logs is told after the inventory is unlocked, in order. Privileges are not modelled: a hook can deny any call.

mod clone;
mod collector;
mod construction;
mod device;
mod device_change;
mod face;
mod failure;
mod inventory;
mod latency;
mod machine_properties;
mod methods;
mod operation;
mod person;
mod properties;
mod scope;
mod session;
mod site;
mod task;
mod val;
mod vm;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime::clock::Clock;
use runtime::log::Log;
use runtime::random::Random;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::hooks::Hooks;
use crate::hypervisor::{Guests, Hypervisor, Nic, ToolsReport, VmId, VmTruth};
use failure::Failure;
use inventory::{Inventory, Kind, Reference};
use operation::{GuestEvent, Operation};
use session::Sessions;
use task::{State as TaskState, Task};

pub use face::Face;
pub use inventory::Event;
pub use latency::Latency;
pub use person::{Person, Refused};
pub use site::{Datacenter, Datastore, Network, Site, Template};

/// Into how many steps a task's progress is cut.
const PROGRESS_STEPS: u32 = 4;

/// What a vCenter is made from.
#[derive(Clone, Debug)]
pub struct Options {
    pub site: Site,
    pub clock: Clock,
    pub random: Random,
    pub log: Log,
    pub hooks: Hooks,
    pub latency: Latency,
    /// Refuse requests with unknown or misplaced elements, as the real server does.
    pub is_strict: bool,
    /// A session that is idle for longer ends.
    pub session_idle: Duration,
}

/// A vCenter. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct VCenter(Arc<Shared>);

impl fmt::Debug for VCenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VCenter")
    }
}

struct Shared {
    options: Options,
    state: Mutex<State>,
    /// The inventory's sequence number, for those who wait for changes.
    changes: watch::Sender<u64>,
    guests: Mutex<Option<Arc<dyn Guests>>>,
    clones: Semaphore,
    /// By what the durations of tasks are multiplied.
    slowness: AtomicU32,
    ended: CancellationToken,
}

struct State {
    /// The account's.
    password: String,
    inventory: Inventory,
    sessions: Sessions,
    /// For keys of sessions and ids of what belongs to them.
    keys: Random,
    outbox: VecDeque<Out>,
    is_delivering: bool,
}

/// What others are to hear, once the inventory is unlocked.
enum Out {
    Log { step: &'static str, object: String, result: String },
    Guest(GuestEvent),
}

impl VCenter {
    /// The vCenter that a site describes. It serves nobody yet.
    pub fn new(options: Options) -> Self {
        let random = options.random.child("vcenter");
        let inventory = construction::build(&options.site, &random.child("inventory"), options.clock.now());
        let (changes, _) = watch::channel(inventory.sequence());
        let clones = Semaphore::new(options.latency.concurrent_clones.max(1));
        let state = State {
            password: options.site.password.clone(),
            inventory,
            sessions: Sessions::default(),
            keys: random.child("session"),
            outbox: VecDeque::new(),
            is_delivering: false,
        };
        Self(Arc::new(Shared {
            options,
            state: Mutex::new(state),
            changes,
            guests: Mutex::default(),
            clones,
            slowness: AtomicU32::new(1),
            ended: CancellationToken::new(),
        }))
    }

    /// Tells `guests` about power from now on.
    pub fn attach(&self, guests: Arc<dyn Guests>) {
        *self.0.guests.lock().unwrap_or_else(PoisonError::into_inner) = Some(guests);
    }

    /// Ends running tasks where they stand and lets go of the guests.
    pub fn close(&self) {
        self.0.ended.cancel();
        self.0.guests.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// A person with a console, who does what tests need and no client asked for.
    pub fn person(&self) -> Person {
        Person::new(self.clone())
    }

    /// What happened, oldest first; the last thousand.
    pub fn events(&self) -> Vec<Event> {
        self.state().inventory.events.clone()
    }

    /// Ids and files of the first class disks (persistent volumes) that exist.
    pub fn volumes(&self) -> Vec<(String, String)> {
        self.state().inventory.volumes.iter().map(|(id, file)| (id.clone(), file.clone())).collect()
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.state().sessions.0.len()
    }

    /// Lets tasks that begin from now on take so many times as long.
    pub fn slow_down(&self, times: u32) {
        self.0.slowness.store(times, Ordering::Relaxed);
    }

    /// Ends every session, as a restart of the service does.
    pub fn end_sessions(&self) {
        self.act(|state| {
            state.sessions.0.clear();
            let root = state.inventory.root.clone();
            state.inventory.change(&root);
        });
    }

    /// Tasks that are not over yet.
    pub fn open_tasks(&self) -> usize {
        self.state().inventory.tasks().filter(|(_, task)| task.is_open()).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the world: wakes who waits for changes and tells guests and log, in order, after `change` is done.
    fn act<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let (result, sequence) = {
            let mut state = self.state();
            let result = change(&mut state);
            (result, state.inventory.sequence())
        };
        self.0.changes.send_if_modified(|known| {
            let is_newer = sequence > *known;
            *known = sequence.max(*known);
            is_newer
        });
        self.deliver();
        result
    }

    fn deliver(&self) {
        {
            let mut state = self.state();
            if state.is_delivering || state.outbox.is_empty() {
                return;
            }
            state.is_delivering = true;
        }
        loop {
            let out = {
                let mut state = self.state();
                let out = state.outbox.pop_front();
                state.is_delivering = out.is_some();
                out
            };
            let Some(out) = out else { return };
            let guests = self.0.guests.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match (out, guests) {
                (Out::Log { step, object, result }, _) => self.0.options.log.record("vcenter", step, object, result),
                (Out::Guest(GuestEvent::PoweredOn(vm)), Some(guests)) => guests.powered_on(*vm),
                (Out::Guest(GuestEvent::PoweredOff(id)), Some(guests)) => guests.powered_off(&id),
                (Out::Guest(GuestEvent::Destroyed(id)), Some(guests)) => guests.destroyed(&id),
                (Out::Guest(_), None) => {}
            }
        }
    }

    /// Starts a task for `user`. `failing`: it ends with this fault instead of doing anything.
    fn start(&self, user: &str, operation: Operation, failing: Option<Failure>) -> Reference {
        let now = self.0.options.clock.now();
        let (task, is_claimed) = self.act(|state| {
            let inventory = &mut state.inventory;
            inventory.forget_tasks(now);
            let entity = operation.entity().clone();
            let content = Task {
                method: operation.method(),
                description: operation.description(),
                entity_name: inventory.get(&entity).map(|object| object.name.clone()).unwrap_or_default(),
                entity: entity.clone(),
                user: user.to_owned(),
                state: TaskState::Queued,
                progress: None,
                queued: now,
                started: None,
                completed: None,
                is_cancelable: matches!(operation, Operation::Clone { .. }),
                is_cancelled: false,
            };
            let task = inventory.insert("Task", "task-", "", None, Kind::Task(Box::new(content)));
            inventory.change(&entity);
            let failure = failing.or_else(|| operation.claim(inventory, &task).err());
            let is_claimed = failure.is_none();
            if let Some(failure) = failure {
                let object = operation::label(inventory, &entity);
                state.outbox.push_back(Out::Log { step: operation.step(), object, result: failure.kind().to_owned() });
                complete(inventory, &task, TaskState::Error(failure), now);
            }
            (task, is_claimed)
        });
        if is_claimed {
            let duration = self.0.options.latency.of(&operation) * self.0.slowness.load(Ordering::Relaxed);
            if duration.is_zero() {
                self.run_at_once(&task, &operation);
            } else {
                let (vcenter, running) = (self.clone(), task.clone());
                tokio::spawn(async move { vcenter.run(running, operation, duration).await });
            }
        }
        task
    }

    fn run_at_once(&self, task: &Reference, operation: &Operation) {
        self.begin(task);
        self.finish(task, operation);
    }

    async fn run(self, task: Reference, operation: Operation, duration: Duration) {
        let work = async {
            let _slot = match &operation {
                Operation::Clone { .. } => self.0.clones.acquire().await.ok(),
                _ => None,
            };
            self.begin(&task);
            for step in 1..=PROGRESS_STEPS {
                self.0.options.clock.sleep(duration / PROGRESS_STEPS).await;
                if step < PROGRESS_STEPS {
                    let per_cent = i32::try_from(step * 100 / PROGRESS_STEPS).unwrap_or(0);
                    self.act(|state| {
                        if let Some(task) = state.inventory.change_task(&task).filter(|task| task.is_open()) {
                            task.progress = Some(per_cent);
                        }
                    });
                }
            }
            self.finish(&task, &operation);
        };
        self.0.ended.run_until_cancelled(work).await;
    }

    fn begin(&self, task: &Reference) {
        let now = self.0.options.clock.now();
        self.act(|state| {
            if let Some(task) = state.inventory.change_task(task).filter(|task| task.is_open()) {
                task.state = TaskState::Running;
                task.started = Some(now);
            }
        });
    }

    fn finish(&self, task: &Reference, operation: &Operation) {
        let now = self.0.options.clock.now();
        self.act(|state| {
            let State { inventory, outbox, .. } = state;
            let Some(open) = inventory.task(task).filter(|task| task.is_open()) else { return };
            let user = open.user.clone();
            let before = operation::label(inventory, operation.entity());
            operation::release(inventory, task);
            match operation.perform(inventory, now) {
                Ok(done) => {
                    if let Some(kind) = operation.event() {
                        let message = format!("{} {}", operation.method().trim_end_matches("_Task"), done.object);
                        inventory.event(now, kind, message, &user, Some(operation.entity().clone()));
                    }
                    outbox.push_back(Out::Log { step: operation.step(), object: done.object, result: "ok".to_owned() });
                    outbox.extend(done.guests.into_iter().map(Out::Guest));
                    complete(inventory, task, TaskState::Success(done.result), now);
                }
                Err(failure) => {
                    outbox.push_back(Out::Log { step: operation.step(), object: before, result: failure.kind().to_owned() });
                    complete(inventory, task, TaskState::Error(failure), now);
                }
            }
        });
    }

    /// Asks a task to stop. A running clone is undone before anybody saw it.
    fn cancel(&self, reference: &Reference) -> Result<(), Failure> {
        let now = self.0.options.clock.now();
        self.act(|state| {
            let task = state.inventory.task(reference).ok_or_else(|| Failure::not_found(reference))?;
            if !task.is_open() {
                return Err(Failure::new("InvalidState", "The operation is not allowed in the current state: the task is over."));
            }
            if !task.is_cancelable {
                return Err(Failure::not_supported());
            }
            let object = operation::label(&state.inventory, &task.entity);
            operation::release(&mut state.inventory, reference);
            if let Some(task) = state.inventory.change_task(reference) {
                task.is_cancelled = true;
            }
            complete(&mut state.inventory, reference, TaskState::Error(Failure::request_canceled()), now);
            state.outbox.push_back(Out::Log { step: "cancel", object, result: "ok".to_owned() });
            Ok(())
        })
    }
}

fn complete(inventory: &mut Inventory, reference: &Reference, state: TaskState, now: jiff::Timestamp) {
    let entity = inventory.task(reference).map(|task| task.entity.clone());
    if let Some(task) = inventory.change_task(reference) {
        task.progress = matches!(state, TaskState::Success(_)).then_some(100);
        task.state = state;
        task.started = task.started.or(Some(now));
        task.completed = Some(now);
    }
    if let Some(entity) = entity {
        inventory.change(&entity);
    }
}

fn machine(id: &VmId) -> Reference {
    Reference::new("VirtualMachine", id.0.clone())
}

impl Hypervisor for VCenter {
    fn guestinfo(&self, id: &VmId, key: &str) -> Option<String> {
        self.state().inventory.vm(&machine(id))?.extra_config.get(key).cloned()
    }

    fn report_tools(&self, id: &VmId, report: Option<ToolsReport>) {
        self.act(|state| {
            let reference = machine(id);
            let is_news = state.inventory.vm(&reference).is_some_and(|vm| vm.is_powered_on && vm.tools != report);
            if is_news {
                let result = match &report {
                    Some(report) => {
                        let addresses = report.nets.iter().flat_map(|(_, addresses)| addresses).cloned().collect::<Vec<_>>();
                        format!("{} {}", report.host_name, addresses.join(" "))
                    }
                    None => "not running".to_owned(),
                };
                let object = operation::label(&state.inventory, &reference);
                state.outbox.push_back(Out::Log { step: "tools", object, result });
                if let Some(vm) = state.inventory.change_vm(&reference) {
                    vm.tools = report;
                }
            }
        });
    }

    fn power_off_from_inside(&self, id: &VmId) {
        self.act(|state| {
            if let Ok(done) = operation::power_off(&mut state.inventory, &machine(id)) {
                state.outbox.push_back(Out::Log { step: "power-off-from-inside", object: done.object, result: "ok".to_owned() });
            }
        });
    }

    fn sign_in(&self, server: &str, user: &str, password: &str) -> bool {
        let site = &self.0.options.site;
        server.eq_ignore_ascii_case(&site.server) && user == site.user && password == self.state().password
    }

    fn vms(&self) -> Vec<VmTruth> {
        let state = self.state();
        let inventory = &state.inventory;
        let truth = |(object, vm): (&inventory::Object, &vm::Vm)| {
            let network = |nic: &device::Nic| inventory.get(nic.port.network()).map(|network| network.name.clone()).unwrap_or_default();
            VmTruth {
                id: VmId(object.reference.id.clone()),
                name: object.name.clone(),
                folder: object.parent.as_ref().map(|parent| inventory.path(parent)).unwrap_or_default(),
                bios_uuid: vm.bios_uuid.clone(),
                instance_uuid: vm.instance_uuid.clone(),
                powered_on: vm.is_powered_on,
                is_template: vm.is_template,
                extra_config: vm.extra_config.clone(),
                annotation: vm.annotation.clone(),
                nics: vm.nics().map(|nic| Nic { mac: nic.mac.clone(), network: network(nic) }).collect(),
                disks: operation::disks(vm),
                origin: vm.origin,
                changes: vm.acts.clone(),
            }
        };
        inventory.vms().map(truth).collect()
    }
}
