//! How long vCenter's work takes. Scaled as a whole; zero makes every task be over before its caller hears of it.

use std::time::Duration;

use super::clone::LINKED;
use super::operation::Operation;

/// Durations of tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    pub linked_clone: Duration,
    pub full_clone: Duration,
    pub reconfigure: Duration,
    pub power_on: Duration,
    pub power_off: Duration,
    pub destroy: Duration,
    pub snapshot: Duration,
    /// Clones that run at the same time; more of them queue.
    pub concurrent_clones: usize,
    /// Until the network says that nobody has an address.
    pub unreachable: Duration,
}

impl Latency {
    /// Times of a real vCenter, roughly.
    pub fn real() -> Self {
        let seconds = Duration::from_secs;
        Self {
            linked_clone: seconds(8),
            full_clone: seconds(60),
            reconfigure: seconds(2),
            power_on: seconds(3),
            power_off: seconds(2),
            destroy: seconds(3),
            snapshot: seconds(3),
            concurrent_clones: 8,
            unreachable: seconds(3),
        }
    }

    /// Real times multiplied by `factor`.
    pub fn scaled(factor: f64) -> Self {
        let factor = if factor.is_finite() { factor.max(0.0) } else { 1.0 };
        let mut all = Self::real();
        for step in [
            &mut all.linked_clone,
            &mut all.full_clone,
            &mut all.reconfigure,
            &mut all.power_on,
            &mut all.power_off,
            &mut all.destroy,
            &mut all.snapshot,
            &mut all.unreachable,
        ] {
            *step = step.mul_f64(factor);
        }
        all
    }

    /// Everything at once.
    pub fn none() -> Self {
        Self::scaled(0.0)
    }

    /// How long an operation takes.
    pub(crate) fn of(&self, operation: &Operation) -> Duration {
        match operation {
            Operation::Clone { spec, .. } if spec.location.disk_move_type.as_deref() == Some(LINKED) => self.linked_clone,
            Operation::Clone { .. } => self.full_clone,
            Operation::Reconfigure { .. } => self.reconfigure,
            Operation::PowerOn { .. } => self.power_on,
            Operation::PowerOff { .. } => self.power_off,
            Operation::Destroy { .. } => self.destroy,
            Operation::Snapshot { .. } => self.snapshot,
            Operation::Rename { .. } | Operation::Search { .. } => Duration::ZERO,
        }
    }
}
