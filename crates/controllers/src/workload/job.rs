//! What is done in a workload cluster, one call after another, each within a limit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{self, Scope};
use runtime::reconcile::{ObjectKey, Store, explain};
use serde_json::{Value, json};

use super::inspect::{Agent, inspect};
use super::load::{Attached, Eviction, Look, Looked};

/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// One piece of work. Has no `Debug`: objects may be Secrets.
pub enum Job {
    PatchNode {
        node: String,
        patch: Value,
    },
    DeleteNode {
        node: String,
        uid: String,
    },
    /// Reads what is on a Node.
    Look {
        node: String,
        what: Look,
    },
    Evict {
        node: String,
        eviction: Eviction,
    },
    /// Looks for what Nodes wait for.
    Inspect,
    /// Creates what is missing.
    Apply {
        work: String,
        objects: Vec<Value>,
    },
}

impl Job {
    /// Two jobs of one identity do the same.
    pub fn identity(&self) -> String {
        match self {
            Self::PatchNode { node, patch } => format!("patch {node} {patch}"),
            Self::DeleteNode { node, uid } => format!("delete {node} {uid}"),
            Self::Look { node, what } => format!("look {node} {what:?}"),
            Self::Evict { eviction, .. } => format!("evict {} {}", eviction.uid, eviction.round),
            Self::Inspect => "inspect".to_owned(),
            Self::Apply { work, .. } => format!("apply {work}"),
        }
    }

    /// The step's name in the log.
    pub fn word(&self) -> &'static str {
        match self {
            Self::PatchNode { .. } => "patch-node",
            Self::DeleteNode { .. } => "delete-node",
            Self::Look { .. } => "look",
            Self::Evict { .. } => "evict",
            Self::Inspect => "inspect",
            Self::Apply { .. } => "apply",
        }
    }

    /// What the job is about, without content.
    pub fn object(&self) -> String {
        match self {
            Self::PatchNode { node, .. } | Self::DeleteNode { node, .. } | Self::Look { node, .. } => format!("Node {node}"),
            Self::Evict { node, eviction } => format!("Node {node} Pod {}/{}", eviction.namespace, eviction.name),
            Self::Inspect => "cloud provider and pod network".to_owned(),
            Self::Apply { work, objects } => format!("{work} ({} objects)", objects.len()),
        }
    }

    /// The Node that it is about. Jobs about one Node are carried out in their order, and wait for no other's; those about none wait for
    /// each other.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::PatchNode { node, .. } | Self::DeleteNode { node, .. } | Self::Look { node, .. } | Self::Evict { node, .. } => Some(node),
            Self::Inspect | Self::Apply { .. } => None,
        }
    }
}

/// What came of a job.
pub enum Done {
    It,
    Looked(Looked),
    Inspected(Vec<Agent>, BTreeMap<String, String>),
}

/// Carries out a job; the error is for people.
pub async fn carry_out(client: &kube::Client, nodes: &Store<Node>, job: &Job) -> Result<Done, String> {
    match job {
        Job::Look { node, what } => return look(client, node, *what).await.map(Done::Looked),
        Job::Inspect => return inspect(client).await.map(|(agents, complaints)| Done::Inspected(agents, complaints)),
        Job::Evict { eviction, .. } => evict(client, eviction).await?,
        Job::PatchNode { node, patch } => {
            let key = ObjectKey::cluster_scoped(node.clone());
            within(async { nodes.merge(&key, patch.clone()).await.map(drop).map_err(|error| error.to_string()) }).await?;
        }
        Job::DeleteNode { node, uid } => {
            let meta = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(node.clone()),
                uid: Some(uid.clone()),
                ..Default::default()
            };
            within(async { nodes.delete(&meta, None).await.map_err(|error| error.to_string()) }).await?;
        }
        Job::Apply { objects, .. } => apply(client, objects).await?,
    }
    Ok(Done::It)
}

/// All objects of a kind.
pub async fn list<K>(client: &kube::Client, params: &ListParams) -> Result<Vec<K>, String>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::all(client.clone());
    within(async { api.list(params).await.map(|list| list.items).map_err(|error| explain(&error)) }).await
}

