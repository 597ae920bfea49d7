//! A worker template that changes, in whole worlds on paused time: within surge and unavailability, whatever happens in the middle.
//!
//! The rule checker looks on in every world: no address is used twice, nothing is left behind, no number lies outside.

use std::time::Duration;

use clap::Parser as _;
use http::Method;
use serde_json::{Value, json};
use talosphere::cli::{Cli, Command};
use talosphere::commands::rollout::carry_out;
use talosphere::host::session::Session;
use talosphere::problem::Problem;

use super::world::{PATIENCE, Setup, World, run};

const GROUP: &str = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default";
const DEPLOYMENT: &str = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/machinedeployments/demo-workers";
const TEMPLATES: &str = "/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/default/vspheremachinetemplates";
/// How often a world is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What a rollout has to keep to.
#[derive(Clone, Copy)]
struct Limits {
    wanted: usize,
    most: usize,
    available: usize,
}

/// How the workers stand.
#[derive(Debug)]
struct Workers {
    /// Machines, and how many of them are not being deleted and available.
    machines: usize,
    available: usize,
    /// Machines that are not being deleted, of the template of this name.
    new: usize,
    vms: usize,
}

async fn list(world: &World, path: &str) -> Vec<Value> {
    world.api().get(path).await.unwrap().unwrap()["items"].as_array().cloned().unwrap_or_default()
}

async fn deployment(world: &World) -> Value {
    world.api().get(DEPLOYMENT).await.unwrap().unwrap()
}

fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let list = object["status"]["conditions"].as_array().unwrap();
    list.iter().find(|condition| condition["type"] == type_).unwrap_or(&Value::Null)
}

fn template_of(machine: &Value, objects: &[Value]) -> String {
    let name = &machine["spec"]["infrastructureRef"]["name"];
    let object = objects.iter().find(|object| object["metadata"]["name"] == *name);
    object
        .map(|object| object["metadata"]["annotations"]["cluster.x-k8s.io/cloned-from-name"].as_str().unwrap_or_default().to_owned())
        .unwrap_or_default()
}

async fn workers(world: &World, template: &str) -> Workers {
    let machines = list(world, &format!("{GROUP}/machines")).await;
    let objects = list(world, &TEMPLATES.replace("vspheremachinetemplates", "vspheremachines")).await;
    let ours: Vec<&Value> = machines.iter().filter(|machine| machine["metadata"]["labels"]["pool"] == "workers").collect();
    let staying = || ours.iter().filter(|machine| machine["metadata"]["deletionTimestamp"].is_null());
    let is_available =
        |machine: &&&Value| machine["status"]["conditions"].is_array() && condition(machine, "Available")["status"] == "True";
    Workers {
        machines: ours.len(),
        available: staying().filter(is_available).count(),
        new: staying().filter(|machine| template_of(machine, &objects) == template).count(),
        vms: world.simulator.truth().vms.iter().filter(|vm| !vm.is_template && vm.name.starts_with("demo-workers")).count(),
    }
}

async fn up(world: &World) {
    world.up().await.unwrap_or_else(|problem| panic!("{problem}\n{}", world.log()));
}

async fn patch(world: &World, path: &str, change: &Value) {
    world.api().send(Method::PATCH, path, Some("application/merge-patch+json"), Some(change)).await.unwrap();
}

/// A copy of the workers' template under another name, with other hardware.
async fn make_template(world: &World, name: &str) {
    let mut template = world.api().get(&format!("{TEMPLATES}/demo-workers")).await.unwrap().unwrap();
    template["metadata"] = json!({"name": name, "namespace": "default"});
    template["spec"]["template"]["spec"]["numCPUs"] = json!(2);
    world.api().send(Method::POST, TEMPLATES, Some("application/json"), Some(&template)).await.unwrap();
}

/// Makes the template, and has the workers made from it from now on.
async fn change_to(world: &World, name: &str) {
    make_template(world, name).await;
    patch(world, DEPLOYMENT, &json!({"spec": {"template": {"spec": {"infrastructureRef": {"name": name}}}}})).await;
}

