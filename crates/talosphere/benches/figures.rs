//! The figures of speed and memory, each beside its target. `cargo bench -p talosphere` prints them; README.md keeps them.
//!
//! Processes are the release binary itself, or the one that `TALOSPHERE_BINARY` names; their times are the kernel's (`/proc`), so this
//! runs on Linux only. Worlds in memory run on paused time. Nothing here fails on a slow machine: a figure over its target is marked.
#![allow(clippy::disallowed_methods)] // it measures real time
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![allow(dead_code)] // shares helpers with the tests, which use all of them

#[path = "figures/clusters.rs"]
mod clusters;
#[path = "../tests/all/process/mod.rs"]
mod process;
#[path = "../tests/all/world/mod.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use http::Method;
use process::{Background, Shell, binary, root};
use serde_json::json;
use talosphere::follow::{Step, until};
use talosphere::host::session::Session;
use talosphere::tree::{kinds, remaining_kinds, remains, verdict};
use world::{PATIENCE, Setup, World, run};

/// How often each thing is measured; the median counts.
const RUNS: usize = 5;
/// How often the journey in memory is made: its CPU is told in hundredths of a second, so it takes some to see milliseconds.
const JOURNEYS: usize = 10;
/// For how long an idle process is watched.
const IDLE: Duration = Duration::from_secs(10);
/// For how long an idle world is watched, virtual time.
const IDLE_WORLD: Duration = Duration::from_secs(30 * 60);
/// What signs in and out.
const LOGIN: &[&str] = &["RetrieveServiceContent", "Login", "Logout"];
/// What waits for changes.
const LONG_POLL: &str = "WaitForUpdatesEx";

/// Prints one figure.
fn figure(what: &str, measured: f64, unit: &str, target: f64) {
    let verdict = if measured <= target { "ok" } else { "over" };
    let digits = if measured >= 10.0 { 0 } else { 2 };
    println!("{what:<66} {measured:>7.digits$} {unit:<6} <= {target} {unit}  {verdict}");
}

/// Prints what explains a figure.
fn note(text: &str) {
    println!("  {text}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Fields of `/proc/PID/stat` after the command's name, in ticks of 10 ms: (user, system, children's user, children's system).
fn ticks(process: &str) -> [f64; 4] {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    [11, 12, 13, 14].map(|index| fields[index].parse().unwrap())
}

/// CPU seconds of this process so far.
fn own_cpu() -> f64 {
    (ticks("self")[0] + ticks("self")[1]) / 100.0
}

/// CPU seconds of ended and waited for children so far.
fn children_cpu() -> f64 {
    (ticks("self")[2] + ticks("self")[3]) / 100.0
}

/// CPU seconds of a running process so far, to the nanosecond.
fn cpu_of(process: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let spent = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|spent| spent.parse::<f64>().ok()).unwrap_or_default()
    };
    tasks.filter_map(|task| Some(spent(task.ok()?))).sum::<f64>() / 1e9
}

/// MiB by a name of `/proc/PID/status`.
fn memory_of(process: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Puts the manifests into a shell's folder: the set that targets are stated for where it lies beside the checkout, else the examples.
fn manifests(shell: &mut Shell) -> &'static str {
    let standard = root().join("../shared/reference/templates/vsphere-standard");
    let (folder, name) = if standard.is_dir() { (standard, "the standard set") } else { (root().join("examples"), "examples") };
    copy(&folder, shell);
    name
}

fn copy(folder: &Path, shell: &Shell) {
    for file in ["ipam.yaml", "standard.yaml", "standard.env", "cpi-secrets.yaml", "cpi.yaml", "vm-tools.yaml"] {
        std::fs::copy(folder.join(file), shell.folder.path().join(file)).unwrap();
    }
}

const FILES: &[&str] = &["-f", "ipam.yaml", "-f", "standard.yaml", "--env", "standard.env"];

