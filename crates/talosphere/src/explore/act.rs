//! What a user does to a running cluster, with the API or by hand in vCenter.

use std::fmt;

use http::Method;
use runtime::random::Random;
use serde_json::{Value, json};
use simulator::hypervisor::VmId;

use super::player::Player;

const MACHINES: &str = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/machines";
const CLUSTER: &str = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/clusters/demo";
const DEPLOYMENT: &str = "/apis/cluster.x-k8s.io/v1beta2/namespaces/default/machinedeployments/demo-workers";
const CONTROL_PLANE: &str = "/apis/controlplane.cluster.x-k8s.io/v1alpha3/namespaces/default/taloscontrolplanes/demo-control-plane";
const TEMPLATES: &str = "/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/default/vspheremachinetemplates";
const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
/// How long a node is drained when pods are held on it.
const DRAIN_SECONDS: u32 = 120;

/// One of the machines, by its place among those of its role, sorted by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    ControlPlane(u64),
    Worker(u64),
}

impl Which {
    pub(super) fn draw(random: &Random) -> Self {
        let number = random.below(5);
        if random.below(3) == 0 { Self::ControlPlane(number) } else { Self::Worker(number) }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlPlane(number) => write!(f, "control plane {number}"),
            Self::Worker(number) => write!(f, "worker {number}"),
        }
    }
}

/// An act. A new one needs its words, its draw and its deed, below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    ScaleWorkers(u64),
    ScaleControlPlanes(u64),
    /// Workers are to be made from another template.
    ChangeWorkers,
    /// Control planes are.
    ChangeControlPlanes,
    /// Something that is carried to what exists, without any replacement.
    Edit,
    Pause,
    Unpause,
    /// A pod with a budget that never lets it go; drains end after two minutes.
    HoldPod(Which),
    DeleteMachine(Which),
    DeleteCluster,
    /// In vCenter.
    DestroyVm(Which),
    PowerOff(Which),
    Rename(Which),
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ScaleWorkers(count) => write!(f, "scales the workers to {count}"),
            Self::ScaleControlPlanes(count) => write!(f, "scales the control planes to {count}"),
            Self::ChangeWorkers => write!(f, "gives the workers another template"),
            Self::ChangeControlPlanes => write!(f, "gives the control planes another template"),
            Self::Edit => write!(f, "edits the workers' time limits"),
            Self::Pause => write!(f, "pauses the cluster"),
            Self::Unpause => write!(f, "lets the cluster go on"),
            Self::HoldPod(which) => write!(f, "runs a pod on {which} that its budget never lets go"),
            Self::DeleteMachine(which) => write!(f, "deletes the Machine of {which}"),
            Self::DeleteCluster => write!(f, "deletes the cluster"),
            Self::DestroyVm(which) => write!(f, "destroys the VM of {which} by hand"),
            Self::PowerOff(which) => write!(f, "switches the VM of {which} off by hand"),
            Self::Rename(which) => write!(f, "renames the VM of {which} by hand"),
        }
    }
}

impl Act {
    /// A careful user destroys no VM by hand.
    pub(super) fn draw(random: &Random, is_careful: bool) -> Self {
        match random.below(if is_careful { 20 } else { 26 }) {
            0..=3 => Self::ScaleWorkers(random.below(5)),
            4..=6 => Self::ScaleControlPlanes(1 + 2 * random.below(3)),
            7..=9 => Self::ChangeWorkers,
            10 => Self::ChangeControlPlanes,
            11 => Self::Edit,
            12 => Self::Pause,
            13 => Self::Unpause,
            14 => Self::HoldPod(Which::draw(random)),
            15 | 16 => Self::DeleteMachine(Which::draw(random)),
            17 => Self::DeleteCluster,
            18 => Self::PowerOff(Which::draw(random)),
            19 => Self::Rename(Which::draw(random)),
            _ => Self::DestroyVm(Which::draw(random)),
        }
    }

    /// Does it. Answers what came of it, for the log.
    pub(super) async fn perform(&self, player: &Player) -> String {
        let told = match self {
            Self::ScaleWorkers(count) => merge(player, DEPLOYMENT, &json!({"spec": {"replicas": count}})).await,
            Self::ScaleControlPlanes(count) => merge(player, CONTROL_PLANE, &json!({"spec": {"replicas": count}})).await,
            Self::ChangeWorkers => change(player, "demo-workers", DEPLOYMENT, "/spec/template/spec/infrastructureRef/name").await,
            Self::ChangeControlPlanes => change(player, "demo-control-plane", CONTROL_PLANE, "/spec/infrastructureTemplate/name").await,
            Self::Edit => {
                let deletion = json!({"nodeDrainTimeoutSeconds": 600, "nodeVolumeDetachTimeoutSeconds": 300});
                merge(player, DEPLOYMENT, &json!({"spec": {"template": {"spec": {"deletion": deletion}}}})).await
            }
            Self::Pause => merge(player, CLUSTER, &json!({"spec": {"paused": true}})).await,
            Self::Unpause => merge(player, CLUSTER, &json!({"spec": {"paused": false}})).await,
            Self::HoldPod(which) => hold(player, *which).await,
            Self::DeleteMachine(which) => delete_machine(player, *which).await,
            Self::DeleteCluster => delete(player, CLUSTER).await,
            Self::DestroyVm(which) => by_hand(player, *which, |person, vm| person.delete(vm)),
            Self::PowerOff(which) => by_hand(player, *which, |person, vm| person.power_off(vm)),
            Self::Rename(which) => by_hand(player, *which, |person, vm| person.rename(vm, &format!("renamed-{vm}"))),
        };
        told.unwrap_or_else(|refusal| format!("refused: {refusal}"))
    }
}

