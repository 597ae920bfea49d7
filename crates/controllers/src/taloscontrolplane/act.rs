//! Carries out a TalosControlPlane's steps: one outside effect each, and none of them decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::bootstrap::TalosConfig;
use api::cluster::{Bootstrap, Cluster, Machine, MachineSpec};
use api::controlplane::TalosControlPlane;
use api::meta::ContractReference;
use api::names::{BOOTSTRAP_GROUP, annotations, finalizers, labels, secrets};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use runtime::reconcile::{ApiError, Error, ObjectKey, Store};
use serde_json::{Value, json};
use talos::client::{ClientIdentity, TalosApi, TalosError};
use talos::kubeconfig::{KubeconfigInput, generate};
use talos::secrets::Bundle;

use super::intent::{self, Choice, PlannedMachine};
use super::plan::{Observed, Step};
use super::template_reference;
use crate::Wiring;
use crate::clone::{self, Request};
use crate::controlplane::ETCD_HOOK;
use crate::edit::{Edit, controller_of, controller_reference, owner_of};
use crate::naming;
use crate::remediation;
use crate::rounds::Rounds;

/// What a step has found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The node says that its etcd is bootstrapped.
    Bootstrapped,
    /// The node did not do it; why. The next pass sees what came of it.
    NotDone(String),
}

/// A part of a machine could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CreationError {
    /// The condition's reason.
    pub reason: &'static str,
    pub message: String,
    pub source: Option<ApiError>,
}

/// The writers that steps go through.
#[derive(Clone)]
pub struct Act {
    pub wiring: Wiring,
    pub control_planes: Store<TalosControlPlane>,
    pub machines: Store<Machine>,
    pub configs: Store<TalosConfig>,
    pub secrets: Store<Secret>,
}

impl std::fmt::Debug for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Act")
    }
}

/// What steps need besides what was observed.
#[derive(Clone, Debug, Default)]
pub struct Means {
    pub bundle: Option<Arc<Bundle>>,
    pub identity: Option<ClientIdentity>,
}

