//! SIGKILL at every step: the simulator, which lives on in this process, kills the real binary just before and just after the effect of
//! a call; steps that only touch Kubernetes are killed on their watch event. The same command again must continue, and the verdict is
//! read from the simulator's truth, never from the product's state.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject};
use simulator::Simulator;
use simulator::hooks::{Call, Phase, Verdict};
use talosphere::commands::demo::{Material, own_material};
use talosphere::commands::simulate;
use talosphere::host::pki::Pki;
use talosphere::seams::Seams;
use talosphere::state::StateDirectory;
use tokio::net::TcpListener;

use super::process::{Background, Shell, kill, root};

/// When the process dies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// At the next call of this method, before or after its effect.
    Call(&'static str, &'static str, Phase),
    /// When an object of this kind appears whose name contains the text.
    Object(&'static str, &'static str, &'static str, &'static str),
    /// When one goes.
    Gone(&'static str, &'static str, &'static str, &'static str),
}

use At::{Call as C, Gone as G, Object as O};
use Phase::{After, Before};

/// Whether a call is of this method, or of a Kubernetes verb, by its name or by its HTTP method.
fn is_method(called: &str, wanted: &str) -> bool {
    let http = match wanted {
        "create" => "POST",
        "patch" => "PATCH",
        other => other,
    };
    called.starts_with(wanted) || called == http
}

pub const V: &str = "vcenter";
pub const T: &str = "talos";
const K: &str = "kube";

/// A kill that is waiting for its call.
type Armed = Arc<Mutex<Option<(At, Arc<Mutex<std::process::Child>>)>>>;

/// A simulator in this process, and a shell in which the binary is run against it.
pub struct World {
    pub shell: Shell,
    seams: Seams,
    pub simulator: Arc<Simulator>,
    armed: Armed,
    fired: Arc<AtomicBool>,
    pub kills: usize,
}

impl World {
    pub async fn start(set: &[&str]) -> Self {
        let seams = Seams::of_process().unwrap();
        let mut material: Material = own_material(&seams);
        material.set = set.iter().map(|text| (*text).to_owned()).collect();
        Self::with(material, &root().join("examples"), seams).await
    }

    /// With the example's manifests and another vCenter than they need.
    pub async fn of_site(change: impl FnOnce(&mut simulator::vcenter::Site)) -> Self {
        let seams = Seams::of_process().unwrap();
        let material = own_material(&seams);
        let mut site = material.site().unwrap();
        change(&mut site);
        Self::over(site, material, &root().join("examples"), seams, 0.0).await
    }

    /// Where vCenter takes its time: at 0.1 as much as a real one.
    async fn paced(set: &[&str], speed: f64) -> Self {
        let seams = Seams::of_process().unwrap();
        let mut material: Material = own_material(&seams);
        material.set = set.iter().map(|text| (*text).to_owned()).collect();
        Self::over(material.site().unwrap(), material, &root().join("examples"), seams, speed).await
    }

    /// With these manifests; the files of `folder` are copied to where the shell is.
    pub async fn with(material: Material, folder: &std::path::Path, seams: Seams) -> Self {
        Self::over(material.site().unwrap(), material, folder, seams, 0.0).await
    }

    async fn over(site: simulator::vcenter::Site, material: Material, folder: &std::path::Path, seams: Seams, speed: f64) -> Self {
        let simulator = simulate::start(site, speed, material.neighbours.clone(), &seams).await.unwrap();
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = proxy.local_addr().unwrap();
        tokio::spawn({
            let simulator = simulator.clone();
            async move { simulator.serve_proxy(Box::new(proxy)).await }
        });
        let mut shell = Shell::new();
        for file in ["ipam.yaml", "standard.yaml", "standard.env", "cpi-secrets.yaml"] {
            std::fs::copy(folder.join(file), shell.folder.path().join(file)).unwrap();
        }
        shell.environment.extend([
            ("VSPHERE_USERNAME".to_owned(), material.login.user.clone()),
            ("VSPHERE_PASSWORD".to_owned(), material.login.password.clone()),
            ("VSPHERE_TLS_THUMBPRINT".to_owned(), simulator.vcenter_thumbprint()),
            ("TALOSPHERE_PROXY".to_owned(), format!("http://{address}")),
        ]);
        for assignment in &material.set {
            let (name, value) = assignment.split_once('=').unwrap();
            shell.environment.insert(name.to_owned(), value.to_owned());
        }
        let armed: Armed = Arc::default();
        let fired = Arc::new(AtomicBool::new(false));
        simulator.hooks().on({
            let (armed, fired) = (armed.clone(), fired.clone());
            move |call: &Call| {
                let mut armed = armed.lock().unwrap();
                let is_it = matches!(&*armed, Some((At::Call(face, method, phase), _)) if *face == call.face && is_method(&call.method, method) && *phase == call.phase);
                let Some((_, child)) = armed.take_if(|_| is_it) else { return Verdict::Proceed };
                kill(&child);
                fired.store(true, Ordering::SeqCst);
                // Before the effect means that there is none.
                match call.phase {
                    Phase::Before => Verdict::Fault(if call.face == V { "503" } else { "Unavailable" }.to_owned()),
                    Phase::After => Verdict::Proceed,
                }
            }
        });
        Self { shell, seams, simulator, armed, fired, kills: 0 }
    }

