//! A management API with the controllers of control planes over it, and plain stand-ins for what they meet: machines that boot, nodes that
//! speak the machine API, a workload API. The stand-ins keep the truth that tests judge by.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use apiserver::{ApiServer, ApiService, Body, CrdSet, MemoryJournal, Options, User};
use async_trait::async_trait;
use controllers::workload::{Applied, Clusters, Connection, Eviction, Load, Look, Tap};
use controllers::{Context, Selection};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use runtime::clock::Clock;
use runtime::defects::Defects;
use runtime::keys::Prepared;
use runtime::log::Log;
use runtime::random::Random;
use runtime::reconcile::{ObjectKey, Stores};
use serde_json::{Value, json};
use talos::client::{
    ApplyMode, ByteStream, ClientIdentity, EtcdMember, EtcdStatus, LogQuery, MemberId, Pieces, ResetOptions, Service, TalosApi,
    TalosDialer, TalosError, Version,
};
use tokio_util::sync::CancellationToken;

/// What a fault does to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call never arrives.
    LostBefore,
    /// It has its effect; the answer is lost.
    LostAfter,
    /// The controllers end before the call arrives, and start again.
    KilledBefore,
    /// The controllers end after the call has had its effect, and start again.
    KilledAfter,
}

/// Counts calls and strikes at one of them.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Strikes>>);

#[derive(Default)]
pub struct Strikes {
    calls: Vec<String>,
    at: Option<(u64, Fault)>,
    /// Strikes at the first call whose name starts so.
    named: Option<(&'static str, Fault)>,
    /// Ends the controllers that run; taken when they are killed.
    life: Option<CancellationToken>,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, Strikes> {
        self.0.lock().unwrap()
    }

    /// Strikes at the call with this number, counted from one.
    pub fn strike(&self, number: u64, fault: Fault) {
        self.state().at = Some((number, fault));
    }

    /// Strikes at the next call whose name starts so, once.
    pub fn strike_named(&self, start: &'static str, fault: Option<Fault>) {
        self.state().named = fault.map(|fault| (start, fault));
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        u64::try_from(self.state().calls.len()).unwrap()
    }

    /// The calls, in order.
    pub fn names(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    fn next(&self, name: String) -> Option<Fault> {
        let mut state = self.state();
        let is_named = state.named.is_some_and(|(start, _)| name.starts_with(start));
        state.calls.push(name);
        if is_named {
            return state.named.take().map(|(_, fault)| fault);
        }
        let number = u64::try_from(state.calls.len()).unwrap();
        state.at.filter(|(at, _)| *at == number).map(|(_, fault)| fault)
    }

    /// Ends the controllers when the fault says so; the call then never returns to them.
    async fn kill(&self) {
        let token = self.state().life.take();
        if let Some(token) = token {
            token.cancel();
        }
        std::future::pending::<()>().await;
    }
}

/// The API service with faults in writing calls.
#[derive(Clone)]
struct Faulty {
    service: ApiService,
    faults: Faults,
}

impl tower::Service<http::Request<kube::client::Body>> for Faulty {
    type Response = http::Response<Body>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<kube::client::Body>) -> Self::Future {
        let mut this = self.clone();
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let is_write = request.method() != http::Method::GET && !path.ends_with("/events") && !path.contains("/events/");
            let fault = if is_write { this.faults.next(format!("{} {path}", request.method())) } else { None };
            let lost = || std::io::Error::other("the connection broke");
            match fault {
                Some(Fault::LostBefore) => return Err(lost()),
                Some(Fault::KilledBefore) => this.faults.kill().await,
                _ => {}
            }
            let answer = tower::Service::call(&mut this.service, request).await.unwrap_or_else(|never| match never {});
            match fault {
                Some(Fault::LostAfter) => return Err(lost()),
                Some(Fault::KilledAfter) => this.faults.kill().await,
                _ => {}
            }
            Ok(answer)
        })
    }
}

/// One machine as it is.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub name: String,
    pub is_up: bool,
    /// The cluster that its etcd belongs to.
    pub etcd: Option<usize>,
    /// The state of its etcd service, where that does not follow.
    pub state: Option<&'static str>,
}

