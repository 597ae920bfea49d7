//! What a step waits for or expects: everything that is given must be so.

use std::fmt;

use apimachinery::meta::text_at as text;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use simulator::hypervisor::Origin;

use super::super::player::Player;
use super::transcript::Names;
use crate::render::yaml;
use crate::tree;

/// A state of the world.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Look {
    /// The cluster is ready, or is not.
    pub ready: Option<bool>,
    /// An object says so.
    pub condition: Option<Said>,
    /// `KIND/NAME` is not there any more.
    pub gone: Option<String>,
    /// `KIND/NAME` is there and is being deleted.
    pub going: Option<String>,
    /// Machines that run and are not being deleted.
    pub control_planes: Option<usize>,
    pub workers: Option<usize>,
    /// Machines, whatever becomes of them.
    pub machines: Option<usize>,
    /// VMs in vCenter that are no templates and were made over its API.
    pub vms: Option<usize>,
    /// Addresses that are given out.
    pub addresses: Option<usize>,
    /// Claims for addresses.
    pub claims: Option<usize>,
    /// Healthy voters of etcd.
    pub voters: Option<usize>,
    /// Whether vCenter is in the middle of a task.
    pub busy: Option<bool>,
    /// The cluster's API is signed by the authority of the Talos secrets bundle.
    pub bundle_is_used: bool,
    /// Nothing of the cluster is there: no object, no VM, no claim.
    pub nothing_left: bool,
}

/// A condition of an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Said {
    /// `KIND/NAME`.
    pub of: String,
    #[serde(rename = "type")]
    pub type_: String,
    pub status: Option<String>,
    pub reason: Option<String>,
    /// A part of the message.
    pub says: Option<String>,
}

/// The first thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other(pub String);

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object by `KIND/NAME`, of the kinds that a cluster is made of.
pub(super) fn find(player: &Player, what: &str) -> Option<Value> {
    let (kind, name) = what.split_once('/')?;
    let resource = tree::remaining_kinds().into_iter().find(|resource| resource.kind == kind)?;
    player.world.server.snapshot_of(&resource.group, &resource.plural).into_iter().find(|object| text(object, "/metadata/name") == name)
}

/// A condition in one line, as a user asks for it.
pub fn condition(object: &Value, type_: &str) -> Option<String> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    let found = all.iter().find(|condition| text(condition, "/type") == type_)?;
    let (status, reason, message) = (text(found, "/status"), text(found, "/reason"), text(found, "/message"));
    let colon = if message.is_empty() { "" } else { ": " };
    Some(format!("{status} {reason}{colon}{message}"))
}

fn same<T: PartialEq + fmt::Display>(what: &str, wanted: Option<T>, found: impl FnOnce() -> T) -> Result<(), Other> {
    let Some(wanted) = wanted else { return Ok(()) };
    let found = found();
    if found == wanted { Ok(()) } else { Err(Other(format!("{what}: {found}, not {wanted}"))) }
}

/// Whether the authority in the bundle is the one of which the kubeconfig knows.
fn is_bundle_used(player: &Player) -> bool {
    let secrets = player.world.server.snapshot_of("", "secrets");
    let decoded = |name: &str, key: &str| {
        let secret = secrets.iter().find(|secret| text(secret, "/metadata/name") == name)?;
        let text = STANDARD.decode(text(secret, &format!("/data/{key}"))).ok()?;
        String::from_utf8(text).ok()
    };
    let authority = decoded("demo-talos", "bundle").and_then(|bundle| yaml::parse(&bundle, 1).ok());
    let authority = authority.as_ref().map(|bundle| text(bundle, "/certs/k8s/crt").to_owned()).filter(|text| !text.is_empty());
    authority.zip(decoded("demo-kubeconfig", "value")).is_some_and(|(authority, config)| config.contains(&authority))
}

impl Look {
    /// Looks.
    ///
    /// # Errors
    /// With the first thing that is not so.
    pub(super) fn look(&self, player: &Player, names: &Names) -> Result<(), Other> {
        let world = &player.world;
        let count = |group: &str, plural: &str| world.server.snapshot_of(group, plural).len();
        let running = |is_control_plane: bool| {
            let is_one = |machine: &&Value| {
                machine.pointer("/metadata/labels/cluster.x-k8s.io~1control-plane").is_some() == is_control_plane
                    && machine.pointer("/metadata/deletionTimestamp").is_none()
                    && text(machine, "/status/phase") == "Running"
            };
            world.server.snapshot_of("cluster.x-k8s.io", "machines").iter().filter(is_one).count()
        };
        let vms = || world.simulator.truth().vms.iter().filter(|vm| !vm.is_template && vm.origin == Origin::Api).count();
        same("control planes that run", self.control_planes, || running(true))?;
        same("workers that run", self.workers, || running(false))?;
        same("Machines", self.machines, || count("cluster.x-k8s.io", "machines"))?;
        same("VMs", self.vms, vms)?;
        same("addresses", self.addresses, || count("ipam.cluster.x-k8s.io", "ipaddresses"))?;
        same("claims", self.claims, || count("ipam.cluster.x-k8s.io", "ipaddressclaims"))?;
        same("healthy voters", self.voters, || world.simulator.truth().nodes.etcd.first().map_or(0, |etcd| etcd.healthy_voters()))?;
        same("vCenter is busy", self.busy, || world.simulator.vcenter().open_tasks() > 0)?;
        if let Some(what) = self.gone.as_ref().map(|what| names.fill(what)).filter(|what| find(player, what).is_some()) {
            return Err(Other(format!("{what} is there")));
        }
        if let Some(what) = self.going.as_ref().map(|what| names.fill(what)) {
            let object = find(player, &what).ok_or_else(|| Other(format!("{what} is not there")))?;
            if object.pointer("/metadata/deletionTimestamp").is_none() {
                return Err(Other(format!("{what} is not being deleted")));
            }
        }
        if self.bundle_is_used && !is_bundle_used(player) {
            return Err(Other("the bundle's authority is not the cluster's".to_owned()));
        }
        if let Some(said) = &self.condition {
            said.look(player, names)?;
        }
        if let Some(wanted) = self.ready {
            let verdict = tree::verdict(&player.objects(), "demo");
            if verdict.is_ready != wanted {
                let told = verdict.waiting.first().cloned().unwrap_or_else(|| "nothing is waited for".to_owned());
                return Err(Other(format!("the cluster is {}: {told}", if wanted { "not ready" } else { "ready" })));
            }
        }
        let left = if self.nothing_left { player.left() } else { Vec::new() };
        left.into_iter().next().map_or(Ok(()), |left| Err(Other(format!("there is {left}"))))
    }
}

impl Said {
    fn look(&self, player: &Player, names: &Names) -> Result<(), Other> {
        let of = names.fill(&self.of);
        let object = find(player, &of).ok_or_else(|| Other(format!("{of} is not there")))?;
        let all = object.pointer("/status/conditions").and_then(Value::as_array);
        let found = all.into_iter().flatten().find(|condition| text(condition, "/type") == self.type_);
        let found = found.ok_or_else(|| Other(format!("{of} says nothing of {}", self.type_)))?;
        let is_so = |wanted: &Option<String>, at: &str| wanted.as_ref().is_none_or(|wanted| text(found, at) == wanted);
        let says = self.says.as_ref().is_none_or(|part| text(found, "/message").contains(&names.fill(part)));
        if is_so(&self.status, "/status") && is_so(&self.reason, "/reason") && says {
            return Ok(());
        }
        Err(Other(format!("{of} {}: {}", self.type_, condition(&object, &self.type_).unwrap_or_default())))
    }
}
