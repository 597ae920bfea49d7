//! Which pods there are to be, and when one can run. Pure: objects in, objects and names out.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::selector::LabelSelector;
use runtime::random::Random;
use serde_json::{Map, Value, json};

use super::cache::{is_deleted, list, name, namespace, text};
use super::node::readiness as readiness_of;
use crate::node::configuration::Configuration;

/// Something to be done about pods.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Create(Value),
    /// By namespace and name.
    Delete(String, String),
    /// Namespace, name, node.
    Bind(String, String, String),
}

/// The objects that decide.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub nodes: Vec<Arc<Value>>,
    pub daemon_sets: Vec<Arc<Value>>,
    pub deployments: Vec<Arc<Value>>,
    pub budgets: Vec<Arc<Value>>,
    pub pods: Vec<Arc<Value>>,
}

/// What is missing, and what is too much.
pub(super) fn plan(seen: &Seen, random: &Random) -> Vec<Step> {
    let mut steps = Vec::new();
    let is_node = |name: &str| seen.nodes.iter().any(|node| super::cache::name(node) == name);
    for pod in &seen.pods {
        let node = text(pod, "/spec/nodeName");
        if !node.is_empty() && !is_node(node) {
            steps.push(Step::Delete(namespace(pod).to_owned(), name(pod).to_owned()));
        }
    }
    for set in seen.daemon_sets.iter().filter(|set| !is_deleted(set)) {
        plan_daemon_set(seen, set, random, &mut steps);
    }
    for deployment in seen.deployments.iter().filter(|deployment| !is_deleted(deployment)) {
        plan_deployment(seen, deployment, random, &mut steps);
    }
    steps
}

/// The living pods of an owner.
fn owned<'a>(seen: &'a Seen, owner: &Value) -> Vec<&'a Arc<Value>> {
    let uid = text(owner, "/metadata/uid");
    let is_owned = |pod: &Value| list(pod, "/metadata/ownerReferences").iter().any(|reference| text(reference, "/uid") == uid);
    seen.pods.iter().filter(|pod| is_owned(pod) && !is_deleted(pod)).collect()
}

fn plan_daemon_set(seen: &Seen, set: &Value, random: &Random, steps: &mut Vec<Step>) {
    let pods = owned(seen, set);
    let template = set.pointer("/spec/template").cloned().unwrap_or_default();
    let mut spec = template.get("spec").cloned().unwrap_or_default();
    let mut tolerations = list(&template, "/spec/tolerations").to_vec();
    for (key, effect) in [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ] {
        tolerations.push(json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": effect}));
    }
    if is_host_network(&spec) {
        tolerations.push(json!({"key": "node.kubernetes.io/network-unavailable", "operator": "Exists", "effect": "NoSchedule"}));
    }
    set_key(&mut spec, "tolerations", json!(tolerations));
    for node in seen.nodes.iter().filter(|node| !is_deleted(node)) {
        let node_name = name(node);
        if !selects(&spec, node) || pods.iter().any(|pod| text(pod, "/spec/nodeName") == node_name) || !tolerates(&tolerations, node) {
            continue;
        }
        let suffix =
            random.child(&format!("pod {} {node_name} {}", text(set, "/metadata/uid"), text(node, "/metadata/uid"))).name_suffix(5);
        steps.push(Step::Create(pod(set, &template, &spec, &format!("{}-{suffix}", name(set)), Some(node_name))));
    }
}

fn plan_deployment(seen: &Seen, deployment: &Value, random: &Random, steps: &mut Vec<Step>) {
    let pods = owned(seen, deployment);
    let template = deployment.pointer("/spec/template").cloned().unwrap_or_default();
    let spec = template.get("spec").cloned().unwrap_or_default();
    let wanted = deployment.pointer("/spec/replicas").and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok()).unwrap_or(1);
    for pod in pods.iter().skip(wanted) {
        steps.push(Step::Delete(namespace(pod).to_owned(), name(pod).to_owned()));
    }
    let mut load: BTreeMap<&str, usize> = seen
        .nodes
        .iter()
        .filter(|node| !is_deleted(node) && readiness_of(node) == "True" && node.pointer("/spec/unschedulable") != Some(&Value::Bool(true)))
        .filter(|node| selects(&spec, node) && tolerates(list(&spec, "/tolerations"), node))
        .map(|node| (name(node), pods.iter().filter(|pod| text(pod, "/spec/nodeName") == name(node)).count()))
        .collect();
    let mut place = || {
        let node = load.iter().min_by_key(|(node, count)| (**count, **node)).map(|(node, _)| *node)?;
        load.entry(node).and_modify(|count| *count += 1);
        Some(node)
    };
    for pod in pods.iter().take(wanted).filter(|pod| text(pod, "/spec/nodeName").is_empty()) {
        if let Some(node) = place() {
            steps.push(Step::Bind(namespace(pod).to_owned(), name(pod).to_owned(), node.to_owned()));
        }
    }
    let uid = text(deployment, "/metadata/uid");
    let hash = random.child(&format!("template {uid}")).name_suffix(10);
    for number in pods.len()..wanted {
        // A name no living pod has: numbered by how many there were to be, and by who is left.
        let left: Vec<&str> = pods.iter().map(|pod| name(pod)).collect();
        let suffix = random.child(&format!("pod {uid} {number} {}", left.join(","))).name_suffix(5);
        let full = format!("{}-{hash}-{suffix}", name(deployment));
        steps.push(Step::Create(pod(deployment, &template, &spec, &full, place())));
    }
}

