//! Every branch of a MachineDeployment's plan, its numbers, and what its status tells.

use std::sync::Arc;

use api::cluster::{Cluster, Machine, MachineDeployment, MachineDeploymentPhase, MachineDeploymentStatus, MachineSet};
use api::conditions::{Status, get, get_legacy};
use jiff::Timestamp;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::plan::{Observed, Plan, Step, most_replicas, most_unavailable, plan, template_hash};
use super::status::status;

fn read<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn now() -> Timestamp {
    "2026-03-01T08:00:00Z".parse().unwrap()
}

fn going() -> Value {
    json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:00Z"}})
}

fn deployment(change: &Value) -> Arc<MachineDeployment> {
    let mut value = json!({"metadata": {"name": "d", "namespace": "n", "uid": "d", "generation": 1, "finalizers": ["cluster.x-k8s.io/machinedeployment"],
            "labels": {"cluster.x-k8s.io/cluster-name": "c"}, "annotations": {"machinedeployment.clusters.x-k8s.io/revision": "1"},
            "ownerReferences": [{"apiVersion": "x/v1", "kind": "Cluster", "name": "c", "uid": "c"}]},
        "spec": {"clusterName": "c", "replicas": 2, "selector": {"matchLabels": {"pool": "a"}},
            "rollout": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}},
            "template": {"metadata": {"labels": {"pool": "a"}}, "spec": {"clusterName": "c", "version": "v1.25.5",
                "bootstrap": {"configRef": {"apiGroup": "b", "kind": "TalosConfigTemplate", "name": "t"}},
                "infrastructureRef": {"apiGroup": "i", "kind": "VSphereMachineTemplate", "name": "t"}}}}});
    json_patch::merge(&mut value, change);
    read(value)
}

fn set(suffix: &str, change: &Value) -> Arc<MachineSet> {
    let mut value = serde_json::to_value(super::new_set(&deployment(&json!({})), suffix)).unwrap();
    value["metadata"]["uid"] = json!(suffix);
    value["metadata"]["resourceVersion"] = json!("7");
    json_patch::merge(&mut value, change);
    read(value)
}

fn machine(name: &str, is_ready: bool) -> Arc<Machine> {
    let holds = |type_: &str| json!({"type": type_, "status": if is_ready { "True" } else { "False" }, "reason": "R", "message": "", "lastTransitionTime": "2026-03-01T08:00:00Z"});
    read(
        json!({"metadata": {"name": name}, "spec": {"clusterName": "c", "version": "v1.25.5", "bootstrap": {}, "infrastructureRef": {"apiGroup": "i", "kind": "K", "name": name}},
        "status": {"nodeRef": {"name": name}, "conditions": [holds("Ready"), holds("Available"), holds("UpToDate"), holds("NodeReady")]}}),
    )
}

fn settled() -> Observed {
    Observed {
        deployment: deployment(&json!({})),
        cluster: Some(read::<Cluster>(json!({"metadata": {"name": "c", "uid": "c"}, "spec": {}}))),
        sets: vec![set("s1", &json!({}))],
        machines: vec![machine("a", true), machine("b", true)],
        now: now(),
    }
}

fn told(observed: &Observed) -> MachineDeploymentStatus {
    status(observed, &plan(observed))
}

#[test]
fn a_deployment_as_it_should_be_needs_nothing() {
    let base = settled();
    let planned = plan(&base);
    assert_eq!((planned.steps, planned.outdated), (vec![], vec![]));
    let status = told(&base);
    assert_eq!(status.phase, Some(MachineDeploymentPhase::Running));
    assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (Some(2), Some(2), Some(2)));
    assert_eq!(status.deprecated.v1beta1.unavailable_replicas, None);
    assert_eq!(get(&status.conditions, "Available").unwrap().status, Status::True);
    // What the API writes into a set by default is no difference.
    let defaulted = Observed { sets: vec![set("s1", &json!({"spec": {"deletion": {"order": "Random"}}}))], ..base };
    assert_eq!(plan(&defaulted).steps, []);
}

