//! A virtual machine as read from vCenter, and the pure questions asked about it.

use std::collections::BTreeMap;

use vsphere_wire::machine::{GuestNicInfo, OptionValue, VirtualMachineFileInfo, VirtualMachinePowerState, VirtualMachineQuestionInfo};
use vsphere_wire::property::ObjectContent;
use vsphere_wire::{DecodeError, ManagedObjectReference, VirtualDevice};

use crate::marker::DISKS_KEY;

/// A virtual machine, read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualMachine {
    pub reference: ManagedObjectReference,
    pub name: String,
    /// Its folder; none inside a vApp.
    pub folder: Option<ManagedObjectReference>,
    pub is_template: bool,
    /// Lower case; empty while vCenter has not given one.
    pub instance_uuid: String,
    /// BIOS UUID, lower case; empty for a moment after a clone.
    pub bios_uuid: String,
    pub power: VirtualMachinePowerState,
    /// `connected`; `inaccessible`, `orphaned`, `disconnected` and such when its host or files are out of reach.
    pub connection: String,
    /// `[datastore] folder/name.vmx`.
    pub vmx_path: String,
    pub devices: Vec<VirtualDevice>,
    pub extra_config: BTreeMap<String, String>,
    pub host: Option<ManagedObjectReference>,
    pub guest: GuestState,
    /// What it waits for a person to answer.
    pub question: Option<String>,
}

/// What VMware tools in the guest report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestState {
    pub host_name: Option<String>,
    pub nics: Vec<GuestNicInfo>,
}

/// The properties that make a [`VirtualMachine`].
pub(crate) const PROPERTIES: [&str; 14] = [
    "name",
    "parent",
    "config.template",
    "config.instanceUuid",
    "config.uuid",
    "config.files",
    "config.hardware.device",
    "config.extraConfig",
    "runtime.powerState",
    "runtime.connectionState",
    "runtime.host",
    "runtime.question",
    "guest.hostName",
    "guest.net",
];

impl VirtualMachine {
    /// From the answer of the property collector.
    pub(crate) fn read(content: &ObjectContent) -> Result<Self, DecodeError> {
        let text = |name: &str| content.property(name).and_then(|value| value.text()).unwrap_or_default().to_owned();
        let reference = |name: &str| content.property(name).map(vsphere_wire::AnyValue::decode).transpose();
        let files: Option<VirtualMachineFileInfo> = content.property("config.files").map(vsphere_wire::AnyValue::decode).transpose()?;
        let options: Vec<OptionValue> =
            content.property("config.extraConfig").map(vsphere_wire::AnyValue::decode_array).transpose()?.unwrap_or_default();
        let question: Option<VirtualMachineQuestionInfo> =
            content.property("runtime.question").map(vsphere_wire::AnyValue::decode).transpose()?;
        Ok(Self {
            reference: content.object.clone(),
            name: text("name"),
            folder: reference("parent")?,
            is_template: text("config.template") == "true",
            instance_uuid: text("config.instanceUuid").to_ascii_lowercase(),
            bios_uuid: text("config.uuid").to_ascii_lowercase(),
            power: VirtualMachinePowerState::from_text(&text("runtime.powerState")),
            connection: text("runtime.connectionState"),
            vmx_path: files.and_then(|files| files.machine).unwrap_or_default(),
            devices: content.property("config.hardware.device").map(vsphere_wire::device::devices).transpose()?.unwrap_or_default(),
            extra_config: options
                .into_iter()
                .filter_map(|option| option.value.text().map(|text| (option.key.clone(), text.to_owned())))
                .collect(),
            host: reference("runtime.host")?,
            guest: GuestState {
                host_name: Some(text("guest.hostName")).filter(|name| !name.is_empty()),
                nics: content.property("guest.net").map(vsphere_wire::AnyValue::decode_array).transpose()?.unwrap_or_default(),
            },
            question: question.map(|question| question.text),
        })
    }

    /// Its network cards, in the order of their keys: the order in which they were asked for.
    pub fn nics(&self) -> Vec<&VirtualDevice> {
        let mut nics: Vec<&VirtualDevice> = self.devices.iter().filter(|device| device.is_ethernet()).collect();
        nics.sort_by_key(|device| device.key);
        nics
    }

    /// Its disks, in the order of their keys.
    pub fn disks(&self) -> Vec<&VirtualDevice> {
        let mut disks: Vec<&VirtualDevice> = self.devices.iter().filter(|device| device.is_disk()).collect();
        disks.sort_by_key(|device| device.key);
        disks
    }

