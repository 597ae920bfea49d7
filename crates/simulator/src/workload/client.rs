//! JSON requests to the cluster's own API server, as one of the actors in the cluster: a kubelet, a controller, the cloud provider.

use apiserver::{ApiServer, ApiService, User};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use thiserror::Error;
use tower::ServiceExt as _;

/// What the API server answered, when it is no success.
#[derive(Clone, Debug, Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    /// The HTTP code.
    pub code: u16,
    pub message: String,
}

/// An actor's way to the API.
#[derive(Clone, Debug)]
pub(crate) struct Client(ApiService);

impl Client {
    pub(crate) fn new(server: &ApiServer, user: &str, groups: &[&str]) -> Self {
        Self(server.service(&User::new(user, groups.iter().map(|group| (*group).to_owned()))))
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.send(Method::GET, path, "", None).await
    }

    pub(crate) async fn create(&self, path: &str, object: &Value) -> Result<Value, ApiError> {
        self.send(Method::POST, path, "application/json", Some(object)).await
    }

    /// A JSON merge patch.
    pub(crate) async fn merge(&self, path: &str, patch: &Value) -> Result<Value, ApiError> {
        self.send(Method::PATCH, path, "application/merge-patch+json", Some(patch)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), ApiError> {
        let now = serde_json::json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
        match self.send(Method::DELETE, path, "application/json", Some(&now)).await {
            Ok(_) => Ok(()),
            Err(error) if error.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn send(&self, method: Method, path: &str, content_type: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let mut request = Request::builder().method(method).uri(path).header(http::header::ACCEPT, "application/json");
        if body.is_some() {
            request = request.header(http::header::CONTENT_TYPE, content_type);
        }
        let failed = |message: String| ApiError { code: 0, message };
        let request = request.body(Full::new(bytes)).map_err(|error| failed(error.to_string()))?;
        let response = self.0.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap_or_else(|never| match never {}).to_bytes();
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
        if (200..300).contains(&code) {
            return Ok(value);
        }
        let message = value.get("message").and_then(Value::as_str).unwrap_or("no message").to_owned();
        Err(ApiError { code, message })
    }
}
