//! The tree of a cluster: its objects under each other, what is ready, what waits for what. Pure: objects in, tree and verdict out.
//!
//! `describe` prints it once, `up` and `demo` follow it. Ready means that every Machine runs and every Node is ready; everything else
//! in the tree explains why that is not so yet.

mod cause;
mod draw;
mod healing;
mod verdict;
mod warnings;

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::meta::{pointer, text_at as text};
use kube::api::ApiResource;
use serde_json::{Value, json};

use self::cause::{Cause, clean, needs_a_person, of_infrastructure, of_machine};
pub use self::draw::{Style, cut};
use self::healing::healing;
pub use self::verdict::{Stuck, Verdict, verdict};
pub use self::warnings::warnings;
use crate::apply::foreign_finalizers;

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
    /// The word for why it is not ready.
    pub reason: String,
    /// Why it is not ready: reason and message, in one line.
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
            text(object, "/spec/clusterName") == cluster || label(object, "cluster.x-k8s.io/cluster-name") == Some(cluster)
        })
    }
}

/// The value of a label: its name holds what a pointer would have to escape.
fn label<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    pointer(object, "/metadata/labels")?.get(name)?.as_str()
}

fn number(object: &Value, at: &str) -> Option<u64> {
    pointer(object, at).and_then(Value::as_u64)
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    pointer(object, "/status/conditions")?.as_array()?.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))
}

fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| text(condition, "/status") == "True")
}

fn has_owner(object: &Value, kind: &str, name: &str) -> bool {
    let owners = pointer(object, "/metadata/ownerReferences").and_then(Value::as_array);
    owners.is_some_and(|owners| owners.iter().any(|owner| text(owner, "/kind") == kind && text(owner, "/name") == name))
}

fn is_deleting(object: &Value) -> bool {
    pointer(object, "/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
}

/// The node of one object; `summary` is the condition that sums it up.
fn node(object: &Value, kind: &str, summary: &str, detail: String) -> Node {
    let found = condition(object, summary);
    let is_ready = found.is_some_and(|found| text(found, "/status") == "True");
    let state = match found {
        _ if is_deleting(object) => State::Deleting,
        _ if is_ready => State::Ready,
        Some(found) if text(found, "/severity") == "Error" || needs_a_person(text(found, "/reason")) => State::Failing,
        _ => State::Waiting,
    };
    let said = match state {
        State::Ready => None,
        State::Deleting => condition(object, "Deleting").filter(|c| !text(c, "/message").is_empty()).or(found.filter(|_| !is_ready)),
        _ => found,
    };
    let mut reason = said.map(|said| text(said, "/reason").to_owned()).unwrap_or_default();
    let mut why = said.map(|said| cause::why(&reason, text(said, "/message"))).unwrap_or_default();
    if state == State::Deleting
        && let Some(held) = held_by(object)
    {
        cause::HELD.clone_into(&mut reason);
        why = if why.is_empty() { held } else { format!("{held}; {why}") };
    }
    let since = said.map(|said| text(said, "/lastTransitionTime").to_owned()).filter(|since| !since.is_empty());
    Node { kind: kind.to_owned(), name: text(object, "/metadata/name").to_owned(), state, detail, reason, why, since, children: Vec::new() }
}

/// Finalizers of others that hold an object, in words.
fn held_by(object: &Value) -> Option<String> {
    let foreign: Vec<&str> = foreign_finalizers(object).collect();
    let held = foreign.join(", ");
    (!foreign.is_empty()).then(|| format!("it stays until somebody takes its finalizer {held} off, which is not talosphere's"))
}

/// The node of an object that sums its machines up. What it says of itself follows their numbers: with machines missing it is not ready,
/// with all of them ready nothing has failed.
fn sum(object: &Value, kind: &str, summary: &str) -> Node {
    let (ready, wanted) = (number(object, "/status/readyReplicas").unwrap_or(0), number(object, "/spec/replicas").unwrap_or(1));
    let mut branch = node(object, kind, summary, format!("{ready}/{wanted} ready"));
    branch.state = match branch.state {
        State::Ready if ready != wanted => State::Waiting,
        State::Failing if ready == wanted => State::Waiting,
        state => state,
    };
    branch
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
        let mut branch = node(infrastructure, "VSphereCluster", "Ready", text(infrastructure, "/spec/server").to_owned());
        if let Some(cause) = of_infrastructure(objects, cluster).filter(|_| branch.state == State::Waiting) {
            branch.state = if needs_a_person(&cause.reason) { State::Failing } else { State::Waiting };
            branch.why = cause.why();
            branch.reason = cause.reason;
        }
        root.children.push(branch);
    }
    if let Some(plane) = objects.get("TalosControlPlane", text(object, "/spec/controlPlaneRef/name")) {
        let mut branch = sum(plane, "TalosControlPlane", "Ready");
        let name = text(plane, "/metadata/name");
        if let Some(etcd) = unhealthy_etcd(plane).filter(|_| branch.state == State::Ready) {
            (branch.state, branch.reason, branch.why) = (State::Waiting, "EtcdClusterUnhealthy".to_owned(), etcd);
        }
        branch.children = objects
            .of_cluster("Machine", cluster)
            .filter(|machine| has_owner(machine, "TalosControlPlane", name))
            .map(|m| machine(objects, m))
            .collect();
        root.children.push(branch);
    }
    for deployment in objects.of_cluster("MachineDeployment", cluster) {
        let mut branch = sum(deployment, "MachineDeployment", "Available");
        let name = text(deployment, "/metadata/name");
        let sets = objects.of_cluster("MachineSet", cluster).filter(|set| has_owner(set, "MachineDeployment", name));
        for set in sets.map(|set| text(set, "/metadata/name")) {
            let machines = objects.of_cluster("Machine", cluster).filter(|machine| has_owner(machine, "MachineSet", set));
            branch.children.extend(machines.map(|m| machine(objects, m)));
        }
        root.children.push(branch);
    }
    let workload = objects.get("ClusterResourceSet", &format!("{cluster}-workload"));
    let workload = workload.map(|set| node(set, "ClusterResourceSet", "ResourcesApplied", String::new()));
    // It is of interest as long as something is wrong with it.
    root.children.extend(workload.filter(|set| set.state == State::Failing));
    Some(root)
}

