//! The simulated world - vCenter, its virtual machines, the Talos nodes in them and the Kubernetes they form - and the faces it shows
//! over the real protocols.
//!
//! It shares wire formats with the product's clients and no logic: a simulator that asks its client what is right proves nothing.
//! Nothing here reaches outside: the only way in is a [`network::Network`] in memory, or one proxy in front of it.

#![cfg_attr(test, allow(clippy::disallowed_methods))] // seeded sources

pub mod hooks;
pub mod hypervisor;
pub mod network;
pub mod node;
pub mod proxy;
pub mod rules;
pub mod vcenter;
pub mod workload;
mod world;

pub use world::{Config, Latency, Simulator, StartError, Truth};
