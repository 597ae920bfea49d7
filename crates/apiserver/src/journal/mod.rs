//! The journal: where acknowledged writes survive the process.
//!
//! Memory is the read path; a journal is only read once, when a server opens. Its contract: when [`Journal::append`] returns `Ok`, every
//! record of the batch is durable, and after a crash either all records of a batch are found or none. It knows nothing of Kubernetes: a
//! record is a key, a revision and bytes. It must never reorder batches, and never accept a batch from a holder that another one has
//! replaced (a server that is thought dead must not write into the state of its successor).

mod frozen;
mod memory;
mod store;

use bytes::Bytes;
use thiserror::Error;

pub use frozen::Frozen;
pub use memory::{Fault, MemoryJournal};
pub use store::{RedbJournal, is_guarded};

/// The layout of what is kept. A journal with a newer number is refused; an older one is migrated forward.
pub const FORMAT: u32 = 1;

/// Why a journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The file cannot be opened, read or written.
    #[error("the state file {path} cannot be {action}")]
    File {
        path: String,
        action: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has the file open.
    #[error("the state file {path} is in use by another process; stop that process or talk to it instead")]
    Held { path: String },
    /// Written by a newer version of the software.
    #[error("the state has format {found}, this version reads up to {supported}; use the newer version that wrote it")]
    Format { found: u32, supported: u32 },
    /// The content makes no sense.
    #[error("the state is damaged: {reason}")]
    Damaged { reason: String },
    /// The file is no longer where it was: what is written into it would be lost.
    #[error("the state file {path} was removed or replaced while it was in use")]
    Removed { path: String },
    /// Another holder took over.
    #[error("the state has been taken over by another server")]
    Replaced,
    /// A fault that a test asked for.
    #[error("the write failed: {reason}")]
    Injected { reason: &'static str },
}

/// One change: `value` of `key` at `revision`, or its removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub revision: u64,
    pub key: String,
    /// Absent: the key is removed.
    pub value: Option<Bytes>,
}

/// What a journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Absent: the journal is new.
    pub cluster_id: Option<String>,
    /// The revision of the last durable record.
    pub revision: u64,
    /// In ascending order of keys.
    pub values: Vec<(String, Bytes)>,
}

/// Keeps records. See the module's text for the contract.
pub trait Journal: std::fmt::Debug + Send + Sync {
    /// Takes the journal over and reads all of it.
    ///
    /// # Errors
    /// When it cannot be read, is damaged or newer than this software.
    fn load(&mut self) -> Result<Contents, JournalError>;

    /// Names a new journal; called once in its life, before the first record.
    ///
    /// # Errors
    /// When it cannot be written.
    fn name(&mut self, cluster_id: &str) -> Result<(), JournalError>;

    /// Makes a batch durable, wholly or not at all.
    ///
    /// # Errors
    /// When it may not be durable. The server answers no further write after that.
    fn append(&self, batch: &[Record]) -> Result<(), JournalError>;

    /// Whether [`Journal::append`] returns at once, so that it may be called while a request is decided. Others are called from a thread
    /// that may block, one batch at a time.
    fn is_inline(&self) -> bool;
}
