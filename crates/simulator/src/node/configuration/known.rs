//! The keys that a node's strict decoder knows, as a table in a small notation, and the check of a document against it.
//!
//! A key the decoder does not know is an error that names its path, as on a real node: it is what makes a misspelt patch visible.
//! Notation: `name` is a scalar or a list of scalars; `name{..}` a section; `name[{..}]` a list of sections; `name*` anything.
//! `name@1.6` exists from that Talos release on.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::release::Release;

/// The document without a kind.
const LEGACY: &str = "
version debug persist
machine{
  type token ca{crt key} acceptedCAs@1.7[{crt key}] certSANs
  controlPlane{controllerManager{disabled} scheduler{disabled}}
  kubelet{
    image clusterDNS extraArgs* extraConfig* extraMounts[{destination type source options uidMappings gidMappings}]
    credentialProviderConfig*@1.5 defaultRuntimeSeccompProfileEnabled registerWithFQDN skipNodeRegistration disableManifestsDirectory
    nodeIP{validSubnets}
  }
  pods*
  network{
    hostname nameservers searchDomains@1.9 disableSearchDomain extraHostEntries[{ip aliases}] kubespan*
    interfaces[{
      interface deviceSelector{busPath hardwareAddr permanentAddr@1.9 pciID driver physical@1.7} addresses routes[{network gateway source metric mtu}]
      bond* bridge* bridgePort@1.9* vlans[{addresses routes[{network gateway source metric mtu}] dhcp vlanId mtu vip{ip equinixMetal* hcloud*} dhcpOptions*}]
      mtu dhcp ignore dummy dhcpOptions* wireguard* vip{ip equinixMetal* hcloud*}
    }]
  }
  disks[{device partitions*}]
  install{disk diskSelector* extraKernelArgs image extensions[{image}] bootloader wipe legacyBIOSSupport grubUseUKICmdline@1.12}
  files[{content permissions path op}] env* time* sysctls* sysfs* registries*
  systemDiskEncryption*
  features{
    rbac stableHostname kubernetesTalosAPIAccess{enabled allowedRoles allowedKubernetesNamespaces} apidCheckExtKeyUsage
    diskQuotaSupport@1.5 kubePrism@1.6{enabled port} hostDNS@1.7{enabled forwardKubeDNSToHost@1.8 resolveMemberNames@1.8}
    imageCache@1.9{localEnabled} nodeAddressSortAlgorithm@1.9
  }
  udev{rules} logging* kernel* seccompProfiles*
  nodeLabels* nodeAnnotations@1.8* nodeTaints@1.6*
  baseRuntimeSpecOverrides@1.8*
}
cluster{
  id secret controlPlane{endpoint localAPIServerPort}
  clusterName network{cni{name urls flannel*} dnsDomain podSubnets serviceSubnets}
  token aescbcEncryptionSecret secretboxEncryptionSecret
  ca{crt key} acceptedCAs@1.7[{crt key}] aggregatorCA{crt key} serviceAccount{key}
  apiServer{
    image extraArgs* extraVolumes* env* certSANs disablePodSecurityPolicy admissionControl[{name configuration*}] auditPolicy* resources*
    authorizationConfig@1.8*
  }
  controllerManager{image extraArgs* extraVolumes* env* resources*}
  proxy{disabled image mode extraArgs*}
  scheduler{image extraArgs* extraVolumes* env* resources* config@1.6*}
  discovery{enabled registries{kubernetes{disabled} service{disabled endpoint}}}
  etcd{image ca{crt key} extraArgs* subnet advertisedSubnets listenSubnets}
  coreDNS{disabled image}
  externalCloudProvider{enabled manifests}
  extraManifests extraManifestHeaders* inlineManifests[{name contents skipRepeatedUpdates@1.8}]
  adminKubeconfig{certLifetime commonName@1.8 organization@1.8}
  allowSchedulingOnMasters allowSchedulingOnControlPlanes
}
";

