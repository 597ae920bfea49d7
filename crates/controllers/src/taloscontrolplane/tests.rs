//! The plan's branches, on values alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::cluster::{Cluster, ClusterStatus, Machine, MachineDeletionStatus, MachineStatus};
use api::controlplane::{TalosControlPlane, TalosControlPlaneStatus};
use api::meta::ApiEndpoint;
use api::names::{annotations, finalizers};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use runtime::defects::{Defect, Defects};
use talos::client::{EtcdMember, MemberId};

use super::etcd::tests::{away, lists, member, node};
use super::etcd::{Answer, Etcd, NodeView, quorum};
use super::intent::{self, BOOTSTRAP_NODE, Choice, PLANNED_MACHINES, PlannedMachine};
use super::plan::{Bootstrap, Kubeconfig, Observed, Parts, Plan, Pools, Resizing, Step, plan};
use super::status::{Acted, status};
use crate::contract::{External, Referenced};
use crate::controlplane::ETCD_HOOK;
use crate::workload::Connection;

pub(super) fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn says(etcd: Etcd) -> Answer {
    Answer::Answers { etcd, unhealthy: Vec::new() }
}

pub(super) fn absent() -> Answer {
    says(Etcd::Absent)
}

fn unclear(state: &str) -> Answer {
    says(Etcd::Unclear { state: state.into() })
}

pub(super) fn held(mut view: NodeView) -> NodeView {
    let id: u64 = view.name().trim_start_matches('m').parse().unwrap();
    let machine = Arc::make_mut(&mut view.machine);
    let recorded = (intent::ETCD_MEMBER.to_owned(), MemberId(id).to_string());
    machine.metadata.annotations = Some(BTreeMap::from([(ETCD_HOOK.to_owned(), String::new()), recorded]));
    view
}

fn unrecorded(mut view: NodeView) -> NodeView {
    Arc::make_mut(&mut view.machine).metadata.annotations.as_mut().unwrap().remove(intent::ETCD_MEMBER);
    view
}

/// Being deleted, and drained already.
pub(super) fn deleting(view: NodeView) -> NodeView {
    let mut view = draining(view);
    let drained = MachineDeletionStatus { wait_for_pre_terminate_hook_start_time: Some(Time(now())), ..MachineDeletionStatus::default() };
    Arc::make_mut(&mut view.machine).status.get_or_insert_default().deletion = Some(drained);
    view
}

/// Being deleted; its node is drained.
fn draining(view: NodeView) -> NodeView {
    let mut view = held(view);
    Arc::make_mut(&mut view.machine).metadata.deletion_timestamp = Some(Time(now()));
    view
}

pub(super) fn world(replicas: i32, nodes: Vec<NodeView>) -> Observed {
    let mut cluster = Cluster::default();
    cluster.metadata.name = Some("c".into());
    cluster.metadata.uid = Some("cluster".into());
    cluster.spec.control_plane_endpoint = ApiEndpoint { host: Some("c.example".into()), port: Some(6443) };
    let mut cluster_status = ClusterStatus::default();
    cluster_status.initialization.infrastructure_provisioned = Some(true);
    cluster.status = Some(cluster_status);
    let mut control_plane = TalosControlPlane::default();
    control_plane.metadata.name = Some("cp".into());
    control_plane.metadata.finalizers = Some(vec![finalizers::TALOS_CONTROL_PLANE.to_owned()]);
    control_plane.spec.replicas = Some(replicas);
    control_plane.spec.version = "v1.25.5".into();
    let owner = crate::edit::owner_of(&cluster);
    let template =
        External { metadata: kube::core::ObjectMeta { owner_references: Some(vec![owner]), ..Default::default() }, ..External::default() };
    let parts = nodes.iter().map(|node| {
        let parts = Parts { config: Some(Arc::default()), infrastructure: Referenced::Found(Arc::new(External::default())) };
        (node.name().to_owned(), parts)
    });
    Observed {
        parts: parts.collect(),
        control_plane: Arc::new(control_plane),
        cluster: Some(Arc::new(cluster)),
        nodes,
        template: Referenced::Found(Arc::new(template)),
        pools: Pools::default(),
        kubeconfig: Kubeconfig::Fresh,
        connection: Connection::Waiting { on: "an address".into() },
        workload_nodes: Vec::new(),
        now: now(),
        defects: Defects::none(),
    }
}

pub(super) fn annotated(mut observed: Observed, key: &str, text: &str) -> Observed {
    let control_plane = Arc::make_mut(&mut observed.control_plane);
    control_plane.metadata.annotations.get_or_insert_default().insert(key.to_owned(), text.to_owned());
    observed
}

pub(super) fn bootstrapped(mut observed: Observed) -> Observed {
    Arc::make_mut(&mut observed.control_plane).status = Some(TalosControlPlaneStatus { bootstrapped: Some(true), ..Default::default() });
    observed
}

pub(super) fn whole(count: u64) -> Vec<NodeView> {
    let members: Vec<EtcdMember> = (1..=count).map(|id| member(id, false)).collect();
    (1..=count).map(|id| held(node(id, lists(&members, true)))).collect()
}

