//! JSON schemas of the Rust types as Kubernetes wants them (structural, everything inline), and the patterns used in them.
//!
//! schemars describes Rust's view; a CustomResourceDefinition allows less: no references, no `null` alternatives, no numeric formats other
//! than int32/int64, no defaults that nobody asked for. [`structural`] makes the one from the other. Facts (patterns, limits) are the upstream CRDs'.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// DNS subdomain: an API group.
pub const GROUP: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// DNS subdomain: an object's name.
pub const OBJECT_NAME: &str = GROUP;
/// A kind.
pub const KIND: &str = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";
/// Type of a condition.
pub const CONDITION_TYPE: &str =
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";
/// Reason of a condition.
pub const CONDITION_REASON: &str = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$";
/// Key of a taint.
pub const TAINT_KEY: &str =
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";
/// Value of a label or taint.
pub const LABEL_VALUE: &str = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
/// Group and version.
pub const API_VERSION: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[a-z]([-a-z0-9]*[a-z0-9])?$";
/// Range of unhealthy machines, `[1-3]`.
pub const UNHEALTHY_RANGE: &str = r"^\[[0-9]+-[0-9]+\]$";
/// A Kubernetes quantity.
pub const QUANTITY: &str =
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";
/// Kubernetes version with its `v`.
pub const V_VERSION: &str = r"^v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)([-0-9a-zA-Z_\.+]*)?$";
/// Name of a namespace.
pub const NAMESPACE: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

macro_rules! stand_in {
    ($(#[$meta:meta])* $name:ident, $schema:tt) => {
        $(#[$meta])*
        pub struct $name;
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}
stand_in!(
    /// Schema of metadata: the server knows its fields.
    Metadata,
    {"type": "object"}
);
stand_in!(
    /// Schema of a time.
    DateTime,
    {"type": "string", "format": "date-time"}
);
stand_in!(
    /// Schema of a whole number of any size.
    Integer,
    {"type": "integer"}
);
stand_in!(
    /// Schema of anything.
    Anything,
    {"x-kubernetes-preserve-unknown-fields": true}
);
stand_in!(
    /// Schema of an object with any fields.
    AnyObject,
    {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
);
stand_in!(
    /// Schema of a Kubernetes quantity.
    Quantity,
    {"anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": QUANTITY, "x-kubernetes-int-or-string": true}
);

/// The structural schema of a type, as a CustomResourceDefinition holds it. A default stands only where the type says `x-default`.
pub fn structural<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::openapi3();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
        object.remove("title");
    }
    tidy(&mut schema);
    schema
}

fn tidy(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        // `true`, the schema of anything.
        *schema = json!({"x-kubernetes-preserve-unknown-fields": true});
        return;
    };
    object.remove("title");
    object.remove("default");
    object.remove("nullable");
    if let Some(default) = object.remove("x-default") {
        object.insert("default".to_owned(), default);
    }
    unwrap_alternatives(object);
    if object.get("format").and_then(Value::as_str).is_some_and(|format| !matches!(format, "int32" | "int64" | "date-time")) {
        object.remove("format");
    }
    if let Some(Value::Array(types)) = object.get("type") {
        let first = types.iter().find(|name| name.as_str() != Some("null")).cloned();
        if let Some(first) = first {
            object.insert("type".to_owned(), first);
        }
    }
    if let Some(Value::Array(words)) = object.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    if object.get("additionalProperties").is_some_and(Value::is_boolean) {
        object.remove("additionalProperties");
    }
    if let Some(description) = object.get("description").and_then(Value::as_str) {
        let joined = description.split('\n').map(str::trim).collect::<Vec<_>>().join(" ");
        object.insert("description".to_owned(), json!(joined.trim()));
    }
    for (key, value) in object.iter_mut() {
        match key.as_str() {
            "properties" => {
                if let Some(properties) = value.as_object_mut() {
                    properties.values_mut().for_each(tidy);
                }
            }
            "items" | "additionalProperties" => tidy(value),
            _ => {}
        }
    }
    object.sort_keys();
}

/// Turns `{"allOf": [{..}]}` and `{"anyOf": [{..}, null]}` into what they wrap; alternatives of an int-or-string stay.
fn unwrap_alternatives(object: &mut Map<String, Value>) {
    if object.contains_key("x-kubernetes-int-or-string") {
        object.remove("type");
        return;
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        let Some(Value::Array(alternatives)) = object.get(key) else { continue };
        let mut real = alternatives
            .iter()
            .filter(|one| one.get("type").and_then(Value::as_str) != Some("null") && one.get("enum") != Some(&json!([null])));
        let (Some(Value::Object(first)), None) = (real.next(), real.next()) else { continue };
        let first = first.clone();
        object.remove(key);
        for (name, value) in first {
            object.entry(name).or_insert(value);
        }
    }
    object.remove("x-default");
    object.remove("nullable");
}
