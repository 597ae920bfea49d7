//! `upgrade`: another version of Kubernetes or Talos for a cluster, by replacing its machines: what a person would do by hand, in the right
//! order, and waited for. Control planes come first; the workers' objects are changed when the last control plane is done, so that nothing of
//! them goes before, whatever their surge is. (The MachineSets' own check, that they are not newer than the control plane, holds beside it.)
//!
//! Killed or interrupted anywhere, the same command continues: what is stored is compared with what is asked for, and only the rest is done.

pub mod plan;
#[cfg(test)]
mod tests;
pub mod version;

use std::time::Duration;

use api::cluster::{Cluster, MachineDeployment};
use api::controlplane::TalosControlPlane;
use apimachinery::meta::text_at as text;
use controllers::machinedeployment::plan::is_rollout_paused;
use http::Method;
use serde_json::{Value, json};

use self::plan::{Observed, Upgrade, Wanted, decide, is_rolling, is_worker_rolling};
use self::version::Version;
use super::preview::{Inventory, list, read};
use super::rollout::control_plane::{asked, follow, is_paused, set_paused};
use super::{clusters, duration, preflight};
use crate::apply::{Api, unreachable};
use crate::cli::{self, Output};
use crate::follow::{Goal, until};
use crate::host::session::Session;
use crate::names::within;
use crate::problem::{Code, Problem};
use crate::render::Manifest;
use crate::seams::Seams;
use crate::signal::interrupted;
use crate::state::StateDirectory;
use crate::tree::{KINDS, Objects, kinds, verdict};

/// What was asked for, read from the command line.
///
/// # Errors
/// When a version is none.
pub fn wanted(args: &cli::Upgrade) -> Result<Wanted, Problem> {
    let kubernetes = args.kubernetes.as_deref().map(|given| {
        Version::read(given).ok_or_else(|| {
            Problem::new(Code::BadFlag, format!("--kubernetes {given} is not a version")).remedy("write the whole version, such as v1.33.0")
        })
    });
    let talos = args.talos.as_deref().map(|given| {
        let version = given.trim();
        let is_given = !version.is_empty();
        let read = version.parse().map_err(|error: talos::contract::ContractError| error.to_string());
        read.and_then(|contract| if is_given { Ok(contract) } else { Err("it is empty".to_owned()) }).map_err(|why| {
            Problem::new(Code::BadFlag, format!("--talos {given} cannot be used")).because(why).remedy("write the release, such as v1.10")
        })
    });
    let template = args.template.clone();
    if template.as_deref().is_some_and(|template| template.trim().is_empty()) {
        return Err(Problem::new(Code::BadFlag, "--template is empty").remedy("name the VM template in vCenter"));
    }
    Ok(Wanted { kubernetes: kubernetes.transpose()?, talos: talos.transpose()?, template })
}

/// Runs the command.
///
/// # Errors
/// With what speaks against it, or what stands in the way.
pub async fn run(args: &cli::Upgrade, directory: &StateDirectory, seams: &Seams) -> Result<(), Problem> {
    let timeout = duration("--timeout", &args.timeout)?;
    let wanted = wanted(args)?;
    if args.dry_run || !(args.yes || args.abort) {
        let session = Session::reading(directory, "upgrade", seams).await?;
        let seen = look(args, &wanted, &session.api, seams).await;
        session.close(seams).await;
        let (_, upgrade) = seen?;
        if args.dry_run {
            return upgrade.preview.print(args.output.output, seams);
        }
        let going = upgrade.preview.machines.len();
        let question =
            format!("Upgrade cluster {} in the namespace {}, replacing {going} machines?", args.cluster, args.namespace.namespace);
        if going > 0 && !seams.printer.confirm(&question)? {
            return Err(Problem::new(Code::Unconfirmed, format!("Cluster {} was not upgraded", args.cluster)));
        }
    }
    let mut session = Session::existing(directory, "upgrade", seams).await?;
    let failed = session.failed();
    let outcome = tokio::select! {
        outcome = carry_out(args, &wanted, timeout, &mut session, seams) => outcome,
        problem = failed => Err(problem),
        () = interrupted() => Err(Problem::new(Code::Interrupted, "interrupted; what is stored is rolled out while controllers run").remedy("run the same command again to continue, or `talosphere upgrade CLUSTER --abort` to stop it")),
    };
    session.close(seams).await;
    outcome
}

