//! What works and is not what was asked for: told once, when a cluster is ready and when it is described. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::cause::clean;
use super::{Objects, condition, is_deleting, text};

/// Patches that drop what was generated, and kubelets of another version than their Machines ask for. The same of several machines is
/// one warning.
pub fn warnings(objects: &Objects, cluster: &str) -> Vec<String> {
    let machines: Vec<&Value> = objects.of_cluster("Machine", cluster).filter(|machine| !is_deleting(machine)).collect();
    let mut patches: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for config in objects.of_cluster("TalosConfig", cluster).filter(|config| !is_deleting(config)) {
        let made = condition(config, "DataSecretAvailable").filter(|made| text(made, "/status") == "True");
        for line in made.map(|made| text(made, "/message")).unwrap_or_default().lines().filter(|line| !line.is_empty()) {
            patches.entry(clean(line)).or_default().push(text(config, "/metadata/name"));
        }
    }
    let mut kubelets: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for machine in &machines {
        let (asked, runs) = (text(machine, "/spec/version"), text(machine, "/status/nodeInfo/kubeletVersion"));
        if !asked.is_empty() && !runs.is_empty() && plain(asked) != plain(runs) {
            kubelets.entry((asked, runs)).or_default().push(text(machine, "/metadata/name"));
        }
    }
    let patches = patches.into_iter().map(|(told, configs)| format!("TalosConfig {}: {told}", listed(&configs)));
    let kubelets = kubelets.into_iter().map(|((asked, runs), names)| {
        format!("kubelet {runs} runs on {}, where the Machine's spec.version asks for {asked}", listed(&names))
    });
    patches.chain(kubelets).collect()
}

fn plain(version: &str) -> &str {
    version.trim_start_matches('v')
}

/// The first of several, and how many more.
fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_several_machines_share_is_told_once() {
        let mut objects = Objects::default();
        let meta = |name: &str| json!({"name": name, "labels": {"cluster.x-k8s.io/cluster-name": "c"}});
        for (name, message, runs) in [("a", "drops x", "v1.27.4"), ("b", "drops x\ndrops y", "v1.27.4"), ("d", "", "v1.25.5")] {
            let made = json!([{"type": "DataSecretAvailable", "status": "True", "message": message}]);
            objects.put("TalosConfig", json!({"metadata": meta(name), "status": {"conditions": made}}));
            let told = json!({"nodeInfo": {"kubeletVersion": runs}});
            objects.put("Machine", json!({"metadata": meta(name), "spec": {"version": "1.25.5"}, "status": told}));
        }
        let waits = json!([{"type": "DataSecretAvailable", "status": "False", "message": "waiting"}]);
        objects.put("TalosConfig", json!({"metadata": meta("e"), "status": {"conditions": waits}}));
        let expected = [
            "TalosConfig a and 1 more: drops x",
            "TalosConfig b: drops y",
            "kubelet v1.27.4 runs on a and 1 more, where the Machine's spec.version asks for 1.25.5",
        ];
        assert_eq!(warnings(&objects, "c"), expected);
        assert!(warnings(&objects, "other").is_empty());
    }
}
