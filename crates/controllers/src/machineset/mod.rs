//! The MachineSet controller: a number of equal Machines.

mod act;
pub mod plan;
pub mod remediation;
#[cfg(test)]
mod remediation_tests;
pub mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::cluster::{Cluster, Machine, MachineDeployment, MachineSet};
use async_trait::async_trait;
use jiff::SignedDuration;
use runtime::reconcile::{Action, Error, ObjectKey, Reconciler, Store};

use crate::contract::ExternalKey;
use crate::edit::{controller_reference, is_deleting};
use crate::{Started, Wiring};
use act::Act;
use plan::{Observed, owner_name};

pub use act::new_machine;

/// The controller's name.
pub const NAME: &str = "machineset";
/// Between two looks at one object: what changes together is looked at once.
const REST: Duration = Duration::from_millis(30);
/// The index of MachineSets by the templates that they reference.
const BY_TEMPLATE: &str = "templates";

struct MachineSets {
    act: Act,
    store: Store<MachineSet>,
    machines: Store<Machine>,
    clusters: Store<Cluster>,
    deployments: Store<MachineDeployment>,
}

/// Wires the controller.
pub fn start(wiring: &Wiring) -> Started {
    let store = wiring.stores.get::<MachineSet>();
    let machines = wiring.stores.get::<Machine>();
    store.index(BY_TEMPLATE, |set| {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let spec = &set.spec.template.spec;
        let references = [spec.bootstrap.config_ref.as_ref(), Some(&spec.infrastructure_ref)];
        references.into_iter().flatten().map(|reference| ExternalKey::of(namespace, reference).to_string()).collect()
    });
    crate::machine::index(&machines);
    let act = Act {
        wiring: wiring.clone(),
        sets: store.clone(),
        machines: machines.clone(),
        random: wiring.random.child("machineset names"),
        recorder: wiring.recorder.of("machineset-controller"),
    };
    let reconciler = MachineSets {
        act,
        store: store.clone(),
        machines: machines.clone(),
        clusters: wiring.stores.get::<Cluster>(),
        deployments: wiring.stores.get::<MachineDeployment>(),
    };
    let (of_cluster, of_deployment, adopters) = (store.clone(), store.clone(), store.clone());
    let controller = wiring
        .controller(NAME, reconciler)
        .rest(REST)
        .owns::<Machine>()
        // A Machine that nobody controls may be one to adopt.
        .watches(move |machine: &Machine| {
            if controller_reference(&machine.metadata).is_some() {
                return Vec::new();
            }
            let namespace = machine.metadata.namespace.as_deref().unwrap_or_default();
            let sets = adopters.in_namespace(namespace);
            let adopting = sets.iter().filter(|set| selects(set, machine));
            adopting.map(|set| ObjectKey::of(&set.metadata)).collect()
        })
        .watches(move |deployment: &MachineDeployment| {
            let sets = of_deployment.owned_by(deployment.metadata.uid.as_deref().unwrap_or_default());
            sets.iter().map(|set| ObjectKey::of(&set.metadata)).collect()
        })
        .watches_when(crate::change::of_cluster, move |cluster: &Cluster| {
            let key = ObjectKey::of(&cluster.metadata);
            of_cluster.of_cluster(key.namespace(), &key.name).iter().map(|set| ObjectKey::of(&set.metadata)).collect()
        })
        .limit(50);
    let waker = controller.waker();
    wiring.externals.subscribe(move |name| {
        let name_text = name.to_string();
        for set in store.indexed(BY_TEMPLATE, &name_text) {
            waker.wake(&ObjectKey::of(&set.metadata));
        }
        for machine in machines.indexed(crate::machine::BY_REFERENCE, &name_text) {
            if let Some(owner) = owner_name(&machine.metadata, "MachineSet") {
                waker.wake(&ObjectKey { namespace: machine.metadata.namespace.clone(), name: owner.to_owned() });
            }
        }
    });
    wiring.started(controller)
}

/// Whether a set's selector takes a Machine in.
fn selects(set: &MachineSet, machine: &Machine) -> bool {
    let empty = BTreeMap::new();
    let labels = machine.metadata.labels.as_ref().unwrap_or(&empty);
    !set.spec.selector.is_empty() && set.spec.cluster_name == machine.spec.cluster_name && set.spec.selector.matches(labels)
}

impl MachineSets {
    async fn observe(&self, set: Arc<MachineSet>) -> Result<Observed, Error> {
        let wiring = &self.act.wiring;
        let key = ObjectKey::of(&set.metadata);
        let namespace = key.namespace().to_owned();
        let uid = set.metadata.uid.clone().unwrap_or_default();
        let mut machines: Vec<Arc<Machine>> = self.machines.owned_by(&uid);
        machines.retain(|machine| controller_reference(&machine.metadata).is_some_and(|owner| owner.uid == uid));
        if !is_deleting(&set.metadata) {
            let free = self.machines.of_cluster(&namespace, &set.spec.cluster_name).into_iter();
            let free = free.filter(|machine| controller_reference(&machine.metadata).is_none() && !is_deleting(&machine.metadata));
            machines.extend(free.filter(|machine| selects(&set, machine)));
        }
        let mut objects = BTreeMap::new();
        for machine in machines.iter().filter(|machine| !is_deleting(&machine.metadata)) {
            let bootstrap = wiring.externals.find(&namespace, machine.spec.bootstrap.config_ref.as_ref()).await?;
            let infrastructure = wiring.externals.find(&namespace, Some(&machine.spec.infrastructure_ref)).await?;
            objects.insert(machine.metadata.name.clone().unwrap_or_default(), (bootstrap, infrastructure));
        }
        let template = &set.spec.template.spec;
        let bootstrap_template = wiring.externals.find(&namespace, template.bootstrap.config_ref.as_ref()).await?;
        let infrastructure_template = wiring.externals.find(&namespace, Some(&template.infrastructure_ref)).await?;
        let deployment = owner_name(&set.metadata, "MachineDeployment").and_then(|name| self.deployments.get_in(&namespace, name));
        let cluster = self.clusters.get_in(&namespace, &set.spec.cluster_name);
        let plane = cluster.as_ref().and_then(|cluster| cluster.spec.control_plane_ref.as_ref());
        let control_plane = wiring.externals.find(&namespace, plane).await?;
        Ok(Observed {
            cluster,
            control_plane,
            now: wiring.clock.now_seconds(),
            set,
            deployment,
            machines,
            objects,
            bootstrap_template,
            infrastructure_template,
        })
    }
}

#[async_trait]
impl Reconciler for MachineSets {
    type Kind = MachineSet;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(set) = self.store.get(key) else { return Ok(Action::Done) };
        let observed = self.observe(set).await?;
        let plan = plan::plan(&observed);
        let mut result = Ok(());
        for step in &plan.steps {
            result = self.act.step(&observed, step).await;
            if result.is_err() {
                break;
            }
        }
        let Some(set) = self.store.get(key) else {
            result?;
            return Ok(Action::Done);
        };
        let observed = Observed { set, ..observed };
        let new = status::status(&observed, &plan);
        let old = observed.set.status.as_ref();
        let written = crate::status::patch(&self.store, &*observed.set, old, &new).await;
        result?;
        written.map(drop).or_else(crate::status::unless_gone)?;
        let later = [plan.blocked.and_then(|blocked| blocked.again), plan.again_after].into_iter().flatten().min();
        let later = later.and_then(|later| observed.now.checked_add(SignedDuration::try_from(later).ok()?).ok());
        Ok(Action::at([plan.again_at, later].into_iter().flatten().min(), observed.now))
    }
}
