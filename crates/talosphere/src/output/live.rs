//! A tree on a terminal, redrawn in place; lines scroll above it.
//!
//! What is redrawn never takes more lines than the terminal has, and no line more than its columns: a line that wraps, or one that has
//! scrolled away, cannot be erased any more.

use std::io::Write as _;
use std::time::Duration;

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::tree::{Node, Style};

/// The lines that a tree leaves free: the spinner, and the one that the cursor needs.
const MARGIN: u16 = 3;

/// What is drawn now.
#[derive(Debug)]
pub struct Live {
    bar: Option<ProgressBar>,
    tree: Option<Node>,
    is_coloured: bool,
}

impl Live {
    pub fn new(is_coloured: bool) -> Self {
        Self { bar: None, tree: None, is_coloured }
    }

    fn drawn(&self) -> Option<String> {
        let (rows, columns) = Term::stderr().size();
        let style = Style {
            width: Some(usize::from(columns.saturating_sub(1)).max(1)),
            height: Some(usize::from(rows.saturating_sub(MARGIN)).max(1)),
            is_coloured: self.is_coloured,
            is_wide: false,
        };
        self.tree.as_ref().map(|tree| tree.draw_as(style))
    }

    /// Shows a tree in the place of the one before; none when there is nothing to show any more.
    pub fn tree(&mut self, tree: Option<&Node>) {
        self.tree = tree.cloned();
        let Some(text) = self.drawn() else {
            if let Some(bar) = self.bar.take() {
                bar.finish_and_clear();
            }
            return;
        };
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("{msg}\n{spinner} {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        bar.set_message(text);
    }

    pub fn line(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => {
                let _ = writeln!(std::io::stderr().lock(), "{text}");
            }
        }
    }

    /// Leaves the tree as it stands, without the spinner, and goes on below it.
    pub fn settle(&mut self) {
        let Some(bar) = self.bar.take() else { return };
        bar.finish_and_clear();
        if let Some(text) = self.drawn() {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
        self.tree = None;
    }
}
