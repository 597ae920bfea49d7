//! SOAP over HTTPS: one call at a time, counted by method, with a limit on time and size. Knows cookies and operation ids, but no session.
//!
//! Two pools: ordinary calls, and long polls, which may stay open for minutes. The server is always verified: by thumbprint, by authorities, or not at all
//! only where that was asked for by name.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, SET_COOKIE, USER_AGENT};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use runtime::http::Connector;
use runtime::net::Dialer;
use runtime::tls::{ClientTls, Tls, TlsError};
use rustls_pki_types::CertificateDer;
use vsphere_wire::method::{Method, read_response, request_element};
use vsphere_wire::{Envelope, Fault};

use crate::error::VSphereError;

/// An ordinary call must be answered within this time.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// No answer is larger: the first answer for a few thousand machines is several MiB.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
/// At most this many ordinary calls run at the same time.
const MAX_CALLS: usize = 16;

/// How the server is recognized.
#[derive(Clone, Debug)]
pub enum Trust {
    /// By the SHA-1 or SHA-256 of its certificate: hex, colons optional.
    Thumbprint(String),
    /// By authorities that signed its certificate for its name.
    Authorities(Vec<CertificateDer<'static>>),
    /// Not at all: only where a person said so.
    Insecure,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Reads `host`, `host:port`, `[v6]:port`, each with or without `https://` and a path.
    ///
    /// # Errors
    /// When the port is no number, or there is no host.
    pub fn parse(text: &str) -> Result<Self, VSphereError> {
        let wrong = |reason: &str| VSphereError::Server { server: text.to_owned(), reason: reason.to_owned() };
        let rest = text.trim().strip_prefix("https://").unwrap_or(text.trim());
        let rest = rest.split('/').next().unwrap_or_default();
        let port = |digits: &str| digits.parse().map_err(|_| wrong("its port is not a number from 1 to 65535"));
        let (host, port) = if let Some(rest) = rest.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or_else(|| wrong("its address lacks the closing bracket"))?;
            (host, if after.is_empty() { 443 } else { port(after.trim_start_matches(':'))? })
        } else {
            match rest.rsplit_once(':') {
                // A bare IPv6 address has more than one colon.
                Some((host, digits)) if !host.contains(':') => (host, port(digits)?),
                _ => (rest, 443),
            }
        };
        if host.is_empty() {
            return Err(wrong("there is no host name"));
        }
        Ok(Self { host: host.to_owned(), port })
    }

    fn uri(&self) -> String {
        if self.host.contains(':') {
            format!("https://[{}]:{}/sdk", self.host, self.port)
        } else {
            format!("https://{}:{}/sdk", self.host, self.port)
        }
    }
}

