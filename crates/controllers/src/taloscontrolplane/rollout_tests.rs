//! Machines that are replaced by ones of another specification: each branch, and a model in which a rollout must end.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::cluster::MachineStatus;
use api::conditions;
use api::controlplane::{ControlPlaneRollingUpdate, ControlPlaneRolloutStrategy};
use api::meta::{IntOrString, NameReference};
use api::names::annotations;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus};
use proptest::prelude::*;
use talos::client::{EtcdMember, EtcdStatus, MemberId};

use super::etcd::tests::{away, lists, member, node};
use super::etcd::{Answer, Etcd, NodeView, quorum};
use super::intent::{self, PLANNED_MACHINES, PlannedMachine};
use super::plan::{Observed, Plan, Resizing, Rolling, Step, plan};
use super::status::{Acted, status};
use super::tests::{absent, annotated, bootstrapped, deleting, deletions, held, now, planned, whole, world};
use crate::remediation;
use crate::workload::Connection;

const OLD: &str = "v1.25.5";
const NEW: &str = "v1.26.0";

/// With a Node of its own, ready or not, and of this version.
fn running(mut view: NodeView, version: &str) -> NodeView {
    let name = view.name().to_owned();
    let machine = Arc::make_mut(&mut view.machine);
    machine.spec.version = Some(version.to_owned());
    let status = machine.status.get_or_insert_with(MachineStatus::default);
    status.node_ref = Some(NameReference { name });
    view
}

fn workload_node(name: &str, is_ready: bool) -> Arc<Node> {
    let ready = NodeCondition { type_: "Ready".into(), status: if is_ready { "True" } else { "False" }.into(), ..NodeCondition::default() };
    let mut node = Node { status: Some(NodeStatus { conditions: Some(vec![ready]), ..NodeStatus::default() }), ..Node::default() };
    node.metadata.name = Some(name.to_owned());
    Arc::new(node)
}

/// A living control plane of the new version whose API answers, with a ready Node for each machine.
fn living(replicas: i32, nodes: Vec<NodeView>) -> Observed {
    let mut observed = bootstrapped(world(replicas, nodes));
    Arc::make_mut(&mut observed.control_plane).spec.version = NEW.into();
    observed.connection = Connection::Connected { since: now() };
    observed.workload_nodes = observed.nodes.iter().map(|view| workload_node(view.name(), true)).collect();
    observed
}

/// Machines of the old version, whole.
fn old(count: u64) -> Vec<NodeView> {
    whole(count).into_iter().map(|view| running(view, OLD)).collect()
}

fn with_strategy(mut observed: Observed, type_: &str, surge: i32) -> Observed {
    let update = ControlPlaneRollingUpdate { max_surge: Some(IntOrString::Int(surge)) };
    let strategy = ControlPlaneRolloutStrategy { rolling_update: Some(update), type_: Some(type_.to_owned()) };
    Arc::make_mut(&mut observed.control_plane).spec.rollout_strategy = Some(strategy);
    observed
}

fn leads(mut observed: Observed, leader: u64) -> Observed {
    for (view, id) in observed.nodes.iter_mut().zip(1u64..) {
        view.status = Some(EtcdStatus { member_id: Some(MemberId(id)), leader: Some(MemberId(leader)), ..EtcdStatus::default() });
    }
    observed
}

fn told(observed: &Observed, decided: &Plan) -> String {
    let status = status(observed, decided, &Acted::default());
    let condition = api::conditions::get_legacy(&status.conditions, "MachinesSpecUpToDate").unwrap();
    format!("{}: {}", condition.reason.clone().unwrap_or_default(), condition.message.clone().unwrap_or_default())
}

fn held_by(decided: &Plan) -> &str {
    match &decided.rolling {
        Rolling::UnderWay { wait: Some(wait), .. } => wait,
        other => panic!("nothing holds it: {other:?}"),
    }
}

