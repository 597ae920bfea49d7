//! Building the inventory that a [`Site`] describes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use runtime::random::Random;

use super::device::{Backing, Device, Disk, Hardware, Nic, Port, chassis};
use super::inventory::{Inventory, Kind, Reference, Snapshot, stored_name};
use super::site::{self, Site, folder_path, pool_path};
use super::vm::Vm;
use crate::hypervisor::Origin;

const GIB: u64 = 1 << 30;
/// The cluster that is there when the manifests name none.
const CLUSTER: &str = "cluster1";
/// What VM folders can contain.
pub const VM_CHILDREN: &[&str] = &["Folder", "VirtualMachine", "VirtualApp"];

/// The inventory of `site`.
pub fn build(site: &Site, random: &Random, now: Timestamp) -> Inventory {
    let mut inventory = Inventory::new(&site.server, random);
    for datacenter in &site.datacenters {
        build_datacenter(&mut inventory, datacenter, now);
    }
    inventory
}

fn folder(inventory: &mut Inventory, name: &str, prefix: &str, children: &'static [&'static str], parent: Option<&Reference>) -> Reference {
    inventory.insert("Folder", prefix, name, parent, Kind::Folder { child_types: children, children: Vec::new() })
}

fn build_datacenter(inventory: &mut Inventory, described: &site::Datacenter, now: Timestamp) {
    let vm_folder = folder(inventory, "vm", "group-v", VM_CHILDREN, None);
    let host_folder = folder(inventory, "host", "group-h", &["Folder", "ComputeResource"], None);
    let datastore_folder = folder(inventory, "datastore", "group-s", &["Folder", "Datastore", "StoragePod"], None);
    let network_folder = folder(inventory, "network", "group-n", &["Folder", "Network", "DistributedVirtualSwitch"], None);
    let root = inventory.root.clone();
    let folders = [vm_folder.clone(), host_folder.clone(), datastore_folder.clone(), network_folder.clone()];
    let content = Kind::Datacenter {
        vm_folder: vm_folder.clone(),
        host_folder: host_folder.clone(),
        datastore_folder: datastore_folder.clone(),
        network_folder: network_folder.clone(),
    };
    let datacenter = inventory.insert("Datacenter", "datacenter-", &described.name, Some(&root), content);
    for folder in &folders {
        if let Some(object) = inventory.change(folder) {
            object.parent = Some(datacenter.clone());
        }
    }
    for datastore in &described.datastores {
        let browser = inventory.insert("HostDatastoreBrowser", "datastoreBrowser-", "", None, Kind::Browser);
        let content = Kind::Datastore { capacity: datastore.capacity_gib * GIB, browser };
        let name = plain_name(&described.name, "datastore", &datastore.name);
        inventory.insert("Datastore", "datastore-", &stored_name(name), Some(&datastore_folder), content);
    }
    build_networks(inventory, described, &network_folder);
    build_pools(inventory, described, &host_folder);
    for written in &described.folders {
        ensure_folder(inventory, &vm_folder, &folder_path(&described.name, written));
    }
    for template in &described.templates {
        build_template(inventory, described, template, &datacenter, now);
    }
}

/// The name at the end of an inventory path (`/dc1/datastore/fast`); other names are taken as they are.
fn plain_name<'a>(datacenter: &str, folder: &str, written: &'a str) -> &'a str {
    written.strip_prefix(&format!("/{datacenter}/{folder}/")).unwrap_or(written)
}

fn build_networks(inventory: &mut Inventory, described: &site::Datacenter, network_folder: &Reference) {
    let mut switches: BTreeMap<&str, Reference> = BTreeMap::new();
    for network in &described.networks {
        let name = stored_name(plain_name(&described.name, "network", &network.name));
        let Some(switch) = &network.switch else {
            inventory.insert("Network", "network-", &name, Some(network_folder), Kind::Network);
            continue;
        };
        let switch = match switches.get(switch.as_str()) {
            Some(known) => known.clone(),
            None => {
                let made = build_switch(inventory, switch, network_folder);
                switches.insert(switch, made.clone());
                made
            }
        };
        insert_portgroup(inventory, &name, network_folder, &switch, false);
    }
}

