//! What an upgrade changes, in which order, and what speaks against it. Pure.
//!
//! ```text
//!   templates that are missing -> TalosControlPlane -> every control plane replaced -> MachineDeployments -> every worker replaced
//! ```
//!
//! The same question asked again, in the middle or at the end, gives what is left to do. A refusal changes nothing. It never makes a version
//! lower, skips a minor, or lets workers be newer than the control plane.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::bootstrap::ConfigPatch;
use api::cluster::{Cluster, Machine, MachineDeployment};
use api::conditions;
use api::controlplane::TalosControlPlane;
use apimachinery::meta::text_at as text;
use controllers::controlplane::is_control_plane;
use controllers::edit::{is_deleting, is_paused, owner_of};
use controllers::machinedeployment::plan::{is_rollout_paused, most_replicas, most_unavailable, revision};
use serde_json::{Value, json};
use talos::contract::Contract;

use super::version::Version;
use crate::commands::preview::{Going, Inventory, LEADER_LAST, Preview, control_planes_in_order, counted, holds, unwell};
use crate::commands::rollout::revisions::Family;
use crate::problem::{Code, Problem};

/// On a template that was copied for an upgrade: the name of the first one.
pub const COPIED_FROM: &str = "talosphere.dev/copied-from";
/// A kubelet may be so many minors older than the API server.
const OLDEST_KUBELET: u64 = 3;

/// What a person asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub kubernetes: Option<Version>,
    /// For which release configurations are written.
    pub talos: Option<Contract>,
    /// The VM template in vCenter.
    pub template: Option<String>,
}

