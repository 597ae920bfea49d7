//! Writing statuses: the difference between what is there and what was computed, as one merge patch; no call when there is none.
//!
//! The patch carries the resourceVersion that the status was computed for: lists of conditions are replaced whole, and other writers'
//! conditions must not be lost. A conflict means that something changed; the loop runs the object again.

use std::sync::Arc;

use api::conditions::{self, Condition};
use jiff::Timestamp;
use runtime::reconcile::{ApiError, Object, ObjectKey, Store};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The merge patch that makes `old` into `new`; none when they are equal. Lists are replaced whole.
pub fn difference(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for (key, value) in new {
                let change = old.get(key).map_or_else(|| Some(value.clone()), |known| difference(known, value));
                if let Some(change) = change {
                    patch.insert(key.clone(), change);
                }
            }
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                patch.insert(key.clone(), Value::Null);
            }
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        (old, new) => (old != new).then(|| new.clone()),
    }
}

/// Makes the status of `object` from `old` into `new`. None when they are equal.
///
/// # Errors
/// As the API answers; a conflict when the object changed since `object` was read.
pub async fn patch<K: Object, S: Serialize + PartialEq>(
    store: &Store<K>,
    object: &K,
    old: Option<&S>,
    new: &S,
) -> Result<Option<Arc<K>>, ApiError> {
    // Most passes change nothing, which is seen without writing either down.
    if old == Some(new) {
        return Ok(None);
    }
    let as_json = |status: &S| serde_json::to_value(status).unwrap_or_default();
    let Some(change) = difference(&old.map_or_else(|| json!({}), as_json), &as_json(new)) else { return Ok(None) };
    write(store, object, change).await.map(Some)
}

/// Makes the status of `object` from `old` into `new`, as [`patch`], in one write with `fields`, which nobody else writes and which must not
/// be lost: where the whole is refused, they are written alone, into this very object whatever else changed of it. None then.
///
/// # Errors
/// As the API answers to the fields alone.
pub async fn record<K: Object, S: Serialize>(
    store: &Store<K>,
    object: &K,
    old: Option<&S>,
    new: &S,
    fields: Map<String, Value>,
) -> Result<Option<Arc<K>>, ApiError> {
    let as_json = |status: &S| serde_json::to_value(status).unwrap_or_default();
    let mut change = difference(&old.map_or_else(|| json!({}), as_json), &as_json(new)).unwrap_or_else(|| json!({}));
    if let Value::Object(change) = &mut change {
        change.extend(fields.clone());
    }
    match write(store, object, change).await {
        Err(error) if error.is_not_found() => Err(error),
        Err(_) => {
            let alone = json!({"metadata": {"uid": object.meta().uid}, "status": fields});
            store.merge_status(&ObjectKey::of(object.meta()), alone).await.map(|_| None)
        }
        Ok(written) => Ok(Some(written)),
    }
}

async fn write<K: Object>(store: &Store<K>, object: &K, change: Value) -> Result<Arc<K>, ApiError> {
    let meta = object.meta();
    let mut metadata = Map::new();
    for (field, value) in [("uid", &meta.uid), ("resourceVersion", &meta.resource_version)] {
        if let Some(value) = value {
            metadata.insert(field.to_owned(), json!(value));
        }
    }
    store.merge_status(&ObjectKey::of(meta), json!({"metadata": metadata, "status": change})).await
}

/// Sets the condition that tells whether an object is paused.
pub fn set_paused(conditions: &mut Vec<Condition>, is_paused: bool, generation: Option<i64>, now: Timestamp) {
    let reason = if is_paused { "Paused" } else { "NotPaused" };
    conditions::set(conditions, conditions::new("Paused", is_paused, reason, ""), generation, now);
}

/// An object that went while its status was written needs no status.
///
/// # Errors
/// Any other error, unchanged.
pub fn unless_gone(error: ApiError) -> Result<(), ApiError> {
    if error.is_not_found() { Ok(()) } else { Err(error) }
}
