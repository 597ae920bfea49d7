//! What is to be done for a VSphereMachine. Pure.
//!
//! ```text
//!   finalizer -> Machine owns it? -> cluster's infrastructure there? -> bootstrap data there? -> VSphereVM (named after the Machine)
//!             -> its BIOS UUID: providerID -> it is ready: addresses, host label on the Machine, provisioned
//!   deleting: delete the VSphereVM, wait until it is gone -> finalizer
//! ```
//!
//! Unlike upstream, a worker's machine does not wait for the control plane: it may be cloned as soon as its configuration exists.

use std::sync::Arc;

use api::cluster::{Cluster, Machine};
use api::conditions::{self, Status};
use api::infrastructure::{BootstrapReference, VSphereCluster, VSphereMachine, VSphereVM, VSphereVMSpec};
use api::names::{finalizers, labels};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use runtime::reconcile::Wait;

use super::status::PROVISIONED;
use crate::controlplane::is_control_plane;
use crate::edit::{has_finalizer, is_deleting, owner_of};

/// The reason that is told when the VSphereVM was there and is gone.
pub const OBJECT_LOST: &str = "VSphereVMGone";

/// What is known when a VSphereMachine is planned.
#[derive(Clone, Debug)]
pub struct Observed {
    pub object: Arc<VSphereMachine>,
    /// The Machine that owns it.
    pub machine: Option<Arc<Machine>>,
    pub cluster: Option<Arc<Cluster>>,
    pub infrastructure: Option<Arc<VSphereCluster>>,
    /// The VSphereVM that it owns.
    pub vm: Option<Arc<VSphereVM>>,
    /// An object of the name that the VSphereVM would have, owned by someone else.
    pub is_name_taken: bool,
    pub is_paused: bool,
    pub now: Timestamp,
}

/// One outside effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    AddFinalizer,
    RemoveFinalizer,
    CreateVm(Box<VSphereVM>),
    /// Power settings may change while the machine lives.
    UpdateVm {
        patch: serde_json::Value,
    },
    DeleteVm(Box<ObjectMeta>),
    SetProviderId(String),
    /// The host that it runs on, as a label of the Machine (which hands it to the Node).
    LabelMachine {
        host: String,
    },
}

/// What the machine waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Upstream's word.
    pub reason: &'static str,
    pub message: String,
}

/// What to do, and where the machine stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub is_paused: bool,
    pub waiting: Option<Waiting>,
}

/// Decides.
pub fn plan(observed: &Observed) -> Plan {
    let mut plan = Plan { is_paused: observed.is_paused, ..Plan::default() };
    if observed.is_paused {
        return plan;
    }
    let meta = &observed.object.metadata;
    if is_deleting(meta) {
        if has_finalizer(meta, finalizers::VSPHERE_MACHINE) {
            match &observed.vm {
                Some(vm) if is_deleting(&vm.metadata) => plan.waiting = Some(going(observed, vm)),
                Some(vm) => {
                    plan.waiting = Some(going(observed, vm));
                    plan.steps.push(Step::DeleteVm(Box::new(vm.metadata.clone())));
                }
                None => plan.steps.push(Step::RemoveFinalizer),
            }
        }
        return plan;
    }
    if !has_finalizer(meta, finalizers::VSPHERE_MACHINE) {
        plan.steps.push(Step::AddFinalizer);
    }
    match &observed.vm {
        Some(vm) => existing(observed, vm, &mut plan),
        // It was there: a machine that is gone is replaced with its Machine, never made again.
        None if observed.object.spec.provider_id.is_some() => {
            let message = "the VSphereVM of this machine is gone and is not made again: delete the Machine to have it replaced".to_owned();
            plan.waiting = Some(Waiting { reason: OBJECT_LOST, message });
        }
        None => match new_vm(observed) {
            Ok(vm) => plan.steps.push(Step::CreateVm(Box::new(vm))),
            Err(waiting) => plan.waiting = Some(waiting),
        },
    }
    plan
}

/// A wait: since the machine was last provisioned, or its deletion was asked for.
fn waiting(observed: &Observed, reason: &'static str, on: impl Into<String>) -> Waiting {
    let object = &observed.object;
    let known = object.status.as_ref().and_then(|status| conditions::get(&status.conditions, PROVISIONED));
    let transition = known.filter(|known| known.status != Status::True).map(|known| &known.last_transition_time);
    let since = object.metadata.deletion_timestamp.as_ref().or(transition);
    Waiting { reason, message: Wait::since_transition(on, since, observed.now).to_string() }
}

