//! Drops fields that a schema does not know and names them.
//!
//! `x-kubernetes-preserve-unknown-fields` keeps the unknown fields of its own object with everything below them, while
//! the fields that are described stay under their own schemas. Whole objects, embedded ones too, keep `apiVersion`,
//! `kind` and of `metadata` what ObjectMeta knows.

use serde_json::{Map, Value};

use super::{Additional, Node};
use crate::field::{child, with_child, with_index};

/// The fields of ObjectMeta.
const OBJECT_META: [&str; 16] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
    "clusterName",
];

pub(super) fn apply(root: &Node, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    if let Value::Object(map) = object {
        fields(root, map, true, &mut String::new(), &mut unknown);
    }
    unknown.sort();
    unknown
}

fn metadata(value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    if let Value::Object(map) = value {
        map.retain(|key, _| {
            let known = OBJECT_META.contains(&key.as_str());
            if !known {
                unknown.push(child(path, key));
            }
            known
        });
    }
}

fn walk(node: &Node, value: &mut Value, path: &mut String, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => fields(node, map, node.embedded_resource, path, unknown),
        Value::Array(list) => match &node.items {
            Some(items) => list.iter_mut().enumerate().for_each(|(i, item)| with_index(path, i, |path| walk(items, item, path, unknown))),
            None if node.preserve_unknown => {}
            None => {
                let nothing = Node::default();
                list.iter_mut().enumerate().for_each(|(i, item)| with_index(path, i, |path| walk(&nothing, item, path, unknown)));
            }
        },
        _ => {}
    }
}

fn fields(node: &Node, map: &mut Map<String, Value>, is_resource: bool, path: &mut String, unknown: &mut Vec<String>) {
    map.retain(|key, value| {
        match key.as_str() {
            "apiVersion" | "kind" if is_resource => return true,
            "metadata" if is_resource => {
                metadata(value, &child(path, key), unknown);
                return true;
            }
            _ => {}
        }
        if let Some(property) = node.properties.get(key) {
            with_child(path, key, |path| walk(property, value, path, unknown));
            return true;
        }
        match &node.additional {
            Additional::Schema(schema) => with_child(path, key, |path| walk(schema, value, path, unknown)),
            Additional::Anything => {}
            Additional::Unsaid if node.preserve_unknown => {}
            Additional::Unsaid => {
                unknown.push(child(path, key));
                return false;
            }
        }
        true
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Schema;

    #[test]
    fn unknown_fields_go_and_are_named() {
        let schema = Schema::from_openapi(&json!({"type": "object", "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
            "spec": {"type": "object", "properties": {
                "paused": {"type": "boolean"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "object", "properties": {}}}},
                "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
            }}}}))
        .unwrap();
        let mut object = json!({
            "apiVersion": "v1", "kind": "K", "metadata": {"name": "n", "nome": "m"}, "top": 1,
            "spec": {"paused": true, "pausd": true, "list": [{"a": "1"}, {"b": "2"}], "labels": {"x": "y"},
                     "free": {"any": {"thing": 1}, "known": {"gone": 1}},
                     "template": {"apiVersion": "v1", "kind": "T", "metadata": {"labels": {}}, "spec": {"x": 1}, "other": 1}}});
        let unknown = schema.prune(&mut object);
        assert_eq!(
            unknown,
            ["metadata.nome", "spec.free.known.gone", "spec.list[1].b", "spec.pausd", "spec.template.other", "spec.template.spec.x", "top"]
        );
        let expected = json!({
            "apiVersion": "v1", "kind": "K", "metadata": {"name": "n"},
            "spec": {"paused": true, "list": [{"a": "1"}, {}], "labels": {"x": "y"}, "free": {"any": {"thing": 1}, "known": {}},
                     "template": {"apiVersion": "v1", "kind": "T", "metadata": {"labels": {}}, "spec": {}}}});
        assert_eq!(object.to_string(), expected.to_string());
        assert_eq!(schema.prune(&mut object), Vec::<String>::new());
    }
}
