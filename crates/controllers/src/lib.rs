//! Controllers, one folder per kind: `plan` decides, `act` carries out, `status` tells, `mod` wires them to stores.
//!
//! ```text
//!   stores (one watch per kind) --observe--> Observed --plan()--> Plan { steps, wait } --act()--> API, vCenter, Talos
//!                                                        |
//!                                                        +------status()--> conditions, phase, counts (one patch of /status)
//! ```
//!
//! * `plan(&Observed) -> Plan` is a plain function: no I/O, no clock (the time is in `Observed`), no randomness. Safety rules live there.
//!   A plan that may not proceed says why, in the words that become the condition's message.
//! * `act` carries out the steps, one outside effect each, and never decides. Every step may be lost before, lost after, or be carried out
//!   twice without harm; the next plan starts from what is observed.
//! * `status` is a plain function as well; [`status::patch`] writes exactly what changed, and nothing when nothing did.
//! * A reconcile never waits: not for a workload cluster ([`workload::Clusters`]), not for vCenter's tasks, not for other objects. It ends,
//!   and what it waits for wakes it.
//!
//! To add a controller: a folder with a `start(&Wiring) -> Started`, a `mod` line and a line in [`REGISTRATIONS`].

#![cfg_attr(test, allow(clippy::disallowed_methods))] // seeded sources

pub mod aggregate;
pub mod change;
pub mod clone;
pub mod cluster;
pub mod clusterresourceset;
pub mod context;
pub mod contract;
pub mod controlplane;
pub mod edit;
pub mod inclusterippool;
pub mod ipaddressclaim;
pub mod machine;
pub mod machinedeployment;
pub mod machinehealthcheck;
pub mod machineset;
pub mod mirror;
pub mod naming;
pub mod remediation;
pub mod rounds;
pub mod status;
pub mod talosconfig;
pub mod taloscontrolplane;
pub mod vspherecluster;
pub mod vspheremachine;
pub mod vspherevm;
pub mod workload;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use runtime::reconcile::{Health, HealthReport};
use thiserror::Error;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use context::{Context, Wiring};

/// A controller that has been wired and can be run.
pub struct Started {
    pub health: Health,
    pub run: BoxFuture<'static, ()>,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Started").field("health", &self.health).finish_non_exhaustive()
    }
}

/// A controller by its name.
#[derive(Clone, Copy, Debug)]
pub struct Registration {
    pub name: &'static str,
    pub start: fn(&Wiring) -> Started,
}

/// Every controller, in the order in which they are started.
pub const REGISTRATIONS: &[Registration] = &[
    Registration { name: cluster::NAME, start: cluster::start },
    Registration { name: machine::NAME, start: machine::start },
    Registration { name: machineset::NAME, start: machineset::start },
    Registration { name: machinedeployment::NAME, start: machinedeployment::start },
    Registration { name: machinehealthcheck::NAME, start: machinehealthcheck::start },
    Registration { name: clusterresourceset::NAME, start: clusterresourceset::start },
    Registration { name: talosconfig::NAME, start: talosconfig::start },
    Registration { name: taloscontrolplane::NAME, start: taloscontrolplane::start },
    Registration { name: vspherecluster::NAME, start: vspherecluster::start },
    Registration { name: vspheremachine::NAME, start: vspheremachine::start },
    Registration { name: vspherevm::NAME, start: vspherevm::start },
    Registration { name: inclusterippool::NAME, start: inclusterippool::start },
    Registration { name: inclusterippool::GLOBAL_NAME, start: inclusterippool::start_global },
    Registration { name: ipaddressclaim::NAME, start: ipaddressclaim::start },
];

/// Which controllers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection(BTreeSet<&'static str>);

/// A selection that names what does not exist.
#[derive(Debug, Error)]
#[error("no controller is called {name}; there are {}", known.join(", "))]
pub struct UnknownController {
    pub name: String,
    pub known: Vec<&'static str>,
}

impl Selection {
    /// All of them.
    pub fn all() -> Self {
        Self(REGISTRATIONS.iter().map(|registration| registration.name).collect())
    }

    /// None of them.
    pub fn none() -> Self {
        Self(BTreeSet::new())
    }

    /// As controller managers write it: `*` for all, `name` for one, `-name` for all but one; separated by commas, later words win.
    /// A list that only takes away starts from all.
    ///
    /// # Errors
    /// When a word names no controller.
    pub fn parse(text: &str) -> Result<Self, UnknownController> {
        let words: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        let starts_from_all = words.iter().all(|word| word.starts_with('-'));
        let mut selection = if starts_from_all { Self::all() } else { Self::none() };
        for word in words {
            if word == "*" {
                selection = Self::all();
                continue;
            }
            let name = word.trim_start_matches('-');
            let Some(known) = REGISTRATIONS.iter().find(|registration| registration.name == name) else {
                let known = REGISTRATIONS.iter().map(|registration| registration.name).collect();
                return Err(UnknownController { name: name.to_owned(), known });
            };
            if word.starts_with('-') {
                selection.0.remove(known.name);
            } else {
                selection.0.insert(known.name);
            }
        }
        Ok(selection)
    }

    /// Whether the controller called `name` runs.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// How long logging out of vCenters may take at the end.
const LOGOUT: Duration = Duration::from_secs(2);

/// Controllers that run.
#[derive(Debug)]
pub struct Running {
    healths: Vec<Health>,
    tasks: JoinSet<()>,
    vcenters: Arc<dyn vsphere::VCenters>,
}

impl Running {
    /// How each controller is doing, in the order of their start.
    pub fn report(&self) -> Vec<HealthReport> {
        self.healths.iter().map(Health::report).collect()
    }

    /// Handles that tell how each controller is doing.
    pub fn healths(&self) -> Vec<Health> {
        self.healths.clone()
    }

    /// Completes when every controller has its stores and takes keys.
    pub async fn ready(&self) {
        for health in &self.healths {
            health.running().await;
        }
    }

    /// Completes when all controllers have ended, after their token was cancelled, and nobody is signed in to a vCenter any more.
    pub async fn ended(mut self) {
        while self.tasks.join_next().await.is_some() {}
        // A vCenter that does not answer ends the sessions by itself.
        let _ = tokio::time::timeout(LOGOUT, self.vcenters.close()).await;
    }
}

/// Starts the selected controllers; they end when `token` is cancelled. Must be called in a runtime.
pub fn start(context: &Context, selection: &Selection, token: &CancellationToken) -> Running {
    let wiring = Wiring::new(context.clone(), token.clone());
    let mut healths = Vec::new();
    let mut tasks = JoinSet::new();
    for registration in REGISTRATIONS.iter().filter(|registration| selection.has(registration.name)) {
        let started = (registration.start)(&wiring);
        healths.push(started.health);
        tasks.spawn(started.run);
    }
    Running { healths, tasks, vcenters: context.vcenters.clone() }
}

/// Runs the selected controllers until `token` is cancelled.
pub async fn run(context: Context, selection: Selection, token: CancellationToken) {
    start(&context, &selection, &token).ended().await;
}
