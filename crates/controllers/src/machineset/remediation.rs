//! Which of a MachineSet's unhealthy Machines go now, so that new ones are made in their place. Pure.
//!
//! ```text
//!   asked by a health check ──► not this set's to do (rollout)      CannotBeRemediated
//!                          ──► too many at a time, no replacement
//!                              could be made, back-off              RemediationDeferred, until when
//!                          ──► replacements do not last             RetryLimitReached, what a person must do
//!                          ──► MachineDeleting, deleted; the set makes up for it as for any other
//! ```
//!
//! Rounds are what ends a loop of replacements that never become healthy. A Machine that got no Node, or was found unhealthy in the first
//! hour of its life, did not last. Replacing such Machines begins a round; those made before it began belong to it, however many they are.
//! The next round waits 5, 10, 20, 40 minutes after the one before it, and there are five. The count stands in an annotation of the set,
//! written **before** the first deletion of the round, so that it survives us. It is forgotten when a Machine made since has been ready for
//! an hour, when a person marks a Machine to be replaced, and with the set: another template is another set.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use api::cluster::{Machine, MachineSet};
use api::conditions::Status;
use api::names::annotations;
use jiff::{SignedDuration, Timestamp};

use super::plan::{Observed, Plan, Step, barrier};
use crate::edit::is_deleting;
use crate::machinedeployment::plan as deployment;
use crate::remediation::{self, CANNOT, DEFERRED, DELETING, EXHAUSTED, HEALTHY, OWNER};

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
    /// As the set's annotation has them.
    pub fn of(set: &MachineSet) -> Option<Self> {
        let (count, last) = set.metadata.annotations.as_ref()?.get(annotations::REMEDIATION_ROUNDS)?.split_once(' ')?;
        Some(Self { count: count.parse().ok().filter(|count| *count > 0)?, last: last.parse().ok()? })
    }

    /// When the next one may begin.
    fn next(self) -> Timestamp {
        let doubled = BACKOFF.saturating_mul(1_i32.checked_shl(self.count.saturating_sub(1).min(8)).unwrap_or(i32::MAX));
        self.last.checked_add(doubled).unwrap_or(Timestamp::MAX)
    }

    fn is_made_since(self, machine: &Machine) -> bool {
        created(machine) >= self.last
    }
}

