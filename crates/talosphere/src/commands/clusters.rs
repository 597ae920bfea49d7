//! A cluster's kubeconfig and talosconfig, and the way to its API.

use std::path::PathBuf;
use std::sync::Arc;

use apimachinery::meta::text_at;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use controllers::workload::kubeconfig;
use runtime::http::{Connector, kube_client};
use serde_json::Value;
use talos::clientconfig::{ClientConfig, ClientIdentity};

use crate::apply::{Api, unreachable};
use crate::cli::OfCluster;
use crate::host::session::Session;
use crate::names::segment;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::state::StateDirectory;

/// The taint that a cloud provider removes.
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// Where a cluster's credentials were written.
#[derive(Debug)]
pub struct Access {
    pub kubeconfig: PathBuf,
    pub talosconfig: PathBuf,
}

/// One value of a Secret, from `stringData` or `data`.
pub fn secret_text(secret: &Value, key: &str) -> Option<String> {
    let plain = secret.get("stringData").and_then(|data| data.get(key)).and_then(Value::as_str).map(str::to_owned);
    plain.or_else(|| {
        let encoded = secret.get("data")?.get(key)?.as_str()?;
        String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
    })
}

/// There is no such Cluster.
pub fn missing(cluster: &str, namespace: &str) -> Problem {
    Problem::new(Code::NotFound, format!("there is no Cluster {cluster} in the namespace {namespace}"))
        .remedy("`talosphere get clusters -A` lists them; -n names the namespace")
}

/// What a cluster's nodes are asked with.
///
/// # Errors
/// When the cluster or its talosconfig is not there, or is not usable.
pub async fn identity(api: &Api, namespace: &str, cluster: &str) -> Result<ClientIdentity, Problem> {
    let text = credential(api, namespace, cluster, "talosconfig", "talosconfig").await?;
    let config = ClientConfig::from_yaml(&text)
        .map_err(|error| Problem::new(Code::Internal, format!("the talosconfig of {cluster} cannot be used")).because(error.to_string()))?;
    Ok(config.identity)
}

/// One value of a cluster's Secret `CLUSTER-SUFFIX`.
///
/// # Errors
/// When the cluster, its Secret or the value is not there.
pub async fn credential(api: &Api, namespace: &str, cluster: &str, suffix: &str, key: &str) -> Result<String, Problem> {
    let path = format!("/apis/cluster.x-k8s.io/v1beta2/namespaces/{}/clusters/{}", segment(namespace), segment(cluster));
    if api.get(&path).await.map_err(|error| unreachable(&error))?.is_none() {
        return Err(Problem::new(Code::NotFound, format!("there is no Cluster {cluster} in the namespace {namespace}"))
            .remedy("`talosphere get clusters -A` lists them; --namespace names the namespace"));
    }
    let path = format!("/api/v1/namespaces/{}/secrets/{}-{suffix}", segment(namespace), segment(cluster));
    let secret = api.get(&path).await.map_err(|error| unreachable(&error))?;
    secret.and_then(|secret| secret_text(&secret, key)).ok_or_else(|| {
        Problem::new(Code::NotFound, format!("the {suffix} of Cluster {cluster} is not made yet"))
            .because(format!("there is no Secret {cluster}-{suffix} in {namespace}"))
            .remedy(format!("`talosphere describe cluster {cluster} -n {namespace}` shows what is waited for"))
    })
}

/// Writes both files into the state directory.
///
/// # Errors
/// When a Secret is missing or a file cannot be written.
pub async fn write(api: &Api, directory: &StateDirectory, namespace: &str, cluster: &str) -> Result<Access, Problem> {
    let kubeconfig = credential(api, namespace, cluster, "kubeconfig", "value").await?;
    let talosconfig = credential(api, namespace, cluster, "talosconfig", "talosconfig").await?;
    let folder = format!("clusters/{namespace}/{cluster}");
    Ok(Access {
        kubeconfig: directory.write(&format!("{folder}/kubeconfig"), &kubeconfig)?,
        talosconfig: directory.write(&format!("{folder}/talosconfig"), &talosconfig)?,
    })
}

/// Writes both files and says how the cluster is reached.
///
/// # Errors
/// As [`write`].
pub async fn hand_over(api: &Api, directory: &StateDirectory, namespace: &str, cluster: &str, seams: &Seams) -> Result<(), Problem> {
    let access = write(api, directory, namespace, cluster).await?;
    seams.printer.note(format!("  kubectl --kubeconfig {} get nodes", access.kubeconfig.display()));
    // talosctl itself knows no proxy; our own command takes the same way as the controllers.
    if seams.proxy.is_none() {
        seams.printer.note(format!("  talosctl --talosconfig {} version", access.talosconfig.display()));
        return Ok(());
    }
    let mut line = String::new();
    if let Some(proxy) = seams.proxy.as_deref().filter(|proxy| seams.environment.get("TALOSPHERE_PROXY") != Some(proxy)) {
        line.push_str(&format!("TALOSPHERE_PROXY={proxy} "));
    }
    line.push_str("talosphere");
    if seams.environment.state_directory().as_deref() != Some(directory.path()) {
        line.push_str(&format!(" --state {}", directory.path().display()));
    }
    line.push_str(&format!(" talos -c {cluster}"));
    if namespace != "default" {
        line.push_str(&format!(" --namespace {namespace}"));
    }
    seams.printer.note(format!("  {line} version"));
    Ok(())
}

