//! Rule 9: drains end. Budgets are respected until the limit, control planes are drained before their member leaves, and nothing is drained
//! for longer than its limit.
//!
//! The limit is worked out here from what the user wrote, the pods are read where they run. A machine that lost its power before its drain
//! began is nobody's to wait for, and so is what goes with its whole cluster.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::objects::{Key, Objects, is_deleting, text};
use super::{Violation, violation};
use crate::Truth;
use crate::node::etcd::MemberId;

const GROUP: &str = "cluster.x-k8s.io";
const TIMEOUT: &str = "talosphere.dev/node-drain-timeout";
const MIRROR: &str = "kubernetes.io/config.mirror";
const DEFAULT_LIMIT: SignedDuration = SignedDuration::from_mins(15);
/// How long a drain may be overdue: its limit may have been shortened a moment ago.
const SLACK: SignedDuration = SignedDuration::from_secs(60);

/// What was seen before.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Names of machines with power.
    powered: BTreeSet<String>,
    members: BTreeMap<MemberId, String>,
    /// Since when drains are overdue.
    overdue: BTreeMap<Key, Timestamp>,
}

/// A Machine whose node has to be drained before it goes.
struct Draining<'a> {
    key: &'a Key,
    machine: &'a Value,
    node: &'a str,
    since: Option<Timestamp>,
    /// None: for ever.
    limit: Option<SignedDuration>,
}

impl Draining<'_> {
    fn is_over(&self, now: Timestamp) -> bool {
        self.since.zip(self.limit).and_then(|(since, limit)| since.checked_add(limit).ok()).is_some_and(|until| now >= until)
    }
}

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(key)?.as_str()
}

fn has_label(object: &Value, key: &str) -> bool {
    object.pointer("/metadata/labels").and_then(|labels| labels.get(key)).is_some()
}

/// `80s`, `15m`, `1h30m`.
fn duration(text: &str) -> Option<SignedDuration> {
    text.parse::<SignedDuration>().ok().or_else(|| (text == "0s").then_some(SignedDuration::ZERO))
}

fn controller(machine: &Value) -> Option<&Value> {
    let owners = machine.pointer("/metadata/ownerReferences")?.as_array()?;
    owners.iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true)))
}

fn control_plane<'a>(objects: &'a Objects, machine: &Value) -> Option<&'a Value> {
    let owner = controller(machine).filter(|owner| text(owner, "/kind") == "TalosControlPlane")?;
    let mut planes = objects.list("controlplane.cluster.x-k8s.io", "taloscontrolplanes");
    planes.find(|(_, plane)| text(plane, "/metadata/uid") == text(owner, "/uid")).map(|(_, plane)| plane)
}

fn limit(objects: &Objects, machine: &Value) -> Option<SignedDuration> {
    let told = match machine.pointer("/spec/deletion/nodeDrainTimeoutSeconds").and_then(Value::as_i64) {
        Some(seconds) => SignedDuration::from_secs(seconds),
        None => {
            let own = annotation(machine, TIMEOUT).and_then(duration);
            let of_owner = || annotation(control_plane(objects, machine)?, TIMEOUT).and_then(duration);
            own.or_else(of_owner).unwrap_or(DEFAULT_LIMIT)
        }
    };
    Some(told).filter(|limit| !limit.is_zero())
}

