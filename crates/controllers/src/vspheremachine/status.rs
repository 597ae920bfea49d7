//! What a VSphereMachine tells: what its VSphereVM does. Pure.

use api::conditions::{self, LegacyCondition, Severity, Status};
use api::infrastructure::{VSphereMachineStatus, VSphereVM};
use api::meta::{MachineAddress, MachineAddressType};
use jiff::SignedDuration;
use runtime::reconcile::Wait;

use super::plan::{OBJECT_LOST, Observed, Plan, provider_id};
use crate::edit::is_deleting;
use crate::status::set_paused;
use crate::vspherevm::plan::VM_LOST;

/// How long a VSphereVM may take to tell of itself.
pub const SILENCE: SignedDuration = SignedDuration::from_secs(2);
/// The condition that tells how far the machine is.
pub const PROVISIONED: &str = "VirtualMachineProvisioned";
const LEGACY_PROVISIONED: &str = "VMProvisioned";
/// Reason of the failure that is told of a machine that is gone.
pub const LOST: &str = "VirtualMachineLost";

/// Computes the status from the old one and what was observed.
pub fn status(observed: &Observed, plan: &Plan) -> VSphereMachineStatus {
    let object = &observed.object;
    let (generation, now) = (object.metadata.generation, observed.now);
    let mut status = object.status.clone().unwrap_or_default();
    set_paused(&mut status.conditions, plan.is_paused, generation, now);
    if plan.is_paused {
        return status;
    }
    if let Some(vm) = &observed.vm {
        of_vm(vm, object.spec.provider_id.as_deref(), &mut status);
    }
    let failure = lost(observed, plan);
    status.deprecated.v1beta1.failure_reason = failure.as_ref().map(|_| LOST.to_owned());
    status.deprecated.v1beta1.failure_message = failure;
    let list = &mut status.deprecated.v1beta1.conditions;
    if !is_silent(observed) || conditions::get(&status.conditions, PROVISIONED).is_none() {
        let (condition, legacy) = provisioned(observed, plan);
        conditions::set(&mut status.conditions, condition, generation, now);
        conditions::set_legacy(list, legacy, now);
    }
    if is_deleting(&object.metadata) {
        let message = plan.waiting.as_ref().map(|waiting| waiting.message.clone()).unwrap_or_default();
        conditions::set(&mut status.conditions, conditions::new("Deleting", true, "Deleting", message.as_str()), generation, now);
        conditions::set(&mut status.conditions, conditions::new("Ready", false, "Deleting", message.as_str()), generation, now);
        conditions::set_legacy(list, conditions::legacy_false("Ready", "Deleting", Severity::Info, message), now);
        return status;
    }
    let ready = conditions::summarize("Ready", &status.conditions, &[PROVISIONED], &[], "Ready");
    conditions::set(&mut status.conditions, ready, generation, now);
    if let Some(ready) = conditions::summarize_legacy(list, &[LEGACY_PROVISIONED]) {
        conditions::set_legacy(list, ready, now);
    }
    status
}

/// Why the machine can never run again: it is gone, and is not made again.
fn lost(observed: &Observed, plan: &Plan) -> Option<String> {
    if is_deleting(&observed.object.metadata) {
        return None;
    }
    let vm = observed.vm.as_ref().filter(|vm| !is_deleting(&vm.metadata));
    let told = vm.and_then(|vm| conditions::get(&vm.status.as_ref()?.conditions, PROVISIONED));
    let told = told.filter(|told| told.status == Status::False && told.reason == VM_LOST).map(|told| told.message.clone());
    told.or_else(|| plan.waiting.as_ref().filter(|waiting| waiting.reason == OBJECT_LOST).map(|waiting| waiting.message.clone()))
}

/// Whether the VSphereVM was made a moment ago and has told nothing yet: that is no news.
pub fn is_silent(observed: &Observed) -> bool {
    let Some(vm) = observed.vm.as_ref().filter(|vm| vm.status.is_none()) else { return false };
    let made = vm.metadata.creation_timestamp.as_ref().map(|time| time.0);
    made.and_then(|made| made.checked_add(SILENCE).ok()).is_some_and(|until| observed.now < until)
}

fn of_vm(vm: &VSphereVM, provider: Option<&str>, status: &mut VSphereMachineStatus) {
    let Some(theirs) = &vm.status else { return };
    let has_identity = vm.spec.bios_uuid.as_deref().is_some_and(|uuid| provider == Some(provider_id(uuid).as_str()));
    status.network.clone_from(&theirs.network);
    if theirs.ready == Some(true) {
        let external = theirs.addresses.iter().map(|address| (MachineAddressType::ExternalIP, address.clone()));
        let name = vm.metadata.name.clone().unwrap_or_default();
        let internal = std::iter::once((MachineAddressType::InternalDNS, name));
        status.addresses = external.chain(internal).map(|(type_, address)| MachineAddress { address, type_ }).collect();
    }
    // It never goes back: a machine that was provisioned stays so for its Machine, whatever becomes of it.
    if theirs.ready == Some(true) && has_identity {
        status.initialization.provisioned = Some(true);
    }
}

