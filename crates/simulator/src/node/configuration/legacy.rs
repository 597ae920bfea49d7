//! The document without a kind: `machine` and `cluster`.

use serde_json::Value;

use super::{
    Adapter, Draft, Interface, KeyPair, Kubelet, TalosAccess, flag, map_of_texts, pem_from_base64, registered_taints, taints_by_key, text,
    texts,
};

static EMPTY: Value = Value::Null;

/// What the document says.
pub(super) fn draft(document: &Value) -> Draft {
    let machine = document.get("machine").unwrap_or(&EMPTY);
    let cluster = document.get("cluster").filter(|cluster| !cluster.is_null());
    let mut draft = Draft {
        version: text(document, "version"),
        persist: flag(document, "persist"),
        machine_type: text(machine, "type").unwrap_or_default(),
        token: text(machine, "token").unwrap_or_default(),
        cert_sans: texts(machine, "certSANs"),
        node_labels: map_of_texts(machine, "nodeLabels"),
        node_annotations: map_of_texts(machine, "nodeAnnotations"),
        node_taints: taints_by_key(machine.get("nodeTaints")),
        has_cluster: cluster.is_some(),
        ..Draft::default()
    };
    if !document.get("machine").is_some_and(Value::is_object) {
        draft.problems.push("machine instructions are required".to_owned());
    }
    draft.os_ca = authority(machine.get("ca"), "machine.ca", &mut draft.problems).unwrap_or_default();
    for accepted in machine.get("acceptedCAs").and_then(Value::as_array).into_iter().flatten() {
        let accepted = authority(Some(accepted), "machine.acceptedCAs", &mut draft.problems);
        draft.accepted_os_cas.extend(accepted.map(|pair| pair.certificate));
    }
    read_kubelet(&mut draft.kubelet, machine.get("kubelet").unwrap_or(&EMPTY));
    read_network(&mut draft, machine.get("network").unwrap_or(&EMPTY));
    let access = machine.pointer("/features/kubernetesTalosAPIAccess").filter(|access| flag(access, "enabled") == Some(true));
    draft.talos_access =
        access.map(|access| TalosAccess { roles: texts(access, "allowedRoles"), namespaces: texts(access, "allowedKubernetesNamespaces") });
    read_cluster(&mut draft, cluster.unwrap_or(&EMPTY));
    draft
}

fn read_kubelet(kubelet: &mut Kubelet, section: &Value) {
    kubelet.image = text(section, "image").filter(|image| !image.is_empty());
    kubelet.register_with_taints = registered_taints(section.get("extraConfig"));
    kubelet.extra_args = map_of_texts(section, "extraArgs");
    kubelet.valid_subnets = section.get("nodeIP").map(|ip| texts(ip, "validSubnets")).unwrap_or_default();
}

fn read_network(draft: &mut Draft, network: &Value) {
    draft.hostname = text(network, "hostname").filter(|name| !name.is_empty());
    for section in network.get("interfaces").and_then(Value::as_array).into_iter().flatten() {
        let selector = section.get("deviceSelector").filter(|selector| !selector.is_null());
        let name = text(section, "interface").filter(|name| !name.is_empty());
        let adapter = match (name, selector) {
            (Some(name), None) => Adapter::Name(name),
            (None, Some(selector)) => {
                text(selector, "hardwareAddr").or_else(|| text(selector, "permanentAddr")).map_or(Adapter::Any, Adapter::Hardware)
            }
            (Some(_), Some(_)) => {
                draft.problems.push("config for interface must specify either interface or deviceSelector, not both".to_owned());
                continue;
            }
            (None, None) => {
                draft.problems.push("config for interface requires an interface name or a deviceSelector".to_owned());
                continue;
            }
        };
        if flag(section, "ignore") == Some(true) || flag(section, "dummy") == Some(true) {
            continue;
        }
        draft.interfaces.push(Interface {
            adapter,
            addresses: texts(section, "addresses"),
            dhcp: flag(section, "dhcp").unwrap_or(false),
            vip: section.get("vip").and_then(|vip| text(vip, "ip")),
        });
    }
}

