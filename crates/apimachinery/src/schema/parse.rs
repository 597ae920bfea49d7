//! Reads `openAPIV3Schema` into nodes.
//!
//! Keywords without a meaning for values (`description`, `title`, `example`, `externalDocs`, `x-kubernetes-map-type`) are
//! passed over. A keyword of the wrong type is an error: a rule that is silently not applied is worse.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use super::{Additional, CelRule, Limit, ListType, Node, Pattern, Rules, SchemaError, Type};
use crate::cel::Expression;
use crate::field::ErrorKind;

/// Reads nodes; patterns of the same text are shared.
#[derive(Default)]
pub(super) struct Parser {
    /// Rules in CEL that are not understood.
    pub(super) unread: Vec<String>,
    patterns: BTreeMap<String, Arc<Pattern>>,
}

impl Parser {
    pub(super) fn node(&mut self, schema: &Value, path: &str) -> Result<Node, SchemaError> {
        let map = schema.as_object().ok_or_else(|| wrong(path, "must be an object"))?;
        let flag = |name: &str| -> Result<bool, SchemaError> {
            map.get(name).map_or(Ok(false), |v| v.as_bool().ok_or_else(|| wrong(&format!("{path}.{name}"), "must be true or false")))
        };
        let mut properties = BTreeMap::new();
        if let Some(value) = map.get("properties") {
            let entries = value.as_object().ok_or_else(|| wrong(&format!("{path}.properties"), "must be an object"))?;
            for (name, schema) in entries {
                properties.insert(name.clone(), self.node(schema, &format!("{path}.properties.{name}"))?);
            }
        }
        let additional = match map.get("additionalProperties") {
            None | Some(Value::Bool(false)) => Additional::Unsaid,
            Some(Value::Bool(true)) => Additional::Anything,
            Some(schema) => Additional::Schema(Box::new(self.node(schema, &format!("{path}.additionalProperties"))?)),
        };
        let items = map.get("items").map(|schema| self.node(schema, &format!("{path}.items")).map(Box::new)).transpose()?;
        let rules = self.rules(map, path)?;
        let list_type = list_type(map, path)?;
        let embedded_resource = flag("x-kubernetes-embedded-resource")?;
        let below = |has: fn(&Node) -> bool| {
            properties.values().any(has)
                || items.as_deref().is_some_and(has)
                || matches!(&additional, Additional::Schema(node) if has(node))
        };
        Ok(Node {
            has_cel: !rules.cel.is_empty() || below(|node| node.has_cel),
            has_unique_items: !matches!(list_type, ListType::Atomic) || below(|node| node.has_unique_items),
            has_embedded: embedded_resource || below(|node| node.has_embedded),
            types: types(map, path)?,
            nullable: flag("nullable")?,
            int_or_string: flag("x-kubernetes-int-or-string")?,
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields")?,
            embedded_resource,
            properties,
            additional,
            items,
            list_type,
            default: map.get("default").filter(|v| !v.is_null()).cloned(),
            rules,
        })
    }

    fn nodes(&mut self, map: &Map<String, Value>, name: &str, path: &str) -> Result<Vec<Node>, SchemaError> {
        let Some(value) = map.get(name) else { return Ok(Vec::new()) };
        let path = format!("{path}.{name}");
        let list = value.as_array().ok_or_else(|| wrong(&path, "must be a list"))?;
        list.iter().enumerate().map(|(i, schema)| self.node(schema, &format!("{path}[{i}]"))).collect()
    }

    fn cel(&mut self, map: &Map<String, Value>, path: &str) -> Result<Vec<CelRule>, SchemaError> {
        let Some(value) = map.get("x-kubernetes-validations") else { return Ok(Vec::new()) };
        let path = format!("{path}.x-kubernetes-validations");
        let list = value.as_array().ok_or_else(|| wrong(&path, "must be a list"))?;
        let mut rules = Vec::new();
        for (i, rule) in list.iter().enumerate() {
            let text = |name: &str| rule.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
            let expression = text("rule").ok_or_else(|| wrong(&format!("{path}[{i}].rule"), "must be given"))?;
            let compiled = match rule.get("optionalOldSelf").and_then(Value::as_bool) {
                Some(true) => Err("optionals are not understood".to_owned()),
                _ => Expression::compile(expression).map_err(|error| error.to_string()),
            };
            let expression = match compiled {
                Ok(expression) => expression,
                Err(why) => {
                    self.unread.push(format!("{path}[{i}]: {expression}: {why}"));
                    continue;
                }
            };
            let is_transition = expression.mentions("oldSelf");
            rules.push(CelRule {
                expression,
                message: text("message").map(str::to_owned),
                message_expression: text("messageExpression").and_then(|text| Expression::compile(text).ok()),
                kind: match text("reason") {
                    Some("FieldValueForbidden") => ErrorKind::Forbidden,
                    Some("FieldValueRequired") => ErrorKind::Required,
                    Some("FieldValueDuplicate") => ErrorKind::Duplicate,
                    _ => ErrorKind::Invalid,
                },
                field_path: text("fieldPath").unwrap_or_default().to_owned(),
                is_transition,
            });
        }
        Ok(rules)
    }

