//! The vSphere cloud provider's stand-in: it runs while a pod of it runs, and does to nodes what the real one does.
//!
//! It reads its own settings and secret from the cluster, signs in to its vCenter with them, finds each tainted node's VM by the system
//! UUID in both byte orders, and needs the guest's report from VMware tools. Only then does it set the providerID (when there is none), the
//! addresses and the labels and takes the taint away. A node that is lost and whose VM vCenter does not know is deleted. What keeps it from that becomes an Event, once for each reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Workload;
use super::cache::{is_deleted, list, name, namespace, text};
use super::client::Client;
use super::controllers::{after, internal_address, now};
use super::node::{UNINITIALIZED, readiness, swapped};
use super::pods::Seen;
use crate::node::Nodes;

/// The part of `vsphere.conf` that matters here. INI, the older form, is not read.
#[derive(Debug, Default, Deserialize)]
struct Settings {
    #[serde(default)]
    global: Section,
    #[serde(default)]
    vcenter: BTreeMap<String, Section>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Section {
    #[serde(default)]
    server: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    secret_name: String,
    #[serde(default)]
    secret_namespace: String,
}

/// What the provider keeps in mind.
pub(super) struct CloudProvider {
    client: Client,
    /// When the look at a node that can be initialized is over.
    looking: BTreeMap<String, Instant>,
    told: BTreeSet<String>,
}

impl CloudProvider {
    pub(super) fn new(workload: &Workload) -> Self {
        // The service account its manifest names.
        let client = workload.client("system:serviceaccount:kube-system:cloud-controller-manager", &["system:serviceaccounts"]);
        Self { client, looking: BTreeMap::new(), told: BTreeSet::new() }
    }

    /// Does what is to be done now. Returns when the next thing falls due.
    pub(super) async fn act(&mut self, nodes: &Nodes, workload: &Workload, seen: &Seen) -> Option<Instant> {
        let tainted: Vec<&Arc<Value>> = seen.nodes.iter().filter(|node| !is_deleted(node) && is_tainted(node)).collect();
        let gone: Vec<&Arc<Value>> = seen.nodes.iter().filter(|node| !is_deleted(node) && has_lost_its_vm(nodes, node)).collect();
        if tainted.is_empty() {
            self.looking.clear();
        }
        if tainted.is_empty() && gone.is_empty() {
            return None;
        }
        let set = seen.daemon_sets.iter().chain(&seen.deployments).find(|owner| is_provider(owner))?;
        let uid = text(set, "/metadata/uid");
        let pod = seen.pods.iter().find(|pod| {
            text(pod, "/status/phase") == "Running" && list(pod, "/metadata/ownerReferences").iter().any(|owner| text(owner, "/uid") == uid)
        })?;
        if let Err(reason) = sign_in(nodes, workload, pod) {
            self.tell(nodes, pod, "FailedToSignIn", &reason).await;
            return None;
        }
        for node in gone {
            let _ = self.client.delete(&format!("/api/v1/nodes/{}", name(node))).await;
        }
        let mut due: Option<Instant> = None;
        for node in tainted {
            let found = match find(nodes, node) {
                Ok(found) => found,
                Err(reason) => {
                    self.tell(nodes, node, "FailedToInitializeNode", &reason).await;
                    continue;
                }
            };
            let name = name(node).to_owned();
            let at = *self.looking.entry(name.clone()).or_insert_with(|| after(nodes, nodes.options().latency.cloud_provider));
            if nodes.options().clock.instant() < at {
                due = Some(due.map_or(at, |due: Instant| due.min(at)));
                continue;
            }
            if self.initialize(nodes, node, &found).await {
                self.looking.remove(&name);
            }
        }
        due
    }

