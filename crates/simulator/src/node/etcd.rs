//! etcd's membership, as Raft keeps it: who is a voter, who a learner, who runs, who leads, and what a change of it needs.
//!
//! One [`EtcdCluster`] is what one bootstrap made. Its rules are etcd's own: a change needs a quorum of running voters; one learner at
//! a time; a new member is added only while every voter runs; a running voter is not taken away where the rest would lose the quorum.
//! Nothing here knows machines or time: a member runs when the node that holds its data says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use thiserror::Error;

/// Which etcd cluster: two bootstraps make two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtcdClusterId(pub u64);

/// A member of an etcd cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for EtcdClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What etcd answers when it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EtcdError {
    #[error("etcdserver: no leader")]
    NoLeader,
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners,
    #[error("etcdserver: unhealthy cluster")]
    Unhealthy,
    #[error("etcdserver: member not found")]
    NotFound,
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    #[error("etcdserver: Peer URLs already exists")]
    PeerExists,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: MemberId,
    /// The node's host name.
    pub name: String,
    /// The node's address.
    pub address: String,
    pub is_learner: bool,
    /// The identity of the disk that holds its data.
    pub disk: String,
}

/// What one bootstrap made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdCluster {
    pub id: EtcdClusterId,
    /// Machines of one realm share their certificate authorities: they are meant to be one cluster.
    pub realm: String,
    members: BTreeMap<MemberId, Member>,
    running: BTreeSet<MemberId>,
    leader: Option<MemberId>,
    pub term: u64,
    pub index: u64,
}

impl EtcdCluster {
    /// A cluster of one running voter.
    pub fn bootstrap(id: EtcdClusterId, realm: &str, first: Member) -> Self {
        let mut cluster = Self {
            id,
            realm: realm.to_owned(),
            members: BTreeMap::new(),
            running: BTreeSet::from([first.id]),
            leader: Some(first.id),
            term: 2,
            index: 4,
        };
        cluster.members.insert(first.id, Member { is_learner: false, ..first });
        cluster
    }

    /// The members, by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// One member.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Whether the member's process runs.
    pub fn is_running(&self, id: MemberId) -> bool {
        self.running.contains(&id)
    }

    /// The leader, while there is a quorum.
    pub fn leader(&self) -> Option<MemberId> {
        self.leader
    }

    /// Members that vote.
    pub fn voters(&self) -> usize {
        self.members.values().filter(|member| !member.is_learner).count()
    }

    /// Voters that run.
    pub fn healthy_voters(&self) -> usize {
        self.members.values().filter(|member| !member.is_learner && self.running.contains(&member.id)).count()
    }

    /// Whether a majority of the voters runs.
    pub fn has_quorum(&self) -> bool {
        self.healthy_voters() > self.voters() / 2
    }

    /// Whether this member can serve reads and writes: a running voter of a cluster with a quorum.
    pub fn serves(&self, id: MemberId) -> bool {
        self.has_quorum() && self.running.contains(&id) && self.members.get(&id).is_some_and(|member| !member.is_learner)
    }

    /// The member's process runs from now on.
    pub fn start(&mut self, id: MemberId) {
        if self.members.contains_key(&id) {
            self.running.insert(id);
            self.elect();
        }
    }

    /// The member's process has ended.
    pub fn stop(&mut self, id: MemberId) {
        self.running.remove(&id);
        self.elect();
    }