fn build_switch(inventory: &mut Inventory, name: &str, network_folder: &Reference) -> Reference {
    // Written as vCenter does it: hex pairs in two halves.
    let uuid = inventory.fresh_uuid().replace('-', "");
    let pairs: Vec<&str> = (0..16).filter_map(|index| uuid.get(index * 2..index * 2 + 2)).collect();
    let (first, second) = pairs.split_at(pairs.len() / 2);
    let uuid = format!("{}-{}", first.join(" "), second.join(" "));
    let switch =
        inventory.insert("VmwareDistributedVirtualSwitch", "dvs-", &stored_name(name), Some(network_folder), Kind::Switch { uuid });
    insert_portgroup(inventory, &format!("{}-DVUplinks", stored_name(name)), network_folder, &switch, true);
    switch
}

fn insert_portgroup(inventory: &mut Inventory, name: &str, folder: &Reference, switch: &Reference, is_uplink: bool) {
    let content = Kind::Portgroup { key: String::new(), switch: switch.clone(), is_uplink };
    let made = inventory.insert("DistributedVirtualPortgroup", "dvportgroup-", name, Some(folder), content);
    // A port group's key is its id.
    if let Some(object) = inventory.change(&made)
        && let Kind::Portgroup { key, .. } = &mut object.kind
    {
        key.clone_from(&made.id);
    }
}

fn build_pools(inventory: &mut Inventory, described: &site::Datacenter, host_folder: &Reference) {
    let wanted: Vec<(Option<String>, Vec<String>)> =
        described.resource_pools.iter().map(|written| pool_path(&described.name, written)).collect();
    let mut clusters: Vec<String> = Vec::new();
    for name in wanted.iter().filter_map(|(cluster, _)| cluster.clone()) {
        if !clusters.contains(&name) {
            clusters.push(name);
        }
    }
    if clusters.is_empty() {
        clusters.push(CLUSTER.to_owned());
    }
    for name in &clusters {
        build_cluster(inventory, described, name, host_folder);
    }
    for (cluster, pools) in wanted {
        let cluster = cluster.unwrap_or_else(|| clusters.first().cloned().unwrap_or_default());
        let Some(root) = root_pool(inventory, host_folder, &cluster) else { continue };
        let mut at = root.clone();
        for pool in pools {
            at = match inventory.child(&at, &stored_name(&pool)) {
                Some(known) => known,
                None => {
                    let owner = inventory.child(host_folder, &stored_name(&cluster)).unwrap_or_else(|| root.clone());
                    let content = Kind::Pool { owner, children: Vec::new() };
                    inventory.insert("ResourcePool", "resgroup-", &stored_name(&pool), Some(&at), content)
                }
            };
        }
    }
}

fn root_pool(inventory: &Inventory, host_folder: &Reference, cluster: &str) -> Option<Reference> {
    let cluster = inventory.child(host_folder, &stored_name(cluster))?;
    match &inventory.get(&cluster)?.kind {
        Kind::Cluster { root_pool, .. } => Some(root_pool.clone()),
        _ => None,
    }
}