pub(super) fn planned(name: &str) -> PlannedMachine {
    PlannedMachine { machine: name.into(), infrastructure: format!("i-{name}"), config: format!("t-{name}") }
}

fn bootstraps(plan: &Plan) -> Vec<&str> {
    let calls = plan.steps.iter().filter_map(|step| match step {
        Step::Bootstrap { machine, .. } => Some(machine.as_str()),
        _ => None,
    });
    calls.collect()
}

pub(super) fn deletions(plan: &Plan) -> Vec<&str> {
    let calls = plan.steps.iter().filter_map(|step| match step {
        Step::DeleteMachine(meta) => meta.name.as_deref(),
        _ => None,
    });
    calls.collect()
}

#[test]
fn the_machine_whose_address_is_the_endpoint_goes_last() {
    let mut nodes = whole(3);
    for (at, node) in nodes.iter_mut().enumerate() {
        node.address = Some(format!("10.0.0.{}", at + 1));
    }
    let mut observed = bootstrapped(world(1, nodes));
    let first = deletions(&plan(&observed))[0].to_owned();
    let at: usize = first.trim_start_matches('m').parse().unwrap();
    let cluster = Arc::make_mut(observed.cluster.as_mut().unwrap());
    cluster.spec.control_plane_endpoint.host = Some(format!("10.0.0.{at}"));
    let spared = plan(&observed);
    assert!(deletions(&spared).len() == 1 && deletions(&spared) != [first.as_str()], "{spared:?}");
}

#[test]
fn bring_up_names_all_machines_first_and_creates_them_all_at_once() {
    let first = plan(&world(3, Vec::new()));
    assert_eq!(first.steps, [Step::PlanMachines { count: 3, is_first: true }]);
    let names = [planned("a"), planned("b"), planned("c")];
    let mut observed = annotated(world(3, Vec::new()), PLANNED_MACHINES, &intent::planned_text(&names));
    observed = annotated(observed, BOOTSTRAP_NODE, "none");
    let second = plan(&observed);
    let created: Vec<Step> = names.iter().cloned().map(|planned| Step::CreateMachine { planned, failure_domain: None }).collect();
    assert_eq!(second.steps, created);
    assert_eq!(second.bootstrap, Bootstrap::WaitingForMachines);
}

#[test]
fn intents_that_are_done_or_too_many_are_dropped() {
    let names = [planned("m1"), planned("b"), planned("c")];
    let mut observed = annotated(world(2, vec![held(node(1, absent()))]), PLANNED_MACHINES, &intent::planned_text(&names));
    observed = annotated(observed, BOOTSTRAP_NODE, "none");
    let steps = plan(&observed).steps;
    assert_eq!(steps[0], Step::KeepPlanned(vec![planned("b")]));
    assert!(matches!(&steps[1], Step::CreateMachine { planned, .. } if planned.machine == "b"));
    let done = annotated(world(1, vec![held(node(1, absent()))]), PLANNED_MACHINES, &intent::planned_text(&names[..1]));
    assert_eq!(plan(&annotated(done, BOOTSTRAP_NODE, "none")).steps[0], Step::KeepPlanned(Vec::new()));
}

#[test]
fn nothing_is_made_before_what_it_stands_on() {
    let mut no_infrastructure = world(3, Vec::new());
    Arc::make_mut(no_infrastructure.cluster.as_mut().unwrap()).status = None;
    assert_eq!(plan(&no_infrastructure).missing.as_deref(), Some("the cluster's infrastructure"));
    let mut no_endpoint = world(3, Vec::new());
    Arc::make_mut(no_endpoint.cluster.as_mut().unwrap()).spec.control_plane_endpoint = ApiEndpoint::default();
    assert_eq!(plan(&no_endpoint).missing.as_deref(), Some("the cluster's control-plane endpoint"));
    let mut no_template = world(3, Vec::new());
    no_template.template = Referenced::Missing { kind: "VSphereMachineTemplate".into(), name: "t".into() };
    let decided = plan(&no_template);
    assert_eq!(decided.missing.as_deref(), Some("VSphereMachineTemplate t, which does not exist"));
    assert!(decided.steps.is_empty());
    let mut no_cluster = world(3, Vec::new());
    no_cluster.cluster = None;
    assert!(plan(&no_cluster).steps.is_empty());
    let mut paused = world(3, Vec::new());
    Arc::make_mut(paused.cluster.as_mut().unwrap()).spec.paused = Some(true);
    assert_eq!(plan(&paused), Plan { is_paused: true, ..Plan::default() });
}

#[test]
fn the_first_node_that_answers_is_recorded_and_then_bootstrapped() {
    let nodes = vec![held(node(1, away(1))), held(node(2, absent())), held(node(3, absent()))];
    let decided = plan(&annotated(world(3, nodes), BOOTSTRAP_NODE, "none"));
    let choice = Choice::Node { machine: "m2".into(), address: "10.0.0.2".into(), since: Some(now()) };
    assert_eq!(decided.steps, [Step::RecordBootstrap(choice), Step::Bootstrap { machine: "m2".into(), address: "10.0.0.2".into() }]);
}

