//! What is to be done for a pool. Pure.
//!
//! A pool is protected from the first look on; it goes when nobody holds an address of it. An entry of the ledger whose claim is gone (somebody has
//! taken its finalizer by force) is returned, and rests like any other.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::ipam::IPPoolSpec;
use api::names::finalizers;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::allocate::grace;
use super::ledger::Ledger;
use crate::edit::{has_finalizer, is_deleting};

/// What is known when a pool is planned.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    pub meta: &'a ObjectMeta,
    pub spec: &'a IPPoolSpec,
    /// Addresses that IPAddress objects hold.
    pub taken: &'a BTreeSet<IpAddr>,
    /// The uids of all claims that there are.
    pub claims: &'a BTreeSet<String>,
    pub now: Timestamp,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Puts the finalizer.
    Protect,
    /// Writes the ledger, if the pool is still as it was seen.
    WriteLedger(Ledger),
    /// Takes the finalizer away, if the pool is still as it was seen.
    Unprotect,
}

/// What is to be done, in this order.
pub fn plan(observed: &Observed<'_>) -> Vec<Step> {
    let mut ledger = Ledger::of(observed.meta);
    let mut steps = Vec::new();
    if !is_deleting(observed.meta) && !has_finalizer(observed.meta, finalizers::PROTECT_POOL) {
        steps.push(Step::Protect);
    }
    let gone = |address: &IpAddr, uid: &str| !observed.claims.contains(uid) && !observed.taken.contains(address);
    let forgotten: Vec<IpAddr> =
        ledger.held.iter().filter(|(address, holder)| gone(address, &holder.uid)).map(|(address, _)| *address).collect();
    let is_unused = ledger.held.len() == forgotten.len() && observed.taken.is_empty();
    if is_deleting(observed.meta) && is_unused {
        if has_finalizer(observed.meta, finalizers::PROTECT_POOL) {
            steps.push(Step::Unprotect);
        }
        return steps;
    }
    if !forgotten.is_empty() {
        for address in forgotten {
            ledger = ledger.without(address, grace(observed.spec), observed.now);
        }
        steps.push(Step::WriteLedger(ledger));
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use api::names::annotations;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::inclusterippool::ledger::Holder;

    fn meta(ledger: &Ledger, is_protected: bool, is_deleting: bool) -> ObjectMeta {
        ObjectMeta {
            name: Some("p".into()),
            annotations: Some(BTreeMap::from([(annotations::POOL_LEDGER.to_owned(), ledger.to_text())])),
            finalizers: is_protected.then(|| vec![finalizers::PROTECT_POOL.to_owned()]),
            deletion_timestamp: is_deleting.then_some(Time(Timestamp::UNIX_EPOCH)),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn every_branch() {
        let address: IpAddr = "10.0.0.5".parse().unwrap();
        let holder = Holder { namespace: "n".into(), claim: "c".into(), uid: "u".into() };
        let held = Ledger::default().with(address, holder);
        let empty = Ledger::default();
        let now = Timestamp::UNIX_EPOCH;
        let spec = IPPoolSpec::default();
        let returned = held.clone().without(address, grace(&spec), now);
        let (nothing, one, claim) = (BTreeSet::new(), BTreeSet::from([address]), BTreeSet::from(["u".to_owned()]));
        let none = BTreeSet::new();
        for (what, meta, taken, claims, steps) in [
            ("new", meta(&empty, false, false), &nothing, &none, vec![Step::Protect]),
            ("at rest", meta(&held, true, false), &one, &claim, vec![]),
            ("reserved, not made yet", meta(&held, true, false), &nothing, &claim, vec![]),
            ("claim gone by force", meta(&held, true, false), &nothing, &none, vec![Step::WriteLedger(returned)]),
            ("claim gone by force, address left", meta(&held, true, false), &one, &none, vec![]),
            ("deleted, in use", meta(&held, true, true), &one, &claim, vec![]),
            ("deleted, reserved", meta(&held, true, true), &nothing, &claim, vec![]),
            ("deleted, address without entry", meta(&empty, true, true), &one, &none, vec![]),
            ("deleted, unused", meta(&empty, true, true), &nothing, &none, vec![Step::Unprotect]),
            ("deleted, entry without claim", meta(&held, true, true), &nothing, &none, vec![Step::Unprotect]),
            ("deleted, held by others", meta(&empty, false, true), &nothing, &none, vec![]),
        ] {
            let observed = Observed { meta: &meta, spec: &spec, taken, claims, now };
            assert_eq!(plan(&observed), steps, "{what}");
        }
    }
}
