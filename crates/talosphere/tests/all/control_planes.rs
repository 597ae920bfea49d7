//! Control planes that are replaced, in whole worlds on paused time: etcd keeps its quorum and its voters, within the surge, whatever
//! happens in the middle. The rule checker looks on in every world.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::world::{PATIENCE, Setup, World, run};

const MACHINES: &str = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/machines";
const CONTROL_PLANE: &str = "/apis/controlplane.cluster.x-k8s.io/v1alpha3/namespaces/default/taloscontrolplanes/demo-control-plane";
const POOLS: &str = "/apis/ipam.cluster.x-k8s.io/v1alpha2/namespaces/default/inclusterippools";
const TEMPLATES: &str = "/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/default/vspheremachinetemplates";
/// How often a world is looked at.
const LOOK: Duration = Duration::from_millis(500);
const NEW: &str = "v1.33.0";

/// What a rollout has to keep to.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Machines that are not being deleted.
    most: usize,
    /// Healthy voters of etcd.
    voters: usize,
}

const SURGING: Limits = Limits { most: 4, voters: 3 };

/// How the control plane stands.
#[derive(Debug)]
struct Stand {
    staying: usize,
    going: usize,
    new: usize,
    running: usize,
    vms: BTreeSet<String>,
    voters: usize,
    healthy: usize,
}

async fn get(world: &World, path: &str) -> Value {
    world.api().get(path).await.unwrap().unwrap()
}

async fn patch(world: &World, path: &str, change: &Value) {
    world.api().send(Method::PATCH, path, Some("application/merge-patch+json"), Some(change)).await.unwrap();
}

