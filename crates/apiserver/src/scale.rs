//! The `scale` subresource: one number of an object, under one kind for all.

use apimachinery::selector::LabelSelector;
use apimachinery::{FieldError, GroupKind, StatusError, meta};
use serde_json::{Value, json};

use crate::object::Entry;
use crate::patch::Patch;
use crate::registry::ScalePaths;
use crate::response::{self, Answer};
use crate::write::{Modified, Write};

fn parts(path: &str) -> Vec<&str> {
    path.trim_start_matches('.').split('.').collect()
}

/// The `Scale` of an object.
pub fn of(object: &Value, paths: &ScalePaths) -> Value {
    let number = |path: &str| meta::at(object, &parts(path)).and_then(Value::as_i64).unwrap_or(0);
    let mut status = json!({"replicas": number(&paths.status_replicas)});
    let selector = paths.label_selector.as_deref().and_then(|path| meta::at(object, &parts(path)));
    let text = match selector {
        Some(Value::String(text)) => text.clone(),
        Some(selector) => LabelSelector::from_json(selector).map(|selector| selector.to_string()).unwrap_or_default(),
        None => String::new(),
    };
    if let Some(map) = status.as_object_mut().filter(|_| !text.is_empty()) {
        map.insert("selector".to_owned(), json!(text));
    }
    let mut metadata = serde_json::Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta::at(object, &["metadata", field]) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut spec = json!({});
    if let Some(map) = spec.as_object_mut().filter(|_| number(&paths.spec_replicas) != 0) {
        map.insert("replicas".to_owned(), json!(number(&paths.spec_replicas)));
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

fn set(object: &mut Value, path: &str, replicas: i64) {
    let mut at = object;
    let names = parts(path);
    let Some((last, parents)) = names.split_last() else { return };
    for name in parents {
        let Some(map) = at.as_object_mut() else { return };
        at = map.entry(*name).or_insert_with(|| json!({}));
    }
    if let Some(map) = at.as_object_mut() {
        map.insert((*last).to_owned(), json!(replicas));
    }
}

impl Write<'_> {
    /// Answers with the scale of an object.
    ///
    /// # Errors
    /// When the object cannot be shown in the version of the request.
    pub fn show_scale(&self, entry: &Entry, paths: &ScalePaths) -> Result<Answer, StatusError> {
        Ok(response::value(200, &of(&self.presenter.value(self.inner, entry)?, paths)))
    }

    /// Changes the number of replicas: `change` makes the wanted `Scale` from the present one.
    ///
    /// # Errors
    /// The answer to the client.
    pub async fn change_scale(&self, name: &str, paths: &ScalePaths, change: &ScaleChange) -> Result<Answer, StatusError> {
        let produce = |current: &Value| -> Result<Value, StatusError> {
            let scale = match change {
                ScaleChange::Put(scale) => scale.clone(),
                ScaleChange::Patch(patch) => patch.apply(&of(current, paths), &GroupKind::new("autoscaling", "Scale"))?,
            };
            let wanted = meta::at(&scale, &["spec", "replicas"]).cloned().unwrap_or_else(|| json!(0));
            let replicas = wanted.as_i64().filter(|replicas| (0..=i64::from(i32::MAX)).contains(replicas)).ok_or_else(|| {
                let error = FieldError::invalid("spec.replicas", wanted.clone(), "must be greater than or equal to 0");
                StatusError::invalid(&GroupKind::new("autoscaling", "Scale"), name, vec![error])
            })?;
            let mut object = current.clone();
            set(&mut object, &paths.spec_replicas, replicas);
            for field in ["resourceVersion", "uid"] {
                match meta::at(&scale, &["metadata", field]) {
                    Some(given) => meta::set(&mut object, field, given.clone()),
                    None => meta::unset(&mut object, field),
                }
            }
            Ok(object)
        };
        let (modified, warnings) = self.modify(name, "scale", &produce).await?;
        let object = match modified {
            Modified::Stored(entry) => self.presenter.value(self.inner, &entry)?,
            Modified::Unstored(object) => self.presenter.convert(self.inner, object)?,
        };
        Ok(response::with_warnings(response::value(200, &of(&object, paths)), &warnings))
    }
}

/// How a scale is changed.
#[derive(Debug)]
pub enum ScaleChange {
    Put(Value),
    Patch(Patch),
}