#[test]
fn a_recorded_node_is_the_only_one_ever_asked() {
    let recorded = |nodes| annotated(world(3, nodes), BOOTSTRAP_NODE, "m1 10.0.0.1 2026-01-01T00:00:00Z");
    let unreachable = plan(&recorded(vec![held(node(1, away(1))), held(node(2, absent())), held(node(3, absent()))]));
    assert!(bootstraps(&unreachable).is_empty());
    assert!(matches!(&unreachable.bootstrap, Bootstrap::Waiting { on } if on.contains("m1") && on.contains("does not answer")));
    let again = plan(&recorded(vec![held(node(1, absent())), held(node(2, absent()))]));
    assert_eq!(bootstraps(&again), ["m1"], "the same node may be asked again");
    let silent = Answer::Answers { etcd: Etcd::Silent { reason: "starting".into() }, unhealthy: Vec::new() };
    assert!(bootstraps(&plan(&recorded(vec![held(node(1, silent)), held(node(2, absent()))]))).is_empty());
    let gone = plan(&recorded(vec![held(node(2, absent())), held(node(3, absent()))]));
    assert!(bootstraps(&gone).is_empty());
    assert!(matches!(&gone.bootstrap, Bootstrap::Blocked { reason } if reason.contains(BOOTSTRAP_NODE)), "{:?}", gone.bootstrap);
    let living = plan(&recorded(whole(3)));
    assert_eq!(living.bootstrap, Bootstrap::Done);
    assert!(living.is_settled(), "{living:?}");
}

#[test]
fn machines_of_unknown_origin_must_all_say_that_they_have_no_etcd() {
    let some = plan(&world(2, vec![held(node(1, absent())), held(node(2, away(2)))]));
    assert!(bootstraps(&some).is_empty());
    assert!(matches!(&some.bootstrap, Bootstrap::Waiting { on } if on.contains("m2")));
    let all = plan(&world(2, vec![held(node(1, absent())), held(node(2, absent()))]));
    assert_eq!(bootstraps(&all), ["m1"]);
    let silent = Answer::Answers { etcd: Etcd::Silent { reason: "no quorum".into() }, unhealthy: Vec::new() };
    let running = plan(&world(2, vec![held(node(1, absent())), held(node(2, silent))]));
    assert!(bootstraps(&running).is_empty(), "an etcd that runs has been bootstrapped");
    let going = plan(&world(2, vec![held(node(1, absent())), deleting(node(2, away(2)))]));
    assert!(bootstraps(&going).is_empty(), "nor is one that may run on a machine on its way out passed over");
}

#[test]
fn an_etcd_that_does_not_run_is_not_an_etcd_that_is_not_there() {
    let recorded = |nodes| annotated(world(2, nodes), BOOTSTRAP_NODE, "m1 10.0.0.1");
    for state in ["Starting", "Stopping", "Failed", "Finished", "Waiting", "not there yet"] {
        let told = plan(&recorded(vec![held(node(1, unclear(state))), held(node(2, absent()))]));
        assert!(bootstraps(&told).is_empty(), "{state}");
        assert!(matches!(&told.bootstrap, Bootstrap::Waiting { on } if on.contains("m1") && on.contains(state)), "{:?}", told.bootstrap);
        let unknown = plan(&world(2, vec![held(node(1, unclear(state))), held(node(2, absent()))]));
        assert!(bootstraps(&unknown).is_empty(), "{state}");
        let going = plan(&recorded(vec![deleting(node(1, unclear(state))), held(node(2, away(2)))]));
        assert!(!going.steps.contains(&Step::Release { machine: "m1".into() }), "{state}");
    }
    let unborn = plan(&annotated(world(2, vec![held(node(1, unclear("Waiting"))), held(node(2, absent()))]), BOOTSTRAP_NODE, "none"));
    assert_eq!(bootstraps(&unborn), ["m2"], "where nobody was ever asked, one that boots need not be waited for");
}

#[test]
fn the_planted_defect_asks_a_second_node() {
    let members = [member(1, false)];
    let mut observed = world(2, vec![held(node(1, lists(&members, true))), held(node(2, absent()))]);
    assert!(bootstraps(&plan(&observed)).is_empty());
    observed.defects = Defects::planted([Defect::BootstrapTwice]);
    assert_eq!(bootstraps(&plan(&observed)), ["m2"]);
}

#[test]
fn a_running_control_plane_grows_by_one_and_only_when_whole() {
    let grown = plan(&bootstrapped(world(5, whole(3))));
    assert_eq!(grown.steps, [Step::PlanMachines { count: 1, is_first: false }]);
    let members = [member(1, false), member(2, false), member(3, true)];
    let learning: Vec<NodeView> = (1..=3).map(|id| held(node(id, lists(&members, true)))).collect();
    let held_up = plan(&bootstrapped(world(5, learning)));
    assert!(held_up.steps.is_empty());
    assert!(
        matches!(&held_up.resizing, Resizing::Up { wait: Some(on) } if on.contains("member m3 to be promoted: learner")),
        "{:?}",
        held_up.resizing
    );
    let names = [planned("a"), planned("b")];
    let two = annotated(bootstrapped(world(5, whole(3))), PLANNED_MACHINES, &intent::planned_text(&names));
    let created = plan(&two).steps.iter().filter(|step| matches!(step, Step::CreateMachine { .. })).count();
    assert_eq!(created, 1, "one learner at a time, however many are planned");
    let mut nodes = whole(3);
    nodes[2] = deleting(nodes[2].clone());
    assert!(matches!(plan(&bootstrapped(world(5, nodes))).resizing, Resizing::Up { wait: Some(_) }));
}

