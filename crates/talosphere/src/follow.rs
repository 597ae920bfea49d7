//! Follows a cluster's objects and shows every change, until a goal is reached.
//!
//! The objects come by watches, so that nothing is asked while nothing changes. When the process that owns the API goes away, the
//! session finds or becomes the next owner and following goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ApiResource;
use runtime::reconcile::{Link, Store, Stores, identified};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::host::session::Session;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::tree::{Node, Objects, tree, verdict, warnings};

/// An object of any kind. It is read when it is first looked at - often it has changed again before - and shared by every look.
#[derive(Clone)]
struct Shown {
    /// Without labels, owners and what else a follower's store is not asked for.
    metadata: ObjectMeta,
    text: Box<RawValue>,
    value: OnceLock<Arc<Value>>,
}

impl Shown {
    /// The whole object.
    fn value(&self) -> Arc<Value> {
        self.value.get_or_init(|| Arc::new(serde_json::from_str(self.text.get()).unwrap_or_default())).clone()
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the content: it may be a Secret's.
        f.debug_tuple("Shown").field(&self.metadata.name).finish()
    }
}

impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let metadata = identified(text.get()).map_err(D::Error::custom)?;
        Ok(Self { metadata, text, value: OnceLock::new() })
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

runtime::dynamic_resource!(Shown);

/// Watches over kinds of objects.
#[derive(Debug)]
pub struct Follower {
    stores: Vec<Store<Shown>>,
    changed: Arc<Notify>,
    token: CancellationToken,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl Follower {
    /// Starts the watches. Must be called in a runtime.
    pub fn start(client: kube::Client, kinds: &[ApiResource], seams: &Seams) -> Self {
        let token = CancellationToken::new();
        let stores = Stores::new(client, seams.clock.clone(), &seams.random.child("follower"), token.clone());
        let changed = Arc::new(Notify::new());
        let stores: Vec<Store<Shown>> = kinds
            .iter()
            .map(|resource| {
                let store: Store<Shown> = stores.dynamic(resource.clone());
                let notify = changed.clone();
                store.subscribe(move |_, _| notify.notify_one());
                let (notify, mut links, token) = (changed.clone(), store.links(), token.clone());
                tokio::spawn(async move {
                    while let Some(Ok(())) = token.run_until_cancelled(links.changed()).await {
                        notify.notify_one();
                    }
                });
                store
            })
            .collect();
        Self { stores, changed, token }
    }

    /// Completes when every kind was read once, or could not be read.
    pub async fn synced(&self) {
        for store in &self.stores {
            // The store, and with it the sender, lives in `self`.
            let _ = store.links().wait_for(|link| *link != Link::Starting).await;
        }
    }

    /// Completes at the next change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether the server went away: nothing is followed any more, or some kind was never read.
    pub fn is_lost(&self) -> bool {
        self.stores.iter().all(|store| matches!(store.link(), Link::Disconnected { .. }))
            || self.stores.iter().any(|store| matches!(store.link(), Link::Disconnected { is_synced: false, .. }))
    }

    /// The objects of a namespace (empty: those that have none), as last seen.
    pub fn objects(&self, namespace: &str) -> Objects {
        let mut objects = Objects::default();
        for store in &self.stores {
            let ours = |object: &&Arc<Shown>| object.metadata.namespace.as_deref().unwrap_or_default() == namespace;
            for object in store.all().iter().filter(ours) {
                objects.put(store.kind(), object.value());
            }
        }
        objects
    }
}

/// What a step of following came to.
#[derive(Debug)]
pub enum Step<T> {
    /// Not there yet: what is shown meanwhile, and what is waited for.
    Wait {
        tree: Option<Node>,
        waiting: Vec<String>,
    },
    Done {
        tree: Option<Node>,
        value: T,
    },
    Fail(Problem),
}

/// The goal of `up`, `demo` and `scale`: a cluster that is ready.
#[derive(Debug)]
pub struct Goal<'a> {
    cluster: &'a str,
    /// Where it was seen.
    namespace: Option<String>,
    takes_outdated: bool,
    warnings: Vec<String>,
}

