//! What `repair` sees of a cluster's etcd: each control plane's Machine, its virtual machine as vCenter has it, and what its node says.
//!
//! Nothing is taken from a condition that a controller wrote: without a quorum, and with controllers that may not run, those are old. What
//! cannot be asked is not known, and counts neither as there nor as gone. It changes nothing.

use std::sync::Arc;
use std::time::Duration;

use api::cluster::{Cluster, Machine};
use api::conditions;
use api::controlplane::TalosControlPlane;
use api::infrastructure::VSphereVM;
use controllers::controlplane::is_control_plane;
use controllers::edit::{controller_reference, is_deleting, is_paused};
use controllers::taloscontrolplane::intent;
use controllers::taloscontrolplane::recovery::Recovery;
use controllers::vspherevm::plan::vm_reference;
use futures::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use talos::client::{ClientIdentity, EtcdMember, MemberId, TalosDialer, TalosError};
use talos::secrets::Bundle;
use vsphere::{VCenter, VCenters as _, VirtualMachinePowerState};

use crate::apply::{Api, unreachable};
use crate::commands::clusters::{self, credential};
use crate::commands::preflight;
use crate::commands::preview::{list, read};
use crate::host::wiring;
use crate::problem::{Code, Problem};
use crate::seams::Seams;

/// Annotation of a TalosControlPlane: switching machines on was tried, and did not bring the quorum back.
pub const POWER_ON: &str = "talosphere.dev/etcd-power-on";
/// For how long a try counts.
const TRY_COUNTS: Duration = Duration::from_secs(3600);
/// How long one node may take for all its answers.
const BUDGET: Duration = Duration::from_secs(20);

/// A try to bring the quorum back by switching machines on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Try {
    pub at: Timestamp,
    /// Machines whose nodes did not come back.
    pub silent: Vec<String>,
}

/// A virtual machine, as vCenter has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vm {
    On,
    Off,
    /// vCenter says that it does not exist.
    Gone,
    /// vCenter was not asked, or did not answer.
    Unknown(String),
}

/// What a node says of its etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Silent(String),
    Answers(Etcd),
}

/// A node's etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Etcd {
    /// Of the service: `Running`, `Preparing`.
    pub state: String,
    /// Whether a member's data lies on the disk.
    pub has_data: bool,
    pub member: Option<MemberId>,
    /// The members as it knows them itself.
    pub members: Vec<EtcdMember>,
    /// The last entry of the log that it has applied.
    pub index: Option<u64>,
    pub leader: Option<MemberId>,
}

/// A control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plane {
    pub machine: clusters::Machine,
    pub is_deleting: bool,
    pub vm: Vm,
    /// What the controllers say of the virtual machine, when it is not ready.
    pub vm_told: Option<String>,
    pub node: Node,
    /// The member that it was when one was last seen.
    pub recorded: Option<MemberId>,
}

impl Plane {
    /// The Machine's name.
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// What its etcd says, when it answers.
    pub fn etcd(&self) -> Option<&Etcd> {
        match &self.node {
            Node::Answers(etcd) => Some(etcd),
            Node::Silent(_) => None,
        }
    }

    /// Whether it answers, and its etcd waits to begin or to join.
    pub fn is_empty(&self) -> bool {
        self.etcd().is_some_and(|etcd| !etcd.has_data && etcd.state == "Preparing")
    }

    /// Whether it is this member.
    pub fn is(&self, member: &EtcdMember) -> bool {
        let own = self.etcd().and_then(|etcd| etcd.member).or(self.recorded);
        let host = |url: &String| url.rsplit_once(':').map_or(url.as_str(), |(host, _)| host).trim_start_matches("https://").to_owned();
        let is_at = |address: &String| member.peer_urls.iter().any(|url| host(url).trim_matches(['[', ']']) == address);
        own == Some(member.id) || own.is_none() && self.machine.address.as_ref().is_some_and(is_at)
    }
}

/// Everything that is seen.
#[derive(Clone, Debug)]
pub struct Look {
    pub cluster: String,
    pub namespace: String,
    pub control_plane: TalosControlPlane,
    pub is_paused: bool,
    pub planes: Vec<Plane>,
    /// Since when the controllers have seen etcd as not whole.
    pub unhealthy_since: Option<Timestamp>,
    pub recovery: Option<Recovery>,
    /// The last try to switch machines on, while it counts.
    pub tried: Option<Try>,
    /// The certificate of the cluster's Kubernetes authority.
    pub authority: Option<String>,
}

