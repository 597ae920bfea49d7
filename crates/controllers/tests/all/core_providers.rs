//! Stand-ins for the Talos and vSphere providers: they keep the contract and nothing else. Machines boot after two virtual seconds.

use std::sync::Arc;
use std::time::Duration;

use api::bootstrap::TalosConfig;
use api::cluster::Machine;
use api::controlplane::TalosControlPlane;
use api::infrastructure::{VSphereCluster, VSphereMachine};
use async_trait::async_trait;
use controllers::edit::{Edit, controller_of, controller_reference, is_deleting};
use kube::Resource;
use runtime::clock::Clock;
use runtime::log::Log;
use runtime::random::Random;
use runtime::reconcile::{Action, Controller, Error, ObjectKey, Reconciler, Store, Stores};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::core_workload::Memory;

/// How long a machine takes from its creation to its Node.
const BOOT: Duration = Duration::from_secs(2);
/// What keeps an object until its stand-in has let go.
const HOLD: &str = "test.talosphere.dev/hold";

struct Infrastructure(Store<VSphereCluster>, Store<VSphereMachine>);

#[async_trait]
impl Reconciler for Infrastructure {
    type Kind = VSphereCluster;
    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(object) = self.0.get(key) else { return Ok(Action::Done) };
        if is_deleting(object.meta()) {
            let cluster = object.metadata.labels.as_ref().and_then(|l| l.get("cluster.x-k8s.io/cluster-name")).cloned().unwrap_or_default();
            if self.1.of_cluster(key.namespace(), &cluster).is_empty() {
                Edit::of(object.meta()).without_finalizer(HOLD).apply(&self.0).await?;
            }
            return Ok(Action::Done);
        }
        Edit::of(object.meta()).finalizer(HOLD).apply(&self.0).await?;
        let is_owned = controller_reference(object.meta()).is_some();
        if is_owned && object.status.as_ref().is_none_or(|status| status.initialization.provisioned != Some(true)) {
            self.0.merge_status(key, json!({"status": {"initialization": {"provisioned": true}}})).await?;
        }
        Ok(Action::Done)
    }
}

struct Machines {
    store: Store<VSphereMachine>,
    machines: Store<Machine>,
    workload: Memory,
    clock: Clock,
}

impl Machines {
    fn owner(&self, object: &VSphereMachine) -> Option<Arc<Machine>> {
        let owner = controller_reference(object.meta()).filter(|owner| owner.kind == "Machine")?;
        self.machines.get_in(object.metadata.namespace.as_deref().unwrap_or_default(), &owner.name)
    }
}

/// The machine's UUID follows from its object's, with the version digit of a vSphere UUID left alone.
fn uuid_of(object: &VSphereMachine) -> String {
    object.metadata.uid.clone().unwrap_or_default()
}

/// The first three groups in the other byte order: how the guest reads it.
fn swapped(uuid: &str) -> String {
    let groups: Vec<&str> = uuid.split('-').collect();
    let turn = |group: &str| group.as_bytes().chunks(2).rev().map(|pair| String::from_utf8_lossy(pair).into_owned()).collect::<String>();
    format!("{}-{}-{}-{}-{}", turn(groups[0]), turn(groups[1]), turn(groups[2]), groups[3], groups[4])
}

