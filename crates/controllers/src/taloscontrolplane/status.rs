//! What a TalosControlPlane tells. Pure.
//!
//! Conditions have upstream's types and reasons. Where upstream says only that it waits, the message here says on what, since when and
//! until when; it changes only when what is waited for does.

use api::conditions::{self, LegacyCondition, Severity};
use api::controlplane::TalosControlPlaneStatus;
use api::names::labels;
use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use k8s_openapi::api::core::v1::Node;
use runtime::reconcile::Wait;
use std::time::Duration;

use super::etcd::{Answer, NodeView};
use super::plan::{Bootstrap, Observed, Plan, Resizing, Rolling};

/// How long a node may take to boot, answer and run etcd before the wait counts as overdue.
const BOOT_LIMIT: Duration = Duration::from_secs(20 * 60);
/// What Ready sums up, in upstream's order. etcd's health is not in it.
const READY: &[&str] = &["MachinesCreated", "Resized", "MachinesReady", "Available", "MachinesBootstrapped"];

/// What came of the plan's steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acted {
    /// The recorded node answered that etcd is bootstrapped.
    pub is_bootstrapped: bool,
    /// Why a machine or a part of it could not be made: the condition's reason, and words.
    pub creation_failure: Option<(&'static str, String)>,
    /// What a node answered to a call that failed.
    pub call_failure: Option<String>,
}

/// A wait in words. What stands behind a first colon in `on` may change without beginning a new wait. Its beginning is read back from what
/// was told: with its day once that is over, else on the day on which it was told.
fn wait(on: &str, old: Option<&LegacyCondition>, now: Timestamp, limit: Option<Duration>) -> String {
    let (head, detail) = on.split_once(": ").map_or((on, ""), |(head, detail)| (head, detail));
    let since = old.and_then(|old| {
        let told = old.message.as_deref()?.split(&format!("waiting for {head} since ")).nth(1)?;
        let dated = told.get(..19).and_then(|text| text.parse::<DateTime>().ok());
        let time = || told.get(..8).and_then(|text| text.parse::<Time>().ok());
        let told_at = old.last_transition_time.0.min(now).to_zoned(TimeZone::UTC).date();
        let since = dated.or_else(|| Some(told_at.to_datetime(time()?)))?;
        Some(since.to_zoned(TimeZone::UTC).ok()?.timestamp())
    });
    let mut wait = Wait { on: head.to_owned(), since: since.unwrap_or(now), until: None };
    if let Some(limit) = limit {
        wait = wait.limit(limit);
    }
    let is_old = wait.since.strftime("%F").to_string() != now.strftime("%F").to_string();
    let (short, long) = (wait.since.strftime(" since %T").to_string(), wait.since.strftime(" since %F %T").to_string());
    let text = if is_old { wait.to_string().replacen(&short, &long, 1) } else { wait.to_string() };
    let overdue = if wait.is_overdue(now) { "; this takes too long" } else { "" };
    if detail.is_empty() { format!("{text}{overdue}") } else { format!("{text}{overdue}: {detail}") }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Whether a Node is a control plane's.
pub(super) fn is_control_plane(node: &Node) -> bool {
    node.metadata.labels.as_ref().is_some_and(|known| known.contains_key(labels::NODE_ROLE_CONTROL_PLANE))
}

/// Whether a Node says that it is ready.
pub(super) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Computes the status.
pub fn status(observed: &Observed, plan: &Plan, acted: &Acted) -> TalosControlPlaneStatus {
    let mut status = observed.control_plane.status.clone().unwrap_or_default();
    if plan.is_paused {
        return status;
    }
    let now = observed.now;
    status.observed_generation = observed.control_plane.metadata.generation;
    counts(observed, &mut status);
    if acted.is_bootstrapped || observed.is_bootstrapped() {
        status.bootstrapped = Some(true);
    }
    let mut told = Vec::new();
    let old = |type_: &str| conditions::get_legacy(&status.conditions, type_);
    if plan.deletion.is_none() {
        told.push(machines_created(observed, plan, acted, old("MachinesCreated"), now));
        told.push(bootstrapped(plan, acted, status.bootstrapped == Some(true), old("MachinesBootstrapped"), now));
        told.push(up_to_date(observed, plan, old("MachinesSpecUpToDate"), now));
        let available = match status.initialized {
            Some(true) => conditions::legacy_true("Available"),
            _ => {
                let on = format!("the cluster's API to answer: {}", observed.connection);
                let message = wait(&on, old("Available"), now, Some(BOOT_LIMIT));
                conditions::legacy_false("Available", "WaitingForTalosBoot", Severity::Info, message)
            }
        };
        told.push(available);
        told.extend(components(observed));
        told.extend(etcd(observed, plan));
        told.extend(machines_ready(observed));
    }
    told.push(resized(observed, plan, old("Resized"), now));
    for condition in told {
        conditions::set_legacy(&mut status.conditions, condition, now);
    }
    if let Some(ready) = conditions::summarize_legacy(&status.conditions, READY) {
        conditions::set_legacy(&mut status.conditions, ready, now);
    }
    status
}

fn counts(observed: &Observed, status: &mut TalosControlPlaneStatus) {
    let replicas = count(observed.nodes.len());
    let nodes: Vec<&Node> = observed.workload_nodes.iter().map(|node| &**node).filter(|node| is_control_plane(node)).collect();
    if observed.connection.is_connected() {
        let ready = count(nodes.iter().filter(|node| is_ready(node)).count()).min(replicas);
        status.ready_replicas = (ready > 0).then_some(ready);
        if !nodes.is_empty() {
            status.initialized = Some(true);
        }
        // Once ready, a control plane stays so: what fails later is told by conditions.
        if ready > 0 {
            status.ready = Some(true);
        }
    }
    let ready = status.ready_replicas.unwrap_or(0).clamp(0, replicas);
    status.ready_replicas = (ready > 0).then_some(ready);
    status.replicas = (replicas > 0).then_some(replicas);
    status.unavailable_replicas = (replicas > ready).then_some(replicas - ready);
    let cluster = observed.cluster.as_ref().and_then(|cluster| cluster.metadata.name.clone()).unwrap_or_default();
    if !cluster.is_empty() {
        status.selector = Some(format!("{}={cluster},{}=", labels::CLUSTER_NAME, labels::CONTROL_PLANE));
    }
    let versions = observed.nodes.iter().filter_map(|node| node.machine.spec.version.clone());
    status.version = versions.min_by_key(|version| ordered(version)).or_else(|| status.version.take());
}

/// A version as numbers.
fn ordered(version: &str) -> Vec<u64> {
    version.trim_start_matches('v').split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0)).collect()
}

