//! The hub's schema carried to a spoke's shape, step by step.
//!
//! Older versions are also laxer: lower limits (`minItems`, `minProperties`, `minimum`) came with v1beta2, and the vSphere kinds had no upper
//! limits either ([`Limits`]). A schema must never refuse what upstream's schema of the same version accepts.

use serde_json::{Map, Value, json};

use super::Step;
use crate::meta::ObjectReference;
use crate::schema::structural;

/// Which of the hub's limits a spoke keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// All.
    Hub,
    /// Those on the length of texts and the number of items, but no lower ones.
    Upper,
    /// None.
    None,
}

/// The spoke's schema.
pub fn to_spoke(mut schema: Value, steps: &[Step], limits: Limits) -> Value {
    relax(&mut schema, limits);
    for step in steps {
        match step {
            Step::Move { hub, spoke } => relocate(&mut schema, hub, spoke, |schema| schema),
            Step::Seconds { hub, spoke } => relocate(&mut schema, hub, spoke, duration),
            Step::SecondsInList { list, hub, spoke } => {
                if let Some(item) = find(&mut schema, list).and_then(|list| list.get_mut("items")) {
                    let was_required = unrequire(item, hub);
                    if let Some(old) = item.get_mut("properties").and_then(Value::as_object_mut).and_then(|map| map.shift_remove(*hub)) {
                        put(item, spoke, duration(old));
                    }
                    if was_required {
                        require(item, spoke);
                    }
                }
            }
            Step::Reference(path) | Step::VersionedReference(path) | Step::NameReference { path, .. } => {
                if let Some(place) = find(&mut schema, path) {
                    let description = place.get("description").cloned();
                    *place = structural::<ObjectReference>();
                    if let (Some(map), Some(description)) = (place.as_object_mut(), description) {
                        map.insert("description".to_owned(), description);
                    }
                }
            }
            Step::FailureDomains(path) => {
                if let Some(place) = find(&mut schema, path) {
                    let mut item = place.get_mut("items").map(Value::take).unwrap_or_default();
                    if let Some(properties) = item.get_mut("properties").and_then(Value::as_object_mut) {
                        properties.shift_remove("name");
                    }
                    unrequire(&mut item, "name");
                    *place = json!({"type": "object", "description": "Places where machines can be put, by name.", "additionalProperties": item});
                }
            }
            Step::Word { path, .. } => {
                if let Some(map) = find(&mut schema, path).and_then(Value::as_object_mut) {
                    map.shift_remove("enum");
                }
            }
            Step::SpokeOnly { path, schema: only } => put(&mut schema, path, only.clone()),
            Step::HubOnly(path) => {
                take(&mut schema, path);
            }
            Step::Custom(custom) => (custom.schema)(&mut schema),
            Step::Schema(change) => change(&mut schema),
        }
    }
    schema
}

fn relax(schema: &mut Value, limits: Limits) {
    if limits == Limits::Hub {
        return;
    }
    let Some(map) = schema.as_object_mut() else { return };
    for key in ["minProperties", "minItems", "minimum"] {
        map.shift_remove(key);
    }
    let int_or_string = map.contains_key("x-kubernetes-int-or-string");
    if limits == Limits::None && !int_or_string {
        for key in ["minLength", "maxLength", "maxItems", "pattern"] {
            map.shift_remove(key);
        }
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        for (name, property) in properties.iter_mut() {
            // The metav1 conditions of a spoke are the hub's own.
            let inner = if name == "conditions" { Limits::Hub } else { limits };
            relax(property, inner);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            relax(inner, limits);
        }
    }
}

fn duration(old: Value) -> Value {
    let mut new = Map::new();
    new.insert("type".to_owned(), json!("string"));
    if let Some(description) = old.get("description") {
        new.insert("description".to_owned(), description.clone());
    }
    Value::Object(new)
}

/// The schema of the field at a path.
pub(crate) fn find<'a>(schema: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    let mut place = schema;
    for segment in path.split('.') {
        place = place.get_mut("properties")?.get_mut(segment)?;
    }
    Some(place)
}

/// Takes the schema of a field out, together with parents that have no fields after it.
pub(crate) fn take(schema: &mut Value, path: &str) -> Option<Value> {
    let (parent, name) = path.rsplit_once('.').map_or((None, path), |(parent, name)| (Some(parent), name));
    let place = match parent {
        Some(parent) => find(schema, parent)?,
        None => schema,
    };
    unrequire(place, name);
    let properties = place.get_mut("properties")?.as_object_mut()?;
    let taken = properties.shift_remove(name)?;
    let is_empty = properties.is_empty();
    if let (true, Some(parent)) = (is_empty && parent.is_some_and(|parent| parent.contains('.')), parent) {
        take(schema, parent);
    }
    Some(taken)
}

/// Puts the schema of a field, making parents.
pub(crate) fn put(schema: &mut Value, path: &str, field: Value) {
    let mut place = schema;
    for segment in path.split('.') {
        if place.get("properties").is_none()
            && let Some(map) = place.as_object_mut()
        {
            map.insert("properties".to_owned(), json!({}));
        }
        let Some(properties) = place.get_mut("properties").and_then(Value::as_object_mut) else { return };
        place = properties.entry(segment).or_insert_with(|| json!({"type": "object"}));
    }
    *place = field;
}

fn relocate(schema: &mut Value, from: &str, to: &str, change: impl Fn(Value) -> Value) {
    if let Some(field) = take(schema, from) {
        put(schema, to, change(field));
    }
}

/// Takes a name off the required ones; tells whether it was there.
pub(crate) fn unrequire(schema: &mut Value, name: &str) -> bool {
    let Some(map) = schema.as_object_mut() else { return false };
    let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) else { return false };
    let before = required.len();
    required.retain(|one| one.as_str() != Some(name));
    let (after, is_empty) = (required.len(), required.is_empty());
    if is_empty {
        map.shift_remove("required");
    }
    after != before
}

/// Puts a name to the required ones.
pub(crate) fn require(schema: &mut Value, name: &str) {
    let Some(map) = schema.as_object_mut() else { return };
    if let Some(required) = map.entry("required").or_insert_with(|| json!([])).as_array_mut() {
        required.push(json!(name));
        required.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
}
