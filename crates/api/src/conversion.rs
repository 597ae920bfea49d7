//! Conversion of objects between the versions of their kind, without loss.
//!
//! The spokes' steps carry what both shapes can express. What the target cannot express is kept in an annotation of the object
//! ([`CONVERSION_DATA`]) as a list of differences, each with the value that the other side showed in its place. When the object is read again in
//! the version that it was written in, a difference is put back only where the other side still shows that value: so what somebody has
//! changed meanwhile, in whatever version, wins over what was kept. Whoever strips annotations loses what only they could hold, nothing else.
//!
//! ```text
//!  written as v1beta1 ──to_hub──▶ stored  (annotation: what v1beta1 said that the hub cannot)
//!  read as v1beta1    ◀─to_spoke─ stored  (annotation: what the hub says that v1beta1 cannot)
//! ```

use std::sync::LazyLock;

use apimachinery::admission::Conversion;
use apimachinery::field::FieldError;
use apimachinery::gvk::{GroupKind, GroupVersionKind};
use apimachinery::meta::pointer_step;
use apimachinery::status::StatusError;
use serde_json::{Map, Value, json};

use crate::Webhooks;
use crate::names::annotations::CONVERSION_DATA;
use crate::spoke::kinds::spokes;
use crate::spoke::{self, Step, durations};

/// A kind with its hub version, the hub's schema, and the steps to each of its older versions.
struct Known {
    group: &'static str,
    kind: &'static str,
    hub: &'static str,
    schema: Option<&'static Value>,
    spokes: Vec<(&'static str, Vec<Step>)>,
}

static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    crate::crds::kinds()
        .iter()
        .map(|kind| Known {
            group: kind.group,
            kind: kind.kind,
            hub: kind.hub,
            schema: crate::crds::schema(kind.group, kind.kind, kind.hub),
            spokes: spokes(kind.group, kind.kind).into_iter().map(|(version, _, steps)| (version, steps)).collect(),
        })
        .collect()
});

impl Known {
    fn steps(&self, version: &str) -> Option<&[Step]> {
        self.spokes.iter().find(|(name, _)| *name == version).map(|(_, steps)| steps.as_slice())
    }
}

impl Conversion for Webhooks {
    fn convert(&self, mut object: Value, to_version: &str) -> Result<Value, StatusError> {
        let from = GroupVersionKind::of(&object).map_err(|error| StatusError::bad_request(error.to_string()))?;
        if from.version == to_version {
            return Ok(object);
        }
        let Some(known) = KNOWN.iter().find(|known| known.group == from.group && known.kind == from.kind) else {
            set_version(&mut object, &from, to_version);
            return Ok(object);
        };
        let unknown = |version: &str| StatusError::bad_request(format!("{} has no version {version}", from.group_kind()));
        if from.version != known.hub {
            let steps = known.steps(&from.version).ok_or_else(|| unknown(&from.version))?;
            object = to_hub(object, &from, known, steps)?;
        }
        if to_version != known.hub {
            let steps = known.steps(to_version).ok_or_else(|| unknown(to_version))?;
            object = to_spoke(object, &from, known, to_version, steps);
        }
        Ok(object)
    }
}

fn set_version(object: &mut Value, gvk: &GroupVersionKind, version: &str) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), json!(gvk.with_version(version).api_version()));
    }
}

/// From an older version to the stored one.
fn to_hub(mut object: Value, from: &GroupVersionKind, known: &Known, steps: &[Step]) -> Result<Value, StatusError> {
    let faults = faults(&object, steps);
    if !faults.is_empty() {
        let name = apimachinery::meta::name(&object);
        return Err(StatusError::invalid(&GroupKind::new(&*from.group, &*from.kind), name, faults));
    }
    let mut kept = take_annotation(&mut object);
    default_namespaces(&mut object, steps);
    let mut converted = object.clone();
    carry_to_hub(&mut converted, from, known, steps);
    // What the hub says beyond this version, if it still shows what it showed when the object was read.
    if let Some(entries) = kept.shift_remove(known.hub) {
        restore(&mut converted, &entries);
    }
    let mut shown = converted.clone();
    spoke::to_spoke(&mut shown, steps);
    keep(&mut kept, &from.version, &object, &shown);
    put_annotation(&mut converted, kept);
    Ok(converted)
}

