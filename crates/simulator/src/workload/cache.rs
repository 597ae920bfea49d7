//! What the actors in a cluster know of its objects: filled by the server's own acknowledgements, in their order, so that nothing is asked twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::meta;
pub(crate) use apimachinery::meta::text_at as text;
use apiserver::{Acknowledged, ApiServer};
use serde_json::Value;

/// The kinds somebody in the cluster acts on, by plural name and group.
const WATCHED: [(&str, &str); 9] = [
    ("nodes", ""),
    ("pods", ""),
    ("secrets", ""),
    ("configmaps", ""),
    ("daemonsets", "apps"),
    ("deployments", "apps"),
    ("poddisruptionbudgets", "policy"),
    ("serviceaccounts", "talos.dev"),
    ("namespaces", ""),
];

type Key = (String, String);

/// Objects by plural name, then by namespace and name. Groups are told apart for `serviceaccounts`, of which only Talos' are kept.
#[derive(Debug, Default)]
pub(crate) struct Cache(BTreeMap<&'static str, BTreeMap<Key, Arc<Value>>>);

impl Cache {
    /// Takes a write in. Whether anybody cares.
    pub(crate) fn take(&mut self, write: &Acknowledged) -> bool {
        let Some((plural, _)) = WATCHED.iter().find(|(plural, group)| *plural == write.resource && *group == write.group) else {
            return false;
        };
        let objects = self.0.entry(plural).or_default();
        let key = (write.namespace.clone(), write.name.clone());
        match &write.value {
            Some(object) => drop(objects.insert(key, object.clone())),
            None => drop(objects.remove(&key)),
        }
        true
    }

    /// Puts in what was there before anybody listened.
    pub(crate) fn fill(&mut self, api: &ApiServer) {
        for (plural, group) in WATCHED {
            for object in api.snapshot_of(group, plural) {
                let key = (namespace(&object).to_owned(), name(&object).to_owned());
                self.0.entry(plural).or_default().insert(key, Arc::new(object));
            }
        }
    }

    pub(crate) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.0.get(plural)?.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All of one kind, by namespace and name.
    pub(crate) fn list(&self, plural: &str) -> Vec<Arc<Value>> {
        self.0.get(plural).map(|objects| objects.values().cloned().collect()).unwrap_or_default()
    }
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// The elements at a JSON pointer.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    meta::pointer(object, pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn is_deleted(object: &Value) -> bool {
    meta::pointer(object, "/metadata/deletionTimestamp").is_some()
}
