//! The TalosControlPlane controller: makes control-plane Machines, bootstraps their etcd once, and keeps its quorum while they come and go.
//!
//! What nodes say about etcd is gathered before a plan is made ([`probe`]); the plan never assumes what it was not told.

mod act;
mod departure;
pub mod etcd;
pub mod intent;
pub mod plan;
mod probe;
pub mod recovery;
mod remediation;
#[cfg(test)]
mod rollout_tests;
mod size;
mod spare;
pub mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::bootstrap::TalosConfig;
use api::cluster::{Cluster, Machine};
use api::controlplane::TalosControlPlane;
use api::meta::ContractReference;
use api::names::secrets;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use kube::Resource as _;
use runtime::reconcile::{Action, Error, EventType, ObjectKey, Reconciler, Recorder, Store};
use talos::client::ClientIdentity;
use talos::clientconfig::ADMIN;
use talos::kubeconfig::{KubeconfigInput, Written};
use talos::secrets::Bundle;

use crate::contract::ExternalKey;
use crate::controlplane::{self, Bundles, Givens, Readings, address, endpoint_host};
use crate::edit::controller_reference;
use crate::{Started, Wiring};
use act::{Act, CreationError, Means, Outcome};
use etcd::{Answer, NodeView};
use plan::{Kubeconfig, Observed, Parts, Plan, Pools, Step};
use probe::{Age, Probes};
use spare::SpareAddresses;
use status::Acted;

/// The controller's name.
pub const NAME: &str = "taloscontrolplane";
/// Between two looks at one object: what changes together is looked at once.
const REST: Duration = Duration::from_millis(20);
/// Machines by the objects that they name.
const BY_PART: &str = "parts of control planes";

struct ControlPlanes {
    act: Act,
    clusters: Store<Cluster>,
    bundles: Bundles,
    kubeconfigs: Readings<Option<Arc<Written>>>,
    givens: Givens,
    addresses: SpareAddresses,
    probes: Probes,
    /// Client certificates by cluster, with the authority that issued each.
    identities: Mutex<BTreeMap<ObjectKey, ClientIdentity>>,
    recorder: Recorder,
}

/// Wires the controller.
pub fn start(wiring: &Wiring) -> Started {
    let control_planes = wiring.stores.get::<TalosControlPlane>();
    let machines = wiring.stores.get::<Machine>();
    let clusters = wiring.stores.get::<Cluster>();
    machines.index(BY_PART, |machine| {
        if !controlplane::is_control_plane(machine) {
            return Vec::new();
        }
        let namespace = machine.metadata.namespace.as_deref().unwrap_or_default();
        let references = machine.spec.bootstrap.config_ref.iter().chain([&machine.spec.infrastructure_ref]);
        references.map(|reference| ExternalKey::of(namespace, reference).to_string()).collect()
    });
    let act = Act {
        wiring: wiring.clone(),
        control_planes: control_planes.clone(),
        machines: machines.clone(),
        configs: wiring.stores.get::<TalosConfig>(),
        secrets: wiring.stores.get::<Secret>(),
    };
    let configs = act.configs.clone();
    let givens = Givens::of(wiring);
    let reconciler = ControlPlanes {
        act,
        clusters: clusters.clone(),
        bundles: Bundles::default(),
        kubeconfigs: Readings::default(),
        givens: givens.clone(),
        addresses: SpareAddresses::of(wiring),
        probes: Probes::new(wiring.clock.clone(), Arc::clone(&wiring.talos)),
        identities: Mutex::default(),
        recorder: wiring.recorder.of("taloscontrolplane-controller"),
    };
    let by_secret = clusters;
    let controller = wiring
        .controller(NAME, reconciler)
        .rest(REST)
        .owns::<Machine>()
        .watches_when(crate::change::of_cluster, |cluster: &Cluster| control_plane_of(cluster).into_iter().collect())
        .watches(move |secret: &Secret| {
            let name = secret.metadata.name.as_deref().unwrap_or_default();
            let cluster = name.strip_suffix("-talos").or_else(|| name.strip_suffix("-kubeconfig"));
            let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
            cluster
                .and_then(|cluster| by_secret.get_in(namespace, cluster))
                .and_then(|cluster| control_plane_of(&cluster))
                .into_iter()
                .collect()
        })
        .reads(&configs)
        .reads(&givens.claims)
        .reads(&givens.addresses);
    let waker = controller.waker();
    let templates = control_planes;
    wiring.externals.subscribe(move |name| {
        for machine in machines.indexed(BY_PART, &name.to_string()) {
            if let Some(owner) = controller_reference(&machine.metadata) {
                waker.wake(&ObjectKey { namespace: machine.metadata.namespace.clone(), name: owner.name.clone() });
            }
        }
        let names_it = |control_plane: &TalosControlPlane| {
            let namespace = control_plane.metadata.namespace.as_deref().unwrap_or_default();
            ExternalKey::of(namespace, &template_reference(control_plane)) == *name
        };
        for control_plane in templates.in_namespace(name.key.namespace()).iter().filter(|control_plane| names_it(control_plane)) {
            waker.wake(&ObjectKey::of(&control_plane.metadata));
        }
    });
    let waker = controller.waker();
    let clusters = wiring.stores.get::<Cluster>();
    wiring.workload.subscribe(Arc::new(move |change| {
        let is_ours = change.node.as_ref().is_none_or(|node| status::is_control_plane(node));
        if is_ours && let Some(key) = clusters.get(&change.cluster).and_then(|cluster| control_plane_of(&cluster)) {
            waker.wake(&key);
        }
    }));
    wiring.started(controller)
}