/// Looks until `is_done`, and at every look that the limits hold.
async fn watch(world: &World, template: &str, limits: Limits, is_done: impl Fn(&Workers) -> bool) -> Workers {
    let looks = PATIENCE.as_millis() / LOOK.as_millis();
    for _ in 0..looks {
        tokio::time::sleep(LOOK).await;
        let seen = workers(world, template).await;
        assert!(seen.machines <= limits.most && seen.vms <= limits.most, "{seen:?}\n{}", world.log());
        assert!(seen.available >= limits.available, "{seen:?}\n{}", world.log());
        if is_done(&seen) {
            return seen;
        }
    }
    panic!("not done: {:?}\n{}\n{}", workers(world, template).await, deployment(world).await["status"], world.log());
}

fn all_new(limits: Limits) -> impl Fn(&Workers) -> bool {
    move |seen| (seen.machines, seen.new, seen.available, seen.vms) == (limits.wanted, limits.wanted, limits.wanted, limits.wanted)
}

/// A subcommand as it is typed.
async fn rollout(world: &World, line: &str) -> Result<(), Problem> {
    let cli = Cli::try_parse_from(format!("talosphere rollout {line}").split_whitespace()).unwrap();
    let Command::Rollout(args) = cli.command else { panic!("{line}") };
    carry_out(&args.command, &mut Session::over(world.api()), &world.seams).await
}

#[test]
fn three_workers_are_replaced_one_by_one() {
    run(61, async {
        let world = World::start(&Setup::new(61, 1, 3)).await;
        up(&world).await;
        let old: Vec<String> = world.simulator.truth().vms.iter().map(|vm| vm.id.0.clone()).collect();
        change_to(&world, "demo-workers-2").await;
        let limits = Limits { wanted: 3, most: 4, available: 3 };
        watch(&world, "demo-workers-2", limits, all_new(limits)).await;
        let vms = world.simulator.truth().vms;
        let stayed = vms.iter().filter(|vm| vm.name.starts_with("demo-workers") && old.contains(&vm.id.0)).count();
        assert_eq!(stayed, 0, "every old VM is gone");
        rollout(&world, "status md/demo-workers --timeout 60s").await.unwrap();
        let told = deployment(&world).await;
        assert_eq!(told["metadata"]["annotations"]["machinedeployment.clusters.x-k8s.io/revision"], "2");
        let counts = ["replicas", "upToDateReplicas", "availableReplicas", "readyReplicas"].map(|name| told["status"][name].as_i64());
        assert_eq!(counts, [Some(3); 4]);
        assert_eq!(condition(&told, "RollingOut")["status"], "False");
        // `up` with what is there now would change the template back, and follows that.
        world.up().await.unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(workers(&world, "demo-workers").await.new, 3);
    });
}

#[test]
fn without_surge_one_goes_before_one_comes() {
    run(62, async {
        let world = World::start(&Setup::new(62, 1, 3)).await;
        up(&world).await;
        let limits = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
        patch(&world, DEPLOYMENT, &json!({"spec": {"rollout": {"strategy": limits}}})).await;
        change_to(&world, "demo-workers-2").await;
        let limits = Limits { wanted: 3, most: 3, available: 2 };
        watch(&world, "demo-workers-2", limits, all_new(limits)).await;
    });
}

#[test]
fn a_paused_rollout_stands_still_and_is_neither_restarted_nor_taken_back() {
    run(63, async {
        let world = World::start(&Setup::new(63, 1, 3)).await;
        up(&world).await;
        rollout(&world, "pause machinedeployment/demo-workers --dry-run").await.unwrap();
        change_to(&world, "demo-workers-2").await;
        let limits = Limits { wanted: 3, most: 4, available: 3 };
        watch(&world, "demo-workers-2", limits, |seen| seen.new == 2).await;
        rollout(&world, "pause machinedeployment/demo-workers").await.unwrap();
        tokio::time::sleep(Duration::from_secs(300)).await;
        let paused = workers(&world, "demo-workers-2").await;
        assert!((1..=2).contains(&paused.new) && paused.machines <= 4, "{paused:?}");
        tokio::time::sleep(Duration::from_secs(900)).await;
        assert_eq!(workers(&world, "demo-workers-2").await.new, paused.new, "it stands still");
        for (line, code) in [
            ("pause md/demo-workers", "TS308"),
            ("undo md/demo-workers", "TS308"),
            ("restart md/demo-workers", "TS308"),
            ("status md/demo-workers --timeout 60s", "TS307"),
        ] {
            let problem = rollout(&world, line).await.unwrap_err().to_string();
            assert!(
                problem.contains(code) && problem.contains("talosphere rollout resume machinedeployment/demo-workers"),
                "{line}: {problem}"
            );
        }
        rollout(&world, "resume md/demo-workers --dry-run").await.unwrap();
        assert_eq!(deployment(&world).await["spec"]["paused"], true, "a dry run changes nothing");
        rollout(&world, "resume md/demo-workers").await.unwrap();
        assert!(rollout(&world, "resume md/demo-workers").await.unwrap_err().to_string().contains("TS308"));
        watch(&world, "demo-workers-2", limits, all_new(limits)).await;
    });
}

