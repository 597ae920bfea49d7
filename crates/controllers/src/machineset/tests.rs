//! Every branch of a MachineSet's plan, its numbers, and what its status tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::cluster::{Cluster, Machine, MachineDeployment, MachineSet, MachineSetStatus};
use api::conditions::{Status, get, get_legacy};
use jiff::Timestamp;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::plan::{Observed, Plan, Step, order_of_going, plan};
use super::status::status;
use crate::contract::{External, Referenced};
use crate::naming::PLANNED_MACHINES;

pub fn read<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn now() -> Timestamp {
    "2026-03-01T08:00:00Z".parse().unwrap()
}

fn going() -> Value {
    json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:00Z"}})
}

pub fn template(kind: &str, change: &Value) -> Referenced {
    let mut value = json!({"kind": kind, "metadata": {"name": "t", "ownerReferences": [{"apiVersion": "x/v1", "kind": "Cluster", "name": "c", "uid": "c"}]}});
    json_patch::merge(&mut value, change);
    Referenced::Found(read::<External>(value))
}

fn missing(kind: &str) -> Referenced {
    Referenced::Missing { kind: kind.into(), name: "x".into() }
}

pub fn set(change: &Value) -> Arc<MachineSet> {
    let mut value = json!({"metadata": {"name": "s", "namespace": "n", "uid": "s", "generation": 1, "finalizers": ["cluster.x-k8s.io/machineset"],
            "labels": {"cluster.x-k8s.io/cluster-name": "c", "cluster.x-k8s.io/deployment-name": "d"},
            "ownerReferences": [{"apiVersion": "x/v1", "kind": "MachineDeployment", "name": "d", "uid": "d", "controller": true}]},
        "spec": {"clusterName": "c", "replicas": 2, "selector": {"matchLabels": {"pool": "a"}}, "template": {"metadata": {"labels": {"pool": "a"}},
            "spec": {"clusterName": "c", "version": "v1.25.5", "bootstrap": {"configRef": {"apiGroup": "b", "kind": "TalosConfigTemplate", "name": "t"}},
                "infrastructureRef": {"apiGroup": "i", "kind": "VSphereMachineTemplate", "name": "t"}}}}});
    json_patch::merge(&mut value, change);
    read(value)
}

/// A Machine of the set as it should be, running.
pub fn machine(name: &str, change: &Value) -> Arc<Machine> {
    let ready = |type_: &str| json!({"type": type_, "status": "True", "reason": "Yes", "message": "", "lastTransitionTime": "2026-03-01T08:00:00Z"});
    let mut value = serde_json::to_value(super::new_machine(&set(&json!({})), "x")).unwrap();
    value["metadata"]["name"] = json!(name);
    value["metadata"]["uid"] = json!(format!("uid-{name}"));
    value["status"] = json!({"nodeRef": {"name": name}, "conditions": [ready("Ready"), ready("Available"), ready("UpToDate"), ready("NodeReady")],
        "initialization": {"bootstrapDataSecretCreated": true, "infrastructureProvisioned": true}});
    json_patch::merge(&mut value, change);
    read(value)
}

pub fn observed(machines: Vec<Arc<Machine>>) -> Observed {
    let found = || (template("TalosConfig", &json!({})), template("VSphereMachine", &json!({})));
    let objects: BTreeMap<String, (Referenced, Referenced)> =
        machines.iter().map(|machine| (machine.metadata.name.clone().unwrap(), found())).collect();
    Observed {
        set: set(&json!({})),
        cluster: Some(read::<Cluster>(json!({"metadata": {"name": "c", "namespace": "n", "uid": "c"}, "spec": {}}))),
        deployment: None,
        machines,
        objects,
        bootstrap_template: template("TalosConfigTemplate", &json!({})),
        infrastructure_template: template("VSphereMachineTemplate", &json!({})),
        control_plane: Referenced::None,
        now: now(),
    }
}

