//! Which Node is a Machine's, and what it should carry. Pure.
//!
//! vCenter's BIOS UUID and what the guest reads from SMBIOS are the same 16 bytes, but the first three groups may come in the other byte
//! order, depending on the hardware version. Both readings are accepted, and only for a Node that no cloud provider has given an identity.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::cluster::{Machine, TaintPropagation};
use api::names::annotations;
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::{Map, Value, json};

use crate::edit::controller_reference;

/// The taint that Cluster API's bootstrap may put; taken away with the first labels.
pub const UNINITIALIZED_TAINT: &str = "node.cluster.x-k8s.io/uninitialized";

/// The UUID in a vSphere provider id, lower-case.
fn uuid_of(provider_id: &str) -> Option<String> {
    let uuid = provider_id.strip_prefix("vsphere://")?.to_ascii_lowercase();
    (uuid.len() == 36).then_some(uuid)
}

/// The UUID with the bytes of its first three groups in the other order.
fn swapped(uuid: &str) -> Option<String> {
    let groups: Vec<&str> = uuid.split('-').collect();
    let [a, b, c, d, e] = groups.as_slice() else { return None };
    let reversed = |group: &str| -> Option<String> {
        let bytes: Option<Vec<&str>> = (0..group.len()).step_by(2).map(|at| group.get(at..at + 2)).collect();
        Some(bytes?.into_iter().rev().collect())
    };
    Some(format!("{}-{}-{}-{d}-{e}", reversed(a)?, reversed(b)?, reversed(c)?))
}

/// The Node with this provider id; else the one whose system UUID is the machine's and that has no provider id. None when several claim it.
pub fn find(nodes: &[Arc<Node>], provider_id: &str) -> Option<Arc<Node>> {
    let id_of = |node: &Node| node.spec.as_ref().and_then(|spec| spec.provider_id.clone()).filter(|id| !id.is_empty());
    if let Some(node) = nodes.iter().find(|node| id_of(node).as_deref() == Some(provider_id)) {
        return Some(Arc::clone(node));
    }
    let uuid = uuid_of(provider_id)?;
    let other = swapped(&uuid)?;
    let mut matching = nodes.iter().filter(|node| {
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        let told = info.map(|info| info.system_uuid.to_ascii_lowercase());
        id_of(node).is_none() && told.is_some_and(|told| told == uuid || told == other)
    });
    let first = matching.next()?;
    matching.next().is_none().then(|| Arc::clone(first))
}

/// Whether a Machine's label is carried over to its Node.
pub fn is_synced_label(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return false };
    let is_in = |base: &str| domain == base || domain.ends_with(&format!(".{base}"));
    domain == "node-role.kubernetes.io" || is_in("node-restriction.kubernetes.io") || is_in("node.cluster.x-k8s.io")
}

/// What the Node lacks, as one merge patch; none when it lacks nothing. Lists are replaced whole, so the patch then carries the revision.
pub fn patch(node: &Node, machine: &Machine, provider_id: &str) -> Option<Value> {
    let mut metadata = Map::new();
    let mut spec = Map::new();
    if node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref()).is_none_or(str::is_empty) {
        spec.insert("providerID".to_owned(), json!(provider_id));
    }
    let empty = BTreeMap::new();
    let node_annotations = node.metadata.annotations.as_ref().unwrap_or(&empty);
    let node_labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let machine_labels = machine.metadata.labels.as_ref().unwrap_or(&empty);

    let wanted_labels: BTreeMap<&String, &String> = machine_labels.iter().filter(|(key, _)| is_synced_label(key)).collect();
    let mut labels = Map::new();
    for (key, value) in &wanted_labels {
        if node_labels.get(*key) != Some(value) {
            labels.insert((*key).clone(), json!(value));
        }
    }
    // Labels that came from the machine earlier and are not its any more.
    let earlier = node_annotations.get(annotations::NODE_LABELS_FROM_MACHINE).map(String::as_str).unwrap_or_default();
    for key in earlier.split(',').filter(|key| !key.is_empty()) {
        if !wanted_labels.keys().any(|wanted| *wanted == key) && node_labels.contains_key(key) {
            labels.insert(key.to_owned(), Value::Null);
        }
    }
    let mut new_annotations = Map::new();
    for (key, value) in wanted_annotations(machine, &wanted_labels) {
        if node_annotations.get(key) != Some(&value) {
            new_annotations.insert(key.to_owned(), json!(value));
        }
    }
    if let Some(taints) = taints(node, machine, node_annotations) {
        spec.insert("taints".to_owned(), json!(taints));
        metadata.insert("resourceVersion".to_owned(), json!(node.metadata.resource_version));
    }
    if !labels.is_empty() {
        metadata.insert("labels".to_owned(), Value::Object(labels));
    }
    if !new_annotations.is_empty() {
        metadata.insert("annotations".to_owned(), Value::Object(new_annotations));
    }
    if metadata.is_empty() && spec.is_empty() {
        return None;
    }
    metadata.insert("uid".to_owned(), json!(node.metadata.uid));
    let mut patch = Map::new();
    patch.insert("metadata".to_owned(), Value::Object(metadata));
    if !spec.is_empty() {
        patch.insert("spec".to_owned(), Value::Object(spec));
    }
    Some(Value::Object(patch))
}

