//! The client against a small server of the same protocol, on an in-memory network with verified chains.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use runtime::clock::Clock;
use runtime::keys::{KeyAlgorithm, KeySource as _, Prepared};
use runtime::net::{BoxStream, Listener as _, MemoryNetwork};
use runtime::random::Random;
use runtime::tls::{ClientAuth, Identity, ServerTls, Tls, client_authorities};
use runtime::x509::{Authority, Leaf, Usages};
use talos::client::grpc::GrpcDialer;
use talos::client::{ApplyMode, LogQuery, MemberId, ResetOptions, TalosDialer as _, TalosError};
use talos::clientconfig::{ADMIN, ClientIdentity};
use talos::secrets::Bundle;
use talos_proto::common::Data;
use talos_proto::machine as proto;
use talos_proto::machine::machine_service_server::{MachineService, MachineServiceServer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

const NODE: &str = "10.0.0.4";

/// What `Version` and `Bootstrap` do instead of answering.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Trouble {
    #[default]
    None,
    /// No answer, ever.
    Silent,
    /// Every connection breaks, once.
    BreaksOff,
}

#[derive(Default)]
struct Log {
    trouble: Trouble,
    calls: Vec<&'static str>,
    /// Whoever was let in carries bytes, until stopped.
    connections: Vec<AbortHandle>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Log>>);

impl Fake {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap()
    }

    async fn called(&self, method: &'static str) {
        let trouble = {
            let mut log = self.log();
            log.calls.push(method);
            log.trouble
        };
        if trouble == Trouble::BreaksOff {
            self.break_off();
        }
        if trouble != Trouble::None {
            std::future::pending().await
        }
    }

    fn break_off(&self) {
        let mut log = self.log();
        log.trouble = Trouble::None;
        log.connections.iter().for_each(AbortHandle::abort);
    }

    fn handshakes(&self) -> usize {
        self.log().connections.len()
    }

    /// Connections that neither side has closed.
    fn open(&self) -> usize {
        self.log().connections.iter().filter(|connection| !connection.is_finished()).count()
    }
}

type Bytes = tonic::codegen::BoxStream<Data>;
type Files = tonic::codegen::BoxStream<proto::FileInfo>;

fn data(pieces: &[&[u8]]) -> Bytes {
    let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Data { metadata: None, bytes: piece.to_vec() })).collect();
    Box::pin(futures::stream::iter(pieces))
}

#[tonic::async_trait]
impl MachineService for Fake {
    async fn version(&self, _: Request<()>) -> Result<Response<proto::VersionResponse>, Status> {
        self.called("Version").await;
        let version = proto::VersionInfo { tag: "v1.4.8".into(), arch: "amd64".into(), ..Default::default() };
        let platform = proto::PlatformInfo { name: "vmware".into(), mode: "cloud".into() };
        let element = proto::Version { version: Some(version), platform: Some(platform), ..Default::default() };
        Ok(Response::new(proto::VersionResponse { messages: vec![element] }))
    }

    async fn service_list(&self, _: Request<()>) -> Result<Response<proto::ServiceListResponse>, Status> {
        let service = |id: &str, health: proto::ServiceHealth| proto::ServiceInfo {
            id: id.into(),
            state: "Running".into(),
            events: Some(proto::ServiceEvents { events: vec![proto::ServiceEvent { msg: "started".into(), ..Default::default() }] }),
            health: Some(health),
        };
        let healthy = proto::ServiceHealth { healthy: true, last_message: "ok".into(), ..Default::default() };
        let unknown = proto::ServiceHealth { unknown: true, ..Default::default() };
        let services = vec![service("etcd", healthy), service("ext-tools", unknown)];
        Ok(Response::new(proto::ServiceListResponse { messages: vec![proto::ServiceList { metadata: None, services }] }))
    }

    async fn bootstrap(&self, _: Request<proto::BootstrapRequest>) -> Result<Response<proto::BootstrapResponse>, Status> {
        self.called("Bootstrap").await;
        Err(Status::already_exists("etcd data directory is not empty"))
    }

    async fn etcd_member_list(&self, _: Request<proto::EtcdMemberListRequest>) -> Result<Response<proto::EtcdMemberListResponse>, Status> {
        let member = proto::EtcdMember { id: 0xabc, hostname: "n1".into(), is_learner: true, ..Default::default() };
        let element = proto::EtcdMembers { members: vec![member], ..Default::default() };
        Ok(Response::new(proto::EtcdMemberListResponse { messages: vec![element] }))
    }

