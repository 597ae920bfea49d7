//! What the Talos controllers share: a cluster's secrets bundle as its Secret holds it, and the addresses of its control planes.
//!
//! Addresses are machines' own. The cluster's endpoint (a VIP, a balancer) is left out: it is gone when etcd has no quorum, exactly when
//! nodes must be reached. It counts only where it is a machine's own address: given to it by an IPAddress or in its specification
//! ([`Givens`]), or reported by the one machine that there is. What mere guest tools report is whatever the interface carries, a VIP included.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use api::cluster::{Cluster, Machine};
use api::ipam::{IPAddress, IPAddressClaim};
use api::meta::MachineAddressType;
use api::names::{labels, secrets};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use runtime::reconcile::Store;
use serde_json::Value;
use talos::secrets::{Bundle, SecretsError};

use crate::Wiring;
use crate::contract::{ContractError, Externals};

/// A bundle's Secret that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableBundle(pub String);

/// The hook that holds a control plane's VM until its member has left etcd.
pub const ETCD_HOOK: &str = "pre-terminate.delete.hook.machine.cluster.x-k8s.io/etcd-member";

/// Whether a Machine has still to leave etcd: the hook is on it.
pub fn has_etcd_hook(machine: &Machine) -> bool {
    machine.metadata.annotations.as_ref().is_some_and(|known| known.contains_key(ETCD_HOOK))
}

/// Whether a Machine that is being deleted waits for others' hooks, etcd's among them: its node is drained, or is not to be.
pub fn is_past_drain(machine: &Machine) -> bool {
    let Some(status) = &machine.status else { return false };
    let has_begun = status.deletion.as_ref().is_some_and(|times| times.wait_for_pre_terminate_hook_start_time.is_some());
    let deleting = api::conditions::get(&status.conditions, "Deleting");
    has_begun || deleting.is_some_and(|condition| condition.reason == "WaitingForPreTerminateHook")
}

/// What Secrets were read as, by uid: each is read once for each content that it has. Clones share it.
pub struct Readings<T>(Arc<Mutex<BTreeMap<String, Reading<T>>>>);

struct Reading<T> {
    /// The version of the Secret that was looked at last, and its data.
    version: String,
    data: Option<BTreeMap<String, ByteString>>,
    outcome: T,
}

impl<T> Default for Readings<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Readings<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> std::fmt::Debug for Readings<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Readings")
    }
}

impl<T: Clone> Readings<T> {
    /// What `read` makes of the content of this Secret, now or when it was first seen.
    pub fn of(&self, secret: &Secret, read: impl FnOnce(&Secret) -> T) -> T {
        let uid = secret.metadata.uid.clone().unwrap_or_default();
        let version = secret.metadata.resource_version.clone().unwrap_or_default();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reading) = known.get_mut(&uid) {
            if reading.version == version {
                return reading.outcome.clone();
            }
            if reading.data == secret.data {
                reading.version = version;
                return reading.outcome.clone();
            }
        }
        let outcome = read(secret);
        known.insert(uid, Reading { version, data: secret.data.clone(), outcome: outcome.clone() });
        outcome
    }
}

/// Bundles that were read.
#[derive(Clone, Debug, Default)]
pub struct Bundles(Readings<Result<Arc<Bundle>, UnusableBundle>>);

impl Bundles {
    /// The bundle in a Secret.
    ///
    /// # Errors
    /// Saying which part cannot be used, never its content.
    pub fn read(&self, secret: &Secret) -> Result<Arc<Bundle>, UnusableBundle> {
        self.0.of(secret, |secret| {
            let name = secret.metadata.name.clone().unwrap_or_default();
            parse(secret).map(Arc::new).map_err(|reason| UnusableBundle(format!("Secret {name}: {reason}")))
        })
    }
}

/// The text under a key of a Secret.
pub fn text<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    secret.data.as_ref().and_then(|data| data.get(key)).and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
}

fn parse(secret: &Secret) -> Result<Bundle, String> {
    let told = |error: SecretsError| error.to_string();
    if let Some(bundle) = text(secret, secrets::BUNDLE) {
        return Bundle::from_yaml(bundle).map_err(told);
    }
    // The layout of old releases.
    match (text(secret, "certs"), text(secret, "kubeSecrets"), text(secret, "trustdInfo")) {
        (Some(certs), Some(kube), Some(trustd)) => Bundle::from_legacy(certs, kube, trustd).map_err(told),
        _ => Err(format!("it has neither the key {} nor the keys certs, kubeSecrets and trustdInfo", secrets::BUNDLE)),
    }
}

