//! A real vCenter behind the trait: session, watch, caches.
//!
//! Per machine, from nothing to powered on: two questions for one that is there already, clone, one read (MAC addresses, UUIDs), reconfigure, power on. Everything else is shared or comes with the long poll.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime::clock::Clock;
use runtime::random::Random;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vsphere_wire::AnyValue;
use vsphere_wire::ManagedObjectReference;
use vsphere_wire::machine::VirtualMachineConfigSpec;
use vsphere_wire::method::{
    CancelTask, CloneVm, ContinueRetrievePropertiesEx, Destroy, FindAllByUuid, FindByInventoryPath, PowerOffVm, PowerOnVm, ReconfigureVm,
    RetrievePropertiesEx, ShutdownGuest,
};
use vsphere_wire::property::{ObjectContent, ObjectSpec, PropertyFilterSpec, PropertySpec, RetrieveOptions, Selection, TraversalSpec};
use vsphere_wire::service::{ServiceContent, TaskInfo};

use crate::connection::{Connection, Counters, Transport, Trust, shown_thumbprint};
use crate::error::{Reaction, VSphereError};
use crate::inventory::{self, Placement, PlacementRequest, Site, Template};
use crate::machine::{PROPERTIES, VirtualMachine};
use crate::marker::{Marker, Owner};
use crate::session::Session;
use crate::spec::{CloneRequest, Remarks, clone_spec};
use crate::tree::{Tree, nearest};
use crate::vcenter::{About, Credentials, VCenter};
use crate::watch::{Link, Listeners, Seen, Task, TaskState, Watch};

/// How long a task that the watch does not show yet is waited for before it is asked about.
const TASK_PATIENCE: Duration = Duration::from_secs(5);
/// How often failed clones make the inventory be read anew, at most.
const DOUBT_PAUSE: Duration = Duration::from_secs(30);

/// One vCenter in the name of one account.
#[derive(Debug)]
pub struct Client {
    server: String,
    /// None: there is nothing to verify the server by, or its address cannot be read.
    session: Result<Arc<Session>, VSphereError>,
    transport: Transport,
    watch: Arc<Watch>,
    follower: std::sync::OnceLock<()>,
    inventory: Mutex<Inventory>,
    hosts: std::sync::Mutex<BTreeMap<ManagedObjectReference, String>>,
    clock: Clock,
    token: CancellationToken,
}

#[derive(Debug, Default)]
struct Inventory {
    tree: Option<Arc<Tree>>,
    placements: BTreeMap<PlacementRequest, Arc<Placement>>,
    /// When it was last forgotten because of a clone that failed.
    doubted: Option<Instant>,
}

impl Inventory {
    fn forget(&mut self) {
        self.tree = None;
        self.placements.clear();
    }
}

impl Client {
    /// A client; nothing is asked of the server yet.
    pub fn new(
        credentials: &Credentials,
        trust: Option<&Trust>,
        transport: &Transport,
        counters: &Counters,
        listeners: &Listeners,
        clock: &Clock,
        random: &Random,
    ) -> Self {
        let server = credentials.server.clone();
        let session = match trust {
            None => Err(VSphereError::NoTrust { server: server.clone(), presented: None }),
            Some(trust) => Connection::new(&server, trust, transport, counters.clone())
                .map(|connection| Arc::new(Session::new(connection, &credentials.user, credentials.password.clone(), clock.clone()))),
        };
        Self {
            watch: Arc::new(Watch::new(&server, listeners.clone(), clock.clone(), random.child(&server))),
            server,
            session,
            transport: transport.clone(),
            follower: std::sync::OnceLock::new(),
            inventory: Mutex::default(),
            hosts: std::sync::Mutex::default(),
            clock: clock.clone(),
            token: CancellationToken::new(),
        }
    }

    async fn session(&self) -> Result<&Arc<Session>, VSphereError> {
        match &self.session {
            Ok(session) => Ok(session),
            Err(VSphereError::NoTrust { server, .. }) => {
                let presented = shown_thumbprint(server, &self.transport).await;
                Err(VSphereError::NoTrust { server: server.clone(), presented })
            }
            Err(error) => Err(error.clone()),
        }
    }

    /// Starts following the server, once.
    fn follow(&self) {
        if let Ok(session) = &self.session {
            self.follower.get_or_init(|| {
                tokio::spawn(self.watch.clone().run(session.clone(), self.token.clone()));
            });
            self.watch.nudge();
        }
    }

