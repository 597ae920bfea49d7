//! Machines from power to a running control plane, on paused time.

use std::time::Duration;

use futures::StreamExt as _;
use runtime::net::{BoxStream, Dialer as _};
use runtime::tls::ClientTls;
use talos_proto::machine as wire;
use tokio::io::AsyncReadExt as _;
use tonic::{Code, Request};

use super::test_support::{Bundle, World, base64};
use crate::hooks::{Phase, Verdict};
use crate::hypervisor::{Guests as _, VmId};

const ADMIN: &str = "os:admin";

fn with_node<T>(message: T, node: &'static str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("node", node.parse().unwrap());
    request
}

/// Starts `count` control planes at 10.0.0.1 and so on.
async fn control_planes(world: &World, bundle: &Bundle, count: u32) {
    for number in 1..=count {
        world.start(number, &bundle.configuration("controlplane", &format!("cp-{number}"), &format!("10.0.0.{number}"), "", ""));
    }
    for number in 1..=count {
        let mut client = world.talos(&format!("10.0.0.{number}"), bundle.talos_client(ADMIN));
        world.until("apid answers", async || client.version(()).await.is_ok()).await;
    }
}

async fn members(world: &World, bundle: &Bundle, address: &str) -> Vec<wire::EtcdMember> {
    let mut client = world.talos(address, bundle.talos_client(ADMIN));
    match client.etcd_member_list(wire::EtcdMemberListRequest::default()).await {
        Ok(reply) => reply.into_inner().messages.remove(0).members,
        Err(_) => Vec::new(),
    }
}

async fn bootstrapped(world: &World, bundle: &Bundle, count: u32) {
    control_planes(world, bundle, count).await;
    let mut client = world.talos("10.0.0.1", bundle.talos_client(ADMIN));
    client.bootstrap(wire::BootstrapRequest::default()).await.unwrap();
    let count = usize::try_from(count).unwrap();
    world
        .until("all vote", async || members(world, bundle, "10.0.0.1").await.iter().filter(|member| !member.is_learner).count() == count)
        .await;
}

#[tokio::test(start_paused = true)]
async fn before_power_nobody_answers_and_while_booting_the_connection_is_refused() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    let mut client = world.talos("10.0.0.1", bundle.talos_client(ADMIN));
    assert_eq!(client.version(()).await.unwrap_err().code(), Code::Unavailable);
    world.start(1, &bundle.configuration("controlplane", "cp-1", "10.0.0.1", "", ""));
    world.until("it holds its address", async || !world.network.holders("10.0.0.1".parse().unwrap()).is_empty()).await;
    let refused = client.version(()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    world.until("apid answers", async || client.version(()).await.is_ok()).await;
    let version = client.version(()).await.unwrap().into_inner().messages.remove(0);
    assert_eq!(version.version.unwrap().tag, "v1.4.8");
    assert!(version.metadata.is_none());
    assert_eq!(client.hostname(()).await.unwrap().into_inner().messages[0].hostname, "cp-1");
}

#[tokio::test(start_paused = true)]
async fn before_bootstrap_etcd_waits() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    control_planes(&world, &bundle, 1).await;
    let mut client = world.talos("10.0.0.1", bundle.talos_client(ADMIN));
    world
        .until("services", async || {
            client.service_list(()).await.unwrap().into_inner().messages[0].services.iter().any(|service| service.id == "etcd")
        })
        .await;
    let services = client.service_list(()).await.unwrap().into_inner().messages.remove(0).services;
    let state = |name: &str| services.iter().find(|service| service.id == name).map(|service| service.state.as_str());
    for name in ["apid", "containerd", "cri", "kubelet", "machined", "trustd", "udevd"] {
        assert_eq!(state(name), Some("Running"), "{name}");
    }
    assert_eq!(state("etcd"), Some("Preparing"));
    assert_eq!(client.etcd_status(()).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(client.etcd_member_list(wire::EtcdMemberListRequest::default()).await.unwrap_err().code(), Code::Unavailable);
    let mut kubeconfig = client.kubeconfig(()).await.unwrap().into_inner();
    assert!(kubeconfig.next().await.unwrap().unwrap().bytes.starts_with(&[0x1f, 0x8b]), "the kubeconfig needs no cluster");
}

