//! A simulated vCenter and a client's registry over its network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtime::clock::Clock;
use runtime::keys::Prepared;
use runtime::log::Log;
use runtime::random::Random;
use runtime::tls::Tls;
use simulator::Simulator;
use simulator::hooks::{Phase, Verdict};
use simulator::vcenter::{Site, Template};
use simulator::{Config, Latency};
use vsphere::spec::CloneRequest;
use vsphere::{
    Credentials, ManagedObjectReference, Marker, Owner, PlacementRequest, Registry, Secret, TaskState, Transport, VCenter, VCenters,
    Verification,
};

pub const SERVER: &str = "vc.example.org";
pub const USER: &str = "administrator@vsphere.local";
pub const PASSWORD: &str = "right-horse";

pub struct World {
    pub simulator: Simulator,
    pub registry: Registry,
}

pub fn site() -> Site {
    let mut site = Site::new(SERVER, USER, PASSWORD);
    let datacenter = site.datacenter("dc1");
    datacenter.add_datastore("datastore5");
    datacenter.add_datastore("datastore6");
    datacenter.add_network("VM Network");
    datacenter.networks.push(simulator::vcenter::Network { name: "storage".to_owned(), switch: Some("switch-1".to_owned()) });
    datacenter.folders.push("vmware-test".to_owned());
    datacenter.resource_pools.push("*/Resources".to_owned());
    datacenter.add_template("talos", "v1.4.8", &[10, 10]);
    datacenter.templates.push(Template { name: "bare".to_owned(), talos_version: None, disks_gib: vec![5], has_snapshot: false });
    site
}

impl World {
    /// With tasks that take `factor` of their real time.
    pub async fn start(factor: f64) -> Self {
        let clock = Clock::starting_at("2026-03-01T08:00:00Z".parse().unwrap());
        let random = Random::seeded(1);
        let keys = Arc::new(Prepared::new(random.child("keys")));
        let tls = Tls::clear(clock.clone());
        let mut config = Config::new(site(), clock.clone(), random.clone(), Log::keeping(clock.clone()), tls.clone(), keys);
        config.latency = Latency::scaled(factor);
        let simulator = Simulator::start(config).await.unwrap();
        let transport = Transport { dialer: simulator.network(), tls, user_agent: "test".to_owned() };
        let registry = Registry::new(transport, Verification::default(), &clock, &random);
        Self { simulator, registry }
    }

    pub fn credentials(&self) -> Credentials {
        Credentials {
            server: SERVER.to_owned(),
            user: USER.to_owned(),
            password: Secret::new(PASSWORD),
            thumbprint: Some(self.simulator.vcenter_thumbprint()),
        }
    }

    pub fn vcenter(&self) -> Arc<dyn VCenter> {
        self.registry.vcenter(&self.credentials())
    }

    pub fn calls(&self) -> BTreeMap<&'static str, u64> {
        self.registry.counters().by_method()
    }

    pub fn calls_of(&self, method: &str) -> u64 {
        self.calls().get(method).copied().unwrap_or(0)
    }
}

/// Refuses the filter on tasks: the first one of every collector.
pub fn hide_tasks(simulator: &Simulator) {
    let is_first = AtomicBool::new(false);
    simulator.hooks().on(move |call| match (call.method.as_str(), call.phase) {
        ("CreatePropertyCollector", Phase::Before) => {
            is_first.store(true, Ordering::Relaxed);
            Verdict::Proceed
        }
        ("CreateFilter", Phase::Before) if is_first.swap(false, Ordering::Relaxed) => Verdict::Fault("NoPermission".to_owned()),
        _ => Verdict::Proceed,
    });
}

pub fn placement() -> PlacementRequest {
    PlacementRequest {
        datacenter: "dc1".to_owned(),
        folder: "vmware-test".to_owned(),
        datastore: "datastore5".to_owned(),
        resource_pool: "*/Resources".to_owned(),
        template: "talos".to_owned(),
        snapshot: None,
        networks: vec!["VM Network".to_owned()],
    }
}

pub fn owner() -> Owner {
    Owner { installation: "i".to_owned(), cluster: "c".to_owned(), machine: "m".to_owned() }
}

pub fn request(name: &str, number: u32) -> CloneRequest {
    let instance_uuid = format!("5a0052ea-a333-4898-aa41-{number:012}");
    CloneRequest {
        name: name.to_owned(),
        marker: Some(Marker::new(owner(), &instance_uuid)),
        instance_uuid,
        is_linked: true,
        cpus: 2,
        cores_per_socket: None,
        memory_mib: 4096,
        disk_gib: Some(10),
        additional_disks_gib: vec![10],
        data_disks: Vec::new(),
        is_nested: None,
        macs: vec![None],
        extra_config: BTreeMap::new(),
    }
}

/// Waits for a task and gives what came of it.
pub async fn ended(vcenter: &dyn VCenter, task: &ManagedObjectReference) -> TaskState {
    for _ in 0..1000 {
        let known = vcenter.task(task).await.unwrap().unwrap();
        if known.is_over() {
            return known.state;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{task} does not end");
}

/// A machine cloned from the template.
pub async fn cloned(vcenter: &dyn VCenter, name: &str, number: u32) -> ManagedObjectReference {
    let placement = vcenter.place(&placement()).await.unwrap();
    let (task, _) = vcenter.clone_machine(&placement, &request(name, number)).await.unwrap();
    match ended(vcenter, &task).await {
        TaskState::Succeeded(Some(machine)) => machine,
        other => panic!("{other:?}"),
    }
}
