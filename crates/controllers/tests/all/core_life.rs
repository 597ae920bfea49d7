//! A cluster's life: it comes up, grows, shrinks, and goes without leaving anything.

use serde_json::{Value, json};

use super::core_world::{CLUSTER, NAMESPACE, World, condition, legacy, manifests};

async fn up(control_planes: u32, workers: u32) -> (World, Vec<Value>) {
    let world = World::new(1).await;
    world.run();
    let manifests = manifests(control_planes, workers);
    for manifest in &manifests {
        world.create(manifest).await;
    }
    world.pass(30).await;
    (world, manifests)
}

fn only(objects: &[Value]) -> &Value {
    assert_eq!(objects.len(), 1, "{objects:?}");
    &objects[0]
}

#[tokio::test(start_paused = true)]
async fn a_cluster_comes_up_and_tells_so() {
    let (world, _) = up(3, 3).await;
    assert_eq!(world.phases(), [("Running".to_owned(), 6)].into(), "{}", world.told());
    let clusters = world.all("cluster.x-k8s.io", "clusters");
    let cluster = only(&clusters);
    assert_eq!(cluster["status"]["phase"], "Provisioned");
    assert_eq!(cluster["status"]["initialization"], json!({"controlPlaneInitialized": true, "infrastructureProvisioned": true}));
    assert_eq!(cluster["spec"]["controlPlaneEndpoint"], json!({"host": "api.example", "port": 6443}));
    assert_eq!(cluster["metadata"]["finalizers"], json!(["cluster.cluster.x-k8s.io"]));
    for type_ in ["InfrastructureReady", "ControlPlaneInitialized", "WorkersAvailable", "WorkerMachinesReady", "RemoteConnectionProbe"] {
        assert_eq!(condition(cluster, type_)["status"], "True", "{}", condition(cluster, type_));
    }
    for type_ in ["Deleting", "Paused", "ScalingUp", "ScalingDown", "RollingOut", "Remediating"] {
        assert_eq!(condition(cluster, type_)["status"], "False", "{}", condition(cluster, type_));
    }
    assert_eq!(legacy(cluster, "Ready")["status"], "True");
    assert_eq!(
        cluster["status"]["workers"],
        json!({"desiredReplicas": 3, "replicas": 3, "readyReplicas": 3, "availableReplicas": 3, "upToDateReplicas": 3})
    );

    let deployments = world.all("cluster.x-k8s.io", "machinedeployments");
    let deployment = only(&deployments);
    assert_eq!(deployment["status"]["phase"], "Running");
    assert_eq!(deployment["metadata"]["annotations"]["machinedeployment.clusters.x-k8s.io/revision"], "1");
    assert_eq!(deployment["status"]["selector"], "cluster.x-k8s.io/cluster-name=vmware-test,nodepool=nodepool-a");
    assert_eq!(condition(deployment, "Available")["status"], "True");
    let checks = world.all("cluster.x-k8s.io", "machinehealthchecks");
    assert_eq!(only(&checks)["status"]["expectedMachines"], 3);
    assert_eq!(only(&checks)["status"]["currentHealthy"], 3);
}