fn machines_created(observed: &Observed, plan: &Plan, acted: &Acted, old: Option<&LegacyCondition>, now: Timestamp) -> LegacyCondition {
    if let Some((reason, message)) = &acted.creation_failure {
        return conditions::legacy_false("MachinesCreated", reason, Severity::Error, message.clone());
    }
    match &plan.missing {
        Some(on) if on.contains("does not exist") || on.contains("names nothing") => {
            let message = wait(on, old, now, None);
            conditions::legacy_false("MachinesCreated", "InfrastructureTemplateCloningFailed", Severity::Error, message)
        }
        Some(on) if observed.nodes.is_empty() => {
            conditions::legacy_false("MachinesCreated", "WaitingForClusterInfrastructure", Severity::Info, wait(on, old, now, None))
        }
        _ if matches!(plan.resizing, Resizing::Up { .. }) && observed.nodes.is_empty() => conditions::legacy_false(
            "MachinesCreated",
            "ScalingUp",
            Severity::Info,
            wait("the first machine to be created", old, now, None),
        ),
        _ => conditions::legacy_true("MachinesCreated"),
    }
}

fn bootstrapped(plan: &Plan, acted: &Acted, is_bootstrapped: bool, old: Option<&LegacyCondition>, now: Timestamp) -> LegacyCondition {
    let no = |reason, severity, message| conditions::legacy_false("MachinesBootstrapped", reason, severity, message);
    if is_bootstrapped {
        return conditions::legacy_true("MachinesBootstrapped");
    }
    match &plan.bootstrap {
        Bootstrap::Done => conditions::legacy_true("MachinesBootstrapped"),
        Bootstrap::WaitingForMachines => {
            let message = wait("a machine with an address", old, now, Some(BOOT_LIMIT));
            no("WaitingForMachines", Severity::Info, message)
        }
        Bootstrap::Waiting { on } => no("WaitingForTalosBoot", Severity::Info, wait(on, old, now, Some(BOOT_LIMIT))),
        Bootstrap::Blocked { reason } => no("BootstrapNodeLost", Severity::Error, reason.clone()),
        Bootstrap::Calling { machine } => {
            let detail = acted.call_failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default();
            let on = format!("etcd to be bootstrapped on {machine}{detail}");
            no("WaitingForTalosBoot", Severity::Info, wait(&on, old, now, Some(BOOT_LIMIT)))
        }
    }
}

