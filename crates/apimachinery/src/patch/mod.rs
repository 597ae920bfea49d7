//! The three ways to change an object by a patch: JSON patch, JSON merge patch and strategic merge patch.
//!
//! Server-side apply is none of these and is not here. A patch that cannot be carried out leaves the object as it was and
//! gives the answer that a genuine kube-apiserver gives.

mod keys;
mod strategic;

use serde_json::Value;

use crate::gvk::GroupKind;
use crate::status::StatusError;

/// Most operations in one JSON patch.
const OPERATIONS_LIMIT: usize = 10_000;

/// Applies a JSON patch (RFC 6902).
///
/// # Errors
/// 400 when `operations` is no JSON patch, 413 when it has more than 10000 operations, 422 when it cannot be carried out
/// on this object, a failing `test` included.
pub fn json_patch(object: &mut Value, operations: &Value) -> Result<(), StatusError> {
    let count = operations.as_array().map_or(0, Vec::len);
    if count > OPERATIONS_LIMIT {
        return Err(StatusError::too_large(&format!("The allowed maximum operations in a JSON patch is {OPERATIONS_LIMIT}, got {count}")));
    }
    let patch: json_patch::Patch =
        serde_json::from_value(operations.clone()).map_err(|error| StatusError::bad_request(format!("error decoding patch: {error}")))?;
    // The genuine server hides what failed; naming it costs no client anything, so the operation is in a cause.
    json_patch::patch(object, &patch).map_err(|error| {
        StatusError::unprocessable("the server rejected our request due to an error in our request").cause(
            "FieldValueInvalid",
            &format!("JSON patch: {error}"),
            "",
        )
    })
}

/// Applies a JSON merge patch (RFC 7386): null removes, objects merge, everything else replaces.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(map) = target {
        for (key, value) in patch {
            if value.is_null() {
                map.shift_remove(key);
            } else {
                merge_patch(map.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

/// The merge patch that turns `from` into `to`. Nulls inside `to` cannot be expressed, as the format has no way to.
#[must_use]
pub fn merge_diff(from: &Value, to: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (from, to) else { return to.clone() };
    let mut patch = serde_json::Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before @ Value::Object(_)) if value.is_object() => {
                patch.insert(key.clone(), merge_diff(before, value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

/// Applies a strategic merge patch to an object of a built-in kind, with the merge keys of that kind's lists.
///
/// # Errors
/// 400 or 422 when a directive in the patch is malformed.
pub fn strategic_merge(object: &mut Value, patch: &Value, kind: &GroupKind) -> Result<(), StatusError> {
    strategic::apply(object, patch, kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failing_test_is_invalid_and_changes_nothing() {
        let before = json!({"metadata": {"finalizers": ["a"]}});
        let mut object = before.clone();
        let patch = json!([
            {"op": "add", "path": "/x", "value": 1},
            {"op": "test", "path": "/metadata/finalizers/0", "value": "b"},
            {"op": "remove", "path": "/metadata/finalizers/0"},
        ]);
        let error = json_patch(&mut object, &patch).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (422, "the server rejected our request due to an error in our request"));
        assert_eq!(object, before);
    }

    #[test]
    fn json_patches_apply_or_are_refused() {
        let mut object = json!({"spec": {"paused": true, "list": [1, 2]}});
        let patch = json!([
            {"op": "replace", "path": "/spec/paused", "value": false},
            {"op": "add", "path": "/spec/list/-", "value": 3},
            {"op": "add", "path": "/spec/a~1b", "value": "x"},
        ]);
        json_patch(&mut object, &patch).unwrap();
        assert_eq!(object, json!({"spec": {"paused": false, "list": [1, 2, 3], "a/b": "x"}}));
        assert_eq!(json_patch(&mut object, &json!({"op": "add"})).unwrap_err().code, 400);
        assert_eq!(json_patch(&mut object, &json!([{"op": "remove", "path": "/none"}])).unwrap_err().code, 422);
        let many: Vec<Value> = (0..=OPERATIONS_LIMIT).map(|_| json!({"op": "add", "path": "/x", "value": 1})).collect();
        assert_eq!(json_patch(&mut object, &json!(many)).unwrap_err().code, 413);
    }

    #[test]
    fn merge_patches_apply() {
        // The cases of RFC 7386, appendix A.
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target.clone();
            merge_patch(&mut merged, &patch);
            assert_eq!(merged, result, "{target} with {patch}");
        }
    }
}
