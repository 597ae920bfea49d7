//! Streams between hosts: real sockets, a proxy in front of them, or memory.
//!
//! A [`Dialer`] opens streams to `host:port`. In the product it is [`TcpDialer`] or [`ProxyDialer`] (HTTP CONNECT, as used to reach a
//! network behind a bastion host); in a simulated run it is [`MemoryNetwork`], where listeners are found by address.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A boxed byte stream.
pub type BoxStream = Box<dyn Stream>;

/// How long opening a connection may take before the peer counts as unreachable.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens streams.
#[async_trait]
pub trait Dialer: fmt::Debug + Send + Sync {
    /// Opens a stream to `host` (a name or an address without brackets) and `port`.
    ///
    /// # Errors
    /// As `connect(2)`: refused, unreachable, timed out, name not found.
    async fn dial(&self, host: &str, port: u16) -> io::Result<BoxStream>;
}

/// Takes streams that others opened.
#[async_trait]
pub trait Listener: Send {
    /// The next stream and who opened it.
    ///
    /// # Errors
    /// When no further stream can come.
    async fn accept(&mut self) -> io::Result<(BoxStream, String)>;
}

/// Real sockets.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDialer;

#[async_trait]
impl Dialer for TcpDialer {
    async fn dial(&self, host: &str, port: u16) -> io::Result<BoxStream> {
        let connect = TcpStream::connect((host, port));
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {host}:{port} within {CONNECT_TIMEOUT:?}")))??;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

#[async_trait]
impl Listener for TcpListener {
    async fn accept(&mut self) -> io::Result<(BoxStream, String)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), peer.to_string()))
    }
}

/// Opens streams through an HTTP proxy's CONNECT method (RFC 9110, 9.3.6). Hosts in `direct` are dialled without the proxy.
#[derive(Clone, Debug)]
pub struct ProxyDialer {
    pub host: String,
    pub port: u16,
    /// Sent as basic `Proxy-Authorization`, when given.
    pub credentials: Option<(String, String)>,
    /// Hosts that are reached without the proxy.
    pub direct: Vec<String>,
}

impl ProxyDialer {
    /// Reads `http://[user:password@]host:port`.
    ///
    /// # Errors
    /// When the text is not such a URL.
    pub fn parse(url: &str) -> io::Result<Self> {
        let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("proxy {why}; expected http://host:port"));
        let rest = url.strip_prefix("http://").ok_or_else(|| wrong("is not an http:// URL"))?.trim_end_matches('/');
        let (credentials, authority) = match rest.rsplit_once('@') {
            Some((login, authority)) => {
                let (user, password) = login.split_once(':').ok_or_else(|| wrong("has a user but no password"))?;
                (Some((user.to_owned(), password.to_owned())), authority)
            }
            None => (None, rest),
        };
        let (host, port) = authority.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
        let port = port.parse().map_err(|_| wrong("has a port that is not a number"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port, credentials, direct: Vec::new() })
    }
}

#[async_trait]
impl Dialer for ProxyDialer {
    async fn dial(&self, host: &str, port: u16) -> io::Result<BoxStream> {
        if self.direct.iter().any(|direct| direct == host) {
            return TcpDialer.dial(host, port).await;
        }
        let mut stream = TcpDialer
            .dial(&self.host, self.port)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("the proxy {}:{} cannot be reached: {error}", self.host, self.port)))?;
        let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        if let Some((user, password)) = &self.credentials {
            let login = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            request.push_str(&format!("Proxy-Authorization: Basic {login}\r\n"));
        }
        request.push_str("\r\n");
        let answer = async {
            stream.write_all(request.as_bytes()).await?;
            read_head(&mut stream).await
        };
        let head = tokio::time::timeout(CONNECT_TIMEOUT, answer).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, format!("proxy did not connect to {authority} within {CONNECT_TIMEOUT:?}"))
        })??;
        let status = head.split(' ').nth(1).unwrap_or_default();
        match status {
            "200" => Ok(stream),
            "502" | "503" => Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("proxy: {authority} refused the connection"))),
            "504" => Err(io::Error::new(io::ErrorKind::TimedOut, format!("proxy: no answer from {authority}"))),
            _ => Err(io::Error::other(format!("proxy answered {status} to CONNECT {authority}"))),
        }
    }
}

/// Reads an HTTP head up to its empty line, byte by byte so that nothing of what follows is taken.
async fn read_head(stream: &mut BoxStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 16 * 1024 {
            return Err(io::Error::other("proxy answered with a head of more than 16 KiB"));
        }
        head.push(stream.read_u8().await?);
    }
    String::from_utf8(head).map_err(|_| io::Error::other("proxy answered with a head that is not text"))
}

type Waiting = mpsc::UnboundedSender<(BoxStream, String)>;

/// A network in memory: listeners by address, streams as pairs of buffers. Cheap to clone; clones share the network.
///
/// What is not listened on refuses; what was cut off times out, as a silent network does.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<Hosts>>);

#[derive(Default)]
struct Hosts {
    listeners: BTreeMap<(String, u16), Waiting>,
    names: BTreeMap<String, Vec<String>>,
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryNetwork")
    }
}

impl MemoryNetwork {
    fn hosts(&self) -> std::sync::MutexGuard<'_, Hosts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens on `host:port`. A later listener takes the place of an earlier one; dropping the listener makes the address refuse.
    pub fn listen(&self, host: &str, port: u16) -> MemoryListener {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.hosts().listeners.insert((host.to_owned(), port), sender);
        MemoryListener(receiver)
    }

    /// Lets `name` stand for `addresses`, tried in order.
    pub fn resolve(&self, name: &str, addresses: Vec<String>) {
        self.hosts().names.insert(name.to_owned(), addresses);
    }
}

#[async_trait]
impl Dialer for MemoryNetwork {
    async fn dial(&self, host: &str, port: u16) -> io::Result<BoxStream> {
        let candidates = self.hosts().names.get(host).cloned().unwrap_or_else(|| vec![host.to_owned()]);
        for address in candidates {
            let Some(listener) = self.hosts().listeners.get(&(address, port)).cloned() else { continue };
            let (near, far) = tokio::io::duplex(256 * 1024);
            if listener.send((Box::new(far), "memory".to_owned())).is_ok() {
                return Ok(Box::new(near));
            }
        }
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("connect {host}:{port}: connection refused")))
    }
}

/// Takes streams from a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryListener(mpsc::UnboundedReceiver<(BoxStream, String)>);

#[async_trait]
impl Listener for MemoryListener {
    async fn accept(&mut self) -> io::Result<(BoxStream, String)> {
        self.0.recv().await.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the network is gone"))
    }
}
