//! What the tests of the simulated machines share: a network with machines, hand-made configurations, clients of the machine API.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use runtime::clock::Clock;
use runtime::http::Connector;
use runtime::keys::{KeyAlgorithm, KeySource as _, Prepared};
use runtime::random::Random;
use runtime::tls::{ClientTls, Identity, Tls, any_server, authorities};
use runtime::x509::{Authority, Leaf, Usages};
use talos_proto::machine::machine_service_client::MachineServiceClient;
use tonic::transport::{Channel, Endpoint};

use super::latency::Latency;
use super::{Nodes, Options};
use crate::hooks::Hooks;
use crate::hypervisor::{Disk, Guests as _, Hypervisor, Nic, PoweredOn, ToolsReport, VmId, VmTruth};
use crate::network::Network;

/// A file of the reference data that lies outside the repository. Without it a test prints that it was skipped, except where `CI` is set.
pub(crate) fn reference(path: &str) -> Option<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference");
    if !std::path::Path::new(root).is_dir() {
        #[allow(clippy::disallowed_methods)]
        let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!is_ci, "the reference data is missing: {root}");
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: no reference data at {root}");
        }
        return None;
    }
    std::fs::read_to_string(format!("{root}/{path}")).ok()
}

/// Standard base64.
pub(crate) fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Settings and reports of the VMs, by hand.
#[derive(Default)]
pub(crate) struct Bench {
    pub guestinfo: Mutex<BTreeMap<(VmId, String), String>>,
    pub reports: Mutex<BTreeMap<VmId, ToolsReport>>,
    pub switched_off: Mutex<Vec<VmId>>,
    /// Server, user, password.
    pub account: Mutex<(String, String, String)>,
    pub vms: Mutex<Vec<VmTruth>>,
}

impl Hypervisor for Bench {
    fn guestinfo(&self, id: &VmId, key: &str) -> Option<String> {
        self.guestinfo.lock().unwrap().get(&(id.clone(), key.to_owned())).cloned()
    }

    fn report_tools(&self, id: &VmId, report: Option<ToolsReport>) {
        let mut reports = self.reports.lock().unwrap();
        match report {
            Some(report) => drop(reports.insert(id.clone(), report)),
            None => drop(reports.remove(id)),
        }
    }

    fn power_off_from_inside(&self, id: &VmId) {
        self.switched_off.lock().unwrap().push(id.clone());
    }

    fn sign_in(&self, server: &str, user: &str, password: &str) -> bool {
        *self.account.lock().unwrap() == (server.to_owned(), user.to_owned(), password.to_owned())
    }

    fn vms(&self) -> Vec<VmTruth> {
        self.vms.lock().unwrap().clone()
    }
}

/// Three authorities and the tokens of one cluster.
pub(crate) struct Bundle {
    pub os: Authority,
    pub kubernetes: Authority,
    pub etcd: Authority,
    pub random: Random,
    pub clock: Clock,
}

impl Bundle {
    pub async fn new(seed: u64, clock: &Clock) -> Self {
        let random = Random::seeded(seed);
        let keys = Prepared::new(random.child("bundle"));
        let now = clock.now();
        let until = now + jiff::SignedDuration::from_hours(87600);
        let make = async |organization: &str, algorithm| {
            let key = keys.generate(algorithm).await.unwrap();
            Authority::self_signed(&[organization], None, key, now, until, &random).unwrap()
        };
        Self {
            os: make("talos", KeyAlgorithm::Ed25519).await,
            kubernetes: make("kubernetes", KeyAlgorithm::EcdsaP256).await,
            etcd: make("etcd", KeyAlgorithm::EcdsaP256).await,
            random: random.child("clients"),
            clock: clock.clone(),
        }
    }

    fn pair(authority: &Authority, with_key: bool) -> String {
        let key = if with_key { base64(&authority.key.to_pem()) } else { String::new() };
        format!("{{crt: {}, key: \"{key}\"}}", base64(&authority.certificate_pem))
    }

    /// A configuration. `machine` and `cluster` are further lines of those sections, indented by two.
    pub fn configuration(&self, kind: &str, hostname: &str, address: &str, machine: &str, cluster: &str) -> String {
        let is_control_plane = kind == "controlplane";
        let (os, kubernetes) = (Self::pair(&self.os, is_control_plane), Self::pair(&self.kubernetes, is_control_plane));
        let etcd = if is_control_plane { format!("  etcd: {{ca: {}}}\n", Self::pair(&self.etcd, true)) } else { String::new() };
        format!(
            "version: v1alpha1\nmachine:\n  type: {kind}\n  token: aaaaaa.bbbbbbbbbbbbbbbb\n  ca: {os}\n  network:\n    hostname: {hostname}\n    interfaces:\n    - interface: eth0\n      addresses: [{address}/24]\n{machine}cluster:\n  id: abc\n  secret: c2VjcmV0\n  clusterName: demo\n  controlPlane: {{endpoint: \"https://api.demo.test:6443\"}}\n  token: cccccc.dddddddddddddddd\n  ca: {kubernetes}\n{etcd}  discovery: {{enabled: true}}\n{cluster}"
        )
    }

    fn identity(authority: &Authority, leaf: Leaf, random: &Random, algorithm: KeyAlgorithm) -> Identity {
        let keys = Prepared::new(random.child("client key"));
        let key = futures::executor::block_on(keys.generate(algorithm)).unwrap();
        let certificate = authority.issue(&leaf, &key, random).unwrap();
        Identity { chain: vec![certificate], key: key.as_rustls() }
    }

