//! The machine configuration as a node reads it: text in, what the machine is to be out.
//!
//! A reader of its own, written from the format and not from any client's generator, so that a configuration which a client makes
//! wrongly fails here as it would on a real machine. It is strict: an unknown key, an unknown document or a contradiction is an error,
//! and the machine stays in maintenance mode. The reader decides nothing about the cluster's state.

mod documents;
mod known;
mod legacy;

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::Value;
use thiserror::Error;

use super::release::Release;
use known::Known;

/// Why a configuration is refused. The texts are what the machine's log says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigurationError {
    /// Not YAML.
    #[error("the configuration is not YAML: {0}")]
    Syntax(String),
    /// Keys that the release's decoder does not know.
    #[error("unknown keys found during decoding: {}", .0.join(", "))]
    UnknownKeys(Vec<String>),
    /// A document of a kind that the release does not know.
    #[error("{kind:?} {api_version:?}: not registered (this is Talos {release})")]
    UnknownKind { kind: String, api_version: String, release: String },
    /// The same document twice.
    #[error("duplicate document: {0}")]
    Duplicate(String),
    /// What it says cannot be.
    #[error("{} error(s) occurred: {}", .0.len(), .0.join("; "))]
    Invalid(Vec<String>),
    /// Only documents beside the main one: enough to be reached, not to run.
    #[error("the configuration has no v1alpha1 document")]
    Partial,
}

/// What kind of machine it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineType {
    ControlPlane,
    Worker,
}

/// A certificate authority: PEM texts.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeyPair {
    pub certificate: String,
    pub key: Option<String>,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("has_key", &self.key.is_some()).finish_non_exhaustive()
    }
}

/// A node's taint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

/// Which adapter a section is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adapter {
    /// `eth0`: the first adapter, and so on.
    Name(String),
    /// A MAC address; compared without regard to case.
    Hardware(String),
    /// Any adapter that the selector does not exclude.
    Any,
}

/// Settings of a network adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub adapter: Adapter,
    /// With prefix length; a bare address counts as a host.
    pub addresses: Vec<String>,
    pub dhcp: bool,
    /// An address that one control plane holds at a time.
    pub vip: Option<String>,
}

/// The pod network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cni {
    Flannel,
    /// Somebody else brings it.
    None,
    /// Manifests at these URLs.
    Custom(Vec<String>),
}

/// Which pods may ask for Talos credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TalosAccess {
    pub roles: Vec<String>,
    pub namespaces: Vec<String>,
}

/// The kubelet's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubelet {
    /// Absent: the release's default.
    pub image: Option<String>,
    pub register_with_taints: Vec<Taint>,
    /// Without dashes.
    pub extra_args: BTreeMap<String, String>,
    /// Networks the node's address must be in; with `!` it must not.
    pub valid_subnets: Vec<String>,
}

/// The cluster a machine is to be part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub id: String,
    pub name: String,
    /// The host of the control plane's endpoint: a name or an address.
    pub endpoint_host: String,
    pub endpoint_port: u16,
    /// The port each API server listens on.
    pub api_port: u16,
    pub kubernetes_ca: KeyPair,
    pub etcd_ca: Option<KeyPair>,
    pub api_server_image: Option<String>,
    pub api_server_sans: Vec<String>,
    pub controller_manager_image: Option<String>,
    pub scheduler_image: Option<String>,
    /// `None`: switched off.
    pub proxy: Option<Option<String>>,
    /// `None`: switched off.
    pub core_dns: Option<Option<String>>,
    pub cni: Cni,
    pub service_subnets: Vec<String>,
    pub pod_subnets: Vec<String>,
    pub dns_domain: String,
    pub extra_manifests: Vec<String>,
    /// Name and content.
    pub inline_manifests: Vec<(String, String)>,
    pub schedules_on_control_planes: bool,
    pub external_cloud_provider: bool,
    pub has_discovery: bool,
}

