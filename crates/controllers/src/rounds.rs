//! Rounds of replacements that did not last: what ends a loop of Machines that never become healthy. Pure.
//!
//! A Machine that got no Node, or was found unhealthy in the first hour of its life, did not last. Replacing such Machines begins a round;
//! those made before it began belong to it, however many they are. The next round waits 5, 10, 20, 40 minutes after the one before it, and
//! there are five. The count stands in an annotation of the owner, written **before** the first deletion of the round, so that it survives
//! us. It is forgotten when a Machine made since has been ready for an hour, and when a person marks a Machine to be replaced.

use std::fmt;

use api::cluster::Machine;
use api::conditions::Status;
use api::names::annotations;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::edit::{Edit, is_deleting};
use crate::remediation::{self, HEALTHY};

/// How long a new Machine must be healthy to count as one that lasts.
pub const LASTING: SignedDuration = SignedDuration::from_hours(1);
/// Rounds in a row before a person has to act.
pub const MOST_ROUNDS: u32 = 5;
/// Between the first round and the second; twice as long between the next ones.
const BACKOFF: SignedDuration = SignedDuration::from_mins(5);

/// Rounds of replacements that did not last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounds {
    pub count: u32,
    /// When the last one began.
    pub last: Timestamp,
}

impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.last)
    }
}

impl Rounds {
    /// As the owner's annotation has them.
    pub fn of(owner: &ObjectMeta) -> Option<Self> {
        let (count, last) = owner.annotations.as_ref()?.get(annotations::REMEDIATION_ROUNDS)?.split_once(' ')?;
        Some(Self { count: count.parse().ok().filter(|count| *count > 0)?, last: last.parse().ok()? })
    }

    /// Writes them into the owner's annotation, or takes it away.
    pub fn annotate(rounds: Option<Self>, edit: Edit<'_>) -> Edit<'_> {
        match rounds {
            Some(rounds) => edit.annotation(annotations::REMEDIATION_ROUNDS, &rounds.to_string()),
            None => edit.without_annotation(annotations::REMEDIATION_ROUNDS),
        }
    }

    /// The one that begins now, after these.
    pub fn begun(rounds: Option<Self>, now: Timestamp) -> Self {
        Self { count: rounds.map_or(0, |rounds| rounds.count).saturating_add(1), last: now }
    }

    /// When the next one may begin.
    pub fn next(self) -> Timestamp {
        let doubled = BACKOFF.saturating_mul(1_i32.checked_shl(self.count.saturating_sub(1).min(8)).unwrap_or(i32::MAX));
        self.last.checked_add(doubled).unwrap_or(Timestamp::MAX)
    }

    /// Whether the Machine was made in the last of them.
    pub fn is_made_since(self, machine: &Machine) -> bool {
        created(machine) >= self.last
    }

    /// When the first of these counts as proof that replacements last, if nothing happens to it.
    pub fn proof<'a>(self, machines: impl IntoIterator<Item = &'a Machine>) -> Option<Timestamp> {
        machines.into_iter().filter(|machine| self.is_made_since(machine)).filter_map(lasts_at).min()
    }

    /// Whether replacing the Machine begins another round.
    pub fn begins(rounds: Option<Self>, machine: &Machine) -> bool {
        is_short_lived(machine) && rounds.is_none_or(|rounds| rounds.is_made_since(machine))
    }

    /// Whether a person has to act before the Machine is replaced.
    pub fn is_over(self, machine: &Machine) -> bool {
        self.count >= MOST_ROUNDS && (self.is_made_since(machine) || !is_short_lived(machine))
    }

    /// Whether the Machine waits for the next round.
    pub fn is_resting(self, machine: &Machine, now: Timestamp) -> bool {
        is_short_lived(machine) && self.is_made_since(machine) && self.next() > now
    }

    /// Why a Machine is not replaced any more, and how a person has it tried again. `owner` is its kind and name.
    pub fn exhausted(self, owner: &str, machine: &Machine) -> String {
        let since = self.last.strftime("%T");
        let namespace = machine.metadata.namespace.as_deref().unwrap_or("default");
        let name = machine.metadata.name.as_deref().unwrap_or_default();
        format!(
            "{} times in a row Machines that {owner} made did not become healthy, or not for an hour (the last time replaced at {since}): no more are replaced. Find out why, then have it tried again with `kubectl annotate machine -n {namespace} {name} {}=`",
            self.count,
            annotations::REMEDIATE_MACHINE
        )
    }

    /// Why a Machine is not replaced yet.
    pub fn resting(self) -> String {
        let (since, until) = (self.last.strftime("%T"), self.next().strftime("%T"));
        format!(
            "Replacements did not last {} times in a row (the last time replaced at {since}): the next one is made at {until}",
            self.count
        )
    }
}

/// When a Machine was created.
pub fn created(machine: &Machine) -> Timestamp {
    machine.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// Whether a Machine that is unhealthy was so from early on.
fn is_short_lived(machine: &Machine) -> bool {
    let has_node = machine.status.as_ref().is_some_and(|status| status.node_ref.is_some());
    let since = remediation::condition(machine, HEALTHY).map(|told| told.last_transition_time.0);
    !has_node || since.is_some_and(|since| since.duration_since(created(machine)) < LASTING)
}

/// When a Machine counts as one that lasts, if nothing happens to it; none while it is not ready.
fn lasts_at(machine: &Machine) -> Option<Timestamp> {
    let ready = remediation::condition(machine, "Ready").filter(|ready| ready.status == Status::True)?;
    ready.last_transition_time.0.checked_add(LASTING).ok().filter(|_| !is_deleting(&machine.metadata))
}