fn settled() -> Observed {
    observed(vec![machine("a", &json!({})), machine("b", &json!({}))])
}

fn told(observed: &Observed) -> MachineSetStatus {
    status(observed, &plan(observed))
}

#[test]
fn a_set_as_it_should_be_needs_nothing() {
    let base = settled();
    assert_eq!(plan(&base), Plan::default());
    let status = told(&base);
    assert_eq!(
        (status.replicas, status.ready_replicas, status.available_replicas, status.up_to_date_replicas),
        (Some(2), Some(2), Some(2), Some(2))
    );
    let legacy = &status.deprecated.v1beta1;
    assert_eq!((legacy.fully_labeled_replicas, legacy.ready_replicas), (Some(2), Some(2)));
    assert_eq!(get_legacy(&legacy.conditions, "Ready").unwrap().status, Status::True);
    assert_eq!(status.selector.as_deref(), Some("pool=a"));
}

#[test]
fn what_is_missing_around_the_set_is_done() {
    let base = settled();
    let with = |change: &Value| Observed { set: set(change), ..base.clone() };
    for change in [
        json!({"metadata": {"finalizers": null}}),
        json!({"metadata": {"labels": {"cluster.x-k8s.io/cluster-name": null}}}),
        json!({"metadata": {"ownerReferences": null}}),
    ] {
        assert!(plan(&with(&change)).steps.contains(&Step::Claim), "{change}");
    }
    let unowned = json!({"metadata": {"ownerReferences": null}});
    assert_eq!(plan(&Observed { bootstrap_template: template("T", &unowned), ..base.clone() }).steps, [Step::OwnBootstrapTemplate]);
    assert_eq!(
        plan(&Observed { infrastructure_template: template("T", &unowned), ..base.clone() }).steps,
        [Step::OwnInfrastructureTemplate]
    );
    let stray = machine("stray", &unowned);
    let with_stray = Observed {
        set: set(&json!({"spec": {"replicas": 3}})),
        ..observed(vec![stray.clone(), machine("a", &json!({})), machine("b", &json!({}))])
    };
    assert_eq!(plan(&with_stray).steps, [Step::Adopt(stray)]);
    assert_eq!(plan(&Observed { cluster: None, ..with(&json!({"spec": {"replicas": 5}})) }), Plan::default());
    let paused = with(&json!({"metadata": {"annotations": {"cluster.x-k8s.io/paused": ""}}, "spec": {"replicas": 5}}));
    assert_eq!(plan(&paused), Plan { is_paused: true, ..Plan::default() });
    assert_eq!(get(&told(&paused).conditions, "Paused").unwrap().status, Status::True);
}

#[test]
fn machines_are_made_first_and_their_objects_after() {
    let base = observed(Vec::new());
    assert_eq!(plan(&base).steps, [Step::PlanMachines { count: 2 }]);
    let planned = |names: &str, machines| Observed {
        set: set(&json!({"metadata": {"annotations": {PLANNED_MACHINES: names}}})),
        ..observed(machines)
    };
    let create = |name: &str| Step::CreateMachine { name: name.into() };
    assert_eq!(plan(&planned("a;b", Vec::new())).steps, [create("a"), create("b")]);
    assert_eq!(plan(&planned("a;b", vec![machine("a", &json!({}))])).steps, [create("b")], "the rest of what was begun");
    let done = planned("a;b", vec![machine("a", &json!({})), machine("b", &json!({}))]);
    assert_eq!(plan(&done).steps, [Step::KeepPlanned(Vec::new())], "a name is used once");
    let fewer = planned("x;y", vec![machine("a", &json!({}))]);
    assert_eq!(plan(&fewer).steps, [Step::KeepPlanned(vec!["x".into()]), create("x")], "fewer are wanted by now");
    let fresh = machine("a", &json!({"status": {"initialization": null, "nodeRef": null}}));
    let mut one = observed(vec![fresh.clone()]);
    one.objects.insert("a".into(), (missing("TalosConfig"), missing("VSphereMachine")));
    let expected = [Step::CloneBootstrap(fresh.clone()), Step::CloneInfrastructure(fresh), Step::PlanMachines { count: 1 }];
    assert_eq!(plan(&one).steps, expected);
    // What was there and is gone is not made again: it would be another machine under the old name.
    let mut lost = settled();
    lost.objects.insert("a".into(), (missing("TalosConfig"), missing("VSphereMachine")));
    assert_eq!(plan(&lost).steps, []);
    // A Machine that goes gets nothing any more.
    let leaving = machine("a", &json!({"metadata": going()["metadata"], "status": {"initialization": null}}));
    let mut leaving = observed(vec![leaving, machine("b", &json!({}))]);
    leaving.objects.clear();
    assert_eq!(plan(&leaving).steps, []);
    // Nor does a set of a cluster that goes make any.
    let mut ending = base;
    ending.cluster = Some(read(json!({"metadata": {"name": "c", "uid": "c", "deletionTimestamp": "2026-03-01T08:00:00Z"}, "spec": {}})));
    assert_eq!(plan(&ending).steps, []);
}

