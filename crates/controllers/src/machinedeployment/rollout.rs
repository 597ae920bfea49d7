//! How many replicas each MachineSet of a deployment gets next. Pure, on numbers only.
//!
//! ```text
//!            ceiling: wanted + surge - what the others still have
//!   current ────────────────────────────▶ wanted
//!   others  ────────────────────────────▶ 0
//!            floor: available >= wanted - unavailable; those that are not available go first
//! ```
//!
//! A Machine that is being deleted still counts against the ceiling (it has its address and its place) and no longer for the floor. Which
//! Machines a smaller set gives up is known: [`SetState::staying`] has them in the order in which the set takes them. So no step of ours ever
//! leaves fewer available ones than the floor, but for one, which is said: the deadlock breaker.
//! Source: facts on peers, 2.4; Cluster API's rollout planner.

/// What a rollout keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub wanted: i32,
    /// So many more Machines than wanted at most.
    pub surge: i32,
    /// So many fewer available ones than wanted at most.
    pub unavailable: i32,
}

/// A MachineSet as the planner sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetState {
    /// What it is asked for.
    pub replicas: i32,
    /// Machines that are being deleted.
    pub going: i32,
    /// The other Machines, those that the set gives up first in front: whether each is available.
    pub staying: Vec<bool>,
    /// What was wanted of all sets together when its replicas were last set.
    pub known_wanted: Option<i32>,
}

/// What each set is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub current: i32,
    /// In the order in which the others were given.
    pub others: Vec<i32>,
    /// Whether an old set that could never shrink within the limits gives a Machine up all the same.
    pub is_breaking_deadlock: bool,
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

impl SetState {
    /// Machines, or those that it may make.
    fn most(&self) -> i32 {
        self.replicas.max(number(self.staying.len()).saturating_add(self.going))
    }

    /// Available Machines of those that it keeps with so many replicas.
    fn kept_available(&self, replicas: i32) -> i32 {
        let kept = usize::try_from(replicas).unwrap_or(0).min(self.staying.len());
        number(self.staying.iter().rev().take(kept).filter(|is_available| **is_available).count())
    }

    /// Whether the next Machine that goes below so many replicas is available. One that is not made yet is not.
    fn is_next_available(&self, replicas: i32) -> bool {
        let kept = usize::try_from(replicas).unwrap_or(0);
        let next = self.staying.len().checked_sub(kept);
        next.and_then(|next| self.staying.get(next)).copied().unwrap_or(false)
    }

    /// Whether a Machine that stays is not available.
    pub fn has_unavailable(&self) -> bool {
        self.staying.iter().any(|is_available| !is_available)
    }

    /// Whether it has what it is asked for, and nothing is on its way.
    pub fn is_at_rest(&self) -> bool {
        self.going == 0 && number(self.staying.len()) == self.replicas
    }
}

fn most(sets: &[SetState]) -> i32 {
    sets.iter().map(SetState::most).fold(0, i32::saturating_add)
}

/// The current set's replicas: up to what is wanted, as far as the others leave room.
fn grown(current: &SetState, ceiling: i32, wanted: i32) -> i32 {
    ceiling.max(current.replicas).clamp(0, wanted)
}

/// The next step of a rolling update. `others` stand in the order in which they give way.
pub fn rolling(limits: Limits, current: &SetState, others: &[SetState]) -> Decision {
    let wanted = limits.wanted.max(0);
    let floor = wanted.saturating_sub(limits.unavailable).max(0);
    let ceiling = wanted.saturating_add(limits.surge).saturating_sub(most(others));
    let new = grown(current, ceiling, wanted);
    let mut decision =
        Decision { current: new, others: others.iter().map(|set| set.replicas.max(0)).collect(), is_breaking_deadlock: false };
    let new_available = current.kept_available(new);
    let mut available = others.iter().fold(new_available, |sum, set| sum.saturating_add(set.kept_available(set.replicas)));
    // Old ones that are not available may be so again, new ones may never be: together with the new ones that are, they stay enough. There is
    // room for all that are not available before an available one takes any: room is at least their number and what is above the floor.
    let mut room = decision.others.iter().fold(new_available, |sum, replicas| sum.saturating_add(*replicas)).saturating_sub(floor);
    for (set, replicas) in others.iter().zip(&mut decision.others) {
        while *replicas > 0 && room > 0 {
            let is_available = set.is_next_available(*replicas);
            if is_available && available <= floor {
                break;
            }
            available -= i32::from(is_available);
            room -= 1;
            *replicas -= 1;
        }
    }
    break_deadlock(current, others, &mut decision);
    decision
}

