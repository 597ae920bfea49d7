//! The reconcile loop: what turns watched objects into ordered, serialized calls of a [`Reconciler`].
//!
//! It is our own because kube-rs' `Controller` iterates hash maps and reads the clock; here the same seed gives the same order.
//!
//! ```text
//!   API server --list+watch--> Store<K> --(old, new)--> key functions --> Queue --> reconcile(key)
//!                                ^  read-your-writes        Waker ----------^          |
//!                                +-- create/patch/delete through the Store <-----------+
//!
//!   a key:        change/wake                 taken                  Done
//!        idle ---------------> ready ------------------> running ------------> idle
//!          ^                     ^                         |  |
//!          |                     +---- change while running+  | RequeueAfter / error (back-off with jitter)
//!          +------- time is up (becomes ready) <---- delayed <+
//! ```
//!
//! What holds: one key is never reconciled twice at the same time; a change seen while it runs makes it run once more; a write made
//! through a [`Store`] is visible to every later read of it (a reconcile never decides on a view older than its own writes); a panic
//! is an error of that key only; nothing happens while nothing changes (there is no periodic resync). One watch per kind per process:
//! controllers share stores through [`Stores`].

mod backoff;
mod controller;
mod feed;
mod frame;
mod key;
mod queue;
mod recorder;
mod store;
mod stores;
mod wait;
mod write;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

pub use backoff::Backoff;
pub use controller::{Controller, Failing, Health, HealthReport, Waker};
pub use feed::Link;
pub use frame::identified;
pub use key::ObjectKey;
pub use recorder::{EventType, Recorder};
pub use store::{Object, Store};
pub use stores::Stores;
pub use wait::Wait;
pub use write::{ApiError, explain};

/// Makes a type with a field `metadata` one of a kind that is known at run time only.
#[macro_export]
macro_rules! dynamic_resource {
    ($type:ty) => {
        impl ::kube::Resource for $type {
            type DynamicType = ::kube::core::ApiResource;
            type Scope = ::kube::core::DynamicResourceScope;

            fn kind(resource: &::kube::core::ApiResource) -> ::std::borrow::Cow<'_, str> {
                resource.kind.as_str().into()
            }
            fn group(resource: &::kube::core::ApiResource) -> ::std::borrow::Cow<'_, str> {
                resource.group.as_str().into()
            }
            fn version(resource: &::kube::core::ApiResource) -> ::std::borrow::Cow<'_, str> {
                resource.version.as_str().into()
            }
            fn api_version(resource: &::kube::core::ApiResource) -> ::std::borrow::Cow<'_, str> {
                resource.api_version.as_str().into()
            }
            fn plural(resource: &::kube::core::ApiResource) -> ::std::borrow::Cow<'_, str> {
                resource.plural.as_str().into()
            }
            fn meta(&self) -> &::kube::core::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ::kube::core::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

/// What a reconcile that went well asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something changes.
    Done,
    /// Run again after this time, or earlier when something changes.
    RequeueAfter(Duration),
}

impl Action {
    /// Run again at this time; when it is over, or there is none, only something that changes counts.
    pub fn at(at: Option<Timestamp>, now: Timestamp) -> Self {
        let left = at.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        left.filter(|left| !left.is_zero()).map_or(Self::Done, Self::RequeueAfter)
    }

    /// The one of both that comes earlier.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        match (self, other) {
            (Self::Done, action) | (action, Self::Done) => action,
            (Self::RequeueAfter(a), Self::RequeueAfter(b)) => Self::RequeueAfter(a.min(b)),
        }
    }
}

/// Why a reconcile failed. Made from any error by `?`; shows the error and its sources.
pub struct Error(Box<dyn std::error::Error + Send + Sync>);

impl Error {
    /// An error that is only a text.
    pub fn message(text: impl Into<String>) -> Self {
        Self(text.into().into())
    }

    /// The error inside.
    pub fn inner(&self) -> &(dyn std::error::Error + 'static) {
        &*self.0
    }

    /// Whether it is a lost race for an object (409 Conflict): the loop tries again without calling it a failure.
    pub fn is_conflict(&self) -> bool {
        self.0.downcast_ref::<ApiError>().is_some_and(ApiError::is_conflict)
            || self.0.downcast_ref::<kube::Error>().is_some_and(|error| write::status_of(error).is_some_and(|s| s.code == 409))
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&explain(&*self.0))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Brings one kind of object to its desired state. Called with keys; reads stores; a key without object is one that was deleted.
#[async_trait]
pub trait Reconciler: Send + Sync + 'static {
    /// The kind whose objects are reconciled.
    type Kind: Object;

    /// One pass over one object.
    ///
    /// # Errors
    /// Whatever stopped the pass; the loop records it and tries again with a growing delay.
    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error>;
}

#[cfg(test)]
mod tests;
