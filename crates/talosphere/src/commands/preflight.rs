//! What is checked against vCenter before anything is applied, and what is looked for there after everything is deleted. Reads only.

use std::collections::BTreeSet;

use controllers::vspherecluster::identity::IDENTITY_NAMESPACE;
use serde_json::Value;
use vsphere::{Credentials, PlacementRequest, Secret, VCenters as _, VSphereError};

use super::clusters::secret_text;
use crate::apply::{Api, unreachable};
use crate::host::wiring;
use crate::problem::{Code, Problem};
use crate::render::Manifest;
use crate::seams::Seams;

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn credentials(server: &str, thumbprint: &str, login: &(String, String)) -> Credentials {
    Credentials {
        server: server.to_owned(),
        user: login.0.clone(),
        password: Secret::new(login.1.clone()),
        thumbprint: Some(thumbprint.to_owned()).filter(|thumbprint| !thumbprint.is_empty()),
    }
}

/// The placement that a machine template asks for.
fn placement(spec: &Value) -> PlacementRequest {
    let devices = spec.pointer("/network/devices").and_then(Value::as_array);
    PlacementRequest {
        datacenter: text(spec, "/datacenter").to_owned(),
        folder: text(spec, "/folder").to_owned(),
        datastore: text(spec, "/datastore").to_owned(),
        resource_pool: text(spec, "/resourcePool").to_owned(),
        template: text(spec, "/template").to_owned(),
        snapshot: Some(text(spec, "/snapshot").to_owned()).filter(|name| !name.is_empty()),
        networks: devices.into_iter().flatten().map(|device| text(device, "/networkName").to_owned()).collect(),
    }
}

/// Signs in to the vCenters and resolves every name that the machine templates use. A vCenter that cannot be reached is told and waited
/// for later; everything else that does not hold is one problem, with all objections.
///
/// # Errors
/// With everything that does not hold.
pub async fn check(manifests: &[Manifest], login: Option<&(String, String)>, seams: &Seams) -> Result<(), Problem> {
    let Some(login) = login else { return Ok(()) };
    let clusters: Vec<&Manifest> = manifests.iter().filter(|manifest| manifest.kind() == "VSphereCluster").collect();
    let servers: BTreeSet<(&str, &str)> =
        clusters.iter().map(|cluster| (text(&cluster.object, "/spec/server"), text(&cluster.object, "/spec/thumbprint"))).collect();
    let mut lines = Vec::new();
    for (server, thumbprint) in &servers {
        let named = |manifest: &&Manifest| {
            let own = text(&manifest.object, "/spec/template/spec/server");
            manifest.kind() == "VSphereMachineTemplate" && (own == *server || own.is_empty() && servers.len() == 1)
        };
        let templates: Vec<&Manifest> = manifests.iter().filter(named).collect();
        let registry = wiring::vcenters(seams, "preflight");
        let outcome = objections(&templates, &registry.vcenter(&credentials(server, thumbprint, login)), seams).await;
        registry.close().await;
        lines.extend(outcome);
    }
    let mut lines = lines.into_iter();
    let Some(first) = lines.next() else { return Ok(()) };
    Err(Problem::new(Code::VCenter, first).seen_all(lines).remedy("correct what is named; nothing was applied"))
}

async fn objections(templates: &[&Manifest], vcenter: &std::sync::Arc<dyn vsphere::VCenter>, seams: &Seams) -> Vec<String> {
    match vcenter.about().await {
        Ok(_) => {}
        Err(error @ (VSphereError::Unreachable { .. } | VSphereError::Unanswered { .. })) => {
            seams.printer.line(format!("warning: {error}"));
            return Vec::new();
        }
        Err(error) => return vec![error.to_string()],
    }
    let mut objections = Vec::new();
    let mut told = BTreeSet::new();
    for manifest in templates {
        let spec = manifest.object.pointer("/spec/template/spec").unwrap_or(&Value::Null);
        let request = placement(spec);
        let error = match vcenter.place(&request).await {
            Ok(placement) if text(spec, "/cloneMode") == "linkedClone" && placement.template.snapshot.is_none() => {
                VSphereError::NoSnapshot { template: placement.template.path.clone(), wanted: request.snapshot.clone() }
            }
            Ok(_) => continue,
            Err(error) => error,
        };
        let line = error.to_string();
        if told.insert(line.clone()) {
            objections.push(format!("{}: {line}", manifest.place()));
        }
    }
    objections
}

