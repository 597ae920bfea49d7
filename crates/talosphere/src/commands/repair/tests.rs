//! What is offered and what is done next, over states that no one would think of.

use std::collections::{BTreeMap, BTreeSet};

use api::controlplane::TalosControlPlane;
use controllers::taloscontrolplane::recovery::Recovery;
use jiff::Timestamp;
use proptest::prelude::*;
use talos::client::{EtcdMember, MemberId};
use talos::database::{Database, DatabaseMember};

use super::look::{Etcd, Look, Node, Plane, Try, Vm};
use super::options::{Kept, Verdict, Way, check_owner, choose, options};
use super::recover::{Next, Step, next};
use crate::commands::clusters::Machine;
use crate::problem::Code;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn member(id: u64) -> EtcdMember {
    EtcdMember { id: MemberId(id), hostname: format!("cp-{id}"), peer_urls: vec![format!("https://10.0.0.{id}:2380")], is_learner: false }
}

fn plane(id: u64, vm: Vm, node: Node) -> Plane {
    let name = format!("cp-{id}");
    let machine = Machine { name: name.clone(), node: name, address: Some(format!("10.0.0.{id}")), is_control_plane: true };
    Plane { machine, is_deleting: false, vm, vm_told: None, node, recorded: Some(MemberId(id)) }
}

fn silent() -> Node {
    Node::Silent("connection refused".into())
}

/// A member that runs without a leader, of `voters`.
fn stranded(id: u64, index: u64, voters: u64) -> Node {
    Node::Answers(Etcd {
        state: "Running".into(),
        has_data: true,
        member: Some(MemberId(id)),
        members: (1..=voters).map(member).collect(),
        index: Some(index),
        leader: None,
    })
}

fn empty() -> Node {
    Node::Answers(Etcd { state: "Preparing".into(), ..Etcd::default() })
}

fn look(planes: Vec<Plane>) -> Look {
    Look {
        cluster: "demo".into(),
        namespace: "team".into(),
        control_plane: TalosControlPlane::default(),
        is_paused: false,
        planes,
        unhealthy_since: None,
        recovery: None,
        tried: None,
        authority: Some("-----BEGIN CERTIFICATE-----\nOURS\n-----END CERTIFICATE-----".into()),
    }
}

fn kept(index: u64, members: &[u64], authorities: &[&str]) -> Kept {
    let member = |id: &u64| DatabaseMember { id: MemberId(*id), name: format!("cp-{id}"), peer_urls: Vec::new() };
    let database = Database {
        revision: 5,
        index: Some(index),
        members: members.iter().map(member).collect(),
        authorities: authorities.iter().map(|text| (*text).to_owned()).collect(),
        has_digest: true,
        digest: [7; 32],
        bytes: 544,
    };
    Kept { file: "etcd.db".into(), database }
}

fn verdicts(look: &Look, kept: Option<&Kept>) -> Vec<(String, &'static str)> {
    let word = |verdict: &Verdict| match verdict {
        Verdict::Recommended => "recommended",
        Verdict::Possible => "possible",
        Verdict::Refused(_) => "refused",
    };
    options(look, kept).iter().map(|choice| (choice.way.flag(), word(&choice.verdict))).collect()
}

fn told(pairs: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    pairs.iter().map(|(flag, word)| ((*flag).to_owned(), *word)).collect()
}