fn control_plane_of(cluster: &Cluster) -> Option<ObjectKey> {
    let reference = cluster.spec.control_plane_ref.as_ref().filter(|reference| reference.kind == "TalosControlPlane")?;
    Some(ObjectKey { namespace: cluster.metadata.namespace.clone(), name: reference.name.clone() })
}

fn template_reference(control_plane: &TalosControlPlane) -> ContractReference {
    let reference = &control_plane.spec.infrastructure_template;
    ContractReference {
        api_group: reference.group().to_owned(),
        kind: reference.kind.clone().unwrap_or_default(),
        name: reference.name.clone().unwrap_or_default(),
    }
}

impl ControlPlanes {
    /// The client certificate for a cluster's nodes; a new one when there is none, it nears its end, or the authority is another one.
    async fn identity(&self, cluster: &ObjectKey, bundle: &Bundle) -> Result<ClientIdentity, Error> {
        let now = self.act.wiring.clock.now_seconds();
        let known = {
            let identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
            identities.get(cluster).filter(|identity| identity.ca == bundle.os.certificate && !identity.is_due(now)).cloned()
        };
        if let Some(identity) = known {
            return Ok(identity);
        }
        let wiring = &self.act.wiring;
        let random = wiring.random.child(&format!("controller identity {cluster} {}", now.as_second()));
        let identity = ClientIdentity::issue(bundle, &[ADMIN], &*wiring.keys, &random, &wiring.clock).await?;
        self.identities.lock().unwrap_or_else(PoisonError::into_inner).insert(cluster.clone(), identity.clone());
        Ok(identity)
    }