#[test]
fn what_stands_in_the_way_is_told() {
    let base = observed(Vec::new());
    let table: [(Observed, &str, &str); 5] = [
        (
            Observed { bootstrap_template: missing("TalosConfigTemplate"), ..base.clone() },
            "BootstrapTemplateCloningFailed",
            "TalosConfigTemplate x does not exist",
        ),
        (
            Observed { infrastructure_template: missing("VSphereMachineTemplate"), ..base.clone() },
            "InfrastructureTemplateCloningFailed",
            "VSphereMachineTemplate x does not exist",
        ),
        (
            Observed { infrastructure_template: template("VSphereMachineTemplate", &going()), ..base.clone() },
            "InfrastructureTemplateCloningFailed",
            "VSphereMachineTemplate t is being deleted",
        ),
        (
            Observed { set: set(&json!({"metadata": {"annotations": {"cluster.x-k8s.io/disable-machine-create": ""}}})), ..base.clone() },
            "PreflightCheckFailed",
            "annotation cluster.x-k8s.io/disable-machine-create keeps Machines from being created",
        ),
        {
            let fresh = machine("a", &json!({"status": {"initialization": null}}));
            let mut one =
                Observed { infrastructure_template: missing("VSphereMachineTemplate"), ..observed(vec![fresh, machine("b", &json!({}))]) };
            one.objects.insert("a".into(), (template("TalosConfig", &json!({})), missing("VSphereMachine")));
            (one, "InfrastructureTemplateCloningFailed", "VSphereMachineTemplate x does not exist")
        },
    ];
    for (observed, reason, message) in table {
        let planned = plan(&observed);
        let blocked = planned.blocked.as_ref().unwrap();
        assert_eq!((blocked.message.as_str(), blocked.again), (message, None), "what ends it is told by a change");
        assert!(
            !planned
                .steps
                .iter()
                .any(|step| matches!(step, Step::PlanMachines { .. } | Step::CreateMachine { .. } | Step::CloneInfrastructure(_))),
            "{planned:?}"
        );
        let status = told(&observed);
        let created = get_legacy(&status.deprecated.v1beta1.conditions, "MachinesCreated").unwrap();
        assert_eq!((created.reason.as_deref(), created.message.as_deref()), (Some(reason), Some(message)));
    }
    let blocked = told(&Observed { bootstrap_template: missing("TalosConfigTemplate"), ..base.clone() });
    let scaling = get(&blocked.conditions, "ScalingUp").unwrap();
    assert_eq!(scaling.message, "Scaling up from 0 to 2 replicas is blocked because:\n* TalosConfigTemplate x does not exist");
    let resized = get_legacy(&told(&base).deprecated.v1beta1.conditions, "Resized").cloned().unwrap();
    assert_eq!(resized.message.as_deref(), Some("Scaling up MachineSet to 2 replicas (actual 0)"));
}

