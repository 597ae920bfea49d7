//! The properties of the inventory's objects, by type.

use super::inventory::{Inventory, Kind, Object, Reference};
use super::machine_properties::{SNAPSHOT, VIRTUAL_MACHINE};
use super::task::TASK;
use super::val::{Look, Member, Members, Segment, Val, read};

fn green() -> Val {
    Val::enumeration("ManagedEntityStatus", "green")
}

/// What every managed entity has.
const ENTITY: Members = &[
    ("name", Member::Leaf(|look| Some(Val::string(&look.object.name)))),
    ("parent", Member::Leaf(|look| look.object.parent.as_ref().map(Val::reference))),
    ("value", Member::Leaf(|_| Some(Val::Array("CustomFieldValue", Vec::new())))),
    ("availableField", Member::Leaf(|_| Some(Val::Array("CustomFieldDef", Vec::new())))),
    ("customValue", Member::Leaf(|_| Some(Val::Array("CustomFieldValue", Vec::new())))),
    ("overallStatus", Member::Leaf(|_| Some(green()))),
    ("configStatus", Member::Leaf(|_| Some(green()))),
    ("configIssue", Member::Leaf(|_| Some(Val::Array("Event", Vec::new())))),
    ("effectiveRole", Member::Leaf(|_| Some(Val::Array("int", vec![Val::int(-1)])))),
    ("permission", Member::Leaf(|_| Some(Val::Array("Permission", Vec::new())))),
    ("disabledMethod", Member::Leaf(|_| Some(Val::strings([""; 0])))),
    ("recentTask", Member::Leaf(|look| Some(Val::references(&look.inventory.recent_tasks(Some(&look.object.reference)))))),
    ("declaredAlarmState", Member::Leaf(|_| Some(Val::Array("AlarmState", Vec::new())))),
    ("triggeredAlarmState", Member::Leaf(|_| Some(Val::Array("AlarmState", Vec::new())))),
    ("alarmActionsEnabled", Member::Leaf(|_| Some(Val::boolean(true)))),
    ("tag", Member::Leaf(|_| Some(Val::Array("Tag", Vec::new())))),
];

const FOLDER: Members = &[
    (
        "childType",
        Member::Leaf(|look| match &look.object.kind {
            Kind::Folder { child_types, .. } => Some(Val::strings(child_types.iter().copied())),
            _ => None,
        }),
    ),
    ("childEntity", Member::Leaf(|look| Some(Val::references(&look.inventory.children(&look.object.reference))))),
];

fn below(look: Look<'_>, pick: fn(&Kind) -> Option<&Reference>) -> Option<Val> {
    pick(&look.object.kind).map(Val::reference)
}

/// The objects of a type in the datacenter that `look` is at or in.
fn in_datacenter(look: Look<'_>, is_wanted: fn(&Kind) -> bool) -> Vec<Reference> {
    let datacenter = look.inventory.datacenter_of(&look.object.reference);
    let is_here = |object: &&Object| is_wanted(&object.kind) && look.inventory.datacenter_of(&object.reference) == datacenter;
    look.inventory.objects().filter(is_here).map(|object| object.reference.clone()).collect()
}

fn datastores(look: Look<'_>) -> Option<Val> {
    Some(Val::references(&in_datacenter(look, |kind| matches!(kind, Kind::Datastore { .. }))))
}

fn networks(look: Look<'_>) -> Option<Val> {
    Some(Val::references(&in_datacenter(look, |kind| matches!(kind, Kind::Network | Kind::Portgroup { .. }))))
}

fn hosts(look: Look<'_>) -> Vec<Reference> {
    match &look.object.kind {
        Kind::Cluster { hosts, .. } => hosts.clone(),
        _ => in_datacenter(look, |kind| matches!(kind, Kind::Host { .. })),
    }
}

