//! The state directory: the embedded API server's store, its keys, and who owns it.
//!
//! ```text
//!   lock               held (flock) by the owner while it lives; the kernel releases it when the process dies
//!   owner.json         where the owner answers: process id, address; meaningful only while the lock is held
//!   stopped            when controllers last ran, written by an owner that ends in order
//!   store.redb         the journal of the API server
//!   installation       the id that marks this installation's VMs
//!   pki/               the API server's authority and the administrator's identity (mode 0600)
//!   clusters/NS/NAME/  kubeconfig and talosconfig of a cluster, written by `up`
//! ```
//!
//! Exactly one process opens the store: the one that holds the lock. Others find its address in `owner.json` and are its clients.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::problem::{Code, Problem};

/// The journal of the API server.
pub const STORE: &str = "store.redb";
/// The id of the installation.
pub const INSTALLATION: &str = "installation";
/// What to do about a state that is not what it was.
pub const RESTORE: &str = "restore the directory from a backup; or, when no machine that is marked with its installation's id is left in vCenter, remove it or use another one with --state DIR";

/// A state directory, existing and private to its user.
#[derive(Clone, Debug)]
pub struct StateDirectory {
    path: PathBuf,
}

/// Who owns the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub process: u32,
    /// `127.0.0.1:port` of its API server.
    pub address: String,
    pub command: String,
    pub since: Timestamp,
}

/// The lock on a directory. Dropping it releases the directory.
#[derive(Debug)]
pub struct Ownership {
    directory: StateDirectory,
    _lock: File,
}

impl StateDirectory {
    /// Opens `path`, making it when absent.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let unusable = |error: &io::Error| {
            let is_file = path.is_file();
            let why = if is_file { "it is a file, not a folder".to_owned() } else { error.to_string() };
            Problem::new(Code::StateUnusable, format!("the state directory {} cannot be used", path.display()))
                .because(why)
                .remedy("give another one with --state DIR or TALOSPHERE_STATE, or make it writable for this user")
        };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).map_err(|error| unusable(&error))?;
        let directory = Self { path: path.to_owned() };
        directory.lock_file().map_err(|error| unusable(&error))?;
        Ok(directory)
    }

    /// The path of something inside.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock_file(&self) -> io::Result<File> {
        OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(self.join("lock"))
    }

    /// Takes the directory if nobody owns it; `None` when somebody does.
    ///
    /// # Errors
    /// When the lock file cannot be opened or locked.
    pub fn try_own(&self) -> Result<Option<Ownership>, Problem> {
        let lock = self.lock_file().map_err(|error| self.unusable(&error))?;
        match lock.try_lock() {
            Ok(()) => {
                // A record left by an owner that was killed would lead others to a dead address.
                match fs::remove_file(self.join("owner.json")) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.unusable(&error)),
                    _ => Ok(Some(Ownership { directory: self.clone(), _lock: lock })),
                }
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(self.unusable(&error)),
        }
    }

    /// Who owns the directory, as far as the record says.
    pub fn owner(&self) -> Option<Owner> {
        serde_json::from_slice(&fs::read(self.join("owner.json")).ok()?).ok()
    }

    /// When controllers last ran: as recorded, else when the store was last written.
    pub fn stopped_since(&self) -> Option<Timestamp> {
        let recorded = fs::read_to_string(self.join("stopped")).ok().and_then(|text| text.trim().parse().ok());
        let written = fs::metadata(self.join(STORE)).and_then(|meta| meta.modified()).ok();
        recorded.or_else(|| written.and_then(|time| Timestamp::try_from(time).ok()))
    }

    /// Whether anything was ever kept here.
    pub fn has_store(&self) -> bool {
        self.join(STORE).exists()
    }

    /// Refuses a directory that was in use and has lost its store: an empty one would begin anew beside the machines that are there.
    ///
    /// # Errors
    /// When it is so, or cannot be told.
    pub fn check(&self) -> Result<(), Problem> {
        let is_empty = match fs::metadata(self.join(STORE)) {
            Ok(metadata) => metadata.len() == 0,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(self.unusable(&error)),
        };
        match self.read_if_there(INSTALLATION)? {
            Some(id) if is_empty => Err(Problem::new(Code::StateUnusable, format!("the store in {} is lost", self.path.display()))
                .because(format!("{STORE} is missing or empty, and the installation {} has worked here before", id.trim()))
                .remedy(RESTORE)),
            _ => Ok(()),
        }
    }

    /// Reads a private file; none when there is no such file.
    ///
    /// # Errors
    /// When it is there and cannot be read: what is only unreadable must not be made anew.
    pub fn read_if_there(&self, name: &str) -> Result<Option<String>, Problem> {
        match self.read(name) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Problem::new(Code::StateUnusable, format!("{} cannot be read", self.join(name).display()))
                .because(error.to_string())
                .remedy(RESTORE)),
        }
    }

    /// Reads a private file.
    pub fn read(&self, name: &str) -> io::Result<String> {
        let mut text = String::new();
        File::open(self.join(name))?.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Writes a private file (mode 0600) so that a reader sees the old or the new content, never a part.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf, Problem> {
        let target = self.join(name);
        write_private(&target, content).map_err(|error| self.unusable(&error))?;
        Ok(target)
    }

    fn unusable(&self, error: &io::Error) -> Problem {
        Problem::new(Code::StateUnusable, format!("the state directory {} cannot be used", self.path.display()))
            .because(error.to_string())
            .remedy("give another one with --state DIR or TALOSPHERE_STATE, or make it writable for this user")
    }
}

