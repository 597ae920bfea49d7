//! What is true inside the simulated machines. One lock holds it all; nothing waits while holding it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use apiserver::Contents;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::configuration::Configuration;
use super::database::{self, Data};
use super::etcd::{EtcdCluster, EtcdClusterId, MemberId};
use super::links::{Dhcp, Link};
use super::release::Release;
use super::service::{ServiceState, Services};
use crate::hypervisor::{PoweredOn, ToolsReport, VmId};
use crate::workload::Workload;

/// What a machine's disk keeps when the power goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// The machine configuration, once it was accepted.
    pub configuration: Option<Vec<u8>>,
    /// Which member's data lies in etcd's directory.
    pub etcd: Option<(EtcdClusterId, MemberId)>,
    /// That data, since the member stopped and until it has caught up again; it is the cluster's own otherwise.
    pub stale: Option<Arc<Data>>,
    /// A snapshot that somebody sent to recover from.
    pub upload: Option<Arc<Vec<u8>>>,
    /// Its boot loader was wiped.
    pub is_unbootable: bool,
}

/// How far a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No API yet.
    Booting,
    /// It has no configuration it can use.
    Maintenance,
    Running,
    ShuttingDown,
    Rebooting,
}

/// A machine that has power.
#[derive(Debug)]
pub struct Machine {
    pub vm: PoweredOn,
    pub release: Release,
    /// System extensions on the template's disk.
    pub extensions: Vec<String>,
    /// Counts boots since power-on, for the boot id.
    pub boots: u64,
    pub booted_at: Timestamp,
    /// Ends everything that runs in this boot.
    pub stop: CancellationToken,
    pub stage: Stage,
    pub configuration: Option<Arc<Configuration>>,
    /// Which cluster it is meant to be part of, once it is configured.
    pub realm: Option<String>,
    pub links: Vec<Link>,
    pub hostname: String,
    pub services: Services,
    pub dmesg: Vec<String>,
    /// Told about every change of this machine.
    pub news: watch::Sender<u64>,
    /// The shared address it holds now.
    pub vip: Option<IpAddr>,
    /// Its API server answers.
    pub serves_api: bool,
    /// Its node object is in the API.
    pub is_registered: bool,
    /// What VMware tools in it said last.
    pub reported: Option<ToolsReport>,
}

impl Machine {
    /// The identity of the present boot.
    pub fn boot_id(&self) -> String {
        let digest = Sha256::digest(format!("{} {}", self.vm.fresh_disk_id, self.booted_at));
        let bytes: [u8; 16] = digest.first_chunk().copied().unwrap_or_default();
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// The address other machines use.
    pub fn primary(&self) -> Option<IpAddr> {
        let all = self.links.iter().flat_map(|link| &link.addresses).map(|(address, _)| *address);
        let subnets = self.configuration.as_deref().map(|configuration| configuration.kubelet.valid_subnets.as_slice()).unwrap_or_default();
        let all: Vec<IpAddr> = all.collect();
        all.iter().copied().find(|address| is_in(*address, subnets)).or_else(|| all.first().copied())
    }

    /// Every address of its own, shared ones left out.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.links.iter().flat_map(|link| &link.addresses).map(|(address, _)| *address).collect()
    }

    pub fn is_control_plane(&self) -> bool {
        self.configuration.as_deref().is_some_and(Configuration::is_control_plane)
    }
}

/// Whether `address` is in one of the networks and in none of the excluded ones. No network: all are good.
fn is_in(address: IpAddr, subnets: &[String]) -> bool {
    let contains = |text: &str| super::links::parse_cidr(text).is_some_and(|(network, prefix)| same_network(address, network, prefix));
    let (excluded, wanted): (Vec<&String>, Vec<&String>) = subnets.iter().partition(|text| text.starts_with('!'));
    let is_excluded = excluded.iter().any(|text| contains(text.trim_start_matches('!')));
    !is_excluded && (wanted.is_empty() || wanted.iter().any(|text| contains(text)))
}

fn same_network(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            u32::from(a) & mask == u32::from(b) & mask
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            u128::from(a) & mask == u128::from(b) & mask
        }
        _ => false,
    }
}

/// Machines that trust the same authority are meant to be one cluster: the realm is named by that authority's certificate.
pub(crate) fn realm_of(configuration: &Configuration) -> String {
    let digest = hex::encode(Sha256::digest(configuration.os_ca.certificate.trim()));
    digest.chars().take(16).collect()
}