/// Lists what an upgrade would do.
///
/// # Errors
/// As [`run`].
pub async fn preview(args: &cli::Upgrade, output: Output, api: &Api, seams: &Seams) -> Result<(), Problem> {
    look(args, &wanted(args)?, api, seams).await?.1.preview.print(output, seams)
}

/// Carries an upgrade out, or stops one.
///
/// # Errors
/// As [`run`].
pub async fn carry_out(
    args: &cli::Upgrade,
    wanted: &Wanted,
    timeout: Duration,
    session: &mut Session,
    seams: &Seams,
) -> Result<(), Problem> {
    let namespace = args.namespace.namespace.as_str();
    if args.abort {
        return abort(args, &session.api, seams).await;
    }
    let limit = seams.clock.instant() + timeout;
    let (observed, upgrade) = look(args, wanted, &session.api, seams).await?;
    upgrade.preview.warnings.iter().for_each(|warning| seams.printer.line(format!("warning: {warning}")));
    seams.printer.line(upgrade.preview.summary.replace("would be", "are"));
    for template in &upgrade.templates {
        make(&session.api, namespace, template, seams).await?;
    }
    let plane = observed.control_plane.metadata.name.clone().unwrap_or_default();
    let mut generation = observed.control_plane.metadata.generation;
    if let Some(patch) = &upgrade.control_plane {
        generation =
            change(&session.api, &path("controlplane.cluster.x-k8s.io/v1alpha3", namespace, "taloscontrolplanes", &plane), patch, &plane)
                .await?;
        seams.printer.line(format!("TalosControlPlane {plane} changed: its machines are replaced one at a time"));
    }
    let left = || limit.saturating_duration_since(seams.clock.instant());
    follow(&plane, namespace, &args.cluster, generation, left(), session, seams).await?;
    let (_, upgrade) = look(args, wanted, &session.api, seams).await?;
    for (name, patch) in &upgrade.workers {
        change(&session.api, &path("cluster.x-k8s.io/v1beta2", namespace, "machinedeployments", name), patch, name).await?;
        seams.printer.line(format!("MachineDeployment {name} changed: its machines are replaced"));
    }
    let mut goal = Goal::ready(&args.cluster);
    until(session, seams, namespace, &kinds(), left(), |objects| goal.step(objects)).await?;
    let to = wanted.kubernetes.as_ref().map(|version| format!(" to Kubernetes {version}")).unwrap_or_default();
    let from = wanted.template.as_ref().map(|template| format!(", every machine made from {template}")).unwrap_or_default();
    seams.printer.line(format!("Cluster {} is upgraded{to}{from}", args.cluster));
    Ok(())
}

/// Looks at the cluster and decides; every VM template that is new is looked for in vCenter.
async fn look(args: &cli::Upgrade, wanted: &Wanted, api: &Api, seams: &Seams) -> Result<(Observed, Upgrade), Problem> {
    let namespace = args.namespace.namespace.as_str();
    let (observed, cluster, infrastructure) = observe(api, namespace, &args.cluster).await?;
    let upgrade = decide(&observed, wanted)?;
    if upgrade.templates.iter().any(|template| text(template, "/kind") == "VSphereMachineTemplate") {
        let login = preflight::Look::prepare(api, namespace, &cluster).await?.login(api).await?;
        let new = upgrade.templates.iter().cloned().chain(infrastructure);
        let manifests: Vec<Manifest> = new.map(|object| Manifest { object, file: "--template".to_owned(), line: 1 }).collect();
        preflight::check(&manifests, login.as_ref(), seams).await?;
    }
    Ok((observed, upgrade))
}