/// A cluster with what its machines are made from.
#[derive(Clone, Debug)]
pub struct Observed {
    pub cluster: Cluster,
    pub control_plane: TalosControlPlane,
    pub deployments: Vec<MachineDeployment>,
    pub inventory: Inventory,
    pub machine_templates: Vec<Value>,
    pub config_templates: Vec<Value>,
    /// Free addresses by kind and name of the pool.
    pub free: BTreeMap<(String, String), i64>,
    /// What is not as it should be now.
    pub waiting: Vec<String>,
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Upgrade {
    /// Templates that are missing.
    pub templates: Vec<Value>,
    /// The change of the TalosControlPlane, as a JSON patch; none when it is as asked.
    pub control_plane: Option<Value>,
    /// The changes of MachineDeployments, by name.
    pub workers: Vec<(String, Value)>,
    pub preview: Preview,
}

impl Upgrade {
    /// Whether every object is as asked, though machines may still be replaced.
    pub fn is_stored(&self) -> bool {
        self.templates.is_empty() && self.control_plane.is_none() && self.workers.is_empty()
    }
}

/// What machines of one object are to be like.
struct Target {
    version: Option<String>,
    template: String,
    /// Named where the configuration changes.
    config: Option<String>,
}

fn refused(what: impl Into<String>) -> Problem {
    Problem::new(Code::UpgradeRefused, what)
}

fn name(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// Decides.
///
/// # Errors
/// With what speaks against it.
pub fn decide(observed: &Observed, wanted: &Wanted) -> Result<Upgrade, Problem> {
    undisturbed(observed)?;
    versions(observed, wanted)?;
    let mut copies = Copies { observed, made: Vec::new() };
    let mut upgrade = Upgrade::default();
    let plane = control_plane(observed, wanted, &mut copies)?;
    upgrade.control_plane = plane.1;
    if upgrade.control_plane.is_some() && is_rolling(&observed.control_plane) {
        return Err(under_way("TalosControlPlane", name(&observed.control_plane.metadata), "taloscontrolplane"));
    }
    let mut targets = Vec::new();
    for deployment in &observed.deployments {
        let (target, patch) = workers(deployment, wanted, &mut copies)?;
        if patch.is_some() && is_worker_rolling(deployment) {
            return Err(under_way("MachineDeployment", name(&deployment.metadata), "machinedeployment"));
        }
        upgrade.workers.extend(patch.map(|patch| (name(&deployment.metadata).to_owned(), patch)));
        targets.push((deployment, target));
    }
    upgrade.templates = copies.made.clone();
    let all: Vec<&Value> = observed.machine_templates.iter().chain(&copies.made).collect();
    upgrade.preview = preview(observed, &plane.0, &targets, &all);
    let endpoint = endpoint(observed);
    let held = observed.inventory.machines.iter().find(|machine| {
        holds(machine, endpoint)
            && upgrade.preview.machines.iter().any(|going| going.is_control_plane && going.machine == name(&machine.metadata))
    });
    if let Some(machine) = held {
        return Err(refused(format!("Machine {} cannot be replaced by another", name(&machine.metadata)))
            .because(format!(
                "its own address {} is the cluster's endpoint, and no other machine can stand in for it",
                endpoint.unwrap_or_default()
            ))
            .remedy("give the cluster an endpoint that moves: a virtual IP or a load balancer"));
    }
    let changes = &mut upgrade.preview.changes;
    changes.extend(upgrade.templates.iter().map(|made| format!("{} {} is made", text(made, "/kind"), text(made, "/metadata/name"))));
    if let Some(patch) = &upgrade.control_plane {
        changes.push(format!("TalosControlPlane {}: {}", name(&observed.control_plane.metadata), shown(patch)));
    }
    changes.extend(upgrade.workers.iter().map(|(name, patch)| format!("MachineDeployment {name}: {}", shown(patch))));
    Ok(upgrade)
}

/// A patch in words.
fn shown(patch: &Value) -> String {
    let operations = patch.as_array().into_iter().flatten().filter(|operation| text(operation, "/op") != "test");
    let told = operations.map(|operation| {
        let path = text(operation, "/path").trim_start_matches('/').replace('/', ".");
        format!("{path} becomes {}", text(operation, "/value"))
    });
    told.collect::<Vec<_>>().join(", ")
}

fn under_way(kind: &str, name: &str, short: &str) -> Problem {
    refused(format!("another change of {kind} {name} is under way"))
        .because("its machines are not all of the specification that is stored now; a second change in the middle would mix three of them")
        .remedy(format!("wait for it with `talosphere rollout status {short}/{name}`, or ask for the same as it does"))
}

/// Nothing is paused or being deleted.
fn undisturbed(observed: &Observed) -> Result<(), Problem> {
    let cluster = name(&observed.cluster.metadata);
    let plane = &observed.control_plane.metadata;
    let metas = || {
        let deployments = observed.deployments.iter().map(|deployment| ("MachineDeployment", &deployment.metadata));
        [("Cluster", &observed.cluster.metadata), ("TalosControlPlane", plane)].into_iter().chain(deployments)
    };
    if let Some((kind, meta)) = metas().find(|(_, meta)| is_deleting(meta)) {
        return Err(Problem::new(Code::BeingDeleted, format!("{kind} {} is being deleted", name(meta))));
    }
    if observed.cluster.spec.paused == Some(true) {
        return Err(refused(format!("Cluster {cluster} is paused"))
            .because("spec.paused is true: nobody changes anything of it")
            .remedy(format!("kubectl patch cluster {cluster} --type merge -p '{{\"spec\":{{\"paused\":false}}}}'")));
    }
    let resume = |kind: &str, name: &str| format!("talosphere rollout resume {}/{name}", kind.to_lowercase());
    if let Some((kind, meta)) = metas().find(|(_, meta)| is_paused(None, meta)) {
        let remedy = if kind == "TalosControlPlane" {
            resume(kind, name(meta))
        } else {
            format!("kubectl annotate {} {} cluster.x-k8s.io/paused-", kind.to_lowercase(), name(meta))
        };
        return Err(refused(format!("{kind} {} is paused", name(meta)))
            .because("it has the annotation cluster.x-k8s.io/paused")
            .remedy(remedy));
    }
    if let Some(deployment) = observed.deployments.iter().find(|deployment| is_rollout_paused(deployment)) {
        return Err(refused(format!("the rollout of MachineDeployment {} is paused", name(&deployment.metadata)))
            .because("spec.paused is true")
            .remedy(resume("MachineDeployment", name(&deployment.metadata))));
    }
    Ok(())
}

/// The rules between versions: no step back, no skipped minor, workers neither newer than the control plane nor too old for it.
fn versions(observed: &Observed, wanted: &Wanted) -> Result<(), Problem> {
    let plane = &observed.control_plane;
    if let Some(talos) = wanted.talos {
        let present = plane.spec.control_plane_config.controlplane.talos_version.as_deref().filter(|present| !present.is_empty());
        if let Some(present) = present.and_then(|present| present.parse::<Contract>().ok()).filter(|present| *present > talos) {
            return Err(refused(format!("Talos {talos} is lower than {present}, for which the configurations are written now"))
                .remedy("ask for the same release or a later one"));
        }
    }
    let Some(target) = &wanted.kubernetes else { return Ok(()) };
    let plane_name = name(&plane.metadata);
    let running = plane.status.as_ref().and_then(|status| status.version.as_deref()).and_then(Version::read);
    let stored = Version::read(&plane.spec.version);
    if let Some(stored) = stored.as_ref().filter(|stored| *stored > target) {
        return Err(refused(format!("Kubernetes {target} is lower than {stored} of TalosControlPlane {plane_name}"))
            .because("an older API server may not be able to read what a newer one has stored")
            .remedy("ask for the same version or a later one"));
    }
    if let Some(from) = [running, stored].into_iter().flatten().min()
        && (from.major != target.major || from.minor + 1 < target.minor)
    {
        return Err(refused(format!("from Kubernetes {from} to {target} a minor version is skipped"))
            .because("API servers are upgraded one minor at a time (the version skew policy of Kubernetes)")
            .seen(format!("TalosControlPlane {plane_name} has {from}"))
            .remedy(format!("upgrade to v{}.{} first", from.major, from.minor + 1)));
    }
    for deployment in &observed.deployments {
        let worker = name(&deployment.metadata);
        let Some(version) = deployment.spec.template.spec.version.as_deref().and_then(Version::read) else { continue };
        if version > *target {
            return Err(refused(format!(
                "the workers of MachineDeployment {worker} are newer ({version}) than the control plane would be ({target})"
            ))
            .because("a kubelet may not be newer than the API server")
            .remedy(format!("ask for {version} or a later version")));
        }
        if version.major == target.major && version.minor + OLDEST_KUBELET < target.minor {
            return Err(refused(format!(
                "the workers of MachineDeployment {worker} are too old ({version}) for a control plane of {target}"
            ))
            .because(format!("a kubelet may be {OLDEST_KUBELET} minor versions older than the API server, no more"))
            .remedy(format!("bring the workers to {plane_version} first", plane_version = plane.spec.version)));
        }
    }
    Ok(())
}

/// Whether machines of the control plane are not of its stored specification, or it was not looked at yet.
pub fn is_rolling(plane: &TalosControlPlane) -> bool {
    let Some(status) = &plane.status else { return true };
    let outdated = conditions::get_legacy(&status.conditions, "MachinesSpecUpToDate");
    status.observed_generation < plane.metadata.generation
        || status.version.as_ref().is_some_and(|version| *version != plane.spec.version)
        || outdated.is_some_and(|told| told.status != conditions::Status::True)
}

/// The same of workers.
pub fn is_worker_rolling(deployment: &MachineDeployment) -> bool {
    let Some(status) = &deployment.status else { return true };
    let is_outdated = status.up_to_date_replicas.unwrap_or(0) < status.replicas.unwrap_or(0);
    status.observed_generation < deployment.metadata.generation || conditions::is_true(&status.conditions, "RollingOut") || is_outdated
}

/// Copies of templates with what changes.
struct Copies<'a> {
    observed: &'a Observed,
    made: Vec<Value>,
}

impl Copies<'_> {
    /// The name of a template like that of `kind` called `name`, but with `value` at `at`. It is made when there is none.
    fn of(&mut self, kind: &str, name: &str, at: &str, value: &str) -> Result<String, Problem> {
        let known = if kind == "VSphereMachineTemplate" { &self.observed.machine_templates } else { &self.observed.config_templates };
        let Some(original) = known.iter().find(|template| text(template, "/metadata/name") == name) else {
            return Err(refused(format!("{kind} {name} does not exist"))
                .because("the new template is a copy of it with what changes")
                .remedy("make it, or have the machines made from one that exists, first"));
        };
        let mut spec = original.get("spec").cloned().unwrap_or_default();
        if let Some(field) = spec.pointer_mut(at) {
            if field.as_str() == Some(value) {
                return Ok(name.to_owned());
            }
            *field = Value::from(value);
        } else {
            return Err(refused(format!("{kind} {name} has no spec{}", at.replace('/', "."))).remedy("correct the template"));
        }
        let base = original.pointer("/metadata/annotations").and_then(|known| known.get(COPIED_FROM)?.as_str()).unwrap_or(name);
        let is_going = |template: &Value| !text(template, "/metadata/deletionTimestamp").is_empty();
        let is_copy = |template: &Value| {
            let from = template.pointer("/metadata/annotations").and_then(|known| known.get(COPIED_FROM)?.as_str());
            from.unwrap_or(text(template, "/metadata/name")) == base
        };
        let is_such = |template: &&Value| is_copy(template) && !is_going(template) && template.get("spec") == Some(&spec);
        let ours = || self.made.iter().filter(|made| text(made, "/kind") == kind);
        if let Some(found) = known.iter().chain(ours()).find(is_such) {
            return Ok(text(found, "/metadata/name").to_owned());
        }
        let taken: BTreeSet<&str> = known.iter().chain(ours()).map(|template| text(template, "/metadata/name")).collect();
        let plain = format!("{base}-{}", slug(value));
        let free = std::iter::once(plain.clone())
            .chain((2..).map(|number| format!("{plain}-{number}")))
            .find(|name| !taken.contains(name.as_str()));
        let copy = free.unwrap_or(plain);
        let cluster = &self.observed.cluster;
        let made = json!({
            "apiVersion": text(original, "/apiVersion"), "kind": kind,
            "metadata": {
                "name": copy, "namespace": text(original, "/metadata/namespace"),
                "labels": original.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({})),
                "annotations": {COPIED_FROM: base},
                "ownerReferences": [owner_of(cluster)],
            },
            "spec": spec,
        });
        self.made.push(made);
        Ok(copy)
    }

    /// The VM template's name in a copy.
    fn of_machine(&mut self, name: &str, template: Option<&str>) -> Result<String, Problem> {
        template
            .map_or_else(|| Ok(name.to_owned()), |template| self.of("VSphereMachineTemplate", name, "/template/spec/template", template))
    }
}

