//! A `tar.gz` with one file, as the machine API hands out a kubeconfig. Stored, not compressed: there is nothing to gain.

/// Wraps `content` as the file `name` (at most 100 bytes).
pub fn tar_gz(name: &str, content: &[u8], modified_seconds: u64) -> Vec<u8> {
    let mut tar = vec![0u8; 512];
    put(&mut tar, 0, name.as_bytes());
    put(&mut tar, 100, b"0000600\0");
    put(&mut tar, 108, b"0000000\0");
    put(&mut tar, 116, b"0000000\0");
    put(&mut tar, 124, format!("{:011o}\0", content.len()).as_bytes());
    put(&mut tar, 136, format!("{modified_seconds:011o}\0").as_bytes());
    put(&mut tar, 148, b"        ");
    put(&mut tar, 156, b"0");
    put(&mut tar, 257, b"ustar\x0000");
    let sum: u32 = tar.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut tar, 148, format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(content);
    let padding = (512 - content.len() % 512) % 512;
    tar.resize(tar.len() + padding + 1024, 0);
    gzip(&tar)
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(what) {
        *to = *from;
    }
}

/// RFC 1952 around stored blocks of RFC 1951.
fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = data.chunks(0xffff).peekable();
    if blocks.peek().is_none() {
        out.extend([1, 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(u8::from(blocks.peek().is_none()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend(crc32(data).to_le_bytes());
    out.extend(u32::try_from(data.len() & 0xffff_ffff).unwrap_or(0).to_le_bytes());
    out
}

fn crc32(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn the_check_value_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn the_system_s_tar_reads_it() {
        for content in ["apiVersion: v1\n".to_owned(), String::new(), "x".repeat(200_000)] {
            let archive = tar_gz("kubeconfig", content.as_bytes(), 1_700_000_000);
            let started = Command::new("tar").args(["-xzOf", "-", "kubeconfig"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            let Ok(mut tar) = started else { return };
            let mut input = tar.stdin.take().unwrap();
            let writer = std::thread::spawn(move || input.write_all(&archive).unwrap());
            let output = tar.wait_with_output().unwrap();
            writer.join().unwrap();
            assert!(output.status.success());
            assert_eq!(output.stdout, content.as_bytes());
        }
    }
}
