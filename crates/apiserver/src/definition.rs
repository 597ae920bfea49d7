//! Definitions of custom resources: from a CustomResourceDefinition to what the registry serves.
//!
//! A [`CrdSet`] is read, and its schemas compiled, once; any number of servers share it. Definitions are ordinary objects besides: users
//! read, label, change and delete them, and apply others. A stored definition whose text is that of the set is not compiled again.

use std::sync::{Arc, Mutex, OnceLock};

use apimachinery::schema::Schema;
use apimachinery::table::Columns;
use apimachinery::{FieldError, StatusError, gvk, meta};
use serde_json::{Value, json};
use thiserror::Error;

use crate::object::{Content, ObjectKey, ResourceId};
use crate::options::OpenError;
use crate::registry::{Origin, Resource, ScalePaths, Version, priority};
use crate::server::{Inner, lock};

/// The finalizer that keeps a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Why a definition is not usable.
#[derive(Clone, Debug, Error)]
#[error("{name}: {reason}")]
pub struct DefinitionError {
    /// The definition's name.
    pub name: String,
    pub reason: String,
}

/// Definitions that are read once and shared. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct CrdSet(Arc<Set>);

#[derive(Debug, Default)]
struct Set {
    /// Taken when they are read: values are bulky, and their text is what is kept.
    manifests: Mutex<Vec<Value>>,
    prepared: OnceLock<Result<Vec<Prepared>, DefinitionError>>,
}

/// A definition that is read.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Without what the text and the resource say of its versions.
    pub manifest: Value,
    /// The specification as text, as a stored object carries it.
    pub text: Arc<str>,
    pub resource: Arc<Resource>,
}

impl From<Vec<Value>> for CrdSet {
    fn from(manifests: Vec<Value>) -> Self {
        Self(Arc::new(Set { manifests: Mutex::new(manifests), prepared: OnceLock::new() }))
    }
}

impl CrdSet {
    /// The definitions, read when asked for the first time.
    ///
    /// # Errors
    /// When one is not usable.
    pub fn prepared(&self) -> Result<&[Prepared], DefinitionError> {
        let prepared = self.0.prepared.get_or_init(|| std::mem::take(&mut *lock(&self.0.manifests)).into_iter().map(prepare).collect());
        prepared.as_deref().map_err(Clone::clone)
    }
}

fn prepare(mut manifest: Value) -> Result<Prepared, DefinitionError> {
    default(&mut manifest);
    let resource = resource(&manifest).map_err(|errors| DefinitionError {
        name: meta::name(&manifest).to_owned(),
        reason: errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    })?;
    let text = manifest.get("spec").map(ToString::to_string).unwrap_or_default().into();
    let versions = manifest.pointer_mut("/spec/versions").and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten().filter_map(Value::as_object_mut) {
        version.retain(|field, _| field == "name" || field == "storage");
    }
    Ok(Prepared { manifest, text, resource: Arc::new(resource) })
}

/// The kind that definitions are stored under.
pub fn storage() -> ResourceId {
    ResourceId::new("apiextensions.k8s.io", "customresourcedefinitions")
}

/// Whether objects of this kind are definitions.
pub fn is_definition(resource: &ResourceId) -> bool {
    &*resource.resource == "customresourcedefinitions" && &*resource.group == "apiextensions.k8s.io"
}

fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    meta::at(value, path).and_then(Value::as_str).unwrap_or_default()
}

fn texts(value: &Value, path: &[&str]) -> Vec<String> {
    meta::at(value, path).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Fills in what a user may leave out of a definition.
pub fn default(manifest: &mut Value) {
    let Some(spec) = manifest.get_mut("spec").and_then(Value::as_object_mut) else { return };
    spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) else { return };
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    names.entry("singular").or_insert_with(|| json!(kind.to_lowercase()));
    names.entry("listKind").or_insert_with(|| json!(format!("{kind}List")));
}