#[test]
fn no_worker_is_made_that_the_control_plane_cannot_take_in() {
    let with = |wanted: &str, running: &str, worker: &str, skipped: &str| Observed {
        control_plane: template(
            "TalosControlPlane",
            &json!({"metadata": {"name": "cp"}, "spec": {"version": wanted}, "status": {"version": running}}),
        ),
        set: set(
            &json!({"metadata": {"annotations": {"machineset.cluster.x-k8s.io/skip-preflight-checks": skipped}}, "spec": {"template": {"spec": {"version": worker}}}}),
        ),
        ..observed(Vec::new())
    };
    let skew = "MachineSet version (v1.33.1) and ControlPlane version (v1.32.4) do not conform to the kubernetes version skew policy as MachineSet version is higher than ControlPlane version (\"KubernetesVersionSkew\" preflight check failed)";
    let old = "MachineSet version (v1.28.9) and ControlPlane version (v1.32.4) do not conform to the kubernetes version skew policy as MachineSet version is more than 3 minor versions older than the ControlPlane version (\"KubernetesVersionSkew\" preflight check failed)";
    let upgrading = "TalosControlPlane cp is upgrading from v1.32.4 to v1.33.1 (\"ControlPlaneIsStable\" preflight check failed)";
    let table = [
        (with("v1.32.4", "1.32.4", "v1.32.4", ""), None),
        (with("v1.32.4", "v1.32.4", "v1.29.0", ""), None),
        (with("v1.32.4", "v1.32.4", "v1.32.9", ""), None),
        (with("v1.33.1", "v1.32.4", "v1.32.4", ""), Some(upgrading)),
        (with("v1.33.1", "v1.32.4", "v1.32.4", "ControlPlaneIsStable"), None),
        (with("v1.32.4", "v1.32.4", "v1.33.1", ""), Some(skew)),
        (with("v1.32.4", "v1.32.4", "v1.28.9", ""), Some(old)),
        (with("v1.32.4", "v1.32.4", "v1.33.1", "All"), None),
    ];
    for (observed, expected) in table {
        let planned = plan(&observed);
        assert_eq!(planned.blocked.as_ref().map(|blocked| blocked.message.as_str()), expected);
        assert_eq!(planned.blocked.as_ref().and_then(|blocked| blocked.again).is_some(), expected.is_some(), "nothing else may tell");
        assert_eq!(planned.steps.is_empty(), expected.is_some(), "{planned:?}");
        let told = told(&observed);
        let created = get_legacy(&told.deprecated.v1beta1.conditions, "MachinesCreated").unwrap();
        assert_eq!(created.reason.as_deref(), expected.map(|_| "PreflightCheckFailed"));
    }
}

#[test]
fn a_set_of_a_former_template_makes_none_where_machines_go_on_deletion() {
    let spec = serde_json::to_value(&set(&json!({})).spec).unwrap();
    let deployment = |change: &Value| {
        let mut value = json!({"metadata": {"name": "d"}, "spec": spec});
        json_patch::merge(&mut value, change);
        Some(read::<MachineDeployment>(value))
    };
    let newer = |strategy: &str, is_paused: bool| Observed {
        deployment: deployment(
            &json!({"spec": {"paused": is_paused, "rollout": {"strategy": {"type": strategy}}, "template": {"spec": {"version": "v1.26.0"}}}}),
        ),
        ..observed(Vec::new())
    };
    assert_eq!(plan(&newer("OnDelete", false)).steps, []);
    assert_eq!(plan(&newer("OnDelete", true)).steps, [Step::PlanMachines { count: 2 }]);
    assert_eq!(plan(&newer("RollingUpdate", false)).steps, [Step::PlanMachines { count: 2 }]);
}

