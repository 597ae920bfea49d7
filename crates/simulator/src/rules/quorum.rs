//! Rule 2: no step of ours leaves fewer healthy voters than the resulting membership's quorum, and a member leaves etcd before its machine
//! goes. Voters are counted, not members; learners do not vote.
//!
//! Membership is read from etcd as it really is, power from vCenter. What a person does by hand is taken as it is, and what goes with its
//! whole cluster has nothing to keep.

use std::collections::BTreeMap;

use serde_json::Value;

use super::objects::{Objects, is_deleting, text};
use super::{Violation, violation};
use crate::Truth;
use crate::hypervisor::{VmId, VmTruth};
use crate::node::etcd::{EtcdCluster, EtcdClusterId, MemberId};

const CLUSTER: &str = "guestinfo.talosphere.cluster";
/// What stands on a TalosControlPlane while its etcd is recovered.
const RECOVERY: &str = "talosphere.dev/etcd-recovery";

/// A machine that has run.
#[derive(Clone, Debug)]
struct Known {
    name: String,
    /// Of the disk that holds its member's data.
    disk: String,
    /// The Cluster's uid, as its marker says.
    cluster: String,
    has_power: bool,
}

/// What was seen before.
#[derive(Debug, Default)]
pub(super) struct Memory {
    known: BTreeMap<VmId, Known>,
    members: BTreeMap<EtcdClusterId, BTreeMap<MemberId, (String, String)>>,
}

fn vms(truth: &Truth) -> BTreeMap<&VmId, &VmTruth> {
    truth.vms.iter().map(|vm| (&vm.id, vm)).collect()
}

/// Whether the cluster of this uid, or its control plane, is being deleted or is gone.
fn is_going(objects: &Objects, uid: &str) -> bool {
    let mut clusters = objects.list("cluster.x-k8s.io", "clusters");
    let Some((key, cluster)) = clusters.find(|(_, cluster)| text(cluster, "/metadata/uid") == uid) else { return true };
    let name = text(cluster, "/spec/controlPlaneRef/name");
    let mut planes = objects.list("controlplane.cluster.x-k8s.io", "taloscontrolplanes");
    let plane = planes.find(|(other, _)| other.namespace == key.namespace && other.name == name).map(|(_, plane)| plane);
    let is_gone = |object: Option<&Value>| object.is_none_or(is_deleting);
    is_deleting(cluster) || is_gone(plane)
}

/// Whether a recovery of etcd is recorded on the control plane of the cluster of this uid: a person has given up members that are lost.
fn is_recovering(objects: &Objects, uid: &str) -> bool {
    let mut clusters = objects.list("cluster.x-k8s.io", "clusters");
    let Some((key, cluster)) = clusters.find(|(_, cluster)| text(cluster, "/metadata/uid") == uid) else { return false };
    let name = text(cluster, "/spec/controlPlaneRef/name");
    let mut planes = objects.list("controlplane.cluster.x-k8s.io", "taloscontrolplanes");
    let plane = planes.find(|(other, _)| other.namespace == key.namespace && other.name == name).map(|(_, plane)| plane);
    plane.and_then(|plane| plane.pointer("/metadata/annotations")?.get(RECOVERY)).is_some()
}

impl Memory {
    /// The world as it is now belongs to a person.
    pub fn accept(&mut self, truth: &Truth) {
        self.look(truth);
        let there = vms(truth);
        self.known.retain(|id, _| there.contains_key(id));
        for (id, known) in &mut self.known {
            known.has_power = there.get(id).is_some_and(|vm| vm.powered_on);
        }
    }

    /// Learns of machines that have come.
    fn look(&mut self, truth: &Truth) {
        let there = vms(truth);
        for machine in &truth.nodes.machines {
            let Some(vm) = there.get(&machine.vm) else { continue };
            let known = self.known.entry(machine.vm.clone()).or_insert_with(|| Known {
                name: vm.name.clone(),
                disk: machine.disk.clone(),
                cluster: vm.extra_config.get(CLUSTER).cloned().unwrap_or_default(),
                has_power: vm.powered_on,
            });
            known.has_power |= vm.powered_on;
        }
    }

    pub fn check(&mut self, truth: &Truth, objects: &Objects) -> Vec<Violation> {
        let mut found = Vec::new();
        let there = vms(truth);
        for (id, known) in &mut self.known {
            let vm = there.get(id);
            let has_lost_power = known.has_power && vm.is_none_or(|vm| !vm.powered_on);
            if has_lost_power || vm.is_none() {
                known.has_power = false;
                let member = truth.nodes.etcd.iter().find_map(|cluster| {
                    let member = cluster.members().find(|member| member.disk == known.disk)?;
                    Some((cluster, member))
                });
                // What has lost its quorum already has none to lose.
                let is_given_up = |cluster: &EtcdCluster| !cluster.has_quorum() && is_recovering(objects, &known.cluster);
                if let Some((cluster, member)) = member.filter(|(cluster, _)| !is_going(objects, &known.cluster) && !is_given_up(cluster)) {
                    let how = if vm.is_none() { "was destroyed" } else { "was switched off" };
                    let evidence = format!("{} ({id}): member {} of {} voters", known.name, member.id, cluster.voters());
                    found.push(violation(2, format!("a machine {how} whose member has not left etcd"), evidence));
                }
            }
        }
        self.known.retain(|id, _| there.contains_key(id));
        for cluster in &truth.nodes.etcd {
            found.extend(self.left(cluster, objects));
        }
        self.members = truth.nodes.etcd.iter().map(|cluster| (cluster.id, self.names(cluster))).collect();
        self.look(truth);
        found
    }

    /// Members with their names and their clusters' uids.
    fn names(&self, cluster: &EtcdCluster) -> BTreeMap<MemberId, (String, String)> {
        let uid = |disk: &str| self.known.values().find(|known| known.disk == disk).map(|known| known.cluster.clone()).unwrap_or_default();
        cluster.members().map(|member| (member.id, (member.name.clone(), uid(&member.disk)))).collect()
    }

    /// Members that have left, and what is left.
    fn left(&self, cluster: &EtcdCluster, objects: &Objects) -> Vec<Violation> {
        let before = self.members.get(&cluster.id).into_iter().flatten();
        let left: Vec<&(String, String)> = before.filter(|(id, _)| cluster.member(**id).is_none()).map(|(_, member)| member).collect();
        let (voters, healthy) = (cluster.voters(), cluster.healthy_voters());
        let is_kept = voters == 0 || healthy > voters / 2;
        if is_kept || left.iter().all(|(_, uid)| is_going(objects, uid)) {
            return Vec::new();
        }
        let names: Vec<&str> = left.iter().map(|(name, _)| name.as_str()).collect();
        let evidence = format!("{} left; of {voters} voters {healthy} are healthy", names.join(", "));
        vec![violation(2, "a member left etcd, and what is left has no quorum", evidence)]
    }
}
