//! Carries out the rules in CEL of a schema.
//!
//! Rules see values that fit their schema: when types or limits are broken already, they are not asked, and the answer says
//! so. A rule that speaks of `oldSelf` is asked only about a change of something that was there before.

use serde_json::Value;

use super::validate::{predecessor, type_name};
use super::{Additional, CelRule, Node};
use crate::field::{ErrorKind, FieldError, child, index, key};
use crate::meta::is_same;

const NOT_ASKED: &str =
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

/// Adds what the rules have against a value to what was found before.
pub(super) fn judge(node: &Node, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    if !node.has_cel {
        return;
    }
    let blocks = |error: &FieldError| {
        matches!(
            error.kind,
            ErrorKind::NotSupported | ErrorKind::Required | ErrorKind::TooLong | ErrorKind::TooMany | ErrorKind::TypeInvalid
        )
    };
    if errors.iter().any(blocks) {
        errors.push(FieldError::invalid("", Value::Null, NOT_ASKED));
        return;
    }
    walk(node, value, old, path, errors);
}

fn walk(node: &Node, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    if !node.has_cel || value.is_null() || old.is_some_and(|old| is_same(old, value)) {
        return;
    }
    for rule in &node.rules.cel {
        ask(rule, value, old, path, errors);
    }
    match value {
        Value::Object(map) => {
            for (name, entry) in map {
                let before = old.and_then(|old| old.get(name));
                match (node.properties.get(name), &node.additional) {
                    (Some(property), _) => walk(property, entry, before, &child(path, name), errors),
                    (None, Additional::Schema(schema)) => walk(schema, entry, before, &key(path, name), errors),
                    (None, _) => {}
                }
            }
        }
        Value::Array(list) => {
            if let Some(schema) = &node.items {
                for (i, item) in list.iter().enumerate() {
                    walk(schema, item, predecessor(node, item, old), &index(path, i), errors);
                }
            }
        }
        _ => {}
    }
}

fn ask(rule: &CelRule, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let outcome = match (rule.is_transition, old) {
        (true, None) => return,
        (true, Some(old)) => rule.expression.evaluate(&[("self", value), ("oldSelf", old)]),
        (false, _) => rule.expression.evaluate(&[("self", value)]),
    };
    let shown = || rule.message.clone().unwrap_or_else(|| format!("failed rule: {}", rule.expression));
    let detail = match outcome {
        Ok(Value::Bool(true)) => return,
        Ok(Value::Bool(false)) => {
            let variables = [("self", value), ("oldSelf", old.unwrap_or(&Value::Null))];
            let made = rule.message_expression.as_ref().and_then(|expression| expression.evaluate(&variables).ok());
            made.and_then(|made| made.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)).unwrap_or_else(shown)
        }
        Ok(other) => format!("the rule gives no yes or no but {other}: {}", shown()),
        Err(error) => format!("{error} evaluating rule: {}", shown()),
    };
    let path = match rule.field_path.as_str() {
        "" => path.to_owned(),
        below if below.starts_with('[') => format!("{path}{below}"),
        below => child(path, below.trim_start_matches('.')),
    };
    errors.push(FieldError { path, kind: rule.kind, bad_value: Some(Value::String(type_name(value).to_owned())), detail });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Schema;
    use super::*;

    fn schema() -> Schema {
        Schema::from_openapi(&json!({"type": "object", "properties": {"spec": {
            "type": "object",
            "x-kubernetes-validations": [
                {"rule": "self.min <= self.max", "message": "min must not exceed max"},
                {"rule": "!has(self.kind) || self.kind == oldSelf.kind", "reason": "FieldValueForbidden", "fieldPath": ".kind", "message": "is immutable"},
                {"rule": "self.max < 100", "messageExpression": "'too many: ' + string(self.max)"},
                {"rule": "quantity(self.min).isGreaterThan(quantity('1'))"},
            ],
            "properties": {
                "min": {"type": "integer"}, "max": {"type": "integer"}, "kind": {"type": "string"},
                "types": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "!(self in ['Ready'])"}]}},
                "unique": {"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": [
                    {"rule": "self.all(x, self.exists_one(y, x == y))", "message": "entries must be unique"}]},
            }}}}))
        .unwrap()
    }

    fn judged(spec: Value, old: Option<Value>) -> Vec<String> {
        let old = old.map(|spec| json!({"spec": spec}));
        schema().validate(&json!({"spec": spec}), old.as_ref()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_are_carried_out() {
        for (spec, old, expected) in [
            (json!({"min": 1, "max": 2}), None, ""),
            (json!({"min": 3, "max": 2}), None, "spec: Invalid value: \"object\": min must not exceed max"),
            (json!({"min": 3, "max": 200}), None, "spec: Invalid value: \"object\": too many: 200"),
            (
                json!({"min": 1}),
                None,
                "spec: Invalid value: \"object\": no such key: max evaluating rule: min must not exceed max; spec: Invalid value: \"object\": no such key: max evaluating rule: failed rule: self.max < 100",
            ),
            (
                json!({"min": 1, "max": 2, "types": ["A", "Ready"]}),
                None,
                "spec.types[1]: Invalid value: \"string\": failed rule: !(self in ['Ready'])",
            ),
            (json!({"min": 1, "max": 2, "unique": ["a", "b", "a"]}), None, "spec.unique: Invalid value: \"array\": entries must be unique"),
            (json!({"min": 1, "max": 2, "kind": "a"}), None, ""),
            (
                json!({"min": 1, "max": 2, "kind": "b"}),
                Some(json!({"min": 1, "max": 2, "kind": "a"})),
                "spec.kind: Forbidden: is immutable",
            ),
            (json!({"min": 3, "max": 2}), Some(json!({"min": 3, "max": 2})), ""),
            (
                json!({"min": "x", "max": 2}),
                None,
                "spec.min: Invalid value: \"string\": spec.min in body must be of type integer: \"string\"; <nil>: Invalid value: \"null\": some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
            ),
        ] {
            assert_eq!(judged(spec.clone(), old).join("; "), expected, "{spec}");
        }
    }

    #[test]
    fn rules_that_are_not_understood_are_named() {
        assert_eq!(schema().unread_rules().len(), 1);
        assert!(schema().unread_rules()[0].starts_with("openAPIV3Schema.properties.spec.x-kubernetes-validations[3]: quantity("));
    }

    #[test]
    fn a_rule_without_text_is_refused() {
        let schema = json!({"type": "object", "x-kubernetes-validations": [{"message": "x"}]});
        assert!(Schema::from_openapi(&schema).is_err());
    }
}
