//! Questions that clients ask about themselves: who am I, and may I. Answered, never stored.

use apimachinery::StatusError;
use serde_json::{Value, json};

use crate::discovery::REVIEWS;
use crate::options::User;
use crate::request::ResourcePath;
use crate::response::{self, Answer};
use crate::server::Inner;

/// Whether a path names a review.
pub fn is_review(path: &ResourcePath) -> bool {
    REVIEWS.iter().any(|(group, version, plural, ..)| path.group == *group && path.version == *version && path.resource == *plural)
}

/// Answers a review: every authenticated user may do everything.
///
/// # Errors
/// When the body is of another kind.
pub fn answer(inner: &Inner, user: &User, path: &ResourcePath, body: &Value) -> Result<Answer, StatusError> {
    let (_, _, _, _, kind) =
        REVIEWS.iter().find(|(_, _, plural, ..)| *plural == path.resource).ok_or_else(StatusError::unknown_resource)?;
    let given = body.get("kind").and_then(Value::as_str).unwrap_or(kind);
    if given != *kind {
        return Err(StatusError::bad_request(format!("the kind in the data ({given}) does not match the expected kind ({kind})")));
    }
    let metadata = json!({"creationTimestamp": inner.clock.now_seconds().to_string()});
    let api_version = format!("{}/{}", path.group, path.version);
    let review = if *kind == "SelfSubjectReview" {
        json!({
            "kind": kind, "apiVersion": api_version, "metadata": metadata,
            "status": {"userInfo": {"username": user.name, "uid": user.name, "groups": user.groups}},
        })
    } else {
        json!({
            "kind": kind, "apiVersion": api_version, "metadata": {"creationTimestamp": null},
            "spec": body.get("spec").cloned().unwrap_or_else(|| json!({})), "status": {"allowed": !user.is_anonymous()},
        })
    };
    Ok(response::value(201, &review))
}
