//! Fills a store: one list, then one watch from its revision, again and again. Errors are retried with back-off; a revision that the
//! server has forgotten (410) is answered by a fresh list.
//!
//! Most of what a watch tells is the outcome of our own writes, which the store took in with their answers: of those only the metadata
//! are read.

use std::time::Duration;

use http::HeaderValue;
use http::header::ACCEPT_ENCODING;
use jiff::Timestamp;
use kube::api::{ListParams, WatchParams};
use kube::core::{ObjectList, Status};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::frame::Frames;
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
        let mut request = self.path().watch(&parameters, &version).map_err(kube::Error::BuildRequest)?;
        // Compressed streams are held back until there is enough to compress.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut frames = match self.store.client().request_stream(request).await {
            Ok(stream) => Frames::new(Box::pin(stream)),
            Err(kube::Error::Api(status)) if status.code == 410 => return Ok(Ended::Relist),
            Err(error) => return Err(error),
        };
        self.store.set_link(Link::Connected);
        let deadline = self.clock.instant() + Duration::from_secs(u64::from(WATCH_SECONDS)) + WATCH_GRACE;
        loop {
            let frame = match tokio::time::timeout_at(deadline, frames.next()).await {
                Ok(Ok(Some(frame))) => frame,
                Ok(Err(error)) => return Err(error),
                Ok(Ok(None)) | Err(_) => return Ok(Ended::Resume(version)),
            };
            if frame.change == "ERROR" {
                let status: Status = frame.read()?;
                return if status.code == 410 { Ok(Ended::Relist) } else { Err(kube::Error::Api(Box::new(status))) };
            }
            let identity = frame.identity()?;
            let (key, uid, told) = (identity.key(), identity.uid.as_deref(), identity.resource_version.as_deref());
            match &*frame.change {
                "BOOKMARK" => self.store.passed(told.unwrap_or_default()),
                "DELETED" => self.store.saw_deletion(&key, uid, told),
                _ if self.store.knows(&key, uid, told) => {}
                _ => self.store.saw(frame.read()?),
            }
            if let Some(told) = identity.resource_version {
                version = told.into_owned();
            }
        }
    }
}
