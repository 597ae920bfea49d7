//! What is to be done for a TalosControlPlane. Pure.
//!
//! ```text
//!   bring-up:  plan all names -> create all Machines -> (first node that answers) record it -> bootstrap etcd there, and nowhere else
//!   growing:   every machine a healthy voter -> plan one -> create it -> it learns, is promoted -> next
//!   shrinking: pick one -> delete its Machine -> its node is drained -> the Machine's hook holds its VM -> its member leaves etcd
//!              -> hook taken off -> VM goes
//!   deleting:  all Machines at once, no care for etcd -> finalizer
//! ```
//!
//! How many machines there are and which are replaced is decided in [`super::size`], how members leave in [`super::departure`].
//!
//! Rules: etcd is bootstrapped on the recorded node only, recorded before the call; a node that does not answer never counts as not
//! bootstrapped. No member is taken out when that would leave fewer healthy voters than the quorum of what is left. Where a rule stops
//! the plan, the plan says so in words that become the condition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::bootstrap::{TalosConfig, TalosConfigSpec};
use api::cluster::{Cluster, Machine};
use api::controlplane::TalosControlPlane;
use api::names::{annotations, finalizers};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use runtime::defects::{Defect, Defects};
use talos::client::MemberId;

use super::departure::{Departure, departure, stale};
use super::etcd::{self, Answer, Etcd, NodeView};
use super::intent::{self, Choice, PlannedMachine};
use super::recovery;
use super::remediation;
use super::size::size;
use super::status::is_ready;
use crate::contract::Referenced;
use crate::controlplane::has_etcd_hook;
use crate::edit::{has_finalizer, is_deleting, is_paused};
use crate::rounds::Rounds;
use crate::workload::Connection;

/// A Machine's parts.
#[derive(Clone, Debug)]
pub struct Parts {
    pub config: Option<Arc<TalosConfig>>,
    pub infrastructure: Referenced,
}

/// Whether the pools have an address for one more machine. Looked at while machines are being replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pools {
    /// The first pool without a free address that a new machine would need one of, with its kind.
    pub empty: Option<String>,
    /// Machines that wait for an address of a pool.
    pub waiting: BTreeSet<String>,
}

/// The kubeconfig Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kubeconfig {
    /// It cannot be made yet: no bundle.
    NotPossible,
    Absent,
    Stale,
    Fresh,
    /// The user's own: it is left as it is.
    Foreign,
}

/// What is known when a TalosControlPlane is planned.
#[derive(Clone, Debug)]
pub struct Observed {
    pub control_plane: Arc<TalosControlPlane>,
    pub cluster: Option<Arc<Cluster>>,
    /// Its Machines with what their nodes said, by name.
    pub nodes: Vec<NodeView>,
    /// By Machine.
    pub parts: BTreeMap<String, Parts>,
    pub template: Referenced,
    pub pools: Pools,
    pub kubeconfig: Kubeconfig,
    pub connection: Connection,
    pub workload_nodes: Vec<Arc<Node>>,
    pub now: Timestamp,
    pub defects: Defects,
}

/// One outside effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    AddFinalizer,
    RemoveFinalizer,
    /// Make the Cluster an owner of the infrastructure template.
    OwnTemplate,
    WriteKubeconfig,
    /// Draw names for so many machines and store them.
    PlanMachines {
        count: usize,
        is_first: bool,
    },
    /// Store that only these are still to be created.
    KeepPlanned(Vec<PlannedMachine>),
    CreateMachine {
        planned: PlannedMachine,
        failure_domain: Option<String>,
    },
    CreateConfig {
        machine: String,
    },
    CreateInfrastructure {
        machine: String,
    },
    /// Put the hook on a Machine that lacks it.
    Hold {
        machine: String,
    },
    /// Take the hook off.
    Release {
        machine: String,
    },
    /// Store where etcd is bootstrapped.
    RecordBootstrap(Choice),
    Bootstrap {
        machine: String,
        address: String,
    },
    DeleteMachine(Box<ObjectMeta>),
    /// Store the number of a machine's etcd member.
    RecordMember {
        machine: String,
        id: MemberId,
    },
    /// Tell others that the machine is about to leave etcd.
    MarkLeaving {
        machine: String,
    },
    /// Ask a machine's member to hand the leadership on, if it has it.
    MoveLeadership {
        machine: String,
        address: String,
    },
    EtcdLeave {
        machine: String,
        address: String,
    },
    /// Store, or take away, how often replacements did not last.
    StoreRounds(Option<Rounds>),
    /// Tell a Machine that a health check wants replaced what becomes of that.
    TellRemediation {
        machine: Arc<Machine>,
        reason: &'static str,
        message: String,
    },
    /// Take out a member whose node does not answer, through another node.
    EtcdRemove {
        machine: String,
        id: MemberId,
        via: String,
    },
}

