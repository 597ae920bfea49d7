//! The objects in a Secret or ConfigMap. Pure.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The hash of a source's data, in upstream's form.
pub fn hash(data: &BTreeMap<String, String>) -> String {
    let mut digest = Sha256::new();
    for (key, text) in data {
        for part in [key, text] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
    }
    format!("sha256:{}", hex::encode(digest.finalize()))
}

/// The objects in YAML or JSON texts, by the order of their keys; lists are taken apart, empty documents left out.
///
/// # Errors
/// What is wrong and under which key, never the content.
pub fn objects(data: &BTreeMap<String, String>) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    for (key, text) in data {
        let documents = talos::yaml::read(text).map_err(|_| format!("key {key} is not valid YAML"))?;
        for document in documents {
            take(document, key, &mut objects)?;
        }
    }
    Ok(objects)
}

fn take(document: Value, key: &str, objects: &mut Vec<Value>) -> Result<(), String> {
    match document {
        Value::Null => Ok(()),
        Value::Array(list) => list.into_iter().try_for_each(|item| take(item, key, objects)),
        Value::Object(mut map) => {
            let is_list = map.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
            if let Some(Value::Array(items)) = map.remove("items").filter(|_| is_list) {
                return items.into_iter().try_for_each(|item| take(item, key, objects));
            }
            let object = Value::Object(map);
            for field in ["/apiVersion", "/kind", "/metadata/name"] {
                if object.pointer(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                    return Err(format!("key {key} holds an object without {}", field.trim_start_matches('/').replace('/', ".")));
                }
            }
            objects.push(object);
            Ok(())
        }
        _ => Err(format!("key {key} holds something that is not an object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(text: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("k".to_owned(), text.to_owned())])
    }

    #[test]
    fn documents_and_lists_are_taken_apart() {
        let text = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: a}\n---\n---\napiVersion: v1\nkind: List\nitems:\n\
                    - {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n";
        let names: Vec<String> = objects(&data(text)).unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, ["a", "b"]);
        let json = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}"#;
        assert_eq!(objects(&data(json)).unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_used_is_told_without_content() {
        assert_eq!(objects(&data("a: [secret")).unwrap_err(), "key k is not valid YAML");
        assert_eq!(objects(&data("secret")).unwrap_err(), "key k holds something that is not an object");
        assert_eq!(
            objects(&data("apiVersion: v1\nkind: Secret\ndata: {p: secret}")).unwrap_err(),
            "key k holds an object without metadata.name"
        );
    }

    #[test]
    fn a_hash_tells_keys_from_values() {
        let one = BTreeMap::from([("a".to_owned(), "bc".to_owned())]);
        let other = BTreeMap::from([("ab".to_owned(), "c".to_owned())]);
        assert_ne!(hash(&one), hash(&other));
        assert!(hash(&one).starts_with("sha256:") && hash(&one).len() == 71);
    }
}
