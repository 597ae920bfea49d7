//! Carries out a TalosConfig's steps.
//!
//! Secrets are created, never replaced: where one is there already, whoever made it, that one counts. Keys are made one cluster at a
//! time, so that several machines of a new cluster do not each make a bundle of which all but one are thrown away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::bootstrap::{GenerateType, TalosConfig};
use api::cluster::Cluster;
use api::names::{finalizers, labels, secrets};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use runtime::reconcile::{ApiError, Error, ObjectKey, Store};
use serde_json::{Value, json};
use talos::clientconfig::{ADMIN, ClientConfig, ClientConfigError, ClientIdentity};
use talos::config::{ConfigError, Input, MachineConfig, MachineType, Patches, Rendered, patched, render};
use talos::contract::{Contract, ContractError};
use talos::secrets::{Bundle, PemPair, SecretsError};
use thiserror::Error;
use tokio::sync::Mutex;

use super::plan::{Observed, Origin, Step};
use crate::Wiring;
use crate::controlplane::{Bundles, UnusableBundle};
use crate::edit::{Edit, controller_of};

/// How often, and after what pause, a Secret that is neither creatable nor readable is tried again.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Why a machine's configuration cannot be made: told in a condition, and cured by a change of the object.
#[derive(Debug, Error)]
pub enum GenerationError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("talosVersion: {0}")]
    Contract(#[from] ContractError),
    #[error("hostname.source {0:?} is not known: MachineName or InfrastructureName")]
    Hostname(String),
}

/// Why a step failed.
#[derive(Debug, Error)]
pub enum ActError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("{}", runtime::reconcile::explain(.0))]
    Generation(#[from] GenerationError),
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error(transparent)]
    Client(#[from] ClientConfigError),
    #[error("{0}")]
    Bundle(String),
}

impl From<UnusableBundle> for ActError {
    fn from(error: UnusableBundle) -> Self {
        Self::Bundle(error.0)
    }
}

impl ActError {
    /// As the loop takes errors: a lost race stays recognizable.
    pub fn into_error(self) -> Error {
        match self {
            Self::Api(error) => Error::from(error),
            other => Error::from(other),
        }
    }
}

/// What a step has found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What the patches are to be warned about.
    pub warnings: Vec<String>,
    pub is_bundle_restored: bool,
}

/// The writers that steps go through.
#[derive(Clone)]
pub struct Act {
    pub wiring: Wiring,
    pub configs: Store<TalosConfig>,
    pub secrets: Store<Secret>,
    pub bundles: Bundles,
    /// Held while a cluster's own secrets are made.
    pub making: Arc<Mutex<()>>,
}

impl std::fmt::Debug for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Act")
    }
}

impl Act {
    /// Carries out one step; twice is as once.
    ///
    /// # Errors
    /// As the API answers; when keys or the configuration cannot be made.
    pub async fn step(&self, observed: &Observed, step: &Step) -> Result<Outcome, ActError> {
        let mut outcome = Outcome::default();
        let word = match step {
            Step::RemoveFinalizer => {
                Edit::of(&observed.config.metadata).without_finalizer(finalizers::TALOS_CONFIG).apply(&self.configs).await?;
                "remove-finalizer"
            }
            Step::CreateBundle => {
                self.create_bundle(observed).await?;
                "create-bundle"
            }
            Step::RestoreBundle => {
                self.restore_bundle(observed).await?;
                outcome.is_bundle_restored = true;
                "restore-bundle"
            }
            Step::ReplaceBundle => {
                self.replace_bundle(observed).await?;
                "replace-bundle"
            }
            Step::CreateCa => {
                self.create_ca(observed).await?;
                "create-ca"
            }
            Step::CreateData => {
                outcome.warnings = self.create_data(observed).await?;
                "create-data"
            }
            Step::WriteClient { endpoints } => {
                self.write_client(observed, endpoints).await?;
                "write-client-configuration"
            }
        };
        let key = ObjectKey::of(&observed.config.metadata);
        self.wiring.log.record("talosconfig", word, format_args!("TalosConfig {key}"), "ok");
        Ok(outcome)
    }