    async fn etcd_status(&self, _: Request<()>) -> Result<Response<proto::EtcdStatusResponse>, Status> {
        Err(Status::unavailable("no controlplane endpoints"))
    }

    async fn list(&self, request: Request<proto::ListRequest>) -> Result<Response<Files>, Status> {
        Err(Status::unknown(format!("stat {}: no such file or directory", request.into_inner().root)))
    }

    async fn etcd_leave_cluster(
        &self,
        _: Request<proto::EtcdLeaveClusterRequest>,
    ) -> Result<Response<proto::EtcdLeaveClusterResponse>, Status> {
        std::future::pending().await
    }

    async fn reset(&self, request: Request<proto::ResetRequest>) -> Result<Response<proto::ResetResponse>, Status> {
        let request = request.into_inner();
        assert_eq!(request.system_partitions_to_wipe.len(), 1);
        Err(Status::permission_denied("not authorized"))
    }

    async fn shutdown(&self, _: Request<proto::ShutdownRequest>) -> Result<Response<proto::ShutdownResponse>, Status> {
        Err(Status::failed_precondition("time is not in sync yet"))
    }

    async fn apply_configuration(
        &self,
        request: Request<proto::ApplyConfigurationRequest>,
    ) -> Result<Response<proto::ApplyConfigurationResponse>, Status> {
        let request = request.into_inner();
        assert_ne!(request.mode(), proto::apply_configuration_request::Mode::Reboot);
        let element = proto::ApplyConfiguration { warnings: vec![format!("{} bytes", request.data.len())], ..Default::default() };
        Ok(Response::new(proto::ApplyConfigurationResponse { messages: vec![element] }))
    }

    async fn kubeconfig(&self, _: Request<()>) -> Result<Response<Bytes>, Status> {
        Ok(Response::new(data(&[b"not an archive"])))
    }

    async fn dmesg(&self, _: Request<proto::DmesgRequest>) -> Result<Response<Bytes>, Status> {
        Ok(Response::new(data(&[b"line 1\n", b"line 2\n"])))
    }

    async fn logs(&self, request: Request<proto::LogsRequest>) -> Result<Response<Bytes>, Status> {
        let request = request.into_inner();
        Ok(Response::new(data(&[format!("{} {}", request.id, request.tail_lines).as_bytes()])))
    }
}

struct Io(BoxStream);

impl Connected for Io {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

struct World {
    network: MemoryNetwork,
    fake: Fake,
    keys: Prepared,
    random: Random,
    clock: Clock,
    tls: Tls,
}

impl World {
    fn new() -> Self {
        let random = Random::seeded(1);
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let keys = Prepared::new(random.child("keys"));
        Self { network: MemoryNetwork::default(), fake: Fake::default(), keys, tls: Tls::clear(clock.clone()), random, clock }
    }

    async fn bundle(&self) -> Bundle {
        Bundle::generate("v1.4".parse().unwrap(), &self.keys, &self.random, &self.clock).await.unwrap()
    }

    async fn identity(&self, bundle: &Bundle) -> ClientIdentity {
        ClientIdentity::issue(bundle, &[ADMIN], &self.keys, &self.random, &self.clock).await.unwrap()
    }

    /// Serves the fake at the node's address with a certificate of `authority`, asking for client certificates of `clients`.
    async fn serve(&self, authority: &Authority, common_name: &str, clients: Option<&Authority>) {
        let key = self.keys.generate(KeyAlgorithm::Ed25519).await.unwrap();
        let leaf = Leaf {
            organizations: Vec::new(),
            common_name: Some(common_name.into()),
            dns_names: vec![common_name.into()],
            ip_addresses: vec![NODE.parse().unwrap()],
            usages: Usages::SERVER,
            not_before: "2025-12-31T00:00:00Z".parse().unwrap(),
            not_after: "2026-01-03T00:00:00Z".parse().unwrap(),
        };
        let certificate = authority.issue(&leaf, &key, &self.random).unwrap();
        let server = ServerTls {
            identity: Identity { chain: vec![certificate], key: key.as_rustls() },
            clients: clients.map_or(ClientAuth::None, |authority| {
                ClientAuth::Required(client_authorities(std::slice::from_ref(&authority.certificate_der)).unwrap())
            }),
            alpn: vec![b"h2".to_vec()],
        };
        let mut listener = self.network.listen(NODE, 50_000);
        let (tls, fake) = (self.tls.clone(), self.fake.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (near, mut far) = tokio::io::duplex(64 * 1024);
                let carried = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut far).await });
                let Ok(secured) = tls.accept(Box::new(near), &server).await else { continue };
                fake.log().connections.push(carried.abort_handle());
                let incoming = futures::stream::iter([Ok::<_, std::io::Error>(Io(secured.stream))]).chain(futures::stream::pending());
                tokio::spawn(Server::builder().add_service(MachineServiceServer::new(fake.clone())).serve_with_incoming(incoming));
            }
        });
    }

    fn dialer(&self) -> GrpcDialer {
        GrpcDialer::new(Arc::new(self.network.clone()), self.tls.clone())
    }
}

