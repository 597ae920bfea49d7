//! How many machines a control plane has, and which of them give way to others. Pure.
//!
//! ```text
//!   too few  -> etcd whole? -> create one -> it learns, is promoted -> next
//!   too many -> pick one -> its removal leaves a quorum? -> delete its Machine
//!   outdated -> what is not healthy first, without waiting for another
//!            -> surge 1: create one more -> it votes, its Node is ready -> delete one that is outdated -> next
//!            -> surge 0, or no spare address: delete one -> create one -> it votes -> next
//! ```
//!
//! One change at a time: while a machine goes, joins or learns, nothing else moves. A machine whose own address is the cluster's endpoint is
//! not replaced: no other could be reached under it. Before every deletion the resulting membership is counted; etcd's leader is picked last.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use api::names::annotations;
use jiff::Timestamp;

use super::departure::Departure;
use super::etcd::{self, Disagreement, NodeView};
use super::intent::{self, Choice, PlannedMachine};
use super::plan::{Observed, Plan, Resizing, Rolling, Step};
use crate::controlplane::endpoint_host;

/// Decides about numbers and replacements.
pub(super) fn size(observed: &Observed, departure: &Departure, asked: &BTreeSet<String>, plan: &mut Plan) {
    let Some(wanted) = usize::try_from(observed.wanted()).ok().filter(|wanted| *wanted > 0) else {
        plan.resizing = Resizing::Refused;
        return;
    };
    let due = due(observed, asked, plan);
    let alive = observed.alive().count();
    if !observed.is_bootstrapped() {
        return unborn(observed, plan, wanted, &due);
    }
    if let Some(first) = broken_first(observed, &due, wanted) {
        keep_planned(observed, plan, wanted.saturating_sub(alive));
        plan.resizing = if alive > wanted { Resizing::Down { wait: None } } else { Resizing::No };
        plan.rolling = Rolling::under_way(first.as_ref().err().cloned());
        if let Ok(node) = first {
            delete(plan, node);
        }
        return;
    }
    if alive < wanted {
        let wait = growth_wait(observed, departure);
        let planned = keep_planned(observed, plan, wanted - alive);
        if wait.is_none() {
            create(observed, plan, planned, 1, false);
        }
        plan.resizing = Resizing::Up { wait };
        if !due.is_empty() {
            plan.rolling = Rolling::UnderWay { wait: None, without_surge: observed.surge().1 };
        }
    } else if due.is_empty() {
        keep_planned(observed, plan, 0);
        if alive > wanted {
            shrink(observed, plan);
        }
    } else {
        roll(observed, plan, wanted, &due);
    }
}

/// Before etcd lives there is nothing to be careful with but the node that may have been told to begin it.
fn unborn(observed: &Observed, plan: &mut Plan, wanted: usize, due: &[&NodeView]) {
    let choice = intent::choice(&observed.control_plane);
    let is_chosen = |node: &NodeView| matches!(&choice, Choice::Node { machine, .. } if machine == node.name());
    let is_first = observed.nodes.is_empty() && choice == Choice::Unknown;
    // What somebody else made may be a member of an etcd that nobody has shown yet.
    if choice != Choice::Unknown {
        for node in due.iter().filter(|node| !is_chosen(node)) {
            delete(plan, node);
        }
    }
    if !due.is_empty() {
        let wait = "the first node to bootstrap etcd".to_owned();
        plan.rolling = Rolling::under_way(plan.steps.iter().all(|step| !matches!(step, Step::DeleteMachine(_))).then_some(wait));
    }
    let alive = observed.alive().count();
    let planned = keep_planned(observed, plan, wanted.saturating_sub(alive));
    if alive < wanted {
        create(observed, plan, planned, wanted - alive, is_first);
        plan.resizing = Resizing::Up { wait: None };
    } else if alive > wanted {
        // The recorded node may be bootstrapped without our knowing it.
        if let Some(node) = in_order(observed, plan, observed.alive().collect()).into_iter().find(|node| !is_chosen(node)) {
            delete(plan, node);
        }
        plan.resizing = Resizing::Down { wait: None };
    }
}

/// Machines that are to be replaced by others: those that a health check asks for, and outdated ones, unless the strategy leaves them to
/// the user.
fn due<'a>(observed: &'a Observed, asked: &BTreeSet<String>, plan: &Plan) -> Vec<&'a NodeView> {
    let is_rolled = !observed.is_on_delete();
    let is_outdated = |name: &str| is_rolled && plan.outdated.iter().any(|outdated| outdated == name);
    observed.alive().filter(|node| is_outdated(node.name()) || asked.contains(node.name())).collect()
}

