//! The machine API's methods, answered from the machine's own state. What is not modelled answers `Unimplemented`.
//!
//! Replies have the shape of the real ones: elements under `messages`, without metadata where one machine answers for itself.

mod etcd;
mod information;
mod power;
mod settings;

use std::pin::Pin;

use futures::Stream;
use talos_proto::common::Data;
use talos_proto::machine as wire;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::Nodes;
use super::state::Machine;
use crate::hypervisor::VmId;

type Bytes = Pin<Box<dyn Stream<Item = Result<Data, Status>> + Send>>;
type Files = Pin<Box<dyn Stream<Item = Result<wire::FileInfo, Status>> + Send>>;

/// How much of a file goes into one message.
const PIECE: usize = 32 * 1024;

/// The services of one machine.
pub(super) fn routes(nodes: Nodes, id: VmId) -> Routes {
    let service = Api { nodes, id };
    let server = wire::machine_service_server::MachineServiceServer::new(service)
        .max_decoding_message_size(32 << 20)
        .max_encoding_message_size(32 << 20);
    Routes::new(server)
}

/// Answers for one machine.
#[derive(Clone, Debug)]
struct Api {
    nodes: Nodes,
    id: VmId,
}

impl Api {
    /// Reads the machine. It may have lost its power a moment ago.
    fn machine<R>(&self, read: impl FnOnce(&Machine) -> R) -> Result<R, Status> {
        self.nodes.state().machines.get(&self.id).map(read).ok_or_else(|| Status::unavailable("the machine is off"))
    }

    /// A stream of one text.
    fn one_chunk(content: Vec<u8>) -> Response<Bytes> {
        Response::new(Box::pin(futures::stream::iter([Ok(Data { metadata: None, bytes: content })])))
    }

    /// A stream of a file.
    fn pieces(content: Vec<u8>) -> Response<Bytes> {
        let pieces: Vec<_> = content.chunks(PIECE).map(|piece| Ok(Data { metadata: None, bytes: piece.to_vec() })).collect();
        Response::new(Box::pin(futures::stream::iter(pieces)))
    }
}

#[tonic::async_trait]
impl wire::machine_service_server::MachineService for Api {
    async fn version(&self, _: Request<()>) -> Result<Response<wire::VersionResponse>, Status> {
        self.version_reply().map(Response::new)
    }

    async fn hostname(&self, _: Request<()>) -> Result<Response<wire::HostnameResponse>, Status> {
        let hostname = self.machine(|machine| machine.hostname.clone())?;
        Ok(Response::new(wire::HostnameResponse { messages: vec![wire::Hostname { metadata: None, hostname }] }))
    }

    async fn service_list(&self, _: Request<()>) -> Result<Response<wire::ServiceListResponse>, Status> {
        self.services_reply().map(Response::new)
    }

    async fn service_restart(
        &self,
        request: Request<wire::ServiceRestartRequest>,
    ) -> Result<Response<wire::ServiceRestartResponse>, Status> {
        let resp = self.restart_service(&request.into_inner().id)?;
        Ok(Response::new(wire::ServiceRestartResponse { messages: vec![wire::ServiceRestart { metadata: None, resp }] }))
    }

    async fn dmesg(&self, request: Request<wire::DmesgRequest>) -> Result<Response<Bytes>, Status> {
        let request = request.into_inner();
        self.dmesg_stream(request.follow, request.tail)
    }

    async fn logs(&self, request: Request<wire::LogsRequest>) -> Result<Response<Bytes>, Status> {
        let request = request.into_inner();
        self.log_of(&request.id, request.tail_lines).map(Self::one_chunk)
    }

    async fn logs_containers(&self, _: Request<()>) -> Result<Response<wire::LogsContainersResponse>, Status> {
        let ids = self.machine(|machine| machine.services.iter().map(|(name, _)| name.to_owned()).collect())?;
        Ok(Response::new(wire::LogsContainersResponse { messages: vec![wire::LogsContainer { metadata: None, ids }] }))
    }

    async fn memory(&self, _: Request<()>) -> Result<Response<wire::MemoryResponse>, Status> {
        self.machine(|_| ())?;
        let meminfo = wire::MemInfo { memtotal: 4_026_532, memfree: 2_101_248, memavailable: 3_012_608 };
        Ok(Response::new(wire::MemoryResponse { messages: vec![wire::Memory { metadata: None, meminfo: Some(meminfo) }] }))
    }

    async fn load_avg(&self, _: Request<()>) -> Result<Response<wire::LoadAvgResponse>, Status> {
        self.machine(|_| ())?;
        let load = wire::LoadAvg { metadata: None, load1: 0.1, load5: 0.08, load15: 0.05 };
        Ok(Response::new(wire::LoadAvgResponse { messages: vec![load] }))
    }