/// A call of Bootstrap that reached a machine, for the rule checker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapCall {
    pub at: Timestamp,
    pub realm: String,
    pub vm: VmId,
    /// The identity of the machine's disk.
    pub disk: String,
    /// The etcd cluster it made, when it was accepted.
    pub made: Option<EtcdClusterId>,
    /// The revision that it went back to, when it was a recovery.
    pub recovered: Option<u64>,
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub machines: BTreeMap<VmId, Machine>,
    /// By disk identity.
    pub disks: BTreeMap<String, Disk>,
    /// Which disk a VM had last, so that it is forgotten with it.
    pub disk_of: BTreeMap<VmId, String>,
    pub etcd: BTreeMap<EtcdClusterId, EtcdCluster>,
    /// The etcd authority's certificate of each cluster.
    pub etcd_authority: BTreeMap<EtcdClusterId, String>,
    pub bootstraps: Vec<BootstrapCall>,
    /// What recovered clusters begin with.
    pub restored: BTreeMap<EtcdClusterId, Contents>,
    pub workloads: BTreeMap<EtcdClusterId, Arc<tokio::sync::OnceCell<Arc<Workload>>>>,
    pub realms: BTreeMap<String, watch::Sender<u64>>,
    pub dhcp: Dhcp,
}

impl State {
    /// The signal of a realm.
    pub fn signal(&mut self, realm: &str) -> &watch::Sender<u64> {
        self.realms.entry(realm.to_owned()).or_insert_with(|| watch::channel(0).0)
    }

    pub fn disk(&mut self, identity: &str) -> &mut Disk {
        self.disks.entry(identity.to_owned()).or_default()
    }

    /// The etcd data on the disk of `id`.
    pub fn etcd_data(&self, id: &VmId) -> Option<(EtcdClusterId, MemberId)> {
        let machine = self.machines.get(id)?;
        self.disks.get(&machine.vm.fresh_disk_id)?.etcd
    }

    /// The data of the member on the disk of `id`, as its machine would read it.
    pub fn data(&self, id: &VmId) -> Option<Arc<Data>> {
        let machine = self.machines.get(id)?;
        let disk = self.disks.get(&machine.vm.fresh_disk_id)?;
        let (cluster_id, _) = disk.etcd?;
        if let Some(stale) = &disk.stale {
            return Some(Arc::clone(stale));
        }
        let cluster = self.etcd.get(&cluster_id)?;
        let workload = self.workloads.get(&cluster_id).and_then(|cell| cell.get());
        let contents = match workload {
            Some(workload) => workload.journal.contents(),
            // Its API server has not begun yet.
            None => self.restored.get(&cluster_id).cloned().unwrap_or_default(),
        };
        Some(Arc::new(Data {
            index: cluster.index + contents.revision,
            term: cluster.term,
            members: cluster.members().map(database::described).collect(),
            authority: machine.configuration.as_deref()?.cluster.kubernetes_ca.certificate.clone(),
            contents,
        }))
    }

    /// The last entry that the member on the disk of `id` has applied.
    pub fn applied(&self, id: &VmId) -> Option<u64> {
        let machine = self.machines.get(id)?;
        let disk = self.disks.get(&machine.vm.fresh_disk_id)?;
        let (cluster_id, _) = disk.etcd?;
        if let Some(stale) = &disk.stale {
            return Some(stale.index);
        }
        let revision = self.workloads.get(&cluster_id).and_then(|cell| cell.get()).map(|workload| workload.api.revision());
        let revision = revision.or_else(|| self.restored.get(&cluster_id).map(|contents| contents.revision));
        Some(self.etcd.get(&cluster_id)?.index + revision.unwrap_or(0))
    }

    /// The member of `id` stops: what it has stays as it is, whatever the others go on to write.
    pub fn freeze(&mut self, id: &VmId) {
        let Some(data) = self.data(id) else { return };
        let Some(disk) = self.machines.get(id).map(|machine| machine.vm.fresh_disk_id.clone()) else { return };
        self.disk(&disk).stale = Some(data);
    }

    /// Members that run have what their cluster has, as soon as it has a quorum.
    pub fn catch_up(&mut self, cluster: EtcdClusterId) {
        let Some(cluster) = self.etcd.get(&cluster).filter(|cluster| cluster.has_quorum()) else { return };
        let running = cluster.members().filter(|member| cluster.is_running(member.id)).map(|member| member.disk.clone());
        for disk in running.collect::<Vec<_>>() {
            self.disk(&disk).stale = None;
        }
    }

