//! The pool controller, for InClusterIPPool and GlobalInClusterIPPool: protection, counts, and order in the ledger.
//!
//! Addresses are given out by the claim controller ([`crate::ipaddressclaim`]); what both need of pools stands here.

pub mod act;
pub mod allocate;
pub mod ledger;
pub mod plan;
pub mod status;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::cluster::Cluster;
use api::infrastructure::VSphereCluster;
use api::ipam::{Addresses, GlobalInClusterIPPool, IPAddress, IPAddressClaim, IPPoolSpec, IPPoolStatus, InClusterIPPool};
use api::meta::ContractReference;
use api::names::{IPAM_GROUP, annotations};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use runtime::reconcile::{Action, ApiError, Error, Object, ObjectKey, Reconciler, Store, Stores};

use crate::edit::owner_of;
use crate::{Started, Wiring};
use ledger::Ledger;
use plan::Observed;

/// The controller's name.
pub const NAME: &str = "inclusterippool";
/// The name of the controller for pools of all namespaces.
pub const GLOBAL_NAME: &str = "globalinclusterippool";
/// Between two looks at one pool: what changes together is counted once.
const REST: Duration = Duration::from_millis(50);
/// The index of claims and addresses by their pool.
const BY_POOL: &str = "pool";
/// The index of pools by the blocks of addresses that they lie in.
const BY_BLOCK: &str = "block";
/// Where pools are found that lie in more blocks than this.
const MOST_BLOCKS: usize = 256;
const MANY_BLOCKS: &str = "many";

/// The two kinds of pools.
pub trait PoolKind: Object + Resource<DynamicType = ()> {
    /// What is wanted.
    fn spec(&self) -> &IPPoolSpec;
    /// What was observed.
    fn status(&self) -> Option<&IPPoolStatus>;
}

macro_rules! pool_kind {
    ($($kind:ident),*) => {$(
        impl PoolKind for $kind {
            fn spec(&self) -> &IPPoolSpec {
                &self.spec
            }
            fn status(&self) -> Option<&IPPoolStatus> {
                self.status.as_ref()
            }
        }
    )*};
}
pool_kind!(InClusterIPPool, GlobalInClusterIPPool);

/// A pool of either kind.
#[derive(Clone, Debug)]
pub struct Pool {
    pub kind: String,
    pub meta: ObjectMeta,
    pub spec: IPPoolSpec,
    pub owner: OwnerReference,
}

impl Pool {
    /// A pool of a known kind.
    pub fn of<K: PoolKind>(pool: &K) -> Self {
        // An address does not control its pool; upstream writes this out.
        let owner = OwnerReference { controller: Some(false), block_owner_deletion: Some(true), ..owner_of(pool) };
        Self { kind: K::kind(&()).into_owned(), meta: pool.meta().clone(), spec: pool.spec().clone(), owner }
    }

    /// Kind, namespace and name.
    pub fn title(&self) -> String {
        format!("{} {}", self.kind, ObjectKey::of(&self.meta))
    }

    /// The network that its addresses belong to; empty for the one of all pools that name none.
    fn network(&self) -> &str {
        self.meta.annotations.as_ref().and_then(|known| known.get(annotations::POOL_NETWORK)).map_or("", String::as_str)
    }
}

/// What another pool says about an address that is in both. In order: of what several pools say the greatest counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Elsewhere {
    /// It was released shortly before.
    Rests { until: Timestamp },
    /// Somebody has it.
    Held { pool: String, holder: String },
}

/// Adds what a pool says to what others have said.
fn say(all: &mut BTreeMap<IpAddr, Elsewhere>, address: IpAddr, said: Elsewhere) {
    match all.entry(address) {
        Entry::Vacant(entry) => drop(entry.insert(said)),
        Entry::Occupied(mut entry) if *entry.get() < said => drop(entry.insert(said)),
        Entry::Occupied(_) => {}
    }
}