/// What of a name in vCenter can stand in the name of an object.
fn slug(text: &str) -> String {
    let last = text.rsplit('/').next().unwrap_or_default().to_lowercase();
    let plain: String = last.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    let words: Vec<&str> = plain.split('-').filter(|word| !word.is_empty()).collect();
    if words.is_empty() { "copy".to_owned() } else { words.join("-") }
}

/// A patch that holds only while nobody changes the object's specification.
fn guarded(generation: Option<i64>, changes: Vec<(&str, String)>) -> Option<Value> {
    let changes: Vec<Value> = changes.into_iter().map(|(path, value)| json!({"op": "replace", "path": path, "value": value})).collect();
    if changes.is_empty() {
        return None;
    }
    let guard = json!({"op": "test", "path": "/metadata/generation", "value": generation});
    Some(Value::Array(std::iter::once(guard).chain(changes).collect()))
}

/// The contract that takes the place of `present`; none where it stays. One that is not named is the newest and stays so.
fn contract(present: Option<&str>, wanted: &Wanted) -> Option<String> {
    let talos = wanted.talos?;
    let present = present.filter(|present| !present.is_empty())?;
    (present.parse::<Contract>() != Ok(talos)).then(|| talos.to_string())
}

fn control_plane(observed: &Observed, wanted: &Wanted, copies: &mut Copies<'_>) -> Result<(Target, Option<Value>), Problem> {
    let plane = &observed.control_plane;
    let present = plane.spec.infrastructure_template.name.clone().unwrap_or_default();
    let template = copies.of_machine(&present, wanted.template.as_deref())?;
    let version = wanted.kubernetes.as_ref().map_or_else(|| plane.spec.version.clone(), ToString::to_string);
    let config = contract(plane.spec.control_plane_config.controlplane.talos_version.as_deref(), wanted);
    let mut changes = Vec::new();
    if version != plane.spec.version {
        changes.push(("/spec/version", version.clone()));
    }
    if template != present {
        changes.push(("/spec/infrastructureTemplate/name", template.clone()));
    }
    if let Some(config) = &config {
        changes.push(("/spec/controlPlaneConfig/controlplane/talosVersion", config.clone()));
    }
    let patch = guarded(plane.metadata.generation, changes);
    Ok((Target { version: Some(version), template, config }, patch))
}