fn pod(owner: &Value, template: &Value, spec: &Value, name: &str, node: Option<&str>) -> Value {
    let mut spec = spec.clone();
    if let Some(node) = node {
        set_key(&mut spec, "nodeName", json!(node));
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace(owner),
            "labels": template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({})),
            "ownerReferences": [{
                "apiVersion": text(owner, "/apiVersion"), "kind": text(owner, "/kind"), "name": super::cache::name(owner),
                "uid": text(owner, "/metadata/uid"), "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": spec,
    })
}

/// The control plane's pods on its own node, which its kubelet runs from files.
pub(super) fn static_pods(configuration: &Configuration, node: &str, uid: &str) -> Vec<Value> {
    let version = &configuration.kubernetes_version;
    let cluster = &configuration.cluster;
    let images = [
        ("kube-apiserver", &cluster.api_server_image),
        ("kube-controller-manager", &cluster.controller_manager_image),
        ("kube-scheduler", &cluster.scheduler_image),
    ];
    images
        .into_iter()
        .map(|(component, image)| {
            let image = image.clone().unwrap_or_else(|| format!("registry.k8s.io/{component}:{version}"));
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": format!("{component}-{node}"), "namespace": "kube-system",
                    "labels": {"k8s-app": component, "tier": "control-plane"},
                    "annotations": {"kubernetes.io/config.source": "file", "kubernetes.io/config.mirror": component},
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid, "controller": true}],
                },
                "spec": {
                    "nodeName": node, "hostNetwork": true, "priorityClassName": "system-cluster-critical",
                    "containers": [{"name": component, "image": image}], "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
                },
            })
        })
        .collect()
}

pub(super) fn is_host_network(spec: &Value) -> bool {
    spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or(false)
}

/// Whether every taint that keeps pods away is tolerated.
fn tolerates(tolerations: &[Value], node: &Value) -> bool {
    let part = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    list(node, "/spec/taints").iter().filter(|taint| part(taint, "effect") != "PreferNoSchedule").all(|taint| {
        tolerations.iter().any(|toleration| {
            let (key, effect, operator) = (part(toleration, "key"), part(toleration, "effect"), part(toleration, "operator"));
            let is_key = if key.is_empty() { operator == "Exists" } else { key == part(taint, "key") };
            let is_value = operator == "Exists" || part(toleration, "value") == part(taint, "value");
            is_key && is_value && (effect.is_empty() || effect == part(taint, "effect"))
        })
    })
}

