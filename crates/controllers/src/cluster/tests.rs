//! Every branch of a Cluster's plan, and what its status tells in each.

use std::sync::Arc;

use api::cluster::{Cluster, ClusterPhase, Machine, MachineDeployment, MachineSet};
use api::conditions::{Status, get, get_legacy};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::plan::{Deletion, Observed, Plan, Step, plan};
use super::status::{events, status};
use crate::contract::{External, Referenced};
use crate::workload::Connection;

fn read<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn now() -> Timestamp {
    "2026-03-01T08:00:00Z".parse().unwrap()
}

fn owned() -> Value {
    json!({"labels": {"cluster.x-k8s.io/cluster-name": "c"},
        "ownerReferences": [{"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "name": "c", "uid": "u", "controller": true}]})
}

fn external(kind: &str, change: Value) -> Referenced {
    let mut value = json!({"kind": kind, "metadata": owned()});
    value["metadata"]["name"] = json!("x");
    json_patch::merge(&mut value, &change);
    Referenced::Found(read::<External>(value))
}

/// A Cluster that is up: nothing is to be done.
fn settled() -> Observed {
    let spec = json!({"controlPlaneEndpoint": {"host": "h", "port": 6443},
        "infrastructureRef": {"apiGroup": "i", "kind": "VSphereCluster", "name": "x"},
        "controlPlaneRef": {"apiGroup": "c", "kind": "TalosControlPlane", "name": "x"}});
    let infrastructure =
        json!({"spec": {"controlPlaneEndpoint": {"host": "h", "port": 6443}}, "status": {"initialization": {"provisioned": true}}});
    let control_plane = json!({"spec": {"replicas": 3}, "status": {"initialized": true, "ready": true, "replicas": 3, "readyReplicas": 3}});
    Observed {
        cluster: cluster(json!({"spec": spec})),
        infrastructure: external("VSphereCluster", infrastructure),
        control_plane: external("TalosControlPlane", control_plane),
        deployments: Vec::new(),
        sets: Vec::new(),
        machines: Vec::new(),
        connection: Connection::Connected { since: now() },
        away_since: None,
        nodes: Vec::new(),
        now: now(),
    }
}

fn cluster(change: Value) -> Arc<Cluster> {
    let mut value = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u", "generation": 2, "finalizers": ["cluster.cluster.x-k8s.io"]}, "spec": {}});
    json_patch::merge(&mut value, &change);
    read(value)
}

fn with_cluster(observed: &Observed, change: &Value) -> Observed {
    let mut value = serde_json::to_value(&*observed.cluster).unwrap();
    json_patch::merge(&mut value, change);
    Observed { cluster: read(value), ..observed.clone() }
}

fn going() -> Value {
    json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:00Z"}})
}

fn machine(name: &str, labels: Value, change: &Value) -> Arc<Machine> {
    let mut value = json!({"metadata": {"name": name, "namespace": "n", "labels": labels}, "spec": {"clusterName": "c", "bootstrap": {},
        "infrastructureRef": {"apiGroup": "i", "kind": "K", "name": "x"}}});
    json_patch::merge(&mut value, change);
    read(value)
}

fn deployment(change: &Value) -> Arc<MachineDeployment> {
    let mut value = json!({"metadata": {"name": "d", "namespace": "n"}, "spec": {"clusterName": "c", "replicas": 2, "selector": {}, "template": {"spec":
        {"clusterName": "c", "bootstrap": {}, "infrastructureRef": {"apiGroup": "i", "kind": "K", "name": "x"}}}}});
    json_patch::merge(&mut value, change);
    read(value)
}

fn set(change: &Value) -> Arc<MachineSet> {
    let mut value = serde_json::to_value(&*deployment(&json!({}))).unwrap();
    value["metadata"]["name"] = json!("s");
    json_patch::merge(&mut value, change);
    read(value)
}

fn words(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| format!("{step:?}").split([' ', '(']).next().unwrap().to_owned()).collect()
}

#[test]
fn what_is_missing_is_done_and_nothing_else() {
    let base = settled();
    assert_eq!(plan(&base), Plan::default());
    let without_finalizer = with_cluster(&base, &json!({"metadata": {"finalizers": null}}));
    assert_eq!(plan(&without_finalizer).steps, [Step::AddFinalizer]);
    let infrastructure = |change: Value| Observed { infrastructure: external("VSphereCluster", change), ..base.clone() };
    assert_eq!(plan(&infrastructure(json!({"metadata": {"labels": null}}))).steps, [Step::OwnInfrastructure]);
    assert_eq!(plan(&infrastructure(json!({"metadata": {"ownerReferences": null}}))).steps, [Step::OwnInfrastructure]);
    let other =
        json!({"metadata": {"ownerReferences": [{"apiVersion": "x/v1", "kind": "K", "name": "o", "uid": "o", "controller": true}]}});
    assert_eq!(plan(&infrastructure(other)).steps, [], "another controller's object is left to it");
    let mut leaving = json!({"metadata": {"ownerReferences": null}});
    json_patch::merge(&mut leaving, &going());
    assert_eq!(plan(&infrastructure(leaving)).steps, []);
    let control_plane = Observed { control_plane: external("TalosControlPlane", json!({"metadata": {"labels": null}})), ..base.clone() };
    assert_eq!(plan(&control_plane).steps, [Step::OwnControlPlane]);
    let missing = Referenced::Missing { kind: "VSphereCluster".into(), name: "x".into() };
    assert_eq!(plan(&Observed { infrastructure: missing, control_plane: Referenced::None, ..base.clone() }).steps, []);
}

#[test]
fn the_endpoint_is_copied_once_infrastructure_is_there() {
    let base = with_cluster(&settled(), &json!({"spec": {"controlPlaneEndpoint": null}}));
    assert_eq!(plan(&base).steps, [Step::CopyEndpoint { host: "h".into(), port: 6443 }]);
    let unready = external("VSphereCluster", json!({"spec": {"controlPlaneEndpoint": {"host": "h", "port": 6443}}}));
    assert_eq!(plan(&Observed { infrastructure: unready, ..base.clone() }).steps, []);
    // The older contract says `ready`.
    let old = external("VSphereCluster", json!({"spec": {"controlPlaneEndpoint": {"host": "h", "port": 6443}}, "status": {"ready": true}}));
    assert_eq!(plan(&Observed { infrastructure: old, ..base.clone() }).steps.len(), 1);
    let without = external("VSphereCluster", json!({"status": {"ready": true}}));
    assert_eq!(plan(&Observed { infrastructure: without, ..base }).steps, []);
}

#[test]
fn a_paused_cluster_is_left_alone_even_when_it_is_deleted() {
    for change in [json!({"spec": {"paused": true}}), json!({"metadata": {"annotations": {"cluster.x-k8s.io/paused": ""}}})] {
        let paused = with_cluster(&with_cluster(&settled(), &change), &going());
        let plan = plan(&paused);
        assert_eq!(plan, Plan { is_paused: true, ..Plan::default() });
        let told = status(&paused, &plan);
        assert_eq!(get(&told.conditions, "Paused").unwrap().status, Status::True);
        assert_eq!(told.conditions.len(), 1);
    }
}

#[test]
fn a_deletion_goes_from_workers_to_infrastructure() {
    let controlled =
        json!({"metadata": {"ownerReferences": [{"apiVersion": "x/v1", "kind": "K", "name": "o", "uid": "o", "controller": true}]}});
    let is_control_plane = json!({"cluster.x-k8s.io/control-plane": ""});
    let base = with_cluster(&settled(), &going());

    let mut full = base.clone();
    full.deployments = vec![deployment(&json!({})), deployment(&going())];
    full.sets = vec![set(&json!({})), set(&controlled), set(&going())];
    full.machines = vec![
        machine("w", json!({}), &json!({})),
        machine("owned", json!({}), &controlled),
        machine("gone", json!({}), &going()),
        machine("cp", is_control_plane.clone(), &controlled),
    ];
    let planned = plan(&full);
    assert_eq!(words(&planned), ["DeleteDeployment", "DeleteSet", "DeleteMachine"], "what has a controller goes with it");
    let Some(Deletion::Workers { left }) = &planned.deletion else { panic!("{planned:?}") };
    assert_eq!(left.len(), 8);
    let told = status(&full, &planned);
    assert_eq!(told.phase, Some(ClusterPhase::Deleting));
    let deleting = get(&told.conditions, "Deleting").unwrap();
    assert_eq!(deleting.reason, "WaitingForWorkersDeletion");
    let expected = "waiting for workers to be deleted since 08:00:00: MachineDeployment d, MachineDeployment d, MachineSet s, MachineSet s, MachineSet s, ... (3 more)";
    assert_eq!(deleting.message, expected);

    let workers_gone = Observed { machines: vec![machine("cp", is_control_plane.clone(), &controlled)], ..base.clone() };
    let planned = plan(&workers_gone);
    assert_eq!(words(&planned), ["DeleteControlPlane"]);
    assert_eq!(planned.deletion, Some(Deletion::ControlPlane { left: "TalosControlPlane x".into() }));
    let leaving = Observed { control_plane: external("TalosControlPlane", going()), ..workers_gone.clone() };
    assert_eq!(plan(&leaving).steps, []);

    let missing = || Referenced::Missing { kind: "K".into(), name: "x".into() };
    let orphans = Observed { control_plane: missing(), ..workers_gone };
    assert_eq!(words(&plan(&orphans)), ["DeleteMachine"], "nobody else deletes the Machines of a control plane that is gone");
    let leaving = Observed { machines: vec![machine("cp", is_control_plane, &going())], ..orphans };
    assert_eq!(plan(&leaving).steps, []);
    assert_eq!(plan(&leaving).deletion, Some(Deletion::ControlPlane { left: "Machine cp".into() }));

    let last = Observed { control_plane: missing(), ..base.clone() };
    assert_eq!(words(&plan(&last)), ["DeleteInfrastructure"]);
    let leaving = Observed { infrastructure: external("VSphereCluster", going()), ..last.clone() };
    assert_eq!(
        (plan(&leaving).steps, plan(&leaving).deletion),
        (vec![], Some(Deletion::Infrastructure { left: "VSphereCluster x".into() }))
    );

    let empty = Observed { infrastructure: Referenced::None, control_plane: Referenced::None, ..base };
    assert_eq!(plan(&empty).steps, [Step::RemoveFinalizer]);
    assert_eq!(get(&status(&empty, &plan(&empty)).conditions, "Deleting").unwrap().reason, "DeletionCompleted");
    let done = with_cluster(&empty, &json!({"metadata": {"finalizers": ["foreign"]}}));
    assert_eq!(plan(&done).steps, []);
}

#[test]
fn phases_follow_infrastructure_and_endpoint() {
    let base = settled();
    let phase = |observed: &Observed| status(observed, &plan(observed)).phase.unwrap();
    assert_eq!(phase(&base), ClusterPhase::Provisioned);
    assert_eq!(phase(&with_cluster(&base, &json!({"spec": {"controlPlaneEndpoint": null}}))), ClusterPhase::Provisioning);
    let unready = Observed { infrastructure: external("VSphereCluster", json!({})), ..base.clone() };
    assert_eq!(phase(&unready), ClusterPhase::Provisioning);
    let failed = external("VSphereCluster", json!({"status": {"failureReason": "CreateError", "failureMessage": "no"}}));
    let failed = Observed { infrastructure: failed, ..base.clone() };
    assert_eq!(phase(&failed), ClusterPhase::Failed);
    let told = status(&failed, &plan(&failed)).deprecated.v1beta1;
    assert_eq!((told.failure_reason.as_deref(), told.failure_message.as_deref()), (Some("CreateError"), Some("no")));
    let bare = Observed { infrastructure: Referenced::None, control_plane: Referenced::None, ..base };
    let bare = with_cluster(&bare, &json!({"spec": {"infrastructureRef": null, "controlPlaneRef": null, "controlPlaneEndpoint": null}}));
    assert_eq!(phase(&bare), ClusterPhase::Pending);
}

#[test]
fn initialization_never_goes_back() {
    let base = settled();
    let up = status(&base, &plan(&base));
    let before = json!({"status": up});
    let lost = Observed {
        infrastructure: Referenced::Missing { kind: "VSphereCluster".into(), name: "x".into() },
        control_plane: external("TalosControlPlane", json!({})),
        ..with_cluster(&base, &before)
    };
    let told = status(&lost, &plan(&lost));
    assert_eq!(told.initialization, up.initialization);
    assert_eq!(get(&told.conditions, "InfrastructureReady").unwrap().message, "Infrastructure: VSphereCluster x does not exist");
    // Without a control-plane object the first control-plane Machine with a Node counts.
    let node = json!({"status": {"nodeRef": {"name": "n"}}});
    let own = Observed {
        control_plane: Referenced::None,
        machines: vec![machine("cp", json!({"cluster.x-k8s.io/control-plane": ""}), &node)],
        ..base
    };
    assert_eq!(status(&own, &plan(&own)).initialization.control_plane_initialized, Some(true));
}

#[test]
fn a_cluster_that_is_away_for_a_moment_is_not_called_out_of_reach() {
    let known = serde_json::to_value(status(&settled(), &plan(&settled()))).unwrap();
    let reached = with_cluster(&settled(), &json!({"status": known}));
    let later = |seconds: i64| Observed {
        connection: Connection::Waiting { on: "Secret c-kubeconfig".into() },
        away_since: Some(now()),
        now: now() + jiff::SignedDuration::from_secs(seconds),
        ..reached.clone()
    };
    let shown = |observed: &Observed, type_: &str| get(&status(observed, &plan(observed)).conditions, type_).unwrap().clone();
    for type_ in ["RemoteConnectionProbe", "Available"] {
        assert_eq!(shown(&later(49), type_), shown(&reached, type_));
    }
    assert_eq!(shown(&later(50), "RemoteConnectionProbe").status, Status::False);
    assert_eq!(crate::cluster::status::doubted_at(&later(1)), Some(now() + jiff::SignedDuration::from_secs(50)));
}

#[test]
fn conditions_tell_the_parts_words() {
    let scaling = json!({"type": "Ready", "status": "False", "severity": "Warning", "reason": "ScalingUp", "message": "Scaling up control plane to 3 replicas (actual 2)"});
    let available = json!({"type": "Available", "status": "False", "reason": "WaitingForTalosBoot", "message": ""});
    let control_plane = external("TalosControlPlane", json!({"status": {"conditions": [scaling, available]}}));
    let observed = Observed {
        control_plane,
        connection: Connection::Disconnected { since: now(), because: "connection refused".into() },
        deployments: vec![deployment(&json!({}))],
        ..settled()
    };
    let told = status(&observed, &plan(&observed));
    let legacy = &told.deprecated.v1beta1.conditions;
    let ready = get_legacy(legacy, "Ready").unwrap();
    assert_eq!(
        (ready.reason.as_deref(), ready.message.as_deref()),
        (Some("ScalingUp"), Some("Scaling up control plane to 3 replicas (actual 2)"))
    );
    let initialized = get_legacy(legacy, "ControlPlaneInitialized").unwrap();
    assert_eq!(initialized.reason.as_deref(), Some("WaitingForControlPlaneProviderInitialized"));
    assert_eq!(get(&told.conditions, "ControlPlaneAvailable").unwrap().reason, "WaitingForTalosBoot");
    let probe = get(&told.conditions, "RemoteConnectionProbe").unwrap();
    assert_eq!(probe.message, "Remote connection probe failed: disconnected since 08:00:00: connection refused");
    let available = get(&told.conditions, "Available").unwrap();
    assert_eq!((available.status, available.reason.as_str()), (Status::False, "NotAvailable"));
    assert_eq!(
        available.message,
        "* RemoteConnectionProbe: Remote connection probe failed: disconnected since 08:00:00: connection refused\n\
         * ControlPlaneAvailable: WaitingForTalosBoot\n\
         * WorkersAvailable:\n  * MachineDeployment d: Condition Available not yet reported"
    );
    assert_eq!(told.conditions[0].type_, "Available");
    assert!(told.conditions.len() <= 32);
}

#[test]
fn failure_domains_are_read_in_both_forms_and_counts_are_the_parts() {
    let list = json!([{"name": "b"}, {"name": "a", "controlPlane": true}]);
    let map = json!({"b": {}, "a": {"controlPlane": true}});
    for (domains, names) in [(list, ["b", "a"]), (map, ["a", "b"])] {
        let infrastructure = external("VSphereCluster", json!({"status": {"ready": true, "failureDomains": domains}}));
        let observed = Observed { infrastructure, ..settled() };
        let told = status(&observed, &plan(&observed));
        assert_eq!(told.failure_domains.iter().map(|domain| domain.name.as_str()).collect::<Vec<_>>(), names);
    }
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-03-01T08:00:00Z"}]}});
    let observed = Observed {
        deployments: vec![deployment(&json!({}))],
        sets: vec![set(&json!({"spec": {"replicas": 1}}))],
        machines: vec![machine("a", json!({}), &ready), machine("b", json!({}), &json!({}))],
        ..settled()
    };
    let told = status(&observed, &plan(&observed));
    let workers = told.workers.unwrap();
    assert_eq!((workers.desired_replicas, workers.replicas, workers.ready_replicas), (Some(5), Some(2), Some(1)));
    assert_eq!(told.control_plane.unwrap().replicas, Some(3));
}

#[test]
fn events_are_told_once() {
    let observed = settled();
    let told = status(&observed, &plan(&observed));
    let first: Vec<String> = events(&observed.cluster, &told).into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(first, ["Provisioned", "InfrastructureReady", "ControlPlaneInitialized", "Available"]);
    let after = with_cluster(&observed, &json!({"status": told}));
    assert_eq!(status(&after, &plan(&after)), told, "the same view gives the same status");
    assert_eq!(events(&after.cluster, &told), []);
}

#[test]
fn nodes_without_a_machine_are_told_when_they_stay() {
    const ID: &str = "vsphere://b95b13fa-dd72-5777-8b59-51ecae5d0371";
    let node = |name: &str, joined: &str, change: &Value| -> Arc<k8s_openapi::api::core::v1::Node> {
        let mut value = json!({"metadata": {"name": name, "creationTimestamp": format!("2026-03-01T{joined}Z")}, "spec": {}});
        json_patch::merge(&mut value, change);
        read(value)
    };
    let known = machine("a", json!({}), &json!({"status": {"nodeRef": {"name": "a"}}}));
    let joining = machine("b", json!({}), &json!({"spec": {"providerID": ID}}));
    let with = |nodes: Vec<_>| Observed { machines: vec![known.clone(), joining.clone()], nodes, ..settled() };
    let told = |observed: &Observed| {
        let told = status(observed, &plan(observed));
        get(&told.conditions, super::status::STRAY_NODES).map(|told| told.message.clone())
    };
    let ours = || vec![node("a", "07:00:00", &json!({})), node("b", "07:00:00", &json!({"spec": {"providerID": ID}}))];
    assert_eq!(told(&with(ours())), None);
    let kept = node("old", "07:00:00", &json!({"metadata": {"annotations": {"cluster.x-k8s.io/machine": "old-1"}}}));
    let text = told(&with([ours(), vec![kept]].concat())).unwrap();
    assert!(text.starts_with("Node old has no Machine any more (old-1 is gone): ") && text.contains("`kubectl delete node old`"), "{text}");
    let text = told(&with(vec![node("x", "07:58:00", &json!({}))])).unwrap();
    assert!(text.starts_with("Node x belongs to no Machine of this Cluster (it joined at 07:58:00)"), "{text}");
    let fresh = with(vec![node("x", "07:58:01", &json!({}))]);
    assert_eq!((told(&fresh), super::strays::look_again(&fresh)), (None, Some("2026-03-01T08:00:01Z".parse().unwrap())));
    // What was told stays while nobody can look, and goes when they are gone.
    let was = Observed { cluster: with_status(&with(vec![node("x", "07:00:00", &json!({}))])), ..with(Vec::new()) };
    assert_eq!(told(&was), None);
    let away = Observed { connection: Connection::Waiting { on: "x".into() }, ..was };
    assert!(told(&away).is_some());
}

/// The Cluster with the status that is told of it.
fn with_status(observed: &Observed) -> Arc<Cluster> {
    let mut cluster = (*observed.cluster).clone();
    cluster.status = Some(status(observed, &plan(observed)));
    Arc::new(cluster)
}
