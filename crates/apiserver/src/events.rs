//! Events through two groups: `v1` and `events.k8s.io/v1` show the same objects, under other names of fields.
//!
//! They are stored as `v1` has them, which `kubectl describe` selects by. `events.k8s.io/v1` is what recorders of today write. A field that
//! only one of them knows is kept under the name the other one gives it (`deprecated...`), so that nothing is lost on the way.

use serde_json::{Map, Value};

const VIEW: &str = "events.k8s.io/v1";

/// Names of the same field: in `v1`, in `events.k8s.io/v1`.
const FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn rename(object: Value, api_version: &str, name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(map) = object else { return object };
    let mut out = Map::with_capacity(map.len());
    for (key, value) in map {
        match name(&key) {
            _ if key == "apiVersion" => drop(out.insert(key, Value::String(api_version.to_owned()))),
            Some(renamed) => drop(out.insert(renamed.to_owned(), value)),
            None => drop(out.insert(key, value)),
        }
    }
    Value::Object(out)
}

/// A stored event as `events.k8s.io/v1` shows it.
pub fn to_view(stored: Value) -> Value {
    rename(stored, VIEW, |key| FIELDS.iter().find(|(core, _)| *core == key).map(|(_, view)| *view))
}

/// An event of `events.k8s.io/v1` as it is stored.
pub fn to_stored(view: Value) -> Value {
    rename(view, "v1", |key| FIELDS.iter().find(|(_, view)| *view == key).map(|(core, _)| *core))
}

/// Fills in what a stored event must have so that tables and `describe` can show it.
pub fn default(stored: &mut Value) {
    let Some(map) = stored.as_object_mut() else { return };
    for field in ["source", "involvedObject", "metadata"] {
        map.entry(field).or_insert_with(|| Value::Object(Map::new()));
    }
    for (field, empty) in [("firstTimestamp", Value::Null), ("lastTimestamp", Value::Null), ("eventTime", Value::Null)] {
        map.entry(field).or_insert(empty);
    }
    for field in ["reportingComponent", "reportingInstance"] {
        map.entry(field).or_insert_with(|| Value::String(String::new()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_survives_both_views() {
        let view = json!({"apiVersion": VIEW, "kind": "Event", "metadata": {"name": "a"}, "regarding": {"kind": "Pod", "name": "p"}, "note": "n",
            "reason": "R", "reportingController": "c", "eventTime": "2026-01-01T00:00:00.000000Z", "deprecatedCount": 2});
        let stored = to_stored(view.clone());
        assert_eq!(stored["involvedObject"]["name"], "p");
        assert_eq!(stored["apiVersion"], "v1");
        assert_eq!((stored["message"].as_str(), stored["count"].as_u64()), (Some("n"), Some(2)));
        assert_eq!(to_view(stored), view);
    }
}
