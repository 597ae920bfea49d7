//! A checker that never fails proves nothing: every defect that can be planted makes it report the rule that the defect names, and the
//! same run without the defect is silent.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use runtime::defects::{Defect, Defects};
use serde_json::{Value, json};
use simulator::hooks::{self, Phase, Verdict};
use simulator::rules::Violation;

use super::drains;
use super::rollouts;
use super::world::{Setup, World, run};

/// How long machines may take to go, in steps of ten seconds of virtual time.
const PATIENCE: usize = 120;

/// What happens in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scenario {
    /// A cluster of three and one is brought up.
    Up,
    /// A storage driver gives the worker a volume; then the workers are deleted.
    WorkersGo,
    /// Nothing can be cloned and a person makes a machine of the very name; then the cluster is deleted.
    NameTaken,
    /// vCenter's first answer to a clone is lost.
    AnswerLost,
    /// The management server is killed when the cluster is ready.
    Killed,
    /// A worker goes whose pod a budget holds.
    HeldWorkerGoes,
    /// Two of three control planes go whose pods budgets hold.
    HeldControlPlanesGo,
    /// Two workers are replaced.
    WorkersChange,
}

/// The rule that a defect breaks, the run that shows it, and the next defect. Without a wildcard: a new defect needs a scenario.
const fn case(defect: Defect) -> (u8, Scenario, Option<Defect>) {
    match defect {
        Defect::BootstrapTwice => (1, Scenario::Up, Some(Defect::GoBeforeLeaving)),
        Defect::GoBeforeLeaving => (2, Scenario::HeldControlPlanesGo, Some(Defect::CloneWithoutMarker)),
        Defect::CloneWithoutMarker => (3, Scenario::Up, Some(Defect::ForgetVm)),
        Defect::ForgetVm => (3, Scenario::WorkersGo, Some(Defect::DestroyByName)),
        Defect::DestroyByName => (4, Scenario::NameTaken, Some(Defect::AllocateTaken)),
        Defect::AllocateTaken => (5, Scenario::Up, Some(Defect::AllocateGateway)),
        Defect::AllocateGateway => (5, Scenario::Up, Some(Defect::RegenerateSecrets)),
        Defect::RegenerateSecrets => (7, Scenario::Up, Some(Defect::SecretInEvent)),
        Defect::SecretInEvent => (7, Scenario::Up, Some(Defect::AcknowledgeEarly)),
        Defect::AcknowledgeEarly => (8, Scenario::Killed, Some(Defect::DrainForever)),
        Defect::DrainForever => (9, Scenario::HeldWorkerGoes, Some(Defect::IgnoreBudgets)),
        Defect::IgnoreBudgets => (9, Scenario::HeldWorkerGoes, Some(Defect::LeaveUndrained)),
        Defect::LeaveUndrained => (9, Scenario::HeldControlPlanesGo, Some(Defect::SurgeBeyond)),
        Defect::SurgeBeyond => (10, Scenario::WorkersChange, Some(Defect::UnavailableBeyond)),
        Defect::UnavailableBeyond => (10, Scenario::WorkersChange, Some(Defect::NonsenseReplicas)),
        Defect::NonsenseReplicas => (10, Scenario::WorkersChange, Some(Defect::CloneAfresh)),
        Defect::CloneAfresh => (12, Scenario::AnswerLost, None),
    }
}

fn all() -> impl Iterator<Item = Defect> {
    std::iter::successors(Some(Defect::BootstrapTwice), |defect| case(*defect).2)
}

/// Workers leave a cluster that is ready.
async fn delete_workers(world: &World) {
    let person = world.simulator.vcenter().person();
    let worker = world.simulator.truth().vms.into_iter().find(|vm| vm.name.starts_with("demo-workers") && !vm.is_template).unwrap();
    person.attach_volume(&worker.id, 5).unwrap();
    world.checker().person_acted(&world.simulator.truth());
    delete(world, "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/machinedeployments/demo-workers").await;
    for _ in 0..PATIENCE {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let list = world.api().get("/apis/cluster.x-k8s.io/v1beta2/namespaces/default/machines").await.unwrap().unwrap();
        let machines = list["items"].as_array().unwrap();
        if machines.iter().all(|machine| !machine["metadata"]["name"].as_str().unwrap().starts_with("demo-workers")) {
            return;
        }
    }
    panic!("the workers' Machines are still there\n{}", world.log());
}

const SHADOWS: &str = "/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/default/vspherevms";

