//! For every rule a world that keeps it and one that breaks it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::hypervisor::{Origin, VmId, VmTruth};
use crate::network::Conflict;
use crate::node::NodesTruth;
use crate::node::etcd::{EtcdCluster, EtcdClusterId, Member, MemberId};
use crate::node::state::BootstrapCall;

fn truth() -> Truth {
    Truth { vms: Vec::new(), volumes: Vec::new(), address_conflicts: Vec::new(), nodes: NodesTruth::default() }
}

fn checker(start: &Truth) -> Checker {
    Checker::new(Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()), start)
}

fn vm(number: u32, origin: Origin) -> VmTruth {
    VmTruth {
        id: VmId(format!("vm-{number}")),
        name: format!("machine-{number}"),
        folder: "/dc1/vm/a".into(),
        bios_uuid: format!("b-{number}"),
        instance_uuid: format!("i-{number}"),
        powered_on: true,
        is_template: false,
        extra_config: BTreeMap::new(),
        annotation: String::new(),
        nics: Vec::new(),
        disks: Vec::new(),
        origin,
        changes: Vec::new(),
    }
}

fn marked(number: u32, machine: &str) -> VmTruth {
    let mut vm = vm(number, Origin::Api);
    for (key, value) in [("installation", "inst"), ("cluster", "c"), ("machine", machine), ("instance", &vm.instance_uuid.clone())] {
        vm.extra_config.insert(format!("guestinfo.talosphere.{key}"), value.to_owned());
    }
    vm
}

struct Writer {
    checker: Checker,
    revision: u64,
}

impl Writer {
    fn new(checker: &Checker) -> Self {
        Self { checker: checker.clone(), revision: 0 }
    }

    /// Writes the object; returns it as the server holds it.
    fn put(&mut self, group: &str, resource: &str, kind: &str, name: &str, mut object: Value) -> Value {
        self.revision += 1;
        let api_version = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(kind);
        object["metadata"]["name"] = json!(name);
        object["metadata"]["namespace"] = json!("ns");
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{resource}-{name}"));
        }
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.send(group, resource, name, Some(Bytes::from(object.to_string())));
        object
    }

    fn delete(&mut self, group: &str, resource: &str, name: &str) {
        self.revision += 1;
        self.send(group, resource, name, None);
    }

    fn send(&self, group: &str, resource: &str, name: &str, object: Option<Bytes>) {
        self.checker.acknowledged(&Acknowledged {
            revision: self.revision,
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: "ns".to_owned(),
            name: name.to_owned(),
            value: object.as_deref().map(|bytes| Arc::new(serde_json::from_slice(bytes).unwrap())),
            object,
        });
    }
}

fn rules(violations: &[Violation]) -> BTreeSet<u8> {
    violations.iter().map(|violation| violation.rule).collect()
}

fn call(vm: u32, made: Option<u64>) -> BootstrapCall {
    BootstrapCall {
        recovered: None,
        at: Timestamp::UNIX_EPOCH,
        realm: "r".into(),
        vm: VmId(format!("vm-{vm}")),
        disk: format!("disk-{vm}"),
        made: made.map(EtcdClusterId),
    }
}

fn etcd(id: u64) -> EtcdCluster {
    let member = Member { id: MemberId(id), name: String::new(), address: String::new(), is_learner: false, disk: String::new() };
    EtcdCluster::bootstrap(EtcdClusterId(id), "r", member)
}

#[tokio::test(start_paused = true)]
async fn rule_1_one_etcd_per_cluster() {
    let mut truth = truth();
    let checker = checker(&truth);
    truth.nodes.disks = vec!["disk-1".into(), "disk-2".into()];
    truth.nodes.bootstraps = vec![call(1, Some(7)), call(1, None)];
    truth.nodes.etcd = vec![etcd(7)];
    assert!(checker.check(&truth).is_empty(), "called again on the same machine");
    truth.nodes.bootstraps.push(call(2, None));
    let found = checker.check(&truth);
    assert_eq!(rules(&found), BTreeSet::from([1]), "a second machine, although it refused");
    assert!(checker.check(&truth).is_empty(), "each violation once");
    truth.nodes.etcd.push(etcd(8));
    assert_eq!(checker.check(&truth)[0].what, "one cluster's machines form more than one etcd cluster");
}