/// Nothing moves, every new Machine is available, and an old set has one that is not: it can only be behind one that the user wants to go
/// first. As upstream, that one goes, although it is missed for a moment.
fn break_deadlock(current: &SetState, others: &[SetState], decision: &mut Decision) {
    let is_moving =
        decision.current != current.replicas || others.iter().zip(&decision.others).any(|(set, replicas)| set.replicas != *replicas);
    let is_at_rest = current.is_at_rest() && others.iter().all(SetState::is_at_rest);
    if is_moving || !is_at_rest || current.has_unavailable() {
        return;
    }
    let stuck = others.iter().zip(&mut decision.others).find(|(set, replicas)| set.has_unavailable() && **replicas > 0);
    if let Some((_, replicas)) = stuck {
        *replicas -= 1;
        decision.is_breaking_deadlock = true;
    }
}

/// The next step where Machines are replaced when somebody deletes them: an old set never fills up again, and the current one makes up.
pub fn on_delete(wanted: i32, current: &SetState, others: &[SetState]) -> Decision {
    let wanted = wanted.max(0);
    let new = grown(current, wanted.saturating_sub(most(others)), wanted);
    let mut kept: Vec<i32> = others.iter().map(|set| set.replicas.clamp(0, number(set.staying.len()))).collect();
    let mut surplus = kept.iter().fold(new, |sum, replicas| sum.saturating_add(*replicas)).saturating_sub(wanted);
    for replicas in &mut kept {
        let given = surplus.clamp(0, *replicas);
        *replicas -= given;
        surplus -= given;
    }
    Decision { current: new, others: kept, is_breaking_deadlock: false }
}

