//! Counts what can be seen of a run from outside: calls and changing requests, before and after their effect. At any of them a world
//! can be made to die, synchronously, so that "just before the effect" and "just after it" are exact.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

type Blow = Box<dyn FnOnce() + Send>;

/// The count. Clones share it.
#[derive(Clone, Default)]
pub struct Pulse(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    fell: Notify,
}

#[derive(Default)]
struct State {
    beats: u64,
    armed: Option<(u64, Blow)>,
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pulse")
    }
}

impl Pulse {
    /// One more thing happened.
    pub fn beat(&self) {
        let blow = {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.beats += 1;
            let beats = state.beats;
            state.armed.take_if(|(at, _)| beats >= *at)
        };
        if let Some((_, blow)) = blow {
            blow();
            self.0.fell.notify_one();
        }
    }

    /// How much has happened so far.
    pub fn beats(&self) -> u64 {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).beats
    }

    /// Calls `blow` at the `beats`th beat from now, instead of what was armed before.
    pub fn arm(&self, beats: u64, blow: impl FnOnce() + Send + 'static) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.armed = Some((state.beats + beats.max(1), Box::new(blow)));
    }

    /// Whether a blow is yet to fall.
    pub fn is_armed(&self) -> bool {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).armed.is_some()
    }

    /// Takes the blow back that has not fallen; it never will.
    pub fn disarm(&self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).armed = None;
    }

    /// Completes when a blow fell.
    pub async fn fell(&self) {
        self.0.fell.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_blow_falls_once_at_its_beat() {
        let pulse = Pulse::default();
        let fell = Arc::new(AtomicU64::new(0));
        pulse.beat();
        let (count, seen) = (fell.clone(), pulse.clone());
        pulse.arm(2, move || {
            count.fetch_add(seen.beats(), Ordering::Relaxed);
        });
        for expected in [0, 3, 3] {
            pulse.beat();
            assert_eq!(fell.load(Ordering::Relaxed), expected);
        }
        pulse.arm(1, || panic!("it was taken back"));
        pulse.disarm();
        pulse.beat();
    }
}
