//! What controllers ask of a vCenter, and how they get at one: traits, so that controllers can be tested without a server.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use vsphere_wire::ManagedObjectReference;
use vsphere_wire::machine::VirtualMachineConfigSpec;

use crate::error::VSphereError;
use crate::inventory::{Placement, PlacementRequest};
use crate::machine::VirtualMachine;
use crate::marker::Owner;
use crate::session::Secret;
use crate::spec::{CloneRequest, Remarks};
use crate::watch::{Link, Listener, Seen, Task};

/// What a vCenter is, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// `8.0.3`.
    pub version: String,
    pub build: String,
    /// Identifies it, whatever name it is reached by.
    pub instance_uuid: String,
    pub full_name: String,
}

/// A vCenter in the name of one account. Sessions are kept inside. Every effect answers a task; what came of it is to be observed.
#[async_trait]
pub trait VCenter: Debug + Send + Sync {
    /// The server's name as given.
    fn server(&self) -> &str;

    /// Logs in if needed; what the server is.
    async fn about(&self) -> Result<About, VSphereError>;

    /// Whether the server is followed at present.
    fn link(&self) -> Link;

    /// Resolves a placement; kept until something of it turns out to be gone.
    async fn place(&self, request: &PlacementRequest) -> Result<Arc<Placement>, VSphereError>;

    /// The machine of this name in this folder (by its path), asked of the server itself.
    async fn find_named(&self, folder_path: &str, name: &str) -> Result<Option<ManagedObjectReference>, VSphereError>;

    /// The machines with this instance UUID, asked of the server itself.
    async fn find_instance(&self, instance_uuid: &str) -> Result<Vec<ManagedObjectReference>, VSphereError>;

    /// The machines whose marker, valid or not, names this owner, asked of the server itself.
    async fn machines_of(&self, owner: &Owner) -> Result<Vec<ManagedObjectReference>, VSphereError>;

    /// The names of the machines with a valid marker of this Cluster (by uid), whichever installation made them, asked of the server
    /// itself: the look that proves that nothing is left.
    async fn machines_of_cluster(&self, cluster: &str) -> Result<Vec<String>, VSphereError>;

    /// Reads a machine; none when it does not exist.
    async fn machine(&self, machine: &ManagedObjectReference) -> Result<Option<VirtualMachine>, VSphereError>;

    /// The machine as last seen by the watch.
    fn seen(&self, machine: &ManagedObjectReference) -> Option<Seen>;

    /// The name of a host.
    async fn host_name(&self, host: &ManagedObjectReference) -> Result<Option<String>, VSphereError>;

    /// Starts a clone, powered off.
    async fn clone_machine(&self, placement: &Placement, request: &CloneRequest)
    -> Result<(ManagedObjectReference, Remarks), VSphereError>;

    /// The tasks that clone this source, running or lately ended, as the server knows them now.
    async fn clones_of(&self, source: &ManagedObjectReference) -> Result<Vec<Task>, VSphereError>;

    /// A task; none when the server has forgotten it.
    async fn task(&self, task: &ManagedObjectReference) -> Result<Option<Task>, VSphereError>;

    /// Asks a task to stop.
    async fn cancel(&self, task: &ManagedObjectReference) -> Result<(), VSphereError>;

    /// Starts a reconfiguration.
    async fn reconfigure(
        &self,
        machine: &ManagedObjectReference,
        spec: VirtualMachineConfigSpec,
    ) -> Result<ManagedObjectReference, VSphereError>;

    /// Starts a power-on.
    async fn power_on(&self, machine: &ManagedObjectReference) -> Result<ManagedObjectReference, VSphereError>;

    /// Starts a power-off, without asking the guest.
    async fn power_off(&self, machine: &ManagedObjectReference) -> Result<ManagedObjectReference, VSphereError>;

    /// Asks the guest to shut down; needs VMware tools in it.
    async fn shut_down_guest(&self, machine: &ManagedObjectReference) -> Result<(), VSphereError>;

    /// Starts the destruction of a machine with every disk attached to it. Whose it is must have been checked.
    async fn destroy(&self, machine: &ManagedObjectReference) -> Result<ManagedObjectReference, VSphereError>;
}

/// Which server, in whose name, recognized how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// `host` or `host:port`.
    pub server: String,
    pub user: String,
    pub password: Secret,
    /// SHA-1 or SHA-256 of the server's certificate, when the manifests give it.
    pub thumbprint: Option<String>,
}

/// The vCenters: one session per server, account and thumbprint.
#[async_trait]
pub trait VCenters: Debug + Send + Sync {
    /// The vCenter for these credentials. Asks nothing of the server.
    fn vcenter(&self, credentials: &Credentials) -> Arc<dyn VCenter>;

    /// Tells `listener` (server, change) of every later change of any of them.
    fn subscribe(&self, listener: Listener);

    /// Logs out everywhere.
    async fn close(&self);
}
