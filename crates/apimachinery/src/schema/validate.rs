//! Judges values, in the order and with the words of a genuine kube-apiserver.
//!
//! First every node's own rules and those below it, then the lists that must hold each item once, then embedded objects, and
//! at last the rules in CEL.
//! A subtree equal to the old one is not judged (ratcheting, as from Kubernetes 1.33 on): items of a list are compared
//! with their predecessors only where keys tell them apart.

use serde_json::{Map, Value, json};

use super::{Additional, ListType, Node, Rules, Type};
use super::{formats, rules};
use crate::field::{FieldError, child, index, with_child, with_index, with_key};
use crate::gvk::parse_api_version;
use crate::meta::is_same;
use crate::names;

pub(super) fn object(root: &Node, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut path = String::with_capacity(128);
    value(root, object, old, &mut path, &mut errors);
    lists(root, object, old, &mut path, &mut errors);
    embedded(root, object, &mut path, true, &mut errors);
    rules::judge(root, object, old, "", &mut errors);
    errors
}

pub(super) fn field(root: &Node, name: &str, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let (Some(node), Some(new)) = (root.properties.get(name), object.get(name)) {
        let old = old.and_then(|old| old.get(name));
        let mut path = String::with_capacity(128);
        path.push_str(name);
        value(node, new, old, &mut path, &mut errors);
        lists(node, new, old, &mut path, &mut errors);
        embedded(node, new, &mut path, false, &mut errors);
        rules::judge(node, new, old, name, &mut errors);
    }
    errors
}

/// The JSON type of a value as messages name it.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The format that the genuine server sees in a number.
fn inferred_format(value: &Value) -> &'static str {
    match value {
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        _ => "",
    }
}

fn is_whole(value: &Value) -> bool {
    match value {
        Value::Number(n) => n.as_f64().is_some_and(|f| f.fract() == 0.0),
        _ => false,
    }
}

fn has_type(wanted: Type, value: &Value) -> bool {
    match wanted {
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Boolean => value.is_boolean(),
        Type::Number => value.is_number(),
        Type::Integer => value.is_number() && is_whole(value),
    }
}

fn value(node: &Node, new: &Value, old: Option<&Value>, path: &mut String, errors: &mut Vec<FieldError>) {
    if old.is_some_and(|old| is_same(old, new)) {
        return;
    }
    if !types(node, new, path, errors) {
        return;
    }
    compositions(&node.rules, new, path, errors);
    scalars(&node.rules, new, path, errors);
    match new {
        Value::Array(list) => items(node, list, old, path, errors),
        Value::Object(map) => fields(node, map, old, path, errors),
        _ => {}
    }
}

/// Judges the type; false when nothing below can be judged.
fn types(node: &Node, value: &Value, path: &str, errors: &mut Vec<FieldError>) -> bool {
    let wanted = match (node.int_or_string, node.types) {
        (true, _) => "integer,string",
        (false, Some(wanted)) => wanted.name(),
        (false, None) => return !value.is_null(),
    };
    let mut refuse = |wanted: &str, found: &str| {
        let detail = format!("{path} in body must be of type {wanted}: {}", crate::field::quote(found));
        errors.push(FieldError::type_invalid(path, found, detail));
    };
    if value.is_null() {
        if !node.nullable {
            refuse(wanted, "null");
        }
        return false;
    }
    let fits = if node.int_or_string {
        value.is_string() || has_type(Type::Integer, value)
    } else {
        node.types.is_none_or(|t| has_type(t, value))
    };
    if !fits {
        match &node.rules.format {
            Some(format) if !value.is_string() && !value.is_array() => refuse(format, inferred_format(value)),
            _ => refuse(wanted, type_name(value)),
        }
    }
    // The other rules go by what the value is, so that a value of the wrong type can break them too.
    true
}

