//! The simulated world as one value: start it, dial into it, look at its truth, end it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use runtime::clock::Clock;
use runtime::keys::{KeyAlgorithm, KeyError, KeySource};
use runtime::log::Log;
use runtime::net::{Dialer, Listener};
use runtime::random::Random;
use runtime::tls::{Identity, Tls};
use runtime::x509::{Authority, Leaf, Usages, X509Error};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::hooks::Hooks;
use crate::hypervisor::{Hypervisor, VmTruth};
use crate::network::Network;
use crate::node::links::DhcpPool;
use crate::node::{self, Nodes, NodesTruth};
use crate::proxy;
use crate::vcenter::{self, Face, Site, VCenter};

/// A session that is idle for longer ends, as vCenter's API sessions do.
const SESSION_IDLE: Duration = Duration::from_secs(30 * 60);

/// How long everything takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    pub vcenter: vcenter::Latency,
    pub node: crate::node::latency::Latency,
}

impl Latency {
    /// Real times multiplied by `factor`.
    pub fn scaled(factor: f64) -> Self {
        Self { vcenter: vcenter::Latency::scaled(factor), node: crate::node::latency::Latency::scaled(factor) }
    }

    /// Everything at once.
    pub fn none() -> Self {
        Self::scaled(0.0)
    }
}

/// What a world is made from.
#[derive(Debug)]
pub struct Config {
    pub site: Site,
    pub clock: Clock,
    pub random: Random,
    pub log: Log,
    pub tls: Tls,
    pub keys: Arc<dyn KeySource>,
    pub hooks: Hooks,
    pub latency: Latency,
    /// Refuse requests that a real vCenter would refuse for their form.
    pub is_strict: bool,
    pub session_idle: Duration,
    /// DHCP servers of the VM networks.
    pub dhcp: Vec<DhcpPool>,
    /// Manifests by the base name of their URL: what the URLs of machine configurations lead to. Others lead nowhere.
    pub manifests: BTreeMap<String, String>,
}

impl Config {
    /// A world around `site` with a real vCenter's strictness, and no delays.
    pub fn new(site: Site, clock: Clock, random: Random, log: Log, tls: Tls, keys: Arc<dyn KeySource>) -> Self {
        Self {
            site,
            clock,
            random,
            log,
            tls,
            keys,
            hooks: Hooks::default(),
            latency: Latency::none(),
            is_strict: true,
            session_idle: SESSION_IDLE,
            dhcp: Vec::new(),
            manifests: BTreeMap::new(),
        }
    }
}

/// Why a world cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("no key for vCenter's certificate")]
    Key(#[from] KeyError),
    #[error("no certificate for vCenter")]
    Certificate(#[from] X509Error),
    #[error("the vCenter server {server:?} of the manifests is no host and port")]
    Server { server: String },
}

/// What the rule checker may see of the world.
#[derive(Clone, Debug)]
pub struct Truth {
    pub vms: Vec<VmTruth>,
    /// First class disks that exist: id and file.
    pub volumes: Vec<(String, String)>,
    /// Two VMs with one address, at any time.
    pub address_conflicts: Vec<crate::network::Conflict>,
    /// The machines as they are inside.
    pub nodes: NodesTruth,
}

/// A running world. Dropping it ends it.
pub struct Simulator {
    vcenter: VCenter,
    nodes: Nodes,
    face: Face,
    hooks: Hooks,
    network: Network,
    shutdown: CancellationToken,
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Simulator")
    }
}

