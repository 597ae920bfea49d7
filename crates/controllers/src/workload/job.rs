//! What is done in a workload cluster, one call after another, each within a limit.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{self, Scope};
use runtime::reconcile::{ObjectKey, Store, explain};
use serde_json::Value;

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
            Self::Apply { work, .. } => format!("apply {work}"),
        }
    }

    /// The step's name in the log.
    pub fn word(&self) -> &'static str {
        match self {
            Self::PatchNode { .. } => "patch-node",
            Self::DeleteNode { .. } => "delete-node",
            Self::Apply { .. } => "apply",
        }
    }

    /// What the job is about, without content.
    pub fn object(&self) -> String {
        match self {
            Self::PatchNode { node, .. } | Self::DeleteNode { node, .. } => format!("Node {node}"),
            Self::Apply { work, objects } => format!("{work} ({} objects)", objects.len()),
        }
    }
}

/// Carries out a job; the error is for people.
pub async fn carry_out(client: &kube::Client, nodes: &Store<Node>, job: &Job) -> Result<(), String> {
    match job {
        Job::PatchNode { node, patch } => {
            let key = ObjectKey::cluster_scoped(node.clone());
            within(async { nodes.merge(&key, patch.clone()).await.map(drop).map_err(|error| error.to_string()) }).await
        }
        Job::DeleteNode { node, uid } => {
            let meta = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(node.clone()),
                uid: Some(uid.clone()),
                ..Default::default()
            };
            within(async { nodes.delete(&meta, None).await.map_err(|error| error.to_string()) }).await
        }
        Job::Apply { objects, .. } => apply(client, objects).await,
    }
}

async fn within<T>(call: impl Future<Output = Result<T, String>>) -> Result<T, String> {
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
