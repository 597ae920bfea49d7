//! `rollout` of a TalosControlPlane: how far it is, stop, continue. It keeps no revisions, so that nothing can be taken back by number.
//!
//! Paused is the whole object, as Cluster API has it: with the annotation `cluster.x-k8s.io/paused` nobody touches it, so that neither a
//! machine that is going nor an unhealthy one is cared for meanwhile; that is said.

use api::cluster::Machine;
use api::conditions;
use api::controlplane::TalosControlPlane;
use api::names::annotations;
use controllers::edit::is_deleting;
use http::Method;
use serde_json::{Value, json};

use crate::apply::{Api, Resource, unreachable};
use crate::cli::{Output, RolloutCommand, RolloutTarget};
use crate::commands::duration;
use crate::commands::preview::{Inventory, LEADER_LAST, Preview, control_planes_in_order, counted, read};
use crate::follow::{Step, until};
use crate::host::session::Session;
use crate::names::within;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::tree::{kinds, tree};

/// What the rollout of a control plane waits for; none when it is done.
pub fn waiting(plane: &TalosControlPlane) -> Option<String> {
    let name = plane.metadata.name.as_deref().unwrap_or_default();
    let status = plane.status.clone().unwrap_or_default();
    if status.observed_generation < plane.metadata.generation {
        return Some(format!("the change of TalosControlPlane {name} is not looked at yet"));
    }
    for type_ in ["MachinesSpecUpToDate", "Resized"] {
        match conditions::get_legacy(&status.conditions, type_) {
            Some(told) if told.status == conditions::Status::True => {}
            Some(told) => return Some(format!("TalosControlPlane {name}: {}", told.message.as_deref().unwrap_or_default())),
            None => return Some(format!("TalosControlPlane {name} does not say {type_} yet")),
        }
    }
    let wanted = plane.spec.replicas.unwrap_or(1);
    let [present, ready] = [status.replicas, status.ready_replicas].map(|count| count.unwrap_or(0));
    if (present, ready) != (wanted, wanted) {
        return Some(format!("{ready} of {wanted} control planes are ready, {present} are there"));
    }
    let version = status.version.as_deref().unwrap_or_default();
    (version != plane.spec.version).then(|| format!("the control plane runs {version}, {} is wanted", plane.spec.version))
}

/// Whether nobody is to touch it.
pub fn is_paused(plane: &TalosControlPlane) -> bool {
    controllers::edit::is_paused(None, &plane.metadata)
}

/// Why a rollout stands still until a person does something: it is paused, blocked, or left to them.
pub fn standstill(plane: &TalosControlPlane, namespace: &str) -> Option<Problem> {
    let name = plane.metadata.name.as_deref().unwrap_or_default();
    let stands = Problem::new(Code::NotRolledOut, format!("the rollout of TalosControlPlane {name} stands still"));
    let stands = stands.seen_all(waiting(plane));
    if is_paused(plane) {
        return Some(stands.because("it is paused").remedy(format!("talosphere rollout resume {}", asked(name, namespace))));
    }
    let status = plane.status.as_ref()?;
    let told =
        conditions::get_legacy(&status.conditions, "MachinesSpecUpToDate").filter(|told| told.status == conditions::Status::False)?;
    let is_stored = status.observed_generation >= plane.metadata.generation;
    if told.reason.as_deref() == Some("RollingUpdateBlocked") && is_stored {
        return Some(stands.because("a machine cannot be replaced").remedy("do what the line that was seen says"));
    }
    let strategy = plane.spec.rollout_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    (strategy == Some("OnDelete") && is_stored).then(|| {
        stands
            .because("its machines are replaced when somebody deletes them (strategy OnDelete)")
            .remedy("delete the machines, one at a time, with `talosphere delete machine NAME`")
    })
}

/// As the user would type it.
pub fn asked(name: &str, namespace: &str) -> String {
    format!("taloscontrolplane/{name}{}", within(namespace))
}