async fn machines(world: &World) -> Vec<Value> {
    let list = get(world, MACHINES).await["items"].as_array().cloned().unwrap_or_default();
    list.into_iter().filter(|machine| machine["metadata"]["labels"]["cluster.x-k8s.io/control-plane"].is_string()).collect()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

async fn stand(world: &World, is_new: impl Fn(&Value) -> bool) -> Stand {
    let machines = machines(world).await;
    let is_going = |machine: &&Value| machine["metadata"]["deletionTimestamp"].is_string();
    let staying: Vec<&Value> = machines.iter().filter(|machine| !is_going(machine)).collect();
    let truth = world.simulator.truth();
    let etcd: Vec<_> = truth.nodes.etcd.iter().collect();
    assert!(etcd.len() <= 1, "{etcd:?}");
    Stand {
        going: machines.len() - staying.len(),
        new: staying.iter().filter(|machine| is_new(machine)).count(),
        running: staying.iter().filter(|machine| machine["status"]["phase"] == "Running").count(),
        staying: staying.len(),
        vms: truth.vms.iter().filter(|vm| vm.name.starts_with("demo-control-plane") && !vm.is_template).map(|vm| vm.name.clone()).collect(),
        voters: etcd.first().map_or(0, |etcd| etcd.voters()),
        healthy: etcd.first().map_or(0, |etcd| etcd.healthy_voters()),
    }
}

fn is_of_version(machine: &Value) -> bool {
    machine["spec"]["version"] == NEW
}

async fn told(world: &World, type_: &str) -> String {
    let plane = get(world, CONTROL_PLANE).await;
    let list = plane["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = list.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default();
    format!(
        "{} {}: {}",
        found["status"].as_str().unwrap_or_default(),
        found["reason"].as_str().unwrap_or_default(),
        found["message"].as_str().unwrap_or_default()
    )
}

/// Looks until `is_done`, and at every look that the limits hold and that etcd has its quorum.
async fn watch(world: &World, limits: Limits, is_new: impl Fn(&Value) -> bool, is_done: impl Fn(&Stand) -> bool) -> Stand {
    for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
        tokio::time::sleep(LOOK).await;
        let seen = stand(world, &is_new).await;
        assert!(seen.staying <= limits.most, "{seen:?} {limits:?}\n{}", world.log());
        assert!(seen.healthy >= limits.voters && seen.healthy > seen.voters / 2, "{seen:?} {limits:?}\n{}", world.log());
        if is_done(&seen) {
            return seen;
        }
    }
    let seen = stand(world, &is_new).await;
    panic!("not done: {seen:?}\n{}\n{}\n{}", told(world, "MachinesSpecUpToDate").await, told(world, "Resized").await, world.log());
}

fn all_new(wanted: usize) -> impl Fn(&Stand) -> bool {
    move |seen| {
        (seen.staying, seen.going, seen.new, seen.running, seen.vms.len(), seen.voters, seen.healthy)
            == (wanted, 0, wanted, wanted, wanted, wanted, wanted)
    }
}

async fn world_of(seed: u64, control_planes: u32, workers: u32) -> World {
    let world = World::start(&Setup::new(seed, control_planes, workers)).await;
    world.up().await.unwrap_or_else(|problem| panic!("{problem}\n{}", world.log()));
    world
}

async fn change_version(world: &World) {
    patch(world, CONTROL_PLANE, &json!({"spec": {"version": NEW}})).await;
}

/// The machines in the order in which they were deleted, as the log has it, and etcd's leader when the first was.
fn deleted(world: &World) -> Vec<String> {
    let lines = world.log();
    let of = |line: &str| {
        line.split("delete-machine")
            .nth(1)?
            .split_whitespace()
            .find(|word| word.starts_with("demo-control-plane-"))
            .map(|word| word.trim_end_matches(':').to_owned())
    };
    lines.lines().filter_map(of).collect()
}

#[test]
fn three_are_replaced_one_by_one_and_the_leader_last() {
    run(71, async {
        let world = world_of(71, 3, 1).await;
        let before = stand(&world, is_of_version).await;
        let leader = {
            let truth = world.simulator.truth();
            let etcd = &truth.nodes.etcd[0];
            etcd.member(etcd.leader().unwrap()).unwrap().name.clone()
        };
        change_version(&world).await;
        let after = watch(&world, SURGING, is_of_version, all_new(3)).await;
        assert!(before.vms.is_disjoint(&after.vms), "every old VM is gone: {after:?}");
        let order = deleted(&world);
        assert_eq!(order.len(), 3, "{order:?}");
        assert_eq!(order[2], leader, "{order:?}");
        assert!(told(&world, "MachinesSpecUpToDate").await.starts_with("True"));
        assert!(world.log().contains("hands etcd's leadership to"), "moved before it left");
        // Every one was drained before its member left.
        let log = world.log();
        for machine in &order {
            let at = |what: &str| log.lines().position(|line| line.contains(what) && line.contains(machine.as_str()));
            assert!(at("etcd-leave").unwrap() > at("delete-machine").unwrap(), "{machine}");
        }
        let plane = get(&world, CONTROL_PLANE).await;
        assert_eq!(plane["status"]["version"], NEW);
    });
}

#[test]
fn without_surge_and_without_a_spare_address_one_goes_first() {
    let tight = Limits { most: 3, voters: 2 };
    run(72, async {
        let world = world_of(72, 3, 0).await;
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0}});
        patch(&world, CONTROL_PLANE, &json!({"spec": {"rolloutStrategy": strategy}})).await;
        change_version(&world).await;
        watch(&world, tight, is_of_version, all_new(3)).await;
    });
    run(73, async {
        let world = world_of(73, 3, 0).await;
        // The pool shrinks to what is taken.
        let machines = machines(&world).await;
        let address = |machine: &Value| {
            let all = machine["status"]["addresses"].as_array().unwrap();
            all.iter().find(|address| address["type"] == "ExternalIP").unwrap()["address"].as_str().unwrap().to_owned()
        };
        let taken: Vec<String> = machines.iter().map(address).collect();
        let pools = get(&world, POOLS).await["items"].as_array().cloned().unwrap();
        let pool = pools
            .iter()
            .find(|pool| pool["status"]["ipAddresses"]["used"].as_i64().unwrap_or_default() >= 3)
            .unwrap_or_else(|| panic!("{pools:?}"));
        patch(&world, &format!("{POOLS}/{}", name(pool)), &json!({"spec": {"addresses": taken}})).await;
        change_version(&world).await;
        let begun = watch(&world, tight, is_of_version, |seen| seen.going > 0).await;
        assert_eq!(begun.new, 0);
        let words = told(&world, "MachinesSpecUpToDate").await;
        assert!(words.contains("has no spare address"), "{words}");
        watch(&world, tight, is_of_version, all_new(3)).await;
    });
}

#[test]
fn one_is_replaced_by_one_more() {
    run(74, async {
        let world = world_of(74, 1, 1).await;
        change_version(&world).await;
        watch(&world, Limits { most: 2, voters: 1 }, is_of_version, all_new(1)).await;
    });
}

