//! Label and field selectors: parsed, matched and printed as Kubernetes does.
//!
//! The grammar is that of `labelSelector` and `fieldSelector` in a URL: `a=b`, `a==b`, `a!=b`, `a in (b,c)`,
//! `a notin (b,c)`, `a`, `!a`, joined by commas, all of which must hold. An empty selector matches everything; a selector
//! that is absent in an object ([`LabelSelector::from_json`] of null) matches nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::field::quote;
use crate::names;

/// Why a selector could not be read; the text is the server's answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

impl SelectorError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// The label has the one value.
    Equals,
    /// The label is absent or has another value.
    NotEquals,
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label is a whole number above the value.
    GreaterThan,
    /// The label is a whole number below the value.
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How it compares.
    pub operator: Operator,
    /// What it compares with, sorted.
    pub values: BTreeSet<String>,
}

impl Requirement {
    fn new(key: String, operator: Operator, values: BTreeSet<String>) -> Result<Self, SelectorError> {
        check_key(&key)?;
        let name = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return Err(SelectorError::new("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"));
            }
            Operator::GreaterThan | Operator::LessThan => {
                if let Some(value) = values.iter().find(|v| v.parse::<i64>().is_err()) {
                    let text = quote(value);
                    return Err(SelectorError::new(format!(
                        "values[0]: Invalid value: {text}: for 'Gt', 'Lt' operators, the value must be an integer"
                    )));
                }
                &key
            }
            _ => &key,
        };
        for (i, value) in values.iter().enumerate() {
            let errors = names::label_value(value);
            if !errors.is_empty() {
                return Err(SelectorError::new(format!("values[{i}][{name}]: Invalid value: {}: {}", quote(value), errors.join("; "))));
            }
        }
        Ok(Self { key, operator, values })
    }

    /// Whether the labels satisfy the condition.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::Equals | Operator::In => value.is_some_and(|v| self.values.contains(v)),
            Operator::NotEquals | Operator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let (Some(Ok(value)), Some(Ok(limit))) = (value.map(|v| v.parse::<i64>()), self.values.first().map(|v| v.parse::<i64>()))
                else {
                    return false;
                };
                if self.operator == Operator::GreaterThan { value > limit } else { value < limit }
            }
        }
    }
}

fn check_key(key: &str) -> Result<(), SelectorError> {
    let errors = names::qualified_name(key);
    if errors.is_empty() { Ok(()) } else { Err(SelectorError::new(format!("key: Invalid value: {}: {}", quote(key), errors.join("; ")))) }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let mut values = self.values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        if values.is_empty() && matches!(self.operator, Operator::In | Operator::NotIn) {
            // The empty value alone would read as no value.
            values.push(',');
        }
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// Conditions on labels, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Matches every object.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches no object.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Conditions given one by one.
    #[must_use]
    pub fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Every label must have the value given.
    #[must_use]
    pub fn equals(labels: &BTreeMap<String, String>) -> Self {
        let of = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: BTreeSet::from([value.clone()]),
        };
        Self { requirements: labels.iter().map(of).collect(), nothing: false }
    }

    /// Reads the text of a `labelSelector` parameter.
    ///
    /// # Errors
    /// With the words of the genuine server: what was found and what was expected.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let requirements = Parser { tokens: tokens(text), at: 0 }.selector()?;
        Ok(Self::of(requirements))
    }

    /// Reads a selector as objects carry it: `matchLabels` and `matchExpressions`.
    ///
    /// # Errors
    /// When an operator is unknown, a key or value is malformed, or values are missing or superfluous.
    pub fn from_json(selector: &Value) -> Result<Self, SelectorError> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().ok_or_else(|| SelectorError::new(format!("matchLabels[{key}]: must be a string")))?;
            requirements.push(Requirement::new(key.clone(), Operator::In, BTreeSet::from([value.to_owned()]))?);
        }
        // One value prints and matches as an equation.
        for requirement in &mut requirements {
            requirement.operator = Operator::Equals;
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
            let values: BTreeSet<String> = expression
                .get("values")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError::new(format!("{} is not a valid label selector operator", quote(other)))),
            };
            if matches!(operator, Operator::Exists | Operator::DoesNotExist) && !values.is_empty() {
                return Err(SelectorError::new("values: Invalid value: values set must be empty for exists and does not exist"));
            }
            requirements.push(Requirement::new(text("key").to_owned(), operator, values)?);
        }
        Ok(Self::of(requirements))
    }

    /// Whether these labels satisfy every condition.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether every object matches.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// The conditions, by key.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Identifier(String),
    /// One of `! = == != ( ) , < >`.
    Symbol(&'static str),
    Malformed(String),
    End,
}

