//! etcd's database file: whose it is and how far it goes, read from the file itself.
//!
//! A snapshot is etcd's database - a file of bbolt's format - with the SHA-256 of it behind; a file that was copied off a node's disk is the
//! database alone. Nothing else says what it is: no name, no header. But the content does: the revision of the last change and the index of
//! the last entry of the log, the members at that time, and the cluster's certificate authority, which Kubernetes publishes in every cluster
//! as the ConfigMap `kube-root-ca.crt`. A file that breaks off, or that is something else, is an error and never half a description.
//!
//! ```text
//!   meta pages -> root bucket -> members: identity of each      meta: consistent_index
//!                             -> key: revision -> key and value of one change, in the order of revisions
//! ```
//!
//! The file is read page by page; nothing of its values is kept or shown but certificates.

use std::collections::BTreeMap;
use std::io;

use sha2::{Digest as _, Sha256};

use crate::client::MemberId;

/// The length of the digest behind a snapshot.
pub const DIGEST: usize = 32;
/// What the length of a database is a multiple of.
const SECTOR: u64 = 512;
const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;
const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const BUCKET: u32 = 0x01;
/// No tree is deeper.
const DEPTH: usize = 32;
/// How much is read at once where all is read.
const PIECE: usize = 1 << 20;
/// Pages that are kept: those at the top of a tree are asked for again and again.
const KEPT: usize = 64;
const AUTHORITIES: &str = "/registry/configmaps/";
const AUTHORITY: &str = "/kube-root-ca.crt";
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it breaks off: {bytes} bytes are no whole snapshot")]
    BreaksOff { bytes: u64 },
    #[error("it was damaged: its SHA-256 is not that of its content")]
    Digest,
    #[error("it is no database of etcd: {0}")]
    NotEtcd(&'static str),
}

