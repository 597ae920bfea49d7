//! Whatever is done in whatever order, the inventory stays a tree with unique names, and who only hears of changes knows what who looks
//! afresh knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use simulator::Latency;
use simulator::hypervisor::{Hypervisor, ToolsReport, VmId};
use vsphere_wire::device::{VirtualDevice, VirtualDeviceConfigSpec, devices};
use vsphere_wire::machine::{OptionValue, VirtualMachineConfigSpec};
use vsphere_wire::method::*;
use vsphere_wire::property::*;
use vsphere_wire::{AnyValue, DeviceBacking, ManagedObjectReference as Reference};

use super::support::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const FOLDERS: [&str; 3] = ["dc1/vm", "dc1/vm/team", "dc1/vm/team/a"];

#[derive(Clone, Copy, Debug)]
enum Step {
    Clone { source: usize, name: usize, folder: usize, linked: bool, power: bool },
    Rename { vm: usize, name: usize },
    Variable { vm: usize, key: usize, value: u8 },
    AddNic { vm: usize, distributed: bool },
    AddDisk { vm: usize },
    RemoveDevice { vm: usize, key: i32 },
    PowerOn { vm: usize },
    PowerOff { vm: usize },
    Tools { vm: usize, address: u8 },
    Snapshot { vm: usize },
    Mark { vm: usize, template: bool },
    Destroy { vm: usize },
    CreateFolder { parent: usize, name: usize },
    DestroyFolder { folder: usize },
    Move { vm: usize, folder: usize },
    Copy { vm: usize, name: usize },
    Volume { vm: usize },
    Wait { minutes: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let vm = 0..8_usize;
    let name = 0..NAMES.len();
    let folder = 0..FOLDERS.len();
    prop_oneof![
        6 => (vm.clone(), name.clone(), folder.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(source, name, folder, linked, power)| Step::Clone { source, name, folder, linked, power }),
        1 => (vm.clone(), name.clone()).prop_map(|(vm, name)| Step::Rename { vm, name }),
        1 => (vm.clone(), 0..2_usize, any::<u8>()).prop_map(|(vm, key, value)| Step::Variable { vm, key, value }),
        1 => (vm.clone(), any::<bool>()).prop_map(|(vm, distributed)| Step::AddNic { vm, distributed }),
        1 => vm.clone().prop_map(|vm| Step::AddDisk { vm }),
        1 => (vm.clone(), prop_oneof![Just(2000), Just(2001), Just(4000), Just(1000)]).prop_map(|(vm, key)| Step::RemoveDevice { vm, key }),
        3 => vm.clone().prop_map(|vm| Step::PowerOn { vm }),
        2 => vm.clone().prop_map(|vm| Step::PowerOff { vm }),
        2 => (vm.clone(), any::<u8>()).prop_map(|(vm, address)| Step::Tools { vm, address }),
        1 => vm.clone().prop_map(|vm| Step::Snapshot { vm }),
        1 => (vm.clone(), any::<bool>()).prop_map(|(vm, template)| Step::Mark { vm, template }),
        2 => vm.clone().prop_map(|vm| Step::Destroy { vm }),
        1 => (folder.clone(), name.clone()).prop_map(|(parent, name)| Step::CreateFolder { parent, name }),
        1 => folder.clone().prop_map(|folder| Step::DestroyFolder { folder }),
        1 => (vm.clone(), folder).prop_map(|(vm, folder)| Step::Move { vm, folder }),
        1 => (vm.clone(), name).prop_map(|(vm, name)| Step::Copy { vm, name }),
        1 => vm.prop_map(|vm| Step::Volume { vm }),
        1 => (0..12_u8).prop_map(|minutes| Step::Wait { minutes }),
    ]
}

/// What one caller knows: objects with their properties.
type Known = BTreeMap<Reference, BTreeMap<String, AnyValue>>;

struct Watcher {
    client: Client,
    spec: PropertyFilterSpec,
    version: Option<String>,
    known: Known,
}

fn along_view(view: &Reference, sets: Vec<PropertySpec>) -> PropertyFilterSpec {
    PropertyFilterSpec { property_sets: sets, ..view_spec(view, &[]) }
}

impl Watcher {
    async fn start(client: Client) -> Self {
        let root = client.content().await.root_folder;
        let create = CreateContainerView { this: singleton("ViewManager"), container: root, kinds: Vec::new(), is_recursive: true };
        let view = client.call(create).await.unwrap();
        let sets = vec![
            property_set("ManagedEntity", &["name", "parent", "recentTask"]),
            property_set(
                "VirtualMachine",
                &[
                    "config.template",
                    "config.instanceUuid",
                    "config.uuid",
                    "config.changeVersion",
                    "config.extraConfig",
                    "config.hardware.device",
                    "runtime.powerState",
                    "runtime.host",
                    "guest.net",
                    "guest.hostName",
                    "snapshot",
                    "resourcePool",
                    "network",
                    "datastore",
                    "summary.storage",
                ],
            ),
            property_set("Folder", &["childEntity"]),
            property_set("Datastore", &["vm", "summary.freeSpace"]),
            property_set("Network", &["vm"]),
            property_set("ResourcePool", &["vm"]),
            property_set("HostSystem", &["vm"]),
        ];
        let spec = along_view(&view, sets);
        client.call(CreateFilter { this: collector(), spec: spec.clone(), is_partial: false }).await.unwrap();
        Self { client, spec, version: None, known: Known::new() }
    }