/// What a machine is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    pub machine_type: MachineType,
    /// Type `init`: etcd is bootstrapped without being asked.
    pub bootstraps_itself: bool,
    pub os_ca: KeyPair,
    /// Further authorities whose clients are let in (PEM).
    pub accepted_os_cas: Vec<String>,
    pub token: String,
    pub cert_sans: Vec<String>,
    pub hostname: Option<String>,
    pub interfaces: Vec<Interface>,
    pub kubelet: Kubelet,
    pub node_labels: BTreeMap<String, String>,
    pub node_annotations: BTreeMap<String, String>,
    pub node_taints: Vec<Taint>,
    pub talos_access: Option<TalosAccess>,
    pub cluster: Cluster,
    /// The version in the API server's, or else the kubelet's, image; the release's default when there is none.
    pub kubernetes_version: String,
    /// The version in the kubelet's image, or the release's default.
    pub kubelet_version: String,
}

impl Configuration {
    /// Reads the configuration as Talos `release` does, in cloud mode.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &[u8], release: &Release) -> Result<Self, ConfigurationError> {
        let text = std::str::from_utf8(text).map_err(|error| ConfigurationError::Syntax(error.to_string()))?;
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| ConfigurationError::Syntax(error.to_string()))?;
        let documents: Vec<Value> = documents.into_iter().filter(|document| !document.is_null()).collect();
        check_known(&documents, release)?;
        let main = documents.iter().find(|document| document.get("kind").is_none()).ok_or(ConfigurationError::Partial)?;
        let mut draft = legacy::draft(main);
        for document in &documents {
            if let Some(kind) = document.get("kind").and_then(Value::as_str) {
                documents::apply(&mut draft, kind, document);
            }
        }
        draft.finish(release)
    }

    /// Whether it is a control plane.
    pub fn is_control_plane(&self) -> bool {
        self.machine_type == MachineType::ControlPlane
    }
}

/// The whole text must be known to the release, before anything of it is looked at.
fn check_known(documents: &[Value], release: &Release) -> Result<(), ConfigurationError> {
    let known = Known::new();
    let mut seen = Vec::new();
    let mut unknown = Vec::new();
    for document in documents {
        if !document.is_object() {
            return Err(ConfigurationError::Syntax("a document is not a map".to_owned()));
        }
        let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default();
        let name = document.get("name").and_then(Value::as_str).unwrap_or_default();
        let identity = if kind.is_empty() { "v1alpha1".to_owned() } else { format!("{kind} {name}").trim_end().to_owned() };
        if seen.contains(&identity) {
            return Err(ConfigurationError::Duplicate(identity));
        }
        seen.push(identity);
        if kind.is_empty() {
            unknown.extend(known.unknown_in_legacy(document, release));
        } else {
            let api_version = document.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
            let paths = known.unknown_in_document(kind, document, release).filter(|_| api_version == "v1alpha1");
            let paths = paths.ok_or_else(|| ConfigurationError::UnknownKind {
                kind: kind.to_owned(),
                api_version: api_version.to_owned(),
                release: release.to_string(),
            })?;
            unknown.extend(paths.into_iter().map(|path| format!("{kind}.{path}")));
        }
    }
    if unknown.is_empty() { Ok(()) } else { Err(ConfigurationError::UnknownKeys(unknown)) }
}

/// A configuration while its documents are put together.
#[derive(Debug, Default)]
struct Draft {
    version: Option<String>,
    persist: Option<bool>,
    machine_type: String,
    os_ca: KeyPair,
    accepted_os_cas: Vec<String>,
    token: String,
    cert_sans: Vec<String>,
    hostname: Option<String>,
    hostname_auto: Option<String>,
    interfaces: Vec<Interface>,
    kubelet: Kubelet,
    node_labels: BTreeMap<String, String>,
    node_annotations: BTreeMap<String, String>,
    node_taints: Vec<Taint>,
    talos_access: Option<TalosAccess>,
    has_cluster: bool,
    id: String,
    secret: String,
    name: String,
    endpoint: String,
    api_port: Option<u16>,
    kubernetes_ca: KeyPair,
    etcd_ca: Option<KeyPair>,
    cluster_token: String,
    api_server_image: Option<String>,
    api_server_sans: Vec<String>,
    controller_manager_image: Option<String>,
    scheduler_image: Option<String>,
    proxy_disabled: bool,
    proxy_image: Option<String>,
    core_dns_disabled: bool,
    core_dns_image: Option<String>,
    cni_name: Option<String>,
    cni_urls: Vec<String>,
    service_subnets: Vec<String>,
    pod_subnets: Vec<String>,
    dns_domain: Option<String>,
    extra_manifests: Vec<String>,
    inline_manifests: Vec<(String, String)>,
    schedules_on_control_planes: bool,
    external_cloud_provider: bool,
    has_discovery: bool,
    problems: Vec<String>,
}

