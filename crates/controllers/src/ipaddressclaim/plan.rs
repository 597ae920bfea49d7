//! What is to be done for a claim. Pure.
//!
//! ```text
//!   alive:    finalizer -> address reserved in the pool's ledger -> IPAddress (named as the claim) -> status
//!   deleting: nobody else's finalizer -> IPAddress gone -> address returned to the ledger, resting -> finalizer
//! ```
//!
//! Rules (uniqueness): an IPAddress is made only for an address that the ledger gives to this very claim; the ledger is written under the
//! pool's resourceVersion; an address is returned only after its IPAddress is gone; and it is not returned while somebody else's finalizer holds
//! the claim, because a machine still uses it then (a namespace that is deleted marks everything at once). See [`crate::inclusterippool::ledger`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api::cluster::Cluster;
use api::controlplane::TalosControlPlane;
use api::ipam::{IPAddress, IPAddressClaim};
use api::names::finalizers;
use jiff::{SignedDuration, Timestamp};
use runtime::defects::Defects;

use crate::edit::{has_finalizer, is_deleting};
use crate::inclusterippool::allocate::{Choice, Question, choose, gateway, grace};
use crate::inclusterippool::ledger::{Holder, Ledger};
use crate::inclusterippool::{Elsewhere, Pool};

/// What is known when a claim is planned.
#[derive(Clone, Debug)]
pub struct Observed {
    pub claim: Arc<IPAddressClaim>,
    /// None when there is no such pool.
    pub pool: Option<Pool>,
    /// The claim's cluster, or the claim itself, is paused.
    pub is_paused: bool,
    /// The IPAddress that is called as the claim.
    pub address: Option<Arc<IPAddress>>,
    /// Every IPAddress of the pool.
    pub given_out: BTreeMap<IpAddr, Arc<IPAddress>>,
    /// What other pools say about addresses of this one.
    pub elsewhere: BTreeMap<IpAddr, Elsewhere>,
    /// Addresses that clusters' endpoints have, with the clusters.
    pub endpoints: BTreeMap<IpAddr, String>,
    /// The one address that the claim is to have ([`wanted`]).
    pub wanted: Option<IpAddr>,
    pub now: Timestamp,
    pub defects: Defects,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Puts the finalizer.
    Protect,
    /// Writes the ledger that gives the address to the claim, if the pool is still as it was seen.
    Reserve { address: IpAddr, ledger: Ledger },
    /// Makes the IPAddress.
    Create(IpAddr),
    /// Takes the IPAddress away.
    Free,
    /// Writes the ledger without the address, if the pool is still as it was seen.
    Return { ledger: Ledger },
    /// Takes the finalizer away.
    Unprotect,
}

/// How it stands with a claim once the steps are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is said.
    Silent,
    /// It has its address.
    Allocated(IpAddr),
    /// Its pool does not exist.
    NoPool,
    /// Its pool cannot be read.
    Unreadable(String),
    /// The next free address rests.
    Resting { address: IpAddr, until: Timestamp },
    /// The pool has no free address; the text says who has them.
    Exhausted(String),
    /// Being deleted, but others hold it.
    InUse(Vec<String>),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub outcome: Outcome,
    /// When to look again although nothing changes.
    pub again_at: Option<Timestamp>,
    /// The steps are not all: the rest is planned from what they leave behind.
    pub is_partial: bool,
}

impl Plan {
    fn of(steps: Vec<Step>, outcome: Outcome) -> Self {
        let again_at = if let Outcome::Resting { until, .. } = &outcome { Some(*until) } else { None };
        Self { steps, outcome, again_at, is_partial: false }
    }
}

/// Whether an IPAddress belongs to this claim rather than to an earlier one of the same name.
fn is_own(claim: &IPAddressClaim, address: &IPAddress) -> bool {
    let mut claims = address.metadata.owner_references.iter().flatten().filter(|owner| owner.kind == "IPAddressClaim").peekable();
    claims.peek().is_none() || claims.any(|owner| Some(&owner.uid) == claim.metadata.uid.as_ref())
}

/// The ledger without what an IPAddress or a claim held; none if nothing changes.
fn returned(pool: &Pool, uid: &str, address: Option<&IPAddress>, now: Timestamp) -> Option<Ledger> {
    let ledger = Ledger::of(&pool.meta);
    let held = address.and_then(|address| address.spec.address.parse().ok());
    // An entry that meanwhile gives the address to another claim stays.
    let held = held.filter(|held| ledger.held.get(held).is_none_or(|holder| holder.uid == uid));
    let held = ledger.of_claim(uid).or(held)?;
    Some(ledger.without(held, grace(&pool.spec), now))
}