/// Stops, or continues, everything of a control plane.
///
/// # Errors
/// When the API refuses.
pub async fn set_paused(api: &Api, namespace: &str, name: &str, is_paused: bool) -> Result<(), Problem> {
    let value = if is_paused { json!("true") } else { Value::Null };
    let patch = json!({"metadata": {"annotations": {annotations::PAUSED: value}}});
    api.send(Method::PATCH, &path(namespace, name), Some("application/merge-patch+json"), Some(&patch))
        .await
        .map_err(|error| unreachable(&error))?;
    Ok(())
}

fn path(namespace: &str, name: &str) -> String {
    format!("/apis/controlplane.cluster.x-k8s.io/v1alpha3/namespaces/{namespace}/taloscontrolplanes/{name}")
}

async fn look(target: &RolloutTarget, api: &Api) -> Result<TalosControlPlane, Problem> {
    let (_, name) = target.parts()?;
    let namespace = &target.namespace.namespace;
    let object = api.get(&path(namespace, name)).await.map_err(|error| unreachable(&error))?;
    let plane: TalosControlPlane = read(object.ok_or_else(|| {
        Problem::new(Code::NotFound, format!("there is no TalosControlPlane {name} in the namespace {namespace}"))
            .remedy("`talosphere get taloscontrolplanes -A` lists them; -n names the namespace")
    })?)?;
    if is_deleting(&plane.metadata) {
        return Err(Problem::new(Code::BeingDeleted, format!("TalosControlPlane {name} is being deleted")));
    }
    Ok(plane)
}

/// Carries a subcommand out.
///
/// # Errors
/// When there is no such control plane, it is in no state for this, or the API refuses.
pub async fn carry_out(command: &RolloutCommand, resource: &Resource, session: &mut Session, seams: &Seams) -> Result<(), Problem> {
    let target = command.target();
    let namespace = target.namespace.namespace.clone();
    let name = target.parts()?.1.to_owned();
    let shown = resource.display(&name);
    let refused = |what: &str, instead: &str| {
        Problem::new(Code::RolloutRefused, format!("{shown} {what}"))
            .remedy(format!("talosphere rollout {instead} {}", asked(&name, &namespace)))
    };
    match command {
        RolloutCommand::Status(args) => {
            let timeout = duration("--timeout", &args.timeout)?;
            let mut plane = look(target, &session.api).await?;
            if args.watch {
                follow(&name, &namespace, cluster_of(&plane).as_str(), plane.metadata.generation, timeout, session, seams).await?;
                plane = look(target, &session.api).await?;
            }
            match args.output.output {
                Output::Json | Output::Yaml => seams.printer.value(&progress(&plane), args.output.output == Output::Json)?,
                Output::Name => seams.printer.data(&shown),
                Output::Table | Output::Wide => {
                    let paused = if is_paused(&plane) { " (paused)" } else { "" };
                    seams.printer.data(&match waiting(&plane) {
                        None => format!("{shown} is rolled out{paused}"),
                        Some(waiting) => format!("{shown} is not rolled out{paused}: {waiting}"),
                    });
                }
            }
            Ok(())
        }
        RolloutCommand::Pause(args) => {
            let plane = look(target, &session.api).await?;
            if is_paused(&plane) {
                return Err(refused("is paused already", "resume").seen("it has the annotation cluster.x-k8s.io/paused"));
            }
            if args.dry_run {
                return list(&plane, &namespace, "would not be replaced while it is paused", args.output.output, session, seams).await;
            }
            set_paused(&session.api, &namespace, &name, true).await?;
            seams.printer.line(format!(
                "{shown} paused: nothing of it is changed any more, neither replaced nor healed, and a machine that is being deleted stays until it is resumed"
            ));
            Ok(())
        }
        RolloutCommand::Resume(args) => {
            let plane = look(target, &session.api).await?;
            if !is_paused(&plane) {
                return Err(refused("is not paused", "status").seen("it has no annotation cluster.x-k8s.io/paused"));
            }
            if args.dry_run {
                return list(&plane, &namespace, "would be replaced", args.output.output, session, seams).await;
            }
            set_paused(&session.api, &namespace, &name, false).await?;
            seams.printer.line(format!("{shown} resumed"));
            seams.printer.line(format!("`talosphere rollout status {}` follows it", asked(&name, &namespace)));
            Ok(())
        }
        RolloutCommand::Restart(_) | RolloutCommand::Undo(_) | RolloutCommand::History(_) => {
            Err(Problem::new(Code::BadFlag, format!("{shown} keeps no revisions: it has status, pause and resume only"))
                .remedy("change a control plane with `talosphere upgrade`; revisions are kept of machinedeployment/NAME"))
        }
    }
}