fn compositions(rules: &Rules, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let judged = |node: &Node| {
        let mut errors = Vec::new();
        self::value(node, value, None, &mut path.to_owned(), &mut errors);
        errors
    };
    let mut refuse = |why: String| errors.push(FieldError::invalid(path, "", format!("{} {why}", crate::field::quote(path))));
    if !rules.any_of.is_empty() && !rules.any_of.iter().any(|node| judged(node).is_empty()) {
        refuse("must validate at least one schema (anyOf)".to_owned());
    }
    if !rules.one_of.is_empty() {
        match rules.one_of.iter().filter(|node| judged(node).is_empty()).count() {
            1 => {}
            0 => refuse("must validate one and only one schema (oneOf). Found none valid".to_owned()),
            many => refuse(format!("must validate one and only one schema (oneOf). Found {many} valid alternatives")),
        }
    }
    let failed: Vec<FieldError> = rules.all_of.iter().flat_map(judged).collect();
    if !failed.is_empty() {
        refuse("must validate all the schemas (allOf)".to_owned());
    }
    if rules.not.as_ref().is_some_and(|node| judged(node).is_empty()) {
        refuse("must not validate the schema (not)".to_owned());
    }
    errors.extend(failed);
}

fn scalars(rules: &Rules, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::String(text) => texts(rules, text, path, errors),
        Value::Number(_) => numbers(rules, value, path, errors),
        _ => {}
    }
    if !rules.enumeration.is_empty() && !rules.enumeration.iter().any(|allowed| equal(allowed, value)) {
        let allowed: Vec<String> = rules.enumeration.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
        errors.push(FieldError::not_supported(path, value.clone(), &allowed));
    }
}

/// Equal values; 1 and 1.0 are.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn texts(rules: &Rules, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    let length = text.chars().count() as u64;
    if let Some(limit) = rules.max_length.filter(|limit| length > *limit) {
        errors.push(FieldError::too_long(path, limit));
    }
    if let Some(limit) = rules.min_length.filter(|limit| length < *limit) {
        errors.push(FieldError::invalid(path, text, format!("{path} in body should be at least {limit} chars long")));
    }
    if let Some(pattern) = &rules.pattern {
        match pattern.matches(text) {
            Some(true) => {}
            Some(false) => errors.push(FieldError::invalid(path, text, format!("{path} in body should match '{}'", pattern.text))),
            None => errors.push(FieldError::invalid(
                path,
                text,
                format!("{path} in body should match '{}', which is no valid pattern", pattern.text),
            )),
        }
    }
    if let Some(format) = rules.format.as_deref().filter(|format| !formats::holds(format, text)) {
        let detail = format!("{path} in body must be of type {format}: {}", crate::field::quote(text));
        errors.push(FieldError::type_invalid(path, text, detail));
    }
}

fn numbers(rules: &Rules, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(number) = value.as_f64() else { return };
    if rules.format.as_deref() == Some("int32") && (number < f64::from(i32::MIN) || number > f64::from(i32::MAX)) {
        let detail = format!("Checked value must be of type integer with format int32 in {path}");
        errors.push(FieldError::invalid(path, value.clone(), detail));
    }
    if let Some(factor) = rules.multiple_of.filter(|factor| *factor > 0.0)
        && (number / factor).fract() != 0.0
    {
        errors.push(FieldError::invalid(path, value.clone(), format!("{path} in body should be a multiple of {factor}")));
    }
    if let Some(limit) = &rules.maximum {
        let bound = limit.number.as_f64().unwrap_or(f64::INFINITY);
        if limit.exclusive && number >= bound {
            errors.push(FieldError::invalid(path, value.clone(), format!("{path} in body should be less than {}", limit.number)));
        } else if number > bound {
            errors.push(FieldError::invalid(
                path,
                value.clone(),
                format!("{path} in body should be less than or equal to {}", limit.number),
            ));
        }
    }
    if let Some(limit) = &rules.minimum {
        let bound = limit.number.as_f64().unwrap_or(f64::NEG_INFINITY);
        if limit.exclusive && number <= bound {
            errors.push(FieldError::invalid(path, value.clone(), format!("{path} in body should be greater than {}", limit.number)));
        } else if number < bound {
            errors.push(FieldError::invalid(
                path,
                value.clone(),
                format!("{path} in body should be greater than or equal to {}", limit.number),
            ));
        }
    }
}

