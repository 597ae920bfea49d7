//! Evaluates CEL over JSON.
//!
//! `&&` and `||` are as the specification wants them: an error on one side does not count when the other side decides.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::{Expr, Macro, Operator};

/// Steps of one evaluation.
const STEPS: u32 = 1_000_000;

/// The functions, with the numbers of arguments they take; the receiver of a method is the first argument.
pub(super) const FUNCTIONS: &[(&str, &[usize])] = &[
    ("size", &[1]),
    ("startsWith", &[2]),
    ("endsWith", &[2]),
    ("contains", &[2]),
    ("matches", &[2]),
    ("lowerAscii", &[1]),
    ("upperAscii", &[1]),
    ("trim", &[1]),
    ("split", &[2]),
    ("join", &[1, 2]),
    ("replace", &[3]),
    ("indexOf", &[2]),
    ("string", &[1]),
    ("int", &[1]),
    ("double", &[1]),
    ("min", &[1]),
    ("max", &[1]),
    ("sum", &[1]),
    ("isSorted", &[1]),
];

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A field or key is not there.
    #[error("no such key: {0}")]
    NoKey(String),
    /// A variable is not there.
    #[error("undeclared reference to '{0}'")]
    NoVariable(String),
    /// An operator or function met values of types it is not for.
    #[error("no such overload: {0}")]
    Types(String),
    /// An index outside of a list.
    #[error("index out of bounds: {0}")]
    Bounds(i64),
    /// A division by zero or a number that is too large.
    #[error("{0}")]
    Number(&'static str),
    /// A pattern that is none.
    #[error("error parsing regexp: {0}")]
    Pattern(String),
    /// The evaluation takes too long.
    #[error("operation cancelled: actual cost limit exceeded")]
    Cost,
}

/// A variable, and those outside of it.
struct Scope<'s> {
    name: &'s str,
    value: &'s Value,
    outer: Option<&'s Scope<'s>>,
}

struct Evaluation {
    steps: Cell<u32>,
}

type Outcome<'s> = Result<Cow<'s, Value>, EvalError>;

pub(super) fn evaluate(root: &Expr, variables: &[(&str, &Value)]) -> Result<Value, EvalError> {
    fn within(evaluation: &Evaluation, root: &Expr, variables: &[(&str, &Value)], outer: Option<&Scope<'_>>) -> Result<Value, EvalError> {
        match variables {
            [] => evaluation.value(root, outer).map(Cow::into_owned),
            [(name, value), rest @ ..] => within(evaluation, root, rest, Some(&Scope { name, value, outer })),
        }
    }
    within(&Evaluation { steps: Cell::new(STEPS) }, root, variables, None)
}

fn overload(what: &str, values: &[&Value]) -> EvalError {
    let types: Vec<&str> = values.iter().map(|value| type_name(value)).collect();
    EvalError::Types(format!("{what}({})", types.join(", ")))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "double",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    }
}

fn flag(value: &Value) -> Result<bool, EvalError> {
    value.as_bool().ok_or_else(|| overload("bool", &[value]))
}

impl Evaluation {
    fn step(&self) -> Result<(), EvalError> {
        let left = self.steps.get().checked_sub(1).ok_or(EvalError::Cost)?;
        self.steps.set(left);
        Ok(())
    }

