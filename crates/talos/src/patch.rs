//! Patches of a machine configuration: JSON patches (RFC 6902) and strategic merge patches.
//!
//! Both behave as the upstream tools do, traps included, because the same patches must give the same machines: a JSON patch needs its
//! parent to exist and works on a single document only; a strategic patch appends to lists and cannot blank a text. What can be done is
//! to say so: a patch that replaces a generated section and drops keys of it is warned about. Errors name keys, never values.

mod operation;
mod strategic;

use serde_json::Value;
use thiserror::Error;

use crate::config::{ConfigError, MachineConfig};
use crate::yaml::Layout;

pub use strategic::strategic;

/// Why a patch cannot be applied.
#[derive(Debug, Error)]
pub enum PatchError {
    #[error(
        "JSON patches are not supported for a machine configuration of several documents (talosVersion v1.12 and newer): \
         move configPatches into strategicPatches, or keep an older talosVersion"
    )]
    MultiDocument,
    #[error("JSON patch {number} ({op} {path}) cannot be applied: {reason}")]
    Operation { number: usize, op: String, path: String, reason: String },
    #[error("strategic patch {} cannot be applied", .index + 1)]
    Strategic {
        index: usize,
        #[source]
        source: Box<ConfigError>,
    },
    #[error("{path}: {reason}")]
    Merge { path: String, reason: String },
}

/// Applies JSON patch operations, in order, all or none. Returns warnings.
///
/// The configuration comes out with sorted keys, as it does upstream.
///
/// # Errors
/// When there are several documents, or naming the operation that cannot be applied.
pub fn json(config: &mut MachineConfig, operations: &[Value]) -> Result<Vec<String>, PatchError> {
    let [document] = config.documents() else { return Err(PatchError::MultiDocument) };
    let mut patched = document.clone();
    let mut warnings = Vec::new();
    for (index, value) in operations.iter().enumerate() {
        let op = value.get("op").and_then(Value::as_str).unwrap_or_default().to_owned();
        let path = value.get("path").and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = index + 1;
        let before = if matches!(op.as_str(), "add" | "replace") { patched.pointer(&path).cloned() } else { None };
        operation::apply(&mut patched, value).map_err(|reason| PatchError::Operation {
            number,
            op: op.clone(),
            path: path.clone(),
            reason,
        })?;
        if let (Some(before), Some(after)) = (before, patched.pointer(&path)) {
            warnings.extend(warning(number, &op, &path, &dropped(&before, after, "")));
        }
    }
    sort(&mut patched);
    *config.documents_mut() = vec![patched];
    config.set_layout(Layout::Sorted);
    Ok(warnings)
}

/// Sorts the keys of every map.
fn sort(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.sort_keys();
            map.values_mut().for_each(sort);
        }
        Value::Array(items) => items.iter_mut().for_each(sort),
        _ => {}
    }
}

/// The keys that stood below `before`, had a value, and are gone from `after`.
fn dropped(before: &Value, after: &Value, path: &str) -> Vec<String> {
    let (Some(before), Some(after)) = (before.as_object(), after.as_object()) else { return Vec::new() };
    before
        .iter()
        .filter(|(_, value)| !is_zero(value))
        .flat_map(|(key, value)| match after.get(key) {
            Some(kept) => dropped(value, kept, &format!("{path}{key}/")),
            None => vec![format!("{path}{key}")],
        })
        .collect()
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn warning(number: usize, op: &str, path: &str, dropped: &[String]) -> Option<String> {
    if dropped.is_empty() {
        return None;
    }
    let consequence = match path {
        "/machine/kubelet" if dropped.iter().any(|key| key == "image") => {
            "; the kubelet image falls back to the default of the Talos release, whatever the Kubernetes version asked for"
        }
        "/machine/install" if dropped.iter().any(|key| key == "image") => "; an upgrade falls back to the default installer image",
        _ => "",
    };
    Some(format!(
        "JSON patch {number} ({op} {path}) replaces the whole section and drops what was generated there: {}{consequence}. \
         To keep it, patch the keys below {path} one by one",
        dropped.join(", ")
    ))
}