#[tokio::test(start_paused = true)]
async fn rule_1_takes_a_recovery_for_no_second_etcd_unless_somebody_still_has_the_first() {
    let mut truth = truth();
    let checker = checker(&truth);
    truth.nodes.disks = vec!["disk-1".into(), "disk-2".into()];
    truth.nodes.bootstraps = vec![call(1, Some(7))];
    truth.nodes.etcd = vec![etcd(7)];
    assert!(checker.check(&truth).is_empty());
    truth.nodes.bootstraps.push(BootstrapCall { recovered: Some(12), ..call(2, Some(8)) });
    truth.nodes.etcd = vec![etcd(8)];
    assert!(checker.check(&truth).is_empty(), "the first one's data is on no disk");
    truth.nodes.etcd = vec![etcd(7), etcd(8)];
    assert_eq!(rules(&checker.check(&truth)), BTreeSet::from([1]));
}

#[tokio::test(start_paused = true)]
async fn rule_1_allows_another_machine_once_the_first_one_s_disk_is_gone() {
    let mut truth = truth();
    let checker = checker(&truth);
    truth.nodes.disks = vec!["disk-1".into()];
    truth.nodes.bootstraps = vec![call(1, None)];
    checker.check(&truth);
    truth.nodes.disks = vec!["disk-2".into()];
    truth.nodes.bootstraps.push(call(2, Some(7)));
    assert!(checker.check(&truth).is_empty());
}