/// What is wrong with the etcd of a control plane whose machines all run.
fn unhealthy_etcd(plane: &Value) -> Option<String> {
    let told = condition(plane, "EtcdClusterHealthyCondition").filter(|told| text(told, "/status") == "False")?;
    Some(format!("etcd is not healthy: {}", clean(text(told, "/message"))))
}

fn machine(objects: &Objects, object: &Value) -> Node {
    let address = pointer(object, "/status/addresses")
        .and_then(Value::as_array)
        .and_then(|addresses| addresses.iter().find(|address| matches!(text(address, "/type"), "ExternalIP" | "InternalIP")))
        .map(|address| text(address, "/address"))
        .unwrap_or_default();
    let phase = text(object, "/status/phase");
    let is_outdated = condition(object, "UpToDate").is_some_and(|told| text(told, "/status") == "False");
    let outdated = if is_outdated { "not up to date" } else { "" };
    let detail = [phase, address, outdated].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    let mut branch = node(object, "Machine", "Ready", detail);
    if phase == "Failed" && branch.state == State::Waiting {
        branch.state = State::Failing;
    }
    if branch.state == State::Deleting
        && let Some(cause) = cause::of_deletion(objects, object).filter(|cause| cause.kind != "Machine")
    {
        branch.children.push(below(cause, true));
    }
    if let Some(healing) = healing(objects, object) {
        if branch.state == State::Deleting {
            branch.why = format!("{}; {}", healing.told, branch.why);
            return branch;
        }
        branch.state = if healing.needs_a_person { State::Failing } else { State::Waiting };
        branch.why = healing.told;
        branch.reason = "Unhealthy".to_owned();
        branch.children.extend(of_machine(objects, object).filter(|cause| cause.kind != "Machine" && cause.kind != "VSphereCluster").map(
            |cause| {
                let is_failing = needs_a_person(&cause.reason);
                below(cause, is_failing)
            },
        ));
        return branch;
    }
    if branch.state == State::Ready
        && let Some(told) = held_back(object)
    {
        // It counts as ready, as upstream has it; nothing is scheduled there all the same.
        branch.state = State::Waiting;
        branch.reason = "WaitingForCloudProvider".to_owned();
        branch.why = told;
        return branch;
    }
    if matches!(branch.state, State::Ready | State::Deleting) {
        return branch;
    }
    let Some(cause) = of_machine(objects, object) else { return branch };
    let is_failing = needs_a_person(&cause.reason);
    if is_failing && cause.kind != "VSphereCluster" {
        branch.state = State::Failing;
    }
    match cause.kind {
        "Machine" => {
            branch.why = cause.why();
            branch.reason = cause.reason;
        }
        // It stands in the tree already.
        "VSphereCluster" => branch.why = format!("waiting for VSphereCluster {}", cause.name),
        _ => branch.children.push(below(cause, is_failing)),
    }
    branch
}

