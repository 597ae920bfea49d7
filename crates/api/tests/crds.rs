//! The generated CustomResourceDefinitions against upstream's: names, versions, columns, subresources, every field.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::reference;

/// Where we differ on purpose: kind, version, path prefix (of a schema path or a part such as `columns`), reason.
const DEVIATIONS: &[(&str, &str, &str, &str)] = &[
    ("Cluster", "", "spec.topology", "ClusterClass is not interpreted: the field is carried through as it is"),
    ("Machine", "v1beta1", "status.phase", "the hub's phase Updating is shown as it is"),
    ("TalosConfig", "v1beta1", "status.talosConfig", "users' scripts read the client configuration in every version"),
    ("InClusterIPPool", "v1alpha1", "columns", "upstream's First and Last point at fields that do not exist; ours show start and end"),
    (
        "GlobalInClusterIPPool",
        "v1alpha1",
        "columns",
        "upstream's First and Last point at fields that do not exist; ours show start and end",
    ),
];

/// Kinds that we do not have, with the reason.
const ABSENT: &[(&str, &str)] = &[
    ("ClusterClass", "managed topologies are not interpreted"),
    ("MachinePool", "no infrastructure provider of ours has pools"),
    ("ExtensionConfig", "no runtime extensions"),
    ("InClusterPrefixPool", "prefix delegation has no user here"),
    ("GlobalInClusterPrefixPool", "prefix delegation has no user here"),
];

/// Versions that we serve and upstream's current release does not.
const ADDITIONAL: &[(&str, &str, &str)] = &[("MachineHealthCheck", "v1alpha4", "users' manifests are that old")];

fn deviates(kind: &str, version: &str, path: &str) -> bool {
    DEVIATIONS
        .iter()
        .any(|(k, v, p, _)| *k == kind && (v.is_empty() || *v == version) && (path == *p || path.starts_with(&format!("{p}."))))
}

fn reference_crds() -> Option<Vec<Value>> {
    let files = reference::files("crds")?;
    let all = files.iter().flat_map(|(_, text)| reference::documents(text));
    Some(all.filter(|document| document["kind"] == "CustomResourceDefinition").collect())
}

/// What of a field is compared: everything but words for people.
#[derive(Clone, Debug, PartialEq)]
struct Field {
    shape: BTreeMap<&'static str, Value>,
    limits: BTreeMap<&'static str, Value>,
    required: bool,
}

fn fields(schema: &Value, path: &str, required: bool, out: &mut BTreeMap<String, Field>) {
    let pick = |keys: &[&'static str]| keys.iter().filter_map(|key| schema.get(*key).map(|value| (*key, value.clone()))).collect();
    let mut shape: BTreeMap<&'static str, Value> = pick(&[
        "type",
        "format",
        "enum",
        "default",
        "x-kubernetes-int-or-string",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-map-type",
    ]);
    if let Some(Value::Array(words)) = shape.get_mut("enum") {
        words.sort_by_key(Value::to_string);
    }
    let limits =
        pick(&["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minimum", "maximum", "pattern"]);
    out.insert(path.to_owned(), Field { shape, limits, required });
    let required_names: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        fields(property, &path, required_names.contains(&name.as_str()), out);
    }
    if schema["items"].is_object() {
        fields(&schema["items"], &format!("{path}[]"), false, out);
    }
    if schema["additionalProperties"].is_object() {
        fields(&schema["additionalProperties"], &format!("{path}{{}}"), false, out);
    }
}

fn all_fields(version: &Value) -> BTreeMap<String, Field> {
    let mut out = BTreeMap::new();
    fields(&version["schema"]["openAPIV3Schema"], "", false, &mut out);
    out
}

fn columns(version: &Value) -> Vec<Value> {
    let list = version["additionalPrinterColumns"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|column| json!([column["name"], column["type"], column["jsonPath"], column.get("priority").cloned().unwrap_or(json!(0))]))
        .collect()
}