/// One machine where there is none: what is recovered needs a place.
pub(super) fn one(observed: &Observed, plan: &mut Plan) {
    let planned = keep_planned(observed, plan, 1);
    create(observed, plan, planned, 1, false);
    plan.resizing = Resizing::Up { wait: None };
}

/// Names for so many machines stay planned; more, or none, are not kept. Returns those that stay.
fn keep_planned(observed: &Observed, plan: &mut Plan, room: usize) -> Vec<PlannedMachine> {
    let mut planned = intent::planned(&observed.control_plane);
    planned.retain(|planned| !observed.nodes.iter().any(|node| node.name() == planned.machine));
    let is_surplus = planned.len() > room;
    planned.truncate(room);
    if is_surplus || (planned.is_empty() && intent::has_planned(&observed.control_plane)) {
        plan.steps.push(Step::KeepPlanned(planned.clone()));
    }
    planned
}

/// Creates `count` machines under their planned names; names that are missing are planned first.
fn create(observed: &Observed, plan: &mut Plan, planned: Vec<PlannedMachine>, count: usize, is_first: bool) {
    if planned.len() < count {
        plan.steps.push(Step::PlanMachines { count: count - planned.len(), is_first });
    }
    let domains = failure_domains(observed, planned.len());
    let machines = planned.into_iter().take(count).zip(domains);
    plan.steps.extend(machines.map(|(planned, failure_domain)| Step::CreateMachine { planned, failure_domain }));
}

fn delete(plan: &mut Plan, node: &NodeView) {
    plan.steps.push(Step::DeleteMachine(Box::new(node.machine.metadata.clone())));
}

/// The failure domains of the next `count` machines: each the least used one at its turn. None where the cluster has none.
fn failure_domains(observed: &Observed, count: usize) -> Vec<Option<String>> {
    let known = observed.cluster.as_ref().and_then(|cluster| cluster.status.as_ref()).map(|status| status.failure_domains.as_slice());
    let usable = known.unwrap_or_default().iter().filter(|domain| domain.control_plane == Some(true));
    let mut used: BTreeMap<String, usize> = usable.map(|domain| (domain.name.clone(), 0)).collect();
    for domain in observed.alive().filter_map(|node| node.machine.spec.failure_domain.as_ref()) {
        if let Some(count) = used.get_mut(domain) {
            *count += 1;
        }
    }
    let mut next = || {
        let (name, count) = used.iter_mut().min_by_key(|(name, count)| (**count, (*name).clone()))?;
        *count += 1;
        Some(name.clone())
    };
    (0..count).map(|_| next()).collect()
}

/// What keeps a running control plane from growing: one learner at a time, only onto a whole etcd, and not before the machines that are
/// being deleted are gone - unless they wait for just that, since without another voter etcd would be lost with them.
fn growth_wait(observed: &Observed, departure: &Departure) -> Option<String> {
    let is_for_growth = matches!(departure, Departure::Held { by_quorum: true, .. });
    for node in observed.nodes.iter().filter(|node| node.is_deleting()) {
        if !is_for_growth {
            return Some(format!("{} to be gone", node.name()));
        }
        if is_endpoint(observed, node) {
            return Some(format!(
                "{} to be gone, whose address is the cluster's endpoint: no other machine can stand in for it",
                node.name()
            ));
        }
    }
    etcd_wait(observed, |_| false)
}

/// What keeps etcd from being whole, beside what is wrong with the excepted machines.
fn etcd_wait(observed: &Observed, is_excepted: impl Fn(&str) -> bool) -> Option<String> {
    let mut faults = etcd::faults(&observed.nodes);
    faults.retain(|fault| !fault.machine.as_deref().is_some_and(&is_excepted));
    if let [fault] = faults.as_slice()
        && let Some(joining) = fault.machine.as_deref().and_then(|name| joining(observed, name))
    {
        return Some(joining);
    }
    let told: Vec<String> = faults.into_iter().map(|fault| fault.told).collect();
    (!told.is_empty()).then(|| format!("etcd to be whole: {}", told.join("; ")))
}

