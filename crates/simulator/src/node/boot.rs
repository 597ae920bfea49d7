//! A boot, from power to running services.

use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::configuration::Configuration;
use super::guestinfo::{self, Metadata};
use super::links;
use super::service::ServiceState;
use super::state::{Stage, realm_of};
use super::{Nodes, apid, control_plane};
use crate::hypervisor::VmId;
use crate::workload::kubelet;

/// Runs the machine until its power goes or it reboots.
pub(super) async fn run(nodes: &Nodes, id: &VmId, stop: &CancellationToken) {
    let latency = &nodes.options().latency;
    let Some(release) = nodes.state().machines.get(id).map(|machine| machine.release.clone()) else { return };
    nodes.say(id, &format!("kern:  notice: Linux version {}", release.kernel()));
    nodes.pause(latency.kernel).await;
    nodes.say(id, &format!("user: warning: [talos] [initramfs] booting Talos {release}"));
    for (service, message) in
        [("machined", "Service started as goroutine"), ("udevd", "Process started"), ("containerd", "Process started")]
    {
        running(nodes, id, service, message);
    }
    let metadata = read_metadata(nodes, id);
    let Some(configuration) = acquire(nodes, id, stop, &metadata).await else { return };
    let realm = realm_of(&configuration);
    nodes.pause(latency.network).await;
    configure_links(nodes, id, &configuration.interfaces, &metadata);
    {
        let mut state = nodes.state();
        let Some(machine) = state.machines.get_mut(id) else { return };
        machine.hostname = hostname(&configuration, &metadata, &machine.vm.fresh_disk_id);
        machine.configuration = Some(configuration.clone());
        machine.realm = Some(realm.clone());
        machine.stage = Stage::Running;
    }
    nodes.event(Some(&realm), &format!("{id} is configured"));
    if nodes.has_tools(id) {
        running(nodes, id, "ext-talos-vmtoolsd", "Started task ext-talos-vmtoolsd");
        nodes.report_tools(id);
    }
    nodes.pause(latency.services).await;
    running(nodes, id, "cri", "Process started");
    if release.is_at_least(4) {
        running(nodes, id, "dashboard", "Process started");
    }
    if configuration.is_control_plane() {
        running(nodes, id, "trustd", "Health check successful");
        nodes.event(Some(&realm), &format!("{id}: trustd runs"));
    }
    let guarded = |work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        let stop = stop.clone();
        tokio::spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    };
    let (own, vm, settings) = (nodes.clone(), id.clone(), configuration.clone());
    let token = stop.clone();
    guarded(Box::pin(async move { apid::run(&own, &vm, &settings, &token).await }));
    running(nodes, id, "kubelet", "Health check successful");
    let (own, vm, settings, place) = (nodes.clone(), id.clone(), configuration.clone(), realm.clone());
    guarded(Box::pin(async move { kubelet::run(&own, &vm, &settings, &place).await }));
    if configuration.is_control_plane() {
        control_plane::run(nodes, id, &configuration, stop).await;
    }
    std::future::pending::<()>().await;
}

/// Lets a service run.
pub(super) fn running(nodes: &Nodes, id: &VmId, service: &str, message: &str) {
    let now = nodes.options().clock.now();
    nodes.state().service(id, service, ServiceState::Running, message, now);
}

fn read_metadata(nodes: &Nodes, id: &VmId) -> Metadata {
    match guestinfo::metadata(&|key| nodes.guestinfo(id, key)) {
        Ok(metadata) => metadata,
        Err(error) => {
            let text = format!(
                "user: warning: [talos] controller failed {{\"controller\": \"network.PlatformConfigController\", \"error\": \"{error}\"}}"
            );
            nodes.say(id, &text);
            Metadata::default()
        }
    }
}