    /// Adds a member that does not vote yet and does not run yet.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn add_learner(&mut self, member: Member) -> Result<(), EtcdError> {
        self.change()?;
        if self.members.values().any(|other| other.is_learner) {
            return Err(EtcdError::TooManyLearners);
        }
        if self.healthy_voters() < self.voters() {
            return Err(EtcdError::Unhealthy);
        }
        if self.members.values().any(|other| other.address == member.address) {
            return Err(EtcdError::PeerExists);
        }
        self.members.insert(member.id, Member { is_learner: true, ..member });
        self.index += 1;
        Ok(())
    }

    /// Lets a running learner vote. A voter stays one.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn promote(&mut self, id: MemberId) -> Result<(), EtcdError> {
        self.change()?;
        let is_running = self.running.contains(&id);
        let member = self.members.get_mut(&id).ok_or(EtcdError::NotFound)?;
        if !is_running {
            return Err(EtcdError::LearnerNotReady);
        }
        member.is_learner = false;
        self.index += 1;
        self.elect();
        Ok(())
    }

    /// Takes a member away. A voter that runs goes only where the rest keeps its quorum; one that does not run counts for nothing.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn remove(&mut self, id: MemberId) -> Result<Member, EtcdError> {
        self.change()?;
        let member = self.members.get(&id).ok_or(EtcdError::NotFound)?;
        if !member.is_learner && self.running.contains(&id) {
            let (voters, healthy) = (self.voters() - 1, self.healthy_voters() - 1);
            if voters == 0 {
                return Err(EtcdError::NotEnoughStarted);
            }
            if healthy <= voters / 2 {
                return Err(EtcdError::Unhealthy);
            }
        }
        self.running.remove(&id);
        let member = self.members.remove(&id).ok_or(EtcdError::NotFound)?;
        self.index += 1;
        self.elect();
        Ok(member)
    }

    /// Hands the leadership from `id` to the first other member, as Talos asks for it. `None`: `id` does not lead.
    ///
    /// # Errors
    /// When there is nobody to hand it to.
    pub fn forfeit(&mut self, id: MemberId) -> Result<Option<MemberId>, EtcdError> {
        self.change()?;
        if self.leader != Some(id) {
            return Ok(None);
        }
        let successor = self.members.values().find(|member| member.id != id).ok_or(EtcdError::NotEnoughStarted)?;
        // Raft refuses one that cannot lead; the old leader stays.
        if successor.is_learner || !self.running.contains(&successor.id) {
            return Err(EtcdError::Unhealthy);
        }
        self.leader = Some(successor.id);
        self.term += 1;
        Ok(self.leader)
    }

    fn change(&self) -> Result<(), EtcdError> {
        if self.has_quorum() { Ok(()) } else { Err(EtcdError::NoLeader) }
    }

    /// Keeps the leader while it can lead; otherwise the lowest running voter takes over, if there is a quorum.
    fn elect(&mut self) {
        let can_lead = |id: MemberId| self.running.contains(&id) && self.members.get(&id).is_some_and(|member| !member.is_learner);
        if !self.has_quorum() {
            self.leader = None;
        } else if !self.leader.is_some_and(can_lead) {
            self.leader = self.members.keys().copied().find(|id| can_lead(*id));
            self.term += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(id: u64) -> Member {
        Member {
            id: MemberId(id),
            name: format!("node-{id}"),
            address: format!("10.0.0.{id}"),
            is_learner: true,
            disk: format!("disk-{id}"),
        }
    }

    fn of(size: u64) -> EtcdCluster {
        let mut cluster = EtcdCluster::bootstrap(EtcdClusterId(7), "realm", member(1));
        for id in 2..=size {
            cluster.add_learner(member(id)).unwrap();
            cluster.start(MemberId(id));
            cluster.promote(MemberId(id)).unwrap();
        }
        cluster
    }

    #[test]
    fn members_come_one_learner_at_a_time() {
        let mut cluster = of(1);
        cluster.add_learner(member(2)).unwrap();
        assert_eq!(cluster.voters(), 1, "a learner does not vote");
        assert_eq!(cluster.add_learner(member(3)), Err(EtcdError::TooManyLearners));
        assert_eq!(cluster.promote(MemberId(2)), Err(EtcdError::LearnerNotReady), "it does not run yet");
        cluster.start(MemberId(2));
        assert!(!cluster.serves(MemberId(2)));
        cluster.promote(MemberId(2)).unwrap();
        assert_eq!((cluster.voters(), cluster.healthy_voters()), (2, 2));
        assert!(cluster.serves(MemberId(2)));
    }

    #[test]
    fn the_majority_decides() {
        for (size, may_fail) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)] {
            let mut cluster = of(size);
            for id in 1..=size {
                cluster.stop(MemberId(id));
                let failed = id;
                assert_eq!(cluster.has_quorum(), failed <= may_fail, "{failed} of {size} down");
                assert_eq!(cluster.leader().is_some(), cluster.has_quorum());
            }
            assert_eq!(cluster.add_learner(member(9)), Err(EtcdError::NoLeader));
        }
    }

    #[test]
    fn nothing_is_added_while_a_voter_is_down() {
        let mut cluster = of(3);
        cluster.stop(MemberId(3));
        assert_eq!(cluster.add_learner(member(4)), Err(EtcdError::Unhealthy));
        cluster.remove(MemberId(3)).unwrap();
        cluster.add_learner(member(4)).unwrap();
    }

    #[test]
    fn a_running_voter_stays_where_the_rest_would_have_no_quorum() {
        let mut cluster = of(3);
        cluster.stop(MemberId(3));
        assert_eq!(cluster.remove(MemberId(1)), Err(EtcdError::Unhealthy));
        assert_eq!(of(1).remove(MemberId(1)), Err(EtcdError::NotEnoughStarted));
        assert!(of(3).remove(MemberId(2)).is_ok());
        assert_eq!(of(3).remove(MemberId(9)), Err(EtcdError::NotFound));
    }

    #[test]
    fn the_leader_changes_when_it_must() {
        let mut cluster = of(3);
        assert_eq!(cluster.leader(), Some(MemberId(1)));
        assert_eq!(cluster.forfeit(MemberId(2)), Ok(None));
        assert_eq!(cluster.forfeit(MemberId(1)), Ok(Some(MemberId(2))));
        let term = cluster.term;
        cluster.stop(MemberId(2));
        assert_eq!(cluster.leader(), Some(MemberId(1)));
        assert_eq!(cluster.term, term + 1);
        assert_eq!(of(1).forfeit(MemberId(1)), Err(EtcdError::NotEnoughStarted));
    }

    proptest! {
        /// Whatever is asked for in whatever order, a change that etcd accepts leaves a quorum behind.
        #[test]
        fn accepted_changes_keep_the_quorum(steps in prop::collection::vec((0..6u8, 1..6u64), 1..60)) {
            let mut cluster = of(1);
            for (step, id) in steps {
                let member_id = MemberId(id);
                match step {
                    0 => drop(cluster.add_learner(member(id))),
                    1 => drop(cluster.promote(member_id)),
                    2 => cluster.start(member_id),
                    3 => cluster.stop(member_id),
                    4 => {
                        let had = cluster.has_quorum();
                        if cluster.remove(member_id).is_ok() {
                            prop_assert!(had && cluster.has_quorum());
                        }
                    }
                    _ => drop(cluster.forfeit(member_id)),
                }
                prop_assert!(cluster.members().filter(|member| member.is_learner).count() <= 1);
                prop_assert_eq!(cluster.leader().is_some(), cluster.has_quorum());
                prop_assert!(cluster.leader().is_none_or(|leader| cluster.serves(leader)));
            }
        }
    }
}
