//! The machine API over gRPC and mutual TLS.
//!
//! Controllers ask the same nodes again and again, so a connection is kept for the next question until a call on it is not answered. A
//! question that a kept connection broke off is asked once more over a fresh one. A call that changes a node goes over a connection that
//! was made for it and is never repeated: over a kept one it could not be told whether a node that went away meanwhile had received it.
//!
//! When the handshake fails because of the node's certificate, the certificate is fetched once more without trust, only to say what it
//! is: a node without configuration, or one of another cluster.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::{Stream, StreamExt as _};
use runtime::http::Connector;
use runtime::net::Dialer;
use runtime::tls::{ClientTls, Identity, Tls, TlsError, any_server, authorities};
use runtime::x509::{Facts, certificate_from_pem, certificates_from_pem};
use talos_proto::common::Data;
use talos_proto::machine as proto;
use tonic::transport::Endpoint;
use tonic::{Response, Status};

use super::connection::{Client, Connection, Ended, Once, Pool};
use super::error::{innermost, tls_error};
use super::{
    ApplyMode, ByteStream, CALL_TIMEOUT, ClientIdentity, ETCD_DATA, EtcdMember, EtcdStatus, LEAVE_TIMEOUT, LogQuery, MemberId, PORT,
    Pieces, ResetOptions, Service, TRANSFER_TIMEOUT, TalosApi, TalosDialer, TalosError, Version, WORK_TIMEOUT, archive,
};

/// The largest message in either direction.
const MAX_MESSAGE: usize = 32 * 1024 * 1024;
/// The name in the certificate of a node without configuration.
const MAINTENANCE: &str = "maintenance-service.talos.dev";
/// How a node says that a path is not there.
const NO_SUCH_FILE: &str = "no such file or directory";

/// Dials nodes over `dialer`. Clones share the connections that are kept.
#[derive(Clone, Debug)]
pub struct GrpcDialer {
    dialer: Arc<dyn Dialer>,
    tls: Tls,
    pool: Pool,
}

impl GrpcDialer {
    pub fn new(dialer: Arc<dyn Dialer>, tls: Tls) -> Self {
        let pool = Pool::new(tls.clock().clone());
        Self { dialer, tls, pool }
    }

    /// Says what a node is whose certificate was not accepted for `reason`.
    async fn diagnose(&self, address: &str, identity: &ClientIdentity, reason: &str) -> TalosError {
        let certificate = |reason: String| TalosError::Certificate { address: address.to_owned(), reason };
        let anyone = ClientTls { verifier: any_server(), identity: None, server_name: None, alpn: vec![b"h2".to_vec()] };
        let presented = match self.dialer.dial(address, PORT).await {
            Ok(stream) => self.tls.connect(stream, address, &anyone).await.ok().and_then(|secured| secured.peer.into_iter().next()),
            Err(_) => None,
        };
        let Some(facts) = presented.and_then(|der| Facts::read(&der).ok()) else { return certificate(reason.to_owned()) };
        if facts.common_name.as_deref() == Some(MAINTENANCE) || facts.dns_names.iter().any(|name| name == MAINTENANCE) {
            return TalosError::Maintenance { address: address.to_owned() };
        }
        let ours = certificate_from_pem(&identity.ca).ok().and_then(|der| Facts::read(&der).ok()).and_then(|facts| facts.subject_key_id);
        if facts.authority_key_id.is_some() && facts.authority_key_id == ours {
            return certificate(reason.to_owned());
        }
        let key = |id: Option<Vec<u8>>| id.map_or_else(|| "unknown".to_owned(), hex::encode_upper);
        TalosError::NotOurs {
            address: address.to_owned(),
            subject: subject(&facts),
            signed_by: key(facts.authority_key_id),
            expected: key(ours),
        }
    }

    /// The connection that is kept, else a new one; and whether it was kept.
    async fn open(&self, address: &str, identity: &ClientIdentity) -> Result<(Arc<Connection>, bool), TalosError> {
        match self.pool.find(address, identity) {
            Some(connection) => Ok((connection, true)),
            None => Ok((self.dial(address, identity).await?, false)),
        }
    }

