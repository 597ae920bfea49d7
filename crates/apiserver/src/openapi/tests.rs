//! The documents against what clients look for in them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::builtin::Builtins;
use crate::definition;

fn machines() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "machines.cluster.x-k8s.io"},
        "spec": {"group": "cluster.x-k8s.io", "scope": "Namespaced", "names": {"plural": "machines", "kind": "Machine"},
            "versions": [{"name": "v1beta2", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
                    "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
                    "replicas": {"type": "integer"}}}}}}}]},
    })
}

fn registry() -> Registry {
    let mut registry = Registry::builtin(Builtins::Workload);
    let mut manifest = machines();
    definition::default(&mut manifest);
    registry.insert(Arc::new(definition::resource(&manifest).unwrap()));
    registry
}

/// Every operation of a document, with its path and method.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters") {
            all.push((path.clone(), method.clone(), operation.clone()));
        }
    }
    all
}

fn references(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(to)) = map.get("$ref") {
                out.push(to.clone());
            }
            map.values().for_each(|below| references(below, out));
        }
        Value::Array(list) => list.iter().for_each(|below| references(below, out)),
        _ => {}
    }
}

#[test]
fn every_document_of_the_index_is_there_and_whole() {
    let registry = registry();
    let index = index(&registry);
    let paths = index["paths"].as_object().unwrap();
    assert!(
        paths.contains_key("api/v1")
            && paths.contains_key("apis/cluster.x-k8s.io/v1beta2")
            && paths.contains_key("apis/authentication.k8s.io/v1")
    );
    for path in paths.keys() {
        let document = document(&registry, path).unwrap();
        let mut all = Vec::new();
        references(&document, &mut all);
        for to in all {
            let name = to.strip_prefix("#/components/schemas/").unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{path}: {to} leads nowhere");
        }
        let mut ids: Vec<String> = operations(&document).iter().map(|(.., o)| o["operationId"].as_str().unwrap().to_owned()).collect();
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count, "{path}: identifiers occur twice");
    }
    assert!(document(&registry, "apis/none/v1").is_none() && document(&registry, "version").is_none());
}

#[test]
fn whoever_sends_objects_finds_the_parameters_to_check_them() {
    let registry = registry();
    for path in index(&registry)["paths"].as_object().unwrap().keys() {
        for (path, method, operation) in operations(&document(&registry, path).unwrap()) {
            let names: Vec<&str> = operation["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
            let writes = matches!(method.as_str(), "post" | "put" | "patch");
            for name in ["dryRun", "fieldManager", "fieldValidation"] {
                assert_eq!(
                    names.contains(&name),
                    writes || (name == "dryRun" && method == "delete" && path.ends_with("{name}")),
                    "{method} {path} {name}"
                );
            }
            assert_eq!(names.contains(&"force"), method == "patch", "{method} {path}");
            assert!(operation["x-kubernetes-group-version-kind"]["kind"].is_string(), "{method} {path}");
            let action = if method == "get" && !path.contains("{name}") { "list" } else { method.as_str() };
            let action = if method == "delete" && !path.contains("{name}") { "deletecollection" } else { action };
            assert_eq!(operation["x-kubernetes-action"], action, "{method} {path}");
        }
    }
}

#[test]
fn a_custom_kind_is_described_by_its_own_schema() {
    let document = document(&registry(), "apis/cluster.x-k8s.io/v1beta2").unwrap();
    let schemas = &document["components"]["schemas"];
    let machine = &schemas["io.x-k8s.cluster.v1beta2.Machine"];
    assert_eq!(machine["x-kubernetes-group-version-kind"], json!([{"group": "cluster.x-k8s.io", "version": "v1beta2", "kind": "Machine"}]));
    assert_eq!(machine["properties"]["spec"]["properties"]["replicas"], json!({"type": "integer"}));
    let meta = json!([{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}]);
    assert_eq!(machine["properties"]["metadata"]["allOf"], meta);
    assert_eq!(machine["properties"]["spec"]["properties"]["template"]["properties"]["metadata"]["allOf"], meta);
    assert!(schemas.get("io.x-k8s.cluster.v1beta2.MachineList").is_some());
    let at = "/apis/cluster.x-k8s.io/v1beta2/namespaces/{namespace}/machines";
    for path in [at.to_owned(), format!("{at}/{{name}}"), format!("{at}/{{name}}/status"), format!("{at}/{{name}}/scale")] {
        assert!(document["paths"].get(&path).is_some(), "{path}");
    }
    let id = "patchClusterXK8sIoV1beta2NamespacedMachine";
    assert_eq!(document["paths"][format!("{at}/{{name}}")]["patch"]["operationId"], id);
    assert_eq!(document["paths"][at]["get"]["tags"], json!(["clusterXK8sIo_v1beta2"]));
}

#[test]
fn the_hash_changes_with_the_schema_and_only_then() {
    let hashes = |registry: &Registry| index(registry)["paths"].clone();
    let (before, mut registry) = (hashes(&registry()), registry());
    assert_eq!(hashes(&registry), before);
    let mut manifest = machines();
    manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["replicas"]["minimum"] = json!(0);
    definition::default(&mut manifest);
    registry.insert(Arc::new(definition::resource(&manifest).unwrap()));
    let after = hashes(&registry);
    assert_ne!(after["apis/cluster.x-k8s.io/v1beta2"], before["apis/cluster.x-k8s.io/v1beta2"]);
    assert_eq!(after["api/v1"], before["api/v1"]);
}

#[test]
fn an_old_hash_leads_to_the_new_one() {
    let registry = registry();
    let url = index(&registry)["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let hash = url.split_once("hash=").unwrap().1;
    let kept = answer(&registry, "api/v1", Some(hash)).unwrap();
    assert_eq!((kept.status().as_u16(), kept.headers()[ETAG].to_str().unwrap()), (200, format!("\"{hash}\"").as_str()));
    let moved = answer(&registry, "api/v1", Some("old")).unwrap();
    assert_eq!((moved.status().as_u16(), moved.headers()[LOCATION].to_str().unwrap()), (301, url.as_str()));
    assert!(answer(&registry, "api/v2", None).is_none());
}
