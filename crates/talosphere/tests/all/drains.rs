//! Nodes are drained before their machines go, control planes too, and every drain ends: with the last pod, or with its limit.
//!
//! Worlds on paused time. A test puts pods, budgets and volumes into the simulated cluster as its user would, and changes the number of
//! machines; what is seen is the Machine's condition, its events, and the world.

use std::collections::BTreeSet;
use std::time::Duration;

use apiserver::User;
use http::Method;
use serde_json::{Value, json};
use simulator::hooks::{self, Phase, Verdict};
use talosphere::apply::Api;

use super::world::{Setup, World, run};

const MACHINES: &str = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/machines";
const DEPLOYMENT: &str = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/machinedeployments/demo-workers";
const CONTROL_PLANE: &str = "/apis/controlplane.cluster.x-k8s.io/v1alpha3/namespaces/default/taloscontrolplanes/demo-control-plane";
const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// A person's way to the cluster that the world's machines form.
pub fn workload(world: &World) -> Api {
    let server = world.simulator.nodes().workload_apis().pop().unwrap();
    Api::new(kube::Client::new(server.service(&User::admin("admin")), "default"))
}

async fn create(api: &Api, path: &str, object: Value) -> Value {
    api.send(Method::POST, path, Some("application/json"), Some(&object)).await.unwrap()
}

pub async fn merge(api: &Api, path: &str, patch: Value) {
    api.send(Method::PATCH, path, Some("application/merge-patch+json"), Some(&patch))
        .await
        .unwrap_or_else(|error| panic!("{path}: {error}"));
}

async fn delete(api: &Api, path: &str) {
    api.send(Method::DELETE, path, None, None).await.unwrap();
}

pub async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// A pod on a node, as bare as it can be; `change` is merged into it.
pub async fn put_pod(api: &Api, name: &str, node: &str, change: Value) {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 5, "containers": [{"name": "c", "image": "i"}]}});
    apimachinery::patch::merge_patch(&mut pod, &change);
    create(api, PODS, pod).await;
}

/// A budget that never lets the pod called `name` go.
pub async fn put_budget(api: &Api, name: &str) {
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": format!("{name}-budget")},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": name}}}});
    create(api, BUDGETS, budget).await;
}

/// A world whose cluster is ready.
async fn up(seed: u64, control_planes: u32, workers: u32) -> World {
    up_with(Setup::new(seed, control_planes, workers)).await
}

async fn up_with(setup: Setup) -> World {
    let world = World::start(&setup).await;
    world.up().await.unwrap_or_else(|problem| panic!("{problem}\n{}", world.log()));
    world
}

async fn machines(world: &World) -> Vec<Value> {
    let list = world.api().get(MACHINES).await.unwrap().unwrap();
    list["items"].as_array().unwrap().clone()
}

fn node(machine: &Value) -> String {
    machine["status"]["nodeRef"]["name"].as_str().unwrap_or_default().to_owned()
}

/// The nodes of the machines whose name begins so.
pub async fn nodes(world: &World, prefix: &str) -> Vec<String> {
    let is_one = |machine: &&Value| machine["metadata"]["name"].as_str().unwrap().starts_with(prefix);
    machines(world).await.iter().filter(is_one).map(node).collect()
}

/// The condition Deleting of the only Machine that is being deleted: reason and message.
async fn told(world: &World) -> Option<(String, String)> {
    let machines = machines(world).await;
    let going = machines.iter().find(|machine| machine["metadata"]["deletionTimestamp"].is_string())?;
    let conditions = going["status"]["conditions"].as_array().unwrap();
    let deleting = conditions.iter().find(|condition| condition["type"] == "Deleting")?;
    Some((deleting["reason"].as_str().unwrap().to_owned(), deleting["message"].as_str().unwrap().to_owned()))
}

async fn draining(world: &World) -> String {
    let (reason, message) = told(world).await.unwrap_or_else(|| panic!("nothing is being deleted\n{}", world.log()));
    assert_eq!(reason, "DrainingNode", "{message}\n{}", world.log());
    message
}