/// The blocks that a pool is found under. A pool that cannot be read gives nothing out.
fn blocks(spec: &IPPoolSpec) -> Vec<String> {
    let Ok(addresses) = Addresses::parse(&spec.addresses) else { return Vec::new() };
    let blocks = addresses.blocks(MOST_BLOCKS);
    blocks.map_or(vec![MANY_BLOCKS.to_owned()], |blocks| blocks.iter().map(ToString::to_string).collect())
}

/// Pools, the addresses that were given out from them, and the endpoints that nobody gets. Cheap to clone.
#[derive(Clone)]
pub struct Pools {
    pub local: Store<InClusterIPPool>,
    pub global: Store<GlobalInClusterIPPool>,
    pub addresses: Store<IPAddress>,
    pub claims: Store<IPAddressClaim>,
    pub clusters: Store<Cluster>,
    pub vsphere_clusters: Store<VSphereCluster>,
}

/// What a pool is called in the index: kind, namespace and name.
fn pool_name(kind: &str, namespace: &str, name: &str) -> String {
    if kind == "GlobalInClusterIPPool" { format!("{kind}//{name}") } else { format!("{kind}/{namespace}/{name}") }
}

/// Kind and name of a pool, for people, whether it exists or not.
pub fn pool_of(namespace: &str, reference: &ContractReference) -> String {
    let namespace = Some(namespace.to_owned()).filter(|_| reference.kind == "InClusterIPPool");
    format!("{} {}", reference.kind, ObjectKey { namespace, name: reference.name.clone() })
}

fn referenced(namespace: Option<&str>, reference: &ContractReference) -> Vec<String> {
    if reference.api_group != IPAM_GROUP {
        return Vec::new();
    }
    vec![pool_name(&reference.kind, namespace.unwrap_or_default(), &reference.name)]
}

impl Pools {
    /// Opens the stores, with their indices.
    pub fn new(stores: &Stores) -> Self {
        let (addresses, claims) = (stores.get::<IPAddress>(), stores.get::<IPAddressClaim>());
        addresses.index(BY_POOL, |address| referenced(address.metadata.namespace.as_deref(), &address.spec.pool_ref));
        claims.index(BY_POOL, |claim| referenced(claim.metadata.namespace.as_deref(), &claim.spec.pool_ref));
        let (local, global) = (stores.get::<InClusterIPPool>(), stores.get::<GlobalInClusterIPPool>());
        local.index(BY_BLOCK, |pool| blocks(&pool.spec));
        global.index(BY_BLOCK, |pool| blocks(&pool.spec));
        Self { local, global, addresses, claims, clusters: stores.get(), vsphere_clusters: stores.get() }
    }

    /// Whether a reference names a pool of ours.
    pub fn is_ours(reference: &ContractReference) -> bool {
        reference.api_group == IPAM_GROUP && matches!(reference.kind.as_str(), "InClusterIPPool" | "GlobalInClusterIPPool")
    }

    /// The pool that an object in a namespace refers to.
    pub fn find(&self, namespace: &str, reference: &ContractReference) -> Option<Pool> {
        match reference.kind.as_str() {
            "InClusterIPPool" => self.local.get_in(namespace, &reference.name).map(|pool| Pool::of(&*pool)),
            "GlobalInClusterIPPool" => self.global.get(&ObjectKey::cluster_scoped(reference.name.clone())).map(|pool| Pool::of(&*pool)),
            _ => None,
        }
    }

    /// The addresses that IPAddress objects hold of a pool, with those objects.
    pub fn given_out(&self, kind: &str, key: &ObjectKey) -> BTreeMap<IpAddr, Arc<IPAddress>> {
        let all = self.addresses.indexed(BY_POOL, &pool_name(kind, key.namespace(), &key.name));
        all.into_iter().filter_map(|address| Some((address.spec.address.parse().ok()?, address))).collect()
    }

