//! Kubernetes API semantics without I/O: selectors, patches, schemas, JSONPath, tables, errors.
//!
//! Everything here is a plain function of its arguments on [`serde_json::Value`] objects: no clock is read, nothing is
//! drawn at random, no socket is opened. The API server, the types of the product's kinds and the simulator's workload
//! clusters share these rules, so that an object means the same wherever it passes.
//!
//! Messages are those a genuine kube-apiserver gives, because users and tools match on them.

pub mod admission;
pub mod cel;
pub mod field;
pub mod gvk;
pub mod jsonpath;
pub mod meta;
pub mod names;
pub mod patch;
pub mod protobuf;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strict;
pub mod table;

/// One document of the API: an object, a patch, a Status.
pub use serde_json::Value;

pub use field::FieldError;
pub use gvk::{GroupKind, GroupResource, GroupVersionKind, GroupVersionResource};
pub use status::{Reason, StatusError};
