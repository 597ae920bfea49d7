//! The substitution grammar of `clusterctl generate` (drone/envsubst): `${V}`, defaults, case, substrings, removal, replacement, length.
//!
//! A text is parsed into pieces once; evaluating them asks for variables by name. `$${` stands for a literal `${`; a `$` that opens no
//! brace is a `$`. Spaces around a name (`${ V }`) are accepted, as clusterctl accepts them.

use thiserror::Error;

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Expression(Expression),
}

/// One `${...}`, where its `$` stands and where it ends (byte offsets into the text).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    pub name: String,
    pub operation: Operation,
    pub offset: usize,
    pub end: usize,
}

/// What is done with the variable's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Value,
    Length,
    UpperFirst,
    UpperAll,
    LowerFirst,
    LowerAll,
    Substring {
        start: usize,
        length: Option<usize>,
    },
    /// `-`, `=`, `:-`, `:=`: another text when the variable is unset (with the colon also when it is empty).
    Default {
        text: Vec<Piece>,
        even_if_empty: bool,
    },
    RemovePrefix {
        pattern: Vec<Piece>,
        longest: bool,
    },
    RemoveSuffix {
        pattern: Vec<Piece>,
        longest: bool,
    },
    Replace {
        pattern: Vec<Piece>,
        with: Vec<Piece>,
        scope: Scope,
    },
}

/// Which occurrences are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    First,
    All,
    Prefix,
    Suffix,
}

/// Why a text cannot be parsed, and at which byte.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{reason}")]
pub struct SyntaxError {
    pub reason: String,
    pub offset: usize,
}

/// Splits a text into pieces.
///
/// # Errors
/// When an expression has no name, no closing brace or an operation that the grammar does not have.
pub fn parse(text: &str) -> Result<Vec<Piece>, SyntaxError> {
    Parser { text, at: 0 }.pieces(&[])
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest().chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn error<T>(&self, offset: usize, reason: impl Into<String>) -> Result<T, SyntaxError> {
        Err(SyntaxError { reason: reason.into(), offset })
    }

    /// Pieces up to (not including) one of `ends`, or the end of the text when there are none.
    fn pieces(&mut self, ends: &[char]) -> Result<Vec<Piece>, SyntaxError> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        loop {
            match self.rest().chars().next() {
                None => break,
                Some(end) if ends.contains(&end) => break,
                _ => {}
            }
            if self.take("$$") {
                text.push('$');
            } else if self.rest().starts_with("${") {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(Piece::Expression(self.expression()?));
            } else if ends.contains(&'/') && self.take("\\/") {
                text.push('/');
            } else if !ends.is_empty() && self.take("\\\\") {
                text.push('\\');
            } else if let Some(next) = self.next() {
                text.push(next);
            }
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok(pieces)
    }

    fn expression(&mut self) -> Result<Expression, SyntaxError> {
        let offset = self.at;
        self.at += 2;
        self.blanks();
        let is_length = self.take("#");
        let name = self.name();
        if name.is_empty() {
            return self.error(offset, "`${` is not followed by a variable's name");
        }
        self.blanks();
        let unclosed = format!("`${{{name}` has no closing brace");
        // What follows on the same line could be an operation; a line end or a quote cannot.
        if self.rest().is_empty() || self.rest().starts_with(['\n', '\r', '"', '\'']) {
            return self.error(offset, unclosed);
        }
        let operation = if is_length { Operation::Length } else { self.operation(&name, offset)? };
        self.blanks();
        if self.take("}") {
            return Ok(Expression { name, operation, offset, end: self.at });
        }
        match self.rest().chars().next() {
            None | Some('\n' | '\r' | '"' | '\'') => self.error(offset, unclosed),
            Some(other) => self.error(offset, format!("`${{{name}` is followed by `{other}` where its closing brace is expected")),
        }
    }

    fn blanks(&mut self) {
        while self.take(" ") {}
    }

    fn name(&mut self) -> String {
        let name: String = self.rest().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        self.at += name.len();
        name
    }

    fn operation(&mut self, name: &str, offset: usize) -> Result<Operation, SyntaxError> {
        if self.rest().starts_with('}') {
            return Ok(Operation::Value);
        }
        for (mark, even_if_empty) in [(":=", true), (":-", true), ("=", false), ("-", false)] {
            if self.take(mark) {
                return Ok(Operation::Default { text: self.pieces(&['}'])?, even_if_empty });
            }
        }
        for (mark, operation) in
            [("^^", Operation::UpperAll), ("^", Operation::UpperFirst), (",,", Operation::LowerAll), (",", Operation::LowerFirst)]
        {
            if self.take(mark) {
                return Ok(operation);
            }
        }
        for (mark, longest) in [("##", true), ("#", false)] {
            if self.take(mark) {
                return Ok(Operation::RemovePrefix { pattern: self.pieces(&['}'])?, longest });
            }
        }
        for (mark, longest) in [("%%", true), ("%", false)] {
            if self.take(mark) {
                return Ok(Operation::RemoveSuffix { pattern: self.pieces(&['}'])?, longest });
            }
        }
        for (mark, scope) in [("//", Scope::All), ("/#", Scope::Prefix), ("/%", Scope::Suffix), ("/", Scope::First)] {
            if self.take(mark) {
                let pattern = self.pieces(&['/', '}'])?;
                let with = if self.take("/") { self.pieces(&['}'])? } else { Vec::new() };
                return Ok(Operation::Replace { pattern, with, scope });
            }
        }
        if self.take(":") {
            let start = self.number(offset)?;
            let length = if self.take(":") { Some(self.number(offset)?) } else { None };
            return Ok(Operation::Substring { start, length });
        }
        let word: String = self.rest().chars().take_while(|c| !c.is_whitespace() && *c != '}').take(3).collect();
        self.error(offset, format!("`${{{name}` is followed by `{word}`, which is no operation (a forgotten closing brace?)"))
    }

    fn number(&mut self, offset: usize) -> Result<usize, SyntaxError> {
        self.blanks();
        let digits: String = self.rest().chars().take_while(char::is_ascii_digit).collect();
        self.at += digits.len();
        digits.parse().or_else(|_| self.error(offset, "a substring's position is not a number"))
    }
}