fn wanted_annotations(machine: &Machine, labels: &BTreeMap<&String, &String>) -> Vec<(&'static str, String)> {
    let meta = &machine.metadata;
    let mut wanted = vec![
        (annotations::NODE_CLUSTER_NAME, machine.spec.cluster_name.clone()),
        (annotations::NODE_CLUSTER_NAMESPACE, meta.namespace.clone().unwrap_or_default()),
        (annotations::NODE_MACHINE, meta.name.clone().unwrap_or_default()),
        (annotations::NODE_LABELS_FROM_MACHINE, labels.keys().map(|key| key.as_str()).collect::<Vec<_>>().join(",")),
    ];
    if let Some(owner) = controller_reference(meta) {
        wanted.push((annotations::NODE_OWNER_KIND, owner.kind.clone()));
        wanted.push((annotations::NODE_OWNER_NAME, owner.name.clone()));
    }
    let taints = taints_from_machine(machine);
    if !taints.is_empty() {
        wanted.push((annotations::NODE_TAINTS_FROM_MACHINE, taints));
    }
    wanted
}

fn taints_from_machine(machine: &Machine) -> String {
    machine.spec.taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect::<Vec<_>>().join(",")
}

/// The Node's taints as they should be, when they are not: without the uninitialized one, with the Machine's own.
fn taints(node: &Node, machine: &Machine, annotations_now: &BTreeMap<String, String>) -> Option<Vec<Taint>> {
    let present: Vec<Taint> = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut wanted: Vec<Taint> = present.iter().filter(|taint| taint.key != UNINITIALIZED_TAINT).cloned().collect();
    let is_initialized = annotations_now.contains_key(annotations::NODE_MACHINE);
    for taint in &machine.spec.taints {
        let is_due = taint.propagation == TaintPropagation::Always || !is_initialized;
        let known = wanted.iter_mut().find(|known| known.key == taint.key && known.effect == taint.effect.as_str());
        match known {
            Some(known) if taint.propagation == TaintPropagation::Always => known.value.clone_from(&taint.value),
            Some(_) => {}
            None if is_due => wanted.push(Taint {
                key: taint.key.clone(),
                effect: taint.effect.as_str().to_owned(),
                value: taint.value.clone(),
                time_added: None,
            }),
            None => {}
        }
    }
    (wanted != present).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(value: Value) -> Arc<Node> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn with_uuid(name: &str, uuid: &str, provider_id: Option<&str>) -> Arc<Node> {
        let mut value = json!({"metadata": {"name": name, "uid": name, "resourceVersion": "7"}, "spec": {}, "status": {"nodeInfo": {
            "systemUUID": uuid, "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
            "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "linux", "osImage": ""}}});
        if let Some(id) = provider_id {
            value["spec"]["providerID"] = json!(id);
        }
        node(value)
    }

    const ID: &str = "vsphere://b95b13fa-dd72-5777-8b59-51ecae5d0371";

    #[test]
    fn a_node_is_found_by_provider_id_then_by_uuid_in_either_byte_order() {
        let by_id = with_uuid("a", "x", Some(ID));
        let straight = with_uuid("b", "B95B13FA-DD72-5777-8B59-51ECAE5D0371", None);
        let turned = with_uuid("c", "fa135bb9-72dd-7757-8b59-51ecae5d0371", None);
        let foreign = with_uuid("d", "b95b13fa-dd72-5777-8b59-51ecae5d0371", Some("vsphere://other"));
        let other = with_uuid("e", "00000000-dd72-5777-8b59-51ecae5d0371", None);
        let name = |nodes: &[Arc<Node>]| find(nodes, ID).and_then(|node| node.metadata.name.clone());
        assert_eq!(name(&[Arc::clone(&straight), Arc::clone(&by_id)]).as_deref(), Some("a"));
        assert_eq!(name(&[Arc::clone(&other), Arc::clone(&straight)]).as_deref(), Some("b"));
        assert_eq!(name(&[Arc::clone(&other), Arc::clone(&turned)]).as_deref(), Some("c"));
        assert_eq!(name(&[foreign, other]), None, "an identity that somebody else gave is never taken over");
        assert_eq!(name(&[straight, turned]), None, "two Nodes that claim the same machine are both left alone");
        assert_eq!(find(&[with_uuid("f", "", None)], "aws:///x").map(|n| n.metadata.name.clone()), None);
    }

    #[test]
    fn labels_of_three_domains_are_carried_over() {
        for key in ["node-role.kubernetes.io/worker", "node-restriction.kubernetes.io/a", "x.node-restriction.kubernetes.io/a"] {
            assert!(is_synced_label(key), "{key}");
        }
        assert!(is_synced_label("node.cluster.x-k8s.io/esxi-host") && is_synced_label("a.node.cluster.x-k8s.io/b"));
        for key in ["nodepool", "cluster.x-k8s.io/cluster-name", "x.node-role.kubernetes.io/a", "anode.cluster.x-k8s.io/b"] {
            assert!(!is_synced_label(key), "{key}");
        }
    }

    #[test]
    fn a_patch_brings_what_is_missing_and_the_second_none() {
        let machine: Machine = serde_json::from_value(json!({
            "metadata": {"name": "m", "namespace": "ns", "labels": {"node.cluster.x-k8s.io/esxi-host": "h1", "nodepool": "a"},
                "ownerReferences": [{"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineSet", "name": "s", "uid": "u", "controller": true}]},
            "spec": {"clusterName": "c", "bootstrap": {}, "infrastructureRef": {"apiGroup": "g", "kind": "K", "name": "n"},
                "taints": [{"key": "own", "effect": "NoSchedule", "propagation": "Always"}, {"key": "once", "effect": "NoExecute", "propagation": "OnInitialization"}]},
        }))
        .unwrap();
        let mut value = json!({"metadata": {"name": "m", "uid": "u1", "resourceVersion": "7",
                "labels": {"node.cluster.x-k8s.io/old": "x", "kept": "y"}, "annotations": {"cluster.x-k8s.io/labels-from-machine": "node.cluster.x-k8s.io/old"}},
            "spec": {"taints": [{"key": UNINITIALIZED_TAINT, "effect": "NoSchedule"}, {"key": "node.cloudprovider.kubernetes.io/uninitialized", "effect": "NoSchedule", "value": "true"}]}});
        let change = patch(&node(value.clone()), &machine, ID).unwrap();
        assert_eq!(
            change,
            json!({"metadata": {"uid": "u1", "resourceVersion": "7",
                    "labels": {"node.cluster.x-k8s.io/esxi-host": "h1", "node.cluster.x-k8s.io/old": null},
                    "annotations": {"cluster.x-k8s.io/cluster-name": "c", "cluster.x-k8s.io/cluster-namespace": "ns", "cluster.x-k8s.io/machine": "m",
                        "cluster.x-k8s.io/labels-from-machine": "node.cluster.x-k8s.io/esxi-host", "cluster.x-k8s.io/owner-kind": "MachineSet",
                        "cluster.x-k8s.io/owner-name": "s", "cluster.x-k8s.io/taints-from-machine": "own:NoSchedule,once:NoExecute"}},
                "spec": {"providerID": ID, "taints": [{"key": "node.cloudprovider.kubernetes.io/uninitialized", "effect": "NoSchedule", "value": "true"},
                    {"key": "own", "effect": "NoSchedule"}, {"key": "once", "effect": "NoExecute"}]}})
        );
        json_patch::merge(&mut value, &change);
        assert_eq!(patch(&node(value.clone()), &machine, ID), None);
        // A taint that is put once stays away when somebody removes it; one that is always wanted comes back.
        value["spec"]["taints"] = json!([]);
        let change = patch(&node(value), &machine, ID).unwrap();
        assert_eq!(change["spec"]["taints"], json!([{"key": "own", "effect": "NoSchedule"}]));
    }
}
