//! From a template to a VM and back to nothing.

use std::sync::{Arc, Mutex};

use simulator::Latency;
use simulator::hooks::{Phase, Verdict};
use simulator::hypervisor::{Guests, Hypervisor, Origin, PoweredOn, ToolsReport, VmId};
use vsphere_wire::device::{VirtualDevice, VirtualDeviceConfigSpec, devices};
use vsphere_wire::machine::{GuestNicInfo, OptionValue, VirtualMachineConfigSpec};
use vsphere_wire::method::*;
use vsphere_wire::service::TaskInfoState;
use vsphere_wire::{DeviceBacking, ManagedObjectReference as Reference};

use super::support::*;

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Guests for Heard {
    fn powered_on(&self, vm: PoweredOn) {
        let version = vm.template_version.as_deref().unwrap_or("nothing");
        self.0.lock().unwrap().push(format!("on {} {version} {} nics", vm.name, vm.nics.len()));
    }

    fn powered_off(&self, id: &VmId) {
        self.0.lock().unwrap().push(format!("off {id}"));
    }

    fn destroyed(&self, id: &VmId) {
        self.0.lock().unwrap().push(format!("destroyed {id}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_vm_lives_from_clone_to_destruction() {
    let world = World::start(slow()).await;
    let heard = Arc::new(Heard::default());
    world.simulator.vcenter().attach(heard.clone());
    let client = world.client().await;

    let task = client.clone_task("talos", "node1", true).await.unwrap();
    assert_eq!(client.task_info(&task).await.state, TaskInfoState::Running);
    assert!(client.at("dc1/vm/team/node1").await.is_none(), "a clone is seen when it is whole");
    let vm = client.outcome(&task).await.unwrap().unwrap();
    assert_eq!(client.at("dc1/vm/team/node1").await.as_ref(), Some(&vm));
    assert_eq!(client.text(&vm, "config.instanceUuid").await, "11111111-2222-4333-8444-555555555555");
    assert_eq!(client.text(&vm, "config.hardware.memoryMB").await, "4096");
    assert_eq!(client.text(&vm, "config.extraConfig[\"disk.EnableUUID\"].value").await, "true", "settings are inherited");
    assert_eq!(client.text(&vm, "config.extraConfig[\"guestinfo.owner\"].value").await, "me");
    let made = devices(&client.property(&vm, "config.hardware.device").await.unwrap()).unwrap();
    let disk = made.iter().find(|device| device.is_disk()).unwrap();
    assert_eq!(disk.file_name(), Some("[datastore6] node1/node1.vmdk"));
    assert_eq!(disk.backing.as_ref().unwrap().parent.as_ref().unwrap().file_name.as_deref(), Some("[datastore5] talos/talos.vmdk"));
    let mac = made.iter().find(|device| device.is_ethernet()).unwrap().mac_address.clone().unwrap();
    assert!(mac.starts_with("00:50:56:"), "{mac}");

    let nic = VirtualDevice { backing: Some(DeviceBacking::network("VM Network")), ..VirtualDevice::new("VirtualVmxnet3", -1) };
    let spec = VirtualMachineConfigSpec {
        device_changes: vec![VirtualDeviceConfigSpec::add(nic)],
        extra_config: vec![OptionValue::text("guestinfo.talos.config", "dmVyc2lvbg=="), OptionValue::text("guestinfo.owner", "")],
        ..VirtualMachineConfigSpec::default()
    };
    let task = client.call(ReconfigureVm { this: vm.clone(), spec }).await.unwrap();
    client.outcome(&task).await.unwrap();
    let id = VmId(vm.id.clone());
    assert_eq!(world.simulator.vcenter().guestinfo(&id, "guestinfo.talos.config").as_deref(), Some("dmVyc2lvbg=="));
    assert_eq!(world.simulator.vcenter().guestinfo(&id, "guestinfo.owner"), None, "an empty value removes the key");

    let task = client.call(PowerOnVm { this: vm.clone(), host: None }).await.unwrap();
    client.outcome(&task).await.unwrap();
    assert_eq!(*heard.0.lock().unwrap(), ["on node1 v1.4.8 2 nics"]);
    let report = ToolsReport { host_name: "node1".to_owned(), nets: vec![(mac.clone(), vec!["10.0.0.5/24".to_owned()])] };
    world.simulator.vcenter().report_tools(&id, Some(report));
    assert_eq!(client.text(&vm, "guest.ipAddress").await, "10.0.0.5");
    let nets: Vec<GuestNicInfo> = client.property(&vm, "guest.net").await.unwrap().decode_array().unwrap();
    assert_eq!((nets[0].mac_address.as_deref(), nets[0].device_key), (Some(mac.as_str()), 4000));
    assert_eq!(nets[0].ip_config.as_ref().unwrap().addresses[0].prefix_length, 24);

    let task = client.call(Destroy { this: vm.clone() }).await.unwrap();
    let fault = client.outcome(&task).await.unwrap_err();
    assert_eq!((fault.kind(), fault.detail("existingState")), ("InvalidPowerState", Some("poweredOn")));
    let task = client.call(PowerOffVm { this: vm.clone() }).await.unwrap();
    client.outcome(&task).await.unwrap();
    let task = client.call(Destroy { this: vm.clone() }).await.unwrap();
    client.outcome(&task).await.unwrap();
    assert_eq!(heard.0.lock().unwrap()[1..], [format!("off {id}"), format!("destroyed {id}")]);
    assert_eq!(client.properties(&vm, &["name"]).await.unwrap_err().kind(), "ManagedObjectNotFound");
    assert!(world.simulator.truth().vms.iter().all(|vm| vm.origin == Origin::Site));
    assert_eq!(
        world.steps(),
        [
            format!("login {USER}: ok"),
            format!("clone {id} node1: ok"),
            format!("reconfigure {id} node1: ok"),
            format!("power-on {id} node1: ok"),
            format!("tools {id} node1: node1 10.0.0.5/24"),
            format!("destroy {id} node1: InvalidPowerState"),
            format!("power-off {id} node1: ok"),
            format!("destroy {id} node1: ok"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_linked_clone_needs_a_snapshot() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let task = client.clone_task("bare", "node1", true).await.unwrap();
    let fault = client.outcome(&task).await.unwrap_err();
    assert_eq!((fault.kind(), fault.detail("invalidProperty")), ("InvalidArgument", Some("spec.snapshot")));
    assert!(client.at("dc1/vm/team/node1").await.is_none());
    let task = client.clone_task("bare", "node1", false).await.unwrap();
    client.outcome(&task).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_disk_of_a_linked_clone_cannot_grow_and_no_disk_can_shrink() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    for (name, linked, gib, expected) in [
        ("a", true, 20, Some("InvalidDeviceSpec")),
        ("b", false, 20, None),
        ("c", false, 5, Some("InvalidDeviceSpec")),
        ("d", false, 5000, Some("NoDiskSpace")),
    ] {
        let source = client.at("dc1/vm/talos").await.unwrap();
        let snapshot = client.property(&source, "snapshot.currentSnapshot").await.map(|value| value.decode().unwrap());
        let mut spec = client.clone_spec(snapshot, linked).await;
        let disk = VirtualDevice { capacity_kib: Some(gib << 20), ..VirtualDevice::new("VirtualDisk", 2000) };
        spec.config.as_mut().unwrap().device_changes = vec![VirtualDeviceConfigSpec::edit(disk)];
        let folder = client.at("dc1/vm/team").await.unwrap();
        let task = client.call(CloneVm { this: source, folder, name: name.to_owned(), spec }).await.unwrap();
        let outcome = client.outcome(&task).await;
        assert_eq!(outcome.err().map(|fault| fault.kind().to_owned()).as_deref(), expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_taken_from_the_moment_of_the_call() {
    let world = World::start(slow()).await;
    let client = world.client().await;
    let first = client.clone_task("talos", "node1", true).await.unwrap();
    let second = client.clone_task("talos", "node1", true).await.unwrap();
    let fault = client.outcome(&second).await.unwrap_err();
    assert_eq!((fault.kind(), fault.detail("name")), ("DuplicateName", Some("node1")));
    assert_eq!(client.task_info(&first).await.state, TaskInfoState::Running);
    let vm = client.outcome(&first).await.unwrap();
    let third = client.clone_task("talos", "node1", true).await.unwrap();
    let fault = client.outcome(&third).await.unwrap_err();
    assert_eq!(fault.reference("object"), vm, "the fault names who has the name");
    // Nobody gets an instance UUID that is taken.
    let fourth = client.clone_task("talos", "node2", true).await.unwrap();
    let other = client.outcome(&fourth).await.unwrap().unwrap();
    assert_ne!(client.text(&other, "config.instanceUuid").await, client.text(&vm.unwrap(), "config.instanceUuid").await);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_clone_leaves_nothing_and_frees_its_name() {
    let world = World::start(slow()).await;
    let client = world.client().await;
    let task = client.clone_task("talos", "node1", true).await.unwrap();
    world.clock.sleep(seconds(3)).await;
    assert_eq!(client.task_info(&task).await.progress, Some(25));
    client.call(CancelTask { this: task.clone() }).await.unwrap();
    assert_eq!(client.outcome(&task).await.unwrap_err().kind(), "RequestCanceled");
    let again = client.clone_task("talos", "node1", true).await.unwrap();
    let vm = client.outcome(&again).await.unwrap();
    world.clock.sleep(seconds(60)).await;
    assert_eq!(client.at("dc1/vm/team/node1").await, vm);
    assert_eq!(client.call(CancelTask { this: task }).await.unwrap_err().kind(), "InvalidState");
}

#[tokio::test(start_paused = true)]
async fn clones_beyond_the_slots_queue() {
    let mut latency = slow();
    latency.vcenter.concurrent_clones = 2;
    let world = World::start(latency).await;
    let client = world.client().await;
    let mut tasks = Vec::new();
    for number in 0..3 {
        tasks.push(client.clone_task("talos", &format!("node{number}"), true).await.unwrap());
    }
    world.clock.sleep(seconds(1)).await;
    let states = [&tasks[0], &tasks[1], &tasks[2]].map(|task| async { client.task_info(task).await.state });
    let [first, second, third] = states;
    assert_eq!((first.await, second.await, third.await), (TaskInfoState::Running, TaskInfoState::Running, TaskInfoState::Queued));
    for task in &tasks {
        client.outcome(task).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_vm_refuses_a_second_task() {
    let world = World::start(slow()).await;
    let client = world.client().await;
    let task = client.clone_task("talos", "node1", true).await.unwrap();
    let vm = client.outcome(&task).await.unwrap().unwrap();
    let on = client.call(PowerOnVm { this: vm.clone(), host: None }).await.unwrap();
    let spec = VirtualMachineConfigSpec { annotation: Some("x".to_owned()), ..VirtualMachineConfigSpec::default() };
    let reconfigure = client.call(ReconfigureVm { this: vm.clone(), spec: spec.clone() }).await.unwrap();
    assert_eq!(client.outcome(&reconfigure).await.unwrap_err().kind(), "TaskInProgress");
    client.outcome(&on).await.unwrap();
    let again = client.call(PowerOnVm { this: vm.clone(), host: None }).await.unwrap();
    assert_eq!(client.outcome(&again).await.unwrap_err().kind(), "InvalidPowerState");
    let reconfigure = client.call(ReconfigureVm { this: vm, spec }).await.unwrap();
    client.outcome(&reconfigure).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_template_is_protected() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let template = client.at("dc1/vm/talos").await.unwrap();
    let kind = |task: Reference| {
        let client = client.clone();
        async move { client.outcome(&task).await.err().map(|fault| fault.kind().to_owned()).unwrap_or_default() }
    };
    let on = client.call(PowerOnVm { this: template.clone(), host: None }).await.unwrap();
    assert_eq!(kind(on).await, "NotSupported");
    let memory = VirtualMachineConfigSpec { memory_mib: Some(8192), ..VirtualMachineConfigSpec::default() };
    assert_eq!(kind(client.call(ReconfigureVm { this: template.clone(), spec: memory }).await.unwrap()).await, "NotSupported");
    let note = VirtualMachineConfigSpec { annotation: Some("hash".to_owned()), ..VirtualMachineConfigSpec::default() };
    assert_eq!(kind(client.call(ReconfigureVm { this: template.clone(), spec: note }).await.unwrap()).await, "");
    assert_eq!(client.text(&template, "config.annotation").await, "hash");
    let clone = client.clone_task("talos", "node1", true).await.unwrap();
    client.outcome(&clone).await.unwrap();
    assert_eq!(kind(client.call(Destroy { this: template.clone() }).await.unwrap()).await, "ResourceInUse", "a linked clone builds on it");
}

#[tokio::test(start_paused = true)]
async fn volumes_outlive_their_vm() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let task = client.clone_task("talos", "node1", true).await.unwrap();
    let vm = client.outcome(&task).await.unwrap().unwrap();
    let person = world.simulator.vcenter().person();
    let volume = person.attach_volume(&VmId(vm.id.clone()), 5).unwrap();
    assert!(world.simulator.truth().vms.iter().any(|vm| vm.disks.iter().any(|disk| disk.is_persistent)));
    let all = devices(&client.property(&vm, "config.hardware.device").await.unwrap()).unwrap();
    let disk = all.iter().find(|device| device.first_class_disk.is_some()).unwrap();
    assert_eq!(disk.first_class_disk.as_ref().unwrap().id, volume);
    let task = client.call(Destroy { this: vm }).await.unwrap();
    client.outcome(&task).await.unwrap();
    assert_eq!(world.simulator.truth().volumes[0].0, volume);
}

#[tokio::test(start_paused = true)]
async fn what_a_person_does_shows() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let task = client.clone_task("talos", "node1", true).await.unwrap();
    let vm = client.outcome(&task).await.unwrap().unwrap();
    let id = VmId(vm.id.clone());
    let person = world.simulator.vcenter().person();
    let copy = person.clone_vm(&id, "copy of node1").unwrap();
    assert_eq!(world.simulator.vcenter().guestinfo(&copy, "guestinfo.owner").as_deref(), Some("me"), "a copy inherits the settings");
    person.power_on(&id).unwrap();
    person.power_off(&id).unwrap();
    assert!(person.power_off(&id).unwrap_err().0.starts_with("InvalidPowerState"));
    person.rename(&id, "renamed").unwrap();
    assert!(person.rename(&copy, "renamed").is_err());
    person.create_folder("/dc1/vm", "attic").unwrap();
    person.move_vm(&id, "/dc1/vm/attic").unwrap();
    assert_eq!(client.at("dc1/vm/attic/renamed").await, Some(vm));
    let own = person.create_vm("/dc1/vm/team", "node1").unwrap();
    let truth = world.simulator.truth().vms;
    let find = |id: &VmId| truth.iter().find(|vm| vm.id == *id).unwrap();
    assert_eq!((find(&id).origin, find(&copy).origin, find(&own).origin), (Origin::Api, Origin::Person, Origin::Person));
    assert_eq!(find(&id).changes, ["power-on", "power-off", "rename", "move"]);
    assert_eq!(find(&own).folder, "/dc1/vm/team");
    person.delete(&id).unwrap();
    assert!(world.simulator.truth().vms.iter().all(|vm| vm.id != id));
}

#[tokio::test(start_paused = true)]
async fn hooks_lose_replies_and_make_faults() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = calls.clone();
    world.hooks.on(move |call| {
        if call.method != "CloneVM_Task" {
            return Verdict::Proceed;
        }
        seen.lock().unwrap().push((call.object.split_once(' ').unwrap().1.to_owned(), call.phase));
        match call.object.rsplit_once(' ').unwrap().1 {
            "lost" if call.phase == Phase::After => Verdict::DropReply,
            "full" if call.phase == Phase::Before => Verdict::Fault("NoDiskSpace".to_owned()),
            "denied" if call.phase == Phase::Before => Verdict::Fault("NoPermission".to_owned()),
            "restart" if call.phase == Phase::Before => Verdict::Fault("503".to_owned()),
            _ => Verdict::Proceed,
        }
    });
    assert_eq!(client.clone_task("talos", "lost", true).await.unwrap_err().kind(), "broken");
    assert!(client.at("dc1/vm/team/lost").await.is_some(), "the effect is there, the reply is not");
    let task = client.clone_task("talos", "full", true).await.unwrap();
    assert_eq!(client.outcome(&task).await.unwrap_err().kind(), "NoDiskSpace");
    assert_eq!(client.clone_task("talos", "denied", true).await.unwrap_err().kind(), "NoPermission");
    assert_eq!(client.clone_task("talos", "restart", true).await.unwrap_err().kind(), "503");
    for name in ["full", "denied", "restart"] {
        assert!(client.at(&format!("dc1/vm/team/{name}")).await.is_none(), "{name}");
    }
    let lost = ("talos -> lost".to_owned(), Phase::Before);
    assert_eq!(calls.lock().unwrap()[..2], [lost.clone(), (lost.0, Phase::After)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_or_not_right_is_refused_before_a_task_is_made() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let source = client.at("dc1/vm/talos").await.unwrap();
    let folder = client.at("dc1/vm/team").await.unwrap();
    let spec = client.clone_spec(None, false).await;
    let nowhere = Reference::new("Folder", "group-v999");
    let clone = |folder: &Reference, name: &str| CloneVm {
        this: source.clone(),
        folder: folder.clone(),
        name: name.to_owned(),
        spec: spec.clone(),
    };
    let error = client.call(clone(&nowhere, "a")).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.fault().reference("obj")), ("ManagedObjectNotFound", Some(nowhere)));
    assert_eq!(client.call(clone(&folder, "")).await.unwrap_err().kind(), "InvalidArgument");
    let mut without_pool = clone(&folder, "a");
    without_pool.spec.location.pool = None;
    let error = client.call(without_pool).await.unwrap_err();
    assert_eq!(error.fault().detail("invalidProperty"), Some("spec.location.pool"));
    let made = client.call(CreateFolder { this: folder.clone(), name: "below".to_owned() }).await.unwrap();
    assert_eq!(client.at("dc1/vm/team/below").await, Some(made.clone()));
    let error = client.call(CreateFolder { this: folder, name: "below".to_owned() }).await.unwrap_err();
    assert_eq!(error.fault().reference("object"), Some(made));
    assert!(world.simulator.vcenter().open_tasks() == 0);
}