/// Bringing up a cluster, in one process.
fn bring_up_in_one_process() {
    let (mut walls, mut cpus, mut name) = (Vec::new(), Vec::new(), "");
    for _ in 0..RUNS {
        let mut shell = Shell::new();
        name = manifests(&mut shell);
        let before = children_cpu();
        let start = Instant::now();
        let more = ["--workload", "cpi-secrets.yaml", "--speed", "0", "--exit-when-ready"];
        let process = shell.start(&[&["demo"], FILES, &more].concat());
        let status = process.child.lock().unwrap().wait().unwrap();
        walls.push(start.elapsed().as_secs_f64());
        assert!(status.success(), "{}", process.stderr());
        cpus.push(children_cpu() - before);
    }
    figure(&format!("up of {name} until ready, no simulated delays, one process: wall"), median(walls), "s", 1.0);
    figure("  its CPU", median(cpus), "s", 0.8);
}

/// The whole of a cluster's life in memory; its canonical log, and the requests of the bring-up and of all.
fn journey(seed: u64, is_checked: bool) -> (String, Counts, Counts) {
    run(seed, async {
        let world = World::start(&Setup { is_checked, ..Setup::new(seed, 3, 3) }).await;
        world.up().await.unwrap();
        let bring_up = world.requests.counts();
        let mut session = Session::over(world.api());
        let patch = json!({"spec": {"replicas": 5}});
        let clusters = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default";
        let (merge, json) = (Some("application/merge-patch+json"), Some("application/json"));
        session.api.send(Method::PATCH, &format!("{clusters}/machinedeployments/demo-workers"), merge, Some(&patch)).await.unwrap();
        let scaled = |objects: &_| if verdict(objects, "demo").is_ready { done() } else { wait() };
        until(&mut session, &world.seams, "default", &kinds(), PATIENCE, scaled).await.unwrap();
        let uid = session.api.get(&format!("{clusters}/clusters/demo")).await.unwrap().unwrap()["metadata"]["uid"].clone();
        let uid = uid.as_str().unwrap().to_owned();
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
        session.api.send(Method::DELETE, &format!("{clusters}/clusters/demo"), json, Some(&options)).await.unwrap();
        let gone = |objects: &_| if remains(objects, "demo", &uid).is_empty() { done() } else { wait() };
        until(&mut session, &world.seams, "default", &remaining_kinds(), PATIENCE, gone).await.unwrap();
        assert!(world.simulator.truth().vms.iter().all(|vm| vm.is_template), "VMs are left");
        (world.log(), bring_up, world.requests.counts())
    })
}

fn done() -> Step<()> {
    Step::Done { tree: None, value: () }
}

fn wait() -> Step<()> {
    Step::Wait { tree: None, waiting: Vec::new() }
}

