//! The long poll: silence costs nothing, changes are told, outages are noticed at both ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use simulator::hooks::{Phase, Verdict};
use vsphere::{Change, Link, ManagedObjectReference, TaskState, VCenters};

use crate::world::{SERVER, World, cloned, ended, hide_tasks, placement, request};

async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_while_nothing_changes() {
    let world = World::start(1.0).await;
    let vcenter = world.vcenter();
    cloned(&*vcenter, "node", 1).await;
    settle().await;
    let before = world.calls();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let mut after = world.calls();
    let polls = after.remove("WaitForUpdatesEx").unwrap();
    let polled = before["WaitForUpdatesEx"];
    assert_eq!(after, before.into_iter().filter(|(method, _)| *method != "WaitForUpdatesEx").collect());
    assert!(polls - polled <= 13, "{} long polls in an hour", polls - polled);
}

#[tokio::test(start_paused = true)]
async fn changes_by_others_are_told() {
    let world = World::start(1.0).await;
    let told: Arc<Mutex<Vec<Change>>> = Arc::default();
    let sink = told.clone();
    world.registry.subscribe(Arc::new(move |server, change| {
        assert_eq!(server, SERVER);
        sink.lock().unwrap().push(change.clone());
    }));
    let vcenter = world.vcenter();
    let reference = cloned(&*vcenter, "node", 1).await;
    settle().await;
    let take = || std::mem::take(&mut *told.lock().unwrap());
    let first = take();
    assert!(first.contains(&Change::Link) && first.contains(&Change::Machine(reference.clone())), "{first:?}");
    let tasks = first.iter().filter(|change| matches!(change, Change::Task(_))).count();
    assert!((1..=3).contains(&tasks), "progress alone is no news: {first:?}");
    let person = world.simulator.vcenter().person();
    let id = person.find("node").unwrap();
    person.power_on(&id).unwrap();
    settle().await;
    assert!(take().contains(&Change::Machine(reference.clone())));
    assert_eq!(vcenter.seen(&reference).unwrap().power, "poweredOn");
    person.power_off(&id).unwrap();
    person.delete(&id).unwrap();
    settle().await;
    assert!(take().contains(&Change::Machine(reference.clone())));
    assert_eq!(vcenter.seen(&reference), None);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_went_during_an_outage_is_noticed_after_it() {
    // Connections that break, and a network that falls silent: the second is noticed when the long poll is overdue.
    for is_silent in [false, true] {
        let world = World::start(1.0).await;
        let vcenter = world.vcenter();
        let reference = cloned(&*vcenter, "node", 1).await;
        settle().await;
        assert_eq!(vcenter.link(), Link::Up);
        let network = world.simulator.vm_network();
        let is_away = Arc::new(AtomicBool::new(true));
        let flag = is_away.clone();
        let is_broken = move || flag.load(Ordering::Relaxed);
        if is_silent {
            network.isolate(SERVER);
        } else {
            world.simulator.hooks().on(move |_| if is_broken() { Verdict::DropReply } else { Verdict::Proceed });
        }
        let person = world.simulator.vcenter().person();
        person.delete(&person.find("node").unwrap()).unwrap();
        tokio::time::sleep(Duration::from_secs(400)).await;
        assert!(matches!(vcenter.link(), Link::Down { .. }), "{is_silent}: {:?}", vcenter.link());
        assert!(vcenter.seen(&reference).is_some(), "nothing is concluded from silence");
        is_away.store(false, Ordering::Relaxed);
        network.rejoin(SERVER);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(vcenter.link(), Link::Up);
        assert_eq!(vcenter.seen(&reference), None);
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_that_cannot_be_watched_are_asked_about() {
    let world = World::start(1.0).await;
    hide_tasks(&world.simulator);
    let vcenter = world.vcenter();
    let placed = vcenter.place(&placement()).await.unwrap();
    settle().await;
    let (task, _) = vcenter.clone_machine(&placed, &request("node", 1)).await.unwrap();
    let begun = tokio::time::Instant::now();
    let known = vcenter.task(&task).await.unwrap().unwrap();
    assert!(!known.is_over() && !known.is_followed, "{known:?}");
    assert!(begun.elapsed() < Duration::from_secs(1), "nothing is waited for that does not come");
    assert!(matches!(ended(&*vcenter, &task).await, TaskState::Succeeded(Some(_))));
    let calls = world.calls_of("RetrievePropertiesEx");
    assert!(vcenter.task(&task).await.unwrap().unwrap().is_over());
    assert_eq!(world.calls_of("RetrievePropertiesEx"), calls, "what has ended is known");
}

#[tokio::test(start_paused = true)]
async fn a_failed_clone_makes_its_placement_doubtful() {
    let world = World::start(1.0).await;
    let vcenter = world.vcenter();
    let placed = vcenter.place(&placement()).await.unwrap();
    let reads = || world.calls_of("RetrievePropertiesEx");
    let first = reads();
    vcenter.place(&placement()).await.unwrap();
    assert_eq!(reads(), first);
    world.simulator.hooks().on(|call| {
        if call.method == "CloneVM_Task" && call.phase == Phase::Before {
            Verdict::Fault("NoDiskSpace".to_owned())
        } else {
            Verdict::Proceed
        }
    });
    for (number, is_again) in [(1, true), (2, false)] {
        let (task, _) = vcenter.clone_machine(&placed, &request("node", number)).await.unwrap();
        assert!(matches!(ended(&*vcenter, &task).await, TaskState::Failed(_)));
        let before = reads();
        vcenter.place(&placement()).await.unwrap();
        assert_eq!(reads() > before, is_again, "{number}: many failures together are one reason");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_folder_joins_the_same_poll() {
    let world = World::start(0.0).await;
    let vcenter = world.vcenter();
    vcenter.place(&placement()).await.unwrap();
    settle().await;
    world.simulator.vcenter().person().create_folder("/dc1/vm", "other").unwrap();
    let mut second = placement();
    second.folder = "other".to_owned();
    vcenter.place(&second).await.unwrap();
    settle().await;
    let person = world.simulator.vcenter().person();
    let theirs = person.create_vm("/dc1/vm/other", "theirs").unwrap();
    settle().await;
    assert_eq!((world.calls_of("CreatePropertyCollector"), world.calls_of("CreateContainerView")), (1, 2));
    assert!(vcenter.seen(&ManagedObjectReference::new("VirtualMachine", theirs.to_string())).is_some(), "known from the watch");
}