fn up_to_date(observed: &Observed, plan: &Plan, old: Option<&LegacyCondition>, now: Timestamp) -> LegacyCondition {
    if plan.outdated.is_empty() {
        return conditions::legacy_true("MachinesSpecUpToDate");
    }
    let no = |reason, severity, message| conditions::legacy_false("MachinesSpecUpToDate", reason, severity, message);
    let outdated = plan.outdated.len();
    let current = observed.alive().count().saturating_sub(outdated);
    let names = plan.outdated.join(", ");
    let counted = format!("{outdated} replicas with outdated spec ({current} replicas up to date): {names}");
    match &plan.rolling {
        Rolling::UnderWay { wait: held, without_surge } => {
            let surge = without_surge.as_ref().map(|why| format!("; one goes before another is made, since {why}")).unwrap_or_default();
            // Booting, joining and learning have a limit; what a machine's deletion waits for is told by the Machine, with its own.
            let limit = |on: &str| (!on.contains(" to be gone")).then_some(BOOT_LIMIT);
            let holding = held.as_ref().map(|on| format!("; {}", wait(on, old, now, limit(on)))).unwrap_or_default();
            no("RollingUpdateInProgress", Severity::Warning, format!("Rolling {counted}{surge}{holding}"))
        }
        Rolling::OnDelete => {
            let message = format!("{counted}. They are replaced when somebody deletes them (OnDelete)");
            no("OutdatedMachines", Severity::Warning, message)
        }
        Rolling::Blocked { reason } => no("RollingUpdateBlocked", Severity::Error, format!("{counted}; {reason}")),
        Rolling::No => no("OutdatedMachines", Severity::Warning, counted),
    }
}

fn resized(observed: &Observed, plan: &Plan, old: Option<&LegacyCondition>, now: Timestamp) -> LegacyCondition {
    let no = |reason, severity, message: String| conditions::legacy_false("Resized", reason, severity, message);
    if let Some(left) = &plan.deletion {
        let message = match left.as_slice() {
            [] => "all machines are gone".to_owned(),
            left => wait(&format!("the deletion of {}", left.join(", ")), old, now, None),
        };
        return no("Deleting", Severity::Info, message);
    }
    let wanted = observed.wanted();
    let going = observed.nodes.iter().filter(|node| node.is_deleting()).count();
    let actual = match (observed.nodes.len() - going, going) {
        (staying, 0) => staying.to_string(),
        (staying, going) => format!("{staying}, and {going} being deleted"),
    };
    let told = |direction: &str, hold: Option<&String>| {
        let holding = hold.map(|on| format!("; {}", wait(on, old, now, None))).unwrap_or_default();
        let leaving = plan.leaving.as_ref().map(|leaving| format!("; {leaving}")).unwrap_or_default();
        format!("Scaling {direction} control plane to {wanted} replicas (actual {actual}){holding}{leaving}")
    };
    match &plan.resizing {
        Resizing::Refused => {
            let message = format!("a control plane of {wanted} replicas is refused: at least 1 must stay; delete the cluster to remove it");
            no("ScalingDown", Severity::Error, message)
        }
        Resizing::Up { wait } => no("ScalingUp", Severity::Warning, told("up", wait.as_ref())),
        Resizing::Down { wait } => no("ScalingDown", Severity::Warning, told("down", wait.as_ref())),
        Resizing::No => match &plan.leaving {
            Some(leaving) => no("ScalingDown", Severity::Warning, leaving.clone()),
            None if observed.nodes.iter().any(NodeView::is_deleting) => no("ScalingDown", Severity::Warning, told("down", None)),
            None => conditions::legacy_true("Resized"),
        },
    }
}

/// The nodes' services.
fn components(observed: &Observed) -> Option<LegacyCondition> {
    let type_ = "ControlPlaneComponentsHealthy";
    let asked: Vec<&NodeView> = observed.nodes.iter().filter(|node| node.answer != Answer::NotAsked).collect();
    if asked.is_empty() {
        return None;
    }
    let failed = asked.iter().find_map(|node| match &node.answer {
        Answer::Failed(error) => Some(format!("machine \"{}\": {error}", node.name())),
        _ => None,
    });
    if let Some(failed) = failed {
        return Some(conditions::legacy_false(type_, "ControlPlaneComponentsInspectionFailed", Severity::Warning, failed));
    }
    let unhealthy: Vec<String> = asked
        .iter()
        .filter_map(|node| match &node.answer {
            Answer::Answers { unhealthy, .. } if !unhealthy.is_empty() => {
                Some(format!("machine \"{}\": {}", node.name(), unhealthy.join(", ")))
            }
            _ => None,
        })
        .collect();
    if unhealthy.is_empty() {
        return Some(conditions::legacy_true(type_));
    }
    Some(conditions::legacy_false(type_, "ControlPlaneComponentsUnhealthy", Severity::Warning, unhealthy.join("; ")))
}

