//! The TalosConfig controller: makes a cluster's secrets once, a machine's configuration once, and keeps the client configuration fresh.

mod act;
pub mod plan;
pub mod status;

use std::sync::Arc;

use api::bootstrap::TalosConfig;
use api::cluster::{Cluster, Machine};
use api::names::secrets;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use kube::Resource as _;
use runtime::reconcile::{Action, Error, EventType, ObjectKey, Reconciler, Recorder, Store};
use talos::clientconfig::ClientConfig;
use talos::config::{MachineConfig, MachineType};
use talos::secrets::Bundle;

use crate::controlplane::{self, Bundles, Givens, Readings, endpoint_host, is_control_plane};
use crate::edit::{cluster_name, controller_reference};
use crate::{Started, Wiring};
use act::{Act, ActError};
use plan::{Observed, Origin, Presence, Step};
use status::Acted;

/// The controller's name.
pub const NAME: &str = "talosconfig";
/// What the names of Secrets with machines' configurations end in.
const DATA_SUFFIX: &str = "-bootstrap-data";

struct Configs {
    act: Act,
    machines: Store<Machine>,
    clusters: Store<Cluster>,
    clients: Readings<Result<Arc<ClientConfig>, String>>,
    givens: Givens,
    recorder: Recorder,
}

/// Wires the controller.
pub fn start(wiring: &Wiring) -> Started {
    let configs = wiring.stores.get::<TalosConfig>();
    let secrets = wiring.stores.get::<Secret>();
    let machines = wiring.stores.get::<Machine>();
    let clusters = wiring.stores.get::<Cluster>();
    let act = Act { wiring: wiring.clone(), configs: configs.clone(), secrets, bundles: Bundles::default(), making: Arc::default() };
    let givens = Givens::of(wiring);
    let reconciler = Configs {
        act,
        machines: machines.clone(),
        clusters: clusters.clone(),
        clients: Readings::default(),
        givens: givens.clone(),
        recorder: wiring.recorder.of("talosconfig-controller"),
    };
    let (by_machine, by_cluster, by_secret) = (configs.clone(), configs.clone(), configs);
    let controller = wiring
        .controller(NAME, reconciler)
        .watches_when(crate::change::of_machine_or_addresses, move |machine: &Machine| woken_by_machine(&by_machine, machine))
        .watches_when(crate::change::of_cluster, move |cluster: &Cluster| {
            let key = ObjectKey::of(&cluster.metadata);
            by_cluster.of_cluster(key.namespace(), &key.name).iter().map(|config| ObjectKey::of(&config.metadata)).collect()
        })
        .watches(move |secret: &Secret| woken_by_secret(&by_secret, secret))
        .reads(&givens.claims)
        .reads(&givens.addresses);
    wiring.started(controller)
}

/// A Machine wakes its own configuration; a control plane, whose address goes into the client configuration, wakes all control planes'.
fn woken_by_machine(configs: &Store<TalosConfig>, machine: &Machine) -> Vec<ObjectKey> {
    let namespace = machine.metadata.namespace.clone();
    let own =
        machine.spec.bootstrap.config_ref.iter().map(|reference| ObjectKey { namespace: namespace.clone(), name: reference.name.clone() });
    let mut keys: Vec<ObjectKey> = own.collect();
    if is_control_plane(machine) {
        let all = configs.of_cluster(namespace.as_deref().unwrap_or_default(), &machine.spec.cluster_name);
        let others = all.iter().filter(|config| plan::is_control_plane(config, None)).map(|config| ObjectKey::of(&config.metadata));
        keys.extend(others);
    }
    keys.sort();
    keys.dedup();
    keys
}

