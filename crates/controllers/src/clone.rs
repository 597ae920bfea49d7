//! Objects made from templates of other providers, as upstream's `external.CreateFromTemplate`: the spec inside the template, its labels and
//! annotations, the two annotations that tell where it came from, the owner.
//!
//! The new object's name is chosen by the caller **before** the call and stands in what refers to it, so a second call finds the first
//! one's result instead of making another.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::meta::ContractReference;
use api::names::annotations;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DynamicObject, PostParams};
use runtime::reconcile::{ObjectKey, explain};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::contract::{ContractError, External, Externals};

/// A template that could not be cloned.
#[derive(Debug, Error)]
pub enum CloneError {
    #[error(transparent)]
    Contract(#[from] ContractError),
    #[error("{kind} {name} does not exist")]
    NoTemplate { kind: String, name: String },
    #[error("{kind} {name} has no spec.template.spec")]
    NotATemplate { kind: String, name: String },
    #[error("{what}: {reason}")]
    Call { what: String, reason: String },
    #[error("{kind} {name} exists already and belongs to something else")]
    Taken { kind: String, name: String },
}

/// What is to be made.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub namespace: &'a str,
    pub template: &'a ContractReference,
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    pub annotations: &'a BTreeMap<String, String>,
    /// Recognizes an object that an earlier call made.
    pub owner: OwnerReference,
}

/// The kind of what a template makes: `VSphereMachine` of `VSphereMachineTemplate`.
pub fn kind_of(template_kind: &str) -> &str {
    template_kind.strip_suffix("Template").unwrap_or(template_kind)
}

/// The new object, from the template's JSON. Pure.
pub fn from_template(request: &Request<'_>, template: &Value, api_version: &str) -> Option<Value> {
    let inner = template.pointer("/spec/template")?;
    let spec = inner.get("spec")?.clone();
    let text = |part: &str| -> BTreeMap<String, String> {
        inner.pointer(&format!("/metadata/{part}")).and_then(|map| serde_json::from_value(map.clone()).ok()).unwrap_or_default()
    };
    let mut labels = text("labels");
    labels.extend(request.labels.clone());
    let mut new_annotations = text("annotations");
    new_annotations.extend(request.annotations.clone());
    new_annotations.insert(annotations::CLONED_FROM_NAME.to_owned(), request.template.name.clone());
    let group_kind = format!("{}.{}", request.template.kind, request.template.api_group);
    new_annotations.insert(annotations::CLONED_FROM_GROUPKIND.to_owned(), group_kind);
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(request.name));
    metadata.insert("namespace".to_owned(), json!(request.namespace));
    metadata.insert("labels".to_owned(), json!(labels));
    metadata.insert("annotations".to_owned(), json!(new_annotations));
    metadata.insert("ownerReferences".to_owned(), json!([request.owner]));
    let kind = kind_of(&request.template.kind);
    Some(json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}))
}

/// Makes the object; one that an earlier call made is as good.
///
/// # Errors
/// When there is no such template, the name is taken by something else, or the API refuses.
pub async fn create(externals: &Externals, request: &Request<'_>) -> Result<Arc<External>, CloneError> {
    let reference = request.template;
    let templates = externals.store(&reference.api_group, &reference.kind).await?;
    let what = |verb: &str| format!("{verb} {} {}", reference.kind, reference.name);
    let api: Api<DynamicObject> = Api::namespaced_with(templates.client().clone(), request.namespace, templates.dyntype());
    let found = api.get_opt(&reference.name).await;
    let found = found.map_err(|error| CloneError::Call { what: what("get"), reason: explain(&error) })?;
    let missing = || CloneError::NoTemplate { kind: reference.kind.clone(), name: reference.name.clone() };
    let template = found.ok_or_else(missing)?;
    let template = serde_json::to_value(template).unwrap_or_default();

    let kind = kind_of(&reference.kind);
    let store = externals.store(&reference.api_group, kind).await?;
    let no_spec = || CloneError::NotATemplate { kind: reference.kind.clone(), name: reference.name.clone() };
    // The template's version: its spec is written in it.
    let object = from_template(request, &template, &templates.dyntype().api_version).ok_or_else(no_spec)?;
    let object: DynamicObject = serde_json::from_value(object).map_err(|_| no_spec())?;
    let mut resource = store.dyntype().clone();
    resource.api_version.clone_from(&templates.dyntype().api_version);
    resource.version.clone_from(&templates.dyntype().version);
    let api: Api<DynamicObject> = Api::namespaced_with(store.client().clone(), request.namespace, &resource);
    match api.create(&PostParams::default(), &object).await {
        Ok(made) => {
            let made: External = serde_json::from_value(serde_json::to_value(made).unwrap_or_default()).unwrap_or_default();
            Ok(store.wrote(made))
        }
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let key = ObjectKey::namespaced(request.namespace, request.name);
            let there = store.fetch(&key).await;
            let there = there.map_err(|error| CloneError::Call { what: format!("get {kind} {key}"), reason: error.to_string() })?;
            let is_ours = |object: &External| object.metadata.owner_references.iter().flatten().any(|owner| owner.uid == request.owner.uid);
            there.filter(|there| is_ours(there)).ok_or_else(|| CloneError::Taken { kind: kind.to_owned(), name: request.name.to_owned() })
        }
        Err(error) => Err(CloneError::Call { what: format!("create {kind} {}", request.name), reason: explain(&error) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_carries_what_its_template_says_and_where_it_came_from() {
        let template = ContractReference {
            api_group: "infrastructure.cluster.x-k8s.io".to_owned(),
            kind: "VSphereMachineTemplate".to_owned(),
            name: "tmpl".to_owned(),
        };
        let labels = BTreeMap::from([("a".to_owned(), "machine".to_owned())]);
        let request = Request {
            namespace: "ns",
            template: &template,
            name: "m-1",
            labels: &labels,
            annotations: &BTreeMap::new(),
            owner: OwnerReference { uid: "u".to_owned(), ..OwnerReference::default() },
        };
        let source = json!({"metadata": {"labels": {"never": "carried"}},
            "spec": {"template": {"metadata": {"labels": {"a": "template", "b": "template"}, "annotations": {"c": "d"}}, "spec": {"numCPUs": 2}}}});
        let made = from_template(&request, &source, "infrastructure.cluster.x-k8s.io/v1beta2").unwrap();
        assert_eq!(made["kind"], "VSphereMachine");
        assert_eq!(made["spec"], json!({"numCPUs": 2}));
        assert_eq!(made["metadata"]["labels"], json!({"a": "machine", "b": "template"}));
        assert_eq!(
            made["metadata"]["annotations"],
            json!({"c": "d", "cluster.x-k8s.io/cloned-from-name": "tmpl",
                "cluster.x-k8s.io/cloned-from-groupkind": "VSphereMachineTemplate.infrastructure.cluster.x-k8s.io"})
        );
        assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(from_template(&request, &json!({"spec": {}}), "v1"), None);
    }
}
