//! Versions into each other and back: nothing is lost, and what somebody changed meanwhile is not undone.

use api::Webhooks;
use apimachinery::admission::Conversion;
use serde_json::{Value, json};

use crate::reference;

fn convert(object: &Value, version: &str) -> Value {
    Webhooks.convert(object.clone(), version).unwrap_or_else(|error| panic!("{error}: {object}"))
}

fn hub_of(object: &Value) -> (String, String) {
    let (group, version) = object["apiVersion"].as_str().unwrap().split_once('/').unwrap();
    let crd = api::crds()
        .into_iter()
        .find(|crd| crd["spec"]["group"] == group && crd["spec"]["names"]["kind"] == object["kind"])
        .unwrap_or_else(|| panic!("{}", object["kind"]));
    let hub = crd["spec"]["versions"].as_array().unwrap().iter().find(|one| one["storage"] == true).unwrap()["name"].clone();
    (version.to_owned(), hub.as_str().unwrap().to_owned())
}

/// The hub type of a kind reads an object and writes the same.
fn through_type(object: &Value) -> Value {
    fn pass<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Value {
        let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object:#}"));
        serde_json::to_value(&typed).unwrap()
    }
    match object["kind"].as_str().unwrap() {
        "Cluster" => pass::<api::cluster::Cluster>(object),
        "Machine" => pass::<api::cluster::Machine>(object),
        "MachineSet" => pass::<api::cluster::MachineSet>(object),
        "MachineDeployment" => pass::<api::cluster::MachineDeployment>(object),
        "MachineHealthCheck" => pass::<api::cluster::MachineHealthCheck>(object),
        "TalosControlPlane" => pass::<api::controlplane::TalosControlPlane>(object),
        "TalosConfig" => pass::<api::bootstrap::TalosConfig>(object),
        "TalosConfigTemplate" => pass::<api::bootstrap::TalosConfigTemplate>(object),
        "VSphereCluster" => pass::<api::infrastructure::VSphereCluster>(object),
        "VSphereMachine" => pass::<api::infrastructure::VSphereMachine>(object),
        "VSphereMachineTemplate" => pass::<api::infrastructure::VSphereMachineTemplate>(object),
        "VSphereVM" => pass::<api::infrastructure::VSphereVM>(object),
        "InClusterIPPool" => pass::<api::ipam::InClusterIPPool>(object),
        "IPAddressClaim" => pass::<api::ipam::IPAddressClaim>(object),
        "IPAddress" => pass::<api::ipam::IPAddress>(object),
        kind => panic!("{kind}"),
    }
}

/// Keys sorted and times cut to seconds alike, so that only content is compared.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            Value::Object(keys.into_iter().map(|key| (key.clone(), canonical(&map[key]))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(canonical).collect()),
        other => other.clone(),
    }
}

#[test]
fn what_the_genuine_controllers_wrote_survives() {
    let Some(files) = reference::files("kubernetes/objects") else { return };
    let mut seen = std::collections::BTreeSet::new();
    for (file, text) in files {
        for item in reference::documents(&text).iter().flat_map(|list| list["items"].as_array().cloned().unwrap_or_default()) {
            if !item["apiVersion"].as_str().unwrap_or_default().contains("cluster.x-k8s.io") {
                continue;
            }
            seen.insert(item["kind"].as_str().unwrap().to_owned());
            let (version, hub) = hub_of(&item);
            let stored = convert(&item, &hub);
            assert_eq!(canonical(&through_type(&stored)), canonical(&stored), "{file}: the type loses something");
            let back = convert(&stored, &version);
            assert_eq!(canonical(&back), canonical(&item), "{file}");
            assert_eq!(canonical(&convert(&back, &hub)), canonical(&stored), "{file}");
        }
    }
    assert!(seen.len() >= 14, "{seen:?}");
}

