//! What we generate against what upstream generated from the same inputs.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde_json::Value;
use talos::config::{Cni, Input, MachineConfig, MachineType, Patches, generate, render};
use talos::contract::Contract;
use talos::secrets::Bundle;

use crate::reference;

const STABILITY: &str = "talos/stability";
const BOTH: [MachineType; 2] = [MachineType::ControlPlane, MachineType::Worker];

fn contracts() -> impl Iterator<Item = Contract> {
    (3..=13).map(|minor| format!("v1.{minor}").parse().unwrap())
}

fn secrets() -> Bundle {
    Bundle::from_yaml(&reference::text(&format!("{STABILITY}/secrets.yaml"))).unwrap()
}

#[test]
fn base_configurations_are_equal_byte_for_byte() {
    if !reference::is_here("base configurations") {
        return;
    }
    let bundle = secrets();
    let mut compared = 0;
    for (contract, machine) in contracts().flat_map(|contract| BOTH.map(|machine| (contract, machine))) {
        let golden = reference::text(&format!("{STABILITY}/{contract}/base-{machine}.yaml"));
        let ours = generate(&Input::new("base", "https://base:6443", "1.28.0", contract, &bundle), machine).unwrap();
        assert_eq!(ours.to_yaml(), golden, "{contract} {machine}");
        ours.check_keys().unwrap();
        assert_eq!(MachineConfig::from_yaml(&golden).unwrap().to_yaml(), golden, "reading and writing loses nothing");
        compared += 1;
    }
    assert_eq!(compared, 22);
}

#[test]
fn overrides_are_equal_by_value() {
    if !reference::is_here("overrides") {
        return;
    }
    let bundle = secrets();
    let patch = [reference::text(&format!("{STABILITY}/patch-pre14.yaml"))];
    let mut compared = 0;
    for (contract, machine) in contracts().flat_map(|contract| BOTH.map(|machine| (contract, machine))) {
        let path = format!("{STABILITY}/{contract}/overrides-{machine}.yaml");
        if !reference::exists(&path) {
            continue;
        }
        let input = Input {
            additional_sans: vec!["foo".into(), "bar".into()],
            allow_scheduling_on_control_planes: true,
            dns_domain: Some("example.com".into()),
            install_disk: Some("/dev/vda".into()),
            install_kernel_args: vec!["foo=bar".into(), "bar=baz".into()],
            local_api_server_port: Some(5443),
            sysctls: BTreeMap::from([("foo".into(), "bar".into())]),
            cni: Some(Cni { name: "custom".into(), urls: vec!["https://example.com/cni.yaml".into()] }),
            registry_mirrors: IndexMap::from([("ghcr.io".into(), vec!["https://ghcr.io.my-mirror.com".into()])]),
            ..Input::new("base", "https://base:6443", "v1.28.0", contract, &bundle)
        };
        let ours = render(&input, machine, &Patches { strategic: &patch, ..Patches::default() }).unwrap();
        assert_eq!(ours.config.documents(), reference::documents(&path), "{contract} {machine}");
        assert_eq!(ours.warnings, Vec::<String>::new());
        compared += 1;
    }
    assert_eq!(compared, 12, "overrides exist for 1.3, 1.4, 1.6, 1.9, 1.10 and 1.12");
}

/// The user's patches, out of the manifests as they are (template variables filled in).
fn patches_of(kind: &str) -> Vec<Value> {
    let text = reference::text("templates/vsphere-standard/standard.yaml").replace("${CONTROL_PLANE_ENDPOINT}", "vmware-k8s-api.lelund.eu");
    let manifest = talos::yaml::read(&text).unwrap().into_iter().find(|document| document["kind"] == kind).unwrap();
    let path = match kind {
        "TalosControlPlane" => "/spec/controlPlaneConfig/controlplane/configPatches",
        _ => "/spec/template/spec/configPatches",
    };
    manifest.pointer(path).unwrap().as_array().unwrap().clone()
}

#[test]
fn the_users_manifests_give_the_configurations_that_upstream_made() {
    if !reference::is_here("user's manifests") {
        return;
    }
    const BOOTSTRAP: &str = "kubernetes/objects/bootstrap";
    let bundle = Bundle::from_yaml(&reference::text(&format!("{BOOTSTRAP}/bundle.yaml"))).unwrap();
    let input = Input {
        pod_subnets: vec!["10.240.0.0/16".into()],
        service_subnets: vec!["10.96.128.0/12".into()],
        ..Input::new("vmware-test", "https://vmware-k8s-api.lelund.eu:6443", "v1.25.5", "v1.4".parse().unwrap(), &bundle)
    };
    for (kind, machine) in [("TalosControlPlane", MachineType::ControlPlane), ("TalosConfigTemplate", MachineType::Worker)] {
        let patches = patches_of(kind);
        let ours = render(&input, machine, &Patches { json: &patches, ..Patches::default() }).unwrap();
        let golden = reference::text(&format!("{BOOTSTRAP}/{machine}.yaml"));
        assert_eq!(ours.config.documents(), talos::yaml::read(&golden).unwrap(), "{machine}");
        assert_eq!(ours.config.to_yaml(), golden, "{machine}, byte for byte");
        let warning = ours.warnings.iter().find(|warning| warning.contains("add /machine/kubelet")).unwrap();
        assert!(warning.contains("image") && warning.contains("falls back to the default of the Talos release"), "{warning}");
    }
}
