//! The VSphereCluster controller: sees to it that somebody can sign in to the cluster's vCenter, and tells whether it answers.
//!
//! It makes nothing in vCenter. The user's credential secret gets one finalizer and loses it again; nothing else of it is touched.

mod act;
pub mod identity;
pub mod plan;
pub mod status;

use std::sync::Arc;
use std::time::Duration;

use api::cluster::Cluster;
use api::infrastructure::{VSphereCluster, VSphereMachine};
use api::names::labels;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use kube::Resource;
use runtime::defects::Defect;
use runtime::reconcile::{Action, Error, EventType, ObjectKey, Reconciler, Recorder, Store};
use vsphere::{Change, Link, Reaction, VSphereError};

use crate::edit::{cluster_name, is_deleting, is_paused};
use crate::{Started, Wiring};
use act::Act;
use identity::Identities;
use plan::{Observed, Unavailable};

/// The controller's name.
pub const NAME: &str = "vspherecluster";
/// Between two looks at one object: what changes together is looked at once.
const REST: Duration = Duration::from_millis(20);
/// The index of VSphereClusters by their secret.
const BY_SECRET: &str = "secret";
/// The index of VSphereClusters by their endpoint.
const BY_ENDPOINT: &str = "endpoint";

/// An endpoint as two of them are compared.
fn endpoint(object: &VSphereCluster) -> Option<String> {
    let (host, port) = object.spec.control_plane_endpoint.parts()?;
    let host = host.parse::<std::net::IpAddr>().map_or_else(|_| host.to_lowercase(), |address| address.to_string());
    Some(format!("{host} {port}"))
}

struct VSphereClusters {
    act: Act,
    clusters: Store<Cluster>,
    machines: Store<VSphereMachine>,
    recorder: Recorder,
}

/// Wires the controller.
pub fn start(wiring: &Wiring) -> Started {
    let store = wiring.stores.get::<VSphereCluster>();
    store.index(BY_SECRET, |object| Identities::own_secret(object).map(|key| key.to_string()).into_iter().collect());
    store.index(BY_ENDPOINT, |object| endpoint(object).into_iter().collect());
    let act = Act { wiring: wiring.clone(), store: store.clone(), identities: Identities::new(&wiring.stores) };
    let reconciler = VSphereClusters {
        act,
        clusters: wiring.stores.get(),
        machines: wiring.stores.get(),
        recorder: wiring.recorder.of("vspherecluster-controller"),
    };
    let of_cluster = |meta: &kube::core::ObjectMeta, name: Option<&str>, store: &Store<VSphereCluster>| {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let found = name.map(|name| store.of_cluster(namespace, name)).unwrap_or_default();
        found.iter().map(|object| ObjectKey::of(&object.metadata)).collect::<Vec<_>>()
    };
    let metadata = |old: &VSphereMachine, new: &VSphereMachine| crate::change::of_metadata(&old.metadata, &new.metadata);
    let (by_secret, by_endpoint) = (store.clone(), store.clone());
    let by_machine = store.clone();
    let by_cluster = store.clone();
    let controller = wiring
        .controller(NAME, reconciler)
        .rest(REST)
        .watches(move |secret: &Secret| {
            let key = ObjectKey::of(&secret.metadata).to_string();
            by_secret.indexed(BY_SECRET, &key).iter().map(|object| ObjectKey::of(&object.metadata)).collect()
        })
        // Who waits for the endpoint of a cluster that goes, or takes another one.
        .watches_when(
            |old: &VSphereCluster, new: &VSphereCluster| {
                endpoint(old) != endpoint(new) || is_deleting(&old.metadata) != is_deleting(&new.metadata)
            },
            move |object: &VSphereCluster| {
                let same = endpoint(object).map(|endpoint| by_endpoint.indexed(BY_ENDPOINT, &endpoint)).unwrap_or_default();
                same.iter().map(|object| ObjectKey::of(&object.metadata)).collect()
            },
        )
        .watches_when(metadata, move |machine: &VSphereMachine| of_cluster(&machine.metadata, cluster_name(&machine.metadata), &by_machine))
        .watches_when(crate::change::of_cluster, move |cluster: &Cluster| {
            of_cluster(&cluster.metadata, cluster.metadata.name.as_deref(), &by_cluster)
        });
    let waker = controller.waker();
    wiring.vcenters.subscribe(Arc::new(move |server, change| {
        if *change == Change::Link {
            for object in store.all().iter().filter(|object| object.spec.server == server) {
                waker.wake(&ObjectKey::of(&object.metadata));
            }
        }
    }));
    wiring.started(controller)
}

/// The Cluster that an object is labelled with, or owned by.
fn owner(store: &Store<Cluster>, object: &VSphereCluster) -> Option<Arc<Cluster>> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let owned = object.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "Cluster").map(|owner| owner.name.as_str());
    let name = owned.or_else(|| object.metadata.labels.as_ref()?.get(labels::CLUSTER_NAME).map(String::as_str))?;
    store.get_in(namespace, name)
}

/// How a server's error stands in a condition, and when to try again.
pub(crate) fn unavailable(error: &VSphereError) -> Unavailable {
    let retry = match error.reaction() {
        Reaction::Later => None,
        reaction => reaction.delay(),
    };
    Unavailable { message: error.to_string(), is_identity: false, retry }
}

