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
//! Replacements that do not last come in rounds, with a pause between them and an end after which a person must act ([`crate::rounds`]).
//! Another template is another set, and begins anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::cluster::Machine;
use api::names::annotations;

use super::plan::{Observed, Plan, Step, barrier};
use crate::machinedeployment::plan as deployment;
use crate::remediation::{self, CANNOT, DEFERRED, EXHAUSTED};
use crate::rounds::{Rounds, created};

/// What a Machine is told, and why.
struct Told {
    reason: &'static str,
    message: String,
}

/// Decides about the Machines that the set is asked to replace; `going` are chosen already.
pub fn plan(observed: &Observed, plan: &mut Plan) {
    let mut rounds = Rounds::of(&observed.set.metadata);
    let proof = rounds.and_then(|rounds| rounds.proof(observed.machines.iter().map(|machine| &**machine)));
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
    if going.iter().any(|machine| Rounds::begins(rounds, machine)) {
        // One that is taken back and told anew is one write.
        plan.steps.retain(|step| !matches!(step, Step::StoreRounds(_)));
        plan.steps.push(Step::StoreRounds(Some(Rounds::begun(rounds, observed.now))));
    }
    plan.steps.extend(going.into_iter().map(Step::Remediate));
}

fn tell(machine: &Arc<Machine>, reason: &'static str, message: &str, plan: &mut Plan) {
    if !remediation::is_told(machine, reason, message) {
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
    if rounds.is_over(machine) {
        let set = format!("MachineSet {}", observed.set.metadata.name.as_deref().unwrap_or_default());
        return Some(Told { reason: EXHAUSTED, message: rounds.exhausted(&set, machine) });
    }
    rounds.is_resting(machine, observed.now).then(|| Told { reason: DEFERRED, message: rounds.resting() })
}