#[test]
fn another_template_and_another_configuration_replace_machines_too() {
    run(75, async {
        let world = world_of(75, 3, 0).await;
        let mut template = get(&world, &format!("{TEMPLATES}/demo-control-plane")).await;
        template["metadata"] = json!({"name": "demo-control-plane-2", "namespace": "default"});
        template["spec"]["template"]["spec"]["numCPUs"] = json!(4);
        world.api().send(Method::POST, TEMPLATES, Some("application/json"), Some(&template)).await.unwrap();
        let old = stand(&world, |_| true).await.vms;
        patch(&world, CONTROL_PLANE, &json!({"spec": {"infrastructureTemplate": {"name": "demo-control-plane-2"}}})).await;
        let is_new = |machine: &Value| machine["spec"]["infrastructureRef"]["name"].as_str().unwrap().starts_with("demo-control-plane-2-");
        let new = watch(&world, SURGING, is_new, all_new(3)).await.vms;
        assert!(old.is_disjoint(&new));
        // In the middle of another rollout the change is taken back: what is new goes again.
        let patches = json!({"spec": {"controlPlaneConfig": {"controlplane": {"strategicPatches": ["machine:\n  sysctls:\n    vm.swappiness: \"1\"\n"]}}}});
        patch(&world, CONTROL_PLANE, &patches).await;
        let is_other = |machine: &Value| !new.contains(&name(machine));
        watch(&world, SURGING, is_other, |seen| seen.new == 2).await;
        let before = get(&world, CONTROL_PLANE).await;
        assert_eq!(before["spec"]["replicas"], 3);
        patch(&world, CONTROL_PLANE, &json!({"spec": {"controlPlaneConfig": {"controlplane": {"strategicPatches": null}}}})).await;
        watch(&world, SURGING, |_| true, |seen| (seen.staying, seen.going, seen.healthy) == (3, 0, 3)).await;
        tokio::time::sleep(Duration::from_secs(1200)).await;
        assert!(told(&world, "MachinesSpecUpToDate").await.starts_with("True"));
    });
}

#[test]
fn a_dead_member_is_replaced_first() {
    run(76, async {
        let world = world_of(76, 3, 0).await;
        let dead = name(&machines(&world).await[1]);
        let person = world.simulator.vcenter().person();
        // As a host that fails: its VM is off, and nobody tells anything.
        person.power_off(&person.find(&dead).unwrap()).unwrap();
        world.checker().person_acted(&world.simulator.truth());
        change_version(&world).await;
        let limits = Limits { most: 4, voters: 2 };
        watch(&world, limits, is_of_version, all_new(3)).await;
        assert_eq!(deleted(&world)[0], dead);
    });
}

#[test]
fn sizes_change_in_the_middle() {
    for (wanted, most, voters) in [(5, 6, 3), (1, 4, 1)] {
        run(77, async {
            let world = world_of(77, 3, 0).await;
            change_version(&world).await;
            watch(&world, SURGING, is_of_version, |seen| seen.new == 2).await;
            patch(&world, CONTROL_PLANE, &json!({"spec": {"replicas": wanted}})).await;
            watch(&world, Limits { most, voters }, is_of_version, all_new(wanted)).await;
        });
    }
}

#[test]
fn the_sizes_of_the_book() {
    run(78, async {
        let world = world_of(78, 1, 0).await;
        for (wanted, most) in [(3, 3), (5, 5), (3, 5), (1, 3)] {
            patch(&world, CONTROL_PLANE, &json!({"spec": {"replicas": wanted}})).await;
            watch(&world, Limits { most, voters: 1 }, |_| true, all_new(wanted)).await;
        }
    });
}

#[test]
fn a_process_that_dies_in_the_middle_goes_on_within_the_limits() {
    let begin = || async {
        let world = world_of(79, 3, 1).await;
        change_version(&world).await;
        world
    };
    let took = run(79, async {
        let world = begin().await;
        let begun = world.seams.clock.instant();
        watch(&world, SURGING, is_of_version, all_new(3)).await;
        world.seams.clock.instant().saturating_duration_since(begun)
    });
    run(79, async {
        let mut world = begin().await;
        for _ in 0..12 {
            let until = world.seams.clock.instant() + took / 13;
            watch(&world, SURGING, is_of_version, |_| world.seams.clock.instant() >= until).await;
            world.restart().await;
        }
        watch(&world, SURGING, is_of_version, all_new(3)).await;
        let order = deleted(&world);
        assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 3, "none was replaced twice: {order:?}");
    });
}

