//! What a run of seeds has reached: steps of controllers, faults and the steps they met, what happened inside machines. Steps that were never
//! reached are listed, so that a green run cannot hide that it tried little.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use runtime::log::Entry;

/// Who carries steps out, and where the words of all their steps stand: in the code itself, so that none can be forgotten here.
const SOURCES: &[(&str, &str)] = &[
    ("cluster", include_str!("../../../controllers/src/cluster/act.rs")),
    ("clusterresourceset", include_str!("../../../controllers/src/clusterresourceset/act.rs")),
    ("inclusterippool", include_str!("../../../controllers/src/inclusterippool/act.rs")),
    ("ipaddressclaim", include_str!("../../../controllers/src/ipaddressclaim/act.rs")),
    ("machine", include_str!("../../../controllers/src/machine/act.rs")),
    ("machinedeployment", include_str!("../../../controllers/src/machinedeployment/act.rs")),
    ("machineset", include_str!("../../../controllers/src/machineset/act.rs")),
    ("talosconfig", include_str!("../../../controllers/src/talosconfig/act.rs")),
    ("taloscontrolplane", include_str!("../../../controllers/src/taloscontrolplane/act.rs")),
    ("vspherecluster", include_str!("../../../controllers/src/vspherecluster/act.rs")),
    ("vspheremachine", include_str!("../../../controllers/src/vspheremachine/act.rs")),
    ("vspherevm", include_str!("../../../controllers/src/vspherevm/act.rs")),
    ("workload", include_str!("../../../controllers/src/workload/job.rs")),
];

/// A step by its actor and its word.
type Step = (String, String);

/// What was reached, and how often.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    steps: BTreeMap<Step, u64>,
    /// The step that came last before a fault.
    met: BTreeMap<String, BTreeMap<Step, u64>>,
    stages: BTreeMap<String, u64>,
}

/// The word of a step that a line of source ends a match arm with: `"clone"`, `("clone", name)`, `Step::Clone => "clone",`.
fn word(line: &str) -> Option<&str> {
    let line = line.trim();
    let text = line.strip_prefix("(\"").or_else(|| line.strip_prefix('"')).or_else(|| line.rsplit_once("=> \"").map(|(_, rest)| rest))?;
    let (word, rest) = text.split_once('"')?;
    let is_word = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let is_end = matches!(rest, "" | ",") || (line.starts_with('(') && rest.starts_with(", ") && rest.ends_with(')'));
    (is_word && is_end && word != "ok").then_some(word)
}

/// Every step that there is.
fn known() -> BTreeSet<Step> {
    let product = |text: &'static str| text.split("#[cfg(test)]").next().unwrap_or_default();
    let words = |text: &'static str| product(text).lines().filter_map(word);
    SOURCES.iter().flat_map(|(actor, text)| words(text).map(|word| ((*actor).to_owned(), word.to_owned()))).collect()
}

/// What happened inside a machine, without names and addresses.
fn stage(text: &str) -> String {
    let is_plain = |word: &&str| word.chars().all(|c| c.is_alphabetic() || "'():,".contains(c));
    text.split_whitespace().filter(is_plain).collect::<Vec<_>>().join(" ")
}

impl Coverage {
    /// Adds what the log of one world tells.
    pub fn add(&mut self, log: &[Entry]) {
        let known = known();
        let mut last: Step = ("nobody".to_owned(), "nothing yet".to_owned());
        for entry in log {
            let step = (entry.actor.clone(), entry.step.clone());
            if entry.actor == "fault" && entry.result != "runs again" && entry.result != "begins" {
                *self.met.entry("death".to_owned()).or_default().entry(last.clone()).or_default() += 1;
            } else if entry.actor == "fault" {
                *self.met.entry(entry.step.clone()).or_default().entry(last.clone()).or_default() += 1;
            } else if entry.actor == "node" {
                *self.stages.entry(stage(&entry.result)).or_default() += 1;
            } else if known.contains(&step) {
                *self.steps.entry(step.clone()).or_default() += 1;
                last = step;
            }
        }
    }

    /// Steps that were never reached.
    pub fn missed(&self) -> Vec<Step> {
        known().into_iter().filter(|step| !self.steps.contains_key(step)).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (missed, all) = (self.missed(), known().len());
        writeln!(f, "steps reached: {} of {all}", all - missed.len())?;
        for (fault, steps) in &self.met {
            let times: u64 = steps.values().sum();
            writeln!(f, "fault {fault}: {times} times, after {} different steps", steps.len())?;
        }
        writeln!(f, "stages of machines reached: {}", self.stages.len())?;
        if missed.is_empty() {
            return write!(f, "no step was missed");
        }
        let list: Vec<String> = missed.iter().map(|(actor, word)| format!("{actor} {word}")).collect();
        write!(f, "steps never reached: {}", list.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_steps_are_found_in_the_code() {
        for (line, expected) in [
            ("                \"add-finalizer\"", Some("add-finalizer")),
            ("  (\"create-machine\", Some(name.clone()))", Some("create-machine")),
            ("            Self::Clone { .. } => \"clone\",", Some("clone")),
            ("            Outcome::Done => \"ok\",", None),
            ("  record(\"machine\", word, format_args!(\"Machine {key}\"), \"ok\");", None),
            ("  (\"a\" , b", None),
        ] {
            assert_eq!(word(line), expected, "{line}");
        }
        let known = known();
        for (actor, _) in SOURCES {
            assert!(known.iter().any(|(found, _)| found == actor), "{actor} has no steps");
        }
        assert!(known.len() > 70, "{known:?}");
    }
}
