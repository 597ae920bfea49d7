//! All objects of one server, in memory: the committed state that reads see, the pending state that writes are decided on, the recent
//! events, and the watchers.
//!
//! ```text
//!   decide (on latest) -> stage: revision, bytes, record -> journal -> commit: state, indices, ring, watchers
//! ```
//!
//! A read must never see what is not durable: otherwise a controller could act on an object that a crash takes back. With an inline journal
//! nothing is ever pending. This is plain data without locks or waiting; `server` holds the lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::event::{Change, Delivery, Event};
use crate::journal::Record;
use crate::object::{Content, Entry, ObjectKey, ResourceId};

/// Events kept for each kind of object, so that a watch can resume and a list can be continued.
const RING_EVENTS: usize = 2048;
/// Bytes of events kept for each kind of object.
const RING_BYTES: usize = 4 << 20;
/// Events whose encoded frames are kept: watchers that are up to date share them.
const FRAMED_EVENTS: usize = 32;
/// Events that may wait for one watcher. A slower one is cut off and resumes by revision.
pub const WATCH_QUEUE: usize = 1024;

/// How many objects are kept readable beside their bytes.
const WARM: usize = 64;

/// The finalizer of a foreground deletion.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of a deletion that leaves dependents behind.
pub const ORPHAN: &str = "orphan";

/// Says whether a watcher wants to see an object.
pub type Filter = Arc<dyn Fn(&Entry) -> bool + Send + Sync>;

struct Watcher {
    filter: Filter,
    sender: mpsc::Sender<Delivery>,
}

/// All objects of one kind.
struct Collection {
    objects: BTreeMap<(Arc<str>, Arc<str>), Arc<Entry>>,
    ring: VecDeque<Arc<Event>>,
    ring_bytes: usize,
    /// Events up to this revision are gone.
    floor: u64,
    watchers: Vec<Watcher>,
}

/// What garbage collection and namespace deletion have to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chore {
    /// The owners of this object changed, or one of them is gone.
    Owners(ObjectKey),
    /// This object is being deleted and waits for its dependents.
    Dependents(ObjectKey),
    /// This namespace is being deleted.
    Namespace(Arc<str>),
    /// This definition of custom resources is being deleted.
    Definition(Arc<str>),
}

/// A write that has its revision and is not committed yet.
#[derive(Debug)]
pub struct Staged {
    pub record: Record,
    pub event: Arc<Event>,
}

/// A revision that is no longer, or not yet, known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired;

/// See the module's text.
#[derive(Default)]
pub struct Store {
    /// The revision of the last committed write.
    revision: u64,
    /// The revision of the last staged write.
    staged: u64,
    /// Events up to here are gone for every kind: what was there when the server opened.
    floor: u64,
    collections: BTreeMap<ResourceId, Collection>,
    pending: BTreeMap<ObjectKey, (u64, Option<Arc<Entry>>)>,
    by_uid: BTreeMap<String, ObjectKey>,
    dependents: BTreeMap<String, BTreeSet<ObjectKey>>,
    chores: BTreeSet<Chore>,
    /// The objects that were written last and are kept readable, oldest first.
    warm: VecDeque<Arc<Entry>>,
    held_back_records: Vec<Record>,
}

impl Store {
    /// The state as a journal held it.
    pub fn restored(revision: u64, entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut store = Self { revision, staged: revision, floor: revision, ..Self::default() };
        for entry in entries {
            let entry = Arc::new(entry);
            store.note_chores(&entry, None);
            store.index(&entry);
            store.collection(&entry.key.resource).objects.insert((entry.key.namespace.clone(), entry.key.name.clone()), entry);
        }
        store
    }

    fn collection(&mut self, resource: &ResourceId) -> &mut Collection {
        let floor = self.floor;
        self.collections.entry(resource.clone()).or_insert_with(|| Collection {
            objects: BTreeMap::new(),
            ring: VecDeque::new(),
            ring_bytes: 0,
            floor,
            watchers: Vec::new(),
        })
    }