/// What keeps the Node of a Machine that is ready from being used.
fn held_back(machine: &Value) -> Option<String> {
    let told = condition(machine, "NodeInitialized").filter(|told| text(told, "/status") == "False")?;
    Some(clean(text(told, "/message")))
}

/// The node of what a Machine waits for.
fn below(cause: Cause, is_failing: bool) -> Node {
    Node {
        kind: cause.kind.to_owned(),
        state: if is_failing { State::Failing } else { State::Waiting },
        detail: String::new(),
        why: cause.why(),
        name: cause.name,
        reason: cause.reason,
        since: cause.since,
        children: Vec::new(),
    }
}

/// What is still there of a cluster that is being deleted: the Cluster of this uid, and everything that says it belongs to it.
pub fn remains(objects: &Objects, cluster: &str, uid: &str) -> Vec<String> {
    let (mut held, mut left) = (Vec::new(), Vec::new());
    let mut add = |kind: &str, object: &Value| {
        let name = format!("{kind} {}", text(object, "/metadata/name"));
        let cause = || cause::of_deletion(objects, object).filter(|_| kind == "VSphereVM").map(|cause| cause.why());
        match held_by(object).or_else(cause).filter(|_| is_deleting(object)) {
            Some(why) => held.push(format!("{name}: {why}")),
            None => left.push(name),
        }
    };
    if let Some(object) = objects.get("Cluster", cluster).filter(|object| text(object, "/metadata/uid") == uid) {
        add("Cluster", object);
    }
    for kind in remaining_kinds().into_iter().filter(|kind| kind.kind != "Cluster") {
        objects.of_cluster(&kind.kind, cluster).for_each(|object| add(&kind.kind, object));
    }
    // What holds the others stands first.
    held.into_iter().chain(left).collect()
}

