//! Defaults and rules, on the user's manifests and on broken ones, as a server applies them.

use std::collections::BTreeMap;

use api::Webhooks;
use apimachinery::admission::{Admission, Conversion, Lookup, Operation, Request};
use apimachinery::gvk::{GroupKind, GroupVersionKind};
use apimachinery::meta;
use apimachinery::schema::Schema;
use serde_json::{Value, json};

use crate::reference;

/// Objects that rules may look at.
#[derive(Default)]
pub struct Objects(Vec<Value>);

impl Lookup for Objects {
    fn get(&self, kind: &GroupKind, namespace: Option<&str>, name: &str) -> Option<Value> {
        self.list(kind, namespace).into_iter().find(|object| meta::name(object) == name)
    }

    fn list(&self, kind: &GroupKind, namespace: Option<&str>) -> Vec<Value> {
        let of_kind = |object: &&Value| meta::kind(object) == kind.kind && (namespace.is_none() || meta::namespace(object) == namespace);
        self.0.iter().filter(of_kind).cloned().collect()
    }
}

fn hub_of(gvk: &GroupVersionKind) -> String {
    let crds = api::crds();
    let crd = crds.iter().find(|crd| crd["spec"]["group"] == gvk.group.as_str() && crd["spec"]["names"]["kind"] == gvk.kind.as_str());
    let versions = crd.unwrap_or_else(|| panic!("{gvk}"))["spec"]["versions"].as_array().unwrap().clone();
    versions.iter().find(|version| version["storage"] == true).unwrap()["name"].as_str().unwrap().to_owned()
}

fn schema(gvk: &GroupVersionKind) -> Schema {
    Schema::from_openapi(api::crds::schema(&gvk.group, &gvk.kind, &gvk.version).unwrap_or_else(|| panic!("{gvk}"))).unwrap()
}

/// What a server does with an object that a client sends: the stored object and warnings, or the words of the refusal.
fn send(mut object: Value, old: Option<&Value>, objects: &Objects) -> Result<(Value, Vec<String>), Vec<String>> {
    let gvk = GroupVersionKind::of(&object).unwrap();
    let sent = schema(&gvk);
    let unknown = sent.prune(&mut object);
    if !unknown.is_empty() {
        return Err(unknown.into_iter().map(|path| format!("unknown field \"{path}\"")).collect());
    }
    sent.default(&mut object);
    let words = |error: apimachinery::status::StatusError| vec![error.message];
    let hub = gvk.with_version(hub_of(&gvk));
    let mut stored = Webhooks.convert(object, &hub.version).map_err(words)?;
    let name = meta::name(&stored).to_owned();
    let namespace = meta::namespace(&stored).map(str::to_owned);
    let request = Request {
        gvk: &hub,
        operation: if old.is_some() { Operation::Update } else { Operation::Create },
        subresource: None,
        name: &name,
        namespace: namespace.as_deref(),
        old,
        dry_run: false,
    };
    Webhooks.mutate(&request, &mut stored, objects).map_err(words)?;
    let back = Webhooks.convert(stored.clone(), &gvk.version).map_err(words)?;
    let mut faults: Vec<String> = sent.validate(&back, None).iter().map(ToString::to_string).collect();
    faults.extend(schema(&hub).validate(&stored, None).iter().map(|fault| format!("stored: {fault}")));
    if !faults.is_empty() {
        return Err(faults);
    }
    let warnings = Webhooks.validate(&request, Some(&stored), objects).map_err(words)?;
    Ok((stored, warnings))
}

/// `${NAME}` from an environment file, enough for these manifests.
fn render(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = text.to_owned();
    for (name, value) in variables {
        out = out.replace(&format!("${{{name}}}"), value);
    }
    assert!(!out.contains("${"), "{out}");
    out
}

fn users_manifests() -> Option<Vec<Value>> {
    let folder = reference::path("templates/vsphere-standard")?;
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let variables: BTreeMap<String, String> = read("standard.env")
        .lines()
        .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect();
    let all = ["ipam.yaml", "standard.yaml"].iter().flat_map(|name| reference::documents(&render(&read(name), &variables)));
    Some(
        all.map(|mut object| {
            object["metadata"]["namespace"] = json!("vmware-test");
            object
        })
        .collect(),
    )
}

