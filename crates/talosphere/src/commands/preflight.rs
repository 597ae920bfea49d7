//! What is checked against vCenter before anything is applied, and what is looked for there after everything is deleted. Reads only.

use std::collections::BTreeSet;
use std::sync::Arc;

use apimachinery::meta::text_at as text;
use apimachinery::names::NameRule;
use controllers::vspherecluster::identity::IDENTITY_NAMESPACE;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use vsphere::{Credentials, PlacementRequest, Registry, Secret, VCenter, VCenters as _, VSphereError};

use super::clusters::secret_text;
use crate::apply::{Api, unreachable};
use crate::host::wiring;
use crate::problem::{Code, Problem};
use crate::render::Manifest;
use crate::seams::Seams;

fn credentials(server: &str, thumbprint: &str, login: &Login) -> Credentials {
    Credentials {
        server: server.to_owned(),
        user: login.user.clone(),
        password: Secret::new(login.password.clone()),
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
pub async fn check(manifests: &[Manifest], login: Option<&Login>, seams: &Seams) -> Result<(), Problem> {
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
        let names = |cluster: &&&Manifest| text(&cluster.object, "/spec/server") == *server;
        let place = clusters.iter().find(names).map(|cluster| format!("{}: ", cluster.place())).unwrap_or_default();
        let vcenter = registry.vcenter(&credentials(server, thumbprint, login));
        lines.extend(objections(&place, &templates, &vcenter, login, seams).await);
        registry.close().await;
    }
    let mut lines = lines.into_iter();
    let Some(first) = lines.next() else { return Ok(()) };
    Err(Problem::new(Code::VCenter, first).seen_all(lines).remedy("correct what is named; nothing was applied"))
}

/// What does not hold, each line with where it is written: at a template, or, about the server as such, at `place`.
async fn objections(
    place: &str,
    templates: &[&Manifest],
    vcenter: &std::sync::Arc<dyn vsphere::VCenter>,
    login: &Login,
    seams: &Seams,
) -> Vec<String> {
    match vcenter.about().await {
        Ok(_) => {}
        Err(error @ (VSphereError::Unreachable { .. } | VSphereError::Unanswered { .. })) => {
            seams.printer.line(format!("warning: {error}"));
            return Vec::new();
        }
        Err(error @ VSphereError::Login { .. }) => return vec![format!("{place}{error} (the login is from {})", login.source)],
        Err(error) => return vec![format!("{place}{error}")],
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

/// What is wrong with an endpoint's host, in small letters; none for an address or a DNS name.
fn malformed(host: &str) -> Option<String> {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    if let Some(bad) = host.split('.').find(|label| !NameRule::Label.check(label, false).is_empty()) {
        return Some(format!("{bad:?} is no part of a DNS name"));
    }
    let is_number = host.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
    is_number.then(|| "it has the form of an IPv4 address and is none".to_owned())
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
        if let Some(why) = malformed(&host) {
            return Err(Problem::new(
                Code::InvalidObject,
                format!("{}: the endpoint {host:?} is neither an address nor a name", ours.place()),
            )
            .because(why)
            .remedy("write the address or the DNS name alone into spec.controlPlaneEndpoint.host; the port has its own field"));
        }
        let gateways = manifests.iter().filter(|manifest| matches!(manifest.kind(), "InClusterIPPool" | "GlobalInClusterIPPool"));
        if let Some(pool) = gateways.into_iter().find(|pool| text(&pool.object, "/spec/gateway").eq_ignore_ascii_case(&host)) {
            return Err(Problem::new(Code::InvalidObject, format!("{}: the endpoint {host} is the gateway of a pool", ours.place()))
                .seen(format!("{} has it", pool.place()))
                .remedy("choose a free address for the endpoint"));
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

/// What there is to prove about a deleted cluster, and the way to look. Kept in the state directory from before the deletion until it is
/// proven, so that the same command again goes on after a kill, when the objects that described the cluster are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The Cluster's uid.
    pub cluster: String,
    /// None for a cluster that is on no vCenter.
    vcenter: Option<Way>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Way {
    server: String,
    thumbprint: String,
    /// Namespace and name of the Secret with the login.
    secret: (String, String),
    /// Whether a machine was there that may have left something.
    has_machines: bool,
}

/// A login to a vCenter, and where it is from.
#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub password: String,
    pub source: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("source", &self.source).finish_non_exhaustive()
    }
}

impl Look {
    /// Learns the way while the cluster's objects are there.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn prepare(api: &Api, namespace: &str, cluster: &Value) -> Result<Self, Problem> {
        let get = |path: String| async move { api.get(&path).await.map_err(|error| unreachable(&error)) };
        let uid = text(cluster, "/metadata/uid").to_owned();
        let infrastructure_path = "/apis/infrastructure.cluster.x-k8s.io/v1beta2";
        let name = text(cluster, "/spec/infrastructureRef/name");
        let path = format!("{infrastructure_path}/namespaces/{namespace}/vsphereclusters/{name}");
        let found = if name.is_empty() { None } else { get(path).await? };
        let Some(infrastructure) = found else { return Ok(Self { cluster: uid, vcenter: None }) };
        let label = format!("?labelSelector=cluster.x-k8s.io%2Fcluster-name%3D{}", text(cluster, "/metadata/name"));
        let machines = get(format!("{infrastructure_path}/namespaces/{namespace}/vspherevms{label}")).await?;
        let identity = text(&infrastructure, "/spec/identityRef/name");
        let secret = if text(&infrastructure, "/spec/identityRef/kind") == "VSphereClusterIdentity" {
            let found = get(format!("{infrastructure_path}/vsphereclusteridentities/{identity}")).await?;
            let secret = found.as_ref().map(|found| text(found, "/spec/secretName").to_owned()).unwrap_or_default();
            (IDENTITY_NAMESPACE.to_owned(), secret)
        } else {
            (namespace.to_owned(), identity.to_owned())
        };
        let has_machines = machines.as_ref().and_then(|list| list.get("items")?.as_array()).is_some_and(|items| !items.is_empty());
        let (server, thumbprint) = (text(&infrastructure, "/spec/server").to_owned(), text(&infrastructure, "/spec/thumbprint").to_owned());
        Ok(Self { cluster: uid, vcenter: Some(Way { server, thumbprint, secret, has_machines }) })
    }

    /// Namespace and name of the Secret with the login, if there is to be one.
    pub fn secret(&self) -> Option<&(String, String)> {
        self.vcenter.as_ref().map(|way| &way.secret).filter(|(_, name)| !name.is_empty())
    }

    /// The login, while it is there.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn login(&self, api: &Api) -> Result<Option<Login>, Problem> {
        let Some((place, name)) = self.secret() else { return Ok(None) };
        let path = format!("/api/v1/namespaces/{place}/secrets/{name}");
        let found = api.get(&path).await.map_err(|error| unreachable(&error))?;
        let login = found.and_then(|secret| secret_text(&secret, "username").zip(secret_text(&secret, "password")));
        Ok(login.map(|(user, password)| Login { user, password, source: format!("Secret {place}/{name}") }))
    }

    /// The vCenter that the cluster is on, and what is to be closed afterwards.
    pub fn vcenter(&self, login: &Login, seams: &Seams) -> Option<(Registry, Arc<dyn VCenter>)> {
        let way = self.vcenter.as_ref()?;
        let registry = wiring::vcenters(seams, "look");
        let vcenter = registry.vcenter(&credentials(&way.server, &way.thumbprint, login));
        Some((registry, vcenter))
    }

    /// The VMs that carry the marker of the cluster, and where was looked.
    ///
    /// # Errors
    /// When vCenter cannot be asked: then nothing is proven.
    pub async fn left(&self, login: Option<&Login>, seams: &Seams) -> Result<(Vec<String>, String), Problem> {
        let Some(way) = &self.vcenter else { return Ok((Vec::new(), "the API was looked at; the cluster named no vCenter".to_owned())) };
        let unproven = |because: String| {
            Problem::new(Code::LeftBehind, "the cluster's objects are gone; whether machines are left in vCenter could not be looked up")
                .because(because)
                .remedy(format!(
                    "run the same command again when that is mended; or look in vCenter {} for VMs with {} = {}",
                    way.server,
                    vsphere::marker::CLUSTER_KEY,
                    self.cluster
                ))
        };
        let Some(login) = login else {
            let (place, name) = &way.secret;
            let why = format!("Secret {place}/{name} with the login to {} is not there, or has no username and password", way.server);
            return if way.has_machines {
                Err(unproven(format!("{why}; VSPHERE_USERNAME and VSPHERE_PASSWORD, which would do as well, are not set")))
            } else {
                Ok((Vec::new(), format!("no machine was there; vCenter was not looked at: {why}")))
            };
        };
        let registry = wiring::vcenters(seams, "look");
        let found = registry.vcenter(&credentials(&way.server, &way.thumbprint, login)).machines_of_cluster(&self.cluster).await;
        registry.close().await;
        let found = found.map_err(|error| unproven(error.to_string()))?;
        let left = found.into_iter().map(|name| format!("VM {name} in vCenter {}", way.server)).collect();
        Ok((left, format!("vCenter {} and the API were looked at", way.server)))
    }
}

#[cfg(test)]
mod tests {
    use super::malformed;

    #[test]
    fn an_endpoint_is_an_address_or_a_name() {
        for good in ["10.0.0.1", "fd00::1", "k8s", "demo.k8s.example.com", "a-1.b"] {
            assert_eq!(malformed(good), None, "{good}");
        }
        for bad in ["999.1.1.1", "1.2.3", "h.example.com:7443", "https://h", "a..b", "-a.b", "a b"] {
            assert!(malformed(bad).is_some(), "{bad}");
        }
    }
}