/// The cluster's own Secrets wake its configurations.
fn woken_by_secret(configs: &Store<TalosConfig>, secret: &Secret) -> Vec<ObjectKey> {
    let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let stem = ["-talosconfig", "-talos", "-ca"].iter().find_map(|suffix| name.strip_suffix(suffix));
    let cluster = cluster_name(&secret.metadata).or(stem).unwrap_or_default();
    if stem != Some(cluster) {
        return Vec::new();
    }
    let is_client = name.ends_with("-talosconfig");
    let all = configs.of_cluster(namespace, cluster);
    all.iter().filter(|config| !is_client || plan::is_control_plane(config, None)).map(|config| ObjectKey::of(&config.metadata)).collect()
}

impl Configs {
    async fn observe(&self, config: Arc<TalosConfig>) -> Result<Observed, Error> {
        let wiring = &self.act.wiring;
        let key = ObjectKey::of(&config.metadata);
        let namespace = key.namespace();
        let owner = controller_reference(&config.metadata).filter(|owner| owner.kind == "Machine");
        let machine = owner.and_then(|owner| self.machines.get_in(namespace, &owner.name));
        let cluster = machine.as_ref().map(|machine| machine.spec.cluster_name.as_str()).or_else(|| cluster_name(&config.metadata));
        let cluster = cluster.and_then(|name| self.clusters.get_in(namespace, name));
        let name = cluster.as_ref().and_then(|cluster| cluster.metadata.name.clone()).unwrap_or_default();
        let mut control_planes = self.machines.of_cluster(namespace, &name);
        control_planes.retain(|machine| is_control_plane(machine));
        let holders = self.givens.holders(&control_planes, cluster.as_ref().and_then(|cluster| endpoint_host(cluster))).await?;
        let secret = |name: String| self.act.secrets.get_in(namespace, &name);
        let presence = |secret: Option<Arc<Secret>>| if secret.is_some() { Presence::Present } else { Presence::Absent };
        let bundle = secret(secrets::talos(&name)).map(|secret| self.act.bundles.read(&secret));
        let origin = match &cluster {
            Some(cluster) if bundle.is_none() => self.origin(namespace, cluster),
            _ => Origin::New,
        };
        Ok(Observed {
            bundle,
            origin,
            holders,
            ca: presence(secret(secrets::ca(&name))),
            data: presence(machine.as_ref().and_then(|machine| {
                let given = machine.spec.bootstrap.data_secret_name.clone();
                secret(given.unwrap_or_else(|| secrets::bootstrap_data(machine.metadata.name.as_deref().unwrap_or_default())))
            })),
            client: secret(secrets::talosconfig(&name)).map(|secret| {
                self.clients.of(&secret, |secret| {
                    let text = controlplane::text(secret, secrets::TALOSCONFIG).unwrap_or_default();
                    ClientConfig::from_yaml(text).map(Arc::new).map_err(|error| error.to_string())
                })
            }),
            now: wiring.clock.now_seconds(),
            defects: wiring.defects.clone(),
            control_planes,
            machine,
            cluster,
            config,
        })
    }

    /// Whether a cluster without bundle was begun with one, and what its control planes' data give back of it.
    fn origin(&self, namespace: &str, cluster: &Cluster) -> Origin {
        let name = cluster.metadata.name.as_deref().unwrap_or_default();
        let machines = self.machines.of_cluster(namespace, name);
        let is_configured = |machine: &Arc<Machine>| {
            let bootstrap = &machine.spec.bootstrap;
            bootstrap.data_secret_name.is_some() && bootstrap.config_ref.as_ref().is_some_and(|reference| reference.kind == "TalosConfig")
        };
        let is_initialized = cluster.status.as_ref().is_some_and(|status| status.initialization.control_plane_initialized == Some(true));
        let mut data = self.act.secrets.of_cluster(namespace, name);
        data.retain(|secret| secret.metadata.name.as_ref().is_some_and(|name| name.ends_with(DATA_SUFFIX)));
        if data.is_empty() && !is_initialized && !machines.iter().any(is_configured) {
            return Origin::New;
        }
        let configs = data.iter().filter_map(|secret| MachineConfig::from_yaml(controlplane::text(secret, secrets::VALUE)?).ok());
        let planes = configs.filter(|config| config.machine_type().is_ok_and(MachineType::is_control_plane));
        let (mut whole, mut reason) = (Vec::<Bundle>::new(), "no control plane's bootstrap data is there".to_owned());
        for config in planes {
            match config.bundle() {
                Ok(bundle) if whole.contains(&bundle) => {}
                Ok(bundle) => whole.push(bundle),
                Err(error) => reason = format!("a control plane's bootstrap data do not hold it: {error}"),
            }
        }
        Origin::Lives(match whole.as_slice() {
            [bundle] => Ok(Arc::new(bundle.clone())),
            [] => Err(reason),
            _ => Err("the bootstrap data of its control planes hold different ones".to_owned()),
        })
    }

