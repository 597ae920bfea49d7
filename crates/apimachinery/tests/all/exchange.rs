//! Reads the recorded requests of kubectl and the answers of a genuine kube-apiserver.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// One request with its answer.
pub struct Exchange {
    pub file: String,
    pub method: String,
    pub target: String,
    pub accept: String,
    pub content_type: String,
    pub request: Vec<u8>,
    pub status: u16,
    pub answer: Vec<u8>,
}

impl Exchange {
    pub fn answer_json(&self) -> Option<Value> {
        serde_json::from_slice(&self.answer).ok()
    }
}

/// Where reference data lies; `None` where the folder is missing, which only a run outside of CI may do.
#[allow(clippy::print_stderr, clippy::disallowed_methods, reason = "a test says that it was skipped, and asks whether it may be")]
pub fn reference(part: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference").join(part);
    if path.is_dir() {
        return Some(path);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "reference data is missing at {}", path.display());
    eprintln!("skipped: no reference data at {}", path.display());
    None
}

fn body(text: &str) -> Vec<u8> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    match text.strip_prefix("hex:") {
        Some(digits) => hex::decode(digits.trim()).unwrap(),
        None => text.as_bytes().to_vec(),
    }
}

fn read(path: &Path) -> Exchange {
    let text = std::fs::read_to_string(path).unwrap();
    let (request, answer) = text.split_once("\n--- ").unwrap_or_else(|| panic!("{} has no answer", path.display()));
    let (head, request_body) = request.split_once("\n\n").unwrap();
    let (answer_head, answer_body) = answer.split_once("\n\n").unwrap();
    let mut lines = head.lines();
    let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
    let header = |name: &str| lines.clone().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    let (accept, content_type) = (header("Accept: "), header("Content-Type: "));
    let folder = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
    Exchange {
        file: format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap()),
        method: method.to_owned(),
        target: target.to_owned(),
        accept,
        content_type,
        request: body(request_body.trim_end_matches('\n')),
        status: answer_head.lines().next().unwrap().trim().parse().unwrap(),
        answer: body(answer_body.trim_end_matches('\n')),
    }
}

/// All of them, by folder and number.
pub fn all() -> Option<Vec<Exchange>> {
    let root = reference("kubernetes/exchanges")?;
    let mut files = Vec::new();
    for folder in std::fs::read_dir(root).unwrap() {
        let folder = folder.unwrap().path();
        if folder.is_dir() {
            files.extend(std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
        }
    }
    files.retain(|file| file.file_name().is_some_and(|name| name != "output.txt"));
    files.sort();
    Some(files.iter().map(|file| read(file)).collect())
}

/// The CustomResourceDefinitions of Cluster API and its providers.
pub fn definitions() -> Option<Vec<Value>> {
    let root = reference("crds")?;
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in std::fs::read_dir(root).unwrap() {
        files.extend(std::fs::read_dir(folder.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
    }
    files.sort();
    Some(files.iter().map(|file| serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()).collect())
}
