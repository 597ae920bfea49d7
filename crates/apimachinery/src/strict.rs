//! Reads JSON and names the fields that are given twice.
//!
//! JSON leaves open what a repeated key means; the last one counts here, as in Go. A server that is asked to be strict
//! refuses such a body, so the paths of the repetitions are part of the answer.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::field::{child, index};

/// A document and the paths of the fields that it gives more than once, sorted.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The document; of a repeated field, the last value.
    pub value: Value,
    /// Paths such as `spec.paused` or `spec.list[0].name`.
    pub duplicates: Vec<String>,
}

/// Reads one JSON document.
///
/// # Errors
/// When it is not JSON or more follows after it.
pub fn parse(bytes: &[u8]) -> Result<Document, serde_json::Error> {
    let mut duplicates = BTreeSet::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Seed { path: String::new(), duplicates: &mut duplicates }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Document { value, duplicates: duplicates.into_iter().collect() })
}

struct Seed<'a> {
    path: String,
    duplicates: &'a mut BTreeSet<String>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = access.next_element_seed(Seed { path: index(&self.path, list.len()), duplicates: &mut *self.duplicates })? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let path = child(&self.path, &key);
            let value = access.next_value_seed(Seed { path: path.clone(), duplicates: &mut *self.duplicates })?;
            if map.insert(key, value).is_some() {
                self.duplicates.insert(path);
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn repeated_fields_are_named() {
        let document = parse(br#"{"a": 1, "spec": {"x": 1, "l": [{"n": 1, "n": 2}], "x": -2.5}, "a": null}"#).unwrap();
        assert_eq!(document.value, json!({"a": null, "spec": {"x": -2.5, "l": [{"n": 2}]}}));
        assert_eq!(document.duplicates, ["a", "spec.l[0].n", "spec.x"]);
    }

    #[test]
    fn anything_else_reads_as_usual() {
        let text = r#"{"big": 18446744073709551615, "neg": -9223372036854775808, "f": 1.5, "t": "é\n", "n": null, "b": [true, false]}"#;
        let document = parse(text.as_bytes()).unwrap();
        assert_eq!(document.value, serde_json::from_str::<Value>(text).unwrap());
        assert!(document.duplicates.is_empty());
        for broken in ["{", "{} x", "", "{\"a\" 1}"] {
            assert!(parse(broken.as_bytes()).is_err(), "{broken}");
        }
    }
}
