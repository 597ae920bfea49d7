//! The two conditions by which a health check and a Machine's owner speak about replacing it, in the words of both generations.
//!
//! ```text
//!   MachineHealthCheck: HealthCheckSucceeded=False, OwnerRemediated=False WaitingForRemediation
//!   owner:                                          OwnerRemediated=False RemediationDeferred | CannotBeRemediated | RetryLimitReached, why
//!                                                   OwnerRemediated=False MachineDeleting, then the Machine is deleted
//! ```
//!
//! The check asks and takes back; everything between is the owner's. An owner acts only on a Machine with both conditions False, and never
//! on one that a person has excepted. In the v1beta1 generation OwnerRemediated is True once the owner has done its part.

use std::sync::Arc;

use api::cluster::{Machine, MachineStatus};
use api::conditions::{self, Condition, New, Severity, Status, get};
use api::names::annotations;
use jiff::Timestamp;
use runtime::reconcile::{Error, ObjectKey, Store};

use crate::aggregate::{self, Member, Reasons};
use crate::edit::{is_deleting, is_paused};

/// Whether the check found the Machine healthy.
pub const HEALTHY: &str = "HealthCheckSucceeded";
/// False: the owner is asked to replace the Machine.
pub const OWNER: &str = "OwnerRemediated";

/// The owner has not looked at it yet.
pub const WAITING: &str = "WaitingForRemediation";
/// It is done later.
pub const DEFERRED: &str = "RemediationDeferred";
/// It is not done, because something else takes the Machine away.
pub const CANNOT: &str = "CannotBeRemediated";
/// It is not done any more before a person has acted.
pub const EXHAUSTED: &str = "RetryLimitReached";
/// It is being done.
pub const DELETING: &str = "MachineDeleting";

/// A Machine's condition.
pub fn condition<'a>(machine: &'a Machine, type_: &str) -> Option<&'a Condition> {
    get(&machine.status.as_ref()?.conditions, type_)
}

fn is_false(machine: &Machine, type_: &str) -> bool {
    condition(machine, type_).is_some_and(|condition| condition.status == Status::False)
}

/// Whether the check found the Machine unhealthy.
pub fn is_unhealthy(machine: &Machine) -> bool {
    is_false(machine, HEALTHY)
}

/// Whether the owner is asked to replace the Machine, or does so.
pub fn is_asked(machine: &Machine) -> bool {
    is_unhealthy(machine) && is_false(machine, OWNER)
}

/// Whether it is asked, and the owner has not begun.
pub fn is_asked_and_not_begun(machine: &Machine) -> bool {
    let asked = condition(machine, OWNER).filter(|asked| asked.status == Status::False);
    asked.is_some_and(|asked| [WAITING, DEFERRED, CANNOT, EXHAUSTED].contains(&asked.reason.as_str()))
}

/// Whether the owner is replacing the Machine.
pub fn is_under_way(machine: &Machine) -> bool {
    is_deleting(&machine.metadata) && condition(machine, OWNER).is_some_and(|asked| asked.reason == DELETING)
}

/// Whether the owner may act on the Machine now: it is asked to, and no person has excepted the Machine.
pub fn is_due(machine: &Machine) -> bool {
    let is_skipped = machine.metadata.annotations.as_ref().is_some_and(|known| known.contains_key(annotations::SKIP_REMEDIATION));
    is_asked(machine) && !is_deleting(&machine.metadata) && !is_skipped && !is_paused(None, &machine.metadata)
}

/// Whether a person wants the Machine replaced, whatever the checks say.
pub fn is_wanted_by_a_person(machine: &Machine) -> bool {
    machine.metadata.annotations.as_ref().is_some_and(|known| known.contains_key(annotations::REMEDIATE_MACHINE))
}

/// Whether the Machine has been told just this.
pub fn is_told(machine: &Machine, reason: &str, message: &str) -> bool {
    condition(machine, OWNER).is_some_and(|told| told.reason == reason && told.message == message)
}

/// Tells the Machine, in both generations, what becomes of its replacement.
///
/// # Errors
/// As the API answers.
pub async fn write(machines: &Store<Machine>, machine: &Machine, reason: &str, message: &str, now: Timestamp) -> Result<(), Error> {
    let Some(latest) = machines.get(&ObjectKey::of(&machine.metadata)) else { return Ok(()) };
    let mut status = latest.status.clone().unwrap_or_default();
    tell(&mut status, reason, message, latest.metadata.generation, now);
    crate::status::patch(machines, &*latest, latest.status.as_ref(), &status).await?;
    Ok(())
}

/// Sets OwnerRemediated in both generations.
pub fn tell(status: &mut MachineStatus, reason: &str, message: &str, generation: Option<i64>, now: Timestamp) {
    let legacy = match reason {
        // As upstream: done, for the generation that knows no "under way".
        DELETING => conditions::legacy_true(OWNER),
        EXHAUSTED => conditions::legacy_false(OWNER, reason, Severity::Error, message),
        _ => conditions::legacy_false(OWNER, reason, Severity::Warning, message),
    };
    conditions::set_legacy(&mut status.deprecated.v1beta1.conditions, legacy, now);
    conditions::set(&mut status.conditions, conditions::new(OWNER, false, reason, message), generation, now);
}

/// What a Machine is told that is deleted so that another takes its place.
pub fn deleting(machine: &Machine) -> (&'static str, String) {
    let why = condition(machine, HEALTHY).map(|told| told.message.clone()).unwrap_or_default();
    let why = if why.is_empty() { why } else { format!(": {why}") };
    (DELETING, format!("Machine is deleted, and another is made in its place{why}"))
}

