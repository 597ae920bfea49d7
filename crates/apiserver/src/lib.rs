//! The embedded Kubernetes API server: a value that serves resources from memory and keeps them in a journal.
//!
//! ```text
//!   kube::Client (in process) ─┐                        ┌─ read     list, get, watch      ┐
//!   kubectl over TLS ── serve ─┴─ service ── dispatch ──┼─ write    create, update, patch ├─ server ── store (memory)
//!                                                       ├─ delete   + housekeeping        │    └────── journal (redb, memory)
//!                                                       └─ discovery, openapi, health     ┘
//! ```
//!
//! It knows no kind of Cluster API: definitions, admission and conversion are handed in. It has no globals and no threads of its own; a
//! simulated world holds a thousand servers that share their schemas. Time and randomness are handed in.
//!
//! Deviations from a genuine server, on purpose: server-side apply is not served yet (415, and it says so), so `managedFields` are not kept;
//! OpenAPI version 2 is not served; RBAC objects are data and no token is issued; pods have no grace period; a watch
//! from a revision in the future is told 410 and not held; garbage collection spares an object whose owner's uid is alive in another
//! namespace; answers are JSON, also to clients that would rather have protobuf.

#![cfg_attr(test, allow(clippy::disallowed_methods))] // seeded sources

mod admit;
mod body;
mod builtin;
mod definition;
mod delete;
mod discovery;
mod dispatch;
mod event;
mod events;
mod evict;
mod health;
mod housekeeping;
pub mod journal;
mod metadata;
mod namespaces;
mod object;
mod openapi;
mod options;
mod patch;
mod present;
mod read;
mod registry;
mod request;
mod response;
mod review;
mod scale;
mod serve;
mod server;
mod service;
mod store;
mod strategy;
mod watch;
mod write;

pub use builtin::Builtins;
pub use definition::{CrdSet, DefinitionError};
pub use journal::{Contents, Frozen, Journal, JournalError, MemoryJournal, RedbJournal, is_guarded};
pub use options::{KUBERNETES_VERSION, OpenError, Options, User};
pub use response::Body;
pub use server::{Acknowledged, ApiServer};
pub use service::ApiService;
