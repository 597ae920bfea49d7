//! Etcd begun anew from one database, step by step. What is next is decided purely, from what is recorded and what is seen; each step is one
//! effect, and doing it twice does as once. Killed anywhere, the same command goes on from there.
//!
//! ```text
//!   the file lies in the state directory -> recorded -> what is given up deleted, what is left wiped
//!     -> nobody has data of the old etcd: onto whom recorded -> file sent, bootstrap -> it leads -> the record goes
//! ```
//!
//! Never is anything wiped before the file is safe and the record stored. Never does etcd begin anew while a machine may still have data of the
//! old one: two that come back later would be a majority of it. And once it is recorded onto whom, that machine is wiped no more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::names::annotations;
use apimachinery::meta::pointer_step;
use controllers::taloscontrolplane::intent::{self, Choice};
use controllers::taloscontrolplane::recovery::{ETCD_RECOVERY, Recovery};
use futures::stream;
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use talos::client::{ETCD_DATABASE, ResetOptions, TalosError};
use talos::database::Database;
use tokio::time::Instant;

use super::look::{self, Look, Node, POWER_ON, Plane, Way};
use crate::apply::{Api, unreachable};
use crate::commands::{snapshot, talos as nodes};
use crate::names::within;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::state::StateDirectory;

/// How long a node may be silent during a recovery before it is given up as well.
const GIVE_UP: Duration = Duration::from_secs(15 * 60);
/// How long a wipe may take before it is asked for again.
const WIPE: Duration = Duration::from_secs(3 * 60);
/// How much of the file goes into one message.
const PIECE: usize = 64 * 1024;

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Store that these are given up as well.
    GiveUp(BTreeSet<String>),
    /// Delete a Machine, and its virtual machine with it.
    Delete(String),
    /// Take etcd's data, and what else lies beside it, off a node.
    Wipe(String),
    /// Store on which machine etcd begins anew; none to choose once more.
    Onto(Option<String>),
    /// Send the file, and let etcd begin with it.
    Begin(String),
    /// It leads: take the record away.
    Finish(String),
}

/// What is to be done now, and what is waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Next {
    pub steps: Vec<Step>,
    pub waiting: Vec<String>,
}

/// Decides what is next. `wiped` are nodes that were asked to wipe themselves a moment ago.
pub fn next(look: &Look, recovery: &Recovery, wiped: &BTreeSet<String>, now: Timestamp) -> Next {
    let mut next = Next::default();
    let (given_up, kept): (Vec<&Plane>, Vec<&Plane>) = look.planes.iter().partition(|plane| recovery.given_up.contains(plane.name()));
    for plane in &given_up {
        next.waiting.push(format!("{} to be gone", plane.name()));
        if !plane.is_deleting {
            next.steps.push(Step::Delete(plane.name().to_owned()));
        }
    }
    match &recovery.onto {
        Some(onto) => begin(&kept, onto, &mut next),
        None => clear(&kept, recovery, wiped, now, &mut next),
    }
    next
}

/// Takes the old etcd's data away wherever it is, and chooses where the new one begins when there is none any more.
fn clear(kept: &[&Plane], recovery: &Recovery, wiped: &BTreeSet<String>, now: Timestamp, next: &mut Next) {
    let is_long = now.duration_since(recovery.since).unsigned_abs() > GIVE_UP;
    let lost = |plane: &&&Plane| plane.is_deleting || is_long && plane.etcd().is_none();
    let more: BTreeSet<String> = kept.iter().filter(lost).map(|plane| plane.name().to_owned()).collect();
    if !more.is_empty() {
        next.waiting.push(format!("{} to be given up", more.iter().cloned().collect::<Vec<_>>().join(", ")));
        next.steps.push(Step::GiveUp(recovery.given_up.union(&more).cloned().collect()));
        return;
    }
    for plane in kept {
        let name = plane.name();
        match &plane.node {
            Node::Silent(why) => next.waiting.push(format!("{name} to answer: {why}")),
            Node::Answers(etcd) if etcd.has_data => {
                next.waiting.push(format!("etcd to be wiped on {name}"));
                if !wiped.contains(name) {
                    next.steps.push(Step::Wipe(name.to_owned()));
                }
            }
            Node::Answers(_) if plane.is_empty() => {}
            Node::Answers(etcd) => next.waiting.push(format!("etcd on {name} to be ready: it is {}", etcd.state)),
        }
    }
    if kept.is_empty() {
        next.waiting.push("a machine to be made on which etcd can begin anew".to_owned());
    }
    if next.waiting.is_empty() {
        let source = recovery.from.as_deref().and_then(|from| kept.iter().find(|plane| plane.name() == from));
        let onto = source.or_else(|| kept.iter().min_by_key(|plane| plane.name()));
        next.steps.extend(onto.map(|plane| Step::Onto(Some(plane.name().to_owned()))));
    }
}

