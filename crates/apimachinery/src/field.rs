//! Errors about one field of an object, printed as Kubernetes prints them.
//!
//! kubectl shows these lines to users and takes them apart into causes, so that wording, quoting and order are part of
//! the interface. A path is dotted, with `[0]` for list items and `[key]` for map entries; the root is empty.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

/// What is wrong with a field. The name of each is the `reason` of a Status cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// Something that the field refers to does not exist.
    NotFound,
    /// The field must be given.
    Required,
    /// The value occurs twice where it must be unique.
    Duplicate,
    /// The value breaks a rule.
    Invalid,
    /// The value is not one of an enumeration.
    NotSupported,
    /// The field must not be given (here, or now).
    Forbidden,
    /// The value is too long; it is not printed.
    TooLong,
    /// There are too many items.
    TooMany,
    /// The server failed, not the value.
    Internal,
    /// The value has the wrong type.
    TypeInvalid,
}

impl ErrorKind {
    /// The words in front of the value.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    /// The `reason` of the cause in a Status.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One error about one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Path of the field, such as `spec.template.spec.clusterName`.
    pub path: String,
    /// What is wrong.
    pub kind: ErrorKind,
    /// The value at fault; `None` when it is not to be printed.
    pub bad_value: Option<Value>,
    /// Why, in words.
    pub detail: String,
}

impl FieldError {
    /// A field that must be given.
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), kind: ErrorKind::Required, bad_value: None, detail: detail.into() }
    }

    /// A value that breaks a rule.
    pub fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), kind: ErrorKind::Invalid, bad_value: Some(value.into()), detail: detail.into() }
    }

    /// A value of the wrong type.
    pub fn type_invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), kind: ErrorKind::TypeInvalid, bad_value: Some(value.into()), detail: detail.into() }
    }

    /// A field that must not be given or changed.
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), kind: ErrorKind::Forbidden, bad_value: None, detail: detail.into() }
    }

    /// A value that occurs twice.
    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { path: path.into(), kind: ErrorKind::Duplicate, bad_value: Some(value.into()), detail: String::new() }
    }

    /// A reference to something that does not exist.
    pub fn not_found(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { path: path.into(), kind: ErrorKind::NotFound, bad_value: Some(value.into()), detail: String::new() }
    }

    /// A value outside an enumeration; `supported` lists the enumeration.
    pub fn not_supported<S: AsRef<str>>(path: impl Into<String>, value: impl Into<Value>, supported: &[S]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|s| quote(s.as_ref())).collect();
        let detail = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
        Self { path: path.into(), kind: ErrorKind::NotSupported, bad_value: Some(value.into()), detail }
    }

    /// A text longer than `limit` bytes.
    pub fn too_long(path: impl Into<String>, limit: u64) -> Self {
        let unit = if limit == 1 { "byte" } else { "bytes" };
        Self { path: path.into(), kind: ErrorKind::TooLong, bad_value: None, detail: format!("may not be more than {limit} {unit}") }
    }

    /// A list with more than `limit` items.
    pub fn too_many(path: impl Into<String>, actual: u64, limit: u64) -> Self {
        let unit = if limit == 1 { "item" } else { "items" };
        let detail = format!("must have at most {limit} {unit}");
        Self { path: path.into(), kind: ErrorKind::TooMany, bad_value: Some(json!(actual)), detail }
    }

    /// A failure of the server while it looked at the field.
    pub fn internal(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), kind: ErrorKind::Internal, bad_value: None, detail: detail.into() }
    }

    /// The error without its path: the `message` of a Status cause.
    #[must_use]
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        let silent = matches!(self.kind, ErrorKind::Required | ErrorKind::Forbidden | ErrorKind::TooLong | ErrorKind::Internal);
        if let (false, Some(value)) = (silent, &self.bad_value) {
            text.push_str(": ");
            text.push_str(&print_value(value));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The root has the printed name of an absent path.
        let path = if self.path.is_empty() { "<nil>" } else { &self.path };
        write!(f, "{path}: {}", self.body())
    }
}

impl std::error::Error for FieldError {}

/// A value as an error prints it: numbers and flags plain, texts quoted, null as the quoted word, everything else in the
/// syntax of Go, as the genuine server shows it.
fn print_value(value: &Value) -> String {
    match value {
        Value::Null => "\"null\"".to_owned(),
        other => go_syntax(other),
    }
}

fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => quote(text),
        Value::Array(list) => format!("[]interface {{}}{{{}}}", list.iter().map(go_syntax).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let entries: Vec<String> = sorted.into_iter().map(|(key, value)| format!("{}:{}", quote(key), go_syntax(value))).collect();
            format!("map[string]interface {{}}{{{}}}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

/// Quotes a text as Go's `%q` verb does: JSON-like escapes, printable characters as they are.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Joins a parent path and a child name with a dot; the root has no dot.
#[must_use]
pub fn child(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        return name.to_owned();
    }
    // Made for every field of every object that is judged: no formatting machinery.
    let mut path = String::with_capacity(parent.len() + 1 + name.len());
    path.push_str(parent);
    path.push('.');
    path.push_str(name);
    path
}

/// The path of a list item.
#[must_use]
pub fn index(parent: &str, index: usize) -> String {
    format!("{parent}[{index}]")
}

/// The path of a map entry.
#[must_use]
pub fn key(parent: &str, key: &str) -> String {
    format!("{parent}[{key}]")
}

/// Lengthens a path by a child's name for the time of a call: judging an object visits every field, and few paths are ever printed.
pub(crate) fn with_child<R>(path: &mut String, name: &str, call: impl FnOnce(&mut String) -> R) -> R {
    let length = path.len();
    if length > 0 {
        path.push('.');
    }
    path.push_str(name);
    let result = call(path);
    path.truncate(length);
    result
}

/// As [`with_child`], for a list item.
pub(crate) fn with_index<R>(path: &mut String, index: usize, call: impl FnOnce(&mut String) -> R) -> R {
    with_key(path, &index.to_string(), call)
}

/// As [`with_child`], for a map entry.
pub(crate) fn with_key<R>(path: &mut String, key: &str, call: impl FnOnce(&mut String) -> R) -> R {
    let length = path.len();
    path.push('[');
    path.push_str(key);
    path.push(']');
    let result = call(path);
    path.truncate(length);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_print_as_kubernetes_prints_them() {
        for (error, text) in [
            (FieldError::required("spec.a", ""), "spec.a: Required value"),
            (FieldError::required("spec.a", "must be given"), "spec.a: Required value: must be given"),
            (FieldError::invalid("spec.a", "x\"y", "no"), "spec.a: Invalid value: \"x\\\"y\": no"),
            (FieldError::invalid("spec.a", 3, "no"), "spec.a: Invalid value: 3: no"),
            (FieldError::invalid("spec.a", Value::Null, "no"), "spec.a: Invalid value: \"null\": no"),
            (FieldError::type_invalid("spec.a", "string", "no"), "spec.a: Invalid value: \"string\": no"),
            (FieldError::forbidden("spec", "immutable"), "spec: Forbidden: immutable"),
            (
                FieldError::duplicate("spec.l[1]", json!({"type": "A"})),
                "spec.l[1]: Duplicate value: map[string]interface {}{\"type\":\"A\"}",
            ),
            (FieldError::not_supported("spec.a", "c", &["a", "b"]), "spec.a: Unsupported value: \"c\": supported values: \"a\", \"b\""),
            (FieldError::too_long("metadata.name", 63), "metadata.name: Too long: may not be more than 63 bytes"),
            (FieldError::too_many("spec.l", 3, 2), "spec.l: Too many: 3: must have at most 2 items"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