    /// Completes when the account has signed in for the first time; never, when it is closed before.
    pub async fn signed_in(&self) {
        match &self.session {
            Ok(session) => tokio::select! {
                biased;
                () = self.token.cancelled() => std::future::pending().await,
                () = session.signed_in() => {}
            },
            Err(_) => std::future::pending().await,
        }
    }

    /// Ends the session and the watch for good.
    pub async fn close(&self) {
        self.token.cancel();
        if let Ok(session) = &self.session {
            session.log_out().await;
        }
    }

    async fn retrieve(
        &self,
        action: &str,
        spec: impl Fn(&ServiceContent) -> PropertyFilterSpec,
    ) -> Result<Vec<ObjectContent>, VSphereError> {
        let session = self.session().await?;
        let first = session
            .call(
                || action.to_owned(),
                |content| RetrievePropertiesEx {
                    this: content.property_collector.clone(),
                    specs: vec![spec(content)],
                    options: RetrieveOptions::default(),
                },
            )
            .await?;
        let Some(first) = first else { return Ok(Vec::new()) };
        let mut objects = first.objects;
        let mut token = first.token;
        while let Some(next) = token {
            let page = session
                .call(
                    || action.to_owned(),
                    |content| ContinueRetrievePropertiesEx { this: content.property_collector.clone(), token: next.clone() },
                )
                .await?;
            objects.extend(page.objects);
            token = page.token;
        }
        Ok(objects)
    }

