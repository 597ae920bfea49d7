//! What a VSphereCluster tells: whether its vCenter can be worked with, and whether it is provisioned. Pure.

use api::conditions::{self, Severity};
use api::infrastructure::VSphereClusterStatus;
use runtime::reconcile::Wait;

use super::plan::{Observed, Plan};
use crate::edit::is_deleting;
use crate::status::set_paused;

const VCENTER: &str = "VCenterAvailable";
/// Told only of a cluster that has shared its endpoint with another one. Ours.
const ENDPOINT: &str = "EndpointAvailable";

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
            // It never goes back: machines live on while vCenter is away. Without an endpoint of its own no cluster is begun.
            if observed.endpoint_holder.is_none() {
                status.initialization.provisioned = Some(true);
            }
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
    let had_endpoint = conditions::get(&status.conditions, ENDPOINT).is_some();
    match &observed.endpoint_holder {
        Some(holder) => {
            let host = object.spec.control_plane_endpoint.host.as_deref().unwrap_or_default();
            let message = format!(
                "the endpoint {host} is the one of VSphereCluster {holder}: give this cluster another one, or delete the other cluster"
            );
            conditions::set(&mut status.conditions, conditions::new(ENDPOINT, false, "EndpointInUse", message), generation, now);
        }
        None if had_endpoint => {
            conditions::set(&mut status.conditions, conditions::new(ENDPOINT, true, "EndpointAvailable", ""), generation, now);
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
    let mut positive = vec![VCENTER];
    positive.extend(conditions::get(&status.conditions, ENDPOINT).map(|_| ENDPOINT));
    let ready = conditions::summarize("Ready", &status.conditions, &positive, &[], "Ready");
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
    fn an_endpoint_in_use_keeps_a_cluster_from_beginning() {
        let mut object = VSphereCluster::default();
        object.spec.control_plane_endpoint.host = Some("10.0.0.9".to_owned());
        let about =
            vsphere::About { version: "8.0.3".to_owned(), build: String::new(), instance_uuid: String::new(), full_name: String::new() };
        let mut observed = Observed {
            object: Arc::new(object),
            endpoint_holder: Some("n/other".to_owned()),
            vcenter: Some(Ok(about)),
            ..super::super::plan::tests::observed()
        };
        let told = status(&observed, &Plan::default());
        assert_eq!(told.initialization.provisioned, None);
        let ready = conditions::get(&told.conditions, "Ready").unwrap();
        assert!(ready.status == conditions::Status::False && ready.message.contains("n/other"), "{ready:?}");
        Arc::make_mut(&mut observed.object).status = Some(told);
        observed.endpoint_holder = None;
        let told = status(&observed, &Plan::default());
        assert_eq!(told.initialization.provisioned, Some(true));
        assert_eq!(conditions::get(&told.conditions, "Ready").unwrap().status, conditions::Status::True);
    }

    #[test]
    fn a_deletion_tells_on_whom_it_waits_since_when() {
        let begun = Timestamp::UNIX_EPOCH;
        let mut object = VSphereCluster::default();
        object.metadata.deletion_timestamp = Some(Time(begun));
        let now = begun + SignedDuration::from_mins(5);
        let observed = Observed { object: Arc::new(object), now, ..super::super::plan::tests::observed() };
        let status = status(&observed, &Plan { waiting_for: vec!["a".to_owned(), "b".to_owned()], ..Plan::default() });
        let told = conditions::get(&status.conditions, "Deleting").unwrap();
        assert_eq!(told.message, "waiting for VSphereMachines to go (a, b) since 00:00:00");
    }
}
