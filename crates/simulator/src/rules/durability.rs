//! Rule 8: an acknowledged write is there after a restart.

use std::collections::BTreeMap;

use serde_json::Value;

use super::objects::{Key, text};
use super::{Violation, violation};

/// The last acknowledged state of an object.
#[derive(Clone, Debug)]
struct State {
    uid: String,
    /// Absent: it was deleted.
    version: Option<u64>,
    kind: String,
}

/// What was acknowledged, by API version's group, kind, namespace and name.
#[derive(Debug, Default)]
pub(super) struct Memory(BTreeMap<Key, State>);

fn version(object: &Value) -> u64 {
    text(object, "/metadata/resourceVersion").parse().unwrap_or(0)
}

impl Memory {
    pub fn wrote(&mut self, key: &Key, after: Option<&Value>, before: Option<&Value>) {
        let Some(object) = after.or(before) else { return };
        let state =
            State { uid: text(object, "/metadata/uid").to_owned(), version: after.map(version), kind: text(object, "/kind").to_owned() };
        self.0.insert(key.clone(), state);
    }

    /// The server holds `objects` after a restart.
    pub fn restarted(&mut self, objects: &[Value]) -> Vec<Violation> {
        let by_uid: BTreeMap<&str, &Value> = objects.iter().map(|object| (text(object, "/metadata/uid"), object)).collect();
        let mut found = Vec::new();
        for (key, state) in &self.0 {
            let held = by_uid.get(state.uid.as_str()).filter(|_| !state.uid.is_empty());
            let what = format!("{} {}/{}", state.kind, key.namespace, key.name);
            match (state.version, held) {
                (Some(acknowledged), None) => {
                    found.push(violation(8, "an acknowledged write is gone after a restart", format!("{what} at revision {acknowledged}")));
                }
                (Some(acknowledged), Some(object)) if version(object) < acknowledged => {
                    let evidence = format!("{what}: acknowledged at revision {acknowledged}, held at {}", version(object));
                    found.push(violation(8, "an acknowledged write is gone after a restart", evidence));
                }
                (None, Some(object)) => {
                    found.push(violation(
                        8,
                        "an acknowledged deletion is undone after a restart",
                        format!("{what} at revision {}", version(object)),
                    ));
                }
                _ => {}
            }
        }
        // From here on the server's own word counts.
        self.0.retain(|_, state| by_uid.contains_key(state.uid.as_str()));
        found
    }
}
