//! Objects of other providers, seen through Cluster API's contract: the few fields that core controllers read of a referenced object.
//!
//! A reference names group and kind; the version is found by discovery. Both generations of the contract are read (`status.ready` of
//! v1beta1, `status.initialization` of v1beta2), so that a provider of either can be used. One watch per referenced kind, opened when the
//! first reference is seen. Source: facts on the contract, docs of Cluster API "provider contracts".

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::meta::{ApiEndpoint, ContractReference, MachineAddress};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::core::ApiResource;
use runtime::reconcile::{Link, ObjectKey, Store, Stores};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// How long the first list of a kind may take before the reconcile that needs it fails (and comes again).
const LIST_LIMIT: Duration = Duration::from_secs(10);

/// A reference that cannot be followed.
#[derive(Debug, Error)]
pub enum ContractError {
    /// The API does not serve the kind: a provider is not installed.
    #[error("the API serves no kind {kind} in group {group}: is the provider that brings it installed?")]
    UnknownKind { group: String, kind: String },
    /// Discovery failed.
    #[error("looking up kind {kind} in group {group}")]
    Discovery { group: String, kind: String, source: kube::Error },
    /// The first list did not come in time.
    #[error("{kind} objects could not be listed within {} s{}", LIST_LIMIT.as_secs(), because.as_ref().map(|b| format!(": {b}")).unwrap_or_default())]
    NotListed { kind: String, because: Option<String> },
}

/// `spec` of a contract object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalSpec {
    #[serde(rename = "providerID", skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<ApiEndpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// A machine's network, for the addresses that it fixes. Providers write it in their own ways.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub network: Value,
    /// What a template makes objects of. Providers write it in their own ways.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub template: Value,
}

/// `status.initialization` of a contract object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalInitialization {
    pub provisioned: Option<bool>,
    pub data_secret_created: Option<bool>,
    pub control_plane_initialized: Option<bool>,
}

/// A condition of either generation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalCondition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    pub severity: Option<String>,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub last_transition_time: Option<Time>,
}

/// `status` of a contract object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalStatus {
    pub ready: Option<bool>,
    pub initialized: Option<bool>,
    pub initialization: ExternalInitialization,
    pub data_secret_name: Option<String>,
    pub addresses: Vec<MachineAddress>,
    pub failure_domain: Option<String>,
    /// A list in v1beta2, a map in v1beta1.
    pub failure_domains: Value,
    pub failure_reason: Option<String>,
    pub failure_message: Option<String>,
    pub replicas: Option<i32>,
    pub ready_replicas: Option<i32>,
    pub available_replicas: Option<i32>,
    pub up_to_date_replicas: Option<i32>,
    pub updated_replicas: Option<i32>,
    pub unavailable_replicas: Option<i32>,
    pub version: Option<String>,
    pub conditions: Vec<ExternalCondition>,
    pub deprecated: ExternalDeprecated,
}

/// `status.deprecated` of a contract object: what the v1beta1 generation said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExternalDeprecated {
    #[serde(alias = "v1beta")]
    pub v1beta1: ExternalLegacy,
}

/// The v1beta1 view of a contract object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalLegacy {
    pub conditions: Vec<ExternalCondition>,
    pub failure_reason: Option<String>,
    pub failure_message: Option<String>,
}

/// A referenced object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct External {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: ExternalSpec,
    pub status: ExternalStatus,
}

runtime::dynamic_resource!(External);

impl External {
    /// Infrastructure: the provider has made it.
    pub fn is_provisioned(&self) -> bool {
        self.status.initialization.provisioned.or(self.status.ready) == Some(true)
    }

    /// Bootstrap: the data is there, and in which secret.
    pub fn data_secret(&self) -> Option<&str> {
        let is_ready = self.status.initialization.data_secret_created.or(self.status.ready) == Some(true);
        self.status.data_secret_name.as_deref().filter(|name| is_ready && !name.is_empty())
    }

    /// Control plane: its API has answered once.
    pub fn is_control_plane_initialized(&self) -> bool {
        self.status.initialization.control_plane_initialized.or(self.status.initialized) == Some(true)
    }

    /// The condition of a type.
    pub fn condition(&self, type_: &str) -> Option<&ExternalCondition> {
        self.status.conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// The condition of a type as the v1beta1 generation tells it, where it does.
    pub fn legacy_condition(&self, type_: &str) -> Option<&ExternalCondition> {
        let legacy = self.status.deprecated.v1beta1.conditions.iter().find(|condition| condition.type_ == type_);
        legacy.or_else(|| self.condition(type_))
    }

    /// A failure that the provider calls final: reason and message.
    pub fn failure(&self) -> Option<(String, String)> {
        let legacy = &self.status.deprecated.v1beta1;
        let reason = self.status.failure_reason.clone().or_else(|| legacy.failure_reason.clone());
        let message = self.status.failure_message.clone().or_else(|| legacy.failure_message.clone());
        (reason.is_some() || message.is_some()).then(|| (reason.unwrap_or_default(), message.unwrap_or_default()))
    }

    /// Whether both read the same, whatever else changed in the object.
    fn is_alike(&self, other: &Self) -> bool {
        self.spec == other.spec && self.status == other.status && !crate::change::of_metadata(&self.metadata, &other.metadata)
    }

    /// Whether it is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

/// What a reference leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Referenced {
    /// There is no reference.
    None,
    /// There is no such object (yet, or any more).
    Missing {
        kind: String,
        name: String,
    },
    Found(Arc<External>),
}

impl Referenced {
    /// The object, when it is there.
    pub fn found(&self) -> Option<&Arc<External>> {
        match self {
            Self::Found(object) => Some(object),
            _ => None,
        }
    }
}

/// The name of a referenced object across kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExternalKey {
    pub group: String,
    pub kind: String,
    pub key: ObjectKey,
}

