//! What the API server is known to hold of one kind: ordered, indexed, fed by one watch, and never older than our own writes.
//!
//! **Read your writes.** The answer to a create, patch or delete made through the store goes into it at once. The watch's later event
//! of the same revision is then no change. An answer that the watch has passed already is left out, so that nothing deleted comes back.
//! This compares resourceVersions as numbers, which holds on every real API server and on ours; where one is not a number, answers are
//! left out and only the watch counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

use super::feed::Link;
use super::key::ObjectKey;

/// What a store can hold: any Kubernetes type with metadata, typed or dynamic.
pub trait Object: kube::Resource<DynamicType: Clone> + Clone + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static {}
impl<K> Object for K where K: kube::Resource<DynamicType: Clone> + Clone + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static {}

/// The label that ties an object to its Cluster.
const CLUSTER_LABEL: &str = "cluster.x-k8s.io/cluster-name";
/// The index by owner uid (any owner, not only the controller).
const BY_OWNER: &str = "owner";
/// The index by namespace and cluster label.
const BY_CLUSTER: &str = "cluster";

type IndexFn<K> = Arc<dyn Fn(&K) -> Vec<String> + Send + Sync>;
type Subscriber<K> = Arc<dyn Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync>;

struct Index<K> {
    function: IndexFn<K>,
    entries: BTreeMap<String, BTreeSet<ObjectKey>>,
}

struct State<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    indices: BTreeMap<&'static str, Index<K>>,
    /// The highest revision that the watch has told.
    seen: u64,
    /// Uids that we know to be gone while the watch may not.
    gone: BTreeSet<String>,
    subscribers: Vec<Subscriber<K>>,
}

struct Inner<K: Object> {
    client: kube::Client,
    dyntype: K::DynamicType,
    kind: String,
    /// Whether the watch shows only some of the objects (by labels): then only the watch brings new ones in.
    is_partial: bool,
    state: Mutex<State<K>>,
    link: watch::Sender<Link>,
    hasten: Notify,
}

/// The objects of one kind. Cheap to clone; clones share the content.
pub struct Store<K: Object>(Arc<Inner<K>>);

impl<K: Object> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Object> fmt::Debug for Store<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("kind", &self.0.kind).finish_non_exhaustive()
    }
}

/// A resourceVersion as a number.
pub(super) fn revision(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_deref()?.parse().ok()
}

/// Whether this is how an object looked when its last finalizer was taken: it is gone, unless it has a time to end in (as pods have).
fn is_last_view(meta: &ObjectMeta) -> bool {
    let has_finalizer = meta.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty());
    meta.deletion_timestamp.is_some() && !has_finalizer && meta.deletion_grace_period_seconds.unwrap_or(0) == 0
}

fn owner_uids(meta: &ObjectMeta) -> Vec<String> {
    meta.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect()
}

fn cluster_of(meta: &ObjectMeta) -> Option<String> {
    let cluster = meta.labels.as_ref()?.get(CLUSTER_LABEL)?;
    Some(format!("{}/{cluster}", meta.namespace.as_deref().unwrap_or_default()))
}

impl<K: Object> State<K> {
    fn reindex(&mut self, key: &ObjectKey, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        for index in self.indices.values_mut() {
            for value in old.map(|old| (index.function)(old)).unwrap_or_default() {
                if let Some(keys) = index.entries.get_mut(&value) {
                    keys.remove(key);
                    if keys.is_empty() {
                        index.entries.remove(&value);
                    }
                }
            }
            for value in new.map(|new| (index.function)(new)).unwrap_or_default() {
                index.entries.entry(value).or_default().insert(key.clone());
            }
        }
    }

    /// Takes note of what the watch has come to; whether the object is known in this state or a later one, or known to be gone.
    fn was_told(&mut self, key: &ObjectKey, uid: Option<&str>, resource_version: Option<&str>) -> bool {
        let told: Option<u64> = resource_version.and_then(|version| version.parse().ok());
        self.seen = self.seen.max(told.unwrap_or(0));
        if uid.is_some_and(|uid| self.gone.contains(uid)) {
            return true;
        }
        let Some(known) = self.objects.get(key).map(|known| known.meta()) else { return false };
        let is_passed = revision(known).zip(told).is_some_and(|(known, told)| known >= told);
        is_passed || known.resource_version.as_deref() == resource_version
    }

    /// Puts `new` in, or takes the object out; returns what was there.
    fn replace(&mut self, key: &ObjectKey, new: Option<&Arc<K>>) -> Option<Arc<K>> {
        let old = match new {
            Some(new) => self.objects.insert(key.clone(), Arc::clone(new)),
            None => self.objects.remove(key),
        };
        self.reindex(key, old.as_ref(), new);
        old
    }
}

/// One change to tell: what was there, what is there.
type Change<K> = (Option<Arc<K>>, Option<Arc<K>>);

