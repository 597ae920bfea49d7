//! Seeded sources: the one place outside of tests where they are made.
#![expect(clippy::disallowed_methods, reason = "worlds are what seeded sources are for")]

use std::sync::Arc;

use runtime::clock::Clock;
use runtime::keys::Prepared;
use runtime::log::Log;
use runtime::random::Random;
use runtime::tls::Tls;

use super::watch::Watch;
use super::world::{BEGINNING, Setup};
use crate::environment::Environment;
use crate::problem::{Code, Problem};
use crate::seams::Seams;

/// What a seed draws.
pub fn random(seed: u64) -> Random {
    Random::seeded(seed)
}

/// The seams of one world, with the time that it begins at. Must be called inside its runtime.
///
/// # Errors
/// Never: [`BEGINNING`] is a time.
pub(super) fn seams(setup: &Setup, watch: &Watch) -> Result<Seams, Problem> {
    let beginning = BEGINNING.parse().map_err(|error: jiff::Error| Problem::new(Code::Internal, error.to_string()))?;
    let clock = Clock::starting_at(beginning);
    let random = random(setup.seed);
    Ok(Seams {
        log: Log::keeping(clock.clone()),
        defects: setup.defects.clone(),
        keys: Arc::new(Prepared::new(random.child("keys"))),
        tls: Tls::clear(clock.clone()),
        dialer: Arc::new(runtime::net::MemoryNetwork::default()),
        proxy: None,
        environment: Environment::default(),
        printer: watch.printer(clock.clone()),
        clock,
        random,
    })
}
