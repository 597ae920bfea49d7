//! The branches of a drain, on values alone: which pods go, when it ends, and what is told.

use std::sync::Arc;

use api::conditions::get;
use serde_json::{Value, json};

use super::plan::{Deletion, Observed, Step, plan};
use super::tests::{at, changed, cluster, cordoned, effects, external, going, load, missing, node, read, settled, told};
use crate::contract::Referenced;
use crate::workload::{Attached, Attempt, Connection, Eviction, Load, Look};

const TIMEOUT: &str = "talosphere.dev/node-drain-timeout";

fn pod(name: &str, change: &Value) -> Value {
    let mut pod = json!({"metadata": {"name": name, "namespace": "n", "uid": name}, "spec": {"containers": [], "nodeName": "m"}, "status": {"phase": "Running"}});
    json_patch::merge(&mut pod, change);
    pod
}

fn owned(kind: &str) -> Value {
    json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": "o", "uid": "o", "controller": true}]}})
}

fn labelled(key: &str, value: &str) -> Value {
    json!({"metadata": {"labels": {key: value}}})
}

/// A Machine that is being deleted since 08:00:00, with these pods on its cordoned Node.
fn with(pods: &[Value]) -> Observed {
    let base = changed(&changed(&cordoned(), &going()), &json!({"status": {"nodeRef": {"name": "m"}}}));
    Observed { load: Some(load(pods)), ..base }
}

/// The same, drained since 08:00:00.
fn begun(observed: &Observed) -> Observed {
    changed(observed, &json!({"status": {"deletion": {"nodeDrainStartTime": "2026-03-01T08:00:00Z"}}}))
}

fn evicted(observed: &Observed) -> Vec<String> {
    let name = |step| if let Step::Evict { eviction, .. } = step { Some(eviction.name) } else { None };
    plan(observed).steps.into_iter().filter_map(name).collect()
}

fn message(observed: &Observed) -> (String, String) {
    let condition = get(&told(observed).conditions, "Deleting").unwrap().clone();
    (condition.reason, condition.message)
}

fn events(observed: &Observed) -> Vec<String> {
    let event = |step| if let Step::Tell { reason, message, .. } = step { Some(format!("{reason}: {message}")) } else { None };
    plan(observed).steps.into_iter().filter_map(event).collect()
}

#[test]
fn pods_go_stay_or_are_waited_for_as_upstream_has_it() {
    let ended = json!({"status": {"phase": "Succeeded"}});
    let mut ended_daemon = owned("DaemonSet");
    json_patch::merge(&mut ended_daemon, &ended);
    let mut ended_wait = labelled("cluster.x-k8s.io/drain", "wait-completed");
    json_patch::merge(&mut ended_wait, &ended);
    // (pod, evicted now, left)
    let table = [
        (owned("ReplicaSet"), true, true),
        (json!({}), true, true),
        (ended, true, true),
        (owned("DaemonSet"), false, false),
        (ended_daemon, true, true),
        (owned("Node"), false, false),
        (json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}), false, false),
        (labelled("cluster.x-k8s.io/drain", "skip"), false, false),
        (labelled("cluster.x-k8s.io/drain", "Skip"), false, false),
        (labelled("cluster.x-k8s.io/drain", "wait-completed"), false, true),
        (ended_wait, true, true),
        (json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:30Z"}}), false, true),
    ];
    for (change, is_evicted, is_left) in table {
        let observed = with(&[pod("p", &change)]);
        assert_eq!(evicted(&observed).len(), usize::from(is_evicted), "{change}");
        assert_eq!(matches!(plan(&observed).deletion, Some(Deletion::Drain { .. })), is_left, "{change}");
    }
}