type Told = Result<String, String>;

async fn send(player: &Player, method: Method, path: &str, kind: &str, body: &Value) -> Result<Value, String> {
    player.world.api().send(method, path, Some(kind), Some(body)).await.map_err(|error| error.to_string())
}

async fn merge(player: &Player, path: &str, change: &Value) -> Told {
    send(player, Method::PATCH, path, "application/merge-patch+json", change).await.map(|_| "ok".to_owned())
}

async fn delete(player: &Player, path: &str) -> Told {
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    send(player, Method::DELETE, path, "application/json", &options).await.map(|_| "ok".to_owned())
}

async fn delete_machine(player: &Player, which: Which) -> Told {
    let Some(name) = player.machine(which) else { return Ok("there is none".to_owned()) };
    if player.is_careful && matches!(which, Which::ControlPlane(_)) && player.staying_control_planes() < 2 {
        return Ok(format!("{name} is the last one: let be"));
    }
    if let Some(checker) = player.world.watch.checker() {
        checker.person_writes("machines", "default", &name);
    }
    delete(player, &format!("{MACHINES}/{name}")).await.map(|_| name)
}

/// A copy of the template that is in use, under a new name and with other hardware, comes into use.
async fn change(player: &Player, name: &str, path: &str, at: &str) -> Told {
    let api = player.world.api();
    let get = async |path: &str| api.get(path).await.map_err(|error| error.to_string())?.ok_or_else(|| format!("{path} is not there"));
    let owner = get(path).await?;
    let used = owner.pointer(at).and_then(Value::as_str).unwrap_or(name).to_owned();
    let number = used.rsplit_once("-v").and_then(|(_, number)| number.parse::<u32>().ok()).unwrap_or(1) + 1;
    let mut template = get(&format!("{TEMPLATES}/{used}")).await?;
    let made = format!("{name}-v{number}");
    if let Some(object) = template.as_object_mut() {
        object.insert("metadata".to_owned(), json!({"name": made, "namespace": "default"}));
    }
    if let Some(memory) = template.pointer_mut("/spec/template/spec/memoryMiB") {
        *memory = json!(4096 + 1024 * number);
    }
    send(player, Method::POST, TEMPLATES, "application/json", &template).await?;
    let patch = at.rsplit('/').filter(|part| !part.is_empty()).fold(json!(made), |inner, key| json!({key: inner}));
    merge(player, path, &patch).await.map(|_| made)
}

/// A person at the vSphere client.
fn by_hand(
    player: &Player,
    which: Which,
    act: impl FnOnce(&simulator::vcenter::Person, &VmId) -> Result<(), simulator::vcenter::Refused>,
) -> Told {
    let Some(vm) = player.vm(which) else { return Ok("there is none".to_owned()) };
    let done = act(&player.world.simulator.vcenter().person(), &vm).map_err(|refusal| refusal.to_string());
    if let Some(checker) = player.world.watch.checker() {
        checker.person_acted(&player.world.simulator.truth());
    }
    done.map(|()| vm.to_string())
}

async fn hold(player: &Player, which: Which) -> Told {
    let (Some(node), Some(workload)) = (player.node(which), player.workload()) else { return Ok("there is none".to_owned()) };
    let name = format!("held-{node}");
    let labels = json!({"app": name});
    let tolerations = json!([{"operator": "Exists"}]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": node, "tolerations": tolerations, "containers": [{"name": "c", "image": "i"}]}});
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}}});
    for (path, object) in [(PODS, &pod), (BUDGETS, &budget)] {
        workload.send(Method::POST, path, Some("application/json"), Some(object)).await.map_err(|error| error.to_string())?;
    }
    let deletion = json!({"nodeDrainTimeoutSeconds": DRAIN_SECONDS});
    merge(player, DEPLOYMENT, &json!({"spec": {"template": {"spec": {"deletion": deletion}}}})).await?;
    let limit = json!({"talosphere.dev/node-drain-timeout": format!("{DRAIN_SECONDS}s")});
    merge(player, CONTROL_PLANE, &json!({"metadata": {"annotations": limit}})).await.map(|_| node)
}
