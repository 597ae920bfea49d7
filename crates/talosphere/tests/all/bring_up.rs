//! From manifests to a ready cluster, in memory, on paused time.

use super::world::{Setup, World, run};

/// How often the statuses of six machines' objects may be written until all are ready: six times a VSphereVM, five times a VSphereMachine, seven
/// times a Machine (a worker's also by its set and its health check, which now and then comes too late once). Every write wakes three to five
/// controllers, which is what most of a cluster's CPU goes into.
const WRITES: &[(&str, u64)] = &[("vspherevms", 36), ("vspheremachines", 30), ("machines", 50)];

#[test]
fn one_control_plane_becomes_ready() {
    run(1, async {
        let world = World::start(&Setup::new(1, 1, 0)).await;
        world.up().await.unwrap_or_else(|problem| panic!("{problem}\n{}", world.log()));
    });
}

#[test]
fn three_and_three_become_ready_and_one_seed_gives_one_log() {
    let log = || {
        run(7, async {
            let world = World::start(&Setup::new(7, 3, 3)).await;
            world.up().await.unwrap_or_else(|problem| panic!("{problem}\n{}", world.log()));
            world.log()
        })
    };
    let (first, second) = (log(), log());
    assert!(first.lines().count() > 50, "{first}");
    assert_eq!(first, second);
}

#[test]
fn a_machines_way_to_ready_takes_few_writes() {
    run(7, async {
        let world = World::start(&Setup::new(7, 3, 3)).await;
        world.up().await.unwrap_or_else(|problem| panic!("{problem}\n{}", world.log()));
        let counts = world.requests.counts();
        for (kind, limit) in WRITES {
            let written = counts[&format!("patch {kind}/status")];
            assert!(written <= *limit, "{written} writes of {kind}/status: {counts:#?}");
        }
    });
}

#[test]
fn no_worker_is_cloned_before_the_control_plane_can_take_it_in() {
    run(8, async {
        let world = World::start(&Setup::new(8, 1, 2)).await;
        let path = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/clusters/demo";
        let look = async {
            loop {
                let is_cloned = world.simulator.truth().vms.iter().any(|vm| vm.name.starts_with("demo-workers"));
                let cluster = world.api().get(path).await.unwrap().unwrap_or_default();
                let is_initialized = cluster["status"]["initialization"]["controlPlaneInitialized"] == true;
                assert!(is_initialized || !is_cloned, "{}", world.log());
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        };
        tokio::select! {
            () = look => {}
            done = world.up() => done.unwrap_or_else(|problem| panic!("{problem}\n{}", world.log())),
        }
    });
}
