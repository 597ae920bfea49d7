//! The Machine controller: brings bootstrap data, infrastructure and Node of one machine together, and takes them apart in order.

mod act;
mod drain;
#[cfg(test)]
mod drain_tests;
pub mod held;
pub mod node;
pub mod plan;
pub mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use api::cluster::{Cluster, Machine, MachineDrainRule};
use api::meta::ContractReference;
use api::names::annotations;
use async_trait::async_trait;
use jiff::Timestamp;
use runtime::reconcile::{Action, Error, ObjectKey, Reconciler, Store};

use crate::contract::{ExternalKey, Referenced};
use crate::controlplane::{has_etcd_hook, is_control_plane};
use crate::edit::{controller_reference, is_deleting};
use crate::{Started, Wiring};
use act::Act;
use plan::Observed;

/// The controller's name.
pub const NAME: &str = "machine";
/// Between two looks at one object: what changes together is looked at once.
const REST: Duration = Duration::from_millis(30);
/// The index of Machines by the objects that they reference.
pub const BY_REFERENCE: &str = "references";

/// The index of Machines that are being deleted by the control plane that they belong to.
const BY_HOLDER: &str = "holders";

struct Machines {
    act: Act,
    store: Store<Machine>,
    rules: Store<MachineDrainRule>,
}

/// What controls a control plane's Machine while it is being deleted: it takes etcd's hook off, and may limit the drain.
fn holder(machine: &Machine) -> Option<ContractReference> {
    let is_asked = has_etcd_hook(machine) || is_control_plane(machine);
    let owner = controller_reference(&machine.metadata).filter(|_| is_asked && is_deleting(&machine.metadata))?;
    let api_group = owner.api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
    Some(ContractReference { api_group, kind: owner.kind.clone(), name: owner.name.clone() })
}

/// Adds the index of Machines by the objects that they reference, when it is not there.
pub fn index(store: &Store<Machine>) {
    store.index(BY_REFERENCE, |machine| {
        let namespace = machine.metadata.namespace.as_deref().unwrap_or_default();
        let references = [machine.spec.bootstrap.config_ref.as_ref(), Some(&machine.spec.infrastructure_ref)];
        references.into_iter().flatten().map(|reference| ExternalKey::of(namespace, reference).to_string()).collect()
    });
}

/// Wires the controller.
pub fn start(wiring: &Wiring) -> Started {
    let store = wiring.stores.get::<Machine>();
    index(&store);
    store.index(BY_HOLDER, |machine| {
        let namespace = machine.metadata.namespace.as_deref().unwrap_or_default();
        holder(machine).iter().map(|reference| ExternalKey::of(namespace, reference).to_string()).collect()
    });
    let rules = wiring.stores.get::<MachineDrainRule>();
    let recorder = wiring.recorder.of("machine-controller");
    let act = Act { wiring: wiring.clone(), recorder, clusters: wiring.stores.get::<Cluster>(), machines: store.clone() };
    let of_cluster = {
        let store = store.clone();
        move |namespace: &str, cluster: &str| -> Vec<ObjectKey> {
            store.of_cluster(namespace, cluster).iter().map(|machine| ObjectKey::of(&machine.metadata)).collect()
        }
    };
    let of_changed = of_cluster.clone();
    let controller = wiring
        .controller(NAME, Machines { act, store: store.clone(), rules: rules.clone() })
        .rest(REST)
        .reads(&rules)
        .watches_when(crate::change::of_cluster, move |cluster: &Cluster| {
            let key = ObjectKey::of(&cluster.metadata);
            of_changed(key.namespace(), &key.name)
        })
        .limit(100);
    let waker = controller.waker();
    wiring.externals.subscribe(move |name| {
        let name = name.to_string();
        for machine in store.indexed(BY_REFERENCE, &name).into_iter().chain(store.indexed(BY_HOLDER, &name)) {
            waker.wake(&ObjectKey::of(&machine.metadata));
        }
    });
    let waker = controller.waker();
    let store = wiring.stores.get::<Machine>();
    wiring.workload.subscribe(Arc::new(move |change| {
        let cluster = &change.cluster;
        let Some(node) = &change.node else {
            for key in of_cluster(cluster.namespace(), &cluster.name) {
                waker.wake(&key);
            }
            return;
        };
        // A Node that is known concerns its Machine; one that is new concerns those that wait for theirs.
        let machine = node.metadata.annotations.as_ref().and_then(|known| known.get(annotations::NODE_MACHINE));
        let known = machine.map(|name| ObjectKey { namespace: cluster.namespace.clone(), name: name.clone() });
        if let Some(key) = known.filter(|key| store.get(key).is_some()) {
            waker.wake(&key);
            return;
        }
        for machine in store.of_cluster(cluster.namespace(), &cluster.name) {
            if machine.status.as_ref().is_none_or(|status| status.node_ref.is_none()) {
                waker.wake(&ObjectKey::of(&machine.metadata));
            }
        }
    }));
    wiring.started(controller)
}