fn read_cluster(draft: &mut Draft, cluster: &Value) {
    draft.id = text(cluster, "id").unwrap_or_default();
    draft.secret = text(cluster, "secret").unwrap_or_default();
    draft.name = text(cluster, "clusterName").unwrap_or_default();
    draft.cluster_token = text(cluster, "token").unwrap_or_default();
    let control_plane = cluster.get("controlPlane").unwrap_or(&EMPTY);
    draft.endpoint = text(control_plane, "endpoint").unwrap_or_default();
    draft.api_port = text(control_plane, "localAPIServerPort").and_then(|port| port.parse().ok()).filter(|port| *port > 0);
    draft.kubernetes_ca = authority(cluster.get("ca"), "cluster.ca", &mut draft.problems).unwrap_or_default();
    draft.etcd_ca = authority(cluster.pointer("/etcd/ca"), "cluster.etcd.ca", &mut draft.problems);
    let api_server = cluster.get("apiServer").unwrap_or(&EMPTY);
    draft.api_server_image = text(api_server, "image");
    draft.api_server_sans = texts(api_server, "certSANs");
    draft.controller_manager_image = cluster.pointer("/controllerManager/image").and_then(super::scalar);
    draft.scheduler_image = cluster.pointer("/scheduler/image").and_then(super::scalar);
    draft.proxy_image = cluster.pointer("/proxy/image").and_then(super::scalar);
    draft.proxy_disabled = cluster.pointer("/proxy/disabled").and_then(Value::as_bool).unwrap_or(false);
    draft.core_dns_image = cluster.pointer("/coreDNS/image").and_then(super::scalar);
    draft.core_dns_disabled = cluster.pointer("/coreDNS/disabled").and_then(Value::as_bool).unwrap_or(false);
    let network = cluster.get("network").unwrap_or(&EMPTY);
    draft.cni_name = network.get("cni").and_then(|cni| text(cni, "name"));
    draft.cni_urls = network.get("cni").map(|cni| texts(cni, "urls")).unwrap_or_default();
    draft.pod_subnets = texts(network, "podSubnets");
    draft.service_subnets = texts(network, "serviceSubnets");
    draft.dns_domain = text(network, "dnsDomain");
    draft.extra_manifests = texts(cluster, "extraManifests");
    if let Some(provider) = cluster.get("externalCloudProvider").filter(|provider| flag(provider, "enabled") == Some(true)) {
        draft.external_cloud_provider = true;
        draft.extra_manifests.extend(texts(provider, "manifests"));
    }
    for manifest in cluster.get("inlineManifests").and_then(Value::as_array).into_iter().flatten() {
        draft.inline_manifests.push((text(manifest, "name").unwrap_or_default(), text(manifest, "contents").unwrap_or_default()));
    }
    draft.schedules_on_control_planes =
        flag(cluster, "allowSchedulingOnControlPlanes").or_else(|| flag(cluster, "allowSchedulingOnMasters")).unwrap_or(false);
    draft.has_discovery = cluster.pointer("/discovery/enabled").and_then(Value::as_bool).unwrap_or(false);
}

/// A `{crt, key}` pair under base64. Absent when both are empty.
fn authority(section: Option<&Value>, path: &str, problems: &mut Vec<String>) -> Option<KeyPair> {
    let section = section.filter(|section| section.is_object())?;
    let mut part = |key: &str| {
        let encoded = text(section, key).filter(|encoded| !encoded.is_empty())?;
        let pem = pem_from_base64(&encoded);
        if pem.is_none() {
            problems.push(format!("{path}.{key} is not base64 of a PEM text"));
        }
        pem
    };
    let (certificate, key) = (part("crt"), part("key"));
    (certificate.is_some() || key.is_some()).then(|| KeyPair { certificate: certificate.unwrap_or_default(), key })
}