/// The truth about nodes.
#[derive(Default)]
pub struct Truth {
    /// By address.
    pub boxes: BTreeMap<String, Machine>,
    /// Members of each etcd cluster that was ever begun, by address.
    pub clusters: Vec<BTreeSet<String>>,
    /// Bootstrap calls that had an effect, by address.
    pub bootstraps: Vec<String>,
    /// Addresses that boot but stay silent.
    pub silent: BTreeSet<String>,
    /// Machines whose member was in etcd when they went.
    pub lost_members: Vec<String>,
    /// The lowest margin between healthy members and quorum that was ever seen after a member went.
    pub quorum_lost: bool,
}

#[derive(Clone, Default)]
pub struct Nodes {
    pub truth: Arc<Mutex<Truth>>,
    pub faults: Faults,
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nodes")
    }
}

fn id_of(address: &str) -> MemberId {
    MemberId(address.rsplit('.').next().unwrap().parse().unwrap())
}

impl Truth {
    /// Members that run.
    fn healthy(&self, cluster: usize) -> usize {
        let runs = |one: &Machine| one.is_up && one.state.is_none();
        self.clusters[cluster].iter().filter(|address| self.boxes.get(*address).is_some_and(runs)).count()
    }

    fn has_quorum(&self, cluster: usize) -> bool {
        self.healthy(cluster) > self.clusters[cluster].len() / 2
    }

    /// Boxes without etcd join the cluster that lives.
    fn join(&mut self, address: &str) {
        let Some(cluster) = (0..self.clusters.len()).find(|cluster| !self.clusters[*cluster].is_empty() && self.has_quorum(*cluster))
        else {
            return;
        };
        if let Some(one) = self.boxes.get_mut(address)
            && one.etcd.is_none()
        {
            one.etcd = Some(cluster);
            self.clusters[cluster].insert(address.to_owned());
        }
    }

    fn take_out(&mut self, address: &str) {
        for cluster in 0..self.clusters.len() {
            if self.clusters[cluster].remove(address) && !self.clusters[cluster].is_empty() && !self.has_quorum(cluster) {
                self.quorum_lost = true;
            }
        }
        if let Some(one) = self.boxes.get_mut(address) {
            one.etcd = None;
            one.is_up = one.is_up && !self.silent.contains(address);
        }
    }
}

#[derive(Debug)]
struct NodeApi {
    nodes: Nodes,
    address: String,
}

impl NodeApi {
    /// A call that changes something, with its fault.
    async fn change<T>(&self, name: &str, effect: impl FnOnce(&mut Truth) -> Result<T, TalosError>) -> Result<T, TalosError> {
        let fault = self.nodes.faults.next(format!("{name} {}", self.address));
        let lost = || TalosError::Unreachable { address: self.address.clone(), reason: "the connection broke".into() };
        match fault {
            Some(Fault::LostBefore) => return Err(lost()),
            Some(Fault::KilledBefore) => self.nodes.faults.kill().await,
            _ => {}
        }
        let outcome = effect(&mut self.nodes.truth.lock().unwrap());
        match fault {
            Some(Fault::LostAfter) => return Err(lost()),
            Some(Fault::KilledAfter) => self.nodes.faults.kill().await,
            _ => {}
        }
        outcome
    }

    fn not_ready(&self, method: &'static str) -> TalosError {
        TalosError::NotReady { address: self.address.clone(), method, message: "etcd has no quorum".into() }
    }
}

#[async_trait]
impl TalosApi for NodeApi {
    async fn version(&self) -> Result<Version, TalosError> {
        Ok(Version { tag: "v1.4.8".into(), ..Version::default() })
    }

    async fn services(&self) -> Result<Vec<Service>, TalosError> {
        let mut truth = self.nodes.truth.lock().unwrap();
        truth.join(&self.address);
        let is_member = truth.boxes[&self.address].etcd.is_some();
        let state = truth.boxes[&self.address].state.unwrap_or(if is_member { "Running" } else { "Preparing" });
        Ok(vec![Service { id: "etcd".into(), state: state.into(), is_healthy: is_member.then_some(true), message: String::new() }])
    }

    async fn bootstrap(&self) -> Result<(), TalosError> {
        let address = self.address.clone();
        self.change("bootstrap", move |truth| {
            let number = truth.clusters.len();
            let one = truth.boxes.get_mut(&address).unwrap();
            if one.etcd.is_some() {
                let message = "etcd data directory is not empty".into();
                return Err(TalosError::AlreadyExists { address, method: "Bootstrap", message });
            }
            one.etcd = Some(number);
            truth.clusters.push(BTreeSet::from([address.clone()]));
            truth.bootstraps.push(address);
            Ok(())
        })
        .await
    }