#[tokio::test(start_paused = true)]
async fn names_labels_owners_and_annotations_are_as_upstream_makes_them() {
    let (world, _) = up(1, 2).await;
    let sets = world.all("cluster.x-k8s.io", "machinesets");
    let set = only(&sets);
    let name = set["metadata"]["name"].as_str().unwrap();
    let suffix = name.strip_prefix("vmware-test-workers-").unwrap();
    assert_eq!(suffix.len(), 5);
    let hash = set["metadata"]["labels"]["machine-template-hash"].as_str().unwrap();
    assert!(hash.ends_with(&format!("-{suffix}")) && hash.split('-').next().unwrap().parse::<u32>().is_ok(), "{hash}");
    assert_eq!(
        set["metadata"]["labels"],
        json!({"cluster.x-k8s.io/cluster-name": CLUSTER, "cluster.x-k8s.io/deployment-name": "vmware-test-workers",
            "machine-template-hash": hash, "nodepool": "nodepool-a"})
    );
    assert_eq!(
        set["metadata"]["annotations"],
        json!({"machinedeployment.clusters.x-k8s.io/desired-replicas": "2", "machinedeployment.clusters.x-k8s.io/max-replicas": "3",
            "machinedeployment.clusters.x-k8s.io/revision": "1"})
    );
    let selector =
        json!({"matchLabels": {"cluster.x-k8s.io/cluster-name": CLUSTER, "machine-template-hash": hash, "nodepool": "nodepool-a"}});
    assert_eq!(set["spec"]["selector"], selector);
    let owner = &set["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["controller"], &owner["blockOwnerDeletion"]),
        (&json!("MachineDeployment"), &json!(true), &json!(true))
    );

    for machine in world.machines().iter().filter(|machine| machine["metadata"]["labels"]["nodepool"] == "nodepool-a") {
        let machine_name = machine["metadata"]["name"].as_str().unwrap();
        assert!(machine_name.starts_with(&format!("{name}-")) && machine_name.len() == name.len() + 6, "{machine_name}");
        assert_eq!(machine["metadata"]["labels"]["cluster.x-k8s.io/set-name"], name);
        assert_eq!(machine["metadata"]["finalizers"], json!(["machine.cluster.x-k8s.io"]));
        assert_eq!(machine["spec"]["deletion"]["nodeDeletionTimeoutSeconds"], 10);
        assert_eq!(machine["spec"]["version"], "v1.25.5");
        assert_eq!(machine["spec"]["bootstrap"]["configRef"]["name"], machine_name);
        assert_eq!(machine["spec"]["bootstrap"]["dataSecretName"], format!("{machine_name}-bootstrap-data"));
        assert_eq!(machine["spec"]["infrastructureRef"]["kind"], "VSphereMachine");
        for (group, plural, template) in [
            ("infrastructure.cluster.x-k8s.io", "vspheremachines", "VSphereMachineTemplate.infrastructure.cluster.x-k8s.io"),
            ("bootstrap.cluster.x-k8s.io", "talosconfigs", "TalosConfigTemplate.bootstrap.cluster.x-k8s.io"),
        ] {
            let objects = world.all(group, plural);
            let object = objects.iter().find(|object| object["metadata"]["name"] == machine_name).unwrap();
            assert_eq!(object["metadata"]["annotations"]["cluster.x-k8s.io/cloned-from-groupkind"], template);
            let mut labels = object["metadata"]["labels"].clone();
            labels
                .as_object_mut()
                .unwrap()
                .retain(|key, _| key != "cluster.x-k8s.io/set-name" && key != "cluster.x-k8s.io/deployment-name");
            assert_eq!(labels, json!({"cluster.x-k8s.io/cluster-name": CLUSTER, "machine-template-hash": hash, "nodepool": "nodepool-a"}));
            let owners = object["metadata"]["ownerReferences"].as_array().unwrap();
            assert_eq!((owners.len(), &owners[0]["kind"], &owners[0]["uid"]), (1, &json!("Machine"), &machine["metadata"]["uid"]));
        }
    }
    for (group, plural) in
        [("infrastructure.cluster.x-k8s.io", "vspheremachinetemplates"), ("bootstrap.cluster.x-k8s.io", "talosconfigtemplates")]
    {
        let templates = world.all(group, plural);
        let owner = &only(&templates)["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["kind"], &owner["controller"]), (&json!("Cluster"), &Value::Null), "{plural}");
    }
    // A control plane's objects pass from what cloned them to their Machine.
    let control_plane = world.all("infrastructure.cluster.x-k8s.io", "vspheremachines");
    let object = control_plane.iter().find(|object| object["metadata"]["name"] == "vmware-test-controlplane-0").unwrap();
    let owners = object["metadata"]["ownerReferences"].as_array().unwrap();
    assert_eq!((owners.len(), &owners[0]["kind"]), (1, &json!("Machine")));
}

#[tokio::test(start_paused = true)]
async fn a_node_gets_its_identity_and_loses_the_taint() {
    use controllers::workload::Clusters;
    let (world, _) = up(1, 1).await;
    for node in world.workload.nodes(&World::key()) {
        let annotations = node.metadata.annotations.clone().unwrap();
        assert_eq!(annotations["cluster.x-k8s.io/machine"], node.metadata.name.clone().unwrap());
        assert_eq!(annotations["cluster.x-k8s.io/cluster-namespace"], NAMESPACE);
        let spec = node.spec.clone().unwrap();
        assert!(spec.provider_id.unwrap().starts_with("vsphere://"));
        assert_eq!(spec.taints, Some(Vec::new()));
    }
}

#[tokio::test(start_paused = true)]
async fn workers_grow_and_shrink_and_the_marked_one_goes_first() {
    let (world, manifests) = up(1, 2).await;
    let deployment = &manifests[5];
    world.merge(deployment, &json!({"spec": {"replicas": 5}})).await;
    world.pass(30).await;
    assert_eq!(world.phases(), [("Running".to_owned(), 6)].into());
    let victim = world.machines().into_iter().rfind(|machine| machine["metadata"]["labels"]["nodepool"] == "nodepool-a").unwrap();
    let name = victim["metadata"]["name"].as_str().unwrap().to_owned();
    world.merge(&victim, &json!({"metadata": {"annotations": {"cluster.x-k8s.io/delete-machine": ""}}})).await;
    world.merge(deployment, &json!({"spec": {"replicas": 4}})).await;
    world.pass(30).await;
    assert_eq!(world.phases(), [("Running".to_owned(), 5)].into());
    assert!(!world.machines().iter().any(|machine| machine["metadata"]["name"] == name.as_str()));
    assert!(!world.workload.names(&World::key()).contains(&name), "its Node is gone as well");
    assert_eq!(world.all("infrastructure.cluster.x-k8s.io", "vspheremachines").len(), 5);
    world.merge(deployment, &json!({"spec": {"replicas": 0}})).await;
    world.pass(30).await;
    assert_eq!(world.machines().len(), 1);
    assert_eq!(world.workload.names(&World::key()), ["vmware-test-controlplane-0"]);
    let events: Vec<String> =
        world.all("", "events").iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect();
    assert!(events.iter().any(|message| *message == format!("Deleted machine {name:?}")), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_template_replaces_every_worker_and_the_way_back_takes_the_old_set_up_again() {
    let (world, manifests) = up(1, 2).await;
    let uids = |world: &World| -> Vec<Value> { world.machines().iter().map(|machine| machine["metadata"]["uid"].clone()).collect() };
    let before = uids(&world);
    world.merge(&manifests[5], &json!({"spec": {"template": {"spec": {"version": "v1.25.6", "nodeDrainTimeout": "80s"}}}})).await;
    world.pass(60).await;
    assert_eq!(world.phases(), [("Running".to_owned(), 3)].into(), "{}", world.told());
    assert_eq!(uids(&world).iter().filter(|uid| before.contains(uid)).count(), 1, "only the control plane stays");
    let deployment = |world: &World| only(&world.all("cluster.x-k8s.io", "machinedeployments")).clone();
    let revision = |object: &Value| object["metadata"]["annotations"]["machinedeployment.clusters.x-k8s.io/revision"].clone();
    assert_eq!(revision(&deployment(&world)), "2");
    assert_eq!(deployment(&world)["status"]["upToDateReplicas"], 2);
    for (type_, status) in [("RollingOut", "False"), ("MachinesUpToDate", "True"), ("Available", "True"), ("ScalingDown", "False")] {
        assert_eq!(condition(&deployment(&world), type_)["status"], status, "{}", condition(&deployment(&world), type_));
    }
    let worker = world.machines().into_iter().find(|machine| machine["metadata"]["labels"]["nodepool"] == "nodepool-a").unwrap();
    assert_eq!(worker["spec"]["deletion"], json!({"nodeDeletionTimeoutSeconds": 10, "nodeDrainTimeoutSeconds": 80}));
    assert_eq!(worker["spec"]["version"], "v1.25.6");
    // Back: the same set again, under a revision of its own.
    let first = world.all("cluster.x-k8s.io", "machinesets").into_iter().find(|set| revision(set) == "1").unwrap();
    world.merge(&manifests[5], &json!({"spec": {"template": {"spec": {"version": "v1.25.5"}}}})).await;
    world.pass(60).await;
    assert_eq!(world.phases(), [("Running".to_owned(), 3)].into(), "{}", world.told());
    let sets = world.all("cluster.x-k8s.io", "machinesets");
    let again = sets.iter().find(|set| revision(set) == "3").unwrap();
    assert_eq!((&again["metadata"]["uid"], &again["spec"]["replicas"], sets.len()), (&first["metadata"]["uid"], &json!(2), 2));
    assert_eq!(again["metadata"]["annotations"]["machinedeployment.clusters.x-k8s.io/revision-history"], "1");
    // Machines that are older than asked for are replaced as well.
    let before = uids(&world);
    let after = world.now().checked_add(jiff::SignedDuration::from_secs(30)).unwrap().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    world.merge(&manifests[5], &json!({"spec": {"rolloutAfter": after}})).await;
    world.pass(20).await;
    assert_eq!(uids(&world), before, "not before its time");
    world.pass(90).await;
    assert_eq!(uids(&world).iter().filter(|uid| before.contains(uid)).count(), 1, "{}", world.told());
    assert_eq!(revision(&deployment(&world)), "4");
    assert_eq!(world.all("cluster.x-k8s.io", "machinesets").len(), 2, "the history is short");
    world.merge(&manifests[5], &json!({"spec": {"revisionHistoryLimit": 0}})).await;
    world.pass(10).await;
    assert_eq!(world.all("cluster.x-k8s.io", "machinesets").len(), 1, "and as short as the user wants it");
}

#[tokio::test(start_paused = true)]
async fn a_missing_template_is_told_and_its_arrival_goes_on() {
    let world = World::new(1).await;
    world.run();
    let manifests = manifests(1, 2);
    for manifest in manifests.iter().filter(|manifest| manifest["kind"] != "VSphereMachineTemplate") {
        world.create(manifest).await;
    }
    world.pass(60).await;
    assert_eq!(world.machines().len(), 1, "only the control plane's");
    let sets = world.all("cluster.x-k8s.io", "machinesets");
    let created = legacy(only(&sets), "MachinesCreated");
    assert_eq!((&created["status"], &created["reason"]), (&json!("False"), &json!("InfrastructureTemplateCloningFailed")));
    assert_eq!(created["message"], "VSphereMachineTemplate workers-tmpl does not exist");
    world.create(&manifests[3]).await;
    world.pass(10).await;
    assert_eq!(world.phases(), [("Running".to_owned(), 3)].into());
}

#[tokio::test(start_paused = true)]
async fn deleting_the_cluster_takes_workers_then_control_plane_then_infrastructure() {
    let (world, manifests) = up(1, 2).await;
    let before = world.log.entries().len();
    world.delete(&manifests[0]).await;
    world.pass(60).await;
    assert_eq!(world.left(), [""; 0], "{}", world.told());
    let steps: Vec<String> = world.log.entries()[before..]
        .iter()
        .filter(|entry| entry.actor == "cluster" && entry.step.starts_with("delete-"))
        .map(|entry| entry.step.clone())
        .collect();
    assert_eq!(steps, ["delete-machinedeployment", "delete-control-plane", "delete-infrastructure"]);
    assert_eq!(world.workload.names(&World::key()).len(), 3, "the Nodes of a cluster that goes as a whole are left alone");
}

#[tokio::test(start_paused = true)]
async fn deleting_all_files_at_once_leaves_nothing_in_any_order() {
    for turn in 0..7 {
        let (world, mut manifests) = up(1, 2).await;
        manifests.rotate_left(turn);
        for manifest in &manifests {
            world.delete(manifest).await;
        }
        world.pass(60).await;
        assert_eq!(world.left(), [""; 0], "begun with {}:\n{}", manifests[0]["kind"], world.told());
    }
}

#[tokio::test(start_paused = true)]
async fn deleting_the_namespace_leaves_nothing() {
    let (world, _) = up(1, 2).await;
    world.delete(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})).await;
    world.pass(120).await;
    assert_eq!(world.left(), [""; 0], "{}", world.told());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_deleted_while_it_is_made_leaves_nothing() {
    for milliseconds in [0, 1, 2, 5, 10, 50, 500, 1500, 2100, 3000] {
        let world = World::new(milliseconds).await;
        world.run();
        let manifests = manifests(1, 2);
        for manifest in &manifests {
            world.create(manifest).await;
        }
        world.clock.sleep(std::time::Duration::from_millis(milliseconds)).await;
        // The user deletes the templates first, as `kubectl delete -f` of one of several files does.
        for manifest in manifests.iter().filter(|manifest| manifest["kind"].as_str().unwrap().ends_with("Template")) {
            world.delete(manifest).await;
        }
        world.delete(&manifests[0]).await;
        world.pass(60).await;
        assert_eq!(world.left(), [""; 0], "deleted after {milliseconds} ms:\n{}", world.told());
    }
}

#[tokio::test(start_paused = true)]
async fn hooks_hold_a_machine_until_they_are_taken_away() {
    let (world, _) = up(1, 1).await;
    let worker = world.machines().into_iter().find(|machine| machine["metadata"]["labels"]["nodepool"] == "nodepool-a").unwrap();
    let annotation = |key: &str, value: Value| json!({"metadata": {"annotations": {key: value}}});
    let (drain, terminate) = ("pre-drain.delete.hook.machine.cluster.x-k8s.io/a", "pre-terminate.delete.hook.machine.cluster.x-k8s.io/b");
    world.merge(&worker, &annotation(drain, json!("me"))).await;
    world.merge(&worker, &annotation(terminate, json!("me"))).await;
    world.delete(&worker).await;
    world.pass(10).await;
    let find = || world.machines().into_iter().find(|machine| machine["metadata"]["uid"] == worker["metadata"]["uid"]);
    let held = find().unwrap();
    assert_eq!(condition(&held, "Deleting")["reason"], "WaitingForPreDrainHook");
    assert_eq!(held["status"]["phase"], "Deleting");
    assert!(held["status"]["deletion"]["waitForPreDrainHookStartTime"].is_string());
    assert_eq!(legacy(&held, "PreDrainDeleteHookSucceeded")["reason"], "WaitingExternalHook");
    world.merge(&worker, &annotation(drain, Value::Null)).await;
    world.pass(10).await;
    assert_eq!(condition(&find().unwrap(), "Deleting")["reason"], "WaitingForPreTerminateHook");
    assert_eq!(world.all("infrastructure.cluster.x-k8s.io", "vspheremachines").len(), 2, "its machine is still there");
    world.merge(&worker, &annotation(terminate, Value::Null)).await;
    world.pass(20).await;
    assert_eq!(find(), None);
    assert_eq!(world.phases(), [("Running".to_owned(), 2)].into(), "and a new one has taken its place");
}

#[tokio::test(start_paused = true)]
async fn a_workload_cluster_that_is_away_holds_a_deletion_no_longer_than_its_limits() {
    let (world, manifests) = up(1, 1).await;
    let limits = json!({"nodeDrainTimeout": "20s", "nodeVolumeDetachTimeout": "20s"});
    world.merge(&manifests[5], &json!({"spec": {"template": {"spec": limits}}})).await;
    world.pass(1).await;
    world.workload.set_away(&World::key(), true);
    world.pass(1).await;
    let clusters = world.all("cluster.x-k8s.io", "clusters");
    let probe = condition(only(&clusters), "RemoteConnectionProbe");
    assert!(probe["message"].as_str().unwrap().contains("connection refused"), "{probe}");
    world.merge(&manifests[5], &json!({"spec": {"replicas": 0}})).await;
    for expected in ["DrainingNode", "WaitingForVolumeDetach"] {
        world.pass(18).await;
        let machines = world.machines();
        let worker = machines.iter().find(|machine| machine["metadata"]["deletionTimestamp"].is_string()).unwrap();
        let told = condition(worker, "Deleting");
        assert_eq!(told["reason"], expected);
        assert!(told["message"].as_str().unwrap().contains("workload cluster disconnected since"), "{told}");
        world.pass(3).await;
    }
    world.pass(15).await;
    assert_eq!(world.machines().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_while_nothing_changes() {
    let world = World::new(1).await;
    let process = world.start(None);
    for manifest in &manifests(3, 3) {
        world.create(manifest).await;
    }
    world.pass(60).await;
    let (writes, revision) = (process.writes.load(std::sync::atomic::Ordering::SeqCst), world.server.revision());
    world.pass(3600).await;
    assert_eq!(process.writes.load(std::sync::atomic::Ordering::SeqCst), writes, "{:?}", process.seen.lock().unwrap().last());
    assert_eq!(world.server.revision(), revision);
}

#[tokio::test(start_paused = true)]
async fn a_paused_cluster_is_left_alone() {
    let (world, manifests) = up(1, 1).await;
    world.merge(&manifests[0], &json!({"spec": {"paused": true}})).await;
    world.pass(5).await;
    world.merge(&manifests[5], &json!({"spec": {"replicas": 4}})).await;
    world.pass(60).await;
    assert_eq!(world.machines().len(), 2);
    for machine in world.machines() {
        assert_eq!(condition(&machine, "Paused")["status"], "True");
    }
    world.merge(&manifests[0], &json!({"spec": {"paused": false}})).await;
    world.pass(30).await;
    assert_eq!(world.phases(), [("Running".to_owned(), 5)].into());
}

#[tokio::test(start_paused = true)]
async fn manifests_are_applied_once_when_the_cluster_answers() {
    let (world, manifests) = up(1, 1).await;
    world.merge(&manifests[0], &json!({"metadata": {"labels": {"cni": "cilium"}}})).await;
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: kube-system}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n";
    let wrong =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cpi", "namespace": NAMESPACE}, "stringData": {"x": text}});
    let set = json!({"apiVersion": "addons.cluster.x-k8s.io/v1beta1", "kind": "ClusterResourceSet", "metadata": {"name": "cpi", "namespace": NAMESPACE},
        "spec": {"clusterSelector": {"matchLabels": {"cni": "cilium"}}, "resources": [{"kind": "Secret", "name": "cpi"}]}});
    world.create(&set).await;
    world.pass(1).await;
    let told = |world: &World| condition(only(&world.all("addons.cluster.x-k8s.io", "clusterresourcesets")), "ResourcesApplied").clone();
    assert_eq!(told(&world)["message"], "* Secret cpi does not exist");
    world.create(&wrong).await;
    world.pass(1).await;
    assert_eq!(told(&world)["reason"], "WrongSecretType");
    world.delete(&wrong).await;
    world.workload.refuse(Some("namespace kube-system is not there"));
    let mut right = wrong.clone();
    right["type"] = json!("addons.cluster.x-k8s.io/resource-set");
    world.create(&right).await;
    world.pass(5).await;
    assert_eq!(told(&world)["reason"], "ApplyFailed");
    world.workload.refuse(None);
    world.workload.set_away(&World::key(), false);
    world.pass(5).await;
    assert_eq!(told(&world)["status"], "True");
    let bindings = world.all("addons.cluster.x-k8s.io", "clusterresourcesetbindings");
    let entry = &only(&bindings)["spec"]["bindings"][0];
    assert_eq!((&entry["clusterResourceSetName"], &entry["resources"][0]["applied"]), (&json!("cpi"), &json!(true)));
    assert_eq!(world.workload.work().last().unwrap().1, 2);
    world.delete(&set).await;
    world.pass(5).await;
    assert_eq!(world.all("addons.cluster.x-k8s.io", "clusterresourcesetbindings").len(), 0);
    assert_eq!(world.all("addons.cluster.x-k8s.io", "clusterresourcesets").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_node_is_found_when_its_time_is_up_and_its_machine_replaced() {
    let (world, _) = up(1, 3).await;
    let names = world.workload.names(&World::key());
    let worker = names.iter().find(|name| name.contains("workers")).unwrap();
    let machine = |world: &World| world.machines().into_iter().find(|machine| machine["metadata"]["name"] == worker.as_str());
    // Keeps it in sight.
    let hook = "pre-drain.delete.hook.machine.cluster.x-k8s.io/look";
    world.merge(&machine(&world).unwrap(), &json!({"metadata": {"annotations": {hook: ""}}})).await;
    let at = world.now().to_string();
    let bad = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown", "lastTransitionTime": at, "message": "no news"}]}});
    world.workload.change(&World::key(), worker, &bad);
    world.pass(290).await;
    let check = |world: &World| only(&world.all("cluster.x-k8s.io", "machinehealthchecks")).clone();
    assert_eq!((&check(&world)["status"]["currentHealthy"], &check(&world)["status"]["expectedMachines"]), (&json!(2), &json!(3)));
    world.pass(20).await;
    let ill = machine(&world).unwrap();
    assert!(ill["metadata"]["deletionTimestamp"].is_string());
    let asked = condition(&ill, "OwnerRemediated");
    assert_eq!((&asked["status"], &asked["reason"]), (&json!("False"), &json!("MachineDeleting")));
    let told = condition(&ill, "HealthCheckSucceeded");
    assert_eq!((&told["status"], &told["reason"]), (&json!("False"), &json!("UnhealthyNode")));
    assert_eq!(told["message"], "Condition Ready on Node is Unknown for more than 300 s");
    assert_eq!(condition(&check(&world), "RemediationAllowed")["status"], "True");
    assert_eq!(world.machines().len(), 4, "none is made before it is gone");
    world.merge(&ill, &json!({"metadata": {"annotations": {hook: null}}})).await;
    world.pass(60).await;
    assert_eq!((machine(&world), world.machines().len()), (None, 4));
}
