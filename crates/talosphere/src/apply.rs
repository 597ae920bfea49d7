//! Manifests to the API server, as `kubectl apply` does it: what the manifest says is set, what it said last time and says no longer
//! is removed, everything else stays. The last manifest is kept in kubectl's own annotation, so that both can be used in turn.

use std::collections::BTreeMap;

use http::{Method, Request};
use kube::api::ApiResource;
use kube::core::Status;
use kube::core::response::StatusCause;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::names::segment;
use crate::problem::{Code, Problem};
use crate::render::Manifest;

/// Where kubectl keeps the manifest it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Who changed the fields, as the API server records it.
const FIELD_MANAGER: &str = "talosphere";

/// What applying an object came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Configured,
    Unchanged,
}

impl Outcome {
    /// kubectl's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

/// How a kind is addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    pub prefix: String,
    pub plural: String,
    pub is_namespaced: bool,
    pub kind: String,
    /// Group as in `machines.cluster.x-k8s.io`; empty for the core group.
    pub group: String,
    pub names: Vec<String>,
}

impl Resource {
    /// The kind, as a client asks for it.
    pub fn api_resource(&self) -> ApiResource {
        let api_version = self.prefix.trim_start_matches("/apis/").trim_start_matches("/api/").to_owned();
        let version = api_version.rsplit('/').next().unwrap_or_default().to_owned();
        ApiResource { group: self.group.clone(), version, api_version, kind: self.kind.clone(), plural: self.plural.clone() }
    }

    /// The path of the collection, or of one object.
    pub fn path(&self, namespace: &str, name: Option<&str>) -> String {
        let mut path = self.prefix.clone();
        if self.is_namespaced && !namespace.is_empty() {
            path.push_str(&format!("/namespaces/{}", segment(namespace)));
        }
        path.push_str(&format!("/{}", self.plural));
        if let Some(name) = name {
            path.push_str(&format!("/{}", segment(name)));
        }
        path
    }

    /// `machine.cluster.x-k8s.io/NAME`, as kubectl prints it.
    pub fn display(&self, name: &str) -> String {
        let kind = self.kind.to_lowercase();
        if self.group.is_empty() { format!("{kind}/{name}") } else { format!("{kind}.{}/{name}", self.group) }
    }
}

/// A connection to an API server, with what was learned of its kinds.
pub struct Api {
    client: kube::Client,
    known: Mutex<BTreeMap<String, Vec<Resource>>>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

impl Api {
    /// Over this client.
    pub fn new(client: kube::Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// The client underneath.
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// One request with a JSON answer.
    ///
    /// # Errors
    /// As the server or the connection says.
    pub async fn send(&self, method: Method, path: &str, content_type: Option<&str>, body: Option<&Value>) -> Result<Value, kube::Error> {
        self.send_accepting(method, path, content_type, body, "application/json").await
    }

    async fn send_accepting(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Option<&Value>,
        accept: &str,
    ) -> Result<Value, kube::Error> {
        let mut request = Request::builder().method(method).uri(path).header(http::header::ACCEPT, accept);
        if let Some(content_type) = content_type {
            request = request.header(http::header::CONTENT_TYPE, content_type);
        }
        let bytes = body.map(serde_json::to_vec).transpose().map_err(kube::Error::SerdeError)?.unwrap_or_default();
        let request = request.body(bytes).map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }

    /// The list of a kind in the server's Table form.
    ///
    /// # Errors
    /// As the server or the connection says.
    pub async fn table(&self, path: &str) -> Result<Value, kube::Error> {
        self.send_accepting(Method::GET, path, None, None, "application/json;as=Table;v=v1;g=meta.k8s.io").await
    }

    async fn resources(&self, prefix: &str) -> Result<Vec<Resource>, kube::Error> {
        if let Some(known) = self.known.lock().await.get(prefix) {
            return Ok(known.clone());
        }
        let answer = match self.send(Method::GET, prefix, None, None).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
            other => other?,
        };
        let group = prefix.strip_prefix("/apis/").and_then(|rest| rest.split('/').next()).unwrap_or_default().to_owned();
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let resources: Vec<Resource> = answer
            .get("resources")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter(|resource| !text(resource, "name").contains('/'))
            .map(|resource| {
                let mut names: Vec<String> =
                    vec![text(resource, "name"), text(resource, "singularName"), text(resource, "kind").to_lowercase()];
                names.extend(
                    resource
                        .get("shortNames")
                        .and_then(Value::as_array)
                        .into_iter()
                        .flatten()
                        .filter_map(|name| Some(name.as_str()?.to_owned())),
                );
                Resource {
                    prefix: prefix.to_owned(),
                    plural: text(resource, "name"),
                    is_namespaced: resource.get("namespaced").and_then(Value::as_bool).unwrap_or(true),
                    kind: text(resource, "kind"),
                    group: group.clone(),
                    names,
                }
            })
            .collect();
        self.known.lock().await.insert(prefix.to_owned(), resources.clone());
        Ok(resources)
    }

