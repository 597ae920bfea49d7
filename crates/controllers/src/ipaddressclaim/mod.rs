//! The claim controller: gives every IPAddressClaim on a pool of ours its address, and takes it back.
//!
//! One claim at a time: claims of one pool would only get into each other's way, and the ledger's precondition would send all but one back.

pub mod act;
pub mod plan;
pub mod status;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::cluster::{Cluster, Machine};
use api::controlplane::TalosControlPlane;
use api::infrastructure::{VSphereCluster, VSphereVM};
use api::ipam::{GlobalInClusterIPPool, IPAddress, IPAddressClaim, InClusterIPPool};
use api::names::labels;
use async_trait::async_trait;
use kube::Resource as _;
use runtime::reconcile::{Action, Error, EventType, ObjectKey, Reconciler, Store};

use crate::edit::{cluster_name, is_paused};
use crate::inclusterippool::{Pool, Pools, pool_of};
use crate::{Started, Wiring};
use act::Act;
use plan::{Observed, Outcome};

/// The controller's name.
pub const NAME: &str = "ipaddressclaim";

/// A plan that is not all is followed by another, this often; then by another run.
const MOST_ROUNDS: u32 = 3;

struct Claims {
    act: Act,
    planes: Store<TalosControlPlane>,
    vms: Store<VSphereVM>,
    machines: Store<Machine>,
}

/// Wires the controller.
pub fn start(wiring: &Wiring) -> Started {
    let pools = Pools::new(&wiring.stores);
    let claims = Claims {
        act: Act { wiring: wiring.clone(), pools: pools.clone() },
        planes: wiring.stores.get(),
        vms: wiring.stores.get(),
        machines: wiring.stores.get(),
    };
    let (planes, vms, machines) = (claims.planes.clone(), claims.vms.clone(), claims.machines.clone());
    let (local, global, of_cluster, of_vsphere, of_plane) = (pools.clone(), pools.clone(), pools.clone(), pools.clone(), pools);
    let controller = wiring
        .controller(NAME, claims)
        .watches(|address: &IPAddress| {
            vec![ObjectKey { namespace: address.metadata.namespace.clone(), name: address.spec.claim_ref.name.clone() }]
        })
        .watches(move |pool: &InClusterIPPool| waiting(&local, pool))
        .watches(move |pool: &GlobalInClusterIPPool| waiting(&global, pool))
        .watches_when(crate::change::of_cluster, move |cluster: &Cluster| waiting_of(&of_cluster, cluster.metadata.namespace.as_deref()))
        .watches(move |cluster: &VSphereCluster| waiting_of(&of_vsphere, cluster.metadata.namespace.as_deref()))
        .watches(move |plane: &TalosControlPlane| waiting_of(&of_plane, plane.metadata.namespace.as_deref()))
        .reads(&planes)
        .reads(&vms)
        .reads(&machines)
        .limit(1);
    wiring.started(controller)
}

fn has_no_address(claim: &IPAddressClaim) -> bool {
    claim.status.as_ref().is_none_or(|status| status.address_ref.is_none())
}

/// Claims on a pool that have no address yet, or are on their way out.
fn waiting<K: crate::inclusterippool::PoolKind>(pools: &Pools, pool: &K) -> Vec<ObjectKey> {
    let pool = Pool::of(pool);
    // What one pool gets back, the claims on pools with the same addresses may be waiting for.
    let others = pools.overlapping(&pool);
    let claims = others.iter().chain([&pool]).flat_map(|pool| pools.claims_on(&pool.kind, &ObjectKey::of(&pool.meta)));
    let claims: Vec<Arc<IPAddressClaim>> = claims.collect();
    claims.iter().filter(|claim| has_no_address(claim)).map(|claim| ObjectKey::of(&claim.metadata)).collect()
}

/// Claims of a namespace that have no address yet.
fn waiting_of(pools: &Pools, namespace: Option<&str>) -> Vec<ObjectKey> {
    let claims = pools.claims.in_namespace(namespace.unwrap_or_default());
    claims.iter().filter(|claim| has_no_address(claim)).map(|claim| ObjectKey::of(&claim.metadata)).collect()
}

impl Claims {
    fn observe(&self, claim: Arc<IPAddressClaim>) -> Observed {
        let pools = &self.act.pools;
        let key = ObjectKey::of(&claim.metadata);
        let pool = pools.find(key.namespace(), &claim.spec.pool_ref);
        let given_out = pool.as_ref().map(|pool| pools.given_out(&pool.kind, &ObjectKey::of(&pool.meta))).unwrap_or_default();
        let name = claim.spec.cluster_name.as_deref().or_else(|| cluster_name(&claim.metadata));
        let cluster = name.and_then(|name| pools.clusters.get_in(key.namespace(), name));
        let wanted = cluster.as_deref().and_then(|cluster| self.wanted(&claim, cluster));
        Observed {
            is_paused: is_paused(cluster.as_deref(), &claim.metadata),
            address: pools.addresses.get(&key),
            elsewhere: pool.as_ref().map(|pool| pools.elsewhere(pool)).unwrap_or_default(),
            endpoints: pools.endpoints(),
            now: self.act.wiring.clock.now(),
            defects: self.act.wiring.defects.clone(),
            claim,
            pool,
            given_out,
            wanted,
        }
    }

