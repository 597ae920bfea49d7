//! The core kinds beside what the genuine controllers made of manifests of the same shape, at the same moment: machines are powered on and no
//! Node has come up. Compared in the version that they were recorded in: labels, annotations, owners, finalizers, the spec's fields and the
//! values that are not names, conditions with their reasons and messages.
//!
//! The reference data are kept outside the repository; without them the test is skipped, except where `CI` is `true`.

use std::collections::BTreeSet;
use std::path::Path;

use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

use super::core_world::{NAMESPACE, World, manifests};

#[allow(clippy::disallowed_methods)] // where the reference data may be missing
fn reference(file: &str) -> Option<Vec<Value>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference/kubernetes/objects");
    if !folder.is_dir() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "the reference data is missing: {}", folder.display());
        return None;
    }
    let list: Value = serde_saphyr::from_str(&std::fs::read_to_string(folder.join(file)).unwrap()).unwrap();
    Some(list["items"].as_array().unwrap().clone())
}

/// A text with its random and hashed parts made equal.
fn pattern(text: &str) -> String {
    let is_random = |part: &str| part.len() == 5 && part.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte));
    let is_hash = |part: &str| part.len() >= 6 && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = |part: &str| part.len() == 1 && part.bytes().all(|byte| byte.is_ascii_digit());
    let word = |word: &str| {
        let parts = word.split('-').enumerate();
        let equal = parts.map(|(at, part)| if (at > 0 && (is_random(part) || is_number(part))) || is_hash(part) { "#" } else { part });
        equal.collect::<Vec<_>>().join("-")
    };
    text.replace(':', " :").split(' ').map(|part| part.split(',').map(word).collect::<Vec<_>>().join(",")).collect::<Vec<_>>().join(" ")
}

fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| leaves(value, &format!("{path}.{key}"), found)),
        Value::Array(list) => list.iter().for_each(|value| leaves(value, &format!("{path}[]"), found)),
        // Names and addresses are each world's own.
        Value::String(text) if ["kind", "deletePolicy", "type", "nodeDeletionTimeout"].iter().any(|end| path.ends_with(end)) => {
            found.insert(format!("{path}={text}"));
        }
        Value::String(_) => {
            found.insert(path.to_owned());
        }
        other => {
            found.insert(format!("{path}={other}"));
        }
    }
}

fn conditions(kind: &str, list: &Value, found: &mut BTreeSet<String>) {
    for condition in list.as_array().into_iter().flatten() {
        let word = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        // Ours tells since when as well.
        let message: String =
            pattern(&word("message")).split(" since 08").map(|part| part.strip_prefix(" :00 :00").unwrap_or(part)).collect();
        let told = format!("{kind} {} {} {} {} {message}", word("type"), word("status"), word("severity"), word("reason"));
        found.insert(told.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}

fn shape(object: &Value) -> BTreeSet<String> {
    let meta = &object["metadata"];
    let mut found = BTreeSet::new();
    for part in ["labels", "annotations"] {
        for (key, value) in meta[part].as_object().into_iter().flatten() {
            if key != "kubectl.kubernetes.io/last-applied-configuration" {
                found.insert(format!("{part} {key}={}", pattern(value.as_str().unwrap_or_default())));
            }
        }
    }
    for owner in meta["ownerReferences"].as_array().into_iter().flatten() {
        // Without the version: a reference is written in the version that the writer holds.
        found.insert(format!("owner {} controller={} block={}", owner["kind"], owner["controller"], owner["blockOwnerDeletion"]));
    }
    for finalizer in meta["finalizers"].as_array().into_iter().flatten() {
        found.insert(format!("finalizer {finalizer}"));
    }
    found.insert(format!("name {}", pattern(meta["name"].as_str().unwrap())));
    leaves(&object["spec"], "spec", &mut found);
    let mut status = object["status"].clone();
    for key in ["conditions", "v1beta2", "lastUpdated", "observedGeneration", "addresses"] {
        status.as_object_mut().unwrap().remove(key);
    }
    leaves(&status, "status", &mut found);
    conditions("v1beta1", &object["status"]["conditions"], &mut found);
    conditions("v1beta2", &object["status"]["v1beta2"]["conditions"], &mut found);
    found
}

#[tokio::test(start_paused = true)]
async fn our_core_objects_are_what_the_genuine_controllers_make() {
    let world = World::new(1).await;
    world.workload.darken();
    world.run();
    for manifest in &manifests(3, 3) {
        world.create(manifest).await;
    }
    world.pass(60).await;
    let mut found = Vec::new();
    for (kind, file) in [
        ("Machine", "machines.yaml"),
        ("MachineSet", "machinesets.yaml"),
        ("MachineDeployment", "machinedeployments.yaml"),
        ("Cluster", "clusters.yaml"),
    ] {
        let Some(theirs) = reference(file) else { return };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("cluster.x-k8s.io", "v1beta1", kind));
        let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), NAMESPACE, &resource);
        let ours: Vec<Value> =
            api.list(&ListParams::default()).await.unwrap().items.iter().map(|item| serde_json::to_value(item).unwrap()).collect();
        let is_worker = |object: &&Value| object["metadata"]["labels"].get("cluster.x-k8s.io/control-plane").is_none();
        let (ours, theirs) = (ours.iter().find(is_worker).unwrap(), theirs.iter().find(is_worker).unwrap());
        let (ours, theirs) = (shape(ours), shape(theirs));
        found.extend(ours.difference(&theirs).map(|item| format!("{kind} + {item}")));
        found.extend(theirs.difference(&ours).map(|item| format!("{kind} - {item}")));
    }
    // Ours tells why the connection is not there, theirs only that.
    let probe = "Remote connection probe failed";
    found.retain(|difference| !(difference.starts_with("Cluster") && difference.contains(probe)));
    // Every other deviation, with its reason.
    let known = [
        // The vSphere provider's stand-in knows no hosts.
        "Machine - labels node.cluster.x-k8s.io/esxi-host=DC0_C0_H1",
        // References of the stored version name no uid.
        "Machine - spec.bootstrap.configRef.uid",
        "Machine - spec.infrastructureRef.uid",
        // Counts by version came with a later Cluster API than the recorded one.
        "MachineSet + status.versions[].replicas=3",
        "MachineSet + status.versions[].version",
        "MachineDeployment + status.versions[].replicas=3",
        "MachineDeployment + status.versions[].version",
        // Defaults of fields that the stored version does not have, or has elsewhere.
        "MachineDeployment - spec.minReadySeconds=0",
        "MachineDeployment - spec.progressDeadlineSeconds=600",
        "MachineDeployment - spec.revisionHistoryLimit=1",
    ];
    assert_eq!(found, known, "{found:#?}");
}
