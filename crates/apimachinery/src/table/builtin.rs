//! The columns of the built-in kinds: names, order, priorities and cells as the genuine server has them; descriptions in
//! our own words.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, age, list_at, number_at, or, pod, text_at};
use crate::gvk::GroupKind;
use crate::{meta, selector::LabelSelector};

const NAME: &str = "Name of the object, unique among its kind in its namespace.";
pub(super) const AGE: &str = "Time since the object was created.";
const CREATED_AT: &str = "When the object was created, in RFC 3339.";

pub(super) fn name() -> Column {
    Column::built("Name", "string", 0, NAME, |object, _| json!(meta::name(object)))
}

fn age_column() -> Column {
    Column::built("Age", "string", 0, AGE, |object, now| json!(age(meta::creation_timestamp(object).unwrap_or_default(), now)))
}

fn text(name: &str, description: &str, cell: super::Cell) -> Column {
    Column::built(name, "string", 0, description, cell)
}

fn wide(name: &str, description: &str, cell: super::Cell) -> Column {
    Column::built(name, "string", 1, description, cell)
}

fn integer(name: &str, description: &str, cell: super::Cell) -> Column {
    Column::built(name, "integer", 0, description, cell)
}

pub(super) fn columns(kind: &GroupKind) -> Vec<Column> {
    let mut columns = match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Event") | ("events.k8s.io", "Event") => return event(),
        ("", "Namespace") => vec![
            name(),
            text("Status", "Whether the namespace is active or being deleted.", |o, _| json!(text_at(o, &["status", "phase"]))),
        ],
        ("", "Secret") => vec![
            name(),
            text("Type", "What kind of data the secret holds.", |o, _| json!(text_at(o, &["type"]))),
            text("Data", "Number of entries.", |o, _| json!(entries(o, "data"))),
        ],
        ("", "ConfigMap") => vec![name(), text("Data", "Number of entries.", |o, _| json!(entries(o, "data") + entries(o, "binaryData")))],
        ("", "ServiceAccount") => {
            vec![name(), text("Secrets", "Number of secrets that may be used.", |o, _| json!(list_at(o, &["secrets"]).len()))]
        }
        ("", "Node") => node(),
        ("", "Pod") => pods(),
        ("", "Service") => service(),
        ("coordination.k8s.io", "Lease") => {
            vec![name(), text("Holder", "Who holds the lease.", |o, _| json!(text_at(o, &["spec", "holderIdentity"])))]
        }
        ("apps", "DaemonSet") => daemon_set(),
        ("apps", "Deployment") => deployment(),
        ("apps", "ReplicaSet") => replica_set(),
        ("apps", "StatefulSet") => stateful_set(),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => return binding(),
        _ => {
            let created = |o: &Value, _: Timestamp| json!(meta::creation_timestamp(o).unwrap_or_default());
            return vec![name(), Column::built("Created At", "date", 0, CREATED_AT, created)];
        }
    };
    // Age stands before what only the wide form shows.
    let at = columns.iter().position(|c| c.priority > 0).unwrap_or(columns.len());
    let at = if kind.kind == "Node" { 3 } else { at };
    columns.insert(at, age_column());
    columns
}

fn entries(object: &Value, field: &str) -> usize {
    object.get(field).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

fn joined<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let list: Vec<&str> = items.filter(|item| !item.is_empty()).collect();
    if list.is_empty() { "<none>".to_owned() } else { list.join(",") }
}

