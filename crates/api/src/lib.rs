//! Resource types of Cluster API, its Talos, vSphere and IPAM providers: schemas, conversion, defaults, validation.
//!
//! The Rust types are the *hub* versions: what the store holds and controllers read. Older versions exist as JSON only:
//! their schemas are derived from the hub's and objects in them are converted at the border.
//! Nothing here does I/O, reads a clock or knows an API server.

#![recursion_limit = "256"]

mod admission;
mod conversion;
mod object;

pub mod addons;
pub mod bootstrap;
pub mod cluster;
pub mod clusterctl;
pub mod conditions;
pub mod controlplane;
pub mod crds;
pub mod infrastructure;
pub mod ipam;
pub mod meta;
pub mod names;
pub mod schema;
pub mod spoke;

pub use crds::crds;

/// Defaults, rules and conversions of all kinds of this crate, for an API server to call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Webhooks;
