//! What a VSphereCluster tells: whether its vCenter can be worked with, and whether it is provisioned. Pure.

use api::conditions::{self, Severity};
use api::infrastructure::VSphereClusterStatus;
use runtime::reconcile::Wait;

use super::plan::{Observed, Plan};
use crate::edit::is_deleting;
use crate::status::set_paused;

const VCENTER: &str = "VCenterAvailable";

/// Computes the status from the old one and what was observed.
pub fn status(observed: &Observed, plan: &Plan) -> VSphereClusterStatus {
    let object = &observed.object;
    let (generation, now) = (object.metadata.generation, observed.now);
    let mut status = object.status.clone().unwrap_or_default();
    set_paused(&mut status.conditions, plan.is_paused, generation, now);
    if plan.is_paused {
        return status;
    }
    let legacy = &mut status.deprecated.v1beta1.conditions;
    match &observed.vcenter {
        Some(Ok(about)) => {
            status.v_center_version = Some(about.version.clone());
            // It never goes back: machines live on while vCenter is away.
            status.initialization.provisioned = Some(true);
            conditions::set(&mut status.conditions, conditions::new(VCENTER, true, "Available", ""), generation, now);
            conditions::set_legacy(legacy, conditions::legacy_true(VCENTER), now);
        }
        Some(Err(unavailable)) => {
            let reason = if unavailable.is_identity { "CredentialsNotAvailable" } else { "VCenterUnreachable" };
            let message = unavailable.message.as_str();
            conditions::set(&mut status.conditions, conditions::new(VCENTER, false, reason, message), generation, now);
            conditions::set_legacy(legacy, conditions::legacy_false(VCENTER, reason, Severity::Error, message), now);
        }
        None => {}
    }
    if is_deleting(&object.metadata) {
        let left = plan.waiting_for.join(", ");
        let since = object.metadata.deletion_timestamp.as_ref();
        let wait = Wait::since_transition(format!("VSphereMachines to go ({left})"), since, now);
        let message = if left.is_empty() { String::new() } else { wait.to_string() };
        conditions::set(&mut status.conditions, conditions::new("Deleting", true, "Deleting", message.as_str()), generation, now);
        conditions::set(&mut status.conditions, conditions::new("Ready", false, "Deleting", message.as_str()), generation, now);
        conditions::set_legacy(legacy, conditions::legacy_false("Ready", "Deleting", Severity::Info, message), now);
        return status;
    }
    let ready = conditions::summarize("Ready", &status.conditions, &[VCENTER], &[], "Ready");
    conditions::set(&mut status.conditions, ready, generation, now);
    if let Some(ready) = conditions::summarize_legacy(legacy, &[VCENTER]) {
        conditions::set_legacy(legacy, ready, now);
    }
    status
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use api::infrastructure::VSphereCluster;
    use jiff::{SignedDuration, Timestamp};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn a_deletion_tells_on_whom_it_waits_since_when() {
        let begun = Timestamp::UNIX_EPOCH;
        let mut object = VSphereCluster::default();
        object.metadata.deletion_timestamp = Some(Time(begun));
        let observed = Observed {
            object: Arc::new(object),
            cluster: None,
            is_paused: false,
            secret: None,
            is_secret_shared: false,
            machines: Vec::new(),
            vcenter: None,
            now: begun + SignedDuration::from_mins(5),
        };
        let status = status(&observed, &Plan { waiting_for: vec!["a".to_owned(), "b".to_owned()], ..Plan::default() });
        let told = conditions::get(&status.conditions, "Deleting").unwrap();
        assert_eq!(told.message, "waiting for VSphereMachines to go (a, b) since 00:00:00");
    }
}
