//! One controller: a queue of keys, what feeds it, and the loop that runs its reconciler.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use kube::Resource;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::key::ObjectKey;
use super::queue::{Outcome, Queue, Settled};
use super::store::{Object, Store};
use super::stores::Stores;
use super::{Action, Error, Reconciler};
use crate::clock::Clock;
use crate::log::Log;
use crate::random::Random;

/// A reconcile that takes longer has hung: it is dropped and counts as failed.
const LONGEST_RUN: Duration = Duration::from_secs(300);
/// How long running reconciles may go on after the end was asked for.
const GRACE: Duration = Duration::from_secs(2);

tokio::task_local! {
    /// The controller and key whose reconcile this task carries out now.
    static CURRENT: (Arc<str>, ObjectKey);
}

struct Shared {
    name: Arc<str>,
    clock: Clock,
    queue: Mutex<Queue>,
    notify: Notify,
    is_running: watch::Sender<bool>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, key: &ObjectKey) {
        let is_own = CURRENT.try_with(|(name, running)| *name == self.name && running == key).unwrap_or(false);
        self.queue().add(key, is_own, self.clock.instant());
        self.notify.notify_one();
    }
}

/// Wakes keys of a controller from outside the API: an event of vCenter, a change in a workload cluster. Cheap to clone.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
    keys: Arc<dyn Fn() -> Vec<ObjectKey> + Send + Sync>,
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("controller", &self.shared.name).finish_non_exhaustive()
    }
}

impl Waker {
    /// Puts `key` in line.
    pub fn wake(&self, key: &ObjectKey) {
        self.shared.add(key);
    }

    /// Puts every object in line.
    pub fn wake_all(&self) {
        for key in (self.keys)() {
            self.shared.add(&key);
        }
    }
}

/// How a controller is doing. Cheap to clone.
#[derive(Clone)]
pub struct Health(Arc<Shared>);

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Health").field(&self.0.name).finish()
    }
}

/// A key whose last reconcile failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    pub key: ObjectKey,
    pub error: String,
    /// How often in a row.
    pub failures: u32,
}

/// How a controller is doing at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    pub name: String,
    /// Whether its stores have come and it takes keys.
    pub is_running: bool,
    pub ready: usize,
    pub running: usize,
    pub delayed: usize,
    pub failing: Vec<Failing>,
}

impl Health {
    /// The present state.
    pub fn report(&self) -> HealthReport {
        let queue = self.0.queue();
        let failing = queue.failing().into_iter().map(|(key, error, failures)| Failing { key, error, failures }).collect();
        HealthReport {
            name: self.0.name.to_string(),
            is_running: *self.0.is_running.borrow(),
            ready: queue.ready(),
            running: queue.running(),
            delayed: queue.delayed(),
            failing,
        }
    }

    /// Completes when the controller takes keys.
    pub async fn running(&self) {
        let _ = self.0.is_running.subscribe().wait_for(|is_running| *is_running).await;
    }
}

/// Builds and runs the loop of one reconciler.
pub struct Controller<R: Reconciler> {
    reconciler: Arc<R>,
    store: Store<R::Kind>,
    stores: Stores,
    clock: Clock,
    random: Random,
    log: Log,
    shared: Arc<Shared>,
    needed: Vec<BoxFuture<'static, ()>>,
    limit: usize,
    backoff: Backoff,
}

impl<R: Reconciler> fmt::Debug for Controller<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl<R: Reconciler> Controller<R> {
    /// A controller called `name` that runs `reconciler` for every object of its kind, whenever the object changes.
    pub fn new(name: &str, reconciler: R, stores: &Stores, random: &Random, log: &Log) -> Self
    where
        <R::Kind as kube::Resource>::DynamicType: Default,
    {
        let store = stores.get::<R::Kind>();
        Self::over(name, reconciler, store, stores, random, log)
    }

