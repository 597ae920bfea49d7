//! The hub types read and write what Kubernetes does.

use api::cluster::{Cluster, MachineDeployment};
use api::infrastructure::VSphereVM;
use serde_json::json;

#[test]
fn absent_fields_are_left_out() {
    let cluster: Cluster = serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": "a"},
        "spec": {"clusterNetwork": {"pods": {"cidrBlocks": ["10.0.0.0/8"]}}},
    }))
    .unwrap();
    assert_eq!(cluster.spec.cluster_network.pods.cidr_blocks, ["10.0.0.0/8"]);
    assert_eq!(
        serde_json::to_value(&cluster).unwrap(),
        json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": "a"},
            "spec": {"clusterNetwork": {"pods": {"cidrBlocks": ["10.0.0.0/8"]}}},
        })
    );
}

#[test]
fn flattened_fields_stand_beside_the_others() {
    let value = json!({
        "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2", "kind": "VSphereVM", "metadata": {"name": "a"},
        "spec": {"template": "talos", "numCPUs": 2, "biosUUID": "u", "additionalDisksGiB": [10],
                 "network": {"devices": [{"networkName": "n", "dhcp4": false}]}},
        "status": {"ready": true, "vmRef": "vm-1"},
    });
    let vm: VSphereVM = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(vm.spec.clone.template, "talos");
    assert_eq!(serde_json::to_value(&vm).unwrap(), value);
}

#[test]
fn schemas_hold_limits_and_required_fields() {
    let schema = api::schema::structural::<MachineDeployment>();
    let spec = &schema["properties"]["spec"];
    assert_eq!(spec["required"], json!(["clusterName", "selector", "template"]));
    assert_eq!(spec["properties"]["clusterName"]["maxLength"], 63);
    assert_eq!(spec["properties"]["remediation"]["properties"]["maxInFlight"]["x-kubernetes-int-or-string"], true);
    assert_eq!(spec["properties"]["replicas"]["format"], "int32");
    let text = schema.to_string();
    for word in ["$ref", "nullable", "allOf", "\"null\"", "\"default\""] {
        assert!(!text.contains(word), "{word} in {}", serde_json::to_string_pretty(&schema).unwrap());
    }
}
