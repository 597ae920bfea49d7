//! Those who keep a cluster in order: the controller manager's part that matters here, the scheduler, the kubelets' starting and stopping
//! of pods, Talos' credentials for pods, VMware tools that run as pods, and the cloud provider's stand-in.
//!
//! One task per cluster. It waits for a change or for the next thing that falls due, and acts only while the API is served.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::cache::{is_deleted, list, name, namespace, text};
use super::client::Client;
use super::cloud_provider::CloudProvider;
use super::pods::{self, Seen, Step};
use super::{Workload, access, node};
use crate::hypervisor::VmId;
use crate::node::Nodes;
use crate::node::links::parse_cidr;

/// Acts for one cluster, for ever.
pub(super) async fn run(nodes: &Nodes, workload: &Arc<Workload>) {
    let mut controllers = Controllers {
        manager: workload.client("system:kube-controller-manager", &["system:masters"]),
        cloud: CloudProvider::new(workload),
        starting: BTreeMap::new(),
        silent: BTreeMap::new(),
    };
    let mut signal = nodes.watch(&workload.realm);
    let mut changed = workload.changed.subscribe();
    loop {
        signal.mark_unchanged();
        changed.mark_unchanged();
        let due = if workload.is_served(nodes) { controllers.act(nodes, workload).await } else { None };
        let due = async {
            match due {
                Some(at) => nodes.options().clock.sleep(at.saturating_duration_since(nodes.options().clock.instant())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            result = changed.changed() => if result.is_err() { return },
            result = signal.changed() => if result.is_err() { return },
            () = due => {}
        }
    }
}

struct Controllers {
    manager: Client,
    cloud: CloudProvider,
    /// When pods that can start will run.
    starting: BTreeMap<(String, String), Instant>,
    /// Since when nodes are silent.
    silent: BTreeMap<String, Instant>,
}

impl Controllers {
    /// Does what is to be done now. Returns when the next thing falls due.
    async fn act(&mut self, nodes: &Nodes, workload: &Arc<Workload>) -> Option<Instant> {
        let seen = {
            let cache = workload.cache();
            Seen {
                nodes: cache.list("nodes"),
                daemon_sets: cache.list("daemonsets"),
                deployments: cache.list("deployments"),
                budgets: cache.list("poddisruptionbudgets"),
                pods: cache.list("pods"),
            }
        };
        let alive = alive(nodes, workload);
        let lost = self.nodes(nodes, workload, &seen, &alive).await;
        self.pods(nodes, &seen).await;
        let started = self.starts(nodes, workload, &seen, &alive).await;
        let stopped = self.stops(nodes, &seen, &alive).await;
        self.readiness(&seen).await;
        self.counts(&seen).await;
        access::act(nodes, workload, &self.manager).await;
        tools(nodes, &seen, &alive);
        let cloud = self.cloud.act(nodes, workload, &seen).await;
        [lost, started, stopped, cloud].into_iter().flatten().min()
    }

    /// Pod networks, taints by readiness, and nodes nobody hears from.
    async fn nodes(&mut self, nodes: &Nodes, workload: &Workload, seen: &Seen, alive: &BTreeMap<String, VmId>) -> Option<Instant> {
        let clock = &nodes.options().clock;
        let grace = nodes.options().latency.node_grace;
        let mut due = None;
        let mut networks: BTreeSet<String> = seen.nodes.iter().map(|node| text(node, "/spec/podCIDR").to_owned()).collect();
        for object in seen.nodes.iter().filter(|node| !is_deleted(node)) {
            let name = name(object);
            let version = text(object, "/metadata/resourceVersion");
            let mut spec = json!({});
            if text(object, "/spec/podCIDR").is_empty()
                && let Some(network) = free_network(nodes, workload, &networks)
            {
                networks.insert(network.clone());
                spec = json!({"podCIDR": network, "podCIDRs": [network]});
            }
            if let (Some(taints), Some(map)) = (node::settled_taints(object), spec.as_object_mut()) {
                map.insert("taints".to_owned(), json!(taints));
            }
            if spec.as_object().is_some_and(|map| !map.is_empty()) {
                // Based on what was seen: who wrote in between makes this fail, and the change makes it tried again.
                let patch = json!({"metadata": {"resourceVersion": version}, "spec": spec});
                let _ = self.manager.merge(&format!("/api/v1/nodes/{name}"), &patch).await;
                continue;
            }
            if alive.contains_key(name) {
                self.silent.remove(name);
            } else if node::readiness(object) != "Unknown" {
                let since = *self.silent.entry(name.to_owned()).or_insert_with(|| clock.instant());
                let until = since + grace;
                if clock.instant() >= until {
                    let conditions = node::lost(object, clock.now_seconds());
                    let _ =
                        self.manager.merge(&format!("/api/v1/nodes/{name}/status"), &json!({"status": {"conditions": conditions}})).await;
                } else {
                    due = Some(due.map_or(until, |due: Instant| due.min(until)));
                }
            }
        }
        due
    }

    async fn pods(&self, nodes: &Nodes, seen: &Seen) {
        for step in pods::plan(seen, &nodes.options().random) {
            let done = match &step {
                Step::Create(pod) => self.manager.create(&format!("/api/v1/namespaces/{}/pods", namespace(pod)), pod).await.map(drop),
                Step::Delete(namespace, name) => self.manager.delete(&format!("/api/v1/namespaces/{namespace}/pods/{name}")).await,
                Step::Bind(namespace, name, node) => {
                    let patch = json!({"spec": {"nodeName": node}});
                    self.manager.merge(&format!("/api/v1/namespaces/{namespace}/pods/{name}"), &patch).await.map(drop)
                }
            };
            if let Err(error) = done {
                tracing::debug!(target: "talosphere::simulator", "a pod's step failed: {error}");
            }
        }
    }

    /// Lets pods run whose time has come.
    async fn starts(&mut self, nodes: &Nodes, workload: &Workload, seen: &Seen, alive: &BTreeMap<String, VmId>) -> Option<Instant> {
        let clock = &nodes.options().clock;
        let by_name: BTreeMap<&str, &Arc<Value>> = seen.nodes.iter().map(|node| (name(node), node)).collect();
        let mut waiting = BTreeMap::new();
        let mut taken: BTreeSet<String> = seen.pods.iter().map(|pod| text(pod, "/status/podIP").to_owned()).collect();
        let mut due: Option<Instant> = None;
        for pod in seen.pods.iter().filter(|pod| !is_deleted(pod) && text(pod, "/status/phase") == "Pending") {
            let node_name = text(pod, "/spec/nodeName");
            let Some(node) = by_name.get(node_name).filter(|_| alive.contains_key(node_name)) else { continue };
            let exists = |plural: &str, namespace: &str, name: &str| workload.cache().get(plural, namespace, name).is_some();
            if pods::waits_for(pod, node, &exists).is_some() {
                continue;
            }
            let key = (namespace(pod).to_owned(), name(pod).to_owned());
            let at = self.starting.get(&key).copied().unwrap_or_else(|| clock.instant() + nodes.options().latency.pod);
            if clock.instant() >= at {
                let node_address = internal_address(node);
                let address = if pods::is_host_network(pod.get("spec").unwrap_or(&Value::Null)) {
                    node_address.clone()
                } else {
                    free_address(node, &mut taken)
                };
                let status = pods::running(pod, &node_address, &address, clock.now_seconds());
                let path = format!("/api/v1/namespaces/{}/pods/{}/status", key.0, key.1);
                let _ = self.manager.merge(&path, &json!({"status": status})).await;
                continue;
            }
            due = Some(due.map_or(at, |due| due.min(at)));
            waiting.insert(key, at);
        }
        self.starting = waiting;
        due
    }

    /// Lets pods go that have stopped, at the end of their grace at the latest. A machine that is down stops nothing: nobody confirms that its pods have ended.
    async fn stops(&self, nodes: &Nodes, seen: &Seen, alive: &BTreeMap<String, VmId>) -> Option<Instant> {
        let clock = &nodes.options().clock;
        let mut due: Option<Instant> = None;
        for pod in seen.pods.iter().filter(|pod| is_deleted(pod) && alive.contains_key(text(pod, "/spec/nodeName"))) {
            let Ok(until) = text(pod, "/metadata/deletionTimestamp").parse::<Timestamp>() else { continue };
            let grace = pod.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64).map(Duration::from_secs);
            let unused = grace.unwrap_or_default() * (100 - nodes.options().latency.pod_stop.min(100)) / 100;
            let left = Duration::try_from(until.duration_since(clock.now())).unwrap_or_default().saturating_sub(unused);
            if left.is_zero() {
                let _ = self.manager.delete(&format!("/api/v1/namespaces/{}/pods/{}", namespace(pod), name(pod))).await;
            } else {
                let at = clock.instant() + left;
                due = Some(due.map_or(at, |due| due.min(at)));
            }
        }
        due
    }

    /// Pods of nodes that nobody hears from are not ready; they are again with their node.
    async fn readiness(&self, seen: &Seen) {
        for (pod, status) in pods::readiness(seen) {
            let path = format!("/api/v1/namespaces/{}/pods/{}/status", namespace(pod), name(pod));
            let _ = self.manager.merge(&path, &json!({"status": status})).await;
        }
    }

    /// What daemon sets, deployments and disruption budgets say of their pods.
    async fn counts(&self, seen: &Seen) {
        for budget in seen.budgets.iter().filter(|budget| !is_deleted(budget)) {
            let status = pods::budget_status(seen, budget);
            if budget.get("status") != Some(&status) {
                let path = format!("/apis/policy/v1/namespaces/{}/poddisruptionbudgets/{}/status", namespace(budget), name(budget));
                let _ = self.manager.merge(&path, &json!({"status": status})).await;
            }
        }
        let sets = seen.daemon_sets.iter().map(|set| ("daemonsets", set, pods::daemon_set_status(seen, set)));
        let deployments = seen.deployments.iter().map(|deployment| ("deployments", deployment, pods::deployment_status(seen, deployment)));
        for (plural, object, status) in sets.chain(deployments) {
            let is_new = status
                .as_object()
                .is_some_and(|map| map.iter().any(|(key, value)| object.pointer(&format!("/status/{key}")) != Some(value)));
            if is_new && !is_deleted(object) {
                let path = format!("/apis/apps/v1/namespaces/{}/{plural}/{}/status", namespace(object), name(object));
                let _ = self.manager.merge(&path, &json!({"status": status})).await;
            }
        }
    }
}

/// Registered machines by their node's name.
fn alive(nodes: &Nodes, workload: &Workload) -> BTreeMap<String, VmId> {
    let state = nodes.state();
    let registered = state.in_realm(&workload.realm).filter(|(_, machine)| machine.is_registered);
    registered.map(|(id, machine)| (machine.hostname.clone(), id.clone())).collect()
}

/// Machines on which a tools pod runs report to the host; so do those whose template has the tools, when their addresses change.
fn tools(nodes: &Nodes, seen: &Seen, alive: &BTreeMap<String, VmId>) {
    let is_tools = |pod: &Value| list(pod, "/spec/containers").iter().any(|container| text(container, "/image").contains("vmtoolsd"));
    let with_pod: BTreeSet<&str> = seen
        .pods
        .iter()
        .filter(|pod| is_tools(pod) && text(pod, "/status/phase") == "Running")
        .map(|pod| text(pod, "/spec/nodeName"))
        .collect();
    for (name, id) in alive {
        if with_pod.contains(name.as_str()) || nodes.has_tools(id) {
            nodes.report_tools(id);
        }
    }
}

pub(super) fn internal_address(node: &Value) -> String {
    let addresses = list(node, "/status/addresses");
    let internal = addresses.iter().find(|address| text(address, "/type") == "InternalIP");
    internal.map(|address| text(address, "/address").to_owned()).unwrap_or_default()
}

/// The first network of 256 addresses that no node has.
fn free_network(nodes: &Nodes, workload: &Workload, taken: &BTreeSet<String>) -> Option<String> {
    let subnet = {
        let state = nodes.state();
        let configuration = state.in_realm(&workload.realm).find_map(|(_, machine)| machine.configuration.clone());
        configuration?.cluster.pod_subnets.first().cloned()?
    };
    let (std::net::IpAddr::V4(base), prefix) = parse_cidr(&subnet)? else { return None };
    let count = 1u32.checked_shl(24u32.saturating_sub(u32::from(prefix)))?;
    (0..count)
        .map(|index| format!("{}/24", std::net::Ipv4Addr::from(u32::from(base) + (index << 8))))
        .find(|network| !taken.contains(network))
}

/// An address in the node's pod network that no pod has.
fn free_address(node: &Value, taken: &mut BTreeSet<String>) -> String {
    let Some((std::net::IpAddr::V4(base), _)) = parse_cidr(text(node, "/spec/podCIDR")) else { return String::new() };
    let mut candidates = (2..255u32).map(|index| std::net::Ipv4Addr::from(u32::from(base) + index).to_string());
    let address = candidates.find(|address| !taken.contains(address)).unwrap_or_default();
    taken.insert(address.clone());
    address
}

/// A duration until which something is looked at again.
pub(super) fn after(nodes: &Nodes, duration: Duration) -> Instant {
    nodes.options().clock.instant() + duration
}

/// The time now, to the second.
pub(super) fn now(nodes: &Nodes) -> Timestamp {
    nodes.options().clock.now_seconds()
}
