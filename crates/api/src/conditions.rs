//! Conditions of both generations, and the one way to set them.
//!
//! metav1 conditions (`status.conditions` of v1beta2 types) have a required reason; v1beta1 conditions (`status.deprecated.v1beta1.conditions`,
//! and `status.conditions` of TalosControlPlane) have a severity while they are not True. The transition time moves only when
//! type's *status* changes for metav1, and when status, reason, severity or message change for v1beta1 (as the respective upstream helpers do).
//! Time is handed in; order of a list: v1beta1 keeps Ready first and the rest by name, metav1 keeps insertion order.

use jiff::Timestamp;

use crate::meta::Time;
use crate::object::{Absent, object, words};
use crate::schema::{CONDITION_REASON, CONDITION_TYPE};

words! {
    /// Whether a condition holds.
    pub enum Status {
        /// Not known.
        Unknown = "Unknown",
        /// It holds.
        True = "True",
        /// It does not hold.
        False = "False",
    }
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A metav1 condition.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition is about.
    #[serde(rename = "type")]
    #[schemars(length(max = 316), extend("pattern" = CONDITION_TYPE))]
    pub type_: String,
    /// Whether it holds.
    pub status: Status,
    /// Generation of the object that the condition was judged for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// When the status last changed.
    #[schemars(with = "crate::schema::DateTime")]
    pub last_transition_time: Time,
    /// Word for programs.
    #[schemars(length(min = 1, max = 1024), extend("pattern" = CONDITION_REASON))]
    pub reason: String,
    /// Sentence for people; may be empty.
    #[schemars(length(max = 32768))]
    pub message: String,
}

words! {
    /// How bad it is that a v1beta1 condition does not hold.
    pub enum Severity {
        /// A person or a retry has to act.
        Error = "Error",
        /// Could become an error.
        Warning = "Warning",
        /// Passing state.
        Info = "Info",
    }
}

/// A condition of the v1beta1 generation.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LegacyCondition {
    /// What the condition is about.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 256))]
    pub type_: String,
    /// True, False or Unknown.
    #[schemars(with = "String")]
    pub status: Status,
    /// Severity while the status is False.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(with = "Option<String>", length(max = 32))]
    pub severity: Option<Severity>,
    /// When anything of the condition last changed.
    #[schemars(with = "crate::schema::DateTime")]
    pub last_transition_time: Time,
    /// Word for programs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 256))]
    pub reason: Option<String>,
    /// Sentence for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 10240))]
    pub message: Option<String>,
}

object! {
    /// `status.deprecated` of the v1beta2 types: what the v1beta1 generation said.
    pub struct Deprecated {
        /// The v1beta1 view.
        pub v1beta1: LegacyStatus,
    }
}

object! {
    /// What only the v1beta1 generation of a type has in its status.
    pub struct LegacyStatus {
        /// Conditions with severity.
        pub conditions: Vec<LegacyCondition>,
        /// Words of a terminal failure.
        #[schemars(length(min = 1, max = 10240))]
        pub failure_message: Option<String>,
        /// Reason of a terminal failure.
        pub failure_reason: Option<String>,
    }
}

object! {
    /// `status.deprecated` of kinds whose v1beta1 generation has conditions only.
    pub struct DeprecatedConditions {
        /// The v1beta1 view.
        pub v1beta1: LegacyConditions,
    }
}

object! {
    /// Conditions of the v1beta1 generation.
    pub struct LegacyConditions {
        /// Conditions with severity.
        pub conditions: Vec<LegacyCondition>,
    }
}

/// A metav1 condition to be set; [`set`] gives it its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New<'a> {
    /// What the condition is about.
    pub type_: &'a str,
    /// Whether it holds.
    pub status: Status,
    /// Word for programs.
    pub reason: &'a str,
    /// Sentence for people; may be empty.
    pub message: String,
}

/// Builds a metav1 condition to be set.
pub fn new<'a>(type_: &'a str, status: impl Into<Status>, reason: &'a str, message: impl Into<String>) -> New<'a> {
    New { type_, status: status.into(), reason, message: message.into() }
}

/// Sets a metav1 condition. The transition time is kept while the status stays. Returns whether anything changed.
pub fn set(conditions: &mut Vec<Condition>, new: New<'_>, observed_generation: Option<i64>, now: Timestamp) -> bool {
    if let Some(old) = conditions.iter_mut().find(|condition| condition.type_ == new.type_) {
        let before = old.clone();
        if old.status != new.status {
            old.status = new.status;
            old.last_transition_time = Time(now);
        }
        old.reason = new.reason.to_owned();
        old.message = new.message;
        old.observed_generation = observed_generation;
        return *old != before;
    }
    conditions.push(Condition {
        type_: new.type_.to_owned(),
        status: new.status,
        observed_generation,
        last_transition_time: Time(now),
        reason: new.reason.to_owned(),
        message: new.message,
    });
    true
}

