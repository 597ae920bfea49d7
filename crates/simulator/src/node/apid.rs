//! The machine API's front: TLS, who may call what, and the way to other machines.
//!
//! A call is routed before it is decoded, as apid does: the certificate's organizations are the caller's roles, the path decides which of
//! them are enough, the metadata `node` names another machine to forward to (`nodes`: several, whose answers are merged on the wire).
//! Every call that this machine answers itself passes the hooks, so that a test can stop the world just before and just after its effect.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use runtime::http::Connector;
use runtime::net::{BoxStream, Listener as _};
use runtime::tls::{ClientTls, Identity, ServerTls, authorities};
use runtime::x509::{Facts, Usages, certificate_from_pem};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tower::ServiceExt as _;

use super::certificates::{self, API_LIFETIME, API_RENEWAL, CertificateError, Wanted};
use super::configuration::Configuration;
use super::state::realm_of;
use super::{Nodes, rpc};
use crate::hooks::{TALOS, Verdict};
use crate::hypervisor::VmId;

/// Where the machine API listens.
pub const PORT: u16 = 50000;

const ADMIN: &str = "os:admin";
const OPERATOR: &str = "os:operator";
const READER: &str = "os:reader";
const ETCD_BACKUP: &str = "os:etcd:backup";
const IMPERSONATOR: &str = "os:impersonator";
/// Carries the caller's roles between machines.
const ROLE_HEADER: &str = "talos-role";

/// Methods that answer with a stream.
const STREAMS: [&str; 9] = ["Dmesg", "Logs", "Kubeconfig", "Events", "EtcdSnapshot", "List", "DiskUsage", "Read", "Copy"];

type Body = tonic::body::Body;
/// A failure to answer at all: the connection breaks.
type Broken = std::io::Error;

/// Answers on every address until the machine stops. A worker first waits for a control plane that signs its certificate.
pub(super) async fn run(nodes: &Nodes, id: &VmId, configuration: &Arc<Configuration>, stop: &CancellationToken) {
    let realm = realm_of(configuration);
    let mut signal = nodes.watch(&realm);
    let mut complaint = String::new();
    let issuer = loop {
        signal.mark_unchanged();
        match issuer(nodes, configuration, &realm) {
            Ok(issuer) => break issuer,
            Err(reason) if reason != complaint => {
                nodes.say(
                    id,
                    &format!(
                        "user: warning: [talos] controller failed {{\"controller\": \"secrets.APIController\", \"error\": \"{reason}\"}}"
                    ),
                );
                complaint = reason;
            }
            Err(_) => {}
        }
        if signal.changed().await.is_err() {
            return;
        }
    };
    super::boot::running(nodes, id, "apid", "Health check successful");
    if configuration.is_control_plane() {
        lead_endpoint_here(nodes, id, configuration, &realm);
    }
    let front = Arc::new(Front {
        nodes: nodes.clone(),
        id: id.clone(),
        configuration: Some(configuration.clone()),
        issuer: Some(issuer),
        certificate: Mutex::new(None),
        client: Mutex::new(None),
    });
    nodes.event(Some(&realm), &format!("{id}: apid answers"));
    let mut listening = BTreeSet::new();
    loop {
        signal.mark_unchanged();
        let Some((addresses, vip)) = nodes.state().machines.get(id).map(|machine| (machine.addresses(), machine.vip)) else { return };
        for address in addresses {
            if listening.insert(address) {
                tokio::spawn(front.clone().listen(address, stop.clone()));
            }
        }
        // A shared address is listened on while it is held here; the latest listener gets the streams.
        if let Some(vip) = vip.filter(|vip| listening.insert(*vip)) {
            tokio::spawn(front.clone().listen_while_held(vip, stop.clone()));
        }
        listening.retain(|address| vip == Some(*address) || !is_shared(nodes, id, *address));
        if signal.changed().await.is_err() {
            return;
        }
    }
}

fn is_shared(nodes: &Nodes, id: &VmId, address: IpAddr) -> bool {
    nodes.state().machines.get(id).is_some_and(|machine| machine.links.iter().any(|link| link.vip == Some(address)))
}

