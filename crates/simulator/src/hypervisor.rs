//! The border between the virtual machines and what runs inside them.
//!
//! The inventory tells [`Guests`] when a machine's power comes and goes; a guest reads its settings and reports its addresses through
//! [`Hypervisor`]. Neither side sees the other's state: a guest knows only what its own virtual hardware and `guestinfo` variables say,
//! as in a real machine. [`VmTruth`] is for the rule checker and for tests, never for a guest.

use std::collections::BTreeMap;
use std::fmt;

/// A VM's managed object id (`vm-1042`), unique in one vCenter and never used twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(pub String);

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A virtual network adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Lower-case hex pairs with colons.
    pub mac: String,
    /// The name of the network or port group it is plugged into.
    pub network: String,
}

/// A virtual disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The device key on the VM: 2000 and up.
    pub key: i32,
    /// Its file, `[datastore] folder/name.vmdk`.
    pub file: String,
    /// Bytes.
    pub capacity: u64,
    /// The snapshot disk it is a child of, for a linked clone.
    pub parent_file: Option<String>,
    /// A first class disk (a persistent volume): outlives the VM.
    pub is_persistent: bool,
}

/// A VM that was switched on, as its guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoweredOn {
    pub id: VmId,
    pub name: String,
    /// Lower case, in the order in which vCenter shows it.
    pub bios_uuid: String,
    pub instance_uuid: String,
    pub nics: Vec<Nic>,
    /// The Talos version on the system disk, inherited through clones; none: nothing bootable.
    pub template_version: Option<String>,
    pub disks: Vec<Disk>,
    /// The vCenter server it belongs to, as the manifests name it.
    pub vcenter: String,
    /// Identity of the system disk's content: a clone gets a fresh one, so that what a guest wrote to its disk stays with that disk.
    pub fresh_disk_id: String,
}

/// What runs inside VMs. Calls are made in the order of the events, outside any lock of the inventory; they must return at once.
pub trait Guests: Send + Sync {
    /// The VM has power.
    fn powered_on(&self, vm: PoweredOn);
    /// The VM lost power, from outside.
    fn powered_off(&self, id: &VmId);
    /// The VM and its disks are gone.
    fn destroyed(&self, id: &VmId);
}

/// Nothing runs inside VMs.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoGuests;

impl Guests for NoGuests {
    fn powered_on(&self, _: PoweredOn) {}
    fn powered_off(&self, _: &VmId) {}
    fn destroyed(&self, _: &VmId) {}
}

/// What VMware tools tell the host about their guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolsReport {
    pub host_name: String,
    /// Per adapter: MAC and the addresses with their prefix length (`10.0.0.5/24`).
    pub nets: Vec<(String, Vec<String>)>,
}

/// A VM as it really is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmTruth {
    pub id: VmId,
    pub name: String,
    /// The inventory path of its folder, `/dc1/vm/cluster-a`.
    pub folder: String,
    pub bios_uuid: String,
    pub instance_uuid: String,
    pub powered_on: bool,
    pub is_template: bool,
    pub extra_config: BTreeMap<String, String>,
    pub annotation: String,
    pub nics: Vec<Nic>,
    pub disks: Vec<Disk>,
    /// Who made it.
    pub origin: Origin,
    /// The last change that did not come from outside the API's callers: who and what, in words.
    pub changes: Vec<String>,
}

/// How a VM came into the inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Described by the site from the start.
    Site,
    /// Cloned by a client over the API.
    Api,
    /// Made by a person (a foreign act of a test): nothing of it may be touched.
    Person,
}

/// What a guest, or the checker, can ask of the inventory.
pub trait Hypervisor: Send + Sync {
    /// The value of the variable `key` (in full: `guestinfo.talos.config`) in the VM's settings, now.
    fn guestinfo(&self, id: &VmId, key: &str) -> Option<String>;
    /// Tools run and say this; `None`: they stopped.
    fn report_tools(&self, id: &VmId, report: Option<ToolsReport>);
    /// The guest switched itself off. [`Guests::powered_off`] is not called for it.
    fn power_off_from_inside(&self, id: &VmId);
    /// Whether `user` may sign in to the vCenter `server` with `password`: asked by the cloud provider's stand-in.
    fn sign_in(&self, server: &str, user: &str, password: &str) -> bool;
    /// Every VM and template.
    fn vms(&self) -> Vec<VmTruth>;
}
