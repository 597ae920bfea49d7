//! Defaults and rules of the vSphere kinds.

use apimachinery::field::FieldError;
use serde_json::{Map, Value, json};

use super::{Findings, default, get, text};
use crate::ipam::Network;

pub(super) fn default_machine(machine: &mut Value) {
    default(machine, "spec.datacenter", json!("*"));
    default(machine, "spec.os", json!("Linux"));
}

pub(super) fn check_machine(machine: &Value, old: Option<&Value>, out: &mut Findings) {
    check_clone(machine, "spec", out);
    if let Some(old) = old {
        let free = ["providerID", "powerOffMode", "guestSoftPowerOffTimeoutSeconds"];
        check_unchanged(old, machine, &free, out);
    }
}

pub(super) fn check_template(template: &Value, old: Option<&Value>, out: &mut Findings) {
    let spec = "spec.template.spec";
    check_clone(template, spec, out);
    if text(template, &format!("{spec}.providerID")).is_some() {
        out.fault(FieldError::forbidden(format!("{spec}.providerID"), "cannot be set in templates"));
    }
    let devices = format!("{spec}.network.devices");
    for (index, device) in get(template, &devices).and_then(Value::as_array).into_iter().flatten().enumerate() {
        if device.get("ipAddrs").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
            out.fault(FieldError::forbidden(
                format!("{devices}[{index}].ipAddrs"),
                "cannot be set in templates: every machine would get it",
            ));
        }
    }
    if old.is_some_and(|old| get(old, "spec") != get(template, "spec")) {
        let why = "VSphereMachineTemplateSpec is immutable: make a template of another name and refer to that";
        out.fault(FieldError::forbidden("spec", why));
    }
}

pub(super) fn check_vm(vm: &Value, old: Option<&Value>, out: &mut Findings) {
    check_clone(vm, "spec", out);
    let Some(old) = old else { return };
    let mut free = vec!["bootstrapRef", "thumbprint", "powerOffMode", "guestSoftPowerOffTimeoutSeconds", "os"];
    if text(old, "spec.biosUUID").is_none() {
        free.push("biosUUID");
    }
    check_unchanged(old, vm, &free, out);
}

/// The specification without what may change; network cards may, the rest of the network may not.
fn check_unchanged(old: &Value, new: &Value, free: &[&str], out: &mut Findings) {
    let kept = |object: &Value| -> Map<String, Value> {
        let mut spec = get(object, "spec").and_then(Value::as_object).cloned().unwrap_or_default();
        spec.retain(|key, _| !free.contains(&key.as_str()));
        if let Some(network) = spec.get_mut("network").and_then(Value::as_object_mut) {
            network.shift_remove("devices");
        }
        spec
    };
    let (old, new) = (kept(old), kept(new));
    let mut changed: Vec<&String> = old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).collect();
    changed.sort();
    changed.dedup();
    for key in changed {
        out.fault(FieldError::forbidden(format!("spec.{key}"), "cannot be modified: the virtual machine is made from it once"));
    }
}

fn check_clone(object: &Value, spec: &str, out: &mut Findings) {
    let timeout = format!("{spec}.guestSoftPowerOffTimeoutSeconds");
    if get(object, &timeout).is_some() && text(object, &format!("{spec}.powerOffMode")) != Some("trySoft") {
        out.fault(FieldError::forbidden(timeout, "should not be set unless powerOffMode is trySoft"));
    }
    let hardware = format!("{spec}.hardwareVersion");
    if let Some(version) = text(object, &hardware)
        && !version.strip_prefix("vmx-").is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    {
        out.fault(FieldError::invalid(hardware, version, "must be a hardware version such as vmx-17"));
    }
    out.one_of(object, &format!("{spec}.cloneMode"), &["linkedClone", "fullClone"]);
    let naming = format!("{spec}.naming.template");
    if let Some(template) = text(object, &naming)
        && !template.contains(".machine.name")
    {
        out.fault(FieldError::invalid(naming, template, "must contain {{ .machine.name }}, or machines could not be told apart"));
    }
    let devices = format!("{spec}.network.devices");
    for (index, device) in get(object, &devices).and_then(Value::as_array).into_iter().flatten().enumerate() {
        check_device(device, &format!("{devices}[{index}]"), out);
    }
}

fn check_device(device: &Value, path: &str, out: &mut Findings) {
    for (index, address) in device.get("ipAddrs").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let address = address.as_str().unwrap_or_default();
        if Network::parse(address).is_err() {
            let why = "must be an address with its prefix length, such as 10.0.0.5/24";
            out.fault(FieldError::invalid(format!("{path}.ipAddrs[{index}]"), address, why));
        }
    }
    for (field, is_v6) in [("gateway4", false), ("gateway6", true)] {
        if let Some(gateway) = text(device, field)
            && !gateway.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_ipv6() == is_v6)
        {
            let family = if is_v6 { "IPv6" } else { "IPv4" };
            out.fault(FieldError::invalid(format!("{path}.{field}"), gateway, format!("must be an {family} address")));
        }
    }
    for (index, pool) in device.get("addressesFromPools").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if text(pool, "apiGroup").is_none() {
            out.fault(FieldError::required(format!("{path}.addressesFromPools[{index}].apiGroup"), "such as ipam.cluster.x-k8s.io"));
        }
    }
}

pub(super) fn check_failure_domain(domain: &Value, out: &mut Findings) {
    for tag in ["region", "zone"] {
        let kind = text(domain, &format!("spec.{tag}.type"));
        if kind == Some("ComputeCluster") && text(domain, "spec.topology.computeCluster").is_none() {
            out.fault(FieldError::required("spec.topology.computeCluster", format!("the {tag} is a ComputeCluster")));
        }
        if kind == Some("HostGroup") && get(domain, "spec.topology.hosts").is_none() {
            out.fault(FieldError::required("spec.topology.hosts", format!("the {tag} is a HostGroup")));
        }
    }
    if text(domain, "spec.region.type") == Some("HostGroup") {
        out.fault(FieldError::invalid("spec.region.type", "HostGroup", "a region is a Datacenter or a ComputeCluster"));
    }
}

pub(super) fn check_identity(identity: &Value, out: &mut Findings) {
    super::check_selector(identity, "spec.allowedNamespaces.selector", out);
}