/// Writes a file with mode 0600 by renaming a finished one into place; folders are made with mode 0700.
///
/// # Errors
/// As the operating system says.
pub fn write_private(target: &Path, content: &str) -> io::Result<()> {
    if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // A name that nobody else has taken, or prepared: what lies there already is neither followed nor kept.
    let mut name = target.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = PathBuf::from(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, target));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

impl Ownership {
    /// The directory that is owned.
    pub fn directory(&self) -> &StateDirectory {
        &self.directory
    }

    /// Tells others where the owner answers.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn announce(&self, owner: &Owner) -> Result<(), Problem> {
        let text = serde_json::to_string(owner).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        self.directory.write("owner.json", &text).map(drop)
    }

    /// Records that controllers stop now, and lets the directory go.
    pub fn release(self, now: Timestamp) {
        let _ = self.directory.write("stopped", &now.to_string());
        let _ = fs::remove_file(self.directory.join("owner.json"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    #[test]
    fn one_process_owns_and_the_next_follows() {
        let folder = tempfile::tempdir().unwrap();
        let directory = StateDirectory::open(&folder.path().join("a/b")).unwrap();
        let first = directory.try_own().unwrap().unwrap();
        assert!(directory.try_own().unwrap().is_none());
        let owner = Owner { process: 7, address: "127.0.0.1:1".to_owned(), command: "up".to_owned(), since: now() };
        first.announce(&owner).unwrap();
        assert_eq!(directory.owner(), Some(owner));
        first.release(now());
        assert_eq!((directory.owner(), directory.stopped_since()), (None, Some(now())));
        assert!(directory.try_own().unwrap().is_some());
    }

    #[test]
    fn the_record_of_a_killed_owner_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let directory = StateDirectory::open(folder.path()).unwrap();
        let killed = directory.try_own().unwrap().unwrap();
        let owner = Owner { process: 7, address: "127.0.0.1:1".to_owned(), command: "up".to_owned(), since: now() };
        killed.announce(&owner).unwrap();
        drop(killed); // the kernel drops the lock; the record stays
        let _next = directory.try_own().unwrap().unwrap();
        assert_eq!(directory.owner(), None);
    }

    #[test]
    fn a_lost_store_is_not_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let directory = StateDirectory::open(folder.path()).unwrap();
        directory.check().unwrap();
        directory.write(STORE, "").unwrap();
        directory.check().unwrap();
        directory.write(INSTALLATION, "id-1").unwrap();
        for spoil in [false, true] {
            if spoil {
                fs::remove_file(directory.join(STORE)).unwrap();
            }
            let problem = directory.check().unwrap_err();
            assert!(problem.code == Code::StateUnusable && problem.to_string().contains("id-1"), "{problem}");
        }
        directory.write(STORE, "something").unwrap();
        directory.check().unwrap();
        fs::write(directory.join(INSTALLATION), [0xff, 0xfe]).unwrap();
        assert!(directory.check().unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn a_prepared_file_is_not_written_into() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (target, victim) = (folder.path().join("k"), folder.path().join("victim"));
        fs::write(&victim, "old").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join(format!("k.{}.new", std::process::id()))).unwrap();
        write_private(&target, "key").unwrap();
        assert_eq!((fs::read_to_string(&victim).unwrap().as_str(), fs::read_to_string(&target).unwrap().as_str()), ("old", "key"));
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn files_are_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let directory = StateDirectory::open(&folder.path().join("s")).unwrap();
        let path = directory.write("clusters/a/b/kubeconfig", "x").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(folder.path().join("s")).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