    fn value<'s>(&self, expr: &'s Expr, scope: Option<&'s Scope<'s>>) -> Outcome<'s> {
        self.step()?;
        match expr {
            Expr::Literal(value) => Ok(Cow::Borrowed(value)),
            Expr::Variable(name) => {
                let mut at = scope;
                while let Some(scope) = at {
                    if scope.name == name {
                        return Ok(Cow::Borrowed(scope.value));
                    }
                    at = scope.outer;
                }
                Err(EvalError::NoVariable(name.clone()))
            }
            Expr::List(items) => {
                let list: Result<Vec<Value>, EvalError> = items.iter().map(|item| self.value(item, scope).map(Cow::into_owned)).collect();
                Ok(Cow::Owned(Value::Array(list?)))
            }
            Expr::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let key = self.value(key, scope)?;
                    map.insert(key.as_str().map_or_else(|| key.to_string(), str::to_owned), self.value(value, scope)?.into_owned());
                }
                Ok(Cow::Owned(Value::Object(map)))
            }
            Expr::Select(of, field) => match self.value(of, scope)? {
                Cow::Borrowed(Value::Object(map)) => map.get(field).map(Cow::Borrowed).ok_or_else(|| EvalError::NoKey(field.clone())),
                Cow::Owned(Value::Object(mut map)) => {
                    map.shift_remove(field).map(Cow::Owned).ok_or_else(|| EvalError::NoKey(field.clone()))
                }
                other => Err(overload("select", &[&other])),
            },
            Expr::Has(of, field) => match &*self.value(of, scope)? {
                Value::Object(map) => Ok(Cow::Owned(json!(map.contains_key(field)))),
                other => Err(overload("has", &[other])),
            },
            Expr::Index(of, index) => self.index(of, index, scope),
            Expr::Call(name, arguments) => self.call(name, arguments, scope).map(Cow::Owned),
            Expr::Not(of) => Ok(Cow::Owned(json!(!flag(&*self.value(of, scope)?)?))),
            Expr::Negate(of) => {
                let value = self.value(of, scope)?;
                match (value.as_i64(), value.as_f64()) {
                    (Some(whole), _) => whole.checked_neg().map(|n| Cow::Owned(json!(n))).ok_or(EvalError::Number("integer overflow")),
                    (None, Some(float)) => Ok(Cow::Owned(json!(-float))),
                    _ => Err(overload("-", &[&value])),
                }
            }
            Expr::Binary(operator, left, right) => {
                let (left, right) = (self.value(left, scope)?, self.value(right, scope)?);
                self.binary(*operator, &left, &right).map(Cow::Owned)
            }
            Expr::And(all) => self.decided(all, scope, false),
            Expr::Or(all) => self.decided(all, scope, true),
            Expr::Conditional(condition, yes, no) => {
                let holds = flag(&*self.value(condition, scope)?)?;
                self.value(if holds { yes } else { no }, scope)
            }
            Expr::Macro(kind, range, item, body) => self.expand(*kind, range, item, body, scope).map(Cow::Owned),
        }
    }

    /// `&&` (decided by false) and `||` (decided by true).
    fn decided<'s>(&self, all: &'s [Expr], scope: Option<&'s Scope<'s>>, by: bool) -> Outcome<'s> {
        let mut failed = None;
        for one in all {
            match self.value(one, scope).and_then(|value| flag(&value)) {
                Ok(value) if value == by => return Ok(Cow::Owned(json!(by))),
                Ok(_) => {}
                Err(EvalError::Cost) => return Err(EvalError::Cost),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or_else(|| Ok(Cow::Owned(json!(!by))), Err)
    }

    fn index<'s>(&self, of: &'s Expr, index: &'s Expr, scope: Option<&'s Scope<'s>>) -> Outcome<'s> {
        let (of, index) = (self.value(of, scope)?, self.value(index, scope)?);
        let found = match (&*of, &*index) {
            (Value::Array(list), Value::Number(number)) => {
                let at = number.as_i64().ok_or_else(|| overload("[]", &[&of, &index]))?;
                usize::try_from(at).ok().and_then(|at| list.get(at)).ok_or(EvalError::Bounds(at))?
            }
            (Value::Object(map), Value::String(key)) => map.get(key).ok_or_else(|| EvalError::NoKey(key.clone()))?,
            (of, index) => return Err(overload("[]", &[of, index])),
        };
        Ok(Cow::Owned(found.clone()))
    }

    fn expand<'s>(
        &self,
        kind: Macro,
        range: &'s Expr,
        name: &'s str,
        body: &'s Expr,
        scope: Option<&'s Scope<'s>>,
    ) -> Result<Value, EvalError> {
        let range = self.value(range, scope)?;
        let keys: Vec<Value>;
        let items = match &*range {
            Value::Array(list) => list.as_slice(),
            Value::Object(map) => {
                keys = map.keys().map(|key| json!(key)).collect();
                &keys
            }
            other => return Err(overload("comprehension", &[other])),
        };
        let (mut count, mut out, mut failed) = (0, Vec::new(), None);
        for item in items {
            let inner = Scope { name, value: item, outer: scope };
            let result = self.value(body, Some(&inner));
            match kind {
                Macro::Map => out.push(result?.into_owned()),
                Macro::Filter => {
                    if flag(&*result?)? {
                        out.push(item.clone());
                    }
                }
                Macro::ExistsOne => count += usize::from(flag(&*result?)?),
                Macro::All | Macro::Exists => match result.and_then(|value| flag(&value)) {
                    Ok(holds) if holds == (kind == Macro::Exists) => return Ok(json!(holds)),
                    Ok(_) => {}
                    Err(EvalError::Cost) => return Err(EvalError::Cost),
                    Err(error) => failed = Some(error),
                },
            }
        }
        match (kind, failed) {
            (_, Some(error)) => Err(error),
            (Macro::Map | Macro::Filter, None) => Ok(Value::Array(out)),
            (Macro::ExistsOne, None) => Ok(json!(count == 1)),
            (Macro::All, None) => Ok(json!(true)),
            (Macro::Exists, None) => Ok(json!(false)),
        }
    }

    fn binary(&self, operator: Operator, left: &Value, right: &Value) -> Result<Value, EvalError> {
        let compared = |holds: fn(Ordering) -> bool| match compare(left, right) {
            Some(ordering) => Ok(json!(holds(ordering))),
            None => Err(overload("comparison", &[left, right])),
        };
        match operator {
            Operator::Equal => Ok(json!(self.equal(left, right)?)),
            Operator::NotEqual => Ok(json!(!self.equal(left, right)?)),
            Operator::Less => compared(Ordering::is_lt),
            Operator::LessOrEqual => compared(Ordering::is_le),
            Operator::Greater => compared(Ordering::is_gt),
            Operator::GreaterOrEqual => compared(Ordering::is_ge),
            Operator::In => match right {
                Value::Array(list) => {
                    for item in list {
                        if self.equal(left, item)? {
                            return Ok(json!(true));
                        }
                    }
                    Ok(json!(false))
                }
                Value::Object(map) => Ok(json!(left.as_str().is_some_and(|key| map.contains_key(key)))),
                _ => Err(overload("in", &[left, right])),
            },
            Operator::Add => match (left, right) {
                (Value::String(a), Value::String(b)) => Ok(json!(format!("{a}{b}"))),
                (Value::Array(a), Value::Array(b)) => Ok(Value::Array(a.iter().chain(b).cloned().collect())),
                _ => arithmetic(operator, left, right),
            },
            Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Remainder => arithmetic(operator, left, right),
        }
    }

    fn equal(&self, left: &Value, right: &Value) -> Result<bool, EvalError> {
        self.step()?;
        match (left, right) {
            (Value::Number(_), Value::Number(_)) => Ok(compare(left, right) == Some(Ordering::Equal)),
            (Value::Array(a), Value::Array(b)) => {
                let mut same = a.len() == b.len();
                for (a, b) in a.iter().zip(b) {
                    same = same && self.equal(a, b)?;
                }
                Ok(same)
            }
            (Value::Object(a), Value::Object(b)) => {
                let mut same = a.len() == b.len();
                for (key, a) in a {
                    same = same && b.get(key).map_or(Ok(false), |b| self.equal(a, b))?;
                }
                Ok(same)
            }
            _ => Ok(left == right),
        }
    }

    fn call(&self, name: &str, arguments: &[Expr], scope: Option<&Scope<'_>>) -> Result<Value, EvalError> {
        let values: Result<Vec<Cow<'_, Value>>, EvalError> = arguments.iter().map(|argument| self.value(argument, scope)).collect();
        let values = values?;
        let values: Vec<&Value> = values.iter().map(|value| &**value).collect();
        for value in &values {
            let size = value.as_array().map_or_else(|| value.as_str().map_or(0, str::len) / 64, Vec::len);
            for _ in 0..size {
                self.step()?;
            }
        }
        match (name, values.as_slice()) {
            ("size", [Value::String(text)]) => Ok(json!(text.chars().count())),
            ("size", [Value::Array(list)]) => Ok(json!(list.len())),
            ("size", [Value::Object(map)]) => Ok(json!(map.len())),
            ("startsWith", [Value::String(text), Value::String(part)]) => Ok(json!(text.starts_with(part.as_str()))),
            ("endsWith", [Value::String(text), Value::String(part)]) => Ok(json!(text.ends_with(part.as_str()))),
            ("contains", [Value::String(text), Value::String(part)]) => Ok(json!(text.contains(part.as_str()))),
            ("matches", [Value::String(text), Value::String(pattern)]) => {
                let regex = Regex::new(pattern).map_err(|_| EvalError::Pattern(pattern.clone()))?;
                Ok(json!(regex.is_match(text)))
            }
            ("lowerAscii", [Value::String(text)]) => Ok(json!(text.to_ascii_lowercase())),
            ("upperAscii", [Value::String(text)]) => Ok(json!(text.to_ascii_uppercase())),
            ("trim", [Value::String(text)]) => Ok(json!(text.trim())),
            ("split", [Value::String(text), Value::String(by)]) if by.is_empty() => {
                Ok(text.chars().map(|c| json!(c.to_string())).collect())
            }
            ("split", [Value::String(text), Value::String(by)]) => Ok(text.split(by.as_str()).map(|part| json!(part)).collect()),
            ("join", [Value::Array(list), rest @ ..]) => {
                let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                let by = rest.first().and_then(|by| by.as_str()).unwrap_or_default();
                texts.map(|texts| json!(texts.join(by))).ok_or_else(|| overload(name, &values))
            }
            ("replace", [Value::String(text), Value::String(from), Value::String(to)]) => Ok(json!(text.replace(from.as_str(), to))),
            ("indexOf", [Value::String(text), Value::String(part)]) => {
                Ok(json!(text.find(part.as_str()).map_or(-1, |at| text[..at].chars().count() as i64)))
            }
            ("indexOf", [Value::Array(list), item]) => Ok(json!(list.iter().position(|other| other == *item).map_or(-1, |at| at as i64))),
            ("string", [Value::String(text)]) => Ok(json!(text)),
            ("string", [value @ (Value::Number(_) | Value::Bool(_))]) => Ok(json!(value.to_string())),
            ("int", [Value::Number(number)]) => {
                number.as_i64().or_else(|| number.as_f64().map(|f| f as i64)).map(|n| json!(n)).ok_or(EvalError::Number("range error"))
            }
            ("int", [Value::String(text)]) => text.parse::<i64>().map(|n| json!(n)).map_err(|_| EvalError::Number("type conversion error")),
            ("double", [Value::Number(number)]) => Ok(json!(number.as_f64())),
            ("double", [Value::String(text)]) => {
                text.parse::<f64>().map(|n| json!(n)).map_err(|_| EvalError::Number("type conversion error"))
            }
            ("min" | "max", [Value::Array(list)]) => {
                let mut items = list.iter();
                let mut best = items.next().ok_or(EvalError::Bounds(0))?;
                for item in items {
                    let ordering = compare(item, best).ok_or_else(|| overload(name, &[item, best]))?;
                    if (name == "min" && ordering.is_lt()) || (name == "max" && ordering.is_gt()) {
                        best = item;
                    }
                }
                Ok(best.clone())
            }
            ("sum", [Value::Array(list)]) => list.iter().try_fold(json!(0), |sum, item| arithmetic(Operator::Add, &sum, item)),
            ("isSorted", [Value::Array(list)]) => {
                for pair in list.windows(2) {
                    match compare(&pair[0], &pair[1]) {
                        None => return Err(overload(name, &[&pair[0], &pair[1]])),
                        Some(Ordering::Greater) => return Ok(json!(false)),
                        Some(_) => {}
                    }
                }
                Ok(json!(true))
            }
            _ => Err(overload(name, &values)),
        }
    }
}

fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn arithmetic(operator: Operator, left: &Value, right: &Value) -> Result<Value, EvalError> {
    if let (Some(a), Some(b)) = (left.as_i64(), right.as_i64()) {
        if b == 0 && matches!(operator, Operator::Divide | Operator::Remainder) {
            return Err(EvalError::Number(if operator == Operator::Divide { "division by zero" } else { "modulus by zero" }));
        }
        let result = match operator {
            Operator::Add => a.checked_add(b),
            Operator::Subtract => a.checked_sub(b),
            Operator::Multiply => a.checked_mul(b),
            Operator::Divide => a.checked_div(b),
            _ => a.checked_rem(b),
        };
        return result.map(|n| json!(n)).ok_or(EvalError::Number("integer overflow"));
    }
    let (Some(a), Some(b)) = (left.as_f64(), right.as_f64()) else { return Err(overload("arithmetic", &[left, right])) };
    match operator {
        Operator::Add => Ok(json!(a + b)),
        Operator::Subtract => Ok(json!(a - b)),
        Operator::Multiply => Ok(json!(a * b)),
        Operator::Divide => Ok(json!(a / b)),
        _ => Err(overload("%", &[left, right])),
    }
}
