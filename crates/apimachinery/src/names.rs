//! Rules for names, label keys and label values, with the words of Kubernetes for what breaks them.
//!
//! Every function returns all that is wrong, in the order the genuine server finds it; an empty list means valid. The
//! texts go into field errors of `metadata.name` and the like, which tools compare.

const SUBDOMAIN_LIMIT: usize = 253;
const LABEL_LIMIT: usize = 63;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const SUBDOMAIN_REGEX: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const LABEL_REGEX: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const LABEL_1035_REGEX: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const QUALIFIED_REGEX: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const VALUE_REGEX: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";

/// Which rule the names of a kind follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// Dotted lower-case labels, at most 253 characters: most kinds.
    Subdomain,
    /// One lower-case label, at most 63 characters: namespaces.
    Label,
    /// One lower-case label that starts with a letter: services.
    Label1035,
    /// Anything that can stand in a URL path: RBAC kinds.
    PathSegment,
}

impl NameRule {
    /// What is wrong with a name under this rule. A `prefix` is the start of a generated name and may end in a hyphen.
    #[must_use]
    pub fn check(self, name: &str, prefix: bool) -> Vec<String> {
        let masked;
        let name = if prefix && self != Self::PathSegment && name.len() > 1 && name.ends_with('-') {
            masked = format!("{}a", &name[..name.len() - 2]);
            &masked
        } else {
            name
        };
        match self {
            Self::Subdomain => subdomain(name),
            Self::Label => label(name),
            Self::Label1035 => label_1035(name),
            Self::PathSegment => path_segment(name, prefix),
        }
    }
}

fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} characters")
}

fn mismatch(rule: &str, regex: &str, examples: &[&str]) -> String {
    let mut text = format!("{rule} (e.g. ");
    for (i, example) in examples.iter().enumerate() {
        if i > 0 {
            text.push_str(" or ");
        }
        text.push_str(&format!("'{example}', "));
    }
    text.push_str(&format!("regex used for validation is '{regex}')"));
    text
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => inner(first) && inner(last) && bytes.iter().all(|&b| inner(b) || b == b'-'),
        _ => false,
    }
}

/// A DNS subdomain after RFC 1123, as most names must be.
#[must_use]
pub fn subdomain(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > SUBDOMAIN_LIMIT {
        errors.push(too_long(SUBDOMAIN_LIMIT));
    }
    if !text.split('.').all(is_label) {
        errors.push(mismatch(SUBDOMAIN, SUBDOMAIN_REGEX, &["example.com"]));
    }
    errors
}

/// A DNS label after RFC 1123, as the name of a namespace must be.
#[must_use]
pub fn label(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > LABEL_LIMIT {
        errors.push(too_long(LABEL_LIMIT));
    }
    if !is_label(text) {
        errors.push(mismatch(LABEL, LABEL_REGEX, &["my-name", "123-abc"]));
    }
    errors
}

/// A DNS label after RFC 1035, as the name of a service must be.
#[must_use]
pub fn label_1035(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > LABEL_LIMIT {
        errors.push(too_long(LABEL_LIMIT));
    }
    if !is_label(text) || text.as_bytes().first().is_some_and(u8::is_ascii_digit) {
        errors.push(mismatch(LABEL_1035, LABEL_1035_REGEX, &["my-name", "abc-123"]));
    }
    errors
}

/// A text that can be one segment of a URL path.
#[must_use]
pub fn path_segment(text: &str, prefix: bool) -> Vec<String> {
    if !prefix {
        if text == "." {
            return vec!["may not be '.'".to_owned()];
        }
        if text == ".." {
            return vec!["may not be '..'".to_owned()];
        }
    }
    ['/', '%'].iter().filter(|c| text.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

fn is_qualified_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

/// A label or annotation key: a name, with a DNS subdomain and a slash in front or not.
#[must_use]
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let examples = ["MyName", "my.name", "123-abc"];
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")));
            }
            name
        }
        _ => {
            let rule = mismatch(&format!("a qualified name {QUALIFIED}"), QUALIFIED_REGEX, &examples);
            return vec![format!("{rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_LIMIT {
        errors.push(format!("name part {}", too_long(LABEL_LIMIT)));
    }
    if !is_qualified_part(name) {
        errors.push(format!("name part {}", mismatch(QUALIFIED, QUALIFIED_REGEX, &examples)));
    }
    errors
}

/// A label value.
#[must_use]
pub fn label_value(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > LABEL_LIMIT {
        errors.push(too_long(LABEL_LIMIT));
    }
    if !text.is_empty() && !is_qualified_part(text) {
        errors.push(mismatch(VALUE, VALUE_REGEX, &["MyValue", "my_value", "12345"]));
    }
    errors
}

/// A key of a ConfigMap's or a Secret's data.
#[must_use]
pub fn config_key(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > SUBDOMAIN_LIMIT {
        errors.push(too_long(SUBDOMAIN_LIMIT));
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        errors.push(mismatch(CONFIG_KEY, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    } else if text == "." {
        errors.push("must not be '.'".to_owned());
    } else if text == ".." {
        errors.push("must not be '..'".to_owned());
    } else if text.starts_with("..") {
        errors.push("must not start with '..'".to_owned());
    }
    errors
}

/// Longest name that may be asked for with `generateName`; a longer prefix is cut so that the suffix fits in 63 characters.
const GENERATE_LIMIT: usize = 58;

/// The name made of a `generateName` prefix and a random suffix of five characters.
#[must_use]
pub fn generated(prefix: &str, suffix: &str) -> String {
    let mut end = prefix.len().min(GENERATE_LIMIT);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &prefix[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged() {
        for (name, rule, prefix, valid) in [
            ("a", NameRule::Subdomain, false, true),
            ("a.b-c", NameRule::Subdomain, false, true),
            ("a..b", NameRule::Subdomain, false, false),
            ("-a", NameRule::Subdomain, false, false),
            ("", NameRule::Subdomain, false, false),
            ("Bad_Name", NameRule::Subdomain, false, false),
            ("a-", NameRule::Subdomain, false, false),
            ("abc-", NameRule::Subdomain, true, true),
            ("a.b", NameRule::Label, false, false),
            ("1a", NameRule::Label, false, true),
            ("1a", NameRule::Label1035, false, false),
            ("system:node", NameRule::PathSegment, false, true),
            ("a/b", NameRule::PathSegment, false, false),
            ("..", NameRule::PathSegment, false, false),
        ] {
            assert_eq!(rule.check(name, prefix).is_empty(), valid, "{name} under {rule:?}");
        }
        assert!(!subdomain(&"a".repeat(254)).is_empty());
        assert!(label_value("").is_empty());
        assert!(!label_value("a b").is_empty());
        assert!(qualified_name("example.com/My_Name.1").is_empty());
        assert!(!qualified_name("a/b/c").is_empty());
        assert!(!qualified_name("/b").is_empty());
        assert!(config_key("a_B.c").is_empty());
        assert!(!config_key("..a").is_empty());
    }

    #[test]
    fn a_generated_name_fits_in_a_label() {
        assert_eq!(generated("md-", "x7k2p"), "md-x7k2p");
        assert_eq!(generated(&"a".repeat(80), "x7k2p").len(), 63);
    }
}