#[test]
fn it_shrinks_by_one_the_marked_before_the_oldest() {
    let mut nodes = whole(5);
    for (index, node) in nodes.iter_mut().enumerate() {
        let age = jiff::SignedDuration::from_hours(10 - i64::try_from(index).unwrap());
        Arc::make_mut(&mut node.machine).metadata.creation_timestamp = Some(Time(now() - age));
    }
    assert_eq!(deletions(&plan(&bootstrapped(world(3, nodes.clone())))), ["m1"]);
    let marked = Arc::make_mut(&mut nodes[3].machine);
    marked.metadata.annotations.as_mut().unwrap().insert(annotations::DELETE_MACHINE.to_owned(), String::new());
    assert_eq!(deletions(&plan(&bootstrapped(world(3, nodes.clone())))), ["m4"]);
    nodes[3] = deleting(nodes[3].clone());
    assert!(deletions(&plan(&bootstrapped(world(3, nodes)))).is_empty(), "one at a time");
    assert_eq!(plan(&bootstrapped(world(0, whole(1)))).resizing, Resizing::Refused);
    assert_eq!(plan(&bootstrapped(world(-1, whole(1)))).resizing, Resizing::Refused);
}

#[test]
fn a_removal_that_would_break_quorum_is_refused_in_words() {
    let members: Vec<EtcdMember> = (1..=3).map(|id| member(id, false)).collect();
    let nodes = vec![held(node(1, lists(&members, true))), held(node(2, lists(&members, true))), held(node(3, away(3)))];
    let decided = plan(&bootstrapped(world(2, nodes.clone())));
    assert_eq!(deletions(&decided), ["m3"], "the one that is away goes, not a healthy one");
    let two = [member(1, false), member(2, false)];
    let nodes = vec![held(node(1, lists(&two, true))), deleting(node(2, lists(&two, true)))];
    let leaving = plan(&bootstrapped(world(1, nodes)));
    assert!(leaving.steps.iter().any(|step| matches!(step, Step::EtcdLeave { machine, .. } if machine == "m2")));
    let one = [member(1, false)];
    let last = plan(&bootstrapped(world(1, vec![deleting(node(1, lists(&one, true)))])));
    assert!(!last.steps.iter().any(|step| matches!(step, Step::EtcdLeave { .. } | Step::Release { .. })));
    assert!(last.leaving.unwrap().contains("last voting member"));
    let nodes = vec![deleting(node(1, lists(&members, true))), held(node(2, lists(&members, true))), held(node(3, away(3)))];
    let refused = plan(&bootstrapped(world(3, nodes)));
    assert!(refused.leaving.as_ref().unwrap().contains("2 voters of which 1 are healthy, and needs 2"), "{:?}", refused.leaving);
}

#[test]
fn a_member_leaves_before_its_vm_goes() {
    let members: Vec<EtcdMember> = (1..=3).map(|id| member(id, false)).collect();
    let with = |third: NodeView, members: &[EtcdMember]| {
        bootstrapped(world(3, vec![held(node(1, lists(members, true))), held(node(2, lists(members, true))), third]))
    };
    let alive = plan(&with(deleting(node(3, lists(&members, true))), &members));
    let (machine, address) = ("m3".to_owned(), "10.0.0.3".to_owned());
    let expected = [
        Step::MarkLeaving { machine: machine.clone() },
        Step::MoveLeadership { machine: machine.clone(), address: address.clone() },
        Step::EtcdLeave { machine, address },
    ];
    assert_eq!(alive.steps, expected);
    let dead = plan(&with(deleting(node(3, away(3))), &members));
    assert_eq!(dead.steps, [Step::EtcdRemove { machine: "m3".into(), id: MemberId(3), via: "10.0.0.1".into() }]);
    let left = plan(&with(deleting(node(3, absent())), &members[..2]));
    assert_eq!(left.steps, [Step::Release { machine: "m3".into() }]);
    let stale = plan(&with(deleting(node(3, lists(&members, true))), &members[..2]));
    assert_eq!(stale.steps, [Step::Release { machine: "m3".into() }], "the others' word counts");
}