/// How often each method was called.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Counters {
    fn count(&self, method: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(method).or_default() += 1;
    }

    /// The counts so far, by method.
    pub fn by_method(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How a call ended that reached the server.
#[derive(Debug)]
pub(crate) enum Failure {
    /// With a fault.
    Fault(Fault),
    /// Otherwise.
    Other(VSphereError),
}

/// The way to one server.
#[derive(Debug)]
pub(crate) struct Connection {
    /// As the user names it.
    pub server: String,
    uri: String,
    calls: Client<Connector, Full<Bytes>>,
    polls: Client<Connector, Full<Bytes>>,
    gate: tokio::sync::Semaphore,
    counters: Counters,
    operation: AtomicU64,
    user_agent: String,
}

/// What a connection is made of.
#[derive(Clone, Debug)]
pub struct Transport {
    pub dialer: Arc<dyn Dialer>,
    pub tls: Tls,
    /// `talosphere/0.1.0 (installation ...)`.
    pub user_agent: String,
}

impl Connection {
    pub(crate) fn new(server: &str, trust: &Trust, transport: &Transport, counters: Counters) -> Result<Self, VSphereError> {
        let address = Address::parse(server)?;
        let verifier = match trust {
            Trust::Thumbprint(expected) => {
                let digits = expected.chars().filter(char::is_ascii_hexdigit).count();
                if digits != 40 && digits != 64 {
                    let reason = format!("the thumbprint {expected:?} is neither SHA-1 (20 bytes) nor SHA-256 (32 bytes)");
                    return Err(VSphereError::Server { server: server.to_owned(), reason });
                }
                runtime::tls::thumbprint(expected)
            }
            Trust::Authorities(roots) => runtime::tls::authorities(roots)
                .map_err(|error| VSphereError::Server { server: server.to_owned(), reason: error.to_string() })?,
            Trust::Insecure => runtime::tls::any_server(),
        };
        let tls = ClientTls { verifier, identity: None, server_name: None, alpn: vec![b"http/1.1".to_vec()] };
        let connector = Connector::secured(transport.dialer.clone(), transport.tls.clone(), tls);
        Ok(Self {
            server: server.to_owned(),
            uri: address.uri(),
            calls: runtime::http::client(connector.clone()),
            polls: runtime::http::client(connector),
            gate: tokio::sync::Semaphore::new(MAX_CALLS),
            counters,
            operation: AtomicU64::new(0),
            user_agent: transport.user_agent.clone(),
        })
    }

    /// Makes one call. `cookie` is the session's; the answer brings the one to be used from now on, if it changed.
    pub(crate) async fn call<M: Method>(&self, method: &M, cookie: Option<&str>) -> Result<(M::Output, Option<String>), Failure> {
        let Ok(_permit) = self.gate.acquire().await else { return Err(Failure::Other(self.unreachable("the client is shutting down"))) };
        self.send(&self.calls, method, cookie, CALL_TIMEOUT).await
    }

    /// Makes one call that may take `limit` to be answered.
    pub(crate) async fn poll<M: Method>(&self, method: &M, cookie: Option<&str>, limit: Duration) -> Result<M::Output, Failure> {
        self.send(&self.polls, method, cookie, limit).await.map(|(output, _)| output)
    }

    async fn send<M: Method>(
        &self,
        client: &Client<Connector, Full<Bytes>>,
        method: &M,
        cookie: Option<&str>,
        limit: Duration,
    ) -> Result<(M::Output, Option<String>), Failure> {
        self.counters.count(M::NAME);
        let number = self.operation.fetch_add(1, Ordering::Relaxed);
        let operation = format!("talosphere-{number:x}");
        let document = Envelope::new(request_element(method)).with_operation_id(operation.clone()).to_document();
        tracing::trace!(server = %self.server, method = M::NAME, object = %method.this(), %operation, "vCenter call");
        let mut request = http::Request::post(&self.uri)
            .header(CONTENT_TYPE, "text/xml; charset=utf-8")
            .header("SOAPAction", "urn:vim25/6.7")
            .header(USER_AGENT, &self.user_agent);
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        let request = request
            .body(Full::new(Bytes::from(document)))
            .map_err(|error| Failure::Other(VSphereError::Server { server: self.server.clone(), reason: error.to_string() }))?;
        let exchange = async {
            let response = client.request(request).await.map_err(|error| self.explain::<M>(&error))?;
            let status = response.status();
            let cookie = response.headers().get(SET_COOKIE).and_then(|value| value.to_str().ok()).and_then(session_cookie);
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| self.unanswered::<M>(&error.to_string()))?.to_bytes();
            Ok((status, cookie, body))
        };
        let (status, cookie, body) = match tokio::time::timeout(limit, exchange).await {
            Ok(result) => result.map_err(Failure::Other)?,
            Err(_) => return Err(Failure::Other(self.unanswered::<M>(&format!("no answer within {} s", limit.as_secs())))),
        };
        let text = String::from_utf8_lossy(&body);
        if !(status.is_success() || status == http::StatusCode::INTERNAL_SERVER_ERROR) || text.trim().is_empty() {
            // vpxd or the proxy in front of it is starting, or has no session left to give.
            let reason = format!("it answered {} with HTTP status {status}", M::NAME);
            return Err(Failure::Other(self.unreachable(&reason)));
        }
        let unreadable =
            |reason: String| Failure::Other(VSphereError::Protocol { server: self.server.clone(), method: M::NAME.to_owned(), reason });
        let envelope = match Envelope::parse(&text) {
            Ok(envelope) => envelope,
            Err(_) if !status.is_success() => {
                return Err(Failure::Other(self.unreachable(&format!("it answered {} with HTTP status {status}", M::NAME))));
            }
            Err(error) => return Err(unreadable(error.to_string())),
        };
        if let Some(fault) = envelope.fault().map_err(|error| unreadable(error.to_string()))? {
            return Err(Failure::Fault(fault));
        }
        let output = read_response::<M>(&envelope.body).map_err(|error| unreadable(error.to_string()))?;
        Ok((output, cookie))
    }

    pub(crate) fn unreachable(&self, reason: &str) -> VSphereError {
        VSphereError::Unreachable { server: self.server.clone(), reason: reason.to_owned() }
    }

    fn unanswered<M: Method>(&self, reason: &str) -> VSphereError {
        VSphereError::Unanswered { server: self.server.clone(), method: M::NAME.to_owned(), reason: reason.to_owned() }
    }

    /// What is behind a failed request: the handshake's own error where there is one.
    fn explain<M: Method>(&self, error: &hyper_util::client::legacy::Error) -> VSphereError {
        let mut source = error.source();
        let mut text = error.to_string();
        while let Some(inner) = source {
            if let Some(error) = inner.downcast_ref::<io::Error>() {
                if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
                    return self.explain_tls(tls);
                }
                text = error.to_string();
            } else {
                text = inner.to_string();
            }
            source = inner.source();
        }
        if error.is_connect() { self.unreachable(&text) } else { self.unanswered::<M>(&text) }
    }

    fn explain_tls(&self, error: &TlsError) -> VSphereError {
        let server = self.server.clone();
        match error {
            TlsError::Thumbprint { expected, presented } => {
                VSphereError::Thumbprint { server, expected: expected.clone(), presented: presented.clone() }
            }
            TlsError::Untrusted { reason } => VSphereError::Untrusted { server, reason: reason.clone() },
            TlsError::Io(source) => VSphereError::Unreachable { server, reason: format!("{error}: {source}") },
            TlsError::Refused { .. } | TlsError::Setup { .. } => VSphereError::Server { server, reason: error.to_string() },
        }
    }
}

