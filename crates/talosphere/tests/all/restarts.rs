//! The process dies anywhere while it brings a cluster up, and the same command again continues: every acknowledged write is still there
//! and nothing is made twice. Deaths of the real process are the kill tests' matter; here they come at any line of the log, on paused time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::world::{Setup, World, run};

const SEED: u64 = 41;
/// Deaths, spread evenly over the run.
const DEATHS: usize = 8;

fn setup() -> Setup {
    Setup::new(SEED, 1, 1)
}

/// Lines of the log of a run that nothing disturbs.
fn lines() -> usize {
    run(SEED, async {
        let world = World::start(&setup()).await;
        world.up().await.unwrap();
        world.seams.log.entries().len()
    })
}

/// Brings the cluster up and dies whenever the log has one of these numbers of lines.
fn survives(deaths: &[usize]) {
    run(SEED, async {
        let mut world = World::start(&setup()).await;
        let (reached, notify) = (Arc::new(AtomicUsize::new(world.seams.log.entries().len())), Arc::new(Notify::new()));
        let (count, waker) = (reached.clone(), notify.clone());
        world.seams.log.tap(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            waker.notify_one();
        });
        for death in deaths {
            let is_ready = tokio::select! {
                biased;
                () = async { while reached.load(Ordering::Relaxed) < *death { notify.notified().await } } => false,
                done = world.up() => { done.unwrap_or_else(|problem| panic!("{problem}\n{}", world.log())); true }
            };
            world.restart().await;
            if is_ready {
                break;
            }
        }
        world.up().await.unwrap_or_else(|problem| panic!("after {deaths:?}: {problem}\n{}", world.log()));
        let machines = world.simulator.truth().vms.iter().filter(|vm| !vm.is_template && vm.name.starts_with("demo-")).count();
        assert_eq!(machines, 2, "after {deaths:?}\n{}", world.log());
        assert_eq!(world.findings(), [], "after {deaths:?}\n{}", world.log());
    });
}

#[test]
fn a_death_anywhere_is_harmless() {
    let lines = lines();
    let deaths: Vec<usize> = (1..=DEATHS).map(|number| lines * number / (DEATHS + 1)).collect();
    for death in &deaths {
        survives(&[*death]);
    }
    // And all of them in one run.
    survives(&deaths);
}