    async fn bootstrap_recovering(&self, _: bool) -> Result<(), TalosError> {
        Err(self.not_ready("Bootstrap"))
    }

    async fn etcd_members_local(&self) -> Result<Vec<EtcdMember>, TalosError> {
        self.etcd_members().await
    }

    async fn etcd_recover(&self, _: Pieces) -> Result<(), TalosError> {
        Err(self.not_ready("EtcdRecover"))
    }

    async fn read(&self, _: &str) -> Result<ByteStream, TalosError> {
        Err(self.not_ready("Read"))
    }

    async fn etcd_snapshot(&self) -> Result<ByteStream, TalosError> {
        Err(self.not_ready("EtcdSnapshot"))
    }

    async fn etcd_members(&self) -> Result<Vec<EtcdMember>, TalosError> {
        let truth = self.nodes.truth.lock().unwrap();
        let cluster = truth.boxes[&self.address].etcd.filter(|cluster| truth.has_quorum(*cluster));
        let cluster = cluster.ok_or_else(|| self.not_ready("EtcdMemberList"))?;
        let member = |address: &String| EtcdMember {
            id: id_of(address),
            hostname: truth.boxes.get(address).map(|one| one.name.clone()).unwrap_or_default(),
            peer_urls: vec![format!("https://{address}:2380")],
            is_learner: false,
        };
        Ok(truth.clusters[cluster].iter().map(member).collect())
    }

    async fn etcd_status(&self) -> Result<EtcdStatus, TalosError> {
        Ok(EtcdStatus::default())
    }

    async fn has_etcd_data(&self) -> Result<bool, TalosError> {
        Ok(self.nodes.truth.lock().unwrap().boxes[&self.address].etcd.is_some())
    }

    async fn etcd_remove_member(&self, id: MemberId) -> Result<(), TalosError> {
        self.change("remove-member", |truth| {
            let gone: Vec<String> = truth.boxes.keys().filter(|address| id_of(address) == id).cloned().collect();
            gone.iter().for_each(|address| truth.take_out(address));
            Ok(())
        })
        .await
    }

    async fn etcd_forfeit_leadership(&self) -> Result<(), TalosError> {
        Ok(())
    }

    async fn etcd_leave(&self) -> Result<(), TalosError> {
        let address = self.address.clone();
        self.change("leave", move |truth| {
            truth.take_out(&address);
            // A node that has left does not come back by itself.
            if let Some(one) = truth.boxes.get_mut(&address) {
                one.is_up = false;
            }
            Ok(())
        })
        .await
    }

    async fn kubeconfig(&self) -> Result<String, TalosError> {
        Err(self.not_ready("Kubeconfig"))
    }
    async fn dmesg(&self, _: bool, _: bool) -> Result<ByteStream, TalosError> {
        Err(self.not_ready("Dmesg"))
    }
    async fn logs(&self, _: &LogQuery) -> Result<ByteStream, TalosError> {
        Err(self.not_ready("Logs"))
    }
    async fn reset(&self, _: &ResetOptions) -> Result<(), TalosError> {
        Err(self.not_ready("Reset"))
    }
    async fn shutdown(&self, _: bool) -> Result<(), TalosError> {
        Err(self.not_ready("Shutdown"))
    }
    async fn reboot(&self) -> Result<(), TalosError> {
        Err(self.not_ready("Reboot"))
    }
    async fn apply_configuration(&self, _: &str, _: ApplyMode, _: bool) -> Result<Vec<String>, TalosError> {
        Err(self.not_ready("ApplyConfiguration"))
    }
}

#[async_trait]
impl TalosDialer for Nodes {
    async fn connect(&self, node_address: &str, _: &ClientIdentity) -> Result<Arc<dyn TalosApi>, TalosError> {
        let truth = self.truth.lock().unwrap();
        let is_up = truth.boxes.get(node_address).is_some_and(|one| one.is_up) && !truth.silent.contains(node_address);
        if !is_up {
            return Err(TalosError::Unreachable { address: node_address.to_owned(), reason: "connection refused".into() });
        }
        Ok(Arc::new(NodeApi { nodes: self.clone(), address: node_address.to_owned() }))
    }
}

