//! What is wrong with a Machine by its health check, and what is being done about it. Pure.

use serde_json::Value;

use super::cause::clean;
use super::{Objects, condition, pointer, text};

/// An unhealthy Machine in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Healing {
    pub told: String,
    /// Whether nothing more happens before a person acts.
    pub needs_a_person: bool,
}

fn is_false(condition: &&Value) -> bool {
    text(condition, "/status") == "False"
}

/// The health check that judges this Machine.
fn check<'a>(objects: &'a Objects, machine: &'a Value) -> Option<&'a Value> {
    let name = text(machine, "/metadata/name");
    objects.of_cluster("MachineHealthCheck", text(machine, "/spec/clusterName")).find(|check| {
        let targets = pointer(check, "/status/targets").and_then(Value::as_array);
        targets.is_some_and(|targets| targets.iter().any(|target| target.as_str() == Some(name)))
    })
}

/// None for a Machine that no check found unhealthy.
pub(super) fn healing(objects: &Objects, machine: &Value) -> Option<Healing> {
    let health = condition(machine, "HealthCheckSucceeded").filter(is_false)?;
    let what = clean(text(health, "/message"));
    let what = if what.is_empty() { text(health, "/reason").to_owned() } else { what };
    let message = |found: &Value| clean(text(found, "/message"));
    let asked = condition(machine, "OwnerRemediated").filter(is_false);
    let outside = condition(machine, "ExternallyRemediated").filter(is_false);
    let (doing, needs_a_person) = match (asked, outside) {
        (Some(asked), _) => match text(asked, "/reason") {
            "MachineDeleting" => ("it is replaced".to_owned(), false),
            "WaitingForRemediation" => ("its owner is asked to replace it".to_owned(), false),
            reason => (message(asked), reason == "RetryLimitReached"),
        },
        (None, Some(outside)) => (message(outside), false),
        (None, None) => {
            let refusal = check(objects, machine).and_then(|check| {
                let types = ["ExternalRemediationTemplateAvailable", "RemediationAllowed"];
                types.iter().find_map(|type_| condition(check, type_).filter(is_false))
            });
            let refused = refusal.map(|refusal| format!("it is not replaced: {}", message(refusal)));
            (refused.unwrap_or_else(|| "nobody is asked to replace it".to_owned()), refusal.is_some())
        }
    };
    Some(Healing { told: format!("unhealthy ({what}): {doing}"), needs_a_person })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn machine(told: &[(&str, &str, &str)]) -> Value {
        let all: Vec<Value> = told
            .iter()
            .map(|(type_, reason, message)| json!({"type": type_, "status": "False", "reason": reason, "message": message}))
            .collect();
        json!({"metadata": {"name": "m"}, "spec": {"clusterName": "c"}, "status": {"conditions": all}})
    }

    #[test]
    fn what_is_done_or_why_not_is_told() {
        let ill = ("HealthCheckSucceeded", "UnhealthyNode", "down");
        let mut objects = Objects::default();
        let told = |objects: &Objects, more: &[(&str, &str, &str)]| {
            let healing = healing(objects, &machine(&[&[ill][..], more].concat())).unwrap();
            (healing.told, healing.needs_a_person)
        };
        for (reason, message, doing, needs_a_person) in [
            ("MachineDeleting", "x", "it is replaced", false),
            ("WaitingForRemediation", "x", "its owner is asked to replace it", false),
            ("RemediationDeferred", "next at 08:05", "next at 08:05", false),
            ("RetryLimitReached", "do this", "do this", true),
        ] {
            let expected = (format!("unhealthy (down): {doing}"), needs_a_person);
            assert_eq!(told(&objects, &[("OwnerRemediated", reason, message)]), expected);
        }
        assert_eq!(told(&objects, &[("ExternallyRemediated", "W", "rebooting")]).0, "unhealthy (down): rebooting");
        assert_eq!(told(&objects, &[]), ("unhealthy (down): nobody is asked to replace it".to_owned(), false));
        let refusing = json!([{"type": "RemediationAllowed", "status": "False", "message": "too many"}]);
        objects.put(
            "MachineHealthCheck",
            json!({"metadata": {"name": "h"}, "spec": {"clusterName": "c"}, "status": {"targets": ["m"], "conditions": refusing}}),
        );
        assert_eq!(told(&objects, &[]), ("unhealthy (down): it is not replaced: too many".to_owned(), true));
        assert_eq!(healing(&objects, &machine(&[])), None);
    }
}