/// Reads everything that an upgrade is decided on; with it the Cluster and its VSphereCluster as they are.
async fn observe(api: &Api, namespace: &str, name: &str) -> Result<(Observed, Value, Option<Value>), Problem> {
    let mut objects = Objects::default();
    for (group, version, kind, plural) in KINDS {
        for object in list::<Value>(api, &format!("/apis/{group}/{version}/namespaces/{namespace}/{plural}")).await? {
            objects.put(kind, object);
        }
    }
    let Some(cluster) = objects.get("Cluster", name) else {
        return Err(clusters::missing(name, namespace));
    };
    let plane = objects.get("TalosControlPlane", text(cluster, "/spec/controlPlaneRef/name"));
    let plane = plane.filter(|_| text(cluster, "/spec/controlPlaneRef/kind") == "TalosControlPlane").ok_or_else(|| {
        Problem::new(Code::NotFound, format!("Cluster {name} has no TalosControlPlane"))
            .remedy("a cluster of another control plane provider is upgraded with that provider's means")
    })?;
    let ours = objects.of_kind("MachineDeployment").filter(|deployment| text(deployment, "/spec/clusterName") == name);
    let deployments = ours.map(|deployment| read(deployment.clone())).collect::<Result<Vec<MachineDeployment>, _>>()?;
    let infrastructure = format!("/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/{namespace}/vspheremachinetemplates");
    let configs = format!("/apis/bootstrap.cluster.x-k8s.io/v1beta1/namespaces/{namespace}/talosconfigtemplates");
    let ipam = "/apis/ipam.cluster.x-k8s.io/v1alpha2";
    let mut pools: Vec<Value> = list(api, &format!("{ipam}/namespaces/{namespace}/inclusterippools")).await?;
    pools.iter_mut().for_each(|pool| set_kind(pool, "InClusterIPPool"));
    let mut global: Vec<Value> = list(api, &format!("{ipam}/globalinclusterippools")).await?;
    global.iter_mut().for_each(|pool| set_kind(pool, "GlobalInClusterIPPool"));
    let free = pools.iter().chain(&global).filter_map(|pool| {
        let free = pool.pointer("/status/ipAddresses/free")?.as_i64()?;
        Some(((text(pool, "/kind").to_owned(), text(pool, "/metadata/name").to_owned()), free))
    });
    let observed = Observed {
        cluster: read::<Cluster>(cluster.clone())?,
        control_plane: read::<TalosControlPlane>(plane.clone())?,
        deployments,
        inventory: Inventory::read(api, namespace).await?,
        machine_templates: of_kind(list(api, &infrastructure).await?, "VSphereMachineTemplate", "infrastructure.cluster.x-k8s.io/v1beta2"),
        config_templates: of_kind(list(api, &configs).await?, "TalosConfigTemplate", "bootstrap.cluster.x-k8s.io/v1beta1"),
        free: free.collect(),
        waiting: verdict(&objects, name).waiting,
    };
    let reference = text(cluster, "/spec/infrastructureRef/name");
    let infrastructure = objects.get("VSphereCluster", reference).cloned().map(|mut object| {
        set_kind(&mut object, "VSphereCluster");
        object
    });
    Ok((observed, cluster.clone(), infrastructure))
}

/// Members of a list may lack what the list says of them all.
fn of_kind(mut objects: Vec<Value>, kind: &str, api_version: &str) -> Vec<Value> {
    for object in &mut objects {
        set_kind(object, kind);
        if let Some(fields) = object.as_object_mut() {
            fields.insert("apiVersion".to_owned(), Value::from(api_version));
        }
    }
    objects
}

fn set_kind(object: &mut Value, kind: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("kind".to_owned(), Value::from(kind));
    }
}

fn path(version: &str, namespace: &str, plural: &str, name: &str) -> String {
    format!("/apis/{version}/namespaces/{namespace}/{plural}/{name}")
}

