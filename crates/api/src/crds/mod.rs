//! CustomResourceDefinitions of every kind and version, made from the Rust types.
//!
//! The hub's schema is the type's; older versions' schemas follow from it through the spokes' steps. Names, columns, subresources and labels
//! stand in [`table`]. Building takes some milliseconds, so it happens once in a process; nobody may change the result.

mod table;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::spoke::{self, kinds::spokes};

pub use table::{Kind, kinds};

static CRDS: LazyLock<Vec<Value>> = LazyLock::new(|| kinds().iter().map(definition).collect());

/// All CustomResourceDefinitions (`apiextensions.k8s.io/v1`), ordered by name.
pub fn crds() -> Vec<Value> {
    CRDS.clone()
}

/// The schema of one version of a kind, if it is served.
pub fn schema(group: &str, kind: &str, version: &str) -> Option<&'static Value> {
    let crd = CRDS
        .iter()
        .find(|crd| crd.pointer("/spec/group") == Some(&json!(group)) && crd.pointer("/spec/names/kind") == Some(&json!(kind)))?;
    let versions = crd.pointer("/spec/versions")?.as_array()?;
    versions.iter().find(|one| one.get("name") == Some(&json!(version)))?.pointer("/schema/openAPIV3Schema")
}

fn definition(kind: &Kind) -> Value {
    let hub_schema = root(kind, (kind.schema)());
    let mut versions: Vec<Value> = spokes(kind.group, kind.kind)
        .into_iter()
        .map(|(name, limits, steps)| {
            let mut schema = spoke::schema::to_spoke(hub_schema.clone(), &steps, limits);
            if kind.kind != "MachineDrainRule"
                && let Some(map) = schema.as_object_mut()
            {
                map.remove("required");
            }
            (name, schema)
        })
        .map(|(name, schema)| version(kind, name, schema, false))
        .collect();
    versions.push(version(kind, kind.hub, atomic_lists(hub_schema), true));
    let mut names = json!({
        "categories": ["cluster-api"],
        "kind": kind.kind,
        "listKind": format!("{}List", kind.kind),
        "plural": kind.plural,
        "singular": kind.kind.to_lowercase(),
    });
    if let (false, Some(map)) = (kind.short_names.is_empty(), names.as_object_mut()) {
        map.insert("shortNames".to_owned(), json!(kind.short_names));
    }
    let labels: Map<String, Value> = kind.labels().into_iter().map(|(key, value)| (key, json!(value))).collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{}", kind.plural, kind.group), "labels": labels},
        "spec": {
            "group": kind.group,
            "names": names,
            "scope": if kind.is_namespaced { "Namespaced" } else { "Cluster" },
            "versions": versions,
        },
    })
}

/// Adds what every object has, and what has to be there.
fn root(kind: &Kind, mut schema: Value) -> Value {
    if let Some(map) = schema.as_object_mut() {
        map.remove("required");
        if !kind.required.is_empty() {
            map.insert("required".to_owned(), json!(kind.required));
        }
        if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
            properties.insert(
                "apiVersion".to_owned(),
                json!({"type": "string", "description": "Version of this representation of the object, group included."}),
            );
            properties.insert("kind".to_owned(), json!({"type": "string", "description": "Kind of the object."}));
            properties.insert("metadata".to_owned(), json!({"type": "object"}));
            properties.sort_keys();
        }
    }
    schema
}

/// Lists that are not keyed are replaced as a whole.
fn atomic_lists(mut schema: Value) -> Value {
    fn walk(schema: &mut Value) {
        let Some(map) = schema.as_object_mut() else { return };
        if map.get("type").and_then(Value::as_str) == Some("array") && !map.contains_key("x-kubernetes-list-type") {
            map.insert("x-kubernetes-list-type".to_owned(), json!("atomic"));
        }
        if let Some(Value::Object(properties)) = map.get_mut("properties") {
            properties.values_mut().for_each(walk);
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = map.get_mut(key) {
                walk(inner);
            }
        }
    }
    walk(&mut schema);
    schema
}

fn version(kind: &Kind, name: &str, schema: Value, storage: bool) -> Value {
    let mut version = json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}});
    let Some(map) = version.as_object_mut() else { return version };
    if kind.deprecated.contains(&name) {
        map.insert("deprecated".to_owned(), json!(true));
    }
    let columns: Vec<Value> = kind.columns(name).iter().map(|column| column.to_json()).collect();
    if !columns.is_empty() {
        map.insert("additionalPrinterColumns".to_owned(), json!(columns));
    }
    let mut subresources = Map::new();
    if kind.has_status(name) {
        subresources.insert("status".to_owned(), json!({}));
    }
    if kind.is_scalable {
        let scale = json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"});
        subresources.insert("scale".to_owned(), scale);
    }
    map.insert("subresources".to_owned(), Value::Object(subresources));
    version
}
