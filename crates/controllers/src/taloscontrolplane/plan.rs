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
//! Rules: etcd is bootstrapped on the recorded node only, recorded before the call; a node that does not answer never counts as not
//! bootstrapped. No member is taken out when that would leave fewer healthy voters than the quorum of what is left. Where a rule stops
//! the plan, the plan says so in words that become the condition.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::bootstrap::{TalosConfig, TalosConfigSpec};
use api::cluster::Cluster;
use api::controlplane::TalosControlPlane;
use api::names::{annotations, finalizers};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use runtime::defects::{Defect, Defects};
use talos::client::MemberId;

use super::etcd::{self, Answer, Disagreement, Etcd, Membership, NodeView};
use super::intent::{self, Choice, PlannedMachine};
use crate::contract::Referenced;
use crate::controlplane::{ETCD_HOOK, endpoint_host, has_etcd_hook, is_past_drain};
use crate::edit::{has_finalizer, is_deleting, is_paused};
use crate::workload::Connection;

/// A Machine's parts.
#[derive(Clone, Debug)]
pub struct Parts {
    pub config: Option<Arc<TalosConfig>>,
    pub infrastructure: Referenced,
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
    EtcdLeave {
        machine: String,
        address: String,
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
    /// What keeps a deleted machine from leaving etcd.
    pub leaving: Option<String>,
    pub etcd_faults: Vec<String>,
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

    fn alive(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(|node| !node.is_deleting())
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
        plan.etcd_faults = etcd::faults(&observed.nodes);
    }
    if is_deleting(&cluster.metadata) {
        plan.missing = Some("the Cluster's deletion".to_owned());
        release_all(observed, &mut plan);
        return plan;
    }
    let departure = departure(observed);
    plan.missing = missing(observed, cluster);
    if plan.missing.is_none() {
        if matches!(observed.kubeconfig, Kubeconfig::Absent | Kubeconfig::Stale) {
            plan.steps.push(Step::WriteKubeconfig);
        }
        size(observed, &departure, &mut plan);
        parts(observed, &mut plan);
    }
    bootstrap(observed, &mut plan);
    record_members(observed, &mut plan);
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
    for node in observed.nodes.iter().filter(|node| has_hook(node)) {
        plan.steps.push(Step::Release { machine: node.name().to_owned() });
    }
}

fn has_hook(node: &NodeView) -> bool {
    has_etcd_hook(&node.machine)
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
fn outdated(observed: &Observed) -> Vec<String> {
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
fn normalized(spec: &TalosConfigSpec) -> TalosConfigSpec {
    let mut spec = spec.clone();
    spec.hostname = spec.hostname.filter(|hostname| hostname.source.as_ref().is_some_and(|source| !source.is_empty()));
    spec.talos_version = spec.talos_version.filter(|version| !version.is_empty());
    spec.data = spec.data.filter(|data| !data.is_empty());
    spec
}

/// More or fewer machines.
fn size(observed: &Observed, departure: &Departure, plan: &mut Plan) {
    let wanted = observed.wanted();
    let Ok(wanted) = usize::try_from(wanted).map_err(drop).and_then(|wanted| if wanted == 0 { Err(()) } else { Ok(wanted) }) else {
        plan.resizing = Resizing::Refused;
        return;
    };
    let alive = observed.alive().count();
    let mut planned = intent::planned(&observed.control_plane);
    planned.retain(|planned| !observed.nodes.iter().any(|node| node.name() == planned.machine));
    let room = wanted.saturating_sub(alive);
    let is_surplus = planned.len() > room;
    planned.truncate(room);
    if is_surplus || (planned.is_empty() && intent::has_planned(&observed.control_plane)) {
        plan.steps.push(Step::KeepPlanned(planned.clone()));
    }
    if alive < wanted {
        let wait = if observed.is_bootstrapped() { growth_wait(observed, departure) } else { None };
        if wait.is_none() {
            let at_once = if observed.is_bootstrapped() { 1 } else { room };
            let is_first =
                observed.nodes.is_empty() && intent::choice(&observed.control_plane) == Choice::Unknown && !observed.is_bootstrapped();
            if planned.len() < at_once {
                plan.steps.push(Step::PlanMachines { count: at_once - planned.len(), is_first });
            }
            let domains = failure_domains(observed, planned.len());
            let machines = planned.into_iter().take(at_once).zip(domains);
            plan.steps.extend(machines.map(|(planned, failure_domain)| Step::CreateMachine { planned, failure_domain }));
        }
        plan.resizing = Resizing::Up { wait };
    } else if alive > wanted {
        shrink(observed, plan);
    }
}

/// The failure domains of the next `count` machines: each the least used one at its turn. None where the cluster has none.
fn failure_domains(observed: &Observed, count: usize) -> Vec<Option<String>> {
    let known = observed.cluster.as_ref().and_then(|cluster| cluster.status.as_ref()).map(|status| status.failure_domains.as_slice());
    let usable = known.unwrap_or_default().iter().filter(|domain| domain.control_plane == Some(true));
    let mut used: BTreeMap<String, usize> = usable.map(|domain| (domain.name.clone(), 0)).collect();
    for domain in observed.alive().filter_map(|node| node.machine.spec.failure_domain.as_ref()) {
        if let Some(count) = used.get_mut(domain) {
            *count += 1;
        }
    }
    let mut next = || {
        let (name, count) = used.iter_mut().min_by_key(|(name, count)| (**count, (*name).clone()))?;
        *count += 1;
        Some(name.clone())
    };
    (0..count).map(|_| next()).collect()
}

/// What keeps a running control plane from growing: one learner at a time, only onto a whole etcd, and not before the machines that are
/// being deleted are gone - unless they wait for just that, since without another voter etcd would be lost with them.
fn growth_wait(observed: &Observed, departure: &Departure) -> Option<String> {
    let is_for_growth = matches!(departure, Departure::Held { by_quorum: true, .. });
    let endpoint = observed.cluster.as_ref().and_then(|cluster| endpoint_host(cluster));
    for node in observed.nodes.iter().filter(|node| node.is_deleting()) {
        if !is_for_growth {
            return Some(format!("{} to be gone", node.name()));
        }
        if endpoint.is_some() && node.address.as_deref() == endpoint {
            return Some(format!(
                "{} to be gone, whose address is the cluster's endpoint: no other machine can stand in for it",
                node.name()
            ));
        }
    }
    let faults = etcd::faults(&observed.nodes);
    (!faults.is_empty()).then(|| format!("etcd to be whole: {}", faults.join("; ")))
}

fn shrink(observed: &Observed, plan: &mut Plan) {
    if let Some(node) = observed.nodes.iter().find(|node| node.is_deleting()) {
        plan.resizing = Resizing::Down { wait: Some(format!("{} to be gone", node.name())) };
        return;
    }
    let choice = intent::choice(&observed.control_plane);
    let is_chosen = |node: &NodeView| matches!(&choice, Choice::Node { machine, .. } if machine == node.name());
    let mut candidates: Vec<&NodeView> = observed.alive().collect();
    let is_marked =
        |node: &NodeView| node.machine.metadata.annotations.as_ref().is_some_and(|known| known.contains_key(annotations::DELETE_MACHINE));
    let created = |node: &NodeView| node.machine.metadata.creation_timestamp.as_ref().map(|time| time.0);
    // The one whose own address is the endpoint goes last: without it the cluster is out of reach.
    let endpoint = observed.cluster.as_ref().and_then(|cluster| endpoint_host(cluster));
    let is_endpoint = |node: &NodeView| endpoint.is_some() && node.address.as_deref() == endpoint;
    candidates.sort_by_key(|node| {
        let is_outdated = plan.outdated.iter().any(|name| name == node.name());
        (!is_marked(node), is_endpoint(node), !is_outdated, node.is_etcd_healthy(), created(node), node.name().to_owned())
    });
    if !observed.is_bootstrapped() {
        // Nothing to leave yet. The recorded node may be bootstrapped without our knowing it.
        if let Some(node) = candidates.iter().find(|node| !is_chosen(node)) {
            plan.steps.push(Step::DeleteMachine(Box::new(node.machine.metadata.clone())));
        }
        plan.resizing = Resizing::Down { wait: None };
        return;
    }
    let membership = match etcd::membership(&observed.nodes) {
        Ok(membership) => membership,
        Err(disagreement) => {
            plan.resizing = Resizing::Down { wait: Some(format!("etcd's nodes to agree: {}", told(&disagreement))) };
            return;
        }
    };
    let mut objection = None;
    for node in candidates {
        let member = node.member(&membership.members);
        match member.and_then(|member| membership.objection(member.id, &observed.nodes)) {
            None => {
                plan.steps.push(Step::DeleteMachine(Box::new(node.machine.metadata.clone())));
                plan.resizing = Resizing::Down { wait: None };
                return;
            }
            Some(reason) => {
                objection.get_or_insert(format!("{} to be removable: {reason}", node.name()));
            }
        }
    }
    plan.resizing = Resizing::Down { wait: objection };
}

fn told(disagreement: &Disagreement) -> String {
    match disagreement {
        Disagreement::Nobody => "no control plane lists etcd's members".to_owned(),
        Disagreement::TwoClusters { one, other } => format!("{one} and {other} belong to two different etcd clusters"),
        Disagreement::Differ { one, other } => format!("{one} and {other} list different members"),
    }
}

/// The objects that Machines name and that are not there yet; the hook.
fn parts(observed: &Observed, plan: &mut Plan) {
    for node in observed.alive() {
        let machine = node.name().to_owned();
        if !has_hook(node) {
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

/// What becomes of the machines that are being deleted.
enum Departure {
    /// There is none that waits for us.
    None,
    /// One goes on: what is to be done, and what is told.
    Going { steps: Vec<Step>, told: Option<String> },
    /// None may. `by_quorum` when nothing but etcd's quorum keeps all of them: only another member lets them go.
    Held { told: String, by_quorum: bool },
}

impl Departure {
    fn held(told: String) -> Self {
        Self::Held { told, by_quorum: false }
    }

    fn release(machine: String) -> Self {
        Self::Going { steps: vec![Step::Release { machine }], told: None }
    }
}

/// Members of machines that are being deleted leave etcd, one at a time: the first that may. What is not healthy comes first, since its
/// going costs the quorum nothing and may be what lets the others go.
fn departure(observed: &Observed) -> Departure {
    let mut going: Vec<&NodeView> = observed.nodes.iter().filter(|node| node.is_deleting() && has_hook(node)).collect();
    going.sort_by_key(|node| (node.is_etcd_healthy(), node.name().to_owned()));
    let mut held = Vec::new();
    let mut by_quorum = observed.nodes.iter().all(|node| !node.is_deleting() || has_hook(node));
    for node in going {
        if let Some(told) = undrained(observed, node) {
            by_quorum = false;
            held.push(told);
            continue;
        }
        let departure = if observed.is_bootstrapped() { leave(observed, node) } else { leave_unborn(observed, node) };
        match departure {
            Departure::Held { told, by_quorum: is_by_quorum } => {
                by_quorum &= is_by_quorum;
                held.push(told);
            }
            other => return other,
        }
    }
    match held.is_empty() {
        true => Departure::None,
        false => Departure::Held { told: held.join("; "), by_quorum },
    }
}

/// What is told of a node that is still being drained. One that does not answer, and that its cluster does not hear from either, is not
/// waited for: its member may be what keeps the others.
fn undrained(observed: &Observed, node: &NodeView) -> Option<String> {
    if is_past_drain(&node.machine) || observed.defects.has(Defect::LeaveUndrained) {
        return None;
    }
    let known = node.machine.status.as_ref().and_then(|status| status.node_ref.as_ref());
    let is_ready = |node: &Arc<Node>| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    let of_machine = |node: &&Arc<Node>| known.is_some_and(|known| node.metadata.name.as_ref() == Some(&known.name));
    let is_heard = observed.connection.is_connected() && observed.workload_nodes.iter().find(of_machine).is_some_and(is_ready);
    let is_silent = matches!(node.answer, Answer::Failed(_));
    (!is_silent || is_heard).then(|| format!("{} leaves etcd when its node is drained", node.name()))
}

fn leave(observed: &Observed, node: &NodeView) -> Departure {
    let machine = node.name().to_owned();
    // The others' word counts: a node that has left may still show its old list.
    let others: Vec<NodeView> = observed.nodes.iter().filter(|other| other.name() != machine).cloned().collect();
    let membership = match etcd::membership(&others) {
        Err(Disagreement::Nobody) => etcd::membership(&observed.nodes),
        other => other,
    };
    let membership = match membership {
        Ok(membership) => membership,
        Err(disagreement) => return Departure::held(format!("{machine} cannot leave etcd yet: {}", told(&disagreement))),
    };
    let Some(member) = node.member(&membership.members) else { return leave_unknown(node, &others, &membership) };
    if let Some(reason) = membership.objection(member.id, &observed.nodes) {
        return Departure::Held { told: format!("{machine} may not leave etcd: {reason}"), by_quorum: true };
    }
    match (&node.answer, &node.address) {
        (Answer::Answers { etcd: Etcd::Lists { .. }, .. }, Some(address)) => Departure::Going {
            steps: vec![
                Step::MarkLeaving { machine: machine.clone() },
                Step::EtcdLeave { machine: machine.clone(), address: address.clone() },
            ],
            told: Some(format!("{machine} is leaving etcd")),
        },
        _ => {
            let via = others.iter().filter(|other| membership.told_by.iter().any(|name| name == other.name()));
            let via = via.filter(|other| other.is_etcd_healthy()).find_map(|other| other.address.clone());
            let Some(via) = via else {
                return Departure::held(format!("{machine} cannot leave etcd: no other control plane's etcd is healthy"));
            };
            let told = format!("{machine} is taken out of etcd through another node, since its own etcd does not answer");
            Departure::Going { steps: vec![Step::EtcdRemove { machine, id: member.id, via }], told: Some(told) }
        }
    }
}

/// No member is known as this machine's. It may go only when it surely has none: not when one that nobody knows may be its own.
fn leave_unknown(node: &NodeView, others: &[NodeView], membership: &Membership) -> Departure {
    let machine = node.name().to_owned();
    let is_known = |id: MemberId| others.iter().any(|other| other.member(&membership.members).is_some_and(|member| member.id == id));
    let Some(stranger) = membership.members.iter().find(|member| !is_known(member.id)) else { return Departure::release(machine) };
    // A recorded member that were still listed would have been found.
    if node.recorded().is_some() || node.has_no_etcd() {
        return Departure::release(machine);
    }
    Departure::held(format!(
        "{machine} cannot leave etcd: member {} ({}) has no Machine and may be its own. Take that member out of etcd (talosctl etcd \
         remove-member), or take the annotation {ETCD_HOOK} off the Machine",
        stranger.id, stranger.hostname
    ))
}

/// A machine goes before etcd was seen to live. It stays while it may be a member: of an etcd that began on it, or on another.
fn leave_unborn(observed: &Observed, node: &NodeView) -> Departure {
    let machine = node.name().to_owned();
    let mut others = observed.nodes.iter().filter(|other| other.name() != machine).peekable();
    let choice = intent::choice(&observed.control_plane);
    let is_chosen = |other: &NodeView| matches!(&choice, Choice::Node { machine, .. } if machine == other.name());
    if node.has_no_etcd() {
        // It says itself that nothing has begun there: another one may be chosen.
        let forget = is_chosen(node).then_some(Step::RecordBootstrap(Choice::Unborn));
        return Departure::Going { steps: forget.into_iter().chain([Step::Release { machine }]).collect(), told: None };
    }
    let is_free = match &choice {
        _ if node.has_etcd() => false,
        Choice::Unborn => true,
        // Where it was to begin it has not: then it has nowhere.
        Choice::Node { .. } if observed.nodes.iter().any(|other| is_chosen(other) && other.has_no_etcd()) => true,
        Choice::Node { .. } | Choice::Unknown => others.peek().is_some() && others.all(NodeView::has_no_etcd),
    };
    if is_free {
        return Departure::release(machine);
    }
    Departure::held(format!(
        "{machine} may hold the only etcd: waiting for the other control planes to say that they have none. If nothing of it is to be \
         kept, take the annotation {ETCD_HOOK} off the Machine"
    ))
}
