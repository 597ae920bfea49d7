//! Which type a field has, by the schemas of the kinds served: what decides whether a value such as `12345` is text or a number.

use std::collections::BTreeMap;

use apimachinery::meta::text_at;
use serde_json::{Map, Value};

use super::yaml;

/// Knows the fields of kinds.
pub trait FieldTypes {
    /// The type of an object of this kind; [`FieldType::Unknown`] when the kind is not known.
    fn object(&self, api_version: &str, kind: &str) -> FieldType<'_>;
}

/// The type of one field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldType<'a> {
    /// Nothing is known: values are read as YAML would read them.
    Unknown,
    /// A map of strings, such as a Secret's `stringData`.
    Strings,
    String,
    /// By its OpenAPI schema.
    Schema(&'a Value),
    /// A built-in object: `metadata` is known, and fields that are maps of strings.
    BuiltIn,
    Metadata,
}

impl<'a> FieldType<'a> {
    /// The type of a property of this object.
    pub fn property(self, name: &str) -> Self {
        match self {
            Self::Unknown | Self::String => Self::Unknown,
            Self::Strings => Self::String,
            Self::Metadata => match name {
                "labels" | "annotations" => Self::Strings,
                "name" | "namespace" | "generateName" => Self::String,
                _ => Self::Unknown,
            },
            Self::BuiltIn => match name {
                "metadata" => Self::Metadata,
                "stringData" | "data" => Self::Strings,
                "apiVersion" | "kind" | "type" => Self::String,
                _ => Self::Unknown,
            },
            Self::Schema(schema) => {
                let known = schema.get("properties").and_then(|properties| properties.get(name));
                match (name, known) {
                    ("metadata", known) if known.is_none_or(|schema| schema.get("properties").is_none()) => Self::Metadata,
                    (_, Some(schema)) => Self::Schema(schema),
                    (_, None) => schema.get("additionalProperties").filter(|schema| schema.is_object()).map_or(Self::Unknown, Self::Schema),
                }
            }
        }
    }

    /// The type of the items of this list.
    pub fn item(self) -> Self {
        match self {
            Self::Schema(schema) => schema.get("items").map_or(Self::Unknown, Self::Schema),
            _ => Self::Unknown,
        }
    }

    /// The value that an unquoted text stands for in this field.
    ///
    /// # Errors
    /// What is needed instead, such as "an integer".
    pub fn read(self, text: &str) -> Result<Value, String> {
        let plain = || yaml::parse(text, 1).unwrap_or_else(|_| Value::String(text.to_owned()));
        let name = match self {
            Self::String | Self::Strings => "string",
            Self::Schema(schema) if schema.get("x-kubernetes-int-or-string").and_then(Value::as_bool) == Some(true) => "int-or-string",
            Self::Schema(schema) => schema.get("type").and_then(Value::as_str).unwrap_or_default(),
            _ => "",
        };
        // As YAML text a part of it would be taken for the whole: `3 # three`.
        let is_whole = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '#');
        let scalar = |is_it: fn(&Value) -> bool| Some(plain()).filter(|value| is_whole && is_it(value));
        match name {
            "integer" => {
                let (least, most) = match self {
                    Self::Schema(schema) if schema.get("format").and_then(Value::as_str) == Some("int32") => {
                        (i64::from(i32::MIN), i64::from(i32::MAX))
                    }
                    _ => (i64::MIN, i64::MAX),
                };
                let is_number = is_whole && text.trim_start_matches(['-', '+']).chars().all(|c| c.is_ascii_digit());
                let number = Some(text.trim_start_matches('+')).filter(|_| is_number).and_then(|text| text.parse::<i64>().ok());
                let fits = number.filter(|number| (least..=most).contains(number));
                fits.map(Value::from)
                    .ok_or_else(|| if is_number { format!("an integer of at most {most}") } else { "an integer".to_owned() })
            }
            "number" => scalar(Value::is_number).ok_or_else(|| "a number".to_owned()),
            "boolean" => scalar(Value::is_boolean).ok_or_else(|| "true or false".to_owned()),
            "int-or-string" if text.is_empty() => Err("an integer or a percentage".to_owned()),
            // A map of strings has no place for nothing. Elsewhere an empty value leaves the field without one, as in YAML text.
            _ if text.is_empty() && !matches!(self, Self::String) => Ok(Value::Null),
            "string" => Ok(Value::String(text.to_owned())),
            "array" => Some(plain()).filter(Value::is_array).ok_or_else(|| "a list".to_owned()),
            "object" => Some(plain()).filter(Value::is_object).ok_or_else(|| "a map".to_owned()),
            "int-or-string" => Ok(scalar(Value::is_i64).unwrap_or_else(|| Value::String(text.to_owned()))),
            _ => Ok(match plain() {
                Value::String(_) => Value::String(text.to_owned()),
                collection @ (Value::Array(_) | Value::Object(_)) if text.starts_with(['[', '{']) => collection,
                Value::Array(_) | Value::Object(_) => Value::String(text.to_owned()),
                scalar if is_whole => scalar,
                _ => Value::String(text.to_owned()),
            }),
        }
    }
}

/// Schemas by `apiVersion` and `kind`, taken from CustomResourceDefinition manifests.
#[derive(Clone, Debug, Default)]
pub struct Schemas {
    by_kind: BTreeMap<(String, String), Value>,
}

impl Schemas {
    /// Reads `apiextensions.k8s.io/v1` manifests.
    pub fn of_crds(crds: &[Value]) -> Self {
        let mut by_kind = BTreeMap::new();
        for crd in crds {
            let (group, kind) = (text_at(crd, "/spec/group"), text_at(crd, "/spec/names/kind"));
            for version in crd.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten() {
                let Some(name) = version.get("name").and_then(Value::as_str) else { continue };
                let schema = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or(Value::Object(Map::new()));
                by_kind.insert((format!("{group}/{name}"), kind.to_owned()), schema);
            }
        }
        Self { by_kind }
    }
}

impl FieldTypes for Schemas {
    fn object(&self, api_version: &str, kind: &str) -> FieldType<'_> {
        match self.by_kind.get(&(api_version.to_owned(), kind.to_owned())) {
            Some(schema) => FieldType::Schema(schema),
            None if matches!((api_version, kind), ("v1", "Secret" | "ConfigMap" | "Namespace" | "ServiceAccount")) => FieldType::BuiltIn,
            None => FieldType::Unknown,
        }
    }
}
