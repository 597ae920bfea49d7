//! etcd through the machine API.

use talos_proto::machine as wire;
use tonic::Status;

use super::Api;
use crate::node::control_plane::{self, Beginning, BootstrapRefusal};
use crate::node::database;
use crate::node::etcd::{EtcdCluster, EtcdError, Member, MemberId};
use crate::node::service::ServiceState;

impl Api {
    pub(super) fn bootstrap_etcd(&self, request: &wire::BootstrapRequest) -> Result<(), Status> {
        let beginning =
            if request.recover_etcd { Beginning::Snapshot { skips_digest: request.recover_skip_hash_check } } else { Beginning::New };
        control_plane::bootstrap(&self.nodes, &self.id, beginning).map(drop).map_err(|refusal| match refusal {
            BootstrapRefusal::Worker => Status::unimplemented("bootstrap is only available on control plane nodes"),
            BootstrapRefusal::TooEarly => Status::failed_precondition("bootstrap is not available yet"),
            BootstrapRefusal::NoAuthority => Status::invalid_argument("bootstrap can't be performed without etcd CA"),
            BootstrapRefusal::NotEmpty => Status::already_exists("etcd data directory is not empty"),
            BootstrapRefusal::NoSnapshot => Status::failed_precondition("etcd recovery snapshot is not there"),
            BootstrapRefusal::Snapshot(refusal) => Status::invalid_argument(format!("error recovering from the snapshot: {refusal}")),
        })
    }

    fn control_plane_only(&self) -> Result<(), Status> {
        if self.machine(|machine| machine.is_control_plane())? {
            return Ok(());
        }
        Err(Status::unimplemented("etcd is only available on control plane nodes"))
    }

    /// Works on the machine's etcd cluster, with the machine's own member. Only a running member answers.
    fn with_etcd<R>(&self, work: impl FnOnce(&mut EtcdCluster, MemberId) -> Result<R, Status>) -> Result<R, Status> {
        self.control_plane_only()?;
        let mut state = self.nodes.state();
        let not_there = || {
            Status::unavailable(
                "failed to create etcd client: error building etcd client: dial tcp 127.0.0.1:2379: connect: connection refused",
            )
        };
        let is_running = state.machines.get(&self.id).is_some_and(|machine| machine.services.is_running("etcd"));
        let (cluster, member) = state.etcd_data(&self.id).filter(|_| is_running).ok_or_else(not_there)?;
        let cluster = state.etcd.get_mut(&cluster).ok_or_else(not_there)?;
        if !cluster.is_running(member) {
            return Err(not_there());
        }
        work(cluster, member)
    }

    fn tell(&self, what: &str) {
        let realm = self.machine(|machine| machine.realm.clone()).ok().flatten();
        self.nodes.settle(realm.as_deref());
        self.nodes.event(realm.as_deref(), &format!("{}: {what}", self.id));
    }

    pub(super) fn members(&self, is_local: bool) -> Result<Vec<wire::EtcdMember>, Status> {
        self.with_etcd(|cluster, _| {
            // Asked for all members, etcd reads with a quorum; asked locally, the member says what it knows.
            if !is_local && !cluster.has_quorum() {
                return Err(refused(EtcdError::NoLeader));
            }
            Ok(cluster.members().map(|member| describe(member, cluster.is_running(member.id))).collect())
        })
    }

    pub(super) fn member_status(&self) -> Result<wire::EtcdMemberStatus, Status> {
        let applied = self.nodes.state().applied(&self.id).unwrap_or(0);
        self.with_etcd(|cluster, id| {
            let is_learner = cluster.member(id).is_some_and(|member| member.is_learner);
            let errors = if cluster.has_quorum() { Vec::new() } else { vec![EtcdError::NoLeader.to_string()] };
            Ok(wire::EtcdMemberStatus {
                protocol_version: "3.5.9".to_owned(),
                db_size: 4_218_880,
                db_size_in_use: 2_113_536,
                leader: cluster.leader().map_or(0, |leader| leader.0),
                raft_index: applied,
                raft_term: cluster.term,
                raft_applied_index: applied,
                errors,
                is_learner,
                member_id: id.0,
                storage_version: "3.5.0".to_owned(),
            })
        })
    }

    pub(super) fn remove_member(&self, member: u64) -> Result<(), Status> {
        self.with_etcd(|cluster, _| cluster.remove(MemberId(member)).map(drop).map_err(refused))?;
        self.tell(&format!("removed etcd member {}", MemberId(member)));
        Ok(())
    }

