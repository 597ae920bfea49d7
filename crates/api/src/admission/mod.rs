//! Defaults and rules of every kind, where upstream has webhooks.
//!
//! They see objects in the stored version. Defaults run before the schema is checked, rules after; neither runs for subresources. Every fault is
//! one field error, all of an object's faults come together. Rules must hold for what our own controllers write as well; what a controller
//! finds out later (a template that does not exist) is not their business.

mod core;
mod ipam;
mod talos;
mod vsphere;

use apimachinery::admission::{Admission, Lookup, Operation, Request};
use apimachinery::field::FieldError;
use apimachinery::gvk::GroupKind;
use apimachinery::status::StatusError;
use serde_json::{Map, Value, json};

use crate::Webhooks;
use crate::names::{ADDONS_GROUP, BOOTSTRAP_GROUP, CLUSTER_GROUP, CONTROL_PLANE_GROUP, INFRASTRUCTURE_GROUP, IPAM_GROUP, annotations};
use crate::spoke::durations;

/// What the rules found: faults, and warnings that do not refuse.
#[derive(Debug, Default)]
struct Findings {
    faults: Vec<FieldError>,
    warnings: Vec<String>,
}

impl Findings {
    fn fault(&mut self, fault: FieldError) {
        self.faults.push(fault);
    }

    /// A field that must not change.
    fn immutable(&mut self, old: &Value, new: &Value, path: &str) {
        if get(old, path) != get(new, path) {
            self.fault(FieldError::invalid(path, get(new, path).cloned().unwrap_or_default(), "field is immutable"));
        }
    }

    /// A field that has to be one of some words, when it is there.
    fn one_of(&mut self, object: &Value, path: &str, words: &[&str]) {
        if let Some(value) = get(object, path).and_then(Value::as_str)
            && !words.contains(&value)
        {
            self.fault(FieldError::not_supported(path, value, words));
        }
    }
}

impl Admission for Webhooks {
    fn mutate(&self, request: &Request<'_>, object: &mut Value, _: &dyn Lookup) -> Result<(), StatusError> {
        if request.subresource.is_some() {
            return Ok(());
        }
        match (request.gvk.group.as_str(), request.gvk.kind.as_str()) {
            (CLUSTER_GROUP, "Machine") => core::default_machine(object),
            (CLUSTER_GROUP, "MachineSet") => core::default_set(object, request.old, "MachineSet"),
            (CLUSTER_GROUP, "MachineDeployment") => core::default_set(object, request.old, "MachineDeployment"),
            (CLUSTER_GROUP, "MachineHealthCheck") => core::default_health_check(object),
            (ADDONS_GROUP, "ClusterResourceSet") => default(object, "spec.strategy", json!("ApplyOnce")),
            (CONTROL_PLANE_GROUP, "TalosControlPlane") => talos::default_control_plane(object, request.namespace),
            (INFRASTRUCTURE_GROUP, "VSphereMachine" | "VSphereVM") => vsphere::default_machine(object),
            (INFRASTRUCTURE_GROUP, "VSphereDeploymentZone") => default(object, "spec.controlPlane", json!(true)),
            _ => {}
        }
        Ok(())
    }

    fn validate(&self, request: &Request<'_>, object: Option<&Value>, lookup: &dyn Lookup) -> Result<Vec<String>, StatusError> {
        if request.subresource.is_some() {
            return Ok(Vec::new());
        }
        let (group, kind) = (request.gvk.group.as_str(), request.gvk.kind.as_str());
        let mut findings = Findings::default();
        if request.operation == Operation::Delete {
            if group == IPAM_GROUP && matches!(kind, "InClusterIPPool" | "GlobalInClusterIPPool") {
                ipam::check_pool_deletion(request, lookup, &mut findings)?;
            }
            return Ok(findings.warnings);
        }
        let Some(object) = object else { return Ok(findings.warnings) };
        let out = &mut findings;
        match (group, kind) {
            (CLUSTER_GROUP, "Machine") | (CONTROL_PLANE_GROUP, "TalosControlPlane") => {
                check_drain_timeout(object, "metadata.annotations", out);
            }
            (CLUSTER_GROUP, "MachineSet" | "MachineDeployment") => {
                check_drain_timeout(object, "spec.template.metadata.annotations", out);
            }
            _ => {}
        }
        match (group, kind) {
            (CLUSTER_GROUP, "Cluster") => core::check_cluster(object, out),
            (CLUSTER_GROUP, "Machine") => core::check_machine(object, request.old, out),
            (CLUSTER_GROUP, "MachineSet") => core::check_set(object, request.old, "MachineSet", out),
            (CLUSTER_GROUP, "MachineDeployment") => core::check_set(object, request.old, "MachineDeployment", out),
            (CLUSTER_GROUP, "MachineHealthCheck") => core::check_health_check(object, request.old, out),
            (CLUSTER_GROUP, "MachineDrainRule") => core::check_drain_rule(object, out),
            (ADDONS_GROUP, "ClusterResourceSet") => core::check_resource_set(object, request.old, out),
            (CONTROL_PLANE_GROUP, "TalosControlPlane") => talos::check_control_plane(object, out),
            (BOOTSTRAP_GROUP, "TalosConfig") => talos::check_config(object, request.old, "spec", out),
            (BOOTSTRAP_GROUP, "TalosConfigTemplate") => talos::check_config(object, request.old, "spec.template.spec", out),
            (INFRASTRUCTURE_GROUP, "VSphereMachine") => vsphere::check_machine(object, request.old, out),
            (INFRASTRUCTURE_GROUP, "VSphereMachineTemplate") => vsphere::check_template(object, request.old, out),
            (INFRASTRUCTURE_GROUP, "VSphereVM") => vsphere::check_vm(object, request.old, out),
            (INFRASTRUCTURE_GROUP, "VSphereFailureDomain") => vsphere::check_failure_domain(object, out),
            (INFRASTRUCTURE_GROUP, "VSphereClusterIdentity") => vsphere::check_identity(object, out),
            (IPAM_GROUP, "InClusterIPPool" | "GlobalInClusterIPPool") => ipam::check_pool(request, object, lookup, out),
            (IPAM_GROUP, "IPAddressClaim") => ipam::check_claim(object, request.old, out),
            (IPAM_GROUP, "IPAddress") => ipam::check_address(object, request.old, out),
            _ => {}
        }
        if findings.faults.is_empty() {
            return Ok(findings.warnings);
        }
        Err(StatusError::invalid(&GroupKind::new(group, kind), request.name, findings.faults))
    }
}