/// Takes OwnerRemediated away.
pub fn take_back(status: &mut MachineStatus) {
    status.deprecated.v1beta1.conditions.retain(|condition| condition.type_ != OWNER);
    conditions::remove(&mut status.conditions, OWNER);
}

/// The condition Remediating of what owns Machines, or is made of them: True while an owner is asked to replace any, with how far it is.
/// While it is False its message has the Machines that are unhealthy and for which nobody is asked to do anything.
pub fn remediating(machines: &[Arc<Machine>]) -> New<'static> {
    let member = |machine: &Arc<Machine>, type_: &str, status: Status| -> Option<(String, Vec<Condition>)> {
        let found = condition(machine, type_)?;
        let shown = Condition { type_: "Remediating".to_owned(), status, ..found.clone() };
        Some((machine.metadata.name.clone().unwrap_or_default(), vec![shown]))
    };
    let told = |found: &[(String, Vec<Condition>)]| {
        let members: Vec<Member<'_>> = found.iter().map(|(name, conditions)| Member { kind: "Machine", name, conditions }).collect();
        let reasons = Reasons { good: "Remediating", bad: "NotRemediating", unknown: "", none: "" };
        aggregate::any("Remediating", "Remediating", &members, reasons)
    };
    let asked: Vec<_> =
        machines.iter().filter(|machine| is_asked(machine)).filter_map(|machine| member(machine, OWNER, Status::True)).collect();
    if !asked.is_empty() {
        return told(&asked);
    }
    let left: Vec<_> =
        machines.iter().filter(|machine| is_unhealthy(machine)).filter_map(|machine| member(machine, HEALTHY, Status::True)).collect();
    let message = told(&left).message;
    conditions::new("Remediating", false, "NotRemediating", message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn machine(name: &str, healthy: Option<(&str, &str)>, owner: Option<(&str, &str)>, change: &Value) -> Arc<Machine> {
        let holds = |type_: &str, (reason, message): (&str, &str)| {
            let at = "2026-03-01T08:00:00Z";
            json!({"type": type_, "status": "False", "reason": reason, "message": message, "lastTransitionTime": at})
        };
        let told: Vec<Value> =
            [healthy.map(|words| holds(HEALTHY, words)), owner.map(|words| holds(OWNER, words))].into_iter().flatten().collect();
        let mut value = json!({"metadata": {"name": name}, "spec": {"clusterName": "c"}, "status": {"conditions": told}});
        json_patch::merge(&mut value, change);
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn an_owner_acts_on_both_conditions_and_on_nothing_that_a_person_excepted() {
        let (bad, asked) = (Some(("UnhealthyNode", "down")), Some((WAITING, "")));
        let nothing = json!({});
        assert!(is_due(&machine("a", bad, asked, &nothing)));
        assert!(!is_due(&machine("a", bad, None, &nothing)) && !is_due(&machine("a", None, asked, &nothing)));
        for change in [
            json!({"metadata": {"annotations": {"cluster.x-k8s.io/skip-remediation": ""}}}),
            json!({"metadata": {"annotations": {"cluster.x-k8s.io/paused": ""}}}),
            json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:00Z"}}),
        ] {
            assert!(!is_due(&machine("a", bad, asked, &change)), "{change}");
        }
        for (reason, is_begun) in [(WAITING, false), (DEFERRED, false), (CANNOT, false), (EXHAUSTED, false), (DELETING, true)] {
            assert_eq!(is_asked_and_not_begun(&machine("a", bad, Some((reason, "")), &nothing)), !is_begun, "{reason}");
        }
        let going = json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:00Z"}});
        assert!(is_under_way(&machine("a", bad, Some((DELETING, "")), &going)));
        assert!(!is_under_way(&machine("a", bad, Some((DELETING, "")), &nothing)) && !is_under_way(&machine("a", bad, asked, &going)));
    }

    #[test]
    fn both_generations_are_told_and_forgotten_together() {
        let mut status = MachineStatus::default();
        let legacy = |status: &MachineStatus| {
            let told = conditions::get_legacy(&status.deprecated.v1beta1.conditions, OWNER);
            told.map(|told| (told.status, told.severity, told.message.clone().unwrap_or_default()))
        };
        tell(&mut status, WAITING, "m", Some(1), Timestamp::UNIX_EPOCH);
        assert_eq!(legacy(&status), Some((Status::False, Some(Severity::Warning), "m".to_owned())));
        tell(&mut status, EXHAUSTED, "m", Some(1), Timestamp::UNIX_EPOCH);
        assert_eq!(legacy(&status).unwrap().1, Some(Severity::Error));
        tell(&mut status, DELETING, "m", Some(1), Timestamp::UNIX_EPOCH);
        assert_eq!((legacy(&status).unwrap().0, status.conditions[0].status), (Status::True, Status::False));
        take_back(&mut status);
        assert_eq!(status, MachineStatus::default());
    }

    #[test]
    fn what_is_replaced_and_what_is_not_is_told() {
        let bad = Some(("UnhealthyNode", "down"));
        let (plain, nothing) = (machine("w", None, None, &json!({})), json!({}));
        let told = |machines: &[Arc<Machine>]| {
            let told = remediating(machines);
            (told.status, told.message)
        };
        assert_eq!(told(std::slice::from_ref(&plain)), (Status::False, String::new()));
        let left = machine("l", bad, None, &nothing);
        assert_eq!(told(&[plain.clone(), left.clone()]), (Status::False, "* Machine l: down".to_owned()));
        let asked = machine("a", bad, Some((DEFERRED, "later")), &nothing);
        assert_eq!(told(&[plain, left, asked]), (Status::True, "* Machine a: later".to_owned()));
    }
}