/// A workload API that is never reached.
#[derive(Debug)]
struct NoWorkload;

impl Clusters for NoWorkload {
    fn connection(&self, _: &ObjectKey) -> Connection {
        Connection::Waiting { on: "nothing here".into() }
    }
    fn nodes(&self, _: &ObjectKey) -> Vec<Arc<Node>> {
        Vec::new()
    }
    fn patch_node(&self, _: &ObjectKey, _: &str, _: Value) {}
    fn delete_node(&self, _: &ObjectKey, _: &str, _: &str) {}
    fn apply(&self, _: &ObjectKey, _: &str, _: Vec<Value>) {}
    fn applied(&self, _: &ObjectKey, _: &str) -> Option<Applied> {
        None
    }
    fn trouble(&self, _: &ObjectKey, _: &str) -> Option<String> {
        None
    }
    fn load(&self, _: &ObjectKey, _: &str) -> Option<Load> {
        None
    }
    fn look(&self, _: &ObjectKey, _: &str, _: Look) {}
    fn evict(&self, _: &ObjectKey, _: &str, _: Eviction) {}
    fn hasten(&self, _: &ObjectKey) {}
    fn subscribe(&self, _: Tap) {}
}

#[derive(Debug)]
struct NoVCenters;

#[async_trait]
impl vsphere::VCenters for NoVCenters {
    fn vcenter(&self, _: &vsphere::Credentials) -> Arc<dyn vsphere::VCenter> {
        panic!("no vCenter here")
    }
    fn subscribe(&self, _: vsphere::Listener) {}
    async fn close(&self) {}
}

/// The definitions, prepared once for all tests.
fn crds() -> CrdSet {
    static SET: std::sync::OnceLock<CrdSet> = std::sync::OnceLock::new();
    SET.get_or_init(|| CrdSet::from(api::crds())).clone()
}

pub const NAMESPACE: &str = "test";
pub const CLUSTER: &str = "demo";

type Mirror = Arc<Mutex<BTreeMap<(String, String, String), Value>>>;

/// The whole laboratory.
pub struct Lab {
    pub server: ApiServer,
    pub nodes: Nodes,
    pub faults: Faults,
    /// Every bundle that was ever stored.
    pub bundles: Arc<Mutex<BTreeSet<String>>>,
    /// Writes so far.
    writes: Arc<AtomicU64>,
    /// Every object as it was acknowledged last, by resource, namespace and name: cheaper to look at than the server.
    mirror: Mirror,
    clock: Clock,
    random: Random,
    defects: Defects,
    lives: u64,
    next_address: u64,
    /// The cluster's endpoint; a shared address, unless a machine has it.
    pub endpoint: &'static str,
}

impl Lab {
    pub async fn new(seed: u64, defects: Defects) -> Self {
        let random = Random::seeded(seed);
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let server = ApiServer::open(Options {
            crds: crds(),
            admission: Arc::new(api::Webhooks),
            conversion: Arc::new(api::Webhooks),
            ..Options::new(clock.clone(), random.child("server"), Box::new(MemoryJournal::default()))
        })
        .await
        .unwrap();
        let bundles: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let seen = Arc::clone(&bundles);
        let writes: Arc<AtomicU64> = Arc::default();
        let counted = Arc::clone(&writes);
        let mirror: Mirror = Arc::default();
        let mirrored = Arc::clone(&mirror);
        server.on_acknowledged(move |write| {
            counted.fetch_add(1, Ordering::Relaxed);
            if write.resource == "events" {
                return;
            }
            let key = (write.resource.clone(), write.namespace.clone(), write.name.clone());
            match &write.object {
                Some(bytes) => mirrored.lock().unwrap().insert(key, serde_json::from_slice(bytes).unwrap()),
                None => mirrored.lock().unwrap().remove(&key),
            };
            if write.resource == "secrets" && write.name == format!("{CLUSTER}-talos") {
                let object: Value = serde_json::from_slice(write.object.as_deref().unwrap_or(b"null")).unwrap();
                seen.lock().unwrap().insert(object.pointer("/data/bundle").and_then(Value::as_str).unwrap_or("deleted").to_owned());
            }
        });
        let faults = Faults::default();
        let nodes = Nodes { faults: faults.clone(), ..Nodes::default() };
        Self { server, nodes, faults, bundles, writes, mirror, clock, random, defects, lives: 0, next_address: 10, endpoint: "10.0.0.5" }
    }

