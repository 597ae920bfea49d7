//! One object's condition shown on another: a Cluster shows its infrastructure's Ready, a Machine its bootstrap object's, and so on.

use api::conditions::{self, LegacyCondition, New, Severity, Status};

use crate::contract::{External, ExternalCondition, Referenced};

fn status_of(text: &str) -> Status {
    match text {
        "True" => Status::True,
        "False" => Status::False,
        _ => Status::Unknown,
    }
}

fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// The metav1 condition `target`, after the condition `source` of the referenced object. An object that does not tell it is judged by
/// `holds`, and `otherwise` says what is missing. `part` names the object's role in the words upstream uses (`Infrastructure`).
pub fn shown<'a>(
    target: &'a str,
    source: &str,
    part: &str,
    referenced: &'a Referenced,
    holds: impl Fn(&External) -> bool,
    otherwise: &str,
) -> New<'a> {
    let object = match referenced {
        Referenced::None => return conditions::new(target, true, "Ready", ""),
        Referenced::Missing { kind, name } => {
            return conditions::new(target, false, "DoesNotExist", format!("{part}: {kind} {name} does not exist"));
        }
        Referenced::Found(object) => object,
    };
    match object.condition(source) {
        Some(condition) => {
            let status = status_of(&condition.status);
            let reason = filled(condition.reason.as_deref()).unwrap_or_else(|| default_reason(status));
            New { type_: target, status, reason, message: condition.message.clone().unwrap_or_default() }
        }
        None if holds(object) => conditions::new(target, true, "Ready", ""),
        None => conditions::new(target, false, "NotReady", format!("{} {otherwise}", object.kind)),
    }
}

fn default_reason(status: Status) -> &'static str {
    match status {
        Status::True => "Ready",
        Status::False => "NotReady",
        Status::Unknown => "ReadyUnknown",
    }
}

/// The v1beta1 condition `target`, after the referenced object's; as [`shown`], with the reason that upstream gives while it is missing.
pub fn shown_legacy(
    target: &str,
    source: &str,
    referenced: &Referenced,
    holds: impl Fn(&External) -> bool,
    waiting_reason: &str,
) -> LegacyCondition {
    let object = match referenced {
        Referenced::None => return conditions::legacy_true(target),
        Referenced::Missing { kind, name } => {
            return conditions::legacy_false(target, waiting_reason, Severity::Info, format!("{kind} {name} does not exist"));
        }
        Referenced::Found(object) => object,
    };
    match object.legacy_condition(source) {
        Some(condition) => legacy(target, condition, waiting_reason),
        None if holds(object) => conditions::legacy_true(target),
        None => conditions::legacy_false(target, waiting_reason, Severity::Info, ""),
    }
}

fn legacy(target: &str, condition: &ExternalCondition, waiting_reason: &str) -> LegacyCondition {
    let message = condition.message.clone().unwrap_or_default();
    let reason = filled(condition.reason.as_deref()).unwrap_or(waiting_reason);
    let severity = match condition.severity.as_deref() {
        Some("Error") => Severity::Error,
        Some("Warning") => Severity::Warning,
        _ => Severity::Info,
    };
    match status_of(&condition.status) {
        Status::True => conditions::legacy_true(target),
        Status::False => conditions::legacy_false(target, reason, severity, message),
        Status::Unknown => conditions::legacy_unknown(target, reason, message),
    }
}