    fn rules(&mut self, map: &Map<String, Value>, path: &str) -> Result<Rules, SchemaError> {
        let text = |name: &str| -> Result<Option<String>, SchemaError> {
            map.get(name)
                .map(|v| v.as_str().map(str::to_owned).ok_or_else(|| wrong(&format!("{path}.{name}"), "must be a string")))
                .transpose()
        };
        let count = |name: &str| -> Result<Option<u64>, SchemaError> {
            map.get(name)
                .map(|v| v.as_u64().ok_or_else(|| wrong(&format!("{path}.{name}"), "must be a whole number of at least 0")))
                .transpose()
        };
        let list = |name: &str| -> Result<Vec<Value>, SchemaError> {
            map.get(name)
                .map_or(Ok(Vec::new()), |v| v.as_array().cloned().ok_or_else(|| wrong(&format!("{path}.{name}"), "must be a list")))
        };
        let limit = |name: &str, exclusive: &str| -> Result<Option<Limit>, SchemaError> {
            let exclusive = map.get(exclusive).and_then(Value::as_bool).unwrap_or_default();
            match map.get(name) {
                None => Ok(None),
                Some(Value::Number(number)) => Ok(Some(Limit { number: number.clone(), exclusive })),
                Some(_) => Err(wrong(&format!("{path}.{name}"), "must be a number")),
            }
        };
        let required = list("required")?;
        let cel = self.cel(map, path)?;
        let pattern = text("pattern")?.map(|text| {
            let pattern = || Arc::new(Pattern { text: text.clone(), compiled: OnceLock::new() });
            self.patterns.entry(text.clone()).or_insert_with(pattern).clone()
        });
        Ok(Rules {
            cel,
            required: required.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            enumeration: list("enum")?,
            format: text("format")?,
            pattern,
            min_length: count("minLength")?,
            max_length: count("maxLength")?,
            min_items: count("minItems")?,
            max_items: count("maxItems")?,
            unique_items: map.get("uniqueItems").and_then(Value::as_bool).unwrap_or_default(),
            min_properties: count("minProperties")?,
            max_properties: count("maxProperties")?,
            minimum: limit("minimum", "exclusiveMinimum")?,
            maximum: limit("maximum", "exclusiveMaximum")?,
            multiple_of: map.get("multipleOf").and_then(Value::as_f64),
            all_of: self.nodes(map, "allOf", path)?,
            any_of: self.nodes(map, "anyOf", path)?,
            one_of: self.nodes(map, "oneOf", path)?,
            not: map.get("not").map(|schema| self.node(schema, &format!("{path}.not")).map(Box::new)).transpose()?,
        })
    }
}

fn wrong(path: &str, why: &str) -> SchemaError {
    SchemaError { path: path.to_owned(), why: why.to_owned() }
}

fn types(map: &Map<String, Value>, path: &str) -> Result<Option<Type>, SchemaError> {
    let Some(value) = map.get("type") else { return Ok(None) };
    match value.as_str() {
        Some("object") => Ok(Some(Type::Object)),
        Some("array") => Ok(Some(Type::Array)),
        Some("string") => Ok(Some(Type::String)),
        Some("integer") => Ok(Some(Type::Integer)),
        Some("number") => Ok(Some(Type::Number)),
        Some("boolean") => Ok(Some(Type::Boolean)),
        Some("") => Ok(None),
        _ => Err(wrong(&format!("{path}.type"), "must be one of object, array, string, integer, number, boolean")),
    }
}

fn list_type(map: &Map<String, Value>, path: &str) -> Result<ListType, SchemaError> {
    let keys = map.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
    match map.get("x-kubernetes-list-type").map(Value::as_str) {
        None | Some(Some("atomic")) => Ok(ListType::Atomic),
        Some(Some("set")) => Ok(ListType::Set),
        Some(Some("map")) => Ok(ListType::Map(keys.filter_map(Value::as_str).map(str::to_owned).collect())),
        Some(_) => Err(wrong(&format!("{path}.x-kubernetes-list-type"), "must be one of atomic, set, map")),
    }
}