/// The VMs that `is_there` says are on the object.
fn vms_with(look: Look<'_>, is_there: fn(&super::vm::Vm, &Reference) -> bool) -> Option<Val> {
    let here = &look.object.reference;
    Some(Val::references(look.inventory.vms().filter(|(_, vm)| is_there(vm, here)).map(|(object, _)| &object.reference)))
}

const DATACENTER: Members = &[
    (
        "vmFolder",
        Member::Leaf(|look| {
            below(look, |kind| match kind {
                Kind::Datacenter { vm_folder, .. } => Some(vm_folder),
                _ => None,
            })
        }),
    ),
    (
        "hostFolder",
        Member::Leaf(|look| {
            below(look, |kind| match kind {
                Kind::Datacenter { host_folder, .. } => Some(host_folder),
                _ => None,
            })
        }),
    ),
    (
        "datastoreFolder",
        Member::Leaf(|look| {
            below(look, |kind| match kind {
                Kind::Datacenter { datastore_folder, .. } => Some(datastore_folder),
                _ => None,
            })
        }),
    ),
    (
        "networkFolder",
        Member::Leaf(|look| {
            below(look, |kind| match kind {
                Kind::Datacenter { network_folder, .. } => Some(network_folder),
                _ => None,
            })
        }),
    ),
    ("datastore", Member::Leaf(datastores)),
    ("network", Member::Leaf(networks)),
    ("configuration", Member::Leaf(|_| None)),
];

const DRS: Members = &[
    ("enabled", Member::Leaf(|_| Some(Val::boolean(true)))),
    ("enableVmBehaviorOverrides", Member::Leaf(|_| Some(Val::boolean(true)))),
    ("defaultVmBehavior", Member::Leaf(|_| Some(Val::enumeration("DrsBehavior", "fullyAutomated")))),
];

const CLUSTER_SUMMARY: Members = &[
    ("totalCpu", Member::Leaf(|look| Some(Val::int(i64::try_from(hosts(look).len()).unwrap_or(0) * 48_000)))),
    ("totalMemory", Member::Leaf(|look| Some(Val::long(hosts(look).len() as u64 * (256 << 30))))),
    ("numHosts", Member::Leaf(|look| Some(Val::short(i16::try_from(hosts(look).len()).unwrap_or(i16::MAX))))),
    ("numEffectiveHosts", Member::Leaf(|look| Some(Val::short(i16::try_from(hosts(look).len()).unwrap_or(i16::MAX))))),
    ("overallStatus", Member::Leaf(|_| Some(green()))),
];

const CLUSTER: Members = &[
    (
        "resourcePool",
        Member::Leaf(|look| {
            below(look, |kind| match kind {
                Kind::Cluster { root_pool, .. } => Some(root_pool),
                _ => None,
            })
        }),
    ),
    ("host", Member::Leaf(|look| Some(Val::references(&hosts(look))))),
    ("datastore", Member::Leaf(datastores)),
    ("network", Member::Leaf(networks)),
    ("summary", Member::Part("ClusterComputeResourceSummary", CLUSTER_SUMMARY)),
    ("environmentBrowser", Member::Leaf(|_| None)),
    ("configurationEx", Member::Part("ClusterConfigInfoEx", &[("drsConfig", Member::Part("ClusterDrsConfigInfo", DRS))])),
    ("configuration", Member::Part("ClusterConfigInfo", &[("drsConfig", Member::Part("ClusterDrsConfigInfo", DRS))])),
];

const POOL: Members = &[
    (
        "owner",
        Member::Leaf(|look| {
            below(look, |kind| match kind {
                Kind::Pool { owner, .. } => Some(owner),
                _ => None,
            })
        }),
    ),
    ("resourcePool", Member::Leaf(|look| Some(Val::references(&look.inventory.children(&look.object.reference))))),
    ("vm", Member::Leaf(|look| vms_with(look, |vm, here| vm.pool.as_ref() == Some(here)))),
    ("summary", Member::Part("ResourcePoolSummary", &[("name", Member::Leaf(|look| Some(Val::string(&look.object.name))))])),
    ("runtime", Member::Leaf(|_| None)),
    ("config", Member::Leaf(|_| None)),
];

