//! How stored objects are shown: version, form (object, metadata, table), lists and watch frames.
//!
//! The usual case - the stored version, as an object - splices the stored bytes and reads nothing.

use std::sync::Arc;

use apimachinery::table::{Include, partial};
use apimachinery::{StatusError, meta};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::event::{Change, Delivery, FrameKey};
use crate::events;
use crate::object::Entry;
use crate::registry::{Resource, Version};
use crate::request::Form;
use crate::server::Inner;

/// Shows objects of one resource in one version and form. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Presenter {
    pub resource: Arc<Resource>,
    /// Index into the resource's versions.
    pub version: usize,
    pub form: Form,
    pub include: Include,
}

/// Where a list stands.
#[derive(Clone, Debug, Default)]
pub struct ListMeta {
    pub revision: u64,
    pub continuation: Option<String>,
    pub remaining: Option<usize>,
}

impl ListMeta {
    fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("resourceVersion".to_owned(), json!(self.revision.to_string()));
        if let Some(token) = &self.continuation {
            map.insert("continue".to_owned(), json!(token));
        }
        if let Some(remaining) = self.remaining {
            map.insert("remainingItemCount".to_owned(), json!(remaining));
        }
        Value::Object(map)
    }
}

impl Presenter {
    /// As objects in the version they are stored in.
    pub fn stored(resource: &Arc<Resource>) -> Self {
        Self { resource: resource.clone(), version: resource.storage, form: Form::Object, include: Include::Metadata }
    }

    /// The version shown; a resource always has the versions its presenters name.
    pub fn version(&self) -> Option<&Version> {
        self.resource.versions.get(self.version)
    }

    fn is_as_stored(&self) -> bool {
        self.version == self.resource.storage && !self.resource.is_view()
    }

    /// A stored object in the version shown.
    pub fn convert(&self, inner: &Inner, stored: Value) -> Result<Value, StatusError> {
        if self.resource.is_view() {
            return Ok(events::to_view(stored));
        }
        let Some(version) = self.version() else { return Ok(stored) };
        if self.is_as_stored() {
            return Ok(stored);
        }
        inner.conversion.convert(stored, &version.name)
    }

    /// The object in the version shown.
    pub fn value(&self, inner: &Inner, entry: &Entry) -> Result<Value, StatusError> {
        self.convert(inner, entry.value())
    }

    /// One object, in the form asked for.
    pub fn one(&self, inner: &Inner, entry: &Entry) -> Result<Bytes, StatusError> {
        match self.form {
            Form::Object | Form::Discovery if self.is_as_stored() => Ok(entry.bytes.clone()),
            Form::Object | Form::Discovery => Ok(encode(&self.value(inner, entry)?)),
            Form::Metadata => Ok(encode(&partial(&self.value(inner, entry)?))),
            Form::Table { .. } => {
                let meta = ListMeta { revision: entry.revision, ..ListMeta::default() };
                Ok(encode(&self.table(inner, &[self.value(inner, entry)?], &meta)))
            }
        }
    }

    /// An object that is not stored (the outcome of a dry run), in the form asked for.
    pub fn unstored(&self, inner: &Inner, stored: Value) -> Result<Bytes, StatusError> {
        let shown = self.convert(inner, stored)?;
        Ok(match self.form {
            Form::Object | Form::Discovery => encode(&shown),
            Form::Metadata => encode(&partial(&shown)),
            Form::Table { .. } => encode(&self.table(inner, &[shown], &ListMeta::default())),
        })
    }

    /// A list, in the form asked for.
    pub fn list(&self, inner: &Inner, entries: &[Arc<Entry>], meta: &ListMeta) -> Result<Bytes, StatusError> {
        let (kind, api_version) = match self.form {
            Form::Table { .. } => {
                let values: Vec<Value> = entries.iter().map(|entry| self.value(inner, entry)).collect::<Result<_, _>>()?;
                return Ok(encode(&self.table(inner, &values, meta)));
            }
            Form::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1"),
            Form::Object | Form::Discovery => {
                (self.resource.list_kind.as_str(), self.version().map_or("v1", |version| version.api_version.as_str()))
            }
        };
        let size: usize = entries.iter().map(|entry| entry.bytes.len() + 1).sum();
        let mut out = Vec::with_capacity(size + 160);
        out.extend_from_slice(
            format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{},\"items\":[", meta.to_json()).as_bytes(),
        );
        for (index, entry) in entries.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&self.one(inner, entry)?);
        }
        out.extend_from_slice(b"]}");
        Ok(Bytes::from(out))
    }

    fn table(&self, inner: &Inner, objects: &[Value], meta: &ListMeta) -> Value {
        let Some(version) = self.version() else { return Value::Null };
        let mut table = version.columns.table(meta.to_json(), objects, self.include, inner.clock.now());
        if let Some(map) = table.as_object_mut().filter(|_| matches!(self.form, Form::Table { is_beta: true })) {
            map.insert("apiVersion".to_owned(), json!("meta.k8s.io/v1beta1"));
        }
        table
    }

    /// One line of a watch.
    pub fn frame(kind: &str, object: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(object.len() + 32);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        out.extend_from_slice(object);
        out.extend_from_slice(b"}\n");
        Bytes::from(out)
    }

    /// The frame that shows an object as it is: the start of a watch.
    pub fn initial(&self, inner: &Inner, entry: &Entry) -> Bytes {
        match self.one(inner, entry) {
            Ok(object) => Self::frame(Change::Added.as_str(), &object),
            Err(error) => Self::frame("ERROR", error.to_json().to_string().as_bytes()),
        }
    }

    /// The frame of an event. Encoded once for all watchers that want the same form.
    pub fn delivery(&self, inner: &Inner, delivery: &Delivery) -> Bytes {
        let encode = || {
            let shown = if delivery.has_left() { self.left(inner, delivery) } else { self.one(inner, &delivery.event.entry) };
            match shown {
                Ok(object) => Self::frame(delivery.change.as_str(), &object),
                Err(error) => Self::frame("ERROR", error.to_json().to_string().as_bytes()),
            }
        };
        let Some(version) = self.version().filter(|_| !matches!(self.form, Form::Table { .. })) else { return encode() };
        let key = FrameKey {
            change: delivery.change,
            version: version.name.clone(),
            group: self.resource.group.clone(),
            is_metadata_only: self.form == Form::Metadata,
        };
        delivery.event.frame(key, encode)
    }

    /// An object that left the selection, as it last was inside, at the revision at which it left.
    fn left(&self, inner: &Inner, delivery: &Delivery) -> Result<Bytes, StatusError> {
        let mut last = delivery.event.previous.as_ref().map(|entry| entry.value()).unwrap_or_default();
        meta::set(&mut last, "resourceVersion", delivery.event.revision.to_string());
        self.unstored(inner, last)
    }

    /// A bookmark: what revision the client is at, and whether the initial objects are all told.
    pub fn bookmark(&self, revision: u64, ends_initial: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if let Some(map) = metadata.as_object_mut().filter(|_| ends_initial) {
            map.insert("annotations".to_owned(), json!({"k8s.io/initial-events-end": "true"}));
        }
        let object = match self.form {
            Form::Metadata => json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}),
            Form::Table { .. } => {
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": null, "rows": []})
            }
            Form::Object | Form::Discovery => {
                let api_version = self.version().map_or("v1", |version| version.api_version.as_str());
                json!({"kind": self.resource.kind, "apiVersion": api_version, "metadata": metadata})
            }
        };
        Self::frame("BOOKMARK", object.to_string().as_bytes())
    }
}

fn encode(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}
