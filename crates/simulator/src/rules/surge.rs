//! Rule 10: surge and unavailability stay inside their limits, and so does every number of replicas that is told.
//!
//! The limits are worked out here from what the user wrote. A controller may act on what was wanted a moment ago, so the largest and the
//! smallest number that was wanted lately count. What a person deletes is nobody's unavailability.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::objects::{Key, Objects, is_deleting, text};
use super::{Violation, violation};

const GROUP: &str = "cluster.x-k8s.io";
const CONTROL_PLANE_GROUP: &str = "controlplane.cluster.x-k8s.io";
/// For how long what was wanted, or seen, before may still be acted upon.
const LATELY: SignedDuration = SignedDuration::from_secs(60);

/// What was seen before.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Wanted replicas since when, the latest last.
    wanted: BTreeMap<Key, Vec<(Timestamp, i64)>>,
    /// How many Machines there were since when.
    there: BTreeMap<Key, Vec<(Timestamp, i64)>>,
    /// When a Machine was last available.
    available: BTreeMap<Key, Timestamp>,
    /// Machines that a person deletes.
    expected: BTreeSet<Key>,
}

fn replicas(object: &Value) -> i64 {
    object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1)
}

fn label<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.pointer("/metadata/labels")?.get(name)?.as_str()
}

/// Values that were in force lately, the one before the first recent change among them.
fn lately(known: &[(Timestamp, i64)], now: Timestamp) -> impl Iterator<Item = i64> + Clone {
    let first = known.iter().position(|(since, _)| now.duration_since(*since) <= LATELY).unwrap_or(known.len());
    known.iter().skip(first.saturating_sub(1)).map(|(_, value)| *value)
}

fn is_available(machine: &Value) -> bool {
    let conditions = machine.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.into_iter().any(|condition| text(condition, "/type") == "Available" && text(condition, "/status") == "True")
}

/// `1`, `25%` of a number, rounded up or down.
fn resolved(value: Option<&Value>, of: i64, is_up: bool, default: i64) -> i64 {
    match value {
        Some(Value::Number(number)) => number.as_i64().unwrap_or(default),
        Some(Value::String(text)) => match text.strip_suffix('%').and_then(|share| share.parse::<i64>().ok()) {
            Some(share) => (of * share + if is_up { 99 } else { 0 }) / 100,
            None => text.parse().unwrap_or(default),
        },
        _ => default,
    }
}

/// How many more, and how many fewer available, than wanted.
fn limits(owner: &Value, wanted: i64) -> (i64, i64) {
    let rolling = |name: &str| owner.pointer(&format!("/spec/rollout/strategy/rollingUpdate/{name}"));
    (resolved(rolling("maxSurge"), wanted, true, 1), resolved(rolling("maxUnavailable"), wanted, false, 0))
}

/// Whom a Machine is one of the replicas of.
fn owner_of(objects: &Objects, key: &Key, machine: &Value) -> Option<Key> {
    let of = |group: &str, resource: &str, name: &str| Key {
        group: group.to_owned(),
        resource: resource.to_owned(),
        namespace: key.namespace.clone(),
        name: name.to_owned(),
    };
    if let Some(name) = label(machine, "cluster.x-k8s.io/deployment-name") {
        return Some(of(GROUP, "machinedeployments", name));
    }
    label(machine, "cluster.x-k8s.io/control-plane")?;
    let cluster = text(machine, "/spec/clusterName");
    let mut planes = objects.list(CONTROL_PLANE_GROUP, "taloscontrolplanes");
    let is_its = |plane: &Value| label(plane, "cluster.x-k8s.io/cluster-name") == Some(cluster);
    planes.find(|(other, plane)| other.namespace == key.namespace && is_its(plane)).map(|(key, _)| key.clone())
}

impl Memory {
    /// A person deletes a Machine.
    pub fn expect(&mut self, key: Key) {
        self.expected.insert(key);
    }

    /// The largest and the smallest number that were wanted lately.
    fn wanted(&self, owner: &Key, now: Timestamp) -> Option<(i64, i64)> {
        let recent = lately(self.wanted.get(owner)?, now);
        Some((recent.clone().max()?, recent.min()?))
    }

