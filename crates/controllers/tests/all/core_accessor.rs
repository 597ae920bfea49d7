//! The way to a workload cluster, against a real API server behind a network in memory.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::{ApiServer, Builtins, MemoryJournal, Options, User};
use controllers::workload::{Accessor, Applied, Clusters, Connection, Eviction, Look, Parts};
use jiff::{SignedDuration, Timestamp};
use runtime::clock::Clock;
use runtime::keys::{KeyAlgorithm, KeySource, Prepared};
use runtime::log::Log;
use runtime::net::MemoryNetwork;
use runtime::random::Random;
use runtime::reconcile::{ObjectKey, Stores};
use runtime::tls::{ClientAuth, Identity, ServerTls, Tls, client_authorities};
use runtime::x509::{Authority, Leaf, Usages};
use serde_json::{Value, json};
use talos::kubeconfig::{KubeconfigInput, generate};
use talos::secrets::PemPair;
use tokio_util::sync::CancellationToken;

use super::core_world::{CLUSTER, NAMESPACE, World, manifests};

struct Lab {
    world: World,
    accessor: Accessor,
    network: MemoryNetwork,
    nodes: ApiServer,
    authority: Authority,
    keys: Prepared,
    random: Random,
    changes: Arc<Mutex<usize>>,
}

fn secret_path() -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("{CLUSTER}-kubeconfig"), "namespace": NAMESPACE}})
}

impl Lab {
    async fn new() -> Self {
        let world = World::new(1).await;
        let (clock, random) = (world.clock.clone(), Random::seeded(9));
        let keys = Prepared::new(random.child("keys"));
        let authority = new_authority(&keys, &random, &clock).await;
        let mut options = Options::new(clock.clone(), random.child("workload"), Box::new(MemoryJournal::new()));
        options.builtins = Builtins::Workload;
        let nodes = ApiServer::open(options).await.unwrap();
        let token = CancellationToken::new();
        let client = world.server.client(&User::admin("controllers"));
        let stores = Stores::new(client, clock.clone(), &random, token.clone());
        let network = MemoryNetwork::default();
        let parts = Parts {
            stores,
            random: random.clone(),
            log: Log::passing(clock.clone()),
            tls: Tls::clear(clock),
            dialer: Arc::new(network.clone()),
            token,
        };
        let accessor = Accessor::new(parts);
        let changes: Arc<Mutex<usize>> = Arc::default();
        let counted = Arc::clone(&changes);
        accessor.subscribe(Arc::new(move |_| *counted.lock().unwrap() += 1));
        let lab = Self { world, accessor, network, nodes, authority, keys, random, changes };
        lab.world.create(&manifests(1, 1)[0]).await;
        lab.world.merge(&manifests(1, 1)[0], &json!({"spec": {"controlPlaneEndpoint": {"host": "api.example", "port": 6443}}})).await;
        lab.pass(1).await;
        // The first question begins to connect.
        lab.connection();
        lab
    }

    async fn pass(&self, seconds: u64) {
        self.world.pass(seconds).await;
    }

    fn connection(&self) -> Connection {
        self.accessor.connection(&World::key())
    }

