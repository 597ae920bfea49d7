//! The Node object a kubelet registers, from the machine and its configuration.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cache::list;
use crate::node::configuration::{Configuration, Taint};
use crate::node::state::Machine;

pub(crate) const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";
pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// The UUID as the guest's firmware shows it: on the hardware versions in use the first three groups are in the other byte order than
/// in vCenter.
pub(crate) fn swapped(uuid: &str) -> Option<String> {
    let uuid = uuid::Uuid::parse_str(uuid).ok()?;
    Some(uuid::Uuid::from_bytes(uuid.to_bytes_le()).hyphenated().to_string())
}

/// The object as it is registered for the first time.
pub(crate) fn registration(machine: &Machine, configuration: &Configuration, now: Timestamp) -> Value {
    let mut labels: BTreeMap<String, String> = BTreeMap::from([
        ("beta.kubernetes.io/arch".to_owned(), "amd64".to_owned()),
        ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), "amd64".to_owned()),
        ("kubernetes.io/hostname".to_owned(), machine.hostname.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
    ]);
    if configuration.is_control_plane() {
        labels.insert(CONTROL_PLANE.to_owned(), String::new());
    }
    labels.extend(configuration.node_labels.clone());
    let own = configuration.kubelet.extra_args.get("node-labels").map(String::as_str).unwrap_or_default();
    labels.extend(own.split(',').filter_map(|pair| pair.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())));
    let mut annotations = configuration.node_annotations.clone();
    annotations.insert("node.alpha.kubernetes.io/ttl".to_owned(), "0".to_owned());
    annotations.insert("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned());
    let mut spec = json!({"taints": taints(configuration)});
    if let (Some(id), Some(map)) = (configuration.kubelet.extra_args.get("provider-id"), spec.as_object_mut()) {
        map.insert("providerID".to_owned(), json!(id));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": machine.hostname, "labels": labels, "annotations": annotations},
        "spec": spec,
        "status": status(machine, configuration, false, now),
    })
}

/// Taints at registration: the kubelet's own, the role's, and the one of a node that is not ready yet.
fn taints(configuration: &Configuration) -> Vec<Value> {
    let taint = |key: &str, value: &str, effect: &str| Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() };
    let mut all = configuration.kubelet.register_with_taints.clone();
    all.extend(configuration.node_taints.clone());
    let asks_for_cloud = configuration.kubelet.extra_args.get("cloud-provider").is_some_and(|provider| provider == "external");
    if configuration.cluster.external_cloud_provider || asks_for_cloud {
        all.push(taint(UNINITIALIZED, "true", "NoSchedule"));
    }
    if configuration.is_control_plane() && !configuration.cluster.schedules_on_control_planes {
        all.push(taint(CONTROL_PLANE, "", "NoSchedule"));
    }
    all.push(taint(NOT_READY, "", "NoSchedule"));
    let mut seen = Vec::new();
    all.retain(|taint| {
        let identity = (taint.key.clone(), taint.effect.clone());
        let is_new = !seen.contains(&identity);
        seen.push(identity);
        is_new
    });
    all.into_iter()
        .map(|taint| {
            let mut value = json!({"key": taint.key, "effect": taint.effect});
            if let Some(map) = value.as_object_mut().filter(|_| !taint.value.is_empty()) {
                map.insert("value".to_owned(), json!(taint.value));
            }
            value
        })
        .collect()
}

/// What the kubelet reports.
pub(crate) fn status(machine: &Machine, configuration: &Configuration, is_ready: bool, now: Timestamp) -> Value {
    let uuid = swapped(&machine.vm.bios_uuid).unwrap_or_else(|| machine.vm.bios_uuid.clone());
    let mut addresses: Vec<Value> =
        machine.primary().map(|address| json!({"type": "InternalIP", "address": address.to_string()})).into_iter().collect();
    addresses.push(json!({"type": "Hostname", "address": machine.hostname}));
    let resources = json!({"cpu": "2", "ephemeral-storage": "9191Mi", "hugepages-2Mi": "0", "memory": "3926Mi", "pods": "110"});
    json!({
        "capacity": resources,
        "allocatable": {"cpu": "1950m", "ephemeral-storage": "8191Mi", "hugepages-2Mi": "0", "memory": "3414Mi", "pods": "110"},
        "addresses": addresses,
        "conditions": conditions(is_ready, now),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "machineID": uuid.replace('-', ""),
            "systemUUID": uuid,
            "bootID": machine.boot_id(),
            "kernelVersion": machine.release.kernel(),
            "osImage": format!("Talos ({})", machine.release),
            "containerRuntimeVersion": format!("containerd://{}", machine.release.containerd()),
            "kubeletVersion": configuration.kubelet_version,
            "kubeProxyVersion": configuration.kubelet_version,
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
    })
}

