//! etcd's membership as the nodes show it, and the arithmetic of quorums. Pure.
//!
//! Voters are counted, not members: a learner does not vote. A step of ours may leave no fewer healthy voters than the quorum of the
//! membership that results from it. What is not known counts as not healthy.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::cluster::Machine;
use talos::client::{EtcdMember, EtcdStatus, MemberId, TalosError};

use super::intent;

/// What a node said when it was last asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has no address yet, or there is no certificate to ask it with. Nothing is known, whatever it said before.
    NotAsked,
    /// It did not answer, or not as one of ours.
    Failed(TalosError),
    /// It answered.
    Answers { etcd: Etcd, unhealthy: Vec<String> },
}

/// A node's etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Etcd {
    /// It has none: the service waits for a cluster to begin or to join, and no member's data lies on the disk. The only state that says so.
    Absent,
    /// Nothing follows from its state: it starts, stops, has failed, or is not there yet after a boot.
    Unclear { state: String },
    /// A member's data is there, but it does not answer for its members.
    Silent { reason: String },
    /// It lists its members. Its own health, as the node judges it.
    Lists { members: Vec<EtcdMember>, is_healthy: bool },
}

/// A control-plane machine with what its node said.
#[derive(Clone, Debug)]
pub struct NodeView {
    pub machine: Arc<Machine>,
    pub address: Option<String>,
    pub answer: Answer,
    /// What its member said of itself, when it was asked for that as well. It is no part of the answer: it changes with every write.
    pub status: Option<EtcdStatus>,
}

impl NodeView {
    /// The Machine's name.
    pub fn name(&self) -> &str {
        self.machine.metadata.name.as_deref().unwrap_or_default()
    }

    /// Whether the Machine is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.machine.metadata.deletion_timestamp.is_some()
    }

    /// The members that its etcd lists.
    pub fn members(&self) -> Option<&[EtcdMember]> {
        match &self.answer {
            Answer::Answers { etcd: Etcd::Lists { members, .. }, .. } if !members.is_empty() => Some(members),
            _ => None,
        }
    }

    /// Whether its etcd runs, is healthy and votes or learns.
    pub fn is_etcd_healthy(&self) -> bool {
        matches!(&self.answer, Answer::Answers { etcd: Etcd::Lists { is_healthy: true, .. }, .. })
    }

    /// Nothing is known of it.
    pub fn forget(&mut self) {
        self.answer = Answer::NotAsked;
        self.status = None;
    }

    /// Its services that say that they are not well; none when it does not answer.
    pub fn unhealthy(&self) -> &[String] {
        match &self.answer {
            Answer::Answers { unhealthy, .. } => unhealthy,
            _ => &[],
        }
    }

    /// Whether it says itself that it has no etcd.
    pub fn has_no_etcd(&self) -> bool {
        matches!(self.answer, Answer::Answers { etcd: Etcd::Absent, .. })
    }

    /// Whether a member's data is known to lie on its disk.
    pub fn has_etcd(&self) -> bool {
        matches!(self.answer, Answer::Answers { etcd: Etcd::Silent { .. } | Etcd::Lists { .. }, .. })
    }

    /// The number that its member had when it was last seen in a membership.
    pub fn recorded(&self) -> Option<MemberId> {
        let text = self.machine.metadata.annotations.as_ref()?.get(intent::ETCD_MEMBER)?;
        u64::from_str_radix(text, 16).ok().map(MemberId)
    }

    /// The member that this machine is: the recorded one while it is there, else by its address, else by its name.
    pub fn member<'a>(&self, members: &'a [EtcdMember]) -> Option<&'a EtcdMember> {
        let recorded = self.recorded();
        let by_address = |member: &&EtcdMember| {
            let Some(address) = &self.address else { return false };
            member.peer_urls.iter().any(|url| url_host(url) == Some(address.as_str()))
        };
        let node = self.machine.status.as_ref().and_then(|status| status.node_ref.as_ref()).map(|node| node.name.as_str());
        let is_named = |name: &str| !name.is_empty() && (name.eq_ignore_ascii_case(self.name()) || node == Some(name));
        members
            .iter()
            .find(|member| Some(member.id) == recorded)
            .or_else(|| members.iter().find(by_address))
            .or_else(|| members.iter().find(|member| is_named(member.hostname.split('.').next().unwrap_or_default())))
    }
}

/// `https://10.0.0.4:2380`, `https://[fd00::4]:2380`.
fn url_host(url: &str) -> Option<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    if let Some(six) = rest.strip_prefix('[') {
        return six.split_once(']').map(|(host, _)| host);
    }
    rest.split([':', '/']).next()
}

