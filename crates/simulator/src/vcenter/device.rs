//! The virtual hardware of a VM.

use vsphere_wire::value::ManagedObjectReference;

use super::val::Val;

/// A file that holds a disk's content, and the file it is the difference to.
#[derive(Clone, Debug, PartialEq)]
pub struct Backing {
    /// `[datastore] folder/name.vmdk`.
    pub file: String,
    pub datastore: ManagedObjectReference,
    pub uuid: String,
    pub is_thin: bool,
    pub mode: String,
    pub parent: Option<Box<Backing>>,
    /// It belongs to another VM, which a linked clone builds on; so does all below it.
    pub is_foreign: bool,
}

impl Backing {
    /// This file and those below it.
    pub fn chain(&self) -> impl Iterator<Item = &Backing> {
        std::iter::successors(Some(self), |backing| backing.parent.as_deref())
    }

    /// Those of the chain that are the VM's own.
    pub fn own(&self) -> impl Iterator<Item = &Backing> {
        self.chain().take_while(|backing| !backing.is_foreign)
    }

    fn val(&self) -> Val {
        let mut members = vec![
            ("fileName", Val::string(&self.file)),
            ("datastore", Val::reference(&self.datastore)),
            ("diskMode", Val::string(&self.mode)),
            ("thinProvisioned", Val::boolean(self.is_thin)),
            ("uuid", Val::string(&self.uuid)),
        ];
        if let Some(parent) = &self.parent {
            members.push(("parent", parent.val_as("VirtualDiskFlatVer2BackingInfo", false)));
        }
        Val::descendant("VirtualDiskFlatVer2BackingInfo", members)
    }

    fn val_as(&self, kind: &'static str, has_descendants: bool) -> Val {
        match self.val() {
            Val::Data { members, .. } => Val::Data { kind, has_descendants, members },
            other => other,
        }
    }
}

/// What a network adapter is plugged into.
#[derive(Clone, Debug, PartialEq)]
pub enum Port {
    Standard { network: ManagedObjectReference, name: String },
    Distributed { network: ManagedObjectReference, switch_uuid: String, key: String },
}

impl Port {
    /// The network or port group.
    pub fn network(&self) -> &ManagedObjectReference {
        match self {
            Self::Standard { network, .. } | Self::Distributed { network, .. } => network,
        }
    }

    fn val(&self) -> Val {
        match self {
            Self::Standard { network, name } => Val::descendant(
                "VirtualEthernetCardNetworkBackingInfo",
                [("deviceName", Val::string(name)), ("useAutoDetect", Val::boolean(false)), ("network", Val::reference(network))],
            ),
            Self::Distributed { switch_uuid, key, .. } => {
                let port = Val::data(
                    "DistributedVirtualSwitchPortConnection",
                    [("switchUuid", Val::string(switch_uuid)), ("portgroupKey", Val::string(key))],
                );
                Val::descendant("VirtualEthernetCardDistributedVirtualPortBackingInfo", [("port", port)])
            }
        }
    }
}

/// A device, without its key.
#[derive(Clone, Debug, PartialEq)]
pub enum Hardware {
    /// A controller: type name, bus number. `is_scsi`: disks can be attached to it.
    Controller {
        kind: String,
        bus: i32,
        is_scsi: bool,
    },
    Disk(Disk),
    Nic(Nic),
    /// Something without meaning here: keyboard, pointing device, video card, CD-ROM.
    Plain {
        kind: String,
        label: String,
    },
}

/// A disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    /// Bytes.
    pub capacity: u64,
    pub backing: Backing,
    /// A first class disk's id: a persistent volume, which outlives the VM.
    pub volume: Option<String>,
}

/// A network adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Nic {
    /// `VirtualVmxnet3`, `VirtualE1000`...
    pub kind: String,
    pub mac: String,
    /// `assigned` by vCenter, or `manual`.
    pub address_type: String,
    pub port: Port,
}