impl Token {
    fn literal(&self) -> &str {
        match self {
            Self::Identifier(text) | Self::Malformed(text) => text,
            Self::Symbol(text) => text,
            Self::End => "",
        }
    }
}

const SYMBOLS: [&str; 9] = ["!=", "==", "!", "=", "(", ")", ",", "<", ">"];

/// Cuts a selector into tokens; the longest symbol wins.
fn tokens(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', '\r', '\n']);
    while !rest.is_empty() {
        if let Some(symbol) = SYMBOLS.iter().find(|s| rest.starts_with(**s)) {
            out.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
        } else {
            let end = rest.find(|c: char| "=!(),<> \t\r\n".contains(c)).unwrap_or(rest.len());
            out.push(if end == 0 { Token::Malformed(rest.to_owned()) } else { Token::Identifier(rest[..end].to_owned()) });
            rest = if end == 0 { "" } else { &rest[end..] };
        }
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }
    out.push(Token::End);
    out
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Token {
        self.tokens.get(self.at).cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::Identifier(_) | Token::Symbol("!") => {}
                Token::End => return Ok(requirements),
                other => {
                    return Err(SelectorError::new(format!("found '{}', expected: !, identifier, or 'end of string'", other.literal())));
                }
            }
            let requirement =
                self.requirement().map_err(|SelectorError(text)| SelectorError(format!("unable to parse requirement: {text}")))?;
            requirements.push(requirement);
            match self.next() {
                Token::End => return Ok(requirements),
                Token::Symbol(",") => match self.peek() {
                    Token::Identifier(_) | Token::Symbol("!") => {}
                    other => return Err(SelectorError::new(format!("found '{}', expected: identifier after ','", other.literal()))),
                },
                other => return Err(SelectorError::new(format!("found '{}', expected: ',' or 'end of string'", other.literal()))),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = self.peek() == Token::Symbol("!");
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Identifier(key) => key,
            other => return Err(SelectorError::new(format!("found '{}', expected: identifier", other.literal()))),
        };
        check_key(&key)?;
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, BTreeSet::new());
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Requirement::new(key, Operator::Exists, BTreeSet::new());
        }
        let operator = match self.next() {
            Token::Symbol("=" | "==") => Operator::Equals,
            Token::Symbol("!=") => Operator::NotEquals,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            Token::Identifier(word) if word == "in" => Operator::In,
            Token::Identifier(word) if word == "notin" => Operator::NotIn,
            other => return Err(SelectorError::new(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.literal()))),
        };
        let values = if matches!(operator, Operator::In | Operator::NotIn) { self.values()? } else { BTreeSet::from([self.value()?]) };
        Requirement::new(key, operator, values)
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Identifier(text) => {
                self.next();
                Ok(text)
            }
            other => Err(SelectorError::new(format!("found '{}', expected: identifier", other.literal()))),
        }
    }

    /// A list in parentheses; an empty place between commas is the empty value.
    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        match self.next() {
            Token::Symbol("(") => {}
            other => return Err(SelectorError::new(format!("found '{}' expected: '('", other.literal()))),
        }
        let mut values = BTreeSet::new();
        if self.peek() == Token::Symbol(")") {
            self.next();
            return Ok(values);
        }
        loop {
            let value = match self.peek() {
                Token::Identifier(text) => {
                    self.next();
                    text
                }
                Token::Symbol("," | ")") => String::new(),
                other => return Err(SelectorError::new(format!("found '{}', expected: ',', ')' or identifier", other.literal()))),
            };
            values.insert(value);
            match self.next() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => return Ok(values),
                other => return Err(SelectorError::new(format!("found '{}', expected: ',' or ')'", other.literal()))),
            }
        }
    }
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// Dotted name of the field, such as `metadata.name`.
    pub field: String,
    /// Whether the field must differ from the value.
    pub negated: bool,
    /// The value.
    pub value: String,
}

