//! Judging an object that is to be written: unknown fields, types and rules of the schema, admission, and the kind's own rules.
//!
//! The schema is asked before admission, so that rules may rely on types, and once more behind it when something was amiss that defaults may
//! have mended. A user's own version is judged first: its paths are the ones the user wrote.

use apimachinery::admission::{Lookup, Operation, Request};
use apimachinery::field::ErrorKind;
use apimachinery::schema;
use apimachinery::{FieldError, GroupKind, StatusError};
use serde_json::{Value, json};

use crate::object::ObjectKey;
use crate::registry::Version;
use crate::server::Inner;
use crate::strategy;
use crate::write::{FieldValidation, Write};

/// Sees other objects as they are stored now.
pub struct StoreLookup<'a>(pub &'a Inner);

impl Lookup for StoreLookup<'_> {
    fn get(&self, kind: &GroupKind, namespace: Option<&str>, name: &str) -> Option<Value> {
        let id = self.0.registry().of_kind(kind)?.id.clone();
        self.0.latest(&ObjectKey::new(&id, namespace.unwrap_or_default(), name)).map(|entry| entry.value())
    }

    fn list(&self, kind: &GroupKind, namespace: Option<&str>) -> Vec<Value> {
        let Some(id) = self.0.registry().of_kind(kind).map(|resource| resource.id.clone()) else { return Vec::new() };
        let entries = self.0.state().store.list(&id, namespace);
        entries.iter().map(|entry| entry.value()).collect()
    }
}

/// What an object is judged against.
#[derive(Clone, Copy, Debug)]
pub struct Admitting<'a> {
    pub name: &'a str,
    /// As it is stored before the write.
    pub old: Option<&'a Value>,
    /// The same in the version of the request, when that is another one.
    pub old_shown: Option<&'a Value>,
    /// Empty for the object itself.
    pub subresource: &'a str,
}