    /// As [`Controller::new`], over a store of one's own (a kind known at run time only, or a part of the objects).
    pub fn over(name: &str, reconciler: R, store: Store<R::Kind>, stores: &Stores, random: &Random, log: &Log) -> Self {
        let shared = Arc::new(Shared {
            name: Arc::from(name),
            clock: stores.clock().clone(),
            queue: Mutex::default(),
            notify: Notify::new(),
            is_running: watch::Sender::new(false),
        });
        let controller = Self {
            reconciler: Arc::new(reconciler),
            store: store.clone(),
            stores: stores.clone(),
            clock: stores.clock().clone(),
            random: random.child(name),
            log: log.clone(),
            shared,
            needed: Vec::new(),
            limit: 10,
            backoff: Backoff::RECONCILE,
        };
        controller.watches_store(&store, |object| vec![ObjectKey::of(object.meta())])
    }

    /// Runs the owner, when an object of `K` changes that this controller's kind owns (`ownerReferences` with this kind and group).
    #[must_use]
    pub fn owns<K: Object>(self) -> Self
    where
        K::DynamicType: Default,
    {
        let store = self.stores.get::<K>();
        self.owns_in(&store)
    }

    /// As [`Controller::owns`], over a given store.
    #[must_use]
    pub fn owns_in<K: Object>(self, store: &Store<K>) -> Self {
        let kind = R::Kind::kind(self.store.dyntype()).into_owned();
        let group = R::Kind::group(self.store.dyntype()).into_owned();
        self.watches_store(store, move |object: &K| {
            let owners = object.meta().owner_references.iter().flatten();
            let is_ours = |api_version: &str| api_version.split_once('/').map_or("", |(group, _)| group) == group;
            let ours = owners.filter(|owner| owner.kind == kind && is_ours(&owner.api_version));
            ours.map(|owner| ObjectKey { namespace: object.meta().namespace.clone(), name: owner.name.clone() }).collect()
        })
    }

    /// Runs the keys that `keys` names, when an object of `K` changes (asked for the object as it was and as it is).
    #[must_use]
    pub fn watches<K: Object>(self, keys: impl Fn(&K) -> Vec<ObjectKey> + Send + Sync + 'static) -> Self
    where
        K::DynamicType: Default,
    {
        let store = self.stores.get::<K>();
        self.watches_store(&store, keys)
    }

    /// As [`Controller::watches`], for those changes only of which `matters`, asked for the object as it was and as it is, says so. It must
    /// say so of everything that the reconciler reads.
    #[must_use]
    pub fn watches_when<K: Object>(
        self,
        matters: impl Fn(&K, &K) -> bool + Send + Sync + 'static,
        keys: impl Fn(&K) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) -> Self
    where
        K::DynamicType: Default,
    {
        let store = self.stores.get::<K>();
        self.watches_changes(&store, matters, keys)
    }

    /// As [`Controller::watches`], over a given store.
    #[must_use]
    pub fn watches_store<K: Object>(self, store: &Store<K>, keys: impl Fn(&K) -> Vec<ObjectKey> + Send + Sync + 'static) -> Self {
        self.watches_changes(store, |_, _| true, keys)
    }

    fn watches_changes<K: Object>(
        mut self,
        store: &Store<K>,
        matters: impl Fn(&K, &K) -> bool + Send + Sync + 'static,
        keys: impl Fn(&K) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::clone(&self.shared);
        store.subscribe(move |old, new| {
            if old.zip(new).is_some_and(|(old, new)| !matters(old, new)) {
                return;
            }
            let before = old.map(|old| keys(old)).unwrap_or_default();
            let now = new.map(|new| keys(new)).unwrap_or_default();
            for key in before.iter().filter(|key| !now.contains(key)).chain(&now) {
                shared.add(key);
            }
        });
        let store = store.clone();
        self.needed.push(async move { store.synced().await }.boxed());
        self
    }

    /// Waits for the first list of `store` before the first reconcile, without being woken by it.
    #[must_use]
    pub fn reads<K: Object>(mut self, store: &Store<K>) -> Self {
        let store = store.clone();
        self.needed.push(async move { store.synced().await }.boxed());
        self
    }

    /// How long a key rests after a run before changes run it again (not at all unless told). What changes in quick succession is then
    /// looked at once; the first change is looked at without delay.
    #[must_use]
    pub fn rest(self, rest: Duration) -> Self {
        self.shared.queue().set_rest(rest);
        self
    }

    /// How many keys may run at the same time (10 unless told).
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.max(1);
        self
    }

