//! Everything deleted at once, in whatever order: nothing is left, neither here nor in vCenter.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use talosphere::commands::up::{Order, bring_up};
use talosphere::host::session::Session;

use super::world::{PATIENCE, Setup, World, run};

/// How long all of it may take.
const LIMIT: u64 = 1800;
/// Resources of which nothing may be left in the namespace.
const GONE: &[&str] = &[
    "/apis/cluster.x-k8s.io/v1beta2/namespaces/lab/clusters",
    "/apis/cluster.x-k8s.io/v1beta2/namespaces/lab/machines",
    "/apis/cluster.x-k8s.io/v1beta2/namespaces/lab/machinesets",
    "/apis/cluster.x-k8s.io/v1beta2/namespaces/lab/machinedeployments",
    "/apis/cluster.x-k8s.io/v1beta2/namespaces/lab/machinehealthchecks",
    "/apis/controlplane.cluster.x-k8s.io/v1alpha3/namespaces/lab/taloscontrolplanes",
    "/apis/bootstrap.cluster.x-k8s.io/v1beta1/namespaces/lab/talosconfigs",
    "/apis/bootstrap.cluster.x-k8s.io/v1beta1/namespaces/lab/talosconfigtemplates",
    "/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/lab/vsphereclusters",
    "/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/lab/vspheremachines",
    "/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/lab/vspheremachinetemplates",
    "/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/lab/vspherevms",
    "/apis/ipam.cluster.x-k8s.io/v1alpha2/namespaces/lab/inclusterippools",
    "/apis/ipam.cluster.x-k8s.io/v1beta2/namespaces/lab/ipaddressclaims",
    "/apis/ipam.cluster.x-k8s.io/v1beta2/namespaces/lab/ipaddresses",
    "/api/v1/namespaces/lab/secrets",
];

/// Brings the cluster up in a namespace that may be deleted.
async fn up(world: &World) -> Order {
    let order = world.material.order(&world.simulator.vcenter_thumbprint(), Some("lab")).unwrap();
    let done = bring_up(&mut Session::over(world.api()), &order, None, PATIENCE, &world.seams).await;
    done.unwrap_or_else(|problem| panic!("{problem}\n{}", world.log()));
    order
}

async fn left(world: &World) -> Vec<String> {
    let mut left = Vec::new();
    for path in GONE {
        let Some(list) = world.api().get(path).await.unwrap() else { continue };
        for item in list["items"].as_array().into_iter().flatten() {
            let name = item["metadata"]["name"].as_str().unwrap_or_default();
            left.push(format!("{path}/{name} finalizers {} {}", item["metadata"]["finalizers"], item["status"]["conditions"]));
        }
    }
    left.extend(world.simulator.truth().vms.iter().filter(|vm| !vm.is_template).map(|vm| format!("VM {}", vm.name)));
    left
}

async fn wait_until_gone(world: &World) {
    let mut last = Vec::new();
    for _ in 0..LIMIT / 10 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        last = left(world).await;
        if last.is_empty() {
            return;
        }
    }
    panic!("left after {LIMIT} s: {last:#?}\n{}", world.log());
}

async fn delete(world: &World, path: &str) {
    let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    let answer: Value = world.api().send(Method::DELETE, path, Some("application/json"), Some(&body)).await.unwrap();
    assert_ne!(answer["status"], "Failure", "{answer}");
}

#[test]
fn all_files_deleted_at_once_leave_nothing() {
    for is_reversed in [false, true] {
        run(11, async {
            let world = World::start(&Setup::new(11, 1, 1)).await;
            let order = up(&world).await;
            let mut paths = vec!["/api/v1/namespaces/lab/secrets/demo".to_owned()];
            for manifest in &order.manifests {
                let name = manifest.object["metadata"]["name"].as_str().unwrap();
                let resource = world.api().resource(manifest.api_version(), manifest.kind()).await.unwrap().unwrap();
                paths.push(resource.path("lab", Some(name)));
            }
            // kubectl goes from the first file to the last and waits for nothing in between.
            if is_reversed {
                paths.reverse();
            }
            for path in &paths {
                delete(&world, path).await;
            }
            // What `up` keeps for the workload goes with its cluster or was never a file of the user's.
            delete_kept(&world).await;
            wait_until_gone(&world).await;
        });
    }
}

/// The manifests kept for the workload are no file of the user's.
async fn delete_kept(world: &World) {
    let sets = "/apis/addons.cluster.x-k8s.io/v1beta2/namespaces/lab/clusterresourcesets";
    let list = world.api().get(sets).await.unwrap().unwrap();
    for item in list["items"].as_array().into_iter().flatten() {
        delete(world, &format!("{sets}/{}", item["metadata"]["name"].as_str().unwrap())).await;
    }
}

#[test]
fn a_namespace_that_is_deleted_leaves_nothing() {
    run(12, async {
        let world = World::start(&Setup::new(12, 1, 1)).await;
        up(&world).await;
        delete(&world, "/api/v1/namespaces/lab").await;
        wait_until_gone(&world).await;
    });
}