/// A world whose node answers, who dials it, and as whom.
async fn answering() -> (World, GrpcDialer, ClientIdentity) {
    let world = World::new();
    let bundle = world.bundle().await;
    let os = bundle.os.authority().unwrap();
    world.serve(&os, "n1", Some(&os)).await;
    let (dialer, identity) = (world.dialer(), world.identity(&bundle).await);
    (world, dialer, identity)
}

#[tokio::test(start_paused = true)]
async fn calls_carry_their_answers() {
    let world = World::new();
    let bundle = world.bundle().await;
    let os = bundle.os.authority().unwrap();
    world.serve(&os, "n1", Some(&os)).await;
    let node = world.dialer().connect(NODE, &world.identity(&bundle).await).await.unwrap();
    let version = node.version().await.unwrap();
    assert_eq!((version.tag.as_str(), version.platform.as_str()), ("v1.4.8", "vmware"));
    let services = node.services().await.unwrap();
    assert_eq!((services[0].is_healthy, services[0].message.as_str()), (Some(true), "ok"));
    assert_eq!((services[1].is_healthy, services[1].message.as_str()), (None, "started"));
    let members = node.etcd_members().await.unwrap();
    assert_eq!((members[0].id, members[0].is_learner), (MemberId(0xabc), true));
    assert_eq!(members[0].id.to_string(), "0000000000000abc");
    assert!(!node.has_etcd_data().await.unwrap());
    let text: Vec<u8> = node.dmesg(false, true).await.unwrap().map(Result::unwrap).concat().await;
    assert_eq!(text, b"line 1\nline 2\n");
    let query = LogQuery { namespace: "system".into(), id: "etcd".into(), follow: false, tail_lines: None };
    assert_eq!(node.logs(&query).await.unwrap().map(Result::unwrap).concat().await, b"etcd -1");
    assert_eq!(node.apply_configuration("abc", ApplyMode::Auto, false).await.unwrap(), ["3 bytes"]);
}

#[tokio::test(start_paused = true)]
async fn errors_are_told_apart() {
    let world = World::new();
    let bundle = world.bundle().await;
    let os = bundle.os.authority().unwrap();
    let identity = world.identity(&bundle).await;
    let refused = world.dialer().connect(NODE, &identity).await.unwrap_err();
    assert!(refused.is_unreachable() && refused.to_string().contains("connection refused"), "{refused}");
    world.serve(&os, "n1", Some(&os)).await;
    let node = world.dialer().connect(NODE, &identity).await.unwrap();
    let options = ResetOptions { partitions: vec!["STATE".into()], ..ResetOptions::default() };
    assert_eq!(node.bootstrap().await.unwrap_err().kind(), "AlreadyExists");
    assert_eq!(node.etcd_status().await.unwrap_err().kind(), "NotReady");
    assert_eq!(node.reset(&options).await.unwrap_err().kind(), "Permission");
    assert_eq!(node.shutdown(false).await.unwrap_err().kind(), "Precondition");
    assert_eq!(node.reboot().await.unwrap_err().kind(), "Unimplemented");
    assert_eq!(node.kubeconfig().await.unwrap_err().kind(), "Failed");
    let started = world.clock.instant();
    let timeout = node.etcd_leave().await.unwrap_err();
    assert!(timeout.is_outcome_unknown() && matches!(timeout, TalosError::Timeout { .. }), "{timeout}");
    assert!(started.elapsed() >= Duration::from_secs(300), "a node may take five minutes to leave");
}

#[tokio::test(start_paused = true)]
async fn a_node_of_another_cluster_is_recognized() {
    let world = World::new();
    let (ours, theirs) = (world.bundle().await, world.bundle().await);
    world.serve(&theirs.os.authority().unwrap(), "n1", None).await;
    let error = world.dialer().connect(NODE, &world.identity(&ours).await).await.unwrap_err();
    let TalosError::NotOurs { signed_by, expected, .. } = &error else { panic!("{error}") };
    let key = |bundle: &Bundle| hex::encode_upper(bundle.os.authority().unwrap().facts().unwrap().subject_key_id.unwrap());
    assert_eq!((signed_by, expected), (&key(&theirs), &key(&ours)));
}