fn going(observed: &Observed, vm: &VSphereVM) -> Waiting {
    waiting(observed, "Deleting", format!("VSphereVM {} to go", vm.metadata.name.as_deref().unwrap_or_default()))
}

fn existing(observed: &Observed, vm: &VSphereVM, plan: &mut Plan) {
    let (own, theirs) = (&observed.object.spec, &vm.spec);
    if (own.power_off_mode, own.guest_soft_power_off_timeout_seconds)
        != (theirs.power_off_mode, theirs.guest_soft_power_off_timeout_seconds)
    {
        let spec = serde_json::json!({
            "powerOffMode": own.power_off_mode,
            "guestSoftPowerOffTimeoutSeconds": own.guest_soft_power_off_timeout_seconds,
        });
        plan.steps.push(Step::UpdateVm { patch: serde_json::json!({ "spec": spec }) });
    }
    // Once the VSphereVM has told what it knows of its machine, a moment after the UUID: both become known together.
    let is_told = vm.status.as_ref().is_some_and(|status| !status.network.is_empty() || status.ready == Some(true));
    if let Some(uuid) = theirs.bios_uuid.as_deref().filter(|uuid| is_told && !uuid.is_empty())
        && own.provider_id.is_none()
    {
        plan.steps.push(Step::SetProviderId(provider_id(uuid)));
    }
    if let (Some(host), Some(machine)) = (vm.status.as_ref().and_then(|status| status.host.as_deref()), &observed.machine)
        && !is_deleting(&machine.metadata)
        && is_label_value(host)
        && machine.metadata.labels.as_ref().and_then(|known| known.get(labels::ESXI_HOST)).is_none_or(|known| known != host)
    {
        plan.steps.push(Step::LabelMachine { host: host.to_owned() });
    }
}

/// `vsphere://` and the BIOS UUID as vCenter shows it, in lower case.
pub fn provider_id(bios_uuid: &str) -> String {
    format!("vsphere://{}", bios_uuid.to_ascii_lowercase())
}

fn is_label_value(text: &str) -> bool {
    let is_inner = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    let is_end = |character: Option<char>| character.is_some_and(|character| character.is_ascii_alphanumeric());
    text.len() <= 63 && text.chars().all(is_inner) && is_end(text.chars().next()) && is_end(text.chars().last())
}

/// The name of the VSphereVM: the Machine's, or what `naming.template` says.
pub fn vm_name(object: &VSphereMachine, machine: &Machine) -> Result<String, Waiting> {
    let own = machine.metadata.name.clone().unwrap_or_default();
    let Some(template) = object.spec.naming.template.as_deref().filter(|text| !text.is_empty()) else { return Ok(own) };
    let spaced = template.replace("{{", "{{ ").replace("}}", " }}").split_whitespace().collect::<Vec<_>>().join(" ");
    let name = spaced.replace("{{ .machine.name }}", &own).replace("{{ .cluster.name }}", &machine.spec.cluster_name);
    if name.contains("{{") || name.contains(' ') || name.is_empty() {
        let message =
            format!("naming.template {template:?} cannot be used: only {{{{ .machine.name }}}} and {{{{ .cluster.name }}}} are known");
        return Err(Waiting { reason: "InvalidNamingTemplate", message });
    }
    Ok(name)
}

