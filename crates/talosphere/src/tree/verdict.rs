//! How far a cluster is, and what it waits for. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::cause::{Cause, clean, needs_a_person, of_deletion, of_infrastructure, of_machine, why};
use super::healing::healing;
use super::{Objects, condition, held_back, is_deleting, is_true, label, number, pointer, text, unhealthy_etcd};
use crate::names::within;
use crate::problem::{Code, Problem};

/// How far a cluster is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub is_ready: bool,
    /// Whether the Cluster itself is being deleted.
    pub is_deleting: bool,
    /// What is waited for, the first line being the most telling.
    pub waiting: Vec<String>,
    /// What keeps ready Nodes from being used, and Nodes that belong to no Machine.
    pub notes: Vec<String>,
    /// Those of them that no waiting brings: a person must do something.
    pub demands: Vec<String>,
    /// What waiting does not bring, when everything else is there.
    pub stuck: Option<Stuck>,
}

/// Machines that keep an older specification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stuck {
    /// One line for each machine that is not up to date.
    pub machines: Vec<String>,
    /// The controllers' own words about them.
    pub told: Vec<String>,
    /// What workers wait for that only comes with an up-to-date control plane.
    pub held: Vec<String>,
    /// Deployments whose rollout is paused.
    pub paused: Vec<String>,
    /// Objects, with their kind, whose machines are replaced when somebody deletes them.
    pub on_delete: Vec<String>,
    /// The control plane that is not brought up to date, and why not.
    pub control_plane: Option<(String, Way)>,
}

impl Stuck {
    fn is_any(&self) -> bool {
        !self.machines.is_empty() || !self.told.is_empty()
    }

    /// Notes whose machines stay as they are, and why.
    fn stand_still(&mut self, kind: &str, object: &Value, way: Way) {
        let name = text(object, "/metadata/name").to_owned();
        let is_control_plane = kind == "TalosControlPlane";
        if is_control_plane {
            self.control_plane = Some((name.clone(), way));
        }
        let (names, name) = match way {
            Way::Paused if !is_control_plane => (&mut self.paused, name),
            Way::OnDelete => (&mut self.on_delete, format!("{kind} {name}")),
            _ => return,
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }

    /// As the user is told.
    pub fn problem(&self, cluster: &str, namespace: &str) -> Problem {
        let within = within(namespace);
        let (mut whys, mut remedies) = (Vec::new(), vec!["take the change back".to_owned()]);
        match &self.control_plane {
            Some((name, Way::Paused)) => {
                whys.push(format!("TalosControlPlane {name} is paused"));
                remedies.push(format!("or go on: `kubectl annotate taloscontrolplane {name} cluster.x-k8s.io/paused-{within}`"));
            }
            Some((name, Way::Blocked)) => {
                whys.push(format!("a machine of TalosControlPlane {name} cannot be replaced"));
                remedies.push("or do what the control plane's condition says".to_owned());
            }
            _ => {}
        }
        for name in &self.paused {
            whys.push(format!("the rollout of MachineDeployment {name} is paused"));
            remedies.push(format!("or go on: `talosphere rollout resume machinedeployment/{name}{within}`"));
        }
        for name in &self.on_delete {
            whys.push(format!("the machines of {name} are replaced when somebody deletes them (OnDelete)"));
            remedies.push("or delete the machines that are named, one at a time, with `kubectl delete machine NAME`".to_owned());
        }
        Problem::new(Code::NotRolledOut, format!("the change of Cluster {cluster} is stored, but its machines are not up to date"))
            .because(whys.join("; "))
            .seen_all(self.machines.iter().chain(&self.told).chain(&self.held).cloned())
            .remedy(remedies.join("; "))
    }
}

/// A wait, and whether somebody must do something about it.
struct Wait(bool, String);

/// How machines of an older specification are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One after another, without anybody's doing.
    Rolling,
    /// Not before it is resumed.
    Paused,
    /// When somebody deletes them.
    OnDelete,
    /// Not at all: a person must decide.
    Blocked,
}

fn way(deployment: &Value) -> Way {
    if pointer(deployment, "/spec/paused").and_then(Value::as_bool) == Some(true) {
        Way::Paused
    } else if text(deployment, "/spec/rollout/strategy/type") == "OnDelete" {
        Way::OnDelete
    } else {
        Way::Rolling
    }
}

