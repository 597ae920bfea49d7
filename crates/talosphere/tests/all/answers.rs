//! What commands answer about a cluster that is there: forms of output, names that cannot be, changes that are not carried out.

use super::kills::World;
use serde_json::Value;

const UP: &str = "talosphere up -f ipam.yaml -f standard.yaml --env standard.env -n team --timeout 60s";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_answers_in_every_form_and_a_change_is_carried_out() {
    let world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=1", "WORKER_MACHINE_COUNT=1"]).await;
    tokio::task::block_in_place(|| {
        let shell = &world.shell;
        let told = shell.run(UP);
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.contains("Cluster demo is ready"), "{told}");
        let changes = told.lines().filter(|line| line.contains(": ") && !line.contains("warning: "));
        assert!(
            changes.clone().all(|line| line.chars().count() < 170 && !line.contains(" * ") && !line.contains("not looked at")),
            "{told}"
        );
        // The cluster is reached through a proxy, which talosctl does not know.
        assert!(told.contains("  talosphere talos -c demo --namespace team version") && !told.contains("talosctl"), "{told}");

        let json = |line: &str| serde_json::from_str::<Value>(&shell.ok(line)).unwrap();
        let list = json("talosphere get machines,tcp,inclusterippool -n team -o json");
        let kinds: Vec<&str> = list["items"].as_array().unwrap().iter().map(|item| item["kind"].as_str().unwrap()).collect();
        let expected = ["Machine", "Machine", "TalosControlPlane", "InClusterIPPool", "InClusterIPPool"];
        assert_eq!((list["kind"].as_str(), list["apiVersion"].as_str(), kinds.as_slice()), (Some("List"), Some("v1"), &expected[..]));
        assert_eq!(json("talosphere get cluster demo -n team -o json")["kind"], "Cluster");
        let table = shell.ok("talosphere get tcp,md -n team -n team");
        let heads: Vec<&str> = table.lines().filter(|line| line.starts_with("NAME")).collect();
        assert!(heads.len() == 2 && table.contains("\nmachinedeployment.cluster.x-k8s.io/demo-workers "), "{table}");
        let members = json("talosphere talos etcd members -c demo --namespace team -o json");
        assert_eq!(members[0]["learner"], false, "{members}");
        let services = shell.ok("talosphere talos services -c demo --namespace team -n 10.20.0.11 -o name");
        assert!(services.contains("10.20.0.11/etcd\n"), "{services}");

        for (line, code, words) in [
            ("talosphere get machine none -n team", 1, &["TS114", "no Machine none"][..]),
            ("talosphere get clusters 'a b'", 2, &["TS115", "a b"]),
            ("talosphere get clusters -n A", 2, &["TS115", "namespace"]),
            ("talosphere delete cluster 'demo?propagationPolicy=Orphan' -n team --yes", 2, &["TS115"]),
            ("talosphere talos -c none --namespace team version", 1, &["TS114", "--namespace"]),
            ("talosphere talos version", 2, &["TS112", "-c"]),
            ("talosphere scale md/demo-workers --replicas 2 -n team --timeout 99999999999999999999h", 2, &["TS112", "87600h"]),
        ] {
            let error = shell.fails(line, code);
            assert!(words.iter().all(|word| error.contains(word)) && error.contains("remedy"), "{line}\n{error}");
        }
        let error = shell.fails(&format!("{UP} --set CLUSTER_NAME='a: b'"), 2);
        assert!(error.contains("TS115") && error.contains("(Cluster): metadata.name `a: b`") && !error.contains("created"), "{error}");

        let told = shell.run("talosphere talos -c demo --namespace team etcd snapshot etcd.db");
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.contains("etcd.db holds etcd as node 10.20.0.11 has it, at revision "), "{told}");
        let error = shell.fails("talosphere talos -c demo --namespace team etcd snapshot etcd.db", 2);
        assert!(error.contains("TS116"), "{error}");
        shell.ok("talosphere talos -c demo --namespace team etcd snapshot etcd.db --force");
        let error = shell.fails("talosphere talos -c demo --namespace team etcd snapshot none/etcd.db", 1);
        assert!(error.contains("TS117"), "{error}");

        // A new version: the control plane is replaced first, then the worker; `up` waits for the end.
        let versions = |wanted: &str| {
            let machines = json("talosphere get machines -n team -o json");
            let all: Vec<&Value> = machines["items"].as_array().unwrap().iter().map(|machine| &machine["spec"]["version"]).collect();
            assert!(all.len() == 2 && all.iter().all(|version| *version == wanted), "{all:?}");
        };
        shell.ok(&format!("{UP} --set KUBERNETES_VERSION=1.33.0"));
        versions("v1.33.0");
        let tree = shell.ok("talosphere describe cluster demo -n team -o wide");
        assert!(!tree.contains("not up to date") && tree.contains("ready: every"), "{tree}");
        let undone = shell.ok("talosphere rollout undo md/demo-workers -n team --dry-run");
        assert!(undone.contains("1 Machine would be replaced by"), "{undone}");
        let history = shell.ok("talosphere rollout history machinedeployment/demo-workers -n team");
        assert!(history.starts_with("REVISION") && history.contains("v1.33.0"), "{history}");
        shell.ok(UP);
        versions("v1.32.4");
        let told = json("talosphere rollout status md demo-workers -n team --watch=false -o json");
        assert_eq!((&told["isComplete"], &told["upToDateReplicas"]), (&Value::Bool(true), &Value::from(1)), "{told}");
        for (line, code, words) in [
            ("talosphere rollout resume md/demo-workers -n team", 1, &["TS308", "is not paused"][..]),
            ("talosphere rollout status md/none -n team", 1, &["TS114", "no MachineDeployment none"]),
            ("talosphere rollout history tcp/demo-control-plane -n team", 2, &["TS112", "machinedeployment/NAME"]),
            ("talosphere rollout status demo-workers -n team", 2, &["TS112"]),
            ("talosphere rollout undo md/demo-workers -n team --to-revision 99", 1, &["TS114", "no revision 99"]),
        ] {
            let error = shell.fails(line, code);
            assert!(words.iter().all(|word| error.contains(word)) && error.contains("remedy"), "{line}\n{error}");
        }
        shell.ok("talosphere scale machinedeployment/demo-workers --replicas 2 -n team");
    });
    world.rest("answers", 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_being_deleted_is_not_brought_up() {
    let world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=1", "WORKER_MACHINE_COUNT=0"]).await;
    tokio::task::block_in_place(|| {
        let _serve = world.shell.serve();
        world.shell.ok(UP);
        if super::process::kubectl().is_none() {
            return;
        }
        // A finalizer of somebody else's keeps the Cluster from going.
        let patch = "kubectl --kubeconfig mgmt.yaml patch cluster demo -n team --type merge";
        world.shell.ok(&format!("{patch} -p '{{\"metadata\":{{\"finalizers\":[\"cluster.cluster.x-k8s.io\",\"example.com/held\"]}}}}'"));
        world.shell.ok("kubectl --kubeconfig mgmt.yaml delete cluster demo -n team --wait=false");
        let error = world.shell.fails(UP, 1);
        assert!(
            error.contains("TS306") && error.contains("Cluster demo") && error.contains("talosphere delete cluster demo -n team"),
            "{error}"
        );
        world.shell.ok(&format!("{patch} -p '{{\"metadata\":{{\"finalizers\":[]}}}}'"));
        world.shell.ok(
            "talosphere delete cluster demo -n team --yes 2>&1 || kubectl --kubeconfig mgmt.yaml wait --for=delete cluster/demo -n team",
        );
    });
}

#[test]
fn a_demo_keeps_away_from_the_users_state() {
    let shell = super::process::Shell::new();
    let output = shell.run("talosphere demo --exit-when-ready --speed 0 --set CONTROL_PLANE_MACHINE_COUNT=1 --set WORKER_MACHINE_COUNT=0");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("Cluster demo is ready"), "{told}");
    assert!(!told.contains("kubeconfig") && !told.contains("VSPHERE_USERNAME"), "what is gone is not named: {told}");
    assert!(told.lines().count() < 60, "{told}");
    assert!(!shell.folder.path().join("state/store.redb").exists(), "the user's own state directory is untouched");
    // A directory with other clusters is refused.
    let server = shell.serve();
    server.end();
    let error = shell.fails("talosphere demo --exit-when-ready --speed 0 --state state", 1);
    assert!(error.contains("TS202") && error.contains("other clusters"), "{error}");
}
