//! What happens in a world, drawn from its seed: the cluster's shape, what its user does, what fails. It can be told in words, played,
//! and made shorter.

use std::fmt;
use std::time::Duration;

use runtime::random::Random;

use super::act::Act;
use super::fault::Fault;
use super::sources;

/// The cluster that is made first, and how long things take.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    pub control_planes: u32,
    pub workers: u32,
    /// As `--speed`: 0 without delays, 10 ten times as fast as a demo.
    pub speed: f64,
    /// Whether the user leaves alone what costs a cluster or a part of it: the last control plane, VMs under it.
    pub is_careful: bool,
}

/// Something at its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since the beginning.
    pub at: Duration,
    pub what: What,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Act(Act),
    Fault(Fault),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Act(act) => write!(f, "the user {act}"),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

/// All of it, in the order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    pub seed: u64,
    pub shape: Shape,
    pub moments: Vec<Moment>,
}

/// Which kind of history is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Anything.
    #[default]
    Any,
    /// The life of three control planes and three workers: create, change, fault, heal, delete.
    Life,
    /// Deletions in the middle of things.
    Deletion,
    /// Anything, and the user does what costs a cluster: deletes its last control plane, destroys VMs by hand.
    Loss,
}

/// Most acts and faults of a history.
const MOST: u64 = 5;

fn pick<T: Clone>(random: &Random, from: &[T], fallback: T) -> T {
    let length = u64::try_from(from.len()).unwrap_or(0);
    usize::try_from(random.below(length)).ok().and_then(|at| from.get(at)).cloned().unwrap_or(fallback)
}

/// A time span of a magnitude that is drawn first: moments, minutes, longer.
pub(super) fn span(random: &Random) -> Duration {
    let (least, more) = pick(random, &[(1, 20), (20, 180), (120, 1200)], (1, 20));
    Duration::from_millis(least * 1000 + random.below(more * 1000))
}

impl History {
    /// What this seed draws, with faults of these names only (all, when none is given).
    pub fn of(seed: u64, scenario: Scenario, faults: &[String]) -> Self {
        let random = sources::random(seed).child("history");
        let is_careful = scenario != Scenario::Loss;
        let shape = if scenario == Scenario::Life {
            Shape { control_planes: 3, workers: 3, speed: 1.0, is_careful }
        } else {
            Shape {
                control_planes: pick(&random, &[1, 1, 3], 1),
                workers: u32::try_from(random.below(4)).unwrap_or(0),
                speed: pick(&random, &[0.0, 1.0, 1.0, 10.0], 1.0),
                is_careful,
            }
        };
        let mut moments = Vec::new();
        // The first minutes are the busiest: the cluster comes up then.
        let mut at = if scenario == Scenario::Life { Duration::from_secs(150) } else { Duration::from_millis(random.below(40_000)) };
        let acts = if scenario == Scenario::Life { 1 + random.below(2) } else { 1 + random.below(MOST) };
        for _ in 0..acts {
            let act =
                if scenario == Scenario::Deletion && random.below(2) == 0 { Act::DeleteCluster } else { Act::draw(&random, is_careful) };
            let is_end = act == Act::DeleteCluster;
            moments.push(Moment { at, what: What::Act(act) });
            if is_end {
                break;
            }
            at += span(&random);
        }
        let end = at;
        let count = if scenario == Scenario::Life { 1 + random.below(2) } else { random.below(MOST + 1) };
        for _ in 0..count {
            let millis = u64::try_from(end.as_millis()).unwrap_or(0);
            let at = Duration::from_millis(random.below(millis.max(1)));
            let fault = Fault::draw(&random);
            if faults.is_empty() || faults.iter().any(|name| name == fault.name()) {
                moments.push(Moment { at, what: What::Fault(fault) });
            }
        }
        moments.sort_by_key(|moment| moment.at);
        Self { seed, shape, moments }
    }

    /// The same without some of its moments.
    #[must_use]
    pub fn without(&self, mut is_dropped: impl FnMut(usize) -> bool) -> Self {
        let kept = self.moments.iter().enumerate().filter(|(at, _)| !is_dropped(*at));
        Self { moments: kept.map(|(_, moment)| moment.clone()).collect(), ..self.clone() }
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { control_planes, workers, speed, .. } = &self.shape;
        let pace = if *speed == 0.0 { "nothing takes time".to_owned() } else { format!("things go {speed} times as fast as in a demo") };
        writeln!(f, "  0.0 s  a cluster of {control_planes} control planes and {workers} workers is brought up; {pace}")?;
        for moment in &self.moments {
            writeln!(f, "  {:.1} s  {}", moment.at.as_secs_f64(), moment.what)?;
        }
        write!(f, "  then every fault ends, and when the cluster has settled it is deleted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_history_always() {
        for seed in 0..50 {
            let history = History::of(seed, Scenario::Any, &[]);
            assert_eq!(history, History::of(seed, Scenario::Any, &[]));
            assert!(history.moments.is_sorted_by_key(|moment| moment.at), "{history}");
            let quiet = History::of(seed, Scenario::Any, &["none".to_owned()]);
            let acts = |history: &History| {
                history.moments.iter().filter(|moment| matches!(moment.what, What::Act(_))).cloned().collect::<Vec<_>>()
            };
            assert!(acts(&quiet) == acts(&history) && quiet.moments == acts(&quiet), "without faults the user does the same");
        }
    }
}
