//! The VSphereVM controller: one virtual machine in vCenter, from its addresses to its destruction.
//!
//! It makes a machine at most once, marks it as ours from the first moment, and touches no other. A machine that is gone is not made again.

mod act;
pub mod intent;
#[cfg(test)]
mod life;
mod look;
pub mod network;
pub mod plan;
pub mod status;
mod teardown;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::cluster::{Cluster, Machine};
use api::infrastructure::{VSphereCluster, VSphereMachine, VSphereVM};
use api::ipam::{IPAddress, IPAddressClaim};
use api::names::secrets;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use runtime::defects::Defect;
use runtime::reconcile::{Action, Error, ObjectKey, Reconciler, Store};
use vsphere::{Change, Credentials, Owner, VSphereError};

use crate::controlplane::has_etcd_hook;
use crate::edit::{cluster_name, is_deleting, is_paused};
use crate::vspherecluster::identity::Identities;
use crate::vspheremachine::infrastructure_of;
use crate::{Started, Wiring};
use act::{Act, StepError};
use intent::Intent;
use network::Claim;
use plan::{Bootstrap, Look, Observed, Plan};

/// The controller's name.
pub const NAME: &str = "vspherevm";
/// Between two looks at one object: what changes together is looked at once.
const REST: Duration = Duration::from_millis(5);
/// The index of VSphereVMs by the ids of their machine and task in vCenter.
const BY_VCENTER: &str = "vcenter";
/// The index of VSphereVMs by the secret with their configuration.
const BY_BOOTSTRAP: &str = "bootstrap";

struct VSphereVMs {
    act: Act,
    machines: Store<VSphereMachine>,
    clusters: Store<Cluster>,
    infrastructures: Store<VSphereCluster>,
    owners: Store<Machine>,
    addresses: Store<IPAddress>,
    identities: Identities,
}

/// Wires the controller.
pub fn start(wiring: &Wiring) -> Started {
    let store = wiring.stores.get::<VSphereVM>();
    store.index(BY_VCENTER, |vm| {
        let references = [plan::vm_reference(vm), plan::task_reference(vm)];
        references.into_iter().flatten().map(|reference| reference.id).collect()
    });
    store.index(BY_BOOTSTRAP, |vm| bootstrap_secret(vm).map(|key| key.to_string()).into_iter().collect());
    let act = Act {
        wiring: wiring.clone(),
        store: store.clone(),
        claims: wiring.stores.get(),
        recorder: wiring.recorder.of("vspherevm-controller"),
    };
    let reconciler = VSphereVMs {
        act,
        machines: wiring.stores.get(),
        clusters: wiring.stores.get(),
        infrastructures: wiring.stores.get(),
        owners: wiring.stores.get(),
        addresses: wiring.stores.get(),
        identities: Identities::new(&wiring.stores),
    };
    let addresses = reconciler.addresses.clone();
    let members = |store: &Store<VSphereVM>, namespace: Option<&str>, cluster: Option<&str>| {
        let found = cluster.map(|cluster| store.of_cluster(namespace.unwrap_or_default(), cluster)).unwrap_or_default();
        found.iter().map(|object| ObjectKey::of(&object.metadata)).collect::<Vec<_>>()
    };
    // All that is read of it.
    let owners = |old: &VSphereMachine, new: &VSphereMachine| {
        old.metadata.uid != new.metadata.uid || old.metadata.owner_references != new.metadata.owner_references
    };
    let (by_cluster, by_infrastructure, by_bootstrap) = (store.clone(), store.clone(), store.clone());
    let controller = wiring
        .controller(NAME, reconciler)
        .rest(REST)
        .owns::<IPAddressClaim>()
        .reads(&addresses)
        .watches_when(crate::change::of_cluster, move |cluster: &Cluster| {
            members(&by_cluster, cluster.metadata.namespace.as_deref(), cluster.metadata.name.as_deref())
        })
        .watches(move |object: &VSphereCluster| {
            members(&by_infrastructure, object.metadata.namespace.as_deref(), cluster_name(&object.metadata))
        })
        .watches(move |secret: &Secret| {
            let key = ObjectKey::of(&secret.metadata).to_string();
            by_bootstrap.indexed(BY_BOOTSTRAP, &key).iter().map(|object| ObjectKey::of(&object.metadata)).collect()
        })
        .watches_when(owners, |machine: &VSphereMachine| {
            // The VSphereVM is named after the Machine.
            let owner = machine.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "Machine");
            owner.map(|owner| ObjectKey { namespace: machine.metadata.namespace.clone(), name: owner.name.clone() }).into_iter().collect()
        })
        // A member of etcd that has left it may go.
        .watches_when(
            |old: &Machine, new: &Machine| has_etcd_hook(old) != has_etcd_hook(new),
            |machine: &Machine| vec![ObjectKey::of(&machine.metadata)],
        )
        .limit(100);
    let waker = controller.waker();
    wiring.vcenters.subscribe(Arc::new(move |server, change| match change {
        Change::Machine(reference) | Change::Task(reference) => {
            for vm in store.indexed(BY_VCENTER, &reference.id) {
                if vm.spec.clone.server.as_deref().unwrap_or_default() == server {
                    waker.wake(&ObjectKey::of(&vm.metadata));
                }
            }
        }
        Change::Link => waker.wake_all(),
    }));
    wiring.started(controller)
}

