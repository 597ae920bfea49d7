//! What a person reads when something is wrong, and that nothing was done.

use simulator::hooks::{Phase, Verdict};
use vsphere::{Credentials, Owner, PlacementRequest, Reaction, Secret, VCenters, VSphereError};

use crate::world::{PASSWORD, World, owner, placement, request};

async fn placed(world: &World, change: impl FnOnce(&mut PlacementRequest)) -> String {
    let mut request = placement();
    change(&mut request);
    let error = world.vcenter().place(&request).await.unwrap_err();
    assert_eq!(error.reaction(), Reaction::Permanent);
    error.to_string()
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_named_with_what_is_like_it() {
    let world = World::start(0.0).await;
    for (error, wanted) in [
        (
            placed(&world, |r| r.template = "talso".to_owned()).await,
            r#"template "talso" was not found in datacenter dc1; there is "talos""#,
        ),
        (
            placed(&world, |r| r.networks = vec!["VM Netwrk".to_owned()]).await,
            r#"network "VM Netwrk" was not found in datacenter dc1; there is "VM Network""#,
        ),
        (
            placed(&world, |r| r.datastore = "datastore7".to_owned()).await,
            r#"datastore "datastore7" was not found in datacenter dc1; there are "datastore5", "datastore6""#,
        ),
        (
            placed(&world, |r| r.folder = "vmware-tst".to_owned()).await,
            r#"folder "vmware-tst" was not found in datacenter dc1; there is "vmware-test""#,
        ),
        (placed(&world, |r| r.datacenter = "dc2".to_owned()).await, r#"datacenter "dc2" was not found in the inventory; there is "dc1""#),
    ] {
        assert_eq!(error, wanted);
    }
    let pool = placed(&world, |r| r.resource_pool = "*/nowhere".to_owned()).await;
    assert!(pool.starts_with(r#"resource pool "*/nowhere" was not found in datacenter dc1; there"#), "{pool}");
    assert_eq!(world.calls_of("CloneVM_Task"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_made_meanwhile_is_found() {
    let world = World::start(0.0).await;
    let mut request = placement();
    request.folder = "late".to_owned();
    assert!(world.vcenter().place(&request).await.is_err());
    world.simulator.vcenter().person().create_folder("/dc1/vm", "late").unwrap();
    assert_eq!(world.vcenter().place(&request).await.unwrap().folder_path, "/dc1/vm/late");
}

#[tokio::test(start_paused = true)]
async fn networks_of_every_kind_get_their_backing() {
    let world = World::start(0.0).await;
    let mut request = placement();
    request.networks = vec!["storage".to_owned(), "VM Network".to_owned()];
    let placement = world.vcenter().place(&request).await.unwrap();
    let port = placement.networks[0].backing.port.as_ref().unwrap();
    assert!(port.portgroup_key.as_ref().unwrap().starts_with("dvportgroup-") && !port.switch_uuid.is_empty());
    assert_eq!(placement.networks[1].backing.device_name.as_deref(), Some("VM Network"));
}

#[tokio::test(start_paused = true)]
async fn a_linked_clone_without_snapshot_is_refused_before_any_call() {
    let world = World::start(0.0).await;
    let mut wanted = placement();
    wanted.template = "bare".to_owned();
    let placement = world.vcenter().place(&wanted).await.unwrap();
    let error = world.vcenter().clone_machine(&placement, &request("node", 1)).await.unwrap_err();
    assert!(matches!(error, VSphereError::NoSnapshot { .. }));
    assert!(error.to_string().contains("fullClone"), "{error}");
    assert_eq!(world.calls_of("CloneVM_Task"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_tried_once_and_shown_nowhere() {
    let world = World::start(0.0).await;
    let wrong = Credentials { password: Secret::new("wrong-horse"), ..world.credentials() };
    let vcenter = world.registry.vcenter(&wrong);
    for _ in 0..20 {
        let error = vcenter.about().await.unwrap_err();
        assert_eq!(error.reaction(), Reaction::Credentials);
        let text = format!("{error} {error:?} {wrong:?}");
        assert!(text.contains("administrator@vsphere.local") && !text.contains("wrong-horse"), "{text}");
    }
    assert_eq!(world.calls_of("Login"), 1);
    tokio::time::sleep(std::time::Duration::from_secs(301)).await;
    assert!(vcenter.about().await.is_err());
    tokio::time::sleep(std::time::Duration::from_secs(301)).await;
    assert!(vcenter.about().await.is_err());
    assert_eq!(world.calls_of("Login"), 2, "the delay doubles");
    let right = Credentials { password: Secret::new(PASSWORD), ..wrong };
    assert!(world.registry.vcenter(&right).about().await.is_ok(), "other credentials are another session");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_thumbprint_shows_both() {
    let world = World::start(0.0).await;
    let expected = "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33";
    let wrong = Credentials { thumbprint: Some(expected.to_owned()), ..world.credentials() };
    let error = world.registry.vcenter(&wrong).about().await.unwrap_err().to_string();
    assert!(error.contains(expected) && error.contains(&world.simulator.vcenter_thumbprint()), "{error}");
    assert_eq!(world.calls_of("Login"), 0);
    let short = Credentials { thumbprint: Some("AB:CD".to_owned()), ..world.credentials() };
    let error = world.registry.vcenter(&short).about().await.unwrap_err().to_string();
    assert!(error.contains("neither SHA-1"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn without_anything_to_verify_by_nothing_is_sent() {
    let world = World::start(0.0).await;
    let blind = Credentials { thumbprint: None, ..world.credentials() };
    let error = world.registry.vcenter(&blind).about().await.unwrap_err();
    assert!(error.to_string().contains(&world.simulator.vcenter_thumbprint()), "{error}");
    assert!(world.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_told_as_such() {
    let world = World::start(0.0).await;
    let elsewhere = Credentials { server: "10.9.9.9:1443".to_owned(), ..world.credentials() };
    let error = world.registry.vcenter(&elsewhere).about().await.unwrap_err();
    assert!(matches!(error, VSphereError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("10.9.9.9:1443"));
    assert_eq!(error.reaction(), Reaction::Later);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_says_that_the_effect_is_unknown_and_it_can_be_looked_up() {
    for phase in [Phase::Before, Phase::After] {
        let world = World::start(1.0).await;
        let vcenter = world.vcenter();
        let placed = vcenter.place(&placement()).await.unwrap();
        world
            .simulator
            .hooks()
            .on(move |call| if call.method == "CloneVM_Task" && call.phase == phase { Verdict::DropReply } else { Verdict::Proceed });
        let wanted = request("node", 1);
        let error = vcenter.clone_machine(&placed, &wanted).await.unwrap_err();
        assert!(error.is_outcome_unknown(), "{error:?}");
        assert_eq!(world.calls_of("CloneVM_Task"), 1, "an effect is never repeated by the client");
        let clones = vcenter.clones_of(&placed.template.reference).await.unwrap();
        assert_eq!(clones.len(), 1, "the running clone is seen");
        crate::world::ended(&*vcenter, &clones[0].reference).await;
        let found = vcenter.find_instance(&wanted.instance_uuid).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(vcenter.find_named(&placed.folder_path, "node").await.unwrap().as_ref(), found.first());
        assert_eq!(vcenter.machines_of(&owner()).await.unwrap(), found);
        assert!(vcenter.machines_of(&Owner { machine: "other".to_owned(), ..owner() }).await.unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_names_action_and_kind() {
    let world = World::start(0.0).await;
    let vcenter = world.vcenter();
    let placed = vcenter.place(&placement()).await.unwrap();
    world.simulator.hooks().on(|call| {
        if call.method == "CloneVM_Task" && call.phase == Phase::Before {
            Verdict::Fault("NoPermission".to_owned())
        } else {
            Verdict::Proceed
        }
    });
    let result = vcenter.clone_machine(&placed, &request("node", 1)).await;
    let text = match result {
        Err(error) => error.to_string(),
        Ok((task, _)) => format!("{:?}", crate::world::ended(&*vcenter, &task).await),
    };
    assert!(text.contains("NoPermission"), "{text}");
}
