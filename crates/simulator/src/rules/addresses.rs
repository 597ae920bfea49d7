//! Rule 5: addresses are unique, never a gateway's, an excluded one or a cluster's endpoint, and rest after their release.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::objects::{Key, Objects, text};
use super::ranges::contains;
use super::{Violation, violation};
use crate::Truth;

const GROUP: &str = "ipam.cluster.x-k8s.io";
/// How long a released address rests when its pool says nothing.
const REST: SignedDuration = SignedDuration::from_secs(10);

/// When addresses were released and how long they rest, by network and address.
#[derive(Debug, Default)]
pub(super) struct Memory {
    released: BTreeMap<(String, String), (Timestamp, SignedDuration)>,
}

/// Two machines that configured one address.
pub(super) fn check(truth: &Truth) -> Vec<Violation> {
    let double = truth.address_conflicts.iter().filter(|conflict| !conflict.is_virtual);
    let double = double.map(|conflict| {
        let holders: Vec<String> = conflict.holders.iter().map(ToString::to_string).collect();
        violation(5, "two machines configured the same address", format!("{}: {}", conflict.address, holders.join(", ")))
    });
    double.collect()
}

/// Names the pool of an address: kind, namespace (of pools that have one) and name.
fn pool_of(key: &Key, object: &Value) -> (String, Key) {
    let (kind, name) = (text(object, "/spec/poolRef/kind"), text(object, "/spec/poolRef/name"));
    let is_global = kind.starts_with("Global");
    let namespace = if is_global { String::new() } else { key.namespace.clone() };
    let resource = if is_global { "globalinclusterippools" } else { "inclusterippools" };
    let pool = Key { group: GROUP.to_owned(), resource: resource.to_owned(), namespace: namespace.clone(), name: name.to_owned() };
    (format!("{kind} {namespace}/{name}"), pool)
}

/// The network that a pool names; pools that name none are of one network.
fn network(objects: &Objects, pool: &Key) -> String {
    let named = objects.get(pool).and_then(|pool| pool.pointer("/metadata/annotations/talosphere.dev~1network")).and_then(Value::as_str);
    named.unwrap_or_default().to_owned()
}

fn grace(objects: &Objects, pool: &Key) -> SignedDuration {
    let given = objects.get(pool).and_then(|pool| pool.pointer("/spec/addressReuseGracePeriodSeconds")).and_then(Value::as_i64);
    given.map_or(REST, SignedDuration::from_secs)
}

impl Memory {
    pub fn wrote(&mut self, objects: &Objects, key: &Key, before: Option<&Value>, after: Option<&Value>, now: Timestamp) -> Vec<Violation> {
        if !key.is(GROUP, "ipaddresses") {
            return Vec::new();
        }
        let Some(object) = after else {
            if let Some(gone) = before {
                let (_, pool) = pool_of(key, gone);
                let address = text(gone, "/spec/address").to_owned();
                self.released.insert((network(objects, &pool), address), (now, grace(objects, &pool)));
            }
            return Vec::new();
        };
        // What an address is never changes; only its making is of interest.
        if before.is_some_and(|before| text(before, "/metadata/uid") == text(object, "/metadata/uid")) {
            return Vec::new();
        }
        self.given(objects, key, object, now)
    }

    fn given(&self, objects: &Objects, key: &Key, object: &Value, now: Timestamp) -> Vec<Violation> {
        let mut found = Vec::new();
        let address = text(object, "/spec/address");
        let (pool_name, pool_key) = pool_of(key, object);
        let (evidence, own_network) = (format!("{address} of {pool_name} for {}", key.name), network(objects, &pool_key));
        for (other_key, other) in objects.list(GROUP, "ipaddresses").filter(|(other, _)| *other != key) {
            let is_same = text(other, "/spec/address").parse::<IpAddr>().ok() == address.parse().ok();
            if is_same && network(objects, &pool_of(other_key, other).1) == own_network {
                found.push(violation(5, "an address was given out twice", format!("{evidence} and {}", other_key.name)));
            }
            if other_key.namespace == key.namespace && text(other, "/spec/claimRef/name") == text(object, "/spec/claimRef/name") {
                found.push(violation(5, "one claim was given two addresses", format!("{evidence} and {}", text(other, "/spec/address"))));
            }
        }
        let Ok(number) = address.parse::<IpAddr>() else {
            found.push(violation(5, "what was given out is no address", evidence));
            return found;
        };
        if let Some(pool) = objects.get(&pool_key) {
            let ranges = |pointer: &str| -> Vec<String> {
                pool.pointer(pointer).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
            };
            if text(pool, "/spec/gateway").parse() == Ok(number) {
                found.push(violation(5, "the gateway's address was given out", evidence.clone()));
            }
            if ranges("/spec/excludedAddresses").iter().any(|range| contains(range, number)) {
                found.push(violation(5, "an excluded address was given out", evidence.clone()));
            }
            if !ranges("/spec/addresses").iter().any(|range| contains(range, number)) {
                found.push(violation(5, "an address was given out that is not in the pool", evidence.clone()));
            }
            let released = self.released.get(&(own_network, address.to_owned()));
            let rested = released.map(|(released, grace)| (now.duration_since(*released), *grace));
            if let Some((rested, grace)) = rested.filter(|(rested, grace)| rested < grace) {
                found.push(violation(
                    5,
                    "a released address was given out before it had rested",
                    format!("{evidence}, after {rested:?} of {grace:?}"),
                ));
            }
        }
        if let Some(cluster) = endpoint_of(objects, number) {
            found.push(violation(5, "a cluster's endpoint address was given out", format!("{evidence}; endpoint of {cluster}")));
        }
        found
    }
}

/// The cluster whose endpoint the address is, unless a single control plane is to take exactly it.
fn endpoint_of(objects: &Objects, address: IpAddr) -> Option<String> {
    let is_it = |object: &Value| text(object, "/spec/controlPlaneEndpoint/host").parse() == Ok(address);
    let clusters = objects.list("infrastructure.cluster.x-k8s.io", "vsphereclusters").chain(objects.list("cluster.x-k8s.io", "clusters"));
    let holder = clusters.filter(|(_, object)| is_it(object)).map(|(key, _)| key).next()?;
    let has_single = objects.list("controlplane.cluster.x-k8s.io", "taloscontrolplanes").any(|(key, object)| {
        let is_its = object.pointer("/metadata/labels/cluster.x-k8s.io~1cluster-name").and_then(Value::as_str) == Some(&holder.name);
        key.namespace == holder.namespace
            && (is_its || key.name.starts_with(&holder.name))
            && object.pointer("/spec/replicas").and_then(Value::as_u64) == Some(1)
    });
    (!has_single).then(|| holder.to_string())
}
