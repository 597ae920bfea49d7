//! Emptying a Node before its machine goes. Pure.
//!
//! ```text
//!   cordon -> look -> evict what may go -> look again (5, later 20 s) -> ... -> nothing left, or the limit is over
//!                                                                               -> volumes detached, or their limit is over
//! ```
//!
//! Pods are chosen as Cluster API 1.14 chooses them: those of a DaemonSet and those that the kubelet runs from files stay; the label
//! `cluster.x-k8s.io/drain` comes before MachineDrainRules, of which the first by name counts. They leave by the eviction API alone, so that
//! budgets are respected until the limit. Unlike upstream every drain has a limit, unless one of 0 is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::cluster::{Cluster, DrainBehavior, Machine, MachineDrainRule};
use api::names::{annotations, labels};
use api::spoke::durations;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use runtime::reconcile::Wait;

use crate::contract::Referenced;
use crate::edit::controller_reference;
use crate::workload::{Eviction, Load, Look};

/// How long a drain, and then the detachment of volumes, may take when nobody says.
const DEFAULT_LIMIT: Duration = Duration::from_secs(15 * 60);
/// What marks the pods that the kubelet runs from files.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The grace of pods on a Node that is not reachable: nobody there can use it.
const UNREACHABLE_GRACE_SECONDS: u32 = 1;
/// How many pods are named; the rest is counted.
const NAMED: usize = 5;

/// How long something may take, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// None: for ever.
    pub after: Option<Duration>,
    pub source: String,
}

impl Limit {
    fn of_seconds(seconds: i64, source: String) -> Self {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        Self { after: Some(Duration::from_secs(seconds)).filter(|after| !after.is_zero()), source }
    }

    /// The point in time, counted from the beginning.
    pub fn until(&self, since: Timestamp) -> Option<Timestamp> {
        since.checked_add(SignedDuration::try_from(self.after?).ok()?).ok()
    }

    /// What says that there is none.
    fn unlimited(&self) -> Option<String> {
        self.after.is_none().then(|| format!("no limit: {}", self.source))
    }
}

/// The drain's limit: the Machine's field, else the annotation on the Machine or on the control plane that owns it, else the default.
pub fn drain_limit(machine: &Machine, owner: &Referenced) -> Limit {
    if let Some(seconds) = machine.spec.deletion.node_drain_timeout_seconds {
        return Limit::of_seconds(seconds.into(), format!("spec.deletion.nodeDrainTimeoutSeconds is {seconds}"));
    }
    let own = machine.metadata.annotations.as_ref().map(|known| ("Machine", known));
    let of_owner = owner.found().and_then(|owner| Some((owner_kind(machine), owner.metadata.annotations.as_ref()?)));
    for (holder, known) in own.into_iter().chain(of_owner) {
        if let Some(text) = known.get(annotations::NODE_DRAIN_TIMEOUT)
            && let Some(seconds) = durations::parse(text).filter(|seconds| *seconds >= 0)
        {
            return Limit::of_seconds(seconds, format!("{holder} annotation {} is {text}", annotations::NODE_DRAIN_TIMEOUT));
        }
    }
    Limit { after: Some(DEFAULT_LIMIT), source: "the default".to_owned() }
}

fn owner_kind(machine: &Machine) -> &str {
    controller_reference(&machine.metadata).map_or("owner", |owner| &owner.kind)
}

/// The limit of waiting for volumes.
pub fn volume_limit(machine: &Machine) -> Limit {
    match machine.spec.deletion.node_volume_detach_timeout_seconds {
        Some(seconds) => Limit::of_seconds(seconds.into(), format!("spec.deletion.nodeVolumeDetachTimeoutSeconds is {seconds}")),
        None => Limit { after: Some(DEFAULT_LIMIT), source: "the default".to_owned() },
    }
}

/// A wait that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub since: Timestamp,
    pub until: Option<Timestamp>,
    /// Why there is no limit.
    pub unlimited: Option<String>,
    /// What is left, a line each.
    pub left: Vec<String>,
}

impl Progress {
    pub fn new(since: Timestamp, limit: &Limit, left: Vec<String>) -> Self {
        Self { since, until: limit.until(since), unlimited: limit.unlimited(), left }
    }

    /// Since when on what is waited for, until when, and what is left of it.
    pub fn told(&self, on: &str) -> String {
        let wait = Wait { on: on.to_owned(), since: self.since, until: self.until }.to_string().replacen('w', "W", 1);
        let unlimited = self.unlimited.iter().map(|why| format!(" ({why})"));
        let lines = self.left.iter().map(|line| format!("\n* {line}"));
        [wait].into_iter().chain(unlimited).chain(lines).collect()
    }
}

