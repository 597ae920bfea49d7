//! The tree of a cluster: its objects under each other, what is ready, what waits for what. Pure: objects in, tree and verdict out.
//!
//! `describe` prints it once, `up` and `demo` follow it. Ready means that every Machine runs and every Node is ready; everything else
//! in the tree explains why that is not so yet.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use kube::api::ApiResource;
use serde_json::{Value, json};

/// The kinds a tree is made of, in their hub versions.
pub const KINDS: &[(&str, &str, &str, &str)] = &[
    ("cluster.x-k8s.io", "v1beta2", "Cluster", "clusters"),
    ("cluster.x-k8s.io", "v1beta2", "MachineDeployment", "machinedeployments"),
    ("cluster.x-k8s.io", "v1beta2", "MachineSet", "machinesets"),
    ("cluster.x-k8s.io", "v1beta2", "Machine", "machines"),
    ("cluster.x-k8s.io", "v1beta2", "MachineHealthCheck", "machinehealthchecks"),
    ("controlplane.cluster.x-k8s.io", "v1alpha3", "TalosControlPlane", "taloscontrolplanes"),
    ("bootstrap.cluster.x-k8s.io", "v1beta1", "TalosConfig", "talosconfigs"),
    ("infrastructure.cluster.x-k8s.io", "v1beta2", "VSphereCluster", "vsphereclusters"),
    ("infrastructure.cluster.x-k8s.io", "v1beta2", "VSphereMachine", "vspheremachines"),
    ("infrastructure.cluster.x-k8s.io", "v1beta2", "VSphereVM", "vspherevms"),
    ("ipam.cluster.x-k8s.io", "v1beta2", "IPAddressClaim", "ipaddressclaims"),
    ("addons.cluster.x-k8s.io", "v1beta2", "ClusterResourceSet", "clusterresourcesets"),
    ("addons.cluster.x-k8s.io", "v1beta2", "ClusterResourceSetBinding", "clusterresourcesetbindings"),
];

/// The kinds of a tree, as a client asks for them.
pub fn kinds() -> Vec<ApiResource> {
    KINDS.iter().map(|(group, version, kind, plural)| resource(group, version, kind, plural)).collect()
}

/// The kinds that are gone when a deleted cluster is gone: those of its tree, and what is generated for it.
pub fn remaining_kinds() -> Vec<ApiResource> {
    let generated = [resource("", "v1", "Secret", "secrets"), resource("ipam.cluster.x-k8s.io", "v1beta2", "IPAddress", "ipaddresses")];
    kinds().into_iter().chain(generated).collect()
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// How an object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// On its way.
    Waiting,
    /// Somebody must do something.
    Failing,
    Deleting,
}

/// One object of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub kind: String,
    pub name: String,
    pub state: State,
    /// What it shows beside its name: `3/3 machines`, `172.16.42.230`.
    pub detail: String,
    /// Why it is not ready: reason and message.
    pub why: String,
    pub since: Option<String>,
    pub children: Vec<Node>,
}

/// Objects by kind and name, of one namespace.
#[derive(Clone, Debug, Default)]
pub struct Objects(BTreeMap<String, BTreeMap<String, Arc<Value>>>);

impl Objects {
    /// Takes an object in, or the newer state of one.
    pub fn put(&mut self, kind: &str, object: impl Into<Arc<Value>>) {
        let object = object.into();
        let name = text(&object, "/metadata/name").to_owned();
        self.0.entry(kind.to_owned()).or_default().insert(name, object);
    }

    /// The object, if it is there.
    pub fn get(&self, kind: &str, name: &str) -> Option<&Value> {
        Some(self.0.get(kind)?.get(name)?)
    }

    /// All objects of a kind, by name.
    pub fn of_kind<'a>(&'a self, kind: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.0.get(kind).into_iter().flat_map(BTreeMap::values).map(|object| &**object)
    }

    fn of_cluster<'a>(&'a self, kind: &str, cluster: &'a str) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.of_kind(kind).filter(move |object| {
            text(object, "/spec/clusterName") == cluster
                || object.pointer("/metadata/labels").and_then(|labels| labels.get("cluster.x-k8s.io/cluster-name")).and_then(Value::as_str)
                    == Some(cluster)
        })
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(object: &Value, pointer: &str) -> Option<u64> {
    object.pointer(pointer).and_then(Value::as_u64)
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))
}

fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| text(condition, "/status") == "True")
}

fn has_owner(object: &Value, kind: &str, name: &str) -> bool {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.is_some_and(|owners| owners.iter().any(|owner| text(owner, "/kind") == kind && text(owner, "/name") == name))
}

