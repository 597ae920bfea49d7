//! Rules of pools, claims and addresses.
//!
//! Deletion of a pool that still has addresses: upstream refuses it. Here the pool's finalizer carries the rule instead when it is there (the
//! pool goes with its last address, and until then works as before), so that deleting all files of a cluster at once does not leave the pool
//! behind. A pool without the finalizer is refused as upstream does.

use std::net::IpAddr;

use apimachinery::admission::{Lookup, Operation, Request};
use apimachinery::field::FieldError;
use apimachinery::gvk::GroupKind;
use apimachinery::meta;
use apimachinery::status::StatusError;
use serde_json::Value;

use super::{Findings, get, text};
use crate::ipam::{Addresses, Network, RangeError};
use crate::names::{IPAM_GROUP, annotations, finalizers};

fn is_set(value: Option<&Value>) -> bool {
    value.is_some_and(|value| !value.is_null())
}

/// Reads a list of addresses, one fault for each entry that cannot be read.
fn read(pool: &Value, path: &str, out: &mut Findings) -> Option<Addresses> {
    let list: Vec<&str> = get(pool, path).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut is_good = true;
    for (index, entry) in list.iter().enumerate() {
        if let Err(error) = Addresses::parse(&[entry]) {
            out.fault(FieldError::invalid(format!("{path}[{index}]"), *entry, error.to_string()));
            is_good = false;
        }
    }
    if !is_good {
        return None;
    }
    match Addresses::parse(&list) {
        Ok(set) => Some(set),
        Err(error) => {
            let (RangeError::Syntax(entry) | RangeError::Reversed(entry) | RangeError::MixedFamilies(entry)) = &error;
            out.fault(FieldError::invalid(path, entry.clone(), error.to_string()));
            None
        }
    }
}

pub(super) fn check_pool(request: &Request<'_>, pool: &Value, lookup: &dyn Lookup, out: &mut Findings) {
    let list = "spec.addresses";
    if get(pool, list).and_then(Value::as_array).is_none_or(Vec::is_empty) {
        out.fault(FieldError::required(list, "a pool needs addresses, such as 10.0.0.10-10.0.0.20"));
        return;
    }
    let addresses = read(pool, list, out);
    let excluded = read(pool, "spec.excludedAddresses", out);
    let Some(addresses) = addresses else { return };
    check_network(pool, &addresses, out);
    if let Some(gateway) = text(pool, "spec.gateway") {
        match gateway.parse::<IpAddr>() {
            Err(_) => out.fault(FieldError::invalid("spec.gateway", gateway, "must be an IP address")),
            Ok(address) if address.is_ipv6() != addresses.is_v6() => {
                out.fault(FieldError::invalid("spec.gateway", gateway, "must be of the same family as the pool's addresses"));
            }
            Ok(_) => {}
        }
    }
    if let Some(excluded) = excluded.filter(|excluded| !excluded.is_empty())
        && excluded.is_v6() != addresses.is_v6()
    {
        let value = get(pool, "spec.excludedAddresses").cloned().unwrap_or_default();
        out.fault(FieldError::invalid("spec.excludedAddresses", value, "must be of the same family as the pool's addresses"));
    }
    if request.operation == Operation::Update {
        check_allocated(request, pool, &addresses, lookup, out);
    }
}

/// All addresses lie in one network of the pool's prefix length.
fn check_network(pool: &Value, addresses: &Addresses, out: &mut Findings) {
    let Some(prefix) = get(pool, "spec.prefix").and_then(Value::as_i64) else { return };
    let Some((first, last)) = addresses.bounds() else { return };
    let network = u8::try_from(prefix).ok().and_then(|prefix| Network::around(first, prefix));
    let Some(network) = network else {
        let bits = if addresses.is_v6() { 128 } else { 32 };
        out.fault(FieldError::invalid("spec.prefix", prefix, format!("must be between 0 and {bits} for these addresses")));
        return;
    };
    if !network.contains(last) {
        let value = get(pool, "spec.addresses").cloned().unwrap_or_default();
        let why = format!("{last} is not in the network {}/{prefix} of the pool's first address", network.first());
        out.fault(FieldError::invalid("spec.addresses", value, why));
    }
}

