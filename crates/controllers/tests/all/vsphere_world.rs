//! One Machine with everything it needs, and the controllers for vSphere and addresses. Effects on vCenter can be lost or doubled on their way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use api::infrastructure::{VSphereCluster, VSphereMachine, VSphereVM};
use apiserver::{ApiServer, CrdSet, MemoryJournal, User};
use async_trait::async_trait;
use controllers::workload::{Accessor, Parts};
use controllers::{Context, Running, Selection};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use runtime::clock::Clock;
use runtime::defects::Defects;
use runtime::keys::Prepared;
use runtime::log::Log;
use runtime::random::Random;
use runtime::reconcile::Stores;
use runtime::tls::Tls;
use serde_json::{Value, json};
use simulator::vcenter::{Site, Template};
use simulator::{Config, Latency, Simulator};
use talos::client::grpc::GrpcDialer;
use tokio_util::sync::CancellationToken;
use vsphere::spec::{CloneRequest, Remarks};
use vsphere::{
    About, Credentials, Link, Listener, ManagedObjectReference, Owner, Placement, PlacementRequest, Registry, Seen, Task, Transport,
    VCenter, VCenters, VSphereError, Verification, VirtualMachine, VirtualMachineConfigSpec,
};

pub const NAMESPACE: &str = "lab";
pub const SERVER: &str = "vc.example.org";
pub const PASSWORD: &str = "right-horse";

/// What becomes of one effect on vCenter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    LostBefore,
    LostAfter,
    Twice,
    /// It happens, and before it is recorded somebody changes the VSphereVM.
    Touched,
}

/// Which effect (counted from zero) meets which mishap, and what was done so far.
#[derive(Debug, Default)]
pub struct Effects {
    count: AtomicU32,
    pub planned: Mutex<Option<(u32, Mishap)>>,
    pub done: Mutex<Vec<&'static str>>,
    pub has_struck: AtomicBool,
    vms: OnceLock<Api<VSphereVM>>,
}

#[derive(Debug)]
struct Wrapped {
    inner: Arc<dyn VCenter>,
    effects: Arc<Effects>,
}

