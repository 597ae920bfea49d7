//! What changing commands list with `--dry-run`, against what then happens.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use http::Method;
use serde_json::{Value, json};
use talosphere::cli::{Cli, Command};
use talosphere::commands::{delete, rollout, scale};
use talosphere::host::session::Session;
use talosphere::output::Printer;
use talosphere::problem::Problem;
use talosphere::seams::Seams;

use super::world::{PATIENCE, Setup, World, run};

const GROUP: &str = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default";
const DEPLOYMENT: &str = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/machinedeployments/demo-workers";
/// How often a world is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Types a line; what it printed, and how it ended.
async fn typed(world: &World, line: &str) -> (String, Result<(), Problem>) {
    let text = Arc::new(Mutex::new(String::new()));
    let sink = text.clone();
    let printer = Printer::tapped(world.seams.clock.clone(), move |line| sink.lock().unwrap().push_str(&format!("{line}\n")));
    let seams = Seams { printer, ..world.seams.clone() };
    let cli = Cli::try_parse_from(format!("talosphere {line}").split_whitespace()).unwrap();
    let outcome = match cli.command {
        Command::Scale(args) => scale::preview(&args, &world.api(), &seams).await,
        Command::Delete(args) => delete::preview(&args, &world.api(), &seams).await,
        Command::Rollout(args) => rollout::carry_out(&args.command, &mut Session::over(world.api()), &seams).await,
        other => panic!("{other:?}"),
    };
    let text = text.lock().unwrap().clone();
    (text, outcome)
}

async fn listed(world: &World, line: &str) -> Value {
    let (text, outcome) = typed(world, line).await;
    outcome.unwrap_or_else(|problem| panic!("{line}: {problem}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}\n{text}"))
}

/// Machines of a list, in its order.
fn machines(list: &Value) -> Vec<String> {
    list["machines"].as_array().unwrap().iter().map(|going| going["machine"].as_str().unwrap().to_owned()).collect()
}

async fn present(world: &World) -> BTreeSet<String> {
    let list = world.api().get(&format!("{GROUP}/machines")).await.unwrap().unwrap();
    list["items"].as_array().unwrap().iter().map(|machine| machine["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Every object's generation and every VM: what a dry run must leave as it is.
async fn state(world: &World) -> Vec<String> {
    let mut state = Vec::new();
    for path in [
        format!("{GROUP}/machines"),
        format!("{GROUP}/machinedeployments"),
        "/apis/controlplane.cluster.x-k8s.io/v1alpha3/namespaces/default/taloscontrolplanes".to_owned(),
        "/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/default/vspheremachinetemplates".to_owned(),
        "/apis/bootstrap.cluster.x-k8s.io/v1beta1/namespaces/default/talosconfigtemplates".to_owned(),
    ] {
        let list = world.api().get(&path).await.unwrap().unwrap();
        for item in list["items"].as_array().unwrap() {
            state.push(format!("{path} {} {} {}", item["metadata"]["name"], item["metadata"]["generation"], item["spec"]));
        }
    }
    state.extend(world.simulator.truth().vms.iter().map(|vm| format!("{} {}", vm.id.0, vm.name)));
    state
}

async fn patch(world: &World, path: &str, change: &Value) {
    world.api().send(Method::PATCH, path, Some("application/merge-patch+json"), Some(change)).await.unwrap();
}

async fn until(world: &World, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
        tokio::time::sleep(LOOK).await;
        if is_so().await {
            return;
        }
    }
    panic!("{what}\n{}", world.log());
}

async fn world_of(seed: u64, control_planes: u32, workers: u32) -> World {
    let world = World::start(&Setup::new(seed, control_planes, workers)).await;
    world.up().await.unwrap_or_else(|problem| panic!("{problem}\n{}", world.log()));
    world
}

#[test]
fn what_dry_runs_list_is_what_goes_and_nothing_changes_before() {
    run(141, async {
        let world = world_of(141, 3, 3).await;
        let before = state(&world).await;
        let cluster = listed(&world, "delete cluster demo --dry-run -o json").await;
        let all = machines(&cluster);
        assert_eq!(all.iter().cloned().collect::<BTreeSet<_>>(), present(&world).await);
        let roles: Vec<&str> = cluster["machines"].as_array().unwrap().iter().map(|going| going["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["worker", "worker", "worker", "control-plane", "control-plane", "control-plane"]);
        let vms: BTreeSet<String> =
            cluster["machines"].as_array().unwrap().iter().map(|going| going["vm"].as_str().unwrap().to_owned()).collect();
        let truth: BTreeSet<String> =
            world.simulator.truth().vms.iter().filter(|vm| all.contains(&vm.name)).map(|vm| vm.name.clone()).collect();
        assert_eq!(vms, truth, "the VMs by the names that vCenter has");
        let fewer = listed(&world, "scale machinedeployment/demo-workers --replicas 1 --dry-run -o json").await;
        assert_eq!(machines(&fewer).len(), 2, "{fewer}");
        let (text, outcome) = typed(&world, "scale tcp/demo-control-plane --replicas 2 --dry-run").await;
        outcome.unwrap();
        assert!(
            text.contains("1 Machines of TalosControlPlane demo-control-plane would be deleted")
                && text.contains("  1. Machine demo-control-plane-"),
            "{text}"
        );
        assert!(
            text.contains("whichever leads etcd") && text.contains("warning: 2 control planes tolerate no more failures than 1"),
            "{text}"
        );
        let (text, outcome) = typed(&world, "scale md/demo-workers --replicas 5 --dry-run").await;
        outcome.unwrap();
        assert!(text.contains("2 Machines would be made for MachineDeployment demo-workers"), "{text}");
        assert!(typed(&world, "scale tcp/demo-control-plane --replicas 0 --dry-run").await.1.unwrap_err().to_string().contains("TS112"));
        assert!(typed(&world, "delete md none --dry-run").await.1.unwrap_err().to_string().contains("TS114"));
        let restart = listed(&world, "rollout restart md/demo-workers --dry-run -o json").await;
        assert_eq!(machines(&restart).len(), 3, "{restart}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(state(&world).await, before);
        let staying: BTreeSet<String> = all.into_iter().filter(|name| !machines(&fewer).contains(name)).collect();
        patch(&world, DEPLOYMENT, &json!({"spec": {"replicas": 1}})).await;
        until(&world, "two workers go", async || present(&world).await.len() == 4).await;
        assert_eq!(present(&world).await, staying, "those that were listed went");
    });
}