/// Whether a Machine belongs to the control plane.
pub fn is_control_plane(machine: &Machine) -> bool {
    machine.metadata.labels.as_ref().is_some_and(|known| known.contains_key(labels::CONTROL_PLANE))
}

/// The host of the cluster's endpoint.
pub fn endpoint_host(cluster: &Cluster) -> Option<&str> {
    cluster.spec.control_plane_endpoint.host.as_deref().filter(|host| !host.is_empty())
}

/// Where it stands which addresses machines were given.
#[derive(Clone, Debug)]
pub struct Givens {
    pub infrastructure: Externals,
    pub claims: Store<IPAddressClaim>,
    pub addresses: Store<IPAddress>,
}

impl Givens {
    pub fn of(wiring: &Wiring) -> Self {
        Self { infrastructure: wiring.externals.clone(), claims: wiring.stores.get(), addresses: wiring.stores.get() }
    }

    /// Those of the machines that were given the address `host`, by name. Looked up only for those that have it.
    ///
    /// # Errors
    /// When the machines' infrastructure objects cannot be listed.
    pub async fn holders(&self, machines: &[Arc<Machine>], host: Option<&str>) -> Result<BTreeSet<String>, ContractError> {
        let mut holders = BTreeSet::new();
        let Some(host) = host else { return Ok(holders) };
        for machine in machines {
            let has_it = machine.status.iter().flat_map(|status| &status.addresses).any(|address| address.address == host);
            if has_it && (self.has_claimed(machine, host) || self.has_fixed(machine, host).await?) {
                holders.insert(machine.metadata.name.clone().unwrap_or_default());
            }
        }
        Ok(holders)
    }

    /// An IPAddress of it is held by a claim of the machine's infrastructure.
    fn has_claimed(&self, machine: &Machine, host: &str) -> bool {
        let namespace = machine.metadata.namespace.as_deref().unwrap_or_default();
        let claims = self.addresses.in_namespace(namespace).into_iter().filter(|address| address.spec.address == host);
        let mut claims = claims.filter_map(|address| self.claims.get_in(namespace, &address.spec.claim_ref.name));
        claims.any(|claim| is_claim_of(&claim, machine))
    }

    /// The machine's specification fixes it.
    async fn has_fixed(&self, machine: &Machine, host: &str) -> Result<bool, ContractError> {
        let namespace = machine.metadata.namespace.as_deref().unwrap_or_default();
        let object = self.infrastructure.find(namespace, Some(&machine.spec.infrastructure_ref)).await?;
        let devices = object.found().and_then(|object| object.spec.network.get("devices")?.as_array()).cloned().unwrap_or_default();
        let fixed = devices.iter().filter_map(|device| device.get("ipAddrs")?.as_array()).flatten().filter_map(Value::as_str);
        Ok(fixed.map(|address| address.split('/').next().unwrap_or_default()).any(|address| address == host))
    }
}

/// Whether a claim is of a Machine's infrastructure: of the VM, which is named after the Machine, or of the object that the Machine names.
pub fn is_claim_of(claim: &IPAddressClaim, machine: &Machine) -> bool {
    let names = [machine.metadata.name.as_deref(), Some(machine.spec.infrastructure_ref.name.as_str())];
    claim.metadata.owner_references.iter().flatten().any(|owner| names.contains(&Some(owner.name.as_str())))
}

/// The address to reach a control plane at: internal before external ones, and not the endpoint's unless it `is_own`.
pub fn address(machine: &Machine, endpoint_host: Option<&str>, is_own: bool, is_only: bool) -> Option<String> {
    addresses(machine, endpoint_host.filter(|_| !is_own), is_only).into_iter().next()
}

