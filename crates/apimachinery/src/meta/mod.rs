//! Accessors for `metadata` of objects that are kept as JSON values.
//!
//! Reading never fails: what is absent or of the wrong type reads as empty. Writing makes `metadata` where it is missing.

mod rules;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The number of entries up to which a map is gone through.
const SMALL: usize = 12;

pub use rules::{malformed, validate, validate_update};

/// One owner in `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnerReference {
    /// The owner's `apiVersion`, as the writer of the reference knew it.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// The owner's UID: what garbage collection goes by.
    pub uid: String,
    /// Whether the owner is the managing controller.
    pub controller: bool,
    /// Whether foreground deletion of the owner waits for this object.
    pub block_owner_deletion: bool,
}

fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    at(object, &["metadata", name])
}

fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    field(object, name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The value at a path of field names.
#[must_use]
pub fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, name| entry(value.as_object()?, name))
}

/// A key as a step of a JSON pointer (RFC 6901).
#[must_use]
pub fn pointer_step(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The value at a JSON pointer (RFC 6901), as [`Value::pointer`] finds it. Where no step is escaped, nothing is allocated: objects are looked
/// through this way all the time.
#[must_use]
pub fn pointer<'a>(object: &'a Value, pointer: &str) -> Option<&'a Value> {
    let plain = pointer.strip_prefix('/').filter(|steps| !steps.as_bytes().contains(&b'~'));
    let Some(mut steps) = plain else { return object.pointer(pointer) };
    let mut value = object;
    loop {
        let (step, rest) = match steps.bytes().position(|byte| byte == b'/') {
            Some(end) => (&steps[..end], Some(&steps[end + 1..])),
            None => (steps, None),
        };
        value = match value {
            Value::Object(map) => entry(map, step)?,
            Value::Array(list) if step == "0" || !step.starts_with(['0', '+']) => list.get(step.parse::<usize>().ok()?)?,
            _ => return None,
        };
        match rest {
            Some(rest) => steps = rest,
            None => return Some(value),
        }
    }
}

/// As [`Map::get`]: in a small map the entries are gone through, which takes less than hashing the name does.
fn entry<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if map.len() > SMALL {
        return map.get(name);
    }
    map.iter().find(|(known, _)| known.as_str() == name).map(|(_, value)| value)
}

/// Whether two values are equal, as `==` says. Of two states of one object the fields mostly stand in the same order: then nothing is looked
/// up.
#[must_use]
pub fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            if one.len() != other.len() {
                return false;
            }
            for ((field, value), (other_field, other_value)) in one.iter().zip(other) {
                if field != other_field {
                    return one == other;
                }
                if !is_same(value, other_value) {
                    return false;
                }
            }
            true
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (one, other) => one == other,
    }
}

/// The text at a JSON pointer; empty when there is none.
#[must_use]
pub fn text_at<'a>(object: &'a Value, at: &str) -> &'a str {
    pointer(object, at).and_then(Value::as_str).unwrap_or_default()
}

/// `apiVersion`, or empty.
#[must_use]
pub fn api_version(object: &Value) -> &str {
    object.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
}

/// `kind`, or empty.
#[must_use]
pub fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// The name, or empty.
#[must_use]
pub fn name(object: &Value) -> &str {
    text(object, "name").unwrap_or_default()
}

/// The prefix of a name to be generated.
#[must_use]
pub fn generate_name(object: &Value) -> Option<&str> {
    text(object, "generateName")
}

/// The namespace; `None` for cluster-scoped objects.
#[must_use]
pub fn namespace(object: &Value) -> Option<&str> {
    text(object, "namespace")
}

/// The UID, or empty before the object was stored.
#[must_use]
pub fn uid(object: &Value) -> &str {
    text(object, "uid").unwrap_or_default()
}

/// The resource version.
#[must_use]
pub fn resource_version(object: &Value) -> Option<&str> {
    text(object, "resourceVersion")
}

/// The generation, 0 where absent.
#[must_use]
pub fn generation(object: &Value) -> i64 {
    field(object, "generation").and_then(Value::as_i64).unwrap_or_default()
}

/// When the object was created, in RFC 3339.
#[must_use]
pub fn creation_timestamp(object: &Value) -> Option<&str> {
    text(object, "creationTimestamp")
}

/// When the object was asked to go, in RFC 3339.
#[must_use]
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    text(object, "deletionTimestamp")
}