    /// Makes a connection and keeps it.
    async fn dial(&self, address: &str, identity: &ClientIdentity) -> Result<Arc<Connection>, TalosError> {
        let unreachable = |reason: String| TalosError::Unreachable { address: address.to_owned(), reason };
        let ended = Ended::default();
        let once = Arc::new(Once::new(self.dialer.clone(), ended.clone()));
        let connector = Connector::secured(once, self.tls.clone(), client_tls(identity)?);
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let endpoint = Endpoint::from_shared(format!("https://{host}:{PORT}"))
            .map_err(|_| TalosError::Setup { reason: format!("{address:?} is not an address") })?;
        let channel = match tokio::time::timeout(CALL_TIMEOUT, endpoint.connect_with_connector(connector)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => {
                return Err(match tls_error(&error) {
                    Some(TlsError::Untrusted { reason }) => self.diagnose(address, identity, reason).await,
                    Some(TlsError::Refused { reason }) => {
                        TalosError::CredentialsRefused { address: address.to_owned(), reason: reason.clone() }
                    }
                    _ => unreachable(innermost(&error)),
                });
            }
            Err(_) => return Err(unreachable(format!("no connection within {} s", CALL_TIMEOUT.as_secs()))),
        };
        let client = Client::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        let connection = Arc::new(Connection::new(client, ended));
        self.pool.keep(address, identity, &connection);
        Ok(connection)
    }
}

fn subject(facts: &Facts) -> String {
    let mut parts: Vec<String> = facts.organizations.iter().map(|name| format!("O={name}")).collect();
    parts.extend(facts.common_name.iter().map(|name| format!("CN={name}")));
    if parts.is_empty() { "no subject".to_owned() } else { parts.join(", ") }
}

/// What we bring to a handshake with a node of the identity's cluster.
fn client_tls(identity: &ClientIdentity) -> Result<ClientTls, TalosError> {
    let setup = |reason: String| TalosError::Setup { reason };
    let roots = certificates_from_pem(&identity.ca).map_err(|error| setup(error.to_string()))?;
    let chain = certificates_from_pem(&identity.certificate).map_err(|error| setup(error.to_string()))?;
    Ok(ClientTls {
        verifier: authorities(&roots).map_err(|error| setup(error.to_string()))?,
        identity: Some(Identity { chain, key: identity.key.as_rustls() }),
        server_name: None,
        alpn: vec![b"h2".to_vec()],
    })
}

/// Bytes that are sent, as the protocol wraps them. A type with a name, since the compiler does not see through a boxed stream here.
struct Sent(Pieces);

impl Stream for Sent {
    type Item = Data;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Data>> {
        self.0.as_mut().poll_next(context).map(|piece| piece.map(|bytes| Data { metadata: None, bytes }))
    }
}

#[async_trait]
impl TalosDialer for GrpcDialer {
    async fn connect(&self, node_address: &str, identity: &ClientIdentity) -> Result<Arc<dyn TalosApi>, TalosError> {
        let (connection, is_kept) = self.open(node_address, identity).await?;
        Ok(Arc::new(Node { dialer: self.clone(), address: node_address.to_owned(), identity: identity.clone(), connection, is_kept }))
    }
}

/// A node that was connected to.
struct Node {
    dialer: GrpcDialer,
    address: String,
    identity: ClientIdentity,
    connection: Arc<Connection>,
    /// It was made for an earlier caller.
    is_kept: bool,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.address)
    }
}

impl Node {
    /// Asks something that changes nothing. When a kept connection breaks off, the question is asked once more over a new one.
    async fn ask<T, F>(&self, method: &'static str, limit: Duration, call: impl Fn(Client) -> F) -> Result<T, TalosError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (connection, is_kept) = self.connection().await?;
        match self.within(&connection, method, limit, call(connection.client())).await {
            Err(error) if is_kept && error.is_broken_off() => {
                let connection = self.dialer.dial(&self.address, &self.identity).await?;
                self.within(&connection, method, limit, call(connection.client())).await
            }
            outcome => outcome,
        }
    }