/// Lets etcd begin where it is recorded, once.
fn begin(kept: &[&Plane], onto: &str, next: &mut Next) {
    let Some(plane) = kept.iter().find(|plane| plane.name() == onto && !plane.is_deleting) else {
        let others = kept.iter().filter(|plane| plane.name() != onto);
        if others.clone().all(|plane| plane.is_empty()) {
            // What began there, if anything did, goes with it: it is given up, and waited for, before etcd begins anywhere else.
            next.waiting.push("another machine to be chosen".to_owned());
            next.steps.push(Step::Onto(None));
        } else {
            let names: Vec<&str> = others.filter(|plane| !plane.is_empty()).map(|plane| plane.name()).collect();
            next.waiting.push(format!("{} to say that it has no etcd, since {onto} goes", names.join(", ")));
        }
        return;
    };
    match &plane.node {
        Node::Silent(why) => next.waiting.push(format!("{onto}, on which etcd begins anew, to answer: {why}")),
        Node::Answers(etcd) if etcd.state == "Running" && etcd.leader.is_some() => next.steps.push(Step::Finish(onto.to_owned())),
        Node::Answers(etcd) if etcd.has_data => next.waiting.push(format!("etcd on {onto} to lead: it is {}", etcd.state)),
        Node::Answers(_) if plane.is_empty() => {
            next.waiting.push(format!("etcd to begin anew on {onto}"));
            next.steps.push(Step::Begin(onto.to_owned()));
        }
        Node::Answers(etcd) => next.waiting.push(format!("etcd on {onto} to be ready: it is {}", etcd.state)),
    }
}

/// Where the files of a cluster's recoveries are kept.
pub fn folder(directory: &StateDirectory, namespace: &str, cluster: &str) -> PathBuf {
    directory.join(format!("recoveries/{namespace}/{cluster}"))
}

/// A database that lies where it survives the command.
#[derive(Clone, Debug)]
pub struct Safe {
    pub path: PathBuf,
    pub database: Database,
}

/// Gives a file the name of its content.
fn settle(folder: &Path, written: &Path, database: Database) -> io::Result<Safe> {
    let path = folder.join(format!("{}.db", hex::encode(database.digest)));
    std::fs::rename(written, &path)?;
    Ok(Safe { path, database })
}

fn unwritable(folder: &Path) -> impl Fn(io::Error) -> Problem {
    move |error| Problem::new(Code::FileUnwritable, format!("{} cannot be written", folder.display())).because(error.to_string())
}

