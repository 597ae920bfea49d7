//! What is to be done for a Machine. Pure.
//!
//! ```text
//!   alive:    finalizer, owner -> own bootstrap and infrastructure objects -> data secret, provider id
//!             -> Node: found by provider id, else by system UUID (then the provider id is written into it) -> labels, annotations, taint
//!   deleting: pre-drain hooks -> Node drained -> volumes detached -> pre-terminate hooks -> infrastructure object gone
//!             -> bootstrap object gone -> Node gone -> finalizer
//! ```
//!
//! Rules: the infrastructure goes only after every hook and after the drain, which ends with its limit at the latest and is done once; nothing
//! is drained where the whole cluster goes, its control plane, or the last control-plane machine; a Node is deleted only when the machine behind it is gone, and never when its whole
//! cluster goes; a workload cluster that does not answer holds a deletion no longer than the Node's deletion limit. A Node is never taken by
//! name: its provider id or its system UUID must say that it is this machine.

use std::sync::Arc;
use std::time::Duration;

use api::cluster::{Cluster, Machine, MachineDrainRule};
use api::names::{annotations, finalizers, labels};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use runtime::defects::{Defect, Defects};
use serde_json::{Value, json};

use super::drain::{self, Drain, Limit, Progress};
use super::held;
use super::node;
use crate::contract::{External, Referenced};
use crate::controlplane::ETCD_HOOK;
use crate::edit::{controller_reference, has_finalizer, is_deleting, is_paused};
use crate::workload::{Connection, Eviction, Inspection, Load, Look};

/// How long the deletion of a Node may take when the Machine does not say.
const NODE_DELETION_LIMIT: Duration = Duration::from_secs(10);

/// What is known when a Machine is planned.
#[derive(Clone, Debug)]
pub struct Observed {
    pub machine: Arc<Machine>,
    /// None when there is no such Cluster (any more).
    pub cluster: Option<Arc<Cluster>>,
    pub bootstrap: Referenced,
    pub infrastructure: Referenced,
    /// The cluster's control-plane object, for the question whether all of it goes.
    pub control_plane: Referenced,
    /// The object that controls the Machine, where its hook counts.
    pub owner: Referenced,
    /// Control-plane Machines of the cluster that are not being deleted, this one included.
    pub control_plane_machines: usize,
    pub connection: Connection,
    /// Since when the cluster does not answer; none while it does.
    pub away_since: Option<Timestamp>,
    pub nodes: Vec<Arc<Node>>,
    /// The last call to the workload cluster that failed, and why.
    pub trouble: Option<String>,
    /// What is on the Node of a Machine that is being deleted, as far as it was looked at.
    pub load: Option<Load>,
    /// What Nodes of the cluster wait for, as far as it was looked for.
    pub inspection: Option<Arc<Inspection>>,
    /// Rules for drains in the Machine's namespace.
    pub rules: Vec<Arc<MachineDrainRule>>,
    pub now: Timestamp,
    pub defects: Defects,
}

/// One outside effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Finalizer, cluster label, and the Cluster as an owner where nobody controls the Machine.
    Claim,
    OwnBootstrap,
    OwnInfrastructure,
    /// Write what bootstrap and infrastructure gave into the Machine's spec.
    CopySpec {
        data_secret_name: Option<String>,
        provider_id: Option<String>,
        failure_domain: Option<String>,
    },
    /// Bring the Node's provider id, labels, annotations and taints to what they should be.
    PatchNode {
        node: String,
        patch: Value,
    },
    /// Look for what Nodes of the cluster wait for.
    Inspect,
    /// Read what is on the Node.
    Look {
        node: String,
        what: Look,
    },
    Evict {
        node: String,
        eviction: Eviction,
    },
    /// Record an event.
    Tell {
        is_warning: bool,
        reason: &'static str,
        message: String,
    },
    DeleteInfrastructure,
    DeleteBootstrap,
    DeleteNode {
        node: String,
        uid: String,
    },
    RemoveFinalizer,
}

