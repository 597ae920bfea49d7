//! Names that people give, checked before any request is made with them.
//!
//! A name goes into the path of a request: one with a `?` in it would change what is asked.

use apimachinery::names::NameRule;

use crate::problem::{Code, Problem};
use crate::render::Manifest;

/// The flag for a namespace as it has to be typed: none for the one that commands look in by themselves.
pub fn within(namespace: &str) -> String {
    if matches!(namespace, "" | "default") { String::new() } else { format!(" -n {namespace}") }
}

/// What a bad name is refused with.
fn refused(what: &str, errors: &[String]) -> Option<Problem> {
    let first = errors.first()?;
    // The rule; the regular expression behind it helps few.
    let rule = first.split(" (e.g.").next().unwrap_or(first);
    Some(Problem::new(Code::BadName, what).because(rule))
}

/// The rule for the names of a kind, as a person calls it.
fn rule(kind: &str) -> NameRule {
    let kind = kind.to_lowercase();
    match kind.split('.').next().unwrap_or_default() {
        "namespace" | "namespaces" | "ns" => NameRule::Label,
        "role"
        | "roles"
        | "rolebinding"
        | "rolebindings"
        | "clusterrole"
        | "clusterroles"
        | "clusterrolebinding"
        | "clusterrolebindings" => NameRule::PathSegment,
        _ => NameRule::Subdomain,
    }
}

/// Checks the name of an object given on the command line.
///
/// # Errors
/// When no object can have it.
pub fn object(kind: &str, name: &str) -> Result<(), Problem> {
    let what = format!("`{}` cannot be the name of a {kind}", name.escape_debug());
    let problem = refused(&what, &rule(kind).check(name, false));
    problem.map_or(Ok(()), |problem| Err(problem.remedy(format!("correct the name; `talosphere get {kind} -A` lists those that exist"))))
}

/// Checks the namespace given with `-n`.
///
/// # Errors
/// When no namespace can be called so.
pub fn namespace(name: &str) -> Result<(), Problem> {
    let what = format!("`{}` cannot be the name of a namespace", name.escape_debug());
    let problem = refused(&what, &NameRule::Label.check(name, false));
    problem.map_or(Ok(()), |problem| Err(problem.remedy("correct the namespace; `talosphere get namespaces` lists those that exist")))
}

/// Checks the names of manifests. Of kinds that are not the product's own only what no server takes is refused here.
///
/// # Errors
/// With every name that cannot be used.
pub fn manifests(manifests: &[Manifest]) -> Result<(), Problem> {
    let mut lines = Vec::new();
    for manifest in manifests {
        let own = manifest.api_version().split('/').next().is_some_and(|group| group == "v1" || group.ends_with("cluster.x-k8s.io"));
        let rule = if own { rule(manifest.kind()) } else { NameRule::PathSegment };
        let name = Some(manifest.name()).filter(|name| !name.is_empty());
        let namespace = manifest.namespace().map(|namespace| (NameRule::Label, "metadata.namespace", namespace));
        for (rule, field, name) in name.map(|name| (rule, "metadata.name", name)).into_iter().chain(namespace) {
            let mut errors = rule.check(name, false);
            if errors.is_empty() && name.chars().any(|c| c.is_control() || c.is_whitespace()) {
                errors.push("a name has no blanks and no line ends".to_owned());
            }
            if let Some(first) = errors.first() {
                let rule = first.split(" (e.g.").next().unwrap_or(first).to_owned();
                let place = format!("{}:{} ({})", manifest.file, manifest.line, manifest.kind());
                lines.push((format!("{place}: {field} `{}` cannot be used", name.escape_debug()), rule));
            }
        }
    }
    let mut lines = lines.into_iter();
    let Some((what, why)) = lines.next() else { return Ok(()) };
    Err(Problem::new(Code::BadName, what)
        .because(why)
        .seen_all(lines.map(|(what, _)| what))
        .remedy("correct the name, or the value of the variable that it is made from (`talosphere render --show-values` shows them)"))
}

/// A name as one segment of a path.
pub fn segment(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => text.push(char::from(byte)),
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_cannot_change_the_request() {
        assert_eq!(segment("epin?propagationPolicy=Orphan"), "epin%3FpropagationPolicy%3DOrphan");
        assert_eq!((segment("a b/..").as_str(), segment("system:admin").as_str()), ("a%20b%2F..", "system:admin"));
        for name in ["epin?propagationPolicy=Orphan", "a b", "", "A", "a/b", "-a", "a%2e"] {
            let problem = object("cluster", name).unwrap_err();
            assert!(problem.code == Code::BadName && problem.what.contains(name), "{problem}");
        }
        assert!(object("cluster", "demo.x-1").is_ok() && object("clusterrole", "system:admin").is_ok());
        assert!(namespace("a.b").is_err() && namespace("team-1").is_ok());
    }

    #[test]
    fn every_manifest_with_a_bad_name_is_told() {
        let manifest = |api_version: &str, kind: &str, name: &str| Manifest {
            object: json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}}),
            file: "a.yaml".to_owned(),
            line: 3,
        };
        let all = [
            manifest("cluster.x-k8s.io/v1beta1", "Cluster", "a: b"),
            manifest("infrastructure.cluster.x-k8s.io/v1beta1", "VSphereCluster", "a: b"),
            manifest("rbac.authorization.k8s.io/v1", "Role", "system:x"),
        ];
        let problem = manifests(&all).unwrap_err();
        assert_eq!(problem.what, "a.yaml:3 (Cluster): metadata.name `a: b` cannot be used");
        assert_eq!(problem.evidence, ["a.yaml:3 (VSphereCluster): metadata.name `a: b` cannot be used"]);
        assert!(manifests(&all[2..]).is_ok());
    }
}