impl Node {
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
        assert_eq!(verdict(&world("Running", "True"), "c"), Verdict { is_ready: true, ..Verdict::default() });
        assert_eq!(verdict(&world("Provisioned", "True"), "c").waiting, ["Machine m is Provisioned"]);
        let waiting = verdict(&world("Running", "False"), "c").waiting;
        assert_eq!(waiting, ["Node of Machine m is not ready", "the control plane is not ready: R: why"]);
        let mut short = world("Running", "True");
        short.put("MachineDeployment", json!({"metadata": {"name": "w"}, "spec": {"clusterName": "c", "replicas": 2}}));
        assert_eq!(verdict(&short, "c").waiting, ["0 of 2 worker machines exist", "MachineDeployment w counts 0 of 2 machines ready"]);
        assert!(!verdict(&Objects::default(), "c").is_ready);
    }

    #[test]
    fn the_tree_says_why() {
        let tree = tree(&world("Provisioned", "False"), "c").unwrap();
        let expected =
            "[..] Cluster/c  Provisioned, https://h:6443\n└─ [..] TalosControlPlane/cp  1/1 ready\n   └─ [..] Machine/m  Provisioned  why";
        assert_eq!(tree.draw(), expected);
        assert_eq!(tree.lines()["Machine/m"], "Provisioned");
        assert_eq!(tree.to_value()["children"][0]["children"][0]["since"], "2026-01-01T00:00:00Z");
    }

    fn with(mut object: Value, pointer: &str, value: Value) -> Value {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[key] = value;
        object
    }

    #[test]
    fn a_change_that_is_not_carried_out_is_not_ready() {
        let mut objects = world("Running", "True");
        let machine = objects.get("Machine", "m").unwrap().clone();
        let conditions = [
            ready("True").as_array().unwrap().clone(),
            vec![json!({"type": "UpToDate", "status": "False", "message": "* Version v1.32.4, v1.33.0 required"})],
        ];
        objects.put("Machine", with(machine, "/status/conditions", conditions.concat().into()));
        let told = verdict(&objects, "c");
        assert!(!told.is_ready);
        assert_eq!(told.waiting, ["Machine m is not up to date: Version v1.32.4, v1.33.0 required"]);
        assert_eq!(told.stuck, None, "it is rolled");
        let plane = objects.get("TalosControlPlane", "cp").unwrap().clone();
        let blocked = json!([{"type": "Ready", "status": "True"}, {"type": "MachinesSpecUpToDate", "status": "False",
            "reason": "RollingUpdateBlocked", "message": "its own address is the endpoint"}]);
        for (pointer, value, words) in [
            (
                "/spec/rolloutStrategy",
                json!({"type": "OnDelete"}),
                ["TalosControlPlane cp are replaced when", "kubectl delete machine NAME"],
            ),
            ("/metadata/annotations", json!({"cluster.x-k8s.io/paused": ""}), ["TalosControlPlane cp is paused", "paused- -n team"]),
            ("/status/conditions", blocked, ["a machine of TalosControlPlane cp cannot be replaced", "its own address is the endpoint"]),
        ] {
            objects.put("TalosControlPlane", with(plane.clone(), pointer, value));
            let problem = verdict(&objects, "c").stuck.unwrap().problem("c", "team").to_string();
            assert!(problem.contains("TS307") && problem.contains("v1.33.0 required"), "{problem}");
            assert!(words.iter().all(|word| problem.contains(word)), "{problem} lacks {words:?}");
        }
        // While something else is on its way, it is waited for that.
        let plane = objects.get("TalosControlPlane", "cp").unwrap().clone();
        objects.put("TalosControlPlane", with(plane, "/status/readyReplicas", json!(0)));
        assert_eq!(verdict(&objects, "c").stuck, None);
    }

    #[test]
    fn a_rollout_is_waited_for_unless_nothing_would_go_on() {
        let mut objects = world("Running", "True");
        let labels = json!({"cluster.x-k8s.io/cluster-name": "c", "cluster.x-k8s.io/deployment-name": "w"});
        let outdated = json!([{"type": "Ready", "status": "True"}, {"type": "NodeReady", "status": "True"}, {"type": "UpToDate", "status": "False", "message": "* Version a, b required"}]);
        objects
            .put("Machine", json!({"metadata": {"name": "o", "labels": labels}, "status": {"phase": "Running", "conditions": outdated}}));
        let deployment = |strategy: &str, is_paused: bool, message: &str| {
            let rolling = json!([{"type": "RollingOut", "status": "True", "reason": "RollingOut", "message": message}]);
            let spec = json!({"clusterName": "c", "replicas": 1, "paused": is_paused, "rollout": {"strategy": {"type": strategy}}});
            json!({"metadata": {"name": "w"}, "spec": spec, "status": {"readyReplicas": 1, "conditions": rolling}})
        };
        let message = "Rolling out 1 not up-to-date replicas";
        objects.put("MachineDeployment", deployment("RollingUpdate", false, message));
        let told = verdict(&objects, "c");
        assert_eq!(told.stuck, None, "{told:?}");
        let expected = ["Machine o is not up to date: Version a, b required", "MachineDeployment w: Rolling out 1 not up-to-date replicas"];
        assert_eq!(told.waiting, expected);
        for (strategy, is_paused, remedy) in [
            ("RollingUpdate", true, "talosphere rollout resume machinedeployment/w -n team"),
            ("OnDelete", false, "kubectl delete machine NAME"),
        ] {
            objects.put("MachineDeployment", deployment(strategy, is_paused, message));
            let problem = verdict(&objects, "c").stuck.unwrap().problem("c", "team").to_string();
            assert!(problem.contains("TS307") && problem.contains(remedy) && !problem.contains("control planes"), "{problem}");
        }
        // What waits for a control plane that does not come is waited for in vain, and said so.
        let held = format!("{message}\n* waiting: x (\"KubernetesVersionSkew\" preflight check failed)");
        objects.put("MachineDeployment", deployment("RollingUpdate", false, &held));
        assert_eq!(verdict(&objects, "c").stuck, None, "the control plane is as it should be");
        let plane = objects.get("TalosControlPlane", "cp").unwrap().clone();
        let spec = json!([{"type": "Ready", "status": "True"},
            {"type": "MachinesSpecUpToDate", "status": "False", "reason": "RollingUpdateBlocked", "message": "1 outdated"}]);
        objects.put("TalosControlPlane", with(plane, "/status/conditions", spec));
        let stuck = verdict(&objects, "c").stuck.unwrap();
        assert_eq!(stuck.held.len(), 2, "{stuck:?}");
        let problem = stuck.problem("c", "").to_string();
        assert!(problem.contains("cannot be replaced") && problem.contains("preflight check failed"), "{problem}");
    }

    #[test]
    fn a_change_that_no_controller_has_seen_yet_is_waited_for() {
        let mut objects = world("Running", "True");
        let plane = with(objects.get("TalosControlPlane", "cp").unwrap().clone(), "/metadata/generation", json!(2));
        objects.put("TalosControlPlane", plane.clone());
        assert_eq!(verdict(&objects, "c").waiting, ["the change of TalosControlPlane cp is not looked at yet"]);
        let plane = with(plane, "/status/observedGeneration", json!(2));
        objects.put("TalosControlPlane", plane.clone());
        assert!(verdict(&objects, "c").is_ready);
        let outdated = json!([{"type": "Ready", "status": "True"},
            {"type": "MachinesSpecUpToDate", "status": "False", "message": "1 replicas with outdated spec"}]);
        objects.put("TalosControlPlane", with(plane, "/status/conditions", outdated));
        assert_eq!(verdict(&objects, "c").waiting, ["TalosControlPlane cp: 1 replicas with outdated spec"]);
        assert_eq!(verdict(&objects, "c").stuck, None);
    }

    #[test]
    fn machines_that_wait_for_the_same_have_one_line_and_what_needs_a_person_stands_first() {
        let mut objects = world("Pending", "False");
        let plane = json!([{"type": "Ready", "status": "False", "reason": "DataSecretGenerationFailed", "message": "@ Machine/b: no"}]);
        let object = objects.get("TalosControlPlane", "cp").unwrap().clone();
        objects.put("TalosControlPlane", with(with(object, "/status/conditions", plane), "/spec/replicas", json!(3)));
        for name in ["b", "c"] {
            let machine = objects.get("Machine", "m").unwrap().clone();
            let machine = with(with(machine, "/metadata/name", json!(name)), "/spec", json!({"bootstrap": {"configRef": {"name": name}}}));
            objects.put("Machine", machine);
            let conditions =
                json!([{"type": "DataSecretAvailable", "status": "False", "reason": "DataSecretGenerationFailed", "message": "no"}]);
            objects.put("TalosConfig", json!({"metadata": {"name": name}, "status": {"conditions": conditions}}));
        }
        let waiting = verdict(&objects, "c").waiting;
        assert_eq!(waiting[0], "Machines b, c are Pending: TalosConfig: DataSecretGenerationFailed: no");
        assert_eq!(waiting[1], "the control plane is not ready", "what a machine says is not said twice: {waiting:?}");
        assert!(waiting.contains(&"Machine m is Pending: why".to_owned()), "{waiting:?}");
    }

    #[test]
    fn a_vcenter_that_is_away_is_told_once_and_first() {
        let mut objects = world("Pending", "False");
        let object = with(objects.get("Cluster", "c").unwrap().clone(), "/spec/infrastructureRef", json!({"name": "v"}));
        objects.put("Cluster", object);
        let machine = with(
            objects.get("Machine", "m").unwrap().clone(),
            "/spec",
            json!({"clusterName": "c", "bootstrap": {"configRef": {"name": "m"}}}),
        );
        objects.put("Machine", machine);
        let said = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "False", "reason": reason, "message": message});
        let waits = json!([said("DataSecretAvailable", "WaitingForClusterInfrastructure", "waiting")]);
        objects.put("TalosConfig", json!({"metadata": {"name": "m"}, "status": {"conditions": waits}}));
        let away =
            json!([said("VCenterAvailable", "VCenterUnreachable", "refused"), said("Ready", "NotReady", "* VCenterAvailable: refused")]);
        objects.put("VSphereCluster", json!({"metadata": {"name": "v"}, "spec": {"server": "s"}, "status": {"conditions": away}}));
        let waiting = verdict(&objects, "c").waiting;
        assert_eq!(waiting[..2], ["VSphereCluster v: VCenterUnreachable: refused", "Machine m is Pending: waiting for VSphereCluster v"]);
        let tree = tree(&objects, "c").unwrap();
        assert!(tree.draw().contains("[!!] VSphereCluster/v  s  VCenterUnreachable: refused"), "{}", tree.draw());
        assert!(tree.is_failing() && tree.lines()["VSphereCluster/v"] == "failing; VCenterUnreachable: refused");
        assert!(tree.draw().contains("[..] Machine/m  Pending  waiting for VSphereCluster v"), "{}", tree.draw());
    }

    #[test]
    fn a_node_that_is_held_back_is_shown_although_its_machine_counts_as_ready() {
        let mut objects = world("Running", "True");
        let held = |name: &str| {
            let told = json!([{"type": "Ready", "status": "True"}, {"type": "NodeReady", "status": "True"},
                {"type": "NodeInitialized", "status": "False", "message": format!("Node {name} is held back")}]);
            with(objects.get("Machine", "m").unwrap().clone(), "/status/conditions", told)
        };
        let (one, two) = (held("m"), with(held("n"), "/metadata/name", json!("n")));
        objects.put("Machine", one);
        let told = verdict(&objects, "c");
        assert!(told.is_ready && told.notes == ["Node m is held back"], "{told:?}");
        assert!(tree(&objects, "c").unwrap().draw().contains("[..] Machine/m  Running  Node m is held back"));
        objects.put("Machine", two);
        assert_eq!(verdict(&objects, "c").notes, ["Node m is held back (and so is 1 more Node)"]);
    }

    #[test]
    fn an_unhealthy_machine_and_what_is_done_about_it_have_one_line() {
        let mut objects = world("Running", "True");
        let ill = |owner: &str, message: &str| {
            let of =
                |type_: &str, reason: &str, message: &str| json!({"type": type_, "status": "False", "reason": reason, "message": message});
            json!([
                of("Ready", "NotReady", "x"),
                of("NodeReady", "NodeNotReady", "y"),
                of("HealthCheckSucceeded", "UnhealthyNode", "down"),
                of("OwnerRemediated", owner, message)
            ])
        };
        let machine = objects.get("Machine", "m").unwrap().clone();
        objects.put("Machine", with(machine.clone(), "/status/conditions", ill("WaitingForRemediation", "")));
        let told = "unhealthy (down): its owner is asked to replace it";
        assert_eq!(verdict(&objects, "c").waiting, [format!("Machine m is {told}")]);
        let drawn = tree(&objects, "c").unwrap().draw();
        assert!(drawn.contains(&format!("[..] Machine/m  Running  {told}")), "{drawn}");
        objects.put("Machine", with(machine.clone(), "/status/conditions", ill("RetryLimitReached", "do this")));
        let drawn = tree(&objects, "c").unwrap().draw();
        assert!(drawn.contains("[!!] Machine/m  Running  unhealthy (down): do this"), "{drawn}");
        let going = with(machine, "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
        objects.put("Machine", with(going, "/status/conditions", ill("MachineDeleting", "")));
        assert!(tree(&objects, "c").unwrap().draw().contains("unhealthy (down): it is replaced; "));
    }

    #[test]
    fn what_holds_a_deletion_is_told_first() {
        let mut objects = world("Running", "True");
        let gone = json!("2026-01-01T00:00:00Z");
        let machine = with(objects.get("Machine", "m").unwrap().clone(), "/metadata/deletionTimestamp", gone.clone());
        let told = |conditions: Value| {
            json!({"metadata": {"name": "m", "deletionTimestamp": gone, "labels": {"cluster.x-k8s.io/cluster-name": "c"}},
            "status": {"conditions": conditions}})
        };
        objects
            .put("Machine", with(machine.clone(), "/metadata/finalizers", json!(["machine.cluster.x-k8s.io", "ipam.cluster.x-k8s.io/x"])));
        objects.put("VSphereVM", told(json!([{"type": "Ready", "status": "False", "reason": "Deleting"}])));
        assert_eq!(remains(&objects, "c", ""), ["Cluster c", "Machine m", "VSphereVM m"]);
        let away = json!([{"type": "VCenterAvailable", "status": "False", "reason": "VCenterUnreachable", "message": "refused"}]);
        objects.put("VSphereVM", told(away));
        assert_eq!(remains(&objects, "c", "")[0], "VSphereVM m: VCenterUnreachable: refused");
        assert!(tree(&objects, "c").unwrap().draw().contains("[!!] VSphereVM/m  VCenterUnreachable: refused"));
        objects.put("Machine", with(machine, "/metadata/finalizers", json!(["machine.cluster.x-k8s.io", "example.com/backup"])));
        let left = remains(&objects, "c", "");
        let held = "it stays until somebody takes its finalizer example.com/backup off, which is not talosphere's";
        assert_eq!(left[..2], [format!("Machine m: {held}"), "VSphereVM m: VCenterUnreachable: refused".to_owned()]);
        objects.put("VSphereVM", told(json!([])));
        assert!(tree(&objects, "c").unwrap().draw().contains(held));
    }

    #[test]
    fn a_paused_cluster_and_an_ill_etcd_are_told() {
        let mut objects = world("Running", "True");
        let paused = with(objects.get("Cluster", "c").unwrap().clone(), "/spec/paused", json!(true));
        objects.put("Cluster", paused);
        let told = verdict(&objects, "c");
        assert!(told.is_ready && told.notes[0].starts_with("Cluster c is paused"), "{told:?}");
        objects.put("MachineDeployment", json!({"metadata": {"name": "w"}, "spec": {"clusterName": "c", "replicas": 2}}));
        let told = verdict(&objects, "c");
        assert!(told.waiting[0].starts_with("Cluster c is paused") && told.demands.len() == 1, "{told:?}");
        let mut objects = world("Running", "True");
        let ill = json!([{"type": "Ready", "status": "True"},
            {"type": "EtcdClusterHealthyCondition", "status": "False", "reason": "EtcdClusterUnhealthy", "message": "m: etcd is Failed"}]);
        let plane = with(objects.get("TalosControlPlane", "cp").unwrap().clone(), "/status/conditions", ill);
        objects.put("TalosControlPlane", plane);
        let told = verdict(&objects, "c");
        assert!(told.is_ready && told.notes == ["etcd is not healthy: m: etcd is Failed"], "{told:?}");
        let plane = objects.get("TalosControlPlane", "cp").unwrap().clone();
        let mut lost = objects.clone();
        let settled = ["Resized", "MachinesSpecUpToDate"].map(|type_| json!({"type": type_, "status": "True"}));
        let conditions = [plane["status"]["conditions"].as_array().unwrap().as_slice(), &settled].concat();
        let plane = with(plane, "/status/initialized", json!(true));
        lost.put("TalosControlPlane", with(plane, "/status/conditions", conditions.into()));
        assert!(verdict(&lost, "c").is_ready, "etcd alone holds nothing up");
        lost.put("MachineDeployment", json!({"metadata": {"name": "w"}, "spec": {"clusterName": "c", "replicas": 2}}));
        assert!(verdict(&lost, "c").waiting.contains(&"etcd is not healthy: m: etcd is Failed".to_owned()));
        let drawn = tree(&objects, "c").unwrap().draw();
        assert!(drawn.contains("[..] TalosControlPlane/cp  1/1 ready  etcd is not healthy: m: etcd is Failed"), "{drawn}");
    }

    #[test]
    fn the_state_of_a_sum_agrees_with_its_numbers() {
        let state = |status: &str, severity: &str, ready: u64| {
            let conditions = json!([{"type": "Ready", "status": status, "severity": severity, "reason": "R"}]);
            let object =
                json!({"metadata": {"name": "cp"}, "spec": {"replicas": 3}, "status": {"readyReplicas": ready, "conditions": conditions}});
            sum(&object, "TalosControlPlane", "Ready").state
        };
        assert_eq!((state("True", "", 3), state("True", "", 0)), (State::Ready, State::Waiting));
        assert_eq!((state("False", "Error", 3), state("False", "Error", 2)), (State::Waiting, State::Failing));
    }
}
