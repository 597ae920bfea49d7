//! The first command of a new user: a cluster in one process, reached with the kubeconfigs it names.

use super::process::{Shell, kubectl};

/// The paths after `kubectl --kubeconfig` in what was printed.
fn kubeconfigs(printed: &str) -> Vec<String> {
    let after = printed.split("kubectl --kubeconfig ").skip(1);
    after.filter_map(|rest| rest.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn a_cluster_is_there_until_it_is_interrupted() {
    let shell = Shell::new();
    let demo = shell.start(&["demo", "--speed", "0"]);
    demo.until("the demo to be ready", |demo| demo.stderr().contains("interrupted"));
    let configs = kubeconfigs(&demo.stderr());
    let [cluster, management] = configs.as_slice() else { panic!("{}", demo.stderr()) };
    if kubectl().is_some() {
        let nodes = shell.ok(&format!("kubectl --kubeconfig {cluster} get nodes --no-headers"));
        assert_eq!(nodes.lines().filter(|line| line.contains(" Ready ")).count(), 6, "{nodes}");
        let machines = shell.ok(&format!("kubectl --kubeconfig {management} get machines -A --no-headers"));
        assert_eq!(machines.lines().filter(|line| line.contains("Running")).count(), 6, "{machines}");
    }
    demo.end();
    assert!(!std::path::Path::new(cluster).exists(), "what was made for the demo goes with it");
}

#[test]
fn a_demo_may_end_when_it_is_ready_and_be_run_again() {
    let shell = Shell::new();
    for state in ["", "--state kept", "--state kept"] {
        let output = shell.run(&format!("talosphere demo --exit-when-ready --speed 0 --set WORKER_MACHINE_COUNT=1 {state}"));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("Cluster demo is ready"), "{state}\n{text}");
    }
}