#[test]
fn options_come_in_the_order_of_what_is_lost() {
    let file = kept(10, &[1, 2, 3], &["OURS"]);
    // One is left, one is off: two are a majority.
    let mut seen = look(vec![plane(1, Vm::On, stranded(1, 90, 3)), plane(2, Vm::Off, silent()), plane(3, Vm::Gone, silent())]);
    let expected = told(&[("--power-on", "recommended"), ("--from-member cp-1", "refused"), ("--from-snapshot etcd.db", "refused")]);
    assert_eq!(verdicts(&seen, Some(&file)), expected);
    // It was tried.
    seen.tried = Some(Try { at: NOW, silent: vec!["cp-2".into(), "cp-3".into()] });
    let expected = told(&[("--power-on", "possible"), ("--from-member cp-1", "recommended"), ("--from-snapshot etcd.db", "refused")]);
    assert_eq!(verdicts(&seen, Some(&file)), expected);
    // With another machine than what was tried.
    seen.tried = Some(Try { at: NOW, silent: vec!["cp-3".into()] });
    assert_eq!(verdicts(&seen, None)[1].1, "refused");
    // Whether it is there is not known: nothing may be given up.
    seen.tried = Some(Try { at: NOW, silent: vec!["cp-2".into()] });
    seen.planes[1].vm = Vm::Unknown("no route".into());
    let expected = told(&[("--power-on", "possible"), ("--from-member cp-1", "refused"), ("--from-snapshot FILE", "refused")]);
    assert_eq!(verdicts(&seen, None), expected);
    // Two of three are gone for good.
    let gone = || vec![plane(1, Vm::On, stranded(1, 90, 3)), plane(2, Vm::Gone, silent()), plane(3, Vm::Gone, silent())];
    let expected = told(&[("--power-on", "refused"), ("--from-member cp-1", "recommended"), ("--from-snapshot etcd.db", "refused")]);
    assert_eq!(verdicts(&look(gone()), Some(&file)), expected);
    // A file that has more than the survivor, and one of another line of history, which cannot be compared.
    let newer = kept(91, &[1, 2, 3], &["OURS"]);
    let expected = told(&[("--power-on", "refused"), ("--from-member cp-1", "refused"), ("--from-snapshot etcd.db", "recommended")]);
    assert_eq!(verdicts(&look(gone()), Some(&newer)), expected);
    assert_eq!(verdicts(&look(gone()), Some(&kept(91, &[8], &["OURS"])))[2].1, "refused");
    // Two that run and do not answer may be a majority that is only out of reach.
    let tried = Some(Try { at: NOW, silent: vec!["cp-2".into(), "cp-3".into()] });
    let cut_off = || vec![plane(1, Vm::On, stranded(1, 90, 3)), plane(2, Vm::On, silent()), plane(3, Vm::On, silent())];
    let seen = Look { tried: tried.clone(), ..look(cut_off()) };
    let expected = told(&[("--power-on", "possible"), ("--from-member cp-1", "refused"), ("--from-snapshot FILE", "refused")]);
    assert_eq!(verdicts(&seen, None), expected);
    let Verdict::Refused(why) = options(&seen, None).remove(1).verdict else { panic!() };
    assert!(why.contains("cp-2, cp-3 are on, and may have the quorum among themselves"), "{why}");
    let mut one_off = Look { tried, ..look(cut_off()) };
    one_off.planes[2].vm = Vm::Off;
    assert_eq!(verdicts(&one_off, None)[1].1, "recommended");
    // The newest of two survivors of five.
    let mut five: Vec<Plane> = (1..=5).map(|id| plane(id, Vm::Gone, silent())).collect();
    five[0].node = stranded(1, 80, 5);
    five[3].node = stranded(4, 90, 5);
    let expected = told(&[
        ("--power-on", "refused"),
        ("--from-member cp-4", "recommended"),
        ("--from-member cp-1", "refused"),
        ("--from-snapshot FILE", "refused"),
    ]);
    assert_eq!(verdicts(&look(five), None), expected);
    // Nothing is left but a file.
    let nothing = || (1..=3).map(|id| plane(id, Vm::Gone, silent())).collect::<Vec<_>>();
    assert_eq!(verdicts(&look(nothing()), None), told(&[("--power-on", "refused"), ("--from-snapshot FILE", "possible")]));
    assert_eq!(verdicts(&look(nothing()), Some(&file))[1].1, "recommended");
    // A node whose data was wiped by hand has nothing to bring back.
    let wiped = vec![plane(1, Vm::On, stranded(1, 90, 3)), plane(2, Vm::On, empty()), plane(3, Vm::Gone, silent())];
    assert_eq!(verdicts(&look(wiped), None)[0].1, "refused");
}

