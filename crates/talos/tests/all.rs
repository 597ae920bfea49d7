//! Goldens and properties of the crate, in one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::disallowed_methods)]

#[path = "all/client.rs"]
mod client;
#[path = "all/goldens.rs"]
mod goldens;
#[path = "all/patches.rs"]
mod patches;
#[path = "all/properties.rs"]
mod properties;
#[path = "all/reference.rs"]
mod reference;
