//! Control planes and their configurations: the whole way, and every call of it lost or cut off.

use std::collections::BTreeMap;

use runtime::defects::{Defect, Defects};
use serde_json::{Value, json};

use crate::lab::{CLUSTER, Fault, Lab, NAMESPACE};

const CONTROL_PLANE: &str = "/apis/controlplane.cluster.x-k8s.io/v1alpha3/namespaces/test/taloscontrolplanes/cp";

fn is_up(lab: &Lab, count: usize) -> bool {
    lab.objects("Machine").len() == count && lab.members() == count && lab.condition("EtcdClusterHealthyCondition")["status"] == "True"
}

/// What must hold after any bring-up, whatever was lost on the way.
fn judge(lab: &Lab, count: usize, what: &str) {
    let truth = lab.nodes.truth.lock().unwrap();
    assert_eq!(truth.bootstraps.len(), 1, "{what}: one etcd");
    assert_eq!(truth.boxes.len(), count, "{what}: boxes");
    assert!(truth.lost_members.is_empty(), "{what}: a VM went before its member: {:?}", truth.lost_members);
    assert!(!truth.quorum_lost, "{what}: quorum");
    drop(truth);
    for kind in ["Machine", "TalosConfig", "VSphereMachine"] {
        assert_eq!(lab.objects(kind).len(), count, "{what}: {kind}");
    }
    assert_eq!(lab.bundles.lock().unwrap().len(), 1, "{what}: the bundle was made once");
    let secrets = lab.objects("Secret");
    let data = secrets.iter().filter(|secret| secret["metadata"]["name"].as_str().unwrap().ends_with("-bootstrap-data")).count();
    assert_eq!(data, count, "{what}: data secrets");
}

