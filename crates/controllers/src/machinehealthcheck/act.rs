//! Carries out a MachineHealthCheck's steps.

use std::collections::BTreeMap;

use api::cluster::{Machine, MachineHealthCheck};
use api::conditions::{self, Severity};
use api::meta::ContractReference;
use api::names::labels;
use kube::Resource as _;
use kube::api::PropagationPolicy;
use runtime::reconcile::{Error, EventType, ObjectKey, Recorder, Store};

use super::NAME;
use super::plan::{Observed, Step, Verdict, Wish};
use crate::Wiring;
use crate::clone::{self, kind_of};
use crate::edit::{Edit, controller_of, owner_of};
use crate::remediation::{self, HEALTHY, WAITING};

/// What a Machine is told while an object made from a template replaces it. Upstream's word.
const EXTERNALLY: &str = "ExternallyRemediated";

/// The writers that steps go through.
#[derive(Clone, Debug)]
pub struct Act {
    pub wiring: Wiring,
    pub checks: Store<MachineHealthCheck>,
    pub machines: Store<Machine>,
    pub recorder: Recorder,
}

/// The template that a check names, as the contract refers to objects.
pub fn template(check: &MachineHealthCheck) -> Option<ContractReference> {
    let reference = check.spec.remediation.template_ref.as_ref()?;
    let api_group = reference.api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
    Some(ContractReference { api_group, kind: reference.kind.clone(), name: reference.name.clone() })
}

impl Act {
    /// Carries out one step; twice is as once.
    ///
    /// # Errors
    /// As the API answers, and when a template cannot be cloned.
    pub async fn step(&self, observed: &Observed, step: &Step) -> Result<(), Error> {
        let check = &observed.check;
        match step {
            Step::Claim => {
                let mut edit = Edit::of(&check.metadata).label(labels::CLUSTER_NAME, &check.spec.cluster_name);
                if let Some(cluster) = observed.cluster.as_deref() {
                    edit = edit.owner(owner_of(cluster));
                }
                edit.apply(&self.checks).await?;
            }
            Step::Tell { machine, verdict, wish } => self.tell(observed, machine, verdict, *wish).await?,
            Step::Request { machine } => self.request(observed, machine).await?,
            Step::EndRequest { request } => {
                if let Some(reference) = template(check) {
                    let store = self.wiring.externals.store(&reference.api_group, kind_of(&reference.kind)).await?;
                    store.delete(&request.metadata, Some(PropagationPolicy::Background)).await?;
                    let name = request.metadata.name.clone().unwrap_or_default();
                    self.change(observed, &name, |status| conditions::remove(&mut status.conditions, EXTERNALLY)).await?;
                    self.wiring.log.record(NAME, "end-request", format_args!("Machine {name}"), "ok");
                }
            }
        }
        Ok(())
    }

    /// Takes back what a Machine was told by a check that is gone.
    ///
    /// # Errors
    /// As the API answers.
    pub async fn release(&self, machine: &Machine) -> Result<(), Error> {
        let mut status = machine.status.clone().unwrap_or_default();
        status.deprecated.v1beta1.conditions.retain(|condition| condition.type_ != HEALTHY);
        conditions::remove(&mut status.conditions, HEALTHY);
        remediation::take_back(&mut status);
        crate::status::patch(&self.machines, machine, machine.status.as_ref(), &status).await?;
        self.wiring.log.record(NAME, "release", format_args!("Machine {}", ObjectKey::of(&machine.metadata)), "ok");
        Ok(())
    }

    /// Changes the status of a Machine as it is now.
    async fn change(&self, observed: &Observed, name: &str, edit: impl FnOnce(&mut api::cluster::MachineStatus)) -> Result<(), Error> {
        let namespace = observed.check.metadata.namespace.as_deref().unwrap_or_default();
        let Some(latest) = self.machines.get_in(namespace, name) else { return Ok(()) };
        let mut status = latest.status.clone().unwrap_or_default();
        edit(&mut status);
        crate::status::patch(&self.machines, &*latest, latest.status.as_ref(), &status).await?;
        Ok(())
    }

    async fn tell(&self, observed: &Observed, machine: &Machine, verdict: &Verdict, wish: Wish) -> Result<(), Error> {
        let key = ObjectKey::of(&machine.metadata);
        let (generation, now) = (machine.metadata.generation, observed.now);
        let mut word = "undecided";
        self.change(observed, &key.name, |status| {
            let list = &mut status.deprecated.v1beta1.conditions;
            match verdict {
                Verdict::Undecided { .. } => {}
                Verdict::Healthy => {
                    word = "HealthCheckSucceeded";
                    conditions::set_legacy(list, conditions::legacy_true(HEALTHY), now);
                    conditions::set(&mut status.conditions, conditions::new(HEALTHY, true, word, ""), generation, now);
                }
                Verdict::Unhealthy { reason, message } => {
                    word = reason;
                    conditions::set_legacy(list, conditions::legacy_false(HEALTHY, reason, Severity::Warning, message.clone()), now);
                    let told = conditions::new(HEALTHY, false, reason, message.clone());
                    conditions::set(&mut status.conditions, told, generation, now);
                }
            }
            match wish {
                Wish::AsItIs => {}
                Wish::Asked => remediation::tell(status, WAITING, "Waiting for the owner to replace this Machine", generation, now),
                Wish::TakenBack => remediation::take_back(status),
            }
        })
        .await?;
        self.wiring.log.record(NAME, "tell-health", format_args!("Machine {key}"), word);
        if wish == Wish::Asked {
            let why = if let Verdict::Unhealthy { message, .. } = verdict { format!(": {message}") } else { String::new() };
            let text = format!("Machine {key} has been marked as unhealthy by {}{why}", ObjectKey::of(&observed.check.metadata).name);
            self.recorder.event(&machine.object_ref(&()), EventType::Normal, "MachineMarkedUnhealthy", text);
        }
        Ok(())
    }

    /// The object has the Machine's name, so a second call finds the first one's result.
    async fn request(&self, observed: &Observed, machine: &Machine) -> Result<(), Error> {
        let Some(reference) = template(&observed.check) else { return Ok(()) };
        let name = machine.metadata.name.clone().unwrap_or_default();
        let own_labels = BTreeMap::from([(labels::CLUSTER_NAME.to_owned(), machine.spec.cluster_name.clone())]);
        let request = clone::Request {
            namespace: machine.metadata.namespace.as_deref().unwrap_or_default(),
            template: &reference,
            name: &name,
            labels: &own_labels,
            annotations: &BTreeMap::new(),
            owner: controller_of(machine),
        };
        clone::create(&self.wiring.externals, &request).await?;
        let (generation, now) = (machine.metadata.generation, observed.now);
        let message = format!("Waiting for {} {name} to replace this Machine", kind_of(&reference.kind));
        self.change(observed, &name, |status| {
            conditions::set(&mut status.conditions, conditions::new(EXTERNALLY, false, WAITING, message), generation, now);
        })
        .await?;
        self.wiring.log.record(NAME, "request", format_args!("Machine {name}"), "ok");
        Ok(())
    }
}
