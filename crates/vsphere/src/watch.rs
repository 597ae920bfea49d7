//! One long poll per vCenter instead of polling: what the server says about our folders' machines and about recent tasks, kept in memory, and told to whoever waits.
//!
//! ```text
//!   login -> collector -> filter on recent tasks -> per folder: view + filter -> wait (0 s: first answer) -> wait (5 min) -> wait ..
//!     ^                                                      ^  a new folder is wanted: the wait is cancelled, the filter added
//!     |  anything fails: the collector is gone or unsure        |
//!     +--- after a growing delay, all over; what did not come again by the first answer has gone
//! ```
//!
//! What is seen here is never the reason to destroy or to clone: before these the server itself is asked. It wakes, it shows how a task ends and that a machine still runs.
//! While nothing changes, the server is asked once in five minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use runtime::clock::Clock;
use runtime::random::Random;
use runtime::reconcile::Backoff;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use vsphere_wire::machine::VirtualMachineQuestionInfo;
use vsphere_wire::method::{CancelWaitForUpdates, CreateContainerView, CreateFilter, CreatePropertyCollector, WaitForUpdatesEx};
use vsphere_wire::property::{
    ObjectSpec, ObjectUpdate, ObjectUpdateKind, PropertyChange, PropertyFilterSpec, PropertySpec, Selection, TraversalSpec, UpdateSet,
    WaitOptions,
};
use vsphere_wire::service::{TaskInfo, TaskInfoState};
use vsphere_wire::{AnyValue, ManagedObjectReference};

use crate::error::{FaultReport, Reaction, VSphereError};
use crate::machine::GuestState;
use crate::session::{LoggedIn, Session};

/// The longest wait asked for.
const WAIT: Duration = Duration::from_secs(300);
/// How much longer than asked the answer may take.
const WAIT_GRACE: Duration = Duration::from_secs(60);
/// Tasks that are remembered.
const MOST_TASKS: usize = 1000;
/// Objects in one answer.
const PAGE: i32 = 500;
const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(30), jitter: 0.2 };

/// The watched properties of machines: small ones; hardware and settings are read on demand.
const MACHINE_PROPERTIES: [&str; 12] = [
    "name",
    "parent",
    "config.template",
    "config.instanceUuid",
    "config.uuid",
    "config.changeVersion",
    "runtime.powerState",
    "runtime.connectionState",
    "runtime.host",
    "runtime.question",
    "guest.hostName",
    "guest.net",
];

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A machine appeared, changed, or left the view.
    Machine(ManagedObjectReference),
    /// A task appeared, went on, or ended.
    Task(ManagedObjectReference),
    /// The server became reachable, or stopped being so.
    Link,
}

/// Whether the server is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nothing was asked of it yet.
    Idle,
    Up,
    /// Not reachable, or not willing.
    Down {
        since: Timestamp,
        error: VSphereError,
    },
}

/// A machine as far as it is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub name: String,
    pub folder: Option<ManagedObjectReference>,
    pub is_template: bool,
    /// Lower case.
    pub instance_uuid: String,
    /// Lower case.
    pub bios_uuid: String,
    /// `poweredOn` and such.
    pub power: String,
    /// `connected` and such.
    pub connection: String,
    pub host: Option<ManagedObjectReference>,
    pub question: Option<String>,
    pub guest: GuestState,
}

/// A task as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub reference: ManagedObjectReference,
    /// `VirtualMachine.clone`.
    pub what: String,
    /// What it works on: for a clone, the source.
    pub entity: Option<ManagedObjectReference>,
    pub state: TaskState,
    /// Per cent.
    pub progress: Option<i32>,
    /// Whether it was asked to stop.
    pub is_cancelled: bool,
    /// When it was put in line.
    pub queued: Timestamp,
    /// Whether the watch tells of its end; otherwise it has to be asked about again.
    pub is_followed: bool,
}

/// Where a task stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    Running,
    /// With the object that came of it, if any.
    Succeeded(Option<ManagedObjectReference>),
    Failed(Box<FaultReport>),
}

