//! What the API server asks of others about the kinds it stores: defaults, rules and conversion.
//!
//! The server knows no kind's rules. They are handed in as values of these traits, which stand where webhooks stand
//! upstream: pure, synchronous, seeing other objects only through [`Lookup`].

use std::fmt::Debug;

use serde_json::Value;

use crate::gvk::{GroupKind, GroupVersionKind};
use crate::status::StatusError;

/// What a request does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// A new object.
    Create,
    /// A new content of an existing object, status and scale included.
    Update,
    /// The wish to delete; the object may stay for its finalizers.
    Delete,
}

/// The request that admission judges.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The object's kind, in the version it is stored in.
    pub gvk: &'a GroupVersionKind,
    /// What is done.
    pub operation: Operation,
    /// `status`, `scale`, or none for the object itself.
    pub subresource: Option<&'a str>,
    /// The object's name; on creation after `generateName` was carried out.
    pub name: &'a str,
    /// The object's namespace; none for cluster-scoped kinds.
    pub namespace: Option<&'a str>,
    /// The object as it is stored before the request; none on creation.
    pub old: Option<&'a Value>,
    /// Whether nothing will be stored.
    pub dry_run: bool,
}

/// Reads other objects, in the version they are stored in, at the moment of the request.
pub trait Lookup: Sync {
    /// One object.
    fn get(&self, kind: &GroupKind, namespace: Option<&str>, name: &str) -> Option<Value>;
    /// All objects of a kind, of one namespace or of all, by namespace and name.
    fn list(&self, kind: &GroupKind, namespace: Option<&str>) -> Vec<Value>;
}

/// Defaults and rules of kinds.
pub trait Admission: Send + Sync + Debug {
    /// Fills in defaults that a schema cannot express. Called on create and update, before the schema is checked.
    ///
    /// # Errors
    /// The answer to the client when the object is beyond defaulting.
    fn mutate(&self, request: &Request<'_>, object: &mut Value, lookup: &dyn Lookup) -> Result<(), StatusError>;

    /// Judges the object after defaults; `None` on deletion. Returns warnings for the client.
    ///
    /// # Errors
    /// The answer to the client when the request is refused.
    fn validate(&self, request: &Request<'_>, object: Option<&Value>, lookup: &dyn Lookup) -> Result<Vec<String>, StatusError>;
}

/// Conversion of objects between the versions of their kind.
pub trait Conversion: Send + Sync + Debug {
    /// The object in another version; its own `apiVersion` tells which one it is in.
    ///
    /// # Errors
    /// When the kind has no such version or the object cannot be expressed in it.
    fn convert(&self, object: Value, to_version: &str) -> Result<Value, StatusError>;
}

/// Admits everything and changes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAdmission;

impl Admission for NoAdmission {
    fn mutate(&self, _: &Request<'_>, _: &mut Value, _: &dyn Lookup) -> Result<(), StatusError> {
        Ok(())
    }

    fn validate(&self, _: &Request<'_>, _: Option<&Value>, _: &dyn Lookup) -> Result<Vec<String>, StatusError> {
        Ok(Vec::new())
    }
}

/// Rewrites the `apiVersion` and nothing else: the strategy `None` of a CustomResourceDefinition.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoConversion;

impl Conversion for NoConversion {
    fn convert(&self, mut object: Value, to_version: &str) -> Result<Value, StatusError> {
        let gvk = GroupVersionKind::of(&object).map_err(|error| StatusError::bad_request(error.to_string()))?;
        if let Some(map) = object.as_object_mut() {
            map.insert("apiVersion".to_owned(), Value::String(gvk.with_version(to_version).api_version()));
        }
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_conversion_keeps_all_but_the_version() {
        let object = json!({"apiVersion": "a.b/v1", "kind": "K", "spec": {"x": 1}});
        assert_eq!(NoConversion.convert(object, "v2").unwrap(), json!({"apiVersion": "a.b/v2", "kind": "K", "spec": {"x": 1}}));
    }
}
