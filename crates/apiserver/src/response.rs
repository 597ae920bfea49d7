//! Answers: whole bodies and streams, over a socket and in process alike.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use apimachinery::StatusError;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};
use serde_json::Value;

use crate::watch::Frames;

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    /// All at once; `None` after it was taken.
    Whole(Option<Bytes>),
    /// The frames of a watch.
    Watch(Box<Frames>),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Watch(frames) => frames.poll_next(context).map(|frame| frame.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Watch(_) => SizeHint::default(),
        }
    }
}

/// An answer before its body's form is fixed.
pub type Answer = Response<Body>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

fn answer(code: u16, content_type: HeaderValue, body: Body) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// JSON that is encoded already.
pub fn json(code: u16, bytes: Bytes) -> Answer {
    answer(code, JSON, Body::Whole(Some(bytes)))
}

/// A JSON document.
pub fn value(code: u16, value: &Value) -> Answer {
    json(code, Bytes::from(value.to_string()))
}

/// Plain text, as health checks answer.
pub fn text(code: u16, text: impl Into<String>) -> Answer {
    answer(code, TEXT, Body::Whole(Some(Bytes::from(text.into()))))
}

/// The frames of a watch.
pub fn watch(frames: Frames) -> Answer {
    answer(200, JSON, Body::Watch(Box::new(frames)))
}

/// An error as a Status.
pub fn error(error: &StatusError) -> Answer {
    let mut response = value(error.code, &error.to_json());
    let seconds = error.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if seconds > 0 && matches!(error.code, 429 | 503 | 504) {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds warnings for the user, as RFC 7234 code 299, which kubectl prints.
pub fn with_warnings(mut response: Answer, warnings: &[String]) -> Answer {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(HeaderName::from_static("warning"), value);
        }
    }
    response
}