    async fn observe(&self, control_plane: Arc<TalosControlPlane>) -> Result<(Observed, Means), Error> {
        let wiring = &self.act.wiring;
        let key = ObjectKey::of(&control_plane.metadata);
        let namespace = key.namespace().to_owned();
        let owner = control_plane.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "Cluster");
        let cluster = owner.and_then(|owner| self.clusters.get_in(&namespace, &owner.name));
        let cluster_key = cluster.as_ref().map(|cluster| ObjectKey::of(&cluster.metadata));
        let uid = control_plane.metadata.uid.clone().unwrap_or_default();
        let mut machines = self.act.machines.owned_by(&uid);
        machines.retain(|machine| controller_reference(&machine.metadata).is_some_and(|owner| owner.uid == uid));
        let host = cluster.as_ref().and_then(|cluster| endpoint_host(cluster));
        let is_only = machines.len() == 1;
        let holders = self.givens.holders(&machines, host).await?;
        let own_address = |machine: &Machine| {
            let is_own = machine.metadata.name.as_ref().is_some_and(|name| holders.contains(name));
            address(machine, host, is_own, is_only)
        };
        let nodes: Vec<NodeView> = machines
            .iter()
            .map(|machine| NodeView { machine: Arc::clone(machine), address: own_address(machine), answer: Answer::NotAsked, status: None })
            .collect();
        let mut parts = BTreeMap::new();
        for machine in &machines {
            let config =
                machine.spec.bootstrap.config_ref.as_ref().and_then(|reference| self.act.configs.get_in(&namespace, &reference.name));
            let infrastructure = wiring.externals.find(&namespace, Some(&machine.spec.infrastructure_ref)).await?;
            parts.insert(machine.metadata.name.clone().unwrap_or_default(), Parts { config, infrastructure });
        }
        let reference = template_reference(&control_plane);
        let template_namespace = control_plane.spec.infrastructure_template.namespace.clone().unwrap_or_else(|| namespace.clone());
        let template = wiring.externals.find(&template_namespace, Some(&reference)).await?;
        let mut means = Means::default();
        let mut kubeconfig = Kubeconfig::NotPossible;
        if let Some(cluster) = &cluster {
            let name = cluster.metadata.name.clone().unwrap_or_default();
            let secret = self.act.secrets.get_in(&namespace, &secrets::talos(&name));
            // A bundle that cannot be read is told by the TalosConfigs, which wait for it as well.
            means.bundle = secret.and_then(|secret| self.bundles.read(&secret).ok());
            kubeconfig = self.kubeconfig(&control_plane, cluster, &namespace, means.bundle.as_deref());
        }
        let connection = match &cluster_key {
            Some(key) => wiring.workload.connection(key),
            None => crate::workload::Connection::Waiting { on: "the Cluster".to_owned() },
        };
        let workload_nodes = cluster_key.as_ref().map(|key| wiring.workload.nodes(key)).unwrap_or_default();
        if let (Some(key), Some(bundle)) = (&cluster_key, &means.bundle)
            && nodes.iter().any(|node| node.address.is_some())
        {
            means.identity = Some(self.identity(key, bundle).await?);
        }
        let (now, defects) = (wiring.clock.now_seconds(), wiring.defects.clone());
        let mut observed = Observed {
            control_plane,
            cluster,
            nodes,
            parts,
            template,
            pools: Pools::default(),
            kubeconfig,
            connection,
            workload_nodes,
            now,
            defects,
        };
        if !plan::outdated(&observed).is_empty() {
            observed.pools = self.addresses.pools(&observed);
        }
        Ok((observed, means))
    }

    fn kubeconfig(&self, control_plane: &TalosControlPlane, cluster: &Cluster, namespace: &str, bundle: Option<&Bundle>) -> Kubeconfig {
        let name = cluster.metadata.name.as_deref().unwrap_or_default();
        let Some((bundle, server)) = bundle.zip(cluster.spec.control_plane_endpoint.url()) else { return Kubeconfig::NotPossible };
        let Some(secret) = self.act.secrets.get_in(namespace, &secrets::kubeconfig(name)) else { return Kubeconfig::Absent };
        if !act::is_ours(&secret, control_plane) {
            return Kubeconfig::Foreign;
        }
        let wiring = &self.act.wiring;
        let input = KubeconfigInput { cluster_name: name, server: &server, proxy_url: wiring.workload_proxy.as_deref() };
        let read = |secret: &Secret| Written::read(controlplane::text(secret, secrets::VALUE).unwrap_or_default()).map(Arc::new);
        let written = self.kubeconfigs.of(&secret, read);
        let is_stale = written.is_none_or(|written| written.is_stale(&input, &bundle.kubernetes, wiring.clock.now_seconds()));
        if is_stale { Kubeconfig::Stale } else { Kubeconfig::Fresh }
    }

    /// Plans, asking nodes again where their last answers are too old for what the plan would do. Whether any answer changed.
    async fn decide(&self, observed: &mut Observed, means: &Means) -> (Plan, bool) {
        let identity = means.identity.as_ref().filter(|_| observed.control_plane.metadata.deletion_timestamp.is_none());
        let (_, mut has_changed) = self.probes.refresh(&mut observed.nodes, identity, Age::Settled).await;
        let mut plan = plan::plan(observed);
        for age in [Age::Unsettled, Age::Fresh] {
            let is_needed = if age == Age::Fresh { plan.steps.iter().any(decides_about_etcd) } else { !plan.is_settled() };
            if !is_needed {
                continue;
            }
            let (was_asked, changed) = self.probes.refresh(&mut observed.nodes, identity, age).await;
            has_changed |= changed;
            if was_asked {
                observed.now = self.act.wiring.clock.now_seconds();
                plan = plan::plan(observed);
            }
        }
        (plan, has_changed)
    }

    async fn carry_out(&self, observed: &Observed, means: &Means, plan: &Plan) -> (Acted, Result<(), Error>) {
        let mut acted = Acted::default();
        let mut result = Ok(());
        for step in &plan.steps {
            match self.act.step(observed, means, step).await {
                Ok(outcome) => {
                    if matches!(step, Step::Bootstrap { .. } | Step::EtcdLeave { .. } | Step::EtcdRemove { .. }) {
                        // The membership is another one, in every node's eyes.
                        observed.nodes.iter().for_each(|node| self.probes.forget(&probe::uid(node)));
                        self.tell(observed, step, &outcome);
                    }
                    match outcome {
                        Outcome::Bootstrapped => acted.is_bootstrapped = true,
                        Outcome::NotDone(reason) => acted.call_failure = Some(reason),
                        Outcome::Done => {}
                    }
                }
                Err(error) => {
                    if let Some(creation) = error.inner().downcast_ref::<CreationError>() {
                        acted.creation_failure = Some((creation.reason, creation.message.clone()));
                    }
                    result = Err(error);
                    break;
                }
            }
        }
        (acted, result)
    }

    /// Calls to nodes are worth an event each.
    fn tell(&self, observed: &Observed, step: &Step, outcome: &Outcome) {
        let (reason, what) = match step {
            Step::Bootstrap { machine, .. } => ("EtcdBootstrap", format!("bootstrapping etcd on {machine}")),
            Step::EtcdLeave { machine, .. } => ("EtcdLeave", format!("{machine} leaving etcd")),
            Step::EtcdRemove { machine, .. } => ("EtcdRemove", format!("taking {machine} out of etcd")),
            _ => return,
        };
        let object = observed.control_plane.object_ref(&());
        match outcome {
            Outcome::NotDone(why) => self.recorder.event(&object, EventType::Warning, reason, format!("{what}: {why}")),
            _ => self.recorder.event(&object, EventType::Normal, reason, format!("{what}: done")),
        }
    }
}

