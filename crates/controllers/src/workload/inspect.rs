//! A look at what Nodes wait for before they can be used: the cloud provider that takes their taint away, and the pod network.
//!
//! Read only while a Node is held back, and then seldom: nothing here is watched. Of Secrets no more than their existence is asked for, and
//! of the provider's settings only which Secret they name is kept: they may hold a password.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, PodTemplateSpec, Secret, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams};
use runtime::reconcile::explain;

use super::job::{list, pods, within};

/// Pod networks by a part of the name of what brings them.
const NETWORKS: [&str; 8] = ["cilium", "calico", "tigera", "flannel", "antrea", "weave", "kube-router", "canal"];
/// Where the vSphere cloud provider looks for its Secret when its settings do not say.
const PROVIDER_NAMESPACE: &str = "kube-system";
/// So many events of a namespace are read at most.
const MOST_EVENTS: u32 = 500;

/// What an agent is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    CloudProvider,
    Network,
}

/// A pod of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPod {
    pub name: String,
    /// None while no Node takes it.
    pub node: Option<String>,
    pub is_running: bool,
    /// What stands in its way, or what it complains about, in the cluster's words.
    pub trouble: Option<String>,
}

/// What runs in the cluster for Nodes to be usable.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    pub role: Role,
    /// `DaemonSet kube-system/cilium`.
    pub name: String,
    pub tolerations: Vec<Toleration>,
    pub pods: Vec<AgentPod>,
    /// What it needs and is not there: `Secret kube-system/name`.
    pub missing: Option<String>,
}

/// What a look brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inspection {
    /// When somebody looked last, successfully or not.
    pub at: Timestamp,
    /// None before a look succeeded.
    pub agents: Option<Vec<Agent>>,
    /// What was complained about each Node.
    pub complaints: BTreeMap<String, String>,
    /// Why the last look failed; none when it did not.
    pub failure: Option<String>,
}

/// What was read of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub daemon_sets: Vec<DaemonSet>,
    pub deployments: Vec<Deployment>,
    pub pods: Vec<Pod>,
    pub events: Vec<Event>,
}

/// Something that makes pods, as far as it counts here.
struct Maker<'a> {
    kind: &'static str,
    meta: &'a ObjectMeta,
    template: &'a PodTemplateSpec,
}

impl Maker<'_> {
    fn role(&self) -> Option<Role> {
        let name = self.meta.name.as_deref().unwrap_or_default();
        let containers = self.template.spec.iter().flat_map(|spec| &spec.containers);
        let mut provided = containers.map(|container| {
            let image = container.image.as_deref().unwrap_or_default();
            let has_argument = container.args.iter().flatten().any(|argument| argument == "--cloud-provider=vsphere");
            has_argument || image.contains("cloud-provider-vsphere") || image.contains("vsphere-cloud-controller-manager")
        });
        if provided.any(|is_provider| is_provider) {
            return Some(Role::CloudProvider);
        }
        NETWORKS.iter().any(|network| name.contains(network)).then_some(Role::Network)
    }
}

fn makers(seen: &Seen) -> impl Iterator<Item = Maker<'_>> {
    let sets = seen.daemon_sets.iter().filter_map(|set| {
        let spec = set.spec.as_ref()?;
        Some(Maker { kind: "DaemonSet", meta: &set.metadata, template: &spec.template })
    });
    let deployments = seen.deployments.iter().filter_map(|deployment| {
        let spec = deployment.spec.as_ref()?;
        Some(Maker { kind: "Deployment", meta: &deployment.metadata, template: &spec.template })
    });
    sets.chain(deployments)
}

/// The namespaces of agents.
fn namespaces(seen: &Seen) -> BTreeSet<String> {
    let agents = makers(seen).filter(|maker| maker.role().is_some());
    agents.filter_map(|maker| maker.meta.namespace.clone()).collect()
}

/// What stands in a pod's way, by its own status.
fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let mut waiting = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let harmless = |reason: &str| matches!(reason, "" | "ContainerCreating" | "PodInitializing");
    let told = waiting.find_map(|waiting| {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let message = waiting.message.as_deref().unwrap_or_default();
        (!harmless(reason)).then(|| if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") })
    });
    let unscheduled = || {
        let placed = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled")?;
        placed.message.clone().filter(|message| placed.status == "False" && !message.is_empty())
    };
    told.or_else(unscheduled)
}