impl Look {
    /// The control plane of this name.
    pub fn plane(&self, name: &str) -> Option<&Plane> {
        self.planes.iter().find(|plane| plane.name() == name)
    }

    /// Whether some member is led, which takes a majority.
    pub fn has_quorum(&self) -> bool {
        let is_led = |plane: &Plane| plane.etcd().is_some_and(|etcd| etcd.state == "Running" && etcd.leader.is_some());
        self.planes.iter().any(is_led)
    }
}

/// The ways to the nodes of a cluster.
#[derive(Debug)]
pub struct Way {
    pub dialer: Arc<dyn TalosDialer>,
    pub identity: ClientIdentity,
}

impl Way {
    /// Learns it.
    ///
    /// # Errors
    /// When the cluster or its talosconfig is not there.
    pub async fn to(api: &Api, namespace: &str, cluster: &str, seams: &Seams) -> Result<Self, Problem> {
        let identity = clusters::identity(api, namespace, cluster).await?;
        Ok(Self { dialer: Arc::new(wiring::nodes(seams)), identity })
    }
}

/// The path of a TalosControlPlane.
pub fn path(namespace: &str, name: &str) -> String {
    format!("/apis/controlplane.cluster.x-k8s.io/v1alpha3/namespaces/{namespace}/taloscontrolplanes/{name}")
}

/// Looks at everything; at vCenter only where it is asked for.
///
/// # Errors
/// When the cluster has no control plane of ours, or the API does not answer.
pub async fn look(api: &Api, namespace: &str, name: &str, way: &Way, asks_vcenter: bool, seams: &Seams) -> Result<Look, Problem> {
    let get = |path: String| async move { api.get(&path).await.map_err(|error| unreachable(&error)) };
    let object = get(format!("/apis/cluster.x-k8s.io/v1beta2/namespaces/{namespace}/clusters/{name}"))
        .await?
        .ok_or_else(|| clusters::missing(name, namespace))?;
    let cluster: Cluster = read(object.clone())?;
    let reference = cluster.spec.control_plane_ref.clone().filter(|reference| reference.kind == "TalosControlPlane");
    let found = match &reference {
        Some(reference) => get(path(namespace, &reference.name)).await?,
        None => None,
    };
    let control_plane: TalosControlPlane = read(found.ok_or_else(|| {
        Problem::new(Code::NotFound, format!("Cluster {name} has no TalosControlPlane"))
            .remedy("etcd of another control plane provider is repaired with that provider's means")
    })?)?;
    if is_deleting(&cluster.metadata) || is_deleting(&control_plane.metadata) {
        return Err(Problem::new(Code::BeingDeleted, format!("Cluster {name} is being deleted")));
    }
    let recovery = Recovery::of(&control_plane).map_err(|told| {
        Problem::new(Code::RepairRefused, format!("what was begun with etcd of Cluster {name} cannot be told")).because(told)
    })?;
    let now = seams.clock.now_seconds();
    let annotation = |key: &str| control_plane.metadata.annotations.as_ref().and_then(|known| known.get(key));
    let tried = annotation(POWER_ON).and_then(|text| serde_json::from_str::<Try>(text).ok());
    let tried = tried.filter(|tried| now.duration_since(tried.at).unsigned_abs() < TRY_COUNTS);
    let condition = control_plane.status.as_ref().and_then(|status| {
        conditions::get_legacy(&status.conditions, "EtcdClusterHealthyCondition").filter(|told| told.status == conditions::Status::False)
    });
    let unhealthy_since = condition.map(|condition| condition.last_transition_time.0);
    let bundle = credential(api, namespace, name, "talos", api::names::secrets::BUNDLE).await.ok();
    let authority = bundle.and_then(|text| Bundle::from_yaml(&text).ok()).map(|bundle| bundle.kubernetes.certificate);
    let addressed: Vec<clusters::Machine> =
        clusters::machines(api, namespace, name).await?.into_iter().filter(|machine| machine.is_control_plane).collect();
    let machines: Vec<Machine> = list(api, &format!("/apis/cluster.x-k8s.io/v1beta2/namespaces/{namespace}/machines")).await?;
    let vms: Vec<VSphereVM> =
        list(api, &format!("/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/{namespace}/vspherevms")).await?;
    let vcenter = if asks_vcenter { vcenter(api, namespace, &object, seams).await } else { Err("vCenter was not asked".to_owned()) };
    let mut planes = Vec::new();
    for machine in addressed {
        let of_name = |other: &&Machine| other.metadata.name.as_deref() == Some(&machine.name) && is_control_plane(other);
        let Some(object) = machines.iter().find(of_name) else { continue };
        let infrastructure = &object.spec.infrastructure_ref.name;
        let is_of = |vm: &&VSphereVM| {
            let owners = vm.metadata.owner_references.iter().flatten();
            owners.into_iter().any(|owner| owner.kind == "VSphereMachine" && owner.name == *infrastructure)
                || controller_reference(&vm.metadata).is_some_and(|owner| owner.name == *infrastructure)
        };
        let known = vms.iter().find(is_of);
        let vm = match (&vcenter, known) {
            (Err(why), _) => Vm::Unknown(why.clone()),
            (Ok(_), None) => Vm::Unknown("it has no VSphereVM".to_owned()),
            (Ok((_, vcenter)), Some(known)) => state(&**vcenter, known).await,
        };
        let recorded = object.metadata.annotations.as_ref().and_then(|known| known.get(intent::ETCD_MEMBER));
        let recorded = recorded.and_then(|text| u64::from_str_radix(text, 16).ok()).map(MemberId);
        let is_deleting = is_deleting(&object.metadata);
        let vm_told = known.and_then(told);
        planes.push(Plane { machine, is_deleting, vm, vm_told, node: Node::Silent(String::new()), recorded });
    }
    if let Ok((registry, _)) = &vcenter {
        registry.close().await;
    }
    let answers = join_all(planes.iter().map(|plane| ask(&plane.machine, way, seams))).await;
    for (plane, answer) in planes.iter_mut().zip(answers) {
        plane.node = answer;
    }
    Ok(Look {
        cluster: name.to_owned(),
        namespace: namespace.to_owned(),
        is_paused: is_paused(Some(&cluster), &control_plane.metadata),
        control_plane,
        planes,
        unhealthy_since,
        recovery,
        tried,
        authority,
    })
}

