//! Integration tests of the api crate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod admission;
mod conversion;
mod crds;
mod reference;
mod types;
