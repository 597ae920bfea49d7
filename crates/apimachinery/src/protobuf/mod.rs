//! Request bodies in protobuf, which kubectl from 1.32 on and typed Go clients send for built-in kinds.
//!
//! A body is the four bytes `k8s\0` and a `runtime.Unknown`: the object's apiVersion and kind, and the object itself.
//! Reading is driven by tables of field numbers; the result is the object as JSON, as if it had come so. Answers are
//! always JSON, which every client accepts, so nothing is ever written.
//!
//! Messages have fields that are sent although they are empty; whether such a value is in the object is what the tables
//! say: a `field` is dropped when empty, a `kept` one stays.

mod tables;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use wire::{Reader, Wire};

/// The media type of these bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
/// Messages inside messages; no kind comes near.
const DEPTH_LIMIT: usize = 64;

/// Why a body could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The body does not start with the four bytes of the format.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoFrame,
    /// The body ends in the middle of a field, or a length or tag is impossible.
    #[error("the protobuf message is cut short or damaged at byte {0}")]
    Damaged(usize),
    /// A field has another type on the wire than its kind says.
    #[error("the field {0} of the protobuf message has an unexpected type")]
    WireType(String),
    /// A text is no UTF-8, or a text that must be JSON is not.
    #[error("the field {0} of the protobuf message does not hold valid text")]
    Text(String),
    /// Messages are nested too deep.
    #[error("the protobuf message is nested too deep")]
    Depth,
    /// The kind is not among those that are read in protobuf.
    #[error("no kind {kind:?} is registered for version {api_version:?} in protobuf")]
    Kind {
        /// The body's `apiVersion`.
        api_version: String,
        /// The body's `kind`.
        kind: String,
    },
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Flag,
    Whole,
    Texts,
    /// Base64 in JSON.
    BytesMap,
    Quantities,
    TextLists,
    Quantity,
    IntOrString,
    /// Whole seconds.
    Time,
    /// With microseconds.
    MicroTime,
    /// A JSON document inside of a message.
    Json,
    Message(&'static [Field]),
    /// A message whose fields are those of its parent in JSON.
    Inline(&'static [Field]),
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
struct Field {
    number: u32,
    name: &'static str,
    kind: Kind,
    is_list: bool,
    /// Whether an empty value is in the object.
    keeps_empty: bool,
}

const fn field(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, is_list: false, keeps_empty: false }
}

const fn kept(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, is_list: false, keeps_empty: true }
}

const fn list(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, is_list: true, keeps_empty: false }
}

const fn kept_list(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, is_list: true, keeps_empty: true }
}

const fn inline(number: u32, fields: &'static [Field]) -> Field {
    Field { number, name: "", kind: Kind::Inline(fields), is_list: false, keeps_empty: true }
}

const TYPE_META: &[Field] = &[field(1, "apiVersion", Kind::Text), field(2, "kind", Kind::Text)];

/// Whether a body is in this format.
#[must_use]
pub fn is_frame(body: &[u8]) -> bool {
    body.starts_with(MAGIC)
}

/// Reads a body into the object it holds.
///
/// # Errors
/// When the body is not of this format or damaged, or its kind is not read in protobuf.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let frame = body.strip_prefix(MAGIC).ok_or(ProtobufError::NoFrame)?;
    let (mut type_meta, mut raw) = (Map::new(), &[][..]);
    let mut reader = Reader::new(frame);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (1, Wire::Bytes(bytes)) => type_meta = message(TYPE_META, bytes, 0)?,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let text = |name: &str| type_meta.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let Some(fields) = tables::of(&api_version, &kind) else { return Err(ProtobufError::Kind { api_version, kind }) };
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    object.extend(message(fields, raw, 0)?);
    Ok(Value::Object(object))
}

fn message(fields: &[Field], bytes: &[u8], depth: usize) -> Result<Map<String, Value>, ProtobufError> {
    if depth > DEPTH_LIMIT {
        return Err(ProtobufError::Depth);
    }
    let mut map = Map::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        let Some(field) = fields.iter().find(|field| field.number == number) else { continue };
        match field.kind {
            Kind::Inline(inner) => map.extend(message(inner, wire.bytes(field.name)?, depth + 1)?),
            Kind::Texts | Kind::BytesMap | Kind::Quantities | Kind::TextLists => {
                let (key, value) = entry(field, wire.bytes(field.name)?, depth)?;
                if let Some(entries) = map.entry(field.name).or_insert_with(|| json!({})).as_object_mut() {
                    entries.insert(key, value);
                }
            }
            _ if field.is_list => {
                let value = single(field, wire, depth)?;
                if let Some(items) = map.entry(field.name).or_insert_with(|| json!([])).as_array_mut() {
                    items.push(value);
                }
            }
            _ => {
                let value = single(field, wire, depth)?;
                if field.keeps_empty || !is_empty(&value) {
                    map.insert(field.name.to_owned(), value);
                }
            }
        }
    }
    Ok(map)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn text(field: &Field, bytes: &[u8]) -> Result<String, ProtobufError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ProtobufError::Text(field.name.to_owned()))
}

