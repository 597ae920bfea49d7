//! Fills a store: one list, then one watch from its revision, again and again. Errors are retried with back-off; a revision that the
//! server has forgotten (410) is answered by a fresh list.
//!
//! Most of what a watch tells is the outcome of our own writes, which the store took in with their answers: of those only the metadata
//! are read.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::ObjectList;
use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::key::ObjectKey;
use super::store::{Object, Store};
use super::write::explain;
use crate::clock::Clock;
use crate::random::Random;

/// Objects a page of the list.
const PAGE: u32 = 500;
/// How long the server keeps one watch open, in seconds; a little less than the longest that servers allow.
const WATCH_SECONDS: u32 = 290;
/// A watch that outlives its time by this much is dead.
const WATCH_GRACE: Duration = Duration::from_secs(10);
/// A watch that the server ends earlier than this counts as a failure, so that its repetition is delayed.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);

/// The state of a store's watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nothing was read yet.
    Starting,
    /// The store follows the server.
    Connected,
    /// The store shows what was last known.
    Disconnected {
        since: Timestamp,
        because: String,
        /// Whether a list had come before.
        is_synced: bool,
    },
}

impl Link {
    /// Whether the store has held a whole list.
    pub fn is_synced(&self) -> bool {
        matches!(self, Self::Connected | Self::Disconnected { is_synced: true, .. })
    }

    /// Whether the watch is up.
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected)
    }
}

/// What a feed reads: all namespaces, or one; all objects, or those with labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scope {
    pub labels: Option<String>,
}

enum Ended {
    /// By the server, at the end of its time: watch on from this revision.
    Resume(String),
    /// The revision is forgotten: list again.
    Relist,
}

/// The part of an object's metadata that says which one it is, and in which state.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    #[serde(borrow)]
    namespace: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    uid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    resource_version: Option<Cow<'a, str>>,
}

impl<'a> Identity<'a> {
    /// Reads an object as far as its metadata, which stand near its beginning.
    fn read(object: &'a RawValue) -> Result<Self, kube::Error> {
        let mut identity = None;
        let read = serde_json::Deserializer::from_str(object.get()).deserialize_map(ToMetadata(&mut identity));
        match (identity, read) {
            (Some(identity), _) => Ok(identity),
            (None, Ok(())) => Ok(Self::default()),
            (None, Err(error)) => Err(kube::Error::SerdeError(error)),
        }
    }

    fn key(&self) -> ObjectKey {
        let namespace = self.namespace.as_deref().filter(|namespace| !namespace.is_empty()).map(str::to_owned);
        ObjectKey { namespace, name: self.name.clone().into_owned() }
    }
}

/// Gives up with an error once the metadata are read: nothing else is of interest.
struct ToMetadata<'s, 'a>(&'s mut Option<Identity<'a>>);

