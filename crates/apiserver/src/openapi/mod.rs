//! OpenAPI version 3: which operations there are, what parameters they take, what the objects look like.
//!
//! The index names one document for each version of a group, with a hash, so that clients keep what they have read. kubectl looks for
//! the parameter `fieldValidation` of an operation on a kind before it sends an object, and without it refuses to apply; `explain` reads
//! the schemas. The documents are printed from the registry and from nothing else.
//!
//! Left out on purpose: server-side apply and strategic merge patch among the forms of a patch. The first is not served; the second is,
//! but a client that finds it here takes merge keys from the schemas, and those of the built-in kinds do not carry them - without it,
//! it uses its own.

mod components;
mod operations;

use apimachinery::gvk;
use http::header::{CACHE_CONTROL, ETAG, HeaderValue, LOCATION};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::discovery::REVIEWS;
use crate::registry::{Registry, Resource, Version};
use crate::response::{self, Answer};

fn location(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The versions of groups that have a document, core group first.
fn versions(registry: &Registry) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (group, versions) in registry.groups() {
        all.extend(versions.iter().map(|version| (group.to_string(), version.to_string())));
    }
    for (group, version, ..) in REVIEWS {
        let review = ((*group).to_owned(), (*version).to_owned());
        if !all.contains(&review) {
            all.push(review);
        }
    }
    all.sort();
    all
}

/// A text that changes whenever the document of this version does.
fn hash(registry: &Registry, group: &str, version: &str) -> String {
    let mut hasher = Sha512::new();
    hasher.update(env!("CARGO_PKG_VERSION"));
    hasher.update(gvk::api_version(group, version));
    for (resource, served) in registry.of_version(group, version) {
        hasher.update(format!("|{}|{}|{}|{}|", resource.plural, resource.kind, resource.list_kind, resource.is_namespaced));
        hasher.update(format!("{}|{}|", served.has_status, served.scale.is_some()));
        hasher.update(served.schema_digest.get_or_init(|| {
            let text = served.openapi.as_ref().map(|schema| schema.to_string()).unwrap_or_default();
            hex::encode(Sha512::digest(text))
        }));
    }
    hex::encode_upper(hasher.finalize())
}

/// The index of documents, one for each version of a group.
pub fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, version) in versions(registry) {
        let at = location(&group, &version);
        let hash = hash(registry, &group, &version);
        paths.insert(at.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{at}?hash={hash}")}));
    }
    json!({"paths": paths})
}

/// The document at `path`, such as `apis/apps/v1`.
pub fn document(registry: &Registry, path: &str) -> Option<Value> {
    let (group, version) = group_version(registry, path)?;
    let kinds: Vec<Kind<'_>> = registry.of_version(&group, &version).map(|(resource, served)| Kind::new(resource, served)).collect();
    let mut paths = Map::new();
    let mut schemas = components::shared();
    for kind in &kinds {
        operations::of_kind(kind, &mut paths);
        components::of_kind(kind, &mut schemas);
    }
    for (_, _, plural, _, kind) in REVIEWS.iter().filter(|(known, served, ..)| *known == group && *served == version) {
        operations::of_review(&group, &version, plural, kind, &mut paths);
        components::of_review(&group, &version, kind, &mut schemas);
    }
    paths.sort_keys();
    schemas.sort_keys();
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

fn group_version(registry: &Registry, path: &str) -> Option<(String, String)> {
    let asked = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => (String::new(), (*version).to_owned()),
        ["apis", group, version] => ((*group).to_owned(), (*version).to_owned()),
        _ => return None,
    };
    versions(registry).contains(&asked).then_some(asked)
}

/// The answer to a request for the document at `path`. With the right hash it may be kept for ever; with an old one the client is
/// sent to the right one.
pub fn answer(registry: &Registry, path: &str, asked: Option<&str>) -> Option<Answer> {
    let (group, version) = group_version(registry, path)?;
    let hash = hash(registry, &group, &version);
    if asked.is_some_and(|asked| asked != hash) {
        let mut moved = response::text(301, "");
        let to = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={hash}")).ok()?;
        moved.headers_mut().insert(LOCATION, to);
        return Some(moved);
    }
    let mut answer = response::value(200, &document(registry, path)?);
    let headers = answer.headers_mut();
    headers.insert(ETAG, HeaderValue::from_str(&format!("\"{hash}\"")).ok()?);
    if asked.is_some() {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    }
    Some(answer)
}

/// One kind in one version, with the names that the documents use for it.
struct Kind<'a> {
    resource: &'a Resource,
    served: &'a Version,
    /// Name of its schema.
    component: String,
}

impl<'a> Kind<'a> {
    fn new(resource: &'a Resource, served: &'a Version) -> Self {
        let package = package(&resource.group, resource.is_custom());
        Self { resource, served, component: format!("{package}.{}.{}", served.name, resource.kind) }
    }

    /// Group, version and kind, as extensions of operations and schemas carry them.
    fn identity(&self) -> Value {
        identity(&self.resource.group, &self.served.name, &self.resource.kind)
    }

    fn list_component(&self) -> String {
        self.component.strip_suffix(&self.resource.kind).map_or_else(String::new, |package| format!("{package}{}", self.resource.list_kind))
    }
}

fn identity(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// The first part of the name of a schema: the package of a built-in kind's type upstream, a custom kind's group turned round.
fn package(group: &str, is_custom: bool) -> String {
    match group {
        _ if is_custom => group.rsplit('.').collect::<Vec<_>>().join("."),
        "" => "io.k8s.api.core".to_owned(),
        "apiextensions.k8s.io" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions".to_owned(),
        group => format!("io.k8s.api.{}", group.split('.').next().unwrap_or(group)),
    }
}

#[cfg(test)]
mod tests;