/// Looks variables up; notes those that have no value.
pub trait Variables {
    /// The value of a variable, if it has one.
    fn value(&mut self, name: &str) -> Option<String>;
    /// Called when an expression without default uses a variable without value.
    fn missing(&mut self, expression: &Expression);
    /// Called when an expression's default is used.
    fn defaulted(&mut self, _expression: &Expression, _value: &str) {}
}

/// The text that `pieces` stand for. A missing variable is noted and stands for nothing.
pub fn evaluate(pieces: &[Piece], variables: &mut dyn Variables) -> String {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Expression(expression) => evaluate_expression(expression, variables),
        })
        .collect()
}

/// The text that one expression stands for.
pub fn evaluate_expression(expression: &Expression, variables: &mut dyn Variables) -> String {
    let value = variables.value(&expression.name);
    if let Operation::Default { text, even_if_empty } = &expression.operation {
        return match value {
            Some(value) if !(*even_if_empty && value.is_empty()) => value,
            _ => {
                let default = evaluate(text, variables);
                variables.defaulted(expression, &default);
                default
            }
        };
    }
    let Some(value) = value else {
        variables.missing(expression);
        return String::new();
    };
    match &expression.operation {
        Operation::Value | Operation::Default { .. } => value,
        Operation::Length => value.chars().count().to_string(),
        Operation::UpperFirst => first(&value, |c| c.to_uppercase().collect()),
        Operation::UpperAll => value.to_uppercase(),
        Operation::LowerFirst => first(&value, |c| c.to_lowercase().collect()),
        Operation::LowerAll => value.to_lowercase(),
        Operation::Substring { start, length } => value.chars().skip(*start).take(length.unwrap_or(usize::MAX)).collect(),
        Operation::RemovePrefix { pattern, longest } => {
            let pattern = evaluate(pattern, variables);
            remove_prefix(&value, &pattern, *longest)
        }
        Operation::RemoveSuffix { pattern, longest } => {
            let pattern = evaluate(pattern, variables);
            remove_suffix(&value, &pattern, *longest)
        }
        Operation::Replace { pattern, with, scope } => {
            let pattern = evaluate(pattern, variables);
            let with = evaluate(with, variables);
            match scope {
                Scope::All if !pattern.is_empty() => value.replace(&pattern, &with),
                Scope::First if !pattern.is_empty() => value.replacen(&pattern, &with, 1),
                Scope::Prefix => value.strip_prefix(&pattern).map_or(value.clone(), |rest| format!("{with}{rest}")),
                Scope::Suffix => value.strip_suffix(&pattern).map_or(value.clone(), |rest| format!("{rest}{with}")),
                Scope::All | Scope::First => value,
            }
        }
    }
}

fn first(value: &str, change: impl Fn(char) -> String) -> String {
    let mut characters = value.chars();
    characters.next().map_or_else(String::new, |head| format!("{}{}", change(head), characters.as_str()))
}

fn remove_prefix(value: &str, pattern: &str, longest: bool) -> String {
    let mut ends: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    if longest {
        ends.reverse();
    }
    let end = ends.into_iter().find(|end| value.get(..*end).is_some_and(|head| matches_glob(pattern, head)));
    end.and_then(|end| value.get(end..)).unwrap_or(value).to_owned()
}

fn remove_suffix(value: &str, pattern: &str, longest: bool) -> String {
    let mut starts: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    if !longest {
        starts.reverse();
    }
    let start = starts.into_iter().find(|start| value.get(*start..).is_some_and(|tail| matches_glob(pattern, tail)));
    start.and_then(|start| value.get(..start)).unwrap_or(value).to_owned()
}