#[tokio::test(start_paused = true)]
async fn one_bootstrap_makes_three_members_one_learner_at_a_time() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    control_planes(&world, &bundle, 3).await;
    let mut client = world.talos("10.0.0.2", bundle.talos_client(ADMIN));
    client.bootstrap(wire::BootstrapRequest::default()).await.unwrap();
    let again = client.bootstrap(wire::BootstrapRequest::default()).await.unwrap_err();
    assert_eq!((again.code(), again.message()), (Code::AlreadyExists, "etcd data directory is not empty"));
    let mut seen = Vec::new();
    world
        .until("three voters", async || {
            let truth = world.nodes.truth();
            let cluster = &truth.etcd[0];
            let learners = cluster.members().filter(|member| member.is_learner).count();
            assert!(learners <= 1);
            if seen.last() != Some(&(cluster.voters(), learners)) {
                seen.push((cluster.voters(), learners));
            }
            cluster.voters() == 3
        })
        .await;
    assert_eq!(seen, [(1, 0), (1, 1), (2, 1), (3, 0)], "voters and learners, as time passed");
    assert_eq!(world.nodes.truth().etcd.len(), 1);
    let names: Vec<String> = members(&world, &bundle, "10.0.0.3").await.into_iter().map(|member| member.hostname).collect();
    for name in ["cp-1", "cp-2", "cp-3"] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
    let status = client.etcd_status(()).await.unwrap().into_inner().messages.remove(0).member_status.unwrap();
    assert_eq!(status.leader, status.member_id, "the first member leads");
}

#[tokio::test(start_paused = true)]
async fn two_bootstraps_make_two_clusters() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    control_planes(&world, &bundle, 2).await;
    for address in ["10.0.0.1", "10.0.0.2"] {
        world.talos(address, bundle.talos_client(ADMIN)).bootstrap(wire::BootstrapRequest::default()).await.unwrap();
    }
    let truth = world.nodes.truth();
    assert_eq!(truth.etcd.len(), 2);
    assert_eq!(truth.bootstraps.iter().filter(|call| call.made.is_some()).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_etcd_has_no_leader_and_with_it_all_is_well_again() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    bootstrapped(&world, &bundle, 3).await;
    let (second, third) = (VmId("vm-2".into()), VmId("vm-3".into()));
    world.nodes.powered_off(&third);
    assert_eq!(members(&world, &bundle, "10.0.0.1").await.len(), 3, "two of three are a majority");
    world.nodes.powered_off(&second);
    let mut client = world.talos("10.0.0.1", bundle.talos_client(ADMIN));
    let error = client.etcd_member_list(wire::EtcdMemberListRequest::default()).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "etcdserver: no leader"));
    let local = client.etcd_member_list(wire::EtcdMemberListRequest { query_local: true }).await.unwrap().into_inner();
    assert_eq!(local.messages[0].members.len(), 3, "asked locally, a member says what it knows");
    assert!(!world.nodes.truth().machines[0].serves_api);
    let before = world.nodes.truth().etcd[0].id;
    world.power_on(2);
    world.until("a majority", async || members(&world, &bundle, "10.0.0.1").await.len() == 3).await;
    let truth = world.nodes.truth();
    assert_eq!((truth.etcd.len(), truth.etcd[0].id, truth.etcd[0].voters()), (1, before, 3), "the disk kept the member");
}