impl Wrapped {
    async fn effect<T, F: Future<Output = Result<T, VSphereError>>>(
        &self,
        name: &'static str,
        call: impl Fn() -> F,
    ) -> Result<T, VSphereError> {
        let number = self.effects.count.fetch_add(1, Ordering::Relaxed);
        self.effects.done.lock().unwrap().push(name);
        let planned = *self.effects.planned.lock().unwrap();
        let lost =
            || VSphereError::Unanswered { server: SERVER.to_owned(), method: name.to_owned(), reason: "lost by the test".to_owned() };
        let Some((_, mishap)) = planned.filter(|(at, _)| *at == number) else { return call().await };
        self.effects.has_struck.store(true, Ordering::Relaxed);
        match mishap {
            Mishap::LostBefore => Err(lost()),
            Mishap::LostAfter => {
                let _ = call().await;
                Err(lost())
            }
            Mishap::Twice => {
                let first = call().await;
                let _ = call().await;
                first
            }
            Mishap::Touched => {
                let done = call().await;
                let label = json!({"metadata": {"labels": {"touched": "yes"}}});
                let vms = self.effects.vms.get().unwrap();
                vms.patch("m", &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
                done
            }
        }
    }
}

#[async_trait]
impl VCenter for Wrapped {
    fn server(&self) -> &str {
        self.inner.server()
    }
    async fn about(&self) -> Result<About, VSphereError> {
        self.inner.about().await
    }
    fn link(&self) -> Link {
        self.inner.link()
    }
    async fn place(&self, request: &PlacementRequest) -> Result<Arc<Placement>, VSphereError> {
        self.inner.place(request).await
    }
    async fn find_named(&self, folder_path: &str, name: &str) -> Result<Option<ManagedObjectReference>, VSphereError> {
        self.inner.find_named(folder_path, name).await
    }
    async fn machines_of(&self, owner: &Owner) -> Result<Vec<ManagedObjectReference>, VSphereError> {
        self.inner.machines_of(owner).await
    }
    async fn find_instance(&self, uuid: &str) -> Result<Vec<ManagedObjectReference>, VSphereError> {
        self.inner.find_instance(uuid).await
    }
    async fn machines_of_cluster(&self, cluster: &str) -> Result<Vec<String>, VSphereError> {
        self.inner.machines_of_cluster(cluster).await
    }
    async fn machine(&self, machine: &ManagedObjectReference) -> Result<Option<VirtualMachine>, VSphereError> {
        self.inner.machine(machine).await
    }
    fn seen(&self, machine: &ManagedObjectReference) -> Option<Seen> {
        self.inner.seen(machine)
    }
    async fn host_name(&self, host: &ManagedObjectReference) -> Result<Option<String>, VSphereError> {
        self.inner.host_name(host).await
    }
    async fn clone_machine(
        &self,
        placement: &Placement,
        request: &CloneRequest,
    ) -> Result<(ManagedObjectReference, Remarks), VSphereError> {
        self.effect("clone", || self.inner.clone_machine(placement, request)).await
    }
    async fn clones_of(&self, source: &ManagedObjectReference) -> Result<Vec<Task>, VSphereError> {
        self.inner.clones_of(source).await
    }
    async fn task(&self, task: &ManagedObjectReference) -> Result<Option<Task>, VSphereError> {
        self.inner.task(task).await
    }
    async fn cancel(&self, task: &ManagedObjectReference) -> Result<(), VSphereError> {
        self.effect("cancel", || self.inner.cancel(task)).await
    }
    async fn reconfigure(
        &self,
        machine: &ManagedObjectReference,
        spec: VirtualMachineConfigSpec,
    ) -> Result<ManagedObjectReference, VSphereError> {
        self.effect("reconfigure", || self.inner.reconfigure(machine, spec.clone())).await
    }
    async fn power_on(&self, machine: &ManagedObjectReference) -> Result<ManagedObjectReference, VSphereError> {
        self.effect("power-on", || self.inner.power_on(machine)).await
    }
    async fn power_off(&self, machine: &ManagedObjectReference) -> Result<ManagedObjectReference, VSphereError> {
        self.effect("power-off", || self.inner.power_off(machine)).await
    }
    async fn shut_down_guest(&self, machine: &ManagedObjectReference) -> Result<(), VSphereError> {
        self.effect("shut-down", || self.inner.shut_down_guest(machine)).await
    }
    async fn destroy(&self, machine: &ManagedObjectReference) -> Result<ManagedObjectReference, VSphereError> {
        self.effect("destroy", || self.inner.destroy(machine)).await
    }
}

#[derive(Debug)]
struct Wrapping {
    registry: Arc<Registry>,
    effects: Arc<Effects>,
}

#[async_trait]
impl VCenters for Wrapping {
    fn vcenter(&self, credentials: &Credentials) -> Arc<dyn VCenter> {
        Arc::new(Wrapped { inner: self.registry.vcenter(credentials), effects: self.effects.clone() })
    }
    fn subscribe(&self, listener: Listener) {
        self.registry.subscribe(listener);
    }
    async fn close(&self) {
        self.registry.close().await;
    }
}

/// What differs between worlds.
#[derive(Clone, Debug)]
pub struct Setup {
    pub mishap: Option<(u32, Mishap)>,
    pub defects: Defects,
    /// Changes to the VSphereMachine's spec.
    pub spec: Value,
    pub password: &'static str,
    pub thumbprint: Option<&'static str>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { mishap: None, defects: Defects::none(), spec: json!({}), password: PASSWORD, thumbprint: None }
    }
}

pub struct World {
    pub simulator: Simulator,
    pub effects: Arc<Effects>,
    pub registry: Arc<Registry>,
    pub server: ApiServer,
    clock: Clock,
    random: Random,
    tls: Tls,
    pub log: Log,
    defects: Defects,
    running: Option<(Running, CancellationToken)>,
}

fn site() -> Site {
    let mut site = Site::new(SERVER, "administrator@vsphere.local", PASSWORD);
    let datacenter = site.datacenter("dc1");
    datacenter.add_datastore("datastore5");
    datacenter.add_network("VM Network");
    datacenter.folders.push("lab".to_owned());
    datacenter.resource_pools.push("*/Resources".to_owned());
    datacenter.add_template("talos", "v1.4.8", &[10]);
    datacenter.templates.push(Template { name: "bare".to_owned(), talos_version: None, disks_gib: vec![10], has_snapshot: false });
    site
}

const CONFIG: &str =
    "version: v1alpha1\nmachine:\n  type: worker\n  token: a.b\ncluster:\n  controlPlane:\n    endpoint: https://10.0.0.10:6443\n";