/// Reads which certificate a server shows, so that an error can tell its thumbprint. Trusts nothing that it says.
pub(crate) async fn shown_thumbprint(server: &str, transport: &Transport) -> Option<String> {
    let address = Address::parse(server).ok()?;
    let stream = transport.dialer.dial(&address.host, address.port).await.ok()?;
    let tls = ClientTls { verifier: runtime::tls::any_server(), identity: None, server_name: None, alpn: vec![b"http/1.1".to_vec()] };
    let secured = transport.tls.connect(stream, &address.host, &tls).await.ok()?;
    secured.peer.first().map(runtime::tls::sha1_thumbprint)
}

/// `name=value` of a session cookie.
fn session_cookie(header: &str) -> Option<String> {
    let pair = header.split(';').next()?.trim();
    pair.starts_with("vmware_soap_session=").then(|| pair.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_usual_form() {
        for (text, host, port) in [
            ("vc.example.org", "vc.example.org", 443),
            ("vc.example.org:8443", "vc.example.org", 8443),
            ("https://vc.example.org/sdk", "vc.example.org", 443),
            ("10.0.0.1", "10.0.0.1", 443),
            ("[fd00::1]:444", "fd00::1", 444),
            ("[fd00::1]", "fd00::1", 443),
            ("fd00::1", "fd00::1", 443),
        ] {
            assert_eq!(Address::parse(text).unwrap(), Address { host: host.to_owned(), port }, "{text}");
        }
        for text in ["", "https://", "vc:http", "[fd00::1", "vc:70000"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_session_cookie_is_kept() {
        assert_eq!(session_cookie("vmware_soap_session=\"abc\"; Path=/; HttpOnly"), Some("vmware_soap_session=\"abc\"".to_owned()));
        assert_eq!(session_cookie("other=1"), None);
    }
}
