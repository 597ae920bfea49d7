//! A recovery of etcd that a person has begun, and what the controllers do while it lasts. Pure.
//!
//! Where a majority of etcd's voters is lost, no arithmetic of ours brings it back: somebody has to say which data is kept and which is given
//! up. `talosphere repair etcd` stores that in an annotation of the TalosControlPlane before it touches anything, carries it out, and takes
//! the annotation away when etcd leads again. Until then the controllers begin no etcd, take no member out and replace no machine. Three
//! things they go on doing, because the recovery waits for them: the machines that were given up are let go, their parts are completed, and
//! where no machine is left one is made.
//!
//! ```text
//!   recorded: source, digest, given up -> those are deleted, the others wiped -> onto recorded -> data sent, bootstrap -> it leads -> gone
//! ```

use std::collections::BTreeSet;

use api::controlplane::TalosControlPlane;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::etcd::NodeView;
use super::plan::{Bootstrap, Observed, Plan, Step};
use super::size;
use crate::controlplane::has_etcd_hook;

/// Annotation of a TalosControlPlane: the recovery that is under way.
pub const ETCD_RECOVERY: &str = "talosphere.dev/etcd-recovery";

/// What is recovered from what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    pub since: Timestamp,
    /// The Machine whose data it is; none for a snapshot that somebody has kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The revision that etcd goes back to.
    pub revision: u64,
    /// The SHA-256 of the database, in hexadecimal: the name of its file.
    pub digest: String,
    /// Whether the digest stands behind it.
    pub has_digest: bool,
    /// Machines whose data is given up: they are deleted, so that no majority of the old etcd can ever come back.
    #[serde(default)]
    pub given_up: BTreeSet<String>,
    /// The Machine on which etcd begins anew. Stored before it does, when no other machine has data any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onto: Option<String>,
}

impl Recovery {
    /// The recovery that is stored on a control plane.
    ///
    /// # Errors
    /// When there is one that cannot be read. Then nobody knows what was given up.
    pub fn of(control_plane: &TalosControlPlane) -> Result<Option<Self>, String> {
        let text = control_plane.metadata.annotations.as_ref().and_then(|known| known.get(ETCD_RECOVERY));
        text.map(|text| serde_json::from_str(text)).transpose().map_err(|error| {
            format!(
                "the annotation {ETCD_RECOVERY} cannot be read ({error}): what it says is to be corrected, or the annotation taken away"
            )
        })
    }

    /// The annotation's text.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Where the data is from, in words.
    pub fn source(&self) -> String {
        match &self.from {
            Some(machine) => format!("the data of {machine}"),
            None => "a snapshot file".to_owned(),
        }
    }

    fn is_given_up(&self, node: &NodeView) -> bool {
        self.given_up.contains(node.name())
    }
}

