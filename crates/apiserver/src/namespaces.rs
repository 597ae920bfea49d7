//! Namespaces: those every cluster has, and how one that is deleted is emptied.

use std::sync::Arc;

use apimachinery::{StatusError, meta};
use serde_json::{Value, json};

use crate::delete::{DeleteOptions, Propagation, delete};
use crate::object::{Entry, ObjectKey, ResourceId};
use crate::options::OpenError;
use crate::server::{CommitError, Inner};
use crate::strategy::NAME_LABEL;

/// Made when a server opens.
const DEFAULTS: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(&ResourceId::new("", "namespaces"), "", name)
}

/// Makes the namespaces that every cluster has, where they are missing.
///
/// # Errors
/// When one cannot be written.
pub async fn make_defaults(inner: &Arc<Inner>) -> Result<(), OpenError> {
    let now = inner.clock.now_seconds().to_string();
    let missing = DEFAULTS.iter().filter(|name| inner.latest(&key(name)).is_none());
    let writes = missing.map(async |name| {
        let object = json!({
            "kind": "Namespace", "apiVersion": "v1",
            "metadata": {"name": name, "uid": inner.uids.uuid().to_string(), "creationTimestamp": now, "labels": {NAME_LABEL: name}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        });
        inner
            .commit(&key(name), None, Some(object.into()))
            .await
            .map_err(|error| OpenError::Start { what: format!("the namespace {name}"), reason: StatusError::from(error).to_string() })
    });
    futures::future::try_join_all(writes).await?;
    Ok(())
}

/// Deletes what is in a namespace that is being deleted. When nothing is left, the namespace gives up its finalizer and goes; until then its
/// conditions say what remains and who holds it.
///
/// # Errors
/// When an object cannot be deleted or the namespace cannot be written.
pub async fn empty(inner: &Arc<Inner>, name: &str) -> Result<(), StatusError> {
    let Some(namespace) = inner.latest(&key(name)).filter(|namespace| namespace.is_deleting()) else { return Ok(()) };
    let mut failure = None;
    let mut kinds = inner.state().store.kinds_in(name);
    // Secrets and the like go last: by then whoever depends on them is marked as deleted and makes do without.
    kinds.sort_by_key(|(id, _)| id.group.is_empty());
    for (id, _) in &kinds {
        // Objects of a kind that is no longer served are deleted by nobody; a definition takes its objects along.
        let Some(resource) = inner.registry().storing(id).cloned() else { continue };
        let objects = inner.state().store.list(id, Some(name));
        for object in objects.iter().filter(|object| !object.is_deleting()) {
            let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
            match delete(inner, &resource, &object.key, &options).await {
                Ok(_) => {}
                Err(error) if error.code == 404 => {}
                Err(error) => failure = Some(error),
            }
        }
    }
    let remaining = inner.state().store.kinds_in(name);
    if remaining.is_empty() {
        return finish(inner, &namespace).await;
    }
    report(inner, &namespace, &remaining).await?;
    failure.map_or(Ok(()), Err)
}

async fn finish(inner: &Arc<Inner>, namespace: &Entry) -> Result<(), StatusError> {
    let mut object = namespace.value();
    let finalizers = meta::at(&object, &["spec", "finalizers"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let others: Vec<Value> = finalizers.into_iter().filter(|finalizer| finalizer.as_str() != Some("kubernetes")).collect();
    let is_last = others.is_empty() && meta::finalizers(&object).is_empty();
    if let Some(map) = object.as_object_mut() {
        map.insert("spec".to_owned(), if others.is_empty() { json!({}) } else { json!({"finalizers": others}) });
    }
    if !is_last && object == namespace.value() {
        return Ok(());
    }
    write(inner, namespace, if is_last { None } else { Some(object) }).await
}

async fn report(inner: &Arc<Inner>, namespace: &Entry, remaining: &[(ResourceId, usize)]) -> Result<(), StatusError> {
    let resources: Vec<String> = remaining.iter().map(|(id, count)| format!("{id} has {count} resource instances")).collect();
    let mut holders: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    {
        let state = inner.state();
        for (id, _) in remaining {
            for entry in state.store.list(id, Some(&namespace.key.name)) {
                for finalizer in &entry.facts.finalizers {
                    *holders.entry(finalizer.clone()).or_default() += 1;
                }
            }
        }
    }
    let held: Vec<String> = holders.iter().map(|(finalizer, count)| format!("{finalizer} in {count} resource instances")).collect();
    let mut object = namespace.value();
    let now = inner.clock.now_seconds().to_string();
    let mut conditions =
        vec![("NamespaceContentRemaining", "SomeResourcesRemain", format!("Some resources are remaining: {}", resources.join(", ")))];
    if !held.is_empty() {
        let message = format!("Some content in the namespace has finalizers remaining: {}", held.join(", "));
        conditions.push(("NamespaceFinalizersRemaining", "SomeFinalizersRemain", message));
    }
    let old = meta::at(&object, &["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let since = |kind: &str| {
        let found = old.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind));
        found.and_then(|condition| condition.get("lastTransitionTime").cloned()).unwrap_or_else(|| json!(now))
    };
    let conditions: Vec<Value> = conditions
        .into_iter()
        .map(|(kind, reason, message)| json!({"type": kind, "status": "True", "lastTransitionTime": since(kind), "reason": reason, "message": message}))
        .collect();
    if old == conditions {
        return Ok(());
    }
    if let Some(map) = object.as_object_mut() {
        map.insert("status".to_owned(), json!({"phase": "Terminating", "conditions": conditions}));
    }
    write(inner, namespace, Some(object)).await
}

async fn write(inner: &Arc<Inner>, namespace: &Entry, object: Option<Value>) -> Result<(), StatusError> {
    match inner.commit(&namespace.key, Some(namespace.revision), object.map(Into::into)).await {
        Ok(_) => Ok(()),
        Err(CommitError::Moved) => {
            inner.state().store.add_chore(crate::store::Chore::Namespace(namespace.key.name.clone()));
            Ok(())
        }
        Err(other) => Err(other.into()),
    }
}
