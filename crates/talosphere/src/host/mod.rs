//! The embedded host: the API server over the state directory's store, and the controllers beside it, in this process.
//!
//! Only the owner of a state directory has one. Its controllers use the server in process; everybody else comes over TLS on loopback.

pub mod pki;
pub mod session;
pub mod wiring;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

use apiserver::{ApiServer, CrdSet, Frozen, Options, RedbJournal, User};
use controllers::{Running, Selection};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::pki::Pki;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::signal::interrupted;
use crate::state::{Owner, Ownership, RESTORE, STORE};

/// A running host.
#[derive(Debug)]
pub struct Host {
    pub server: ApiServer,
    pub pki: Pki,
    /// Where the API answers: `127.0.0.1:port`.
    pub address: SocketAddr,
    running: Option<Running>,
    token: CancellationToken,
    serving: JoinHandle<()>,
    ownership: Ownership,
}

/// What a host does beside serving the API.
#[derive(Debug)]
pub enum Work {
    /// Nothing is served and nothing runs: for a look at the state.
    Look,
    Controllers(Selection),
}

/// The definitions of the product's kinds, read once: every server of the process shares what they compile to.
static DEFINITIONS: LazyLock<CrdSet> = LazyLock::new(|| CrdSet::from(api::crds()));

/// Opens the API server over a journal, with the product's kinds.
///
/// # Errors
/// When the journal cannot be read or a definition is not usable.
pub async fn open_server(journal: Box<dyn apiserver::Journal>, seams: &Seams) -> Result<ApiServer, Problem> {
    let unusable = |error: &(dyn std::error::Error + 'static)| {
        Problem::new(Code::StateUnusable, "the API server cannot open its store")
            .because(runtime::reconcile::explain(error))
            .remedy(RESTORE)
    };
    let webhooks = Arc::new(api::Webhooks);
    let options = Options {
        crds: DEFINITIONS.clone(),
        admission: webhooks.clone(),
        conversion: webhooks,
        defects: seams.defects.clone(),
        ..Options::new(seams.clock.clone(), seams.random.child("apiserver"), journal)
    };
    ApiServer::open(options).await.map_err(|error| unusable(&error))
}

/// Completes when the state cannot be written any more: nothing can be done from then on.
async fn unwritable(server: &ApiServer) -> Problem {
    let why = server.failed().await;
    Problem::new(Code::StateUnusable, "the state cannot be written")
        .because(why)
        .remedy("make room or repair what is named, and run the same command again: what was acknowledged is kept")
}

impl Host {
    /// Starts the host of an owned directory, announced once it answers.
    ///
    /// # Errors
    /// When the store cannot be opened, the address not be listened on, or a key not be made.
    pub async fn start(seams: &Seams, ownership: Ownership, work: Work, listen: &str, command: &str) -> Result<Self, Problem> {
        let directory = ownership.directory().clone();
        directory.check()?;
        let journal = RedbJournal::open(directory.join(STORE)).map_err(|error| {
            Problem::new(Code::StateUnusable, format!("the store in {} cannot be opened", directory.path().display()))
                .because(runtime::reconcile::explain(&error))
                .remedy(RESTORE)
        })?;
        // Who only looks changes nothing.
        let journal: Box<dyn apiserver::Journal> = if matches!(work, Work::Look) { Box::new(Frozen(journal)) } else { Box::new(journal) };
        let server = open_server(journal, seams).await?;
        let installation = wiring::installation(&directory, server.cluster_id(), &work)?;
        let pki = Pki::open(&directory, seams).await?;
        let token = CancellationToken::new();
        let busy =
            |error: std::io::Error| Problem::new(Code::Network, format!("the API cannot listen on {listen}")).because(error.to_string());
        let listener = TcpListener::bind(listen).await.map_err(busy)?;
        let address = listener.local_addr().map_err(busy)?;
        let (serving, running) = match work {
            Work::Look => (tokio::spawn(async {}), None),
            Work::Controllers(selection) => {
                let tls = pki.server(address.ip(), seams).await?;
                let serving = tokio::spawn({
                    let (server, seams, token) = (server.clone(), seams.clone(), token.clone());
                    async move { server.serve(Box::new(listener), seams.tls.clone(), tls, token).await }
                });
                let context = wiring::context(seams, server.client(&User::admin("system:talosphere")), installation, &token);
                let running = controllers::start(&context, &selection, &token);
                for health in running.healths() {
                    let name = health.report().name;
                    server.add_ready_check(name, move || wiring::readiness(&health.report()));
                }
                ownership.announce(&Owner {
                    process: std::process::id(),
                    address: shown(address).to_string(),
                    command: command.to_owned(),
                    since: seams.clock.now_seconds(),
                })?;
                (serving, Some(running))
            }
        };
        Ok(Self { server, pki, address: shown(address), running, token, serving, ownership })
    }

    /// The administrator's client, in process.
    pub fn client(&self) -> kube::Client {
        self.server.client(&User::admin("talosphere-admin"))
    }

    /// Completes when the state cannot be written any more.
    pub async fn failed(&self) -> Problem {
        unwritable(&self.server).await
    }

    /// Completes when every controller takes work.
    pub async fn ready(&self) {
        if let Some(running) = &self.running {
            running.ready().await;
        }
    }

    /// Ends controllers, then the API, then ownership, within seconds. Interrupted a second time it ends at once, which is as safe as a kill.
    pub async fn stop(self, seams: &Seams) {
        tokio::select! {
            () = self.stop_in_order(seams) => {}
            () = interrupted() => {}
        }
    }

    async fn stop_in_order(self, seams: &Seams) {
        self.token.cancel();
        let had_controllers = self.running.is_some();
        if let Some(running) = self.running {
            running.ended().await;
        }
        self.server.close().await;
        let _ = self.serving.await;
        if had_controllers {
            self.ownership.release(seams.clock.now_seconds());
        }
    }
}

/// The address as others dial it: loopback when the server listens on all.
fn shown(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
