//! The MachineDeployment controller: one MachineSet for its template, its replicas, and the way there from former templates.

mod act;
pub mod plan;
pub mod rollout;
pub mod status;
pub mod template;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use api::cluster::{Cluster, Machine, MachineDeployment, MachineSet};
use async_trait::async_trait;
use runtime::reconcile::{Action, Error, ObjectKey, Reconciler, Store};

use crate::edit::controller_reference;
use crate::{Started, Wiring};
use act::Act;
use plan::Observed;

pub use act::new_set;

/// The controller's name.
pub const NAME: &str = "machinedeployment";
/// Between two looks at one object: what changes together is looked at once.
const REST: Duration = Duration::from_millis(50);

struct MachineDeployments {
    act: Act,
    store: Store<MachineDeployment>,
    sets: Store<MachineSet>,
    machines: Store<Machine>,
    clusters: Store<Cluster>,
}

/// Wires the controller.
pub fn start(wiring: &Wiring) -> Started {
    let store = wiring.stores.get::<MachineDeployment>();
    let sets = wiring.stores.get::<MachineSet>();
    let act = Act {
        wiring: wiring.clone(),
        deployments: store.clone(),
        sets: sets.clone(),
        recorder: wiring.recorder.of("machinedeployment-controller"),
    };
    let reconciler = MachineDeployments {
        act,
        store: store.clone(),
        sets: sets.clone(),
        machines: wiring.stores.get::<Machine>(),
        clusters: wiring.stores.get::<Cluster>(),
    };
    let controller = wiring
        .controller(NAME, reconciler)
        .rest(REST)
        .owns::<MachineSet>()
        // A Machine's set says whose it is.
        .watches(move |machine: &Machine| {
            let set = plan_owner(machine)
                .and_then(|name| sets.get(&ObjectKey { namespace: machine.metadata.namespace.clone(), name: name.to_owned() }));
            let deployment =
                set.as_ref().and_then(|set| controller_reference(&set.metadata)).filter(|owner| owner.kind == "MachineDeployment");
            let key = deployment.map(|owner| ObjectKey { namespace: machine.metadata.namespace.clone(), name: owner.name.clone() });
            key.into_iter().collect()
        })
        .watches_when(crate::change::of_cluster, move |cluster: &Cluster| {
            let key = ObjectKey::of(&cluster.metadata);
            let all = store.in_namespace(key.namespace());
            let of_cluster = all.iter().filter(|deployment| deployment.spec.cluster_name == key.name);
            of_cluster.map(|deployment| ObjectKey::of(&deployment.metadata)).collect()
        })
        .limit(50);
    wiring.started(controller)
}

fn plan_owner(machine: &Machine) -> Option<&str> {
    crate::machineset::plan::owner_name(&machine.metadata, "MachineSet")
}

impl MachineDeployments {
    fn observe(&self, deployment: Arc<MachineDeployment>) -> Observed {
        let uid = deployment.metadata.uid.clone().unwrap_or_default();
        let mut sets = self.sets.owned_by(&uid);
        sets.retain(|set| controller_reference(&set.metadata).is_some_and(|owner| owner.uid == uid));
        let machines = sets.iter().flat_map(|set| self.machines.owned_by(set.metadata.uid.as_deref().unwrap_or_default())).collect();
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let cluster = self.clusters.get_in(namespace, &deployment.spec.cluster_name);
        Observed { deployment, cluster, sets, machines, now: self.act.wiring.clock.now_seconds(), defects: self.act.wiring.defects.clone() }
    }
}

#[async_trait]
impl Reconciler for MachineDeployments {
    type Kind = MachineDeployment;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(deployment) = self.store.get(key) else { return Ok(Action::Done) };
        let observed = self.observe(deployment);
        let plan = plan::plan(&observed);
        let mut result = Ok(());
        for step in &plan.steps {
            result = self.act.step(&observed, step).await;
            if result.is_err() {
                break;
            }
        }
        let Some(deployment) = self.store.get(key) else {
            result?;
            return Ok(Action::Done);
        };
        let observed = Observed { deployment, ..observed };
        let new = status::status(&observed, &plan);
        let old = observed.deployment.status.as_ref();
        let written = crate::status::patch(&self.store, &*observed.deployment, old, &new).await;
        result?;
        written.map(drop).or_else(crate::status::unless_gone)?;
        Ok(Action::at(plan.look_again, observed.now))
    }
}
