//! Plays a history in a world: brings the cluster up, lets things happen at their time, ends every fault, waits until the cluster has
//! settled, deletes it, and asks the rule checker.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use apiserver::User;
use runtime::defects::Defects;
use runtime::log::Entry;
use serde_json::Value;
use simulator::hypervisor::VmId;
use simulator::rules::Violation;
use tokio::time::Instant;

use super::act::{Act, Which};
use super::fault::{Calls, End, Fault};
use super::history::{History, What};
use super::world::{PATIENCE, Setup, World, run};
use crate::apply::Api;
use crate::commands::up::bring_up;
use crate::host::session::Session;
use crate::problem::{Code, Problem};
use crate::tree::{self, Objects};

/// Virtual time in which a cluster must settle after the last fault, and again in which its deletion must end.
pub const SETTLING: Duration = Duration::from_secs(2 * 3600);
/// How often it is looked at meanwhile, if anything changed.
const LOOK: Duration = Duration::from_secs(5);
/// When the user runs a command again that failed.
const AGAIN: Duration = Duration::from_secs(30);

/// What came of a history.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub history: History,
    /// Broken rules; that the world does not settle is rule 11.
    pub broken: Vec<Violation>,
    /// What a person must do before the cluster can be ready, as the product says it.
    pub told: Option<String>,
    pub log: Vec<Entry>,
}

impl Outcome {
    /// The canonical log.
    pub fn text(&self) -> String {
        self.log.iter().map(|entry| format!("{entry}\n")).collect()
    }
}

/// Plays a history from its beginning to its end.
///
/// # Errors
/// When the world cannot be set up.
pub fn play(history: &History, defects: &Defects) -> Result<Outcome, Problem> {
    let unusable = |error: std::io::Error| Problem::new(Code::Internal, "there can be no runtime").because(error.to_string());
    run(history.seed, async {
        let shape = &history.shape;
        let setup = Setup { speed: shape.speed, defects: defects.clone(), ..Setup::new(history.seed, shape.control_planes, shape.workers) };
        let world = World::start(&setup).await?;
        Player::new(world, shape.is_careful).play(history).await
    })
    .map_err(unusable)?
}

type Up = Pin<Box<dyn Future<Output = Result<(), Problem>>>>;

#[derive(Clone, Debug)]
enum Event {
    Moment(What),
    End(End),
    Restart,
    Up,
}

pub(super) struct Player {
    pub world: World,
    pub calls: Calls,
    pub is_careful: bool,
    begun: Instant,
    events: BTreeMap<(Duration, u64), Event>,
    next: u64,
    up: Option<Up>,
    is_deleted: bool,
    is_down: bool,
    down: Duration,
}

impl Player {
    pub(super) fn new(world: World, is_careful: bool) -> Self {
        let calls = Calls::new(world.seams.random.child("faults"));
        let judge = calls.clone();
        world.simulator.hooks().on(move |call| judge.judge(call));
        let begun = world.seams.clock.instant();
        Self {
            world,
            calls,
            is_careful,
            begun,
            events: BTreeMap::new(),
            next: 0,
            up: None,
            is_deleted: false,
            is_down: false,
            down: Duration::ZERO,
        }
    }

    fn now(&self) -> Duration {
        self.world.seams.clock.instant().saturating_duration_since(self.begun)
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.next += 1;
        self.events.insert((at, self.next), event);
    }

    async fn play(mut self, history: &History) -> Result<Outcome, Problem> {
        for moment in &history.moments {
            self.schedule(moment.at, Event::Moment(moment.what.clone()));
        }
        self.up()?;
        // That the user tries again and again is nothing to wait for.
        while let Some(at) = self.events.iter().find(|(_, event)| !matches!(event, Event::Up)).map(|((at, _), _)| *at) {
            self.run_until(at).await?;
            if self.is_broken() {
                return Ok(self.outcome(history, None));
            }
        }
        self.heal().await?;
        let told = if self.is_deleted { None } else { self.settle().await? };
        if !self.is_broken() {
            self.delete().await?;
            // What a machine that is left stands for is told as well.
            self.world.findings();
        }
        Ok(self.outcome(history, told))
    }

    fn is_broken(&self) -> bool {
        !self.world.watch.violations().is_empty()
    }

    fn outcome(self, history: &History, told: Option<String>) -> Outcome {
        let broken = self.world.watch.violations();
        Outcome { history: history.clone(), broken, told, log: self.world.seams.log.entries() }
    }

    /// Lets the world run until a time. What is scheduled happens meanwhile; processes die, commands end.
    async fn run_until(&mut self, limit: Duration) -> Result<(), Problem> {
        loop {
            let due = self.events.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= limit);
            let left = due.unwrap_or(limit).saturating_sub(self.now());
            let (clock, pulse) = (self.world.seams.clock.clone(), self.world.pulse.clone());
            let up = async {
                match self.up.as_mut() {
                    Some(up) => up.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = pulse.fell() => self.died(),
                done = up => self.upped(done),
                () = clock.sleep(left) => match due {
                    None => return Ok(()),
                    Some(_) => {
                        if let Some((_, event)) = self.events.pop_first() {
                            self.happen(event).await?;
                        }
                    }
                },
            }
            if self.is_broken() {
                return Ok(());
            }
        }
    }

