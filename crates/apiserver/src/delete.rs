//! Deleting: preconditions, finalizers and what happens to dependents.
//!
//! An object goes at once when nothing holds it; else it is marked with a `deletionTimestamp` and goes when its last finalizer is taken.
//! `Foreground` and `Orphan` are finalizers that garbage collection (see `housekeeping`) takes when the dependents are gone, or set free.
//!
//! Pods go gracefully: marked with the time at which their grace is over, and gone when their kubelet deletes them again without grace. A
//! pod that has no node, or has ended, needs none. A second deletion may only shorten the grace.

use std::sync::Arc;

use apimachinery::admission::{Operation, Request};
use apimachinery::{FieldError, GroupKind, StatusError, meta, status};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::admit::StoreLookup;
use crate::definition;
use crate::object::{Entry, ObjectKey};
use crate::present::{ListMeta, Presenter};
use crate::read::Selection;
use crate::registry::Resource;
use crate::request::Query;
use crate::response::{self, Answer};
use crate::server::{CommitError, Inner};
use crate::store::{FOREGROUND, ORPHAN};
use crate::strategy;

const ATTEMPTS: usize = 64;

/// What happens to dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They go afterwards.
    Background,
    /// They go first.
    Foreground,
    /// They stay, without their owner.
    Orphan,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// `None`: as finalizers that are there already say, else in the background.
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    /// For kinds that are stopped before they go; `None`: as the object says.
    pub grace_period_seconds: Option<i64>,
    pub is_dry_run: bool,
}

/// A pod's grace when it does not say.
const POD_GRACE_SECONDS: i64 = 30;

/// How long a pod is given to stop, as upstream's pod strategy has it.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let text = |path: &[&str]| meta::at(pod, path).and_then(Value::as_str).unwrap_or_default();
    if text(&["spec", "nodeName"]).is_empty() || matches!(text(&["status", "phase"]), "Succeeded" | "Failed") {
        return 0;
    }
    let own = meta::at(pod, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64).unwrap_or(POD_GRACE_SECONDS);
    let grace = asked.unwrap_or(own);
    if grace < 0 { 1 } else { grace }
}

impl DeleteOptions {
    /// From the body (null when there is none), else from the query.
    ///
    /// # Errors
    /// When a value is not known.
    pub fn parse(body: &Value, query: &Query) -> Result<Self, StatusError> {
        let mut errors = Vec::new();
        let text = |path: &[&str]| meta::at(body, path).and_then(Value::as_str).filter(|text| !text.is_empty());
        let orphan = meta::at(body, &["orphanDependents"])
            .and_then(Value::as_bool)
            .or_else(|| query.has("orphanDependents").then(|| query.flag("orphanDependents")));
        let propagation = match (text(&["propagationPolicy"]).or_else(|| query.get("propagationPolicy")), orphan) {
            (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
            (None, None) => None,
            (Some(_), Some(_)) => {
                errors.push(FieldError::invalid(
                    "propagationPolicy",
                    Value::Null,
                    "orphanDependents and deletionPropagation cannot be both set",
                ));
                None
            }
            (Some(other), None) => {
                errors.push(FieldError::not_supported("propagationPolicy", other, &["Foreground", "Background", "Orphan", "nil"]));
                None
            }
        };
        let dry_run: Vec<&str> = match meta::at(body, &["dryRun"]).and_then(Value::as_array) {
            Some(values) => values.iter().filter_map(Value::as_str).collect(),
            None => query.all("dryRun").collect(),
        };
        if dry_run.iter().any(|value| *value != "All") {
            errors.push(FieldError::not_supported("dryRun", json!(dry_run), &["All"]));
        }
        let grace = meta::at(body, &["gracePeriodSeconds"]).and_then(Value::as_i64);
        let grace = grace.or_else(|| query.get("gracePeriodSeconds").and_then(|text| text.parse().ok()));
        if !errors.is_empty() {
            return Err(StatusError::invalid(&GroupKind::new("meta.k8s.io", "DeleteOptions"), "", errors));
        }
        Ok(Self {
            propagation,
            uid: text(&["preconditions", "uid"]).map(str::to_owned),
            resource_version: text(&["preconditions", "resourceVersion"]).map(str::to_owned),
            grace_period_seconds: grace,
            is_dry_run: !dry_run.is_empty(),
        })
    }

    fn check(&self, resource: &Resource, entry: &Entry) -> Result<(), StatusError> {
        let name = &*entry.key.name;
        if let Some(uid) = self.uid.as_ref().filter(|uid| **uid != entry.facts.uid) {
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", entry.facts.uid);
            return Err(StatusError::conflict(&resource.group_resource(), name, &why));
        }
        if let Some(version) = self.resource_version.as_ref().filter(|version| **version != entry.facts.resource_version) {
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
                entry.facts.resource_version
            );
            return Err(StatusError::conflict(&resource.group_resource(), name, &why));
        }
        Ok(())
    }
}