/// The Cluster that a control plane belongs to.
fn cluster_of(plane: &TalosControlPlane) -> String {
    let owner = plane.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "Cluster");
    owner.map(|owner| owner.name.clone()).unwrap_or_default()
}

/// How far it is, as one object.
fn progress(plane: &TalosControlPlane) -> Value {
    let status = plane.status.clone().unwrap_or_default();
    let waiting = waiting(plane);
    json!({
        "name": plane.metadata.name, "namespace": plane.metadata.namespace, "version": plane.spec.version, "runningVersion": status.version,
        "replicas": plane.spec.replicas.unwrap_or(1), "readyReplicas": status.ready_replicas.unwrap_or(0),
        "presentReplicas": status.replicas.unwrap_or(0), "isPaused": is_paused(plane), "isComplete": waiting.is_none(), "waitingFor": waiting,
    })
}

/// Lists the machines that are not of the stored specification.
async fn list(
    plane: &TalosControlPlane,
    namespace: &str,
    what: &str,
    output: Output,
    session: &Session,
    seams: &Seams,
) -> Result<(), Problem> {
    let inventory = Inventory::read(&session.api, namespace).await?;
    let template = plane.spec.infrastructure_template.name.as_deref().unwrap_or_default();
    let told = |machine: &Machine| {
        let mut why = inventory.differences(machine, Some(&plane.spec.version), template);
        if inventory.has_other_config(machine, plane) {
            why.push("Configuration as it is stored now required".to_owned());
        }
        (!why.is_empty()).then(|| why.join("; "))
    };
    let ours = control_planes_in_order(inventory.controlled_by(plane.metadata.uid.as_deref().unwrap_or_default()), None);
    let machines: Vec<_> = ours.iter().filter_map(|machine| Some(inventory.going(machine, told(machine)?))).collect();
    let how = if machines.is_empty() { Vec::new() } else { vec![LEADER_LAST.to_owned()] };
    Preview { summary: format!("{} {what}", counted(machines.len(), "Machine")), machines, how, ..Preview::default() }.print(output, seams)
}

/// Follows a rollout to its end.
///
/// # Errors
/// When it stands still, the control plane goes, or the time is over.
pub async fn follow(
    name: &str,
    namespace: &str,
    cluster: &str,
    generation: Option<i64>,
    timeout: std::time::Duration,
    session: &mut Session,
    seams: &Seams,
) -> Result<(), Problem> {
    until(session, seams, namespace, &kinds(), timeout, |objects| {
        let tree = tree(objects, cluster);
        let gone = || Problem::new(Code::BeingDeleted, format!("TalosControlPlane {name} was deleted meanwhile"));
        let Some(object) = objects.get("TalosControlPlane", name) else { return Step::Fail(gone()) };
        let plane: TalosControlPlane = match read(object.clone()) {
            Ok(plane) => plane,
            Err(problem) => return Step::Fail(problem),
        };
        if is_deleting(&plane.metadata) {
            return Step::Fail(gone());
        }
        // What is shown may be older than the change that is followed.
        if plane.metadata.generation < generation {
            return Step::Wait { tree, waiting: vec![format!("the change of TalosControlPlane {name} to be seen")] };
        }
        let Some(waiting) = waiting(&plane) else { return Step::Done { tree, value: () } };
        match standstill(&plane, namespace) {
            Some(problem) => Step::Fail(problem),
            None => Step::Wait { tree, waiting: vec![waiting] },
        }
    })
    .await
}
