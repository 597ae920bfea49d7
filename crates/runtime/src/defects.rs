//! Planted defects: each makes the software break one safety rule, so that the rule checker can be seen to notice.
//!
//! Outside the `defects` feature no defect can be planted and every question is answered `false` at compile time.

#[cfg(feature = "defects")]
use std::collections::BTreeSet;
#[cfg(feature = "defects")]
use std::sync::Arc;

/// What can be made to go wrong, one or more for each safety rule that is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// Rule 1: etcd is bootstrapped on a second node as well.
    BootstrapTwice,
    /// Rule 3: the clone call carries no ownership marker.
    CloneWithoutMarker,
    /// Rule 3: a Machine goes without its VM being destroyed.
    ForgetVm,
    /// Rule 4: a VM is destroyed by name, without a look at its marker.
    DestroyByName,
    /// Rule 5: the pool hands out an address that is taken.
    AllocateTaken,
    /// Rule 5: the pool hands out its gateway.
    AllocateGateway,
    /// Rule 7: the secrets bundle is made anew although there is one.
    RegenerateSecrets,
    /// Rule 7: an event carries a password.
    SecretInEvent,
    /// Rule 8: a write is acknowledged before it is in the journal.
    AcknowledgeEarly,
    /// Rule 9: a drain does not end with its limit.
    DrainForever,
    /// Rule 9: a drain ends although a budget keeps a pod.
    IgnoreBudgets,
    /// Rule 9: a member leaves etcd before its node is drained.
    LeaveUndrained,
    /// Rule 12: after a restart a VM is cloned again, under another name, although one exists.
    CloneAfresh,
}

/// The defects planted in this run. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Defects {
    #[cfg(feature = "defects")]
    planted: Arc<BTreeSet<Defect>>,
}

impl Defects {
    /// None: the product.
    pub fn none() -> Self {
        Self::default()
    }

    /// These. Only in tests.
    #[cfg(feature = "defects")]
    pub fn planted(defects: impl IntoIterator<Item = Defect>) -> Self {
        Self { planted: Arc::new(defects.into_iter().collect()) }
    }

    /// Whether `defect` is planted.
    #[allow(clippy::unused_self, unused_variables)]
    pub fn has(&self, defect: Defect) -> bool {
        #[cfg(feature = "defects")]
        return self.planted.contains(&defect);
        #[cfg(not(feature = "defects"))]
        false
    }
}
