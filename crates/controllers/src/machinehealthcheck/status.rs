//! What a MachineHealthCheck tells. Pure.

use api::cluster::MachineHealthCheckStatus;
use api::conditions::{self, Severity};

use super::plan::{Observed, Plan, Template};
use crate::status::set_paused;

/// Computes the status from the old one and what was found.
pub fn status(observed: &Observed, plan: &Plan) -> MachineHealthCheckStatus {
    let check = &observed.check;
    let mut status = check.status.clone().unwrap_or_default();
    let (generation, now) = (check.metadata.generation, observed.now);
    set_paused(&mut status.conditions, plan.is_paused, generation, now);
    if plan.is_paused || observed.cluster.is_none() {
        return status;
    }
    status.observed_generation = generation;
    status.expected_machines = Some(plan.total());
    status.current_healthy = Some(plan.healthy);
    status.remediations_allowed = Some(plan.allowed.unwrap_or(0));
    status.targets = plan.verdicts.iter().map(|(name, _)| name).chain(&plan.going).cloned().collect();
    status.targets.sort();
    template(observed, &mut status);
    let list = &mut status.deprecated.v1beta1.conditions;
    if plan.allowed.is_some() {
        conditions::set_legacy(list, conditions::legacy_true("RemediationAllowed"), now);
        conditions::set(&mut status.conditions, conditions::new("RemediationAllowed", true, "RemediationAllowed", ""), generation, now);
    } else {
        let (total, limit) = (plan.total(), limit(observed));
        let message = format!(
            "Remediation is not allowed, the number of not started or unhealthy machines exceeds {limit} (total: {total}, unhealthy: {})",
            total.saturating_sub(plan.healthy)
        );
        let told = conditions::legacy_false("RemediationAllowed", "TooManyUnhealthy", Severity::Warning, message.clone());
        conditions::set_legacy(list, told, now);
        let told = conditions::new("RemediationAllowed", false, "TooManyUnhealthy", message);
        conditions::set(&mut status.conditions, told, generation, now);
    }
    status
}

/// Whether the template that is named can be used; nothing where none is.
fn template(observed: &Observed, status: &mut MachineHealthCheckStatus) {
    const TYPE: &str = "ExternalRemediationTemplateAvailable";
    let (generation, now) = (observed.check.metadata.generation, observed.now);
    let list = &mut status.deprecated.v1beta1.conditions;
    match &observed.template {
        Template::None => {
            list.retain(|condition| condition.type_ != TYPE);
            conditions::remove(&mut status.conditions, TYPE);
        }
        Template::There => {
            conditions::set_legacy(list, conditions::legacy_true(TYPE), now);
            conditions::set(&mut status.conditions, conditions::new(TYPE, true, TYPE, ""), generation, now);
        }
        Template::Unusable(why) => {
            let reason = "ExternalRemediationTemplateNotFound";
            let message = format!("{why}; no Machine is replaced before that is mended, or remediation.templateRef is taken out");
            conditions::set_legacy(list, conditions::legacy_false(TYPE, reason, Severity::Error, message.clone()), now);
            conditions::set(&mut status.conditions, conditions::new(TYPE, false, reason, message), generation, now);
        }
    }
}

fn limit(observed: &Observed) -> String {
    let trigger = &observed.check.spec.remediation.trigger_if;
    if let Some(range) = &trigger.unhealthy_in_range {
        return format!("unhealthyInRange {range}");
    }
    let limit = match &trigger.unhealthy_less_than_or_equal_to {
        Some(api::meta::IntOrString::Int(number)) => number.to_string(),
        Some(api::meta::IntOrString::String(text)) => text.clone(),
        None => "100%".to_owned(),
    };
    format!("unhealthyLessThanOrEqualTo {limit}")
}