#[async_trait]
impl Reconciler for Machines {
    type Kind = VSphereMachine;
    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(object) = self.store.get(key) else { return Ok(Action::Done) };
        let owner = self.owner(&object);
        let cluster = object.metadata.labels.as_ref().and_then(|l| l.get("cluster.x-k8s.io/cluster-name")).cloned().unwrap_or_default();
        let cluster = ObjectKey::namespaced(key.namespace(), cluster);
        if is_deleting(object.meta()) {
            Edit::of(object.meta()).without_finalizer(HOLD).apply(&self.store).await?;
            return Ok(Action::Done);
        }
        let Some(machine) = owner else { return Ok(Action::Done) };
        let object = Edit::of(object.meta()).finalizer(HOLD).apply(&self.store).await?.unwrap_or(object);
        if machine.spec.bootstrap.data_secret_name.is_none() {
            return Ok(Action::Done);
        }
        let uuid = uuid_of(&object);
        if object.spec.provider_id.is_none() {
            self.store.merge(key, json!({"spec": {"providerID": format!("vsphere://{uuid}")}})).await?;
            let name = machine.metadata.name.as_deref().unwrap_or_default();
            let addresses = json!([{"type": "ExternalIP", "address": "10.0.0.1"}, {"type": "InternalDNS", "address": name}]);
            self.store.merge_status(key, json!({"status": {"initialization": {"provisioned": true}, "addresses": addresses}})).await?;
            return Ok(Action::RequeueAfter(BOOT));
        }
        let created = object.metadata.creation_timestamp.as_ref().map_or(self.clock.now(), |time| time.0);
        let age = Duration::try_from(self.clock.now().duration_since(created)).unwrap_or_default();
        if self.workload.is_dark() {
            return Ok(Action::Done);
        }
        if age < BOOT {
            return Ok(Action::RequeueAfter(BOOT - age));
        }
        self.workload.register(&cluster, machine.metadata.name.as_deref().unwrap_or_default(), &swapped(&uuid));
        Ok(Action::Done)
    }
}

struct Bootstrap(Store<TalosConfig>);

#[async_trait]
impl Reconciler for Bootstrap {
    type Kind = TalosConfig;
    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(object) = self.0.get(key) else { return Ok(Action::Done) };
        let Some(owner) = controller_reference(object.meta()).filter(|owner| owner.kind == "Machine") else { return Ok(Action::Done) };
        if !is_deleting(object.meta()) && object.status.as_ref().is_none_or(|status| status.data_secret_name.is_none()) {
            let secret = format!("{}-bootstrap-data", owner.name);
            let status = json!({"dataSecretName": secret, "initialization": {"dataSecretCreated": true}});
            self.0.merge_status(key, json!({"status": status})).await?;
        }
        Ok(Action::Done)
    }
}

struct ControlPlane {
    store: Store<TalosControlPlane>,
    machines: Store<Machine>,
    configs: Store<TalosConfig>,
    infrastructure: Store<VSphereMachine>,
    workload: Memory,
}

