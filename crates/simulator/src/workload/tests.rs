//! A cluster's Kubernetes, on paused time: what a user of it would see.

use std::collections::BTreeMap;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use runtime::http::Connector;
use runtime::tls::ClientTls;
use serde_json::{Value, json};
use talos_proto::machine as wire;

use super::cache::{list, name, text};
use super::node::readiness;
use crate::hypervisor::{Guests as _, Origin, VmId, VmTruth};
use crate::node::test_support::{Bundle, World, base64, reference};

const TAINTED: &str = "  kubelet:\n    extraConfig:\n      registerWithTaints:\n      - {key: node.cloudprovider.kubernetes.io/uninitialized, value: \"true\", effect: NoSchedule}\n";
const ACCESS: &str = "  features:\n    kubernetesTalosAPIAccess: {enabled: true, allowedRoles: [\"os:reader\"], allowedKubernetesNamespaces: [kube-system]}\n";

/// A request to `https://host:6443`, over the simulated network.
async fn ask(
    world: &World,
    tls: &ClientTls,
    host: &str,
    method: &str,
    path: &str,
    accept: &str,
    body: Option<Value>,
) -> Result<(u16, Value), String> {
    let connector = Connector::secured(Arc::new(world.network.clone()), world.tls.clone(), tls.clone());
    let client = runtime::http::client::<Full<bytes::Bytes>>(connector);
    let request = http::Request::builder().method(method).uri(format!("https://{host}:6443{path}")).header("accept", accept);
    let request = request.header("content-type", "application/json");
    let request = request.body(Full::from(body.map(|body| body.to_string()).unwrap_or_default())).unwrap();
    let response = client.request(request).await.map_err(|error| format!("{error:?}"))?;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok((code, serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)))))
}

async fn get(world: &World, bundle: &Bundle, path: &str) -> Value {
    match ask(world, &bundle.kubernetes_client(), "api.demo.test", "GET", path, "application/json", None).await {
        Ok((200, value)) => value,
        _ => Value::Null,
    }
}

async fn post(world: &World, bundle: &Bundle, path: &str, object: Value) {
    let (code, answer) =
        ask(world, &bundle.kubernetes_client(), "api.demo.test", "POST", path, "application/json", Some(object)).await.unwrap();
    assert_eq!(code, 201, "{answer}");
}

async fn nodes(world: &World, bundle: &Bundle) -> Vec<Value> {
    list(&get(world, bundle, "/api/v1/nodes").await, "/items").to_vec()
}

/// Control planes at 10.0.0.1.. and workers at 10.0.0.11.., bootstrapped.
async fn cluster(world: &World, bundle: &Bundle, control_planes: u32, workers: u32, machine: &str, cluster: &str) {
    for number in 1..=control_planes {
        world.start(number, &bundle.configuration("controlplane", &format!("cp-{number}"), &format!("10.0.0.{number}"), machine, cluster));
    }
    for number in 11..11 + workers {
        let machine = machine.replace(ACCESS, "");
        world.start(number, &bundle.configuration("worker", &format!("worker-{number}"), &format!("10.0.0.{number}"), &machine, ""));
    }
    let mut client = world.talos("10.0.0.1", bundle.talos_client("os:admin"));
    world.until("apid answers", async || client.version(()).await.is_ok()).await;
    client.bootstrap(wire::BootstrapRequest::default()).await.unwrap();
    let count = usize::try_from(control_planes + workers).unwrap();
    world.until("all are registered", async || nodes(world, bundle).await.len() == count).await;
}

