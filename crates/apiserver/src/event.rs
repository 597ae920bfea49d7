//! What happened to one object, as watchers are told.
//!
//! An event is made once, shared by all watchers and encoded once for each form in which it is asked for. It must never be changed after
//! it was published.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::object::Entry;

/// The kind of a change, as a watcher with a certain selection sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    /// The word in a watch frame.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One committed change.
#[derive(Debug)]
pub struct Event {
    pub revision: u64,
    pub change: Change,
    /// The object after the change; for a deletion the last state, at the revision of the deletion.
    pub entry: Arc<Entry>,
    pub previous: Option<Arc<Entry>>,
    frames: Mutex<Vec<(FrameKey, Bytes)>>,
}

/// The form of an encoded frame. Tables are not kept: their ages change with time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameKey {
    pub change: Change,
    /// The API version the object is shown in.
    pub version: Arc<str>,
    /// Group of the view: events are seen through two groups.
    pub group: Arc<str>,
    pub is_metadata_only: bool,
}

impl Event {
    /// A change from `previous` to `entry`.
    pub fn new(change: Change, entry: Arc<Entry>, previous: Option<Arc<Entry>>) -> Self {
        Self { revision: entry.revision, change, entry, previous, frames: Mutex::default() }
    }

    /// The frame for `key`, encoded by `encode` when asked for the first time.
    pub fn frame(&self, key: FrameKey, encode: impl FnOnce() -> Bytes) -> Bytes {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frame)) = frames.iter().find(|(known, _)| *known == key) {
            return frame.clone();
        }
        let frame = encode();
        frames.push((key, frame.clone()));
        frame
    }

    /// Drops the encoded frames; they are encoded again should a watcher come late.
    pub fn forget_frames(&self) {
        *self.frames.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
    }
}

/// An event as it is handed to one watcher: an object that leaves a selection is deleted as far as that watcher sees.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub change: Change,
    pub event: Arc<Event>,
}

impl Delivery {
    /// What a watcher that selects by `is_selected` is told of `event`, if anything.
    pub fn of(event: &Arc<Event>, is_selected: impl Fn(&Entry) -> bool) -> Option<Self> {
        let was = event.previous.as_deref().is_some_and(&is_selected);
        let is = event.change != Change::Deleted && is_selected(&event.entry);
        let change = match (was, is) {
            (false, false) => return None,
            (false, true) => Change::Added,
            (true, true) => Change::Modified,
            (true, false) => Change::Deleted,
        };
        Some(Self { change, event: event.clone() })
    }

    /// Whether the object only left the selection: it is then shown as it last was inside, at the event's revision.
    pub fn has_left(&self) -> bool {
        self.change == Change::Deleted && self.event.change != Change::Deleted
    }
}
