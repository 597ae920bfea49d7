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
    /// Rule 2: a control plane's machine goes before its member has left etcd.
    GoBeforeLeaving,
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
    /// Rule 10: a rollout makes one machine more than surge allows.
    SurgeBeyond,
    /// Rule 10: a rollout takes one machine more than may be missed.
    UnavailableBeyond,
    /// Rule 10: while machines come or go, a status tells a number that was never wanted.
    NonsenseReplicas,
    /// Rule 12: after a restart a VM is cloned again, under another name, although one exists.
    CloneAfresh,
}

impl Defect {
    /// Every one, in the order of the rules.
    pub const ALL: &'static [Self] = &[
        Self::BootstrapTwice,
        Self::GoBeforeLeaving,
        Self::CloneWithoutMarker,
        Self::ForgetVm,
        Self::DestroyByName,
        Self::AllocateTaken,
        Self::AllocateGateway,
        Self::RegenerateSecrets,
        Self::SecretInEvent,
        Self::AcknowledgeEarly,
        Self::DrainForever,
        Self::IgnoreBudgets,
        Self::LeaveUndrained,
        Self::SurgeBeyond,
        Self::UnavailableBeyond,
        Self::NonsenseReplicas,
        Self::CloneAfresh,
    ];

    /// The rule that it breaks.
    pub const fn rule(self) -> u8 {
        match self {
            Self::BootstrapTwice => 1,
            Self::GoBeforeLeaving => 2,
            Self::CloneWithoutMarker | Self::ForgetVm => 3,
            Self::DestroyByName => 4,
            Self::AllocateTaken | Self::AllocateGateway => 5,
            Self::RegenerateSecrets | Self::SecretInEvent => 7,
            Self::AcknowledgeEarly => 8,
            Self::DrainForever | Self::IgnoreBudgets | Self::LeaveUndrained => 9,
            Self::SurgeBeyond | Self::UnavailableBeyond | Self::NonsenseReplicas => 10,
            Self::CloneAfresh => 12,
        }
    }

    /// `GoBeforeLeaving` as people type it: `go-before-leaving`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
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

    /// Whether any can be planted: whether the feature is on.
    pub const CAN_BE_PLANTED: bool = cfg!(feature = "defects");

    /// These, or none where none can be planted.
    #[allow(unused_variables)]
    pub fn some(defects: impl IntoIterator<Item = Defect>) -> Self {
        #[cfg(feature = "defects")]
        return Self::planted(defects);
        #[cfg(not(feature = "defects"))]
        Self::none()
    }

    /// These. Only where the feature is on.
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
