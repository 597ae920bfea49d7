//! The `eviction` subresource of pods: a deletion that respects disruption budgets.
//!
//! What a budget allows is computed from the pods there are when the eviction is asked for: there is no controller that keeps a count.

use std::sync::Arc;

use apimachinery::selector::LabelSelector;
use apimachinery::{StatusError, meta};
use serde_json::{Value, json};

use crate::delete::{DeleteOptions, delete};
use crate::object::{Entry, ObjectKey, ResourceId};
use crate::registry::Resource;
use crate::request::Query;
use crate::response::{self, Answer};
use crate::server::Inner;

fn is_ready(pod: &Value) -> bool {
    let conditions = meta::at(pod, &["status", "conditions"]).and_then(Value::as_array).into_iter().flatten();
    let text = |condition: &Value, field: &str| condition.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    conditions.into_iter().any(|condition| text(condition, "type") == "Ready" && text(condition, "status") == "True")
}

/// A number or a share of `total`, rounded up.
fn amount(value: &Value, total: i64) -> Option<i64> {
    match value {
        Value::String(text) => {
            let share: i64 = text.strip_suffix('%')?.parse().ok()?;
            Some((total * share + 99) / 100)
        }
        other => other.as_i64(),
    }
}

/// How many of the pods a budget covers are healthy, and how many must stay so. Those that are stopping count no more: who made them has
/// made others.
fn standing(budget: &Value, pods: &[Value]) -> (i64, i64) {
    let staying = || pods.iter().filter(|pod| meta::deletion_timestamp(pod).is_none());
    let total = i64::try_from(staying().count()).unwrap_or(i64::MAX);
    let healthy = i64::try_from(staying().filter(|pod| is_ready(pod)).count()).unwrap_or(0);
    let given = |field: &str| meta::at(budget, &["spec", field]).and_then(|value| amount(value, total));
    let desired = match (given("minAvailable"), given("maxUnavailable")) {
        (Some(min), _) => min,
        (None, Some(max)) => (total - max).max(0),
        (None, None) => 0,
    };
    (healthy, desired)
}

fn covers(budget: &Value, pod: &Entry) -> bool {
    let selector = meta::at(budget, &["spec", "selector"]).map(LabelSelector::from_json);
    selector.and_then(Result::ok).is_some_and(|selector| selector.matches(&pod.facts.labels))
}

/// Evicts a pod.
///
/// # Errors
/// When there is no such pod, or a budget forbids it for now (429).
pub async fn evict(inner: &Arc<Inner>, pods: &Arc<Resource>, key: &ObjectKey, body: &Value, query: &Query) -> Result<Answer, StatusError> {
    let pod = inner.latest(key).ok_or_else(|| StatusError::not_found(&pods.group_resource(), &key.name))?;
    let value = pod.shared();
    let phase = meta::at(&value, &["status", "phase"]).and_then(Value::as_str).unwrap_or_default();
    // What runs no workload is no disruption.
    let is_exempt = matches!(phase, "Pending" | "Succeeded" | "Failed") || pod.is_deleting();
    if !is_exempt {
        let budgets = inner.state().store.list(&ResourceId::new("policy", "poddisruptionbudgets"), Some(&key.namespace));
        let budgets: Vec<_> = budgets.iter().map(|entry| entry.value()).filter(|budget| covers(budget, &pod)).collect();
        let budget = match budgets.as_slice() {
            [] => None,
            [one] => Some(one),
            _ => {
                return Err(StatusError::internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        };
        if let Some(budget) = budget {
            let peers = inner.state().store.list(&key.resource, Some(&key.namespace));
            let covered: Vec<Value> = peers.iter().filter(|peer| covers(budget, peer)).map(|peer| peer.value()).collect();
            let (healthy, desired) = standing(budget, &covered);
            let policy = meta::at(budget, &["spec", "unhealthyPodEvictionPolicy"]).and_then(Value::as_str);
            // An unhealthy pod may go while the budget is kept by the others, or always where the budget says so.
            let is_free = !is_ready(&value) && (policy == Some("AlwaysAllow") || (desired > 0 && healthy >= desired));
            if !is_free && healthy - desired < 1 {
                let name = meta::name(budget).to_owned();
                let error = StatusError::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 0);
                let why = format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
                return Err(error.cause("DisruptionBudget", &why, ""));
            }
        }
    }
    let mut options = DeleteOptions::parse(body.get("deleteOptions").unwrap_or(&Value::Null), query)?;
    options.is_dry_run |= !query.all("dryRun").collect::<Vec<_>>().is_empty();
    delete(inner, pods, key, &options).await?;
    Ok(response::value(201, &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})))
}