fn build_cluster(inventory: &mut Inventory, described: &site::Datacenter, name: &str, host_folder: &Reference) {
    let placeholder = Reference::new("ResourcePool", "");
    let content = Kind::Cluster { root_pool: placeholder, hosts: Vec::new() };
    let cluster = inventory.insert("ClusterComputeResource", "domain-c", &stored_name(name), Some(host_folder), content);
    let content = Kind::Pool { owner: cluster.clone(), children: Vec::new() };
    let pool = inventory.insert("ResourcePool", "resgroup-", "Resources", Some(&cluster), content);
    let hosts = (1..=described.hosts.max(1)).map(|number| {
        let uuid = inventory.fresh_uuid();
        let name = format!("esx{number}.{name}.{}", described.name).to_ascii_lowercase().replace(' ', "-");
        inventory.insert("HostSystem", "host-", &name, Some(&cluster), Kind::Host { uuid })
    });
    let made: Vec<Reference> = hosts.collect();
    if let Some(object) = inventory.change(&cluster)
        && let Kind::Cluster { root_pool, hosts } = &mut object.kind
    {
        *root_pool = pool;
        *hosts = made;
    }
}

/// The folder below `from`, made with those on the way if it is not there.
pub fn ensure_folder(inventory: &mut Inventory, from: &Reference, path: &[String]) -> Reference {
    let mut at = from.clone();
    for name in path {
        at = match inventory.child(&at, &stored_name(name)) {
            Some(known) => known,
            None => folder(inventory, &stored_name(name), "group-v", VM_CHILDREN, Some(&at)),
        };
    }
    at
}

/// The first object of the datacenter that `is_wanted`.
pub fn first_in(inventory: &Inventory, datacenter: &Reference, is_wanted: fn(&Kind) -> bool) -> Option<Reference> {
    inventory
        .objects()
        .filter(|object| is_wanted(&object.kind))
        .find(|object| inventory.datacenter_of(&object.reference).as_ref() == Some(datacenter))
        .map(|object| object.reference.clone())
}

/// A VM with nothing but its chassis, its disks on `datastore` and one adapter.
#[allow(clippy::too_many_arguments)] // each is one fact about the machine
pub fn bare_vm(
    inventory: &Inventory,
    name: &str,
    host: &Reference,
    datastore: &Reference,
    network: Option<&Reference>,
    disks: &[u64],
    origin: Origin,
    now: Timestamp,
) -> Vm {
    let store = inventory.get(datastore).map(|object| object.name.clone()).unwrap_or_default();
    let mut devices = chassis();
    for (index, size) in (0_i32..).zip(disks) {
        let suffix = if index == 0 { String::new() } else { format!("_{index}") };
        let backing = Backing {
            file: format!("[{store}] {name}/{name}{suffix}.vmdk"),
            datastore: datastore.clone(),
            uuid: inventory.fresh_uuid(),
            is_thin: true,
            mode: "persistent".to_owned(),
            parent: None,
            is_foreign: false,
        };
        let unit = if index < 7 { index } else { index + 1 };
        devices.push(Device {
            key: 2000 + unit,
            controller: Some(1000),
            unit: Some(unit),
            hardware: Hardware::Disk(Disk { capacity: *size, backing, volume: None }),
        });
    }
    if let Some(port) = network.and_then(|network| port_of(inventory, network)) {
        let nic = Nic { kind: "VirtualVmxnet3".to_owned(), mac: inventory.fresh_mac(), address_type: "assigned".to_owned(), port };
        devices.push(Device { key: 4000, controller: Some(100), unit: Some(7), hardware: Hardware::Nic(nic) });
    }
    Vm {
        bios_uuid: inventory.fresh_uuid(),
        instance_uuid: inventory.fresh_uuid(),
        is_template: false,
        is_powered_on: false,
        cpus: 2,
        cores_per_socket: 1,
        memory_mib: 2048,
        guest_id: "other3xLinux64Guest".to_owned(),
        annotation: String::new(),
        version: "vmx-15".to_owned(),
        firmware: "bios".to_owned(),
        is_disk_uuid_enabled: true,
        has_vapp_config: false,
        extra_config: BTreeMap::new(),
        devices,
        pool: None,
        host: host.clone(),
        home: format!("[{store}] {name}/{name}.vmx"),
        home_datastore: datastore.clone(),
        snapshots: Vec::new(),
        current_snapshot: None,
        talos_version: None,
        disk_id: inventory.fresh_uuid(),
        tools: None,
        boot_time: None,
        created: now,
        change_version: now,
        origin,
        acts: Vec::new(),
        busy: None,
    }
}