/// How far bootstrapping is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Bootstrap {
    /// There are no machines, or none has an address.
    #[default]
    WaitingForMachines,
    /// What is waited for.
    Waiting {
        on: String,
    },
    /// A person must decide.
    Blocked {
        reason: String,
    },
    /// The call is made now.
    Calling {
        machine: String,
    },
    Done,
}

/// Whether the number of machines is changing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resizing {
    #[default]
    No,
    /// `wait` tells what holds it up.
    Up {
        wait: Option<String>,
    },
    Down {
        wait: Option<String>,
    },
    /// Below one.
    Refused,
}

/// Whether machines are being replaced by ones of the wanted specification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rolling {
    /// None is outdated.
    #[default]
    No,
    /// `wait` tells what holds up the next step; `without_surge` why no machine is made before another goes, though the strategy has it so.
    UnderWay { wait: Option<String>, without_surge: Option<String> },
    /// They are replaced when somebody deletes them.
    OnDelete,
    /// A person must decide.
    Blocked { reason: String },
}

impl Rolling {
    pub(super) fn under_way(wait: Option<String>) -> Self {
        Self::UnderWay { wait, without_surge: None }
    }
}

/// What to do, and where the control plane stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub is_paused: bool,
    /// What must be there before anything can be done.
    pub missing: Option<String>,
    pub bootstrap: Bootstrap,
    pub resizing: Resizing,
    /// Machines that differ from the wanted specification.
    pub outdated: Vec<String>,
    pub rolling: Rolling,
    /// What keeps a deleted machine from leaving etcd.
    pub leaving: Option<String>,
    pub etcd_faults: Vec<String>,
    /// When to look again, though nothing has happened.
    pub again_at: Option<Timestamp>,
    /// Machines that are left, while the control plane is deleted.
    pub deletion: Option<Vec<String>>,
}

impl Plan {
    /// Whether nothing is under way: nodes need to be asked only now and then.
    pub fn is_settled(&self) -> bool {
        self.steps.is_empty()
            && self.missing.is_none()
            && self.bootstrap == Bootstrap::Done
            && self.resizing == Resizing::No
            && !matches!(self.rolling, Rolling::UnderWay { .. })
            && self.leaving.is_none()
            && self.etcd_faults.is_empty()
            && self.deletion.is_none()
    }
}

impl Observed {
    /// Wanted machines.
    pub fn wanted(&self) -> i32 {
        self.control_plane.spec.replicas.unwrap_or(1)
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(|node| !node.is_deleting())
    }

    /// The Node that a machine is known to be.
    pub(super) fn workload_node(&self, view: &NodeView) -> Option<&Node> {
        let known = view.machine.status.as_ref()?.node_ref.as_ref()?;
        self.workload_nodes.iter().find(|node| node.metadata.name.as_ref() == Some(&known.name)).map(|node| &**node)
    }

    pub(super) fn is_node_ready(&self, view: &NodeView) -> bool {
        self.workload_node(view).is_some_and(is_ready)
    }

    /// Whether the machine has no Node that is known to be not ready.
    pub(super) fn has_no_unready_node(&self, view: &NodeView) -> bool {
        self.workload_node(view).is_none_or(is_ready)
    }

    /// Whether outdated machines stay until somebody deletes them.
    pub(super) fn is_on_delete(&self) -> bool {
        self.control_plane.spec.rollout_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
    }

    /// By how many machines a rollout may exceed the wanted number: 0 or 1; and why it is 0 although the strategy has 1.
    pub(super) fn surge(&self) -> (usize, Option<String>) {
        let update = self.control_plane.spec.rollout_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let wanted = self.wanted();
        let surge = update.and_then(|update| update.max_surge.as_ref()).and_then(|surge| surge.of(wanted, true)).unwrap_or(1);
        match &self.pools.empty {
            _ if surge < 1 => (0, None),
            Some(pool) => (0, Some(format!("{pool} has no spare address"))),
            None => (1, None),
        }
    }

