//! What a changing command would do, as `--dry-run` shows it: every Machine with its VM, in the order in which they go, each with its
//! reason; what that needs; what it would wait for. Pure, but for reading the objects. It changes nothing.
//!
//! The order is the controllers' own, as far as it can be known beforehand: what changes meanwhile (a machine that fails, another leader of
//! etcd) changes it, and the list says so.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use api::bootstrap::{TalosConfig, TalosConfigSpec};
use api::cluster::{Machine, MachineSet};
use api::conditions::{self, is_true};
use api::controlplane::TalosControlPlane;
use api::infrastructure::{VSphereMachine, VSphereVM};
use api::names::annotations;
use controllers::edit::{controller_reference, is_deleting};
use controllers::machineset::plan::order_of_going;
use controllers::taloscontrolplane::plan::normalized;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::apply::{Api, unreachable};
use crate::cli::Output;
use crate::problem::{Code, Problem};
use crate::seams::Seams;

/// Said of control planes wherever their order is told.
pub const LEADER_LAST: &str = "control planes go one at a time, what is not healthy first, and whichever leads etcd then goes last; none goes while etcd would lose its quorum";

/// `1 Machine`, `2 Machines`.
pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// A Machine that would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Going {
    pub machine: String,
    /// Absent while it has none.
    pub vm: Option<String>,
    pub is_control_plane: bool,
    pub why: String,
}

impl fmt::Display for Going {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.vm {
            Some(vm) => write!(f, "Machine {}, and its VM {vm}: {}", self.machine, self.why),
            None => write!(f, "Machine {}, which has no VM: {}", self.machine, self.why),
        }
    }
}

/// What a command would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// In one line.
    pub summary: String,
    /// In the order in which they go.
    pub machines: Vec<Going>,
    /// In which way.
    pub how: Vec<String>,
    /// Objects that would be made or changed.
    pub changes: Vec<String>,
    /// Addresses and capacity.
    pub needs: Vec<String>,
    /// What would be waited for, or keeps it from being done.
    pub blocks: Vec<String>,
    pub warnings: Vec<String>,
}

impl Preview {
    /// The same for programs.
    pub fn to_value(&self) -> Value {
        let machine = |(index, going): (usize, &Going)| {
            let role = if going.is_control_plane { "control-plane" } else { "worker" };
            json!({"order": index + 1, "machine": going.machine, "vm": going.vm, "role": role, "why": going.why})
        };
        json!({
            "dryRun": true, "summary": self.summary, "machines": self.machines.iter().enumerate().map(machine).collect::<Vec<_>>(),
            "how": self.how, "changes": self.changes, "needs": self.needs, "blocks": self.blocks, "warnings": self.warnings,
        })
    }

    /// Prints it as data.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn print(&self, output: Output, seams: &Seams) -> Result<(), Problem> {
        match output {
            Output::Json | Output::Yaml => seams.printer.value(&self.to_value(), output == Output::Json)?,
            Output::Name => {
                self.machines.iter().for_each(|going| seams.printer.data(&format!("machine.cluster.x-k8s.io/{}", going.machine)));
            }
            Output::Table | Output::Wide => seams.printer.data(&self.to_string()),
        }
        Ok(())
    }
}

impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.summary)?;
        for (index, going) in self.machines.iter().enumerate() {
            write!(f, "\n  {}. {going}", index + 1)?;
        }
        let parts = [("how", &self.how), ("changes", &self.changes), ("needs", &self.needs), ("blocks", &self.blocks)];
        for (title, lines) in parts.into_iter().chain([("warning", &self.warnings)]) {
            for line in lines {
                write!(f, "\n{title}: {line}")?;
            }
        }
        write!(f, "\nnothing is changed: this was a dry run")
    }
}