/// The objects that stand for virtual machines, once `is_wanted` holds for them; until then nothing else happens.
async fn shadows(world: &World, is_wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    for _ in 0..PATIENCE {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let list = world.api().get(SHADOWS).await.unwrap().unwrap();
        let items = list["items"].as_array().unwrap();
        if is_wanted(items) {
            return items.clone();
        }
    }
    panic!("in vain\n{}", world.log());
}

/// The first machine cannot be cloned; a person makes one of its name, and everything is deleted.
async fn take_name(world: &World) {
    world.simulator.hooks().on(|call| {
        let is_clone = call.face == hooks::VCENTER && call.method == "CloneVM_Task" && call.phase == Phase::Before;
        if is_clone { Verdict::Fault("NoDiskSpace".to_owned()) } else { Verdict::Proceed }
    });
    let is_failing = |items: &[Value]| items.iter().any(|item| item["status"]["conditions"].to_string().contains("CloningFailed"));
    let made = tokio::select! {
        biased;
        made = shadows(world, is_failing) => made,
        done = world.up() => panic!("{done:?} although nothing can be cloned"),
    };
    let name = made[0]["metadata"]["name"].as_str().unwrap();
    world.simulator.vcenter().person().create_vm("/dc-east/vm/clusters", name).unwrap();
    delete(world, "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/clusters/demo").await;
    shadows(world, <[Value]>::is_empty).await;
}

async fn delete(world: &World, path: &str) {
    let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    world.api().send(Method::DELETE, path, Some("application/json"), Some(&body)).await.unwrap();
}

/// Brings a cluster up; ends early when a rule is broken.
async fn up(world: &World) {
    tokio::select! {
        biased;
        _ = world.watch.found(&world.seams.clock) => {}
        done = world.up() => done.unwrap_or_else(|problem| panic!("{problem}\n{}", world.log())),
    }
}

fn findings(scenario: Scenario, defects: Defects) -> Vec<Violation> {
    run(31, async {
        let workers = match scenario {
            Scenario::WorkersChange => 2,
            Scenario::WorkersGo | Scenario::HeldWorkerGoes => 1,
            _ => 0,
        };
        let control_planes = if matches!(scenario, Scenario::Up | Scenario::HeldControlPlanesGo) { 3 } else { 1 };
        let mut world = World::start(&Setup { defects, ..Setup::new(31, control_planes, workers) }).await;
        if scenario == Scenario::AnswerLost {
            let is_lost = AtomicBool::new(false);
            world.simulator.hooks().on(move |call| {
                let is_clone = call.face == hooks::VCENTER && call.method == "CloneVM_Task" && call.phase == Phase::After;
                if is_clone && !is_lost.swap(true, Ordering::Relaxed) { Verdict::DropReply } else { Verdict::Proceed }
            });
        }
        if scenario == Scenario::NameTaken {
            take_name(&world).await;
            return world.findings();
        }
        up(&world).await;
        if world.checker().violations().is_empty() {
            match scenario {
                Scenario::Up | Scenario::AnswerLost | Scenario::NameTaken => {}
                Scenario::WorkersGo => delete_workers(&world).await,
                Scenario::Killed => world.restart().await,
                Scenario::HeldWorkerGoes => drains::held_worker_goes(&world).await,
                Scenario::WorkersChange => rollouts::workers_change(&world).await,
                Scenario::HeldControlPlanesGo => drains::held_control_planes_go(&world).await,
            }
        }
        world.findings()
    })
}

#[test]
fn every_defect_is_noticed_as_the_rule_it_breaks() {
    let mut unnoticed = Vec::new();
    for defect in all() {
        let (rule, scenario, _) = case(defect);
        let found = findings(scenario, Defects::planted([defect]));
        if !found.iter().any(|violation| violation.rule == rule) {
            unnoticed.push(format!("{defect:?} must break rule {rule}: {found:?}"));
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

#[test]
fn without_a_defect_the_same_runs_are_silent() {
    let scenarios: BTreeSet<Scenario> = all().map(|defect| case(defect).1).collect();
    for scenario in scenarios {
        assert_eq!(findings(scenario, Defects::none()), [], "{scenario:?}");
    }
}

#[test]
#[should_panic(expected = "rules are broken")]
fn a_world_in_which_a_rule_is_broken_fails_its_test() {
    run(32, async {
        let defects = Defects::planted([Defect::AllocateGateway]);
        let world = World::start(&Setup { defects, ..Setup::new(32, 1, 0) }).await;
        up(&world).await;
    });
}