#[test]
fn what_is_missing_is_done() {
    let base = settled();
    let with = |change: &Value| Observed { deployment: deployment(change), ..base.clone() };
    for change in
        [json!({"metadata": {"finalizers": null}}), json!({"metadata": {"labels": null}}), json!({"metadata": {"ownerReferences": null}})]
    {
        assert_eq!(plan(&with(&change)).steps[0], Step::Claim, "{change}");
    }
    assert_eq!(plan(&with(&json!({"metadata": {"annotations": null}}))).steps, [Step::TellRevision("1".into())]);
    assert_eq!(plan(&Observed { sets: Vec::new(), ..base.clone() }).steps, [Step::CreateSet]);
    assert_eq!(plan(&Observed { sets: vec![set("s1", &going())], ..base.clone() }).steps, [Step::CreateSet]);
    let ending = read::<Cluster>(json!({"metadata": {"name": "c", "uid": "c", "deletionTimestamp": "2026-03-01T08:00:00Z"}, "spec": {}}));
    assert_eq!(plan(&Observed { sets: Vec::new(), cluster: Some(ending), ..base.clone() }).steps, []);
    assert_eq!(plan(&Observed { cluster: None, ..base.clone() }), Plan::default());
    let paused = with(&json!({"metadata": {"annotations": {"cluster.x-k8s.io/paused": ""}}, "spec": {"replicas": 5}}));
    assert_eq!(plan(&paused), Plan { is_paused: true, ..Plan::default() });
    assert_eq!(get(&told(&paused).conditions, "Paused").unwrap().status, Status::True);
}

#[test]
fn replicas_go_to_the_set_with_its_numbers_told() {
    let base = settled();
    let more = Observed { deployment: deployment(&json!({"spec": {"replicas": 5}})), ..base.clone() };
    let planned = plan(&more);
    let [Step::PatchSet { name, patch }] = planned.steps.as_slice() else { panic!("{planned:?}") };
    let annotations =
        json!({"machinedeployment.clusters.x-k8s.io/desired-replicas": "5", "machinedeployment.clusters.x-k8s.io/max-replicas": "6"});
    let expected = json!({"metadata": {"uid": "s1", "resourceVersion": "7", "annotations": annotations}, "spec": {"replicas": 5}});
    assert_eq!((name.as_str(), patch), ("d-s1", &expected));
    let status = told(&more);
    assert_eq!(status.phase, Some(MachineDeploymentPhase::ScalingUp));
    assert_eq!(get(&status.conditions, "ScalingUp").unwrap().message, "Scaling up from 2 to 5 replicas");
    let available = get(&status.conditions, "Available").unwrap();
    assert_eq!(
        available.message,
        "2 available replicas, at least 5 required (spec.strategy.rollout.maxUnavailable is 0, spec.replicas is 5)"
    );
    let legacy = get_legacy(&status.deprecated.v1beta1.conditions, "Available").unwrap();
    assert_eq!(legacy.message.as_deref(), Some("Minimum availability requires 5 replicas, current 2 available"));
    let fewer = told(&Observed { deployment: deployment(&json!({"spec": {"replicas": 1}})), ..base });
    assert_eq!(fewer.phase, Some(MachineDeploymentPhase::ScalingDown));
    assert_eq!(get(&fewer.conditions, "ScalingDown").unwrap().message, "Scaling down from 2 to 1 replicas");
}