fn bootstrap_secret(vm: &VSphereVM) -> Option<ObjectKey> {
    let reference = vm.spec.bootstrap_ref.as_ref()?;
    Some(ObjectKey { namespace: vm.metadata.namespace.clone(), name: reference.name.clone() })
}

impl VSphereVMs {
    async fn observe(&self, vm: Arc<VSphereVM>) -> (Observed, Option<Credentials>) {
        let vm = intent::without_foreign(vm, &self.act.store);
        let intent = Intent::of(&vm);
        let namespace = vm.metadata.namespace.clone().unwrap_or_default();
        let owner = vm.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "VSphereMachine");
        let machine = owner.and_then(|owner| self.machines.get_in(&namespace, &owner.name));
        let machine_uid = machine.as_ref().and_then(|machine| {
            machine.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "Machine").map(|owner| owner.uid.clone())
        });
        let cluster = cluster_name(&vm.metadata).and_then(|name| self.clusters.get_in(&namespace, name));
        let cluster_uid = cluster.as_ref().and_then(|cluster| cluster.metadata.uid.clone());
        let infrastructure = infrastructure_of(cluster.as_deref(), &self.infrastructures);
        let claims = self.claims(&vm);
        let uid = vm.metadata.uid.clone().unwrap_or_default();
        let is_paused = is_paused(cluster.as_deref(), &vm.metadata);
        let credentials = self.credentials(&vm, infrastructure.as_deref(), intent.as_ref());
        let owner = machine_uid.zip(cluster_uid).map(|(machine, cluster)| Owner {
            installation: self.act.wiring.installation_id.clone(),
            cluster,
            machine,
        });
        let endpoint = infrastructure.as_ref().and_then(|object| object.spec.control_plane_endpoint.host.clone());
        let mut observed = Observed {
            now: self.act.wiring.clock.now_seconds(),
            is_paused,
            owner: intent.map(|intent| intent.owner()).or(owner),
            identity: infrastructure.as_ref().and_then(|object| object.spec.identity_ref.clone()),
            bootstrap: self.bootstrap(&vm),
            owned_claims: self.act.claims.owned_by(&uid),
            claims,
            identity_error: credentials.as_ref().err().cloned(),
            member: self
                .owners
                .get_in(&namespace, vm.metadata.name.as_deref().unwrap_or_default())
                .filter(|owner| has_etcd_hook(owner))
                .and_then(|owner| owner.metadata.name.clone()),
            vip: endpoint.and_then(|host| host.parse().ok()),
            look: Look::default(),
            defects: self.act.wiring.defects.clone(),
            vm,
        };
        let credentials = credentials.ok();
        // Nothing of vCenter decides while addresses are missing, nor while a member has to leave etcd first.
        let is_waiting = if is_deleting(&observed.vm.metadata) {
            observed.member.is_some() && !observed.defects.has(Defect::GoBeforeLeaving)
        } else {
            observed.claims.iter().any(|claim| claim.address.is_none())
        };
        if let Some(credentials) = credentials.as_ref().filter(|_| !is_paused && !is_waiting && observed.owner.is_some()) {
            let claimed = || -> BTreeSet<String> {
                let others = self.act.store.all().into_iter().filter(|other| other.metadata.uid != observed.vm.metadata.uid);
                others.filter_map(|other| plan::task_reference(&other)).map(|task| task.id).collect()
            };
            let look = look::look(&*self.act.wiring.vcenters, credentials, &observed.vm, &claimed).await;
            observed.look = look;
        }
        (observed, credentials)
    }

    fn credentials(&self, vm: &VSphereVM, infrastructure: Option<&VSphereCluster>, intent: Option<&Intent>) -> Result<Credentials, String> {
        let mut stored = VSphereCluster::default();
        stored.metadata.namespace.clone_from(&vm.metadata.namespace);
        stored.spec.identity_ref = intent.and_then(|intent| intent.identity.clone());
        let infrastructure = infrastructure.or_else(|| stored.spec.identity_ref.is_some().then_some(&stored));
        let Some(infrastructure) = infrastructure else {
            return Err("the VSphereCluster, which names the vCenter credentials, does not exist".to_owned());
        };
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let server = filled(&vm.spec.clone.server).unwrap_or_else(|| infrastructure.spec.server.clone());
        let thumbprint = filled(&vm.spec.clone.thumbprint).or_else(|| filled(&infrastructure.spec.thumbprint));
        self.identities.credentials(infrastructure, &server, thumbprint.as_deref()).map_err(|error| error.to_string())
    }

    fn bootstrap(&self, vm: &VSphereVM) -> Bootstrap {
        let key = bootstrap_secret(vm);
        let secret = key.as_ref().and_then(|key| self.identities.secrets.get(key));
        let value = secret.as_ref().and_then(|secret| secret.data.as_ref()?.get(secrets::VALUE).cloned());
        match value.and_then(|bytes| String::from_utf8(bytes.0).ok()).filter(|text| !text.is_empty()) {
            Some(text) => Bootstrap::Data(text),
            None => Bootstrap::Missing { secret: key.map(|key| key.name).unwrap_or_default() },
        }
    }

    fn claims(&self, vm: &VSphereVM) -> Vec<Claim> {
        let namespace = vm.metadata.namespace.as_deref().unwrap_or_default();
        let mut claims = network::wanted_claims(vm);
        for claim in &mut claims {
            claim.claim = self.act.claims.get_in(namespace, &claim.name);
            let reference = claim.claim.as_ref().and_then(|claim| claim.status.as_ref()?.address_ref.clone());
            claim.address = reference.and_then(|reference| self.addresses.get_in(namespace, &reference.name));
        }
        claims
    }

    async fn tell(&self, key: &ObjectKey, observed: Observed, plan: &Plan, failure: Option<&VSphereError>) -> Result<(), Error> {
        let Some(vm) = self.act.store.get(key) else { return Ok(()) };
        let observed = Observed { vm, ..observed };
        let new = status::status(&observed, plan, failure);
        Ok(self.act.tell(&observed.vm, &new).await.or_else(crate::status::unless_gone)?)
    }
}

#[async_trait]
impl Reconciler for VSphereVMs {
    type Kind = VSphereVM;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(vm) = self.act.store.get(key) else { return Ok(Action::Done) };
        let (observed, credentials) = self.observe(vm).await;
        let plan = plan::plan(&observed);
        let vcenter = credentials.as_ref().map(|credentials| self.act.wiring.vcenters.vcenter(credentials));
        let mut result = Ok(());
        for step in &plan.steps {
            result = self.act.step(&observed, &plan, step, vcenter.as_deref()).await;
            if result.is_err() {
                break;
            }
        }
        let failure = match result {
            Ok(()) => None,
            Err(StepError::VSphere(error)) => Some(error),
            Err(error) => return Err(error.into()),
        };
        self.tell(key, observed, &plan, failure.as_ref()).await?;
        let again = if failure.is_some() { None } else { plan.again };
        match failure.or(plan.server_error) {
            Some(error) => match again.or(error.reaction().delay()) {
                Some(delay) => Ok(Action::RequeueAfter(delay)),
                // Repeated with growing delay; what wakes before is welcome.
                None => Err(error.into()),
            },
            None => Ok(again.map_or(Action::Done, Action::RequeueAfter)),
        }
    }
}
