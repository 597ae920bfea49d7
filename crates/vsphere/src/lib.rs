//! vCenter client and the operations on it.
//!
//! [`VCenter`] is what controllers ask for, [`Registry`] gives one per server and account. Inside: SOAP over verified HTTPS, a session that heals itself, a placement resolved
//! once, and one long poll that tells of every change instead of polling. [`marker`] says whose a machine is; [`spec`] builds specifications; [`error`] says what to do about
//! each fault. No secret gets into an error, a log or a name.

#![cfg_attr(test, allow(clippy::disallowed_methods))] // seeded sources

mod client;
mod connection;
pub mod error;
mod inventory;
mod machine;
pub mod marker;
mod registry;
mod session;
pub mod spec;
mod tree;
mod vcenter;
mod watch;

pub use client::Client;
pub use connection::{Address, Counters, Transport, Trust};
pub use error::{FaultReport, Reaction, VSphereError};
pub use inventory::{Network, Placement, PlacementRequest, Template};
pub use machine::{GuestState, VirtualMachine};
pub use marker::{Marker, Owner, is_ours};
pub use registry::{Registry, Verification};
pub use session::Secret;
pub use vcenter::{About, Credentials, VCenter, VCenters};
pub use vsphere_wire::machine::{
    GuestNicInfo, NetIpConfigInfo, NetIpConfigInfoIpAddress, VirtualMachineConfigSpec, VirtualMachinePowerState,
};
pub use vsphere_wire::{DeviceBacking, ManagedObjectReference, VirtualDevice, device};
pub use watch::{Change, Link, Listener, Listeners, Seen, Task, TaskState};
