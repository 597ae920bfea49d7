//! What a control plane does beside a worker's work: its etcd member, and the API server that depends on it.
//!
//! The member's data decides: with data the member starts again, without it the machine waits - to be bootstrapped, or to join a cluster
//! that others of its realm run. Joining is one learner at a time and ends with a promotion. The API server follows the member.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Nodes;
use super::boot::running;
use super::configuration::Configuration;
use super::database::{self, Refusal};
use super::etcd::{EtcdCluster, EtcdClusterId, EtcdError, Member, MemberId};
use super::service::ServiceState;
use super::state::{BootstrapCall, realm_of};
use crate::hypervisor::VmId;
use crate::workload;

/// Runs until etcd leaves or the machine stops.
pub(super) async fn run(nodes: &Nodes, id: &VmId, configuration: &Arc<Configuration>, stop: &CancellationToken) {
    let realm = realm_of(configuration);
    if configuration.cluster.etcd_ca.as_ref().is_none_or(|ca| ca.key.is_none()) {
        service(nodes, id, ServiceState::Failed, "Failed to run pre stage: missing cluster.etcdCA");
        return;
    }
    service(nodes, id, ServiceState::Preparing, "Running pre state");
    if configuration.bootstraps_itself && nodes.state().etcd.values().all(|cluster| cluster.realm != realm) {
        let _ = bootstrap(nodes, id, Beginning::New);
    }
    let Some((cluster, member)) = data(nodes, id, configuration, &realm).await else { return };
    service(nodes, id, ServiceState::Starting, "Starting etcd");
    nodes.pause(nodes.options().latency.etcd).await;
    {
        let mut state = nodes.state();
        let Some(members) = state.etcd.get_mut(&cluster) else { return };
        members.start(member);
        state.catch_up(cluster);
    }
    running(nodes, id, "etcd", "Health check successful");
    nodes.event(Some(&realm), &format!("{id}: etcd member {member} runs"));
    if !promoted(nodes, id, &realm, cluster, member).await {
        return;
    }
    workload::endpoint::run(nodes, id, configuration, (cluster, member), stop).await;
}

fn service(nodes: &Nodes, id: &VmId, state: ServiceState, message: &str) {
    let now = nodes.options().clock.now();
    nodes.state().service(id, "etcd", state, message, now);
}

/// Waits until the disk holds the data of a member that is still part of its cluster. `None`: never, in this boot.
async fn data(nodes: &Nodes, id: &VmId, configuration: &Configuration, realm: &str) -> Option<(EtcdClusterId, MemberId)> {
    let mut signal = nodes.watch(realm);
    loop {
        signal.mark_unchanged();
        let data = nodes.state().etcd_data(id);
        if let Some((cluster, member)) = data {
            let is_member = nodes.state().etcd.get(&cluster).is_some_and(|cluster| cluster.member(member).is_some());
            if !is_member {
                service(nodes, id, ServiceState::Failed, "the member has been permanently removed from the cluster");
                nodes.event(Some(realm), &format!("{id}: etcd member {member} was removed"));
                return None;
            }
            return Some((cluster, member));
        }
        match join(nodes, id, configuration, realm) {
            Ok(Some(_)) => {
                nodes.event(Some(realm), &format!("{id} joins etcd as a learner"));
                continue;
            }
            Ok(None) => {}
            Err(error) => nodes.say(id, &format!("user: warning: [talos] etcd: failed to add member: {error}; retrying")),
        }
        signal.changed().await.ok()?;
    }
}

/// Joins the cluster that the realm runs, if there is one with a quorum. The data directory belongs to the new member from then on.
fn join(nodes: &Nodes, id: &VmId, configuration: &Configuration, realm: &str) -> Result<Option<MemberId>, EtcdError> {
    let mut state = nodes.state();
    let authority = configuration.cluster.etcd_ca.as_ref().map(|ca| ca.certificate.as_str());
    // Only a member whose machine runs can be asked.
    let asked = state.in_realm(realm).filter(|(other, _)| *other != id).find_map(|(other, machine)| {
        let (cluster, member) = state.etcd_data(other)?;
        let is_known = state.etcd_authority.get(&cluster).map(String::as_str) == authority;
        let serves = machine.services.is_running("etcd") && state.etcd.get(&cluster)?.serves(member);
        (is_known && serves).then_some(cluster)
    });
    let Some(cluster_id) = asked else { return Ok(None) };
    let Some(machine) = state.machines.get(id) else { return Ok(None) };
    let Some(address) = machine.primary() else { return Ok(None) };
    let (name, disk) = (machine.hostname.clone(), machine.vm.fresh_disk_id.clone());
    let member = MemberId(fresh_id(nodes, &format!("member {disk} {}", machine.boots)));
    let Some(cluster) = state.etcd.get_mut(&cluster_id) else { return Ok(None) };
    cluster.add_learner(Member { id: member, name, address: address.to_string(), is_learner: true, disk: disk.clone() })?;
    state.disk(&disk).etcd = Some((cluster_id, member));
    Ok(Some(member))
}

