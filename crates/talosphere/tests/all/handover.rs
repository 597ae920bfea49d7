//! One owner of a state directory, and what happens when it is done while others still need it.

use super::kills::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ownership_passes_to_a_command_that_still_waits() {
    let mut world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=1", "WORKER_MACHINE_COUNT=0"]).await;
    tokio::task::block_in_place(|| {
        let folder = world.shell.folder.path().to_owned();
        let other = std::fs::read_to_string(folder.join("ipam.yaml")).unwrap().replace("10.20.0.", "10.20.7.");
        std::fs::write(folder.join("other-ipam.yaml"), other).unwrap();
        let first = world.shell.start(&[
            "up",
            "-f",
            "ipam.yaml",
            "-f",
            "standard.yaml",
            "--env",
            "standard.env",
            "-n",
            "first",
            "--timeout",
            "90s",
        ]);
        first.until("the first command to apply its cluster", |first| first.stderr().contains("cluster.cluster.x-k8s.io/demo created"));
        world.shell.environment.extend(
            [
                ("CLUSTER_NAME", "other"),
                ("CONTROL_PLANE_ENDPOINT", "other.k8s.example.com"),
                ("CONTROL_PLANE_MACHINE_COUNT", "3"),
                ("WORKER_MACHINE_COUNT", "3"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let second = world.shell.start(&[
            "up",
            "-f",
            "other-ipam.yaml",
            "-f",
            "standard.yaml",
            "--env",
            "standard.env",
            "-n",
            "second",
            "--timeout",
            "90s",
        ]);
        assert!(first.wait().success(), "{}", first.stderr());
        assert!(second.wait().success(), "{}", second.stderr());
        assert!(second.stderr().contains("this command goes on in its place"), "{}", second.stderr());
        let tree = world.shell.ok("talosphere describe cluster other -n second");
        assert!(tree.contains("ready: every Machine runs"), "{tree}");
    });
    let machines = world.simulator.truth().vms.into_iter().filter(|vm| !vm.is_template);
    assert_eq!(machines.count(), 7);
}