fn workers(deployment: &MachineDeployment, wanted: &Wanted, copies: &mut Copies<'_>) -> Result<(Target, Option<Value>), Problem> {
    let spec = &deployment.spec.template.spec;
    let template = copies.of_machine(&spec.infrastructure_ref.name, wanted.template.as_deref())?;
    let present = spec.version.as_deref();
    let version = wanted.kubernetes.as_ref().map(ToString::to_string).or_else(|| present.map(str::to_owned));
    let mut changes = Vec::new();
    if let (Some(version), Some(present)) = (&version, present)
        && version.trim_start_matches('v') != present.trim_start_matches('v')
    {
        changes.push(("/spec/template/spec/version", version.clone()));
    }
    if template != spec.infrastructure_ref.name {
        changes.push(("/spec/template/spec/infrastructureRef/name", template.clone()));
    }
    let mut config = None;
    if let Some(reference) = spec.bootstrap.config_ref.as_ref().filter(|reference| reference.kind == "TalosConfigTemplate") {
        let template = copies.observed.config_templates.iter().find(|template| text(template, "/metadata/name") == reference.name);
        let present = template.map(|template| text(template, "/spec/template/spec/talosVersion").to_owned());
        if let Some(contract) = contract(present.as_deref(), wanted) {
            let copy = copies.of("TalosConfigTemplate", &reference.name, "/template/spec/talosVersion", &contract)?;
            changes.push(("/spec/template/spec/bootstrap/configRef/name", copy));
            config = Some(contract);
        }
    }
    Ok((Target { version, template, config }, guarded(deployment.metadata.generation, changes)))
}