#[test]
fn a_control_plane_deleted_in_the_middle_leaves_nothing() {
    run(80, async {
        let world = world_of(80, 3, 0).await;
        change_version(&world).await;
        watch(&world, SURGING, is_of_version, |seen| seen.new == 2).await;
        world.api().send(Method::DELETE, CONTROL_PLANE, None, None).await.unwrap();
        for _ in 0..PATIENCE.as_secs() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if machines(&world).await.is_empty() && stand(&world, |_| true).await.vms.is_empty() {
                return;
            }
        }
        panic!("{:?}", machines(&world).await);
    });
}

#[test]
fn on_delete_replaces_what_somebody_deletes() {
    run(81, async {
        let world = world_of(81, 3, 0).await;
        patch(&world, CONTROL_PLANE, &json!({"spec": {"rolloutStrategy": {"type": "OnDelete", "rollingUpdate": null}}})).await;
        change_version(&world).await;
        tokio::time::sleep(Duration::from_secs(1200)).await;
        assert_eq!(stand(&world, is_of_version).await.new, 0);
        assert!(told(&world, "MachinesSpecUpToDate").await.contains("(OnDelete)"));
        for done in 1..=3 {
            let old = machines(&world).await.iter().find(|machine| !is_of_version(machine)).map(name).unwrap();
            world.api().send(Method::DELETE, &format!("{MACHINES}/{old}"), None, None).await.unwrap();
            let is_done = |seen: &Stand| (seen.new, seen.going, seen.healthy, seen.running) == (done, 0, 3, 3);
            watch(&world, Limits { most: 3, voters: 2 }, is_of_version, is_done).await;
        }
    });
}

/// Has the control planes looked after.
async fn look_after(world: &World) {
    let check = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineHealthCheck",
        "metadata": {"name": "control-planes", "namespace": "default"},
        "spec": {
            "clusterName": "demo",
            "selector": {"matchLabels": {"cluster.x-k8s.io/control-plane": ""}},
            "checks": {
                "nodeStartupTimeoutSeconds": 900,
                "unhealthyNodeConditions": [
                    {"type": "Ready", "status": "Unknown", "timeoutSeconds": 300},
                    {"type": "Ready", "status": "False", "timeoutSeconds": 300},
                ],
            },
        },
    });
    let path = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/machinehealthchecks";
    world.api().send(Method::POST, path, Some("application/json"), Some(&check)).await.unwrap();
}

/// A person deletes the virtual machine of a Machine.
fn destroy(world: &World, machine: &str) {
    let person = world.simulator.vcenter().person();
    person.delete(&person.find(machine).unwrap()).unwrap();
    world.checker().person_acted(&world.simulator.truth());
}

fn owner_told(machine: &Value) -> String {
    let list = machine["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = list.into_iter().find(|condition| condition["type"] == "OwnerRemediated").unwrap_or_default();
    format!("{} {}", found["reason"].as_str().unwrap_or_default(), found["message"].as_str().unwrap_or_default())
}

#[test]
fn one_whose_machine_somebody_deletes_is_replaced_where_a_check_looks_after_it() {
    for after in [None, Some(3), Some(20), Some(60)] {
        run(82, async {
            let mut world = world_of(82, 3, 1).await;
            look_after(&world).await;
            let lost = name(&machines(&world).await[0]);
            destroy(&world, &lost);
            if let Some(seconds) = after {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                world.restart().await;
            }
            let is_new = |machine: &Value| name(machine) != lost;
            watch(&world, Limits { most: 3, voters: 2 }, is_new, all_new(3)).await;
        });
    }
}

#[test]
fn nothing_is_replaced_where_that_would_cost_the_quorum_and_that_is_told() {
    run(83, async {
        let world = world_of(83, 3, 0).await;
        look_after(&world).await;
        let all: Vec<String> = machines(&world).await.iter().map(name).collect();
        destroy(&world, &all[0]);
        destroy(&world, &all[1]);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let left = machines(&world).await;
        assert_eq!(left.iter().map(name).collect::<Vec<_>>(), all, "all are kept");
        assert!(left.iter().all(|machine| machine["metadata"]["deletionTimestamp"].is_null()));
        let words: Vec<String> = left.iter().map(owner_told).collect();
        assert!(words[..2].iter().all(|told| told.starts_with("RemediationDeferred waiting for ")), "{words:?}");
        let told = told(&world, "EtcdClusterHealthyCondition").await;
        assert!(told.contains("EtcdClusterUnhealthy") && told.contains(&all[0]) && told.contains(&all[1]), "{told}");
    });
}
