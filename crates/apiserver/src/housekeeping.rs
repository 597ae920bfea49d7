//! What the server does by itself: garbage collection by owner references, the end of namespaces and of definitions, and of old events.
//!
//! ```text
//!   commit -> chores (set, ordered) -> this one task, one chore at a time -> further commits -> further chores ...
//! ```
//!
//! Garbage collection never deletes an object that has an owner whose uid is alive, whatever kind or namespace the reference names, nor one
//! whose owners are of kinds that are not served here: what cannot be looked up is not known to be absent. A chore that fails is looked at
//! again after a while.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{GroupKind, StatusError, gvk, meta};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::definition;
use crate::delete::{DeleteOptions, Propagation, delete};
use crate::namespaces;
use crate::object::{Entry, ObjectKey, Owner, ResourceId};
use crate::server::{CommitError, Inner};
use crate::store::{Chore, FOREGROUND, ORPHAN};

/// How long a chore that failed rests.
const RETRY: Duration = Duration::from_secs(5);
/// How long an event is kept after it last happened.
const EVENT_LIFE: SignedDuration = SignedDuration::from_hours(1);
/// How often old events are looked for, while there are any.
const EVENT_ROUND: Duration = Duration::from_secs(600);

/// Works off chores until the server closes.
pub async fn run(inner: Arc<Inner>) {
    let mut failed: Vec<Chore> = Vec::new();
    let mut round = Box::pin(tokio::time::sleep_until(inner.clock.instant() + EVENT_ROUND));
    loop {
        loop {
            let chores = inner.state().store.take_chores();
            if chores.is_empty() {
                break;
            }
            for chore in chores {
                if inner.closing.is_cancelled() {
                    return;
                }
                if let Err(error) = work(&inner, &chore).await {
                    tracing::debug!(?chore, %error, "a chore failed and is tried again");
                    failed.push(chore);
                }
            }
        }
        let has_events = inner.state().store.count(&events()) > 0;
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = inner.chores.notified() => {}
            () = &mut round, if has_events => {
                round.as_mut().reset(inner.clock.instant() + EVENT_ROUND);
                forget_events(&inner).await;
            }
            () = inner.clock.sleep(RETRY), if !failed.is_empty() => {
                let mut state = inner.state();
                failed.drain(..).for_each(|chore| state.store.add_chore(chore));
            }
        }
    }
}

fn events() -> ResourceId {
    ResourceId::new("", "events")
}

/// Deletes the events that last happened too long ago: nobody else does.
async fn forget_events(inner: &Arc<Inner>) {
    let Ok(limit) = inner.clock.now().checked_sub(EVENT_LIFE) else { return };
    let entries = inner.state().store.list(&events(), None);
    for entry in entries {
        let event = entry.shared();
        let times = [&["series", "lastObservedTime"] as &[&str], &["lastTimestamp"], &["eventTime"], &["metadata", "creationTimestamp"]];
        let last = times.iter().filter_map(|path| meta::at(&event, path)?.as_str()?.parse::<Timestamp>().ok()).max();
        if last.is_some_and(|last| last < limit)
            && let Err(error) = remove(inner, &entry, None).await
        {
            tracing::debug!(%error, "an old event could not be deleted");
        }
    }
}

async fn work(inner: &Arc<Inner>, chore: &Chore) -> Result<(), StatusError> {
    match chore {
        Chore::Owners(key) => check_owners(inner, key).await,
        Chore::Dependents(key) => check_dependents(inner, key).await,
        Chore::Namespace(name) => namespaces::empty(inner, name).await,
        Chore::Definition(name) => empty_definition(inner, name).await,
    }
}

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is alive, or not known to be absent.
    Solid,
    Absent,
    /// It is being deleted and waits for its dependents.
    Waiting,
}

fn standing(inner: &Inner, owner: &Owner) -> Standing {
    match inner.state().store.by_uid(&owner.uid) {
        Some(entry) if entry.is_deleting() && entry.has_finalizer(FOREGROUND) => return Standing::Waiting,
        Some(_) => return Standing::Solid,
        None => {}
    }
    let group = gvk::parse_api_version(&owner.api_version).map(|(group, _)| group).unwrap_or_default();
    let is_served = inner.registry().of_kind(&GroupKind::new(group, owner.kind.as_str())).is_some();
    if is_served { Standing::Absent } else { Standing::Solid }
}