impl<'a> Visitor<'a> for ToMetadata<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(field) = map.next_key::<Cow<'a, str>>()? {
            if field == "metadata" {
                *self.0 = Some(map.next_value()?);
                return Err(M::Error::custom("the rest is not read"));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

fn read<'a, T: Deserialize<'a>>(text: &'a RawValue) -> Result<T, kube::Error> {
    serde_json::from_str(text.get()).map_err(kube::Error::SerdeError)
}

pub(super) struct Feed<K: Object> {
    pub store: Store<K>,
    pub scope: Scope,
    pub clock: Clock,
    pub random: Random,
    pub backoff: Backoff,
}

impl<K: Object> Feed<K> {
    pub async fn run(self, token: CancellationToken) {
        tokio::select! {
            biased;
            () = token.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let mut failures = 0;
        let mut version: Option<String> = None;
        loop {
            let is_list_needed = version.is_none();
            let began = self.clock.instant();
            match self.once(version.take()).await {
                Ok(Ended::Resume(next)) => {
                    version = Some(next);
                    if self.clock.instant() - began >= SHORTEST_WATCH {
                        failures = 0;
                        continue;
                    }
                    failures += 1;
                }
                // One forgotten revision is ordinary; a server that forgets at once is not to be run down.
                Ok(Ended::Relist) if !is_list_needed => continue,
                Ok(Ended::Relist) => failures += 1,
                Err(error) => {
                    failures += 1;
                    if self.store.link().is_connected() {
                        failures = 1;
                    }
                    self.lost(&explain(&error));
                }
            }
            tokio::select! {
                biased;
                () = self.store.hastened() => failures = 0,
                () = self.clock.sleep(self.backoff.delay(failures, &self.random)) => {}
            }
        }
    }

    fn lost(&self, because: &str) {
        let link = self.store.link();
        let because = because.to_owned();
        let (since, is_synced) = match link {
            Link::Disconnected { since, is_synced, .. } => (since, is_synced),
            Link::Connected => (self.clock.now_seconds(), true),
            Link::Starting => (self.clock.now_seconds(), false),
        };
        tracing::debug!(kind = self.store.kind(), %because, "watch lost");
        self.store.set_link(Link::Disconnected { since, because, is_synced });
    }

    async fn once(&self, version: Option<String>) -> Result<Ended, kube::Error> {
        let version = match version {
            Some(version) => version,
            None => self.list().await?,
        };
        self.watch(version).await
    }

    fn path(&self) -> kube::core::Request {
        kube::core::Request::new(K::url_path(self.store.dyntype(), None))
    }

    async fn list(&self) -> Result<String, kube::Error> {
        let mut objects = Vec::new();
        let mut parameters = ListParams { limit: Some(PAGE), label_selector: self.scope.labels.clone(), ..ListParams::default() };
        loop {
            let request = self.path().list(&parameters).map_err(kube::Error::BuildRequest)?;
            let text = self.store.client().request_text(request).await?;
            let page: ObjectList<K> = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
            objects.extend(page.items);
            let version = page.metadata.resource_version.unwrap_or_default();
            parameters.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if parameters.continue_token.is_none() {
                self.store.relisted(objects, &version);
                self.store.set_link(Link::Connected);
                return Ok(version);
            }
        }
    }

    async fn watch(&self, mut version: String) -> Result<Ended, kube::Error> {
        let parameters = WatchParams {
            label_selector: self.scope.labels.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = self.path().watch(&parameters, &version).map_err(kube::Error::BuildRequest)?;
        let mut events: BoxStream<'static, Result<WatchEvent<Box<RawValue>>, kube::Error>> =
            match self.store.client().request_events(request).await {
                Ok(events) => Box::pin(events),
                Err(kube::Error::Api(status)) if status.code == 410 => return Ok(Ended::Relist),
                Err(error) => return Err(error),
            };
        self.store.set_link(Link::Connected);
        let deadline = self.clock.instant() + Duration::from_secs(u64::from(WATCH_SECONDS)) + WATCH_GRACE;
        loop {
            let event = match tokio::time::timeout_at(deadline, events.next()).await {
                Ok(Some(event)) => event?,
                Ok(None) | Err(_) => return Ok(Ended::Resume(version)),
            };
            match event {
                WatchEvent::Added(text) | WatchEvent::Modified(text) => {
                    let metadata = Identity::read(&text)?;
                    let (uid, told) = (metadata.uid.as_deref(), metadata.resource_version.as_deref());
                    if !self.store.knows(&metadata.key(), uid, told) {
                        self.store.saw(read(&text)?);
                    }
                    if let Some(told) = metadata.resource_version {
                        version = told.into_owned();
                    }
                }
                WatchEvent::Deleted(text) => {
                    let metadata = Identity::read(&text)?;
                    self.store.saw_deletion(&metadata.key(), metadata.uid.as_deref(), metadata.resource_version.as_deref());
                    if let Some(told) = metadata.resource_version {
                        version = told.into_owned();
                    }
                }
                WatchEvent::Bookmark(bookmark) => {
                    self.store.passed(&bookmark.metadata.resource_version);
                    version = bookmark.metadata.resource_version;
                }
                WatchEvent::Error(status) if status.code == 410 => return Ok(Ended::Relist),
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_known_by_its_metadata_wherever_they_stand() {
        let metadata = r#""metadata":{"labels":{"a":"b"},"uid":"u-\u0031","name":"n","resourceVersion":"7","namespace":""}"#;
        for text in [
            format!(r#"{{"kind":"K","apiVersion":"v1",{metadata},"spec":{{"metadata":{{"name":"other"}}}}}}"#),
            format!(r#"{{"spec":{{"metadata":{{"name":"other"}}}},{metadata}}}"#),
        ] {
            let text = RawValue::from_string(text).unwrap();
            let identity = Identity::read(&text).unwrap();
            assert_eq!(identity.key(), ObjectKey::cluster_scoped("n"));
            assert_eq!((identity.uid.as_deref(), identity.resource_version.as_deref()), (Some("u-1"), Some("7")));
        }
    }

    #[test]
    fn what_is_no_object_is_an_error_and_one_without_metadata_has_no_name() {
        let read = |text: &str| Identity::read(&RawValue::from_string(text.to_owned()).unwrap()).map(|identity| identity.key());
        assert!(read("[1]").is_err());
        assert!(read(r#"{"metadata": 3}"#).is_err());
        assert_eq!(read(r#"{"kind": "K"}"#).unwrap(), ObjectKey::cluster_scoped(""));
    }
}