fn provisioned<'a>(observed: &'a Observed, plan: &'a Plan) -> (conditions::New<'a>, LegacyCondition) {
    if let Some(waiting) = &plan.waiting {
        return (
            conditions::new(PROVISIONED, false, waiting.reason, waiting.message.as_str()),
            conditions::legacy_false(LEGACY_PROVISIONED, waiting.reason, Severity::Info, waiting.message.as_str()),
        );
    }
    let silent = || {
        let since = observed.vm.as_ref().and_then(|vm| vm.metadata.creation_timestamp.as_ref());
        Wait::since_transition("the VSphereVM to report", since, observed.now).to_string()
    };
    let theirs = observed.vm.as_ref().and_then(|vm| vm.status.as_ref());
    let condition = theirs.and_then(|status| conditions::get(&status.conditions, "Ready"));
    // The VM's summary hides which of its conditions speaks: the reason is taken from the one that does.
    let spoken = theirs.and_then(|status| {
        let names = ["VCenterAvailable", "IPAddressClaimsFulfilled", PROVISIONED];
        names.iter().filter_map(|name| conditions::get(&status.conditions, name)).find(|condition| condition.status != Status::True)
    });
    let new = match (condition, spoken) {
        (Some(ready), _) if ready.status == Status::True => conditions::new(PROVISIONED, true, "Provisioned", ""),
        (Some(_), Some(spoken)) => {
            conditions::New { type_: PROVISIONED, status: Status::False, reason: &spoken.reason, message: spoken.message.clone() }
        }
        _ => conditions::new(PROVISIONED, false, "NotProvisioned", silent()),
    };
    let legacy_ready = theirs.and_then(|status| conditions::get_legacy(&status.deprecated.v1beta1.conditions, "Ready"));
    let legacy = match legacy_ready {
        Some(ready) => LegacyCondition { type_: LEGACY_PROVISIONED.to_owned(), ..ready.clone() },
        None => conditions::legacy_false(LEGACY_PROVISIONED, "NotProvisioned", Severity::Info, silent()),
    };
    (new, legacy)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::vspheremachine::plan::{Waiting, plan};
    use api::infrastructure::VSphereMachine;
    use jiff::Timestamp;

    fn observed(vm: Option<VSphereVM>) -> Observed {
        let mut object = VSphereMachine::default();
        object.spec.provider_id = Some("vsphere://u".to_owned());
        Observed {
            object: Arc::new(object),
            machine: None,
            cluster: None,
            infrastructure: None,
            vm: vm.map(Arc::new),
            is_name_taken: false,
            is_paused: false,
            now: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_ready_vm_makes_it_provisioned_with_addresses() {
        let mut vm = VSphereVM::default();
        vm.metadata.name = Some("m".to_owned());
        vm.spec.bios_uuid = Some("U".to_owned());
        let theirs = vm.status.get_or_insert_default();
        theirs.ready = Some(true);
        theirs.addresses = vec!["10.0.0.1".to_owned()];
        conditions::set(&mut theirs.conditions, conditions::new("Ready", true, "Ready", ""), None, Timestamp::UNIX_EPOCH);
        let observed = observed(Some(vm));
        let status = status(&observed, &plan(&observed));
        assert_eq!(status.initialization.provisioned, Some(true));
        let addresses: Vec<_> = status.addresses.iter().map(|address| (address.type_, address.address.as_str())).collect();
        assert_eq!(addresses, [(MachineAddressType::ExternalIP, "10.0.0.1"), (MachineAddressType::InternalDNS, "m")]);
        assert!(conditions::is_true(&status.conditions, "Ready"));
    }

    #[test]
    fn a_machine_that_is_gone_has_failed_for_good() {
        let gone = |reason: &str| {
            let mut vm = VSphereVM::default();
            let theirs = vm.status.get_or_insert_default();
            conditions::set(&mut theirs.conditions, conditions::new(PROVISIONED, false, reason, "no VM"), None, Timestamp::UNIX_EPOCH);
            observed(Some(vm))
        };
        let failure = |observed: &Observed| {
            let legacy = status(observed, &plan(observed)).deprecated.v1beta1;
            legacy.failure_reason.zip(legacy.failure_message)
        };
        assert_eq!(failure(&gone(VM_LOST)), Some((LOST.to_owned(), "no VM".to_owned())));
        assert_eq!(failure(&gone("PoweringOnFailed")), None, "that may pass");
        let (reason, message) = failure(&observed(None)).unwrap();
        assert!(reason == LOST && message.contains("VSphereVM of this machine is gone"), "{message}");
        // One that goes with its Machine is no failure, and one that is there again is none any more.
        let mut going = gone(VM_LOST);
        Arc::make_mut(&mut going.object).metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
        assert_eq!(failure(&going), None);
        let mut back = gone("Provisioned");
        let was = Arc::make_mut(&mut back.object).status.get_or_insert_default();
        was.deprecated.v1beta1.failure_reason = Some(LOST.to_owned());
        assert_eq!(failure(&back), None);
    }

    #[test]
    fn a_wait_stands_in_the_conditions_of_both_generations() {
        let observed = observed(None);
        let waiting = Waiting { reason: "WaitingForBootstrapData", message: "waiting for m".to_owned() };
        let status = status(&observed, &Plan { waiting: Some(waiting), ..Plan::default() });
        let condition = conditions::get(&status.conditions, "Ready").unwrap();
        assert_eq!((condition.status, condition.message.as_str()), (Status::False, "* VirtualMachineProvisioned: waiting for m"));
        let legacy = conditions::get_legacy(&status.deprecated.v1beta1.conditions, "Ready").unwrap();
        assert_eq!(legacy.reason.as_deref(), Some("WaitingForBootstrapData"));
    }
}