/// Deletes an object none of whose owners is left; drops references to owners that are gone.
async fn check_owners(inner: &Arc<Inner>, key: &ObjectKey) -> Result<(), StatusError> {
    let Some(entry) = inner.latest(key) else { return Ok(()) };
    if entry.facts.owner_references.is_empty() || (entry.is_deleting() && !entry.has_finalizer(FOREGROUND)) {
        return Ok(());
    }
    let standings: Vec<Standing> = entry.facts.owner_references.iter().map(|owner| standing(inner, owner)).collect();
    if standings.contains(&Standing::Solid) {
        let kept: Vec<&str> = entry
            .facts
            .owner_references
            .iter()
            .zip(&standings)
            .filter(|(_, standing)| **standing == Standing::Solid)
            .map(|(owner, _)| owner.uid.as_str())
            .collect();
        if kept.len() == standings.len() {
            return Ok(());
        }
        return change(inner, &entry, |object| {
            let owners = meta::at(object, &["metadata", "ownerReferences"]).and_then(Value::as_array).cloned().unwrap_or_default();
            let owners: Vec<Value> =
                owners.into_iter().filter(|owner| kept.contains(&owner.get("uid").and_then(Value::as_str).unwrap_or_default())).collect();
            meta::set(object, "ownerReferences", json!(owners));
        })
        .await;
    }
    let dependents = inner.state().store.dependents(&entry.facts.uid);
    let propagation = if standings.contains(&Standing::Waiting) && !dependents.is_empty() {
        // The owner waits for this one, so this one waits for its own.
        Propagation::Foreground
    } else if entry.has_finalizer(ORPHAN) {
        Propagation::Orphan
    } else if entry.has_finalizer(FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    remove(inner, &entry, Some(propagation)).await
}

/// Deletes `entry` if it is still the object that was judged.
async fn remove(inner: &Arc<Inner>, entry: &Entry, propagation: Option<Propagation>) -> Result<(), StatusError> {
    let Some(resource) = inner.registry().storing(&entry.key.resource).cloned() else { return Ok(()) };
    let options = DeleteOptions {
        propagation,
        uid: Some(entry.facts.uid.clone()),
        resource_version: Some(entry.facts.resource_version.clone()),
        grace_period_seconds: None,
        is_dry_run: false,
    };
    match delete(inner, &resource, &entry.key, &options).await {
        Ok(_) => Ok(()),
        Err(error) if error.code == 404 => Ok(()),
        Err(error) if error.code == 409 => {
            // It changed meanwhile, and is judged anew.
            inner.state().store.add_chore(Chore::Owners(entry.key.clone()));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Writes a change of ours to an object, unless it moved: then it is looked at again.
async fn change(inner: &Arc<Inner>, entry: &Entry, change: impl FnOnce(&mut Value)) -> Result<(), StatusError> {
    let mut object = entry.value();
    change(&mut object);
    let is_last = inner.registry().storing(&entry.key.resource).is_some_and(|resource| crate::metadata::is_finished(resource, &object));
    let content = if is_last { None } else { Some(object.into()) };
    match inner.commit(&entry.key, Some(entry.revision), content).await {
        Ok(_) => Ok(()),
        Err(CommitError::Moved) => {
            let mut state = inner.state();
            state.store.add_chore(Chore::Owners(entry.key.clone()));
            state.store.add_chore(Chore::Dependents(entry.key.clone()));
            Ok(())
        }
        Err(other) => Err(other.into()),
    }
}

fn without(finalizer: &'static str) -> impl FnOnce(&mut Value) {
    move |object| {
        let kept: Vec<String> = meta::finalizers(object).into_iter().filter(|held| *held != finalizer).map(str::to_owned).collect();
        let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
        meta::set_finalizers(object, &kept);
    }
}

/// Carries on the deletion of an object that waits for its dependents.
async fn check_dependents(inner: &Arc<Inner>, key: &ObjectKey) -> Result<(), StatusError> {
    let Some(entry) = inner.latest(key) else { return Ok(()) };
    if !entry.is_deleting() {
        return Ok(());
    }
    let dependents = inner.state().store.dependents(&entry.facts.uid);
    if entry.has_finalizer(ORPHAN) {
        for dependent in &dependents {
            let uid = entry.facts.uid.clone();
            change(inner, dependent, |object| {
                let owners = meta::at(object, &["metadata", "ownerReferences"]).and_then(Value::as_array).cloned().unwrap_or_default();
                let owners: Vec<Value> =
                    owners.into_iter().filter(|owner| owner.get("uid").and_then(Value::as_str) != Some(uid.as_str())).collect();
                if owners.is_empty() { meta::unset(object, "ownerReferences") } else { meta::set(object, "ownerReferences", json!(owners)) }
            })
            .await?;
        }
        if inner.state().store.dependents(&entry.facts.uid).is_empty() {
            return change(inner, &entry, without(ORPHAN)).await;
        }
        inner.state().store.add_chore(Chore::Dependents(key.clone()));
        return Ok(());
    }
    if !entry.has_finalizer(FOREGROUND) {
        return Ok(());
    }
    let blocks = |dependent: &Entry| {
        dependent.facts.owner_references.iter().any(|owner| owner.uid == entry.facts.uid && owner.block_owner_deletion == Some(true))
    };
    if !dependents.iter().any(|dependent| blocks(dependent)) {
        return change(inner, &entry, without(FOREGROUND)).await;
    }
    let mut state = inner.state();
    for dependent in dependents.iter().filter(|dependent| !dependent.is_deleting()) {
        state.store.add_chore(Chore::Owners(dependent.key.clone()));
    }
    Ok(())
}

/// Deletes the objects of a definition that is being deleted, then the definition.
async fn empty_definition(inner: &Arc<Inner>, name: &str) -> Result<(), StatusError> {
    let key = ObjectKey::new(&definition::storage(), "", name);
    let Some(entry) = inner.latest(&key).filter(|entry| entry.is_deleting() && entry.has_finalizer(definition::CLEANUP)) else {
        return Ok(());
    };
    let Some((plural, group)) = name.split_once('.') else { return Ok(()) };
    let id = ResourceId::new(group, plural);
    let objects = inner.state().store.list(&id, None);
    for object in objects.iter().filter(|object| !object.is_deleting()) {
        remove(inner, object, Some(Propagation::Background)).await?;
    }
    if inner.state().store.count(&id) == 0 {
        return change(inner, &entry, without(definition::CLEANUP)).await;
    }
    // The removal of the last one brings the definition up again.
    Ok(())
}
