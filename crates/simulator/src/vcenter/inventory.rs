//! The inventory: every managed object, and nothing about who asks.
//!
//! It is the truth of the simulated vCenter. Each change gets the next number of one sequence, which is what a property collector's
//! version is made of. What can be derived (who is in a pool, what lies on a datastore) is derived, and the objects concerned are marked
//! as changed with it. Names are unique within a folder; ids are never used twice.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use runtime::random::Random;
use vsphere_wire::value::ManagedObjectReference;

use super::task::Task;
use super::vm::Vm;

/// A reference to a managed object.
pub type Reference = ManagedObjectReference;

/// A managed object.
#[derive(Clone, Debug)]
pub struct Object {
    pub reference: Reference,
    pub name: String,
    pub parent: Option<Reference>,
    /// The number of its last change.
    pub changed: u64,
    pub kind: Kind,
}

/// What kinds of objects there are, with what is their own.
#[derive(Clone, Debug)]
pub enum Kind {
    Folder { child_types: &'static [&'static str], children: Vec<Reference> },
    Datacenter { vm_folder: Reference, host_folder: Reference, datastore_folder: Reference, network_folder: Reference },
    Cluster { root_pool: Reference, hosts: Vec<Reference> },
    Pool { owner: Reference, children: Vec<Reference> },
    Host { uuid: String },
    Datastore { capacity: u64, browser: Reference },
    Browser,
    Network,
    Portgroup { key: String, switch: Reference, is_uplink: bool },
    Switch { uuid: String },
    Vm(Box<Vm>),
    Snapshot(Snapshot),
    Task(Box<Task>),
}

/// A VM's snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub vm: Reference,
    pub number: i32,
    pub description: String,
    pub created: Timestamp,
    pub before: Option<Reference>,
    /// The VM's devices at that time: its disks' files are those that linked clones build on.
    pub devices: Vec<super::device::Device>,
    pub was_powered_on: bool,
}

/// Something that happened, for people: what vCenter shows as an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub key: i32,
    pub at: Timestamp,
    /// `VmClonedEvent`, `VmPoweredOnEvent`...
    pub kind: &'static str,
    pub message: String,
    pub user: String,
    pub entity: Option<Reference>,
}

/// Every object of one vCenter.
#[derive(Debug)]
pub struct Inventory {
    pub server: String,
    /// Identifies the vCenter.
    pub uuid: String,
    pub root: Reference,
    pub events: Vec<Event>,
    /// Names that running tasks have claimed: folder and name, with the task.
    pub claimed: BTreeMap<(String, String), Reference>,
    /// First class disks by id, with their files: what persistent volumes are.
    pub volumes: BTreeMap<String, String>,
    /// By the number in their ids, which is the order in which they came.
    objects: BTreeMap<u64, Object>,
    sequence: u64,
    next: u64,
    uuids: Random,
    macs: Random,
}

/// Ancestors of each type, nearest first.
const ANCESTORS: [(&str, &[&str]); 10] = [
    ("Folder", &["ManagedEntity"]),
    ("Datacenter", &["ManagedEntity"]),
    ("ClusterComputeResource", &["ComputeResource", "ManagedEntity"]),
    ("ResourcePool", &["ManagedEntity"]),
    ("HostSystem", &["ManagedEntity"]),
    ("Datastore", &["ManagedEntity"]),
    ("Network", &["ManagedEntity"]),
    ("DistributedVirtualPortgroup", &["Network", "ManagedEntity"]),
    ("VmwareDistributedVirtualSwitch", &["DistributedVirtualSwitch", "ManagedEntity"]),
    ("VirtualMachine", &["ManagedEntity"]),
];

/// Whether an object of type `kind` is a `wanted`.
pub fn is_a(kind: &str, wanted: &str) -> bool {
    kind == wanted
        || wanted == "ManagedObject"
        || ANCESTORS.iter().any(|(known, ancestors)| *known == kind && ancestors.contains(&wanted))
        || (wanted == "View" && matches!(kind, "ContainerView" | "ListView"))
        || (wanted == "ManagedObjectView" && matches!(kind, "ContainerView" | "ListView"))
}

