//! A virtual machine as the inventory keeps it, and how its settings change.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::device::{Device, Disk, Nic};
use super::inventory::Reference;
use crate::hypervisor::{Origin, ToolsReport};

/// What a linked clone's difference takes at first, and a snapshot's.
const DELTA: u64 = 64 * 1024 * 1024;

/// A virtual machine or template.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Lower case, in vCenter's order; what the guest's firmware shows.
    pub bios_uuid: String,
    pub instance_uuid: String,
    pub is_template: bool,
    pub is_powered_on: bool,
    pub cpus: i32,
    pub cores_per_socket: i32,
    pub memory_mib: i64,
    pub guest_id: String,
    pub annotation: String,
    /// `vmx-15`.
    pub version: String,
    pub firmware: String,
    pub is_disk_uuid_enabled: bool,
    pub has_vapp_config: bool,
    pub extra_config: BTreeMap<String, String>,
    pub devices: Vec<Device>,
    /// None for a template.
    pub pool: Option<Reference>,
    pub host: Reference,
    /// `[datastore] folder/name.vmx`.
    pub home: String,
    pub home_datastore: Reference,
    pub snapshots: Vec<Reference>,
    pub current_snapshot: Option<Reference>,
    /// The Talos release on the system disk, inherited by clones.
    pub talos_version: Option<String>,
    /// Identity of the system disk's content: another one for each clone.
    pub disk_id: String,
    pub tools: Option<ToolsReport>,
    pub boot_time: Option<Timestamp>,
    pub created: Timestamp,
    pub change_version: Timestamp,
    pub origin: Origin,
    /// What a person did to it, in words.
    pub acts: Vec<String>,
    /// A task is working on it.
    pub busy: Option<Reference>,
}

impl Vm {
    pub fn nics(&self) -> impl Iterator<Item = &Nic> {
        self.devices.iter().filter_map(Device::nic)
    }

    pub fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.devices.iter().filter_map(Device::disk)
    }

    /// Where its files lie, first its home.
    pub fn datastores(&self) -> Vec<Reference> {
        let mut found = vec![self.home_datastore.clone()];
        for disk in self.disks() {
            if !found.contains(&disk.backing.datastore) {
                found.push(disk.backing.datastore.clone());
            }
        }
        found
    }

    /// What its adapters are plugged into, once each.
    pub fn networks(&self) -> Vec<Reference> {
        let mut seen = BTreeSet::new();
        self.nics().map(|nic| nic.port.network().clone()).filter(|network| seen.insert(network.clone())).collect()
    }

    /// The folder of its files, without the datastore: `name`.
    pub fn directory(&self) -> &str {
        let path = self.home.split_once("] ").map_or(self.home.as_str(), |(_, path)| path);
        path.rsplit_once('/').map_or(path, |(directory, _)| directory)
    }

    /// Bytes on a datastore: whole disks in full, differences little.
    pub fn used_on(&self, datastore: &Reference) -> u64 {
        let size = |disk: &Disk, is_difference: bool| if is_difference { DELTA } else { disk.capacity };
        self.disks()
            .flat_map(|disk| disk.backing.own().map(move |backing| (disk, backing)))
            .filter(|(_, backing)| backing.datastore == *datastore)
            .map(|(disk, backing)| size(disk, backing.parent.is_some()))
            .sum()
    }

    /// Sets a variable; an empty value removes it.
    pub fn set_extra(&mut self, key: &str, value: &str) {
        if value.is_empty() {
            self.extra_config.remove(key);
        } else {
            self.extra_config.insert(key.to_owned(), value.to_owned());
        }
    }

    /// A key that no device has, the first from `first` on.
    pub fn free_key(&self, first: i32) -> i32 {
        (first..i32::MAX).find(|key| !self.devices.iter().any(|device| device.key == *key)).unwrap_or(first)
    }

    /// The first free unit on a controller; 7 belongs to the SCSI controller itself.
    pub fn free_unit(&self, controller: i32) -> i32 {
        let is_taken = |unit: i32| self.devices.iter().any(|device| device.controller == Some(controller) && device.unit == Some(unit));
        (0..64).find(|unit| *unit != 7 && !is_taken(*unit)).unwrap_or(63)
    }
}
