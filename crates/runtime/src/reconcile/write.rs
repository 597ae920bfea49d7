//! Calls that change objects, made through a [`Store`](super::Store) so that the store knows the outcome at once, and their error.

use std::error::Error as StdError;
use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::Status;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::key::ObjectKey;
use super::store::{Object, Store};
use std::sync::Arc;

/// A call to the Kubernetes API that failed, naming the verb and the object. Never carries the object's content.
#[derive(Debug, Error)]
#[error("{verb} {kind} {key}: {}", reason(.source))]
pub struct ApiError {
    pub verb: &'static str,
    pub kind: String,
    pub key: String,
    // Not `source`: its text is part of this one's.
    pub source: kube::Error,
}

/// The server's message, or what went wrong before there was one.
fn reason(error: &kube::Error) -> String {
    match status_of(error) {
        Some(status) if !status.message.is_empty() => status.message.clone(),
        _ => explain(error),
    }
}

/// The server's answer, when the error is one.
pub(super) fn status_of(error: &kube::Error) -> Option<&Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

impl ApiError {
    fn code(&self) -> Option<u16> {
        status_of(&self.source).map(|status| status.code)
    }

    fn has_reason(&self, reason: &str) -> bool {
        status_of(&self.source).is_some_and(|status| status.reason == reason)
    }

    /// The object is not there (404).
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object is there already (409 AlreadyExists).
    pub fn is_already_exists(&self) -> bool {
        self.code() == Some(409) && self.has_reason("AlreadyExists")
    }

    /// Somebody else changed the object first (409 Conflict).
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409) && !self.has_reason("AlreadyExists")
    }

    /// The server refused the object's content (422, 400) or the caller (403): repeating the call does not help.
    pub fn is_refused(&self) -> bool {
        matches!(self.code(), Some(400 | 403 | 422))
    }
}

/// An error and its sources in one line, without repeating what is told already.
pub fn explain(error: &(dyn StdError + 'static)) -> String {
    let mut text = match error.downcast_ref::<kube::Error>().and_then(status_of) {
        Some(status) if !status.message.is_empty() => return status.message.clone(),
        _ => error.to_string(),
    };
    if error.is::<ApiError>() {
        return text;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

impl<K: Object> Store<K> {
    fn error(&self, verb: &'static str, key: &ObjectKey, source: kube::Error) -> ApiError {
        ApiError { verb, kind: self.kind().to_owned(), key: key.to_string(), source }
    }

    fn builder(&self, namespace: Option<&str>) -> kube::core::Request {
        kube::core::Request::new(K::url_path(self.dyntype(), namespace))
    }

    /// Sends a request and reads its answer. (`Client::request` would log an answer that it cannot read, secrets included.)
    async fn send<T: DeserializeOwned>(
        &self,
        verb: &'static str,
        key: &ObjectKey,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, ApiError> {
        let request = request.map_err(|error| self.error(verb, key, kube::Error::BuildRequest(error)))?;
        let text = self.client().request_text(request).await.map_err(|error| self.error(verb, key, error))?;
        serde_json::from_str(&text).map_err(|error| self.error(verb, key, kube::Error::SerdeError(error)))
    }

    /// Creates an object; its name must be in it.
    ///
    /// # Errors
    /// As the API answers; [`ApiError::is_already_exists`] when it is there already.
    pub async fn create(&self, object: &K) -> Result<Arc<K>, ApiError> {
        let key = ObjectKey::of(object.meta());
        let body = serde_json::to_vec(object).map_err(|error| self.error("create", &key, kube::Error::SerdeError(error)))?;
        let request = self.builder(key.namespace.as_deref()).create(&PostParams::default(), body);
        let created: K = self.send("create", &key, request).await?;
        Ok(self.wrote(created))
    }

    /// Reads one object from the server, past the store. None when it is not there.
    ///
    /// # Errors
    /// As the API answers.
    pub async fn fetch(&self, key: &ObjectKey) -> Result<Option<Arc<K>>, ApiError> {
        let request = self.builder(key.namespace.as_deref()).get(&key.name, &GetParams::default());
        match self.send::<K>("get", key, request).await {
            Ok(object) => Ok(Some(self.wrote(object))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes exactly what `patch` (a merge patch, or a JSON patch) names.
    ///
    /// # Errors
    /// As the API answers; [`ApiError::is_conflict`] when the patch carries a resourceVersion that has passed.
    pub async fn patch<P: Serialize + std::fmt::Debug>(&self, key: &ObjectKey, patch: &Patch<P>) -> Result<Arc<K>, ApiError> {
        let request = self.builder(key.namespace.as_deref()).patch(&key.name, &PatchParams::default(), patch);
        Ok(self.wrote(self.send("patch", key, request).await?))
    }

    /// A merge patch of the given fields.
    ///
    /// # Errors
    /// As [`Store::patch`].
    pub async fn merge(&self, key: &ObjectKey, fields: serde_json::Value) -> Result<Arc<K>, ApiError> {
        self.patch(key, &Patch::Merge(fields)).await
    }

    /// A merge patch of the status subresource; `fields` holds `status`.
    ///
    /// # Errors
    /// As [`Store::patch`].
    pub async fn merge_status(&self, key: &ObjectKey, fields: serde_json::Value) -> Result<Arc<K>, ApiError> {
        let builder = self.builder(key.namespace.as_deref());
        let request = builder.patch_subresource("status", &key.name, &PatchParams::default(), &Patch::Merge(fields));
        Ok(self.wrote(self.send("patch status of", key, request).await?))
    }

    /// Asks for the deletion of exactly this object (by uid). Deleting what is gone, or deleted already, is well.
    ///
    /// # Errors
    /// As the API answers.
    pub async fn delete(&self, object: &ObjectMeta, propagation: Option<PropagationPolicy>) -> Result<(), ApiError> {
        let key = ObjectKey::of(object);
        let preconditions = Preconditions { uid: object.uid.clone(), resource_version: None };
        let parameters = DeleteParams { propagation_policy: propagation, preconditions: Some(preconditions), ..DeleteParams::default() };
        let request = self.builder(key.namespace.as_deref()).delete(&key.name, &parameters);
        match self.send::<serde_json::Value>("delete", &key, request).await {
            Ok(answer) => {
                let is_status = answer.get("kind").is_some_and(|kind| kind == "Status");
                match serde_json::from_value::<K>(answer) {
                    // Finalizers hold it.
                    Ok(left) if !is_status && left.meta().deletion_timestamp.is_some() => drop(self.wrote(left)),
                    _ => self.removed(object),
                }
                Ok(())
            }
            Err(error) if error.is_not_found() => {
                self.removed(object);
                Ok(())
            }
            // Another object of this name has taken its place: the one meant is gone.
            Err(error) if error.is_conflict() => {
                self.removed(object);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
