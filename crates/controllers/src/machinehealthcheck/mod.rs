//! The MachineHealthCheck controller: judges Machines by their Nodes' conditions, tells how many are well, and asks their owners to replace
//! those that are not. It deletes nothing itself.

mod act;
pub mod plan;
pub mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::cluster::{Cluster, Machine, MachineHealthCheck};
use api::conditions;
use async_trait::async_trait;
use jiff::SignedDuration;
use kube::Resource as _;
use runtime::reconcile::{Action, Error, EventType, ObjectKey, Reconciler, Store};

use crate::clone::kind_of;
use crate::contract::{ContractError, External, Referenced};
use crate::{Started, Wiring};
use act::Act;
use plan::{Observed, Plan, Template};

/// The controller's name.
pub const NAME: &str = "machinehealthcheck";
/// Between two looks at one object: what changes together is looked at once.
const REST: Duration = Duration::from_millis(50);
/// How often a kind that is missing is looked for while something waits for it: nothing tells when it is there.
const KIND_AGAIN: SignedDuration = SignedDuration::from_secs(60);

struct Checks {
    act: Act,
    store: Store<MachineHealthCheck>,
    machines: Store<Machine>,
    clusters: Store<Cluster>,
}

/// Wires the controller.
pub fn start(wiring: &Wiring) -> Started {
    let store = wiring.stores.get::<MachineHealthCheck>();
    let machines = wiring.stores.get::<Machine>();
    let act = Act {
        wiring: wiring.clone(),
        checks: store.clone(),
        machines: machines.clone(),
        recorder: wiring.recorder.of("machinehealthcheck-controller"),
    };
    let reconciler = Checks { act, store: store.clone(), machines, clusters: wiring.stores.get::<Cluster>() };
    let named = store.clone();
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
    // The template that a check names, and what was made from it.
    let waker = controller.waker();
    wiring.externals.subscribe(move |changed| {
        for check in named.in_namespace(changed.key.namespace()) {
            let Some(reference) = act::template(&check) else { continue };
            let is_kind = changed.kind == reference.kind || changed.kind == kind_of(&reference.kind);
            if changed.group == reference.api_group && is_kind {
                waker.wake(&ObjectKey::of(&check.metadata));
            }
        }
    });
    wiring.started(controller)
}

impl Checks {
    async fn observe(&self, check: Arc<MachineHealthCheck>) -> Result<Observed, Error> {
        let wiring = &self.act.wiring;
        let key = ObjectKey::of(&check.metadata);
        let cluster_key = ObjectKey { namespace: key.namespace.clone(), name: check.spec.cluster_name.clone() };
        let mut machines = self.machines.of_cluster(cluster_key.namespace(), &cluster_key.name);
        machines.retain(|machine| plan::selects(&check, machine));
        let (template, requests) = self.template(&check, &machines).await?;
        Ok(Observed {
            cluster: self.clusters.get(&cluster_key),
            connection: wiring.workload.connection(&cluster_key),
            nodes: wiring.workload.nodes(&cluster_key),
            now: wiring.clock.now_seconds(),
            check,
            machines,
            template,
            requests,
        })
    }

    /// The template that the check names, and what was made from it for these Machines.
    async fn template(
        &self,
        check: &MachineHealthCheck,
        machines: &[Arc<Machine>],
    ) -> Result<(Template, BTreeMap<String, Arc<External>>), Error> {
        let none = BTreeMap::new();
        let Some(reference) = act::template(check) else { return Ok((Template::None, none)) };
        let namespace = check.metadata.namespace.as_deref().unwrap_or_default();
        let externals = &self.act.wiring.externals;
        let template = match externals.find(namespace, Some(&reference)).await {
            Ok(found) => plan::template_of(&found),
            Err(error @ ContractError::UnknownKind { .. }) => Template::Unusable(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        if template != Template::There {
            return Ok((template, none));
        }
        let mut requests = BTreeMap::new();
        for name in machines.iter().filter_map(|machine| machine.metadata.name.clone()) {
            let kind = kind_of(&reference.kind).to_owned();
            let request = api::meta::ContractReference { kind, name: name.clone(), ..reference.clone() };
            match externals.find(namespace, Some(&request)).await {
                Ok(Referenced::Found(request)) => drop(requests.insert(name, request)),
                Ok(_) => {}
                Err(error @ ContractError::UnknownKind { .. }) => return Ok((Template::Unusable(error.to_string()), none)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok((template, requests))
    }

    /// Takes back what a check told Machines that no check looks after any more: nobody else would, and they could never be ready again.
    async fn release(&self, namespace: &str) -> Result<(), Error> {
        let checks = self.store.in_namespace(namespace);
        for machine in self.machines.in_namespace(namespace) {
            if plan::is_left_behind(&machine, &checks) {
                self.act.release(&machine).await?;
            }
        }
        Ok(())
    }

    /// Records an event when the limit is what keeps unhealthy Machines from being replaced, once for each state.
    fn tell_restriction(&self, check: &MachineHealthCheck, new: &api::cluster::MachineHealthCheckStatus, plan: &Plan) {
        let message = |status: &api::cluster::MachineHealthCheckStatus| {
            let told = conditions::get(&status.conditions, "RemediationAllowed").filter(|told| told.status == conditions::Status::False);
            told.map(|told| told.message.clone())
        };
        let (old, new) = (check.status.as_ref().and_then(message), message(new));
        if let Some(text) = new.filter(|new| old.as_ref() != Some(new) && plan.unhealthy > 0) {
            self.act.recorder.event(&check.object_ref(&()), EventType::Warning, "RemediationRestricted", text);
        }
    }
}

#[async_trait]
impl Reconciler for Checks {
    type Kind = MachineHealthCheck;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(check) = self.store.get(key) else {
            self.release(key.namespace()).await?;
            return Ok(Action::Done);
        };
        // What it selects may be something else now.
        if check.status.as_ref().is_some_and(|status| status.observed_generation != check.metadata.generation) {
            self.release(key.namespace()).await?;
        }
        let observed = self.observe(check).await?;
        let plan = plan::plan(&observed);
        let mut result = Ok(());
        for step in &plan.steps {
            result = self.act.step(&observed, step).await;
            if result.is_err() {
                break;
            }
        }
        if let Some(check) = self.store.get(key) {
            let observed = Observed { check, ..observed.clone() };
            let new = status::status(&observed, &plan);
            let written = crate::status::patch(&self.store, &*observed.check, observed.check.status.as_ref(), &new).await;
            if matches!(written, Ok(Some(_))) {
                self.tell_restriction(&observed.check, &new, &plan);
            }
            result?;
            written.map(drop).or_else(crate::status::unless_gone)?;
        } else {
            result?;
        }
        let is_held = matches!(observed.template, Template::Unusable(_)) && plan.unhealthy > 0;
        let kind_at = observed.now.checked_add(KIND_AGAIN).ok().filter(|_| is_held);
        Ok(Action::at([plan.again_at, kind_at].into_iter().flatten().min(), observed.now))
    }
}