    /// Asks for a change: once, over a connection that was made for it.
    async fn change<T, F>(&self, method: &'static str, limit: Duration, call: impl FnOnce(Client) -> F) -> Result<T, TalosError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let connection = if self.is_kept || self.connection.has_ended() {
            self.dialer.dial(&self.address, &self.identity).await?
        } else {
            self.connection.clone()
        };
        let call = call(connection.client());
        self.within(&connection, method, limit, call).await
    }

    /// The connection, or its successor when it has ended; and whether it was kept.
    async fn connection(&self) -> Result<(Arc<Connection>, bool), TalosError> {
        if self.connection.has_ended() {
            return self.dialer.open(&self.address, &self.identity).await;
        }
        Ok((self.connection.clone(), self.is_kept))
    }

    /// Waits for an answer within its limit.
    async fn within<T>(
        &self,
        connection: &Arc<Connection>,
        method: &'static str,
        limit: Duration,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, TalosError> {
        let call = self.dialer.pool.call(connection);
        let outcome = match tokio::time::timeout(limit, answer).await {
            Ok(outcome) => outcome.map(Response::into_inner).map_err(|status| TalosError::from_status(&self.address, method, &status)),
            Err(_) => Err(TalosError::Timeout { address: self.address.clone(), method, after: limit }),
        };
        if !outcome.as_ref().is_err_and(|error| error.is_broken_off() || error.is_unreachable()) {
            call.answered();
        }
        outcome
    }

    async fn list_members(&self, query_local: bool) -> Result<Vec<EtcdMember>, TalosError> {
        let list = |mut client: Client| async move { client.etcd_member_list(proto::EtcdMemberListRequest { query_local }).await };
        let reply = self.ask("EtcdMemberList", CALL_TIMEOUT, list).await?;
        let element = self.only("EtcdMemberList", reply.messages)?;
        let member = |member: proto::EtcdMember| EtcdMember {
            id: MemberId(member.id),
            hostname: member.hostname,
            peer_urls: member.peer_urls,
            is_learner: member.is_learner,
        };
        Ok(element.members.into_iter().map(member).collect())
    }

    /// The only element of a reply.
    fn only<T>(&self, method: &'static str, messages: Vec<T>) -> Result<T, TalosError> {
        messages.into_iter().next().ok_or_else(|| TalosError::Failed {
            address: self.address.clone(),
            method,
            code: "empty".to_owned(),
            message: "the reply has no element".to_owned(),
        })
    }

    fn bytes(&self, method: &'static str, stream: impl Stream<Item = Result<Data, Status>> + Send + 'static) -> ByteStream {
        let address = self.address.clone();
        Box::pin(stream.map(move |item| item.map(|data| data.bytes).map_err(|status| TalosError::from_status(&address, method, &status))))
    }
}

#[async_trait]
impl TalosApi for Node {
    async fn version(&self) -> Result<Version, TalosError> {
        let reply = self.ask("Version", CALL_TIMEOUT, |mut client| async move { client.version(()).await }).await?;
        let element = self.only("Version", reply.messages)?;
        let version = element.version.unwrap_or_default();
        Ok(Version { tag: version.tag, arch: version.arch, platform: element.platform.unwrap_or_default().name })
    }

    async fn services(&self) -> Result<Vec<Service>, TalosError> {
        let reply = self.ask("ServiceList", CALL_TIMEOUT, |mut client| async move { client.service_list(()).await }).await?;
        let element = self.only("ServiceList", reply.messages)?;
        Ok(element.services.into_iter().map(service).collect())
    }

    async fn bootstrap(&self) -> Result<(), TalosError> {
        let request = proto::BootstrapRequest::default();
        self.change("Bootstrap", WORK_TIMEOUT, |mut client| async move { client.bootstrap(request).await }).await.map(drop)
    }

    async fn bootstrap_recovering(&self, skips_digest: bool) -> Result<(), TalosError> {
        let request = proto::BootstrapRequest { recover_etcd: true, recover_skip_hash_check: skips_digest };
        self.change("Bootstrap", WORK_TIMEOUT, |mut client| async move { client.bootstrap(request).await }).await.map(drop)
    }