/// The whole journey on paused time.
fn journey_in_memory() {
    let (first, bring_up, all) = journey(1, true);
    let mut is_same = true;
    let mut spent = |is_checked| {
        let before = own_cpu();
        for _ in 0..JOURNEYS {
            is_same &= journey(1, is_checked).0 == first;
        }
        (own_cpu() - before) / JOURNEYS as f64 * 1000.0
    };
    let alone = spent(false);
    figure("up, scale and delete in memory, paused time, schemas loaded: CPU", alone, "ms", 150.0);
    note(&format!("with the rule checker, which sees the whole world after every event: {:.0} ms", spent(true)));
    let same = if is_same { "ok" } else { "over" };
    let what = format!("  differing logs among {} runs of one seed ({} lines each)", 2 * JOURNEYS + 1, first.lines().count());
    println!("{what:<66} {:>7} {:<6} <= 0       {same}", u8::from(!is_same), "");
    let total = |counts: &Counts| counts.values().sum::<u64>();
    note(&format!("requests to the API: {} in the bring-up, {} in all", total(&bring_up), total(&all)));
    let of = |verb: &str| {
        let mut counts: Vec<_> =
            bring_up.iter().filter_map(|(name, count)| Some((name.strip_prefix(verb)?.trim_start(), *count))).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    for verb in ["patch", "create", "get", "list", "watch", "delete", "update"] {
        note(&format!("{verb}: {}", of(verb)));
    }
}

/// `serve` on a state directory with one cluster, its simulator in another process.
fn serving() {
    let mut shell = Shell::new();
    copy(&root().join("examples"), &shell);
    let simulator = shell.start(&[&["simulate"], FILES, &["--speed", "0"]].concat());
    simulator.until("the simulator's export lines", |simulator| simulator.stdout().contains("GOVC_INSECURE"));
    shell.evaluate(&simulator.stdout());
    shell.ok(&format!("talosphere up {} --workload cpi-secrets.yaml -n team", FILES.join(" ")));
    let mut starts = Vec::new();
    for _ in 0..RUNS {
        let (serve, spent) = start_serving(&shell);
        starts.push(spent);
        serve.end();
    }
    figure("serve on an existing state directory: from start to ready", median(starts), "ms", 100.0);
    let (serve, _) = start_serving(&shell);
    let id = serve.child.lock().unwrap().id();
    std::thread::sleep(Duration::from_secs(5));
    let before = cpu_of(id);
    std::thread::sleep(IDLE);
    let share = (cpu_of(id) - before) / IDLE.as_secs_f64() * 100.0;
    figure("  idle with one cluster of six machines: resident", memory_of(id, "VmRSS"), "MiB", 64.0);
    note(&format!(
        "of it {:.0} MiB are the mapped binary and other files, {:.0} MiB its own",
        memory_of(id, "RssFile"),
        memory_of(id, "RssAnon")
    ));
    figure("  idle with one cluster of six machines: share of a core", share, "%", 0.5);
    serve.end();
    simulator.end();
}

/// Starts `serve`; milliseconds until it says that it answers.
fn start_serving(shell: &Shell) -> (Background, f64) {
    let start = Instant::now();
    let serve = shell.start(&["serve"]);
    while !serve.stderr().contains("the API answers at") {
        assert!(start.elapsed() < Duration::from_secs(60), "serve is not ready\n{}", serve.stderr());
        std::thread::sleep(Duration::from_millis(1));
    }
    let spent = start.elapsed().as_secs_f64() * 1000.0;
    (serve, spent)
}

type Counts = BTreeMap<String, u64>;

fn calls(world: &World) -> Counts {
    let counts = world.simulator.hooks().counts();
    counts.into_iter().filter(|((face, _), _)| *face == simulator::hooks::VCENTER).map(|((_, method), count)| (method, count)).collect()
}

/// vCenter calls to bring a cluster up, and during half an hour of nothing after it.
fn calls_for(workers: u32) -> (Counts, Counts) {
    run(2, async {
        let world = World::start(&Setup::new(2, 3, workers)).await;
        world.up().await.unwrap();
        let up = calls(&world);
        // What follows readiness, such as the end of a task that nobody waited for, is no idleness yet.
        tokio::time::sleep(Duration::from_secs(120)).await;
        let settled = calls(&world);
        tokio::time::sleep(IDLE_WORLD).await;
        let idle = calls(&world).into_iter().map(|(method, count)| (method.clone(), count - settled.get(&method).unwrap_or(&0)));
        (up, idle.filter(|(_, count)| *count > 0).collect())
    })
}

fn listed(counts: &Counts) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    counts.iter().map(|(method, count)| format!("{method} {count}")).collect::<Vec<_>>().join(", ")
}

