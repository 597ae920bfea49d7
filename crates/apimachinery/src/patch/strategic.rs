//! Strategic merge patch: a merge patch that knows which lists merge by key, with directives in the patch.
//!
//! Directives: `$patch: replace|delete|merge` in a map or a list item, `$retainKeys` (the only keys to keep),
//! `$setElementOrder/FIELD` (the wanted order) and `$deleteFromPrimitiveList/FIELD`. The order of a merged list follows
//! the patch for the items it names and the live list for the others, which is how client and server agree upstream.
//! No directive is ever stored.

use serde_json::{Map, Value};

use super::keys::{self, ListRule};
use crate::gvk::GroupKind;
use crate::status::StatusError;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

pub(super) fn apply(object: &mut Value, patch: &Value, kind: &GroupKind) -> Result<(), StatusError> {
    let (Value::Object(live), Value::Object(patch)) = (&*object, patch) else {
        return Err(StatusError::bad_request("a strategic merge patch must be a JSON object"));
    };
    let merged = Merger { kind }.map(live.clone(), patch, &mut Vec::new())?;
    *object = Value::Object(merged);
    Ok(())
}

struct Merger<'a> {
    kind: &'a GroupKind,
}

impl Merger<'_> {
    fn map(
        &self,
        mut live: Map<String, Value>,
        patch: &Map<String, Value>,
        path: &mut Vec<String>,
    ) -> Result<Map<String, Value>, StatusError> {
        match directive(patch)? {
            Some(Directive::Replace) => return Ok(without_directives(patch)),
            Some(Directive::Delete) => return Ok(Map::new()),
            Some(Directive::Merge) | None => {}
        }
        if let Some(keep) = patch.get(RETAIN_KEYS) {
            retain(&mut live, keep, patch)?;
        }
        for (key, value) in patch {
            if let Some(field) = key.strip_prefix(DELETE_FROM) {
                let gone = value.as_array().ok_or_else(|| malformed(key))?;
                if let Some(Value::Array(list)) = live.get_mut(field) {
                    list.retain(|item| !gone.contains(item));
                }
            }
            if key.starts_with('$') {
                continue;
            }
            if value.is_null() {
                live.shift_remove(key);
                continue;
            }
            path.push(key.clone());
            let merged = match (live.get_mut(key).map(Value::take), value) {
                (Some(Value::Object(old)), Value::Object(new)) => Value::Object(self.map(old, new, path)?),
                (Some(Value::Array(old)), Value::Array(new)) => Value::Array(self.list(old, new, path)?),
                (_, new) => stripped(new),
            };
            path.pop();
            live.insert(key.clone(), merged);
        }
        for (key, value) in patch {
            if let Some(field) = key.strip_prefix(SET_ORDER) {
                let order = value.as_array().ok_or_else(|| malformed(key))?;
                if let Some(Value::Array(list)) = live.get_mut(field) {
                    path.push(field.to_owned());
                    let rule = keys::rule(self.kind, path);
                    path.pop();
                    *list = ordered(std::mem::take(list), order, rule);
                }
            }
        }
        Ok(live)
    }

    fn list(&self, live: Vec<Value>, patch: &[Value], path: &mut Vec<String>) -> Result<Vec<Value>, StatusError> {
        let key = match keys::rule(self.kind, path) {
            ListRule::Replace => return Ok(patch.iter().map(stripped).collect()),
            ListRule::Set => return Ok(united(live, patch)),
            ListRule::Map(key) => key,
        };
        let mut merged = live.clone();
        let mut replaces = false;
        let mut named = Vec::new();
        for item in patch {
            let map = item.as_object().ok_or_else(|| StatusError::bad_request(format!("list {} holds objects only", path.join("."))))?;
            let identity = map.get(key);
            match directive(map)? {
                Some(Directive::Replace) if identity.is_none() => replaces = true,
                Some(Directive::Delete) => {
                    let identity = identity.ok_or_else(|| no_key(path, key))?;
                    merged.retain(|old| old.get(key) != Some(identity));
                }
                _ => named.push((identity.ok_or_else(|| no_key(path, key))?, map)),
            }
        }
        if replaces {
            return Ok(named.into_iter().map(|(_, map)| Value::Object(without_directives(map))).collect());
        }
        for (identity, map) in &named {
            match merged.iter_mut().find(|old| old.get(key) == Some(*identity)) {
                Some(Value::Object(old)) => *old = self.map(std::mem::take(old), map, path)?,
                _ => merged.push(Value::Object(without_directives(map))),
            }
        }
        let order: Vec<Value> = named.iter().map(|(_, map)| Value::Object((*map).clone())).collect();
        Ok(interleaved(merged, &order, &live, ListRule::Map(key)))
    }
}

