//! Templates and values to manifests, compatible with `clusterctl generate`, but typed.
//!
//! clusterctl substitutes text and parses the result, so that a password `12345` becomes a number and `p #x` loses its end. Here the
//! template is parsed first, with a token in the place of each expression, and each value is put into its scalar afterwards: where
//! the schema says string it arrives as it is, elsewhere it must have the schema's type. A template that is YAML only after
//! substitution (an expression that stands for a block) is substituted as text, as clusterctl does.

pub mod expression;
pub mod fields;
pub mod values;
pub mod yaml;

use std::collections::BTreeMap;

use apimachinery::meta;
use serde_json::Value;

use self::expression::{Expression, Piece, Variables, evaluate, evaluate_expression, parse};
use self::fields::{FieldType, FieldTypes};
use self::values::{Source, Values};
use crate::problem::{Code, Problem};

/// One object of a rendered file and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    pub object: Value,
    pub file: String,
    pub line: usize,
}

impl Manifest {
    /// `apiVersion`.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`, when it is given.
    pub fn namespace(&self) -> Option<&str> {
        self.object.pointer("/metadata/namespace").and_then(Value::as_str).filter(|namespace| !namespace.is_empty())
    }

    fn text(&self, pointer: &str) -> &str {
        meta::text_at(&self.object, pointer)
    }

    /// `file:line (Kind name)`.
    pub fn place(&self) -> String {
        let generated = self.text("/metadata/generateName");
        let name = if self.name().is_empty() { format!("{generated}...") } else { self.name().to_owned() };
        format!("{}:{} ({} {name})", self.file, self.line, self.kind())
    }
}

/// A variable that was used, its value and where that came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    pub name: String,
    pub value: String,
    pub source: Source,
}

/// The outcome of rendering.
#[derive(Clone, Debug, Default)]
pub struct Rendered {
    pub manifests: Vec<Manifest>,
    /// By name.
    pub used: Vec<Used>,
}

/// Renders files (path, content) in order.
///
/// # Errors
/// One problem for the first malformed document, else one that names every variable without value, or every value that does not fit.
pub fn render(files: &[(String, String)], values: &Values, types: &dyn FieldTypes) -> Result<Rendered, Problem> {
    let mut state = State { values, types, used: BTreeMap::new(), missing: Vec::new(), unfit: Vec::new() };
    let mut documents = Vec::new();
    for (file, content) in files {
        for part in yaml::split(content) {
            documents.push((state.document(file, part.text, part.line)?, file, part.line));
        }
    }
    if let Some(problem) = state.missing_problem() {
        return Err(problem);
    }
    if let Some(problem) = state.unfit_problem() {
        return Err(problem);
    }
    let mut manifests = Vec::new();
    for (value, file, line) in documents {
        flatten(value, file, line, &mut manifests)?;
    }
    crate::names::manifests(&manifests)?;
    let used = state.used.into_iter().map(|(name, (value, source))| Used { name, value, source }).collect();
    Ok(Rendered { manifests, used })
}

/// Puts the objects of a document, a List's items one by one, behind the others.
fn flatten(value: Value, file: &str, line: usize, manifests: &mut Vec<Manifest>) -> Result<(), Problem> {
    if value.is_null() {
        return Ok(());
    }
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let is_list = text("/kind").is_some_and(|kind| kind.ends_with("List")) && value.get("items").is_some_and(Value::is_array);
    if is_list {
        let Value::Object(mut list) = value else { return Ok(()) };
        if let Some(Value::Array(items)) = list.remove("items") {
            for item in items {
                flatten(item, file, line, manifests)?;
            }
        }
        return Ok(());
    }
    let untexted = ["/apiVersion", "/kind", "/metadata/name"]
        .into_iter()
        .find(|pointer| value.pointer(pointer).is_some_and(|found| found.is_number() || found.is_boolean()));
    if let Some(field) = untexted.map(|pointer| pointer.trim_start_matches('/').replace('/', ".")) {
        return Err(Problem::new(Code::NotAnObject, format!("the {field} of the document at {file}:{line} is not text"))
            .because("YAML reads such a word as a number, or as true or false")
            .remedy("put it in quotes"));
    }
    let lacking: Vec<&str> = ["/apiVersion", "/kind"].into_iter().filter(|pointer| text(pointer).is_none()).collect();
    if !lacking.is_empty() || (text("/metadata/name").is_none() && text("/metadata/generateName").is_none()) {
        let lacking = if lacking.is_empty() { "metadata.name".to_owned() } else { lacking.join(", ").replace('/', "") };
        return Err(Problem::new(
            Code::NotAnObject,
            format!("the document at {file}:{line} is not a Kubernetes object: it has no {lacking}"),
        )
        .remedy(format!("add {lacking}, or take the document out of the files")));
    }
    manifests.push(Manifest { object: value, file: file.to_owned(), line });
    Ok(())
}

