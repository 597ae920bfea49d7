//! When two machine templates ask for the same machine. Pure.
//!
//! Compared is what cannot change on a machine that runs: version, failure domain, and the *names* of bootstrap and infrastructure templates
//! (their content is fixed). Labels, annotations, deletion limits, taints and gates are brought into Machines without replacing them.

use api::cluster::{MachineSpec, MachineTemplate};
use api::meta::ContractReference;

/// What differs, in upstream's words: `Version v1.25.5, v1.26.0 required`. Empty when the templates ask for the same.
pub fn differences(present: &MachineTemplate, wanted: &MachineTemplate) -> Vec<String> {
    let (present, wanted) = (&present.spec, &wanted.spec);
    let mut differences = Vec::new();
    if version(present) != version(wanted) {
        differences.push(format!("Version {}, {} required", shown(&present.version), shown(&wanted.version)));
    }
    if present.failure_domain != wanted.failure_domain {
        differences.push(format!("Failure domain {}, {} required", shown(&present.failure_domain), shown(&wanted.failure_domain)));
    }
    if present.bootstrap.config_ref != wanted.bootstrap.config_ref || given_secret(present) != given_secret(wanted) {
        let name =
            |spec: &MachineSpec| spec.bootstrap.config_ref.as_ref().map_or_else(|| shown(&spec.bootstrap.data_secret_name), reference);
        differences.push(format!("Bootstrap template {}, {} required", name(present), name(wanted)));
    }
    if present.infrastructure_ref != wanted.infrastructure_ref {
        let names = (reference(&present.infrastructure_ref), reference(&wanted.infrastructure_ref));
        differences.push(format!("Infrastructure template {}, {} required", names.0, names.1));
    }
    differences
}

/// `v1.25.5` and `1.25.5` are the same.
fn version(spec: &MachineSpec) -> Option<&str> {
    spec.version.as_deref().map(|version| version.trim_start_matches('v'))
}

/// A data secret counts only where no object makes one.
fn given_secret(spec: &MachineSpec) -> Option<&String> {
    spec.bootstrap.data_secret_name.as_ref().filter(|_| spec.bootstrap.config_ref.is_none())
}

fn reference(reference: &ContractReference) -> String {
    format!("{}/{}", reference.kind, reference.name)
}

fn shown(value: &Option<String>) -> String {
    value.clone().unwrap_or_else(|| "none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(change: &serde_json::Value) -> MachineTemplate {
        let mut value = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"clusterName": "c", "version": "v1.25.5",
            "bootstrap": {"configRef": {"apiGroup": "b", "kind": "TalosConfigTemplate", "name": "w"}},
            "infrastructureRef": {"apiGroup": "i", "kind": "VSphereMachineTemplate", "name": "t1"}}});
        json_patch::merge(&mut value, change);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_a_running_machine_cannot_change_counts() {
        let base = template(&json!({}));
        let same = |change: serde_json::Value| differences(&base, &template(&change));
        assert_eq!(
            same(json!({"spec": {"version": "1.25.5", "deletion": {"nodeDrainTimeoutSeconds": 80}, "minReadySeconds": 5}})),
            [""; 0]
        );
        assert_eq!(same(json!({"metadata": {"labels": {"x": "y"}}})), [""; 0]);
        assert_eq!(same(json!({"spec": {"version": "v1.26.0"}})), ["Version v1.25.5, v1.26.0 required"]);
        assert_eq!(same(json!({"spec": {"failureDomain": "z"}})), ["Failure domain none, z required"]);
        let infrastructure = ["Infrastructure template VSphereMachineTemplate/t1, VSphereMachineTemplate/t2 required"];
        assert_eq!(same(json!({"spec": {"infrastructureRef": {"name": "t2"}}})), infrastructure);
        let bootstrap = ["Bootstrap template TalosConfigTemplate/w, TalosConfigTemplate/w2 required"];
        assert_eq!(same(json!({"spec": {"bootstrap": {"configRef": {"name": "w2"}}}})), bootstrap);
        let secret = ["Bootstrap template TalosConfigTemplate/w, s required"];
        assert_eq!(same(json!({"spec": {"bootstrap": {"configRef": null, "dataSecretName": "s"}}})), secret);
    }
}
