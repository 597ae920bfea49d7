//! What is to be done for a TalosConfig. Pure.
//!
//! ```text
//!   owner Machine -> cluster's infrastructure -> secrets bundle (once) -> CA secret -> machine configuration (once) -> client configuration
//! ```
//!
//! Safety: a bundle that is there is never made anew, whatever it looks like. One that was taken away from a cluster that lives is not made
//! anew either, since no machine would know the new one: it is restored from a control plane's data, which holds all of it. A machine's data that is there is never written again, since
//! the machine may have booted with it. The client configuration alone is renewed: when control planes' addresses change, or its
//! certificate nears its end.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::bootstrap::{GenerateType, TalosConfig};
use api::cluster::{Cluster, Machine};
use api::names::finalizers;
use jiff::Timestamp;
use runtime::defects::{Defect, Defects};
use talos::clientconfig::ClientConfig;
use talos::secrets::Bundle;

use crate::controlplane::{UnusableBundle, endpoint_host, endpoints};
use crate::edit::{has_finalizer, is_deleting, is_paused};

/// A Secret as far as it counts here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    Absent,
    Present,
}

/// What is known of a cluster that has no bundle.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Nothing of it was made with any bundle yet.
    New,
    /// Its machines have one: what their data give back of it, or why that is not enough.
    Lives(Result<Arc<Bundle>, String>),
}

/// What is known when a TalosConfig is planned. The bundle and client configuration are secret: `Debug` of both shows nothing.
#[derive(Clone, Debug)]
pub struct Observed {
    pub config: Arc<TalosConfig>,
    /// The Machine that controls it.
    pub machine: Option<Arc<Machine>>,
    pub cluster: Option<Arc<Cluster>>,
    /// Control-plane Machines of the cluster.
    pub control_planes: Vec<Arc<Machine>>,
    /// Those of them whose own address is the cluster's endpoint.
    pub holders: BTreeSet<String>,
    /// The cluster's bundle; none when there is no such Secret.
    pub bundle: Option<Result<Arc<Bundle>, UnusableBundle>>,
    /// Counts while there is no bundle.
    pub origin: Origin,
    pub ca: Presence,
    /// The machine's data.
    pub data: Presence,
    /// The client configuration; none when there is no such Secret, an error when it cannot be read.
    pub client: Option<Result<Arc<ClientConfig>, String>>,
    pub now: Timestamp,
    pub defects: Defects,
}

/// One outside effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Old releases put a finalizer on; it is only ever taken off.
    RemoveFinalizer,
    CreateBundle,
    /// Write the bundle that the cluster's machines have.
    RestoreBundle,
    /// Only as a planted defect.
    ReplaceBundle,
    CreateCa,
    /// Generate the configuration and write the data secret.
    CreateData,
    /// Issue a client certificate and write the client configuration.
    WriteClient {
        endpoints: Vec<String>,
    },
}

/// What is missing before anything can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    Owner,
    Cluster,
    Infrastructure,
    Endpoint,
    Version,
    Data,
    UnusableBundle(String),
    /// The cluster lives, and its bundle is nowhere: why.
    BundleLost(String),
}

/// What to do, and where the TalosConfig stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub is_paused: bool,
    pub missing: Option<Missing>,
}

/// Whether the machine runs the control plane, and with it gets a client configuration.
pub fn is_control_plane(config: &TalosConfig, machine: Option<&Machine>) -> bool {
    match config.spec.generate_type {
        GenerateType::ControlPlane | GenerateType::Init => true,
        GenerateType::Worker => false,
        GenerateType::None => machine.is_some_and(crate::controlplane::is_control_plane),
    }
}

/// Decides for one TalosConfig.
pub fn plan(observed: &Observed) -> Plan {
    let meta = &observed.config.metadata;
    if is_paused(observed.cluster.as_deref(), meta) {
        return Plan { is_paused: true, ..Plan::default() };
    }
    let mut plan = Plan::default();
    if has_finalizer(meta, finalizers::TALOS_CONFIG) {
        plan.steps.push(Step::RemoveFinalizer);
    }
    if is_deleting(meta) {
        return plan;
    }
    plan.missing = missing(observed);
    if plan.missing.is_none() {
        steps(observed, &mut plan);
    }
    plan
}

