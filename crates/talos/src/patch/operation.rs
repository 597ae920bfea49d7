//! One JSON patch operation, with the meaning that the Go library evanphx/json-patch gives it.

use serde_json::{Map, Value};

/// Applies one operation. The error says why not, by path and key names only.
pub(super) fn apply(document: &mut Value, operation: &Value) -> Result<(), String> {
    let Some(fields) = operation.as_object() else { return Err("an operation is an object with op, path and value".to_owned()) };
    let op = text(fields, "op")?;
    let path = pointer(text(fields, "path")?)?;
    match op {
        "add" => add(document, &path, value(fields)?),
        "replace" => {
            get(document, &path)?;
            set(document, &path, value(fields)?)
        }
        "remove" => take(document, &path).map(drop),
        "copy" => {
            let copied = get(document, &pointer(text(fields, "from")?)?)?.clone();
            add(document, &path, copied)
        }
        "move" => {
            let moved = take(document, &pointer(text(fields, "from")?)?)?;
            add(document, &path, moved)
        }
        "test" => {
            let wanted = value(fields)?;
            let found = if wanted.is_null() { get(document, &path).cloned().unwrap_or(Value::Null) } else { get(document, &path)?.clone() };
            if found == wanted { Ok(()) } else { Err("the value there is another one".to_owned()) }
        }
        other => Err(format!("op {other:?} is not one of add, replace, remove, copy, move, test")),
    }
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    fields.get(name).and_then(Value::as_str).ok_or_else(|| format!("it has no {name}"))
}

fn value(fields: &Map<String, Value>) -> Result<Value, String> {
    fields.get("value").cloned().ok_or_else(|| "it has no value".to_owned())
}

fn pointer(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let Some(rest) = text.strip_prefix('/') else { return Err(format!("the path {text:?} does not start with /")) };
    Ok(rest.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect())
}

/// The value at `path`; the error names the deepest part that exists.
fn get<'a>(document: &'a Value, path: &[String]) -> Result<&'a Value, String> {
    let mut value = document;
    for (depth, part) in path.iter().enumerate() {
        value = child(value, part).ok_or_else(|| missing(value, path, depth))?;
    }
    Ok(value)
}

fn get_mut<'a>(document: &'a mut Value, path: &[String]) -> Result<&'a mut Value, String> {
    get(document, path)?;
    let mut value = document;
    for part in path {
        value = match value {
            Value::Object(map) => map.get_mut(part),
            Value::Array(items) => index(part, items.len()).ok().and_then(|index| items.get_mut(index)),
            _ => None,
        }
        .ok_or_else(|| "the path does not exist".to_owned())?;
    }
    Ok(value)
}

fn child<'a>(value: &'a Value, part: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(part),
        Value::Array(items) => index(part, items.len()).ok().and_then(|index| items.get(index)),
        _ => None,
    }
}

fn missing(value: &Value, path: &[String], depth: usize) -> String {
    let above: String = path.iter().take(depth).map(|part| format!("/{part}")).collect();
    let above = if above.is_empty() { "the configuration".to_owned() } else { above };
    let part = path.get(depth).map(String::as_str).unwrap_or_default();
    match value {
        Value::Object(map) => {
            let keys: Vec<&str> = map.keys().map(String::as_str).collect();
            format!("{above} has no key {part:?}, only: {}", if keys.is_empty() { "none".to_owned() } else { keys.join(", ") })
        }
        Value::Array(items) => format!("{above} is a list of {} and has no element {part:?}", items.len()),
        _ => format!("{above} is a single value and has nothing below it"),
    }
}

/// An existing element's index; negative ones count from the end, as upstream has it.
fn index(part: &str, length: usize) -> Result<usize, String> {
    let number: i64 = part.parse().map_err(|_| format!("{part:?} is not an index of a list"))?;
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let number = if number < 0 { number + length } else { number };
    if number < 0 || number >= length {
        return Err(format!("index {part} is outside the list of {length}"));
    }
    usize::try_from(number).map_err(|_| format!("{part:?} is not an index of a list"))
}