    /// The delays after failures ([`Backoff::RECONCILE`] unless told).
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// A handle that puts keys in line from outside.
    pub fn waker(&self) -> Waker {
        let store = self.store.clone();
        Waker { shared: Arc::clone(&self.shared), keys: Arc::new(move || store.keys()) }
    }

    /// A handle that tells how the controller is doing.
    pub fn health(&self) -> Health {
        Health(Arc::clone(&self.shared))
    }

    /// Runs until `token` is cancelled; then running reconciles get a short time to end.
    pub async fn run(mut self, token: CancellationToken) {
        let needed = std::mem::take(&mut self.needed);
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            _ = futures::future::join_all(needed) => {}
        }
        self.shared.is_running.send_replace(true);
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < self.limit {
                let taken = self.shared.queue().take(self.clock.instant());
                let Some(key) = taken else { break };
                running.push(self.attempt(key));
            }
            let due = self.shared.queue().next_due().filter(|_| running.len() < self.limit);
            tokio::select! {
                biased;
                () = token.cancelled() => break,
                Some((key, outcome)) = running.next(), if !running.is_empty() => self.finish(&key, outcome),
                () = self.shared.notify.notified(), if running.len() < self.limit => {}
                () = until(due), if due.is_some() => {}
            }
        }
        self.shared.is_running.send_replace(false);
        let rest = async { while running.next().await.is_some() {} };
        // What does not end in time is dropped; the next start continues from what is observed.
        let _ = tokio::time::timeout(GRACE, rest).await;
    }

    fn attempt(&self, key: ObjectKey) -> BoxFuture<'static, (ObjectKey, Result<Action, Error>)> {
        let reconciler = Arc::clone(&self.reconciler);
        let current = (Arc::clone(&self.shared.name), key.clone());
        let run = async move {
            let run = AssertUnwindSafe(reconciler.reconcile(&key)).catch_unwind();
            let result = match tokio::time::timeout(LONGEST_RUN, run).await {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => Err(Error::message(format!("reconcile panicked: {}", panic_text(&*panic)))),
                Err(_) => Err(Error::message(format!("reconcile did not end within {} s and was dropped", LONGEST_RUN.as_secs()))),
            };
            (key, result)
        };
        CURRENT.scope(current, run).boxed()
    }

    fn finish(&self, key: &ObjectKey, result: Result<Action, Error>) {
        let name = &*self.shared.name;
        let outcome = match result {
            Ok(Action::Done) => Outcome::Done,
            Ok(Action::RequeueAfter(after)) => Outcome::After(after),
            Err(error) if error.is_conflict() => {
                tracing::debug!(controller = name, %key, %error, "lost a race");
                Outcome::Failed { error: error.to_string(), is_counted: false }
            }
            Err(error) => {
                self.log.record(name, "reconcile", key, format_args!("failed: {error}"));
                Outcome::Failed { error: error.to_string(), is_counted: true }
            }
        };
        let delay = |failures| self.backoff.delay(failures, &self.random);
        let settled = self.shared.queue().finish(key, outcome, self.clock.instant(), delay);
        if settled == Settled::Restless {
            self.log.record(name, "reconcile", key, "does not settle: every pass changes the object again; slowed down");
        }
    }
}

async fn until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}
