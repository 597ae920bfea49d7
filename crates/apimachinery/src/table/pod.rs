//! The status of a pod in one word, as the genuine server derives it from phases and container states.

use serde_json::Value;

use super::{list_at, or, text_at};
use crate::meta;

/// What the columns Ready, Status and Restarts show.
pub(super) struct Summary {
    pub(super) ready: usize,
    pub(super) total: usize,
    pub(super) reason: String,
    pub(super) restarts: i64,
    /// When a container last ended before it was started again, in RFC 3339.
    pub(super) last_restart: Option<String>,
}

fn reason_of(state: &Value) -> Option<String> {
    let reason = text_at(state, &["reason"]);
    if !reason.is_empty() {
        return Some(reason.to_owned());
    }
    None
}

fn ended(state: &Value, prefix: &str) -> String {
    let signal = state.get("signal").and_then(Value::as_i64).unwrap_or_default();
    let code = state.get("exitCode").and_then(Value::as_i64).unwrap_or_default();
    reason_of(state).map_or_else(
        || if signal != 0 { format!("{prefix}Signal:{signal}") } else { format!("{prefix}ExitCode:{code}") },
        |reason| format!("{prefix}{reason}"),
    )
}

fn restarts(status: &Value) -> i64 {
    status.get("restartCount").and_then(Value::as_i64).unwrap_or_default()
}

fn later(a: Option<String>, status: &Value) -> Option<String> {
    let finished = text_at(status, &["lastState", "terminated", "finishedAt"]);
    match a {
        Some(a) if a.as_str() >= finished => Some(a),
        a if finished.is_empty() => a,
        _ => Some(finished.to_owned()),
    }
}

pub(super) fn summary(pod: &Value) -> Summary {
    let containers = list_at(pod, &["spec", "containers"]);
    let mut out = Summary {
        ready: 0,
        total: containers.len(),
        reason: or(text_at(pod, &["status", "reason"]), or(text_at(pod, &["status", "phase"]), "Unknown")).to_owned(),
        restarts: 0,
        last_restart: None,
    };
    for condition in list_at(pod, &["status", "conditions"]) {
        if text_at(condition, &["type"]) == "PodScheduled" && text_at(condition, &["reason"]) == "SchedulingGated" {
            out.reason = "SchedulingGated".to_owned();
        }
    }
    let initializing = initializing(pod, &mut out);
    if !initializing {
        running(pod, &mut out);
    }
    if meta::deletion_timestamp(pod).is_some() {
        out.reason = if text_at(pod, &["status", "reason"]) == "NodeLost" { "Unknown" } else { "Terminating" }.to_owned();
    }
    out
}

/// Goes through the init containers; true while one of them holds the pod up.
fn initializing(pod: &Value, out: &mut Summary) -> bool {
    let specs = list_at(pod, &["spec", "initContainers"]);
    let is_sidecar = |name: &str| specs.iter().any(|c| text_at(c, &["name"]) == name && text_at(c, &["restartPolicy"]) == "Always");
    out.total += specs.iter().filter(|c| text_at(c, &["restartPolicy"]) == "Always").count();
    let (mut sum, mut last, mut held) = (0, None, false);
    for (i, status) in list_at(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
        let sidecar = is_sidecar(text_at(status, &["name"]));
        sum += restarts(status);
        last = later(last, status);
        let state = status.get("state").unwrap_or(&Value::Null);
        if sidecar {
            out.restarts += restarts(status);
            out.last_restart = later(out.last_restart.take(), status);
            if status.get("ready").and_then(Value::as_bool).unwrap_or_default() {
                out.ready += 1;
            }
            if status.get("started").and_then(Value::as_bool).unwrap_or_default() {
                continue;
            }
        }
        if let Some(terminated) = state.get("terminated") {
            if terminated.get("exitCode").and_then(Value::as_i64).unwrap_or_default() == 0 {
                continue;
            }
            out.reason = ended(terminated, "Init:");
        } else {
            out.reason = match state.get("waiting").and_then(reason_of) {
                Some(reason) if reason != "PodInitializing" => format!("Init:{reason}"),
                _ => format!("Init:{i}/{}", specs.len()),
            };
        }
        held = true;
        break;
    }
    if held {
        out.restarts = sum;
        out.last_restart = last;
    }
    held
}

fn running(pod: &Value, out: &mut Summary) {
    let mut has_running = false;
    for status in list_at(pod, &["status", "containerStatuses"]).iter().rev() {
        out.restarts += restarts(status);
        out.last_restart = later(out.last_restart.take(), status);
        let state = status.get("state").unwrap_or(&Value::Null);
        if let Some(reason) = state.get("waiting").and_then(reason_of) {
            out.reason = reason;
        } else if let Some(terminated) = state.get("terminated") {
            out.reason = ended(terminated, "");
        } else if state.get("running").is_some() && status.get("ready").and_then(Value::as_bool).unwrap_or_default() {
            has_running = true;
            out.ready += 1;
        }
    }
    // A pod that goes on while one container has ended well.
    if out.reason == "Completed" && has_running {
        let ready =
            list_at(pod, &["status", "conditions"]).iter().any(|c| text_at(c, &["type"]) == "Ready" && text_at(c, &["status"]) == "True");
        out.reason = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_have_a_status_in_one_word() {
        for (pod, ready, reason) in [
            (json!({"spec": {"containers": [{}]}, "status": {"phase": "Pending"}}), "0/1", "Pending"),
            (json!({"spec": {"containers": [{}]}}), "0/1", "Unknown"),
            (
                json!({"spec": {"containers": [{}, {}]}, "status": {"phase": "Running", "containerStatuses": [
                    {"ready": true, "state": {"running": {}}}, {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}),
                "1/2",
                "CrashLoopBackOff",
            ),
            (
                json!({"spec": {"containers": [{}]}, "status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}}),
                "0/1",
                "ExitCode:3",
            ),
            (
                json!({"spec": {"containers": [{}], "initContainers": [{"name": "a"}, {"name": "b"}]},
                       "status": {"phase": "Pending", "initContainerStatuses": [
                           {"name": "a", "state": {"terminated": {"exitCode": 0}}}, {"name": "b", "state": {"running": {}}}]}}),
                "0/1",
                "Init:1/2",
            ),
            (
                json!({"metadata": {"deletionTimestamp": "x"}, "spec": {"containers": [{}]}, "status": {"phase": "Running"}}),
                "0/1",
                "Terminating",
            ),
        ] {
            let summary = summary(&pod);
            assert_eq!((format!("{}/{}", summary.ready, summary.total).as_str(), summary.reason.as_str()), (ready, reason), "{pod}");
        }
    }
}
