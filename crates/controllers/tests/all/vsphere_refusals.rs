//! Bad input: each with its own words, nothing half done, and well again once it is put right.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::vsphere_world::{PASSWORD, Setup, World};
use api::infrastructure::VSphereCluster;

async fn refused(spec: Value, expected: &[&str]) {
    let world = World::start(&Setup { spec, ..Setup::default() }).await;
    let told = world.told(|text| expected.iter().all(|word| text.contains(word))).await;
    assert!(world.done().is_empty(), "{told}: {:?}", world.done());
    assert!(world.machines().is_empty());
    world.delete().await;
    world.gone().await;
}

#[tokio::test(start_paused = true)]
async fn names_that_do_not_exist_are_told_with_near_ones() {
    refused(json!({"template": "talso"}), &["template \"talso\" was not found", "\"talos\""]).await;
    refused(json!({"datastore": "datastore6"}), &["datastore \"datastore6\" was not found", "datastore5"]).await;
    refused(json!({"folder": "lba"}), &["folder \"lba\" was not found", "\"lab\""]).await;
    refused(json!({"resourcePool": "*/Pools"}), &["resource pool \"*/Pools\" was not found"]).await;
    let network = json!({"network": {"devices": [{"networkName": "VM Netwrk", "dhcp4": true}]}});
    refused(network, &["network \"VM Netwrk\" was not found", "VM Network"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_linked_clone_without_snapshot_is_refused_with_the_remedy() {
    refused(json!({"template": "bare"}), &["has no snapshot", "fullClone", "snapshot.create"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_made_meanwhile_is_used() {
    let world = World::start(&Setup { spec: json!({"folder": "late"}), ..Setup::default() }).await;
    world.told(|text| text.contains("\"late\" was not found")).await;
    world.simulator.vcenter().person().create_folder("/dc1/vm", "late").unwrap();
    world.provisioned().await;
    assert_eq!(world.machines()["m"].folder, "/dc1/vm/late");
}

#[tokio::test(start_paused = true)]
async fn a_machine_of_that_name_is_left_alone() {
    let world = World::start(&Setup { spec: json!({"folder": "late"}), ..Setup::default() }).await;
    let person = world.simulator.vcenter().person();
    person.create_folder("/dc1/vm", "late").unwrap();
    let theirs = person.create_vm("/dc1/vm/late", "m").unwrap();
    let told = world.told(|text| text.contains("was not made for this Machine")).await;
    assert!(told.contains("/dc1/vm/late/m"), "{told}");
    assert!(world.done().is_empty());
    world.delete().await;
    world.gone().await;
    assert_eq!(person.find("m"), Some(theirs));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_told_and_a_corrected_secret_heals() {
    let world = World::start(&Setup { password: "wrong-horse", ..Setup::default() }).await;
    world
        .until("told", Duration::from_secs(60), async |world: &World| {
            let object = world.api::<VSphereCluster>().get("c").await.unwrap();
            let conditions = object.status.map(|status| status.conditions).unwrap_or_default();
            let condition = api::conditions::get(&conditions, "VCenterAvailable");
            condition.is_some_and(|condition| condition.message.contains("refused the login"))
        })
        .await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(world.registry.counters().by_method()["Login"], 1);
    assert!(!world.story().contains("wrong-horse"));
    world.merge::<Secret>("c", json!({"stringData": {"password": PASSWORD}})).await;
    world.provisioned().await;
}

#[tokio::test(start_paused = true)]
async fn a_wrong_thumbprint_shows_both() {
    let expected = "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33";
    let world = World::start(&Setup { thumbprint: Some(expected), ..Setup::default() }).await;
    let presented = world.simulator.vcenter_thumbprint();
    world
        .until("told", Duration::from_secs(60), async |world: &World| {
            let object = world.api::<VSphereCluster>().get("c").await.unwrap();
            let conditions = object.status.map(|status| status.conditions).unwrap_or_default();
            let condition = api::conditions::get(&conditions, "VCenterAvailable");
            condition.is_some_and(|condition| condition.message.contains(expected) && condition.message.contains(&presented))
        })
        .await;
    assert!(world.done().is_empty());
    world.merge::<VSphereCluster>("c", json!({"spec": {"thumbprint": presented}})).await;
    world.provisioned().await;
}
