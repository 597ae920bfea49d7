//! From manifests to a ready cluster, in memory, on paused time.

use super::world::{Setup, World, run};

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