fn created(machine: &Machine) -> Timestamp {
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

/// What a Machine is told, and why.
struct Told {
    reason: &'static str,
    message: String,
}

/// Decides about the Machines that the set is asked to replace; `going` are chosen already.
pub fn plan(observed: &Observed, plan: &mut Plan) {
    let mut rounds = Rounds::of(&observed.set);
    let proofs = rounds.into_iter().flat_map(|rounds| {
        let made = observed.machines.iter().filter(move |machine| rounds.is_made_since(machine));
        made.filter_map(|machine| lasts_at(machine))
    });
    let proof = proofs.min();
    if proof.is_some_and(|at| at <= observed.now) {
        plan.steps.push(Step::StoreRounds(None));
        rounds = None;
    } else {
        plan.again_at = proof;
    }
    let chosen: BTreeSet<String> = plan
        .steps
        .iter()
        .filter_map(|step| if let Step::DeleteMachine(machine) = step { machine.metadata.name.clone() } else { None })
        .collect();
    let is_chosen = |machine: &Machine| machine.metadata.name.as_ref().is_some_and(|name| chosen.contains(name));
    let mut due: Vec<Arc<Machine>> =
        observed.machines.iter().filter(|machine| remediation::is_due(machine) && !is_chosen(machine)).cloned().collect();
    if due.is_empty() {
        return;
    }
    // Those that a person wants gone, then those that never ran, then the newest.
    let has_node = |machine: &Machine| machine.status.as_ref().is_some_and(|status| status.node_ref.is_some());
    due.sort_by(|a, b| {
        let key = |machine: &Machine| (!remediation::is_wanted_by_a_person(machine), has_node(machine));
        key(a).cmp(&key(b)).then_with(|| created(b).cmp(&created(a))).then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
    if let Some(told) = forbidden(observed, plan) {
        return due.iter().for_each(|machine| tell(machine, told.reason, &told.message, plan));
    }
    if rounds.is_some() && due.iter().any(|machine| remediation::is_wanted_by_a_person(machine)) {
        plan.steps.push(Step::StoreRounds(None));
        rounds = None;
    }
    let mut room = room(observed);
    let mut going = Vec::new();
    for machine in due {
        let told = match held(observed, rounds, &machine) {
            Some(told) => told,
            None if room == Some(0) => too_many(observed),
            None => {
                room = room.map(|room| room - 1);
                going.push(machine);
                continue;
            }
        };
        if let Some(next) = rounds.map(Rounds::next).filter(|next| *next > observed.now) {
            plan.again_at = [plan.again_at, Some(next)].into_iter().flatten().min();
        }
        tell(&machine, told.reason, &told.message, plan);
    }
    let begins = |machine: &Arc<Machine>| is_short_lived(machine) && rounds.is_none_or(|rounds| rounds.is_made_since(machine));
    if going.iter().any(begins) {
        let count = rounds.map_or(0, |rounds| rounds.count).saturating_add(1);
        // One that is taken back and told anew is one write.
        plan.steps.retain(|step| !matches!(step, Step::StoreRounds(_)));
        plan.steps.push(Step::StoreRounds(Some(Rounds { count, last: observed.now })));
    }
    plan.steps.extend(going.into_iter().map(Step::Remediate));
}

fn tell(machine: &Arc<Machine>, reason: &'static str, message: &str, plan: &mut Plan) {
    let told = remediation::condition(machine, OWNER);
    if told.is_none_or(|told| told.reason != reason || told.message != message) {
        plan.steps.push(Step::TellRemediation { machine: Arc::clone(machine), reason, message: message.to_owned() });
    }
}

/// Why the set replaces nothing at all now.
fn forbidden(observed: &Observed, plan: &mut Plan) -> Option<Told> {
    let set = &observed.set;
    if let Some(owner) = &observed.deployment {
        let told = owner.metadata.annotations.as_ref().and_then(|known| known.get(annotations::REVISION));
        if told.is_some_and(|told| *told != deployment::revision(set).to_string()) {
            let message = "Machine won't be remediated because it is pending removal due to rollout".to_owned();
            return Some(Told { reason: CANNOT, message });
        }
    }
    let blocked = barrier(observed)?;
    plan.again_after = blocked.again.or(plan.again_after);
    Some(Told { reason: DEFERRED, message: format!("No Machine could be made in its place: {}", blocked.message) })
}

/// How many more may be replaced at a time; none where nothing limits it.
fn room(observed: &Observed) -> Option<usize> {
    let owner = observed.deployment.as_ref()?;
    let most = owner.spec.remediation.max_in_flight.as_ref()?.of(owner.spec.replicas.unwrap_or(1), true)?;
    let under_way = observed.machines.iter().filter(|machine| remediation::is_under_way(machine)).count();
    Some(usize::try_from(most).unwrap_or(0).saturating_sub(under_way))
}

fn too_many(observed: &Observed) -> Told {
    let limit = observed.deployment.as_ref().and_then(|owner| owner.spec.remediation.max_in_flight.clone());
    let limit = limit.map(|limit| serde_json::json!(limit).to_string().trim_matches('"').to_owned()).unwrap_or_default();
    let message = format!("Waiting because there are already too many remediations in progress (spec.remediation.maxInFlight is {limit})");
    Told { reason: DEFERRED, message }
}

/// Why a Machine is not replaced now, as far as rounds tell.
fn held(observed: &Observed, rounds: Option<Rounds>, machine: &Machine) -> Option<Told> {
    let rounds = rounds.filter(|_| !remediation::is_wanted_by_a_person(machine))?;
    let since = rounds.last.strftime("%T");
    if rounds.count >= MOST_ROUNDS && (rounds.is_made_since(machine) || !is_short_lived(machine)) {
        let namespace = machine.metadata.namespace.as_deref().unwrap_or("default");
        let name = machine.metadata.name.as_deref().unwrap_or_default();
        let set = observed.set.metadata.name.as_deref().unwrap_or_default();
        let message = format!(
            "{} times in a row Machines that MachineSet {set} made did not become healthy, or not for an hour (the last time replaced at {since}): no more are replaced. Find out why, then have it tried again with `kubectl annotate machine -n {namespace} {name} {}=`",
            rounds.count,
            annotations::REMEDIATE_MACHINE
        );
        return Some(Told { reason: EXHAUSTED, message });
    }
    let next = rounds.next();
    if is_short_lived(machine) && rounds.is_made_since(machine) && next > observed.now {
        let until = next.strftime("%T");
        let message = format!(
            "Replacements did not last {} times in a row (the last time replaced at {since}): the next one is made at {until}",
            rounds.count
        );
        return Some(Told { reason: DEFERRED, message });
    }
    None
}

/// What a Machine is told that is deleted so that another takes its place.
pub fn deleting(machine: &Machine) -> (&'static str, String) {
    let why = remediation::condition(machine, HEALTHY).map(|told| told.message.clone()).unwrap_or_default();
    let why = if why.is_empty() { why } else { format!(": {why}") };
    (DELETING, format!("Machine is deleted, and another is made in its place{why}"))
}
