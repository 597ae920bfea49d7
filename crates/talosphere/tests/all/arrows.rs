//! A crate uses what stands below it and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Crate and what it may use in its product code.
const ARROWS: &[(&str, &[&str])] = &[
    ("apimachinery", &[]),
    ("runtime", &[]),
    ("talos-proto", &[]),
    ("vsphere-wire", &[]),
    ("api", &["apimachinery"]),
    ("apiserver", &["apimachinery", "runtime"]),
    ("talos", &["talos-proto", "runtime"]),
    ("vsphere", &["vsphere-wire", "runtime"]),
    ("controllers", &["api", "talos", "vsphere", "runtime"]),
    // Of apimachinery it reads objects, as the server beside it does; it shares no logic with a client of its own.
    ("simulator", &["apimachinery", "apiserver", "api", "talos-proto", "vsphere-wire", "runtime"]),
    (
        "talosphere",
        &["apimachinery", "apiserver", "api", "runtime", "talos-proto", "talos", "vsphere-wire", "vsphere", "controllers", "simulator"],
    ),
];

/// The names under `[dependencies]` of a manifest.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let section = manifest.split("\n[").find(|section| section.starts_with("dependencies]")).unwrap_or_default();
    section
        .lines()
        .skip(1)
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .map(str::to_owned)
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn crates_use_only_what_stands_below_them() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let present: BTreeSet<String> = fs::read_dir(&crates)
        .unwrap()
        .filter_map(|entry| entry.ok().filter(|entry| entry.path().join("Cargo.toml").exists()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let named: BTreeSet<String> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(present, named);
    for (name, allowed) in ARROWS {
        let manifest = fs::read_to_string(crates.join(name).join("Cargo.toml")).unwrap();
        let used: Vec<String> = dependencies(&manifest).into_iter().filter(|used| named.contains(used)).collect();
        for used in used {
            assert!(allowed.contains(&used.as_str()), "{name} must not use {used}");
        }
    }
}

#[test]
fn a_manifest_is_read() {
    assert_eq!(
        dependencies(
            "[package]\nname = \"x\"\n\n[dependencies]\nserde.workspace = true\napi = { path = \"..\" }\n\n[dev-dependencies]\ntokio = 1\n"
        ),
        BTreeSet::from(["serde".to_owned(), "api".to_owned()])
    );
}