#[test]
fn one_more_is_made_before_one_goes() {
    let observed = living(3, old(3));
    let decided = plan(&observed);
    assert_eq!(decided.outdated, ["m1", "m2", "m3"]);
    assert_eq!(decided.steps, [Step::PlanMachines { count: 1, is_first: false }]);
    assert_eq!(decided.resizing, Resizing::No);
    assert!(!decided.is_settled());
    assert_eq!(
        told(&observed, &decided),
        "RollingUpdateInProgress: Rolling 3 replicas with outdated spec (0 replicas up to date): m1, m2, m3"
    );
    let named = annotated(observed, PLANNED_MACHINES, &intent::planned_text(&[planned("m4")]));
    assert!(matches!(plan(&named).steps[..], [Step::CreateMachine { .. }]));
    let mut nodes = old(4);
    nodes[3] = running(nodes[3].clone(), NEW);
    let decided = plan(&living(3, nodes.clone()));
    assert_eq!(deletions(&decided), ["m1"], "the fourth is there: one goes");
    nodes[0] = deleting(nodes[0].clone());
    let going = plan(&living(3, nodes));
    assert!(deletions(&going).is_empty() && held_by(&going) == "m1 to be gone", "{going:?}");
}

#[test]
fn the_leader_goes_last_and_the_marked_first() {
    let mut nodes = old(4);
    nodes[3] = running(nodes[3].clone(), NEW);
    assert_eq!(deletions(&plan(&leads(living(3, nodes.clone()), 1))), ["m2"]);
    let marked = Arc::make_mut(&mut nodes[2].machine);
    marked.metadata.annotations.as_mut().unwrap().insert(annotations::DELETE_MACHINE.to_owned(), String::new());
    assert_eq!(deletions(&plan(&leads(living(3, nodes.clone()), 1))), ["m3"]);
    assert_eq!(deletions(&plan(&leads(living(3, nodes), 3))), ["m3"], "what a person marks goes, leader or not");
    let last = [running(held(node(1, lists(&[member(1, false), member(2, false)], true))), OLD), running(whole(2)[1].clone(), NEW)];
    assert_eq!(deletions(&plan(&leads(living(1, last.to_vec()), 1))), ["m1"], "in the end the leader as well");
}

#[test]
fn the_fullest_failure_domain_gives_first() {
    let mut nodes = old(4);
    nodes[3] = running(nodes[3].clone(), NEW);
    for (view, domain) in nodes.iter_mut().zip(["a", "b", "b", "c"]) {
        Arc::make_mut(&mut view.machine).spec.failure_domain = Some(domain.to_owned());
    }
    assert_eq!(deletions(&plan(&living(3, nodes))), ["m2"]);
}

#[test]
fn a_joiner_is_waited_for_with_how_far_it_is_behind() {
    const MIB: i64 = 1024 * 1024;
    let members = [member(1, false), member(2, false), member(3, false), member(4, true)];
    let nodes: Vec<NodeView> = (1..=4).map(|id| running(held(node(id, lists(&members, true))), if id == 4 { NEW } else { OLD })).collect();
    let mut observed = leads(living(3, nodes), 1);
    for (view, bytes) in observed.nodes.iter_mut().zip([50 * MIB, 50 * MIB, 50 * MIB, 9 * MIB]) {
        view.status.as_mut().unwrap().database_bytes = bytes;
    }
    let decided = plan(&observed);
    assert!(decided.steps.is_empty(), "{:?}", decided.steps);
    let words = told(&observed, &decided);
    assert!(words.ends_with("(1 replicas up to date): m1, m2, m3; waiting for member m4 to be promoted since 12:00:00 (limit 12:20:00): learner, 41 MiB behind"), "{words}");
    observed.nodes[3].status.as_mut().unwrap().database_bytes = 50 * MIB;
    observed.nodes[0].status.as_mut().unwrap().raft_applied_index = 17;
    assert!(held_by(&plan(&observed)).ends_with("learner, 17 entries behind"));
    observed.nodes[3].status = None;
    assert!(held_by(&plan(&observed)).ends_with("to be promoted: learner"));
}