enum Directive {
    Replace,
    Delete,
    Merge,
}

fn directive(patch: &Map<String, Value>) -> Result<Option<Directive>, StatusError> {
    match patch.get(PATCH).map(Value::as_str) {
        None => Ok(None),
        Some(Some("replace")) => Ok(Some(Directive::Replace)),
        Some(Some("delete")) => Ok(Some(Directive::Delete)),
        Some(Some("merge")) => Ok(Some(Directive::Merge)),
        Some(_) => Err(StatusError::bad_request(format!("unknown patch type found: {}", patch[PATCH]))),
    }
}

fn malformed(directive: &str) -> StatusError {
    StatusError::bad_request(format!("{directive} in a strategic merge patch must be a list"))
}

fn no_key(path: &[String], key: &str) -> StatusError {
    StatusError::bad_request(format!("map in {} does not contain declared merge key: {key}", path.join(".")))
}

fn retain(live: &mut Map<String, Value>, keep: &Value, patch: &Map<String, Value>) -> Result<(), StatusError> {
    let keep: Vec<&str> = keep.as_array().ok_or_else(|| malformed(RETAIN_KEYS))?.iter().filter_map(Value::as_str).collect();
    if let Some((extra, _)) = patch.iter().find(|(key, value)| !key.starts_with('$') && !value.is_null() && !keep.contains(&key.as_str())) {
        return Err(StatusError::bad_request(format!("the patch sets {extra}, which its $retainKeys list does not name")));
    }
    live.retain(|key, _| keep.contains(&key.as_str()));
    Ok(())
}

/// A value of the patch as it may be stored: without directives and without nulls in maps.
fn stripped(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_directives(map)),
        Value::Array(list) => {
            let deleted = |item: &&Value| {
                item.get(PATCH).is_some_and(|d| d == "delete" || (d == "replace" && item.as_object().is_some_and(|m| m.len() == 1)))
            };
            Value::Array(list.iter().filter(|item| !deleted(item)).map(stripped).collect())
        }
        other => other.clone(),
    }
}

fn without_directives(map: &Map<String, Value>) -> Map<String, Value> {
    let stored = |(key, value): &(&String, &Value)| !key.starts_with('$') && !value.is_null();
    map.iter().filter(stored).map(|(key, value)| (key.clone(), stripped(value))).collect()
}

fn united(mut live: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    let before = live.clone();
    for item in patch {
        if !live.contains(item) {
            live.push(item.clone());
        }
    }
    interleaved(live, patch, &before, ListRule::Set)
}

/// Where an item stands in a list, by key or by value.
fn position(list: &[Value], item: &Value, rule: ListRule) -> Option<usize> {
    match rule {
        ListRule::Map(key) => list.iter().position(|other| other.get(key).is_some() && other.get(key) == item.get(key)),
        _ => list.iter().position(|other| other == item),
    }
}

/// Items that `order` names in that order, the others woven in where they stood among them in the live list.
fn interleaved(items: Vec<Value>, order: &[Value], live: &[Value], rule: ListRule) -> Vec<Value> {
    let (mut named, others): (Vec<Value>, Vec<Value>) = items.into_iter().partition(|item| position(order, item, rule).is_some());
    named.sort_by_key(|item| position(order, item, rule));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    loop {
        let take_other = match (others.peek(), named.peek()) {
            (None, None) => return out,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(next)) => {
                position(live, other, rule).zip(position(live, next, rule)).is_some_and(|(before, after)| before < after)
            }
        };
        out.extend(if take_other { others.next() } else { named.next() });
    }
}