impl Act {
    /// Carries out one step; twice is as once.
    ///
    /// # Errors
    /// As the API answers; [`CreationError`] when a part of a machine cannot be made. What nodes answer is an outcome, not an error.
    pub async fn step(&self, observed: &Observed, means: &Means, step: &Step) -> Result<Outcome, Error> {
        let key = ObjectKey::of(&observed.control_plane.metadata);
        let latest = self.control_planes.get(&key).unwrap_or_else(|| Arc::clone(&observed.control_plane));
        let mut outcome = Outcome::Done;
        let (word, object) = match step {
            Step::AddFinalizer => {
                Edit::of(&latest.metadata).finalizer(finalizers::TALOS_CONTROL_PLANE).apply(&self.control_planes).await?;
                ("add-finalizer", String::new())
            }
            Step::RemoveFinalizer => {
                Edit::of(&latest.metadata).without_finalizer(finalizers::TALOS_CONTROL_PLANE).apply(&self.control_planes).await?;
                ("remove-finalizer", String::new())
            }
            Step::OwnTemplate => {
                self.own_template(observed).await?;
                ("own-template", String::new())
            }
            Step::WriteKubeconfig => {
                self.write_kubeconfig(observed, means).await?;
                ("write-kubeconfig", String::new())
            }
            Step::PlanMachines { count, is_first } => {
                self.plan_machines(&latest, *count, *is_first).await?;
                ("plan-machines", count.to_string())
            }
            Step::KeepPlanned(planned) => {
                self.store_planned(&latest, planned, None).await?;
                ("keep-planned", planned.len().to_string())
            }
            Step::CreateMachine { planned, failure_domain } => {
                self.create_machine(observed, planned, failure_domain.as_ref()).await?;
                ("create-machine", planned.machine.clone())
            }
            Step::CreateConfig { machine } => {
                self.create_config(observed, machine).await?;
                ("create-config", machine.clone())
            }
            Step::CreateInfrastructure { machine } => {
                self.create_infrastructure(observed, machine).await?;
                ("create-infrastructure", machine.clone())
            }
            Step::Hold { machine } => {
                self.edit_machine(&key, machine, |edit| edit.annotation(ETCD_HOOK, "TalosControlPlane")).await?;
                ("hold", machine.clone())
            }
            Step::Release { machine } => {
                self.edit_machine(&key, machine, |edit| edit.without_annotation(ETCD_HOOK)).await?;
                ("release", machine.clone())
            }
            Step::RecordMember { machine, id } => {
                self.edit_machine(&key, machine, |edit| edit.annotation(intent::ETCD_MEMBER, &id.to_string())).await?;
                ("record-member", machine.clone())
            }
            Step::MarkLeaving { machine } => {
                self.edit_machine(&key, machine, |edit| edit.annotation(annotations::ETCD_LEAVING, "true")).await?;
                ("mark-leaving", machine.clone())
            }
            Step::DeleteMachine(meta) => {
                self.machines.delete(meta, None).await?;
                ("delete-machine", meta.name.clone().unwrap_or_default())
            }
            Step::RecordBootstrap(choice) => {
                self.record(&latest, choice).await?;
                ("record-bootstrap-node", intent::choice_text(choice).unwrap_or_default())
            }
            Step::Bootstrap { machine, address } => {
                outcome = self.bootstrap(means, address).await;
                ("bootstrap", machine.clone())
            }
            Step::MoveLeadership { machine, address } => {
                outcome = self.move_leadership(means, address).await;
                ("move-leadership", machine.clone())
            }
            Step::EtcdLeave { machine, address } => {
                outcome = self.leave(means, address).await;
                ("etcd-leave", machine.clone())
            }
            Step::StoreRounds(rounds) => {
                Rounds::annotate(*rounds, Edit::of(&latest.metadata)).apply(&self.control_planes).await?;
                ("store-rounds", rounds.map(|rounds| rounds.count.to_string()).unwrap_or_default())
            }
            Step::TellRemediation { machine, reason, message } => {
                remediation::write(&self.machines, machine, reason, message, observed.now).await?;
                ("tell-remediation", machine.metadata.name.clone().unwrap_or_default())
            }
            Step::EtcdRemove { machine, id, via } => {
                outcome = self.remove(means, *id, via).await;
                ("etcd-remove", machine.clone())
            }
        };
        let result = match &outcome {
            Outcome::Done | Outcome::Bootstrapped => "ok",
            Outcome::NotDone(reason) => reason,
        };
        let object = if object.is_empty() { format!("TalosControlPlane {key}") } else { format!("TalosControlPlane {key} {object}") };
        self.wiring.log.record("taloscontrolplane", word, object, result);
        Ok(outcome)
    }

    async fn own_template(&self, observed: &Observed) -> Result<(), Error> {
        let (Some(cluster), Some(template)) = (&observed.cluster, observed.template.found()) else { return Ok(()) };
        let reference = &observed.control_plane.spec.infrastructure_template;
        let store = self.wiring.externals.store(reference.group(), reference.kind.as_deref().unwrap_or_default()).await?;
        Edit::of(&template.metadata).owner(owner_of(&**cluster)).apply(&store).await?;
        Ok(())
    }

