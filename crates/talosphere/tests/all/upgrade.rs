//! Upgrades in whole worlds on paused time, and what changing commands list with `--dry-run`, against what then happens.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use http::Method;
use serde_json::{Value, json};
use talosphere::cli::{Cli, Command};
use talosphere::commands::demo::Material;
use talosphere::commands::{delete, rollout, scale, upgrade};
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
        Command::Upgrade(args) if args.dry_run => upgrade::preview(&args, args.output.output, &world.api(), &seams).await,
        Command::Upgrade(args) => match upgrade::wanted(&args) {
            Ok(wanted) => upgrade::carry_out(&args, &wanted, PATIENCE, &mut Session::over(world.api()), &seams).await,
            Err(problem) => Err(problem),
        },
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
            text.contains("1 Machine of TalosControlPlane demo-control-plane would be deleted")
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

/// A VM template of the next Talos release beside the one that the cluster is made from.
fn with_next_template(material: &mut Material) {
    let spare = "
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: VSphereMachineTemplate
metadata:
  name: spare
spec:
  template:
    spec:
      cloneMode: linkedClone
      server: ${VSPHERE_SERVER}
      datacenter: ${VSPHERE_DATACENTER}
      datastore: ${VSPHERE_DATASTORE}
      folder: ${VSPHERE_FOLDER}
      resourcePool: \"${VSPHERE_RESOURCE_POOL}\"
      template: talos-1.10
      network:
        devices:
        - networkName: ${VSPHERE_NETWORK}
          dhcp4: true
";
    material.files.push(("spare.yaml".to_owned(), spare.to_owned()));
}

async fn ready(setup: Setup) -> World {
    let world = World::start(&Setup { edit: Some(with_next_template), ..setup }).await;
    world.up().await.unwrap_or_else(|problem| panic!("{problem}\n{}", world.log()));
    world
}

const UPGRADE: &str = "upgrade demo --kubernetes 1.33.0 --talos v1.10 --template talos-1.10 --yes";

async fn get(world: &World, path: &str) -> Value {
    world.api().get(path).await.unwrap().unwrap()
}

const PLANE: &str = "/apis/controlplane.cluster.x-k8s.io/v1alpha3/namespaces/default/taloscontrolplanes/demo-control-plane";
const TEMPLATES: &str = "/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/default/vspheremachinetemplates";
const CONFIGS: &str = "/apis/bootstrap.cluster.x-k8s.io/v1beta1/namespaces/default/talosconfigtemplates";