fn way_of_control_plane(plane: &Value) -> Way {
    let is_blocked = condition(plane, "MachinesSpecUpToDate").is_some_and(|told| text(told, "/reason") == "RollingUpdateBlocked");
    let is_paused = pointer(plane, "/metadata/annotations").and_then(Value::as_object);
    if is_paused.is_some_and(|known| known.contains_key("cluster.x-k8s.io/paused")) {
        Way::Paused
    } else if text(plane, "/spec/rolloutStrategy/type") == "OnDelete" {
        Way::OnDelete
    } else if is_blocked {
        Way::Blocked
    } else {
        Way::Rolling
    }
}

/// What a deployment says of its rollout, if it has one.
fn rolling_out(deployment: &Value) -> Option<String> {
    let told = condition(deployment, "RollingOut").filter(|told| text(told, "/status") == "True")?;
    Some(clean(text(told, "/message")))
}

/// Whether a deployment makes no machines because its control plane cannot take them in.
fn is_held(deployment: &Value) -> bool {
    let says = |type_: &str| condition(deployment, type_).is_some_and(|told| text(told, "/message").contains("preflight check failed"));
    says("RollingOut") || says("ScalingUp")
}

/// Whether every Machine that should be there runs, with its Node ready and its specification the wanted one, and the workload's objects
/// are applied.
pub fn verdict(objects: &Objects, cluster: &str) -> Verdict {
    let Some(object) = objects.get("Cluster", cluster) else {
        return Verdict { waiting: vec![format!("Cluster {cluster} is not there yet")], ..Verdict::default() };
    };
    let plane = objects.get("TalosControlPlane", text(object, "/spec/controlPlaneRef/name"));
    let deployments: Vec<&Value> = objects.of_cluster("MachineDeployment", cluster).collect();
    let machines: Vec<&Value> = objects.of_cluster("Machine", cluster).collect();
    let mut waits = Vec::new();
    if let Some(cause) = of_infrastructure(objects, cluster) {
        waits.push(Wait(needs_a_person(&cause.reason), format!("VSphereCluster {}: {}", cause.name, cause.why())));
    }
    let mut stuck = Stuck::default();
    let mut workers = Vec::new();
    count(plane, &deployments, &machines, &mut waits, &mut workers);
    each(objects, plane, &machines, &mut waits, &mut workers, &mut stuck);
    if let Some(plane) = plane.filter(|plane| !is_true(plane, "Ready") && !is_deleting(plane)) {
        let (reason, message) = condition(plane, "Ready").map_or(("", ""), |c| (text(c, "/reason"), text(c, "/message")));
        let told = why(reason, message);
        // What a machine says already is not said twice.
        let message = clean(message);
        let is_in = |part: &str| !part.is_empty() && waits.iter().any(|wait| wait.1.contains(part));
        let is_said = is_in(reason) || is_in(&message);
        let told = if told.is_empty() || is_said { String::new() } else { format!(": {told}") };
        waits.push(Wait(needs_a_person(reason), format!("the control plane is not ready{told}")));
    }
    if let Some(plane) = plane {
        sum(plane, "TalosControlPlane", &mut waits, &mut stuck);
    }
    for deployment in &deployments {
        sum(deployment, "MachineDeployment", &mut workers, &mut stuck);
    }
    if stuck.control_plane.is_some() && deployments.iter().any(|deployment| is_held(deployment)) {
        // Workers that wait for a control plane that does not come are waited for in vain.
        stuck.held.extend(workers.drain(..).map(|wait| wait.1));
    }
    waits.append(&mut workers);
    if waits.is_empty() && !is_true(object, "Available") {
        waits.push(Wait(false, format!("Cluster {cluster} is not available yet")));
    }
    for set in objects.of_kind("ClusterResourceSet") {
        let is_ours = text(set, "/metadata/name") == format!("{cluster}-workload");
        if is_ours && !is_true(set, "ResourcesApplied") {
            let (reason, message) = condition(set, "ResourcesApplied").map_or(("", ""), |c| (text(c, "/reason"), text(c, "/message")));
            let told = clean(message);
            let told = if told.is_empty() { String::new() } else { format!(": {told}") };
            waits.push(Wait(needs_a_person(reason), format!("the workload's objects are not applied{told}")));
        }
    }
    let is_only_outdated = waits.is_empty() && stuck.is_any();
    let is_paused = pointer(object, "/spec/paused").and_then(Value::as_bool) == Some(true);
    // While machines come and go their members are on their way; that etcd is not whole then is nothing of its own.
    let is_settled = plane.is_some_and(|plane| {
        let is_initialized = pointer(plane, "/status/initialized").and_then(Value::as_bool) == Some(true);
        is_initialized && is_true(plane, "Resized") && is_true(plane, "MachinesSpecUpToDate")
    });
    let etcd = plane.and_then(unhealthy_etcd);
    if let Some(etcd) = etcd.clone().filter(|_| is_settled && !waits.is_empty()) {
        waits.push(Wait(false, etcd));
    }
    if is_paused && !waits.is_empty() {
        waits.insert(0, Wait(true, paused(object)));
    }
    // What a person must do stands first.
    waits.sort_by_key(|wait| !wait.0);
    let demands = waits.iter().filter(|wait| wait.0).map(|wait| wait.1.clone()).collect();
    let mut waiting: Vec<String> = waits.into_iter().map(|wait| wait.1).collect();
    waiting.extend(stuck.machines.iter().chain(&stuck.told).chain(&stuck.held).cloned());
    let stuck = is_only_outdated.then_some(stuck);
    let mut notes = notes(object, &machines);
    notes.extend(etcd.filter(|_| waiting.is_empty()));
    if is_paused && waiting.is_empty() {
        notes.push(paused(object));
    }
    Verdict { is_ready: waiting.is_empty(), is_deleting: is_deleting(object), waiting, demands, notes, stuck }
}

