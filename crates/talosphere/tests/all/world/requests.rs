//! Counts the requests that reach the management server, by verb and resource.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use apiserver::ApiService;
use http::{Method, Request};

/// What was asked so far. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Mutex<BTreeMap<String, u64>>>);

impl Requests {
    /// A client whose requests are counted.
    pub fn client(&self, service: ApiService) -> kube::Client {
        kube::Client::new(Counted { service, requests: self.clone() }, "default")
    }

    /// How often each was asked.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap().clone()
    }
}

/// `patch machines/status`, `watch secrets`.
fn name<B>(request: &Request<B>) -> String {
    let parts: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    let parts = if parts.first() == Some(&"api") { &parts[parts.len().min(2)..] } else { &parts[parts.len().min(3)..] };
    let parts = if parts.len() > 2 && parts[0] == "namespaces" { &parts[2..] } else { parts };
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
}

impl<B> tower::Service<Request<B>> for Counted
where
    ApiService: tower::Service<Request<B>>,
{
    type Response = <ApiService as tower::Service<Request<B>>>::Response;
    type Error = <ApiService as tower::Service<Request<B>>>::Error;
    type Future = <ApiService as tower::Service<Request<B>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        tower::Service::<Request<B>>::poll_ready(&mut self.service, context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        *self.requests.0.lock().unwrap().entry(name(&request)).or_default() += 1;
        self.service.call(request)
    }
}
