//! Which control planes a health check wants replaced, and whether that is done now. Pure.
//!
//! They are replaced as outdated ones are, one at a time and by the same arithmetic of etcd's quorum ([`super::size`]); here is decided only
//! who counts. Replacements that do not last come in rounds, with a pause between them and an end after which a person must act
//! ([`crate::rounds`]). What is not done is told on the Machine, in the words that the condition of the control plane has.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::cluster::Machine;
use jiff::Timestamp;

use super::etcd::NodeView;
use super::plan::{Observed, Plan, Rolling, Step};
use crate::remediation::{self, DEFERRED, EXHAUSTED};
use crate::rounds::Rounds;

/// What is asked for, before it is known whether a step follows.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    rounds: Option<Rounds>,
    /// Machines that may go.
    pub due: BTreeSet<String>,
}

/// Reads what health checks ask for, takes back a count that has been disproved, and tells the Machines that are not replaced yet.
pub(super) fn asked(observed: &Observed, plan: &mut Plan) -> Asked {
    let mut rounds = Rounds::of(&observed.control_plane.metadata);
    let due: Vec<&NodeView> = observed.nodes.iter().filter(|node| remediation::is_due(&node.machine)).collect();
    let proof = rounds.and_then(|rounds| rounds.proof(observed.nodes.iter().map(|node| &*node.machine)));
    let is_proved = proof.is_some_and(|at| at <= observed.now);
    let is_wanted = due.iter().any(|node| remediation::is_wanted_by_a_person(&node.machine));
    if rounds.is_some() && (is_proved || is_wanted) {
        plan.steps.push(Step::StoreRounds(None));
        rounds = None;
    } else {
        plan.again_at = proof;
    }
    let mut asked = Asked { rounds, due: BTreeSet::new() };
    for node in due {
        let machine = &node.machine;
        let Some(rounds) = rounds.filter(|_| !remediation::is_wanted_by_a_person(machine)) else {
            asked.due.insert(node.name().to_owned());
            continue;
        };
        if rounds.is_over(machine) {
            let owner = format!("TalosControlPlane {}", observed.control_plane.metadata.name.as_deref().unwrap_or_default());
            tell(machine, EXHAUSTED, &rounds.exhausted(&owner, machine), plan);
        } else if rounds.is_resting(machine, observed.now) {
            plan.again_at = earlier(plan.again_at, rounds.next());
            tell(machine, DEFERRED, &rounds.resting(), plan);
        } else {
            asked.due.insert(node.name().to_owned());
        }
    }
    asked
}

fn earlier(at: Option<Timestamp>, other: Timestamp) -> Option<Timestamp> {
    Some(at.map_or(other, |at| at.min(other)))
}

/// After all is decided: the deletion of a Machine that was asked for is told and counted, and what holds up the others is told.
pub(super) fn conclude(observed: &Observed, asked: &Asked, plan: &mut Plan) {
    if asked.due.is_empty() {
        return;
    }
    let goes: BTreeSet<String> =
        plan.steps.iter().filter_map(|step| if let Step::DeleteMachine(meta) = step { meta.name.clone() } else { None }).collect();
    let (going, staying): (Vec<&NodeView>, Vec<&NodeView>) =
        observed.nodes.iter().filter(|node| asked.due.contains(node.name())).partition(|node| goes.contains(node.name()));
    let mut before = Vec::new();
    if going.iter().any(|node| Rounds::begins(asked.rounds, &node.machine)) {
        before.push(Step::StoreRounds(Some(Rounds::begun(asked.rounds, observed.now))));
    }
    for node in &going {
        let (reason, message) = remediation::deleting(&node.machine);
        before.push(Step::TellRemediation { machine: Arc::clone(&node.machine), reason, message });
    }
    if !before.is_empty() {
        // One that is taken back and stored anew is one write.
        if before.iter().any(|step| matches!(step, Step::StoreRounds(_))) {
            plan.steps.retain(|step| !matches!(step, Step::StoreRounds(_)));
        }
        let at = plan.steps.iter().position(|step| matches!(step, Step::DeleteMachine(_))).unwrap_or(plan.steps.len());
        plan.steps.splice(at..at, before);
    }
    let why = match &plan.rolling {
        Rolling::UnderWay { wait: Some(wait), .. } => format!("waiting for {wait}"),
        Rolling::Blocked { reason } => reason.clone(),
        _ => "another control plane is replaced first".to_owned(),
    };
    for node in staying {
        tell(&node.machine, DEFERRED, &why, plan);
    }
}

fn tell(machine: &Arc<Machine>, reason: &'static str, message: &str, plan: &mut Plan) {
    if !remediation::is_told(machine, reason, message) {
        plan.steps.push(Step::TellRemediation { machine: Arc::clone(machine), reason, message: message.to_owned() });
    }
}