#[test]
fn every_field_is_as_upstream_has_it() {
    let Some(reference) = reference_crds() else { return };
    let ours = api::crds();
    let mut faults = Vec::new();
    for theirs in &reference {
        let kind = theirs["spec"]["names"]["kind"].as_str().unwrap();
        let Some(mine) = ours.iter().find(|crd| crd["metadata"]["name"] == theirs["metadata"]["name"]) else {
            assert!(ABSENT.iter().any(|(absent, _)| *absent == kind), "{kind} is missing");
            continue;
        };
        for part in ["group", "scope", "names"] {
            if mine["spec"][part] != theirs["spec"][part] {
                faults.push(format!("{kind}: {part}: {} instead of {}", mine["spec"][part], theirs["spec"][part]));
            }
        }
        for theirs in theirs["spec"]["versions"].as_array().unwrap() {
            let version = theirs["name"].as_str().unwrap();
            let Some(mine) = mine["spec"]["versions"].as_array().unwrap().iter().find(|one| one["name"] == theirs["name"]) else {
                faults.push(format!("{kind} {version} is missing"));
                continue;
            };
            for part in ["served", "storage", "deprecated"] {
                if mine.get(part) != theirs.get(part) {
                    faults.push(format!("{kind} {version}: {part}: {:?} instead of {:?}", mine.get(part), theirs.get(part)));
                }
            }
            let subresources = theirs.get("subresources").cloned().unwrap_or(json!({}));
            if mine["subresources"] != subresources && !deviates(kind, version, "subresources") {
                faults.push(format!("{kind} {version}: subresources: {} instead of {subresources}", mine["subresources"]));
            }
            if columns(mine) != columns(theirs) && !deviates(kind, version, "columns") {
                faults.push(format!("{kind} {version}: columns: {:?} instead of {:?}", columns(mine), columns(theirs)));
            }
            let (mine_fields, their_fields) = (all_fields(mine), all_fields(theirs));
            for (path, field) in &their_fields {
                if deviates(kind, version, path) {
                    continue;
                }
                match mine_fields.get(path) {
                    None => faults.push(format!("{kind} {version}: {path} is missing")),
                    Some(mine) if (&mine.shape, mine.required) != (&field.shape, field.required) => {
                        faults.push(format!(
                            "{kind} {version}: {path}: {:?} required {} instead of {:?} required {}",
                            mine.shape, mine.required, field.shape, field.required
                        ));
                    }
                    Some(mine) => {
                        let is_hub = theirs["storage"] == true;
                        let stricter = mine.limits.iter().any(|(key, value)| field.limits.get(key) != Some(value));
                        if stricter || (is_hub && mine.limits != field.limits) {
                            faults.push(format!("{kind} {version}: {path}: limits {:?} instead of {:?}", mine.limits, field.limits));
                        }
                    }
                }
            }
            for path in mine_fields.keys() {
                if !their_fields.contains_key(path) && !deviates(kind, version, path) {
                    faults.push(format!("{kind} {version}: {path} is not upstream's"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_version_of_ours_is_known() {
    let Some(reference) = reference_crds() else { return };
    for mine in api::crds() {
        let kind = mine["spec"]["names"]["kind"].as_str().unwrap();
        let theirs = reference.iter().find(|crd| crd["metadata"]["name"] == mine["metadata"]["name"]).unwrap_or_else(|| panic!("{kind}"));
        for version in mine["spec"]["versions"].as_array().unwrap() {
            let name = version["name"].as_str().unwrap();
            let is_theirs = theirs["spec"]["versions"].as_array().unwrap().iter().any(|one| one["name"] == version["name"]);
            assert!(is_theirs || ADDITIONAL.iter().any(|(k, v, _)| (*k, *v) == (kind, name)), "{kind} {name}");
        }
    }
}

#[test]
fn schemas_are_structural() {
    fn walk(at: &str, schema: &Value) {
        let map = schema.as_object().unwrap_or_else(|| panic!("{at}"));
        for word in ["$ref", "allOf", "oneOf", "nullable", "title", "$defs"] {
            assert!(!map.contains_key(word), "{at}: {word}");
        }
        let is_typed = map.contains_key("type")
            || map.contains_key("x-kubernetes-int-or-string")
            || map.contains_key("x-kubernetes-preserve-unknown-fields");
        assert!(is_typed, "{at} has no type");
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{at}.{name}"), property);
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(key) {
                walk(&format!("{at}.{key}"), inner);
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            assert!(schema["properties"].get(name.as_str().unwrap()).is_some(), "{at}: required {name} is no property");
        }
    }
    for crd in api::crds() {
        for version in crd["spec"]["versions"].as_array().unwrap() {
            walk(&format!("{} {}", crd["metadata"]["name"], version["name"]), &version["schema"]["openAPIV3Schema"]);
        }
        let storage = crd["spec"]["versions"].as_array().unwrap().iter().filter(|version| version["storage"] == true).count();
        assert_eq!(storage, 1, "{}", crd["metadata"]["name"]);
    }
}

#[test]
fn labels_tell_contracts_and_providers() {
    let label = |name: &str, label: &str| {
        let crd = api::crds().into_iter().find(|crd| crd["metadata"]["name"] == name).unwrap();
        crd["metadata"]["labels"][label].clone()
    };
    assert_eq!(label("taloscontrolplanes.controlplane.cluster.x-k8s.io", "cluster.x-k8s.io/v1beta1"), "v1alpha3");
    assert_eq!(label("talosconfigs.bootstrap.cluster.x-k8s.io", "cluster.x-k8s.io/v1beta2"), "v1beta1");
    assert_eq!(label("vspherevms.infrastructure.cluster.x-k8s.io", "cluster.x-k8s.io/provider"), "infrastructure-vsphere");
    assert_eq!(label("clusters.cluster.x-k8s.io", "clusterctl.cluster.x-k8s.io"), "");
    assert_eq!(label("providers.clusterctl.cluster.x-k8s.io", "clusterctl.cluster.x-k8s.io/core"), "inventory");
    assert_eq!(label("inclusterippools.ipam.cluster.x-k8s.io", "clusterctl.cluster.x-k8s.io/move-hierarchy"), "");
}