/// Shell patterns with `*` and `?`.
fn matches_glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // reachable[j]: the pattern so far matches the first j characters.
    let mut reachable = vec![false; text.len() + 1];
    if let Some(start) = reachable.first_mut() {
        *start = true;
    }
    for symbol in pattern {
        let mut next = vec![false; text.len() + 1];
        for j in 0..=text.len() {
            let here = reachable.get(j).copied().unwrap_or(false);
            let before = j > 0 && reachable.get(j - 1).copied().unwrap_or(false);
            let matched = match symbol {
                '*' => here || (j > 0 && next.get(j - 1).copied().unwrap_or(false)),
                '?' => before,
                literal => before && text.get(j - 1) == Some(&literal),
            };
            if let Some(slot) = next.get_mut(j) {
                *slot = matched;
            }
        }
        reachable = next;
    }
    reachable.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    struct Table<'a>(&'a BTreeMap<&'a str, &'a str>, Vec<String>);

    impl Variables for Table<'_> {
        fn value(&mut self, name: &str) -> Option<String> {
            self.0.get(name).map(|value| (*value).to_owned())
        }
        fn missing(&mut self, expression: &Expression) {
            self.1.push(expression.name.clone());
        }
    }

    fn expand(text: &str, variables: &[(&str, &str)]) -> (String, Vec<String>) {
        let map = variables.iter().copied().collect();
        let mut table = Table(&map, Vec::new());
        let text = evaluate(&parse(text).unwrap(), &mut table);
        (text, table.1)
    }

    #[test]
    fn every_form_of_the_grammar() {
        let v = [("V", "abcABCabc"), ("E", ""), ("P", "/path/to/file"), ("F", "bash.string.txt"), ("D", "dflt")];
        for (text, expected) in [
            ("plain $V text", "plain $V text"),
            ("${V}", "abcABCabc"),
            ("a${ V }b", "aabcABCabcb"),
            ("${#V}", "9"),
            ("${V^}", "AbcABCabc"),
            ("${V^^}", "ABCABCABC"),
            ("${V,,}", "abcabcabc"),
            ("${V:3}", "ABCabc"),
            ("${V:3:3}", "ABC"),
            ("${V:20}", ""),
            ("${U-x}", "x"),
            ("${U=x}", "x"),
            ("${E-x}", ""),
            ("${E:-x}", "x"),
            ("${E:=x}", "x"),
            ("${U:=pre${D}-suf}", "predflt-suf"),
            ("${U:=${W:=deep}}", "deep"),
            ("${U:=}", ""),
            ("${P#*/}", "path/to/file"),
            ("${P##*/}", "file"),
            ("${F%.*}", "bash.string"),
            ("${F%%.*}", "bash"),
            ("${F#?ash.}", "string.txt"),
            ("${V/abc/x}", "xABCabc"),
            ("${V//abc/x}", "xABCx"),
            ("${V/#abc/x}", "xABCabc"),
            ("${V/%abc/x}", "abcABCx"),
            ("${P//\\//-}", "-path-to-file"),
            ("${F/./}", "bashstring.txt"),
            ("$${V}", "${V}"),
            ("\\\\kept ${D}", "\\\\kept dflt"),
        ] {
            assert_eq!(expand(text, &v), (expected.to_owned(), vec![]), "{text}");
        }
    }

    #[test]
    fn missing_variables_are_noted_once_each_time_and_malformed_ones_are_refused() {
        assert_eq!(expand("${A} ${B:-x} ${A}", &[]), (" x ".to_owned(), vec!["A".to_owned(), "A".to_owned()]));
        for (text, offset) in [("x ${", 2), ("${}", 0), ("a${V", 1), ("${V!}", 0), ("${V:x}", 0), ("${V+x}", 0)] {
            assert_eq!(parse(text).unwrap_err().offset, offset, "{text}");
        }
        for text in ["a: ${A\nb: 1\n", "a: \"${A\"\n", "a: ${A", "a: ${A:=x", "a: ${A^\nb"] {
            assert_eq!(parse(text).unwrap_err().reason, "`${A` has no closing brace", "{text}");
        }
        assert!(parse("${V+x}").unwrap_err().reason.contains("`+x`"));
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_is_itself(text in "[^$]{0,60}") {
            prop_assert_eq!(expand(&text, &[]).0, text);
        }

        #[test]
        fn a_value_arrives_as_it_is(value in "\\PC{0,40}") {
            let (text, missing) = expand("<${V}>", &[("V", value.as_str())]);
            prop_assert!(missing.is_empty());
            prop_assert_eq!(text, format!("<{value}>"));
        }

        #[test]
        fn parsing_never_fails_badly(text in "[${}VUa:/#%^,\\-=*0-9 ]{0,40}") {
            if let Ok(pieces) = parse(&text) {
                let map = BTreeMap::from([("V", "value")]);
                let _ = evaluate(&pieces, &mut Table(&map, Vec::new()));
            }
        }
    }
}
