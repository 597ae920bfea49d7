//! The product's way to workload clusters: follows Clusters, their kubeconfig secrets and control planes' addresses, and keeps one
//! connection with one watch on Nodes per cluster.
//!
//! ```text
//!   Waiting (secret, address) --> connecting --list+watch Nodes--> Connected --watch lost--> Disconnected --retry--> ...
//!                                     ^                                                          |
//!                                     +--- back-off 50 ms to 5 s, or hastened by a change -------+
//! ```
//!
//! Writes are jobs: handed in only while connected (a plan that still needs them hands them in again), carried out within a limit each, and
//! tapped when done. A job that is in line already is not taken twice.
//!
//! ```text
//!   Node a:   patch -> look -> evict -> evict -> ...     a lane each: in order within it, [`LANES`] of them at a time
//!   Node b:   look -> ...
//!   no Node:  apply -> apply -> ...                      waits for none of them, and keeps none of them waiting
//! ```
//!
//! Pods are read only while a drain asks for them, or a Node is held back: there is no watch on what is no Node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::cluster::{Cluster, Machine};
use api::meta::MachineAddressType;
use api::names::{labels, secrets};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Secret};
use runtime::clock::Clock;
use runtime::http::{Connector, kube_client};
use runtime::log::Log;
use runtime::net::Dialer;
use runtime::random::Random;
use runtime::reconcile::{Backoff, Link, ObjectKey, Store, Stores};
use runtime::tls::Tls;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::direct::{DirectDialer, Targets};
use super::job::{self, Done, Job};
use super::kubeconfig::{self, Settings};
use super::load::{Attempt, Eviction, Load, Look};
use super::{Applied, Change, Clusters, Connection, Inspection, Tap};

/// Where Talos' API server listens on each control plane, unless the Cluster says otherwise.
const API_SERVER_PORT: u16 = 6443;
/// Between tries to reach a workload cluster: often, because a cluster that comes up is waited for.
const RETRY: Backoff = Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(5), jitter: 0.2 };
/// How many Nodes of a cluster are worked on at a time.
const LANES: usize = 8;

/// Workload clusters over the network. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Accessor(Arc<Inner>);

struct Inner {
    clusters: Store<Cluster>,
    machines: Store<Machine>,
    secrets: Store<Secret>,
    clock: Clock,
    random: Random,
    log: Log,
    tls: Tls,
    dialer: Arc<dyn Dialer>,
    token: CancellationToken,
    entries: Mutex<BTreeMap<ObjectKey, Entry>>,
    taps: Mutex<Vec<Tap>>,
}

#[derive(Clone)]
struct Entry {
    shared: Arc<Shared>,
    token: CancellationToken,
}

struct Shared {
    state: Mutex<State>,
    /// The secret, an address or the wish to hasten changed.
    changed: Notify,
    lanes: Semaphore,
}

struct State {
    /// When this process began to look for the cluster.
    began: Timestamp,
    connection: Connection,
    store: Option<Store<Node>>,
    client: Option<kube::Client>,
    /// What the store before the present one held; shown until the present one has its list.
    before: Vec<Arc<Node>>,
    queued: BTreeSet<String>,
    /// Jobs in line, by the Node that they are about. A lane that is here has a task that works on it.
    lanes: BTreeMap<Option<String>, VecDeque<Job>>,
    /// What is on Nodes that are drained, by name.
    loads: BTreeMap<String, Load>,
    inspection: Option<Arc<Inspection>>,
    applied: BTreeMap<String, Applied>,
    /// What the last call about each Node failed with, by name.
    troubles: BTreeMap<String, String>,
    /// Failures in a row, by lane.
    failures: BTreeMap<Option<String>, u32>,
}

impl State {
    /// Nobody asks about a Node that is gone.
    fn forget(&mut self, node: &str) {
        self.loads.remove(node);
        self.troubles.remove(node);
        self.failures.remove(&Some(node.to_owned()));
    }

    /// Counts the failures of a lane in a row; none after a success.
    fn failed(&mut self, lane: Option<&str>, is_failure: bool) -> Option<u32> {
        let lane = lane.map(str::to_owned);
        if !is_failure {
            self.failures.remove(&lane);
            return None;
        }
        let failures = self.failures.entry(lane).or_default();
        *failures = failures.saturating_add(1);
        Some(*failures)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Accessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accessor")
    }
}

/// What an accessor is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The stores of the management API, shared with the controllers.
    pub stores: Stores,
    pub random: Random,
    pub log: Log,
    pub tls: Tls,
    pub dialer: Arc<dyn Dialer>,
    /// Ends all connections.
    pub token: CancellationToken,
}

