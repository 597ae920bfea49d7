//! What is to be done for a VSphereCluster. Pure.
//!
//! ```text
//!   alive:    finalizer -> finalizer on the identity secret -> endpoint from the Cluster, if it has none -> vCenter answered: provisioned
//!   deleting: while VSphereMachines are left, wait -> finalizer off the secret (unless another cluster uses it) -> finalizer
//! ```
//!
//! The secret is the user's: nothing of it changes but this one finalizer, which lets it outlive the machines when all is deleted at once.

use std::sync::Arc;

use api::cluster::Cluster;
use api::infrastructure::VSphereCluster;
use api::names::finalizers;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use vsphere::About;

use crate::edit::{has_finalizer, is_deleting};

/// Why vCenter is not available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    pub message: String,
    /// Whether it is the identity, not the server.
    pub is_identity: bool,
    /// When to try again; none: with the growing delay of failures.
    pub retry: Option<std::time::Duration>,
}

/// What is known when a VSphereCluster is planned.
#[derive(Clone, Debug)]
pub struct Observed {
    pub object: Arc<VSphereCluster>,
    /// Its owner.
    pub cluster: Option<Arc<Cluster>>,
    pub is_paused: bool,
    /// The identity secret, when it is one in the namespace and there.
    pub secret: Option<Arc<Secret>>,
    /// Whether another VSphereCluster that is not being deleted uses the same secret.
    pub is_secret_shared: bool,
    /// The VSphereMachines of the cluster.
    pub machines: Vec<String>,
    /// The VSphereCluster that had the same endpoint before.
    pub endpoint_holder: Option<String>,
    /// None: not asked.
    pub vcenter: Option<Result<About, Unavailable>>,
    pub now: Timestamp,
}

/// One outside effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    AddFinalizer,
    RemoveFinalizer,
    ProtectSecret,
    ReleaseSecret,
    /// Take the endpoint that the Cluster has.
    CopyEndpoint {
        host: String,
        port: i32,
    },
}

/// What to do, and where the VSphereCluster stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub is_paused: bool,
    /// The VSphereMachines that a deletion waits for.
    pub waiting_for: Vec<String>,
}

/// Decides.
pub fn plan(observed: &Observed) -> Plan {
    let mut plan = Plan { is_paused: observed.is_paused, ..Plan::default() };
    if observed.is_paused {
        return plan;
    }
    let meta = &observed.object.metadata;
    let is_secret_held = observed.secret.as_ref().is_some_and(|secret| has_finalizer(&secret.metadata, finalizers::IDENTITY_SECRET));
    if is_deleting(meta) {
        if !has_finalizer(meta, finalizers::VSPHERE_CLUSTER) {
            return plan;
        }
        if !observed.machines.is_empty() {
            plan.waiting_for.clone_from(&observed.machines);
            return plan;
        }
        if is_secret_held && !observed.is_secret_shared {
            plan.steps.push(Step::ReleaseSecret);
        }
        plan.steps.push(Step::RemoveFinalizer);
        return plan;
    }
    if !has_finalizer(meta, finalizers::VSPHERE_CLUSTER) {
        plan.steps.push(Step::AddFinalizer);
    }
    if let Some(secret) = &observed.secret
        && !is_secret_held
        && !is_deleting(&secret.metadata)
    {
        plan.steps.push(Step::ProtectSecret);
    }
    let own = observed.object.spec.control_plane_endpoint.parts();
    let wanted = observed.cluster.as_ref().and_then(|cluster| cluster.spec.control_plane_endpoint.parts());
    if let (None, Some((host, port))) = (own, wanted) {
        plan.steps.push(Step::CopyEndpoint { host: host.to_owned(), port: i32::from(port) });
    }
    plan
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    /// An ordinary VSphereCluster that nobody has looked at.
    pub fn observed() -> Observed {
        Observed {
            object: Arc::default(),
            cluster: None,
            is_paused: false,
            secret: Some(Arc::default()),
            is_secret_shared: false,
            machines: Vec::new(),
            endpoint_holder: None,
            vcenter: None,
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn deleting(mut observed: Observed) -> Observed {
        let meta = &mut Arc::make_mut(&mut observed.object).metadata;
        meta.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        meta.finalizers = Some(vec![finalizers::VSPHERE_CLUSTER.to_owned()]);
        let secret = &mut Arc::make_mut(observed.secret.as_mut().unwrap()).metadata;
        secret.finalizers = Some(vec![finalizers::IDENTITY_SECRET.to_owned()]);
        observed
    }

    #[test]
    fn a_new_one_is_protected_with_its_secret() {
        assert_eq!(plan(&observed()).steps, [Step::AddFinalizer, Step::ProtectSecret]);
    }

    #[test]
    fn a_paused_one_is_left_alone() {
        assert!(plan(&Observed { is_paused: true, ..observed() }).steps.is_empty());
    }

    #[test]
    fn the_endpoint_comes_from_the_cluster_only_where_there_is_none() {
        let mut cluster = Cluster::default();
        cluster.spec.control_plane_endpoint.host = Some("api".to_owned());
        cluster.spec.control_plane_endpoint.port = Some(6443);
        let mut observed = Observed { cluster: Some(Arc::new(cluster)), secret: None, ..observed() };
        let copy = Step::CopyEndpoint { host: "api".to_owned(), port: 6443 };
        assert_eq!(plan(&observed).steps, [Step::AddFinalizer, copy]);
        let spec = &mut Arc::make_mut(&mut observed.object).spec;
        spec.control_plane_endpoint.host = Some("other".to_owned());
        spec.control_plane_endpoint.port = Some(6443);
        assert_eq!(plan(&observed).steps, [Step::AddFinalizer]);
    }

    #[test]
    fn it_goes_after_its_machines_and_lets_the_secret_go() {
        let waiting = plan(&Observed { machines: vec!["m".to_owned()], ..deleting(observed()) });
        assert_eq!((waiting.steps, waiting.waiting_for), (Vec::new(), vec!["m".to_owned()]));
        assert_eq!(plan(&deleting(observed())).steps, [Step::ReleaseSecret, Step::RemoveFinalizer]);
        let shared = Observed { is_secret_shared: true, ..deleting(observed()) };
        assert_eq!(plan(&shared).steps, [Step::RemoveFinalizer], "another cluster still needs it");
    }
}
