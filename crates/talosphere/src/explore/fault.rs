//! What fails in a world: processes, ways, answers, nodes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::random::Random;
use simulator::hooks::{Call, KUBE, Phase, TALOS, VCENTER, Verdict};

use super::act::Which;
use super::history::span;
use super::player::Player;

/// A fault. A new one needs its name, its words, its draw, its beginning and its end, below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies at a beat of the [`super::Pulse`] and is started again after a while.
    Kill { beats: u64, down: Duration },
    /// A second owner runs beside the first.
    SecondOwner { lasts: Duration },
    /// Controllers do not reach vCenter.
    VCenterAway { lasts: Duration },
    /// Nobody reaches a node.
    NodeAway { which: Which, lasts: Duration },
    /// Controllers do not reach the API.
    ApiAway { lasts: Duration },
    /// Answers of the API to controllers' changes are lost after the effect.
    ApiAnswersLost { count: u32 },
    /// Some calls go wrong for a while.
    Calls { how: How, lasts: Duration },
    /// vCenter ends all sessions.
    SessionsEnd,
}

/// How calls go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    pub face: &'static str,
    /// Only methods that begin so.
    pub method: &'static str,
    pub wrong: Wrong,
    /// Of a hundred.
    pub share: u64,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The reply is lost after the effect.
    ReplyLost,
    /// It is refused before the effect.
    Refused(&'static str),
}

const AWAY: &str = "Unavailable";
const KINDS: &[How] = &[
    How { face: VCENTER, method: "", wrong: Wrong::ReplyLost, share: 20 },
    How { face: VCENTER, method: "", wrong: Wrong::Refused("503"), share: 30 },
    How { face: VCENTER, method: "CloneVM_Task", wrong: Wrong::ReplyLost, share: 100 },
    How { face: VCENTER, method: "CloneVM_Task", wrong: Wrong::Refused("NoDiskSpace"), share: 100 },
    How { face: VCENTER, method: "ReconfigVM_Task", wrong: Wrong::Refused("ConcurrentAccess"), share: 50 },
    How { face: VCENTER, method: "PowerO", wrong: Wrong::Refused("TaskInProgress"), share: 50 },
    How { face: VCENTER, method: "Destroy_Task", wrong: Wrong::Refused("ResourceInUse"), share: 50 },
    How { face: TALOS, method: "", wrong: Wrong::ReplyLost, share: 30 },
    How { face: TALOS, method: "", wrong: Wrong::Refused(AWAY), share: 50 },
    How { face: TALOS, method: "Bootstrap", wrong: Wrong::ReplyLost, share: 100 },
    How { face: TALOS, method: "Etcd", wrong: Wrong::ReplyLost, share: 70 },
    How { face: KUBE, method: "", wrong: Wrong::ReplyLost, share: 30 },
    How { face: KUBE, method: "", wrong: Wrong::Refused(AWAY), share: 50 },
];

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = if self.method.is_empty() { String::new() } else { format!(" {}", self.method) };
        let face = match self.face {
            VCENTER => "vCenter",
            TALOS => "nodes",
            _ => "the workload's API",
        };
        match self.wrong {
            Wrong::ReplyLost => write!(f, "{} of 100 replies of {face} to{which} calls are lost after the effect", self.share),
            Wrong::Refused(why) => write!(f, "{} of 100{which} calls to {face} are refused ({why})", self.share),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { beats, down } => write!(f, "the process dies {beats} calls later and is started again after {down:.1?}"),
            Self::SecondOwner { lasts } => write!(f, "a second owner runs for {lasts:.1?}"),
            Self::VCenterAway { lasts } => write!(f, "vCenter is out of reach for {lasts:.1?}"),
            Self::NodeAway { which, lasts } => write!(f, "{which} is out of reach for {lasts:.1?}"),
            Self::ApiAway { lasts } => write!(f, "controllers do not reach the API for {lasts:.1?}"),
            Self::ApiAnswersLost { count } => write!(f, "the next {count} answers of the API to controllers' changes are lost"),
            Self::Calls { how, lasts } => write!(f, "for {lasts:.1?} {how}"),
            Self::SessionsEnd => write!(f, "vCenter ends all sessions"),
        }
    }
}

/// Names of faults, for `--faults`.
pub const NAMES: &[&str] = &["kill", "second-owner", "vcenter-away", "node-away", "api-away", "api-answers-lost", "calls", "sessions-end"];