/// An entry of a map: a message of key and value.
fn entry(field: &Field, bytes: &[u8], depth: usize) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut value) = (String::new(), &[][..]);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        match number {
            1 => key = text(field, wire.bytes(field.name)?)?,
            2 => value = wire.bytes(field.name)?,
            _ => {}
        }
    }
    let value = match field.kind {
        Kind::BytesMap => json!(STANDARD.encode(value)),
        Kind::Quantities => quantity(field, value)?,
        Kind::TextLists => message(&[list(1, "items", Kind::Text)], value, depth + 1)?.shift_remove("items").unwrap_or_else(|| json!([])),
        _ => json!(text(field, value)?),
    };
    Ok((key, value))
}

fn quantity(field: &Field, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        if number == 1 {
            return Ok(json!(text(field, wire.bytes(field.name)?)?));
        }
    }
    Ok(json!("0"))
}

fn single(field: &Field, wire: Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
    Ok(match field.kind {
        Kind::Text => json!(text(field, wire.bytes(field.name)?)?),
        Kind::Flag => json!(wire.number(field.name)? != 0),
        Kind::Whole => json!(wire.number(field.name)?),
        Kind::Quantity => quantity(field, wire.bytes(field.name)?)?,
        Kind::IntOrString => int_or_string(field, wire.bytes(field.name)?)?,
        Kind::Time => time(wire.bytes(field.name)?, 0)?,
        Kind::MicroTime => time(wire.bytes(field.name)?, 6)?,
        Kind::Json => {
            let raw = message(&[field_of_raw()], wire.bytes(field.name)?, depth + 1)?;
            let text = raw.get("raw").and_then(Value::as_str).unwrap_or("null");
            serde_json::from_str(text).map_err(|_| ProtobufError::Text(field.name.to_owned()))?
        }
        Kind::Message(fields) => Value::Object(message(fields, wire.bytes(field.name)?, depth + 1)?),
        Kind::Inline(_) | Kind::Texts | Kind::BytesMap | Kind::Quantities | Kind::TextLists => {
            return Err(ProtobufError::WireType(field.name.to_owned()));
        }
    })
}

const fn field_of_raw() -> Field {
    field(1, "raw", Kind::Text)
}

fn int_or_string(of: &Field, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut words) = (false, 0, String::new());
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.next()? {
        match tag {
            1 => is_text = wire.number(of.name)? == 1,
            2 => number = wire.number(of.name)?,
            3 => words = text(of, wire.bytes(of.name)?)?,
            _ => {}
        }
    }
    Ok(if is_text { json!(words) } else { json!(number) })
}

/// A time of seconds and nanoseconds, in RFC 3339; null for an empty message.
fn time(bytes: &[u8], digits: usize) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanoseconds) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        match number {
            1 => seconds = wire.number("seconds")?,
            2 => nanoseconds = wire.number("nanos")?,
            _ => {}
        }
    }
    let nanoseconds = i32::try_from(nanoseconds).map_err(|_| ProtobufError::WireType("nanos".to_owned()))?;
    let time = Timestamp::new(seconds, nanoseconds).map_err(|_| ProtobufError::WireType("seconds".to_owned()))?;
    Ok(json!(if digits == 0 {
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    } else {
        time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    #[test]
    fn damaged_bodies_are_refused() {
        assert_eq!(decode(b"{}"), Err(ProtobufError::NoFrame));
        assert_eq!(decode(&hex("6b3873000a0f")), Err(ProtobufError::Damaged(2)));
        let unknown = hex("6b3873000a080a027631120250511200");
        assert_eq!(decode(&unknown), Err(ProtobufError::Kind { api_version: "v1".to_owned(), kind: "PQ".to_owned() }));
        // A Namespace whose metadata is a number.
        assert_eq!(decode(&hex("6b3873000a0f0a02763112094e616d65737061636512020801")), Err(ProtobufError::WireType("metadata".to_owned())));
    }

    #[test]
    fn a_cut_body_never_reads_as_whole() {
        let whole = hex("6b3873000a0f0a02763112094e616d657370616365121c0a140a0464656d6f12001a0022002a0032003800420012001a020a001a002200");
        assert_eq!(decode(&whole).unwrap(), json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}));
        for end in 0..whole.len() - 6 {
            assert_ne!(decode(&whole[..end]), decode(&whole), "cut at {end}");
        }
    }

    #[test]
    fn every_kind_of_field_is_read() {
        const FIELDS: &[Field] = &[
            field(1, "quantities", Kind::Quantities),
            field(2, "port", Kind::IntOrString),
            kept(3, "at", Kind::MicroTime),
            kept(4, "replicas", Kind::Whole),
            field(5, "dropped", Kind::Whole),
            list(6, "texts", Kind::Text),
            kept(7, "raw", Kind::Json),
            field(8, "extra", Kind::TextLists),
        ];
        for (body, expected) in [
            ("0a0a0a0363707512030a0132", json!({"quantities": {"cpu": "2"}})),
            ("1207080110001a0178", json!({"port": "x"})),
            ("120408001005", json!({"port": 5})),
            ("1a06080a10e8d40f", json!({"at": "1970-01-01T00:00:10.000256Z"})),
            ("1a00", json!({"at": null})),
            ("2000", json!({"replicas": 0})),
            ("20ffffffffffffffffff01", json!({"replicas": -1})),
            ("2800", json!({})),
            ("320161320162", json!({"texts": ["a", "b"]})),
            ("3a040a027b7d", json!({"raw": {}})),
            ("42080a017812030a0161", json!({"extra": {"x": ["a"]}})),
            ("f80701", json!({})),
        ] {
            assert_eq!(message(FIELDS, &hex(body), 0).map(Value::Object), Ok(expected.clone()), "{body}");
        }
    }
}