#[test]
fn a_refusal_says_why_and_what_else() {
    let seen = look(vec![plane(1, Vm::On, stranded(1, 90, 3)), plane(2, Vm::Off, silent()), plane(3, Vm::Off, silent())]);
    let choices = options(&seen, None);
    assert_eq!(choose(&seen, &choices, None).unwrap().way, Way::PowerOn);
    let refusal = |name: &str| choose(&seen, &choices, Some(&Way::FromMember(name.into()))).unwrap_err().to_string();
    let problem = refusal("cp-1");
    assert!(problem.contains("TS311") && problem.contains("try that first"), "{problem}");
    assert!(problem.ends_with("remedy: talosphere repair etcd demo -n team --power-on"), "{problem}");
    assert!(refusal("cp-2").contains("does not answer, or has no data"));
    assert!(refusal("cp-9").contains("has no control plane cp-9"));
    let gone = look((1..=3).map(|id| plane(id, Vm::Gone, silent())).collect());
    let problem = choose(&gone, &options(&gone, None), None).unwrap_err().to_string();
    assert!(problem.contains("cp-1: its machine is gone") && problem.ends_with("--from-snapshot FILE"), "{problem}");
}

#[test]
fn a_snapshot_says_whose_it_is() {
    let seen = look(vec![plane(1, Vm::On, stranded(1, 90, 3)), plane(2, Vm::Gone, silent())]);
    assert!(check_owner(&seen, &kept(1, &[7], &["OURS"])).is_ok(), "its authority is ours, whoever the members were");
    let problem = check_owner(&seen, &kept(1, &[1, 2], &["THEIRS"])).unwrap_err();
    assert!(problem.code == Code::SnapshotRefused && problem.what.contains("another cluster"), "{problem}");
    assert!(problem.evidence[0].contains("cp-1 (0000000000000001"), "{problem}");
    assert!(check_owner(&seen, &kept(1, &[2], &[])).is_ok(), "a member of it is known here");
    assert!(check_owner(&seen, &kept(1, &[9], &[])).unwrap_err().what.contains("does not tell"));
}

fn recovery(from: Option<&str>, given_up: &[&str]) -> Recovery {
    Recovery {
        since: NOW,
        from: from.map(str::to_owned),
        revision: 5,
        digest: "ab".into(),
        has_digest: true,
        given_up: given_up.iter().map(|name| (*name).to_owned()).collect(),
        onto: None,
    }
}

/// A control plane, as it really is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Real {
    answers: bool,
    /// Data of the old etcd, or of the new one.
    old: bool,
    new: bool,
}

/// What really is, beside what is recorded.
#[derive(Clone, Debug)]
struct World {
    real: BTreeMap<String, Real>,
    deleting: BTreeSet<String>,
    recovery: Recovery,
    begun: usize,
    is_over: bool,
}

impl World {
    fn look(&self) -> Look {
        let planes = self.real.iter().map(|(name, real)| {
            let id = name.trim_start_matches("cp-").parse().unwrap();
            let node = match real {
                Real { answers: false, .. } => silent(),
                Real { old: true, .. } => stranded(id, 9, 3),
                Real { new: true, .. } => {
                    let members = vec![member(id)];
                    Node::Answers(Etcd {
                        state: "Running".into(),
                        has_data: true,
                        member: Some(MemberId(id)),
                        members,
                        index: Some(1),
                        leader: Some(MemberId(id)),
                    })
                }
                _ => empty(),
            };
            Plane { is_deleting: self.deleting.contains(name), ..plane(id, Vm::On, node) }
        });
        Look { recovery: Some(self.recovery.clone()), ..look(planes.collect()) }
    }

