//! The generator: one function per section, in the order in which Talos prints them.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::{ConfigError, MachineConfig, MachineType};
use crate::contract::Contract;
use crate::secrets::{Bundle, EncryptionSecret, PemPair};
use crate::yaml::Layout;

const KUBE_PRISM_PORT: u16 = 7445;

/// A network plugin given by manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cni {
    /// `custom`, `flannel` or `none`.
    pub name: String,
    pub urls: Vec<String>,
}

/// What a configuration is generated from.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    pub cluster_name: String,
    /// `https://host:port` of the Kubernetes API.
    pub endpoint: String,
    /// With or without `v`.
    pub kubernetes_version: String,
    pub contract: Contract,
    pub bundle: &'a Bundle,
    /// CIDRs as the user wrote them (host bits stay); the defaults when empty.
    pub pod_subnets: Vec<String>,
    pub service_subnets: Vec<String>,
    /// `cluster.local` when absent.
    pub dns_domain: Option<String>,
    pub additional_sans: Vec<String>,
    pub allow_scheduling_on_control_planes: bool,
    pub install_disk: Option<String>,
    pub install_image: Option<String>,
    pub install_kernel_args: Vec<String>,
    pub sysctls: BTreeMap<String, String>,
    pub cni: Option<Cni>,
    /// Registry to the endpoints that stand for it.
    pub registry_mirrors: IndexMap<String, Vec<String>>,
    /// The API server's port on the machine, when it differs from the endpoint's.
    pub local_api_server_port: Option<u16>,
}

impl<'a> Input<'a> {
    /// The required inputs; everything else at its default.
    pub fn new(cluster_name: &str, endpoint: &str, kubernetes_version: &str, contract: Contract, bundle: &'a Bundle) -> Self {
        Self {
            cluster_name: cluster_name.to_owned(),
            endpoint: endpoint.to_owned(),
            kubernetes_version: kubernetes_version.to_owned(),
            contract,
            bundle,
            pod_subnets: Vec::new(),
            service_subnets: Vec::new(),
            dns_domain: None,
            additional_sans: Vec::new(),
            allow_scheduling_on_control_planes: false,
            install_disk: None,
            install_image: None,
            install_kernel_args: Vec::new(),
            sysctls: BTreeMap::new(),
            cni: None,
            registry_mirrors: IndexMap::new(),
            local_api_server_port: None,
        }
    }

    fn image(&self, name: &str) -> String {
        let version = self.kubernetes_version.trim_start_matches('v');
        match name {
            "kubelet" => format!("ghcr.io/siderolabs/kubelet:v{version}"),
            _ => format!("registry.k8s.io/{name}:v{version}"),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let input = |what, value: &str, reason| Err(ConfigError::Input { what, value: value.to_owned(), reason });
        if self.cluster_name.is_empty() {
            return input("the cluster name", "", "it is empty");
        }
        if !self.kubernetes_version.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()) {
            return input("the Kubernetes version", &self.kubernetes_version, "expected MAJOR.MINOR.PATCH, with or without v");
        }
        if endpoint_host(&self.endpoint).is_none_or(str::is_empty) {
            return input("the cluster endpoint", &self.endpoint, "expected https://HOST:PORT");
        }
        Ok(())
    }

    /// The host of the endpoint, without brackets.
    fn host(&self) -> &str {
        endpoint_host(&self.endpoint).unwrap_or_default()
    }

    fn subnets(&self, given: &[String], four: &str, six: &str) -> Value {
        if !given.is_empty() {
            return json!(given);
        }
        json!([if self.host().parse::<Ipv6Addr>().is_ok() { six } else { four }])
    }
}

fn endpoint_host(endpoint: &str) -> Option<&str> {
    let rest = endpoint.strip_prefix("https://")?.split('/').next()?;
    if let Some(six) = rest.strip_prefix('[') {
        return six.split_once(']').map(|(host, _)| host);
    }
    Some(rest.rsplit_once(':').map_or(rest, |(host, _)| host))
}

pub(crate) fn encode_pem(pem: &str) -> String {
    STANDARD.encode(pem)
}

pub(crate) fn decode_pem(encoded: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()
}

