//! Reading: get, list and watch, with the meanings of `resourceVersion` that clients rely on.
//!
//! | request | answer |
//! |---|---|
//! | list, no revision or 0 | the newest state |
//! | list, revision N | the newest state when N is not in the future, else 504; `Exact`: the state at N while events since are kept, else 410 |
//! | list, `continue` | the same state as the first page while events since are kept, else 410 |
//! | watch, no revision or 0 | every object as ADDED, then what happens |
//! | watch, revision N | what happened since N; one ERROR event with code 410 when that is no longer known |
//! | watch, `sendInitialEvents` | every object as ADDED, a bookmark that says so, then what happens |

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::selector::{FieldSelector, LabelSelector};
use apimachinery::{FieldError, GroupKind, StatusError, meta};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::object::{Entry, ObjectKey};
use crate::present::{ListMeta, Presenter};
use crate::request::Query;
use crate::response::{self, Answer};
use crate::server::Inner;
use crate::store::Filter;
use crate::watch::{Frames, Item};

/// How long a watch lasts whose client does not say: between this and twice this.
const WATCH_SECONDS: u64 = 1800;
/// How long a list waits for a revision that is still to come.
const FRESH_WAIT: Duration = Duration::from_secs(3);

/// What a list or a watch selects.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub namespace: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
    /// Whether fields beyond the name and the namespace are asked for, so that the object must be read.
    is_deep: bool,
}

impl Selection {
    /// Reads the selectors of a request on objects of `presenter`.
    ///
    /// # Errors
    /// When a selector cannot be read, or a field cannot be selected by.
    pub fn parse(query: &Query, namespace: Option<&str>, presenter: &Presenter) -> Result<Self, StatusError> {
        let labels = query
            .get("labelSelector")
            .map(LabelSelector::parse)
            .transpose()
            .map_err(|error| StatusError::bad_request(error.to_string()))?;
        let fields = query
            .get("fieldSelector")
            .map(FieldSelector::parse)
            .transpose()
            .map_err(|error| StatusError::bad_request(error.to_string()))?;
        let (labels, fields) = (labels.unwrap_or_default(), fields.unwrap_or_default());
        let mut is_deep = false;
        for term in fields.terms() {
            if matches!(term.field.as_str(), "metadata.name" | "metadata.namespace") {
                continue;
            }
            if !is_selectable(&presenter.resource.id.group, &presenter.resource.id.resource, &term.field) {
                return Err(StatusError::bad_request(format!("field label not supported: {}", term.field)));
            }
            is_deep = true;
        }
        Ok(Self { namespace: namespace.map(str::to_owned), labels, fields, is_deep })
    }

    /// Whether `entry` is selected.
    pub fn matches(&self, entry: &Entry) -> bool {
        if self.namespace.as_deref().is_some_and(|namespace| namespace != &*entry.key.namespace) {
            return false;
        }
        if !self.labels.is_everything() && !self.labels.matches(&entry.facts.labels) {
            return false;
        }
        if self.fields.is_everything() {
            return true;
        }
        let object = if self.is_deep { entry.shared() } else { Arc::default() };
        self.fields.matches(|field| match field {
            "metadata.name" => Some(entry.key.name.to_string()),
            "metadata.namespace" => Some(entry.key.namespace.to_string()),
            other => Some(field_text(&object, other)),
        })
    }

    fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The one object that can match, when the selection names one.
    fn single(&self) -> Option<&str> {
        self.fields.required("metadata.name")
    }
}

/// Fields other than name and namespace by which objects of a built-in kind can be selected.
fn is_selectable(group: &str, plural: &str, field: &str) -> bool {
    let fields: &[&str] = match (group, plural) {
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "reportingController",
        ],
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase", "name"],
        ("", "secrets") => &["type"],
        ("apps", "replicasets") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        ("certificates.k8s.io", _) => &["spec.signerName"],
        _ => &[],
    };
    fields.contains(&field)
}

