//! Discovery: what is served, group by group (legacy) or all at once (aggregated, version 2).
//!
//! The aggregated form is given only to clients that ask for exactly version 2: older ones misread it.

use std::collections::BTreeMap;

use apimachinery::{StatusError, gvk};
use serde_json::{Value, json};

use crate::registry::{Origin, Registry, Resource, Version};
use crate::response::{self, Answer};

/// Resources that are asked, not stored: group, version, plural, singular, kind.
pub const REVIEWS: &[(&str, &str, &str, &str, &str)] = &[
    ("authentication.k8s.io", "v1", "selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview"),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "selfsubjectaccessreview", "SelfSubjectAccessReview"),
];

/// A subresource in discovery.
struct Subresource {
    name: &'static str,
    group: &'static str,
    version: &'static str,
    kind: String,
    verbs: &'static [&'static str],
}

const CHANGE: &[&str] = &["get", "patch", "update"];

fn subresources(resource: &Resource, version: &Version) -> Vec<Subresource> {
    let mut all = Vec::new();
    let extra: &[&'static str] = if let Origin::Builtin(builtin) = resource.origin { builtin.extra } else { &[] };
    for name in extra.iter().copied() {
        let own = |verbs| Subresource { name, group: "", version: "", kind: resource.kind.clone(), verbs };
        all.push(match name {
            "eviction" => Subresource { name, group: "policy", version: "v1", kind: "Eviction".to_owned(), verbs: &["create"] },
            "finalize" => own(&["update"]),
            _ => own(CHANGE),
        });
    }
    if version.scale.is_some() {
        all.push(Subresource { name: "scale", group: "autoscaling", version: "v1", kind: "Scale".to_owned(), verbs: CHANGE });
    }
    if version.has_status {
        all.push(Subresource { name: "status", group: "", version: "", kind: resource.kind.clone(), verbs: CHANGE });
    }
    all
}

/// The groups beside the core group, most important first, with their versions.
fn groups(registry: &Registry) -> Vec<(String, Vec<String>)> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (group, versions) in registry.groups() {
        if !group.is_empty() {
            groups.insert(group.to_string(), versions.iter().map(ToString::to_string).collect());
        }
    }
    for (group, version, ..) in REVIEWS {
        groups.entry((*group).to_owned()).or_insert_with(|| vec![(*version).to_owned()]);
    }
    let mut groups: Vec<(String, Vec<String>)> = groups.into_iter().collect();
    let is_custom = |group: &str| registry.resources().any(|resource| &*resource.group == group && resource.is_custom());
    groups.sort_by_cached_key(|(group, _)| (is_custom(group), group.clone()));
    groups
}

/// `/api`
pub fn core_versions() -> Answer {
    response::value(
        200,
        &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]}),
    )
}

fn group_json(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> =
        versions.iter().map(|version| json!({"groupVersion": gvk::api_version(group, version), "version": version})).collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
}

