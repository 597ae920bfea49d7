//! What can be done about an etcd without a majority, in the order of what is lost by it. Pure.
//!
//! ```text
//!   a majority of the voters can come back    -> switch them on: nothing is lost
//!   else a member's data can be read          -> from the newest: lost is what only the others had
//!   else                                      -> from a snapshot that somebody has kept: lost is everything since
//! ```
//!
//! An option is refused while one that loses less has not been tried, and so is one that would make a better one impossible. What is not
//! known counts as the better: a machine that vCenter could not be asked about may come back, and machines that run and do not answer may
//! have the quorum among themselves and be only out of our reach. Nobody begins anew beside those.

use std::path::PathBuf;

use talos::client::MemberId;
use talos::database::Database;

use super::look::{Etcd, Look, Node, Plane, Vm};
use crate::names::within;
use crate::problem::{Code, Problem};

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    PowerOn,
    FromMember(String),
    FromSnapshot(Option<PathBuf>),
}

impl Way {
    /// As the flag that asks for it.
    pub fn flag(&self) -> String {
        match self {
            Self::PowerOn => "--power-on".to_owned(),
            Self::FromMember(name) => format!("--from-member {name}"),
            Self::FromSnapshot(Some(file)) => format!("--from-snapshot {}", file.display()),
            Self::FromSnapshot(None) => "--from-snapshot FILE".to_owned(),
        }
    }
}

/// Whether it may be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It loses the least of all that can be done.
    Recommended,
    /// As good as the recommended one, or tried before.
    Possible,
    Refused(String),
}

/// An option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub way: Way,
    pub does: String,
    pub loses: String,
    pub verdict: Verdict,
}

/// A snapshot file that somebody has kept.
#[derive(Clone, Debug)]
pub struct Kept {
    pub file: PathBuf,
    pub database: Database,
}

/// The control planes that are voters, and how many voters there are.
fn voters(look: &Look) -> (Vec<&Plane>, usize) {
    let lists = look.planes.iter().filter_map(|plane| plane.etcd()).filter(|etcd| !etcd.members.is_empty());
    let newest = lists.max_by_key(|etcd| etcd.index);
    match newest {
        Some(etcd) => {
            let voting: Vec<_> = etcd.members.iter().filter(|member| !member.is_learner).collect();
            (look.planes.iter().filter(|plane| voting.iter().any(|member| plane.is(member))).collect(), voting.len())
        }
        // Nobody lists any: those that were members when they were last seen, else all.
        None => {
            let recorded: Vec<&Plane> = look.planes.iter().filter(|plane| plane.recorded.is_some()).collect();
            let known = if recorded.is_empty() { look.planes.iter().collect() } else { recorded };
            let count = known.len();
            (known, count)
        }
    }
}

/// Whether the member's data may be there and be used as it is.
fn may_come_back(plane: &Plane) -> bool {
    match &plane.node {
        Node::Answers(etcd) => etcd.has_data,
        Node::Silent(_) => !plane.is_deleting && plane.vm != Vm::Gone,
    }
}

/// Control planes whose data can be read, the newest first.
pub fn survivors(look: &Look) -> Vec<(&Plane, &Etcd)> {
    let mut found: Vec<(&Plane, &Etcd)> =
        look.planes.iter().filter_map(|plane| Some((plane, plane.etcd().filter(|etcd| etcd.has_data)?))).collect();
    found.sort_by_key(|(plane, etcd)| (std::cmp::Reverse(etcd.index), plane.name().to_owned()));
    found
}

fn names(planes: &[&Plane]) -> String {
    planes.iter().map(|plane| plane.name()).collect::<Vec<_>>().join(", ")
}

/// How a silent control plane stands.
pub fn stand(plane: &Plane) -> String {
    match &plane.vm {
        Vm::Off => "its machine is off".to_owned(),
        Vm::On => "its machine is on, and its node does not answer".to_owned(),
        Vm::Gone => "its machine is gone".to_owned(),
        Vm::Unknown(why) => format!("how its machine stands is not known: {why}"),
    }
}

