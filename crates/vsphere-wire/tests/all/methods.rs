//! Typed messages: order on the wire, and strictness where a real server is strict.

use vsphere_wire::device::{VMXNET3, VirtualDeviceConfigSpec};
use vsphere_wire::machine::{
    OptionValue, VirtualMachineCloneSpec, VirtualMachineConfigSpec, VirtualMachineFlagInfo, VirtualMachineRelocateSpec,
};
use vsphere_wire::method::{self, CloneVm, request_element};
use vsphere_wire::{DecodeError, DeviceBacking, Element, Envelope, ManagedObjectReference, Request, VirtualDevice};

fn reference(kind: &str, id: &str) -> ManagedObjectReference {
    ManagedObjectReference::new(kind, id)
}

fn clone() -> CloneVm {
    let card = |key, backing| {
        let mut card = VirtualDevice::new(VMXNET3, key);
        card.backing = Some(backing);
        VirtualDeviceConfigSpec::add(card)
    };
    CloneVm {
        this: reference("VirtualMachine", "vm-1"),
        folder: reference("Folder", "group-v3"),
        name: "node".to_owned(),
        spec: VirtualMachineCloneSpec {
            location: VirtualMachineRelocateSpec {
                datastore: Some(reference("Datastore", "datastore-1")),
                disk_move_type: Some("createNewChildDiskBacking".to_owned()),
                pool: Some(reference("ResourcePool", "resgroup-1")),
                ..Default::default()
            },
            is_template: false,
            config: Some(VirtualMachineConfigSpec {
                instance_uuid: Some("5a0052ea-a333-5898-aa41-3e5377f3d840".to_owned()),
                flags: Some(VirtualMachineFlagInfo { is_disk_uuid_enabled: Some(true), ..Default::default() }),
                cpus: Some(2),
                memory_mib: Some(4096),
                device_changes: vec![
                    card(-101, DeviceBacking::network("VM Network")),
                    card(-102, DeviceBacking::port_group("50 1e", "dvportgroup-9")),
                    card(-103, DeviceBacking::opaque("id", "nsx.LogicalSwitch")),
                ],
                extra_config: vec![OptionValue::text("guestinfo.talosphere.owner", "a<b>&\"c\"")],
                is_vapp_config_removed: Some(true),
                ..Default::default()
            }),
            customization: None,
            is_powered_on: false,
            snapshot: Some(reference("VirtualMachineSnapshot", "snapshot-1")),
            with_memory: Some(false),
            tpm_provision_policy: None,
        },
    }
}

#[test]
fn a_clone_survives_the_wire() {
    let sent = clone();
    let document = Envelope::new(request_element(&sent)).with_operation_id("ts-1").to_document();
    let envelope = Envelope::parse(&document).unwrap();
    assert_eq!(envelope.operation_id(), Some("ts-1"));
    assert_eq!(Request::read_strictly(&envelope.body).unwrap(), Request::CloneVm(sent));
}

#[test]
fn members_stand_in_the_order_of_the_schema() {
    let element = request_element(&clone());
    let names = |element: &Element| element.children.iter().map(|child| child.local().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&element), ["_this", "folder", "name", "spec"]);
    let spec = element.child("spec").unwrap();
    assert_eq!(names(spec), ["location", "template", "config", "powerOn", "snapshot", "memory"]);
    assert_eq!(names(spec.child("location").unwrap()), ["datastore", "diskMoveType", "pool"]);
    let config = names(spec.child("config").unwrap());
    let expected = [
        "instanceUuid",
        "flags",
        "numCPUs",
        "memoryMB",
        "deviceChange",
        "deviceChange",
        "deviceChange",
        "extraConfig",
        "vAppConfigRemoved",
    ];
    assert_eq!(config, expected);
    let change = spec.child("config").unwrap().child("deviceChange").unwrap();
    assert_eq!(names(change), ["operation", "device"]);
    assert_eq!(names(change.child("device").unwrap()), ["key", "backing"]);
}

#[test]
fn strict_reading_refuses_what_is_unknown_or_misplaced() {
    let mut unknown = request_element(&clone());
    unknown.children[3].children.push(Element::vim("linked").with_text("true"));
    assert!(Request::read(&unknown).is_ok());
    let Err(DecodeError::Surplus { element, found }) = Request::read_strictly(&unknown) else { panic!("accepted") };
    assert_eq!((element.as_str(), found.as_str()), ("spec", "<linked>"));
    let mut misplaced = request_element(&clone());
    misplaced.children.swap(1, 2);
    assert!(matches!(Request::read_strictly(&misplaced), Err(DecodeError::Surplus { .. })));
}

#[test]
fn a_missing_parameter_is_named() {
    let mut element = request_element(&clone());
    element.children.remove(2);
    let error = Request::read(&element).unwrap_err();
    assert_eq!(error.to_string(), "<CloneVM_Task> has no <name>");
}

#[test]
fn absent_results_are_absent() {
    let element = method::response_element::<method::FindByUuid>(&None);
    assert_eq!(method::read_response::<method::FindByUuid>(&element).unwrap(), None);
    let element =
        method::response_element::<method::FindAllByUuid>(&vec![reference("VirtualMachine", "vm-1"), reference("VirtualMachine", "vm-2")]);
    assert_eq!(method::read_response::<method::FindAllByUuid>(&element).unwrap().len(), 2);
    assert!(method::read_response::<method::FindByUuid>(&element).is_err());
}
