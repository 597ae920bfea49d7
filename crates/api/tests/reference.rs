//! Reads upstream's data, which lies outside the repository. Where it is missing, tests say so and pass, but for continuous integration.

use std::path::PathBuf;

use serde_json::Value;

/// A file or folder of the reference data; `None` (with a note) where there is none.
pub fn path(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference")).join(name);
    if path.exists() {
        return Some(path);
    }
    #[allow(clippy::disallowed_methods)]
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!is_ci, "reference data {name} is missing");
    eprintln!("skipped: no reference data {name}");
    None
}

/// All documents of a YAML text.
pub fn documents(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// Every YAML file below a folder, by path.
pub fn files(folder: &str) -> Option<Vec<(String, String)>> {
    let mut out = Vec::new();
    let mut folders = vec![path(folder)?];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                out.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    out.sort();
    Some(out)
}
