//! Reboot, shutdown and reset: they answer first and happen afterwards.

use talos_proto::machine as wire;
use tonic::Status;

use super::Api;
use crate::node::state::Stage;

impl Api {
    fn sequence(&self, stage: Stage, what: &str) -> Result<String, Status> {
        let now = self.nodes.options().clock.now();
        let mut state = self.nodes.state();
        let machine = state.machines.get_mut(&self.id).ok_or_else(|| Status::unavailable("the machine is off"))?;
        machine.stage = stage;
        machine.say(&format!("user: warning: [talos] {what} sequence: started"), now);
        Ok(self.nodes.options().random.child(&format!("actor {} {now}", self.id)).uuid().to_string())
    }

    pub(super) fn start_reboot(&self) -> Result<String, Status> {
        let actor = self.sequence(Stage::Rebooting, "reboot")?;
        let (nodes, id) = (self.nodes.clone(), self.id.clone());
        tokio::spawn(async move {
            nodes.pause(nodes.options().latency.shutdown).await;
            nodes.reboot(&id, std::time::Duration::ZERO);
        });
        Ok(actor)
    }

    pub(super) fn start_shutdown(&self) -> Result<String, Status> {
        let actor = self.sequence(Stage::ShuttingDown, "shutdown")?;
        let (nodes, id) = (self.nodes.clone(), self.id.clone());
        tokio::spawn(async move {
            nodes.pause(nodes.options().latency.shutdown).await;
            nodes.switch_off(&id);
        });
        Ok(actor)
    }

    pub(super) fn start_reset(&self, request: &wire::ResetRequest) -> Result<String, Status> {
        let labels: Vec<&str> = request.system_partitions_to_wipe.iter().map(|partition| partition.label.as_str()).collect();
        let is_control_plane = self.machine(|machine| machine.is_control_plane())?;
        if request.graceful && is_control_plane && self.nodes.state().etcd_data(&self.id).is_some() {
            self.leave()?;
        }
        let actor = self.sequence(Stage::ShuttingDown, "reset")?;
        let disk = self.machine(|machine| machine.vm.fresh_disk_id.clone())?;
        let wipes_users_only = request.mode() == wire::reset_request::WipeMode::UserDisks;
        let wipes = |label: &str| !wipes_users_only && (labels.is_empty() || labels.contains(&label));
        let (state_goes, data_goes) = (wipes("STATE"), wipes("EPHEMERAL"));
        let everything_goes = labels.is_empty() && !wipes_users_only;
        let (nodes, id, reboots) = (self.nodes.clone(), self.id.clone(), request.reboot);
        tokio::spawn(async move {
            nodes.pause(nodes.options().latency.shutdown).await;
            {
                let mut state = nodes.state();
                // The member's data goes with its partition; the membership stays when it did not leave.
                let data = state.etcd_data(&id).filter(|_| data_goes);
                if let Some((cluster, member)) = data
                    && let Some(cluster) = state.etcd.get_mut(&cluster)
                {
                    cluster.stop(member);
                }
                let disk = state.disk(&disk);
                if state_goes {
                    disk.configuration = None;
                }
                if data_goes {
                    disk.etcd = None;
                    disk.stale = None;
                    disk.upload = None;
                }
                disk.is_unbootable |= everything_goes;
            }
            nodes.forget_lost_clusters();
            if reboots && !everything_goes {
                nodes.reboot(&id, std::time::Duration::ZERO);
            } else {
                nodes.switch_off(&id);
            }
        });
        Ok(actor)
    }
}