impl Machines {
    async fn observe(&self, machine: Arc<Machine>) -> Result<Observed, Error> {
        let wiring = &self.act.wiring;
        let key = ObjectKey::of(&machine.metadata);
        let namespace = key.namespace().to_owned();
        let cluster_key = ObjectKey { namespace: key.namespace.clone(), name: machine.spec.cluster_name.clone() };
        let cluster = self.act.clusters.get(&cluster_key);
        let bootstrap = wiring.externals.find(&namespace, machine.spec.bootstrap.config_ref.as_ref()).await?;
        let infrastructure = wiring.externals.find(&namespace, Some(&machine.spec.infrastructure_ref)).await?;
        // Asked only where the answer counts.
        let control_plane = match cluster.as_ref().filter(|_| is_deleting(&machine.metadata)) {
            Some(cluster) => wiring.externals.find(&namespace, cluster.spec.control_plane_ref.as_ref()).await?,
            None => Referenced::None,
        };
        let owner = wiring.externals.find(&namespace, holder(&machine).as_ref()).await?;
        let siblings = self.store.of_cluster(&namespace, &machine.spec.cluster_name);
        let staying = siblings.iter().filter(|sibling| is_control_plane(sibling) && !is_deleting(&sibling.metadata));
        let control_plane_machines = staying.count();
        let nodes = wiring.workload.nodes(&cluster_key);
        let node = plan::node_of(&machine, &infrastructure, &nodes).and_then(|node| node.metadata.name.clone());
        let is_going = is_deleting(&machine.metadata);
        let load = node.as_ref().filter(|_| is_going).and_then(|node| wiring.workload.load(&cluster_key, node));
        Ok(Observed {
            load,
            inspection: wiring.workload.inspection(&cluster_key).filter(|_| !is_going),
            rules: if is_going { self.rules.in_namespace(&namespace) } else { Vec::new() },
            defects: wiring.defects.clone(),
            connection: wiring.workload.connection(&cluster_key),
            away_since: wiring.workload.away_since(&cluster_key),
            nodes,
            trouble: node.and_then(|node| wiring.workload.trouble(&cluster_key, &node)),
            now: wiring.clock.now_seconds(),
            machine,
            cluster,
            bootstrap,
            infrastructure,
            control_plane,
            owner,
            control_plane_machines,
        })
    }
}

/// Run again at the earliest of these times that lie ahead.
fn again(times: impl IntoIterator<Item = Option<Timestamp>>, now: Timestamp) -> Action {
    Action::at(times.into_iter().flatten().filter(|at| *at > now).min(), now)
}

#[async_trait]
impl Reconciler for Machines {
    type Kind = Machine;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(machine) = self.store.get(key) else { return Ok(Action::Done) };
        let observed = self.observe(machine).await?;
        let plan = plan::plan(&observed);
        let mut result = Ok(());
        for step in &plan.steps {
            result = self.act.step(&observed, step).await;
            if result.is_err() {
                break;
            }
        }
        // The status is told even when a step failed, and for the object that the steps left behind.
        let Some(machine) = self.store.get(key) else {
            result?;
            return Ok(Action::Done);
        };
        let observed = Observed { machine, ..observed };
        if status::is_nascent(&observed, &plan) {
            return result.map(|()| Action::RequeueAfter(status::NASCENT.unsigned_abs()));
        }
        let new = status::status(&observed, &plan);
        let old = observed.machine.status.as_ref();
        let written = crate::status::patch(&self.store, &*observed.machine, old, &new).await;
        result?;
        written.map(drop).or_else(crate::status::unless_gone)?;
        let available_at = status::available_at(&observed.machine, &new);
        Ok(again([plan.again_at, available_at, status::doubted_at(&observed)], observed.now))
    }
}