/// How far a deletion is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    PreDrainHook { hooks: Vec<String> },
    Drain { node: String, progress: Progress },
    VolumeDetach { node: String, progress: Progress },
    PreTerminateHook { hooks: Vec<String> },
    Infrastructure { left: String },
    Bootstrap { left: String },
    Node { left: String, until: Option<Timestamp> },
    Completed,
}

/// Why a Machine has no Node yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeWait {
    ControlPlaneInitialized,
    Infrastructure {
        kind: String,
    },
    ProviderId {
        kind: String,
    },
    Connection {
        state: String,
    },
    Node {
        provider_id: String,
    },
    /// Its Node was there and is not any more.
    Lost {
        node: String,
    },
}

/// What to do, and where the Machine stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub is_paused: bool,
    pub deletion: Option<Deletion>,
    /// The Node that carries the Machine's provider id.
    pub node: Option<Arc<Node>>,
    pub node_wait: Option<NodeWait>,
    /// Run again at this time at the latest.
    pub again_at: Option<Timestamp>,
}

/// Decides for one Machine.
pub fn plan(observed: &Observed) -> Plan {
    let meta = &observed.machine.metadata;
    if is_paused(observed.cluster.as_deref(), meta) {
        return Plan { is_paused: true, ..Plan::default() };
    }
    if is_deleting(meta) {
        return deletion(observed);
    }
    let mut plan = Plan::default();
    // Without its Cluster nothing can be made; the Cluster's appearance wakes the Machine.
    let Some(cluster) = &observed.cluster else { return plan };
    if is_unclaimed(&observed.machine) {
        plan.steps.push(Step::Claim);
    }
    if is_unowned(&observed.bootstrap, &observed.machine) {
        plan.steps.push(Step::OwnBootstrap);
    }
    if is_unowned(&observed.infrastructure, &observed.machine) {
        plan.steps.push(Step::OwnInfrastructure);
    }
    plan.steps.extend(copy(observed));
    find_node(observed, cluster, &mut plan);
    plan
}

fn is_unclaimed(machine: &Machine) -> bool {
    let meta = &machine.metadata;
    let is_labelled = meta.labels.as_ref().and_then(|known| known.get(labels::CLUSTER_NAME)) == Some(&machine.spec.cluster_name);
    let has_owner = meta.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
    !has_finalizer(meta, finalizers::MACHINE) || !is_labelled || !has_owner
}

fn is_unowned(referenced: &Referenced, machine: &Machine) -> bool {
    let Some(object) = referenced.found().filter(|object| !object.is_deleting()) else { return false };
    let controller = controller_reference(&object.metadata);
    let is_labelled = object.metadata.labels.as_ref().and_then(|known| known.get(labels::CLUSTER_NAME)) == Some(&machine.spec.cluster_name);
    // A control plane owns what it cloned until the Machine does.
    let is_free = controller.is_none_or(|owner| owner.kind != "Machine");
    is_free || !is_labelled
}

fn copy(observed: &Observed) -> Option<Step> {
    let spec = &observed.machine.spec;
    let data_secret = observed.bootstrap.found().and_then(|object| object.data_secret());
    let data_secret_name = data_secret.filter(|name| spec.bootstrap.data_secret_name.as_deref() != Some(name)).map(str::to_owned);
    let infrastructure = observed.infrastructure.found().filter(|object| object.is_provisioned());
    let given = |value: Option<&String>| value.filter(|value| !value.is_empty()).cloned();
    let provider_id = infrastructure.and_then(|object| given(object.spec.provider_id.as_ref()));
    let provider_id = provider_id.filter(|id| spec.provider_id.as_ref() != Some(id));
    let failure_domain =
        infrastructure.and_then(|object| given(object.spec.failure_domain.as_ref().or(object.status.failure_domain.as_ref())));
    let failure_domain = failure_domain.filter(|domain| spec.failure_domain.as_ref() != Some(domain));
    let is_change = data_secret_name.is_some() || provider_id.is_some() || failure_domain.is_some();
    is_change.then_some(Step::CopySpec { data_secret_name, provider_id, failure_domain })
}