    fn secret(namespace: &str, name: &str, cluster: &str, owner: OwnerReference, data: &[(&str, String)]) -> Secret {
        let data = data.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.clone().into_bytes()))).collect();
        Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                labels: Some(BTreeMap::from([(labels::CLUSTER_NAME.to_owned(), cluster.to_owned())])),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            data: Some(data),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        }
    }

    /// Creates a Secret of the cluster, or finds the one that is there.
    async fn create(&self, cluster: &Cluster, name: &str, data: &[(&str, String)]) -> Result<Arc<Secret>, ActError> {
        let key = ObjectKey::of(&cluster.metadata);
        let secret = Self::secret(key.namespace(), name, &key.name, controller_of(cluster), data);
        self.create_or_find(&secret).await
    }

    async fn create_or_find(&self, secret: &Secret) -> Result<Arc<Secret>, ActError> {
        let key = ObjectKey::of(&secret.metadata);
        let mut tries = 0;
        loop {
            let error = match self.secrets.create(secret).await {
                Ok(created) => return Ok(created),
                Err(error) if error.is_already_exists() => error,
                Err(error) => return Err(ActError::Api(error)),
            };
            // It was there, and is on its way in or out: what is not found is tried again.
            if let Some(present) = self.secrets.fetch(&key).await? {
                return Ok(present);
            }
            tries += 1;
            if tries == TRIES {
                return Err(ActError::Api(error));
            }
            self.wiring.clock.sleep(PAUSE).await;
        }
    }

    fn cluster(observed: &Observed) -> Result<Arc<Cluster>, ActError> {
        observed.cluster.clone().ok_or_else(|| ActError::Bundle("the cluster is gone".to_owned()))
    }

    /// The cluster's bundle as it is on the server by now.
    async fn bundle(&self, cluster: &Cluster) -> Result<Arc<Bundle>, ActError> {
        let key = ObjectKey::of(&cluster.metadata);
        let key = ObjectKey::namespaced(key.namespace(), secrets::talos(&key.name));
        let present = match self.secrets.get(&key) {
            Some(secret) => Some(secret),
            None => self.secrets.fetch(&key).await?,
        };
        let secret = present.ok_or_else(|| ActError::Bundle(format!("Secret {key} is not there")))?;
        Ok(self.bundles.read(&secret)?)
    }

    async fn make_bundle(&self, observed: &Observed, cluster: &Cluster) -> Result<Bundle, ActError> {
        let contract = contract(observed)?;
        let wiring = &self.wiring;
        let random = wiring.random.child(&format!("bundle {}", cluster.metadata.uid.as_deref().unwrap_or_default()));
        Ok(Bundle::generate(contract, &*wiring.keys, &random, &wiring.clock).await?)
    }

    async fn create_bundle(&self, observed: &Observed) -> Result<(), ActError> {
        let cluster = Self::cluster(observed)?;
        let _making = self.making.lock().await;
        if self.bundle(&cluster).await.is_ok() {
            return Ok(());
        }
        let bundle = self.make_bundle(observed, &cluster).await?;
        self.store_bundle(&cluster, &bundle).await
    }

    async fn restore_bundle(&self, observed: &Observed) -> Result<(), ActError> {
        let (cluster, Origin::Lives(Ok(bundle))) = (Self::cluster(observed)?, &observed.origin) else { return Ok(()) };
        let _making = self.making.lock().await;
        if self.bundle(&cluster).await.is_ok() {
            return Ok(());
        }
        self.store_bundle(&cluster, bundle).await
    }

    async fn store_bundle(&self, cluster: &Cluster, bundle: &Bundle) -> Result<(), ActError> {
        let name = secrets::talos(cluster.metadata.name.as_deref().unwrap_or_default());
        let present = self.create(cluster, &name, &[(secrets::BUNDLE, bundle.to_yaml())]).await?;
        // What is there counts, not what was made.
        self.bundles.read(&present)?;
        Ok(())
    }

    /// The planted defect of rule 7.
    async fn replace_bundle(&self, observed: &Observed) -> Result<(), ActError> {
        let cluster = Self::cluster(observed)?;
        let label = format!("again {}", observed.config.metadata.uid.as_deref().unwrap_or_default());
        let random = self.wiring.random.child(&label);
        let bundle = Bundle::generate(contract(observed)?, &*self.wiring.keys, &random, &self.wiring.clock).await?;
        let key = ObjectKey::of(&cluster.metadata);
        let key = ObjectKey::namespaced(key.namespace(), secrets::talos(&key.name));
        self.secrets.merge(&key, json!({ "stringData": { secrets::BUNDLE: bundle.to_yaml() } })).await?;
        Ok(())
    }

    async fn create_ca(&self, observed: &Observed) -> Result<(), ActError> {
        let cluster = Self::cluster(observed)?;
        let _making = self.making.lock().await;
        let name = secrets::ca(cluster.metadata.name.as_deref().unwrap_or_default());
        if self.secrets.get_in(cluster.metadata.namespace.as_deref().unwrap_or_default(), &name).is_some() {
            return Ok(());
        }
        let given = observed.config.spec.data.as_deref().filter(|_| observed.config.spec.generate_type == GenerateType::None);
        let given = given.and_then(|data| MachineConfig::from_yaml(data).ok()).and_then(|config| config.kubernetes_authority());
        let pair: PemPair = match given {
            Some(pair) => pair,
            None => self.bundle(&cluster).await?.kubernetes.clone(),
        };
        let data = [(secrets::TLS_CERTIFICATE, pair.certificate), (secrets::TLS_KEY, pair.key)];
        self.create(&cluster, &name, &data).await?;
        Ok(())
    }

    async fn create_data(&self, observed: &Observed) -> Result<Vec<String>, ActError> {
        let cluster = Self::cluster(observed)?;
        let Some(machine) = &observed.machine else { return Ok(Vec::new()) };
        let bundle = self.bundle(&cluster).await?;
        let rendered = configuration(observed, &cluster, &bundle)?;
        let config_key = ObjectKey::of(&observed.config.metadata);
        let cluster_name = cluster.metadata.name.as_deref().unwrap_or_default();
        let name = secrets::bootstrap_data(machine.metadata.name.as_deref().unwrap_or_default());
        let owner = controller_of(&*observed.config);
        let secret = Self::secret(config_key.namespace(), &name, cluster_name, owner, &[(secrets::VALUE, rendered.config.to_yaml())]);
        self.create_or_find(&secret).await?;
        Ok(rendered.warnings)
    }

    async fn write_client(&self, observed: &Observed, endpoints: &[String]) -> Result<(), ActError> {
        let cluster = Self::cluster(observed)?;
        let (name, namespace) = (cluster.metadata.name.clone().unwrap_or_default(), cluster.metadata.namespace.clone().unwrap_or_default());
        let bundle = self.bundle(&cluster).await?;
        let now = self.wiring.clock.now_seconds();
        // The certificate that is there is kept while it holds: only the endpoints change, and nobody's copy goes stale.
        let kept = match &observed.client {
            Some(Ok(client)) if client.identity.ca.trim() == bundle.os.certificate.trim() && !client.identity.is_due(now) => {
                Some(client.identity.clone())
            }
            _ => None,
        };
        let identity = match kept {
            Some(identity) => identity,
            None => {
                let wiring = &self.wiring;
                let random = wiring.random.child(&format!("client {namespace}/{name} {}", now.as_second()));
                ClientIdentity::issue(&bundle, &[ADMIN], &*wiring.keys, &random, &wiring.clock).await?
            }
        };
        let client = ClientConfig { context: name.clone(), endpoints: endpoints.to_vec(), identity, proxy_url: None };
        let key = ObjectKey::namespaced(namespace, secrets::talosconfig(&name));
        let text = client.to_yaml();
        let Some(present) = self.secrets.get(&key) else {
            let created = self.create(&cluster, &key.name, &[(secrets::TALOSCONFIG, text.clone())]).await?;
            if crate::controlplane::text(&created, secrets::TALOSCONFIG) == Some(text.as_str()) {
                return Ok(());
            }
            return self.replace_client(&created, &key, &text).await;
        };
        self.replace_client(&present, &key, &text).await
    }

    async fn replace_client(&self, present: &Secret, key: &ObjectKey, text: &str) -> Result<(), ActError> {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(text);
        let metadata = json!({ "resourceVersion": present.metadata.resource_version, "uid": present.metadata.uid });
        self.secrets.merge(key, json!({ "metadata": metadata, "data": { secrets::TALOSCONFIG: encoded } })).await?;
        Ok(())
    }
}

