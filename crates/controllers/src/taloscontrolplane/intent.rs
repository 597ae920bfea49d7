//! What a control plane has decided and not seen done yet, kept in its annotations. Pure.
//!
//! Two intents are stored before their effects: the names of machines to be created (so that a lost answer never makes a machine too
//! many), and the one node that etcd is bootstrapped on (so that it is never a second one). Both survive a restart and a move.

use std::fmt;

use api::controlplane::TalosControlPlane;
use jiff::Timestamp;

/// Each of them `machine,infrastructure,configuration`.
pub use crate::naming::PLANNED_MACHINES;

/// Annotation: where etcd is bootstrapped.
pub const BOOTSTRAP_NODE: &str = "talosphere.dev/bootstrap-node";
/// Annotation of a Machine: the number of its etcd member, in hexadecimal. It tells the member that was this machine's from a stranger's
/// when addresses and names no longer do.
pub const ETCD_MEMBER: &str = "talosphere.dev/etcd-member";
/// The value of [`BOOTSTRAP_NODE`] of a control plane that began with no machine and has chosen no node yet.
const UNBORN: &str = "none";

/// A machine to be created, with the names of its parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlannedMachine {
    pub machine: String,
    pub infrastructure: String,
    pub config: String,
}

impl fmt::Display for PlannedMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.machine, self.infrastructure, self.config)
    }
}

/// The annotation's text for these machines.
pub fn planned_text(machines: &[PlannedMachine]) -> String {
    machines.iter().map(ToString::to_string).collect::<Vec<_>>().join(";")
}

fn annotation<'a>(control_plane: &'a TalosControlPlane, key: &str) -> Option<&'a str> {
    control_plane.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The machines that are to be created. What cannot be read was not written by us and is left out.
pub fn planned(control_plane: &TalosControlPlane) -> Vec<PlannedMachine> {
    let entries = annotation(control_plane, PLANNED_MACHINES).unwrap_or_default().split(';');
    let read = |entry: &str| match entry.split(',').collect::<Vec<_>>()[..] {
        [machine, infrastructure, config] if ![machine, infrastructure, config].contains(&"") => {
            Some(PlannedMachine { machine: machine.to_owned(), infrastructure: infrastructure.to_owned(), config: config.to_owned() })
        }
        _ => None,
    };
    entries.filter_map(read).collect()
}

/// Whether the annotation of planned machines is there.
pub fn has_planned(control_plane: &TalosControlPlane) -> bool {
    annotation(control_plane, PLANNED_MACHINES).is_some()
}

/// Where etcd is bootstrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nothing is known: the control plane was made or moved here by somebody else.
    Unknown,
    /// It began here, with no machine; no node has been asked.
    Unborn,
    /// This one, and no other ever.
    Node { machine: String, address: String, since: Option<Timestamp> },
}

/// The stored choice. A text that cannot be read counts as a choice of an unknown node: nobody else may be asked.
pub fn choice(control_plane: &TalosControlPlane) -> Choice {
    let Some(text) = annotation(control_plane, BOOTSTRAP_NODE) else { return Choice::Unknown };
    if text == UNBORN {
        return Choice::Unborn;
    }
    let mut parts = text.split_whitespace();
    let mut next = || parts.next().unwrap_or_default().to_owned();
    Choice::Node { machine: next(), address: next(), since: next().parse().ok() }
}

/// The annotation's text for a choice; none for an unknown one.
pub fn choice_text(choice: &Choice) -> Option<String> {
    match choice {
        Choice::Unknown => None,
        Choice::Unborn => Some(UNBORN.to_owned()),
        Choice::Node { machine, address, since } => {
            Some(format!("{machine} {address} {}", since.map(|since| since.to_string()).unwrap_or_default()).trim_end().to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn annotated(key: &str, text: &str) -> TalosControlPlane {
        let mut control_plane = TalosControlPlane::default();
        control_plane.metadata.annotations = Some(BTreeMap::from([(key.to_owned(), text.to_owned())]));
        control_plane
    }

    #[test]
    fn intents_survive_their_text() {
        let names =
            |n: &str| PlannedMachine { machine: format!("cp-{n}"), infrastructure: format!("tmpl-{n}"), config: format!("cfg-{n}") };
        let machines = [names("a"), names("b")];
        assert_eq!(planned(&annotated(PLANNED_MACHINES, &planned_text(&machines))), machines);
        assert_eq!(planned(&annotated(PLANNED_MACHINES, "x;a,b;,,;c,d,e")).len(), 1);
        assert_eq!(choice(&TalosControlPlane::default()), Choice::Unknown);
        let since = "2026-01-01T00:00:00Z".parse().ok();
        for kept in [Choice::Unborn, Choice::Node { machine: "m".into(), address: "10.0.0.1".into(), since }] {
            assert_eq!(choice(&annotated(BOOTSTRAP_NODE, &choice_text(&kept).unwrap())), kept);
        }
        assert!(
            matches!(choice(&annotated(BOOTSTRAP_NODE, "???")), Choice::Node { .. }),
            "what cannot be read is no licence to ask anybody"
        );
    }
}