    /// How objects of `api_version` and `kind` are addressed; `None` when the kind is not served.
    ///
    /// # Errors
    /// As the server or the connection says.
    pub async fn resource(&self, api_version: &str, kind: &str) -> Result<Option<Resource>, kube::Error> {
        let prefix = if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") };
        Ok(self.resources(&prefix).await?.into_iter().find(|resource| resource.kind == kind))
    }

    /// The kind that a person calls `name`: plural, singular, kind or short name, optionally with `.GROUP`. The version that each group
    /// prefers comes first; a kind may be served in another one only.
    ///
    /// # Errors
    /// As the server or the connection says.
    pub async fn resource_called(&self, name: &str) -> Result<Option<Resource>, kube::Error> {
        let lower = name.to_lowercase();
        let (name, wanted_group) = lower.split_once('.').map_or((lower.as_str(), None), |(name, group)| (name, Some(group)));
        let mut prefixes = vec!["/api/v1".to_owned()];
        let groups = self.send(Method::GET, "/apis", None, None).await?;
        let groups: Vec<&Value> = groups.get("groups").and_then(Value::as_array).into_iter().flatten().collect();
        let preferred = groups.iter().filter_map(|group| group.pointer("/preferredVersion/groupVersion"));
        let served = groups.iter().filter_map(|group| group.get("versions")?.as_array()).flatten();
        for version in preferred.chain(served.filter_map(|version| version.get("groupVersion"))).filter_map(Value::as_str) {
            let prefix = format!("/apis/{version}");
            if !prefixes.contains(&prefix) {
                prefixes.push(prefix);
            }
        }
        for prefix in prefixes {
            let found = self.resources(&prefix).await?.into_iter().find(|resource| {
                resource.names.iter().any(|known| known == name) && wanted_group.is_none_or(|group| resource.group.starts_with(group))
            });
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The object at `path`; `None` when it is not there.
    ///
    /// # Errors
    /// As the server or the connection says.
    pub async fn get(&self, path: &str) -> Result<Option<Value>, kube::Error> {
        match self.send(Method::GET, path, None, None).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The namespace an object goes to, and how it is addressed.
    async fn place(&self, manifest: &Manifest, namespace: &str) -> Result<(Resource, String), Problem> {
        if manifest.name().is_empty() {
            return Err(Problem::new(Code::BadName, format!("{}: it has a generateName, but no name", manifest.place()))
                .because("with a generated name each run would make another object")
                .remedy("give it a metadata.name, or create it with `kubectl create`"));
        }
        let found = self.resource(manifest.api_version(), manifest.kind()).await.map_err(|error| refused(&error, manifest))?;
        let resource = found.ok_or_else(|| {
            Problem::new(Code::UnknownKind, format!("{}: no kind {} in {} is served here", manifest.place(), manifest.kind(), manifest.api_version()))
                .remedy("if it belongs into the new cluster, give its file with --workload instead of -f; else apply its CustomResourceDefinition first")
        })?;
        let namespace = if resource.is_namespaced { manifest.namespace().unwrap_or(namespace).to_owned() } else { String::new() };
        Ok((resource, namespace))
    }

    /// Whether the server would take the object as it stands, with every field known. Changes nothing. A namespace that does not
    /// exist yet is no objection.
    ///
    /// # Errors
    /// With the server's objection.
    pub async fn check(&self, manifest: &Manifest, namespace: &str) -> Result<(), Problem> {
        let (resource, namespace) = self.place(manifest, namespace).await?;
        let live = self.get(&resource.path(&namespace, Some(manifest.name()))).await.map_err(|error| refused(&error, manifest))?;
        let query = format!("?dryRun=All&fieldManager={FIELD_MANAGER}&fieldValidation=Strict");
        if let Some(live) = live {
            if live.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null()) {
                let (kind, name) = (resource.kind.to_lowercase(), manifest.name());
                let within = if namespace.is_empty() { String::new() } else { format!(" -n {namespace}") };
                return Err(Problem::new(Code::BeingDeleted, format!("{}: it is being deleted", manifest.place()))
                    .seen_all(finalizers(&live).map(|finalizer| format!("{} is held by {finalizer}", resource.display(name))))
                    .remedy(format!(
                        "`talosphere delete {kind} {name}{within}` waits for the end of the deletion; run this command again afterwards"
                    )));
            }
            let patch = patch_of(last_applied(&live).as_ref(), &live, &beside_owners(&live, &manifest.object));
            let path = resource.path(&namespace, Some(manifest.name())) + &query;
            let outcome = self.send(Method::PATCH, &path, Some("application/merge-patch+json"), Some(&patch)).await;
            return outcome.map(drop).map_err(|error| refused(&error, manifest));
        }
        let exists = namespace.is_empty()
            || self.get(&format!("/api/v1/namespaces/{}", segment(&namespace))).await.map_err(|error| refused(&error, manifest))?.is_some();
        let namespace = if exists { namespace } else { "default".to_owned() };
        let mut object = manifest.object.clone();
        if resource.is_namespaced {
            set(&mut object, "namespace", Value::String(namespace.clone()));
        }
        let path = resource.path(&namespace, None) + &query;
        match self.send(Method::POST, &path, Some("application/json"), Some(&object)).await {
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            outcome => outcome.map(drop).map_err(|error| refused(&error, manifest)),
        }
    }

    /// Applies one object.
    ///
    /// # Errors
    /// With the server's objection, naming the manifest.
    pub async fn apply(&self, manifest: &Manifest, namespace: &str) -> Result<(String, Outcome), Problem> {
        let (resource, namespace) = self.place(manifest, namespace).await?;
        let path = resource.path(&namespace, Some(manifest.name()));
        let shown = resource.display(manifest.name());
        let mut object = manifest.object.clone();
        if resource.is_namespaced {
            set(&mut object, "namespace", Value::String(namespace.clone()));
        }
        let record = serde_json::to_string(&object).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        annotate(&mut object, LAST_APPLIED, &(record + "\n"));
        let query = format!("?fieldManager={FIELD_MANAGER}&fieldValidation=Strict");
        // Somebody may create or delete the object between look and change: look again then.
        for _ in 0..5 {
            let live = self.get(&path).await.map_err(|error| refused(&error, manifest))?;
            let Some(live) = live else {
                let created =
                    self.send(Method::POST, &(resource.path(&namespace, None) + &query), Some("application/json"), Some(&object)).await;
                match created {
                    Ok(_) => return Ok((shown, Outcome::Created)),
                    Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => continue,
                    Err(error) => return Err(refused(&error, manifest)),
                }
            };
            let patch = patch_of(last_applied(&live).as_ref(), &live, &beside_owners(&live, &object));
            if patch.as_object().is_none_or(Map::is_empty) {
                return Ok((shown, Outcome::Unchanged));
            }
            let changed = self.send(Method::PATCH, &(path.clone() + &query), Some("application/merge-patch+json"), Some(&patch)).await;
            match changed {
                Ok(after) => {
                    let version = |object: &Value| object.pointer("/metadata/resourceVersion").cloned();
                    let outcome = if version(&after) == version(&live) { Outcome::Unchanged } else { Outcome::Configured };
                    return Ok((shown, outcome));
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(refused(&error, manifest)),
            }
        }
        Err(Problem::new(Code::ApiRefused, format!("{} is created and deleted by somebody else all the time", manifest.place()))
            .remedy("find who does it (`kubectl get events`), then run the command again"))
    }
}

/// Who must let go of an object before it can go.
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    object.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Those of them that no controller of Cluster API, its providers or ours, and no garbage collection, takes off.
pub fn foreign_finalizers(object: &Value) -> impl Iterator<Item = &str> {
    finalizers(object).filter(|finalizer| {
        let domain = finalizer.split('/').next().unwrap_or_default();
        let is_under = |ours: &str| domain.strip_suffix(ours).is_some_and(|before| before.is_empty() || before.ends_with('.'));
        !is_under("cluster.x-k8s.io")
            && !is_under("talosphere.dev")
            && !matches!(*finalizer, "foregroundDeletion" | "orphan" | "kubernetes")
    })
}

fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        let metadata = map.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert(field.to_owned(), value);
        }
    }
}

fn annotate(object: &mut Value, key: &str, value: &str) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(key.to_owned(), Value::String(value.to_owned()));
        }
    }
}