/// Pods of a namespace, or of all. One that this release cannot read as a whole counts as what can be read of it: it must not hide the others.
pub async fn pods(client: &kube::Client, namespace: Option<&str>, params: &ListParams) -> Result<Vec<Pod>, String> {
    let resource = ApiResource::erase::<Pod>(&());
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let list = within(async { api.list(params).await.map_err(|error| explain(&error)) }).await?;
    Ok(list.items.into_iter().map(pod).collect())
}

/// What of a pod decides about it, when it cannot be read as a whole: who it is, its owner, whether it is over, which claims it has.
fn pod(object: DynamicObject) -> Pod {
    let DynamicObject { metadata, data, .. } = object;
    let read = |part: &str| data.get(part).cloned().unwrap_or_default();
    let (spec, status) = (read("spec"), read("status"));
    let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let claims: Vec<Value> = volumes
        .filter(|volume| volume.get("persistentVolumeClaim").is_some() || volume.get("emptyDir").is_some())
        .map(|volume| json!({"name": volume["name"], "persistentVolumeClaim": volume["persistentVolumeClaim"], "emptyDir": volume["emptyDir"]}))
        .collect();
    let reduced_spec = || serde_json::from_value(json!({"containers": [], "nodeName": spec["nodeName"], "volumes": claims})).ok();
    let reduced_status = || serde_json::from_value(json!({"phase": status["phase"]})).ok();
    Pod {
        metadata,
        spec: serde_json::from_value(spec.clone()).ok().or_else(reduced_spec),
        status: serde_json::from_value(status.clone()).ok().or_else(reduced_status),
    }
}

async fn look(client: &kube::Client, node: &str, what: Look) -> Result<Looked, String> {
    let pods = pods(client, None, &ListParams::default().fields(&format!("spec.nodeName={node}"))).await?;
    let mut looked = Looked { pods: pods.into_iter().map(Arc::new).collect(), ..Looked::default() };
    if what.namespaces {
        let namespaces = list::<Namespace>(client, &ListParams::default()).await?;
        let labels = |namespace: Namespace| Some((namespace.metadata.name?, namespace.metadata.labels.unwrap_or_default()));
        looked.namespaces = namespaces.into_iter().filter_map(labels).collect();
    }
    if what.volumes {
        let attachments = list::<VolumeAttachment>(client, &ListParams::default()).await?;
        let volumes: Api<PersistentVolume> = Api::all(client.clone());
        let mut attached = Vec::new();
        for attachment in attachments.into_iter().filter(|attachment| attachment.spec.node_name == node) {
            let Some(name) = attachment.spec.source.persistent_volume_name else {
                let name = attachment.metadata.name.unwrap_or_default();
                attached.push(Attached { name, device: None, claim: None });
                continue;
            };
            let volume = within(async { volumes.get_opt(&name).await.map_err(|error| explain(&error)) }).await?;
            let spec = volume.and_then(|volume| volume.spec).unwrap_or_default();
            let device = spec.csi.map(|csi| format!("kubernetes.io/csi/{}^{}", csi.driver, csi.volume_handle));
            let claim = spec.claim_ref.and_then(|claim| Some((claim.namespace?, claim.name?)));
            attached.push(Attached { name, device, claim });
        }
        looked.volumes = Some(attached);
    }
    Ok(looked)
}