    /// The other pools that have addresses of this one.
    pub fn overlapping(&self, pool: &Pool) -> Vec<Pool> {
        let Ok(own) = Addresses::parse(&pool.spec.addresses) else { return Vec::new() };
        let mut found: BTreeMap<String, Pool> = BTreeMap::new();
        let mut add = |other: Pool| {
            let is_same = other.kind == pool.kind && other.meta.uid == pool.meta.uid;
            let overlaps = Addresses::parse(&other.spec.addresses).is_ok_and(|addresses| addresses.overlaps(&own));
            if !is_same && overlaps && other.network() == pool.network() {
                found.insert(other.title(), other);
            }
        };
        let names = blocks(&pool.spec);
        if names == [MANY_BLOCKS] {
            self.local.all().iter().for_each(|other| add(Pool::of(&**other)));
            self.global.all().iter().for_each(|other| add(Pool::of(&**other)));
            return found.into_values().collect();
        }
        for name in names.iter().map(String::as_str).chain([MANY_BLOCKS]) {
            self.local.indexed(BY_BLOCK, name).iter().for_each(|other| add(Pool::of(&**other)));
            self.global.indexed(BY_BLOCK, name).iter().for_each(|other| add(Pool::of(&**other)));
        }
        found.into_values().collect()
    }

    /// What other pools say about addresses of this one.
    pub fn elsewhere(&self, pool: &Pool) -> BTreeMap<IpAddr, Elsewhere> {
        let mut all = BTreeMap::new();
        let Ok(own) = Addresses::parse(&pool.spec.addresses) else { return all };
        for other in self.overlapping(pool) {
            let (ledger, title) = (Ledger::of(&other.meta), other.title());
            let rest = allocate::grace(&other.spec);
            for (address, released) in ledger.released.iter().filter(|(address, _)| own.contains(**address)) {
                say(&mut all, *address, Elsewhere::Rests { until: ledger::rests_until(*released, rest) });
            }
            for (address, holder) in ledger.held.iter().filter(|(address, _)| own.contains(**address)) {
                say(&mut all, *address, Elsewhere::Held { pool: title.clone(), holder: holder.to_string() });
            }
            for (address, object) in self.given_out(&other.kind, &ObjectKey::of(&other.meta)) {
                let holder = format!("{}/{}", object.metadata.namespace.as_deref().unwrap_or_default(), object.spec.claim_ref.name);
                if own.contains(address) {
                    say(&mut all, address, Elsewhere::Held { pool: title.clone(), holder });
                }
            }
        }
        all
    }

    /// The claims on a pool.
    pub fn claims_on(&self, kind: &str, key: &ObjectKey) -> Vec<Arc<IPAddressClaim>> {
        self.claims.indexed(BY_POOL, &pool_name(kind, key.namespace(), &key.name))
    }

    /// Endpoints that are given as addresses, with the clusters that have them.
    pub fn endpoints(&self) -> BTreeMap<IpAddr, String> {
        let of = |host: Option<&str>| host.and_then(|host| host.parse::<IpAddr>().ok());
        let mut all = BTreeMap::new();
        for cluster in self.vsphere_clusters.all() {
            if let Some(address) = of(cluster.spec.control_plane_endpoint.host.as_deref()) {
                all.insert(address, ObjectKey::of(&cluster.metadata).to_string());
            }
        }
        for cluster in self.clusters.all() {
            if let Some(address) = of(cluster.spec.control_plane_endpoint.host.as_deref()) {
                all.insert(address, ObjectKey::of(&cluster.metadata).to_string());
            }
        }
        all
    }

    /// Writes the ledger of a pool, as long as the pool is what it was.
    ///
    /// # Errors
    /// As the API answers; a conflict when the pool has changed.
    pub async fn write_ledger(&self, pool: &Pool, ledger: &Ledger) -> Result<(), ApiError> {
        if pool.kind == "GlobalInClusterIPPool" {
            act::write_ledger(&self.global, &pool.meta, ledger).await.map(drop)
        } else {
            act::write_ledger(&self.local, &pool.meta, ledger).await.map(drop)
        }
    }
}

