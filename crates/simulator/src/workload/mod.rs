//! The Kubernetes that simulated nodes form: an API server for each cluster.

pub(crate) mod endpoint;