fn pairs(object: &Value, name: &str) -> BTreeMap<String, String> {
    let entries = field(object, name).and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// The labels.
#[must_use]
pub fn labels(object: &Value) -> BTreeMap<String, String> {
    pairs(object, "labels")
}

/// One label's value.
#[must_use]
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    field(object, "labels")?.get(key)?.as_str()
}

/// The annotations.
#[must_use]
pub fn annotations(object: &Value) -> BTreeMap<String, String> {
    pairs(object, "annotations")
}

/// One annotation's value.
#[must_use]
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    field(object, "annotations")?.get(key)?.as_str()
}

/// The finalizers, in order.
#[must_use]
pub fn finalizers(object: &Value) -> Vec<&str> {
    field(object, "finalizers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The owners, in order.
#[must_use]
pub fn owner_references(object: &Value) -> Vec<OwnerReference> {
    let list = field(object, "ownerReferences").and_then(Value::as_array).into_iter().flatten();
    list.map(|entry| {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let flag = |name: &str| entry.get(name).and_then(Value::as_bool).unwrap_or_default();
        OwnerReference {
            api_version: text("apiVersion"),
            kind: text("kind"),
            name: text("name"),
            uid: text("uid"),
            controller: flag("controller"),
            block_owner_deletion: flag("blockOwnerDeletion"),
        }
    })
    .collect()
}

/// `metadata` to write to; made where it is missing. `None` when the object is no JSON object.
pub fn metadata_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object.as_object_mut()?.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata.as_object_mut()
}

/// Sets one field of `metadata`.
pub fn set(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(metadata) = metadata_mut(object) {
        metadata.insert(name.to_owned(), value.into());
    }
}

/// Removes one field of `metadata`.
pub fn unset(object: &mut Value, name: &str) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove(name);
    }
}

/// Sets the finalizers; an empty list removes the field.
pub fn set_finalizers(object: &mut Value, finalizers: &[&str]) {
    if finalizers.is_empty() { unset(object, "finalizers") } else { set(object, "finalizers", json!(finalizers)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_find_what_those_of_the_library_find() {
        let object = json!({"a": {"b/c": [1, {"d~": "x"}], "": 2, "0": [3]}, "": {"": 4}, "text": "t"});
        for at in [
            "",
            "/",
            "//",
            "/a",
            "/a/",
            "/a/0",
            "/a/0/0",
            "/a/0/00",
            "/a/0/+0",
            "/a/0/1",
            "/a/b~1c/0",
            "/a/b~1c/1/d~0",
            "/a/b/c",
            "a",
            "/text/0",
            "/missing/deep",
        ] {
            assert_eq!(pointer(&object, at), object.pointer(at), "{at}");
        }
        assert_eq!((text_at(&object, "/text"), text_at(&object, "/a")), ("t", ""));
    }

    #[test]
    fn equal_values_are_the_same_in_any_order() {
        let values = [
            json!({"a": 1, "b": {"c": [1, {"d": null, "e": ""}]}}),
            json!({"b": {"c": [1, {"e": "", "d": null}]}, "a": 1}),
            json!({"a": 1, "b": {"c": [1, {"e": "", "d": 0}]}}),
            json!({"a": 1, "b": {"c": [1]}}),
            json!({"a": 1}),
            json!({"b": 1}),
            json!([1, 2]),
            json!([2, 1]),
            json!(1),
            json!(1.0),
            json!("1"),
        ];
        for one in &values {
            for other in &values {
                assert_eq!(is_same(one, other), one == other, "{one} {other}");
            }
        }
    }

    #[test]
    fn metadata_reads_and_writes() {
        let mut object = json!({"kind": "K", "apiVersion": "v1", "metadata": {
            "name": "n", "namespace": "ns", "labels": {"a": "1", "b": 2}, "finalizers": ["f"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "O", "name": "o", "uid": "u", "controller": true}]}});
        assert_eq!((name(&object), namespace(&object), uid(&object)), ("n", Some("ns"), ""));
        assert_eq!(labels(&object), BTreeMap::from([("a".to_owned(), "1".to_owned())]));
        assert_eq!(finalizers(&object), ["f"]);
        let owner = &owner_references(&object)[0];
        assert!(owner.controller && !owner.block_owner_deletion && owner.uid == "u");
        set_finalizers(&mut object, &[]);
        assert_eq!(field(&object, "finalizers"), None);
        let mut bare = json!({});
        set(&mut bare, "name", "x");
        assert_eq!(bare, json!({"metadata": {"name": "x"}}));
    }
}
