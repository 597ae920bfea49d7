//! Patches, by their media types. What a resource does not take is refused with the list of what it takes.

use apimachinery::{GroupKind, StatusError, patch};
use serde_json::Value;

/// A change to an object, as it came.
#[derive(Debug)]
pub enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// Reads a patch by its media type.
    ///
    /// # Errors
    /// When the resource does not take this type, or the body is not JSON.
    pub fn parse(media: &str, body: &[u8], is_custom: bool) -> Result<Self, StatusError> {
        match media {
            "application/json-patch+json" => Ok(Self::Json(crate::body::parse_json(body)?)),
            "application/merge-patch+json" => Ok(Self::Merge(crate::body::parse_json(body)?)),
            "application/strategic-merge-patch+json" if !is_custom => Ok(Self::Strategic(crate::body::parse_json(body)?)),
            "application/apply-patch+yaml" => {
                let mut error = StatusError::unsupported_media_type(&["application/json-patch+json", "application/merge-patch+json"]);
                error.message = format!(
                    "server-side apply is not served by this version; use client-side apply (kubectl apply without --server-side): {}",
                    error.message
                );
                Err(error)
            }
            _ if is_custom => Err(StatusError::unsupported_media_type(&[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/apply-patch+yaml",
            ])),
            _ => Err(StatusError::unsupported_media_type(&[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
                "application/apply-patch+yaml",
            ])),
        }
    }

    /// The object after the patch.
    ///
    /// # Errors
    /// When the patch does not fit the object.
    pub fn apply(&self, current: &Value, kind: &GroupKind) -> Result<Value, StatusError> {
        let mut object = current.clone();
        match self {
            Self::Json(operations) => patch::json_patch(&mut object, operations)?,
            Self::Merge(merge) => patch::merge_patch(&mut object, merge),
            Self::Strategic(merge) => patch::strategic_merge(&mut object, merge, kind)?,
        }
        Ok(object)
    }
}
