use super::*;
use crate::node::test_support::reference;

fn release(text: &str) -> Release {
    text.parse().unwrap()
}

fn with(change: impl Fn(&str) -> String) -> Option<Result<Configuration, ConfigurationError>> {
    let text = reference("kubernetes/objects/bootstrap/controlplane.yaml")?;
    Some(Configuration::read(change(&text).as_bytes(), &release("v1.4.8")))
}

#[test]
fn the_genuine_control_plane_configuration_is_understood() {
    let Some(read) = with(str::to_owned) else { return };
    let configuration = read.unwrap();
    assert!(configuration.is_control_plane());
    assert_eq!(configuration.cluster.name, "vmware-test");
    assert_eq!((configuration.cluster.endpoint_host.as_str(), configuration.cluster.endpoint_port), ("vmware-k8s-api.lelund.eu", 6443));
    assert_eq!(configuration.cluster.api_server_sans, ["vmware-k8s-api.lelund.eu"]);
    assert_eq!(configuration.kubernetes_version, "v1.25.5", "the API server's image names it");
    assert_eq!(configuration.kubelet_version, "v1.27.4", "the patch took the kubelet's image away: the release's default runs");
    let taint = Taint { key: "node.cloudprovider.kubernetes.io/uninitialized".into(), value: "true".into(), effect: "NoSchedule".into() };
    assert_eq!(configuration.kubelet.register_with_taints, [taint]);
    assert!(matches!(&configuration.cluster.cni, Cni::Custom(urls) if urls.len() == 1 && urls[0].ends_with("cilium-v1.11.2.yaml")));
    assert_eq!(configuration.cluster.extra_manifests.len(), 2);
    assert!(configuration.os_ca.key.as_deref().unwrap().contains("ED25519 PRIVATE KEY"));
    assert!(configuration.cluster.etcd_ca.as_ref().unwrap().key.is_some());
    assert_eq!(configuration.talos_access.unwrap().roles, ["os:reader"]);
    assert!(configuration.cluster.has_discovery);
}

#[test]
fn the_genuine_worker_configuration_is_understood() {
    let Some(text) = reference("kubernetes/objects/bootstrap/worker.yaml") else { return };
    let configuration = Configuration::read(text.as_bytes(), &release("v1.4.8")).unwrap();
    assert!(!configuration.is_control_plane());
    assert!(configuration.os_ca.key.is_none() && configuration.cluster.kubernetes_ca.key.is_none());
    assert_eq!(configuration.kubelet_version, "v1.27.4");
}

#[test]
fn every_generated_golden_is_valid_for_its_release() {
    let mut checked = 0;
    for minor in 3..=15 {
        for kind in ["base-controlplane", "base-worker", "overrides-controlplane", "overrides-worker"] {
            let Some(text) = reference(&format!("talos/stability/v1.{minor}/{kind}.yaml")) else { continue };
            let configuration = Configuration::read(text.as_bytes(), &release(&format!("v1.{minor}.0")))
                .unwrap_or_else(|error| panic!("v1.{minor} {kind}: {error}"));
            assert_eq!(configuration.is_control_plane(), kind.ends_with("controlplane"), "v1.{minor} {kind}");
            assert_eq!(configuration.cluster.endpoint_host, "base");
            assert_eq!(configuration.kubelet_version, "v1.28.0", "v1.{minor} {kind}");
            let is_overrides = kind.starts_with("overrides");
            if configuration.is_control_plane() {
                assert_eq!(matches!(configuration.cluster.cni, Cni::Custom(_)), is_overrides, "v1.{minor} {kind}");
                assert_eq!(configuration.cluster.schedules_on_control_planes, is_overrides, "v1.{minor} {kind}");
                assert_eq!(configuration.cluster.api_port, if is_overrides { 5443 } else { 6443 });
            }
            checked += 1;
        }
    }
    assert!(checked == 0 || checked > 30, "{checked} goldens");
}

#[test]
fn an_older_release_refuses_a_newer_configuration() {
    let Some(text) = reference("talos/stability/v1.12/base-controlplane.yaml") else { return };
    let error = Configuration::read(text.as_bytes(), &release("v1.11.3")).unwrap_err();
    assert!(
        matches!(&error, ConfigurationError::UnknownKind { kind, .. } if kind == "HostnameConfig")
            || matches!(&error, ConfigurationError::UnknownKeys(_)),
        "{error}"
    );
    let Some(text) = reference("talos/stability/v1.7/base-worker.yaml") else { return };
    let error = Configuration::read(text.as_bytes(), &release("v1.4.8")).unwrap_err();
    assert!(error.to_string().contains("machine.features.kubePrism"), "{error}");
}

#[test]
fn what_is_wrong_is_named() {
    let cases: [(&str, &str, &str); 8] = [
        ("type: controlplane", "type: emperor", "invalid machine type"),
        ("version: v1alpha1", "version: v1beta9", "version must be v1alpha1"),
        ("persist: true", "persist: false", "persist should be true"),
        ("endpoint: https://vmware-k8s-api.lelund.eu:6443", "endpoint: vmware-k8s-api", "endpoint must be a URL"),
        ("name: custom", "name: magic", "cni name should be one of"),
        ("  network: {}\n", "  network: {interfaces: [{interface: eth0, addresses: [nonsense/24]}]}\n", "not an IP address"),
        ("  network: {}\n", "  network: {hostnam: x}\n", "unknown keys found during decoding: machine.network.hostnam"),
        ("  token: 5nn523.5de74su5uqi0fyjz\n", "", "trustd token is required"),
    ];
    for (from, to, expected) in cases {
        let Some(read) = with(|text| text.replacen(from, to, 1)) else { return };
        let error = read.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_worker_may_not_hold_what_only_control_planes_hold() {
    let Some(read) = with(|text| text.replace("type: controlplane", "type: worker")) else { return };
    let error = read.unwrap_err().to_string();
    for part in ["CA key is not allowed on worker", "etcd configuration is not allowed", "API access is not allowed"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn network_settings_by_name_and_by_hardware_address() {
    let network = "  network:\n    hostname: node-7\n    interfaces:\n    - deviceSelector: {hardwareAddr: '00:50:56:AA:BB:CC'}\n      addresses: [10.0.0.7/24]\n      vip: {ip: 10.0.0.2}\n    - interface: eth1\n      dhcp: true\n";
    let Some(read) = with(|text| text.replacen("  network: {}\n", network, 1)) else { return };
    let configuration = read.unwrap();
    assert_eq!(configuration.hostname.as_deref(), Some("node-7"));
    let first = &configuration.interfaces[0];
    assert_eq!(first.adapter, Adapter::Hardware("00:50:56:AA:BB:CC".into()));
    assert_eq!((first.addresses.as_slice(), first.vip.as_deref()), (["10.0.0.7/24".to_owned()].as_slice(), Some("10.0.0.2")));
    assert!(configuration.interfaces[1].dhcp);
}

#[test]
fn not_yaml_and_not_whole() {
    let release = release("v1.4.8");
    assert!(matches!(Configuration::read(b"a: [", &release), Err(ConfigurationError::Syntax(_))));
    assert!(matches!(Configuration::read(b"just text", &release), Err(ConfigurationError::Syntax(_))));
    assert_eq!(Configuration::read(b"", &release), Err(ConfigurationError::Partial));
    let twice = "version: v1alpha1\n---\nversion: v1alpha1\n";
    assert_eq!(Configuration::read(twice.as_bytes(), &release), Err(ConfigurationError::Duplicate("v1alpha1".into())));
}
