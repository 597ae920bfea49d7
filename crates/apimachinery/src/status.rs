//! The error that an API server answers with: a Status, with the reason and the words of a genuine kube-apiserver.
//!
//! Clients decide by `reason` and `code`; people read `message`; kubectl prints `details.causes`. The constructors here
//! are the only place where these words are made.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::field::{FieldError, quote};
use crate::gvk::{GroupKind, GroupResource};

/// Machine-readable reason of a Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No reason given.
    Unknown,
    /// 401: who is asking is not known.
    Unauthorized,
    /// 403: the one who asks may not.
    Forbidden,
    /// 404: there is no such object or resource.
    NotFound,
    /// 409: the name is taken.
    AlreadyExists,
    /// 409: the object changed meanwhile, or a precondition failed.
    Conflict,
    /// 410: it is gone for good.
    Gone,
    /// 410: the revision or continue token is too old.
    Expired,
    /// 422: the object breaks its rules.
    Invalid,
    /// 500: could not be completed now, try again.
    ServerTimeout,
    /// 504: not within the time given.
    Timeout,
    /// 429: slow down.
    TooManyRequests,
    /// 400: the request makes no sense.
    BadRequest,
    /// 405: the resource does not know this verb.
    MethodNotAllowed,
    /// 406: no answer in a form that the client accepts.
    NotAcceptable,
    /// 413: the body is too large.
    RequestEntityTooLarge,
    /// 415: the body is in a form that is not understood.
    UnsupportedMediaType,
    /// 500: the server failed.
    InternalError,
    /// 503: the server is not able now.
    ServiceUnavailable,
}

impl Reason {
    /// The reason as a Status spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Expired => "Expired",
            Self::Invalid => "Invalid",
            Self::ServerTimeout => "ServerTimeout",
            Self::Timeout => "Timeout",
            Self::TooManyRequests => "TooManyRequests",
            Self::BadRequest => "BadRequest",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::InternalError => "InternalError",
            Self::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

/// One cause among several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable, such as `FieldValueInvalid`.
    pub reason: String,
    /// In words, without the field.
    pub message: String,
    /// Path of the field, or empty.
    pub field: String,
}

/// What the error is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group; empty for the core group.
    pub group: String,
    /// The resource, or for [`Reason::Invalid`] the kind.
    pub kind: String,
    /// UID of the object, where known.
    pub uid: String,
    /// Causes, in the order found.
    pub causes: Vec<Cause>,
    /// Seconds after which to try again; 0 for none.
    pub retry_after_seconds: u32,
}

impl Details {
    fn of_resource(resource: &GroupResource, name: &str) -> Self {
        Self { name: name.to_owned(), group: resource.group.clone(), kind: resource.resource.clone(), ..Self::default() }
    }

    fn to_json(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                map.insert(key.to_owned(), Value::String(text.clone()));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|cause| {
                let mut map = Map::new();
                for (key, text) in [("reason", &cause.reason), ("message", &cause.message), ("field", &cause.field)] {
                    if !text.is_empty() {
                        map.insert(key.to_owned(), Value::String(text.clone()));
                    }
                }
                Value::Object(map)
            });
            map.insert("causes".to_owned(), causes.collect());
        }
        if self.retry_after_seconds != 0 {
            map.insert("retryAfterSeconds".to_owned(), json!(self.retry_after_seconds));
        }
        Value::Object(map)
    }
}

/// An error as the API server answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusError {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason.
    pub reason: Reason,
    /// In words.
    pub message: String,
    /// What it is about; `None` leaves the field out, an empty one prints `{}`.
    pub details: Option<Box<Details>>,
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StatusError {}

