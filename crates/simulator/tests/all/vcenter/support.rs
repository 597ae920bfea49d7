//! A world with one datacenter, and a client that knows nothing but messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HttpClient;
use runtime::clock::Clock;
use runtime::http::{Connector, client};
use runtime::keys::Prepared;
use runtime::log::Log;
use runtime::net::Dialer;
use runtime::random::Random;
use runtime::tls::{ClientTls, Tls, thumbprint};
use simulator::vcenter::{Datacenter, Network, Site, Template};
use simulator::{Config, Latency, Simulator};
use std::sync::Mutex;
use vsphere_wire::machine::{OptionValue, VirtualMachineCloneSpec, VirtualMachineConfigSpec, VirtualMachineRelocateSpec};
use vsphere_wire::method::*;
use vsphere_wire::property::*;
use vsphere_wire::service::{ServiceContent, TaskInfo, TaskInfoState};
use vsphere_wire::soap::Fault;
use vsphere_wire::{AnyValue, Envelope, ManagedObjectReference as Reference, MethodFault};

pub const SERVER: &str = "172.16.42.222";
pub const USER: &str = "administrator@vsphere.local";
pub const PASSWORD: &str = "p#x 12345";

pub fn site() -> Site {
    let mut site = Site::new(SERVER, USER, PASSWORD);
    let mut datacenter = Datacenter::new("dc1");
    datacenter.add_datastore("datastore5");
    datacenter.add_datastore("datastore6");
    datacenter.add_network("VM Network");
    datacenter.networks.push(Network { name: "pg-talos".to_owned(), switch: Some("dvs1".to_owned()) });
    datacenter.folders.push("team".to_owned());
    datacenter.resource_pools.push("*/Resources".to_owned());
    datacenter.add_template("talos", "v1.4.8", &[10, 10]);
    datacenter.templates.push(Template { name: "bare".to_owned(), talos_version: None, disks_gib: vec![10], has_snapshot: false });
    site.datacenters.push(datacenter);
    site
}

pub fn config(site: Site, latency: Latency) -> Config {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let random = Random::seeded(7);
    let keys = Arc::new(Prepared::new(random.child("keys")));
    let mut config = Config::new(site, clock.clone(), random, Log::keeping(clock.clone()), Tls::clear(clock), keys);
    config.latency = latency;
    config
}

pub struct World {
    pub simulator: Simulator,
    pub log: Log,
    pub hooks: simulator::hooks::Hooks,
    pub clock: Clock,
}

impl World {
    pub async fn start(latency: Latency) -> Self {
        Self::with(config(site(), latency)).await
    }

    pub async fn with(config: Config) -> Self {
        let (log, hooks, clock) = (config.log.clone(), config.hooks.clone(), config.clock.clone());
        Self { simulator: Simulator::start(config).await.unwrap(), log, hooks, clock }
    }

    /// A client that has not signed in.
    pub fn stranger(&self) -> Client {
        let tls = Tls::clear(self.clock.clone());
        Client::new(self.simulator.network(), tls, SERVER, &self.simulator.vcenter_thumbprint())
    }

    /// A client that has.
    pub async fn client(&self) -> Client {
        let client = self.stranger();
        client.login().await.unwrap();
        client
    }

    pub fn steps(&self) -> Vec<String> {
        self.log.entries().iter().map(|entry| format!("{} {}: {}", entry.step, entry.object, entry.result)).collect()
    }
}

/// Why a call failed.
#[derive(Clone, Debug)]
pub enum CallError {
    Fault(Fault),
    Status(u16),
    Broken(String),
}

impl CallError {
    pub fn kind(&self) -> String {
        match self {
            Self::Fault(fault) => fault.kind().to_owned(),
            Self::Status(status) => status.to_string(),
            Self::Broken(_) => "broken".to_owned(),
        }
    }