/// Answers in maintenance mode: to anybody, and little.
pub(super) async fn run_maintenance(nodes: &Nodes, id: &VmId, stop: &CancellationToken) {
    let addresses = nodes.state().machines.get(id).map(|machine| machine.addresses()).unwrap_or_default();
    let front = Arc::new(Front {
        nodes: nodes.clone(),
        id: id.clone(),
        configuration: None,
        issuer: None,
        certificate: Mutex::new(None),
        client: Mutex::new(None),
    });
    super::boot::running(nodes, id, "apid", "Health check successful");
    let listeners = addresses.into_iter().map(|address| front.clone().listen(address, stop.clone()));
    futures::future::join_all(listeners).await;
}

/// The endpoint's name leads to every live control plane. So does an address that nobody in the network holds: a balancer's.
fn lead_endpoint_here(nodes: &Nodes, id: &VmId, configuration: &Configuration, realm: &str) {
    let host = &configuration.cluster.endpoint_host;
    let (primary, is_vip) = {
        let state = nodes.state();
        let Some(primary) = state.machines.get(id).and_then(|machine| machine.primary()) else { return };
        let address: Option<IpAddr> = host.parse().ok();
        let is_vip = address
            .is_some_and(|address| state.in_realm(realm).any(|(_, machine)| machine.links.iter().any(|link| link.vip == Some(address))));
        (primary, is_vip)
    };
    let is_held = host.parse().is_ok_and(|address| !nodes.options().network.holders(address).is_empty());
    if !is_vip && !is_held {
        nodes.options().network.name(host, id, primary);
    }
}

/// Who signs this machine's certificates: itself, or a control plane that its trustd request reaches.
fn issuer(nodes: &Nodes, configuration: &Configuration, realm: &str) -> Result<Arc<Configuration>, String> {
    if configuration.is_control_plane() {
        return Ok(Arc::new(configuration.clone()));
    }
    let network = &nodes.options().network;
    let endpoint = &configuration.cluster.endpoint_host;
    let behind = network.resolve(endpoint);
    let holders = endpoint.parse().map(|address| network.holders(address)).unwrap_or_default();
    let state = nodes.state();
    let trusted = state.in_realm(realm).find(|(id, machine)| {
        let is_found = configuration.cluster.has_discovery
            || holders.contains(id)
            || machine.primary().is_some_and(|address| behind.contains(&address));
        is_found && machine.is_control_plane() && machine.services.is_running("trustd")
    });
    let Some((_, machine)) = trusted else {
        return Err(format!("error requesting certificate: no trustd endpoint answers (control plane endpoint {endpoint}, port 50001)"));
    };
    let issuer = machine.configuration.clone().ok_or_else(|| "the control plane has no configuration".to_owned())?;
    if issuer.token != configuration.token {
        return Err("error requesting certificate: rpc error: code = Unauthenticated desc = invalid token".to_owned());
    }
    Ok(issuer)
}

/// What one machine shows on its API.
struct Front {
    nodes: Nodes,
    id: VmId,
    /// Absent in maintenance mode.
    configuration: Option<Arc<Configuration>>,
    /// Whose authority signs.
    issuer: Option<Arc<Configuration>>,
    certificate: Mutex<Option<(ServerTls, Timestamp)>>,
    /// The identity shown to other machines, on a control plane.
    client: Mutex<Option<(Identity, Timestamp)>>,
}