    async fn initialize(&self, nodes: &Nodes, node: &Value, found: &Found) -> bool {
        let name = name(node);
        let addresses: Vec<Value> = [("Hostname", &found.host_name), ("InternalIP", &found.address), ("ExternalIP", &found.address)]
            .into_iter()
            .map(|(kind, address)| json!({"type": kind, "address": address}))
            .collect();
        let status = json!({"status": {"addresses": addresses}});
        if self.client.merge(&format!("/api/v1/nodes/{name}/status"), &status).await.is_err() {
            return false;
        }
        let Ok(fresh) = self.client.get(&format!("/api/v1/nodes/{name}")).await else { return false };
        let taints: Vec<&Value> = list(&fresh, "/spec/taints").iter().filter(|taint| text(taint, "/key") != UNINITIALIZED).collect();
        let mut spec = json!({"taints": taints});
        if let Some(map) = spec.as_object_mut().filter(|_| text(&fresh, "/spec/providerID").is_empty()) {
            map.insert("providerID".to_owned(), json!(format!("vsphere://{}", found.uuid)));
        }
        let kind = "vsphere-vm.cpu-2.mem-4gb.os-other3xlinux64guest";
        let labels = json!({"node.kubernetes.io/instance-type": kind, "beta.kubernetes.io/instance-type": kind});
        let version = text(&fresh, "/metadata/resourceVersion");
        let patch = json!({"metadata": {"resourceVersion": version, "labels": labels}, "spec": spec});
        let done = self.client.merge(&format!("/api/v1/nodes/{name}"), &patch).await.is_ok();
        if done {
            nodes.event(None, &format!("the cloud provider initialized {name}"));
        }
        done
    }

    /// An Event about `object`, once for each reason.
    async fn tell(&mut self, nodes: &Nodes, object: &Value, reason: &str, message: &str) {
        let what = name(object);
        if !self.told.insert(format!("{what} {reason} {message}")) {
            return;
        }
        let place = Some(namespace(object)).filter(|namespace| !namespace.is_empty()).unwrap_or("default");
        let suffix = nodes.options().random.child(&format!("event {what} {reason} {message}")).name_suffix(16);
        let kind = if place == "default" { "Node" } else { "Pod" };
        let now = now(nodes);
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": reason, "message": message, "count": 1,
            "metadata": {"name": format!("{what}.{suffix}"), "namespace": place},
            "involvedObject": {"apiVersion": "v1", "kind": kind, "name": what, "namespace": namespace(object), "uid": text(object, "/metadata/uid")},
            "source": {"component": "cloud-node-controller"}, "firstTimestamp": now, "lastTimestamp": now,
        });
        let _ = self.client.create(&format!("/api/v1/namespaces/{place}/events"), &event).await;
        nodes.event(None, &format!("the cloud provider: {message}"));
    }
}

fn is_tainted(node: &Value) -> bool {
    list(node, "/spec/taints").iter().any(|taint| text(taint, "/key") == UNINITIALIZED)
}

/// Whether nobody hears from the node and vCenter knows no machine of its provider ID any more.
fn has_lost_its_vm(nodes: &Nodes, node: &Value) -> bool {
    let Some(uuid) = text(node, "/spec/providerID").strip_prefix("vsphere://") else { return false };
    let is_known =
        |hypervisor: &Arc<dyn crate::hypervisor::Hypervisor>| hypervisor.vms().iter().any(|vm| vm.bios_uuid.eq_ignore_ascii_case(uuid));
    readiness(node) != "True" && nodes.hypervisor().is_some_and(|hypervisor| !is_known(hypervisor))
}

/// Told by its image or its arguments.
fn is_provider(owner: &Value) -> bool {
    list(owner, "/spec/template/spec/containers").iter().any(|container| {
        let image = text(container, "/image");
        let has_argument = list(container, "/args").iter().filter_map(Value::as_str).any(|argument| argument == "--cloud-provider=vsphere");
        has_argument || image.contains("cloud-provider-vsphere") || image.contains("vsphere-cloud-controller-manager")
    })
}

