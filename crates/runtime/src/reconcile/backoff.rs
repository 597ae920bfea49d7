//! The one retry policy: delays that double from a base to a cap, lengthened by seeded jitter so that failures do not march in step.

use std::time::Duration;

use crate::random::Random;

/// How long to wait before the nth repetition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub base: Duration,
    pub cap: Duration,
    /// The share of the delay that jitter may add, 0.0 to 1.0.
    pub jitter: f64,
}

impl Backoff {
    /// For reconciles: 50 ms doubling to 60 s.
    pub const RECONCILE: Self = Self { base: Duration::from_millis(50), cap: Duration::from_secs(60), jitter: 0.2 };
    /// For broken watches: 100 ms doubling to 30 s.
    pub const WATCH: Self = Self { base: Duration::from_millis(100), cap: Duration::from_secs(30), jitter: 0.2 };

    /// The delay after `failures` failures in a row (one or more).
    pub fn delay(&self, failures: u32, random: &Random) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let delay = self.base.saturating_mul(1 << doublings).min(self.cap);
        random.jitter(delay, self.jitter)
    }
}
