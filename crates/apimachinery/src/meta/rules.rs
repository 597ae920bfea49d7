//! Rules for `metadata`, the same for every kind: names, namespaces, labels, annotations, owners and finalizers.
//!
//! Texts and order are those of Kubernetes 1.33. Names that the server generated have been filled in before.

use serde_json::{Value, json};

use super::{annotations, at, finalizers, generate_name, generation, labels, name, namespace, owner_references, resource_version};
use crate::field::{FieldError, index, quote};
use crate::names::{self, NameRule};

/// All keys and values of an object's annotations together, in bytes.
const ANNOTATIONS_LIMIT: u64 = 256 * 1024;

const IMMUTABLE: &str = "field is immutable";

/// What is wrong with the metadata of a new object.
#[must_use]
pub fn validate(object: &Value, is_namespaced: bool, rule: NameRule) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(prefix) = generate_name(object) {
        errors.extend(rule.check(prefix, true).into_iter().map(|why| FieldError::invalid("metadata.generateName", prefix, why)));
    }
    match name(object) {
        "" => errors.push(FieldError::required("metadata.name", "name or generateName is required")),
        name => errors.extend(rule.check(name, false).into_iter().map(|why| FieldError::invalid("metadata.name", name, why))),
    }
    match (is_namespaced, namespace(object)) {
        (true, None) => errors.push(FieldError::required("metadata.namespace", "")),
        (true, Some(space)) => {
            errors.extend(names::label(space).into_iter().map(|why| FieldError::invalid("metadata.namespace", space, why)));
        }
        (false, Some(_)) => errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type")),
        (false, None) => {}
    }
    if generation(object) < 0 {
        errors.push(FieldError::invalid("metadata.generation", generation(object), "must be greater than or equal to 0"));
    }
    common(object, &mut errors);
    let finalizers = finalizers(object);
    for finalizer in &finalizers {
        errors.extend(names::qualified_name(finalizer).into_iter().map(|why| FieldError::invalid("metadata.finalizers", *finalizer, why)));
    }
    if finalizers.contains(&"orphan") && finalizers.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid("metadata.finalizers", json!(finalizers), detail));
    }
    errors
}

/// What is wrong with the metadata of an object that takes the place of `old`. Both carry what the server sets.
#[must_use]
pub fn validate_update(object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if super::deletion_timestamp(old).is_some() {
        let before = finalizers(old);
        let mut added: Vec<&str> = finalizers(object).into_iter().filter(|f| !before.contains(f)).collect();
        added.sort_unstable();
        if !added.is_empty() {
            let list = added.iter().map(|f| quote(f)).collect::<Vec<_>>().join(", ");
            let detail = format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}");
            errors.push(FieldError::forbidden("metadata.finalizers", detail));
        }
    }
    if resource_version(object).is_none() {
        errors.push(FieldError::invalid("metadata.resourceVersion", "", "must be specified for an update"));
    }
    if generation(object) < generation(old) {
        errors.push(FieldError::invalid("metadata.generation", generation(object), "must not be decremented"));
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let of = |object: &Value| at(object, &["metadata", field]).filter(|value| !value.is_null() && *value != "").cloned();
        let new = of(object);
        if new != of(old) {
            errors.push(FieldError::invalid(format!("metadata.{field}"), new.unwrap_or_default(), IMMUTABLE));
        }
    }
    common(object, &mut errors);
    errors
}

fn common(object: &Value, errors: &mut Vec<FieldError>) {
    for (key, value) in labels(object) {
        errors.extend(names::qualified_name(&key).into_iter().map(|why| FieldError::invalid("metadata.labels", key.as_str(), why)));
        errors.extend(names::label_value(&value).into_iter().map(|why| FieldError::invalid("metadata.labels", value.as_str(), why)));
    }
    let mut size = 0;
    for (key, value) in annotations(object) {
        let wrong = names::qualified_name(&key.to_lowercase());
        errors.extend(wrong.into_iter().map(|why| FieldError::invalid("metadata.annotations", key.as_str(), why)));
        size += (key.len() + value.len()) as u64;
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATIONS_LIMIT));
    }
    owners(object, errors);
}