fn make(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Copies a member's database: as its etcd hands it out, or off its disk where that does not run.
///
/// # Errors
/// When it does not come whole, or is not of this cluster.
pub async fn fetch(plane: &Plane, look: &Look, way: &Way, folder: &Path) -> Result<Safe, Problem> {
    make(folder).map_err(unwritable(folder))?;
    let target = folder.join("fetched.db");
    let machine = &plane.machine;
    let api = nodes::connect(machine, &*way.dialer, &way.identity).await?;
    let handed_out = match api.etcd_snapshot().await {
        Ok(stream) => snapshot::write(machine, stream, &target, true).await,
        Err(error) => Err(nodes::unreachable(machine, &error)),
    };
    let database = match handed_out {
        Ok(database) => database,
        Err(problem) if problem.code == Code::FileUnwritable => return Err(problem),
        Err(first) => {
            let stream = api.read(ETCD_DATABASE).await.map_err(|error| nodes::unreachable(machine, &error).seen(first.what.clone()))?;
            snapshot::write(machine, stream, &target, false).await.map_err(|problem| problem.seen(first.what))?
        }
    };
    if look.authority.as_deref().and_then(|authority| database.is_of(authority)) == Some(false) {
        return Err(Problem::new(Code::RepairRefused, format!("the data of {} is of another cluster", plane.name()))
            .because("the certificate authority of Kubernetes in it is not the one of this cluster"));
    }
    settle(folder, &target, database).map_err(unwritable(folder))
}

/// Copies a file that somebody has kept to where it survives being moved away.
///
/// # Errors
/// When it cannot be copied, or changes meanwhile.
pub fn keep(file: &Path, database: &Database, folder: &Path) -> Result<Safe, Problem> {
    make(folder).map_err(unwritable(folder))?;
    let target = folder.join("fetched.db");
    let copy = || {
        std::fs::copy(file, &target)?;
        File::open(&target)?.sync_all()
    };
    copy().map_err(unwritable(folder))?;
    let copied = snapshot::inspect(&target).ok().filter(|copied| copied.digest == database.digest);
    let copied = copied.ok_or_else(|| {
        Problem::new(Code::SnapshotRefused, format!("{} changes while it is read", file.display())).remedy("run the command again")
    })?;
    settle(folder, &target, copied).map_err(unwritable(folder))
}

/// The file of a recovery that was begun before.
///
/// # Errors
/// When it is not there any more, or is another one.
pub fn find(recovery: &Recovery, folder: &Path) -> Result<Safe, Problem> {
    let path = folder.join(format!("{}.db", recovery.digest));
    match snapshot::inspect(&path) {
        Ok(database) if hex::encode(database.digest) == recovery.digest => Ok(Safe { path, database }),
        found => {
            let why = found.err().map_or_else(|| "it is another file".to_owned(), |error| error.to_string());
            Err(Problem::new(Code::RepairRefused, "the data that etcd is to begin anew with is not here")
                .because(format!("{}: {why}", path.display()))
                .seen(format!("the recovery was begun at {} with revision {}", recovery.since, recovery.revision))
                .remedy("run the command with the state directory it was begun with; or give the same file with --from-snapshot FILE"))
        }
    }
}

/// Carries a recovery out, and shows how it goes.
#[derive(Debug)]
pub struct Run<'a> {
    pub api: &'a Api,
    pub way: &'a Way,
    pub seams: &'a Seams,
    pub safe: &'a Safe,
    /// When nodes were asked to wipe themselves last, and how often.
    wiped: BTreeMap<String, (Instant, usize)>,
    told: BTreeSet<String>,
}

impl<'a> Run<'a> {
    pub fn new(api: &'a Api, way: &'a Way, safe: &'a Safe, seams: &'a Seams) -> Self {
        Self { api, way, seams, safe, wiped: BTreeMap::new(), told: BTreeSet::new() }
    }

    /// Does what is next. What is waited for; none when etcd leads again.
    ///
    /// # Errors
    /// When the API refuses, or the record was changed by somebody else.
    pub async fn step(&mut self, look: &Look, recovery: &Recovery) -> Result<Option<Vec<String>>, Problem> {
        let now = self.seams.clock.instant();
        let is_lately = |at: Instant| now.duration_since(at) < WIPE;
        let wiped = self.wiped.iter().filter(|(_, (at, _))| is_lately(*at)).map(|(name, _)| name.clone()).collect();
        let Next { steps, mut waiting } = next(look, recovery, &wiped, self.seams.clock.now_seconds());
        for line in &waiting {
            let head = line.split_once(": ").map_or(line.as_str(), |(head, _)| head);
            if self.told.insert(head.to_owned()) {
                self.seams.printer.line(format!("waiting for {head}"));
            }
        }
        for step in steps {
            self.seams.log.record("repair", word(&step), &look.cluster, "begun");
            match self.act(look, recovery, &step).await {
                Ok(()) if matches!(step, Step::Finish(_)) => return Ok(None),
                Ok(()) => {}
                Err(Failure::Problem(problem)) => return Err(*problem),
                // Perhaps it happened all the same: the next look tells.
                Err(Failure::Node(name, error)) => waiting.push(format!("{name}: {error}")),
            }
        }
        Ok(Some(waiting))
    }