impl Draft {
    fn finish(mut self, release: &Release) -> Result<Configuration, ConfigurationError> {
        let mut problems = std::mem::take(&mut self.problems);
        let mut require = |holds: bool, text: &str| {
            if !holds {
                problems.push(text.to_owned());
            }
        };
        require(self.version.as_deref() == Some("v1alpha1"), "version must be v1alpha1");
        require(self.persist != Some(false), "persist should be true, or not set");
        let (machine_type, bootstraps_itself) = match self.machine_type.as_str() {
            "controlplane" => (MachineType::ControlPlane, false),
            "init" => (MachineType::ControlPlane, true),
            "worker" | "join" | "" => (MachineType::Worker, false),
            _ => {
                require(false, "invalid machine type: expected controlplane, worker or init");
                (MachineType::Worker, false)
            }
        };
        let is_control_plane = machine_type == MachineType::ControlPlane;
        require(!self.token.is_empty(), "trustd token is required (.machine.token)");
        require(!self.os_ca.certificate.is_empty(), "issuing Talos API CA is required (.machine.ca.crt)");
        require(self.has_cluster, "cluster instructions are required");
        require(!self.cluster_token.is_empty(), "bootstrap token is required (.cluster.token)");
        require(!self.kubernetes_ca.certificate.is_empty(), "issuing Kubernetes API CA is required (.cluster.ca.crt)");
        if is_control_plane {
            require(self.os_ca.key.is_some(), "issuing Talos API CA key is required for a control plane (.machine.ca.key)");
            require(self.kubernetes_ca.key.is_some(), "issuing Kubernetes API CA key is required for a control plane (.cluster.ca.key)");
        } else {
            require(self.os_ca.key.is_none(), "issuing Talos API CA key is not allowed on worker nodes (.machine.ca.key)");
            require(self.etcd_ca.is_none(), "etcd configuration is not allowed on worker nodes (.cluster.etcd)");
            require(self.interfaces.iter().all(|interface| interface.vip.is_none()), "virtual (shared) IP is not allowed on worker nodes");
            require(self.talos_access.is_none(), "feature API access is not allowed on worker nodes");
        }
        require(
            !self.has_discovery || (!self.id.is_empty() && !self.secret.is_empty()),
            "cluster discovery service requires .cluster.id and .cluster.secret",
        );
        require(
            self.hostname.is_none() || self.hostname_auto.as_deref().is_none_or(|auto| auto == "off"),
            "static hostname is already set in v1alpha1 config, and HostnameConfig asks for an automatic one",
        );
        for authority in [Some(&self.os_ca), Some(&self.kubernetes_ca), self.etcd_ca.as_ref()].into_iter().flatten() {
            let is_pem = authority.certificate.is_empty() || authority.certificate.contains("-----BEGIN CERTIFICATE-----");
            require(is_pem, "a certificate authority's certificate is not PEM");
        }
        let endpoint = read_endpoint(&self.endpoint);
        require(endpoint.is_some(), "the cluster endpoint must be a URL with scheme and host (.cluster.controlPlane.endpoint)");
        let cni = match self.cni_name.as_deref() {
            None | Some("flannel") => Cni::Flannel,
            Some("none") => Cni::None,
            Some("custom") => Cni::Custom(self.cni_urls),
            Some(_) => {
                require(false, "cni name should be one of [custom, flannel, none]");
                Cni::None
            }
        };
        for interface in &self.interfaces {
            let are_addresses = interface.addresses.iter().all(|address| bare(address).parse::<std::net::IpAddr>().is_ok());
            require(are_addresses, "an address of a network interface is not an IP address or CIDR");
        }
        let mut names: Vec<&str> = self.inline_manifests.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        require(names.len() == self.inline_manifests.len(), "inline manifest names must be unique");
        let Some((endpoint_host, endpoint_port)) = endpoint else { return Err(ConfigurationError::Invalid(problems)) };
        if !problems.is_empty() {
            return Err(ConfigurationError::Invalid(problems));
        }
        let default = format!("v{}", release.default_kubernetes());
        let kubelet_version = self.kubelet.image.as_deref().and_then(image_version).unwrap_or_else(|| default.clone());
        let kubernetes_version = self.api_server_image.as_deref().and_then(image_version).unwrap_or_else(|| kubelet_version.clone());
        Ok(Configuration {
            machine_type,
            bootstraps_itself,
            os_ca: self.os_ca,
            accepted_os_cas: self.accepted_os_cas,
            token: self.token,
            cert_sans: self.cert_sans,
            hostname: self.hostname,
            interfaces: self.interfaces,
            kubelet: self.kubelet,
            node_labels: self.node_labels,
            node_annotations: self.node_annotations,
            node_taints: self.node_taints,
            talos_access: self.talos_access,
            cluster: Cluster {
                id: self.id,
                name: self.name,
                endpoint_host,
                endpoint_port,
                api_port: self.api_port.unwrap_or(6443),
                kubernetes_ca: self.kubernetes_ca,
                etcd_ca: self.etcd_ca,
                api_server_image: self.api_server_image,
                api_server_sans: self.api_server_sans,
                controller_manager_image: self.controller_manager_image,
                scheduler_image: self.scheduler_image,
                proxy: (!self.proxy_disabled).then_some(self.proxy_image),
                core_dns: (!self.core_dns_disabled).then_some(self.core_dns_image),
                cni,
                service_subnets: or_default(self.service_subnets, "10.96.0.0/12"),
                pod_subnets: or_default(self.pod_subnets, "10.244.0.0/16"),
                dns_domain: self.dns_domain.unwrap_or_else(|| "cluster.local".to_owned()),
                extra_manifests: self.extra_manifests,
                inline_manifests: self.inline_manifests,
                schedules_on_control_planes: self.schedules_on_control_planes,
                external_cloud_provider: self.external_cloud_provider,
                has_discovery: self.has_discovery,
            },
            kubernetes_version,
            kubelet_version,
        })
    }
}