    /// The member leaves, etcd stops, its data goes: in this order.
    pub(super) fn leave(&self) -> Result<(), Status> {
        self.with_etcd(|cluster, id| cluster.remove(id).map(drop).map_err(refused))?;
        let now = self.nodes.options().clock.now();
        {
            let mut state = self.nodes.state();
            let disk = state.machines.get(&self.id).map(|machine| machine.vm.fresh_disk_id.clone());
            state.service(&self.id, "etcd", ServiceState::Stopping, "Sending SIGTERM", now);
            state.service(&self.id, "etcd", ServiceState::Finished, "Service finished successfully", now);
            if let Some(disk) = disk {
                state.disk(&disk).etcd = None;
                state.disk(&disk).stale = None;
            }
        }
        self.tell("left etcd");
        Ok(())
    }

    /// The new leader's name; empty when this machine did not lead.
    pub(super) fn forfeit(&self) -> Result<String, Status> {
        let name = self.with_etcd(|cluster, id| {
            let successor = cluster.forfeit(id).map_err(|error| match error {
                EtcdError::NotEnoughStarted => Status::failed_precondition("expected more than 1 member, got 1"),
                other => refused(other),
            })?;
            Ok(successor.and_then(|id| cluster.member(id)).map(|member| member.name.clone()).unwrap_or_default())
        })?;
        if !name.is_empty() {
            self.tell(&format!("hands etcd's leadership to {name}"));
        }
        Ok(name)
    }

    /// The only directory that is modelled: that of the member's data.
    pub(super) fn file(&self, root: &str) -> Result<wire::FileInfo, Status> {
        self.machine(|_| ())?;
        if root.trim_end_matches('/') != "/var/lib/etcd/member" {
            return Err(Status::unimplemented("the simulated machine has no file system but etcd's directory"));
        }
        if self.nodes.state().etcd_data(&self.id).is_none() {
            return Err(Status::unknown(format!("stat {root}: no such file or directory")));
        }
        Ok(wire::FileInfo { name: root.to_owned(), relative_name: ".".to_owned(), is_dir: true, ..wire::FileInfo::default() })
    }

    /// The member's database, as its process hands it out. It needs no quorum for that.
    pub(super) fn snapshot(&self) -> Result<Vec<u8>, Status> {
        self.with_etcd(|_, _| Ok(()))?;
        let data = self.nodes.state().data(&self.id).ok_or_else(|| Status::unavailable("the member has no data"))?;
        Ok(database::snapshot(&data))
    }

    /// The only file that is modelled: the database as it lies on the disk, whether a process runs on it or not.
    pub(super) fn read_file(&self, path: &str) -> Result<Vec<u8>, Status> {
        self.machine(|_| ())?;
        if path != "/var/lib/etcd/member/snap/db" {
            return Err(Status::unimplemented("the simulated machine has no files but etcd's database"));
        }
        let data = self.nodes.state().data(&self.id);
        let data = data.ok_or_else(|| Status::unknown(format!("stat {path}: no such file or directory")))?;
        Ok(database::write(&data))
    }

    /// Keeps a snapshot to recover from; the next one takes its place.
    pub(super) fn upload(&self, file: Vec<u8>) -> Result<(), Status> {
        self.control_plane_only()?;
        if self.machine(|machine| machine.services.state("etcd").is_none())? {
            return Err(Status::failed_precondition("etcd service is not ready for recovery yet"));
        }
        let disk = self.machine(|machine| machine.vm.fresh_disk_id.clone())?;
        self.nodes.state().disk(&disk).upload = Some(std::sync::Arc::new(file));
        self.tell("took a snapshot to recover from");
        Ok(())
    }
}

fn refused(error: EtcdError) -> Status {
    match error {
        EtcdError::NotFound => Status::not_found(error.to_string()),
        EtcdError::NoLeader | EtcdError::Unhealthy => Status::unavailable(error.to_string()),
        _ => Status::failed_precondition(error.to_string()),
    }
}

fn describe(member: &Member, has_started: bool) -> wire::EtcdMember {
    let client_urls = if has_started { vec![format!("https://{}:2379", bracketed(&member.address))] } else { Vec::new() };
    wire::EtcdMember {
        id: member.id.0,
        // etcd learns a member's name when it starts for the first time.
        hostname: member.name.clone(),
        peer_urls: vec![format!("https://{}:2380", bracketed(&member.address))],
        client_urls,
        is_learner: member.is_learner,
    }
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}