/// What became of a deletion.
#[derive(Debug)]
pub enum Deleted {
    /// It is gone; the last state.
    Gone(Arc<Entry>),
    /// It is marked and waits for its finalizers.
    Marked(Arc<Entry>),
    /// It would be one of these: a dry run.
    WouldBe(Value),
}

/// Deletes one object.
///
/// # Errors
/// When it does not exist, a precondition does not hold, or admission refuses.
pub async fn delete(
    inner: &Arc<Inner>,
    resource: &Arc<Resource>,
    key: &ObjectKey,
    options: &DeleteOptions,
) -> Result<(Deleted, Vec<String>), StatusError> {
    for _ in 0..ATTEMPTS {
        let entry = inner.latest(key).ok_or_else(|| StatusError::not_found(&resource.group_resource(), &key.name))?;
        options.check(resource, &entry)?;
        let is_namespace = &*key.resource.resource == "namespaces" && key.resource.group.is_empty();
        if is_namespace && strategy::IMMORTAL.contains(&&*key.name) {
            return Err(StatusError::forbidden(&resource.group_resource(), &key.name, "this namespace may not be deleted"));
        }
        let stored = entry.value();
        let warnings = admit(inner, resource, key, &stored, options)?;
        let mut object = stored.clone();
        let mut finalizers: Vec<&str> = meta::finalizers(&stored);
        match options.propagation {
            None => {}
            Some(Propagation::Background) => finalizers.retain(|finalizer| *finalizer != ORPHAN && *finalizer != FOREGROUND),
            Some(Propagation::Foreground) => {
                finalizers.retain(|finalizer| *finalizer != ORPHAN);
                if !finalizers.contains(&FOREGROUND) {
                    finalizers.push(FOREGROUND);
                }
            }
            Some(Propagation::Orphan) => {
                finalizers.retain(|finalizer| *finalizer != FOREGROUND);
                if !finalizers.contains(&ORPHAN) {
                    finalizers.push(ORPHAN);
                }
            }
        }
        meta::set_finalizers(&mut object, &finalizers);
        let has_content =
            is_namespace && meta::at(&stored, &["spec", "finalizers"]).and_then(Value::as_array).is_some_and(|held| !held.is_empty());
        let is_pod = &*key.resource.resource == "pods" && key.resource.group.is_empty();
        let grace = if is_pod { pod_grace(&stored, options.grace_period_seconds) } else { 0 };
        let left = meta::at(&stored, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
        // A grace that runs already counts for those who ask for none of their own.
        let grace = match left {
            Some(left) if options.grace_period_seconds.is_none() => left,
            Some(left) => left.min(grace),
            None => grace,
        };
        if finalizers.is_empty() && !has_content && grace == 0 {
            if options.is_dry_run {
                return Ok((Deleted::WouldBe(stored), warnings));
            }
            match inner.commit(key, Some(entry.revision), None).await {
                Ok(entry) => return Ok((Deleted::Gone(entry), warnings)),
                Err(CommitError::Moved) => continue,
                Err(other) => return Err(other.into()),
            }
        }
        if is_pod && left.is_some_and(|left| grace < left) {
            let until = inner.clock.now_seconds().checked_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX);
            meta::set(&mut object, "deletionTimestamp", until.to_string());
            meta::set(&mut object, "deletionGracePeriodSeconds", grace);
        }
        if !entry.is_deleting() {
            let now = inner.clock.now_seconds();
            let until = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX).to_string();
            let now = now.to_string();
            meta::set(&mut object, "deletionTimestamp", until.as_str());
            if !is_namespace {
                meta::set(&mut object, "deletionGracePeriodSeconds", grace);
            }
            if resource.has_generation() {
                meta::set(&mut object, "generation", meta::generation(&stored) + 1);
            }
            if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut).filter(|_| is_namespace) {
                status.insert("phase".to_owned(), json!("Terminating"));
            }
            if definition::is_definition(&key.resource) {
                let mut status = object.get("status").cloned().unwrap_or_default();
                definition::accept(&object, &mut status, &now);
                if let Some(map) = object.as_object_mut() {
                    map.insert("status".to_owned(), status);
                }
            }
        }
        if options.is_dry_run {
            return Ok((Deleted::WouldBe(object), warnings));
        }
        if object == stored {
            return Ok((Deleted::Marked(entry), warnings));
        }
        match inner.commit(key, Some(entry.revision), Some(object.into())).await {
            Ok(entry) => return Ok((Deleted::Marked(entry), warnings)),
            Err(CommitError::Moved) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Err(CommitError::Moved.into())
}

