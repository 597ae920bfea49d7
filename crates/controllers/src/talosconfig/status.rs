//! What a TalosConfig tells. Pure.

use api::bootstrap::TalosConfigStatus;
use api::conditions::{self, New, Severity, Status};
use api::names::secrets;

use super::plan::{Missing, Observed, Plan, is_control_plane};

/// What came of the plan's steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acted {
    /// Why the configuration cannot be made, in words for a person.
    pub failure: Option<String>,
    /// Why the client configuration cannot be made.
    pub client_failure: Option<String>,
    pub warnings: Vec<String>,
}

/// Computes the status from what is there after the steps. `client` is the client configuration's text.
pub fn status(observed: &Observed, plan: &Plan, acted: &Acted, has_data: bool, client: Option<&str>) -> TalosConfigStatus {
    let mut status = observed.config.status.clone().unwrap_or_default();
    let (generation, now) = (observed.config.metadata.generation, observed.now);
    crate::status::set_paused(&mut status.conditions, plan.is_paused, generation, now);
    if plan.is_paused {
        return status;
    }
    status.observed_generation = generation;
    let given = observed.machine.as_ref().and_then(|machine| machine.spec.bootstrap.data_secret_name.clone());
    if has_data && status.data_secret_name.is_none() {
        let machine = observed.machine.as_ref().and_then(|machine| machine.metadata.name.as_deref()).unwrap_or_default();
        status.data_secret_name = given.or_else(|| Some(secrets::bootstrap_data(machine)));
    }
    let is_done = status.data_secret_name.is_some() && has_data;
    if is_done {
        status.initialization.data_secret_created = Some(true);
    }
    let needs_client = is_control_plane(&observed.config, observed.machine.as_deref());
    if needs_client && let Some(text) = client {
        status.talos_config = Some(text.to_owned());
    }

    let kept = conditions::get(&status.conditions, "DataSecretAvailable").filter(|condition| condition.status == Status::True);
    let kept = kept.map(|condition| condition.message.clone()).unwrap_or_default();
    let data = data_condition(plan, acted, is_done, kept);
    let legacy = &mut status.deprecated.v1beta.conditions;
    let shown = match data.status {
        Status::True => conditions::legacy_true("DataSecretAvailable"),
        _ if data.reason == "DataSecretGenerationFailed" => {
            conditions::legacy_false("DataSecretAvailable", data.reason, Severity::Error, data.message.clone())
        }
        _ => conditions::legacy_false("DataSecretAvailable", data.reason, Severity::Info, data.message.clone()),
    };
    conditions::set_legacy(legacy, shown, now);
    conditions::set(&mut status.conditions, data, generation, now);
    if needs_client {
        let available = client_condition(plan, acted, client.is_some());
        let shown = match available.status {
            Status::True => conditions::legacy_true("ClientConfigAvailable"),
            _ => conditions::legacy_false("ClientConfigAvailable", available.reason, Severity::Error, available.message.clone()),
        };
        if acted.client_failure.is_some() || client.is_some() {
            conditions::set_legacy(legacy, shown, now);
            conditions::set(&mut status.conditions, available, generation, now);
        }
    }
    if let Some(ready) = conditions::summarize_legacy(legacy, &["DataSecretAvailable", "ClientConfigAvailable"]) {
        conditions::set_legacy(legacy, ready, now);
    }
    let positive: &[&str] = if needs_client { &["DataSecretAvailable", "ClientConfigAvailable"] } else { &["DataSecretAvailable"] };
    let mut ready = conditions::summarize("Ready", &status.conditions, positive, &[], "Ready");
    if ready.status == Status::True {
        ready.message = String::new();
    }
    conditions::set(&mut status.conditions, ready, generation, now);
    status
}

fn data_condition(plan: &Plan, acted: &Acted, is_done: bool, kept: String) -> New<'static> {
    let waiting = |reason, message: &str| conditions::new("DataSecretAvailable", false, reason, message);
    if is_done {
        let message = if acted.warnings.is_empty() { kept } else { acted.warnings.join("\n") };
        return conditions::new("DataSecretAvailable", true, "DataSecretAvailable", message);
    }
    if let Some(failure) = &acted.failure {
        return waiting("DataSecretGenerationFailed", failure);
    }
    match &plan.missing {
        Some(Missing::Owner) => waiting("WaitingForOwner", "waiting for a Machine that controls this object"),
        Some(Missing::Cluster) => waiting("WaitingForClusterInfrastructure", "waiting for the Machine's Cluster to be there"),
        Some(Missing::Infrastructure) => waiting("WaitingForClusterInfrastructure", "waiting for the cluster's infrastructure to be ready"),
        Some(Missing::Endpoint) => waiting("WaitingForClusterInfrastructure", "waiting for the cluster's control-plane endpoint"),
        Some(Missing::Version) => {
            waiting("DataSecretGenerationFailed", "the Machine has no spec.version: the Kubernetes version must be given")
        }
        Some(Missing::Data) => {
            waiting("DataSecretGenerationFailed", "generateType is none, but spec.data is empty: give the machine configuration")
        }
        Some(Missing::UnusableBundle(reason)) => waiting("DataSecretGenerationFailed", reason),
        Some(Missing::BundleLost(reason)) => waiting("BundleLost", &lost(reason)),
        None => waiting("DataSecretNotCreated", "the machine configuration is being made"),
    }
}

/// What a person must do, since no machine would know a new bundle.
fn lost(reason: &str) -> String {
    format!(
        "the cluster's secrets bundle is gone and cannot be restored: {reason}. No new one is made while the cluster lives, since its \
         machines would not know it: put the Secret <cluster>-talos back from a backup, or make it of a control plane's machine \
         configuration (talosctl gen secrets --from-controlplane-config)"
    )
}

fn client_condition(plan: &Plan, acted: &Acted, is_there: bool) -> New<'static> {
    if let Some(Missing::BundleLost(reason)) = &plan.missing {
        return conditions::new("ClientConfigAvailable", false, "BundleLost", lost(reason));
    }
    match &acted.client_failure {
        Some(failure) => conditions::new("ClientConfigAvailable", false, "ClientConfigGenerationFailed", failure.clone()),
        None if is_there => conditions::new("ClientConfigAvailable", true, "ClientConfigAvailable", ""),
        None => conditions::new("ClientConfigAvailable", false, "ClientConfigNotCreated", "the client configuration is being made"),
    }
}