/// How long until the next look or try.
pub fn pause(since: Timestamp, now: Timestamp) -> SignedDuration {
    let seconds = match now.duration_since(since).as_secs() {
        ..30 => 5,
        30..120 => 10,
        _ => 20,
    };
    SignedDuration::from_secs(seconds)
}

/// What happens to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Stays,
    Goes {
        order: i32,
    },
    /// It ends by itself.
    WaitedFor {
        order: i32,
    },
}

/// What a drain is decided by.
#[derive(Clone, Copy, Debug)]
pub struct Drain<'a> {
    pub machine: &'a Machine,
    pub cluster: Option<&'a Cluster>,
    pub node: &'a Node,
    pub load: &'a Load,
    /// By name.
    pub rules: &'a [Arc<MachineDrainRule>],
}

/// What is to be done about pods, and which are left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    pub evictions: Vec<Eviction>,
    /// None left: the drain is over.
    pub left: Vec<String>,
}

/// Whether nobody hears from the Node.
pub fn is_unreachable(node: &Node) -> bool {
    condition(node, "Ready").is_none_or(|status| status == "Unknown")
}

/// The status of a condition of a Node.
fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a str> {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|condition| condition.type_ == type_).map(|condition| condition.status.as_str())
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

fn name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// What a look has to bring so that the rules for this Machine can be read.
pub fn look(machine: &Machine, cluster: Option<&Cluster>, rules: &[Arc<MachineDrainRule>], volumes: bool) -> Look {
    let of_machine = rules.iter().filter(|rule| is_for_machine(rule, machine, cluster));
    let namespaces = of_machine.flat_map(|rule| &rule.spec.pods).any(|pods| pods.namespace_selector.is_some());
    Look { namespaces, volumes }
}

fn is_for_machine(rule: &MachineDrainRule, machine: &Machine, cluster: Option<&Cluster>) -> bool {
    let none = BTreeMap::new();
    let of_machine = machine.metadata.labels.as_ref().unwrap_or(&none);
    let of_cluster = cluster.and_then(|cluster| cluster.metadata.labels.as_ref()).unwrap_or(&none);
    rule.spec.machines.is_empty()
        || rule.spec.machines.iter().any(|chosen| {
            chosen.selector.as_ref().is_none_or(|selector| selector.matches(of_machine))
                && chosen.cluster_selector.as_ref().is_none_or(|selector| selector.matches(of_cluster))
        })
}