impl VSphereClusters {
    /// The VSphereCluster that had this one's endpoint before it: one that is provisioned, or the older one.
    fn endpoint_holder(&self, object: &VSphereCluster) -> Option<String> {
        let is_provisioned =
            |object: &VSphereCluster| object.status.as_ref().is_some_and(|status| status.initialization.provisioned == Some(true));
        let rank = |object: &VSphereCluster| {
            let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (!is_provisioned(object), created, object.metadata.uid.clone())
        };
        let same = self.act.store.indexed(BY_ENDPOINT, &endpoint(object)?);
        let mut before = same.iter().filter(|other| other.metadata.uid != object.metadata.uid && rank(other) < rank(object));
        before.next().map(|other| ObjectKey::of(&other.metadata).to_string())
    }

    async fn observe(&self, object: Arc<VSphereCluster>) -> Observed {
        let key = ObjectKey::of(&object.metadata);
        let cluster = owner(&self.clusters, &object);
        let is_deleting = is_deleting(&object.metadata);
        let is_paused = is_paused(cluster.as_deref(), &object.metadata);
        let secret = Identities::own_secret(&object);
        let is_other = |other: &Arc<VSphereCluster>| ObjectKey::of(&other.metadata) != key && other.metadata.deletion_timestamp.is_none();
        let sharing = secret.as_ref().map(|secret| self.act.store.indexed(BY_SECRET, &secret.to_string())).unwrap_or_default();
        let name = cluster.as_ref().and_then(|cluster| cluster.metadata.name.clone());
        let name = name.or_else(|| cluster_name(&object.metadata).map(str::to_owned)).unwrap_or_else(|| key.name.clone());
        let machines = self.machines.of_cluster(key.namespace(), &name);
        let vcenter = if is_paused || is_deleting { None } else { Some(self.look(&object).await) };
        Observed {
            endpoint_holder: self.endpoint_holder(&object),
            secret: secret.and_then(|secret| self.act.identities.secrets.get(&secret)),
            is_secret_shared: sharing.iter().any(is_other),
            machines: machines.iter().filter_map(|machine| machine.metadata.name.clone()).collect(),
            now: self.act.wiring.clock.now_seconds(),
            object,
            cluster,
            is_paused,
            vcenter,
        }
    }

    async fn look(&self, object: &VSphereCluster) -> Result<vsphere::About, Unavailable> {
        let thumbprint = object.spec.thumbprint.as_deref();
        let credentials = self.act.identities.credentials(object, &object.spec.server, thumbprint).map_err(|error| Unavailable {
            message: error.to_string(),
            is_identity: true,
            // A change of the secret wakes.
            retry: Some(Duration::from_secs(600)),
        })?;
        let vcenter = self.act.wiring.vcenters.vcenter(&credentials);
        if let Link::Down { error, .. } = vcenter.link()
            && error.reaction() == Reaction::Later
        {
            return Err(unavailable(&error));
        }
        vcenter.about().await.map_err(|error| unavailable(&error))
    }

    /// The planted defect of rule 7: an event shows the password.
    fn tell_password(&self, observed: &Observed) {
        if !self.act.wiring.defects.has(Defect::SecretInEvent) {
            return;
        }
        let data = observed.secret.as_ref().and_then(|secret| secret.data.as_ref());
        if let Some(password) = data.and_then(|data| data.get("password")) {
            let text = format!("signing in with {}", String::from_utf8_lossy(&password.0));
            self.recorder.event(&observed.object.object_ref(&()), EventType::Normal, "SigningIn", text);
        }
    }
}

#[async_trait]
impl Reconciler for VSphereClusters {
    type Kind = VSphereCluster;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(object) = self.act.store.get(key) else { return Ok(Action::Done) };
        let observed = self.observe(object).await;
        self.tell_password(&observed);
        let plan = plan::plan(&observed);
        for step in &plan.steps {
            self.act.step(&observed, step).await?;
        }
        let Some(object) = self.act.store.get(key) else { return Ok(Action::Done) };
        let observed = Observed { object, ..observed };
        let new = status::status(&observed, &plan);
        let old = observed.object.status.as_ref();
        let message = |status: Option<&api::infrastructure::VSphereClusterStatus>| {
            let condition = status.and_then(|status| api::conditions::get(&status.conditions, "VCenterAvailable").cloned());
            condition.filter(|condition| condition.status != api::conditions::Status::True).map(|condition| condition.message)
        };
        if let Some(text) = message(Some(&new)).filter(|text| message(old).as_ref() != Some(text)) {
            self.recorder.event(&observed.object.object_ref(&()), EventType::Warning, "VCenterUnreachable", text);
        }
        crate::status::patch(&self.act.store, &*observed.object, old, &new).await.map(drop).or_else(crate::status::unless_gone)?;
        match &observed.vcenter {
            Some(Err(Unavailable { retry: Some(delay), .. })) => Ok(Action::RequeueAfter(*delay)),
            Some(Err(Unavailable { message, .. })) => Err(Error::message(message.clone())),
            Some(Ok(_)) | None => Ok(Action::Done),
        }
    }
}
