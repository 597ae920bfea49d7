//! What a person would notice: nothing foreign is touched, nothing is left, outages pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::cluster::{Cluster, Machine};
use api::infrastructure::{VSphereCluster, VSphereMachine, VSphereVM};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use runtime::defects::{Defect, Defects};
use serde_json::json;
use simulator::hooks::{Phase, Verdict};

use crate::vsphere_world::{Mishap, SERVER, Setup, World};

#[tokio::test(start_paused = true)]
async fn conditions_and_addresses_are_upstreams() {
    let world = World::start(&Setup::default()).await;
    world.provisioned().await;
    let object = world.api::<VSphereMachine>().get("vsm").await.unwrap();
    let machine = &world.machines()["m"];
    assert_eq!(object.spec.provider_id, Some(format!("vsphere://{}", machine.bios_uuid)));
    let addresses: Vec<_> = object.status.as_ref().unwrap().addresses.iter().map(|address| address.address.as_str()).collect();
    assert_eq!(addresses, ["10.0.0.20", "m"]);
    let vm = world.vm().await.unwrap();
    let status = vm.status.unwrap();
    let types: Vec<(&str, &str)> =
        status.conditions.iter().map(|condition| (condition.type_.as_str(), condition.reason.as_str())).collect();
    for expected in [
        ("Ready", "Ready"),
        ("IPAddressClaimsFulfilled", "Fulfilled"),
        ("VCenterAvailable", "Available"),
        ("VirtualMachineProvisioned", "Provisioned"),
        ("Paused", "NotPaused"),
    ] {
        assert!(types.contains(&expected), "{types:?}");
    }
    let legacy: Vec<&str> = status.deprecated.v1beta1.conditions.iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(legacy, ["Ready", "IPAddressClaimed", "VCenterAvailable", "VMProvisioned"]);
    assert!(status.vm_ref.unwrap().starts_with("VirtualMachine:vm-"));
    assert!(status.host.is_some() && status.snapshot.unwrap().starts_with("snapshot-"));
    assert_eq!(status.network[0].mac_addr, machine.nics[0].mac);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_a_person_deletes_is_told_and_not_made_again() {
    let world = World::start(&Setup::default()).await;
    world.provisioned().await;
    let person = world.simulator.vcenter().person();
    let id = person.find("m").unwrap();
    person.power_off(&id).unwrap();
    // It is switched on again: its Machine is to run.
    world.until("on again", Duration::from_secs(60), async |world: &World| world.machines()["m"].powered_on).await;
    person.power_off(&id).unwrap();
    person.delete(&id).unwrap();
    let told = world.told(|text| text.contains("no longer exists")).await;
    assert!(told.contains("delete its Machine"), "{told}");
    assert!(world.machines().is_empty());
    world.delete().await;
    world.gone().await;
}

#[tokio::test(start_paused = true)]
async fn a_persons_copy_and_a_volume_outlive_the_machine() {
    let world = World::start(&Setup::default()).await;
    world.provisioned().await;
    let person = world.simulator.vcenter().person();
    let id = person.find("m").unwrap();
    person.attach_volume(&id, 5).unwrap();
    person.clone_vm(&id, "copy").unwrap();
    world.delete().await;
    world.gone().await;
    assert_eq!(world.machines().keys().collect::<Vec<_>>(), ["copy"]);
    assert_eq!(world.simulator.vcenter().volumes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_marker_was_taken_is_left_alone() {
    let world = World::start(&Setup::default()).await;
    world.provisioned().await;
    let person = world.simulator.vcenter().person();
    let id = person.find("m").unwrap();
    person.set_variable(&id, "guestinfo.talosphere.machine", "").unwrap();
    world.delete().await;
    let told = world.told(|text| text.contains("no valid ownership marker")).await;
    assert!(told.contains("left alone"), "{told}");
    assert!(world.machines()["m"].powered_on, "not even switched off");
    person.delete(&id).unwrap();
    world.gone().await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_during_the_clone_cancels_it() {
    let world = World::start(&Setup::default()).await;
    world.until("cloning", Duration::from_secs(60), async |world: &World| world.done() == ["clone"]).await;
    world.delete().await;
    world.gone().await;
    assert_eq!(world.done(), ["clone", "cancel"]);
    assert!(world.machines().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deletion_after_a_lost_clone_leaves_nothing() {
    for mishap in [Mishap::LostBefore, Mishap::LostAfter] {
        let mut world = World::start(&Setup { mishap: Some((0, mishap)), ..Setup::default() }).await;
        world.until("cloning", Duration::from_secs(60), async |world: &World| world.done() == ["clone"]).await;
        world.delete().await;
        // Whatever the first passes of the deletion told.
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.restart().await;
        world.gone().await;
        let open = world.simulator.vcenter().open_tasks();
        assert!(world.machines().is_empty() && open == 0, "{mishap:?}: {open} tasks\n{}", world.story());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_task_reference_does_not_hide_the_clone() {
    let world = World::start(&Setup::default()).await;
    let has_task = async |world: &World| world.vm().await.and_then(|vm| vm.status).is_some_and(|status| status.task_ref.is_some());
    world.until("cloning", Duration::from_secs(60), has_task).await;
    let status = json!({"status": {"taskRef": null}});
    let patch = PatchParams::default();
    world.api::<VSphereVM>().patch_status("m", &patch, &Patch::Merge(status)).await.unwrap();
    world.delete().await;
    world.gone().await;
    assert!(world.machines().is_empty(), "{}", world.story());
    assert_eq!(world.simulator.vcenter().open_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_clone_is_found_although_folder_and_template_cannot_be_resolved() {
    // A full clone takes its time.
    let spec = json!({"cloneMode": "fullClone"});
    let mut world = World::start(&Setup { mishap: Some((0, Mishap::LostAfter)), spec, ..Setup::default() }).await;
    world.until("cloning", Duration::from_secs(60), async |world: &World| world.done() == ["clone"]).await;
    let person = world.simulator.vcenter().person();
    person.rename(&person.find("talos").unwrap(), "renamed").unwrap();
    world.delete().await;
    world.restart().await;
    world.gone().await;
    let open = world.simulator.vcenter().open_tasks();
    assert!(world.machines().is_empty() && open == 0, "{open} tasks\n{}", world.story());
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_owners_goes_with_its_vspherevm() {
    for is_lost in [false, true] {
        let mishap = is_lost.then_some((0, Mishap::LostAfter));
        let world = World::start(&Setup { mishap, ..Setup::default() }).await;
        if is_lost {
            world.until("cloning", Duration::from_secs(60), async |world: &World| world.done() == ["clone"]).await;
        } else {
            world.provisioned().await;
        }
        // By hand, finalizers and all: first the reference to the owner, then everything above.
        let bare = json!({"metadata": {"ownerReferences": null, "finalizers": null}});
        world.merge::<VSphereVM>("m", json!({"metadata": {"ownerReferences": null}})).await;
        for _ in 0..2 {
            world.merge::<VSphereMachine>("vsm", json!({"metadata": {"ownerReferences": null}})).await;
            let delete = DeleteParams::default();
            drop(world.api::<VSphereCluster>().delete("c", &delete).await);
            drop(world.api::<Cluster>().delete("c", &delete).await);
            drop(world.api::<Machine>().delete("m", &delete).await);
            let _ = world.api::<VSphereCluster>().patch("c", &PatchParams::default(), &Patch::Merge(bare.clone())).await;
        }
        assert!(world.api::<Cluster>().get_opt("c").await.unwrap().is_none());
        assert!(world.api::<VSphereCluster>().get_opt("c").await.unwrap().is_none());
        world.api::<VSphereVM>().delete("m", &DeleteParams::default()).await.unwrap();
        world.until("gone", Duration::from_secs(1200), async |world: &World| world.vm().await.is_none()).await;
        assert!(world.machines().is_empty(), "{}", world.story());
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_the_object_has_no_part_in_the_machine() {
    let world = World::start(&Setup::default()).await;
    world.provisioned().await;
    let mut copy = world.vm().await.unwrap();
    let meta = std::mem::take(&mut copy.metadata);
    copy.metadata.name = Some("copy".to_owned());
    copy.metadata.namespace = meta.namespace;
    copy.metadata.annotations = meta.annotations;
    copy.metadata.finalizers = meta.finalizers;
    copy.spec.bios_uuid = None;
    let copies = world.api::<VSphereVM>();
    copies.create(&PostParams::default(), &copy).await.unwrap();
    copies.delete("copy", &DeleteParams::default()).await.unwrap();
    world.until("gone", Duration::from_secs(60), async |_: &World| copies.get_opt("copy").await.unwrap().is_none()).await;
    assert!(world.machines()["m"].powered_on);
}

#[tokio::test(start_paused = true)]
async fn all_deleted_at_once_ends_with_nothing_and_the_secret_last() {
    let world = World::start(&Setup::default()).await;
    world.provisioned().await;
    let delete = DeleteParams::default();
    world.api::<Secret>().delete("c", &delete).await.unwrap();
    world.api::<VSphereCluster>().delete("c", &delete).await.unwrap();
    world.delete().await;
    world.gone().await;
    assert!(world.machines().is_empty());
    world
        .until("let go", Duration::from_secs(60), async |world: &World| {
            let secrets = world.api::<Secret>().list(&ListParams::default()).await.unwrap();
            let clusters = world.api::<VSphereCluster>().list(&ListParams::default()).await.unwrap();
            clusters.items.is_empty() && secrets.items.iter().all(|secret| secret.metadata.name.as_deref() != Some("c"))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_secret_is_only_held_and_let_go() {
    let world = World::start(&Setup::default()).await;
    world.provisioned().await;
    let secret = world.api::<Secret>().get("c").await.unwrap();
    assert_eq!(secret.metadata.finalizers.as_ref().unwrap(), &["vspherecluster/infrastructure.cluster.x-k8s.io"]);
    assert_eq!(secret.metadata.owner_references, None);
    world.delete().await;
    world.gone().await;
    world.api::<VSphereCluster>().delete("c", &DeleteParams::default()).await.unwrap();
    world
        .until("let go", Duration::from_secs(60), async |world: &World| {
            world.api::<Secret>().get("c").await.unwrap().metadata.finalizers.unwrap_or_default().is_empty()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn tasks_that_cannot_be_watched_are_asked_about() {
    let world = World::start(&Setup::default()).await;
    let is_first = AtomicBool::new(false);
    // The first filter of every collector is the one on tasks.
    world.simulator.hooks().on(move |call| match (call.method.as_str(), call.phase) {
        ("CreatePropertyCollector", Phase::Before) => {
            is_first.store(true, Ordering::Relaxed);
            Verdict::Proceed
        }
        ("CreateFilter", Phase::Before) if is_first.swap(false, Ordering::Relaxed) => Verdict::Fault("NoPermission".to_owned()),
        _ => Verdict::Proceed,
    });
    world.provisioned().await;
    world.delete().await;
    world.gone().await;
    assert!(world.machines().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_finds_nothing_to_do_leaves_no_old_task_behind() {
    let world = World::start(&Setup::default()).await;
    let is_refused = Arc::new(AtomicBool::new(true));
    let flag = is_refused.clone();
    world.simulator.hooks().on(move |call| {
        let is_it = call.method == "PowerOnVM_Task" && call.phase == Phase::Before && flag.load(Ordering::Relaxed);
        if is_it { Verdict::Fault("ManagedObjectNotFound".to_owned()) } else { Verdict::Proceed }
    });
    let is_tried = async |world: &World| world.done().len() >= 3;
    world.until("tried", Duration::from_secs(600), is_tried).await;
    // The delivery's task is over, and nothing would wake for it.
    let is_forgotten = async |world: &World| world.vm().await.and_then(|vm| vm.status).unwrap().task_ref.is_none();
    world.until("forgotten", Duration::from_secs(2), is_forgotten).await;
    is_refused.store(false, Ordering::Relaxed);
    world.provisioned().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_password_in_the_secret_is_used_and_nothing_stops() {
    let world = World::start(&Setup::default()).await;
    world.until("cloning", Duration::from_secs(60), async |world: &World| world.done() == ["clone"]).await;
    world.simulator.vcenter().person().set_password("battery-staple");
    world.merge::<Secret>("c", json!({"stringData": {"password": "battery-staple"}})).await;
    world.provisioned().await;
    assert_eq!(world.simulator.vcenter().sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_and_passes() {
    let world = World::start(&Setup::default()).await;
    world.until("cloning", Duration::from_secs(60), async |world: &World| world.done() == ["clone"]).await;
    let is_away = Arc::new(AtomicBool::new(true));
    let flag = is_away.clone();
    world.simulator.hooks().on(move |call| {
        if flag.load(Ordering::Relaxed) && call.phase == Phase::Before { Verdict::Fault("503".to_owned()) } else { Verdict::Proceed }
    });
    let told = world.told(|text| text.contains("not reachable")).await;
    assert!(told.contains(SERVER) && told.contains("trying again"), "{told}");
    is_away.store(false, Ordering::Relaxed);
    world.provisioned().await;
    assert_eq!(world.machines().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn data_disks_are_made_with_the_machine_and_go_with_it() {
    let spec = json!({"dataDisks": [{"name": "data", "sizeGiB": 20, "provisioningMode": "Thin"}]});
    let world = World::start(&Setup { spec, ..Setup::default() }).await;
    world.provisioned().await;
    let sizes: Vec<u64> = world.machines()["m"].disks.iter().map(|disk| disk.capacity >> 30).collect();
    assert_eq!(sizes, [10, 20]);
    world.delete().await;
    world.gone().await;
    assert_eq!(world.done().iter().filter(|effect| **effect == "reconfigure").count(), 1, "no disk was taken for a foreign one");
}

#[tokio::test(start_paused = true)]
async fn nobody_stays_signed_in() {
    let mut world = World::start(&Setup::default()).await;
    world.provisioned().await;
    assert_eq!(world.simulator.vcenter().sessions(), 1);
    world.end().await;
    assert_eq!(world.simulator.vcenter().sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_soft_power_off_asks_the_guest_first() {
    let spec = json!({"powerOffMode": "trySoft", "guestSoftPowerOffTimeoutSeconds": 60});
    let world = World::start(&Setup { spec, ..Setup::default() }).await;
    world.provisioned().await;
    world.delete().await;
    world.gone().await;
    // The simulated guest runs no tools here: it is switched off at once.
    assert_eq!(world.done().last(), Some(&"destroy"));
    assert!(world.machines().is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_planted_defect_does_its_harm() {
    let planted = |defect| Setup { defects: Defects::planted([defect]), ..Setup::default() };

    let world = World::start(&planted(Defect::CloneWithoutMarker)).await;
    world.until("cloned", Duration::from_secs(60), async |world: &World| !world.machines().is_empty()).await;
    assert!(!world.machines()["m"].extra_config.contains_key("guestinfo.talosphere.machine"));

    let world = World::start(&planted(Defect::ForgetVm)).await;
    world.provisioned().await;
    world.delete().await;
    world.gone().await;
    assert_eq!(world.machines().len(), 1, "left behind");

    let world = World::start(&planted(Defect::DestroyByName)).await;
    world.provisioned().await;
    let person = world.simulator.vcenter().person();
    person.set_variable(&person.find("m").unwrap(), "guestinfo.talosphere.machine", "").unwrap();
    world.delete().await;
    world.gone().await;
    assert!(world.machines().is_empty(), "destroyed although it is not ours any more");

    let mishap = Some((0, Mishap::LostAfter));
    let world = World::start(&Setup { mishap, ..planted(Defect::CloneAfresh) }).await;
    world.provisioned().await;
    assert_eq!(world.machines().len(), 2, "cloned twice");
}
