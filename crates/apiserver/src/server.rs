//! The server as a value: its state behind one lock, the path a write takes to the journal, its few tasks and their end.
//!
//! ```text
//!            inline journal:  decide -> [lock: stage, append, commit] -> tap -> answer
//!   file: decide -> [lock: stage] -> queue -> writer task: append a batch (may block) -> [lock: commit] -> tap -> answer
//! ```
//!
//! A write is decided outside the lock on the latest state and only staged if that state is still the latest; else it is decided again.
//! An answer is never given before the journal has the record. After a failed append no further write is accepted: what the journal holds
//! is then not known, and the remedy is to open it again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use apimachinery::StatusError;
use apimachinery::admission::{Admission, Conversion};
use bytes::Bytes;
use runtime::clock::Clock;
use runtime::defects::{Defect, Defects};
use runtime::random::Random;
use serde_json::Value;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::definition;
use crate::event::{Change, Event};
use crate::journal::{Journal, JournalError, Record};
use crate::object::{Content, Entry, ObjectKey, ResourceId};
use crate::options::{OpenError, Options};
use crate::registry::Registry;
use crate::store::{Staged, Store};

/// A write that was made durable and is about to be answered.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    pub revision: u64,
    /// API group of the storage; empty for the core group.
    pub group: String,
    /// Plural name.
    pub resource: String,
    /// Empty for objects of the cluster.
    pub namespace: String,
    pub name: String,
    /// The object as it was stored; absent when it was deleted.
    pub object: Option<Bytes>,
    /// What those bytes say.
    pub value: Option<Arc<Value>>,
}

type Tap = dyn Fn(&Acknowledged) + Send + Sync;
type Check = dyn Fn() -> Result<(), String> + Send + Sync;

/// Why a write was not made.
#[derive(Debug)]
pub enum CommitError {
    /// The object is no longer in the state the write was decided on.
    Moved,
    /// The namespace of a new object is gone, or going.
    Homeless,
    /// The journal is not to be relied on, or the server is closing.
    Unavailable(String),
    /// The object cannot be encoded.
    Encoding(String),
}

impl From<CommitError> for StatusError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Moved => Self::timeout("the object keeps changing; please try again", 1),
            CommitError::Homeless => Self::timeout("the namespace is being deleted; please try again", 1),
            CommitError::Unavailable(reason) => Self::unavailable(reason),
            CommitError::Encoding(reason) => Self::internal(&reason),
        }
    }
}

struct Waiting {
    staged: Staged,
    answer: oneshot::Sender<Result<(), String>>,
}

/// What the one lock guards.
#[derive(Default)]
pub struct State {
    pub store: Store,
    queue: Vec<Waiting>,
    broken: Option<String>,
}

/// Everything the tasks and the services share.
pub struct Inner {
    pub clock: Clock,
    /// UIDs.
    pub uids: Random,
    /// Suffixes of generated names.
    pub names: Random,
    /// Lengths of watches whose client gives none.
    pub timeouts: Random,
    pub admission: Arc<dyn Admission>,
    pub conversion: Arc<dyn Conversion>,
    pub version: String,
    pub cluster_id: String,
    defects: Defects,
    /// Given back when the server has closed, whoever still holds a part of it.
    journal: Mutex<Option<Arc<dyn Journal>>>,
    is_inline: bool,
    state: Mutex<State>,
    registry: RwLock<Arc<Registry>>,
    taps: Mutex<Vec<Arc<Tap>>>,
    checks: Mutex<BTreeMap<String, Arc<Check>>>,
    /// While the server opens, definitions come read and need no second look.
    pub is_installing: AtomicBool,
    /// Woken when something waits for the journal.
    queued: Notify,
    /// Woken when chores came up.
    pub chores: Notify,
    pub closing: CancellationToken,
    /// Cancelled when the state could not be written.
    pub failed: CancellationToken,
}

/// An embedded API server. Cheap to clone; ends when [`ApiServer::close`] is called or the last clone (services and clients included) is dropped.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) inner: Arc<Inner>,
    handle: Arc<Handle>,
}

