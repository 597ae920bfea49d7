//! The machine API over gRPC and mutual TLS.
//!
//! A connection is made per node when it is asked for; nothing is pooled, since calls are rare and a fresh handshake shows at once
//! whether the node is still ours. When the handshake fails because of the node's certificate, the certificate is fetched once more
//! without trust, only to say what it is: a node without configuration, or one of another cluster.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{Stream, StreamExt as _};
use runtime::http::Connector;
use runtime::net::Dialer;
use runtime::tls::{ClientTls, Identity, Tls, TlsError, any_server, authorities};
use runtime::x509::{Facts, certificate_from_pem, certificates_from_pem};
use talos_proto::common::Data;
use talos_proto::machine as proto;
use talos_proto::machine::machine_service_client::MachineServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use super::error::{innermost, tls_error};
use super::{
    ApplyMode, ByteStream, CALL_TIMEOUT, ClientIdentity, ETCD_DATA, EtcdMember, EtcdStatus, LEAVE_TIMEOUT, LogQuery, MemberId, PORT,
    ResetOptions, Service, TalosApi, TalosDialer, TalosError, Version, WORK_TIMEOUT, archive,
};

/// The largest message in either direction.
const MAX_MESSAGE: usize = 32 * 1024 * 1024;
/// The name in the certificate of a node without configuration.
const MAINTENANCE: &str = "maintenance-service.talos.dev";
/// How a node says that a path is not there.
const NO_SUCH_FILE: &str = "no such file or directory";

/// Dials nodes over `dialer`.
#[derive(Clone, Debug)]
pub struct GrpcDialer {
    dialer: Arc<dyn Dialer>,
    tls: Tls,
}

impl GrpcDialer {
    pub fn new(dialer: Arc<dyn Dialer>, tls: Tls) -> Self {
        Self { dialer, tls }
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

#[async_trait]
impl TalosDialer for GrpcDialer {
    async fn connect(&self, node_address: &str, identity: &ClientIdentity) -> Result<Arc<dyn TalosApi>, TalosError> {
        let unreachable = |reason: String| TalosError::Unreachable { address: node_address.to_owned(), reason };
        let connector = Connector::secured(self.dialer.clone(), self.tls.clone(), client_tls(identity)?);
        let host = if node_address.contains(':') { format!("[{node_address}]") } else { node_address.to_owned() };
        let endpoint = Endpoint::from_shared(format!("https://{host}:{PORT}"))
            .map_err(|_| TalosError::Setup { reason: format!("{node_address:?} is not an address") })?;
        let channel = match tokio::time::timeout(CALL_TIMEOUT, endpoint.connect_with_connector(connector)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => {
                return Err(match tls_error(&error) {
                    Some(TlsError::Untrusted { reason }) => self.diagnose(node_address, identity, reason).await,
                    Some(TlsError::Refused { reason }) => {
                        TalosError::CredentialsRefused { address: node_address.to_owned(), reason: reason.clone() }
                    }
                    _ => unreachable(innermost(&error)),
                });
            }
            Err(_) => return Err(unreachable(format!("no connection within {} s", CALL_TIMEOUT.as_secs()))),
        };
        let client = MachineServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        Ok(Arc::new(Node { address: node_address.to_owned(), client }))
    }
}

/// A node that was connected to.
struct Node {
    address: String,
    client: MachineServiceClient<Channel>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.address)
    }
}

