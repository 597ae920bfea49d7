//! Older versions of the kinds ("spokes"), described once and used twice.
//!
//! A spoke is a list of [`Step`]s that lead from the hub's shape to the spoke's. The same list turns a hub object into the spoke's JSON,
//! back again in reverse, and the hub's schema into the spoke's schema ([`schema`]); so schema and conversion cannot drift apart.
//! What one side cannot express is not the steps' business: see [`crate::conversion`].

pub mod durations;
pub mod kinds;
pub mod schema;

use serde_json::{Map, Value, json};

/// One difference between the hub's shape and a spoke's. Paths are dotted and start at the object's root.
#[derive(Clone, Debug)]
pub enum Step {
    /// A field stands elsewhere.
    Move {
        /// Path in the hub.
        hub: String,
        /// Path in the spoke.
        spoke: String,
    },
    /// Whole seconds in the hub are a duration text (`5m0s`) in the spoke.
    Seconds {
        /// Path in the hub.
        hub: String,
        /// Path in the spoke.
        spoke: String,
    },
    /// The same in every item of a list.
    SecondsInList {
        /// Path of the list, in both.
        list: String,
        /// Key in the hub.
        hub: &'static str,
        /// Key in the spoke.
        spoke: &'static str,
    },
    /// `{apiGroup, kind, name}` in the hub is an object reference with version and namespace in the spoke.
    Reference(String),
    /// `{apiVersion, kind, name}` in the hub is a full object reference in the spoke.
    VersionedReference(String),
    /// `{name}` in the hub is a full object reference to a core kind in the spoke.
    NameReference {
        /// Path, in both.
        path: String,
        /// Kind of the object.
        kind: &'static str,
        /// Whether the spoke's reference carries a namespace.
        namespaced: bool,
    },
    /// A list of failure domains in the hub is a map by name in the spoke.
    FailureDomains(String),
    /// A word of the hub is spelled differently in the spoke, when it was written so.
    Word {
        /// Path, in both.
        path: String,
        /// The hub's word.
        hub: &'static str,
        /// The spoke's word for it; read as the hub's, written back only from what was kept.
        spoke: &'static str,
    },
    /// Only the spoke has the field.
    SpokeOnly {
        /// Path in the spoke.
        path: String,
        /// Its schema.
        schema: Value,
    },
    /// Only the hub has the field.
    HubOnly(String),
    /// Something that needs code.
    Custom(&'static Custom),
    /// The schema alone differs.
    Schema(fn(&mut Value)),
}

/// Conversions that need code.
#[derive(Debug)]
pub struct Custom {
    /// Hub to spoke.
    pub to_spoke: fn(&mut Value),
    /// Spoke to hub.
    pub to_hub: fn(&mut Value),
    /// Schema of the hub to schema of the spoke.
    pub schema: fn(&mut Value),
}

/// Carries an object from the hub's shape to the spoke's; `apiVersion` is left alone.
pub fn to_spoke(object: &mut Value, steps: &[Step]) {
    let namespace = object.pointer("/metadata/namespace").cloned();
    for step in steps {
        match step {
            Step::Move { hub, spoke } => relocate(object, hub, spoke, |value| value),
            Step::Seconds { hub, spoke } => relocate(object, hub, spoke, durations::to_text),
            Step::SecondsInList { list, hub, spoke } => each(object, list, |item| rekey(item, hub, spoke, durations::to_text)),
            Step::Reference(path) => at(object, path, |reference| {
                if let Some(group) = reference.remove("apiGroup") {
                    let group = group.as_str().unwrap_or_default();
                    let kind = reference.get("kind").and_then(Value::as_str).unwrap_or_default();
                    let api_version = kinds::api_version(group, kind);
                    reference.insert("apiVersion".to_owned(), json!(api_version));
                }
                with_namespace(reference, namespace.as_ref());
            }),
            Step::VersionedReference(path) => at(object, path, |reference| with_namespace(reference, namespace.as_ref())),
            Step::NameReference { path, kind, namespaced } => at(object, path, |reference| {
                reference.insert("apiVersion".to_owned(), json!("v1"));
                reference.insert("kind".to_owned(), json!(kind));
                if *namespaced {
                    with_namespace(reference, namespace.as_ref());
                }
            }),
            Step::FailureDomains(path) => replace(object, path, domains_to_map),
            Step::SpokeOnly { .. } | Step::Schema(_) | Step::Word { .. } => {}
            Step::HubOnly(path) => {
                take(object, path);
            }
            Step::Custom(custom) => (custom.to_spoke)(object),
        }
    }
}

/// Carries an object from the spoke's shape to the hub's; what the hub has no place for is dropped.
pub fn to_hub(object: &mut Value, steps: &[Step]) {
    for step in steps.iter().rev() {
        match step {
            Step::Move { hub, spoke } => relocate(object, spoke, hub, |value| value),
            Step::Seconds { hub, spoke } => relocate(object, spoke, hub, durations::to_seconds),
            Step::SecondsInList { list, hub, spoke } => each(object, list, |item| rekey(item, spoke, hub, durations::to_seconds)),
            Step::Reference(path) => at(object, path, |reference| {
                if let Some(api_version) = reference.get("apiVersion").and_then(Value::as_str) {
                    let group = api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
                    reference.insert("apiGroup".to_owned(), json!(group));
                }
                retain(reference, &["apiGroup", "kind", "name"]);
            }),
            Step::VersionedReference(path) => at(object, path, |reference| retain(reference, &["apiVersion", "kind", "name"])),
            Step::NameReference { path, .. } => at(object, path, |reference| retain(reference, &["name"])),
            Step::FailureDomains(path) => replace(object, path, domains_to_list),
            Step::SpokeOnly { path, .. } => {
                take(object, path);
            }
            Step::Word { path, hub, spoke } => replace(object, path, |word| if word == *spoke { json!(hub) } else { word }),
            Step::HubOnly(_) | Step::Schema(_) => {}
            Step::Custom(custom) => (custom.to_hub)(object),
        }
    }
}

fn segments(path: &str) -> Vec<&str> {
    path.split('.').collect()
}

/// Takes the value at a path out of an object, together with parents that are empty after it; `spec` and `status` themselves stay.
pub(crate) fn take(object: &mut Value, path: &str) -> Option<Value> {
    fn inner(value: &mut Value, path: &[&str], depth: usize) -> Option<Value> {
        let (first, rest) = path.split_first()?;
        let map = value.as_object_mut()?;
        if rest.is_empty() {
            return map.shift_remove(*first);
        }
        let child = map.get_mut(*first)?;
        let taken = inner(child, rest, depth + 1)?;
        if depth > 0 && child.as_object().is_some_and(Map::is_empty) {
            map.shift_remove(*first);
        }
        Some(taken)
    }
    inner(object, &segments(path), 0)
}

/// Puts a value at a path, making parents; records are merged into what is there.
pub(crate) fn put(object: &mut Value, path: &str, value: Value) {
    let mut place = object;
    for segment in segments(path) {
        if !place.is_object() {
            *place = json!({});
        }
        let Some(map) = place.as_object_mut() else { return };
        place = map.entry(segment).or_insert(Value::Null);
    }
    match (place.as_object_mut(), value) {
        (Some(there), Value::Object(new)) => there.extend(new),
        (_, value) => *place = value,
    }
}

fn relocate(object: &mut Value, from: &str, to: &str, change: impl Fn(Value) -> Value) {
    if let Some(value) = take(object, from) {
        put(object, to, change(value));
    }
}

fn find<'a>(object: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    let mut place = object;
    for segment in segments(path) {
        place = place.as_object_mut()?.get_mut(segment)?;
    }
    Some(place)
}

