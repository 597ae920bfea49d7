//! Asks nodes for the state of their etcd and services, and remembers what they said.
//!
//! A node is asked again when its last answer is old: soon while things change (a tenth of the time since its answer last changed), once a
//! minute when all is settled. Before anything is done to etcd every answer must be fresh; that is the caller's to ask for. What a member
//! says of itself (who leads, how far it is) is asked only then, and while one learns. Nothing here changes a node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use runtime::clock::Clock;
use talos::client::{ClientIdentity, EtcdStatus, Service, TalosApi, TalosDialer, TalosError};
use tokio::time::Instant;

use super::etcd::{Answer, Etcd, NodeView};

/// The time that one node gets for all questions of one pass.
const BUDGET: Duration = Duration::from_secs(8);
/// No node is asked more often.
const SHORTEST: Duration = Duration::from_millis(100);
/// While something is under way.
const LONGEST_UNSETTLED: Duration = Duration::from_secs(5);
/// When nothing is.
const LONGEST_SETTLED: Duration = Duration::from_secs(60);
/// An answer that decides about etcd is no older.
const FRESH: Duration = Duration::from_millis(500);

struct Known {
    answer: Answer,
    status: Option<EtcdStatus>,
    address: String,
    at: Instant,
    /// Since when it answers the same.
    since: Instant,
}

/// How old an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    Settled,
    Unsettled,
    Fresh,
}

/// Answers by Machine uid. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Probes {
    known: Arc<Mutex<BTreeMap<String, Known>>>,
    clock: Clock,
    dialer: Arc<dyn TalosDialer>,
}

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Probes")
    }
}

fn limit(known: &Known, now: Instant, age: Age) -> Duration {
    let tenth = now.duration_since(known.since) / 10;
    match age {
        Age::Settled => tenth.clamp(SHORTEST, LONGEST_SETTLED),
        Age::Unsettled => tenth.clamp(SHORTEST, LONGEST_UNSETTLED),
        Age::Fresh => FRESH.min(tenth.max(SHORTEST)),
    }
}

impl Probes {
    pub fn new(clock: Clock, dialer: Arc<dyn TalosDialer>) -> Self {
        Self { known: Arc::default(), clock, dialer }
    }

    /// Fills in the nodes' answers, asking those whose last one is too old. Returns whether any was asked and whether any answer changed.
    /// Without an identity nobody can be asked, and no earlier answer counts: there is no saying how old it would get.
    pub async fn refresh(&self, nodes: &mut [NodeView], identity: Option<&ClientIdentity>, age: Age) -> (bool, bool) {
        let Some(identity) = identity else {
            nodes.iter_mut().for_each(NodeView::forget);
            return (false, false);
        };
        let now = self.clock.instant();
        let mut due = Vec::new();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            for (index, node) in nodes.iter_mut().enumerate() {
                let Some(address) = node.address.clone() else {
                    node.forget();
                    continue;
                };
                let last = known.get(&uid(node)).filter(|last| last.address == address);
                match last {
                    Some(last) => {
                        node.answer = last.answer.clone();
                        node.status.clone_from(&last.status);
                    }
                    None => node.forget(),
                }
                let is_old = last.is_none_or(|last| now.duration_since(last.at) >= limit(last, now, age));
                let lacks_status = age == Age::Fresh && node.members().is_some() && node.status.is_none();
                if is_old || lacks_status {
                    due.push((index, uid(node), address));
                }
            }
        }
        if due.is_empty() {
            return (false, false);
        }
        let answers = join_all(due.iter().map(|(_, _, address)| ask(&*self.dialer, address, identity, age))).await;
        let at = self.clock.instant();
        let mut has_changed = false;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for ((index, uid, address), (answer, status)) in due.into_iter().zip(answers) {
            let is_same = known.get(&uid).is_some_and(|last| last.answer == answer && last.address == address);
            has_changed |= !is_same;
            let since = known.get(&uid).filter(|_| is_same).map_or(at, |last| last.since);
            if let Some(node) = nodes.get_mut(index) {
                node.answer = answer.clone();
                node.status.clone_from(&status);
            }
            known.insert(uid, Known { answer, status, address, at, since });
        }
        (true, has_changed)
    }

    /// After a call that changes a node: its last answer no longer counts, and it is asked often again.
    pub fn forget(&self, uid: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// When the next of these nodes is due.
    pub fn next(&self, nodes: &[NodeView], age: Age) -> Option<Duration> {
        let now = self.clock.instant();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |node: &NodeView| {
            node.address.as_ref()?;
            let Some(last) = known.get(&uid(node)) else { return Some(SHORTEST) };
            Some(limit(last, now, age).saturating_sub(now.duration_since(last.at)).max(Duration::from_millis(10)))
        };
        nodes.iter().filter_map(left).min()
    }

    /// Machines that are gone are forgotten.
    pub fn keep_only(&self, is_there: impl Fn(&str) -> bool) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| is_there(uid));
    }
}

