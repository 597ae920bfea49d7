//! Which address of a pool a claim gets. Pure.
//!
//! Never given out: the gateway, excluded addresses, a network's first and last address (unless the pool says otherwise), endpoints of clusters.
//! Addresses that were never used come first, the lowest before the others; then released ones, the longest-free first, once they have rested.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::ipam::{Addresses, IPPoolSpec, Network, RangeError};
use jiff::{SignedDuration, Timestamp};
use runtime::defects::{Defect, Defects};

use super::Elsewhere;
use super::ledger::{Ledger, rests_until};

/// How long a released address rests when its pool does not say, in seconds.
const REST_SECONDS: i64 = 10;

/// What is asked.
#[derive(Debug)]
pub struct Question<'a> {
    pub spec: &'a IPPoolSpec,
    pub ledger: &'a Ledger,
    /// Addresses that IPAddress objects hold.
    pub taken: &'a BTreeSet<IpAddr>,
    /// What other pools say about addresses of this one.
    pub elsewhere: &'a BTreeMap<IpAddr, Elsewhere>,
    /// Addresses that clusters' endpoints have, with the clusters.
    pub endpoints: &'a BTreeMap<IpAddr, String>,
    /// The one address that the claim is to have, if any is free to be had.
    pub wanted: Option<IpAddr>,
    pub now: Timestamp,
    pub defects: &'a Defects,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This address.
    Take(IpAddr),
    /// This one, but only from then on.
    Rest { address: IpAddr, until: Timestamp },
    /// There is none.
    Exhausted,
}

/// How long a released address of the pool rests.
pub fn grace(spec: &IPPoolSpec) -> SignedDuration {
    SignedDuration::from_secs(spec.address_reuse_grace_period_seconds.map_or(REST_SECONDS, i64::from))
}

/// The addresses of a pool that may be given out at all.
///
/// # Errors
/// When an entry of the pool cannot be read.
pub fn usable(spec: &IPPoolSpec) -> Result<Addresses, RangeError> {
    let mut usable = Addresses::parse(&spec.addresses)?;
    usable.remove_all(&Addresses::parse(&spec.excluded_addresses)?);
    if let Some(gateway) = gateway(spec) {
        usable.remove(gateway);
    }
    if spec.allocate_reserved_ip_addresses != Some(true)
        && let Some((first, _)) = Addresses::parse(&spec.addresses)?.bounds()
        && let Some(network) = u8::try_from(spec.prefix).ok().and_then(|prefix| Network::around(first, prefix))
        && network.inner() != (network.first(), network.last())
    {
        usable.remove(network.first());
        if first.is_ipv4() {
            usable.remove(network.last());
        }
    }
    Ok(usable)
}

/// The gateway of a pool.
pub fn gateway(spec: &IPPoolSpec) -> Option<IpAddr> {
    spec.gateway.as_deref().and_then(|text| text.parse().ok())
}

/// Chooses an address.
///
/// # Errors
/// When an entry of the pool cannot be read.
pub fn choose(question: &Question<'_>) -> Result<Choice, RangeError> {
    let usable = usable(question.spec)?;
    if let Some(address) = planted(question) {
        return Ok(Choice::Take(address));
    }
    let is_held = |address: &IpAddr| {
        let is_held_elsewhere = matches!(question.elsewhere.get(address), Some(Elsewhere::Held { .. }));
        question.taken.contains(address) || question.ledger.held.contains_key(address) || is_held_elsewhere
    };
    let grace = grace(question.spec);
    // Until when an address rests, by its own pool's ledger or another's; none when it was never used.
    let rest = |address: &IpAddr| {
        let here = question.ledger.released.get(address).map(|released| rests_until(*released, grace));
        let there = match question.elsewhere.get(address) {
            Some(Elsewhere::Rests { until }) => Some(*until),
            _ => None,
        };
        here.max(there)
    };
    let rested = |address: IpAddr, until: Timestamp| {
        if until <= question.now { Choice::Take(address) } else { Choice::Rest { address, until } }
    };
    if let Some(wanted) = question.wanted.filter(|wanted| usable.contains(*wanted) && !is_held(wanted)) {
        return Ok(rest(&wanted).map_or(Choice::Take(wanted), |until| rested(wanted, until)));
    }
    let is_open = |address: &IpAddr| !is_held(address) && !question.endpoints.contains_key(address);
    if let Some(address) = usable.iter().find(|address| is_open(address) && rest(address).is_none()) {
        return Ok(Choice::Take(address));
    }
    let released = question.ledger.released.keys().chain(question.elsewhere.keys());
    let released = released.filter(|address| usable.contains(**address) && is_open(address));
    let longest_free = released.filter_map(|address| Some((rest(address)?, *address))).min();
    Ok(longest_free.map_or(Choice::Exhausted, |(until, address)| rested(address, until)))
}

