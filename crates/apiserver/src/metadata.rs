//! The metadata of objects that are written: what is the server's, what is wrong with the rest, and when an object is finished.

use apimachinery::{FieldError, meta, names};
use serde_json::Value;

use crate::registry::Resource;
use crate::strategy;

/// Fields of the metadata that are the server's.
const SYSTEM: &[&str] =
    &["uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "generateName"];

/// Puts the metadata that is the server's back as it is stored; empty lists and maps that were not there go.
pub fn restore_metadata(object: &mut Value, stored: &Value) {
    for field in SYSTEM {
        match meta::at(stored, &["metadata", field]) {
            Some(value) if meta::at(object, &["metadata", field]) == Some(value) => {}
            Some(value) => meta::set(object, field, value.clone()),
            None => meta::unset(object, field),
        }
    }
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let is_empty = |value: &Value| {
            value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
        };
        if meta::at(object, &["metadata", field]).is_some_and(is_empty) && meta::at(stored, &["metadata", field]).is_none() {
            meta::unset(object, field);
        }
    }
}

/// Puts a field back as it is stored.
pub fn keep(object: &mut Value, stored: &Value, field: &str) {
    let Some(map) = object.as_object_mut() else { return };
    match stored.get(field) {
        Some(value) if map.get(field).is_some_and(|known| meta::is_same(known, value)) => {}
        Some(value) => drop(map.insert(field.to_owned(), value.clone())),
        None => drop(map.shift_remove(field)),
    }
}

/// Whether anything but metadata and status differs.
pub fn differs_in_specification(object: &Value, stored: &Value) -> bool {
    let (Some(object), Some(stored)) = (object.as_object(), stored.as_object()) else { return true };
    let counts = |field: &&String| !matches!(field.as_str(), "metadata" | "status" | "apiVersion" | "kind");
    object.keys().chain(stored.keys()).filter(counts).any(|field| object.get(field) != stored.get(field))
}

/// Whether nothing holds a deleted object any longer.
pub fn is_finished(resource: &Resource, object: &Value) -> bool {
    let holds_content = &*resource.id.resource == "namespaces"
        && resource.id.group.is_empty()
        && meta::at(object, &["spec", "finalizers"]).and_then(Value::as_array).is_some_and(|finalizers| !finalizers.is_empty());
    // What is given grace is there until whoever stops it says so.
    let grace = meta::at(object, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64).unwrap_or(0);
    meta::deletion_timestamp(object).is_some() && grace == 0 && meta::finalizers(object).is_empty() && !holds_content
}

/// What is wrong with the metadata.
pub fn check_metadata(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = meta::name(object);
    if old.is_none() {
        errors.extend(
            strategy::name_rule(&resource.id).check(name, false).into_iter().map(|why| FieldError::invalid("metadata.name", name, why)),
        );
    }
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    for (field, kind) in [("labels", "object"), ("annotations", "object"), ("finalizers", "array"), ("ownerReferences", "array")] {
        let is_right = match metadata.get(field) {
            None | Some(Value::Null) => true,
            Some(value) if kind == "array" => value.is_array(),
            Some(Value::Object(map)) => map.values().all(Value::is_string),
            Some(_) => false,
        };
        if !is_right {
            errors.push(FieldError::type_invalid(
                format!("metadata.{field}"),
                kind,
                format!("metadata.{field} in body must be of type {kind}"),
            ));
        }
    }
    let unchanged = |field: &str| old.is_some_and(|old| meta::at(old, &["metadata", field]) == metadata.get(field));
    if !unchanged("labels") {
        for (key, value) in metadata.get("labels").and_then(Value::as_object).into_iter().flatten() {
            errors.extend(names::qualified_name(key).into_iter().map(|why| FieldError::invalid("metadata.labels", key.as_str(), why)));
            let value = value.as_str().unwrap_or_default();
            errors.extend(names::label_value(value).into_iter().map(|why| FieldError::invalid("metadata.labels", value, why)));
        }
    }
    if !unchanged("annotations") {
        for key in metadata.get("annotations").and_then(Value::as_object).into_iter().flat_map(|map| map.keys()) {
            let lower = key.to_lowercase();
            errors.extend(
                names::qualified_name(&lower).into_iter().map(|why| FieldError::invalid("metadata.annotations", key.as_str(), why)),
            );
        }
    }
    if !unchanged("ownerReferences") {
        for (index, owner) in metadata.get("ownerReferences").and_then(Value::as_array).into_iter().flatten().enumerate() {
            for field in ["apiVersion", "kind", "name", "uid"] {
                let path = format!("metadata.ownerReferences[{index}].{field}");
                match owner.get(field) {
                    Some(Value::String(text)) if !text.is_empty() => {}
                    _ => errors.push(FieldError::invalid(path, "", "must not be empty")),
                }
            }
        }
        let controllers = metadata.get("ownerReferences").and_then(Value::as_array).into_iter().flatten();
        if controllers.filter(|owner| owner.get("controller") == Some(&Value::Bool(true))).count() > 1 {
            errors.push(FieldError::invalid("metadata.ownerReferences", Value::Null, "Only one reference can have Controller set to true"));
        }
    }
    if let Some(old) = old.filter(|old| meta::deletion_timestamp(old).is_some()) {
        let before = meta::finalizers(old);
        let new: Vec<&str> = meta::finalizers(object).into_iter().filter(|finalizer| !before.contains(finalizer)).collect();
        if !new.is_empty() {
            let listed: Vec<String> = new.iter().map(|finalizer| format!("{finalizer:?}")).collect();
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    listed.join(", ")
                ),
            ));
        }
    }
    errors
}
