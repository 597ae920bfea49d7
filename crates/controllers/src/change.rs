//! Which changes of an object matter to controllers that only read it: most changes are of counts and messages that nobody decides by.
//!
//! What is said here to be of no matter must be read by no reconciler that watches with it. A whole cluster's reconcilers hang on its one
//! Cluster, whose status changes with every step of every machine.

use api::cluster::{Cluster, Machine};
use api::conditions::Status;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Whether metadata changed, but for the revision.
pub fn of_metadata(old: &ObjectMeta, new: &ObjectMeta) -> bool {
    old.uid != new.uid
        || old.deletion_timestamp != new.deletion_timestamp
        || old.finalizers != new.finalizers
        || old.owner_references != new.owner_references
        || old.labels != new.labels
        || old.annotations != new.annotations
        || old.generation != new.generation
}

/// Whether a Cluster changed in more than counts, phase and the reasons and messages of its conditions.
pub fn of_cluster(old: &Cluster, new: &Cluster) -> bool {
    let initialization = |cluster: &Cluster| cluster.status.as_ref().map(|status| status.initialization.clone());
    let domains = |cluster: &Cluster| cluster.status.as_ref().map(|status| status.failure_domains.clone());
    of_metadata(&old.metadata, &new.metadata)
        || old.spec != new.spec
        || initialization(old) != initialization(new)
        || domains(old) != domains(new)
        || states(old) != states(new)
}

/// The conditions of a Cluster, and since when they hold or do not.
fn states(cluster: &Cluster) -> Vec<(&str, Status, Timestamp)> {
    let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    conditions.map(|condition| (condition.type_.as_str(), condition.status, condition.last_transition_time.0)).collect()
}

/// Whether a Machine changed in more than its status.
pub fn of_machine(old: &Machine, new: &Machine) -> bool {
    of_metadata(&old.metadata, &new.metadata) || old.spec != new.spec
}

/// Whether a Machine changed in more than its status, or in its addresses.
pub fn of_machine_or_addresses(old: &Machine, new: &Machine) -> bool {
    let addresses = |machine: &Machine| machine.status.as_ref().map(|status| status.addresses.clone());
    of_machine(old, new) || addresses(old) != addresses(new)
}

#[cfg(test)]
mod tests {
    use api::cluster::{ClusterPhase, ClusterStatus};
    use api::conditions;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn cluster(status: ClusterStatus) -> Cluster {
        Cluster { status: Some(status), ..Cluster::default() }
    }

    fn with(status: bool, message: &str) -> ClusterStatus {
        let mut list = Vec::new();
        conditions::set(&mut list, conditions::new("InfrastructureReady", status, "Because", message), None, Timestamp::UNIX_EPOCH);
        ClusterStatus { conditions: list, ..ClusterStatus::default() }
    }

    #[test]
    fn a_cluster_matters_by_what_is_read_of_it() {
        let before = cluster(with(false, "waiting for one"));
        let mut later = cluster(with(false, "waiting for two"));
        later.metadata.resource_version = Some("2".to_owned());
        later.status.as_mut().unwrap().phase = Some(ClusterPhase::Provisioning);
        assert!(!of_cluster(&before, &later));
        let mut provisioned = before.clone();
        provisioned.status.as_mut().unwrap().initialization.infrastructure_provisioned = Some(true);
        let mut deleted = before.clone();
        deleted.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let mut paused = before.clone();
        paused.spec.paused = Some(true);
        for changed in [cluster(with(true, "waiting for one")), provisioned, deleted, paused] {
            assert!(of_cluster(&before, &changed), "{changed:?}");
        }
    }
}
