//! What little the built-in kinds do by themselves: defaults, rules and immutable fields that no schema expresses.
//!
//! Custom kinds have none of this: theirs is handed in as admission.

use apimachinery::names::{self, NameRule};
use apimachinery::{FieldError, meta};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::definition;
use crate::events;
use crate::object::ResourceId;
use crate::registry::Resource;

/// The label by which a namespace can be selected by its name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Namespaces that are never deleted.
pub const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// Which rule the names of a kind follow.
pub fn name_rule(id: &ResourceId) -> NameRule {
    match (&*id.group, &*id.resource) {
        ("", "namespaces") => NameRule::Label,
        ("", "services") => NameRule::Label1035,
        ("rbac.authorization.k8s.io", _) => NameRule::PathSegment,
        _ => NameRule::Subdomain,
    }
}

fn is(id: &ResourceId, group: &str, plural: &str) -> bool {
    &*id.group == group && &*id.resource == plural
}

fn field<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    let entry = object.as_object_mut()?.entry(name).or_insert_with(|| json!({}));
    if entry.is_null() {
        *entry = json!({});
    }
    entry.as_object_mut()
}

fn remove(object: &mut Value, name: &str) {
    if let Some(map) = object.as_object_mut() {
        map.shift_remove(name);
    }
}

/// Makes a new object of a kind ready to be stored, before admission.
pub fn prepare_create(resource: &Resource, object: &mut Value, now: &str) {
    let id = &resource.id;
    if resource.stored().is_some_and(|version| version.has_status) && !is(id, "", "nodes") && !definition::is_definition(id) {
        remove(object, "status");
    }
    match (&*id.group, &*id.resource) {
        ("", "namespaces") => {
            label_namespace(object);
            if let Some(spec) = field(object, "spec") {
                spec.insert("finalizers".to_owned(), json!(["kubernetes"]));
            }
            if let Some(status) = field(object, "status") {
                status.insert("phase".to_owned(), json!("Active"));
            }
        }
        ("", "secrets") => {
            take_string_data(object);
            let map = object.as_object_mut();
            if let Some(map) = map.filter(|map| map.get("type").and_then(Value::as_str).unwrap_or_default().is_empty()) {
                map.insert("type".to_owned(), json!("Opaque"));
            }
        }
        ("", "events") => events::default(object),
        ("", "pods") => {
            if let Some(status) = field(object, "status") {
                status.insert("phase".to_owned(), json!("Pending"));
            }
        }
        ("", "services") => {
            if let Some(spec) = field(object, "spec") {
                spec.entry("type").or_insert_with(|| json!("ClusterIP"));
            }
        }
        ("apps", "deployments" | "replicasets" | "statefulsets") => {
            if let Some(spec) = field(object, "spec") {
                spec.entry("replicas").or_insert_with(|| json!(1));
            }
        }
        _ if definition::is_definition(id) => {
            remove(object, "status");
            definition::default(object);
            let mut finalizers: Vec<String> = meta::finalizers(object).into_iter().map(str::to_owned).collect();
            if !finalizers.iter().any(|finalizer| finalizer == definition::CLEANUP) {
                finalizers.push(definition::CLEANUP.to_owned());
            }
            meta::set(object, "finalizers", json!(finalizers));
            accept(object, now);
        }
        _ => {}
    }
}

/// Makes the new state of an object ready to be stored, before admission. `subresource` is empty for the object itself.
pub fn prepare_update(resource: &Resource, object: &mut Value, old: &Value, subresource: &str, now: &str) {
    let id = &resource.id;
    match (&*id.group, &*id.resource) {
        ("", "namespaces") => {
            label_namespace(object);
            if subresource != "finalize" {
                let finalizers = meta::at(old, &["spec", "finalizers"]).cloned();
                if let (Some(spec), Some(finalizers)) = (field(object, "spec"), finalizers) {
                    spec.insert("finalizers".to_owned(), finalizers);
                }
            }
        }
        ("", "secrets") => take_string_data(object),
        ("", "events") => events::default(object),
        _ if definition::is_definition(id) && subresource.is_empty() => {
            definition::default(object);
            accept(object, now);
        }
        _ => {}
    }
}

fn accept(object: &mut Value, now: &str) {
    let mut status = object.get("status").cloned().unwrap_or_else(|| json!({}));
    definition::accept(object, &mut status, now);
    if let Some(map) = object.as_object_mut() {
        map.insert("status".to_owned(), status);
    }
}

fn label_namespace(object: &mut Value) {
    let name = meta::name(object).to_owned();
    let Some(metadata) = meta::metadata_mut(object) else { return };
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    if labels.is_null() {
        *labels = json!({});
    }
    if let Some(labels) = labels.as_object_mut() {
        labels.insert(NAME_LABEL.to_owned(), json!(name));
    }
}

/// `stringData` is written to `data` and never read back.
fn take_string_data(object: &mut Value) {
    let Some(Value::Object(texts)) = object.as_object_mut().and_then(|map| map.shift_remove("stringData")) else { return };
    let Some(data) = field(object, "data") else { return };
    for (key, value) in texts {
        let text = value.as_str().unwrap_or_default();
        data.insert(key, json!(STANDARD.encode(text)));
    }
}

/// What is wrong with an object of a built-in kind, beyond its schema.
pub fn validate(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let id = &resource.id;
    let mut errors = Vec::new();
    if definition::is_definition(id) {
        return definition::resource(object).err().unwrap_or_default();
    }
    if !is(id, "", "secrets") && !is(id, "", "configmaps") {
        return errors;
    }
    for section in ["data", "binaryData"] {
        for key in object.get(section).and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            let path = format!("{section}[{key}]");
            errors.extend(names::config_key(key).into_iter().map(|why| FieldError::invalid(path.clone(), key.as_str(), why)));
        }
    }
    let Some(old) = old else { return errors };
    if is(id, "", "secrets") && object.get("type") != old.get("type") {
        errors.push(FieldError::invalid("type", object.get("type").cloned().unwrap_or_default(), "field is immutable"));
    }
    if old.get("immutable") == Some(&Value::Bool(true)) {
        if object.get("immutable") != Some(&Value::Bool(true)) {
            errors.push(FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
        }
        for section in ["data", "binaryData"] {
            if object.get(section) != old.get(section) {
                errors.push(FieldError::forbidden(section, "field is immutable when `immutable` is set"));
            }
        }
    }
    errors
}