fn endpoint(observed: &Observed) -> Option<&str> {
    controllers::controlplane::endpoint_host(&observed.cluster)
}

/// Why a machine is replaced; none when it stays.
fn reason(observed: &Observed, machine: &Machine, target: &Target) -> Option<String> {
    let mut why = observed.inventory.differences(machine, target.version.as_deref(), &target.template);
    match &target.config {
        Some(contract) => {
            let present = observed.inventory.config(machine).and_then(|config| config.talos_version.as_deref());
            if present != Some(contract) {
                why.push(format!("Configuration for Talos {}, {contract} required", present.unwrap_or("none")));
            }
        }
        None if is_control_plane(machine) && observed.inventory.has_other_config(machine, &observed.control_plane) => {
            why.push("Configuration as it is stored now required".to_owned());
        }
        None => {}
    }
    if why.is_empty() {
        let told = machine.status.as_ref().and_then(|status| conditions::get(&status.conditions, "UpToDate"));
        let told = told.filter(|told| told.status == conditions::Status::False);
        why.extend(told.map(|told| told.message.lines().map(|line| line.trim_start_matches("* ")).collect::<Vec<_>>().join("; ")));
    }
    if why.is_empty() {
        return None;
    }
    why.extend(unwell(machine).map(|unwell| format!("not healthy: {unwell}")));
    Some(why.join("; "))
}