/// The address without its prefix length.
pub fn bare(address: &str) -> &str {
    address.split('/').next().unwrap_or(address)
}

fn or_default(list: Vec<String>, default: &str) -> Vec<String> {
    if list.is_empty() { vec![default.to_owned()] } else { list }
}

/// The tag of an image, when it is a version.
fn image_version(image: &str) -> Option<String> {
    let (_, tag) = image.split('@').next()?.rsplit_once(':')?;
    tag.strip_prefix('v').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())).map(|_| tag.to_owned())
}

/// Host and port of `https://host[:port]`.
fn read_endpoint(url: &str) -> Option<(String, u16)> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let authority = rest.split('/').next()?;
    let (host, port) = match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(443), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// The PEM text under base64, as the document without a kind has it. An empty text stays empty.
fn pem_from_base64(text: &str) -> Option<String> {
    let compact: String = text.split_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(compact).ok()?;
    String::from_utf8(bytes).ok()
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(scalar)
}

/// A scalar as text, whatever type YAML gave it.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    value.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(scalar).collect()
}

fn map_of_texts(value: &Value, key: &str) -> BTreeMap<String, String> {
    let map = value.get(key).and_then(Value::as_object).into_iter().flatten();
    map.map(|(name, value)| (name.clone(), scalar(value).unwrap_or_default())).collect()
}

fn flag(value: &Value, key: &str) -> Option<bool> {
    value.get(key).and_then(Value::as_bool)
}

fn taints_by_key(value: Option<&Value>) -> Vec<Taint> {
    let map = value.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(key, value)| {
        let text = scalar(value)?;
        let (value, effect) = text.split_once(':').unwrap_or(("", text.as_str()));
        Some(Taint { key: key.clone(), value: value.to_owned(), effect: effect.to_owned() })
    })
    .collect()
}

fn registered_taints(extra_config: Option<&Value>) -> Vec<Taint> {
    let list = extra_config.and_then(|config| config.get("registerWithTaints")).and_then(Value::as_array).into_iter().flatten();
    list.map(|taint| Taint {
        key: text(taint, "key").unwrap_or_default(),
        value: text(taint, "value").unwrap_or_default(),
        effect: text(taint, "effect").unwrap_or_default(),
    })
    .collect()
}

#[cfg(test)]
mod tests;
