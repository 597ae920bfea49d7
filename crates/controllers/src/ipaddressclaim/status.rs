//! The status of a claim: its address, and a Ready condition that upstream does not have, so that a wait says on what and until when. Pure.

use api::conditions::{self, New};
use api::ipam::{IPAddressClaim, IPAddressClaimStatus};
use api::meta::NameReference;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::plan::Outcome;

/// Type of the condition.
pub const READY: &str = "Ready";

/// The new status; what nothing is said about stays.
pub fn status(claim: &IPAddressClaim, pool: &str, outcome: &Outcome, now: Timestamp) -> IPAddressClaimStatus {
    let mut status = claim.status.clone().unwrap_or_default();
    if let Outcome::Allocated(_) = outcome {
        status.address_ref = Some(NameReference { name: claim.name_any() });
    }
    if let Some(new) = condition(pool, outcome) {
        conditions::set(&mut status.conditions, new, claim.metadata.generation, now);
    }
    status
}

fn condition(pool: &str, outcome: &Outcome) -> Option<New<'static>> {
    let not = |reason, message: String| Some(conditions::new(READY, false, reason, message));
    match outcome {
        Outcome::Silent => None,
        Outcome::Allocated(address) => Some(conditions::new(READY, true, "AddressAllocated", format!("{address} from {pool}"))),
        Outcome::NoPool => not("PoolNotFound", format!("{pool} does not exist: the claim gets its address when it is created")),
        Outcome::Unreadable(why) => not("PoolInvalid", format!("{pool} cannot be read: {why}")),
        Outcome::Resting { address, until } => {
            let message =
                format!("waiting for {address} of {pool} to have rested until {}: it was released shortly before", until.strftime("%T"));
            not("WaitingForReleasedAddress", message)
        }
        Outcome::Exhausted(holders) => not(
            "PoolExhausted",
            format!("{pool} has no free address: {holders}. Add addresses to its spec.addresses, or delete what holds them"),
        ),
        Outcome::InUse(finalizers) => {
            not("InUse", format!("being deleted, but its address is still in use: waiting for {} to be taken off", finalizers.join(", ")))
        }
    }
}
