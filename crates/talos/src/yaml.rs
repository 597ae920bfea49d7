//! YAML as Talos and its tools write it, and reading it.
//!
//! Two layouts exist in the field: the machine's own (four spaces, keys in the order of the structure, lists indented) and the one that
//! a configuration has after a JSON patch (two spaces, keys sorted, lists not indented). Both are written here byte for byte, because a
//! general writer has neither, and because every string that a YAML 1.1 reader would take for something else (`off`, `1e3`, `12:30`)
//! must be quoted whatever the reader's version.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use thiserror::Error;

/// Why a text cannot be read.
#[derive(Debug, Error)]
#[error("not valid YAML: {reason}")]
pub struct YamlError {
    pub reason: String,
}

/// Which of the two layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Four spaces, keys as they come, lists indented.
    Structured,
    /// Two spaces, keys sorted, lists at their key's column.
    Sorted,
}

/// Reads all documents of a text; empty ones are left out.
///
/// # Errors
/// When the text is not YAML.
pub fn read(text: &str) -> Result<Vec<Value>, YamlError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| YamlError { reason: error.to_string() })?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Writes one document, with a newline at the end.
pub fn write(value: &Value, layout: Layout) -> String {
    let mut out = String::new();
    let writer = Writer { layout };
    match value {
        Value::Object(map) if !map.is_empty() => writer.mapping(&mut out, map, 0, false),
        Value::Array(items) if !items.is_empty() => writer.sequence(&mut out, items, 0),
        scalar => {
            writer.scalar(&mut out, scalar, 0);
            out.push('\n');
        }
    }
    out
}

/// Writes several documents with `---` between them.
pub fn write_all(documents: &[Value], layout: Layout) -> String {
    documents.iter().map(|document| write(document, layout)).collect::<Vec<_>>().join("---\n")
}

struct Writer {
    layout: Layout,
}

impl Writer {
    /// The next column: in the structured layout the next multiple of four, as yaml.v3 counts.
    fn deeper(&self, column: usize) -> usize {
        match self.layout {
            Layout::Structured => (column + 4) / 4 * 4,
            Layout::Sorted => column + 2,
        }
    }

    fn mapping(&self, out: &mut String, map: &Map<String, Value>, column: usize, starts_inline: bool) {
        let mut entries: Vec<(&String, &Value)> = map.iter().collect();
        if self.layout == Layout::Sorted {
            entries.sort_by_key(|(key, _)| *key);
        }
        for (index, (key, value)) in entries.into_iter().enumerate() {
            if index > 0 || !starts_inline {
                pad(out, column);
            }
            string(out, key);
            out.push(':');
            match value {
                Value::Object(inner) if !inner.is_empty() => {
                    out.push('\n');
                    self.mapping(out, inner, self.deeper(column), false);
                }
                Value::Array(items) if !items.is_empty() => {
                    out.push('\n');
                    let column = if self.layout == Layout::Sorted { column } else { self.deeper(column) };
                    self.sequence(out, items, column);
                }
                scalar => {
                    out.push(' ');
                    self.scalar(out, scalar, column);
                    out.push('\n');
                }
            }
        }
    }

    fn sequence(&self, out: &mut String, items: &[Value], column: usize) {
        for item in items {
            pad(out, column);
            out.push_str("- ");
            match item {
                Value::Object(map) if !map.is_empty() => self.mapping(out, map, column + 2, true),
                Value::Array(inner) if !inner.is_empty() => {
                    out.truncate(out.len() - 1);
                    out.push('\n');
                    self.sequence(out, inner, column + 2);
                }
                scalar => {
                    self.scalar(out, scalar, column);
                    out.push('\n');
                }
            }
        }
    }

    fn scalar(&self, out: &mut String, value: &Value, column: usize) {
        match value {
            Value::Null => out.push_str("null"),
            Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Value::Number(number) => {
                let _ = write!(out, "{number}");
            }
            Value::String(text) if is_block(text) => self.block(out, text, self.deeper(column)),
            Value::String(text) => string(out, text),
            Value::Array(_) => out.push_str("[]"),
            Value::Object(_) => out.push_str("{}"),
        }
    }

    /// A literal block, without its last newline (the caller writes one).
    fn block(&self, out: &mut String, text: &str, column: usize) {
        let body = text.trim_end_matches('\n');
        let trailing = text.len() - body.len();
        out.push('|');
        out.push_str(match trailing {
            0 => "-",
            1 => "",
            _ => "+",
        });
        for line in body.split('\n') {
            out.push('\n');
            if !line.is_empty() {
                pad(out, column);
                out.push_str(line);
            }
        }
        for _ in 1..trailing {
            out.push('\n');
        }
    }
}