/// `/apis`
pub fn group_list(registry: &Registry) -> Answer {
    let groups: Vec<Value> = groups(registry).iter().map(|(group, versions)| group_json(group, versions)).collect();
    response::value(200, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

/// `/apis/GROUP`
pub fn group(registry: &Registry, name: &str) -> Result<Answer, StatusError> {
    let groups = groups(registry);
    let (_, versions) = groups.iter().find(|(group, _)| group == name).ok_or_else(StatusError::unknown_resource)?;
    let mut group = group_json(name, versions);
    if let Some(map) = group.as_object_mut() {
        map.insert("kind".to_owned(), json!("APIGroup"));
        map.insert("apiVersion".to_owned(), json!("v1"));
    }
    Ok(response::value(200, &group))
}

/// `/api/v1`, `/apis/GROUP/VERSION`
pub fn resources(registry: &Registry, group: &str, version: &str) -> Result<Answer, StatusError> {
    let mut list = Vec::new();
    for (resource, served) in registry.of_version(group, version) {
        let mut entry = json!({
            "name": &*resource.plural, "singularName": resource.singular, "namespaced": resource.is_namespaced,
            "kind": resource.kind, "verbs": resource.verbs(),
        });
        if let Some(map) = entry.as_object_mut() {
            if !resource.short_names.is_empty() {
                map.insert("shortNames".to_owned(), json!(resource.short_names));
            }
            if !resource.categories.is_empty() {
                map.insert("categories".to_owned(), json!(resource.categories));
            }
        }
        list.push(entry);
        for sub in subresources(resource, served) {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, sub.name), "singularName": "", "namespaced": resource.is_namespaced,
                "kind": sub.kind, "verbs": sub.verbs,
            });
            if let Some(map) = entry.as_object_mut().filter(|_| !sub.group.is_empty()) {
                map.insert("group".to_owned(), json!(sub.group));
                map.insert("version".to_owned(), json!(sub.version));
            }
            list.push(entry);
        }
    }
    for (_, _, plural, singular, kind) in REVIEWS.iter().filter(|(known, served, ..)| *known == group && *served == version) {
        list.push(json!({"name": plural, "singularName": singular, "namespaced": false, "kind": kind, "verbs": ["create"]}));
    }
    if list.is_empty() {
        return Err(StatusError::unknown_resource());
    }
    Ok(response::value(
        200,
        &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gvk::api_version(group, version), "resources": list}),
    ))
}

fn aggregated_version(registry: &Registry, group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    for (resource, served) in registry.of_version(group, version) {
        let scope = if resource.is_namespaced { "Namespaced" } else { "Cluster" };
        // Built-in kinds leave group and version of the answer empty; custom ones name them.
        let (own_group, own_version) = if resource.is_custom() { (group, version) } else { ("", "") };
        let mut entry = json!({
            "resource": &*resource.plural, "responseKind": {"group": own_group, "version": own_version, "kind": resource.kind}, "scope": scope,
            "singularResource": resource.singular, "verbs": resource.verbs(),
        });
        let subresources: Vec<Value> = subresources(resource, served)
            .into_iter()
            .map(|sub| {
                let (group, version) = if sub.group.is_empty() { (own_group, own_version) } else { (sub.group, sub.version) };
                json!({"subresource": sub.name, "responseKind": {"group": group, "version": version, "kind": sub.kind}, "verbs": sub.verbs})
            })
            .collect();
        if let Some(map) = entry.as_object_mut() {
            if !resource.short_names.is_empty() {
                map.insert("shortNames".to_owned(), json!(resource.short_names));
            }
            if !resource.categories.is_empty() {
                map.insert("categories".to_owned(), json!(resource.categories));
            }
            if !subresources.is_empty() {
                map.insert("subresources".to_owned(), json!(subresources));
            }
        }
        list.push(entry);
    }
    for (_, _, plural, singular, kind) in REVIEWS.iter().filter(|(known, served, ..)| *known == group && *served == version) {
        list.push(json!({
            "resource": plural, "responseKind": {"group": "", "version": "", "kind": kind}, "scope": "Cluster", "singularResource": singular, "verbs": ["create"],
        }));
    }
    json!({"version": version, "resources": list, "freshness": "Current"})
}

/// `/api` (`is_core`) or `/apis` in the aggregated form.
pub fn aggregated(registry: &Registry, is_core: bool) -> Answer {
    let items: Vec<Value> = if is_core {
        vec![json!({"metadata": {"creationTimestamp": null}, "versions": [aggregated_version(registry, "", "v1")]})]
    } else {
        groups(registry)
            .iter()
            .map(|(group, versions)| {
                let versions: Vec<Value> = versions.iter().map(|version| aggregated_version(registry, group, version)).collect();
                json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
            })
            .collect()
    };
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
    let mut answer = response::value(200, &list);
    let form = http::HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, form);
    answer
}