/// Plans a claim.
pub fn plan(observed: &Observed) -> Plan {
    let claim = &observed.claim;
    if observed.is_paused {
        return Plan::of(Vec::new(), Outcome::Silent);
    }
    if is_deleting(&claim.metadata) {
        return release(observed);
    }
    let mut steps = Vec::new();
    if !has_finalizer(&claim.metadata, finalizers::RELEASE_ADDRESS) {
        steps.push(Step::Protect);
    }
    if let Some(address) = &observed.address {
        if is_own(claim, address) {
            return match address.spec.address.parse() {
                Ok(address) => Plan::of(steps, Outcome::Allocated(address)),
                Err(_) => Plan::of(steps, Outcome::Unreadable(format!("IPAddress {:?}", address.spec.address))),
            };
        }
        // What an earlier claim of this name left behind goes first; the next pass gives out an address.
        steps.push(Step::Free);
        let uid = address.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "IPAddressClaim");
        let uid = uid.map(|owner| owner.uid.clone()).unwrap_or_default();
        if let Some(ledger) = observed.pool.as_ref().and_then(|pool| returned(pool, &uid, Some(address), after_call(observed.now))) {
            steps.push(Step::Return { ledger });
        }
        return Plan { is_partial: true, ..Plan::of(steps, Outcome::Silent) };
    }
    let Some(pool) = &observed.pool else { return Plan::of(steps, Outcome::NoPool) };
    let holder = Holder::of(claim);
    let ledger = Ledger::of(&pool.meta);
    if let Some(address) = ledger.of_claim(&holder.uid) {
        // Given out from another pool while this claim's IPAddress was not made yet.
        if let Some(Elsewhere::Held { .. }) = observed.elsewhere.get(&address) {
            steps.push(Step::Return { ledger: ledger.without(address, grace(&pool.spec), observed.now) });
            return Plan { is_partial: true, ..Plan::of(steps, Outcome::Silent) };
        }
        steps.push(Step::Create(address));
        return Plan::of(steps, Outcome::Allocated(address));
    }
    let taken = observed.given_out.keys().copied().collect();
    let question = Question {
        spec: &pool.spec,
        ledger: &ledger,
        taken: &taken,
        elsewhere: &observed.elsewhere,
        endpoints: &observed.endpoints,
        wanted: observed.wanted,
        now: observed.now,
        defects: &observed.defects,
    };
    let outcome = match choose(&question) {
        Err(error) => Outcome::Unreadable(error.to_string()),
        Ok(Choice::Rest { address, until }) => Outcome::Resting { address, until },
        Ok(Choice::Exhausted) => Outcome::Exhausted(holders(observed, pool, &ledger)),
        Ok(Choice::Take(address)) => {
            steps.push(Step::Reserve { address, ledger: ledger.with(address, holder) });
            steps.push(Step::Create(address));
            Outcome::Allocated(address)
        }
    };
    Plan::of(steps, outcome)
}

fn release(observed: &Observed) -> Plan {
    let claim = &observed.claim;
    if !has_finalizer(&claim.metadata, finalizers::RELEASE_ADDRESS) {
        return Plan::of(Vec::new(), Outcome::Silent);
    }
    let others: Vec<String> =
        claim.metadata.finalizers.iter().flatten().filter(|one| *one != finalizers::RELEASE_ADDRESS && is_a_user(one)).cloned().collect();
    if !others.is_empty() {
        return Plan::of(Vec::new(), Outcome::InUse(others));
    }
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    if let Some(own) = observed.address.as_deref().filter(|address| is_own(claim, address)) {
        let mut steps = vec![Step::Free];
        let is_in_ledger = observed.pool.as_ref().is_some_and(|pool| Ledger::of(&pool.meta).of_claim(uid).is_some());
        if !is_in_ledger
            && let Some(ledger) = observed.pool.as_ref().and_then(|pool| returned(pool, uid, Some(own), after_call(observed.now)))
        {
            steps.push(Step::Return { ledger });
        }
        // The rest begins when the IPAddress is gone, so the time for the ledger is taken then.
        return Plan { is_partial: true, ..Plan::of(steps, Outcome::Silent) };
    }
    let mut steps = Vec::new();
    if let Some(ledger) = observed.pool.as_ref().and_then(|pool| returned(pool, uid, None, observed.now)) {
        steps.push(Step::Return { ledger });
    }
    steps.push(Step::Unprotect);
    Plan::of(steps, Outcome::Silent)
}