#[test]
fn the_users_manifests_are_accepted_unchanged() {
    let Some(manifests) = users_manifests() else { return };
    assert_eq!(manifests.len(), 10);
    for manifest in manifests {
        let (stored, warnings) =
            send(manifest.clone(), None, &Objects::default()).unwrap_or_else(|faults| panic!("{faults:?}: {manifest:#}"));
        assert!(warnings.is_empty(), "{warnings:?}");
        // The same again is an update that changes nothing.
        let (again, _) = send(manifest.clone(), Some(&stored), &Objects::default()).unwrap();
        assert_eq!(again, stored);
    }
}

/// Fields that upstream's defaults fill in and ours do not, with the reason.
const NOT_DEFAULTED: &[(&str, &str, &str)] = &[
    ("MachineDeployment", "/spec/minReadySeconds", "zero says nothing"),
    ("MachineDeployment", "/spec/progressDeadlineSeconds", "never had an effect, gone from v1beta2"),
    ("MachineDeployment", "/spec/revisionHistoryLimit", "gone from v1beta2"),
    ("TalosControlPlane", "/spec/controlPlaneConfig/init", "an empty record that upstream's client code writes"),
    ("TalosControlPlane", "/spec/controlPlaneConfig/controlplane/hostname", "an empty record that upstream's client code writes"),
    ("TalosConfigTemplate", "/spec/template/spec/hostname", "an empty record that upstream's client code writes"),
    ("VSphereMachineTemplate", "/spec/template/metadata", "an empty record that upstream's client code writes"),
    ("Cluster", "/spec/controlPlaneEndpoint", "comes from the infrastructure later"),
];

#[test]
fn defaults_are_those_of_the_genuine_webhooks() {
    let (Some(manifests), Some(files)) = (users_manifests(), reference::files("kubernetes/objects")) else { return };
    let theirs: Vec<Value> = files
        .iter()
        .flat_map(|(_, text)| reference::documents(text))
        .flat_map(|list| list["items"].as_array().cloned().unwrap_or_default())
        .collect();
    let mut compared = 0;
    for manifest in manifests {
        let kind = manifest["kind"].as_str().unwrap().to_owned();
        // The lab's templates have other names; the kinds have one object, or equal ones, each.
        let Some(reference) = theirs.iter().find(|one| {
            let names = [meta::name(one).to_owned(), meta::name(one).replace("talos-tmpl", "vmware-amd64i")];
            one["kind"] == kind.as_str() && names.contains(&meta::name(&manifest).to_owned())
        }) else {
            assert_eq!(kind, "MachineHealthCheck");
            continue;
        };
        let (stored, _) = send(manifest.clone(), None, &Objects::default()).unwrap();
        let version = meta::api_version(reference).rsplit_once('/').unwrap().1.to_owned();
        let shown = Webhooks.convert(stored, &version).unwrap();
        let mut faults = Vec::new();
        differences("/spec", &reference["spec"], &shown["spec"], &mut faults);
        faults.retain(|(path, theirs, _)| {
            !NOT_DEFAULTED.iter().any(|(k, p, _)| *k == kind && path.starts_with(p))
                && !["datacenter", "datastore", "folder", "server", "template", "thumbprint", "name"]
                    .iter()
                    .any(|lab| path.ends_with(&format!("/{lab}")) && theirs.is_string())
        });
        assert!(faults.is_empty(), "{kind}: {faults:#?}");
        compared += 1;
    }
    assert_eq!(compared, 9);
}

fn differences(path: &str, theirs: &Value, ours: &Value, out: &mut Vec<(String, Value, Value)>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                differences(&format!("{path}/{key}"), &theirs[key], &ours[key], out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}/{index}"), a, b, out);
            }
        }
        (a, b) if a == b => {}
        (a, b) => out.push((path.to_owned(), a.clone(), b.clone())),
    }
}

fn cluster_object(kind: &str, spec: Value) -> Value {
    json!({"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": kind, "metadata": {"name": "a", "namespace": "n"}, "spec": spec})
}

