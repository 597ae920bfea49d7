//! What a ClusterResourceSet tells. Pure.

use api::addons::ClusterResourceSetStatus;
use api::conditions::{self, Severity};

use super::plan::{Observed, Plan};
use crate::edit::is_deleting;
use crate::status::set_paused;

/// Computes the status from the old one and what was found.
pub fn status(observed: &Observed, plan: &Plan) -> ClusterResourceSetStatus {
    let set = &observed.set;
    let mut status = set.status.clone().unwrap_or_default();
    let (generation, now) = (set.metadata.generation, observed.now);
    set_paused(&mut status.conditions, plan.is_paused, generation, now);
    if plan.is_paused || is_deleting(&set.metadata) {
        return status;
    }
    status.observed_generation = generation;
    let list = &mut status.deprecated.v1beta1.conditions;
    match plan.troubles.first() {
        None => {
            conditions::set_legacy(list, conditions::legacy_true("ResourcesApplied"), now);
            conditions::set(&mut status.conditions, conditions::new("ResourcesApplied", true, "Applied", ""), generation, now);
        }
        Some(first) => {
            let message = plan.troubles.iter().map(|trouble| format!("* {}", trouble.message)).collect::<Vec<_>>().join("\n");
            let severity = if first.reason == "ApplyingResources" { Severity::Info } else { Severity::Warning };
            let told = conditions::legacy_false("ResourcesApplied", first.reason, severity, message.clone());
            conditions::set_legacy(list, told, now);
            let told = conditions::new("ResourcesApplied", false, first.reason, message);
            conditions::set(&mut status.conditions, told, generation, now);
        }
    }
    status
}