/// All options, in the order of what is lost by them.
pub fn options(look: &Look, kept: Option<&Kept>) -> Vec<Choice> {
    let (voting, count) = voters(look);
    let needed = count / 2 + 1;
    let back: Vec<&Plane> = voting.iter().copied().filter(|plane| may_come_back(plane)).collect();
    let silent: Vec<&Plane> = back.iter().copied().filter(|plane| plane.etcd().is_none()).collect();
    let is_enough = back.len() >= needed && count > 0;
    let is_tried = look.tried.as_ref().filter(|tried| silent.iter().all(|plane| tried.silent.iter().any(|name| name == plane.name())));
    let unknown: Vec<&Plane> = silent.iter().copied().filter(|plane| matches!(plane.vm, Vm::Unknown(_))).collect();
    let does = match silent.as_slice() {
        [] => "wait for the members that run to elect a leader".to_owned(),
        silent => format!("switch on {} and wait for {}", names(silent), if silent.len() == 1 { "it" } else { "them" }),
    };
    let power_on = match (is_enough, is_tried) {
        (true, None) => Verdict::Recommended,
        (true, Some(_)) => Verdict::Possible,
        (false, _) => {
            let lost: Vec<&Plane> = voting.iter().copied().filter(|plane| !may_come_back(plane)).collect();
            let why: Vec<String> = lost.iter().map(|plane| format!("{}: {}", plane.name(), stand_of_lost(plane))).collect();
            let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
            Verdict::Refused(format!("{} of {count} voters can come back, and {needed} are needed{why}", back.len()))
        }
    };
    let running: Vec<&Plane> = voting.iter().copied().filter(|plane| plane.etcd().is_none() && plane.vm == Vm::On).collect();
    // What loses something waits for what loses nothing, and for knowing whether it is possible.
    let before = match (&power_on, unknown.as_slice()) {
        (Verdict::Possible | Verdict::Refused(_), []) if running.len() >= needed => Some(format!(
            "the machines of {} are on, and may have the quorum among themselves: that their nodes do not answer may be the fault of the \
             network between them and here. If they are lost, delete these machines in vCenter first",
            names(&running)
        )),
        (Verdict::Recommended, _) => Some("it would lose data that --power-on may bring back: try that first".to_owned()),
        (Verdict::Possible, []) | (Verdict::Refused(_), []) => None,
        (_, unknown) => Some(format!(
            "whether the machines of {} are there is not known, and they may hold newer data: {}",
            names(unknown),
            unknown.first().map(|plane| stand(plane)).unwrap_or_default()
        )),
    };
    let tried =
        is_tried.map(|tried| format!(" (tried at {}, and {} did not come back)", tried.at.strftime("%T UTC"), tried.silent.join(", ")));
    let mut choices =
        vec![Choice { way: Way::PowerOn, does: does + &tried.unwrap_or_default(), loses: "nothing".to_owned(), verdict: power_on }];
    let survivors = survivors(look);
    let is_better = |database: &Database, etcd: &Etcd| is_same_line(database, etcd) && database.index > etcd.index;
    let newer = kept.filter(|kept| !survivors.is_empty() && survivors.iter().all(|(_, etcd)| is_better(&kept.database, etcd)));
    let first = survivors.first().copied();
    for (plane, etcd) in &survivors {
        let best = first.filter(|(best, newest)| best.name() != plane.name() && newest.index > etcd.index);
        let verdict = match (&before, best, newer) {
            (Some(before), ..) => Verdict::Refused(before.clone()),
            (None, Some((best, newest)), _) => {
                Verdict::Refused(format!("{} has more: entry {} instead of {}", best.name(), entry(newest.index), entry(etcd.index)))
            }
            (None, None, Some(kept)) => Verdict::Refused(format!("{} has more: entry {}", kept.file.display(), entry(kept.database.index))),
            (None, None, None) if first.is_some_and(|(best, _)| best.name() == plane.name()) => Verdict::Recommended,
            (None, None, None) => Verdict::Possible,
        };
        let lost: Vec<&Plane> = look.planes.iter().filter(|other| other.name() != plane.name() && other.etcd().is_none()).collect();
        let of_whom = if lost.is_empty() { String::new() } else { format!(" that only {} had", names(&lost)) };
        let until = look.unhealthy_since.map(|since| format!("; etcd was whole until {}", since.strftime("%F %T UTC"))).unwrap_or_default();
        choices.push(Choice {
            way: Way::FromMember(plane.name().to_owned()),
            does: begin_anew(look, &format!("the data of {}", plane.name())),
            loses: format!("what was written after entry {}{of_whom}{until}", entry(etcd.index)),
            verdict,
        });
    }
    choices.push(snapshot(look, kept, &before, newer.is_some(), first));
    choices
}

fn stand_of_lost(plane: &Plane) -> String {
    match &plane.node {
        Node::Answers(_) => "its node has no data of etcd".to_owned(),
        Node::Silent(_) if plane.is_deleting => "it is being deleted".to_owned(),
        Node::Silent(_) => stand(plane),
    }
}

fn entry(index: Option<u64>) -> String {
    index.map_or_else(|| "unknown".to_owned(), |index| index.to_string())
}

/// What a recovery does, in words.
fn begin_anew(look: &Look, source: &str) -> String {
    let (answering, silent): (Vec<&Plane>, Vec<&Plane>) = look.planes.iter().partition(|plane| plane.etcd().is_some());
    let wiped = if answering.is_empty() { String::new() } else { format!(", wipe etcd on {}", names(&answering)) };
    let deleted = if silent.is_empty() { String::new() } else { format!(", delete {} with the machine", names(&silent)) };
    format!("begin etcd anew with {source}{deleted}{wiped}; the other control planes join again")
}