#[test]
fn rules_choose_pods_and_their_order() {
    let rule = |name: &str, spec: Value| read(json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec}));
    let app = |name: &str| json!([{"selector": {"matchLabels": {"app": name}}}]);
    let pods = [pod("a", &labelled("app", "a")), pod("b", &labelled("app", "b")), pod("c", &json!({}))];
    let by = |rules: Vec<Arc<api::cluster::MachineDrainRule>>| Observed { rules, ..with(&pods) };
    assert_eq!(evicted(&by(vec![rule("x", json!({"drain": {"behavior": "Skip"}, "pods": app("a")}))])), ["b", "c"]);
    let waited = by(vec![rule("x", json!({"drain": {"behavior": "WaitCompleted"}, "pods": app("a")}))]);
    assert_eq!(evicted(&waited), ["b", "c"]);
    assert!(message(&waited).1.contains("* Pod n/a: waiting for completion"));
    let first = by(vec![rule("x", json!({"drain": {"behavior": "Drain", "order": -1}, "pods": app("b")}))]);
    assert_eq!(evicted(&first), ["b"]);
    assert!(message(&first).1.contains("* Pods n/a, n/c: to be evicted after those above"));
    let two = by(vec![
        rule("y", json!({"drain": {"behavior": "Drain"}, "pods": app("a")})),
        rule("x", json!({"drain": {"behavior": "Skip"}, "pods": app("a")})),
    ]);
    assert_eq!(evicted(&two), ["b", "c"], "the first by name counts");
    for (machines, counts) in [
        (json!([{"selector": {"matchLabels": {"cluster.x-k8s.io/cluster-name": "c"}}}]), true),
        (json!([{"selector": {"matchLabels": {"x": "y"}}}]), false),
        (json!([{"clusterSelector": {"matchLabels": {"stage": "test"}}}]), true),
        (json!([{"clusterSelector": {"matchLabels": {"stage": "test"}}, "selector": {"matchLabels": {"x": "y"}}}]), false),
    ] {
        let of_stage = Some(cluster(&json!({"metadata": {"labels": {"stage": "test"}}})));
        let skip = rule("x", json!({"drain": {"behavior": "Skip"}, "machines": machines}));
        let observed = Observed { cluster: of_stage, ..by(vec![skip]) };
        assert_eq!(evicted(&observed).is_empty(), counts, "{machines}");
    }
    // Namespaces are read only where a rule asks for them.
    let look = |rules: Vec<Arc<api::cluster::MachineDrainRule>>| effects(&Observed { load: None, ..by(rules) });
    let is = |namespaces| [Step::Look { node: "m".into(), what: Look { namespaces, volumes: false } }];
    assert_eq!(look(Vec::new()), is(false));
    let spec = json!({"drain": {"behavior": "Skip"}, "pods": [{"namespaceSelector": {"matchLabels": {"kept": "yes"}}}]});
    assert_eq!(look(vec![rule("x", spec.clone())]), is(true));
    let mut known = by(vec![rule("x", spec)]);
    let kept = [("n".to_owned(), [("kept".to_owned(), "yes".to_owned())].into())].into();
    known.load.as_mut().unwrap().looked.namespaces = kept;
    assert_eq!(evicted(&known), Vec::<String>::new());
}