impl<'a> Goal<'a> {
    /// Every Machine runs, every Node is ready, every specification is the wanted one.
    pub fn ready(cluster: &'a str) -> Self {
        Self { cluster, namespace: None, takes_outdated: false, warnings: Vec::new() }
    }

    /// As [`Self::ready`], but Machines may keep an older specification where nothing replaces them. A rollout is waited for.
    pub fn running(cluster: &'a str) -> Self {
        Self { takes_outdated: true, ..Self::ready(cluster) }
    }

    /// Tells what is not as it was asked for in a cluster that got there.
    pub fn warn(&self, seams: &Seams) {
        for warning in &self.warnings {
            seams.printer.line(format!("warning: {warning}"));
        }
    }

    /// How far the cluster is. A cluster that is being deleted, or is gone, never gets there.
    pub fn step(&mut self, objects: &Objects) -> Step<()> {
        let cluster = self.cluster;
        let verdict = verdict(objects, cluster);
        let tree = tree(objects, cluster);
        if let Some(object) = objects.get("Cluster", cluster) {
            let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
            self.namespace = Some(namespace.to_owned());
        }
        if let Some(namespace) = self.namespace.as_ref().filter(|_| verdict.is_deleting || tree.is_none()) {
            let within = if namespace.is_empty() { String::new() } else { format!(" -n {namespace}") };
            let what = if verdict.is_deleting { "is being deleted" } else { "was deleted meanwhile" };
            return Step::Fail(Problem::new(Code::BeingDeleted, format!("Cluster {cluster} {what}")).remedy(format!(
                "`talosphere delete cluster {cluster}{within}` waits for the end of the deletion; run this command again afterwards"
            )));
        }
        let step = match verdict.stuck {
            Some(stuck) if self.takes_outdated && stuck.held.is_empty() => Step::Done { tree, value: () },
            Some(stuck) => Step::Fail(stuck.problem(cluster, self.namespace.as_deref().unwrap_or_default())),
            None if verdict.is_ready => Step::Done { tree, value: () },
            None => Step::Wait { tree, waiting: verdict.waiting },
        };
        if matches!(step, Step::Done { .. }) {
            self.warnings = warnings(objects, cluster);
        }
        step
    }
}

/// How many of the things waited for are told when the time is over.
const TOLD: usize = 12;

/// A wait that is long enough to stand for "for ever".
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long further changes are waited for after one.
const GATHER: Duration = Duration::from_millis(100);

/// Follows the objects of some kinds in a namespace until `look` says that the goal is reached or cannot be.
///
/// # Errors
/// What `look` fails with; `NotReadyInTime` with what was waited for, after `timeout`.
pub async fn until<T>(
    session: &mut Session,
    seams: &Seams,
    namespace: &str,
    kinds: &[ApiResource],
    timeout: Duration,
    mut look: impl FnMut(&Objects) -> Step<T>,
) -> Result<T, Problem> {
    let begun = seams.clock.instant();
    let limit = begun.checked_add(timeout.min(FOREVER)).unwrap_or(begun);
    let mut seen = Seen::default();
    let mut follower = Follower::start(session.api.client().clone(), kinds, seams);
    loop {
        follower.synced().await;
        if follower.is_lost() && !session.is_owner() {
            session.again(seams).await?;
            follower = Follower::start(session.api.client().clone(), kinds, seams);
            continue;
        }
        let waiting = match look(&follower.objects(namespace)) {
            Step::Done { tree, value } => {
                seen.show(tree, seams);
                seams.printer.settle();
                return Ok(value);
            }
            Step::Fail(problem) => {
                seams.printer.settle();
                return Err(problem);
            }
            Step::Wait { tree, waiting } => {
                seen.show(tree, seams);
                waiting
            }
        };
        let left = limit.saturating_duration_since(seams.clock.instant());
        let waited = tokio::select! {
            () = follower.changed() => true,
            () = seams.clock.sleep(left) => false,
        };
        // What changes together is looked at, and shown, at once.
        seams.clock.sleep(GATHER.min(left)).await;
        if !waited {
            seams.printer.settle();
            let more = waiting.len().saturating_sub(TOLD);
            let is_failing = seen.tree.as_ref().is_some_and(Node::is_failing);
            let first = if is_failing { "correct what the first lines name, then run" } else { "run" };
            let mut problem = Problem::new(Code::NotReadyInTime, format!("not done within {timeout:?}; what was reached is kept"))
                .seen_all(waiting.into_iter().take(TOLD))
                .remedy(format!("{first} the same command again to continue; `talosphere describe cluster` shows what waits for what"));
            if more > 0 {
                problem = problem.seen(format!("and {more} more"));
            }
            return Err(problem);
        }
    }
}