/// That nothing is done, and how it goes on.
fn paused(cluster: &Value) -> String {
    let (name, namespace) = (text(cluster, "/metadata/name"), text(cluster, "/metadata/namespace"));
    let within = within(namespace);
    let patch = r#"{"spec":{"paused":false}}"#;
    format!(
        "Cluster {name} is paused: what is asked for is stored and not carried out, until `kubectl patch cluster {name}{within} --type merge -p '{patch}'`"
    )
}

/// What keeps ready Nodes from being used, most often the same for all of them; and Nodes that are nobody's.
fn notes(cluster: &Value, machines: &[&Value]) -> Vec<String> {
    let strays = condition(cluster, "StrayNodes").filter(|told| text(told, "/status") == "True");
    let strays = strays.into_iter().flat_map(|told| text(told, "/message").lines().map(str::to_owned).collect::<Vec<_>>());
    let mut held = machines.iter().filter(|machine| !is_deleting(machine)).filter_map(|machine| held_back(machine));
    let Some(first) = held.next() else { return strays.collect() };
    let more = match held.count() {
        0 => String::new(),
        1 => " (and so is 1 more Node)".to_owned(),
        more => format!(" (and so are {more} more Nodes)"),
    };
    std::iter::once(format!("{first}{more}")).chain(strays).collect()
}

/// Whether as many machines exist as are wanted.
fn count(plane: Option<&Value>, deployments: &[&Value], machines: &[&Value], waits: &mut Vec<Wait>, workers: &mut Vec<Wait>) {
    let wanted = |object: &Value| number(object, "/spec/replicas").unwrap_or(1);
    let labels = |machine: &&&Value| label(machine, "cluster.x-k8s.io/control-plane").is_some();
    let control = machines.iter().filter(labels).count();
    let scaling = |object: &Value| condition(object, "ScalingUp").map(|c| clean(text(c, "/message"))).filter(|message| !message.is_empty());
    let told = |object: Option<String>| object.map(|told| format!(": {told}")).unwrap_or_default();
    for (waits, what, have, wanted, why) in [
        (waits, "control plane machines", control, plane.map_or(0, wanted), None),
        (
            workers,
            "worker machines",
            machines.len() - control,
            deployments.iter().map(|deployment| wanted(deployment)).sum(),
            deployments.iter().find_map(|deployment| scaling(deployment)),
        ),
    ] {
        if u64::try_from(have).unwrap_or(u64::MAX) != wanted {
            waits.push(Wait(false, format!("{have} of {wanted} {what} exist{}", told(why))));
        }
    }
}

/// Whether waiting helps, the phase, and why it is not further: what Machines have in common.
type Lack<'a> = (bool, &'a str, String);

