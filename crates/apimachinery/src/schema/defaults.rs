//! Fills in defaults, from the top down, so that a default may itself be completed by the defaults below it.

use serde_json::{Map, Value};

use super::{Additional, Node};

pub(super) fn apply(node: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => fill(node, map),
        Value::Array(list) => {
            if let Some(items) = &node.items {
                list.iter_mut().for_each(|item| apply(items, item));
            }
        }
        _ => {}
    }
}

fn fill(node: &Node, map: &mut Map<String, Value>) {
    // A null where none may stand counts as absent: it gets the default, or goes.
    map.retain(|key, value| !value.is_null() || below(node, key).is_none_or(allows_null));
    for (name, property) in &node.properties {
        if let Some(default) = &property.default
            && !map.contains_key(name)
        {
            map.insert(name.clone(), default.clone());
        }
    }
    for (key, value) in map.iter_mut() {
        if let Some(property) = below(node, key) {
            apply(property, value);
        }
    }
}

fn below<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    node.properties.get(key).or(match &node.additional {
        Additional::Schema(schema) => Some(schema),
        Additional::Unsaid | Additional::Anything => None,
    })
}

/// Nothing said about the type (or only "keep what you do not know") leaves room for null.
fn allows_null(node: &Node) -> bool {
    node.nullable || (node.types.is_none() && !node.int_or_string)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Schema;

    #[test]
    fn defaults_fill_what_is_missing() {
        let schema = Schema::from_openapi(&json!({"type": "object", "properties": {"spec": {"type": "object", "default": {}, "properties": {
            "replicas": {"type": "integer", "default": 1},
            "paused": {"type": "boolean", "nullable": true, "default": true},
            "note": {"type": "string"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"port": {"type": "integer", "default": 443}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "string", "default": "y"}}}},
        }}}}))
        .unwrap();
        for (before, after) in [
            (json!({}), json!({"spec": {"replicas": 1, "paused": true}})),
            (json!({"spec": {"replicas": null, "paused": null, "note": null}}), json!({"spec": {"replicas": 1, "paused": null}})),
            (
                json!({"spec": {"replicas": 3, "paused": false, "list": [{}, {"port": 1}], "map": {"a": {}}}}),
                json!({"spec": {"replicas": 3, "paused": false, "list": [{"port": 443}, {"port": 1}], "map": {"a": {"x": "y"}}}}),
            ),
        ] {
            let mut object = before;
            schema.default(&mut object);
            assert_eq!(object, after);
        }
    }
}