/// From the stored version to an older one.
fn to_spoke(mut object: Value, from: &GroupVersionKind, known: &Known, version: &str, steps: &[Step]) -> Value {
    let mut kept = take_annotation(&mut object);
    let mut converted = object.clone();
    spoke::to_spoke(&mut converted, steps);
    set_version(&mut converted, from, version);
    if let Some(entries) = kept.shift_remove(version) {
        restore(&mut converted, &entries);
    }
    let mut shown = converted.clone();
    carry_to_hub(&mut shown, from, known, steps);
    keep(&mut kept, known.hub, &object, &shown);
    put_annotation(&mut converted, kept);
    converted
}

fn carry_to_hub(object: &mut Value, from: &GroupVersionKind, known: &Known, steps: &[Step]) {
    spoke::to_hub(object, steps);
    set_version(object, from, known.hub);
    if let Some(schema) = known.schema {
        omit_zeros(object, schema, false);
    }
}

/// What makes an object impossible to express in the stored version.
fn faults(object: &Value, steps: &[Step]) -> Vec<FieldError> {
    let at = |path: &str| object.pointer(&format!("/{}", path.replace('.', "/")));
    let namespace = object.pointer("/metadata/namespace");
    let mut faults = Vec::new();
    let mut duration = |path: String, value: Option<&Value>| {
        if let Some(text) = value.and_then(Value::as_str)
            && durations::parse(text).is_none()
        {
            faults.push(FieldError::invalid(path, text, "must be a duration such as 90s, 20m or 1h30m"));
        }
    };
    for step in steps {
        match step {
            Step::Seconds { spoke, .. } => duration(spoke.clone(), at(spoke)),
            Step::SecondsInList { list, spoke, .. } => {
                for (index, item) in at(list).and_then(Value::as_array).into_iter().flatten().enumerate() {
                    duration(format!("{list}[{index}].{spoke}"), item.get(*spoke));
                }
            }
            _ => {}
        }
    }
    for step in steps {
        let (Step::Reference(path) | Step::VersionedReference(path)) = step else { continue };
        if let (Some(there), Some(own)) = (at(path).and_then(|reference| reference.get("namespace")), namespace)
            && there != own
            && there != ""
        {
            faults.push(FieldError::invalid(format!("{path}.namespace"), there.clone(), "must match metadata.namespace"));
        }
    }
    faults
}

/// References without a namespace mean the object's own.
fn default_namespaces(object: &mut Value, steps: &[Step]) {
    let Some(namespace) = object.pointer("/metadata/namespace").cloned() else { return };
    for step in steps {
        let (Step::Reference(path) | Step::VersionedReference(path)) = step else { continue };
        let reference = object.pointer_mut(&format!("/{}", path.replace('.', "/"))).and_then(Value::as_object_mut);
        if let Some(reference) = reference
            && reference.get("namespace").is_none_or(|there| there == "")
        {
            reference.insert("namespace".to_owned(), namespace.clone());
        }
    }
}

/// Leaves out zero values that the hub's schema does not allow and older versions wrote for "absent".
fn omit_zeros(value: &mut Value, schema: &Value, is_item: bool) -> bool {
    if let Some(map) = value.as_object_mut() {
        let required = schema.get("required").and_then(Value::as_array);
        let properties = schema.get("properties");
        let additional = schema.get("additionalProperties").filter(|additional| additional.is_object());
        map.retain(|key, child| {
            let Some(child_schema) = properties.and_then(|all| all.get(key)).or(additional) else { return true };
            let is_required = required.is_some_and(|names| names.iter().any(|name| name == key));
            !omit_zeros(child, child_schema, is_required || additional.is_some())
        });
    } else if let (Some(list), Some(items)) = (value.as_array_mut(), schema.get("items")) {
        for item in list {
            omit_zeros(item, items, true);
        }
    }
    let at_least = |key: &str| schema.get(key).and_then(Value::as_u64).is_some_and(|least| least >= 1);
    !is_item
        && match value {
            Value::String(text) => text.is_empty() && at_least("minLength"),
            Value::Number(number) => number.as_i64() == Some(0) && at_least("minimum"),
            Value::Object(map) => map.is_empty() && at_least("minProperties"),
            Value::Array(list) => list.is_empty() && at_least("minItems"),
            _ => false,
        }
}