struct Missing {
    name: String,
    place: String,
    object: String,
}

struct State<'a> {
    values: &'a Values,
    types: &'a dyn FieldTypes,
    used: BTreeMap<String, (String, Source)>,
    missing: Vec<Missing>,
    unfit: Vec<String>,
}

/// What is known of a document while its scalars are filled.
struct Document<'a> {
    file: &'a str,
    text: &'a str,
    line: usize,
    /// Where each line of the text begins.
    starts: Vec<usize>,
    prefix: String,
    expressions: Vec<Expression>,
    object: String,
}

/// Where each line of a text begins.
fn starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

impl<'a> Document<'a> {
    fn new(file: &'a str, text: &'a str, line: usize) -> Self {
        Self { file, text, line, starts: starts(text), prefix: String::new(), expressions: Vec::new(), object: String::new() }
    }

    fn place(&self, offset: usize) -> (usize, usize) {
        let index = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = self.starts.get(index).copied().unwrap_or_default();
        let column = self.text.get(start..offset).unwrap_or_default().chars().count() + 1;
        (self.line + index, column)
    }

    /// The place in the template of a place in the text with tokens: tokens are not as long as what they stand for. `tokens` says where
    /// each token begins and ends.
    fn original(&self, line: usize, column: usize, shown: &str, tokens: &[(usize, usize)]) -> (usize, usize) {
        let starts = starts(shown);
        let Some(start) = starts.get(line.saturating_sub(self.line)) else { return (line, column) };
        let within = shown.get(*start..).unwrap_or_default().char_indices().nth(column.saturating_sub(1)).map_or(0, |(at, _)| at);
        let at = start + within;
        let before = tokens.partition_point(|(begin, _)| *begin <= at);
        let Some((token, expression)) = before.checked_sub(1).and_then(|last| Some((tokens.get(last)?, self.expressions.get(last)?)))
        else {
            return self.place(at);
        };
        // Inside a token: where the expression begins.
        self.place(if at < token.1 { expression.offset } else { expression.end + (at - token.1) })
    }

    /// A text with the expressions as they stand in the template.
    fn written(&self, text: &str) -> String {
        let written = |index| {
            let expression: Option<&Expression> = self.expressions.get(index);
            expression.and_then(|expression| self.text.get(expression.offset..expression.end)).unwrap_or_default()
        };
        self.pieces(text).into_iter().map(|piece| piece.unwrap_or_else(written)).collect()
    }

    /// Whether the expression stands inside quotes: an odd number of them opens on its line before it.
    fn is_quoted(&self, expression: &Expression) -> bool {
        let before = self.text.get(..expression.offset).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        let mut open = None;
        for c in line.chars() {
            match (c, open) {
                ('"' | '\'', None) => open = Some(c),
                (c, Some(quote)) if c == quote => open = None,
                _ => {}
            }
        }
        open.is_some()
    }