async fn scale(world: &World, path: &str, replicas: u32) {
    merge(&world.api(), path, json!({"spec": {"replicas": replicas}})).await;
}

/// Seconds until no Machine is being deleted.
async fn until_gone(world: &World, limit: u64) -> u64 {
    for seconds in 0..limit {
        if told(world).await.is_none() {
            return seconds;
        }
        pass(1).await;
    }
    panic!("after {limit} s: {:?}\n{}", told(world).await, world.log());
}

fn has_vm(world: &World, node: &str) -> bool {
    world.simulator.truth().vms.iter().any(|vm| vm.name == node)
}

async fn events(world: &World, reason: &str) -> Vec<String> {
    let list = world.api().get("/api/v1/namespaces/default/events").await.unwrap().unwrap();
    let of_reason = list["items"].as_array().unwrap().iter().filter(|event| event["reason"] == reason);
    of_reason.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

async fn is_there(api: &Api, pod: &str) -> bool {
    api.get(&format!("{PODS}/{pod}")).await.unwrap().is_some()
}

/// A worker whose only pod a budget holds for ever.
async fn held_worker(seed: u64) -> (World, Api, String) {
    let world = up(seed, 1, 1).await;
    let api = workload(&world);
    let worker = nodes(&world, "demo-workers").await.remove(0);
    put_pod(&api, "web", &worker, json!({})).await;
    put_budget(&api, "web").await;
    pass(30).await;
    let budget = api.get(&format!("{BUDGETS}/web-budget")).await.unwrap().unwrap();
    let counts = json!({"currentHealthy": 1, "desiredHealthy": 1, "disruptionsAllowed": 0, "expectedPods": 1});
    for (field, count) in counts.as_object().unwrap() {
        assert_eq!(budget["status"][field], *count, "{budget}");
    }
    (world, api, worker)
}

#[test]
fn a_budget_is_respected_until_the_limit_and_then_told() {
    run(61, async {
        let (world, api, worker) = held_worker(61).await;
        merge(&world.api(), DEPLOYMENT, json!({"spec": {"template": {"spec": {"deletion": {"nodeDrainTimeoutSeconds": 80}}}}})).await;
        pass(5).await;
        scale(&world, DEPLOYMENT, 0).await;
        pass(30).await;
        let message = draining(&world).await;
        assert!(message.starts_with(&format!("Waiting for Node {worker} to be drained since 08:")), "{message}");
        assert!(message.contains(" (limit 08:"), "{message}");
        let blocked = "* Pod default/web: Cannot evict pod as it would violate the pod's disruption budget. The disruption budget web-budget needs 1 healthy pods and has 1 currently";
        assert!(message.contains(blocked), "{message}");
        let cordoned = api.get(&format!("/api/v1/nodes/{worker}")).await.unwrap().unwrap();
        assert_eq!(cordoned["spec"]["unschedulable"], true);
        pass(45).await;
        draining(&world).await;
        assert!(has_vm(&world, &worker) && is_there(&api, "web").await);
        assert!(until_gone(&world, 60).await < 45, "{}", world.log());
        let told = events(&world, "FailedDrainNode").await;
        assert!(
            told.len() == 1 && told[0].contains("was not drained by 08:") && told[0].contains("nodeDrainTimeoutSeconds is 80"),
            "{told:?}"
        );
        assert!(told[0].contains("Pod default/web: Cannot evict") && told[0].contains("web-budget"), "{told:?}");
        assert!(world.log().contains("FailedDrainNode: Node"), "and the log has it");
        assert!(!has_vm(&world, &worker));
    });
}

#[test]
fn a_budget_that_is_freed_lets_the_drain_go_on() {
    run(62, async {
        let (world, api, worker) = held_worker(62).await;
        // A pod that takes its time is seen stopping.
        merge(&api, &format!("{PODS}/web"), json!({"spec": {"terminationGracePeriodSeconds": 30}})).await;
        scale(&world, DEPLOYMENT, 0).await;
        pass(300).await;
        draining(&world).await;
        merge(&api, &format!("{BUDGETS}/web-budget"), json!({"spec": {"minAvailable": 0}})).await;
        // The next try, the pod's grace, the look after it, and the machine's own end.
        let mut stopping = String::new();
        for _ in 0..45 {
            pass(1).await;
            stopping = draining(&world).await;
            if stopping.contains("deletionTimestamp") {
                break;
            }
        }
        assert!(stopping.ends_with("* Pod default/web: deletionTimestamp set, but still not removed from the Node"), "{stopping}");
        assert!(until_gone(&world, 120).await < 60, "{}", world.log());
        assert_eq!(events(&world, "FailedDrainNode").await, Vec::<String>::new());
        assert_eq!(events(&world, "SuccessfulDrainNode").await, [format!("success draining Machine's node \"{worker}\"")]);
    });
}

#[test]
fn a_limit_that_is_shortened_counts_at_once_and_none_is_told_loudly() {
    run(63, async {
        let (world, _, worker) = held_worker(63).await;
        let machine = machines(&world).await.into_iter().find(|machine| node(machine) == worker).unwrap();
        let path = format!("{MACHINES}/{}", machine["metadata"]["name"].as_str().unwrap());
        merge(&world.api(), &path, json!({"metadata": {"annotations": {"talosphere.dev/node-drain-timeout": "0s"}}})).await;
        scale(&world, DEPLOYMENT, 0).await;
        pass(3600).await;
        let message = draining(&world).await;
        assert!(message.contains("(no limit: Machine annotation talosphere.dev/node-drain-timeout is 0s)"), "{message}");
        assert!(events(&world, "DrainWithoutLimit").await[0].contains("it waits for ever"));
        merge(&world.api(), &path, json!({"metadata": {"annotations": {"talosphere.dev/node-drain-timeout": "10s"}}})).await;
        assert!(until_gone(&world, 60).await < 40, "{}", world.log());
        assert_eq!(events(&world, "FailedDrainNode").await.len(), 1);
    });
}

#[test]
fn only_pods_that_a_drain_takes_are_taken() {
    run(64, async {
        let world = up(64, 1, 1).await;
        let api = workload(&world);
        let worker = nodes(&world, "demo-workers").await.remove(0);
        let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"}, "spec": {"selector": {"matchLabels": {"app": "agent"}},
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        create(&api, "/apis/apps/v1/namespaces/default/daemonsets", set).await;
        put_pod(&api, "mirror", &worker, json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}})).await;
        put_pod(&api, "kept", &worker, json!({"metadata": {"labels": {"cluster.x-k8s.io/drain": "skip"}}})).await;
        put_pod(&api, "ruled", &worker, json!({})).await;
        put_pod(&api, "plain", &worker, json!({})).await;
        let rule = json!({"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineDrainRule", "metadata": {"name": "r"},
            "spec": {"drain": {"behavior": "Skip"}, "pods": [{"selector": {"matchLabels": {"app": "ruled"}}}]}});
        create(&world.api(), "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/machinedrainrules", rule).await;
        pass(30).await;
        // A hook keeps the machine after its drain.
        let machine = machines(&world).await.into_iter().find(|machine| node(machine) == worker).unwrap();
        let path = format!("{MACHINES}/{}", machine["metadata"]["name"].as_str().unwrap());
        let hook = "pre-terminate.delete.hook.machine.cluster.x-k8s.io/look";
        merge(&world.api(), &path, json!({"metadata": {"annotations": {hook: ""}}})).await;
        scale(&world, DEPLOYMENT, 0).await;
        pass(60).await;
        assert_eq!(told(&world).await.unwrap().0, "WaitingForPreTerminateHook", "{}", world.log());
        let pods = api.get(PODS).await.unwrap().unwrap();
        let on_worker = pods["items"].as_array().unwrap().iter().filter(|pod| pod["spec"]["nodeName"] == worker.as_str());
        let left: BTreeSet<&str> = on_worker.map(|pod| pod["metadata"]["labels"]["app"].as_str().unwrap()).collect();
        assert_eq!(left, BTreeSet::from(["agent", "kept", "mirror", "ruled"]));
        merge(&world.api(), &path, json!({"metadata": {"annotations": {hook: null}}})).await;
        until_gone(&world, 120).await;
    });
}

