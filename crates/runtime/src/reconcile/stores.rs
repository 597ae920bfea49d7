//! The stores of one API server, one per kind, made when first asked for.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::feed::{Feed, Scope};
use super::store::{Object, Store};
use crate::clock::Clock;
use crate::random::Random;

/// A registry of stores over one client. Cheap to clone; clones share the stores. Their watches end with the token.
#[derive(Clone)]
pub struct Stores {
    client: kube::Client,
    clock: Clock,
    random: Random,
    token: CancellationToken,
    backoff: Backoff,
    known: Arc<Mutex<BTreeMap<String, Box<dyn Any + Send>>>>,
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stores")
    }
}

impl Stores {
    /// No store yet.
    pub fn new(client: kube::Client, clock: Clock, random: &Random, token: CancellationToken) -> Self {
        Self { client, clock, random: random.child("stores"), token, backoff: Backoff::WATCH, known: Arc::default() }
    }

    /// The delays between tries to watch ([`Backoff::WATCH`] unless told), for stores opened later.
    #[must_use]
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The client behind the stores.
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// The clock of the watches.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The store of a kind that is known at compile time. Starts its watch when it is the first to ask; must be called in a runtime.
    pub fn get<K: Object>(&self) -> Store<K>
    where
        K::DynamicType: Default,
    {
        self.open(K::DynamicType::default(), Scope::default())
    }

    /// The store of a kind that is known at run time only.
    pub fn dynamic<K: Object>(&self, dyntype: K::DynamicType) -> Store<K> {
        self.open(dyntype, Scope::default())
    }

    /// The store of those objects of a kind that carry labels (`type=x,other!=y`).
    pub fn labelled<K: Object>(&self, labels: &str) -> Store<K>
    where
        K::DynamicType: Default,
    {
        self.open(K::DynamicType::default(), Scope { labels: Some(labels.to_owned()) })
    }

    fn open<K: Object>(&self, dyntype: K::DynamicType, scope: Scope) -> Store<K> {
        let resource = K::url_path(&dyntype, None);
        let labels = scope.labels.clone().unwrap_or_default();
        let name = format!("{resource}?{labels} {}", std::any::type_name::<K>());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = known.get(&name).and_then(|store| store.downcast_ref::<Store<K>>()) {
            return store.clone();
        }
        let store = Store::new(self.client.clone(), dyntype, scope.labels.is_some());
        let random = self.random.child(&name);
        let feed = Feed { store: store.clone(), scope, clock: self.clock.clone(), random, backoff: self.backoff };
        known.insert(name, Box::new(store.clone()));
        tokio::spawn(feed.run(self.token.clone()));
        store
    }
}