#[test]
fn a_member_that_nobody_knows_may_be_the_leaving_machines_own() {
    // The third machine has another address and another name than its member.
    let members: Vec<EtcdMember> = (1..=3).map(|id| EtcdMember { hostname: format!("host-{id}"), ..member(id, false) }).collect();
    let moved = |view: NodeView| NodeView { address: Some("10.9.9.3".into()), ..view };
    let with = |third: NodeView, members: &[EtcdMember]| {
        plan(&bootstrapped(world(3, vec![held(node(1, lists(members, true))), held(node(2, lists(members, true))), third])))
    };
    for answer in [away(3), unclear("Starting"), Answer::NotAsked] {
        let stranger = with(unrecorded(moved(deleting(node(3, answer)))), &members);
        assert!(stranger.steps.is_empty(), "{:?}", stranger.steps);
        assert!(stranger.leaving.unwrap().contains("has no Machine and may be its own"));
    }
    let known = with(moved(deleting(node(3, away(3)))), &members);
    assert_eq!(known.steps, [Step::EtcdRemove { machine: "m3".into(), id: MemberId(3), via: "10.0.0.1".into() }], "by its number");
    let gone = with(moved(deleting(node(3, away(3)))), &[members[0].clone(), members[1].clone(), member(7, false)]);
    assert_eq!(gone.steps, [Step::Release { machine: "m3".into() }], "its own has gone, whosever the stranger is");
    let never = with(unrecorded(moved(deleting(node(3, away(3))))), &members[..2]);
    assert_eq!(never.steps, [Step::Release { machine: "m3".into() }], "every member is another Machine's");
    let first = plan(&bootstrapped(world(1, vec![unrecorded(held(node(1, lists(&members[..1], true))))])));
    assert_eq!(first.steps, [Step::RecordMember { machine: "m1".into(), id: MemberId(1) }]);
}