#[test]
fn the_first_to_go_are_marked_then_unwell_then_by_order() {
    let created = |at: &str| json!({"metadata": {"creationTimestamp": format!("2026-03-01T{at}Z")}});
    let mut marked = created("07:02:00");
    json_patch::merge(&mut marked, &json!({"metadata": {"annotations": {"cluster.x-k8s.io/delete-machine": ""}}}));
    let mut nodeless = created("07:03:00");
    nodeless["status"] = json!({"nodeRef": null});
    let bad = json!([{"type": "HealthCheckSucceeded", "status": "False", "reason": "No", "message": "", "lastTransitionTime": "2026-03-01T08:00:00Z"}]);
    let mut unwell = created("07:00:00");
    json_patch::merge(&mut unwell, &json!({"status": {"conditions": bad}}));
    let mut young = created("07:04:00");
    let unavailable = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-03-01T08:00:00Z"});
    young["status"] = json!({"conditions": [unavailable("NodeReady", "True"), unavailable("Available", "False")]});
    let machines = vec![
        machine("a-old", &created("07:00:00")),
        machine("b-new", &created("07:05:00")),
        machine("g-young", &young),
        machine("c-marked", &marked),
        machine("d-nodeless", &nodeless),
        machine("e-unwell", &unwell),
        machine("f-going", &going()),
    ];
    let names = |order: &str| -> Vec<String> {
        let observed = Observed { set: set(&json!({"spec": {"deletion": {"order": order}}})), ..observed(machines.clone()) };
        order_of_going(&observed.set, &observed.machines).iter().map(|machine| machine.metadata.name.clone().unwrap()).collect()
    };
    assert_eq!(names("Random"), ["c-marked", "d-nodeless", "e-unwell", "g-young", "a-old", "b-new"]);
    assert_eq!(names("Newest"), ["c-marked", "d-nodeless", "e-unwell", "g-young", "b-new", "a-old"]);
    assert_eq!(
        names("Oldest"),
        ["c-marked", "d-nodeless", "e-unwell", "g-young", "a-old", "b-new"],
        "what never ran goes before what may recover"
    );
    // Those that go already count.
    let observed = Observed { set: set(&json!({"spec": {"replicas": 5}})), ..observed(machines) };
    let going: Vec<_> = plan(&observed).steps.into_iter().filter(|step| matches!(step, Step::DeleteMachine(_))).collect();
    assert_eq!(going.len(), 1);
}

#[test]
fn fields_that_change_in_place_reach_machines() {
    let change = json!({"spec": {"template": {"metadata": {"labels": {"pool": "a", "new": "l"}, "annotations": {"new": "a"}},
        "spec": {"deletion": {"nodeDrainTimeoutSeconds": 80}, "minReadySeconds": 5}}}});
    let with_set = Observed {
        set: set(&change),
        ..observed(vec![
            machine(
                "a",
                &json!({"spec": {"deletion": {"nodeDeletionTimeoutSeconds": 10}, "taints": [{"key": "k", "effect": "NoSchedule", "propagation": "Always"}]}}),
            ),
            machine("b", &going()),
        ])
    };
    let planned = plan(&with_set);
    let [Step::SyncMachine(_, patch), Step::SyncMachine(leaving, limits)] = planned.steps.as_slice() else { panic!("{planned:?}") };
    // A Machine that goes is told how long it may take, and nothing else.
    assert_eq!(leaving.metadata.name.as_deref(), Some("b"));
    let expected = json!({"metadata": {"uid": "uid-b"}, "spec": {"deletion": {"nodeDrainTimeoutSeconds": 80}}});
    assert_eq!(*limits, expected);
    let mut told_limits = serde_json::to_value(&*with_set.machines[1]).unwrap();
    json_patch::merge(&mut told_limits, limits);
    let expected = json!({"metadata": {"uid": "uid-a", "labels": {"new": "l"}, "annotations": {"new": "a"}},
        "spec": {"deletion": {"nodeDrainTimeoutSeconds": 80}, "minReadySeconds": 5, "taints": null}});
    assert_eq!(*patch, expected);
    let mut value = serde_json::to_value(&*with_set.machines[0]).unwrap();
    json_patch::merge(&mut value, patch);
    let synced = Observed { machines: vec![read(value), read(told_limits)], ..with_set };
    assert_eq!(plan(&synced).steps, []);
}

