//! The mark that a clone may exist: one annotation on the VSphereVM, written before the clone is asked for.
//!
//! It holds what is needed to find the machine and to prove whose it is without any other object: the owner that stands in the machine's marker, the instance UUID asked
//! for, where the clone goes and what it is made of, and who signs in. It is never taken off: neither a lost status (a restore, a move to another server) nor a lost owner
//! makes a machine forgotten. What stands in a condition is for people and decides nothing.
//!
//! An annotation, and no field of the status: `clusterctl move` carries no status along.

use std::sync::Arc;
use std::time::Duration;

use api::infrastructure::{IdentityReference, VSphereVM};
use api::names::annotations::CLONE_INTENT;
use jiff::Timestamp;
use runtime::reconcile::Store;
use serde::{Deserialize, Serialize};
use vsphere::{ManagedObjectReference, Owner, Placement};

/// How long a clone that was asked for may take to show in vCenter: before, finding nothing proves nothing.
pub const SHOWS_WITHIN: Duration = Duration::from_secs(5);

/// What was about to be cloned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// The uid of the VSphereVM that it was written for: a copy of the object has no part in the machine.
    vm: String,
    /// When the clone was asked for.
    pub since: Timestamp,
    /// The instance UUID asked for.
    pub instance: String,
    installation: String,
    cluster: String,
    machine: String,
    /// The id of the clone's source.
    template: String,
    pub folder_path: String,
    /// Who signs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityReference>,
}

impl Intent {
    /// The intent to clone into `placement`.
    pub fn new(
        vm: &VSphereVM,
        instance: &str,
        owner: &Owner,
        placement: &Placement,
        identity: Option<IdentityReference>,
        since: Timestamp,
    ) -> Self {
        Self {
            vm: vm.metadata.uid.clone().unwrap_or_default(),
            since,
            instance: instance.to_owned(),
            installation: owner.installation.clone(),
            cluster: owner.cluster.clone(),
            machine: owner.machine.clone(),
            template: placement.template.reference.id.clone(),
            folder_path: placement.folder_path.clone(),
            identity,
        }
    }

    /// The stored intent; none when there is none that can be read.
    pub fn of(vm: &VSphereVM) -> Option<Self> {
        serde_json::from_str(vm.metadata.annotations.as_ref()?.get(CLONE_INTENT)?).ok()
    }

    /// Whose the machine is.
    pub fn owner(&self) -> Owner {
        Owner { installation: self.installation.clone(), cluster: self.cluster.clone(), machine: self.machine.clone() }
    }

    /// The clone's source.
    pub fn template(&self) -> ManagedObjectReference {
        ManagedObjectReference::new("VirtualMachine", &self.template)
    }

    /// As the annotation's value.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Whether the annotation is there, readable or not.
pub fn is_stored(vm: &VSphereVM) -> bool {
    vm.metadata.annotations.as_ref().is_some_and(|known| known.contains_key(CLONE_INTENT))
}

/// Takes the intent out of a copy (in another namespace, under another name) whose original lives: the machine is the original's.
pub fn without_foreign(vm: Arc<VSphereVM>, store: &Store<VSphereVM>) -> Arc<VSphereVM> {
    let Some(intent) = Intent::of(&vm).filter(|intent| Some(&intent.vm) != vm.metadata.uid.as_ref()) else { return vm };
    if !store.all().iter().any(|other| other.metadata.uid.as_ref() == Some(&intent.vm)) {
        return vm;
    }
    let mut own = (*vm).clone();
    if let Some(annotations) = &mut own.metadata.annotations {
        annotations.remove(CLONE_INTENT);
    }
    Arc::new(own)
}