/// Whether node selector and required node affinity choose the node.
fn selects(spec: &Value, node: &Value) -> bool {
    let empty = Map::new();
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object).unwrap_or(&empty);
    let selector = spec.get("nodeSelector").and_then(Value::as_object).unwrap_or(&empty);
    if !selector.iter().all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let terms = list(spec, "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms");
    terms.is_empty()
        || terms.iter().any(|term| {
            list(term, "/matchExpressions").iter().all(|expression| {
                let value = labels.get(text(expression, "/key"));
                let is_in = || value.is_some_and(|value| list(expression, "/values").contains(value));
                match text(expression, "/operator") {
                    "In" => is_in(),
                    "NotIn" => !is_in(),
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
        })
}

/// What a pod that has a node still waits for; `None`: nothing, it can start. `exists` tells by plural name, namespace and name.
pub(super) fn waits_for(pod: &Value, node: &Value, exists: &dyn Fn(&str, &str, &str) -> bool) -> Option<String> {
    let spec = pod.get("spec")?;
    if !is_host_network(spec) && readiness_of(node) != "True" {
        return Some("the node's network is not ready".to_owned());
    }
    for volume in list(pod, "/spec/volumes") {
        for (source, key, plural) in [("secret", "secretName", "secrets"), ("configMap", "name", "configmaps")] {
            let Some(source) = volume.get(source) else { continue };
            let is_optional = source.get("optional").and_then(Value::as_bool).unwrap_or(false);
            let name = source.get(key).and_then(Value::as_str).unwrap_or_default();
            if !is_optional && !exists(plural, namespace(pod), name) {
                return Some(format!("MountVolume.SetUp failed: {plural} \"{name}\" not found"));
            }
        }
    }
    None
}

/// The status of a pod that runs.
pub(super) fn running(pod: &Value, node_address: &str, pod_address: &str, now: jiff::Timestamp) -> Value {
    let containers = list(pod, "/spec/containers");
    let statuses: Vec<Value> = containers
        .iter()
        .map(|container| {
            json!({
                "name": text(container, "/name"), "image": text(container, "/image"), "imageID": text(container, "/image"),
                "ready": true, "started": true, "restartCount": 0, "state": {"running": {"startedAt": now}},
            })
        })
        .collect();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    json!({
        "phase": "Running", "hostIP": node_address, "podIP": pod_address, "podIPs": [{"ip": pod_address}], "startTime": now,
        "conditions": [condition("Initialized"), condition("Ready"), condition("ContainersReady"), condition("PodScheduled")],
        "containerStatuses": statuses,
    })
}

/// A daemon set's counts.
pub(super) fn daemon_set_status(seen: &Seen, set: &Value) -> Value {
    let pods = owned(seen, set);
    let ready = pods.iter().filter(|pod| text(pod, "/status/phase") == "Running").count();
    let generation = set.pointer("/metadata/generation").cloned().unwrap_or_else(|| json!(1));
    json!({
        "currentNumberScheduled": pods.len(), "desiredNumberScheduled": pods.len(), "numberMisscheduled": 0, "numberReady": ready,
        "numberAvailable": ready, "updatedNumberScheduled": pods.len(), "observedGeneration": generation,
    })
}

/// A deployment's counts.
pub(super) fn deployment_status(seen: &Seen, deployment: &Value) -> Value {
    let pods = owned(seen, deployment);
    let ready = pods.iter().filter(|pod| text(pod, "/status/phase") == "Running").count();
    let generation = deployment.pointer("/metadata/generation").cloned().unwrap_or_else(|| json!(1));
    json!({
        "replicas": pods.len(), "updatedReplicas": pods.len(), "readyReplicas": ready, "availableReplicas": ready,
        "unavailableReplicas": pods.len() - ready, "observedGeneration": generation,
    })
}

fn is_ready(pod: &Value) -> bool {
    list(pod, "/status/conditions").iter().any(|condition| text(condition, "/type") == "Ready" && text(condition, "/status") == "True")
}

/// Whether a budget is for this pod.
pub(super) fn is_covered(budget: &Value, pod: &Value) -> bool {
    let labels = pod.pointer("/metadata/labels").and_then(Value::as_object);
    let labels: BTreeMap<String, String> =
        labels.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    let selector = budget.pointer("/spec/selector").map(LabelSelector::from_json);
    namespace(budget) == namespace(pod) && selector.and_then(Result::ok).is_some_and(|selector| selector.matches(&labels))
}

/// A budget's counts. Its spec counts pods, or shares of them rounded up.
pub(super) fn budget_status(seen: &Seen, budget: &Value) -> Value {
    let covered: Vec<&Arc<Value>> = seen.pods.iter().filter(|pod| !is_deleted(pod) && is_covered(budget, pod)).collect();
    let expected = i64::try_from(covered.len()).unwrap_or(i64::MAX);
    let healthy = i64::try_from(covered.iter().filter(|pod| is_ready(pod)).count()).unwrap_or(i64::MAX);
    let amount = |field: &str| match budget.pointer(&format!("/spec/{field}"))? {
        Value::String(share) => share.strip_suffix('%')?.parse::<i64>().ok().map(|share| (expected * share + 99) / 100),
        number => number.as_i64(),
    };
    let desired = amount("minAvailable").or_else(|| amount("maxUnavailable").map(|most| (expected - most).max(0))).unwrap_or(0);
    let allowed = (healthy - desired).max(0);
    json!({
        "currentHealthy": healthy, "desiredHealthy": desired, "disruptionsAllowed": allowed, "expectedPods": expected,
        "observedGeneration": budget.pointer("/metadata/generation").cloned().unwrap_or_else(|| json!(1)),
    })
}

/// Why pods of a lost node are not ready.
const LOST: &str = "NodeStatusUnknown";

/// The status of pods whose readiness is another with their node's.
pub(super) fn readiness(seen: &Seen) -> Vec<(&Arc<Value>, Value)> {
    let node_of = |pod: &Value| seen.nodes.iter().find(|node| name(node) == text(pod, "/spec/nodeName"));
    let change = |pod: &Arc<Value>| {
        let node = readiness_of(node_of(pod)?);
        let mut conditions = list(pod, "/status/conditions").to_vec();
        let ready = conditions.iter_mut().find(|condition| text(condition, "/type") == "Ready")?;
        let is_lost = text(ready, "/reason") == LOST;
        let (status, reason) = match node {
            "Unknown" if text(ready, "/status") == "True" => ("False", LOST),
            "True" if is_lost => ("True", ""),
            _ => return None,
        };
        set_key(ready, "status", json!(status));
        set_key(ready, "reason", json!(reason));
        Some(json!({"conditions": conditions}))
    };
    seen.pods.iter().filter(|pod| !is_deleted(pod)).filter_map(|pod| Some((pod, change(pod)?))).collect()
}

fn set_key(object: &mut Value, key: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, taints: Value, ready: &str) -> Arc<Value> {
        Arc::new(json!({
            "metadata": {"name": name, "uid": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {"taints": taints}, "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
    }

    fn set(spec: Value) -> Arc<Value> {
        Arc::new(
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "ds", "namespace": "kube-system", "uid": "u"}, "spec": {"template": {"spec": spec}}}),
        )
    }

    fn created(steps: &[Step]) -> Vec<String> {
        steps
            .iter()
            .filter_map(|step| if let Step::Create(pod) = step { Some(text(pod, "/spec/nodeName").to_owned()) } else { None })
            .collect()
    }

    #[test]
    fn daemon_sets_go_where_taints_are_tolerated() {
        let uninitialized = json!([{"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"}]);
        let seen = |spec: Value| Seen {
            nodes: vec![node("a", json!([]), "True"), node("b", uninitialized.clone(), "True")],
            daemon_sets: vec![set(spec)],
            ..Seen::default()
        };
        let random = Random::seeded(1);
        let cases = [
            (json!({}), vec!["a"]),
            (json!({"tolerations": [{"operator": "Exists"}]}), vec!["a", "b"]),
            (
                json!({"tolerations": [{"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"}]}),
                vec!["a", "b"],
            ),
            (
                json!({"tolerations": [{"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "no", "effect": "NoSchedule"}]}),
                vec!["a"],
            ),
            (json!({"nodeSelector": {"kubernetes.io/hostname": "b"}, "tolerations": [{"operator": "Exists"}]}), vec!["b"]),
        ];
        for (spec, expected) in cases {
            assert_eq!(created(&plan(&seen(spec.clone()), &random)), expected, "{spec}");
        }
    }

    #[test]
    fn what_is_there_is_not_made_again_and_what_has_no_node_goes() {
        let random = Random::seeded(1);
        let mut seen = Seen { nodes: vec![node("a", json!([]), "True")], daemon_sets: vec![set(json!({}))], ..Seen::default() };
        let Step::Create(pod) = plan(&seen, &random).remove(0) else { panic!("a pod") };
        seen.pods.push(Arc::new(pod.clone()));
        assert!(plan(&seen, &random).is_empty());
        seen.nodes.clear();
        assert_eq!(plan(&seen, &random), [Step::Delete("kube-system".into(), name(&pod).into())]);
    }

    #[test]
    fn deployments_spread_and_wait_for_a_node() {
        let random = Random::seeded(1);
        let deployment = Arc::new(
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "x", "uid": "u"}, "spec": {"replicas": 3, "template": {"spec": {}}}}),
        );
        let mut seen = Seen { nodes: vec![node("a", json!([]), "False")], deployments: vec![deployment], ..Seen::default() };
        let steps = plan(&seen, &random);
        assert_eq!(created(&steps), ["", "", ""], "no node is ready");
        for step in steps {
            let Step::Create(pod) = step else { panic!("a pod") };
            seen.pods.push(Arc::new(pod));
        }
        seen.nodes = vec![node("a", json!([]), "True"), node("b", json!([]), "True")];
        let bound: Vec<String> = plan(&seen, &random)
            .into_iter()
            .map(|step| if let Step::Bind(_, _, node) = step { node } else { panic!("{step:?}") })
            .collect();
        assert_eq!(bound, ["a", "b", "a"]);
    }

    #[test]
    fn a_budget_counts_what_stays_and_a_lost_node_s_pods_are_not_ready() {
        let pod = |name: &str, change: Value| {
            let mut pod = json!({"metadata": {"name": name, "namespace": "x", "labels": {"app": "web"}}, "spec": {"nodeName": "a"},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
            for (key, value) in change.as_object().unwrap() {
                pod["metadata"][key] = value.clone();
            }
            Arc::new(pod)
        };
        let mut seen = Seen {
            nodes: vec![node("a", json!([]), "Unknown")],
            pods: vec![
                pod("one", json!({})),
                pod("two", json!({})),
                pod("other", json!({"labels": {}})),
                pod("going", json!({"deletionTimestamp": "t"})),
            ],
            ..Seen::default()
        };
        let budget = |spec: Value| json!({"metadata": {"namespace": "x", "generation": 2}, "spec": spec});
        let selector = json!({"matchLabels": {"app": "web"}});
        for (spec, desired, allowed) in [
            (json!({"selector": selector, "minAvailable": 1}), 1, 1),
            (json!({"selector": selector, "minAvailable": "51%"}), 2, 0),
            (json!({"selector": selector, "maxUnavailable": 0}), 2, 0),
            (json!({"selector": selector, "maxUnavailable": "100%"}), 0, 2),
        ] {
            let expected = json!({"currentHealthy": 2, "desiredHealthy": desired, "disruptionsAllowed": allowed, "expectedPods": 2, "observedGeneration": 2});
            assert_eq!(budget_status(&seen, &budget(spec.clone())), expected, "{spec}");
        }
        let changes = readiness(&seen);
        assert_eq!(changes.len(), 3, "not the one that is going");
        assert_eq!(changes[0].1["conditions"][0]["status"], "False");
        let lost = changes[0].1.clone();
        seen.pods = vec![Arc::new({
            let mut pod = (*seen.pods[0]).clone();
            pod["status"] = lost;
            pod
        })];
        assert_eq!(readiness(&seen), [], "told once");
        seen.nodes = vec![node("a", json!([]), "True")];
        assert_eq!(readiness(&seen)[0].1["conditions"][0]["status"], "True", "it is back");
    }

    #[test]
    fn a_pod_starts_when_its_volumes_and_network_are_there() {
        let pod = json!({"metadata": {"namespace": "kube-system"}, "spec": {"volumes": [{"secret": {"secretName": "s"}}, {"configMap": {"name": "c", "optional": true}}]}});
        let ready = node("a", json!([]), "True");
        assert_eq!(waits_for(&pod, &ready, &|_, _, _| true), None);
        let missing = waits_for(&pod, &ready, &|_, _, _| false).unwrap();
        assert!(missing.contains("secrets \"s\" not found"), "{missing}");
        assert!(waits_for(&pod, &node("a", json!([]), "False"), &|_, _, _| true).is_some());
    }
}
