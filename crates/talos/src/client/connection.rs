//! Connections to nodes, and those that are kept for the next question.
//!
//! A connection is one handshake with one node. It is never made anew under the hand: tonic would dial again by itself and tell a node of
//! another cluster as one that is off, so the second dial is refused ([`Once`]) and the caller of the pool makes the next connection, with
//! all that a handshake can tell. An idle connection costs nothing: it is not asked for signs of life. Whether a silent one is dead is seen
//! by the first call that gets no answer, and that call is the last one on it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use runtime::clock::Clock;
use runtime::net::{BoxStream, Dialer};
use talos_proto::machine::machine_service_client::MachineServiceClient;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tonic::transport::Channel;

use super::ClientIdentity;

/// A connection that nobody used for so long is closed: firewalls forget a silent one without a word, some after six minutes.
const LONGEST_IDLE: Duration = Duration::from_secs(5 * 60);
/// None is kept for longer, so that a certificate that ran out meanwhile is told.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// No more are kept: a process may often have no more than a thousand open files.
const MOST: usize = 256;

pub(super) type Client = MachineServiceClient<Channel>;

/// One connection to a node.
pub(super) struct Connection {
    client: Client,
    ended: Ended,
}

impl Connection {
    pub(super) fn new(client: Client, ended: Ended) -> Self {
        Self { client, ended }
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Whether nothing more is to be asked over it.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.0.load(Ordering::Relaxed)
    }
}

/// Whether a connection was closed, by either side, or given up because a call on it was not answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended(Arc<AtomicBool>);

impl Ended {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Dials the first time, and never again.
#[derive(Debug)]
pub(super) struct Once {
    dialer: Arc<dyn Dialer>,
    is_used: AtomicBool,
    ended: Ended,
}

impl Once {
    /// `ended` is told when the stream is closed.
    pub(super) fn new(dialer: Arc<dyn Dialer>, ended: Ended) -> Self {
        Self { dialer, is_used: AtomicBool::new(false), ended }
    }
}

#[async_trait]
impl Dialer for Once {
    async fn dial(&self, host: &str, port: u16) -> io::Result<BoxStream> {
        if self.is_used.swap(true, Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the connection was closed"));
        }
        let stream = self.dialer.dial(host, port).await?;
        Ok(Box::new(Watched { stream, ended: self.ended.clone() }))
    }
}

/// A stream that tells when it is closed.
struct Watched {
    stream: BoxStream,
    ended: Ended,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.ended.set();
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Who is asked, and as whom. The certificate stands for its key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    address: String,
    certificate: String,
    ca: String,
}

impl Key {
    fn of(address: &str, identity: &ClientIdentity) -> Self {
        Self { address: address.to_owned(), certificate: identity.certificate.clone(), ca: identity.ca.clone() }
    }
}

struct Kept {
    connection: Arc<Connection>,
    made_at: Instant,
    used_at: Instant,
}

/// Connections that are kept, one for each node and identity. Clones share them.
#[derive(Clone)]
pub(super) struct Pool {
    kept: Arc<Mutex<BTreeMap<Key, Kept>>>,
    clock: Clock,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

impl Pool {
    pub(super) fn new(clock: Clock) -> Self {
        Self { kept: Arc::default(), clock }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<Key, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to a node that is kept, if there is one. Whatever was kept for too long is closed.
    pub(super) fn find(&self, address: &str, identity: &ClientIdentity) -> Option<Arc<Connection>> {
        let now = self.clock.instant();
        let mut kept = self.kept();
        kept.retain(|_, kept| {
            !kept.connection.has_ended() && now.duration_since(kept.used_at) < LONGEST_IDLE && now.duration_since(kept.made_at) < LONGEST
        });
        let found = kept.get_mut(&Key::of(address, identity))?;
        found.used_at = now;
        Some(found.connection.clone())
    }

    /// Keeps a new connection in the place of the last one, and of the one that was not used for the longest time when there are many.
    pub(super) fn keep(&self, address: &str, identity: &ClientIdentity, connection: &Arc<Connection>) {
        let now = self.clock.instant();
        let mut kept = self.kept();
        kept.insert(Key::of(address, identity), Kept { connection: connection.clone(), made_at: now, used_at: now });
        if kept.len() > MOST {
            let oldest = kept.iter().min_by_key(|(_, kept)| kept.used_at).map(|(key, _)| key.clone());
            oldest.and_then(|key| kept.remove(&key));
        }
    }

    /// A call on this connection: unless it is answered, by yes or no, the connection is given up.
    pub(super) fn call<'a>(&'a self, connection: &'a Arc<Connection>) -> Call<'a> {
        Call { pool: self, connection, is_answered: false }
    }
}

/// A call under way. A caller that does not wait for the answer drops it, which counts as no answer.
pub(super) struct Call<'a> {
    pool: &'a Pool,
    connection: &'a Arc<Connection>,
    is_answered: bool,
}

impl Call<'_> {
    pub(super) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.connection.ended.set();
            self.pool.kept().retain(|_, kept| !Arc::ptr_eq(&kept.connection, self.connection));
        }
    }
}
