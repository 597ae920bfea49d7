//! The engine's worlds as tests use them: what cannot be set up panics, and a world that ends with a broken rule fails its test, unless
//! the test has asked for the findings itself.

use std::future::Future;
use std::ops::{Deref, DerefMut};

use simulator::rules::{Checker, Violation};
pub use talosphere::explore::{PATIENCE, Setup};

/// How many of the last log lines are shown with a broken rule.
const TAIL: usize = 60;

/// A running world.
pub struct World {
    world: talosphere::explore::World,
    /// Whether the end of the world must find no rule broken.
    is_guarded: bool,
}

impl Deref for World {
    type Target = talosphere::explore::World;

    fn deref(&self) -> &Self::Target {
        &self.world
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.world
    }
}

/// Runs `body` on a runtime of its own: one thread, paused time, a seeded scheduler.
pub fn run<T>(seed: u64, body: impl Future<Output = T>) -> T {
    talosphere::explore::run(seed, body).unwrap()
}

impl World {
    /// Starts everything.
    pub async fn start(setup: &Setup) -> Self {
        let world = talosphere::explore::World::start(setup).await.unwrap_or_else(|problem| panic!("{problem}"));
        Self { world, is_guarded: setup.is_checked }
    }

    /// The checker that looks on.
    pub fn checker(&self) -> &Checker {
        self.watch.checker().unwrap()
    }

    /// Ends the controllers and the API server at once, wherever they are, and starts new ones on the same journal.
    pub async fn restart(&mut self) {
        self.world.restart().await.unwrap_or_else(|problem| panic!("{problem}"));
    }

    /// Everything that the checker has found, with nothing under way any more. From here on the test answers for it.
    pub fn findings(&mut self) -> Vec<Violation> {
        self.is_guarded = false;
        self.world.findings()
    }
}

impl Drop for World {
    #[allow(clippy::print_stderr)] // the evidence beside a failure that has another cause
    fn drop(&mut self) {
        if !self.is_guarded {
            return;
        }
        let found: Vec<String> = self.findings().iter().map(ToString::to_string).collect();
        if found.is_empty() {
            return;
        }
        let entries = self.seams.log.entries();
        let tail: String = entries.iter().skip(entries.len().saturating_sub(TAIL)).map(|entry| format!("{entry}\n")).collect();
        let text = format!("rules are broken: {found:#?}\n{tail}");
        // A test that has failed already says so; a second panic would hide it.
        assert!(std::thread::panicking(), "{text}");
        eprintln!("{text}");
    }
}
