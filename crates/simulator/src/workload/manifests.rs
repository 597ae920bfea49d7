//! What Talos applies when a cluster's API first answers: its own manifests, the configuration's, and what the configuration's URLs lead to.
//!
//! No URL is fetched. One whose base name is among the files that the simulator was given stands for that file; an unknown network add-on
//! counts as applied, any other unknown URL has no effect.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Workload;
use super::cache::{name, namespace, text};
use super::client::{ApiError, Client};
use crate::hypervisor::VmId;
use crate::node::Nodes;
use crate::node::certificates::first_service_address;
use crate::node::configuration::{Cni, Configuration};

/// Applies them, unless another control plane of the cluster did.
pub(super) async fn apply(nodes: &Nodes, id: &VmId, configuration: &Arc<Configuration>, workload: &Arc<Workload>) {
    let mut done = workload.has_manifests.lock().await;
    if *done {
        return;
    }
    let client = workload.client("system:talos", &["system:masters"]);
    let mut resources = Resources::default();
    let mut objects = own(configuration);
    for (what, content) in given(configuration, &nodes.options().manifests) {
        // As every tool of the field reads them: `0400` is a mode.
        let options = serde_saphyr::options! { legacy_octal_numbers: true };
        match serde_saphyr::from_multiple_with_options::<Value>(&content, options) {
            Ok(documents) => objects.extend(documents.into_iter().filter(|document| !document.is_null()).flat_map(items)),
            Err(error) => nodes.say(id, &format!("user: warning: [talos] error parsing manifest {what}: {error}")),
        }
    }
    for object in objects {
        if let Err(error) = create(&client, &mut resources, &object).await {
            let (kind, name) = (text(&object, "/kind"), name(&object));
            nodes.say(id, &format!("user: warning: [talos] controller failed {{\"controller\": \"k8s.ManifestApplyController\", \"error\": \"error creating {kind}/{name}: {error}\"}}"));
        }
    }
    *done = true;
    nodes.event(Some(&workload.realm), &format!("{id}: manifests are applied"));
}

/// The elements of a List; any other object is itself.
fn items(object: Value) -> Vec<Value> {
    if text(&object, "/kind") != "List" {
        return vec![object];
    }
    object.get("items").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Contents by what they are called: the network's, the further manifests', the inline ones'.
fn given(configuration: &Configuration, files: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut urls: Vec<&String> = Vec::new();
    if let Cni::Custom(network) = &configuration.cluster.cni {
        urls.extend(network);
    }
    urls.extend(&configuration.cluster.extra_manifests);
    let mut all = Vec::new();
    for url in urls {
        let base = url.split(['?', '#']).next().unwrap_or(url).rsplit('/').next().unwrap_or_default();
        all.extend(files.get(base).map(|content| (base.to_owned(), content.clone())));
    }
    all.extend(configuration.cluster.inline_manifests.clone());
    all
}

/// What Talos brings itself.
fn own(configuration: &Configuration) -> Vec<Value> {
    let cluster = &configuration.cluster;
    let version = &configuration.kubernetes_version;
    let mut all = Vec::new();
    if let Some(image) = &cluster.proxy {
        let image = image.clone().unwrap_or_else(|| format!("registry.k8s.io/kube-proxy:{version}"));
        all.push(daemon_set("kube-proxy", &image, true));
    }
    if cluster.cni == Cni::Flannel {
        all.push(daemon_set("kube-flannel", "ghcr.io/siderolabs/flannel:v0.22.0", true));
    }
    if let Some(image) = &cluster.core_dns {
        let image = image.clone().unwrap_or_else(|| "registry.k8s.io/coredns/coredns:v1.10.1".to_owned());
        let labels = json!({"k8s-app": "kube-dns"});
        all.push(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "coredns", "namespace": "kube-system", "labels": labels},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "containers": [{"name": "coredns", "image": image, "args": ["-conf", "/etc/coredns/Corefile"]}],
                    "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}],
                    "serviceAccountName": "coredns",
                }},
            },
        }));
        let address = cluster.service_subnets.first().and_then(|subnet| first_service_address(subnet));
        let dns = address.map(|address| match address {
            std::net::IpAddr::V4(first) => (u32::from(first) + 9).to_be_bytes().map(|part| part.to_string()).join("."),
            std::net::IpAddr::V6(first) => std::net::Ipv6Addr::from(u128::from(first) + 9).to_string(),
        });
        all.push(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
            "spec": {"clusterIP": dns, "selector": labels, "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53}]},
        }));
    }
    all
}

fn daemon_set(name: &str, image: &str, is_host_network: bool) -> Value {
    let labels = json!({"k8s-app": name});
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": "kube-system", "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels}, "updateStrategy": {"type": "RollingUpdate"},
            "template": {"metadata": {"labels": labels}, "spec": {
                "containers": [{"name": name, "image": image}],
                "hostNetwork": is_host_network,
                "tolerations": [{"operator": "Exists"}],
            }},
        },
    })
}

/// Where objects of a group and version go, as discovery says.
#[derive(Debug, Default)]
struct Resources(BTreeMap<String, Value>);

/// Creates an object; one that is there already stays as it is.
async fn create(client: &Client, resources: &mut Resources, object: &Value) -> Result<(), ApiError> {
    let (api_version, kind) = (text(object, "/apiVersion").to_owned(), text(object, "/kind").to_owned());
    let root = if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") };
    let unknown = || ApiError { code: 404, message: format!("no matches for kind \"{kind}\" in version \"{api_version}\"") };
    // Definitions that were just created make discovery move on: only success is kept.
    let found = match resources.0.get(&api_version).and_then(|known| resource(known, &kind)) {
        Some(found) => found,
        None => {
            let fresh = client.get(&root).await.map_err(|error| if error.code == 404 { unknown() } else { error })?;
            let found = resource(&fresh, &kind).ok_or_else(unknown)?;
            resources.0.insert(api_version.clone(), fresh);
            found
        }
    };
    let (plural, is_namespaced) = found;
    let path = if is_namespaced {
        let namespace = Some(namespace(object)).filter(|namespace| !namespace.is_empty()).unwrap_or("default");
        format!("{root}/namespaces/{namespace}/{plural}")
    } else {
        format!("{root}/{plural}")
    };
    match client.create(&path, object).await {
        Ok(_) => Ok(()),
        Err(error) if error.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}

fn resource(list: &Value, kind: &str) -> Option<(String, bool)> {
    let resources = list.get("resources")?.as_array()?;
    let found = resources.iter().find(|resource| text(resource, "/kind") == kind && !text(resource, "/name").contains('/'))?;
    Some((text(found, "/name").to_owned(), found.get("namespaced").and_then(Value::as_bool).unwrap_or(false)))
}
