//! Defaults and rules of the `cluster.x-k8s.io` and `addons.cluster.x-k8s.io` kinds.

use std::collections::BTreeMap;

use apimachinery::field::FieldError;
use apimachinery::meta;
use apimachinery::selector::LabelSelector;
use serde_json::{Value, json};

use super::{Findings, check_selector, check_version, default, get, is_empty_selector, prefix_version, set_label, text};
use crate::ipam::Network;
use crate::meta::IntOrString;
use crate::names::{annotations, labels};

/// Names of preflight checks that a MachineSet may skip.
const PREFLIGHT_CHECKS: &[&str] =
    &["All", "KubernetesVersionSkew", "KubeadmVersionSkew", "ControlPlaneIsStable", "ControlPlaneVersionSkew"];

fn label_cluster(object: &mut Value) {
    if let Some(cluster) = text(object, "spec.clusterName").map(str::to_owned) {
        set_label(object, "metadata.labels", labels::CLUSTER_NAME, &cluster);
    }
}

pub(super) fn default_machine(machine: &mut Value) {
    label_cluster(machine);
    prefix_version(machine, "spec.version");
    default(machine, "spec.deletion.nodeDeletionTimeoutSeconds", json!(10));
}

/// MachineSet and MachineDeployment.
pub(super) fn default_set(set: &mut Value, old: Option<&Value>, kind: &str) {
    label_cluster(set);
    if get(set, "spec.replicas").is_none_or(Value::is_null) {
        let replicas = default_replicas(set, old);
        default(set, "spec.replicas", json!(replicas));
    }
    if kind == "MachineDeployment" {
        default(set, "spec.rollout.strategy.type", json!("RollingUpdate"));
        if text(set, "spec.rollout.strategy.type") == Some("RollingUpdate") {
            default(set, "spec.rollout.strategy.rollingUpdate.maxSurge", json!(1));
            default(set, "spec.rollout.strategy.rollingUpdate.maxUnavailable", json!(0));
        }
    } else {
        default(set, "spec.deletion.order", json!("Random"));
    }
    if is_empty_selector(get(set, "spec.selector")) {
        let own = if kind == "MachineDeployment" { labels::DEPLOYMENT_NAME } else { labels::SET_NAME };
        let name = meta::name(set).to_owned();
        set_label(set, "spec.selector.matchLabels", own, &name);
        set_label(set, "spec.template.metadata.labels", own, &name);
    }
    if let Some(cluster) = text(set, "spec.clusterName").map(str::to_owned) {
        set_label(set, "spec.selector.matchLabels", labels::CLUSTER_NAME, &cluster);
        set_label(set, "spec.template.metadata.labels", labels::CLUSTER_NAME, &cluster);
    }
    prefix_version(set, "spec.template.spec.version");
}

/// One, or what the autoscaler's bounds say: the lower one for a new object, the old count brought between them otherwise.
fn default_replicas(set: &Value, old: Option<&Value>) -> i64 {
    let bound = |key: &str| meta::annotation(set, key).and_then(|text| text.parse::<i64>().ok());
    let (Some(least), Some(most)) = (bound(annotations::AUTOSCALER_MIN_SIZE), bound(annotations::AUTOSCALER_MAX_SIZE)) else { return 1 };
    match old.and_then(|old| get(old, "spec.replicas")).and_then(Value::as_i64) {
        None => least,
        Some(current) if current < least => least,
        Some(current) if current > most => most,
        Some(current) => current,
    }
}

pub(super) fn default_health_check(check: &mut Value) {
    label_cluster(check);
    default(check, "spec.remediation.triggerIf.unhealthyLessThanOrEqualTo", json!("100%"));
    default(check, "spec.checks.nodeStartupTimeoutSeconds", json!(600));
}

pub(super) fn check_cluster(cluster: &Value, out: &mut Findings) {
    check_name(cluster, out);
    for what in ["pods", "services"] {
        let path = format!("spec.clusterNetwork.{what}.cidrBlocks");
        for (index, block) in get(cluster, &path).and_then(Value::as_array).into_iter().flatten().enumerate() {
            let block = block.as_str().unwrap_or_default();
            if Network::parse(block).is_err() {
                out.fault(FieldError::invalid(format!("{path}[{index}]"), block, "must be a range in CIDR form, such as 10.244.0.0/16"));
            }
        }
    }
}

/// Names that become label values.
fn check_name(object: &Value, out: &mut Findings) {
    let name = meta::name(object);
    for why in apimachinery::names::label_value(name) {
        out.fault(FieldError::invalid("metadata.name", name, why));
    }
}

pub(super) fn check_machine(machine: &Value, old: Option<&Value>, out: &mut Findings) {
    if let Some(old) = old {
        out.immutable(old, machine, "spec.clusterName");
    }
    check_bootstrap(machine, "spec", out);
    check_version(machine, "spec.version", out);
}

fn check_bootstrap(object: &Value, spec: &str, out: &mut Findings) {
    let has = |field: &str| get(object, &format!("{spec}.bootstrap.{field}")).is_some_and(|value| !value.is_null());
    if !has("configRef") && !has("dataSecretName") {
        out.fault(FieldError::required(
            format!("{spec}.bootstrap"),
            format!("expected either {spec}.bootstrap.dataSecretName or {spec}.bootstrap.configRef to be populated"),
        ));
    }
}

