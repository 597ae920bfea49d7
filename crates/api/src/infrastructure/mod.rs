//! `infrastructure.cluster.x-k8s.io/v1beta2`: the vSphere kinds.

mod clone;
mod cluster;
mod identity;
mod machine;
mod vm;
mod zone;

pub use clone::*;
pub use cluster::*;
pub use identity::*;
pub use machine::*;
pub use vm::*;
pub use zone::*;
