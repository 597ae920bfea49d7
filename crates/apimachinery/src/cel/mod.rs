//! CEL, as far as rules in definitions of custom resources use it: expressions over JSON that say whether a value holds.
//!
//! Understood: literals, lists and maps; `.field`, `[index]`, `has(x.f)`; `! - * / % + < <= > >= == != in && || ?:`; the macros
//! `all`, `exists`, `exists_one`, `filter`, `map`; and the functions of [`eval`]. Not understood: timestamps, durations,
//! bytes, optionals, and the libraries for URLs, addresses, quantities and the like. An expression outside of this does
//! not compile, and says so; nothing is guessed.
//!
//! Differences from the specification: whole numbers and floating ones compare and mix freely, unsigned ones are whole
//! ones, and lists that are sets compare in order. An evaluation is cut off after a number of steps, so that no rule and
//! no object can hold up a server.

mod eval;
mod parse;

use std::fmt;

use serde_json::Value;

pub use eval::EvalError;
pub use parse::SyntaxError;

/// An expression, ready to be evaluated.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    text: String,
    root: Expr,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// When it is malformed or uses what is not understood here.
    pub fn compile(text: &str) -> Result<Self, SyntaxError> {
        Ok(Self { text: text.to_owned(), root: parse::parse(text)? })
    }

    /// Whether the expression speaks of this variable.
    #[must_use]
    pub fn mentions(&self, name: &str) -> bool {
        self.root.mentions(name)
    }

    /// The value of the expression with these variables.
    ///
    /// # Errors
    /// When a field is missing, types do not fit, or the evaluation takes too many steps.
    pub fn evaluate(&self, variables: &[(&str, &Value)]) -> Result<Value, EvalError> {
        eval::evaluate(&self.root, variables)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
    In,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Macro {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

#[derive(Clone, Debug, PartialEq)]
enum Expr {
    Literal(Value),
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    Variable(String),
    Select(Box<Expr>, String),
    Has(Box<Expr>, String),
    Index(Box<Expr>, Box<Expr>),
    /// A function; the receiver of a method is the first argument.
    Call(&'static str, Vec<Expr>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Conditional(Box<Expr>, Box<Expr>, Box<Expr>),
    /// A macro over a list or the keys of a map: range, name of the item, body.
    Macro(Macro, Box<Expr>, String, Box<Expr>),
}

impl Expr {
    /// The expressions directly inside of this one.
    fn parts(&self) -> Vec<&Expr> {
        match self {
            Self::Literal(_) | Self::Variable(_) => Vec::new(),
            Self::List(items) | Self::Call(_, items) | Self::And(items) | Self::Or(items) => items.iter().collect(),
            Self::Map(entries) => entries.iter().flat_map(|(key, value)| [key, value]).collect(),
            Self::Select(of, _) | Self::Has(of, _) | Self::Not(of) | Self::Negate(of) => vec![of],
            Self::Index(a, b) | Self::Binary(_, a, b) | Self::Macro(_, a, _, b) => vec![a, b],
            Self::Conditional(a, b, c) => vec![a, b, c],
        }
    }

    fn depth(&self) -> usize {
        1 + self.parts().into_iter().map(Self::depth).max().unwrap_or_default()
    }

    fn mentions(&self, name: &str) -> bool {
        match self {
            Self::Variable(variable) => variable == name,
            Self::Macro(_, range, item, body) => range.mentions(name) || (item != name && body.mentions(name)),
            _ => self.parts().into_iter().any(|part| part.mentions(name)),
        }
    }
}

#[cfg(test)]
mod tests;
