//! Our objects of a control plane beside those that the genuine controllers made of the same manifests, at the same moment: all machines
//! have addresses, and no node answers yet.
//!
//! Compared is everything but names, times and values of one cluster: labels, annotations, finalizers, owners, fields, conditions, keys of
//! secrets. The reference data is kept outside the repository; without it the test is skipped, except where `CI` is `true`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use runtime::defects::Defects;
use serde_json::{Value, json};

use crate::lab::{Lab, NAMESPACE};

const CONTROL_PLANE: &str = "/apis/controlplane.cluster.x-k8s.io/v1alpha3/namespaces/test/taloscontrolplanes/cp";

/// What differs on purpose, each with its reason.
const DEVIATIONS: &[(&str, &str)] = &[
    // The one node that etcd is bootstrapped on is stored before it is asked; the record outlives a restart and a move.
    ("TalosControlPlane", "annotations + talosphere.dev/bootstrap-node"),
    // Upstream's stays behind by one machine until the next pass; ours tells the machines that are there.
    ("TalosControlPlane", "conditions - Ready False ScalingUp"),
    ("TalosControlPlane", "conditions - Resized False ScalingUp"),
    ("TalosControlPlane", "conditions + Resized True"),
    ("TalosControlPlane", "conditions + Ready False WaitingForTalosBoot"),
    // Upstream tells these two only while they are in the way.
    ("TalosControlPlane", "conditions + MachinesCreated True"),
    ("TalosControlPlane", "conditions + MachinesSpecUpToDate True"),
    // Go writes the empty record; it says nothing.
    ("TalosConfig", "spec - hostname"),
    // The stored version has conditions of the newer generation as well, and the older one shows them.
    ("TalosConfig", "status + v1beta2Status"),
    // The hook holds the VM until its member has left etcd.
    ("Machine", "annotations + pre-terminate.delete.hook.machine.cluster.x-k8s.io/etcd-member"),
];

#[allow(clippy::disallowed_methods)] // where the reference data may be missing
fn reference(file: &str) -> Option<Vec<Value>> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/kubernetes/objects"));
    if !folder.is_dir() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "the reference data is missing: {}", folder.display());
        return None;
    }
    let list: Value = serde_saphyr::from_str(&std::fs::read_to_string(folder.join(file)).unwrap()).unwrap();
    Some(list["items"].as_array().unwrap().clone())
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default()
}

/// The comparable facts of an object, each as one line.
fn facts(object: &Value) -> BTreeSet<String> {
    let meta = &object["metadata"];
    let mut facts = BTreeSet::new();
    let mut put = |part: &str, items: BTreeSet<String>| facts.extend(items.into_iter().map(|item| format!("{part} {item}")));
    let pairs = |value: &Value| -> BTreeSet<String> {
        let pairs = value.as_object().into_iter().flatten();
        pairs.map(|(key, value)| if value == "" { format!("{key}=\"\"") } else { key.clone() }).collect()
    };
    put("labels", pairs(&meta["labels"]));
    let annotations = keys(&meta["annotations"]).into_iter().filter(|key| !key.starts_with("kubectl."));
    put("annotations", annotations.collect());
    let words = |value: &Value| -> BTreeSet<String> {
        value.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    put("finalizers", words(&meta["finalizers"]));
    let owners = meta["ownerReferences"].as_array().into_iter().flatten().map(|owner| {
        format!("{} controller={} block={}", owner["kind"].as_str().unwrap(), owner["controller"], owner["blockOwnerDeletion"])
    });
    put("owners", owners.collect());
    put("spec", keys(&object["spec"]));
    put("status", keys(&object["status"]));
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten().map(|condition| {
        let word = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", word("type"), word("status"), word("reason")).trim().to_owned()
    });
    put("conditions", conditions.collect());
    put("data", keys(&object["data"]));
    put("type", object["type"].as_str().map(str::to_owned).into_iter().collect());
    facts
}

/// The differences, `+` for ours alone, `-` for theirs alone; `part + item`.
fn differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let (ours, theirs) = (facts(ours), facts(theirs));
    let told = |fact: &String, sign: &str| {
        let (part, item) = fact.split_once(' ').unwrap();
        format!("{part} {sign} {item}")
    };
    let mut found: Vec<String> = ours.difference(&theirs).map(|fact| told(fact, "+")).collect();
    found.extend(theirs.difference(&ours).map(|fact| told(fact, "-")));
    found
}

async fn list(lab: &Lab, path: &str) -> Vec<Value> {
    lab.get(path).await["items"].as_array().unwrap().clone()
}

fn is_control_plane(object: &Value) -> bool {
    object["metadata"]["labels"].get("cluster.x-k8s.io/control-plane").is_some()
}