impl Front {
    async fn listen(self: Arc<Self>, address: IpAddr, stop: CancellationToken) {
        let mut listener = self.nodes.options().network.listen(&address.to_string(), PORT);
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

    async fn listen_while_held(self: Arc<Self>, vip: IpAddr, stop: CancellationToken) {
        let realm = self.configuration.as_deref().map(realm_of).unwrap_or_default();
        let mut signal = self.nodes.watch(&realm);
        let held = stop.child_token();
        let _listening = held.clone().drop_guard();
        tokio::spawn(self.clone().listen(vip, held));
        let lost = async {
            while self.nodes.state().machines.get(&self.id).is_some_and(|machine| machine.vip == Some(vip)) {
                if signal.changed().await.is_err() {
                    return;
                }
            }
        };
        stop.run_until_cancelled(lost).await;
    }

    /// The server's side of a handshake, with a certificate that is not too old.
    async fn server_tls(&self) -> Result<ServerTls, CertificateError> {
        let options = &self.nodes.options();
        let now = options.clock.now();
        let mut certificate = self.certificate.lock().await;
        if let Some((tls, made)) = &*certificate
            && is_fresh(*made, now)
        {
            return Ok(tls.clone());
        }
        let machine = self.nodes.state().machines.get(&self.id).map(|machine| {
            let mut addresses = machine.addresses();
            addresses.extend(machine.links.iter().filter_map(|link| link.vip));
            (machine.hostname.clone(), addresses, machine.boots)
        });
        let (hostname, addresses, boots) = machine.unwrap_or_default();
        let random = options.random.child(&format!("apid {} {boots} {now}", self.id));
        let tls = match (&self.configuration, &self.issuer) {
            (Some(configuration), Some(issuer)) => {
                let authority = certificates::authority(&issuer.os_ca)?;
                let wanted = certificates::machine_api(configuration, &hostname, &addresses);
                let (identity, _) = certificates::issue(&authority, &wanted, now, options.keys.as_ref(), &random).await?;
                certificates::machine_api_tls(configuration, identity)?
            }
            _ => certificates::maintenance_tls(&addresses, now, options.keys.as_ref(), &random).await?,
        };
        *certificate = Some((tls.clone(), now));
        Ok(tls)
    }

    async fn serve(self: Arc<Self>, stream: BoxStream) {
        let tls = match self.server_tls().await {
            Ok(tls) => tls,
            Err(error) => {
                self.nodes.say(&self.id, &format!("user: warning: [talos] apid: no certificate: {error}"));
                return;
            }
        };
        let secured = match self.nodes.options().tls.accept(stream, &tls).await {
            Ok(secured) => secured,
            Err(error) => {
                tracing::debug!(target: "talosphere::simulator", "{}: a client of the machine API was turned away: {error}", self.id);
                return;
            }
        };
        let roles = match secured.peer.first() {
            Some(leaf) => Facts::read(leaf).map(|facts| facts.organizations).unwrap_or_default(),
            // Maintenance: what may be called there is decided by path.
            None => Vec::new(),
        };
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (front, roles) = (self.clone(), roles.clone());
            async move { front.answer(request, roles).await }
        });
        let mut server = auto::Builder::new(TokioExecutor::new());
        server.http2().timer(TokioTimer::new());
        let _ = server.serve_connection(TokioIo::new(secured.stream), service).await;
    }

    async fn answer(&self, request: Request<Incoming>, certificate_roles: Vec<String>) -> Result<Response<Body>, Broken> {
        let path = request.uri().path().to_owned();
        let method = path.rsplit('/').next().unwrap_or_default().to_owned();
        // Machines that forward speak for their callers, and only they are believed.
        let is_forwarded = certificate_roles.iter().any(|role| role == IMPERSONATOR);
        let roles = if is_forwarded {
            let header = request.headers().get_all(ROLE_HEADER).iter();
            header.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(|role| role.trim().to_owned()).collect()
        } else {
            certificate_roles
        };
        if self.configuration.is_none() {
            let status = match (method.as_str(), self.is_unified()) {
                ("ApplyConfiguration" | "Version" | "Disks", _) => None,
                (_, true) if allowed(&method).contains(&READER) => None,
                (_, true) => Some(Status::permission_denied("not authorized")),
                (_, false) => Some(Status::unimplemented(format!("API is not implemented in maintenance mode: {path}"))),
            };
            if let Some(status) = status {
                return Ok(status.into_http());
            }
            return self.own(request, &method).await;
        }
        match targets(request.headers(), is_forwarded) {
            Targets::Here => {
                if !roles.iter().any(|role| allowed(&method).contains(&role.as_str())) {
                    return Ok(Status::permission_denied("not authorized").into_http());
                }
                self.own(request, &method).await
            }
            Targets::Wrong(text) => Ok(Status::invalid_argument(text).into_http()),
            Targets::One(target) => {
                if let Err(status) = self.may_forward() {
                    return Ok(status.into_http());
                }
                Ok(self.forward(request, &target, &roles).await.unwrap_or_else(Status::into_http))
            }
            Targets::Many(targets) => {
                if let Err(status) = self.may_forward() {
                    return Ok(status.into_http());
                }
                if STREAMS.contains(&method.as_str()) {
                    let [target] = targets.as_slice() else {
                        return Ok(Status::unimplemented("the simulated apid streams from one node at a time").into_http());
                    };
                    return Ok(self.forward(request, target, &roles).await.unwrap_or_else(Status::into_http));
                }
                Ok(self.fan_out(request, &targets, &roles).await.unwrap_or_else(Status::into_http))
            }
        }
    }

    /// From 1.13 on the ordinary API answers in maintenance mode as well, to readers.
    fn is_unified(&self) -> bool {
        self.nodes.state().machines.get(&self.id).is_some_and(|machine| machine.release.is_at_least(13))
    }

    fn may_forward(&self) -> Result<(), Status> {
        match &self.configuration {
            Some(configuration) if configuration.is_control_plane() => Ok(()),
            _ => Err(Status::permission_denied("no request forwarding")),
        }
    }

    /// Answers the call on this machine, through the hooks.
    async fn own(&self, request: Request<Incoming>, method: &str) -> Result<Response<Body>, Broken> {
        let object = {
            let state = self.nodes.state();
            state
                .machines
                .get(&self.id)
                .and_then(|machine| machine.primary())
                .map_or_else(|| self.id.to_string(), |address| address.to_string())
        };
        let hooks = &self.nodes.options().hooks;
        let begun = hooks.before(TALOS, method, &object);
        if let Verdict::Fault(name) = &begun.verdict {
            return Ok(fault(name).into_http());
        }
        let service = rpc::routes(self.nodes.clone(), self.id.clone());
        let answer = service.oneshot(request.map(Body::new)).await.unwrap_or_else(|never: Infallible| match never {});
        match hooks.after(begun) {
            Verdict::Proceed => Ok(answer),
            Verdict::Fault(name) => Ok(fault(&name).into_http()),
            Verdict::DropReply => Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the reply is lost")),
        }
    }

    /// Passes the call on to the machine called `target`, as it is.
    async fn forward(&self, request: Request<Incoming>, target: &str, roles: &[String]) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let response = self.call(target, parts.uri.path(), parts.headers, Body::new(body), roles).await?;
        Ok(response.map(Body::new))
    }

    async fn call(&self, target: &str, path: &str, headers: HeaderMap, body: Body, roles: &[String]) -> Result<Response<Incoming>, Status> {
        let unavailable = |error: &dyn std::fmt::Display| {
            Status::unavailable(format!("connection error: desc = \"transport: Error while dialing: dial tcp {target}:{PORT}: {error}\""))
        };
        let address = self.address_of(target);
        let tls = self.client_tls().await.map_err(|error| Status::internal(error.to_string()))?;
        let options = &self.nodes.options();
        let connector = Connector::secured(Arc::new(options.network.clone()), options.tls.clone(), tls).to(&address, PORT);
        let host = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        let uri: http::Uri =
            format!("https://{host}:{PORT}{path}").parse().map_err(|_| Status::invalid_argument("target is not a host"))?;
        let mut request =
            Request::builder().method(http::Method::POST).uri(uri).body(body).map_err(|error| Status::internal(error.to_string()))?;
        *request.headers_mut() = forwarded(headers, roles);
        // One connection for one call: nothing of it outlives the machine it leads to.
        runtime::http::client::<Body>(connector).request(request).await.map_err(|error| {
            let source = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            unavailable(&source)
        })
    }

    /// A machine of the realm by its host name; anything else is dialled as it is.
    fn address_of(&self, target: &str) -> String {
        let realm = self.configuration.as_deref().map(realm_of).unwrap_or_default();
        let state = self.nodes.state();
        let by_name = state.in_realm(&realm).find(|(_, machine)| machine.hostname == target).and_then(|(_, machine)| machine.primary());
        by_name.map_or_else(|| target.trim_start_matches('[').trim_end_matches(']').to_owned(), |address| address.to_string())
    }

    async fn client_tls(&self) -> Result<ClientTls, CertificateError> {
        let configuration = self.issuer.as_deref().ok_or(CertificateError::NoKey)?;
        let options = &self.nodes.options();
        let now = options.clock.now();
        let mut client = self.client.lock().await;
        let identity = match &*client {
            Some((identity, made)) if is_fresh(*made, now) => identity.clone(),
            _ => {
                let authority = certificates::authority(&configuration.os_ca)?;
                let wanted = Wanted {
                    organizations: vec![IMPERSONATOR.to_owned()],
                    common_name: None,
                    names: Vec::new(),
                    addresses: Vec::new(),
                    usages: Usages::CLIENT,
                    lifetime: API_LIFETIME,
                };
                let random = options.random.child(&format!("apid client {} {now}", self.id));
                let (identity, _) = certificates::issue(&authority, &wanted, now, options.keys.as_ref(), &random).await?;
                *client = Some((identity.clone(), now));
                identity
            }
        };
        let root = certificate_from_pem(&configuration.os_ca.certificate)?;
        Ok(ClientTls { verifier: authorities(&[root])?, identity: Some(identity), server_name: None, alpn: vec![b"h2".to_vec()] })
    }

    /// Asks every target and puts their answers into one, each with the target's name. A target that fails has its error in its place.
    async fn fan_out(&self, request: Request<Incoming>, targets: &[String], roles: &[String]) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.map_err(|error| Status::internal(error.to_string()))?.to_bytes();
        let mut merged = Vec::new();
        for target in targets {
            let body = Body::new(Full::new(bytes.clone()));
            let outcome = match self.call(target, parts.uri.path(), parts.headers.clone(), body, roles).await {
                Ok(response) => unwrap_reply(response).await,
                Err(status) => Err(status),
            };
            match outcome {
                Ok(reply) => merged.extend(name_messages(&reply, target)),
                Err(status) => merged.extend(failed_message(target, &status)),
            }
        }
        let length = u32::try_from(merged.len()).unwrap_or(u32::MAX);
        let mut frame = vec![0];
        frame.extend(length.to_be_bytes());
        frame.extend(merged);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let body = Full::new(Bytes::from(frame)).with_trailers(std::future::ready(Some(Ok(trailers))));
        let mut response = Response::new(Body::new(body.map_err(|never| match never {})));
        response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        Ok(response)
    }
}

