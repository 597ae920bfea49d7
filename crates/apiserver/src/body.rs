//! The body of a request: JSON, YAML or protobuf in, one value out.

use apimachinery::{StatusError, protobuf};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

/// Longest body that is read, as upstream limits resources.
pub const LIMIT: usize = 3 << 20;

/// The media type of a body, without parameters; JSON when none is given.
pub fn media_type(headers: &HeaderMap) -> &str {
    let given = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim();
    if media.is_empty() { "application/json" } else { media }
}

/// Reads the object in a body; null when the body is empty.
///
/// # Errors
/// When its form is not known or it cannot be read.
pub fn read(headers: &HeaderMap, body: &Bytes, is_custom: bool) -> Result<Value, StatusError> {
    let media = media_type(headers);
    if body.is_empty() {
        return Ok(Value::Null);
    }
    match media {
        "application/json" => parse_json(body),
        "application/yaml" => {
            let text = std::str::from_utf8(body).map_err(|error| StatusError::bad_request(format!("the body is not UTF-8: {error}")))?;
            serde_saphyr::from_str(text).map_err(|error| StatusError::bad_request(format!("the body is not YAML: {error}")))
        }
        "application/vnd.kubernetes.protobuf" if !is_custom => {
            protobuf::decode(body).map_err(|error| StatusError::bad_request(format!("the body cannot be decoded: {error}")))
        }
        _ => {
            let mut accepted = vec!["application/json", "application/yaml"];
            if !is_custom {
                accepted.push("application/vnd.kubernetes.protobuf");
            }
            Err(StatusError::unsupported_media_type(&accepted))
        }
    }
}

/// Reads JSON.
///
/// # Errors
/// When it is none.
pub fn parse_json(body: &[u8]) -> Result<Value, StatusError> {
    serde_json::from_slice(body)
        .map_err(|error| StatusError::bad_request(format!("the object provided is unrecognized (must be of type JSON): {error}")))
}