    async fn etcd_members_local(&self) -> Result<Vec<EtcdMember>, TalosError> {
        self.list_members(true).await
    }

    async fn etcd_members(&self) -> Result<Vec<EtcdMember>, TalosError> {
        self.list_members(false).await
    }

    async fn etcd_status(&self) -> Result<EtcdStatus, TalosError> {
        let reply = self.ask("EtcdStatus", CALL_TIMEOUT, |mut client| async move { client.etcd_status(()).await }).await?;
        let status = self.only("EtcdStatus", reply.messages)?.member_status.unwrap_or_default();
        let id = |number: u64| Some(MemberId(number)).filter(|id| id.0 != 0);
        Ok(EtcdStatus {
            member_id: id(status.member_id),
            leader: id(status.leader),
            raft_applied_index: status.raft_applied_index,
            database_bytes: status.db_size,
            is_learner: status.is_learner,
            errors: status.errors,
        })
    }

    async fn has_etcd_data(&self) -> Result<bool, TalosError> {
        let method = "List";
        let first = |mut client: Client| async move {
            let request = proto::ListRequest { root: ETCD_DATA.to_owned(), ..proto::ListRequest::default() };
            let first = match client.list(request).await {
                Ok(stream) => stream.into_inner().next().await.transpose(),
                Err(status) => Err(status),
            };
            match first {
                // The walk does not begin where there is nothing: the node tells its kernel's words.
                Err(status) if status.message().contains(NO_SUCH_FILE) => {
                    Ok(Response::new(vec![proto::FileInfo { error: NO_SUCH_FILE.to_owned(), ..proto::FileInfo::default() }]))
                }
                first => Ok(Response::new(first?.into_iter().collect())),
            }
        };
        let first = self.only(method, self.ask(method, CALL_TIMEOUT, first).await?)?;
        match first.error.as_str() {
            "" => Ok(true),
            told if told.contains(NO_SUCH_FILE) => Ok(false),
            told => Err(TalosError::Failed { address: self.address.clone(), method, code: "file".to_owned(), message: told.to_owned() }),
        }
    }

    async fn etcd_remove_member(&self, id: MemberId) -> Result<(), TalosError> {
        let request = proto::EtcdRemoveMemberByIdRequest { member_id: id.0 };
        self.change("EtcdRemoveMemberByID", WORK_TIMEOUT, |mut client| async move { client.etcd_remove_member_by_id(request).await })
            .await
            .map(drop)
    }

    async fn etcd_forfeit_leadership(&self) -> Result<(), TalosError> {
        let request = proto::EtcdForfeitLeadershipRequest {};
        self.change("EtcdForfeitLeadership", WORK_TIMEOUT, |mut client| async move { client.etcd_forfeit_leadership(request).await })
            .await
            .map(drop)
    }

    async fn etcd_leave(&self) -> Result<(), TalosError> {
        let request = proto::EtcdLeaveClusterRequest {};
        self.change("EtcdLeaveCluster", LEAVE_TIMEOUT, |mut client| async move { client.etcd_leave_cluster(request).await }).await.map(drop)
    }

    async fn etcd_snapshot(&self) -> Result<ByteStream, TalosError> {
        let snapshot = |mut client: Client| async move { client.etcd_snapshot(proto::EtcdSnapshotRequest::default()).await };
        Ok(self.bytes("EtcdSnapshot", self.ask("EtcdSnapshot", CALL_TIMEOUT, snapshot).await?))
    }

    async fn etcd_recover(&self, pieces: Pieces) -> Result<(), TalosError> {
        let sent = Sent(pieces);
        self.change("EtcdRecover", TRANSFER_TIMEOUT, |mut client| async move { client.etcd_recover(sent).await }).await.map(drop)
    }

    async fn read(&self, path: &str) -> Result<ByteStream, TalosError> {
        let read = |mut client: Client| async move { client.read(proto::ReadRequest { path: path.to_owned() }).await };
        Ok(self.bytes("Read", self.ask("Read", CALL_TIMEOUT, read).await?))
    }