    /// Reads some properties of one object; none when it does not exist.
    async fn read(&self, action: &str, object: &ManagedObjectReference, paths: &[&str]) -> Result<Option<ObjectContent>, VSphereError> {
        let spec = |_: &ServiceContent| PropertyFilterSpec {
            property_sets: vec![PropertySpec {
                kind: object.kind.clone(),
                is_all: None,
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            }],
            object_sets: vec![ObjectSpec { object: object.clone(), is_skipped: Some(false), selections: Vec::new() }],
            report_missing_objects: None,
        };
        match self.retrieve(action, spec).await {
            Ok(objects) => Ok(objects.into_iter().next()),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn tree(&self, inventory: &mut Inventory, is_fresh: bool) -> Result<(Arc<Tree>, bool), VSphereError> {
        if let Some(tree) = inventory.tree.clone().filter(|_| !is_fresh) {
            return Ok((tree, false));
        }
        let root = self.session().await?.current().await?.content.root_folder.clone();
        let objects = self.retrieve("reading the inventory", |content| inventory::tree_spec(&content.root_folder)).await?;
        let tree = Arc::new(Tree::new(&objects, &root));
        inventory.tree = Some(tree.clone());
        Ok((tree, true))
    }

    async fn resolve(&self, inventory: &mut Inventory, request: &PlacementRequest) -> Result<Placement, VSphereError> {
        let root = self.session().await?.current().await?.content.root_folder.clone();
        let (tree, is_fresh) = self.tree(inventory, false).await?;
        let site = match Site::resolve(&tree, &root, request) {
            // Something may have been made since the inventory was read.
            Err(VSphereError::Missing { .. }) if !is_fresh => {
                let (tree, _) = self.tree(inventory, true).await?;
                Site::resolve(&tree, &root, request)?
            }
            other => other?,
        };
        let template = self.template(&site, request).await?;
        Ok(Placement {
            datacenter: site.datacenter,
            datacenter_name: site.datacenter_name,
            folder: site.folder,
            folder_path: site.folder_path,
            pool: site.pool,
            datastore: site.datastore,
            template,
            networks: site.networks,
        })
    }

    async fn template(&self, site: &Site, request: &PlacementRequest) -> Result<Template, VSphereError> {
        let wanted = request.template.as_str();
        let place = format!("datacenter {}", site.datacenter_name);
        let (reference, path) = self.find_template(site, wanted, &place).await?;
        let read = self.read("reading the template", &reference, &inventory::TEMPLATE_PROPERTIES).await?;
        let Some(content) = read else {
            return Err(VSphereError::Missing { what: "template", wanted: wanted.to_owned(), place, near: Vec::new() });
        };
        inventory::template(&content, &path, request.snapshot.as_deref()).map_err(|error| VSphereError::Protocol {
            server: self.server.clone(),
            method: "RetrievePropertiesEx".to_owned(),
            reason: error.to_string(),
        })
    }

    async fn find_template(&self, site: &Site, wanted: &str, place: &str) -> Result<(ManagedObjectReference, String), VSphereError> {
        if let Some(number) = wanted.strip_prefix("vm-")
            && !number.is_empty()
            && number.chars().all(|digit| digit.is_ascii_digit())
        {
            let reference = ManagedObjectReference::new("VirtualMachine", wanted);
            if self.read("looking up the template", &reference, &["name"]).await?.is_some() {
                return Ok((reference, wanted.to_owned()));
            }
        }
        if uuid::Uuid::parse_str(wanted).is_ok()
            && let [one] = self.find_instance(wanted).await?.as_slice()
        {
            return Ok((one.clone(), wanted.to_owned()));
        }
        let path = if wanted.starts_with('/') { wanted.to_owned() } else { format!("{}/vm/{wanted}", site.datacenter_path) };
        if let Some(found) = self.find_path(&path).await?
            && found.kind == "VirtualMachine"
        {
            return Ok((found, path));
        }
        // A name alone may be in any folder.
        let machines = self.retrieve("listing the virtual machines", |_| inventory::machines_spec(&site.vm_folder)).await?;
        let named = |object: &ObjectContent| object.property("name").and_then(AnyValue::text).unwrap_or_default().to_owned();
        let found: Vec<&ObjectContent> = machines.iter().filter(|object| named(object) == wanted).collect();
        match found.as_slice() {
            [one] => Ok((one.object.clone(), wanted.to_owned())),
            [] => {
                let names: Vec<String> = machines.iter().map(named).collect();
                let near = nearest(wanted, &names);
                Err(VSphereError::Missing { what: "template", wanted: wanted.to_owned(), place: place.to_owned(), near })
            }
            several => Err(VSphereError::Ambiguous {
                what: "template",
                wanted: wanted.to_owned(),
                place: place.to_owned(),
                found: several.iter().map(|object| object.object.to_string()).collect(),
            }),
        }
    }

    async fn find_path(&self, path: &str) -> Result<Option<ManagedObjectReference>, VSphereError> {
        let session = self.session().await?;
        let path = path.trim_start_matches('/').to_owned();
        session
            .call(
                || format!("looking up /{path}"),
                |content| FindByInventoryPath { this: search_index(content), inventory_path: path.clone() },
            )
            .await
    }

    /// Forgets the placements: something that was resolved is gone.
    async fn forget_placements(&self) {
        self.inventory.lock().await.forget();
    }

    /// A clone failed; what was resolved for it may be out of date (a snapshot, a datastore, a network). Many that fail together are one reason.
    async fn doubt_placements(&self) {
        let mut inventory = self.inventory.lock().await;
        let now = self.clock.instant();
        if inventory.doubted.is_none_or(|doubted| now.duration_since(doubted) >= DOUBT_PAUSE) {
            inventory.doubted = Some(now);
            inventory.forget();
        }
    }

    /// The machines that carry a marker, as far as it takes to judge it.
    async fn marked(&self, action: &str) -> Result<Vec<(VirtualMachine, Marker)>, VSphereError> {
        let objects = self.retrieve(action, |content| inventory::markers_spec(&content.root_folder)).await?;
        let mut marked = Vec::new();
        for object in objects {
            let machine = VirtualMachine::read(&object).map_err(|error| VSphereError::Protocol {
                server: self.server.clone(),
                method: "RetrievePropertiesEx".to_owned(),
                reason: error.to_string(),
            })?;
            if let Some(marker) = Marker::read(&machine.extra_config) {
                marked.push((machine, marker));
            }
        }
        Ok(marked)
    }

    async fn read_task(&self, task: &ManagedObjectReference) -> Result<Option<Task>, VSphereError> {
        let Some(content) = self.read("reading a task", task, &["info"]).await? else { return Ok(None) };
        let Some(value) = content.property("info") else { return Ok(None) };
        let info: TaskInfo = value.decode().map_err(|error| VSphereError::Protocol {
            server: self.server.clone(),
            method: "RetrievePropertiesEx".to_owned(),
            reason: error.to_string(),
        })?;
        let task = Task::of(task, &info);
        self.watch.put_task(&task);
        Ok(Some(task))
    }
}

fn search_index(content: &ServiceContent) -> ManagedObjectReference {
    content.search_index.clone().unwrap_or_else(|| ManagedObjectReference::new("SearchIndex", "SearchIndex"))
}

#[async_trait]
impl VCenter for Client {
    fn server(&self) -> &str {
        &self.server
    }

    async fn about(&self) -> Result<About, VSphereError> {
        let login = self.session().await?.current().await?;
        let about = &login.content.about;
        Ok(About {
            version: about.version.clone(),
            build: about.build.clone(),
            instance_uuid: about.instance_uuid.clone().unwrap_or_default(),
            full_name: about.full_name.clone(),
        })
    }

    fn link(&self) -> Link {
        self.watch.link()
    }

    async fn place(&self, request: &PlacementRequest) -> Result<Arc<Placement>, VSphereError> {
        let mut inventory = self.inventory.lock().await;
        let placement = match inventory.placements.get(request) {
            Some(known) => known.clone(),
            None => {
                let resolved = Arc::new(self.resolve(&mut inventory, request).await?);
                // A template without snapshot may get one; nothing else tells.
                if resolved.template.snapshot.is_some() {
                    inventory.placements.insert(request.clone(), resolved.clone());
                }
                resolved
            }
        };
        self.watch.want(&placement.folder);
        self.follow();
        Ok(placement)
    }

    async fn find_named(&self, folder_path: &str, name: &str) -> Result<Option<ManagedObjectReference>, VSphereError> {
        let found = self.find_path(&format!("{folder_path}/{}", escape(name))).await?;
        Ok(found.filter(|found| found.kind == "VirtualMachine"))
    }

    async fn find_instance(&self, instance_uuid: &str) -> Result<Vec<ManagedObjectReference>, VSphereError> {
        let session = self.session().await?;
        let uuid = instance_uuid.to_ascii_lowercase();
        session
            .call(
                || format!("looking for instance UUID {uuid}"),
                |content| FindAllByUuid {
                    this: search_index(content),
                    datacenter: None,
                    uuid: uuid.clone(),
                    is_vm_search: true,
                    is_instance_uuid: Some(true),
                },
            )
            .await
    }

    async fn machines_of_cluster(&self, cluster: &str) -> Result<Vec<String>, VSphereError> {
        let marked = self.marked("looking for machines of the cluster").await?;
        let is_it =
            |(machine, marker): &(VirtualMachine, Marker)| marker.owner.cluster == cluster && marker.is_valid_for(&machine.instance_uuid);
        let mut names: Vec<String> = marked.into_iter().filter(is_it).map(|(machine, _)| machine.name).collect();
        names.sort();
        Ok(names)
    }

    async fn machines_of(&self, owner: &Owner) -> Result<Vec<ManagedObjectReference>, VSphereError> {
        let marked = self.marked("looking for machines by their marker").await?;
        Ok(marked.into_iter().filter(|(_, marker)| marker.owner == *owner).map(|(machine, _)| machine.reference).collect())
    }

    async fn machine(&self, machine: &ManagedObjectReference) -> Result<Option<VirtualMachine>, VSphereError> {
        let read = self.read(&format!("reading {}", machine.id), machine, &PROPERTIES).await?;
        read.map(|content| VirtualMachine::read(&content)).transpose().map_err(|error| VSphereError::Protocol {
            server: self.server.clone(),
            method: "RetrievePropertiesEx".to_owned(),
            reason: error.to_string(),
        })
    }

    fn seen(&self, machine: &ManagedObjectReference) -> Option<Seen> {
        self.watch.seen(machine)
    }

    async fn host_name(&self, host: &ManagedObjectReference) -> Result<Option<String>, VSphereError> {
        let known = self.hosts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(host).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let tree = self.inventory.lock().await.tree.clone();
        let mut name = tree.and_then(|tree| tree.node(host).map(|node| node.name.clone()));
        if name.is_none() {
            let content = self.read("reading a host", host, &["name"]).await?;
            name = content.as_ref().and_then(|content| content.property("name")?.text()).map(str::to_owned);
        }
        if let Some(name) = &name {
            self.hosts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(host.clone(), name.clone());
        }
        Ok(name)
    }

    async fn clone_machine(
        &self,
        placement: &Placement,
        request: &CloneRequest,
    ) -> Result<(ManagedObjectReference, Remarks), VSphereError> {
        let (spec, remarks) = clone_spec(request, placement)?;
        let session = self.session().await?;
        let result = session
            .call(
                || format!("cloning {} from {}", request.name, placement.template.path),
                |_| CloneVm {
                    this: placement.template.reference.clone(),
                    folder: placement.folder.clone(),
                    name: escape(&request.name),
                    spec: spec.clone(),
                },
            )
            .await;
        match &result {
            Err(error) if error.reaction() == Reaction::Gone => self.forget_placements().await,
            Err(VSphereError::Fault { .. }) => self.doubt_placements().await,
            _ => {}
        }
        result.map(|task| (task, remarks))
    }

    async fn clones_of(&self, source: &ManagedObjectReference) -> Result<Vec<Task>, VSphereError> {
        let objects = self
            .retrieve("looking for running clones", |content| PropertyFilterSpec {
                property_sets: vec![PropertySpec { kind: "Task".to_owned(), is_all: None, paths: vec!["info".to_owned()] }],
                object_sets: content
                    .task_manager
                    .iter()
                    .map(|manager| ObjectSpec {
                        object: manager.clone(),
                        is_skipped: Some(true),
                        selections: vec![Selection::Traversal(TraversalSpec::along("TaskManager", "recentTask"))],
                    })
                    .collect(),
                report_missing_objects: None,
            })
            .await?;
        let infos = objects.iter().filter_map(|object| {
            let info: TaskInfo = object.property("info")?.decode().ok()?;
            Some(Task::of(&object.object, &info))
        });
        Ok(infos.filter(|task| task.entity.as_ref() == Some(source) && task.what == "VirtualMachine.clone").collect())
    }

    async fn task(&self, task: &ManagedObjectReference) -> Result<Option<Task>, VSphereError> {
        self.follow();
        let mut changes = self.watch.changes();
        let known = async {
            loop {
                if let Some(known) = self.watch.task(task) {
                    return Some(known);
                }
                if matches!(self.watch.link(), Link::Down { .. }) || changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        let shown = match self.watch.has_hidden_tasks() {
            true => self.watch.task(task),
            false => tokio::time::timeout(TASK_PATIENCE, known).await.ok().flatten(),
        };
        let task = match shown {
            Some(known) if known.is_over() || matches!(self.watch.link(), Link::Up) => Some(known),
            // Not shown, or not up to date.
            _ => self.read_task(task).await?,
        };
        let is_failed_clone = |task: &Task| task.what == "VirtualMachine.clone" && matches!(task.state, TaskState::Failed(_));
        if task.as_ref().is_some_and(is_failed_clone) {
            self.doubt_placements().await;
        }
        Ok(task)
    }

    async fn cancel(&self, task: &ManagedObjectReference) -> Result<(), VSphereError> {
        let session = self.session().await?;
        session.call(|| format!("cancelling {}", task.id), |_| CancelTask { this: task.clone() }).await
    }

    async fn reconfigure(
        &self,
        machine: &ManagedObjectReference,
        spec: VirtualMachineConfigSpec,
    ) -> Result<ManagedObjectReference, VSphereError> {
        let session = self.session().await?;
        session.call(|| format!("reconfiguring {}", machine.id), |_| ReconfigureVm { this: machine.clone(), spec: spec.clone() }).await
    }

    async fn power_on(&self, machine: &ManagedObjectReference) -> Result<ManagedObjectReference, VSphereError> {
        let session = self.session().await?;
        session.call(|| format!("powering on {}", machine.id), |_| PowerOnVm { this: machine.clone(), host: None }).await
    }

    async fn power_off(&self, machine: &ManagedObjectReference) -> Result<ManagedObjectReference, VSphereError> {
        let session = self.session().await?;
        session.call(|| format!("powering off {}", machine.id), |_| PowerOffVm { this: machine.clone() }).await
    }

    async fn shut_down_guest(&self, machine: &ManagedObjectReference) -> Result<(), VSphereError> {
        let session = self.session().await?;
        session.call(|| format!("shutting down {}", machine.id), |_| ShutdownGuest { this: machine.clone() }).await
    }

    async fn destroy(&self, machine: &ManagedObjectReference) -> Result<ManagedObjectReference, VSphereError> {
        let session = self.session().await?;
        session.call(|| format!("destroying {}", machine.id), |_| Destroy { this: machine.clone() }).await
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

/// As vCenter stores names.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2f").replace('\\', "%5c")
}
