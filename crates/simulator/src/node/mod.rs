//! Simulated Talos machines: what runs inside the virtual machines of the simulated vCenter.
//!
//! A machine knows what its virtual hardware, its disk and its `guestinfo` variables say, and nothing else. It takes versions,
//! certificates, addresses and names from the configuration it received, as a real node does.
//!
//! ```text
//! power on -> kernel -> configuration (disk, else guestinfo, else maintenance) -> links -> services, apid
//!     worker: apid waits for a control plane's trustd          kubelet registers as soon as an API server answers
//!     control plane: etcd waits for Bootstrap or joins as a learner -> promoted -> API server -> endpoint's name leads here
//! ```
//!
//! [`Nodes`] is the value the inventory tells about power ([`Guests`]). Everything a machine runs ends with its power; what its disk
//! holds stays until the VM is destroyed. Addresses of the OVF environment, disk encryption and KubeSpan are not modelled, and a shared
//! address moves at once when its holder dies (a real one waits for a lease of 60 s).

mod apid;
mod archive;
mod boot;
pub(crate) mod certificates;
pub mod configuration;
mod control_plane;
mod database;
pub mod etcd;
mod guestinfo;
pub mod latency;
pub mod links;
pub mod release;
mod rpc;
pub(crate) mod service;
pub(crate) mod state;
#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use runtime::clock::Clock;
use runtime::keys::KeySource;
use runtime::random::Random;
use runtime::tls::Tls;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::hooks::Hooks;
use crate::hypervisor::{Guests, Hypervisor, PoweredOn, ToolsReport, VmId};
use crate::network::Network;
use crate::workload::Pods;
use latency::Latency;
use links::{Dhcp, DhcpPool};
use release::Release;
use state::{BootstrapCall, Machine, Stage, State};

/// What the machines are made from.
#[derive(Debug)]
pub struct Options {
    pub clock: Clock,
    pub random: Random,
    pub keys: Arc<dyn KeySource>,
    pub tls: Tls,
    pub network: Network,
    pub hooks: Hooks,
    pub latency: Latency,
    /// DHCP servers of the VM networks.
    pub dhcp: Vec<DhcpPool>,
    /// Manifests by the base name of their URL: what a configuration's manifest URLs lead to. Others lead nowhere.
    pub manifests: BTreeMap<String, String>,
}

type Tap = dyn Fn(&str) + Send + Sync;

/// The definition that Talos installs in clusters, read once for all of them.
type Definitions = apiserver::CrdSet;

/// All simulated machines. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Nodes(Arc<Shared>);

struct Shared {
    options: Options,
    hypervisor: OnceLock<Arc<dyn Hypervisor>>,
    state: Mutex<State>,
    taps: Mutex<Vec<Arc<Tap>>>,
    definitions: Definitions,
    ended: CancellationToken,
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nodes")
    }
}

impl Nodes {
    /// No machine has power yet. [`Nodes::attach`] must follow before one gets it.
    pub fn new(mut options: Options) -> Self {
        let state = State { dhcp: Dhcp::new(std::mem::take(&mut options.dhcp)), ..State::default() };
        Self(Arc::new(Shared {
            options,
            hypervisor: OnceLock::new(),
            state: Mutex::new(state),
            taps: Mutex::default(),
            definitions: Definitions::from(vec![crate::workload::talos_definition()]),
            ended: CancellationToken::new(),
        }))
    }

    /// Gives the machines their virtual hardware. Only the first call counts.
    pub fn attach(&self, hypervisor: Arc<dyn Hypervisor>) {
        let _ = self.0.hypervisor.set(hypervisor);
    }