/// What a definition makes the server serve.
///
/// # Errors
/// When fields are missing or make no sense; with their paths.
pub fn resource(manifest: &Value) -> Result<Resource, Vec<FieldError>> {
    let mut errors = Vec::new();
    let group = text(manifest, &["spec", "group"]);
    let plural = text(manifest, &["spec", "names", "plural"]);
    let kind = text(manifest, &["spec", "names", "kind"]);
    for (path, value) in [("spec.group", group), ("spec.names.plural", plural), ("spec.names.kind", kind)] {
        if value.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
    }
    let name = meta::name(manifest);
    if name != format!("{plural}.{group}") {
        errors.push(FieldError::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
    }
    let scope = text(manifest, &["spec", "scope"]);
    if !matches!(scope, "Namespaced" | "Cluster") {
        errors.push(FieldError::not_supported("spec.scope", scope, &["Cluster", "Namespaced"]));
    }
    let manifests = meta::at(manifest, &["spec", "versions"]).and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
    if manifests.iter().filter(|version| version.get("storage") == Some(&Value::Bool(true))).count() != 1 {
        errors.push(FieldError::invalid(
            "spec.versions",
            Value::Array(Vec::new()),
            "must have exactly one version marked as storage version",
        ));
    }
    let mut versions = Vec::with_capacity(manifests.len());
    for (index, version) in manifests.iter().enumerate() {
        match read_version(group, version) {
            Ok(read) => versions.push((read, version.get("storage") == Some(&Value::Bool(true)))),
            Err((path, reason)) => errors.push(FieldError::invalid(format!("spec.versions[{index}].{path}"), Value::Null, reason)),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(priority(&version.name)));
    let storage = versions.iter().position(|(_, is_storage)| *is_storage).unwrap_or(0);
    warn_of_deprecated(kind, &mut versions);
    let or = |path: &[&str], fallback: String| {
        let given = text(manifest, path);
        if given.is_empty() { fallback } else { given.to_owned() }
    };
    Ok(Resource {
        group: group.into(),
        plural: plural.into(),
        singular: or(&["spec", "names", "singular"], kind.to_lowercase()),
        kind: kind.to_owned(),
        list_kind: or(&["spec", "names", "listKind"], format!("{kind}List")),
        short_names: texts(manifest, &["spec", "names", "shortNames"]),
        categories: texts(manifest, &["spec", "names", "categories"]),
        is_namespaced: scope == "Namespaced",
        versions: versions.into_iter().map(|(version, _)| version).collect(),
        storage,
        id: ResourceId::new(group, plural),
        origin: Origin::Custom,
    })
}

/// Words for deprecated versions that bring none of their own: they name the best version that is to be used instead. `versions` are
/// ordered, the best one first.
fn warn_of_deprecated(kind: &str, versions: &mut [(Version, bool)]) {
    let best = versions.iter().find(|(version, _)| version.is_served && version.warning.is_none());
    let best = best.map(|(version, _)| (priority(&version.name), version.api_version.clone()));
    for (version, _) in versions {
        if version.warning.as_deref() == Some("") {
            let instead = best.as_ref().filter(|(rank, _)| *rank > priority(&version.name));
            let instead = instead.map(|(_, api_version)| format!("; use {api_version} {kind}")).unwrap_or_default();
            version.warning = Some(format!("{} {kind} is deprecated{instead}", version.api_version));
        }
    }
}

fn read_version(group: &str, version: &Value) -> Result<Version, (&'static str, String)> {
    let name = text(version, &["name"]);
    if name.is_empty() {
        return Err(("name", "must be given".to_owned()));
    }
    let openapi = meta::at(version, &["schema", "openAPIV3Schema"]);
    let Some(openapi) = openapi else { return Err(("schema.openAPIV3Schema", "schemas are required".to_owned())) };
    let schema = Schema::from_openapi(openapi).map_err(|error| ("schema.openAPIV3Schema", error.to_string()))?;
    for rule in schema.unread_rules() {
        tracing::warn!(group, version = name, rule, "a rule of a definition is not understood and so not asked");
    }
    let columns =
        Columns::custom(version.get("additionalPrinterColumns")).map_err(|error| ("additionalPrinterColumns", error.to_string()))?;
    let scale = meta::at(version, &["subresources", "scale"]).map(|scale| ScalePaths {
        spec_replicas: text(scale, &["specReplicasPath"]).to_owned(),
        status_replicas: text(scale, &["statusReplicasPath"]).to_owned(),
        label_selector: Some(text(scale, &["labelSelectorPath"])).filter(|path| !path.is_empty()).map(str::to_owned),
        is_selector_text: true,
    });
    let api_version = gvk::api_version(group, name);
    let is_deprecated = version.get("deprecated") == Some(&Value::Bool(true));
    // Empty until the better versions are known.
    let warning = is_deprecated.then(|| text(version, &["deprecationWarning"]).to_owned());
    Ok(Version {
        name: name.into(),
        api_version,
        is_served: version.get("served") == Some(&Value::Bool(true)),
        warning,
        schema: Some(Arc::new(schema)),
        openapi: Some(openapi.to_string().into()),
        schema_digest: OnceLock::new(),
        columns,
        has_status: meta::at(version, &["subresources", "status"]).is_some(),
        scale,
    })
}

/// The status that says that a definition is served; what `status` says already is kept.
pub fn accept(manifest: &Value, status: &mut Value, now: &str) {
    let names = meta::at(manifest, &["spec", "names"]).cloned().unwrap_or_default();
    let storage = meta::at(manifest, &["spec", "versions"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|version| version.get("storage") == Some(&Value::Bool(true)))
        .map(|version| text(version, &["name"]).to_owned())
        .unwrap_or_default();
    let mut stored = texts(status, &["storedVersions"]);
    if !stored.contains(&storage) {
        stored.push(storage);
    }
    let since = |kind: &str| {
        let conditions = meta::at(status, &["conditions"]).and_then(Value::as_array).into_iter().flatten();
        let old = conditions.filter(|condition| text(condition, &["type"]) == kind && text(condition, &["status"]) == "True");
        old.map(|condition| text(condition, &["lastTransitionTime"]).to_owned()).next().unwrap_or_else(|| now.to_owned())
    };
    let mut conditions = vec![
        json!({"type": "NamesAccepted", "status": "True", "lastTransitionTime": since("NamesAccepted"), "reason": "NoConflicts", "message": "no conflicts found"}),
        json!({"type": "Established", "status": "True", "lastTransitionTime": since("Established"), "reason": "InitialNamesAccepted", "message": "the initial names have been accepted"}),
    ];
    if meta::deletion_timestamp(manifest).is_some() {
        conditions.push(json!({"type": "Terminating", "status": "True", "lastTransitionTime": since("Terminating"), "reason": "InstanceDeletionInProgress", "message": "CustomResource deletion is in progress"}));
    }
    *status = json!({"conditions": conditions, "acceptedNames": names, "storedVersions": stored});
}

/// Brings the registry in line with the stored definition called `name`.
pub fn refresh(inner: &Inner, name: &str) {
    let stored = inner.get(&ObjectKey::new(&storage(), "", name));
    let Some((plural, group)) = name.split_once('.') else { return };
    match stored {
        None => {
            inner.change_registry(|registry| registry.remove(group, plural));
            inner.state().store.end_watches(&ResourceId::new(group, plural));
        }
        Some(entry) => match resource(&entry.value()) {
            Ok(resource) => inner.change_registry(|registry| registry.insert(Arc::new(resource))),
            // Stored definitions were checked when they were written.
            Err(errors) => tracing::warn!(name, ?errors, "a stored definition is not usable"),
        },
    }
}

/// Serves the stored definitions and installs the prepared ones: those that are missing are made, those that differ are brought up to date.
///
/// # Errors
/// When one cannot be written.
pub async fn install(inner: &Arc<Inner>, prepared: &[Prepared]) -> Result<(), OpenError> {
    let stored = inner.state().store.list(&storage(), None);
    let mut resources: Vec<Arc<Resource>> = Vec::new();
    for entry in &stored {
        let known =
            prepared.iter().find(|prepared| meta::name(&prepared.manifest) == &*entry.key.name && holds(&entry.bytes, &prepared.text));
        match known {
            Some(prepared) => resources.push(prepared.resource.clone()),
            None => match resource(&entry.value()) {
                Ok(resource) => resources.push(Arc::new(resource)),
                Err(errors) => tracing::warn!(name = &*entry.key.name, ?errors, "a stored definition is not usable"),
            },
        }
    }
    let missing = prepared.iter().filter(|prepared| {
        !stored.iter().any(|entry| meta::name(&prepared.manifest) == &*entry.key.name && holds(&entry.bytes, &prepared.text))
    });
    let missing: Vec<&Prepared> = missing.collect();
    resources.extend(missing.iter().map(|prepared| prepared.resource.clone()));
    // Side by side, so that a journal in a file takes them as one batch.
    let writes = missing.into_iter().map(async |prepared| {
        store_definition(inner, prepared).await.map_err(|error| OpenError::Start {
            what: format!("the definition {}", meta::name(&prepared.manifest)),
            reason: error.to_string(),
        })
    });
    futures::future::try_join_all(writes).await?;
    inner.change_registry(|registry| resources.into_iter().for_each(|resource| registry.insert(resource)));
    Ok(())
}

/// Whether stored bytes end with this specification, as [`store_definition`] lays them out.
fn holds(bytes: &[u8], specification: &str) -> bool {
    bytes.strip_suffix(b"}").is_some_and(|bytes| bytes.ends_with(specification.as_bytes()))
}

async fn store_definition(inner: &Arc<Inner>, prepared: &Prepared) -> Result<(), StatusError> {
    let now = inner.clock.now_seconds().to_string();
    let key = ObjectKey::new(&storage(), "", meta::name(&prepared.manifest));
    let old = inner.latest(&key);
    let stored = old.as_ref().map(|entry| entry.value());
    let mut metadata = stored.as_ref().and_then(|object| object.get("metadata").cloned()).unwrap_or_else(|| {
        json!({"name": &*key.name, "uid": inner.uids.uuid().to_string(), "creationTimestamp": now, "generation": 0, "finalizers": [CLEANUP]})
    });
    let generation = metadata.get("generation").and_then(Value::as_u64).unwrap_or(0) + 1;
    if let Some(map) = metadata.as_object_mut() {
        map.insert("generation".to_owned(), json!(generation));
        for field in ["labels", "annotations"] {
            let Some(wanted) = meta::at(&prepared.manifest, &["metadata", field]).and_then(Value::as_object) else { continue };
            if let Some(present) = map.entry(field).or_insert_with(|| json!({})).as_object_mut() {
                present.extend(wanted.clone());
            }
        }
    }
    let mut status = stored.as_ref().and_then(|object| object.get("status").cloned()).unwrap_or_else(|| json!({}));
    accept(&prepared.manifest, &mut status, &now);
    let object =
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": metadata, "status": status});
    let content = Content { object, specification: Some(prepared.text.clone()) };
    inner.commit(&key, old.map(|entry| entry.revision), Some(content)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deprecated_version_names_the_one_to_use() {
        let version = |name: &str, storage: bool, deprecated: bool| {
            json!({"name": name, "served": true, "storage": storage, "deprecated": deprecated,
                   "schema": {"openAPIV3Schema": {"type": "object"}}})
        };
        let definition = |versions: Vec<Value>| {
            let manifest = json!({"metadata": {"name": "pools.ipam.io"}, "spec": {"group": "ipam.io", "scope": "Namespaced",
                "names": {"plural": "pools", "kind": "Pool"}, "versions": versions}});
            let versions = resource(&manifest).unwrap().versions;
            versions.iter().map(|version| version.warning.clone().unwrap_or_default()).collect::<Vec<_>>()
        };
        let warnings =
            definition(vec![version("v1alpha1", false, true), version("v1alpha2", true, false), version("v1beta1", false, true)]);
        let words = ["ipam.io/v1beta1 Pool is deprecated", "", "ipam.io/v1alpha1 Pool is deprecated; use ipam.io/v1alpha2 Pool"];
        assert_eq!(warnings, words);
    }
}
