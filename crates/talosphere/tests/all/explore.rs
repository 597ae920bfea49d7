//! The simulation engine: seeds that hold, planted defects that stored seeds find, failing histories that become short and replay exactly.

use std::time::Duration;

use runtime::defects::{Defect, Defects};
use talosphere::explore::{Act, Fault, History, Moment, Scenario, Shape, What, find, play, shrink};

/// How far from its stored seed a defect may be found: what a world does with a history changes with the product.
const NEAR: u64 = 4;

/// The seed that finds a defect. Those that no drawn history finds have a run of their own beside the other planted defects.
const fn stored(defect: Defect) -> Option<u64> {
    match defect {
        Defect::BootstrapTwice
        | Defect::CloneWithoutMarker
        | Defect::ForgetVm
        | Defect::AllocateTaken
        | Defect::AllocateGateway
        | Defect::RegenerateSecrets
        | Defect::SecretInEvent
        | Defect::NonsenseReplicas => Some(1),
        Defect::AcknowledgeEarly => Some(3),
        Defect::SurgeBeyond | Defect::UnavailableBeyond => Some(6),
        Defect::GoBeforeLeaving => Some(17),
        Defect::IgnoreBudgets | Defect::LeaveUndrained => Some(23),
        Defect::CloneAfresh => Some(32),
        Defect::DrainForever | Defect::DestroyByName => None,
    }
}

fn seeds_find(defects: impl Iterator<Item = &'static Defect>) {
    let mut missed = Vec::new();
    for defect in defects {
        let Some(seed) = stored(*defect) else { continue };
        if find(*defect, seed..=seed + NEAR, Scenario::Any).unwrap_or_else(|problem| panic!("{problem}")).is_none() {
            missed.push(format!("{defect:?} by the seeds from {seed} on"));
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn stored_seeds_find_the_first_half_of_the_planted_defects() {
    seeds_find(Defect::ALL.iter().step_by(2));
}

#[test]
fn stored_seeds_find_the_other_half_of_the_planted_defects() {
    seeds_find(Defect::ALL.iter().skip(1).step_by(2));
}

#[test]
fn the_first_seeds_hold_and_replay_exactly() {
    for seed in 1..=6 {
        let history = History::of(seed, Scenario::Any, &[]);
        let outcome = play(&history, &Defects::none()).unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(outcome.broken, [], "seed {seed}:\n{history}");
        let again = play(&history, &Defects::none()).unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(again.text(), outcome.text(), "seed {seed}");
    }
}

#[test]
fn a_failing_history_becomes_short() {
    let defects = Defects::planted([Defect::NonsenseReplicas]);
    let moment = |seconds, what| Moment { at: Duration::from_secs(seconds), what };
    let history = History {
        seed: 77,
        shape: Shape { control_planes: 1, workers: 2, speed: 1.0, is_careful: true },
        moments: vec![
            moment(5, What::Fault(Fault::SessionsEnd)),
            moment(60, What::Act(Act::Edit)),
            moment(90, What::Act(Act::ScaleWorkers(1))),
        ],
    };
    let outcome = play(&history, &defects).unwrap_or_else(|problem| panic!("{problem}"));
    assert!(outcome.broken.iter().any(|violation| violation.rule == 10), "{:?}", outcome.broken);
    let shorter = shrink(outcome, &defects).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!((shorter.history.moments.len(), shorter.history.shape.workers), (0, 1), "{}", shorter.history);
    assert!(shorter.broken.iter().all(|violation| violation.rule == 10));
}