/// Waits until the member votes. `false`: it was removed before.
async fn promoted(nodes: &Nodes, id: &VmId, realm: &str, cluster: EtcdClusterId, member: MemberId) -> bool {
    let mut signal = nodes.watch(realm);
    let is_learner = |nodes: &Nodes| nodes.state().etcd.get(&cluster)?.member(member).map(|member| member.is_learner);
    if is_learner(nodes) == Some(true) {
        nodes.pause(nodes.options().latency.catch_up).await;
    }
    loop {
        signal.mark_unchanged();
        match is_learner(nodes) {
            None => {
                service(nodes, id, ServiceState::Failed, "the member has been permanently removed from the cluster");
                nodes.event(Some(realm), &format!("{id}: etcd member {member} was removed"));
                return false;
            }
            Some(false) => return true,
            Some(true) => {
                let promoted = nodes.state().etcd.get_mut(&cluster).map(|cluster| cluster.promote(member));
                match promoted {
                    Some(Ok(())) => {
                        nodes.say(id, "user: warning: [talos] etcd: successfully promoted learner member");
                        nodes.event(Some(realm), &format!("{id}: etcd member {member} votes"));
                        return true;
                    }
                    Some(Err(error)) => nodes.say(id, &format!("user: warning: [talos] etcd: failed to promote member: {error}; retrying")),
                    None => return false,
                }
            }
        }
        if signal.changed().await.is_err() {
            return false;
        }
    }
}

/// Why a machine does not bootstrap etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BootstrapRefusal {
    /// It is not a control plane.
    Worker,
    /// The container runtime does not run yet.
    TooEarly,
    NoAuthority,
    /// There is data already.
    NotEmpty,
    /// Nobody has sent a snapshot to recover from.
    NoSnapshot,
    /// The snapshot is not restored.
    Snapshot(Refusal),
}

/// What a new etcd cluster begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    New,
    /// The snapshot that was sent; whether its digest need not be there.
    Snapshot {
        skips_digest: bool,
    },
}

/// Makes a new etcd cluster of this machine. The only guard is the machine's own data directory, as on a real node: called on two machines
/// it makes two clusters.
pub(super) fn bootstrap(nodes: &Nodes, id: &VmId, beginning: Beginning) -> Result<EtcdClusterId, BootstrapRefusal> {
    let now = nodes.options().clock.now();
    let (realm, result) = {
        let mut state = nodes.state();
        let Some(machine) = state.machines.get(id) else { return Err(BootstrapRefusal::TooEarly) };
        let Some(configuration) = machine.configuration.clone() else { return Err(BootstrapRefusal::TooEarly) };
        let disk = machine.vm.fresh_disk_id.clone();
        let realm = realm_of(&configuration);
        let authority = configuration.cluster.etcd_ca.clone().filter(|ca| ca.key.is_some());
        let refusal = if !configuration.is_control_plane() {
            Some(BootstrapRefusal::Worker)
        } else if authority.is_none() {
            Some(BootstrapRefusal::NoAuthority)
        } else if !machine.services.is_running("cri") {
            Some(BootstrapRefusal::TooEarly)
        } else if state.etcd_data(id).is_some() {
            Some(BootstrapRefusal::NotEmpty)
        } else {
            None
        };
        let upload = state.disks.get(&disk).and_then(|disk| disk.upload.clone());
        let contents = match (refusal, beginning) {
            (Some(refusal), _) => Err(refusal),
            (None, Beginning::New) => Ok(None),
            (None, Beginning::Snapshot { skips_digest }) => {
                let upload = upload.ok_or(BootstrapRefusal::NoSnapshot);
                upload.and_then(|file| database::restore(&file, skips_digest).map(Some).map_err(BootstrapRefusal::Snapshot))
            }
        };
        let recovered = contents.as_ref().ok().and_then(|contents| contents.as_ref()).map(|contents| contents.revision);
        let result = match contents {
            Err(refusal) => Err(refusal),
            Ok(contents) => {
                let (name, address) = (machine.hostname.clone(), machine.primary().map(|address| address.to_string()).unwrap_or_default());
                let cluster_id = EtcdClusterId(fresh_id(nodes, &format!("cluster {disk} {}", state.bootstraps.len())));
                let member = MemberId(fresh_id(nodes, &format!("member {disk} {}", state.bootstraps.len())));
                let first = Member { id: member, name, address, is_learner: false, disk: disk.clone() };
                let mut cluster = EtcdCluster::bootstrap(cluster_id, &realm, first);
                cluster.stop(member);
                state.etcd.insert(cluster_id, cluster);
                state.etcd_authority.insert(cluster_id, authority.map(|ca| ca.certificate).unwrap_or_default());
                state.disk(&disk).etcd = Some((cluster_id, member));
                if let Some(contents) = contents {
                    state.disk(&disk).upload = None;
                    state.restored.insert(cluster_id, contents);
                    // Whoever was in the API that was lost reports anew to the one that comes.
                    state
                        .machines
                        .values_mut()
                        .filter(|machine| machine.realm.as_deref() == Some(&realm))
                        .for_each(|machine| machine.is_registered = false);
                }
                Ok(cluster_id)
            }
        };
        state.bootstraps.push(BootstrapCall { at: now, realm: realm.clone(), vm: id.clone(), disk, made: result.ok(), recovered });
        (realm, result)
    };
    nodes.event(Some(&realm), &format!("{id}: bootstrap {}", if result.is_ok() { "accepted" } else { "refused" }));
    result
}

/// A number that nothing else has: from the world's seed, by what it is for.
fn fresh_id(nodes: &Nodes, purpose: &str) -> u64 {
    u64::from_be_bytes(nodes.options().random.child(purpose).bytes())
}