fn take_annotation(object: &mut Value) -> Map<String, Value> {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return Map::new() };
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else { return Map::new() };
    let text = annotations.shift_remove(CONVERSION_DATA);
    if text.is_some() && annotations.is_empty() {
        metadata.shift_remove("annotations");
    }
    // Text that somebody has broken is no more than text.
    text.as_ref().and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn put_annotation(object: &mut Value, kept: Map<String, Value>) {
    if kept.is_empty() {
        return;
    }
    // The text must not depend on the order in which somebody wrote the fields, or equal objects would differ.
    let mut kept = Value::Object(kept);
    kept.sort_all_objects();
    let Some(map) = object.as_object_mut() else { return };
    let Some(metadata) = map.entry("metadata").or_insert_with(|| json!({})).as_object_mut() else { return };
    if let Some(annotations) = metadata.entry("annotations").or_insert_with(|| json!({})).as_object_mut() {
        annotations.insert(CONVERSION_DATA.to_owned(), json!(kept.to_string()));
    }
}

/// Records under a version's name where `wanted` differs from `shown`.
fn keep(kept: &mut Map<String, Value>, version: &str, wanted: &Value, shown: &Value) {
    let mut entries = Vec::new();
    for part in root_keys(wanted, shown) {
        compare(&format!("/{}", pointer_step(&part)), wanted.get(&part), shown.get(&part), &mut entries);
    }
    if entries.is_empty() {
        kept.shift_remove(version);
    } else {
        kept.insert(version.to_owned(), Value::Array(entries));
    }
}

fn root_keys(a: &Value, b: &Value) -> Vec<String> {
    keys(a, b).into_iter().filter(|key| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata")).collect()
}

fn keys(a: &Value, b: &Value) -> Vec<String> {
    let of = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let mut all = of(a);
    all.extend(of(b));
    all.sort();
    all.dedup();
    all
}

/// Differences as `{p: JSON pointer, v: wanted, w: shown}`; an absent side is left out.
fn compare(path: &str, wanted: Option<&Value>, shown: Option<&Value>, out: &mut Vec<Value>) {
    match (wanted, shown) {
        (Some(wanted), Some(shown)) if wanted == shown => {}
        (None, None) => {}
        (Some(wanted @ Value::Object(_)), Some(shown @ Value::Object(_))) => {
            for key in keys(wanted, shown) {
                compare(&format!("{path}/{}", pointer_step(&key)), wanted.get(&key), shown.get(&key), out);
            }
        }
        (Some(Value::Array(wanted)), Some(Value::Array(shown))) if wanted.len() == shown.len() => {
            for (index, (wanted, shown)) in wanted.iter().zip(shown).enumerate() {
                compare(&format!("{path}/{index}"), Some(wanted), Some(shown), out);
            }
        }
        _ => {
            let mut entry = Map::from_iter([("p".to_owned(), json!(path))]);
            if let Some(wanted) = wanted {
                entry.insert("v".to_owned(), wanted.clone());
            }
            if let Some(shown) = shown {
                entry.insert("w".to_owned(), shown.clone());
            }
            out.push(Value::Object(entry));
        }
    }
}

/// Puts kept differences back where the object still shows what it showed then.
fn restore(object: &mut Value, entries: &Value) {
    for entry in entries.as_array().into_iter().flatten() {
        let Some(path) = entry.get("p").and_then(Value::as_str) else { continue };
        if path.split('/').nth(1).is_none_or(|part| matches!(part, "apiVersion" | "kind" | "metadata")) {
            continue;
        }
        if object.pointer(path) != entry.get("w") {
            continue;
        }
        match entry.get("v") {
            Some(value) if entry.get("w").is_some() => {
                if let Some(place) = object.pointer_mut(path) {
                    *place = value.clone();
                }
            }
            Some(value) => insert(object, path, value.clone()),
            None => remove(object, path),
        }
    }
}

fn split(path: &str) -> Option<(&str, String)> {
    let (parent, key) = path.rsplit_once('/')?;
    Some((parent, key.replace("~1", "/").replace("~0", "~")))
}

fn insert(object: &mut Value, path: &str, value: Value) {
    if let Some((parent, key)) = split(path)
        && let Some(map) = object.pointer_mut(parent).and_then(Value::as_object_mut)
    {
        map.insert(key, value);
    }
}

fn remove(object: &mut Value, path: &str) {
    if let Some((parent, key)) = split(path)
        && let Some(map) = object.pointer_mut(parent).and_then(Value::as_object_mut)
    {
        map.shift_remove(&key);
    }
}
