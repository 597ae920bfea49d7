//! How members leave etcd: those of machines that are being deleted, and those that no machine has any more. Pure.
//!
//! One at a time, and only where the quorum of what is left is healthy. A node that works is drained before its member leaves; the
//! member of one that does not answer is taken out by its number, through a node whose etcd is healthy. A member without a Machine is
//! taken out only when no machine can be it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use runtime::defects::Defect;
use talos::client::MemberId;

use super::etcd::{self, Answer, Disagreement, Etcd, Membership, NodeView};
use super::intent::{self, Choice};
use super::plan::{Observed, Step};
use super::size::told;
use crate::controlplane::{ETCD_HOOK, has_etcd_hook, is_past_drain};

/// What becomes of the machines that are being deleted.
pub(super) enum Departure {
    /// There is none that waits for us.
    None,
    /// One goes on: what is to be done, and what is told.
    Going { steps: Vec<Step>, told: Option<String> },
    /// None may. `by_quorum` when nothing but etcd's quorum keeps all of them: only another member lets them go.
    Held { told: String, by_quorum: bool },
}

impl Departure {
    fn held(told: String) -> Self {
        Self::Held { told, by_quorum: false }
    }

    fn release(machine: String) -> Self {
        Self::Going { steps: vec![Step::Release { machine }], told: None }
    }
}

/// Members of machines that are being deleted leave etcd, one at a time: the first that may. What is not healthy comes first, since its
/// going costs the quorum nothing and may be what lets the others go.
pub(super) fn departure(observed: &Observed) -> Departure {
    let mut going: Vec<&NodeView> = observed.nodes.iter().filter(|node| node.is_deleting() && has_etcd_hook(&node.machine)).collect();
    going.sort_by_key(|node| (node.is_etcd_healthy(), node.name().to_owned()));
    let mut held = Vec::new();
    let mut by_quorum = observed.nodes.iter().all(|node| !node.is_deleting() || has_etcd_hook(&node.machine));
    for node in going {
        if let Some(told) = undrained(observed, node) {
            by_quorum = false;
            held.push(told);
            continue;
        }
        let departure = if observed.is_bootstrapped() { leave(observed, node) } else { leave_unborn(observed, node) };
        match departure {
            Departure::Held { told, by_quorum: is_by_quorum } => {
                by_quorum &= is_by_quorum;
                held.push(told);
            }
            other => return other,
        }
    }
    match held.is_empty() {
        true => Departure::None,
        false => Departure::Held { told: held.join("; "), by_quorum },
    }
}

/// What is told of a node that is still being drained. One that does not answer, and that its cluster does not hear from either, is not
/// waited for: its member may be what keeps the others.
fn undrained(observed: &Observed, node: &NodeView) -> Option<String> {
    if is_past_drain(&node.machine) || observed.defects.has(Defect::LeaveUndrained) {
        return None;
    }
    let known = node.machine.status.as_ref().and_then(|status| status.node_ref.as_ref());
    let is_ready = |node: &Arc<Node>| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    let of_machine = |node: &&Arc<Node>| known.is_some_and(|known| node.metadata.name.as_ref() == Some(&known.name));
    let is_heard = observed.connection.is_connected() && observed.workload_nodes.iter().find(of_machine).is_some_and(is_ready);
    let is_silent = matches!(node.answer, Answer::Failed(_));
    (!is_silent || is_heard).then(|| format!("{} leaves etcd when its node is drained", node.name()))
}

fn leave(observed: &Observed, node: &NodeView) -> Departure {
    let machine = node.name().to_owned();
    // The others' word counts: a node that has left may still show its old list.
    let others: Vec<NodeView> = observed.nodes.iter().filter(|other| other.name() != machine).cloned().collect();
    let membership = match etcd::membership(&others) {
        Err(Disagreement::Nobody) => etcd::membership(&observed.nodes),
        other => other,
    };
    let membership = match membership {
        Ok(membership) => membership,
        Err(disagreement) => return Departure::held(format!("{machine} cannot leave etcd yet: {}", told(&disagreement))),
    };
    let Some(member) = node.member(&membership.members) else { return leave_unknown(node, &others, &membership) };
    if let Some(reason) = membership.objection(member.id, &observed.nodes) {
        return Departure::Held { told: format!("{machine} may not leave etcd: {reason}"), by_quorum: true };
    }
    match (&node.answer, &node.address) {
        (Answer::Answers { etcd: Etcd::Lists { .. }, .. }, Some(address)) => Departure::Going {
            steps: vec![
                Step::MarkLeaving { machine: machine.clone() },
                Step::MoveLeadership { machine: machine.clone(), address: address.clone() },
                Step::EtcdLeave { machine: machine.clone(), address: address.clone() },
            ],
            told: Some(format!("{machine} is leaving etcd")),
        },
        _ => {
            let Some(via) = via(&others, &membership) else {
                return Departure::held(format!("{machine} cannot leave etcd: no other control plane's etcd is healthy"));
            };
            let told = format!("{machine} is taken out of etcd through another node, since its own etcd does not answer");
            Departure::Going { steps: vec![Step::EtcdRemove { machine, id: member.id, via }], told: Some(told) }
        }
    }
}