#[test]
fn a_drain_cordons_looks_and_evicts_each_pod_once_a_look() {
    let pods = [pod("p", &json!({}))];
    let open = Observed { nodes: vec![node(&json!({}))], ..with(&pods) };
    assert_eq!(effects(&open), [Step::PatchNode { node: "m".into(), patch: json!({"spec": {"unschedulable": true}}) }]);
    assert_eq!(message(&open).1, "Waiting for Node m to be drained since 08:00:05 (limit 08:15:05)\n* the Node to be cordoned");
    let base = with(&pods);
    let eviction = Eviction { namespace: "n".into(), name: "p".into(), uid: "p".into(), grace_seconds: None, round: 1 };
    assert_eq!(effects(&base), [Step::Evict { node: "m".into(), eviction }]);
    assert_eq!(told(&base).deletion.unwrap().node_drain_start_time.unwrap().0, at("08:00:05"));
    let refusal = "Cannot evict pod as it would violate the pod's disruption budget. The disruption budget web needs 1 healthy pods and has 1 currently";
    let mut refused = begun(&base);
    refused.load.as_mut().unwrap().attempts.insert("p".into(), Attempt { round: 1, refusal: Some(refusal.into()) });
    assert_eq!(effects(&refused), []);
    let expected = format!("Waiting for Node m to be drained since 08:00:00 (limit 08:15:00)\n* Pod n/p: {refusal}");
    assert_eq!(message(&refused), ("DrainingNode".into(), expected));
    assert_eq!(plan(&refused).again_at, Some(at("08:00:09")), "5 s after the last look");
    let due = Observed { now: at("08:00:09"), ..refused.clone() };
    assert!(matches!(effects(&due)[..], [Step::Look { .. }]));
    // Later it is looked at less often, and not after the limit.
    for (now, looked, next) in
        [("08:01:00", "08:00:55", "08:01:05"), ("08:10:00", "08:09:55", "08:10:15"), ("08:14:50", "08:14:45", "08:15:00")]
    {
        let mut late = Observed { now: at(now), ..refused.clone() };
        late.load.as_mut().unwrap().at = at(looked);
        assert_eq!(plan(&late).again_at, Some(at(next)), "{now}");
    }
    let mut again = due;
    let load = again.load.as_mut().unwrap();
    (load.round, load.at) = (2, at("08:00:09"));
    assert_eq!(evicted(&again), ["p"]);
    assert!(message(&again).1.contains(refusal), "what was said stands until there is another answer");
    let mut failed = base;
    *failed.load.as_mut().unwrap() = Load { failure: Some("no answer".into()), ..Load::unknown(at("08:00:04")) };
    assert_eq!(effects(&failed), []);
    assert!(message(&failed).1.ends_with("* its pods cannot be read: no answer"));
}

#[test]
fn many_pods_are_counted() {
    let pods: Vec<Value> = (0..9).map(|number| pod(&format!("p{number}"), &json!({}))).collect();
    assert!(message(&with(&pods)).1.ends_with("* Pods n/p0, n/p1, n/p2, n/p3, n/p4 and 4 more: to be evicted"));
}

#[test]
fn the_limit_is_the_machines_the_annotations_or_the_default_and_may_change_in_the_middle() {
    let annotated = |text: &str| json!({"metadata": {"annotations": {TIMEOUT: text}}});
    let owner = |text: &str| external("TalosControlPlane", &annotated(text));
    let seconds = |seconds: i32| json!({"spec": {"deletion": {"nodeDrainTimeoutSeconds": seconds}}});
    let base = begun(&with(&[pod("p", &json!({}))]));
    let until = |change: &Value, owner: Referenced| {
        let observed = Observed { owner, ..changed(&base, change) };
        match plan(&observed).deletion {
            Some(Deletion::Drain { progress, .. }) => (progress.until.map(|until| until.strftime("%T").to_string()), progress.unlimited),
            other => panic!("{other:?}"),
        }
    };
    let ends = |text: &str| (Some(text.to_owned()), None);
    let never = |why: &str| (None, Some(format!("no limit: {why}")));
    let none = json!({});
    assert_eq!(until(&none, Referenced::None), ends("08:15:00"));
    assert_eq!(until(&none, owner("80s")), ends("08:01:20"));
    assert_eq!(until(&annotated("1h30m"), owner("80s")), ends("09:30:00"));
    assert_eq!(until(&seconds(600), owner("80s")), ends("08:10:00"));
    assert_eq!(until(&none, owner("80")), ends("08:15:00"), "what is no duration counts for nothing");
    assert_eq!(until(&none, owner("-5s")), ends("08:15:00"));
    assert_eq!(until(&seconds(0), owner("80s")), never("spec.deletion.nodeDrainTimeoutSeconds is 0"));
    assert_eq!(until(&annotated("0s"), Referenced::None), never(&format!("Machine annotation {TIMEOUT} is 0s")));

    let endless = changed(&with(&[pod("p", &json!({}))]), &seconds(0));
    assert!(
        events(&endless)[0].starts_with("DrainWithoutLimit: Draining Node m without a limit (spec.deletion.nodeDrainTimeoutSeconds is 0)")
    );
    assert_eq!(events(&begun(&endless)), Vec::<String>::new(), "told once");
    assert!(
        message(&endless)
            .1
            .starts_with("Waiting for Node m to be drained since 08:00:05 (no limit: spec.deletion.nodeDrainTimeoutSeconds is 0)")
    );
    let shortened = changed(&base, &seconds(5));
    assert_eq!(effects(&shortened), [Step::DeleteInfrastructure]);
    assert_eq!(
        events(&shortened),
        [
            "FailedDrainNode: Node m was not drained by 08:00:05, as spec.deletion.nodeDrainTimeoutSeconds is 5 says. It is gone on without it\n* Pod n/p: to be evicted"
        ]
    );
}