/// The smallest majority of `voters`.
pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// The membership as the nodes agree on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub members: Vec<EtcdMember>,
    /// Machines whose etcd listed these members.
    pub told_by: Vec<String>,
}

/// Why there is no agreed membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// No node lists members.
    Nobody,
    /// Two nodes list members, and none is in both lists: there are two clusters.
    TwoClusters { one: String, other: String },
    /// The lists differ: a change is under way, or a node is cut off.
    Differ { one: String, other: String },
}

/// The membership, when every node that lists one lists the same.
///
/// # Errors
/// Saying which nodes disagree.
pub fn membership(nodes: &[NodeView]) -> Result<Membership, Disagreement> {
    let mut listing = nodes.iter().filter_map(|node| node.members().map(|members| (node.name(), members)));
    let Some((first, members)) = listing.next() else { return Err(Disagreement::Nobody) };
    let ids = |members: &[EtcdMember]| members.iter().map(|member| (member.id, member.is_learner)).collect::<BTreeSet<(MemberId, bool)>>();
    let only = |members: &[EtcdMember]| members.iter().map(|member| member.id).collect::<BTreeSet<MemberId>>();
    let mut told_by = vec![first.to_owned()];
    for (name, others) in listing {
        let (one, other) = (first.to_owned(), name.to_owned());
        if only(members).is_disjoint(&only(others)) {
            return Err(Disagreement::TwoClusters { one, other });
        }
        if ids(members) != ids(others) {
            return Err(Disagreement::Differ { one, other });
        }
        told_by.push(other);
    }
    let mut members = members.to_vec();
    members.sort_by_key(|member| member.id);
    Ok(Membership { members, told_by })
}

impl Membership {
    /// How many vote.
    pub fn voters(&self) -> usize {
        self.members.iter().filter(|member| !member.is_learner).count()
    }

    /// The members that vote and whose machines' etcd is healthy.
    pub fn healthy_voters(&self, nodes: &[NodeView]) -> BTreeSet<MemberId> {
        let of_nodes = nodes.iter().filter(|node| node.is_etcd_healthy()).filter_map(|node| node.member(&self.members));
        of_nodes.filter(|member| !member.is_learner).map(|member| member.id).collect()
    }

    /// How far a learner is behind the leader, in words: by the size of its data while that is smaller, else by entries. None when that is
    /// not known, or when it has caught up.
    pub fn behind(&self, id: MemberId, nodes: &[NodeView]) -> Option<String> {
        const MIB: i64 = 1024 * 1024;
        let statuses = || nodes.iter().filter_map(|node| node.status.as_ref());
        let own = statuses().find(|status| status.member_id == Some(id))?;
        let leader = statuses().find_map(|status| status.leader)?;
        let leading = statuses().find(|status| status.member_id == Some(leader))?;
        let missing = leading.database_bytes.saturating_sub(own.database_bytes);
        if missing >= MIB {
            return Some(format!("{} MiB", missing / MIB));
        }
        let entries = leading.raft_applied_index.saturating_sub(own.raft_applied_index);
        (entries > 0).then(|| format!("{entries} entries"))
    }

    /// Why the member may not be taken out; none when it may.
    pub fn objection(&self, id: MemberId, nodes: &[NodeView]) -> Option<String> {
        let member = self.members.iter().find(|member| member.id == id)?;
        if member.is_learner {
            return None;
        }
        let left = self.voters().saturating_sub(1);
        if left == 0 {
            return Some("it is the last voting member of etcd: the cluster would be lost with it".to_owned());
        }
        let mut healthy = self.healthy_voters(nodes);
        healthy.remove(&id);
        let needed = quorum(left);
        (healthy.len() < needed).then(|| {
            format!("etcd would be left with {left} voters of which {} are healthy, and needs {needed} for its quorum", healthy.len())
        })
    }
}

/// The machine whose member leads, as far as members said.
pub fn leader(nodes: &[NodeView]) -> Option<&str> {
    let leader = nodes.iter().filter_map(|node| node.status.as_ref()).find_map(|status| status.leader)?;
    let leads = |node: &&NodeView| node.status.as_ref().is_some_and(|status| status.member_id == Some(leader));
    nodes.iter().find(leads).map(NodeView::name)
}

/// Something that keeps etcd from being whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The machine that it is about; none when it is about more than one, or about none.
    pub machine: Option<String>,
    pub told: String,
}