/// The node of one object; `summary` is the condition that sums it up.
fn node(object: &Value, kind: &str, summary: &str, detail: String) -> Node {
    let found = condition(object, summary);
    let is_deleting = object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
    let is_ready = found.is_some_and(|found| text(found, "/status") == "True");
    let state = match found {
        _ if is_deleting => State::Deleting,
        _ if is_ready => State::Ready,
        Some(found) if text(found, "/severity") == "Error" => State::Failing,
        _ => State::Waiting,
    };
    let said = if is_deleting { condition(object, "Deleting").filter(|c| !text(c, "/message").is_empty()).or(found) } else { found };
    let (why, since) = match said {
        _ if state == State::Ready => (String::new(), None),
        Some(found) => {
            let (reason, message) = (text(found, "/reason"), text(found, "/message").replace('\n', " "));
            let since = text(found, "/lastTransitionTime");
            let why = if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") };
            (why, (!since.is_empty()).then(|| since.to_owned()))
        }
        None => ("not looked at yet".to_owned(), None),
    };
    Node { kind: kind.to_owned(), name: text(object, "/metadata/name").to_owned(), state, detail, why, since, children: Vec::new() }
}

/// The tree of a cluster; `None` when there is no such cluster.
pub fn tree(objects: &Objects, cluster: &str) -> Option<Node> {
    let object = objects.get("Cluster", cluster)?;
    let mut root = node(object, "Cluster", "Available", text(object, "/status/phase").to_owned());
    let endpoint = text(object, "/spec/controlPlaneEndpoint/host");
    if !endpoint.is_empty() {
        let port = number(object, "/spec/controlPlaneEndpoint/port").unwrap_or(6443);
        root.detail = format!("{}, https://{endpoint}:{port}", root.detail);
    }
    if let Some(infrastructure) = objects.get("VSphereCluster", text(object, "/spec/infrastructureRef/name")) {
        root.children.push(node(infrastructure, "VSphereCluster", "Ready", text(infrastructure, "/spec/server").to_owned()));
    }
    if let Some(plane) = objects.get("TalosControlPlane", text(object, "/spec/controlPlaneRef/name")) {
        let (ready, wanted) = (number(plane, "/status/readyReplicas").unwrap_or(0), number(plane, "/spec/replicas").unwrap_or(1));
        let mut branch = node(plane, "TalosControlPlane", "Ready", format!("{ready}/{wanted} ready"));
        let name = text(plane, "/metadata/name");
        branch.children = objects
            .of_cluster("Machine", cluster)
            .filter(|machine| has_owner(machine, "TalosControlPlane", name))
            .map(|m| machine(objects, m))
            .collect();
        root.children.push(branch);
    }
    for deployment in objects.of_cluster("MachineDeployment", cluster) {
        let (ready, wanted) = (number(deployment, "/status/readyReplicas").unwrap_or(0), number(deployment, "/spec/replicas").unwrap_or(1));
        let mut branch = node(deployment, "MachineDeployment", "Available", format!("{ready}/{wanted} ready"));
        let name = text(deployment, "/metadata/name");
        let sets = objects.of_cluster("MachineSet", cluster).filter(|set| has_owner(set, "MachineDeployment", name));
        for set in sets.map(|set| text(set, "/metadata/name")) {
            let machines = objects.of_cluster("Machine", cluster).filter(|machine| has_owner(machine, "MachineSet", set));
            branch.children.extend(machines.map(|m| machine(objects, m)));
        }
        root.children.push(branch);
    }
    Some(root)
}

fn machine(objects: &Objects, object: &Value) -> Node {
    let name = text(object, "/metadata/name");
    let address = object
        .pointer("/status/addresses")
        .and_then(Value::as_array)
        .and_then(|addresses| addresses.iter().find(|address| matches!(text(address, "/type"), "ExternalIP" | "InternalIP")))
        .map(|address| text(address, "/address"))
        .unwrap_or_default();
    let phase = text(object, "/status/phase");
    let detail = [phase, address].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    let mut branch = node(object, "Machine", "Ready", detail);
    if branch.state != State::Ready {
        let parts = [
            ("VSphereMachine", "Ready", text(object, "/spec/infrastructureRef/name")),
            ("TalosConfig", "Ready", text(object, "/spec/bootstrap/configRef/name")),
        ];
        let below =
            parts.into_iter().filter_map(|(kind, summary, name)| Some(node(objects.get(kind, name)?, kind, summary, String::new())));
        branch.children.extend(below.filter(|part| part.state != State::Ready));
        let vm = objects.get("VSphereVM", name).map(|vm| node(vm, "VSphereVM", "Ready", String::new()));
        branch.children.extend(vm.filter(|vm| vm.state != State::Ready));
        let claims = objects.of_kind("IPAddressClaim").filter(|claim| has_owner(claim, "VSphereVM", name));
        let claims = claims.map(|claim| node(claim, "IPAddressClaim", "Ready", text(claim, "/spec/poolRef/name").to_owned()));
        branch.children.extend(claims.filter(|claim| claim.state != State::Ready && claim.why != "not looked at yet"));
    }
    branch
}

