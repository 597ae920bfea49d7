//! Writing: create, update and patch, from the body to the commit.
//!
//! ```text
//!  body -> strict check, pruning, defaults (version of the request) -> storage version -> what the kind does by itself
//!       -> schema -> mutate -> schema again if it was not content -> validate -> commit, or again from the top when the object moved
//! ```
//!
//! System metadata is the server's: a client's `uid`, `creationTimestamp`, `deletionTimestamp` and `generation` are never taken over. A
//! write that changes nothing is answered with the stored object and leaves no revision behind. Types are checked before admission, so that
//! rules may rely on them; `managedFields` are not kept, since nothing here is applied by the server yet.

use std::sync::Arc;

use apimachinery::{FieldError, GroupKind, StatusError, meta, names};
use serde_json::{Value, json};

use crate::admit::Admitting;
use crate::metadata::{check_metadata, differs_in_specification, is_finished, keep, restore_metadata};
use crate::object::{Entry, ObjectKey, ResourceId};
use crate::patch::Patch;
use crate::present::Presenter;
use crate::registry::{Resource, Version};
use crate::request::Query;
use crate::response::{self, Answer};
use crate::server::{CommitError, Inner};
use crate::strategy;

/// How often a write is decided anew when the object keeps moving.
const ATTEMPTS: usize = 64;
/// How often a generated name is drawn anew when it is taken.
const NAME_ATTEMPTS: usize = 8;

/// What happens with unknown fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// The parameters that all writes have.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    pub is_dry_run: bool,
    pub validation: FieldValidation,
}