fn add(document: &mut Value, path: &[String], value: Value) -> Result<(), String> {
    let Some((last, above)) = path.split_last() else {
        *document = value;
        return Ok(());
    };
    let parent = get_mut(document, above)?;
    match parent {
        Value::Object(map) => {
            map.insert(last.clone(), value);
            Ok(())
        }
        Value::Array(items) => {
            let at = if last == "-" || last.parse() == Ok(items.len()) { items.len() } else { index(last, items.len())? };
            items.insert(at, value);
            Ok(())
        }
        other => Err(missing(other, path, above.len())),
    }
}

/// Puts `value` in place of what is at `path`, which exists.
fn set(document: &mut Value, path: &[String], value: Value) -> Result<(), String> {
    *get_mut(document, path)? = value;
    Ok(())
}

fn take(document: &mut Value, path: &[String]) -> Result<Value, String> {
    get(document, path)?;
    let Some((last, above)) = path.split_last() else { return Err("the whole configuration cannot be removed".to_owned()) };
    match get_mut(document, above)? {
        Value::Object(map) => map.shift_remove(last).ok_or_else(|| "the path does not exist".to_owned()),
        Value::Array(items) => Ok(items.remove(index(last, items.len())?)),
        _ => Err("the path does not exist".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcome(document: Value, operation: Value) -> Result<Value, String> {
        let mut document = document;
        apply(&mut document, &operation).map(|()| document)
    }

    #[test]
    fn operations_do_what_the_go_library_does() {
        let base = || json!({ "a": { "b": [1, 2] }, "c/d": null });
        let cases = [
            (json!({ "op": "add", "path": "/a/x", "value": 1 }), Some(json!({ "a": { "b": [1, 2], "x": 1 }, "c/d": null }))),
            (json!({ "op": "add", "path": "/a/b/-", "value": 3 }), Some(json!({ "a": { "b": [1, 2, 3] }, "c/d": null }))),
            (json!({ "op": "add", "path": "/a/b/2", "value": 3 }), Some(json!({ "a": { "b": [1, 2, 3] }, "c/d": null }))),
            (json!({ "op": "add", "path": "/a/b/0", "value": 3 }), Some(json!({ "a": { "b": [3, 1, 2] }, "c/d": null }))),
            (json!({ "op": "add", "path": "/a/b/3", "value": 3 }), None),
            (json!({ "op": "add", "path": "/x/y", "value": 3 }), None),
            (json!({ "op": "replace", "path": "/a/x", "value": 3 }), None),
            (json!({ "op": "replace", "path": "/a/b", "value": 3 }), Some(json!({ "a": { "b": 3 }, "c/d": null }))),
            (json!({ "op": "remove", "path": "/a/b/-1" }), Some(json!({ "a": { "b": [1] }, "c/d": null }))),
            (json!({ "op": "remove", "path": "/a/x" }), None),
            (json!({ "op": "remove", "path": "/c~1d" }), Some(json!({ "a": { "b": [1, 2] } }))),
            (json!({ "op": "move", "from": "/a/b", "path": "/b" }), Some(json!({ "a": {}, "c/d": null, "b": [1, 2] }))),
            (json!({ "op": "copy", "from": "/a/b/0", "path": "/z" }), Some(json!({ "a": { "b": [1, 2] }, "c/d": null, "z": 1 }))),
            (json!({ "op": "test", "path": "/a/b/1", "value": 2 }), Some(base())),
            (json!({ "op": "test", "path": "/a/b/1", "value": 3 }), None),
            (json!({ "op": "test", "path": "/nothing", "value": null }), Some(base())),
            (json!({ "op": "add", "path": "/a" }), None),
            (json!({ "op": "merge", "path": "/a", "value": 1 }), None),
            (json!({ "op": "add", "path": "a", "value": 1 }), None),
        ];
        for (operation, expected) in cases {
            assert_eq!(outcome(base(), operation.clone()).ok(), expected, "{operation}");
        }
    }

    #[test]
    fn a_missing_path_is_explained_without_values() {
        let error = outcome(json!({ "a": { "key": "secret" } }), json!({ "op": "add", "path": "/a/x/y", "value": 1 })).unwrap_err();
        assert_eq!(error, "/a has no key \"x\", only: key");
    }
}
