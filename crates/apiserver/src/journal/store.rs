//! The journal in a file: redb, one transaction a batch, flushed before it counts as durable.
//!
//! Tables: `meta` (format, cluster id, revision) and `live` (key to bytes). No history is kept on disk: after a restart a watch that
//! resumes from an older revision is told that it expired, which every client handles by listing again.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::path::Path;

use bytes::Bytes;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Contents, FORMAT, Journal, JournalError, Record};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const LIVE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("live");

/// Keeps records in a redb file.
pub struct RedbJournal {
    database: Database,
    path: String,
    /// Device and number of the file that was opened.
    identity: (u64, u64),
}

/// Calls into the database, which panics at some damages instead of telling them.
fn guarded<T>(action: impl FnOnce() -> Result<T, JournalError>) -> Result<T, JournalError> {
    IS_GUARDED.set(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(action));
    IS_GUARDED.set(false);
    result.unwrap_or_else(|_| Err(JournalError::Damaged { reason: "the file's pages contradict each other".to_owned() }))
}

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is caught and told as an error: a panic hook need not show it.
pub fn is_guarded() -> bool {
    IS_GUARDED.get()
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl std::fmt::Debug for RedbJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbJournal").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RedbJournal {
    /// Opens the file, or makes it. The file is locked against other processes; it is repaired when the last holder was killed.
    ///
    /// # Errors
    /// When the file is held by another process, or cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, JournalError> {
        let shown = path.as_ref().display().to_string();
        let file = |error| JournalError::File { path: shown.clone(), action: "opened", source: Box::new(error) };
        create_private(path.as_ref()).map_err(file)?;
        let identity = identity(path.as_ref()).map_err(file)?;
        let database = guarded(|| {
            Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => JournalError::Held { path: shown.clone() },
                other => JournalError::File { path: shown.clone(), action: "opened", source: Box::new(other) },
            })
        })?;
        Ok(Self { database, path: shown, identity })
    }

    fn failed<E: Into<redb::Error>>(&self, action: &'static str) -> impl Fn(E) -> JournalError + '_ {
        move |error| JournalError::File { path: self.path.clone(), action, source: Box::new(error.into()) }
    }

    fn write_meta(&self, entries: &[(&str, &[u8])]) -> Result<(), JournalError> {
        let transaction = self.database.begin_write().map_err(self.failed("written"))?;
        {
            let mut meta = transaction.open_table(META).map_err(self.failed("written"))?;
            for (key, value) in entries {
                meta.insert(*key, *value).map_err(self.failed("written"))?;
            }
            transaction.open_table(LIVE).map_err(self.failed("written"))?;
        }
        transaction.commit().map_err(self.failed("written"))
    }
}

/// Makes the file if it is missing: it holds secrets, so nobody else may read it.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// All is read once and then served from memory: the database's own cache would only hold a second copy.
const CACHE_BYTES: usize = 4 << 20;

impl RedbJournal {
    fn read(&self) -> Result<Contents, JournalError> {
        let transaction = self.database.begin_read().map_err(self.failed("read"))?;
        let meta = match transaction.open_table(META) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Contents::default()),
            Err(other) => return Err(self.failed("read")(other)),
        };
        let get = |key: &str| -> Result<Option<Vec<u8>>, JournalError> {
            Ok(meta.get(key).map_err(self.failed("read"))?.map(|value| value.value().to_vec()))
        };
        let found = number(get("format")?, "format")?;
        let format = u32::try_from(found).unwrap_or(u32::MAX);
        if format > FORMAT {
            return Err(JournalError::Format { found: format, supported: FORMAT });
        }
        let cluster_id = get("cluster-id")?
            .map(|bytes| String::from_utf8(bytes).map_err(|_| JournalError::Damaged { reason: "the cluster id is not text".to_owned() }))
            .transpose()?;
        let revision = number(get("revision")?, "revision")?;
        let live = transaction.open_table(LIVE).map_err(self.failed("read"))?;
        let mut values = Vec::new();
        for row in live.iter().map_err(self.failed("read"))? {
            let (key, value) = row.map_err(self.failed("read"))?;
            values.push((key.value().to_owned(), Bytes::copy_from_slice(value.value())));
        }
        Ok(Contents { cluster_id, revision, values })
    }

    fn write(&self, batch: &[Record]) -> Result<(), JournalError> {
        let Some(last) = batch.last() else { return Ok(()) };
        if identity(Path::new(&self.path)).ok() != Some(self.identity) {
            return Err(JournalError::Removed { path: self.path.clone() });
        }
        let transaction = self.database.begin_write().map_err(self.failed("written"))?;
        {
            let mut live = transaction.open_table(LIVE).map_err(self.failed("written"))?;
            for record in batch {
                match &record.value {
                    Some(value) => drop(live.insert(record.key.as_str(), value.as_ref()).map_err(self.failed("written"))?),
                    None => drop(live.remove(record.key.as_str()).map_err(self.failed("written"))?),
                }
            }
            let mut meta = transaction.open_table(META).map_err(self.failed("written"))?;
            meta.insert("revision", last.revision.to_be_bytes().as_slice()).map_err(self.failed("written"))?;
        }
        transaction.commit().map_err(self.failed("written"))
    }
}

impl Journal for RedbJournal {
    fn load(&mut self) -> Result<Contents, JournalError> {
        guarded(|| self.read())
    }

    fn name(&mut self, cluster_id: &str) -> Result<(), JournalError> {
        self.write_meta(&[
            ("format", &u64::from(FORMAT).to_be_bytes()),
            ("cluster-id", cluster_id.as_bytes()),
            ("revision", &0_u64.to_be_bytes()),
        ])
    }

    fn append(&self, batch: &[Record]) -> Result<(), JournalError> {
        guarded(|| self.write(batch))
    }

    fn is_inline(&self) -> bool {
        false
    }
}

fn number(bytes: Option<Vec<u8>>, what: &str) -> Result<u64, JournalError> {
    let bytes: [u8; 8] = bytes
        .unwrap_or_default()
        .try_into()
        .map_err(|_| JournalError::Damaged { reason: format!("the {what} is missing or not a number") })?;
    Ok(u64::from_be_bytes(bytes))
}