/// Addresses that were given out must stay in the pool.
fn check_allocated(request: &Request<'_>, pool: &Value, addresses: &Addresses, lookup: &dyn Lookup, out: &mut Findings) {
    if request.old.is_some_and(|old| get(old, "spec.addresses") == get(pool, "spec.addresses")) {
        return;
    }
    let lost: Vec<String> = allocated(request, lookup)
        .iter()
        .filter_map(|address| {
            let parsed: IpAddr = text(address, "spec.address")?.parse().ok()?;
            (!addresses.contains(parsed)).then(|| format!("{parsed} (held by {})", holder(address)))
        })
        .collect();
    if !lost.is_empty() {
        let value = get(pool, "spec.addresses").cloned().unwrap_or_default();
        let why = format!("pool addresses do not contain allocated addresses: {}", lost.join(", "));
        out.fault(FieldError::invalid("spec.addresses", value, why));
    }
}

fn holder(address: &Value) -> String {
    let claim = text(address, "spec.claimRef.name").unwrap_or_else(|| meta::name(address));
    format!("{}/{claim}", meta::namespace(address).unwrap_or_default())
}

/// Addresses that come from the pool of a request.
fn allocated(request: &Request<'_>, lookup: &dyn Lookup) -> Vec<Value> {
    let addresses = lookup.list(&GroupKind::new(IPAM_GROUP, "IPAddress"), request.namespace);
    let is_of_pool = |address: &Value| {
        text(address, "spec.poolRef.kind") == Some(&request.gvk.kind)
            && text(address, "spec.poolRef.name") == Some(request.name)
            && text(address, "spec.poolRef.apiGroup") == Some(IPAM_GROUP)
    };
    addresses.into_iter().filter(is_of_pool).collect()
}

pub(super) fn check_pool_deletion(request: &Request<'_>, lookup: &dyn Lookup, out: &mut Findings) -> Result<(), StatusError> {
    let Some(pool) = request.old else { return Ok(()) };
    if meta::annotation(pool, annotations::SKIP_VALIDATE_DELETE).is_some() || meta::deletion_timestamp(pool).is_some() {
        return Ok(());
    }
    let held = allocated(request, lookup);
    if held.is_empty() {
        return Ok(());
    }
    let mut holders: Vec<String> = held.iter().map(holder).collect();
    holders.sort();
    if meta::finalizers(pool).contains(&finalizers::PROTECT_POOL) {
        out.warnings.push(format!(
            "{} {} still has {} addresses in use ({}); it goes when the last of them is released",
            request.gvk.kind,
            request.name,
            held.len(),
            holders.join(", ")
        ));
        return Ok(());
    }
    Err(StatusError::bad_request(format!(
        "{} {} has IPAddresses allocated to {}: delete those claims first, or set the annotation {}",
        request.gvk.kind,
        request.name,
        holders.join(", "),
        annotations::SKIP_VALIDATE_DELETE
    )))
}

pub(super) fn check_claim(claim: &Value, old: Option<&Value>, out: &mut Findings) {
    if let Some(old) = old {
        out.immutable(old, claim, "spec.poolRef");
    }
    if text(claim, "spec.poolRef.apiGroup").is_none() {
        out.fault(FieldError::required("spec.poolRef.apiGroup", "such as ipam.cluster.x-k8s.io"));
    }
}

pub(super) fn check_address(address: &Value, old: Option<&Value>, out: &mut Findings) {
    if let Some(old) = old {
        out.immutable(old, address, "spec");
    }
    let parsed = text(address, "spec.address").map(str::parse::<IpAddr>);
    let is_v6 = match (parsed, text(address, "spec.address")) {
        (Some(Ok(parsed)), _) => parsed.is_ipv6(),
        (_, value) => {
            out.fault(FieldError::invalid("spec.address", value.unwrap_or_default(), "must be an IP address"));
            return;
        }
    };
    let bits = if is_v6 { 128 } else { 32 };
    if let Some(prefix) = get(address, "spec.prefix").and_then(Value::as_i64).filter(|prefix| !(0..=bits).contains(prefix)) {
        out.fault(FieldError::invalid("spec.prefix", prefix, format!("must be between 0 and {bits}")));
    }
    if let Some(gateway) = text(address, "spec.gateway")
        && !gateway.parse::<IpAddr>().is_ok_and(|gateway| gateway.is_ipv6() == is_v6)
    {
        out.fault(FieldError::invalid("spec.gateway", gateway, "must be an IP address of the same family as the address"));
    }
    if !is_set(get(address, "spec.poolRef.apiGroup")) {
        out.fault(FieldError::required("spec.poolRef.apiGroup", "such as ipam.cluster.x-k8s.io"));
    }
}