fn node() -> Vec<Column> {
    fn address(node: &Value, kind: &str) -> Value {
        let list = list_at(node, &["status", "addresses"]);
        let found = list.iter().find(|a| text_at(a, &["type"]) == kind).map_or("", |a| text_at(a, &["address"]));
        json!(or(found, "<none>"))
    }
    fn info(node: &Value, field: &str) -> Value {
        json!(or(text_at(node, &["status", "nodeInfo", field]), "<unknown>"))
    }
    vec![
        name(),
        text("Status", "Whether the node is ready for pods.", |o, _| {
            let ready = list_at(o, &["status", "conditions"]).iter().find(|c| text_at(c, &["type"]) == "Ready");
            let word = ready.map_or("Unknown", |c| if text_at(c, &["status"]) == "True" { "Ready" } else { "NotReady" });
            let held = meta::at(o, &["spec", "unschedulable"]).and_then(Value::as_bool).unwrap_or_default();
            json!(if held { format!("{word},SchedulingDisabled") } else { word.to_owned() })
        }),
        text("Roles", "What the node's labels say it is for.", |o, _| {
            let mut roles = BTreeSet::new();
            for (key, value) in meta::labels(o) {
                if let Some(role) = key.strip_prefix("node-role.kubernetes.io/").filter(|role| !role.is_empty()) {
                    roles.insert(role.to_owned());
                } else if key == "kubernetes.io/role" && !value.is_empty() {
                    roles.insert(value);
                }
            }
            json!(joined(roles.iter().map(String::as_str)))
        }),
        text("Version", "Version of the kubelet.", |o, _| json!(text_at(o, &["status", "nodeInfo", "kubeletVersion"]))),
        wide("Internal-IP", "First address inside the cluster.", |o, _| address(o, "InternalIP")),
        wide("External-IP", "First address from outside.", |o, _| address(o, "ExternalIP")),
        wide("OS-Image", "Operating system.", |o, _| info(o, "osImage")),
        wide("Kernel-Version", "Kernel.", |o, _| info(o, "kernelVersion")),
        wide("Container-Runtime", "Container runtime and its version.", |o, _| info(o, "containerRuntimeVersion")),
    ]
}

fn pods() -> Vec<Column> {
    vec![
        name(),
        text("Ready", "Containers that are ready, of all.", |o, _| {
            let summary = pod::summary(o);
            json!(format!("{}/{}", summary.ready, summary.total))
        }),
        text("Status", "State of the containers, in one word.", |o, _| json!(pod::summary(o).reason)),
        text("Restarts", "How often containers were started again, and when last.", |o, now| {
            let summary = pod::summary(o);
            match summary.last_restart {
                Some(last) if summary.restarts != 0 => json!(format!("{} ({} ago)", summary.restarts, age(&last, now))),
                _ => json!(summary.restarts.to_string()),
            }
        }),
        wide("IP", "Address of the pod.", |o, _| json!(or(text_at(o, &["status", "podIP"]), "<none>"))),
        wide("Node", "Node that runs the pod.", |o, _| json!(or(text_at(o, &["spec", "nodeName"]), "<none>"))),
        wide("Nominated Node", "Node on which room is being made for the pod.", |o, _| {
            json!(or(text_at(o, &["status", "nominatedNodeName"]), "<none>"))
        }),
        wide("Readiness Gates", "Further conditions that must hold, fulfilled of all.", |o, _| {
            let gates = list_at(o, &["spec", "readinessGates"]);
            if gates.is_empty() {
                return json!("<none>");
            }
            let holds = |gate: &&Value| {
                list_at(o, &["status", "conditions"])
                    .iter()
                    .any(|c| text_at(c, &["type"]) == text_at(gate, &["conditionType"]) && text_at(c, &["status"]) == "True")
            };
            json!(format!("{}/{}", gates.iter().filter(holds).count(), gates.len()))
        }),
    ]
}

