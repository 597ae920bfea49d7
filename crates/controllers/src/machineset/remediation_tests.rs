//! Every branch of what a MachineSet does about Machines that a health check asks to replace, and a property over its rounds.

use std::sync::Arc;

use api::cluster::{Machine, MachineDeployment};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::plan::{Observed, Step, plan};
use super::tests::{machine, observed, read, set, template};
use crate::contract::Referenced;
use crate::remediation::{CANNOT, DEFERRED, EXHAUSTED, WAITING};
use crate::rounds::{LASTING, MOST_ROUNDS, Rounds};

const ROUNDS: &str = "talosphere.dev/remediation-rounds";

fn at(text: &str) -> Timestamp {
    format!("2026-03-01T{text}Z").parse().unwrap()
}

fn condition(type_: &str, status: &str, reason: &str, message: &str, since: &str) -> Value {
    let since = format!("2026-03-01T{since}Z");
    json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
}

/// A Machine that was made, and found unhealthy, at these times.
fn ill(name: &str, made: &str, since: &str, change: &Value) -> Arc<Machine> {
    let told = [
        condition("UpToDate", "True", "UpToDate", "", "08:00:00"),
        condition("HealthCheckSucceeded", "False", "UnhealthyNode", "down", since),
        condition("OwnerRemediated", "False", WAITING, "", since),
    ];
    let mut value = json!({"metadata": {"creationTimestamp": format!("2026-03-01T{made}Z")}, "status": {"conditions": told}});
    json_patch::merge(&mut value, change);
    machine(name, &value)
}

fn old(name: &str) -> Arc<Machine> {
    ill(name, "06:00:00", "11:59:00", &json!({}))
}

fn young(name: &str, made: &str) -> Arc<Machine> {
    ill(name, made, "11:59:00", &json!({}))
}

/// The set with these Machines, at noon.
fn with(machines: Vec<Arc<Machine>>, rounds: Option<&str>) -> Observed {
    let replicas = machines.len();
    let set = set(&json!({"metadata": {"annotations": {ROUNDS: rounds}}, "spec": {"replicas": replicas}}));
    Observed { set, now: at("12:00:00"), ..observed(machines) }
}

fn deployment(change: &Value) -> Option<Arc<MachineDeployment>> {
    let spec = serde_json::to_value(&set(&json!({})).spec.template).unwrap();
    let mut value = json!({"metadata": {"name": "d"}, "spec": {"clusterName": "c", "replicas": 3, "selector": {}, "template": spec}});
    json_patch::merge(&mut value, change);
    Some(read(value))
}

/// What a plan does about its Machines: `a!` is replaced, `a: reason` is told.
fn done(observed: &Observed) -> Vec<String> {
    let name = |machine: &Machine| machine.metadata.name.clone().unwrap();
    let word = |step: &Step| match step {
        Step::Remediate(machine) => Some(format!("{}!", name(machine))),
        Step::TellRemediation { machine, reason, .. } => Some(format!("{}: {reason}", name(machine))),
        Step::StoreRounds(rounds) => Some(rounds.map_or("no rounds".to_owned(), |rounds| format!("round {}", rounds.count))),
        Step::DeleteMachine(machine) => Some(format!("{} deleted", name(machine))),
        _ => None,
    };
    plan(observed).steps.iter().filter_map(word).collect()
}

fn message(observed: &Observed) -> String {
    let steps = plan(observed).steps;
    steps.iter().find_map(|step| if let Step::TellRemediation { message, .. } = step { Some(message.clone()) } else { None }).unwrap()
}

