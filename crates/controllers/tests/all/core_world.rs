//! One API server, stand-ins for providers, the core controllers, and a wire between them that can be cut at any write.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use apiserver::{ApiServer, Builtins, MemoryJournal, Options, User};
use controllers::{Context, Running, Selection};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request};
use jiff::Timestamp;
use kube::client::Body;
use runtime::clock::Clock;
use runtime::defects::Defects;
use runtime::keys::Prepared;
use runtime::log::Log;
use runtime::net::MemoryNetwork;
use runtime::random::Random;
use runtime::reconcile::{ObjectKey, Stores};
use runtime::tls::Tls;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::core_providers as providers;
use super::core_workload::Memory;

pub const NAMESPACE: &str = "vmware-test";
pub const CLUSTER: &str = "vmware-test";
/// The core controllers; the providers' are played by stand-ins.
pub const CORE: &str = "cluster,machine,machineset,machinedeployment,machinehealthcheck,clusterresourceset";

/// Where the wire is cut: at the nth write, before or after its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub at: usize,
    pub is_after: bool,
}

/// The first creation of this kind gets no answer, and has its effect only so much later.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    pub plural: &'static str,
    pub by: Duration,
}

#[derive(Clone)]
struct Wire<S> {
    inner: S,
    writes: Arc<AtomicUsize>,
    cut: Option<Cut>,
    lag: Arc<Mutex<Option<Lag>>>,
    clock: Clock,
    reached: Arc<Notify>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl<S, B> Service<Request<Body>> for Wire<S>
where
    S: Service<Request<Body>, Response = http::Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = http::Response<B>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut inner = self.inner.clone();
        let is_event = request.uri().path().ends_with("/events") || request.uri().path().contains("/events/");
        if request.method() == Method::GET || is_event {
            return inner.call(request).map(|answer| answer.map_err(|never| match never {})).boxed();
        }
        let is_lagging = |lag: &mut Lag| request.method() == Method::POST && request.uri().path().ends_with(&format!("/{}", lag.plural));
        let lag = self.lag.lock().unwrap().take_if(is_lagging);
        if let Some(lag) = lag {
            let clock = self.clock.clone();
            tokio::spawn(async move {
                clock.sleep(lag.by).await;
                let _ = inner.call(request).await;
            });
            return async { Err(std::io::Error::other("the connection broke")) }.boxed();
        }
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        self.seen.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
        let reached = Arc::clone(&self.reached);
        match self.cut {
            Some(cut) if number >= cut.at => async move {
                if number == cut.at && cut.is_after {
                    let _ = inner.call(request).await;
                }
                // The process is dead from here on: nothing it sends arrives, and no answer reaches it.
                reached.notify_one();
                std::future::pending().await
            }
            .boxed(),
            _ => inner.call(request).map(|answer| answer.map_err(|never| match never {})).boxed(),
        }
    }
}

pub struct World {
    pub server: ApiServer,
    pub client: kube::Client,
    pub workload: Memory,
    pub clock: Clock,
    pub log: Log,
    random: Random,
    token: CancellationToken,
    kept: Mutex<Vec<Process>>,
}

/// One process of the controllers.
pub struct Process {
    token: CancellationToken,
    pub running: Running,
    pub reached: Arc<Notify>,
    pub writes: Arc<AtomicUsize>,
    pub seen: Arc<Mutex<Vec<String>>>,
}

