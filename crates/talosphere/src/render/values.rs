//! Where a variable's value comes from: `--set` over the process environment over `--env` files (a later file wins), as clusterctl has it.

use std::collections::BTreeMap;
use std::fmt;

use crate::environment::Environment;
use crate::problem::{Code, Problem};

/// Where a value was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Flag,
    Process,
    File {
        path: String,
        line: usize,
    },
    /// A default inside the template.
    Template {
        path: String,
        line: usize,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("--set"),
            Self::Process => f.write_str("environment"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Template { path, line } => write!(f, "default in {path}:{line}"),
        }
    }
}

/// A value and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub text: String,
    pub source: Source,
}

/// All variables that can be asked for.
#[derive(Clone, Debug, Default)]
pub struct Values {
    flags: BTreeMap<String, String>,
    process: Environment,
    files: BTreeMap<String, Value>,
}

impl Values {
    /// Puts the sources together. `set` are `K=V` texts; `files` are paths and contents, the last one winning.
    ///
    /// # Errors
    /// When a flag is not an assignment or a file has a line that assigns nothing.
    pub fn new(set: &[String], process: Environment, files: &[(String, String)]) -> Result<Self, Problem> {
        let mut values = Self { process, ..Self::default() };
        for assignment in set {
            let Some((name, text)) = assignment.split_once('=').filter(|(name, _)| is_name(name)) else {
                // The text may be a secret: only what stands where the name should be is shown.
                let shown = assignment.split_once('=').map(|(name, _)| format!("--set {name}=..."));
                return Err(Problem::new(
                    Code::BadFlag,
                    format!("{} is not of the form NAME=VALUE", shown.as_deref().unwrap_or("a --set")),
                )
                .because("a name consists of letters, digits and _, and does not begin with a digit")
                .remedy("write it as --set NAME=VALUE"));
            };
            values.flags.insert(name.to_owned(), text.to_owned());
        }
        for (path, content) in files {
            values.read_file(path, content)?;
        }
        Ok(values)
    }

    /// The value of `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<Value> {
        if let Some(text) = self.flags.get(name) {
            return Some(Value { text: text.clone(), source: Source::Flag });
        }
        if let Some(text) = self.process.get(name) {
            return Some(Value { text: text.to_owned(), source: Source::Process });
        }
        self.files.get(name).cloned()
    }

    /// Like [`Self::get`], `None` when empty.
    pub fn non_empty(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| value.text).filter(|text| !text.is_empty())
    }

    fn read_file(&mut self, path: &str, content: &str) -> Result<(), Problem> {
        for assignment in assignments(content) {
            let Assignment { line, name, words } = assignment.map_err(|(line, why)| {
                Problem::new(Code::BadEnvironmentFile, format!("{path}:{line} assigns nothing"))
                    .because(why)
                    .remedy("write NAME=value, NAME='value' or export NAME=\"value\"; comments begin with #")
            })?;
            let text = words
                .into_iter()
                .map(|word| match word {
                    Word::Text(text) => text,
                    Word::Variable(name) => self.get(&name).map(|value| value.text).unwrap_or_default(),
                })
                .collect();
            self.files.insert(name, Value { text, source: Source::File { path: path.to_owned(), line } });
        }
        Ok(())
    }
}

struct Assignment {
    line: usize,
    name: String,
    words: Vec<Word>,
}

enum Word {
    Text(String),
    /// `$NAME` or `${NAME}` outside single quotes.
    Variable(String),
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Reads shell-like assignments: `export` before the name is ignored, quotes group, a backslash escapes, `#` after a blank comments.
fn assignments(content: &str) -> Vec<Result<Assignment, (usize, String)>> {
    let mut found = Vec::new();
    let mut lines = content.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let line = index + 1;
        let mut text = first.trim_start().to_owned();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if let Some(rest) = text.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])) {
            text = rest.trim_start().to_owned();
        }
        let Some((name, mut value)) = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())) else {
            found.push(Err((line, "the line has no `=`".to_owned())));
            continue;
        };
        if !is_name(&name) {
            found.push(Err((line, "what stands before `=` is not a variable's name".to_owned())));
            continue;
        }
        let words = loop {
            match words(&value) {
                Ok(words) => break Ok(words),
                Err(Open::Quote) => match lines.next() {
                    Some((_, next)) => {
                        value.push('\n');
                        value.push_str(next);
                    }
                    None => break Err((line, "a quote is not closed".to_owned())),
                },
                Err(Open::Trailing) => break Err((line, format!("something stands behind the value of {name}; quote values with blanks"))),
            }
        };
        found.push(words.map(|words| Assignment { line, name, words }));
    }
    found
}

