//! The simulated VM network: who listens where, which VM holds which address, which names lead to whom.
//!
//! [`Network`] is a dialer over streams in memory. An address without a holder is unreachable after a while, a holder without a
//! listener refuses, an isolated one stays silent: as on a real network, so that clients meet the errors they must tell apart. Two VMs
//! that configure one address is a fact worth recording, not an error: the latest one answers (as after a gratuitous ARP) and the
//! conflict stays in [`Network::conflicts`] for the rule checker. Names resolve to whatever the world says now, so an endpoint's name
//! leads to its live control planes without a DNS server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use runtime::clock::Clock;
use runtime::net::{BoxStream, CONNECT_TIMEOUT, Dialer, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use crate::hypervisor::VmId;

/// Bytes under way in each direction of a stream.
const WINDOW: usize = 256 * 1024;

/// Two or more VMs configured the same address at the same time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    pub address: IpAddr,
    pub holders: BTreeSet<VmId>,
    /// The address is a virtual one (a control plane's VIP), which moves between VMs.
    pub is_virtual: bool,
}

/// The network. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Network {
    clock: Clock,
    unreachable_after: Duration,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

/// Where streams that were opened to a listener go.
type Opened = mpsc::UnboundedSender<(BoxStream, String)>;

#[derive(Default)]
struct State {
    next: u64,
    /// By host and port, the latest last.
    listeners: BTreeMap<(String, u16), Vec<(u64, Opened)>>,
    holders: BTreeMap<IpAddr, Vec<Holder>>,
    names: BTreeMap<String, Vec<(VmId, IpAddr)>>,
    isolated: BTreeSet<String>,
    lines: BTreeMap<String, Vec<Arc<Line>>>,
    conflicts: BTreeSet<Conflict>,
}

struct Holder {
    vm: VmId,
    is_virtual: bool,
}

/// One writing of a host: addresses in their canonical form, names in lower case.
fn canonical(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => host.to_ascii_lowercase(),
    }
}