#[test]
fn a_change_in_place_reaches_the_set_and_another_is_told_only() {
    let in_place = json!({"spec": {"deletion": {"order": "Oldest"}, "template": {"spec": {"deletion": {"nodeDrainTimeoutSeconds": 80}}, "metadata": {"annotations": {"x": "y"}}}}});
    let observed = Observed { deployment: deployment(&in_place), ..settled() };
    let planned = plan(&observed);
    let [Step::PatchSet { patch, .. }] = planned.steps.as_slice() else { panic!("{planned:?}") };
    let template = json!({"metadata": {"annotations": {"x": "y"}}, "spec": {"deletion": {"nodeDrainTimeoutSeconds": 80}}});
    assert_eq!(patch["spec"], json!({"deletion": {"order": "Oldest"}, "template": template}));
    let replacing = Observed { deployment: deployment(&json!({"spec": {"template": {"spec": {"version": "v1.26.0"}}}})), ..settled() };
    let planned = plan(&replacing);
    assert_eq!((planned.steps.len(), planned.outdated.as_slice()), (0, ["Version v1.25.5, v1.26.0 required".to_owned()].as_slice()));
    assert_eq!(planned.current.unwrap().metadata.name.as_deref(), Some("d-s1"));
    let rolling = get(&told(&replacing).conditions, "RollingOut").cloned().unwrap();
    assert!(rolling.message.contains("this version does not replace them\n* Version v1.25.5, v1.26.0 required"), "{rolling:?}");
}

#[test]
fn other_sets_keep_what_fits_and_the_matching_one_gets_the_rest() {
    let old = |suffix: &str, replicas: i32, revision: &str| {
        set(
            suffix,
            &json!({"metadata": {"annotations": {"machinedeployment.clusters.x-k8s.io/revision": revision}}, "spec": {"replicas": replicas, "template": {"spec": {"version": "v1.24.0"}}}}),
        )
    };
    let replicas = |observed: &Observed| -> Vec<(String, i64)> {
        let steps = plan(observed).steps.into_iter();
        steps
            .filter_map(
                |step| if let Step::PatchSet { name, patch } = step { Some((name, patch["spec"]["replicas"].as_i64()?)) } else { None },
            )
            .collect()
    };
    let mixed = Observed {
        deployment: deployment(&json!({"spec": {"replicas": 4}})),
        sets: vec![old("o1", 1, "1"), set("s1", &json!({"spec": {"replicas": 1}}))],
        ..settled()
    };
    assert_eq!(replicas(&mixed), [("d-s1".into(), 3)]);
    let shrunk = Observed {
        deployment: deployment(&json!({"spec": {"replicas": 1}})),
        sets: vec![old("o1", 2, "1"), old("o2", 2, "2"), set("s1", &json!({}))],
        ..settled()
    };
    assert_eq!(replicas(&shrunk), [("d-o2".into(), 1), ("d-o1".into(), 0), ("d-s1".into(), 0)]);
    // Without a matching one the newest is current.
    let none = Observed { sets: vec![old("o1", 1, "1"), old("o2", 1, "2")], ..settled() };
    assert_eq!(plan(&none).current.unwrap().metadata.name.as_deref(), Some("d-o2"));
}

