//! etcd's database file, as the simulated machines hand it out: a file of bbolt's format with etcd's buckets in it, which etcd's own tools read.
//!
//! ```text
//!   0, 1 meta   2 free list   3 buckets   4 cluster   5 members   6 meta   7 key: one leaf, or a branch over leaves that follow
//! ```
//!
//! Objects are kept under `/registry/` and the key of the API server's journal, one revision each. Beside them lies what a controller manager
//! publishes in every cluster and what tells whose data this is: the cluster's certificate authority. Only files of this layout are read
//! back; anything else is refused, as etcd refuses what it cannot open. The client has a reader of its own and shares nothing with this one.

use std::collections::BTreeMap;

use apiserver::Contents;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::etcd::{Member, MemberId};

/// The size of a page, and what its header takes.
const PAGE: usize = 4096;
const HEADER: usize = 16;
/// A leaf's and a branch's element, without key and value.
const ELEMENT: usize = 16;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREE: u16 = 0x10;
/// What marks an element that is a bucket.
const BUCKET: u32 = 0x01;
const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;
/// The root page of the bucket of keys.
const KEYS: u64 = 7;
/// The length of the digest behind a snapshot.
const DIGEST: usize = 32;
const REGISTRY: &str = "/registry/";
/// Where the authority lies.
const AUTHORITY: &str = "/registry/configmaps/kube-system/kube-root-ca.crt";

/// What a member's data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// The last entry that was applied.
    pub index: u64,
    pub term: u64,
    pub members: Vec<(MemberId, String, String)>,
    /// The certificate of the cluster's Kubernetes authority, as PEM.
    pub authority: String,
    pub contents: Contents,
}

/// A member as the file has it.
pub fn described(member: &Member) -> (MemberId, String, String) {
    (member.id, member.name.clone(), member.address.clone())
}

/// Why a file is not restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("snapshot missing hash but --skip-hash-check=false")]
    NoDigest,
    #[error("expected sha256 does not match the snapshot file")]
    OtherDigest,
    #[error("invalid database")]
    Invalid,
}

/// The file as it lies on the disk.
pub fn write(data: &Data) -> Vec<u8> {
    let mut file = File::default();
    let keys = keys(data);
    let (count, pages) = leaves(&keys);
    let root = if count == 1 { pages } else { branch(&keys, &pages) };
    let members: BTreeMap<Vec<u8>, Vec<u8>> = data
        .members
        .iter()
        .map(|(id, name, address)| {
            let host = if address.contains(':') { format!("[{address}]") } else { address.clone() };
            let value = serde_json::json!({
                "id": id.0, "peerURLs": [format!("https://{host}:2380")], "name": name, "clientURLs": [format!("https://{host}:2379")],
            });
            (format!("{:x}", id.0).into_bytes(), value.to_string().into_bytes())
        })
        .collect();
    let meta = BTreeMap::from([
        (b"consistent_index".to_vec(), data.index.to_be_bytes().to_vec()),
        (b"term".to_vec(), data.term.to_be_bytes().to_vec()),
    ]);
    let cluster = BTreeMap::from([(b"clusterVersion".to_vec(), b"3.5.0".to_vec())]);
    let bucket = |root: u64| [root.to_le_bytes(), 0u64.to_le_bytes()].concat();
    let buckets = [("cluster", 4u64), ("key", KEYS), ("members", 5), ("meta", 6)];
    let roots: Vec<(u32, Vec<u8>, Vec<u8>)> =
        buckets.iter().map(|(name, root)| (BUCKET, name.as_bytes().to_vec(), bucket(*root))).collect();
    let plain = |map: BTreeMap<Vec<u8>, Vec<u8>>| map.into_iter().map(|(key, value)| (0, key, value)).collect::<Vec<_>>();
    file.put(FREE, 0, &[]);
    file.put_leaf(&roots);
    file.put_leaf(&plain(cluster));
    file.put_leaf(&plain(members));
    file.put_leaf(&plain(meta));
    file.pages.extend(root);
    let high = 2 + u64::try_from(file.pages.len() / PAGE).unwrap_or(0);
    [meta_page(0, high), meta_page(1, high), file.pages].concat()
}

/// A snapshot: the file, and its digest behind it.
pub fn snapshot(data: &Data) -> Vec<u8> {
    let mut bytes = write(data);
    let digest = Sha256::digest(&bytes);
    bytes.extend(digest);
    bytes
}

