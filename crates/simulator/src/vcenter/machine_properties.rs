//! The properties of a virtual machine and of its snapshots.

use super::device::Device;
use super::inventory::{Inventory, Kind, Reference, Snapshot};
use super::val::{Look, Member, Members, Val};
use super::vm::Vm;
use crate::hypervisor::ToolsReport;

fn vm(look: Look<'_>) -> Option<&Vm> {
    match &look.object.kind {
        Kind::Vm(vm) => Some(vm),
        _ => None,
    }
}

fn tools(look: Look<'_>) -> Option<&ToolsReport> {
    vm(look)?.tools.as_ref()
}

fn power_state(vm: &Vm) -> Val {
    Val::enumeration("VirtualMachinePowerState", if vm.is_powered_on { "poweredOn" } else { "poweredOff" })
}

fn guest_name(vm: &Vm) -> Val {
    Val::string(if vm.guest_id == "other3xLinux64Guest" { "Other 3.x or later Linux (64-bit)" } else { "Other (64-bit)" })
}

fn green() -> Val {
    Val::enumeration("ManagedEntityStatus", "green")
}

const FILES: Members = &[
    ("vmPathName", Member::Leaf(|look| Some(Val::string(&vm(look)?.home)))),
    ("snapshotDirectory", Member::Leaf(directory)),
    ("suspendDirectory", Member::Leaf(directory)),
    ("logDirectory", Member::Leaf(directory)),
];

fn directory(look: Look<'_>) -> Option<Val> {
    let home = &vm(look)?.home;
    Some(Val::string(home.rsplit_once('/').map_or_else(|| home.clone(), |(directory, _)| format!("{directory}/"))))
}

const FLAGS: Members = &[
    ("disableAcceleration", Member::Leaf(|_| Some(Val::boolean(false)))),
    ("enableLogging", Member::Leaf(|_| Some(Val::boolean(true)))),
    ("diskUuidEnabled", Member::Leaf(|look| Some(Val::boolean(vm(look)?.is_disk_uuid_enabled)))),
];

const HARDWARE: Members = &[
    ("numCPU", Member::Leaf(|look| Some(Val::int(vm(look)?.cpus)))),
    ("numCoresPerSocket", Member::Leaf(|look| Some(Val::int(vm(look)?.cores_per_socket)))),
    ("memoryMB", Member::Leaf(|look| Some(Val::int(vm(look)?.memory_mib)))),
    (
        "device",
        Member::Leaf(|look| {
            let vm = vm(look)?;
            Some(Val::Array("VirtualDevice", vm.devices.iter().map(|device| device.val(&vm.devices, vm.is_powered_on)).collect()))
        }),
    ),
];

const CONFIG: Members = &[
    ("changeVersion", Member::Leaf(|look| Some(Val::string(format!("{:.6}", vm(look)?.change_version))))),
    ("modified", Member::Leaf(|look| Some(Val::time(vm(look)?.change_version)))),
    ("name", Member::Leaf(|look| Some(Val::string(&look.object.name)))),
    ("guestFullName", Member::Leaf(|look| Some(guest_name(vm(look)?)))),
    ("version", Member::Leaf(|look| Some(Val::string(&vm(look)?.version)))),
    ("uuid", Member::Leaf(|look| Some(Val::string(&vm(look)?.bios_uuid)))),
    ("createDate", Member::Leaf(|look| Some(Val::time(vm(look)?.created)))),
    ("instanceUuid", Member::Leaf(|look| Some(Val::string(&vm(look)?.instance_uuid)))),
    ("template", Member::Leaf(|look| Some(Val::boolean(vm(look)?.is_template)))),
    ("guestId", Member::Leaf(|look| Some(Val::string(&vm(look)?.guest_id)))),
    ("alternateGuestName", Member::Leaf(|look| vm(look).map(|_| Val::string("")))),
    ("annotation", Member::Leaf(|look| Some(Val::string(&vm(look)?.annotation)))),
    ("files", Member::Part("VirtualMachineFileInfo", FILES)),
    ("flags", Member::Part("VirtualMachineFlagInfo", FLAGS)),
    ("hardware", Member::Part("VirtualHardware", HARDWARE)),
    ("memoryHotAddEnabled", Member::Leaf(|_| Some(Val::boolean(false)))),
    ("cpuHotAddEnabled", Member::Leaf(|_| Some(Val::boolean(false)))),
    (
        "extraConfig",
        Member::Leaf(|look| {
            let option = |(key, value): (&String, &String)| {
                Val::descendant("OptionValue", [("key", Val::string(key)), ("value", Val::Any(Box::new(Val::string(value))))])
            };
            Some(Val::Array("OptionValue", vm(look)?.extra_config.iter().map(option).collect()))
        }),
    ),
    (
        "vAppConfig",
        Member::Leaf(|look| {
            let members = [
                ("eula", Val::strings([""; 0])),
                ("ipAssignment", Val::data("VAppIPAssignmentInfo", [])),
                ("installBootRequired", Val::boolean(false)),
            ];
            vm(look)?.has_vapp_config.then(|| Val::descendant("VmConfigInfo", members))
        }),
    ),
    ("changeTrackingEnabled", Member::Leaf(|_| Some(Val::boolean(false)))),
    ("firmware", Member::Leaf(|look| Some(Val::string(&vm(look)?.firmware)))),
];