#[tokio::test(start_paused = true)]
async fn a_member_leaves_before_its_machine_goes() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    bootstrapped(&world, &bundle, 3).await;
    let mut client = world.talos("10.0.0.1", bundle.talos_client(ADMIN));
    let successor =
        client.etcd_forfeit_leadership(wire::EtcdForfeitLeadershipRequest {}).await.unwrap().into_inner().messages.remove(0).member;
    assert!(!successor.is_empty());
    client.etcd_leave_cluster(wire::EtcdLeaveClusterRequest {}).await.unwrap();
    assert_eq!(members(&world, &bundle, "10.0.0.2").await.len(), 2);
    let services = client.service_list(()).await.unwrap().into_inner().messages.remove(0).services;
    assert!(services.iter().any(|service| service.id == "etcd" && service.state == "Finished"));
    world.nodes.destroyed(&VmId("vm-1".into()));
    let truth = world.nodes.truth();
    assert!(truth.etcd[0].has_quorum());
    assert!(!truth.disks.contains(&"disk-1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_dead_member_is_removed_by_its_id() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    bootstrapped(&world, &bundle, 3).await;
    world.nodes.destroyed(&VmId("vm-3".into()));
    let dead = members(&world, &bundle, "10.0.0.1").await.into_iter().find(|member| member.hostname == "cp-3").unwrap();
    let mut client = world.talos("10.0.0.1", bundle.talos_client(ADMIN));
    client.etcd_remove_member_by_id(wire::EtcdRemoveMemberByIdRequest { member_id: dead.id }).await.unwrap();
    assert_eq!(members(&world, &bundle, "10.0.0.1").await.len(), 2);
    let error = client.etcd_remove_member_by_id(wire::EtcdRemoveMemberByIdRequest { member_id: dead.id }).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_reachable_only_once_a_control_plane_signs_for_it() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    let worker = world.start(7, &bundle.configuration("worker", "worker-7", "10.0.0.7", "", ""));
    let mut client = world.talos("10.0.0.7", bundle.talos_client(ADMIN));
    world.until("it complains", async || world.dmesg(&worker).contains("no trustd endpoint answers")).await;
    assert_eq!(client.version(()).await.unwrap_err().code(), Code::Unavailable);
    control_planes(&world, &bundle, 1).await;
    world.until("the worker answers", async || client.version(()).await.is_ok()).await;
    let error = client.bootstrap(wire::BootstrapRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    let error = client.version(with_node((), "10.0.0.1")).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::PermissionDenied, "no request forwarding"));
}

#[tokio::test(start_paused = true)]
async fn control_planes_forward_calls() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    control_planes(&world, &bundle, 2).await;
    let mut client = world.talos("10.0.0.1", bundle.talos_client(ADMIN));
    for target in ["10.0.0.2", "cp-2"] {
        let reply = client.hostname(with_node((), target)).await.unwrap().into_inner();
        assert_eq!(reply.messages[0].hostname, "cp-2", "{target}");
    }
    let mut both = Request::new(());
    for node in ["10.0.0.1", "10.0.0.2", "10.0.0.9"] {
        both.metadata_mut().append("nodes", node.parse().unwrap());
    }
    let replies = client.hostname(both).await.unwrap().into_inner().messages;
    let named: Vec<(String, String)> =
        replies.iter().map(|reply| (reply.metadata.as_ref().unwrap().hostname.clone(), reply.hostname.clone())).collect();
    assert_eq!(named[0], ("10.0.0.1".into(), "cp-1".into()));
    assert_eq!(named[1], ("10.0.0.2".into(), "cp-2".into()));
    assert!(replies[2].metadata.as_ref().unwrap().error.contains("no route to host"), "{:?}", replies[2]);
    let reader =
        world.talos("10.0.0.1", bundle.talos_client("os:reader")).bootstrap(with_node(wire::BootstrapRequest::default(), "10.0.0.2")).await;
    assert_eq!(reader.unwrap_err().code(), Code::PermissionDenied, "the caller's roles go with the call");
}

#[tokio::test(start_paused = true)]
async fn the_certificate_decides_who_is_let_in_and_what_for() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    let other = Bundle::new(2, &world.clock).await;
    control_planes(&world, &bundle, 1).await;
    let denied = world.talos("10.0.0.1", bundle.talos_client("os:reader")).bootstrap(wire::BootstrapRequest::default()).await.unwrap_err();
    assert_eq!((denied.code(), denied.message()), (Code::PermissionDenied, "not authorized"));
    for tls in [other.talos_client(ADMIN), World::stranger()] {
        let error = world.talos("10.0.0.1", tls).version(()).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "no connection at all");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_configuration_leaves_the_machine_in_maintenance_until_a_good_one_is_applied() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    let good = bundle.configuration("controlplane", "cp-1", "10.0.0.1", "", "");
    let metadata = "local-hostname: from-metadata\nnetwork:\n  version: 2\n  ethernets:\n    id0:\n      match: {macaddress: \"00:50:56:00:00:01\"}\n      set-name: eth0\n      addresses: [10.0.0.1/24]\n";
    world.set(1, "guestinfo.metadata", &base64(metadata));
    let id = world.start(1, &good.replace("  type: controlplane", "  type: controlplane\n  tokens: x"));
    world.until("maintenance", async || world.nodes.truth().machines[0].stage == "Maintenance").await;
    assert!(world.dmesg(&id).contains("unknown keys found during decoding: machine.tokens"), "{}", world.dmesg(&id));
    let mut client = world.talos("10.0.0.1", World::stranger());
    world.until("the maintenance API answers", async || client.version(()).await.is_ok()).await;
    assert_eq!(client.bootstrap(wire::BootstrapRequest::default()).await.unwrap_err().code(), Code::Unimplemented);
    let request = |data: &str| wire::ApplyConfigurationRequest {
        data: data.as_bytes().to_vec(),
        mode: wire::apply_configuration_request::Mode::Auto.into(),
        dry_run: false,
        try_mode_timeout: None,
    };
    let error = client.apply_configuration(request("version: v1alpha1")).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    client.apply_configuration(request(&good)).await.unwrap();
    let mut admin = world.talos("10.0.0.1", bundle.talos_client(ADMIN));
    world.until("it runs", async || admin.hostname(()).await.is_ok_and(|reply| reply.into_inner().messages[0].hostname == "cp-1")).await;
}