/// The last warning about an object of this kind and name.
fn warning<'a>(events: &'a [Event], kind: &str, namespace: Option<&str>, name: &str) -> Option<&'a str> {
    let about = events.iter().filter(|event| {
        let object = &event.involved_object;
        event.type_.as_deref() == Some("Warning")
            && object.kind.as_deref() == Some(kind)
            && object.name.as_deref() == Some(name)
            && (namespace.is_none() || object.namespace.as_deref() == namespace)
    });
    let last = about.max_by_key(|event| event.last_timestamp.as_ref().or(event.metadata.creation_timestamp.as_ref()).map(|time| time.0));
    last?.message.as_deref().filter(|message| !message.is_empty())
}

/// Who there is, and what it lacks. Pure.
pub fn agents(seen: &Seen) -> Vec<Agent> {
    let agent = |maker: Maker<'_>| {
        let namespace = maker.meta.namespace.as_deref();
        let owns = |pod: &&Pod| {
            let owners = pod.metadata.owner_references.iter().flatten();
            // A Deployment's pods are a replica set's, whose name begins with the Deployment's.
            let is_owned = |uid: &str, name: &str| {
                let prefix = format!("{}-", maker.meta.name.as_deref().unwrap_or_default());
                Some(uid) == maker.meta.uid.as_deref() || (maker.kind == "Deployment" && name.starts_with(&prefix))
            };
            pod.metadata.namespace.as_deref() == namespace && owners.into_iter().any(|owner| is_owned(&owner.uid, &owner.name))
        };
        let pods = seen.pods.iter().filter(owns).map(|pod| {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let told = trouble(pod);
            let is_running = told.is_none() && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
            let warned = || warning(&seen.events, "Pod", namespace, &name).map(str::to_owned);
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty());
            AgentPod { trouble: told.or_else(warned), node, is_running, name }
        });
        Some(Agent {
            role: maker.role()?,
            name: format!("{} {}/{}", maker.kind, namespace.unwrap_or_default(), maker.meta.name.as_deref().unwrap_or_default()),
            tolerations: maker.template.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default(),
            pods: pods.collect(),
            missing: None,
        })
    };
    makers(seen).filter_map(agent).collect()
}

/// The Secrets that settings of the vSphere cloud provider name, as YAML or in the older form: namespace and name.
fn secrets_of(settings: &str) -> BTreeSet<(String, String)> {
    let mut named: Vec<(Option<String>, Option<String>)> = vec![(None, None)];
    for line in settings.lines() {
        let Some((key, value)) = line.split_once([':', '=']) else { continue };
        let key = key.trim().replace('-', "").to_lowercase();
        let value = value.trim().trim_matches(['"', '\'']).to_owned();
        let Some(last) = named.last_mut().filter(|_| !value.is_empty()) else { continue };
        match key.as_str() {
            "secretname" if last.0.is_some() => named.push((Some(value), None)),
            "secretname" => last.0 = Some(value),
            "secretnamespace" => last.1 = Some(value),
            _ => {}
        }
    }
    let full =
        |(name, namespace): (Option<String>, Option<String>)| Some((namespace.unwrap_or_else(|| PROVIDER_NAMESPACE.to_owned()), name?));
    named.into_iter().filter_map(full).collect()
}

/// The settings of a provider when they are not there, else the first Secret that they name and that is not.
async fn missing(client: &kube::Client, maker: &Maker<'_>) -> Result<Option<String>, String> {
    let namespace = maker.meta.namespace.as_deref().unwrap_or(PROVIDER_NAMESPACE);
    let volumes = maker.template.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let maps = volumes.filter_map(|volume| volume.config_map.as_ref().map(|map| map.name.clone()));
    for map in maps {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let found = within(async { api.get_opt(&map).await.map_err(|error| explain(&error)) }).await?;
        let Some(found) = found else { return Ok(Some(format!("ConfigMap {namespace}/{map}"))) };
        let named: BTreeSet<_> = found.data.iter().flatten().flat_map(|(_, text)| secrets_of(text)).collect();
        for (namespace, name) in named {
            let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
            let found = within(async { api.get_metadata_opt(&name).await.map_err(|error| explain(&error)) }).await?;
            if found.is_none() {
                return Ok(Some(format!("Secret {namespace}/{name}")));
            }
        }
    }
    Ok(None)
}