    /// Runs a command once for each kill, then once to its end.
    pub async fn survive(&mut self, arguments: &[&str], kills: &[At]) {
        for at in kills {
            self.die(arguments, at).await;
        }
        let process = self.shell.start(arguments);
        let status = tokio::task::block_in_place(|| process.wait());
        assert!(status.success(), "{arguments:?} after {kills:?}\n{}", process.stderr());
    }

    /// Runs a command until it is killed.
    async fn die(&mut self, arguments: &[&str], at: &At) {
        self.fired.store(false, Ordering::SeqCst);
        let process = self.shell.start(arguments);
        match at {
            At::Call(..) => *self.armed.lock().unwrap() = Some((at.clone(), process.child.clone())),
            At::Object(group, kind, plural, name) => self.kill_on_object(&process, group, kind, plural, name, false).await,
            At::Gone(group, kind, plural, name) => self.kill_on_object(&process, group, kind, plural, name, true).await,
        }
        let status = tokio::task::block_in_place(|| process.wait());
        self.armed.lock().unwrap().take();
        assert!(self.fired.load(Ordering::SeqCst), "{arguments:?} ended ({status}) without {at:?}\n{}", process.stderr());
        self.kills += 1;
        self.check(&format!("{arguments:?} killed at {at:?}"));
    }

    /// Watches the process's own API and kills it when the object is there, or (`is_gone`) goes.
    async fn kill_on_object(&self, process: &Background, group: &str, kind: &str, plural: &str, name: &str, is_gone: bool) {
        let directory = StateDirectory::open(&self.shell.folder.path().join("state")).unwrap();
        let (group, version) = group.rsplit_once('/').map_or(("", group), |(group, version)| (group, version));
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version,
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        let limit = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            assert!(tokio::time::Instant::now() < limit, "{kind} {name} did not appear\n{}", process.stderr());
            if process.child.lock().unwrap().try_wait().unwrap().is_some() {
                return;
            }
            let Some(owner) = directory.owner().filter(|owner| owner.process == process.child.lock().unwrap().id()) else {
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            };
            let Ok(client) = Pki::open(&directory, &self.seams).await.and_then(|pki| pki.client(&owner.address, &self.seams)) else {
                continue;
            };
            let api: kube::Api<DynamicObject> = kube::Api::all_with(client, &resource);
            let Ok(list) = api.list(&kube::api::ListParams::default()).await else { continue };
            let is_there = |object: &DynamicObject| object.metadata.name.as_deref().is_some_and(|found| found.contains(name));
            if is_gone || !list.items.iter().any(is_there) {
                let version = list.metadata.resource_version.unwrap_or_default();
                let Ok(stream) = api.watch(&kube::api::WatchParams::default(), &version).await else { continue };
                let mut stream = std::pin::pin!(stream);
                let appeared = async {
                    while let Some(Ok(event)) = futures::StreamExt::next(&mut stream).await {
                        use kube::api::WatchEvent::{Added, Deleted, Modified};
                        let is_it = match &event {
                            Added(object) | Modified(object) => !is_gone && is_there(object),
                            Deleted(object) => is_gone && is_there(object),
                            _ => false,
                        };
                        if is_it {
                            return true;
                        }
                    }
                    false
                };
                if !tokio::time::timeout_at(limit, appeared).await.unwrap_or(false) {
                    continue;
                }
            }
            kill(&process.child);
            self.fired.store(true, Ordering::SeqCst);
            return;
        }
    }

    /// What must hold at any time.
    fn check(&self, when: &str) {
        let truth = self.simulator.truth();
        let marked: Vec<_> = truth.vms.iter().filter(|vm| !vm.is_template).collect();
        for vm in &marked {
            assert!(vm.extra_config.contains_key("guestinfo.talosphere.machine"), "{when}: VM {} has no marker", vm.name);
        }
        let mut machines: Vec<&String> = marked.iter().filter_map(|vm| vm.extra_config.get("guestinfo.talosphere.machine")).collect();
        machines.sort();
        let all = machines.len();
        machines.dedup();
        assert_eq!(machines.len(), all, "{when}: two VMs for one Machine");
        assert!(truth.address_conflicts.is_empty(), "{when}: {:?}", truth.address_conflicts);
        assert!(truth.nodes.etcd.len() <= 1, "{when}: {} etcd clusters", truth.nodes.etcd.len());
    }

    /// What must hold at rest.
    pub fn rest(&self, when: &str, machines: usize) {
        self.check(when);
        let truth = self.simulator.truth();
        let names: Vec<&str> = truth.vms.iter().filter(|vm| !vm.is_template).map(|vm| vm.name.as_str()).collect();
        assert_eq!(names.len(), machines, "{when}: {names:?}");
    }
}