#[tokio::test(start_paused = true)]
async fn the_configuration_is_read_once_and_kept_on_the_disk() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    control_planes(&world, &bundle, 1).await;
    world.set(1, "guestinfo.talos.config", &base64(&bundle.configuration("controlplane", "renamed", "10.0.0.9", "", "")));
    let mut client = world.talos("10.0.0.1", bundle.talos_client(ADMIN));
    client.reboot(wire::RebootRequest::default()).await.unwrap();
    world.until("it goes", async || client.version(()).await.is_err()).await;
    world.until("it comes back", async || client.version(()).await.is_ok()).await;
    assert_eq!(client.hostname(()).await.unwrap().into_inner().messages[0].hostname, "cp-1");
    client.shutdown(wire::ShutdownRequest::default()).await.unwrap();
    world.until("it is off", async || *world.bench.switched_off.lock().unwrap() == [VmId("vm-1".into())]).await;
}

#[tokio::test(start_paused = true)]
async fn two_machines_with_one_address_are_a_recorded_conflict() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    world.start(1, &bundle.configuration("controlplane", "cp-1", "10.0.0.1", "", ""));
    world.start(2, &bundle.configuration("controlplane", "cp-2", "10.0.0.1", "", ""));
    world.until("both hold it", async || world.network.holders("10.0.0.1".parse().unwrap()).len() == 2).await;
    assert_eq!(world.network.conflicts().len(), 1);
}

/// A connection to the machine API at 10.0.0.1.
async fn connected(world: &World, tls: &ClientTls) -> BoxStream {
    let mut open = None;
    let connect = async || {
        let stream = world.network.dial("10.0.0.1", 50000).await.ok()?;
        world.tls.connect(stream, "10.0.0.1", tls).await.ok().map(|secured| secured.stream)
    };
    world
        .until("it answers", async || {
            open = connect().await;
            open.is_some()
        })
        .await;
    open.unwrap()
}

async fn is_closed(mut stream: BoxStream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_connection_does_not_outlive_what_it_leads_to() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    let metadata = "local-hostname: one\nnetwork:\n  version: 2\n  ethernets:\n    id0:\n      match: {macaddress: \"00:50:56:00:00:01\"}\n      set-name: eth0\n      addresses: [10.0.0.1/24]\n";
    world.set(1, "guestinfo.metadata", &base64(metadata));
    let id = world.power_on(1);
    let maintenance = connected(&world, &World::stranger()).await;
    let configuration = bundle.configuration("controlplane", "cp-1", "10.0.0.1", "", "");
    world.set(1, "guestinfo.talos.config", &base64(&configuration));
    assert!(is_closed(maintenance).await, "it is configured");

    let admin = bundle.talos_client(ADMIN);
    let idle = connected(&world, &admin).await;
    assert!(!is_closed(idle).await, "silence alone closes nothing");
    let before = connected(&world, &admin).await;
    world.nodes.reboot(&id, Duration::ZERO);
    assert!(is_closed(before).await, "it rebooted");
    let before = connected(&world, &admin).await;
    world.nodes.powered_off(&id);
    assert!(is_closed(before).await, "its power is gone");
    world.power_on(1);
    let before = connected(&world, &admin).await;
    world.nodes.switch_off(&id);
    assert!(is_closed(before).await, "it switched itself off");
}

