//! Wall-clock time, handed in. Intervals and deadlines use tokio's clock, which a simulated run pauses; this clock follows it.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use tokio::time::Instant;

/// Where "now" comes from.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System,
    Virtual { start: Timestamp, origin: Instant },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Arc::new(Source::System))
    }

    /// A clock that shows `start` now and advances with tokio's (possibly paused) clock. Must be called inside a runtime.
    pub fn starting_at(start: Timestamp) -> Self {
        Self(Arc::new(Source::Virtual { start, origin: Instant::now() }))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            #[allow(clippy::disallowed_methods)] // the one place that reads the machine's clock
            Source::System => Timestamp::now(),
            Source::Virtual { start, origin } => {
                let elapsed = SignedDuration::try_from(origin.elapsed()).unwrap_or(SignedDuration::MAX);
                start.checked_add(elapsed).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// The time now, to the second, as Kubernetes writes it.
    pub fn now_seconds(&self) -> Timestamp {
        let now = self.now();
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }

    /// Completes after `duration`.
    #[allow(clippy::disallowed_methods)]
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// A monotonic instant, for measuring intervals.
    #[allow(clippy::disallowed_methods)]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