pub const UP: &[&str] = &[
    "up",
    "-f",
    "ipam.yaml",
    "-f",
    "standard.yaml",
    "--workload",
    "cpi-secrets.yaml",
    "--env",
    "standard.env",
    "-n",
    "team",
    "--timeout",
    "90s",
];

const DELETE: &[&str] = &["delete", "cluster", "demo", "-n", "team", "--yes", "--timeout", "90s"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_during_a_clone_leaves_no_machine() {
    for is_recorded in [false, true] {
        // A clone takes some fifteen seconds.
        let mut world = World::paced(&["CONTROL_PLANE_MACHINE_COUNT=1", "WORKER_MACHINE_COUNT=0"], 0.05).await;
        let open = |world: &World| world.simulator.vcenter().open_tasks();
        if is_recorded {
            let process = world.shell.start(UP);
            let limit = tokio::time::Instant::now() + Duration::from_secs(60);
            while open(&world) == 0 {
                assert!(tokio::time::Instant::now() < limit, "nothing is cloned\n{}", process.stderr());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // The answer is recorded within moments.
            tokio::time::sleep(Duration::from_secs(1)).await;
            kill(&process.child);
            tokio::task::block_in_place(|| process.wait());
            world.survive(DELETE, &[C(V, "CancelTask", Before), C(V, "CancelTask", After)]).await;
        } else {
            world.die(UP, &C(V, "CloneVM_Task", After)).await;
            assert_eq!(open(&world), 1, "the clone runs on");
            world.survive(DELETE, &[C(V, "Retrieve", Before), C(V, "Retrieve", After)]).await;
        }
        assert_eq!(open(&world), 0, "is_recorded {is_recorded}");
        world.rest("after deletion", 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_while_a_volume_is_detached_leaves_the_volume_alone() {
    let mut world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=1", "WORKER_MACHINE_COUNT=0"]).await;
    world.survive(UP, &[]).await;
    let person = world.simulator.vcenter().person();
    let name = world.simulator.truth().vms.iter().find(|vm| !vm.is_template).unwrap().name.clone();
    person.attach_volume(&person.find(&name).unwrap(), 1).unwrap();
    world.survive(DELETE, &[C(V, "ReconfigVM_Task", Before), C(V, "ReconfigVM_Task", After)]).await;
    world.rest("after deletion", 0);
    assert_eq!(world.simulator.vcenter().volumes().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_step_is_harmless() {
    let mut world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=3", "WORKER_MACHINE_COUNT=2"]).await;
    world
        .survive(
            UP,
            &[
                O("v1", "Namespace", "namespaces", "team"),
                O("v1", "Secret", "secrets", "demo"),
                O("cluster.x-k8s.io/v1beta2", "Cluster", "clusters", "demo"),
                O("v1", "Secret", "secrets", "demo-talos"),
                O("cluster.x-k8s.io/v1beta2", "MachineSet", "machinesets", "demo-workers"),
                O("cluster.x-k8s.io/v1beta2", "Machine", "machines", "demo"),
                O("infrastructure.cluster.x-k8s.io/v1beta2", "VSphereVM", "vspherevms", "demo"),
                O("ipam.cluster.x-k8s.io/v1beta2", "IPAddressClaim", "ipaddressclaims", "demo"),
                O("ipam.cluster.x-k8s.io/v1beta2", "IPAddress", "ipaddresses", "demo"),
                O("v1", "Secret", "secrets", "bootstrap-data"),
                C(V, "CloneVM_Task", Before),
                C(V, "CloneVM_Task", After),
                C(V, "ReconfigVM_Task", Before),
                C(V, "ReconfigVM_Task", After),
                C(V, "PowerOnVM_Task", Before),
                C(V, "PowerOnVM_Task", After),
            ],
        )
        .await;
    world.rest("after up", 5);
    let scale =
        |replicas: &'static str| ["scale", "machinedeployment/demo-workers", "--replicas", replicas, "-n", "team", "--timeout", "90s"];
    world
        .survive(
            &scale("3"),
            &[
                C(V, "CloneVM_Task", Before),
                C(V, "CloneVM_Task", After),
                C(V, "ReconfigVM_Task", Before),
                C(V, "ReconfigVM_Task", After),
                C(V, "PowerOnVM_Task", Before),
                C(V, "PowerOnVM_Task", After),
            ],
        )
        .await;
    world.rest("after scaling up", 6);
    world
        .survive(
            &scale("1"),
            &[C(V, "PowerOffVM_Task", Before), C(V, "PowerOffVM_Task", After), C(V, "Destroy_Task", Before), C(V, "Destroy_Task", After)],
        )
        .await;
    world.rest("after scaling down", 4);
    world
        .survive(
            DELETE,
            &[
                C(V, "PowerOffVM_Task", Before),
                C(V, "PowerOffVM_Task", After),
                C(V, "Destroy_Task", Before),
                C(V, "Destroy_Task", After),
                C(V, "Destroy_Task", After),
            ],
        )
        .await;
    world.rest("after deletion", 0);
    let mut kills = world.kills;
    drop(world);
    // Steps that a bigger world has passed before they can be aimed at.
    for at in [
        C(T, "Bootstrap", Before),
        C(T, "Bootstrap", After),
        C(K, "create", Before),
        C(K, "create", After),
        C(K, "patch", Before),
        C(K, "patch", After),
    ] {
        let mut world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=1", "WORKER_MACHINE_COUNT=1"]).await;
        world.survive(UP, &[at, C(V, "Retrieve", Before)]).await;
        world.rest("after up", 2);
        kills += world.kills;
    }
    // A control plane that grows.
    let mut world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=1", "WORKER_MACHINE_COUNT=0"]).await;
    world.survive(UP, &[]).await;
    let scale = ["scale", "taloscontrolplane/demo-control-plane", "--replicas", "3", "-n", "team", "--timeout", "90s"];
    world
        .survive(
            &scale,
            &[
                C(V, "CloneVM_Task", Before),
                C(V, "CloneVM_Task", After),
                C(V, "ReconfigVM_Task", After),
                C(V, "PowerOnVM_Task", After),
                C(V, "CloneVM_Task", After),
                C(V, "PowerOnVM_Task", Before),
            ],
        )
        .await;
    world.rest("after the control plane grew", 3);
    // It shrinks again: members leave etcd before their machines go.
    let scale = ["scale", "taloscontrolplane/demo-control-plane", "--replicas", "1", "-n", "team", "--timeout", "90s"];
    world
        .survive(
            &scale,
            &[
                C(T, "EtcdLeaveCluster", Before),
                C(T, "EtcdLeaveCluster", After),
                C(V, "PowerOffVM_Task", After),
                C(V, "Destroy_Task", Before),
                G("infrastructure.cluster.x-k8s.io/v1beta2", "VSphereVM", "vspherevms", "demo"),
                G("cluster.x-k8s.io/v1beta2", "Machine", "machines", "demo"),
            ],
        )
        .await;
    world.rest("after the control plane shrank", 1);
    // And all of it goes: steps that only touch Kubernetes.
    world
        .survive(
            DELETE,
            &[
                G("infrastructure.cluster.x-k8s.io/v1beta2", "VSphereVM", "vspherevms", "demo"),
                G("cluster.x-k8s.io/v1beta2", "Cluster", "clusters", "demo"),
            ],
        )
        .await;
    world.rest("after deletion", 0);
    kills += world.kills;
    drop(world);
    // Workers that go one by one, with the claims and objects of each.
    let mut world = World::start(&["CONTROL_PLANE_MACHINE_COUNT=1", "WORKER_MACHINE_COUNT=3"]).await;
    world.survive(UP, &[]).await;
    for (replicas, at) in [
        ("2", G("ipam.cluster.x-k8s.io/v1beta2", "IPAddress", "ipaddresses", "demo")),
        ("1", C(K, "delete", Before)),
        ("2", C(K, "patch", After)),
        ("1", C(K, "delete", After)),
        ("2", C(K, "patch", Before)),
    ] {
        let scale = ["scale", "machinedeployment/demo-workers", "--replicas", replicas, "-n", "team", "--timeout", "90s"];
        world.survive(&scale, &[at]).await;
    }
    world.rest("after the workers went and came", 3);
    // A cluster that is deleted while its machines are being cloned: the clone that nobody recorded is found.
    let up = world.shell.start(UP);
    assert!(tokio::task::block_in_place(|| up.wait()).success());
    let grow = ["scale", "machinedeployment/demo-workers", "--replicas", "4", "-n", "team", "--timeout", "90s"];
    world.die(&grow, &C(V, "CloneVM_Task", After)).await;
    world.survive(DELETE, &[C(V, "Destroy_Task", Before)]).await;
    world.rest("after a deletion in the middle of a clone", 0);
    kills += world.kills;
    assert!(kills >= 60, "{kills} kills");
}