    /// Calls `tap` after every change inside the machines, with the machine and what happened. No lock is held then.
    pub fn on_event(&self, tap: impl Fn(&str) + Send + Sync + 'static) {
        self.0.taps.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(tap));
    }

    /// Ends every machine, as when the host's power fails.
    pub fn close(&self) {
        self.0.ended.cancel();
    }

    fn spawn(&self, vm: &VmId, stop: CancellationToken, delay: Duration) {
        let (nodes, id) = (self.clone(), vm.clone());
        tokio::spawn(async move {
            let work = async {
                nodes.pause(delay).await;
                boot::run(&nodes, &id, &stop).await;
            };
            stop.run_until_cancelled(work).await;
        });
    }

    /// Ends the present boot and starts the next after `delay`.
    pub(crate) fn reboot(&self, id: &VmId, delay: Duration) {
        let stop = self.0.ended.child_token();
        {
            let mut state = self.state();
            let Some(machine) = state.machines.get_mut(id) else { return };
            machine.stage = Stage::Rebooting;
        }
        self.halt(id);
        {
            let mut state = self.state();
            let Some(machine) = state.machines.get_mut(id) else { return };
            machine.stop = stop.clone();
            machine.boots += 1;
            machine.booted_at = self.0.options.clock.now();
            machine.stage = Stage::Booting;
            machine.configuration = None;
            machine.realm = None;
            machine.links = Vec::new();
            machine.services = service::Services::default();
            machine.dmesg = Vec::new();
        }
        self.spawn(id, stop, delay);
        self.event(None, &format!("{id} reboots"));
    }

    /// Everything that runs in the machine ends, it leaves the network; the disk stays.
    fn halt(&self, id: &VmId) {
        let realm = {
            let mut state = self.state();
            let data = state.etcd_data(id);
            state.freeze(id);
            let Some(machine) = state.machines.get_mut(id) else { return };
            machine.stop.cancel();
            machine.vip = None;
            machine.serves_api = false;
            machine.is_registered = false;
            machine.reported = None;
            let realm = machine.realm.clone();
            if let Some((cluster, member)) = data
                && let Some(cluster) = state.etcd.get_mut(&cluster)
            {
                cluster.stop(member);
            }
            realm
        };
        self.0.options.network.detach_all(id);
        if let Some(hypervisor) = self.0.hypervisor.get() {
            hypervisor.report_tools(id, None);
        }
        self.settle(realm.as_deref());
        self.event(realm.as_deref(), &format!("{id} stops"));
    }

    /// The process of etcd on a machine ends with an error, and nothing starts it again before the machine's next boot; its data stays.
    /// `false`: it did not run.
    pub fn fail_etcd(&self, id: &VmId) -> bool {
        let now = self.0.options.clock.now();
        let realm = {
            let mut state = self.state();
            let Some((cluster, member)) = state.etcd_data(id) else { return false };
            let Some(machine) = state.machines.get(id).filter(|machine| machine.services.is_running("etcd")) else { return false };
            let realm = machine.realm.clone();
            state.service(id, "etcd", service::ServiceState::Failed, "etcd exited with code 2", now);
            if let Some(cluster) = state.etcd.get_mut(&cluster) {
                cluster.stop(member);
            }
            realm
        };
        self.settle(realm.as_deref());
        self.event(realm.as_deref(), &format!("{id}: etcd ended with an error"));
        true
    }

    /// The machine switches itself off.
    pub(crate) fn switch_off(&self, id: &VmId) {
        self.halt(id);
        self.state().machines.remove(id);
        if let Some(hypervisor) = self.0.hypervisor.get() {
            hypervisor.power_off_from_inside(id);
        }
        self.event(None, &format!("{id} switched itself off"));
    }

    /// An etcd cluster whose data is on no disk any more is gone, and its Kubernetes with it.
    pub(crate) fn forget_lost_clusters(&self) {
        let mut state = self.state();
        let kept: std::collections::BTreeSet<_> = state.disks.values().filter_map(|disk| disk.etcd).map(|(cluster, _)| cluster).collect();
        state.etcd.retain(|id, _| kept.contains(id));
        state.etcd_authority.retain(|id, _| kept.contains(id));
        state.restored.retain(|id, _| kept.contains(id));
        state.workloads.retain(|id, cell| {
            let is_kept = kept.contains(id);
            if let Some(workload) = cell.get().filter(|_| !is_kept) {
                workload.end();
            }
            is_kept
        });
    }

    /// Moves shared addresses to where they belong.
    pub(crate) fn settle(&self, realm: Option<&str>) {
        let Some(realm) = realm else { return };
        let changes = self.state().settle_vips(realm);
        for (id, address, holds) in changes {
            if holds {
                self.0.options.network.attach_virtual(&id, address);
            } else {
                self.0.options.network.detach(&id, address);
            }
        }
    }
}

