//! Sessions and what belongs to them: property collectors with their filters, views. All of it goes when the session ends.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use vsphere_wire::property::ObjectContent;

use super::collector::Collector;
use super::inventory::Reference;

/// What a view shows.
#[derive(Clone, Debug)]
pub enum View {
    /// What lies in a container, of these types (all, when none is given).
    Container {
        container: Reference,
        kinds: Vec<String>,
        is_recursive: bool,
    },
    List(Vec<Reference>),
}

/// Somebody who signed in.
#[derive(Debug)]
pub struct Session {
    pub key: String,
    pub user: String,
    pub agent: String,
    pub address: String,
    pub signed_in: Timestamp,
    pub last_active: Timestamp,
    pub calls: i64,
    /// Waits under way; a session that waits is not idle.
    pub waits: u32,
    /// By id; the session's own one is `propertyCollector`.
    pub collectors: BTreeMap<String, Collector>,
    pub views: BTreeMap<String, View>,
    /// Further pages of RetrievePropertiesEx, by token.
    pub pages: BTreeMap<String, Vec<ObjectContent>>,
}

/// The id of the collector that every session has from the start.
pub const DEFAULT_COLLECTOR: &str = "propertyCollector";

impl Session {
    pub fn new(key: String, user: &str, agent: &str, address: &str, now: Timestamp) -> Self {
        Self {
            key,
            user: user.to_owned(),
            agent: agent.to_owned(),
            address: address.to_owned(),
            signed_in: now,
            last_active: now,
            calls: 0,
            waits: 0,
            collectors: BTreeMap::from([(DEFAULT_COLLECTOR.to_owned(), Collector::default())]),
            views: BTreeMap::new(),
            pages: BTreeMap::new(),
        }
    }

    /// The collector that holds this filter.
    pub fn collector_of(&mut self, filter: &Reference) -> Option<&mut Collector> {
        self.collectors.values_mut().find(|collector| collector.filters.contains_key(&filter.id))
    }
}

/// The sessions, by key.
#[derive(Debug, Default)]
pub struct Sessions(pub BTreeMap<String, Session>);

impl Sessions {
    pub fn get(&self, key: &str) -> Option<&Session> {
        self.0.get(key)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Session> {
        self.0.get_mut(key)
    }

    /// Ends sessions that were idle for longer than `limit`; answers their keys.
    pub fn expire(&mut self, now: Timestamp, limit: Duration) -> Vec<String> {
        let limit = SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
        let is_over = |session: &Session| session.waits == 0 && now.duration_since(session.last_active) > limit;
        let over: Vec<String> = self.0.values().filter(|session| is_over(session)).map(|session| session.key.clone()).collect();
        for key in &over {
            self.0.remove(key);
        }
        over
    }
}
