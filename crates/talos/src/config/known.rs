//! The keys that Talos knows in the `v1alpha1` document. It reads strictly: one unknown key and the machine has no configuration at all.
//!
//! The table covers every level on which people patch; below it (free-form maps, arguments, plugin configuration) anything goes.

use serde_json::Value;

use super::ConfigError;

/// Path of a section (list items are left out of it) and the keys it may have, separated by blanks.
const KNOWN: &[(&str, &str)] = &[
    ("", "version debug persist machine cluster"),
    (
        "/machine",
        "type token ca acceptedCAs certSANs controlPlane kubelet pods network disks install files env time sysctls sysfs registries \
         systemDiskEncryption features udev logging kernel seccompProfiles baseRuntimeSpecOverrides nodeLabels nodeAnnotations nodeTaints",
    ),
    ("/machine/ca", "crt key"),
    ("/machine/controlPlane", "controllerManager scheduler"),
    (
        "/machine/kubelet",
        "image clusterDNS extraArgs extraMounts extraConfig credentialProviderConfig defaultRuntimeSeccompProfileEnabled \
         registerWithFQDN nodeIP skipNodeRegistration disableManifestsDirectory",
    ),
    ("/machine/kubelet/nodeIP", "validSubnets"),
    ("/machine/network", "hostname interfaces nameservers searchDomains extraHostEntries kubespan disableSearchDomain"),
    (
        "/machine/network/interfaces",
        "interface deviceSelector addresses cidr routes bond bridge bridgePort vlans mtu dhcp ignore dummy dhcpOptions wireguard vip",
    ),
    ("/machine/network/interfaces/deviceSelector", "busPath hardwareAddr permanentAddr pciID driver physical"),
    ("/machine/network/interfaces/routes", "network gateway source metric mtu"),
    ("/machine/network/interfaces/vip", "ip equinixMetal hcloud"),
    ("/machine/network/interfaces/vlans", "addresses cidr routes dhcp vlanId mtu vip dhcpOptions"),
    ("/machine/install", "disk diskSelector extraKernelArgs image extensions bootloader wipe legacyBIOSSupport grubUseUKICmdline"),
    ("/machine/time", "disabled servers bootTimeout"),
    ("/machine/registries", "mirrors config"),
    (
        "/machine/features",
        "rbac stableHostname kubernetesTalosAPIAccess apidCheckExtKeyUsage diskQuotaSupport kubePrism hostDNS imageCache \
         nodeAddressSortAlgorithm",
    ),
    ("/machine/features/kubernetesTalosAPIAccess", "enabled allowedRoles allowedKubernetesNamespaces"),
    ("/machine/features/kubePrism", "enabled port"),
    ("/machine/features/hostDNS", "enabled forwardKubeDNSToHost resolveMemberNames"),
    ("/machine/files", "content permissions path op"),
    ("/machine/disks", "device partitions"),
    (
        "/cluster",
        "id secret controlPlane clusterName network token aescbcEncryptionSecret secretboxEncryptionSecret ca acceptedCAs aggregatorCA \
         serviceAccount apiServer controllerManager proxy scheduler discovery etcd coreDNS externalCloudProvider extraManifests \
         extraManifestHeaders inlineManifests adminKubeconfig allowSchedulingOnMasters allowSchedulingOnControlPlanes",
    ),
    ("/cluster/ca", "crt key"),
    ("/cluster/aggregatorCA", "crt key"),
    ("/cluster/serviceAccount", "key"),
    ("/cluster/controlPlane", "endpoint localAPIServerPort"),
    ("/cluster/network", "cni dnsDomain podSubnets serviceSubnets"),
    ("/cluster/network/cni", "name urls flannel"),
    (
        "/cluster/apiServer",
        "image extraArgs extraVolumes env certSANs disablePodSecurityPolicy admissionControl auditPolicy authorizationConfig resources",
    ),
    ("/cluster/apiServer/admissionControl", "name configuration"),
    ("/cluster/controllerManager", "image extraArgs extraVolumes env resources"),
    ("/cluster/scheduler", "image extraArgs extraVolumes env resources config"),
    ("/cluster/proxy", "disabled image mode extraArgs"),
    ("/cluster/discovery", "enabled registries"),
    ("/cluster/discovery/registries", "kubernetes service"),
    ("/cluster/etcd", "image ca extraArgs subnet advertisedSubnets listenSubnets"),
    ("/cluster/coreDNS", "disabled image"),
    ("/cluster/externalCloudProvider", "enabled manifests"),
    ("/cluster/inlineManifests", "name contents"),
    ("/cluster/adminKubeconfig", "certLifetime commonName certOrganization"),
];

pub(super) fn check(document: &Value) -> Result<(), ConfigError> {
    section(document, "")
}

fn section(value: &Value, path: &str) -> Result<(), ConfigError> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| section(item, path)),
        Value::Object(map) => {
            let Some((_, keys)) = KNOWN.iter().find(|(known, _)| *known == path) else { return Ok(()) };
            for (key, inner) in map {
                let below = format!("{path}/{key}");
                if !keys.split_whitespace().any(|known| known == key) {
                    let similar = keys.split_whitespace().filter(|known| is_similar(known, key)).map(str::to_owned).collect();
                    return Err(ConfigError::UnknownKey { path: below, known: similar });
                }
                section(inner, &below)?;
            }
            Ok(())
        }
        Value::Null => Ok(()),
        _ if KNOWN.iter().any(|(known, _)| *known == path) => {
            Err(ConfigError::Type { path: path.to_owned(), expected: "a section with keys" })
        }
        _ => Ok(()),
    }
}

/// The same letters in another case, or one of them inside the other.
fn is_similar(known: &str, key: &str) -> bool {
    let (known, key) = (known.to_ascii_lowercase(), key.to_ascii_lowercase());
    known.contains(&key) || key.contains(&known) || known.get(..4).is_some_and(|start| key.starts_with(start))
}