impl ExternalKey {
    /// What `reference` in an object of `namespace` names.
    pub fn of(namespace: &str, reference: &ContractReference) -> Self {
        Self {
            group: reference.api_group.clone(),
            kind: reference.kind.clone(),
            key: ObjectKey::namespaced(namespace, reference.name.clone()),
        }
    }
}

impl fmt::Display for ExternalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} {}", self.kind, self.group, self.key)
    }
}

/// Open stores by group and kind.
type Open = BTreeMap<(String, String), Store<External>>;
type Tap = Arc<dyn Fn(&ExternalKey) + Send + Sync>;

/// The stores of referenced kinds. Cheap to clone; clones share the stores.
#[derive(Clone)]
pub struct Externals {
    stores: Stores,
    open: Arc<tokio::sync::Mutex<Open>>,
    taps: Arc<Mutex<Vec<Tap>>>,
}

impl fmt::Debug for Externals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Externals")
    }
}

impl Externals {
    /// No kind is watched yet.
    pub fn new(stores: Stores) -> Self {
        Self { stores, open: Arc::default(), taps: Arc::default() }
    }

    /// Calls `tap` with the name of every referenced object that changes.
    pub fn subscribe(&self, tap: impl Fn(&ExternalKey) + Send + Sync + 'static) {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(tap));
    }

    /// The store of a kind, whichever version the API serves.
    ///
    /// # Errors
    /// When the kind is not served or cannot be listed.
    pub async fn store(&self, group: &str, kind: &str) -> Result<Store<External>, ContractError> {
        let name = (group.to_owned(), kind.to_owned());
        let store = {
            let mut open = self.open.lock().await;
            match open.get(&name) {
                Some(store) => store.clone(),
                None => {
                    let resource = self.discover(group, kind).await?;
                    let store = self.stores.dynamic::<External>(resource);
                    self.tap(&store, &name);
                    open.insert(name, store.clone());
                    store
                }
            }
        };
        if tokio::time::timeout(LIST_LIMIT, store.synced()).await.is_err() {
            let because = match store.link() {
                Link::Disconnected { because, .. } => Some(because),
                _ => None,
            };
            return Err(ContractError::NotListed { kind: kind.to_owned(), because });
        }
        Ok(store)
    }

    fn tap(&self, store: &Store<External>, (group, kind): &(String, String)) {
        let (taps, group, kind) = (Arc::clone(&self.taps), group.clone(), kind.clone());
        store.subscribe(move |old, new| {
            // Most of what a provider writes is nothing that the contract knows.
            if old.zip(new).is_some_and(|(old, new)| old.is_alike(new)) {
                return;
            }
            let Some(object) = new.or(old) else { return };
            let name = ExternalKey { group: group.clone(), kind: kind.clone(), key: ObjectKey::of(&object.metadata) };
            let taps = taps.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for tap in taps {
                tap(&name);
            }
        });
    }

    async fn discover(&self, group: &str, kind: &str) -> Result<ApiResource, ContractError> {
        let error = |source| ContractError::Discovery { group: group.to_owned(), kind: kind.to_owned(), source };
        let unknown = || ContractError::UnknownKind { group: group.to_owned(), kind: kind.to_owned() };
        let served = match kube::discovery::group(self.stores.client(), group).await {
            Ok(served) => served,
            Err(kube::Error::Discovery(_)) => return Err(unknown()),
            Err(source) => return Err(error(source)),
        };
        if let Some((resource, _)) = served.recommended_kind(kind) {
            return Ok(resource);
        }
        let resources = served.versions().flat_map(|version| served.versioned_resources(version)).map(|(resource, _)| resource);
        resources.into_iter().find(|resource| resource.kind == kind).ok_or_else(unknown)
    }

    /// The object that `reference`, in an object of `namespace`, names.
    ///
    /// # Errors
    /// When the kind is not served or cannot be listed.
    pub async fn find(&self, namespace: &str, reference: Option<&ContractReference>) -> Result<Referenced, ContractError> {
        let Some(reference) = reference.filter(|reference| !reference.name.is_empty()) else { return Ok(Referenced::None) };
        let store = self.store(&reference.api_group, &reference.kind).await?;
        Ok(match store.get_in(namespace, &reference.name) {
            Some(object) => Referenced::Found(object),
            None => Referenced::Missing { kind: reference.kind.clone(), name: reference.name.clone() },
        })
    }
}