impl Parameters {
    /// Reads them.
    ///
    /// # Errors
    /// When one has a value that is not known; `options` is the kind of options the error names.
    pub fn parse(query: &Query, options: &str) -> Result<Self, StatusError> {
        let mut errors = Vec::new();
        let dry_run: Vec<&str> = query.all("dryRun").collect();
        if dry_run.iter().any(|value| *value != "All") {
            errors.push(FieldError::not_supported("dryRun", json!(dry_run), &["All"]));
        }
        let validation = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some("Ignore") => FieldValidation::Ignore,
            Some(other) => {
                errors.push(FieldError::not_supported("fieldValidation", other, &["Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        };
        if !errors.is_empty() {
            return Err(StatusError::invalid(&GroupKind::new("meta.k8s.io", options), "", errors));
        }
        Ok(Self { is_dry_run: !dry_run.is_empty(), validation })
    }
}

/// One write on one resource.
pub struct Write<'a> {
    pub inner: &'a Arc<Inner>,
    pub presenter: &'a Presenter,
    pub namespace: &'a str,
    pub parameters: Parameters,
}

impl Write<'_> {
    pub(crate) fn resource(&self) -> &Resource {
        &self.presenter.resource
    }

    pub(crate) fn version(&self) -> Result<&Version, StatusError> {
        self.presenter.version().ok_or_else(StatusError::unknown_resource)
    }

    pub(crate) fn invalid(&self, name: &str, errors: Vec<FieldError>) -> StatusError {
        StatusError::invalid(&self.resource().group_kind(), name, errors)
    }

    /// Whether objects go to the storage in the version of the request.
    pub(crate) fn is_stored_version(&self) -> bool {
        self.presenter.version == self.resource().storage && !self.resource().is_view()
    }

    /// The object in the version it is stored in.
    fn to_stored(&self, object: Value) -> Result<Value, StatusError> {
        if self.resource().is_view() {
            return Ok(crate::events::to_stored(object));
        }
        match self.resource().stored() {
            Some(stored) if !self.is_stored_version() => self.inner.conversion.convert(object, &stored.name),
            _ => Ok(object),
        }
    }

    /// Checks that the body is of the kind of the path; an absent kind is filled in.
    fn check_kind(&self, object: &mut Value) -> Result<(), StatusError> {
        let version = self.version()?;
        let Some(map) = object.as_object_mut() else {
            return Err(StatusError::bad_request(
                "the body is not an object; expected one of this kind: ".to_owned() + &self.resource().kind,
            ));
        };
        for (field, expected, what) in
            [("apiVersion", version.api_version.as_str(), "API version"), ("kind", self.resource().kind.as_str(), "kind")]
        {
            match map.get(field).and_then(Value::as_str) {
                None | Some("") if field == "kind" && self.resource().is_custom() => {
                    return Err(StatusError::bad_request(format!("Object 'Kind' is missing in '{}'", Value::Object(map.clone()))));
                }
                None | Some("") => drop(map.insert(field.to_owned(), json!(expected))),
                Some(given) if given == expected => {}
                Some(given) => {
                    return Err(StatusError::bad_request(format!(
                        "the {what} in the data ({given}) does not match the expected {what} ({expected})"
                    )));
                }
            }
        }
        match map.get("metadata") {
            None | Some(Value::Null) => drop(map.insert("metadata".to_owned(), json!({}))),
            Some(Value::Object(_)) => {}
            Some(_) => {
                return Err(
                    self.invalid("", vec![FieldError::type_invalid("metadata", "object", "metadata in body must be of type object")])
                );
            }
        }
        meta::unset(object, "managedFields");
        meta::unset(object, "selfLink");
        Ok(())
    }

    /// The namespace of the body must be that of the path, or absent.
    fn check_namespace(&self, object: &mut Value) -> Result<(), StatusError> {
        if !self.resource().is_namespaced {
            meta::unset(object, "namespace");
            return Ok(());
        }
        match meta::namespace(object) {
            None => meta::set(object, "namespace", self.namespace),
            Some(given) if given == self.namespace => {}
            Some(_) => {
                return Err(StatusError::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
        }
        Ok(())
    }

    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(&self.resource().id, if self.resource().is_namespaced { self.namespace } else { "" }, name)
    }

    /// Nothing is made in a namespace that is missing or being deleted.
    fn check_home(&self, name: &str) -> Result<(), StatusError> {
        if !self.resource().is_namespaced {
            return Ok(());
        }
        let namespaces = ResourceId::new("", "namespaces");
        let namespace = self.inner.latest(&ObjectKey::new(&namespaces, "", self.namespace));
        let namespace =
            namespace.ok_or_else(|| StatusError::not_found(&apimachinery::GroupResource::new("", "namespaces"), self.namespace))?;
        if namespace.is_deleting() {
            return Err(StatusError::namespace_terminating(&self.resource().group_resource(), name, self.namespace));
        }
        Ok(())
    }

    /// Creates the object.
    ///
    /// # Errors
    /// The answer to the client.
    pub async fn create(&self, mut object: Value, path_name: Option<&str>) -> Result<Answer, StatusError> {
        self.check_kind(&mut object)?;
        self.check_namespace(&mut object)?;
        if path_name.is_some_and(|name| name != meta::name(&object)) {
            return Err(StatusError::bad_request("the name of the object does not match the name on the URL"));
        }
        if meta::resource_version(&object).is_some_and(|version| version != "0") {
            return Err(StatusError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let mut warnings = self.decode(&mut object)?;
        let prefix = meta::generate_name(&object).filter(|_| meta::name(&object).is_empty()).map(str::to_owned);
        if prefix.is_none() && meta::name(&object).is_empty() {
            return Err(self.invalid("", vec![FieldError::required("metadata.name", "name or generateName is required")]));
        }
        self.check_home(meta::name(&object))?;
        let definition = crate::definition::storage();
        if self.resource().is_custom() {
            let name = self.resource().group_resource().to_string();
            if self.inner.latest(&ObjectKey::new(&definition, "", &name)).is_some_and(|definition| definition.is_deleting()) {
                return Err(StatusError::new(
                    405,
                    apimachinery::Reason::MethodNotAllowed,
                    "create not allowed while custom resource definition is terminating",
                ));
            }
        }
        let now = self.inner.clock.now_seconds().to_string();
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "generation"] {
            meta::unset(&mut object, field);
        }
        meta::set(&mut object, "creationTimestamp", now.as_str());
        if self.resource().has_generation() {
            meta::set(&mut object, "generation", 1);
        }
        for attempt in 1.. {
            // Only an object whose name may have to be drawn again is needed again.
            let mut object = if prefix.is_some() { object.clone() } else { std::mem::take(&mut object) };
            if let Some(prefix) = &prefix {
                meta::set(&mut object, "name", names::generated(prefix, &self.inner.names.name_suffix(5)));
            }
            let name = meta::name(&object).to_owned();
            let errors = check_metadata(self.resource(), &object, None);
            if !errors.is_empty() {
                return Err(self.invalid(&name, errors));
            }
            let key = self.key(&name);
            meta::set(&mut object, "uid", self.inner.uids.uuid().to_string());
            let admitting = Admitting { name: &name, old: None, old_shown: None, subresource: "" };
            let unsettled = if self.is_stored_version() { None } else { Some(self.judge_shown(&admitting, &object)?) };
            let mut object = self.to_stored(object)?;
            strategy::prepare_create(self.resource(), &mut object, &now);
            let admitted = self.admit(&admitting, unsettled, &mut object)?;
            if self.inner.latest(&key).is_some() {
                if prefix.is_some() && attempt < NAME_ATTEMPTS {
                    continue;
                }
                return Err(StatusError::already_exists(&self.resource().group_resource(), &name));
            }
            warnings.extend(admitted);
            if self.parameters.is_dry_run {
                return Ok(response::with_warnings(response::json(201, self.presenter.unstored(self.inner, object)?), &warnings));
            }
            return match self.inner.commit(&key, None, Some(object.into())).await {
                Ok(entry) => Ok(response::with_warnings(response::json(201, self.presenter.one(self.inner, &entry)?), &warnings)),
                Err(CommitError::Moved) if prefix.is_some() && attempt < NAME_ATTEMPTS => continue,
                Err(CommitError::Moved) => Err(StatusError::already_exists(&self.resource().group_resource(), &name)),
                Err(CommitError::Homeless) => {
                    self.check_home(&name)?;
                    Err(CommitError::Homeless.into())
                }
                Err(other) => Err(other.into()),
            };
        }
        Err(StatusError::internal("no name was found"))
    }

    /// Changes the object called `name`: `produce` makes the wanted state, in the version of the request, from the present one. It is
    /// called again when the object moved meanwhile.
    ///
    /// # Errors
    /// The answer to the client.
    pub async fn modify(
        &self,
        name: &str,
        subresource: &str,
        produce: &(dyn Fn(&Value) -> Result<Value, StatusError> + Sync),
    ) -> Result<(Modified, Vec<String>), StatusError> {
        let key = self.key(name);
        for _ in 0..ATTEMPTS {
            let entry = self.inner.latest(&key).ok_or_else(|| StatusError::not_found(&self.resource().group_resource(), name))?;
            let (outcome, warnings) = self.decide(&entry, name, subresource, produce)?;
            let (content, last) = match outcome {
                Decision::Unchanged => return Ok((Modified::Stored(entry), warnings)),
                Decision::Put(object) | Decision::Remove(object) if self.parameters.is_dry_run => {
                    return Ok((Modified::Unstored(object), warnings));
                }
                Decision::Put(object) => (Some(object.into()), None),
                Decision::Remove(object) => (None, Some(object)),
            };
            match (self.inner.commit(&key, Some(entry.revision), content).await, last) {
                (Ok(_), Some(last)) => return Ok((Modified::Unstored(last), warnings)),
                (Ok(entry), None) => return Ok((Modified::Stored(entry), warnings)),
                (Err(CommitError::Moved), _) => {}
                (Err(other), _) => return Err(other.into()),
            }
        }
        Err(CommitError::Moved.into())
    }

    fn decide(
        &self,
        entry: &Arc<Entry>,
        name: &str,
        subresource: &str,
        produce: &(dyn Fn(&Value) -> Result<Value, StatusError> + Sync),
    ) -> Result<(Decision, Vec<String>), StatusError> {
        let resource = self.resource().group_resource();
        let stored = entry.shared();
        let stored: &Value = &stored;
        let converted = if self.is_stored_version() { None } else { Some(self.presenter.convert(self.inner, stored.clone())?) };
        let current = converted.as_ref().unwrap_or(stored);
        let mut wanted = produce(current)?;
        self.check_kind(&mut wanted)?;
        self.check_namespace(&mut wanted)?;
        if meta::name(&wanted).is_empty() {
            meta::set(&mut wanted, "name", name);
        } else if meta::name(&wanted) != name {
            let given = meta::name(&wanted);
            return Err(StatusError::bad_request(format!("the name of the object ({given}) does not match the name on the URL ({name})")));
        }
        let uid = meta::uid(&wanted);
        if !uid.is_empty() && uid != entry.facts.uid {
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", entry.facts.uid);
            return Err(StatusError::conflict(&resource, name, &why));
        }
        if meta::resource_version(&wanted).is_some_and(|version| version != entry.facts.resource_version) {
            return Err(StatusError::modified(&resource, name));
        }
        if meta::is_same(&wanted, current) {
            return Ok((Decision::Unchanged, Vec::new()));
        }
        let is_custom_status = subresource == "status" && self.resource().is_custom();
        let mut warnings = if is_custom_status && self.is_stored_version() {
            // Nothing but the status counts: the rest need not be looked at.
            self.decode_status(&mut wanted)?
        } else {
            self.decode(&mut wanted)?
        };
        let admitting = Admitting { name, old: Some(stored), old_shown: converted.as_ref(), subresource };
        let unsettled = if self.is_stored_version() { None } else { Some(self.judge_shown(&admitting, &wanted)?) };
        let mut object = self.to_stored(wanted)?;
        restore_metadata(&mut object, stored);
        self.isolate(&mut object, stored, subresource);
        let now = self.inner.clock.now_seconds().to_string();
        strategy::prepare_update(self.resource(), &mut object, stored, subresource, &now);
        if !is_custom_status {
            let errors = check_metadata(self.resource(), &object, Some(stored));
            if !errors.is_empty() {
                return Err(self.invalid(name, errors));
            }
        }
        warnings.extend(self.admit(&admitting, unsettled, &mut object)?);
        restore_metadata(&mut object, stored);
        if self.resource().has_generation() && subresource != "status" && differs_in_specification(&object, stored) {
            meta::set(&mut object, "generation", meta::generation(stored) + 1);
        }
        if meta::is_same(&object, stored) {
            return Ok((Decision::Unchanged, warnings));
        }
        let decision = if is_finished(self.resource(), &object) { Decision::Remove(object) } else { Decision::Put(object) };
        Ok((decision, warnings))
    }

    /// A write to the object leaves its status alone, and the reverse.
    fn isolate(&self, object: &mut Value, stored: &Value, subresource: &str) {
        let has_status = self.resource().stored().is_some_and(|version| version.has_status);
        if subresource == "status" {
            let is_kept = |field: &str| field != "status" && (field != "metadata" || self.resource().is_custom());
            if let Some(map) = object.as_object_mut() {
                map.retain(|field, _| !is_kept(field) || stored.get(field).is_some());
            }
            for field in stored.as_object().into_iter().flat_map(|map| map.keys()).filter(|field| is_kept(field)) {
                keep(object, stored, field);
            }
        } else if has_status && subresource != "finalize" {
            keep(object, stored, "status");
        }
    }

    /// Answers with what a change led to.
    ///
    /// # Errors
    /// When the object cannot be shown in the version of the request.
    pub fn answer(&self, modified: Modified, warnings: &[String]) -> Result<Answer, StatusError> {
        let bytes = match modified {
            Modified::Stored(entry) => self.presenter.one(self.inner, &entry)?,
            Modified::Unstored(object) => self.presenter.unstored(self.inner, object)?,
        };
        Ok(response::with_warnings(response::json(200, bytes), warnings))
    }

    /// Replaces the object.
    ///
    /// # Errors
    /// The answer to the client.
    pub async fn update(&self, name: &str, subresource: &str, object: Value) -> Result<Answer, StatusError> {
        if meta::resource_version(&object).is_none() && self.resource().is_custom() {
            let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
            return Err(self.invalid(name, vec![error]));
        }
        let produce = |_: &Value| Ok(object.clone());
        let (modified, warnings) = self.modify(name, subresource, &produce).await?;
        self.answer(modified, &warnings)
    }

    /// Patches the object.
    ///
    /// # Errors
    /// The answer to the client.
    pub async fn patch(&self, name: &str, subresource: &str, patch: &Patch) -> Result<Answer, StatusError> {
        let kind = self.resource().group_kind();
        let produce = |current: &Value| patch.apply(current, &kind);
        let (modified, warnings) = self.modify(name, subresource, &produce).await?;
        self.answer(modified, &warnings)
    }
}

enum Decision {
    Unchanged,
    Put(Value),
    /// The last finalizer went: the object goes as well.
    Remove(Value),
}

/// What became of a change.
#[derive(Debug)]
pub enum Modified {
    Stored(Arc<Entry>),
    /// Of a dry run, or the last state of an object that is gone now.
    Unstored(Value),
}