    async fn act(&mut self, look: &Look, recovery: &Recovery, step: &Step) -> Result<(), Failure> {
        match step {
            Step::GiveUp(names) => self.record(look, Recovery { given_up: names.clone(), ..recovery.clone() }).await?,
            Step::Onto(onto) => self.record(look, Recovery { onto: onto.clone(), ..recovery.clone() }).await?,
            Step::Delete(name) => self.delete(look, name).await?,
            Step::Wipe(name) => {
                let Some(plane) = look.plane(name) else { return Ok(()) };
                let times = self.wiped.get(name).map_or(0, |(_, times)| *times);
                // etcd may have a volume of its own (Talos 1.14), which is named only where there is one: elsewhere that is an error.
                let labels: &[&str] = if times == 0 { &["EPHEMERAL"] } else { &["EPHEMERAL", "ETCD"] };
                let partitions = labels.iter().map(|label| (*label).to_owned()).collect();
                let options = ResetOptions { graceful: false, reboot: true, partitions };
                self.node(plane, async |api| api.reset(&options).await).await?;
                self.wiped.insert(name.clone(), (self.seams.clock.instant(), times + 1));
            }
            Step::Begin(name) => {
                let Some(plane) = look.plane(name) else { return Ok(()) };
                let pieces = pieces(&self.safe.path).map_err(|error| {
                    Problem::new(Code::RepairRefused, format!("{} cannot be read", self.safe.path.display())).because(error.to_string())
                })?;
                self.node(plane, async |api| api.etcd_recover(pieces).await).await?;
                let skips_digest = !self.safe.database.has_digest;
                match self.node(plane, async |api| api.bootstrap_recovering(skips_digest).await).await {
                    // An earlier call whose answer was lost.
                    Err(Failure::Node(_, TalosError::AlreadyExists { .. })) => {}
                    other => other?,
                }
                self.seams.printer.line(format!("etcd begins anew on {name}, at revision {}", recovery.revision));
            }
            Step::Finish(name) => {
                let address = look.plane(name).and_then(|plane| plane.machine.address.clone()).unwrap_or_default();
                let choice = Choice::Node { machine: name.clone(), address, since: Some(self.seams.clock.now_seconds()) };
                let changes = [(ETCD_RECOVERY, None), (POWER_ON, None), (intent::BOOTSTRAP_NODE, intent::choice_text(&choice))];
                annotate(self.api, look, &changes, self.seams).await?;
            }
        }
        Ok(())
    }

    async fn node<T>(
        &self,
        plane: &Plane,
        call: impl AsyncFnOnce(std::sync::Arc<dyn talos::client::TalosApi>) -> Result<T, TalosError>,
    ) -> Result<T, Failure> {
        let failed = |error| Failure::Node(plane.name().to_owned(), error);
        let address = plane.machine.address.as_deref().unwrap_or_default();
        let api = self.way.dialer.connect(address, &self.way.identity).await.map_err(failed)?;
        call(api).await.map_err(failed)
    }

    async fn record(&self, look: &Look, recovery: Recovery) -> Result<(), Failure> {
        Ok(annotate(self.api, look, &[(ETCD_RECOVERY, Some(recovery.text()))], self.seams).await?)
    }

