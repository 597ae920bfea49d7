//! How lists of the built-in kinds merge under a strategic merge patch.
//!
//! The rules stand upstream as `patchStrategy` and `patchMergeKey` in the types of k8s.io/api. A list without a rule here
//! is replaced as a whole, which is upstream's default too (taints, tolerations, RBAC rules, printer columns ...).

use crate::gvk::GroupKind;

/// How one list merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListRule {
    /// The patch's list takes the place of the old one.
    Replace,
    /// Plain values, united.
    Set,
    /// Objects, matched by this field.
    Map(&'static str),
}

/// Rules that hold for every kind: paths of lists, without indexes.
const EVERY_KIND: &[(&str, ListRule)] = &[("metadata.ownerReferences", ListRule::Map("uid")), ("metadata.finalizers", ListRule::Set)];

/// Rules below a pod's `spec`.
const POD_SPEC: &[(&str, ListRule)] = &[
    ("volumes", ListRule::Map("name")),
    ("containers", ListRule::Map("name")),
    ("initContainers", ListRule::Map("name")),
    ("ephemeralContainers", ListRule::Map("name")),
    ("imagePullSecrets", ListRule::Map("name")),
    ("hostAliases", ListRule::Map("ip")),
    ("topologySpreadConstraints", ListRule::Map("topologyKey")),
    ("schedulingGates", ListRule::Map("name")),
    ("resourceClaims", ListRule::Map("name")),
];

/// Rules below a container.
const CONTAINER: &[(&str, ListRule)] = &[
    ("ports", ListRule::Map("containerPort")),
    ("env", ListRule::Map("name")),
    ("volumeMounts", ListRule::Map("mountPath")),
    ("volumeDevices", ListRule::Map("devicePath")),
];

/// Rules of single kinds: group, kind, path, rule.
const KINDS: &[(&str, &str, &str, ListRule)] = &[
    ("", "Namespace", "status.conditions", ListRule::Map("type")),
    ("", "Node", "spec.podCIDRs", ListRule::Set),
    ("", "Node", "status.conditions", ListRule::Map("type")),
    ("", "Node", "status.addresses", ListRule::Map("type")),
    ("", "Pod", "status.conditions", ListRule::Map("type")),
    ("", "Pod", "status.podIPs", ListRule::Map("ip")),
    ("", "Pod", "status.hostIPs", ListRule::Map("ip")),
    ("", "Pod", "status.resourceClaimStatuses", ListRule::Map("name")),
    ("", "Service", "spec.ports", ListRule::Map("port")),
    ("", "Service", "status.conditions", ListRule::Map("type")),
    ("", "ServiceAccount", "secrets", ListRule::Map("name")),
    ("", "PersistentVolumeClaim", "status.conditions", ListRule::Map("type")),
    ("apps", "Deployment", "status.conditions", ListRule::Map("type")),
    ("apps", "DaemonSet", "status.conditions", ListRule::Map("type")),
    ("apps", "ReplicaSet", "status.conditions", ListRule::Map("type")),
    ("apps", "StatefulSet", "status.conditions", ListRule::Map("type")),
    ("batch", "Job", "status.conditions", ListRule::Map("type")),
];

/// The rule for the list at a path of field names.
pub(super) fn rule(kind: &GroupKind, path: &[String]) -> ListRule {
    let find = |table: &[(&str, ListRule)], path: &str| table.iter().find(|(p, _)| *p == path).map(|(_, rule)| *rule);
    let dotted = path.join(".");
    if let Some(rule) = find(EVERY_KIND, &dotted) {
        return rule;
    }
    if let Some((.., rule)) = KINDS.iter().find(|(g, k, p, _)| *g == kind.group && *k == kind.kind && *p == dotted) {
        return *rule;
    }
    let below_pod_spec = match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => dotted.strip_prefix("spec."),
        ("apps", "Deployment" | "DaemonSet" | "ReplicaSet" | "StatefulSet") | ("batch", "Job") => {
            if let Some(rule) = dotted.strip_prefix("spec.template.").and_then(|p| find(EVERY_KIND, p)) {
                return rule;
            }
            dotted.strip_prefix("spec.template.spec.")
        }
        _ => None,
    };
    let Some(below) = below_pod_spec else { return ListRule::Replace };
    let in_container = ["containers.", "initContainers.", "ephemeralContainers."].iter().find_map(|prefix| below.strip_prefix(prefix));
    in_container.map_or_else(|| find(POD_SPEC, below), |field| find(CONTAINER, field)).unwrap_or(ListRule::Replace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_by_path() {
        for (group, kind, path, expected) in [
            ("", "ConfigMap", "metadata.finalizers", ListRule::Set),
            ("", "Node", "status.conditions", ListRule::Map("type")),
            ("", "Node", "spec.taints", ListRule::Replace),
            ("", "Pod", "spec.containers", ListRule::Map("name")),
            ("", "Pod", "spec.containers.ports", ListRule::Map("containerPort")),
            ("apps", "Deployment", "spec.template.spec.containers.env", ListRule::Map("name")),
            ("apps", "DaemonSet", "spec.template.spec.tolerations", ListRule::Replace),
            ("apps", "Deployment", "spec.template.spec.containers.args", ListRule::Replace),
            ("apps", "Deployment", "spec.template.metadata.finalizers", ListRule::Set),
        ] {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            assert_eq!(rule(&GroupKind::new(group, kind), &path), expected, "{kind} {path:?}");
        }
    }
}