fn field_text(object: &Value, field: &str) -> String {
    let stored = match field {
        "source" => "source.component",
        "name" => "metadata.name",
        "reportingController" => "reportingComponent",
        other => other,
    };
    let stored = stored.strip_prefix("regarding.").map_or_else(|| stored.to_owned(), |rest| format!("involvedObject.{rest}"));
    let path: Vec<&str> = stored.split('.').collect();
    match meta::at(object, &path) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) if field == "spec.unschedulable" || field == "spec.hostNetwork" => "false".to_owned(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

/// One object.
pub fn get(inner: &Inner, presenter: &Presenter, key: &ObjectKey) -> Result<Answer, StatusError> {
    let entry = inner.get(key).ok_or_else(|| StatusError::not_found(&presenter.resource.group_resource(), &key.name))?;
    Ok(response::json(200, presenter.one(inner, &entry)?))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    NotOlderThan,
    Exact,
}

fn list_options_error(errors: Vec<FieldError>) -> StatusError {
    StatusError::invalid(&GroupKind::new("meta.k8s.io", "ListOptions"), "", errors)
}

fn revision_of(query: &Query) -> Result<Option<u64>, StatusError> {
    query.get("resourceVersion").map(|text| text.parse().map_err(|_| StatusError::malformed_resource_version(text))).transpose()
}

fn match_of(query: &Query, revision: Option<u64>) -> Result<Option<Match>, StatusError> {
    let Some(text) = query.get("resourceVersionMatch") else { return Ok(None) };
    if revision.is_none() && !query.flag("sendInitialEvents") {
        return Err(list_options_error(vec![FieldError::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        )]));
    }
    match text {
        "NotOlderThan" => Ok(Some(Match::NotOlderThan)),
        "Exact" if revision == Some(0) => Err(list_options_error(vec![FieldError::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        )])),
        "Exact" => Ok(Some(Match::Exact)),
        other => Err(list_options_error(vec![FieldError::not_supported("resourceVersionMatch", other, &["Exact", "NotOlderThan", ""])])),
    }
}

/// Where a list continues.
#[derive(Serialize, Deserialize)]
struct Token {
    /// The revision of the first page.
    rv: u64,
    /// The last object that was given.
    namespace: String,
    name: String,
}

impl Token {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, StatusError> {
        let decoded = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        decoded.ok_or_else(|| StatusError::bad_request("continue key is not valid: the token was not made by this server"))
    }
}

/// A list, or one page of it.
pub async fn list(inner: &Arc<Inner>, presenter: &Presenter, query: &Query, namespace: Option<&str>) -> Result<Answer, StatusError> {
    let selection = Selection::parse(query, namespace, presenter)?;
    let revision = revision_of(query)?;
    let matching = match_of(query, revision)?;
    let limit = match query.get("limit") {
        None => 0,
        Some(text) => text.parse::<usize>().map_err(|_| StatusError::bad_request(format!("invalid limit: {text:?} is not a number")))?,
    };
    let token = query.get("continue").map(Token::decode).transpose()?;
    if token.is_some() && revision.is_some_and(|revision| revision != 0) {
        return Err(StatusError::bad_request("specifying resource version is not allowed when using continue"));
    }
    let id = &presenter.resource.id;
    let (at, mut entries) = match (&token, revision) {
        (Some(token), _) => {
            let state = inner.state();
            match state.store.list_at(id, namespace, token.rv) {
                Ok(entries) => (token.rv, entries),
                Err(_) => return Ok(expired_page(token, state.store.revision())),
            }
        }
        (None, Some(wanted)) if matching == Some(Match::Exact) => {
            let state = inner.state();
            let entries = state.store.list_at(id, namespace, wanted).map_err(|_| StatusError::too_old(wanted, state.store.revision()))?;
            (wanted, entries)
        }
        (None, wanted) => {
            wait_for(inner, wanted.unwrap_or(0)).await?;
            let state = inner.state();
            let entries = match (selection.single(), namespace) {
                (Some(name), Some(namespace)) => state.store.get(&ObjectKey::new(id, namespace, name)).cloned().into_iter().collect(),
                (Some(name), None) if !presenter.resource.is_namespaced => {
                    state.store.get(&ObjectKey::new(id, "", name)).cloned().into_iter().collect()
                }
                _ => state.store.list(id, namespace),
            };
            (state.store.revision(), entries)
        }
    };
    if let Some(token) = &token {
        entries.retain(|entry| (&*entry.key.namespace, &*entry.key.name) > (token.namespace.as_str(), token.name.as_str()));
    }
    if !selection.is_everything() {
        entries.retain(|entry| selection.matches(entry));
    }
    let mut list_meta = ListMeta { revision: at, ..ListMeta::default() };
    if limit > 0 && entries.len() > limit {
        let remaining = entries.len() - limit;
        entries.truncate(limit);
        let last =
            entries.last().map(|entry| Token { rv: at, namespace: entry.key.namespace.to_string(), name: entry.key.name.to_string() });
        list_meta.continuation = last.map(|last| last.encode());
        list_meta.remaining = selection.is_everything().then_some(remaining);
    }
    Ok(response::json(200, presenter.list(inner, &entries, &list_meta)?))
}