fn service() -> Vec<Column> {
    vec![
        name(),
        text("Type", "How the service is reached.", |o, _| json!(text_at(o, &["spec", "type"]))),
        text("Cluster-IP", "Address inside the cluster.", |o, _| json!(or(text_at(o, &["spec", "clusterIP"]), "<none>"))),
        text("External-IP", "Addresses from outside.", |o, _| {
            let listed = list_at(o, &["spec", "externalIPs"]).iter().filter_map(Value::as_str);
            match text_at(o, &["spec", "type"]) {
                "ExternalName" => json!(text_at(o, &["spec", "externalName"])),
                "LoadBalancer" => {
                    let ingress = list_at(o, &["status", "loadBalancer", "ingress"]);
                    let of = ingress.iter().map(|i| or(text_at(i, &["ip"]), text_at(i, &["hostname"])));
                    let all = joined(of.chain(listed));
                    json!(if all == "<none>" { "<pending>".to_owned() } else { all })
                }
                _ => json!(joined(listed)),
            }
        }),
        text("Port(s)", "Ports and protocols.", |o, _| {
            let one = |port: &Value| {
                let protocol = or(text_at(port, &["protocol"]), "TCP");
                match number_at(port, &["nodePort"]) {
                    0 => format!("{}/{protocol}", number_at(port, &["port"])),
                    node => format!("{}:{node}/{protocol}", number_at(port, &["port"])),
                }
            };
            let ports: Vec<String> = list_at(o, &["spec", "ports"]).iter().map(one).collect();
            json!(joined(ports.iter().map(String::as_str)))
        }),
        wide("Selector", "Labels of the pods behind the service.", |o, _| {
            let selector = meta::at(o, &["spec", "selector"]).and_then(Value::as_object);
            let pairs: Vec<String> =
                selector.into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
            json!(joined(pairs.iter().map(String::as_str)))
        }),
    ]
}

fn containers(object: &Value, field: &str) -> Value {
    json!(list_at(object, &["spec", "template", "spec", "containers"]).iter().map(|c| text_at(c, &[field])).collect::<Vec<_>>().join(","))
}

fn selector(object: &Value) -> Value {
    let selector = meta::at(object, &["spec", "selector"]).unwrap_or(&Value::Null);
    json!(LabelSelector::from_json(selector).map(|s| s.to_string()).unwrap_or_default())
}

fn pod_template() -> [Column; 3] {
    [
        wide("Containers", "Names of the containers.", |o, _| containers(o, "name")),
        wide("Images", "Images of the containers.", |o, _| containers(o, "image")),
        wide("Selector", "Labels of the pods that belong to it.", |o, _| selector(o)),
    ]
}

fn daemon_set() -> Vec<Column> {
    let mut columns = vec![
        name(),
        integer("Desired", "Nodes that should run a pod.", |o, _| json!(number_at(o, &["status", "desiredNumberScheduled"]))),
        integer("Current", "Nodes that run a pod.", |o, _| json!(number_at(o, &["status", "currentNumberScheduled"]))),
        integer("Ready", "Nodes whose pod is ready.", |o, _| json!(number_at(o, &["status", "numberReady"]))),
        integer("Up-to-date", "Nodes whose pod is of the newest template.", |o, _| {
            json!(number_at(o, &["status", "updatedNumberScheduled"]))
        }),
        integer("Available", "Nodes whose pod has been ready long enough.", |o, _| json!(number_at(o, &["status", "numberAvailable"]))),
        text("Node Selector", "Labels of the nodes that should run a pod.", |o, _| {
            let wanted = meta::at(o, &["spec", "template", "spec", "nodeSelector"]).and_then(Value::as_object);
            let pairs: Vec<String> =
                wanted.into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
            json!(joined(pairs.iter().map(String::as_str)))
        }),
    ];
    columns.extend(pod_template());
    columns
}