    pub fn fault(&self) -> MethodFault {
        match self {
            Self::Fault(fault) => fault.method_fault().unwrap().clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Clone)]
pub struct Client {
    http: HttpClient<Connector, Full<Bytes>>,
    uri: String,
    pub cookie: Arc<Mutex<Option<String>>>,
    pub is_verbose: Arc<AtomicBool>,
}

impl Client {
    pub fn new(dialer: Arc<dyn Dialer>, tls: Tls, server: &str, print: &str) -> Self {
        let client_tls = ClientTls { verifier: thumbprint(print), identity: None, server_name: None, alpn: vec![b"http/1.1".to_vec()] };
        Self {
            http: client(Connector::secured(dialer, tls, client_tls)),
            uri: format!("https://{server}/sdk"),
            cookie: Arc::default(),
            is_verbose: Arc::default(),
        }
    }

    pub async fn raw(&self, document: String) -> Result<Envelope, CallError> {
        let mut request = http::Request::post(&self.uri).header("content-type", "text/xml").header("user-agent", "test/1.0");
        if let Some(cookie) = self.cookie.lock().unwrap().clone() {
            request = request.header("cookie", cookie);
        }
        let answer = self.http.request(request.body(Full::new(Bytes::from(document))).unwrap()).await;
        let answer = answer.map_err(|error| CallError::Broken(format!("{error:?}")))?;
        let (status, cookie) = (answer.status(), answer.headers().get("set-cookie").cloned());
        let body = answer.into_body().collect().await.map_err(|error| CallError::Broken(error.to_string()))?.to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        if self.is_verbose.load(Ordering::Relaxed) {
            println!("{text}");
        }
        if let Some(cookie) = cookie {
            let value = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
            *self.cookie.lock().unwrap() = Some(value);
        }
        let Ok(envelope) = Envelope::parse(&text) else { return Err(CallError::Status(status.as_u16())) };
        match envelope.fault().unwrap() {
            Some(fault) => {
                assert_eq!(status.as_u16(), 500);
                Err(CallError::Fault(fault))
            }
            None => {
                assert_eq!(status.as_u16(), 200);
                Ok(envelope)
            }
        }
    }

    pub async fn call<M: Method>(&self, method: M) -> Result<M::Output, CallError> {
        let envelope = self.raw(Envelope::new(request_element(&method)).to_document()).await?;
        Ok(read_response::<M>(&envelope.body).unwrap())
    }

    pub async fn login(&self) -> Result<String, CallError> {
        let this = singleton("SessionManager");
        let session = self.call(Login { this, user_name: USER.to_owned(), password: PASSWORD.to_owned(), locale: None }).await?;
        Ok(session.key)
    }

    pub async fn content(&self) -> ServiceContent {
        self.call(RetrieveServiceContent { this: singleton("ServiceInstance") }).await.unwrap()
    }

    pub async fn at(&self, path: &str) -> Option<Reference> {
        self.call(FindByInventoryPath { this: singleton("SearchIndex"), inventory_path: path.to_owned() }).await.unwrap()
    }

    /// A view of everything.
    pub async fn whole_inventory(&self) -> Reference {
        let container = self.content().await.root_folder;
        let call = CreateContainerView { this: singleton("ViewManager"), container, kinds: Vec::new(), is_recursive: true };
        self.call(call).await.unwrap()
    }

    pub async fn properties(&self, object: &Reference, paths: &[&str]) -> Result<ObjectContent, CallError> {
        let specs = vec![spec(object, paths)];
        let call = RetrievePropertiesEx { this: collector(), specs, options: RetrieveOptions::default() };
        let mut result = self.call(call).await?.unwrap();
        assert_eq!(result.objects.len(), 1);
        Ok(result.objects.remove(0))
    }

    pub async fn property(&self, object: &Reference, path: &str) -> Option<AnyValue> {
        self.properties(object, &[path]).await.unwrap().property(path).cloned()
    }

    pub async fn text(&self, object: &Reference, path: &str) -> String {
        self.property(object, path).await.unwrap_or_else(|| panic!("{path} is unset")).text().unwrap().to_owned()
    }

    pub async fn task_info(&self, task: &Reference) -> TaskInfo {
        self.property(task, "info").await.unwrap().decode().unwrap()
    }