/// Documents with a kind, with the keys beside `apiVersion` and `kind`. A kind with `*` is taken whole.
const DOCUMENTS: &str = "
EthernetConfig@1.8* EventSinkConfig@1.5* ExtensionServiceConfig@1.7{name configFiles[{content mountPath}] environment}
KmsgLogConfig@1.5* KubeSpanEndpointsConfig@1.5* NetworkRuleConfig@1.6* NetworkDefaultActionConfig@1.6* PCIDriverRebindConfig@1.10*
SideroLinkConfig@1.5{apiUrl uniqueToken tunnel} TrustedRootsConfig@1.7{name certificates} UserVolumeConfig@1.10* VolumeConfig@1.8*
WatchdogTimerConfig@1.7* ExistingVolumeConfig@1.11* RawVolumeConfig@1.11* SwapVolumeConfig@1.11* ZswapConfig@1.11*
BondConfig@1.12* BridgeConfig@1.12* DHCPv4Config@1.12* DHCPv6Config@1.12* DummyLinkConfig@1.12* HCloudVIPConfig@1.12*
HostnameConfig@1.12{auto hostname} Layer2VIPConfig@1.12{name link} LinkAliasConfig@1.12* LinkConfig@1.12{name up mtu addresses[{address routePriority}] routes[{destination gateway source metric mtu table}]}
OOMConfig@1.12* RegistryAuthConfig@1.12* RegistryMirrorConfig@1.12* RegistryTLSConfig@1.12*
ResolverConfig@1.12{nameservers[{address}] searchDomains{domains disableDefault} hostDNS@1.14{enabled forwardKubeDNSToHost resolveMemberNames}}
StaticHostConfig@1.12* TimeSyncConfig@1.12* VLANConfig@1.12* WireguardConfig@1.12*
BlackholeRouteConfig@1.13* EnvironmentConfig@1.13* ExternalVolumeConfig@1.13* ImageVerificationConfig@1.13* KubeSpanConfig@1.13*
RoutingRuleConfig@1.13* TCPProbeConfig@1.13* VRFConfig@1.13*
BGPInstanceConfig@1.14* CRIBaseRuntimeSpecConfig@1.14* CRICustomizationConfig@1.14* ContainerConfig@1.14*
DiscoveryServiceConfig@1.14{name endpoint} DiscoveryIdentityConfig@1.14{clusterID clusterSecret} EtcFileConfig@1.14* FilesystemTrimConfig@1.14* FilesystemScrubConfig@1.14*
HTTPProbeConfig@1.14* ImageCacheConfig@1.14* KernelModuleConfig@1.14* LVMVolumeGroupConfig@1.14* LVMLogicalVolumeConfig@1.14* RAIDArrayConfig@1.14*
SecurityProfileConfig@1.14* SysctlConfig@1.14* SysfsConfig@1.14* UdevRulesConfig@1.14* UnattendedInstallConfig@1.14* VethConfig@1.14*
KubeClusterConfig@1.14{clusterName endpoint} KubeNodeConfig@1.14{nodeIP{validSubnets} labels* annotations* taints* registerWithFQDN skipNodeRegistration}
KubeletConfig@1.14{image config* extraArgs* clusterDNS extraMounts* defaultRuntimeSeccompProfileEnabled}
KubeNetworkConfig@1.14{dnsDomain podSubnets serviceSubnets}
KubeAPIServerCAConfig@1.14{issuingCA{cert key} acceptedCAs} KubePrismConfig@1.14{port} KubeAggregatorCAConfig@1.14{issuingCA{cert key} acceptedCAs}
KubeAdmissionControlConfig@1.14{name configuration*} KubeAuditPolicyConfig@1.14{configuration*} KubeAuthenticationConfig@1.14{configuration*}
KubeAuthorizerConfig@1.14{name type webhook*} KubeEtcdEncryptionConfig@1.14{config*}
KubeServiceAccountConfig@1.14{issuer{privateKey issuerURL} issuerURL acceptedKeys}
KubeAPIServerConfig@1.14{image apiPort certExtraSANs extraArgs* env* extraVolumes* resources*}
KubeControllerManagerConfig@1.14{image enabled extraArgs* env* extraVolumes* resources*}
KubeSchedulerConfig@1.14{image enabled config* extraArgs* env* extraVolumes* resources*}
KubeProxyConfig@1.14{image enabled mode config* extraArgs*} KubeFlannelCNIConfig@1.14* KubeCoreDNSConfig@1.14{enabled image}
KubeExternalManifestConfig@1.14{name url headers*} KubeInlineManifestConfig@1.14{name contents} KubeStaticPodConfig@1.14* KubeCredentialProviderConfig@1.14*
KubeTalosAPIAccessConfig@1.14{allowedRoles allowedKubernetesNamespaces}
";

/// What may stand under a key.
#[derive(Debug)]
enum Content {
    Scalar,
    Anything,
    Section(Keys),
    Sections(Keys),
}

#[derive(Debug)]
struct Key {
    since: u32,
    content: Content,
}

/// The keys of a section.
#[derive(Debug)]
pub(super) struct Keys(BTreeMap<String, Key>);

/// The decoder of one release.
#[derive(Debug)]
pub(super) struct Known {
    legacy: Keys,
    documents: Keys,
}

impl Known {
    pub(super) fn new() -> Self {
        Self { legacy: Notation(LEGACY).keys(), documents: Notation(DOCUMENTS).keys() }
    }

    /// The paths in the document without a kind that `release` does not know.
    pub(super) fn unknown_in_legacy(&self, document: &Value, release: &Release) -> Vec<String> {
        let mut unknown = Vec::new();
        self.legacy.check(document, "", release, &mut unknown);
        unknown
    }

