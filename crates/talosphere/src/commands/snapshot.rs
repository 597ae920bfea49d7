//! `talos etcd snapshot`: a copy of etcd's database in a file, whole or not at all.
//!
//! A snapshot may break off halfway without an error. A whole one has 32 bytes more than a multiple of 512: the SHA-256 of what stands before
//! them. So the bytes are written beside the file that is asked for, looked at, made durable, and only then given its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use talos::client::{ByteStream, ClientIdentity, TalosDialer};

use super::clusters::Machine;
use super::talos::{connect, unreachable};
use crate::cli::EtcdSnapshot;
use crate::problem::{Code, Problem};
use crate::seams::Seams;

/// The database's pages, in bytes.
const PAGE: usize = 512;
/// The length of the digest behind them.
const DIGEST: usize = 32;

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
            Ok(stream) => write(machine, stream, file).await,
            Err(problem) => Err(problem),
        };
        match written {
            Ok(Written { bytes, digest }) => {
                let node = machine.address.as_deref().unwrap_or(&machine.name);
                seams.printer.line(format!("{} holds etcd as node {node} has it: {bytes} bytes, SHA-256 {digest}", file.display()));
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

/// What was written.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    bytes: usize,
    /// Of the pages, in hexadecimal.
    digest: String,
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
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
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

async fn write(machine: &Machine, mut stream: ByteStream, target: &Path) -> Result<Written, Problem> {
    let unwritable =
        |error: io::Error| Problem::new(Code::FileUnwritable, format!("{} cannot be written", target.display())).because(error.to_string());
    let mut beside = Beside::of(target).map_err(unwritable)?;
    let mut check = Check::default();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| unreachable(machine, &error))?;
        check.take(&chunk);
        beside.file.write_all(&chunk).map_err(unwritable)?;
    }
    let written = check.end().map_err(|why| {
        Problem::new(Code::NodeUnreachable, format!("the snapshot of Machine {} is not whole", machine.name))
            .because(why)
            .remedy("run the command again; nothing was kept of this one")
    })?;
    beside.keep(target).map_err(unwritable)?;
    Ok(written)
}

/// Looks at a snapshot as it comes: the digest of all but the last bytes, and those.
#[derive(Default)]
struct Check {
    bytes: usize,
    digest: Sha256,
    last: Vec<u8>,
}

impl Check {
    fn take(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len();
        self.last.extend_from_slice(chunk);
        let before = self.last.len().saturating_sub(DIGEST);
        self.digest.update(self.last.drain(..before).collect::<Vec<u8>>());
    }

    fn end(self) -> Result<Written, String> {
        if self.bytes % PAGE != DIGEST || self.bytes <= DIGEST {
            return Err(format!("it broke off after {} bytes", self.bytes));
        }
        let digest = self.digest.finalize();
        if digest.as_slice() != self.last.as_slice() {
            return Err("its digest is not that of its content".to_owned());
        }
        Ok(Written { bytes: self.bytes, digest: hex::encode(digest) })
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use talos::client::TalosError;

    use super::*;

    fn whole(pages: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..pages * PAGE).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let digest = Sha256::digest(&bytes);
        bytes.extend(digest);
        bytes
    }

    fn machine() -> Machine {
        Machine { name: "cp-1".into(), node: "cp-1".into(), address: Some("10.0.0.1".into()), is_control_plane: true }
    }

    async fn written(pieces: Vec<Result<Vec<u8>, TalosError>>, target: &Path) -> Result<Written, Problem> {
        write(&machine(), Box::pin(stream::iter(pieces)), target).await
    }

    #[tokio::test]
    async fn a_snapshot_is_kept_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("etcd.db");
        for size in [1, 31, 32, 33, 512, 4096] {
            let pieces = whole(3).chunks(size).map(|piece| Ok(piece.to_vec())).collect();
            assert_eq!(written(pieces, &target).await.unwrap().bytes, 3 * PAGE + DIGEST, "{size}");
            assert_eq!(fs::read(&target).unwrap(), whole(3));
            fs::remove_file(&target).unwrap();
        }
        let mut changed = whole(2);
        changed[7] ^= 1;
        let cut = whole(2)[..PAGE].to_vec();
        let cut_at_a_page = whole(2)[..PAGE + DIGEST].to_vec();
        let lost = TalosError::Unreachable { address: "10.0.0.1".into(), reason: "reset".into() };
        for (pieces, words) in [
            (vec![Ok(changed)], "its digest is not"),
            (vec![Ok(cut)], "broke off after 512 bytes"),
            (vec![Ok(cut_at_a_page)], "its digest is not"),
            (vec![], "broke off after 0 bytes"),
            (vec![Ok(Sha256::digest([]).to_vec())], "broke off after 32 bytes"),
            (vec![Ok(whole(1)), Err(lost)], "10.0.0.1"),
        ] {
            let problem = written(pieces, &target).await.unwrap_err().to_string();
            assert!(problem.contains(words), "{problem} lacks {words}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left: {words}");
        }
    }
}