    /// Waits for a task by long polls; its result or the type of its fault.
    pub async fn outcome(&self, task: &Reference) -> Result<Option<Reference>, MethodFault> {
        let own = self.call(CreatePropertyCollector { this: collector() }).await.unwrap();
        let create = CreateFilter { this: own.clone(), spec: spec(task, &["info.state"]), is_partial: false };
        self.call(create).await.unwrap();
        let mut version = None;
        loop {
            let options = Some(WaitOptions { max_wait_seconds: Some(3600), max_object_updates: None });
            let set =
                self.call(WaitForUpdatesEx { this: own.clone(), version, options }).await.unwrap().expect("the task ends within an hour");
            version = Some(set.version.clone());
            let info = self.task_info(task).await;
            match info.state {
                TaskInfoState::Success => {
                    self.call(DestroyPropertyCollector { this: own }).await.unwrap();
                    return Ok(info.result.map(|result| result.decode().unwrap()));
                }
                TaskInfoState::Error => {
                    self.call(DestroyPropertyCollector { this: own }).await.unwrap();
                    return Err(info.error.unwrap().fault);
                }
                _ => {}
            }
        }
    }

    pub async fn clone_task(&self, template: &str, name: &str, linked: bool) -> Result<Reference, CallError> {
        let source = self.at(&format!("dc1/vm/{template}")).await.unwrap();
        let folder = self.at("dc1/vm/team").await.unwrap();
        let snapshot = match linked {
            true => self.property(&source, "snapshot.currentSnapshot").await.map(|value| value.decode().unwrap()),
            false => None,
        };
        let spec = self.clone_spec(snapshot, linked).await;
        self.call(CloneVm { this: source, folder, name: name.to_owned(), spec }).await
    }

    pub async fn clone_spec(&self, snapshot: Option<Reference>, linked: bool) -> VirtualMachineCloneSpec {
        let location = VirtualMachineRelocateSpec {
            datastore: self.at("dc1/datastore/datastore6").await,
            pool: self.at("dc1/host/cluster1/Resources").await,
            disk_move_type: linked.then(|| "createNewChildDiskBacking".to_owned()),
            ..VirtualMachineRelocateSpec::default()
        };
        let config = VirtualMachineConfigSpec {
            instance_uuid: Some("11111111-2222-4333-8444-555555555555".to_owned()),
            cpus: Some(4),
            memory_mib: Some(4096),
            extra_config: vec![OptionValue::text("guestinfo.owner", "me")],
            ..VirtualMachineConfigSpec::default()
        };
        VirtualMachineCloneSpec {
            location,
            is_template: false,
            config: Some(config),
            customization: None,
            is_powered_on: false,
            snapshot,
            with_memory: None,
            tpm_provision_policy: None,
        }
    }
}

pub fn singleton(kind: &str) -> Reference {
    Reference::new(kind, kind)
}

pub fn collector() -> Reference {
    Reference::new("PropertyCollector", "propertyCollector")
}

pub fn spec(object: &Reference, paths: &[&str]) -> PropertyFilterSpec {
    PropertyFilterSpec {
        property_sets: vec![property_set(&object.kind, paths)],
        object_sets: vec![ObjectSpec { object: object.clone(), is_skipped: None, selections: Vec::new() }],
        report_missing_objects: None,
    }
}

pub fn property_set(kind: &str, paths: &[&str]) -> PropertySpec {
    PropertySpec { kind: kind.to_owned(), is_all: None, paths: paths.iter().map(|path| (*path).to_owned()).collect() }
}

/// All VMs of a view.
pub fn view_spec(view: &Reference, paths: &[&str]) -> PropertyFilterSpec {
    PropertyFilterSpec {
        property_sets: vec![property_set("VirtualMachine", paths)],
        object_sets: vec![ObjectSpec {
            object: view.clone(),
            is_skipped: Some(true),
            selections: vec![Selection::Traversal(TraversalSpec::along(&view.kind, "view"))],
        }],
        report_missing_objects: None,
    }
}

pub fn slow() -> Latency {
    Latency::scaled(1.0)
}

pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
