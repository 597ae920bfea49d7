//! OpenAPI version 3: which operations there are and what parameters they take.
//!
//! kubectl looks for the parameter `fieldValidation` of an operation on a kind before it sends an object: without it, it refuses to apply.

use serde_json::{Map, Value, json};

use crate::registry::Registry;

fn location(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The index of documents, one for each version of a group.
pub fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, versions) in registry.groups() {
        for version in versions {
            let at = location(&group, &version);
            paths.insert(at.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{at}")}));
        }
    }
    json!({"paths": paths})
}

/// The document at `path`, such as `apis/apps/v1`.
pub fn document(registry: &Registry, path: &str) -> Option<Value> {
    let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => (String::new(), (*version).to_owned()),
        ["apis", group, version] => ((*group).to_owned(), (*version).to_owned()),
        _ => return None,
    };
    let mut paths = Map::new();
    let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
    let parameters = json!([parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")]);
    for (resource, _) in registry.of_version(&group, &version) {
        let kind = json!({"group": group, "version": version, "kind": resource.kind});
        let operation = |action: &str| json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": kind, "parameters": parameters, "responses": {}});
        let base = if resource.is_namespaced { "namespaces/{namespace}/" } else { "" };
        let at = format!("/{}/{base}{}", location(&group, &version), resource.plural);
        paths.insert(at.clone(), json!({"get": operation("list"), "post": operation("post")}));
        paths.insert(
            format!("{at}/{{name}}"),
            json!({"get": operation("get"), "put": operation("put"), "patch": operation("patch"), "delete": operation("delete")}),
        );
    }
    if paths.is_empty() {
        None
    } else {
        Some(json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1"}, "paths": paths}))
    }
}