/// The Machines that are being deleted while their cluster and its control plane stay.
fn draining(objects: &Objects) -> Vec<Draining<'_>> {
    let machines: Vec<(&Key, &Value)> = objects.list(GROUP, "machines").collect();
    let is_control_plane = |machine: &Value| has_label(machine, "cluster.x-k8s.io/control-plane");
    let stays = |key: &Key, machine: &Value| {
        let cluster_name = text(machine, "/spec/clusterName");
        let mut clusters = objects.list(GROUP, "clusters");
        let cluster = clusters.find(|(other, _)| other.namespace == key.namespace && other.name == cluster_name);
        let Some((_, cluster)) = cluster.filter(|(_, cluster)| !is_deleting(cluster)) else { return false };
        let plane = text(cluster, "/spec/controlPlaneRef/name");
        let mut planes = objects.list("controlplane.cluster.x-k8s.io", "taloscontrolplanes");
        let is_plane_there = planes.any(|(other, object)| other.namespace == key.namespace && other.name == plane && !is_deleting(object));
        let others = machines.iter().filter(|(other, object)| {
            other.namespace == key.namespace && text(object, "/spec/clusterName") == cluster_name && is_control_plane(object)
        });
        let is_last = is_control_plane(machine) && others.clone().all(|(_, object)| is_deleting(object));
        is_plane_there && !is_last
    };
    let excluded = "machine.cluster.x-k8s.io/exclude-node-draining";
    let going = machines.iter().filter(|(_, machine)| is_deleting(machine) && annotation(machine, excluded).is_none());
    going
        .filter(|(key, machine)| stays(key, machine))
        .map(|(key, machine)| Draining {
            key,
            machine,
            node: text(machine, "/status/nodeRef/name"),
            since: text(machine, "/status/deletion/nodeDrainStartTime").parse().ok(),
            limit: limit(objects, machine),
        })
        .collect()
}

/// Whether a drain takes this pod off its node.
fn counts(pod: &Value) -> bool {
    let has_ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    let owner = controller(pod).map_or("", |owner| text(owner, "/kind"));
    let is_left = annotation(pod, MIRROR).is_some() || owner == "Node" || (owner == "DaemonSet" && !has_ended);
    !is_left && !has_label(pod, "cluster.x-k8s.io/drain")
}

impl Memory {
    /// The world as it is now belongs to a person.
    pub fn accept(&mut self, truth: &Truth) {
        self.powered = truth.nodes.machines.iter().map(|machine| machine.hostname.clone()).collect();
    }

    pub fn check(&mut self, truth: &Truth, objects: &Objects, now: Timestamp) -> Vec<Violation> {
        let powered: BTreeSet<String> = truth.nodes.machines.iter().map(|machine| machine.hostname.clone()).collect();
        let members: BTreeMap<MemberId, String> =
            truth.nodes.etcd.iter().flat_map(|cluster| cluster.members().map(|member| (member.id, member.name.clone()))).collect();
        let went: Vec<String> = self.powered.difference(&powered).cloned().collect();
        let left = self.members.iter().filter(|(id, _)| !members.contains_key(id)).map(|(_, name)| name.clone());
        // A machine that has no power has left its cluster already.
        let left: Vec<String> = left.filter(|name| powered.contains(name)).collect();
        let mut found = Vec::new();
        let draining = draining(objects);
        let is_ruled = objects.list(GROUP, "machinedrainrules").next().is_some();
        for one in draining.iter().filter(|one| !one.node.is_empty() && !one.is_over(now) && !is_ruled) {
            let has = |names: &[String]| names.iter().any(|name| name == one.node);
            let what = match (has(&left), has(&went)) {
                (true, _) => "a control plane's member left etcd before its node was drained",
                (_, true) => "a machine went before its node was drained, or its limit was over",
                _ => continue,
            };
            let pods = truth.nodes.pods.on(one.node);
            let pods: Vec<&str> = pods.iter().filter(|pod| counts(pod)).map(|pod| text(pod, "/metadata/name")).collect();
            if !pods.is_empty() {
                found.push(violation(9, what, format!("{}: {}", one.node, pods.join(", "))));
            }
        }
        let is_draining_yet = |one: &Draining<'_>| {
            let conditions = one.machine.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
            let is_draining = |condition: &Value| text(condition, "/type") == "Deleting" && text(condition, "/reason") == "DrainingNode";
            conditions.into_iter().any(is_draining)
        };
        let late: BTreeSet<Key> =
            draining.iter().filter(|one| is_draining_yet(one) && one.is_over(now)).map(|one| one.key.clone()).collect();
        self.overdue.retain(|key, _| late.contains(key));
        for key in late {
            let since = *self.overdue.entry(key.clone()).or_insert(now);
            if now.duration_since(since) > SLACK {
                found.push(violation(9, "a drain goes on after its limit", format!("{key}, overdue since {since}")));
            }
        }
        (self.powered, self.members) = (powered, members);
        found
    }
}
