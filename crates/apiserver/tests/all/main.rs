//! Tests of the API server as its clients see it.

// Helpers of tests may panic as tests may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::disallowed_methods)]

mod admission;
mod clients;
mod coverage;
mod crud;
mod discovery;
#[cfg(test)]
mod exchanges;
mod garbage;
mod kubectl;
mod model;
mod namespaces;
mod restart;
mod serving;
mod support;
mod watching;
