//! What a machine says about itself: version, services, logs.

use talos_proto::common::Data;
use talos_proto::machine as wire;
use tonic::{Response, Status};

use super::{Api, Bytes};
use crate::node::service::{Service, ServiceState};

impl Api {
    pub(super) fn version_reply(&self) -> Result<wire::VersionResponse, Status> {
        let tag = self.machine(|machine| machine.release.to_string())?;
        let version = wire::VersionInfo {
            tag,
            sha: "00000000".to_owned(),
            built: String::new(),
            go_version: "go1.20".to_owned(),
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
        };
        let element = wire::Version {
            metadata: None,
            version: Some(version),
            platform: Some(wire::PlatformInfo { name: "vmware".to_owned(), mode: "cloud".to_owned() }),
            features: Some(wire::FeaturesInfo { rbac: true }),
        };
        Ok(wire::VersionResponse { messages: vec![element] })
    }

    pub(super) fn services_reply(&self) -> Result<wire::ServiceListResponse, Status> {
        let services = self.machine(|machine| machine.services.iter().map(|(name, service)| info(name, service)).collect())?;
        Ok(wire::ServiceListResponse { messages: vec![wire::ServiceList { metadata: None, services }] })
    }

    /// Only the kubelet and extensions may be restarted by a client.
    pub(super) fn restart_service(&self, name: &str) -> Result<String, Status> {
        if name != "kubelet" && !name.starts_with("ext-") {
            return Err(Status::invalid_argument(format!("service \"{name}\" doesn't support restart operation via API")));
        }
        let realm = self.machine(|machine| machine.realm.clone())?;
        {
            let mut state = self.nodes.state();
            let Some(machine) = state.machines.get_mut(&self.id) else { return Err(Status::unavailable("the machine is off")) };
            if machine.services.state(name).is_none() {
                return Err(Status::not_found(format!("service \"{name}\" is not registered")));
            }
            if name == "kubelet" {
                // A kubelet that starts registers its node again.
                machine.is_registered = false;
            }
        }
        let now = self.nodes.options().clock.now();
        for (state, message) in [
            (ServiceState::Stopping, "Sending SIGTERM"),
            (ServiceState::Finished, "Service finished successfully"),
            (ServiceState::Running, "Health check successful"),
        ] {
            self.nodes.state().service(&self.id, name, state, message, now);
        }
        self.nodes.event(realm.as_deref(), &format!("{}: {name} restarted", self.id));
        Ok(format!("Service \"{name}\" restarted"))
    }

    /// The kernel log: what is there, and with `follow` what comes.
    pub(super) fn dmesg_stream(&self, follow: bool, tail: bool) -> Result<Response<Bytes>, Status> {
        let (start, news, stop) = self.machine(|machine| {
            let start = if tail && follow { machine.dmesg.len() } else { 0 };
            (start, machine.news.subscribe(), machine.stop.clone())
        })?;
        let api = self.clone();
        let stream = futures::stream::unfold((start, news), move |(mut position, mut news)| {
            let (api, stop) = (api.clone(), stop.clone());
            async move {
                loop {
                    news.mark_unchanged();
                    let lines = api.machine(|machine| machine.dmesg.get(position..).unwrap_or_default().to_vec()).ok()?;
                    if !lines.is_empty() {
                        position += lines.len();
                        let bytes = lines.into_iter().flat_map(|line| (line + "\n").into_bytes()).collect();
                        return Some((Ok(Data { metadata: None, bytes }), (position, news)));
                    }
                    if !follow || stop.run_until_cancelled(news.changed()).await.is_none_or(|changed| changed.is_err()) {
                        return None;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    /// What a service has logged: the changes of its state.
    pub(super) fn log_of(&self, name: &str, tail: i32) -> Result<Vec<u8>, Status> {
        let lines: Option<Vec<String>> = self.machine(|machine| {
            let service = machine.services.iter().find(|(other, _)| *other == name)?.1;
            Some(service.events.iter().map(|event| format!("{:.3} [{}] {}\n", event.at, event.state.as_str(), event.message)).collect())
        })?;
        let lines = lines.ok_or_else(|| Status::not_found(format!("log \"{name}\" was not registered")))?;
        let skip = usize::try_from(tail).map_or(0, |tail| lines.len().saturating_sub(tail));
        Ok(lines.into_iter().skip(skip).collect::<String>().into_bytes())
    }
}

fn timestamp(at: jiff::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

fn info(name: &str, service: &Service) -> wire::ServiceInfo {
    let state = service.events.last().map(|event| event.state.as_str()).unwrap_or_default().to_owned();
    let events = service.events.iter().map(|event| wire::ServiceEvent {
        msg: event.message.clone(),
        state: event.state.as_str().to_owned(),
        ts: Some(timestamp(event.at)),
    });
    let health = wire::ServiceHealth {
        unknown: service.is_healthy.is_none(),
        healthy: service.is_healthy == Some(true),
        last_message: service.health_message.clone(),
        last_change: Some(timestamp(service.health_changed)),
    };
    wire::ServiceInfo { id: name.to_owned(), state, events: Some(wire::ServiceEvents { events: events.collect() }), health: Some(health) }
}