impl World {
    pub async fn start(setup: &Setup) -> Self {
        let clock = Clock::starting_at("2026-03-01T08:00:00Z".parse().unwrap());
        let random = Random::seeded(1);
        let log = Log::keeping(clock.clone());
        let tls = Tls::clear(clock.clone());
        let keys = Arc::new(Prepared::new(random.child("keys")));
        let mut config = Config::new(site(), clock.clone(), random.clone(), log.clone(), tls.clone(), keys);
        config.latency = Latency { node: Latency::none().node, ..Latency::scaled(1.0) };
        let simulator = Simulator::start(config).await.unwrap();
        let webhooks = Arc::new(api::Webhooks);
        let options = apiserver::Options {
            crds: CrdSet::from(api::crds()),
            admission: webhooks.clone(),
            conversion: webhooks,
            ..apiserver::Options::new(clock.clone(), random.child("apiserver"), Box::new(MemoryJournal::new()))
        };
        let server = ApiServer::open(options).await.unwrap();
        let effects = Arc::new(Effects::default());
        *effects.planned.lock().unwrap() = setup.mishap;
        let registry = Self::registry(&simulator, &tls, &clock, &random);
        let mut world =
            Self { simulator, effects, registry, server, clock, random, tls, log, defects: setup.defects.clone(), running: None };
        world.effects.vms.set(world.api()).unwrap();
        world.create(setup).await;
        world.run().await;
        world
    }

    fn registry(simulator: &Simulator, tls: &Tls, clock: &Clock, random: &Random) -> Arc<Registry> {
        let transport = Transport { dialer: simulator.network(), tls: tls.clone(), user_agent: "test".to_owned() };
        Arc::new(Registry::new(transport, Verification::default(), clock, random))
    }

    /// Starts the controllers.
    async fn run(&mut self) {
        let token = CancellationToken::new();
        let client = self.client();
        let stores = Stores::new(client.clone(), self.clock.clone(), &self.random, token.clone());
        let parts = Parts {
            stores: stores.clone(),
            random: self.random.clone(),
            log: self.log.clone(),
            tls: self.tls.clone(),
            dialer: self.simulator.network(),
            token: token.clone(),
        };
        let context = Context {
            client,
            stores,
            clock: self.clock.clone(),
            random: self.random.clone(),
            log: self.log.clone(),
            defects: self.defects.clone(),
            keys: Arc::new(Prepared::new(self.random.child("keys"))),
            vcenters: Arc::new(Wrapping { registry: self.registry.clone(), effects: self.effects.clone() }),
            talos: Arc::new(GrpcDialer::new(self.simulator.network(), self.tls.clone())),
            workload: Arc::new(Accessor::new(parts)),
            workload_proxy: None,
            installation_id: "test".to_owned(),
        };
        let selection = Selection::parse("vspherecluster,vspheremachine,vspherevm,inclusterippool,ipaddressclaim").unwrap();
        self.running = Some((controllers::start(&context, &selection, &token), token));
    }

    /// Ends the controllers wherever they are, and starts others that remember nothing.
    pub async fn restart(&mut self) {
        if let Some((running, token)) = self.running.take() {
            token.cancel();
            drop(running);
        }
        self.registry = Self::registry(&self.simulator, &self.tls, &self.clock, &self.random);
        self.run().await;
    }

    /// Ends the controllers as a process does that is asked to.
    pub async fn end(&mut self) {
        if let Some((running, token)) = self.running.take() {
            token.cancel();
            running.ended().await;
        }
    }

    pub fn client(&self) -> kube::Client {
        self.server.client(&User::admin("test"))
    }

