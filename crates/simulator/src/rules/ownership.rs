//! Rules 3, 4 and 12: every machine we make is marked and belongs to somebody, nobody else's is touched, and none is made twice.
//!
//! What was there from the start, and what a person made, is foreign. The marker's keys are an interface of the product: they are read
//! here from the machine's settings as anybody with the vSphere client could.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::objects::{Key, Objects, text};
use super::{Violation, violation};
use crate::Truth;
use crate::hypervisor::{Disk, Origin, VmId, VmTruth};

const INSTALLATION: &str = "guestinfo.talosphere.installation";
const CLUSTER: &str = "guestinfo.talosphere.cluster";
const MACHINE: &str = "guestinfo.talosphere.machine";
const INSTANCE: &str = "guestinfo.talosphere.instance";

/// What is compared of a foreign machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Likeness {
    name: String,
    folder: String,
    powered_on: bool,
    is_template: bool,
    settings: BTreeMap<String, String>,
    annotation: String,
    disks: Vec<Disk>,
    /// How many changes by hand it has seen.
    by_hand: usize,
}

impl Likeness {
    fn of(vm: &VmTruth) -> Self {
        Self {
            name: vm.name.clone(),
            folder: vm.folder.clone(),
            powered_on: vm.powered_on,
            is_template: vm.is_template,
            settings: vm.extra_config.clone(),
            annotation: vm.annotation.clone(),
            disks: vm.disks.clone(),
            by_hand: vm.changes.len(),
        }
    }

    /// The first thing that differs, in words.
    fn difference(&self, now: &Self) -> Option<&'static str> {
        [
            (self.name != now.name, "its name"),
            (self.folder != now.folder, "its folder"),
            (self.powered_on != now.powered_on, "its power"),
            (self.is_template != now.is_template, "whether it is a template"),
            (self.settings != now.settings, "its settings"),
            (self.annotation != now.annotation, "its annotation"),
            (self.disks != now.disks, "its disks"),
        ]
        .into_iter()
        .find_map(|(differs, what)| differs.then_some(what))
    }
}

/// What belongs to others.
#[derive(Debug, Default)]
pub(super) struct Memory {
    foreign: BTreeMap<VmId, Likeness>,
    /// Machines that an API client made but whose marker is not valid, by name: not to be destroyed while it is so.
    unproven: BTreeMap<VmId, String>,
    volumes: BTreeMap<String, String>,
    /// Objects whose next write comes from a person.
    expected: BTreeSet<(String, String, String)>,
}

fn is_foreign(vm: &VmTruth) -> bool {
    vm.origin != Origin::Api
}

fn part<'a>(vm: &'a VmTruth, key: &str) -> &'a str {
    vm.extra_config.get(key).map(String::as_str).unwrap_or_default()
}

impl Memory {
    /// Takes the world as it is.
    pub fn accept(&mut self, truth: &Truth) {
        self.foreign = truth.vms.iter().filter(|vm| is_foreign(vm)).map(|vm| (vm.id.clone(), Likeness::of(vm))).collect();
        self.volumes = truth.volumes.iter().cloned().collect();
        self.unproven = unproven(truth);
    }

    pub fn expect(&mut self, resource: &str, namespace: &str, name: &str) {
        self.expected.insert((resource.to_owned(), namespace.to_owned(), name.to_owned()));
    }

    pub fn check(&mut self, truth: &Truth) -> Vec<Violation> {
        let mut found = Vec::new();
        let now: BTreeMap<&VmId, &VmTruth> = truth.vms.iter().map(|vm| (&vm.id, vm)).collect();
        for (id, before) in &self.foreign {
            match now.get(id) {
                None => found.push(violation(
                    4,
                    "a machine that is not ours was destroyed",
                    format!("{} ({id}) in {}", before.name, before.folder),
                )),
                Some(vm) => {
                    let likeness = Likeness::of(vm);
                    if let Some(what) = before.difference(&likeness).filter(|_| likeness.by_hand == before.by_hand) {
                        found.push(violation(
                            4,
                            format!("of a machine that is not ours, {what} changed"),
                            format!("{} ({id})", before.name),
                        ));
                    }
                }
            }
        }
        for (id, name) in self.unproven.iter().filter(|(id, _)| !now.contains_key(id)) {
            found.push(violation(4, "a machine was destroyed that carried no valid marker of ours", format!("{name} ({id})")));
        }
        self.unproven = unproven(truth);
        // Each change is reported once, and what a person did is the new state.
        self.foreign = truth.vms.iter().filter(|vm| is_foreign(vm)).map(|vm| (vm.id.clone(), Likeness::of(vm))).collect();
        let volumes: BTreeMap<String, String> = truth.volumes.iter().cloned().collect();
        for (id, file) in self.volumes.iter().filter(|(id, _)| !volumes.contains_key(*id)) {
            found.push(violation(4, "a persistent volume was destroyed", format!("{id}, {file}")));
        }
        self.volumes = volumes;
        found.extend(unmarked(truth));
        found.extend(twice(truth));
        found
    }

