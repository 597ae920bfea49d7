//! Every effect on vCenter three ways: lost before it happened, lost after it, carried out twice. And a restart after every effect.

use std::sync::atomic::Ordering;

use api::ipam::{IPAddress, IPAddressClaim};
use kube::api::ListParams;

use crate::vsphere_world::{Mishap, Setup, World};

const LIFE: [&str; 5] = ["clone", "reconfigure", "power-on", "power-off", "destroy"];

async fn check_alive(world: &World, what: &str) {
    let machines = world.machines();
    assert_eq!(machines.keys().map(String::as_str).collect::<Vec<_>>(), ["m"], "{what}\n{}", world.story());
    let machine = &machines["m"];
    assert!(machine.powered_on, "{what}");
    assert_eq!(machine.extra_config["guestinfo.talosphere.instance"], machine.instance_uuid, "{what}");
    assert!(!machine.extra_config["guestinfo.userdata"].is_empty(), "{what}");
    let vm = world.vm().await.unwrap();
    assert_eq!(vm.spec.bios_uuid.as_deref(), Some(machine.bios_uuid.as_str()), "{what}");
    let status = vm.status.unwrap();
    assert_eq!((status.ready, status.addresses), (Some(true), vec!["10.0.0.20".to_owned()]), "{what}");
    assert_eq!(status.task_ref, None, "{what}");
}

async fn check_gone(world: &World, what: &str) {
    assert!(world.machines().is_empty(), "{what}\n{}", world.story());
    let claims = world.api::<IPAddressClaim>().list(&ListParams::default()).await.unwrap();
    assert!(claims.items.is_empty(), "{what}");
    world
        .until("released", std::time::Duration::from_secs(60), async |world: &World| {
            world.api::<IPAddress>().list(&ListParams::default()).await.unwrap().items.is_empty()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_lives_and_dies_with_five_effects() {
    let world = World::start(&Setup::default()).await;
    world.provisioned().await;
    check_alive(&world, "without mishap").await;
    assert_eq!(world.done(), LIFE[..3]);
    let calls = world.registry.counters().by_method();
    assert_eq!(calls["RetrievePropertiesEx"], 3, "inventory, template, and one for the machine: {calls:?}");
    world.delete().await;
    world.gone().await;
    check_gone(&world, "without mishap").await;
    assert_eq!(world.done(), LIFE);
}

#[tokio::test(start_paused = true)]
async fn no_mishap_on_any_effect_does_harm() {
    for (number, effect) in (0..).zip(LIFE) {
        for mishap in [Mishap::LostBefore, Mishap::LostAfter, Mishap::Twice] {
            let what = format!("{effect} {mishap:?}");
            let world = World::start(&Setup { mishap: Some((number, mishap)), ..Setup::default() }).await;
            world.provisioned().await;
            check_alive(&world, &what).await;
            world.delete().await;
            world.gone().await;
            check_gone(&world, &what).await;
            assert!(world.effects.has_struck.load(Ordering::Relaxed), "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_is_recorded_though_somebody_else_changes_the_object() {
    for (number, effect) in (0..).zip(&LIFE[..3]) {
        let world = World::start(&Setup { mishap: Some((number, Mishap::Touched)), ..Setup::default() }).await;
        world.provisioned().await;
        check_alive(&world, effect).await;
        assert!(world.effects.has_struck.load(Ordering::Relaxed), "{effect}");
        assert_eq!(world.vm().await.unwrap().metadata.labels.unwrap()["touched"], "yes");
        assert_eq!(world.done(), LIFE[..3], "{effect}");
        assert!(!world.story().contains("failed"), "{effect}\n{}", world.story());
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_after_any_effect_continues() {
    for (number, effect) in (1..).zip(LIFE) {
        // The clone's answer is lost as well: nothing of it is recorded.
        let mishap = (effect == "clone").then_some((0, Mishap::LostAfter));
        let mut world = World::start(&Setup { mishap, ..Setup::default() }).await;
        let is_dying = number > 3;
        if is_dying {
            world.provisioned().await;
            world.delete().await;
        }
        world.until("so far", std::time::Duration::from_secs(600), async |world: &World| world.done().len() >= number).await;
        world.restart().await;
        if !is_dying {
            world.provisioned().await;
            check_alive(&world, effect).await;
            world.delete().await;
        }
        world.gone().await;
        check_gone(&world, effect).await;
    }
}
