//! A journal in memory, for simulated runs: no thread, no file, and the crashes that a test asks for.
//!
//! A clone shares the content: opening a server on it models a restart of the machine. The clone that was loaded last is the only one that
//! may append. The most recent batches are kept apart from the rest, so that a test can tear or lose the tail as a power cut would.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Contents, Journal, JournalError, Record};

/// How many batches stay apart from the folded content.
const TAIL: usize = 64;

/// What goes wrong with one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written.
    Before,
    /// The first record of the batch is written, the rest is not: found on loading and discarded.
    Torn,
    /// All is written, but the writer is not told.
    After,
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct MemoryJournal {
    shared: Arc<Mutex<Shared>>,
    holder: u64,
}

#[derive(Debug, Default)]
struct Shared {
    cluster_id: Option<String>,
    folded: BTreeMap<String, Bytes>,
    folded_revision: u64,
    tail: VecDeque<Batch>,
    holder: u64,
    appends: u64,
    faults: BTreeMap<u64, Fault>,
}

#[derive(Clone, Debug)]
struct Batch {
    records: Vec<Record>,
    is_whole: bool,
}

impl MemoryJournal {
    /// A new, empty journal.
    pub fn new() -> Self {
        Self::default()
    }

    /// A journal that holds `contents`, as after a restore from a copy.
    pub fn holding(contents: Contents) -> Self {
        let shared = Shared {
            cluster_id: contents.cluster_id,
            folded: contents.values.into_iter().collect(),
            folded_revision: contents.revision,
            ..Shared::default()
        };
        Self { shared: Arc::new(Mutex::new(shared)), holder: 0 }
    }

    /// A copy of what it holds, whoever may append.
    pub fn contents(&self) -> Contents {
        self.lock().contents()
    }

    /// Lets the append with this number (from 1, counted over the journal's life) go wrong. All later ones of the same holder fail as well.
    pub fn fail_at(&self, append: u64, fault: Fault) {
        self.lock().faults.insert(append, fault);
    }

    /// How many appends were asked for.
    pub fn appends(&self) -> u64 {
        self.lock().appends
    }

    /// Forgets the last `batches` batches, as a disk does that confirmed what it had not written. At most 64.
    pub fn lose_tail(&self, batches: usize) {
        let mut shared = self.lock();
        let kept = shared.tail.len().saturating_sub(batches);
        shared.tail.truncate(kept);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn contents(&self) -> Contents {
        let mut values = self.folded.clone();
        let mut revision = self.folded_revision;
        for record in self.tail.iter().take_while(|batch| batch.is_whole).flat_map(|batch| &batch.records) {
            revision = revision.max(record.revision);
            match &record.value {
                Some(value) => values.insert(record.key.clone(), value.clone()),
                None => values.remove(&record.key),
            };
        }
        Contents { cluster_id: self.cluster_id.clone(), revision, values: values.into_iter().collect() }
    }

    fn push(&mut self, batch: Batch) {
        self.tail.push_back(batch);
        while self.tail.len() > TAIL {
            let Some(oldest) = self.tail.pop_front() else { break };
            self.fold(oldest);
        }
    }

    fn fold(&mut self, batch: Batch) {
        if !batch.is_whole {
            return;
        }
        for record in batch.records {
            self.folded_revision = self.folded_revision.max(record.revision);
            match record.value {
                Some(value) => self.folded.insert(record.key, value),
                None => self.folded.remove(&record.key),
            };
        }
    }
}

impl Journal for MemoryJournal {
    fn load(&mut self) -> Result<Contents, JournalError> {
        let holder = {
            let mut shared = self.lock();
            shared.holder += 1;
            // Nothing behind a torn batch was ever confirmed.
            if let Some(torn) = shared.tail.iter().position(|batch| !batch.is_whole) {
                shared.tail.truncate(torn);
            }
            shared.holder
        };
        self.holder = holder;
        Ok(self.contents())
    }

    fn name(&mut self, cluster_id: &str) -> Result<(), JournalError> {
        self.lock().cluster_id = Some(cluster_id.to_owned());
        Ok(())
    }

    fn append(&self, batch: &[Record]) -> Result<(), JournalError> {
        let mut shared = self.lock();
        if shared.holder != self.holder {
            return Err(JournalError::Replaced);
        }
        shared.appends += 1;
        let number = shared.appends;
        let records = batch.to_vec();
        match shared.faults.get(&number).copied() {
            None => {
                shared.push(Batch { records, is_whole: true });
                return Ok(());
            }
            Some(Fault::Before) => {}
            Some(Fault::Torn) => shared.push(Batch { records: records.into_iter().take(1).collect(), is_whole: false }),
            Some(Fault::After) => shared.push(Batch { records, is_whole: true }),
        }
        // The holder is gone as far as the journal is concerned.
        shared.holder += 1;
        Err(JournalError::Injected { reason: "as the test asked" })
    }

    fn is_inline(&self) -> bool {
        true
    }
}