    fn leaf(&self, organizations: &[&str], common_name: Option<&str>) -> Leaf {
        let now = self.clock.now();
        Leaf {
            organizations: organizations.iter().map(|role| (*role).to_owned()).collect(),
            common_name: common_name.map(str::to_owned),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            usages: Usages::CLIENT,
            not_before: now,
            not_after: now + jiff::SignedDuration::from_hours(8760),
        }
    }

    /// A client of the machine API with `role`.
    pub fn talos_client(&self, role: &str) -> ClientTls {
        let identity = Self::identity(&self.os, self.leaf(&[role], None), &self.random, KeyAlgorithm::Ed25519);
        let verifier = authorities(std::slice::from_ref(&self.os.certificate_der)).unwrap();
        ClientTls { verifier, identity: Some(identity), server_name: None, alpn: vec![b"h2".to_vec()] }
    }

    /// An administrator of the Kubernetes API.
    pub fn kubernetes_client(&self) -> ClientTls {
        let identity =
            Self::identity(&self.kubernetes, self.leaf(&["system:masters"], Some("admin")), &self.random, KeyAlgorithm::EcdsaP256);
        let verifier = authorities(std::slice::from_ref(&self.kubernetes.certificate_der)).unwrap();
        ClientTls { verifier, identity: Some(identity), server_name: None, alpn: vec![b"http/1.1".to_vec()] }
    }
}

/// Machines on paused time, without a vCenter.
pub(crate) struct World {
    pub clock: Clock,
    pub network: Network,
    pub hooks: Hooks,
    pub tls: Tls,
    pub bench: Arc<Bench>,
    pub nodes: Nodes,
    /// The version on the disks of machines to come.
    pub version: String,
}

impl World {
    pub fn new() -> Self {
        Self::with_manifests(BTreeMap::new())
    }

    pub fn with_manifests(manifests: BTreeMap<String, String>) -> Self {
        Self::starting_at("2026-01-01T00:00:00Z", manifests)
    }

    pub fn starting_at(time: &str, manifests: BTreeMap<String, String>) -> Self {
        let clock = Clock::starting_at(time.parse::<Timestamp>().unwrap());
        let network = Network::new(clock.clone(), Duration::from_secs(3));
        let (hooks, tls, random) = (Hooks::default(), Tls::clear(clock.clone()), Random::seeded(7));
        let nodes = Nodes::new(Options {
            clock: clock.clone(),
            random: random.child("nodes"),
            keys: Arc::new(Prepared::new(random.child("keys"))),
            tls: tls.clone(),
            network: network.clone(),
            hooks: hooks.clone(),
            latency: Latency::real(),
            dhcp: Vec::new(),
            manifests,
        });
        let bench = Arc::new(Bench::default());
        nodes.attach(bench.clone());
        Self { clock, network, hooks, tls, bench, nodes, version: "v1.4.8".to_owned() }
    }

    /// Gives VM `number` power. Its disk is the one it had before.
    pub fn power_on(&self, number: u32) -> VmId {
        let id = VmId(format!("vm-{number}"));
        self.nodes.powered_on(PoweredOn {
            id: id.clone(),
            name: format!("machine-{number}"),
            bios_uuid: format!("420d0000-0001-0002-0003-{number:012}"),
            instance_uuid: format!("500d0000-0001-0002-0003-{number:012}"),
            nics: vec![Nic { mac: format!("00:50:56:00:00:{number:02x}"), network: "VM Network".to_owned() }],
            template_version: Some(self.version.clone()),
            disks: Vec::<Disk>::new(),
            vcenter: "vcenter.test".to_owned(),
            fresh_disk_id: format!("disk-{number}"),
        });
        id
    }

    /// Writes the configuration into the settings of VM `number` and gives it power.
    pub fn start(&self, number: u32, configuration: &str) -> VmId {
        self.set(number, "guestinfo.talos.config", &base64(configuration));
        self.power_on(number)
    }

    pub fn set(&self, number: u32, key: &str, value: &str) {
        self.bench.guestinfo.lock().unwrap().insert((VmId(format!("vm-{number}")), key.to_owned()), value.to_owned());
    }

    /// Waits, on virtual time, until `holds` says so; fails with `what` after an hour.
    pub async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let limit = self.clock.instant() + Duration::from_secs(3600);
        while !holds().await {
            assert!(self.clock.instant() < limit, "not within an hour: {what}");
            self.clock.sleep(Duration::from_millis(500)).await;
        }
    }

    /// A client of the machine API at `address`.
    pub fn talos(&self, address: &str, tls: ClientTls) -> MachineServiceClient<Channel> {
        let connector = Connector::secured(Arc::new(self.network.clone()), self.tls.clone(), tls);
        let channel = Endpoint::from_shared(format!("https://{address}:50000")).unwrap().connect_with_connector_lazy(connector);
        MachineServiceClient::new(channel)
    }

    /// A client that takes any certificate and shows none.
    pub fn stranger() -> ClientTls {
        ClientTls { verifier: any_server(), identity: None, server_name: None, alpn: vec![b"h2".to_vec()] }
    }

    /// The kernel log of a machine.
    pub fn dmesg(&self, id: &VmId) -> String {
        self.nodes.state().machines.get(id).map(|machine| machine.dmesg.join("\n")).unwrap_or_default()
    }
}

/// Bootstraps etcd on a machine without a client of its API. Whether it was accepted.
pub(crate) fn bootstrap(nodes: &Nodes, id: &VmId) -> bool {
    super::control_plane::bootstrap(nodes, id, super::control_plane::Beginning::New).is_ok()
}