impl<K: Object> Store<K> {
    /// An empty store; a feed fills it.
    pub(super) fn new(client: kube::Client, dyntype: K::DynamicType, is_partial: bool) -> Self {
        let mut indices = BTreeMap::new();
        let by_owner: IndexFn<K> = Arc::new(|object: &K| owner_uids(object.meta()));
        let by_cluster: IndexFn<K> = Arc::new(|object: &K| cluster_of(object.meta()).into_iter().collect());
        indices.insert(BY_OWNER, Index { function: by_owner, entries: BTreeMap::new() });
        indices.insert(BY_CLUSTER, Index { function: by_cluster, entries: BTreeMap::new() });
        let state = State { objects: BTreeMap::new(), indices, seen: 0, gone: BTreeSet::new(), subscribers: Vec::new() };
        let kind = K::kind(&dyntype).into_owned();
        Self(Arc::new(Inner {
            client,
            dyntype,
            kind,
            is_partial,
            state: Mutex::new(state),
            link: watch::Sender::new(Link::Starting),
            hasten: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kind's name.
    pub fn kind(&self) -> &str {
        &self.0.kind
    }

    /// Type information of dynamic kinds.
    pub fn dyntype(&self) -> &K::DynamicType {
        &self.0.dyntype
    }

    /// The client that feeds the store and writes through it.
    pub fn client(&self) -> &kube::Client {
        &self.0.client
    }

    /// The object called `key`.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.state().objects.get(key).cloned()
    }

    /// The object called `name` in `namespace`.
    pub fn get_in(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get(&ObjectKey::namespaced(namespace, name))
    }

    /// Every object, by namespace and name.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.state().objects.values().cloned().collect()
    }

    /// Every key, in order.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.state().objects.keys().cloned().collect()
    }

    /// The objects of one namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = ObjectKey::namespaced(namespace, "");
        let state = self.state();
        let range = state.objects.range((Bound::Included(from), Bound::Unbounded));
        range.take_while(|(key, _)| key.namespace.as_deref() == Some(namespace)).map(|(_, object)| Arc::clone(object)).collect()
    }

