//! `scale`: another number of machines, and the wait until it is so.

use api::cluster::Machine;
use apimachinery::meta::text_at as text;
use controllers::machinedeployment::plan::revision;
use serde_json::{Value, json};

use super::duration;
use super::preview::{Inventory, LEADER_LAST, Preview, control_planes_in_order, counted, unwell};
use crate::apply::{Api, Resource, unreachable};
use crate::cli::Scale;
use crate::follow::{Goal, Step, until};
use crate::host::session::Session;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::signal::interrupted;
use crate::state::StateDirectory;
use crate::tree::kinds;

/// The kinds that have a number of machines.
const SCALED: [&str; 3] = ["TalosControlPlane", "MachineDeployment", "MachineSet"];

/// Runs the command.
///
/// # Errors
/// When there is nothing of this name that scales, or the API refuses.
pub async fn run(args: &Scale, directory: &StateDirectory, seams: &Seams) -> Result<(), Problem> {
    let (timeout, _) = (duration("--timeout", &args.timeout)?, target(args)?);
    if args.dry_run {
        let session = Session::reading(directory, "scale", seams).await?;
        let outcome = preview(args, &session.api, seams).await;
        session.close(seams).await;
        return outcome;
    }
    let mut session = Session::existing(directory, "scale", seams).await?;
    let failed = session.failed();
    let outcome = tokio::select! {
        outcome = carry_out(args, timeout, &mut session, seams) => outcome,
        problem = failed => Err(problem),
        () = interrupted() => Err(Problem::new(Code::Interrupted, "interrupted; the new number is kept").remedy("run the same command again to wait for it")),
    };
    session.close(seams).await;
    outcome
}

/// Kind and name of what is to be scaled.
fn target(args: &Scale) -> Result<(&str, &str), Problem> {
    args.target.split_once('/').filter(|(kind, name)| !kind.is_empty() && !name.is_empty()).ok_or_else(|| {
        Problem::new(Code::BadFlag, format!("{} does not name what to scale", args.target))
            .remedy("talosphere scale machinedeployment/NAME --replicas N")
    })
}

/// What is to be scaled, if it can be scaled so.
async fn look(args: &Scale, kind: &str, name: &str, api: &Api) -> Result<(Resource, Value), Problem> {
    let namespace = &args.namespace.namespace;
    let found = api.resource_called(kind).await.map_err(|error| unreachable(&error))?;
    let resource = found.ok_or_else(|| Problem::new(Code::UnknownKind, format!("no kind is called {kind}")))?;
    let Some(object) = api.get(&resource.path(namespace, Some(name))).await.map_err(|error| unreachable(&error))? else {
        return Err(Problem::new(Code::NotFound, format!("there is no {} {name} in the namespace {namespace}", resource.kind))
            .remedy(format!("`talosphere get {} -A` lists them; -n names the namespace", resource.plural)));
    };
    if !SCALED.contains(&resource.kind.as_str()) {
        return Err(Problem::new(Code::BadFlag, format!("{} {name} has no number of machines of its own", resource.kind)).remedy(
            "scale taloscontrolplane/NAME or machinedeployment/NAME; `talosphere get taloscontrolplanes,machinedeployments -A` lists them",
        ));
    }
    if resource.kind == "TalosControlPlane" && args.replicas == 0 {
        return Err(Problem::new(Code::BadFlag, "a control plane cannot be scaled to 0")
            .remedy("delete the cluster instead: talosphere delete cluster NAME"));
    }
    Ok((resource, object))
}

/// Lists the Machines that would come or go.
///
/// # Errors
/// As [`run`].
pub async fn preview(args: &Scale, api: &Api, seams: &Seams) -> Result<(), Problem> {
    let (kind, name) = args.target.split_once('/').unwrap_or_default();
    let (resource, object) = look(args, kind, name, api).await?;
    let inventory = Inventory::read(api, &args.namespace.namespace).await?;
    let cluster = match text(&object, "/spec/clusterName") {
        "" => {
            object.pointer("/metadata/labels").and_then(|labels| labels.get("cluster.x-k8s.io/cluster-name")?.as_str()).unwrap_or_default()
        }
        cluster => cluster,
    };
    let path = format!("/apis/cluster.x-k8s.io/v1beta2/namespaces/{}/clusters/{cluster}", args.namespace.namespace);
    let cluster = if cluster.is_empty() { None } else { api.get(&path).await.map_err(|error| unreachable(&error))? };
    let endpoint = cluster.as_ref().map(|cluster| text(cluster, "/spec/controlPlaneEndpoint/host")).filter(|host| !host.is_empty());
    listing(args, &resource, &object, &inventory, endpoint).print(args.output.output, seams)
}