enum Open {
    Quote,
    /// What it is stays unsaid: it is a part of a password often enough.
    Trailing,
}

fn words(value: &str) -> Result<Vec<Word>, Open> {
    let mut words = Vec::new();
    let mut text = String::new();
    let mut characters = value.chars().peekable();
    let mut quote: Option<char> = None;
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\'', None) => quote = Some('\''),
            ('"', None) => quote = Some('"'),
            ('\'', Some('\'')) | ('"', Some('"')) => quote = None,
            ('\\', None) => text.extend(characters.next()),
            ('\\', Some('"')) => match characters.next() {
                Some(escaped @ ('"' | '\\' | '$' | '`')) => text.push(escaped),
                Some(other) => text.extend(['\\', other]),
                None => return Err(Open::Quote),
            },
            ('$', None | Some('"')) => {
                let braced = characters.next_if_eq(&'{').is_some();
                let mut name = String::new();
                while let Some(c) = characters.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
                let closed = !braced || characters.next_if_eq(&'}').is_some();
                if name.is_empty() || !closed {
                    text.push('$');
                    if braced {
                        text.push('{');
                    }
                    text.push_str(&name);
                } else {
                    words.push(Word::Text(std::mem::take(&mut text)));
                    words.push(Word::Variable(name));
                }
            }
            (' ' | '\t' | '\r', None) => {
                let rest: String = characters.collect();
                let rest = rest.trim();
                if rest.is_empty() || rest.starts_with('#') {
                    words.push(Word::Text(text));
                    return Ok(words);
                }
                return Err(Open::Trailing);
            }
            (other, _) => text.push(other),
        }
    }
    if quote.is_some() {
        return Err(Open::Quote);
    }
    words.push(Word::Text(text));
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str) -> Result<Values, Problem> {
        Values::new(&[], Environment::default(), &[("a.env".to_owned(), content.to_owned())])
    }

    #[test]
    fn shell_like_assignments() {
        let values = read(concat!(
            "# a comment\n\nA=1\nexport B=two\n export C='three # not a comment' # comment\n",
            "D=\"quo\\\"ted $B\"\nE=\nF=a\\ b\nG='$B'\nH=${B}x\nI=\"two\nlines\"\nexport J=\"\"\nK=6E:52#x\n",
        ))
        .unwrap();
        for (name, expected) in [
            ("A", "1"),
            ("B", "two"),
            ("C", "three # not a comment"),
            ("D", "quo\"ted two"),
            ("E", ""),
            ("F", "a b"),
            ("G", "$B"),
            ("H", "twox"),
            ("I", "two\nlines"),
            ("J", ""),
            ("K", "6E:52#x"),
        ] {
            assert_eq!(values.get(name).map(|value| value.text).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(values.get("I").unwrap().source.to_string(), "a.env:11");
    }

    #[test]
    fn lines_that_assign_nothing_are_refused_with_their_place() {
        for (content, line) in [("A=1\nnonsense\n", "a.env:2"), ("1A=2", "a.env:1"), ("A='open", "a.env:1"), ("A=two words", "a.env:1")] {
            assert!(read(content).unwrap_err().what.contains(line), "{content}");
        }
        let problem = read("export PASSWORD=half secretPASS\n").unwrap_err().to_string();
        assert!(problem.contains("PASSWORD") && !problem.contains("secretPASS") && !problem.contains("half"), "{problem}");
        let problem = Values::new(&["secretPASS".to_owned()], Environment::default(), &[]).unwrap_err().to_string();
        assert!(!problem.contains("secretPASS"), "{problem}");
    }

    #[test]
    fn flags_win_over_the_environment_over_files_and_a_later_file_wins() {
        let process = Environment::of([("P".to_owned(), "process".to_owned()), ("F".to_owned(), "process".to_owned())].into());
        let files = [("1.env".to_owned(), "P=1\nF=1\nX=1\nY=1".to_owned()), ("2.env".to_owned(), "X=2".to_owned())];
        let values = Values::new(&["F=flag=x".to_owned()], process, &files).unwrap();
        let seen = |name: &str| values.get(name).map(|value| (value.text, value.source.to_string())).unwrap();
        assert_eq!(seen("F"), ("flag=x".to_owned(), "--set".to_owned()));
        assert_eq!(seen("P"), ("process".to_owned(), "environment".to_owned()));
        assert_eq!(seen("X"), ("2".to_owned(), "2.env:1".to_owned()));
        assert_eq!(seen("Y"), ("1".to_owned(), "1.env:4".to_owned()));
        assert!(values.get("Z").is_none());
    }
}
