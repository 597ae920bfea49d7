//! The queue of one controller: which keys are ready, delayed or running. First come, first served; each key at most once in line and
//! at most once running. A plain value: time is handed in.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::key::ObjectKey;

/// So many runs of a key in a row, each caused by nothing but the run before it, are a loop that does not settle.
const MOST_SELF_CAUSED: u32 = 50;

#[derive(Debug, Default)]
struct Entry {
    is_ready: bool,
    is_running: bool,
    /// Changed by others while it ran.
    is_dirty: bool,
    /// Changed by its own run.
    is_self_dirty: bool,
    /// Where it stands in `delayed`.
    due: Option<(Instant, u64)>,
    failures: u32,
    last_error: Option<String>,
    self_caused: u32,
}

impl Entry {
    fn is_idle(&self) -> bool {
        !self.is_ready && !self.is_running && self.due.is_none() && self.failures == 0
    }
}

/// How a run ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    After(Duration),
    /// Failed; tried again after what `delay` makes of the number of failures in a row.
    Failed {
        error: String,
        is_counted: bool,
    },
}

/// What the queue made of a run's end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    Well,
    /// The key changes itself without end and is slowed down.
    Restless,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: BTreeMap<ObjectKey, Entry>,
    ready: VecDeque<ObjectKey>,
    delayed: BTreeMap<(Instant, u64), ObjectKey>,
    sequence: u64,
    running: usize,
    /// For how long a key rests after a run.
    rest: Duration,
    /// Until when keys rest, and the same in the order of time.
    resting: BTreeMap<ObjectKey, Instant>,
    rested: VecDeque<(Instant, ObjectKey)>,
}

impl Queue {
    /// From now on keys rest so long after each run.
    pub fn set_rest(&mut self, rest: Duration) {
        self.rest = rest;
    }

    fn make_ready(&mut self, key: &ObjectKey) {
        let entry = self.entries.entry(key.clone()).or_default();
        if let Some(due) = entry.due.take() {
            self.delayed.remove(&due);
        }
        if !entry.is_ready {
            entry.is_ready = true;
            self.ready.push_back(key.clone());
        }
    }

    /// Makes a key ready when it has rested.
    fn make_ready_rested(&mut self, key: &ObjectKey, now: Instant) {
        match self.resting.get(key).copied().filter(|until| *until > now) {
            None => self.make_ready(key),
            Some(until) => self.delay(key, until),
        }
    }

    /// Makes a key ready at a time, or earlier when it was to be so already.
    fn delay(&mut self, key: &ObjectKey, at: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.is_ready || entry.due.is_some_and(|(due, _)| due <= at) {
            return;
        }
        let due = (at, self.sequence);
        self.sequence += 1;
        if let Some(later) = entry.due.replace(due) {
            self.delayed.remove(&later);
        }
        self.delayed.insert(due, key.clone());
    }

    /// Something changed that concerns `key`. `is_own` tells that the key's present run did it.
    pub fn add(&mut self, key: &ObjectKey, is_own: bool, now: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        if !is_own {
            entry.self_caused = 0;
        }
        if entry.is_running {
            entry.is_dirty |= !is_own;
            entry.is_self_dirty |= is_own;
        } else {
            self.make_ready_rested(key, now);
        }
    }

    /// The next key to run, if one is ready or due.
    pub fn take(&mut self, now: Instant) -> Option<ObjectKey> {
        while let Some((until, key)) = self.rested.pop_front_if(|(until, _)| *until <= now) {
            if self.resting.get(&key) == Some(&until) {
                self.resting.remove(&key);
            }
        }
        while let Some((&(due, sequence), _)) = self.delayed.first_key_value() {
            if due > now {
                break;
            }
            if let Some(key) = self.delayed.remove(&(due, sequence)) {
                self.make_ready(&key);
            }
        }
        let key = self.ready.pop_front()?;
        let entry = self.entries.entry(key.clone()).or_default();
        entry.is_ready = false;
        entry.is_running = true;
        self.running += 1;
        Some(key)
    }

    /// When the next delayed key is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|((due, _), _)| *due)
    }

    /// The run of `key` ended. `delay` turns the number of failures in a row into a time.
    pub fn finish(&mut self, key: &ObjectKey, outcome: Outcome, now: Instant, delay: impl Fn(u32) -> Duration) -> Settled {
        let Some(entry) = self.entries.get_mut(key) else { return Settled::Well };
        entry.is_running = false;
        self.running = self.running.saturating_sub(1);
        let is_changed = std::mem::take(&mut entry.is_dirty);
        let is_self_changed = std::mem::take(&mut entry.is_self_dirty);
        let mut settled = Settled::Well;
        let mut again = is_changed;
        let after = match outcome {
            Outcome::Failed { error, is_counted } => {
                entry.failures += 1;
                entry.last_error = is_counted.then_some(error).or_else(|| entry.last_error.take());
                Some(delay(entry.failures))
            }
            Outcome::Done | Outcome::After(_) => {
                entry.failures = 0;
                entry.last_error = None;
                entry.self_caused = if is_self_changed && !is_changed { entry.self_caused + 1 } else { 0 };
                if entry.self_caused > MOST_SELF_CAUSED {
                    settled = Settled::Restless;
                    Some(delay(entry.self_caused - MOST_SELF_CAUSED))
                } else {
                    again |= is_self_changed;
                    if let Outcome::After(after) = outcome { Some(after) } else { None }
                }
            }
        };
        let is_idle = entry.is_idle() && entry.self_caused == 0;
        if !self.rest.is_zero() {
            let until = now + self.rest;
            self.resting.insert(key.clone(), until);
            self.rested.push_back((until, key.clone()));
        }
        if again {
            self.make_ready_rested(key, now);
        } else if let Some(due) = after.and_then(|after| now.checked_add(after)) {
            self.delay(key, due);
        } else if is_idle {
            self.entries.remove(key);
        }
        settled
    }

    pub fn running(&self) -> usize {
        self.running
    }

    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    pub fn delayed(&self) -> usize {
        self.delayed.len()
    }

    /// The keys whose last run failed, with the error and how often in a row.
    pub fn failing(&self) -> Vec<(ObjectKey, String, u32)> {
        let failing = self.entries.iter().filter_map(|(key, entry)| Some((key.clone(), entry.last_error.clone()?, entry.failures)));
        failing.collect()
    }
}