/// Which Machines come or go.
fn listing(args: &Scale, resource: &Resource, object: &Value, inventory: &Inventory, endpoint: Option<&str>) -> Preview {
    let (name, uid) = (text(object, "/metadata/name"), text(object, "/metadata/uid"));
    let mut how = Vec::new();
    let mut warnings = Vec::new();
    let present = match resource.kind.as_str() {
        "TalosControlPlane" => {
            how.push(LEADER_LAST.to_owned());
            if args.replicas.is_multiple_of(2) {
                warnings.push(format!("{} control planes tolerate no more failures than {}", args.replicas, args.replicas - 1));
            }
            control_planes_in_order(inventory.controlled_by(uid), endpoint)
        }
        "MachineDeployment" => {
            let mut sets = inventory.sets_of(uid);
            sets.sort_by_key(|set| revision(set));
            let machines: Vec<_> = sets.iter().map(|set| inventory.of_set(set)).collect();
            if machines.iter().filter(|machines| !machines.is_empty()).count() > 1 {
                how.push("a rollout is under way: the number is shared among its sets, which may change the order".to_owned());
            }
            machines.into_iter().flatten().collect()
        }
        _ => {
            inventory.sets.iter().find(|set| set.metadata.uid.as_deref() == Some(uid)).map(|set| inventory.of_set(set)).unwrap_or_default()
        }
    };
    let wanted = usize::try_from(args.replicas).unwrap_or(usize::MAX);
    let why = |machine: &Machine| {
        let surplus = format!("{} of {} are wanted", args.replicas, present.len());
        unwell(machine).map_or_else(|| surplus.clone(), |unwell| format!("{surplus}; {unwell}"))
    };
    let surplus = present.len().saturating_sub(wanted);
    let machines: Vec<_> = present.iter().take(surplus).map(|machine| inventory.going(machine, why(machine))).collect();
    let shown = format!("{} {name}", resource.kind);
    let summary = match wanted.saturating_sub(present.len()) {
        0 if surplus == 0 => format!("{shown} has {} already: none would come or go", counted(wanted, "Machine")),
        0 => format!("{} of {shown} would be deleted", counted(surplus, "Machine")),
        more => {
            let (more, present) = (counted(more, "Machine"), present.len());
            format!("{more} would be made for {shown}, each with a VM: {wanted} wanted, {present} there")
        }
    };
    let how = if machines.is_empty() { Vec::new() } else { how };
    Preview { summary, machines, how, warnings, ..Preview::default() }
}

/// Stores the new number and waits.
///
/// # Errors
/// As [`run`].
pub async fn carry_out(args: &Scale, timeout: std::time::Duration, session: &mut Session, seams: &Seams) -> Result<(), Problem> {
    let (kind, name) = target(args)?;
    let namespace = &args.namespace.namespace;
    let (resource, object) = look(args, kind, name, &session.api).await?;
    let path = resource.path(namespace, Some(name));
    if resource.kind == "TalosControlPlane" && args.replicas.is_multiple_of(2) {
        seams.printer.line(format!("warning: {} control planes tolerate no more failures than {}", args.replicas, args.replicas - 1));
    }
    let patch = json!({"spec": {"replicas": args.replicas}});
    session
        .api
        .send(http::Method::PATCH, &format!("{path}/scale"), Some("application/merge-patch+json"), Some(&patch))
        .await
        .map_err(|error| unreachable(&error))?;
    seams.printer.line(format!("{} scaled to {}", resource.display(name), args.replicas));
    let label = object.pointer("/metadata/labels").and_then(|labels| labels.get("cluster.x-k8s.io/cluster-name"));
    let cluster = object.pointer("/spec/clusterName").or(label).and_then(Value::as_str).map(str::to_owned);
    let Some(cluster) = cluster.filter(|_| !args.no_wait) else { return Ok(()) };
    let wanted = u64::from(args.replicas);
    let mut goal = Goal::running(&cluster);
    until(session, seams, namespace, &kinds(), timeout, |objects| {
        // The verdict counts against the specification; until the view has the new number, it is about the old one.
        let is_current =
            objects.get(&resource.kind, name).and_then(|object| object.pointer("/spec/replicas")).and_then(Value::as_u64) == Some(wanted);
        match goal.step(objects) {
            Step::Done { tree, .. } if !is_current => {
                Step::Wait { tree, waiting: vec![format!("{} to be seen with the new number", resource.display(name))] }
            }
            step => step,
        }
    })
    .await?;
    seams.printer.line(format!("{} has {} machines, all running", resource.display(name), args.replicas));
    Ok(())
}