/// How far a cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub is_ready: bool,
    /// What is waited for, the first line being the most telling.
    pub waiting: Vec<String>,
}

/// Whether every Machine that should be there runs, with its Node ready, and the workload's objects are applied.
pub fn verdict(objects: &Objects, cluster: &str) -> Verdict {
    let mut waiting = Vec::new();
    let Some(object) = objects.get("Cluster", cluster) else {
        return Verdict { is_ready: false, waiting: vec![format!("Cluster {cluster} is not there yet")] };
    };
    let plane = objects.get("TalosControlPlane", text(object, "/spec/controlPlaneRef/name"));
    let plane_wanted = plane.map_or(0, |plane| number(plane, "/spec/replicas").unwrap_or(1));
    let workers: u64 = objects.of_cluster("MachineDeployment", cluster).map(|d| number(d, "/spec/replicas").unwrap_or(1)).sum();
    let machines: Vec<&Value> = objects.of_cluster("Machine", cluster).collect();
    let (control, others): (Vec<&Value>, Vec<&Value>) = machines
        .iter()
        .partition(|m| m.pointer("/metadata/labels").and_then(|labels| labels.get("cluster.x-k8s.io/control-plane")).is_some());
    for (what, have, wanted) in [("control plane machines", control.len(), plane_wanted), ("worker machines", others.len(), workers)] {
        if u64::try_from(have).unwrap_or(u64::MAX) != wanted {
            waiting.push(format!("{have} of {wanted} {what} exist"));
        }
    }
    for machine in machines {
        let (name, phase) = (text(machine, "/metadata/name"), text(machine, "/status/phase"));
        if phase != "Running" {
            waiting.push(format!("Machine {name} is {}", if phase.is_empty() { "Pending" } else { phase }));
        } else if !is_true(machine, "NodeReady") {
            let why = condition(machine, "NodeReady").map(|c| text(c, "/message")).filter(|message| !message.is_empty());
            waiting.push(format!("Node of Machine {name} is not ready{}", why.map(|why| format!(": {why}")).unwrap_or_default()));
        }
    }
    if plane.is_some_and(|plane| !is_true(plane, "Ready")) {
        waiting.push("the control plane is not ready".to_owned());
    }
    // The objects that sum machines up follow a moment later; what is told after the verdict should agree with it.
    let sums = plane
        .into_iter()
        .map(|plane| (plane, "TalosControlPlane"))
        .chain(objects.of_cluster("MachineDeployment", cluster).map(|d| (d, "MachineDeployment")));
    for (object, kind) in sums {
        let (ready, wanted) = (number(object, "/status/readyReplicas").unwrap_or(0), number(object, "/spec/replicas").unwrap_or(1));
        if ready != wanted {
            waiting.push(format!("{kind} {} counts {ready} of {wanted} machines ready", text(object, "/metadata/name")));
        }
    }
    if waiting.is_empty() && !is_true(object, "Available") {
        waiting.push(format!("Cluster {cluster} is not available yet"));
    }
    for set in objects.of_kind("ClusterResourceSet") {
        let is_ours = text(set, "/metadata/name") == format!("{cluster}-workload");
        if is_ours && !is_true(set, "ResourcesApplied") {
            waiting.push("the workload's objects are not applied".to_owned());
        }
    }
    Verdict { is_ready: waiting.is_empty(), waiting }
}

/// What is still there of a cluster that is being deleted: the Cluster of this uid, and everything that says it belongs to it.
pub fn remains(objects: &Objects, cluster: &str, uid: &str) -> Vec<String> {
    let mut left = Vec::new();
    if objects.get("Cluster", cluster).is_some_and(|object| text(object, "/metadata/uid") == uid) {
        left.push(format!("Cluster {cluster}"));
    }
    for kind in remaining_kinds().into_iter().filter(|kind| kind.kind != "Cluster") {
        for object in objects.of_cluster(&kind.kind, cluster) {
            left.push(format!("{} {}", kind.kind, text(object, "/metadata/name")));
        }
    }
    left
}

impl Node {
    /// The node and everything under it, drawn.
    pub fn draw(&self) -> String {
        let mut text = String::new();
        self.draw_into(&mut text, "", "");
        text.trim_end().to_owned()
    }

    fn draw_into(&self, text: &mut String, first: &str, rest: &str) {
        let mark = match self.state {
            State::Ready => "ok",
            State::Waiting => "..",
            State::Failing => "!!",
            State::Deleting => "--",
        };
        let _ = write!(text, "{first}[{mark}] {}/{}", self.kind, self.name);
        if !self.detail.is_empty() {
            let _ = write!(text, "  {}", self.detail);
        }
        if !self.why.is_empty() {
            let _ = write!(text, "  {}", self.why);
        }
        text.push('\n');
        for (index, child) in self.children.iter().enumerate() {
            let is_last = index + 1 == self.children.len();
            let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            child.draw_into(text, &format!("{rest}{branch}"), &format!("{rest}{below}"));
        }
    }