struct Handle {
    tasks: Mutex<Vec<JoinHandle<()>>>,
    _ended_on_drop: DropGuard,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("cluster_id", &self.inner.cluster_id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("cluster_id", &self.cluster_id).finish_non_exhaustive()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// The state, locked. Never held across waiting.
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// What is served now.
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is served.
    pub fn change_registry(&self, change: impl FnOnce(&mut Registry)) {
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = Registry::clone(&registry);
        change(&mut changed);
        *registry = Arc::new(changed);
    }

    /// The committed object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Entry>> {
        self.state().store.get(key).cloned()
    }

    /// The object as a write has to see it.
    pub fn latest(&self, key: &ObjectKey) -> Option<Arc<Entry>> {
        self.state().store.latest(key).cloned()
    }

    /// Writes `object` (or deletes, when absent), provided the latest state of `key` still has the revision the write was decided on
    /// (`None`: there is no such object). Returns the entry as it was stored; for a deletion the last state at the deletion's revision.
    pub async fn commit(&self, key: &ObjectKey, based_on: Option<u64>, content: Option<Content>) -> Result<Arc<Entry>, CommitError> {
        let (event, waiting) = {
            let mut state = self.state();
            if self.closing.is_cancelled() {
                return Err(CommitError::Unavailable("the server is shutting down".to_owned()));
            }
            if let Some(reason) = &state.broken {
                return Err(CommitError::Unavailable(reason.clone()));
            }
            if state.store.latest(key).map(|entry| entry.revision) != based_on {
                return Err(CommitError::Moved);
            }
            if based_on.is_none() && !key.namespace.is_empty() && !state.store.is_home(&key.namespace) {
                return Err(CommitError::Homeless);
            }
            let staged = state.store.stage(key, content).map_err(|error| CommitError::Encoding(error.to_string()))?;
            let Some(staged) = staged else { return Err(CommitError::Moved) };
            let event = staged.event.clone();
            if self.is_inline {
                self.append_inline(&mut state, staged)?;
                (event, None)
            } else {
                let (answer, waiting) = oneshot::channel();
                state.queue.push(Waiting { staged, answer });
                self.queued.notify_one();
                (event, Some(waiting))
            }
        };
        match waiting {
            None => self.after_commit(&event),
            Some(waiting) => match waiting.await {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => return Err(CommitError::Unavailable(reason)),
                Err(_) => return Err(CommitError::Unavailable("the server is shutting down".to_owned())),
            },
        }
        Ok(event.entry.clone())
    }

    fn append(&self, batch: &[Record]) -> Result<(), JournalError> {
        let journal = lock(&self.journal).clone();
        journal.map_or(Err(JournalError::Replaced), |journal| journal.append(batch))
    }

    fn append_inline(&self, state: &mut State, staged: Staged) -> Result<(), CommitError> {
        let batch = if self.defects.has(Defect::AcknowledgeEarly) { state.store.hold_back(staged.record) } else { vec![staged.record] };
        if let Err(error) = self.append(&batch) {
            let reason = broken(&error);
            state.store.abandon();
            state.broken = Some(reason.clone());
            self.failed.cancel();
            return Err(CommitError::Unavailable(reason));
        }
        state.store.commit(&staged.event);
        Ok(())
    }

    /// What follows from a committed write, before it is answered.
    fn after_commit(&self, event: &Event) {
        let entry = &event.entry;
        if definition::is_definition(&entry.key.resource) && !self.is_installing.load(Ordering::Relaxed) {
            definition::refresh(self, &entry.key.name);
        }
        let taps = lock(&self.taps).clone();
        if !taps.is_empty() {
            let acknowledged = Acknowledged {
                revision: event.revision,
                group: entry.key.resource.group.to_string(),
                resource: entry.key.resource.resource.to_string(),
                namespace: entry.key.namespace.to_string(),
                name: entry.key.name.to_string(),
                object: (event.change != Change::Deleted).then(|| entry.bytes.clone()),
                value: (event.change != Change::Deleted).then(|| entry.shared()),
            };
            for tap in taps {
                tap(&acknowledged);
            }
        }
        if self.state().store.has_chores() {
            self.chores.notify_one();
        }
    }