#[tokio::test(start_paused = true)]
async fn rule_3_machines_are_marked_and_belong_to_somebody() {
    let mut truth = truth();
    let checker = checker(&truth);
    let mut writer = Writer::new(&checker);
    writer.put("cluster.x-k8s.io", "machines", "Machine", "m1", json!({}));
    truth.vms = vec![marked(1, "uid-machines-m1")];
    assert!(checker.check_at_rest(&truth).is_empty());
    truth.vms.push(marked(2, "uid-machines-gone"));
    assert!(checker.check(&truth).is_empty(), "under way it may be on its way out");
    assert_eq!(rules(&checker.check_at_rest(&truth)), BTreeSet::from([3]));
    let other = super::tests::checker(&truth);
    truth.vms = vec![vm(3, Origin::Api)];
    let found = other.check(&truth);
    assert!(found[0].what.contains("without an ownership marker"), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn rule_4_foreign_machines_and_volumes_stay_as_they_are() {
    let mut start = truth();
    start.vms = vec![vm(1, Origin::Site), marked(2, "m")];
    start.volumes = vec![("v-1".into(), "[ds] fcd/v-1.vmdk".into())];
    let given = start.clone();
    let fresh = |change: &dyn Fn(&mut Truth)| {
        let start = &given;
        let checker = checker(start);
        assert!(checker.check(start).is_empty());
        let mut now = start.clone();
        change(&mut now);
        rules(&checker.check(&now))
    };
    let broken = BTreeSet::from([4]);
    assert_eq!(fresh(&|now| drop(now.vms.remove(0))), broken);
    assert_eq!(fresh(&|now| now.vms[0].powered_on = false), broken);
    assert_eq!(fresh(&|now| now.vms[0].name = "x".into()), broken);
    assert_eq!(fresh(&|now| drop(now.vms[0].extra_config.insert("a".into(), "b".into()))), broken);
    assert_eq!(fresh(&|now| now.volumes.clear()), broken);
    let none = BTreeSet::new();
    assert_eq!(fresh(&|now| drop(now.vms.remove(1))), none, "our own machine");
    assert_eq!(
        fresh(&|now| {
            now.vms[0].powered_on = false;
            now.vms[0].changes.push("power-off by hand".into());
        }),
        none,
        "a person did it"
    );
    let mut copy = marked(3, "m");
    copy.instance_uuid = "another".into();
    start.vms.push(copy);
    let checker = checker(&start);
    let mut without = start.clone();
    without.vms.pop();
    assert_eq!(checker.check(&without)[0].what, "a machine was destroyed that carried no valid marker of ours");
    checker.person_acted(&truth());
    assert!(checker.check(&truth()).is_empty(), "a person destroyed it");
}

#[tokio::test(start_paused = true)]
async fn rule_4_the_user_s_credentials_are_left_alone() {
    let secret = |data: &str, owner: Option<&str>| json!({"metadata": {"ownerReferences": owner.map(|name| json!([{"name": name}]))}, "data": {"password": data}});
    let prepare = || {
        let checker = checker(&truth());
        let mut writer = Writer::new(&checker);
        writer.put("", "secrets", "Secret", "creds", secret("YWJj", None));
        let cluster = json!({"spec": {"identityRef": {"kind": "Secret", "name": "creds"}}});
        writer.put("infrastructure.cluster.x-k8s.io", "vsphereclusters", "VSphereCluster", "c", cluster);
        (checker, writer)
    };
    let (checker, mut writer) = prepare();
    let mut with_finalizer = secret("YWJj", None);
    with_finalizer["metadata"]["finalizers"] = json!(["x"]);
    writer.put("", "secrets", "Secret", "creds", with_finalizer);
    assert!(checker.violations().is_empty(), "a finalizer is allowed");
    writer.put("", "secrets", "Secret", "creds", secret("YWJj", Some("c")));
    assert_eq!(rules(&checker.violations()), BTreeSet::from([4]));
    let (checker, mut writer) = prepare();
    checker.person_writes("secrets", "ns", "creds");
    writer.put("", "secrets", "Secret", "creds", secret("ZGVm", None));
    assert!(checker.violations().is_empty(), "the user changed the password");
    writer.put("", "secrets", "Secret", "creds", secret("Z2hp", None));
    assert_eq!(rules(&checker.violations()), BTreeSet::from([4]));
}

const IPAM: &str = "ipam.cluster.x-k8s.io";

fn pool(writer: &mut Writer) {
    let spec = json!({"addresses": ["10.0.0.1-10.0.0.20"], "excludedAddresses": ["10.0.0.15"], "gateway": "10.0.0.1", "prefix": 24});
    writer.put(IPAM, "inclusterippools", "InClusterIPPool", "p", json!({"spec": spec}));
}

fn address(writer: &mut Writer, name: &str, address: &str) {
    let spec = json!({"address": address, "poolRef": {"kind": "InClusterIPPool", "name": "p"}, "claimRef": {"name": name}});
    let uid = format!("uid-{name}-{}", writer.revision);
    writer.put(IPAM, "ipaddresses", "IPAddress", name, json!({"metadata": {"uid": uid}, "spec": spec}));
}

#[tokio::test(start_paused = true)]
async fn rule_5_addresses_are_unique_and_allowed() {
    let given = |addresses: &[(&str, &str)]| {
        let checker = checker(&truth());
        let mut writer = Writer::new(&checker);
        pool(&mut writer);
        let cluster = json!({"spec": {"controlPlaneEndpoint": {"host": "10.0.0.9"}}});
        writer.put("cluster.x-k8s.io", "clusters", "Cluster", "c", cluster);
        for (name, number) in addresses {
            address(&mut writer, name, number);
        }
        checker.violations().into_iter().map(|violation| violation.what).collect::<Vec<_>>()
    };
    assert!(given(&[("a", "10.0.0.5"), ("b", "10.0.0.6")]).is_empty());
    for (addresses, expected) in [
        (vec![("a", "10.0.0.5"), ("b", "10.0.0.5")], "an address was given out twice"),
        (vec![("a", "10.0.0.1")], "the gateway's address was given out"),
        (vec![("a", "10.0.0.15")], "an excluded address was given out"),
        (vec![("a", "10.0.0.99")], "an address was given out that is not in the pool"),
        (vec![("a", "10.0.0.9")], "a cluster's endpoint address was given out"),
        (vec![("a", "nonsense")], "what was given out is no address"),
    ] {
        assert_eq!(given(&addresses), [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_5_a_single_control_plane_takes_its_endpoint() {
    let checker = checker(&truth());
    let mut writer = Writer::new(&checker);
    pool(&mut writer);
    writer.put("cluster.x-k8s.io", "clusters", "Cluster", "c", json!({"spec": {"controlPlaneEndpoint": {"host": "10.0.0.9"}}}));
    writer.put("controlplane.cluster.x-k8s.io", "taloscontrolplanes", "TalosControlPlane", "c-cp", json!({"spec": {"replicas": 1}}));
    address(&mut writer, "a", "10.0.0.9");
    assert!(checker.violations().is_empty());
}

#[tokio::test(start_paused = true)]
async fn rule_5_a_released_address_rests() {
    for (seconds, is_broken) in [(5, true), (11, false)] {
        let checker = checker(&truth());
        let mut writer = Writer::new(&checker);
        pool(&mut writer);
        address(&mut writer, "a", "10.0.0.5");
        writer.delete(IPAM, "ipaddresses", "a");
        checker.clock.sleep(std::time::Duration::from_secs(seconds)).await;
        address(&mut writer, "b", "10.0.0.5");
        assert_eq!(!checker.violations().is_empty(), is_broken, "after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_5_two_machines_with_one_address() {
    let mut truth = truth();
    let checker = checker(&truth);
    let holders = BTreeSet::from([VmId("vm-1".into()), VmId("vm-2".into())]);
    let conflict = |is_virtual| Conflict { address: "10.0.0.5".parse().unwrap(), holders: holders.clone(), is_virtual };
    truth.address_conflicts = vec![conflict(true)];
    assert!(checker.check(&truth).is_empty(), "a shared address on the move");
    truth.address_conflicts = vec![conflict(false)];
    assert_eq!(rules(&checker.check(&truth)), BTreeSet::from([5]));
}

fn base64(text: &str) -> String {
    crate::node::test_support::base64(text)
}

#[tokio::test(start_paused = true)]
async fn rule_7_a_bundle_is_made_once() {
    let prepare = || {
        let checker = checker(&truth());
        let mut writer = Writer::new(&checker);
        writer.put("cluster.x-k8s.io", "clusters", "Cluster", "demo", json!({}));
        writer.put("", "secrets", "Secret", "demo-talos", json!({"data": {"bundle": base64("a: 1")}}));
        (checker, writer)
    };
    let (checker, mut writer) = prepare();
    writer.put("", "secrets", "Secret", "demo-talos", json!({"metadata": {"labels": {"a": "b"}}, "data": {"bundle": base64("a: 1")}}));
    assert!(checker.violations().is_empty(), "labels may change");
    writer.put("", "secrets", "Secret", "demo-talos", json!({"data": {"bundle": base64("a: 2")}}));
    assert_eq!(checker.violations()[0].what, "a secrets bundle was overwritten");
    let (checker, mut writer) = prepare();
    writer.delete("", "secrets", "demo-talos");
    assert_eq!(checker.violations()[0].what, "a secrets bundle was deleted while its cluster lives");
    writer.put("", "secrets", "Secret", "demo-talos", json!({"data": {"bundle": base64("{\"a\": 1}")}}));
    assert_eq!(checker.violations().len(), 1, "the same one may come back, however it is written");
    writer.delete("", "secrets", "demo-talos");
    writer.put("", "secrets", "Secret", "demo-talos", json!({"data": {"bundle": base64("a: 2")}}));
    assert_eq!(checker.violations().last().unwrap().what, "another secrets bundle was made for a cluster that lives");
    let (checker, mut writer) = prepare();
    writer.put("cluster.x-k8s.io", "clusters", "Cluster", "demo", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    writer.delete("", "secrets", "demo-talos");
    assert!(checker.violations().is_empty(), "with its cluster it goes");
}

#[tokio::test(start_paused = true)]
async fn rule_7_no_secret_is_shown() {
    let key = "MC4CAQAwBQYDK2VwBCIEIKyffQfqvlnTBByM1hS";
    let pem = format!("-----BEGIN ED25519 PRIVATE KEY-----\n{key}\n-----END ED25519 PRIVATE KEY-----\n");
    let bundle = format!(
        "cluster:\n  id: not-secret-at-all\n  secret: c2VjcmV0c2VjcmV0\ncerts:\n  os:\n    crt: public-certificate\n    key: {}\n",
        base64(&pem)
    );
    let prepare = || {
        let mut truth = truth();
        let mut vm = vm(1, Origin::Site);
        vm.extra_config.insert("guestinfo.talos.config".into(), base64("machine: {token: tokentoken.1234567890}\n"));
        truth.vms.push(vm);
        let checker = checker(&truth);
        checker.check(&truth);
        let mut writer = Writer::new(&checker);
        writer.put("", "secrets", "Secret", "creds", json!({"data": {"username": base64("administrator"), "password": base64("foobar")}}));
        writer.put("", "secrets", "Secret", "demo-talos", json!({"data": {"bundle": base64(&bundle)}}));
        checker.learn_secret("the vCenter password", "hunter22");
        (checker, writer)
    };
    for (text, is_broken) in [
        ("signing in as administrator", false),
        ("id not-secret-at-all, certificate public-certificate", false),
        ("signing in as administrator with foobar", true),
        ("hunter22 was refused", true),
        ("token tokentoken.1234567890", true),
        ("cluster.secret=c2VjcmV0c2VjcmV0", true),
        (&format!("key {key}"), true),
    ] {
        let (checker, _) = prepare();
        checker.saw_text("log", text);
        assert_eq!(!checker.violations().is_empty(), is_broken, "{text}");
        for violation in checker.violations() {
            assert!(!violation.to_string().contains("foobar") && !violation.to_string().contains(key), "{violation}");
        }
    }
    let (checker, mut writer) = prepare();
    writer.put("", "events", "Event", "e", json!({"message": "login with foobar failed"}));
    assert_eq!(rules(&checker.violations()), BTreeSet::from([7]));
    let (checker, mut writer) = prepare();
    let status = json!({"status": {"conditions": [{"type": "Ready", "message": "login with foobar failed"}]}});
    writer.put("infrastructure.cluster.x-k8s.io", "vsphereclusters", "VSphereCluster", "c", status);
    assert_eq!(rules(&checker.violations()), BTreeSet::from([7]));
}

#[tokio::test(start_paused = true)]
async fn rule_8_acknowledged_writes_survive() {
    let checker = checker(&truth());
    let mut writer = Writer::new(&checker);
    let kept = writer.put("", "configmaps", "ConfigMap", "kept", json!({}));
    let old = writer.put("", "configmaps", "ConfigMap", "changed", json!({}));
    let changed = writer.put("", "configmaps", "ConfigMap", "changed", json!({"data": {"a": "b"}}));
    let deleted = writer.put("", "configmaps", "ConfigMap", "deleted", json!({}));
    writer.delete("", "configmaps", "deleted");
    checker.restarted(&[kept.clone(), changed.clone()]);
    assert!(checker.violations().is_empty(), "{:?}", checker.violations());
    for (held, expected) in [
        (vec![kept.clone(), old], "an acknowledged write is gone after a restart"),
        (vec![changed.clone()], "an acknowledged write is gone after a restart"),
        (vec![kept, changed, deleted], "an acknowledged deletion is undone after a restart"),
    ] {
        let checker = super::tests::checker(&truth());
        let mut writer = Writer::new(&checker);
        writer.put("", "configmaps", "ConfigMap", "kept", json!({}));
        writer.put("", "configmaps", "ConfigMap", "changed", json!({}));
        writer.put("", "configmaps", "ConfigMap", "changed", json!({"data": {"a": "b"}}));
        writer.put("", "configmaps", "ConfigMap", "deleted", json!({}));
        writer.delete("", "configmaps", "deleted");
        checker.restarted(&held);
        assert_eq!(checker.violations().len(), 1);
        assert_eq!(checker.violations()[0].what, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_9_drains_end_and_are_not_cut_short() {
    let mut truth = truth();
    let checker = checker(&truth);
    let mut writer = Writer::new(&checker);
    let control_plane = "controlplane.cluster.x-k8s.io";
    let cluster = json!({"metadata": {}, "spec": {"controlPlaneRef": {"name": "cp"}}});
    writer.put("cluster.x-k8s.io", "clusters", "Cluster", "c", cluster.clone());
    writer.put(control_plane, "taloscontrolplanes", "TalosControlPlane", "cp", json!({"metadata": {}}));
    let machine = |limit: Value| {
        let condition = json!({"type": "Deleting", "status": "True", "reason": "DrainingNode"});
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"clusterName": "c", "deletion": {"nodeDrainTimeoutSeconds": limit}},
            "status": {"nodeRef": {"name": "w"}, "deletion": {"nodeDrainStartTime": "2026-01-01T00:00:00Z"}, "conditions": [condition]}})
    };
    let pod = |name: &str, change: Value| {
        let mut pod = json!({"metadata": {"name": name}, "spec": {"nodeName": "w"}});
        apimachinery::patch::merge_patch(&mut pod, &change);
        pod
    };
    let powered = |name: &str| crate::node::MachineTruth {
        vm: VmId("vm-1".into()),
        disk: "d".into(),
        hostname: name.into(),
        realm: None,
        addresses: Vec::new(),
        vip: None,
        stage: "Running".into(),
        serves_api: false,
        is_control_plane: false,
    };
    let daemon = json!({"metadata": {"ownerReferences": [{"kind": "DaemonSet", "controller": true}]}});
    let kept = json!({"metadata": {"labels": {"cluster.x-k8s.io/drain": "skip"}}});
    let staying = vec![pod("daemon", daemon), pod("kept", kept)];
    let mut goes = |writer: &mut Writer, limit: Value, pods: Vec<Value>| {
        writer.put("cluster.x-k8s.io", "machines", "Machine", "m", machine(limit));
        truth.nodes.pods = crate::workload::Pods::given(pods);
        truth.nodes.machines = vec![powered("w")];
        assert!(writer.checker.check(&truth).is_empty());
        truth.nodes.machines.clear();
        rules(&writer.checker.check(&truth))
    };
    assert!(goes(&mut writer, json!(60), staying.clone()).is_empty(), "what a drain leaves alone may be there");
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    assert!(goes(&mut writer, json!(20), vec![pod("web", json!({}))]).is_empty(), "the limit is over");
    assert_eq!(goes(&mut writer, json!(60), vec![pod("web", json!({}))]), BTreeSet::from([9]));
    assert_eq!(goes(&mut writer, json!(0), vec![pod("db", json!({}))]), BTreeSet::from([9]), "0 is no limit");
    let mut going = cluster;
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    writer.put("cluster.x-k8s.io", "clusters", "Cluster", "c", going);
    assert!(goes(&mut writer, json!(60), vec![pod("queue", json!({}))]).is_empty(), "all of it goes");
    writer.put("cluster.x-k8s.io", "clusters", "Cluster", "c", json!({"metadata": {}, "spec": {"controlPlaneRef": {"name": "cp"}}}));
    let late = |writer: &Writer| rules(&writer.checker.check(&super::tests::truth()));
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert!(late(&writer).is_empty(), "a moment ago it was not over");
    tokio::time::sleep(std::time::Duration::from_secs(90)).await;
    assert_eq!(late(&writer), BTreeSet::from([9]), "it goes on after its limit");
}

#[tokio::test(start_paused = true)]
async fn rule_12_one_machine_for_each_machine() {
    let mut truth = truth();
    let checker = checker(&truth);
    truth.vms = vec![marked(1, "m1"), marked(2, "m2")];
    assert!(checker.check(&truth).is_empty());
    let mut copy = marked(3, "m1");
    copy.origin = Origin::Person;
    truth.vms.push(copy);
    assert!(checker.check(&truth).is_empty(), "a person's copy carries our marker and is not ours");
    truth.vms.push(marked(4, "m1"));
    assert_eq!(rules(&checker.check(&truth)), BTreeSet::from([12]));
}