impl Fault {
    fn of(node: &NodeView, told: String) -> Self {
        Self { machine: Some(node.name().to_owned()), told }
    }

    fn of_all(told: String) -> Self {
        Self { machine: None, told }
    }
}

/// Everything that keeps etcd from being whole: every machine a healthy voter, no member without machine, and no voter that is not healthy,
/// be its machine on its way out or not. Empty when it is.
pub fn faults(nodes: &[NodeView]) -> Vec<Fault> {
    let alive: Vec<&NodeView> = nodes.iter().filter(|node| !node.is_deleting()).collect();
    let membership = match membership(nodes) {
        Ok(membership) => membership,
        Err(Disagreement::Nobody) => {
            let mut faults: Vec<Fault> = alive.iter().filter_map(|node| Some(Fault::of(node, fault(node)?))).collect();
            if faults.is_empty() {
                faults.push(Fault::of_all("no control plane lists etcd's members".to_owned()));
            }
            return faults;
        }
        Err(Disagreement::TwoClusters { one, other }) => {
            return vec![Fault::of_all(format!(
                "{one} and {other} belong to two different etcd clusters: one of them must be wiped by hand"
            ))];
        }
        Err(Disagreement::Differ { one, other }) => {
            return vec![Fault::of_all(format!("{one} and {other} list different etcd members: a change is under way, or one is cut off"))];
        }
    };
    let mut faults = Vec::new();
    for node in &alive {
        let told = match node.member(&membership.members) {
            Some(member) if member.is_learner => Some(format!("{} is still a learner", node.name())),
            Some(_) => fault(node),
            None => {
                let why = fault(node).map(|fault| format!(" ({fault})")).unwrap_or_default();
                Some(format!("{} has not joined etcd{why}", node.name()))
            }
        };
        faults.extend(told.map(|told| Fault::of(node, told)));
    }
    for node in nodes.iter().filter(|node| node.is_deleting()) {
        let is_voter = node.member(&membership.members).is_some_and(|member| !member.is_learner);
        faults.extend(fault(node).filter(|_| is_voter).map(|told| Fault::of(node, told)));
    }
    for member in strangers(nodes, &membership) {
        let name = if member.hostname.is_empty() { "without a name" } else { &member.hostname };
        faults.push(Fault::of_all(format!("etcd member {} ({name}) has no Machine", member.id)));
    }
    faults
}

/// Members that are no machine's. A machine that says that it has no etcd is no voter, whatever its address: the one that had it is gone.
pub fn strangers<'a>(nodes: &'a [NodeView], membership: &'a Membership) -> impl Iterator<Item = &'a EtcdMember> {
    let is_known = |member: &EtcdMember| {
        let is_own = |node: &NodeView| {
            let own = node.member(&membership.members).filter(|own| own.id == member.id);
            own.is_some_and(|own| own.is_learner || !node.has_no_etcd())
        };
        nodes.iter().any(is_own)
    };
    membership.members.iter().filter(move |member| !is_known(member))
}

