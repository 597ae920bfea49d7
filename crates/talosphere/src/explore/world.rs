//! A whole world in one process on paused time: the simulator, the API server, every controller, and the rule checker beside them.
//!
//! Everything above the wires is the product. One seed decides everything; the canonical log of two runs of one seed is the same text.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiServer, MemoryJournal, User};
use controllers::{Running, Selection};
use runtime::defects::Defects;
use simulator::Simulator;
use simulator::hooks::Verdict;
use simulator::rules::Violation;
use tokio_util::sync::CancellationToken;

use super::line::Line;
use super::pulse::Pulse;
use super::requests::Requests;
use super::sources;
use super::watch::Watch;
use crate::apply::Api;
use crate::commands::demo::{Material, own_material};
use crate::commands::simulate;
use crate::commands::up::bring_up;
use crate::host::session::Session;
use crate::host::{open_server, wiring};
use crate::problem::Problem;
use crate::seams::Seams;

/// When every world begins.
pub const BEGINNING: &str = "2026-03-01T08:00:00Z";
/// Virtual time in which everything asked of a world must happen.
pub const PATIENCE: Duration = Duration::from_secs(3600);

/// What differs between worlds.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    /// As `--speed`: 0 without any delay.
    pub speed: f64,
    /// `NAME=VALUE`.
    pub set: Vec<String>,
    /// Further VM templates in vCenter, as `simulate --template` names them.
    pub templates: Vec<String>,
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
        Self { seed, speed: 1.0, set, templates: Vec::new(), defects: Defects::none(), material: None, edit: None, is_checked: true }
    }
}

/// A running world.
#[derive(Debug)]
pub struct World {
    pub seams: Seams,
    pub simulator: Arc<Simulator>,
    pub journal: MemoryJournal,
    pub server: ApiServer,
    pub material: Material,
    pub watch: Watch,
    pub requests: Requests,
    /// The controllers' way to the API.
    pub line: Line,
    /// Beats with every call and every changing request of the controllers', before and after its effect.
    pub pulse: Pulse,
    host: Host,
    other: Option<Host>,
}

/// Controllers that run, and what ends them.
#[derive(Debug)]
struct Host {
    running: Option<Running>,
    token: CancellationToken,
}

impl Host {
    /// Controllers over this client. Behind a line that is cut they are not ready before it is mended, and nobody waits for them.
    async fn start(seams: &Seams, client: kube::Client, line: &Line) -> Self {
        let token = CancellationToken::new();
        let context = wiring::context(seams, client, "world".to_owned(), &token);
        let running = controllers::start(&context, &Selection::all(), &token);
        if !line.is_cut() {
            running.ready().await;
        }
        Self { running: Some(running), token }
    }

    fn end(&mut self) {
        self.token.cancel();
        drop(self.running.take());
    }
}

/// Runs `body` on a runtime of its own: one thread, paused time, a seeded scheduler.
///
/// # Errors
/// When there can be no runtime.
pub fn run<T>(seed: u64, body: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()))
        .build()?;
    Ok(runtime.block_on(body))
}

impl World {
    /// Starts everything.
    ///
    /// # Errors
    /// When the material cannot be rendered or makes no site.
    pub async fn start(setup: &Setup) -> Result<Self, Problem> {
        let watch = Watch::default();
        let mut seams = sources::seams(setup, &watch)?;
        let mut material = setup.material.map_or_else(|| own_material(&seams), |material| material());
        material.set.extend(setup.set.clone());
        if let Some(edit) = setup.edit {
            edit(&mut material);
        }
        let simulator = simulate::start(material.site_with(&setup.templates)?, setup.speed, material.neighbours.clone(), &seams).await?;
        seams.dialer = simulator.network();
        if setup.is_checked {
            watch.begin(seams.clock.clone(), &seams.log, &simulator, &material);
        }
        let (pulse, line, journal, requests) = (Pulse::default(), Line::default(), MemoryJournal::new(), Requests::default());
        let beating = pulse.clone();
        simulator.hooks().on(move |_| {
            beating.beat();
            Verdict::Proceed
        });
        let server = open_server(Box::new(journal.clone()), &seams).await?;
        watch.opened(&server, false);
        let host = Host::start(&seams, requests.client(server.service(&User::admin("system:talosphere")), &line, &pulse), &line).await;
        Ok(Self { seams, simulator, journal, server, material, watch, requests, line, pulse, host, other: None })
    }

    /// The administrator's way to the API.
    pub fn api(&self) -> Api {
        Api::new(self.requests.client(self.server.service(&User::admin("admin")), &Line::default(), &Pulse::default()))
    }

    /// Brings the material's cluster up, as the command does.
    ///
    /// # Errors
    /// With what stands in the way.
    pub async fn up(&self) -> Result<(), Problem> {
        let order = self.material.order(&self.simulator.vcenter_thumbprint(), Some("default"))?;
        bring_up(&mut Session::over(self.api()), &order, None, PATIENCE, &self.seams).await
    }

    /// The canonical log so far.
    pub fn log(&self) -> String {
        self.seams.log.entries().iter().map(|entry| format!("{entry}\n")).collect()
    }

    /// Arms a death: at the `beats`th beat from now controllers and API server end, wherever they are. [`World::restart`] must follow.
    pub fn die_at(&self, beats: u64) {
        let tokens: Vec<CancellationToken> =
            [Some(&self.host), self.other.as_ref()].into_iter().flatten().map(|host| host.token.clone()).collect();
        let server = self.server.clone();
        self.pulse.arm(beats, move || {
            for token in tokens {
                token.cancel();
            }
            server.crash();
        });
    }

    /// Ends the controllers and the API server at once, wherever they are, and starts new ones on the same journal.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn restart(&mut self) -> Result<(), Problem> {
        self.pulse.disarm();
        self.part();
        self.host.end();
        self.server.crash();
        // A new process draws other numbers.
        self.seams.random = self.seams.random.child("the next life");
        self.server = open_server(Box::new(self.journal.clone()), &self.seams).await?;
        self.watch.opened(&self.server, true);
        self.host = Host::start(&self.seams, self.controllers_client(), &self.line).await;
        Ok(())
    }

    fn controllers_client(&self) -> kube::Client {
        self.requests.client(self.server.service(&User::admin("system:talosphere")), &self.line, &self.pulse)
    }

    /// A second owner starts beside the first, as after a lease that was lost without its holder knowing.
    pub async fn join(&mut self) {
        let seams = Seams { random: self.seams.random.child("second owner"), ..self.seams.clone() };
        self.other = Some(Host::start(&seams, self.controllers_client(), &self.line).await);
    }

    /// The second owner ends, wherever it is.
    pub fn part(&mut self) {
        if let Some(mut other) = self.other.take() {
            other.end();
        }
    }

    /// Everything that the checker has found, with nothing under way any more.
    pub fn findings(&self) -> Vec<Violation> {
        self.watch.checker().map(|checker| checker.check_at_rest(&self.simulator.truth())).unwrap_or_default()
    }
}