const RUNTIME: Members = &[
    ("host", Member::Leaf(|look| Some(Val::reference(&vm(look)?.host)))),
    ("connectionState", Member::Leaf(|_| Some(Val::enumeration("VirtualMachineConnectionState", "connected")))),
    ("powerState", Member::Leaf(|look| Some(power_state(vm(look)?)))),
    ("faultToleranceState", Member::Leaf(|_| Some(Val::enumeration("VirtualMachineFaultToleranceState", "notConfigured")))),
    ("toolsInstallerMounted", Member::Leaf(|_| Some(Val::boolean(false)))),
    ("suspendTime", Member::Leaf(|_| None)),
    ("bootTime", Member::Leaf(|look| vm(look)?.boot_time.map(Val::time))),
    ("question", Member::Leaf(|_| None)),
    ("maxCpuUsage", Member::Leaf(|look| Some(Val::int(vm(look)?.cpus.saturating_mul(2400))))),
    ("maxMemoryUsage", Member::Leaf(|look| Some(Val::int(vm(look)?.memory_mib)))),
    ("numMksConnections", Member::Leaf(|_| Some(Val::int(0)))),
    ("recordReplayState", Member::Leaf(|_| Some(Val::enumeration("VirtualMachineRecordReplayState", "inactive")))),
    ("consolidationNeeded", Member::Leaf(|_| Some(Val::boolean(false)))),
];

fn tools_status(look: Look<'_>) -> Option<Val> {
    Some(Val::enumeration("VirtualMachineToolsStatus", if tools(look).is_some() { "toolsOk" } else { "toolsNotRunning" }))
}

fn tools_version_status(_: Look<'_>) -> Option<Val> {
    Some(Val::string("guestToolsUnmanaged"))
}

fn tools_running(look: Look<'_>) -> Option<Val> {
    Some(Val::string(if tools(look).is_some() { "guestToolsRunning" } else { "guestToolsNotRunning" }))
}

fn host_name(look: Look<'_>) -> Option<Val> {
    tools(look).map(|tools| Val::string(&tools.host_name))
}

/// The address without its prefix length.
fn bare(address: &str) -> &str {
    address.split_once('/').map_or(address, |(address, _)| address)
}

fn first_address(look: Look<'_>) -> Option<Val> {
    let is_usable = |address: &&String| !address.starts_with("fe80:") && !address.starts_with("169.254.");
    tools(look)?.nets.iter().flat_map(|(_, addresses)| addresses).find(is_usable).map(|address| Val::string(bare(address)))
}

fn guest_nets(look: Look<'_>) -> Option<Val> {
    let vm = vm(look)?;
    let report = vm.tools.as_ref()?;
    let net = |(mac, addresses): &(String, Vec<String>)| {
        let device = vm.devices.iter().find(|device| device.nic().is_some_and(|nic| nic.mac == *mac));
        let network =
            device.and_then(Device::nic).and_then(|nic| look.inventory.get(nic.port.network())).map(|network| network.name.clone());
        let mut members = Vec::new();
        if let Some(network) = network {
            members.push(("network", Val::string(network)));
        }
        members.push(("ipAddress", Val::strings(addresses.iter().map(|address| bare(address)))));
        members.push(("macAddress", Val::string(mac)));
        members.push(("connected", Val::boolean(true)));
        members.push(("deviceConfigId", Val::int(device.map_or(-1, |device| device.key))));
        let one = |address: &String| {
            let prefix = address.split_once('/').and_then(|(_, prefix)| prefix.parse::<i32>().ok());
            let default = if address.contains(':') { 64 } else { 24 };
            Val::data(
                "NetIpConfigInfoIpAddress",
                [
                    ("ipAddress", Val::string(bare(address))),
                    ("prefixLength", Val::int(prefix.unwrap_or(default))),
                    ("state", Val::string("preferred")),
                ],
            )
        };
        let addresses = Val::Array("NetIpConfigInfoIpAddress", addresses.iter().map(one).collect());
        members.push(("ipConfig", Val::data("NetIpConfigInfo", [("ipAddress", addresses)])));
        Val::data("GuestNicInfo", members)
    };
    Some(Val::Array("GuestNicInfo", report.nets.iter().map(net).collect()))
}