    async fn kubeconfig(&self) -> Result<String, TalosError> {
        let method = "Kubeconfig";
        let failed = |message: String| TalosError::Failed { address: self.address.clone(), method, code: "archive".to_owned(), message };
        let whole = |mut client: Client| async move {
            let mut stream = client.kubeconfig(()).await?.into_inner();
            let mut bytes = Vec::new();
            while let Some(piece) = stream.next().await {
                bytes.extend(piece?.bytes);
            }
            Ok(Response::new(bytes))
        };
        let bytes: Vec<u8> = self.ask(method, WORK_TIMEOUT, whole).await?;
        let file = archive::file(&bytes, "kubeconfig").map_err(failed)?;
        String::from_utf8(file).map_err(|_| failed("the kubeconfig is not text".to_owned()))
    }

    async fn dmesg(&self, follow: bool, tail: bool) -> Result<ByteStream, TalosError> {
        let stream =
            self.ask("Dmesg", CALL_TIMEOUT, |mut client| async move { client.dmesg(proto::DmesgRequest { follow, tail }).await }).await?;
        Ok(self.bytes("Dmesg", stream))
    }

    async fn logs(&self, query: &LogQuery) -> Result<ByteStream, TalosError> {
        let request = proto::LogsRequest {
            namespace: query.namespace.clone(),
            id: query.id.clone(),
            driver: i32::from(query.namespace == "k8s.io"), // pods are found by CRI, services by containerd
            follow: query.follow,
            tail_lines: query.tail_lines.unwrap_or(-1),
        };
        let stream = self
            .ask("Logs", CALL_TIMEOUT, |mut client| {
                let request = request.clone();
                async move { client.logs(request).await }
            })
            .await?;
        Ok(self.bytes("Logs", stream))
    }

    async fn reset(&self, options: &ResetOptions) -> Result<(), TalosError> {
        let partition = |label: &String| proto::ResetPartitionSpec { label: label.clone(), wipe: true };
        let request = proto::ResetRequest {
            graceful: options.graceful,
            reboot: options.reboot,
            system_partitions_to_wipe: options.partitions.iter().map(partition).collect(),
            ..proto::ResetRequest::default()
        };
        self.change("Reset", WORK_TIMEOUT, |mut client| async move { client.reset(request).await }).await.map(drop)
    }

    async fn shutdown(&self, force: bool) -> Result<(), TalosError> {
        self.change("Shutdown", WORK_TIMEOUT, |mut client| async move { client.shutdown(proto::ShutdownRequest { force }).await })
            .await
            .map(drop)
    }

    async fn reboot(&self) -> Result<(), TalosError> {
        self.change("Reboot", WORK_TIMEOUT, |mut client| async move { client.reboot(proto::RebootRequest::default()).await })
            .await
            .map(drop)
    }

    async fn apply_configuration(&self, config: &str, mode: ApplyMode, dry_run: bool) -> Result<Vec<String>, TalosError> {
        use proto::apply_configuration_request::Mode;
        let mode = match mode {
            ApplyMode::Auto => Mode::Auto,
            ApplyMode::NoReboot => Mode::NoReboot,
            ApplyMode::Staged => Mode::Staged,
        };
        let request =
            proto::ApplyConfigurationRequest { data: config.as_bytes().to_vec(), mode: mode.into(), dry_run, ..Default::default() };
        let reply =
            self.change("ApplyConfiguration", WORK_TIMEOUT, |mut client| async move { client.apply_configuration(request).await }).await?;
        Ok(self.only("ApplyConfiguration", reply.messages)?.warnings)
    }
}

fn service(info: proto::ServiceInfo) -> Service {
    let health = info.health.unwrap_or_default();
    let event = info.events.and_then(|events| events.events.into_iter().next_back()).map(|event| event.msg).unwrap_or_default();
    Service {
        id: info.id,
        state: info.state,
        is_healthy: if health.unknown { None } else { Some(health.healthy) },
        message: if health.last_message.is_empty() { event } else { health.last_message },
    }
}