#[test]
fn a_new_one_must_be_as_well_as_those_it_stands_in_for() {
    let mut nodes = old(4);
    nodes[3] = running(nodes[3].clone(), NEW);
    let observed = living(3, nodes);
    let change = |work: &dyn Fn(&mut Observed)| {
        let mut observed = observed.clone();
        work(&mut observed);
        let decided = plan(&observed);
        assert!(deletions(&decided).is_empty(), "{decided:?}");
        held_by(&decided).to_owned()
    };
    assert_eq!(change(&|observed| drop(observed.workload_nodes.pop())), "the Node of m4 to be there");
    assert_eq!(change(&|observed| observed.workload_nodes[3] = workload_node("m4", false)), "the Node of m4 to be ready");
    assert!(change(&|observed| observed.connection = Connection::Waiting { on: "x".into() }).starts_with("the cluster's API to answer"));
    let unwell = change(&|observed| {
        let Answer::Answers { unhealthy, .. } = &mut observed.nodes[3].answer else { panic!() };
        unhealthy.push("service kubelet is unhealthy".to_owned());
    });
    assert_eq!(unwell, "m4 to be well: service kubelet is unhealthy");
    // Without a network plugin no Node is ready, and none will be.
    let mut bare = observed;
    bare.workload_nodes = (1..=4).map(|id| workload_node(&format!("m{id}"), false)).collect();
    assert_eq!(deletions(&plan(&bare)), ["m1"]);
}

#[test]
fn what_is_broken_and_outdated_goes_first_without_waiting_for_another() {
    let members: Vec<EtcdMember> = (1..=3).map(|id| member(id, false)).collect();
    let dead = |id: u64, version: &str| running(held(node(id, away(id))), version);
    let well = |id: u64, version: &str| running(held(node(id, lists(&members, true))), version);
    let decided = plan(&living(3, vec![well(1, OLD), well(2, OLD), dead(3, OLD)]));
    assert_eq!(deletions(&decided), ["m3"]);
    // One that keeps its specification is not ours to replace, and while it is away nothing else may move.
    let other = plan(&living(3, vec![well(1, OLD), well(2, OLD), dead(3, NEW)]));
    assert!(other.steps.is_empty() && held_by(&other).starts_with("etcd to be whole: m3"), "{other:?}");
    let both = plan(&living(3, vec![dead(1, OLD), well(2, OLD), dead(3, OLD)]));
    assert!(both.steps.is_empty() && held_by(&both).contains("to be removable: "), "{both:?}");
    let single = plan(&living(1, vec![running(held(node(1, away(1))), OLD)]));
    assert!(deletions(&single).is_empty(), "the only one is not thrown away: {single:?}");
    // It has not even joined: nothing is lost with it.
    let two: Vec<EtcdMember> = members[..2].to_vec();
    let joining = vec![
        running(held(node(1, lists(&two, true))), OLD),
        running(held(node(2, lists(&two, true))), OLD),
        running(held(node(3, absent())), OLD),
    ];
    assert_eq!(deletions(&plan(&living(3, joining))), ["m3"]);
}

#[test]
fn one_that_is_unwell_goes_before_those_that_are_well() {
    let mut nodes = old(4);
    nodes[3] = running(nodes[3].clone(), NEW);
    let mut observed = living(3, nodes);
    observed.workload_nodes[2] = workload_node("m3", false);
    assert_eq!(deletions(&plan(&observed)), ["m3"], "its Node is not ready; its etcd is");
    observed.workload_nodes[2] = workload_node("m3", true);
    let Answer::Answers { unhealthy, .. } = &mut observed.nodes[1].answer else { panic!() };
    unhealthy.push("service kubelet is Failed".to_owned());
    assert_eq!(deletions(&plan(&observed)), ["m2"]);
}

/// A health check's mark, since a moment of the first hour of its life or later.
fn asked(mut view: NodeView, is_lasting: bool) -> NodeView {
    let machine = Arc::make_mut(&mut view.machine);
    let age = jiff::SignedDuration::from_mins(if is_lasting { 200 } else { 30 });
    machine.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now() - age));
    let status = machine.status.get_or_insert_default();
    for (type_, reason) in [(remediation::HEALTHY, "UnhealthyNode"), (remediation::OWNER, remediation::WAITING)] {
        conditions::set(&mut status.conditions, conditions::new(type_, false, reason, "down"), None, now());
    }
    view
}

fn words(decided: &Plan) -> Vec<String> {
    let told = decided.steps.iter().filter_map(|step| match step {
        Step::StoreRounds(rounds) => Some(rounds.map_or("forget".to_owned(), |rounds| format!("round {}", rounds.count))),
        Step::TellRemediation { machine, reason, message } => {
            Some(format!("{} {reason} {message}", machine.metadata.name.as_deref().unwrap()))
        }
        Step::DeleteMachine(meta) => Some(format!("delete {}", meta.name.as_deref().unwrap())),
        Step::PlanMachines { .. } => Some("plan one more".to_owned()),
        _ => None,
    });
    told.collect()
}

