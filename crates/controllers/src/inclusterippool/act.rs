//! Carries out a pool's steps, and is the one writer of ledgers.

use std::sync::Arc;

use api::names::{annotations, finalizers};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use runtime::reconcile::{ApiError, Error, ObjectKey, Store};
use serde_json::json;

use super::PoolKind;
use super::ledger::Ledger;
use super::plan::Step;
use crate::Wiring;
use crate::edit::Edit;

/// Writes a pool's ledger. The pool must still be what `meta` was read from: a conflict means that the plan was made on an old view.
///
/// # Errors
/// As the API answers.
pub async fn write_ledger<K: PoolKind>(store: &Store<K>, meta: &ObjectMeta, ledger: &Ledger) -> Result<Arc<K>, ApiError> {
    let fields = json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "annotations": {annotations::POOL_LEDGER: ledger.to_text()},
    }});
    store.merge(&ObjectKey::of(meta), fields).await
}

/// Carries out one step for the pool as it stands in the store; twice is as once.
///
/// # Errors
/// As the API answers.
pub async fn step<K: PoolKind>(wiring: &Wiring, store: &Store<K>, pool: &K, step: &Step) -> Result<(), Error> {
    let key = ObjectKey::of(pool.meta());
    let word = match step {
        Step::Protect => {
            Edit::of(pool.meta()).finalizer(finalizers::PROTECT_POOL).apply(store).await?;
            "protect"
        }
        Step::WriteLedger(ledger) => {
            // After the finalizer was put the pool has another resourceVersion; nothing else has changed unless the API says so.
            let latest = store.get(&key);
            let meta = latest.as_deref().map_or(pool.meta(), |latest| latest.meta());
            if Ledger::of(meta) != Ledger::of(pool.meta()) {
                return Err(Error::message(format!("the ledger of {} {key} changed meanwhile", store.kind())));
            }
            write_ledger(store, meta, ledger).await?;
            "return-forgotten"
        }
        Step::Unprotect => {
            Edit::of(pool.meta()).without_finalizer(finalizers::PROTECT_POOL).apply(store).await?;
            "unprotect"
        }
    };
    wiring.log.record(super::NAME, word, format_args!("{} {key}", store.kind()), "ok");
    Ok(())
}