/// Reads a file back that was written here. Members of the cluster it was taken of are left out, as a restore does.
///
/// # Errors
/// As etcd refuses a file.
pub fn restore(bytes: &[u8], skips_digest: bool) -> Result<Contents, Refusal> {
    let has_digest = bytes.len() % 512 == DIGEST;
    let body = if has_digest { bytes.get(..bytes.len() - DIGEST).unwrap_or_default() } else { bytes };
    if !skips_digest {
        if !has_digest {
            return Err(Refusal::NoDigest);
        }
        if Sha256::digest(body).as_slice() != bytes.get(body.len()..).unwrap_or_default() {
            return Err(Refusal::OtherDigest);
        }
    }
    let magic = body.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    if magic != Some(MAGIC) {
        return Err(Refusal::Invalid);
    }
    let mut contents = Contents::default();
    let mut at = usize::try_from(KEYS).unwrap_or(0) * PAGE;
    while at < body.len() {
        let page = body.get(at..).filter(|page| page.len() >= PAGE).ok_or(Refusal::Invalid)?;
        let (flags, count, overflow) = header(page).ok_or(Refusal::Invalid)?;
        if flags == LEAF {
            for number in 0..count {
                let (key, value) = element(page, number).ok_or(Refusal::Invalid)?;
                let revision = key.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes).ok_or(Refusal::Invalid)?;
                contents.revision = contents.revision.max(revision);
                let (name, value) = key_value(value).ok_or(Refusal::Invalid)?;
                let name = std::str::from_utf8(name).map_err(|_| Refusal::Invalid)?;
                if let Some(name) = name.strip_prefix(REGISTRY).filter(|_| name != AUTHORITY) {
                    contents.values.push((name.to_owned(), Bytes::copy_from_slice(value)));
                }
            }
        }
        at += PAGE * (1 + overflow);
    }
    contents.values.sort();
    Ok(contents)
}

/// Keys and values of the bucket of keys, by revision. The last one has the last revision.
fn keys(data: &Data) -> Vec<(Vec<u8>, Vec<u8>)> {
    let authority = serde_json::json!({
        "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "kube-root-ca.crt", "namespace": "kube-system"},
        "data": {"ca.crt": data.authority},
    });
    let own = [(AUTHORITY.to_owned(), Bytes::from(authority.to_string()))];
    let objects = data.contents.values.iter().map(|(key, value)| (format!("{REGISTRY}{key}"), value.clone()));
    let all: Vec<(String, Bytes)> = own.into_iter().chain(objects).collect();
    let count = u64::try_from(all.len()).unwrap_or(0);
    let first = (data.contents.revision + 1).saturating_sub(count).max(1);
    all.into_iter()
        .zip(first..)
        .map(|((name, value), revision)| {
            let mut key = revision.to_be_bytes().to_vec();
            key.push(b'_');
            key.extend(0u64.to_be_bytes());
            let mut wire = field(1, name.as_bytes());
            for (number, value) in [(2u8, revision), (3, revision), (4, 1)] {
                wire.push(number << 3);
                wire.extend(varint(value));
            }
            wire.extend(field(5, &value));
            (key, wire)
        })
        .collect()
}

/// Pages as they follow one another.
#[derive(Default)]
struct File {
    pages: Vec<u8>,
}

impl File {
    fn put(&mut self, flags: u16, count: u16, body: &[u8]) {
        let id = 2 + u64::try_from(self.pages.len() / PAGE).unwrap_or(0);
        self.pages.extend(page(id, flags, count, body));
    }

    fn put_leaf(&mut self, elements: &[(u32, Vec<u8>, Vec<u8>)]) {
        let count = u16::try_from(elements.len()).unwrap_or(u16::MAX);
        self.put(LEAF, count, &leaf_body(elements));
    }
}

