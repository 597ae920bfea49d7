//! Every branch of a MachineDeployment's plan, its numbers, and what its status tells.

use std::sync::Arc;

use api::cluster::{Cluster, Machine, MachineDeployment, MachineDeploymentPhase, MachineDeploymentStatus, MachineSet};
use api::conditions::{Status, get, get_legacy};
use jiff::Timestamp;
use proptest::prelude::*;
use runtime::defects::Defects;
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
    let mut value = serde_json::to_value(super::new_set(&deployment(&json!({})), suffix, 2, 1)).unwrap();
    value["metadata"]["uid"] = json!(suffix);
    value["metadata"]["resourceVersion"] = json!("7");
    json_patch::merge(&mut value, change);
    read(value)
}

/// A Machine of the set `s1`.
fn machine(name: &str, is_ready: bool) -> Arc<Machine> {
    machine_of("s1", name, is_ready)
}

fn machine_of(set: &str, name: &str, is_ready: bool) -> Arc<Machine> {
    let holds = |type_: &str| json!({"type": type_, "status": if is_ready { "True" } else { "False" }, "reason": "R", "message": "", "lastTransitionTime": "2026-03-01T08:00:00Z"});
    read(
        json!({"metadata": {"name": name, "ownerReferences": [{"apiVersion": "x/v1", "kind": "MachineSet", "name": format!("d-{set}"), "uid": set, "controller": true}]},
        "spec": {"clusterName": "c", "version": "v1.25.5", "bootstrap": {}, "infrastructureRef": {"apiGroup": "i", "kind": "K", "name": name}},
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
        defects: Defects::none(),
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
    let fresh = Observed { sets: Vec::new(), machines: Vec::new(), ..with(&json!({"metadata": {"annotations": null}})) };
    assert_eq!(plan(&fresh).steps, [Step::CreateSet { replicas: 2, revision: 1 }]);
    let going = Observed { sets: vec![set("s1", &going())], ..base.clone() };
    assert_eq!(plan(&going).steps, [Step::CreateSet { replicas: 1, revision: 2 }], "those that go still take room");
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
fn a_change_in_place_reaches_the_set_and_limits_reach_the_others() {
    let in_place = json!({"spec": {"deletion": {"order": "Oldest"}, "template": {"spec": {"deletion": {"nodeDrainTimeoutSeconds": 80}}, "metadata": {"annotations": {"x": "y"}}}}});
    let observed = Observed { deployment: deployment(&in_place), ..settled() };
    let planned = plan(&observed);
    let [Step::PatchSet { patch, .. }] = planned.steps.as_slice() else { panic!("{planned:?}") };
    let template = json!({"metadata": {"annotations": {"x": "y"}}, "spec": {"deletion": {"nodeDrainTimeoutSeconds": 80}}});
    assert_eq!(patch["spec"], json!({"deletion": {"order": "Oldest"}, "template": template}));
    let old = older("o1", 1, "1");
    let mixed = Observed { sets: vec![old, revised("s1", "2", 2)], deployment: deployment(&in_place), ..settled() };
    let planned = plan(&mixed);
    let Step::PatchSet { name, patch } = &planned.steps[0] else { panic!("{planned:?}") };
    assert_eq!(name, "d-o1");
    assert_eq!(patch["spec"]["template"], json!({"spec": {"deletion": {"nodeDrainTimeoutSeconds": 80}}}));
}

/// A set of an older version.
fn older(suffix: &str, replicas: i32, revision: &str) -> Arc<MachineSet> {
    set(
        suffix,
        &json!({"metadata": {"annotations": {"machinedeployment.clusters.x-k8s.io/revision": revision}}, "spec": {"replicas": replicas, "template": {"spec": {"version": "v1.24.0"}}}}),
    )
}

/// A set of the wanted version under a revision.
fn revised(suffix: &str, revision: &str, replicas: i32) -> Arc<MachineSet> {
    set(
        suffix,
        &json!({"metadata": {"annotations": {"machinedeployment.clusters.x-k8s.io/revision": revision}}, "spec": {"replicas": replicas}}),
    )
}

fn replicas(observed: &Observed) -> Vec<(String, i64)> {
    let patched = |step| if let Step::PatchSet { name, patch } = step { Some((name, patch["spec"]["replicas"].as_i64()?)) } else { None };
    plan(observed).steps.into_iter().filter_map(patched).collect()
}

#[test]
fn a_new_template_gets_a_set_under_the_next_revision() {
    let newer = json!({"spec": {"template": {"spec": {"version": "v1.26.0"}}}});
    let replacing = Observed { deployment: deployment(&newer), ..settled() };
    let planned = plan(&replacing);
    assert_eq!(planned.steps, [Step::CreateSet { replicas: 1, revision: 2 }]);
    assert_eq!(planned.outdated, ["Version v1.25.5, v1.26.0 required"]);
    let rolling = get(&told(&replacing).conditions, "RollingOut").cloned().unwrap();
    assert_eq!((rolling.status, rolling.reason.as_str()), (Status::True, "RollingOut"));
    assert_eq!(rolling.message, "Rolling out 2 not up-to-date replicas\n* Version v1.25.5, v1.26.0 required");
    // Made under the next revision, with the template as it is now.
    let made = super::new_set(&replacing.deployment, "s2", 1, 2);
    assert_eq!(made.metadata.annotations.unwrap()["machinedeployment.clusters.x-k8s.io/revision"], "2");
    assert_eq!((made.spec.replicas, made.spec.template.spec.version.as_deref()), (Some(1), Some("v1.26.0")));
    // Machines that go only when they are deleted: the new set begins empty.
    let on_delete = json!({"spec": {"rollout": {"strategy": {"type": "OnDelete", "rollingUpdate": null}}, "template": {"spec": {"version": "v1.26.0"}}}});
    let on_delete = Observed { deployment: deployment(&on_delete), ..settled() };
    assert_eq!(plan(&on_delete).steps, [Step::CreateSet { replicas: 0, revision: 2 }]);
    let message = get(&told(&on_delete).conditions, "RollingOut").unwrap().message.clone();
    assert!(message.ends_with("* strategy OnDelete: each of the 2 is replaced when somebody deletes it"), "{message}");
}

#[test]
fn a_paused_rollout_makes_no_set_but_scales() {
    let paused = |wanted: i32| Observed {
        deployment: deployment(&json!({"spec": {"paused": true, "replicas": wanted, "template": {"spec": {"version": "v1.26.0"}}}})),
        ..settled()
    };
    assert_eq!(plan(&paused(2)).steps, []);
    assert_eq!(replicas(&paused(4)), [("d-s1".into(), 4)]);
    let message = get(&told(&paused(2)).conditions, "RollingOut").unwrap().message.clone();
    assert!(message.ends_with("* the rollout is paused (spec.paused)"), "{message}");
    let both = Observed { sets: vec![older("o1", 3, "1"), revised("s1", "2", 1)], ..settled() };
    let both = Observed { deployment: deployment(&json!({"spec": {"paused": true, "replicas": 2}})), ..both };
    assert_eq!(replicas(&both), [("d-o1".into(), 2)], "the surge that is there stays");
}

#[test]
fn a_former_template_takes_its_set_up_again_under_a_new_revision() {
    let back = Observed {
        sets: vec![revised("s1", "1", 0), older("o2", 2, "2")],
        machines: vec![machine_of("o2", "a", true), machine_of("o2", "b", true)],
        ..settled()
    };
    let planned = plan(&back);
    let patch = planned
        .steps
        .iter()
        .find_map(|step| if let Step::PatchSet { name, patch } = step { (name == "d-s1").then_some(patch) } else { None });
    let annotations = &patch.unwrap()["metadata"]["annotations"];
    assert_eq!(annotations["machinedeployment.clusters.x-k8s.io/revision"], "3");
    assert_eq!(annotations["machinedeployment.clusters.x-k8s.io/revision-history"], "1");
    assert!(planned.steps.contains(&Step::TellRevision("3".into())), "{planned:?}");
    assert_eq!(replicas(&back), [("d-s1".into(), 1)]);
}

#[test]
fn machines_older_than_asked_for_are_replaced_when_the_time_has_come() {
    let after = |time: &str| {
        let made = json!({"metadata": {"creationTimestamp": "2026-03-01T07:00:00Z"}});
        Observed { deployment: deployment(&json!({"spec": {"rollout": {"after": time}}})), sets: vec![set("s1", &made)], ..settled() }
    };
    assert_eq!(plan(&after("2026-03-01T06:00:00Z")).steps, []);
    assert_eq!(plan(&after("2026-03-01T07:00:00Z")).steps, [], "made in that very second");
    let planned = plan(&after("2026-03-01T07:30:00Z"));
    assert_eq!((planned.steps.as_slice(), planned.look_again), ([Step::CreateSet { replicas: 1, revision: 2 }].as_slice(), None));
    let later = plan(&after("2026-03-01T09:00:00Z"));
    assert_eq!((later.steps.as_slice(), later.look_again), ([].as_slice(), Some("2026-03-01T09:00:00Z".parse().unwrap())));
    let message = get(&told(&after("2026-03-01T07:30:00Z")).conditions, "RollingOut").unwrap().message.clone();
    assert_eq!(message, "Rolling out 2 not up-to-date replicas\n* MachineDeployment spec.rollout.after expired");
}

#[test]
fn a_rollout_tells_what_it_waits_for_and_since_when() {
    let waiting = Observed {
        sets: vec![older("o1", 2, "1"), revised("s1", "2", 1)],
        machines: vec![machine_of("o1", "a", true), machine_of("o1", "b", true), machine("c", false)],
        ..settled()
    };
    let message = |observed: &Observed| get(&told(observed).conditions, "RollingOut").unwrap().message.clone();
    let expected = "Rolling out 2 not up-to-date replicas\n* Version v1.24.0, v1.25.5 required\n* waiting since 08:00:00 for Machine c to be available";
    assert_eq!(message(&waiting), expected);
    let mut going = serde_json::to_value(&*machine_of("o1", "a", true)).unwrap();
    json_patch::merge(
        &mut going,
        &json!({"metadata": {"deletionTimestamp": "2026-03-01T07:59:00Z"},
        "status": {"conditions": [{"type": "Deleting", "status": "True", "reason": "DrainingNode", "message": "* draining: 2 pods\n* x", "lastTransitionTime": "2026-03-01T07:59:00Z"}]}}),
    );
    let going = Observed { machines: vec![read(going), machine_of("o1", "b", true), machine("c", true)], ..waiting.clone() };
    assert!(message(&going).ends_with("* waiting since 07:59:00 for Machine a to be gone: draining: 2 pods"), "{}", message(&going));
    let condition = json!({"type": "MachinesCreated", "status": "False", "severity": "Error", "reason": "X", "message": "no template", "lastTransitionTime": "2026-03-01T08:00:00Z"});
    let held = json!({"metadata": {"annotations": {"machinedeployment.clusters.x-k8s.io/revision": "2"}}, "spec": {"replicas": 1}, "status": {"deprecated": {"v1beta1": {"conditions": [condition]}}}});
    let held = Observed { sets: vec![older("o1", 2, "1"), set("s1", &held)], machines: waiting.machines[..2].to_vec(), ..waiting };
    assert!(message(&held).ends_with("\n* waiting: no template"), "{}", message(&held));
}

#[test]
fn empty_sets_stay_as_the_history_and_older_ones_go() {
    let history = Observed { sets: vec![older("o1", 0, "1"), older("o2", 0, "2"), revised("s1", "3", 2)], ..settled() };
    let deleted = |observed: &Observed| -> Vec<String> {
        let steps = plan(observed).steps.into_iter();
        steps.filter_map(|step| if let Step::DeleteSet(set) = step { set.metadata.name.clone() } else { None }).collect()
    };
    assert_eq!(deleted(&history), ["d-o1"]);
    // As many as a v1beta1 manifest says, which the stored version keeps beside.
    for (limit, expected) in [(0, vec!["d-o1", "d-o2"]), (2, vec![])] {
        let kept = json!({"v1beta1": [{"p": "/spec/progressDeadlineSeconds", "v": 600}, {"p": "/spec/revisionHistoryLimit", "v": limit}]});
        let change = json!({"metadata": {"annotations": {"talosphere.dev/conversion-data": kept.to_string()}}});
        assert_eq!(deleted(&Observed { deployment: deployment(&change), ..history.clone() }), expected, "{limit}");
    }
    // Not while the rollout is on.
    assert_eq!(deleted(&Observed { machines: vec![machine("a", true), machine("b", false)], ..history.clone() }), [""; 0]);
    assert_eq!(
        deleted(&Observed { sets: vec![older("o1", 0, "1"), older("o2", 1, "2"), revised("s1", "3", 2)], ..history.clone() }),
        [""; 0]
    );
    let left = Observed { machines: [history.machines.clone(), vec![machine_of("o1", "x", true)]].concat(), ..history };
    assert_eq!(deleted(&left), [""; 0]);
}

#[test]
fn a_stuck_old_set_gives_a_marked_machine_up_and_says_so() {
    let mut marked = serde_json::to_value(&*machine_of("o1", "a", true)).unwrap();
    json_patch::merge(&mut marked, &json!({"metadata": {"annotations": {"cluster.x-k8s.io/delete-machine": ""}}}));
    let stuck = Observed {
        sets: vec![older("o1", 2, "1"), revised("s1", "2", 1)],
        machines: vec![read(marked), machine_of("o1", "b", false), machine("c", true)],
        ..settled()
    };
    assert_eq!(replicas(&stuck), [("d-o1".into(), 1)]);
    assert!(plan(&stuck).is_breaking_deadlock);
}

#[test]
fn a_deployment_goes_after_its_sets() {
    let base = Observed { deployment: deployment(&going()), sets: vec![set("s1", &json!({})), set("s2", &going())], ..settled() };
    let planned = plan(&base);
    assert_eq!((planned.steps.len(), planned.deletion_left), (1, Some(2)));
    assert_eq!(get(&told(&base).conditions, "Deleting").unwrap().message, "Deleting 2 Machines");
    let without = Observed { machines: Vec::new(), ..base };
    assert_eq!(get(&told(&without).conditions, "Deleting").unwrap().message, "Deleting 2 MachineSets", "what is left are no Machines");
    let empty = Observed { sets: Vec::new(), ..without };
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
    /// Whatever the sets hold: no number that is asked for or told lies outside what there was and what is wanted with its surge.
    #[test]
    fn no_number_lies_outside(wanted in 0..8_i32, counts in proptest::collection::vec(0..5_i32, 1..4), ready in proptest::collection::vec((0..4_usize, any::<bool>()), 0..8), is_paused in any::<bool>(), surge in 0..3_i32) {
        let sets: Vec<Arc<MachineSet>> = counts.iter().enumerate().map(|(n, count)| {
            let revision = (n + 1).to_string();
            if n == 0 { revised("s0", &revision, *count) } else { older(&format!("s{n}"), *count, &revision) }
        }).collect();
        let machines: Vec<Arc<Machine>> = ready.iter().enumerate().map(|(n, (set, is_ready))| machine_of(&format!("s{}", set % counts.len()), &format!("m{n}"), *is_ready)).collect();
        let change = json!({"spec": {"replicas": wanted, "paused": is_paused, "rollout": {"strategy": {"rollingUpdate": {"maxSurge": surge}}}}});
        let observed = Observed { deployment: deployment(&change), sets, machines, ..settled() };
        let present = i32::try_from(ready.len()).unwrap();
        let most = present.max(wanted + surge).max(counts.iter().sum());
        let planned = plan(&observed);
        for step in &planned.steps {
            let asked = match step {
                Step::PatchSet { patch, .. } => patch["spec"]["replicas"].as_i64(),
                Step::CreateSet { replicas, .. } => Some(i64::from(*replicas)),
                _ => None,
            };
            prop_assert!((0..=i64::from(most)).contains(&asked.unwrap_or(0)), "{:?}", step);
        }
        let status = status(&observed, &planned);
        let view = &status.deprecated.v1beta1;
        for number in [status.replicas, status.ready_replicas, status.available_replicas, status.up_to_date_replicas, view.unavailable_replicas, view.ready_replicas, view.updated_replicas] {
            prop_assert!((0..=most).contains(&number.unwrap_or(0)), "{:?}", number);
        }
        let messages = status.conditions.iter().filter(|condition| matches!(condition.type_.as_str(), "RollingOut" | "ScalingUp" | "ScalingDown" | "Available"));
        for message in messages.map(|condition| condition.message.lines().next().unwrap_or_default()) {
            let numbers = message.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<i64>().ok());
            prop_assert!(numbers.into_iter().all(|number| (0..=i64::from(most)).contains(&number)), "{}", message);
        }
    }
}
