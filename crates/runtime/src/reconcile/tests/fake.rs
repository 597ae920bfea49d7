//! A Kubernetes API in a page: config maps and events, list, watch, create, merge patch, delete; with faults on demand.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

type Answer = UnsyncBoxBody<Bytes, Infallible>;

struct Watcher {
    path: String,
    sender: mpsc::UnboundedSender<Bytes>,
}

#[derive(Default)]
pub struct State {
    objects: BTreeMap<String, Value>,
    pub revision: u64,
    watchers: Vec<Watcher>,
    history: Vec<(u64, String, Value)>,
    /// Revisions below are forgotten.
    pub compacted: u64,
    /// Codes answered to the next requests in place of an answer.
    pub faults: VecDeque<u16>,
    /// Whether watches are silent for now.
    pub is_mute: bool,
    muted: Vec<(String, Value)>,
    pub calls: Vec<String>,
}

#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<State>>);

fn full(code: u16, value: &Value) -> Response<Answer> {
    Response::builder().status(code).body(Full::new(Bytes::from(value.to_string())).boxed_unsync()).unwrap()
}

fn failure(code: u16, reason: &str) -> Response<Answer> {
    full(code, &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason}))
}

fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(key);
                } else {
                    merge(target.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

impl Fake {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    pub fn config_map(&self, name: &str, data: &Value) {
        let path = format!("/api/v1/namespaces/default/configmaps/{name}");
        let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}});
        object["data"] = data.clone();
        self.state().put(path, object);
    }

    pub fn remove(&self, name: &str) {
        self.state().take(&format!("/api/v1/namespaces/default/configmaps/{name}"));
    }

    pub fn objects(&self, resource: &str) -> Vec<Value> {
        self.state().objects.iter().filter(|(path, _)| path.contains(&format!("/{resource}/"))).map(|(_, o)| o.clone()).collect()
    }

    /// Ends every watch.
    pub fn cut(&self) {
        self.state().watchers.clear();
    }

    pub fn unmute(&self) {
        let mut state = self.state();
        state.is_mute = false;
        for (kind, object) in std::mem::take(&mut state.muted) {
            state.send(&kind, &object);
        }
    }
}

impl State {
    fn send(&mut self, kind: &str, object: &Value) {
        if self.is_mute {
            self.muted.push((kind.to_owned(), object.clone()));
            return;
        }
        let line = Bytes::from(format!("{}\n", json!({"type": kind, "object": object})));
        let plural = if object["kind"] == "Event" { "events" } else { "configmaps" };
        self.watchers.retain(|watcher| !watcher.path.ends_with(plural) || watcher.sender.send(line.clone()).is_ok());
    }

    fn put(&mut self, path: String, mut object: Value) -> Value {
        self.revision += 1;
        let kind = if let Some(old) = self.objects.get(&path) {
            object["metadata"]["uid"] = old["metadata"]["uid"].clone();
            "MODIFIED"
        } else {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.revision));
            "ADDED"
        };
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.objects.insert(path, object.clone());
        self.history.push((self.revision, kind.to_owned(), object.clone()));
        self.send(kind, &object);
        object
    }

    fn take(&mut self, path: &str) -> Option<Value> {
        let mut object = self.objects.remove(path)?;
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.history.push((self.revision, "DELETED".to_owned(), object.clone()));
        self.send("DELETED", &object);
        Some(object)
    }

    fn answer(&mut self, method: &Method, path: &str, query: &str, body: &[u8]) -> Response<Answer> {
        self.calls.push(format!("{method} {path}"));
        if let Some(code) = self.faults.pop_front() {
            return failure(code, "Fault");
        }
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let is_collection = path.ends_with("/configmaps") || path.ends_with("/events");
        match (method.as_str(), is_collection) {
            ("GET", true) if query.contains("watch=true") => self.watch(path, query),
            ("GET", true) => {
                let plural = path.rsplit('/').next().unwrap();
                let items: Vec<&Value> =
                    self.objects.iter().filter(|(path, _)| path.contains(&format!("/{plural}/"))).map(|(_, o)| o).collect();
                full(
                    200,
                    &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.revision.to_string()}, "items": items}),
                )
            }
            ("POST", _) => {
                let at = format!("{path}/{}", sent["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&at) {
                    return failure(409, "AlreadyExists");
                }
                full(201, &self.put(at, sent))
            }
            ("GET", false) => self.objects.get(path).map_or_else(|| failure(404, "NotFound"), |object| full(200, object)),
            ("PATCH", _) => {
                let Some(mut object) = self.objects.get(path).cloned() else { return failure(404, "NotFound") };
                merge(&mut object, &sent);
                full(200, &self.put(path.to_owned(), object))
            }
            ("DELETE", _) => match self.take(path) {
                Some(_) => full(200, &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
                None => failure(404, "NotFound"),
            },
            _ => failure(405, "MethodNotAllowed"),
        }
    }

    fn watch(&mut self, path: &str, query: &str) -> Response<Answer> {
        let version = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap();
        let from: u64 = version.parse().unwrap();
        if from < self.compacted {
            return failure(410, "Expired");
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let kind = if path.ends_with("events") { "Event" } else { "ConfigMap" };
        for (revision, verb, object) in &self.history {
            if *revision > from && object["kind"] == kind {
                sender.send(Bytes::from(format!("{}\n", json!({"type": verb, "object": object})))).unwrap();
            }
        }
        self.watchers.push(Watcher { path: path.to_owned(), sender });
        let frames = UnboundedReceiverStream::new(receiver).map(|line| Ok(Frame::data(line)));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }
}

impl tower::Service<Request<Body>> for Fake {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let fake = self.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            Ok(fake.state().answer(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default(), &body))
        }
        .boxed()
    }
}
