//! Every verdict of a MachineHealthCheck, and what it tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::cluster::{Cluster, Machine, MachineHealthCheck};
use api::conditions::{Status, get};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::plan::{Observed, Plan, Step, Template, Verdict, Wish, is_left_behind, plan, template_of};
use super::status::status;
use crate::contract::{External, Referenced};
use crate::workload::Connection;

fn read<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn at(text: &str) -> Timestamp {
    format!("2026-03-01T{text}Z").parse().unwrap()
}

fn holds(type_: &str, status: &str, since: &str) -> Value {
    json!({"type": type_, "status": status, "reason": "R", "message": "", "lastTransitionTime": format!("2026-03-01T{since}Z")})
}

fn check(change: &Value) -> Arc<MachineHealthCheck> {
    let mut value = json!({"metadata": {"name": "h", "namespace": "n", "labels": {"cluster.x-k8s.io/cluster-name": "c"},
            "ownerReferences": [{"apiVersion": "x/v1", "kind": "Cluster", "name": "c", "uid": "c"}]},
        "spec": {"clusterName": "c", "selector": {"matchLabels": {"pool": "a"}}, "checks": {"nodeStartupTimeoutSeconds": 1200,
            "unhealthyNodeConditions": [{"type": "Ready", "status": "False", "timeoutSeconds": 300}, {"type": "Ready", "status": "Unknown", "timeoutSeconds": 300}],
            "unhealthyMachineConditions": [{"type": "NodeReady", "status": "False", "timeoutSeconds": 60}]},
            "remediation": {"triggerIf": {"unhealthyLessThanOrEqualTo": "40%"}}}});
    json_patch::merge(&mut value, change);
    read(value)
}

fn machine(name: &str, change: &Value) -> Arc<Machine> {
    let mut value = json!({"metadata": {"name": name, "creationTimestamp": "2026-03-01T08:00:00Z"},
        "spec": {"clusterName": "c", "bootstrap": {}, "infrastructureRef": {"apiGroup": "i", "kind": "K", "name": name}},
        "status": {"nodeRef": {"name": name}, "conditions": [holds("InfrastructureReady", "True", "08:02:00")]}});
    json_patch::merge(&mut value, change);
    read(value)
}

fn node(name: &str, status: &str, since: &str) -> Arc<Node> {
    read(
        json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": format!("2026-03-01T{since}Z")}]}}),
    )
}

fn cluster(change: &Value) -> Arc<Cluster> {
    let mut value = json!({"metadata": {"name": "c", "uid": "c"}, "spec": {}, "status": {"conditions": [
        holds("ControlPlaneInitialized", "True", "08:05:00"), holds("InfrastructureReady", "True", "08:01:00")]}});
    json_patch::merge(&mut value, change);
    read(value)
}

fn observed(machines: Vec<Arc<Machine>>, nodes: Vec<Arc<Node>>) -> Observed {
    Observed {
        check: check(&json!({})),
        cluster: Some(cluster(&json!({}))),
        machines,
        connection: Connection::Connected { since: at("08:00:00") },
        nodes,
        template: Template::None,
        requests: BTreeMap::new(),
        now: at("09:00:00"),
    }
}

fn verdict(observed: &Observed) -> Verdict {
    plan(observed).verdicts[0].1.clone()
}

fn unhealthy(reason: &'static str, message: &str) -> Verdict {
    Verdict::Unhealthy { reason, message: message.into() }
}