/// A device of a VM.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    pub key: i32,
    pub controller: Option<i32>,
    pub unit: Option<i32>,
    pub hardware: Hardware,
}

impl Device {
    /// Its type on the wire.
    pub fn kind(&self) -> &str {
        match &self.hardware {
            Hardware::Controller { kind, .. } | Hardware::Plain { kind, .. } => kind,
            Hardware::Disk(_) => "VirtualDisk",
            Hardware::Nic(nic) => &nic.kind,
        }
    }

    pub fn disk(&self) -> Option<&Disk> {
        match &self.hardware {
            Hardware::Disk(disk) => Some(disk),
            _ => None,
        }
    }

    pub fn disk_mut(&mut self) -> Option<&mut Disk> {
        match &mut self.hardware {
            Hardware::Disk(disk) => Some(disk),
            _ => None,
        }
    }

    pub fn nic(&self) -> Option<&Nic> {
        match &self.hardware {
            Hardware::Nic(nic) => Some(nic),
            _ => None,
        }
    }

    pub fn nic_mut(&mut self) -> Option<&mut Nic> {
        match &mut self.hardware {
            Hardware::Nic(nic) => Some(nic),
            _ => None,
        }
    }

    fn label(&self) -> (String, String) {
        match &self.hardware {
            Hardware::Controller { kind, bus, is_scsi: true } => {
                (format!("SCSI controller {bus}"), kind.strip_suffix("Controller").unwrap_or(kind).to_owned())
            }
            Hardware::Controller { kind, bus, .. } => {
                let name = kind.trim_start_matches("Virtual").trim_end_matches("Controller");
                (format!("{name} {bus}"), format!("{name} {bus}"))
            }
            Hardware::Disk(disk) => (format!("Hard disk {}", self.key - 1999), format!("{} KB", disk.capacity / 1024)),
            Hardware::Nic(nic) => {
                let summary = match &nic.port {
                    Port::Standard { name, .. } => name.clone(),
                    Port::Distributed { switch_uuid, .. } => format!("DVSwitch: {switch_uuid}"),
                };
                (format!("Network adapter {}", self.key - 3999), summary)
            }
            Hardware::Plain { label, .. } => (label.clone(), label.clone()),
        }
    }

    /// The keys of the devices on this controller.
    fn attached(&self, all: &[Device]) -> Val {
        Val::Array("int", all.iter().filter(|device| device.controller == Some(self.key)).map(|device| Val::int(device.key)).collect())
    }

    /// The device as data; `all` are the VM's devices, `is_powered_on` tells whether it is connected.
    pub fn val(&self, all: &[Device], is_powered_on: bool) -> Val {
        let (label, summary) = self.label();
        let info = Val::descendant("Description", [("label", Val::string(label)), ("summary", Val::string(summary))]);
        let mut members = vec![("key", Val::int(self.key)), ("deviceInfo", info)];
        match &self.hardware {
            Hardware::Disk(disk) => members.push(("backing", disk.backing.val())),
            Hardware::Nic(nic) => {
                members.push(("backing", nic.port.val()));
                members.push(("connectable", connectable(is_powered_on)));
            }
            Hardware::Controller { .. } | Hardware::Plain { .. } => {}
        }
        if let Some(controller) = self.controller {
            members.push(("controllerKey", Val::int(controller)));
        }
        if let Some(unit) = self.unit {
            members.push(("unitNumber", Val::int(unit)));
        }
        match &self.hardware {
            Hardware::Controller { bus, is_scsi, .. } => {
                members.push(("busNumber", Val::int(*bus)));
                members.push(("device", self.attached(all)));
                if *is_scsi {
                    members.push(("hotAddRemove", Val::boolean(true)));
                    members.push(("sharedBus", Val::enumeration("VirtualSCSISharing", "noSharing")));
                    members.push(("scsiCtlrUnitNumber", Val::int(7)));
                }
            }
            Hardware::Disk(disk) => {
                members.push(("capacityInKB", Val::long(disk.capacity / 1024)));
                members.push(("capacityInBytes", Val::long(disk.capacity)));
                members.push(("diskObjectId", Val::string(format!("{}-{}", 1, self.key))));
                if let Some(volume) = &disk.volume {
                    members.push(("vDiskId", Val::data("ID", [("id", Val::string(volume))])));
                }
            }
            Hardware::Nic(nic) => {
                members.push(("addressType", Val::string(&nic.address_type)));
                members.push(("macAddress", Val::string(&nic.mac)));
                members.push(("wakeOnLanEnabled", Val::boolean(true)));
            }
            Hardware::Plain { .. } => {}
        }
        Val::Data { kind: known_kind(self.kind()), has_descendants: true, members }
    }
}

