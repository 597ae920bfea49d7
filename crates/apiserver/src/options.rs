//! What a server is made from, and who asks it.

use std::sync::Arc;

use apimachinery::admission::{Admission, Conversion, NoAdmission, NoConversion};
use runtime::clock::Clock;
use runtime::defects::Defects;
use runtime::random::Random;
use thiserror::Error;

use crate::builtin::Builtins;
use crate::definition::{CrdSet, DefinitionError};
use crate::journal::{Journal, JournalError};

/// The version of Kubernetes whose behaviour this server follows.
pub const KUBERNETES_VERSION: &str = "v1.33.4";

/// Everything a server is given.
#[derive(Debug)]
pub struct Options {
    /// Timestamps and ages come from here.
    pub clock: Clock,
    /// UIDs and generated names come from here.
    pub random: Random,
    /// Where acknowledged writes survive.
    pub journal: Box<dyn Journal>,
    /// Installed as ordinary CustomResourceDefinitions when the server opens; one that is there already is brought up to date.
    pub crds: CrdSet,
    /// Defaults and rules of the custom kinds.
    pub admission: Arc<dyn Admission>,
    /// Conversion between the versions of the custom kinds.
    pub conversion: Arc<dyn Conversion>,
    /// The kinds that are there without a definition.
    pub builtins: Builtins,
    /// Planted defects, in tests.
    pub defects: Defects,
    /// What `/version` shows, such as `v1.33.4`.
    pub version: String,
}

impl Options {
    /// A management server without custom kinds.
    pub fn new(clock: Clock, random: Random, journal: Box<dyn Journal>) -> Self {
        Self {
            clock,
            random,
            journal,
            crds: CrdSet::default(),
            admission: Arc::new(NoAdmission),
            conversion: Arc::new(NoConversion),
            builtins: Builtins::Management,
            defects: Defects::none(),
            version: KUBERNETES_VERSION.to_owned(),
        }
    }
}

/// Why a server cannot open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The journal cannot be read or written.
    #[error("the state cannot be opened")]
    Journal(#[from] JournalError),
    /// The journal holds something that is no object.
    #[error("the stored object {key} is damaged")]
    Object {
        key: String,
        #[source]
        source: serde_json::Error,
    },
    /// A definition of custom resources is not usable.
    #[error("a definition of custom resources is not usable")]
    Definition(#[from] DefinitionError),
    /// What the server makes at start could not be made.
    #[error("the server could not make {what}: {reason}")]
    Start { what: String, reason: String },
}

/// Who asks. Groups decide: `system:masters` and other authenticated users may do everything; the anonymous user may only ask for health and
/// version. RBAC objects are data and are not consulted: there is one operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
}

impl User {
    /// A user of this name in these groups, authenticated.
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = String>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().collect();
        groups.push("system:authenticated".to_owned());
        Self { name: name.into(), groups }
    }

    /// A user of this name who may do everything.
    pub fn admin(name: impl Into<String>) -> Self {
        Self::new(name, ["system:masters".to_owned()])
    }

    /// Somebody without credentials.
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".to_owned(), groups: vec!["system:unauthenticated".to_owned()] }
    }

    /// Whether nobody vouches for this user.
    pub fn is_anonymous(&self) -> bool {
        self.groups.iter().any(|group| group == "system:unauthenticated")
    }
}
