//! The text of a scenario as it grows, and the names in it.
//!
//! Made-up suffixes of names are replaced by letters in the order in which they first appear, so that the text stays the same as long as
//! the product does the same: `demo-workers-9xk2p-x7b4c` is `demo-workers-aaaaa-bbbbb`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::output::Spoken;

/// Columns of what is told between commands.
const WIDTH: usize = 120;

/// Names that steps gave to what they picked.
#[derive(Clone, Debug, Default)]
pub struct Names(pub BTreeMap<String, String>);

impl Names {
    /// Puts names in the place of `$NAME`.
    pub fn fill(&self, text: &str) -> String {
        // The longest first: `$old2` is not `$old` and a 2.
        let mut names: Vec<(&String, &String)> = self.0.iter().collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        names.into_iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
    }
}

/// Lines so far. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Transcript(Arc<Mutex<Vec<String>>>);

impl Transcript {
    /// One line, or several.
    pub fn add(&self, text: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.extend(text.lines().map(|line| line.trim_end().to_owned()));
    }

    /// An empty line, unless there is one.
    pub fn gap(&self) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.last().is_some_and(|line| !line.is_empty()) {
            lines.push(String::new());
        }
    }

    /// A remark, wrapped.
    pub fn remark(&self, lead: &str, text: &str) {
        self.add(&wrapped(lead, text));
    }

    /// The whole text, with names made equal.
    pub fn text(&self, replaced: &[(String, String)]) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = lines.join("\n");
        for (from, to) in replaced {
            text = text.replace(from, to);
        }
        let mut text = equal_names(&text);
        text.push('\n');
        text
    }
}

/// How much of what a command prints is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    All,
    /// All but changes that are followed.
    Brief,
    /// The last line.
    Last,
}

/// What one command printed.
#[derive(Clone, Debug)]
pub struct Said {
    transcript: Transcript,
    kept: Kept,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Debug, Default)]
struct Heard {
    text: String,
    /// Lines that were left out since the last that was not.
    left_out: usize,
    last: String,
}

impl Said {
    pub fn new(transcript: &Transcript, kept: Kept) -> Self {
        Self { transcript: transcript.clone(), kept, heard: Arc::default() }
    }

    /// Takes what is printed.
    pub fn hear(&self, spoken: Spoken, text: &str) {
        let mut heard = self.heard();
        heard.text.push_str(text);
        heard.text.push('\n');
        if self.kept == Kept::Last && spoken != Spoken::Plain {
            heard.last = text.to_owned();
        }
        let is_left_out = match self.kept {
            Kept::All => false,
            Kept::Brief => spoken == Spoken::Change,
            Kept::Last => true,
        };
        if is_left_out {
            heard.left_out += 1;
        } else {
            self.tell_left_out(&mut heard);
            self.transcript.add(text);
        }
    }

    /// The command has ended; an error is kept in any case.
    pub fn over(&self, error: Option<&str>) {
        let mut heard = self.heard();
        if self.kept == Kept::Last {
            heard.left_out = heard.left_out.saturating_sub(1);
        }
        self.tell_left_out(&mut heard);
        let last = std::mem::take(&mut heard.last);
        self.transcript.add(&last);
        if let Some(error) = error {
            heard.text.push_str(error);
            self.transcript.add(error);
        }
    }