    /// The largest number that was ever wanted, with the surge, or how many there were lately if that is more.
    fn most(&self, objects: &Objects, owner: &Key, now: Timestamp) -> Option<i64> {
        let ever = self.wanted.get(owner)?.iter().map(|(_, wanted)| *wanted).max()?;
        let surge = objects.get(owner).map_or(1, |object| limits(object, ever).0);
        let there = self.there.get(owner).and_then(|known| lately(known, now).max()).unwrap_or(0);
        Some((ever + surge).max(there))
    }

    /// Counts the Machines of an owner anew.
    fn count(&mut self, objects: &Objects, owner: &Key, now: Timestamp) {
        let there = i64::try_from(members(objects, owner).count()).unwrap_or(i64::MAX);
        let known = self.there.entry(owner.clone()).or_default();
        if known.last().is_none_or(|(_, count)| *count != there) {
            known.push((now, there));
        }
    }

    pub fn wrote(&mut self, objects: &Objects, key: &Key, before: Option<&Value>, after: Option<&Value>, now: Timestamp) -> Vec<Violation> {
        let mut found = Vec::new();
        let is_owner = key.is(GROUP, "machinedeployments") || key.is(CONTROL_PLANE_GROUP, "taloscontrolplanes");
        if let Some(object) = after.filter(|_| is_owner) {
            let known = self.wanted.entry(key.clone()).or_default();
            if known.last().is_none_or(|(_, wanted)| *wanted != replicas(object)) {
                known.push((now, replicas(object)));
            }
        }
        if let Some(object) = after.filter(|_| is_owner || key.is(GROUP, "machinesets")) {
            found.extend(self.told(objects, key, object, now));
        }
        if key.is(GROUP, "machines") {
            found.extend(self.machine(objects, key, before, after, now));
        }
        found
    }

    fn machine(&mut self, objects: &Objects, key: &Key, before: Option<&Value>, after: Option<&Value>, now: Timestamp) -> Vec<Violation> {
        let mut found = Vec::new();
        if let Some(owner) = after.or(before).and_then(|machine| owner_of(objects, key, machine)) {
            self.count(objects, &owner, now);
        }
        let was_available = self.available.get(key).is_some_and(|at| now.duration_since(*at) <= LATELY);
        if before.is_some_and(is_available) {
            self.available.insert(key.clone(), now);
        }
        let Some(machine) = after else {
            self.available.remove(key);
            self.expected.remove(key);
            return found;
        };
        let Some(owner) = owner_of(objects, key, machine) else { return found };
        let Some(object) = objects.get(&owner).filter(|object| !is_deleting(object)) else { return found };
        let Some((most, least)) = self.wanted(&owner, now) else { return found };
        let staying: Vec<(&Key, &Value)> =
            members(objects, &owner).filter(|(other, machine)| *other != key && !is_deleting(machine)).collect();
        if before.is_none() {
            let (surge, _) = limits(object, most);
            let count = i64::try_from(staying.len()).unwrap_or(i64::MAX) + 1;
            if count > most + surge {
                found.push(violation(
                    10,
                    "more machines were made than surge allows",
                    format!("{owner}: {count}, wanted {most}, surge {surge}"),
                ));
            }
        }
        let is_going = before.is_some_and(|before| !is_deleting(before) && is_available(before)) && is_deleting(machine);
        if is_going
            && was_available
            && !self.expected.contains(key)
            && owner.is(GROUP, "machinedeployments")
            && !is_cluster_going(objects, machine)
        {
            let (_, unavailable) = limits(object, least);
            let is_left = |(key, machine): &(&Key, &Value)| {
                is_available(machine) || self.available.get(key).is_some_and(|at| now.duration_since(*at) <= LATELY)
            };
            let left = i64::try_from(staying.iter().filter(|one| is_left(one)).count()).unwrap_or(0);
            if left < least - unavailable {
                let evidence = format!("{key}: {left} of {owner} are left, wanted {least}, unavailable at most {unavailable}");
                found.push(violation(10, "a machine was taken away that is missed", evidence));
            }
        }
        found
    }

