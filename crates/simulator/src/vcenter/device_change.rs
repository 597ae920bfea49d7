//! Device changes of a specification, as clone and reconfigure carry them.
//!
//! Keys in a specification are temporary where they are negative: they are mapped to real ones, and devices added later refer to them.
//! A disk that builds on another one cannot grow, no disk can shrink, a unit holds one device.

use std::collections::BTreeMap;

use vsphere_wire::device::{DeviceFileOperation, DeviceOperation};
use vsphere_wire::{DeviceBacking, VirtualDevice, VirtualDeviceConfigSpec};

use super::construction::port_of;
use super::device::{Backing, Device, Disk, Hardware, Nic, Port, is_nic, is_scsi};
use super::failure::Failure;
use super::inventory::{Inventory, Kind, Reference};
use super::vm::Vm;

/// What the changes did outside the VM.
#[derive(Debug, Default)]
pub struct Outside {
    /// Volumes whose file was destroyed with them.
    pub destroyed_volumes: Vec<String>,
    /// Volumes that got attached: id and file.
    pub attached_volumes: Vec<(String, String)>,
}

/// Changes the devices of `vm`, called `name` and lying in `datacenter`.
///
/// # Errors
/// When a change cannot be made; `vm` must be thrown away then.
pub fn apply(
    inventory: &Inventory,
    datacenter: &Reference,
    vm: &mut Vm,
    name: &str,
    changes: &[VirtualDeviceConfigSpec],
) -> Result<Outside, Failure> {
    let mut context = Context { inventory, datacenter, name, keys: BTreeMap::new(), outside: Outside::default() };
    for (index, change) in changes.iter().enumerate() {
        match &change.operation {
            Some(DeviceOperation::Add) => context.add(vm, index, change)?,
            Some(DeviceOperation::Edit) | None => context.edit(vm, index, &change.device)?,
            Some(DeviceOperation::Remove) => context.remove(vm, index, change)?,
            Some(DeviceOperation::Other(_)) => return Err(Failure::device(index, "the operation is unknown")),
        }
    }
    Ok(context.outside)
}

struct Context<'a> {
    inventory: &'a Inventory,
    datacenter: &'a Reference,
    name: &'a str,
    /// Temporary keys and the real ones.
    keys: BTreeMap<i32, i32>,
    outside: Outside,
}