impl Accessor {
    /// No connection yet. Must be called in a runtime.
    pub fn new(parts: Parts) -> Self {
        let inner = Arc::new(Inner {
            clusters: parts.stores.get(),
            machines: parts.stores.get(),
            secrets: parts.stores.get(),
            clock: parts.stores.clock().clone(),
            random: parts.random.child("workload"),
            log: parts.log,
            tls: parts.tls,
            dialer: parts.dialer,
            token: parts.token,
            entries: Mutex::default(),
            taps: Mutex::default(),
        });
        let weak = Arc::downgrade(&inner);
        inner.clusters.subscribe(move |old, new| {
            let (Some(inner), Some(old)) = (weak.upgrade(), old) else { return };
            let is_same = new.is_some_and(|new| new.metadata.uid == old.metadata.uid);
            if !is_same && let Some(entry) = inner.entries().remove(&ObjectKey::of(&old.metadata)) {
                entry.token.cancel();
            }
        });
        let weak = Arc::downgrade(&inner);
        inner.secrets.subscribe(move |old, new| {
            let (Some(inner), Some(secret)) = (weak.upgrade(), new.or(old)) else { return };
            let cluster = secret.metadata.name.as_deref().and_then(|name| name.strip_suffix("-kubeconfig"));
            if let Some(cluster) = cluster {
                inner.nudge(&ObjectKey { namespace: secret.metadata.namespace.clone(), name: cluster.to_owned() });
            }
        });
        let weak = Arc::downgrade(&inner);
        inner.machines.subscribe(move |old, new| {
            let (Some(inner), Some(machine)) = (weak.upgrade(), new.or(old)) else { return };
            if old.map(|old| addresses(old)) != new.map(|new| addresses(new)) {
                inner.nudge(&ObjectKey { namespace: machine.metadata.namespace.clone(), name: machine.spec.cluster_name.clone() });
            }
        });
        Self(inner)
    }
}

/// The addresses of a Machine that may be dialled: none unless it is a control plane.
fn addresses(machine: &Machine) -> Vec<String> {
    let is_control_plane = machine.metadata.labels.as_ref().is_some_and(|known| known.contains_key(labels::CONTROL_PLANE));
    let known = machine.status.iter().flat_map(|status| &status.addresses);
    let dialled = known.filter(|address| matches!(address.type_, MachineAddressType::InternalIP | MachineAddressType::ExternalIP));
    dialled.filter(|_| is_control_plane).map(|address| address.address.clone()).collect()
}

impl Inner {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nudge(&self, cluster: &ObjectKey) {
        let entry = self.entries().get(cluster).cloned();
        if let Some(entry) = entry {
            entry.shared.changed.notify_one();
        }
    }

    fn tap(&self, cluster: &ObjectKey, node: Option<&Arc<Node>>) {
        let change = Change { cluster: cluster.clone(), node: node.cloned() };
        let taps = self.taps.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for tap in taps {
            tap(&change);
        }
    }

    /// The entry of a cluster; begins to connect when there is none. None when there is no such Cluster.
    fn entry(self: &Arc<Self>, cluster: &ObjectKey) -> Option<Entry> {
        if let Some(entry) = self.entries().get(cluster) {
            return Some(entry.clone());
        }
        self.clusters.get(cluster)?;
        let mut entries = self.entries();
        if let Some(entry) = entries.get(cluster) {
            return Some(entry.clone());
        }
        let state = State {
            began: self.clock.now_seconds(),
            connection: Connection::Waiting { on: format!("Secret {}", secrets::kubeconfig(&cluster.name)) },
            store: None,
            client: None,
            before: Vec::new(),
            queued: BTreeSet::new(),
            lanes: BTreeMap::new(),
            loads: BTreeMap::new(),
            inspection: None,
            applied: BTreeMap::new(),
            troubles: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new(), lanes: Semaphore::new(LANES) });
        let entry = Entry { shared, token: self.token.child_token() };
        entries.insert(cluster.clone(), entry.clone());
        tokio::spawn(follow(Arc::clone(self), cluster.clone(), Arc::clone(&entry.shared), entry.token.clone()));
        Some(entry)
    }

    fn kubeconfig(&self, cluster: &ObjectKey) -> Option<Vec<u8>> {
        let secret = self.secrets.get_in(cluster.namespace(), &secrets::kubeconfig(&cluster.name))?;
        secret.data.as_ref()?.get(secrets::VALUE).map(|data| data.0.clone())
    }

    fn targets(self: &Arc<Self>, cluster: &ObjectKey, settings: &Settings) -> Targets {
        let (inner, cluster, endpoint) = (Arc::downgrade(self), cluster.clone(), (settings.host.clone(), settings.port));
        Arc::new(move || {
            let Some(inner) = inner.upgrade() else { return Vec::new() };
            let port = inner.clusters.get(&cluster).and_then(|cluster| cluster.spec.cluster_network.api_server_port);
            let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(API_SERVER_PORT);
            let machines = inner.machines.of_cluster(cluster.namespace(), &cluster.name);
            let alive = machines.iter().filter(|machine| machine.metadata.deletion_timestamp.is_none());
            let mut targets: Vec<(String, u16)> = alive.flat_map(|machine| addresses(machine)).map(|address| (address, port)).collect();
            if !targets.contains(&endpoint) {
                targets.push(endpoint.clone());
            }
            targets
        })
    }

    fn has_address(&self, cluster: &ObjectKey) -> bool {
        self.machines.of_cluster(cluster.namespace(), &cluster.name).iter().any(|machine| !addresses(machine).is_empty())
    }

    fn set(&self, cluster: &ObjectKey, shared: &Shared, connection: Connection) {
        let is_change = {
            let mut state = shared.state();
            let is_change = state.connection != connection;
            state.connection = connection.clone();
            is_change
        };
        if is_change {
            self.log.record("workload", "connection", format_args!("Cluster {cluster}"), &connection);
            self.tap(cluster, None);
        }
    }
}