    /// The same for a document of `kind`; `None` when the release does not know the kind.
    pub(super) fn unknown_in_document(&self, kind: &str, document: &Value, release: &Release) -> Option<Vec<String>> {
        let known = self.documents.0.get(kind).filter(|key| key.is_in(release))?;
        let mut unknown = Vec::new();
        if let Content::Section(keys) = &known.content {
            let mut body = document.clone();
            if let Some(map) = body.as_object_mut() {
                map.shift_remove("apiVersion");
                map.shift_remove("kind");
            }
            keys.check(&body, "", release, &mut unknown);
        }
        Some(unknown)
    }
}

impl Key {
    fn is_in(&self, release: &Release) -> bool {
        release.is_at_least(self.since)
    }
}

impl Keys {
    fn check(&self, value: &Value, path: &str, release: &Release, unknown: &mut Vec<String>) {
        let Some(map) = value.as_object() else { return };
        for (name, below) in map {
            let here = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let Some(key) = self.0.get(name).filter(|key| key.is_in(release)) else {
                unknown.push(here);
                continue;
            };
            match &key.content {
                Content::Scalar | Content::Anything => {}
                Content::Section(keys) => keys.check(below, &here, release, unknown),
                Content::Sections(keys) => {
                    for (index, element) in below.as_array().into_iter().flatten().enumerate() {
                        keys.check(element, &format!("{here}[{index}]"), release, unknown);
                    }
                }
            }
        }
    }
}

/// A reader of the notation. What does not fit ends the table early; a test holds that nothing does.
struct Notation<'a>(&'a str);

impl Notation<'_> {
    fn keys(&mut self) -> Keys {
        let mut keys = BTreeMap::new();
        loop {
            self.0 = self.0.trim_start();
            let name = self.word(|c| c.is_ascii_alphanumeric());
            if name.is_empty() {
                return Keys(keys);
            }
            let mut since = 0;
            let mut is_free = self.take("*");
            if self.take("@") {
                let version = self.word(|c| c.is_ascii_digit() || c == '.');
                since = version.split_once('.').and_then(|(_, minor)| minor.parse().ok()).unwrap_or(0);
                is_free = is_free || self.take("*");
            }
            let content = if is_free {
                Content::Anything
            } else if self.take("[{") {
                let keys = self.keys();
                self.take("}]");
                Content::Sections(keys)
            } else if self.take("{") {
                let keys = self.keys();
                self.take("}");
                Content::Section(keys)
            } else {
                Content::Scalar
            };
            keys.insert(name, Key { since, content });
        }
    }

    fn word(&mut self, part: impl Fn(char) -> bool) -> String {
        let end = self.0.find(|c| !part(c)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word.to_owned()
    }

    fn take(&mut self, sign: &str) -> bool {
        match self.0.strip_prefix(sign) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn release(text: &str) -> Release {
        text.parse().unwrap()
    }

    #[test]
    fn the_tables_are_read_to_their_end() {
        for table in [LEGACY, DOCUMENTS] {
            let mut notation = Notation(table);
            let keys = notation.keys();
            assert_eq!(notation.0, "", "the notation is not understood from here on");
            assert!(keys.0.len() > 4);
        }
        let known = Known::new();
        assert!(known.legacy.0.contains_key("cluster"));
        assert!(known.documents.0.contains_key("KubeTalosAPIAccessConfig"));
    }

    #[test]
    fn unknown_keys_are_named_with_their_path() {
        let known = Known::new();
        let document = json!({"machine": {"kubelets": 1, "network": {"interfaces": [{"interface": "eth0", "adresses": []}]}}, "cluster": {"etcd": {"ca": {"crt": "", "cert": ""}}}});
        assert_eq!(
            known.unknown_in_legacy(&document, &release("v1.4.8")),
            ["machine.kubelets", "machine.network.interfaces[0].adresses", "cluster.etcd.ca.cert"]
        );
    }

    #[test]
    fn a_key_or_kind_of_a_newer_release_is_unknown_to_an_older_one() {
        let known = Known::new();
        let document = json!({"machine": {"features": {"kubePrism": {"enabled": true}}}});
        assert_eq!(known.unknown_in_legacy(&document, &release("v1.4.8")), ["machine.features.kubePrism"]);
        assert!(known.unknown_in_legacy(&document, &release("v1.6.0")).is_empty());
        let hostname = json!({"apiVersion": "v1alpha1", "kind": "HostnameConfig", "auto": "stable"});
        assert_eq!(known.unknown_in_document("HostnameConfig", &hostname, &release("v1.11.0")), None);
        assert_eq!(known.unknown_in_document("HostnameConfig", &hostname, &release("v1.12.0")), Some(Vec::new()));
    }
}