const HOST_RUNTIME: Members = &[
    ("connectionState", Member::Leaf(|_| Some(Val::enumeration("HostSystemConnectionState", "connected")))),
    ("powerState", Member::Leaf(|_| Some(Val::enumeration("HostSystemPowerState", "poweredOn")))),
    ("standbyMode", Member::Leaf(|_| Some(Val::string("none")))),
    ("inMaintenanceMode", Member::Leaf(|_| Some(Val::boolean(false)))),
];

const HOST_CONFIG: Members = &[
    ("name", Member::Leaf(|look| Some(Val::string(&look.object.name)))),
    ("port", Member::Leaf(|_| Some(Val::int(443)))),
    ("faultToleranceEnabled", Member::Leaf(|_| Some(Val::boolean(false)))),
];

const HOST_HARDWARE: Members = &[
    ("vendor", Member::Leaf(|_| Some(Val::string("Simulated")))),
    ("model", Member::Leaf(|_| Some(Val::string("Simulated host")))),
    (
        "uuid",
        Member::Leaf(|look| match &look.object.kind {
            Kind::Host { uuid } => Some(Val::string(uuid)),
            _ => None,
        }),
    ),
    ("memorySize", Member::Leaf(|_| Some(Val::long(256_u64 << 30)))),
    ("cpuModel", Member::Leaf(|_| Some(Val::string("Simulated CPU")))),
    ("cpuMhz", Member::Leaf(|_| Some(Val::int(2400)))),
    ("numCpuPkgs", Member::Leaf(|_| Some(Val::short(2)))),
    ("numCpuCores", Member::Leaf(|_| Some(Val::short(20)))),
    ("numCpuThreads", Member::Leaf(|_| Some(Val::short(40)))),
    ("numNics", Member::Leaf(|_| Some(Val::int(2)))),
    ("numHBAs", Member::Leaf(|_| Some(Val::int(2)))),
];

const HOST_SUMMARY: Members = &[
    ("host", Member::Leaf(|look| Some(Val::reference(&look.object.reference)))),
    ("hardware", Member::Part("HostHardwareSummary", HOST_HARDWARE)),
    ("runtime", Member::Part("HostRuntimeInfo", HOST_RUNTIME)),
    ("config", Member::Part("HostConfigSummary", HOST_CONFIG)),
    ("quickStats", Member::Part("HostListSummaryQuickStats", &[("overallCpuUsage", Member::Leaf(|_| Some(Val::int(100))))])),
    ("overallStatus", Member::Leaf(|_| Some(green()))),
    ("rebootRequired", Member::Leaf(|_| Some(Val::boolean(false)))),
];

const HOST: Members = &[
    ("runtime", Member::Part("HostRuntimeInfo", HOST_RUNTIME)),
    ("summary", Member::Part("HostListSummary", HOST_SUMMARY)),
    ("hardware", Member::Leaf(|_| None)),
    ("config", Member::Leaf(|_| None)),
    ("configManager", Member::Leaf(|_| None)),
    ("vm", Member::Leaf(|look| vms_with(look, |vm, here| vm.host == *here))),
    ("datastore", Member::Leaf(datastores)),
    ("network", Member::Leaf(networks)),
];

fn capacity(look: Look<'_>) -> Option<Val> {
    match look.object.kind {
        Kind::Datastore { capacity, .. } => Some(Val::long(capacity)),
        _ => None,
    }
}

fn free_space(look: Look<'_>) -> Option<Val> {
    Some(Val::long(look.inventory.free(&look.object.reference)))
}

fn url(look: Look<'_>) -> Option<Val> {
    Some(Val::string(format!("ds:///vmfs/volumes/{}/", look.object.reference.id)))
}