const GUEST: Members = &[
    ("toolsStatus", Member::Leaf(tools_status)),
    ("toolsVersionStatus", Member::Leaf(tools_version_status)),
    ("toolsVersionStatus2", Member::Leaf(tools_version_status)),
    ("toolsRunningStatus", Member::Leaf(tools_running)),
    ("toolsVersion", Member::Leaf(|look| tools(look).map(|_| Val::string("12389")))),
    ("guestId", Member::Leaf(|look| tools(look).and_then(|_| vm(look)).map(|vm| Val::string(&vm.guest_id)))),
    ("guestFamily", Member::Leaf(|look| tools(look).map(|_| Val::string("linuxGuest")))),
    ("guestFullName", Member::Leaf(|look| tools(look).and_then(|_| vm(look)).map(guest_name))),
    ("hostName", Member::Leaf(host_name)),
    ("ipAddress", Member::Leaf(first_address)),
    ("net", Member::Leaf(guest_nets)),
    ("guestState", Member::Leaf(|look| Some(Val::string(if tools(look).is_some() { "running" } else { "notRunning" })))),
    ("appHeartbeatStatus", Member::Leaf(|_| Some(Val::string("appStatusGray")))),
    ("guestOperationsReady", Member::Leaf(|look| Some(Val::boolean(tools(look).is_some())))),
    ("guestStateChangeSupported", Member::Leaf(|look| Some(Val::boolean(tools(look).is_some())))),
];

const SUMMARY_GUEST: Members = &[
    ("guestId", Member::Leaf(|look| Some(Val::string(&vm(look)?.guest_id)))),
    ("guestFullName", Member::Leaf(|look| Some(guest_name(vm(look)?)))),
    ("toolsStatus", Member::Leaf(tools_status)),
    ("toolsVersionStatus", Member::Leaf(tools_version_status)),
    ("toolsVersionStatus2", Member::Leaf(tools_version_status)),
    ("toolsRunningStatus", Member::Leaf(tools_running)),
    ("hostName", Member::Leaf(host_name)),
    ("ipAddress", Member::Leaf(first_address)),
];

fn count(number: usize) -> Val {
    Val::int(i32::try_from(number).unwrap_or(i32::MAX))
}

const SUMMARY_CONFIG: Members = &[
    ("name", Member::Leaf(|look| Some(Val::string(&look.object.name)))),
    ("template", Member::Leaf(|look| Some(Val::boolean(vm(look)?.is_template)))),
    ("vmPathName", Member::Leaf(|look| Some(Val::string(&vm(look)?.home)))),
    ("memorySizeMB", Member::Leaf(|look| Some(Val::int(vm(look)?.memory_mib)))),
    ("cpuReservation", Member::Leaf(|_| Some(Val::int(0)))),
    ("memoryReservation", Member::Leaf(|_| Some(Val::int(0)))),
    ("numCpu", Member::Leaf(|look| Some(Val::int(vm(look)?.cpus)))),
    ("numEthernetCards", Member::Leaf(|look| Some(count(vm(look)?.nics().count())))),
    ("numVirtualDisks", Member::Leaf(|look| Some(count(vm(look)?.disks().count())))),
    ("uuid", Member::Leaf(|look| Some(Val::string(&vm(look)?.bios_uuid)))),
    ("instanceUuid", Member::Leaf(|look| Some(Val::string(&vm(look)?.instance_uuid)))),
    ("guestId", Member::Leaf(|look| Some(Val::string(&vm(look)?.guest_id)))),
    ("guestFullName", Member::Leaf(|look| Some(guest_name(vm(look)?)))),
    ("annotation", Member::Leaf(|look| Some(Val::string(&vm(look)?.annotation)))),
    ("installBootRequired", Member::Leaf(|_| Some(Val::boolean(false)))),
];