    /// Hears what changed.
    async fn hear(&mut self) {
        loop {
            let options = Some(WaitOptions { max_wait_seconds: Some(0), max_object_updates: Some(7) });
            let call = WaitForUpdatesEx { this: collector(), version: self.version.clone(), options };
            let Some(set) = self.client.call(call).await.unwrap() else { return };
            self.version = Some(set.version);
            for update in set.filters.into_iter().flat_map(|filter| filter.objects) {
                match update.kind {
                    ObjectUpdateKind::Leave => {
                        assert!(self.known.remove(&update.object).is_some(), "{:?} left and never came", update.object);
                        continue;
                    }
                    ObjectUpdateKind::Enter => {
                        assert!(self.known.insert(update.object.clone(), BTreeMap::new()).is_none(), "{:?} came twice", update.object);
                    }
                    _ => assert!(!update.changes.is_empty()),
                }
                let object = self.known.get_mut(&update.object).unwrap();
                for change in update.changes {
                    match change.value {
                        Some(value) => assert_ne!(object.insert(change.name, value.clone()), Some(value), "a change that is none"),
                        None => assert!(object.remove(&change.name).is_some()),
                    }
                }
            }
        }
    }

    /// Looks afresh.
    async fn look(&self) -> Known {
        let call = RetrievePropertiesEx { this: collector(), specs: vec![self.spec.clone()], options: RetrieveOptions::default() };
        let result = self.client.call(call).await.unwrap().unwrap();
        assert!(result.token.is_none());
        let properties = |object: ObjectContent| object.properties.into_iter().map(|property| (property.name, property.value)).collect();
        result.objects.into_iter().map(|object| (object.object.clone(), properties(object))).collect()
    }
}

async fn finished(client: &Client, task: Result<Reference, CallError>) {
    if let Ok(task) = task {
        // Errors are part of the game; what counts is the inventory.
        let _ = client.outcome(&task).await;
    }
}

async fn perform(world: &World, client: &Client, step: Step) {
    let vms: Vec<VmId> = world.simulator.truth().vms.into_iter().map(|vm| vm.id).collect();
    let id = |index: usize| vms[index % vms.len()].clone();
    let vm = |index: usize| Reference::new("VirtualMachine", id(index).0);
    let person = world.simulator.vcenter().person();
    let reconfigure = |index: usize, spec: VirtualMachineConfigSpec| client.call(ReconfigureVm { this: vm(index), spec });
    match step {
        Step::Clone { source, name, folder, linked, power } => {
            let Some(folder) = client.at(FOLDERS[folder]).await else { return };
            let source = vm(source);
            let snapshot = client.property(&source, "snapshot.currentSnapshot").await.map(|value| value.decode().unwrap());
            let mut spec = client.clone_spec(snapshot, linked).await;
            spec.is_powered_on = power;
            let task = client.call(CloneVm { this: source, folder, name: NAMES[name].to_owned(), spec }).await;
            finished(client, task).await;
        }
        Step::Rename { vm: index, name } => {
            finished(client, client.call(Rename { this: vm(index), new_name: NAMES[name].to_owned() }).await).await;
        }
        Step::Variable { vm: index, key, value } => {
            let value = if value % 3 == 0 { String::new() } else { value.to_string() };
            let extra_config = vec![OptionValue::text(format!("guestinfo.{key}"), value)];
            finished(client, reconfigure(index, VirtualMachineConfigSpec { extra_config, ..VirtualMachineConfigSpec::default() }).await)
                .await;
        }
        Step::AddNic { vm: index, distributed } => {
            let backing = if distributed {
                let group = client.at("dc1/network/pg-talos").await.unwrap();
                let switch = client.at("dc1/network/dvs1").await.unwrap();
                DeviceBacking::port_group(client.text(&switch, "uuid").await, client.text(&group, "key").await)
            } else {
                DeviceBacking::network("VM Network")
            };
            let nic = VirtualDevice { backing: Some(backing), ..VirtualDevice::new("VirtualVmxnet3", -1) };
            let device_changes = vec![VirtualDeviceConfigSpec::add(nic)];
            finished(client, reconfigure(index, VirtualMachineConfigSpec { device_changes, ..VirtualMachineConfigSpec::default() }).await)
                .await;
        }
        Step::AddDisk { vm: index } => {
            let disk = VirtualDevice { controller_key: Some(1000), capacity_kib: Some(1 << 20), ..VirtualDevice::new("VirtualDisk", -1) };
            let device_changes = vec![VirtualDeviceConfigSpec::create(disk)];
            finished(client, reconfigure(index, VirtualMachineConfigSpec { device_changes, ..VirtualMachineConfigSpec::default() }).await)
                .await;
        }
        Step::RemoveDevice { vm: index, key } => {
            let device_changes = vec![VirtualDeviceConfigSpec::detach(VirtualDevice::new("VirtualDevice", key))];
            finished(client, reconfigure(index, VirtualMachineConfigSpec { device_changes, ..VirtualMachineConfigSpec::default() }).await)
                .await;
        }
        Step::PowerOn { vm: index } => finished(client, client.call(PowerOnVm { this: vm(index), host: None }).await).await,
        Step::PowerOff { vm: index } => finished(client, client.call(PowerOffVm { this: vm(index) }).await).await,
        Step::Tools { vm: index, address } => {
            let mac = world.simulator.truth().vms[index % vms.len()].nics.first().map(|nic| nic.mac.clone()).unwrap_or_default();
            let report = ToolsReport { host_name: format!("host{address}"), nets: vec![(mac, vec![format!("10.0.0.{address}/24")])] };
            world.simulator.vcenter().report_tools(&id(index), Some(report));
        }
        Step::Snapshot { vm: index } => {
            let call = CreateSnapshot { this: vm(index), name: "s".to_owned(), description: None, with_memory: false, is_quiesced: false };
            finished(client, client.call(call).await).await;
        }
        Step::Mark { vm: index, template: true } => drop(client.call(MarkAsTemplate { this: vm(index) }).await),
        Step::Mark { vm: index, template: false } => {
            let pool = client.at("dc1/host/cluster1/Resources").await.unwrap();
            drop(client.call(MarkAsVirtualMachine { this: vm(index), pool, host: None }).await);
        }
        Step::Destroy { vm: index } => {
            // The two templates stay, so that there is always something to clone.
            let index = 2 + index % vms.len().saturating_sub(2).max(1);
            if index < vms.len() {
                finished(client, client.call(Destroy { this: vm(index) }).await).await;
            }
        }
        Step::CreateFolder { parent, name } => {
            if let Some(this) = client.at(FOLDERS[parent]).await {
                drop(client.call(CreateFolder { this, name: NAMES[name].to_owned() }).await);
            }
        }
        Step::DestroyFolder { folder } => {
            if let Some(this) = client.at(FOLDERS[folder]).await.filter(|this| this.kind == "Folder" && folder == 2) {
                finished(client, client.call(Destroy { this }).await).await;
            }
        }
        Step::Move { vm, folder } => drop(person.move_vm(&id(vm), &format!("/{}", FOLDERS[folder]))),
        Step::Copy { vm, name } => drop(person.clone_vm(&id(vm), NAMES[name])),
        Step::Volume { vm } => drop(person.attach_volume(&id(vm), 1)),
        Step::Wait { minutes } => world.clock.sleep(Duration::from_secs(60 * u64::from(minutes))).await,
    }
}

/// The inventory is a tree whose names are unique, and no two VMs share what must be one's own.
fn check_invariants(known: &Known) {
    let text = |object: &Reference, path: &str| known[object].get(path).and_then(|value| value.text()).unwrap_or_default().to_owned();
    let mut children: BTreeMap<Reference, Vec<Reference>> = BTreeMap::new();
    for (object, properties) in known {
        if let Some(list) = properties.get("childEntity") {
            children.insert(object.clone(), list.decode_array().unwrap());
        }
    }
    let mut seen = BTreeSet::new();
    for (folder, inside) in &children {
        let mut names = BTreeSet::new();
        for child in inside {
            assert!(seen.insert(child.clone()), "{child:?} is in two folders");
            assert!(names.insert(text(child, "name")), "{folder:?} has two children called {:?}", text(child, "name"));
            assert_eq!(known[child]["parent"].decode::<Reference>().unwrap(), *folder);
        }
    }
    let (mut macs, mut uuids) = (BTreeSet::new(), BTreeSet::new());
    for vm in known.keys().filter(|object| object.kind == "VirtualMachine") {
        assert!(seen.contains(vm), "{vm:?} is in no folder");
        assert!(uuids.insert(text(vm, "config.instanceUuid")) && uuids.insert(text(vm, "config.uuid")));
        let (mut keys, mut places, mut files) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for device in devices(&known[vm]["config.hardware.device"]).unwrap() {
            assert!(keys.insert(device.key), "{vm:?} has two devices with key {}", device.key);
            if device.is_disk() {
                assert!(places.insert((device.controller_key, device.unit_number)));
                assert!(files.insert(device.file_name().unwrap().to_owned()));
            }
            if let Some(mac) = device.mac_address {
                assert!(macs.insert(mac), "a MAC address is used twice");
            }
        }
        let is_on = text(vm, "runtime.powerState") == "poweredOn";
        assert!(is_on || !known[vm].contains_key("guest.hostName"), "tools run in a VM that is off");
        assert_eq!(text(vm, "config.template") == "true", !known[vm].contains_key("resourcePool"));
    }
}

fn run(steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut setup = config(site(), Latency::none());
        setup.session_idle = Duration::from_secs(1 << 30);
        let world = World::with(setup).await;
        let client = world.client().await;
        let mut watcher = Watcher::start(world.client().await).await;
        for step in steps {
            perform(&world, &client, step).await;
            watcher.hear().await;
            let fresh = watcher.look().await;
            for (object, properties) in &fresh {
                let known = watcher.known.get(object).unwrap_or_else(|| panic!("{object:?} was never told of, after {step:?}"));
                for (name, value) in properties {
                    assert_eq!(known.get(name), Some(value), "{object:?} {name} after {step:?}");
                }
            }
            assert_eq!(watcher.known, fresh, "after {step:?}");
            check_invariants(&fresh);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hearing_is_as_good_as_looking(steps in prop::collection::vec(step(), 1..40)) {
        run(steps);
    }
}

#[test]
fn a_linked_clone_of_a_copy_with_its_name() {
    run(vec![
        Step::Copy { vm: 0, name: 2 },
        Step::Clone { source: 0, name: 0, folder: 0, linked: false, power: false },
        Step::Snapshot { vm: 6 },
        Step::Clone { source: 6, name: 2, folder: 1, linked: true, power: false },
    ]);
}
