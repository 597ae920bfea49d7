//! The schemas of the built-in kinds that users write by hand: unknown fields are found and named, wrong types refused.
//!
//! Kinds that are only carried (pods, deployments, nodes and the like) take anything: what is in them is their clients' business.

use std::sync::{Arc, LazyLock};

use apimachinery::schema::Schema;
use serde_json::{Value, json};

type Compiled = (Option<Arc<Schema>>, Option<Arc<str>>);

/// The compiled schemas. Constants that every server of the process shares; compiled when first asked for.
static SCHEMAS: LazyLock<Vec<(&'static str, &'static str, Compiled)>> = LazyLock::new(|| {
    written()
        .into_iter()
        .map(|(group, kind, fields)| {
            let mut properties = json!({"apiVersion": text(), "kind": text(), "metadata": {"type": "object"}});
            if let (Some(properties), Value::Object(fields)) = (properties.as_object_mut(), fields) {
                properties.extend(fields);
            }
            let openapi = json!({"type": "object", "properties": properties});
            let schema = Schema::from_openapi(&openapi).ok().map(Arc::new);
            (group, kind, (schema, Some(openapi.to_string().into())))
        })
        .collect()
});

/// The schema of a built-in kind, compiled and as written.
pub fn schema(group: &str, kind: &str) -> Compiled {
    let known = SCHEMAS.iter().find(|(known_group, known_kind, _)| *known_group == group && *known_kind == kind);
    known.map(|(_, _, compiled)| compiled.clone()).unwrap_or_default()
}

fn text() -> Value {
    json!({"type": "string"})
}

fn flag() -> Value {
    json!({"type": "boolean"})
}

fn integer() -> Value {
    json!({"type": "integer", "format": "int32"})
}

fn map_of(value: Value) -> Value {
    json!({"type": "object", "additionalProperties": value})
}

fn list_of(value: Value) -> Value {
    json!({"type": "array", "items": value})
}

fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

fn anything() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn reference() -> Value {
    object(
        json!({"apiVersion": text(), "kind": text(), "name": text(), "namespace": text(), "uid": text(), "resourceVersion": text(), "fieldPath": text()}),
    )
}

fn bytes() -> Value {
    json!({"type": "string", "format": "byte"})
}

fn written() -> Vec<(&'static str, &'static str, Value)> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let time = || json!({"type": "string", "format": "date-time", "nullable": true});
    let rules = || {
        list_of(object(json!({
            "apiGroups": list_of(text()), "nonResourceURLs": list_of(text()), "resourceNames": list_of(text()),
            "resources": list_of(text()), "verbs": list_of(text()),
        })))
    };
    let binding = || {
        json!({
            "roleRef": {"type": "object", "required": ["kind", "name"], "properties": {"apiGroup": text(), "kind": text(), "name": text()}},
            "subjects": list_of(object(json!({"apiGroup": text(), "kind": text(), "name": text(), "namespace": text()}))),
        })
    };
    vec![
        ("", "ConfigMap", json!({"data": map_of(text()), "binaryData": map_of(bytes()), "immutable": flag()})),
        ("", "Secret", json!({"data": map_of(bytes()), "stringData": map_of(text()), "immutable": flag(), "type": text()})),
        (
            "",
            "Namespace",
            json!({"spec": object(json!({"finalizers": list_of(text())})), "status": object(json!({"phase": text(), "conditions": list_of(anything())}))}),
        ),
        (
            "",
            "ServiceAccount",
            json!({"automountServiceAccountToken": flag(), "imagePullSecrets": list_of(object(json!({"name": text()}))), "secrets": list_of(reference())}),
        ),
        (
            "",
            "Event",
            json!({
                "action": text(), "count": integer(), "eventTime": time(), "firstTimestamp": time(), "lastTimestamp": time(), "involvedObject": reference(), "message": text(),
                "reason": text(), "related": reference(), "reportingComponent": text(), "reportingInstance": text(), "type": text(),
                "series": object(json!({"count": integer(), "lastObservedTime": time()})), "source": object(json!({"component": text(), "host": text()})),
            }),
        ),
        (
            "events.k8s.io",
            "Event",
            json!({
                "action": text(), "deprecatedCount": integer(), "eventTime": time(), "deprecatedFirstTimestamp": time(), "deprecatedLastTimestamp": time(), "regarding": reference(),
                "note": text(), "reason": text(), "related": reference(), "reportingController": text(), "reportingInstance": text(), "type": text(),
                "series": object(json!({"count": integer(), "lastObservedTime": time()})), "deprecatedSource": object(json!({"component": text(), "host": text()})),
            }),
        ),
        (
            "coordination.k8s.io",
            "Lease",
            json!({"spec": object(json!({
                "acquireTime": time(), "holderIdentity": text(), "leaseDurationSeconds": integer(), "leaseTransitions": integer(),
                "preferredHolder": text(), "renewTime": time(), "strategy": text(),
            }))}),
        ),
        (RBAC, "Role", json!({"rules": rules()})),
        (RBAC, "ClusterRole", json!({"rules": rules(), "aggregationRule": anything()})),
        (RBAC, "RoleBinding", binding()),
        (RBAC, "ClusterRoleBinding", binding()),
    ]
}