impl StatusError {
    /// An error with a code, a reason and words, without details.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn with(code: u16, reason: Reason, message: String, details: Details) -> Self {
        Self { code, reason, message, details: Some(Box::new(details)) }
    }

    /// 404: the object does not exist.
    #[must_use]
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::with(404, Reason::NotFound, format!("{resource} {} not found", quote(name)), Details::of_resource(resource, name))
    }

    /// 404: the path names no resource.
    #[must_use]
    pub fn unknown_resource() -> Self {
        Self::with(404, Reason::NotFound, "the server could not find the requested resource".to_owned(), Details::default())
    }

    /// 409: an object of this name exists.
    #[must_use]
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::with(409, Reason::AlreadyExists, format!("{resource} {} already exists", quote(name)), Details::of_resource(resource, name))
    }

    /// 409: the write was based on an old state; `why` says what differs.
    #[must_use]
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {}: {why}", quote(name));
        Self::with(409, Reason::Conflict, message, Details::of_resource(resource, name))
    }

    /// 409: the resource version in the write is not the stored one.
    #[must_use]
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        Self::conflict(resource, name, "the object has been modified; please apply your changes to the latest version and try again")
    }

    /// 422: the object breaks rules of its kind.
    #[must_use]
    pub fn invalid(kind: &GroupKind, name: &str, errors: Vec<FieldError>) -> Self {
        let mut texts: Vec<String> = Vec::with_capacity(errors.len());
        for error in &errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let message = match texts.as_slice() {
            [] => format!("{kind} {} is invalid", quote(name)),
            [one] => format!("{kind} {} is invalid: {one}", quote(name)),
            many => format!("{kind} {} is invalid: [{}]", quote(name), many.join(", ")),
        };
        let causes = errors
            .into_iter()
            .map(|error| Cause { reason: error.kind.reason().to_owned(), message: error.body(), field: error.path })
            .collect();
        let details = Details { name: name.to_owned(), group: kind.group.clone(), kind: kind.kind.clone(), causes, ..Details::default() };
        Self::with(422, Reason::Invalid, message, details)
    }

    /// 422: a patch cannot be carried out on this object; no field is named.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::with(422, Reason::Invalid, message.into(), Details::default())
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// 400: the body has fields that the kind does not know, or the same one twice; `errors` as `unknown field "spec.x"`.
    #[must_use]
    pub fn strict_decoding(kind: &str, version: &str, errors: &[String]) -> Self {
        let list = errors.join(", ");
        Self::bad_request(format!("{kind} in version {} cannot be handled as a {kind}: strict decoding error: {list}", quote(version)))
    }

    /// 401: the one who asks is not known.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 403: `why` says what is not allowed.
    #[must_use]
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} {} is forbidden: {why}", quote(name)),
        };
        Self::with(403, Reason::Forbidden, message, Details::of_resource(resource, name))
    }

    /// 403: the namespace is being deleted, so nothing new may be made in it.
    #[must_use]
    pub fn namespace_terminating(resource: &GroupResource, name: &str, namespace: &str) -> Self {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let message = format!("namespace {namespace} is being terminated");
        Self::forbidden(resource, name, &why).cause("NamespaceTerminating", &message, "metadata.namespace")
    }

    /// 405: the resource does not know this verb.
    #[must_use]
    pub fn method_not_supported(resource: &GroupResource, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind {}", quote(&resource.to_string()));
        Self::with(405, Reason::MethodNotAllowed, message, Details::of_resource(resource, ""))
    }

    /// 405: the path does not know this method.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::with(
            405,
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource".to_owned(),
            Details::default(),
        )
    }

    /// 406: the client accepts none of the forms there are.
    #[must_use]
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        Self::new(406, Reason::NotAcceptable, format!("only the following media types are accepted: {}", accepted.join(", ")))
    }

    /// 415: the body is in none of the forms understood.
    #[must_use]
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!("the body of the request was in an unknown format - accepted media types include: {}", accepted.join(", "));
        Self::new(415, Reason::UnsupportedMediaType, message)
    }

    /// 413: the body is too large.
    #[must_use]
    pub fn too_large(why: &str) -> Self {
        Self::new(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {why}"))
    }

    /// 410: the revision or the continue token is no longer to be had.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    /// 410: a watch or list from a revision older than the oldest one kept.
    #[must_use]
    pub fn too_old(requested: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {requested} ({oldest})"))
    }

    /// 504: a list or watch from a revision that is still to come.
    #[must_use]
    pub fn too_large_resource_version(requested: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
        let details = Details { retry_after_seconds: 1, ..Details::default() };
        Self::with(504, Reason::Timeout, message, details).cause("ResourceVersionTooLarge", "Too large resource version", "")
    }

    /// 400: a resource version that is no number.
    #[must_use]
    pub fn malformed_resource_version(text: &str) -> Self {
        let text = quote(text);
        Self::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: {text}: strconv.ParseUint: parsing {text}: invalid syntax"
        ))
    }

    /// 504: not within the time given; try again after `seconds`.
    #[must_use]
    pub fn timeout(why: &str, seconds: u32) -> Self {
        let details = Details { retry_after_seconds: seconds, ..Details::default() };
        Self::with(504, Reason::Timeout, format!("Timeout: {why}"), details)
    }

    /// 429: slow down; try again after `seconds`.
    pub fn too_many_requests(message: impl Into<String>, seconds: u32) -> Self {
        let details = Details { retry_after_seconds: seconds, ..Details::default() };
        Self::with(429, Reason::TooManyRequests, message.into(), details)
    }

    /// 500: the server failed.
    #[must_use]
    pub fn internal(why: &str) -> Self {
        let details = Details::default();
        Self::with(500, Reason::InternalError, format!("Internal error occurred: {why}"), details).cause("", why, "")
    }

    /// 503: the server is not able now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message)
    }

    /// The same error with one more cause.
    #[must_use]
    pub fn cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let cause = Cause { reason: reason.to_owned(), message: message.to_owned(), field: field.to_owned() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// The Status document.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("kind".to_owned(), json!("Status"));
        map.insert("apiVersion".to_owned(), json!("v1"));
        map.insert("metadata".to_owned(), json!({}));
        map.insert("status".to_owned(), json!("Failure"));
        if !self.message.is_empty() {
            map.insert("message".to_owned(), json!(self.message));
        }
        if self.reason != Reason::Unknown {
            map.insert("reason".to_owned(), json!(self.reason.as_str()));
        }
        if let Some(details) = &self.details {
            map.insert("details".to_owned(), details.to_json());
        }
        map.insert("code".to_owned(), json!(self.code));
        Value::Object(map)
    }
}

/// The Status that answers a deletion which removed the object at once.
#[must_use]
pub fn success(resource: &GroupResource, name: &str, uid: &str) -> Value {
    let mut details = Details::of_resource(resource, name);
    details.uid = uid.to_owned();
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details.to_json()})
}
