//! Our objects beside those that the genuine controllers made of the same manifests: labels, finalizers, owners, fields and conditions, in the version that they were
//! recorded in.
//!
//! The reference data are kept outside the repository; without them the test is skipped, except where `CI` is `true`.

use std::collections::BTreeSet;
use std::path::Path;

use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::vsphere_world::{NAMESPACE, Setup, World};

#[allow(clippy::disallowed_methods)] // where the reference data may be missing
fn reference(file: &str) -> Option<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference/kubernetes/objects");
    if !folder.is_dir() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "the reference data is missing: {}", folder.display());
        return None;
    }
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    let list: Value = serde_saphyr::from_str(&text).unwrap();
    // A worker's where there are both: our Machine is one.
    let items = list["items"].as_array().unwrap();
    let is_worker = |item: &&Value| item["metadata"]["labels"].get("cluster.x-k8s.io/control-plane").is_none();
    items.iter().find(is_worker).or_else(|| items.first()).cloned()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default()
}

fn conditions(list: &Value) -> BTreeSet<String> {
    let told = |condition: &Value| {
        let word = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", word("type"), word("status"), word("reason")).trim().to_owned()
    };
    list.as_array().into_iter().flatten().map(told).collect()
}

/// What can be compared of an object: everything but names, times and values that belong to one cluster.
fn shape(object: &Value) -> Value {
    let meta = &object["metadata"];
    let owners: BTreeSet<String> = meta["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        // Without the version: a reference is written in the version that the writer holds.
        .map(|owner| {
            let group = owner["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
            format!("{group} {} controller={}", owner["kind"].as_str().unwrap_or_default(), owner["controller"])
        })
        .collect();
    let finalizers: BTreeSet<String> =
        meta["finalizers"].as_array().into_iter().flatten().filter_map(|finalizer| finalizer.as_str().map(str::to_owned)).collect();
    json!({
        "labels": keys(&meta["labels"]),
        "finalizers": finalizers,
        "owners": owners,
        "spec": keys(&object["spec"]),
        "status": keys(&object["status"]),
        "legacy": conditions(&object["status"]["conditions"]),
        "current": conditions(&object["status"]["v1beta2"]["conditions"]),
    })
}

/// The parts in which two shapes differ, `ours` beside `theirs`.
fn differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for part in ours.as_object().unwrap().keys() {
        let list = |value: &Value| -> BTreeSet<String> {
            value[part].as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
        };
        let (ours, theirs) = (list(ours), list(theirs));
        found.extend(ours.difference(&theirs).map(|item| format!("{part} + {item}")));
        found.extend(theirs.difference(&ours).map(|item| format!("{part} - {item}")));
    }
    found
}

async fn ours(world: &World, group: &str, version: &str, kind: &str) -> Value {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = Api::namespaced_with(world.client(), NAMESPACE, &resource);
    let list = api.list(&ListParams::default()).await.unwrap();
    serde_json::to_value(list.items.first().unwrap()).unwrap()
}

/// The user's machine, as far as this world has the names.
fn users_spec() -> Value {
    json!({
        "os": "Linux", "powerOffMode": "hard", "additionalDisksGiB": [10],
        "network": {"devices": [{
            "networkName": "VM Network", "gateway4": "10.0.0.1", "nameservers": ["10.0.0.1"],
            "addressesFromPools": [{"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "pool"}],
        }]},
    })
}

#[tokio::test(start_paused = true)]
async fn our_objects_are_what_the_genuine_controllers_make() {
    let world = World::start(&Setup { spec: users_spec(), ..Setup::default() }).await;
    world.provisioned().await;
    let infrastructure = "infrastructure.cluster.x-k8s.io";
    let kinds = [
        (infrastructure, "v1beta1", "VSphereVM", "vspherevms.yaml"),
        (infrastructure, "v1beta1", "VSphereMachine", "vspheremachines.yaml"),
        (infrastructure, "v1beta1", "VSphereCluster", "vsphereclusters.yaml"),
        ("ipam.cluster.x-k8s.io", "v1beta1", "IPAddressClaim", "ipaddressclaims.yaml"),
        ("ipam.cluster.x-k8s.io", "v1beta1", "IPAddress", "ipaddresses.yaml"),
    ];
    let mut found = Vec::new();
    for (group, version, kind, file) in kinds {
        let Some(theirs) = reference(file) else { return };
        let ours = ours(&world, group, version, kind).await;
        // Two kinds are made by this test: only what the controllers put on them counts.
        let is_made_here = matches!(kind, "VSphereMachine" | "VSphereCluster");
        let counts = |difference: &String| !(is_made_here && (difference.starts_with("labels") || difference.starts_with("spec")));
        let different = differences(&shape(&ours), &shape(&theirs)).into_iter().filter(counts);
        found.extend(different.map(|difference| format!("{kind}: {difference}")));
    }
    // Every deviation, with its reason.
    let known = [
        // The field came with a later Cluster API than the recorded one; current ones fill it.
        "IPAddressClaim: spec + clusterName",
        // A claim says what became of it, so that an exhausted pool is told where it is waited for; upstream's says nothing.
        "IPAddressClaim: status + v1beta2",
        "IPAddressClaim: current + Ready True AddressAllocated",
    ];
    assert_eq!(found, known);
}