fn items(node: &Node, list: &[Value], old: Option<&Value>, path: &mut String, errors: &mut Vec<FieldError>) {
    let rules = &node.rules;
    if let Some(schema) = &node.items {
        for (i, item) in list.iter().enumerate() {
            with_index(path, i, |path| value(schema, item, predecessor(node, item, old), path, errors));
        }
    }
    let count = list.len() as u64;
    if let Some(limit) = rules.min_items.filter(|limit| count < *limit) {
        errors.push(FieldError::invalid(path.as_str(), json!(count), format!("{path} in body should have at least {limit} items")));
    }
    if let Some(limit) = rules.max_items.filter(|limit| count > *limit) {
        errors.push(FieldError::too_many(path.as_str(), count, limit));
    }
    if rules.unique_items && list.iter().enumerate().any(|(i, item)| list[..i].contains(item)) {
        errors.push(FieldError::invalid(path.as_str(), "", format!("{path} in body shouldn't contain duplicates")));
    }
}

/// The item that stood for this one before, where the list's keys tell.
pub(super) fn predecessor<'a>(node: &Node, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    let ListType::Map(keys) = &node.list_type else { return None };
    old?.as_array()?.iter().find(|before| keys.iter().all(|key| before.get(key) == item.get(key)))
}

fn fields(node: &Node, map: &Map<String, Value>, old: Option<&Value>, path: &mut String, errors: &mut Vec<FieldError>) {
    let rules = &node.rules;
    let count = map.len() as u64;
    if let Some(limit) = rules.min_properties.filter(|limit| count < *limit) {
        errors.push(FieldError::invalid(path.as_str(), json!(count), format!("{path} in body should have at least {limit} properties")));
    }
    if let Some(limit) = rules.max_properties.filter(|limit| count > *limit) {
        errors.push(FieldError::too_many(path.as_str(), count, limit));
    }
    let before = |name: &str| old.and_then(|old| old.get(name));
    if let Additional::Schema(schema) = &node.additional {
        for (name, entry) in map.iter().filter(|(name, _)| !node.properties.contains_key(*name)) {
            with_child(path, name, |path| value(schema, entry, before(name), path, errors));
        }
    }
    for (name, property) in &node.properties {
        if let Some(entry) = map.get(name) {
            with_child(path, name, |path| value(property, entry, before(name), path, errors));
        }
    }
    for name in rules.required.iter().filter(|name| !map.contains_key(*name)) {
        errors.push(FieldError::required(child(path, name), ""));
    }
}

/// Lists whose items must differ, as a whole or by their keys.
fn lists(node: &Node, new: &Value, old: Option<&Value>, path: &mut String, errors: &mut Vec<FieldError>) {
    if !node.has_unique_items || old.is_some_and(|old| is_same(old, new)) {
        return;
    }
    match new {
        Value::Array(list) => {
            match &node.list_type {
                ListType::Atomic => {}
                ListType::Set => {
                    errors.extend(repetitions(list).map(|i| FieldError::duplicate(index(path, i), list[i].clone())));
                }
                ListType::Map(keys) => {
                    if let Some(i) = list.iter().position(|item| !item.is_object() && !item.is_null()) {
                        let detail = "must be an object for an array of list-type map";
                        errors.push(FieldError::invalid(index(path, i), list[i].clone(), detail));
                    } else {
                        let identity = |item| -> Vec<Option<&Value>> { keys.iter().map(|key| Value::get(item, key)).collect() };
                        let identities: Vec<Vec<Option<&Value>>> = list.iter().map(identity).collect();
                        for i in repetitions(&identities) {
                            let entries = keys.iter().filter_map(|key| Some((key.clone(), list[i].get(key)?.clone())));
                            errors.push(FieldError::duplicate(index(path, i), Value::Object(entries.collect())));
                        }
                    }
                }
            }
            if let Some(schema) = &node.items {
                for (i, item) in list.iter().enumerate() {
                    with_index(path, i, |path| lists(schema, item, predecessor(node, item, old), path, errors));
                }
            }
        }
        Value::Object(map) => {
            for (name, entry) in map {
                let before = old.and_then(|old| old.get(name));
                match (node.properties.get(name), &node.additional) {
                    (Some(property), _) => with_child(path, name, |path| lists(property, entry, before, path, errors)),
                    (None, Additional::Schema(schema)) => with_key(path, name, |path| lists(schema, entry, before, path, errors)),
                    (None, _) => {}
                }
            }
        }
        _ => {}
    }
}

