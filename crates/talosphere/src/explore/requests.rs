//! Counts the requests that reach the management server, by verb and resource, and lets the controllers' go over their [`Line`].

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use apiserver::ApiService;
use http::{Method, Request, Response};

use super::line::{Carried, Line, refused, reset};
use super::pulse::Pulse;

/// What was asked so far. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Mutex<BTreeMap<String, u64>>>);

impl Requests {
    /// A client whose requests are counted and go over `line`; each is a beat before its effect and one after it.
    pub fn client(&self, service: ApiService, line: &Line, pulse: &Pulse) -> kube::Client {
        kube::Client::new(Counted { service, requests: self.clone(), line: line.clone(), pulse: pulse.clone() }, "default")
    }

    /// How often each was asked.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// `patch machines/status`, `watch secrets`.
fn name<B>(request: &Request<B>) -> String {
    let parts: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    let prefix = if parts.first() == Some(&"api") { 2 } else { 3 };
    let parts = parts.get(prefix..).unwrap_or_default();
    let parts = if let ["namespaces", _, rest @ ..] = parts
        && !rest.is_empty()
    {
        rest
    } else {
        parts
    };
    let resource = match parts {
        [] => "discovery".to_owned(),
        [resource] | [resource, _] => (*resource).to_owned(),
        [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
    };
    let verb = match *request.method() {
        Method::GET if request.uri().query().is_some_and(|query| query.contains("watch=")) => "watch",
        Method::GET if parts.len() == 1 => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    };
    format!("{verb} {resource}")
}

#[derive(Clone)]
struct Counted {
    service: ApiService,
    requests: Requests,
    line: Line,
    pulse: Pulse,
}

type Answer<B> = Pin<Box<dyn Future<Output = Result<Response<Carried<B>>, io::Error>> + Send>>;

impl<B, R> tower::Service<Request<B>> for Counted
where
    ApiService: tower::Service<Request<B>, Response = Response<R>, Error = std::convert::Infallible>,
    <ApiService as tower::Service<Request<B>>>::Future: Send + 'static,
    R: Send,
{
    type Response = Response<Carried<R>>;
    type Error = io::Error;
    type Future = Answer<R>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        *self.requests.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name(&request)).or_default() += 1;
        let is_change = !matches!(*request.method(), Method::GET | Method::HEAD);
        let (line, pulse) = (self.line.clone(), self.pulse.clone());
        if is_change {
            pulse.beat();
        }
        if line.is_cut() {
            return Box::pin(async { Err(refused()) });
        }
        let answer = self.service.call(request);
        Box::pin(async move {
            let answer = answer.await.unwrap_or_else(|never| match never {});
            if is_change {
                pulse.beat();
            }
            if line.takes_answer(is_change) { Err(reset()) } else { Ok(answer.map(|body| line.carry(body))) }
        })
    }
}