#[test]
fn what_a_health_check_asks_for_is_replaced_by_the_same_arithmetic() {
    let members: Vec<EtcdMember> = (1..=3).map(|id| member(id, false)).collect();
    let well = |id: u64| running(held(node(id, lists(&members, true))), NEW);
    let dead = |id: u64| running(held(node(id, away(id))), NEW);
    let going = "m3 MachineDeleting Machine is deleted, and another is made in its place: down";
    let gone = plan(&living(3, vec![well(1), well(2), asked(dead(3), true)]));
    assert_eq!(words(&gone), [going, "delete m3"], "a dead member that lasted");
    let young = plan(&living(3, vec![well(1), well(2), asked(dead(3), false)]));
    assert_eq!(words(&young), ["round 1", going, "delete m3"]);
    // Its etcd is healthy: another is made before it goes.
    let unwell = plan(&living(3, vec![well(1), well(2), asked(well(3), true)]));
    assert_eq!(words(&unwell), ["plan one more", "m3 RemediationDeferred another control plane is replaced first"]);
    // Two of three are away: nothing may go, and both are told why.
    let lost = words(&plan(&living(3, vec![well(1), asked(dead(2), true), asked(dead(3), true)])));
    assert!(lost.len() == 2 && lost.iter().all(|told| told.contains("RemediationDeferred waiting for m2 to be removable")), "{lost:?}");
    let single = words(&plan(&living(1, vec![asked(running(held(node(1, away(1))), NEW), true)])));
    assert!(single.len() == 1 && single[0].contains("RemediationDeferred waiting for etcd to be whole: m1"), "{single:?}");
    // What is excepted stays.
    let mut skipped = asked(dead(3), true);
    let machine = Arc::make_mut(&mut skipped.machine);
    machine.metadata.annotations.as_mut().unwrap().insert(annotations::SKIP_REMEDIATION.to_owned(), String::new());
    assert_eq!(words(&plan(&living(3, vec![well(1), well(2), skipped]))), [] as [&str; 0]);
}

#[test]
fn replacements_that_do_not_last_are_spaced_and_end() {
    let members: Vec<EtcdMember> = (1..=2).map(|id| member(id, false)).collect();
    let of = |rounds: &str, third: NodeView| {
        let well = |id: u64| running(held(node(id, lists(&members, true))), NEW);
        annotated(living(3, vec![well(1), well(2), third]), annotations::REMEDIATION_ROUNDS, rounds)
    };
    let young = || asked(running(held(node(3, absent())), NEW), false);
    let recent = plan(&of("2 2026-01-01T11:25:00Z", young()));
    assert!(words(&recent).len() == 3 && words(&recent)[0] == "round 3", "10 minutes are over: {:?}", words(&recent));
    let resting = plan(&of("4 2026-01-01T11:25:00Z", young()));
    assert!(words(&resting)[0].contains("RemediationDeferred Replacements did not last 4 times in a row"), "{:?}", words(&resting));
    assert_eq!(resting.again_at, Some("2026-01-01T12:05:00Z".parse().unwrap()));
    let over = plan(&of("5 2026-01-01T11:25:00Z", young()));
    assert!(words(&over)[0].contains("RetryLimitReached 5 times in a row Machines that TalosControlPlane cp made"), "{:?}", words(&over));
    let mut wanted = young();
    let machine = Arc::make_mut(&mut wanted.machine);
    machine.metadata.annotations.as_mut().unwrap().insert(annotations::REMEDIATE_MACHINE.to_owned(), String::new());
    let again = words(&plan(&of("5 2026-01-01T11:25:00Z", wanted)));
    assert_eq!((again[0].as_str(), again.len()), ("round 1", 3), "{again:?}");
}

