//! An etcd that lost its quorum, in whole worlds on paused time: what is offered, what is refused, and that what is carried out loses no more
//! than was said, whatever dies in the middle. The rule checker looks on: there is never a second etcd.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use http::Method;
use serde_json::{Value, json};
use simulator::hooks::{self, Phase, Verdict};
use simulator::hypervisor::VmId;
use simulator::node::etcd::EtcdCluster;
use talosphere::cli::{Cli, Command, EtcdCommand, RepairCommand, TalosCommand};
use talosphere::commands::{clusters, repair, snapshot};
use talosphere::host::session::Session;
use talosphere::host::wiring;
use talosphere::output::Printer;
use talosphere::problem::{Code, Problem};
use talosphere::seams::Seams;
use tempfile::TempDir;

use super::drains::{pass, workload};
use super::healing::{Power, destroy, switch_off, vm};
use super::kills::{self, At};
use super::transcript::Transcript;
use super::world::{Setup, World, run};

const MACHINES: &str = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/machines";
const PLANE: &str = "/apis/controlplane.cluster.x-k8s.io/v1alpha3/namespaces/default/taloscontrolplanes/demo-control-plane";
const NOTES: &str = "/api/v1/namespaces/default/configmaps";
const RECOVERY: &str = "talosphere.dev/etcd-recovery";

/// A cluster, and a place for files.
struct Lab {
    world: World,
    folder: TempDir,
}