/// All addresses to reach a control plane at. The endpoint's, where it is not the machine's own, counts only for a single machine without
/// another one.
fn addresses(machine: &Machine, endpoint_host: Option<&str>, is_only: bool) -> Vec<String> {
    let known = machine.status.as_ref().map(|status| status.addresses.as_slice()).unwrap_or_default();
    let of =
        |wanted: MachineAddressType| known.iter().filter(move |address| address.type_ == wanted).map(|address| address.address.as_str());
    let is_usable = |text: &&str| {
        text.parse::<IpAddr>().is_ok_and(|address| match address {
            IpAddr::V4(four) => !four.is_loopback() && !four.is_link_local(),
            IpAddr::V6(six) => !six.is_loopback() && !six.is_unicast_link_local(),
        })
    };
    let mut own: Vec<String> = Vec::new();
    for text in of(MachineAddressType::InternalIP).chain(of(MachineAddressType::ExternalIP)).filter(is_usable) {
        if Some(text) != endpoint_host && !own.iter().any(|known| known == text) {
            own.push(text.to_owned());
        }
    }
    if own.is_empty() && is_only {
        own.extend(endpoint_host.filter(|host| known.iter().any(|address| address.address == *host)).filter(is_usable).map(str::to_owned));
    }
    own
}

/// All control planes' addresses, sorted as text, as upstream writes them into the client configuration. `holders` have the endpoint's as
/// their own.
pub fn endpoints(machines: &[Arc<Machine>], endpoint_host: Option<&str>, holders: &BTreeSet<String>) -> Vec<String> {
    let alive: Vec<&Arc<Machine>> = machines.iter().filter(|machine| machine.metadata.deletion_timestamp.is_none()).collect();
    let foreign = |machine: &Machine| endpoint_host.filter(|_| !machine.metadata.name.as_ref().is_some_and(|name| holders.contains(name)));
    let mut all: Vec<String> = alive.iter().flat_map(|machine| addresses(machine, foreign(machine), alive.len() == 1)).collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use api::cluster::MachineStatus;
    use api::meta::MachineAddress;

    use super::*;

    fn machine(addresses: &[(MachineAddressType, &str)]) -> Machine {
        let addresses = addresses.iter().map(|(type_, address)| MachineAddress { type_: *type_, address: (*address).into() }).collect();
        Machine { status: Some(MachineStatus { addresses, ..MachineStatus::default() }), ..Machine::default() }
    }

    #[test]
    fn the_endpoint_is_no_address_of_a_machine_unless_it_is_the_only_one() {
        use MachineAddressType::{ExternalIP, InternalDNS, InternalIP};
        let with_vip = machine(&[(ExternalIP, "10.0.0.9"), (ExternalIP, "10.0.0.4"), (InternalDNS, "n1")]);
        assert_eq!(addresses(&with_vip, Some("10.0.0.9"), false), ["10.0.0.4"]);
        assert_eq!(addresses(&with_vip, Some("10.0.0.9"), true), ["10.0.0.4"]);
        let only = machine(&[(ExternalIP, "10.0.0.9")]);
        assert_eq!(addresses(&only, Some("10.0.0.9"), false), Vec::<String>::new());
        assert_eq!(addresses(&only, Some("10.0.0.9"), true), ["10.0.0.9"]);
        let both = machine(&[(ExternalIP, "10.0.0.4"), (InternalIP, "10.1.0.4"), (ExternalIP, "fe80::1"), (ExternalIP, "127.0.0.1")]);
        assert_eq!(addresses(&both, None, false), ["10.1.0.4", "10.0.0.4"]);
        let machines = [Arc::new(machine(&[(ExternalIP, "10.0.0.5")])), Arc::new(with_vip)];
        assert_eq!(endpoints(&machines, Some("10.0.0.9"), &BTreeSet::new()), ["10.0.0.4", "10.0.0.5"]);
        // Its own address it keeps, however many machines there are.
        assert_eq!(address(&only, Some("10.0.0.9"), true, false).as_deref(), Some("10.0.0.9"));
        let mut holder = only.clone();
        holder.metadata.name = Some("cp-1".to_owned());
        let machines = [Arc::new(machine(&[(ExternalIP, "10.0.0.5")])), Arc::new(holder)];
        assert_eq!(endpoints(&machines, Some("10.0.0.9"), &BTreeSet::from(["cp-1".to_owned()])), ["10.0.0.5", "10.0.0.9"]);
        assert_eq!(endpoints(&machines, Some("10.0.0.9"), &BTreeSet::new()), ["10.0.0.5"]);
    }
}