    fn tell_left_out(&self, heard: &mut Heard) {
        let what = if self.kept == Kept::Last { "lines" } else { "lines of progress" };
        if heard.left_out > 0 {
            self.transcript.add(&format!("         ({} {what})", heard.left_out));
            heard.left_out = 0;
        }
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was printed, left out or not.
    pub fn text(&self) -> String {
        self.heard().text.clone()
    }
}

/// A text in lines of [`WIDTH`], each behind a lead.
fn wrapped(lead: &str, text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let is_full = lines.last().is_some_and(|line| !line.is_empty() && lead.len() + line.len() + 1 + word.len() > WIDTH);
        if is_full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.iter().map(|line| format!("{lead}{line}")).collect::<Vec<_>>().join("\n")
}

/// Characters of made-up suffixes.
const SUFFIX: &str = "bcdfghjklmnpqrstvwxz2456789";
const LENGTH: usize = 5;
const STEMS: &[&str] = &["demo-control-plane-", "demo-workers-"];

/// The suffix that a text begins with.
fn suffix(text: &str) -> Option<&str> {
    let suffix = text.get(..LENGTH).filter(|suffix| suffix.chars().all(|c| SUFFIX.contains(c)))?;
    let is_whole = text.get(LENGTH..).and_then(|rest| rest.chars().next()).is_none_or(|next| !next.is_ascii_alphanumeric());
    is_whole.then_some(suffix)
}

/// `aaaaa`, `bbbbb`, ... `zzzzz`, `aaaab`.
fn letters(number: usize) -> String {
    let letter = |at: usize| char::from(b'a' + u8::try_from(at % 26).unwrap_or_default());
    std::iter::repeat_n(letter(number), LENGTH - 1).chain([letter(number / 26 + number)]).collect()
}

fn equal_names(text: &str) -> String {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, stem)) = STEMS.iter().filter_map(|stem| Some((rest.find(stem)?, *stem))).min() {
        let (before, after) = rest.split_at(at + stem.len());
        result.push_str(before);
        rest = after;
        while let Some(found) = suffix(rest) {
            let next = letters(known.len());
            result.push_str(known.entry(found.to_owned()).or_insert(next));
            rest = rest.get(LENGTH..).unwrap_or_default();
            let Some(further) = rest.strip_prefix('-').filter(|further| suffix(further).is_some()) else { break };
            result.push('-');
            rest = further;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_become_letters_and_other_names_stay() {
        let text = "Machine/demo-workers-9xk2p-x7b4c: up, demo-control-plane-9xk2q; demo-workers-9xk2p-zzzzz demo-workers-talos-1-10 demo-workers-nodes";
        let expected = "Machine/demo-workers-aaaaa-bbbbb: up, demo-control-plane-ccccc; demo-workers-aaaaa-ddddd demo-workers-talos-1-10 demo-workers-nodes";
        assert_eq!(equal_names(text), expected);
        let all: std::collections::BTreeSet<String> = (0..300).map(letters).collect();
        assert_eq!(all.len(), 300);
    }

    #[test]
    fn names_are_filled_in_and_remarks_wrapped() {
        let names = Names([("old".to_owned(), "a".to_owned()), ("old2".to_owned(), "b".to_owned())].into());
        assert_eq!(names.fill("x $old2 $old $other"), "x b a $other");
        let text = wrapped("# ", &"word ".repeat(40));
        assert!(text.lines().count() == 2 && text.lines().all(|line| line.len() <= WIDTH && line.starts_with("# word")), "{text}");
    }

    #[test]
    fn output_that_is_left_out_is_counted() {
        for (kept, shown) in [
            (Kept::All, "one\ntwo\nthree\nfour\n  hint\nbad\n"),
            (Kept::Brief, "one\n         (2 lines of progress)\nfour\n  hint\nbad\n"),
            (Kept::Last, "         (4 lines)\nfour\nbad\n"),
        ] {
            let transcript = Transcript::default();
            let said = Said::new(&transcript, kept);
            for (spoken, text) in [
                (Spoken::Line, "one"),
                (Spoken::Change, "two"),
                (Spoken::Change, "three"),
                (Spoken::Line, "four"),
                (Spoken::Plain, "  hint"),
            ] {
                said.hear(spoken, text);
            }
            said.over(Some("bad"));
            assert_eq!(transcript.text(&[]), shown);
            assert_eq!(said.text(), "one\ntwo\nthree\nfour\n  hint\nbad");
        }
    }
}