#[test]
fn without_room_for_one_more_one_goes_first() {
    let zero = with_strategy(living(3, old(3)), "RollingUpdate", 0);
    assert_eq!(deletions(&plan(&zero)), ["m1"]);
    let mut empty = living(3, old(3));
    empty.pools.empty = Some("InClusterIPPool p".into());
    let decided = plan(&empty);
    assert_eq!(deletions(&decided), ["m1"]);
    assert!(told(&empty, &decided).contains("one goes before another is made, since InClusterIPPool p has no spare address"));
    let single = plan(&with_strategy(living(1, old(1)), "RollingUpdate", 0));
    assert!(deletions(&single).is_empty() && held_by(&single).contains("last voting member"), "{single:?}");
    // One more that has no address is not waited for: only another's going gives it one.
    let members: Vec<EtcdMember> = (1..=3).map(|id| member(id, false)).collect();
    let mut nodes: Vec<NodeView> = (1..=3).map(|id| running(held(node(id, lists(&members, true))), OLD)).collect();
    let mut fourth = held(node(4, Answer::NotAsked));
    fourth.address = None;
    Arc::make_mut(&mut fourth.machine).spec.version = Some(NEW.into());
    nodes.push(fourth);
    let mut short = living(3, nodes);
    short.pools.empty = Some("InClusterIPPool p".into());
    assert!(held_by(&plan(&short)).starts_with("m4 to join etcd"), "it has its address and boots");
    short.pools.waiting = ["m4".to_owned()].into();
    assert_eq!(deletions(&plan(&short)), ["m1"]);
}

#[test]
fn the_machine_that_is_the_endpoint_is_not_replaced() {
    let mut observed = living(3, old(3));
    let host = |observed: &mut Observed, at: usize| {
        let address = observed.nodes[at].address.clone();
        Arc::make_mut(observed.cluster.as_mut().unwrap()).spec.control_plane_endpoint.host = address;
    };
    host(&mut observed, 0);
    assert_eq!(plan(&observed).steps, [Step::PlanMachines { count: 1, is_first: false }], "the others are");
    for at in 1..3 {
        observed.nodes[at] = running(observed.nodes[at].clone(), NEW);
    }
    let decided = plan(&observed);
    assert!(decided.steps.is_empty());
    assert!(matches!(&decided.rolling, Rolling::Blocked { reason } if reason.contains("m1") && reason.contains("endpoint")));
    assert!(
        told(&observed, &decided).starts_with("RollingUpdateBlocked: 1 replicas with outdated spec (2 replicas up to date): m1; the own")
    );
}

#[test]
fn on_delete_leaves_the_moment_to_the_user() {
    let observed = with_strategy(living(3, old(3)), "OnDelete", 1);
    let decided = plan(&observed);
    assert!(decided.steps.is_empty() && decided.rolling == Rolling::OnDelete);
    assert!(told(&observed, &decided).ends_with("They are replaced when somebody deletes them (OnDelete)"));
    let mut nodes = old(2);
    nodes.push(deleting(running(whole(3)[2].clone(), OLD)));
    assert!(plan(&with_strategy(living(2, nodes), "OnDelete", 1)).steps.iter().all(|step| !matches!(step, Step::DeleteMachine(_))));
}

#[test]
fn a_change_that_is_taken_back_takes_the_planned_machine_back() {
    let mut observed = annotated(living(3, old(3)), PLANNED_MACHINES, &intent::planned_text(&[planned("m4")]));
    Arc::make_mut(&mut observed.control_plane).spec.version = OLD.into();
    assert_eq!(plan(&observed).steps, [Step::KeepPlanned(Vec::new())]);
}

#[test]
fn before_etcd_lives_outdated_machines_are_exchanged_at_once() {
    let mut observed = living(2, vec![running(held(node(1, absent())), OLD), running(held(node(2, absent())), OLD)]);
    Arc::make_mut(&mut observed.control_plane).status = None;
    let unborn = annotated(observed.clone(), intent::BOOTSTRAP_NODE, "none");
    assert_eq!(deletions(&plan(&unborn)), ["m1", "m2"]);
    let chosen = annotated(observed.clone(), intent::BOOTSTRAP_NODE, "m1 10.0.0.1");
    assert_eq!(deletions(&plan(&chosen)), ["m2"], "one that may have been bootstrapped stays");
    assert!(deletions(&plan(&observed)).is_empty(), "of unknown origin: any may be a member");
}