fn etcd(observed: &Observed, plan: &Plan) -> Option<LegacyCondition> {
    let type_ = "EtcdClusterHealthyCondition";
    let is_anybody_asked = observed.nodes.iter().any(|node| node.answer != Answer::NotAsked);
    // Nodes with an address that nobody may ask any more are a fault of their own.
    if !is_anybody_asked && (plan.etcd_faults.is_empty() || observed.nodes.iter().all(|node| node.address.is_none())) {
        return None;
    }
    if plan.etcd_faults.is_empty() {
        return Some(conditions::legacy_true(type_));
    }
    Some(conditions::legacy_false(type_, "EtcdClusterUnhealthy", Severity::Warning, plan.etcd_faults.join("; ")))
}

/// The worst of the Machines' Ready, with the Machine's name in the reason, as upstream's aggregate has it.
fn machines_ready(observed: &Observed) -> Option<LegacyCondition> {
    let ready = |node: &NodeView| {
        let status = node.machine.status.as_ref()?;
        conditions::get_legacy(&status.deprecated.v1beta1.conditions, "Ready").cloned()
    };
    let all: Vec<(String, LegacyCondition)> =
        observed.nodes.iter().filter_map(|node| Some((node.name().to_owned(), ready(node)?))).collect();
    if all.is_empty() {
        return None;
    }
    let rank = |condition: &LegacyCondition| match (condition.status, condition.severity) {
        (conditions::Status::False, Some(Severity::Error)) => 0,
        (conditions::Status::False, Some(Severity::Warning)) => 1,
        (conditions::Status::False, _) => 2,
        (conditions::Status::Unknown, _) => 3,
        (conditions::Status::True, _) => 4,
    };
    let (name, worst) = all.into_iter().min_by_key(|(_, condition)| rank(condition))?;
    if worst.status == conditions::Status::True {
        return Some(conditions::legacy_true("MachinesReady"));
    }
    let reason = worst.reason.map(|reason| format!("{reason} @ Machine/{name}"));
    Some(LegacyCondition { type_: "MachinesReady".to_owned(), reason, ..worst })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_keeps_its_beginning_while_only_its_detail_changes() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let first = wait("a node to answer: refused", None, at("2026-01-01T23:59:58Z"), Some(BOOT_LIMIT));
        assert_eq!(first, "waiting for a node to answer since 23:59:58 (limit 2026-01-02 00:19:58): refused");
        let mut old = conditions::legacy_false("X", "Y", Severity::Info, format!("Scaling; {first}"));
        old.last_transition_time.0 = at("2026-01-01T23:59:58Z");
        let second = wait("a node to answer: timed out", Some(&old), at("2026-01-02T00:10:00Z"), Some(BOOT_LIMIT));
        assert_eq!(second, "waiting for a node to answer since 2026-01-01 23:59:58 (limit 2026-01-02 00:19:58): timed out");
        // The day is told in time, and is not guessed from the time of day after it is over.
        let mut dated = conditions::legacy_false("X", "Y", Severity::Info, second.clone());
        dated.last_transition_time.0 = at("2026-01-02T00:10:00Z");
        for later in ["2026-01-02T23:59:59Z", "2026-01-05T10:00:00Z"] {
            for known in [&old, &dated] {
                let told = wait("a node to answer: timed out", Some(known), at(later), None);
                assert_eq!(told, "waiting for a node to answer since 2026-01-01 23:59:58: timed out", "{later}");
            }
        }
        let late = wait("a node to answer: timed out", Some(&old), at("2026-01-02T00:20:00Z"), Some(BOOT_LIMIT));
        assert!(late.contains("; this takes too long: timed out"), "{late}");
        let other = wait("etcd", Some(&old), at("2026-01-02T00:10:00Z"), None);
        assert_eq!(other, "waiting for etcd since 00:10:00");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(ordered("v1.9.0") < ordered("v1.25.5"));
    }
}