#[test]
fn an_unhealthy_machine_goes_and_no_other() {
    let well = machine("w", &json!({}));
    assert_eq!(done(&with(vec![old("a"), well.clone()], None)), ["a!"]);
    let told_only = machine(
        "t",
        &json!({"status": {"conditions": [condition("UpToDate", "True", "", "", "08:00:00"), condition("HealthCheckSucceeded", "False", "x", "", "08:00:00")]}}),
    );
    assert_eq!(done(&with(vec![told_only, well], None)), Vec::<String>::new(), "nobody asked");
    for key in ["cluster.x-k8s.io/skip-remediation", "cluster.x-k8s.io/paused"] {
        let excepted = ill("a", "06:00:00", "11:59:00", &json!({"metadata": {"annotations": {key: ""}}}));
        assert_eq!(done(&with(vec![excepted], None)), Vec::<String>::new(), "{key}");
    }
    // One that a smaller set gives up anyway is not deleted twice.
    let less = Observed { set: set(&json!({"spec": {"replicas": 1}})), ..with(vec![old("a"), machine("w", &json!({}))], None) };
    assert_eq!(done(&less), ["a deleted"]);
}

#[test]
fn a_set_that_gives_way_to_another_replaces_nothing() {
    let owner = deployment(&json!({"metadata": {"annotations": {"machinedeployment.clusters.x-k8s.io/revision": "2"}}}));
    let giving_way = Observed { deployment: owner.clone(), ..with(vec![old("a")], None) };
    assert_eq!(done(&giving_way), [format!("a: {CANNOT}")]);
    assert_eq!(message(&giving_way), "Machine won't be remediated because it is pending removal due to rollout");
    let current = json!({"metadata": {"annotations": {"machinedeployment.clusters.x-k8s.io/revision": "2"}}, "spec": {"replicas": 1}});
    assert_eq!(done(&Observed { set: set(&current), deployment: owner, ..giving_way }), ["a!"]);
}

#[test]
fn nothing_goes_for_which_nothing_could_come() {
    let base = with(vec![old("a")], None);
    let missing = Referenced::Missing { kind: "VSphereMachineTemplate".into(), name: "t".into() };
    let upgrading = template(
        "TalosControlPlane",
        &json!({"metadata": {"name": "p"}, "spec": {"version": "v1.26.0"}, "status": {"version": "v1.25.5"}}),
    );
    let off = set(&json!({"metadata": {"annotations": {"cluster.x-k8s.io/disable-machine-create": ""}}, "spec": {"replicas": 1}}));
    for (observed, why) in [
        (Observed { infrastructure_template: missing, ..base.clone() }, "VSphereMachineTemplate t does not exist"),
        (Observed { control_plane: upgrading.clone(), ..base.clone() }, "TalosControlPlane p is upgrading from v1.25.5 to v1.26.0"),
        (Observed { set: off, ..base.clone() }, "annotation cluster.x-k8s.io/disable-machine-create keeps Machines from being created"),
    ] {
        assert_eq!(done(&observed), [format!("a: {DEFERRED}")], "{why}");
        assert!(message(&observed).starts_with(&format!("No Machine could be made in its place: {why}")), "{}", message(&observed));
    }
    assert!(plan(&Observed { control_plane: upgrading, ..base }).again_after.is_some(), "nothing may tell that it is over");
}