    async fn delete(&self, look: &Look, name: &str) -> Result<(), Failure> {
        let path = format!("/apis/cluster.x-k8s.io/v1beta2/namespaces/{}/machines/{name}", look.namespace);
        // Its node cannot be drained, and nothing on it can be waited for: there is no API to ask.
        let patch = json!({"metadata": {"annotations": {
            annotations::EXCLUDE_NODE_DRAINING: "", annotations::EXCLUDE_WAIT_FOR_VOLUME_DETACH: "",
        }}});
        for (method, kind, body) in [(Method::PATCH, Some("application/merge-patch+json"), Some(&patch)), (Method::DELETE, None, None)] {
            match self.api.send(method, &path, kind, body).await {
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
                other => drop(other.map_err(|error| unreachable(&error))?),
            }
        }
        self.seams.printer.line(format!("Machine {name} is given up and deleted, with its virtual machine"));
        Ok(())
    }
}

/// Why a step was not done.
enum Failure {
    Problem(Box<Problem>),
    Node(String, TalosError),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

fn word(step: &Step) -> &'static str {
    match step {
        Step::GiveUp(_) => "give-up",
        Step::Delete(_) => "delete",
        Step::Wipe(_) => "wipe",
        Step::Onto(_) => "record-onto",
        Step::Begin(_) => "begin",
        Step::Finish(_) => "finish",
    }
}

/// Changes annotations of the control plane, if what is recorded there is what was seen. Controllers write its status meanwhile, which is no
/// change of that.
///
/// # Errors
/// When somebody else has begun something, or the API refuses.
pub async fn annotate(api: &Api, look: &Look, changes: &[(&str, Option<String>)], seams: &Seams) -> Result<(), Problem> {
    let meta = &look.control_plane.metadata;
    let path = look::path(&look.namespace, meta.name.as_deref().unwrap_or_default());
    let seen = meta.annotations.as_ref().and_then(|known| known.get(ETCD_RECOVERY)).map(String::as_str);
    for _ in 0..TRIES {
        let now = api.get(&path).await.map_err(|error| unreachable(&error))?.unwrap_or_default();
        let known = now.pointer("/metadata/annotations").and_then(Value::as_object);
        let recorded = known.and_then(|known| known.get(ETCD_RECOVERY)?.as_str());
        let is_same = now.pointer("/metadata/uid").and_then(Value::as_str) == meta.uid.as_deref();
        if recorded != seen || !is_same {
            break;
        }
        let at = |key: &str| format!("/metadata/annotations/{}", pointer_step(key));
        let mut patch = vec![json!({"op": "test", "path": "/metadata/uid", "value": meta.uid})];
        match recorded {
            Some(recorded) => patch.push(json!({"op": "test", "path": at(ETCD_RECOVERY), "value": recorded})),
            // That there is none cannot be asked for in another way.
            None => {
                patch.push(json!({"op": "test", "path": "/metadata/resourceVersion", "value": now.pointer("/metadata/resourceVersion")}))
            }
        }
        if known.is_none() {
            patch.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
        }
        for (key, value) in changes {
            match value {
                Some(value) => patch.push(json!({"op": "add", "path": at(key), "value": value})),
                None if known.is_some_and(|known| known.contains_key(*key)) => patch.push(json!({"op": "remove", "path": at(key)})),
                None => {}
            }
        }
        match api.send(Method::PATCH, &path, Some("application/json-patch+json"), Some(&json!(patch))).await {
            Ok(_) => return Ok(()),
            // It was changed between the two requests: by whom tells the next look.
            Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) => seams.clock.sleep(PAUSE).await,
            Err(error) => return Err(unreachable(&error)),
        }
    }
    Err(Problem::new(Code::RepairRefused, format!("etcd of Cluster {} is being repaired by somebody else", look.cluster)).remedy(format!(
        "`talosphere repair etcd {}{} --dry-run` shows how it stands",
        look.cluster,
        within(&look.namespace)
    )))
}

/// How often a write is tried against others', and the pause between.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

fn pieces(path: &Path) -> io::Result<talos::client::Pieces> {
    let file = File::open(path)?;
    Ok(Box::pin(stream::unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE];
        // A file that ends early is refused by its reader: its digest is not there.
        let length = file.read(&mut piece).unwrap_or(0);
        piece.truncate(length);
        (length > 0).then_some((piece, file))
    })))
}
