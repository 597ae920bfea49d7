//! Every branch of a Machine's plan, and what its status tells in each.

use std::sync::Arc;

use api::cluster::{Cluster, MachinePhase};
use api::conditions::{Status, get, get_legacy};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use runtime::defects::Defects;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::plan::{Deletion, NodeWait, Observed, Plan, Step, plan};
use super::status::{NASCENT, is_nascent, status};
use crate::contract::{External, Referenced};
use crate::workload::{Connection, Load, Looked};

const ID: &str = "vsphere://b95b13fa-dd72-5777-8b59-51ecae5d0371";

pub(super) fn read<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

pub(super) fn at(text: &str) -> Timestamp {
    format!("2026-03-01T{text}Z").parse().unwrap()
}

pub(super) fn going() -> Value {
    json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:00Z"}})
}

pub(super) fn missing(kind: &str) -> Referenced {
    Referenced::Missing { kind: kind.into(), name: "x".into() }
}

pub(super) fn external(kind: &str, change: &Value) -> Referenced {
    let mut value = json!({"kind": kind, "metadata": {"name": "x", "labels": {"cluster.x-k8s.io/cluster-name": "c"},
        "ownerReferences": [{"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine", "name": "m", "uid": "u", "controller": true}]}});
    json_patch::merge(&mut value, change);
    Referenced::Found(read::<External>(value))
}

fn bootstrap() -> Value {
    json!({"status": {"initialization": {"dataSecretCreated": true}, "dataSecretName": "m-bootstrap-data"}})
}

fn infrastructure() -> Value {
    json!({"spec": {"providerID": ID}, "status": {"initialization": {"provisioned": true}, "addresses": [{"type": "ExternalIP", "address": "10.0.0.1"}]}})
}

pub(super) fn cluster(change: &Value) -> Arc<Cluster> {
    let mut value = json!({"metadata": {"name": "c", "namespace": "n", "uid": "c"}, "spec": {}, "status": {"initialization": {"controlPlaneInitialized": true}}});
    json_patch::merge(&mut value, change);
    read(value)
}

