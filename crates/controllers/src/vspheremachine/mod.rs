//! The VSphereMachine controller: makes a VSphereVM for a Machine once its configuration exists, and tells what became of it.

mod act;
pub mod plan;
pub mod status;

use std::sync::Arc;
use std::time::Duration;

use api::cluster::{Cluster, Machine};
use api::infrastructure::{VSphereCluster, VSphereMachine, VSphereVM};
use api::names::INFRASTRUCTURE_GROUP;
use async_trait::async_trait;
use runtime::reconcile::{Action, Error, ObjectKey, Reconciler, Store};

use crate::edit::{cluster_name, is_paused};
use crate::vspherevm::intent::Intent;
use crate::{Started, Wiring};
use act::Act;
use plan::Observed;

/// The controller's name.
pub const NAME: &str = "vspheremachine";
/// Between two looks at one object: what changes together is looked at once.
const REST: Duration = Duration::from_millis(10);

struct VSphereMachines {
    act: Act,
    clusters: Store<Cluster>,
    infrastructures: Store<VSphereCluster>,
}

/// Wires the controller.
pub fn start(wiring: &Wiring) -> Started {
    let store = wiring.stores.get::<VSphereMachine>();
    let act = Act { wiring: wiring.clone(), store: store.clone(), vms: wiring.stores.get(), machines: wiring.stores.get() };
    let reconciler = VSphereMachines { act, clusters: wiring.stores.get(), infrastructures: wiring.stores.get() };
    let by_cluster = store.clone();
    let by_infrastructure = store.clone();
    let members = |store: &Store<VSphereMachine>, namespace: Option<&str>, cluster: Option<&str>| {
        let found = cluster.map(|cluster| store.of_cluster(namespace.unwrap_or_default(), cluster)).unwrap_or_default();
        found.iter().map(|object| ObjectKey::of(&object.metadata)).collect::<Vec<_>>()
    };
    let controller = wiring
        .controller(NAME, reconciler)
        .rest(REST)
        .owns::<VSphereVM>()
        .watches_when(crate::change::of_machine, |machine: &Machine| {
            let reference = &machine.spec.infrastructure_ref;
            let is_ours = reference.kind == "VSphereMachine" && reference.api_group == INFRASTRUCTURE_GROUP;
            let key = ObjectKey { namespace: machine.metadata.namespace.clone(), name: reference.name.clone() };
            if is_ours { vec![key] } else { Vec::new() }
        })
        .watches_when(crate::change::of_cluster, move |cluster: &Cluster| {
            members(&by_cluster, cluster.metadata.namespace.as_deref(), cluster.metadata.name.as_deref())
        })
        .watches(move |object: &VSphereCluster| {
            members(&by_infrastructure, object.metadata.namespace.as_deref(), cluster_name(&object.metadata))
        })
        .limit(50);
    wiring.started(controller)
}

/// The VSphereCluster of a Cluster: the one that it references.
pub(crate) fn infrastructure_of(cluster: Option<&Cluster>, store: &Store<VSphereCluster>) -> Option<Arc<VSphereCluster>> {
    let cluster = cluster?;
    let reference = cluster.spec.infrastructure_ref.as_ref().filter(|reference| reference.kind == "VSphereCluster")?;
    store.get_in(cluster.metadata.namespace.as_deref().unwrap_or_default(), &reference.name)
}

impl VSphereMachines {
    fn observe(&self, object: Arc<VSphereMachine>) -> Observed {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let owner = object.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "Machine");
        let machine = owner.and_then(|owner| self.act.machines.get_in(&namespace, &owner.name));
        let machine = machine.filter(|machine| machine.metadata.uid.as_ref() == owner.map(|owner| &owner.uid));
        let name = machine.as_ref().map(|machine| machine.spec.cluster_name.clone());
        let name = name.or_else(|| cluster_name(&object.metadata).map(str::to_owned));
        let cluster = name.and_then(|name| self.clusters.get_in(&namespace, &name));
        let vm = self.act.vms.owned_by(&uid).into_iter().next();
        let wanted = machine.as_ref().and_then(|machine| plan::vm_name(&object, machine).ok());
        let taken = wanted.and_then(|name| self.act.vms.get_in(&namespace, &name));
        // One whose owner reference was taken off by hand is still this machine's.
        let is_own =
            |vm: &Arc<VSphereVM>| Intent::of(vm).is_some_and(|intent| owner.is_some_and(|owner| intent.owner().machine == owner.uid));
        let vm = vm.or_else(|| taken.clone().filter(is_own));
        Observed {
            infrastructure: infrastructure_of(cluster.as_deref(), &self.infrastructures),
            is_paused: is_paused(cluster.as_deref(), &object.metadata),
            is_name_taken: vm.is_none() && taken.is_some(),
            now: self.act.wiring.clock.now_seconds(),
            object,
            machine,
            cluster,
            vm,
        }
    }
}

#[async_trait]
impl Reconciler for VSphereMachines {
    type Kind = VSphereMachine;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(object) = self.act.store.get(key) else { return Ok(Action::Done) };
        let observed = self.observe(object);
        let plan = plan::plan(&observed);
        for step in &plan.steps {
            self.act.step(&observed, step).await?;
        }
        let Some(object) = self.act.store.get(key) else { return Ok(Action::Done) };
        let observed = self.observe(object);
        let new = status::status(&observed, &plan);
        let old = observed.object.status.as_ref();
        crate::status::patch(&self.act.store, &*observed.object, old, &new).await.map(drop).or_else(crate::status::unless_gone)?;
        Ok(if status::is_silent(&observed) { Action::RequeueAfter(status::SILENCE.unsigned_abs()) } else { Action::Done })
    }
}