    /// The pieces of a scalar of the parsed template: text, and indices of expressions.
    fn pieces<'s>(&self, scalar: &'s str) -> Vec<Result<&'s str, usize>> {
        let mut pieces = Vec::new();
        let mut rest = scalar;
        while let Some(start) = rest.find(&self.prefix) {
            let tail = rest.get(start + self.prefix.len()..).unwrap_or_default();
            let Some(end) = tail.find('X') else { break };
            let Ok(index) = tail.get(..end).unwrap_or_default().parse() else { break };
            pieces.push(Ok(rest.get(..start).unwrap_or_default()));
            pieces.push(Err(index));
            rest = tail.get(end + 1..).unwrap_or_default();
        }
        pieces.push(Ok(rest));
        pieces
    }
}

struct Lookup<'s, 'v> {
    state: &'s mut State<'v>,
    place: String,
    object: String,
}

impl Variables for Lookup<'_, '_> {
    fn value(&mut self, name: &str) -> Option<String> {
        let value = self.state.values.get(name)?;
        self.state.used.insert(name.to_owned(), (value.text.clone(), value.source));
        Some(value.text)
    }

    fn missing(&mut self, expression: &Expression) {
        let missing = Missing { name: expression.name.clone(), place: self.place.clone(), object: self.object.clone() };
        self.state.missing.push(missing);
    }

    fn defaulted(&mut self, expression: &Expression, value: &str) {
        let (path, line) = self.place.rsplit_once(':').unwrap_or((&self.place, "0"));
        let source = Source::Template { path: path.to_owned(), line: line.parse().unwrap_or(0) };
        self.state.used.entry(expression.name.clone()).or_insert((value.to_owned(), source));
    }
}