pub(super) fn node(change: &Value) -> Arc<Node> {
    let mut value = json!({"metadata": {"name": "m", "uid": "node", "annotations": {"cluster.x-k8s.io/cluster-name": "c",
            "cluster.x-k8s.io/cluster-namespace": "n", "cluster.x-k8s.io/machine": "m", "cluster.x-k8s.io/labels-from-machine": "",
            "cluster.x-k8s.io/owner-kind": "MachineSet", "cluster.x-k8s.io/owner-name": "s"}},
        "spec": {"providerID": ID}, "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}]}});
    json_patch::merge(&mut value, change);
    read(value)
}

#[test]
fn a_new_machine_tells_nothing_before_its_parts_are_made() {
    let made = at("08:00:00");
    let mut new = Observed { infrastructure: missing("VSphereMachine"), now: made, ..settled() };
    Arc::make_mut(&mut new.machine).metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(made));
    let is = |observed: &Observed| is_nascent(observed, &plan(observed));
    assert!(is(&new));
    assert!(!is(&Observed { now: made + NASCENT, ..new.clone() }), "what never comes is told");
    assert!(!is(&Observed { infrastructure: external("VSphereMachine", &json!({})), ..new.clone() }));
    let told = status(&new, &plan(&new));
    Arc::make_mut(&mut new.machine).status = Some(told);
    assert!(!is(&new), "what was there and is gone is told");
}

/// A Node's load, looked at a moment ago, without volumes.
pub(super) fn load(pods: &[Value]) -> Load {
    let pods = pods.iter().map(|pod| read(pod.clone())).collect();
    Load { round: 1, looked: Looked { pods, volumes: Some(Vec::new()), ..Looked::default() }, ..Load::unknown(at("08:00:04")) }
}

/// A Machine that runs: nothing is to be done.
pub(super) fn settled() -> Observed {
    let machine = json!({"metadata": {"name": "m", "namespace": "n", "uid": "u", "generation": 3, "finalizers": ["machine.cluster.x-k8s.io"],
            "labels": {"cluster.x-k8s.io/cluster-name": "c"},
            "ownerReferences": [{"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineSet", "name": "s", "uid": "s", "controller": true}]},
        "spec": {"clusterName": "c", "providerID": ID, "bootstrap": {"configRef": {"apiGroup": "b", "kind": "TalosConfig", "name": "x"}, "dataSecretName": "m-bootstrap-data"},
            "infrastructureRef": {"apiGroup": "i", "kind": "VSphereMachine", "name": "x"}}});
    Observed {
        inspection: None,
        machine: read(machine),
        cluster: Some(cluster(&json!({}))),
        bootstrap: external("TalosConfig", &bootstrap()),
        infrastructure: external("VSphereMachine", &infrastructure()),
        control_plane: Referenced::None,
        owner: Referenced::None,
        control_plane_machines: 3,
        connection: Connection::Connected { since: at("08:00:00") },
        away_since: None,
        nodes: vec![node(&json!({}))],
        trouble: None,
        load: Some(load(&[])),
        rules: Vec::new(),
        now: at("08:00:05"),
        defects: Defects::none(),
    }
}

/// The same whose Node takes no new pods.
pub(super) fn cordoned() -> Observed {
    Observed { nodes: vec![node(&json!({"spec": {"unschedulable": true}}))], ..settled() }
}

/// The steps but for events.
pub(super) fn effects(observed: &Observed) -> Vec<Step> {
    plan(observed).steps.into_iter().filter(|step| !matches!(step, Step::Tell { .. })).collect()
}

pub(super) fn changed(observed: &Observed, change: &Value) -> Observed {
    let mut value = serde_json::to_value(&*observed.machine).unwrap();
    json_patch::merge(&mut value, change);
    Observed { machine: read(value), ..observed.clone() }
}

pub(super) fn told(observed: &Observed) -> api::cluster::MachineStatus {
    status(observed, &plan(observed))
}

#[test]
fn a_running_machine_needs_nothing_and_its_status_is_stable() {
    let base = settled();
    let planned = plan(&base);
    assert_eq!((&planned.steps, &planned.node_wait), (&vec![], &None));
    let status = told(&base);
    assert_eq!(status.phase, Some(MachinePhase::Running));
    assert_eq!(status.node_ref.as_ref().unwrap().name, "m");
    assert_eq!(status.addresses.len(), 1);
    for type_ in ["Available", "Ready", "NodeReady", "NodeHealthy", "InfrastructureReady", "BootstrapConfigReady"] {
        assert_eq!(get(&status.conditions, type_).unwrap().status, Status::True, "{type_}");
    }
    assert_eq!(told(&changed(&base, &json!({"status": status}))), status);
}

#[test]
fn what_is_missing_is_done() {
    let base = settled();
    for change in
        [json!({"metadata": {"finalizers": null}}), json!({"metadata": {"labels": null}}), json!({"metadata": {"ownerReferences": null}})]
    {
        assert_eq!(plan(&changed(&base, &change)).steps[0], Step::Claim, "{change}");
    }
    let cloner = json!({"metadata": {"ownerReferences": [{"apiVersion": "x/v1", "kind": "TalosControlPlane", "name": "o", "uid": "o", "controller": true}]}});
    let free = json!({"metadata": {"ownerReferences": null}});
    for change in [cloner, free, json!({"metadata": {"labels": null}})] {
        let mut with = bootstrap();
        with["metadata"] = change["metadata"].clone();
        assert_eq!(plan(&Observed { bootstrap: external("TalosConfig", &with), ..base.clone() }).steps, [Step::OwnBootstrap]);
        let mut with = infrastructure();
        with["metadata"] = change["metadata"].clone();
        assert_eq!(plan(&Observed { infrastructure: external("VSphereMachine", &with), ..base.clone() }).steps, [Step::OwnInfrastructure]);
    }
    let bare = changed(&base, &json!({"spec": {"providerID": null, "bootstrap": {"dataSecretName": null}}}));
    let copied = Step::CopySpec { data_secret_name: Some("m-bootstrap-data".into()), provider_id: Some(ID.into()), failure_domain: None };
    assert_eq!(plan(&bare).steps, [copied]);
    let mut zoned = infrastructure();
    json_patch::merge(&mut zoned, &json!({"spec": {"failureDomain": "z"}}));
    let zoned = Observed { infrastructure: external("VSphereMachine", &zoned), ..base.clone() };
    let copied = Step::CopySpec { data_secret_name: None, provider_id: None, failure_domain: Some("z".into()) };
    assert_eq!(plan(&zoned).steps, [copied]);
    // Not before its provider says so.
    let unready = json!({"spec": {"providerID": "vsphere://other"}});
    let unready = Observed { infrastructure: external("VSphereMachine", &unready), bootstrap: external("TalosConfig", &json!({})), ..base };
    assert!(!plan(&unready).steps.iter().any(|step| matches!(step, Step::CopySpec { .. })));
}

#[test]
fn a_machine_without_its_cluster_waits_and_a_paused_one_is_left_alone() {
    let base = settled();
    let alone = Observed { cluster: None, ..changed(&base, &json!({"metadata": {"finalizers": null}})) };
    assert_eq!(plan(&alone), Plan::default());
    let paused = Plan { is_paused: true, ..Plan::default() };
    assert_eq!(plan(&changed(&base, &json!({"metadata": {"annotations": {"cluster.x-k8s.io/paused": ""}}}))), paused);
    let by_cluster = Observed { cluster: Some(cluster(&json!({"spec": {"paused": true}}))), ..base };
    assert_eq!(plan(&by_cluster), paused);
    assert_eq!(get(&told(&by_cluster).conditions, "Paused").unwrap().status, Status::True);
}

#[test]
fn every_reason_for_waiting_is_told() {
    let base = Observed { nodes: Vec::new(), ..settled() };
    let unready = external("VSphereMachine", &json!({}));
    let no_id = changed(
        &Observed { infrastructure: external("VSphereMachine", &json!({"status": {"ready": true}})), ..base.clone() },
        &json!({"spec": {"providerID": null}}),
    );
    let had_node = changed(&base, &json!({"status": {"nodeRef": {"name": "m"}}}));
    let away = Connection::Disconnected { since: at("08:00:00"), because: "refused".into() };
    let table = [
        (
            Observed { infrastructure: unready, ..base.clone() },
            NodeWait::Infrastructure { kind: "VSphereMachine".into() },
            "Waiting for VSphereMachine to be provisioned since 08:00:05",
        ),
        (
            no_id,
            NodeWait::ProviderId { kind: "VSphereMachine".into() },
            "Waiting for VSphereMachine to report spec.providerID since 08:00:05",
        ),
        (
            Observed { cluster: Some(cluster(&json!({"status": null}))), ..base.clone() },
            NodeWait::ControlPlaneInitialized,
            "Waiting for Cluster control plane to be initialized since 08:00:05",
        ),
        (
            Observed { connection: away.clone(), ..base.clone() },
            NodeWait::Connection { state: "disconnected since 08:00:00: refused".into() },
            "Workload cluster disconnected since 08:00:00: refused",
        ),
        (
            base.clone(),
            NodeWait::Node { provider_id: ID.into() },
            "Waiting for a Node with spec.providerID vsphere://b95b13fa-dd72-5777-8b59-51ecae5d0371 to exist since 08:00:05",
        ),
        (had_node, NodeWait::Lost { node: "m".into() }, "Node m has been deleted while the Machine still exists"),
    ];
    for (observed, wait, message) in table {
        assert_eq!(plan(&observed).node_wait, Some(wait));
        assert_eq!(get(&told(&observed).conditions, "NodeHealthy").unwrap().message, message);
    }
    let lost_contact = Observed { connection: away, ..settled() };
    let condition = get(&told(&lost_contact).conditions, "NodeHealthy").cloned().unwrap();
    assert_eq!((condition.status, condition.reason.as_str()), (Status::Unknown, "ConnectionDown"));
    assert_eq!(told(&lost_contact).phase, Some(MachinePhase::Running), "a Machine that ran is not taken back for a lost connection");
}

#[test]
fn what_was_known_of_a_node_stands_while_its_cluster_is_away_for_a_moment() {
    let known = serde_json::to_value(told(&settled())).unwrap();
    let ran = changed(&settled(), &json!({"status": known}));
    let away = |now: &str| Observed {
        connection: Connection::Waiting { on: "Secret c-kubeconfig".into() },
        away_since: Some(at("08:00:10")),
        nodes: Vec::new(),
        now: at(now),
        ..ran.clone()
    };
    for type_ in ["NodeHealthy", "NodeReady", "Ready"] {
        let shown = |observed: &Observed| get(&told(observed).conditions, type_).unwrap().clone();
        assert_eq!(shown(&away("08:05:09")), shown(&ran), "{type_}");
        assert_eq!(shown(&away("08:05:10")).status, Status::Unknown, "{type_}");
    }
    assert_eq!(crate::machine::status::doubted_at(&away("08:00:11")), Some(at("08:05:10")));
    let never = Observed { machine: settled().machine, ..away("08:00:11") };
    assert_eq!(get(&told(&never).conditions, "NodeReady").unwrap().reason, "ConnectionDown", "what was never known cannot stand");
}

#[test]
fn a_node_is_patched_and_counts_once_it_carries_the_identity() {
    let uuid = json!({"spec": {"providerID": null}, "status": {"nodeInfo": {"systemUUID": "fa135bb9-72dd-7757-8b59-51ecae5d0371", "architecture": "", "bootID": "",
        "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": ""}}});
    let observed = Observed { nodes: vec![node(&uuid)], ..settled() };
    let planned = plan(&observed);
    let [Step::PatchNode { node: name, patch }] = planned.steps.as_slice() else { panic!("{planned:?}") };
    assert_eq!((name.as_str(), patch), ("m", &json!({"metadata": {"uid": "node"}, "spec": {"providerID": ID}})));
    assert_eq!(planned.node, None, "what was handed in is not assumed");
    let away = Observed { connection: Connection::Disconnected { since: at("08:00:00"), because: "x".into() }, ..observed };
    assert_eq!(plan(&away).steps, []);
}

#[test]
fn phases_follow_what_is_there() {
    let base = settled();
    let without_node = Observed { nodes: Vec::new(), ..base.clone() };
    let phase = |observed: &Observed| told(observed).phase.unwrap();
    assert_eq!(phase(&without_node), MachinePhase::Provisioned);
    let unready = Observed { infrastructure: external("VSphereMachine", &json!({})), ..without_node.clone() };
    assert_eq!(phase(&unready), MachinePhase::Provisioning);
    let pending = Observed { bootstrap: external("TalosConfig", &json!({})), ..unready };
    assert_eq!(phase(&pending), MachinePhase::Pending);
    let failed =
        Observed { infrastructure: external("VSphereMachine", &json!({"status": {"failureMessage": "no"}})), ..without_node.clone() };
    assert_eq!(phase(&failed), MachinePhase::Failed);
    let vanished = Observed {
        infrastructure: missing("VSphereMachine"),
        ..changed(&base, &json!({"status": {"initialization": {"infrastructureProvisioned": true}}}))
    };
    assert_eq!(phase(&vanished), MachinePhase::Failed);
    assert_eq!(told(&vanished).deprecated.v1beta1.failure_message.as_deref(), Some("VSphereMachine x was there and is gone"));
    let not_yet = Observed { infrastructure: missing("VSphereMachine"), ..base };
    assert_ne!(phase(&not_yet), MachinePhase::Failed);
    assert_eq!(phase(&changed(&without_node, &going())), MachinePhase::Deleting);
}

#[test]
fn node_conditions_count() {
    let with = |conditions: Value| told(&Observed { nodes: vec![node(&json!({"status": {"conditions": conditions}}))], ..settled() });
    let table = [
        (
            json!([{"type": "Ready", "status": "False", "message": "starting"}]),
            Status::False,
            "NodeNotHealthy",
            "* Node.Ready: starting",
            "NodeNotReady",
        ),
        (
            json!([{"type": "Ready", "status": "Unknown"}]),
            Status::Unknown,
            "NodeHealthUnknown",
            "* Node.Ready: Condition is Unknown",
            "NodeReadyUnknown",
        ),
        (json!([]), Status::Unknown, "NodeConditionsFailed", "* Node.Ready: Condition not yet reported", "NodeConditionsFailed"),
        (
            json!([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True", "message": "full"}, {"type": "Own", "status": "False"}]),
            Status::False,
            "NodeNotHealthy",
            "* Node.DiskPressure: full",
            "NodeReady",
        ),
    ];
    for (conditions, expected, reason, message, ready_reason) in table {
        let status = with(conditions);
        let healthy = get(&status.conditions, "NodeHealthy").unwrap();
        assert_eq!((healthy.status, healthy.reason.as_str(), healthy.message.as_str()), (expected, reason, message));
        assert_eq!(get(&status.conditions, "NodeReady").unwrap().reason, ready_reason);
        assert_ne!(get(&status.conditions, "Ready").unwrap().status, Status::True);
    }
}

#[test]
fn readiness_lasts_before_it_is_availability() {
    let ready = told(&settled());
    let waiting = changed(&settled(), &json!({"spec": {"minReadySeconds": 60}, "status": ready}));
    let condition = get(&told(&waiting).conditions, "Available").cloned().unwrap();
    assert_eq!((condition.status, condition.reason.as_str()), (Status::False, "WaitingForMinReadySeconds"));
    assert_eq!(condition.message, "waiting for 60 s of being ready, until 08:01:05");
    let later = Observed { now: at("08:01:05"), ..waiting };
    assert_eq!(get(&told(&later).conditions, "Available").unwrap().status, Status::True);
}

#[test]
fn etcds_hook_holds_while_somebody_can_take_it_off() {
    let hook = "pre-terminate.delete.hook.machine.cluster.x-k8s.io/etcd-member";
    let owner = json!([{"apiVersion": "controlplane.cluster.x-k8s.io/v1alpha3", "kind": "TalosControlPlane", "name": "cp", "uid": "cp", "controller": true}]);
    let held = changed(&changed(&cordoned(), &going()), &json!({"metadata": {"annotations": {hook: ""}, "ownerReferences": owner}}));
    let with = |owner: Referenced| Observed { owner, ..held.clone() };
    let living = with(external("TalosControlPlane", &json!({"metadata": {"uid": "cp"}})));
    assert_eq!(plan(&living).deletion, Some(Deletion::PreTerminateHook { hooks: vec![hook.into()] }));
    let cluster_goes = Observed { cluster: Some(cluster(&going())), ..living.clone() };
    for free in
        [with(missing("TalosControlPlane")), with(external("TalosControlPlane", &json!({"metadata": {"uid": "another"}}))), cluster_goes]
    {
        assert_eq!(effects(&free), [Step::DeleteInfrastructure]);
    }
    let both = changed(
        &with(missing("TalosControlPlane")),
        &json!({"metadata": {"annotations": {"pre-terminate.delete.hook.machine.cluster.x-k8s.io/b": ""}}}),
    );
    assert!(matches!(plan(&both).deletion, Some(Deletion::PreTerminateHook { hooks }) if hooks.len() == 1), "others' hooks hold");
}

#[test]
fn a_deletion_goes_hook_by_hook_and_part_by_part() {
    let base = changed(&changed(&cordoned(), &going()), &json!({"status": {"nodeRef": {"name": "m"}}}));
    let hooked = changed(
        &base,
        &json!({"metadata": {"annotations": {"pre-drain.delete.hook.machine.cluster.x-k8s.io/a": "", "pre-terminate.delete.hook.machine.cluster.x-k8s.io/b": ""}}}),
    );
    let planned = plan(&hooked);
    assert_eq!(
        (planned.steps.len(), &planned.deletion),
        (0, &Some(Deletion::PreDrainHook { hooks: vec!["pre-drain.delete.hook.machine.cluster.x-k8s.io/a".into()] }))
    );
    assert!(told(&hooked).deletion.unwrap().wait_for_pre_drain_hook_start_time.is_some());
    let undrained = changed(&hooked, &json!({"metadata": {"annotations": {"pre-drain.delete.hook.machine.cluster.x-k8s.io/a": null}}}));
    assert!(matches!(plan(&undrained).deletion, Some(Deletion::PreTerminateHook { .. })));
    assert_eq!(effects(&undrained), []);
    let legacy = told(&undrained).deprecated.v1beta1.conditions;
    assert_eq!(get_legacy(&legacy, "PreDrainDeleteHookSucceeded").unwrap().status, Status::True);
    assert_eq!(get_legacy(&legacy, "PreTerminateDeleteHookSucceeded").unwrap().status, Status::False);

    assert_eq!(effects(&base), [Step::DeleteInfrastructure]);
    let leaving = Observed { infrastructure: external("VSphereMachine", &going()), ..base.clone() };
    assert_eq!(
        (plan(&leaving).steps, plan(&leaving).deletion),
        (vec![], Some(Deletion::Infrastructure { left: "VSphereMachine x".into() }))
    );
    let without = Observed { infrastructure: missing("VSphereMachine"), ..base };
    assert_eq!(plan(&without).steps, [Step::DeleteBootstrap]);
    let leaving = Observed { bootstrap: external("TalosConfig", &going()), ..without.clone() };
    assert_eq!(plan(&leaving).deletion, Some(Deletion::Bootstrap { left: "TalosConfig x".into() }));
    let bare = Observed { bootstrap: missing("TalosConfig"), ..without };
    assert_eq!(plan(&bare).steps, [Step::DeleteNode { node: "m".into(), uid: "node".into() }]);
    assert_eq!(
        get(&told(&bare).conditions, "Deleting").unwrap().message,
        "Waiting for Node m to be deleted since 08:00:05 (limit 08:00:10)"
    );
    let gone = Observed { nodes: Vec::new(), ..bare };
    assert_eq!(plan(&gone).steps, [Step::RemoveFinalizer]);
    assert_eq!(told(&gone).phase, Some(MachinePhase::Deleted));
    assert_eq!(plan(&changed(&gone, &json!({"metadata": {"finalizers": ["other"]}}))).steps, []);
}

#[test]
fn a_node_is_deleted_only_when_its_cluster_stays_and_never_waited_for_without_end() {
    let base = Observed {
        infrastructure: missing("VSphereMachine"),
        bootstrap: Referenced::None,
        ..changed(&changed(&settled(), &going()), &json!({"status": {"nodeRef": {"name": "m"}}}))
    };
    let freed = |observed: &Observed| plan(observed).steps == [Step::RemoveFinalizer];
    assert!(!freed(&base));
    assert!(freed(&Observed { cluster: None, ..base.clone() }));
    assert!(freed(&Observed { cluster: Some(cluster(&going())), ..base.clone() }));
    assert!(freed(&Observed { control_plane: missing("TalosControlPlane"), ..base.clone() }));
    assert!(freed(&Observed { control_plane: external("TalosControlPlane", &going()), ..base.clone() }));
    assert!(!freed(&Observed { control_plane: external("TalosControlPlane", &json!({})), ..base.clone() }));
    let is_control_plane = changed(&base, &json!({"metadata": {"labels": {"cluster.x-k8s.io/control-plane": ""}}}));
    assert!(!freed(&is_control_plane));
    assert!(freed(&Observed { control_plane_machines: 0, ..is_control_plane }), "the last control plane's Node goes with its cluster");
    let unseen = changed(&base, &json!({"status": {"nodeRef": null}}));
    assert_eq!(plan(&unseen).steps, [Step::DeleteNode { node: "m".into(), uid: "node".into() }], "known by its provider id");
    assert!(freed(&Observed { nodes: vec![node(&json!({"spec": {"providerID": "vsphere://another"}}))], ..unseen }));

    let away = Observed { connection: Connection::Disconnected { since: at("08:00:00"), because: "x".into() }, ..base.clone() };
    let planned = plan(&away);
    assert_eq!((planned.steps.len(), planned.again_at), (0, Some(at("08:00:10"))));
    assert!(freed(&Observed { now: at("08:00:10"), ..away.clone() }));
    let forever = changed(&away, &json!({"spec": {"deletion": {"nodeDeletionTimeoutSeconds": 0}}}));
    assert!(!freed(&Observed { now: at("23:00:00"), ..forever }));
    // The limit may have passed while the VM was destroyed; an API that answers still gets its chance.
    let late = Observed { now: at("09:00:00"), ..base.clone() };
    assert_eq!(plan(&late).steps, [Step::DeleteNode { node: "m".into(), uid: "node".into() }]);
    assert!(freed(&Observed { trouble: Some("delete-node Node m: forbidden".into()), ..late.clone() }));
    let held = Observed { nodes: vec![node(&going())], ..late };
    assert!(freed(&held), "a Node that others hold is left to them");
}