/// How an adapter is plugged into a network or port group.
pub fn port_of(inventory: &Inventory, network: &Reference) -> Option<Port> {
    let object = inventory.get(network)?;
    match &object.kind {
        Kind::Network => Some(Port::Standard { network: network.clone(), name: object.name.clone() }),
        Kind::Portgroup { key, switch, is_uplink: false } => match &inventory.get(switch)?.kind {
            Kind::Switch { uuid } => Some(Port::Distributed { network: network.clone(), switch_uuid: uuid.clone(), key: key.clone() }),
            _ => None,
        },
        _ => None,
    }
}

fn build_template(
    inventory: &mut Inventory,
    described: &site::Datacenter,
    template: &site::Template,
    datacenter: &Reference,
    now: Timestamp,
) {
    let mut path = folder_path(&described.name, &template.name);
    let Some(name) = path.pop() else { return };
    let name = stored_name(&name);
    let Some(Kind::Datacenter { vm_folder, .. }) = inventory.get(datacenter).map(|object| object.kind.clone()) else { return };
    let folder = ensure_folder(inventory, &vm_folder, &path);
    let host = first_in(inventory, datacenter, |kind| matches!(kind, Kind::Host { .. }));
    let datastore = first_in(inventory, datacenter, |kind| matches!(kind, Kind::Datastore { .. }));
    let network = first_in(inventory, datacenter, |kind| matches!(kind, Kind::Network | Kind::Portgroup { is_uplink: false, .. }));
    let (Some(host), Some(datastore)) = (host, datastore) else { return };
    let disks: Vec<u64> = template.disks_gib.iter().map(|gib| gib * GIB).collect();
    let mut vm = bare_vm(inventory, &name, &host, &datastore, network.as_ref(), &disks, Origin::Site, now);
    vm.is_template = true;
    vm.has_vapp_config = true;
    vm.talos_version.clone_from(&template.talos_version);
    vm.extra_config.insert("disk.EnableUUID".to_owned(), "true".to_owned());
    let reference = inventory.insert("VirtualMachine", "vm-", &name, Some(&folder), Kind::Vm(Box::new(vm)));
    if template.has_snapshot {
        take_snapshot(inventory, &reference, "linked-clone-base", "", now);
    }
}

/// Takes a snapshot of a VM: its disks go on as differences to what they were, under the UUIDs they had.
pub fn take_snapshot(inventory: &mut Inventory, vm: &Reference, name: &str, description: &str, now: Timestamp) -> Option<Reference> {
    let before = inventory.vm(vm)?.clone();
    let number = i32::try_from(before.snapshots.len()).unwrap_or(0) + 1;
    let content = Kind::Snapshot(Snapshot {
        vm: vm.clone(),
        number,
        description: description.to_owned(),
        created: now,
        before: before.current_snapshot.clone(),
        devices: before.devices.clone(),
        was_powered_on: before.is_powered_on,
    });
    let snapshot = inventory.insert("VirtualMachineSnapshot", "snapshot-", name, None, content);
    let changed = inventory.change_vm(vm)?;
    for disk in changed.devices.iter_mut().filter_map(Device::disk_mut) {
        let below = disk.backing.clone();
        let stem = below.file.trim_end_matches(".vmdk");
        let stem = match stem.rsplit_once('-') {
            Some((stem, digits)) if digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit()) => stem,
            _ => stem,
        };
        disk.backing = Backing { file: format!("{stem}-{number:06}.vmdk"), parent: Some(Box::new(below.clone())), ..below };
    }
    changed.snapshots.push(snapshot.clone());
    changed.current_snapshot = Some(snapshot.clone());
    Some(snapshot)
}
