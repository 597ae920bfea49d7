#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]
//! Controllers between a real API server and a simulated world, or stand-ins for its parts, in memory, on paused time.

mod core_accessor;
mod core_life;
mod core_losses;
mod core_objects;
mod core_providers;
mod core_workload;
mod core_world;
mod lab;
mod talos;
mod talos_objects;
mod vsphere_lifecycle;
mod vsphere_objects;
mod vsphere_refusals;
mod vsphere_steps;
mod vsphere_world;