/// Whether a file and a member are of the same etcd: after a recovery the log begins anew, and its entries are others.
fn is_same_line(database: &Database, etcd: &Etcd) -> bool {
    let known: Vec<MemberId> = etcd.members.iter().map(|member| member.id).chain(etcd.member).collect();
    known.is_empty() || database.members.iter().any(|member| known.contains(&member.id))
}

fn snapshot(look: &Look, kept: Option<&Kept>, before: &Option<String>, is_newest: bool, first: Option<(&Plane, &Etcd)>) -> Choice {
    let (loses, source) = match kept {
        Some(kept) => (format!("everything after revision {}", kept.database.revision), kept.file.display().to_string()),
        None => ("everything since the snapshot was taken".to_owned(), "a snapshot that you have kept".to_owned()),
    };
    let verdict = match (before, first, kept) {
        (Some(before), ..) => Verdict::Refused(before.clone()),
        (None, Some((best, _)), Some(_)) if !is_newest => {
            Verdict::Refused(format!("{} has at least as much: use --from-member {}", best.name(), best.name()))
        }
        (None, Some((best, _)), None) => {
            Verdict::Refused(format!("{} has its data still, which is newer unless shown otherwise", best.name()))
        }
        (None, _, Some(_)) => Verdict::Recommended,
        (None, None, None) => Verdict::Possible,
    };
    Choice { way: Way::FromSnapshot(kept.map(|kept| kept.file.clone())), does: begin_anew(look, &source), loses, verdict }
}

/// The choice that is asked for, or the one that loses the least.
///
/// # Errors
/// When it is refused, or nothing can be done without more being given.
pub fn choose(look: &Look, choices: &[Choice], wanted: Option<&Way>) -> Result<Choice, Problem> {
    let again = |flag: &str| format!("talosphere repair etcd {}{} {flag}", look.cluster, within(&look.namespace));
    let Some(wanted) = wanted else {
        let best = choices.iter().find(|choice| choice.verdict == Verdict::Recommended);
        return best.cloned().ok_or_else(|| {
            let refused = choices.iter().filter_map(|choice| match &choice.verdict {
                Verdict::Refused(why) => Some(format!("{}: {why}", choice.way.flag())),
                _ => None,
            });
            Problem::new(Code::RepairRefused, format!("nothing can be recommended for etcd of Cluster {}", look.cluster))
                .because("what is left needs something that only you have or know")
                .seen_all(refused)
                .remedy(again("--from-snapshot FILE"))
        });
    };
    let refused = |why: String, remedy: String| {
        Problem::new(Code::RepairRefused, format!("{} is refused for Cluster {}", wanted.flag(), look.cluster)).because(why).remedy(remedy)
    };
    let better = choices.iter().find(|choice| choice.verdict == Verdict::Recommended).map(|choice| again(&choice.way.flag()));
    let better = better.unwrap_or_else(|| again("--dry-run"));
    match choices.iter().find(|choice| choice.way == *wanted) {
        Some(Choice { verdict: Verdict::Refused(why), .. }) => Err(refused(why.clone(), better)),
        Some(choice) => Ok(choice.clone()),
        None => {
            let why = match wanted {
                Way::FromMember(name) if look.plane(name).is_some() => format!("{name} does not answer, or has no data of etcd"),
                Way::FromMember(name) => format!("the cluster has no control plane {name}"),
                _ => "it is not possible".to_owned(),
            };
            Err(refused(why, better))
        }
    }
}

/// Refuses a snapshot of another cluster, and one that does not tell whose it is.
///
/// # Errors
/// With what the file says of itself.
pub fn check_owner(look: &Look, kept: &Kept) -> Result<(), Problem> {
    let database = &kept.database;
    let members: Vec<String> =
        database.members.iter().map(|member| format!("{} ({}, {})", member.name, member.id, member.peer_urls.join(" "))).collect();
    let seen = format!("members when it was taken: {}; revision {}", members.join(", "), database.revision);
    let refused = |what: String| {
        Problem::new(Code::SnapshotRefused, what).seen(seen.clone()).remedy(format!(
            "give a snapshot of Cluster {}, made by `talosphere talos -c {} etcd snapshot FILE`",
            look.cluster, look.cluster
        ))
    };
    let known = |id: MemberId| {
        let lists = look.planes.iter().filter_map(|plane| plane.etcd()).flat_map(|etcd| &etcd.members);
        look.planes.iter().any(|plane| plane.recorded == Some(id)) || lists.into_iter().any(|member| member.id == id)
    };
    match look.authority.as_deref().and_then(|authority| database.is_of(authority)) {
        Some(true) => Ok(()),
        Some(false) => Err(refused(format!("{} is a snapshot of another cluster", kept.file.display()))
            .because("the certificate authority of Kubernetes in it (kube-root-ca.crt) is not the one of this cluster")),
        None if database.members.iter().any(|member| known(member.id)) => Ok(()),
        None => Err(refused(format!("{} does not tell which cluster it is of", kept.file.display()))
            .because("it holds no certificate authority of Kubernetes (kube-root-ca.crt), and none of its members is known here")),
    }
}