fn committed(vm: &Vm) -> u64 {
    vm.datastores().iter().map(|datastore| vm.used_on(datastore)).sum()
}

const SUMMARY_STORAGE: Members = &[
    ("committed", Member::Leaf(|look| Some(Val::long(committed(vm(look)?))))),
    ("uncommitted", Member::Leaf(|look| Some(Val::long(vm(look)?.disks().map(|disk| disk.capacity).sum::<u64>())))),
    ("unshared", Member::Leaf(|look| Some(Val::long(committed(vm(look)?))))),
    ("timestamp", Member::Leaf(|look| Some(Val::time(vm(look)?.change_version)))),
];

const QUICK_STATS: Members = &[
    ("overallCpuUsage", Member::Leaf(|_| Some(Val::int(0)))),
    ("guestMemoryUsage", Member::Leaf(|_| Some(Val::int(0)))),
    ("hostMemoryUsage", Member::Leaf(|_| Some(Val::int(0)))),
    ("guestHeartbeatStatus", Member::Leaf(|_| Some(Val::enumeration("ManagedEntityStatus", "gray")))),
];

const SUMMARY: Members = &[
    ("vm", Member::Leaf(|look| Some(Val::reference(&look.object.reference)))),
    ("runtime", Member::Part("VirtualMachineRuntimeInfo", RUNTIME)),
    ("guest", Member::Part("VirtualMachineGuestSummary", SUMMARY_GUEST)),
    ("config", Member::Part("VirtualMachineConfigSummary", SUMMARY_CONFIG)),
    ("storage", Member::Part("VirtualMachineStorageSummary", SUMMARY_STORAGE)),
    ("quickStats", Member::Part("VirtualMachineQuickStats", QUICK_STATS)),
    ("overallStatus", Member::Leaf(|_| Some(green()))),
];

fn snapshot_tree(inventory: &Inventory, of: &Reference, snapshot: &Snapshot, all: &[Reference]) -> Option<Val> {
    let object = inventory.get(of)?;
    let children = all.iter().filter_map(|child| {
        let below = inventory.snapshot(child)?;
        if below.before.as_ref() == Some(of) { snapshot_tree(inventory, child, below, all) } else { None }
    });
    let power = if snapshot.was_powered_on { "poweredOn" } else { "poweredOff" };
    Some(Val::data(
        "VirtualMachineSnapshotTree",
        [
            ("snapshot", Val::reference(of)),
            ("vm", Val::reference(&snapshot.vm)),
            ("name", Val::string(&object.name)),
            ("description", Val::string(&snapshot.description)),
            ("id", Val::int(snapshot.number)),
            ("createTime", Val::time(snapshot.created)),
            ("state", Val::enumeration("VirtualMachinePowerState", power)),
            ("quiesced", Val::boolean(false)),
            ("childSnapshotList", Val::Array("VirtualMachineSnapshotTree", children.collect())),
            ("replaySupported", Val::boolean(false)),
        ],
    ))
}

fn snapshots(look: Look<'_>) -> Option<Val> {
    let vm = vm(look)?;
    let current = vm.current_snapshot.as_ref()?;
    let roots = vm.snapshots.iter().filter_map(|reference| {
        let snapshot = look.inventory.snapshot(reference)?;
        if snapshot.before.is_none() { snapshot_tree(look.inventory, reference, snapshot, &vm.snapshots) } else { None }
    });
    let roots = Val::Array("VirtualMachineSnapshotTree", roots.collect());
    Some(Val::data("VirtualMachineSnapshotInfo", [("currentSnapshot", Val::reference(current)), ("rootSnapshotList", roots)]))
}

fn root_snapshots(look: Look<'_>) -> Option<Val> {
    let is_root = |reference: &&Reference| look.inventory.snapshot(reference).is_some_and(|snapshot| snapshot.before.is_none());
    Some(Val::references(vm(look)?.snapshots.iter().filter(is_root)))
}