#[test]
fn a_node_that_is_down_does_not_hold_its_drain() {
    run(65, async {
        let world = up(65, 1, 1).await;
        let api = workload(&world);
        let worker = nodes(&world, "demo-workers").await.remove(0);
        put_pod(&api, "web", &worker, json!({})).await;
        pass(30).await;
        // It is not powered on again.
        world.simulator.hooks().on(|call| {
            let is_power = call.face == hooks::VCENTER && call.method.starts_with("PowerOn") && call.phase == Phase::Before;
            if is_power { Verdict::Fault("NoDiskSpace".to_owned()) } else { Verdict::Proceed }
        });
        let person = world.simulator.vcenter().person();
        person.power_off(&person.find(&worker).unwrap()).unwrap();
        world.checker().person_acted(&world.simulator.truth());
        pass(60).await;
        let lost = api.get(&format!("{PODS}/web")).await.unwrap().unwrap();
        assert!(
            lost["status"]["conditions"]
                .as_array()
                .unwrap()
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "False")
        );
        scale(&world, DEPLOYMENT, 0).await;
        // The pod is told to go, nobody confirms that it has, and nobody waits for that.
        pass(3).await;
        draining(&world).await;
        pass(4).await;
        let pod = api.get(&format!("{PODS}/web")).await.unwrap().unwrap();
        assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 1, "it is still there: {pod}");
        assert_ne!(told(&world).await.unwrap().0, "DrainingNode");
        assert!(until_gone(&world, 120).await < 60, "{}", world.log());
        assert_eq!(events(&world, "FailedDrainNode").await, Vec::<String>::new());
    });
}