    /// Whether etcd is known to have been bootstrapped.
    pub fn is_bootstrapped(&self) -> bool {
        let is_told = self.control_plane.status.as_ref().is_some_and(|status| status.bootstrapped == Some(true));
        is_told || self.nodes.iter().any(|node| node.members().is_some())
    }
}

/// Decides for one TalosControlPlane.
pub fn plan(observed: &Observed) -> Plan {
    let meta = &observed.control_plane.metadata;
    if is_paused(observed.cluster.as_deref(), meta) {
        return Plan { is_paused: true, ..Plan::default() };
    }
    if is_deleting(meta) {
        return deletion(observed);
    }
    let mut plan = Plan { outdated: outdated(observed), ..Plan::default() };
    if observed.is_on_delete() && !plan.outdated.is_empty() {
        plan.rolling = Rolling::OnDelete;
    }
    let Some(cluster) = &observed.cluster else {
        plan.missing = Some("the Cluster that owns this control plane".to_owned());
        return plan;
    };
    if !has_finalizer(meta, finalizers::TALOS_CONTROL_PLANE) {
        plan.steps.push(Step::AddFinalizer);
    }
    if let Some(template) = observed.template.found()
        && !template.metadata.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == cluster.metadata.uid.as_ref())
    {
        plan.steps.push(Step::OwnTemplate);
    }
    if observed.nodes.iter().any(|node| node.address.is_some()) || observed.is_bootstrapped() {
        plan.etcd_faults = etcd::faults(&observed.nodes).into_iter().map(|fault| fault.told).collect();
    }
    if is_deleting(&cluster.metadata) {
        plan.missing = Some("the Cluster's deletion".to_owned());
        release_all(observed, &mut plan);
        return plan;
    }
    plan.missing = missing(observed, cluster);
    if recovery::hold(observed, &mut plan) {
        if plan.missing.is_none() {
            if matches!(observed.kubeconfig, Kubeconfig::Absent | Kubeconfig::Stale) {
                plan.steps.push(Step::WriteKubeconfig);
            }
            parts(observed, &mut plan);
        }
        return plan;
    }
    let departure = departure(observed);
    if plan.missing.is_none() {
        if matches!(observed.kubeconfig, Kubeconfig::Absent | Kubeconfig::Stale) {
            plan.steps.push(Step::WriteKubeconfig);
        }
        let asked = remediation::asked(observed, &mut plan);
        size(observed, &departure, &asked.due, &mut plan);
        remediation::conclude(observed, &asked, &mut plan);
        parts(observed, &mut plan);
    }
    bootstrap(observed, &mut plan);
    record_members(observed, &mut plan);
    // A member that nobody is goes when no machine does, and none comes.
    let is_moving = |step: &Step| matches!(step, Step::DeleteMachine(_) | Step::PlanMachines { .. } | Step::CreateMachine { .. });
    let departure = match departure {
        Departure::None if !plan.steps.iter().any(is_moving) => stale(observed),
        other => other,
    };
    match departure {
        Departure::None => {}
        Departure::Going { steps, told } => {
            plan.steps.extend(steps);
            plan.leaving = told;
        }
        Departure::Held { told, .. } => plan.leaving = Some(told),
    }
    plan
}

fn missing(observed: &Observed, cluster: &Cluster) -> Option<String> {
    let is_provisioned = cluster.status.as_ref().is_some_and(|status| status.initialization.infrastructure_provisioned == Some(true));
    if !is_provisioned {
        return Some("the cluster's infrastructure".to_owned());
    }
    if !cluster.spec.control_plane_endpoint.is_valid() {
        return Some("the cluster's control-plane endpoint".to_owned());
    }
    match &observed.template {
        Referenced::Found(_) => None,
        Referenced::Missing { kind, name } => Some(format!("{kind} {name}, which does not exist")),
        Referenced::None => Some("spec.infrastructureTemplate, which names nothing".to_owned()),
    }
}

fn release_all(observed: &Observed, plan: &mut Plan) {
    for node in observed.nodes.iter().filter(|node| has_etcd_hook(&node.machine)) {
        plan.steps.push(Step::Release { machine: node.name().to_owned() });
    }
}