    /// Whether its host or its files are out of reach, so that nothing about it can be decided.
    pub fn is_out_of_reach(&self) -> bool {
        !matches!(self.connection.as_str(), "connected" | "")
    }

    /// The value for the disks' key: which disks were made with the machine.
    pub fn own_disks(&self) -> String {
        let mut uuids: Vec<&str> = self.disks().iter().filter_map(|disk| disk.backing.as_ref()?.uuid.as_deref()).collect();
        uuids.sort_unstable();
        uuids.join(",")
    }

    /// The disks that were not made with the machine: persistent volumes, and whatever else was attached. They are detached before the machine is destroyed, because
    /// destroying it destroys every attached file.
    pub fn foreign_disks(&self) -> Vec<VirtualDevice> {
        let known: Option<Vec<&str>> =
            self.extra_config.get(DISKS_KEY).filter(|text| !text.is_empty()).map(|text| text.split(',').collect());
        let home = folder_of(&self.vmx_path);
        let is_foreign = |disk: &&VirtualDevice| {
            if disk.first_class_disk.is_some() {
                return true;
            }
            let Some(file) = disk.file_name() else { return true };
            let folder = folder_of(file);
            if folder.split('/').any(|part| part == "fcd") {
                return true;
            }
            match (&known, disk.backing.as_ref().and_then(|backing| backing.uuid.as_deref())) {
                (Some(known), Some(uuid)) => !known.contains(&uuid),
                // The folder alone, on any datastore: a machine moved to another datastore takes its disks along.
                _ => folder != home,
            }
        };
        self.disks().into_iter().filter(is_foreign).cloned().collect()
    }
}

/// The folder in `[datastore] folder/file`, without the datastore.
fn folder_of(path: &str) -> &str {
    let inside = path.split_once(']').map_or(path, |(_, inside)| inside).trim_start();
    inside.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vsphere_wire::DeviceBacking;
    use vsphere_wire::device::{DISK, FirstClassDiskId};

    fn disk(key: i32, file: &str, uuid: Option<&str>) -> VirtualDevice {
        let mut disk = VirtualDevice::new(DISK, key);
        disk.backing = Some(DeviceBacking { file_name: Some(file.to_owned()), uuid: uuid.map(str::to_owned), ..DeviceBacking::default() });
        disk
    }

    fn machine(disks: Vec<VirtualDevice>, known: Option<&str>) -> VirtualMachine {
        VirtualMachine {
            reference: ManagedObjectReference::new("VirtualMachine", "vm-1"),
            name: "node".to_owned(),
            folder: None,
            is_template: false,
            instance_uuid: String::new(),
            bios_uuid: String::new(),
            power: VirtualMachinePowerState::PoweredOff,
            connection: "connected".to_owned(),
            vmx_path: "[ds] node/node.vmx".to_owned(),
            devices: disks,
            extra_config: known.map(|known| (DISKS_KEY.to_owned(), known.to_owned())).into_iter().collect(),
            host: None,
            guest: GuestState::default(),
            question: None,
        }
    }

    #[test]
    fn disks_from_elsewhere_are_foreign() {
        let mut volume = disk(2003, "[ds] node/volume.vmdk", None);
        volume.first_class_disk = Some(FirstClassDiskId { id: "x".to_owned() });
        let disks = vec![
            disk(2000, "[ds] node/node.vmdk", None),
            disk(2001, "[ds] fcd/abc.vmdk", None),
            disk(2002, "[ds] kubevols/pvc.vmdk", None),
            volume,
            disk(2004, "[other] node/node_1.vmdk", None),
            VirtualDevice::new(DISK, 2005),
        ];
        let keys: Vec<i32> = machine(disks, None).foreign_disks().iter().map(|disk| disk.key).collect();
        assert_eq!(keys, [2001, 2002, 2003, 2005]);
    }

    #[test]
    fn recorded_disks_stay_ours_wherever_they_move() {
        let disks = vec![
            disk(2000, "[ds2] node_1/node.vmdk", Some("a")),
            disk(2001, "[ds] node/added-by-hand.vmdk", Some("b")),
            disk(2002, "[ds] fcd/volume.vmdk", Some("a")),
        ];
        let machine = machine(disks, Some("a"));
        let keys: Vec<i32> = machine.foreign_disks().iter().map(|disk| disk.key).collect();
        assert_eq!(keys, [2001, 2002], "one added by hand is not ours, and a first-class disk never is");
        assert_eq!(machine.own_disks(), "a,a,b");
    }
}