    /// Numbers in a status, and in the messages of its conditions.
    fn told(&self, objects: &Objects, key: &Key, object: &Value, now: Timestamp) -> Vec<Violation> {
        let owner = if key.resource == "machinesets" {
            label(object, "cluster.x-k8s.io/deployment-name").map(|name| Key {
                group: GROUP.to_owned(),
                resource: "machinedeployments".to_owned(),
                namespace: key.namespace.clone(),
                name: name.to_owned(),
            })
        } else {
            Some(key.clone())
        };
        let Some(most) = owner.and_then(|owner| self.most(objects, &owner, now)) else { return Vec::new() };
        let mut told = Vec::new();
        numbers(object.get("status").unwrap_or(&Value::Null), "", &mut told);
        let bad = told.into_iter().filter(|(_, number)| !(0..=most).contains(number));
        bad.map(|(place, number)| {
            violation(10, "a number of replicas is told that cannot be", format!("{key}: {place} {number}, at most {most}"))
        })
        .collect()
    }
}

fn members<'a>(objects: &'a Objects, owner: &'a Key) -> impl Iterator<Item = (&'a Key, &'a Value)> {
    objects.list(GROUP, "machines").filter(move |(key, machine)| owner_of(objects, key, machine).as_ref() == Some(owner))
}

fn is_cluster_going(objects: &Objects, machine: &Value) -> bool {
    let name = text(machine, "/spec/clusterName");
    objects.list(GROUP, "clusters").find(|(key, _)| key.name == name).is_none_or(|(_, cluster)| is_deleting(cluster))
}

/// Every number of replicas below a value, with where it stands.
fn numbers(value: &Value, name: &str, told: &mut Vec<(String, i64)>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                numbers(inner, key, told);
            }
        }
        Value::Array(list) => {
            for inner in list {
                numbers(inner, name, told);
            }
        }
        Value::Number(number) if name.to_lowercase().ends_with("replicas") => {
            // What is no whole number that fits is no number of replicas either.
            told.push((name.to_owned(), number.as_i64().unwrap_or(i64::MAX)));
        }
        Value::String(text) if name == "message" => told.extend(counts(text).map(|number| (format!("{text:?}"), number))),
        _ => {}
    }
}

/// Numbers in a text that count replicas or machines: `2 of 3`, `4 replicas`, `1 machine`.
fn counts(text: &str) -> impl Iterator<Item = i64> {
    let words: Vec<&str> = text.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric() && c != '-')).collect();
    let is_counted = |word: Option<&&str>| {
        word.is_some_and(|word| matches!(word.to_lowercase().as_str(), "replica" | "replicas" | "machine" | "machines"))
    };
    let number =
        |word: Option<&&str>| word.and_then(|word| word.parse::<i128>().ok()).map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    let mut found = Vec::new();
    for at in 0..words.len() {
        let Some(first) = number(words.get(at)) else { continue };
        match (words.get(at + 1), number(words.get(at + 2))) {
            (Some(&"of"), Some(second)) if is_counted(words.get(at + 3)) => found.extend([first, second]),
            (next, _) if is_counted(next) => found.push(first),
            _ => {}
        }
    }
    found.dedup();
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_replicas_are_found_in_texts() {
        for (text, expected) in [
            ("2 of 3 machines are up to date, 41 MiB behind", vec![2, 3]),
            ("Minimum availability requires 3 replicas, current 824648306132 available", vec![3]),
            ("scaling up to -4 replicas; 12:03", vec![-4]),
            ("1 of 7 budgets; 99999999999999999999999 machines", vec![i64::MAX]),
            ("nothing", vec![]),
        ] {
            assert_eq!(counts(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn limits_are_numbers_or_shares() {
        let share = |text: &str, is_up| resolved(Some(&Value::String(text.to_owned())), 3, is_up, 9);
        assert_eq!((share("25%", true), share("25%", false), share("2", true)), (1, 0, 2));
        assert_eq!((resolved(None, 3, true, 1), resolved(Some(&Value::from(0)), 3, true, 1)), (1, 0));
    }
}