    /// A server that listens on an address until the token is cancelled.
    async fn listen(&self, address: &str) -> CancellationToken {
        let key = self.keys.generate(KeyAlgorithm::EcdsaP256).await.unwrap();
        let now = self.world.clock.now();
        let leaf = Leaf {
            organizations: Vec::new(),
            common_name: Some("kube-apiserver".to_owned()),
            dns_names: vec!["api.example".to_owned()],
            ip_addresses: Vec::new(),
            usages: Usages::SERVER,
            not_before: now,
            not_after: now.checked_add(SignedDuration::from_hours(100)).unwrap(),
        };
        let certificate = self.authority.issue(&leaf, &key, &self.random).unwrap();
        let tls = ServerTls {
            identity: Identity { chain: vec![certificate], key: key.as_rustls() },
            clients: ClientAuth::Required(client_authorities(std::slice::from_ref(&self.authority.certificate_der)).unwrap()),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        let (listener, token) = (self.network.listen(address, 6443), CancellationToken::new());
        let (server, ended, clear) = (self.nodes.clone(), token.clone(), Tls::clear(self.world.clock.clone()));
        tokio::spawn(async move { server.serve(Box::new(listener), clear, tls, ended).await });
        token
    }

    async fn kubeconfig(&self, authority: &Authority) -> Value {
        let pair = PemPair { certificate: authority.certificate_pem.clone(), key: authority.key.to_pem() };
        let input = KubeconfigInput { cluster_name: CLUSTER, server: "https://api.example:6443", proxy_url: None };
        let text = generate(&input, &pair, &self.keys, &self.random, &self.world.clock).await.unwrap();
        json!({"stringData": {"value": text}})
    }

    async fn store_kubeconfig(&self, authority: &Authority) {
        let mut secret = secret_path();
        json_patch::merge(&mut secret, &self.kubeconfig(authority).await);
        self.world.create(&secret).await;
    }

    async fn machine(&self, name: &str, address: &str) {
        let labels = json!({"cluster.x-k8s.io/cluster-name": CLUSTER, "cluster.x-k8s.io/control-plane": ""});
        let machine = json!({"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine", "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
            "spec": {"clusterName": CLUSTER, "bootstrap": {"dataSecretName": "d"}, "infrastructureRef": {"apiGroup": "i.x", "kind": "K", "name": name}}});
        self.world.create(&machine).await;
        let path = format!("/apis/cluster.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/machines/{name}/status");
        let body = json!({"status": {"addresses": [{"type": "ExternalIP", "address": address}]}}).to_string().into_bytes();
        let request = http::Request::patch(path).header("content-type", "application/merge-patch+json").body(body).unwrap();
        self.world.client.request_text(request).await.unwrap();
    }

    async fn node(&self, name: &str) {
        let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}).to_string().into_bytes();
        let request = http::Request::post("/api/v1/nodes").header("content-type", "application/json").body(body).unwrap();
        self.nodes.client(&User::admin("kubelet")).request_text(request).await.unwrap();
    }

    fn names(&self) -> Vec<String> {
        self.accessor.nodes(&World::key()).iter().map(|node| node.metadata.name.clone().unwrap()).collect()
    }
}

async fn new_authority(keys: &Prepared, random: &Random, clock: &Clock) -> Authority {
    let key = keys.generate(KeyAlgorithm::EcdsaP256).await.unwrap();
    let end: Timestamp = clock.now().checked_add(SignedDuration::from_hours(1000)).unwrap();
    Authority::self_signed(&["kubernetes"], None, key, clock.now(), end, random).unwrap()
}