fn find_node(observed: &Observed, cluster: &Cluster, plan: &mut Plan) {
    let machine = &observed.machine;
    let kind = || machine.spec.infrastructure_ref.kind.clone();
    let status = cluster.status.as_ref();
    let is_initialized = status.is_some_and(|status| status.initialization.control_plane_initialized == Some(true));
    let is_provisioned = observed.infrastructure.found().is_some_and(|object| object.is_provisioned());
    // What the infrastructure tells now counts before what was copied.
    let told = observed.infrastructure.found().and_then(|object| object.spec.provider_id.clone()).filter(|id| !id.is_empty());
    let provider_id = told.or_else(|| machine.spec.provider_id.clone());
    let known_node = machine.status.as_ref().and_then(|status| status.node_ref.as_ref()).map(|node| node.name.clone());
    if !is_provisioned && known_node.is_none() {
        plan.node_wait = Some(NodeWait::Infrastructure { kind: kind() });
        return;
    }
    let Some(provider_id) = provider_id else {
        plan.node_wait = Some(NodeWait::ProviderId { kind: kind() });
        return;
    };
    let found = node::find(&observed.nodes, &provider_id);
    if let Some(found) = &found
        && observed.connection.is_connected()
        && let Some(patch) = node::patch(found, machine, &provider_id)
    {
        let name = found.metadata.name.clone().unwrap_or_default();
        plan.steps.push(Step::PatchNode { node: name, patch });
    }
    let carries_id = |node: &Arc<Node>| node.spec.as_ref().and_then(|spec| spec.provider_id.as_ref()) == Some(&provider_id);
    plan.node = found.filter(carries_id);
    if let Some(node) = plan.node.as_ref().filter(|_| observed.connection.is_connected())
        && let Some((is_due, again)) = held::looks(&held::held(node), observed.inspection.as_deref(), observed.now)
    {
        if is_due {
            plan.steps.push(Step::Inspect);
        }
        plan.again_at = Some(again);
    }
    if plan.node.is_none() {
        plan.node_wait = Some(match (known_node, &observed.connection) {
            (None, _) if !is_initialized => NodeWait::ControlPlaneInitialized,
            (_, connection) if !connection.is_connected() => NodeWait::Connection { state: connection.to_string() },
            (Some(node), _) => NodeWait::Lost { node },
            (None, _) => NodeWait::Node { provider_id },
        });
    }
}

/// The hooks with this prefix that somebody has put on the Machine.
fn hooks(meta: &ObjectMeta, prefix: &str) -> Vec<String> {
    let known = meta.annotations.iter().flatten().map(|(key, _)| key);
    known.filter(|key| key.starts_with(prefix)).cloned().collect()
}

/// The Node of a Machine that is being deleted: the recorded one; else, when none was recorded yet, the one with the machine's provider id.
pub fn node_of(machine: &Machine, infrastructure: &Referenced, nodes: &[Arc<Node>]) -> Option<Arc<Node>> {
    if let Some(known) = machine.status.as_ref().and_then(|status| status.node_ref.as_ref()) {
        return nodes.iter().find(|node| node.metadata.name.as_ref() == Some(&known.name)).cloned();
    }
    let told = infrastructure.found().and_then(|object| object.spec.provider_id.clone()).filter(|id| !id.is_empty());
    node::find(nodes, &told.or_else(|| machine.spec.provider_id.clone())?)
}

fn deletion(observed: &Observed) -> Plan {
    let meta = &observed.machine.metadata;
    let mut plan = Plan { node: node_of(&observed.machine, &observed.infrastructure, &observed.nodes), ..Plan::default() };
    let stage = stage(observed, &mut plan);
    if stage == Deletion::Completed && has_finalizer(meta, finalizers::MACHINE) {
        plan.steps.push(Step::RemoveFinalizer);
    }
    plan.deletion = Some(stage);
    plan
}