    /// Appends what is queued, batch by batch, until the server closes.
    async fn write_batches(self: Arc<Self>) {
        loop {
            let is_closing = tokio::select! {
                biased;
                () = self.queued.notified() => false,
                () = self.closing.cancelled() => true,
            };
            loop {
                let batch = std::mem::take(&mut self.state().queue);
                if batch.is_empty() {
                    break;
                }
                self.write_batch(batch).await;
            }
            if is_closing {
                return;
            }
        }
    }

    async fn write_batch(&self, batch: Vec<Waiting>) {
        let (staged, answers): (Vec<Staged>, Vec<_>) = batch.into_iter().map(|waiting| (waiting.staged, waiting.answer)).unzip();
        let (records, events): (Vec<_>, Vec<_>) = staged.into_iter().map(|staged| (staged.record, staged.event)).unzip();
        let journal = lock(&self.journal).clone();
        let append = move || journal.map_or(Err(JournalError::Replaced), |journal| journal.append(&records));
        let append = tokio::task::spawn_blocking(append);
        let is_early = self.defects.has(Defect::AcknowledgeEarly);
        let appended = if is_early {
            drop(append);
            Ok(())
        } else {
            match append.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(broken(&error)),
                Err(error) => Err(format!("the state could not be written: {error}")),
            }
        };
        if let Err(reason) = appended {
            let queued = {
                let mut state = self.state();
                state.store.abandon();
                state.broken = Some(reason.clone());
                self.failed.cancel();
                std::mem::take(&mut state.queue)
            };
            for answer in answers.into_iter().chain(queued.into_iter().map(|waiting| waiting.answer)) {
                // A receiver that is gone no longer waits for the answer.
                drop(answer.send(Err(reason.clone())));
            }
            return;
        }
        {
            let mut state = self.state();
            for event in &events {
                state.store.commit(event);
            }
        }
        for event in &events {
            self.after_commit(event);
        }
        for answer in answers {
            drop(answer.send(Ok(())));
        }
    }

    /// The named checks of readiness, with what is wrong.
    pub fn run_checks(&self) -> Vec<(String, Result<(), String>)> {
        let journal = match (&self.state().broken, self.closing.is_cancelled()) {
            (Some(reason), _) => Err(reason.clone()),
            (None, true) => Err("shutting down".to_owned()),
            (None, false) => Ok(()),
        };
        let checks: Vec<_> = lock(&self.checks).iter().map(|(name, check)| (name.clone(), check.clone())).collect();
        let mut results = vec![("ping".to_owned(), Ok(())), ("journal".to_owned(), journal)];
        results.extend(checks.into_iter().map(|(name, check)| {
            let result = check();
            (name, result)
        }));
        results
    }
}