fn because(connection: &Connection) -> &str {
    match connection {
        Connection::Disconnected { because, .. } => because,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn it_says_what_it_waits_for_and_connects_when_that_is_there() {
    let lab = Lab::new().await;
    assert_eq!(lab.connection(), Connection::Waiting { on: format!("Secret {CLUSTER}-kubeconfig") });
    lab.store_kubeconfig(&lab.authority).await;
    lab.pass(1).await;
    assert_eq!(lab.connection(), Connection::Waiting { on: "the address of a control-plane Machine".to_owned() });
    lab.machine("cp-0", "10.0.0.1").await;
    lab.pass(2).await;
    assert!(because(&lab.connection()).contains("10.0.0.1:6443") && because(&lab.connection()).contains("refused"), "{}", lab.connection());
    lab.node("cp-0").await;
    let _server = lab.listen("10.0.0.1").await;
    lab.pass(6).await;
    // The endpoint's name resolves nowhere; the certificate is checked against it all the same.
    assert!(lab.connection().is_connected(), "{}", lab.connection());
    assert_eq!(lab.names(), ["cp-0"]);
    let before = *lab.changes.lock().unwrap();
    lab.node("cp-1").await;
    lab.pass(1).await;
    assert_eq!((lab.names().len(), *lab.changes.lock().unwrap() > before), (2, true));
    let unknown = ObjectKey::namespaced(NAMESPACE, "other");
    assert_eq!(lab.accessor.connection(&unknown), Connection::Waiting { on: "Cluster other".to_owned() });
    assert_eq!(lab.accessor.nodes(&unknown).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_dead_is_passed_over() {
    let lab = Lab::new().await;
    lab.store_kubeconfig(&lab.authority).await;
    lab.machine("cp-0", "10.0.0.1").await;
    lab.machine("cp-1", "10.0.0.2").await;
    let _server = lab.listen("10.0.0.2").await;
    lab.pass(6).await;
    assert!(lab.connection().is_connected(), "{}", lab.connection());
}

#[tokio::test(start_paused = true)]
async fn a_lost_server_leaves_its_nodes_to_be_seen_and_is_found_again() {
    let lab = Lab::new().await;
    lab.store_kubeconfig(&lab.authority).await;
    lab.machine("cp-0", "10.0.0.1").await;
    lab.node("cp-0").await;
    let server = lab.listen("10.0.0.1").await;
    lab.pass(6).await;
    assert!(lab.connection().is_connected());
    server.cancel();
    lab.pass(60).await;
    let lost = lab.connection();
    assert!(because(&lost).contains("refused"), "{lost}");
    assert_eq!(lab.names(), ["cp-0"], "as last seen");
    lab.accessor.delete_node(&World::key(), "cp-0", "x");
    lab.pass(600).await;
    assert_eq!(lab.connection(), lost, "since when, and why, are told the same until something changes");
    let _server = lab.listen("10.0.0.1").await;
    lab.accessor.hasten(&World::key());
    lab.world.clock.sleep(Duration::from_millis(10)).await;
    assert!(lab.connection().is_connected(), "{}", lab.connection());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_prove_itself_is_not_believed() {
    let lab = Lab::new().await;
    let other = new_authority(&lab.keys, &lab.random.child("other"), &lab.world.clock).await;
    lab.store_kubeconfig(&other).await;
    lab.machine("cp-0", "10.0.0.1").await;
    let _server = lab.listen("10.0.0.1").await;
    lab.pass(6).await;
    assert!(because(&lab.connection()).contains("certificate"), "{}", lab.connection());
    // A renewed kubeconfig is taken up.
    lab.world.merge(&secret_path(), &lab.kubeconfig(&lab.authority).await).await;
    lab.pass(6).await;
    assert!(lab.connection().is_connected(), "{}", lab.connection());
    // One that is broken is told without its content.
    lab.world.merge(&secret_path(), &json!({"stringData": {"value": "secret: ["}})).await;
    lab.pass(6).await;
    assert_eq!(because(&lab.connection()), "the kubeconfig is not valid YAML");
}

#[tokio::test(start_paused = true)]
async fn work_is_done_in_order_and_trouble_is_told() {
    let lab = Lab::new().await;
    let key = World::key();
    lab.accessor.apply(&key, "w", vec![]);
    assert_eq!(lab.accessor.applied(&key, "w"), None, "nothing is taken before there is a connection");
    lab.store_kubeconfig(&lab.authority).await;
    lab.machine("cp-0", "10.0.0.1").await;
    lab.node("cp-0").await;
    let _server = lab.listen("10.0.0.1").await;
    lab.pass(6).await;
    for _ in 0..3 {
        lab.accessor.patch_node(&key, "cp-0", json!({"metadata": {"labels": {"a": "b"}}}));
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "late"}, "data": {}});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "late"}});
    lab.accessor.apply(&key, "w", vec![secret.clone(), namespace]);
    assert_eq!(lab.accessor.applied(&key, "w"), Some(Applied::Pending));
    lab.pass(1).await;
    assert_eq!(lab.accessor.applied(&key, "w"), Some(Applied::Done), "what others live in comes first");
    assert_eq!(lab.accessor.nodes(&key)[0].metadata.labels.as_ref().unwrap()["a"], "b");
    lab.accessor.apply(&key, "w", vec![secret]);
    lab.pass(1).await;
    assert_eq!(lab.accessor.applied(&key, "w"), Some(Applied::Done), "what is there is as good");
    let homeless =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "nowhere"}, "data": {"password": "c2VjcmV0"}});
    lab.accessor.apply(&key, "x", vec![homeless]);
    lab.pass(1).await;
    let Some(Applied::Failed(error)) = lab.accessor.applied(&key, "x") else { panic!("{:?}", lab.accessor.applied(&key, "x")) };
    assert!(error.starts_with("Secret s: ") && error.contains("nowhere") && !error.contains("c2VjcmV0"), "{error}");
    assert_eq!(lab.accessor.trouble(&key, "cp-0"), None, "what fails elsewhere says nothing about a Node");
    let uid = lab.accessor.nodes(&key)[0].metadata.uid.clone().unwrap();
    lab.accessor.delete_node(&key, "cp-0", "another");
    lab.pass(1).await;
    assert_eq!(lab.names(), ["cp-0"], "only the Node that was meant");
    lab.accessor.patch_node(&key, "cp-0", json!({"metadata": {"name": "other"}}));
    lab.pass(1).await;
    assert!(lab.accessor.trouble(&key, "cp-0").unwrap().starts_with("patch-node Node cp-0: "));
    lab.accessor.delete_node(&key, "cp-0", &uid);
    lab.pass(1).await;
    assert_eq!((lab.names().len(), lab.accessor.trouble(&key, "cp-0")), (0, None));
}