#[test]
fn an_undo_in_the_middle_goes_back() {
    run(64, async {
        let world = World::start(&Setup::new(64, 1, 3)).await;
        up(&world).await;
        assert!(rollout(&world, "undo md/demo-workers").await.unwrap_err().to_string().contains("no former revision"));
        change_to(&world, "demo-workers-2").await;
        let limits = Limits { wanted: 3, most: 4, available: 3 };
        watch(&world, "demo-workers-2", limits, |seen| seen.new == 2).await;
        rollout(&world, "undo md/demo-workers --to-revision 1 --dry-run").await.unwrap();
        assert_eq!(deployment(&world).await["spec"]["template"]["spec"]["infrastructureRef"]["name"], "demo-workers-2");
        assert!(rollout(&world, "undo md/demo-workers --to-revision 7").await.unwrap_err().to_string().contains("no revision 7"));
        rollout(&world, "undo md/demo-workers").await.unwrap();
        watch(&world, "demo-workers", limits, all_new(limits)).await;
        rollout(&world, "history md/demo-workers").await.unwrap();
        let revision = &deployment(&world).await["metadata"]["annotations"]["machinedeployment.clusters.x-k8s.io/revision"].clone();
        assert_eq!(revision, "3", "it moves on");
        // The same machines again, but new ones.
        let uids = || async {
            list(&world, &format!("{GROUP}/machines")).await.iter().map(|machine| machine["metadata"]["uid"].clone()).collect::<Vec<_>>()
        };
        let before = uids().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        rollout(&world, "restart md/demo-workers").await.unwrap();
        rollout(&world, "status md/demo-workers -o json").await.unwrap();
        let after = uids().await;
        assert_eq!(after.iter().filter(|uid| before.contains(uid)).count(), 1, "only the control plane stays");
    });
}

#[test]
fn a_scale_during_a_rollout_is_met() {
    for (wanted, available) in [(5, 3), (1, 1)] {
        run(65, async {
            let world = World::start(&Setup::new(65, 1, 3)).await;
            up(&world).await;
            change_to(&world, "demo-workers-2").await;
            let limits = Limits { wanted: 3, most: 4, available: 3 };
            watch(&world, "demo-workers-2", limits, |seen| seen.new == 2).await;
            patch(&world, DEPLOYMENT, &json!({"spec": {"replicas": wanted}})).await;
            let limits = Limits { wanted, most: wanted.max(3) + 1, available };
            watch(&world, "demo-workers-2", limits, all_new(limits)).await;
        });
    }
}

#[test]
fn a_deployment_deleted_in_the_middle_leaves_nothing() {
    run(66, async {
        let world = World::start(&Setup::new(66, 1, 3)).await;
        up(&world).await;
        change_to(&world, "demo-workers-2").await;
        let limits = Limits { wanted: 3, most: 4, available: 3 };
        watch(&world, "demo-workers-2", limits, |seen| seen.new == 2).await;
        world.api().send(Method::DELETE, DEPLOYMENT, None, None).await.unwrap();
        let gone = Limits { wanted: 0, most: 4, available: 0 };
        watch(&world, "demo-workers-2", gone, |seen| seen.machines == 0 && seen.vms == 0).await;
        assert_eq!(list(&world, &format!("{GROUP}/machinesets")).await, [] as [Value; 0]);
    });
}

