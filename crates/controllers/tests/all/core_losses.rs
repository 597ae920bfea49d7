//! A process of the controllers that dies at a write, just before or just after its effect: the next one continues to the same end.
//!
//! An uncut life tells which kinds of write there are (verb, resource, subresource); each kind is cut at its first, middle and last
//! occurrence, both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::core_world::{Cut, Lag, Process, World, manifests};

/// What a process did with a world.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Create,
    Scale(u32),
    Delete,
}

impl Deed {
    fn workers(self) -> usize {
        match self {
            Self::Create => 2,
            Self::Scale(replicas) => usize::try_from(replicas).unwrap(),
            Self::Delete => 0,
        }
    }
}

/// Where to cut: the places of each kind of write.
fn places(seen: &[String]) -> BTreeSet<usize> {
    let mut kinds: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (place, call) in seen.iter().enumerate() {
        let (verb, path) = call.split_once(' ').unwrap();
        let parts: Vec<&str> = path.split('/').collect();
        let plural =
            parts.iter().position(|part| *part == "namespaces").map_or("", |at| parts.get(at + 2).copied().unwrap_or("namespaces"));
        let is_status = path.ends_with("/status");
        kinds.entry(format!("{verb} {plural} {is_status}")).or_default().push(place);
    }
    kinds.values().flat_map(|at| [0, at.len() / 2, at.len() - 1].map(|n| at[n])).collect()
}

/// A world in which the deed was begun by a process with this wire.
async fn begun(deed: Deed, cut: Option<Cut>) -> (World, Process, Vec<Value>) {
    let world = World::new(3).await;
    let manifests = manifests(1, 2);
    if let Deed::Create = deed {
        let process = world.start(cut);
        for manifest in &manifests {
            world.create(manifest).await;
        }
        return (world, process, manifests);
    }
    let first = world.start(None);
    for manifest in &manifests {
        world.create(manifest).await;
    }
    world.pass(30).await;
    world.kill(first);
    let process = world.start(cut);
    match deed {
        Deed::Scale(replicas) => world.merge(&manifests[5], &json!({"spec": {"replicas": replicas}})).await,
        _ => world.delete(&manifests[0]).await,
    }
    (world, process, manifests)
}

fn check(world: &World, deed: Deed, cut: Option<Cut>) {
    let told = || format!("{deed:?} {cut:?}\n{}", world.told());
    if let Deed::Delete = deed {
        assert_eq!(world.left(), [""; 0], "{}", told());
        return;
    }
    let machines = deed.workers() + 1;
    assert_eq!(world.phases(), [("Running".to_owned(), machines)].into(), "{}", told());
    for (group, plural) in [("infrastructure.cluster.x-k8s.io", "vspheremachines"), ("bootstrap.cluster.x-k8s.io", "talosconfigs")] {
        assert_eq!(world.all(group, plural).len(), machines, "{plural} {}", told());
    }
    assert_eq!(world.all("cluster.x-k8s.io", "machinesets").len(), 1, "{}", told());
}

async fn survives_losses(deed: Deed, least: usize) {
    let (world, process, _) = begun(deed, None).await;
    world.pass(60).await;
    check(&world, deed, None);
    let seen = process.seen.lock().unwrap().clone();
    let mut cuts = 0;
    for at in places(&seen) {
        for is_after in [false, true] {
            let cut = Cut { at, is_after };
            let (world, process, _) = begun(deed, Some(cut)).await;
            let reached = Arc::clone(&process.reached);
            cuts += usize::from(tokio::time::timeout(Duration::from_secs(30), reached.notified()).await.is_ok());
            world.kill(process);
            world.run();
            world.pass(60).await;
            check(&world, deed, Some(cut));
        }
    }
    assert!(cuts >= least, "only {cuts} writes were cut of {}", seen.len());
}

#[tokio::test(start_paused = true)]
async fn a_creation_continues() {
    survives_losses(Deed::Create, 60).await;
}

#[tokio::test(start_paused = true)]
async fn a_growth_continues() {
    survives_losses(Deed::Scale(4), 20).await;
}

#[tokio::test(start_paused = true)]
async fn a_shrinking_continues() {
    survives_losses(Deed::Scale(0), 12).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_continues() {
    survives_losses(Deed::Delete, 20).await;
}

/// The process lives on, tries again, and the first call has its effect after all: before the second, or after it.
#[tokio::test(start_paused = true)]
async fn a_creation_that_nobody_answered_makes_nothing_twice() {
    for plural in ["machines", "machinesets"] {
        for milliseconds in [0, 1, 50, 500, 5000] {
            let world = World::new(3).await;
            let made: Arc<Mutex<BTreeSet<(String, String)>>> = Arc::default();
            let seen = Arc::clone(&made);
            world.server.on_acknowledged(move |write| {
                if write.resource.starts_with("machine") {
                    seen.lock().unwrap().insert((write.resource.clone(), write.name.clone()));
                }
            });
            world.run_with(Lag { plural, by: Duration::from_millis(milliseconds) });
            for manifest in &manifests(1, 2) {
                world.create(manifest).await;
            }
            world.pass(60).await;
            check(&world, Deed::Create, None);
            let count = |resource: &str| made.lock().unwrap().iter().filter(|(known, _)| known == resource).count();
            assert_eq!((count("machines"), count("machinesets")), (3, 1), "{plural} {milliseconds} ms: {:?}", made.lock().unwrap());
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let run = |seed: u64| {
        let seeded = tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).rng_seed(seeded).build().unwrap();
        runtime.block_on(async {
            let world = World::new(seed).await;
            world.run();
            for manifest in &manifests(3, 3) {
                world.create(manifest).await;
            }
            world.pass(60).await;
            world.told()
        })
    };
    let first = run(11);
    assert!(first.lines().count() > 50, "{first}");
    assert_eq!(first, run(11));
    assert_ne!(first, run(12));
}