fn is_fresh(made: Timestamp, now: Timestamp) -> bool {
    now.duration_since(made).unsigned_abs() < API_RENEWAL
}

/// A fault by its gRPC name; anything else is `Unavailable` with the text.
fn fault(name: &str) -> Status {
    let code = match name {
        "Internal" => Code::Internal,
        "DeadlineExceeded" => Code::DeadlineExceeded,
        "FailedPrecondition" => Code::FailedPrecondition,
        "PermissionDenied" => Code::PermissionDenied,
        "AlreadyExists" => Code::AlreadyExists,
        _ => Code::Unavailable,
    };
    Status::new(code, format!("injected fault: {name}"))
}

enum Targets {
    Here,
    One(String),
    Many(Vec<String>),
    Wrong(&'static str),
}

fn targets(headers: &HeaderMap, is_forwarded: bool) -> Targets {
    let values = |name: &str| -> Vec<String> {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|value| value.trim().to_owned())
            .collect()
    };
    let (node, nodes) = (values("node"), values("nodes"));
    if is_forwarded {
        return Targets::Here;
    }
    match (node.as_slice(), nodes.as_slice()) {
        ([], []) => Targets::Here,
        ([one], []) => Targets::One(one.clone()),
        ([], many) => Targets::Many(many.to_vec()),
        ([_, _, ..], _) => Targets::Wrong("node metadata must be single-valued"),
        (_, _) => Targets::Wrong("node and nodes cannot be given together"),
    }
}