impl Nodes {
    pub(crate) fn talos_definitions(&self) -> Definitions {
        self.0.definitions.clone()
    }

    pub(crate) fn options(&self) -> &Options {
        &self.0.options
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hypervisor(&self) -> Option<&Arc<dyn Hypervisor>> {
        self.0.hypervisor.get()
    }

    /// Tells the realm's machines and the taps that something changed.
    pub(crate) fn event(&self, realm: Option<&str>, what: &str) {
        if let Some(realm) = realm {
            self.state().signal(realm).send_modify(|count| *count += 1);
        }
        tracing::debug!(target: "talosphere::simulator", "{what}");
        let taps = self.0.taps.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for tap in taps {
            tap(what);
        }
    }

    /// The signal of a realm, to wait on.
    pub(crate) fn watch(&self, realm: &str) -> watch::Receiver<u64> {
        self.state().signal(realm).subscribe()
    }

    pub(crate) async fn pause(&self, duration: Duration) {
        if !duration.is_zero() {
            self.0.options.clock.sleep(duration).await;
        }
    }

    /// A line of the machine's kernel log.
    pub(crate) fn say(&self, id: &VmId, line: &str) {
        let now = self.0.options.clock.now();
        if let Some(machine) = self.state().machines.get_mut(id) {
            machine.say(line, now);
        }
    }

    pub(crate) fn guestinfo(&self, id: &VmId, key: &str) -> Option<String> {
        self.hypervisor()?.guestinfo(id, key)
    }
}

impl Guests for Nodes {
    fn powered_on(&self, vm: PoweredOn) {
        let id = vm.id.clone();
        let (version, extensions) = split_version(vm.template_version.as_deref().unwrap_or_default());
        let Ok(release) = version.parse::<Release>() else {
            // Nothing on the disk that boots.
            self.event(None, &format!("{id} finds no operating system"));
            return;
        };
        let stop = self.0.ended.child_token();
        {
            let mut state = self.state();
            state.disk_of.insert(id.clone(), vm.fresh_disk_id.clone());
            if state.disk(&vm.fresh_disk_id).is_unbootable {
                return;
            }
            let machine = Machine {
                release,
                extensions,
                boots: 1,
                booted_at: self.0.options.clock.now(),
                stop: stop.clone(),
                stage: Stage::Booting,
                configuration: None,
                realm: None,
                links: Vec::new(),
                hostname: String::new(),
                services: service::Services::default(),
                dmesg: Vec::new(),
                news: watch::channel(0).0,
                vip: None,
                serves_api: false,
                is_registered: false,
                reported: None,
                vm,
            };
            state.machines.insert(id.clone(), machine);
        }
        self.spawn(&id, stop, Duration::ZERO);
        self.event(None, &format!("{id} has power"));
    }

    fn powered_off(&self, id: &VmId) {
        self.halt(id);
        self.state().machines.remove(id);
        self.event(None, &format!("{id} lost power"));
    }