impl Lab {
    async fn new(seed: u64, control_planes: u32) -> Self {
        let world = World::start(&Setup::new(seed, control_planes, 1)).await;
        world.up().await.unwrap_or_else(|problem| panic!("{problem}\n{}", world.log()));
        Self { world, folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Control planes, by name.
    async fn planes(&self) -> Vec<String> {
        let list = self.world.api().get(MACHINES).await.unwrap().unwrap();
        let of_plane = |machine: &&Value| machine["metadata"]["labels"]["cluster.x-k8s.io/control-plane"].is_string();
        let machines = list["items"].as_array().unwrap().iter().filter(of_plane);
        machines.map(|machine| machine["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Types a line that ends with `--yes` or `--dry-run`; what it printed, and how it ended.
    async fn typed(&self, line: &str) -> (String, Result<(), Problem>) {
        let text = Arc::new(Mutex::new(String::new()));
        let sink = text.clone();
        let printer = Printer::tapped(self.world.seams.clock.clone(), move |line| sink.lock().unwrap().push_str(&format!("{line}\n")));
        let seams = Seams { printer, ..self.world.seams.clone() };
        let outcome = typed(&self.world, &self.file("recoveries"), line, &seams).await;
        let text = text.lock().unwrap().clone();
        (text, outcome)
    }

    async fn ok(&self, line: &str) -> String {
        let (text, outcome) = self.typed(line).await;
        outcome.unwrap_or_else(|problem| panic!("{line}: {problem}\n{text}\n{}", self.world.log()));
        text
    }

    async fn fails(&self, line: &str, code: Code) -> String {
        let (text, outcome) = self.typed(line).await;
        let problem = outcome.expect_err(&text);
        assert_eq!(problem.code, code, "{problem}");
        problem.to_string()
    }

    async fn snapshot(&self, name: &str) -> PathBuf {
        let file = self.file(name);
        let machines = clusters::machines(&self.world.api(), "default", "demo").await.unwrap();
        let way = repair::look::Way::to(&self.world.api(), "default", "demo", &self.world.seams).await.unwrap();
        let cli = Cli::try_parse_from(["talosphere", "talos", "-c", "demo", "etcd", "snapshot", file.to_str().unwrap()]).unwrap();
        let Command::Talos(talos) = cli.command else { panic!() };
        let TalosCommand::Etcd { command: EtcdCommand::Snapshot(wanted) } = talos.command else { panic!() };
        let dialer = wiring::nodes(&self.world.seams);
        snapshot::run(&wanted, &machines[..1], &dialer, &way.identity, &self.world.seams).await.unwrap();
        file
    }

    fn etcd(&self) -> EtcdCluster {
        let mut all = self.world.simulator.truth().nodes.etcd;
        assert_eq!(all.len(), 1, "{}", self.world.log());
        all.remove(0)
    }

    /// All are healthy voters again, on three machines, and nothing of the repair is left.
    async fn is_whole(&self, count: usize) {
        let etcd = self.etcd();
        assert_eq!((etcd.voters(), etcd.healthy_voters()), (count, count));
        let annotations = &self.world.api().get(PLANE).await.unwrap().unwrap()["metadata"]["annotations"];
        assert!(annotations[RECOVERY].is_null() && annotations["talosphere.dev/etcd-power-on"].is_null(), "{annotations}");
        let vms = self.world.simulator.truth().vms.iter().filter(|vm| vm.name.starts_with("demo-control-plane") && !vm.is_template).count();
        assert_eq!((self.planes().await.len(), vms), (count, count));
    }
}

async fn typed(world: &World, folder: &Path, line: &str, seams: &Seams) -> Result<(), Problem> {
    let cli = Cli::try_parse_from(format!("talosphere repair etcd demo {line}").split_whitespace()).unwrap();
    let Command::Repair(args) = cli.command else { panic!("{line}") };
    let RepairCommand::Etcd(args) = args.command;
    let kept = repair::kept(&args)?;
    let mut session = Session::over(world.api());
    repair::preview(&args, kept.as_ref(), &session, seams).await?;
    if args.dry_run {
        return Ok(());
    }
    repair::carry_out(&args, kept.as_ref(), folder, Duration::from_secs(7200), &mut session, seams).await
}

/// Something that a user stores in the cluster.
async fn note(world: &World, name: &str) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    workload(world).send(Method::POST, NOTES, Some("application/json"), Some(&object)).await.unwrap();
}

async fn notes(world: &World) -> BTreeSet<String> {
    let list = workload(world).get(NOTES).await.unwrap().unwrap();
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn is_noted(notes: &BTreeSet<String>, expected: &[&str]) -> bool {
    expected.iter().all(|name| notes.contains(*name))
}

#[test]
fn from_the_survivor_when_two_of_three_are_gone() {
    run(301, async {
        let lab = Lab::new(301, 3).await;
        note(&lab.world, "before").await;
        let planes = lab.planes().await;
        destroy(&lab.world, &planes[1]);
        destroy(&lab.world, &planes[2]);
        pass(120).await;
        let shown = lab.ok("--dry-run").await;
        for words in ["has lost its quorum", "--power-on (refused)", "1 of 3 voters can come back, and 2 are needed", "its machine is gone"]
        {
            assert!(shown.contains(words), "{words}\n{shown}");
        }
        assert!(shown.contains(&format!("--from-member {} (recommended)", planes[0])), "{shown}");
        let old = lab.etcd().id;
        let told = lab.ok("--yes").await;
        assert!(told.contains("leads again") && told.contains("is whole again, with 3 members"), "{told}");
        lab.is_whole(3).await;
        assert_ne!(lab.etcd().id, old);
        assert!(is_noted(&notes(&lab.world).await, &["before"]), "nothing that the survivor had is lost");
        let now = lab.planes().await;
        assert!(now.contains(&planes[0]) && !now.contains(&planes[1]) && !now.contains(&planes[2]), "{now:?}");
        // What is stored from here on stays.
        note(&lab.world, "after").await;
        pass(1800).await;
        lab.is_whole(3).await;
        assert!(is_noted(&notes(&lab.world).await, &["before", "after"]));
        let refused = lab.fails("--yes", Code::EtcdHasQuorum).await;
        assert!(refused.contains("TS310"), "{refused}");
    });
}

#[test]
fn switched_on_when_all_are_off() {
    run(302, async {
        let lab = Lab::new(302, 3).await;
        note(&lab.world, "before").await;
        let power = Power::over(&lab.world);
        power.hold(&[]);
        let planes = lab.planes().await;
        planes.iter().for_each(|plane| switch_off(&lab.world, plane));
        pass(300).await;
        let shown = lab.ok("--dry-run").await;
        assert!(shown.contains("--power-on (recommended)") && shown.contains("loses: nothing"), "{shown}");
        let old = lab.etcd().id;
        power.free();
        let told = lab.ok("--yes").await;
        assert!(told.contains("has its quorum again; nothing was lost"), "{told}");
        lab.is_whole(3).await;
        assert_eq!((lab.etcd().id, lab.planes().await), (old, planes));
        assert!(is_noted(&notes(&lab.world).await, &["before"]));
    });
}

#[test]
fn what_cannot_be_switched_on_is_given_up_only_after_it_was_tried() {
    run(303, async {
        let lab = Lab::new(303, 3).await;
        let power = Power::over(&lab.world);
        let planes = lab.planes().await;
        let held: Vec<String> = planes[1..].iter().map(|plane| vm(&lab.world, plane).unwrap()).collect();
        power.hold(&held);
        planes[1..].iter().for_each(|plane| switch_off(&lab.world, plane));
        pass(60).await;
        let member = format!("--from-member {} --yes", planes[0]);
        let refused = lab.fails(&member, Code::RepairRefused).await;
        assert!(refused.contains("try that first") && refused.ends_with("talosphere repair etcd demo --power-on"), "{refused}");
        assert_eq!(lab.etcd().members().count(), 3, "nothing was changed");
        let told = lab.fails("--yes", Code::NotReadyInTime).await;
        assert!(told.contains(&planes[1]) && told.contains("NoDiskSpace"), "{told}");
        let told = lab.ok(&member).await;
        assert!(told.contains(&format!("{} is given up: its machine is off", planes[1])), "{told}");
        lab.is_whole(3).await;
        assert!(held.iter().all(|gone| lab.world.simulator.truth().vms.iter().all(|vm| vm.id.0 != *gone)), "they can never come back");
    });
}

#[test]
fn off_the_disk_where_etcd_does_not_hand_out_a_snapshot() {
    run(312, async {
        let lab = Lab::new(312, 3).await;
        note(&lab.world, "before").await;
        let planes = lab.planes().await;
        destroy(&lab.world, &planes[1]);
        destroy(&lab.world, &planes[2]);
        pass(120).await;
        lab.world.simulator.hooks().on(|call| match call.face == hooks::TALOS && call.method == "EtcdSnapshot" {
            true => Verdict::Fault("Unavailable".to_owned()),
            false => Verdict::Proceed,
        });
        lab.ok("--yes").await;
        lab.is_whole(3).await;
        assert!(is_noted(&notes(&lab.world).await, &["before"]));
    });
}

#[test]
fn machines_that_run_and_are_out_of_reach_are_not_given_up() {
    run(313, async {
        let lab = Lab::new(313, 3).await;
        // Nobody here reaches the nodes; among themselves they are well.
        lab.world.simulator.hooks().on(|call| match call.face == hooks::TALOS && call.phase == Phase::Before {
            true => Verdict::Fault("Unavailable".to_owned()),
            false => Verdict::Proceed,
        });
        pass(60).await;
        let file = lab.file("etcd.db");
        std::fs::write(&file, include_bytes!("../../../talos/tests/data/etcd-3.5.db")).unwrap();
        let shown = lab.ok("--dry-run").await;
        assert!(shown.contains("whether etcd has its quorum is not known") && shown.contains("--power-on (recommended)"), "{shown}");
        lab.fails("--yes", Code::NotReadyInTime).await;
        let told = lab.fails(&format!("--from-snapshot {} --yes", file.display()), Code::SnapshotRefused).await;
        assert!(told.contains("another cluster"), "{told}");
        let shown = lab.typed("--dry-run").await.0;
        assert!(shown.contains("may have the quorum among themselves"), "{shown}");
        assert_eq!(lab.etcd().healthy_voters(), 3);
    });
}

#[test]
fn from_a_snapshot_when_nothing_else_is_left() {
    for (seed, count) in [(304, 3), (305, 1)] {
        run(seed, async {
            let lab = Lab::new(seed, count).await;
            note(&lab.world, "before").await;
            let file = lab.snapshot("etcd.db").await;
            note(&lab.world, "after").await;
            for plane in lab.planes().await {
                destroy(&lab.world, &plane);
            }
            pass(300).await;
            let told = lab.fails("--yes", Code::RepairRefused).await;
            assert!(told.ends_with("talosphere repair etcd demo --from-snapshot FILE"), "{told}");
            let told = lab.ok(&format!("--from-snapshot {} --yes", file.display())).await;
            assert!(told.contains("loses: everything after revision"), "{told}");
            lab.is_whole(count as usize).await;
            let notes = notes(&lab.world).await;
            assert!(is_noted(&notes, &["before"]) && !notes.contains("after"), "{notes:?}");
        });
    }
}

#[test]
fn what_would_lose_more_or_is_of_another_cluster_is_refused_and_nothing_is_changed() {
    run(306, async {
        let lab = Lab::new(306, 3).await;
        let file = lab.snapshot("etcd.db").await;
        let other = Lab::new(307, 1).await.snapshot("other.db").await;
        let others = lab.file("other.db");
        // The other lab's folder is gone with it.
        let bytes = std::fs::read(&other).ok();
        std::fs::write(&others, bytes.unwrap_or_default()).unwrap();
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(lab.file("cut.db"), &whole[..whole.len() - 4096]).unwrap();
        std::fs::write(lab.file("text.db"), "no database").unwrap();
        let from = |name: &str| format!("--from-snapshot {} --yes", lab.file(name).display());
        let told = lab.fails(&from("etcd.db"), Code::EtcdHasQuorum).await;
        assert!(told.contains("everything since its data was written would be lost"), "{told}");
        let planes = lab.planes().await;
        destroy(&lab.world, &planes[1]);
        destroy(&lab.world, &planes[2]);
        pass(120).await;
        let before = (lab.etcd(), lab.planes().await, annotations(&lab.world).await);
        for (name, code, words) in [
            ("cut.db", Code::SnapshotRefused, "its SHA-256 is not that of its content"),
            ("text.db", Code::SnapshotRefused, "it breaks off: 11 bytes"),
            ("none.db", Code::SnapshotRefused, "it cannot be read: No such file"),
            ("etcd.db", Code::RepairRefused, "has at least as much: use --from-member"),
        ] {
            let told = lab.fails(&from(name), code).await;
            assert!(told.contains(words) && told.contains("remedy: "), "{told}");
        }
        let told = lab.fails(&format!("--from-member {} --yes", planes[1]), Code::RepairRefused).await;
        assert!(told.contains("does not answer"), "{told}");
        let told = lab.fails("--power-on --yes", Code::RepairRefused).await;
        assert!(told.contains("2 are needed"), "{told}");
        assert_eq!((lab.etcd(), lab.planes().await, annotations(&lab.world).await), before);
    });
}

async fn annotations(world: &World) -> Value {
    world.api().get(PLANE).await.unwrap().unwrap()["metadata"]["annotations"].clone()
}

#[test]
fn a_snapshot_of_another_cluster_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("theirs.db");
    run(308, async {
        let file = Lab::new(308, 1).await;
        std::fs::copy(file.snapshot("etcd.db").await, &theirs).unwrap();
    });
    run(309, async {
        let lab = Lab::new(309, 1).await;
        let planes = lab.planes().await;
        destroy(&lab.world, &planes[0]);
        pass(120).await;
        let told = lab.fails(&format!("--from-snapshot {} --yes", theirs.display()), Code::SnapshotRefused).await;
        assert!(told.contains("is a snapshot of another cluster") && told.contains("kube-root-ca.crt"), "{told}");
        assert_eq!(lab.planes().await, planes);
        assert!(annotations(&lab.world).await[RECOVERY].is_null());
    });
}

#[test]
fn the_same_command_goes_on_wherever_it_was_ended() {
    for milliseconds in [50, 1500, 3500, 12_000, 25_000] {
        run(310, async {
            let mut lab = Lab::new(310, 3).await;
            note(&lab.world, "before").await;
            let planes = lab.planes().await;
            destroy(&lab.world, &planes[0]);
            destroy(&lab.world, &planes[2]);
            pass(120).await;
            let mut died = 0;
            // Ended again and again, each time a little later; the controllers die with it.
            for round in 1..40 {
                let ended = tokio::time::timeout(Duration::from_millis(milliseconds * round), lab.typed("--yes")).await;
                match ended {
                    Ok((_, Ok(()))) => break,
                    Ok((text, Err(problem))) if problem.code == Code::EtcdHasQuorum => {
                        // It was ended after it was done, but before all had joined again.
                        assert!(text.contains("has its quorum"), "{text}");
                        break;
                    }
                    Ok((text, Err(problem))) => panic!("{milliseconds} ms, round {round}: {problem}\n{text}\n{}", lab.world.log()),
                    Err(_) => died += 1,
                }
                lab.world.restart().await;
            }
            assert!(died > 0, "{milliseconds}");
            for _ in 0..1200 {
                if lab.etcd().healthy_voters() == 3 && lab.planes().await.len() == 3 {
                    break;
                }
                pass(1).await;
            }
            pass(60).await;
            lab.is_whole(3).await;
            assert!(is_noted(&notes(&lab.world).await, &["before"]), "{milliseconds}");
            let recovered = lab.world.simulator.truth().nodes.bootstraps.iter().filter(|call| call.recovered.is_some()).count();
            assert_eq!(recovered, 1, "etcd begins anew once, {milliseconds}");
        });
    }
}

/// Two control planes are deleted in vCenter; which one is left.
fn lose_two(world: &kills::World) -> String {
    let person = world.simulator.vcenter().person();
    let vms = world.simulator.truth().vms;
    let mut planes: Vec<_> = vms.iter().filter(|vm| vm.name.starts_with("demo-control-plane") && !vm.is_template).collect();
    // In the order of their addresses, as the command lists them.
    let address = |vm: &VmId| {
        world.simulator.truth().nodes.machines.iter().find(|machine| machine.vm == *vm).map(|machine| machine.addresses.clone())
    };
    planes.sort_by_key(|vm| address(&vm.id));
    planes[1..].iter().for_each(|vm| person.delete(&vm.id).unwrap());
    planes[0].name.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_it_is_typed_and_killed_on_the_way() {
    let mut world = kills::World::start(&["CONTROL_PLANE_MACHINE_COUNT=3", "WORKER_MACHINE_COUNT=1"]).await;
    world.survive(kills::UP, &[]).await;
    let repair = ["repair", "etcd", "demo", "-n", "team", "--yes", "--timeout", "120s"];
    lose_two(&world);
    // Killed before and after whatever cannot be taken back.
    let calls = [
        ("Reset", Phase::Before),
        ("Reset", Phase::After),
        ("EtcdRecover", Phase::Before),
        ("Bootstrap", Phase::Before),
        ("Bootstrap", Phase::After),
    ];
    let kills: Vec<At> = calls.into_iter().map(|(method, phase)| At::Call(kills::T, method, phase)).collect();
    world.survive(&repair, &kills).await;
    world.rest("after the repair", 4);
    let calls = world.simulator.truth().nodes.bootstraps;
    assert_eq!(calls.iter().filter(|call| call.recovered.is_some() && call.made.is_some()).count(), 1);

    let shell = &world.shell;
    let mut transcript = Transcript::new(shell);
    let mut type_it = |line: &str, code: i32| {
        let output = tokio::task::block_in_place(|| shell.run(line));
        let (out, err) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
        assert_eq!(output.status.code(), Some(code), "$ {line}\n{out}{err}");
        // What is waited for on the way is seen or not, as it happens.
        let told: Vec<&str> = err.lines().filter(|line| !line.contains("waiting for ") && !line.contains("controllers stopped")).collect();
        transcript.add(line, &out, &told.join("\n"));
        out
    };
    type_it("talosphere talos -c demo --namespace team etcd snapshot yesterday.db", 0);
    type_it("talosphere repair etcd demo -n team --from-snapshot yesterday.db --yes", 1);
    lose_two(&world);
    type_it("talosphere repair etcd demo -n team --dry-run", 0);
    type_it("talosphere repair etcd demo -n team --from-snapshot yesterday.db --yes", 1);
    type_it("talosphere repair etcd demo -n team --yes", 0);
    world.rest("after the repair as it is shown", 4);
    transcript.check("repair.txt");
}

#[test]
fn another_recovery_and_a_paused_cluster_are_left_alone() {
    run(311, async {
        let lab = Lab::new(311, 3).await;
        let file = lab.snapshot("etcd.db").await;
        note(&lab.world, "after").await;
        let planes = lab.planes().await;
        destroy(&lab.world, &planes[1]);
        destroy(&lab.world, &planes[2]);
        pass(120).await;
        let pause = |value: Value| json!({"metadata": {"annotations": {"cluster.x-k8s.io/paused": value}}});
        super::drains::merge(&lab.world.api(), PLANE, pause(json!("true"))).await;
        let told = lab.fails("--yes", Code::RepairRefused).await;
        assert!(told.contains("is paused"), "{told}");
        super::drains::merge(&lab.world.api(), PLANE, pause(Value::Null)).await;
        // Begun, and ended a moment later.
        let begun = tokio::time::timeout(Duration::from_millis(3500), lab.typed("--yes")).await;
        assert!(begun.is_err() && annotations(&lab.world).await[RECOVERY].is_string());
        let told = lab.fails(&format!("--from-snapshot {} --yes", file.display()), Code::RepairRefused).await;
        assert!(told.contains("another recovery") && told.ends_with("talosphere repair etcd demo --yes"), "{told}");
        // Its file is away: nothing goes on without it.
        std::fs::rename(lab.file("recoveries"), lab.file("elsewhere")).unwrap();
        let told = lab.fails("--yes", Code::RepairRefused).await;
        assert!(told.contains("is not here"), "{told}");
        std::fs::rename(lab.file("elsewhere"), lab.file("recoveries")).unwrap();
        let shown = lab.ok("--dry-run").await;
        assert!(shown.contains("is under way since") && shown.contains("(recommended)"), "{shown}");
        lab.ok("--yes").await;
        lab.is_whole(3).await;
    });
}