    fn died(&mut self) {
        self.world.seams.log.record("fault", "kill", "the process", "dead");
        (self.up, self.is_down) = (None, true);
        let again = self.now() + self.down;
        self.schedule(again, Event::Restart);
    }

    fn upped(&mut self, done: Result<(), Problem>) {
        self.up = None;
        let told = done.as_ref().map_or_else(|problem| problem.what.clone(), |()| "ok".to_owned());
        self.world.seams.log.record("person", "up", "Cluster default/demo", told);
        if done.is_err() {
            let again = self.now() + AGAIN;
            self.schedule(again, Event::Up);
        }
    }

    async fn happen(&mut self, event: Event) -> Result<(), Problem> {
        match event {
            Event::Moment(What::Act(act)) => {
                // Who types a command starts the process again.
                self.restart().await?;
                let told = act.perform(self).await;
                if act == Act::DeleteCluster {
                    (self.is_deleted, self.up) = (true, None);
                }
                self.world.seams.log.record("person", "act", &act, told);
            }
            Event::Moment(What::Fault(fault)) => self.begin(&fault).await,
            Event::End(end) => self.end(&end),
            Event::Restart => self.restart().await?,
            Event::Up => self.up()?,
        }
        Ok(())
    }

    async fn begin(&mut self, fault: &Fault) {
        if self.is_down && matches!(fault, Fault::Kill { .. } | Fault::SecondOwner { .. }) {
            return;
        }
        self.world.seams.log.record("fault", fault.name(), fault, "begins");
        if let Fault::Kill { down, .. } = fault {
            self.down = *down;
        }
        if let Fault::SecondOwner { .. } = fault {
            self.world.join().await;
        }
        if let Some((lasts, end)) = fault.begin(self) {
            let at = self.now() + lasts;
            self.schedule(at, Event::End(end));
        }
    }

    pub(super) fn end(&mut self, end: &End) {
        match end {
            End::SecondOwner => self.world.part(),
            End::Rejoin(host) => self.world.simulator.vm_network().rejoin(host),
            End::Line => self.world.line.mend(),
            End::Calls(number) => self.calls.end(*number),
        }
    }

    /// The process runs again, if it was dead.
    async fn restart(&mut self) -> Result<(), Problem> {
        if self.is_down {
            self.is_down = false;
            self.world.restart().await?;
            self.world.seams.log.record("fault", "restart", "the process", "runs again");
            self.up()?;
        }
        Ok(())
    }

    /// The user runs `up`, once more if it has to be.
    fn up(&mut self) -> Result<(), Problem> {
        if self.is_deleted || self.is_down {
            return Ok(());
        }
        let order = self.world.material.order(&self.world.simulator.vcenter_thumbprint(), Some("default"))?;
        let (api, seams) = (self.world.api(), self.world.seams.clone());
        self.up = Some(Box::pin(async move { bring_up(&mut Session::over(api), &order, None, PATIENCE, &seams).await }));
        Ok(())
    }

    /// Every fault ends, and the user takes back what keeps the cluster from going on.
    async fn heal(&mut self) -> Result<(), Problem> {
        self.world.pulse.disarm();
        self.restart().await?;
        self.calls.end_all();
        self.world.line.mend();
        self.world.part();
        self.events.clear();
        let told = Act::Unpause.perform(self).await;
        self.world.seams.log.record("person", "act", Act::Unpause, told);
        Ok(())
    }

    /// Waits until the cluster is ready, or the product says what a person must do. Neither is a violation.
    async fn settle(&mut self) -> Result<Option<String>, Problem> {
        let limit = self.now() + SETTLING;
        let mut seen = u64::MAX;
        loop {
            let version = self.world.server.revision();
            if version != seen {
                seen = version;
                if tree::verdict(&self.objects(), "demo").is_ready {
                    return Ok(None);
                }
            }
            if self.is_broken() {
                return Ok(None);
            }
            if self.now() >= limit {
                break;
            }
            let next = self.now() + LOOK;
            self.run_until(next).await?;
        }
        let objects = self.objects();
        let verdict = tree::verdict(&objects, "demo");
        let told = verdict.stuck.map(|stuck| stuck.problem("demo", "default").to_string());
        let told = told.or_else(|| (!verdict.demands.is_empty()).then(|| verdict.demands.join("; ")));
        if told.is_none() {
            self.unsettled("the cluster is not ready, and nothing says what a person must do", &verdict.waiting);
        }
        Ok(told)
    }

