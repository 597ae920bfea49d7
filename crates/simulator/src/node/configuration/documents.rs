//! The documents with a kind, as far as the simulated machine acts on them. Others are known and have no effect.

use serde_json::Value;

use super::{Adapter, Draft, Interface, KeyPair, Taint, TalosAccess, flag, map_of_texts, registered_taints, taints_by_key, text, texts};

/// Puts what `document` says into the draft.
pub(super) fn apply(draft: &mut Draft, kind: &str, document: &Value) {
    match kind {
        "HostnameConfig" => hostname(draft, document),
        "LinkConfig" => {
            let addresses = document.get("addresses").and_then(Value::as_array).into_iter().flatten();
            let addresses = addresses.filter_map(|address| text(address, "address")).collect();
            let adapter = Adapter::Name(text(document, "name").unwrap_or_default());
            merge_interface(draft, Interface { adapter, addresses, dhcp: false, vip: None });
        }
        "DHCPv4Config" => {
            let adapter = Adapter::Name(text(document, "name").unwrap_or_default());
            merge_interface(draft, Interface { adapter, addresses: Vec::new(), dhcp: true, vip: None });
        }
        "Layer2VIPConfig" => {
            let adapter = Adapter::Name(text(document, "link").unwrap_or_default());
            merge_interface(draft, Interface { adapter, addresses: Vec::new(), dhcp: false, vip: text(document, "name") });
        }
        "DiscoveryServiceConfig" => draft.has_discovery = true,
        "DiscoveryIdentityConfig" => {
            draft.id = text(document, "clusterID").unwrap_or_default();
            draft.secret = text(document, "clusterSecret").unwrap_or_default();
        }
        "KubeClusterConfig" => {
            draft.name = text(document, "clusterName").unwrap_or_default();
            draft.endpoint = text(document, "endpoint").unwrap_or_default();
        }
        "KubeNodeConfig" => node(draft, document),
        "KubeletConfig" => {
            draft.kubelet.image = text(document, "image").filter(|image| !image.is_empty());
            draft.kubelet.extra_args = map_of_texts(document, "extraArgs");
            draft.kubelet.register_with_taints = registered_taints(document.get("config"));
        }
        "KubeNetworkConfig" => {
            draft.dns_domain = text(document, "dnsDomain");
            draft.pod_subnets = texts(document, "podSubnets");
            draft.service_subnets = texts(document, "serviceSubnets");
        }
        "KubeAPIServerCAConfig" => draft.kubernetes_ca = authority(document),
        "KubeAPIServerConfig" => {
            draft.api_server_image = text(document, "image");
            draft.api_server_sans = texts(document, "certExtraSANs");
            draft.api_port = text(document, "apiPort").and_then(|port| port.parse().ok());
        }
        "KubeControllerManagerConfig" => draft.controller_manager_image = text(document, "image"),
        "KubeSchedulerConfig" => draft.scheduler_image = text(document, "image"),
        "KubeProxyConfig" => {
            draft.proxy_image = text(document, "image");
            draft.proxy_disabled = flag(document, "enabled") == Some(false);
        }
        "KubeCoreDNSConfig" => {
            draft.core_dns_image = text(document, "image");
            draft.core_dns_disabled = flag(document, "enabled") == Some(false);
        }
        "KubeFlannelCNIConfig" => draft.cni_name = Some("flannel".to_owned()),
        "KubeExternalManifestConfig" => external_manifest(draft, document),
        "KubeInlineManifestConfig" => {
            draft.inline_manifests.push((text(document, "name").unwrap_or_default(), text(document, "contents").unwrap_or_default()));
        }
        "KubeTalosAPIAccessConfig" => {
            let namespaces = texts(document, "allowedKubernetesNamespaces");
            draft.talos_access = Some(TalosAccess { roles: texts(document, "allowedRoles"), namespaces });
        }
        _ => {}
    }
}

fn hostname(draft: &mut Draft, document: &Value) {
    // YAML 1.1 readers take `off` for false.
    let auto = match document.get("auto") {
        Some(Value::Bool(false)) => Some("off".to_owned()),
        Some(value) => super::scalar(value),
        None => None,
    };
    let name = text(document, "hostname").filter(|name| !name.is_empty());
    if draft.hostname.is_some() && name.is_some() {
        draft.problems.push("static hostname is already set in v1alpha1 config".to_owned());
    }
    if name.is_some() && auto.as_deref().is_some_and(|auto| auto != "off") {
        draft.problems.push("HostnameConfig: auto and hostname cannot be set at the same time".to_owned());
    }
    draft.hostname = draft.hostname.take().or(name);
    draft.hostname_auto = auto;
}

fn node(draft: &mut Draft, document: &Value) {
    draft.kubelet.valid_subnets = document.get("nodeIP").map(|ip| texts(ip, "validSubnets")).unwrap_or_default();
    draft.node_labels.extend(map_of_texts(document, "labels"));
    draft.node_annotations.extend(map_of_texts(document, "annotations"));
    let taints: Vec<Taint> = taints_by_key(document.get("taints"));
    if draft.machine_type == "controlplane" {
        // From this contract on the taint stands in the document; its absence means that pods may run there.
        draft.schedules_on_control_planes = !taints.iter().any(|taint| taint.key == "node-role.kubernetes.io/control-plane");
    }
    draft.node_taints.extend(taints.into_iter().filter(|taint| taint.key != "node-role.kubernetes.io/control-plane"));
}

fn external_manifest(draft: &mut Draft, document: &Value) {
    let url = text(document, "url").unwrap_or_default();
    if text(document, "name").as_deref() == Some("custom-cni") {
        draft.cni_name = Some("custom".to_owned());
        draft.cni_urls.push(url);
    } else {
        draft.extra_manifests.push(url);
    }
}

/// `issuingCA{cert,key}` of a control plane, or the first of a worker's `acceptedCAs`. PEM as it is.
fn authority(document: &Value) -> KeyPair {
    if let Some(issuing) = document.get("issuingCA") {
        let key = text(issuing, "key").filter(|key| !key.is_empty());
        return KeyPair { certificate: text(issuing, "cert").unwrap_or_default(), key };
    }
    let accepted = document.get("acceptedCAs").and_then(Value::as_array).and_then(|list| list.first());
    let certificate = accepted.and_then(|first| super::scalar(first).or_else(|| text(first, "cert"))).unwrap_or_default();
    KeyPair { certificate, key: None }
}

fn merge_interface(draft: &mut Draft, other: Interface) {
    match draft.interfaces.iter_mut().find(|interface| interface.adapter == other.adapter) {
        Some(interface) => {
            interface.addresses.extend(other.addresses);
            interface.dhcp |= other.dhcp;
            interface.vip = interface.vip.take().or(other.vip);
        }
        None => draft.interfaces.push(other),
    }
}