/// Whether `kind` is a type that objects of this vCenter can have.
pub fn is_known_type(kind: &str) -> bool {
    const OTHERS: [&str; 27] = [
        "ManagedEntity",
        "ManagedObject",
        "ComputeResource",
        "DistributedVirtualSwitch",
        "OpaqueNetwork",
        "StoragePod",
        "VirtualApp",
        "VirtualMachineSnapshot",
        "Task",
        "HostDatastoreBrowser",
        "ServiceInstance",
        "SessionManager",
        "TaskManager",
        "EventManager",
        "ViewManager",
        "SearchIndex",
        "PropertyCollector",
        "PropertyFilter",
        "ContainerView",
        "ListView",
        "View",
        "ManagedObjectView",
        "AuthorizationManager",
        "CustomFieldsManager",
        "OvfManager",
        "EnvironmentBrowser",
        "HttpNfcLease",
    ];
    ANCESTORS.iter().any(|(known, _)| *known == kind) || OTHERS.contains(&kind)
}

impl Inventory {
    /// An inventory with a root folder.
    pub fn new(server: &str, random: &Random) -> Self {
        let uuids = random.child("uuid");
        let root = Reference::new("Folder", "group-d1");
        let object = Object {
            reference: root.clone(),
            name: "Datacenters".to_owned(),
            parent: None,
            changed: 1,
            kind: Kind::Folder { child_types: &["Folder", "Datacenter"], children: Vec::new() },
        };
        Self {
            server: server.to_owned(),
            uuid: uuids.uuid().to_string(),
            root,
            events: Vec::new(),
            claimed: BTreeMap::new(),
            volumes: BTreeMap::new(),
            objects: BTreeMap::from([(1, object)]),
            sequence: 1,
            next: 1,
            uuids,
            macs: random.child("mac"),
        }
    }

    /// The number of the last change.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A fresh UUID.
    pub fn fresh_uuid(&self) -> String {
        self.uuids.uuid().to_string()
    }

    /// A MAC address of the range that vCenter hands out (00:50:56:80 to bf), used by no adapter.
    pub fn fresh_mac(&self) -> String {
        loop {
            let [first, second, third] = self.macs.bytes::<3>();
            let mac = format!("00:50:56:{:02x}:{second:02x}:{third:02x}", 0x80 | (first & 0x3f));
            let is_taken = self.vms().any(|(_, vm)| vm.nics().any(|nic| nic.mac == mac));
            if !is_taken {
                return mac;
            }
        }
    }

    /// The object, whatever its type.
    pub fn get(&self, reference: &Reference) -> Option<&Object> {
        self.objects.get(&number(reference)).filter(|object| object.reference == *reference)
    }

    /// Marks the object as changed and hands it out for that.
    pub fn change(&mut self, reference: &Reference) -> Option<&mut Object> {
        self.sequence += 1;
        let sequence = self.sequence;
        let object = self.objects.get_mut(&number(reference)).filter(|object| object.reference == *reference)?;
        object.changed = sequence;
        Some(object)
    }

    /// Every object.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    /// Puts a new object of type `kind` into the inventory; its id is `prefix` and a number. The parent folder, if it is one, takes it as child.
    pub fn insert(&mut self, kind: &str, prefix: &str, name: &str, parent: Option<&Reference>, content: Kind) -> Reference {
        self.next += 1;
        self.sequence += 1;
        let reference = Reference::new(kind, format!("{prefix}{}", self.next));
        let object =
            Object { reference: reference.clone(), name: name.to_owned(), parent: parent.cloned(), changed: self.sequence, kind: content };
        self.objects.insert(self.next, object);
        if let Some(Object { kind: Kind::Folder { children, .. } | Kind::Pool { children, .. }, .. }) =
            parent.and_then(|parent| self.change(parent))
        {
            children.push(reference.clone());
        }
        reference
    }

    /// Takes the object out.
    pub fn remove(&mut self, reference: &Reference) -> Option<Object> {
        self.get(reference)?;
        self.sequence += 1;
        let object = self.objects.remove(&number(reference))?;
        if let Some(Object { kind: Kind::Folder { children, .. } | Kind::Pool { children, .. }, .. }) =
            object.parent.as_ref().and_then(|parent| self.change(parent))
        {
            children.retain(|child| child != reference);
        }
        Some(object)
    }