fn preview(observed: &Observed, plane: &Target, workers: &[(&MachineDeployment, Target)], templates: &[&Value]) -> Preview {
    let inventory = &observed.inventory;
    let mut preview = Preview { blocks: observed.waiting.clone(), ..Preview::default() };
    let going = |machine: &Arc<Machine>, target: &Target| Some(inventory.going(machine, reason(observed, machine, target)?));
    let uid = observed.control_plane.metadata.uid.as_deref().unwrap_or_default();
    let ordered = control_planes_in_order(inventory.controlled_by(uid), endpoint(observed));
    preview.machines.extend(ordered.iter().filter_map(|machine| going(machine, plane)));
    let control_planes = preview.machines.len();
    if control_planes > 0 {
        preview.how.push(LEADER_LAST.to_owned());
        control_plane_needs(observed, plane, templates, &mut preview);
    }
    for (deployment, target) in workers {
        let mut sets = inventory.sets_of(deployment.metadata.uid.as_deref().unwrap_or_default());
        sets.sort_by_key(|set| revision(set));
        let machines: Vec<Going> =
            sets.iter().flat_map(|set| inventory.of_set(set)).filter_map(|machine| going(&machine, target)).collect();
        if machines.is_empty() {
            continue;
        }
        let shown = format!("MachineDeployment {}", name(&deployment.metadata));
        let family = Family::of((*deployment).clone(), Vec::new(), Vec::new());
        preview.how.push(format!("{shown}: {}", family.way()));
        worker_needs(observed, deployment, target, templates, &mut preview);
        preview.machines.extend(machines);
    }
    let all = preview.machines.len();
    if control_planes > 0 && all > control_planes {
        preview.how.push("workers are changed when the last control plane is".to_owned());
    }
    if all > 0 {
        preview.how.push("each Node is drained first; disruption budgets are respected until its Machine's limit".to_owned());
    }
    preview.summary = format!(
        "Cluster {}: {} and {} would be replaced",
        name(&observed.cluster.metadata),
        counted(control_planes, "control plane Machine"),
        counted(all - control_planes, "worker Machine")
    );
    preview.warnings = kubelet_warnings(observed);
    preview
}

/// One VM of a template, in words, and the pools it takes an address from.
fn demand(template: Option<&&Value>) -> (String, Vec<(String, String)>) {
    let Some(spec) = template.and_then(|template| template.pointer("/spec/template/spec")) else { return (String::new(), Vec::new()) };
    let sizes = [("numCPUs", "CPUs"), ("memoryMiB", "MiB of memory"), ("diskGiB", "GiB of disk")];
    let sizes = sizes.iter().filter_map(|(field, unit)| Some(format!("{} {unit}", spec.get(*field)?.as_i64()?)));
    let devices = spec.pointer("/network/devices").and_then(Value::as_array);
    let pools = devices.into_iter().flatten().filter_map(|device| device.get("addressesFromPools")?.as_array()).flatten();
    (sizes.collect::<Vec<_>>().join(", "), pools.map(|pool| (text(pool, "/kind").to_owned(), text(pool, "/name").to_owned())).collect())
}

