//! JSONPath in the dialect of Kubernetes, as printer columns, scale subresources and `-o jsonpath` use it.
//!
//! Understood: `.a.b`, `.a\.b` and `['a\.b']` for names with dots, `.*` and `[*]`, `[0]`, `[-1]`, `[0:4:2]`, `[0,2]`,
//! `['a','b']`, `..a`, filters `[?(@.type=="Ready")]` with `==  !=  <  <=  >  >=` or none (existence). Braces around and
//! a leading `$` or `@` are allowed. A path that meets nothing gives no values and never an error.

use serde_json::Value;

/// Why a path could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("JSONPath {path:?} cannot be read at byte {at}: {why}")]
pub struct PathError {
    /// The path.
    pub path: String,
    /// Where in it.
    pub at: usize,
    /// What was expected.
    pub why: &'static str,
}

/// A path, ready to be evaluated.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    Descend,
    Slice(Slice),
    Union(Vec<Step>),
    Filter(Box<Filter>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slice {
    start: i64,
    end: Option<i64>,
    step: usize,
    single: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Literal(Value),
    Current(Path),
    Root(Path),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Exists,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    comparison: Comparison,
    right: Option<Operand>,
}

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// When it is malformed, naming the place.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let trimmed = text.trim();
        let inner = trimmed.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(trimmed);
        let mut parser = Parser { text: inner, at: 0 };
        let path = parser.path()?;
        if parser.at < inner.len() {
            return Err(parser.error("end of path expected"));
        }
        Ok(path)
    }

    /// The path as plain field names, when it is nothing else: what a scale subresource can write to.
    #[must_use]
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.steps.iter().map(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None }).collect()
    }

    /// All values that the path meets, in order.
    #[must_use]
    pub fn evaluate<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        self.walk(value, value)
    }

    /// The first value that the path meets.
    #[must_use]
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.evaluate(value).into_iter().next()
    }

    fn walk<'a>(&self, root: &'a Value, value: &'a Value) -> Vec<&'a Value> {
        let mut current = vec![value];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in current {
                step.apply(root, value, &mut next);
            }
            current = next;
        }
        current
    }
}

impl Step {
    fn apply<'a>(&self, root: &'a Value, value: &'a Value, out: &mut Vec<&'a Value>) {
        match self {
            Self::Field(name) => out.extend(value.get(name)),
            Self::Wildcard => match value {
                Value::Object(map) => out.extend(map.values()),
                Value::Array(list) => out.extend(list),
                _ => {}
            },
            Self::Descend => descend(value, out),
            Self::Slice(slice) => {
                if let Value::Array(list) = value {
                    slice.apply(list, out);
                }
            }
            Self::Union(steps) => steps.iter().for_each(|step| step.apply(root, value, out)),
            Self::Filter(filter) => {
                if let Value::Array(list) = value {
                    out.extend(list.iter().filter(|item| filter.holds(root, item)));
                }
            }
        }
    }
}

/// The value itself and everything below it.
fn descend<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    out.push(value);
    match value {
        Value::Object(map) => map.values().for_each(|child| descend(child, out)),
        Value::Array(list) => list.iter().for_each(|child| descend(child, out)),
        _ => {}
    }
}

impl Slice {
    fn apply<'a>(self, list: &'a [Value], out: &mut Vec<&'a Value>) {
        let length = list.len() as i64;
        let absolute = |i: i64| if i < 0 { i + length } else { i };
        let start = absolute(self.start);
        if self.single {
            out.extend(usize::try_from(start).ok().and_then(|i| list.get(i)));
            return;
        }
        let start = start.clamp(0, length) as usize;
        let end = self.end.map_or(length, absolute).clamp(0, length) as usize;
        if start < end {
            out.extend(list[start..end].iter().step_by(self.step));
        }
    }
}

impl Operand {
    fn values<'a>(&'a self, root: &'a Value, item: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Literal(value) => vec![value],
            Self::Current(path) => path.walk(root, item),
            Self::Root(path) => path.walk(root, root),
        }
    }
}