#[test]
fn a_machine_is_judged_by_its_node() {
    let with = |status: &str, since: &str| observed(vec![machine("a", &json!({}))], vec![node("a", status, since)]);
    assert_eq!(verdict(&with("True", "08:30:00")), Verdict::Healthy);
    assert_eq!(verdict(&with("Unknown", "08:55:00")), unhealthy("UnhealthyNode", "Condition Ready on Node is Unknown for more than 300 s"));
    assert_eq!(verdict(&with("False", "08:55:01")), Verdict::Undecided { until: Some(at("09:00:01")) });
    assert_eq!(plan(&with("False", "08:55:01")).again_at, Some(at("09:00:01")));
    assert_eq!(verdict(&observed(vec![machine("a", &json!({}))], vec![])), unhealthy("NodeDeleted", "Node a has been deleted"));
    let away = Observed { connection: Connection::Waiting { on: "x".into() }, ..with("Unknown", "08:00:00") };
    assert_eq!(verdict(&away), Verdict::Undecided { until: None }, "what cannot be seen is not judged");
}

#[test]
fn marks_machine_conditions_and_startup_count() {
    let marked = machine("a", &json!({"metadata": {"annotations": {"cluster.x-k8s.io/remediate-machine": ""}}}));
    assert!(matches!(verdict(&observed(vec![marked], vec![])), Verdict::Unhealthy { reason: "HasRemediateMachineAnnotation", .. }));
    let bad = |since: &str| machine("a", &json!({"status": {"conditions": [holds("NodeReady", "False", since)]}}));
    let nodes = || vec![node("a", "True", "08:00:00")];
    assert_eq!(
        verdict(&observed(vec![bad("08:59:00")], nodes())),
        unhealthy("UnhealthyMachine", "Condition NodeReady on Machine is False for more than 60 s")
    );
    assert_eq!(verdict(&observed(vec![bad("08:59:30")], nodes())), Verdict::Undecided { until: Some(at("09:00:30")) });
    let nodeless = || observed(vec![machine("a", &json!({"status": {"nodeRef": null}}))], vec![]);
    // The latest of the beginnings counts: the control plane was up at 08:05.
    assert_eq!(verdict(&nodeless()), unhealthy("NodeStartupTimeout", "Node failed to report startup in 1200 s"));
    assert_eq!(verdict(&Observed { now: at("08:24:59"), ..nodeless() }), Verdict::Undecided { until: Some(at("08:25:00")) });
    let without = check(&json!({"spec": {"checks": {"nodeStartupTimeoutSeconds": 0}}}));
    assert_eq!(verdict(&Observed { check: without, ..nodeless() }), Verdict::Undecided { until: None });
    let default = check(&json!({"spec": {"checks": {"nodeStartupTimeoutSeconds": null}}}));
    assert_eq!(
        verdict(&Observed { check: default, now: at("08:14:00"), ..nodeless() }),
        Verdict::Undecided { until: Some(at("08:15:00")) }
    );
}

#[test]
fn workers_are_not_judged_before_the_control_plane_is_up() {
    let early = Observed { cluster: Some(cluster(&json!({"status": null}))), ..observed(vec![machine("a", &json!({}))], vec![]) };
    assert_eq!(verdict(&early), Verdict::Undecided { until: None });
    let control_plane = machine("a", &json!({"metadata": {"labels": {"cluster.x-k8s.io/control-plane": ""}}}));
    assert!(matches!(verdict(&Observed { machines: vec![control_plane], ..early }), Verdict::Unhealthy { .. }));
}

