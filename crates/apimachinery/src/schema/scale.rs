//! Judges the fields that a scale subresource reads, whatever the schema says of them.

use serde_json::{Value, json};

use crate::field::FieldError;

fn replicas(object: &Value, path: &str) -> Vec<FieldError> {
    let mut value = object;
    let names: Vec<&str> = path.trim_start_matches('.').split('.').collect();
    for name in &names {
        match value.get(name) {
            Some(next) => value = next,
            None => return Vec::new(),
        }
    }
    let accessor = |shown: String, found: &str| {
        let dotted = names.join(".");
        vec![FieldError::invalid(path, 0, format!(".{dotted} accessor error: {shown} is of the type {found}, expected int64"))]
    };
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(n) if n < 0 => vec![FieldError::invalid(path, json!(n), "should be a non-negative integer")],
            Some(n) if n > i64::from(i32::MAX) => {
                vec![FieldError::invalid(path, json!(n), format!("should be less than or equal to {}", i32::MAX))]
            }
            Some(_) => Vec::new(),
            None => accessor(number.to_string(), "float64"),
        },
        Value::String(text) => accessor(text.clone(), "string"),
        Value::Bool(flag) => accessor(flag.to_string(), "bool"),
        Value::Null => accessor("<nil>".to_owned(), "<nil>"),
        Value::Array(_) => accessor(value.to_string(), "[]interface {}"),
        Value::Object(_) => accessor(value.to_string(), "map[string]interface {}"),
    }
}

/// What is wrong with the wanted number of replicas; `path` is `specReplicasPath`.
#[must_use]
pub fn scale_spec_errors(object: &Value, path: &str) -> Vec<FieldError> {
    replicas(object, path)
}

/// What is wrong with the number of replicas there are (`statusReplicasPath`) and their selector (`labelSelectorPath`).
#[must_use]
pub fn scale_status_errors(object: &Value, replicas_path: &str, selector_path: Option<&str>) -> Vec<FieldError> {
    let mut errors = replicas(object, replicas_path);
    if let Some(path) = selector_path {
        let names = path.trim_start_matches('.');
        let found = names.split('.').try_fold(object, |value, name| value.get(name));
        if let Some(value) = found.filter(|value| !value.is_string()) {
            errors.push(FieldError::invalid(path, "", format!(".{names} accessor error: {value} is not a string")));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_judged() {
        for (value, expected) in [
            (json!(3), None),
            (json!(-1), Some(".spec.replicas: Invalid value: -1: should be a non-negative integer")),
            (json!(3_000_000_000_i64), Some(".spec.replicas: Invalid value: 3000000000: should be less than or equal to 2147483647")),
            (
                json!("many"),
                Some(".spec.replicas: Invalid value: 0: .spec.replicas accessor error: many is of the type string, expected int64"),
            ),
        ] {
            let errors = scale_spec_errors(&json!({"spec": {"replicas": value}}), ".spec.replicas");
            assert_eq!(errors.first().map(ToString::to_string).as_deref(), expected);
        }
        assert!(scale_spec_errors(&json!({}), ".spec.replicas").is_empty());
        assert_eq!(scale_status_errors(&json!({"status": {"selector": 1}}), ".status.replicas", Some(".status.selector")).len(), 1);
    }
}