impl Fault {
    /// As `--faults` names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::SecondOwner { .. } => "second-owner",
            Self::VCenterAway { .. } => "vcenter-away",
            Self::NodeAway { .. } => "node-away",
            Self::ApiAway { .. } => "api-away",
            Self::ApiAnswersLost { .. } => "api-answers-lost",
            Self::Calls { .. } => "calls",
            Self::SessionsEnd => "sessions-end",
        }
    }

    /// How long it lasts, if it does.
    pub(super) fn lasts(&mut self) -> Option<&mut Duration> {
        match self {
            Self::Kill { down: lasts, .. }
            | Self::SecondOwner { lasts }
            | Self::VCenterAway { lasts }
            | Self::NodeAway { lasts, .. }
            | Self::ApiAway { lasts }
            | Self::Calls { lasts, .. } => Some(lasts),
            Self::ApiAnswersLost { .. } | Self::SessionsEnd => None,
        }
    }

    pub(super) fn draw(random: &Random) -> Self {
        let lasts = span(random);
        match random.below(14) {
            0..=3 => Self::Kill { beats: 1 + random.below(if random.below(2) == 0 { 20 } else { 400 }), down: lasts },
            4 => Self::SecondOwner { lasts },
            5 => Self::VCenterAway { lasts },
            6 => Self::NodeAway { which: Which::draw(random), lasts },
            7 => Self::ApiAway { lasts },
            8 => Self::ApiAnswersLost { count: 1 + u32::try_from(random.below(5)).unwrap_or(0) },
            9 => Self::SessionsEnd,
            _ => {
                let at = usize::try_from(random.below(u64::try_from(KINDS.len()).unwrap_or(1))).unwrap_or(0);
                KINDS.get(at).map_or(Self::SessionsEnd, |how| Self::Calls { how: *how, lasts })
            }
        }
    }

    /// Begins it. Answers how it is ended, and when.
    pub(super) fn begin(&self, player: &Player) -> Option<(Duration, End)> {
        let world = &player.world;
        match self {
            // The player follows the pulse.
            Self::Kill { beats, .. } => {
                world.die_at(*beats);
                None
            }
            Self::SecondOwner { lasts } => Some((*lasts, End::SecondOwner)),
            Self::VCenterAway { lasts } => {
                let host = player.vcenter_host();
                world.simulator.vm_network().isolate(&host);
                Some((*lasts, End::Rejoin(host)))
            }
            Self::NodeAway { which, lasts } => {
                let address = player.address(*which)?;
                world.simulator.vm_network().isolate(&address);
                Some((*lasts, End::Rejoin(address)))
            }
            Self::ApiAway { lasts } => {
                world.line.cut();
                Some((*lasts, End::Line))
            }
            Self::ApiAnswersLost { count } => {
                world.line.lose(*count);
                None
            }
            Self::Calls { how, lasts } => Some((*lasts, End::Calls(player.calls.begin(*how)))),
            Self::SessionsEnd => {
                world.simulator.vcenter().end_sessions();
                None
            }
        }
    }
}

/// How a fault is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    SecondOwner,
    Rejoin(String),
    Line,
    Calls(u64),
}

/// Calls that go wrong at present. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Calls(Arc<Mutex<Going>>);

#[derive(Debug)]
struct Going {
    random: Random,
    next: u64,
    ways: Vec<(u64, How)>,
}

impl Calls {
    pub fn new(random: Random) -> Self {
        Self(Arc::new(Mutex::new(Going { random, next: 0, ways: Vec::new() })))
    }

    fn begin(&self, how: How) -> u64 {
        let mut going = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        going.next += 1;
        let number = going.next;
        going.ways.push((number, how));
        number
    }

    pub fn end(&self, number: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ways.retain(|(other, _)| *other != number);
    }

    pub fn end_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ways.clear();
    }

    /// What becomes of a call, as a hook of the simulator.
    pub fn judge(&self, call: &Call) -> Verdict {
        let going = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, how) in &going.ways {
            let is_phase = matches!((how.wrong, call.phase), (Wrong::ReplyLost, Phase::After) | (Wrong::Refused(_), Phase::Before));
            if is_phase && call.face == how.face && call.method.starts_with(how.method) && going.random.below(100) < how.share {
                return match how.wrong {
                    Wrong::ReplyLost => Verdict::DropReply,
                    Wrong::Refused(why) => Verdict::Fault(why.to_owned()),
                };
            }
        }
        Verdict::Proceed
    }
}