    /// The endpoint, if the claim is for the one machine that is to have it.
    fn wanted(&self, claim: &IPAddressClaim, cluster: &Cluster) -> Option<IpAddr> {
        let namespace = cluster.metadata.namespace.as_deref().unwrap_or_default();
        let owner = claim.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "VSphereVM")?;
        // VM and Machine have the same name.
        let of_vm = self.vms.get_in(namespace, &owner.name).and_then(|vm| vm.metadata.labels.clone());
        let of_machine = self.machines.get_in(namespace, &owner.name).and_then(|machine| machine.metadata.labels.clone());
        let is_control_plane = of_vm.iter().chain(&of_machine).any(|known| known.contains_key(labels::CONTROL_PLANE));
        let infrastructure = cluster.spec.infrastructure_ref.as_ref();
        let vsphere = infrastructure.and_then(|reference| self.act.pools.vsphere_clusters.get_in(namespace, &reference.name));
        let host = cluster.spec.control_plane_endpoint.host.clone();
        let host = host.or_else(|| vsphere.and_then(|vsphere| vsphere.spec.control_plane_endpoint.host.clone()));
        let endpoint = host.and_then(|host| host.parse().ok());
        let plane = cluster.spec.control_plane_ref.as_ref().and_then(|reference| self.planes.get_in(namespace, &reference.name));
        plan::wanted(is_control_plane, cluster, endpoint, plane.as_deref())
    }

    /// An IPAddress is left although its claim is gone.
    async fn forget(&self, key: &ObjectKey) -> Result<Action, Error> {
        let pools = &self.act.pools;
        let Some(address) = pools.addresses.get(key).filter(|address| Pools::is_ours(&address.spec.pool_ref)) else {
            return Ok(Action::Done);
        };
        let pool = pools.find(key.namespace(), &address.spec.pool_ref);
        for step in plan::orphan(&address, pool.as_ref(), self.act.wiring.clock.now()) {
            self.act.orphan(&address, pool.as_ref(), &step).await?;
        }
        Ok(Action::Done)
    }

    fn tell_exhaustion(&self, claim: &IPAddressClaim, new: &api::ipam::IPAddressClaimStatus) {
        let reason = |status: &api::ipam::IPAddressClaimStatus| {
            let ready = api::conditions::get(&status.conditions, status::READY);
            ready.map(|ready| (ready.reason.clone(), ready.message.clone()))
        };
        let (old, new) = (claim.status.as_ref().and_then(reason), reason(new));
        let was_told = old.is_some_and(|(reason, _)| reason == "PoolExhausted");
        if let Some((reason, message)) = new.filter(|(reason, _)| reason == "PoolExhausted" && !was_told) {
            let recorder = self.act.wiring.recorder.of("ipaddressclaim-controller");
            recorder.event(&claim.object_ref(&()), EventType::Warning, &reason, message);
        }
    }
}

#[async_trait]
impl Reconciler for Claims {
    type Kind = IPAddressClaim;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let claims = &self.act.pools.claims;
        let Some(claim) = claims.get(key) else { return self.forget(key).await };
        if !Pools::is_ours(&claim.spec.pool_ref) {
            return Ok(Action::Done);
        }
        let mut observed = self.observe(claim);
        let mut plan = plan::plan(&observed);
        for round in 1.. {
            for step in &plan.steps {
                self.act.step(&observed, step).await?;
            }
            let Some(claim) = claims.get(key).filter(|_| plan.is_partial && round < MOST_ROUNDS) else { break };
            observed = self.observe(claim);
            plan = plan::plan(&observed);
        }
        if plan.outcome != Outcome::Silent
            && let Some(claim) = claims.get(key)
        {
            let title = pool_of(key.namespace(), &claim.spec.pool_ref);
            let new = status::status(&claim, &title, &plan.outcome, self.act.wiring.clock.now_seconds());
            self.tell_exhaustion(&claim, &new);
            let written = crate::status::patch(claims, &*claim, claim.status.as_ref(), &new).await;
            written.map(drop).or_else(crate::status::unless_gone)?;
        }
        if plan.is_partial {
            return Ok(Action::RequeueAfter(Duration::from_millis(100)));
        }
        let left = plan.again_at.and_then(|at| Duration::try_from(at.duration_since(observed.now)).ok());
        Ok(left.map_or(Action::Done, |left| Action::RequeueAfter(left.max(Duration::from_millis(1)))))
    }
}