/// Replicas while a rollout is paused: what is wanted is shared among the sets in proportion to what they have, and the surge that is there
/// stays. `sets` stand with the newest first; it gets what does not divide, and everything where nobody has anything.
pub fn shares(limits: Limits, sets: &[SetState]) -> Vec<i32> {
    let wanted = limits.wanted.max(0);
    let have: i64 = sets.iter().map(|set| i64::from(set.replicas.max(0))).sum();
    let known = sets.iter().filter(|set| set.replicas > 0).filter_map(|set| set.known_wanted).max().unwrap_or(wanted);
    let surge = (have - i64::from(known)).clamp(0, i64::from(limits.surge.max(0)));
    let target = if wanted == 0 { 0 } else { i64::from(wanted) + surge };
    if have == target {
        return sets.iter().map(|set| set.replicas.max(0)).collect();
    }
    let share = |set: &SetState| if have == 0 { 0 } else { i64::from(set.replicas.max(0)) * target / have };
    let mut shares: Vec<i64> = sets.iter().map(share).collect();
    let mut left = target - shares.iter().sum::<i64>();
    // No set gets a Machine that it would have to give up again: a rest goes one by one, the newest first, to those that have some.
    while left > 0 {
        let before = left;
        for (share, set) in shares.iter_mut().zip(sets) {
            if left > 0 && (set.replicas > 0 || have == 0) {
                *share += 1;
                left -= 1;
            }
            if have == 0 {
                *share += left;
                left = 0;
            }
        }
        if left == before {
            break;
        }
    }
    shares.into_iter().map(|share| i32::try_from(share).unwrap_or(i32::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Replicas of the current set, and of the others.
    type Expected<'a> = (i32, &'a [i32]);

    fn set(replicas: i32, going: i32, staying: &[u8]) -> SetState {
        SetState { replicas, going, staying: staying.iter().map(|is_available| *is_available == 1).collect(), known_wanted: None }
    }

    fn limits(wanted: i32, surge: i32, unavailable: i32) -> Limits {
        Limits { wanted, surge, unavailable }
    }

    #[test]
    fn each_step_of_a_rolling_update() {
        let table: &[(&str, Limits, SetState, &[SetState], Expected<'_>)] = &[
            ("the first set gets all at once", limits(3, 1, 0), set(0, 0, &[]), &[], (3, &[])),
            ("a lone set follows", limits(5, 0, 1), set(3, 0, &[1, 1, 1]), &[], (5, &[])),
            ("and down", limits(1, 1, 0), set(3, 0, &[1, 1, 1]), &[], (1, &[])),
            ("a new one beyond what is wanted", limits(3, 1, 0), set(0, 0, &[]), &[set(3, 0, &[1, 1, 1])], (1, &[3])),
            ("nothing goes before it is available", limits(3, 1, 0), set(1, 0, &[0]), &[set(3, 0, &[1, 1, 1])], (1, &[3])),
            ("then an old one goes", limits(3, 1, 0), set(1, 0, &[1]), &[set(3, 0, &[1, 1, 1])], (1, &[2])),
            ("its place is taken when it is gone", limits(3, 1, 0), set(1, 0, &[1]), &[set(2, 1, &[1, 1])], (1, &[2])),
            ("not before", limits(3, 1, 0), set(1, 0, &[1]), &[set(2, 0, &[1, 1])], (2, &[2])),
            ("without surge an old one goes first", limits(3, 0, 1), set(0, 0, &[]), &[set(3, 0, &[1, 1, 1])], (0, &[2])),
            ("without surge the next waits", limits(3, 0, 1), set(1, 0, &[0]), &[set(2, 0, &[1, 1])], (1, &[2])),
            ("both limits are used at once", limits(4, 1, 1), set(0, 0, &[]), &[set(4, 0, &[1, 1, 1, 1])], (1, &[3])),
            ("what is not available goes first", limits(3, 1, 0), set(1, 0, &[1]), &[set(2, 0, &[1, 1]), set(1, 0, &[0])], (1, &[2, 0])),
            ("none goes while none of the new is there", limits(3, 1, 0), set(1, 0, &[0]), &[set(3, 0, &[0, 0, 0])], (1, &[3])),
            ("the oldest set goes first", limits(3, 1, 0), set(2, 0, &[1, 1]), &[set(1, 0, &[1]), set(1, 0, &[1])], (2, &[0, 1])),
            ("fewer wanted in the middle", limits(2, 1, 0), set(1, 0, &[1]), &[set(3, 0, &[1, 1, 1])], (1, &[1])),
            ("more wanted in the middle", limits(6, 1, 0), set(1, 0, &[1]), &[set(3, 0, &[1, 1, 1])], (4, &[3])),
            ("none wanted", limits(0, 1, 0), set(1, 0, &[1]), &[set(3, 0, &[1, 1, 1])], (0, &[0])),
            ("a set that is being deleted only takes room", limits(3, 1, 0), set(0, 0, &[]), &[set(0, 3, &[])], (1, &[0])),
            ("one that was never made is given up", limits(3, 1, 0), set(1, 0, &[1]), &[set(3, 0, &[1, 1])], (1, &[2])),
        ];
        for (case, limits, current, others, (new, old)) in table {
            let decision = rolling(*limits, current, others);
            assert_eq!((decision.current, decision.others.as_slice()), (*new, *old), "{case}");
            assert!(!decision.is_breaking_deadlock, "{case}");
        }
    }

    #[test]
    fn a_marked_one_before_an_unavailable_one_is_no_deadlock() {
        let stuck = set(3, 0, &[1, 0, 1]);
        let decision = rolling(limits(3, 1, 0), &set(1, 0, &[1]), std::slice::from_ref(&stuck));
        assert_eq!((decision.current, decision.others, decision.is_breaking_deadlock), (1, vec![2], true));
        // Not while a new one may still come, nor while something moves.
        assert_eq!(rolling(limits(3, 1, 0), &set(1, 0, &[0]), std::slice::from_ref(&stuck)).others, [3]);
        assert_eq!(rolling(limits(3, 1, 0), &set(1, 1, &[1]), &[stuck]).others, [3]);
    }

    #[test]
    fn on_delete_only_makes_up_for_what_somebody_deleted() {
        let table: &[(&str, i32, SetState, &[SetState], Expected<'_>)] = &[
            ("nothing by itself", 3, set(0, 0, &[]), &[set(3, 0, &[1, 1, 1])], (0, &[3])),
            ("an old one is being deleted", 3, set(0, 0, &[]), &[set(3, 1, &[1, 1])], (0, &[2])),
            ("it is gone", 3, set(0, 0, &[]), &[set(2, 0, &[1, 1])], (1, &[2])),
            ("it is gone before we looked", 3, set(0, 0, &[]), &[set(3, 0, &[1, 1])], (0, &[2])),
            ("more are wanted", 5, set(1, 0, &[1]), &[set(2, 0, &[1, 1])], (3, &[2])),
            ("fewer are wanted: old ones go first", 2, set(1, 0, &[1]), &[set(2, 0, &[1, 1])], (1, &[1])),
            ("fewer than new ones", 1, set(2, 0, &[1, 1]), &[set(2, 0, &[1, 1])], (1, &[0])),
        ];
        for (case, wanted, current, others, (new, old)) in table {
            let decision = on_delete(*wanted, current, others);
            assert_eq!((decision.current, decision.others.as_slice()), (*new, *old), "{case}");
        }
    }

    #[test]
    fn a_paused_rollout_is_scaled_in_proportion() {
        let known = |replicas: i32, known: i32| SetState { replicas, known_wanted: Some(known), ..SetState::default() };
        let table: &[(&str, Limits, &[SetState], &[i32])] = &[
            ("nothing changes", limits(3, 1, 0), &[known(1, 3), known(3, 3)], &[1, 3]),
            ("the surge stays", limits(6, 1, 0), &[known(1, 3), known(3, 3)], &[2, 5]),
            ("without surge none comes", limits(6, 1, 0), &[known(1, 3), known(2, 3)], &[2, 4]),
            ("down", limits(2, 1, 0), &[known(2, 6), known(4, 6)], &[1, 1]),
            ("to none", limits(0, 1, 0), &[known(1, 3), known(3, 3)], &[0, 0]),
            ("from none", limits(4, 1, 0), &[known(0, 0), known(0, 0)], &[4, 0]),
            ("what is empty stays so", limits(5, 1, 0), &[known(0, 3), known(3, 3)], &[0, 5]),
            ("begun and lost between two sets", limits(6, 1, 0), &[known(2, 6), known(3, 3)], &[3, 3]),
        ];
        for (case, limits, sets, expected) in table {
            assert_eq!(shares(*limits, sets), *expected, "{case}");
        }
    }

    /// A world of numbers: sets make and give up Machines as MachineSets do; Machines become available, and go, when they are told to.
    #[derive(Clone, Debug)]
    struct Model {
        limits: Limits,
        /// The current one first.
        sets: Vec<SetState>,
    }

    impl Model {
        fn total(&self) -> i32 {
            self.sets.iter().map(|set| set.going + number(set.staying.len())).sum()
        }

        /// Available ones of those that are to stay.
        fn available(&self) -> i32 {
            self.sets.iter().map(|set| set.kept_available(set.replicas)).sum()
        }

        /// Our step, and what the sets do about it. Whether anything changed.
        fn step(&mut self) -> (bool, bool) {
            let before = self.clone();
            let decision = rolling(self.limits, &self.sets[0], &self.sets[1..]);
            for (set, replicas) in self.sets.iter_mut().zip(std::iter::once(decision.current).chain(decision.others)) {
                set.replicas = replicas;
                let surplus = set.staying.len().saturating_sub(usize::try_from(replicas).unwrap());
                set.staying.drain(..surplus);
                set.going += number(surplus);
                while number(set.staying.len()) + set.going < replicas {
                    // What is not available goes first.
                    set.staying.insert(0, false);
                }
            }
            (before.sets != self.sets, decision.is_breaking_deadlock)
        }

        /// Something happens, chosen by a number. Whether anything could.
        fn happen(&mut self, choice: usize) -> bool {
            let can: Vec<(usize, bool)> = (0..self.sets.len()).flat_map(|index| [(index, true), (index, false)]).collect();
            let possible = |(index, is_arrival): &(usize, bool)| {
                let set = &self.sets[*index];
                if *is_arrival { set.has_unavailable() } else { set.going > 0 }
            };
            let possible: Vec<(usize, bool)> = can.into_iter().filter(possible).collect();
            let Some((index, is_arrival)) = possible.get(choice % possible.len().max(1)).copied() else { return false };
            let set = &mut self.sets[index];
            if is_arrival {
                let at = set.staying.iter().position(|is_available| !is_available).unwrap();
                set.staying[at] = true;
                set.staying.sort_unstable();
            } else {
                set.going -= 1;
            }
            true
        }
    }

    fn sets() -> impl Strategy<Value = Vec<SetState>> {
        let one = (0..6_i32, 0..3_i32, proptest::collection::vec(any::<bool>(), 0..6)).prop_map(|(replicas, going, mut staying)| {
            staying.sort_unstable();
            SetState { replicas, going, staying, known_wanted: None }
        });
        proptest::collection::vec(one, 1..4)
    }

    fn any_limits() -> impl Strategy<Value = Limits> {
        (0..8_i32, 0..4_i32, 0..4_i32).prop_map(|(wanted, surge, unavailable)| {
            let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
            Limits { wanted, surge, unavailable: unavailable.min(wanted) }
        })
    }

    proptest! {
        /// From any state, in any order of arrivals: never more than there were or wanted + surge, never fewer available ones by our
        /// doing than the limit, and in the end all are new.
        #[test]
        fn it_converges_within_its_limits(limits in any_limits(), sets in sets(), choices in proptest::collection::vec(any::<usize>(), 200)) {
            let mut model = Model { limits, sets };
            let most = model.total().max(model.sets.iter().map(SetState::most).sum()).max(limits.wanted + limits.surge);
            let floor = limits.wanted - limits.unavailable;
            let mut choices = choices.into_iter().cycle();
            for round in 0.. {
                prop_assert!(round < 400, "it does not end: {model:?}");
                let before = model.available();
                let (is_moving, is_breaking) = model.step();
                prop_assert!(!is_breaking, "{:?}", model);
                prop_assert!(model.available() >= before.min(floor), "{} of {}: {:?}", model.available(), before, model);
                prop_assert!(model.total() <= most, "{} of {}: {:?}", model.total(), most, model);
                for set in &model.sets {
                    prop_assert!((0..=most).contains(&set.replicas), "{:?}", model);
                }
                if !model.happen(choices.next().unwrap_or(0)) && !is_moving {
                    break;
                }
            }
            prop_assert_eq!(model.sets[0].replicas, limits.wanted, "{:?}", &model);
            prop_assert!(model.sets[1..].iter().all(|set| set.replicas == 0), "{:?}", &model);
            prop_assert_eq!(model.available(), limits.wanted);
        }

        /// Shares together are what is wanted and at most the surge more, and no set changes the other way.
        #[test]
        fn shares_stay_between_the_old_and_the_new_number(limits in any_limits(), counts in proptest::collection::vec((0..6_i32, proptest::option::of(0..9_i32)), 1..4)) {
            let sets: Vec<SetState> = counts.iter().map(|(replicas, known_wanted)| SetState { replicas: *replicas, known_wanted: *known_wanted, ..SetState::default() }).collect();
            let have: i32 = counts.iter().map(|(replicas, _)| replicas).sum();
            let shares = shares(limits, &sets);
            let total: i32 = shares.iter().sum();
            prop_assert!((limits.wanted..=limits.wanted + limits.surge).contains(&total), "{:?}", shares);
            for ((before, _), after) in counts.iter().zip(&shares) {
                prop_assert!(*after >= 0 && if total >= have { after >= before } else { after <= before }, "{:?}", shares);
            }
        }

        /// OnDelete never takes a Machine while no fewer are wanted, and never makes more than wanted.
        #[test]
        fn on_delete_takes_nothing(wanted in 0..8_i32, sets in sets()) {
            let decision = on_delete(wanted, &sets[0], &sets[1..]);
            let kept: i32 = decision.others.iter().sum();
            let staying: i32 = sets[1..].iter().map(|set| set.replicas.min(number(set.staying.len()))).sum();
            prop_assert!((0..=wanted).contains(&decision.current));
            prop_assert!(kept == staying || kept + decision.current == wanted, "{:?}", decision);
        }
    }
}