struct PoolController<K: PoolKind> {
    wiring: Wiring,
    store: Store<K>,
    pools: Pools,
}

/// Wires the controller of pools in a namespace.
pub fn start(wiring: &Wiring) -> Started {
    wire::<InClusterIPPool>(wiring, NAME)
}

/// Wires the controller of pools for all namespaces.
pub fn start_global(wiring: &Wiring) -> Started {
    wire::<GlobalInClusterIPPool>(wiring, GLOBAL_NAME)
}

fn wire<K: PoolKind>(wiring: &Wiring, name: &str) -> Started {
    let pools = Pools::new(&wiring.stores);
    let store = wiring.stores.get::<K>();
    let is_global = K::kind(&()) == "GlobalInClusterIPPool";
    let keys = move |namespace: Option<&String>, reference: &ContractReference| -> Vec<ObjectKey> {
        if reference.api_group != IPAM_GROUP || reference.kind != K::kind(&()) {
            return Vec::new();
        }
        vec![ObjectKey { namespace: namespace.cloned().filter(|_| !is_global), name: reference.name.clone() }]
    };
    let all = {
        let store = store.clone();
        move || store.keys()
    };
    let all_of_vsphere = all.clone();
    let controller = wiring
        .controller(name, PoolController { wiring: wiring.clone(), store, pools })
        .rest(REST)
        .watches(move |address: &IPAddress| keys(address.metadata.namespace.as_ref(), &address.spec.pool_ref))
        .watches(move |claim: &IPAddressClaim| keys(claim.metadata.namespace.as_ref(), &claim.spec.pool_ref))
        // An endpoint counts for the number of free addresses.
        .watches_when(crate::change::of_cluster, move |cluster: &Cluster| {
            endpoint_keys(cluster.spec.control_plane_endpoint.host.as_deref(), &all)
        })
        .watches(move |cluster: &VSphereCluster| endpoint_keys(cluster.spec.control_plane_endpoint.host.as_deref(), &all_of_vsphere));
    wiring.started(controller)
}

fn endpoint_keys(host: Option<&str>, all: &impl Fn() -> Vec<ObjectKey>) -> Vec<ObjectKey> {
    if host.is_some_and(|host| host.parse::<IpAddr>().is_ok()) { all() } else { Vec::new() }
}

#[async_trait]
impl<K: PoolKind> Reconciler for PoolController<K> {
    type Kind = K;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(pool) = self.store.get(key) else { return Ok(Action::Done) };
        if crate::edit::is_paused(None, pool.meta()) {
            return Ok(Action::Done);
        }
        let kind = self.store.kind();
        let taken: BTreeSet<IpAddr> = self.pools.given_out(kind, key).into_keys().collect();
        let claims = self.pools.claims_on(kind, key).iter().filter_map(|claim| claim.metadata.uid.clone()).collect();
        let now = self.wiring.clock.now();
        let steps = plan::plan(&Observed { meta: pool.meta(), spec: pool.spec(), taken: &taken, claims: &claims, now });
        for step in &steps {
            act::step(&self.wiring, &self.store, &pool, step).await?;
        }
        let Some(pool) = self.store.get(key) else { return Ok(Action::Done) };
        let new = status::status(pool.spec(), &taken, &self.pools.endpoints());
        crate::status::patch(&self.store, &*pool, pool.status(), &new).await.map(drop).or_else(crate::status::unless_gone)?;
        Ok(Action::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_several_pools_say_the_strongest_counts() {
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let rests = |second: i64| Elsewhere::Rests { until: Timestamp::from_second(second).unwrap() };
        let held = || Elsewhere::Held { pool: "a".into(), holder: "b".into() };
        for (said, expected) in
            [(vec![rests(5), rests(9), rests(7)], rests(9)), (vec![held(), rests(9)], held()), (vec![rests(9), held()], held())]
        {
            let mut all = BTreeMap::new();
            said.into_iter().for_each(|said| say(&mut all, address, said));
            assert_eq!(all[&address], expected);
        }
    }
}