#[tokio::test(start_paused = true)]
async fn maintenance_and_wrong_credentials_are_recognized() {
    let world = World::new();
    let (ours, theirs) = (world.bundle().await, world.bundle().await);
    let random = Random::seeded(3);
    let key = world.keys.generate(KeyAlgorithm::Ed25519).await.unwrap();
    let (from, until) = ("2025-12-31T00:00:00Z".parse().unwrap(), "2027-01-01T00:00:00Z".parse().unwrap());
    let boot = Authority::self_signed(&[], None, key, from, until, &random).unwrap();
    world.serve(&boot, "maintenance-service.talos.dev", None).await;
    let identity = world.identity(&ours).await;
    let error = world.dialer().connect(NODE, &identity).await.unwrap_err();
    assert!(matches!(error, TalosError::Maintenance { .. }), "{error}");

    let os = ours.os.authority().unwrap();
    world.serve(&os, "n1", Some(&theirs.os.authority().unwrap())).await;
    let outcome = match world.dialer().connect(NODE, &identity).await {
        Ok(node) => node.version().await.map(drop),
        Err(error) => Err(error),
    };
    assert_eq!(outcome.unwrap_err().kind(), "CredentialsRefused");
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_is_ours_but_does_not_hold() {
    let world = World::new();
    let bundle = world.bundle().await;
    let os = bundle.os.authority().unwrap();
    let identity = world.identity(&bundle).await;
    world.serve(&os, "n1", Some(&os)).await;
    tokio::time::advance(Duration::from_secs(72 * 3600)).await;
    let error = world.dialer().connect(NODE, &identity).await.unwrap_err();
    assert!(matches!(&error, TalosError::Certificate { reason, .. } if reason.contains("expired")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_serves_many_questions_but_no_change() {
    let (world, dialer, identity) = answering().await;
    for _ in 0..3 {
        let node = dialer.clone().connect(NODE, &identity).await.unwrap();
        node.version().await.unwrap();
        assert!(!node.has_etcd_data().await.unwrap());
        assert_eq!(node.etcd_status().await.unwrap_err().kind(), "NotReady", "an error that the node told is an answer");
    }
    assert_eq!(world.fake.handshakes(), 1);
    let node = dialer.connect(NODE, &identity).await.unwrap();
    assert_eq!(node.bootstrap().await.unwrap_err().kind(), "AlreadyExists");
    assert_eq!(world.fake.handshakes(), 2, "a change has its own handshake");
    dialer.connect(NODE, &identity).await.unwrap().version().await.unwrap();
    assert_eq!((world.fake.handshakes(), world.fake.open()), (2, 2), "and leaves its connection, beside the one in `node`");
    drop(node);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.fake.open(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_after_connecting_needs_no_second_handshake() {
    let (world, dialer, identity) = answering().await;
    let node = dialer.connect(NODE, &identity).await.unwrap();
    assert_eq!(node.bootstrap().await.unwrap_err().kind(), "AlreadyExists");
    assert_eq!(world.fake.handshakes(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_identity_has_another_connection() {
    let world = World::new();
    let (bundle, theirs) = (world.bundle().await, world.bundle().await);
    let os = bundle.os.authority().unwrap();
    world.serve(&os, "n1", None).await;
    let dialer = world.dialer();
    let (first, second) = (world.identity(&bundle).await, world.identity(&bundle).await);
    for identity in [&first, &second, &first, &second] {
        dialer.connect(NODE, identity).await.unwrap().version().await.unwrap();
    }
    assert_eq!(world.fake.handshakes(), 2);
    let error = dialer.connect(NODE, &world.identity(&theirs).await).await.unwrap_err();
    assert_eq!(error.kind(), "NotOurs", "what one identity has open is not another's");
    let mut other_authority = first.clone();
    other_authority.ca = theirs.os.authority().unwrap().certificate_pem;
    assert_eq!(dialer.connect(NODE, &other_authority).await.unwrap_err().kind(), "NotOurs");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_node_is_told_as_soon_as_its_connection_is_gone() {
    let world = World::new();
    let (ours, theirs) = (world.bundle().await, world.bundle().await);
    let (os, foreign) = (ours.os.authority().unwrap(), theirs.os.authority().unwrap());
    let identity = world.identity(&ours).await;
    for (common_name, kind) in [("n1", "NotOurs"), ("maintenance-service.talos.dev", "Maintenance")] {
        world.serve(&os, "n1", Some(&os)).await;
        let dialer = world.dialer();
        dialer.connect(NODE, &identity).await.unwrap();
        let node = dialer.connect(NODE, &identity).await.unwrap();
        node.version().await.unwrap();
        world.serve(&foreign, common_name, None).await;
        world.fake.break_off();
        assert_eq!(node.version().await.unwrap_err().kind(), kind, "by whoever had asked before");
        assert_eq!(node.bootstrap().await.unwrap_err().kind(), kind);
        assert_eq!(dialer.connect(NODE, &identity).await.unwrap_err().kind(), kind);
    }
    assert!(!world.fake.log().calls.contains(&"Bootstrap"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_away_is_unreachable_and_then_answers_again() {
    let world = World::new();
    let bundle = world.bundle().await;
    let os = bundle.os.authority().unwrap();
    let (dialer, identity) = (world.dialer(), world.identity(&bundle).await);
    world.serve(&os, "n1", Some(&os)).await;
    dialer.connect(NODE, &identity).await.unwrap().version().await.unwrap();
    drop(world.network.listen(NODE, 50_000));
    world.fake.break_off();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(dialer.connect(NODE, &identity).await.unwrap_err().kind(), "Unreachable");
    world.serve(&os, "n1", Some(&os)).await;
    dialer.connect(NODE, &identity).await.unwrap().version().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_has_one_call_and_no_more() {
    let (world, dialer, identity) = answering().await;
    dialer.connect(NODE, &identity).await.unwrap().version().await.unwrap();
    for is_cancelled in [false, true] {
        let before = world.fake.handshakes();
        world.fake.log().trouble = Trouble::Silent;
        let node = dialer.connect(NODE, &identity).await.unwrap();
        assert_eq!(world.fake.handshakes(), before, "it was kept");
        if is_cancelled {
            assert!(tokio::time::timeout(Duration::from_secs(1), node.version()).await.is_err());
        } else {
            let timeout = node.version().await.unwrap_err();
            assert!(matches!(timeout, TalosError::Timeout { .. }), "{timeout}");
        }
        assert_eq!(world.fake.handshakes(), before, "silence is not asked again");
        world.fake.log().trouble = Trouble::None;
        dialer.connect(NODE, &identity).await.unwrap().version().await.unwrap();
        node.version().await.unwrap();
        assert_eq!(world.fake.handshakes(), before + 1, "the next question has a new connection, whoever asks it");
        drop(node);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.fake.open(), 1, "the silent one is closed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_that_broke_off_is_asked_once_more_and_a_change_is_not() {
    let (world, dialer, identity) = answering().await;
    let calls = || std::mem::take(&mut world.fake.log().calls);

    world.fake.log().trouble = Trouble::BreaksOff;
    let error = dialer.connect(NODE, &identity).await.unwrap().version().await.unwrap_err();
    assert_eq!((error.kind(), calls()), ("Unreachable", vec!["Version"]), "a new connection cannot be stale");

    dialer.connect(NODE, &identity).await.unwrap().version().await.unwrap();
    calls();
    world.fake.log().trouble = Trouble::BreaksOff;
    dialer.connect(NODE, &identity).await.unwrap().version().await.unwrap();
    assert_eq!(calls(), ["Version", "Version"]);

    world.fake.log().trouble = Trouble::BreaksOff;
    let error = dialer.connect(NODE, &identity).await.unwrap().bootstrap().await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error}");
    assert_eq!((error.kind(), calls()), ("Unreachable", vec!["Bootstrap"]));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_used_is_closed_and_nothing_is_kept_for_good() {
    let (world, dialer, identity) = answering().await;
    dialer.connect(NODE, &identity).await.unwrap().version().await.unwrap();
    tokio::time::sleep(Duration::from_secs(4 * 60)).await;
    dialer.connect("10.0.0.5", &identity).await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.fake.open(), 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    dialer.connect("10.0.0.5", &identity).await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.fake.open(), 0, "closed when any node is asked next");

    let before = world.fake.handshakes();
    for _ in 0..=15 {
        dialer.connect(NODE, &identity).await.unwrap().version().await.unwrap();
        tokio::time::sleep(Duration::from_secs(4 * 60)).await;
    }
    assert_eq!(world.fake.handshakes(), before + 2, "after an hour the certificate is looked at again");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_connections_are_kept() {
    let (world, dialer, identity) = answering().await;
    let mut other = identity.clone();
    dialer.connect(NODE, &identity).await.unwrap();
    for _ in 0..300 {
        other.certificate.push('\n');
        dialer.connect(NODE, &other).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        dialer.connect(NODE, &identity).await.unwrap();
    }
    assert_eq!((world.fake.handshakes(), world.fake.open()), (301, 256), "the one that is used is not the one that goes");
}