async fn vcenter(api: &Api, namespace: &str, cluster: &Value, seams: &Seams) -> Result<(vsphere::Registry, Arc<dyn VCenter>), String> {
    let way = preflight::Look::prepare(api, namespace, cluster).await.map_err(|problem| problem.what)?;
    let login = way.login(api).await.map_err(|problem| problem.what)?;
    let login = login.ok_or("there is no login to vCenter")?;
    way.vcenter(&login, seams).ok_or_else(|| "the cluster is on no vCenter".to_owned())
}

async fn state(vcenter: &dyn VCenter, vm: &VSphereVM) -> Vm {
    let Some(reference) = vm_reference(vm) else { return Vm::Unknown("it has not been made yet".to_owned()) };
    match vcenter.machine(&reference).await {
        Ok(Some(machine)) if machine.power == VirtualMachinePowerState::PoweredOn => Vm::On,
        Ok(Some(_)) => Vm::Off,
        Ok(None) => Vm::Gone,
        Err(error) => Vm::Unknown(error.to_string()),
    }
}

/// Why a virtual machine is not ready.
fn told(vm: &VSphereVM) -> Option<String> {
    let ready = conditions::get(&vm.status.as_ref()?.conditions, "Ready").filter(|told| told.status != conditions::Status::True)?;
    Some(ready.message.lines().next().unwrap_or_default().trim_start_matches("* ").to_owned()).filter(|told| !told.is_empty())
}

/// Asks a node.
async fn ask(machine: &clusters::Machine, way: &Way, seams: &Seams) -> Node {
    let Some(address) = &machine.address else { return Node::Silent("it has no address".to_owned()) };
    let questions = async {
        let api = way.dialer.connect(address, &way.identity).await?;
        let services = api.services().await?;
        let state = services.into_iter().find(|service| service.id == "etcd").map(|service| service.state).unwrap_or_default();
        let mut etcd = Etcd { has_data: api.has_etcd_data().await?, state, ..Etcd::default() };
        if etcd.has_data && etcd.state == "Running" {
            // A member that has just stopped has data all the same.
            if let Ok(status) = api.etcd_status().await {
                (etcd.member, etcd.leader, etcd.index) = (status.member_id, status.leader, Some(status.raft_applied_index));
            }
            etcd.members = api.etcd_members_local().await.unwrap_or_default();
        }
        Ok::<_, TalosError>(etcd)
    };
    tokio::select! {
        answer = questions => match answer {
            Ok(etcd) => Node::Answers(etcd),
            Err(error) => Node::Silent(error.to_string()),
        },
        () = seams.clock.sleep(BUDGET) => Node::Silent(format!("{address} does not answer within {} s", BUDGET.as_secs())),
    }
}