fn deletion(observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    release_all(observed, &mut plan);
    for node in observed.alive() {
        plan.steps.push(Step::DeleteMachine(Box::new(node.machine.metadata.clone())));
    }
    if observed.nodes.is_empty() && has_finalizer(&observed.control_plane.metadata, finalizers::TALOS_CONTROL_PLANE) {
        plan.steps.push(Step::RemoveFinalizer);
    }
    plan.deletion = Some(observed.nodes.iter().map(|node| node.name().to_owned()).collect());
    plan
}

/// Machines that differ from what is wanted. A missing part counts as the same, as upstream has it.
pub(super) fn outdated(observed: &Observed) -> Vec<String> {
    let spec = &observed.control_plane.spec;
    let wanted = normalized(&spec.control_plane_config.controlplane.to_talos_config());
    let template = spec.infrastructure_template.name.as_deref();
    let group_kind =
        format!("{}.{}", spec.infrastructure_template.kind.as_deref().unwrap_or_default(), spec.infrastructure_template.group());
    let differs = |node: &&NodeView| {
        let has_other_version = node.machine.spec.version.as_ref().is_some_and(|version| *version != spec.version);
        let Some(parts) = observed.parts.get(node.name()) else { return has_other_version };
        let has_other_config = parts.config.as_ref().is_some_and(|config| normalized(&config.spec) != wanted);
        let has_other_template = parts.infrastructure.found().is_some_and(|object| {
            let annotation = |key: &str| object.metadata.annotations.as_ref().and_then(|known| known.get(key)).map(String::as_str);
            let (name, kind) = (annotation(annotations::CLONED_FROM_NAME), annotation(annotations::CLONED_FROM_GROUPKIND));
            name.is_some_and(|name| Some(name) != template) || kind.is_some_and(|kind| kind != group_kind)
        });
        has_other_version || has_other_config || has_other_template
    };
    observed.alive().filter(differs).map(|node| node.name().to_owned()).collect()
}

/// A specification without what only looks different.
pub fn normalized(spec: &TalosConfigSpec) -> TalosConfigSpec {
    let mut spec = spec.clone();
    spec.hostname = spec.hostname.filter(|hostname| hostname.source.as_ref().is_some_and(|source| !source.is_empty()));
    spec.talos_version = spec.talos_version.filter(|version| !version.is_empty());
    spec.data = spec.data.filter(|data| !data.is_empty());
    spec
}

/// The objects that Machines name and that are not there yet; the hook.
fn parts(observed: &Observed, plan: &mut Plan) {
    for node in observed.alive() {
        let machine = node.name().to_owned();
        if !has_etcd_hook(&node.machine) {
            plan.steps.push(Step::Hold { machine: machine.clone() });
        }
        let Some(parts) = observed.parts.get(&machine) else { continue };
        let status = node.machine.status.as_ref();
        // What was there once and is gone was taken away by somebody: a new one would be another machine under the same name.
        let had_data = node.machine.spec.bootstrap.data_secret_name.is_some();
        let was_provisioned = status.is_some_and(|status| status.initialization.infrastructure_provisioned == Some(true));
        if parts.config.is_none() && !had_data {
            plan.steps.push(Step::CreateConfig { machine: machine.clone() });
        }
        if matches!(parts.infrastructure, Referenced::Missing { .. }) && !was_provisioned && node.machine.spec.provider_id.is_none() {
            plan.steps.push(Step::CreateInfrastructure { machine });
        }
    }
}

/// etcd's one beginning.
fn bootstrap(observed: &Observed, plan: &mut Plan) {
    if observed.is_bootstrapped() {
        plan.bootstrap = Bootstrap::Done;
        bootstrap_again(observed, plan);
        return;
    }
    if observed.alive().all(|node| node.address.is_none()) {
        plan.bootstrap = Bootstrap::WaitingForMachines;
        return;
    }
    plan.bootstrap = match intent::choice(&observed.control_plane) {
        Choice::Node { machine, .. } => on_recorded(observed, plan, &machine),
        Choice::Unborn => choose(observed, plan),
        Choice::Unknown => {
            // Somebody else made these machines, and may have bootstrapped one: all of them must say that they were not.
            let silent: Vec<&str> = observed.nodes.iter().filter(|node| !node.has_no_etcd()).map(NodeView::name).collect();
            if silent.is_empty() {
                choose(observed, plan)
            } else {
                let on = format!(
                    "the answer of {} that it has no etcd: only when every control plane says so may one be bootstrapped",
                    silent.join(", ")
                );
                Bootstrap::Waiting { on }
            }
        }
    };
}

