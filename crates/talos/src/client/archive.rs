//! Reads one file out of a `tar.gz`, as the kubeconfig call sends it. Nothing is written anywhere, paths are compared only.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;

/// No kubeconfig is larger.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
const BLOCK: usize = 512;

/// The content of the file called `name`.
pub(super) fn file(archive: &[u8], name: &str) -> Result<Vec<u8>, String> {
    let mut tar = Vec::new();
    MultiGzDecoder::new(archive)
        .take(MAX_BYTES)
        .read_to_end(&mut tar)
        .map_err(|error| format!("the archive cannot be unpacked: {error}"))?;
    let mut rest = tar.as_slice();
    while let Some((header, after)) = rest.split_at_checked(BLOCK) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        let size = octal(header.get(124..136).unwrap_or_default()).ok_or("the archive has a broken header")?;
        let content = after.get(..size).ok_or("the archive breaks off")?;
        let entry = header.get(..100).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
        if entry == name.as_bytes() || entry.strip_prefix(b"./") == Some(name.as_bytes()) {
            return Ok(content.to_vec());
        }
        rest = after.get(size.div_ceil(BLOCK) * BLOCK..).unwrap_or_default();
    }
    Err(format!("the archive has no file {name:?}"))
}

fn octal(field: &[u8]) -> Option<usize> {
    let digits: String = field.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
    usize::from_str_radix(digits.trim(), 8).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (name, content) in entries {
            let mut header = vec![0u8; BLOCK];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
            tar.extend(header);
            tar.extend(*content);
            tar.resize(tar.len().div_ceil(BLOCK) * BLOCK, 0);
        }
        tar.extend([0; 2 * BLOCK]);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&tar).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_named_file_is_found() {
        let long = vec![7u8; 1500];
        let packed = archive(&[("other", &long), ("kubeconfig", b"text")]);
        assert_eq!(file(&packed, "kubeconfig").unwrap(), b"text");
        assert_eq!(file(&packed, "other").unwrap(), long);
        assert!(file(&packed, "third").unwrap_err().contains("third"));
    }

    #[test]
    fn broken_archives_are_errors() {
        let packed = archive(&[("kubeconfig", &[1; 700])]);
        assert!(file(&packed[..packed.len() / 2], "kubeconfig").is_err());
        assert!(file(b"no gzip", "kubeconfig").is_err());
    }
}