    /// Starts the controllers; they end with the token.
    pub fn start(&mut self) -> CancellationToken {
        self.lives += 1;
        let token = CancellationToken::new();
        self.faults.state().life = Some(token.clone());
        let random = self.random.child(&format!("life {}", self.lives));
        let service = Faulty { service: self.server.service(&User::admin("controllers")), faults: self.faults.clone() };
        let client = kube::Client::new(service, NAMESPACE);
        let context = Context {
            stores: Stores::new(client.clone(), self.clock.clone(), &random, token.clone()),
            client,
            clock: self.clock.clone(),
            log: Log::passing(self.clock.clone()),
            defects: self.defects.clone(),
            keys: Arc::new(Prepared::new(random.child("keys"))),
            vcenters: Arc::new(NoVCenters),
            talos: Arc::new(self.nodes.clone()),
            workload: Arc::new(NoWorkload),
            workload_proxy: None,
            installation_id: "lab".into(),
            random,
        };
        let selection = Selection::parse("cluster,machine,talosconfig,taloscontrolplane").unwrap();
        tokio::spawn(controllers::run(context, selection, token.clone()));
        token
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>, content_type: &str) -> Value {
        use http_body_util::BodyExt as _;
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = http::Request::builder().method(method).uri(path).header("content-type", content_type);
        let request = request.body(kube::client::Body::from(body.into_bytes())).unwrap();
        let mut service = self.server.service(&User::admin("user"));
        let answer = tower::Service::call(&mut service, request).await.unwrap();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    pub async fn create(&self, path: &str, object: Value) {
        let answer = self.call("POST", path, Some(object), "application/json").await;
        assert_ne!(answer["kind"], "Status", "{path}: {answer}");
    }

    pub async fn merge(&self, path: &str, patch: Value) {
        let answer = self.call("PATCH", path, Some(patch), "application/merge-patch+json").await;
        assert_ne!(answer["kind"], "Status", "{path}: {answer}");
    }

    pub async fn delete(&self, path: &str) {
        self.call("DELETE", path, None, "application/json").await;
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call("GET", path, None, "application/json").await
    }

    /// The stored objects of a kind.
    pub fn objects(&self, kind: &str) -> Vec<Value> {
        self.mirror.lock().unwrap().values().filter(|object| object["kind"] == kind).cloned().collect()
    }

    pub async fn apply_manifests(&self, replicas: i64) {
        let at = |group: &str, version: &str, plural: &str| format!("/apis/{group}/{version}/namespaces/{NAMESPACE}/{plural}");
        let meta = |name: &str| json!({ "name": name, "namespace": NAMESPACE });
        self.create("/api/v1/namespaces", json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } })).await;
        let infrastructure = "infrastructure.cluster.x-k8s.io";
        self.create(
            &at("cluster.x-k8s.io", "v1beta1", "clusters"),
            json!({ "apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Cluster", "metadata": meta(CLUSTER), "spec": {
                "clusterNetwork": { "pods": { "cidrBlocks": ["10.240.0.0/16"] } },
                "infrastructureRef": { "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "VSphereCluster", "name": CLUSTER },
                "controlPlaneRef": { "apiVersion": "controlplane.cluster.x-k8s.io/v1alpha3", "kind": "TalosControlPlane", "name": "cp" },
            } }),
        )
        .await;
        self.create(
            &at(infrastructure, "v1beta1", "vsphereclusters"),
            json!({ "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "VSphereCluster", "metadata": meta(CLUSTER), "spec": {
                "server": "vc", "controlPlaneEndpoint": { "host": self.endpoint, "port": 6443 },
            } }),
        )
        .await;
        self.create(
            &at(infrastructure, "v1beta1", "vspheremachinetemplates"),
            json!({ "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "VSphereMachineTemplate", "metadata": meta("tmpl"), "spec": {
                "template": { "spec": { "template": "t", "numCPUs": 2, "memoryMiB": 4096, "network": { "devices": [{ "networkName": "n", "dhcp4": true }] } } },
            } }),
        )
        .await;
        self.create(
            &at("controlplane.cluster.x-k8s.io", "v1alpha3", "taloscontrolplanes"),
            json!({ "apiVersion": "controlplane.cluster.x-k8s.io/v1alpha3", "kind": "TalosControlPlane", "metadata": meta("cp"), "spec": {
                "replicas": replicas, "version": "v1.25.5",
                "infrastructureTemplate": { "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "VSphereMachineTemplate", "name": "tmpl" },
                "controlPlaneConfig": { "controlplane": { "generateType": "controlplane", "talosVersion": "v1.4" } },
            } }),
        )
        .await;
    }

    /// Plays infrastructure once: what exists becomes ready, what is asked for boots, what is gone is off.
    pub async fn play(&mut self) {
        let path =
            |plural: &str, name: &str| format!("/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/{plural}/{name}");
        for cluster in self.objects("VSphereCluster") {
            if cluster.pointer("/status/initialization/provisioned") != Some(&json!(true)) {
                let name = cluster["metadata"]["name"].as_str().unwrap();
                let status = json!({ "status": { "initialization": { "provisioned": true } } });
                self.merge(&format!("{}/status", path("vsphereclusters", name)), status).await;
            }
        }
        let secrets: BTreeSet<String> =
            self.objects("Secret").iter().map(|secret| secret["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        let mut alive = BTreeSet::new();
        for machine in self.objects("VSphereMachine") {
            let name = machine["metadata"]["name"].as_str().unwrap().to_owned();
            let owner = machine.pointer("/metadata/ownerReferences/0/name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let known =
                self.nodes.truth.lock().unwrap().boxes.iter().find(|(_, one)| one.name == owner).map(|(address, _)| address.clone());
            if let Some(address) = known {
                alive.insert(address);
                continue;
            }
            if !secrets.contains(&format!("{owner}-bootstrap-data")) {
                continue;
            }
            let address = format!("10.0.0.{}", self.next_address);
            self.next_address += 1;
            let addresses = json!([{ "type": "ExternalIP", "address": address }, { "type": "ExternalIP", "address": self.endpoint }]);
            self.merge(&path("vspheremachines", &name), json!({ "spec": { "providerID": format!("vsphere://{name}") } })).await;
            let status = json!({ "status": { "initialization": { "provisioned": true }, "addresses": addresses } });
            self.merge(&format!("{}/status", path("vspheremachines", &name)), status).await;
            let booted = Machine { name: owner, is_up: true, ..Machine::default() };
            self.nodes.truth.lock().unwrap().boxes.insert(address.clone(), booted);
            alive.insert(address);
        }
        let mut truth = self.nodes.truth.lock().unwrap();
        let gone: Vec<String> = truth.boxes.keys().filter(|address| !alive.contains(*address)).cloned().collect();
        for address in gone {
            let one = truth.boxes.remove(&address).unwrap();
            if let Some(cluster) = one.etcd
                && truth.clusters[cluster].contains(&address)
            {
                truth.lost_members.push(one.name);
                if !truth.has_quorum(cluster) {
                    truth.quorum_lost = true;
                }
            }
        }
    }

    /// Lets time pass, and restarts controllers that were killed, until `is_done` or for `seconds` at most. Whether it was done.
    pub async fn run(&mut self, seconds: u64, mut is_done: impl FnMut(&Self) -> bool) -> bool {
        let mut seen = None;
        for _ in 0..seconds * 4 {
            // Looking is what costs; only what changed is looked at.
            let state = (self.writes.load(Ordering::Relaxed), self.faults.calls(), self.members());
            if seen != Some(state) {
                seen = Some(state);
                self.play().await;
                if is_done(self) {
                    return true;
                }
            }
            tokio::time::advance(Duration::from_millis(250)).await;
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            let was_killed = self.faults.state().life.is_none();
            if was_killed {
                tokio::time::advance(Duration::from_secs(11)).await;
                self.start();
            }
        }
        is_done(self)
    }

    /// Members of the only etcd, when there is one.
    pub fn members(&self) -> usize {
        let truth = self.nodes.truth.lock().unwrap();
        truth.clusters.iter().map(BTreeSet::len).sum()
    }

    pub fn condition(&self, type_: &str) -> Value {
        let control_plane = self.objects("TalosControlPlane").into_iter().next().unwrap_or_default();
        let all = control_plane.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        all.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
    }
}