fn stage(observed: &Observed, plan: &mut Plan) -> Deletion {
    let meta = &observed.machine.metadata;
    let pre_drain = hooks(meta, annotations::PRE_DRAIN_HOOK_PREFIX);
    if !pre_drain.is_empty() {
        return Deletion::PreDrainHook { hooks: pre_drain };
    }
    if let Some(stage) = emptying(observed, plan) {
        return stage;
    }
    let mut pre_terminate = hooks(meta, annotations::PRE_TERMINATE_HOOK_PREFIX);
    if is_etcd_let_go(observed) || observed.defects.has(Defect::GoBeforeLeaving) {
        pre_terminate.retain(|hook| hook != ETCD_HOOK);
    }
    if !pre_terminate.is_empty() {
        return Deletion::PreTerminateHook { hooks: pre_terminate };
    }
    let name = |object: &External, fallback: &str| {
        let kind = if object.kind.is_empty() { fallback } else { &object.kind };
        format!("{kind} {}", object.metadata.name.as_deref().unwrap_or_default())
    };
    if let Some(object) = observed.infrastructure.found() {
        if !object.is_deleting() {
            plan.steps.push(Step::DeleteInfrastructure);
        }
        return Deletion::Infrastructure { left: name(object, &observed.machine.spec.infrastructure_ref.kind) };
    }
    if let Some(object) = observed.bootstrap.found() {
        if !object.is_deleting() {
            plan.steps.push(Step::DeleteBootstrap);
        }
        let kind = observed.machine.spec.bootstrap.config_ref.as_ref().map_or("", |reference| &reference.kind);
        return Deletion::Bootstrap { left: name(object, kind) };
    }
    if let Some(node) = plan.node.clone().filter(|_| is_node_deleted(observed)) {
        let until = node_deletion_end(observed);
        // A Node that cannot be deleted must not hold the Machine for ever: what it stood for is gone already. While the API answers and
        // the call has not failed the limit does not count: the infrastructure's deletion may have used it up.
        let is_held = !observed.connection.is_connected() || observed.trouble.is_some() || is_deleting(&node.metadata);
        let is_over = is_held && until.is_some_and(|until| observed.now >= until);
        if !is_over {
            let name = node.metadata.name.clone().unwrap_or_default();
            if observed.connection.is_connected() && !is_deleting(&node.metadata) {
                plan.steps.push(Step::DeleteNode { node: name.clone(), uid: node.metadata.uid.clone().unwrap_or_default() });
            }
            plan.again_at = until.filter(|until| *until > observed.now);
            return Deletion::Node { left: format!("Node {name}"), until };
        }
    }
    Deletion::Completed
}

/// The drain and the wait for volumes; none when there is nothing to wait for, any more or at all.
fn emptying(observed: &Observed, plan: &mut Plan) -> Option<Deletion> {
    let machine = &observed.machine;
    let status = machine.status.as_ref();
    let times = status.and_then(|status| status.deletion.clone()).unwrap_or_default();
    // Done once: what comes after it has begun.
    let is_behind =
        times.wait_for_pre_terminate_hook_start_time.is_some() || observed.infrastructure.found().is_none_or(|object| object.is_deleting());
    if is_behind || !is_node_deleted(observed) {
        return None;
    }
    let name = match (&plan.node, status.and_then(|status| status.node_ref.as_ref())) {
        (Some(node), _) => node.metadata.name.clone().unwrap_or_default(),
        // It is there as far as anybody knows.
        (None, Some(known)) if !observed.connection.is_connected() => known.name.clone(),
        _ => return None,
    };
    let is_excluded = |annotation: &str| machine.metadata.annotations.as_ref().is_some_and(|known| known.contains_key(annotation));
    if times.wait_for_node_volume_detach_start_time.is_none() && !is_excluded(annotations::EXCLUDE_NODE_DRAINING) {
        let since = times.node_drain_start_time.as_ref().map(|time| time.0);
        if let Some(progress) = drain(observed, &name, since, plan) {
            return Some(Deletion::Drain { node: name, progress });
        }
    }
    if is_excluded(annotations::EXCLUDE_WAIT_FOR_VOLUME_DETACH) {
        return None;
    }
    let since = times.wait_for_node_volume_detach_start_time.as_ref().map(|time| time.0);
    let progress = detachment(observed, &name, since, plan)?;
    Some(Deletion::VolumeDetach { node: name, progress })
}

