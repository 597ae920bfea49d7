//! The Kubernetes API on a control plane's port: TLS from the configuration's authority, and the truth of etcd behind every request.
//!
//! The server's data is the cluster's, one for all control planes; a request is answered only while this machine's etcd member serves.
//! Without a quorum the answer is what a kube-apiserver says whose etcd does not answer.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use apiserver::User;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use runtime::net::{BoxStream, Listener as _};
use runtime::tls::ServerTls;
use runtime::x509::Facts;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{Workload, manifests};
use crate::hooks::{KUBE, Verdict};
use crate::hypervisor::VmId;
use crate::node::Nodes;
use crate::node::certificates::{self, CertificateError, KUBERNETES_LIFETIME};
use crate::node::configuration::Configuration;
use crate::node::etcd::{EtcdClusterId, MemberId};
use crate::node::service::ServiceState;

type Body = Either<apiserver::Body, Full<Bytes>>;

/// Serves until the machine stops or its etcd member is gone.
pub(crate) async fn run(
    nodes: &Nodes,
    id: &VmId,
    configuration: &Arc<Configuration>,
    (cluster, member): (EtcdClusterId, MemberId),
    stop: &CancellationToken,
) {
    nodes.pause(nodes.options().latency.api_server).await;
    let workload = match Workload::of(nodes, cluster, configuration).await {
        Ok(workload) => workload,
        Err(reason) => {
            nodes.say(id, &format!("user: warning: [talos] kube-apiserver does not start: {reason}"));
            return;
        }
    };
    let serving = stop.child_token();
    let _ends = serving.clone().drop_guard();
    let front = Arc::new(Front {
        nodes: nodes.clone(),
        id: id.clone(),
        configuration: configuration.clone(),
        workload: workload.clone(),
        certificate: Mutex::new(None),
    });
    let port = configuration.cluster.api_port;
    let realm = workload.realm.clone();
    let mut signal = nodes.watch(&realm);
    for address in nodes.state().machines.get(id).map(|machine| machine.addresses()).unwrap_or_default() {
        tokio::spawn(front.clone().listen(address, port, serving.clone()));
    }
    if let Some(machine) = nodes.state().machines.get_mut(id) {
        machine.serves_api = true;
    }
    nodes.settle(Some(&realm));
    nodes.event(Some(&realm), &format!("{id}: the API server answers"));
    let (own, vm, settings, token, cluster_of) = (nodes.clone(), id.clone(), configuration.clone(), serving.clone(), workload.clone());
    tokio::spawn(async move {
        token.run_until_cancelled(manifests::apply(&own, &vm, &settings, &cluster_of)).await;
    });
    let mut shared: BTreeSet<IpAddr> = BTreeSet::new();
    loop {
        signal.mark_unchanged();
        let vip = nodes.state().machines.get(id).and_then(|machine| machine.vip);
        shared.retain(|address| Some(*address) == vip);
        if let Some(vip) = vip.filter(|vip| shared.insert(*vip)) {
            tokio::spawn(front.clone().listen_while_held(vip, port, serving.clone()));
        }
        let (is_member, is_running) = {
            let state = nodes.state();
            let is_member = state.etcd.get(&cluster).is_some_and(|cluster| cluster.member(member).is_some());
            (is_member, state.machines.get(id).is_some_and(|machine| machine.services.is_running("etcd")))
        };
        if !is_member || !is_running {
            break;
        }
        if signal.changed().await.is_err() {
            break;
        }
    }
    let now = nodes.options().clock.now();
    {
        let mut state = nodes.state();
        if let Some(machine) = state.machines.get_mut(id) {
            machine.serves_api = false;
            if machine.services.is_running("etcd") {
                // Somebody removed the member; its process ends.
                state.service(id, "etcd", ServiceState::Failed, "the member has been permanently removed from the cluster", now);
            }
        }
    }
    nodes.settle(Some(&realm));
    nodes.event(Some(&realm), &format!("{id}: the API server ended"));
}

struct Front {
    nodes: Nodes,
    id: VmId,
    configuration: Arc<Configuration>,
    workload: Arc<Workload>,
    certificate: Mutex<Option<(ServerTls, Timestamp)>>,
}

impl Front {
    async fn listen(self: Arc<Self>, address: IpAddr, port: u16, stop: CancellationToken) {
        let mut listener = self.nodes.options().network.listen(&address.to_string(), port);
        let accept = async {
            while let Ok((stream, _)) = listener.accept().await {
                let (front, stop) = (self.clone(), stop.clone());
                tokio::spawn(async move {
                    stop.run_until_cancelled(front.serve(stream)).await;
                });
            }
        };
        stop.run_until_cancelled(accept).await;
    }

    async fn listen_while_held(self: Arc<Self>, vip: IpAddr, port: u16, stop: CancellationToken) {
        let mut signal = self.nodes.watch(&self.workload.realm);
        let held = stop.child_token();
        let _ends = held.clone().drop_guard();
        tokio::spawn(self.clone().listen(vip, port, held));
        let lost = async {
            while self.nodes.state().machines.get(&self.id).is_some_and(|machine| machine.vip == Some(vip)) {
                if signal.changed().await.is_err() {
                    return;
                }
            }
        };
        stop.run_until_cancelled(lost).await;
    }

