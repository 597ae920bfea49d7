//! Counts of a pool's addresses. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::ipam::{Addresses, IPPoolCounts, IPPoolSpec, IPPoolStatus};

use super::allocate::usable;

/// The status of a pool. `free` leaves out endpoints of clusters, which nobody gets.
pub fn status(spec: &IPPoolSpec, taken: &BTreeSet<IpAddr>, endpoints: &BTreeMap<IpAddr, String>) -> IPPoolStatus {
    // A pool that cannot be read has no addresses; its claims say why.
    let usable = usable(spec).unwrap_or_else(|_| Addresses::default());
    let out_of_range = taken.iter().filter(|address| !usable.contains(**address)).count();
    let skipped = endpoints.keys().filter(|address| usable.contains(**address) && !taken.contains(address)).count();
    let (total, used, out_of_range) = (whole(usable.len()), count(taken.len()), count(out_of_range));
    let free = total.saturating_sub(used - out_of_range).saturating_sub(count(skipped)).max(0);
    IPPoolStatus { ip_addresses: Some(IPPoolCounts { free, out_of_range, total, used }) }
}

fn whole(number: u128) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_as_upstream_counts() {
        let spec = IPPoolSpec {
            addresses: vec!["172.16.42.230-172.16.42.234".into()],
            prefix: 24,
            gateway: Some("172.16.42.1".into()),
            ..IPPoolSpec::default()
        };
        let taken: BTreeSet<IpAddr> = ["172.16.42.230", "172.16.42.231", "172.16.42.99"].iter().map(|text| text.parse().unwrap()).collect();
        let endpoints = BTreeMap::from([("172.16.42.234".parse().unwrap(), "a".to_owned())]);
        let counts = status(&spec, &taken, &endpoints).ip_addresses.unwrap();
        assert_eq!((counts.total, counts.used, counts.out_of_range, counts.free), (5, 3, 1, 2));
        let counts = status(&spec, &taken, &BTreeMap::new()).ip_addresses.unwrap();
        assert_eq!(counts.free, 3);
    }
}