#[test]
fn a_node_that_nobody_hears_from_does_not_hold_its_drain() {
    let lost = node(&json!({"spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}));
    let on_lost = |pods: &[Value]| Observed { nodes: vec![lost.clone()], ..with(pods) };
    let stopping = pod("p", &json!({"metadata": {"deletionTimestamp": "2026-03-01T08:00:30Z"}}));
    assert_eq!(effects(&on_lost(&[stopping])), [Step::DeleteInfrastructure], "nobody confirms that it has stopped");
    let running = on_lost(&[pod("p", &json!({}))]);
    assert!(matches!(&effects(&running)[..], [Step::Evict { eviction, .. }] if eviction.grace_seconds == Some(1)));
    // Nor do its volumes.
    let mut attached = on_lost(&[]);
    attached.load.as_mut().unwrap().looked.volumes = Some(vec![Attached { name: "pv".into(), device: None, claim: None }]);
    assert_eq!(effects(&attached), [Step::DeleteInfrastructure]);
}

#[test]
fn nothing_is_drained_where_nothing_stays_or_where_it_is_not_wanted() {
    let base = with(&[pod("p", &json!({}))]);
    let control_plane = changed(&base, &json!({"metadata": {"labels": {"cluster.x-k8s.io/control-plane": ""}}}));
    assert!(matches!(plan(&control_plane).deletion, Some(Deletion::Drain { .. })));
    let excluded = changed(&base, &json!({"metadata": {"annotations": {"machine.cluster.x-k8s.io/exclude-node-draining": ""}}}));
    let gone = Observed { nodes: Vec::new(), ..base.clone() };
    let never_there = changed(
        &Observed { nodes: Vec::new(), connection: Connection::Waiting { on: "x".into() }, ..base.clone() },
        &json!({"status": {"nodeRef": null}}),
    );
    for observed in [
        Observed { cluster: None, ..base.clone() },
        Observed { cluster: Some(cluster(&going())), ..base.clone() },
        Observed { control_plane: external("TalosControlPlane", &going()), ..base.clone() },
        Observed { control_plane: missing("TalosControlPlane"), ..base.clone() },
        Observed { control_plane_machines: 0, ..control_plane },
        excluded,
        gone,
        never_there,
    ] {
        assert_eq!(effects(&observed), [Step::DeleteInfrastructure]);
    }
    // Done once: what follows has begun.
    let hooked = json!({"status": {"deletion": {"waitForPreTerminateHookStartTime": "2026-03-01T08:00:00Z"}}});
    assert_eq!(effects(&changed(&base, &hooked)), [Step::DeleteInfrastructure]);
    assert_eq!(effects(&Observed { infrastructure: external("VSphereMachine", &going()), ..base }), []);
}

#[test]
fn a_cluster_that_is_away_is_waited_for_until_the_limit() {
    let away = Connection::Disconnected { since: at("08:00:00"), because: "refused".into() };
    let base = Observed { connection: away, nodes: Vec::new(), load: None, ..begun(&with(&[])) };
    assert!(message(&base).1.ends_with("* workload cluster disconnected since 08:00:00: refused"));
    assert_eq!(effects(&base), []);
    let late = Observed { now: at("08:15:00"), ..base };
    assert!(matches!(plan(&late).deletion, Some(Deletion::VolumeDetach { .. })), "and its volumes for as long again");
    let later = changed(&late, &json!({"status": {"deletion": {"waitForNodeVolumeDetachStartTime": "2026-03-01T08:15:00Z"}}}));
    assert_eq!(effects(&Observed { now: at("08:30:00"), ..later }), [Step::DeleteInfrastructure]);
}

#[test]
fn volumes_are_waited_for_but_for_those_of_pods_that_stay() {
    let claim = |name: &str| json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": name}}]}});
    let mut daemon = owned("DaemonSet");
    json_patch::merge(&mut daemon, &claim("kept"));
    let volume = |name: &str, claim: &str| Attached {
        name: name.into(),
        device: Some(format!("kubernetes.io/csi/d^{name}")),
        claim: Some(("n".into(), claim.into())),
    };
    let mut base = with(&[pod("d", &daemon)]);
    base.load.as_mut().unwrap().looked.volumes = Some(vec![volume("pv-kept", "kept"), volume("pv-1", "data")]);
    let condition = message(&base);
    assert_eq!(condition.0, "WaitingForVolumeDetach");
    assert_eq!(
        condition.1,
        "Waiting for volumes of Node m to be detached since 08:00:05 (limit 08:15:05)\n* PersistentVolume pv-1 is attached"
    );
    assert!(told(&base).deletion.unwrap().wait_for_node_volume_detach_start_time.is_some());
    assert!(events(&base)[0].starts_with("SuccessfulDrainNode"));
    let devices =
        json!([{"name": "kubernetes.io/csi/d^pv-kept", "devicePath": ""}, {"name": "kubernetes.io/csi/d^pv-2", "devicePath": ""}]);
    let used = node(&json!({"spec": {"unschedulable": true}, "status": {"volumesAttached": devices}}));
    let mut by_node = Observed { nodes: vec![used], ..base.clone() };
    by_node.load.as_mut().unwrap().looked.volumes.as_mut().unwrap().pop();
    assert!(message(&by_node).1.ends_with("\n* kubernetes.io/csi/d^pv-2 is in use by the Node"));
    let free = |observed: &Observed| effects(observed) == [Step::DeleteInfrastructure];
    let excluded = json!({"metadata": {"annotations": {"machine.cluster.x-k8s.io/exclude-wait-for-node-volume-detach": ""}}});
    assert!(free(&changed(&base, &excluded)));
    let since = json!({"status": {"deletion": {"waitForNodeVolumeDetachStartTime": "2026-03-01T08:00:00Z"}}});
    let waiting = changed(&base, &since);
    assert!(!free(&waiting));
    assert!(free(&Observed { now: at("08:15:00"), ..waiting.clone() }));
    let short = changed(&waiting, &json!({"spec": {"deletion": {"nodeVolumeDetachTimeoutSeconds": 5}}}));
    assert!(events(&short)[0].starts_with("FailedWaitForVolumeDetach: Volumes of Node m were not detached by 08:00:05"));
    let endless = changed(&waiting, &json!({"spec": {"deletion": {"nodeVolumeDetachTimeoutSeconds": 0}}}));
    assert!(!free(&Observed { now: at("23:00:00"), ..endless }));
    // They are read when the pods are gone, not before.
    let mut unread = base;
    unread.load.as_mut().unwrap().looked.volumes = None;
    assert_eq!(effects(&unread), [Step::Look { node: "m".into(), what: Look { namespaces: false, volumes: true } }]);
}

#[test]
fn who_is_not_being_deleted_is_not_drained() {
    assert_eq!(plan(&settled()).steps, []);
}