impl World {
    pub async fn new(seed: u64) -> Self {
        let clock = Clock::starting_at("2026-03-01T08:00:00Z".parse().unwrap());
        let random = Random::seeded(seed);
        let mut options = Options::new(clock.clone(), random.child("server"), Box::new(MemoryJournal::new()));
        options.crds = CRDS.clone();
        options.admission = Arc::new(api::Webhooks);
        options.conversion = Arc::new(api::Webhooks);
        options.builtins = Builtins::Management;
        let server = ApiServer::open(options).await.unwrap();
        let client = server.client(&User::admin("test"));
        let (workload, token) = (Memory::default(), CancellationToken::new());
        providers::start(server.client(&User::admin("providers")), &workload, &clock, &random.child("providers"), &token);
        let log = Log::keeping(clock.clone());
        let world = Self { server, client, workload, clock, log, random, token, kept: Mutex::default() };
        world.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})).await;
        world
    }

    /// Starts a process of the controllers, whose wire is cut at `cut`.
    pub fn start(&self, cut: Option<Cut>) -> Process {
        self.start_on(cut, None)
    }

    /// Starts a process that lives as long as the world and whose wire lags once.
    pub fn run_with(&self, lag: Lag) {
        let process = self.start_on(None, Some(lag));
        self.kept.lock().unwrap().push(process);
    }

    fn start_on(&self, cut: Option<Cut>, lag: Option<Lag>) -> Process {
        let token = self.token.child_token();
        let wire = Wire {
            inner: self.server.service(&User::admin("controllers")),
            writes: Arc::default(),
            cut,
            lag: Arc::new(Mutex::new(lag)),
            clock: self.clock.clone(),
            reached: Arc::default(),
            seen: Arc::default(),
        };
        let (reached, writes, seen) = (Arc::clone(&wire.reached), Arc::clone(&wire.writes), Arc::clone(&wire.seen));
        let client = kube::Client::new(wire, "default");
        let random = self.random.child("controllers");
        let network: Arc<MemoryNetwork> = Arc::default();
        let transport = vsphere::Transport {
            dialer: Arc::clone(&network) as Arc<dyn runtime::net::Dialer>,
            tls: Tls::clear(self.clock.clone()),
            user_agent: "test".to_owned(),
        };
        let verification = vsphere::Verification { authorities: Vec::new(), is_insecure: false };
        let context = Context {
            stores: Stores::new(client.clone(), self.clock.clone(), &random, token.clone()),
            client,
            clock: self.clock.clone(),
            log: self.log.clone(),
            defects: Defects::none(),
            keys: Arc::new(Prepared::new(random.child("keys"))),
            vcenters: Arc::new(vsphere::Registry::new(transport, verification, &self.clock, &random)),
            talos: Arc::new(talos::client::grpc::GrpcDialer::new(network, Tls::clear(self.clock.clone()))),
            workload: Arc::new(self.workload.clone()),
            workload_proxy: None,
            installation_id: "test".to_owned(),
            random,
        };
        let running = controllers::start(&context, &Selection::parse(CORE).unwrap(), &token);
        Process { token, running, reached, writes, seen }
    }

    /// Starts a process that lives as long as the world.
    pub fn run(&self) {
        let process = self.start(None);
        self.kept.lock().unwrap().push(process);
    }

    /// The process dies: nothing of it goes on.
    pub fn kill(&self, process: Process) {
        process.token.cancel();
        drop(process.running);
        self.workload.forget_taps();
    }

    pub async fn pass(&self, seconds: u64) {
        self.clock.sleep(Duration::from_secs(seconds)).await;
    }

    pub fn key() -> ObjectKey {
        ObjectKey::namespaced(NAMESPACE, CLUSTER)
    }

    fn path(object: &Value) -> String {
        let api_version = object["apiVersion"].as_str().unwrap();
        let root = if api_version.contains('/') { "apis" } else { "api" };
        let kind = object["kind"].as_str().unwrap().to_lowercase();
        let namespace = object["metadata"]["namespace"].as_str().map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
        format!("/{root}/{api_version}/{namespace}{kind}s")
    }

    pub async fn create(&self, object: &Value) {
        let request = Request::post(Self::path(object)).header("content-type", "application/json").body(object.to_string().into_bytes());
        self.client.request_text(request.unwrap()).await.unwrap_or_else(|error| panic!("{error}: {object}"));
    }

    pub async fn delete(&self, object: &Value) {
        let path = format!("{}/{}", Self::path(object), object["metadata"]["name"].as_str().unwrap());
        match self.client.request_text(Request::delete(path).body(Vec::new()).unwrap()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("{error}: {object}"),
        }
    }

    pub async fn merge(&self, object: &Value, patch: &Value) {
        let path = format!("{}/{}", Self::path(object), object["metadata"]["name"].as_str().unwrap());
        let request = Request::patch(path).header("content-type", "application/merge-patch+json").body(patch.to_string().into_bytes());
        self.client.request_text(request.unwrap()).await.unwrap_or_else(|error| panic!("{error}: {object}"));
    }

    /// Live objects of a kind, as stored.
    pub fn all(&self, group: &str, plural: &str) -> Vec<Value> {
        self.server.snapshot_of(group, plural)
    }

    pub fn machines(&self) -> Vec<Value> {
        self.all("cluster.x-k8s.io", "machines")
    }

    pub fn phases(&self) -> BTreeMap<String, usize> {
        let mut phases = BTreeMap::new();
        for machine in self.machines() {
            *phases.entry(machine["status"]["phase"].as_str().unwrap_or("none").to_owned()).or_default() += 1;
        }
        phases
    }

    /// Kinds and names of everything that is left of the cluster, but the stand-ins' and the user's own.
    pub fn left(&self) -> Vec<String> {
        let groups = [
            "cluster.x-k8s.io",
            "infrastructure.cluster.x-k8s.io",
            "bootstrap.cluster.x-k8s.io",
            "controlplane.cluster.x-k8s.io",
            "addons.cluster.x-k8s.io",
        ];
        let left = self.server.snapshot().into_iter().filter(|object| {
            let group = object["apiVersion"].as_str().unwrap().split('/').next().unwrap().to_owned();
            groups.contains(&group.as_str())
        });
        left.map(|object| format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())).collect()
    }

    pub fn told(&self) -> String {
        self.log.entries().iter().map(|entry| format!("{entry}\n")).collect()
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Read once for all worlds.
static CRDS: LazyLock<apiserver::CrdSet> = LazyLock::new(|| api::crds().into());

/// The condition of a type, in an object's JSON.
pub fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let list = object["status"]["conditions"].as_array().unwrap_or_else(|| panic!("no conditions: {object}"));
    list.iter().find(|condition| condition["type"] == type_).unwrap_or_else(|| panic!("no condition {type_}: {object}"))
}

