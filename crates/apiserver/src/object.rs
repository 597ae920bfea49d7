//! One stored object: its canonical bytes and the few facts that are looked up without reading them.
//!
//! Bytes are the object's JSON in the storage version, `metadata.resourceVersion` included: answers splice them. A fact kept beside the
//! bytes is always derived from them, never set apart.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

/// A kind of object as it is stored: API group and plural name. The group is empty for the core group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    pub group: Arc<str>,
    pub resource: Arc<str>,
}

impl ResourceId {
    /// From its two parts.
    pub fn new(group: &str, resource: &str) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }
}

impl fmt::Display for ResourceId {
    /// `clusters.cluster.x-k8s.io`, or `configmaps` in the core group.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// Where an object is. The namespace is empty for objects of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    pub resource: ResourceId,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectKey {
    /// From its parts.
    pub fn new(resource: &ResourceId, namespace: &str, name: &str) -> Self {
        Self { resource: resource.clone(), namespace: namespace.into(), name: name.into() }
    }

    /// The key in the journal: group, resource, namespace and name, joined by slashes. None of them can hold one.
    pub fn to_journal(&self) -> String {
        format!("{}/{}/{}/{}", self.resource.group, self.resource.resource, self.namespace, self.name)
    }

    /// Reads what [`ObjectKey::to_journal`] wrote.
    pub fn from_journal(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '/');
        let (group, resource, namespace, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        Some(Self::new(&ResourceId::new(group, resource), namespace, name))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.resource, self.name)
        } else {
            write!(f, "{} {}/{}", self.resource, self.namespace, self.name)
        }
    }
}

/// A reference to an owner, as far as garbage collection looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub uid: String,
    #[serde(default)]
    pub block_owner_deletion: Option<bool>,
}

/// The metadata that is kept beside the bytes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Facts {
    pub uid: String,
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub owner_references: Vec<Owner>,
    #[serde(deserialize_with = "nullable")]
    pub finalizers: Vec<String>,
    pub deletion_timestamp: Option<String>,
    pub resource_version: String,
}

fn nullable<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A stored object at one revision. Never changed; a write makes another.
#[derive(Debug)]
pub struct Entry {
    pub key: ObjectKey,
    pub revision: u64,
    pub bytes: Bytes,
    pub facts: Facts,
    /// What the bytes say, while the object is warm: what was just written is often what is written next. A value takes five times the
    /// memory of its bytes, so few are.
    read: Mutex<Option<Arc<Value>>>,
}

/// Metadata only: the rest of the bytes is skipped.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    metadata: Facts,
}

/// What is to be stored: an object, or one whose specification is text already and shared between servers.
#[derive(Debug)]
pub struct Content {
    pub object: Value,
    /// Stored as the last field, `spec`, when given; the object has none then.
    pub specification: Option<Arc<str>>,
}

impl From<Value> for Content {
    fn from(object: Value) -> Self {
        Self { object, specification: None }
    }
}

impl Entry {
    /// Encodes `content` at `revision`. The object's `metadata.resourceVersion` is set to it.
    pub fn encode(key: ObjectKey, revision: u64, content: Content) -> Result<Self, serde_json::Error> {
        let Content { mut object, specification } = content;
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
        }
        let facts = object.get("metadata").map(Facts::deserialize).transpose()?.unwrap_or_default();
        let mut bytes = Vec::with_capacity(2048);
        serde_json::to_writer(&mut bytes, &object)?;
        bytes.reserve_exact(specification.as_ref().map_or(0, |text| text.len() + 10));
        if let Some(text) = &specification {
            bytes.pop();
            bytes.extend_from_slice(b",\"spec\":");
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(b'}');
        }
        // Kept for long: without the spare room of having been written bit by bit.
        bytes.shrink_to_fit();
        let read = specification.is_none().then(|| Arc::new(object));
        Ok(Self { key, revision, bytes: Bytes::from(bytes), facts, read: Mutex::new(read) })
    }

    /// Reads bytes that were stored.
    pub fn decode(key: ObjectKey, bytes: Bytes) -> Result<Self, serde_json::Error> {
        let Envelope { metadata: facts } = serde_json::from_slice(&bytes)?;
        let revision = facts
            .resource_version
            .parse()
            .map_err(|_| <serde_json::Error as serde::de::Error>::custom("resourceVersion is not a number"))?;
        Ok(Self { key, revision, bytes, facts, read: Mutex::default() })
    }

    /// The object. An entry's bytes were encoded by us; should they be unreadable all the same, null.
    pub fn value(&self) -> Value {
        match &*self.read.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(read) => Value::clone(read),
            None => serde_json::from_slice(&self.bytes).unwrap_or_default(),
        }
    }

    /// The object, to look at: shared while it is warm.
    pub fn shared(&self) -> Arc<Value> {
        let warm = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        warm.unwrap_or_else(|| Arc::new(self.value()))
    }

    /// Keeps the bytes only.
    pub fn cool(&self) {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Whether its deletion was asked for.
    pub fn is_deleting(&self) -> bool {
        self.facts.deletion_timestamp.is_some()
    }

    /// Whether `finalizer` holds it.
    pub fn has_finalizer(&self, finalizer: &str) -> bool {
        self.facts.finalizers.iter().any(|held| held == finalizer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_survive_the_journal() {
        for (group, resource, namespace, name) in
            [("", "namespaces", "", "demo"), ("rbac.authorization.k8s.io", "roles", "a", "system:x"), ("g", "r", "n", "m")]
        {
            let key = ObjectKey::new(&ResourceId::new(group, resource), namespace, name);
            assert_eq!(ObjectKey::from_journal(&key.to_journal()), Some(key));
        }
    }

    #[test]
    fn facts_are_those_of_the_bytes() {
        let object = json!({"kind": "X", "metadata": {"name": "a", "uid": "u", "labels": null, "finalizers": ["f"], "ownerReferences": [{"uid": "o", "kind": "K"}]}});
        let key = ObjectKey::new(&ResourceId::new("", "xs"), "n", "a");
        let entry = Entry::encode(key.clone(), 7, object.into()).unwrap();
        let again = Entry::decode(key, entry.bytes.clone()).unwrap();
        assert_eq!((again.revision, again.facts.uid.as_str(), again.has_finalizer("f")), (7, "u", true));
        assert_eq!(again.facts.owner_references, entry.facts.owner_references);
    }
}