/// A pod that is gone, or is another one by now, counts as evicted. The request is made here: kube's own names the options so that no server
/// reads them, and would evict whichever pod has the name.
async fn evict(client: &kube::Client, eviction: &Eviction) -> Result<(), String> {
    let Eviction { namespace, name, .. } = eviction;
    let options = DeleteParams {
        grace_period_seconds: eviction.grace_seconds,
        preconditions: Some(Preconditions { uid: Some(eviction.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": namespace, "name": name}, "deleteOptions": options});
    let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction"));
    let request = request.header(http::header::CONTENT_TYPE, "application/json").body(body.to_string().into_bytes());
    let request = request.map_err(|error| error.to_string())?;
    within(async {
        match client.request_text(request).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(kube::Error::Api(status)) => {
                let causes = status.details.iter().flat_map(|details| &details.causes).map(|cause| cause.message.as_str());
                Err([status.message.as_str()].into_iter().chain(causes).collect::<Vec<_>>().join(" "))
            }
            Err(error) => Err(explain(&error)),
        }
    })
    .await
}

/// A call, or the end of its time.
pub async fn within<T>(call: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(CALL_LIMIT, call).await.unwrap_or_else(|_| Err(format!("no answer within {} s", CALL_LIMIT.as_secs())))
}

/// What others live in or are made of comes first.
fn rank(object: &Value) -> u8 {
    match object.get("kind").and_then(Value::as_str) {
        Some("Namespace") => 0,
        Some("CustomResourceDefinition") => 1,
        Some("ServiceAccount" | "Secret" | "ConfigMap" | "ClusterRole" | "Role" | "PriorityClass" | "StorageClass") => 2,
        Some("ClusterRoleBinding" | "RoleBinding" | "Service") => 3,
        _ => 4,
    }
}

async fn apply(client: &kube::Client, objects: &[Value]) -> Result<(), String> {
    let mut sorted: Vec<&Value> = objects.iter().collect();
    sorted.sort_by_key(|object| rank(object));
    let mut known: BTreeMap<(String, String), (ApiResource, Scope)> = BTreeMap::new();
    for value in sorted {
        let object: DynamicObject = serde_json::from_value(value.clone()).map_err(|_| "an object has no metadata".to_owned())?;
        let types = object.types.clone().ok_or_else(|| "an object has no apiVersion and kind".to_owned())?;
        let name = object.metadata.name.clone().unwrap_or_default();
        let what = format!("{} {name}", types.kind);
        let (resource, scope) = match known.get(&(types.api_version.clone(), types.kind.clone())) {
            Some(found) => found.clone(),
            None => {
                let kind = GroupVersionKind::try_from(&types).map_err(|error| format!("{what}: {error}"))?;
                let found = within(async { discovery::pinned_kind(client, &kind).await.map_err(|error| explain(&error)) }).await;
                let (resource, capabilities) = found.map_err(|error| format!("{what}: {error}"))?;
                known.insert((types.api_version.clone(), types.kind.clone()), (resource.clone(), capabilities.scope.clone()));
                (resource, capabilities.scope)
            }
        };
        let api: Api<DynamicObject> = match scope {
            Scope::Cluster => Api::all_with(client.clone(), &resource),
            Scope::Namespaced => {
                let namespace = object.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
                Api::namespaced_with(client.clone(), &namespace, &resource)
            }
        };
        let created = within(async {
            match api.create(&PostParams::default(), &object).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
                Err(error) => Err(explain(&error)),
            }
        });
        created.await.map_err(|error| format!("{what}: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: Value, status: Value) -> Pod {
        let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec, "status": status});
        pod(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_pod_that_cannot_be_read_as_a_whole_is_read_in_part() {
        let whole =
            read(json!({"nodeName": "a", "containers": [{"name": "c", "image": "i"}]}), json!({"phase": "Running", "podIP": "10.0.0.1"}));
        assert_eq!(whole.spec.unwrap().containers.len(), 1);
        assert_eq!(whole.status.unwrap().pod_ip.as_deref(), Some("10.0.0.1"));
        let odd = json!([
            {"name": "s", "secret": {"defaultMode": 400.0}},
            {"name": "d", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "e", "emptyDir": {}},
        ]);
        let part = read(json!({"nodeName": "a", "containers": [], "volumes": odd}), json!({"phase": "Succeeded", "startTime": 7}));
        let (spec, status) = (part.spec.unwrap(), part.status.unwrap());
        let volumes = spec.volumes.unwrap();
        assert_eq!((spec.node_name.as_deref(), volumes.len()), (Some("a"), 2));
        assert_eq!(volumes[0].persistent_volume_claim.as_ref().unwrap().claim_name, "c");
        assert!(volumes[1].empty_dir.is_some() && status.phase.as_deref() == Some("Succeeded"));
        let bare = read(json!("nonsense"), json!([]));
        assert_eq!((bare.metadata.name.as_deref(), bare.metadata.uid.as_deref()), (Some("p"), Some("u")));
    }
}