/// Bytes that can be read anywhere: a file, or memory.
pub trait Source {
    /// How many there are.
    fn length(&self) -> u64;
    /// Fills the buffer with what begins at `at`.
    ///
    /// # Errors
    /// When there are not so many, or they cannot be read.
    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Source for [u8] {
    fn length(&self) -> u64 {
        u64::try_from(self.len()).unwrap_or(u64::MAX)
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(at).ok();
        let found = start.and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A member at the time of the last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseMember {
    pub id: MemberId,
    pub name: String,
    pub peer_urls: Vec<String>,
}

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// The revision of the last change.
    pub revision: u64,
    /// The last entry of the log that was applied, where the file tells.
    pub index: Option<u64>,
    pub members: Vec<DatabaseMember>,
    /// Certificates of the Kubernetes authority, without their armour; none where no API server has published them.
    pub authorities: Vec<String>,
    /// Whether the digest stands behind it.
    pub has_digest: bool,
    /// The SHA-256 of the database.
    pub digest: [u8; DIGEST],
    pub bytes: u64,
}

impl Database {
    /// Reads a file.
    ///
    /// # Errors
    /// When it is not a whole database of etcd.
    pub fn read(source: &(impl Source + ?Sized)) -> Result<Self, DatabaseError> {
        let bytes = source.length();
        let tail = u64::try_from(DIGEST).unwrap_or(0);
        let has_digest = match bytes % SECTOR {
            0 => false,
            rest if rest == tail => true,
            _ => return Err(DatabaseError::BreaksOff { bytes }),
        };
        let length = if has_digest { bytes - tail } else { bytes };
        if length == 0 {
            return Err(DatabaseError::BreaksOff { bytes });
        }
        let digest = digest(source, length)?;
        if has_digest {
            let mut stored = [0; DIGEST];
            source.read(length, &mut stored).map_err(DatabaseError::Read)?;
            if stored != digest {
                return Err(DatabaseError::Digest);
            }
        }
        let mut file = File::open(source, length)?;
        let buckets = file.buckets()?;
        let keys = buckets.get(b"key".as_slice()).ok_or(DatabaseError::NotEtcd("it has no keys"))?;
        let mut members = Vec::new();
        if let Some(bucket) = buckets.get(b"members".as_slice()) {
            file.walk(bucket, DEPTH, &mut |_, key, value| {
                members.extend(member(key, value));
                Ok(true)
            })?;
        }
        let mut index = None;
        if let Some(bucket) = buckets.get(b"meta".as_slice()) {
            file.walk(bucket, DEPTH, &mut |_, key, value| {
                if key == b"consistent_index" {
                    index = value.try_into().ok().map(u64::from_be_bytes);
                }
                Ok(true)
            })?;
        }
        let revision = file.last_key(keys)?.map_or(Some(0), |key| key.get(..8)?.try_into().ok().map(u64::from_be_bytes));
        let revision = revision.ok_or(DatabaseError::NotEtcd("its keys are no revisions"))?;
        let mut authorities = Vec::new();
        file.walk(keys, DEPTH, &mut |_, _, change| {
            if let Some((name, value)) = key_value(change)
                && name.starts_with(AUTHORITIES.as_bytes())
                && name.ends_with(AUTHORITY.as_bytes())
            {
                authorities = certificates(&String::from_utf8_lossy(value));
            }
            // They hardly ever change: they stand near the beginning.
            Ok(authorities.is_empty())
        })?;
        Ok(Self { revision, index, members, authorities, has_digest, digest, bytes })
    }

    /// Whether it is of the cluster whose Kubernetes authority has these certificates (PEM). None: it does not tell.
    pub fn is_of(&self, authority: &str) -> Option<bool> {
        let ours = certificates(authority);
        (!self.authorities.is_empty()).then(|| self.authorities.iter().any(|theirs| ours.contains(theirs)))
    }
}

fn digest(source: &(impl Source + ?Sized), length: u64) -> Result<[u8; DIGEST], DatabaseError> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < length {
        let size = usize::try_from(length - at).unwrap_or(PIECE).min(PIECE);
        let piece = buffer.get_mut(..size).unwrap_or_default();
        source.read(at, piece).map_err(DatabaseError::Read)?;
        digest.update(&*piece);
        at += u64::try_from(size).unwrap_or(0);
    }
    Ok(digest.finalize().into())
}

/// The certificates in a text, armour and white space taken off; JSON's escapes are white space as well.
fn certificates(text: &str) -> Vec<String> {
    let pieces = text.split(BEGIN).skip(1).filter_map(|rest| rest.split_once(END));
    let plain = |(body, _): (&str, &str)| body.replace("\\n", "").replace("\\r", "").split_whitespace().collect::<String>();
    pieces.map(plain).filter(|body| !body.is_empty()).collect()
}

fn member(key: &[u8], value: &[u8]) -> Option<DatabaseMember> {
    #[derive(serde::Deserialize)]
    struct Stored {
        #[serde(default)]
        name: String,
        #[serde(default, rename = "peerURLs")]
        peer_urls: Vec<String>,
    }
    let id = u64::from_str_radix(std::str::from_utf8(key).ok()?, 16).ok()?;
    let stored: Stored = serde_json::from_slice(value).ok()?;
    Some(DatabaseMember { id: MemberId(id), name: stored.name, peer_urls: stored.peer_urls })
}

/// Name and value of a stored change (`mvccpb.KeyValue`: fields 1 and 5).
fn key_value(mut bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut name, mut value): (Option<&[u8]>, &[u8]) = (None, &[]);
    while !bytes.is_empty() {
        let (tag, rest) = varint(bytes)?;
        let (number, rest) = varint(rest)?;
        bytes = match tag & 7 {
            0 => rest,
            2 => {
                let (content, after) = rest.split_at_checked(usize::try_from(number).ok()?)?;
                match tag >> 3 {
                    1 => name = Some(content),
                    5 => value = content,
                    _ => {}
                }
                after
            }
            _ => return None,
        };
    }
    Some((name?, value))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(index).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

/// Where a bucket's tree begins.
#[derive(Clone, Debug)]
enum Root {
    Page(u64),
    /// A small bucket's only page lies in its parent.
    Inline(Vec<u8>),
}

/// What a page's elements are.
enum Page {
    Branch(Vec<u64>),
    Leaf(Vec<(u32, Vec<u8>, Vec<u8>)>),
}

/// Sees an element: flags, key and value. Whether there is more to be seen.
type Visitor<'v> = dyn FnMut(u32, &[u8], &[u8]) -> Result<bool, DatabaseError> + 'v;

struct File<'a, S: ?Sized> {
    source: &'a S,
    length: u64,
    page_size: u64,
    root: u64,
    /// Pages that may still be looked at: a tree that has more than the file has pages goes in a circle.
    budget: u64,
    kept: BTreeMap<u64, Vec<u8>>,
}

