//! What becomes of machines that are unhealthy, lost, switched off or set back by hand, and of Nodes that something holds back.
//!
//! Worlds on paused time, with the rule checker beside them and restarts in the middle. A person acts in vCenter as with its client; what is
//! seen is the world, the conditions of Machines and of their health check, events, and what `describe` says.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use simulator::hooks::{self, Phase, Verdict};
use talosphere::commands::demo::Material;
use talosphere::tree::{self, KINDS, Objects, tree};

use super::drains::{merge, pass, workload};
use super::world::{Setup, World, run};

const GROUP: &str = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default";
const SKIP: &str = "cluster.x-k8s.io/skip-remediation";
const REMEDIATE: &str = "cluster.x-k8s.io/remediate-machine";
const ROUNDS: &str = "talosphere.dev/remediation-rounds";

async fn up(seed: u64, workers: u32) -> World {
    let world = World::start(&Setup::new(seed, 1, workers)).await;
    world.up().await.unwrap_or_else(|problem| panic!("{problem}\n{}", world.log()));
    world
}

async fn list(world: &World, plural: &str) -> Vec<Value> {
    world.api().get(&format!("{GROUP}/{plural}")).await.unwrap().unwrap()["items"].as_array().unwrap().clone()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

/// The workers' Machines, by name.
async fn workers(world: &World) -> Vec<Value> {
    list(world, "machines").await.into_iter().filter(|machine| name(machine).starts_with("demo-workers")).collect()
}

async fn names(world: &World) -> BTreeSet<String> {
    workers(world).await.iter().map(name).collect()
}

async fn worker(world: &World, wanted: &str) -> Option<Value> {
    workers(world).await.into_iter().find(|machine| name(machine) == wanted)
}

fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    object["status"]["conditions"].as_array().and_then(|all| all.iter().find(|one| one["type"] == type_)).unwrap_or(&Value::Null)
}

fn holds(object: &Value, type_: &str) -> bool {
    condition(object, type_)["status"] == "True"
}

/// Reason and message of a condition.
fn told(object: &Value, type_: &str) -> (String, String) {
    let found = condition(object, type_);
    (found["reason"].as_str().unwrap_or_default().to_owned(), found["message"].as_str().unwrap_or_default().to_owned())
}

async fn check(world: &World) -> Value {
    list(world, "machinehealthchecks").await.remove(0)
}

async fn set(world: &World) -> Value {
    list(world, "machinesets").await.remove(0)
}

async fn annotate(world: &World, machine: &str, key: &str, value: Value) {
    merge(&world.api(), &format!("{GROUP}/machines/{machine}"), json!({"metadata": {"annotations": {key: value}}})).await;
}

