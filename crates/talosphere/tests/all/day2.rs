//! A change of version on the real binary, with all at once that goes wrong on such a day: a pod that its budget never lets go, a control
//! plane that is dead, and the process killed in the middle, again and again. The verdict is read from the simulator's truth.

use std::collections::BTreeSet;

use apiserver::User;
use serde_json::{Value, json};
use simulator::hooks::Phase::{After, Before};
use talosphere::apply::Api;

use super::drains::{put_budget, put_pod};
use super::kills::At::{Call, Object};
use super::kills::{T, V, World};
use super::process::{Shell, examples, kubectl};
use super::referee::referee;
use super::transcript::Transcript;

const UP: &[&str] = &["up", "-f", "ipam.yaml", "-f", "standard.yaml", "--env", "standard.env", "-n", "team", "--timeout", "110s"];
const MACHINES: (&str, &str, &str) = ("cluster.x-k8s.io/v1beta2", "Machine", "machines");

/// The VMs of machines, without templates.
fn vms(world: &World) -> BTreeSet<String> {
    world.simulator.truth().vms.iter().filter(|vm| !vm.is_template).map(|vm| vm.name.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_version_ends_well_with_a_blocking_budget_a_dead_member_and_a_killed_process() {
    let mut world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=3", "WORKER_MACHINE_COUNT=3"]).await;
    // Workers' drains have five seconds.
    let file = world.shell.folder.path().join("standard.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, workers) = text.split_once("kind: MachineDeployment").unwrap();
    let version = "      version: v${KUBERNETES_VERSION}\n";
    let workers = workers.replacen(version, &format!("{version}      nodeDrainTimeout: 5s\n"), 1);
    std::fs::write(&file, format!("{before}kind: MachineDeployment{workers}")).unwrap();
    world.survive(UP, &[]).await;
    world.rest("before the change", 6);
    let old = vms(&world);

    let server = world.simulator.nodes().workload_apis().pop().unwrap();
    let workload = Api::new(kube::Client::new(server.service(&User::admin("admin")), "default"));
    let worker = old.iter().find(|name| name.starts_with("demo-workers")).unwrap();
    put_pod(&workload, "stays", worker, json!({})).await;
    put_budget(&workload, "stays").await;
    let dead = old.iter().find(|name| name.starts_with("demo-control-plane")).unwrap();
    let person = world.simulator.vcenter().person();
    person.delete(&person.find(dead).unwrap()).unwrap();

    let change: Vec<&str> = UP.iter().copied().chain(["--set", "KUBERNETES_VERSION=1.33.0"]).collect();
    let (group, kind, plural) = MACHINES;
    let kills = [
        Call(T, "EtcdRemoveMemberByID", Before),
        Call(T, "EtcdRemoveMemberByID", After),
        Call(V, "CloneVM_Task", After),
        Object(group, kind, plural, "demo-control-plane"),
        Call(T, "EtcdForfeitLeadership", After),
        Call(T, "EtcdLeaveCluster", Before),
        Call(T, "EtcdLeaveCluster", After),
        Call(V, "Destroy_Task", Before),
        Call(V, "Destroy_Task", After),
        Call(V, "PowerOnVM_Task", After),
    ];
    world.survive(&change, &kills).await;
    assert_eq!(world.kills, kills.len());
    world.rest("after the change", 6);

    let new = vms(&world);
    assert!(old.is_disjoint(&new), "every machine is another one: {old:?} {new:?}");
    let truth = world.simulator.truth();
    let etcd = &truth.nodes.etcd[0];
    assert_eq!((truth.nodes.etcd.len(), etcd.members().count(), etcd.voters(), etcd.healthy_voters()), (1, 3, 3, 3), "{etcd:?}");
    tokio::task::block_in_place(|| {
        let list: Value = serde_json::from_str(&world.shell.ok("talosphere get machines -n team -o json")).unwrap();
        let versions: Vec<&str> =
            list["items"].as_array().unwrap().iter().map(|machine| machine["spec"]["version"].as_str().unwrap()).collect();
        assert_eq!(versions, ["v1.33.0"; 6]);
        let members: Value =
            serde_json::from_str(&world.shell.ok("talosphere talos -c demo --namespace team etcd members -o json")).unwrap();
        assert_eq!(members.as_array().unwrap().len(), 9, "three nodes list three members each: {members}");
    });
}

/// Moments at which the process is killed: a line that it has printed, by what is in it.
const MOMENTS: [[&str; 2]; 4] = [
    ["TalosControlPlane demo-control-plane changed", ""],
    ["Machine/demo-control-plane", ": deleting"],
    ["MachineDeployment demo-workers changed", ""],
    ["Machine/demo-workers", ": deleting"],
];

/// The same day as a user has it: the simulator is another process, the machine dies by another's tool, and the process is killed from
/// outside. The verdict is read with those tools.
#[test]
fn an_upgrade_typed_by_a_user_ends_well_on_the_same_day() {
    let (Some(_), Some(govc)) = (kubectl(), referee("govc")) else { return };
    let mut shell = Shell::new();
    std::os::unix::fs::symlink(govc, shell.folder.path().join("bin/govc")).unwrap();
    examples(&shell);
    let simulate = ["simulate", "-f", "ipam.yaml", "-f", "standard.yaml", "--env", "standard.env", "--speed", "5"];
    let simulator = shell.start(&simulate);
    simulator.until("the simulator's export lines", |simulator| simulator.stdout().contains("GOVC_INSECURE"));
    shell.evaluate(&simulator.stdout());
    let mut transcript = Transcript::new(&shell);
    transcript.add("talosphere simulate -f ipam.yaml -f standard.yaml --env standard.env --speed 5 > simulator.env &", "", "");
    shell.ok("sed -i 's/^      version: v${KUBERNETES_VERSION}$/&\\n      nodeDrainTimeout: 5s/' standard.yaml");
    transcript.ok(&shell, "talosphere up -f ipam.yaml -f standard.yaml --workload cpi-secrets.yaml --env standard.env -n team");
    shell.ok("talosphere kubeconfig demo -n team > k.yaml");
    let names = |shell: &Shell| -> BTreeSet<String> {
        let found = shell.ok("govc find . -type m -config.template false");
        found.lines().filter_map(|path| path.rsplit('/').next()).map(str::to_owned).collect()
    };
    let old = names(&shell);
    assert_eq!(old.len(), 6, "{old:?}");
    let worker = old.iter().find(|name| name.starts_with("demo-workers")).unwrap();
    let dead = old.iter().find(|name| name.starts_with("demo-control-plane")).unwrap();
    std::fs::write(shell.folder.path().join("stays.yaml"), STAYS.replace("NODE", worker)).unwrap();
    transcript.ok(&shell, "kubectl --kubeconfig k.yaml apply -f stays.yaml   # a pod, and a budget that never lets it go");
    shell.ok(&format!("govc vm.destroy {dead}"));
    transcript.add("govc vm.destroy demo-control-plane-xxxxx   # a control plane is lost", "", "");
    transcript.ok(&shell, "talosphere upgrade demo --kubernetes 1.33.0 -n team --dry-run");

    let upgrade = ["upgrade", "demo", "--kubernetes", "1.33.0", "-n", "team", "--yes", "--timeout", "110s"];
    for moment in MOMENTS {
        let process = shell.start(&upgrade);
        let is_it = |line: &str| moment.iter().all(|part| line.contains(part));
        process.until(&moment.concat(), |process| process.stderr().lines().any(is_it));
        process.child.lock().unwrap().kill().unwrap();
        process.wait();
        transcript.add(&format!("talosphere {}   # killed with SIGKILL in the middle", upgrade.join(" ")), "", "");
    }
    // How many that are depends on how far it was when it was killed.
    for count in 0..=3 {
        let noun = if count == 1 { "Machine" } else { "Machines" };
        transcript.hide(&format!("{count} worker {noun} are"), "the worker Machines that are left are");
    }
    transcript.ok(&shell, &format!("talosphere {}", upgrade.join(" ")));
    transcript.ok(&shell, "talosphere get machines -n team");
    transcript.ok(&shell, "talosphere talos -c demo --namespace team etcd members");

    let new = names(&shell);
    assert!(new.len() == 6 && old.is_disjoint(&new), "every machine is another one: {old:?} {new:?}");
    let machines: Value = serde_json::from_str(&shell.ok("talosphere get machines -n team -o json")).unwrap();
    let versions: Vec<&Value> = machines["items"].as_array().unwrap().iter().map(|machine| &machine["spec"]["version"]).collect();
    assert_eq!(versions, ["v1.33.0"; 6]);
    let nodes: Value = serde_json::from_str(&shell.ok("kubectl --kubeconfig k.yaml get nodes -o json")).unwrap();
    assert_eq!(nodes["items"].as_array().unwrap().len(), 6, "{nodes}");
    let deleted = shell.run("talosphere delete cluster demo -n team --yes");
    let text = String::from_utf8_lossy(&deleted.stderr).into_owned();
    assert!(deleted.status.success() && text.contains("0 left behind"), "{text}");
    transcript.add("talosphere delete cluster demo -n team --yes", "", &text);
    assert_eq!(names(&shell), BTreeSet::new());
    simulator.end();
    transcript.check("day2.txt");
}

/// A pod on a node, and its budget.
const STAYS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: stays, namespace: default, labels: {app: stays}}
spec:
  nodeName: NODE
  containers: [{name: c, image: registry.k8s.io/pause:3.9}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: stays, namespace: default}
spec:
  minAvailable: 1
  selector: {matchLabels: {app: stays}}
"#;
