//! The ledger of a pool: which claim holds which address, and since when released addresses rest. Kept in an annotation of the pool.
//!
//! Why it is safe: an address is written into the ledger, under the pool's resourceVersion, *before* its IPAddress is made, and taken out only
//! after that IPAddress is gone. So two claims (or two processes) that choose the same address cannot both write; a process that
//! dies in between finds its entry again by the claim's uid; and an entry whose claim is gone is returned, never given on at once.
//! IPAddress objects count as taken as well, so that a ledger that somebody has thrown away costs the rests, never an address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::ipam::IPAddressClaim;
use api::names::annotations;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// So many released addresses are remembered beyond those that rest; older ones count as never used.
const REMEMBERED: usize = 256;

/// The claim that holds an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    #[serde(rename = "ns")]
    pub namespace: String,
    pub claim: String,
    pub uid: String,
}

impl Holder {
    /// The claim as a holder.
    pub fn of(claim: &IPAddressClaim) -> Self {
        let meta = &claim.metadata;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Self { namespace: text(&meta.namespace), claim: text(&meta.name), uid: text(&meta.uid) }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.claim)
    }
}

/// The ledger of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Addresses and the claims that hold them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<IpAddr, Holder>,
    /// Addresses and when they were released.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub released: BTreeMap<IpAddr, Timestamp>,
}

impl Ledger {
    /// The ledger that a pool carries. One that cannot be read counts as empty.
    pub fn of(pool: &ObjectMeta) -> Self {
        let text = pool.annotations.as_ref().and_then(|known| known.get(annotations::POOL_LEDGER));
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// The text of the annotation.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The address that a claim holds.
    pub fn of_claim(&self, uid: &str) -> Option<IpAddr> {
        self.held.iter().find(|(_, holder)| holder.uid == uid).map(|(address, _)| *address)
    }

    /// The same ledger with an address given to a claim.
    #[must_use]
    pub fn with(mut self, address: IpAddr, holder: Holder) -> Self {
        self.released.remove(&address);
        self.held.insert(address, holder);
        self
    }

    /// The same ledger with an address returned, resting from `now` on. A part of a second counts as a whole one: a rest is never short.
    #[must_use]
    pub fn without(mut self, address: IpAddr, grace: SignedDuration, now: Timestamp) -> Self {
        self.held.remove(&address);
        self.released.insert(address, whole_second(now));
        self.forget(grace, now);
        self
    }

    /// Forgets the oldest releases; those that still rest stay.
    fn forget(&mut self, grace: SignedDuration, now: Timestamp) {
        if self.released.len() <= REMEMBERED {
            return;
        }
        let mut by_age: Vec<(Timestamp, IpAddr)> = self.released.iter().map(|(address, at)| (*at, *address)).collect();
        by_age.sort();
        let too_many = by_age.len() - REMEMBERED;
        for (at, address) in by_age.into_iter().take(too_many) {
            if rests_until(at, grace) <= now {
                self.released.remove(&address);
            }
        }
    }
}

fn whole_second(now: Timestamp) -> Timestamp {
    let seconds = now.as_second() + i64::from(now.subsec_nanosecond() > 0);
    Timestamp::from_second(seconds).unwrap_or(now)
}

/// When an address that was released at a time may be given out again.
pub fn rests_until(released: Timestamp, grace: SignedDuration) -> Timestamp {
    released.checked_add(grace).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(uid: &str) -> Holder {
        Holder { namespace: "n".into(), claim: "c".into(), uid: uid.into() }
    }

    #[test]
    fn a_ledger_reads_what_it_wrote() {
        let now: Timestamp = "2026-01-01T00:00:00.5Z".parse().unwrap();
        let (first, second): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        let grace = SignedDuration::from_secs(10);
        let ledger = Ledger::default().with(first, holder("u")).with(second, holder("v")).without(second, grace, now);
        let carried = BTreeMap::from([(annotations::POOL_LEDGER.to_owned(), ledger.to_text())]);
        let meta = ObjectMeta { annotations: Some(carried), ..ObjectMeta::default() };
        assert_eq!(Ledger::of(&meta), ledger);
        assert_eq!(ledger.of_claim("u"), Some(first));
        assert_eq!(ledger.released[&second].to_string(), "2026-01-01T00:00:01Z");
    }

    #[test]
    fn only_old_releases_are_forgotten() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let grace = SignedDuration::from_secs(10_000);
        let mut ledger = Ledger::default();
        for number in 0..600_u32 {
            let address = IpAddr::V4((0x0a00_0000 + number).into());
            let now = start + SignedDuration::from_secs(i64::from(number));
            ledger = ledger.with(address, holder("u")).without(address, grace, now);
        }
        assert_eq!(ledger.released.len(), 600, "all of them rest");
        let later = start + SignedDuration::from_secs(20_000);
        let address = IpAddr::V4(0x0a00_ffff.into());
        assert_eq!(ledger.without(address, grace, later).released.len(), REMEMBERED);
    }
}