/// MachineSet and MachineDeployment.
pub(super) fn check_set(set: &Value, old: Option<&Value>, kind: &str, out: &mut Findings) {
    check_name(set, out);
    check_selector(set, "spec.selector", out);
    check_labels_match(set, out);
    let (own, of_template) = (get(set, "spec.clusterName"), get(set, "spec.template.spec.clusterName"));
    if own != of_template {
        let value = of_template.cloned().unwrap_or_default();
        out.fault(FieldError::invalid("spec.template.spec.clusterName", value, "must match spec.clusterName"));
    }
    if let Some(old) = old {
        out.immutable(old, set, "spec.clusterName");
        out.immutable(old, set, "spec.selector");
    }
    if get(set, "spec.replicas").and_then(Value::as_i64).is_some_and(|replicas| replicas < 0) {
        out.fault(FieldError::invalid("spec.replicas", get(set, "spec.replicas").cloned().unwrap_or_default(), "must not be negative"));
    }
    check_bootstrap(set, "spec.template.spec", out);
    check_version(set, "spec.template.spec.version", out);
    let naming = "spec.machineNaming.template";
    if let Some(template) = text(set, naming)
        && !template.replace(' ', "").contains("{{.random}}")
    {
        out.fault(FieldError::invalid(naming, template, "must contain {{ .random }}, or machines could not be told apart"));
    }
    if kind == "MachineDeployment" {
        check_rollout(set, out);
    } else if let Some(skipped) = meta::annotation(set, annotations::SKIP_PREFLIGHT_CHECKS) {
        for check in skipped.split(',').map(str::trim).filter(|check| !PREFLIGHT_CHECKS.contains(check)) {
            let path = apimachinery::field::key("metadata.annotations", annotations::SKIP_PREFLIGHT_CHECKS);
            out.fault(FieldError::not_supported(path, check, PREFLIGHT_CHECKS));
        }
    }
}

fn check_labels_match(set: &Value, out: &mut Findings) {
    let Some(Ok(selector)) = get(set, "spec.selector").map(LabelSelector::from_json) else { return };
    let template = get(set, "spec.template.metadata.labels").and_then(Value::as_object);
    let template: BTreeMap<String, String> =
        template.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    if !selector.matches(&template) {
        out.fault(FieldError::invalid("spec.template.metadata.labels", json!(template), "must match spec.selector"));
    }
}

/// A number or percentage out of a hundred; a fault if it is neither.
fn amount(object: &Value, path: &str, out: &mut Findings) -> Option<i32> {
    let value = get(object, path)?;
    let read: Option<IntOrString> = serde_json::from_value(value.clone()).ok();
    match read.and_then(|value| value.of(100, true)) {
        Some(number) if number >= 0 => Some(number),
        _ => {
            out.fault(FieldError::invalid(path, value.clone(), "must be a whole number that is not negative, or a percentage such as 40%"));
            None
        }
    }
}

fn check_rollout(deployment: &Value, out: &mut Findings) {
    let limits = "spec.rollout.strategy.rollingUpdate";
    let surge = amount(deployment, &format!("{limits}.maxSurge"), out);
    let unavailable = amount(deployment, &format!("{limits}.maxUnavailable"), out);
    if (surge, unavailable) == (Some(0), Some(0)) {
        let path = format!("{limits}.maxUnavailable");
        let value = get(deployment, &path).cloned().unwrap_or_default();
        out.fault(FieldError::invalid(path, value, "may not be 0 when maxSurge is 0: no machine could ever be replaced"));
    }
    amount(deployment, "spec.remediation.maxInFlight", out);
}

pub(super) fn check_health_check(check: &Value, old: Option<&Value>, out: &mut Findings) {
    if let Some(old) = old {
        out.immutable(old, check, "spec.clusterName");
    }
    if is_empty_selector(get(check, "spec.selector")) {
        out.fault(FieldError::required("spec.selector", "selector must not be empty: it would take every machine of the cluster"));
    }
    check_selector(check, "spec.selector", out);
    let startup = "spec.checks.nodeStartupTimeoutSeconds";
    if let Some(seconds) = get(check, startup).and_then(Value::as_i64).filter(|seconds| *seconds != 0 && *seconds < 30) {
        out.fault(FieldError::invalid(startup, seconds, "must be at least 30s, or 0 to wait for ever"));
    }
    amount(check, "spec.remediation.triggerIf.unhealthyLessThanOrEqualTo", out);
    let range = "spec.remediation.triggerIf.unhealthyInRange";
    if let Some(text) = text(check, range) {
        let bounds = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).and_then(|inner| inner.split_once('-'));
        let bounds = bounds.and_then(|(low, high)| Some((low.parse::<u32>().ok()?, high.parse::<u32>().ok()?)));
        if bounds.is_none_or(|(low, high)| low > high) {
            out.fault(FieldError::invalid(range, text, "must be a range such as [1-3]"));
        }
    }
}

pub(super) fn check_drain_rule(rule: &Value, out: &mut Findings) {
    for (list, selectors) in [("machines", ["selector", "clusterSelector"]), ("pods", ["selector", "namespaceSelector"])] {
        let items = get(rule, &format!("spec.{list}")).and_then(Value::as_array);
        for (index, item) in items.into_iter().flatten().enumerate() {
            for name in selectors {
                if let Some(Err(error)) = item.get(name).map(LabelSelector::from_json) {
                    let path = format!("spec.{list}[{index}].{name}");
                    out.fault(FieldError::invalid(path, item[name].clone(), error.to_string()));
                }
            }
        }
    }
}

pub(super) fn check_resource_set(set: &Value, old: Option<&Value>, out: &mut Findings) {
    check_selector(set, "spec.clusterSelector", out);
    if is_empty_selector(get(set, "spec.clusterSelector")) {
        let value = get(set, "spec.clusterSelector").cloned().unwrap_or_default();
        out.fault(FieldError::invalid("spec.clusterSelector", value, "selector must not be empty: it would take every cluster"));
    }
    if let Some(old) = old {
        out.immutable(old, set, "spec.clusterSelector");
        out.immutable(old, set, "spec.strategy");
    }
}
