//! Tables: how a server prints objects in columns for `kubectl get`.
//!
//! The columns of a custom resource come from its definition (`additionalPrinterColumns`), those of the built-in kinds
//! from [`Columns::builtin`], cell for cell as the genuine server prints them. Ages are texts computed by the server, so
//! the time is handed in.

mod age;
mod builtin;
mod pod;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::gvk::GroupKind;
use crate::jsonpath::{Path, PathError};
use crate::meta;

pub use age::{age, human_duration};

/// What a row carries of its object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// The metadata: the default.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl Include {
    /// Reads the parameter `includeObject`; `None` when the word is unknown.
    #[must_use]
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "Metadata") => Some(Self::Metadata),
            Some("None") => Some(Self::None),
            Some("Object") => Some(Self::Object),
            Some(_) => None,
        }
    }
}

type Cell = fn(&Value, Timestamp) -> Value;

#[derive(Clone, Debug)]
enum Source {
    /// A JSONPath in a custom resource's definition.
    Path(Path),
    /// A built-in kind's own way.
    Cell(Cell),
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    source: Source,
}

impl Column {
    fn built(name: &str, kind: &str, priority: i64, description: &str, cell: Cell) -> Self {
        let format = if name == "Name" { "name" } else { "" };
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            format: format.to_owned(),
            description: description.to_owned(),
            priority,
            source: Source::Cell(cell),
        }
    }

    fn definition(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "format": self.format, "description": self.description, "priority": self.priority})
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        match &self.source {
            Source::Cell(cell) => cell(object, now),
            Source::Path(path) => path.first(object).map_or(Value::Null, |value| custom_cell(&self.kind, value, now)),
        }
    }
}

/// The columns of one kind.
#[derive(Clone, Debug)]
pub struct Columns(Vec<Column>);

impl Columns {
    /// The columns of a custom resource: its name, and what its definition lists, or its age.
    ///
    /// # Errors
    /// When a column's JSONPath is malformed.
    pub fn custom(additional: Option<&Value>) -> Result<Self, PathError> {
        let mut columns = vec![builtin::name()];
        let listed = additional.and_then(Value::as_array).filter(|list| !list.is_empty());
        let Some(listed) = listed else {
            columns.push(Column {
                name: "Age".to_owned(),
                kind: "date".to_owned(),
                format: String::new(),
                description: builtin::AGE.to_owned(),
                priority: 0,
                source: Source::Path(Path::parse(".metadata.creationTimestamp")?),
            });
            return Ok(Self(columns));
        };
        for column in listed {
            let text = |name: &str| column.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let description = match text("description") {
                empty if empty.is_empty() => format!("Custom resource definition column (in JSONPath format): {}", text("jsonPath")),
                given => given,
            };
            columns.push(Column {
                name: text("name"),
                kind: text("type"),
                format: text("format"),
                description,
                priority: column.get("priority").and_then(Value::as_i64).unwrap_or_default(),
                source: Source::Path(Path::parse(&text("jsonPath"))?),
            });
        }
        Ok(Self(columns))
    }

    /// The columns of a built-in kind; for one without columns of its own, name and time of creation.
    #[must_use]
    pub fn builtin(kind: &GroupKind) -> Self {
        Self(builtin::columns(kind))
    }

    /// `columnDefinitions`.
    #[must_use]
    pub fn definitions(&self) -> Value {
        self.0.iter().map(Column::definition).collect()
    }

    /// The cells of one object.
    #[must_use]
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        self.0.iter().map(|column| column.cell(object, now)).collect()
    }

    /// One row.
    #[must_use]
    pub fn row(&self, object: &Value, include: Include, now: Timestamp) -> Value {
        let mut row = Map::new();
        row.insert("cells".to_owned(), Value::Array(self.cells(object, now)));
        match include {
            Include::None => {}
            Include::Metadata => {
                row.insert("object".to_owned(), partial(object));
            }
            Include::Object => {
                row.insert("object".to_owned(), object.clone());
            }
        }
        Value::Object(row)
    }

    /// A whole table. `metadata` is that of the list, or `{"resourceVersion": ...}` for one object.
    pub fn table<'a>(&self, metadata: Value, objects: impl IntoIterator<Item = &'a Value>, include: Include, now: Timestamp) -> Value {
        let rows: Vec<Value> = objects.into_iter().map(|object| self.row(object, include, now)).collect();
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "columnDefinitions": self.definitions(),
            "rows": rows,
        })
    }
}

/// An object's metadata alone.
#[must_use]
pub fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

/// The cell of a custom resource; a value that does not fit its column's type leaves the cell empty.
fn custom_cell(kind: &str, value: &Value, now: Timestamp) -> Value {
    match (kind, value) {
        ("string", Value::String(_)) => value.clone(),
        ("string", Value::Null) => json!("<nil>"),
        ("string", other) => json!(other.to_string()),
        ("integer", Value::Number(number)) => match number.as_i64() {
            Some(whole) => json!(whole),
            None => number.as_f64().map_or(Value::Null, |f| json!(f as i64)),
        },
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => json!(age(text, now)),
        _ => Value::Null,
    }
}

fn text_at<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    meta::at(object, path).and_then(Value::as_str).unwrap_or_default()
}

fn number_at(object: &Value, path: &[&str]) -> i64 {
    meta::at(object, path).and_then(Value::as_i64).unwrap_or_default()
}

fn list_at<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    meta::at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-23T10:20:12Z".parse().unwrap()
    }

    #[test]
    fn custom_columns_print() {
        let columns = Columns::custom(Some(&json!([
            {"name": "Cluster", "type": "string", "jsonPath": ".spec.clusterName", "description": "Cluster"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 10},
            {"name": "Ready", "type": "boolean", "jsonPath": ".status.ready"},
            {"name": "Condition", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
            {"name": "Addresses", "type": "string", "jsonPath": ".spec.addresses"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ])))
        .unwrap();
        let object = json!({
            "metadata": {"name": "n", "creationTimestamp": "2026-11-23T10:13:12Z"},
            "spec": {"clusterName": "c", "replicas": 3, "addresses": ["a", "b"]},
            "status": {"ready": true, "conditions": [{"type": "Ready", "status": "False"}]}});
        assert_eq!(
            columns.cells(&object, now()),
            [json!("n"), json!("c"), json!(3), json!(true), json!("False"), json!("[\"a\",\"b\"]"), json!("7m")]
        );
        let bare = json!({"metadata": {"name": "n"}, "spec": {"replicas": "many"}});
        assert_eq!(columns.cells(&bare, now()), [json!("n"), Value::Null, Value::Null, Value::Null, Value::Null, Value::Null, Value::Null]);
        let table = columns.table(json!({"resourceVersion": "7"}), [&object], Include::Metadata, now());
        assert_eq!(
            table["columnDefinitions"][2],
            json!({"name": "Replicas", "type": "integer", "format": "",
            "description": "Custom resource definition column (in JSONPath format): .spec.replicas", "priority": 10})
        );
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(columns.row(&object, Include::None, now()).get("object"), None);
    }

    #[test]
    fn without_columns_a_custom_resource_shows_its_age() {
        let columns = Columns::custom(None).unwrap();
        let object = json!({"metadata": {"name": "n", "creationTimestamp": "2026-11-23T10:20:02Z"}});
        assert_eq!(columns.cells(&object, now()), [json!("n"), json!("10s")]);
    }

    #[test]
    fn include_object_is_read() {
        assert_eq!(Include::parse(None), Some(Include::Metadata));
        assert_eq!(Include::parse(Some("Object")), Some(Include::Object));
        assert_eq!(Include::parse(Some("Everything")), None);
    }
}