/// The headers of a call on its way to another machine.
fn forwarded(mut headers: HeaderMap, roles: &[String]) -> HeaderMap {
    for name in ["node", "nodes", ROLE_HEADER, "host"] {
        headers.remove(name);
    }
    headers.insert("proxyfrom", HeaderValue::from_static("apid"));
    for role in roles {
        if let Ok(value) = HeaderValue::from_str(role) {
            headers.append(ROLE_HEADER, value);
        }
    }
    headers
}

/// Which roles may call a method. An unknown method needs an administrator.
fn allowed(method: &str) -> &'static [&'static str] {
    match method {
        "Version" | "ServiceList" | "Logs" | "LogsContainers" | "Dmesg" | "Events" | "List" | "DiskUsage" | "Mounts" | "Memory"
        | "CPUInfo" | "DiskStats" | "LoadAvg" | "SystemStat" | "Processes" | "Netstat" | "NetworkDeviceStats" | "Containers" | "Stats"
        | "Hostname" | "ImageList" | "Disks" | "Time" | "TimeCheck" | "HealthCheck" | "Get" | "Watch" => &[ADMIN, OPERATOR, READER],
        "EtcdMemberList" | "EtcdStatus" | "EtcdAlarmList" => &[ADMIN, OPERATOR, READER, ETCD_BACKUP],
        "EtcdSnapshot" => &[ADMIN, OPERATOR, ETCD_BACKUP],
        "Reboot" | "Shutdown" | "Restart" | "ServiceStart" | "ServiceStop" | "ServiceRestart" | "EtcdAlarmDisarm" | "EtcdDefragment"
        | "ImagePull" | "Pull" | "PacketCapture" => &[ADMIN, OPERATOR],
        "MetaWrite" | "MetaDelete" => &[ADMIN, "os:meta:writer"],
        _ => &[ADMIN],
    }
}

