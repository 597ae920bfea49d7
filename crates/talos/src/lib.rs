//! Talos: secrets, machine configuration, client credentials, and the machine API's client.
//!
//! Everything but [`client`] is pure: text and values in, text and values out. Keys, randomness and time are handed in.

#![cfg_attr(test, allow(clippy::disallowed_methods))] // seeded sources

pub mod client;
pub mod clientconfig;
pub mod config;
pub mod contract;
pub mod database;
pub mod kubeconfig;
pub mod patch;
pub mod secrets;
pub mod yaml;