impl Node {
    /// Waits for an answer within its limit.
    async fn within<T>(
        &self,
        method: &'static str,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, TalosError> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(TalosError::from_status(&self.address, method, &status)),
            Err(_) => Err(TalosError::Timeout { address: self.address.clone(), method, after: limit }),
        }
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
        let reply = self.within("Version", CALL_TIMEOUT, self.client.clone().version(())).await?;
        let element = self.only("Version", reply.messages)?;
        let version = element.version.unwrap_or_default();
        Ok(Version { tag: version.tag, arch: version.arch, platform: element.platform.unwrap_or_default().name })
    }

    async fn services(&self) -> Result<Vec<Service>, TalosError> {
        let reply = self.within("ServiceList", CALL_TIMEOUT, self.client.clone().service_list(())).await?;
        let element = self.only("ServiceList", reply.messages)?;
        Ok(element.services.into_iter().map(service).collect())
    }

    async fn bootstrap(&self) -> Result<(), TalosError> {
        let request = proto::BootstrapRequest::default();
        self.within("Bootstrap", WORK_TIMEOUT, self.client.clone().bootstrap(request)).await.map(drop)
    }

    async fn etcd_members(&self) -> Result<Vec<EtcdMember>, TalosError> {
        let request = proto::EtcdMemberListRequest::default();
        let reply = self.within("EtcdMemberList", CALL_TIMEOUT, self.client.clone().etcd_member_list(request)).await?;
        let element = self.only("EtcdMemberList", reply.messages)?;
        let member = |member: proto::EtcdMember| EtcdMember {
            id: MemberId(member.id),
            hostname: member.hostname,
            peer_urls: member.peer_urls,
            is_learner: member.is_learner,
        };
        Ok(element.members.into_iter().map(member).collect())
    }

    async fn etcd_status(&self) -> Result<EtcdStatus, TalosError> {
        let reply = self.within("EtcdStatus", CALL_TIMEOUT, self.client.clone().etcd_status(())).await?;
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
        let first = async {
            let request = proto::ListRequest { root: ETCD_DATA.to_owned(), ..proto::ListRequest::default() };
            self.client.clone().list(request).await?.into_inner().next().await.transpose()
        };
        let first = match tokio::time::timeout(CALL_TIMEOUT, first).await {
            Ok(Ok(first)) => self.only(method, first.into_iter().collect())?,
            // The walk does not begin where there is nothing: the node tells its kernel's words.
            Ok(Err(status)) if status.message().contains(NO_SUCH_FILE) => return Ok(false),
            Ok(Err(status)) => return Err(TalosError::from_status(&self.address, method, &status)),
            Err(_) => return Err(TalosError::Timeout { address: self.address.clone(), method, after: CALL_TIMEOUT }),
        };
        match first.error.as_str() {
            "" => Ok(true),
            told if told.contains(NO_SUCH_FILE) => Ok(false),
            told => Err(TalosError::Failed { address: self.address.clone(), method, code: "file".to_owned(), message: told.to_owned() }),
        }
    }

    async fn etcd_remove_member(&self, id: MemberId) -> Result<(), TalosError> {
        let request = proto::EtcdRemoveMemberByIdRequest { member_id: id.0 };
        self.within("EtcdRemoveMemberByID", WORK_TIMEOUT, self.client.clone().etcd_remove_member_by_id(request)).await.map(drop)
    }

    async fn etcd_forfeit_leadership(&self) -> Result<(), TalosError> {
        let request = proto::EtcdForfeitLeadershipRequest {};
        self.within("EtcdForfeitLeadership", WORK_TIMEOUT, self.client.clone().etcd_forfeit_leadership(request)).await.map(drop)
    }

    async fn etcd_leave(&self) -> Result<(), TalosError> {
        let request = proto::EtcdLeaveClusterRequest {};
        self.within("EtcdLeaveCluster", LEAVE_TIMEOUT, self.client.clone().etcd_leave_cluster(request)).await.map(drop)
    }

    async fn kubeconfig(&self) -> Result<String, TalosError> {
        let method = "Kubeconfig";
        let failed = |message: String| TalosError::Failed { address: self.address.clone(), method, code: "archive".to_owned(), message };
        let whole = async {
            let stream = self.within(method, WORK_TIMEOUT, self.client.clone().kubeconfig(())).await?;
            let mut stream = self.bytes(method, stream);
            let mut bytes = Vec::new();
            while let Some(piece) = stream.next().await {
                bytes.extend(piece?);
            }
            Ok(bytes)
        };
        let bytes: Vec<u8> = tokio::time::timeout(WORK_TIMEOUT, whole).await.map_err(|_| TalosError::Timeout {
            address: self.address.clone(),
            method,
            after: WORK_TIMEOUT,
        })??;
        let file = archive::file(&bytes, "kubeconfig").map_err(failed)?;
        String::from_utf8(file).map_err(|_| failed("the kubeconfig is not text".to_owned()))
    }

    async fn dmesg(&self, follow: bool, tail: bool) -> Result<ByteStream, TalosError> {
        let stream = self.within("Dmesg", CALL_TIMEOUT, self.client.clone().dmesg(proto::DmesgRequest { follow, tail })).await?;
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
        let stream = self.within("Logs", CALL_TIMEOUT, self.client.clone().logs(request)).await?;
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
        self.within("Reset", WORK_TIMEOUT, self.client.clone().reset(request)).await.map(drop)
    }

    async fn shutdown(&self, force: bool) -> Result<(), TalosError> {
        self.within("Shutdown", WORK_TIMEOUT, self.client.clone().shutdown(proto::ShutdownRequest { force })).await.map(drop)
    }

    async fn reboot(&self) -> Result<(), TalosError> {
        self.within("Reboot", WORK_TIMEOUT, self.client.clone().reboot(proto::RebootRequest::default())).await.map(drop)
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
        let reply = self.within("ApplyConfiguration", WORK_TIMEOUT, self.client.clone().apply_configuration(request)).await?;
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