/// `kubeconfig`.
///
/// # Errors
/// As [`credential`].
pub async fn kubeconfig(args: &OfCluster, directory: &StateDirectory, seams: &Seams) -> Result<(), Problem> {
    print(args, directory, seams, "kubeconfig", "value").await
}

/// `talosconfig`.
///
/// # Errors
/// As [`credential`].
pub async fn talosconfig(args: &OfCluster, directory: &StateDirectory, seams: &Seams) -> Result<(), Problem> {
    print(args, directory, seams, "talosconfig", "talosconfig").await
}

async fn print(args: &OfCluster, directory: &StateDirectory, seams: &Seams, what: &str, key: &str) -> Result<(), Problem> {
    let session = Session::reading(directory, what, seams).await?;
    let text = credential(&session.api, &args.namespace.namespace, &args.cluster, what, key).await;
    session.close(seams).await;
    seams.printer.data(&text?);
    Ok(())
}

/// The addresses of a cluster's machines by Machine name, control planes first.
///
/// # Errors
/// When the API does not answer.
pub async fn machines(api: &Api, namespace: &str, cluster: &str) -> Result<Vec<Machine>, Problem> {
    let path = format!(
        "/apis/cluster.x-k8s.io/v1beta2/namespaces/{}/machines?labelSelector=cluster.x-k8s.io%2Fcluster-name%3D{}",
        segment(namespace),
        segment(cluster)
    );
    let list = api.send(http::Method::GET, &path, None, None).await.map_err(|error| unreachable(&error))?;
    let mut machines: Vec<Machine> = list
        .get("items")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|item| {
            let text = |value: &Value, at: &str| text_at(value, at).to_owned();
            let addresses = item.pointer("/status/addresses").and_then(Value::as_array).into_iter().flatten();
            let address = addresses.filter(|a| text(a, "/type").ends_with("IP")).map(|a| text(a, "/address")).next();
            let labels = item.pointer("/metadata/labels");
            Machine {
                name: text(item, "/metadata/name"),
                node: text(item, "/status/nodeRef/name"),
                address,
                is_control_plane: labels.is_some_and(|labels| labels.get("cluster.x-k8s.io/control-plane").is_some()),
            }
        })
        .collect();
    let numeric = |machine: &Machine| machine.address.as_deref().and_then(|address| address.parse::<std::net::IpAddr>().ok());
    machines.sort_by_key(|machine| (!machine.is_control_plane, numeric(machine), machine.name.clone()));
    Ok(machines)
}

/// A machine as commands address it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub name: String,
    pub node: String,
    pub address: Option<String>,
    pub is_control_plane: bool,
}

/// A client for the workload cluster: dials its control planes by address and checks the certificate against the endpoint's name.
async fn workload(api: &Api, namespace: &str, cluster: &str, seams: &Seams) -> Result<kube::Client, Problem> {
    let text = credential(api, namespace, cluster, "kubeconfig", "value").await?;
    let unusable = |why: &dyn std::fmt::Display| {
        Problem::new(Code::Internal, format!("the kubeconfig of Cluster {cluster} cannot be used")).because(why.to_string())
    };
    let settings = kubeconfig::parse(&text).map_err(|error| unusable(&error))?;
    let planes = machines(api, namespace, cluster).await?.into_iter().filter(|machine| machine.is_control_plane);
    let address = planes.filter_map(|machine| machine.address).next().ok_or_else(|| unusable(&"no control plane has an address"))?;
    let connector = Connector::secured(Arc::clone(&seams.dialer), seams.tls.clone(), settings.tls).to(&address, settings.port);
    kube_client(connector, &settings.authority, "default").map_err(|error| unusable(&error))
}

/// How often it is looked whether a cloud provider has opened the nodes, half a minute in all: its pods start when the nodes are ready.
const TAINTED_LOOKS: u32 = 60;
const TAINTED_LOOK: std::time::Duration = std::time::Duration::from_millis(500);

/// Warns of nodes that stay closed to pods because no cloud provider opens them.
pub async fn warn_of_taints(api: &Api, namespace: &str, cluster: &str, has_workload: bool, seams: &Seams) {
    let Ok(client) = workload(api, namespace, cluster, seams).await else { return };
    let workload = Api::new(client);
    // With the cloud provider's Secret given, its pods need a moment; without it nothing will change.
    let tries = if has_workload { TAINTED_LOOKS } else { 1 };
    for attempt in 0..tries {
        let Ok(nodes) = workload.send(http::Method::GET, "/api/v1/nodes", None, None).await else { return };
        let tainted: Vec<String> = nodes
            .get("items")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter(|node| has_taint(node))
            .filter_map(node_name)
            .collect();
        if tainted.is_empty() {
            return;
        }
        if attempt + 1 == tries {
            let given = if has_workload {
                format!("it was waited for; `talosphere describe cluster {cluster}` says what it lacks")
            } else {
                "no --workload file gives it a Secret to sign in to vCenter with (give its ConfigMap and Secret with --workload)".to_owned()
            };
            seams.printer.line(format!(
                "warning: {} of the nodes keep the taint {UNINITIALIZED}, so that no ordinary pod runs there: the cloud provider has not looked at them; {given}",
                tainted.len()
            ));
            return;
        }
        seams.clock.sleep(TAINTED_LOOK).await;
    }
}

fn has_taint(node: &Value) -> bool {
    let taints = node.pointer("/spec/taints").and_then(Value::as_array);
    taints.is_some_and(|taints| taints.iter().any(|taint| taint.get("key").and_then(Value::as_str) == Some(UNINITIALIZED)))
}

fn node_name(node: &Value) -> Option<String> {
    node.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned)
}