    /// The client configuration's text as it is now.
    fn client_text(&self, observed: &Observed) -> Option<String> {
        let cluster = observed.cluster.as_ref()?;
        let key = ObjectKey::of(&cluster.metadata);
        let secret = self.act.secrets.get_in(key.namespace(), &secrets::talosconfig(&key.name))?;
        controlplane::text(&secret, secrets::TALOSCONFIG).map(str::to_owned)
    }
}

#[async_trait]
impl Reconciler for Configs {
    type Kind = TalosConfig;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(config) = self.act.configs.get(key) else { return Ok(Action::Done) };
        let observed = self.observe(config).await?;
        let plan = plan::plan(&observed);
        let mut acted = Acted::default();
        let mut result = Ok(());
        let mut is_restored = false;
        for step in &plan.steps {
            match self.act.step(&observed, step).await {
                Ok(outcome) => {
                    acted.warnings.extend(outcome.warnings);
                    is_restored |= outcome.is_bundle_restored;
                }
                // Nothing but a change of the object cures it, so it is told and not tried again.
                Err(ActError::Generation(error)) => {
                    acted.failure = Some(runtime::reconcile::explain(&error));
                    break;
                }
                Err(error) => {
                    if let Step::WriteClient { .. } = step
                        && !matches!(error, ActError::Api(_))
                    {
                        acted.client_failure = Some(error.to_string());
                    }
                    result = Err(error.into_error());
                    break;
                }
            }
        }
        let Some(config) = self.act.configs.get(key) else { return result.map(|()| Action::Done) };
        let after = self.observe(config).await?;
        let has_data = after.data == Presence::Present;
        let client = self.client_text(&after);
        let new = status::status(&after, &plan, &acted, has_data, client.as_deref());
        let written = crate::status::patch(&self.act.configs, &*after.config, after.config.status.as_ref(), &new).await;
        let object = after.config.object_ref(&());
        if is_restored {
            let text = "the cluster's secrets bundle was gone; it was written anew as a control plane's bootstrap data hold it";
            self.recorder.event(&object, EventType::Warning, "BundleRestored", text.to_owned());
        }
        for warning in &acted.warnings {
            self.recorder.event(&object, EventType::Warning, "ConfigPatchDropsGeneratedKeys", warning.clone());
        }
        if let (Some(failure), Ok(Some(_))) = (&acted.failure, &written) {
            self.recorder.event(&object, EventType::Warning, "DataSecretGenerationFailed", failure.clone());
        }
        result?;
        written.map(drop).or_else(crate::status::unless_gone)?;
        Ok(renewal(&after))
    }
}

/// Run again when the client certificate is due.
fn renewal(observed: &Observed) -> Action {
    let Some(Ok(client)) = &observed.client else { return Action::Done };
    let Some((not_before, not_after)) = client.identity.life() else { return Action::Done };
    let life = not_after.duration_since(not_before).as_secs();
    let age = observed.now.duration_since(not_before).as_secs();
    let left = (life / 10 * 7 + 10).saturating_sub(age).max(60);
    Action::RequeueAfter(std::time::Duration::from_secs(u64::try_from(left).unwrap_or(3600)))
}
