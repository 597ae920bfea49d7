//! The face: HTTPS, SOAP envelopes, the session cookie, hooks around every call.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, SET_COOKIE, USER_AGENT};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::net::{BoxStream, Listener};
use runtime::tls::{ClientAuth, Identity, ServerTls, Tls, sha1_thumbprint};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use vsphere_wire::{Envelope, Request};

use super::VCenter;
use super::failure::Failure;
use super::methods::{Caller, Reply};
use super::operation;
use crate::hooks::{VCENTER, Verdict};

/// A longer request is refused, as by vCenter's proxy.
const MAX_BODY: usize = 7 * 1024 * 1024;
/// The cookie that carries the session.
const SESSION_COOKIE: &str = "vmware_soap_session";
/// What /sdk/vimServiceVersions.xml says.
const VERSIONS: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<namespaces version=\"1.0\"><namespace><name>urn:vim25</name>\
<version>8.0.3.0</version><priorVersions><version>8.0.2.0</version><version>8.0.1.0</version><version>8.0.0.0</version><version>7.0.3.0</version>\
<version>7.0</version><version>6.7</version><version>6.5</version></priorVersions></namespace></namespaces>\n";

/// The reply is lost on its way.
#[derive(Clone, Copy, Debug, Error)]
#[error("the reply was lost")]
struct Lost;

/// A vCenter on the network.
#[derive(Clone, Debug)]
pub struct Face {
    vcenter: VCenter,
    tls: Tls,
    server: Arc<ServerTls>,
}

type Answer = http::Response<Full<Bytes>>;

impl Face {
    /// Serves `vcenter` under `identity`.
    pub fn new(vcenter: VCenter, tls: Tls, identity: Identity) -> Self {
        let server = ServerTls { identity, clients: ClientAuth::None, alpn: vec![b"http/1.1".to_vec()] };
        Self { vcenter, tls, server: Arc::new(server) }
    }

    /// The certificate's SHA-1 thumbprint, as vSphere prints it.
    pub fn thumbprint(&self) -> String {
        self.server.identity.chain.first().map(sha1_thumbprint).unwrap_or_default()
    }

