//! The API server's place on a control plane.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::hypervisor::VmId;
use crate::node::Nodes;
use crate::node::configuration::Configuration;
use crate::node::etcd::EtcdClusterId;

/// Runs until the machine stops.
pub(crate) async fn run(nodes: &Nodes, id: &VmId, _configuration: &Arc<Configuration>, _cluster: EtcdClusterId, _stop: &CancellationToken) {
    nodes.pause(nodes.options().latency.api_server).await;
    let realm = {
        let mut state = nodes.state();
        let Some(machine) = state.machines.get_mut(id) else { return };
        machine.serves_api = true;
        machine.realm.clone()
    };
    nodes.settle(realm.as_deref());
    nodes.event(realm.as_deref(), &format!("{id}: the API server answers"));
    std::future::pending::<()>().await;
}
