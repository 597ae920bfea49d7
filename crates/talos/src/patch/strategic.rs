//! Strategic merge patches: a partial configuration laid over the whole one.
//!
//! Documents are matched by version, kind and name, unmatched ones are appended. Maps merge, lists append, a few lists are replaced or
//! merged by a key, an empty text never overrides. `$patch: delete` removes a document, a key, or list elements; deletions go first.
//! Where upstream works on decoded structures this works on values: the outcome is the same for every configuration that Talos accepts.

use serde_json::{Map, Value};

use super::PatchError;
use crate::config::{ConfigError, MachineConfig, document_name, is_legacy};
use crate::yaml::{self, Layout};

const DIRECTIVE: &str = "$patch";

/// Sections that a patch replaces as a whole.
const REPLACED: &[&str] = &[
    "/cluster/network/podSubnets",
    "/cluster/network/serviceSubnets",
    "/cluster/apiServer/auditPolicy",
    "NetworkRuleConfig/ingress",
    "NetworkRuleConfig/portSelector/ports",
];

/// Lists whose elements are merged when these keys are equal: the first one that the patch's element has counts.
const KEYED: &[(&str, &[&str])] = &[
    ("/machine/network/interfaces", &["interface", "deviceSelector"]),
    ("/machine/network/interfaces/vlans", &["vlanId"]),
    ("/cluster/apiServer/admissionControl", &["name"]),
    ("ExtensionServiceConfig/configFiles", &["mountPath"]),
];

/// Applies one patch text. A list of JSON patch operations is accepted in its place, as upstream's loader does.
///
/// # Errors
/// When the text is not YAML, deletes what is not there, or has another shape than the configuration.
pub fn strategic(config: &mut MachineConfig, text: &str) -> Result<(), ConfigError> {
    for mut patch in yaml::read(text)? {
        if let Value::Array(operations) = &patch {
            super::json(config, operations)?;
            continue;
        }
        let name = document_name(&patch);
        let root = root_path(&patch);
        let position = config.documents().iter().position(|document| document_name(document) == name);
        if patch.get(DIRECTIVE).is_some() {
            check_directive(&patch, &name)?;
            if is_legacy(&patch) {
                return Err(merge_error("", "the v1alpha1 document cannot be deleted"));
            }
            if let Some(position) = position {
                config.documents_mut().remove(position);
            }
            continue;
        }
        let mut nothing = Value::Null;
        let base = position.and_then(|position| config.documents_mut().get_mut(position)).unwrap_or(&mut nothing);
        delete(base, &mut patch, &root)?;
        if position.is_some() {
            merge(base, patch, &root)?;
        } else if patch.as_object().is_some_and(|map| !map.is_empty()) {
            config.documents_mut().push(patch);
        }
    }
    trim_manifests(config);
    config.set_layout(Layout::Structured);
    Ok(())
}

/// Inline manifests lose their leading empty lines, as they do when upstream reads them.
fn trim_manifests(config: &mut MachineConfig) {
    let Ok(legacy) = config.legacy_mut() else { return };
    let manifests = legacy.pointer_mut("/cluster/inlineManifests").and_then(Value::as_array_mut);
    for contents in manifests.into_iter().flatten().filter_map(|manifest| manifest.get_mut("contents")) {
        if let Value::String(text) = contents {
            *text = text.trim_start_matches('\n').to_owned();
        }
    }
}

/// Paths of the `v1alpha1` document start with `/`, those of other documents with their kind.
fn root_path(patch: &Value) -> String {
    patch.get("kind").and_then(Value::as_str).filter(|_| !is_legacy(patch)).unwrap_or_default().to_owned()
}

fn merge_error(path: &str, reason: &str) -> ConfigError {
    PatchError::Merge { path: path.to_owned(), reason: reason.to_owned() }.into()
}

fn check_directive(value: &Value, path: &str) -> Result<(), ConfigError> {
    match value.get(DIRECTIVE).and_then(Value::as_str) {
        Some("delete") => Ok(()),
        _ => Err(merge_error(path, "the only directive is $patch: delete")),
    }
}

