//! Integration tests of the api crate.
mod crds;
mod reference;
mod types;
