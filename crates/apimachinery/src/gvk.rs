//! Names of kinds and resources: group, version, kind and resource, parsed and printed as Kubernetes does.
//!
//! The core group is the empty string; its `apiVersion` is the version alone. These types carry names only and never
//! decide whether a kind is served.

use std::fmt;

use serde_json::Value;

/// Why an `apiVersion` or an object's type could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GvkError {
    /// More than one slash, as in `a/b/c`.
    #[error("unexpected GroupVersion string: {0}")]
    ApiVersion(String),
    /// The object carries no `kind`.
    #[error("Object 'Kind' is missing in '{0}'")]
    MissingKind(String),
}

/// Splits an `apiVersion` into group and version.
///
/// # Errors
/// When there is more than one slash.
pub fn parse_api_version(api_version: &str) -> Result<(String, String), GvkError> {
    match api_version.split_once('/') {
        None => Ok((String::new(), api_version.to_owned())),
        Some((group, version)) if !version.contains('/') => Ok((group.to_owned(), version.to_owned())),
        Some(_) => Err(GvkError::ApiVersion(api_version.to_owned())),
    }
}

/// Prints group and version as an `apiVersion`: `v1` for the core group, `group/version` otherwise.
#[must_use]
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Group, version and kind of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupVersionKind {
    /// API group; empty for the core group.
    pub group: String,
    /// Version, such as `v1beta2`.
    pub version: String,
    /// Kind, such as `Machine`.
    pub kind: String,
}

impl GroupVersionKind {
    /// A kind by its three names.
    pub fn new(group: impl Into<String>, version: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// The kind that an object declares of itself.
    ///
    /// # Errors
    /// When `kind` is missing or `apiVersion` has more than one slash.
    pub fn of(object: &Value) -> Result<Self, GvkError> {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
        if kind.is_empty() {
            return Err(GvkError::MissingKind(object.to_string()));
        }
        let (group, version) = parse_api_version(object.get("apiVersion").and_then(Value::as_str).unwrap_or_default())?;
        Ok(Self { group, version, kind: kind.to_owned() })
    }

    /// The `apiVersion` of objects of this kind.
    #[must_use]
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// The kind without its version.
    #[must_use]
    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }

    /// The same kind in another version.
    #[must_use]
    pub fn with_version(&self, version: impl Into<String>) -> Self {
        Self { group: self.group.clone(), version: version.into(), kind: self.kind.clone() }
    }
}

impl fmt::Display for GroupVersionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, Kind={}", self.api_version(), self.kind)
    }
}

/// Group and kind, whatever the version.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKind {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind, such as `Machine`.
    pub kind: String,
}

impl GroupKind {
    /// A kind by its two names.
    pub fn new(group: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { group: group.into(), kind: kind.into() }
    }

    /// This kind in one version.
    #[must_use]
    pub fn with_version(&self, version: impl Into<String>) -> GroupVersionKind {
        GroupVersionKind { group: self.group.clone(), version: version.into(), kind: self.kind.clone() }
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.kind) } else { write!(f, "{}.{}", self.kind, self.group) }
    }
}

/// Group, version and resource: what a URL names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupVersionResource {
    /// API group; empty for the core group.
    pub group: String,
    /// Version, such as `v1beta2`.
    pub version: String,
    /// Resource in the plural, such as `machines`.
    pub resource: String,
}

impl GroupVersionResource {
    /// A resource by its three names.
    pub fn new(group: impl Into<String>, version: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { group: group.into(), version: version.into(), resource: resource.into() }
    }

    /// The resource without its version.
    #[must_use]
    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.clone(), resource: self.resource.clone() }
    }

    /// The `apiVersion` of objects of this resource.
    #[must_use]
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
}

impl fmt::Display for GroupVersionResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, Resource={}", self.api_version(), self.resource)
    }
}

/// Group and resource, whatever the version: what error messages name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupResource {
    /// API group; empty for the core group.
    pub group: String,
    /// Resource in the plural, such as `machines`.
    pub resource: String,
}

impl GroupResource {
    /// A resource by its two names.
    pub fn new(group: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.resource) } else { write!(f, "{}.{}", self.resource, self.group) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn api_versions_split_and_join() {
        for (text, group, version) in [("v1", "", "v1"), ("apps/v1", "apps", "v1"), ("", "", "")] {
            assert_eq!(parse_api_version(text), Ok((group.to_owned(), version.to_owned())));
            assert_eq!(api_version(group, version), text);
        }
        assert!(parse_api_version("a/b/c").is_err());
    }

    #[test]
    fn an_object_names_its_kind() {
        let object = json!({"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine"});
        let gvk = GroupVersionKind::of(&object).unwrap();
        assert_eq!(gvk, GroupVersionKind::new("cluster.x-k8s.io", "v1beta2", "Machine"));
        assert_eq!(gvk.to_string(), "cluster.x-k8s.io/v1beta2, Kind=Machine");
        assert_eq!(gvk.group_kind().to_string(), "Machine.cluster.x-k8s.io");
        assert_eq!(
            GroupVersionKind::of(&json!({"apiVersion": "v1"})).unwrap_err().to_string(),
            "Object 'Kind' is missing in '{\"apiVersion\":\"v1\"}'"
        );
    }
}
