//! Tests of the API server as its clients see it.

mod clients;
mod crud;
mod discovery;
mod garbage;
mod namespaces;
mod restart;
mod support;
mod watching;
