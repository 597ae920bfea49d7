//! How far a cluster is, and what it waits for. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::cause::{Cause, clean, needs_a_person, of_infrastructure, of_machine, why};
use super::{Objects, condition, is_deleting, is_true, number, text};
use crate::problem::{Code, Problem};

/// How far a cluster is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub is_ready: bool,
    /// Whether the Cluster itself is being deleted.
    pub is_deleting: bool,
    /// What is waited for, the first line being the most telling.
    pub waiting: Vec<String>,
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
}

impl Stuck {
    /// As the user is told.
    pub fn problem(&self, cluster: &str) -> Problem {
        Problem::new(Code::NotRolledOut, format!("the change of Cluster {cluster} is stored, but its machines are not up to date"))
            .because(
                "a changed version, template or configuration is not rolled out by this release: machines keep what they were made with",
            )
            .seen_all(self.machines.iter().cloned())
            .seen_all(self.told.iter().cloned())
            .remedy(
                "take the change back; or replace the machines by hand: control planes one at a time with `kubectl delete machine NAME`, \
                 workers by another MachineDeployment with the new specification, deleting the old one when the new one is ready",
            )
    }
}

/// A wait, and whether somebody must do something about it.
struct Wait(bool, String);

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
    count(plane, &deployments, &machines, &mut waits);
    let mut stuck = Stuck::default();
    each(objects, &machines, &mut waits, &mut stuck);
    if let Some(plane) = plane.filter(|plane| !is_true(plane, "Ready")) {
        let (reason, message) = condition(plane, "Ready").map_or(("", ""), |c| (text(c, "/reason"), text(c, "/message")));
        let told = why(reason, message);
        // What a machine says already is not said twice.
        let is_said = waits.iter().any(|wait| !reason.is_empty() && wait.1.contains(reason));
        let told = if told.is_empty() || is_said { String::new() } else { format!(": {told}") };
        waits.push(Wait(needs_a_person(reason), format!("the control plane is not ready{told}")));
    }
    let sums = plane.into_iter().map(|plane| (plane, "TalosControlPlane"));
    let sums = sums.chain(deployments.iter().map(|deployment| (*deployment, "MachineDeployment")));
    for (object, kind) in sums {
        sum(object, kind, &mut waits, &mut stuck);
    }
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
    let is_outdated = !stuck.machines.is_empty() || !stuck.told.is_empty();
    let is_only_outdated = waits.is_empty() && is_outdated;
    // What a person must do stands first.
    waits.sort_by_key(|wait| !wait.0);
    let mut waiting: Vec<String> = waits.into_iter().map(|wait| wait.1).collect();
    waiting.extend(stuck.machines.iter().chain(&stuck.told).cloned());
    Verdict { is_ready: waiting.is_empty(), is_deleting: is_deleting(object), waiting, stuck: is_only_outdated.then_some(stuck) }
}

/// Whether as many machines exist as are wanted.
fn count(plane: Option<&Value>, deployments: &[&Value], machines: &[&Value], waits: &mut Vec<Wait>) {
    let wanted = |object: &Value| number(object, "/spec/replicas").unwrap_or(1);
    let labels =
        |machine: &&&Value| machine.pointer("/metadata/labels").and_then(|labels| labels.get("cluster.x-k8s.io/control-plane")).is_some();
    let control = machines.iter().filter(labels).count();
    let scaling = |object: &Value| condition(object, "ScalingUp").map(|c| clean(text(c, "/message"))).filter(|message| !message.is_empty());
    let told = |object: Option<String>| object.map(|told| format!(": {told}")).unwrap_or_default();
    for (what, have, wanted, why) in [
        ("control plane machines", control, plane.map_or(0, wanted), None),
        (
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
fn each(objects: &Objects, machines: &[&Value], waits: &mut Vec<Wait>, stuck: &mut Stuck) {
    let mut alike: BTreeMap<Lack<'_>, Vec<(&str, Option<Cause>)>> = BTreeMap::new();
    for machine in machines {
        let (name, phase) = (text(machine, "/metadata/name"), text(machine, "/status/phase"));
        if phase != "Running" {
            let phase = if phase.is_empty() { "Pending" } else { phase };
            let cause = of_machine(objects, machine);
            let is_failing = phase == "Failed" || cause.as_ref().is_some_and(|cause| needs_a_person(&cause.reason));
            let why = cause.as_ref().map(Cause::why).unwrap_or_default();
            alike.entry((!is_failing, phase, why)).or_default().push((name, cause));
        } else if !is_true(machine, "NodeReady") {
            let why = condition(machine, "NodeReady").map(|c| clean(text(c, "/message"))).filter(|message| !message.is_empty());
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            waits.push(Wait(false, format!("Node of Machine {name} is not ready{why}")));
        }
        if let Some(told) = condition(machine, "UpToDate").filter(|told| text(told, "/status") == "False") {
            let message = clean(text(told, "/message"));
            let message = if message.is_empty() { String::new() } else { format!(": {message}") };
            stuck.machines.push(format!("Machine {name} is not up to date{message}"));
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
    let outdated = condition(object, "MachinesSpecUpToDate").filter(|told| text(told, "/status") == "False");
    let kept = condition(object, "RollingOut").filter(|told| text(told, "/reason") == "NotRollingOut");
    // The first line of that one counts machines, which are told one by one; what differs stands below it.
    let kept = kept.and_then(|told| text(told, "/message").split_once('\n')).map(|(_, differences)| clean(differences));
    for message in outdated.map(|told| clean(text(told, "/message"))).into_iter().chain(kept) {
        if !message.is_empty() {
            stuck.told.push(format!("{kind} {name}: {message}"));
        }
    }
}
