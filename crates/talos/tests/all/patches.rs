//! Upstream's patch fixtures, and the errors a person meets.

use serde_json::{Value, json};
use talos::config::{ConfigError, MachineConfig, Patches, patched};
use talos::patch::{json as json_patch, strategic};

use crate::reference::{self, meaning};

const FIXTURES: &str = "talos/patches";

/// Applies the named patch files in order and compares with `expected`.
fn check(folder: &str, config: &str, patches: &[&str], expected: &str) {
    let mut config = MachineConfig::from_yaml(&reference::text(&format!("{FIXTURES}/{folder}/{config}"))).unwrap();
    for patch in patches {
        let text = reference::text(&format!("{FIXTURES}/{folder}/{patch}"));
        if patch.starts_with("json") {
            let operations = talos::yaml::read(&text).unwrap().remove(0);
            json_patch(&mut config, operations.as_array().unwrap()).unwrap();
        } else {
            strategic(&mut config, &text).unwrap_or_else(|error| panic!("{patch}: {error}"));
        }
    }
    let ours: Vec<Value> = config.documents().iter().map(meaning).collect();
    let golden: Vec<Value> = reference::documents(&format!("{FIXTURES}/{folder}/{expected}")).iter().map(meaning).collect();
    assert_eq!(ours, golden, "{folder}/{expected}");
    let again = MachineConfig::from_yaml(&config.to_yaml()).unwrap();
    assert_eq!(again.documents(), config.documents());
}

#[test]
fn fixtures_come_out_as_upstream() {
    if !reference::is_here("patch fixtures") {
        return;
    }
    check(
        "apply",
        "config.yaml",
        &["strategic1.yaml", "jsonpatch1.yaml", "jsonpatch2.yaml", "strategic2.yaml", "strategic3.yaml"],
        "expected.yaml",
    );
    check("apply", "config.yaml", &["strategic4.yaml"], "expected_manifests.yaml");
    check("auditpolicy", "config.yaml", &["patch1.yaml"], "expected.yaml");
    check("patchdelete", "config.yaml", &["strategic1.yaml"], "expected.yaml");
    check(
        "patchdelete",
        "controlplane_orig.yaml",
        &["strategic2.yaml", "strategic3.yaml", "strategic4.yaml"],
        "controlplane_expected.yaml",
    );
    check("patchlink", "base.yaml", &["patch.yaml"], "expected.yaml");
}

const PLAIN: &str =
    "version: v1alpha1\nmachine:\n    type: worker\n    kubelet:\n        image: k:v1\n        extraArgs:\n            a: b\n";

fn error_of(config: &str, patches: &Patches<'_>) -> String {
    let config = MachineConfig::from_yaml(config).unwrap();
    let error = patched(config, patches).unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[test]
fn json_patches_are_refused_on_several_documents() {
    let config = format!("{PLAIN}---\napiVersion: v1alpha1\nkind: HostnameConfig\nauto: stable\n");
    let operations = [json!({ "op": "add", "path": "/machine/time", "value": {} })];
    let text = error_of(&config, &Patches { json: &operations, ..Patches::default() });
    assert!(text.contains("JSON patches are not supported") && text.contains("strategicPatches"), "{text}");
}

#[test]
fn a_failing_operation_is_named_and_nothing_is_changed() {
    let operations = [
        json!({ "op": "add", "path": "/machine/time", "value": { "disabled": true } }),
        json!({ "op": "add", "path": "/cluster/network/cni", "value": {} }),
    ];
    let text = error_of(PLAIN, &Patches { json: &operations, ..Patches::default() });
    assert!(text.starts_with("JSON patch 2 (add /cluster/network/cni) cannot be applied"), "{text}");
    let mut config = MachineConfig::from_yaml(PLAIN).unwrap();
    json_patch(&mut config, &operations).unwrap_err();
    assert_eq!(config.to_yaml(), PLAIN);
}

#[test]
fn unknown_keys_are_named_with_their_neighbours() {
    let operations = [json!({ "op": "add", "path": "/machine/certSans", "value": ["a"] })];
    let text = error_of(PLAIN, &Patches { json: &operations, ..Patches::default() });
    assert!(text.contains("/machine/certSans") && text.contains("certSANs"), "{text}");
    let patch = ["machines:\n  x: 1\n".to_owned()];
    let text = error_of(PLAIN, &Patches { strategic: &patch, ..Patches::default() });
    assert!(text.contains("/machines"), "{text}");
}

#[test]
fn strategic_patches_keep_their_known_traps() {
    let mut config = MachineConfig::from_yaml(PLAIN).unwrap();
    strategic(&mut config, "machine:\n  kubelet:\n    image: \"\"\n    extraArgs: {a: \"\"}\n  certSANs: [x]\n").unwrap();
    strategic(&mut config, "machine:\n  certSANs: [x]\n").unwrap();
    let legacy = config.legacy().unwrap();
    assert_eq!(legacy["machine"]["kubelet"]["image"], "k:v1", "an empty text does not override");
    assert_eq!(legacy["machine"]["kubelet"]["extraArgs"]["a"], "", "but an argument is copied");
    assert_eq!(legacy["machine"]["certSANs"], json!(["x", "x"]), "lists append, twice is twice");
    for (patch, words) in [
        ("$patch: delete\nmachine: {}\n", "v1alpha1 document cannot be deleted"),
        ("machine:\n  token:\n    $patch: delete\n", "not there"),
        ("machine:\n  kubelet: [1]\n", "another shape"),
        ("machine:\n  kubelet:\n    $patch: replace\n", "the only directive"),
    ] {
        let error: ConfigError = strategic(&mut config.clone(), patch).unwrap_err();
        assert!(error.to_string().contains(words), "{patch}: {error}");
    }
}

#[test]
fn a_host_name_is_set_where_the_contract_keeps_it() {
    let config = MachineConfig::from_yaml(PLAIN).unwrap();
    let out = patched(config, &Patches { hostname: Some("n1"), ..Patches::default() }).unwrap();
    assert_eq!(out.config.legacy().unwrap()["machine"]["network"]["hostname"], "n1");
}
