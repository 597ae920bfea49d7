//! `cluster.x-k8s.io/v1beta2`: Cluster, Machine, MachineSet, MachineDeployment, MachineHealthCheck, MachineDrainRule.
//!
//! The hub types: what the store holds and what controllers read. Field names, limits and enumerations are upstream's
//! (Cluster API v1beta2). ClusterClass is not interpreted: `topology` is carried through untouched.

#[allow(clippy::module_inception)]
mod cluster;
mod machine;
mod machine_deployment;
mod machine_drain_rule;
mod machine_health_check;
mod machine_set;

pub use cluster::*;
pub use machine::*;
pub use machine_deployment::*;
pub use machine_drain_rule::*;
pub use machine_health_check::*;
pub use machine_set::*;