    /// Deletes the cluster, unless that has begun, and waits until nothing is left.
    async fn delete(&mut self) -> Result<(), Problem> {
        if !self.is_deleted {
            let told = Act::DeleteCluster.perform(self).await;
            self.world.seams.log.record("person", "act", Act::DeleteCluster, told);
            self.is_deleted = true;
        }
        let limit = self.now() + SETTLING;
        let mut seen = u64::MAX;
        let mut left;
        loop {
            let version = self.world.server.revision();
            left = if version == seen { vec!["nothing changed".to_owned()] } else { self.left() };
            seen = version;
            if left.is_empty() || self.is_broken() {
                return Ok(());
            }
            if self.now() >= limit {
                break;
            }
            let next = self.now() + LOOK;
            self.run_until(next).await?;
        }
        let left = self.left();
        self.unsettled("the cluster was deleted, and something is left", &left);
        Ok(())
    }

    fn unsettled(&self, what: &str, evidence: &[String]) {
        if let Some(checker) = self.world.watch.checker() {
            checker.unsettled(what, &evidence.join("; "));
        }
    }

    pub(super) fn objects(&self) -> Objects {
        let mut objects = Objects::default();
        for kind in tree::remaining_kinds() {
            for object in self.world.server.snapshot_of(&kind.group, &kind.plural) {
                objects.put(&kind.kind, object);
            }
        }
        objects
    }

    /// What is still there of the cluster: objects and VMs.
    pub(super) fn left(&self) -> Vec<String> {
        let objects = self.objects();
        let mut left = Vec::new();
        for kind in tree::remaining_kinds() {
            let all = objects.of_kind(&kind.kind).filter(|object| {
                let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                let label = object.pointer("/metadata/labels/cluster.x-k8s.io~1cluster-name").and_then(Value::as_str);
                label == Some("demo") || (kind.kind == "Cluster" && name == "demo")
            });
            left.extend(all.map(|object| {
                let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                let conditions = object.pointer("/status/conditions").cloned().unwrap_or_default();
                format!("{} {name} {conditions}", kind.kind)
            }));
        }
        let vms = self.world.simulator.truth().vms;
        left.extend(
            vms.iter().filter(|vm| !vm.is_template && vm.origin == simulator::hypervisor::Origin::Api).map(|vm| format!("VM {}", vm.name)),
        );
        left
    }

    /// The name of a Machine.
    pub fn machine(&self, which: Which) -> Option<String> {
        let (number, is_control_plane) = match which {
            Which::ControlPlane(number) => (number, true),
            Which::Worker(number) => (number, false),
        };
        let mut names: Vec<String> = self
            .world
            .server
            .snapshot_of("cluster.x-k8s.io", "machines")
            .iter()
            .filter(|machine| machine.pointer("/metadata/labels/cluster.x-k8s.io~1control-plane").is_some() == is_control_plane)
            .filter_map(|machine| Some(machine.pointer("/metadata/name")?.as_str()?.to_owned()))
            .collect();
        names.sort();
        let count = u64::try_from(names.len()).ok().filter(|count| *count > 0)?;
        names.into_iter().nth(usize::try_from(number % count).ok()?)
    }

    /// How many control planes are not being deleted.
    pub fn staying_control_planes(&self) -> usize {
        let machines = self.world.server.snapshot_of("cluster.x-k8s.io", "machines");
        let counts = |machine: &&Value| {
            let is_control_plane = machine.pointer("/metadata/labels/cluster.x-k8s.io~1control-plane").is_some();
            is_control_plane && machine.pointer("/metadata/deletionTimestamp").is_none()
        };
        machines.iter().filter(counts).count()
    }

    /// Its VM.
    pub fn vm(&self, which: Which) -> Option<VmId> {
        self.world.simulator.vcenter().person().find(&self.machine(which)?)
    }

    /// Its Node, which has its name.
    pub fn node(&self, which: Which) -> Option<String> {
        let name = self.machine(which)?;
        let truth = self.world.simulator.truth();
        truth.nodes.machines.iter().any(|machine| machine.hostname == name && machine.stage == "Running").then_some(name)
    }

    /// Its first address.
    pub fn address(&self, which: Which) -> Option<String> {
        let vm = self.vm(which)?;
        let truth = self.world.simulator.truth();
        let machine = truth.nodes.machines.iter().find(|machine| machine.vm == vm)?;
        machine.addresses.first().map(ToString::to_string)
    }

    /// Where vCenter listens.
    pub fn vcenter_host(&self) -> String {
        self.world.material.site().map(|site| site.server.split(':').next().unwrap_or_default().to_owned()).unwrap_or_default()
    }

    /// The administrator's way to the workload's API.
    pub fn workload(&self) -> Option<Api> {
        let server = self.world.simulator.nodes().workload_apis().pop()?;
        Some(Api::new(kube::Client::new(server.service(&User::admin("admin")), "default")))
    }
}