fn last_applied(live: &Value) -> Option<Value> {
    let text = live.pointer("/metadata/annotations")?.get(LAST_APPLIED)?.as_str()?;
    serde_json::from_str(text).ok()
}

/// The object with the owners that others have added to the one that is there: owners are a list with a key, as kubectl has it.
fn beside_owners(live: &Value, wanted: &Value) -> Value {
    const OWNERS: &str = "/metadata/ownerReferences";
    let mut wanted = wanted.clone();
    let there = live.pointer(OWNERS).and_then(Value::as_array);
    if let (Some(there), Some(owners)) = (there, wanted.pointer_mut(OWNERS).and_then(Value::as_array_mut)) {
        let mut all = there.clone();
        for owner in owners.drain(..) {
            match all.iter_mut().find(|known| known["uid"] == owner["uid"]) {
                Some(known) => *known = owner,
                None => all.push(owner),
            }
        }
        *owners = all;
    }
    wanted
}

/// The merge patch that brings `live` to what `wanted` says, removing what only `last` said.
fn patch_of(last: Option<&Value>, live: &Value, wanted: &Value) -> Value {
    let empty = Map::new();
    let map = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
    let (live_map, wanted_map) = (map(Some(live)).unwrap_or_default(), wanted.as_object().unwrap_or(&empty));
    let mut patch = Map::new();
    for (key, value) in wanted_map {
        match live_map.get(key) {
            Some(present) if present == value => {}
            Some(present) if present.is_object() && value.is_object() => {
                let inner = patch_of(last.and_then(|last| last.get(key)), present, value);
                if inner.as_object().is_some_and(|inner| !inner.is_empty()) {
                    patch.insert(key.clone(), inner);
                }
            }
            None if value.is_null() => {}
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for (key, _) in map(last).unwrap_or_default() {
        if !wanted_map.contains_key(&key) && live_map.contains_key(&key) {
            patch.insert(key, Value::Null);
        }
    }
    Value::Object(patch)
}

/// A server's objection to a manifest, as the user should see it.
fn refused(error: &kube::Error, manifest: &Manifest) -> Problem {
    match error {
        kube::Error::Api(status) => {
            let code = match (status.code, status.reason.as_str()) {
                (400, _) if status.message.contains("unknown field") => Code::UnknownField,
                (400 | 422, _) => Code::InvalidObject,
                _ => Code::ApiRefused,
            };
            Problem::new(code, format!("{}: {}", manifest.place(), objection(status))).seen_all(causes(status))
        }
        other => unreachable(other),
    }
}

/// The fields that a server's objection names.
fn causes(status: &Status) -> impl Iterator<Item = String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.map(|StatusCause { message, field, .. }| format!("{field}: {message}"))
}

fn objection(status: &Status) -> String {
    let message = status.message.trim();
    if message.is_empty() { format!("the API server answered {} {}", status.code, status.reason) } else { message.to_owned() }
}

/// A failed request that is not about a manifest.
pub fn unreachable(error: &kube::Error) -> Problem {
    match error {
        kube::Error::Api(status) => Problem::new(Code::ApiRefused, objection(status)).seen_all(causes(status)),
        other => Problem::new(Code::OwnerUnreachable, "the API server does not answer").because(runtime::reconcile::explain(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_manifest_said_and_says_no_longer_is_removed_and_all_else_stays() {
        let last = json!({"spec": {"a": 1, "gone": 2, "deep": {"x": 1, "y": 2}}});
        let live = json!({"spec": {"a": 1, "gone": 2, "deep": {"x": 1, "y": 2, "others": 3}, "defaulted": true}, "status": {"s": 1}});
        let wanted = json!({"spec": {"a": 5, "deep": {"x": 1}, "list": [1]}});
        assert_eq!(patch_of(Some(&last), &live, &wanted), json!({"spec": {"a": 5, "deep": {"y": null}, "list": [1], "gone": null}}));
        assert_eq!(patch_of(Some(&wanted), &wanted, &wanted), json!({}));
        assert_eq!(patch_of(None, &live, &json!({"spec": {"a": 1}})), json!({}));
        let owned = |uids: &[&str]| {
            let owners: Vec<Value> = uids.iter().map(|uid| json!({"uid": uid, "name": uid})).collect();
            json!({"metadata": {"ownerReferences": owners}})
        };
        assert_eq!(beside_owners(&owned(&["ours", "theirs"]), &owned(&["ours"])), owned(&["ours", "theirs"]));
        assert_eq!(beside_owners(&owned(&["theirs"]), &owned(&["ours"])), owned(&["theirs", "ours"]));
        assert_eq!(beside_owners(&json!({"metadata": {}}), &owned(&["ours"])), owned(&["ours"]));
    }
}
