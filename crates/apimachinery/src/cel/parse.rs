//! Reads CEL: tokens, then a descent by precedence.

use serde_json::{Number, Value, json};

use super::eval::FUNCTIONS;
use super::{Expr, Macro, Operator};

/// Parentheses inside of parentheses; no rule comes near.
const NESTING_LIMIT: usize = 64;
/// Operators and fields, all together.
const LENGTH_LIMIT: usize = 1000;
/// Expressions inside of expressions, so that an evaluation fits on any thread's stack.
const DEPTH_LIMIT: usize = 100;

/// Why an expression does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {why}")]
pub struct SyntaxError {
    /// Where in the expression.
    pub at: usize,
    /// What is wrong or not understood.
    pub why: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Literal(Value),
    Symbol(&'static str),
    End,
}

const SYMBOLS: [&str; 25] =
    ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "(", ")", "[", "]", "{", "}", ".", ",", ":", "?", "+", "-", "*", "/", "%", "!", ";"];

pub(super) fn parse(text: &str) -> Result<Expr, SyntaxError> {
    let tokens = Lexer { text, at: 0 }.tokens()?;
    let mut parser = Parser { tokens, next: 0, depth: 0, chain: 0 };
    let root = parser.expression()?;
    match parser.peek() {
        Token::End if root.depth() > DEPTH_LIMIT => Err(parser.error("nested too deep")),
        Token::End => Ok(root),
        other => Err(parser.error(format!("unexpected {other:?}"))),
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn error(&self, why: impl Into<String>) -> SyntaxError {
        SyntaxError { at: self.at, why: why.into() }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn tokens(mut self) -> Result<Vec<(usize, Token)>, SyntaxError> {
        let mut tokens = Vec::new();
        loop {
            self.at += self.rest().len() - self.rest().trim_start().len();
            if self.rest().starts_with("//") {
                self.at += self.rest().find('\n').unwrap_or(self.rest().len());
                continue;
            }
            let start = self.at;
            let Some(first) = self.rest().chars().next() else {
                tokens.push((start, Token::End));
                return Ok(tokens);
            };
            let is_raw = self.rest().starts_with("r'")
                || self.rest().starts_with("r\"")
                || self.rest().starts_with("R'")
                || self.rest().starts_with("R\"");
            let token = if first == '\'' || first == '"' || is_raw {
                self.string(is_raw)?
            } else if first.is_ascii_digit() || (first == '.' && self.rest()[1..].starts_with(|c: char| c.is_ascii_digit())) {
                self.number()?
            } else if first.is_ascii_alphabetic() || first == '_' {
                let length = self.rest().find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest().len());
                let name = self.rest()[..length].to_owned();
                self.at += length;
                match name.as_str() {
                    "true" => Token::Literal(json!(true)),
                    "false" => Token::Literal(json!(false)),
                    "null" => Token::Literal(Value::Null),
                    _ => Token::Name(name),
                }
            } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| self.rest().starts_with(**symbol)) {
                self.at += symbol.len();
                Token::Symbol(symbol)
            } else {
                return Err(self.error(format!("unexpected character {first:?}")));
            };
            tokens.push((start, token));
        }
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        if self.rest().starts_with("0x") || self.rest().starts_with("0X") {
            let digits = &self.rest()[2..];
            let length = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
            let number = i64::from_str_radix(&digits[..length], 16).map_err(|_| self.error("a hexadecimal number expected"))?;
            self.at += 2 + length;
            return Ok(Token::Literal(json!(number)));
        }
        let bytes = self.text.as_bytes();
        let (start, mut is_float) = (self.at, false);
        while let Some(&byte) = bytes.get(self.at) {
            let is_sign = matches!(byte, b'+' | b'-') && matches!(bytes[self.at - 1], b'e' | b'E') && self.at > start;
            match byte {
                b'0'..=b'9' => {}
                b'.' if bytes.get(self.at + 1).is_some_and(u8::is_ascii_digit) => is_float = true,
                b'e' | b'E' => is_float = true,
                _ if is_sign => {}
                _ => break,
            }
            self.at += 1;
        }
        let digits = &self.text[start..self.at];
        let number = if is_float {
            digits.parse().ok().and_then(Number::from_f64).map(Value::Number)
        } else {
            digits.parse::<i64>().ok().map(|n| json!(n))
        };
        if self.rest().starts_with(['u', 'U']) {
            self.at += 1;
        }
        number.map(Token::Literal).ok_or_else(|| self.error("a number expected"))
    }

    fn string(&mut self, is_raw: bool) -> Result<Token, SyntaxError> {
        if is_raw {
            self.at += 1;
        }
        let quote = self.rest()[..1].to_owned();
        let triple = quote.repeat(3);
        let end = if self.rest().starts_with(&triple) { triple } else { quote };
        self.at += end.len();
        let mut out = String::new();
        loop {
            if self.rest().starts_with(&end) {
                self.at += end.len();
                return Ok(Token::Literal(Value::String(out)));
            }
            let c = self.rest().chars().next().ok_or_else(|| self.error("a closing quote expected"))?;
            self.at += c.len_utf8();
            if c != '\\' || is_raw {
                out.push(c);
                continue;
            }
            let escaped = self.rest().chars().next().ok_or_else(|| self.error("a character expected after the backslash"))?;
            self.at += escaped.len_utf8();
            out.push(match escaped {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                '\\' | '\'' | '"' | '`' | '?' => escaped,
                'x' | 'X' => self.code(2)?,
                'u' => self.code(4)?,
                'U' => self.code(8)?,
                other => return Err(self.error(format!("unknown escape \\{other}"))),
            });
        }
    }

    fn code(&mut self, digits: usize) -> Result<char, SyntaxError> {
        let code = self.rest().get(..digits).and_then(|text| u32::from_str_radix(text, 16).ok()).and_then(char::from_u32);
        self.at += digits;
        code.ok_or_else(|| self.error("the code of a character expected"))
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
    chain: usize,
}

impl Parser {
    fn error(&self, why: impl Into<String>) -> SyntaxError {
        let at = self.tokens.get(self.next).map_or(0, |(at, _)| *at);
        SyntaxError { at, why: why.into() }
    }

    fn peek(&self) -> Token {
        self.tokens.get(self.next).map_or(Token::End, |(_, token)| token.clone())
    }

    fn eat(&mut self, symbol: &str) -> bool {
        let found = matches!(self.tokens.get(self.next), Some((_, Token::Symbol(next))) if *next == symbol);
        if found {
            self.next += 1;
        }
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), SyntaxError> {
        if self.eat(symbol) { Ok(()) } else { Err(self.error(format!("{symbol} expected"))) }
    }

    fn link(&mut self) -> Result<(), SyntaxError> {
        self.chain += 1;
        if self.chain > LENGTH_LIMIT { Err(self.error("too long")) } else { Ok(()) }
    }

    fn expression(&mut self) -> Result<Expr, SyntaxError> {
        self.depth += 1;
        if self.depth > NESTING_LIMIT {
            return Err(self.error("nested too deep"));
        }
        let condition = self.or()?;
        let result = if self.eat("?") {
            let yes = self.or()?;
            self.expect(":")?;
            Expr::Conditional(condition.into(), yes.into(), self.expression()?.into())
        } else {
            condition
        };
        self.depth -= 1;
        Ok(result)
    }

    fn or(&mut self) -> Result<Expr, SyntaxError> {
        let first = self.and()?;
        if !self.eat("||") {
            return Ok(first);
        }
        let mut all = vec![first];
        loop {
            self.link()?;
            all.push(self.and()?);
            if !self.eat("||") {
                return Ok(Expr::Or(all));
            }
        }
    }

    fn and(&mut self) -> Result<Expr, SyntaxError> {
        let first = self.relation()?;
        if !self.eat("&&") {
            return Ok(first);
        }
        let mut all = vec![first];
        loop {
            self.link()?;
            all.push(self.relation()?);
            if !self.eat("&&") {
                return Ok(Expr::And(all));
            }
        }
    }

    fn relation(&mut self) -> Result<Expr, SyntaxError> {
        let mut left = self.sum()?;
        loop {
            let operator = match self.peek() {
                Token::Symbol("<") => Operator::Less,
                Token::Symbol("<=") => Operator::LessOrEqual,
                Token::Symbol(">") => Operator::Greater,
                Token::Symbol(">=") => Operator::GreaterOrEqual,
                Token::Symbol("==") => Operator::Equal,
                Token::Symbol("!=") => Operator::NotEqual,
                Token::Name(name) if name == "in" => Operator::In,
                _ => return Ok(left),
            };
            self.next += 1;
            self.link()?;
            left = Expr::Binary(operator, left.into(), self.sum()?.into());
        }
    }

    fn sum(&mut self) -> Result<Expr, SyntaxError> {
        let mut left = self.product()?;
        loop {
            let operator = match self.peek() {
                Token::Symbol("+") => Operator::Add,
                Token::Symbol("-") => Operator::Subtract,
                _ => return Ok(left),
            };
            self.next += 1;
            self.link()?;
            left = Expr::Binary(operator, left.into(), self.product()?.into());
        }
    }

    fn product(&mut self) -> Result<Expr, SyntaxError> {
        let mut left = self.unary()?;
        loop {
            let operator = match self.peek() {
                Token::Symbol("*") => Operator::Multiply,
                Token::Symbol("/") => Operator::Divide,
                Token::Symbol("%") => Operator::Remainder,
                _ => return Ok(left),
            };
            self.next += 1;
            self.link()?;
            left = Expr::Binary(operator, left.into(), self.unary()?.into());
        }
    }

    fn unary(&mut self) -> Result<Expr, SyntaxError> {
        let (mut nots, mut minuses) = (0, 0);
        while self.eat("!") {
            nots += 1;
        }
        while nots == 0 && self.eat("-") {
            minuses += 1;
        }
        let mut inner = self.member()?;
        if nots % 2 == 1 {
            inner = Expr::Not(inner.into());
        } else if nots > 0 {
            inner = Expr::Not(Box::new(Expr::Not(inner.into())));
        }
        if minuses % 2 == 1 {
            inner = Expr::Negate(inner.into());
        }
        Ok(inner)
    }

    fn member(&mut self) -> Result<Expr, SyntaxError> {
        let mut of = self.primary()?;
        loop {
            self.link()?;
            if self.eat(".") {
                let Token::Name(name) = self.peek() else { return Err(self.error("a field name expected")) };
                self.next += 1;
                of = if self.eat("(") { self.method(of, &name)? } else { Expr::Select(of.into(), unescaped(&name)) };
            } else if self.eat("[") {
                if self.eat("?") {
                    return Err(self.error("optionals are not understood"));
                }
                let index = self.expression()?;
                self.expect("]")?;
                of = Expr::Index(of.into(), index.into());
            } else {
                return Ok(of);
            }
        }
    }

    fn arguments(&mut self) -> Result<Vec<Expr>, SyntaxError> {
        let mut arguments = Vec::new();
        while !self.eat(")") {
            arguments.push(self.expression()?);
            if !self.eat(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(arguments)
    }

    fn method(&mut self, of: Expr, name: &str) -> Result<Expr, SyntaxError> {
        let mut arguments = self.arguments()?;
        let kind = match name {
            "all" => Macro::All,
            "exists" => Macro::Exists,
            "exists_one" | "existsOne" => Macro::ExistsOne,
            "filter" => Macro::Filter,
            "map" => Macro::Map,
            _ => {
                arguments.insert(0, of);
                return self.call(name, arguments);
            }
        };
        let mut arguments = arguments.into_iter();
        match (arguments.next(), arguments.next(), arguments.next(), arguments.next()) {
            (Some(Expr::Variable(item)), Some(body), None, None) => Ok(Expr::Macro(kind, of.into(), item, body.into())),
            (Some(Expr::Variable(item)), Some(filter), Some(body), None) if kind == Macro::Map => {
                let filtered = Expr::Macro(Macro::Filter, of.into(), item.clone(), filter.into());
                Ok(Expr::Macro(kind, filtered.into(), item, body.into()))
            }
            _ => Err(self.error(format!("{name} takes the name of an item and an expression"))),
        }
    }

    fn call(&self, name: &str, arguments: Vec<Expr>) -> Result<Expr, SyntaxError> {
        let known = FUNCTIONS.iter().find(|(known, counts)| *known == name && counts.contains(&arguments.len()));
        let (name, _) =
            known.ok_or_else(|| self.error(format!("the function {name} is not understood with {} arguments", arguments.len())))?;
        Ok(Expr::Call(name, arguments))
    }

    fn primary(&mut self) -> Result<Expr, SyntaxError> {
        let token = self.peek();
        self.next += 1;
        match token {
            Token::Literal(value) => Ok(Expr::Literal(value)),
            Token::Symbol("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Symbol("[") => {
                let mut items = Vec::new();
                while !self.eat("]") {
                    items.push(self.expression()?);
                    if !self.eat(",") {
                        self.expect("]")?;
                        break;
                    }
                }
                Ok(Expr::List(items))
            }
            Token::Symbol("{") => {
                let mut entries = Vec::new();
                while !self.eat("}") {
                    let key = self.expression()?;
                    self.expect(":")?;
                    entries.push((key, self.expression()?));
                    if !self.eat(",") {
                        self.expect("}")?;
                        break;
                    }
                }
                Ok(Expr::Map(entries))
            }
            Token::Name(name) if name == "has" && self.eat("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                match inner {
                    Expr::Select(of, field) => Ok(Expr::Has(of, field)),
                    _ => Err(self.error("has takes a field")),
                }
            }
            Token::Name(name) if self.eat("(") => {
                let arguments = self.arguments()?;
                self.call(&name, arguments)
            }
            Token::Name(name) => Ok(Expr::Variable(name)),
            other => {
                self.next -= 1;
                Err(self.error(format!("a value expected, not {other:?}")))
            }
        }
    }
}

/// A field's own name: characters that names in CEL cannot have, and reserved words, are written in underscores.
fn unescaped(name: &str) -> String {
    const WORDS: [&str; 18] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
    ];
    if let Some(word) = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"))
        && WORDS.contains(&word)
    {
        return word.to_owned();
    }
    name.replace("__underscores__", "\0").replace("__dot__", ".").replace("__dash__", "-").replace("__slash__", "/").replace('\0', "__")
}
