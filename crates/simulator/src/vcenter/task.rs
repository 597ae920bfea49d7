//! Tasks: what a client follows while vCenter works.
//!
//! ```text
//! queued --(a slot is free)--> running --(time passes, progress grows)--> success
//!    |                            |----------------------------------> error
//!    `--(cancelled)---------------'
//! ```
//! A finished task is remembered for ten minutes, then it is gone: a client that lost track of one must look at the world instead.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use vsphere_wire::Value as _;
use vsphere_wire::xml::Element;

use super::failure::Failure;
use super::inventory::{Inventory, Kind, Reference};
use super::val::{Look, Member, Members, Val};

/// How long a finished task is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(600);

/// Where a task stands.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    Queued,
    Running,
    Success(Option<Val>),
    Error(Failure),
}

/// A task.
#[derive(Clone, Debug)]
pub struct Task {
    /// `CloneVM_Task`.
    pub method: &'static str,
    /// `VirtualMachine.clone`.
    pub description: &'static str,
    pub entity: Reference,
    pub entity_name: String,
    pub user: String,
    pub state: State,
    /// Per cent, while it runs.
    pub progress: Option<i32>,
    pub queued: Timestamp,
    pub started: Option<Timestamp>,
    pub completed: Option<Timestamp>,
    pub is_cancelable: bool,
    pub is_cancelled: bool,
}

impl Task {
    /// Whether it is still to be done.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Queued | State::Running)
    }
}

impl Inventory {
    /// Forgets tasks that were over long before `now`.
    pub fn forget_tasks(&mut self, now: Timestamp) {
        let remembered = SignedDuration::try_from(REMEMBERED).unwrap_or(SignedDuration::MAX);
        let old: Vec<Reference> = self
            .tasks()
            .filter(|(_, task)| task.completed.is_some_and(|completed| now.duration_since(completed) > remembered))
            .map(|(object, _)| object.reference.clone())
            .collect();
        for task in old {
            if let Some(entity) = self.task(&task).map(|task| task.entity.clone()) {
                self.change(&entity);
            }
            self.remove(&task);
        }
    }

    /// The tasks of an entity that a client may still see, oldest first; of every entity when none is given.
    pub fn recent_tasks(&self, entity: Option<&Reference>) -> Vec<Reference> {
        let mut found: Vec<(Timestamp, u64, Reference)> = self
            .tasks()
            .filter(|(_, task)| entity.is_none_or(|entity| task.entity == *entity))
            .map(|(object, task)| {
                let number = object.reference.id.trim_start_matches("task-").parse().unwrap_or(0);
                (task.queued, number, object.reference.clone())
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, _, reference)| reference).collect()
    }
}

fn task(look: Look<'_>) -> Option<&Task> {
    match &look.object.kind {
        Kind::Task(task) => Some(task),
        _ => None,
    }
}

/// A fault with its message, as data.
pub fn fault_val(failure: &Failure) -> Val {
    let mut element = Element::vim("error");
    failure.localized().write(&mut element);
    Val::Raw("LocalizedMethodFault", element)
}

const INFO: Members = &[
    ("key", Member::Leaf(|look| Some(Val::string(&look.object.reference.id)))),
    ("task", Member::Leaf(|look| Some(Val::reference(&look.object.reference)))),
    ("name", Member::Leaf(|look| Some(Val::string(task(look)?.method)))),
    ("descriptionId", Member::Leaf(|look| Some(Val::string(task(look)?.description)))),
    ("entity", Member::Leaf(|look| Some(Val::reference(&task(look)?.entity)))),
    ("entityName", Member::Leaf(|look| Some(Val::string(&task(look)?.entity_name)))),
    (
        "state",
        Member::Leaf(|look| {
            let text = match &task(look)?.state {
                State::Queued => "queued",
                State::Running => "running",
                State::Success(_) => "success",
                State::Error(_) => "error",
            };
            Some(Val::enumeration("TaskInfoState", text))
        }),
    ),
    ("cancelled", Member::Leaf(|look| Some(Val::boolean(task(look)?.is_cancelled)))),
    ("cancelable", Member::Leaf(|look| task(look).map(|task| Val::boolean(task.is_cancelable && task.is_open())))),
    (
        "error",
        Member::Leaf(|look| match &task(look)?.state {
            State::Error(failure) => Some(fault_val(failure)),
            _ => None,
        }),
    ),
    (
        "result",
        Member::Leaf(|look| match &task(look)?.state {
            State::Success(Some(result)) => Some(Val::Any(Box::new(result.clone()))),
            _ => None,
        }),
    ),
    ("progress", Member::Leaf(|look| task(look)?.progress.map(Val::int))),
    ("reason", Member::Leaf(|look| Some(Val::descendant("TaskReasonUser", [("userName", Val::string(&task(look)?.user))])))),
    ("queueTime", Member::Leaf(|look| Some(Val::time(task(look)?.queued)))),
    ("startTime", Member::Leaf(|look| task(look)?.started.map(Val::time))),
    ("completeTime", Member::Leaf(|look| task(look)?.completed.map(Val::time))),
    ("eventChainId", Member::Leaf(|_| Some(Val::int(0)))),
];

/// The properties of a task.
pub const TASK: Members = &[
    ("info", Member::Part("TaskInfo", INFO)),
    ("availableField", Member::Leaf(|_| Some(Val::Array("CustomFieldDef", Vec::new())))),
    ("value", Member::Leaf(|_| Some(Val::Array("CustomFieldValue", Vec::new())))),
];
