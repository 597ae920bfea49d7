//! Sessions: one for all, healed when it is lost, ended at the end.

use std::sync::Arc;

use vsphere::VCenters;

use crate::world::{World, cloned, placement};

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
async fn closing_logs_out() {
    let world = World::start(0.0).await;
    world.vcenter().place(&placement()).await.unwrap();
    assert_eq!(world.simulator.vcenter().sessions(), 1);
    world.registry.close().await;
    assert_eq!(world.simulator.vcenter().sessions(), 0);
}