fn layout(look: Look<'_>) -> Option<Val> {
    let vm = vm(look)?;
    let disks = vm.disks().map(|disk| (disk.backing.file.clone(), "diskExtent", disk.capacity));
    let file = |(key, (name, kind, size)): (i32, (String, &str, u64))| {
        Val::data(
            "VirtualMachineFileLayoutExFileInfo",
            [("key", Val::int(key)), ("name", Val::string(name)), ("type", Val::string(kind)), ("size", Val::long(size))],
        )
    };
    let files = (0..).zip([(vm.home.clone(), "config", 4096)].into_iter().chain(disks)).map(file).collect();
    Some(Val::data(
        "VirtualMachineFileLayoutEx",
        [("file", Val::Array("VirtualMachineFileLayoutExFileInfo", files)), ("timestamp", Val::time(vm.change_version))],
    ))
}

fn storage(look: Look<'_>) -> Option<Val> {
    let vm = vm(look)?;
    let usage = |datastore: &Reference| {
        let used = vm.used_on(datastore);
        Val::data(
            "VirtualMachineUsageOnDatastore",
            [
                ("datastore", Val::reference(datastore)),
                ("committed", Val::long(used)),
                ("uncommitted", Val::long(0_i64)),
                ("unshared", Val::long(used)),
            ],
        )
    };
    let usages = vm.datastores().iter().map(usage).collect();
    Some(Val::data(
        "VirtualMachineStorageInfo",
        [("perDatastoreUsage", Val::Array("VirtualMachineUsageOnDatastore", usages)), ("timestamp", Val::time(vm.change_version))],
    ))
}

/// The properties of a virtual machine, beside those of every managed entity.
pub const VIRTUAL_MACHINE: Members = &[
    ("capability", Member::Leaf(|_| None)),
    ("config", Member::Part("VirtualMachineConfigInfo", CONFIG)),
    ("layout", Member::Leaf(|_| None)),
    ("layoutEx", Member::Leaf(layout)),
    ("storage", Member::Leaf(storage)),
    ("environmentBrowser", Member::Leaf(|_| None)),
    ("resourcePool", Member::Leaf(|look| vm(look)?.pool.as_ref().map(Val::reference))),
    ("parentVApp", Member::Leaf(|_| None)),
    ("resourceConfig", Member::Leaf(|_| None)),
    ("runtime", Member::Part("VirtualMachineRuntimeInfo", RUNTIME)),
    ("guest", Member::Part("GuestInfo", GUEST)),
    ("summary", Member::Part("VirtualMachineSummary", SUMMARY)),
    ("datastore", Member::Leaf(|look| Some(Val::references(&vm(look)?.datastores())))),
    ("network", Member::Leaf(|look| Some(Val::references(&vm(look)?.networks())))),
    ("snapshot", Member::Leaf(snapshots)),
    ("rootSnapshot", Member::Leaf(root_snapshots)),
    ("guestHeartbeatStatus", Member::Leaf(|_| Some(Val::enumeration("ManagedEntityStatus", "gray")))),
];

fn snapshot(look: Look<'_>) -> Option<&Snapshot> {
    match &look.object.kind {
        Kind::Snapshot(snapshot) => Some(snapshot),
        _ => None,
    }
}

fn snapshot_children(look: Look<'_>) -> Option<Val> {
    let vm = look.inventory.vm(&snapshot(look)?.vm)?;
    let is_child = |reference: &&Reference| {
        look.inventory.snapshot(reference).is_some_and(|snapshot| snapshot.before.as_ref() == Some(&look.object.reference))
    };
    Some(Val::references(vm.snapshots.iter().filter(is_child)))
}

const SNAPSHOT_HARDWARE: Members = &[(
    "device",
    Member::Leaf(|look| {
        let snapshot = snapshot(look)?;
        Some(Val::Array("VirtualDevice", snapshot.devices.iter().map(|device| device.val(&snapshot.devices, false)).collect()))
    }),
)];

const SNAPSHOT_CONFIG: Members = &[("hardware", Member::Part("VirtualHardware", SNAPSHOT_HARDWARE))];

/// The properties of a snapshot.
pub const SNAPSHOT: Members = &[
    ("config", Member::Part("VirtualMachineConfigInfo", SNAPSHOT_CONFIG)),
    ("childSnapshot", Member::Leaf(snapshot_children)),
    ("vm", Member::Leaf(|look| Some(Val::reference(&snapshot(look)?.vm)))),
    ("availableField", Member::Leaf(|_| Some(Val::Array("CustomFieldDef", Vec::new())))),
    ("value", Member::Leaf(|_| Some(Val::Array("CustomFieldValue", Vec::new())))),
];