const DATASTORE_SUMMARY: Members = &[
    ("datastore", Member::Leaf(|look| Some(Val::reference(&look.object.reference)))),
    ("name", Member::Leaf(|look| Some(Val::string(&look.object.name)))),
    ("url", Member::Leaf(url)),
    ("capacity", Member::Leaf(capacity)),
    ("freeSpace", Member::Leaf(free_space)),
    ("uncommitted", Member::Leaf(|_| Some(Val::long(0_i64)))),
    ("accessible", Member::Leaf(|_| Some(Val::boolean(true)))),
    ("multipleHostAccess", Member::Leaf(|_| Some(Val::boolean(true)))),
    ("type", Member::Leaf(|_| Some(Val::string("VMFS")))),
    ("maintenanceMode", Member::Leaf(|_| Some(Val::string("normal")))),
];

const DATASTORE_INFO: Members = &[
    ("name", Member::Leaf(|look| Some(Val::string(&look.object.name)))),
    ("url", Member::Leaf(url)),
    ("freeSpace", Member::Leaf(free_space)),
    ("maxFileSize", Member::Leaf(|_| Some(Val::long(62_u64 << 40)))),
];

fn mounts(look: Look<'_>) -> Option<Val> {
    let info = || {
        Val::data(
            "HostMountInfo",
            [
                ("path", Val::string(format!("/vmfs/volumes/{}", look.object.reference.id))),
                ("accessMode", Val::string("readWrite")),
                ("mounted", Val::boolean(true)),
                ("accessible", Val::boolean(true)),
            ],
        )
    };
    let mount = |host: &Reference| Val::data("DatastoreHostMount", [("key", Val::reference(host)), ("mountInfo", info())]);
    Some(Val::Array("DatastoreHostMount", hosts(look).iter().map(mount).collect()))
}

const DATASTORE: Members = &[
    ("info", Member::Part("VmfsDatastoreInfo", DATASTORE_INFO)),
    ("summary", Member::Part("DatastoreSummary", DATASTORE_SUMMARY)),
    ("host", Member::Leaf(mounts)),
    ("vm", Member::Leaf(|look| vms_with(look, |vm, here| vm.datastores().contains(here)))),
    (
        "browser",
        Member::Leaf(|look| {
            below(look, |kind| match kind {
                Kind::Datastore { browser, .. } => Some(browser),
                _ => None,
            })
        }),
    ),
    ("capability", Member::Leaf(|_| None)),
    ("iormConfiguration", Member::Leaf(|_| None)),
];

const NETWORK_SUMMARY: Members = &[
    ("network", Member::Leaf(|look| Some(Val::reference(&look.object.reference)))),
    ("name", Member::Leaf(|look| Some(Val::string(&look.object.name)))),
    ("accessible", Member::Leaf(|_| Some(Val::boolean(true)))),
    ("ipPoolName", Member::Leaf(|_| Some(Val::string("")))),
];

const NETWORK: Members = &[
    ("summary", Member::Part("NetworkSummary", NETWORK_SUMMARY)),
    ("host", Member::Leaf(|look| Some(Val::references(&hosts(look))))),
    ("vm", Member::Leaf(|look| vms_with(look, |vm, here| vm.networks().contains(here)))),
];

fn portgroup_key(look: Look<'_>) -> Option<Val> {
    match &look.object.kind {
        Kind::Portgroup { key, .. } => Some(Val::string(key)),
        _ => None,
    }
}

const PORTGROUP_CONFIG: Members = &[
    ("key", Member::Leaf(portgroup_key)),
    ("name", Member::Leaf(|look| Some(Val::string(&look.object.name)))),
    ("numPorts", Member::Leaf(|_| Some(Val::int(128)))),
    (
        "distributedVirtualSwitch",
        Member::Leaf(|look| {
            below(look, |kind| match kind {
                Kind::Portgroup { switch, .. } => Some(switch),
                _ => None,
            })
        }),
    ),
    ("type", Member::Leaf(|_| Some(Val::string("earlyBinding")))),
    ("autoExpand", Member::Leaf(|_| Some(Val::boolean(true)))),
    (
        "uplink",
        Member::Leaf(|look| match look.object.kind {
            Kind::Portgroup { is_uplink, .. } => Some(Val::boolean(is_uplink)),
            _ => None,
        }),
    ),
    ("backingType", Member::Leaf(|_| Some(Val::string("standard")))),
];