impl Context<'_> {
    fn add(&mut self, vm: &mut Vm, index: usize, change: &VirtualDeviceConfigSpec) -> Result<(), Failure> {
        let spec = &change.device;
        let kind = spec.kind.local.as_ref();
        let controller = spec.controller_key.map(|key| self.keys.get(&key).copied().unwrap_or(key));
        let device = if kind == "VirtualDisk" {
            self.new_disk(vm, index, change, controller)?
        } else if is_nic(kind) {
            self.new_nic(vm, index, spec)?
        } else if is_scsi(kind) {
            let bus = spec.bus_number.unwrap_or(0);
            let is_taken =
                |device: &Device| matches!(&device.hardware, Hardware::Controller { bus: taken, is_scsi: true, .. } if *taken == bus);
            if vm.devices.iter().any(is_taken) {
                return Err(Failure::device(index, "the bus is taken"));
            }
            let hardware = Hardware::Controller { kind: kind.to_owned(), bus, is_scsi: true };
            Device { key: vm.free_key(1000), controller: Some(100), unit: Some(3 + bus), hardware }
        } else {
            let hardware = Hardware::Plain { kind: kind.to_owned(), label: kind.trim_start_matches("Virtual").to_owned() };
            Device { key: vm.free_key(12_000), controller, unit: spec.unit_number, hardware }
        };
        self.keys.insert(spec.key, device.key);
        vm.devices.push(device);
        Ok(())
    }

    fn new_disk(&mut self, vm: &Vm, index: usize, change: &VirtualDeviceConfigSpec, controller: Option<i32>) -> Result<Device, Failure> {
        let spec = &change.device;
        let controller = controller.ok_or_else(|| Failure::device(index, "a disk needs a controller"))?;
        let is_controller = |device: &Device| device.key == controller && matches!(device.hardware, Hardware::Controller { .. });
        if !vm.devices.iter().any(is_controller) {
            return Err(Failure::device(index, "there is no such controller"));
        }
        // A negative or absent unit leaves the choice to the server.
        let unit = spec.unit_number.filter(|unit| *unit >= 0).unwrap_or_else(|| vm.free_unit(controller));
        if unit == 7 || vm.devices.iter().any(|device| device.controller == Some(controller) && device.unit == Some(unit)) {
            return Err(Failure::device(index, "the unit is taken"));
        }
        let is_new = change.file_operation == Some(DeviceFileOperation::Create);
        let backing = spec.backing.as_ref();
        let capacity = spec.capacity().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        let key = vm.free_key(2000 + unit);
        if is_new {
            if capacity == 0 {
                return Err(Failure::device(index, "a new disk needs a capacity"));
            }
            let datastore = self.datastore_of(backing, vm);
            if self.inventory.free(&datastore) < capacity {
                return Err(Failure::no_disk_space(&self.store(&datastore)));
            }
            let backing = Backing {
                file: self.free_file(vm, &datastore),
                uuid: self.inventory.fresh_uuid(),
                datastore,
                is_thin: backing.is_none_or(|backing| backing.is_thin_provisioned != Some(false)),
                mode: backing.and_then(|backing| backing.disk_mode.clone()).unwrap_or_else(|| "persistent".to_owned()),
                parent: None,
                is_foreign: false,
            };
            return Ok(Device {
                key,
                controller: Some(controller),
                unit: Some(unit),
                hardware: Hardware::Disk(Disk { capacity, backing, volume: None }),
            });
        }
        let file = spec.file_name().unwrap_or_default();
        let known = self.inventory.volumes.iter().find(|(_, known)| known.as_str() == file).map(|(id, _)| id.clone());
        let volume = spec.first_class_disk.as_ref().map(|disk| disk.id.clone()).or(known);
        let Some(volume) = volume.filter(|_| !file.is_empty()) else { return Err(Failure::file_not_found(file)) };
        self.outside.attached_volumes.push((volume.clone(), file.to_owned()));
        let datastore = self.datastore_of(backing, vm);
        let backing = Backing {
            file: file.to_owned(),
            datastore,
            uuid: self.inventory.fresh_uuid(),
            is_thin: true,
            mode: "independent_persistent".to_owned(),
            parent: None,
            is_foreign: false,
        };
        let hardware = Hardware::Disk(Disk { capacity: capacity.max(1 << 20), backing, volume: Some(volume) });
        Ok(Device { key, controller: Some(controller), unit: Some(unit), hardware })
    }

    /// The datastore a backing names, by reference or in its file's name; the VM's own otherwise.
    fn datastore_of(&self, backing: Option<&DeviceBacking>, vm: &Vm) -> Reference {
        let named = backing
            .and_then(|backing| backing.file_name.as_deref())
            .and_then(|file| file.strip_prefix('[')?.split_once(']'))
            .and_then(|(store, _)| {
                let is_it = |object: &&super::inventory::Object| {
                    object.name == store && matches!(object.kind, Kind::Datastore { .. }) && self.is_here(&object.reference)
                };
                self.inventory.objects().find(is_it).map(|object| object.reference.clone())
            });
        backing.and_then(|backing| backing.datastore.clone()).or(named).unwrap_or_else(|| vm.home_datastore.clone())
    }

    fn is_here(&self, reference: &Reference) -> bool {
        self.inventory.datacenter_of(reference).as_ref() == Some(self.datacenter)
    }

    fn store(&self, datastore: &Reference) -> String {
        self.inventory.get(datastore).map(|object| object.name.clone()).unwrap_or_default()
    }

    /// A file's name that the VM has not used yet.
    fn free_file(&self, vm: &Vm, datastore: &Reference) -> String {
        let store = self.store(datastore);
        let directory = vm.directory();
        let candidates = (0..).map(|number| match number {
            0 => format!("[{store}] {directory}/{}.vmdk", self.name),
            number => format!("[{store}] {directory}/{}_{number}.vmdk", self.name),
        });
        candidates
            .into_iter()
            .find(|file| !vm.disks().any(|disk| disk.backing.chain().any(|backing| backing.file == *file)))
            .unwrap_or_default()
    }

    fn new_nic(&mut self, vm: &Vm, index: usize, spec: &VirtualDevice) -> Result<Device, Failure> {
        let backing = spec.backing.as_ref().ok_or_else(|| Failure::device(index, "a network adapter needs a backing"))?;
        let port = self.port(backing).ok_or_else(|| Failure::device(index, "there is no such network"))?;
        let manual = spec.mac_address.as_ref().filter(|mac| !mac.is_empty() && spec.address_type.as_deref() == Some("manual"));
        let (mac, address_type) = match manual {
            Some(mac) => (checked_mac(mac).ok_or_else(|| Failure::device(index, "the MAC address is malformed"))?, "manual"),
            None => (self.fresh_mac(vm), "assigned"),
        };
        let key = vm.free_key(4000);
        let nic = Nic { kind: spec.kind.local.to_string(), mac, address_type: address_type.to_owned(), port };
        Ok(Device { key, controller: Some(100), unit: Some(key - 3993), hardware: Hardware::Nic(nic) })
    }

    /// A MAC that neither the inventory nor the VM in the making has.
    fn fresh_mac(&self, vm: &Vm) -> String {
        loop {
            let mac = self.inventory.fresh_mac();
            if !vm.nics().any(|nic| nic.mac == mac) {
                return mac;
            }
        }
    }

    fn port(&self, backing: &DeviceBacking) -> Option<Port> {
        let is_it = |object: &&super::inventory::Object| {
            let fits = match (&object.kind, &backing.port) {
                (Kind::Portgroup { key, .. }, Some(port)) => port.portgroup_key.as_ref() == Some(key),
                (Kind::Network, None) => match (&backing.network, &backing.device_name) {
                    (_, Some(name)) if !name.is_empty() => object.name == *name,
                    (Some(network), _) => object.reference == *network,
                    (None, _) => false,
                },
                _ => false,
            };
            fits && self.is_here(&object.reference)
        };
        let port = self.inventory.objects().find(is_it).and_then(|object| port_of(self.inventory, &object.reference))?;
        match (&port, &backing.port) {
            (Port::Distributed { switch_uuid, .. }, Some(wanted)) if wanted.switch_uuid != *switch_uuid => None,
            _ => Some(port),
        }
    }

    fn edit(&mut self, vm: &mut Vm, index: usize, spec: &VirtualDevice) -> Result<(), Failure> {
        let port = match &spec.backing {
            Some(backing) if spec.is_ethernet() => {
                Some(self.port(backing).ok_or_else(|| Failure::device(index, "there is no such network"))?)
            }
            _ => None,
        };
        let Some(device) = vm.devices.iter_mut().find(|device| device.key == spec.key) else {
            return Err(Failure::device(index, "there is no such device"));
        };
        match &mut device.hardware {
            Hardware::Disk(disk) => {
                let wanted = spec.capacity().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(disk.capacity);
                if wanted < disk.capacity {
                    return Err(Failure::device(index, "a disk cannot shrink"));
                }
                if wanted > disk.capacity {
                    if disk.backing.parent.is_some() {
                        return Err(Failure::device(index, "a disk with a parent cannot be expanded"));
                    }
                    if self.inventory.free(&disk.backing.datastore) < wanted - disk.capacity {
                        return Err(Failure::no_disk_space(&self.store(&disk.backing.datastore)));
                    }
                    disk.capacity = wanted;
                }
            }
            Hardware::Nic(nic) => {
                if let Some(port) = port {
                    nic.port = port;
                }
                if spec.address_type.as_deref() == Some("manual")
                    && let Some(mac) = spec.mac_address.as_ref().filter(|mac| !mac.is_empty())
                {
                    nic.mac = checked_mac(mac).ok_or_else(|| Failure::device(index, "the MAC address is malformed"))?;
                    nic.address_type = "manual".to_owned();
                }
            }
            Hardware::Controller { .. } | Hardware::Plain { .. } => {}
        }
        Ok(())
    }

    fn remove(&mut self, vm: &mut Vm, index: usize, change: &VirtualDeviceConfigSpec) -> Result<(), Failure> {
        let key = change.device.key;
        let Some(position) = vm.devices.iter().position(|device| device.key == key) else {
            return Err(Failure::device(index, "there is no such device"));
        };
        if vm.devices.iter().any(|device| device.controller == Some(key)) {
            return Err(Failure::device(index, "the controller has devices"));
        }
        let removed = vm.devices.remove(position);
        if change.file_operation == Some(DeviceFileOperation::Destroy)
            && let Some(volume) = removed.disk().and_then(|disk| disk.volume.clone())
        {
            self.outside.destroyed_volumes.push(volume);
        }
        Ok(())
    }
}

/// The MAC address in lower case; `None` when it is none.
fn checked_mac(mac: &str) -> Option<String> {
    let pairs: Vec<&str> = mac.split(':').collect();
    let is_pair = |pair: &&str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
    (pairs.len() == 6 && pairs.iter().all(is_pair)).then(|| mac.to_ascii_lowercase())
}