fn conditions(is_ready: bool, now: Timestamp) -> Vec<Value> {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now, "lastTransitionTime": now});
    let mut all = vec![
        condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ];
    all.push(if is_ready {
        condition("Ready", "True", "KubeletReady", "kubelet is posting ready status")
    } else {
        let message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized";
        condition("Ready", "False", "KubeletNotReady", message)
    });
    all
}

/// The conditions of a node nobody hears from.
pub(crate) fn lost(node: &Value, now: Timestamp) -> Vec<Value> {
    let mut conditions = list(node, "/status/conditions").to_vec();
    for condition in &mut conditions {
        if let Some(map) = condition.as_object_mut() {
            map.insert("status".to_owned(), json!("Unknown"));
            map.insert("reason".to_owned(), json!("NodeStatusUnknown"));
            map.insert("message".to_owned(), json!("Kubelet stopped posting node status."));
            map.insert("lastTransitionTime".to_owned(), json!(now));
        }
    }
    conditions
}

/// The status of the condition `Ready`.
pub(crate) fn readiness(node: &Value) -> &str {
    let ready = list(node, "/status/conditions").iter().find(|condition| condition.get("type").is_some_and(|kind| kind == "Ready"));
    ready.and_then(|condition| condition.get("status")).and_then(Value::as_str).unwrap_or("Unknown")
}

/// The node's taints after readiness was taken into account; `None` when nothing changes.
pub(crate) fn settled_taints(node: &Value) -> Option<Vec<Value>> {
    let taints = list(node, "/spec/taints");
    let wanted: &[(&str, &str)] = match readiness(node) {
        "True" => &[],
        "False" => &[(NOT_READY, "NoSchedule")],
        _ => &[(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
    };
    let identity = |taint: &Value| {
        let part = |key: &str| taint.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        (part("key"), part("effect"))
    };
    let is_ours = |key: &str| key == NOT_READY || key == UNREACHABLE;
    let mut settled: Vec<Value> = taints
        .iter()
        .filter(|taint| {
            let (key, effect) = identity(taint);
            !is_ours(&key) || wanted.contains(&(key.as_str(), effect.as_str()))
        })
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !settled.iter().any(|taint| identity(taint) == ((*key).to_owned(), (*effect).to_owned())) {
            settled.push(json!({"key": key, "effect": effect}));
        }
    }
    (settled != taints).then_some(settled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_sees_the_first_three_groups_in_the_other_order() {
        assert_eq!(swapped("420D1E2F-3A4B-5C6D-7E8F-001122334455").as_deref(), Some("2f1e0d42-4b3a-6d5c-7e8f-001122334455"));
        assert_eq!(swapped("2f1e0d42-4b3a-6d5c-7e8f-001122334455").as_deref(), Some("420d1e2f-3a4b-5c6d-7e8f-001122334455"));
        assert_eq!(swapped("nonsense"), None);
    }

    #[test]
    fn taints_follow_readiness() {
        let node = |status: &str, taints: Value| json!({"spec": {"taints": taints}, "status": {"conditions": [{"type": "Ready", "status": status}]}});
        let other = json!({"key": UNINITIALIZED, "effect": "NoSchedule"});
        let not_ready = json!({"key": NOT_READY, "effect": "NoSchedule"});
        assert_eq!(settled_taints(&node("True", json!([other, not_ready]))), Some(vec![other.clone()]));
        assert_eq!(settled_taints(&node("True", json!([other]))), None);
        assert_eq!(settled_taints(&node("False", json!([]))), Some(vec![not_ready.clone()]));
        let lost = settled_taints(&node("Unknown", json!([not_ready]))).unwrap();
        assert_eq!(lost.len(), 2);
        assert!(lost.iter().all(|taint| taint["key"] == UNREACHABLE));
    }
}
