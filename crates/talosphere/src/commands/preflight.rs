//! What is checked against vCenter before anything is applied, and what is looked for there after everything is deleted. Reads only.

use std::collections::BTreeSet;

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

/// Signs in to the vCenter and resolves every name that the machine templates use. A vCenter that cannot be reached is told and waited
/// for later; everything else that does not hold is one problem, with all objections.
///
/// # Errors
/// With everything that does not hold.
pub async fn check(manifests: &[Manifest], login: Option<&(String, String)>, seams: &Seams) -> Result<(), Problem> {
    let Some(cluster) = manifests.iter().find(|manifest| manifest.kind() == "VSphereCluster") else { return Ok(()) };
    let Some(login) = login else { return Ok(()) };
    let server = text(&cluster.object, "/spec/server");
    let registry = wiring::vcenters(seams, "preflight");
    let outcome =
        objections(manifests, &registry.vcenter(&credentials(server, text(&cluster.object, "/spec/thumbprint"), login)), seams).await;
    registry.close().await;
    let objections = outcome?;
    let mut lines = objections.into_iter();
    let Some(first) = lines.next() else { return Ok(()) };
    Err(Problem::new(Code::VCenter, first).seen_all(lines).remedy("correct what is named; nothing was applied"))
}

async fn objections(manifests: &[Manifest], vcenter: &std::sync::Arc<dyn vsphere::VCenter>, seams: &Seams) -> Result<Vec<String>, Problem> {
    match vcenter.about().await {
        Ok(_) => {}
        Err(error @ (VSphereError::Unreachable { .. } | VSphereError::Unanswered { .. })) => {
            seams.printer.line(format!("warning: {error}"));
            return Ok(Vec::new());
        }
        Err(error) => return Ok(vec![error.to_string()]),
    }
    let mut objections = Vec::new();
    let mut told = BTreeSet::new();
    for manifest in manifests.iter().filter(|manifest| manifest.kind() == "VSphereMachineTemplate") {
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
    Ok(objections)
}

/// Refuses an endpoint address that another cluster has, or a machine of one.
///
/// # Errors
/// With who holds it.
pub async fn endpoint(api: &Api, manifests: &[Manifest], namespace: &str) -> Result<(), Problem> {
    let Some(ours) = manifests.iter().find(|manifest| manifest.kind() == "VSphereCluster") else { return Ok(()) };
    let host = text(&ours.object, "/spec/controlPlaneEndpoint/host");
    if host.is_empty() {
        return Ok(());
    }
    let items = |list: Value| list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let list = api
        .send(http::Method::GET, "/apis/infrastructure.cluster.x-k8s.io/v1beta2/vsphereclusters", None, None)
        .await
        .map_err(|error| unreachable(&error))?;
    for other in items(list) {
        let (name, place) = (text(&other, "/metadata/name"), text(&other, "/metadata/namespace"));
        let is_same = name == ours.name() && place == namespace;
        if !is_same && text(&other, "/spec/controlPlaneEndpoint/host") == host {
            return Err(Problem::new(Code::InvalidObject, format!("{}: the endpoint {host} is the one of another cluster", ours.place()))
                .seen(format!("VSphereCluster {place}/{name} has it"))
                .remedy("choose another address or name for this cluster's endpoint"));
        }
    }
    if host.parse::<std::net::IpAddr>().is_err() {
        return Ok(());
    }
    let list = api
        .send(http::Method::GET, "/apis/ipam.cluster.x-k8s.io/v1beta2/ipaddresses", None, None)
        .await
        .map_err(|error| unreachable(&error))?;
    for address in items(list) {
        let cluster =
            address.pointer("/metadata/labels").and_then(|labels| labels.get("cluster.x-k8s.io/cluster-name")).and_then(Value::as_str);
        let is_ours = cluster == Some(ours.name()) && text(&address, "/metadata/namespace") == namespace;
        if text(&address, "/spec/address") == host && !is_ours {
            let holder = format!("{}/{}", text(&address, "/metadata/namespace"), text(&address, "/spec/claimRef/name"));
            return Err(Problem::new(Code::InvalidObject, format!("{}: the endpoint {host} is taken by a machine", ours.place()))
                .seen(format!("IPAddressClaim {holder} holds it"))
                .remedy("choose an address outside the pools for the endpoint"));
        }
    }
    Ok(())
}

/// The way to look for what is left of a cluster in its vCenter.
#[derive(Debug)]
pub struct Look {
    credentials: Credentials,
    cluster: String,
}

impl Look {
    /// Learns the way while the cluster's objects are there; `None` when the cluster is on no vCenter.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn prepare(api: &Api, namespace: &str, cluster: &Value) -> Result<Option<Self>, Problem> {
        let name = text(cluster, "/spec/infrastructureRef/name");
        let path = format!("/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/{namespace}/vsphereclusters/{name}");
        let Some(infrastructure) = api.get(&path).await.map_err(|error| unreachable(&error))? else { return Ok(None) };
        let secret = text(&infrastructure, "/spec/identityRef/name");
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{secret}");
        let Some(secret) = api.get(&path).await.map_err(|error| unreachable(&error))? else { return Ok(None) };
        let Some(login) = secret_text(&secret, "username").zip(secret_text(&secret, "password")) else { return Ok(None) };
        let (server, thumbprint) = (text(&infrastructure, "/spec/server"), text(&infrastructure, "/spec/thumbprint"));
        Ok(Some(Self { credentials: credentials(server, thumbprint, &login), cluster: text(cluster, "/metadata/uid").to_owned() }))
    }

    /// The server that is looked at.
    pub fn server(&self) -> &str {
        &self.credentials.server
    }

    /// The VMs that carry the marker of the cluster.
    ///
    /// # Errors
    /// When vCenter cannot be asked: then nothing is proven.
    pub async fn left(&self, seams: &Seams) -> Result<Vec<String>, Problem> {
        let registry = wiring::vcenters(seams, "look");
        let found = registry.vcenter(&self.credentials).machines_of_cluster(&self.cluster).await;
        registry.close().await;
        let found = found.map_err(|error| {
            Problem::new(Code::LeftBehind, "whether machines are left in vCenter could not be looked up")
                .because(error.to_string())
                .remedy("run the same command again")
        })?;
        Ok(found.into_iter().map(|name| format!("VM {name} in vCenter {}", self.credentials.server)).collect())
    }
}