    fn destroyed(&self, id: &VmId) {
        self.halt(id);
        {
            let mut state = self.state();
            if let Some(machine) = state.machines.remove(id) {
                for nic in &machine.vm.nics {
                    state.dhcp.release(&nic.mac);
                }
            }
            if let Some(disk) = state.disk_of.remove(id) {
                state.disks.remove(&disk);
            }
        }
        self.forget_lost_clusters();
        self.event(None, &format!("{id} is gone"));
    }
}

/// `v1.4.8+vmtoolsd-guest-agent,iscsi-tools`: the release, and the extensions on the disk.
fn split_version(text: &str) -> (&str, Vec<String>) {
    match text.split_once('+') {
        Some((version, extensions)) => (version, extensions.split(',').map(str::to_owned).collect()),
        None => (text, Vec::new()),
    }
}

/// What the rule checker may know about the machines.
#[derive(Clone, Debug, Default)]
pub struct NodesTruth {
    pub bootstraps: Vec<BootstrapCall>,
    pub etcd: Vec<etcd::EtcdCluster>,
    pub machines: Vec<MachineTruth>,
    /// Identities of the disks that still exist.
    pub disks: Vec<String>,
    /// What runs in the clusters.
    pub pods: Pods,
}

/// One machine with power.
#[derive(Clone, Debug)]
pub struct MachineTruth {
    pub vm: VmId,
    pub disk: String,
    pub hostname: String,
    pub realm: Option<String>,
    pub addresses: Vec<std::net::IpAddr>,
    pub vip: Option<std::net::IpAddr>,
    /// In words: `Running`, `Maintenance`.
    pub stage: String,
    pub serves_api: bool,
    pub is_control_plane: bool,
}

impl Nodes {
    /// The API servers of the clusters that machines form, for tests that act in them as a person does.
    pub fn workload_apis(&self) -> Vec<apiserver::ApiServer> {
        self.state().workloads.values().filter_map(|cell| Some(cell.get()?.api.clone())).collect()
    }

    /// The truth, for the rule checker and for tests.
    pub fn truth(&self) -> NodesTruth {
        let state = self.state();
        let machines = state.machines.iter().map(|(id, machine)| MachineTruth {
            vm: id.clone(),
            disk: machine.vm.fresh_disk_id.clone(),
            hostname: machine.hostname.clone(),
            realm: machine.realm.clone(),
            addresses: machine.addresses(),
            vip: machine.vip,
            stage: format!("{:?}", machine.stage),
            serves_api: state.serves_api(id),
            is_control_plane: machine.is_control_plane(),
        });
        NodesTruth {
            bootstraps: state.bootstraps.clone(),
            etcd: state.etcd.values().cloned().collect(),
            machines: machines.collect(),
            disks: state.disk_of.values().cloned().collect(),
            pods: Pods::of(state.workloads.values().filter_map(|cell| cell.get().cloned()).collect()),
        }
    }

    /// What VMware tools in the guest said last.
    pub(crate) fn reported(&self, id: &VmId) -> Option<ToolsReport> {
        self.state().machines.get(id).and_then(|machine| machine.reported.clone())
    }

    /// Whether VMware tools are part of the machine's system.
    pub(crate) fn has_tools(&self, id: &VmId) -> bool {
        self.state().machines.get(id).is_some_and(|machine| machine.extensions.iter().any(|name| name.contains("vmtoolsd")))
    }

    /// Lets VMware tools in the guest say what there is to say, if it is news.
    pub(crate) fn report_tools(&self, id: &VmId) {
        let report = {
            let mut state = self.state();
            let Some(machine) = state.machines.get_mut(id) else { return };
            let nets = machine.links.iter().map(|link| {
                let mut addresses: Vec<String> = link.addresses.iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect();
                let shared = machine.vip.filter(|_| link.vip.is_some());
                addresses.extend(shared.map(|vip| format!("{vip}/{}", if vip.is_ipv4() { 32 } else { 128 })));
                (link.mac.clone(), addresses)
            });
            let report = ToolsReport { host_name: machine.hostname.clone(), nets: nets.collect() };
            if machine.reported.as_ref() == Some(&report) {
                return;
            }
            machine.reported = Some(report.clone());
            report
        };
        if let Some(hypervisor) = self.0.hypervisor.get() {
            hypervisor.report_tools(id, Some(report));
        }
    }
}