/// Makes a template that is missing. One that somebody made in the same moment is there.
async fn make(api: &Api, namespace: &str, template: &Value, seams: &Seams) -> Result<(), Problem> {
    let plural = if text(template, "/kind") == "VSphereMachineTemplate" { "vspheremachinetemplates" } else { "talosconfigtemplates" };
    let path = format!("/apis/{}/namespaces/{namespace}/{plural}", text(template, "/apiVersion"));
    let shown = format!("{} {}", text(template, "/kind"), text(template, "/metadata/name"));
    match api.send(Method::POST, &path, Some("application/json"), Some(template)).await {
        Ok(_) => seams.printer.line(format!("{shown} made")),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            return Err(Problem::new(Code::UpgradeRefused, format!("{shown} was made by somebody else meanwhile"))
                .remedy("run the same command again: it looks whether that one will do"));
        }
        Err(error) => return Err(unreachable(&error)),
    }
    Ok(())
}

/// Changes an object if nobody else has; its generation then.
async fn change(api: &Api, path: &str, patch: &Value, name: &str) -> Result<Option<i64>, Problem> {
    match api.send(Method::PATCH, path, Some("application/json-patch+json"), Some(patch)).await {
        Ok(object) => Ok(object.pointer("/metadata/generation").and_then(Value::as_i64)),
        Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) => Err(Problem::new(
            Code::UpgradeRefused,
            format!("{name} could not be changed: it was changed by somebody else meanwhile, or the change is invalid"),
        )
        .seen(status.message.clone())
        .remedy("run the same command again: it looks at what is stored now")),
        Err(error) => Err(unreachable(&error)),
    }
}

/// Pauses what is being rolled out.
async fn abort(args: &cli::Upgrade, api: &Api, seams: &Seams) -> Result<(), Problem> {
    let namespace = args.namespace.namespace.as_str();
    let (observed, ..) = observe(api, namespace, &args.cluster).await?;
    let plane = &observed.control_plane;
    let within = within(namespace);
    let mut resume = Vec::new();
    let mut stopped = Vec::new();
    if is_rolling(plane) || is_paused(plane) {
        let name = plane.metadata.name.clone().unwrap_or_default();
        if !is_paused(plane) {
            set_paused(api, namespace, &name, true).await?;
            stopped.push(format!("TalosControlPlane {name} paused"));
        }
        resume.push(format!("talosphere rollout resume {}", asked(&name, namespace)));
    }
    for deployment in observed.deployments.iter().filter(|deployment| is_worker_rolling(deployment) || is_rollout_paused(deployment)) {
        let name = deployment.metadata.name.clone().unwrap_or_default();
        if !is_rollout_paused(deployment) {
            let patch = json!({"spec": {"paused": true}});
            let path = path("cluster.x-k8s.io/v1beta2", namespace, "machinedeployments", &name);
            api.send(Method::PATCH, &path, Some("application/merge-patch+json"), Some(&patch))
                .await
                .map_err(|error| unreachable(&error))?;
            stopped.push(format!("the rollout of MachineDeployment {name} paused"));
        }
        resume.push(format!("talosphere rollout resume machinedeployment/{name}{within}"));
    }
    if resume.is_empty() {
        return Err(Problem::new(Code::UpgradeRefused, format!("no upgrade of Cluster {} is under way", args.cluster))
            .because("every machine is of the specification that is stored")
            .remedy(format!("`talosphere describe cluster {}{within}` shows how it stands", args.cluster)));
    }
    let what = if stopped.is_empty() { "it was stopped already".to_owned() } else { stopped.join("; ") };
    seams.printer.line(format!("the upgrade of Cluster {} stops where it is: {what}", args.cluster));
    seams.printer.line("machines that were replaced stay new, the others stay old; a machine that was coming or going stays half-way");
    seams.printer.line(format!("to go on: {}; then the same upgrade again", resume.join(" && ")));
    seams.printer.line("workers can go back with `talosphere rollout undo` after `resume`; a control plane keeps no revisions and does not go back to a lower version");
    Ok(())
}