/// Where the first repetition stands of every item that occurs more than once.
fn repetitions<T: PartialEq>(list: &[T]) -> impl Iterator<Item = usize> {
    let is_repetition = |i: &usize| list[..*i].iter().filter(|before| **before == list[*i]).count() == 1;
    (0..list.len()).filter(is_repetition)
}

/// Whole objects inside of objects name their kind.
fn embedded(node: &Node, value: &Value, path: &mut String, is_root: bool, errors: &mut Vec<FieldError>) {
    if !node.has_embedded {
        return;
    }
    match value {
        Value::Object(map) => {
            if node.embedded_resource && !is_root {
                envelope(map, path, errors);
            }
            for (name, entry) in map {
                match (node.properties.get(name), &node.additional) {
                    (Some(property), _) => with_child(path, name, |path| embedded(property, entry, path, false, errors)),
                    (None, Additional::Schema(schema)) => with_key(path, name, |path| embedded(schema, entry, path, false, errors)),
                    (None, _) => {}
                }
            }
        }
        Value::Array(list) => {
            if let Some(schema) = &node.items {
                list.iter().enumerate().for_each(|(i, item)| with_index(path, i, |path| embedded(schema, item, path, false, errors)));
            }
        }
        _ => {}
    }
}

fn envelope(map: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    for name in ["apiVersion", "kind"] {
        let at = child(path, name);
        match map.get(name) {
            None => errors.push(FieldError::required(at, "must not be empty")),
            Some(Value::String(text)) if text.is_empty() => errors.push(FieldError::invalid(at, "", "must not be empty")),
            Some(Value::String(text)) if name == "apiVersion" => {
                if let Err(error) = parse_api_version(text) {
                    errors.push(FieldError::invalid(at, text.as_str(), error.to_string()));
                }
            }
            Some(Value::String(text)) => {
                let wrong = names::label_1035(&text.to_lowercase());
                if !wrong.is_empty() {
                    let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                    errors.push(FieldError::invalid(at, text.as_str(), detail));
                }
            }
            Some(other) => errors.push(FieldError::invalid(at, other.clone(), "must be a string")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Schema;
    use super::*;

    fn judged(schema: Value, spec: Value) -> Vec<String> {
        judged_after(schema, spec, None)
    }

    fn judged_after(schema: Value, spec: Value, old: Option<Value>) -> Vec<String> {
        let schema = Schema::from_openapi(&json!({"type": "object", "properties": {"spec": schema}})).unwrap();
        let old = old.map(|spec| json!({"spec": spec}));
        schema.validate(&json!({"spec": spec}), old.as_ref()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_keyword_has_its_message() {
        let int = json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 5});
        for (schema, value, expected) in [
            (json!({"type": "string"}), json!("x"), ""),
            (json!({"type": "string"}), json!(1), "spec: Invalid value: \"integer\": spec in body must be of type string: \"integer\""),
            (json!({"type": "string"}), Value::Null, "spec: Invalid value: \"null\": spec in body must be of type string: \"null\""),
            (json!({"type": "string", "nullable": true}), Value::Null, ""),
            (int.clone(), json!(3), ""),
            (int.clone(), json!(3.0), ""),
            (int.clone(), json!("many"), "spec: Invalid value: \"string\": spec in body must be of type integer: \"string\""),
            (int.clone(), json!(true), "spec: Invalid value: \"\": spec in body must be of type int32: \"\""),
            (int.clone(), json!(0), "spec: Invalid value: 0: spec in body should be greater than or equal to 1"),
            (int, json!(6), "spec: Invalid value: 6: spec in body should be less than or equal to 5"),
            (
                json!({"type": "integer", "minimum": 0, "exclusiveMinimum": true}),
                json!(0),
                "spec: Invalid value: 0: spec in body should be greater than 0",
            ),
            (
                json!({"type": "integer", "format": "int32"}),
                json!(3_000_000_000_u32),
                "spec: Invalid value: 3000000000: Checked value must be of type integer with format int32 in spec",
            ),
            (
                json!({"type": "string", "minLength": 1}),
                json!(""),
                "spec: Invalid value: \"\": spec in body should be at least 1 chars long",
            ),
            (json!({"type": "string", "maxLength": 2}), json!("äöü"), "spec: Too long: may not be more than 2 bytes"),
            (json!({"type": "string", "maxLength": 3}), json!("äöü"), ""),
            (
                json!({"type": "string", "pattern": "^[a-z]+$"}),
                json!("A"),
                "spec: Invalid value: \"A\": spec in body should match '^[a-z]+$'",
            ),
            (
                json!({"type": "string", "format": "date-time"}),
                json!("soon"),
                "spec: Invalid value: \"soon\": spec in body must be of type date-time: \"soon\"",
            ),
            (json!({"type": "string", "enum": ["a", "b"]}), json!("c"), "spec: Unsupported value: \"c\": supported values: \"a\", \"b\""),
            (
                json!({"type": "array", "minItems": 1, "items": {"type": "string"}}),
                json!([]),
                "spec: Invalid value: 0: spec in body should have at least 1 items",
            ),
            (json!({"type": "array", "maxItems": 1, "items": {}}), json!([1, 2]), "spec: Too many: 2: must have at most 1 item"),
            (
                json!({"type": "array", "items": {"type": "string"}}),
                json!(["a", 1]),
                "spec[1]: Invalid value: \"integer\": spec[1] in body must be of type string: \"integer\"",
            ),
            (
                json!({"type": "object", "minProperties": 1}),
                json!({}),
                "spec: Invalid value: 0: spec in body should have at least 1 properties",
            ),
            (json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}), json!({}), "spec.a: Required value"),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                json!({"k": 1}),
                "spec.k: Invalid value: \"integer\": spec.k in body must be of type string: \"integer\"",
            ),
            (json!({"x-kubernetes-int-or-string": true}), json!("25%"), ""),
            (json!({"x-kubernetes-int-or-string": true}), json!(1), ""),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!(true),
                "spec: Invalid value: \"boolean\": spec in body must be of type integer,string: \"boolean\"",
            ),
            (json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}), json!("1"), ""),
            (
                json!({"anyOf": [{"minLength": 3}, {"pattern": "^x"}], "type": "string"}),
                json!("a"),
                "spec: Invalid value: \"\": \"spec\" must validate at least one schema (anyOf)",
            ),
            (
                json!({"not": {"enum": ["a"]}, "type": "string"}),
                json!("a"),
                "spec: Invalid value: \"\": \"spec\" must not validate the schema (not)",
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
                json!(["a", "b", "a", "a"]),
                "spec[2]: Duplicate value: \"a\"",
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], "items": {"type": "object"}}),
                json!([{"type": "A"}, {"type": "B"}, {"type": "A", "x": 1}]),
                "spec[2]: Duplicate value: map[string]interface {}{\"type\":\"A\"}",
            ),
            (
                json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
                json!({"kind": "K"}),
                "spec.apiVersion: Required value: must not be empty",
            ),
        ] {
            assert_eq!(judged(schema.clone(), value.clone()).join("; "), expected, "{schema} on {value}");
        }
    }

    #[test]
    fn what_did_not_change_is_not_judged() {
        let schema = json!({"type": "object", "properties": {
            "name": {"type": "string", "maxLength": 3}, "note": {"type": "string"},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                     "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string", "maxLength": 1}}}}}});
        let old = json!({"name": "too long", "list": [{"k": "a", "v": "xx"}]});
        let same = json!({"name": "too long", "note": "new", "list": [{"k": "b", "v": "y"}, {"k": "a", "v": "xx"}]});
        assert_eq!(judged_after(schema.clone(), same, Some(old.clone())), Vec::<String>::new());
        let changed = json!({"name": "still too long", "list": [{"k": "a", "v": "yy"}]});
        assert_eq!(judged_after(schema, changed, Some(old)).len(), 2);
    }

    #[test]
    fn only_the_named_field_is_judged() {
        let schema = Schema::from_openapi(&json!({"type": "object", "properties": {
            "spec": {"type": "string", "maxLength": 1}, "status": {"type": "object", "properties": {"phase": {"type": "string", "maxLength": 1}}}}}))
        .unwrap();
        let errors = schema.validate_field("status", &json!({"spec": "xx", "status": {"phase": "yy"}}), None);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), ["status.phase: Too long: may not be more than 1 byte"]);
    }
}
