//! Changes to an object's metadata and spec, gathered into one merge patch of exactly the fields that change.
//!
//! Lists (finalizers, owner references) are replaced whole by a merge patch; the patch then carries the resourceVersion it was made for, so
//! that what somebody else added meanwhile is never lost. A change that is there already adds nothing, and an edit without change makes no call.

use std::sync::Arc;

use api::cluster::Cluster;
use api::names::{annotations, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use runtime::reconcile::{ApiError, Object, ObjectKey, Store};
use serde_json::{Map, Value, json};

/// An edit of one object.
#[derive(Debug)]
pub struct Edit<'a> {
    meta: &'a ObjectMeta,
    metadata: Map<String, Value>,
    spec: Map<String, Value>,
    finalizers: Option<Vec<String>>,
    owners: Option<Vec<OwnerReference>>,
}

impl<'a> Edit<'a> {
    /// An edit without change.
    pub fn of(meta: &'a ObjectMeta) -> Self {
        Self { meta, metadata: Map::new(), spec: Map::new(), finalizers: None, owners: None }
    }

    /// Adds a finalizer (not to an object that is being deleted: the API refuses that).
    #[must_use]
    pub fn finalizer(mut self, finalizer: &str) -> Self {
        let present = self.finalizers.as_ref().or(self.meta.finalizers.as_ref());
        if self.meta.deletion_timestamp.is_none() && !present.into_iter().flatten().any(|known| known == finalizer) {
            let mut finalizers = present.cloned().unwrap_or_default();
            finalizers.push(finalizer.to_owned());
            self.finalizers = Some(finalizers);
        }
        self
    }

    /// Takes a finalizer away.
    #[must_use]
    pub fn without_finalizer(mut self, finalizer: &str) -> Self {
        let present = self.finalizers.as_ref().or(self.meta.finalizers.as_ref());
        if present.into_iter().flatten().any(|known| known == finalizer) {
            self.finalizers = Some(present.into_iter().flatten().filter(|known| *known != finalizer).cloned().collect());
        }
        self
    }

    /// Adds an owner, or renews the reference to it. A second controller is added as a plain owner.
    #[must_use]
    pub fn owner(mut self, mut owner: OwnerReference) -> Self {
        let mut owners = self.owners.take().or_else(|| self.meta.owner_references.clone()).unwrap_or_default();
        let has_other_controller = owners.iter().any(|known| known.controller == Some(true) && known.uid != owner.uid);
        if has_other_controller {
            owner.controller = None;
        }
        match owners.iter_mut().find(|known| known.uid == owner.uid) {
            Some(known) => *known = owner,
            None => owners.push(owner),
        }
        self.owners = Some(owners);
        self
    }

    /// Takes the owner with this uid away.
    #[must_use]
    pub fn without_owner(mut self, uid: &str) -> Self {
        let mut owners = self.owners.take().or_else(|| self.meta.owner_references.clone()).unwrap_or_default();
        owners.retain(|known| known.uid != uid);
        self.owners = Some(owners);
        self
    }

    /// Sets a label.
    #[must_use]
    pub fn label(self, key: &str, value: &str) -> Self {
        let is_set = self.meta.labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|known| known == value);
        if is_set { self } else { self.put("labels", key, json!(value)) }
    }

    /// Sets an annotation.
    #[must_use]
    pub fn annotation(self, key: &str, value: &str) -> Self {
        let is_set = self.meta.annotations.as_ref().and_then(|known| known.get(key)).is_some_and(|known| known == value);
        if is_set { self } else { self.put("annotations", key, json!(value)) }
    }

    /// Takes an annotation away.
    #[must_use]
    pub fn without_annotation(self, key: &str) -> Self {
        let is_set = self.meta.annotations.as_ref().is_some_and(|known| known.contains_key(key));
        if is_set { self.put("annotations", key, Value::Null) } else { self }
    }

    fn put(mut self, part: &str, key: &str, value: Value) -> Self {
        let part = self.metadata.entry(part).or_insert_with(|| json!({}));
        if let Value::Object(part) = part {
            part.insert(key.to_owned(), value);
        }
        self
    }

    /// Sets a field of the spec (`null` takes it away). The caller has seen that it differs.
    #[must_use]
    pub fn spec(mut self, field: &str, value: Value) -> Self {
        self.spec.insert(field.to_owned(), value);
        self
    }

    /// The merge patch, or none when nothing changes.
    pub fn patch(self) -> Option<Value> {
        let mut metadata = self.metadata;
        let owners = self.owners.filter(|owners| Some(owners) != self.meta.owner_references.as_ref());
        let owners = owners.filter(|owners| !owners.is_empty() || self.meta.owner_references.is_some());
        let is_list_changed = owners.is_some() || self.finalizers.is_some();
        if let Some(owners) = owners {
            metadata.insert("ownerReferences".to_owned(), json!(owners));
        }
        if let Some(finalizers) = self.finalizers {
            metadata.insert("finalizers".to_owned(), json!(finalizers));
        }
        if metadata.is_empty() && self.spec.is_empty() {
            return None;
        }
        if is_list_changed && let Some(version) = &self.meta.resource_version {
            metadata.insert("resourceVersion".to_owned(), json!(version));
        }
        if let Some(uid) = &self.meta.uid {
            // Never a later object of the same name.
            metadata.insert("uid".to_owned(), json!(uid));
        }
        let mut patch = Map::new();
        patch.insert("metadata".to_owned(), Value::Object(metadata));
        if !self.spec.is_empty() {
            patch.insert("spec".to_owned(), Value::Object(self.spec));
        }
        Some(Value::Object(patch))
    }

    /// Writes the change; none when there is none.
    ///
    /// # Errors
    /// As the API answers; a conflict when the object changed meanwhile.
    pub async fn apply<K: Object>(self, store: &Store<K>) -> Result<Option<Arc<K>>, ApiError> {
        let key = ObjectKey::of(self.meta);
        match self.patch() {
            Some(patch) => store.merge(&key, patch).await.map(Some),
            None => Ok(None),
        }
    }
}

/// A reference that makes `owner` the controller of an object, as upstream's `metav1.NewControllerRef`.
pub fn controller_of<K: kube::Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference { controller: Some(true), block_owner_deletion: Some(true), ..owner_of(owner) }
}

/// A reference that makes `owner` one of an object's owners.
pub fn owner_of<K: kube::Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: None,
        block_owner_deletion: None,
    }
}

/// The reference to an object's controller.
pub fn controller_reference(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether nobody is to reconcile the object: its cluster is paused, or it carries the annotation.
pub fn is_paused(cluster: Option<&Cluster>, meta: &ObjectMeta) -> bool {
    cluster.is_some_and(|cluster| cluster.spec.paused == Some(true))
        || meta.annotations.as_ref().is_some_and(|known| known.contains_key(annotations::PAUSED))
}

/// The name of the Cluster that an object is labelled with.
pub fn cluster_name(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(labels::CLUSTER_NAME).map(String::as_str)
}

/// Whether the object is being deleted.
pub fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// Whether the object has this finalizer.
pub fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|known| known == finalizer)
}
