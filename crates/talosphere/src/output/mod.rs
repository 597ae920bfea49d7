//! The one gate to the terminal: data to standard output, progress to standard error.
//!
//! On a terminal progress is a tree that is redrawn in place; elsewhere it is one timestamped line per change. Whatever passes here
//! also passes a tap, so that a checker sees every byte.

mod live;
pub mod table;

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use runtime::clock::Clock;
use serde_json::Value;

use crate::environment::Environment;
use crate::problem::{Code, Problem};
use crate::render::yaml;
use crate::tree::{Node, Style};

use self::live::Live;

type Tap = dyn Fn(&str) + Send + Sync;

/// Writes for the user. Cheap to clone.
#[derive(Clone)]
pub struct Printer {
    clock: Clock,
    live: Option<Arc<Mutex<Live>>>,
    tap: Option<Arc<Tap>>,
    sink: Sink,
    /// Whether a terminal may be sent colours.
    is_coloured: bool,
}

/// Where text goes.
#[derive(Clone)]
enum Sink {
    Standard,
    Nowhere,
    Kept(Arc<Keeper>),
}

type Keeper = dyn Fn(Spoken, &str) + Send + Sync;

/// In what way something was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// Data, or text for people without a time in front.
    Plain,
    /// A line for people, with its time in front.
    Line,
    /// The same, of a change that is followed.
    Change,
}

impl fmt::Debug for Printer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Printer")
    }
}

/// Whether standard error is a terminal that shows colours. `NO_COLOR` takes them, `TERM=dumb` takes every control sequence.
pub fn is_coloured(environment: &Environment) -> bool {
    environment.get("TERM") != Some("dumb") && environment.non_empty("NO_COLOR").is_none() && io::stderr().is_terminal()
}

impl Printer {
    /// Standard output and standard error. `NO_COLOR` takes the colours, `TERM=dumb` every control sequence.
    pub fn standard(clock: Clock, environment: &Environment) -> Self {
        let is_rich = environment.get("TERM") != Some("dumb");
        let is_coloured = is_rich && environment.non_empty("NO_COLOR").is_none();
        let is_live = is_rich && io::stderr().is_terminal();
        let live = is_live.then(|| Arc::new(Mutex::new(Live::new(is_coloured))));
        Self { clock, live, tap: None, sink: Sink::Standard, is_coloured }
    }

    /// Discards everything, after showing it to `tap`.
    pub fn tapped(clock: Clock, tap: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { clock, live: None, tap: Some(Arc::new(tap)), sink: Sink::Nowhere, is_coloured: false }
    }

    /// The same, but what a user would see on a terminal that is no terminal goes to `keep`.
    #[must_use]
    pub fn kept(&self, keep: impl Fn(Spoken, &str) + Send + Sync + 'static) -> Self {
        Self { live: None, sink: Sink::Kept(Arc::new(keep)), ..self.clone() }
    }

    /// Whether a question can be asked.
    pub fn is_interactive(&self) -> bool {
        matches!(self.sink, Sink::Standard) && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    fn show(&self, text: &str) {
        if let Some(tap) = &self.tap {
            tap(text);
        }
    }

    fn keep(&self, spoken: Spoken, text: &str) {
        let Sink::Kept(keep) = &self.sink else { return };
        match spoken {
            Spoken::Plain => keep(spoken, text.strip_suffix('\n').unwrap_or(text)),
            Spoken::Line | Spoken::Change => keep(spoken, &format!("{} {text}", self.clock.now().strftime("%H:%M:%S"))),
        }
    }

    /// Data, as it is.
    pub fn data(&self, text: &str) {
        self.show(text);
        self.keep(Spoken::Plain, text);
        if matches!(self.sink, Sink::Standard) {
            let mut out = io::stdout().lock();
            // A reader that went away (`| head`) is no failure of ours.
            let _ = out.write_all(text.as_bytes()).and_then(|()| if text.ends_with('\n') { Ok(()) } else { out.write_all(b"\n") });
            let _ = out.flush();
        }
    }

    /// One value as YAML or JSON.
    ///
    /// # Errors
    /// When the value cannot be written.
    pub fn value(&self, value: &Value, as_json: bool) -> Result<(), Problem> {
        let text = if as_json { serde_json::to_string_pretty(value).map_err(|error| error.to_string()) } else { yaml::write(value) };
        self.data(&text.map_err(|error| Problem::new(Code::Internal, error))?);
        Ok(())
    }

    /// A line for people: what happened just now.
    pub fn line(&self, text: impl fmt::Display) {
        self.say(Spoken::Line, &text.to_string());
    }

    fn say(&self, spoken: Spoken, text: &str) {
        self.show(text);
        self.keep(spoken, text);
        if !matches!(self.sink, Sink::Standard) {
            return;
        }
        match &self.live {
            Some(live) => live.lock().unwrap_or_else(PoisonError::into_inner).line(text),
            None => {
                let _ = writeln!(io::stderr().lock(), "{} {text}", self.clock.now().strftime("%H:%M:%S"));
            }
        }
    }

    /// Text for people without a time in front: help after success, an error.
    pub fn note(&self, text: impl fmt::Display) {
        let text = text.to_string();
        self.show(&text);
        self.keep(Spoken::Plain, &text);
        if !matches!(self.sink, Sink::Standard) {
            return;
        }
        match &self.live {
            Some(live) => live.lock().unwrap_or_else(PoisonError::into_inner).line(&text),
            None => {
                let _ = writeln!(io::stderr().lock(), "{text}");
            }
        }
    }

    /// A tree as data; with colours on a terminal.
    pub fn tree(&self, tree: &Node, is_wide: bool) {
        let is_coloured = self.is_coloured && matches!(self.sink, Sink::Standard) && io::stdout().is_terminal();
        self.data(&tree.draw_as(Style { is_coloured, is_wide, ..Style::default() }));
    }

    /// The state of things: redrawn in place on a terminal, where `changes` are not printed; elsewhere each change is one line.
    pub fn progress(&self, tree: Option<&Node>, changes: &[String]) {
        if let Some(tree) = tree.filter(|_| self.tap.is_some()) {
            self.show(&tree.draw());
        }
        match &self.live {
            Some(live) if matches!(self.sink, Sink::Standard) => live.lock().unwrap_or_else(PoisonError::into_inner).tree(tree),
            _ => changes.iter().for_each(|change| self.say(Spoken::Change, change)),
        }
    }

    /// Leaves the tree as it stands and goes on below it.
    pub fn settle(&self) {
        if let Some(live) = &self.live {
            live.lock().unwrap_or_else(PoisonError::into_inner).settle();
        }
    }

    /// Asks for `yes`. Only on a terminal.
    ///
    /// # Errors
    /// When there is no terminal to ask on.
    pub fn confirm(&self, question: &str) -> Result<bool, Problem> {
        if !self.is_interactive() {
            return Err(Problem::new(Code::Unconfirmed, format!("{question} - not confirmed, and there is no terminal to ask on"))
                .remedy("add --yes"));
        }
        let _ = write!(io::stderr().lock(), "{question} [y/N] ");
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map_err(|error| Problem::new(Code::Unconfirmed, error.to_string()))?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}