/// Follows one cluster until its token ends.
async fn follow(inner: Arc<Inner>, cluster: ObjectKey, shared: Arc<Shared>, token: CancellationToken) {
    let life = async {
        loop {
            let kubeconfig = loop {
                let missing = match inner.kubeconfig(&cluster) {
                    None => format!("Secret {}", secrets::kubeconfig(&cluster.name)),
                    Some(_) if !inner.has_address(&cluster) => "the address of a control-plane Machine".to_owned(),
                    Some(kubeconfig) => break kubeconfig,
                };
                if shared.state().store.is_none() {
                    inner.set(&cluster, &shared, Connection::Waiting { on: missing });
                }
                shared.changed.notified().await;
            };
            let settings = String::from_utf8(kubeconfig.clone()).map_err(|_| kubeconfig::KubeconfigError::Yaml);
            match settings.and_then(|text| kubeconfig::parse(&text)) {
                Ok(settings) => connected(&inner, &cluster, &shared, &kubeconfig, settings, &token).await,
                Err(error) => {
                    let since = since(&shared, inner.clock.now_seconds());
                    inner.set(&cluster, &shared, Connection::Disconnected { since, because: error.to_string() });
                    shared.changed.notified().await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = token.cancelled() => {}
        () = life => {}
    }
}

fn since(shared: &Shared, now: Timestamp) -> Timestamp {
    match shared.state().connection {
        Connection::Disconnected { since, .. } => since,
        _ => now,
    }
}

/// Keeps a connection with these settings; returns when the kubeconfig is another.
async fn connected(
    inner: &Arc<Inner>,
    cluster: &ObjectKey,
    shared: &Shared,
    kubeconfig: &[u8],
    settings: Settings,
    token: &CancellationToken,
) {
    let dialer = DirectDialer::new(Arc::clone(&inner.dialer), inner.targets(cluster, &settings));
    let connector = Connector::secured(Arc::new(dialer.clone()), inner.tls.clone(), settings.tls);
    let client = match kube_client(connector, &settings.authority, "default") {
        Ok(client) => client,
        Err(error) => {
            let since = since(shared, inner.clock.now_seconds());
            inner.set(cluster, shared, Connection::Disconnected { since, because: error.to_string() });
            return shared.changed.notified().await;
        }
    };
    let token = token.child_token();
    let _ended = token.clone().drop_guard();
    let random = inner.random.child(&cluster.to_string());
    let nodes = Stores::new(client.clone(), inner.clock.clone(), &random, token).with_backoff(RETRY).get::<Node>();
    {
        let mut state = shared.state();
        if let Some(before) = state.store.take().filter(Store::is_synced) {
            state.before = before.all();
        }
        state.store = Some(nodes.clone());
        state.client = Some(client);
    }
    let (weak, key) = (Arc::downgrade(inner), cluster.clone());
    nodes.subscribe(move |old, new| {
        if let Some(inner) = weak.upgrade() {
            if new.is_none()
                && let Some(name) = old.and_then(|old| old.metadata.name.as_deref())
                && let Some(entry) = inner.entries().get(&key)
            {
                entry.shared.state().forget(name);
            }
            inner.tap(&key, new.or(old));
        }
    });
    let mut links = nodes.links();
    loop {
        let link = links.borrow_and_update().clone();
        match link {
            Link::Starting => {}
            Link::Connected => {
                let at = inner.clock.now_seconds();
                let since = match shared.state().connection {
                    Connection::Connected { since } => since,
                    _ => at,
                };
                inner.set(cluster, shared, Connection::Connected { since });
            }
            Link::Disconnected { since, because, .. } => {
                dialer.pass_over();
                inner.set(cluster, shared, Connection::Disconnected { since, because });
            }
        }
        tokio::select! {
            biased;
            changed = links.changed() => if changed.is_err() { return },
            () = shared.changed.notified() => {
                if inner.kubeconfig(cluster).is_some_and(|now| now != kubeconfig) {
                    return;
                }
                nodes.hasten();
            }
        }
    }
}

/// Carries out one lane's jobs, one after another, until none is left.
async fn work(inner: Arc<Inner>, cluster: ObjectKey, shared: Arc<Shared>, lane: Option<String>, token: CancellationToken) {
    loop {
        // What is about no Node is in nobody's way: it needs no place among the Nodes.
        let place = match &lane {
            None => None,
            Some(_) => tokio::select! {
                biased;
                () = token.cancelled() => return,
                place = shared.lanes.acquire() => place.ok(),
            },
        };
        let (job, client, nodes) = {
            let mut state = shared.state();
            let Some(job) = state.lanes.get_mut(&lane).and_then(VecDeque::pop_front) else {
                state.lanes.remove(&lane);
                return;
            };
            let is_connected = state.connection.is_connected();
            (job, state.client.clone().filter(|_| is_connected), state.store.clone())
        };
        let result = match (client, nodes) {
            (Some(client), Some(nodes)) => tokio::select! {
                biased;
                () = token.cancelled() => return,
                result = job::carry_out(&client, &nodes, &job) => result,
            },
            _ => Err("not connected".to_owned()),
        };
        drop(place);
        let told = result.as_ref().map_or_else(String::as_str, |_| "ok");
        inner.log.record("workload", job.word(), format_args!("Cluster {cluster} {}", job.object()), told);
        settle(&inner, &cluster, &shared, &job, result, &token);
    }
}

/// Keeps what came of a job, and tells those who wait for it.
fn settle(inner: &Arc<Inner>, cluster: &ObjectKey, shared: &Shared, job: &Job, result: Result<Done, String>, token: &CancellationToken) {
    let now = inner.clock.now_seconds();
    let (delay, node) = {
        let mut state = shared.state();
        state.queued.remove(&job.identity());
        // A look or an eviction is asked for again when its time has come: a failure is an answer as well, for that Node alone.
        match job {
            Job::Look { node, .. } => {
                let load = state.loads.entry(node.clone()).or_insert_with(|| Load::unknown(now));
                load.at = now;
                match result {
                    Ok(Done::Looked(looked)) => {
                        load.round += 1;
                        load.failure = None;
                        load.attempts.retain(|uid, _| looked.pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(uid)));
                        load.looked = looked;
                    }
                    Ok(_) => {}
                    Err(error) => load.failure = Some(error),
                }
                (None, Some(node.clone()))
            }
            Job::Inspect => {
                let mut inspection = state.inspection.as_deref().cloned().unwrap_or_default();
                inspection.at = now;
                match result {
                    Ok(Done::Inspected(agents, complaints)) => {
                        (inspection.agents, inspection.complaints, inspection.failure) = (Some(agents), complaints, None);
                    }
                    Ok(_) => {}
                    Err(error) => inspection.failure = Some(error),
                }
                state.inspection = Some(Arc::new(inspection));
                (None, None)
            }
            Job::Evict { node, eviction } => {
                let load = state.loads.entry(node.clone()).or_insert_with(|| Load::unknown(now));
                load.attempts.insert(eviction.uid.clone(), Attempt { round: eviction.round, refusal: result.err() });
                (None, Some(node.clone()))
            }
            Job::Apply { work, .. } => {
                let applied = result.as_ref().map_or_else(|error| Applied::Failed(error.clone()), |_| Applied::Done);
                state.applied.insert(work.clone(), applied);
                (state.failed(job.node(), result.is_err()), None)
            }
            Job::PatchNode { node, .. } | Job::DeleteNode { node, .. } => {
                let is_failure = result.is_err();
                match result {
                    Ok(_) => state.troubles.remove(node),
                    Err(error) => state.troubles.insert(node.clone(), format!("{} {}: {error}", job.word(), job.object())),
                };
                (state.failed(job.node(), is_failure), None)
            }
        }
    };
    let node = node.and_then(|name| shared.state().store.as_ref()?.get(&ObjectKey::cluster_scoped(name)));
    match delay {
        None => inner.tap(cluster, node.as_ref()),
        // The plan that still needs the job hands it in again, but not at once.
        Some(failures) => {
            let delay = Backoff::RECONCILE.delay(failures, &inner.random);
            let (inner, cluster, token) = (Arc::clone(inner), cluster.clone(), token.clone());
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = token.cancelled() => {}
                    () = inner.clock.sleep(delay) => inner.tap(&cluster, None),
                }
            });
        }
    }
}