fn broken() -> DatabaseError {
    DatabaseError::NotEtcd("its pages do not hang together")
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn size_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32_at(bytes, at)?).ok()
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl<'a, S: Source + ?Sized> File<'a, S> {
    /// Reads both meta pages; the younger of those that are whole counts.
    fn open(source: &'a S, length: u64) -> Result<Self, DatabaseError> {
        let mut best: Option<(u64, u64, u64)> = None;
        let mut sizes = vec![4096];
        let mut at = 0;
        while at < length {
            let mut page = [0; PAGE_HEADER + 64];
            if source.read(at, &mut page).is_err() {
                break;
            }
            if let Some((size, root, transaction)) = meta(&page) {
                sizes = vec![size];
                best = best.filter(|best| best.2 > transaction).or(Some((size, root, transaction)));
            }
            if at > 0 {
                break;
            }
            // The second one is where the first one says, or where it stands in nearly all files.
            at = sizes.first().copied().unwrap_or(4096);
        }
        let (page_size, root, _) = best.ok_or(DatabaseError::NotEtcd("it does not begin as one"))?;
        if !length.is_multiple_of(page_size) {
            return Err(DatabaseError::BreaksOff { bytes: length });
        }
        Ok(Self { source, length, page_size, root, budget: 2 * (length / page_size) + 64, kept: BTreeMap::new() })
    }

    /// A page with those that belong to it.
    fn page(&mut self, id: u64) -> Result<Vec<u8>, DatabaseError> {
        if let Some(page) = self.kept.get(&id) {
            return Ok(page.clone());
        }
        self.budget = self.budget.checked_sub(1).ok_or_else(broken)?;
        let at = id.checked_mul(self.page_size).filter(|at| *at < self.length).ok_or_else(broken)?;
        let mut header = [0; PAGE_HEADER];
        self.source.read(at, &mut header).map_err(DatabaseError::Read)?;
        let overflow = u64::from(u32_at(&header, 12).unwrap_or(0));
        let size = (overflow + 1).checked_mul(self.page_size).filter(|size| *size <= self.length - at).ok_or_else(broken)?;
        if u64_at(&header, 0) != Some(id) {
            return Err(broken());
        }
        let mut page = vec![0; usize::try_from(size).map_err(|_| broken())?];
        self.source.read(at, &mut page).map_err(DatabaseError::Read)?;
        if u16_at(&page, 8) == Some(BRANCH) && self.kept.len() < KEPT {
            self.kept.insert(id, page.clone());
        }
        Ok(page)
    }

    fn load(&mut self, root: &Root) -> Result<Page, DatabaseError> {
        let page = match root {
            Root::Page(id) => self.page(*id)?,
            Root::Inline(page) => page.clone(),
        };
        parse(&page).ok_or_else(broken)
    }

    /// The top level buckets.
    fn buckets(&mut self) -> Result<BTreeMap<Vec<u8>, Root>, DatabaseError> {
        let mut buckets = BTreeMap::new();
        let root = Root::Page(self.root);
        self.walk(&root, DEPTH, &mut |flags, key, value| {
            if flags & BUCKET != 0 {
                let page = u64_at(value, 0).ok_or_else(broken)?;
                let inline = value.get(16..).unwrap_or_default().to_vec();
                buckets.insert(key.to_vec(), if page == 0 { Root::Inline(inline) } else { Root::Page(page) });
            }
            Ok(true)
        })?;
        Ok(buckets)
    }

    /// Shows the elements of a bucket in order, until enough is seen.
    fn walk(&mut self, root: &Root, depth: usize, visitor: &mut Visitor<'_>) -> Result<bool, DatabaseError> {
        let depth = depth.checked_sub(1).ok_or_else(broken)?;
        match self.load(root)? {
            Page::Branch(children) => {
                for child in children {
                    if !self.walk(&Root::Page(child), depth, visitor)? {
                        return Ok(false);
                    }
                }
            }
            Page::Leaf(elements) => {
                for (flags, key, value) in elements {
                    if !visitor(flags, &key, &value)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// The last key of a bucket.
    fn last_key(&mut self, root: &Root) -> Result<Option<Vec<u8>>, DatabaseError> {
        let mut root = root.clone();
        for _ in 0..DEPTH {
            match self.load(&root)? {
                Page::Branch(children) => root = Root::Page(children.last().copied().ok_or_else(broken)?),
                Page::Leaf(elements) => return Ok(elements.into_iter().next_back().map(|(_, key, _)| key)),
            }
        }
        Err(broken())
    }
}

/// The size of pages, the root bucket's page and the transaction of a whole meta page.
fn meta(page: &[u8]) -> Option<(u64, u64, u64)> {
    let meta = page.get(PAGE_HEADER..PAGE_HEADER + 64)?;
    let is_meta = u16_at(page, 8)? == META && u32_at(meta, 0)? == MAGIC && u32_at(meta, 4)? == VERSION;
    let is_whole = fnv(meta.get(..56)?) == u64_at(meta, 56)?;
    let size = u64::from(u32_at(meta, 8)?);
    let is_usable = size.is_power_of_two() && (512..=65536).contains(&size);
    (is_meta && is_whole && is_usable).then_some(())?;
    Some((size, u64_at(meta, 16)?, u64_at(meta, 48)?))
}

fn parse(page: &[u8]) -> Option<Page> {
    let count = usize::from(u16_at(page, 10)?);
    let element = |index: usize| PAGE_HEADER + ELEMENT * index;
    match u16_at(page, 8)? {
        BRANCH => (0..count).map(|index| u64_at(page, element(index) + 8)).collect::<Option<Vec<u64>>>().map(Page::Branch),
        LEAF => {
            let leaf = |index: usize| {
                let start = element(index);
                let key = start.checked_add(size_at(page, start + 4)?)?;
                let value = key.checked_add(size_at(page, start + 8)?)?;
                let end = value.checked_add(size_at(page, start + 12)?)?;
                Some((u32_at(page, start)?, page.get(key..value)?.to_vec(), page.get(value..end)?.to_vec()))
            };
            (0..count).map(leaf).collect::<Option<Vec<_>>>().map(Page::Leaf)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A snapshot of etcd 3.5.21: three pods, the authority's ConfigMap after the second, and the deletion of the first.
    const REAL: &[u8] = include_bytes!("../tests/data/etcd-3.5.db");
    const AUTHORITY_PEM: &str = "-----BEGIN CERTIFICATE-----\nQUJD\nRA==\n-----END CERTIFICATE-----\n";

    #[test]
    fn a_snapshot_of_the_real_etcd_says_what_it_is() {
        let database = Database::read(REAL).unwrap();
        assert_eq!((database.revision, database.has_digest, database.bytes), (6, true, REAL.len() as u64));
        assert!(database.index.is_some_and(|index| index > 6));
        let members: Vec<_> = database.members.iter().map(|member| (member.name.as_str(), member.peer_urls.clone())).collect();
        assert_eq!(members, [("cp-1", vec!["http://127.0.0.1:23800".to_owned()])]);
        assert_eq!(database.is_of(AUTHORITY_PEM), Some(true), "whatever the width of its lines");
        assert_eq!(database.is_of(&AUTHORITY_PEM.replace("RA==", "RB==")), Some(false));
        // As it is copied off a disk.
        let bare = Database::read(&REAL[..REAL.len() - DIGEST]).unwrap();
        assert_eq!(bare, Database { has_digest: false, bytes: bare.bytes, ..database });
    }

    #[test]
    fn a_tree_of_many_pages_is_read() {
        let packed = include_bytes!("../tests/data/etcd-3.5-branches.db.gz").as_slice();
        let mut file = Vec::new();
        io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut file).unwrap();
        let database = Database::read(file.as_slice()).unwrap();
        assert_eq!((database.revision, database.is_of(AUTHORITY_PEM)), (1503, Some(true)));
    }

    #[test]
    fn what_breaks_off_or_was_changed_is_refused() {
        for length in 0..REAL.len() {
            assert!(Database::read(&REAL[..length]).is_err() || length == REAL.len() - DIGEST, "{length} bytes");
        }
        for at in (0..REAL.len()).step_by(997) {
            let mut changed = REAL.to_vec();
            changed[at] ^= 4;
            assert!(matches!(Database::read(changed.as_slice()), Err(DatabaseError::Digest)), "{at}");
        }
        for (text, words) in [(b"no database".repeat(512), "does not begin"), (vec![0; 4096], "does not begin")] {
            let told = Database::read(text.as_slice()).unwrap_err().to_string();
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn a_file_without_a_digest_whose_pages_are_wrong_ends_in_words() {
        // Nothing says that they are wrong but what they lead to: no panic, no endless walk.
        let bare = &REAL[..REAL.len() - DIGEST];
        for at in 8192..bare.len() {
            let mut changed = bare.to_vec();
            changed[at] ^= 0x11;
            let _ = Database::read(changed.as_slice());
        }
    }
}