/// The v1beta1 condition of a type, in an object's JSON.
pub fn legacy<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let list = object["status"]["deprecated"]["v1beta1"]["conditions"].as_array().unwrap_or_else(|| panic!("no conditions: {object}"));
    list.iter().find(|condition| condition["type"] == type_).unwrap_or_else(|| panic!("no condition {type_}: {object}"))
}

/// A cluster as users write it: templates, control plane, workers.
pub fn manifests(control_planes: u32, workers: u32) -> Vec<Value> {
    let meta = |name: &str| json!({"name": name, "namespace": NAMESPACE});
    let spec = json!({"template": "talos", "network": {"devices": [{"networkName": "VM Network"}]}, "numCPUs": 2});
    vec![
        json!({"apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Cluster", "metadata": meta(CLUSTER), "spec": {
            "clusterNetwork": {"pods": {"cidrBlocks": ["10.240.0.0/16"]}, "services": {"cidrBlocks": ["10.96.128.0/12"]}},
            "controlPlaneRef": {"apiVersion": "controlplane.cluster.x-k8s.io/v1alpha3", "kind": "TalosControlPlane", "name": "vmware-test-controlplane"},
            "infrastructureRef": {"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "VSphereCluster", "name": CLUSTER}}}),
        json!({"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "VSphereCluster", "metadata": meta(CLUSTER), "spec": {
            "server": "vc", "controlPlaneEndpoint": {"host": "api.example", "port": 6443}}}),
        json!({"apiVersion": "controlplane.cluster.x-k8s.io/v1alpha3", "kind": "TalosControlPlane", "metadata": meta("vmware-test-controlplane"), "spec": {
            "version": "v1.25.5", "replicas": control_planes, "controlPlaneConfig": {"controlplane": {"generateType": "controlplane"}},
            "infrastructureTemplate": {"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "VSphereMachineTemplate", "name": "workers-tmpl"}}}),
        json!({"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "VSphereMachineTemplate", "metadata": meta("workers-tmpl"), "spec": {"template": {"spec": spec}}}),
        json!({"apiVersion": "bootstrap.cluster.x-k8s.io/v1alpha3", "kind": "TalosConfigTemplate", "metadata": meta("vmware-test-workers"), "spec": {
            "template": {"spec": {"generateType": "join", "talosVersion": "v1.4"}}}}),
        json!({"apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "MachineDeployment",
            "metadata": {"name": "vmware-test-workers", "namespace": NAMESPACE, "labels": {"cluster.x-k8s.io/cluster-name": CLUSTER, "nodepool": "nodepool-a"}},
            "spec": {"clusterName": CLUSTER, "replicas": workers,
                "selector": {"matchLabels": {"cluster.x-k8s.io/cluster-name": CLUSTER, "nodepool": "nodepool-a"}},
                "template": {"metadata": {"labels": {"cluster.x-k8s.io/cluster-name": CLUSTER, "nodepool": "nodepool-a"}},
                    "spec": {"clusterName": CLUSTER, "version": "1.25.5",
                        "bootstrap": {"configRef": {"apiVersion": "bootstrap.cluster.x-k8s.io/v1alpha3", "kind": "TalosConfigTemplate", "name": "vmware-test-workers"}},
                        "infrastructureRef": {"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "VSphereMachineTemplate", "name": "workers-tmpl"}}}}}),
        json!({"apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "MachineHealthCheck", "metadata": meta("vmware-test-workers"), "spec": {
            "clusterName": CLUSTER, "maxUnhealthy": "40%", "nodeStartupTimeout": "20m", "selector": {"matchLabels": {"nodepool": "nodepool-a"}},
            "unhealthyConditions": [{"type": "Ready", "status": "False", "timeout": "300s"}, {"type": "Ready", "status": "Unknown", "timeout": "300s"}]}}),
    ]
}