#[test]
fn a_member_that_no_machine_is_is_taken_out_by_the_same_arithmetic() {
    let removed = |observed: &Observed| {
        let steps = plan(observed).steps;
        steps.iter().find_map(|step| match step {
            Step::EtcdRemove { id, .. } => Some(id.0),
            _ => None,
        })
    };
    let members: Vec<EtcdMember> = (1..=4).map(|id| member(id, false)).collect();
    let three =
        |members: &[EtcdMember]| -> Vec<NodeView> { (1..=3).map(|id| running(held(node(id, lists(members, true))), NEW)).collect() };
    assert_eq!(removed(&living(3, three(&members))), Some(4));
    let learner = [member(1, false), member(2, false), member(3, false), member(4, true)];
    assert_eq!(removed(&living(3, three(&learner))), Some(4), "a learner that never started");
    // A machine whose member is not known may be it.
    let mut nodes = three(&members);
    nodes.push(running(held(node(5, away(5))), NEW));
    let silent = living(4, nodes.clone());
    assert_eq!(removed(&silent), None);
    assert!(plan(&silent).leaving.unwrap().contains("when m5 has told"));
    nodes[3] = running(held(node(5, absent())), NEW);
    assert_eq!(removed(&living(4, nodes)), Some(4));
    // One that has its address and no etcd is not the member that had it.
    let mut again = three(&members);
    let mut fourth = running(held(node(4, absent())), NEW);
    Arc::make_mut(&mut fourth.machine).metadata.annotations.as_mut().unwrap().remove(intent::ETCD_MEMBER);
    again.push(fourth);
    assert_eq!(removed(&living(4, again)), Some(4));
    let two = [member(1, false), member(2, false), member(9, false)];
    let one_away = vec![running(held(node(1, lists(&two, true))), NEW), running(held(node(2, away(2))), NEW)];
    assert_eq!(removed(&living(2, one_away)), None, "not where the rest would have no quorum");
}

/// A control plane as it goes through a rollout.
#[derive(Clone, Debug, Default)]
struct Model {
    wanted: i32,
    surge: i32,
    is_pool_empty: bool,
    machines: BTreeMap<u64, One>,
    planned: Vec<PlannedMachine>,
    leader: u64,
    next: u64,
}

#[derive(Clone, Debug, Default)]
struct One {
    is_old: bool,
    is_dead: bool,
    is_going: bool,
    has_left: bool,
    member: Option<bool>,
}

impl Model {
    fn observed(&self) -> Observed {
        let members: Vec<EtcdMember> = self.machines.iter().filter_map(|(id, one)| Some(member(*id, one.member?))).collect();
        let nodes = self.machines.iter().map(|(id, one)| {
            let answer = match one.member {
                _ if one.is_dead => away(*id),
                Some(_) => lists(&members, true),
                None if one.has_left => Answer::Answers { etcd: Etcd::Unclear { state: "Finished".into() }, unhealthy: Vec::new() },
                None => absent(),
            };
            let mut view = running(held(node(*id, answer)), if one.is_old { OLD } else { NEW });
            view.status = Some(EtcdStatus { member_id: Some(MemberId(*id)), leader: Some(MemberId(self.leader)), ..EtcdStatus::default() });
            if one.is_going { deleting(view) } else { view }
        });
        let mut observed = with_strategy(living(self.wanted, nodes.collect()), "RollingUpdate", self.surge);
        observed.pools.empty = self.is_pool_empty.then(|| "InClusterIPPool p".to_owned());
        if self.planned.is_empty() { observed } else { annotated(observed, PLANNED_MACHINES, &intent::planned_text(&self.planned)) }
    }

    fn of(&mut self, name: &str) -> &mut One {
        self.machines.entry(name.trim_start_matches('m').parse().unwrap()).or_default()
    }

    fn healthy_voters(&self) -> usize {
        self.machines.values().filter(|one| one.member == Some(false) && !one.is_dead).count()
    }

    fn has_quorum(&self) -> bool {
        self.healthy_voters() >= quorum(self.machines.values().filter(|one| one.member == Some(false)).count())
    }

