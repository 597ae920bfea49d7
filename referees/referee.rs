//! Builds a referee, a program that nobody here wrote, from its folder beside this file. A part of the tests that need one.
//!
//! It is built once, into the user's cache (or `TALOSPHERE_REFEREES`), under a name made of its sources' hash. Where it cannot be had the
//! tests say what they skipped; where `CI` is `true` they fail.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::Digest as _;

/// The line that brings what is needed.
const REMEDY: &str = "install Go 1.25 or later (https://go.dev/dl) so that `go` is on PATH, and run the tests again";

#[allow(clippy::disallowed_methods)] // where the referees are kept
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[allow(clippy::print_stderr)] // where the test runner shows it
fn skip(why: &str) -> Option<PathBuf> {
    assert!(variable("CI").is_none_or(|ci| ci != Path::new("true")), "{why}; {REMEDY}");
    eprintln!("skipped: {why}; {REMEDY}");
    None
}

/// The path of an up-to-date build; `None` when it cannot be had here.
pub fn referee(name: &str) -> Option<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../referees").join(name);
    let mut hash = sha2::Sha256::new();
    for file in ["main.go", "go.mod", "go.sum"] {
        hash.update(std::fs::read(sources.join(file)).unwrap());
    }
    let user = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let folder = variable("TALOSPHERE_REFEREES").or_else(|| user.map(|cache| cache.join("talosphere/referees")));
    let Some(folder) = folder else { return skip("neither TALOSPHERE_REFEREES nor HOME names a folder for referees") };
    let made = folder.join(format!("{name}-{}", &hex::encode(hash.finalize())[..16]));
    if made.is_file() {
        return Some(made);
    }
    if Command::new("go").arg("version").output().is_err() {
        return skip(&format!("there is no Go to build {name} with"));
    }
    std::fs::create_dir_all(&folder).unwrap();
    let fresh = folder.join(format!("{name}-building-{}", std::process::id()));
    let arguments = ["build", "-trimpath", "-mod=readonly", "-ldflags=-s -w", "-o"];
    let built = Command::new("go").args(arguments).arg(&fresh).arg(".").current_dir(&sources).output().unwrap();
    if !built.status.success() {
        return skip(&format!("{name} could not be built: {}", String::from_utf8_lossy(&built.stderr).trim()));
    }
    std::fs::rename(&fresh, &made).unwrap();
    Some(made)
}
