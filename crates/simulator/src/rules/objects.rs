//! The management server's objects as its acknowledgements leave them.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::meta;
pub(super) use apimachinery::meta::text_at as text;
use apiserver::Acknowledged;
use serde_json::Value;

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub group: String,
    /// Plural name.
    pub resource: String,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn of(write: &Acknowledged) -> Self {
        Self { group: write.group.clone(), resource: write.resource.clone(), namespace: write.namespace.clone(), name: write.name.clone() }
    }

    /// The key of an object, by the plural that its kind has in every group in use here.
    pub fn of_value(object: &Value) -> Self {
        let (api_version, kind) = (text(object, "/apiVersion"), text(object, "/kind").to_lowercase());
        let group = api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
        let plural = match kind.as_str() {
            "endpoints" => kind.clone(),
            _ if kind.ends_with("ss") => format!("{kind}es"),
            _ if kind.ends_with('y') && !kind.ends_with("ey") && !kind.ends_with("ay") => format!("{}ies", kind.trim_end_matches('y')),
            _ => format!("{kind}s"),
        };
        Self {
            group,
            resource: plural,
            namespace: text(object, "/metadata/namespace").to_owned(),
            name: text(object, "/metadata/name").to_owned(),
        }
    }

    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.resource, self.namespace, self.name)
    }
}

pub(super) fn is_deleting(object: &Value) -> bool {
    meta::pointer(object, "/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
}

/// All live objects.
#[derive(Debug, Default)]
pub(super) struct Objects(BTreeMap<Key, Arc<Value>>);

impl Objects {
    pub fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.0.get(key)
    }

    pub fn put(&mut self, key: Key, object: Option<Arc<Value>>) {
        match object {
            Some(object) => drop(self.0.insert(key, object)),
            None => drop(self.0.remove(&key)),
        }
    }

    pub fn put_value(&mut self, object: Value) {
        self.0.insert(Key::of_value(&object), Arc::new(object));
    }

    pub fn replace(&mut self, objects: &[Value]) {
        self.0.clear();
        for object in objects {
            self.put_value(object.clone());
        }
    }

    /// All of one kind.
    pub fn list<'a>(&'a self, group: &'a str, resource: &'a str) -> impl Iterator<Item = (&'a Key, &'a Value)> {
        self.0.iter().filter(move |(key, _)| key.is(group, resource)).map(|(key, object)| (key, &**object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_have_their_plurals() {
        for (kind, plural) in [
            ("Machine", "machines"),
            ("IPAddress", "ipaddresses"),
            ("VSphereClusterIdentity", "vsphereclusteridentities"),
            ("Endpoints", "endpoints"),
            ("InClusterIPPool", "inclusterippools"),
            ("StorageClass", "storageclasses"),
        ] {
            assert_eq!(Key::of_value(&json!({"apiVersion": "g/v1", "kind": kind})).resource, plural);
        }
    }
}