#[tokio::test(start_paused = true)]
async fn the_endpoint_s_name_leads_to_live_control_planes() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    control_planes(&world, &bundle, 2).await;
    assert_eq!(world.network.resolve("api.demo.test").len(), 2);
    world.nodes.powered_off(&VmId("vm-1".into()));
    assert_eq!(world.network.resolve("api.demo.test"), ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn a_shared_address_is_held_once_and_moves() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    let vip = "      vip: {ip: 10.0.0.100}\n";
    for number in 1..=3 {
        world.start(number, &bundle.configuration("controlplane", &format!("cp-{number}"), &format!("10.0.0.{number}"), vip, ""));
    }
    let mut client = world.talos("10.0.0.1", bundle.talos_client(ADMIN));
    world.until("apid answers", async || client.version(()).await.is_ok()).await;
    assert!(world.network.holders("10.0.0.100".parse().unwrap()).is_empty(), "not before etcd runs");
    client.bootstrap(wire::BootstrapRequest::default()).await.unwrap();
    let holders = || world.network.holders("10.0.0.100".parse().unwrap());
    world.until("three serve", async || world.nodes.truth().machines.iter().all(|machine| machine.serves_api)).await;
    assert_eq!(holders(), [VmId("vm-1".into())]);
    let mut shared = world.talos("10.0.0.100", bundle.talos_client(ADMIN));
    assert_eq!(shared.hostname(()).await.unwrap().into_inner().messages[0].hostname, "cp-1");
    world.nodes.powered_off(&VmId("vm-1".into()));
    assert_eq!(holders(), [VmId("vm-2".into())]);
    let mut shared = world.talos("10.0.0.100", bundle.talos_client(ADMIN));
    world
        .until("the new holder answers", async || {
            shared.hostname(()).await.is_ok_and(|reply| reply.into_inner().messages[0].hostname == "cp-2")
        })
        .await;
    world.nodes.powered_off(&VmId("vm-2".into()));
    assert!(holders().is_empty(), "with the majority the address goes");
    assert!(world.network.conflicts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn hooks_see_every_call_and_can_lose_the_reply_of_one_that_took_effect() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    control_planes(&world, &bundle, 1).await;
    world.hooks.on(|call| if call.method == "Bootstrap" && call.phase == Phase::After { Verdict::DropReply } else { Verdict::Proceed });
    let mut client = world.talos("10.0.0.1", bundle.talos_client(ADMIN));
    assert!(client.bootstrap(wire::BootstrapRequest::default()).await.is_err());
    assert_eq!(world.nodes.truth().etcd.len(), 1, "the effect is there");
    assert_eq!(world.hooks.counts().get(&("talos", "Bootstrap".to_owned())), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn the_kernel_log_is_followed() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    control_planes(&world, &bundle, 1).await;
    let mut client = world.talos("10.0.0.1", bundle.talos_client(ADMIN));
    let mut log = client.dmesg(wire::DmesgRequest { follow: true, tail: false }).await.unwrap().into_inner();
    let first = String::from_utf8(log.next().await.unwrap().unwrap().bytes).unwrap();
    assert!(first.contains("booting Talos v1.4.8"), "{first}");
    client.bootstrap(wire::BootstrapRequest::default()).await.unwrap();
    let mut rest = String::new();
    while !rest.contains("service[etcd](Running)") {
        rest += &String::from_utf8(log.next().await.unwrap().unwrap().bytes).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn tools_in_the_template_report_at_once() {
    let mut world = World::new();
    world.version = "v1.4.8+vmtoolsd-guest-agent".to_owned();
    let bundle = Bundle::new(1, &world.clock).await;
    let id = world.start(1, &bundle.configuration("controlplane", "cp-1", "10.0.0.1", "", ""));
    world.until("a report", async || world.bench.reports.lock().unwrap().contains_key(&id)).await;
    let report = world.bench.reports.lock().unwrap()[&id].clone();
    assert_eq!(report.host_name, "cp-1");
    assert_eq!(report.nets, [("00:50:56:00:00:01".to_owned(), vec!["10.0.0.1/24".to_owned()])]);
    world.nodes.powered_off(&id);
    assert!(world.bench.reports.lock().unwrap().is_empty());
}

/// All that a stream of bytes has.
async fn whole(mut stream: tonic::Streaming<talos_proto::common::Data>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend(piece.unwrap().bytes);
    }
    bytes
}

#[tokio::test(start_paused = true)]
async fn etcd_is_recovered_from_what_a_survivor_has() {
    let world = World::new();
    let bundle = Bundle::new(1, &world.clock).await;
    bootstrapped(&world, &bundle, 3).await;
    let kubernetes = || world.nodes.workload_apis().remove(0);
    world.until("the API server", async || world.nodes.truth().machines.iter().all(|machine| machine.serves_api)).await;
    let index = async |address: &str| {
        let mut client = world.talos(address, bundle.talos_client(ADMIN));
        client.etcd_status(()).await.unwrap().into_inner().messages.remove(0).member_status.unwrap().raft_applied_index
    };
    world.nodes.powered_off(&VmId("vm-3".into()));
    let behind = index("10.0.0.1").await;
    let revision = kubernetes().revision();
    world.until("more to be written", async || kubernetes().revision() > revision).await;
    world.nodes.powered_off(&VmId("vm-2".into()));
    let mut client = world.talos("10.0.0.1", bundle.talos_client(ADMIN));
    // Neither a snapshot nor the file needs a quorum.
    let snapshot = whole(client.etcd_snapshot(wire::EtcdSnapshotRequest::default()).await.unwrap().into_inner()).await;
    let path = "/var/lib/etcd/member/snap/db".to_owned();
    let file = whole(client.read(wire::ReadRequest { path }).await.unwrap().into_inner()).await;
    assert_eq!(snapshot[..snapshot.len() - 32], file);
    let revision = kubernetes().revision();
    assert!(index("10.0.0.1").await > behind);
    // One that was away does not know what was written meanwhile, until there is a majority again.
    world.nodes.powered_off(&VmId("vm-1".into()));
    world.power_on(3);
    let mut third = world.talos("10.0.0.3", bundle.talos_client(ADMIN));
    world.until("the third", async || third.etcd_status(()).await.is_ok()).await;
    assert_eq!(index("10.0.0.3").await, behind);
    world.nodes.destroyed(&VmId("vm-2".into()));
    world.nodes.powered_off(&VmId("vm-3".into()));
    world.nodes.destroyed(&VmId("vm-3".into()));
    // The survivor is wiped, and begins anew with what was taken of it.
    world.power_on(1);
    world.until("the first", async || client.etcd_status(()).await.is_ok()).await;
    let recover = wire::BootstrapRequest { recover_etcd: true, recover_skip_hash_check: false };
    assert_eq!(client.bootstrap(recover).await.unwrap_err().code(), Code::AlreadyExists);
    let ephemeral = wire::ResetPartitionSpec { label: "EPHEMERAL".into(), wipe: true };
    let reset = wire::ResetRequest { reboot: true, system_partitions_to_wipe: vec![ephemeral], ..Default::default() };
    client.reset(reset).await.unwrap();
    let list = || wire::ListRequest { root: "/var/lib/etcd/member".into(), ..wire::ListRequest::default() };
    let is_empty = async || {
        world.talos("10.0.0.1", bundle.talos_client(ADMIN)).list(list()).await.is_err_and(|error| error.message().contains("no such file"))
    };
    world.until("an empty disk", is_empty).await;
    assert!(world.nodes.truth().etcd.is_empty(), "nobody has its data any more");
    assert_eq!(client.bootstrap(recover).await.unwrap_err().code(), Code::FailedPrecondition, "nothing was sent");
    let send = |bytes: Vec<u8>| {
        let pieces: Vec<_> = bytes.chunks(1000).map(|piece| talos_proto::common::Data { metadata: None, bytes: piece.to_vec() }).collect();
        futures::stream::iter(pieces)
    };
    client.etcd_recover(send(file)).await.unwrap();
    assert_eq!(client.bootstrap(recover).await.unwrap_err().code(), Code::InvalidArgument, "it has no digest");
    client.etcd_recover(send(snapshot)).await.unwrap();
    client.bootstrap(recover).await.unwrap();
    world.until("one member", async || members(&world, &bundle, "10.0.0.1").await.len() == 1).await;
    world.until("the API server", async || world.nodes.truth().machines.iter().any(|machine| machine.serves_api)).await;
    assert!(kubernetes().revision() >= revision);
    let nodes = kubernetes().snapshot_of("", "nodes");
    assert_eq!(nodes.len(), 3, "what was stored is there again");
    assert_eq!(world.nodes.truth().bootstraps.last().unwrap().recovered, Some(revision));
}
