//! Tests of the API server as its clients see it.

mod clients;
mod crud;
mod discovery;
#[cfg(test)]
mod exchanges;
mod garbage;
mod kubectl;
mod namespaces;
mod restart;
mod serving;
mod support;
mod watching;