impl Task {
    pub(crate) fn of(reference: &ManagedObjectReference, info: &TaskInfo) -> Self {
        let state = match &info.state {
            TaskInfoState::Success => TaskState::Succeeded(info.result.as_ref().and_then(|result| result.decode().ok())),
            TaskInfoState::Error => TaskState::Failed(Box::new(FaultReport::of_task(info).unwrap_or_else(|| FaultReport {
                kind: String::new(),
                message: "the task failed without saying why".to_owned(),
                details: Vec::new(),
                object: None,
                causes: Vec::new(),
            }))),
            TaskInfoState::Queued | TaskInfoState::Running | TaskInfoState::Other(_) => TaskState::Running,
        };
        Self {
            reference: reference.clone(),
            what: info.description_id.clone(),
            entity: info.entity.clone(),
            state,
            progress: info.progress,
            is_cancelled: info.is_cancelled,
            queued: info.queue_time,
            is_followed: false,
        }
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.state != TaskState::Running
    }
}

/// Told of changes: the server's name, and what changed there.
pub type Listener = Arc<dyn Fn(&str, &Change) + Send + Sync>;

/// Who is told of changes; the first argument is the server's name.
#[derive(Clone, Default)]
pub struct Listeners(Arc<Mutex<Vec<Listener>>>);

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listeners")
    }
}

impl Listeners {
    /// Tells `listener` of every later change.
    pub fn add(&self, listener: Listener) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// Tells all.
    pub fn tell(&self, server: &str, change: &Change) {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for listener in listeners {
            listener(server, change);
        }
    }
}

#[derive(Debug, Default)]
struct World {
    /// With the round in which each was last heard of.
    machines: BTreeMap<ManagedObjectReference, (u64, Seen)>,
    tasks: BTreeMap<ManagedObjectReference, (u64, Task)>,
    /// Folders to be watched.
    folders: BTreeSet<ManagedObjectReference>,
    round: u64,
    link: Option<Link>,
    /// The account may not watch tasks.
    has_hidden_tasks: bool,
}

/// The watch on one server.
#[derive(Debug)]
pub(crate) struct Watch {
    server: String,
    world: Mutex<World>,
    demand: Notify,
    changed: watch::Sender<u64>,
    listeners: Listeners,
    clock: Clock,
    random: Random,
}