#[test]
fn a_member_stays_until_its_node_is_drained_unless_nobody_hears_from_it() {
    let members: Vec<EtcdMember> = (1..=3).map(|id| member(id, false)).collect();
    let answers = || lists(&members, true);
    let three = |third: NodeView| bootstrapped(world(2, vec![held(node(1, answers())), held(node(2, answers())), third]));
    let base = three(draining(node(3, answers())));
    let leaves =
        |observed: &Observed| plan(observed).steps.iter().any(|step| matches!(step, Step::EtcdLeave { .. } | Step::EtcdRemove { .. }));
    assert!(!leaves(&base));
    assert_eq!(plan(&base).leaving.as_deref(), Some("m3 leaves etcd when its node is drained"));
    assert!(leaves(&three(deleting(node(3, answers())))), "it is drained");
    assert!(leaves(&Observed { defects: Defects::planted([Defect::LeaveUndrained]), ..base.clone() }));
    // One that others hold as well tells by its condition how far it is.
    let mut held = draining(node(3, answers()));
    let hook = api::conditions::new("Deleting", true, "WaitingForPreTerminateHook", "");
    let mut status = MachineStatus::default();
    api::conditions::set(&mut status.conditions, hook, None, now());
    Arc::make_mut(&mut held.machine).status = Some(status);
    assert!(leaves(&three(held)));

    // Its own answer is lost: it is waited for while its cluster hears from it.
    let silent = three(draining(node(3, away(3))));
    assert!(leaves(&silent), "nobody hears from it");
    let mut heard = silent;
    let third = Arc::make_mut(&mut heard.nodes[2].machine);
    third.status.get_or_insert_default().node_ref = Some(api::meta::NameReference { name: "m3".into() });
    heard.connection = Connection::Connected { since: now() };
    let of_cluster = |ready: &str| {
        let node = serde_json::json!({"metadata": {"name": "m3"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        Arc::new(serde_json::from_value(node).unwrap())
    };
    heard.workload_nodes = vec![of_cluster("True")];
    assert!(!leaves(&heard));
    heard.workload_nodes = vec![of_cluster("Unknown")];
    assert!(leaves(&heard));
}

#[test]
fn the_dead_leave_before_the_living_and_are_told_until_then() {
    let members: Vec<EtcdMember> = (1..=3).map(|id| member(id, false)).collect();
    let nodes = vec![deleting(node(1, lists(&members, true))), deleting(node(2, away(2))), held(node(3, lists(&members, true)))];
    let decided = plan(&bootstrapped(world(3, nodes)));
    assert!(decided.etcd_faults.iter().any(|fault| fault.contains("m2")), "{:?}", decided.etcd_faults);
    assert_eq!(decided.steps, [Step::EtcdRemove { machine: "m2".into(), id: MemberId(2), via: "10.0.0.1".into() }]);
}

#[test]
fn the_last_voter_is_replaced_before_it_goes() {
    let one = [member(1, false)];
    let last = |address: &str| {
        let view = NodeView { address: Some(address.into()), ..deleting(node(1, lists(&one, true))) };
        let mut observed = bootstrapped(world(1, vec![view]));
        Arc::make_mut(observed.cluster.as_mut().unwrap()).spec.control_plane_endpoint.host = Some("10.0.0.5".into());
        plan(&observed)
    };
    assert_eq!(last("10.0.0.1").steps, [Step::PlanMachines { count: 1, is_first: false }]);
    let with_endpoint = last("10.0.0.5");
    assert!(with_endpoint.steps.is_empty());
    assert!(matches!(&with_endpoint.resizing, Resizing::Up { wait: Some(on) } if on.contains("the cluster's endpoint")));
}

#[test]
fn counts_tell_who_goes() {
    let mut nodes = whole(3);
    nodes[0] = deleting(nodes[0].clone());
    nodes[1] = deleting(nodes[1].clone());
    let observed = bootstrapped(world(3, nodes));
    let told = status(&observed, &plan(&observed), &Acted::default());
    let resized = api::conditions::get_legacy(&told.conditions, "Resized").unwrap().message.clone().unwrap();
    assert!(
        resized.starts_with("Scaling up control plane to 3 replicas (actual 1, and 2 being deleted); waiting for m1 to be gone"),
        "{resized}"
    );
}

/// Machines that do what steps say.
struct Model {
    wanted: i32,
    machines: BTreeMap<u64, Modelled>,
    planned: Vec<PlannedMachine>,
    next: u64,
}

#[derive(Clone, Debug, Default)]
struct Modelled {
    is_dead: bool,
    is_going: bool,
    has_left: bool,
    /// Whether its member learns.
    member: Option<bool>,
}

impl Model {
    fn observed(&self) -> Observed {
        let members: Vec<EtcdMember> = self.machines.iter().filter_map(|(id, one)| Some(member(*id, one.member?))).collect();
        let nodes = self.machines.iter().map(|(id, one)| {
            let answer = match one.member {
                _ if one.is_dead => away(*id),
                Some(_) => lists(&members, true),
                None if one.has_left => unclear("Finished"),
                None => absent(),
            };
            let view = held(node(*id, answer));
            if one.is_going { deleting(view) } else { view }
        });
        let observed = bootstrapped(world(self.wanted, nodes.collect()));
        if self.planned.is_empty() { observed } else { annotated(observed, PLANNED_MACHINES, &intent::planned_text(&self.planned)) }
    }

    fn of(&mut self, name: &str) -> &mut Modelled {
        self.machines.entry(name.trim_start_matches('m').parse().unwrap()).or_default()
    }

    fn has_quorum(&self) -> bool {
        let voters = || self.machines.values().filter(|one| one.member == Some(false));
        voters().filter(|one| !one.is_dead).count() >= quorum(voters().count())
    }

    /// One pass and what comes of it. Whether anything happened.
    fn step(&mut self) -> bool {
        let steps = plan(&self.observed()).steps;
        for step in &steps {
            match step {
                Step::PlanMachines { count, .. } => {
                    for _ in 0..*count {
                        self.planned.push(planned(&format!("m{}", self.next)));
                        self.next += 1;
                    }
                }
                Step::KeepPlanned(kept) => self.planned.clone_from(kept),
                Step::CreateMachine { planned, .. } => drop(self.of(&planned.machine)),
                Step::DeleteMachine(meta) => self.of(meta.name.as_deref().unwrap()).is_going = true,
                Step::EtcdLeave { machine, .. } | Step::EtcdRemove { machine, .. } => {
                    let one = self.of(machine);
                    (one.member, one.has_left) = (None, true);
                    assert!(self.has_quorum());
                }
                Step::Release { machine } => {
                    assert_eq!(self.of(machine).member, None, "a member leaves before its VM goes");
                    self.machines.remove(&machine[1..].parse().unwrap());
                }
                _ => {}
            }
        }
        let learns = self.machines.values().any(|one| one.member == Some(true));
        let mut has_joined = false;
        for one in self.machines.values_mut().filter(|one| !one.is_dead && !one.has_left) {
            match one.member {
                Some(true) => (one.member, has_joined) = (Some(false), true),
                None if !learns && !has_joined && !one.is_going => (one.member, has_joined) = (Some(true), true),
                _ => {}
            }
        }
        !steps.is_empty() || has_joined
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever is deleted, all of it at once included: while etcd has its quorum, and who is dead is deleted, it ends.
    #[test]
    fn deletions_end(count in 1usize..=5, wanted in 1i32..=5, dead in proptest::sample::subsequence(vec![1u64, 2, 3, 4, 5], 0..=2),
            going in proptest::sample::subsequence(vec![1u64, 2, 3, 4, 5], 0..=5)) {
        let ids = 1..=u64::try_from(count).unwrap();
        let most_dead = count - quorum(count);
        let dead: Vec<u64> = dead.into_iter().filter(|id| ids.contains(id)).take(most_dead).collect();
        let machine = |id: u64| Modelled {
            is_dead: dead.contains(&id),
            is_going: dead.contains(&id) || going.contains(&id),
            has_left: false,
            member: Some(false),
        };
        let mut model = Model { wanted, machines: ids.clone().map(|id| (id, machine(id))).collect(), planned: Vec::new(), next: 10 };
        let mut rounds = 0;
        while model.step() {
            rounds += 1;
            prop_assert!(rounds < 100, "it goes round in circles: {:?}", model.machines);
        }
        let stands = format!("{:?} {:?}", model.machines, plan(&model.observed()));
        prop_assert!(model.machines.values().all(|one| !one.is_going && one.member == Some(false)), "{stands}");
        prop_assert_eq!(model.machines.len(), usize::try_from(wanted).unwrap(), "{}", stands);
    }
}

#[test]
fn before_etcd_lives_a_machine_may_go_unless_it_may_hold_the_only_one() {
    let recorded = |nodes| annotated(world(2, nodes), BOOTSTRAP_NODE, "m1 10.0.0.1");
    let other = plan(&recorded(vec![held(node(1, away(1))), deleting(node(2, away(2)))]));
    assert!(!other.steps.contains(&Step::Release { machine: "m2".into() }), "it may have joined what began on the first");
    let free = plan(&recorded(vec![held(node(1, absent())), deleting(node(2, away(2)))]));
    assert!(free.steps.contains(&Step::Release { machine: "m2".into() }), "nothing has begun on the first");
    let unborn = plan(&annotated(world(1, vec![deleting(node(1, away(1)))]), BOOTSTRAP_NODE, "none"));
    assert!(unborn.steps.contains(&Step::Release { machine: "m1".into() }), "nobody was ever asked");
    let begun = says(Etcd::Silent { reason: "r".into() });
    let holder = plan(&recorded(vec![deleting(node(1, begun)), held(node(2, absent()))]));
    assert!(!holder.steps.contains(&Step::Release { machine: "m1".into() }), "it surely holds the only one");
    let unsure = plan(&recorded(vec![deleting(node(1, away(1))), held(node(2, away(2)))]));
    assert!(!unsure.steps.contains(&Step::Release { machine: "m1".into() }));
    assert!(unsure.leaving.is_some());
    let says_no = plan(&recorded(vec![deleting(node(1, absent())), held(node(2, away(2)))]));
    let expected = [Step::RecordBootstrap(Choice::Unborn), Step::Release { machine: "m1".into() }];
    assert!(says_no.steps.ends_with(&expected), "{:?}", says_no.steps);
    assert!(bootstraps(&says_no).is_empty());
}

#[test]
fn the_whole_goes_without_care_for_etcd() {
    let mut observed = bootstrapped(world(3, whole(3)));
    Arc::make_mut(&mut observed.control_plane).metadata.deletion_timestamp = Some(Time(now()));
    let decided = plan(&observed);
    assert_eq!(deletions(&decided), ["m1", "m2", "m3"]);
    assert_eq!(decided.steps.iter().filter(|step| matches!(step, Step::Release { .. })).count(), 3);
    assert!(!decided.steps.iter().any(|step| matches!(step, Step::EtcdLeave { .. } | Step::EtcdRemove { .. })));
    observed.nodes.clear();
    assert_eq!(plan(&observed).steps, [Step::RemoveFinalizer]);
    let mut cluster_goes = bootstrapped(world(3, whole(3)));
    Arc::make_mut(cluster_goes.cluster.as_mut().unwrap()).metadata.deletion_timestamp = Some(Time(now()));
    let decided = plan(&cluster_goes);
    assert!(decided.steps.iter().all(|step| matches!(step, Step::Release { .. })), "{:?}", decided.steps);
}

#[test]
fn parts_are_made_once_and_never_for_a_machine_that_had_them() {
    let mut observed = world(1, vec![held(node(1, Answer::NotAsked))]);
    let missing = || Parts { config: None, infrastructure: Referenced::Missing { kind: "VSphereMachine".into(), name: "i".into() } };
    observed.parts.insert("m1".into(), missing());
    let steps = plan(&observed).steps;
    assert_eq!(steps, [Step::CreateConfig { machine: "m1".into() }, Step::CreateInfrastructure { machine: "m1".into() }]);
    let machine: &mut Machine = Arc::make_mut(&mut observed.nodes[0].machine);
    machine.spec.bootstrap.data_secret_name = Some("s".into());
    machine.spec.provider_id = Some("vsphere://x".into());
    assert!(plan(&observed).steps.is_empty());
}

#[test]
fn counts_never_leave_their_range_and_waits_are_told() {
    let second = NodeView { address: None, ..held(node(2, Answer::NotAsked)) };
    let observed = annotated(world(3, vec![held(node(1, away(1))), second]), BOOTSTRAP_NODE, "none");
    let decided = plan(&observed);
    let told = status(&observed, &decided, &Acted::default());
    assert_eq!((told.replicas, told.ready_replicas, told.unavailable_replicas), (Some(2), None, Some(2)));
    let text = |type_: &str| api::conditions::get_legacy(&told.conditions, type_).unwrap().message.clone().unwrap_or_default();
    assert!(text("MachinesBootstrapped").starts_with("waiting for a node to answer since 12:00:00 (limit 12:20:00): 10.0.0.1 does not"));
    assert_eq!(text("Resized"), "Scaling up control plane to 3 replicas (actual 2)", "none goes");
    assert!(text("EtcdClusterHealthyCondition").contains("m2 has no address yet"));
    let again = Observed {
        control_plane: Arc::new(TalosControlPlane { status: Some(told.clone()), ..(*observed.control_plane).clone() }),
        ..observed
    };
    assert_eq!(status(&again, &decided, &Acted::default()), told, "the same state is told in the same words");
}

fn any_answer(id: u64, members: Vec<EtcdMember>) -> impl Strategy<Value = Answer> {
    let silent = Answer::Answers { etcd: Etcd::Silent { reason: "r".into() }, unhealthy: Vec::new() };
    let other = [Answer::NotAsked, away(id), absent(), unclear("Starting"), silent];
    prop_oneof![proptest::sample::select(other.to_vec()), any::<bool>().prop_map(move |h| lists(&members, h))]
}

fn any_world() -> impl Strategy<Value = Observed> {
    (1usize..6, proptest::collection::vec(any::<bool>(), 6), -1i32..7, 0u8..4, any::<bool>()).prop_flat_map(
        |(count, learners, wanted, choice, told)| {
            let count = u64::try_from(count).unwrap();
            let named = |id, is_learner| EtcdMember { hostname: format!("host-{id}"), ..member(id, is_learner) };
            let members: Vec<EtcdMember> = (1..=count).zip(learners).map(|(id, is_learner)| named(id, is_learner)).collect();
            let nodes: Vec<_> = (1..=count)
                .map(|id| {
                    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
                    (any_answer(id, members.clone()), flags).prop_map(move |(answer, (is_going, is_held, is_recorded, is_moved))| {
                        let view = node(id, answer);
                        let view = match (is_going, is_held) {
                            (true, _) => deleting(view),
                            (false, true) => held(view),
                            (false, false) => return view,
                        };
                        let view = if is_recorded { view } else { unrecorded(view) };
                        // It has neither the address nor the name of its member any more.
                        let address = if is_moved { Some(format!("10.9.9.{id}")) } else { view.address.clone() };
                        NodeView { address, ..view }
                    })
                })
                .collect();
            nodes.prop_map(move |nodes| {
                let observed = world(wanted, nodes);
                let observed = if told { bootstrapped(observed) } else { observed };
                match choice {
                    0 => observed,
                    1 => annotated(observed, BOOTSTRAP_NODE, "none"),
                    2 => annotated(observed, BOOTSTRAP_NODE, "m1 10.0.0.1"),
                    _ => annotated(observed, BOOTSTRAP_NODE, "gone 10.0.0.99"),
                }
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Safety rules 1 and 2 on every state of up to five nodes.
    #[test]
    fn no_state_leads_to_a_second_etcd_or_to_a_lost_quorum(observed in any_world()) {
        let decided = plan(&observed);
        let calls = bootstraps(&decided);
        prop_assert!(calls.len() <= 1);
        if let Some(machine) = calls.first() {
            prop_assert!(!observed.is_bootstrapped());
            let recorded = decided.steps.iter().find_map(|step| match step {
                Step::RecordBootstrap(Choice::Node { machine, .. }) => Some(machine.clone()),
                _ => None,
            });
            match intent::choice(&observed.control_plane) {
                Choice::Node { machine: known, .. } => prop_assert_eq!(&known, machine),
                _ => prop_assert_eq!(recorded.as_deref(), Some(*machine), "recorded before it is called"),
            }
        }
        // Every machine of these worlds is a member. So none may be let go but one that says itself that it has no etcd, or where none
        // can have begun.
        let is_listed = observed.nodes.iter().any(|node| node.members().is_some());
        let chosen = intent::choice(&observed.control_plane);
        for step in &decided.steps {
            let Step::Release { machine } = step else { continue };
            let own = observed.nodes.iter().find(|node| node.name() == machine).unwrap();
            let is_unborn = !observed.is_bootstrapped() && !own.has_etcd() && (chosen == Choice::Unborn
                || observed.nodes.iter().any(|node| node.name() != machine && node.has_no_etcd()));
            prop_assert!(own.has_no_etcd() || (is_unborn && !is_listed), "{machine} goes with its member: {:?}", observed.nodes);
        }
        let removals = decided.steps.iter().filter(|step| matches!(step, Step::EtcdLeave { .. } | Step::EtcdRemove { .. })).count();
        prop_assert!(removals + deletions(&decided).len() <= 1, "one at a time");
        for step in &decided.steps {
            let members: Vec<EtcdMember> = observed.nodes.iter().find_map(|node| node.members().map(<[EtcdMember]>::to_vec)).unwrap_or_default();
            let own = match step {
                Step::EtcdLeave { machine, .. } => {
                    observed.nodes.iter().find(|node| node.name() == machine).unwrap().member(&members).unwrap().clone()
                }
                Step::EtcdRemove { id, .. } => members.iter().find(|member| member.id == *id).unwrap().clone(),
                _ => continue,
            };
            let left: Vec<&EtcdMember> = members.iter().filter(|member| !member.is_learner && member.id != own.id).collect();
            let voter = |node: &NodeView| node.member(&members).filter(|member| !member.is_learner).map(|member| member.id);
            let healthy = observed.nodes.iter().filter(|node| node.is_etcd_healthy()).filter_map(voter).filter(|id| *id != own.id).count();
            prop_assert!(own.is_learner || healthy >= quorum(left.len()), "{} of {}", healthy, left.len());
        }
        // Whoever is told to go on must be able to tell why it does not.
        let told = status(&observed, &decided, &Acted::default());
        prop_assert!(told.replicas.unwrap_or(0) >= told.ready_replicas.unwrap_or(0));
        prop_assert!(told.unavailable_replicas.unwrap_or(0) >= 0);
    }
}
