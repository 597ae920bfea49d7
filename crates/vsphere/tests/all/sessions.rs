//! Sessions: one for all, healed when it is lost, ended at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use vsphere::{Change, Credentials, Secret, VCenters};

use crate::world::{World, cloned, placement};

async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[tokio::test(start_paused = true)]
async fn many_callers_make_one_session() {
    let world = World::start(0.0).await;
    let vcenter = world.vcenter();
    let calls = (0..20).map(|_| {
        let vcenter = vcenter.clone();
        async move { vcenter.place(&placement()).await.map(drop) }
    });
    for result in futures::future::join_all(calls).await {
        result.unwrap();
    }
    assert_eq!(world.calls_of("Login"), 1);
    assert_eq!(world.simulator.vcenter().sessions(), 1);
    assert!(Arc::ptr_eq(&vcenter, &world.vcenter()), "the same credentials are the same client");
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_is_made_again_and_the_watch_with_it() {
    let world = World::start(1.0).await;
    let vcenter = world.vcenter();
    let first = cloned(&*vcenter, "one", 1).await;
    world.simulator.vcenter().end_sessions();
    assert!(vcenter.machine(&first).await.unwrap().is_some(), "the call is repeated in a new session");
    let second = cloned(&*vcenter, "two", 2).await;
    assert!(vcenter.seen(&second).is_some(), "the new watch shows it");
    assert_eq!(world.calls_of("Login"), 2);
    assert_eq!(world.simulator.vcenter().sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_password_takes_the_place_of_the_old_one() {
    let world = World::start(0.0).await;
    let old = world.vcenter();
    old.place(&placement()).await.unwrap();
    let links = Arc::new(AtomicUsize::new(0));
    let wrong = Credentials { password: Secret::new("typo"), ..world.credentials() };
    assert!(world.registry.vcenter(&wrong).about().await.is_err());
    settle().await;
    assert!(old.about().await.is_ok(), "a password that is wrong takes no one's place");
    world.simulator.vcenter().person().set_password("battery-staple");
    let right = Credentials { password: Secret::new("battery-staple"), ..world.credentials() };
    let told = links.clone();
    world.registry.subscribe(Arc::new(move |_, change| {
        if *change == Change::Link {
            told.fetch_add(1, Ordering::Relaxed);
        }
    }));
    world.registry.vcenter(&right).about().await.unwrap();
    settle().await;
    assert_eq!(world.simulator.vcenter().sessions(), 1, "the old session has ended");
    assert!(links.load(Ordering::Relaxed) > 0, "who waited for the old watch looks again");
    let polls = world.calls_of("WaitForUpdatesEx");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.calls_of("WaitForUpdatesEx"), polls, "the old watch has ended");
    let logins = world.calls_of("Login");
    assert!(old.about().await.unwrap_err().to_string().contains("ended here"));
    assert_eq!(world.calls_of("Login"), logins, "the old password is not tried in passing");
    // Asked for once more, it is refused, and waits.
    for _ in 0..3 {
        assert!(world.vcenter().about().await.unwrap_err().to_string().contains("refused the login"));
    }
    assert_eq!(world.calls_of("Login"), logins + 1);
    assert!(world.registry.vcenter(&right).about().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn closing_logs_out() {
    let world = World::start(0.0).await;
    world.vcenter().place(&placement()).await.unwrap();
    assert_eq!(world.simulator.vcenter().sessions(), 1);
    world.registry.close().await;
    assert_eq!(world.simulator.vcenter().sessions(), 0);
}
