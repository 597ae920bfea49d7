//! `talos etcd snapshot`: a copy of etcd's database in a file, whole or not at all.
//!
//! A snapshot may break off halfway without an error. A whole one has the SHA-256 of what stands before it at its end, and is a database that
//! can be read. So the bytes are written beside the file that is asked for, looked at, made durable, and only then given its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use runtime::reconcile::explain;
use talos::client::{ByteStream, ClientIdentity, TalosDialer};
use talos::database::{Database, DatabaseError, Source};

use super::clusters::Machine;
use super::talos::{connect, unreachable};
use crate::cli::EtcdSnapshot;
use crate::problem::{Code, Problem};
use crate::seams::Seams;

/// Runs the command on the first of the machines whose etcd gives a whole snapshot.
///
/// # Errors
/// When the file is there or cannot be written, or no machine gives a snapshot.
pub async fn run(
    wanted: &EtcdSnapshot,
    machines: &[Machine],
    dialer: &dyn TalosDialer,
    identity: &ClientIdentity,
    seams: &Seams,
) -> Result<(), Problem> {
    let file = &wanted.file;
    if !wanted.force && file.exists() {
        return Err(
            Problem::new(Code::FileExists, format!("{} is there already", file.display())).remedy("name another file, or add --force")
        );
    }
    let mut problems = Vec::new();
    for machine in machines {
        let stream =
            async { connect(machine, dialer, identity).await?.etcd_snapshot().await.map_err(|error| unreachable(machine, &error)) };
        let written = match stream.await {
            Ok(stream) => write(machine, stream, file, true).await,
            Err(problem) => Err(problem),
        };
        match written {
            Ok(Database { revision, bytes, digest, .. }) => {
                let node = machine.address.as_deref().unwrap_or(&machine.name);
                let digest = hex::encode(digest);
                seams.printer.line(format!(
                    "{} holds etcd as node {node} has it, at revision {revision}: {bytes} bytes, SHA-256 {digest}",
                    file.display()
                ));
                seams.printer.line("it holds all of the cluster's Secrets: keep it where only you can read it");
                return Ok(());
            }
            // Another node's snapshot fails in the same way where the file cannot be written.
            Err(problem) if problem.code == Code::FileUnwritable => return Err(problem),
            Err(problem) => problems.push(problem),
        }
    }
    let mut problems = problems.into_iter();
    let first = problems.next().unwrap_or_else(|| Problem::new(Code::NodeUnreachable, "there is no control plane to take a snapshot of"));
    Err(problems.fold(first, |first, other| first.seen(other.what)))
}

/// A file that is looked at where it lies.
struct OnDisk(File, u64);

impl Source for OnDisk {
    fn length(&self) -> u64 {
        self.1
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, at)
    }
}

/// What a file with a snapshot says of itself.
///
/// # Errors
/// When it cannot be read, or is no whole database of etcd.
pub fn inspect(file: &Path) -> Result<Database, DatabaseError> {
    let opened = File::open(file).map_err(DatabaseError::Read)?;
    let length = opened.metadata().map_err(DatabaseError::Read)?.len();
    Database::read(&OnDisk(opened, length))
}

/// A file that is removed again unless it is kept.
struct Beside {
    path: PathBuf,
    file: File,
}

impl Beside {
    fn of(target: &Path) -> io::Result<Self> {
        let mut name = target.as_os_str().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = PathBuf::from(name);
        // What lies there already is neither followed nor kept.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(&path)?;
        Ok(Self { path, file })
    }

    fn keep(self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, target)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes what a machine sends into a file, whole or not at all. A snapshot has its digest behind it; what is copied off a disk has none.
///
/// # Errors
/// When the machine does not send all of it, or the file cannot be written.
pub async fn write(machine: &Machine, mut stream: ByteStream, target: &Path, is_snapshot: bool) -> Result<Database, Problem> {
    let unwritable =
        |error: io::Error| Problem::new(Code::FileUnwritable, format!("{} cannot be written", target.display())).because(error.to_string());
    let mut beside = Beside::of(target).map_err(unwritable)?;
    let mut length = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| unreachable(machine, &error))?;
        length += u64::try_from(chunk.len()).unwrap_or(0);
        beside.file.write_all(&chunk).map_err(unwritable)?;
    }
    let look = beside.file.try_clone().map_err(unwritable)?;
    let read = Database::read(&OnDisk(look, length)).map_err(|error| explain(&error));
    let lacks_digest = |database: &Database| is_snapshot && !database.has_digest;
    let whole = read.and_then(|database| {
        if lacks_digest(&database) { Err(format!("it breaks off after {length} bytes: its SHA-256 is not there")) } else { Ok(database) }
    });
    let database = whole.map_err(|why| {
        Problem::new(Code::NodeUnreachable, format!("the snapshot of Machine {} is not whole", machine.name))
            .because(why)
            .remedy("run the command again; nothing was kept of this one")
    })?;
    beside.keep(target).map_err(unwritable)?;
    Ok(database)
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use talos::client::TalosError;

    use super::*;

    /// A snapshot of a real etcd.
    fn whole() -> Vec<u8> {
        fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../talos/tests/data/etcd-3.5.db")).unwrap()
    }

    fn machine() -> Machine {
        Machine { name: "cp-1".into(), node: "cp-1".into(), address: Some("10.0.0.1".into()), is_control_plane: true }
    }

    async fn written(pieces: Vec<Result<Vec<u8>, TalosError>>, target: &Path) -> Result<Database, Problem> {
        write(&machine(), Box::pin(stream::iter(pieces)), target, true).await
    }

    #[tokio::test]
    async fn a_snapshot_is_kept_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("etcd.db");
        for size in [31, 512, 4096, 1 << 20] {
            let pieces = whole().chunks(size).map(|piece| Ok(piece.to_vec())).collect();
            assert_eq!(written(pieces, &target).await.unwrap().revision, 6, "{size}");
            assert_eq!(fs::read(&target).unwrap(), whole());
            fs::remove_file(&target).unwrap();
        }
        let mut changed = whole();
        changed[5000] ^= 1;
        let without_digest = whole()[..whole().len() - 32].to_vec();
        let cut_at_a_page = whole()[..8192 + 32].to_vec();
        let lost = TalosError::Unreachable { address: "10.0.0.1".into(), reason: "reset".into() };
        for (pieces, words) in [
            (vec![Ok(changed)], "its SHA-256 is not that of its content"),
            (vec![Ok(without_digest)], "its SHA-256 is not there"),
            (vec![Ok(whole()[..700].to_vec())], "it breaks off: 700 bytes"),
            (vec![Ok(cut_at_a_page)], "its SHA-256 is not that of its content"),
            (vec![], "it breaks off: 0 bytes"),
            (vec![Ok(vec![0; 32])], "it breaks off: 32 bytes"),
            (vec![Ok(whole()), Err(lost)], "10.0.0.1"),
        ] {
            let problem = written(pieces, &target).await.unwrap_err().to_string();
            assert!(problem.contains(words), "{problem} lacks {words}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left: {words}");
        }
    }
}