    /// The objects that name the object with this uid as an owner, by key.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        self.indexed(BY_OWNER, uid)
    }

    /// The objects that carry the label of the Cluster called `cluster`, in its namespace, by key.
    pub fn of_cluster(&self, namespace: &str, cluster: &str) -> Vec<Arc<K>> {
        self.indexed(BY_CLUSTER, &format!("{namespace}/{cluster}"))
    }

    /// Adds an index: `function` gives the values under which an object is found. The same name again changes nothing.
    pub fn index(&self, name: &'static str, function: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) {
        let mut state = self.state();
        if state.indices.contains_key(name) {
            return;
        }
        let mut entries: BTreeMap<String, BTreeSet<ObjectKey>> = BTreeMap::new();
        for (key, object) in &state.objects {
            for value in function(object) {
                entries.entry(value).or_default().insert(key.clone());
            }
        }
        state.indices.insert(name, Index { function: Arc::new(function), entries });
    }

    /// The objects that index `name` holds under `value`, by key. None when there is no such index.
    pub fn indexed(&self, name: &'static str, value: &str) -> Vec<Arc<K>> {
        let state = self.state();
        let keys = state.indices.get(name).and_then(|index| index.entries.get(value));
        keys.into_iter().flatten().filter_map(|key| state.objects.get(key).cloned()).collect()
    }

    /// Calls `subscriber` with every later change, and now with every object that is there. It must not call back into the store's
    /// writers; reading is fine.
    pub fn subscribe(&self, subscriber: impl Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync + 'static) {
        let present = {
            let mut state = self.state();
            state.subscribers.push(Arc::new(subscriber));
            let newest = state.subscribers.last().cloned();
            newest.map(|newest| (newest, state.objects.values().cloned().collect::<Vec<_>>()))
        };
        if let Some((subscriber, objects)) = present {
            for object in objects {
                subscriber(None, Some(&object));
            }
        }
    }

    fn tell(&self, changes: &[Change<K>]) {
        if changes.is_empty() {
            return;
        }
        let subscribers = self.state().subscribers.clone();
        for (old, new) in changes {
            for subscriber in &subscribers {
                subscriber(old.as_ref(), new.as_ref());
            }
        }
    }

    /// Takes in what a call of ours answered. Returns it shared.
    pub fn wrote(&self, object: K) -> Arc<K> {
        let object = Arc::new(object);
        if is_last_view(object.meta()) {
            self.removed(object.meta());
            return object;
        }
        let key = ObjectKey::of(object.meta());
        let change = {
            let mut state = self.state();
            let Some(written) = revision(object.meta()) else { return object };
            let known = state.objects.get(&key).and_then(|known| revision(known.meta()));
            let is_gone = object.meta().uid.as_ref().is_some_and(|uid| state.gone.contains(uid));
            let is_foreign = self.0.is_partial && known.is_none();
            if written <= state.seen || known.is_some_and(|known| known >= written) || is_gone || is_foreign {
                return object;
            }
            let old = state.replace(&key, Some(&object));
            (old, Some(Arc::clone(&object)))
        };
        self.tell(&[change]);
        object
    }

    /// Takes out an object that a call of ours found to be gone.
    pub(super) fn removed(&self, meta: &ObjectMeta) {
        let Some(uid) = meta.uid.clone() else { return };
        let key = ObjectKey::of(meta);
        let change = {
            let mut state = self.state();
            if state.objects.get(&key).is_none_or(|known| known.meta().uid.as_ref() != Some(&uid)) {
                return;
            }
            state.gone.insert(uid);
            (state.replace(&key, None), None)
        };
        self.tell(&[change]);
    }

    /// The watch told that the object called `key` is there, with this uid and resourceVersion: whether that is nothing new.
    pub(super) fn knows(&self, key: &ObjectKey, uid: Option<&str>, resource_version: Option<&str>) -> bool {
        self.state().was_told(key, uid, resource_version)
    }

    /// The watch told that this object is there.
    pub(super) fn saw(&self, object: K) {
        let object = Arc::new(object);
        let key = ObjectKey::of(object.meta());
        let change = {
            let mut state = self.state();
            let meta = object.meta();
            if state.was_told(&key, meta.uid.as_deref(), meta.resource_version.as_deref()) {
                return;
            }
            let old = state.replace(&key, Some(&object));
            (old, Some(object))
        };
        self.tell(&[change]);
    }

    /// The watch told that the object called `key` with this uid is gone, at this resourceVersion.
    pub(super) fn saw_deletion(&self, key: &ObjectKey, uid: Option<&str>, resource_version: Option<&str>) {
        let change = {
            let mut state = self.state();
            state.seen = state.seen.max(resource_version.and_then(|version| version.parse().ok()).unwrap_or(0));
            if let Some(uid) = uid {
                state.gone.remove(uid);
            }
            let is_same = state.objects.get(key).is_some_and(|known| known.meta().uid.as_deref() == uid);
            if !is_same {
                return;
            }
            (state.replace(key, None), None)
        };
        self.tell(&[change]);
    }

    /// The watch told that it has passed this revision.
    pub(super) fn passed(&self, resource_version: &str) {
        if let Ok(told) = resource_version.parse() {
            let mut state = self.state();
            state.seen = state.seen.max(told);
        }
    }

    /// A fresh list at a revision takes the place of all, but for what we wrote since.
    pub(super) fn relisted(&self, objects: Vec<K>, resource_version: &str) {
        let at: Option<u64> = resource_version.parse().ok();
        let mut changes = Vec::new();
        {
            let mut state = self.state();
            let mut fresh: BTreeMap<ObjectKey, Arc<K>> = BTreeMap::new();
            let listed_uids: BTreeSet<String> = objects.iter().filter_map(|object| object.meta().uid.clone()).collect();
            for object in objects {
                fresh.insert(ObjectKey::of(object.meta()), Arc::new(object));
            }
            let is_ours_later = |known: &K| revision(known.meta()).zip(at).is_some_and(|(known, at)| known > at);
            let old_keys: Vec<ObjectKey> = state.objects.keys().cloned().collect();
            for key in old_keys {
                let is_kept = fresh.contains_key(&key) || state.objects.get(&key).is_some_and(|known| is_ours_later(known));
                if !is_kept {
                    let old = state.replace(&key, None);
                    changes.push((old, None));
                }
            }
            for (key, object) in fresh {
                let known = state.objects.get(&key);
                let is_same = known.is_some_and(|known| known.meta().resource_version == object.meta().resource_version);
                let is_gone = object.meta().uid.as_ref().is_some_and(|uid| state.gone.contains(uid));
                if is_same || is_gone || known.is_some_and(|known| is_ours_later(known)) {
                    continue;
                }
                let old = state.replace(&key, Some(&object));
                changes.push((old, Some(object)));
            }
            state.seen = at.unwrap_or(0);
            state.gone.retain(|uid| listed_uids.contains(uid));
        }
        self.tell(&changes);
    }

    pub(super) fn set_link(&self, link: Link) {
        self.0.link.send_if_modified(|known| {
            let is_change = *known != link;
            if is_change {
                *known = link;
            }
            is_change
        });
    }

    /// Tries to reach the server now rather than after the present delay. Without effect while the watch is up.
    pub fn hasten(&self) {
        self.0.hasten.notify_waiters();
    }

    pub(super) async fn hastened(&self) {
        self.0.hasten.notified().await;
    }

    /// The state of the watch.
    pub fn link(&self) -> Link {
        self.0.link.borrow().clone()
    }

    /// Follows the state of the watch.
    pub fn links(&self) -> watch::Receiver<Link> {
        self.0.link.subscribe()
    }

    /// Whether the first list has come.
    pub fn is_synced(&self) -> bool {
        self.0.link.borrow().is_synced()
    }

    /// Completes when the first list has come.
    pub async fn synced(&self) {
        // The sender lives in `self`.
        let _ = self.0.link.subscribe().wait_for(Link::is_synced).await;
    }
}
