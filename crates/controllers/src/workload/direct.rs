//! The way to a workload cluster's API: one after another of its control planes' addresses, and the endpoint last.
//!
//! Names are not resolved for it (missing DNS is no deadlock), and a VIP that nobody holds is passed over. The certificate is still checked
//! against the endpoint's name, above this dialer.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use runtime::net::{BoxStream, Dialer};

/// How long one address may take to answer before the next is tried.
const ADDRESS_LIMIT: Duration = Duration::from_secs(4);

/// Where a connection may go: host and port, in the order in which they are tried.
pub type Targets = Arc<dyn Fn() -> Vec<(String, u16)> + Send + Sync>;

/// Dials the first target that answers, beginning with the one that answered last.
#[derive(Clone)]
pub struct DirectDialer {
    dialer: Arc<dyn Dialer>,
    targets: Targets,
    /// Where in the targets to begin.
    begin: Arc<AtomicUsize>,
}

impl fmt::Debug for DirectDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectDialer").finish_non_exhaustive()
    }
}

impl DirectDialer {
    pub fn new(dialer: Arc<dyn Dialer>, targets: Targets) -> Self {
        Self { dialer, targets, begin: Arc::default() }
    }

    /// Begins with the next target: the present one answered, but not well.
    pub fn pass_over(&self) {
        self.begin.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Dialer for DirectDialer {
    async fn dial(&self, host: &str, port: u16) -> io::Result<BoxStream> {
        let targets = (self.targets)();
        if targets.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("no address of a control plane of {host}:{port} is known"),
            ));
        }
        let begin = self.begin.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for step in 0..targets.len() {
            let place = begin.wrapping_add(step) % targets.len();
            let Some((address, port)) = targets.get(place) else { continue };
            let answer = tokio::time::timeout(ADDRESS_LIMIT, self.dialer.dial(address, *port)).await;
            match answer {
                Ok(Ok(stream)) => {
                    self.begin.store(place, Ordering::Relaxed);
                    return Ok(stream);
                }
                Ok(Err(error)) => failures.push(format!("{address}:{port}: {error}")),
                Err(_) => failures.push(format!("{address}:{port}: no answer within {} s", ADDRESS_LIMIT.as_secs())),
            }
        }
        // In one order, wherever it began: the text stands in conditions.
        failures.sort();
        Err(io::Error::other(failures.join("; ")))
    }
}