/// The user's control plane, as far as every machine has an address and no node answers.
async fn waiting_for_nodes(spec: &Value) -> Lab {
    let mut lab = Lab::new(11, Defects::none()).await;
    lab.apply_manifests(3).await;
    let config = &spec["controlPlaneConfig"]["controlplane"];
    let wanted =
        json!({ "generateType": "controlplane", "talosVersion": config["talosVersion"], "configPatches": config["configPatches"] });
    lab.merge(CONTROL_PLANE, json!({ "spec": { "version": spec["version"], "controlPlaneConfig": { "controlplane": wanted } } })).await;
    for number in 10..13 {
        lab.nodes.truth.lock().unwrap().silent.insert(format!("10.0.0.{number}"));
    }
    lab.start();
    let is_there =
        |lab: &Lab| lab.condition("EtcdClusterHealthyCondition")["message"].as_str().is_some_and(|text| !text.contains("no address"));
    assert!(lab.run(60, is_there).await);
    lab.run(5, |_| false).await;
    // As in the recording, no node has been chosen; nobody has answered.
    assert!(lab.nodes.truth.lock().unwrap().bootstraps.is_empty());
    lab
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_looks_as_the_genuine_controllers_make_it() {
    let Some(theirs) = reference("taloscontrolplanes.yaml") else { return };
    let theirs = &theirs[0];
    let lab = waiting_for_nodes(&theirs["spec"]).await;
    let mut found = BTreeSet::new();
    let mut compare = |kind: &str, ours: &Value, theirs: &Value| {
        found.extend(differences(ours, theirs).into_iter().map(|difference| (kind.to_owned(), difference)));
    };
    let ours = lab.get(CONTROL_PLANE).await;
    compare("TalosControlPlane", &ours, theirs);
    assert_eq!(ours["status"]["replicas"], theirs["status"]["replicas"]);
    assert_eq!(ours["status"]["unavailableReplicas"], theirs["status"]["unavailableReplicas"]);

    let configs = list(&lab, &format!("/apis/bootstrap.cluster.x-k8s.io/v1alpha3/namespaces/{NAMESPACE}/talosconfigs")).await;
    let genuine = reference("talosconfigs.yaml").unwrap();
    compare("TalosConfig", &configs[0], &genuine[0]);
    let patches = |config: &Value| config["spec"]["configPatches"].clone();
    assert_eq!(patches(&configs[0]), patches(&genuine[0]));

    let machines = list(&lab, &format!("/apis/cluster.x-k8s.io/v1beta1/namespaces/{NAMESPACE}/machines")).await;
    let genuine = reference("machines.yaml").unwrap();
    let mut machine = genuine.iter().find(|machine| is_control_plane(machine)).unwrap().clone();
    // Told by vCenter, which is not here: the host, and the provider id that the infrastructure was given.
    machine["metadata"]["labels"].as_object_mut().unwrap().remove("node.cluster.x-k8s.io/esxi-host");
    compare("Machine", &machines[0], &machine);

    let infrastructure = list(&lab, &format!("/apis/infrastructure.cluster.x-k8s.io/v1beta1/namespaces/{NAMESPACE}/vspheremachines")).await;
    let genuine = reference("vspheremachines.yaml").unwrap();
    let genuine = genuine.iter().find(|machine| is_control_plane(machine)).unwrap();
    // What its own controller puts on is not here.
    let made = |object: &Value| json!({ "metadata": { "labels": object["metadata"]["labels"], "annotations": object["metadata"]["annotations"], "ownerReferences": object["metadata"]["ownerReferences"] } });
    compare("VSphereMachine", &made(&infrastructure[0]), &made(genuine));

    let by_end = |secrets: &[Value]| -> BTreeMap<&'static str, Value> {
        let ends = ["-talos", "-ca", "-talosconfig", "-kubeconfig", "-bootstrap-data"];
        let find = |end: &'static str| {
            let secret = secrets.iter().find(|secret| secret["metadata"]["name"].as_str().unwrap().ends_with(end));
            (end, secret.unwrap_or_else(|| panic!("no secret {end}")).clone())
        };
        ends.into_iter().map(find).collect()
    };
    let ours = by_end(&list(&lab, &format!("/api/v1/namespaces/{NAMESPACE}/secrets")).await);
    let genuine = by_end(&reference("secrets.yaml").unwrap());
    for (end, secret) in &ours {
        compare(end, secret, &genuine[end]);
    }

    let expected: BTreeSet<(String, String)> = DEVIATIONS.iter().map(|(kind, what)| ((*kind).to_owned(), (*what).to_owned())).collect();
    let unexpected: Vec<_> = found.difference(&expected).collect();
    let gone: Vec<_> = expected.difference(&found).collect();
    assert!(unexpected.is_empty() && gone.is_empty(), "not listed: {unexpected:#?}\nlisted, but not there: {gone:#?}");
}