/// A wait that ends with its limit.
struct Limited<'a> {
    observed: &'a Observed,
    since: Timestamp,
    limit: Limit,
    /// What is told when the limit is over.
    reason: &'static str,
    missed: String,
}

impl Limited<'_> {
    /// When to look or try again after this time.
    fn later(&self, at: Timestamp) -> Timestamp {
        at.checked_add(drain::pause(self.since, self.observed.now)).unwrap_or(at)
    }

    /// Goes on until its limit while something is left, looking again at `next` at the latest; tells when it has ended.
    fn goes_on(&self, left: Vec<String>, next: Timestamp, plan: &mut Plan) -> Option<Progress> {
        let now = self.observed.now;
        let progress = Progress::new(self.since, &self.limit, left);
        let is_endless = self.observed.defects.has(Defect::DrainForever);
        if let Some(until) = progress.until.filter(|until| *until <= now && !is_endless) {
            // Nothing is asked of a Node that is waited for no longer.
            plan.steps.retain(|step| !matches!(step, Step::Look { .. } | Step::Evict { .. }));
            let lines: String = progress.left.iter().map(|line| format!("\n* {line}")).collect();
            let message =
                format!("{} by {}, as {} says. It is gone on without it{lines}", self.missed, until.strftime("%T"), self.limit.source);
            plan.steps.push(Step::Tell { is_warning: true, reason: self.reason, message });
            return None;
        }
        plan.again_at = [progress.until, Some(next)].into_iter().flatten().filter(|at| *at > now).min();
        Some(progress)
    }

    /// Goes on while nothing can be asked of the Node.
    fn is_away(&self, plan: &mut Plan) -> Option<Progress> {
        let left = vec![format!("workload cluster {}", self.observed.connection)];
        self.goes_on(left, self.later(self.observed.now), plan)
    }
}

/// The look at a Node that its drain, or the wait for its volumes, needs.
fn look(observed: &Observed, name: &str, volumes: bool) -> Step {
    let what = drain::look(&observed.machine, observed.cluster.as_deref(), &observed.rules, volumes);
    Step::Look { node: name.to_owned(), what }
}

/// What is on the Node, by what a drain is decided by.
fn loaded<'a>(observed: &'a Observed, node: &'a Node, load: &'a Load) -> Drain<'a> {
    Drain { machine: &observed.machine, cluster: observed.cluster.as_deref(), node, load, rules: &observed.rules }
}

fn drain(observed: &Observed, name: &str, since: Option<Timestamp>, plan: &mut Plan) -> Option<Progress> {
    let limit = drain::drain_limit(&observed.machine, &observed.owner);
    if since.is_none() && limit.after.is_none() {
        let message = format!("Draining Node {name} without a limit ({}): it waits for ever for what may not be evicted", limit.source);
        plan.steps.push(Step::Tell { is_warning: true, reason: "DrainWithoutLimit", message });
    }
    let missed = format!("Node {name} was not drained");
    let wait = Limited { observed, since: since.unwrap_or(observed.now), limit, reason: "FailedDrainNode", missed };
    let Some(node) = plan.node.clone().filter(|_| observed.connection.is_connected()) else { return wait.is_away(plan) };
    let is_cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    if !is_cordoned {
        plan.steps.push(Step::PatchNode { node: name.to_owned(), patch: json!({"spec": {"unschedulable": true}}) });
        let left = observed.trouble.clone().unwrap_or_else(|| "the Node to be cordoned".to_owned());
        return wait.goes_on(vec![left], wait.later(observed.now), plan);
    }
    let Some(load) = &observed.load else {
        plan.steps.push(look(observed, name, false));
        return wait.goes_on(vec!["its pods to be read".to_owned()], wait.later(observed.now), plan);
    };
    let is_due = observed.now >= wait.later(load.at);
    let mut left: Vec<String> = load.failure.iter().map(|failure| format!("its pods cannot be read: {failure}")).collect();
    if load.round > 0 {
        let pods = loaded(observed, &node, load).pods();
        let is_careless = observed.defects.has(Defect::IgnoreBudgets);
        if pods.left.is_empty() || is_careless {
            let message = format!("success draining Machine's node \"{name}\"");
            plan.steps.push(Step::Tell { is_warning: false, reason: "SuccessfulDrainNode", message });
            return None;
        }
        left.extend(pods.left);
        if !is_due {
            plan.steps.extend(pods.evictions.into_iter().map(|eviction| Step::Evict { node: name.to_owned(), eviction }));
        }
    }
    if is_due {
        plan.steps.push(look(observed, name, false));
    }
    wait.goes_on(left, wait.later(load.at), plan)
}