    /// Carries a step out, as the nodes and the API would.
    fn act(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::GiveUp(names) => {
                prop_assert!(names.is_superset(&self.recovery.given_up), "nothing that was given up is taken back");
                self.recovery.given_up = names.clone();
            }
            Step::Delete(name) => drop(self.deleting.insert(name.clone())),
            Step::Wipe(name) => {
                let real = self.real.get_mut(name).unwrap();
                prop_assert!(!real.new, "what was recovered is never wiped");
                real.old = false;
            }
            Step::Onto(onto) => self.recovery.onto.clone_from(onto),
            Step::Begin(name) => {
                prop_assert_eq!(self.recovery.onto.as_ref(), Some(name), "recorded before it is done");
                let holding: Vec<&String> = self.real.iter().filter(|(_, real)| real.old || real.new).map(|(name, _)| name).collect();
                prop_assert!(holding.is_empty(), "{:?} still have data", holding);
                self.real.get_mut(name).unwrap().new = true;
                self.begun += 1;
            }
            Step::Finish(name) => {
                prop_assert!(self.real[name].new);
                self.is_over = true;
            }
        }
        Ok(())
    }

    /// What the controllers do meanwhile.
    fn controllers(&mut self, number: usize) {
        let gone: Vec<String> = self.deleting.iter().filter(|name| self.recovery.given_up.contains(*name)).cloned().collect();
        for name in gone {
            self.real.remove(&name);
            self.deleting.remove(&name);
        }
        let is_left = self.real.keys().any(|name| !self.deleting.contains(name) && !self.recovery.given_up.contains(name));
        if !is_left {
            self.real.insert(format!("cp-{}", 100 + number), Real { answers: true, old: false, new: false });
        }
    }
}

proptest! {
    /// Whatever is done, lost, done twice, switched on or off, or deleted by somebody in between: etcd begins anew only when nobody has data
    /// of it any more, and it does in the end.
    #[test]
    fn a_recovery_ends_and_never_makes_two(
        planes in prop::collection::vec((any::<bool>(), any::<bool>()), 0..6),
        from in 0..6usize,
        rounds in prop::collection::vec((0..4u8, 0..6usize, any::<bool>()), 0..40),
    ) {
        let name = |index: usize| format!("cp-{}", index + 1);
        let real = planes.iter().enumerate().map(|(index, (answers, old))| (name(index), Real { answers: *answers, old: *old || !*answers, new: false }));
        let real: BTreeMap<String, Real> = real.collect();
        let given_up: Vec<String> = real.iter().filter(|(_, real)| !real.answers).map(|(name, _)| name.clone()).collect();
        let given_up: Vec<&str> = given_up.iter().map(String::as_str).collect();
        let mut world = World { real, deleting: BTreeSet::new(), recovery: recovery(Some(&name(from)), &given_up), begun: 0, is_over: false };
        let late = "1970-01-01T01:00:00Z".parse().unwrap();
        let quiet = (0..40).map(|_| (1u8, 0usize, true));
        for (number, (fate, index, is_late)) in rounds.into_iter().chain(quiet).enumerate() {
            let Next { steps, waiting } = next(&world.look(), &world.recovery.clone(), &BTreeSet::new(), if is_late { late } else { NOW });
            prop_assert!(!steps.is_empty() || !waiting.is_empty(), "what is waited for is told");
            for step in &steps {
                // 0: lost before; 1 and 2: done; 3: done, and asked for again.
                let is_repeatable = !matches!(step, Step::Begin(_));
                for _ in 0..[0, 1, 1, if is_repeatable { 2 } else { 1 }][usize::from(fate)] {
                    world.act(step)?;
                }
            }
            if world.is_over {
                break;
            }
            // A node falls silent or comes back, or somebody deletes a Machine, while things are not quiet.
            if number < 40 && fate != 1 {
                let names: Vec<String> = world.real.keys().cloned().collect();
                if let Some(name) = names.get(index) {
                    match fate {
                        0 => drop(world.deleting.insert(name.clone())),
                        _ => world.real.get_mut(name).unwrap().answers ^= true,
                    }
                }
            } else {
                world.real.values_mut().for_each(|real| real.answers = true);
            }
            world.controllers(number);
        }
        prop_assert!(world.is_over, "{:?}", world);
        prop_assert!(world.real.values().filter(|real| real.new).count() == 1 && world.real.values().all(|real| !real.old));
    }
}