#[test]
fn so_many_at_a_time_those_first_that_never_ran() {
    let mut never = (*young("n", "10:00:00")).clone();
    never.status.as_mut().unwrap().node_ref = None;
    let never = Arc::new(never);
    let newer = ill("c", "07:00:00", "11:59:00", &json!({}));
    let limited = |limit: Value, machines: Vec<Arc<Machine>>| {
        let owner = deployment(&json!({"spec": {"remediation": {"maxInFlight": limit}}}));
        Observed { deployment: owner, ..with(machines, None) }
    };
    let all = || vec![old("a"), old("b"), newer.clone(), never.clone()];
    let two = limited(json!(2), all());
    assert_eq!(done(&two), [&format!("a: {DEFERRED}"), &format!("b: {DEFERRED}"), "round 1", "n!", "c!"]);
    assert!(message(&two).ends_with("(spec.remediation.maxInFlight is 2)"));
    assert_eq!(done(&limited(json!("34%"), all())).iter().filter(|done| done.ends_with('!')).count(), 2, "of three wanted, rounded up");
    // One that is on its way counts; one that goes for another reason does not.
    let going = |reason: &str| {
        let told = [
            condition("HealthCheckSucceeded", "False", "x", "", "11:00:00"),
            condition("OwnerRemediated", "False", reason, "", "11:00:00"),
        ];
        machine("g", &json!({"metadata": {"deletionTimestamp": "2026-03-01T11:00:00Z"}, "status": {"conditions": told}}))
    };
    assert_eq!(done(&limited(json!(1), vec![old("a"), going("MachineDeleting")])), [format!("a: {DEFERRED}")]);
    assert_eq!(done(&limited(json!(1), vec![old("a"), going(WAITING)])), ["a!"]);
    // What is told already is not told again.
    let told = [
        condition("UpToDate", "True", "UpToDate", "", "08:00:00"),
        condition("HealthCheckSucceeded", "False", "UnhealthyNode", "down", "11:59:00"),
        condition("OwnerRemediated", "False", DEFERRED, &message(&two), "11:59:00"),
    ];
    let waiting = ill("a", "06:00:00", "11:59:00", &json!({"status": {"conditions": told}}));
    let owner = deployment(&json!({"spec": {"remediation": {"maxInFlight": 2}}}));
    let again = Observed { deployment: owner, ..with(vec![waiting, newer, never], None) };
    assert_eq!(done(&again), ["round 1", "n!", "c!"]);
}

#[test]
fn rounds_count_what_did_not_last_and_hold_back_longer_each_time() {
    // The first one that does not last begins a round, all that were made before belong to it.
    assert_eq!(done(&with(vec![young("a", "11:30:00"), young("b", "11:40:00")], None)), ["round 1", "b!", "a!"]);
    assert_eq!(done(&with(vec![young("b", "11:40:00")], Some("1 2026-03-01T11:59:30Z"))), ["b!"]);
    // A Machine made since waits for its time: 5, 10, 20, 40 minutes.
    for (count, last, until) in
        [(1, "11:55:01", "12:00:01"), (2, "11:50:01", "12:00:01"), (3, "11:40:01", "12:00:01"), (4, "11:20:01", "12:00:01")]
    {
        let held = with(vec![young("a", "11:56:00")], Some(&format!("{count} 2026-03-01T{last}Z")));
        assert_eq!(done(&held), [format!("a: {DEFERRED}")]);
        assert!(message(&held).ends_with(&format!("the next one is made at {until}")), "{}", message(&held));
        assert_eq!(plan(&held).again_at, Some(at(until)));
        let free = Observed { now: at(until), ..held };
        assert_eq!(done(&free), [format!("round {}", count + 1), "a!".to_owned()]);
    }
    // One that had lasted is nobody's fault and waits for nothing.
    assert_eq!(done(&with(vec![old("a")], Some("1 2026-03-01T11:59:00Z"))), ["a!"]);
}

#[test]
fn after_so_many_rounds_a_person_is_asked_and_may_start_anew() {
    let rounds = Some("5 2026-03-01T08:00:00Z");
    let spent = with(vec![young("a", "11:30:00"), old("b")], rounds);
    assert_eq!(done(&spent), [format!("a: {EXHAUSTED}"), format!("b: {EXHAUSTED}")]);
    let text = message(&spent);
    assert!(text.starts_with("5 times in a row Machines that MachineSet s made did not become healthy"), "{text}");
    assert!(text.contains("the last time replaced at 08:00:00"), "{text}");
    assert!(text.ends_with("`kubectl annotate machine -n n a cluster.x-k8s.io/remediate-machine=`"), "{text}");
    assert_eq!(plan(&spent).again_at, None, "time alone changes nothing");
    // What belongs to the last round still goes.
    assert_eq!(done(&with(vec![young("a", "11:30:00")], Some("5 2026-03-01T11:59:00Z"))), ["a!"]);
    let marked = ill("a", "11:30:00", "11:59:00", &json!({"metadata": {"annotations": {"cluster.x-k8s.io/remediate-machine": ""}}}));
    assert_eq!(done(&with(vec![marked, old("b")], rounds)), ["round 1", "a!", "b!"]);
}