    async fn server_tls(&self) -> Result<ServerTls, CertificateError> {
        let options = self.nodes.options();
        let now = options.clock.now();
        let mut certificate = self.certificate.lock().await;
        if let Some((tls, made)) = &*certificate
            && now.duration_since(*made).unsigned_abs() < KUBERNETES_LIFETIME / 2
        {
            return Ok(tls.clone());
        }
        let machine = self.nodes.state().machines.get(&self.id).map(|machine| {
            let mut addresses = machine.addresses();
            addresses.extend(machine.links.iter().filter_map(|link| link.vip));
            (machine.hostname.clone(), addresses)
        });
        let (hostname, addresses) = machine.unwrap_or_default();
        let authority = certificates::authority(&self.configuration.cluster.kubernetes_ca)?;
        let wanted = certificates::kubernetes_api(&self.configuration, &hostname, &addresses);
        let random = options.random.child(&format!("kube-apiserver {} {now}", self.id));
        let (identity, _) = certificates::issue(&authority, &wanted, now, options.keys.as_ref(), &random).await?;
        let tls = certificates::kubernetes_api_tls(&self.configuration, identity)?;
        *certificate = Some((tls.clone(), now));
        Ok(tls)
    }

    async fn serve(self: Arc<Self>, stream: BoxStream) {
        let tls = match self.server_tls().await {
            Ok(tls) => tls,
            Err(error) => {
                self.nodes.say(&self.id, &format!("user: warning: [talos] kube-apiserver: no certificate: {error}"));
                return;
            }
        };
        let Ok(secured) = self.nodes.options().tls.accept(stream, &tls).await else { return };
        let user = secured
            .peer
            .first()
            .and_then(|leaf| Facts::read(leaf).ok())
            .and_then(|facts| Some(User::new(facts.common_name?, facts.organizations)));
        let user = user.unwrap_or_else(User::anonymous);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (front, user) = (self.clone(), user.clone());
            async move { front.answer(request, &user).await }
        });
        let mut server = auto::Builder::new(TokioExecutor::new());
        server.http1().timer(TokioTimer::new());
        server.http2().timer(TokioTimer::new());
        let _ = server.serve_connection(TokioIo::new(secured.stream), service).await;
    }

    async fn answer(&self, request: Request<Incoming>, user: &User) -> Result<Response<Body>, std::io::Error> {
        if !self.nodes.state().serves_api(&self.id) {
            return Ok(no_etcd(request.uri().path()));
        }
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let begun = changes.then(|| {
            let (method, object) = described(request.method(), request.uri().path());
            self.nodes.options().hooks.before(KUBE, &method, &object)
        });
        if let Some(Verdict::Fault(reason)) = begun.as_ref().map(|begun| &begun.verdict) {
            return Ok(failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &format!("injected fault: {reason}")));
        }
        let response = self.workload.api.service(user).oneshot(request).await.unwrap_or_else(|never| match never {});
        match begun.map(|begun| self.nodes.options().hooks.after(begun)) {
            None | Some(Verdict::Proceed) => Ok(response.map(Either::Left)),
            Some(Verdict::Fault(reason)) => {
                Ok(failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &format!("injected fault: {reason}")))
            }
            Some(Verdict::DropReply) => Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the reply is lost")),
        }
    }
}

/// A request in the words of hooks: `create secrets` on `kube-system`, `patch nodes/status` on `worker-1`.
fn described(method: &Method, path: &str) -> (String, String) {
    let verb = match method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        other => other,
    };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    // Without `api/v1` or `apis/group/version`.
    let rest = parts.get(if parts.first() == Some(&"apis") { 3 } else { 2 }..).unwrap_or_default();
    let (namespace, rest) = match rest {
        ["namespaces", namespace, resource, rest @ ..] => (Some(*namespace), [&[*resource], rest].concat()),
        _ => (None, rest.to_vec()),
    };
    let (resource, name, subresource) = (rest.first(), rest.get(1), rest.get(2));
    let resource = [resource, subresource].into_iter().flatten().copied().collect::<Vec<_>>().join("/");
    let object = [namespace, name.copied()].into_iter().flatten().collect::<Vec<_>>().join("/");
    (format!("{verb} {resource}"), object)
}

/// The answer of a kube-apiserver whose etcd does not serve.
fn no_etcd(path: &str) -> Response<Body> {
    if matches!(path, "/healthz" | "/readyz" | "/livez") {
        let mut response =
            Response::new(Either::Right(Full::new(Bytes::from_static(b"[-]etcd failed: reason withheld\nreadyz check failed\n"))));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return response;
    }
    failure(
        StatusCode::INTERNAL_SERVER_ERROR,
        "InternalError",
        "etcdserver: request timed out (no leader: a majority of its voters does not run)",
    )
}

fn failure(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code.as_u16(),
    });
    let mut response = Response::new(Either::Right(Full::new(Bytes::from(status.to_string()))));
    *response.status_mut() = code;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_words() {
        for (method, path, expected, object) in [
            (Method::POST, "/api/v1/namespaces/kube-system/secrets", "create secrets", "kube-system"),
            (Method::PATCH, "/api/v1/nodes/worker-1/status", "patch nodes/status", "worker-1"),
            (Method::DELETE, "/apis/apps/v1/namespaces/a/daemonsets/b", "delete daemonsets", "a/b"),
            (Method::PUT, "/api/v1/namespaces/a", "update namespaces", "a"),
        ] {
            assert_eq!(described(&method, path), (expected.to_owned(), object.to_owned()));
        }
    }
}
