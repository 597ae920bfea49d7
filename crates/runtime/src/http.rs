//! HTTP over handed-in streams: one connector for every client (vCenter, Kubernetes, Talos), so that all of them dial, verify and
//! time out in the same way.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tower::Service;

use crate::net::{BoxStream, Dialer};
use crate::tls::{ClientTls, Tls};

/// Opens (and secures, when `tls` is given) a stream for the host and port of a URI. Works for hyper's client and for tonic.
#[derive(Clone, Debug)]
pub struct Connector {
    dialer: Arc<dyn Dialer>,
    tls: Option<(Tls, Arc<ClientTls>)>,
    /// Dialled instead of the URI's host and port, when given: the certificate is still checked against the URI's host.
    target: Option<(String, u16)>,
}

impl Connector {
    /// Without TLS.
    pub fn plain(dialer: Arc<dyn Dialer>) -> Self {
        Self { dialer, tls: None, target: None }
    }

    /// With TLS.
    pub fn secured(dialer: Arc<dyn Dialer>, tls: Tls, client: ClientTls) -> Self {
        Self { dialer, tls: Some((tls, Arc::new(client))), target: None }
    }

    /// Dials `host:port` whatever the URI says.
    #[must_use]
    pub fn to(mut self, host: &str, port: u16) -> Self {
        self.target = Some((host.to_owned(), port));
        self
    }

    async fn open(self, uri: http::Uri) -> io::Result<Opened> {
        let named = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let implied = if uri.scheme_str() == Some("http") && self.tls.is_none() { 80 } else { 443 };
        let (host, port) = self.target.clone().unwrap_or_else(|| (named.clone(), uri.port_u16().unwrap_or(implied)));
        let stream = self.dialer.dial(&host, port).await?;
        let (stream, is_h2) = match &self.tls {
            None => (stream, false),
            Some((tls, client)) => {
                let secured = tls.connect(stream, &named, client).await?;
                let is_h2 = secured.alpn.as_deref() == Some(b"h2");
                (secured.stream, is_h2)
            }
        };
        Ok(Opened { io: TokioIo::new(stream), is_h2 })
    }
}

/// An open connection.
pub struct Opened {
    io: TokioIo<BoxStream>,
    is_h2: bool,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected").field("is_h2", &self.is_h2).finish_non_exhaustive()
    }
}

impl Connection for Opened {
    fn connected(&self) -> Connected {
        if self.is_h2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for Opened {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Opened {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Service<http::Uri> for Connector {
    type Response = Opened;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Opened>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        Box::pin(self.clone().open(uri))
    }
}

/// How often an HTTP/2 connection with open streams is asked for a sign of life, and how long it may take to give one.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// A pooling HTTP/1.1 and HTTP/2 client over `connector`. A watch on a host that fell silent ends within a minute (HTTP/2 only).
pub fn client<B>(connector: Connector) -> Client<Connector, B>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
{
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).timer(TokioTimer::new());
    builder.http2_keep_alive_interval(KEEP_ALIVE.0).http2_keep_alive_timeout(KEEP_ALIVE.1);
    builder.build(connector)
}

/// A Kubernetes client over `connector` for the server at `authority` (`host:port`, brackets around an IPv6 address). No retries and no
/// limits of its own: the caller decides how long to wait.
///
/// Must be called in a runtime.
///
/// # Errors
/// When `authority` is not one.
pub fn kube_client(connector: Connector, authority: &str, namespace: &str) -> Result<kube::Client, http::Error> {
    use tower::ServiceExt as _;

    let scheme = if connector.tls.is_some() { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP };
    let authority: http::uri::Authority = authority.parse().map_err(http::Error::from)?;
    let service = client::<kube::client::Body>(connector).map_request(move |mut request: http::Request<kube::client::Body>| {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(scheme.clone());
        parts.authority = Some(authority.clone());
        // Parts that came from a URI with a path make a URI again.
        *request.uri_mut() = http::Uri::from_parts(parts).unwrap_or_default();
        request
    });
    Ok(kube::Client::new(service, namespace))
}