/// A certificate with its key, or with an empty one for machines that must not hold it.
fn authority(pair: &PemPair, has_key: bool) -> Value {
    json!({ "crt": encode_pem(&pair.certificate), "key": if has_key { encode_pem(&pair.key) } else { String::new() } })
}

/// Generates the configuration of one kind of machine.
///
/// # Errors
/// When an input is unusable.
pub fn generate(input: &Input<'_>, machine: MachineType) -> Result<MachineConfig, ConfigError> {
    input.check()?;
    let mut documents = vec![json!({
        "version": "v1alpha1",
        "debug": false,
        "persist": true,
        "machine": machine_section(input, machine),
        "cluster": cluster_section(input, machine),
    })];
    if input.contract.is_multi_document() {
        for (registry, endpoints) in &input.registry_mirrors {
            let endpoints: Vec<Value> = endpoints.iter().map(|url| json!({ "url": url })).collect();
            documents.push(json!({ "apiVersion": "v1alpha1", "kind": "RegistryMirrorConfig", "name": registry, "endpoints": endpoints }));
        }
        documents.push(json!({ "apiVersion": "v1alpha1", "kind": "HostnameConfig", "auto": "stable" }));
    }
    Ok(MachineConfig::new(documents, Layout::Structured))
}

fn machine_section(input: &Input<'_>, machine: MachineType) -> Value {
    let contract = input.contract;
    let mut section = Map::new();
    let mut put = |key: &str, value: Value| {
        section.insert(key.to_owned(), value);
    };
    put("type", json!(machine.as_str()));
    put("token", json!(input.bundle.trustd_token));
    put("ca", authority(&input.bundle.os, machine.is_control_plane()));
    put("certSANs", json!(input.additional_sans));
    put(
        "kubelet",
        json!({
            "image": input.image("kubelet"),
            "defaultRuntimeSeccompProfileEnabled": true,
            "disableManifestsDirectory": true,
        }),
    );
    if contract.has_empty_network() {
        put("network", json!({}));
    }
    put("install", install(input));
    if !input.sysctls.is_empty() {
        put("sysctls", json!(input.sysctls));
    }
    if !input.registry_mirrors.is_empty() && !contract.is_multi_document() {
        let mirrors: Map<String, Value> =
            input.registry_mirrors.iter().map(|(registry, endpoints)| (registry.clone(), json!({ "endpoints": endpoints }))).collect();
        put("registries", json!({ "mirrors": mirrors }));
    }
    put("features", features(contract));
    if machine.is_control_plane() && contract.labels_control_planes() {
        put("nodeLabels", json!({ "node.kubernetes.io/exclude-from-external-load-balancers": "" }));
    }
    Value::Object(section)
}

fn install(input: &Input<'_>) -> Value {
    let mut section = Map::new();
    if let Some(disk) = &input.install_disk {
        section.insert("disk".to_owned(), json!(disk));
    }
    if !input.install_kernel_args.is_empty() {
        section.insert("extraKernelArgs".to_owned(), json!(input.install_kernel_args));
    }
    if let Some(image) = &input.install_image {
        section.insert("image".to_owned(), json!(image));
    }
    section.insert("wipe".to_owned(), json!(false));
    if input.contract.is_multi_document() {
        section.insert("grubUseUKICmdline".to_owned(), json!(true));
    }
    Value::Object(section)
}

fn features(contract: Contract) -> Value {
    let mut section = Map::new();
    let mut put = |is_there: bool, key: &str, value: Value| {
        if is_there {
            section.insert(key.to_owned(), value);
        }
    };
    put(!contract.is_multi_document(), "rbac", json!(true));
    put(!contract.is_multi_document(), "stableHostname", json!(true));
    put(!contract.is_multi_document(), "apidCheckExtKeyUsage", json!(true));
    put(contract.has_disk_quota(), "diskQuotaSupport", json!(true));
    put(contract.has_kube_prism(), "kubePrism", json!({ "enabled": true, "port": KUBE_PRISM_PORT }));
    let host_dns =
        if contract.forwards_kube_dns() { json!({ "enabled": true, "forwardKubeDNSToHost": true }) } else { json!({ "enabled": true }) };
    put(contract.has_host_dns(), "hostDNS", host_dns);
    Value::Object(section)
}

