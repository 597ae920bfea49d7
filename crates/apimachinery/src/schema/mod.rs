//! Structural schemas: what a CustomResourceDefinition says about its objects.
//!
//! A [`Schema`] is read once from `openAPIV3Schema` and then fills in defaults, drops (and names) unknown fields and
//! judges values, with the words of a genuine kube-apiserver. It understands every keyword that the definitions of
//! Cluster API and its providers use: types, `nullable`, `properties`, `additionalProperties`, `items`, `required`,
//! `enum`, `default`, `pattern`, `format`, limits of length, number, items and properties, `allOf`/`anyOf`/`oneOf`/`not`,
//! and the extensions `x-kubernetes-int-or-string`, `-preserve-unknown-fields`, `-embedded-resource`, `-list-type` and
//! `-list-map-keys`.
//!
//! Rules in CEL (`x-kubernetes-validations`) are carried out as far as [`crate::cel`] understands them; the others are
//! passed over and named by [`Schema::unread_rules`], since network add-ons bring definitions whose rules nobody here can
//! choose. A schema is cheap to clone and shared between servers.

mod defaults;
mod formats;
mod parse;
mod prune;
mod rules;
mod scale;
mod validate;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use regex::Regex;
use serde_json::Value;

use crate::cel::Expression;
use crate::field::{ErrorKind, FieldError};

pub use scale::{scale_spec_errors, scale_status_errors};

/// Why a schema could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema at {path}: {why}")]
pub struct SchemaError {
    /// Where in the schema, as a path of field names.
    pub path: String,
    /// What is wrong.
    pub why: String,
}

/// A structural schema of whole objects.
#[derive(Clone, Debug)]
pub struct Schema {
    root: Arc<Node>,
    unread: Arc<[String]>,
}

impl Schema {
    /// Reads the value of `openAPIV3Schema`.
    ///
    /// # Errors
    /// When a keyword has a value of the wrong type or an unknown one, naming the place.
    pub fn from_openapi(schema: &Value) -> Result<Self, SchemaError> {
        let mut parser = parse::Parser::default();
        let root = parser.node(schema, "openAPIV3Schema")?;
        Ok(Self { root: Arc::new(root), unread: parser.unread.into() })
    }

    /// A schema that knows nothing and keeps everything.
    #[must_use]
    pub fn preserving() -> Self {
        Self { root: Arc::new(Node { preserve_unknown: true, ..Node::default() }), unread: Arc::from([]) }
    }

    /// The rules in CEL that are not carried out, each with its place and the reason.
    #[must_use]
    pub fn unread_rules(&self) -> &[String] {
        &self.unread
    }

    /// Fills in defaults where fields are missing; a null in a field that is not nullable counts as missing.
    pub fn default(&self, object: &mut Value) {
        defaults::apply(&self.root, object);
    }

    /// Removes fields that the schema does not know and returns their paths, sorted: `spec.pausd`, `spec.list[0].x`.
    ///
    /// `apiVersion`, `kind` and the known fields of `metadata` stay.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::apply(&self.root, object)
    }

    /// Judges an object. With `old`, parts that did not change are not judged again (ratcheting), so that an object
    /// stored under a laxer schema can still be edited elsewhere.
    #[must_use]
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        validate::object(&self.root, object, old)
    }

    /// Judges only one top-level field, as an update of the status subresource does.
    #[must_use]
    pub fn validate_field(&self, name: &str, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        validate::field(&self.root, name, object, old)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

#[derive(Clone, Debug, Default)]
enum ListType {
    #[default]
    Atomic,
    Set,
    /// Items are told apart by these keys.
    Map(Vec<String>),
}

#[derive(Debug)]
struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// `None` when the pattern itself is malformed.
    fn matches(&self, text: &str) -> Option<bool> {
        self.compiled.get_or_init(|| Regex::new(&self.text).ok()).as_ref().map(|regex| regex.is_match(text))
    }
}

#[derive(Debug, Default)]
enum Additional {
    /// No word about other fields: unknown ones are pruned.
    #[default]
    Unsaid,
    /// Any field, any value.
    Anything,
    /// Any field, its value under this schema.
    Schema(Box<Node>),
}

/// One place in a schema.
#[derive(Debug, Default)]
struct Node {
    types: Option<Type>,
    nullable: bool,
    int_or_string: bool,
    preserve_unknown: bool,
    embedded_resource: bool,
    properties: BTreeMap<String, Node>,
    additional: Additional,
    items: Option<Box<Node>>,
    list_type: ListType,
    default: Option<Value>,
    rules: Rules,
    /// Whether there is a rule in CEL here or below.
    has_cel: bool,
    /// Whether there is a list here or below whose items must differ.
    has_unique_items: bool,
    /// Whether there is an embedded object here or below.
    has_embedded: bool,
}

/// A rule in CEL.
#[derive(Debug)]
struct CelRule {
    expression: Expression,
    message: Option<String>,
    message_expression: Option<Expression>,
    kind: ErrorKind,
    /// What the error is about, below the value that the rule is on.
    field_path: String,
    /// Whether the rule is on a change, and so asked only when there is an old value.
    is_transition: bool,
}

/// Judgements on a value, whatever its structure.
#[derive(Debug, Default)]
struct Rules {
    required: Vec<String>,
    enumeration: Vec<Value>,
    format: Option<String>,
    pattern: Option<Arc<Pattern>>,
    min_length: Option<u64>,
    max_length: Option<u64>,
    min_items: Option<u64>,
    max_items: Option<u64>,
    unique_items: bool,
    min_properties: Option<u64>,
    max_properties: Option<u64>,
    minimum: Option<Limit>,
    maximum: Option<Limit>,
    multiple_of: Option<f64>,
    all_of: Vec<Node>,
    any_of: Vec<Node>,
    one_of: Vec<Node>,
    not: Option<Box<Node>>,
    cel: Vec<CelRule>,
}

#[derive(Clone, Debug)]
struct Limit {
    number: serde_json::Number,
    exclusive: bool,
}
