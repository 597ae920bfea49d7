//! The frames of one watch: what is due is encoded when the client takes it.
//!
//! A frame is one line of JSON, `{"type":...,"object":...}`. The stream ends when its time is over, when the server closes, or when the
//! client was too slow and its queue overflowed; a client then resumes by revision. With bookmarks a client hears at least once a minute
//! what revision it is at, if that changed, and once more at the end.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use apimachinery::StatusError;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::event::Delivery;
use crate::present::Presenter;
use crate::server::Inner;

/// How often a client with bookmarks hears about the revision.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// One thing to be told.
#[derive(Debug)]
pub enum Item {
    Delivery(Delivery),
    /// Encoded already: an initial object, a bookmark, an error.
    Encoded(Bytes),
}

/// See the module's text.
pub struct Frames {
    inner: Arc<Inner>,
    presenter: Presenter,
    due: VecDeque<Item>,
    receiver: Option<mpsc::Receiver<Delivery>>,
    has_bookmarks: bool,
    /// The revision the client knows of.
    told: u64,
    timeout: Pin<Box<Sleep>>,
    bookmark: Option<Pin<Box<Sleep>>>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    is_over: bool,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames").field("told", &self.told).finish_non_exhaustive()
    }
}

impl Frames {
    /// A stream of `due`, then of what `receiver` brings, for `timeout`.
    pub fn new(
        inner: Arc<Inner>,
        presenter: Presenter,
        due: VecDeque<Item>,
        receiver: mpsc::Receiver<Delivery>,
        since: u64,
        timeout: Duration,
        has_bookmarks: bool,
    ) -> Self {
        let closing = Box::pin(inner.closing.clone().cancelled_owned());
        Self {
            inner,
            presenter,
            due,
            receiver: Some(receiver),
            has_bookmarks,
            told: since,
            timeout: Box::pin(tokio::time::sleep(timeout)),
            bookmark: has_bookmarks.then(|| Box::pin(tokio::time::sleep(BOOKMARK_INTERVAL))),
            closing,
            is_over: false,
        }
    }

    /// A stream that tells one error and ends.
    pub fn failed(inner: Arc<Inner>, presenter: Presenter, error: &StatusError) -> Self {
        let (_, receiver) = mpsc::channel(1);
        let due = VecDeque::from([Item::Encoded(Presenter::frame("ERROR", error.to_json().to_string().as_bytes()))]);
        let mut frames = Self::new(inner, presenter, due, receiver, 0, Duration::ZERO, false);
        frames.receiver = None;
        frames
    }

    fn encode(&mut self, item: Item) -> Bytes {
        match item {
            Item::Encoded(bytes) => bytes,
            Item::Delivery(delivery) => {
                self.told = delivery.event.revision;
                self.presenter.delivery(&self.inner, &delivery)
            }
        }
    }

    /// A bookmark at the newest revision, unless something is still waiting to be told or the client knows it.
    fn make_bookmark(&mut self) -> Option<Bytes> {
        // Deliveries are queued under the lock under which the revision moves on: with an empty queue nothing older can follow.
        let (revision, is_drained) = {
            let state = self.inner.state();
            (state.store.revision(), self.receiver.as_ref().is_some_and(mpsc::Receiver::is_empty))
        };
        if !is_drained || revision == self.told {
            return None;
        }
        self.told = revision;
        Some(self.presenter.bookmark(revision, false))
    }

    /// The next frame; `None` at the end.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(item) = self.due.pop_front() {
            return Poll::Ready(Some(self.encode(item)));
        }
        if self.is_over {
            return Poll::Ready(None);
        }
        let Some(receiver) = &mut self.receiver else { return Poll::Ready(None) };
        match receiver.poll_recv(context) {
            Poll::Ready(Some(delivery)) => return Poll::Ready(Some(self.encode(Item::Delivery(delivery)))),
            Poll::Ready(None) => {
                self.is_over = true;
                return Poll::Ready(None);
            }
            Poll::Pending => {}
        }
        if self.closing.as_mut().poll(context).is_ready() {
            self.is_over = true;
            return Poll::Ready(None);
        }
        if self.timeout.as_mut().poll(context).is_ready() {
            self.is_over = true;
            return Poll::Ready(if self.has_bookmarks { self.make_bookmark() } else { None });
        }
        while self.bookmark.as_mut().is_some_and(|bookmark| bookmark.as_mut().poll(context).is_ready()) {
            self.bookmark = Some(Box::pin(tokio::time::sleep(BOOKMARK_INTERVAL)));
            if let Some(frame) = self.make_bookmark() {
                return Poll::Ready(Some(frame));
            }
        }
        Poll::Pending
    }
}
