#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Controllers between a real API server and a simulated vCenter, in memory, on paused time.

mod vsphere_lifecycle;
mod vsphere_refusals;
mod vsphere_steps;
mod vsphere_world;
