//! PEM text: a label and base64 in lines of 64 characters.
//!
//! Own code, because the readers of the field's crates refuse labels they do not know, and Talos writes Ed25519 keys under a label of
//! its own. It never looks into the bytes it carries.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

/// One block of a PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    pub label: String,
    pub der: Vec<u8>,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block").field("label", &self.label).finish_non_exhaustive()
    }
}

/// Why a text is not PEM.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PemError {
    #[error("there is no PEM block (a line starting with -----BEGIN) in the text")]
    Empty,
    #[error("the PEM block {label:?} has no line -----END {label}-----")]
    Unterminated { label: String },
    #[error("the PEM block {label:?} is not base64")]
    NotBase64 { label: String },
}

/// Writes one block, with a newline at the end.
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Reads all blocks of a text, in order. Text around the blocks is skipped.
///
/// # Errors
/// When there is no block or one is broken.
pub fn decode(text: &str) -> Result<Vec<Block>, PemError> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines().map(str::trim) {
        if let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) {
            if let Some((label, _)) = open {
                return Err(PemError::Unterminated { label });
            }
            open = Some((label.to_owned(), String::new()));
        } else if let Some(ended) = line.strip_prefix("-----END ").and_then(|rest| rest.strip_suffix("-----")) {
            let Some((label, body)) = open.take() else { continue };
            if label != ended {
                return Err(PemError::Unterminated { label });
            }
            let der = STANDARD.decode(body).map_err(|_| PemError::NotBase64 { label: label.clone() })?;
            blocks.push(Block { label, der });
        } else if let Some((_, body)) = &mut open
            && !line.contains(':')
        {
            body.push_str(line);
        }
    }
    match open {
        Some((label, _)) => Err(PemError::Unterminated { label }),
        None if blocks.is_empty() => Err(PemError::Empty),
        None => Ok(blocks),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(der in proptest::collection::vec(any::<u8>(), 0..300), second in proptest::collection::vec(any::<u8>(), 1..80)) {
            let text = format!("before\n{}between\n{}", encode("ONE", &der), encode("TWO WORDS", &second));
            let blocks = decode(&text).unwrap();
            prop_assert_eq!(blocks, vec![Block { label: "ONE".into(), der }, Block { label: "TWO WORDS".into(), der: second }]);
            prop_assert!(text.lines().all(|line| line.len() <= 64));
        }
    }

    #[test]
    fn broken_blocks_are_named() {
        assert_eq!(decode("nothing"), Err(PemError::Empty));
        assert_eq!(decode("-----BEGIN A-----\nAAAA\n"), Err(PemError::Unterminated { label: "A".into() }));
        assert_eq!(decode("-----BEGIN A-----\nAAAA\n-----END B-----\n"), Err(PemError::Unterminated { label: "A".into() }));
        assert_eq!(decode("-----BEGIN A-----\n*\n-----END A-----\n"), Err(PemError::NotBase64 { label: "A".into() }));
    }
}
