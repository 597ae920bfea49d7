//! Carries out a MachineSet's steps.

use std::sync::Arc;

use api::cluster::{Machine, MachineSet};
use api::conditions;
use api::meta::ContractReference;
use api::names::{finalizers, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::PropagationPolicy;
use runtime::random::Random;
use runtime::reconcile::{Error, EventType, ObjectKey, Recorder, Store};
use serde_json::{Value, json};

use super::plan::{Observed, Step, machine_labels, planned};
use crate::Wiring;
use crate::clone::{self, kind_of};
use crate::contract::Referenced;
use crate::edit::{Edit, controller_of, owner_of};
use crate::naming::{self, PLANNED_MACHINES};
use crate::remediation::{self, EXHAUSTED, OWNER};
use crate::rounds::Rounds;

/// The writers that steps go through.
#[derive(Clone, Debug)]
pub struct Act {
    pub wiring: Wiring,
    pub sets: Store<MachineSet>,
    pub machines: Store<Machine>,
    pub random: Random,
    pub recorder: Recorder,
}

impl Act {
    /// Carries out one step.
    ///
    /// # Errors
    /// As the API answers, and when a template cannot be cloned.
    pub async fn step(&self, observed: &Observed, step: &Step) -> Result<(), Error> {
        let set = &observed.set;
        let (word, object) = match step {
            Step::Claim => {
                let mut edit = Edit::of(&set.metadata).finalizer(finalizers::MACHINE_SET);
                edit = edit.label(labels::CLUSTER_NAME, &set.spec.cluster_name);
                let has_owner = set.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
                if let Some(cluster) = observed.cluster.as_deref().filter(|_| !has_owner) {
                    edit = edit.owner(owner_of(cluster));
                }
                edit.apply(&self.sets).await?;
                ("claim", None)
            }
            Step::OwnBootstrapTemplate => {
                self.own_template(observed, set.spec.template.spec.bootstrap.config_ref.as_ref(), &observed.bootstrap_template).await?;
                ("own-bootstrap-template", None)
            }
            Step::OwnInfrastructureTemplate => {
                let reference = &set.spec.template.spec.infrastructure_ref;
                self.own_template(observed, Some(reference), &observed.infrastructure_template).await?;
                ("own-infrastructure-template", None)
            }
            Step::Adopt(machine) => {
                Edit::of(&machine.metadata).owner(controller_of(&**set)).apply(&self.machines).await?;
                ("adopt-machine", machine.metadata.name.clone())
            }
            Step::PlanMachines { count } => {
                self.plan_machines(set, *count).await?;
                ("plan-machines", Some(count.to_string()))
            }
            Step::KeepPlanned(names) => {
                self.store_planned(set, names).await?;
                ("keep-planned", Some(names.len().to_string()))
            }
            Step::CreateMachine { name } => {
                self.create_machine(set, name).await?;
                ("create-machine", Some(name.clone()))
            }
            Step::CloneBootstrap(machine) => {
                let template = set.spec.template.spec.bootstrap.config_ref.as_ref();
                let name = machine.spec.bootstrap.config_ref.as_ref().map(|reference| reference.name.as_str());
                if let (Some(template), Some(name)) = (template, name) {
                    self.clone(machine, template, name).await?;
                }
                ("clone-bootstrap", machine.metadata.name.clone())
            }
            Step::CloneInfrastructure(machine) => {
                self.clone(machine, &set.spec.template.spec.infrastructure_ref, &machine.spec.infrastructure_ref.name).await?;
                ("clone-infrastructure", machine.metadata.name.clone())
            }
            Step::DeleteMachine(machine) => {
                self.machines.delete(&machine.metadata, Some(PropagationPolicy::Background)).await?;
                let name = machine.metadata.name.clone().unwrap_or_default();
                self.recorder.event(&set.object_ref(&()), EventType::Normal, "SuccessfulDelete", format!("Deleted machine {name:?}"));
                ("delete-machine", Some(name))
            }
            Step::StoreRounds(rounds) => {
                Rounds::annotate(*rounds, Edit::of(&set.metadata)).apply(&self.sets).await?;
                ("store-rounds", rounds.map(|rounds| rounds.count.to_string()))
            }
            Step::TellRemediation { machine, reason, message } => {
                remediation::write(&self.machines, machine, reason, message, observed.now).await?;
                if *reason == EXHAUSTED && remediation::condition(machine, OWNER).is_none_or(|told| told.reason != EXHAUSTED) {
                    self.recorder.event(&set.object_ref(&()), EventType::Warning, EXHAUSTED, message.clone());
                }
                ("tell-remediation", machine.metadata.name.clone())
            }
            Step::Remediate(machine) => {
                let (reason, message) = remediation::deleting(machine);
                remediation::write(&self.machines, machine, reason, &message, observed.now).await?;
                self.machines.delete(&machine.metadata, Some(PropagationPolicy::Background)).await?;
                let name = machine.metadata.name.clone().unwrap_or_default();
                let text = format!("Deleted unhealthy machine {name:?}: {message}");
                self.recorder.event(&set.object_ref(&()), EventType::Normal, "SuccessfulRemediation", text);
                ("remediate-machine", Some(name))
            }
            Step::SyncMachine(machine, patch) => {
                self.machines.merge(&ObjectKey::of(&machine.metadata), patch.clone()).await?;
                ("sync-machine", machine.metadata.name.clone())
            }
            Step::TellUpToDate { machine, is_up_to_date, message } => {
                self.tell_up_to_date(machine, *is_up_to_date, message, observed).await?;
                ("tell-up-to-date", machine.metadata.name.clone())
            }
            Step::RemoveFinalizer => {
                Edit::of(&set.metadata).without_finalizer(finalizers::MACHINE_SET).apply(&self.sets).await?;
                ("remove-finalizer", None)
            }
        };
        let key = ObjectKey::of(&set.metadata);
        self.wiring.log.record("machineset", word, format_args!("MachineSet {key}"), object.as_deref().unwrap_or("ok"));
        Ok(())
    }

    async fn own_template(&self, observed: &Observed, reference: Option<&ContractReference>, found: &Referenced) -> Result<(), Error> {
        let (Some(reference), Some(object), Some(cluster)) = (reference, found.found(), observed.cluster.as_deref()) else { return Ok(()) };
        let store = self.wiring.externals.store(&reference.api_group, &reference.kind).await?;
        Edit::of(&object.metadata).owner(owner_of(cluster)).apply(&store).await?;
        Ok(())
    }

    /// Draws names and stores them, with those that are still to be used.
    async fn plan_machines(&self, observed: &MachineSet, count: usize) -> Result<(), Error> {
        let latest = self.sets.get(&ObjectKey::of(&observed.metadata));
        let set = latest.as_deref().unwrap_or(observed);
        if planned(set) != planned(observed) {
            // Others are planned by now than the plan knew of: the next one counts them.
            return Ok(());
        }
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let is_made = |name: &str| self.machines.get_in(namespace, name).is_some();
        let mut names = planned(set);
        names.retain(|name| !is_made(name));
        for _ in 0..count {
            let is_free = |name: &str| !is_made(name) && !names.iter().any(|known| known == name);
            names.push(naming::draw(&self.random, |suffix| machine_name(set, suffix), is_free));
        }
        self.store_planned(set, &names).await
    }

    /// Fails when the set has changed since it was read: the names were drawn for what it was.
    async fn store_planned(&self, set: &MachineSet, names: &[String]) -> Result<(), Error> {
        let text = if names.is_empty() { Value::Null } else { json!(names.join(";")) };
        let meta = &set.metadata;
        let metadata = json!({ "resourceVersion": meta.resource_version, "uid": meta.uid, "annotations": { PLANNED_MACHINES: text } });
        self.sets.merge(&ObjectKey::of(meta), json!({ "metadata": metadata })).await?;
        Ok(())
    }

    async fn create_machine(&self, set: &Arc<MachineSet>, name: &str) -> Result<(), Error> {
        let machine = new_machine(set, name);
        match self.machines.create(&machine).await {
            // An earlier try of ours whose answer was lost.
            Err(error) if error.is_already_exists() => {
                self.machines.fetch(&ObjectKey::of(&machine.metadata)).await?;
                Ok(())
            }
            Ok(created) => {
                let name = created.metadata.name.clone().unwrap_or_default();
                self.recorder.event(&set.object_ref(&()), EventType::Normal, "SuccessfulCreate", format!("Created machine {name:?}"));
                Ok(())
            }
            Err(error) => {
                let text = format!("Failed to create machine: {error}");
                self.recorder.event(&set.object_ref(&()), EventType::Warning, "FailedCreate", text);
                Err(error.into())
            }
        }
    }

    async fn clone(&self, machine: &Machine, template: &ContractReference, name: &str) -> Result<(), Error> {
        let empty = std::collections::BTreeMap::new();
        let request = clone::Request {
            namespace: machine.metadata.namespace.as_deref().unwrap_or_default(),
            template,
            name,
            labels: machine.metadata.labels.as_ref().unwrap_or(&empty),
            annotations: &empty,
            owner: controller_of(machine),
        };
        clone::create(&self.wiring.externals, &request).await?;
        Ok(())
    }

    async fn tell_up_to_date(&self, machine: &Machine, is_up_to_date: bool, message: &str, observed: &Observed) -> Result<(), Error> {
        let key = ObjectKey::of(&machine.metadata);
        let Some(latest) = self.machines.get(&key) else { return Ok(()) };
        let mut status = latest.status.clone().unwrap_or_default();
        let reason = if is_up_to_date { "UpToDate" } else { "NotUpToDate" };
        let condition = conditions::new("UpToDate", is_up_to_date, reason, message);
        conditions::set(&mut status.conditions, condition, latest.metadata.generation, observed.now);
        crate::status::patch(&self.machines, &*latest, latest.status.as_ref(), &status).await?;
        Ok(())
    }
}

/// The name of a Machine of the set that ends in `suffix`.
fn machine_name(set: &MachineSet, suffix: &str) -> String {
    let set_name = set.metadata.name.as_deref().unwrap_or_default();
    match set.spec.machine_naming.template.as_deref() {
        Some(template) => named(template, &set.spec.cluster_name, set_name, suffix),
        None => naming::suffixed(set_name, suffix),
    }
}

/// A Machine of the set. The objects that it refers to carry its name and are cloned afterwards.
pub fn new_machine(set: &MachineSet, name: &str) -> Machine {
    let template = &set.spec.template;
    let mut spec = template.spec.clone();
    spec.cluster_name.clone_from(&set.spec.cluster_name);
    for reference in [Some(&mut spec.infrastructure_ref), spec.bootstrap.config_ref.as_mut()].into_iter().flatten() {
        reference.kind = kind_of(&reference.kind).to_owned();
        name.clone_into(&mut reference.name);
    }
    let annotations = Some(template.metadata.annotations.clone()).filter(|annotations| !annotations.is_empty());
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: set.metadata.namespace.clone(),
        labels: Some(machine_labels(set)),
        annotations,
        owner_references: Some(vec![controller_of(set)]),
        finalizers: Some(vec![finalizers::MACHINE.to_owned()]),
        ..ObjectMeta::default()
    };
    Machine { metadata, spec, status: None }
}

/// `spec.machineNaming.template`: the names of cluster and set and the random characters, as upstream's Go template writes them.
fn named(template: &str, cluster: &str, set: &str, suffix: &str) -> String {
    let mut name = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        name.push_str(before);
        let Some((word, after)) = after.split_once("}}") else { break };
        name.push_str(match word.trim() {
            ".cluster.name" => cluster,
            ".machineSet.name" => set,
            ".random" => suffix,
            _ => "",
        });
        rest = after;
    }
    name.push_str(rest);
    if name.len() > 63 { naming::suffixed(&name, suffix) } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_template() {
        assert_eq!(named("{{ .machineSet.name }}-{{ .random }}", "c", "s", "x7k2p"), "s-x7k2p");
        assert_eq!(named("{{.cluster.name}}-w-{{.random}}", "c", "s", "x7k2p"), "c-w-x7k2p");
        assert_eq!(named(&"a".repeat(70), "c", "s", "x7k2p"), format!("{}-x7k2p", "a".repeat(57)));
    }
}