/// What a machine that is not a voter yet is waited for: for its promotion, with how far it is behind, or for its joining.
fn joining(observed: &Observed, name: &str) -> Option<String> {
    let node = observed.nodes.iter().find(|node| node.name() == name && !node.is_deleting())?;
    let membership = etcd::membership(&observed.nodes).ok()?;
    match node.member(&membership.members) {
        Some(member) if member.is_learner => {
            let behind = membership.behind(member.id, &observed.nodes).map(|behind| format!(", {behind} behind")).unwrap_or_default();
            Some(format!("member {name} to be promoted: learner{behind}"))
        }
        Some(_) => None,
        None => Some(format!("{name} to join etcd{}", etcd::fault(node).map(|told| format!(": {told}")).unwrap_or_default())),
    }
}

fn is_endpoint(observed: &Observed, node: &NodeView) -> bool {
    let endpoint = observed.cluster.as_ref().and_then(|cluster| endpoint_host(cluster));
    endpoint.is_some() && node.address.as_deref() == endpoint
}

/// The order in which machines go: those that somebody marked, then what is not healthy, then what is outdated, from the fullest failure
/// domain, the oldest first. The one whose own address is the endpoint goes last: without it the cluster is out of reach. Before it
/// etcd's leader.
fn in_order<'a>(observed: &Observed, plan: &Plan, mut nodes: Vec<&'a NodeView>) -> Vec<&'a NodeView> {
    let is_marked =
        |node: &NodeView| node.machine.metadata.annotations.as_ref().is_some_and(|known| known.contains_key(annotations::DELETE_MACHINE));
    let created = |node: &NodeView| -> Option<Timestamp> { node.machine.metadata.creation_timestamp.as_ref().map(|time| time.0) };
    let in_domain = |node: &NodeView| {
        let domain = node.machine.spec.failure_domain.as_ref();
        observed.alive().filter(|other| other.machine.spec.failure_domain.as_ref() == domain).count()
    };
    let leader = etcd::leader(&observed.nodes);
    nodes.sort_by_key(|node| {
        let is_outdated = plan.outdated.iter().any(|name| name == node.name());
        let is_leader = leader.is_some_and(|leader| leader == node.name());
        let is_well = node.is_etcd_healthy() && node.unhealthy().is_empty() && observed.has_no_unready_node(node);
        let last = (is_endpoint(observed, node), !is_marked(node), node.is_etcd_healthy(), is_well);
        (last, !is_outdated, is_leader, Reverse(in_domain(node)), created(node), node.name().to_owned())
    });
    nodes
}

/// The first of these whose going leaves a quorum; else what keeps the first one.
fn first_removable<'a>(observed: &Observed, nodes: &[&'a NodeView]) -> Result<&'a NodeView, String> {
    let membership = etcd::membership(&observed.nodes).map_err(|disagreement| format!("etcd's nodes to agree: {}", told(&disagreement)))?;
    let mut held = None;
    for node in nodes {
        let member = node.member(&membership.members);
        match member.and_then(|member| membership.objection(member.id, &observed.nodes)) {
            None => return Ok(node),
            Some(reason) => held.get_or_insert(format!("{} to be removable: {reason}", node.name())),
        };
    }
    Err(held.unwrap_or_else(|| "a machine that may go".to_owned()))
}

fn shrink(observed: &Observed, plan: &mut Plan) {
    if let Some(node) = observed.nodes.iter().find(|node| node.is_deleting()) {
        plan.resizing = Resizing::Down { wait: Some(format!("{} to be gone", node.name())) };
        return;
    }
    let wait = match first_removable(observed, &in_order(observed, plan, observed.alive().collect())) {
        Ok(node) => {
            delete(plan, node);
            None
        }
        Err(wait) => Some(wait),
    };
    plan.resizing = Resizing::Down { wait };
}

/// A machine that is to be replaced and that costs etcd nothing, since it is no healthy voter: it goes before another one is made, which it
/// may be in the way of (etcd takes no new member while a voter is away). None when there is none; the words when it has to wait.
fn broken_first<'a>(observed: &Observed, due: &[&'a NodeView], wanted: usize) -> Option<Result<&'a NodeView, String>> {
    let is_due = |name: &str| due.iter().any(|node| node.name() == name);
    let broken: Vec<&NodeView> = due.iter().copied().filter(|node| !node.is_etcd_healthy() && !is_endpoint(observed, node)).collect();
    let first = *broken.first()?;
    // A single control plane is not taken away for another one.
    if observed.alive().count() == 1 && wanted == 1 {
        return None;
    }
    if let Some(node) = observed.nodes.iter().find(|node| node.is_deleting()) {
        return Some(Err(format!("{} to be gone", node.name())));
    }
    if let Some(wait) = etcd_wait(observed, is_due) {
        return Some(Err(format!("{wait} (then {} goes first, which is not healthy)", first.name())));
    }
    Some(first_removable(observed, &broken))
}