fn page(id: u64, flags: u16, count: u16, body: &[u8]) -> Vec<u8> {
    let pages = (HEADER + body.len()).div_ceil(PAGE);
    let overflow = u32::try_from(pages - 1).unwrap_or(0);
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend(flags.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(overflow.to_le_bytes());
    bytes.extend(body);
    bytes.resize(pages * PAGE, 0);
    bytes
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn leaf_body(elements: &[(u32, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let (mut table, mut content) = (Vec::new(), Vec::new());
    for (index, (flags, key, value)) in elements.iter().enumerate() {
        let from_here = ELEMENT * (elements.len() - index) + content.len();
        for part in [*flags, number(from_here), number(key.len()), number(value.len())] {
            table.extend(part.to_le_bytes());
        }
        content.extend(key);
        content.extend(value);
    }
    [table, content].concat()
}

/// The leaves of the bucket of keys, as pages that begin where the bucket's root is, and how many there are.
fn leaves(keys: &[(Vec<u8>, Vec<u8>)]) -> (usize, Vec<u8>) {
    let groups = groups(keys);
    // With a branch over them they begin behind it.
    let behind = if groups.len() > 1 { branch_pages(groups.len()) } else { 0 };
    let (mut pages, mut id) = (Vec::new(), KEYS + u64::try_from(behind).unwrap_or(0));
    for group in &groups {
        let elements: Vec<(u32, Vec<u8>, Vec<u8>)> = group.iter().map(|(key, value)| (0, key.clone(), value.clone())).collect();
        let count = u16::try_from(group.len()).unwrap_or(u16::MAX);
        let written = page(id, LEAF, count, &leaf_body(&elements));
        id += u64::try_from(written.len() / PAGE).unwrap_or(0);
        pages.extend(written);
    }
    (groups.len(), pages)
}

/// As many keys to a leaf as one page takes; one that is larger has a leaf of its own.
fn groups(keys: &[(Vec<u8>, Vec<u8>)]) -> Vec<&[(Vec<u8>, Vec<u8>)]> {
    let mut groups = Vec::new();
    let mut rest = keys;
    while !rest.is_empty() {
        let mut size = HEADER;
        let fits = rest.iter().take_while(|(key, value)| {
            size += ELEMENT + key.len() + value.len();
            size <= PAGE
        });
        let (group, after) = rest.split_at(fits.count().max(1));
        groups.push(group);
        rest = after;
    }
    groups
}

fn branch_pages(children: usize) -> usize {
    // Keys of the bucket are 17 bytes long.
    (HEADER + children * (ELEMENT + 17)).div_ceil(PAGE)
}

/// A branch over leaves, and the leaves.
fn branch(keys: &[(Vec<u8>, Vec<u8>)], leaves: &[u8]) -> Vec<u8> {
    let groups = groups(keys);
    let mut id = KEYS + u64::try_from(branch_pages(groups.len())).unwrap_or(0);
    let (mut table, mut content, mut at) = (Vec::new(), Vec::new(), 0);
    for (index, group) in groups.iter().enumerate() {
        let key = group.first().map(|(key, _)| key.as_slice()).unwrap_or_default();
        let from_here = ELEMENT * (groups.len() - index) + content.len();
        table.extend(number(from_here).to_le_bytes());
        table.extend(number(key.len()).to_le_bytes());
        table.extend(id.to_le_bytes());
        content.extend(key);
        let pages = 1 + leaves.get(at..).and_then(header).map_or(0, |(_, _, overflow)| overflow);
        id += u64::try_from(pages).unwrap_or(0);
        at += pages * PAGE;
    }
    let count = u16::try_from(groups.len()).unwrap_or(u16::MAX);
    [page(KEYS, BRANCH, count, &[table, content].concat()), leaves.to_vec()].concat()
}

fn meta_page(id: u64, high: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for part in [MAGIC, VERSION, number(PAGE), 0] {
        body.extend(part.to_le_bytes());
    }
    // The root bucket and its sequence, the free list, the first page behind the last, the transaction.
    for part in [3, 0, 2, high, id] {
        body.extend(part.to_le_bytes());
    }
    let checksum = fnv(&body);
    body.extend(checksum.to_le_bytes());
    page(id, META, 0, &body)
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Kind, number of elements, and pages that follow.
fn header(page: &[u8]) -> Option<(u16, usize, usize)> {
    let flags = u16::from_le_bytes(page.get(8..10)?.try_into().ok()?);
    let count = u16::from_le_bytes(page.get(10..12)?.try_into().ok()?);
    let overflow = u32::from_le_bytes(page.get(12..16)?.try_into().ok()?);
    Some((flags, usize::from(count), usize::try_from(overflow).ok()?))
}

fn element(page: &[u8], index: usize) -> Option<(&[u8], &[u8])> {
    let start = HEADER + ELEMENT * index;
    let part = |at: usize| {
        let bytes = page.get(start + at..start + at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let (key, key_length, value_length) = (start + part(4)?, part(8)?, part(12)?);
    let value = key + key_length;
    Some((page.get(key..value)?, page.get(value..value + value_length)?))
}

/// Name and value of a stored key. Only fields that are written here.
fn key_value(mut bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut name, mut value) = (None, None);
    while let Some((tag, rest)) = bytes.split_first() {
        let (length, rest) = read_varint(rest)?;
        if tag & 7 == 0 {
            bytes = rest;
            continue;
        }
        let (content, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        match tag >> 3 {
            1 => name = Some(content),
            _ => value = Some(content),
        }
        bytes = after;
    }
    Some((name?, value?))
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    bytes.extend(varint(u64::try_from(content.len()).unwrap_or(0)));
    bytes.extend(content);
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data(values: Vec<(String, Vec<u8>)>, extra: u64) -> Data {
        let values: BTreeMap<String, Bytes> = values.into_iter().map(|(key, value)| (key, Bytes::from(value))).collect();
        let revision = u64::try_from(values.len()).unwrap() + 1 + extra;
        let contents = Contents { cluster_id: None, revision, values: values.into_iter().collect() };
        Data { index: 9, term: 2, members: vec![(MemberId(0xab), "cp-1".into(), "10.0.0.1".into())], authority: "PEM".into(), contents }
    }

    proptest! {
        /// Whatever is stored comes back, with its revision; a changed byte is found.
        #[test]
        fn what_is_written_is_restored(
            values in prop::collection::vec(("[a-z/]{1,30}", prop::collection::vec(any::<u8>(), 0..9000)), 0..300),
            extra in 0..1000u64,
            broken in any::<prop::sample::Index>(),
        ) {
            let data = data(values, extra);
            let mut file = snapshot(&data);
            prop_assert_eq!(file.len() % 512, DIGEST);
            prop_assert_eq!(&restore(&file, false).unwrap(), &data.contents);
            prop_assert_eq!(&restore(&write(&data), true).unwrap(), &data.contents);
            prop_assert_eq!(restore(&write(&data), false), Err(Refusal::NoDigest));
            let at = broken.index(file.len());
            file[at] ^= 1;
            prop_assert_eq!(restore(&file, false), Err(Refusal::OtherDigest));
        }
    }
}