fn admit(inner: &Inner, resource: &Resource, key: &ObjectKey, stored: &Value, options: &DeleteOptions) -> Result<Vec<String>, StatusError> {
    let kind = resource.stored_kind();
    let request = Request {
        gvk: &kind,
        operation: Operation::Delete,
        subresource: None,
        name: &key.name,
        namespace: Some(&*key.namespace).filter(|namespace| !namespace.is_empty()),
        old: Some(stored),
        dry_run: options.is_dry_run,
    };
    inner.admission.validate(&request, None, &StoreLookup(inner))
}

/// Answers a request to delete one object.
///
/// # Errors
/// The answer to the client.
pub async fn answer(inner: &Arc<Inner>, presenter: &Presenter, key: &ObjectKey, options: &DeleteOptions) -> Result<Answer, StatusError> {
    let (deleted, warnings) = delete(inner, &presenter.resource, key, options).await?;
    let answer = match deleted {
        Deleted::Gone(entry) => response::value(200, &status::success(&presenter.resource.group_resource(), &key.name, &entry.facts.uid)),
        Deleted::Marked(entry) => response::json(200, presenter.one(inner, &entry)?),
        Deleted::WouldBe(object) => response::json(200, presenter.unstored(inner, object)?),
    };
    Ok(response::with_warnings(answer, &warnings))
}

/// Answers a request to delete all selected objects, with a list of what they were.
///
/// # Errors
/// When one cannot be deleted; those before it are.
pub async fn collection(
    inner: &Arc<Inner>,
    presenter: &Presenter,
    query: &Query,
    namespace: Option<&str>,
    options: &DeleteOptions,
) -> Result<Answer, StatusError> {
    let selection = Selection::parse(query, namespace, presenter)?;
    let entries = inner.state().store.list(&presenter.resource.id, namespace);
    let mut deleted = Vec::new();
    for entry in entries.into_iter().filter(|entry| selection.matches(entry)) {
        match delete(inner, &presenter.resource, &entry.key, options).await {
            Ok((Deleted::Gone(last) | Deleted::Marked(last), _)) => deleted.push(last),
            Ok((Deleted::WouldBe(_), _)) => deleted.push(entry),
            // Somebody was faster.
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let revision = inner.state().store.revision();
    Ok(response::json(200, presenter.list(inner, &deleted, &ListMeta { revision, ..ListMeta::default() })?))
}