#[tokio::test(start_paused = true)]
async fn work_about_a_node_waits_for_no_manifests_and_an_eviction_tells_its_refusal() {
    let lab = Lab::new().await;
    lab.machine("cp-1", "10.0.0.1").await;
    lab.store_kubeconfig(&lab.authority).await;
    let _server = lab.listen("10.0.0.1").await;
    lab.node("a").await;
    lab.pass(2).await;
    assert!(lab.connection().is_connected());
    let client = lab.nodes.client(&User::admin("user"));
    let post = async |path: &str, object: Value| {
        let request = http::Request::post(path).header("content-type", "application/json").body(object.to_string().into_bytes()).unwrap();
        client.request::<Value>(request).await.unwrap()
    };
    let pod = json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {"nodeName": "a", "containers": []}});
    let made = post("/api/v1/namespaces/default/pods", pod).await;
    let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}).to_string().into_bytes();
    let request = http::Request::patch("/api/v1/namespaces/default/pods/web/status").header("content-type", "application/merge-patch+json");
    client.request::<Value>(request.body(running).unwrap()).await.unwrap();
    post("/api/v1/namespaces/default/pods", json!({"metadata": {"name": "elsewhere"}, "spec": {"nodeName": "b", "containers": []}})).await;
    let budget = json!({"metadata": {"name": "held"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    post("/apis/policy/v1/namespaces/default/poddisruptionbudgets", budget).await;

    let at_first_look: Arc<Mutex<Option<Option<Applied>>>> = Arc::default();
    let (seen, accessor) = (Arc::clone(&at_first_look), lab.accessor.clone());
    lab.accessor.subscribe(Arc::new(move |_| {
        if accessor.load(&World::key(), "a").is_some() {
            seen.lock().unwrap().get_or_insert_with(|| accessor.applied(&World::key(), "many"));
        }
    }));
    let map = |number: usize| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{number}"), "namespace": "default"}});
    lab.accessor.apply(&World::key(), "many", (0..100).map(map).collect());
    lab.accessor.look(&World::key(), "a", Look { namespaces: true, volumes: true });
    lab.pass(2).await;
    assert_eq!(*at_first_look.lock().unwrap(), Some(Some(Applied::Pending)), "the manifests were not waited for");
    assert_eq!(lab.accessor.applied(&World::key(), "many"), Some(Applied::Done));
    let load = lab.accessor.load(&World::key(), "a").unwrap();
    let names: Vec<_> = load.looked.pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect();
    assert_eq!((names, load.round, load.looked.volumes), (vec!["web"], 1, Some(Vec::new())));
    assert!(load.looked.namespaces.contains_key("default"));

    let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
    let eviction = |uid: &str| Eviction { namespace: "default".into(), name: "web".into(), uid: uid.into(), grace_seconds: None, round: 1 };
    lab.accessor.evict(&World::key(), "a", eviction("another"));
    lab.accessor.evict(&World::key(), "a", eviction(&uid));
    lab.pass(2).await;
    let attempts = lab.accessor.load(&World::key(), "a").unwrap().attempts;
    let refusal = "Cannot evict pod as it would violate the pod's disruption budget. The disruption budget held needs 1 healthy pods and has 1 currently";
    assert_eq!(attempts[&uid].refusal.as_deref(), Some(refusal));

    // Exactly the pod that was looked at goes, with the grace that was asked for.
    let free = json!({"metadata": {"name": "free"}, "spec": {"nodeName": "a", "containers": []}});
    let made = post("/api/v1/namespaces/default/pods", free).await;
    let deletion = async || {
        let request = http::Request::get("/api/v1/namespaces/default/pods/free").body(Vec::new()).unwrap();
        client.request::<Value>(request).await.unwrap()["metadata"]["deletionGracePeriodSeconds"].clone()
    };
    for (uid, expected) in [("another", Value::Null), (made["metadata"]["uid"].as_str().unwrap(), json!(7))] {
        let eviction = Eviction { name: "free".into(), grace_seconds: Some(7), ..eviction(uid) };
        lab.accessor.evict(&World::key(), "a", eviction);
        lab.pass(2).await;
        assert_eq!(deletion().await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_gone_is_let_go() {
    let lab = Lab::new().await;
    lab.store_kubeconfig(&lab.authority).await;
    lab.machine("cp-0", "10.0.0.1").await;
    let server = lab.listen("10.0.0.1").await;
    lab.pass(6).await;
    assert!(lab.connection().is_connected());
    lab.world.delete(&manifests(1, 1)[0]).await;
    lab.pass(1).await;
    assert_eq!(lab.connection(), Connection::Waiting { on: format!("Cluster {CLUSTER}") });
    drop(server);
}