/// Carries out the deletions in `patch` and takes them out of it.
fn delete(base: &mut Value, patch: &mut Value, path: &str) -> Result<(), ConfigError> {
    let Some(map) = patch.as_object_mut() else { return Ok(()) };
    let keys: Vec<String> = map.keys().cloned().collect();
    for key in keys {
        let below = format!("{path}/{key}");
        let Some(inner) = map.get_mut(&key) else { continue };
        match inner {
            Value::Object(fields) if fields.contains_key(DIRECTIVE) => {
                check_directive(inner, &below)?;
                let removed = base.as_object_mut().and_then(|base| base.shift_remove(&key));
                if removed.is_none() && !base.is_null() {
                    return Err(merge_error(&below, "it is to be deleted, but is not there"));
                }
                map.shift_remove(&key);
            }
            Value::Object(_) => {
                delete(base.get_mut(&key).unwrap_or(&mut Value::Null), inner, &below)?;
                drop_empty(base, map, &key);
            }
            Value::Array(items) if items.iter().any(|item| item.get(DIRECTIVE).is_some()) => {
                let mut kept = Vec::new();
                for item in std::mem::take(items) {
                    if item.get(DIRECTIVE).is_none() {
                        kept.push(item);
                        continue;
                    }
                    check_directive(&item, &below)?;
                    let selector = item.as_object().and_then(|fields| fields.iter().find(|(name, _)| *name != DIRECTIVE));
                    let Some((name, wanted)) = selector else {
                        return Err(merge_error(&below, "an element to be deleted needs a key to find it by"));
                    };
                    if let Some(elements) = base.get_mut(&key).and_then(Value::as_array_mut) {
                        elements.retain(|element| element.get(name) != Some(wanted));
                    } else if !base.is_null() {
                        return Err(merge_error(&below, "an element of it is to be deleted, but the list is not there"));
                    }
                }
                *items = kept;
                drop_empty(base, map, &key);
            }
            _ => {}
        }
    }
    Ok(())
}

/// What deletions left empty is gone, on both sides.
fn drop_empty(base: &mut Value, patch: &mut Map<String, Value>, key: &str) {
    let is_empty = |value: Option<&Value>| match value {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        _ => false,
    };
    if !is_empty(patch.get(key)) {
        return;
    }
    patch.shift_remove(key);
    if is_empty(base.get(key))
        && let Some(base) = base.as_object_mut()
    {
        base.shift_remove(key);
    }
}

fn merge(base: &mut Value, patch: Value, path: &str) -> Result<(), ConfigError> {
    if REPLACED.contains(&path) {
        *base = patch;
        return Ok(());
    }
    match (base, patch) {
        (_, Value::Null) => Ok(()),
        (base @ Value::Null, patch) => {
            *base = patch;
            Ok(())
        }
        (Value::Object(base), Value::Object(patch)) => {
            for (key, inner) in patch {
                let below = format!("{path}/{key}");
                match base.get_mut(&key) {
                    // Arguments are copied as they are, empty ones too.
                    Some(present) if path.ends_with("/extraArgs") => *present = inner,
                    Some(present) => merge(present, inner, &below)?,
                    None => {
                        base.insert(key, inner);
                    }
                }
            }
            Ok(())
        }
        (Value::Array(base), Value::Array(patch)) => {
            let keys = KEYED.iter().find(|(keyed, _)| *keyed == path).map(|(_, keys)| *keys).unwrap_or_default();
            for element in patch {
                let found = keys.iter().find_map(|key| element.get(key).map(|value| (*key, value.clone())));
                let same = found.and_then(|(key, value)| base.iter_mut().find(|present| present.get(key) == Some(&value)));
                match same {
                    Some(present) => merge(present, element, path)?,
                    None => base.push(element),
                }
            }
            Ok(())
        }
        (Value::Object(_) | Value::Array(_), _) | (_, Value::Object(_) | Value::Array(_)) => {
            Err(merge_error(path, "the patch has another shape there than the configuration (map, list or single value)"))
        }
        (_, Value::String(text)) if text.is_empty() => Ok(()),
        (base, patch) => {
            *base = patch;
            Ok(())
        }
    }
}