/// A time after the call that takes an IPAddress away.
fn after_call(now: Timestamp) -> Timestamp {
    now.checked_add(SignedDuration::from_secs(1)).unwrap_or(now)
}

/// Finalizers of the API server itself say nothing about a use.
fn is_a_user(finalizer: &str) -> bool {
    !matches!(finalizer, "foregroundDeletion" | "orphan")
}

/// What is to be done for an IPAddress whose claim is gone.
pub fn orphan(address: &IPAddress, pool: Option<&Pool>, now: Timestamp) -> Vec<Step> {
    let uid = address.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "IPAddressClaim");
    let uid = uid.map(|owner| owner.uid.as_str()).unwrap_or_default();
    let mut steps = vec![Step::Free];
    if let Some(ledger) = pool.and_then(|pool| returned(pool, uid, Some(address), after_call(now))) {
        steps.push(Step::Return { ledger });
    }
    steps
}

/// At most so many holders are named.
const NAMED: usize = 20;

/// Who holds the addresses of an exhausted pool, and what is never given out of it.
fn holders(observed: &Observed, pool: &Pool, ledger: &Ledger) -> String {
    let mut held: BTreeMap<IpAddr, String> = ledger.held.iter().map(|(address, holder)| (*address, holder.to_string())).collect();
    for (address, object) in &observed.given_out {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        held.entry(*address).or_insert_with(|| format!("{namespace}/{}", object.spec.claim_ref.name));
    }
    let usable = crate::inclusterippool::allocate::usable(&pool.spec).unwrap_or_default();
    for (address, elsewhere) in observed.elsewhere.iter().filter(|(address, _)| usable.contains(**address)) {
        if let Elsewhere::Held { pool, holder } = elsewhere {
            held.entry(*address).or_insert_with(|| format!("{holder} from {pool}"));
        }
    }
    let mut names: Vec<String> = held.iter().take(NAMED).map(|(address, holder)| format!("{address} by {holder}")).collect();
    if held.len() > NAMED {
        names.push(format!("and {} more", held.len() - NAMED));
    }
    let mut text = if names.is_empty() {
        "it has no address that may be given out".to_owned()
    } else {
        format!("{} held: {}", held.len(), names.join(", "))
    };
    let kept: Vec<String> = observed
        .endpoints
        .iter()
        .filter(|(address, _)| usable.contains(**address) && !held.contains_key(address))
        .map(|(address, cluster)| format!("{address}, the endpoint of cluster {cluster}"))
        .chain(gateway(&pool.spec).map(|gateway| format!("{gateway}, the gateway")))
        .collect();
    if !kept.is_empty() {
        text.push_str(&format!("; never given out: {}", kept.join("; ")));
    }
    text
}

/// The endpoint that a single control plane without a virtual IP takes as its own address: nobody else could bring it up there.
/// `endpoint` is the cluster's endpoint, if it is an address.
pub fn wanted(is_control_plane: bool, cluster: &Cluster, endpoint: Option<IpAddr>, plane: Option<&TalosControlPlane>) -> Option<IpAddr> {
    let plane = plane.filter(|plane| {
        cluster.spec.control_plane_ref.as_ref().is_some_and(|reference| Some(&reference.name) == plane.metadata.name.as_ref())
    })?;
    let is_single = plane.spec.replicas.unwrap_or(1) == 1;
    endpoint.filter(|_| is_control_plane && is_single && !has_virtual_ip(plane))
}

/// Whether the machine configuration brings up a virtual IP, be it Talos' own or kube-vip's.
fn has_virtual_ip(plane: &TalosControlPlane) -> bool {
    fn mentions(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Object(map) => map.iter().any(|(key, value)| key == "vip" || mentions(value)),
            serde_json::Value::Array(list) => list.iter().any(mentions),
            serde_json::Value::String(text) => text.contains("kube-vip"),
            _ => false,
        }
    }
    let config = &plane.spec.control_plane_config.controlplane;
    let in_patches = config
        .config_patches
        .iter()
        .any(|patch| patch.path.ends_with("/vip") || patch.path.contains("/vip/") || patch.value.as_ref().is_some_and(mentions));
    let words = ["vip:", "\"vip\"", "VIPConfig", "kube-vip"];
    in_patches || config.strategic_patches.iter().chain(&config.data).any(|text| words.iter().any(|word| text.contains(word)))
}
