//! Makes a failing history shorter: as long as the same rule breaks, moments are dropped, workers and control planes are, and what lasts
//! lasts shorter. What is left is the story to read.

use std::time::Duration;

use runtime::defects::Defects;

use super::history::{History, What};
use super::player::{Outcome, play};
use crate::problem::Problem;

/// Histories played at most: past this, what was found is short enough.
const TRIES: u32 = 200;

/// The shortest history found that breaks one of the rules that `outcome`'s does, and what came of it.
///
/// # Errors
/// When a world cannot be set up.
pub fn shrink(outcome: Outcome, defects: &Defects) -> Result<Outcome, Problem> {
    let rules: Vec<u8> = outcome.broken.iter().map(|violation| violation.rule).collect();
    let mut search = Search { best: outcome, rules, left: TRIES, defects };
    loop {
        let before = search.best.history.clone();
        search.drop_moments()?;
        search.make_smaller()?;
        search.make_briefer()?;
        if search.best.history == before || search.left == 0 {
            return Ok(search.best);
        }
    }
}

struct Search<'a> {
    best: Outcome,
    rules: Vec<u8>,
    left: u32,
    defects: &'a Defects,
}

impl Search<'_> {
    /// Takes a history if it still fails in the same way.
    fn take(&mut self, history: &History) -> Result<bool, Problem> {
        if self.left == 0 || *history == self.best.history {
            return Ok(false);
        }
        self.left -= 1;
        let outcome = play(history, self.defects)?;
        let is_same = outcome.broken.iter().any(|violation| self.rules.contains(&violation.rule));
        if is_same {
            self.best = outcome;
        }
        Ok(is_same)
    }

    /// Halves, quarters, single moments.
    fn drop_moments(&mut self) -> Result<(), Problem> {
        let mut size = self.best.history.moments.len().div_ceil(2);
        while size > 0 {
            let mut first = 0;
            while first < self.best.history.moments.len() {
                let shorter = self.best.history.without(|at| (first..first + size).contains(&at));
                if !self.take(&shorter)? {
                    first += size;
                }
            }
            size /= 2;
        }
        Ok(())
    }

    fn make_smaller(&mut self) -> Result<(), Problem> {
        let best = |search: &Self| search.best.history.clone();
        let smaller: [fn(&mut History); 4] = [
            |history| history.shape.control_planes = 1,
            |history| history.shape.workers = 0,
            |history| history.shape.workers = history.shape.workers.saturating_sub(1),
            |history| history.shape.speed = 1.0,
        ];
        for change in smaller {
            let mut history = best(self);
            change(&mut history);
            self.take(&history)?;
        }
        Ok(())
    }

    /// What lasts is halved.
    fn make_briefer(&mut self) -> Result<(), Problem> {
        for at in 0..self.best.history.moments.len() {
            let mut history = self.best.history.clone();
            if let Some(moment) = history.moments.get_mut(at)
                && let What::Fault(fault) = &mut moment.what
                && let Some(lasts) = fault.lasts().filter(|lasts| **lasts > Duration::from_secs(2))
            {
                *lasts /= 2;
                self.take(&history)?;
            }
        }
        Ok(())
    }
}
