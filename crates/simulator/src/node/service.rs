//! The services of a machine and the states they go through, as its API lists them.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// States of a service, in the words of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceState {
    Preparing,
    Starting,
    Running,
    Stopping,
    Finished,
    Failed,
}

impl ServiceState {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "Preparing",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Stopping => "Stopping",
            Self::Finished => "Finished",
            Self::Failed => "Failed",
        }
    }
}

/// One change of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEvent {
    pub state: ServiceState,
    pub message: String,
    pub at: Timestamp,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Never empty; the latest last.
    pub events: Vec<ServiceEvent>,
    /// `None`: not known (yet), or there is no check.
    pub is_healthy: Option<bool>,
    pub health_message: String,
    pub health_changed: Timestamp,
}

/// All services of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services(BTreeMap<String, Service>);

impl Services {
    /// Lets `name` go into `state`. A running service is healthy where it has a check; any other state is not.
    pub fn set(&mut self, name: &str, state: ServiceState, message: &str, at: Timestamp) {
        let has_check = name != "dashboard" && !name.starts_with("ext-");
        let health = has_check.then_some(state == ServiceState::Running);
        let event = ServiceEvent { state, message: message.to_owned(), at };
        let service = self.0.entry(name.to_owned()).or_insert_with(|| Service {
            events: Vec::new(),
            is_healthy: None,
            health_message: String::new(),
            health_changed: at,
        });
        service.events.push(event);
        // Until it first ran, nothing is known about its health.
        let health = if service.is_healthy.is_none() && health == Some(false) { None } else { health };
        if service.is_healthy != health {
            service.is_healthy = health;
            service.health_changed = at;
        }
    }

    /// The state of `name`, when it exists.
    pub fn state(&self, name: &str) -> Option<ServiceState> {
        self.0.get(name).and_then(|service| service.events.last()).map(|event| event.state)
    }

    /// Whether `name` runs.
    pub fn is_running(&self, name: &str) -> bool {
        self.state(name) == Some(ServiceState::Running)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Service)> {
        self.0.iter().map(|(name, service)| (name.as_str(), service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_unknown_until_the_first_run() {
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut services = Services::default();
        services.set("etcd", ServiceState::Preparing, "Running pre state", at);
        let health = |services: &Services, name: &str| services.iter().find(|(other, _)| *other == name).unwrap().1.is_healthy;
        assert_eq!(health(&services, "etcd"), None);
        services.set("etcd", ServiceState::Running, "Health check successful", at);
        assert_eq!(health(&services, "etcd"), Some(true));
        services.set("etcd", ServiceState::Finished, "Service finished successfully", at);
        assert_eq!(health(&services, "etcd"), Some(false));
        services.set("ext-talos-vmtoolsd", ServiceState::Running, "Started task", at);
        assert_eq!(health(&services, "ext-talos-vmtoolsd"), None, "extension services have no check");
        assert_eq!(services.state("kubelet"), None);
    }
}