fn cluster_section(input: &Input<'_>, machine: MachineType) -> Value {
    let is_control_plane = machine.is_control_plane();
    let bundle = input.bundle;
    let mut section = Map::new();
    let mut put = |is_there: bool, key: &str, value: Value| {
        if is_there {
            section.insert(key.to_owned(), value);
        }
    };
    put(true, "id", json!(bundle.cluster_id));
    put(true, "secret", json!(bundle.cluster_secret));
    let mut control_plane = json!({ "endpoint": input.endpoint });
    if let Some(port) = input.local_api_server_port.filter(|_| is_control_plane) {
        control_plane["localAPIServerPort"] = json!(port);
    }
    put(true, "controlPlane", control_plane);
    put(is_control_plane || input.contract.names_cluster_on_workers(), "clusterName", json!(input.cluster_name));
    put(true, "network", network(input));
    put(true, "token", json!(bundle.bootstrap_token));
    match &bundle.encryption {
        EncryptionSecret::Secretbox(secret) => put(is_control_plane, "secretboxEncryptionSecret", json!(secret)),
        EncryptionSecret::AesCbc(secret) => put(is_control_plane, "aescbcEncryptionSecret", json!(secret)),
    }
    put(true, "ca", authority(&bundle.kubernetes, is_control_plane));
    put(is_control_plane, "aggregatorCA", authority(&bundle.aggregator, true));
    put(is_control_plane, "serviceAccount", json!({ "key": encode_pem(&bundle.service_account_key) }));
    put(is_control_plane, "apiServer", api_server(input));
    put(is_control_plane, "controllerManager", json!({ "image": input.image("kube-controller-manager") }));
    put(is_control_plane, "proxy", json!({ "image": input.image("kube-proxy") }));
    put(is_control_plane, "scheduler", json!({ "image": input.image("kube-scheduler") }));
    put(true, "discovery", json!({ "enabled": true, "registries": { "kubernetes": { "disabled": true }, "service": {} } }));
    put(is_control_plane, "etcd", json!({ "ca": authority(&bundle.etcd, true) }));
    put(is_control_plane && input.allow_scheduling_on_control_planes, "allowSchedulingOnControlPlanes", json!(true));
    Value::Object(section)
}

fn network(input: &Input<'_>) -> Value {
    let mut section = Map::new();
    if let Some(cni) = &input.cni {
        section.insert("cni".to_owned(), json!({ "name": cni.name, "urls": cni.urls }));
    }
    section.insert("dnsDomain".to_owned(), json!(input.dns_domain.as_deref().unwrap_or("cluster.local")));
    section.insert("podSubnets".to_owned(), input.subnets(&input.pod_subnets, "10.244.0.0/16", "fc00:db8:10::/56"));
    section.insert("serviceSubnets".to_owned(), input.subnets(&input.service_subnets, "10.96.0.0/12", "fc00:db8:20::/112"));
    Value::Object(section)
}

fn api_server(input: &Input<'_>) -> Value {
    let mut section = Map::new();
    section.insert("image".to_owned(), json!(input.image("kube-apiserver")));
    let mut names = Vec::new();
    if !input.contract.is_multi_document() {
        names.push(input.host().to_owned());
    }
    names.extend(input.additional_sans.iter().cloned());
    if !names.is_empty() {
        section.insert("certSANs".to_owned(), json!(names));
    }
    if !input.contract.is_multi_document() {
        section.insert("disablePodSecurityPolicy".to_owned(), json!(true));
    }
    section.insert(
        "admissionControl".to_owned(),
        json!([{
            "name": "PodSecurity",
            "configuration": {
                "apiVersion": "pod-security.admission.config.k8s.io/v1alpha1",
                "defaults": {
                    "audit": "restricted",
                    "audit-version": "latest",
                    "enforce": "baseline",
                    "enforce-version": "latest",
                    "warn": "restricted",
                    "warn-version": "latest",
                },
                "exemptions": { "namespaces": ["kube-system"], "runtimeClasses": [], "usernames": [] },
                "kind": "PodSecurityConfiguration",
            },
        }]),
    );
    section
        .insert("auditPolicy".to_owned(), json!({ "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{ "level": "Metadata" }] }));
    Value::Object(section)
}