impl Write<'_> {
    /// A value of the wrong type in a built-in kind: there the genuine server cannot even read the object.
    fn undecodable(&self, wrong: &FieldError) -> StatusError {
        let (kind, version) = (self.resource().kind.as_str(), self.resource().stored().map_or("v1", |version| &version.name));
        let found = match wrong.bad_value.as_ref().and_then(Value::as_str) {
            Some("integer" | "number") => "number",
            Some("boolean") => "bool",
            Some(other) => other,
            None => "value",
        };
        let path = wrong.path.split('[').next().unwrap_or_default();
        let wanted = wrong.detail.split(" must be of type ").nth(1).and_then(|rest| rest.split(':').next()).unwrap_or("another type");
        StatusError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: json: cannot unmarshal {found} into Go struct field {kind}.{path} of type {wanted}"
        ))
    }

    /// Drops unknown fields and fills in defaults, in the version of the request. Returns warnings.
    ///
    /// # Errors
    /// When there are unknown fields and the client wants none.
    pub fn decode(&self, object: &mut Value) -> Result<Vec<String>, StatusError> {
        let version = self.version()?;
        let Some(schema) = &version.schema else { return Ok(Vec::new()) };
        let unknown: Vec<String> = schema.prune(object).into_iter().map(|path| format!("unknown field {path:?}")).collect();
        schema.default(object);
        if unknown.is_empty() {
            return Ok(Vec::new());
        }
        match self.parameters.validation {
            FieldValidation::Ignore => Ok(Vec::new()),
            FieldValidation::Warn => Ok(unknown),
            FieldValidation::Strict => Err(StatusError::strict_decoding(&self.resource().kind, &version.name, &unknown)),
        }
    }

    /// What the schema of `version` says against an object in it.
    fn schema_errors(version: &Version, object: &Value, old: Option<&Value>, subresource: &str) -> Vec<FieldError> {
        let mut errors = match &version.schema {
            None => Vec::new(),
            Some(schema) if subresource == "status" => schema.validate_field("status", object, old),
            Some(schema) => schema.validate(object, old),
        };
        if let Some(scale) = &version.scale {
            if subresource != "status" {
                errors.extend(schema::scale_spec_errors(object, &scale.spec_replicas));
            }
            if subresource == "status" {
                let selector = scale.label_selector.as_deref().filter(|_| scale.is_selector_text);
                errors.extend(schema::scale_status_errors(object, &scale.status_replicas, selector));
            }
        }
        errors
    }

    /// Judges an object in the user's own version, before it is converted. Types must be right, so that a conversion may rely on them; what
    /// else is amiss is returned, since defaults may mend it.
    ///
    /// # Errors
    /// When a value has the wrong type.
    pub fn judge_shown(&self, admitting: &Admitting<'_>, shown: &Value) -> Result<Vec<FieldError>, StatusError> {
        let is_status = if admitting.subresource == "status" { "status" } else { "" };
        let errors = Self::schema_errors(self.version()?, shown, admitting.old_shown, is_status);
        match errors.iter().find(|error| error.kind == ErrorKind::TypeInvalid) {
            Some(_) if self.resource().is_custom() => Err(self.invalid(admitting.name, errors)),
            Some(wrong) => Err(self.undecodable(wrong)),
            None => Ok(errors),
        }
    }

    /// Types and rules of the schema, admission, and the kind's own rules, on an object as it is stored. `unsettled` is what
    /// [`Write::judge_shown`] left, when the version of the request is another one.
    ///
    /// # Errors
    /// The answer to the client.
    pub fn admit(
        &self,
        admitting: &Admitting<'_>,
        unsettled: Option<Vec<FieldError>>,
        object: &mut Value,
    ) -> Result<Vec<String>, StatusError> {
        let Some(stored_version) = self.resource().stored() else { return Ok(Vec::new()) };
        let (name, old, subresource) = (admitting.name, admitting.old, admitting.subresource);
        let is_status = if subresource == "status" { "status" } else { "" };
        let errors = Self::schema_errors(stored_version, object, old, is_status);
        if let Some(wrong) = errors.iter().find(|error| error.kind == ErrorKind::TypeInvalid) {
            return Err(if self.resource().is_custom() { self.invalid(name, errors) } else { self.undecodable(wrong) });
        }
        let is_content = errors.is_empty() && unsettled.as_ref().is_none_or(Vec::is_empty);
        let kind = self.resource().stored_kind();
        let lookup = StoreLookup(self.inner);
        let request = Request {
            gvk: &kind,
            operation: if old.is_some() { Operation::Update } else { Operation::Create },
            subresource: Some(subresource).filter(|name| !name.is_empty()),
            name,
            namespace: Some(self.namespace).filter(|namespace| !namespace.is_empty()),
            old,
            dry_run: self.parameters.is_dry_run,
        };
        self.inner.admission.mutate(&request, object, &lookup)?;
        if !is_content {
            let mut errors = Vec::new();
            if unsettled.is_some() {
                let shown = self.presenter.convert(self.inner, object.clone())?;
                errors = Self::schema_errors(self.version()?, &shown, admitting.old_shown, is_status);
            }
            if errors.is_empty() {
                errors = Self::schema_errors(stored_version, object, old, is_status);
            }
            if !errors.is_empty() {
                return Err(self.invalid(name, errors));
            }
        }
        let errors = strategy::validate(self.resource(), object, old);
        if !errors.is_empty() {
            return Err(self.invalid(name, errors));
        }
        self.inner.admission.validate(&request, Some(object), &lookup)
    }

    /// As [`Write::decode`], for the status alone.
    ///
    /// # Errors
    /// As there.
    pub fn decode_status(&self, wanted: &mut Value) -> Result<Vec<String>, StatusError> {
        let Some(map) = wanted.as_object_mut() else { return Ok(Vec::new()) };
        let Some(status) = map.get_mut("status").map(Value::take) else { return Ok(Vec::new()) };
        let mut alone = json!({"status": status});
        let warnings = self.decode(&mut alone)?;
        if let Some(slot) = wanted.get_mut("status") {
            *slot = alone.get_mut("status").map(Value::take).unwrap_or_default();
        }
        Ok(warnings)
    }
}