/// The metav1 condition of a type.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// True if the metav1 condition is there and True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|condition| condition.status == Status::True)
}

/// Removes a metav1 condition.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|condition| condition.type_ != type_);
}

/// A summary of metav1 conditions: True when all named ones are; otherwise the first worst one's reason (False before Unknown) and the
/// messages of all that do not hold, one line each with its type. A named condition that is missing counts as Unknown ("not yet reported").
/// `negative` ones (such as Deleting) hold when they are False, and a missing one is no fault.
pub fn summarize<'a>(type_: &'a str, conditions: &[Condition], positive: &[&str], negative: &[&str], ready_reason: &'a str) -> New<'a> {
    let mut worst: Option<Status> = None;
    let mut lines = Vec::new();
    let mut fault = |status: Status, line: String| {
        if status == Status::False || worst.is_none() {
            worst = Some(status);
        }
        lines.push(line);
    };
    let line = |name: &str, condition: &Condition| {
        let text = if condition.message.is_empty() { condition.reason.as_str() } else { condition.message.as_str() };
        if text.contains('\n') || text.starts_with("* ") { format!("* {name}:\n{}", indent(text)) } else { format!("* {name}: {text}") }
    };
    for name in positive {
        match get(conditions, name) {
            None => fault(Status::Unknown, format!("* {name}: Condition not yet reported")),
            Some(condition) if condition.status != Status::True => fault(condition.status, line(name, condition)),
            Some(_) => {}
        }
    }
    for name in negative {
        match get(conditions, name) {
            Some(condition) if condition.status == Status::True => fault(Status::False, line(name, condition)),
            Some(condition) if condition.status == Status::Unknown => fault(Status::Unknown, line(name, condition)),
            _ => {}
        }
    }
    match worst {
        None => new(type_, true, ready_reason, ""),
        Some(status) => {
            let reason = if status == Status::False { "NotReady" } else { "ReadyUnknown" };
            new(type_, status, reason, lines.join("\n"))
        }
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// A v1beta1 condition that holds, to be set with [`set_legacy`].
pub fn legacy_true(type_: &str) -> LegacyCondition {
    legacy(type_, Status::True, None, None, None)
}

/// A v1beta1 condition that does not hold.
pub fn legacy_false(type_: &str, reason: &str, severity: Severity, message: impl Into<String>) -> LegacyCondition {
    legacy(type_, Status::False, Some(severity), Some(reason.to_owned()), Some(message.into()))
}

/// A v1beta1 condition that is not known.
pub fn legacy_unknown(type_: &str, reason: &str, message: impl Into<String>) -> LegacyCondition {
    legacy(type_, Status::Unknown, None, Some(reason.to_owned()), Some(message.into()))
}

fn legacy(type_: &str, status: Status, severity: Option<Severity>, reason: Option<String>, message: Option<String>) -> LegacyCondition {
    let message = message.filter(|message| !message.is_empty());
    LegacyCondition { type_: type_.to_owned(), status, severity, last_transition_time: Time(Timestamp::UNIX_EPOCH), reason, message }
}

/// Sets a v1beta1 condition; its transition time is `now` if anything else of it changed. Ready comes first, the rest by name.
/// Returns whether anything changed.
pub fn set_legacy(conditions: &mut Vec<LegacyCondition>, mut new: LegacyCondition, now: Timestamp) -> bool {
    if let Some(old) = conditions.iter_mut().find(|condition| condition.type_ == new.type_) {
        new.last_transition_time = old.last_transition_time.clone();
        if *old == new {
            return false;
        }
        new.last_transition_time = Time(now);
        *old = new;
    } else {
        new.last_transition_time = Time(now);
        conditions.push(new);
    }
    conditions.sort_by(|a, b| (a.type_ != "Ready", &a.type_).cmp(&(b.type_ != "Ready", &b.type_)));
    true
}

/// The v1beta1 condition of a type.
pub fn get_legacy<'a>(conditions: &'a [LegacyCondition], type_: &str) -> Option<&'a LegacyCondition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// True if the v1beta1 condition is there and True.
pub fn is_true_legacy(conditions: &[LegacyCondition], type_: &str) -> bool {
    get_legacy(conditions, type_).is_some_and(|condition| condition.status == Status::True)
}

/// Ready as the summary of v1beta1 conditions: the first of the named ones, in their order, that is False with the worst severity, else the
/// first that is Unknown; True when all that are there hold. Missing ones do not count. `None` when none is there.
pub fn summarize_legacy(conditions: &[LegacyCondition], order: &[&str]) -> Option<LegacyCondition> {
    let present: Vec<&LegacyCondition> = order.iter().filter_map(|name| get_legacy(conditions, name)).collect();
    let rank = |condition: &LegacyCondition| match (condition.status, condition.severity) {
        (Status::False, None | Some(Severity::Error)) => 0,
        (Status::False, Some(Severity::Warning)) => 1,
        (Status::False, Some(Severity::Info)) => 2,
        (Status::Unknown, _) => 4,
        (Status::True, _) => 3,
    };
    // True ranks before Unknown upstream when merging groups; for a summary Unknown still hides True.
    let worst = present.iter().filter(|condition| condition.status != Status::True).min_by_key(|condition| rank(condition));
    match worst {
        Some(condition) => Some(LegacyCondition { type_: "Ready".to_owned(), ..(*condition).clone() }),
        None if present.is_empty() => None,
        None => Some(legacy_true("Ready")),
    }
}

impl Absent for Condition {
    fn is_absent(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_transition_time_moves_with_the_status_only() {
        let mut all = Vec::new();
        assert!(set(&mut all, new("Ready", false, "NotYet", "one"), Some(1), at(1)));
        assert!(set(&mut all, new("Ready", false, "NotYet", "two"), Some(2), at(2)));
        assert_eq!((all[0].last_transition_time.0, all[0].observed_generation, all[0].message.as_str()), (at(1), Some(2), "two"));
        assert!(!set(&mut all, new("Ready", false, "NotYet", "two"), Some(2), at(3)));
        assert!(set(&mut all, new("Ready", true, "Yes", ""), Some(2), at(4)));
        assert_eq!(all[0].last_transition_time.0, at(4));
        assert!(is_true(&all, "Ready") && !is_true(&all, "Other"));
    }

    #[test]
    fn an_older_condition_moves_with_any_change_and_ready_comes_first() {
        let mut all = Vec::new();
        set_legacy(&mut all, legacy_true("Zulu"), at(1));
        set_legacy(&mut all, legacy_false("Alpha", "Why", Severity::Info, "one"), at(1));
        set_legacy(&mut all, legacy_true("Ready"), at(1));
        assert_eq!(all.iter().map(|one| one.type_.as_str()).collect::<Vec<_>>(), ["Ready", "Alpha", "Zulu"]);
        assert!(!set_legacy(&mut all, legacy_false("Alpha", "Why", Severity::Info, "one"), at(2)));
        assert!(set_legacy(&mut all, legacy_false("Alpha", "Why", Severity::Info, "two"), at(3)));
        assert_eq!(all[1].last_transition_time.0, at(3));
    }

    #[test]
    fn a_summary_tells_the_worst_and_names_all() {
        let mut all = Vec::new();
        set(&mut all, new("A", true, "Fine", ""), None, at(1));
        set(&mut all, new("B", Status::Unknown, "Lost", "no answer"), None, at(1));
        set(&mut all, new("Deleting", false, "NotDeleting", ""), None, at(1));
        let summary = summarize("Ready", &all, &["A", "B", "C"], &["Deleting", "Paused"], "Ready");
        assert_eq!((summary.status, summary.reason), (Status::Unknown, "ReadyUnknown"));
        assert_eq!(summary.message, "* B: no answer\n* C: Condition not yet reported");
        set(&mut all, new("Deleting", true, "Draining", "first\nsecond"), None, at(1));
        let summary = summarize("Ready", &all, &["A"], &["Deleting"], "Ready");
        assert_eq!(
            (summary.status, summary.reason, summary.message.as_str()),
            (Status::False, "NotReady", "* Deleting:\n  first\n  second")
        );
        assert_eq!(summarize("Ready", &all, &["A"], &[], "AllGood"), new("Ready", true, "AllGood", ""));
    }

    #[test]
    fn an_older_summary_takes_the_worst_severity() {
        let mut all = Vec::new();
        assert_eq!(summarize_legacy(&all, &["A"]), None);
        set_legacy(&mut all, legacy_true("A"), at(1));
        assert_eq!(summarize_legacy(&all, &["A", "Missing"]).map(|ready| ready.status), Some(Status::True));
        set_legacy(&mut all, legacy_false("B", "Slow", Severity::Info, "b"), at(1));
        set_legacy(&mut all, legacy_false("C", "Broken", Severity::Error, "c"), at(1));
        set_legacy(&mut all, legacy_unknown("D", "Lost", "d"), at(1));
        let ready = summarize_legacy(&all, &["A", "B", "C", "D"]).unwrap();
        assert_eq!((ready.type_.as_str(), ready.reason.as_deref()), ("Ready", Some("Broken")));
        assert_eq!(summarize_legacy(&all, &["A", "D"]).unwrap().reason.as_deref(), Some("Lost"));
    }
}