impl Accessor {
    fn hand_in(&self, cluster: &ObjectKey, job: Job) {
        let Some(entry) = self.0.entry(cluster) else { return };
        let lane = job.node().map(str::to_owned);
        let is_new = {
            let mut state = entry.shared.state();
            if !state.connection.is_connected() || !state.queued.insert(job.identity()) {
                return;
            }
            if let Job::Apply { work, .. } = &job {
                state.applied.insert(work.clone(), Applied::Pending);
            }
            let is_new = !state.lanes.contains_key(&lane);
            state.lanes.entry(lane.clone()).or_default().push_back(job);
            is_new
        };
        if is_new {
            tokio::spawn(work(Arc::clone(&self.0), cluster.clone(), Arc::clone(&entry.shared), lane, entry.token.clone()));
        }
    }
}

impl Clusters for Accessor {
    fn connection(&self, cluster: &ObjectKey) -> Connection {
        match self.0.entry(cluster) {
            Some(entry) => entry.shared.state().connection.clone(),
            None => Connection::Waiting { on: format!("Cluster {}", cluster.name) },
        }
    }

    fn away_since(&self, cluster: &ObjectKey) -> Option<Timestamp> {
        let entry = self.0.entry(cluster)?;
        let state = entry.shared.state();
        match state.connection {
            Connection::Connected { .. } => None,
            Connection::Waiting { .. } => Some(state.began),
            Connection::Disconnected { since, .. } => Some(since),
        }
    }