/// The first node that answers becomes the recorded one.
fn choose(observed: &Observed, plan: &mut Plan) -> Bootstrap {
    let is_silent = |node: &&NodeView| matches!(node.answer, Answer::Answers { etcd: Etcd::Silent { .. }, .. });
    if let Some(node) = observed.nodes.iter().find(is_silent) {
        return Bootstrap::Waiting { on: format!("etcd on {}, which has begun already, to list its members", node.name()) };
    }
    let Some(node) = observed.alive().find(|node| node.has_no_etcd()) else { return first_answer(observed) };
    let (machine, address) = (node.name().to_owned(), node.address.clone().unwrap_or_default());
    plan.steps.push(Step::RecordBootstrap(Choice::Node { machine: machine.clone(), address: address.clone(), since: Some(observed.now) }));
    plan.steps.push(Step::Bootstrap { machine: machine.clone(), address });
    Bootstrap::Calling { machine }
}

/// Why no node answers, told by the first one that was asked.
fn first_answer(observed: &Observed) -> Bootstrap {
    let failure = observed.alive().find_map(|node| match &node.answer {
        Answer::Failed(error) => Some(error.to_string()),
        Answer::Answers { etcd: Etcd::Unclear { state }, .. } => Some(format!("etcd on {} is {state}", node.name())),
        _ => None,
    });
    Bootstrap::Waiting { on: failure.map_or_else(|| "a node to answer".to_owned(), |failure| format!("a node to answer: {failure}")) }
}

fn on_recorded(observed: &Observed, plan: &mut Plan, machine: &str) -> Bootstrap {
    let Some(node) = observed.nodes.iter().find(|node| node.name() == machine) else {
        return Bootstrap::Blocked {
            reason: format!(
                "etcd was to be bootstrapped on {machine}, which is gone, and whether it was is not known. If no other control plane has \
                 etcd data, remove the annotation {} to let another one be chosen",
                intent::BOOTSTRAP_NODE
            ),
        };
    };
    if node.is_deleting() {
        return Bootstrap::Waiting { on: format!("{machine}, on which etcd was to be bootstrapped, to be gone") };
    }
    match (&node.answer, &node.address) {
        (Answer::Answers { etcd: Etcd::Absent, .. }, Some(address)) => {
            plan.steps.push(Step::Bootstrap { machine: machine.to_owned(), address: address.clone() });
            Bootstrap::Calling { machine: machine.to_owned() }
        }
        (Answer::Answers { etcd: Etcd::Silent { reason }, .. }, _) => {
            Bootstrap::Waiting { on: format!("etcd on {machine} to list its members: {reason}") }
        }
        (Answer::Answers { etcd: Etcd::Unclear { state }, .. }, _) => {
            Bootstrap::Waiting { on: format!("{machine}, on which etcd is bootstrapped and no other: etcd is {state}") }
        }
        (Answer::Failed(error), _) => Bootstrap::Waiting { on: format!("{machine}, on which etcd is bootstrapped and no other: {error}") },
        _ => Bootstrap::Waiting { on: format!("{machine}, on which etcd is bootstrapped, to have an address") },
    }
}

/// The planted defect of rule 1: a second node is bootstrapped.
fn bootstrap_again(observed: &Observed, plan: &mut Plan) {
    if !observed.defects.has(Defect::BootstrapTwice) {
        return;
    }
    // A second one: the recorded node still looks free for a moment after it was called.
    let recorded = match intent::choice(&observed.control_plane) {
        Choice::Node { machine, .. } => machine,
        _ => String::new(),
    };
    let is_free = |node: &&NodeView| node.name() != recorded && node.has_no_etcd();
    if let Some((node, address)) = observed.alive().find(is_free).and_then(|node| Some((node, node.address.clone()?))) {
        plan.steps.push(Step::Bootstrap { machine: node.name().to_owned(), address });
    }
}

/// The members of machines, so that they are known as theirs when addresses and names have changed.
fn record_members(observed: &Observed, plan: &mut Plan) {
    let Ok(membership) = etcd::membership(&observed.nodes) else { return };
    for node in &observed.nodes {
        if let Some(member) = node.member(&membership.members).filter(|member| node.recorded() != Some(member.id)) {
            plan.steps.push(Step::RecordMember { machine: node.name().to_owned(), id: member.id });
        }
    }
}