/// Steps that are right only on what nodes say now.
fn decides_about_etcd(step: &Step) -> bool {
    matches!(
        step,
        Step::RecordBootstrap(_)
            | Step::Bootstrap { .. }
            | Step::MoveLeadership { .. }
            | Step::EtcdLeave { .. }
            | Step::EtcdRemove { .. }
            | Step::Release { .. }
            | Step::DeleteMachine(_)
            | Step::PlanMachines { .. }
            | Step::CreateMachine { .. }
    )
}

#[async_trait]
impl Reconciler for ControlPlanes {
    type Kind = TalosControlPlane;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(control_plane) = self.act.control_planes.get(key) else {
            self.probes.keep_only(|uid| self.act.machines.all().iter().any(|machine| machine.metadata.uid.as_deref() == Some(uid)));
            return Ok(Action::Done);
        };
        let (mut observed, means) = self.observe(control_plane).await?;
        let (plan, has_changed) = self.decide(&mut observed, &means).await;
        let (acted, result) = self.carry_out(&observed, &means, &plan).await;
        if let Some(cluster) = &observed.cluster
            && (has_changed || acted.is_bootstrapped)
            && !observed.connection.is_connected()
            && (acted.is_bootstrapped || observed.is_bootstrapped())
        {
            self.act.wiring.workload.hasten(&ObjectKey::of(&cluster.metadata));
        }
        let Some(control_plane) = self.act.control_planes.get(key) else { return result.map(|()| Action::Done) };
        let after = Observed { control_plane, ..observed };
        let new = status::status(&after, &plan, &acted);
        let written =
            crate::status::patch(&self.act.control_planes, &*after.control_plane, after.control_plane.status.as_ref(), &new).await;
        result?;
        written.map(drop).or_else(crate::status::unless_gone)?;
        if plan.is_paused || plan.deletion.is_some() {
            return Ok(Action::Done);
        }
        let age = if plan.is_settled() { Age::Settled } else { Age::Unsettled };
        let next = if means.identity.is_some() { self.probes.next(&after.nodes, age) } else { None };
        let later = plan.again_at.map(|at| Duration::try_from(at.duration_since(after.now)).unwrap_or_default());
        Ok([next, later].into_iter().flatten().min().map_or(Action::Done, Action::RequeueAfter))
    }
}