impl Network {
    /// An empty network. An address nobody holds is reported unreachable after `unreachable_after` (about 3 s on a real one).
    pub fn new(clock: Clock, unreachable_after: Duration) -> Self {
        Self { clock, unreachable_after, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens on `host:port` until the listener is dropped. The latest of several listeners gets the streams.
    pub fn listen(&self, host: &str, port: u16) -> NetworkListener {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state();
        state.next += 1;
        let number = state.next;
        let place = (canonical(host), port);
        state.listeners.entry(place.clone()).or_default().push((number, sender));
        NetworkListener { receiver, place, number, network: self.clone() }
    }

    /// `vm` configures `address` on an adapter.
    pub fn attach(&self, vm: &VmId, address: IpAddr) {
        self.hold(vm, address, false);
    }

    /// `vm` takes the virtual address `address`.
    pub fn attach_virtual(&self, vm: &VmId, address: IpAddr) {
        self.hold(vm, address, true);
    }

    fn hold(&self, vm: &VmId, address: IpAddr, is_virtual: bool) {
        let mut state = self.state();
        let holders = state.holders.entry(address).or_default();
        holders.retain(|holder| holder.vm != *vm);
        holders.push(Holder { vm: vm.clone(), is_virtual });
        if holders.len() > 1 {
            let is_virtual = holders.iter().all(|holder| holder.is_virtual);
            let holders = holders.iter().map(|holder| holder.vm.clone()).collect();
            state.conflicts.insert(Conflict { address, holders, is_virtual });
        }
    }

    /// `vm` gives `address` up.
    pub fn detach(&self, vm: &VmId, address: IpAddr) {
        let mut state = self.state();
        if let Some(holders) = state.holders.get_mut(&address) {
            holders.retain(|holder| holder.vm != *vm);
            if holders.is_empty() {
                state.holders.remove(&address);
            }
        }
    }

    /// `vm` is off: it holds no address, stands behind no name.
    pub fn detach_all(&self, vm: &VmId) {
        let mut state = self.state();
        state.holders.retain(|_, holders| {
            holders.retain(|holder| holder.vm != *vm);
            !holders.is_empty()
        });
        state.names.retain(|_, behind| {
            behind.retain(|(holder, _)| holder != vm);
            !behind.is_empty()
        });
    }

    /// The VMs that hold `address`, the one that answers last.
    pub fn holders(&self, address: IpAddr) -> Vec<VmId> {
        self.state().holders.get(&address).map(|holders| holders.iter().map(|holder| holder.vm.clone()).collect()).unwrap_or_default()
    }

    /// Every address that is held, with its holders.
    pub fn addresses(&self) -> BTreeMap<IpAddr, Vec<VmId>> {
        let state = self.state();
        state.holders.iter().map(|(address, holders)| (*address, holders.iter().map(|holder| holder.vm.clone()).collect())).collect()
    }

    /// Every conflict that ever was, whether or not it is over.
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.state().conflicts.iter().cloned().collect()
    }

    /// Lets `name` lead to `address` of `vm`, after the addresses already behind it.
    pub fn name(&self, name: &str, vm: &VmId, address: IpAddr) {
        let mut state = self.state();
        let behind = state.names.entry(canonical(name)).or_default();
        behind.retain(|(holder, _)| holder != vm);
        behind.push((vm.clone(), address));
    }

    /// Takes `vm` from behind `name`.
    pub fn unname(&self, name: &str, vm: &VmId) {
        let mut state = self.state();
        let name = canonical(name);
        if let Some(behind) = state.names.get_mut(&name) {
            behind.retain(|(holder, _)| holder != vm);
            if behind.is_empty() {
                state.names.remove(&name);
            }
        }
    }

    /// The addresses behind `name`, now.
    pub fn resolve(&self, name: &str) -> Vec<IpAddr> {
        self.state().names.get(&canonical(name)).map(|behind| behind.iter().map(|(_, address)| *address).collect()).unwrap_or_default()
    }

    /// Cuts `host` off: new streams to it time out, open ones fall silent.
    pub fn isolate(&self, host: &str) {
        let mut state = self.state();
        let host = canonical(host);
        for line in state.lines.get(&host).into_iter().flatten() {
            line.set_cut(true);
        }
        state.isolated.insert(host);
    }

    /// Ends the isolation of `host`; streams that are still open carry on.
    pub fn rejoin(&self, host: &str) {
        let mut state = self.state();
        let host = canonical(host);
        state.isolated.remove(&host);
        for line in state.lines.get(&host).into_iter().flatten() {
            line.set_cut(false);
        }
    }

    /// Opens a stream to one address; `None` when nothing there takes it.
    fn open(&self, host: &str, port: u16) -> Attempt {
        let mut state = self.state();
        if state.isolated.contains(host) {
            return Attempt::Silent;
        }
        let (near, far) = tokio::io::duplex(WINDOW);
        let mut far: BoxStream = Box::new(far);
        while let Some(listeners) = state.listeners.get_mut(&(host.to_owned(), port)) {
            let Some((_, sender)) = listeners.last() else {
                state.listeners.remove(&(host.to_owned(), port));
                break;
            };
            match sender.send((far, "simulated network".to_owned())) {
                Ok(()) => {
                    let line = Arc::new(Line::default());
                    let lines = state.lines.entry(host.to_owned()).or_default();
                    lines.retain(|line| Arc::strong_count(line) > 1);
                    lines.push(line.clone());
                    return Attempt::Open(Box::new(Cuttable { stream: near, line }));
                }
                Err(mpsc::error::SendError((stream, _))) => {
                    far = stream;
                    listeners.pop();
                }
            }
        }
        let is_up = host.parse::<IpAddr>().is_ok_and(|address| state.holders.contains_key(&address))
            || state.listeners.range((host.to_owned(), 0)..=(host.to_owned(), u16::MAX)).next().is_some();
        if is_up { Attempt::Refused } else { Attempt::Nobody }
    }
}

enum Attempt {
    Open(BoxStream),
    Refused,
    Nobody,
    Silent,
}

#[async_trait]
impl Dialer for Network {
    async fn dial(&self, host: &str, port: u16) -> io::Result<BoxStream> {
        let host = canonical(host);
        let behind = self.resolve(&host);
        let candidates = if behind.is_empty() { vec![host.clone()] } else { behind.iter().map(IpAddr::to_string).collect() };
        let mut last = None;
        for candidate in candidates {
            match self.open(&candidate, port) {
                Attempt::Open(stream) => return Ok(stream),
                Attempt::Refused => {
                    last =
                        Some(io::Error::new(io::ErrorKind::ConnectionRefused, format!("connect {candidate}:{port}: connection refused")));
                }
                Attempt::Nobody if candidate.parse::<IpAddr>().is_err() => {
                    last = Some(io::Error::new(io::ErrorKind::NotFound, format!("lookup {candidate}: no such host")));
                }
                Attempt::Nobody => {
                    self.clock.sleep(self.unreachable_after).await;
                    last = Some(io::Error::new(io::ErrorKind::HostUnreachable, format!("connect {candidate}:{port}: no route to host")));
                }
                Attempt::Silent => {
                    self.clock.sleep(CONNECT_TIMEOUT).await;
                    let text = format!("no answer from {candidate}:{port} within {CONNECT_TIMEOUT:?}");
                    last = Some(io::Error::new(io::ErrorKind::TimedOut, text));
                }
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("lookup {host}: no such host"))))
    }
}

/// Takes the streams opened to one place of a [`Network`].
#[derive(Debug)]
pub struct NetworkListener {
    receiver: mpsc::UnboundedReceiver<(BoxStream, String)>,
    place: (String, u16),
    number: u64,
    network: Network,
}