    /// Serves what comes on `listener` until `shutdown`.
    pub async fn serve(self, mut listener: Box<dyn Listener>, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "vCenter takes no further connections");
                    return;
                }
            };
            let (face, ended) = (self.clone(), shutdown.clone());
            tokio::spawn(async move {
                ended.run_until_cancelled(face.connection(stream, peer)).await;
            });
        }
    }

    async fn connection(self, stream: BoxStream, peer: String) {
        let secured = match self.tls.accept(stream, &self.server).await {
            Ok(secured) => secured,
            Err(error) => {
                tracing::debug!(%peer, %error, "a TLS handshake with vCenter failed");
                return;
            }
        };
        let address = peer.rsplit_once(':').map_or(peer.clone(), |(address, _)| address.to_owned());
        let service = service_fn(move |request| {
            let (face, address) = (self.clone(), address.clone());
            async move { face.route(request, address).await }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(secured.stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%peer, %error, "a connection to vCenter broke off");
        }
    }

    async fn route(&self, request: http::Request<Incoming>, address: String) -> Result<Answer, Lost> {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        match (request.method().clone(), path.as_str()) {
            (Method::POST, "/sdk" | "/sdk/vimService") => self.soap(request, address).await,
            (Method::GET, "/sdk/vimServiceVersions.xml") => Ok(answer(StatusCode::OK, "text/xml", VERSIONS.to_owned())),
            (_, "/sdk" | "/sdk/vimService") => Ok(answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "POST only\n".to_owned())),
            _ => Ok(answer(StatusCode::NOT_FOUND, "text/plain", format!("{path} is not served here\n"))),
        }
    }

    async fn soap(&self, request: http::Request<Incoming>, address: String) -> Result<Answer, Lost> {
        let header =
            |name| request.headers().get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or_default().to_owned();
        let caller = Caller { session: session_cookie(&header(COOKIE)), agent: header(USER_AGENT), address };
        let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Ok(answer(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", format!("{error}\n"))),
        };
        let Ok(text) = std::str::from_utf8(&body) else {
            return Ok(fault(&Failure::invalid_request("the request is not UTF-8")));
        };
        let envelope = match Envelope::parse(text) {
            Ok(envelope) => envelope,
            Err(error) => return Ok(fault(&Failure::invalid_request(&error.to_string()))),
        };
        let read = if self.vcenter.0.options.is_strict { Request::read_strictly } else { Request::read };
        let request = match read(&envelope.body) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(method = envelope.body.local(), %error, "vCenter refuses a request");
                return Ok(fault(&Failure::invalid_request(&error.to_string())));
            }
        };
        self.hooked(&caller, request).await
    }

    async fn hooked(&self, caller: &Caller, request: Request) -> Result<Answer, Lost> {
        let method = request.name().to_owned();
        let begun = self.vcenter.0.options.hooks.before(VCENTER, &method, &self.object_of(&request));
        let on = request.this().unwrap_or_else(|| self.vcenter.state().inventory.root.clone());
        let mut task_fault = None;
        if let Verdict::Fault(name) = &begun.verdict {
            if let Some(status) = http_status(name) {
                return Ok(answer(status, "text/plain", format!("{status}\n")));
            }
            let failure = Failure::named(name, &on);
            if !is_for_task(&method, name) {
                return Ok(fault(&failure));
            }
            task_fault = Some(failure);
        }
        let result = self.vcenter.call(caller, request, task_fault).await;
        match self.vcenter.0.options.hooks.after(begun) {
            Verdict::DropReply => Err(Lost),
            Verdict::Fault(name) => Ok(match http_status(&name) {
                Some(status) => answer(status, "text/plain", format!("{status}\n")),
                None => fault(&Failure::named(&name, &on)),
            }),
            Verdict::Proceed => Ok(match result {
                Ok(reply) => success(reply),
                Err(failure) => fault(&failure),
            }),
        }
    }

    /// What a hook is told about the object: `vm-42 name`; for a clone `vm-7 template -> name`.
    fn object_of(&self, request: &Request) -> String {
        let Some(this) = request.this() else { return String::new() };
        let state = self.vcenter.state();
        match request {
            Request::CloneVm(call) => format!("{} -> {}", operation::label(&state.inventory, &this), call.name),
            _ if state.inventory.get(&this).is_some() => operation::label(&state.inventory, &this),
            _ => this.kind,
        }
    }
}

/// Whether a fault asked for by a hook is how the method's task ends, or what the call itself answers.
fn is_for_task(method: &str, fault: &str) -> bool {
    const OF_CALLS: [&str; 5] = ["NotAuthenticated", "NoPermission", "InvalidLogin", "ManagedObjectNotFound", "InvalidRequest"];
    method.ends_with("_Task") && !OF_CALLS.contains(&fault)
}

/// `503` as a fault's name: the answer is this HTTP status.
fn http_status(name: &str) -> Option<StatusCode> {
    StatusCode::from_bytes(name.as_bytes()).ok()
}

fn session_cookie(header: &str) -> Option<String> {
    let cookies: BTreeMap<&str, &str> = header.split(';').filter_map(|cookie| cookie.trim().split_once('=')).collect();
    cookies.get(SESSION_COOKIE).map(|value| value.trim_matches('"').to_owned())
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = http::Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    answer
}

fn success(reply: Reply) -> Answer {
    let document = Envelope::new(reply.response.to_element()).to_document();
    let mut answer = answer(StatusCode::OK, "text/xml; charset=utf-8", document);
    if let Some(key) = reply.opened
        && let Ok(value) = http::HeaderValue::from_str(&format!("{SESSION_COOKIE}=\"{key}\"; Path=/; HttpOnly; Secure"))
    {
        answer.headers_mut().insert(SET_COOKIE, value);
    }
    answer
}

fn fault(failure: &Failure) -> Answer {
    let document = Envelope::new(failure.to_soap().to_element()).to_document();
    answer(StatusCode::INTERNAL_SERVER_ERROR, "text/xml; charset=utf-8", document)
}