#[test]
fn a_machine_that_lasts_ends_the_count() {
    let ready = |since: &str| {
        let told = [condition("UpToDate", "True", "UpToDate", "", "08:00:00"), condition("Ready", "True", "Ready", "", since)];
        machine("r", &json!({"metadata": {"creationTimestamp": "2026-03-01T10:30:00Z"}, "status": {"conditions": told}}))
    };
    let rounds = Some("5 2026-03-01T10:00:00Z");
    let lasting = with(vec![ready("10:59:59"), young("a", "11:30:00")], rounds);
    assert_eq!(done(&lasting), ["round 1", "a!"]);
    assert_eq!(done(&with(vec![ready("10:59:59")], rounds)), ["no rounds"]);
    let soon = with(vec![ready("11:00:01")], rounds);
    assert_eq!((done(&soon), plan(&soon).again_at), (Vec::new(), Some(at("12:00:01"))));
    // One that was there before proves nothing.
    assert_eq!(done(&with(vec![ready("10:59:59")], Some("5 2026-03-01T11:00:00Z"))), Vec::<String>::new());
}

#[test]
fn rounds_are_read_back_as_they_are_written() {
    let rounds = Rounds { count: 3, last: at("11:00:00") };
    let of = |text: &str| Rounds::of(&set(&json!({"metadata": {"annotations": {ROUNDS: text}}})).metadata);
    assert_eq!(of(&rounds.to_string()), Some(rounds));
    for text in ["", "0 2026-03-01T11:00:00Z", "x 2026-03-01T11:00:00Z", "3", "3 yesterday"] {
        assert_eq!(of(text), None, "{text:?}");
    }
}

