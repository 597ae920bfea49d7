//! One owner of a state directory, and what happens when it ends while others still need it.

use super::kills::World;

const UP: &[&str] = &["up", "-f", "ipam.yaml", "-f", "standard.yaml", "--env", "standard.env", "-n", "team", "--timeout", "90s"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ownership_passes_to_a_command_that_still_waits() {
    let world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=3", "WORKER_MACHINE_COUNT=3"]).await;
    tokio::task::block_in_place(|| {
        let serve = world.shell.serve();
        let up = world.shell.start(UP);
        up.until("up to begin", |up| up.stderr().contains("namespace/team created"));
        let before_end = std::time::Instant::now();
        serve.end();
        let ending = before_end.elapsed();
        assert!(ending < std::time::Duration::from_secs(8), "serve took {ending:?} to end");
        assert!(up.wait().success(), "{}", up.stderr());
        assert!(up.stderr().contains("this command goes on in its place"), "{}", up.stderr());
        let tree = world.shell.ok("talosphere describe cluster demo -n team");
        assert!(tree.contains("[ok] Cluster/demo"), "{tree}");
    });
    world.rest("after the hand-over", 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ownership_passes_on_when_the_owner_is_killed() {
    let world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=1", "WORKER_MACHINE_COUNT=1"]).await;
    tokio::task::block_in_place(|| {
        let serve = world.shell.serve();
        let up = world.shell.start(UP);
        up.until("up to follow its cluster", |up| up.stderr().contains("Cluster/demo"));
        super::process::kill(&serve.child);
        assert!(up.wait().success(), "{}", up.stderr());
        assert!(up.stderr().contains("this command goes on in its place"), "{}", up.stderr());
    });
    world.rest("after the hand-over", 2);
}