fn connectable(is_connected: bool) -> Val {
    Val::data(
        "VirtualDeviceConnectInfo",
        [
            ("startConnected", Val::boolean(true)),
            ("allowGuestControl", Val::boolean(true)),
            ("connected", Val::boolean(is_connected)),
            ("status", Val::string(if is_connected { "ok" } else { "untried" })),
        ],
    )
}

/// The device types this simulator builds, as static names; another one is shown as its nearest ancestor.
fn known_kind(kind: &str) -> &'static str {
    const KNOWN: [&str; 20] = [
        "VirtualIDEController",
        "VirtualPS2Controller",
        "VirtualPCIController",
        "VirtualSIOController",
        "ParaVirtualSCSIController",
        "VirtualLsiLogicController",
        "VirtualLsiLogicSASController",
        "VirtualBusLogicController",
        "VirtualAHCIController",
        "VirtualNVMEController",
        "VirtualKeyboard",
        "VirtualPointingDevice",
        "VirtualMachineVideoCard",
        "VirtualMachineVMCIDevice",
        "VirtualCdrom",
        "VirtualDisk",
        "VirtualVmxnet3",
        "VirtualVmxnet2",
        "VirtualE1000",
        "VirtualE1000e",
    ];
    KNOWN.into_iter().find(|known| *known == kind).unwrap_or("VirtualDevice")
}

/// Whether adapters of this type exist.
pub fn is_nic(kind: &str) -> bool {
    matches!(kind, "VirtualVmxnet3" | "VirtualVmxnet2" | "VirtualE1000" | "VirtualE1000e")
}

/// Whether disks can hang on a controller of this type.
pub fn is_scsi(kind: &str) -> bool {
    matches!(kind, "ParaVirtualSCSIController" | "VirtualLsiLogicController" | "VirtualLsiLogicSASController" | "VirtualBusLogicController")
}

/// The devices that every VM has, as the Talos OVA's hardware description makes them.
pub fn chassis() -> Vec<Device> {
    let controller = |key, kind: &str, bus, is_scsi, parent: Option<i32>| Device {
        key,
        controller: parent,
        unit: parent.map(|_| 3),
        hardware: Hardware::Controller { kind: kind.to_owned(), bus, is_scsi },
    };
    let plain = |key, kind: &str, label: &str, parent, unit| Device {
        key,
        controller: Some(parent),
        unit: Some(unit),
        hardware: Hardware::Plain { kind: kind.to_owned(), label: label.to_owned() },
    };
    vec![
        controller(200, "VirtualIDEController", 0, false, None),
        controller(201, "VirtualIDEController", 1, false, None),
        controller(300, "VirtualPS2Controller", 0, false, None),
        controller(100, "VirtualPCIController", 0, false, None),
        controller(400, "VirtualSIOController", 0, false, None),
        plain(600, "VirtualKeyboard", "Keyboard", 300, 0),
        plain(700, "VirtualPointingDevice", "Pointing device", 300, 1),
        plain(500, "VirtualMachineVideoCard", "Video card", 100, 0),
        controller(1000, "ParaVirtualSCSIController", 0, true, Some(100)),
    ]
}
