#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Controllers between a real API server and what is outside: a simulated vCenter, stand-ins for nodes. In memory, on paused time.

mod lab;
mod talos;
mod vsphere_lifecycle;
mod vsphere_refusals;
mod vsphere_steps;
mod vsphere_world;