/// The Machines of a namespace with the names of their VMs.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    pub machines: Vec<Arc<Machine>>,
    pub sets: Vec<MachineSet>,
    /// By the name of the VSphereMachine.
    vms: BTreeMap<String, String>,
    /// The name of the template that each VSphereMachine was made from, by its name.
    made_from: BTreeMap<String, String>,
    configs: BTreeMap<String, TalosConfigSpec>,
}

impl Inventory {
    /// Reads it.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn read(api: &Api, namespace: &str) -> Result<Self, Problem> {
        let at = |plural: &str| format!("/apis/cluster.x-k8s.io/v1beta2/namespaces/{namespace}/{plural}");
        let machines = list::<Machine>(api, &at("machines")).await?.into_iter().map(Arc::new).collect();
        let sets = list(api, &at("machinesets")).await?;
        let infrastructure = format!("/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/{namespace}");
        let vms: Vec<VSphereVM> = list(api, &format!("{infrastructure}/vspherevms")).await?;
        let objects: Vec<VSphereMachine> = list(api, &format!("{infrastructure}/vspheremachines")).await?;
        let template =
            |object: VSphereMachine| Some((object.metadata.name?, object.metadata.annotations?.remove(annotations::CLONED_FROM_NAME)?));
        let configs: Vec<TalosConfig> =
            list(api, &format!("/apis/bootstrap.cluster.x-k8s.io/v1beta1/namespaces/{namespace}/talosconfigs")).await?;
        let configs = configs.into_iter().filter_map(|config| Some((config.metadata.name?, config.spec)));
        let of = |vm: VSphereVM| {
            let owners = vm.metadata.owner_references.unwrap_or_default();
            let owner = owners.into_iter().find(|owner| owner.kind == "VSphereMachine")?;
            Some((owner.name, vm.metadata.name?))
        };
        let made_from = objects.into_iter().filter_map(template).collect();
        Ok(Self { machines, sets, vms: vms.into_iter().filter_map(of).collect(), made_from, configs: configs.collect() })
    }

    /// A Machine that would go, and why.
    pub fn going(&self, machine: &Machine, why: impl Into<String>) -> Going {
        Going {
            machine: machine.metadata.name.clone().unwrap_or_default(),
            vm: self.vms.get(&machine.spec.infrastructure_ref.name).cloned(),
            is_control_plane: controllers::controlplane::is_control_plane(machine),
            why: why.into(),
        }
    }

    /// In what a Machine differs from a version and the name of an infrastructure template.
    pub fn differences(&self, machine: &Machine, version: Option<&str>, template: &str) -> Vec<String> {
        let bare = |version: &str| version.trim_start_matches('v').to_owned();
        let mut why = Vec::new();
        if let Some((present, wanted)) = machine.spec.version.as_deref().zip(version).filter(|(a, b)| bare(a) != bare(b)) {
            why.push(format!("Version {present}, {wanted} required"));
        }
        let made_from = self.made_from.get(&machine.spec.infrastructure_ref.name);
        if let Some(made_from) = made_from.filter(|made_from| *made_from != template) {
            why.push(format!("Infrastructure template {made_from}, {template} required"));
        }
        why
    }

    /// The configuration of a Machine, as its TalosConfig asks for it.
    pub fn config(&self, machine: &Machine) -> Option<&TalosConfigSpec> {
        self.configs.get(&machine.spec.bootstrap.config_ref.as_ref()?.name)
    }

    /// Whether a control plane's configuration is another one than is stored now.
    pub fn has_other_config(&self, machine: &Machine, plane: &TalosControlPlane) -> bool {
        let wanted = normalized(&plane.spec.control_plane_config.controlplane.to_talos_config());
        self.config(machine).is_some_and(|config| normalized(config) != wanted)
    }

    /// Machines that an object of this uid controls and that are not being deleted.
    pub fn controlled_by(&self, uid: &str) -> Vec<Arc<Machine>> {
        let is_ours = |machine: &&Arc<Machine>| controller_reference(&machine.metadata).is_some_and(|owner| owner.uid == uid);
        self.machines.iter().filter(is_ours).filter(|machine| !is_deleting(&machine.metadata)).cloned().collect()
    }

    /// The sets of a MachineDeployment of this uid.
    pub fn sets_of(&self, uid: &str) -> Vec<&MachineSet> {
        self.sets.iter().filter(|set| controller_reference(&set.metadata).is_some_and(|owner| owner.uid == uid)).collect()
    }

    /// The Machines of a set in the order in which they go.
    pub fn of_set(&self, set: &MachineSet) -> Vec<Arc<Machine>> {
        order_of_going(set, &self.controlled_by(set.metadata.uid.as_deref().unwrap_or_default()))
    }
}