/// What the Machines lack; those that lack the same have one line.
fn each(objects: &Objects, plane: Option<&Value>, machines: &[&Value], waits: &mut Vec<Wait>, workers: &mut Vec<Wait>, stuck: &mut Stuck) {
    let mut alike: BTreeMap<Lack<'_>, Vec<(&str, Option<Cause>)>> = BTreeMap::new();
    for machine in machines {
        let (name, phase) = (text(machine, "/metadata/name"), text(machine, "/status/phase"));
        if phase != "Running" {
            let phase = if phase.is_empty() { "Pending" } else { phase };
            let cause = of_machine(objects, machine).or_else(|| of_deletion(objects, machine));
            let is_failing = phase == "Failed" || cause.as_ref().is_some_and(|cause| needs_a_person(&cause.reason));
            let why = cause.as_ref().map(Cause::why).unwrap_or_default();
            alike.entry((!is_failing, phase, why)).or_default().push((name, cause));
        } else if healing(objects, machine).is_none() && !is_true(machine, "NodeReady") {
            let why = condition(machine, "NodeReady").map(|c| clean(text(c, "/message"))).filter(|message| !message.is_empty());
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            waits.push(Wait(false, format!("Node of Machine {name} is not ready{why}")));
        }
        if let Some(healing) = healing(objects, machine) {
            waits.push(Wait(healing.needs_a_person, format!("Machine {name} is {}", healing.told)));
        }
        if let Some(told) = condition(machine, "UpToDate").filter(|told| text(told, "/status") == "False") {
            let message = clean(text(told, "/message"));
            let message = if message.is_empty() { String::new() } else { format!(": {message}") };
            let line = format!("Machine {name} is not up to date{message}");
            let deployment = label(machine, "cluster.x-k8s.io/deployment-name");
            match deployment.and_then(|name| objects.get("MachineDeployment", name)) {
                Some(object) if way(object) == Way::Rolling => workers.push(Wait(false, line)),
                Some(object) => {
                    stuck.machines.push(line);
                    stuck.stand_still("MachineDeployment", object, way(object));
                }
                None => match plane.map(|plane| (plane, way_of_control_plane(plane))) {
                    Some((plane, way)) if way != Way::Rolling => {
                        stuck.machines.push(line);
                        stuck.stand_still("TalosControlPlane", plane, way);
                    }
                    _ => waits.push(Wait(false, line)),
                },
            }
        }
    }
    for ((is_waiting, phase, why), members) in alike {
        let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
        let first = members.first().and_then(|(name, cause)| Some((*name, cause.as_ref()?)));
        let why = match first {
            // That one has a line of its own.
            Some((_, cause)) if cause.kind == "VSphereCluster" => format!(": waiting for VSphereCluster {}", cause.name),
            Some((name, cause)) if members.len() == 1 => format!(": {}", cause.told(name)),
            Some((_, cause)) if cause.kind != "Machine" => format!(": {}: {why}", cause.kind),
            Some(_) => format!(": {why}"),
            None => String::new(),
        };
        let (noun, verb) = if names.len() == 1 { ("Machine", "is") } else { ("Machines", "are") };
        waits.push(Wait(!is_waiting, format!("{noun} {} {verb} {phase}{why}", names.join(", "))));
    }
}

/// What an object that sums machines up says. It follows a moment later; what is told after the verdict should agree with it.
fn sum(object: &Value, kind: &str, waits: &mut Vec<Wait>, stuck: &mut Stuck) {
    let name = text(object, "/metadata/name");
    let (ready, wanted) = (number(object, "/status/readyReplicas").unwrap_or(0), number(object, "/spec/replicas").unwrap_or(1));
    if ready != wanted {
        waits.push(Wait(false, format!("{kind} {name} counts {ready} of {wanted} machines ready")));
    }
    // Before its controller has looked at a change, the old state says nothing about it.
    let generation = number(object, "/metadata/generation").unwrap_or(0);
    if number(object, "/status/observedGeneration").unwrap_or(0) < generation {
        waits.push(Wait(false, format!("the change of {kind} {name} is not looked at yet")));
    }
    if let Some(told) = rolling_out(object) {
        let line = format!("{kind} {name}: {told}");
        if way(object) == Way::Rolling {
            waits.push(Wait(false, line));
        } else {
            stuck.told.push(line);
        }
    }
    let outdated = condition(object, "MachinesSpecUpToDate").filter(|told| text(told, "/status") == "False");
    if let Some(message) = outdated.map(|told| clean(text(told, "/message"))).filter(|message| !message.is_empty()) {
        let line = format!("{kind} {name}: {message}");
        match way_of_control_plane(object) {
            Way::Rolling => waits.push(Wait(false, line)),
            way => {
                stuck.told.push(line);
                stuck.stand_still(kind, object, way);
            }
        }
    }
}