    /// A write to a credential Secret of the user's: nothing but finalizers may change.
    pub fn wrote(&mut self, objects: &Objects, key: &Key, before: Option<&Value>, after: Option<&Value>) -> Vec<Violation> {
        if !key.is("", "secrets") {
            return Vec::new();
        }
        if self.expected.remove(&(key.resource.clone(), key.namespace.clone(), key.name.clone())) {
            return Vec::new();
        }
        let is_credential = objects.list("infrastructure.cluster.x-k8s.io", "vsphereclusters").any(|(cluster, object)| {
            let reference = object.pointer("/spec/identityRef");
            let is_secret = reference.is_some_and(|reference| text(reference, "/kind") == "Secret" && text(reference, "/name") == key.name);
            is_secret && cluster.namespace == key.namespace
        });
        let (Some(before), Some(after), true) = (before, after, is_credential) else { return Vec::new() };
        let mut found = Vec::new();
        if before.get("data") != after.get("data") {
            found.push(violation(4, "the user's credentials were changed", key.to_string()));
        }
        let owners = |object: &Value| object.pointer("/metadata/ownerReferences").cloned();
        if owners(before) != owners(after) {
            found.push(violation(4, "the user's credential Secret was given an owner", key.to_string()));
        }
        found
    }
}

/// Machines without a marker that is valid for their own instance UUID.
fn unproven(truth: &Truth) -> BTreeMap<VmId, String> {
    let made = truth.vms.iter().filter(|vm| vm.origin == Origin::Api && !vm.is_template);
    let is_valid = |vm: &VmTruth| !part(vm, INSTALLATION).is_empty() && part(vm, INSTANCE).eq_ignore_ascii_case(&vm.instance_uuid);
    made.filter(|vm| !is_valid(vm)).map(|vm| (vm.id.clone(), vm.name.clone())).collect()
}

/// Rule 3: the marker is there from the moment of the clone.
fn unmarked(truth: &Truth) -> Vec<Violation> {
    let ours = truth.vms.iter().filter(|vm| vm.origin == Origin::Api && !vm.is_template);
    let missing = ours.filter_map(|vm| {
        let key = [INSTALLATION, CLUSTER, MACHINE, INSTANCE].into_iter().find(|key| part(vm, key).is_empty())?;
        Some(violation(3, "a machine was made without an ownership marker", format!("{} ({}) has no {key}", vm.name, vm.id)))
    });
    missing.collect()
}

/// Rule 12: one machine for each Machine.
fn twice(truth: &Truth) -> Vec<Violation> {
    let mut by_machine: BTreeMap<(&str, &str), Vec<&VmTruth>> = BTreeMap::new();
    for vm in truth.vms.iter().filter(|vm| vm.origin == Origin::Api && !vm.is_template && !part(vm, MACHINE).is_empty()) {
        by_machine.entry((part(vm, INSTALLATION), part(vm, MACHINE))).or_default().push(vm);
    }
    let double = by_machine.into_iter().filter(|(_, vms)| vms.len() > 1).map(|((_, machine), vms)| {
        let names: Vec<String> = vms.iter().map(|vm| format!("{} ({})", vm.name, vm.id)).collect();
        violation(12, "one Machine has more than one virtual machine", format!("Machine {machine}: {}", names.join(", ")))
    });
    double.collect()
}

/// Rule 3 at rest: every marked machine belongs to a Machine that lives.
pub(super) fn at_rest(truth: &Truth, objects: &Objects) -> Vec<Violation> {
    let live: BTreeSet<&str> = objects.list("cluster.x-k8s.io", "machines").map(|(_, machine)| text(machine, "/metadata/uid")).collect();
    let ours = truth.vms.iter().filter(|vm| vm.origin == Origin::Api && !vm.is_template);
    let orphans = ours.filter(|vm| !live.contains(part(vm, MACHINE)));
    orphans.map(|vm| violation(3, "a machine of ours belongs to no Machine", format!("{} ({}) in {}", vm.name, vm.id, vm.folder))).collect()
}