impl Watch {
    pub(crate) fn new(server: &str, listeners: Listeners, clock: Clock, random: Random) -> Self {
        Self {
            server: server.to_owned(),
            world: Mutex::default(),
            demand: Notify::new(),
            changed: watch::Sender::new(0),
            listeners,
            clock,
            random,
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a folder's machines to be watched.
    pub(crate) fn want(&self, folder: &ManagedObjectReference) {
        let is_new = self.world().folders.insert(folder.clone());
        if is_new {
            self.demand.notify_one();
        }
    }

    /// Lets a loop that has given up (wrong credentials, another certificate) try again.
    pub(crate) fn nudge(&self) {
        if let Link::Down { error, .. } = self.link()
            && matches!(error.reaction(), Reaction::Credentials | Reaction::Permanent)
        {
            self.demand.notify_one();
        }
    }

    /// A machine as last seen.
    pub(crate) fn seen(&self, machine: &ManagedObjectReference) -> Option<Seen> {
        self.world().machines.get(machine).map(|(_, seen)| seen.clone())
    }

    /// A task as last seen.
    pub(crate) fn task(&self, task: &ManagedObjectReference) -> Option<Task> {
        self.world().tasks.get(task).map(|(_, task)| task.clone())
    }

    /// Whether no task is ever shown.
    pub(crate) fn has_hidden_tasks(&self) -> bool {
        self.world().has_hidden_tasks
    }

    /// Puts in a task that was read directly, if it has ended: one that runs would seem to run for ever.
    pub(crate) fn put_task(&self, task: &Task) {
        if !task.is_over() {
            return;
        }
        let mut world = self.world();
        let round = world.round;
        world.tasks.insert(task.reference.clone(), (round, task.clone()));
    }

    pub(crate) fn link(&self) -> Link {
        self.world().link.clone().unwrap_or(Link::Idle)
    }

    /// Counts changes: for waiting.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn tell(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        self.changed.send_modify(|count| *count += 1);
        for change in changes {
            self.listeners.tell(&self.server, change);
        }
    }

    fn set_link(&self, link: Link) {
        let is_change = {
            let mut world = self.world();
            let is_change = match (&world.link, &link) {
                // The beginning of an outage is kept.
                (Some(Link::Down { error: old, .. }), Link::Down { error: new, .. }) => old != new,
                (old, new) => old.as_ref() != Some(new),
            };
            if is_change {
                let since = match &world.link {
                    Some(Link::Down { since, .. }) => Some(*since),
                    _ => None,
                };
                world.link = Some(match (link, since) {
                    (Link::Down { error, .. }, Some(since)) => Link::Down { since, error },
                    (link, _) => link,
                });
            }
            is_change
        };
        if is_change {
            self.tell(&[Change::Link]);
        }
    }

    /// Follows the server until `token` is cancelled.
    pub(crate) async fn run(self: Arc<Self>, session: Arc<Session>, token: CancellationToken) {
        let mut failures = 0;
        loop {
            let before = self.world().round;
            let followed = tokio::select! {
                biased;
                () = token.cancelled() => return,
                followed = self.follow(&session) => followed,
            };
            let error = match followed {
                Ok(()) => continue,
                Err(error) => error,
            };
            // A round that got as far as its first answer ends a row of failures.
            let has_followed = matches!(self.link(), Link::Up) && self.world().round > before;
            failures = if has_followed { 1 } else { failures + 1 };
            tracing::debug!(server = %self.server, %error, failures, "watch on vCenter broke off");
            let is_session = matches!(&error, VSphereError::Fault { fault, .. } if fault.reaction() == Reaction::Later || fault.reaction() == Reaction::Gone);
            let reaction = error.reaction();
            // A session that ended is made again; that is no outage. But never without a pause: logins must not storm.
            if !(is_session && has_followed) {
                self.set_link(Link::Down { since: self.clock.now_seconds(), error });
            }
            let delay = match reaction {
                _ if is_session && has_followed => BACKOFF.delay(failures, &self.random),
                Reaction::Credentials | Reaction::Permanent => Duration::from_secs(3600),
                _ => BACKOFF.delay(failures, &self.random),
            };
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = self.demand.notified() => {}
                () = self.clock.sleep(delay) => {}
            }
        }
    }