#[test]
fn a_cluster_in_both_shapes() {
    let old = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Cluster", "metadata": {"name": "a", "namespace": "n"},
        "spec": {"controlPlaneEndpoint": {"host": "", "port": 0},
                 "infrastructureRef": {"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "VSphereCluster", "name": "a"}},
        "status": {"infrastructureReady": true, "failureDomains": {"z1": {"controlPlane": true}},
                   "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                   "v1beta2": {"conditions": [{"type": "Available", "status": "True", "reason": "A", "message": "",
                                               "lastTransitionTime": "2026-01-01T00:00:00Z"}]}},
    });
    let stored = convert(&old, "v1beta2");
    assert_eq!(
        stored["spec"]["infrastructureRef"],
        json!({"kind": "VSphereCluster", "name": "a", "apiGroup": "infrastructure.cluster.x-k8s.io"})
    );
    assert!(stored["spec"].get("controlPlaneEndpoint").is_none());
    assert_eq!(stored["status"]["initialization"], json!({"infrastructureProvisioned": true}));
    assert_eq!(stored["status"]["failureDomains"], json!([{"controlPlane": true, "name": "z1"}]));
    assert_eq!(stored["status"]["conditions"][0]["type"], "Available");
    assert_eq!(stored["status"]["deprecated"]["v1beta1"]["conditions"][0]["type"], "Ready");
    let back = convert(&stored, "v1beta1");
    assert_eq!(back["spec"]["infrastructureRef"]["apiVersion"], "infrastructure.cluster.x-k8s.io/v1beta1");
    assert_eq!(back["spec"]["infrastructureRef"]["namespace"], "n");
    assert_eq!(back["spec"]["controlPlaneEndpoint"], json!({"host": "", "port": 0}));
    assert_eq!(back["status"], old["status"]);
    assert!(back["metadata"].get("annotations").is_none(), "{back:#}");
}

#[test]
fn changes_made_meanwhile_win() {
    let old = json!({
        "apiVersion": "ipam.cluster.x-k8s.io/v1alpha1", "kind": "InClusterIPPool", "metadata": {"name": "p", "namespace": "n"},
        "spec": {"start": "10.0.0.10", "end": "10.0.0.20", "prefix": 24, "gateway": "10.0.0.1"},
    });
    let mut stored = convert(&old, "v1alpha2");
    assert_eq!(stored["spec"], json!({"prefix": 24, "gateway": "10.0.0.1", "addresses": ["10.0.0.10-10.0.0.20"]}));
    assert_eq!(canonical(&convert(&stored, "v1alpha1")), canonical(&old));
    stored["spec"]["addresses"] = json!(["10.0.0.10-10.0.0.30"]);
    stored["spec"]["excludedAddresses"] = json!(["10.0.0.15"]);
    let shown = convert(&stored, "v1alpha1");
    assert_eq!(shown["spec"]["addresses"], json!(["10.0.0.10-10.0.0.30"]));
    // Written back in the old version, what only the new one has is still there.
    let again = convert(&shown, "v1alpha2");
    assert_eq!(again["spec"]["excludedAddresses"], json!(["10.0.0.15"]));
    assert_eq!(again["spec"]["addresses"], json!(["10.0.0.10-10.0.0.30"]));
}

#[test]
fn a_subnet_leaves_out_its_ends() {
    let old = json!({
        "apiVersion": "ipam.cluster.x-k8s.io/v1alpha1", "kind": "GlobalInClusterIPPool", "metadata": {"name": "p"},
        "spec": {"subnet": "10.0.0.0/24", "gateway": "10.0.0.1"},
    });
    let stored = convert(&old, "v1alpha2");
    assert_eq!(stored["spec"], json!({"gateway": "10.0.0.1", "addresses": ["10.0.0.1-10.0.0.254"], "prefix": 24}));
    assert_eq!(canonical(&convert(&stored, "v1alpha1")), canonical(&old));
}

#[test]
fn join_is_stored_as_worker_and_read_as_join() {
    let old = json!({
        "apiVersion": "bootstrap.cluster.x-k8s.io/v1alpha3", "kind": "TalosConfigTemplate", "metadata": {"name": "p"},
        "spec": {"template": {"spec": {"generateType": "join", "talosVersion": "v1.4"}}},
    });
    let stored = convert(&old, "v1beta1");
    assert_eq!(stored["spec"]["template"]["spec"]["generateType"], "worker");
    assert_eq!(canonical(&convert(&stored, "v1alpha3")), canonical(&old));
}

#[test]
fn what_cannot_be_read_is_one_clear_error() {
    let old = json!({
        "apiVersion": "cluster.x-k8s.io/v1alpha4", "kind": "MachineHealthCheck", "metadata": {"name": "p", "namespace": "n"},
        "spec": {"clusterName": "c", "nodeStartupTimeout": "soon", "unhealthyConditions": [{"type": "Ready", "status": "False", "timeout": "5x"}]},
    });
    let error = Webhooks.convert(old, "v1beta2").unwrap_err();
    assert_eq!(error.code, 422);
    assert!(error.message.contains("spec.nodeStartupTimeout: Invalid value: \"soon\""), "{}", error.message);
    assert!(error.message.contains("spec.unhealthyConditions[0].timeout"), "{}", error.message);
    let elsewhere = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Cluster", "metadata": {"name": "a", "namespace": "n"},
        "spec": {"infrastructureRef": {"apiVersion": "x/v1", "kind": "K", "name": "a", "namespace": "m"}},
    });
    let error = Webhooks.convert(elsewhere, "v1beta2").unwrap_err();
    assert!(error.message.contains("spec.infrastructureRef.namespace"), "{}", error.message);
}