fn ready_of_wanted(object: &Value) -> Value {
    let wanted = meta::at(object, &["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(1);
    json!(format!("{}/{wanted}", number_at(object, &["status", "readyReplicas"])))
}

fn deployment() -> Vec<Column> {
    let mut columns = vec![
        name(),
        text("Ready", "Pods that are ready, of those wanted.", |o, _| ready_of_wanted(o)),
        integer("Up-to-date", "Pods of the newest template.", |o, _| json!(number_at(o, &["status", "updatedReplicas"]))),
        integer("Available", "Pods that have been ready long enough.", |o, _| json!(number_at(o, &["status", "availableReplicas"]))),
    ];
    columns.extend(pod_template());
    columns
}

fn replica_set() -> Vec<Column> {
    let mut columns = vec![
        name(),
        integer("Desired", "Pods wanted.", |o, _| json!(meta::at(o, &["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(1))),
        integer("Current", "Pods there are.", |o, _| json!(number_at(o, &["status", "replicas"]))),
        integer("Ready", "Pods that are ready.", |o, _| json!(number_at(o, &["status", "readyReplicas"]))),
    ];
    columns.extend(pod_template());
    columns
}

fn stateful_set() -> Vec<Column> {
    let [containers, images, _] = pod_template();
    vec![name(), text("Ready", "Pods that are ready, of those wanted.", |o, _| ready_of_wanted(o)), containers, images]
}

fn binding() -> Vec<Column> {
    fn subjects(object: &Value, kind: &str) -> Value {
        let of_kind = list_at(object, &["subjects"]).iter().filter(|s| text_at(s, &["kind"]) == kind);
        let named = of_kind.map(|s| match (kind, text_at(s, &["namespace"])) {
            ("ServiceAccount", namespace) if !namespace.is_empty() => format!("{namespace}/{}", text_at(s, &["name"])),
            _ => text_at(s, &["name"]).to_owned(),
        });
        json!(named.collect::<Vec<_>>().join(", "))
    }
    vec![
        name(),
        text("Role", "The role that is given.", |o, _| {
            json!(format!("{}/{}", text_at(o, &["roleRef", "kind"]), text_at(o, &["roleRef", "name"])))
        }),
        age_column(),
        wide("Users", "Users who get it.", |o, _| subjects(o, "User")),
        wide("Groups", "Groups who get it.", |o, _| subjects(o, "Group")),
        wide("ServiceAccounts", "Service accounts that get it.", |o, _| subjects(o, "ServiceAccount")),
    ]
}

/// Events carry their times in two shapes: the older fields, and `eventTime` with `series`.
fn event() -> Vec<Column> {
    fn first_seen(event: &Value) -> &str {
        let first = or(text_at(event, &["firstTimestamp"]), text_at(event, &["deprecatedFirstTimestamp"]));
        or(first, text_at(event, &["eventTime"]))
    }
    fn last_seen(event: &Value) -> &str {
        let series = text_at(event, &["series", "lastObservedTime"]);
        let last = or(text_at(event, &["lastTimestamp"]), text_at(event, &["deprecatedLastTimestamp"]));
        or(series, or(last, first_seen(event)))
    }
    vec![
        text("Last Seen", "When the event was last seen.", |o, now| json!(age(last_seen(o), now))),
        text("Type", "Normal or Warning.", |o, _| json!(text_at(o, &["type"]))),
        text("Reason", "Why, in one word for machines.", |o, _| json!(text_at(o, &["reason"]))),
        text("Object", "What the event is about.", |o, _| {
            let about = if o.get("involvedObject").is_some() { "involvedObject" } else { "regarding" };
            let kind = text_at(o, &[about, "kind"]).to_lowercase();
            match text_at(o, &[about, "name"]) {
                "" => json!(kind),
                name => json!(format!("{kind}/{name}")),
            }
        }),
        wide("Subobject", "Which part of the object.", |o, _| {
            json!(or(text_at(o, &["involvedObject", "fieldPath"]), text_at(o, &["regarding", "fieldPath"])))
        }),
        wide("Source", "Who reports it.", |o, _| {
            let component = or(text_at(o, &["source", "component"]), text_at(o, &["reportingComponent"]));
            let component = or(component, text_at(o, &["reportingController"]));
            let host = or(text_at(o, &["source", "host"]), text_at(o, &["reportingInstance"]));
            json!([component, host].iter().filter(|t| !t.is_empty()).copied().collect::<Vec<_>>().join(", "))
        }),
        text("Message", "What happened, in words.", |o, _| json!(or(text_at(o, &["message"]), text_at(o, &["note"])).trim())),
        wide("First Seen", "When the event was first seen.", |o, now| json!(age(first_seen(o), now))),
        wide("Count", "How often it was seen.", |o, _| {
            let counts = [number_at(o, &["series", "count"]), number_at(o, &["count"]), number_at(o, &["deprecatedCount"]), 1];
            json!(counts.into_iter().find(|count| *count != 0))
        }),
        Column::built("Name", "string", 1, NAME, |object, _| json!(meta::name(object))),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::Columns;
    use super::*;

    fn printed(group: &str, kind: &str, object: &Value) -> Vec<String> {
        let columns = Columns::builtin(&GroupKind::new(group, kind));
        let now = "2026-11-23T10:20:12Z".parse().unwrap();
        columns.cells(object, now).iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect()
    }

    #[test]
    fn built_in_kinds_print_their_cells() {
        let meta =
            json!({"name": "n", "creationTimestamp": "2026-11-23T10:20:02Z", "labels": {"node-role.kubernetes.io/control-plane": ""}});
        let template = json!({"spec": {"containers": [{"name": "a", "image": "i"}]}});
        for (group, kind, rest, cells) in [
            ("", "Namespace", json!({"status": {"phase": "Active"}}), "n Active 10s"),
            ("", "Secret", json!({"type": "Opaque", "data": {"a": "", "b": ""}}), "n Opaque 2 10s"),
            ("", "ConfigMap", json!({"data": {"a": ""}, "binaryData": {"b": ""}}), "n 2 10s"),
            ("", "ServiceAccount", json!({}), "n 0 10s"),
            ("coordination.k8s.io", "Lease", json!({"spec": {"holderIdentity": "me"}}), "n me 10s"),
            (
                "",
                "Node",
                json!({"spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
                       "nodeInfo": {"kubeletVersion": "v1.25.5", "osImage": "Talos"}, "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}),
                "n Ready,SchedulingDisabled control-plane 10s v1.25.5 10.0.0.1 <none> Talos <unknown> <unknown>",
            ),
            (
                "",
                "Pod",
                json!({"spec": {"containers": [{}], "nodeName": "m"}, "status": {"phase": "Pending"}}),
                "n 0/1 Pending 0 10s <none> m <none> <none>",
            ),
            (
                "",
                "Service",
                json!({"spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "ports": [{"port": 443, "protocol": "TCP"}], "selector": {"a": "b"}}}),
                "n ClusterIP 10.96.0.1 <none> 443/TCP 10s a=b",
            ),
            (
                "apps",
                "Deployment",
                json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}, "status": {"readyReplicas": 1, "updatedReplicas": 2}}),
                "n 1/2 2 0 10s a i a=b",
            ),
            (
                "apps",
                "DaemonSet",
                json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}, "status": {"desiredNumberScheduled": 3, "numberReady": 2}}),
                "n 3 0 2 0 0 <none> 10s a i a=b",
            ),
            (
                "rbac.authorization.k8s.io",
                "ClusterRoleBinding",
                json!({"roleRef": {"kind": "ClusterRole", "name": "admin"}, "subjects": [{"kind": "ServiceAccount", "namespace": "ns", "name": "sa"}]}),
                "n ClusterRole/admin 10s   ns/sa",
            ),
            ("rbac.authorization.k8s.io", "Role", json!({}), "n 2026-11-23T10:20:02Z"),
            (
                "",
                "Event",
                json!({"type": "Normal", "reason": "Up", "involvedObject": {"kind": "Machine", "name": "m"}, "message": " up ",
                       "lastTimestamp": "2026-11-23T10:20:02Z", "source": {"component": "c"}}),
                "10s Normal Up machine/m  c up <unknown> 1 n",
            ),
        ] {
            let mut object = rest;
            object["metadata"] = meta.clone();
            assert_eq!(printed(group, kind, &object).join(" "), cells, "{kind}");
        }
    }
}