    fn nodes(&self, cluster: &ObjectKey) -> Vec<Arc<Node>> {
        let Some(entry) = self.0.entry(cluster) else { return Vec::new() };
        let state = entry.shared.state();
        match &state.store {
            Some(store) if store.is_synced() => store.all(),
            _ => state.before.clone(),
        }
    }

    fn patch_node(&self, cluster: &ObjectKey, node: &str, patch: Value) {
        self.hand_in(cluster, Job::PatchNode { node: node.to_owned(), patch });
    }

    fn delete_node(&self, cluster: &ObjectKey, node: &str, uid: &str) {
        self.hand_in(cluster, Job::DeleteNode { node: node.to_owned(), uid: uid.to_owned() });
    }

    fn apply(&self, cluster: &ObjectKey, work: &str, objects: Vec<Value>) {
        self.hand_in(cluster, Job::Apply { work: work.to_owned(), objects });
    }

    fn applied(&self, cluster: &ObjectKey, work: &str) -> Option<Applied> {
        let entry = self.0.entry(cluster)?;
        let state = entry.shared.state();
        state.applied.get(work).cloned()
    }

    fn trouble(&self, cluster: &ObjectKey, node: &str) -> Option<String> {
        let entry = self.0.entry(cluster)?;
        let state = entry.shared.state();
        state.troubles.get(node).cloned()
    }

    fn load(&self, cluster: &ObjectKey, node: &str) -> Option<Load> {
        let entry = self.0.entry(cluster)?;
        let state = entry.shared.state();
        state.loads.get(node).cloned()
    }

    fn look(&self, cluster: &ObjectKey, node: &str, what: Look) {
        self.hand_in(cluster, Job::Look { node: node.to_owned(), what });
    }

    fn evict(&self, cluster: &ObjectKey, node: &str, eviction: Eviction) {
        self.hand_in(cluster, Job::Evict { node: node.to_owned(), eviction });
    }

    fn inspection(&self, cluster: &ObjectKey) -> Option<Arc<Inspection>> {
        let entry = self.0.entry(cluster)?;
        let state = entry.shared.state();
        state.inspection.clone()
    }

    fn inspect(&self, cluster: &ObjectKey) {
        self.hand_in(cluster, Job::Inspect);
    }

    fn hasten(&self, cluster: &ObjectKey) {
        if self.0.entry(cluster).is_some() {
            self.0.nudge(cluster);
        }
    }

    fn subscribe(&self, tap: Tap) {
        self.0.taps.lock().unwrap_or_else(PoisonError::into_inner).push(tap);
    }
}
