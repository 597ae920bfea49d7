//! A whole world in one process on paused time: the simulator, the API server, every controller, and the rule checker beside them.
//!
//! Everything above the wires is the product. One seed decides everything; the canonical log of two runs of one seed is the same text.

mod requests;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiServer, MemoryJournal, User};
use controllers::{Running, Selection};
use requests::Requests;
use runtime::clock::Clock;
use runtime::defects::Defects;
use runtime::keys::Prepared;
use runtime::log::Log;
use runtime::random::Random;
use runtime::tls::Tls;
use simulator::Simulator;
use simulator::rules::Violation;
use talosphere::apply::Api;
use talosphere::commands::demo::{Material, own_material};
use talosphere::commands::simulate;
use talosphere::commands::up::bring_up;
use talosphere::environment::Environment;
use talosphere::host::session::Session;
use talosphere::host::{open_server, wiring};
use talosphere::problem::Problem;
use talosphere::seams::Seams;
use tokio_util::sync::CancellationToken;
use watch::Watch;

/// When every world begins.
pub const BEGINNING: &str = "2026-03-01T08:00:00Z";
/// Virtual time in which everything asked of a world must happen.
pub const PATIENCE: Duration = Duration::from_secs(3600);

/// How many of the last log lines are shown with a broken rule.
const TAIL: usize = 60;

/// What differs between worlds.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    /// As `--speed`: 0 without any delay.
    pub speed: f64,
    /// `NAME=VALUE`.
    pub set: Vec<String>,
    pub defects: Defects,
    /// The user's own files instead of the examples.
    pub material: Option<fn() -> Material>,
    /// What is changed in the files.
    pub edit: Option<fn(&mut Material)>,
    /// Whether the rule checker looks on. Only a measurement of what the product itself costs goes without.
    pub is_checked: bool,
}

impl Setup {
    /// The examples with these numbers of machines.
    pub fn new(seed: u64, control_planes: u32, workers: u32) -> Self {
        let set = vec![format!("CONTROL_PLANE_MACHINE_COUNT={control_planes}"), format!("WORKER_MACHINE_COUNT={workers}")];
        Self { seed, speed: 1.0, set, defects: Defects::none(), material: None, edit: None, is_checked: true }
    }
}

/// A running world.
pub struct World {
    pub seams: Seams,
    pub simulator: Arc<Simulator>,
    pub journal: MemoryJournal,
    pub server: ApiServer,
    pub material: Material,
    pub watch: Watch,
    pub requests: Requests,
    running: Option<Running>,
    token: CancellationToken,
    /// Whether the end of the world must find no rule broken.
    is_guarded: bool,
}

/// Runs `body` on a runtime of its own: one thread, paused time, a seeded scheduler.
pub fn run<T>(seed: u64, body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()))
        .build()
        .unwrap();
    runtime.block_on(body)
}

impl World {
    /// Starts everything.
    pub async fn start(setup: &Setup) -> Self {
        let clock = Clock::starting_at(BEGINNING.parse().unwrap());
        let random = Random::seeded(setup.seed);
        let log = Log::keeping(clock.clone());
        let watch = Watch::default();
        let mut seams = Seams {
            log,
            defects: setup.defects.clone(),
            keys: Arc::new(Prepared::new(random.child("keys"))),
            tls: Tls::clear(clock.clone()),
            dialer: Arc::new(runtime::net::MemoryNetwork::default()),
            proxy: None,
            environment: Environment::default(),
            printer: watch.printer(clock.clone()),
            clock,
            random,
        };
        let mut material = setup.material.map_or_else(|| own_material(&seams), |material| material());
        material.set.extend(setup.set.clone());
        if let Some(edit) = setup.edit {
            edit(&mut material);
        }
        let simulator = simulate::start(material.site().unwrap(), setup.speed, material.neighbours.clone(), &seams).await.unwrap();
        seams.dialer = simulator.network();
        if setup.is_checked {
            watch.begin(seams.clock.clone(), &seams.log, &simulator, &material);
        }
        let journal = MemoryJournal::new();
        let requests = Requests::default();
        let (server, running, token) = Self::host(&journal, &seams, &watch, &requests, false).await;
        Self { seams, simulator, journal, server, material, watch, requests, running: Some(running), token, is_guarded: setup.is_checked }
    }

    async fn host(
        journal: &MemoryJournal,
        seams: &Seams,
        watch: &Watch,
        requests: &Requests,
        is_again: bool,
    ) -> (ApiServer, Running, CancellationToken) {
        let server = open_server(Box::new(journal.clone()), seams).await.unwrap();
        watch.opened(&server, is_again);
        let token = CancellationToken::new();
        let client = requests.client(server.service(&User::admin("system:talosphere")));
        let context = wiring::context(seams, client, "world".to_owned(), &token);
        let running = controllers::start(&context, &Selection::all(), &token);
        running.ready().await;
        (server, running, token)
    }

    /// The administrator's way to the API.
    pub fn api(&self) -> Api {
        Api::new(self.requests.client(self.server.service(&User::admin("admin"))))
    }

    /// Brings the material's cluster up, as the command does.
    pub async fn up(&self) -> Result<(), Problem> {
        let order = self.material.order(&self.simulator.vcenter_thumbprint(), Some("default")).unwrap();
        bring_up(&mut Session::over(self.api()), &order, None, PATIENCE, &self.seams).await
    }

    /// The canonical log so far.
    pub fn log(&self) -> String {
        self.seams.log.entries().iter().map(|entry| format!("{entry}\n")).collect()
    }

    /// Ends the controllers and the API server at once, wherever they are, and starts new ones on the same journal.
    pub async fn restart(&mut self) {
        self.token.cancel();
        drop(self.running.take());
        self.server.crash();
        // A new process draws other numbers.
        self.seams.random = self.seams.random.child("the next life");
        let (server, running, token) = Self::host(&self.journal, &self.seams, &self.watch, &self.requests, true).await;
        self.server = server;
        self.running = Some(running);
        self.token = token;
    }

    /// Everything that the checker has found, with nothing under way any more. From here on the test answers for it.
    pub fn findings(&mut self) -> Vec<Violation> {
        self.is_guarded = false;
        self.watch.checker().check_at_rest(&self.simulator.truth())
    }
}

impl Drop for World {
    #[allow(clippy::print_stderr)] // the evidence beside a failure that has another cause
    fn drop(&mut self) {
        if !self.is_guarded {
            return;
        }
        let found: Vec<String> = self.findings().iter().map(ToString::to_string).collect();
        if found.is_empty() {
            return;
        }
        let entries = self.seams.log.entries();
        let tail: String = entries.iter().skip(entries.len().saturating_sub(TAIL)).map(|entry| format!("{entry}\n")).collect();
        let text = format!("rules are broken: {found:#?}\n{tail}");
        // A test that has failed already says so; a second panic would hide it.
        assert!(std::thread::panicking(), "{text}");
        eprintln!("{text}");
    }
}