/// Replaces one machine.
fn roll(observed: &Observed, plan: &mut Plan, wanted: usize, due: &[&NodeView]) {
    let alive = observed.alive().count();
    let replaceable: Vec<&NodeView> = due.iter().copied().filter(|node| !is_endpoint(observed, node)).collect();
    if replaceable.is_empty() {
        keep_planned(observed, plan, 0);
        if alive > wanted {
            shrink(observed, plan);
        }
        let names: Vec<&str> = due.iter().map(|node| node.name()).collect();
        plan.rolling = Rolling::Blocked {
            reason: format!(
                "the own address of {} is the cluster's endpoint, and no other machine can stand in for it: give the cluster an endpoint \
                 that moves (a virtual IP or a load balancer), or take the change back",
                names.join(", ")
            ),
        };
        return;
    }
    let (surge, why_not) = observed.surge();
    let room = (wanted + surge).saturating_sub(alive);
    let planned = keep_planned(observed, plan, room);
    // One more that has its address has found room.
    let why_not = why_not.filter(|_| alive <= wanted || !observed.pools.waiting.is_empty());
    let wait = roll_wait(observed, due, alive > wanted && why_not.is_some());
    let held = match wait {
        Some(wait) => Some(wait),
        None if room > 0 => {
            create(observed, plan, planned, 1, false);
            None
        }
        None => match first_removable(observed, &in_order(observed, plan, replaceable)) {
            Ok(node) => {
                delete(plan, node);
                None
            }
            Err(wait) => Some(wait),
        },
    };
    plan.rolling = Rolling::UnderWay { wait: held, without_surge: why_not };
}

/// What keeps the next machine from being created or deleted: one that goes, one that joins, or one that stays and is not as well as those
/// that are replaced.
fn roll_wait(observed: &Observed, due: &[&NodeView], is_short_of_addresses: bool) -> Option<String> {
    if let Some(node) = observed.nodes.iter().find(|node| node.is_deleting()) {
        return Some(format!("{} to be gone", node.name()));
    }
    // A machine that waits for an address gets one only when another goes.
    let waits_for_address = |name: &str| is_short_of_addresses && observed.pools.waiting.contains(name);
    if let Some(wait) = etcd_wait(observed, waits_for_address) {
        return Some(wait);
    }
    let is_due = |node: &NodeView| due.iter().any(|due| due.name() == node.name());
    let staying: Vec<&NodeView> = observed.alive().filter(|node| !is_due(node) && !waits_for_address(node.name())).collect();
    let unwell = staying.iter().find_map(|node| {
        let services = node.unhealthy();
        (!services.is_empty()).then(|| format!("{} to be well: {}", node.name(), services.join(", ")))
    });
    unwell.or_else(|| node_wait(observed, &staying))
}

/// The Nodes of the machines that stay must be there, and ready if any is: without a network plugin none is, and a new one cannot be.
fn node_wait(observed: &Observed, staying: &[&NodeView]) -> Option<String> {
    if !observed.connection.is_connected() {
        return Some(format!("the cluster's API to answer: {}", observed.connection));
    }
    if let Some(missing) = staying.iter().find(|view| observed.workload_node(view).is_none()) {
        return Some(format!("the Node of {} to be there", missing.name()));
    }
    let can_be_ready = observed.alive().any(|view| observed.is_node_ready(view));
    let lacking = staying.iter().find(|view| can_be_ready && !observed.is_node_ready(view))?;
    Some(format!("the Node of {} to be ready", lacking.name()))
}

pub(super) fn told(disagreement: &Disagreement) -> String {
    match disagreement {
        Disagreement::Nobody => "no control plane lists etcd's members".to_owned(),
        Disagreement::TwoClusters { one, other } => format!("{one} and {other} belong to two different etcd clusters"),
        Disagreement::Differ { one, other } => format!("{one} and {other} list different members"),
    }
}