fn detachment(observed: &Observed, name: &str, since: Option<Timestamp>, plan: &mut Plan) -> Option<Progress> {
    let (limit, missed) = (drain::volume_limit(&observed.machine), format!("Volumes of Node {name} were not detached"));
    let wait = Limited { observed, since: since.unwrap_or(observed.now), limit, reason: "FailedWaitForVolumeDetach", missed };
    // Who cannot be reached detaches nothing.
    let Some(node) = plan.node.clone().filter(|_| observed.connection.is_connected()) else { return wait.is_away(plan) };
    if drain::is_unreachable(&node) {
        return None;
    }
    let Some(load) = observed.load.as_ref().filter(|load| load.looked.volumes.is_some()) else {
        // A look that failed is repeated in its time.
        if observed.load.as_ref().is_none_or(|load| load.failure.is_none() || observed.now >= wait.later(load.at)) {
            plan.steps.push(look(observed, name, true));
        }
        let failure = observed.load.as_ref().and_then(|load| load.failure.as_ref());
        let left = failure.map_or_else(|| "its volumes to be read".to_owned(), |failure| format!("its volumes cannot be read: {failure}"));
        return wait.goes_on(vec![left], wait.later(observed.now), plan);
    };
    let left = loaded(observed, &node, load).volumes();
    if left.is_empty() {
        return None;
    }
    if observed.now >= wait.later(load.at) {
        plan.steps.push(look(observed, name, true));
    }
    wait.goes_on(left, wait.later(load.at), plan)
}

/// Whether nobody is left to take etcd's hook off: the control plane that put it on is gone, or all of the cluster goes.
fn is_etcd_let_go(observed: &Observed) -> bool {
    let is_cluster_going = observed.cluster.as_ref().is_none_or(|cluster| is_deleting(&cluster.metadata));
    let controller = controller_reference(&observed.machine.metadata).map(|owner| &owner.uid);
    let has_control_plane = observed.owner.found().is_some_and(|owner| owner.metadata.uid.as_ref() == controller);
    is_cluster_going || !has_control_plane
}

/// Whether the Node is to be deleted with its Machine: not when the cluster or its control plane goes as a whole, and not the last
/// control plane's.
fn is_node_deleted(observed: &Observed) -> bool {
    let is_cluster_going = observed.cluster.as_ref().is_none_or(|cluster| is_deleting(&cluster.metadata));
    let is_control_plane_going = match &observed.control_plane {
        Referenced::None => false,
        Referenced::Missing { .. } => true,
        Referenced::Found(object) => object.is_deleting(),
    };
    let is_control_plane = crate::controlplane::is_control_plane(&observed.machine);
    let is_last = is_control_plane && observed.control_plane_machines == 0;
    !is_cluster_going && !is_control_plane_going && !is_last
}

/// When the Node's deletion is given up, counted from the deletion of the Machine; none for never.
fn node_deletion_end(observed: &Observed) -> Option<Timestamp> {
    let limit = match observed.machine.spec.deletion.node_deletion_timeout_seconds {
        None => NODE_DELETION_LIMIT,
        Some(0) => return None,
        Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
    };
    let begun = observed.machine.metadata.deletion_timestamp.as_ref()?.0;
    begun.checked_add(SignedDuration::try_from(limit).ok()?).ok()
}