/// Signs in to every vCenter of the settings.
fn sign_in(nodes: &Nodes, workload: &Workload, pod: &Value) -> Result<(), String> {
    let maps: Vec<&str> =
        list(pod, "/spec/volumes").iter().map(|volume| text(volume, "/configMap/name")).filter(|name| !name.is_empty()).collect();
    let map_name = maps.first().copied().unwrap_or("vsphere-cloud-config");
    let map = workload.cache().get("configmaps", namespace(pod), map_name).ok_or_else(|| format!("configmap \"{map_name}\" not found"))?;
    let content = text(&map, "/data/vsphere.conf");
    if content.is_empty() {
        return Err(format!("configmap \"{map_name}\" has no vsphere.conf"));
    }
    let settings: Settings =
        serde_saphyr::from_str(content).map_err(|error| format!("vsphere.conf is not YAML of the known form: {error}"))?;
    if settings.vcenter.is_empty() {
        return Err("vsphere.conf names no vCenter".to_owned());
    }
    for (key, section) in &settings.vcenter {
        let server = [&section.server, &settings.global.server, key].into_iter().find(|text| !text.is_empty()).cloned().unwrap_or_default();
        let (user, password) = credentials(workload, &settings.global, section, &server)?;
        let is_known = nodes.hypervisor().is_some_and(|hypervisor| hypervisor.sign_in(&server, &user, &password));
        if !is_known {
            return Err(format!("ServerFaultCode: Cannot complete login to {server} due to an incorrect user name or password"));
        }
    }
    Ok(())
}

fn credentials(workload: &Workload, global: &Section, section: &Section, server: &str) -> Result<(String, String), String> {
    let first = |own: &String, other: &String| if own.is_empty() { other.clone() } else { own.clone() };
    let secret_name = first(&section.secret_name, &global.secret_name);
    if secret_name.is_empty() {
        return Ok((first(&section.user, &global.user), first(&section.password, &global.password)));
    }
    let secret_namespace = match first(&section.secret_namespace, &global.secret_namespace) {
        namespace if namespace.is_empty() => "kube-system".to_owned(),
        namespace => namespace,
    };
    let missing = format!("secret \"{secret_namespace}/{secret_name}\" not found");
    let secret = workload.cache().get("secrets", &secret_namespace, &secret_name).ok_or(missing)?;
    let value = |key: &str| {
        let encoded = secret.get("data").and_then(|data| data.get(format!("{server}.{key}"))).and_then(Value::as_str);
        let bytes = encoded.and_then(|encoded| base64::engine::general_purpose::STANDARD.decode(encoded).ok());
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| format!("secret \"{secret_name}\" has no {server}.{key}"))
    };
    Ok((value("username")?, value("password")?))
}

/// A node's VM, as far as the provider needs it.
struct Found {
    /// The BIOS UUID as vCenter shows it.
    uuid: String,
    host_name: String,
    address: String,
}

fn find(nodes: &Nodes, node: &Value) -> Result<Found, String> {
    let name = name(node);
    let seen = text(node, "/status/nodeInfo/systemUUID").to_lowercase();
    let orders: Vec<String> = [swapped(&seen), Some(seen.clone())].into_iter().flatten().collect();
    let vms = nodes.hypervisor().map(|hypervisor| hypervisor.vms()).unwrap_or_default();
    let mut matching: Vec<_> = vms.iter().filter(|vm| !vm.is_template && orders.contains(&vm.bios_uuid.to_lowercase())).collect();
    if let Some(expected) = orders.first()
        && matching.iter().any(|vm| vm.bios_uuid.eq_ignore_ascii_case(expected))
    {
        matching.retain(|vm| vm.bios_uuid.eq_ignore_ascii_case(expected));
    }
    let vm = match matching.as_slice() {
        [vm] => vm,
        [] => return Err(format!("no VM has the system UUID {seen} of node \"{name}\", in either byte order")),
        many => return Err(format!("{} VMs have the system UUID {seen} of node \"{name}\"", many.len())),
    };
    let report = nodes.reported(&vm.id).filter(|report| !report.host_name.is_empty());
    let report =
        report.ok_or_else(|| format!("VM {} of node \"{name}\" reports no guest host name: VMware tools do not run in it", vm.name))?;
    let addresses: Vec<&str> =
        report.nets.iter().flat_map(|(_, addresses)| addresses).map(|address| address.split('/').next().unwrap_or(address)).collect();
    let known = internal_address(node);
    let address = addresses.iter().find(|address| **address == known).or(addresses.first());
    let address = address.ok_or_else(|| format!("VM {} of node \"{name}\" reports no address", vm.name))?;
    Ok(Found { uuid: vm.bios_uuid.to_lowercase(), host_name: report.host_name.clone(), address: (*address).to_owned() })
}
