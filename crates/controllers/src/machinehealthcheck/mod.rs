//! The MachineHealthCheck controller: judges Machines by their Nodes' conditions and tells how many are well.

pub mod plan;
pub mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::cluster::{Cluster, Machine, MachineHealthCheck};
use api::conditions::{self, Severity};
use api::names::labels;
use async_trait::async_trait;
use runtime::reconcile::{Action, Error, ObjectKey, Reconciler, Store};

use crate::edit::{Edit, owner_of};
use crate::{Started, Wiring};
use plan::{Observed, Step, Verdict};

/// The controller's name.
pub const NAME: &str = "machinehealthcheck";
/// Between two looks at one object: what changes together is looked at once.
const REST: Duration = Duration::from_millis(50);

struct Checks {
    wiring: Wiring,
    store: Store<MachineHealthCheck>,
    machines: Store<Machine>,
    clusters: Store<Cluster>,
}

/// Wires the controller.
pub fn start(wiring: &Wiring) -> Started {
    let store = wiring.stores.get::<MachineHealthCheck>();
    let reconciler = Checks {
        wiring: wiring.clone(),
        store: store.clone(),
        machines: wiring.stores.get::<Machine>(),
        clusters: wiring.stores.get::<Cluster>(),
    };
    let of_cluster = move |namespace: &str, cluster: &str| -> Vec<ObjectKey> {
        let all = store.in_namespace(namespace);
        let of_this = all.iter().filter(|check| check.spec.cluster_name == cluster);
        of_this.map(|check| ObjectKey::of(&check.metadata)).collect()
    };
    let (for_machines, for_clusters) = (of_cluster.clone(), of_cluster.clone());
    let controller = wiring
        .controller(NAME, reconciler)
        .rest(REST)
        .watches(move |machine: &Machine| {
            for_machines(machine.metadata.namespace.as_deref().unwrap_or_default(), &machine.spec.cluster_name)
        })
        .watches_when(crate::change::of_cluster, move |cluster: &Cluster| {
            let key = ObjectKey::of(&cluster.metadata);
            for_clusters(key.namespace(), &key.name)
        })
        .limit(50);
    let waker = controller.waker();
    wiring.workload.subscribe(Arc::new(move |change| {
        for key in of_cluster(change.cluster.namespace(), &change.cluster.name) {
            waker.wake(&key);
        }
    }));
    wiring.started(controller)
}

impl Checks {
    fn observe(&self, check: Arc<MachineHealthCheck>) -> Observed {
        let key = ObjectKey::of(&check.metadata);
        let cluster_key = ObjectKey { namespace: key.namespace.clone(), name: check.spec.cluster_name.clone() };
        let empty = BTreeMap::new();
        let mut machines = self.machines.of_cluster(cluster_key.namespace(), &cluster_key.name);
        machines.retain(|machine| check.spec.selector.matches(machine.metadata.labels.as_ref().unwrap_or(&empty)));
        Observed {
            cluster: self.clusters.get(&cluster_key),
            connection: self.wiring.workload.connection(&cluster_key),
            nodes: self.wiring.workload.nodes(&cluster_key),
            now: self.wiring.clock.now_seconds(),
            check,
            machines,
        }
    }

    /// Carries out one step; twice is as once.
    async fn act(&self, observed: &Observed, step: &Step) -> Result<(), Error> {
        match step {
            Step::Claim => {
                let check = &observed.check;
                let mut edit = Edit::of(&check.metadata).label(labels::CLUSTER_NAME, &check.spec.cluster_name);
                if let Some(cluster) = observed.cluster.as_deref() {
                    edit = edit.owner(owner_of(cluster));
                }
                edit.apply(&self.store).await?;
            }
            Step::Tell { machine, verdict } => {
                let Some(latest) = self.machines.get(&ObjectKey::of(&machine.metadata)) else { return Ok(()) };
                let mut status = latest.status.clone().unwrap_or_default();
                let list = &mut status.deprecated.v1beta1.conditions;
                let type_ = "HealthCheckSucceeded";
                let told = match verdict {
                    Verdict::Undecided { .. } => return Ok(()),
                    Verdict::Healthy => {
                        conditions::set_legacy(list, conditions::legacy_true(type_), observed.now);
                        conditions::new(type_, true, "HealthCheckSucceeded", "")
                    }
                    Verdict::Unhealthy { reason, message } => {
                        let legacy = conditions::legacy_false(type_, reason, Severity::Warning, message.clone());
                        conditions::set_legacy(list, legacy, observed.now);
                        conditions::new(type_, false, reason, message.clone())
                    }
                };
                let word = told.reason.to_owned();
                conditions::set(&mut status.conditions, told, latest.metadata.generation, observed.now);
                crate::status::patch(&self.machines, &*latest, latest.status.as_ref(), &status).await?;
                self.wiring.log.record(NAME, "tell-health", format_args!("Machine {}", ObjectKey::of(&machine.metadata)), word);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Reconciler for Checks {
    type Kind = MachineHealthCheck;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(check) = self.store.get(key) else { return Ok(Action::Done) };
        let observed = self.observe(check);
        let plan = plan::plan(&observed);
        let mut result = Ok(());
        for step in &plan.steps {
            result = self.act(&observed, step).await;
            if result.is_err() {
                break;
            }
        }
        if let Some(check) = self.store.get(key) {
            let observed = Observed { check, ..observed.clone() };
            let new = status::status(&observed, &plan);
            let written = crate::status::patch(&self.store, &*observed.check, observed.check.status.as_ref(), &new).await;
            result?;
            written.map(drop).or_else(crate::status::unless_gone)?;
        } else {
            result?;
        }
        Ok(Action::at(plan.again_at, observed.now))
    }
}
