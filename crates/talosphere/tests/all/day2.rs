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
