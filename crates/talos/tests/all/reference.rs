//! Data from outside: read where it lies, skipped (loudly) where it is missing, required in CI.

use std::path::PathBuf;

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference"))
}

/// Whether the reference data is there. A missing folder skips the test, but fails it in CI.
pub fn is_here(test: &str) -> bool {
    if root().is_dir() {
        return true;
    }
    #[allow(clippy::disallowed_methods)]
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!is_ci, "{test}: the reference data is missing");
    eprintln!("{test}: skipped, the reference data is missing");
    false
}

pub fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn exists(path: &str) -> bool {
    root().join(path).exists()
}

pub fn documents(path: &str) -> Vec<Value> {
    talos::yaml::read(&text(path)).unwrap()
}

/// Without the zero values that reading into structures adds: compares configurations by what they mean.
pub fn meaning(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().map(|(key, value)| (key.clone(), meaning(value)));
            let kept = kept
                .filter(|(_, value)| !matches!(value, Value::Null | Value::Bool(false)) && *value != "" && *value != serde_json::json!([]));
            let sorted: std::collections::BTreeMap<String, Value> = kept.collect();
            Value::Object(sorted.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(meaning).collect()),
        other => other.clone(),
    }
}