/// Refuses an endpoint that another cluster has, or a machine of one.
///
/// # Errors
/// With who holds it.
pub async fn endpoints(api: &Api, manifests: &[Manifest], namespace: &str) -> Result<(), Problem> {
    let list = |path: &'static str| async move {
        let list = api.send(http::Method::GET, path, None, None).await.map_err(|error| unreachable(&error))?;
        Ok::<_, Problem>(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    };
    let mut held: Vec<(String, String, String)> = Vec::new();
    for other in list("/apis/infrastructure.cluster.x-k8s.io/v1beta2/vsphereclusters").await? {
        let (name, place) = (text(&other, "/metadata/name").to_owned(), text(&other, "/metadata/namespace").to_owned());
        held.push((place, name, text(&other, "/spec/controlPlaneEndpoint/host").to_lowercase()));
    }
    let addresses = list("/apis/ipam.cluster.x-k8s.io/v1beta2/ipaddresses").await?;
    for ours in manifests.iter().filter(|manifest| manifest.kind() == "VSphereCluster") {
        let host = text(&ours.object, "/spec/controlPlaneEndpoint/host").to_lowercase();
        if host.is_empty() {
            continue;
        }
        let refused = |what: String| Problem::new(Code::InvalidObject, format!("{}: the endpoint {host} is {what}", ours.place()));
        let is_other = |place: &str, name: &str| name != ours.name() || place != namespace;
        if let Some((place, name, _)) = held.iter().find(|(place, name, other)| *other == host && is_other(place, name)) {
            return Err(refused("the one of another cluster".to_owned())
                .seen(format!("VSphereCluster {place}/{name} has it"))
                .remedy("choose another address or name for this cluster's endpoint"));
        }
        held.push((namespace.to_owned(), ours.name().to_owned(), host.clone()));
        let Ok(wanted) = host.parse::<std::net::IpAddr>() else { continue };
        for address in &addresses {
            let labels = address.pointer("/metadata/labels");
            let cluster = labels.and_then(|labels| labels.get("cluster.x-k8s.io/cluster-name")).and_then(Value::as_str).unwrap_or_default();
            let place = text(address, "/metadata/namespace");
            if text(address, "/spec/address").parse() == Ok(wanted) && is_other(place, cluster) {
                return Err(refused("taken by a machine".to_owned())
                    .seen(format!("IPAddressClaim {place}/{} holds it", text(address, "/spec/claimRef/name")))
                    .remedy("choose an address outside the pools for the endpoint"));
            }
        }
    }
    Ok(())
}

/// The way to look for what is left of a cluster in its vCenter.
#[derive(Debug)]
pub struct Look {
    server: String,
    /// Or why nobody can sign in.
    credentials: Result<Credentials, String>,
    cluster: String,
    /// Whether a machine was there that may have left something.
    has_machines: bool,
}

impl Look {
    /// Learns the way while the cluster's objects are there; `None` when the cluster is on no vCenter.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn prepare(api: &Api, namespace: &str, cluster: &Value) -> Result<Option<Self>, Problem> {
        let get = |path: String| async move { api.get(&path).await.map_err(|error| unreachable(&error)) };
        let infrastructure_path = "/apis/infrastructure.cluster.x-k8s.io/v1beta2";
        let name = text(cluster, "/spec/infrastructureRef/name");
        let Some(infrastructure) = get(format!("{infrastructure_path}/namespaces/{namespace}/vsphereclusters/{name}")).await? else {
            return Ok(None);
        };
        let label = format!("?labelSelector=cluster.x-k8s.io%2Fcluster-name%3D{}", text(cluster, "/metadata/name"));
        let machines = get(format!("{infrastructure_path}/namespaces/{namespace}/vspherevms{label}")).await?;
        let identity = text(&infrastructure, "/spec/identityRef/name");
        let (place, secret) = if text(&infrastructure, "/spec/identityRef/kind") == "VSphereClusterIdentity" {
            let found = get(format!("{infrastructure_path}/vsphereclusteridentities/{identity}")).await?;
            let secret = found.as_ref().map(|found| text(found, "/spec/secretName").to_owned()).unwrap_or_default();
            (IDENTITY_NAMESPACE.to_owned(), secret)
        } else {
            (namespace.to_owned(), identity.to_owned())
        };
        let found = if secret.is_empty() { None } else { get(format!("/api/v1/namespaces/{place}/secrets/{secret}")).await? };
        let login = found.and_then(|secret| secret_text(&secret, "username").zip(secret_text(&secret, "password")));
        let (server, thumbprint) = (text(&infrastructure, "/spec/server"), text(&infrastructure, "/spec/thumbprint"));
        Ok(Some(Self {
            server: server.to_owned(),
            credentials: login.map(|login| credentials(server, thumbprint, &login)).ok_or_else(|| {
                format!("the Secret {place}/{secret} with the login to {server} was not there or had no username and password")
            }),
            cluster: text(cluster, "/metadata/uid").to_owned(),
            has_machines: machines.as_ref().and_then(|list| list.get("items")?.as_array()).is_some_and(|items| !items.is_empty()),
        }))
    }

    /// The VMs that carry the marker of the cluster, and where was looked.
    ///
    /// # Errors
    /// When vCenter cannot be asked: then nothing is proven.
    pub async fn left(&self, seams: &Seams) -> Result<(Vec<String>, String), Problem> {
        let unproven = |because: String| {
            Problem::new(Code::LeftBehind, "the cluster's objects are gone; whether machines are left in vCenter could not be looked up")
                .because(because)
                .remedy(format!("look in vCenter {} for VMs with {} = {}", self.server, vsphere::marker::CLUSTER_KEY, self.cluster))
        };
        let credentials = match &self.credentials {
            Ok(credentials) => credentials,
            Err(why) if self.has_machines => return Err(unproven(why.clone())),
            Err(why) => return Ok((Vec::new(), format!("no machine was there; vCenter was not looked at: {why}"))),
        };
        let registry = wiring::vcenters(seams, "look");
        let found = registry.vcenter(credentials).machines_of_cluster(&self.cluster).await;
        registry.close().await;
        let found = found.map_err(|error| unproven(error.to_string()))?;
        let left = found.into_iter().map(|name| format!("VM {name} in vCenter {}", self.server)).collect();
        Ok((left, format!("vCenter {} and the API were looked at", self.server)))
    }
}
