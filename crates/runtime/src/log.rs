//! The canonical log: what every actor did, when, on which object, with what result. Two runs of one seed compare equal byte for byte.
//! Every line passes a tap, so that a checker sees each byte that leaves the system.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::clock::Clock;

/// One line of the canonical log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub at: Timestamp,
    /// Who acted: a controller (`machine`), a face of the simulator (`vcenter`), a command (`up`).
    pub actor: String,
    /// What was done, as a short verb phrase: `clone`, `power-on`, `bootstrap`.
    pub step: String,
    /// On what: `Machine default/demo-cp-x7k2p`, `vm-1042`.
    pub object: String,
    /// `ok`, or what came of it.
    pub result: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} {} {} {}: {}", self.at, self.actor, self.step, self.object, self.result)
    }
}

type Tap = dyn Fn(&Entry) + Send + Sync;

/// Takes entries. Cheap to clone; clones share the sink.
#[derive(Clone)]
pub struct Log {
    clock: Clock,
    shared: Arc<Shared>,
}

struct Shared {
    kept: Option<Mutex<Vec<Entry>>>,
    taps: Mutex<Vec<Arc<Tap>>>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

impl Log {
    /// Passes entries to taps and to `tracing` only.
    pub fn passing(clock: Clock) -> Self {
        Self { clock, shared: Arc::new(Shared { kept: None, taps: Mutex::default() }) }
    }

    /// Keeps every entry as well, for comparison.
    pub fn keeping(clock: Clock) -> Self {
        Self { clock, shared: Arc::new(Shared { kept: Some(Mutex::default()), taps: Mutex::default() }) }
    }

    /// Calls `tap` with every later entry.
    pub fn tap(&self, tap: impl Fn(&Entry) + Send + Sync + 'static) {
        self.shared.taps.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(tap));
    }

    /// Records one entry at the present time.
    pub fn record(&self, actor: &str, step: &str, object: impl fmt::Display, result: impl fmt::Display) {
        let entry = Entry {
            at: self.clock.now(),
            actor: actor.to_owned(),
            step: step.to_owned(),
            object: object.to_string(),
            result: result.to_string(),
        };
        tracing::debug!(target: "talosphere::steps", "{entry}");
        let taps = self.shared.taps.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for tap in taps {
            tap(&entry);
        }
        if let Some(kept) = &self.shared.kept {
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        }
    }

    /// What was kept so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.shared.kept.as_ref().map(|kept| kept.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
    }
}