proptest! {
    /// However long new Machines take to fail, with a process that dies between any two steps: no more rounds than the limit, each later
    /// than its back-off, and then nothing more.
    #[test]
    fn a_set_whose_machines_never_last_comes_to_rest(
        lives in proptest::collection::vec(1..3000_i64, 20),
        deaths in proptest::collection::vec(any::<bool>(), 80),
    ) {
        let mut deaths = deaths.into_iter().cycle();
        let mut now = at("00:00:00");
        let (mut made, mut count, mut rounds) = (now, 0_usize, None::<Rounds>);
        let mut begun: Vec<Timestamp> = Vec::new();
        let mut is_over = false;
        for life in lives {
            let failed = now + SignedDuration::from_secs(life);
            now = failed;
            for _ in 0..20 {
                let change = json!({"metadata": {"creationTimestamp": made.to_string()}});
                let since = failed.strftime("%T").to_string();
                let one = ill(&format!("m{count}"), "00:00:00", &since, &change);
                let mut seen = with(vec![one], rounds.map(|rounds| rounds.to_string()).as_deref());
                seen.now = now;
                let planned = plan(&seen);
                let mut is_gone = false;
                for step in &planned.steps {
                    match step {
                        Step::StoreRounds(new) => {
                            if let Some(new) = new {
                                begun.push(new.last);
                            }
                            rounds = *new;
                        }
                        Step::Remediate(_) => is_gone = true,
                        _ => {}
                    }
                    if deaths.next().unwrap_or(false) {
                        break;
                    }
                }
                if is_gone {
                    count += 1;
                    now += SignedDuration::from_secs(30);
                    made = now;
                    break;
                }
                match planned.again_at {
                    Some(again) => now = again.max(now),
                    None if planned.steps.iter().all(|step| matches!(step, Step::TellRemediation { .. })) => is_over = true,
                    None => {}
                }
                if is_over {
                    break;
                }
            }
            if is_over {
                break;
            }
        }
        prop_assert!(is_over, "{count} machines, {rounds:?}");
        prop_assert_eq!(begun.len(), usize::try_from(MOST_ROUNDS).unwrap());
        for (number, pair) in begun.windows(2).enumerate() {
            let least = SignedDuration::from_mins(5 << number).min(LASTING);
            prop_assert!(pair[1].duration_since(pair[0]) >= least, "{begun:?}");
        }
    }

    /// Whatever the Machines and the rounds: only those that are asked for go for it, none twice, none while the set may not, never more at a
    /// time than allowed, and what is held back is told.
    #[test]
    fn only_what_is_asked_for_goes_and_the_rest_is_told(
        wanted in 0..8_i32,
        states in proptest::collection::vec(0..6_u8, 0..10),
        most in proptest::option::of(0..4_i32),
        rounds in proptest::option::of((1..7_u32, 0..60_i64)),
        is_current in any::<bool>(),
    ) {
        let machines: Vec<Arc<Machine>> = states.iter().enumerate().map(|(n, state)| {
            let name = format!("m{n}");
            match state {
                0 => old(&name),
                1 => young(&name, "11:30:00"),
                2 => ill(&name, "06:00:00", "11:59:00", &json!({"metadata": {"annotations": {"cluster.x-k8s.io/skip-remediation": ""}}})),
                3 => ill(&name, "06:00:00", "11:59:00", &json!({"metadata": {"deletionTimestamp": "2026-03-01T11:59:00Z"}})),
                4 => ill(&name, "06:00:00", "11:59:00", &json!({"metadata": {"annotations": {"cluster.x-k8s.io/remediate-machine": ""}}})),
                _ => machine(&name, &json!({})),
            }
        }).collect();
        let due: Vec<String> = states.iter().enumerate().filter(|(_, state)| matches!(state, 0 | 1 | 4)).map(|(n, _)| format!("m{n}")).collect();
        let revision = if is_current { "2" } else { "1" };
        let told = rounds.map(|(count, minutes)| Rounds { count, last: at("12:00:00") - SignedDuration::from_mins(minutes) }.to_string());
        let change = json!({"metadata": {"annotations": {ROUNDS: told, "machinedeployment.clusters.x-k8s.io/revision": revision}}, "spec": {"replicas": wanted}});
        let owner = json!({"metadata": {"annotations": {"machinedeployment.clusters.x-k8s.io/revision": "2"}}, "spec": {"remediation": most.map(|most| json!({"maxInFlight": most}))}});
        let seen = Observed { set: set(&change), deployment: deployment(&owner), now: at("12:00:00"), ..observed(machines) };
        let name = |machine: &Machine| machine.metadata.name.clone().unwrap();
        let steps = plan(&seen).steps;
        let of = |pick: fn(&Step) -> Option<&Arc<Machine>>| -> Vec<String> { steps.iter().filter_map(pick).map(|machine| name(machine)).collect() };
        let replaced = of(|step| if let Step::Remediate(machine) = step { Some(machine) } else { None });
        let held = of(|step| if let Step::TellRemediation { machine, .. } = step { Some(machine) } else { None });
        let deleted = of(|step| if let Step::DeleteMachine(machine) = step { Some(machine) } else { None });
        prop_assert!(replaced.iter().all(|name| due.contains(name) && !deleted.contains(name) && !held.contains(name)), "{steps:?}");
        prop_assert!(is_current || replaced.is_empty());
        prop_assert!(most.is_none_or(|most| replaced.len() <= usize::try_from(most).unwrap()));
        let mut all: Vec<String> = replaced.iter().chain(&held).cloned().collect();
        all.extend(due.iter().filter(|name| deleted.contains(name)).cloned());
        all.sort();
        prop_assert_eq!(all, due);
        // The count is stored before the first of them goes.
        let stored = steps.iter().position(|step| matches!(step, Step::StoreRounds(_)));
        let first = steps.iter().position(|step| matches!(step, Step::Remediate(_)));
        prop_assert!(stored.is_none() || first.is_none() || stored < first);
    }
}