    /// Configured machines of a realm, by VM.
    pub fn in_realm<'a>(&'a self, realm: &'a str) -> impl Iterator<Item = (&'a VmId, &'a Machine)> {
        self.machines.iter().filter(move |(_, machine)| machine.realm.as_deref() == Some(realm))
    }

    /// Whether the machine's own etcd member can serve reads and writes.
    pub fn serves_etcd(&self, id: &VmId) -> bool {
        let Some((cluster, member)) = self.etcd_data(id) else { return false };
        self.machines.get(id).is_some_and(|machine| machine.services.is_running("etcd"))
            && self.etcd.get(&cluster).is_some_and(|cluster| cluster.serves(member))
    }

    /// Whether the machine's API server answers with data: it is up and its etcd member serves.
    pub fn serves_api(&self, id: &VmId) -> bool {
        self.machines.get(id).is_some_and(|machine| machine.serves_api) && self.serves_etcd(id)
    }

    /// The workload cluster that machines of `realm` reach now, through any live API server; the lowest VM first.
    pub fn reachable(&self, realm: &str) -> Option<Arc<Workload>> {
        let server = self.in_realm(realm).map(|(id, _)| id).find(|id| self.serves_api(id))?;
        let (cluster, _) = self.etcd_data(server)?;
        self.workloads.get(&cluster)?.get().cloned()
    }

    /// Lets the shared addresses of a realm be held by exactly one machine that can hold them. Returns what changed: machine, address,
    /// and whether it holds it now.
    pub fn settle_vips(&mut self, realm: &str) -> Vec<(VmId, IpAddr, bool)> {
        let mut changes = Vec::new();
        let wanted: Vec<(VmId, IpAddr, bool, bool)> = self
            .in_realm(realm)
            .filter_map(|(id, machine)| {
                let vip = machine.links.iter().find_map(|link| link.vip)?;
                Some((id.clone(), vip, self.serves_api(id), machine.vip == Some(vip)))
            })
            .collect();
        let mut vips: Vec<IpAddr> = wanted.iter().map(|(_, vip, _, _)| *vip).collect();
        vips.sort_unstable();
        vips.dedup();
        for vip in vips {
            let candidates: Vec<_> = wanted.iter().filter(|(_, address, _, _)| *address == vip).collect();
            let holder =
                candidates.iter().find(|(_, _, can, holds)| *can && *holds).or_else(|| candidates.iter().find(|(_, _, can, _)| *can));
            let holder = holder.map(|(id, _, _, _)| id.clone());
            for (id, _, _, holds) in candidates {
                let is_holder = holder.as_ref() == Some(id);
                if is_holder != *holds {
                    if let Some(machine) = self.machines.get_mut(id) {
                        machine.vip = is_holder.then_some(vip);
                    }
                    changes.push((id.clone(), vip, is_holder));
                }
            }
        }
        // Given up before it is taken.
        changes.sort_by_key(|(id, vip, holds)| (*holds, *vip, id.clone()));
        changes
    }

    /// Lets a service of a machine change its state, when the machine has power.
    pub fn service(&mut self, id: &VmId, name: &str, state: ServiceState, message: &str, at: Timestamp) {
        if let Some(machine) = self.machines.get_mut(id) {
            machine.services.set(name, state, message, at);
            let line = format!("user: warning: [talos] service[{name}]({}): {message}", state.as_str());
            machine.say(&line, at);
        }
    }
}

impl Machine {
    /// Puts a line into the kernel's log, as the machine's API shows it.
    pub fn say(&mut self, line: &str, at: Timestamp) {
        self.dmesg.push(format!("{line} [{at:.3}]"));
        self.news.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_choose_the_address() {
        let address: IpAddr = "10.0.0.5".parse().unwrap();
        let subnets = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for (list, expected) in [
            (subnets(&[]), true),
            (subnets(&["10.0.0.0/24"]), true),
            (subnets(&["10.0.1.0/24"]), false),
            (subnets(&["10.0.0.0/8", "!10.0.0.5/32"]), false),
            (subnets(&["!10.0.0.6/32"]), true),
            (subnets(&["fd00::/8"]), false),
        ] {
            assert_eq!(is_in(address, &list), expected, "{list:?}");
        }
    }
}