const PORTGROUP: Members = &[
    ("key", Member::Leaf(portgroup_key)),
    ("config", Member::Part("DVPortgroupConfigInfo", PORTGROUP_CONFIG)),
    ("portKeys", Member::Leaf(|_| Some(Val::strings([""; 0])))),
    ("summary", Member::Part("NetworkSummary", NETWORK_SUMMARY)),
    ("host", Member::Leaf(|look| Some(Val::references(&hosts(look))))),
    ("vm", Member::Leaf(|look| vms_with(look, |vm, here| vm.networks().contains(here)))),
];

fn switch_uuid(look: Look<'_>) -> Option<Val> {
    match &look.object.kind {
        Kind::Switch { uuid } => Some(Val::string(uuid)),
        _ => None,
    }
}

fn portgroups(look: Look<'_>) -> Option<Val> {
    let is_ours = |object: &&Object| matches!(&object.kind, Kind::Portgroup { switch, .. } if *switch == look.object.reference);
    Some(Val::references(look.inventory.objects().filter(is_ours).map(|object| &object.reference)))
}

const SWITCH_SUMMARY: Members = &[
    ("name", Member::Leaf(|look| Some(Val::string(&look.object.name)))),
    ("uuid", Member::Leaf(switch_uuid)),
    ("numPorts", Member::Leaf(|_| Some(Val::int(1024)))),
];

const SWITCH: Members = &[
    ("uuid", Member::Leaf(switch_uuid)),
    ("summary", Member::Part("DVSSummary", SWITCH_SUMMARY)),
    ("portgroup", Member::Leaf(portgroups)),
    ("config", Member::Leaf(|_| None)),
    ("capability", Member::Leaf(|_| None)),
    ("networkResourcePool", Member::Leaf(|_| None)),
    ("runtime", Member::Leaf(|_| None)),
];

const BROWSER: Members = &[
    (
        "datastore",
        Member::Leaf(|look| {
            let is_mine = |object: &&Object| matches!(&object.kind, Kind::Datastore { browser, .. } if *browser == look.object.reference);
            Some(Val::references(look.inventory.objects().filter(is_mine).map(|object| &object.reference)))
        }),
    ),
    ("supportedType", Member::Leaf(|_| None)),
];

/// The members of a type, its own first.
fn tables(kind: &Kind) -> [Members; 2] {
    match kind {
        Kind::Folder { .. } => [FOLDER, ENTITY],
        Kind::Datacenter { .. } => [DATACENTER, ENTITY],
        Kind::Cluster { .. } => [CLUSTER, ENTITY],
        Kind::Pool { .. } => [POOL, ENTITY],
        Kind::Host { .. } => [HOST, ENTITY],
        Kind::Datastore { .. } => [DATASTORE, ENTITY],
        Kind::Network => [NETWORK, ENTITY],
        Kind::Portgroup { .. } => [PORTGROUP, ENTITY],
        Kind::Switch { .. } => [SWITCH, ENTITY],
        Kind::Vm(_) => [VIRTUAL_MACHINE, ENTITY],
        Kind::Browser => [BROWSER, &[]],
        Kind::Snapshot(_) => [SNAPSHOT, &[]],
        Kind::Task(_) => [TASK, &[]],
    }
}

/// The property at a path. `Err(())` when the object's type has no such property.
pub fn property(inventory: &Inventory, object: &Object, path: &[Segment]) -> Result<Option<Val>, ()> {
    let look = Look { inventory, object };
    let [own, common] = tables(&object.kind);
    read(own, look, path).or_else(|()| read(common, look, path))
}

/// The names of all properties of the object's type.
pub fn property_names(object: &Object) -> impl Iterator<Item = &'static str> {
    tables(&object.kind).into_iter().flatten().map(|(name, _)| *name)
}