/// The Machine's uid.
pub fn uid(node: &NodeView) -> String {
    node.machine.metadata.uid.clone().unwrap_or_default()
}

async fn ask(dialer: &dyn TalosDialer, address: &str, identity: &ClientIdentity, age: Age) -> (Answer, Option<EtcdStatus>) {
    let questions = async {
        let node = dialer.connect(address, identity).await?;
        let services = node.services().await?;
        let etcd = etcd(&*node, &services).await;
        let is_wanted = match &etcd {
            Etcd::Lists { members, .. } => age == Age::Fresh || members.iter().any(|member| member.is_learner),
            _ => false,
        };
        // Who does not say it is no leader and no learner that could be told of; its membership has been told all the same.
        let status = if is_wanted { node.etcd_status().await.ok() } else { None };
        Ok::<_, TalosError>((Answer::Answers { etcd, unhealthy: unhealthy(&services) }, status))
    };
    match tokio::time::timeout(BUDGET, questions).await {
        Ok(Ok(told)) => told,
        Ok(Err(error)) => (Answer::Failed(error), None),
        Err(_) => {
            let reason = format!("no answer within {} s", BUDGET.as_secs());
            (Answer::Failed(TalosError::Unreachable { address: address.to_owned(), reason }), None)
        }
    }
}

async fn etcd(node: &dyn TalosApi, services: &[Service]) -> Etcd {
    let Some(service) = services.iter().find(|service| service.id == "etcd") else {
        return Etcd::Unclear { state: "not there yet".to_owned() };
    };
    let state = service.state.as_str();
    if state != "Running" {
        // A node that boots, stops or has failed may have been bootstrapped before. Its disk tells; its service does only in one state.
        return match node.has_etcd_data().await {
            Ok(true) => Etcd::Silent { reason: format!("it has data and is {state}") },
            Ok(false) if state == "Preparing" => Etcd::Absent,
            Ok(false) => Etcd::Unclear { state: state.to_owned() },
            Err(error) => Etcd::Unclear { state: format!("{state}, and whether it has data is not known: {error}") },
        };
    }
    match node.etcd_members().await {
        Ok(members) if !members.is_empty() => Etcd::Lists { members, is_healthy: service.is_healthy == Some(true) },
        Ok(_) => Etcd::Silent { reason: "it lists no members".to_owned() },
        Err(error) => Etcd::Silent { reason: error.to_string() },
    }
}

/// Services that run and say that they are not well. etcd is told apart.
fn unhealthy(services: &[Service]) -> Vec<String> {
    let is_bad = |service: &&Service| service.id != "etcd" && (service.state == "Failed" || service.is_healthy == Some(false));
    let told = |service: &Service| {
        let message = if service.message.is_empty() { String::new() } else { format!(" ({})", service.message) };
        format!("service {} is {}{message}", service.id, if service.state == "Running" { "unhealthy" } else { &service.state })
    };
    services.iter().filter(is_bad).map(told).collect()
}