fn contract(observed: &Observed) -> Result<Contract, GenerationError> {
    Ok(observed.config.spec.talos_version.as_deref().unwrap_or_default().parse()?)
}

/// The machine's configuration. Pure.
pub(super) fn configuration(observed: &Observed, cluster: &Cluster, bundle: &Bundle) -> Result<Rendered, GenerationError> {
    let spec = &observed.config.spec;
    let machine = observed.machine.as_deref();
    let hostname = match spec.hostname.as_ref().and_then(|hostname| hostname.source.as_deref()).unwrap_or_default() {
        "" => None,
        "MachineName" => machine.and_then(|machine| machine.metadata.name.clone()),
        "InfrastructureName" => machine.map(|machine| machine.spec.infrastructure_ref.name.clone()),
        other => return Err(GenerationError::Hostname(other.to_owned())),
    };
    let json: Vec<Value> = spec.config_patches.iter().map(|patch| serde_json::to_value(patch).unwrap_or_default()).collect();
    let patches = Patches { json: &json, strategic: &spec.strategic_patches, hostname: hostname.as_deref() };
    let kind = match spec.generate_type {
        GenerateType::ControlPlane => MachineType::ControlPlane,
        GenerateType::Init => MachineType::Init,
        GenerateType::Worker => MachineType::Worker,
        GenerateType::None => {
            let given = MachineConfig::from_yaml(spec.data.as_deref().unwrap_or_default())?;
            return Ok(patched(given, &patches)?);
        }
    };
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let endpoint = cluster.spec.control_plane_endpoint.url().unwrap_or_default();
    let version = machine.and_then(|machine| machine.spec.version.as_deref()).unwrap_or_default();
    let network = &cluster.spec.cluster_network;
    let input = Input {
        pod_subnets: network.pods.cidr_blocks.clone(),
        service_subnets: network.services.cidr_blocks.clone(),
        dns_domain: network.service_domain.clone().filter(|domain| !domain.is_empty()),
        ..Input::new(name, &endpoint, version, contract(observed)?, bundle)
    };
    Ok(render(&input, kind, &patches)?)
}