#[test]
fn volumes_are_waited_for_after_the_pods() {
    run(66, async {
        let world = up(66, 1, 1).await;
        let api = workload(&world);
        let worker = nodes(&world, "demo-workers").await.remove(0);
        let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-1"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "csi": {"driver": "csi.vsphere.vmware.com", "volumeHandle": "h"},
            "claimRef": {"namespace": "default", "name": "data"}}});
        create(&api, "/api/v1/persistentvolumes", volume).await;
        let attachments = "/apis/storage.k8s.io/v1/volumeattachments";
        let attachment = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": "va-1"},
            "spec": {"attacher": "csi.vsphere.vmware.com", "nodeName": worker, "source": {"persistentVolumeName": "pv-1"}}});
        create(&api, attachments, attachment).await;
        scale(&world, DEPLOYMENT, 0).await;
        pass(120).await;
        let (reason, message) = told(&world).await.unwrap();
        assert_eq!(reason, "WaitingForVolumeDetach", "{message}");
        assert!(message.starts_with(&format!("Waiting for volumes of Node {worker} to be detached since 08:")), "{message}");
        assert!(message.ends_with("\n* PersistentVolume pv-1 is attached"), "{message}");
        delete(&api, &format!("{attachments}/va-1")).await;
        assert!(until_gone(&world, 120).await < 60, "{}", world.log());
    });
}

#[test]
fn a_process_that_dies_in_the_middle_of_a_drain_goes_on_with_it() {
    run(67, async {
        let (mut world, _, worker) = held_worker(67).await;
        merge(&world.api(), DEPLOYMENT, json!({"spec": {"template": {"spec": {"deletion": {"nodeDrainTimeoutSeconds": 120}}}}})).await;
        pass(5).await;
        scale(&world, DEPLOYMENT, 0).await;
        pass(60).await;
        let before = draining(&world).await;
        world.restart().await;
        pass(30).await;
        let after = draining(&world).await;
        assert_eq!(after.lines().next(), before.lines().next(), "it began when it began");
        assert!(has_vm(&world, &worker));
        assert!(until_gone(&world, 90).await < 60, "the limit counts from the beginning\n{}", world.log());
    });
}

