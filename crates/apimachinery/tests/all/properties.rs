//! Properties that hold for every input of a shape.

use std::collections::BTreeMap;

use apimachinery::cel::Expression;
use apimachinery::gvk::GroupKind;
use apimachinery::schema::Schema;
use apimachinery::selector::{FieldSelector, LabelSelector};
use apimachinery::{patch, protobuf, strict};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn key() -> impl Strategy<Value = String> {
    "[a-d]"
}

/// Any JSON, without nulls inside of maps where `nulls` is false.
fn document(nulls: bool) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-5_i64..5).prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::from),
        Just(if nulls { Value::Null } else { json!("") }),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn object(nulls: bool) -> impl Strategy<Value = Value> {
    prop::collection::btree_map(key(), document(nulls), 0..4).prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>()))
}

fn requirement() -> impl Strategy<Value = String> {
    prop_oneof![
        ("[a-c]", "[x-z]?").prop_map(|(k, v)| format!("{k}={v}")),
        ("[a-c]", "[x-z]?").prop_map(|(k, v)| format!("{k} != {v}")),
        ("[a-c]", prop::collection::vec("[x-z]?", 2..4)).prop_map(|(k, v)| format!("{k} in ({})", v.join(","))),
        ("[a-c]", prop::collection::vec("[x-z]?", 2..4)).prop_map(|(k, v)| format!("{k} notin ( {} )", v.join(" , "))),
        "[a-c]".prop_map(|k| k),
        "[a-c]".prop_map(|k| format!("!{k}")),
        ("[a-c]", -3_i64..3).prop_map(|(k, n)| format!("{k}>{}", n.abs())),
    ]
}

/// A schema of two levels, with defaults, and with room for unknown fields in one place.
fn schema() -> impl Strategy<Value = Schema> {
    let leaf = prop_oneof![
        Just(json!({"type": "integer", "default": 3})),
        Just(json!({"type": "string", "default": "x"})),
        Just(json!({"type": "string", "nullable": true})),
        Just(json!({"type": "boolean"})),
        Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
        Just(json!({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string", "default": "d"}}}})),
        Just(json!({"type": "object", "additionalProperties": {"type": "object", "properties": {"b": {"type": "integer", "default": 1}}}})),
    ];
    let properties = prop::collection::btree_map(key(), leaf, 0..4);
    let inner = properties.prop_map(|map| json!({"type": "object", "properties": map, "default": {}}));
    prop::collection::btree_map(key(), inner, 0..4)
        .prop_map(|map| Schema::from_openapi(&json!({"type": "object", "properties": map})).unwrap())
}

proptest! {
    #[test]
    fn a_selector_reads_as_it_prints(parts in prop::collection::vec(requirement(), 0..4), labels in prop::collection::btree_map("[a-c]", "[x-z0-9]?", 0..3)) {
        let selector = LabelSelector::parse(&parts.join(", ")).unwrap();
        let again = LabelSelector::parse(&selector.to_string()).unwrap();
        prop_assert_eq!(&again, &selector);
        let labels: BTreeMap<String, String> = labels;
        prop_assert_eq!(again.matches(&labels), selector.matches(&labels));
    }

    #[test]
    fn no_text_makes_a_selector_fail_other_than_by_an_error(text in "[ab=!(),<> in\\\\]{0,12}") {
        if let Ok(selector) = LabelSelector::parse(&text) {
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
        }
        if let Ok(selector) = FieldSelector::parse(&text) {
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
        }
    }

    #[test]
    fn the_difference_applied_gives_the_other(from in object(true), to in object(false)) {
        let mut patched = from.clone();
        patch::merge_patch(&mut patched, &patch::merge_diff(&from, &to));
        prop_assert_eq!(patched, to);
    }

    #[test]
    fn a_merge_patch_twice_is_as_once(object in object(true), change in object(true)) {
        let mut once = object;
        patch::merge_patch(&mut once, &change);
        let mut twice = once.clone();
        patch::merge_patch(&mut twice, &change);
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn without_merge_keys_a_strategic_patch_is_a_merge_patch(object in object(false), change in object(false)) {
        let mut strategic = object.clone();
        patch::strategic_merge(&mut strategic, &change, &GroupKind::new("", "ConfigMap")).unwrap();
        let mut merged = object;
        patch::merge_patch(&mut merged, &change);
        prop_assert_eq!(strategic, merged);
    }

    #[test]
    fn defaults_and_pruning_settle_at_once(schema in schema(), object in object(true)) {
        let mut settled = object;
        schema.prune(&mut settled);
        schema.default(&mut settled);
        let mut again = settled.clone();
        prop_assert_eq!(schema.prune(&mut again), Vec::<String>::new());
        schema.default(&mut again);
        prop_assert_eq!(&again, &settled);
        // What did not change is never judged.
        prop_assert_eq!(schema.validate(&settled, Some(&settled)), vec![]);
    }

    #[test]
    fn no_text_breaks_the_reader_of_rules(text in "[self.xn(\\[\\])!&|=<>+*/? :,'12 in]{0,24}", object in object(true)) {
        if let Ok(expression) = Expression::compile(&text) {
            let _ = expression.evaluate(&[("self", &object)]);
        }
    }

    #[test]
    fn bytes_never_break_the_readers(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = strict::parse(&bytes);
        let framed = [b"k8s\0\x0a\x0d\x0a\x02v1\x12\x07\x43onfigMap".as_slice(), &bytes].concat();
        let _ = protobuf::decode(&framed);
        let namespace = [b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12".as_slice(), &[bytes.len() as u8], &bytes].concat();
        let _ = protobuf::decode(&namespace);
    }
}