/// What the user has seen so far.
#[derive(Debug, Default)]
struct Seen {
    tree: Option<Node>,
    lines: BTreeMap<String, String>,
}

impl Seen {
    fn show(&mut self, tree: Option<Node>, seams: &Seams) {
        if tree == self.tree {
            return;
        }
        let lines = tree.as_ref().map(Node::lines).unwrap_or_default();
        let mut changes: Vec<String> = lines
            .iter()
            .filter(|(name, told)| is_news(self.lines.get(*name), told))
            .map(|(name, told)| format!("{name}: {told}"))
            .collect();
        changes.extend(self.lines.keys().filter(|name| !lines.contains_key(*name) && is_lasting(name)).map(|name| format!("{name}: gone")));
        seams.printer.progress(tree.as_ref(), &changes);
        self.tree = tree;
        self.lines = lines;
    }
}

/// Whether a line tells something new. Which call it was that a vCenter which is away did not answer is nothing new.
fn is_news(seen: Option<&String>, told: &str) -> bool {
    const AWAY: &str = "failing; VCenterUnreachable";
    seen.is_none_or(|seen| seen != told && !(seen.starts_with(AWAY) && told.starts_with(AWAY)))
}

/// Whether an object is in the tree for all its life, not only while something is wrong with it.
fn is_lasting(name: &str) -> bool {
    ["Cluster/", "Machine/", "MachineDeployment/", "TalosControlPlane/"].iter().any(|kind| name.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn which_call_a_vcenter_did_not_answer_is_no_news() {
        let seen = "failing; VCenterUnreachable: no answer to CloneVM_Task".to_owned();
        assert!(!is_news(Some(&seen), "failing; VCenterUnreachable: no answer to FindByUuid"));
        assert!(is_news(Some(&seen), "vcenter.example.com") && is_news(None, &seen) && !is_news(Some(&seen), &seen));
        assert!(is_news(Some(&"failing; A: x".to_owned()), "failing; A: y"));
    }

    #[test]
    fn a_cluster_that_goes_away_is_not_waited_for() {
        let mut objects = Objects::default();
        let mut goal = Goal::ready("demo");
        // Not there yet is no failure.
        assert!(matches!(goal.step(&objects), Step::Wait { .. }));
        objects.put("Cluster", json!({"metadata": {"name": "demo"}}));
        assert!(matches!(goal.step(&objects), Step::Wait { .. }));
        let Step::Fail(problem) = goal.step(&Objects::default()) else { panic!("gone") };
        assert_eq!((problem.code, problem.what.as_str()), (Code::BeingDeleted, "Cluster demo was deleted meanwhile"));
        objects.put("Cluster", json!({"metadata": {"name": "demo", "namespace": "team", "deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        let Step::Fail(problem) = Goal::running("demo").step(&objects) else { panic!("deleting") };
        assert_eq!(problem.what, "Cluster demo is being deleted");
        assert!(problem.remedy.unwrap().contains("talosphere delete cluster demo -n team"));
    }
}