#[test]
fn hub_only_fields_survive_an_older_client() {
    let stored = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine", "metadata": {"name": "m", "namespace": "n"},
        "spec": {"clusterName": "c", "bootstrap": {"dataSecretName": "s"}, "minReadySeconds": 5,
                 "infrastructureRef": {"apiGroup": "g.io", "kind": "K", "name": "i"}, "deletion": {"nodeDrainTimeoutSeconds": 80}},
    });
    let mut shown = convert(&stored, "v1beta1");
    assert_eq!(shown["spec"]["nodeDrainTimeout"], "1m20s");
    shown["spec"]["nodeDrainTimeout"] = json!("90s");
    let again = convert(&shown, "v1beta2");
    assert_eq!(again["spec"]["minReadySeconds"], 5);
    assert_eq!(again["spec"]["deletion"], json!({"nodeDrainTimeoutSeconds": 90}));
}

/// Makes objects that fit a schema, from a seed: every field comes and goes, texts are such that they can be durations.
struct Maker(u64);

impl Maker {
    fn below(&mut self, limit: u64) -> u64 {
        // SplitMix64: enough to choose with.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        if let Some(words) = schema["enum"].as_array() {
            return words[usize::try_from(self.below(words.len() as u64)).unwrap()].clone();
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return if self.below(2) == 0 { json!(self.below(100)) } else { json!("40%") };
        }
        match schema["type"].as_str() {
            Some("string") => json!(
                ["45s", "5m", "1h30m0s", ""][usize::try_from(self.below(if schema["format"] == "date-time" { 1 } else { 4 })).unwrap()]
            ),
            Some("integer") => json!(self.below(3)),
            Some("boolean") => json!(self.below(2) == 0),
            Some("array") => Value::Array((0..self.below(3)).map(|_| self.value(&schema["items"], depth + 1)).collect()),
            Some("object") => self.object(schema, depth),
            _ => json!({"any": [1, "x"]}),
        }
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let mut map = serde_json::Map::new();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let is_reference = schema["properties"].get("apiVersion").is_some() && schema["properties"].get("namespace").is_some();
            match name.as_str() {
                "namespace" if is_reference => map.insert(name.clone(), json!("n")),
                "apiVersion" if is_reference => map.insert(name.clone(), json!("some.group/v1")),
                _ if self.below(3) > 0 => {
                    let value = self.value(property, depth + 1);
                    // A duration is never empty; everything else may be.
                    let value = if value == "" && name.to_lowercase().ends_with("timeout") { json!("90s") } else { value };
                    map.insert(name.clone(), value)
                }
                _ => None,
            };
        }
        if schema["additionalProperties"].is_object() {
            for name in ["k1", "k2"] {
                let value = self.value(&schema["additionalProperties"], depth + 1);
                map.insert(name.to_owned(), value);
            }
        }
        Value::Object(map)
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    /// Whatever fits a version's schema is given back unchanged after it was stored, and what is stored survives every older client.
    #[test]
    fn no_version_loses_anything(seed: u64) {
        let mut maker = Maker(seed);
        for crd in api::crds() {
            let versions = crd["spec"]["versions"].as_array().unwrap();
            let hub = versions.iter().find(|one| one["storage"] == true).unwrap()["name"].as_str().unwrap();
            for version in versions.iter().filter(|one| one["storage"] == false) {
                let name = version["name"].as_str().unwrap();
                for (from, to) in [(name, hub), (hub, name)] {
                    let schema = &versions.iter().find(|one| one["name"] == from).unwrap()["schema"]["openAPIV3Schema"];
                    let mut object = maker.object(schema, 0);
                    object["apiVersion"] = json!(format!("{}/{from}", crd["spec"]["group"].as_str().unwrap()));
                    object["kind"] = crd["spec"]["names"]["kind"].clone();
                    object["metadata"] = json!({"name": "o", "namespace": "n", "annotations": {"a": "b"}});
                    let there = convert(&object, to);
                    let back = convert(&there, from);
                    proptest::prop_assert_eq!(canonical(&back), canonical(&object), "{} {} to {}: {}", &object["kind"], from, to, there);
                }
            }
        }
    }
}