/// The value at a dotted path.
fn get<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |place, key| place.get(key))
}

/// The text at a dotted path; empty counts as absent.
fn text<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    get(object, path).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The record at a dotted path, made if it is not there.
fn record<'a>(object: &'a mut Value, path: &str) -> Option<&'a mut Map<String, Value>> {
    let mut place = object;
    for key in path.split('.') {
        let map = place.as_object_mut()?;
        place = map.entry(key).or_insert_with(|| json!({}));
        if place.is_null() {
            *place = json!({});
        }
    }
    place.as_object_mut()
}

/// Sets a value unless there is one.
fn default(object: &mut Value, path: &str, value: Value) {
    let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
    let Some(map) = (if parent.is_empty() { object.as_object_mut() } else { record(object, parent) }) else { return };
    if map.get(key).is_none_or(|there| there.is_null() || there == "") {
        map.insert(key.to_owned(), value);
    }
}

/// Sets a label of an object or template.
fn set_label(object: &mut Value, path: &str, key: &str, value: &str) {
    if let Some(labels) = record(object, path) {
        labels.insert(key.to_owned(), json!(value));
    }
}

/// Puts the `v` before a version that has none.
fn prefix_version(object: &mut Value, path: &str) {
    if let Some(version) = text(object, path).filter(|version| !version.starts_with('v')).map(|version| format!("v{version}"))
        && let Some((parent, key)) = path.rsplit_once('.')
        && let Some(map) = record(object, parent)
    {
        map.insert(key.to_owned(), json!(version));
    }
}

/// True for `v1.2.3` with an optional pre-release and build.
fn is_version(version: &str) -> bool {
    let Some(rest) = version.strip_prefix('v') else { return false };
    let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let is_number =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
    let is_suffix = |suffix: &str| {
        suffix.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
    };
    core.split('.').count() == 3 && core.split('.').all(is_number) && pre.is_none_or(is_suffix) && build.is_none_or(is_suffix)
}

fn check_version(object: &Value, path: &str, out: &mut Findings) {
    if let Some(version) = text(object, path).filter(|version| !is_version(version)) {
        out.fault(FieldError::invalid(path, version, "must be a valid semantic version"));
    }
}

/// The annotation that limits drains: a Go duration with its unit.
fn check_drain_timeout(object: &Value, at: &str, out: &mut Findings) {
    let key = annotations::NODE_DRAIN_TIMEOUT;
    let known = get(object, at).and_then(Value::as_object).and_then(|known| known.get(key));
    let Some(text) = known.and_then(Value::as_str) else { return };
    if durations::parse(text).is_some_and(|seconds| seconds >= 0) && text != "0" {
        return;
    }
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let why = match is_number {
        true => format!("is no duration, since it has no unit: write {text}s for seconds, {text}m for minutes; 0s is no limit"),
        false => "is no duration: write it as 80s, 15m or 1h30m; 0s is no limit".to_owned(),
    };
    out.fault(FieldError::invalid(apimachinery::field::key(at, key), text, why));
}

/// A label selector that has to be readable.
fn check_selector(object: &Value, path: &str, out: &mut Findings) {
    let Some(selector) = get(object, path) else { return };
    if let Err(error) = apimachinery::selector::LabelSelector::from_json(selector) {
        out.fault(FieldError::invalid(path, selector.clone(), error.to_string()));
    }
}

fn is_empty_selector(selector: Option<&Value>) -> bool {
    let is_empty = |key: &str, selector: &Value| match selector.get(key) {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        _ => true,
    };
    selector.is_none_or(|selector| is_empty("matchLabels", selector) && is_empty("matchExpressions", selector))
}

#[cfg(test)]
mod tests {
    use super::is_version;

    #[test]
    fn versions_with_their_parts() {
        for version in ["v1.25.5", "v1.30.0-rc.1", "v1.2.3+build.5", "v1.2.3-a+b"] {
            assert!(is_version(version), "{version}");
        }
        for version in ["1.25.5", "v1.25", "v1.25.x", "v01.2.3", "v1.2.3-", "v1.2.3.4", "latest"] {
            assert!(!is_version(version), "{version}");
        }
    }
}