impl State<'_> {
    fn document(&mut self, file: &str, text: &str, line: usize) -> Result<Value, Problem> {
        let pieces = parse(text).map_err(|error| {
            let (line, column) = Document::new(file, text, line).place(error.offset);
            Problem::new(Code::BadExpression, format!("{file}:{line}:{column}: {}", error.reason))
                .remedy("the grammar is that of `clusterctl generate`: ${VAR}, ${VAR:=default}; write $${ for a literal ${")
        })?;
        let mut prefix = "TsVaR".to_owned();
        while text.contains(&prefix) {
            prefix.push('r');
        }
        let mut tokens = String::new();
        let mut places = Vec::new();
        let mut expressions = Vec::new();
        for piece in &pieces {
            match piece {
                Piece::Text(text) => tokens.push_str(text),
                Piece::Expression(expression) => {
                    let begin = tokens.len();
                    tokens.push_str(&format!("{prefix}{}X", expressions.len()));
                    places.push((begin, tokens.len()));
                    expressions.push(expression.clone());
                }
            }
        }
        let mut document = Document { prefix, expressions, ..Document::new(file, text, line) };
        let not_yaml = |document: &Document<'_>, error: &yaml::YamlError| {
            let (line, column) = document.original(error.line, error.column, &tokens, &places);
            Problem::new(Code::BadYaml, format!("{file}:{line}:{column}: not YAML")).because(document.written(&error.reason))
        };
        match yaml::parse(&tokens, line) {
            Ok(mut tree) => {
                document.object = self.describe(&document, &tree);
                let api_version = self.plain(&document, tree.get("apiVersion"));
                let kind = self.plain(&document, tree.get("kind"));
                let object = self.types.object(&api_version, &kind);
                self.fill(&mut tree, &object, &document);
                Ok(tree)
            }
            Err(error) if document.expressions.is_empty() => Err(not_yaml(&document, &error)),
            Err(error) => {
                let mut lookup = Lookup { state: self, place: format!("{file}:{line}"), object: String::new() };
                let text = evaluate(&pieces, &mut lookup);
                yaml::parse(&text, line).map_err(|_| not_yaml(&document, &error))
            }
        }
    }

    /// A scalar with its expressions filled in, without noting what is missing; as it is written when something is.
    fn plain(&self, document: &Document<'_>, value: Option<&Value>) -> String {
        let mut quiet = State { values: self.values, types: self.types, used: BTreeMap::new(), missing: Vec::new(), unfit: Vec::new() };
        let Some(text) = value.and_then(Value::as_str) else { return String::new() };
        let filled = quiet.scalar(text, document);
        if quiet.missing.is_empty() { filled } else { document.written(text) }
    }

    fn describe(&self, document: &Document<'_>, tree: &Value) -> String {
        format!("{} {}", self.plain(document, tree.get("kind")), self.plain(document, tree.pointer("/metadata/name")))
    }

    fn scalar(&mut self, text: &str, document: &Document<'_>) -> String {
        document
            .pieces(text)
            .into_iter()
            .map(|piece| match piece {
                Ok(text) => text.to_owned(),
                Err(index) => {
                    let Some(expression) = document.expressions.get(index) else { return String::new() };
                    let (line, _) = document.place(expression.offset);
                    let place = format!("{}:{line}", document.file);
                    let mut lookup = Lookup { state: self, place, object: document.object.clone() };
                    evaluate_expression(expression, &mut lookup)
                }
            })
            .collect()
    }

    fn fill(&mut self, value: &mut Value, field: &FieldType<'_>, document: &Document<'_>) {
        match value {
            Value::Object(map) => {
                let entries = std::mem::take(map);
                for (key, mut inner) in entries {
                    let key = if key.contains(&document.prefix) { self.scalar(&key, document) } else { key };
                    self.fill(&mut inner, &field.property(&key), document);
                    map.insert(key, inner);
                }
            }
            Value::Array(items) => {
                let item = field.item();
                for inner in items {
                    self.fill(inner, &item, document);
                }
            }
            Value::String(text) if text.contains(&document.prefix) => {
                let template = std::mem::take(text);
                let missing = self.missing.len();
                let filled = self.scalar(&template, document);
                let first = document.pieces(&template).into_iter().find_map(Result::err);
                let expression = first.and_then(|index| document.expressions.get(index));
                let is_quoted = expression.is_some_and(|expression| document.is_quoted(expression)) || template.contains('\n');
                if is_quoted || self.missing.len() > missing {
                    *value = Value::String(filled);
                    return;
                }
                match field.read(&filled) {
                    Ok(typed) => *value = typed,
                    Err(expected) => {
                        let (line, column) = expression.map_or((document.line, 1), |expression| document.place(expression.offset));
                        let name = expression.map(|expression| expression.name.clone()).unwrap_or_default();
                        let source = self.used.get(&name).map(|(_, source)| source.to_string()).unwrap_or_default();
                        let empty = if filled.is_empty() { "is empty and " } else { "" };
                        self.unfit.push(format!(
                            "{name} (from {source}) {empty}is used at {}:{line}:{column} ({}), where {expected} is needed",
                            document.file, document.object
                        ));
                    }
                }
            }
            _ => {}
        }
    }

    fn missing_problem(&self) -> Option<Problem> {
        let mut by_name: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut told = std::collections::BTreeSet::new();
        for missing in &self.missing {
            let place = if missing.object.is_empty() { missing.place.clone() } else { format!("{} ({})", missing.place, missing.object) };
            if told.insert((missing.name.as_str(), place.clone())) {
                by_name.entry(&missing.name).or_default().push(place);
            }
        }
        let names: Vec<&str> = by_name.keys().copied().collect();
        let first = names.first()?;
        let count = if names.len() == 1 { "1 variable has".to_owned() } else { format!("{} variables have", names.len()) };
        let mut problem = Problem::new(Code::UnsetVariable, format!("{count} no value: {}", names.join(", ")))
            .remedy(format!("give each with --set {first}=..., in the environment, or in a file named with --env"));
        for (name, places) in &by_name {
            problem = problem.seen(format!("{name}: {}", places.join(", ")));
        }
        Some(problem)
    }

    fn unfit_problem(&self) -> Option<Problem> {
        let (first, rest) = self.unfit.split_first()?;
        let mut problem = Problem::new(Code::BadValue, format!("variable {first}"));
        for line in rest {
            problem = problem.seen(format!("variable {line}"));
        }
        Some(problem.remedy("correct the value; quote the expression in the template if it is meant as text"))
    }
}

#[cfg(test)]
mod tests;