async fn names(world: &World, path: &str) -> Vec<String> {
    let list = get(world, path).await;
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Everything is as [`UPGRADE`] asks, and nothing was made twice.
async fn is_upgraded(world: &World) {
    let plane = get(world, PLANE).await;
    assert_eq!(plane["spec"]["version"], "v1.33.0");
    assert_eq!(plane["spec"]["infrastructureTemplate"]["name"], "demo-control-plane-talos-1-10");
    assert_eq!(plane["spec"]["controlPlaneConfig"]["controlplane"]["talosVersion"], "v1.10");
    let workers = get(world, DEPLOYMENT).await["spec"]["template"]["spec"].clone();
    assert_eq!((&workers["version"], &workers["infrastructureRef"]["name"]), (&json!("v1.33.0"), &json!("demo-workers-talos-1-10")));
    assert_eq!(workers["bootstrap"]["configRef"]["name"], "demo-workers-v1-10");
    let expected = ["demo-control-plane", "demo-control-plane-talos-1-10", "demo-workers", "demo-workers-talos-1-10", "spare"];
    assert_eq!(names(world, TEMPLATES).await, expected);
    assert_eq!(names(world, CONFIGS).await, ["demo-workers", "demo-workers-v1-10"]);
    let machines = get(world, &format!("{GROUP}/machines")).await["items"].clone();
    for machine in machines.as_array().unwrap() {
        assert_eq!((&machine["spec"]["version"], &machine["status"]["phase"]), (&json!("v1.33.0"), &json!("Running")), "{machine}");
    }
}

#[test]
fn control_planes_are_upgraded_before_workers_and_exactly_those_that_were_listed() {
    run(142, async {
        let world = ready(Setup::new(142, 3, 1)).await;
        let before = state(&world).await;
        let old = present(&world).await;
        let list = listed(&world, &format!("{UPGRADE} --dry-run -o json")).await;
        assert_eq!(machines(&list).into_iter().collect::<BTreeSet<_>>(), old, "{list}");
        let told = list.to_string();
        for words in [
            "Version v1.32.4, v1.33.0 required; Infrastructure template demo-control-plane, demo-control-plane-talos-1-10 required; Configuration for Talos v1.9, v1.10 required",
            "room for one more VM (4 CPUs, 8192 MiB of memory, 20 GiB of disk)",
            "1 spare address of InClusterIPPool demo-control-plane, which has",
            "VSphereMachineTemplate demo-workers-talos-1-10 is made",
            "workers are changed when the last control plane is",
        ] {
            assert!(told.contains(words), "{words}\n{told}");
        }
        assert_eq!((list["machines"][3]["role"].as_str(), &list["blocks"]), (Some("worker"), &json!([])), "{list}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(state(&world).await, before, "a dry run changes nothing");

        let worker = old.iter().find(|name| name.starts_with("demo-workers")).unwrap();
        let look = async {
            // While a control plane of the old version is there, every worker is the old one.
            loop {
                tokio::time::sleep(LOOK).await;
                let present = present(&world).await;
                if old.iter().any(|name| name != worker && present.contains(name)) {
                    let workers: Vec<&String> = present.iter().filter(|name| name.starts_with("demo-workers")).collect();
                    assert_eq!(workers, [worker], "workers wait for the control plane");
                }
            }
        };
        let (text, outcome) = tokio::select! { done = typed(&world, UPGRADE) => done, () = look => unreachable!() };
        outcome.unwrap_or_else(|problem| panic!("{problem}\n{text}"));
        assert!(text.contains("Cluster demo is upgraded to Kubernetes v1.33.0, every machine made from talos-1.10"), "{text}");
        is_upgraded(&world).await;
        assert!(present(&world).await.is_disjoint(&old), "every machine is another one");

        let after = state(&world).await;
        typed(&world, UPGRADE).await.1.unwrap();
        let list = listed(&world, &format!("{UPGRADE} --dry-run -o json")).await;
        assert_eq!((machines(&list).len(), &list["changes"]), (0, &json!([])), "{list}");
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(state(&world).await, after, "the second time there is nothing to do");
    });
}

#[test]
fn an_upgrade_that_dies_anywhere_is_continued_by_the_same_command() {
    run(143, async {
        let mut world = ready(Setup::new(143, 3, 1)).await;
        let mut lives = 0_u64;
        loop {
            let (text, outcome) = tokio::select! {
                (text, outcome) = typed(&world, UPGRADE) => (text, Some(outcome)),
                () = tokio::time::sleep(Duration::from_millis(4_300 + 1_700 * (lives % 7))) => (String::new(), None),
            };
            if let Some(outcome) = outcome {
                outcome.unwrap_or_else(|problem| panic!("{problem}\n{text}"));
                break;
            }
            lives += 1;
            assert!(lives < 200, "{}", world.log());
            world.restart().await;
        }
        assert!(lives >= 10, "it died only {lives} times");
        is_upgraded(&world).await;
    });
}

#[test]
fn an_upgrade_is_stopped_where_it_is_and_goes_on_when_asked_to() {
    run(144, async {
        let world = ready(Setup::new(144, 3, 1)).await;
        let nothing = typed(&world, "upgrade demo --abort").await.1.unwrap_err().to_string();
        assert!(nothing.contains("TS309") && nothing.contains("no upgrade of Cluster demo is under way"), "{nothing}");
        let old = present(&world).await;
        let stop = async {
            until(&world, "one is replaced", async || !old.is_subset(&present(&world).await)).await;
            let (text, outcome) = typed(&world, "upgrade demo --abort").await;
            outcome.unwrap();
            assert!(
                text.contains("stops where it is") && text.contains("talosphere rollout resume taloscontrolplane/demo-control-plane"),
                "{text}"
            );
            std::future::pending::<()>().await;
        };
        let (_, outcome) = tokio::select! { done = typed(&world, UPGRADE) => done, () = stop => unreachable!() };
        let problem = outcome.unwrap_err().to_string();
        assert!(
            problem.contains("TS307") && problem.contains("talosphere rollout resume taloscontrolplane/demo-control-plane"),
            "{problem}"
        );
        let problem = typed(&world, UPGRADE).await.1.unwrap_err().to_string();
        assert!(problem.contains("TS309") && problem.contains("TalosControlPlane demo-control-plane is paused"), "{problem}");
        let stands = present(&world).await;
        tokio::time::sleep(Duration::from_secs(1800)).await;
        assert_eq!(present(&world).await, stands, "nothing comes or goes");
        let paused = listed(&world, "rollout status tcp/demo-control-plane --watch=false -o json").await;
        assert_eq!((&paused["isPaused"], &paused["isComplete"]), (&json!(true), &json!(false)), "{paused}");
        assert!(typed(&world, "rollout pause tcp/demo-control-plane").await.1.unwrap_err().to_string().contains("TS308"));
        assert!(typed(&world, "rollout undo tcp/demo-control-plane").await.1.unwrap_err().to_string().contains("TS112"));
        let left = listed(&world, "rollout resume tcp/demo-control-plane --dry-run -o json").await;
        let old_planes = stands.iter().filter(|name| old.contains(*name) && name.starts_with("demo-control-plane")).count();
        assert_eq!(machines(&left).len(), old_planes, "{left}");
        typed(&world, "rollout resume tcp/demo-control-plane").await.1.unwrap();
        // Somebody else's change is not mixed into the one that is under way.
        let problem = typed(&world, "upgrade demo --kubernetes v1.33.1 --yes").await.1.unwrap_err().to_string();
        assert!(
            problem.contains("TS309") && problem.contains("another change of TalosControlPlane demo-control-plane is under way"),
            "{problem}"
        );
        typed(&world, "rollout status tcp/demo-control-plane").await.1.unwrap();
        typed(&world, UPGRADE).await.1.unwrap();
        is_upgraded(&world).await;
    });
}

#[test]
fn what_cannot_be_upgraded_is_refused_and_stays_as_it_is() {
    run(145, async {
        let world = ready(Setup::new(145, 1, 1)).await;
        let before = state(&world).await;
        for (line, code, words) in [
            ("upgrade demo --kubernetes v1.34.0 --yes", "TS309", "a minor version is skipped"),
            ("upgrade demo --kubernetes v1.32.3 --yes", "TS309", "lower than v1.32.4"),
            ("upgrade demo --kubernetes latest --yes", "TS112", "is not a version"),
            ("upgrade demo --kubernetes 1.33 --yes", "TS112", "is not a version"),
            ("upgrade demo --kubernetes v1.33.0 --talos v1 --template talos-1.10 --yes", "TS112", "--talos v1 cannot be used"),
            ("upgrade demo --talos v1.8 --template talos-1.10 --yes", "TS309", "Talos v1.8 is lower than v1.9"),
            ("upgrade demo --kubernetes v1.33.0 --template none --yes", "TS404", "none"),
            ("upgrade demo --kubernetes v1.33.0 --template none --dry-run", "TS404", "none"),
            ("upgrade other --kubernetes v1.33.0 --yes", "TS114", "no Cluster other"),
        ] {
            let problem = typed(&world, line).await.1.unwrap_err().to_string();
            assert!(problem.contains(code) && problem.contains(words) && problem.contains("remedy"), "{line}: {problem}");
        }
        assert_eq!(state(&world).await, before);
    });
}