    async fn edit_machine(&self, key: &ObjectKey, machine: &str, change: impl FnOnce(Edit<'_>) -> Edit<'_>) -> Result<(), Error> {
        let Some(machine) = self.machines.get_in(key.namespace(), machine) else { return Ok(()) };
        match change(Edit::of(&machine.metadata)).apply(&self.machines).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop).map_err(Error::from),
        }
    }

    /// A patch of annotations that fails when the object has changed since it was read.
    async fn annotate(&self, control_plane: &TalosControlPlane, changes: Value) -> Result<(), Error> {
        let meta = &control_plane.metadata;
        let metadata = json!({ "resourceVersion": meta.resource_version, "uid": meta.uid, "annotations": changes });
        self.control_planes.merge(&ObjectKey::of(meta), json!({ "metadata": metadata })).await?;
        Ok(())
    }

    async fn record(&self, latest: &TalosControlPlane, choice: &Choice) -> Result<(), Error> {
        let stored = intent::choice(latest);
        if stored == *choice {
            return Ok(());
        }
        // A node that was recorded meanwhile, by whomever, is not replaced by another one.
        if matches!((&stored, choice), (Choice::Node { .. }, Choice::Node { .. })) {
            return Err(Error::message("another bootstrap node has been recorded meanwhile"));
        }
        self.annotate(latest, json!({ intent::BOOTSTRAP_NODE: intent::choice_text(choice) })).await
    }

    async fn store_planned(&self, latest: &TalosControlPlane, planned: &[PlannedMachine], choice: Option<Choice>) -> Result<(), Error> {
        let text = if planned.is_empty() { Value::Null } else { json!(intent::planned_text(planned)) };
        let mut changes = json!({ intent::PLANNED_MACHINES: text });
        if let Some(choice) = choice {
            changes[intent::BOOTSTRAP_NODE] = json!(intent::choice_text(&choice));
        }
        self.annotate(latest, changes).await
    }

    async fn plan_machines(&self, latest: &TalosControlPlane, count: usize, is_first: bool) -> Result<(), Error> {
        let key = ObjectKey::of(&latest.metadata);
        let namespace = key.namespace();
        let mut planned = intent::planned(latest);
        planned.retain(|planned| self.machines.get_in(namespace, &planned.machine).is_none());
        let template = latest.spec.infrastructure_template.name.as_deref().unwrap_or_default();
        for _ in 0..count {
            let machine = self.draw(&key.name, |name| {
                self.machines.get_in(namespace, name).is_none() && !planned.iter().any(|planned| planned.machine == name)
            });
            let config = self.draw(&key.name, |name| {
                self.configs.get_in(namespace, name).is_none() && !planned.iter().any(|planned| planned.config == name)
            });
            let infrastructure = self.draw(template, |name| !planned.iter().any(|planned| planned.infrastructure == name));
            planned.push(PlannedMachine { machine, infrastructure, config });
        }
        self.store_planned(latest, &planned, is_first.then_some(Choice::Unborn)).await
    }

    /// A name with a random suffix that nothing has yet.
    fn draw(&self, base: &str, is_free: impl Fn(&str) -> bool) -> String {
        naming::draw(&self.wiring.random, |suffix| naming::suffixed(base, suffix), is_free)
    }

    async fn create_machine(&self, observed: &Observed, planned: &PlannedMachine, failure_domain: Option<&String>) -> Result<(), Error> {
        let control_plane = &observed.control_plane;
        let Some(cluster) = &observed.cluster else { return Ok(()) };
        let template = &control_plane.spec.infrastructure_template;
        let kind = template.kind.as_deref().unwrap_or_default();
        let machine = Machine {
            metadata: ObjectMeta {
                name: Some(planned.machine.clone()),
                namespace: control_plane.metadata.namespace.clone(),
                labels: Some(machine_labels(cluster)),
                annotations: Some(BTreeMap::from([(ETCD_HOOK.to_owned(), "TalosControlPlane".to_owned())])),
                owner_references: Some(vec![controller_of(&**control_plane)]),
                ..ObjectMeta::default()
            },
            spec: MachineSpec {
                bootstrap: Bootstrap {
                    config_ref: Some(ContractReference {
                        api_group: BOOTSTRAP_GROUP.to_owned(),
                        kind: "TalosConfig".to_owned(),
                        name: planned.config.clone(),
                    }),
                    data_secret_name: None,
                },
                cluster_name: cluster.metadata.name.clone().unwrap_or_default(),
                failure_domain: failure_domain.cloned(),
                infrastructure_ref: ContractReference {
                    api_group: template.group().to_owned(),
                    kind: clone::kind_of(kind).to_owned(),
                    name: planned.infrastructure.clone(),
                },
                version: Some(control_plane.spec.version.clone()),
                ..MachineSpec::default()
            },
            ..Machine::default()
        };
        match self.machines.create(&machine).await {
            Ok(_) => Ok(()),
            // An earlier try of ours whose answer was lost.
            Err(error) if error.is_already_exists() => {
                self.machines.fetch(&ObjectKey::of(&machine.metadata)).await?;
                Ok(())
            }
            Err(error) => {
                let message = format!("Machine {} cannot be created: {error}", planned.machine);
                Err(CreationError { reason: "MachineGenerationFailed", message, source: Some(error) }.into())
            }
        }
    }

    async fn create_config(&self, observed: &Observed, machine: &str) -> Result<(), Error> {
        let control_plane = &observed.control_plane;
        let (Some(cluster), Some(machine)) = (&observed.cluster, self.machine(observed, machine)) else { return Ok(()) };
        let Some(reference) = &machine.spec.bootstrap.config_ref else { return Ok(()) };
        let config = TalosConfig {
            metadata: ObjectMeta {
                name: Some(reference.name.clone()),
                namespace: control_plane.metadata.namespace.clone(),
                labels: Some(BTreeMap::from([(labels::CLUSTER_NAME.to_owned(), cluster.metadata.name.clone().unwrap_or_default())])),
                owner_references: Some(vec![controller_of(&*machine)]),
                ..ObjectMeta::default()
            },
            spec: control_plane.spec.control_plane_config.controlplane.to_talos_config(),
            ..TalosConfig::default()
        };
        match self.configs.create(&config).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() => {
                self.configs.fetch(&ObjectKey::of(&config.metadata)).await?;
                Ok(())
            }
            Err(error) => {
                let message = format!("TalosConfig {} cannot be created: {error}", reference.name);
                Err(CreationError { reason: "BootstrapTemplateCloningFailed", message, source: Some(error) }.into())
            }
        }
    }

    /// The Machine, when it is there and not on its way out.
    fn machine(&self, observed: &Observed, machine: &str) -> Option<Arc<Machine>> {
        let namespace = observed.control_plane.metadata.namespace.as_deref().unwrap_or_default();
        self.machines.get_in(namespace, machine).filter(|machine| machine.metadata.deletion_timestamp.is_none())
    }

    async fn create_infrastructure(&self, observed: &Observed, machine: &str) -> Result<(), Error> {
        let (Some(cluster), Some(machine)) = (&observed.cluster, self.machine(observed, machine)) else { return Ok(()) };
        let control_plane = &observed.control_plane;
        let request = Request {
            namespace: control_plane.metadata.namespace.as_deref().unwrap_or_default(),
            template: &template_reference(control_plane),
            name: &machine.spec.infrastructure_ref.name,
            labels: &machine_labels(cluster),
            annotations: &BTreeMap::new(),
            owner: controller_of(&*machine),
        };
        clone::create(&self.wiring.externals, &request).await.map(drop).map_err(|error| {
            let message = format!("{} cannot be created: {error}", machine.spec.infrastructure_ref.name);
            CreationError { reason: "InfrastructureTemplateCloningFailed", message, source: None }.into()
        })
    }

    async fn write_kubeconfig(&self, observed: &Observed, means: &Means) -> Result<(), Error> {
        let (Some(cluster), Some(bundle)) = (&observed.cluster, &means.bundle) else { return Ok(()) };
        let name = cluster.metadata.name.clone().unwrap_or_default();
        let server = cluster.spec.control_plane_endpoint.url().unwrap_or_default();
        let wiring = &self.wiring;
        let input = KubeconfigInput { cluster_name: &name, server: &server, proxy_url: wiring.workload_proxy.as_deref() };
        let random = wiring.random.child(&format!("kubeconfig {name} {}", wiring.clock.now_seconds().as_second()));
        let text = generate(&input, &bundle.kubernetes, &*wiring.keys, &random, &wiring.clock).await?;
        let namespace = observed.control_plane.metadata.namespace.clone();
        let key = ObjectKey { namespace: namespace.clone(), name: secrets::kubeconfig(&name) };
        if let Some(present) = self.secrets.get(&key) {
            // The user's own is not ours to renew, although the plan saw none of ours.
            if !is_ours(&present, &observed.control_plane) {
                return Ok(());
            }
            use base64::Engine as _;
            let data = json!({ secrets::VALUE: base64::engine::general_purpose::STANDARD.encode(text) });
            let metadata = json!({ "resourceVersion": present.metadata.resource_version, "uid": present.metadata.uid });
            self.secrets.merge(&key, json!({ "metadata": metadata, "data": data })).await?;
            return Ok(());
        }
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(key.name.clone()),
                namespace,
                labels: Some(BTreeMap::from([(labels::CLUSTER_NAME.to_owned(), name.clone())])),
                owner_references: Some(vec![controller_of(&*observed.control_plane)]),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(secrets::VALUE.to_owned(), ByteString(text.into_bytes()))])),
            type_: Some(secrets::TYPE.to_owned()),
            ..Secret::default()
        };
        match self.secrets.create(&secret).await {
            Err(error) if error.is_already_exists() => self.secrets.fetch(&key).await.map(drop).map_err(Error::from),
            other => other.map(drop).map_err(Error::from),
        }
    }

    async fn connect(&self, means: &Means, address: &str) -> Result<Arc<dyn TalosApi>, TalosError> {
        let identity =
            means.identity.as_ref().ok_or_else(|| TalosError::Setup { reason: "there is no client certificate yet".to_owned() })?;
        self.wiring.talos.connect(address, identity).await
    }

    async fn bootstrap(&self, means: &Means, address: &str) -> Outcome {
        let called = async { self.connect(means, address).await?.bootstrap().await };
        match called.await {
            Ok(()) => Outcome::Bootstrapped,
            // The recorded node was asked before, and it has begun: that answer was lost.
            Err(TalosError::AlreadyExists { .. }) => Outcome::Bootstrapped,
            Err(error) => Outcome::NotDone(error.to_string()),
        }
    }

    /// Only to spare the cluster an election: one whose node cannot hand it on is asked to leave all the same.
    async fn move_leadership(&self, means: &Means, address: &str) -> Outcome {
        let called = async { self.connect(means, address).await?.etcd_forfeit_leadership().await };
        match called.await {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::NotDone(error.to_string()),
        }
    }

    async fn leave(&self, means: &Means, address: &str) -> Outcome {
        // Bounded by the client, and not here: a node that is cut off while it leaves may keep its data and lose its membership.
        let called = async { self.connect(means, address).await?.etcd_leave().await };
        match called.await {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::NotDone(error.to_string()),
        }
    }

    async fn remove(&self, means: &Means, id: talos::client::MemberId, via: &str) -> Outcome {
        let called = async { self.connect(means, via).await?.etcd_remove_member(id).await };
        match called.await {
            // Gone already: an earlier call of ours whose answer was lost.
            Ok(()) | Err(TalosError::NotFound { .. }) => Outcome::Done,
            Err(error) => Outcome::NotDone(error.to_string()),
        }
    }
}

/// Whether the control plane made the kubeconfig Secret.
pub fn is_ours(secret: &Secret, control_plane: &TalosControlPlane) -> bool {
    controller_reference(&secret.metadata).is_some_and(|owner| Some(&owner.uid) == control_plane.metadata.uid.as_ref())
}

fn machine_labels(cluster: &Cluster) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::CLUSTER_NAME.to_owned(), cluster.metadata.name.clone().unwrap_or_default()),
        (labels::CONTROL_PLANE.to_owned(), String::new()),
    ])
}