    async fn bootstrap(&self, request: Request<wire::BootstrapRequest>) -> Result<Response<wire::BootstrapResponse>, Status> {
        self.bootstrap_etcd(&request.into_inner())?;
        Ok(Response::new(wire::BootstrapResponse { messages: vec![wire::Bootstrap::default()] }))
    }

    async fn etcd_member_list(
        &self,
        request: Request<wire::EtcdMemberListRequest>,
    ) -> Result<Response<wire::EtcdMemberListResponse>, Status> {
        let members = self.members(request.into_inner().query_local)?;
        let element = wire::EtcdMembers { metadata: None, legacy_members: Vec::new(), members };
        Ok(Response::new(wire::EtcdMemberListResponse { messages: vec![element] }))
    }

    async fn etcd_status(&self, _: Request<()>) -> Result<Response<wire::EtcdStatusResponse>, Status> {
        let status = wire::EtcdStatus { metadata: None, member_status: Some(self.member_status()?) };
        Ok(Response::new(wire::EtcdStatusResponse { messages: vec![status] }))
    }

    async fn etcd_alarm_list(&self, _: Request<()>) -> Result<Response<wire::EtcdAlarmListResponse>, Status> {
        self.member_status()?;
        Ok(Response::new(wire::EtcdAlarmListResponse { messages: vec![wire::EtcdAlarm::default()] }))
    }

    async fn etcd_remove_member_by_id(
        &self,
        request: Request<wire::EtcdRemoveMemberByIdRequest>,
    ) -> Result<Response<wire::EtcdRemoveMemberByIdResponse>, Status> {
        self.remove_member(request.into_inner().member_id)?;
        Ok(Response::new(wire::EtcdRemoveMemberByIdResponse { messages: vec![wire::EtcdRemoveMemberById::default()] }))
    }

    async fn etcd_leave_cluster(
        &self,
        _: Request<wire::EtcdLeaveClusterRequest>,
    ) -> Result<Response<wire::EtcdLeaveClusterResponse>, Status> {
        self.leave()?;
        Ok(Response::new(wire::EtcdLeaveClusterResponse { messages: vec![wire::EtcdLeaveCluster::default()] }))
    }

    async fn etcd_forfeit_leadership(
        &self,
        _: Request<wire::EtcdForfeitLeadershipRequest>,
    ) -> Result<Response<wire::EtcdForfeitLeadershipResponse>, Status> {
        let member = self.forfeit()?;
        Ok(Response::new(wire::EtcdForfeitLeadershipResponse { messages: vec![wire::EtcdForfeitLeadership { metadata: None, member }] }))
    }

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<Files>, Status> {
        let file = self.file(&request.into_inner().root)?;
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(file)]))))
    }

    async fn etcd_snapshot(&self, _: Request<wire::EtcdSnapshotRequest>) -> Result<Response<Bytes>, Status> {
        self.snapshot().map(Self::pieces)
    }

    async fn etcd_recover(&self, request: Request<Streaming<Data>>) -> Result<Response<wire::EtcdRecoverResponse>, Status> {
        let mut pieces = request.into_inner();
        let mut file = Vec::new();
        while let Some(piece) = pieces.message().await? {
            file.extend(piece.bytes);
        }
        self.upload(file)?;
        Ok(Response::new(wire::EtcdRecoverResponse { messages: vec![wire::EtcdRecover::default()] }))
    }

    async fn read(&self, request: Request<wire::ReadRequest>) -> Result<Response<Bytes>, Status> {
        self.read_file(&request.into_inner().path).map(Self::pieces)
    }

    async fn kubeconfig(&self, _: Request<()>) -> Result<Response<Bytes>, Status> {
        self.kubeconfig_archive().await.map(Self::one_chunk)
    }

    async fn apply_configuration(
        &self,
        request: Request<wire::ApplyConfigurationRequest>,
    ) -> Result<Response<wire::ApplyConfigurationResponse>, Status> {
        let applied = self.apply(&request.into_inner())?;
        Ok(Response::new(wire::ApplyConfigurationResponse { messages: vec![applied] }))
    }

    async fn reboot(&self, _: Request<wire::RebootRequest>) -> Result<Response<wire::RebootResponse>, Status> {
        let actor_id = self.start_reboot()?;
        Ok(Response::new(wire::RebootResponse { messages: vec![wire::Reboot { metadata: None, actor_id }] }))
    }

    async fn shutdown(&self, _: Request<wire::ShutdownRequest>) -> Result<Response<wire::ShutdownResponse>, Status> {
        let actor_id = self.start_shutdown()?;
        Ok(Response::new(wire::ShutdownResponse { messages: vec![wire::Shutdown { metadata: None, actor_id }] }))
    }

    async fn reset(&self, request: Request<wire::ResetRequest>) -> Result<Response<wire::ResetResponse>, Status> {
        let actor_id = self.start_reset(&request.into_inner())?;
        Ok(Response::new(wire::ResetResponse { messages: vec![wire::Reset { metadata: None, actor_id }] }))
    }
}