#[test]
fn a_deployment_goes_after_its_sets() {
    let base = Observed { deployment: deployment(&going()), sets: vec![set("s1", &json!({})), set("s2", &going())], ..settled() };
    let planned = plan(&base);
    assert_eq!((planned.steps.len(), planned.deletion_left), (1, Some(2)));
    assert_eq!(get(&told(&base).conditions, "Deleting").unwrap().message, "Deleting 2 Machines");
    let empty = Observed { sets: Vec::new(), machines: Vec::new(), ..base };
    assert_eq!(plan(&empty).steps, [Step::RemoveFinalizer]);
    let done = Observed {
        deployment: deployment(&json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:00Z", "finalizers": ["other"]}})),
        ..empty
    };
    assert_eq!(plan(&done).steps, []);
}

#[test]
fn a_failed_set_and_a_blocked_one_show() {
    let failed = Observed { sets: vec![set("s1", &json!({"status": {"deprecated": {"v1beta1": {"failureReason": "x"}}}}))], ..settled() };
    assert_eq!(told(&failed).phase, Some(MachineDeploymentPhase::Failed));
    let condition = json!({"type": "MachinesCreated", "status": "False", "severity": "Error", "reason": "X", "message": "no template", "lastTransitionTime": "2026-03-01T08:00:00Z"});
    let blocked = json!({"status": {"deprecated": {"v1beta1": {"conditions": [condition]}}}});
    let blocked = Observed { sets: vec![set("s1", &blocked)], machines: Vec::new(), ..settled() };
    assert_eq!(
        get(&told(&blocked).conditions, "ScalingUp").unwrap().message,
        "Scaling up from 0 to 2 replicas is blocked because:\n* no template"
    );
}

#[test]
fn limits_are_numbers_or_shares() {
    let limits = |change: Value| deployment(&json!({"spec": {"replicas": 5, "rollout": {"strategy": {"rollingUpdate": change}}}}));
    let table = [
        (json!({"maxSurge": 2, "maxUnavailable": 1}), 7, 1),
        (json!({"maxSurge": "30%", "maxUnavailable": "30%"}), 7, 1),
        (json!({"maxSurge": 0, "maxUnavailable": 9}), 5, 5),
        (json!({"maxSurge": null, "maxUnavailable": null}), 6, 0),
    ];
    for (change, most, unavailable) in table {
        let deployment = limits(change.clone());
        assert_eq!((most_replicas(&deployment), most_unavailable(&deployment)), (most, unavailable), "{change}");
    }
    let hash = |change: Value| template_hash(&deployment(&json!({"spec": {"template": {"spec": change}}})));
    assert_eq!(hash(json!({})), hash(json!({"deletion": {"nodeDrainTimeoutSeconds": 1}, "minReadySeconds": 3})));
    assert_ne!(hash(json!({})), hash(json!({"version": "v1.26.0"})));
}

proptest! {
    /// Whatever the sets hold: after the plan they hold together what is wanted, and no more than before or wanted in between.
    #[test]
    fn sets_together_hold_what_is_wanted(wanted in 0..8_i32, counts in proptest::collection::vec(0..5_i32, 1..4), ready in proptest::collection::vec(any::<bool>(), 0..8)) {
        let sets: Vec<Arc<MachineSet>> = counts.iter().enumerate().map(|(n, count)| {
            let revision = (n + 1).to_string();
            let version = if n == 0 { "v1.25.5" } else { "v1.24.0" };
            set(&format!("s{n}"), &json!({"metadata": {"annotations": {"machinedeployment.clusters.x-k8s.io/revision": revision}}, "spec": {"replicas": count, "template": {"spec": {"version": version}}}}))
        }).collect();
        let machines: Vec<Arc<Machine>> = ready.iter().enumerate().map(|(n, is_ready)| machine(&format!("m{n}"), *is_ready)).collect();
        let observed = Observed { deployment: deployment(&json!({"spec": {"replicas": wanted}})), sets: sets.clone(), machines, ..settled() };
        let mut after: std::collections::BTreeMap<String, i32> = sets.iter().map(|set| (set.metadata.name.clone().unwrap(), set.spec.replicas.unwrap())).collect();
        for step in plan(&observed).steps {
            if let Step::PatchSet { name, patch } = step
                && let Some(replicas) = patch["spec"]["replicas"].as_i64()
            {
                after.insert(name, i32::try_from(replicas).unwrap());
            }
        }
        prop_assert_eq!(after.values().sum::<i32>(), wanted);
        prop_assert!(after.values().all(|count| *count >= 0));
        let status = told(&observed);
        let present = i32::try_from(ready.len()).unwrap();
        let most = present.max(wanted).max(counts.iter().sum());
        let view = &status.deprecated.v1beta1;
        for number in [status.replicas, status.ready_replicas, status.available_replicas, status.up_to_date_replicas, view.unavailable_replicas, view.ready_replicas] {
            prop_assert!((0..=most).contains(&number.unwrap_or(0)), "{:?}", number);
        }
    }
}
