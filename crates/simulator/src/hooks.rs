//! A look at every call that reaches a face of the simulator, before and after its effect.
//!
//! Faces count their calls here and obey the verdict. Kill tests stop the calling process from inside a hook, synchronously, so that
//! "just before the effect" and "just after it" are exact; fault models refuse a call or lose its reply. A hook never changes the
//! world's truth itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The SOAP face.
pub const VCENTER: &str = "vcenter";
/// The Talos machine API.
pub const TALOS: &str = "talos";
/// The workload clusters' Kubernetes API.
pub const KUBE: &str = "kube";

/// Where in a call a hook is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing has happened yet.
    Before,
    /// The effect is there, the reply has not left.
    After,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// [`VCENTER`], [`TALOS`] or [`KUBE`].
    pub face: &'static str,
    /// `CloneVM_Task`, `Bootstrap`, `create secrets`.
    pub method: String,
    /// The object it is called on: `vm-1042`, an address, `kube-system/name`.
    pub object: String,
    pub phase: Phase,
    /// The how-manieth call of this face it is, counted from one. Both phases of a call carry the same number.
    pub number: u64,
}

/// What becomes of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    #[default]
    Proceed,
    /// The effect happens (or has happened); the connection breaks off without a reply.
    DropReply,
    /// The call fails, named in the face's own terms: `NoDiskSpace`, `Unavailable`. After the effect only the reply changes.
    Fault(String),
}

type Hook = dyn Fn(&Call) -> Verdict + Send + Sync;

/// The hooks and the counts. Cheap to clone; clones share both.
#[derive(Clone, Default)]
pub struct Hooks(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    hooks: Vec<Arc<Hook>>,
    numbers: BTreeMap<&'static str, u64>,
    counts: BTreeMap<(&'static str, String), u64>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}

/// A call that has begun: handed back to [`Hooks::after`].
#[derive(Clone, Debug)]
pub struct Begun {
    call: Call,
    /// What the hooks said before the effect.
    pub verdict: Verdict,
}

impl Hooks {
    /// Asks `hook` about every later call, in both phases. The first verdict that is not [`Verdict::Proceed`] counts.
    pub fn on(&self, hook: impl Fn(&Call) -> Verdict + Send + Sync + 'static) {
        self.shared().hooks.push(Arc::new(hook));
    }

    /// Counts a call and asks about it before its effect.
    pub fn before(&self, face: &'static str, method: &str, object: &str) -> Begun {
        let number = {
            let mut shared = self.shared();
            *shared.counts.entry((face, method.to_owned())).or_default() += 1;
            let number = shared.numbers.entry(face).or_default();
            *number += 1;
            *number
        };
        let call = Call { face, method: method.to_owned(), object: object.to_owned(), phase: Phase::Before, number };
        let verdict = self.ask(&call);
        Begun { call, verdict }
    }

    /// Asks about a call after its effect. A reply that was to be lost already stays lost.
    pub fn after(&self, begun: Begun) -> Verdict {
        let verdict = self.ask(&Call { phase: Phase::After, ..begun.call });
        if begun.verdict == Verdict::DropReply { Verdict::DropReply } else { verdict }
    }

    /// Calls so far, by face and method.
    pub fn counts(&self) -> BTreeMap<(&'static str, String), u64> {
        self.shared().counts.clone()
    }

    fn ask(&self, call: &Call) -> Verdict {
        let hooks = self.shared().hooks.clone();
        hooks.iter().map(|hook| hook(call)).find(|verdict| *verdict != Verdict::Proceed).unwrap_or_default()
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_counted_once_and_asked_about_twice() {
        let hooks = Hooks::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        hooks.on(move |call| {
            sink.lock().unwrap().push((call.number, call.phase));
            Verdict::Proceed
        });
        for _ in 0..2 {
            let begun = hooks.before(VCENTER, "Login", "SessionManager");
            assert_eq!(begun.verdict, Verdict::Proceed);
            assert_eq!(hooks.after(begun), Verdict::Proceed);
        }
        assert_eq!(*seen.lock().unwrap(), [(1, Phase::Before), (1, Phase::After), (2, Phase::Before), (2, Phase::After)]);
        assert_eq!(hooks.counts()[&(VCENTER, "Login".to_owned())], 2);
    }

    #[test]
    fn the_first_verdict_other_than_proceed_counts() {
        let hooks = Hooks::default();
        hooks.on(|_| Verdict::Proceed);
        hooks.on(|call| if call.number == 2 { Verdict::Fault("NoDiskSpace".to_owned()) } else { Verdict::Proceed });
        hooks.on(|call| if call.phase == Phase::Before { Verdict::DropReply } else { Verdict::Proceed });
        let first = hooks.before(VCENTER, "CloneVM_Task", "vm-1");
        assert_eq!(first.verdict, Verdict::DropReply);
        assert_eq!(hooks.after(first), Verdict::DropReply, "a reply that is to be lost stays lost");
        assert_eq!(hooks.before(VCENTER, "CloneVM_Task", "vm-1").verdict, Verdict::Fault("NoDiskSpace".to_owned()));
    }
}
