//! A wait, told in full: on what, since when, until when. The text is the same on every pass, so that it can stand in a condition.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Something that is waited for. Shows as `waiting for X since 12:03:10 (limit 12:23:10)`, times in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What is waited for, as it stands after "waiting for".
    pub on: String,
    pub since: Timestamp,
    /// When waiting becomes a failure to be told; none when it may last.
    pub until: Option<Timestamp>,
}

impl Wait {
    /// A wait that began when the condition that tells it last changed its status, or begins `now` when it was not told yet.
    pub fn since_transition(on: impl Into<String>, last_transition: Option<&Time>, now: Timestamp) -> Self {
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let since = last_transition.map_or(now, |time| time.0.min(now));
        Self { on: on.into(), since, until: None }
    }

    /// The same wait with a limit counted from its beginning.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.until = SignedDuration::try_from(limit).ok().and_then(|limit| self.since.checked_add(limit).ok());
        self
    }

    /// Whether the limit has passed.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now >= until)
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_other_day = |until: &Timestamp| until.strftime("%F").to_string() != self.since.strftime("%F").to_string();
        write!(f, "waiting for {} since {}", self.on, self.since.strftime("%T"))?;
        match self.until {
            Some(until) if is_other_day(&until) => write!(f, " (limit {})", until.strftime("%F %T")),
            Some(until) => write!(f, " (limit {})", until.strftime("%T")),
            None => Ok(()),
        }
    }
}