fn owners(object: &Value, errors: &mut Vec<FieldError>) {
    let mut controller: Option<String> = None;
    for (i, owner) in owner_references(object).iter().enumerate() {
        let path = index("metadata.ownerReferences", i);
        let (version, kind) = (&owner.api_version, &owner.kind);
        for (field, value, detail) in [
            ("apiVersion", version, "version must not be empty"),
            ("kind", kind, "kind must not be empty"),
            ("name", &owner.name, "name must not be empty"),
            ("uid", &owner.uid, "uid must not be empty"),
        ] {
            if value.is_empty() {
                errors.push(FieldError::invalid(format!("{path}.{field}"), value.as_str(), detail));
            }
        }
        if version == "v1" && kind == "Event" {
            errors.push(FieldError::invalid(
                path,
                json!({"kind": kind, "name": owner.name}),
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if owner.controller {
            let this = format!("{kind}/{}", owner.name);
            if let Some(first) = &controller {
                let detail =
                    format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}");
                let list = at(object, &["metadata", "ownerReferences"]).cloned().unwrap_or_default();
                errors.push(FieldError::invalid("metadata.ownerReferences", list, detail));
            } else {
                controller = Some(this);
            }
        }
    }
}

/// What is wrong with the types of the fields of `metadata`; the genuine server cannot even decode such an object.
#[must_use]
pub fn malformed(object: &Value) -> Option<String> {
    let metadata = match object.get("metadata") {
        None | Some(Value::Null) => return None,
        Some(metadata) => metadata.as_object()?,
    };
    let texts = |value: &Value| value.as_object().is_none_or(|map| map.values().any(|v| !v.is_string() && !v.is_null()));
    for (field, value) in metadata {
        let wrong = match field.as_str() {
            _ if value.is_null() => false,
            "name" | "generateName" | "namespace" | "uid" | "resourceVersion" | "creationTimestamp" | "deletionTimestamp" => {
                !value.is_string()
            }
            "labels" | "annotations" => texts(value),
            "finalizers" => value.as_array().is_none_or(|list| list.iter().any(|v| !v.is_string())),
            "ownerReferences" | "managedFields" => value.as_array().is_none_or(|list| list.iter().any(|v| !v.is_object())),
            "generation" | "deletionGracePeriodSeconds" => !value.is_i64() && !value.is_u64(),
            _ => false,
        };
        if wrong {
            return Some(format!("metadata.{field} has a value of the wrong type: {value}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn with(metadata: Value) -> Value {
        json!({"metadata": metadata})
    }

    #[test]
    fn new_metadata_is_judged() {
        for (metadata, expected) in [
            (json!({"name": "n", "namespace": "ns", "labels": {"a/b": "c"}, "finalizers": ["x.y/z"]}), ""),
            (json!({"namespace": "ns"}), "metadata.name: Required value: name or generateName is required"),
            (json!({"name": "n"}), "metadata.namespace: Required value"),
            (
                json!({"name": "n", "namespace": "ns", "annotations": {"big": "x".repeat(262_144)}}),
                "metadata.annotations: Too long: may not be more than 262144 bytes",
            ),
            (
                json!({"name": "n", "namespace": "ns", "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o"}]}),
                "metadata.ownerReferences[0].uid: Invalid value: \"\": uid must not be empty",
            ),
        ] {
            assert_eq!(texts(&validate(&with(metadata), true, NameRule::Subdomain)).join("; "), expected);
        }
        let both = json!([{"apiVersion": "v1", "kind": "K", "name": "a", "uid": "1", "controller": true}, {"apiVersion": "v1", "kind": "K", "name": "b", "uid": "2", "controller": true}]);
        let errors = validate(&with(json!({"name": "n", "ownerReferences": both})), false, NameRule::Subdomain);
        assert!(errors[0].detail.ends_with("in references for K/a and K/b"));
        assert_eq!(
            texts(&validate(&with(json!({"name": "n", "namespace": "x"})), false, NameRule::Label)),
            ["metadata.namespace: Forbidden: not allowed on this type"]
        );
    }

    #[test]
    fn updates_keep_what_the_server_set() {
        let old =
            with(json!({"name": "n", "uid": "1", "resourceVersion": "5", "generation": 2, "deletionTimestamp": "t", "finalizers": ["a"]}));
        assert_eq!(texts(&validate_update(&old, &old)), Vec::<String>::new());
        let new = with(json!({"name": "m", "uid": "1", "generation": 1, "deletionTimestamp": "t", "finalizers": ["a", "b"]}));
        assert_eq!(
            texts(&validate_update(&new, &old)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"b\"}",
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "metadata.generation: Invalid value: 1: must not be decremented",
                "metadata.name: Invalid value: \"m\": field is immutable",
            ]
        );
    }

    #[test]
    fn wrong_types_are_found() {
        assert_eq!(malformed(&with(json!({"name": "n", "labels": {"a": "b"}, "creationTimestamp": null}))), None);
        for metadata in [json!({"name": 1}), json!({"labels": {"a": 1}}), json!({"finalizers": "x"}), json!({"ownerReferences": [1]})] {
            assert!(malformed(&with(metadata.clone())).is_some(), "{metadata}");
        }
    }
}
