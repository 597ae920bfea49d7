//! What happens outside of a scenario's terminals: in vCenter, to machines, to networks, to the process. Each has the words that stand for
//! it in the transcript.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use simulator::Simulator;
use simulator::hooks::{KUBE, Phase, TALOS, VCENTER, Verdict};
use simulator::hypervisor::VmId;
use simulator::vcenter::{Person, Refused};

use super::super::fault::{End, Fault, How, Wrong};
use super::super::player::Player;
use super::script::Span;
use super::transcript::Names;

/// Something that happens. A new one needs its words and its deed, below.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Happening {
    /// Machines' VMs, by somebody in vCenter.
    VmDeleted(Vec<String>),
    VmOff(Vec<String>),
    VmOn(Vec<String>),
    VmRenamed(String),
    /// The host of these VMs fails: they are off, and cannot be switched on.
    HostFails(Vec<String>),
    /// It is there again.
    HostBack,
    /// The process of etcd on a node ends and does not come back before the next boot.
    EtcdFails(String),
    /// Nobody reaches a node.
    NodeAway(NodeAway),
    /// Nobody reaches vCenter.
    VcenterAway(Lasting),
    /// vCenter ends every session.
    SessionsEnd,
    /// Tasks in vCenter take so many times as long.
    SlowTasks(Slow),
    /// Some calls go wrong for a while.
    Calls(Calls),
    /// The process dies.
    Kill(Kill),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeAway {
    machine: String,
    lasts: Span,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lasting {
    lasts: Span,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    times: u32,
    lasts: Span,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calls {
    trouble: Trouble,
    /// Of a hundred.
    share: u64,
    lasts: Span,
}

/// How calls go wrong.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Trouble {
    #[serde(rename = "vcenter-503")]
    VCenter503,
    #[serde(rename = "vcenter-replies-lost")]
    VCenterRepliesLost,
    ClonesRefused,
    DestroysRefused,
    NodesUnavailable,
    WorkloadUnavailable,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    /// At which call of the controllers from now on.
    pub calls: u64,
    /// How long until everything is started again.
    pub down: Span,
}

/// How something ends that lasts.
#[derive(Debug)]
pub(super) enum Ending {
    Fault(End, String),
    Tasks,
}

/// What one of them has set going.
#[derive(Debug)]
pub(super) struct Set {
    /// Its words.
    pub told: String,
    pub ending: Option<(Duration, Ending)>,
}

impl Trouble {
    fn how(self, share: u64) -> How {
        let (face, method, wrong) = match self {
            Self::VCenter503 => (VCENTER, "", Wrong::Refused("503")),
            Self::VCenterRepliesLost => (VCENTER, "", Wrong::ReplyLost),
            Self::ClonesRefused => (VCENTER, "CloneVM_Task", Wrong::Refused("NoDiskSpace")),
            Self::DestroysRefused => (VCENTER, "Destroy_Task", Wrong::Refused("ResourceInUse")),
            Self::NodesUnavailable => (TALOS, "", Wrong::Refused("Unavailable")),
            Self::WorkloadUnavailable => (KUBE, "", Wrong::Refused("Unavailable")),
        };
        How { face, method, wrong, share }
    }
}

/// VMs that get no power, by id. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Powerless(Arc<Mutex<BTreeSet<String>>>);

impl Powerless {
    /// Refuses power in a world.
    pub fn rule(&self, simulator: &Simulator) {
        let held = self.clone();
        simulator.hooks().on(move |call| {
            let is_power = call.face == VCENTER && call.method.starts_with("PowerOn") && call.phase == Phase::Before;
            let vm = call.object.split(' ').next().unwrap_or_default();
            if is_power && held.with(|held| held.contains(vm)) { Verdict::Fault("HostNotConnected".to_owned()) } else { Verdict::Proceed }
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A person at the vSphere client, with each of some machines' VMs.
fn by_hand(player: &Player, machines: &[String], act: impl Fn(&Person, &VmId) -> Result<(), Refused>) -> Result<String, String> {
    for machine in machines {
        let person = player.world.simulator.vcenter().person();
        let vm = person.find(machine).ok_or_else(|| format!("there is no VM {machine}"))?;
        act(&person, &vm).map_err(|refused| refused.to_string())?;
    }
    if let Some(checker) = player.world.watch.checker() {
        checker.person_acted(&player.world.simulator.truth());
    }
    Ok(machines.join(", "))
}

fn spoken(span: Span) -> String {
    let seconds = span.0.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

impl Happening {
    /// Lets it happen.
    ///
    /// # Errors
    /// When it cannot.
    pub(super) async fn happen(&self, player: &Player, powerless: &Powerless, names: &Names) -> Result<Set, String> {
        let fill = |machines: &[String]| machines.iter().map(|machine| names.fill(machine)).collect::<Vec<_>>();
        let fault = |fault: &Fault, told: String, after: String| {
            let ending = fault.begin(player).map(|(lasts, end)| (lasts, Ending::Fault(end, after)));
            Set { told, ending }
        };
        let told = match self {
            Self::VmDeleted(machines) => {
                format!("in vCenter, somebody deletes {}", by_hand(player, &fill(machines), Person::delete)?)
            }
            Self::VmOff(machines) => format!("in vCenter, somebody switches off {}", by_hand(player, &fill(machines), Person::power_off)?),
            Self::VmOn(machines) => format!("in vCenter, somebody switches on {}", by_hand(player, &fill(machines), Person::power_on)?),
            Self::VmRenamed(machine) => {
                let machine = names.fill(machine);
                let name = format!("renamed-{machine}");
                by_hand(player, std::slice::from_ref(&machine), |person, vm| person.rename(vm, &name))?;
                format!("in vCenter, somebody renames {machine} to {name}")
            }
            Self::HostFails(machines) => {
                let told = by_hand(player, &fill(machines), |person, vm| {
                    powerless.with(|held| held.insert(vm.to_string()));
                    person.power_off(vm)
                })?;
                format!("the host fails that runs {told}: off, and not to be switched on")
            }
            Self::HostBack => {
                powerless.with(BTreeSet::clear);
                "the host is back".to_owned()
            }
            Self::EtcdFails(machine) => {
                let machine = names.fill(machine);
                let vm = player.world.simulator.vcenter().person().find(&machine).ok_or_else(|| format!("there is no VM {machine}"))?;
                if !player.world.simulator.nodes().fail_etcd(&vm) {
                    return Err(format!("etcd does not run on {machine}"));
                }
                if let Some(checker) = player.world.watch.checker() {
                    checker.person_acted(&player.world.simulator.truth());
                }
                format!("on {machine}, etcd ends with an error and stays so")
            }
            Self::NodeAway(NodeAway { machine, lasts }) => {
                let machine = names.fill(machine);
                let truth = player.world.simulator.truth();
                let found = truth.nodes.machines.iter().find(|node| node.hostname == machine);
                let address = found.and_then(|node| node.addresses.first()).ok_or_else(|| format!("{machine} has no address"))?.to_string();
                player.world.simulator.vm_network().isolate(&address);
                let ending = Ending::Fault(End::Rejoin(address), format!("{machine} is reached again"));
                let told = format!("nobody reaches {machine} any more, for {}", spoken(*lasts));
                return Ok(Set { told, ending: Some((lasts.0, ending)) });
            }
            Self::VcenterAway(Lasting { lasts }) => {
                let told = format!("nobody reaches vCenter any more, for {}", spoken(*lasts));
                return Ok(fault(&Fault::VCenterAway { lasts: lasts.0 }, told, "vCenter is reached again".to_owned()));
            }
            Self::SessionsEnd => return Ok(fault(&Fault::SessionsEnd, "vCenter ends every session".to_owned(), String::new())),
            Self::SlowTasks(Slow { times, lasts }) => {
                player.world.simulator.vcenter().slow_down(*times);
                let told = format!("tasks in vCenter take {times} times as long, for {}", spoken(*lasts));
                return Ok(Set { told, ending: Some((lasts.0, Ending::Tasks)) });
            }
            Self::Calls(Calls { trouble, share, lasts }) => {
                let how = trouble.how(*share);
                let told = format!("for {}, {how}", spoken(*lasts));
                return Ok(fault(&Fault::Calls { how, lasts: lasts.0 }, told, "that is over".to_owned()));
            }
            Self::Kill(Kill { calls, .. }) => {
                player.world.die_at(*calls);
                String::new()
            }
        };
        Ok(Set { told, ending: None })
    }
}