fn at(object: &mut Value, path: &str, change: impl Fn(&mut Map<String, Value>)) {
    if let Some(map) = find(object, path).and_then(Value::as_object_mut) {
        change(map);
    }
}

fn each(object: &mut Value, path: &str, change: impl Fn(&mut Map<String, Value>)) {
    if let Some(list) = find(object, path).and_then(Value::as_array_mut) {
        list.iter_mut().filter_map(Value::as_object_mut).for_each(change);
    }
}

fn replace(object: &mut Value, path: &str, change: impl Fn(Value) -> Value) {
    if let Some(place) = find(object, path) {
        *place = change(place.take());
    }
}

fn rekey(item: &mut Map<String, Value>, from: &str, to: &str, change: impl Fn(Value) -> Value) {
    if let Some(value) = item.shift_remove(from) {
        item.insert(to.to_owned(), change(value));
    }
}

fn retain(map: &mut Map<String, Value>, keys: &[&str]) {
    map.retain(|key, _| keys.contains(&key.as_str()));
}

fn with_namespace(reference: &mut Map<String, Value>, namespace: Option<&Value>) {
    if let Some(namespace) = namespace {
        reference.insert("namespace".to_owned(), namespace.clone());
    }
}

fn domains_to_map(list: Value) -> Value {
    let Value::Array(list) = list else { return list };
    let mut map = Map::new();
    for mut domain in list {
        if let Some(Value::String(name)) = domain.as_object_mut().and_then(|domain| domain.shift_remove("name")) {
            map.insert(name, domain);
        }
    }
    Value::Object(map)
}

fn domains_to_list(map: Value) -> Value {
    let Value::Object(map) = map else { return map };
    let mut list: Vec<(String, Value)> = map.into_iter().collect();
    list.sort_by(|a, b| a.0.cmp(&b.0));
    let named = list.into_iter().map(|(name, mut domain)| {
        if let Some(domain) = domain.as_object_mut() {
            domain.insert("name".to_owned(), json!(name));
        }
        domain
    });
    Value::Array(named.collect())
}