    /// As data.
    pub fn to_value(&self) -> Value {
        let mut value = json!({"kind": self.kind, "name": self.name, "state": format!("{:?}", self.state)});
        if let Some(map) = value.as_object_mut() {
            for (key, text) in [("detail", &self.detail), ("why", &self.why)] {
                if !text.is_empty() {
                    map.insert(key.to_owned(), Value::String(text.clone()));
                }
            }
            if let Some(since) = &self.since {
                map.insert("since".to_owned(), Value::String(since.clone()));
            }
            if !self.children.is_empty() {
                map.insert("children".to_owned(), self.children.iter().map(Self::to_value).collect());
            }
        }
        value
    }

    /// Every node with its one-line state, by kind and name: what changed between two trees is what differs here.
    pub fn lines(&self) -> BTreeMap<String, String> {
        let mut lines = BTreeMap::new();
        self.collect(&mut lines);
        lines
    }

    fn collect(&self, lines: &mut BTreeMap<String, String>) {
        let state = match self.state {
            State::Ready => "ready",
            State::Waiting => "waiting",
            State::Failing => "failing",
            State::Deleting => "deleting",
        };
        let parts = [state, &self.detail, &self.why];
        let text = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
        lines.insert(format!("{}/{}", self.kind, self.name), text);
        for child in &self.children {
            child.collect(lines);
        }
    }

    /// The nodes that somebody must do something about.
    pub fn failing(&self) -> Vec<&Node> {
        let mut failing: Vec<&Node> = self.children.iter().flat_map(Node::failing).collect();
        if self.state == State::Failing {
            failing.push(self);
        }
        failing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: &str) -> Value {
        json!([{"type": "Ready", "status": status, "reason": "R", "message": "why", "lastTransitionTime": "2026-01-01T00:00:00Z"},
               {"type": "Available", "status": status, "reason": "R", "message": "why"}, {"type": "NodeReady", "status": status}])
    }

    fn world(phase: &str, status: &str) -> Objects {
        let mut objects = Objects::default();
        let labels = json!({"cluster.x-k8s.io/cluster-name": "c", "cluster.x-k8s.io/control-plane": ""});
        objects.put("Cluster", json!({"metadata": {"name": "c"}, "spec": {"controlPlaneRef": {"name": "cp"}, "controlPlaneEndpoint": {"host": "h", "port": 6443}},
            "status": {"phase": "Provisioned", "conditions": ready(status)}}));
        objects.put(
            "TalosControlPlane",
            json!({"metadata": {"name": "cp"}, "spec": {"replicas": 1}, "status": {"readyReplicas": 1, "conditions": ready(status)}}),
        );
        objects.put(
            "Machine",
            json!({"metadata": {"name": "m", "labels": labels, "ownerReferences": [{"kind": "TalosControlPlane", "name": "cp"}]},
            "status": {"phase": phase, "conditions": ready(status)}}),
        );
        objects
    }

    #[test]
    fn a_cluster_is_ready_when_every_machine_runs_and_every_node_is_ready() {
        assert_eq!(verdict(&world("Running", "True"), "c"), Verdict { is_ready: true, waiting: vec![] });
        assert_eq!(verdict(&world("Provisioned", "True"), "c").waiting, ["Machine m is Provisioned"]);
        let waiting = verdict(&world("Running", "False"), "c").waiting;
        assert_eq!(waiting, ["Node of Machine m is not ready", "the control plane is not ready"]);
        let mut short = world("Running", "True");
        short.put("MachineDeployment", json!({"metadata": {"name": "w"}, "spec": {"clusterName": "c", "replicas": 2}}));
        assert_eq!(verdict(&short, "c").waiting, ["0 of 2 worker machines exist", "MachineDeployment w counts 0 of 2 machines ready"]);
        assert!(!verdict(&Objects::default(), "c").is_ready);
    }

    #[test]
    fn the_tree_says_why() {
        let tree = tree(&world("Provisioned", "False"), "c").unwrap();
        let expected = "[..] Cluster/c  Provisioned, https://h:6443  R: why\n└─ [..] TalosControlPlane/cp  1/1 ready  R: why\n   └─ [..] Machine/m  Provisioned  R: why";
        assert_eq!(tree.draw(), expected);
        assert_eq!(tree.lines()["Machine/m"], "waiting; Provisioned; R: why");
        assert_eq!(tree.to_value()["children"][0]["children"][0]["since"], "2026-01-01T00:00:00Z");
    }
}