fn pad(out: &mut String, column: usize) {
    out.extend(std::iter::repeat_n(' ', column));
}

/// Whether a text of several lines can stand as a literal block without an indentation indicator.
fn is_block(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| c == '\n' || c == '\t' || (!c.is_control() && c != '\u{feff}' && c != '\u{2028}' && c != '\u{2029}'))
        && !text.lines().any(|line| !line.is_empty() && line.trim().is_empty())
}

fn string(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || c == '\u{feff}' || c == '\u{2028}' || c == '\u{2029}' => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Whether every reader, of YAML 1.1 or 1.2, takes the bare text for this string.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    if text.trim() != text || text.chars().any(|c| c.is_control() || c == '\u{feff}' || c == '\u{2028}' || c == '\u{2029}') {
        return false;
    }
    let is_indicator = "-?:".contains(first) && (text.len() == 1 || text[1..].starts_with(' '));
    if ",[]{}#&*!|>'\"%@`".contains(first) || is_indicator || text.starts_with("---") {
        return false;
    }
    if text.contains(": ") || text.contains(" #") || text.ends_with(':') || text.starts_with("...") {
        return false;
    }
    let lower = text.to_ascii_lowercase();
    let is_word = matches!(
        lower.as_str(),
        "null" | "~" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | ".nan" | ".inf" | "-.inf" | "+.inf" | "<<" | "="
    );
    !(is_word || is_number(&lower) || is_date(text))
}

/// Integers (also hexadecimal, octal, binary), floats, and the sexagesimal numbers of YAML 1.1, with underscores.
fn is_number(lower: &str) -> bool {
    let bare = lower.trim_start_matches(['+', '-']).replace('_', "");
    if let Some(digits) = bare.strip_prefix("0x").or_else(|| bare.strip_prefix("0o")).or_else(|| bare.strip_prefix("0b")) {
        return digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let (mantissa, exponent) = bare.split_once('e').map_or((bare.as_str(), None), |(mantissa, exponent)| (mantissa, Some(exponent)));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if exponent.is_some_and(|exponent| !is_digits(exponent.trim_start_matches(['+', '-']))) {
        return false;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.contains(':') {
        return whole.split(':').all(is_digits) && (fraction.is_empty() || is_digits(fraction));
    }
    !(whole.is_empty() && fraction.is_empty()) && [whole, fraction].into_iter().all(|part| part.is_empty() || is_digits(part))
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(3, '-').collect();
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    matches!(parts[..], [year, month, day] if year.len() == 4 && is_digits(year) && is_digits(month) && day.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["[ -~\\n]{0,24}", "[0-9eE._:xo+-]{1,8}", "[a-zA-Z]{1,5}", "\\PC{0,8}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(text.clone(), inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in any_value()) {
            for layout in [Layout::Structured, Layout::Sorted] {
                let text = write(&value, layout);
                let read: Value = serde_saphyr::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
                prop_assert_eq!(&read, &value, "{}", text);
            }
        }
    }

    #[test]
    fn what_another_reader_would_misread_is_quoted() {
        for text in [
            "",
            "off",
            "No",
            "y",
            "1",
            "-1.5",
            "1e3",
            "0x1f",
            "12:30:45",
            "2026-01-02",
            "~",
            "a: b",
            "a #b",
            " a",
            "- a",
            "<<",
            "1_000",
            ".5",
            "null",
            "@a",
        ] {
            assert_eq!(write(&json!({ "k": text }), Layout::Structured), format!("k: \"{text}\"\n"));
        }
        for text in ["172.16.42.230", "a:b", "10.0.0.0/8", "https://x:6443", "--a", "1.2.3", "v1.4", "d8cwfa.eyvpi0", "0raF=", "-a", "1h0m"]
        {
            assert_eq!(write(&json!({ "k": text }), Layout::Structured), format!("k: {text}\n"));
        }
    }

    #[test]
    fn lists_and_blocks_stand_where_the_two_layouts_put_them() {
        let value = json!({ "b": { "list": [{ "x": 1, "deep": { "z": [true] } }, "s"] }, "a": "one\ntwo\n" });
        assert_eq!(
            write(&value, Layout::Structured),
            "b:\n    list:\n        - x: 1\n          deep:\n            z:\n                - true\n        - s\na: |\n    one\n    two\n"
        );
        assert_eq!(write(&value, Layout::Sorted), "a: |\n  one\n  two\nb:\n  list:\n  - deep:\n      z:\n      - true\n    x: 1\n  - s\n");
    }
}