fn machine_spec() -> Value {
    json!({"clusterName": "c", "bootstrap": {"dataSecretName": "s"}, "infrastructureRef": {"apiGroup": "g.io", "kind": "K", "name": "i"}})
}

fn pool(spec: Value) -> Value {
    json!({"apiVersion": "ipam.cluster.x-k8s.io/v1alpha2", "kind": "InClusterIPPool",
           "metadata": {"name": "p", "namespace": "n", "finalizers": ["ipam.cluster.x-k8s.io/ProtectPool"]}, "spec": spec})
}

fn with(mut object: Value, path: &str, value: Value) -> Value {
    let (parent, key) = path.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
    object
}

#[test]
fn machines_get_their_defaults() {
    let (machine, _) =
        send(cluster_object("Machine", with(machine_spec(), "/version", json!("1.30.1"))), None, &Objects::default()).unwrap();
    assert_eq!(machine["spec"]["version"], "v1.30.1");
    assert_eq!(machine["spec"]["deletion"]["nodeDeletionTimeoutSeconds"], 10);
    assert_eq!(machine["metadata"]["labels"]["cluster.x-k8s.io/cluster-name"], "c");
    let bare = json!({"clusterName": "c", "selector": {}, "template": {"spec": machine_spec()}});
    let (deployment, _) = send(cluster_object("MachineDeployment", bare.clone()), None, &Objects::default()).unwrap();
    assert_eq!(
        deployment["spec"]["selector"]["matchLabels"],
        json!({"cluster.x-k8s.io/deployment-name": "a", "cluster.x-k8s.io/cluster-name": "c"})
    );
    assert_eq!(deployment["spec"]["template"]["metadata"]["labels"], deployment["spec"]["selector"]["matchLabels"]);
    assert_eq!(
        deployment["spec"]["rollout"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
    );
    assert_eq!(deployment["spec"]["replicas"], 1);
    let scaled = with(
        cluster_object("MachineDeployment", bare),
        "/metadata/annotations",
        json!({"cluster.x-k8s.io/cluster-api-autoscaler-node-group-min-size": "3", "cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size": "5"}),
    );
    assert_eq!(send(scaled.clone(), None, &Objects::default()).unwrap().0["spec"]["replicas"], 3);
    for (old, new) in [(1, 3), (4, 4), (9, 5)] {
        let old = with(deployment.clone(), "/spec/replicas", json!(old));
        assert_eq!(send(scaled.clone(), Some(&old), &Objects::default()).unwrap().0["spec"]["replicas"], new);
    }
}

/// Each broken object: what is sent over what old object, and the words of its one fault.
#[test]
fn every_fault_has_its_own_words() {
    let deployment = || {
        cluster_object(
            "MachineDeployment",
            json!({"clusterName": "c", "selector": {"matchLabels": {"x": "y"}}, "template": {"metadata": {"labels": {"x": "y"}}, "spec": machine_spec()}}),
        )
    };
    let old_deployment = send(deployment(), None, &Objects::default()).unwrap().0;
    let check = |spec: Value| {
        let mut object = cluster_object("MachineHealthCheck", json!({"clusterName": "c", "selector": {"matchLabels": {"x": "y"}}}));
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        object
    };
    let plane = |spec: Value| {
        let mut object = json!({"apiVersion": "controlplane.cluster.x-k8s.io/v1alpha3", "kind": "TalosControlPlane",
            "metadata": {"name": "t", "namespace": "n"}, "spec": {"version": "v1.30.0",
            "infrastructureTemplate": {"apiVersion": "g.io/v1", "kind": "K", "name": "i"}, "controlPlaneConfig": {"controlplane": {"generateType": "controlplane"}}}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        object
    };
    let talos = |spec: Value| json!({"apiVersion": "bootstrap.cluster.x-k8s.io/v1alpha3", "kind": "TalosConfig", "metadata": {"name": "t", "namespace": "n"}, "spec": spec});
    let old_talos = send(talos(json!({"generateType": "worker"})), None, &Objects::default()).unwrap().0;
    let template = |spec: Value| json!({"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "VSphereMachineTemplate", "metadata": {"name": "t", "namespace": "n"}, "spec": {"template": {"spec": spec}}});
    let clone = |extra: Value| {
        let mut spec = json!({"template": "t", "network": {"devices": [{"networkName": "n"}]}});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        spec
    };
    let old_template = send(template(clone(json!({}))), None, &Objects::default()).unwrap().0;
    let vm = |extra: Value| json!({"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2", "kind": "VSphereVM", "metadata": {"name": "t", "namespace": "n"}, "spec": clone(extra)});
    let old_vm = send(vm(json!({"biosUUID": "u"})), None, &Objects::default()).unwrap().0;
    let cases: Vec<(Value, Option<&Value>, &str)> = vec![
        (cluster_object("Cluster", json!({"pausd": true})), None, "unknown field \"spec.pausd\""),
        (
            cluster_object("Cluster", json!({"clusterNetwork": {"pods": {"cidrBlocks": ["10.0.0.0"]}}})),
            None,
            "spec.clusterNetwork.pods.cidrBlocks[0]: Invalid value: \"10.0.0.0\"",
        ),
        (cluster_object("Machine", with(machine_spec(), "/bootstrap", json!({}))), None, "spec.bootstrap: Required value"),
        (
            cluster_object("Machine", with(machine_spec(), "/version", json!("latest"))),
            None,
            "spec.version: Invalid value: \"vlatest\": must be a valid semantic version",
        ),
        (
            with(deployment(), "/spec/clusterName", json!("d")),
            None,
            "spec.template.spec.clusterName: Invalid value: \"c\": must match spec.clusterName",
        ),
        (with(deployment(), "/spec/selector", json!({"matchLabels": {"x": "z"}})), None, "spec.template.metadata.labels: Invalid value"),
        (with(deployment(), "/spec/selector", json!({"matchLabels": {}})), Some(&old_deployment), "spec.selector: Invalid value"),
        (
            with(deployment(), "/spec/rollout", json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0}}})),
            None,
            "may not be 0 when maxSurge is 0",
        ),
        (
            with(deployment(), "/spec/rollout", json!({"strategy": {"type": "Rolling"}})),
            None,
            "spec.rollout.strategy.type: Unsupported value: \"Rolling\"",
        ),
        (check(json!({"selector": {}})), None, "spec.selector: Required value: selector must not be empty"),
        (check(json!({"checks": {"nodeStartupTimeoutSeconds": 5}})), None, "must be at least 30s"),
        (
            check(json!({"remediation": {"triggerIf": {"unhealthyLessThanOrEqualTo": "many"}}})),
            None,
            "spec.remediation.triggerIf.unhealthyLessThanOrEqualTo: Invalid value: \"many\"",
        ),
        (
            check(json!({"remediation": {"triggerIf": {"unhealthyInRange": "[5-3]"}}})),
            None,
            "spec.remediation.triggerIf.unhealthyInRange: Invalid value: \"[5-3]\"",
        ),
        (
            plane(json!({"rolloutStrategy": {"type": "Recreate"}})),
            None,
            "spec.rolloutStrategy.type: Unsupported value: \"Recreate\": supported values: \"RollingUpdate\", \"OnDelete\"",
        ),
        (
            plane(json!({"controlPlaneConfig": {"controlplane": {"generateType": "worker"}}})),
            None,
            "spec.controlPlaneConfig.controlplane.generateType: Unsupported value: \"worker\"",
        ),
        (plane(json!({"version": "latest"})), None, "spec.version: Invalid value: \"vlatest\""),
        (talos(json!({"generateType": "master"})), None, "spec.generateType: Unsupported value: \"master\""),
        (
            talos(json!({"generateType": "worker", "configPatches": [{"op": "put", "path": "/a"}]})),
            None,
            "spec.configPatches[0].op: Unsupported value: \"put\"",
        ),
        (talos(json!({"generateType": "worker", "talosVersion": "newest"})), None, "spec.talosVersion: Invalid value: \"newest\""),
        (talos(json!({"generateType": "controlplane"})), Some(&old_talos), "spec: Forbidden: TalosConfigSpec is immutable"),
        (template(clone(json!({"numCPUs": 4}))), Some(&old_template), "spec: Forbidden: VSphereMachineTemplateSpec is immutable"),
        (
            template(clone(json!({"network": {"devices": [{"networkName": "n", "ipAddrs": ["10.0.0.5/24"]}]}}))),
            None,
            "network.devices[0].ipAddrs: Forbidden",
        ),
        (
            template(clone(json!({"network": {"devices": [{"networkName": "n", "gateway4": "gw"}]}}))),
            None,
            "gateway4: Invalid value: \"gw\": must be an IPv4 address",
        ),
        (template(clone(json!({"cloneMode": "copy"}))), None, "Unsupported value: \"copy\": supported values"),
        (vm(json!({"biosUUID": "v"})), Some(&old_vm), "spec.biosUUID: Forbidden"),
        (pool(json!({"addresses": [], "prefix": 24})), None, "spec.addresses: Required value"),
        (pool(json!({"addresses": ["10.0.0.5-10.0.0.1"], "prefix": 24})), None, "spec.addresses[0]: Invalid value"),
        (pool(json!({"addresses": ["10.0.0.5", "10.0.1.5"], "prefix": 24})), None, "10.0.1.5 is not in the network 10.0.0.0/24"),
        (pool(json!({"addresses": ["10.0.0.5"], "prefix": 64})), None, "spec.prefix: Invalid value: 64"),
        (pool(json!({"addresses": ["10.0.0.5"], "prefix": 24, "gateway": "fd00::1"})), None, "spec.gateway: Invalid value: \"fd00::1\""),
        (
            json!({"apiVersion": "cluster.x-k8s.io/v1alpha4", "kind": "MachineHealthCheck", "metadata": {"name": "h", "namespace": "n"},
                "spec": {"clusterName": "c", "selector": {"matchLabels": {"x": "y"}}, "unhealthyConditions": []}}),
            None,
            "spec.unhealthyConditions: Invalid value",
        ),
    ];
    for (object, old, words) in cases {
        match send(object.clone(), old, &Objects::default()) {
            Ok(_) => panic!("accepted: {object}"),
            Err(faults) => {
                let of_sent: Vec<&String> = faults.iter().filter(|fault| !fault.starts_with("stored: ")).collect();
                let all = if of_sent.is_empty() { faults.iter().collect() } else { of_sent };
                assert!(all.iter().any(|fault| fault.contains(words)), "{faults:?} for {object}, wanted {words}");
                assert_eq!(all.len(), 1, "{faults:?} for {object}");
            }
        }
    }
}

#[test]
fn what_may_change_may_change() {
    let machine = |spec: Value| json!({"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2", "kind": "VSphereVM", "metadata": {"name": "t", "namespace": "n"}, "spec": spec});
    let spec = json!({"template": "t", "network": {"devices": [{"networkName": "n"}]}});
    let old = send(machine(spec.clone()), None, &Objects::default()).unwrap().0;
    let mut new = spec;
    new["biosUUID"] = json!("u");
    new["thumbprint"] = json!("AA");
    new["network"]["devices"][0]["macAddr"] = json!("00:50:56:00:00:01");
    send(machine(new), Some(&old), &Objects::default()).unwrap();
}

fn address(name: &str, address: &str) -> Value {
    json!({"apiVersion": "ipam.cluster.x-k8s.io/v1beta2", "kind": "IPAddress", "metadata": {"name": name, "namespace": "n"},
           "spec": {"address": address, "prefix": 24, "claimRef": {"name": name},
                    "poolRef": {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "p"}}})
}

#[test]
fn pools_keep_their_allocated_addresses() {
    let objects = Objects(vec![address("vm-0-0", "10.0.0.7")]);
    let old = send(pool(json!({"addresses": ["10.0.0.5-10.0.0.9"], "prefix": 24})), None, &objects).unwrap().0;
    let wider = pool(json!({"addresses": ["10.0.0.1-10.0.0.9"], "prefix": 24}));
    send(wider, Some(&old), &objects).unwrap();
    let narrower = pool(json!({"addresses": ["10.0.0.5-10.0.0.6"], "prefix": 24}));
    let faults = send(narrower, Some(&old), &objects).unwrap_err();
    assert!(faults[0].contains("10.0.0.7 (held by n/vm-0-0)"), "{faults:?}");
}

#[test]
fn a_pool_with_addresses_goes_with_its_last_one() {
    let gvk = GroupVersionKind::new("ipam.cluster.x-k8s.io", "v1alpha2", "InClusterIPPool");
    let delete = |pool: &Value, objects: &Objects| {
        let request = Request {
            gvk: &gvk,
            operation: Operation::Delete,
            subresource: None,
            name: "p",
            namespace: Some("n"),
            old: Some(pool),
            dry_run: false,
        };
        Webhooks.validate(&request, None, objects)
    };
    let guarded = pool(json!({"addresses": ["10.0.0.5-10.0.0.9"], "prefix": 24}));
    let mut bare = guarded.clone();
    bare["metadata"]["finalizers"] = json!([]);
    let (none, one) = (Objects::default(), Objects(vec![address("vm-0-0", "10.0.0.7")]));
    assert!(delete(&guarded, &none).unwrap().is_empty());
    assert!(delete(&guarded, &one).unwrap()[0].contains("n/vm-0-0"));
    assert!(delete(&bare, &none).unwrap().is_empty());
    let refused = delete(&bare, &one).unwrap_err();
    assert_eq!(refused.code, 400);
    assert!(refused.message.contains("n/vm-0-0") && refused.message.contains("skip-validate-delete-webhook"), "{}", refused.message);
    bare["metadata"]["annotations"] = json!({"ipam.cluster.x-k8s.io/skip-validate-delete-webhook": ""});
    assert!(delete(&bare, &one).is_ok());
}

#[test]
fn a_drain_s_limit_is_a_duration_with_its_unit() {
    const KEY: &str = "talosphere.dev/node-drain-timeout";
    let plane = |text: &str| {
        json!({"apiVersion": "controlplane.cluster.x-k8s.io/v1alpha3", "kind": "TalosControlPlane",
            "metadata": {"name": "t", "namespace": "n", "annotations": {KEY: text}}, "spec": {"version": "v1.30.0",
            "infrastructureTemplate": {"apiVersion": "g.io/v1", "kind": "K", "name": "i"}, "controlPlaneConfig": {"controlplane": {"generateType": "controlplane"}}}})
    };
    for text in ["80s", "15m", "1h30m", "0s"] {
        send(plane(text), None, &Objects::default()).unwrap_or_else(|words| panic!("{text}: {words:?}"));
    }
    let refused = |object: Value| send(object, None, &Objects::default()).unwrap_err().join("\n");
    for text in ["80", "0"] {
        let words = refused(plane(text));
        assert!(words.contains(&format!("write {text}s for seconds, {text}m for minutes; 0s is no limit")), "{words}");
    }
    for text in ["", "soon", "-5s", "5 m"] {
        let words = refused(plane(text));
        assert!(words.contains("write it as 80s, 15m or 1h30m"), "{words}");
    }
    let mut machine = machine_spec();
    machine["clusterName"] = json!("c");
    let mut machine = cluster_object("Machine", machine);
    machine["metadata"]["annotations"] = json!({KEY: "80"});
    assert!(refused(machine).contains("80s"));
    let mut deployment = cluster_object(
        "MachineDeployment",
        json!({"clusterName": "c", "selector": {"matchLabels": {"x": "y"}},
            "template": {"metadata": {"labels": {"x": "y"}, "annotations": {KEY: "80"}}, "spec": machine_spec()}}),
    );
    assert!(refused(deployment.clone()).contains("80s"));
    // The field of the older version as well.
    deployment["spec"]["template"]["metadata"]["annotations"] = json!({KEY: "80s"});
    deployment["apiVersion"] = json!("cluster.x-k8s.io/v1beta1");
    let spec = &mut deployment["spec"]["template"]["spec"];
    spec["infrastructureRef"] = json!({"apiVersion": "g.io/v1", "kind": "K", "name": "i"});
    spec["bootstrap"] = json!({"dataSecretName": "b"});
    for bare in [json!(80), json!("80")] {
        deployment["spec"]["template"]["spec"]["nodeDrainTimeout"] = bare;
        let words = refused(deployment.clone());
        assert!(words.contains("nodeDrainTimeout"), "{words}");
    }
}
