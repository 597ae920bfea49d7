//! `delete`: an object and what hangs on it, followed until it is gone - and, for a cluster, a look in vCenter that nothing is left.

use std::time::Duration;

use serde_json::{Value, json};

use super::{duration, preflight};
use crate::apply::unreachable;
use crate::cli::Delete;
use crate::follow::{Step, until};
use crate::host::session::Session;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::signal::interrupted;
use crate::state::StateDirectory;
use crate::tree::{remaining_kinds, tree};

/// Runs the command.
///
/// # Errors
/// When it is not confirmed, there is no such object, or something is left.
pub async fn run(args: &Delete, directory: &StateDirectory, seams: &Seams) -> Result<(), Problem> {
    let timeout = duration("--timeout", &args.timeout)?;
    let what = format!("{} {} in the namespace {}", args.kind, args.name, args.namespace.namespace);
    if !args.yes && !seams.printer.confirm(&format!("Delete {what} and every machine of it?"))? {
        return Err(Problem::new(Code::Unconfirmed, format!("{what} was not deleted")));
    }
    let mut session = Session::changing(directory, "delete", seams).await?;
    let outcome = tokio::select! {
        outcome = delete(args, timeout, &mut session, seams) => outcome,
        () = interrupted() => Err(Problem::new(Code::Interrupted, "interrupted; deletion goes on while controllers run").remedy("run the same command again")),
    };
    session.close(seams).await;
    outcome
}

async fn delete(args: &Delete, timeout: Duration, session: &mut Session, seams: &Seams) -> Result<(), Problem> {
    let namespace = args.namespace.namespace.as_str();
    let found = session.api.resource_called(&args.kind).await.map_err(|error| unreachable(&error))?;
    let resource = found.ok_or_else(|| Problem::new(Code::UnknownKind, format!("no kind is called {}", args.kind)))?;
    let path = resource.path(namespace, Some(&args.name));
    let Some(object) = session.api.get(&path).await.map_err(|error| unreachable(&error))? else {
        return Err(Problem::new(Code::NotFound, format!("there is no {} {} in the namespace {namespace}", resource.kind, args.name))
            .remedy(format!("`talosphere get {} -A` lists them; -n names the namespace", resource.plural)));
    };
    let is_cluster = resource.kind == "Cluster" && resource.group == "cluster.x-k8s.io";
    let uid = object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned();
    // The way into vCenter is learned while the objects that describe it are still there.
    let look = if is_cluster { preflight::Look::prepare(&session.api, namespace, &object).await? } else { None };
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "preconditions": {"uid": uid}});
    match session.api.send(http::Method::DELETE, &path, Some("application/json"), Some(&options)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(unreachable(&error)),
    }
    seams.printer.line(format!("{} is being deleted", resource.display(&args.name)));
    if is_cluster {
        let name = args.name.clone();
        until(session, seams, namespace, &remaining_kinds(), timeout, |objects| {
            let left: Vec<String> = crate::tree::remains(objects, &name, &uid);
            let tree = tree(objects, &name);
            if left.is_empty() { Step::Done { tree, value: () } } else { Step::Wait { tree, waiting: left } }
        })
        .await?;
        return prove(args, look, session, namespace, seams).await;
    }
    let (shown, kind) = (resource.display(&args.name), resource.kind.clone());
    until(session, seams, if resource.is_namespaced { namespace } else { "" }, &[resource.api_resource()], timeout, |objects| {
        let live =
            objects.get(&kind, &args.name).filter(|live| live.pointer("/metadata/uid").and_then(Value::as_str) == Some(uid.as_str()));
        let Some(live) = live else { return Step::Done { tree: None, value: () } };
        let finalizers = live.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let holds: Vec<&str> = finalizers.collect();
        Step::Wait { tree: None, waiting: vec![format!("{shown} is held by its finalizers: {}", holds.join(", "))] }
    })
    .await?;
    seams.printer.line(format!("{shown} deleted"));
    Ok(())
}

/// Objects that are labelled as the cluster's: generated Secrets, claims, addresses.
async fn listed(args: &Delete, session: &Session, namespace: &str) -> Result<Vec<String>, Problem> {
    let mut left = Vec::new();
    let label = format!("?labelSelector=cluster.x-k8s.io%2Fcluster-name%3D{}", args.name);
    for (prefix, plural) in [
        ("/api/v1", "secrets"),
        ("/apis/ipam.cluster.x-k8s.io/v1beta2", "ipaddressclaims"),
        ("/apis/ipam.cluster.x-k8s.io/v1beta2", "ipaddresses"),
    ] {
        let path = format!("{prefix}/namespaces/{namespace}/{plural}{label}");
        let list = session.api.send(http::Method::GET, &path, None, None).await.map_err(|error| unreachable(&error))?;
        for item in list.get("items").and_then(Value::as_array).into_iter().flatten() {
            left.push(format!("{plural} {}", item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()));
        }
    }
    Ok(left)
}

/// Counts what is left of a deleted cluster: generated Secrets, claims, addresses; VMs by a look in vCenter.
async fn prove(args: &Delete, look: Option<preflight::Look>, session: &Session, namespace: &str, seams: &Seams) -> Result<(), Problem> {
    let mut left = listed(args, session, namespace).await?;
    let looked = match look {
        Some(look) => {
            let (machines, looked) = look.left(seams).await?;
            left.extend(machines);
            looked
        }
        None => "the API was looked at; the cluster named no vCenter".to_owned(),
    };
    if left.is_empty() {
        seams.printer.line(format!("Cluster {} deleted, 0 left behind ({looked})", args.name));
        return Ok(());
    }
    Err(Problem::new(Code::LeftBehind, format!("Cluster {} is deleted, but {} left behind", args.name, left.len()))
        .seen_all(left)
        .remedy("remove what is named; the objects that described it are gone"))
}
