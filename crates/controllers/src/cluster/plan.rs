//! What is to be done for a Cluster. Pure.
//!
//! ```text
//!   alive:    finalizer -> own infrastructure and control plane -> copy the endpoint when infrastructure is provisioned
//!   deleting: workers (MachineDeployments, MachineSets, Machines without a controller) -> control plane -> infrastructure -> finalizer
//! ```
//!
//! The order of a deletion is a safety rule: workers leave while the API still answers, and the infrastructure object, which holds the
//! credentials' user, goes last. A part that is gone already, or never was there, is passed over.

use std::sync::Arc;

use api::cluster::{Cluster, Machine, MachineDeployment, MachineSet};
use api::names::{finalizers, labels};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::contract::Referenced;
use crate::controlplane::is_control_plane;
use crate::edit::{controller_reference, has_finalizer, is_deleting, is_paused};
use crate::workload::Connection;

/// What is known when a Cluster is planned.
#[derive(Clone, Debug)]
pub struct Observed {
    pub cluster: Arc<Cluster>,
    pub infrastructure: Referenced,
    pub control_plane: Referenced,
    pub deployments: Vec<Arc<MachineDeployment>>,
    pub sets: Vec<Arc<MachineSet>>,
    pub machines: Vec<Arc<Machine>>,
    pub connection: Connection,
    /// Since when the cluster does not answer; none while it does.
    pub away_since: Option<Timestamp>,
    /// As last seen.
    pub nodes: Vec<Arc<Node>>,
    pub now: Timestamp,
}

/// One outside effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Put the finalizer on the Cluster.
    AddFinalizer,
    /// Make the Cluster the controller of its infrastructure object, and label it.
    OwnInfrastructure,
    /// Make the Cluster the controller of its control-plane object, and label it.
    OwnControlPlane,
    /// Write the infrastructure's endpoint into the Cluster.
    CopyEndpoint {
        host: String,
        port: i32,
    },
    /// Delete a worker object.
    DeleteDeployment(ObjectMeta),
    DeleteSet(ObjectMeta),
    DeleteMachine(ObjectMeta),
    /// Delete the control-plane object.
    DeleteControlPlane,
    /// Delete the infrastructure object.
    DeleteInfrastructure,
    /// Let the Cluster go.
    RemoveFinalizer,
}

/// How far a deletion is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    Workers { left: Vec<String> },
    ControlPlane { left: String },
    Infrastructure { left: String },
    Completed,
}

/// What to do, and where the Cluster stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub is_paused: bool,
    pub deletion: Option<Deletion>,
}

/// Decides for one Cluster.
pub fn plan(observed: &Observed) -> Plan {
    let meta = &observed.cluster.metadata;
    if is_paused(Some(&observed.cluster), meta) {
        return Plan { is_paused: true, ..Plan::default() };
    }
    if is_deleting(meta) {
        return deletion(observed);
    }
    let mut steps = Vec::new();
    if !has_finalizer(meta, finalizers::CLUSTER) {
        steps.push(Step::AddFinalizer);
    }
    if is_unowned(&observed.infrastructure, observed) {
        steps.push(Step::OwnInfrastructure);
    }
    if is_unowned(&observed.control_plane, observed) {
        steps.push(Step::OwnControlPlane);
    }
    if let Some(step) = endpoint(observed) {
        steps.push(step);
    }
    Plan { steps, ..Plan::default() }
}

/// Whether the referenced object lacks the Cluster's label or the reference to it as its controller.
fn is_unowned(referenced: &Referenced, observed: &Observed) -> bool {
    let Some(object) = referenced.found().filter(|object| !object.is_deleting()) else { return false };
    let cluster = &observed.cluster.metadata;
    let is_labelled = object.metadata.labels.as_ref().and_then(|known| known.get(labels::CLUSTER_NAME)) == cluster.name.as_ref();
    let is_owned = controller_reference(&object.metadata).is_some_and(|owner| Some(&owner.uid) == cluster.uid.as_ref());
    let has_other = controller_reference(&object.metadata).is_some();
    !is_labelled || (!is_owned && !has_other)
}

fn endpoint(observed: &Observed) -> Option<Step> {
    let object = observed.infrastructure.found().filter(|object| object.is_provisioned())?;
    let (host, port) = object.spec.control_plane_endpoint.as_ref()?.parts()?;
    let is_set = observed.cluster.spec.control_plane_endpoint.is_valid();
    (!is_set).then(|| Step::CopyEndpoint { host: host.to_owned(), port: i32::from(port) })
}

fn deletion(observed: &Observed) -> Plan {
    let meta = &observed.cluster.metadata;
    let mut steps = Vec::new();
    let mut left = Vec::new();
    let name = |meta: &ObjectMeta| meta.name.clone().unwrap_or_default();
    for deployment in &observed.deployments {
        left.push(format!("MachineDeployment {}", name(&deployment.metadata)));
        if !is_deleting(&deployment.metadata) {
            steps.push(Step::DeleteDeployment(deployment.metadata.clone()));
        }
    }
    for set in &observed.sets {
        left.push(format!("MachineSet {}", name(&set.metadata)));
        if !is_deleting(&set.metadata) && controller_reference(&set.metadata).is_none() {
            steps.push(Step::DeleteSet(set.metadata.clone()));
        }
    }
    for machine in observed.machines.iter().filter(|machine| !is_control_plane(machine)) {
        left.push(format!("Machine {}", name(&machine.metadata)));
        if !is_deleting(&machine.metadata) && controller_reference(&machine.metadata).is_none() {
            steps.push(Step::DeleteMachine(machine.metadata.clone()));
        }
    }
    let stage = if left.is_empty() { remaining(observed, &mut steps) } else { Deletion::Workers { left } };
    if stage == Deletion::Completed && has_finalizer(meta, finalizers::CLUSTER) {
        steps.push(Step::RemoveFinalizer);
    }
    Plan { steps, is_paused: false, deletion: Some(stage) }
}

/// After the workers: the control plane with its Machines, then the infrastructure.
fn remaining(observed: &Observed, steps: &mut Vec<Step>) -> Deletion {
    if let Some(object) = observed.control_plane.found() {
        if !object.is_deleting() {
            steps.push(Step::DeleteControlPlane);
        }
        return Deletion::ControlPlane { left: format!("{} {}", object.kind, object.metadata.name.as_deref().unwrap_or_default()) };
    }
    // Control-plane Machines whose control-plane object is gone or never was: nobody else deletes them.
    if let Some(first) = observed.machines.first() {
        for machine in observed.machines.iter().filter(|machine| !is_deleting(&machine.metadata)) {
            steps.push(Step::DeleteMachine(machine.metadata.clone()));
        }
        return Deletion::ControlPlane { left: format!("Machine {}", first.metadata.name.as_deref().unwrap_or_default()) };
    }
    if let Some(object) = observed.infrastructure.found() {
        if !object.is_deleting() {
            steps.push(Step::DeleteInfrastructure);
        }
        return Deletion::Infrastructure { left: format!("{} {}", object.kind, object.metadata.name.as_deref().unwrap_or_default()) };
    }
    Deletion::Completed
}