fn control_plane_needs(observed: &Observed, target: &Target, templates: &[&Value], preview: &mut Preview) {
    let plane = &observed.control_plane;
    let update = plane.spec.rollout_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let wanted = plane.spec.replicas.unwrap_or(1);
    let surge = update.and_then(|update| update.max_surge.as_ref()).and_then(|surge| surge.of(wanted, true)).unwrap_or(1);
    let shown = format!("TalosControlPlane {}", name(&plane.metadata));
    let strategy = plane.spec.rollout_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    if strategy == Some("OnDelete") {
        preview.blocks.push(format!("{shown}: strategy OnDelete: each machine is replaced when somebody deletes it"));
        return;
    }
    if surge < 1 {
        preview.needs.push(format!("{shown}: nothing beside what it has: each machine goes before another comes (maxSurge 0)"));
        return;
    }
    let (sizes, pools) = demand(templates.iter().find(|template| text(template, "/metadata/name") == target.template));
    preview.needs.push(format!("{shown}: room for one more VM{}", if sizes.is_empty() { String::new() } else { format!(" ({sizes})") }));
    for (kind, pool) in pools {
        match observed.free.get(&(kind.clone(), pool.clone())) {
            Some(free) if *free < 1 => {
                preview.needs.push(format!("{shown}: no spare address in {kind} {pool}: each machine goes before another comes"));
            }
            Some(free) => preview.needs.push(format!("{shown}: 1 spare address of {kind} {pool}, which has {free} free")),
            None => preview.needs.push(format!("{shown}: 1 spare address of {kind} {pool}")),
        }
    }
}

fn worker_needs(observed: &Observed, deployment: &MachineDeployment, target: &Target, templates: &[&Value], preview: &mut Preview) {
    let surge = most_replicas(deployment) - deployment.spec.replicas.unwrap_or(1);
    let shown = format!("MachineDeployment {}", name(&deployment.metadata));
    let (sizes, pools) = demand(templates.iter().find(|template| text(template, "/metadata/name") == target.template));
    if surge < 1 {
        preview.needs.push(format!("{shown}: nothing beside what it has: machines go before others come"));
        return;
    }
    let each = if sizes.is_empty() { String::new() } else { format!(" ({sizes} each)") };
    preview.needs.push(format!("{shown}: room for {} more{each}", counted(usize::try_from(surge).unwrap_or_default(), "VM")));
    for (kind, pool) in pools {
        let free = observed.free.get(&(kind.clone(), pool.clone())).copied();
        let has = free.map(|free| format!(", which has {free} free")).unwrap_or_default();
        preview.needs.push(format!(
            "{shown}: {} of {kind} {pool}{has}",
            if surge == 1 { "1 spare address".to_owned() } else { format!("{surge} spare addresses") }
        ));
        if free == Some(0) && most_unavailable(deployment) == 0 {
            preview
                .blocks
                .push(format!("{shown}: {kind} {pool} has no free address, and no machine may go before another comes (maxUnavailable 0)"));
        }
    }
}

/// Where a user's patch replaces the kubelet's section, Talos's own kubelet version counts, not the one that is asked for.
fn kubelet_warnings(observed: &Observed) -> Vec<String> {
    let replaces = |patch: &ConfigPatch| {
        matches!(patch.op.as_str(), "add" | "replace") && matches!(patch.path.as_str(), "/machine/kubelet" | "/machine/kubelet/image")
    };
    let mut places = Vec::new();
    if let Some(patch) = observed.control_plane.spec.control_plane_config.controlplane.config_patches.iter().find(|patch| replaces(patch)) {
        places.push((format!("TalosControlPlane {}", name(&observed.control_plane.metadata)), patch.path.clone()));
    }
    for deployment in &observed.deployments {
        let Some(reference) = &deployment.spec.template.spec.bootstrap.config_ref else { continue };
        let template = observed.config_templates.iter().find(|template| text(template, "/metadata/name") == reference.name);
        let patches = template.and_then(|template| template.pointer("/spec/template/spec/configPatches"));
        let patches: Vec<ConfigPatch> = patches.and_then(|patches| serde_json::from_value(patches.clone()).ok()).unwrap_or_default();
        if let Some(patch) = patches.iter().find(|patch| replaces(patch)) {
            places.push((format!("TalosConfigTemplate {}", reference.name), patch.path.clone()));
        }
    }
    let told = places.into_iter().map(|(place, path)| {
        format!(
            "a patch of {place} replaces {path}: the kubelet's version follows the Talos release or the patch, not the version asked for; done and \
             skew are told by the version in the Machines' specification"
        )
    });
    told.collect()
}
