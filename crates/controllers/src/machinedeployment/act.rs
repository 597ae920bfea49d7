//! Carries out a MachineDeployment's steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::cluster::{MachineDeployment, MachineSet, MachineSetSpec};
use api::names::{annotations, finalizers, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::PropagationPolicy;
use runtime::reconcile::{Error, EventType, ObjectKey, Recorder, Store};

use super::plan::{Observed, Step, most_replicas, template_hash};
use crate::Wiring;
use crate::edit::{Edit, controller_of, controller_reference, owner_of};
use crate::naming;

/// The writers that steps go through.
#[derive(Clone, Debug)]
pub struct Act {
    pub wiring: Wiring,
    pub deployments: Store<MachineDeployment>,
    pub sets: Store<MachineSet>,
    pub recorder: Recorder,
}

impl Act {
    /// Carries out one step.
    ///
    /// # Errors
    /// As the API answers.
    pub async fn step(&self, observed: &Observed, step: &Step) -> Result<(), Error> {
        let key = ObjectKey::of(&observed.deployment.metadata);
        let deployment = self.deployments.get(&key).unwrap_or_else(|| Arc::clone(&observed.deployment));
        let (word, object) = match step {
            Step::Claim => {
                let mut edit = Edit::of(&deployment.metadata).finalizer(finalizers::MACHINE_DEPLOYMENT);
                edit = edit.label(labels::CLUSTER_NAME, &deployment.spec.cluster_name);
                if let Some(cluster) = observed.cluster.as_deref() {
                    edit = edit.owner(owner_of(cluster));
                }
                edit.apply(&self.deployments).await?;
                ("claim", None)
            }
            Step::CreateSet { replicas, revision } => {
                let set = new_set(&deployment, &suffix(&deployment, &observed.sets), *replicas, *revision);
                let created = match self.sets.create(&set).await {
                    Ok(created) => created,
                    // An earlier try of ours whose answer was lost.
                    Err(error) if error.is_already_exists() => {
                        let uid = deployment.metadata.uid.as_ref();
                        let there = self.sets.fetch(&ObjectKey::of(&set.metadata)).await?;
                        let is_ours = |set: &MachineSet| controller_reference(&set.metadata).map(|owner| &owner.uid) == uid;
                        there.filter(|set| is_ours(set)).ok_or(error)?
                    }
                    Err(error) => return Err(error.into()),
                };
                let text = format!("Created MachineSet {}", ObjectKey::of(&created.metadata));
                self.recorder.event(&deployment.object_ref(&()), EventType::Normal, "SuccessfulCreate", text);
                ("create-machineset", created.metadata.name.clone())
            }
            Step::PatchSet { name, patch } => {
                let set = ObjectKey { namespace: key.namespace.clone(), name: name.clone() };
                let before = self.sets.get(&set).and_then(|set| set.spec.replicas);
                let after = self.sets.merge(&set, patch.clone()).await?.spec.replicas;
                if before != after {
                    let number = |replicas: Option<i32>| replicas.unwrap_or(0);
                    let text = format!("Scaled MachineSet {set}: {} -> {}", number(before), number(after));
                    self.recorder.event(&deployment.object_ref(&()), EventType::Normal, "SuccessfulScale", text);
                }
                ("patch-machineset", Some(name.clone()))
            }
            Step::TellRevision(revision) => {
                Edit::of(&deployment.metadata).annotation(annotations::REVISION, revision).apply(&self.deployments).await?;
                ("tell-revision", None)
            }
            Step::DeleteSet(set) => {
                self.sets.delete(&set.metadata, Some(PropagationPolicy::Background)).await?;
                ("delete-machineset", set.metadata.name.clone())
            }
            Step::RemoveFinalizer => {
                Edit::of(&deployment.metadata).without_finalizer(finalizers::MACHINE_DEPLOYMENT).apply(&self.deployments).await?;
                ("remove-finalizer", None)
            }
        };
        let result = object.as_deref().unwrap_or("ok");
        self.wiring.log.record("machinedeployment", word, format_args!("MachineDeployment {key}"), result);
        Ok(())
    }
}

/// The end of the new set's name. It follows from what there is, so that a call whose answer was lost makes no second set.
fn suffix(deployment: &MachineDeployment, sets: &[Arc<MachineSet>]) -> String {
    let of = |meta: &ObjectMeta| meta.uid.clone().unwrap_or_default();
    let mut parts: Vec<String> = sets.iter().map(|set| of(&set.metadata)).collect();
    parts.sort();
    parts.insert(0, of(&deployment.metadata));
    naming::derived(&parts.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A set of the deployment's template, named with `suffix`.
pub fn new_set(deployment: &MachineDeployment, suffix: &str, replicas: i32, revision: i64) -> MachineSet {
    let name = deployment.metadata.name.clone().unwrap_or_default();
    let hash = format!("{}-{suffix}", template_hash(deployment));
    let mut template = deployment.spec.template.clone();
    template.metadata.labels.insert(labels::MACHINE_TEMPLATE_HASH.to_owned(), hash.clone());
    template.metadata.labels.insert(labels::CLUSTER_NAME.to_owned(), deployment.spec.cluster_name.clone());
    let mut set_labels = template.metadata.labels.clone();
    set_labels.insert(labels::DEPLOYMENT_NAME.to_owned(), name.clone());
    let mut selector = deployment.spec.selector.clone();
    selector.match_labels.insert(labels::MACHINE_TEMPLATE_HASH.to_owned(), hash);
    let wanted = deployment.spec.replicas.unwrap_or(1);
    // The deployment's own annotations are carried over, but for what belongs to it alone.
    let not_carried = [annotations::LAST_APPLIED, annotations::REVISION, annotations::REVISION_HISTORY, annotations::CONVERSION_DATA];
    let carried = deployment.metadata.annotations.iter().flatten().filter(|(key, _)| !not_carried.contains(&key.as_str()));
    let mut set_annotations: BTreeMap<String, String> = carried.map(|(key, value)| (key.clone(), value.clone())).collect();
    set_annotations.insert(annotations::DESIRED_REPLICAS.to_owned(), wanted.to_string());
    set_annotations.insert(annotations::MAX_REPLICAS.to_owned(), most_replicas(deployment).to_string());
    set_annotations.insert(annotations::REVISION.to_owned(), revision.to_string());
    let metadata = ObjectMeta {
        name: Some(naming::suffixed(&name, suffix)),
        namespace: deployment.metadata.namespace.clone(),
        labels: Some(set_labels),
        annotations: Some(set_annotations),
        owner_references: Some(vec![controller_of(deployment)]),
        finalizers: Some(vec![finalizers::MACHINE_SET.to_owned()]),
        ..ObjectMeta::default()
    };
    let spec = MachineSetSpec {
        cluster_name: deployment.spec.cluster_name.clone(),
        deletion: deployment.spec.deletion.clone(),
        machine_naming: deployment.spec.machine_naming.clone(),
        replicas: Some(replicas),
        selector,
        template,
    };
    MachineSet { metadata, spec, status: None }
}
