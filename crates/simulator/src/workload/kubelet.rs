//! A machine's kubelet: registers the node with the first API server it reaches, says when its network is there, keeps its lease.
//!
//! It registers once a boot; a Node deleted by hand comes back only when the kubelet starts again.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::cache::text;
use super::client::{ApiError, Client};
use super::{Workload, node, pods};
use crate::hypervisor::VmId;
use crate::node::Nodes;
use crate::node::configuration::{Cni, Configuration};

/// How often the lease is renewed. A real kubelet does it every ten seconds; the simulated control plane knows without it who is alive.
const LEASE_RENEWAL: Duration = Duration::from_secs(600);

/// Pod networks that come as daemon sets, by a part of their name.
const NETWORKS: [&str; 7] = ["cilium", "calico", "flannel", "antrea", "weave", "kube-router", "canal"];

/// Runs until the machine stops.
pub(crate) async fn run(nodes: &Nodes, id: &VmId, configuration: &Arc<Configuration>, realm: &str) {
    let mut signal = nodes.watch(realm);
    loop {
        signal.mark_unchanged();
        let (is_registered, reachable) = {
            let state = nodes.state();
            let is_registered = state.machines.get(id).is_some_and(|machine| machine.is_registered);
            (is_registered, state.reachable(realm))
        };
        if let Some(workload) = reachable.filter(|_| !is_registered) {
            nodes.pause(nodes.options().latency.kubelet).await;
            match register(nodes, id, configuration, &workload).await {
                Ok(()) => {
                    if let Some(machine) = nodes.state().machines.get_mut(id) {
                        machine.is_registered = true;
                    }
                    nodes.event(Some(realm), &format!("{id}: the node is registered"));
                    let lasting = serve(nodes, id, configuration, &workload);
                    tokio::select! {
                        biased;
                        () = restarted(nodes, id, realm) => {}
                        () = lasting => {}
                    }
                    continue;
                }
                Err(error) => nodes.say(id, &format!("user: warning: [talos] kubelet: unable to register node with API server: {error}")),
            }
        }
        if signal.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until somebody restarted the kubelet.
async fn restarted(nodes: &Nodes, id: &VmId, realm: &str) {
    let mut signal = nodes.watch(realm);
    while nodes.state().machines.get(id).is_some_and(|machine| machine.is_registered) {
        if signal.changed().await.is_err() {
            return;
        }
    }
}

fn client(workload: &Workload, name: &str) -> Client {
    workload.client(&format!("system:node:{name}"), &["system:nodes"])
}

fn hostname(nodes: &Nodes, id: &VmId) -> String {
    nodes.state().machines.get(id).map(|machine| machine.hostname.clone()).unwrap_or_default()
}

async fn register(nodes: &Nodes, id: &VmId, configuration: &Configuration, workload: &Workload) -> Result<(), ApiError> {
    let now = nodes.options().clock.now_seconds();
    let name = hostname(nodes, id);
    let client = client(workload, &name);
    let object = nodes.state().machines.get(id).map(|machine| node::registration(machine, configuration, now)).unwrap_or_default();
    match client.create("/api/v1/nodes", &object).await {
        Ok(_) => {}
        // The node it was before: it keeps what others wrote, and its kubelet's report is new.
        Err(error) if error.code == 409 => {
            let status = object.get("status").cloned().unwrap_or_default();
            client.merge(&format!("/api/v1/nodes/{name}/status"), &json!({"status": status})).await?;
        }
        Err(error) => return Err(error),
    }
    if configuration.is_control_plane() {
        let uid = workload.cache().get("nodes", "", &name).map(|node| text(&node, "/metadata/uid").to_owned()).unwrap_or_default();
        for pod in pods::static_pods(configuration, &name, &uid) {
            match client.create("/api/v1/namespaces/kube-system/pods", &pod).await {
                Err(error) if error.code != 409 => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Reports readiness once the pod network is there, and renews the lease.
async fn serve(nodes: &Nodes, id: &VmId, configuration: &Configuration, workload: &Workload) {
    let name = hostname(nodes, id);
    let client = client(workload, &name);
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
    let owner = workload.cache().get("nodes", "", &name).map(|node| text(&node, "/metadata/uid").to_owned()).unwrap_or_default();
    let object = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease", "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": owner}]},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro(nodes)},
    });
    let made = client.create("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", &object).await;
    if made.is_err() {
        let _ = client.merge(&lease, &json!({"spec": {"renewTime": micro(nodes)}})).await;
    }
    nodes.pause(nodes.options().latency.cni).await;
    wait_for_network(configuration, workload, &name).await;
    let now = nodes.options().clock.now_seconds();
    let status = nodes.state().machines.get(id).map(|machine| node::status(machine, configuration, true, now));
    if let Some(status) = status {
        let conditions = status.get("conditions").cloned().unwrap_or_default();
        let done = client.merge(&format!("/api/v1/nodes/{name}/status"), &json!({"status": {"conditions": conditions}})).await;
        if let Err(error) = done {
            nodes.say(id, &format!("user: warning: [talos] kubelet: error updating node status: {error}"));
        }
    }
    nodes.event(Some(&workload.realm), &format!("{id}: the node is ready"));
    loop {
        nodes.options().clock.sleep(LEASE_RENEWAL).await;
        if workload.is_served(nodes) {
            let _ = client.merge(&lease, &json!({"spec": {"renewTime": micro(nodes)}})).await;
        }
    }
}

/// A time as leases have it: with microseconds.
fn micro(nodes: &Nodes) -> String {
    format!("{:.6}", nodes.options().clock.now())
}

/// Flannel comes with Talos and unknown URLs count as applied. With `none`, some known network's pod must run on the node.
async fn wait_for_network(configuration: &Configuration, workload: &Workload, node: &str) {
    if configuration.cluster.cni != Cni::None {
        return;
    }
    let mut changed = workload.changed.subscribe();
    let is_there = |pod: &Value| {
        text(pod, "/spec/nodeName") == node
            && text(pod, "/status/phase") == "Running"
            && NETWORKS.iter().any(|network| super::cache::name(pod).contains(network))
    };
    while !workload.cache().list("pods").iter().any(|pod| is_there(pod)) {
        if changed.changed().await.is_err() {
            return;
        }
    }
}