#[tokio::test(start_paused = true)]
async fn three_and_three_become_ready_and_show_as_kubectl_expects() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    cluster(&world, &bundle, 3, 3, "  nodeLabels: {zone: a}\n", "").await;
    world
        .until("all ready", async || {
            nodes(&world, &bundle).await.iter().all(|node| readiness(node) == "True" && node.pointer("/spec/taints/1").is_none())
        })
        .await;
    let all = nodes(&world, &bundle).await;
    let first = all.iter().find(|node| name(node) == "cp-1").unwrap();
    assert_eq!(text(first, "/status/nodeInfo/systemUUID"), "00000d42-0100-0200-0003-000000000001", "the first three groups are swapped");
    assert_eq!(text(first, "/status/nodeInfo/osImage"), "Talos (v1.4.8)");
    assert_eq!(text(first, "/status/nodeInfo/kubeletVersion"), "v1.27.4");
    assert_eq!(first["metadata"]["labels"]["zone"], "a");
    assert_eq!(first["spec"]["taints"], json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]));
    assert!(all.iter().filter(|node| name(node).starts_with("worker")).all(|node| list(node, "/spec/taints").is_empty()));
    let table = ask(
        &world,
        &bundle.kubernetes_client(),
        "api.demo.test",
        "GET",
        "/api/v1/nodes",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        None,
    )
    .await;
    let (_, table) = table.unwrap();
    let rows: Vec<String> = list(&table, "/rows")
        .iter()
        .map(|row| list(row, "/cells").iter().take(3).map(|cell| cell.as_str().unwrap_or_default()).collect::<Vec<_>>().join(" "))
        .collect();
    assert!(rows.contains(&"cp-1 Ready control-plane".to_owned()), "{rows:?}");
    assert!(rows.contains(&"worker-11 Ready <none>".to_owned()), "{rows:?}");
    world
        .until("all pods run", async || {
            list(&get(&world, &bundle, "/api/v1/pods").await, "/items").iter().all(|pod| text(pod, "/status/phase") == "Running")
        })
        .await;
    let pods = get(&world, &bundle, "/api/v1/pods").await;
    let count = |prefix: &str| list(&pods, "/items").iter().filter(|pod| name(pod).starts_with(prefix)).count();
    for (prefix, expected) in [
        ("kube-apiserver-cp-", 3),
        ("kube-controller-manager-", 3),
        ("kube-scheduler-", 3),
        ("kube-proxy-", 6),
        ("kube-flannel-", 6),
        ("coredns-", 2),
    ] {
        assert_eq!(count(prefix), expected, "{prefix}");
    }
    let mut addresses: Vec<&str> =
        list(&pods, "/items").iter().filter(|pod| name(pod).starts_with("coredns")).map(|pod| text(pod, "/status/podIP")).collect();
    addresses.dedup();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    world
        .until("the deployment counts its pods", async || {
            let deployments = get(&world, &bundle, "/apis/apps/v1/deployments").await;
            list(&deployments, "/items")
                .iter()
                .any(|it| name(it) == "coredns" && it.pointer("/status/availableReplicas") == Some(&json!(2)))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn certificates_decide_who_reads() {
    let world = World::new();
    let (bundle, other) = (Bundle::new(1, &world.clock).await, Bundle::new(2, &world.clock).await);
    cluster(&world, &bundle, 1, 0, "", "").await;
    let mut anonymous = bundle.kubernetes_client();
    anonymous.identity = None;
    let (code, _) = ask(&world, &anonymous, "10.0.0.1", "GET", "/api/v1/nodes", "application/json", None).await.unwrap();
    assert!(code == 401 || code == 403, "{code}");
    let mut foreign = other.kubernetes_client();
    foreign.verifier = anonymous.verifier.clone();
    ask(&world, &foreign, "10.0.0.1", "GET", "/api/v1/nodes", "application/json", None).await.unwrap_err();
    let wrong = ask(&world, &other.kubernetes_client(), "10.0.0.1", "GET", "/version", "application/json", None).await.unwrap_err();
    assert!(wrong.to_lowercase().contains("certificate") || wrong.contains("trusted"), "{wrong}");
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_the_api_says_so_and_its_data_survives() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    cluster(&world, &bundle, 3, 0, "", "").await;
    world.until("three serve", async || world.nodes.truth().machines.iter().all(|machine| machine.serves_api)).await;
    post(&world, &bundle, "/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "kept"}})).await;
    for number in [2, 3] {
        world.nodes.powered_off(&VmId(format!("vm-{number}")));
    }
    let (code, answer) =
        ask(&world, &bundle.kubernetes_client(), "10.0.0.1", "GET", "/api/v1/nodes", "application/json", None).await.unwrap();
    assert_eq!((code, answer["message"].as_str().unwrap_or_default().contains("etcdserver")), (500, true), "{answer}");
    world.power_on(2);
    world.until("it is back", async || !get(&world, &bundle, "/api/v1/namespaces/default/configmaps/kept").await.is_null()).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_machine_s_node_is_lost_after_a_while_and_comes_back_with_it() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    cluster(&world, &bundle, 1, 1, "", "").await;
    let state = async || nodes(&world, &bundle).await.iter().find(|node| name(node) == "worker-11").map(|node| readiness(node).to_owned());
    world.until("ready", async || state().await.as_deref() == Some("True")).await;
    world.nodes.powered_off(&VmId("vm-11".into()));
    let since = world.clock.instant();
    world.until("lost", async || state().await.as_deref() == Some("Unknown")).await;
    assert!((40..45).contains(&(world.clock.instant() - since).as_secs()));
    world.power_on(11);
    world.until("ready again", async || state().await.as_deref() == Some("True")).await;
    world
        .until("untainted", async || {
            nodes(&world, &bundle)
                .await
                .iter()
                .all(|node| !list(node, "/spec/taints").iter().any(|taint| text(taint, "/key").contains("unreachable")))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_stops_within_its_grace_where_its_kubelet_lives_and_never_where_it_is_dead() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    cluster(&world, &bundle, 1, 2, "", "").await;
    world.until("ready", async || nodes(&world, &bundle).await.iter().all(|node| readiness(node) == "True")).await;
    let path = "/api/v1/namespaces/default/pods";
    for (pod, node) in [("living", "worker-11"), ("lost", "worker-12")] {
        let spec = json!({"nodeName": node, "terminationGracePeriodSeconds": 20, "containers": []});
        post(&world, &bundle, path, json!({"metadata": {"name": pod}, "spec": spec})).await;
    }
    let find = async |pod: &str| list(&get(&world, &bundle, path).await, "/items").iter().find(|one| name(one) == pod).cloned();
    world.until("they run", async || find("lost").await.is_some_and(|pod| text(&pod, "/status/phase") == "Running")).await;
    world.nodes.powered_off(&VmId("vm-12".into()));
    for pod in ["living", "lost"] {
        let client = bundle.kubernetes_client();
        ask(&world, &client, "api.demo.test", "DELETE", &format!("{path}/{pod}"), "application/json", None).await.unwrap();
    }
    let since = world.clock.instant();
    world.until("it has stopped", async || find("living").await.is_none()).await;
    assert!((19..25).contains(&(world.clock.instant() - since).as_secs()), "{:?}", world.clock.instant() - since);
    world.clock.sleep(std::time::Duration::from_secs(900)).await;
    assert!(find("lost").await.is_some_and(|pod| super::cache::is_deleted(&pod)), "nobody confirms that it has stopped");
    world.power_on(12);
    world.until("its kubelet is back", async || find("lost").await.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_deleted_by_hand_comes_back_only_with_its_kubelet() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    cluster(&world, &bundle, 1, 1, "", "").await;
    let (code, _) =
        ask(&world, &bundle.kubernetes_client(), "api.demo.test", "DELETE", "/api/v1/nodes/worker-11", "application/json", None)
            .await
            .unwrap();
    assert_eq!(code, 200);
    world.clock.sleep(std::time::Duration::from_secs(900)).await;
    assert_eq!(nodes(&world, &bundle).await.len(), 1);
    let mut client = world.talos("10.0.0.11", bundle.talos_client("os:admin"));
    client.service_restart(wire::ServiceRestartRequest { id: "kubelet".to_owned() }).await.unwrap();
    world.until("registered", async || nodes(&world, &bundle).await.len() == 2).await;
    assert!(client.service_restart(wire::ServiceRestartRequest { id: "etcd".to_owned() }).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn without_a_network_add_on_nodes_are_not_ready() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    cluster(&world, &bundle, 1, 0, "", "  network: {cni: {name: none}}\n").await;
    world.clock.sleep(std::time::Duration::from_secs(300)).await;
    assert_eq!(readiness(&nodes(&world, &bundle).await[0]), "False");
    let labels = json!({"k8s-app": "cilium"});
    let set = json!({"metadata": {"name": "cilium"}, "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
        "hostNetwork": true, "tolerations": [{"operator": "Exists"}], "containers": [{"name": "agent", "image": "cilium"}]}}}});
    post(&world, &bundle, "/apis/apps/v1/namespaces/kube-system/daemonsets", set).await;
    world.until("ready", async || readiness(&nodes(&world, &bundle).await[0]) == "True").await;
}

fn vm(number: u32) -> VmTruth {
    VmTruth {
        id: VmId(format!("vm-{number}")),
        name: format!("machine-{number}"),
        folder: "/dc1/vm".into(),
        bios_uuid: format!("420d0000-0001-0002-0003-{number:012}"),
        instance_uuid: String::new(),
        powered_on: true,
        is_template: false,
        extra_config: BTreeMap::new(),
        annotation: String::new(),
        nics: Vec::new(),
        disks: Vec::new(),
        origin: Origin::Api,
        changes: Vec::new(),
    }
}

/// The user's own manifests do what they do on real machines: tools run as a daemon set with Talos credentials, the provider waits for its
/// secret, then nodes get their provider IDs and lose their taint.
#[tokio::test(start_paused = true)]
async fn the_cloud_provider_needs_tools_and_a_secret_that_signs_in() {
    let (Some(tools), Some(provider)) =
        (reference("templates/vsphere-standard/vm-tools.yaml"), reference("templates/vsphere-standard/cpi.yaml"))
    else {
        return;
    };
    let world = World::with_manifests(BTreeMap::from([("vm-tools.yaml".to_owned(), tools), ("cpi.yaml".to_owned(), provider)]));
    let bundle = Bundle::new(1, &world.clock).await;
    *world.bench.account.lock().unwrap() = ("172.16.42.222".into(), "admin".into(), "right".into());
    *world.bench.vms.lock().unwrap() = vec![vm(1), vm(11)];
    let urls = "  extraManifests:\n  - https://example.com/a/vm-tools.yaml\n  - https://example.com/a/cpi.yaml\n  - https://example.com/unknown.yaml\n";
    cluster(&world, &bundle, 1, 1, &format!("{TAINTED}{ACCESS}"), urls).await;
    world.until("ready", async || nodes(&world, &bundle).await.iter().all(|node| readiness(node) == "True")).await;
    world.until("tools report", async || world.bench.reports.lock().unwrap().len() == 2).await;
    let is_tainted = |node: &Value| list(node, "/spec/taints").iter().any(|taint| text(taint, "/key").contains("uninitialized"));
    world.clock.sleep(std::time::Duration::from_secs(300)).await;
    assert!(nodes(&world, &bundle).await.iter().all(is_tainted), "the provider's pod has no settings yet");

    let config = "global:\n  secretName: creds\n  secretNamespace: kube-system\nvcenter:\n  172.16.42.222:\n    server: '172.16.42.222'\n    datacenters: [dc1]\n";
    post(
        &world,
        &bundle,
        "/api/v1/namespaces/kube-system/configmaps",
        json!({"metadata": {"name": "vsphere-cloud-config"}, "data": {"vsphere.conf": config}}),
    )
    .await;
    let secret = |password: &str| json!({"metadata": {"name": "creds"}, "data": {"172.16.42.222.username": base64("admin"), "172.16.42.222.password": base64(password)}});
    post(&world, &bundle, "/api/v1/namespaces/kube-system/secrets", secret("wrong")).await;
    let complaint = async || {
        let events = get(&world, &bundle, "/api/v1/events").await;
        list(&events, "/items").iter().any(|event| text(event, "/message").contains("incorrect user name or password"))
    };
    world.until("it says that it cannot sign in", complaint).await;
    assert!(nodes(&world, &bundle).await.iter().all(is_tainted));
    let path = "/api/v1/namespaces/kube-system/secrets";
    ask(&world, &bundle.kubernetes_client(), "api.demo.test", "DELETE", &format!("{path}/creds"), "application/json", None).await.unwrap();
    post(&world, &bundle, path, secret("right")).await;
    world.until("the taint is gone", async || !nodes(&world, &bundle).await.iter().any(is_tainted)).await;
    for node in nodes(&world, &bundle).await {
        let number: u32 = if name(&node) == "cp-1" { 1 } else { 11 };
        assert_eq!(text(&node, "/spec/providerID"), format!("vsphere://420d0000-0001-0002-0003-{number:012}"));
        assert!(list(&node, "/status/addresses").iter().any(|address| text(address, "/type") == "ExternalIP"));
        assert!(text(&node, "/metadata/labels/node.kubernetes.io~1instance-type").starts_with("vsphere-vm."));
    }
    world.nodes.destroyed(&VmId("vm-11".into()));
    world.bench.vms.lock().unwrap().pop();
    world.until("the lost node is deleted", async || nodes(&world, &bundle).await.len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn genuine_configurations_make_a_cluster() {
    let (Some(control_plane), Some(worker)) =
        (reference("kubernetes/objects/bootstrap/controlplane.yaml"), reference("kubernetes/objects/bootstrap/worker.yaml"))
    else {
        return;
    };
    let world = World::starting_at("2026-11-24T00:00:00Z", BTreeMap::new());
    let network = |number: u32| {
        format!(
            "  network:\n    hostname: node-{number}\n    interfaces:\n    - deviceSelector: {{hardwareAddr: '00:50:56:00:00:{number:02x}'}}\n      addresses: [172.16.42.{}/24]\n",
            229 + number
        )
    };
    for number in 1..=3 {
        world.start(number, &control_plane.replace("  network: {}\n", &network(number)));
    }
    world.start(4, &worker.replace("  network: {}\n", &network(4)));
    let state = || world.nodes.truth();
    world.until("configured", async || state().machines.iter().all(|machine| machine.stage == "Running")).await;
    world.until("the name leads there", async || world.network.resolve("vmware-k8s-api.lelund.eu").len() == 3).await;
    let id = VmId("vm-1".into());
    world.until("it can be bootstrapped", async || crate::node::test_support::bootstrap(&world.nodes, &id)).await;
    world.until("all serve", async || state().machines.iter().filter(|machine| machine.serves_api).count() == 3).await;
    let realm = state().machines[0].realm.clone().unwrap();
    let workload = world.nodes.state().reachable(&realm).unwrap();
    world
        .until("four nodes are ready", async || workload.cache().list("nodes").iter().filter(|node| readiness(node) == "True").count() == 4)
        .await;
    let node = workload.cache().get("nodes", "", "node-1").unwrap();
    assert_eq!(text(&node, "/status/nodeInfo/kubeletVersion"), "v1.27.4");
    assert!(list(&node, "/spec/taints").iter().any(|taint| text(taint, "/key").contains("uninitialized")));
    let version = workload.client("admin", &["system:masters"]).get("/version").await.unwrap();
    assert_eq!(version["gitVersion"], "v1.25.5");
}
