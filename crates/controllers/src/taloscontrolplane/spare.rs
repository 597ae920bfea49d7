//! Whether the pools that a control plane's template names have an address for one more machine.
//!
//! Only pools of the kinds that this product allocates from are known; of others nothing is said, and one more machine is tried.

use std::collections::BTreeSet;

use api::cluster::Machine;
use api::ipam::{GlobalInClusterIPPool, IPAddressClaim, IPPoolStatus, InClusterIPPool};
use runtime::reconcile::{ObjectKey, Store};
use serde_json::Value;

use super::plan::{Observed, Pools};
use crate::Wiring;
use crate::controlplane::is_claim_of;

/// Pools and claims.
#[derive(Clone, Debug)]
pub(super) struct SpareAddresses {
    pools: Store<InClusterIPPool>,
    global: Store<GlobalInClusterIPPool>,
    claims: Store<IPAddressClaim>,
}

impl SpareAddresses {
    pub fn of(wiring: &Wiring) -> Self {
        Self { pools: wiring.stores.get(), global: wiring.stores.get(), claims: wiring.stores.get() }
    }

    /// How it stands with them.
    pub fn pools(&self, observed: &Observed) -> Pools {
        let namespace = observed.control_plane.metadata.namespace.as_deref().unwrap_or_default();
        let empty = references(observed).into_iter().find(|(kind, name)| self.free(namespace, kind, name).is_some_and(|free| free < 1));
        let waiting = observed.alive().filter(|node| node.address.is_none() && self.is_waiting(namespace, &node.machine));
        Pools { empty: empty.map(|(kind, name)| format!("{kind} {name}")), waiting: waiting.map(|node| node.name().to_owned()).collect() }
    }

    fn free(&self, namespace: &str, kind: &str, name: &str) -> Option<i64> {
        let counted = |status: Option<&IPPoolStatus>| Some(status?.ip_addresses.as_ref()?.free);
        match kind {
            "InClusterIPPool" => counted(self.pools.get_in(namespace, name)?.status.as_ref()),
            "GlobalInClusterIPPool" => {
                let key = ObjectKey { namespace: None, name: name.to_owned() };
                counted(self.global.get(&key)?.status.as_ref())
            }
            _ => None,
        }
    }

    /// Whether a claim of the machine has no address.
    fn is_waiting(&self, namespace: &str, machine: &Machine) -> bool {
        let lacks = |claim: &IPAddressClaim| claim.status.as_ref().is_none_or(|status| status.address_ref.is_none());
        self.claims.in_namespace(namespace).iter().any(|claim| is_claim_of(claim, machine) && lacks(claim))
    }
}

/// Kind and name of each pool that a machine of the template takes an address from.
fn references(observed: &Observed) -> BTreeSet<(String, String)> {
    let Some(template) = observed.template.found() else { return BTreeSet::new() };
    let devices = template.spec.template.pointer("/spec/network/devices").and_then(Value::as_array);
    let pools = devices.into_iter().flatten().filter_map(|device| device.get("addressesFromPools")?.as_array()).flatten();
    let text = |pool: &Value, key: &str| pool.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    pools.map(|pool| (text(pool, "kind"), text(pool, "name"))).collect()
}