fn missing(observed: &Observed) -> Option<Missing> {
    let Some(machine) = &observed.machine else { return Some(Missing::Owner) };
    let Some(cluster) = &observed.cluster else { return Some(Missing::Cluster) };
    if let Some(Err(UnusableBundle(reason))) = &observed.bundle {
        return Some(Missing::UnusableBundle(reason.clone()));
    }
    if let (None, Origin::Lives(Err(reason)), false) = (&observed.bundle, &observed.origin, is_deleting(&cluster.metadata)) {
        return Some(Missing::BundleLost(reason.clone()));
    }
    if is_done(observed) {
        return None;
    }
    let is_provisioned = cluster.status.as_ref().is_some_and(|status| status.initialization.infrastructure_provisioned == Some(true));
    if !is_provisioned {
        return Some(Missing::Infrastructure);
    }
    if !cluster.spec.control_plane_endpoint.is_valid() {
        return Some(Missing::Endpoint);
    }
    if observed.config.spec.generate_type == GenerateType::None {
        let has_data = observed.config.spec.data.as_ref().is_some_and(|data| !data.is_empty());
        return (!has_data).then_some(Missing::Data);
    }
    let has_version = machine.spec.version.as_ref().is_some_and(|version| !version.is_empty());
    (!has_version).then_some(Missing::Version)
}

/// Whether the machine's data is there, or was when this object was moved here.
fn is_done(observed: &Observed) -> bool {
    observed.data == Presence::Present
}

/// The Machine may know its data already although the Secret is not there: it was moved or taken away, and is not made up for.
fn is_handed_over(observed: &Observed) -> bool {
    observed.machine.as_ref().is_some_and(|machine| machine.spec.bootstrap.data_secret_name.is_some())
}

fn steps(observed: &Observed, plan: &mut Plan) {
    let (Some(cluster), Some(machine)) = (&observed.cluster, &observed.machine) else { return };
    if observed.bundle.is_none() {
        if is_deleting(&cluster.metadata) {
            // It went with its cluster, and nothing is made any more.
            return;
        }
        plan.steps.push(match observed.origin {
            Origin::New => Step::CreateBundle,
            Origin::Lives(_) => Step::RestoreBundle,
        });
    } else if observed.defects.has(Defect::RegenerateSecrets) && !is_done(observed) {
        plan.steps.push(Step::ReplaceBundle);
    }
    if observed.ca == Presence::Absent {
        plan.steps.push(Step::CreateCa);
    }
    if !is_done(observed) && !is_handed_over(observed) {
        plan.steps.push(Step::CreateData);
    }
    if is_control_plane(&observed.config, Some(machine)) {
        let endpoints = endpoints(&observed.control_planes, endpoint_host(cluster), &observed.holders);
        if is_client_stale(observed, cluster, &endpoints) {
            plan.steps.push(Step::WriteClient { endpoints });
        }
    }
}

fn is_client_stale(observed: &Observed, cluster: &Cluster, endpoints: &[String]) -> bool {
    let Some(Ok(client)) = &observed.client else { return true };
    let has_other_ca = match &observed.bundle {
        Some(Ok(bundle)) => client.identity.ca.trim() != bundle.os.certificate.trim(),
        _ => false,
    };
    client.endpoints != endpoints
        || Some(&client.context) != cluster.metadata.name.as_ref()
        || has_other_ca
        || client.identity.is_due(observed.now)
}

#[cfg(test)]
mod tests {
    use api::cluster::ClusterStatus;
    use api::meta::ApiEndpoint;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn observed(origin: Origin, is_going: bool) -> Observed {
        let mut cluster = Cluster::default();
        cluster.spec.control_plane_endpoint = ApiEndpoint { host: Some("c.example".into()), port: Some(6443) };
        let mut status = ClusterStatus::default();
        status.initialization.infrastructure_provisioned = Some(true);
        cluster.status = Some(status);
        cluster.metadata.deletion_timestamp = is_going.then_some(Time(Timestamp::UNIX_EPOCH));
        let mut machine = Machine::default();
        machine.spec.version = Some("v1.25.5".into());
        let mut config = TalosConfig::default();
        config.spec.generate_type = GenerateType::Worker;
        Observed {
            config: Arc::new(config),
            machine: Some(Arc::new(machine)),
            cluster: Some(Arc::new(cluster)),
            control_planes: Vec::new(),
            holders: BTreeSet::new(),
            bundle: None,
            origin,
            ca: Presence::Present,
            data: Presence::Absent,
            client: None,
            now: Timestamp::UNIX_EPOCH,
            defects: Defects::none(),
        }
    }

    #[test]
    fn a_bundle_is_made_for_a_new_cluster_only() {
        let lost = || Origin::Lives(Err("gone".to_owned()));
        assert_eq!(plan(&observed(Origin::New, false)).steps, [Step::CreateBundle, Step::CreateData]);
        let told = plan(&observed(lost(), false));
        assert_eq!((told.steps, told.missing), (Vec::new(), Some(Missing::BundleLost("gone".to_owned()))));
        for origin in [Origin::New, lost()] {
            let going = plan(&observed(origin, true));
            assert_eq!((going.steps, going.missing), (Vec::new(), None), "what went with its cluster does not come back");
        }
    }
}
