//! Nodes that belong to no Machine of their Cluster: somebody runs under an identity that should be gone. Pure.
//!
//! They come back when a virtual machine that was taken out of the inventory is put back after its Machine has been replaced, or when a
//! Machine went while its cluster did not answer. Nothing is done to them: a person may have joined a Node of their own. They are told.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::cluster::Machine;
use api::names::annotations;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use super::plan::Observed;
use crate::machine::node;

/// How long after it joined a Node may belong to nobody: its Machine learns of it a moment later.
const GRACE: SignedDuration = SignedDuration::from_mins(2);

/// The Machine that a Node was made for, as it carries it.
pub fn machine_of(node: &Node) -> Option<&str> {
    node.metadata.annotations.as_ref()?.get(annotations::NODE_MACHINE).map(String::as_str)
}

fn joined(node: &Node) -> Timestamp {
    node.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

fn told_at(node: &Node) -> Timestamp {
    joined(node).checked_add(GRACE).unwrap_or(Timestamp::MAX)
}

/// Nodes that belong to no Machine, those included that joined a moment ago.
fn strays(observed: &Observed) -> Vec<&Arc<Node>> {
    let known: BTreeSet<&str> =
        observed.machines.iter().filter_map(|machine| machine.status.as_ref()?.node_ref.as_ref().map(|node| node.name.as_str())).collect();
    let is_of = |machine: &Arc<Machine>, node: &Arc<Node>| {
        let id = machine.spec.provider_id.as_deref().filter(|id| !id.is_empty());
        id.is_some_and(|id| node::find(std::slice::from_ref(node), id).is_some())
    };
    let nodes = observed.nodes.iter().filter(|_| observed.connection.is_connected());
    let unnamed = nodes.filter(|node| node.metadata.name.as_deref().is_none_or(|name| !known.contains(name)));
    unnamed.filter(|node| !observed.machines.iter().any(|machine| is_of(machine, node))).collect()
}

/// When a Node that has joined a moment ago is told of, if it still belongs to nobody then.
pub fn look_again(observed: &Observed) -> Option<Timestamp> {
    strays(observed).into_iter().map(|node| told_at(node)).filter(|at| *at > observed.now).min()
}

/// What is told of them; none when there are none, or when nothing can be seen.
pub fn told(observed: &Observed) -> Option<String> {
    let line = |node: &Arc<Node>| {
        let (name, since) = (node.metadata.name.as_deref().unwrap_or_default(), joined(node).strftime("%T"));
        let whose = match machine_of(node) {
            Some(machine) => format!("has no Machine any more ({machine} is gone)"),
            None => format!("belongs to no Machine of this Cluster (it joined at {since})"),
        };
        format!(
            "Node {name} {whose}: whoever runs under this name is not managed. Unless it is meant to be there, switch its machine off and remove it with `kubectl delete node {name}` in the cluster"
        )
    };
    let lines: Vec<String> = strays(observed).into_iter().filter(|node| told_at(node) <= observed.now).map(line).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
