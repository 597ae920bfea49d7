//! The simulated vCenter, called as a client calls it.

mod collector;
mod coverage;
mod exchanges;
mod govc;
mod lifecycle;
mod model;
mod sessions;
mod sockets;
pub mod support;
