//! Integration tests of the api crate.
mod conversion;
mod crds;
mod reference;
mod types;