/// What is wrong with one node's etcd.
pub fn fault(node: &NodeView) -> Option<String> {
    let name = node.name();
    match &node.answer {
        Answer::NotAsked if node.address.is_none() => Some(format!("{name} has no address yet")),
        Answer::NotAsked => Some(format!("{name} was not asked: there is no client certificate to ask it with")),
        Answer::Failed(error) => Some(format!("{name}: {error}")),
        Answer::Answers { etcd: Etcd::Absent, .. } => Some(format!("{name}: etcd is Preparing")),
        Answer::Answers { etcd: Etcd::Unclear { state }, .. } => Some(format!("{name}: etcd is {state}")),
        Answer::Answers { etcd: Etcd::Silent { reason }, .. } => Some(format!("{name}: etcd does not answer: {reason}")),
        Answer::Answers { etcd: Etcd::Lists { is_healthy: false, .. }, .. } => Some(format!("{name}: etcd is not healthy yet")),
        Answer::Answers { .. } => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn member(id: u64, is_learner: bool) -> EtcdMember {
        EtcdMember { id: MemberId(id), hostname: format!("m{id}"), peer_urls: vec![format!("https://10.0.0.{id}:2380")], is_learner }
    }

    pub fn node(id: u64, answer: Answer) -> NodeView {
        let mut machine = Machine::default();
        machine.metadata.name = Some(format!("m{id}"));
        machine.metadata.uid = Some(format!("uid-{id}"));
        NodeView { machine: Arc::new(machine), address: Some(format!("10.0.0.{id}")), answer, status: None }
    }

    pub fn lists(members: &[EtcdMember], is_healthy: bool) -> Answer {
        Answer::Answers { etcd: Etcd::Lists { members: members.to_vec(), is_healthy }, unhealthy: Vec::new() }
    }

    pub fn away(id: u64) -> Answer {
        Answer::Failed(TalosError::Unreachable { address: format!("10.0.0.{id}"), reason: "connection refused".into() })
    }

    #[test]
    fn members_are_matched_by_address_before_name() {
        let mut swapped = vec![member(1, false), member(2, false)];
        swapped[0].hostname = "m2".into();
        swapped[1].hostname = "m1".into();
        assert_eq!(node(1, Answer::NotAsked).member(&swapped).unwrap().id, MemberId(1));
        let mut no_address = node(1, Answer::NotAsked);
        no_address.address = None;
        assert_eq!(no_address.member(&swapped).unwrap().id, MemberId(2));
        assert_eq!(url_host("https://[fd00::4]:2380"), Some("fd00::4"));
    }

    #[test]
    fn two_clusters_are_told_from_a_change_under_way() {
        let (a, b, c) = (member(1, false), member(2, false), member(3, true));
        let both = |one: &[EtcdMember], other: &[EtcdMember]| membership(&[node(1, lists(one, true)), node(2, lists(other, true))]);
        assert!(matches!(both(std::slice::from_ref(&a), std::slice::from_ref(&b)), Err(Disagreement::TwoClusters { .. })));
        assert!(matches!(both(&[a.clone(), b.clone()], std::slice::from_ref(&b)), Err(Disagreement::Differ { .. })));
        let learned = EtcdMember { is_learner: false, ..c.clone() };
        assert!(matches!(both(&[a.clone(), c], &[a.clone(), learned]), Err(Disagreement::Differ { .. })));
        assert!(both(&[a.clone(), b.clone()], &[b, a]).is_ok());
        assert_eq!(membership(&[node(1, away(1))]), Err(Disagreement::Nobody));
    }

    #[test]
    fn the_whole_is_told_by_its_faults() {
        let all: Vec<EtcdMember> = (1..=3).map(|id| member(id, false)).collect();
        let whole: Vec<NodeView> = (1..=3).map(|id| node(id, lists(&all, true))).collect();
        assert_eq!(faults(&whole), []);
        let cases: [(Vec<NodeView>, &str); 5] = [
            (vec![node(1, lists(&all, true)), node(2, lists(&all, true)), node(3, away(3))], "m3: 10.0.0.3 does not answer"),
            (vec![node(1, lists(&all, true)), node(2, lists(&all, true))], "(m3) has no Machine"),
            (
                vec![
                    node(1, lists(&all[..2], true)),
                    node(2, lists(&all[..2], true)),
                    NodeView { address: None, ..node(3, Answer::NotAsked) },
                ],
                "m3 has not joined etcd (m3 has no address yet)",
            ),
            (vec![node(1, lists(&[member(1, false), member(2, true)], true)), node(2, Answer::NotAsked)], "m2 is still a learner"),
            (vec![node(1, lists(&[member(1, false)], false))], "m1: etcd is not healthy yet"),
        ];
        for (nodes, words) in cases {
            let told = faults(&nodes).into_iter().map(|fault| fault.told).collect::<Vec<_>>().join("; ");
            assert!(told.contains(words), "{told} lacks {words}");
        }
    }

    proptest! {
        /// Whatever the state: a removal that is not objected to leaves a quorum of healthy voters.
        #[test]
        fn an_allowed_removal_leaves_a_quorum(states in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..7), pick in 0usize..7) {
            let members: Vec<EtcdMember> = states.iter().zip(1u64..).map(|((is_learner, _), id)| member(id, *is_learner)).collect();
            let nodes: Vec<NodeView> =
                states.iter().zip(1u64..).map(|((_, is_up), id)| node(id, if *is_up { lists(&members, true) } else { away(id) })).collect();
            let membership = Membership { members: members.clone(), told_by: Vec::new() };
            let victim = &members[pick % members.len()];
            if membership.objection(victim.id, &nodes).is_none() {
                let healthy = states.iter().zip(&members).filter(|((is_learner, is_up), member)| !is_learner && *is_up && member.id != victim.id).count();
                let voters = members.iter().filter(|member| !member.is_learner && member.id != victim.id).count();
                prop_assert!(victim.is_learner || healthy >= quorum(voters), "{healthy} of {voters}");
                prop_assert!(victim.is_learner || voters > 0);
            }
        }
    }
}