#[async_trait]
impl Listener for NetworkListener {
    async fn accept(&mut self) -> io::Result<(BoxStream, String)> {
        self.receiver.recv().await.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the network is gone"))
    }
}

impl Drop for NetworkListener {
    fn drop(&mut self) {
        let mut state = self.network.state();
        if let Some(listeners) = state.listeners.get_mut(&self.place) {
            listeners.retain(|(number, _)| *number != self.number);
            if listeners.is_empty() {
                state.listeners.remove(&self.place);
            }
        }
    }
}

/// Whether bytes pass on the way to a host. While cut, both directions stand still.
#[derive(Default)]
struct Line(Mutex<LineState>);

#[derive(Default)]
struct LineState {
    is_cut: bool,
    waiting: Vec<Waker>,
}

impl Line {
    fn set_cut(&self, is_cut: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_cut = is_cut;
        for waker in state.waiting.drain(..) {
            waker.wake();
        }
    }

    /// Registers for a wake-up when the line is cut.
    fn blocks(&self, cx: &Context<'_>) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_cut && !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        state.is_cut
    }
}

struct Cuttable {
    stream: tokio::io::DuplexStream,
    line: Arc<Line>,
}

impl AsyncRead for Cuttable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.line.blocks(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.line.blocks(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn network() -> Network {
        Network::new(Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()), Duration::from_secs(3))
    }

    fn vm(name: &str) -> VmId {
        VmId(name.to_owned())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_tells_how_the_address_is() {
        let network = network();
        network.attach(&vm("vm-1"), ip("10.0.0.5"));
        network.attach(&vm("vm-2"), ip("10.0.0.6"));
        network.isolate("10.0.0.6");
        let cases = [
            ("10.0.0.5", io::ErrorKind::ConnectionRefused, 0),
            ("10.0.0.9", io::ErrorKind::HostUnreachable, 3),
            ("10.0.0.6", io::ErrorKind::TimedOut, 10),
            ("api.example.org", io::ErrorKind::NotFound, 0),
        ];
        for (host, kind, seconds) in cases {
            let before = network.clock.instant();
            let error = network.dial(host, 50000).await.err().unwrap();
            assert_eq!(error.kind(), kind, "{host}");
            assert_eq!((network.clock.instant() - before).as_secs(), seconds, "{host}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_leads_to_the_first_that_answers() {
        let network = network();
        for (id, address) in [("vm-1", "10.0.0.5"), ("vm-2", "10.0.0.6")] {
            network.attach(&vm(id), ip(address));
            network.name("API.example.org", &vm(id), ip(address));
        }
        let mut second = network.listen("10.0.0.6", 6443);
        let mut near = network.dial("api.example.org", 6443).await.unwrap();
        let (mut far, _) = second.accept().await.unwrap();
        near.write_all(b"hello").await.unwrap();
        let mut bytes = [0; 5];
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");
        network.detach_all(&vm("vm-2"));
        assert_eq!(network.resolve("api.example.org"), [ip("10.0.0.5")]);
        drop(second);
        assert_eq!(network.dial("api.example.org", 6443).await.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn two_holders_are_recorded_for_good() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _inside = runtime.enter();
        let network = network();
        network.attach(&vm("vm-1"), ip("10.0.0.5"));
        network.attach(&vm("vm-1"), ip("10.0.0.5"));
        assert!(network.conflicts().is_empty());
        network.attach(&vm("vm-2"), ip("10.0.0.5"));
        network.detach(&vm("vm-1"), ip("10.0.0.5"));
        assert_eq!(network.holders(ip("10.0.0.5")), [vm("vm-2")]);
        let conflicts = network.conflicts();
        assert_eq!(conflicts.len(), 1);
        assert_eq!(conflicts[0].holders, BTreeSet::from([vm("vm-1"), vm("vm-2")]));
        assert!(!conflicts[0].is_virtual);
    }

    #[tokio::test(start_paused = true)]
    async fn an_isolated_host_falls_silent_and_carries_on_later() {
        let network = network();
        let mut listener = network.listen("10.0.0.5", 50000);
        let mut near = network.dial("10.0.0.5", 50000).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        far.write_all(b"one").await.unwrap();
        network.isolate("10.0.0.5");
        let mut bytes = [0; 3];
        let silent = tokio::time::timeout(Duration::from_secs(60), near.read_exact(&mut bytes)).await;
        assert!(silent.is_err(), "no byte passes a cut line");
        network.rejoin("10.0.0.5");
        near.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"one");
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_listener_takes_over_and_gives_back() {
        let network = network();
        let mut first = network.listen("10.0.0.5", 50000);
        let second = network.listen("10.0.0.5", 50000);
        drop(second);
        let _stream = network.dial("10.0.0.5", 50000).await.unwrap();
        first.accept().await.unwrap();
    }
}
