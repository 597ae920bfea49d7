//! A tree on a terminal, redrawn in place; lines scroll above it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is drawn now.
#[derive(Debug)]
pub struct Live {
    bar: Option<ProgressBar>,
}

impl Live {
    pub fn new() -> Self {
        Self { bar: None }
    }

    pub fn tree(&mut self, text: &str) {
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("{msg}\n{spinner} {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        bar.set_message(text.to_owned());
    }

    pub fn line(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => {
                use std::io::Write as _;
                let _ = writeln!(std::io::stderr().lock(), "{text}");
            }
        }
    }

    pub fn settle(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }
}
