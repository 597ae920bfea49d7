//! The way to workload clusters: one cached connection per cluster, one watch on its Nodes, and a state that tells since when and why.
//!
//! A reconcile never waits on a workload cluster: it reads the last known Nodes, hands in what is to be done, and is woken when something
//! came of it. Nothing here returns a future.

mod accessor;
mod direct;
mod inspect;
mod job;
pub mod kubeconfig;
mod load;

use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use runtime::reconcile::ObjectKey;
use serde_json::Value;

pub use accessor::{Accessor, Parts};
pub use inspect::{Agent, AgentPod, Inspection, Role};
pub use load::{Attached, Attempt, Eviction, Load, Look, Looked};

/// Whether a workload cluster's API answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Not tried yet: what is missing for a try (an address, the kubeconfig secret).
    Waiting { on: String },
    /// The Nodes are followed.
    Connected { since: Timestamp },
    /// The Nodes are as last seen, if ever.
    Disconnected { since: Timestamp, because: String },
}

impl Connection {
    /// Whether the Nodes are followed.
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { on } => write!(f, "not connected yet: waiting for {on}"),
            Self::Connected { since } => write!(f, "connected since {}", since.strftime("%T")),
            Self::Disconnected { since, because } => write!(f, "disconnected since {}: {because}", since.strftime("%T")),
        }
    }
}

/// Until when what was last known of a cluster stands: so long after it stopped to answer; none while it answers.
pub fn doubted_at(connection: &Connection, away_since: Option<Timestamp>, grace: SignedDuration) -> Option<Timestamp> {
    away_since.filter(|_| !connection.is_connected()).and_then(|since| since.checked_add(grace).ok())
}

/// What came of manifests that were handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// In work, or waiting for the connection.
    Pending,
    /// All objects are there.
    Done,
    /// Some object was refused; tried again with the next change.
    Failed(String),
}

/// Something changed in, or on the way to, a workload cluster.
#[derive(Clone, Debug)]
pub struct Change {
    /// The key of its Cluster.
    pub cluster: ObjectKey,
    /// The Node that changed, as it is or last was; none when it is about the connection or about work.
    pub node: Option<Arc<Node>>,
}

/// Called with every change.
pub type Tap = Arc<dyn Fn(&Change) + Send + Sync>;

/// Workload clusters, by the key of their Cluster.
pub trait Clusters: fmt::Debug + Send + Sync {
    /// The state of the connection. Begins to connect when it is asked for the first time.
    fn connection(&self, cluster: &ObjectKey) -> Connection;

    /// Since when the cluster does not answer: since the connection was lost, or since this process began to look for it. None while it does.
    fn away_since(&self, cluster: &ObjectKey) -> Option<Timestamp> {
        match self.connection(cluster) {
            Connection::Disconnected { since, .. } => Some(since),
            _ => None,
        }
    }

    /// The Nodes as last seen, by name; none before the first connection.
    fn nodes(&self, cluster: &ObjectKey) -> Vec<Arc<Node>>;

    /// Hands in a merge patch of a Node. What came of it shows in the Node.
    fn patch_node(&self, cluster: &ObjectKey, node: &str, patch: Value);

    /// Hands in the deletion of a Node, of exactly the one with this uid. What came of it shows in the Nodes.
    fn delete_node(&self, cluster: &ObjectKey, node: &str, uid: &str);

    /// Hands in objects to be created where they are missing; `work` names them for [`Clusters::applied`]. Handing in the same again
    /// changes nothing while it is in work.
    fn apply(&self, cluster: &ObjectKey, work: &str, objects: Vec<Value>);

    /// What came of the objects handed in as `work`; none when nothing was, in this process.
    fn applied(&self, cluster: &ObjectKey, work: &str) -> Option<Applied>;

    /// Why the last call about a Node failed; none after one that went well.
    fn trouble(&self, cluster: &ObjectKey, node: &str) -> Option<String>;

    /// What is on a Node, as far as it was looked at in this process for a drain; none before.
    fn load(&self, cluster: &ObjectKey, node: &str) -> Option<Load>;

    /// Hands in a look at what is on a Node. What came of it shows in [`Clusters::load`].
    fn look(&self, cluster: &ObjectKey, node: &str, what: Look);

    /// Hands in the eviction of a pod of a Node, of exactly the one with this uid. What came of it shows in [`Clusters::load`].
    fn evict(&self, cluster: &ObjectKey, node: &str, eviction: Eviction);

    /// What Nodes of the cluster wait for before they can be used, as far as it was looked for in this process; none before.
    fn inspection(&self, _cluster: &ObjectKey) -> Option<Arc<Inspection>> {
        None
    }

    /// Hands in a look for that. What came of it shows in [`Clusters::inspection`].
    fn inspect(&self, _cluster: &ObjectKey) {}

    /// Tries to connect now rather than after the present delay: something happened that makes an answer likely.
    fn hasten(&self, cluster: &ObjectKey);

    /// Calls `tap` with every later change.
    fn subscribe(&self, tap: Tap);
}
