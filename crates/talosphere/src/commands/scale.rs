//! `scale`: another number of machines, and the wait until it is so.

use serde_json::{Value, json};

use super::duration;
use crate::apply::unreachable;
use crate::cli::Scale;
use crate::follow::{Goal, Step, until};
use crate::host::session::Session;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::signal::interrupted;
use crate::state::StateDirectory;
use crate::tree::kinds;

/// Runs the command.
///
/// # Errors
/// When there is nothing of this name that scales, or the API refuses.
pub async fn run(args: &Scale, directory: &StateDirectory, seams: &Seams) -> Result<(), Problem> {
    let timeout = duration("--timeout", &args.timeout)?;
    let Some((kind, name)) = args.target.split_once('/').filter(|(kind, name)| !kind.is_empty() && !name.is_empty()) else {
        return Err(Problem::new(Code::BadFlag, format!("{} does not name what to scale", args.target))
            .remedy("talosphere scale machinedeployment/NAME --replicas N"));
    };
    let mut session = Session::changing(directory, "scale", seams).await?;
    let failed = session.failed();
    let outcome = tokio::select! {
        outcome = scale(args, kind, name, timeout, &mut session, seams) => outcome,
        problem = failed => Err(problem),
        () = interrupted() => Err(Problem::new(Code::Interrupted, "interrupted; the new number is kept").remedy("run the same command again to wait for it")),
    };
    session.close(seams).await;
    outcome
}

async fn scale(
    args: &Scale,
    kind: &str,
    name: &str,
    timeout: std::time::Duration,
    session: &mut Session,
    seams: &Seams,
) -> Result<(), Problem> {
    let namespace = &args.namespace.namespace;
    let found = session.api.resource_called(kind).await.map_err(|error| unreachable(&error))?;
    let resource = found.ok_or_else(|| Problem::new(Code::UnknownKind, format!("no kind is called {kind}")))?;
    let path = resource.path(namespace, Some(name));
    let Some(object) = session.api.get(&path).await.map_err(|error| unreachable(&error))? else {
        return Err(Problem::new(Code::NotFound, format!("there is no {} {name} in the namespace {namespace}", resource.kind)));
    };
    if resource.kind == "TalosControlPlane" && args.replicas == 0 {
        return Err(Problem::new(Code::BadFlag, "a control plane cannot be scaled to 0")
            .remedy("delete the cluster instead: talosphere delete cluster NAME"));
    }
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
