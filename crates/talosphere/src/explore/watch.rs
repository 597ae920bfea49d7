//! The rule checker beside a world: it sees the world's truth after every event, every line of the log and the terminal, and every write
//! that the management server acknowledged.
//!
//! It is on in every world but those that measure what the product costs without it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use apiserver::ApiServer;
use runtime::clock::Clock;
use runtime::log::Log;
use simulator::Simulator;
use simulator::rules::{Checker, Violation};

use crate::commands::demo::Material;
use crate::output::Printer;

/// How often a world is asked whether something was found.
const GLANCE: Duration = Duration::from_millis(100);

/// A checker that a printer can be made for before there is a world.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<OnceLock<Checker>>);

impl Watch {
    /// A printer whose every line the checker sees.
    pub fn printer(&self, clock: Clock) -> Printer {
        let checker = self.0.clone();
        Printer::tapped(clock, move |line| {
            if let Some(checker) = checker.get() {
                checker.saw_text("terminal", line);
            }
        })
    }

    /// Begins with the world as it is now. What is there belongs to others.
    pub fn begin(&self, clock: Clock, log: &Log, simulator: &Arc<Simulator>, material: &Material) {
        let checker = self.0.get_or_init(|| Checker::new(clock, &simulator.truth()));
        checker.learn_secret("the vCenter password", &material.login.password);
        checker.follow(log, simulator);
    }

    /// The checker, where one looks on.
    pub fn checker(&self) -> Option<&Checker> {
        self.0.get()
    }

    /// A management server was opened on an empty journal, or again on one that another had written.
    pub fn opened(&self, server: &ApiServer, is_again: bool) {
        let Some(checker) = self.0.get().cloned() else { return };
        if is_again {
            checker.restarted(&server.snapshot());
        } else {
            checker.existing(&server.snapshot());
        }
        server.on_acknowledged(move |write| checker.acknowledged(write));
    }

    /// What was found so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.checker().map(Checker::violations).unwrap_or_default()
    }

    /// Returns when the first violation was found.
    pub async fn found(&self, clock: &Clock) -> Vec<Violation> {
        loop {
            let found = self.violations();
            if !found.is_empty() {
                return found;
            }
            clock.sleep(GLANCE).await;
        }
    }
}