    /// The revision of the last committed write.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The committed object.
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<Entry>> {
        self.collections.get(&key.resource)?.objects.get(&(key.namespace.clone(), key.name.clone()))
    }

    /// The object as a write has to see it: with what is staged.
    pub fn latest(&self, key: &ObjectKey) -> Option<&Arc<Entry>> {
        match self.pending.get(key) {
            Some((_, entry)) => entry.as_ref(),
            None => self.get(key),
        }
    }

    /// Whether objects may be made in this namespace.
    pub fn is_home(&self, namespace: &str) -> bool {
        let namespace = ObjectKey::new(&ResourceId::new("", "namespaces"), "", namespace);
        self.latest(&namespace).is_some_and(|namespace| !namespace.is_deleting())
    }

    /// The committed objects of a kind, in the order of namespace and name.
    pub fn list(&self, resource: &ResourceId, namespace: Option<&str>) -> Vec<Arc<Entry>> {
        let Some(collection) = self.collections.get(resource) else { return Vec::new() };
        match namespace {
            None => collection.objects.values().cloned().collect(),
            Some(namespace) => {
                let start: (Arc<str>, Arc<str>) = (namespace.into(), "".into());
                collection.objects.range(start..).take_while(|((at, _), _)| &**at == namespace).map(|(_, entry)| entry.clone()).collect()
            }
        }
    }

    /// How many objects of a kind there are.
    pub fn count(&self, resource: &ResourceId) -> usize {
        self.collections.get(resource).map_or(0, |collection| collection.objects.len())
    }

    /// The objects of a kind as they were at `revision`: today's, with the events since undone.
    pub fn list_at(&self, resource: &ResourceId, namespace: Option<&str>, revision: u64) -> Result<Vec<Arc<Entry>>, Expired> {
        if revision == self.revision {
            return Ok(self.list(resource, namespace));
        }
        if revision > self.revision || revision < self.floor {
            return Err(Expired);
        }
        let Some(collection) = self.collections.get(resource) else { return Ok(Vec::new()) };
        if revision < collection.floor {
            return Err(Expired);
        }
        let mut objects = collection.objects.clone();
        for event in collection.ring.iter().rev().take_while(|event| event.revision > revision) {
            let at = (event.entry.key.namespace.clone(), event.entry.key.name.clone());
            match &event.previous {
                Some(previous) => objects.insert(at, previous.clone()),
                None => objects.remove(&at),
            };
        }
        Ok(objects.into_values().filter(|entry| namespace.is_none_or(|namespace| &*entry.key.namespace == namespace)).collect())
    }

