//! The Cluster controller: ties infrastructure and control plane to their Cluster, tells how far all of it is, and takes it down in order.
//!
//! It never makes a machine and never calls vCenter or Talos; those belong to the providers whose objects it references.

mod act;
pub mod plan;
pub mod status;
mod strays;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use api::cluster::{Cluster, Machine, MachineDeployment, MachineSet};
use async_trait::async_trait;
use kube::Resource;
use runtime::reconcile::{Action, Error, EventType, ObjectKey, Reconciler, Recorder, Store};

use crate::contract::ExternalKey;
use crate::{Started, Wiring};
use act::Act;
use plan::Observed;

/// The controller's name.
pub const NAME: &str = "cluster";
/// Between two looks at one object: what changes together is looked at once.
const REST: Duration = Duration::from_millis(50);
/// The index of Clusters by the objects that they reference.
const BY_REFERENCE: &str = "references";

struct Clusters {
    act: Act,
    store: Store<Cluster>,
    recorder: Recorder,
}

/// Wires the controller.
pub fn start(wiring: &Wiring) -> Started {
    let store = wiring.stores.get::<Cluster>();
    store.index(BY_REFERENCE, |cluster| {
        let namespace = cluster.metadata.namespace.as_deref().unwrap_or_default();
        let references = [&cluster.spec.infrastructure_ref, &cluster.spec.control_plane_ref];
        references.into_iter().flatten().map(|reference| ExternalKey::of(namespace, reference).to_string()).collect()
    });
    let act = Act {
        wiring: wiring.clone(),
        clusters: store.clone(),
        deployments: wiring.stores.get::<MachineDeployment>(),
        sets: wiring.stores.get::<MachineSet>(),
        machines: wiring.stores.get::<Machine>(),
    };
    let reconciler = Clusters { act, store: store.clone(), recorder: wiring.recorder.of("cluster-controller") };
    let controller = wiring
        .controller(NAME, reconciler)
        .rest(REST)
        .watches(|machine: &Machine| vec![of(&machine.metadata.namespace, &machine.spec.cluster_name)])
        .watches(|set: &MachineSet| vec![of(&set.metadata.namespace, &set.spec.cluster_name)])
        .watches(|deployment: &MachineDeployment| vec![of(&deployment.metadata.namespace, &deployment.spec.cluster_name)])
        .limit(50);
    let waker = controller.waker();
    wiring.externals.subscribe(move |name| {
        for cluster in store.indexed(BY_REFERENCE, &name.to_string()) {
            waker.wake(&ObjectKey::of(&cluster.metadata));
        }
    });
    let waker = controller.waker();
    let machines = wiring.stores.get::<Machine>();
    wiring.workload.subscribe(Arc::new(move |change| {
        // A Node's change shows in its Machine first, when it has one.
        let machine = change.node.as_ref().and_then(|node| strays::machine_of(node));
        if machine.is_none_or(|machine| machines.get_in(change.cluster.namespace(), machine).is_none()) {
            waker.wake(&change.cluster);
        }
    }));
    wiring.started(controller)
}

fn of(namespace: &Option<String>, cluster: &str) -> ObjectKey {
    ObjectKey { namespace: namespace.clone(), name: cluster.to_owned() }
}

impl Clusters {
    async fn observe(&self, cluster: Arc<Cluster>) -> Result<Observed, Error> {
        let wiring = &self.act.wiring;
        let key = ObjectKey::of(&cluster.metadata);
        let (namespace, name) = (key.namespace().to_owned(), key.name.clone());
        let of_this = |candidate: &str| candidate == name;
        let infrastructure = wiring.externals.find(&namespace, cluster.spec.infrastructure_ref.as_ref()).await?;
        let control_plane = wiring.externals.find(&namespace, cluster.spec.control_plane_ref.as_ref()).await?;
        let mut deployments = self.act.deployments.in_namespace(&namespace);
        deployments.retain(|deployment| of_this(&deployment.spec.cluster_name));
        let mut sets = self.act.sets.in_namespace(&namespace);
        sets.retain(|set| of_this(&set.spec.cluster_name));
        let mut machines = self.act.machines.in_namespace(&namespace);
        machines.retain(|machine| of_this(&machine.spec.cluster_name));
        Ok(Observed {
            connection: wiring.workload.connection(&key),
            away_since: wiring.workload.away_since(&key),
            nodes: wiring.workload.nodes(&key),
            now: wiring.clock.now_seconds(),
            cluster,
            infrastructure,
            control_plane,
            deployments,
            sets,
            machines,
        })
    }
}

#[async_trait]
impl Reconciler for Clusters {
    type Kind = Cluster;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(cluster) = self.store.get(key) else { return Ok(Action::Done) };
        let observed = self.observe(cluster).await?;
        let plan = plan::plan(&observed);
        let mut result = Ok(());
        for step in &plan.steps {
            result = self.act.step(&observed, step).await;
            if result.is_err() {
                break;
            }
        }
        let again = [status::doubted_at(&observed), strays::look_again(&observed)].into_iter().flatten().min();
        let again = Action::at(again, observed.now);
        // The status is told even when a step failed, and from what the steps left behind.
        if let Some(cluster) = self.store.get(key) {
            let observed = Observed { cluster, ..observed };
            let new = status::status(&observed, &plan);
            let old = observed.cluster.status.as_ref();
            let written = crate::status::patch(&self.store, &*observed.cluster, old, &new).await;
            if matches!(written, Ok(Some(_))) {
                if let Some(message) = status::new_strays(&observed.cluster, &new) {
                    self.recorder.event(&observed.cluster.object_ref(&()), EventType::Warning, status::STRAY_NODES, message);
                }
                for (reason, message) in status::events(&observed.cluster, &new) {
                    self.recorder.event(&observed.cluster.object_ref(&()), EventType::Normal, &reason, message);
                }
            }
            result?;
            written.map(drop).or_else(crate::status::unless_gone)?;
        } else {
            result?;
        }
        Ok(again)
    }
}
