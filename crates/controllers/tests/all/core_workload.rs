//! Workload clusters in memory: Nodes that a test or a provider's stand-in puts there, work that is done at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use controllers::workload::{Applied, Change, Clusters, Connection, Eviction, Load, Look, Looked, Tap};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use runtime::reconcile::ObjectKey;
use serde_json::{Value, json};

#[derive(Default)]
struct State {
    is_away: bool,
    /// Machines are powered on and never come up.
    is_dark: bool,
    nodes: BTreeMap<ObjectKey, BTreeMap<String, Arc<Node>>>,
    applied: BTreeMap<String, (Applied, Vec<Value>)>,
    /// What the next application answers.
    refusal: Option<String>,
    revision: u64,
}

#[derive(Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    taps: Arc<Mutex<Vec<Tap>>>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn tap(&self, cluster: &ObjectKey, node: Option<Arc<Node>>) {
        let change = Change { cluster: cluster.clone(), node };
        let taps = self.taps.lock().unwrap().clone();
        for tap in taps {
            tap(&change);
        }
    }

    /// What controllers of an earlier process asked to be told is forgotten.
    pub fn forget_taps(&self) {
        self.taps.lock().unwrap().clear();
    }

    pub fn set_away(&self, cluster: &ObjectKey, is_away: bool) {
        self.state().is_away = is_away;
        self.tap(cluster, None);
    }

    pub fn darken(&self) {
        self.state().is_dark = true;
    }

    pub fn is_dark(&self) -> bool {
        self.state().is_dark
    }

    pub fn refuse(&self, refusal: Option<&str>) {
        self.state().refusal = refusal.map(str::to_owned);
    }

    /// A kubelet registers.
    pub fn register(&self, cluster: &ObjectKey, name: &str, system_uuid: &str) {
        let node = json!({
            "metadata": {"name": name},
            "spec": {"taints": [{"key": "node.cluster.x-k8s.io/uninitialized", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"systemUUID": system_uuid, "architecture": "amd64",
                "bootID": "b", "containerRuntimeVersion": "c", "kernelVersion": "k", "kubeProxyVersion": "p", "kubeletVersion": "v1.25.5",
                "machineID": "m", "operatingSystem": "linux", "osImage": "Talos (v1.4.8)"}},
        });
        if self.state().nodes.get(cluster).is_some_and(|nodes| nodes.contains_key(name)) {
            return;
        }
        self.put(cluster, name, &node);
    }

    fn put(&self, cluster: &ObjectKey, name: &str, value: &Value) {
        let mut node: Node = serde_json::from_value(value.clone()).unwrap();
        {
            let mut state = self.state();
            state.revision += 1;
            node.metadata.resource_version = Some(state.revision.to_string());
            node.metadata.uid.get_or_insert(format!("node-{}", state.revision));
            state.nodes.entry(cluster.clone()).or_default().insert(name.to_owned(), Arc::new(node.clone()));
        }
        self.tap(cluster, Some(Arc::new(node)));
    }

    pub fn change(&self, cluster: &ObjectKey, name: &str, patch: &Value) {
        let node = self.state().nodes.get(cluster).and_then(|nodes| nodes.get(name)).cloned();
        if let Some(node) = node {
            let mut value = serde_json::to_value(&*node).unwrap();
            let told = patch.pointer("/metadata/resourceVersion").cloned();
            assert!(told.is_none_or(|told| told == value["metadata"]["resourceVersion"]), "a patch of an older Node");
            json_patch::merge(&mut value, patch);
            self.put(cluster, name, &value);
        }
    }

    pub fn remove(&self, cluster: &ObjectKey, name: &str) {
        let gone = self.state().nodes.get_mut(cluster).and_then(|nodes| nodes.remove(name));
        if gone.is_some() {
            self.tap(cluster, gone);
        }
    }

    pub fn names(&self, cluster: &ObjectKey) -> Vec<String> {
        self.state().nodes.get(cluster).map(|nodes| nodes.keys().cloned().collect()).unwrap_or_default()
    }

    pub fn work(&self) -> Vec<(Applied, usize)> {
        self.state().applied.values().map(|(applied, objects)| (applied.clone(), objects.len())).collect()
    }
}

impl Clusters for Memory {
    fn connection(&self, cluster: &ObjectKey) -> Connection {
        let state = self.state();
        if state.is_away {
            return Connection::Disconnected { since: Timestamp::UNIX_EPOCH, because: "connection refused".to_owned() };
        }
        match state.nodes.get(cluster) {
            Some(_) => Connection::Connected { since: Timestamp::UNIX_EPOCH },
            None => Connection::Waiting { on: "the address of a control-plane Machine".to_owned() },
        }
    }

    fn nodes(&self, cluster: &ObjectKey) -> Vec<Arc<Node>> {
        self.state().nodes.get(cluster).map(|nodes| nodes.values().cloned().collect()).unwrap_or_default()
    }

    fn patch_node(&self, cluster: &ObjectKey, node: &str, patch: Value) {
        if self.connection(cluster).is_connected() {
            self.change(cluster, node, &patch);
        }
    }

    fn delete_node(&self, cluster: &ObjectKey, node: &str, uid: &str) {
        let is_same = self
            .nodes(cluster)
            .iter()
            .any(|known| known.metadata.name.as_deref() == Some(node) && known.metadata.uid.as_deref() == Some(uid));
        if self.connection(cluster).is_connected() && is_same {
            self.remove(cluster, node);
        }
    }

    fn apply(&self, cluster: &ObjectKey, work: &str, objects: Vec<Value>) {
        if !self.connection(cluster).is_connected() {
            return;
        }
        {
            let mut state = self.state();
            let outcome = state.refusal.clone().map_or(Applied::Done, Applied::Failed);
            let known = state.applied.get(work).map(|(outcome, _)| outcome.clone());
            state.applied.insert(work.to_owned(), (outcome.clone(), objects));
            if known == Some(outcome) {
                return;
            }
        }
        self.tap(cluster, None);
    }

    fn applied(&self, _: &ObjectKey, work: &str) -> Option<Applied> {
        self.state().applied.get(work).map(|(applied, _)| applied.clone())
    }

    fn trouble(&self, _: &ObjectKey, _: &str) -> Option<String> {
        None
    }

    /// No pods and no volumes, anywhere.
    fn load(&self, _: &ObjectKey, _: &str) -> Option<Load> {
        let looked = Looked { volumes: Some(Vec::new()), ..Looked::default() };
        Some(Load { round: 1, looked, ..Load::unknown(Timestamp::UNIX_EPOCH) })
    }

    fn look(&self, _: &ObjectKey, _: &str, _: Look) {}

    fn evict(&self, _: &ObjectKey, _: &str, _: Eviction) {}

    fn hasten(&self, _: &ObjectKey) {}

    fn subscribe(&self, tap: Tap) {
        self.taps.lock().unwrap().push(tap);
    }
}
