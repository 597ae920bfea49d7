//! What operations do, and how many calls they take.

use vsphere::spec::{Delivery, delivery_spec, detach_spec, is_delivered};
use vsphere::{Marker, TaskState, VSphereError, VirtualMachinePowerState, is_ours};

use crate::world::{World, cloned, ended, owner, placement, request};

#[tokio::test(start_paused = true)]
async fn a_machine_takes_four_calls_from_nothing_to_powered_on() {
    let world = World::start(1.0).await;
    let vcenter = world.vcenter();
    let placed = vcenter.place(&placement()).await.unwrap();
    assert_eq!(vcenter.find_named(&placed.folder_path, "node").await.unwrap(), None);
    let before = world.calls();

    let reference = cloned(&*vcenter, "node", 1).await;
    let machine = vcenter.machine(&reference).await.unwrap().unwrap();
    assert_eq!(machine.instance_uuid, request("node", 1).instance_uuid);
    assert!(is_ours(&machine.extra_config, &machine.instance_uuid, &owner()), "marked from the clone on");
    assert_eq!(machine.power, VirtualMachinePowerState::PoweredOff);
    assert_eq!((machine.nics().len(), machine.disks().len()), (1, 2));
    assert!(machine.foreign_disks().is_empty());
    let delivery = Delivery {
        marker: Marker::new(owner(), &machine.instance_uuid),
        disks: machine.own_disks(),
        userdata: "version: v1alpha1".to_owned(),
        metadata: "instance-id: node".to_owned(),
    };
    let task = vcenter.reconfigure(&reference, delivery_spec(&delivery)).await.unwrap();
    assert_eq!(ended(&*vcenter, &task).await, TaskState::Succeeded(None));
    let task = vcenter.power_on(&reference).await.unwrap();
    assert_eq!(ended(&*vcenter, &task).await, TaskState::Succeeded(None));

    let mut after = world.calls();
    for (method, count) in before {
        *after.get_mut(method).unwrap() -= count;
    }
    let own: Vec<(&str, u64)> = after.into_iter().filter(|(method, count)| *count > 0 && *method != "WaitForUpdatesEx").collect();
    assert_eq!(own, [("CloneVM_Task", 1), ("PowerOnVM_Task", 1), ("ReconfigVM_Task", 1), ("RetrievePropertiesEx", 1)]);

    let machine = vcenter.machine(&reference).await.unwrap().unwrap();
    assert!(is_delivered(&delivery, &machine.extra_config));
    assert_eq!(vcenter.seen(&reference).unwrap().power, "poweredOn");
    assert!(vcenter.host_name(&machine.host.unwrap()).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_second_machine_shares_login_and_inventory() {
    let world = World::start(1.0).await;
    let vcenter = world.vcenter();
    cloned(&*vcenter, "one", 1).await;
    let (logins, reads) = (world.calls_of("Login"), world.calls_of("RetrievePropertiesEx"));
    cloned(&*vcenter, "two", 2).await;
    assert_eq!((world.calls_of("Login"), world.calls_of("RetrievePropertiesEx")), (logins, reads));
    assert_eq!(logins, 1);
    assert_eq!(world.calls_of("CreateContainerView"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_name_is_the_lock() {
    let world = World::start(1.0).await;
    let vcenter = world.vcenter();
    cloned(&*vcenter, "node", 1).await;
    let placed = vcenter.place(&placement()).await.unwrap();
    let result = vcenter.clone_machine(&placed, &request("node", 2)).await;
    let kind = match result {
        Ok((task, _)) => match ended(&*vcenter, &task).await {
            TaskState::Failed(report) => report.kind,
            other => panic!("{other:?}"),
        },
        Err(VSphereError::Fault { fault, .. }) => fault.kind,
        Err(other) => panic!("{other}"),
    };
    assert_eq!(kind, "DuplicateName");
    assert_eq!(world.simulator.truth().vms.iter().filter(|vm| vm.name == "node").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_detached_and_outlives_the_machine() {
    let world = World::start(1.0).await;
    let vcenter = world.vcenter();
    let reference = cloned(&*vcenter, "node", 1).await;
    let person = world.simulator.vcenter().person();
    person.attach_volume(&person.find("node").unwrap(), 5).unwrap();
    let machine = vcenter.machine(&reference).await.unwrap().unwrap();
    let foreign = machine.foreign_disks();
    assert_eq!(foreign.len(), 1);
    let task = vcenter.reconfigure(&reference, detach_spec(foreign)).await.unwrap();
    assert_eq!(ended(&*vcenter, &task).await, TaskState::Succeeded(None));
    let task = vcenter.destroy(&reference).await.unwrap();
    assert_eq!(ended(&*vcenter, &task).await, TaskState::Succeeded(None));
    assert_eq!(vcenter.machine(&reference).await.unwrap(), None);
    assert_eq!(world.simulator.vcenter().volumes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_running_clone_can_be_cancelled() {
    let world = World::start(1.0).await;
    let vcenter = world.vcenter();
    let placed = vcenter.place(&placement()).await.unwrap();
    let (task, _) = vcenter.clone_machine(&placed, &request("node", 1)).await.unwrap();
    let clones = vcenter.clones_of(&placed.template.reference).await.unwrap();
    assert_eq!(clones.iter().map(|task| &task.reference).collect::<Vec<_>>(), [&task]);
    assert!(!clones[0].is_over());
    vcenter.cancel(&task).await.unwrap();
    let TaskState::Failed(report) = ended(&*vcenter, &task).await else { panic!("it went on") };
    assert_eq!(report.kind, "RequestCanceled");
    assert!(world.simulator.truth().vms.iter().all(|vm| vm.name != "node"));
}