    /// One round: a collector of one login.
    async fn follow(&self, session: &Session) -> Result<(), VSphereError> {
        let mut login = session.current().await?;
        let make = |login: &LoggedIn| CreatePropertyCollector { this: login.content.property_collector.clone() };
        let action = "creating a property collector";
        let collector = match session.call_in(&login, action, &make(&login)).await {
            // A session that ended while nobody used it is made again; that is no outage.
            Err(VSphereError::Fault { fault, .. }) if fault.kind == "NotAuthenticated" => {
                login = session.current().await?;
                session.call_in(&login, action, &make(&login)).await?
            }
            collector => collector?,
        };
        self.begin_round();
        let is_shown = self.watch_tasks(session, &login, &collector).await?;
        self.world().has_hidden_tasks = !is_shown;
        let mut watched = BTreeSet::new();
        let mut version = None;
        let mut is_first = true;
        loop {
            is_first |= self.watch_folders(session, &login, &collector, &mut watched).await?;
            let wait = if is_first { Duration::ZERO } else { WAIT };
            let method = WaitForUpdatesEx {
                this: collector.clone(),
                version: Some(version.clone().unwrap_or_default()),
                options: Some(WaitOptions { max_wait_seconds: i32::try_from(wait.as_secs()).ok(), max_object_updates: Some(PAGE) }),
            };
            let poll = session.poll_in(&login, "waiting for updates", &method, wait + WAIT_GRACE);
            tokio::pin!(poll);
            let answer = tokio::select! {
                biased;
                answer = &mut poll => answer,
                () = self.demand.notified(), if !is_first => {
                    session.call_in(&login, "ending a wait", &CancelWaitForUpdates { this: collector.clone() }).await?;
                    poll.await
                }
            };
            match answer {
                Ok(Some(set)) => {
                    version = Some(set.version.clone());
                    let is_truncated = set.is_truncated == Some(true);
                    self.apply(&set);
                    if is_first && !is_truncated {
                        is_first = false;
                        self.end_first_answer();
                    }
                }
                Ok(None) => {
                    if is_first {
                        is_first = false;
                        self.end_first_answer();
                    }
                }
                Err(VSphereError::Fault { fault, .. }) if fault.kind == "RequestCanceled" => {}
                Err(VSphereError::Fault { fault, .. }) if fault.kind == "InvalidCollectorVersion" => {
                    version = None;
                    is_first = true;
                    self.begin_round();
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn begin_round(&self) {
        self.world().round += 1;
    }

    /// The first answer is complete: what did not come again is gone.
    fn end_first_answer(&self) {
        let changes: Vec<Change> = {
            let mut world = self.world();
            let round = world.round;
            let gone: Vec<ManagedObjectReference> =
                world.machines.iter().filter(|(_, (heard, _))| *heard < round).map(|(reference, _)| reference.clone()).collect();
            for reference in &gone {
                world.machines.remove(reference);
            }
            let over: Vec<ManagedObjectReference> =
                world.tasks.iter().filter(|(_, (heard, _))| *heard < round).map(|(reference, _)| reference.clone()).collect();
            for reference in &over {
                world.tasks.remove(reference);
            }
            gone.into_iter().map(Change::Machine).chain(over.into_iter().map(Change::Task)).collect()
        };
        self.tell(&changes);
        self.set_link(Link::Up);
    }

    /// Whether tasks are shown from now on.
    async fn watch_tasks(&self, session: &Session, login: &LoggedIn, collector: &ManagedObjectReference) -> Result<bool, VSphereError> {
        let Some(manager) = login.content.task_manager.clone() else { return Ok(false) };
        let spec = PropertyFilterSpec {
            property_sets: vec![PropertySpec { kind: "Task".to_owned(), is_all: None, paths: vec!["info".to_owned()] }],
            object_sets: vec![ObjectSpec {
                object: manager,
                is_skipped: Some(true),
                selections: vec![Selection::Traversal(TraversalSpec {
                    name: Some("recent".to_owned()),
                    ..TraversalSpec::along("TaskManager", "recentTask")
                })],
            }],
            report_missing_objects: None,
        };
        let filter = CreateFilter { this: collector.clone(), spec, is_partial: false };
        match session.call_in(login, "watching tasks", &filter).await {
            // An account that may not see tasks: they are read one by one instead.
            Err(VSphereError::Fault { fault, .. }) if !matches!(fault.reaction(), Reaction::Later | Reaction::Gone) => {
                tracing::warn!(server = %self.server, %fault, "tasks cannot be watched; they are read one by one");
                Ok(false)
            }
            other => other.map(|_| true),
        }
    }

    /// Adds what is wanted and not watched yet. Whether something was added.
    async fn watch_folders(
        &self,
        session: &Session,
        login: &LoggedIn,
        collector: &ManagedObjectReference,
        watched: &mut BTreeSet<ManagedObjectReference>,
    ) -> Result<bool, VSphereError> {
        let Some(views) = login.content.view_manager.clone() else { return Ok(false) };
        let wanted: Vec<ManagedObjectReference> =
            self.world().folders.iter().filter(|folder| !watched.contains(*folder)).cloned().collect();
        let mut is_added = false;
        for folder in wanted {
            let view = CreateContainerView {
                this: views.clone(),
                container: folder.clone(),
                kinds: vec!["VirtualMachine".to_owned()],
                is_recursive: true,
            };
            let view = match session.call_in(login, "viewing a folder", &view).await {
                Ok(view) => view,
                Err(VSphereError::Fault { fault, .. }) if fault.kind == "ManagedObjectNotFound" => {
                    self.world().folders.remove(&folder);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let spec = PropertyFilterSpec {
                property_sets: vec![PropertySpec {
                    kind: "VirtualMachine".to_owned(),
                    is_all: None,
                    paths: MACHINE_PROPERTIES.map(str::to_owned).to_vec(),
                }],
                object_sets: vec![ObjectSpec {
                    object: view,
                    is_skipped: Some(true),
                    selections: vec![Selection::Traversal(TraversalSpec {
                        name: Some("view".to_owned()),
                        ..TraversalSpec::along("ContainerView", "view")
                    })],
                }],
                report_missing_objects: None,
            };
            session.call_in(login, "watching a folder", &CreateFilter { this: collector.clone(), spec, is_partial: false }).await?;
            watched.insert(folder);
            is_added = true;
        }
        Ok(is_added)
    }

    fn apply(&self, set: &UpdateSet) {
        let mut changes = Vec::new();
        {
            let mut world = self.world();
            for update in set.filters.iter().flat_map(|filter| &filter.objects) {
                changes.extend(apply_update(&mut world, update));
            }
        }
        changes.dedup();
        self.tell(&changes);
    }
}

fn apply_update(world: &mut World, update: &ObjectUpdate) -> Option<Change> {
    let reference = &update.object;
    let round = world.round;
    match (reference.kind.as_str(), &update.kind) {
        ("Task", ObjectUpdateKind::Leave) => {
            // The server forgets it; what it came to stays known until the next round.
            None
        }
        ("Task", _) => {
            let value = update.changes.iter().find(|change| change.name == "info").and_then(|change| change.value.as_ref())?;
            let info: TaskInfo = value.decode().ok()?;
            let task = Task { is_followed: true, ..Task::of(reference, &info) };
            let old = world.tasks.insert(reference.clone(), (round, task.clone()));
            forget_old_tasks(world);
            // Progress alone is no news: nobody acts on it.
            let is_news = old.is_none_or(|(_, old)| (&old.state, old.is_cancelled) != (&task.state, task.is_cancelled));
            is_news.then(|| Change::Task(reference.clone()))
        }
        ("VirtualMachine", ObjectUpdateKind::Leave) => {
            world.machines.remove(reference);
            Some(Change::Machine(reference.clone()))
        }
        ("VirtualMachine", _) => {
            let is_new = !world.machines.contains_key(reference);
            let (heard, seen) = world.machines.entry(reference.clone()).or_default();
            *heard = round;
            let old = seen.clone();
            for change in &update.changes {
                apply_change(seen, change);
            }
            (is_new || old != *seen).then(|| Change::Machine(reference.clone()))
        }
        _ => None,
    }
}

/// Tasks that ended stay known after the server has forgotten them, up to a number.
fn forget_old_tasks(world: &mut World) {
    if world.tasks.len() <= MOST_TASKS {
        return;
    }
    let over = world.tasks.iter().filter(|(_, (_, task))| task.is_over());
    if let Some(oldest) = over.min_by_key(|(_, (_, task))| task.queued).map(|(reference, _)| reference.clone()) {
        world.tasks.remove(&oldest);
    }
}

fn apply_change(seen: &mut Seen, change: &PropertyChange) {
    let text = || change.value.as_ref().and_then(AnyValue::text).unwrap_or_default().to_owned();
    let reference = || change.value.as_ref().and_then(|value| value.decode().ok());
    match change.name.as_str() {
        "name" => seen.name = text(),
        "parent" => seen.folder = reference(),
        "config.template" => seen.is_template = text() == "true",
        "config.instanceUuid" => seen.instance_uuid = text().to_ascii_lowercase(),
        "config.uuid" => seen.bios_uuid = text().to_ascii_lowercase(),
        "runtime.powerState" => seen.power = text(),
        "runtime.connectionState" => seen.connection = text(),
        "runtime.host" => seen.host = reference(),
        "runtime.question" => {
            let question: Option<VirtualMachineQuestionInfo> = change.value.as_ref().and_then(|value| value.decode().ok());
            seen.question = question.map(|question| question.text);
        }
        "guest.hostName" => seen.guest.host_name = Some(text()).filter(|name| !name.is_empty()),
        "guest.net" => seen.guest.nics = change.value.as_ref().and_then(|value| value.decode_array().ok()).unwrap_or_default(),
        _ => {}
    }
}