/// Control planes in the order in which they go: marked ones, what is not healthy, what is outdated, from the fullest failure domain, the
/// oldest first. The one whose own address is the cluster's endpoint goes last.
pub fn control_planes_in_order(mut machines: Vec<Arc<Machine>>, endpoint: Option<&str>) -> Vec<Arc<Machine>> {
    let mut domains: BTreeMap<Option<String>, usize> = BTreeMap::new();
    for machine in &machines {
        *domains.entry(machine.spec.failure_domain.clone()).or_default() += 1;
    }
    machines.sort_by_key(|machine| {
        let is_marked = machine.metadata.annotations.as_ref().is_some_and(|known| known.contains_key(annotations::DELETE_MACHINE));
        let in_domain = domains.get(&machine.spec.failure_domain).copied().unwrap_or(0);
        let created = machine.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let is_last = holds(machine, endpoint);
        (is_last, !is_marked, unwell(machine).is_none(), !is_outdated(machine), Reverse(in_domain), created, machine.metadata.name.clone())
    });
    machines
}

/// Whether the endpoint is an address of the machine's own.
pub fn holds(machine: &Machine, endpoint: Option<&str>) -> bool {
    let addresses = machine.status.as_ref().map(|status| status.addresses.as_slice()).unwrap_or_default();
    endpoint.is_some_and(|endpoint| addresses.iter().any(|address| address.address == endpoint))
}

/// Whether the controllers say that the Machine is not what is wanted.
fn is_outdated(machine: &Machine) -> bool {
    let told = machine.status.as_ref().and_then(|status| conditions::get(&status.conditions, "UpToDate"));
    told.is_some_and(|told| told.status == conditions::Status::False)
}

/// What is wrong with a Machine, if anything is.
pub fn unwell(machine: &Machine) -> Option<String> {
    let Some(status) = &machine.status else { return Some("it is not there yet".to_owned()) };
    let known = |type_: &str| conditions::get(&status.conditions, type_);
    let is_bad = |type_: &&str| known(type_).is_none_or(|told| told.status != conditions::Status::True);
    let asked = known("HealthCheckSucceeded").filter(|told| told.status == conditions::Status::False);
    if let Some(told) = asked {
        return Some(format!("its health check fails: {}", told.message.lines().next().unwrap_or_default().trim_start_matches("* ")));
    }
    let bad = ["InfrastructureReady", "NodeReady"].iter().find(|type_| is_bad(type_) && !is_true(&status.conditions, "Available"))?;
    let told = known(bad).map(|told| told.message.lines().next().unwrap_or_default().trim_start_matches("* ").to_owned());
    Some(told.filter(|told| !told.is_empty()).map_or_else(|| format!("{bad} is not True"), |told| format!("{bad} is not True: {told}")))
}

/// Reads one object.
///
/// # Errors
/// When it is not of the type.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_json::from_value(value).map_err(|error| Problem::new(Code::Internal, error.to_string()))
}

/// The objects of a list.
///
/// # Errors
/// When the API does not answer.
pub async fn list<T: DeserializeOwned>(api: &Api, path: &str) -> Result<Vec<T>, Problem> {
    let answer = api.get(path).await.map_err(|error| unreachable(&error))?;
    let items = answer.and_then(|mut answer| answer.get_mut("items").map(Value::take));
    items.map_or_else(|| Ok(Vec::new()), read)
}