/// Takes out a member that no machine is, when every machine whose member is not known says itself that it has none.
pub(super) fn stale(observed: &Observed) -> Departure {
    let Some(membership) = etcd::membership(&observed.nodes).ok().filter(|_| observed.is_bootstrapped()) else { return Departure::None };
    let Some(stranger) = etcd::strangers(&observed.nodes, &membership).next() else { return Departure::None };
    let name = if stranger.hostname.is_empty() { stranger.id.to_string() } else { format!("{} ({})", stranger.id, stranger.hostname) };
    let is_unclear = |node: &&NodeView| node.member(&membership.members).is_none() && !node.has_no_etcd();
    let unclear: Vec<&str> = observed.nodes.iter().filter(is_unclear).map(NodeView::name).collect();
    if !unclear.is_empty() {
        return Departure::held(format!(
            "etcd member {name} has no Machine; it is taken out when {} has told which member it is, or that it is none",
            unclear.join(", ")
        ));
    }
    if let Some(reason) = membership.objection(stranger.id, &observed.nodes) {
        return Departure::held(format!("etcd member {name}, which has no Machine, may not be taken out: {reason}"));
    }
    let Some(via) = via(&observed.nodes, &membership) else { return Departure::None };
    let told = format!("etcd member {name} is taken out, since it has no Machine");
    Departure::Going { steps: vec![Step::EtcdRemove { machine: name, id: stranger.id, via }], told: Some(told) }
}

/// The address of a node through which a member is taken out: one whose etcd is healthy and has told of the membership.
fn via<'a>(nodes: impl IntoIterator<Item = &'a NodeView>, membership: &Membership) -> Option<String> {
    let has_told = |node: &&NodeView| membership.told_by.iter().any(|name| name == node.name());
    nodes.into_iter().filter(has_told).filter(|node| node.is_etcd_healthy()).find_map(|node| node.address.clone())
}

/// No member is known as this machine's. It may go only when it surely has none: not when one that nobody knows may be its own.
fn leave_unknown(node: &NodeView, others: &[NodeView], membership: &Membership) -> Departure {
    let machine = node.name().to_owned();
    let is_known = |id: MemberId| others.iter().any(|other| other.member(&membership.members).is_some_and(|member| member.id == id));
    let Some(stranger) = membership.members.iter().find(|member| !is_known(member.id)) else { return Departure::release(machine) };
    // A recorded member that were still listed would have been found.
    if node.recorded().is_some() || node.has_no_etcd() {
        return Departure::release(machine);
    }
    Departure::held(format!(
        "{machine} cannot leave etcd: member {} ({}) has no Machine and may be its own. Take that member out of etcd (talosctl etcd \
         remove-member), or take the annotation {ETCD_HOOK} off the Machine",
        stranger.id, stranger.hostname
    ))
}

/// A machine goes before etcd was seen to live. It stays while it may be a member: of an etcd that began on it, or on another.
fn leave_unborn(observed: &Observed, node: &NodeView) -> Departure {
    let machine = node.name().to_owned();
    let mut others = observed.nodes.iter().filter(|other| other.name() != machine).peekable();
    let choice = intent::choice(&observed.control_plane);
    let is_chosen = |other: &NodeView| matches!(&choice, Choice::Node { machine, .. } if machine == other.name());
    if node.has_no_etcd() {
        // It says itself that nothing has begun there: another one may be chosen.
        let forget = is_chosen(node).then_some(Step::RecordBootstrap(Choice::Unborn));
        return Departure::Going { steps: forget.into_iter().chain([Step::Release { machine }]).collect(), told: None };
    }
    let is_free = match &choice {
        _ if node.has_etcd() => false,
        Choice::Unborn => true,
        // Where it was to begin it has not: then it has nowhere.
        Choice::Node { .. } if observed.nodes.iter().any(|other| is_chosen(other) && other.has_no_etcd()) => true,
        Choice::Node { .. } | Choice::Unknown => others.peek().is_some() && others.all(NodeView::has_no_etcd),
    };
    if is_free {
        return Departure::release(machine);
    }
    Departure::held(format!(
        "{machine} may hold the only etcd: waiting for the other control planes to say that they have none. If nothing of it is to be \
         kept, take the annotation {ETCD_HOOK} off the Machine"
    ))
}