fn new_vm(observed: &Observed) -> Result<VSphereVM, Waiting> {
    let waiting = |reason, on: String| Err(waiting(observed, reason, on));
    let object = &observed.object;
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let Some(machine) = &observed.machine else {
        return waiting("WaitingForMachine", "a Machine to own this object".to_owned());
    };
    let cluster = machine.spec.cluster_name.clone();
    let infrastructure = observed.infrastructure.as_ref().filter(|_| observed.cluster.is_some());
    let Some(infrastructure) = infrastructure else {
        return waiting("WaitingForClusterInfrastructure", format!("the VSphereCluster of Cluster {namespace}/{cluster}"));
    };
    if infrastructure.status.as_ref().and_then(|status| status.initialization.provisioned) != Some(true) {
        let name = infrastructure.metadata.name.as_deref().unwrap_or_default();
        return waiting("WaitingForClusterInfrastructure", format!("VSphereCluster {name} to be provisioned"));
    }
    // A worker that boots before its control plane answers can only wait, with its address and its place taken.
    let is_control_plane = is_control_plane(machine);
    let plane = observed.cluster.as_ref().filter(|cluster| cluster.spec.control_plane_ref.is_some());
    let is_initialized = |cluster: &Cluster| cluster.status.as_ref()?.initialization.control_plane_initialized;
    if !is_control_plane && plane.is_some_and(|cluster| is_initialized(cluster) != Some(true)) {
        return waiting(
            "WaitingForControlPlaneInitialized",
            format!("the control plane of Cluster {namespace}/{cluster} to be initialized"),
        );
    }
    let Some(secret) = machine.spec.bootstrap.data_secret_name.clone() else {
        let name = machine.metadata.name.as_deref().unwrap_or_default();
        return waiting("WaitingForBootstrapData", format!("the machine configuration of Machine {name}"));
    };
    let name = vm_name(object, machine)?;
    if observed.is_name_taken {
        let message = format!("VSphereVM {name} exists and belongs to something else: remove it");
        return Err(Waiting { reason: "NameTaken", message });
    }
    let mut clone = object.spec.clone.clone();
    clone.server = clone.server.filter(|server| !server.is_empty()).or_else(|| Some(infrastructure.spec.server.clone()));
    clone.thumbprint = clone.thumbprint.filter(|text| !text.is_empty()).or_else(|| infrastructure.spec.thumbprint.clone());
    let mut own_labels = std::collections::BTreeMap::from([(labels::CLUSTER_NAME.to_owned(), cluster)]);
    if is_control_plane {
        own_labels.insert(labels::CONTROL_PLANE.to_owned(), String::new());
    }
    Ok(VSphereVM {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace),
            labels: Some(own_labels),
            finalizers: Some(vec![finalizers::VSPHERE_VM.to_owned()]),
            owner_references: Some(vec![owner_of(&**object)]),
            ..ObjectMeta::default()
        },
        spec: VSphereVMSpec {
            bios_uuid: None,
            bootstrap_ref: Some(BootstrapReference { name: secret }),
            clone,
            guest_soft_power_off_timeout_seconds: object.spec.guest_soft_power_off_timeout_seconds,
            os: object.spec.os.clone(),
            power_off_mode: object.spec.power_off_mode,
        },
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::infrastructure::NetworkStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn named(name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("ns".to_owned()),
            uid: Some(format!("uid-{name}")),
            ..ObjectMeta::default()
        }
    }

    fn observed() -> Observed {
        let mut machine = Machine { metadata: named("m"), ..Machine::default() };
        machine.spec.cluster_name = "c".to_owned();
        machine.spec.bootstrap.data_secret_name = Some("m-bootstrap-data".to_owned());
        machine.metadata.labels = Some([(labels::CONTROL_PLANE.to_owned(), String::new())].into());
        let mut infrastructure = VSphereCluster { metadata: named("c"), ..VSphereCluster::default() };
        infrastructure.spec.server = "vc".to_owned();
        infrastructure.spec.thumbprint = Some("AA".to_owned());
        infrastructure.status.get_or_insert_default().initialization.provisioned = Some(true);
        let mut object = VSphereMachine { metadata: named("vsm"), ..VSphereMachine::default() };
        object.metadata.finalizers = Some(vec![finalizers::VSPHERE_MACHINE.to_owned()]);
        Observed {
            object: Arc::new(object),
            machine: Some(Arc::new(machine)),
            cluster: Some(Arc::default()),
            infrastructure: Some(Arc::new(infrastructure)),
            vm: None,
            is_name_taken: false,
            is_paused: false,
            now: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_vm_is_named_after_the_machine_and_takes_the_clusters_server() {
        let plan = plan(&observed());
        let [Step::CreateVm(vm)] = plan.steps.as_slice() else { panic!("{plan:?}") };
        assert_eq!(vm.metadata.name.as_deref(), Some("m"));
        assert_eq!(vm.spec.clone.server.as_deref(), Some("vc"));
        assert_eq!(vm.spec.clone.thumbprint.as_deref(), Some("AA"));
        assert_eq!(vm.spec.bootstrap_ref.as_ref().unwrap().name, "m-bootstrap-data");
        let labels = vm.metadata.labels.as_ref().unwrap();
        assert!(labels.contains_key(labels::CONTROL_PLANE) && labels[labels::CLUSTER_NAME] == "c");
        let owner = &vm.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.controller), ("VSphereMachine", "vsm", None));
    }

    #[test]
    fn it_waits_with_upstreams_words() {
        let reason = |observed: &Observed| plan(observed).waiting.unwrap().reason;
        assert_eq!(reason(&Observed { machine: None, ..observed() }), "WaitingForMachine");
        assert_eq!(reason(&Observed { infrastructure: None, ..observed() }), "WaitingForClusterInfrastructure");
        let mut unready = observed();
        Arc::make_mut(unready.infrastructure.as_mut().unwrap()).status = None;
        assert_eq!(reason(&unready), "WaitingForClusterInfrastructure");
        let mut unconfigured = observed();
        Arc::make_mut(unconfigured.machine.as_mut().unwrap()).spec.bootstrap.data_secret_name = None;
        assert_eq!(reason(&unconfigured), "WaitingForBootstrapData");
        assert_eq!(reason(&Observed { is_name_taken: true, ..observed() }), "NameTaken");
        // A worker waits for its control plane.
        let mut worker = observed();
        Arc::make_mut(worker.machine.as_mut().unwrap()).metadata.labels = None;
        Arc::make_mut(worker.cluster.as_mut().unwrap()).spec.control_plane_ref = Some(api::meta::ContractReference::default());
        assert_eq!(reason(&worker), "WaitingForControlPlaneInitialized");
        let cluster = Arc::make_mut(worker.cluster.as_mut().unwrap());
        cluster.status.get_or_insert_default().initialization.control_plane_initialized = Some(true);
        assert!(matches!(plan(&worker).steps.as_slice(), [Step::CreateVm(_)]));
    }

    #[test]
    fn a_vm_with_uuid_gives_the_provider_id_and_its_host_a_label() {
        let mut vm = VSphereVM { metadata: named("m"), ..VSphereVM::default() };
        vm.spec.bios_uuid = Some("B95B-1".to_owned());
        vm.status.get_or_insert_default().host = Some("esx1.lab".to_owned());
        vm.status.get_or_insert_default().network = vec![NetworkStatus::default()];
        let with_vm = Observed { vm: Some(Arc::new(vm)), ..observed() };
        let label = Step::LabelMachine { host: "esx1.lab".to_owned() };
        assert_eq!(plan(&with_vm).steps, [Step::SetProviderId("vsphere://b95b-1".to_owned()), label]);
        assert!(plan(&Observed { is_paused: true, ..with_vm }).steps.is_empty());
    }

    #[test]
    fn a_vm_that_is_gone_is_not_made_again() {
        let mut known = observed();
        Arc::make_mut(&mut known.object).spec.provider_id = Some("vsphere://u".to_owned());
        let plan = plan(&known);
        assert!(plan.steps.is_empty() && plan.waiting.unwrap().message.contains("delete the Machine"));
    }

    #[test]
    fn it_goes_after_its_vm() {
        let mut going = observed();
        Arc::make_mut(&mut going.object).metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(plan(&going).steps, [Step::RemoveFinalizer]);
        let vm = Arc::new(VSphereVM { metadata: named("m"), ..VSphereVM::default() });
        let held = plan(&Observed { vm: Some(vm.clone()), ..going.clone() });
        assert_eq!(held.steps, [Step::DeleteVm(Box::new(vm.metadata.clone()))]);
        let mut leaving = (*vm).clone();
        leaving.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let later = "1970-01-01T00:10:00Z".parse().unwrap();
        let held = plan(&Observed { vm: Some(Arc::new(leaving)), now: later, ..going });
        assert!(held.steps.is_empty());
        assert_eq!(held.waiting.unwrap().message, "waiting for VSphereVM m to go since 00:00:00");
    }

    #[test]
    fn naming_templates_are_understood_or_refused() {
        let observed = observed();
        let name = |template: &str| {
            let mut object = (*observed.object).clone();
            object.spec.naming.template = Some(template.to_owned());
            vm_name(&object, observed.machine.as_ref().unwrap()).map_err(|waiting| waiting.reason)
        };
        assert_eq!(name("{{ .machine.name }}"), Ok("m".to_owned()));
        assert_eq!(name("{{.cluster.name}}-{{.machine.name}}"), Ok("c-m".to_owned()));
        assert_eq!(name("{{ .machine.name | trunc 5 }}"), Err("InvalidNamingTemplate"));
    }
}
