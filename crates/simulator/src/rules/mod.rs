//! The rule checker: reads the world's truth after every event and says which safety rule is broken.
//!
//! It is independent of what it checks. It sees the simulated world as it is, never a controller's opinion, and two taps beside it: the
//! writes that the management server acknowledged ([`Checker::acknowledged`]) and every text that leaves the system
//! ([`Checker::saw_text`]). Rules 1 to 5, 7 to 10 and 12 of the design are checked here; what a person did to the world by hand is told to
//! it ([`Checker::person_acted`]) and not held against anybody.
//!
//! ```text
//!            truth ──► etcd (1)  quorum (2)  ownership (3, 4, 12)  addresses (5)  drains (9)
//!   acknowledgements ──► addresses (5)  secrets (7)  durability (8)  surge (10)  ──► violations, each once
//!            texts ──► secrets (7)
//! ```

mod addresses;
mod drains;
mod durability;
mod etcd;
mod objects;
mod ownership;
mod quorum;
mod ranges;
mod secrets;
mod surge;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use apiserver::Acknowledged;
use runtime::clock::Clock;
use runtime::log::Log;
use serde_json::Value;

use crate::{Simulator, Truth};
use objects::Objects;

/// What the simulator's log says of a person's acts.
const BY_HAND: &str = "by hand";

/// A safety rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Its number in the design.
    pub rule: u8,
    /// What is wrong, in a sentence.
    pub what: String,
    /// Where it is seen.
    pub evidence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}: {} ({})", self.rule, self.what, self.evidence)
    }
}

fn violation(rule: u8, what: impl Into<String>, evidence: impl Into<String>) -> Violation {
    Violation { rule, what: what.into(), evidence: evidence.into() }
}

/// Watches one world and one management server. Cheap to clone; clones share what was seen.
#[derive(Clone)]
pub struct Checker {
    clock: Clock,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    objects: Objects,
    etcd: etcd::Memory,
    quorum: quorum::Memory,
    ownership: ownership::Memory,
    addresses: addresses::Memory,
    drains: drains::Memory,
    secrets: secrets::Memory,
    durability: durability::Memory,
    surge: surge::Memory,
    found: BTreeSet<Violation>,
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checker")
    }
}

impl Checker {
    /// A checker of the world as it is now: what is there belongs to others.
    pub fn new(clock: Clock, start: &Truth) -> Self {
        let mut seen = Seen::default();
        seen.ownership.accept(start);
        Self { clock, seen: Arc::new(Mutex::new(seen)) }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write that the management server acknowledged: to be handed every one, in order.
    pub fn acknowledged(&self, write: &Acknowledged) {
        let object = write.value.clone();
        let now = self.clock.now();
        let mut seen = self.seen();
        let seen = &mut *seen;
        let key = objects::Key::of(write);
        let before = seen.objects.get(&key).cloned();
        let mut found = Vec::new();
        found.extend(seen.addresses.wrote(&seen.objects, &key, before.as_deref(), object.as_deref(), now));
        found.extend(seen.secrets.wrote(&seen.objects, &key, before.as_deref(), object.as_deref()));
        found.extend(seen.ownership.wrote(&seen.objects, &key, before.as_deref(), object.as_deref()));
        seen.durability.wrote(&key, object.as_deref(), before.as_deref());
        seen.objects.put(key.clone(), object.clone());
        found.extend(seen.surge.wrote(&seen.objects, &key, before.as_deref(), object.as_deref(), now));
        seen.found.extend(found);
    }

    /// Objects that were there before the checker: a server's snapshot.
    pub fn existing(&self, objects: &[Value]) {
        let mut seen = self.seen();
        for object in objects {
            seen.secrets.learn(object);
            seen.objects.put_value(object.clone());
        }
    }

    /// A text that leaves the system: a line of a log, a terminal, an event. `source` says where it was seen.
    pub fn saw_text(&self, source: &str, text: &str) {
        let mut seen = self.seen();
        let found = seen.secrets.saw(source, text);
        seen.found.extend(found);
    }

    /// A secret that must not be seen anywhere: a password of the world, a key. `what` names it in a violation; the value is never shown.
    pub fn learn_secret(&self, what: &str, value: &str) {
        self.seen().secrets.add(what, value);
    }

    /// A person changed the world by hand: it is taken as it is now.
    pub fn person_acted(&self, truth: &Truth) {
        let mut seen = self.seen();
        seen.ownership.accept(truth);
        seen.drains.accept(truth);
        seen.quorum.accept(truth);
    }

    /// A person changes an object of the management server by hand: its next write is taken as it comes. `resource` is its plural name.
    pub fn person_writes(&self, resource: &str, namespace: &str, name: &str) {
        let mut seen = self.seen();
        seen.ownership.expect(resource, namespace, name);
        let group = if resource == "machines" { "cluster.x-k8s.io" } else { "" };
        seen.surge.expect(objects::Key {
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        });
    }

    /// The management server was started again and holds `objects` now: every acknowledged write must be among them.
    pub fn restarted(&self, objects: &[Value]) {
        let mut seen = self.seen();
        let found = seen.durability.restarted(objects);
        seen.found.extend(found);
        seen.objects.replace(objects);
    }

    /// The world after an event. Returns what is new.
    pub fn check(&self, truth: &Truth) -> Vec<Violation> {
        let mut seen = self.seen();
        let seen = &mut *seen;
        let mut found = seen.etcd.check(&truth.nodes);
        found.extend(seen.quorum.check(truth, &seen.objects));
        found.extend(seen.ownership.check(truth));
        found.extend(addresses::check(truth));
        found.extend(seen.drains.check(truth, &seen.objects, self.clock.now()));
        seen.secrets.look_at(truth);
        let mut new = Vec::new();
        for violation in found {
            if seen.found.insert(violation.clone()) {
                new.push(violation);
            }
        }
        new
    }

    /// The world at rest: nothing is under way. Returns everything that was ever found.
    pub fn check_at_rest(&self, truth: &Truth) -> Vec<Violation> {
        self.check(truth);
        let mut seen = self.seen();
        let found = ownership::at_rest(truth, &seen.objects);
        seen.found.extend(found);
        seen.found.iter().cloned().collect()
    }

    /// Rule 11: what should have come about by now has not. Who drives the world knows when that is.
    pub fn unsettled(&self, what: &str, evidence: &str) {
        self.seen().found.insert(violation(11, what, evidence));
    }

    /// Everything that was found so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.seen().found.iter().cloned().collect()
    }

    /// Lets every line of the log pass the checker and the world be checked after it: each event of the simulator is such a line.
    pub fn follow(&self, log: &Log, simulator: &Arc<Simulator>) {
        let (checker, simulator): (Self, Weak<Simulator>) = (self.clone(), Arc::downgrade(simulator));
        log.tap(move |entry| {
            checker.saw_text("log", &entry.to_string());
            if let Some(simulator) = simulator.upgrade() {
                let truth = simulator.truth();
                if entry.result == BY_HAND {
                    checker.seen().quorum.accept(&truth);
                }
                checker.check(&truth);
            }
        });
    }
}

#[cfg(test)]
mod tests;