    pub fn api<K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client(), NAMESPACE)
    }

    async fn create(&self, setup: &Setup) {
        use api::cluster::{Cluster, Machine};
        use api::ipam::InClusterIPPool;
        use k8s_openapi::api::core::v1::Namespace;
        let meta = |name: &str| json!({"name": name, "namespace": NAMESPACE, "labels": {"cluster.x-k8s.io/cluster-name": "c"}});
        let owner = |kind: &str, name: &str, uid: &Option<String>| json!([{"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": kind, "name": name, "uid": uid, "controller": true}]);
        let post = PostParams::default();
        let namespace =
            Namespace { metadata: ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() }, ..Namespace::default() };
        Api::all(self.client()).create(&post, &namespace).await.unwrap();
        let secret: Secret = from(json!({
            "metadata": {"name": "c", "namespace": NAMESPACE},
            "stringData": {"username": "administrator@vsphere.local", "password": setup.password},
        }));
        self.api::<Secret>().create(&post, &secret).await.unwrap();
        let data: Secret = from(json!({"metadata": meta("m-bootstrap-data"), "stringData": {"value": CONFIG}}));
        self.api::<Secret>().create(&post, &data).await.unwrap();
        let pool: InClusterIPPool = from(json!({
            "metadata": {"name": "pool", "namespace": NAMESPACE},
            "spec": {"addresses": ["10.0.0.20-10.0.0.29"], "prefix": 24, "gateway": "10.0.0.1"},
        }));
        self.api::<InClusterIPPool>().create(&post, &pool).await.unwrap();
        let cluster: Cluster = from(json!({
            "metadata": {"name": "c", "namespace": NAMESPACE},
            "spec": {
                "controlPlaneEndpoint": {"host": "10.0.0.10", "port": 6443},
                "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "VSphereCluster", "name": "c"},
            },
        }));
        let cluster = self.api::<Cluster>().create(&post, &cluster).await.unwrap();
        let thumbprint = setup.thumbprint.map_or_else(|| self.simulator.vcenter_thumbprint(), str::to_owned);
        let mut metadata = meta("c");
        metadata["ownerReferences"] = owner("Cluster", "c", &cluster.metadata.uid);
        let infrastructure: VSphereCluster = from(json!({
            "metadata": metadata,
            "spec": {
                "server": SERVER,
                "thumbprint": thumbprint,
                "identityRef": {"kind": "Secret", "name": "c"},
                "controlPlaneEndpoint": {"host": "10.0.0.10", "port": 6443},
            },
        }));
        self.api::<VSphereCluster>().create(&post, &infrastructure).await.unwrap();
        let machine: Machine = from(json!({
            "metadata": meta("m"),
            "spec": {
                "clusterName": "c",
                "bootstrap": {"dataSecretName": "m-bootstrap-data"},
                "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "VSphereMachine", "name": "vsm"},
            },
        }));
        let machine = self.api::<Machine>().create(&post, &machine).await.unwrap();
        let mut metadata = meta("vsm");
        metadata["ownerReferences"] = owner("Machine", "m", &machine.metadata.uid);
        let mut spec = json!({
            "template": "talos", "cloneMode": "linkedClone", "datacenter": "dc1", "datastore": "datastore5", "folder": "lab",
            "resourcePool": "*/Resources", "numCPUs": 2, "memoryMiB": 4096, "diskGiB": 10,
            "network": {"devices": [{
                "networkName": "VM Network", "nameservers": ["10.0.0.1"],
                "addressesFromPools": [{"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "pool"}],
            }]},
        });
        for (key, value) in setup.spec.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let object: VSphereMachine = from(json!({"metadata": metadata, "spec": spec}));
        self.api::<VSphereMachine>().create(&post, &object).await.unwrap();
    }

    pub async fn vm(&self) -> Option<VSphereVM> {
        self.api::<VSphereVM>().get_opt("m").await.unwrap()
    }

    /// The message of the VM's condition, once `holds`; fails after ten virtual minutes.
    pub async fn told(&self, holds: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        for _ in 0..600 {
            if let Some(vm) = self.vm().await {
                let conditions = vm.status.map(|status| status.conditions).unwrap_or_default();
                let ready = api::conditions::get(&conditions, "Ready").map(|condition| condition.message.clone());
                last = ready.unwrap_or_default();
                if holds(&last) {
                    return last;
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("never told; at last: {last}\n{}", self.story());
    }

    /// Waits until `holds`; fails after `limit` of virtual time.
    pub async fn until(&self, what: &str, limit: Duration, mut holds: impl AsyncFnMut(&Self) -> bool) {
        let mut waited = Duration::ZERO;
        while !holds(self).await {
            assert!(waited < limit, "not {what} within {limit:?}\n{}\n{:#?}", self.story(), self.vm().await.map(|vm| vm.status));
            tokio::time::sleep(Duration::from_millis(500)).await;
            waited += Duration::from_millis(500);
        }
    }

    pub async fn provisioned(&self) {
        self.until("provisioned", Duration::from_secs(1200), async |world: &Self| {
            let object = world.api::<VSphereMachine>().get("vsm").await.unwrap();
            object.status.is_some_and(|status| status.initialization.provisioned == Some(true))
        })
        .await;
    }

    pub async fn delete(&self) {
        self.api::<VSphereMachine>().delete("vsm", &DeleteParams::default()).await.unwrap();
    }

    pub async fn gone(&self) {
        self.until("gone", Duration::from_secs(1200), async |world: &Self| {
            world.api::<VSphereMachine>().get_opt("vsm").await.unwrap().is_none()
        })
        .await;
    }

    pub async fn merge<K>(&self, name: &str, patch: Value)
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// The machines in vCenter that are no templates, by name.
    pub fn machines(&self) -> BTreeMap<String, simulator::hypervisor::VmTruth> {
        self.simulator.truth().vms.into_iter().filter(|vm| !vm.is_template).map(|vm| (vm.name.clone(), vm)).collect()
    }

    pub fn done(&self) -> Vec<&'static str> {
        self.effects.done.lock().unwrap().clone()
    }

    pub fn story(&self) -> String {
        self.log.entries().iter().map(|entry| format!("{entry}\n")).collect()
    }
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}