/// What one VM more costs in calls: the difference between a bigger cluster and a smaller, so that what they share cancels out.
fn vcenter_calls() {
    const SMALL: u32 = 1;
    const BIG: u32 = 5;
    let ((small, _), (big, idle)) = (calls_for(SMALL), calls_for(BIG));
    let is_counted = |method: &str| method != LONG_POLL && !LOGIN.contains(&method);
    let mut per_vm = BTreeMap::new();
    let mut shared = Counts::new();
    for (method, count) in big.iter().filter(|(method, _)| is_counted(method)) {
        let more = count.saturating_sub(*small.get(method).unwrap_or(&0)) as f64 / f64::from(BIG - SMALL);
        per_vm.insert(method.clone(), more);
        let rest = *count as f64 - more * f64::from(BIG + 3);
        if rest >= 0.5 {
            shared.insert(method.clone(), rest.round() as u64);
        }
    }
    figure("vCenter calls per VM from nothing to powered on", per_vm.values().sum(), "calls", 6.0);
    let shown = per_vm.iter().filter(|(_, count)| **count > 0.0).map(|(method, count)| format!("{method} {count}"));
    note(&format!("by method: {}", shown.collect::<Vec<_>>().join(", ")));
    let apart = |methods: &dyn Fn(&str) -> bool| listed(&big.iter().filter(|(m, _)| methods(m)).map(|(m, c)| (m.clone(), *c)).collect());
    note(&format!("counted apart, for all {} VMs: login {}", BIG + 3, apart(&|method| LOGIN.contains(&method))));
    note(&format!("shared look-ups: {}; long polls: {}", listed(&shared), apart(&|method| method == LONG_POLL)));
    let other: u64 = idle.iter().filter(|(method, _)| *method != LONG_POLL).map(|(_, count)| count).sum();
    figure("vCenter calls other than long polls in 30 idle minutes", other as f64, "calls", 0.0);
    note(&format!("all of them: {}", listed(&idle)));
}

/// A change of version of a 3 + 3 cluster: the old VM's end and the new one's beginning, and nothing for the waits between them. What
/// `up` looks up beforehand it looks up when nothing changes as well, and is told apart.
fn rolling_calls() {
    const MACHINES: f64 = 6.0;
    let is_counted = |method: &str| method != LONG_POLL && !LOGIN.contains(&method);
    let (beforehand, rolled, took) = run(3, async {
        let mut world = World::start(&Setup::new(3, 3, 3)).await;
        let mut seen = Counts::new();
        let mut since = |world: &World| {
            let now = calls(world);
            let new = now.iter().map(|(method, count)| (method.clone(), count - seen.get(method).unwrap_or(&0)));
            let new = new.filter(|(method, count)| *count > 0 && is_counted(method)).collect::<Counts>();
            seen = now;
            new
        };
        world.up().await.unwrap();
        tokio::time::sleep(Duration::from_secs(120)).await;
        since(&world);
        world.up().await.unwrap();
        let beforehand = since(&world);
        let begun = world.seams.clock.instant();
        world.material.set.push("KUBERNETES_VERSION=1.33.0".to_owned());
        world.up().await.unwrap();
        (beforehand, since(&world), world.seams.clock.instant().saturating_duration_since(begun))
    });
    let all = |counts: &Counts| counts.values().sum::<u64>();
    let per_vm = (all(&rolled) - all(&beforehand)) as f64 / MACHINES;
    figure("vCenter calls per VM replaced in a change of version of 3 + 3 machines", per_vm, "calls", 10.0);
    note(&format!("in all, in {} virtual seconds: {}", took.as_secs(), listed(&rolled)));
    note(&format!("of these, what the command looks up beforehand: {}", listed(&beforehand)));
}

fn main() {
    // Names of parts after `--` print these alone.
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if clusters::is_alone() {
        return;
    }
    let parts: [(&str, fn()); 7] = [
        ("binary", size),
        ("process", bring_up_in_one_process),
        ("serve", serving),
        ("journey", journey_in_memory),
        ("calls", vcenter_calls),
        ("rolling", rolling_calls),
        ("clusters", clusters::clusters),
    ];
    for (_, part) in parts.iter().filter(|(name, _)| asked.is_empty() || asked.iter().any(|asked| asked == name)) {
        part();
    }
}

/// The release binary.
fn size() {
    let size = std::fs::metadata(binary()).unwrap().len() as f64 / 1e6;
    figure("the release binary, stripped", size, "MB", 30.0);
}