impl Drain<'_> {
    fn is_for_pod(&self, rule: &MachineDrainRule, pod: &Pod) -> bool {
        let none = BTreeMap::new();
        let of_pod = pod.metadata.labels.as_ref().unwrap_or(&none);
        let of_namespace = pod.metadata.namespace.as_ref().and_then(|name| self.load.looked.namespaces.get(name)).unwrap_or(&none);
        rule.spec.pods.is_empty()
            || rule.spec.pods.iter().any(|chosen| {
                chosen.selector.as_ref().is_none_or(|selector| selector.matches(of_pod))
                    && chosen.namespace_selector.as_ref().is_none_or(|selector| selector.matches(of_namespace))
            })
    }

    fn choice(&self, pod: &Pod) -> Choice {
        let meta = &pod.metadata;
        let owner = controller_reference(meta).map(|owner| owner.kind.as_str());
        let is_mirror = meta.annotations.as_ref().is_some_and(|known| known.contains_key(MIRROR));
        if is_mirror || owner == Some("Node") || (owner == Some("DaemonSet") && !has_ended(pod)) {
            return Choice::Stays;
        }
        let label = meta.labels.as_ref().and_then(|known| known.get(labels::DRAIN)).map(|value| value.to_lowercase());
        let chosen = match label.as_deref() {
            Some("skip") => Choice::Stays,
            Some("wait-completed") => Choice::WaitedFor { order: 0 },
            _ => {
                let of_machine = self.rules.iter().filter(|rule| is_for_machine(rule, self.machine, self.cluster));
                let rule = of_machine.filter(|rule| self.is_for_pod(rule, pod)).min_by_key(|rule| rule.metadata.name.clone());
                let order = rule.and_then(|rule| rule.spec.drain.order).unwrap_or(0);
                match rule.map(|rule| rule.spec.drain.behavior) {
                    Some(DrainBehavior::Skip) => Choice::Stays,
                    Some(DrainBehavior::WaitCompleted) => Choice::WaitedFor { order },
                    _ => Choice::Goes { order },
                }
            }
        };
        match chosen {
            Choice::WaitedFor { order } if has_ended(pod) => Choice::Goes { order },
            other => other,
        }
    }

    /// The pods that have to go: those to be evicted now, and what is told of those that are left.
    pub fn pods(&self) -> Pods {
        let is_unreachable = is_unreachable(self.node);
        // Nobody there confirms that a pod has stopped.
        let counts = |pod: &&Arc<Pod>| !is_unreachable || pod.metadata.deletion_timestamp.is_none();
        let chosen = self.load.looked.pods.iter().filter(counts).map(|pod| (pod, self.choice(pod)));
        let left: Vec<(&Arc<Pod>, Choice)> = chosen.filter(|(_, choice)| *choice != Choice::Stays).collect();
        let order = |choice: &Choice| match choice {
            Choice::Goes { order } | Choice::WaitedFor { order } => *order,
            Choice::Stays => i32::MAX,
        };
        let first = left.iter().map(|(_, choice)| order(choice)).min().unwrap_or(0);
        let mut pods = Pods::default();
        let (mut stopping, mut waited, mut asked, mut later) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut refused: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (pod, choice) in &left {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let attempt = self.load.attempts.get(&uid);
            let is_asked = attempt.is_some_and(|attempt| attempt.round >= self.load.round);
            if pod.metadata.deletion_timestamp.is_some() {
                stopping.push(name(pod));
            } else if order(choice) > first {
                later.push(name(pod));
            } else if matches!(choice, Choice::WaitedFor { .. }) {
                waited.push(name(pod));
            } else {
                if !is_asked {
                    pods.evictions.push(Eviction {
                        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
                        name: pod.metadata.name.clone().unwrap_or_default(),
                        uid,
                        grace_seconds: is_unreachable.then_some(UNREACHABLE_GRACE_SECONDS),
                        round: self.load.round,
                    });
                }
                // What was refused before stands until there is another answer.
                match attempt.and_then(|attempt| attempt.refusal.as_deref()) {
                    Some(refusal) => refused.entry(refusal).or_default().push(name(pod)),
                    None => asked.push(name(pod)),
                }
            }
        }
        let mut line = |names: Vec<String>, what: &str| {
            if !names.is_empty() {
                pods.left.push(format!("{}: {what}", listed(names)));
            }
        };
        for (refusal, names) in refused {
            line(names, refusal);
        }
        line(stopping, "deletionTimestamp set, but still not removed from the Node");
        line(waited, "waiting for completion");
        line(asked, "to be evicted");
        line(later, "to be evicted after those above");
        pods
    }

    /// The attached volumes that are waited for: not those of pods that stay.
    pub fn volumes(&self) -> Vec<String> {
        let claims = |pod: &Arc<Pod>| {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
            let claims = volumes.iter().filter_map(|volume| volume.persistent_volume_claim.as_ref());
            claims.map(|claim| (namespace.clone(), claim.claim_name.clone())).collect::<Vec<_>>()
        };
        let staying = self.load.looked.pods.iter().filter(|pod| self.choice(pod) == Choice::Stays);
        let kept: BTreeSet<(String, String)> = staying.flat_map(claims).collect();
        let attached = self.load.looked.volumes.as_deref().unwrap_or_default();
        let (kept, going): (Vec<_>, Vec<_>) =
            attached.iter().partition(|volume| volume.claim.as_ref().is_some_and(|claim| kept.contains(claim)));
        let is_known = |device: &str| attached.iter().any(|volume| volume.device.as_deref() == Some(device));
        let mut left: Vec<String> = going.iter().map(|volume| format!("PersistentVolume {} is attached", volume.name)).collect();
        let devices =
            self.node.status.iter().flat_map(|status| status.volumes_attached.iter().flatten()).map(|volume| volume.name.as_str());
        let is_kept = |device: &str| kept.iter().any(|volume| volume.device.as_deref() == Some(device));
        left.extend(devices.filter(|device| !is_kept(device) && !is_known(device)).map(|device| format!("{device} is in use by the Node")));
        left
    }
}

/// `Pod a` or `Pods a, b and 7 more`.
fn listed(mut names: Vec<String>) -> String {
    names.sort();
    let word = if names.len() == 1 { "Pod" } else { "Pods" };
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{word} {}{rest}", names.join(", "))
}