    fn step(&mut self) -> bool {
        let decided = plan(&self.observed());
        for step in &decided.steps {
            match step {
                Step::PlanMachines { count, .. } => {
                    for _ in 0..*count {
                        self.planned.push(planned(&format!("m{}", self.next)));
                        self.next += 1;
                    }
                }
                Step::KeepPlanned(kept) => self.planned.clone_from(kept),
                Step::CreateMachine { planned, .. } => {
                    let voters = self.machines.values().filter(|one| one.member == Some(false));
                    assert!(voters.clone().all(|one| !one.is_dead), "etcd takes no new member while a voter is away");
                    self.of(&planned.machine).is_old = false;
                }
                Step::DeleteMachine(meta) => {
                    let name = meta.name.clone().unwrap();
                    let leader = self.leader;
                    let others = self.machines.values().filter(|one| one.is_old && !one.is_going).count();
                    assert!(name != format!("m{leader}") || others == 1, "the leader goes last");
                    self.of(&name).is_going = true;
                }
                Step::EtcdLeave { machine, .. } | Step::EtcdRemove { machine, .. } => {
                    let one = self.of(machine);
                    (one.member, one.has_left) = (None, true);
                    assert!(self.has_quorum());
                    let can_lead = |(id, one): (&u64, &One)| (one.member == Some(false) && !one.is_dead).then_some(*id);
                    if self.machines.get(&self.leader).is_none_or(|one| one.member.is_none() || one.is_dead) {
                        self.leader = self.machines.iter().find_map(can_lead).unwrap();
                    }
                }
                Step::Release { machine } => {
                    assert_eq!(self.of(machine).member, None, "a member leaves before its VM goes");
                    self.machines.remove(&machine[1..].parse().unwrap());
                }
                _ => {}
            }
        }
        let most = usize::try_from(self.wanted + if self.is_pool_empty { 0 } else { self.surge }).unwrap();
        assert!(self.machines.values().filter(|one| !one.is_going).count() <= most, "within the surge");
        let learns = self.machines.values().any(|one| one.member == Some(true));
        let mut has_joined = false;
        for one in self.machines.values_mut().filter(|one| !one.is_dead && !one.has_left) {
            match one.member {
                Some(true) => (one.member, has_joined) = (Some(false), true),
                None if !learns && !has_joined && !one.is_going => (one.member, has_joined) = (Some(true), true),
                _ => {}
            }
        }
        !decided.steps.is_empty() || has_joined
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever the size, the surge, the leader and who is dead: a rollout replaces everything, one at a time, and never loses the quorum.
    #[test]
    fn rollouts_end(wanted in 1i32..=5, surge in 0i32..=1, is_pool_empty in any::<bool>(), leader in 0usize..5,
            dead in proptest::sample::subsequence(vec![1u64, 2, 3, 4, 5], 0..=2), fresh in proptest::sample::subsequence(vec![1u64, 2, 3, 4, 5], 0..=2)) {
        // A single one is replaced by one more, or not at all.
        prop_assume!(wanted > 1 || (surge == 1 && !is_pool_empty));
        let count = u64::try_from(wanted).unwrap();
        let most_dead = usize::try_from(wanted).unwrap() - quorum(usize::try_from(wanted).unwrap());
        let dead: Vec<u64> = dead.into_iter().filter(|id| *id <= count).take(most_dead).collect();
        let alive: Vec<u64> = (1..=count).filter(|id| !dead.contains(id)).collect();
        let machine = |id: u64| One {
            is_old: dead.contains(&id) || !fresh.contains(&id),
            is_dead: dead.contains(&id),
            member: Some(false),
            ..One::default()
        };
        // With two of two the loss of one is the loss of the quorum.
        let mut model = Model {
            wanted, surge, is_pool_empty,
            machines: (1..=count).map(|id| (id, machine(id))).collect(),
            planned: Vec::new(), leader: alive[leader % alive.len()], next: 10,
        };
        let mut rounds = 0;
        while model.step() {
            rounds += 1;
            prop_assert!(rounds < 200, "it goes round in circles: {:?}", model.machines);
            prop_assert!(model.has_quorum());
        }
        let stands = format!("{:?} {:?}", model.machines, plan(&model.observed()));
        prop_assert!(model.machines.values().all(|one| !one.is_old && !one.is_going && !one.is_dead && one.member == Some(false)), "{stands}");
        prop_assert_eq!(model.machines.len(), usize::try_from(wanted).unwrap(), "{}", stands);
        prop_assert!(plan(&model.observed()).is_settled(), "{}", stands);
    }
}
