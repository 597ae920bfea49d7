//! Health and version: what is asked before anything else.

use serde_json::json;

use crate::request::Query;
use crate::response::{self, Answer};
use crate::server::Inner;

/// `/version`
pub fn version(inner: &Inner) -> Answer {
    let version = inner.version.as_str();
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or("1"), parts.next().unwrap_or("0"));
    response::value(
        200,
        &json!({
            "major": major, "minor": minor, "gitVersion": version, "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
        }),
    )
}

/// `/healthz`, `/livez`, `/readyz`: `ok`, or with `verbose` every check by name. A check can be left out with `exclude`, or asked alone by
/// its name in the path.
pub fn check(inner: &Inner, path: &str, query: &Query) -> Option<Answer> {
    let mut parts = path.trim_matches('/').splitn(2, '/');
    let endpoint = parts.next().filter(|endpoint| matches!(*endpoint, "healthz" | "livez" | "readyz"))?;
    let single = parts.next();
    let mut checks = inner.run_checks();
    if endpoint != "readyz" {
        // Alive is a server that answers and can write; what it waits for is no reason to restart it.
        checks.truncate(2);
    }
    if let Some(name) = single {
        checks.retain(|(known, _)| known == name);
        if checks.is_empty() {
            return Some(response::text(404, "404 page not found\n"));
        }
    }
    checks.retain(|(name, _)| !query.all("exclude").any(|excluded| excluded == name));
    let has_failed = checks.iter().any(|(_, result)| result.is_err());
    let mut text = String::new();
    for (name, result) in &checks {
        text.push_str(&match result {
            Ok(()) => format!("[+]{name} ok\n"),
            Err(reason) => format!("[-]{name} failed: {reason}\n"),
        });
    }
    Some(if has_failed {
        response::text(500, format!("{text}{endpoint} check failed\n"))
    } else if query.has("verbose") {
        response::text(200, format!("{text}{endpoint} check passed\n"))
    } else {
        response::text(200, "ok")
    })
}