impl Simulator {
    /// Starts a world: its vCenter listens where the site says, on the simulated network only.
    ///
    /// # Errors
    /// When the server's name is unusable or its certificate cannot be made.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let random = config.random.child("simulator");
        let network = Network::new(config.clock.clone(), config.latency.vcenter.unreachable);
        let (host, port) = host_and_port(&config.site.server).ok_or_else(|| StartError::Server { server: config.site.server.clone() })?;
        let identity = identity(&host, &config.clock, &random.child("certificate"), config.keys.as_ref()).await?;
        let hooks = config.hooks.clone();
        let nodes = Nodes::new(node::Options {
            clock: config.clock.clone(),
            random: random.child("nodes"),
            keys: config.keys.clone(),
            tls: config.tls.clone(),
            network: network.clone(),
            hooks: config.hooks.clone(),
            latency: config.latency.node,
            dhcp: config.dhcp,
            manifests: config.manifests,
        });
        let log = config.log.clone();
        nodes.on_event(move |what| {
            let (machine, what) = what.split_once([' ', ':']).unwrap_or((what, ""));
            log.record("node", "event", machine, what.trim_start());
        });
        let vcenter = VCenter::new(vcenter::Options {
            site: config.site,
            clock: config.clock,
            random,
            log: config.log,
            hooks: config.hooks,
            latency: config.latency.vcenter,
            is_strict: config.is_strict,
            session_idle: config.session_idle,
        });
        nodes.attach(Arc::new(vcenter.clone()));
        vcenter.attach(Arc::new(nodes.clone()));
        let face = Face::new(vcenter.clone(), config.tls, identity);
        let shutdown = CancellationToken::new();
        tokio::spawn(face.clone().serve(Box::new(network.listen(&host, port)), shutdown.clone()));
        Ok(Self { vcenter, nodes, face, hooks, network, shutdown })
    }

    /// The way into the simulated network.
    pub fn network(&self) -> Arc<dyn Dialer> {
        Arc::new(self.network.clone())
    }

    /// The simulated network, for tests that cut it.
    pub fn vm_network(&self) -> &Network {
        &self.network
    }

    /// The vCenter, for tests that act in it.
    pub fn vcenter(&self) -> &VCenter {
        &self.vcenter
    }

    /// The machines, for tests that look into them.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The hooks that every call passes.
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// The SHA-1 thumbprint of vCenter's certificate.
    pub fn vcenter_thumbprint(&self) -> String {
        self.face.thumbprint()
    }

    /// Serves the HTTP proxy that leads into the simulated network, until the world ends.
    pub async fn serve_proxy(&self, listener: Box<dyn Listener>) {
        proxy::serve(listener, self.network(), self.shutdown.child_token()).await;
    }

    /// Serves vCenter directly on `listener` as well, until the world ends: for tools that know no proxy.
    pub async fn serve_vcenter(&self, listener: Box<dyn Listener>) {
        self.face.clone().serve(listener, self.shutdown.child_token()).await;
    }

    /// The world as it is.
    pub fn truth(&self) -> Truth {
        Truth {
            vms: self.vcenter.vms(),
            volumes: self.vcenter.volumes(),
            address_conflicts: self.network.conflicts(),
            nodes: self.nodes.truth(),
        }
    }

    /// Ends the world.
    pub fn close(&self) {
        self.shutdown.cancel();
        self.vcenter.close();
        self.nodes.close();
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.close();
    }
}

/// The certificate a fresh vCenter makes for itself.
async fn identity(host: &str, clock: &Clock, random: &Random, keys: &dyn KeySource) -> Result<Identity, StartError> {
    let now = clock.now_seconds();
    let day = SignedDuration::from_hours(24);
    let not_before = now.checked_sub(day).unwrap_or(now);
    let not_after = now.checked_add(day * 3650).unwrap_or(Timestamp::MAX);
    let authority_key = keys.generate(KeyAlgorithm::EcdsaP256).await?;
    let authority = Authority::self_signed(&["Simulated vCenter"], Some("CA"), authority_key, not_before, not_after, random)?;
    let key = keys.generate(KeyAlgorithm::EcdsaP256).await?;
    let address = host.parse().ok();
    let leaf = Leaf {
        organizations: vec!["Simulated vCenter".to_owned()],
        common_name: Some(host.to_owned()),
        dns_names: if address.is_none() { vec![host.to_owned(), "localhost".to_owned()] } else { vec!["localhost".to_owned()] },
        ip_addresses: address.into_iter().chain([std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)]).collect(),
        usages: Usages::SERVER,
        not_before,
        not_after,
    };
    let certificate = authority.issue(&leaf, &key, random)?;
    Ok(Identity { chain: vec![certificate, authority.certificate_der.clone()], key: key.as_rustls() })
}

/// `host`, `host:port`, `[v6]:port` or a bare IPv6 address; the port is 443 when none is given.
fn host_and_port(server: &str) -> Option<(String, u16)> {
    if server.is_empty() {
        return None;
    }
    if server.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some((server.to_owned(), 443));
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (server, 443),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() { None } else { Some((host.to_owned(), port)) }
}