/// The configuration: what the disk holds, else what `guestinfo` says, else what somebody applies in maintenance mode.
async fn acquire(nodes: &Nodes, id: &VmId, stop: &CancellationToken, metadata: &Metadata) -> Option<Arc<Configuration>> {
    let mut is_in_maintenance = false;
    let mut complaint = String::new();
    let maintenance = stop.child_token();
    loop {
        let (release, disk, mut news) = {
            let state = nodes.state();
            let machine = state.machines.get(id)?;
            (machine.release.clone(), machine.vm.fresh_disk_id.clone(), machine.news.subscribe())
        };
        let kept = nodes.state().disk(&disk).configuration.clone();
        let found = match kept {
            Some(bytes) => Ok(Some(bytes)),
            None => guestinfo::configuration(&|key| nodes.guestinfo(id, key))
                .map_err(|error| format!("failed to load the platform's configuration: {error}")),
        };
        let read = found.and_then(|bytes| match bytes {
            None => Err("no configuration was found on the platform; waiting for one to be applied".to_owned()),
            Some(bytes) => match Configuration::read(&bytes, &release) {
                Ok(configuration) => Ok((bytes, configuration)),
                Err(error) => Err(format!("configuration validation failed: {error}")),
            },
        });
        match read {
            Ok((bytes, configuration)) => {
                nodes.state().disk(&disk).configuration = Some(bytes);
                nodes.say(id, "user: warning: [talos] machine configuration loaded and stored");
                maintenance.cancel();
                return Some(Arc::new(configuration));
            }
            Err(reason) => {
                if reason != complaint {
                    nodes.say(id, &format!("user: warning: [talos] controller failed {{\"controller\": \"config.AcquireController\", \"error\": \"{reason}\"}}"));
                    complaint = reason;
                }
            }
        }
        if !is_in_maintenance {
            is_in_maintenance = true;
            nodes.pause(nodes.options().latency.network).await;
            configure_links(nodes, id, &[], metadata);
            if let Some(machine) = nodes.state().machines.get_mut(id) {
                machine.stage = Stage::Maintenance;
                machine.hostname = metadata.hostname.clone().unwrap_or_else(|| stable_hostname(&machine.vm.fresh_disk_id));
            }
            nodes.say(id, "user: warning: [talos] this machine is reachable at its addresses and waits in maintenance mode");
            nodes.event(None, &format!("{id} is in maintenance mode"));
            let (own, vm, token) = (nodes.clone(), id.clone(), maintenance.clone());
            tokio::spawn(async move {
                token.run_until_cancelled(apid::run_maintenance(&own, &vm, &token)).await;
            });
            news.mark_unchanged();
        }
        let applied = async {
            // A configuration that was applied is a change of the machine; lines of its log are others, and cost one look each.
            while nodes.state().disk(&disk).configuration.is_none() {
                if news.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = applied => {}
            () = nodes.options().clock.sleep(nodes.options().latency.retry) => {}
        }
    }
}

/// Plans the adapters' addresses, asks DHCP where needed, and lets the machine hold them in the network.
fn configure_links(nodes: &Nodes, id: &VmId, interfaces: &[super::configuration::Interface], metadata: &Metadata) {
    let network = &nodes.options().network;
    let (old, addresses) = {
        let mut state = nodes.state();
        let Some(machine) = state.machines.get(id) else { return };
        let old = machine.addresses();
        let mut planned = links::plan(&machine.vm.nics, interfaces, metadata);
        for link in planned.iter_mut().filter(|link| link.uses_dhcp) {
            let lease = state.dhcp.lease(&link.mac, &link.network, &|address| !network.holders(address).is_empty());
            link.addresses.extend(lease);
        }
        let Some(machine) = state.machines.get_mut(id) else { return };
        machine.links = planned;
        (old, machine.addresses())
    };
    for address in old.into_iter().filter(|address| !addresses.contains(address)) {
        network.detach(id, address);
    }
    for address in &addresses {
        network.attach(id, *address);
        nodes.say(
            id,
            &format!(
                "user: warning: [talos] assigned address {{\"controller\": \"network.AddressSpecController\", \"address\": \"{address}\"}}"
            ),
        );
    }
    if addresses.is_empty() {
        nodes.say(id, "user: warning: [talos] no adapter has an address: none is configured and no DHCP server answers");
    }
    nodes.event(None, &format!("{id} holds {}", addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")));
}

/// The configuration's name over the platform's over one derived from the machine's identity.
fn hostname(configuration: &Configuration, metadata: &Metadata, disk: &str) -> String {
    let full = configuration.hostname.clone().or_else(|| metadata.hostname.clone()).unwrap_or_else(|| stable_hostname(disk));
    full.split('.').next().unwrap_or(&full).to_ascii_lowercase()
}

fn stable_hostname(disk: &str) -> String {
    let digest = hex::encode(Sha256::digest(disk));
    format!("talos-{}-{}", digest.get(..3).unwrap_or_default(), digest.get(3..6).unwrap_or_default())
}