#[test]
fn who_is_not_to_be_judged_is_passed_over() {
    let skipped = ["cluster.x-k8s.io/skip-remediation", "cluster.x-k8s.io/paused"]
        .map(|key| machine("a", &json!({"metadata": {"annotations": {key: ""}}})));
    let going = machine("a", &json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:00Z"}}));
    assert_eq!(plan(&observed([skipped.to_vec(), vec![going]].concat(), vec![])).verdicts, []);
    let base = observed(vec![machine("a", &json!({}))], vec![]);
    assert_eq!(plan(&Observed { cluster: None, ..base.clone() }), Plan::default());
    let paused = Observed { cluster: Some(cluster(&json!({"spec": {"paused": true}}))), ..base.clone() };
    assert_eq!(plan(&paused), Plan { is_paused: true, ..Plan::default() });
    let going = check(&json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:00Z"}}));
    assert_eq!(plan(&Observed { check: going, ..base.clone() }), Plan::default());
    let unclaimed = Observed { check: check(&json!({"metadata": {"labels": null}})), ..base };
    assert_eq!(plan(&unclaimed).steps[0], Step::Claim);
}

#[test]
fn a_verdict_is_told_once() {
    let well = |change: &Value| observed(vec![machine("a", change)], vec![node("a", "True", "08:00:00")]);
    assert!(matches!(plan(&well(&json!({}))).steps.as_slice(), [Step::Tell { verdict: Verdict::Healthy, .. }]));
    let told = json!({"status": {"conditions": [holds("HealthCheckSucceeded", "True", "08:00:00")]}});
    assert_eq!(plan(&well(&told)).steps, []);
    let ill = observed(vec![machine("a", &told)], vec![]);
    assert!(matches!(plan(&ill).steps.as_slice(), [Step::Tell { verdict: Verdict::Unhealthy { .. }, .. }]));
}

#[test]
fn too_many_unhealthy_ones_are_told() {
    let machines = |n: usize| (0..n).map(|n| machine(&format!("m{n}"), &json!({}))).collect::<Vec<_>>();
    let nodes = |n: usize| (0..n).map(|n| node(&format!("m{n}"), "True", "08:00:00")).collect::<Vec<_>>();
    let allowed = |trigger: Value, total: usize, healthy: usize| {
        let check = check(&json!({"spec": {"remediation": {"triggerIf": trigger}}}));
        let observed = Observed { check, ..observed(machines(total), nodes(healthy)) };
        let planned = plan(&observed);
        (planned.allowed, status(&observed, &planned))
    };
    let (number, told) = allowed(json!({}), 5, 3);
    assert_eq!((number, told.expected_machines, told.current_healthy, told.remediations_allowed), (Some(0), Some(5), Some(3), Some(0)));
    assert_eq!(told.targets.len(), 5);
    assert_eq!(allowed(json!({}), 5, 4).0, Some(1));
    let (number, told) = allowed(json!({}), 5, 2);
    assert_eq!((number, told.remediations_allowed), (None, Some(0)));
    let condition = get(&told.conditions, "RemediationAllowed").unwrap();
    assert_eq!((condition.status, condition.reason.as_str()), (Status::False, "TooManyUnhealthy"));
    assert_eq!(
        condition.message,
        "Remediation is not allowed, the number of not started or unhealthy machines exceeds unhealthyLessThanOrEqualTo 40% (total: 5, unhealthy: 3)"
    );
    assert_eq!(allowed(json!({"unhealthyLessThanOrEqualTo": 1}), 5, 4).0, Some(0));
    assert_eq!(allowed(json!({"unhealthyLessThanOrEqualTo": null}), 5, 0).0, Some(0));
    assert_eq!(allowed(json!({"unhealthyInRange": "[2-3]"}), 5, 3).0, Some(1));
    assert_eq!(allowed(json!({"unhealthyInRange": "[2-3]"}), 5, 4).0, None);
}

/// What is asked about each Machine, in their order.
fn wishes(observed: &Observed) -> Vec<Wish> {
    let told = |step: &Step| if let Step::Tell { wish, .. } = step { Some(*wish) } else { None };
    plan(observed).steps.iter().filter_map(told).collect()
}

fn asked(reason: &str) -> Value {
    let mut owner = holds("OwnerRemediated", "False", "08:58:00");
    owner["reason"] = json!(reason);
    json!({"status": {"conditions": [holds("HealthCheckSucceeded", "False", "08:58:00"), owner]}})
}

fn with_limit(limit: &Value, observed: Observed) -> Observed {
    let check = check(&json!({"spec": {"remediation": {"triggerIf": {"unhealthyLessThanOrEqualTo": limit}}}}));
    Observed { check, ..observed }
}

#[test]
fn the_owner_is_asked_within_the_limit_and_what_it_has_begun_is_its_own() {
    let ill = |change: &Value, limit: &Value| with_limit(limit, observed(vec![machine("a", change)], vec![]));
    assert_eq!(wishes(&ill(&json!({}), &json!(1))), [Wish::Asked]);
    assert_eq!(wishes(&ill(&json!({}), &json!(0))), [Wish::AsItIs], "unhealthy is told, nothing is asked");
    for reason in ["WaitingForRemediation", "RemediationDeferred", "CannotBeRemediated", "RetryLimitReached"] {
        assert_eq!(wishes(&ill(&asked(reason), &json!(1))), [Wish::AsItIs], "{reason}");
        assert_eq!(wishes(&ill(&asked(reason), &json!(0))), [Wish::TakenBack], "{reason}: others became unhealthy since");
    }
    assert_eq!(wishes(&ill(&asked("MachineDeleting"), &json!(0))), [Wish::AsItIs], "too late");
    // Done before, and unhealthy again.
    let mut done = asked("x");
    done["status"]["conditions"][1]["status"] = json!("True");
    assert_eq!(wishes(&ill(&done, &json!(1))), [Wish::Asked]);
}

#[test]
fn what_was_asked_is_taken_back_when_it_is_needed_no_longer() {
    let well = observed(vec![machine("a", &asked("WaitingForRemediation"))], vec![node("a", "True", "08:00:00")]);
    assert_eq!(wishes(&well), [Wish::TakenBack]);
    let mut skipped = asked("RemediationDeferred");
    skipped["metadata"] = json!({"annotations": {"cluster.x-k8s.io/skip-remediation": ""}});
    let skipped = observed(vec![machine("a", &skipped)], vec![]);
    assert_eq!((wishes(&skipped), plan(&skipped).verdicts), (vec![Wish::TakenBack], Vec::new()));
    // Not known how it is: it stays asked for.
    let away = Observed { connection: Connection::Waiting { on: "x".into() }, ..observed(vec![machine("a", &asked("x"))], vec![]) };
    assert_eq!(wishes(&away), []);
    let mut paused = asked("WaitingForRemediation");
    paused["metadata"] = json!({"annotations": {"cluster.x-k8s.io/paused": ""}});
    assert_eq!(plan(&observed(vec![machine("a", &paused)], vec![])).steps, []);
}

#[test]
fn what_is_not_started_and_what_is_being_deleted_counts_against_the_limit() {
    let going = || machine("g", &json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:00Z"}}));
    let fresh = || machine("f", &json!({"metadata": {"creationTimestamp": "2026-03-01T08:59:00Z"}, "status": {"nodeRef": null}}));
    let with = |limit: i32, other: Arc<Machine>| {
        let machines = vec![machine("a", &json!({})), machine("b", &json!({})), other];
        with_limit(&json!(limit), observed(machines, vec![node("b", "True", "08:00:00")]))
    };
    for other in [going(), fresh()] {
        assert_eq!((plan(&with(1, other.clone())).allowed, plan(&with(2, other.clone())).allowed), (None, Some(0)));
        let observed = with(1, other);
        let planned = plan(&observed);
        let told = status(&observed, &planned);
        assert_eq!((told.expected_machines, told.current_healthy, told.targets.len()), (Some(3), Some(1), 3));
        assert!(get(&told.conditions, "RemediationAllowed").unwrap().message.ends_with("(total: 3, unhealthy: 2)"));
    }
}

#[test]
fn a_machine_that_failed_for_good_is_unhealthy_at_once() {
    let failed = json!({"status": {"deprecated": {"v1beta1": {"failureReason": "VirtualMachineGone", "failureMessage": "no VM"}}}});
    let ill = observed(vec![machine("a", &failed)], vec![node("a", "True", "08:00:00")]);
    assert_eq!(verdict(&ill), unhealthy("MachineHasFailure", "the machine has failed for good: VirtualMachineGone: no VM"));
}

#[test]
fn a_template_that_is_named_replaces_from_outside_or_says_why_not() {
    let found = |kind: &str, change: Value| {
        let mut value = json!({"kind": kind, "metadata": {"name": "t"}});
        json_patch::merge(&mut value, &change);
        Referenced::Found(read::<External>(value))
    };
    assert_eq!(template_of(&Referenced::None), Template::None);
    assert_eq!(template_of(&found("RebootTemplate", json!({}))), Template::There);
    for (reference, why) in [
        (Referenced::Missing { kind: "RebootTemplate".into(), name: "t".into() }, "RebootTemplate t does not exist"),
        (found("RebootTemplate", json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:00Z"}})), "RebootTemplate t is being deleted"),
        (found("Reboot", json!({})), "Reboot is no kind of templates: its name does not end in Template"),
    ] {
        assert_eq!(template_of(&reference), Template::Unusable(why.to_owned()));
    }
    let ill = with_limit(&json!(1), observed(vec![machine("a", &json!({}))], vec![]));
    let with = |template: Template| Observed { template, ..ill.clone() };
    let requests = |observed: &Observed| {
        plan(observed).steps.iter().filter(|step| matches!(step, Step::Request { .. } | Step::EndRequest { .. })).count()
    };
    assert_eq!((wishes(&with(Template::There)), requests(&with(Template::There))), (vec![Wish::AsItIs], 1));
    let unusable = with(Template::Unusable("the API serves no kind X".into()));
    assert_eq!((wishes(&unusable), requests(&unusable)), (vec![Wish::AsItIs], 0), "and the owner is not asked instead");
    let told = status(&unusable, &plan(&unusable));
    let condition = get(&told.conditions, "ExternalRemediationTemplateAvailable").unwrap();
    assert_eq!((condition.status, condition.reason.as_str()), (Status::False, "ExternalRemediationTemplateNotFound"));
    assert!(condition.message.starts_with("the API serves no kind X; no Machine is replaced before"), "{}", condition.message);
    let plain = Observed { check: read(json!({"metadata": {"name": "h"}, "spec": {}, "status": told})), ..with(Template::None) };
    assert_eq!(get(&status(&plain, &plan(&plain)).conditions, "ExternalRemediationTemplateAvailable"), None);
    // Made once; ended when the Machine is well.
    let request = read::<External>(json!({"kind": "Reboot", "metadata": {"name": "a"}}));
    let made = Observed { requests: [("a".to_owned(), request)].into(), ..with(Template::There) };
    assert_eq!(requests(&made), 0);
    let well = Observed { nodes: vec![node("a", "True", "08:00:00")], ..made };
    assert!(matches!(plan(&well).steps.as_slice(), [Step::Tell { .. }, Step::EndRequest { .. }]));
}

#[test]
fn a_machine_that_no_check_looks_after_any_more_keeps_no_verdict() {
    let labelled = |change: &Value| {
        let mut value = json!({"metadata": {"labels": {"pool": "a"}}});
        json_patch::merge(&mut value, change);
        machine("a", &value)
    };
    let told = labelled(&asked("RetryLimitReached"));
    let others = check(&json!({"spec": {"selector": {"matchLabels": {"pool": "b"}}}}));
    let going = check(&json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:00Z"}}));
    let elsewhere = check(&json!({"spec": {"clusterName": "other"}}));
    assert!(is_left_behind(&told, &[others, going, elsewhere]));
    assert!(!is_left_behind(&told, &[check(&json!({}))]));
    assert!(!is_left_behind(&labelled(&json!({})), &[]), "it has none");
    assert!(!is_left_behind(&labelled(&asked("MachineDeleting")), &[]), "its owner has begun");
    let mut gone = asked("WaitingForRemediation");
    gone["metadata"] = json!({"deletionTimestamp": "2026-03-01T08:00:00Z"});
    assert!(!is_left_behind(&labelled(&gone), &[]));
}