    /// Moves an object to another folder.
    pub fn move_to(&mut self, reference: &Reference, folder: &Reference) {
        let before = self.get(reference).and_then(|object| object.parent.clone());
        if let Some(Object { kind: Kind::Folder { children, .. }, .. }) = before.and_then(|before| self.change(&before)) {
            children.retain(|child| child != reference);
        }
        if let Some(Object { kind: Kind::Folder { children, .. }, .. }) = self.change(folder) {
            children.push(reference.clone());
        }
        if let Some(object) = self.change(reference) {
            object.parent = Some(folder.clone());
        }
    }

    /// The VM.
    pub fn vm(&self, reference: &Reference) -> Option<&Vm> {
        match &self.get(reference)?.kind {
            Kind::Vm(vm) => Some(vm),
            _ => None,
        }
    }

    /// The VM, marked as changed.
    pub fn change_vm(&mut self, reference: &Reference) -> Option<&mut Vm> {
        self.vm(reference)?;
        match &mut self.change(reference)?.kind {
            Kind::Vm(vm) => Some(vm),
            _ => None,
        }
    }

    /// Every VM and template.
    pub fn vms(&self) -> impl Iterator<Item = (&Object, &Vm)> {
        self.objects.values().filter_map(|object| match &object.kind {
            Kind::Vm(vm) => Some((object, vm.as_ref())),
            _ => None,
        })
    }

    /// The task.
    pub fn task(&self, reference: &Reference) -> Option<&Task> {
        match &self.get(reference)?.kind {
            Kind::Task(task) => Some(task),
            _ => None,
        }
    }

    /// The task, marked as changed.
    pub fn change_task(&mut self, reference: &Reference) -> Option<&mut Task> {
        self.task(reference)?;
        match &mut self.change(reference)?.kind {
            Kind::Task(task) => Some(task),
            _ => None,
        }
    }

    /// Every task that is still remembered.
    pub fn tasks(&self) -> impl Iterator<Item = (&Object, &Task)> {
        self.objects.values().filter_map(|object| match &object.kind {
            Kind::Task(task) => Some((object, task.as_ref())),
            _ => None,
        })
    }

    /// The snapshot.
    pub fn snapshot(&self, reference: &Reference) -> Option<&Snapshot> {
        match &self.get(reference)?.kind {
            Kind::Snapshot(snapshot) => Some(snapshot),
            _ => None,
        }
    }

    /// Marks what derives from a VM as changed: its pool, host, datastores and networks.
    pub fn touch_around(&mut self, vm: &Reference) {
        let Some(found) = self.vm(vm) else { return };
        let mut around: BTreeSet<Reference> = found.datastores().into_iter().collect();
        around.extend(found.networks());
        around.extend(found.pool.clone());
        around.insert(found.host.clone());
        for reference in around {
            self.change(&reference);
        }
    }

