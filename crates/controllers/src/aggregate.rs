//! Many objects' conditions told as one: `MachinesReady` of a set, `WorkersAvailable` of a cluster. Equal messages are told once, with the
//! names of those that have them, as upstream's aggregation prints them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use api::conditions::{self, Condition, New, Status};

/// So many names are listed; the rest is counted.
const NAMES: usize = 3;

/// One object that counts.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// `Machine`, `MachineDeployment`.
    pub kind: &'a str,
    pub name: &'a str,
    pub conditions: &'a [Condition],
}

/// The reasons of an aggregate.
#[derive(Clone, Copy, Debug)]
pub struct Reasons {
    pub good: &'static str,
    pub bad: &'static str,
    pub unknown: &'static str,
    /// When there is no member.
    pub none: &'static str,
}

/// The aggregate `target` of the members' condition `source`: True when it is True for all (and when there is none), False when it is False
/// for any, else Unknown.
pub fn all<'a>(target: &'a str, source: &str, members: &[Member<'_>], reasons: Reasons) -> New<'a> {
    if members.is_empty() {
        return conditions::new(target, true, reasons.none, "");
    }
    let faults = faults(source, members, Status::True);
    let (status, reason) = match faults.keys().map(|(status, _, _)| *status).min_by_key(|status| rank(*status)) {
        None => (Status::True, reasons.good),
        Some(Status::False) => (Status::False, reasons.bad),
        Some(_) => (Status::Unknown, reasons.unknown),
    };
    New { type_: target, status, reason, message: told(&faults) }
}

/// The aggregate `target` of the members' condition `source` that is bad when True: True when it is True for any.
pub fn any<'a>(target: &'a str, source: &str, members: &[Member<'_>], reasons: Reasons) -> New<'a> {
    let known: Vec<Member<'_>> = members.iter().filter(|member| conditions::get(member.conditions, source).is_some()).cloned().collect();
    let faults: Faults<'_> =
        faults(source, &known, Status::False).into_iter().filter(|((status, _, _), _)| *status == Status::True).collect();
    if faults.is_empty() {
        return conditions::new(target, false, reasons.bad, "");
    }
    New { type_: target, status: Status::True, reason: reasons.good, message: told(&faults) }
}

fn rank(status: Status) -> u8 {
    match status {
        Status::False => 0,
        Status::Unknown => 1,
        Status::True => 2,
    }
}

/// Names by status, kind and message.
type Faults<'a> = BTreeMap<(Status, &'a str, String), Vec<&'a str>>;

fn faults<'a>(source: &str, members: &[Member<'a>], good: Status) -> Faults<'a> {
    let mut faults: Faults<'a> = BTreeMap::new();
    for member in members {
        let (status, message) = match conditions::get(member.conditions, source) {
            None => (Status::Unknown, format!("Condition {source} not yet reported")),
            Some(condition) if condition.status == good => continue,
            Some(condition) if condition.message.is_empty() => (condition.status, condition.reason.clone()),
            Some(condition) => (condition.status, condition.message.clone()),
        };
        faults.entry((status, member.kind, message)).or_default().push(member.name);
    }
    faults
}

fn told(faults: &Faults<'_>) -> String {
    let mut entries: Vec<_> = faults.iter().collect();
    // What holds up most objects comes first; then by name.
    entries.sort_by_key(|((status, _, _), names)| (rank(*status), std::cmp::Reverse(names.len()), names.first().copied()));
    let mut text = String::new();
    for ((_, kind, message), names) in entries {
        let plural = if names.len() == 1 { "" } else { "s" };
        let listed = names.iter().take(NAMES).copied().collect::<Vec<_>>().join(", ");
        let rest = names.len().saturating_sub(NAMES);
        let more = if rest > 0 { format!(", ... ({rest} more)") } else { String::new() };
        if !text.is_empty() {
            text.push('\n');
        }
        if message.starts_with("* ") || message.contains('\n') {
            let indented = message.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n");
            let _ = write!(text, "* {kind}{plural} {listed}{more}:\n{indented}");
        } else {
            let _ = write!(text, "* {kind}{plural} {listed}{more}: {message}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(type_: &str, status: Status, reason: &str, message: &str) -> Vec<Condition> {
        let mut list = Vec::new();
        conditions::set(&mut list, conditions::new(type_, status, reason, message), None, jiff::Timestamp::UNIX_EPOCH);
        list
    }

    const READY: Reasons = Reasons { good: "Ready", bad: "NotReady", unknown: "ReadyUnknown", none: "NoReplicas" };

    #[test]
    fn equal_messages_are_told_once_with_the_names_that_have_them() {
        let waiting =
            condition("Ready", Status::Unknown, "ReadyUnknown", "* NodeHealthy: Waiting for Cluster control plane to be initialized");
        let broken = condition("Ready", Status::False, "NotReady", "");
        let fine = condition("Ready", Status::True, "Ready", "");
        let member = |name, conditions| Member { kind: "Machine", name, conditions };
        let members = [
            member("a", waiting.as_slice()),
            member("b", &waiting),
            member("c", &waiting),
            member("d", &waiting),
            member("e", &broken),
            member("f", &fine),
            member("g", &[]),
        ];
        let told = all("MachinesReady", "Ready", &members, READY);
        assert_eq!((told.status, told.reason), (Status::False, "NotReady"));
        let expected = "* Machine e: NotReady\n* Machines a, b, c, ... (1 more):\n  * NodeHealthy: Waiting for Cluster control plane to be \
                        initialized\n* Machine g: Condition Ready not yet reported";
        assert_eq!(told.message, expected);
        let unknown = all("MachinesReady", "Ready", &members[..2], READY);
        assert_eq!((unknown.status, unknown.reason), (Status::Unknown, "ReadyUnknown"));
        assert_eq!(all("MachinesReady", "Ready", &members[5..6], READY), conditions::new("MachinesReady", true, "Ready", ""));
        assert_eq!(all("MachinesReady", "Ready", &[], READY), conditions::new("MachinesReady", true, "NoReplicas", ""));
    }

    #[test]
    fn a_bad_thing_holds_when_it_holds_for_any() {
        let reasons = Reasons { good: "ScalingUp", bad: "NotScalingUp", unknown: "", none: "" };
        let up = condition("ScalingUp", Status::True, "ScalingUp", "Scaling up from 0 to 3 replicas");
        let still = condition("ScalingUp", Status::False, "NotScalingUp", "");
        let member = |name, conditions| Member { kind: "MachineDeployment", name, conditions };
        let told = any("ScalingUp", "ScalingUp", &[member("a", up.as_slice()), member("b", &still), member("c", &[])], reasons);
        assert_eq!((told.status, told.message.as_str()), (Status::True, "* MachineDeployment a: Scaling up from 0 to 3 replicas"));
        assert_eq!(any("ScalingUp", "ScalingUp", &[member("b", still.as_slice())], reasons).status, Status::False);
    }
}
