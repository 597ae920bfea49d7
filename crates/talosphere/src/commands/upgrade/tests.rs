//! What an upgrade decides, over hand-made clusters.

use std::collections::BTreeMap;

use apimachinery::patch::merge_patch;
use serde_json::{Value, json};

use super::plan::{COPIED_FROM, Observed, Upgrade, Wanted, decide};
use super::version::Version;
use crate::commands::preview::Inventory;
use crate::problem::Code;

/// A cluster of v1.32.4 with a control plane and workers, at rest; `change` is merged into `cluster`, `plane` and `workers`.
fn observed(change: &Value) -> Observed {
    let mut objects = json!({
        "cluster": {"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": "c", "namespace": "n", "uid": "c-uid"},
            "spec": {"controlPlaneEndpoint": {"host": "c.example.com", "port": 6443}}},
        "plane": {"metadata": {"name": "p", "namespace": "n", "uid": "p-uid", "generation": 4},
            "spec": {"version": "v1.32.4", "replicas": 3, "infrastructureTemplate": {"kind": "VSphereMachineTemplate", "name": "t"},
                "controlPlaneConfig": {"controlplane": {"generateType": "controlplane", "talosVersion": "v1.9"}}},
            "status": {"observedGeneration": 4, "version": "v1.32.4", "conditions": [{"type": "MachinesSpecUpToDate", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}},
        "workers": {"metadata": {"name": "w", "namespace": "n", "uid": "w-uid", "generation": 2},
            "spec": {"clusterName": "c", "replicas": 1, "selector": {}, "template": {"spec": {"clusterName": "c", "version": "v1.32.4",
                "bootstrap": {"configRef": {"apiGroup": "b", "kind": "TalosConfigTemplate", "name": "k"}},
                "infrastructureRef": {"apiGroup": "i", "kind": "VSphereMachineTemplate", "name": "t"}}}},
            "status": {"observedGeneration": 2, "replicas": 1, "upToDateReplicas": 1}},
        "config": {"apiVersion": "b/v1", "kind": "TalosConfigTemplate", "metadata": {"name": "k", "namespace": "n"},
            "spec": {"template": {"spec": {"generateType": "worker", "talosVersion": "v1.9"}}}},
    });
    merge_patch(&mut objects, change);
    let template = json!({"apiVersion": "i/v1", "kind": "VSphereMachineTemplate", "metadata": {"name": "t", "namespace": "n"},
        "spec": {"template": {"spec": {"template": "talos-1.9", "numCPUs": 2}}}});
    Observed {
        cluster: serde_json::from_value(objects["cluster"].clone()).unwrap(),
        control_plane: serde_json::from_value(objects["plane"].clone()).unwrap(),
        deployments: vec![serde_json::from_value(objects["workers"].clone()).unwrap()],
        inventory: Inventory::default(),
        machine_templates: vec![template],
        config_templates: vec![objects["config"].clone()],
        free: BTreeMap::new(),
        waiting: Vec::new(),
    }
}

fn to(kubernetes: &str, talos: &str, template: &str) -> Wanted {
    Wanted {
        kubernetes: (!kubernetes.is_empty()).then(|| Version::read(kubernetes).unwrap()),
        talos: (!talos.is_empty()).then(|| talos.parse().unwrap()),
        template: (!template.is_empty()).then(|| template.to_owned()),
    }
}

fn changes(patch: &Value) -> Vec<(&str, &str)> {
    let operations = patch.as_array().unwrap().iter().filter(|operation| operation["op"] == "replace");
    operations.map(|operation| (operation["path"].as_str().unwrap(), operation["value"].as_str().unwrap())).collect()
}

fn names(upgrade: &Upgrade) -> Vec<&str> {
    upgrade.templates.iter().map(|made| made["metadata"]["name"].as_str().unwrap()).collect()
}

#[test]
fn what_speaks_against_an_upgrade_is_said() {
    let paused = json!({"metadata": {"annotations": {"cluster.x-k8s.io/paused": ""}}});
    let behind = json!({"plane": {"status": {"observedGeneration": 3}}});
    let rolling = json!({"plane": {"status": {"conditions": [{"type": "MachinesSpecUpToDate", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}});
    let version = |version: &str| json!({"workers": {"spec": {"template": {"spec": {"version": version}}}}});
    let plain = json!({});
    for (change, wanted, told, remedy) in [
        (&plain, to("v1.34.0", "", ""), "from Kubernetes v1.32.4 to v1.34.0 a minor version is skipped", "v1.33 first"),
        (&plain, to("v2.0.0", "", ""), "a minor version is skipped", "v1.33 first"),
        (&plain, to("v1.32.3", "", ""), "Kubernetes v1.32.3 is lower than v1.32.4", "a later one"),
        (&plain, to("v1.32.4-rc.1", "", ""), "is lower than v1.32.4", "a later one"),
        (&plain, to("", "v1.8", "x"), "Talos v1.8 is lower than v1.9", "a later one"),
        (&json!({"plane": {"status": {"version": "v1.31.1"}}}), to("v1.33.0", "", ""), "from Kubernetes v1.31.1 to v1.33.0", "v1.32 first"),
        (&version("v1.33.5"), to("v1.33.0", "", ""), "are newer (v1.33.5)", "ask for v1.33.5"),
        (&version("v1.29.0"), to("v1.33.0", "", ""), "are too old (v1.29.0)", "bring the workers to v1.32.4"),
        (&json!({"cluster": {"spec": {"paused": true}}}), to("v1.33.0", "", ""), "Cluster c is paused", "kubectl patch cluster c"),
        (&json!({"cluster": paused}), to("v1.33.0", "", ""), "Cluster c is paused", "cluster.x-k8s.io/paused-"),
        (
            &json!({"plane": paused}),
            to("v1.33.0", "", ""),
            "TalosControlPlane p is paused",
            "talosphere rollout resume taloscontrolplane/p",
        ),
        (&json!({"workers": paused}), to("v1.33.0", "", ""), "MachineDeployment w is paused", "cluster.x-k8s.io/paused-"),
        (&json!({"workers": {"spec": {"paused": true}}}), to("v1.33.0", "", ""), "rollout of MachineDeployment w is paused", "resume"),
        (&rolling, to("v1.33.0", "", ""), "another change of TalosControlPlane p is under way", "rollout status taloscontrolplane/p"),
        (&behind, to("v1.33.0", "", ""), "another change of TalosControlPlane p is under way", "ask for the same"),
        (
            &json!({"workers": {"status": {"upToDateReplicas": 0}}}),
            to("v1.33.0", "", ""),
            "change of MachineDeployment w is under way",
            "status",
        ),
        (
            &json!({"workers": {"spec": {"template": {"spec": {"infrastructureRef": {"name": "none"}}}}}}),
            to("", "", "x"),
            "none does not exist",
            "make it",
        ),
    ] {
        let problem = decide(&observed(change), &wanted).unwrap_err();
        assert_eq!(problem.code, Code::UpgradeRefused, "{change} {problem}");
        assert!(problem.what.contains(told) && problem.remedy.as_ref().unwrap().contains(remedy), "{change}: {problem}");
    }
    let deleting = json!({"workers": {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}});
    assert_eq!(decide(&observed(&deleting), &to("v1.33.0", "", "")).unwrap_err().code, Code::BeingDeleted);
}

#[test]
fn a_version_alone_needs_no_template_and_what_is_there_already_is_left() {
    let upgrade = decide(&observed(&json!({})), &to("v1.33.0", "", "")).unwrap();
    assert!(upgrade.templates.is_empty());
    assert_eq!(changes(upgrade.control_plane.as_ref().unwrap()), [("/spec/version", "v1.33.0")]);
    assert_eq!(changes(&upgrade.workers[0].1), [("/spec/template/spec/version", "v1.33.0")]);
    assert_eq!(
        upgrade.control_plane.unwrap()[0],
        json!({"op": "test", "path": "/metadata/generation", "value": 4}),
        "nobody else's change"
    );
    // The control plane under way to just that is not in the way of itself.
    let under_way = json!({"plane": {"spec": {"version": "v1.33.0"}, "status": {"observedGeneration": 3}}});
    let upgrade = decide(&observed(&under_way), &to("v1.33.0", "", "")).unwrap();
    assert!(upgrade.control_plane.is_none() && upgrade.workers.len() == 1 && !upgrade.is_stored());
    assert!(decide(&observed(&json!({})), &to("v1.32.4", "v1.9", "talos-1.9")).unwrap().is_stored());
}

#[test]
fn a_template_is_copied_once_under_a_name_that_is_free() {
    let wanted = to("v1.33.0", "v1.10", "vms/Talos 1.10");
    let mut observed = observed(&json!({}));
    let upgrade = decide(&observed, &wanted).unwrap();
    assert_eq!(names(&upgrade), ["t-talos-1-10", "k-v1-10"], "one for both that share it");
    let made = &upgrade.templates[0];
    assert_eq!(made["spec"]["template"]["spec"], json!({"template": "vms/Talos 1.10", "numCPUs": 2}));
    assert_eq!(
        (&made["metadata"]["annotations"][COPIED_FROM], &made["metadata"]["ownerReferences"][0]["uid"]),
        (&json!("t"), &json!("c-uid"))
    );
    let worker = [
        ("/spec/template/spec/version", "v1.33.0"),
        ("/spec/template/spec/infrastructureRef/name", "t-talos-1-10"),
        ("/spec/template/spec/bootstrap/configRef/name", "k-v1-10"),
    ];
    assert_eq!(changes(&upgrade.workers[0].1), worker);
    // Made, and then killed: it is found again, and the next copy has the first one's name again.
    observed.machine_templates.push(made.clone());
    let again = decide(&observed, &wanted).unwrap();
    assert_eq!(names(&again), ["k-v1-10"]);
    assert_eq!(changes(&again.workers[0].1), worker);
    // Somebody else's object of that name is not taken for ours.
    observed.machine_templates[1]["spec"]["template"]["spec"]["numCPUs"] = json!(8);
    assert_eq!(names(&decide(&observed, &wanted).unwrap())[0], "t-talos-1-10-2");
    observed.control_plane.spec.infrastructure_template.name = Some("t-talos-1-10".to_owned());
    assert_eq!(names(&decide(&observed, &to("", "", "talos-1.11")).unwrap()), ["t-talos-1-11", "t-talos-1-11-2"]);
}

#[test]
fn a_patch_that_replaces_the_kubelets_section_is_warned_about() {
    let patched = |op: &str, path: &str| {
        let patches = json!([{"op": op, "path": path, "value": {}}]);
        let change = json!({"plane": {"spec": {"controlPlaneConfig": {"controlplane": {"configPatches": patches}}}},
            "config": {"spec": {"template": {"spec": {"configPatches": patches}}}}});
        decide(&observed(&change), &to("v1.33.0", "", "")).unwrap().preview.warnings
    };
    let told = patched("add", "/machine/kubelet");
    assert!(told.len() == 2 && told[0].contains("TalosControlPlane p") && told[1].contains("TalosConfigTemplate k"), "{told:?}");
    assert_eq!(patched("replace", "/machine/kubelet/image").len(), 2);
    assert_eq!(patched("add", "/machine/kubelet/extraConfig").len(), 0);
    assert_eq!(patched("test", "/machine/kubelet").len(), 0);
}
