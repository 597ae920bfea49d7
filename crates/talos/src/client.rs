//! The machine API of one node: what can be asked of it, and how it is reached.
//!
//! [`TalosApi`] is the narrow trait that controllers act through; [`grpc`] speaks it over mutual TLS. Nodes are dialled one by one at
//! their own addresses, never through another node and never at a VIP. Every call has a time limit, and an error says which of the
//! things that can be wrong it is: a node of another cluster is not the same as a node that is off.

mod archive;
mod connection;
mod error;
pub mod grpc;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::Stream;

pub use crate::clientconfig::ClientIdentity;
pub use error::TalosError;

/// Where every node answers.
pub const PORT: u16 = 50_000;
/// For a call that answers at once.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// For bootstrap and kubeconfig, which work before they answer.
pub const WORK_TIMEOUT: Duration = Duration::from_secs(30);
/// A node leaves etcd by trying for up to five minutes; a client that gives up earlier leaves a half-removed member.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(6 * 60);
/// A snapshot may be large, and the way long.
pub const TRANSFER_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// etcd's database as it lies on a node's disk.
pub const ETCD_DATABASE: &str = "/var/lib/etcd/member/snap/db";
/// The directory that etcd makes when a node begins or joins a cluster. Leaving takes it away.
pub const ETCD_DATA: &str = "/var/lib/etcd/member";

/// What a node runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Such as `v1.4.8`.
    pub tag: String,
    pub platform: String,
    pub arch: String,
}

/// A service of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `etcd`, `kubelet`, `apid`, ...
    pub id: String,
    /// `Running`, `Preparing`, `Finished`, ...
    pub state: String,
    /// Absent when the service has no check or it has not run yet.
    pub is_healthy: Option<bool>,
    /// The last message of its check or its last event.
    pub message: String,
}

/// The number of an etcd member. Printed as etcd prints it, in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A member of etcd, as a node lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdMember {
    pub id: MemberId,
    /// Empty until the member has started.
    pub hostname: String,
    pub peer_urls: Vec<String>,
    /// Learners do not vote.
    pub is_learner: bool,
}

/// A member's own view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdStatus {
    pub member_id: Option<MemberId>,
    pub leader: Option<MemberId>,
    pub raft_applied_index: u64,
    pub database_bytes: i64,
    pub is_learner: bool,
    pub errors: Vec<String>,
}

/// How a configuration is applied. The protocol's default (reboot) is refused by newer releases, so there is none here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyMode {
    /// At once, with a reboot where one is needed.
    Auto,
    /// At once; an error when a reboot would be needed.
    NoReboot,
    /// At the next boot.
    Staged,
}

/// What a reset wipes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResetOptions {
    /// Cordon, drain and leave etcd first.
    pub graceful: bool,
    pub reboot: bool,
    /// `STATE`, `EPHEMERAL`; the whole system disk, boot loader and all, when empty.
    pub partitions: Vec<String>,
}

/// Whose log, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// `system`, or `k8s.io` for pods.
    pub namespace: String,
    pub id: String,
    pub follow: bool,
    /// The last lines only.
    pub tail_lines: Option<i32>,
}

/// Bytes as they come.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Vec<u8>, TalosError>> + Send>>;

/// Bytes to be sent, in pieces.
pub type Pieces = Pin<Box<dyn Stream<Item = Vec<u8>> + Send>>;

/// The machine API of one node.
#[async_trait]
pub trait TalosApi: fmt::Debug + Send + Sync {
    async fn version(&self) -> Result<Version, TalosError>;
    async fn services(&self) -> Result<Vec<Service>, TalosError>;
    /// Starts a new etcd cluster on this node. At most one node of a cluster may ever be asked: the node itself only knows whether its
    /// own disk is empty. An error does not mean that nothing happened.
    async fn bootstrap(&self) -> Result<(), TalosError>;
    /// As [`TalosApi::bootstrap`], with the content of a snapshot that was sent with [`TalosApi::etcd_recover`]. One that was copied off a
    /// disk has no digest behind it, which is then not looked for.
    async fn bootstrap_recovering(&self, skips_digest: bool) -> Result<(), TalosError>;
    /// The members as this node knows them, whether there is a quorum or not.
    async fn etcd_members_local(&self) -> Result<Vec<EtcdMember>, TalosError>;
    async fn etcd_members(&self) -> Result<Vec<EtcdMember>, TalosError>;
    async fn etcd_status(&self) -> Result<EtcdStatus, TalosError>;
    /// Whether a member's data lies on this node's disk: the same question that the node asks itself before it lets etcd begin.
    async fn has_etcd_data(&self) -> Result<bool, TalosError>;
    /// Removes a member whose node is gone for good.
    async fn etcd_remove_member(&self, id: MemberId) -> Result<(), TalosError>;
    /// Hands leadership to another member, if this node has it.
    async fn etcd_forfeit_leadership(&self) -> Result<(), TalosError>;
    /// Takes this node out of etcd, then stops and empties its etcd.
    async fn etcd_leave(&self) -> Result<(), TalosError>;
    /// A copy of etcd's database as this member has it, followed by its SHA-256. It may break off halfway.
    async fn etcd_snapshot(&self) -> Result<ByteStream, TalosError>;
    /// Sends a snapshot to recover from. Nothing happens with it before [`TalosApi::bootstrap_recovering`].
    async fn etcd_recover(&self, pieces: Pieces) -> Result<(), TalosError>;
    /// A file of the node, as it is.
    async fn read(&self, path: &str) -> Result<ByteStream, TalosError>;
    async fn kubeconfig(&self) -> Result<String, TalosError>;
    async fn dmesg(&self, follow: bool, tail: bool) -> Result<ByteStream, TalosError>;
    async fn logs(&self, query: &LogQuery) -> Result<ByteStream, TalosError>;
    /// Answers before it is done, as do the next two.
    async fn reset(&self, options: &ResetOptions) -> Result<(), TalosError>;
    async fn shutdown(&self, force: bool) -> Result<(), TalosError>;
    async fn reboot(&self) -> Result<(), TalosError>;
    /// Returns the node's warnings.
    async fn apply_configuration(&self, config: &str, mode: ApplyMode, dry_run: bool) -> Result<Vec<String>, TalosError>;
}

/// Reaches nodes.
#[async_trait]
pub trait TalosDialer: fmt::Debug + Send + Sync {
    /// Connects to a node and verifies that it belongs to the identity's cluster. A node that was verified by an earlier handshake and
    /// has answered on that connection ever since may be taken at that.
    ///
    /// # Errors
    /// When the node does not answer, is not configured yet, or belongs to another cluster.
    async fn connect(&self, node_address: &str, identity: &ClientIdentity) -> Result<Arc<dyn TalosApi>, TalosError>;
}
