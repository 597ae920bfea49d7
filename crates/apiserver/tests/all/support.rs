//! What the tests share: a server on virtual time, a few definitions, and requests as a client sends them.

use apiserver::{ApiServer, Body, Journal, MemoryJournal, Options, User};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use runtime::clock::Clock;
use runtime::random::Random;
use serde_json::{Value, json};
use tower::Service as _;

/// When virtual time starts.
pub const START: &str = "2026-01-01T00:00:00Z";

/// Definitions: `things.test.example` (namespaced; status, scale, two versions) and `orbs.test.example` (of the cluster).
pub fn definitions() -> Vec<Value> {
    let schema = json!({
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": {"type": "string", "minLength": 1, "enum": ["small", "large"]},
                    "replicas": {"type": "integer", "format": "int32", "default": 1},
                    "note": {"type": "string"},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            },
            "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "phase": {"type": "string"}}},
        },
    });
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
            "additionalPrinterColumns": [
                {"name": "Size", "type": "string", "jsonPath": ".spec.size"},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            ],
        })
    };
    vec![
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.test.example"},
            "spec": {
                "group": "test.example", "scope": "Namespaced",
                "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList", "shortNames": ["th"], "categories": ["toys"]},
                "versions": [version("v1beta1", false), version("v1", true)],
            },
        }),
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "orbs.test.example"},
            "spec": {
                "group": "test.example", "scope": "Cluster", "names": {"plural": "orbs", "kind": "Orb"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
            },
        }),
    ]
}

/// Options on virtual time, from one seed.
pub fn options(journal: impl Journal + 'static) -> Options {
    let clock = Clock::starting_at(START.parse().unwrap());
    Options { crds: definitions().into(), ..Options::new(clock, Random::seeded(7), Box::new(journal)) }
}

/// A server with an empty journal in memory.
pub async fn server() -> ApiServer {
    ApiServer::open(options(MemoryJournal::new())).await.unwrap()
}

/// An answer: its code, its headers and its body, read.
#[derive(Debug)]
pub struct Answered {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Answered {
    /// The body of an answer that must have this code.
    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.body);
        self.body
    }

    /// The reason in a Status.
    pub fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }

    /// The message in a Status.
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// The warnings for the user.
    pub fn warnings(&self) -> Vec<&str> {
        self.headers.get_all("warning").iter().filter_map(|value| value.to_str().ok()).collect()
    }
}

/// Sends a request with these headers and gives the answer's head and stream.
pub async fn send(server: &ApiServer, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    server.service(&User::admin("tester")).call(request).await.unwrap()
}

async fn read(response: Response<Body>) -> Answered {
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
    Answered { code: head.status.as_u16(), headers: head.headers, body }
}

/// Sends a request with a JSON body (null for none).
pub async fn ask(server: &ApiServer, method: &str, path: &str, body: Value) -> Answered {
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    read(send(server, method, path, &[("content-type", "application/json")], bytes).await).await
}

/// Sends a patch of this type (`merge`, `json`, `strategic`).
pub async fn patch(server: &ApiServer, kind: &str, path: &str, body: Value) -> Answered {
    let media = match kind {
        "merge" => "application/merge-patch+json",
        "json" => "application/json-patch+json",
        "strategic" => "application/strategic-merge-patch+json",
        other => other,
    };
    read(send(server, "PATCH", path, &[("content-type", media)], body.to_string().into_bytes()).await).await
}

/// Asks for an answer in a form.
pub async fn ask_form(server: &ApiServer, path: &str, accept: &str) -> Answered {
    read(send(server, "GET", path, &[("accept", accept)], Vec::new()).await).await
}

/// A `Thing`.
pub fn thing(name: &str) -> Value {
    json!({"apiVersion": "test.example/v1", "kind": "Thing", "metadata": {"name": name}, "spec": {"size": "small"}})
}

/// A `ConfigMap`.
pub fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

/// A reference to `owner`.
pub fn owned_by(owner: &Value, blocks: bool) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": blocks,
    })
}

/// Lets the server's own tasks come to rest.
pub async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// The frames of a watch that are there without waiting.
pub struct Watching(Response<Body>);

impl Watching {
    /// Starts a watch.
    pub async fn start(server: &ApiServer, path: &str) -> Self {
        Self::start_as(server, path, "application/json").await
    }

    /// Starts a watch in a form.
    pub async fn start_as(server: &ApiServer, path: &str, accept: &str) -> Self {
        let response = send(server, "GET", path, &[("accept", accept)], Vec::new()).await;
        assert_eq!(response.status(), 200);
        Self(response)
    }

    /// The next frame; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Value> {
        let frame = self.0.frame().await?.unwrap();
        Some(serde_json::from_slice(&frame.into_data().unwrap()).unwrap())
    }

    /// The frames that are due now.
    pub async fn due(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            tokio::select! {
                biased;
                frame = self.next() => match frame {
                    Some(frame) => frames.push(frame),
                    None => return frames,
                },
                () = settle() => return frames,
            }
        }
    }
}

/// Type and name of each frame, for short assertions.
pub fn told(frames: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    frames.iter().map(|frame| (text(&frame["type"]), text(&frame["object"]["metadata"]["name"]))).collect()
}