/// Whether a recovery holds everything else up; then the plan has all that is to be done.
pub(super) fn hold(observed: &Observed, plan: &mut Plan) -> bool {
    let recovery = match Recovery::of(&observed.control_plane) {
        Ok(None) => return false,
        Ok(Some(recovery)) => recovery,
        Err(told) => {
            plan.etcd_faults.insert(0, told);
            plan.bootstrap = Bootstrap::Done;
            return true;
        }
    };
    plan.bootstrap = Bootstrap::Done;
    let since = recovery.since.strftime("%F %T UTC");
    plan.etcd_faults.insert(
        0,
        format!(
            "etcd is being recovered from {} at revision {} since {since}: control planes neither come nor go meanwhile; `talosphere repair \
             etcd` goes on with it",
            recovery.source(),
            recovery.revision
        ),
    );
    let mut kept = Vec::new();
    for node in observed.nodes.iter().filter(|node| node.is_deleting() && has_etcd_hook(&node.machine)) {
        if recovery.is_given_up(node) {
            plan.steps.push(Step::Release { machine: node.name().to_owned() });
        } else {
            kept.push(node.name());
        }
    }
    if !kept.is_empty() {
        plan.leaving = Some(format!("{} stays until etcd is recovered", kept.join(", ")));
    }
    if plan.missing.is_none() && observed.alive().all(|node| recovery.is_given_up(node)) {
        size::one(observed, plan);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::etcd::tests::{away, lists, member, node};
    use super::super::plan::plan;
    use super::super::tests::{absent, annotated, bootstrapped, deleting, held, planned, world};
    use super::super::{etcd::Answer, intent};
    use super::*;
    use proptest::prelude::*;

    fn recovery(given_up: impl IntoIterator<Item = u64>) -> Recovery {
        Recovery {
            since: "2026-03-01T12:00:00Z".parse().unwrap(),
            from: Some("m1".into()),
            revision: 812,
            digest: "ab".repeat(32),
            has_digest: true,
            given_up: given_up.into_iter().map(|id| format!("m{id}")).collect(),
            onto: None,
        }
    }

    #[test]
    fn a_record_survives_its_text_and_one_that_cannot_be_read_holds_everything() {
        let mut control_plane = TalosControlPlane::default();
        assert_eq!(Recovery::of(&control_plane), Ok(None));
        for kept in [recovery([2, 3]), Recovery { from: None, onto: Some("m9".into()), ..recovery([]) }] {
            control_plane.metadata.annotations = Some([(ETCD_RECOVERY.to_owned(), kept.text())].into());
            assert_eq!(Recovery::of(&control_plane), Ok(Some(kept)));
        }
        let nodes = vec![held(node(1, absent())), deleting(held(node(2, away(2))))];
        let broken = annotated(bootstrapped(world(3, nodes)), ETCD_RECOVERY, "{}");
        let plan = plan(&broken);
        assert!(plan.steps.is_empty() && plan.etcd_faults[0].contains(ETCD_RECOVERY), "{plan:?}");
    }

    #[test]
    fn where_all_are_given_up_one_is_made_and_no_more() {
        let gone = vec![deleting(held(node(1, away(1)))), held(node(2, away(2)))];
        let observed = annotated(bootstrapped(world(3, gone)), ETCD_RECOVERY, &recovery([1, 2]).text());
        let steps = plan(&observed).steps;
        assert_eq!(steps, [Step::Release { machine: "m1".into() }, Step::PlanMachines { count: 1, is_first: false }]);
        let observed = annotated(observed, intent::PLANNED_MACHINES, &intent::planned_text(&[planned("m7")]));
        assert!(plan(&observed).steps.contains(&Step::CreateMachine { planned: planned("m7"), failure_domain: None }));
        let one = vec![held(node(7, absent()))];
        let observed = annotated(bootstrapped(world(3, one)), ETCD_RECOVERY, &recovery([1, 2]).text());
        assert_eq!(plan(&observed).steps, [], "the others come when etcd is there again");
    }

    proptest! {
        /// Whatever the nodes say: nothing begins, leaves or is replaced, and only what was given up is let go.
        #[test]
        fn nothing_else_happens_meanwhile(
            states in prop::collection::vec((0..4u8, any::<bool>(), any::<bool>()), 0..6),
            replicas in 1..6i32,
            is_known in any::<bool>(),
        ) {
            let numbered = || (1u64..).zip(&states);
            let members: Vec<_> = numbered().map(|(id, _)| member(id, false)).collect();
            let nodes = numbered().map(|(id, (state, is_going, _))| {
                let answer = match state {
                    0 => absent(),
                    1 => away(id),
                    2 => lists(&members, true),
                    _ => Answer::NotAsked,
                };
                let view = held(node(id, answer));
                if *is_going { deleting(view) } else { view }
            });
            let given_up: BTreeSet<u64> = numbered().filter(|(_, (_, _, is_given_up))| *is_given_up).map(|(id, _)| id).collect();
            let observed = world(replicas, nodes.collect());
            let observed = if is_known { bootstrapped(observed) } else { observed };
            let kept = numbered().filter(|(id, (_, is_going, _))| !is_going && !given_up.contains(id)).count();
            let observed = annotated(observed, ETCD_RECOVERY, &recovery(given_up.clone()).text());
            for step in plan(&observed).steps {
                match step {
                    Step::Release { machine } => prop_assert!(given_up.iter().any(|id| machine == format!("m{id}")), "{}", machine),
                    Step::PlanMachines { count, .. } => prop_assert!(count == 1 && kept == 0),
                    Step::CreateMachine { .. } => prop_assert_eq!(kept, 0),
                    Step::AddFinalizer | Step::OwnTemplate | Step::WriteKubeconfig | Step::CreateConfig { .. } | Step::CreateInfrastructure { .. } | Step::Hold { .. } => {}
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}
