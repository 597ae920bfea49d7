//! The user's own way: kubectl against `serve`, from the namespace to nothing left.

use talosphere::commands::demo::Material;
use talosphere::commands::simulate;
use talosphere::environment::Environment;
use talosphere::seams::Seams;
use talosphere::site::Login;

use super::kills::World;
use super::process::{kubectl, reference};
use super::transcript::Transcript;

/// Starts `serve` and waits until it answers.
fn serve(world: &mut World) -> super::process::Background {
    let process = world.shell.serve();
    let config = world.shell.folder.path().join("mgmt.yaml").display().to_string();
    world.shell.environment.insert("KUBECONFIG".to_owned(), config);
    process
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_does_it_all() {
    if kubectl().is_none() {
        return;
    }
    let mut world = World::start(&["WORKER_MACHINE_COUNT=1"]).await;
    tokio::task::block_in_place(|| {
        let server = serve(&mut world);
        let mut transcript = Transcript::new(&world.shell);
        let shell = &world.shell;
        transcript.add("talosphere serve --kubeconfig mgmt.yaml &", "", "");
        transcript.ok(shell, "talosphere render -f ipam.yaml -f standard.yaml --env standard.env > cluster.yaml");
        shell.ok("kubectl create secret generic demo --from-literal=username=$VSPHERE_USERNAME --from-literal=password=$VSPHERE_PASSWORD --dry-run=client -o yaml > secret.yaml");
        transcript.ok(shell, "kubectl create ns team");
        transcript.ok(shell, "kubectl apply -n team -f secret.yaml -f cluster.yaml 2>/dev/null");
        transcript.ok(shell, "kubectl wait -n team --for=condition=Available --timeout=120s cluster/demo machinedeployment/demo-workers");
        transcript.ok(shell, "kubectl get cluster,machine,vspherevm -A");
        shell.ok("kubectl get pods -A");
        let name = shell.ok("kubectl get talosconfig -n team -o name | grep control-plane | head -1");
        let config = shell.ok(&format!("kubectl get {} -n team -o jsonpath='{{.status.talosConfig}}'", name.trim()));
        assert!(config.contains("context: demo") && config.contains("endpoints:"), "{config}");
        shell.ok("kubectl describe cluster demo -n team");
        transcript.ok(shell, "kubectl scale -n team machinedeployment/demo-workers --replicas=2");
        transcript
            .ok(shell, "kubectl wait -n team --for=jsonpath='{.status.readyReplicas}'=2 --timeout=120s machinedeployment/demo-workers");
        transcript.ok(shell, "kubectl delete -n team -f secret.yaml -f cluster.yaml 2>/dev/null");
        transcript.ok(shell, "kubectl get cluster,machine,vspherevm,secret -n team");
        transcript.check("kubectl.txt");
        server.end();
    });
    world.rest("after kubectl delete -f of all files", 0);
}

/// The user's files with their own names and addresses, rendered and otherwise unchanged.
async fn reference_world() -> Option<World> {
    let folder = reference("templates/vsphere-standard")?;
    let seams = Seams::of_process().unwrap();
    let read = |name: &str| (name.to_owned(), std::fs::read_to_string(folder.join(name)).unwrap());
    let login = Login { user: "administrator@vsphere.local".to_owned(), password: "p #x: 12345".to_owned() };
    let mut sources = simulate::own_values(&login);
    sources.push(read("standard.env"));
    let neighbours = [read("cpi.yaml"), read("vm-tools.yaml")].into();
    let material = Material {
        files: vec![read("ipam.yaml"), read("standard.yaml")],
        workload: vec![read("cpi-secrets.yaml")],
        neighbours,
        sources,
        environment: Environment::default(),
        login,
        set: Vec::new(),
    };
    Some(World::with(material, &folder, seams).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_users_own_manifests_run_unchanged_and_go_with_their_namespace() {
    let (Some(_), Some(mut world)) = (kubectl(), reference_world().await) else { return };
    tokio::task::block_in_place(|| {
        let server = serve(&mut world);
        let shell = &world.shell;
        shell.ok("talosphere render -f ipam.yaml -f standard.yaml --env standard.env > cluster.yaml");
        shell.ok("kubectl create ns vmware-test");
        shell.ok("kubectl create secret generic vmware-test -n vmware-test --from-literal=username=\"$VSPHERE_USERNAME\" --from-literal=password=\"$VSPHERE_PASSWORD\"");
        shell.ok("kubectl apply -n vmware-test -f cluster.yaml");
        shell.ok("kubectl wait -n vmware-test --for=condition=Available --timeout=120s cluster/vmware-test");
        shell.ok("kubectl wait -n vmware-test --for=jsonpath='{.status.readyReplicas}'=3 --timeout=120s machinedeployment/vmware-test-workers taloscontrolplane/vmware-test-controlplane");
        let again = shell.ok("kubectl apply -n vmware-test -f cluster.yaml");
        assert!(again.lines().all(|line| line.ends_with("unchanged") || line.ends_with("configured")), "{again}");
        assert!(shell.ok("kubectl get mhc -n vmware-test").contains("vmware-test-worker-hc"));
        shell.ok("kubectl delete ns vmware-test --timeout=120s");
        server.end();
    });
    world.rest("after kubectl delete ns", 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_users_own_manifests_come_up_with_one_command() {
    let Some(world) = reference_world().await else { return };
    tokio::task::block_in_place(|| {
        let shell = &world.shell;
        shell
            .ok("talosphere up -f ipam.yaml -f standard.yaml --workload cpi-secrets.yaml --env standard.env -n vmware-test --timeout 120s");
        let tree = shell.ok("talosphere describe cluster vmware-test -n vmware-test");
        assert!(tree.contains("ready: every Machine runs, every Node is ready"), "{tree}");
        // Nothing changes the second time.
        let again = shell.run(
            "talosphere up -f ipam.yaml -f standard.yaml --workload cpi-secrets.yaml --env standard.env -n vmware-test --timeout 120s",
        );
        let text = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(again.status.success() && !text.contains(" created") && !text.contains(" configured"), "{text}");
        // Nobody says where the cluster is; there is only one of this name.
        let members = shell.ok("talosphere talos -c vmware-test etcd members -o name");
        assert_eq!(members.lines().count(), 9, "{members}");
        // A worker goes, with the pods that the user's own files bring to it.
        shell.ok("talosphere scale machinedeployment/vmware-test-workers --replicas 2 -n vmware-test --timeout 110s");
    });
    world.rest("after up and a scale", 5);
}
