//! Defaults and rules of TalosControlPlane, TalosConfig and TalosConfigTemplate.

use apimachinery::field::FieldError;
use serde_json::{Value, json};

use super::{Findings, check_version, default, get, prefix_version, text};

const OPERATIONS: &[&str] = &["add", "remove", "replace", "move", "copy", "test"];

pub(super) fn default_control_plane(plane: &mut Value, namespace: Option<&str>) {
    default(plane, "spec.replicas", json!(1));
    prefix_version(plane, "spec.version");
    default(plane, "spec.rolloutStrategy.type", json!("RollingUpdate"));
    if text(plane, "spec.rolloutStrategy.type") == Some("RollingUpdate") {
        default(plane, "spec.rolloutStrategy.rollingUpdate.maxSurge", json!(1));
    }
    if let (Some(namespace), true) = (namespace, get(plane, "spec.infrastructureTemplate").is_some()) {
        default(plane, "spec.infrastructureTemplate.namespace", json!(namespace));
    }
}

pub(super) fn check_control_plane(plane: &Value, out: &mut Findings) {
    out.one_of(plane, "spec.rolloutStrategy.type", &["RollingUpdate", "OnDelete"]);
    check_version(plane, "spec.version", out);
    let surge = "spec.rolloutStrategy.rollingUpdate.maxSurge";
    if let Some(value) = get(plane, surge)
        && !matches!(value, Value::Number(number) if matches!(number.as_i64(), Some(0 | 1)))
        && !matches!(value.as_str(), Some("0" | "1"))
    {
        out.fault(FieldError::invalid(surge, value.clone(), "must be 0 or 1: etcd takes one new member at a time"));
    }
    match get(plane, "spec.replicas").and_then(Value::as_i64) {
        Some(replicas) if replicas < 1 => {
            let why = "must be at least 1: the last member of etcd cannot go; delete the Cluster to remove it";
            out.fault(FieldError::invalid("spec.replicas", json!(replicas), why));
        }
        Some(replicas) if replicas % 2 == 0 => out.warnings.push(format!(
            "spec.replicas: {replicas} control planes tolerate no more failures than {}: etcd needs a majority",
            replicas - 1
        )),
        _ => {}
    }
    let template = "spec.infrastructureTemplate";
    for field in ["kind", "name", "apiVersion"] {
        if text(plane, &format!("{template}.{field}")).is_none() {
            out.fault(FieldError::required(format!("{template}.{field}"), "the machines' infrastructure is made from this template"));
        }
    }
    let config = "spec.controlPlaneConfig.controlplane";
    out.one_of(plane, &format!("{config}.generateType"), &["controlplane", "init", "none"]);
    check_talos_spec(plane, config, out);
}

pub(super) fn check_config(config: &Value, old: Option<&Value>, spec: &str, out: &mut Findings) {
    if old.is_some_and(|old| get(old, "spec") != get(config, "spec")) {
        let why = "TalosConfigSpec is immutable: a new template name makes the machines follow";
        out.fault(FieldError::forbidden("spec", why));
    }
    out.one_of(config, &format!("{spec}.generateType"), &["controlplane", "worker", "init", "none"]);
    check_talos_spec(config, spec, out);
}

fn check_talos_spec(object: &Value, spec: &str, out: &mut Findings) {
    if text(object, &format!("{spec}.generateType")) == Some("none") && text(object, &format!("{spec}.data")).is_none() {
        out.fault(FieldError::required(format!("{spec}.data"), "generateType none takes the machine configuration from here"));
    }
    out.one_of(object, &format!("{spec}.hostname.source"), &["", "MachineName", "InfrastructureName"]);
    let patches = format!("{spec}.configPatches");
    for (index, patch) in get(object, &patches).and_then(Value::as_array).into_iter().flatten().enumerate() {
        let operation = patch.get("op").and_then(Value::as_str).unwrap_or_default();
        if !OPERATIONS.contains(&operation) {
            out.fault(FieldError::not_supported(format!("{patches}[{index}].op"), operation, OPERATIONS));
        }
        let path = patch.get("path").and_then(Value::as_str).unwrap_or_default();
        if !path.is_empty() && !path.starts_with('/') {
            out.fault(FieldError::invalid(format!("{patches}[{index}].path"), path, "must be a JSON pointer, which starts with /"));
        }
    }
    let version = format!("{spec}.talosVersion");
    if let Some(text) = text(object, &version) {
        let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
        let is_number = |part: Option<&str>| part.is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_number(parts.next()) || !is_number(parts.next()) {
            out.fault(FieldError::invalid(version, text, "must be a Talos release such as v1.4 or v1.4.8"));
        }
    }
}