fn ordered(list: Vec<Value>, order: &[Value], rule: ListRule) -> Vec<Value> {
    let live = list.clone();
    interleaved(list, order, &live, rule)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(kind: (&str, &str), live: Value, patch: Value) -> Value {
        let mut object = live;
        apply(&mut object, &patch, &GroupKind::new(kind.0, kind.1)).unwrap();
        object
    }

    #[test]
    fn maps_merge_and_null_removes() {
        let result = merged(("", "ConfigMap"), json!({"data": {"x": "1", "y": "2"}}), json!({"data": {"z": "3", "y": null}}));
        assert_eq!(result, json!({"data": {"x": "1", "z": "3"}}));
    }

    #[test]
    fn lists_merge_by_key() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "1", "args": ["x", "y"]}, {"name": "b", "image": "1"}]}});
        let patch = json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}});
        let expected = json!({"spec": {"containers": [
            {"name": "a", "image": "1", "args": ["x", "y"]}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}});
        assert_eq!(merged(("", "Pod"), pod.clone(), patch), expected);

        let patch = json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}});
        assert_eq!(merged(("", "Pod"), pod.clone(), patch), json!({"spec": {"containers": [{"name": "b", "image": "1"}]}}));

        let patch = json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}});
        assert_eq!(merged(("", "Pod"), pod.clone(), patch), json!({"spec": {"containers": [{"name": "z"}]}}));

        let patch =
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "args": ["z"]}]}});
        let expected = json!({"spec": {"containers": [{"name": "b", "image": "1"}, {"name": "a", "image": "1", "args": ["z"]}]}});
        assert_eq!(merged(("", "Pod"), pod, patch), expected);
    }

    #[test]
    fn a_node_keeps_conditions_that_the_patch_does_not_name() {
        let node = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "DiskPressure", "status": "False"}]}});
        let patch = json!({"status": {"$setElementOrder/conditions": [{"type": "Ready"}, {"type": "DiskPressure"}],
                           "conditions": [{"type": "Ready", "status": "True"}]}});
        let expected =
            json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}]}});
        assert_eq!(merged(("", "Node"), node, patch), expected);
    }

    #[test]
    fn taints_are_replaced() {
        let node = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
        let patch = json!({"spec": {"taints": [{"key": "b", "effect": "NoExecute"}]}});
        assert_eq!(merged(("", "Node"), node.clone(), patch.clone()), patch);
        assert_eq!(
            merged(("", "Node"), node, json!({"spec": {"unschedulable": true, "taints": null}})),
            json!({"spec": {"unschedulable": true}})
        );
    }

    #[test]
    fn plain_lists_unite_and_lose_what_is_named() {
        let object = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"finalizers": ["c", "b"]}});
        assert_eq!(merged(("", "Secret"), object.clone(), patch), json!({"metadata": {"finalizers": ["c", "a", "b"]}}));
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b"]}});
        assert_eq!(merged(("", "Secret"), object, patch), json!({"metadata": {"finalizers": ["b"]}}));
    }

    #[test]
    fn only_retained_keys_stay() {
        let object = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        assert_eq!(merged(("apps", "Deployment"), object.clone(), patch), json!({"spec": {"strategy": {"type": "Recreate"}}}));
        let patch = json!({"spec": {"$patch": "replace", "paused": true}});
        assert_eq!(merged(("apps", "Deployment"), object, patch), json!({"spec": {"paused": true}}));
    }

    #[test]
    fn malformed_patches_are_refused() {
        let object = json!({"spec": {"containers": [{"name": "a"}]}});
        for patch in
            [json!([]), json!({"$patch": "burn"}), json!({"spec": {"containers": [{"image": "x"}]}}), json!({"spec": {"containers": [1]}})]
        {
            assert!(apply(&mut object.clone(), &patch, &GroupKind::new("", "Pod")).is_err(), "{patch}");
        }
    }

    #[test]
    fn directives_are_never_stored() {
        let patch = json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "x": null}]}}}});
        assert_eq!(
            merged(("apps", "Deployment"), json!({}), patch),
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}]}}}})
        );
    }
}