fn broken(error: &dyn std::error::Error) -> String {
    let mut text = format!("the state could not be written: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.push_str("; no further change is accepted until the server is started again");
    text
}

impl ApiServer {
    /// Opens a server: loads the journal, installs the definitions, makes the namespaces that every cluster has, and starts the tasks.
    ///
    /// # Errors
    /// When the journal cannot be read or written or holds damaged objects, or a definition is not usable.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let Options { clock, random, mut journal, crds, admission, conversion, builtins, defects, version } = options;
        let prepared = crds.prepared()?;
        let contents = journal.load()?;
        let cluster_id = match contents.cluster_id {
            Some(id) => id,
            None => {
                let id = random.child("cluster-id").uuid().to_string();
                journal.name(&id)?;
                id
            }
        };
        let mut entries = Vec::with_capacity(contents.values.len());
        for (text, bytes) in contents.values {
            let key = ObjectKey::from_journal(&text)
                .ok_or_else(|| OpenError::Start { what: "sense of the state".to_owned(), reason: format!("{text} is not a key") })?;
            entries.push(Entry::decode(key, bytes).map_err(|source| OpenError::Object { key: text, source })?);
        }
        let store = Store::restored(contents.revision, entries);
        // Draws are made independent of those of an earlier life with the same source.
        let random = random.child(&format!("apiserver {}", contents.revision));
        let closing = CancellationToken::new();
        let inner = Arc::new(Inner {
            uids: random.child("uid"),
            names: random.child("name"),
            timeouts: random.child("timeout"),
            clock,
            admission,
            conversion,
            version,
            cluster_id,
            defects,
            is_inline: journal.is_inline(),
            journal: Mutex::new(Some(Arc::from(journal))),
            state: Mutex::new(State { store, queue: Vec::new(), broken: None }),
            registry: RwLock::new(Arc::new(Registry::builtin(builtins))),
            taps: Mutex::default(),
            checks: Mutex::default(),
            is_installing: AtomicBool::new(true),
            queued: Notify::new(),
            chores: Notify::new(),
            closing: closing.clone(),
            failed: CancellationToken::new(),
        });
        let server =
            Self { inner: inner.clone(), handle: Arc::new(Handle { tasks: Mutex::default(), _ended_on_drop: closing.drop_guard() }) };
        if !inner.is_inline {
            lock(&server.handle.tasks).push(tokio::spawn(inner.clone().write_batches()));
        }
        definition::install(&inner, prepared).await?;
        inner.is_installing.store(false, Ordering::Relaxed);
        crate::namespaces::make_defaults(&inner).await?;
        lock(&server.handle.tasks).push(tokio::spawn(crate::housekeeping::run(inner)));
        Ok(server)
    }

    /// Calls `tap` with every later write, after it is durable and before it is answered. In the order of revisions, as long as the runtime
    /// has one thread; where writes run side by side, their taps may as well.
    pub fn on_acknowledged(&self, tap: impl Fn(&Acknowledged) + Send + Sync + 'static) {
        lock(&self.inner.taps).push(Arc::new(tap));
    }

    /// Adds a check that `/readyz` asks; a later one of the same name takes its place. An error says what is not ready.
    pub fn add_ready_check(&self, name: impl Into<String>, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        lock(&self.inner.checks).insert(name.into(), Arc::new(check));
    }

    /// All objects, in the version they are stored in, by kind, namespace and name.
    pub fn snapshot(&self) -> Vec<Value> {
        let entries: Vec<Arc<Entry>> = self.inner.state().store.all().cloned().collect();
        entries.iter().map(|entry| entry.value()).collect()
    }

    /// The objects of one kind, in the version they are stored in.
    pub fn snapshot_of(&self, group: &str, plural: &str) -> Vec<Value> {
        let entries = self.inner.state().store.list(&ResourceId::new(group, plural), None);
        entries.iter().map(|entry| entry.value()).collect()
    }

    /// Names the state: drawn when the journal was made, kept as long as the journal.
    pub fn cluster_id(&self) -> &str {
        &self.inner.cluster_id
    }

    /// The revision of the last committed write.
    pub fn revision(&self) -> u64 {
        self.inner.state().store.revision()
    }

    /// Whether [`ApiServer::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.inner.closing.is_cancelled()
    }

    /// Completes with the reason when the state could not be written: no further change is accepted then.
    pub async fn failed(&self) -> String {
        self.inner.failed.cancelled().await;
        self.inner.state().broken.clone().unwrap_or_default()
    }

    /// Ends the server as a kill does, for simulated runs: from now on nothing is answered and nothing is written, whoever still holds a part of
    /// it. What was not in the journal yet is lost.
    pub fn crash(&self) {
        self.inner.closing.cancel();
        drop(lock(&self.inner.journal).take());
        let mut state = self.inner.state();
        state.queue.clear();
        state.broken = Some("the server crashed".to_owned());
        state.store.end_all_watches();
        drop(state.store.held_back());
    }

    /// Ends the server: no further request is served, watches end, and what was accepted is in the journal when this returns. The journal
    /// is given back, so that another server can open it, even while clients and streams of this one are still held.
    pub async fn close(self) {
        self.inner.closing.cancel();
        let tasks = std::mem::take(&mut *lock(&self.handle.tasks));
        for task in tasks {
            // A task that panicked has nothing more to say.
            drop(task.await);
        }
        let mut state = self.inner.state();
        state.store.end_all_watches();
        let held_back = state.store.held_back();
        drop(state);
        if !held_back.is_empty() && self.inner.append(&held_back).is_err() {
            tracing::warn!("the state could not be written at the end");
        }
        drop(lock(&self.inner.journal).take());
    }
}