    /// Every committed object.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.collections.values().flat_map(|collection| collection.objects.values())
    }

    /// The kinds of which there are objects in `namespace`.
    pub fn kinds_in(&self, namespace: &str) -> Vec<(ResourceId, usize)> {
        self.collections
            .keys()
            .map(|resource| (resource.clone(), self.list(resource, Some(namespace)).len()))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// The committed object with this uid.
    pub fn by_uid(&self, uid: &str) -> Option<&Arc<Entry>> {
        self.get(self.by_uid.get(uid)?)
    }

    /// The committed objects that name `uid` as an owner.
    pub fn dependents(&self, uid: &str) -> Vec<Arc<Entry>> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|key| self.get(key)).cloned().collect()
    }

    /// Gives a revision to the new state of `key` (`None`: it is deleted). Nothing is visible to readers yet.
    ///
    /// # Errors
    /// When the object cannot be encoded.
    pub fn stage(&mut self, key: &ObjectKey, content: Option<Content>) -> Result<Option<Staged>, serde_json::Error> {
        let previous = self.latest(key).cloned();
        let revision = self.staged + 1;
        let (change, entry) = match (content, &previous) {
            (Some(content), None) => (Change::Added, Entry::encode(key.clone(), revision, content)?),
            (Some(content), Some(_)) => (Change::Modified, Entry::encode(key.clone(), revision, content)?),
            (None, Some(previous)) => (Change::Deleted, Entry::encode(key.clone(), revision, previous.value().into())?),
            (None, None) => return Ok(None),
        };
        self.staged = revision;
        let entry = Arc::new(entry);
        let value = (change != Change::Deleted).then(|| entry.bytes.clone());
        let record = Record { revision, key: key.to_journal(), value };
        let kept = (change != Change::Deleted).then(|| entry.clone());
        self.pending.insert(key.clone(), (revision, kept));
        Ok(Some(Staged { record, event: Arc::new(Event::new(change, entry, previous)) }))
    }

    /// Makes a staged write visible, now that it is durable. In the order of staging.
    pub fn commit(&mut self, event: &Arc<Event>) {
        let entry = &event.entry;
        if self.pending.get(&entry.key).is_some_and(|(revision, _)| *revision == event.revision) {
            self.pending.remove(&entry.key);
        }
        self.revision = event.revision;
        let at = (entry.key.namespace.clone(), entry.key.name.clone());
        if let Some(previous) = &event.previous {
            self.unindex(previous);
            previous.cool();
            self.warm.retain(|warm| !Arc::ptr_eq(warm, previous));
        }
        if event.change == Change::Deleted {
            entry.cool();
            self.collection(&entry.key.resource).objects.remove(&at);
            self.note_removal(entry);
        } else {
            self.index(entry);
            self.note_chores(entry, event.previous.as_deref());
            self.collection(&entry.key.resource).objects.insert(at, entry.clone());
            self.warm.push_back(entry.clone());
            if self.warm.len() > WARM
                && let Some(oldest) = self.warm.pop_front()
            {
                oldest.cool();
            }
        }
        self.collection(&entry.key.resource).publish(event);
    }

    /// Drops everything that is staged: the journal failed.
    pub fn abandon(&mut self) {
        self.pending.clear();
        self.staged = self.revision;
    }

    fn index(&mut self, entry: &Arc<Entry>) {
        self.by_uid.insert(entry.facts.uid.clone(), entry.key.clone());
        for owner in &entry.facts.owner_references {
            self.dependents.entry(owner.uid.clone()).or_default().insert(entry.key.clone());
        }
    }

    fn unindex(&mut self, entry: &Entry) {
        if self.by_uid.get(&entry.facts.uid) == Some(&entry.key) {
            self.by_uid.remove(&entry.facts.uid);
        }
        for owner in &entry.facts.owner_references {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(&entry.key);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    fn note_chores(&mut self, entry: &Arc<Entry>, previous: Option<&Entry>) {
        let facts = &entry.facts;
        if !facts.owner_references.is_empty() && previous.is_none_or(|previous| previous.facts.owner_references != facts.owner_references) {
            self.chores.insert(Chore::Owners(entry.key.clone()));
        }
        // A dependent that no longer blocks, or no longer belongs to it, may be what a deleting owner waited for.
        for owner in previous.iter().flat_map(|previous| &previous.facts.owner_references) {
            if !facts.owner_references.contains(owner) {
                self.note_waiting_owner(&owner.uid);
            }
        }
        if !entry.is_deleting() {
            return;
        }
        if entry.has_finalizer(FOREGROUND) || entry.has_finalizer(ORPHAN) {
            self.chores.insert(Chore::Dependents(entry.key.clone()));
        }
        match (&*entry.key.resource.group, &*entry.key.resource.resource) {
            ("", "namespaces") => drop(self.chores.insert(Chore::Namespace(entry.key.name.clone()))),
            ("apiextensions.k8s.io", "customresourcedefinitions") => drop(self.chores.insert(Chore::Definition(entry.key.name.clone()))),
            _ => {}
        }
    }

    fn note_waiting_owner(&mut self, uid: &str) {
        let waiting =
            self.by_uid(uid).filter(|owner| owner.is_deleting() && owner.has_finalizer(FOREGROUND)).map(|owner| owner.key.clone());
        self.chores.extend(waiting.map(Chore::Dependents));
    }

    fn note_removal(&mut self, entry: &Entry) {
        for key in self.dependents.get(&entry.facts.uid).cloned().unwrap_or_default() {
            self.chores.insert(Chore::Owners(key));
        }
        for owner in &entry.facts.owner_references {
            self.note_waiting_owner(&owner.uid);
        }
        let id = &entry.key.resource;
        let definition = ObjectKey::new(&ResourceId::new("apiextensions.k8s.io", "customresourcedefinitions"), "", &id.to_string());
        if self.get(&definition).is_some_and(|definition| definition.is_deleting()) {
            self.chores.insert(Chore::Definition(definition.name));
        }
        if !entry.key.namespace.is_empty() {
            let namespace = ObjectKey::new(&ResourceId::new("", "namespaces"), "", &entry.key.namespace);
            if self.get(&namespace).is_some_and(|namespace| namespace.is_deleting()) {
                self.chores.insert(Chore::Namespace(entry.key.namespace.clone()));
            }
        }
    }

    /// Adds a chore, to be looked at again.
    pub fn add_chore(&mut self, chore: Chore) {
        self.chores.insert(chore);
    }

    /// Takes the chores that came up.
    pub fn take_chores(&mut self) -> BTreeSet<Chore> {
        std::mem::take(&mut self.chores)
    }

    /// Whether chores came up.
    pub fn has_chores(&self) -> bool {
        !self.chores.is_empty()
    }

    /// Takes part in the planted defect of rule 8: keeps `record` back and returns what was kept back before.
    pub fn hold_back(&mut self, record: Record) -> Vec<Record> {
        std::mem::replace(&mut self.held_back_records, vec![record])
    }

    /// What a planted defect kept back.
    pub fn held_back(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.held_back_records)
    }

    /// Registers a watcher and returns what happened after `since` and is kept, in order.
    ///
    /// # Errors
    /// When events after `since` are gone, or `since` lies in the future.
    pub fn watch(&mut self, resource: &ResourceId, since: u64, filter: Filter) -> Result<Watch, Expired> {
        if since > self.revision {
            return Err(Expired);
        }
        let collection = self.collection(resource);
        if since < collection.floor {
            return Err(Expired);
        }
        let start = collection.ring.partition_point(|event| event.revision <= since);
        let backlog = collection.ring.iter().skip(start).filter_map(|event| Delivery::of(event, &*filter)).collect();
        let (sender, receiver) = mpsc::channel(WATCH_QUEUE);
        collection.watchers.retain(|watcher| !watcher.sender.is_closed());
        collection.watchers.push(Watcher { filter, sender });
        Ok(Watch { backlog, receiver })
    }

    /// Ends all watches of a kind that is no longer served, or whose schema changed so that watchers should look again.
    pub fn end_watches(&mut self, resource: &ResourceId) {
        if let Some(collection) = self.collections.get_mut(resource) {
            collection.watchers.clear();
        }
    }

    /// Ends all watches.
    pub fn end_all_watches(&mut self) {
        for collection in self.collections.values_mut() {
            collection.watchers.clear();
        }
    }
}

/// A watcher's side of a watch.
#[derive(Debug)]
pub struct Watch {
    pub backlog: Vec<Delivery>,
    pub receiver: mpsc::Receiver<Delivery>,
}

impl Collection {
    fn publish(&mut self, event: &Arc<Event>) {
        self.ring_bytes += event.entry.bytes.len();
        self.ring.push_back(event.clone());
        if let Some(settled) = self.ring.len().checked_sub(FRAMED_EVENTS).and_then(|at| self.ring.get(at)) {
            settled.forget_frames();
        }
        while self.ring.len() > RING_EVENTS || self.ring_bytes > RING_BYTES {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_bytes -= oldest.entry.bytes.len();
            self.floor = oldest.revision;
        }
        self.watchers.retain(|watcher| match Delivery::of(event, &*watcher.filter) {
            Some(delivery) => watcher.sender.try_send(delivery).is_ok(),
            None => !watcher.sender.is_closed(),
        });
    }
}