async fn events(world: &World, reason: &str) -> Vec<String> {
    let list = world.api().get("/api/v1/namespaces/default/events").await.unwrap().unwrap();
    let of_reason = list["items"].as_array().unwrap().iter().filter(|event| event["reason"] == reason);
    of_reason.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

/// Lets no machine get power but those that are let.
#[derive(Clone, Default)]
pub struct Power(Arc<Mutex<Option<BTreeSet<String>>>>);

impl Power {
    /// Everything has power at first.
    pub fn over(world: &World) -> Self {
        let power = Self::default();
        let seen = power.clone();
        world.simulator.hooks().on(move |call| {
            let is_power = call.face == hooks::VCENTER && call.method.starts_with("PowerOn") && call.phase == Phase::Before;
            let vm = call.object.split(' ').next().unwrap_or_default();
            let is_held = seen.0.lock().unwrap().as_ref().is_some_and(|held| held.is_empty() || held.contains(vm));
            if is_power && is_held { Verdict::Fault("NoDiskSpace".to_owned()) } else { Verdict::Proceed }
        });
        power
    }

    /// These, and no others, get none; without any, none at all does.
    pub fn hold(&self, vms: &[String]) {
        *self.0.lock().unwrap() = Some(vms.iter().cloned().collect());
    }

    pub fn free(&self) {
        *self.0.lock().unwrap() = None;
    }
}

pub fn vm(world: &World, machine: &str) -> Option<String> {
    world.simulator.truth().vms.iter().find(|vm| vm.name == machine).map(|vm| vm.id.0.clone())
}

/// A person switches the machine off.
pub fn switch_off(world: &World, machine: &str) {
    let person = world.simulator.vcenter().person();
    person.power_off(&person.find(machine).unwrap()).unwrap();
    world.checker().person_acted(&world.simulator.truth());
}

/// A person deletes the virtual machine.
pub fn destroy(world: &World, machine: &str) {
    let person = world.simulator.vcenter().person();
    person.delete(&person.find(machine).unwrap()).unwrap();
    world.checker().person_acted(&world.simulator.truth());
}

/// Seconds until `is_done` holds for the workers; nothing may exceed `most` meanwhile.
async fn until(world: &World, most: usize, limit: u64, is_done: impl Fn(&[Value]) -> bool) -> u64 {
    for seconds in 0..limit {
        let seen = workers(world).await;
        let vms = world.simulator.truth().vms.iter().filter(|vm| vm.name.starts_with("demo-workers") && !vm.is_template).count();
        assert!(seen.len() <= most && vms <= most, "{} machines, {vms} VMs\n{}", seen.len(), world.log());
        if is_done(&seen) {
            return seconds;
        }
        pass(1).await;
    }
    let all: Vec<Value> = workers(world).await.iter().map(|machine| machine["status"]["conditions"].clone()).collect();
    panic!("not within {limit} s: {all:#?}\n{}", world.log());
}

fn all_ready(count: usize) -> impl Fn(&[Value]) -> bool {
    move |seen| {
        seen.len() == count && seen.iter().all(|machine| holds(machine, "Ready") && machine["metadata"]["deletionTimestamp"].is_null())
    }
}

#[test]
fn a_worker_that_falls_silent_is_replaced_when_its_time_is_up() {
    run(81, async {
        let mut world = up(81, 3).await;
        let before = names(&world).await;
        let ill = before.first().unwrap().clone();
        let power = Power::over(&world);
        power.hold(&[vm(&world, &ill).unwrap()]);
        switch_off(&world, &ill);
        // Forty seconds until the cluster gives it up, five minutes that the check allows.
        pass(335).await;
        let machine = worker(&world, &ill).await.unwrap();
        assert!(machine["metadata"]["deletionTimestamp"].is_null() && !holds(&machine, "Ready"), "{machine:#}");
        world.restart().await;
        let took = until(&world, 3, 60, |seen| !seen.iter().any(|machine| name(machine) == ill)).await;
        assert!(took > 2, "{took}");
        world.restart().await;
        until(&world, 3, 400, all_ready(3)).await;
        let after = names(&world).await;
        assert_eq!((before.intersection(&after).count(), vm(&world, &ill)), (2, None), "the others stay");
        let marked = events(&world, "MachineMarkedUnhealthy").await;
        assert!(marked.len() == 1 && marked[0].contains("Condition Ready on Node is Unknown for more than 300 s"), "{marked:?}");
        assert_eq!(events(&world, "SuccessfulRemediation").await.len(), 1);
        assert!(events(&world, "RemediationRestricted").await.is_empty());
        let check = check(&world).await;
        let counts = ["expectedMachines", "currentHealthy", "remediationsAllowed"].map(|count| check["status"][count].as_u64());
        assert_eq!(counts, [Some(3), Some(3), Some(1)]);
        assert!(!holds(&set(&world).await, "Remediating"));
        assert!(workers(&world).await.iter().all(|machine| condition(machine, "OwnerRemediated").is_null()));
    });
}

#[test]
fn more_than_allowed_are_left_alone_and_told_until_enough_are_well_again() {
    run(82, async {
        let mut world = up(82, 3).await;
        let before: Vec<String> = names(&world).await.into_iter().collect();
        let power = Power::over(&world);
        let held: Vec<String> = before[..2].iter().map(|machine| vm(&world, machine).unwrap()).collect();
        power.hold(&held);
        before[..2].iter().for_each(|machine| switch_off(&world, machine));
        pass(1200).await;
        world.restart().await;
        pass(1200).await;
        assert_eq!(names(&world).await.into_iter().collect::<Vec<_>>(), before);
        let limit = "exceeds unhealthyLessThanOrEqualTo 40% (total: 3, unhealthy: 2)";
        let (reason, message) = told(&check(&world).await, "RemediationAllowed");
        assert!(reason == "TooManyUnhealthy" && message.ends_with(limit), "{message}");
        assert!(events(&world, "RemediationRestricted").await[0].ends_with(limit));
        for machine in workers(&world).await.iter().take(2) {
            assert_eq!(told(machine, "HealthCheckSucceeded").0, "UnhealthyNode");
            assert!(condition(machine, "OwnerRemediated").is_null(), "nobody is asked");
        }
        let (_, message) = told(&set(&world).await, "Remediating");
        assert_eq!(message, format!("* Machines {}, {}: Condition Ready on Node is Unknown for more than 300 s", before[0], before[1]));
        // One of them comes back: the other may go.
        power.hold(&held[1..]);
        until(&world, 3, 900, |seen| all_ready(3)(seen) && !seen.iter().any(|machine| name(machine) == before[1])).await;
        assert!(names(&world).await.contains(&before[0]) && names(&world).await.contains(&before[2]));
        assert_eq!(told(&check(&world).await, "RemediationAllowed").0, "RemediationAllowed");
    });
}

#[test]
fn a_person_excepts_a_machine_or_has_it_replaced_at_once() {
    run(83, async {
        let mut world = up(83, 3).await;
        let before: Vec<String> = names(&world).await.into_iter().collect();
        annotate(&world, &before[0], REMEDIATE, json!("")).await;
        pass(1).await;
        world.restart().await;
        until(&world, 3, 600, |seen| all_ready(3)(seen) && !seen.iter().any(|machine| name(machine) == before[0])).await;
        assert!(events(&world, "MachineMarkedUnhealthy").await[0].contains(REMEDIATE));
        // The excepted one is not replaced however ill it is, and is when it is excepted no longer.
        let power = Power::over(&world);
        power.hold(&[vm(&world, &before[1]).unwrap()]);
        annotate(&world, &before[1], SKIP, json!("")).await;
        switch_off(&world, &before[1]);
        pass(3600).await;
        let machine = worker(&world, &before[1]).await.unwrap();
        assert!(machine["metadata"]["deletionTimestamp"].is_null() && condition(&machine, "OwnerRemediated").is_null());
        assert_eq!(check(&world).await["status"]["expectedMachines"], 2);
        annotate(&world, &before[1], SKIP, Value::Null).await;
        until(&world, 3, 600, |seen| all_ready(3)(seen) && !seen.iter().any(|machine| name(machine) == before[1])).await;
    });
}

#[test]
fn what_is_deferred_is_taken_back_when_others_become_unhealthy() {
    run(84, async {
        let world = up(84, 5).await;
        let before: Vec<String> = names(&world).await.into_iter().collect();
        let deployment = format!("{GROUP}/machinedeployments/demo-workers");
        merge(&world.api(), &deployment, json!({"spec": {"remediation": {"maxInFlight": 0}}})).await;
        let power = Power::over(&world);
        power.hold(&[]);
        before[..2].iter().for_each(|machine| switch_off(&world, machine));
        pass(600).await;
        for machine in &before[..2] {
            let (reason, message) = told(&worker(&world, machine).await.unwrap(), "OwnerRemediated");
            assert!(reason == "RemediationDeferred" && message.ends_with("(spec.remediation.maxInFlight is 0)"), "{message}");
        }
        assert!(holds(&set(&world).await, "Remediating"));
        switch_off(&world, &before[2]);
        pass(600).await;
        merge(&world.api(), &deployment, json!({"spec": {"remediation": null}})).await;
        pass(600).await;
        assert_eq!(names(&world).await.into_iter().collect::<Vec<_>>(), before, "three of five are more than 40 %");
        for machine in workers(&world).await {
            assert!(condition(&machine, "OwnerRemediated").is_null());
        }
        power.free();
        until(&world, 5, 600, all_ready(5)).await;
        assert_eq!(names(&world).await.into_iter().collect::<Vec<_>>(), before);
    });
}

#[test]
fn replacements_that_never_join_end_and_a_person_is_told_what_to_do() {
    run(85, async {
        let mut world = up(85, 3).await;
        let before = names(&world).await;
        let power = Power::over(&world);
        power.hold(&[]);
        switch_off(&world, before.first().unwrap());
        let mut seen = before.clone();
        let is_spent = |machine: &Value| told(machine, "OwnerRemediated").0 == "RetryLimitReached";
        let mut minutes = 0;
        while !workers(&world).await.iter().any(is_spent) {
            pass(60).await;
            minutes += 1;
            seen.extend(names(&world).await);
            if minutes % 25 == 0 {
                world.restart().await;
            }
            assert!(minutes < 600, "{}", world.log());
        }
        assert_eq!(seen.difference(&before).count(), 5, "five replacements, one after another: {seen:?}");
        // Twenty minutes each to start; the back-off is shorter but for the last.
        assert!((115..200).contains(&minutes), "{minutes}");
        let last = workers(&world).await.into_iter().find(is_spent).unwrap();
        let (_, message) = told(&last, "OwnerRemediated");
        assert!(message.starts_with("5 times in a row Machines that MachineSet demo-workers-"), "{message}");
        assert!(message.ends_with(&format!("`kubectl annotate machine -n default {} {REMEDIATE}=`", name(&last))), "{message}");
        assert_eq!(told(&last, "HealthCheckSucceeded").0, "NodeStartupTimeout");
        assert_eq!(events(&world, "RetryLimitReached").await.len(), 1);
        assert!(told(&set(&world).await, "Remediating").1.contains("no more are replaced"));
        // Nothing more happens, after a restart as well.
        world.restart().await;
        pass(4 * 3600).await;
        assert_eq!(
            names(&world).await,
            seen.iter()
                .filter(|machine| before.contains(*machine) || **machine == name(&last))
                .filter(|machine| *machine != before.first().unwrap())
                .cloned()
                .collect()
        );
        // What stood in the way is gone: the last one starts by itself, lasts, and the count is forgotten.
        power.free();
        until(&world, 3, 600, all_ready(3)).await;
        assert!(set(&world).await["metadata"]["annotations"][ROUNDS].as_str().unwrap().starts_with("5 "));
        pass(3700).await;
        assert!(set(&world).await["metadata"]["annotations"][ROUNDS].is_null());
        assert!(worker(&world, &name(&last)).await.is_some());
    });
}

#[test]
fn a_person_has_it_tried_again_after_the_limit() {
    run(86, async {
        let world = up(86, 3).await;
        let set_name = name(&set(&world).await);
        let path = format!("{GROUP}/machinesets/{set_name}");
        let now = world.seams.clock.now_seconds();
        merge(&world.api(), &path, json!({"metadata": {"annotations": {ROUNDS: format!("5 {now}")}}})).await;
        // One that was made before the last round began belongs to it.
        let before = names(&world).await;
        let ill = before.first().unwrap().clone();
        destroy(&world, &ill);
        until(&world, 3, 600, |seen| all_ready(3)(seen) && !seen.iter().any(|machine| name(machine) == ill)).await;
        let ill = names(&world).await.difference(&before).next().unwrap().clone();
        destroy(&world, &ill);
        pass(600).await;
        assert_eq!(told(&worker(&world, &ill).await.unwrap(), "OwnerRemediated").0, "RetryLimitReached");
        annotate(&world, &ill, REMEDIATE, json!("")).await;
        until(&world, 3, 600, |seen| all_ready(3)(seen) && !seen.iter().any(|machine| name(machine) == ill)).await;
        assert!(set(&world).await["metadata"]["annotations"][ROUNDS].as_str().unwrap().starts_with("1 "));
    });
}

#[test]
fn a_machine_that_somebody_deletes_in_vcenter_is_told_and_replaced_at_once() {
    for restart_after in [None, Some(0), Some(40), Some(80), Some(120), Some(200), Some(1000), Some(3000), Some(20_000)] {
        run(87, async {
            let mut world = up(87, 3).await;
            let ill = names(&world).await.first().unwrap().clone();
            destroy(&world, &ill);
            if let Some(milliseconds) = restart_after {
                tokio::time::sleep(std::time::Duration::from_millis(milliseconds)).await;
                world.restart().await;
            }
            let took = until(&world, 3, 400, |seen| all_ready(3)(seen) && !seen.iter().any(|machine| name(machine) == ill)).await;
            assert!(took < 200, "{took}");
            let marked = events(&world, "MachineMarkedUnhealthy").await;
            assert!(marked.len() == 1 && marked[0].contains("no longer exists in vCenter"), "{marked:?}");
            // Its Node went with it.
            let nodes = workload(&world).get("/api/v1/nodes").await.unwrap().unwrap();
            assert_eq!(nodes["items"].as_array().unwrap().len(), 4, "{nodes:#}");
        });
    }
}

#[test]
fn without_a_check_a_machine_that_is_gone_is_told_and_stays() {
    run(88, async {
        let mut world = up(88, 2).await;
        let path = format!("{GROUP}/machinehealthchecks/{}", name(&check(&world).await));
        world.api().send(http::Method::DELETE, &path, None, None).await.unwrap();
        let ill = names(&world).await.first().unwrap().clone();
        destroy(&world, &ill);
        pass(10).await;
        for _ in 0..2 {
            let machine = worker(&world, &ill).await.unwrap();
            assert_eq!(machine["status"]["phase"], "Failed");
            let (reason, message) = told(&machine, "InfrastructureReady");
            assert!(message.contains("no longer exists in vCenter; it is not made again"), "{reason}: {message}");
            assert_eq!(machine["status"]["deprecated"]["v1beta1"]["failureReason"], "VirtualMachineLost");
            world.restart().await;
            pass(1200).await;
        }
        // As it says.
        world.api().send(http::Method::DELETE, &format!("{GROUP}/machines/{ill}"), None, None).await.unwrap();
        until(&world, 2, 600, all_ready(2)).await;
    });
}

#[test]
fn who_takes_the_check_away_takes_its_verdicts_away() {
    run(96, async {
        let world = up(96, 3).await;
        let deployment = format!("{GROUP}/machinedeployments/demo-workers");
        merge(&world.api(), &deployment, json!({"spec": {"remediation": {"maxInFlight": 0}}})).await;
        let ill = names(&world).await.first().unwrap().clone();
        annotate(&world, &ill, REMEDIATE, json!("")).await;
        pass(10).await;
        let machine = worker(&world, &ill).await.unwrap();
        assert_eq!(told(&machine, "OwnerRemediated").0, "RemediationDeferred");
        // Another selection is as good as none.
        let path = format!("{GROUP}/machinehealthchecks/{}", name(&check(&world).await));
        merge(&world.api(), &path, json!({"spec": {"selector": {"matchLabels": {"pool": "others"}}}})).await;
        pass(10).await;
        assert!(condition(&worker(&world, &ill).await.unwrap(), "OwnerRemediated").is_null());
        merge(&world.api(), &path, json!({"spec": {"selector": {"matchLabels": {"pool": "workers"}}}})).await;
        pass(10).await;
        assert_eq!(told(&worker(&world, &ill).await.unwrap(), "OwnerRemediated").0, "RemediationDeferred");
        world.api().send(http::Method::DELETE, &path, None, None).await.unwrap();
        pass(10).await;
        merge(&world.api(), &deployment, json!({"spec": {"remediation": null}})).await;
        pass(600).await;
        let machine = worker(&world, &ill).await.unwrap();
        assert!(holds(&machine, "Ready") && condition(&machine, "HealthCheckSucceeded").is_null(), "{machine:#}");
        assert!(workers(&world).await.iter().all(|machine| condition(machine, "HealthCheckSucceeded").is_null()));
    });
}

#[test]
fn a_machine_that_somebody_switches_off_is_switched_on_again() {
    run(89, async {
        let mut world = up(89, 3).await;
        let before = names(&world).await;
        let vms: BTreeSet<String> = world.simulator.truth().vms.iter().map(|vm| vm.id.0.clone()).collect();
        for (number, machine) in before.iter().enumerate() {
            switch_off(&world, machine);
            if number == 1 {
                world.restart().await;
            }
            pass(1).await;
        }
        until(&world, 3, 240, all_ready(3)).await;
        assert_eq!(names(&world).await, before);
        assert_eq!(world.simulator.truth().vms.iter().map(|vm| vm.id.0.clone()).collect::<BTreeSet<_>>(), vms);
        pass(900).await;
        assert_eq!(names(&world).await, before, "nothing is replaced");
        let told = events(&world, "PoweringOn").await;
        for machine in &before {
            assert!(told.iter().filter(|told| told.starts_with(&format!("powering on {machine} "))).count() >= 1, "{told:?}");
        }
    });
}

/// A person sets the machine back to before it first ran.
fn set_back(world: &World, machine: &str) {
    let person = world.simulator.vcenter().person();
    person.revert(&person.find(machine).unwrap()).unwrap();
    world.checker().person_acted(&world.simulator.truth());
}

#[test]
fn a_machine_that_somebody_sets_back_to_a_snapshot_starts_and_joins_again() {
    run(90, async {
        let mut world = up(90, 3).await;
        let before = names(&world).await;
        for machine in before.iter().take(2) {
            set_back(&world, machine);
            pass(1).await;
            world.restart().await;
        }
        until(&world, 3, 240, all_ready(3)).await;
        pass(900).await;
        assert_eq!(names(&world).await, before, "the same machines, with the same names in the cluster");
        assert!(all_ready(3)(&workers(&world).await));
        let nodes = workload(&world).get("/api/v1/nodes").await.unwrap().unwrap();
        assert_eq!(nodes["items"].as_array().unwrap().len(), 4, "{nodes:#}");
    });
}

/// What `describe` says: the tree, and the verdict.
async fn described(world: &World) -> (String, tree::Verdict) {
    let mut objects = Objects::default();
    for (group, version, kind, plural) in KINDS {
        let list = world.api().get(&format!("/apis/{group}/{version}/namespaces/default/{plural}")).await.unwrap().unwrap();
        for item in list["items"].as_array().unwrap() {
            objects.put(kind, item.clone());
        }
    }
    (tree(&objects, "demo").unwrap().draw(), tree::verdict(&objects, "demo"))
}

fn replace(files: &mut [(String, String)], from: &str, to: &str) {
    let text = files.iter_mut().map(|(_, text)| text).find(|text| text.contains(from)).unwrap();
    *text = text.replace(from, to);
}

const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

async fn held_back(world: &World) -> Vec<String> {
    let machines = list(world, "machines").await;
    machines.iter().map(|machine| told(machine, "NodeInitialized").1).filter(|told| !told.is_empty()).collect()
}

#[test]
fn a_node_that_waits_for_its_cloud_provider_names_the_secret_that_is_missing() {
    run(91, async {
        let without = |material: &mut Material| {
            let (settings, _) = material.workload[0].1.split_once("---\napiVersion: v1\nkind: Secret").unwrap();
            material.workload[0].1 = settings.to_owned();
        };
        let mut world = World::start(&Setup { edit: Some(without), ..Setup::new(91, 1, 2) }).await;
        world.up().await.unwrap();
        pass(45).await;
        let expected = "DaemonSet kube-system/vsphere-cloud-controller-manager needs Secret kube-system/cloud-provider-vsphere-credentials, which does not exist";
        for restart in [false, true] {
            let all = held_back(&world).await;
            assert_eq!(all.len(), 3, "{all:?}\n{}", world.log());
            for told in &all {
                assert!(told.contains("is held back since 08:00:") && told.contains(UNINITIALIZED) && told.ends_with(expected), "{told}");
            }
            let (drawn, verdict) = described(&world).await;
            assert!(drawn.contains("WaitingForCloudProvider") || drawn.contains("is held back since"), "{drawn}");
            assert!(verdict.is_ready && verdict.notes[0].ends_with(&format!("{expected} (and so are 2 more Nodes)")), "{verdict:?}");
            if !restart {
                world.restart().await;
                pass(120).await;
            }
        }
        // Nothing is replaced for it, and little is asked while it lasts.
        let inspections = || world.log().matches("workload inspect").count();
        let before = inspections();
        pass(3600).await;
        assert!((8..=13).contains(&(inspections() - before)), "{}", inspections() - before);
        // The Secret comes; what it held back goes on.
        let credentials = own_secret(&world);
        workload(&world)
            .send(http::Method::POST, "/api/v1/namespaces/kube-system/secrets", Some("application/json"), Some(&credentials))
            .await
            .unwrap();
        pass(60).await;
        assert_eq!(held_back(&world).await, Vec::<String>::new(), "{}", world.log());
        assert!(described(&world).await.1.notes.is_empty());
        let before = world.log().matches("workload inspect").count();
        pass(3600).await;
        assert_eq!(world.log().matches("workload inspect").count(), before, "nobody looks any more");
    });
}

/// The Secret that the cloud provider of the examples needs.
fn own_secret(world: &World) -> Value {
    let server = "vcenter.example.com";
    let login = &world.material.login;
    let data = json!({format!("{server}.username"): login.user, format!("{server}.password"): login.password});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cloud-provider-vsphere-credentials"}, "stringData": data})
}

#[test]
fn a_cloud_provider_that_does_not_tolerate_its_taint_is_told() {
    run(92, async {
        let without = |material: &mut Material| {
            let text = material.neighbours.get_mut("cpi.yaml").unwrap();
            let toleration = format!("      - key: {UNINITIALIZED}\n        operator: Exists\n");
            assert!(text.contains(&toleration));
            *text = text.replace(&toleration, "");
        };
        let world = World::start(&Setup { edit: Some(without), ..Setup::new(92, 1, 1) }).await;
        world.up().await.unwrap();
        pass(45).await;
        let all = held_back(&world).await;
        let expected = format!(
            "DaemonSet kube-system/vsphere-cloud-controller-manager does not tolerate the taint {UNINITIALIZED}:NoSchedule: add a toleration to its pods"
        );
        assert!(all.len() == 2 && all.iter().all(|told| told.ends_with(&expected)), "{all:?}");
    });
}

/// Configurations whose cluster has no pod network of its own.
fn without_network(material: &mut Material) {
    let patch = "      - op: add\n        path: /machine/kubelet/extraConfig\n";
    let none = "      - op: add\n        path: /cluster/network/cni\n        value:\n          name: none\n";
    replace(&mut material.files, patch, &format!("{none}{patch}"));
}

#[test]
fn a_cluster_without_a_pod_network_says_so_and_goes_on_when_it_comes() {
    run(93, async {
        let mut world = World::start(&Setup { edit: Some(without_network), ..Setup::new(93, 1, 1) }).await;
        assert!(tokio::time::timeout(std::time::Duration::from_secs(120), world.up()).await.is_err(), "no Node is ready without");
        let none = "has no pod network (CNI) since 08:00:";
        for restart in [false, true] {
            for machine in list(&world, "machines").await {
                for type_ in ["NodeReady", "NodeHealthy"] {
                    let (_, message) = told(&machine, type_);
                    assert!(message.contains("* Node.Ready: container runtime network not ready"), "{message}");
                    assert!(
                        message.contains(none) && message.contains("; none is installed: let the machine configuration bring one"),
                        "{message}"
                    );
                }
            }
            let (_, verdict) = described(&world).await;
            assert!(verdict.waiting.iter().any(|line| line.contains(none) && line.contains("none is installed")), "{verdict:?}");
            if !restart {
                world.restart().await;
                pass(60).await;
            }
        }
        // One that does not tolerate what is on the Nodes gets no pod.
        let mut network = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "calico-node"}, "spec": {"selector": {"matchLabels": {"app": "calico"}},
            "template": {"metadata": {"labels": {"app": "calico"}}, "spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "i"}]}}}});
        let path = "/apis/apps/v1/namespaces/kube-system/daemonsets";
        let api = workload(&world);
        api.send(http::Method::POST, path, Some("application/json"), Some(&network)).await.unwrap();
        pass(330).await;
        for machine in list(&world, "machines").await {
            let (_, message) = told(&machine, "NodeReady");
            assert!(message.contains("; DaemonSet kube-system/calico-node does not tolerate the taint node"), "{message}");
        }
        network["spec"]["template"]["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        merge(&api, &format!("{path}/calico-node"), json!({"spec": network["spec"]})).await;
        pass(60).await;
        for machine in list(&world, "machines").await {
            assert!(holds(&machine, "NodeReady"), "{machine:#}");
        }
    });
}

#[test]
fn a_node_that_comes_back_without_its_machine_is_told_and_left_alone() {
    run(94, async {
        let mut world = up(94, 2).await;
        let gone = names(&world).await.first().unwrap().clone();
        let api = workload(&world);
        let old = api.get(&format!("/api/v1/nodes/{gone}")).await.unwrap().unwrap();
        world.checker().person_writes("machines", "default", &gone);
        world.api().send(http::Method::DELETE, &format!("{GROUP}/machines/{gone}"), None, None).await.unwrap();
        until(&world, 2, 600, |seen| all_ready(2)(seen) && !seen.iter().any(|machine| name(machine) == gone)).await;
        assert!(api.get(&format!("/api/v1/nodes/{gone}")).await.unwrap().is_none());
        // Its virtual machine was kept by somebody and is started: the kubelet registers under the old name, with the old UUID.
        let zombie = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": gone, "labels": old["metadata"]["labels"]},
            "status": {"nodeInfo": old["status"]["nodeInfo"]}});
        api.send(http::Method::POST, "/api/v1/nodes", Some("application/json"), Some(&zombie)).await.unwrap();
        pass(60).await;
        assert!(described(&world).await.1.notes.is_empty(), "it might be a machine that joins");
        world.restart().await;
        pass(65).await;
        let cluster = list(&world, "clusters").await.remove(0);
        let (_, message) = told(&cluster, "StrayNodes");
        assert!(message.starts_with(&format!("Node {gone} belongs to no Machine of this Cluster (it joined at ")), "{message}");
        assert!(events(&world, "StrayNodes").await.contains(&message));
        let (_, verdict) = described(&world).await;
        assert!(verdict.is_ready && verdict.notes == [message], "{verdict:?}");
        pass(1200).await;
        let kept = api.get(&format!("/api/v1/nodes/{gone}")).await.unwrap().unwrap();
        assert!(kept["metadata"]["annotations"].is_null(), "nobody has touched it: {kept:#}");
        assert!(all_ready(2)(&workers(&world).await));
        api.send(http::Method::DELETE, &format!("/api/v1/nodes/{gone}"), None, None).await.unwrap();
        pass(5).await;
        assert!(described(&world).await.1.notes.is_empty());
    });
}

fn definition(kind: &str) -> Value {
    let plural = format!("{}s", kind.to_lowercase());
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.repair.example.com")},
        "spec": {"group": "repair.example.com", "scope": "Namespaced", "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
}

#[test]
fn a_template_whose_kind_is_not_served_is_told_and_one_that_is_replaces_from_outside() {
    run(95, async {
        let mut world = up(95, 3).await;
        let path = format!("{GROUP}/machinehealthchecks/{}", name(&check(&world).await));
        let reference = json!({"apiVersion": "repair.example.com/v1", "kind": "RebootTemplate", "name": "reboot"});
        merge(&world.api(), &path, json!({"spec": {"remediation": {"templateRef": reference}}})).await;
        let ill = names(&world).await.first().unwrap().clone();
        annotate(&world, &ill, REMEDIATE, json!("")).await;
        pass(600).await;
        let (reason, message) = told(&check(&world).await, "ExternalRemediationTemplateAvailable");
        assert_eq!(reason, "ExternalRemediationTemplateNotFound");
        assert!(message.starts_with("the API serves no kind RebootTemplate in group repair.example.com"), "{message}");
        let machine = worker(&world, &ill).await.unwrap();
        assert!(condition(&machine, "OwnerRemediated").is_null() && machine["metadata"]["deletionTimestamp"].is_null());
        let (_, verdict) = described(&world).await;
        assert!(
            verdict.waiting[0].contains(&format!("Machine {ill} is unhealthy")) && verdict.waiting[0].contains("serves no kind"),
            "{verdict:?}"
        );
        // Somebody installs it.
        for kind in ["RebootTemplate", "Reboot"] {
            let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
            world.api().send(http::Method::POST, path, Some("application/json"), Some(&definition(kind))).await.unwrap();
        }
        let repairs = "/apis/repair.example.com/v1/namespaces/default";
        let template = json!({"apiVersion": "repair.example.com/v1", "kind": "RebootTemplate", "metadata": {"name": "reboot"},
            "spec": {"template": {"spec": {"times": 3}}}});
        let made =
            world.api().send(http::Method::POST, &format!("{repairs}/reboottemplates"), Some("application/json"), Some(&template)).await;
        made.unwrap();
        pass(70).await;
        world.restart().await;
        pass(5).await;
        let request = world.api().get(&format!("{repairs}/reboots/{ill}")).await.unwrap().unwrap();
        assert_eq!((&request["spec"]["times"], &request["metadata"]["ownerReferences"][0]["kind"]), (&json!(3), &json!("Machine")));
        let machine = worker(&world, &ill).await.unwrap();
        assert!(condition(&machine, "OwnerRemediated").is_null(), "the owner is not asked as well");
        assert!(told(&machine, "ExternallyRemediated").1.starts_with("Waiting for Reboot "), "{machine:#}");
        // It is well again: nobody has to do anything.
        annotate(&world, &ill, REMEDIATE, Value::Null).await;
        pass(10).await;
        assert!(world.api().get(&format!("{repairs}/reboots/{ill}")).await.unwrap().is_none());
        let machine = worker(&world, &ill).await.unwrap();
        assert!(condition(&machine, "ExternallyRemediated").is_null() && holds(&machine, "Ready"));
    });
}
