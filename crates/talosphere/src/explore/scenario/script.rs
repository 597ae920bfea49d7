//! The form of a scenario file. What is misspelt or malformed is told with its file and line; nothing of it is played then.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;
use thiserror::Error;

use super::look::Look;
use super::world::Happening;
use crate::commands::duration;

/// Why a file is no scenario.
#[derive(Debug, Error)]
#[error("{file}:{line}: {reason}")]
pub struct ScriptError {
    pub file: String,
    pub line: u64,
    pub reason: String,
}

/// A scenario.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The file's name, for errors and for the transcript.
    #[serde(skip)]
    pub file: String,
    pub title: String,
    /// What it shows, in a few sentences.
    pub shows: String,
    /// What a user suffered from elsewhere, that this is the answer to.
    #[serde(default)]
    pub pain: String,
    pub seed: u64,
    /// Divides the simulator's demo times, which are a tenth of real ones.
    #[serde(default = "real")]
    pub speed: f64,
    /// Further VM templates in vCenter, as `simulate --template` names them.
    #[serde(default)]
    pub templates: Vec<String>,
    /// The user's files beside the examples, which they may replace.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// What the user changes in the examples.
    #[serde(default)]
    pub edits: BTreeMap<String, Vec<Edit>>,
    pub steps: Vec<Spanned<Step>>,
}

/// A text in a file and what takes its place.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    pub from: String,
    pub to: String,
}

/// As long as on real machines.
fn real() -> f64 {
    0.1
}

/// One step. Exactly one of `note`, `given`, `run`, `start`, `finish`, `wait`, `expect`, `pass`, `pick`, `world` and `show`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// A remark in the transcript.
    pub note: Option<String>,
    /// As `run`, for what is not the scenario's subject: of what is printed the last line is kept.
    pub given: Option<String>,
    /// A command is typed, and waited for.
    pub run: Option<String>,
    /// A command is typed in another terminal.
    pub start: Option<String>,
    /// The end of the command that was started is waited for, so long at most.
    pub finish: Option<Span>,
    /// The world is waited for, `within` so long.
    pub wait: Option<Look>,
    /// The world is so.
    pub expect: Option<Look>,
    /// Time passes.
    pub pass: Option<Span>,
    /// Names for what is there: `$NAME` in later steps.
    pub pick: Option<BTreeMap<String, String>>,
    /// Something happens outside.
    pub world: Option<Happening>,
    /// A condition of an object is asked for, or a field: `KIND/NAME CONDITION`, `KIND/NAME .metadata.finalizers`.
    pub show: Option<String>,
    /// Of `wait`: the limit. Of `run`: the time after which the scenario fails.
    pub within: Option<Span>,
    /// Of `run`, `start`: what is printed of changes that are followed is left out.
    pub brief: bool,
    /// Of `run`, `finish`: the error's code with which the command must fail.
    pub fails: Option<String>,
    /// Of `run`, `finish`, `show`: what must be among the output.
    pub says: Vec<String>,
    /// Of `run`, `finish`, `show`: what must not be.
    pub never_says: Vec<String>,
}

/// A duration as the commands take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration("a time span", &text).map(Self).map_err(|problem| D::Error::custom(problem.what))
    }
}

impl Step {
    /// How many things it is at once.
    fn actions(&self) -> usize {
        [
            self.note.is_some(),
            self.given.is_some(),
            self.run.is_some(),
            self.start.is_some(),
            self.finish.is_some(),
            self.wait.is_some(),
            self.expect.is_some(),
            self.pass.is_some(),
            self.pick.is_some(),
            self.world.is_some(),
            self.show.is_some(),
        ]
        .iter()
        .filter(|is_there| **is_there)
        .count()
    }

    /// What is wrong with it, if anything.
    fn objection(&self) -> Option<&'static str> {
        let is_ended = self.run.is_some() || self.finish.is_some();
        if self.actions() != 1 {
            return Some("a step is exactly one of note, given, run, start, finish, wait, expect, pass, pick, world, show");
        }
        if self.wait.is_some() != self.within.is_some() && self.run.is_none() {
            return Some("`wait` needs `within`, and nothing else but `run` has it");
        }
        if self.brief && self.run.is_none() && self.start.is_none() {
            return Some("`brief` belongs to `run` or `start`");
        }
        if self.fails.is_some() && !is_ended {
            return Some("`fails` belongs to `run` or `finish`");
        }
        if (!self.says.is_empty() || !self.never_says.is_empty()) && !is_ended && self.show.is_none() {
            return Some("`says` and `never_says` belong to `run`, `finish` or `show`");
        }
        None
    }
}

impl Script {
    /// Reads a file's text.
    ///
    /// # Errors
    /// When it is no scenario.
    pub fn read(file: &str, text: &str) -> Result<Self, ScriptError> {
        let wrong = |line: u64, reason: String| ScriptError { file: file.to_owned(), line, reason };
        let options = serde_saphyr::options! { with_snippet: false };
        let mut script: Self = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let place = error.location();
            wrong(place.map_or(1, |place| place.line()), error.without_snippet().to_string())
        })?;
        for step in &script.steps {
            if let Some(objection) = step.value.objection() {
                return Err(wrong(step.referenced.line(), objection.to_owned()));
            }
        }
        file.clone_into(&mut script.file);
        Ok(script)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "title: t\nshows: s\nseed: 1\nsteps:\n";

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (steps, line, told) in [
            ("- note: a\n- nota: b\n", 6, "nota"),
            ("- note: a\n- {note: b, run: c}\n", 6, "exactly one"),
            ("- pass: 10\n", 5, "a time span 10 is not a duration"),
            ("- note: a\n- wait: {ready: true}\n", 6, "needs `within`"),
            ("- wait: {read: true}\n  within: 1m\n", 5, "read"),
            ("- world: {vm-painted: x}\n", 5, "vm-painted"),
            ("- note: a\n  says: [b]\n", 5, "belong to"),
            ("- pass: 1s\n  brief: true\n", 5, "belongs to"),
        ] {
            let error = Script::read("s.yaml", &format!("{HEAD}{steps}")).unwrap_err();
            assert!(error.line == line && error.reason.contains(told), "{steps}: {error}");
            assert!(error.to_string().starts_with(&format!("s.yaml:{line}: ")));
        }
        let script =
            Script::read("s.yaml", &format!("{HEAD}- run: talosphere get machines\n  within: 1m\n- world: sessions-end\n")).unwrap();
        assert_eq!((script.steps.len(), script.speed), (2, 0.1));
    }
}