#[test]
fn control_planes_are_drained_while_they_work_and_before_they_leave_etcd() {
    run(68, async {
        let world = up(68, 3, 0).await;
        let api = workload(&world);
        for (number, node) in nodes(&world, "demo-").await.iter().enumerate() {
            put_pod(&api, &format!("web-{number}"), node, json!({"spec": {"tolerations": [{"operator": "Exists"}]}})).await;
            put_budget(&api, &format!("web-{number}")).await;
        }
        merge(&world.api(), CONTROL_PLANE, json!({"metadata": {"annotations": {"talosphere.dev/node-drain-timeout": "5m"}}})).await;
        pass(30).await;
        let members = |world: &World| {
            world.simulator.truth().nodes.etcd.iter().flat_map(|cluster| cluster.members().cloned().collect::<Vec<_>>()).count()
        };
        scale(&world, CONTROL_PLANE, 1).await;
        pass(120).await;
        let message = draining(&world).await;
        assert!(message.contains("disruption budget web-"), "{message}");
        assert_eq!(members(&world), 3, "a member whose node is drained stays");
        let told = world.api().get(CONTROL_PLANE).await.unwrap().unwrap()["status"].to_string();
        assert!(told.contains("leaves etcd when its node is drained"), "{told}");
        // One is freed by its user, the other by the limit.
        for budget in api.get(BUDGETS).await.unwrap().unwrap()["items"].as_array().unwrap() {
            let name = budget["metadata"]["name"].as_str().unwrap();
            if message.contains(name) {
                delete(&api, &format!("{BUDGETS}/{name}")).await;
            }
        }
        pass(90).await;
        assert_eq!(members(&world), 2, "{}", world.log());
        assert_eq!(events(&world, "FailedDrainNode").await, Vec::<String>::new());
        pass(420).await;
        assert_eq!((members(&world), machines(&world).await.len()), (1, 1), "{}", world.log());
        let told = events(&world, "FailedDrainNode").await;
        assert!(told.len() == 1 && told[0].contains("TalosControlPlane annotation talosphere.dev/node-drain-timeout is 5m"), "{told:?}");
        assert_eq!(api.get("/api/v1/nodes").await.unwrap().unwrap()["items"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn a_cluster_that_goes_as_a_whole_is_not_drained() {
    run(69, async {
        let (world, _, _) = held_worker(69).await;
        delete(&world.api(), "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/clusters/demo").await;
        for seconds in 0.. {
            if machines(&world).await.is_empty() {
                assert!(seconds < 120, "{seconds}");
                break;
            }
            assert!(seconds < 600, "{}", world.log());
            pass(1).await;
        }
        assert_eq!(events(&world, "FailedDrainNode").await, Vec::<String>::new());
    });
}

/// A worker whose pod a budget holds goes: what a defect of drains shows itself in.
pub async fn held_worker_goes(world: &World) {
    let api = workload(world);
    let worker = nodes(world, "demo-workers").await.remove(0);
    put_pod(&api, "web", &worker, json!({})).await;
    put_budget(&api, "web").await;
    merge(&world.api(), DEPLOYMENT, json!({"spec": {"template": {"spec": {"deletion": {"nodeDrainTimeoutSeconds": 60}}}}})).await;
    pass(30).await;
    scale(world, DEPLOYMENT, 0).await;
    pass(300).await;
}

/// Two of three control planes go, and budgets hold their pods.
pub async fn held_control_planes_go(world: &World) {
    let api = workload(world);
    for (number, node) in nodes(world, "demo-").await.iter().enumerate() {
        put_pod(&api, &format!("web-{number}"), node, json!({})).await;
        put_budget(&api, &format!("web-{number}")).await;
    }
    merge(&world.api(), CONTROL_PLANE, json!({"metadata": {"annotations": {"talosphere.dev/node-drain-timeout": "2m"}}})).await;
    pass(30).await;
    scale(world, CONTROL_PLANE, 1).await;
    pass(900).await;
}
