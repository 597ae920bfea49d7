//! Bad input: each with its own clear error, and nothing half done.

use super::kills::World;

const UP: &str = "talosphere up -f ipam.yaml -f standard.yaml --env standard.env -n team --timeout 20s";

/// A file of the examples with one text replaced.
fn edit(world: &World, file: &str, from: &str, to: &str) {
    let path = world.shell.folder.path().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} is not in {file}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_has_its_own_error_and_changes_nothing() {
    type Break = fn(&mut World);
    let cases: &[(&str, i32, &[&str], Break)] = &[
        ("an unset variable", 2, &["TS102", "CLUSTER_NAME", "ipam.yaml:"], |world| {
            edit(world, "standard.env", "export CLUSTER_NAME=demo", "")
        }),
        ("broken YAML", 2, &["TS104", "standard.yaml:"], |world| {
            edit(world, "standard.yaml", "  replicas: ${WORKER_MACHINE_COUNT}", "  replicas: [1")
        }),
        ("an unknown field", 2, &["TS110", "unknown field", "replicass"], |world| {
            edit(world, "standard.yaml", "  replicas: ${WORKER_MACHINE_COUNT}", "  replicass: 1");
        }),
        ("a number that is none", 2, &["TS105", "WORKER_MACHINE_COUNT", "an integer"], |world| {
            world.shell.environment.insert("WORKER_MACHINE_COUNT".to_owned(), "three".to_owned());
        }),
        ("a missing template", 1, &["TS404", "template", "no-such-template", "talos-1.9"], |world| {
            world.shell.environment.insert("VSPHERE_TEMPLATE".to_owned(), "no-such-template".to_owned());
        }),
        ("a missing network", 1, &["TS404", "network", "Servers 21"], |world| {
            world.shell.environment.insert("VSPHERE_NETWORK".to_owned(), "Servers 21".to_owned());
        }),
        ("a missing datastore", 1, &["TS404", "datastore", "nvme-02"], |world| {
            world.shell.environment.insert("VSPHERE_DATASTORE".to_owned(), "nvme-02".to_owned());
        }),
        ("a missing folder", 1, &["TS404", "folder", "no-such-folder"], |world| {
            world.shell.environment.insert("VSPHERE_FOLDER".to_owned(), "no-such-folder".to_owned());
        }),
        ("a missing pool", 1, &["TS404", "resource pool", "no-such-pool"], |world| {
            world.shell.environment.insert("VSPHERE_RESOURCE_POOL".to_owned(), "no-such-pool".to_owned());
        }),
        ("a wrong password", 1, &["TS404", "refused the login"], |world| {
            world.shell.environment.insert("VSPHERE_PASSWORD".to_owned(), "wrong-password".to_owned());
        }),
        ("a wrong thumbprint", 1, &["TS404", "00:11:22", "expected"], |world| {
            let wrong = ["00:11:22:33:44"; 4].join(":");
            world.shell.environment.insert("VSPHERE_TLS_THUMBPRINT".to_owned(), wrong);
        }),
        ("no credentials", 2, &["TS301", "VSPHERE_USERNAME"], |world| {
            world.shell.environment.remove("VSPHERE_USERNAME");
        }),
        ("an object of another namespace", 2, &["TS108", "--workload", "kube-system"], |world| {
            std::fs::copy(world.shell.folder.path().join("cpi-secrets.yaml"), world.shell.folder.path().join("standard.yaml")).unwrap();
        }),
    ];
    for (what, code, words, spoil) in cases {
        let mut world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=1", "WORKER_MACHINE_COUNT=0"]).await;
        spoil(&mut world);
        tokio::task::block_in_place(|| {
            let error = world.shell.fails(UP, *code);
            for word in *words {
                assert!(error.contains(word), "{what}: {word} is not in\n{error}");
            }
            assert!(!error.contains("wrong-password") && !error.contains(" created"), "{what}\n{error}");
            // Nothing was applied.
            let listed = world.shell.run("talosphere get clusters -A 2>/dev/null");
            assert!(listed.stdout.is_empty(), "{what}: {}", String::from_utf8_lossy(&listed.stdout));
        });
        world.rest(what, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_another_cluster_holds_is_refused() {
    let mut world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=1", "WORKER_MACHINE_COUNT=0"]).await;
    tokio::task::block_in_place(|| {
        world.shell.ok(UP);
        let addresses: serde_json::Value = serde_json::from_str(&world.shell.ok("talosphere get ipaddress -n team -o json")).unwrap();
        let node = addresses.pointer("/items/0/spec/address").unwrap().as_str().unwrap();
        for (endpoint, words) in
            [("demo.k8s.example.com", "VSphereCluster team/demo has it"), (node, "IPAddressClaim team/demo-control-plane")]
        {
            world.shell.environment.insert("CLUSTER_NAME".to_owned(), "other".to_owned());
            world.shell.environment.insert("CONTROL_PLANE_ENDPOINT".to_owned(), endpoint.to_owned());
            let error = world.shell.fails(UP, 2);
            for word in ["TS111", endpoint, words, "choose an"] {
                assert!(error.contains(word), "{word} is not in\n{error}");
            }
            assert!(!error.contains(" created"), "{error}");
        }
    });
    world.rest("after the refusals", 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linked_clone_needs_a_snapshot() {
    let world = World::of_site(|site| {
        for template in site.datacenters.iter_mut().flat_map(|datacenter| &mut datacenter.templates) {
            template.has_snapshot = false;
        }
    })
    .await;
    tokio::task::block_in_place(|| {
        let error = world.shell.fails(UP, 1);
        for word in ["TS404", "talos-1.9", "snapshot", "linkedClone", "nothing was applied"] {
            assert!(error.contains(word), "{word} is not in\n{error}");
        }
        assert!(!error.contains(" created"), "{error}");
    });
    world.rest("after the refusal", 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_yet_is_said_while_it_is_waited_for() {
    // A pool with one address for two machines: who holds it is named.
    let world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=1", "WORKER_MACHINE_COUNT=2"]).await;
    edit(&world, "ipam.yaml", "10.20.0.101-10.20.0.120", "10.20.0.101");
    tokio::task::block_in_place(|| {
        let error = world.shell.fails(&UP.replace("20s", "5s"), 5);
        assert!(error.contains("TS303") && error.contains("10.20.0.101"), "{error}");
        let tree = world.shell.ok("talosphere describe cluster demo -n team");
        assert!(tree.contains("PoolExhausted") || tree.contains("no free address"), "{tree}");
    });
    // A vCenter that does not answer: it is said, and tried again.
    let mut world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=1", "WORKER_MACHINE_COUNT=0"]).await;
    world.shell.environment.insert("VSPHERE_SERVER".to_owned(), "10.99.99.99".to_owned());
    tokio::task::block_in_place(|| {
        let error = world.shell.fails(&UP.replace("20s", "5s"), 5);
        assert!(error.contains("10.99.99.99") && error.contains("not reachable"), "{error}");
    });
}

#[test]
fn a_state_directory_has_one_owner_and_must_be_usable() {
    let shell = super::process::Shell::new();
    let server = shell.serve();
    let error = shell.fails("talosphere serve", 1);
    assert!(error.contains("TS201") && error.contains("another process"), "{error}");
    server.end();
    let error = shell.fails("talosphere serve --state /proc/nowhere", 1);
    assert!(error.contains("TS202"), "{error}");
    let error = shell.fails("talosphere scale machinedeployment/x --replicas 1 --timeout 80", 2);
    assert!(error.contains("80s"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_another_cluster_holds_keeps_a_cluster_from_beginning() {
    if super::process::kubectl().is_none() {
        return;
    }
    let mut world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=1", "WORKER_MACHINE_COUNT=0"]).await;
    let serve = tokio::task::block_in_place(|| {
        let serve = world.shell.serve();
        world.shell.environment.insert("KUBECONFIG".to_owned(), world.shell.folder.path().join("mgmt.yaml").display().to_string());
        world.shell.ok(UP);
        world.shell.environment.insert("CLUSTER_NAME".to_owned(), "other".to_owned());
        world.shell.ok("talosphere render -f ipam.yaml -f standard.yaml --env standard.env > other.yaml");
        world.shell.ok("kubectl create ns rival");
        world.shell.ok("kubectl create secret generic other -n rival --from-literal=username=\"$VSPHERE_USERNAME\" --from-literal=password=\"$VSPHERE_PASSWORD\"");
        world.shell.ok("kubectl apply -n rival -f other.yaml 2>/dev/null");
        world.shell.ok("kubectl wait -n rival --for=condition=EndpointAvailable=false --timeout=60s vspherecluster/other");
        let why =
            world.shell.ok("kubectl get vspherecluster other -n rival -o jsonpath='{.status.conditions[?(@.type==\"Ready\")].message}'");
        assert!(why.contains("VSphereCluster team/demo") && why.contains("demo.k8s.example.com"), "{why}");
        serve
    });
    world.rest("while the endpoint is another's", 1);
    tokio::task::block_in_place(|| {
        world.shell.environment.remove("CLUSTER_NAME");
        world.shell.ok("talosphere delete cluster demo -n team --yes --timeout 60s");
        world.shell.ok("kubectl wait -n rival --for=condition=Available --timeout=60s cluster/other");
        serve.end();
    });
    world.rest("when it is free", 1);
}