    /// The objects directly below one, as inventory paths go.
    pub fn children(&self, reference: &Reference) -> Vec<Reference> {
        match self.get(reference).map(|object| &object.kind) {
            Some(Kind::Folder { children, .. } | Kind::Pool { children, .. }) => children.clone(),
            Some(Kind::Datacenter { vm_folder, host_folder, datastore_folder, network_folder }) => {
                vec![vm_folder.clone(), host_folder.clone(), datastore_folder.clone(), network_folder.clone()]
            }
            Some(Kind::Cluster { root_pool, hosts }) => hosts.iter().chain([root_pool]).cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// What a container view over `container` shows: what lies in it, `recursive` or only directly. A pool and a host contain their VMs.
    pub fn contents(&self, container: &Reference, recursive: bool) -> BTreeSet<Reference> {
        let mut found = BTreeSet::new();
        let mut open = vec![container.clone()];
        while let Some(reference) = open.pop() {
            let mut inside = self.children(&reference);
            match reference.kind.as_str() {
                "ResourcePool" => {
                    inside.extend(
                        self.vms().filter(|(_, vm)| vm.pool.as_ref() == Some(&reference)).map(|(object, _)| object.reference.clone()),
                    );
                }
                "HostSystem" => {
                    inside.extend(self.vms().filter(|(_, vm)| vm.host == reference).map(|(object, _)| object.reference.clone()));
                }
                _ => {}
            }
            for child in inside {
                if found.insert(child.clone()) && recursive {
                    open.push(child);
                }
            }
        }
        found
    }

    /// The child with this name (as stored: `%2f` for a slash).
    pub fn child(&self, parent: &Reference, name: &str) -> Option<Reference> {
        self.children(parent).into_iter().find(|child| self.get(child).is_some_and(|object| object.name == name))
    }

    /// Whether the name is free in the folder: no child has it and no running task has claimed it.
    pub fn is_name_free(&self, folder: &Reference, name: &str) -> bool {
        self.child(folder, name).is_none() && !self.claimed.contains_key(&(folder.id.clone(), name.to_owned()))
    }

    /// The inventory path: `/dc1/vm/team/node`.
    pub fn path(&self, reference: &Reference) -> String {
        let mut parts = Vec::new();
        let mut at = self.get(reference);
        while let Some(object) = at {
            let Some(parent) = &object.parent else { break };
            parts.push(object.name.clone());
            at = self.get(parent);
        }
        parts.reverse();
        format!("/{}", parts.join("/"))
    }

    /// The object at an inventory path (`dc1/vm/team/node`, a leading slash is allowed).
    pub fn find_path(&self, path: &str) -> Option<Reference> {
        path.split('/').filter(|part| !part.is_empty()).try_fold(self.root.clone(), |at, part| self.child(&at, part))
    }

    /// The datacenter an object lies in.
    pub fn datacenter_of(&self, reference: &Reference) -> Option<Reference> {
        let mut at = self.get(reference)?;
        loop {
            if matches!(at.kind, Kind::Datacenter { .. }) {
                return Some(at.reference.clone());
            }
            at = self.get(at.parent.as_ref()?)?;
        }
    }

    /// Bytes that the files of VMs take on a datastore.
    pub fn used(&self, datastore: &Reference) -> u64 {
        self.vms().map(|(_, vm)| vm.used_on(datastore)).sum()
    }

    /// Bytes free on a datastore.
    pub fn free(&self, datastore: &Reference) -> u64 {
        match self.get(datastore).map(|object| &object.kind) {
            Some(Kind::Datastore { capacity, .. }) => capacity.saturating_sub(self.used(datastore)),
            _ => 0,
        }
    }

    /// Whether a disk of another VM builds on a file of this one.
    pub fn has_linked_children(&self, vm: &Reference) -> bool {
        let Some(base) = self.vm(vm) else { return false };
        let snapshots = base.snapshots.iter().filter_map(|snapshot| self.snapshot(snapshot));
        let devices = snapshots.flat_map(|snapshot| &snapshot.devices).chain(&base.devices);
        let disks = devices.filter_map(|device| device.disk());
        let files: BTreeSet<&str> = disks.flat_map(|disk| disk.backing.own().map(|backing| backing.file.as_str())).collect();
        let builds = |other: &Vm| {
            let mut foreign = other.disks().flat_map(|disk| disk.backing.chain().filter(|backing| backing.is_foreign));
            foreign.any(|backing| files.contains(backing.file.as_str()))
        };
        self.vms().any(|(object, other)| object.reference != *vm && builds(other))
    }

    /// Remembers what happened. Only the last thousand are kept.
    pub fn event(&mut self, at: Timestamp, kind: &'static str, message: String, user: &str, entity: Option<Reference>) {
        let key = self.events.last().map_or(1, |event| event.key + 1);
        if self.events.len() >= 1000 {
            self.events.remove(0);
        }
        self.events.push(Event { key, at, kind, message, user: user.to_owned(), entity });
    }
}

/// The number at the end of an id. No two objects of the inventory share one.
fn number(reference: &Reference) -> u64 {
    let start = reference.id.rfind(|character: char| !character.is_ascii_digit()).map_or(0, |last| last + 1);
    reference.id.get(start..).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// A name as vCenter stores it: `%`, `/` and `\` escaped.
pub fn stored_name(name: &str) -> String {
    // A name that comes escaped already is taken as it is.
    if name.contains("%2f") || name.contains("%2F") || name.contains("%5c") || name.contains("%25") {
        return name.to_owned();
    }
    name.replace('%', "%25").replace('/', "%2f").replace('\\', "%5c")
}