impl Filter {
    fn holds(&self, root: &Value, item: &Value) -> bool {
        let left = self.left.values(root, item);
        let Some(right) = &self.right else { return !left.is_empty() };
        let right = right.values(root, item);
        let ([left], [right]) = (left.as_slice(), right.as_slice()) else { return false };
        let ordering = match (left, right) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            _ => None,
        };
        match (self.comparison, ordering) {
            (Comparison::Exists, _) => true,
            (Comparison::NotEqual, None) => left != right,
            (_, None) => false,
            (Comparison::Equal, Some(o)) => o.is_eq(),
            (Comparison::NotEqual, Some(o)) => o.is_ne(),
            (Comparison::Less, Some(o)) => o.is_lt(),
            (Comparison::LessOrEqual, Some(o)) => o.is_le(),
            (Comparison::Greater, Some(o)) => o.is_gt(),
            (Comparison::GreaterOrEqual, Some(o)) => o.is_ge(),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn error(&self, why: &'static str) -> PathError {
        PathError { path: self.text.to_owned(), at: self.at, why }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.text[self.at..].starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn space(&mut self) {
        while self.eat(" ") {}
    }

    fn expect(&mut self, token: &str, why: &'static str) -> Result<(), PathError> {
        self.space();
        if self.eat(token) { Ok(()) } else { Err(self.error(why)) }
    }

    fn path(&mut self) -> Result<Path, PathError> {
        let _ = self.eat("$") || self.eat("@");
        let mut steps = Vec::new();
        // A bare name in front is a field, as in `status.phase`.
        if self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            steps.push(Step::Field(self.name()?));
        }
        loop {
            if self.eat("..") {
                steps.push(Step::Descend);
                if self.eat("*") {
                    steps.push(Step::Wildcard);
                } else if self.peek() != Some('[') {
                    steps.push(Step::Field(self.name()?));
                }
            } else if self.eat(".") {
                match self.peek() {
                    // `.` alone is the value itself; `.[` is the same as `[`.
                    None | Some('[') => {}
                    Some('*') => {
                        self.at += 1;
                        steps.push(Step::Wildcard);
                    }
                    Some(_) => steps.push(Step::Field(self.name()?)),
                }
            } else if self.eat("[") {
                steps.push(self.bracket()?);
            } else {
                return Ok(Path { steps });
            }
        }
    }

    /// A field name: up to a character with a meaning; a backslash takes the next one as it is.
    fn name(&mut self) -> Result<String, PathError> {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            match c {
                '\\' => {
                    self.at += 1;
                    let escaped = self.peek().ok_or_else(|| self.error("a character expected after the backslash"))?;
                    name.push(escaped);
                    self.at += escaped.len_utf8();
                }
                '.' | '[' | ']' | ')' | '(' | ' ' | '=' | '!' | '<' | '>' | ',' | '{' | '}' | '"' | '\'' | '|' | '&' => break,
                c => {
                    name.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
        if name.is_empty() { Err(self.error("a field name expected")) } else { Ok(name) }
    }

    fn quoted(&mut self, quote: char) -> Result<String, PathError> {
        self.at += 1;
        let mut out = String::new();
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            match c {
                '\\' => {
                    let escaped = self.peek().ok_or_else(|| self.error("a character expected after the backslash"))?;
                    self.at += escaped.len_utf8();
                    out.push(escaped);
                }
                c if c == quote => return Ok(out),
                c => out.push(c),
            }
        }
        Err(self.error("a closing quote expected"))
    }

    fn bracket(&mut self) -> Result<Step, PathError> {
        self.space();
        if self.eat("?(") {
            let filter = self.filter()?;
            self.expect(")", "a closing parenthesis expected")?;
            self.expect("]", "a closing bracket expected")?;
            return Ok(Step::Filter(Box::new(filter)));
        }
        let mut steps = vec![self.selector()?];
        self.space();
        while self.eat(",") {
            self.space();
            steps.push(self.selector()?);
            self.space();
        }
        self.expect("]", "a closing bracket expected")?;
        match steps.pop() {
            Some(only) if steps.is_empty() => Ok(only),
            Some(last) => {
                steps.push(last);
                Ok(Step::Union(steps))
            }
            None => Err(self.error("an index, a name or a filter expected")),
        }
    }

    fn selector(&mut self) -> Result<Step, PathError> {
        match self.peek() {
            Some('*') => {
                self.at += 1;
                Ok(Step::Wildcard)
            }
            Some(quote @ ('\'' | '"')) => Ok(Step::Field(self.quoted(quote)?)),
            Some(c) if c.is_ascii_digit() || c == '-' || c == ':' => self.slice(),
            _ => Err(self.error("an index, a quoted name, * or a filter expected")),
        }
    }

    fn integer(&mut self) -> Result<Option<i64>, PathError> {
        let start = self.at;
        let _ = self.eat("-");
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start {
            return Ok(None);
        }
        self.text[start..self.at].parse().map(Some).map_err(|_| self.error("a whole number expected"))
    }

    fn slice(&mut self) -> Result<Step, PathError> {
        let start = self.integer()?;
        if !self.eat(":") {
            let start = start.ok_or_else(|| self.error("an index expected"))?;
            return Ok(Step::Slice(Slice { start, end: None, step: 1, single: true }));
        }
        let end = self.integer()?;
        let step = if self.eat(":") { self.integer()?.unwrap_or(1) } else { 1 };
        let step = usize::try_from(step).ok().filter(|s| *s > 0).ok_or_else(|| self.error("a step above zero expected"))?;
        Ok(Step::Slice(Slice { start: start.unwrap_or(0), end, step, single: false }))
    }

    fn filter(&mut self) -> Result<Filter, PathError> {
        let left = self.operand()?;
        self.space();
        let operators = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        for (token, comparison) in operators {
            if self.eat(token) {
                return Ok(Filter { left, comparison, right: Some(self.operand()?) });
            }
        }
        Ok(Filter { left, comparison: Comparison::Exists, right: None })
    }

    fn operand(&mut self) -> Result<Operand, PathError> {
        self.space();
        match self.peek() {
            Some('@') => Ok(Operand::Current(self.path()?)),
            Some('$') => Ok(Operand::Root(self.path()?)),
            Some(quote @ ('\'' | '"')) => Ok(Operand::Literal(Value::String(self.quoted(quote)?))),
            _ => {
                let end = self.text[self.at..].find([')', ' ', '=', '!', '<', '>']).map_or(self.text.len(), |i| self.at + i);
                let value: Value = serde_json::from_str(&self.text[self.at..end]).map_err(|_| self.error("a value or a path expected"))?;
                self.at = end;
                Ok(Operand::Literal(value))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_meet_values() {
        let object = json!({
            "metadata": {"labels": {"cluster.x-k8s.io/cluster-name": "c", "plain": "p"}},
            "status": {"conditions": [{"type": "Ready", "status": "True", "n": 1}, {"type": "Other", "status": "False", "n": 5}],
                       "list": [0, 1, 2, 3, 4], "phase": "Running"},
        });
        for (path, expected) in [
            (".status.phase", json!(["Running"])),
            ("{.status.phase}", json!(["Running"])),
            ("{$.status.phase}", json!(["Running"])),
            ("status.phase", json!(["Running"])),
            (".status.nosuch.deep", json!([])),
            (".metadata.labels['cluster\\.x-k8s\\.io/cluster-name']", json!(["c"])),
            (".metadata.labels.cluster\\.x-k8s\\.io/cluster-name", json!(["c"])),
            (".metadata.labels['plain', \"cluster.x-k8s.io/cluster-name\"]", json!(["p", "c"])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type=='Other')].status", json!(["False"])),
            (".status.conditions[?(@.type == \"None\")].status", json!([])),
            (".status.conditions[?(@.type!=\"Ready\")].type", json!(["Other"])),
            (".status.conditions[?(@.n>=5)].type", json!(["Other"])),
            (".status.conditions[?(@.n<5)].type", json!(["Ready"])),
            (".status.conditions[?(@.n)].type", json!(["Ready", "Other"])),
            (".status.conditions[?(@.status==$.status.nosuch)].type", json!([])),
            (".status.conditions[*].type", json!(["Ready", "Other"])),
            (".status.conditions.*.n", json!([1, 5])),
            (".status.list[0]", json!([0])),
            (".status.list[-1]", json!([4])),
            (".status.list[9]", json!([])),
            (".status.list[1:3]", json!([1, 2])),
            (".status.list[-2:]", json!([3, 4])),
            (".status.list[::2]", json!([0, 2, 4])),
            (".status.list[0,2]", json!([0, 2])),
            ("..n", json!([1, 5])),
        ] {
            let path_parsed = Path::parse(path).unwrap();
            assert_eq!(json!(path_parsed.evaluate(&object)), expected, "{path}");
        }
        assert_eq!(json!(Path::parse(".").unwrap().evaluate(&object)), json!([object]));
    }

    #[test]
    fn malformed_paths_are_refused() {
        for path in [".a[", ".a[x]", ".a[?(@.b==)]", ".a['b", ".a[0:1:0]", "{.a", ".a b"] {
            assert!(Path::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn plain_paths_name_their_fields() {
        assert_eq!(Path::parse(".spec.replicas").unwrap().fields(), Some(vec!["spec", "replicas"]));
        assert_eq!(Path::parse(".spec.list[0]").unwrap().fields(), None);
    }
}