/// Conditions on fields, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Reads the text of a `fieldSelector` parameter. In values, a backslash escapes a comma, an equals sign or itself.
    ///
    /// # Errors
    /// When a term is no equation or an escape is unknown.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let not_understood = || SelectorError::new(format!("invalid selector: {}; can't understand {}", quote(text), quote(part)));
            let (field, negated, value) = split_term(part).ok_or_else(not_understood)?;
            terms.push(FieldTerm { field: field.to_owned(), negated, value: unescape(value)? });
        }
        Ok(Self { terms })
    }

    /// Whether an object satisfies every condition; `field` gives a field's value, `None` where it is absent.
    pub fn matches(&self, mut field: impl FnMut(&str) -> Option<String>) -> bool {
        self.terms.iter().all(|term| (field(&term.field).unwrap_or_default() == term.value) != term.negated)
    }

    /// The conditions, in the order given.
    #[must_use]
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The value that a field must equal, where the selector demands one.
    #[must_use]
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| !term.negated && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether every object matches.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let operator = if term.negated { "!=" } else { "=" };
            write!(f, "{comma}{}{operator}{}", term.field, escape(&term.value))?;
        }
        Ok(())
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (at, _) in term.char_indices() {
        for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
            if let Some(value) = term[at..].strip_prefix(operator) {
                return Some((&term[..at], negated, value));
            }
        }
    }
    None
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(SelectorError::new(format!("invalid field selector: invalid escape sequence: \\{c}"))),
                None => return Err(SelectorError::new("invalid field selector: invalid escape sequence: \\")),
            },
            ',' | '=' => return Err(SelectorError::new(format!("invalid field selector: unescaped character in value: '{c}'"))),
            c => out.push(c),
        }
    }
    Ok(out)
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn label_selectors_match() {
        let object = labels(&[("a", "1"), ("b", "x"), ("e", "")]);
        for (text, expected) in [
            ("", true),
            ("a=1", true),
            ("a==1", true),
            ("a = 2", false),
            ("a!=2", true),
            ("c!=2", true),
            ("a in (1,2)", true),
            ("a notin (1, 2)", false),
            ("c notin (1)", true),
            ("c in (1)", false),
            ("a", true),
            ("!a", false),
            ("!c", true),
            ("e=", true),
            ("e in (,1)", true),
            ("a=1,b=x", true),
            ("a=1,b=y", false),
            ("a>0", true),
            ("a<1", false),
            ("b>0", false),
            ("in=x", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&object), expected, "{text}");
        }
    }

    #[test]
    fn malformed_label_selectors_say_what_was_expected() {
        for (text, message) in [
            ("==", "found '==', expected: !, identifier, or 'end of string'"),
            ("a=1,", "found '', expected: identifier after ','"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in 1", "unable to parse requirement: found '1' expected: '('"),
            ("a=1 b", "found 'b', expected: ',' or 'end of string'"),
            ("a in ()", "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn selectors_of_objects_match() {
        let object = labels(&[("a", "1")]);
        for (selector, expected) in [
            (Value::Null, false),
            (json!({}), true),
            (json!({"matchLabels": {"a": "1"}}), true),
            (json!({"matchLabels": {"a": "2"}}), false),
            (json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}), true),
            (json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}), false),
        ] {
            assert_eq!(LabelSelector::from_json(&selector).unwrap().matches(&object), expected, "{selector}");
        }
        assert!(LabelSelector::from_json(&json!({"matchExpressions": [{"key": "a", "operator": "Near"}]})).is_err());
        assert!(LabelSelector::from_json(&json!({"matchExpressions": [{"key": "a", "operator": "In"}]})).is_err());
    }

    #[test]
    fn field_selectors_match_and_print() {
        let object = |field: &str| match field {
            "metadata.name" => Some("a,b".to_owned()),
            "spec.nodeName" => Some("n".to_owned()),
            _ => None,
        };
        for (text, expected) in [
            ("", true),
            ("metadata.name=a\\,b", true),
            ("metadata.name==a\\,b,spec.nodeName!=m", true),
            ("spec.nodeName!=n", false),
            ("status.phase=", true),
        ] {
            let selector = FieldSelector::parse(text).unwrap();
            assert_eq!(selector.matches(object), expected, "{text}");
            assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
        }
        assert_eq!(FieldSelector::parse("a").unwrap_err().to_string(), "invalid selector: \"a\"; can't understand \"a\"");
        assert!(FieldSelector::parse("a=\\x").is_err());
    }
}