#[async_trait]
impl Reconciler for ControlPlane {
    type Kind = TalosControlPlane;
    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(object) = self.store.get(key) else { return Ok(Action::Done) };
        let machines = self.machines.owned_by(object.metadata.uid.as_deref().unwrap_or_default());
        if is_deleting(object.meta()) {
            for machine in &machines {
                self.machines.delete(machine.meta(), None).await?;
            }
            if machines.is_empty() {
                Edit::of(object.meta()).without_finalizer(HOLD).apply(&self.store).await?;
            }
            return Ok(Action::Done);
        }
        let Some(cluster) = controller_reference(object.meta()).map(|owner| owner.name.clone()) else { return Ok(Action::Done) };
        let object = Edit::of(object.meta()).finalizer(HOLD).apply(&self.store).await?.unwrap_or(object);
        let labels = json!({"cluster.x-k8s.io/cluster-name": cluster, "cluster.x-k8s.io/control-plane": ""});
        for number in 0..object.spec.replicas.unwrap_or(1) {
            let name = format!("{}-{number}", key.name);
            if self.machines.get_in(key.namespace(), &name).is_some() {
                continue;
            }
            let metadata = |owned: bool| {
                let owner = owned.then(|| vec![controller_of(&*object)]);
                json!({"name": name, "namespace": key.namespace(), "labels": labels, "ownerReferences": owner})
            };
            let exists = |error: &runtime::reconcile::ApiError| error.is_already_exists();
            let config = json!({"metadata": metadata(true), "spec": {"generateType": "controlplane"}});
            self.configs.create(&serde_json::from_value(config)?).await.map(drop).or_else(|e| if exists(&e) { Ok(()) } else { Err(e) })?;
            let infrastructure =
                json!({"metadata": metadata(true), "spec": {"template": "t", "network": {"devices": [{"networkName": "n"}]}}});
            let made = self.infrastructure.create(&serde_json::from_value(infrastructure)?).await.map(drop);
            made.or_else(|e| if exists(&e) { Ok(()) } else { Err(e) })?;
            let machine = json!({"metadata": metadata(true), "spec": {"clusterName": cluster, "version": object.spec.version,
                "bootstrap": {"configRef": {"apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "TalosConfig", "name": name}},
                "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "VSphereMachine", "name": name}}});
            self.machines
                .create(&serde_json::from_value(machine)?)
                .await
                .map(drop)
                .or_else(|e| if exists(&e) { Ok(()) } else { Err(e) })?;
        }
        if self.workload.is_dark() && machines.len() == 3 && object.status.as_ref().is_none_or(|status| status.conditions.is_empty()) {
            let at = "2026-03-01T08:00:00Z";
            let message = "Scaling up control plane to 3 replicas (actual 2)";
            let ready = json!({"type": "Ready", "status": "False", "severity": "Warning", "reason": "ScalingUp", "message": message, "lastTransitionTime": at});
            let available = json!({"type": "Available", "status": "False", "severity": "Info", "reason": "WaitingForTalosBoot", "lastTransitionTime": at});
            self.store.merge_status(key, json!({"status": {"conditions": [available, ready], "replicas": 3}})).await?;
        }
        let has_node = machines.iter().any(|machine| machine.status.as_ref().is_some_and(|status| status.node_ref.is_some()));
        let has_address = machines.iter().any(|machine| machine.status.as_ref().is_some_and(|status| !status.addresses.is_empty()));
        let told = object.status.as_ref().and_then(|status| status.initialized);
        if (has_node || has_address) && told != Some(true) && !self.workload.is_dark() {
            let count = machines.len();
            self.store
                .merge_status(key, json!({"status": {"initialized": true, "ready": true, "replicas": count, "readyReplicas": count}}))
                .await?;
        }
        Ok(Action::Done)
    }
}

/// Runs the stand-ins until the token ends. They live apart from the controllers: a kill of those does not touch them.
pub fn start(client: kube::Client, workload: &Memory, clock: &Clock, random: &Random, token: &CancellationToken) {
    let stores = Stores::new(client, clock.clone(), random, token.clone());
    let log = Log::passing(clock.clone());
    let infrastructure = Infrastructure(stores.get(), stores.get());
    let controller = Controller::new("infrastructure", infrastructure, &stores, random, &log);
    let controller = controller.watches(|machine: &VSphereMachine| {
        let cluster = machine.metadata.labels.as_ref().and_then(|labels| labels.get("cluster.x-k8s.io/cluster-name"));
        cluster
            .map(|cluster| ObjectKey::namespaced(machine.metadata.namespace.clone().unwrap_or_default(), cluster.clone()))
            .into_iter()
            .collect()
    });
    tokio::spawn(controller.run(token.clone()));
    let machines = Machines { store: stores.get(), machines: stores.get(), workload: workload.clone(), clock: clock.clone() };
    let controller = Controller::new("machines", machines, &stores, random, &log).watches(|machine: &Machine| {
        let reference = &machine.spec.infrastructure_ref;
        vec![ObjectKey::namespaced(machine.metadata.namespace.clone().unwrap_or_default(), reference.name.clone())]
    });
    tokio::spawn(controller.run(token.clone()));
    let controller = Controller::new("bootstrap", Bootstrap(stores.get()), &stores, random, &log);
    tokio::spawn(controller.run(token.clone()));
    let control_plane = ControlPlane {
        store: stores.get(),
        machines: stores.get(),
        configs: stores.get(),
        infrastructure: stores.get(),
        workload: workload.clone(),
    };
    let controller = Controller::new("control plane", control_plane, &stores, random, &log).owns::<Machine>();
    tokio::spawn(controller.run(token.clone()));
}