async fn brought_up(seed: u64, replicas: i64) -> Lab {
    let mut lab = Lab::new(seed, Defects::none()).await;
    lab.apply_manifests(replicas).await;
    lab.start();
    let count = usize::try_from(replicas).unwrap();
    let is_done = lab.run(120, |lab| is_up(lab, count)).await;
    assert!(is_done, "{:#?}", lab.objects("TalosControlPlane").pop().map(|object| object["status"].clone()));
    lab
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_comes_up_grows_shrinks_and_goes() {
    let mut lab = brought_up(1, 3).await;
    judge(&lab, 3, "brought up");
    let status = lab.objects("TalosControlPlane").pop().unwrap()["status"].clone();
    assert_eq!((&status["bootstrapped"], &status["replicas"], &status["version"]), (&json!(true), &json!(3), &json!("v1.25.5")));
    assert_eq!(status["selector"], format!("cluster.x-k8s.io/cluster-name={CLUSTER},cluster.x-k8s.io/control-plane="));

    lab.merge(CONTROL_PLANE, json!({ "spec": { "replicas": 5 } })).await;
    assert!(lab.run(120, |lab| is_up(lab, 5)).await, "{}", lab.condition("Resized"));
    judge(&lab, 5, "grown");
    lab.merge(CONTROL_PLANE, json!({ "spec": { "replicas": 3 } })).await;
    assert!(lab.run(240, |lab| is_up(lab, 3)).await, "{}", lab.condition("Resized"));
    judge(&lab, 3, "shrunk");

    lab.delete(&format!("/apis/cluster.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/clusters/{CLUSTER}")).await;
    let is_gone =
        |lab: &Lab| lab.objects("Machine").is_empty() && lab.objects("TalosControlPlane").is_empty() && lab.objects("Cluster").is_empty();
    assert!(lab.run(120, is_gone).await, "{:?}", lab.objects("Machine"));
    assert!(lab.run(60, |lab| !lab.objects("Secret").iter().any(|secret| secret["metadata"]["namespace"] == NAMESPACE)).await);
}

#[tokio::test(start_paused = true)]
async fn secrets_and_objects_look_as_upstream_makes_them() {
    let lab = brought_up(2, 1).await;
    let machine = lab.objects("Machine").pop().unwrap();
    let name = machine["metadata"]["name"].as_str().unwrap();
    let labels = json!({ "cluster.x-k8s.io/cluster-name": CLUSTER, "cluster.x-k8s.io/control-plane": "" });
    assert_eq!(machine["metadata"]["labels"], labels);
    assert!(name.starts_with("cp-") && name.len() == 8, "{name}");
    let infrastructure = lab.objects("VSphereMachine").pop().unwrap();
    assert!(infrastructure["metadata"]["name"].as_str().unwrap().starts_with("tmpl-"));
    assert_eq!(infrastructure["metadata"]["annotations"]["cluster.x-k8s.io/cloned-from-name"], "tmpl");
    assert_eq!(infrastructure.pointer("/metadata/ownerReferences/0/kind"), Some(&json!("Machine")));
    let cluster_label = json!({ "cluster.x-k8s.io/cluster-name": CLUSTER });
    for (secret, keys, kind, type_) in [
        (format!("{CLUSTER}-talos"), vec!["bundle"], "Cluster", "Opaque"),
        (format!("{CLUSTER}-ca"), vec!["tls.crt", "tls.key"], "Cluster", "Opaque"),
        (format!("{CLUSTER}-talosconfig"), vec!["talosconfig"], "Cluster", "Opaque"),
        (format!("{CLUSTER}-kubeconfig"), vec!["value"], "TalosControlPlane", "cluster.x-k8s.io/secret"),
        (format!("{name}-bootstrap-data"), vec!["value"], "TalosConfig", "Opaque"),
    ] {
        let object = lab.get(&format!("/api/v1/namespaces/{NAMESPACE}/secrets/{secret}")).await;
        let found: Vec<&String> = object["data"].as_object().unwrap_or_else(|| panic!("{secret}: {object}")).keys().collect();
        assert_eq!(found, keys, "{secret}");
        assert_eq!(object["metadata"]["labels"], cluster_label, "{secret}");
        assert_eq!(object.pointer("/metadata/ownerReferences/0/kind"), Some(&json!(kind)), "{secret}");
        assert_eq!(object.pointer("/metadata/ownerReferences/0/controller"), Some(&json!(true)), "{secret}");
        assert_eq!(object["type"], type_, "{secret}");
    }
    let config = lab.objects("TalosConfig").pop().unwrap();
    assert_eq!(config["status"]["dataSecretName"], format!("{name}-bootstrap-data"));
    let client = config["status"]["talosConfig"].as_str().unwrap();
    assert!(client.contains("- 10.0.0.10\n") && !client.contains("10.0.0.5"), "the endpoint is no Talos endpoint");
    let older = lab
        .get(&format!(
            "/apis/bootstrap.cluster.x-k8s.io/v1alpha3/namespaces/{NAMESPACE}/talosconfigs/{}",
            config["metadata"]["name"].as_str().unwrap()
        ))
        .await;
    assert_eq!((&older["status"]["ready"], older["status"]["talosConfig"].as_str()), (&json!(true), Some(client)));
}

/// What a call is, without the object's name: the verb, the kind and the subresource; or the call to a node.
fn kind_of(call: &str) -> String {
    let Some((method, path)) = call.split_once(" /") else { return call.split(' ').next().unwrap().to_owned() };
    let parts: Vec<&str> = path.split('/').collect();
    let place = parts.iter().position(|part| *part == "namespaces").map_or(0, |place| place + 2);
    let named = parts.get(place).copied().unwrap_or_default();
    let name = parts.get(place + 1).copied().unwrap_or_default();
    // Secrets differ by what they hold.
    let suffix = if named == "secrets" { name.rsplit('-').next().unwrap_or_default() } else { "" };
    format!("{method} {named} {suffix} {}", parts.get(place + 2).copied().unwrap_or_default())
}

/// As [`kind_of`]; every new Secret is a kind of its own, since each is another step.
fn numbered(calls: &[String], index: usize, call: &str) -> String {
    let kind = kind_of(call);
    if !kind.starts_with("POST secrets") {
        return kind;
    }
    let earlier = calls[..index].iter().filter(|earlier| kind_of(earlier) == kind).count();
    format!("{kind}{earlier}")
}

/// A bring-up, a step up and a step down, struck once at each kind of writing call: at its first time, or at its last.
async fn strike_all(fault: Fault, is_first: bool) {
    let calls = journey(0, fault).await.faults.names();
    let mut chosen: BTreeMap<String, usize> = BTreeMap::new();
    for (index, call) in calls.iter().enumerate() {
        let kind = numbered(&calls, index, call);
        if !is_first || !chosen.contains_key(&kind) {
            chosen.insert(kind, index + 1);
        }
    }
    assert!(chosen.len() >= 24, "{:?}", chosen.keys());
    for kind in ["bootstrap", "leave", "POST machines  ", "POST secrets  0", "POST secrets  6", "PATCH taloscontrolplanes  "] {
        assert!(chosen.contains_key(kind), "{kind} in {:?}", chosen.keys());
    }
    for (kind, number) in chosen {
        let lab = journey(u64::try_from(number).unwrap(), fault).await;
        let names = lab.faults.names();
        assert_eq!(numbered(&names, number - 1, &names[number - 1]), kind, "the same seed makes the same calls");
        judge(&lab, 2, &format!("{fault:?} at call {number} ({kind})"));
    }
}

/// Up with two, to three, down to two.
async fn journey(number: u64, fault: Fault) -> Lab {
    let mut lab = Lab::new(7, Defects::none()).await;
    lab.faults.strike(number, fault);
    lab.apply_manifests(2).await;
    lab.start();
    let what = |lab: &Lab| {
        format!(
            "{fault:?} at call {number}: {:#?}",
            lab.objects("TalosControlPlane").pop().map(|object| object["status"]["conditions"].clone())
        )
    };
    assert!(lab.run(300, |lab| is_up(lab, 2)).await, "up: {}", what(&lab));
    lab.merge(CONTROL_PLANE, json!({ "spec": { "replicas": 3 } })).await;
    assert!(lab.run(300, |lab| is_up(lab, 3)).await, "grow: {}", what(&lab));
    lab.merge(CONTROL_PLANE, json!({ "spec": { "replicas": 2 } })).await;
    assert!(lab.run(600, |lab| is_up(lab, 2)).await, "shrink: {}", what(&lab));
    lab
}

#[tokio::test(start_paused = true)]
async fn any_call_may_be_lost_before_its_effect() {
    strike_all(Fault::LostBefore, true).await;
}

#[tokio::test(start_paused = true)]
async fn any_call_may_be_lost_after_its_effect() {
    strike_all(Fault::LostAfter, true).await;
}

#[tokio::test(start_paused = true)]
async fn the_controllers_may_be_killed_before_any_call() {
    strike_all(Fault::KilledBefore, false).await;
}

#[tokio::test(start_paused = true)]
async fn the_controllers_may_be_killed_after_any_call() {
    strike_all(Fault::KilledAfter, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_member_is_taken_out_through_another_node() {
    for fault in [None, Some(Fault::LostBefore), Some(Fault::LostAfter), Some(Fault::KilledBefore), Some(Fault::KilledAfter)] {
        let mut lab = brought_up(9, 3).await;
        let (address, name) = {
            let mut truth = lab.nodes.truth.lock().unwrap();
            let (address, one) = truth.boxes.iter().next().map(|(address, one)| (address.clone(), one.name.clone())).unwrap();
            truth.silent.insert(address.clone());
            truth.boxes.get_mut(&address).unwrap().is_up = false;
            (address, one)
        };
        lab.faults.strike_named("remove-member", fault);
        lab.delete(&format!("/apis/cluster.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/machines/{name}")).await;
        let is_replaced = |lab: &Lab| is_up(lab, 3) && !lab.nodes.truth.lock().unwrap().boxes.contains_key(&address);
        assert!(
            lab.run(600, is_replaced).await,
            "{fault:?}: {} {}",
            lab.condition("Resized"),
            lab.condition("EtcdClusterHealthyCondition")
        );
        judge(&lab, 3, &format!("{fault:?}"));
        assert!(lab.faults.names().iter().any(|call| call.starts_with("remove-member")), "{fault:?}");
    }
}

/// Nobody has joined yet, and the only one that has etcd goes silent. Its address.
fn leave_only_the_bootstrapped(lab: &Lab) -> String {
    let mut truth = lab.nodes.truth.lock().unwrap();
    let chosen = truth.bootstraps[0].clone();
    for (address, one) in &mut truth.boxes {
        if *address != chosen {
            one.etcd = None;
        }
    }
    truth.clusters[0] = std::collections::BTreeSet::from([chosen.clone()]);
    truth.silent.insert(chosen.clone());
    truth.boxes.get_mut(&chosen).unwrap().is_up = false;
    chosen
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_is_never_given_up_for_another() {
    let mut lab = Lab::new(3, Defects::none()).await;
    lab.apply_manifests(3).await;
    // The first bootstrap call has its effect, its answer is lost, and the node goes silent.
    let token = lab.start();
    assert!(lab.run(60, |lab| !lab.nodes.truth.lock().unwrap().bootstraps.is_empty()).await);
    token.cancel();
    let chosen = leave_only_the_bootstrapped(&lab);
    // As after a move: what the status knew is gone.
    lab.merge(&format!("{CONTROL_PLANE}/status"), json!({ "status": { "bootstrapped": null } })).await;
    lab.start();
    lab.run(300, |_| false).await;
    assert_eq!(lab.nodes.truth.lock().unwrap().bootstraps, std::slice::from_ref(&chosen));
    let told = lab.condition("MachinesBootstrapped");
    let words = told["message"].as_str().unwrap();
    assert!(words.contains("on which etcd is bootstrapped and no other") && words.contains(&chosen), "{words}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_again_is_not_a_node_without_etcd() {
    let mut lab = Lab::new(3, Defects::none()).await;
    lab.apply_manifests(3).await;
    let token = lab.start();
    let has_begun = |lab: &Lab| {
        let truth = lab.nodes.truth.lock().unwrap();
        truth.boxes.len() == 3 && !truth.bootstraps.is_empty()
    };
    assert!(lab.run(60, has_begun).await);
    token.cancel();
    {
        // The power fails, and comes back: the last machine by name has the only etcd, which starts.
        let mut truth = lab.nodes.truth.lock().unwrap();
        let last = truth.boxes.iter().max_by_key(|(_, one)| one.name.clone()).map(|(address, _)| address.clone()).unwrap();
        truth.boxes.values_mut().for_each(|one| one.etcd = None);
        let one = truth.boxes.get_mut(&last).unwrap();
        (one.etcd, one.state) = (Some(0), Some("Starting"));
        truth.clusters[0] = std::collections::BTreeSet::from([last]);
    }
    // As after a move: what the status and the annotation knew is gone.
    lab.merge(&format!("{CONTROL_PLANE}/status"), json!({ "status": { "bootstrapped": null } })).await;
    lab.merge(CONTROL_PLANE, json!({ "metadata": { "annotations": { "talosphere.dev/bootstrap-node": null } } })).await;
    lab.start();
    lab.run(120, |_| false).await;
    assert_eq!(lab.nodes.truth.lock().unwrap().bootstraps.len(), 1);
    lab.nodes.truth.lock().unwrap().boxes.values_mut().for_each(|one| one.state = None);
    assert!(lab.run(120, |lab| is_up(lab, 3)).await, "{}", lab.condition("MachinesBootstrapped"));
    judge(&lab, 3, "started again");
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_is_taken_away_is_restored_and_never_made_anew() {
    let mut lab = brought_up(11, 3).await;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/{CLUSTER}-talos");
    let before = lab.get(&path).await["data"]["bundle"].clone();
    lab.delete(&path).await;
    let is_back = |lab: &Lab| lab.objects("Secret").iter().any(|secret| secret["metadata"]["name"] == format!("{CLUSTER}-talos"));
    assert!(lab.run(60, is_back).await);
    assert_eq!(lab.get(&path).await["data"]["bundle"], before, "the very same");
    assert!(lab.run(60, |lab| is_up(lab, 3)).await);

    // With the control planes' data gone as well there is nothing to restore it from.
    for secret in lab.objects("Secret") {
        let name = secret["metadata"]["name"].as_str().unwrap().to_owned();
        if name.ends_with("-bootstrap-data") {
            lab.delete(&format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}")).await;
        }
    }
    lab.delete(&path).await;
    lab.merge(CONTROL_PLANE, json!({ "spec": { "replicas": 5 } })).await;
    let is_told = |lab: &Lab| lab.objects("TalosConfig").iter().any(|config| config.to_string().contains("BundleLost"));
    assert!(lab.run(60, is_told).await);
    lab.run(60, |_| false).await;
    assert!(!is_back(&lab), "no machine would know another one");
    let told = lab.condition("EtcdClusterHealthyCondition");
    assert_eq!(told["status"], "False", "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_single_machine_that_has_the_endpoint_gets_company() {
    let mut lab = Lab::new(14, Defects::none()).await;
    lab.endpoint = "10.0.0.10";
    lab.apply_manifests(1).await;
    lab.start();
    assert!(lab.run(120, |lab| is_up(lab, 1)).await);
    let machine = lab.objects("VSphereMachine").pop().unwrap();
    let meta = |name: &str| json!({ "name": name, "namespace": NAMESPACE });
    let pool = json!({ "apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "p" });
    let mut claim = json!({ "apiVersion": "ipam.cluster.x-k8s.io/v1beta2", "kind": "IPAddressClaim", "metadata": meta("c"), "spec": { "poolRef": pool } });
    claim["metadata"]["ownerReferences"] = json!([{ "apiVersion": machine["apiVersion"], "kind": machine["kind"],
        "name": machine["metadata"]["name"], "uid": machine["metadata"]["uid"] }]);
    let path = |plural: &str| format!("/apis/ipam.cluster.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/{plural}");
    lab.create(&path("ipaddressclaims"), claim).await;
    let address = json!({ "apiVersion": "ipam.cluster.x-k8s.io/v1beta2", "kind": "IPAddress", "metadata": meta("c"),
        "spec": { "claimRef": { "name": "c" }, "poolRef": pool, "address": "10.0.0.10", "prefix": 24 } });
    lab.create(&path("ipaddresses"), address).await;
    lab.merge(CONTROL_PLANE, json!({ "spec": { "replicas": 3 } })).await;
    assert!(lab.run(240, |lab| is_up(lab, 3)).await, "{} {}", lab.condition("Resized"), lab.condition("EtcdClusterHealthyCondition"));
    judge(&lab, 3, "grown");
    let secret = lab.get(&format!("/api/v1/namespaces/{NAMESPACE}/secrets/{CLUSTER}-talosconfig")).await;
    assert!(
        lab.run(30, |lab| lab.objects("TalosConfig").iter().any(|config| config["status"]["talosConfig"]
            .as_str()
            .is_some_and(|text| text.contains("- 10.0.0.10\n") && text.contains("- 10.0.0.11\n"))))
            .await,
        "{secret}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_users_own_kubeconfig_is_left_alone() {
    let mut lab = Lab::new(12, Defects::none()).await;
    lab.apply_manifests(1).await;
    let name = format!("{CLUSTER}-kubeconfig");
    let own = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "data": { "value": "bWluZQ==" } });
    lab.create(&format!("/api/v1/namespaces/{NAMESPACE}/secrets"), own).await;
    lab.start();
    assert!(lab.run(120, |lab| is_up(lab, 1)).await);
    lab.run(30, |_| false).await;
    let secret = lab.get(&format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}")).await;
    assert_eq!(secret["data"]["value"], "bWluZQ==");
}

#[tokio::test(start_paused = true)]
async fn machines_go_when_their_control_plane_is_gone_already() {
    let mut lab = brought_up(13, 3).await;
    let machines = lab.objects("Machine");
    // As `kubectl delete --cascade=orphan` with the finalizer taken off by hand: nobody is left to take the hooks off.
    let name = machines[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let path = format!("/apis/cluster.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/machines/{name}");
    let owner = json!([{ "apiVersion": "controlplane.cluster.x-k8s.io/v1alpha3", "kind": "TalosControlPlane", "name": "cp", "uid": "gone", "controller": true }]);
    lab.merge(&path, json!({ "metadata": { "ownerReferences": owner } })).await;
    lab.delete(&path).await;
    let is_gone = |lab: &Lab| !lab.objects("Machine").iter().any(|machine| machine["metadata"]["name"] == *name);
    assert!(lab.run(60, is_gone).await, "{:#?}", lab.objects("Machine"));
}

#[tokio::test(start_paused = true)]
async fn the_planted_defects_do_what_they_say() {
    let mut lab = Lab::new(4, Defects::planted([Defect::RegenerateSecrets])).await;
    lab.apply_manifests(3).await;
    lab.start();
    lab.run(30, |lab| lab.bundles.lock().unwrap().len() > 1).await;
    assert!(lab.bundles.lock().unwrap().len() > 1, "the bundle was made anew");
    assert_eq!(brought_up(4, 3).await.bundles.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_is_there_is_used_and_never_touched() {
    let mut lab = Lab::new(5, Defects::none()).await;
    lab.apply_manifests(1).await;
    let other = brought_up(6, 1).await;
    let given = other.bundles.lock().unwrap().first().cloned().unwrap();
    let secret =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": format!("{CLUSTER}-talos") }, "data": { "bundle": given } });
    lab.create(&format!("/api/v1/namespaces/{NAMESPACE}/secrets"), secret).await;
    lab.start();
    assert!(lab.run(120, |lab| is_up(lab, 1)).await);
    assert_eq!(lab.bundles.lock().unwrap().iter().collect::<Vec<_>>(), [&given]);
    let secret = lab.get(&format!("/api/v1/namespaces/{NAMESPACE}/secrets/{CLUSTER}-talos")).await;
    assert_eq!(secret["metadata"].get("ownerReferences"), None);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_cannot_be_made_says_why() {
    let mut lab = Lab::new(8, Defects::none()).await;
    lab.apply_manifests(1).await;
    let spec = |patch: Value, version: &str| json!({ "spec": { "controlPlaneConfig": { "controlplane": { "talosVersion": version, "configPatches": [patch] } } } });
    lab.merge(CONTROL_PLANE, spec(json!({ "op": "add", "path": "/cluster/nothing/below", "value": 1 }), "v1.4")).await;
    lab.start();
    let failed = |lab: &Lab| lab.objects("TalosConfig").iter().any(|config| config.to_string().contains("DataSecretGenerationFailed"));
    assert!(lab.run(30, failed).await);
    let config = lab.objects("TalosConfig").pop().unwrap().to_string();
    assert!(config.contains("JSON patch 1 (add /cluster/nothing/below) cannot be applied: /cluster has no key"), "{config}");
    assert!(!config.contains("PRIVATE KEY"));
}