/// Looks.
pub async fn inspect(client: &kube::Client) -> Result<(Vec<Agent>, BTreeMap<String, String>), String> {
    let all = ListParams::default();
    let mut seen = Seen { daemon_sets: list(client, &all).await?, deployments: list(client, &all).await?, ..Seen::default() };
    for namespace in namespaces(&seen) {
        seen.pods.extend(pods(client, Some(&namespace), &all).await?);
        seen.events.extend(events(client, &namespace).await?);
    }
    // What is told about Nodes is told there.
    let about_nodes = events(client, "default").await?;
    let nodes: BTreeSet<&String> = about_nodes
        .iter()
        .filter(|event| event.involved_object.kind.as_deref() == Some("Node"))
        .filter_map(|event| event.involved_object.name.as_ref())
        .collect();
    let complaints = nodes.into_iter().filter_map(|node| Some((node.clone(), warning(&about_nodes, "Node", None, node)?.to_owned())));
    let complaints = complaints.collect();
    let mut agents = agents(&seen);
    for (agent, maker) in agents.iter_mut().zip(makers(&seen).filter(|maker| maker.role().is_some())) {
        if agent.role == Role::CloudProvider {
            agent.missing = missing(client, &maker).await?;
        }
    }
    Ok((agents, complaints))
}

async fn events(client: &kube::Client, namespace: &str) -> Result<Vec<Event>, String> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().fields("type=Warning").limit(MOST_EVENTS);
    within(async { api.list(&params).await.map(|list| list.items).map_err(|error| explain(&error)) }).await
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn read<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn set(name: &str, image: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "kube-system", "uid": format!("uid-{name}")}, "spec": {"selector": {}, "template":
            {"spec": {"tolerations": [{"key": "x", "operator": "Exists"}], "containers": [{"name": "c", "image": image}]}}}})
    }

    fn pod(name: &str, owner: &str, status: Value) -> Pod {
        read(
            json!({"metadata": {"name": name, "namespace": "kube-system", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "s", "uid": owner}]},
            "spec": {"nodeName": "n", "containers": []}, "status": status}),
        )
    }

    #[test]
    fn agents_are_found_by_image_argument_or_name_with_what_troubles_their_pods() {
        let mut by_argument = set("cpi", "registry/other");
        by_argument["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["--cloud-provider=vsphere"]);
        let seen = Seen {
            daemon_sets: vec![read(set("calico-node", "docker.io/calico/node")), read(by_argument), read(set("other", "i"))],
            deployments: vec![read(set("tigera-operator", "i"))],
            pods: vec![
                pod("a", "uid-calico-node", json!({"phase": "Running"})),
                pod(
                    "b",
                    "uid-calico-node",
                    json!({"phase": "Pending", "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"x\" not found"}}}]}),
                ),
                pod("c", "uid-cpi", json!({"phase": "Running"})),
                pod(
                    "d",
                    "uid-tigera-operator",
                    json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]}),
                ),
            ],
            events: vec![
                read(
                    json!({"metadata": {}, "involvedObject": {"kind": "Pod", "name": "c", "namespace": "kube-system"}, "type": "Warning", "message": "old", "lastTimestamp": "2026-03-01T08:00:00Z"}),
                ),
                read(
                    json!({"metadata": {}, "involvedObject": {"kind": "Pod", "name": "c", "namespace": "kube-system"}, "type": "Warning", "message": "cannot sign in", "lastTimestamp": "2026-03-01T08:01:00Z"}),
                ),
                read(
                    json!({"metadata": {}, "involvedObject": {"kind": "Pod", "name": "a", "namespace": "kube-system"}, "type": "Normal", "message": "pulled"}),
                ),
            ],
        };
        let found = agents(&seen);
        let told: Vec<_> = found.iter().map(|agent| (agent.role, agent.name.as_str(), agent.pods.len())).collect();
        assert_eq!(
            told,
            [
                (Role::Network, "DaemonSet kube-system/calico-node", 2),
                (Role::CloudProvider, "DaemonSet kube-system/cpi", 1),
                (Role::Network, "Deployment kube-system/tigera-operator", 1),
            ]
        );
        let pods: Vec<_> =
            found.iter().flat_map(|agent| &agent.pods).map(|pod| (pod.is_running, pod.trouble.as_deref().unwrap_or_default())).collect();
        assert_eq!(
            pods,
            [
                (true, ""),
                (false, "CreateContainerConfigError: secret \"x\" not found"),
                (true, "cannot sign in"),
                (false, "0/1 nodes are available"),
            ]
        );
        assert_eq!(namespaces(&seen), BTreeSet::from(["kube-system".to_owned()]));
    }

    #[test]
    fn settings_name_their_secrets_in_both_forms() {
        let named = |text: &str| secrets_of(text).into_iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect::<Vec<_>>();
        assert_eq!(
            named("global:\n  secretName: a\n  secretNamespace: \"b\"\nvcenter:\n  vc:\n    secretName: c\n"),
            ["b/a", "kube-system/c"]
        );
        assert_eq!(named("[Global]\nsecret-name = \"a\"\nsecret-namespace = \"b\"\n"), ["b/a"]);
        assert_eq!(named("global:\n  user: u\n  password: p\n"), [""; 0]);
    }
}