/// The first page's state is gone: the rest can be had from the newest state, inconsistently, with the token that the answer carries.
fn expired_page(token: &Token, current: u64) -> Answer {
    let fresh = Token { rv: current, namespace: token.namespace.clone(), name: token.name.clone() };
    let error = StatusError::expired(
        "The provided continue parameter is too old to display a consistent list result. Start a new list without it, or go on with the \
         continue token of this answer: objects that changed in between may then be missing or shown twice.",
    );
    let mut status = error.to_json();
    meta::set(&mut status, "continue", fresh.encode());
    response::value(error.code, &status)
}

async fn wait_for(inner: &Inner, revision: u64) -> Result<(), StatusError> {
    let current = inner.state().store.revision();
    if revision <= current {
        return Ok(());
    }
    // A revision that a client knows of was committed before it was told: there is nothing to come unless the client has it from elsewhere.
    inner.clock.sleep(FRESH_WAIT).await;
    let current = inner.state().store.revision();
    if revision <= current { Ok(()) } else { Err(StatusError::too_large_resource_version(revision, current)) }
}

/// A watch.
pub fn watch(
    inner: &Arc<Inner>,
    presenter: &Presenter,
    query: &Query,
    namespace: Option<&str>,
    name: Option<&str>,
) -> Result<Answer, StatusError> {
    let mut selection = Selection::parse(query, namespace, presenter)?;
    if let Some(name) = name {
        selection.fields =
            FieldSelector::parse(&format!("metadata.name={name}")).map_err(|error| StatusError::bad_request(error.to_string()))?;
    }
    let revision = revision_of(query)?;
    let matching = match_of(query, revision)?;
    let has_bookmarks = query.flag("allowWatchBookmarks");
    let wants_initial = query.flag("sendInitialEvents");
    if wants_initial && matching != Some(Match::NotOlderThan) {
        return Err(list_options_error(vec![FieldError::forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        )]));
    }
    if !query.has("sendInitialEvents") && matching.is_some() {
        return Err(list_options_error(vec![FieldError::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )]));
    }
    let timeout = query
        .seconds("timeoutSeconds")
        .filter(|timeout| !timeout.is_zero())
        .unwrap_or_else(|| Duration::from_secs(WATCH_SECONDS + inner.timeouts.below(WATCH_SECONDS)));
    let from_now = wants_initial || (!query.has("sendInitialEvents") && revision.unwrap_or(0) == 0);
    let filter: Filter = {
        let selection = selection.clone();
        Arc::new(move |entry: &Entry| selection.matches(entry))
    };
    let id = &presenter.resource.id;
    let mut state = inner.state();
    let current = state.store.revision();
    let since = if from_now { current } else { revision.unwrap_or(current) };
    if from_now && revision.is_some_and(|revision| revision > current) {
        return Err(StatusError::too_large_resource_version(revision.unwrap_or(0), current));
    }
    let initial = if from_now { state.store.list(id, namespace) } else { Vec::new() };
    let watch = state.store.watch(id, since, filter);
    drop(state);
    let Ok(watch) = watch else {
        return Ok(response::watch(Frames::failed(inner.clone(), presenter.clone(), &StatusError::too_old(since, current))));
    };
    let initial = initial.iter().filter(|entry| selection.matches(entry));
    let mut due: VecDeque<Item> = initial.map(|entry| Item::Encoded(presenter.initial(inner, entry))).collect();
    if wants_initial && has_bookmarks {
        due.push_back(Item::Encoded(presenter.bookmark(current, true)));
    }
    due.extend(watch.backlog.into_iter().map(Item::Delivery));
    let told = if from_now && !wants_initial { 0 } else { since };
    Ok(response::watch(Frames::new(inner.clone(), presenter.clone(), due, watch.receiver, told, timeout, has_bookmarks)))
}