#[test]
fn a_process_that_dies_in_the_middle_goes_on_within_the_limits() {
    let limits = Limits { wanted: 3, most: 4, available: 3 };
    let begin = || async {
        let world = World::start(&Setup::new(67, 1, 3)).await;
        up(&world).await;
        change_to(&world, "demo-workers-2").await;
        world
    };
    // How long it takes, and so where to die.
    let took = run(67, async {
        let world = begin().await;
        let begun = world.seams.clock.instant();
        watch(&world, "demo-workers-2", limits, all_new(limits)).await;
        world.seams.clock.instant().saturating_duration_since(begun)
    });
    run(67, async {
        let mut world = begin().await;
        for _ in 0..8 {
            let pause = took / 9;
            let until = world.seams.clock.instant() + pause;
            watch_for(&world, limits, until).await;
            world.restart().await;
        }
        watch(&world, "demo-workers-2", limits, all_new(limits)).await;
        assert_eq!(list(&world, &format!("{GROUP}/machinesets")).await.len(), 2, "no set is made twice");
    });
}

async fn watch_for(world: &World, limits: Limits, until: tokio::time::Instant) {
    watch(world, "demo-workers-2", limits, |_| world.seams.clock.instant() >= until).await;
}

#[test]
fn machines_are_replaced_on_deletion_only_when_the_user_says_so() {
    run(68, async {
        let world = World::start(&Setup::new(68, 1, 2)).await;
        up(&world).await;
        patch(&world, DEPLOYMENT, &json!({"spec": {"rollout": {"strategy": {"type": "OnDelete", "rollingUpdate": null}}}})).await;
        change_to(&world, "demo-workers-2").await;
        tokio::time::sleep(Duration::from_secs(1200)).await;
        assert_eq!(workers(&world, "demo-workers-2").await.new, 0);
        let told = condition(&deployment(&world).await, "RollingOut")["message"].as_str().unwrap().to_owned();
        assert!(told.contains("strategy OnDelete") && told.contains("VSphereMachineTemplate/demo-workers-2 required"), "{told}");
        for done in 1..=2 {
            let machines = list(&world, &format!("{GROUP}/machines")).await;
            let objects = list(&world, &TEMPLATES.replace("vspheremachinetemplates", "vspheremachines")).await;
            let old = machines
                .iter()
                .find(|machine| machine["metadata"]["labels"]["pool"] == "workers" && template_of(machine, &objects) == "demo-workers");
            let name = old.unwrap()["metadata"]["name"].as_str().unwrap();
            world.api().send(Method::DELETE, &format!("{GROUP}/machines/{name}"), None, None).await.unwrap();
            let limits = Limits { wanted: 2, most: 2, available: 1 };
            watch(&world, "demo-workers-2", limits, |seen| seen.new == done && seen.available == 2).await;
        }
    });
}

#[test]
fn a_rollout_that_cannot_come_up_costs_nothing_that_runs_and_says_why() {
    run(69, async {
        let world = World::start(&Setup::new(69, 1, 3)).await;
        up(&world).await;
        patch(&world, DEPLOYMENT, &json!({"spec": {"template": {"spec": {"infrastructureRef": {"name": "missing"}}}}})).await;
        tokio::time::sleep(Duration::from_secs(1800)).await;
        let seen = workers(&world, "missing").await;
        assert_eq!((seen.machines, seen.available), (3, 3), "{seen:?}");
        let told = condition(&deployment(&world).await, "RollingOut")["message"].as_str().unwrap().to_owned();
        assert!(told.contains("waiting: VSphereMachineTemplate missing does not exist"), "{told}");
        let problem = rollout(&world, "status md/demo-workers --timeout 30s").await.unwrap_err().to_string();
        assert!(problem.contains("TS303") && problem.contains("VSphereMachineTemplate missing does not exist"), "{problem}");
    });
}

/// Every worker is replaced, or as many as can be in this time: what a defect of rollouts shows itself in.
pub async fn workers_change(world: &World) {
    change_to(world, "demo-workers-2").await;
    tokio::time::sleep(Duration::from_secs(600)).await;
}