/// What a planted defect gives out.
fn planted(question: &Question<'_>) -> Option<IpAddr> {
    if question.defects.has(Defect::AllocateGateway) {
        return gateway(question.spec);
    }
    if question.defects.has(Defect::AllocateTaken) {
        return question.taken.iter().next().copied();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inclusterippool::ledger::Holder;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn spec(addresses: &[&str]) -> IPPoolSpec {
        let addresses = addresses.iter().map(|one| (*one).to_owned()).collect();
        IPPoolSpec { addresses, prefix: 24, gateway: Some("10.0.0.1".into()), ..IPPoolSpec::default() }
    }

    struct Case {
        spec: IPPoolSpec,
        ledger: Ledger,
        taken: BTreeSet<IpAddr>,
        elsewhere: BTreeMap<IpAddr, Elsewhere>,
        endpoints: BTreeMap<IpAddr, String>,
        wanted: Option<IpAddr>,
        defects: Defects,
    }

    impl Case {
        fn new(addresses: &[&str]) -> Self {
            Self {
                spec: spec(addresses),
                ledger: Ledger::default(),
                taken: BTreeSet::new(),
                elsewhere: BTreeMap::new(),
                endpoints: BTreeMap::new(),
                wanted: None,
                defects: Defects::none(),
            }
        }

        fn choose(&self, now: &str) -> Choice {
            let question = Question {
                spec: &self.spec,
                ledger: &self.ledger,
                taken: &self.taken,
                elsewhere: &self.elsewhere,
                endpoints: &self.endpoints,
                wanted: self.wanted,
                now: now.parse().unwrap(),
                defects: &self.defects,
            };
            choose(&question).unwrap()
        }
    }

    const NOON: &str = "2026-01-01T12:00:00Z";

    #[test]
    fn the_lowest_that_may_be_had() {
        let mut case = Case::new(&["10.0.0.0-10.0.0.5"]);
        case.spec.excluded_addresses = vec!["10.0.0.2".into()];
        case.endpoints.insert(ip("10.0.0.3"), "a".into());
        assert_eq!(case.choose(NOON), Choice::Take(ip("10.0.0.4")), "not the network, the gateway, the excluded one, the endpoint");
        case.taken.insert(ip("10.0.0.4"));
        assert_eq!(case.choose(NOON), Choice::Take(ip("10.0.0.5")));
        let holder = Holder { namespace: "n".into(), claim: "c".into(), uid: "u".into() };
        case.ledger = case.ledger.with(ip("10.0.0.5"), holder);
        assert_eq!(case.choose(NOON), Choice::Exhausted);
        case.spec.allocate_reserved_ip_addresses = Some(true);
        assert_eq!(case.choose(NOON), Choice::Take(ip("10.0.0.0")));
    }

    #[test]
    fn released_addresses_rest_and_the_longest_free_comes_first() {
        let mut case = Case::new(&["10.0.0.10-10.0.0.11"]);
        let (noon, later): (Timestamp, Timestamp) = (NOON.parse().unwrap(), "2026-01-01T12:00:03Z".parse().unwrap());
        let grace = grace(&case.spec);
        case.ledger = case.ledger.without(ip("10.0.0.11"), grace, noon).without(ip("10.0.0.10"), grace, later);
        let until = "2026-01-01T12:00:10Z".parse().unwrap();
        assert_eq!(case.choose("2026-01-01T12:00:09Z"), Choice::Rest { address: ip("10.0.0.11"), until });
        assert_eq!(case.choose("2026-01-01T12:00:10Z"), Choice::Take(ip("10.0.0.11")));
        case.spec.address_reuse_grace_period_seconds = Some(60);
        let until = "2026-01-01T12:01:00Z".parse().unwrap();
        assert_eq!(case.choose("2026-01-01T12:00:30Z"), Choice::Rest { address: ip("10.0.0.11"), until });
        case.spec.addresses = vec!["10.0.0.10-10.0.0.12".into()];
        assert_eq!(case.choose("2026-01-01T12:00:09Z"), Choice::Take(ip("10.0.0.12")), "one that was never used comes before all");
    }

    #[test]
    fn an_endpoint_goes_to_who_is_to_have_it_only() {
        let mut case = Case::new(&["10.0.0.10-10.0.0.12"]);
        case.endpoints.insert(ip("10.0.0.10"), "a".into());
        assert_eq!(case.choose(NOON), Choice::Take(ip("10.0.0.11")));
        case.wanted = Some(ip("10.0.0.10"));
        assert_eq!(case.choose(NOON), Choice::Take(ip("10.0.0.10")));
        case.ledger = case.ledger.without(ip("10.0.0.10"), grace(&case.spec), NOON.parse().unwrap());
        assert!(matches!(case.choose(NOON), Choice::Rest { .. }), "it rests like any other");
        case.taken.insert(ip("10.0.0.10"));
        assert_eq!(case.choose(NOON), Choice::Take(ip("10.0.0.11")), "a second machine beside the holder gets another one");
        case.wanted = Some(ip("10.9.9.9"));
        assert_eq!(case.choose(NOON), Choice::Take(ip("10.0.0.11")), "an endpoint outside the pool is nothing of the pool's");
    }

    #[test]
    fn what_another_pool_holds_or_lets_rest_is_not_given_out_here() {
        let mut case = Case::new(&["10.0.0.10-10.0.0.12"]);
        let (noon, until): (Timestamp, Timestamp) = (NOON.parse().unwrap(), "2026-01-01T12:00:30Z".parse().unwrap());
        case.elsewhere.insert(ip("10.0.0.10"), Elsewhere::Held { pool: "b".into(), holder: "n/c".into() });
        case.elsewhere.insert(ip("10.0.0.11"), Elsewhere::Rests { until });
        assert_eq!(case.choose(NOON), Choice::Take(ip("10.0.0.12")));
        case.taken.insert(ip("10.0.0.12"));
        assert_eq!(case.choose(NOON), Choice::Rest { address: ip("10.0.0.11"), until });
        case.ledger = case.ledger.without(ip("10.0.0.11"), grace(&case.spec), noon);
        assert_eq!(case.choose(NOON), Choice::Rest { address: ip("10.0.0.11"), until }, "the longer rest counts");
        assert_eq!(case.choose("2026-01-01T12:00:30Z"), Choice::Take(ip("10.0.0.11")));
        case.elsewhere.insert(ip("10.0.0.11"), Elsewhere::Held { pool: "b".into(), holder: "n/d".into() });
        assert_eq!(case.choose("2026-01-01T12:00:30Z"), Choice::Exhausted);
    }

    #[test]
    fn defects_break_the_rule() {
        let mut case = Case::new(&["10.0.0.10-10.0.0.12"]);
        case.taken.insert(ip("10.0.0.10"));
        case.defects = Defects::planted([Defect::AllocateTaken]);
        assert_eq!(case.choose(NOON), Choice::Take(ip("10.0.0.10")));
        case.defects = Defects::planted([Defect::AllocateGateway]);
        assert_eq!(case.choose(NOON), Choice::Take(ip("10.0.0.1")));
    }

    #[test]
    fn huge_pools_cost_nothing() {
        let mut case = Case::new(&["fd00::/64"]);
        case.spec.prefix = 64;
        case.spec.gateway = Some("fd00::1".into());
        assert_eq!(case.choose(NOON), Choice::Take(ip("fd00::2")));
    }
}