#[test]
fn machines_are_told_whether_they_are_up_to_date() {
    let spec = serde_json::to_value(&set(&json!({})).spec).unwrap();
    let deployment = |change: &Value| {
        let mut value = json!({"metadata": {"name": "d"}, "spec": spec});
        json_patch::merge(&mut value, change);
        Some(read::<MachineDeployment>(value))
    };
    let same = Observed { deployment: deployment(&json!({})), ..settled() };
    assert_eq!(plan(&same).steps, []);
    let newer = Observed { deployment: deployment(&json!({"spec": {"template": {"spec": {"version": "v1.26.0"}}}})), ..settled() };
    let planned = plan(&newer);
    assert_eq!(planned.steps.len(), 2);
    assert!(
        matches!(&planned.steps[0], Step::TellUpToDate { is_up_to_date: false, message, .. } if message == "* Version v1.25.5, v1.26.0 required")
    );
}

#[test]
fn a_set_goes_after_its_machines() {
    let base = Observed { set: set(&going()), ..observed(vec![machine("a", &json!({})), machine("b", &going())]) };
    let planned = plan(&base);
    assert_eq!((planned.steps.len(), planned.deletion_left), (1, Some(2)));
    assert!(matches!(&planned.steps[0], Step::DeleteMachine(machine) if machine.metadata.name.as_deref() == Some("a")));
    assert_eq!(get(&told(&base).conditions, "Deleting").unwrap().message, "Deleting 2 Machines");
    let empty = Observed { machines: Vec::new(), ..base };
    assert_eq!(plan(&empty).steps, [Step::RemoveFinalizer]);
    let done = Observed { set: set(&json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:00Z", "finalizers": ["other"]}})), ..empty };
    assert_eq!(plan(&done).steps, []);
}

proptest! {
    /// Whatever Machines there are: what is made and what goes brings the set to its number and never past it, in either direction.
    #[test]
    fn numbers_stay_between_what_was_and_what_is_wanted(wanted in 0..8_i32, states in proptest::collection::vec(0..4_u8, 0..10)) {
        let machines: Vec<Arc<Machine>> = states.iter().enumerate().map(|(n, state)| {
            let change = match state {
                0 => going(),
                1 => json!({"status": {"nodeRef": null}}),
                2 => json!({"metadata": {"annotations": {"cluster.x-k8s.io/delete-machine": ""}}}),
                _ => json!({}),
            };
            machine(&format!("m{n}"), &change)
        }).collect();
        let present = i32::try_from(machines.len()).unwrap();
        let leaving = i32::try_from(states.iter().filter(|state| **state == 0).count()).unwrap();
        let observed = Observed { set: set(&json!({"spec": {"replicas": wanted}})), ..observed(machines) };
        let planned = plan(&observed);
        let made: i32 = planned.steps.iter().map(|step| if let Step::PlanMachines { count } = step { i32::try_from(*count).unwrap() } else { 0 }).sum();
        let deleted = i32::try_from(planned.steps.iter().filter(|step| matches!(step, Step::DeleteMachine(_))).count()).unwrap();
        prop_assert!(made == 0 || deleted == 0);
        prop_assert!(present + made <= present.max(wanted));
        prop_assert!(present - leaving - deleted >= wanted.min(present - leaving));
        prop_assert!(present - leaving - deleted <= wanted.max(present - leaving) && (deleted == 0 || present - leaving - deleted == wanted));
        let status = told(&observed);
        for number in [status.replicas, status.ready_replicas, status.available_replicas, status.up_to_date_replicas] {
            prop_assert!((0..=present.max(wanted)).contains(&number.unwrap()));
        }
    }
}
