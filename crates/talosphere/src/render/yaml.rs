//! YAML as kubectl reads and writes it, document by document, with places in errors.

use serde_json::Value;
use thiserror::Error;

/// A document of a file and the line it begins on (from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    pub text: &'a str,
    pub line: usize,
}

/// Why a text is not YAML, and where in the file.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{reason}")]
pub struct YamlError {
    pub line: usize,
    pub column: usize,
    pub reason: String,
}

/// Splits a stream at its `---` lines (column 1, as YAML has it). Documents without content are left out.
pub fn split(stream: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut start, mut line) = (0, 1);
    let mut offset = 0;
    for (index, text) in stream.split_inclusive('\n').enumerate() {
        let marker = text.trim_end();
        if marker == "---" || marker.starts_with("--- ") || marker == "..." {
            parts.push(Part { text: stream.get(start..offset).unwrap_or_default(), line });
            start = offset + text.len();
            line = index + 2;
        }
        offset += text.len();
    }
    parts.push(Part { text: stream.get(start..).unwrap_or_default(), line });
    parts.retain(|part| part.text.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')));
    parts
}

/// Parses one document that begins on `line` of its file.
///
/// # Errors
/// When the text is not YAML, has a key twice, or has no JSON form.
pub fn parse(text: &str, line: usize) -> Result<Value, YamlError> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        ignore_binary_tag_for_string: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location();
        let at = |number: u64| usize::try_from(number).unwrap_or(1);
        YamlError {
            line: place.map_or(line, |place| line + at(place.line()).saturating_sub(1)),
            column: place.map_or(1, |place| at(place.column())),
            reason: reason(error.without_snippet()),
        }
    })
}

/// The library's reason without its place, which stands in front, and without advice to programmers.
fn reason(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::{DefaultMessageFormatter, Error, MessageFormatter as _};
    match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{key}` is there twice"),
        Error::DuplicateMappingKey { key: None, .. } => "a key is there twice".to_owned(),
        Error::Eof { .. } => "the document ends in the middle of something".to_owned(),
        Error::UnknownAnchor { .. } => "an alias refers to an anchor that does not exist".to_owned(),
        other => {
            let text = DefaultMessageFormatter.format_message(other).into_owned();
            let text = text.split("; use ").next().unwrap_or_default().split(", set ").next().unwrap_or_default();
            text.trim_end_matches('.').to_owned()
        }
    }
}

/// Writes one value as YAML that kubectl reads back as the same value.
///
/// # Errors
/// When the value cannot be written; none is known.
pub fn write(value: &Value) -> Result<String, String> {
    let options = serde_saphyr::ser_options! { compact_list_indent: true, prefer_block_scalars: true, folded_wrap_chars: 1_000_000 };
    serde_saphyr::to_string_with_options(value, options).map_err(|error| error.to_string())
}

/// Writes several values as one stream.
///
/// # Errors
/// As [`write`].
pub fn write_all<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<String, String> {
    let documents: Result<Vec<String>, String> = values.into_iter().map(write).collect();
    Ok(documents?.join("---\n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_know_their_lines() {
        let stream = "---\n# only a comment\n---\na: 1\n---\n\nb: |\n  text\n  --- not a marker\n";
        let parts = split(stream);
        assert_eq!(parts.iter().map(|part| part.line).collect::<Vec<_>>(), [4, 6]);
        assert_eq!(parse(parts[1].text, parts[1].line).unwrap(), json!({"b": "text\n--- not a marker\n"}));
    }

    #[test]
    fn errors_name_the_line_of_the_file() {
        let stream = "a: 1\n---\nb: 2\nc: [1, 2\nd: 3\n";
        let part = &split(stream)[1];
        let error = parse(part.text, part.line).unwrap_err();
        assert!((4..=6).contains(&error.line), "{error:?}");
        let error = parse("a: 1\na: 2\n", 1).unwrap_err();
        assert_eq!((error.line, error.column, error.reason.as_str()), (2, 1, "the key `a` is there twice"));
        for broken in ["a: [1\nb: 2\n", "a: 1\n b: 2\n", "a: \"x\n", "a: *x\n", "a: b: c\n"] {
            let error = parse(broken, 1).unwrap_err();
            let is_plain = !["line", "column", "Options", "DuplicateKeyPolicy", "Option<"].iter().any(|word| error.reason.contains(word));
            assert!(is_plain, "{broken:?}: {error:?}");
        }
    }

    #[test]
    fn scalars_are_read_as_kubectl_reads_them() {
        let read = parse("a: yes\nb: 017\nc: \"yes\"\nd: ~\ne: 1.25.5\nf: 0x10\n", 1).unwrap();
        assert_eq!(read["a"], json!(true));
        assert_eq!(read["c"], json!("yes"));
        assert_eq!(read["d"], Value::Null);
        assert_eq!(read["e"], json!("1.25.5"));
        assert_eq!(read["b"].as_f64(), Some(15.0));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            prop_oneof![
                Just("yes"),
                Just("12345"),
                Just("p#x"),
                Just("a: b"),
                Just("0o7"),
                Just("~"),
                Just("1e3"),
                Just("line\nline\n"),
                Just("- a")
            ]
            .prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z0-9./]{1,8}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in prop::collection::btree_map("[a-z]{1,6}", value(), 1..4)) {
            let value = Value::Object(value.into_iter().collect());
            let text = write(&value).unwrap();
            prop_assert_eq!(parse(&text, 1).unwrap(), value, "{}", text);
        }
    }
}