/// The message of a unary reply, or its status.
async fn unwrap_reply(response: Response<Incoming>) -> Result<Vec<u8>, Status> {
    let status_of = |headers: &HeaderMap| Status::from_header_map(headers).filter(|status| status.code() != Code::Ok);
    if let Some(status) = status_of(response.headers()) {
        return Err(status);
    }
    let collected = response.into_body().collect().await.map_err(|error| Status::unavailable(error.to_string()))?;
    if let Some(status) = collected.trailers().and_then(status_of) {
        return Err(status);
    }
    Ok(collected.to_bytes().get(5..).unwrap_or_default().to_vec())
}

/// Puts the metadata with the target's name in front of every `messages` element (field 1, length-delimited) of a reply.
fn name_messages(reply: &[u8], target: &str) -> Vec<u8> {
    let metadata = field(1, &field(1, target.as_bytes()));
    let mut named = Vec::new();
    let mut rest = reply;
    while let Some((payload, after)) = rest.strip_prefix(&[0x0a]).and_then(delimited) {
        let mut element = metadata.clone();
        element.extend_from_slice(payload);
        named.extend(field(1, &element));
        rest = after;
    }
    named
}

fn failed_message(target: &str, status: &Status) -> Vec<u8> {
    let mut metadata = field(1, target.as_bytes());
    metadata.extend(field(2, format!("rpc error: code = {:?} desc = {}", status.code(), status.message()).as_bytes()));
    field(1, &field(1, &metadata))
}

/// A length-delimited field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = content.len();
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or(0);
        length >>= 7;
        bytes.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

/// Content and rest of what follows a length-delimited field's key.
fn delimited(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0usize;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let start = index + 1;
            return Some((bytes.get(start..start + length)?, bytes.get(start + length..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use talos_proto::machine::{Hostname, HostnameResponse};

    use super::*;

    #[test]
    fn merged_replies_carry_the_target_s_name() {
        let reply = HostnameResponse { messages: vec![Hostname { metadata: None, hostname: "node-1".repeat(60) }] }.encode_to_vec();
        let mut merged = name_messages(&reply, "10.0.0.5");
        merged.extend(failed_message("10.0.0.6", &Status::unavailable("connection refused")));
        let read = HostnameResponse::decode(merged.as_slice()).unwrap();
        assert_eq!(read.messages.len(), 2);
        assert_eq!(read.messages[0].hostname, "node-1".repeat(60));
        assert_eq!(read.messages[0].metadata.as_ref().unwrap().hostname, "10.0.0.5");
        let failure = read.messages[1].metadata.as_ref().unwrap();
        assert_eq!(failure.hostname, "10.0.0.6");
        assert!(failure.error.contains("connection refused"), "{}", failure.error);
    }

    #[test]
    fn roles_open_methods() {
        for (method, role, is_allowed) in [
            ("Version", READER, true),
            ("Bootstrap", READER, false),
            ("Bootstrap", OPERATOR, false),
            ("Bootstrap", ADMIN, true),
            ("Reboot", OPERATOR, true),
            ("Reboot", READER, false),
            ("EtcdMemberList", ETCD_BACKUP, true),
            ("Kubeconfig", OPERATOR, false),
            ("SomethingNew", OPERATOR, false),
            ("SomethingNew", ADMIN, true),
        ] {
            assert_eq!(allowed(method).contains(&role), is_allowed, "{method} as {role}");
        }
    }

    #[test]
    fn the_metadata_names_the_targets() {
        let with = |is_forwarded: bool, pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            targets(&headers, is_forwarded)
        };
        assert!(matches!(with(false, &[]), Targets::Here));
        assert!(matches!(with(false, &[("node", "a")]), Targets::One(name) if name == "a"));
        assert!(matches!(with(false, &[("node", "a"), ("node", "b")]), Targets::Wrong(_)));
        assert!(matches!(with(false, &[("nodes", "a"), ("nodes", "b")]), Targets::Many(names) if names == ["a", "b"]));
        assert!(matches!(with(true, &[("node", "a")]), Targets::Here));
    }
}
