//! `delete`: an object and what hangs on it, followed until it is gone - and, for a cluster, a look in vCenter that nothing is left.

use std::time::Duration;

use apimachinery::meta::text_at as text;
use controllers::controlplane::is_control_plane;
use controllers::edit::{controller_reference, is_deleting};
use serde_json::{Value, json};

use super::preview::{Inventory, Preview, counted};
use super::{duration, preflight};
use crate::apply::{Api, Resource, finalizers, foreign_finalizers, unreachable};
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
    if args.dry_run {
        let session = Session::reading(directory, "delete", seams).await?;
        let outcome = preview(args, &session.api, seams).await;
        session.close(seams).await;
        return outcome;
    }
    if !args.yes && !seams.printer.confirm(&question(&args.kind, &what))? {
        return Err(Problem::new(Code::Unconfirmed, format!("{what} was not deleted")));
    }
    let mut session = Session::existing(directory, "delete", seams).await?;
    let failed = session.failed();
    let outcome = tokio::select! {
        outcome = carry_out(args, timeout, directory, &mut session, seams) => outcome,
        problem = failed => Err(problem),
        () = interrupted() => Err(Problem::new(Code::Interrupted, "interrupted; deletion goes on while controllers run").remedy("run the same command again")),
    };
    session.close(seams).await;
    outcome
}

/// What is asked before a deletion: what else goes with it is said where machines do.
fn question(kind: &str, what: &str) -> String {
    let kind = kind.to_lowercase();
    let has_machines = ["cluster", "machinedeployment", "md", "machineset", "ms", "taloscontrolplane", "tcp"]
        .iter()
        .any(|name| kind == *name || kind.strip_suffix('s') == Some(name) || kind.starts_with(&format!("{name}.")));
    if has_machines { format!("Delete {what} and every machine of it?") } else { format!("Delete {what}?") }
}

/// Lists what would go.
///
/// # Errors
/// When there is no such object, or the API does not answer.
pub async fn preview(args: &Delete, api: &Api, seams: &Seams) -> Result<(), Problem> {
    let namespace = args.namespace.namespace.as_str();
    let found = api.resource_called(&args.kind).await.map_err(|error| unreachable(&error))?;
    let resource = found.ok_or_else(|| Problem::new(Code::UnknownKind, format!("no kind is called {}", args.kind)))?;
    let object = api.get(&resource.path(namespace, Some(&args.name))).await.map_err(|error| unreachable(&error))?;
    let object = object.ok_or_else(|| {
        Problem::new(Code::NotFound, format!("there is no {} {} in the namespace {namespace}", resource.kind, args.name))
            .remedy(format!("`talosphere get {} -A` lists them; -n names the namespace", resource.plural))
    })?;
    let inventory = Inventory::read(api, namespace).await?;
    let going = listing(&resource, &object, &inventory);
    going.print(args.output.output, seams)
}

/// Which Machines go with an object, in the order in which they do.
fn listing(resource: &Resource, object: &Value, inventory: &Inventory) -> Preview {
    let (name, uid) = (text(object, "/metadata/name"), text(object, "/metadata/uid"));
    let shown = format!("{} {name}", resource.kind);
    let is_group = resource.group.ends_with("cluster.x-k8s.io");
    let mut how = Vec::new();
    let (machines, why) = match resource.kind.as_str() {
        "Cluster" if is_group => {
            how.push(
                "workers first, while the cluster's API answers, then the control planes, all at once: etcd goes as a whole".to_owned(),
            );
            how.push("disks that belong to no VM of the cluster alone, persistent volumes above all, are kept".to_owned());
            let ours = || inventory.machines.iter().filter(|machine| machine.spec.cluster_name == name);
            let (mut control_planes, mut machines): (Vec<_>, Vec<_>) = ours().cloned().partition(|machine| is_control_plane(machine));
            machines.append(&mut control_planes);
            (machines, format!("it belongs to {shown}"))
        }
        "MachineDeployment" if is_group => {
            let sets = inventory.sets_of(uid);
            (sets.into_iter().flat_map(|set| inventory.of_set(set)).collect(), format!("it belongs to {shown}"))
        }
        "MachineSet" | "TalosControlPlane" if is_group => (inventory.controlled_by(uid), format!("it is controlled by {shown}")),
        "Machine" if is_group => {
            let machine: Vec<_> =
                inventory.machines.iter().filter(|machine| machine.metadata.name.as_deref() == Some(name)).cloned().collect();
            let owner = machine.first().and_then(|machine| controller_reference(&machine.metadata));
            how.extend(owner.map(|owner| format!("{} {} makes another Machine in its place", owner.kind, owner.name)));
            if machine.first().is_some_and(|machine| is_control_plane(machine)) {
                how.push("its member leaves etcd before its VM goes, and only while etcd keeps its quorum".to_owned());
            }
            (machine, "it is deleted itself".to_owned())
        }
        _ => (Vec::new(), String::new()),
    };
    let machines: Vec<_> = machines
        .iter()
        .map(|machine| {
            let begun = if is_deleting(&machine.metadata) { " (its deletion has begun)" } else { "" };
            inventory.going(machine, format!("{why}{begun}"))
        })
        .collect();
    if !machines.is_empty() && resource.kind != "Machine" {
        let drain = "each Node is drained before its VM goes, within its Machine's limits";
        how.push(drain.to_owned());
    }
    let blocks = foreign_finalizers(object).map(|finalizer| format!("{shown} stays until {finalizer} is taken off")).collect();
    Preview {
        summary: format!("{shown} would be deleted, and {} with it", counted(machines.len(), "Machine")),
        machines,
        how,
        blocks,
        ..Preview::default()
    }
}

/// Deletes, follows and proves. The proof's begun state is kept in the directory.
///
/// # Errors
/// As [`run`].
pub async fn carry_out(
    args: &Delete,
    timeout: Duration,
    directory: &StateDirectory,
    session: &mut Session,
    seams: &Seams,
) -> Result<(), Problem> {
    let namespace = args.namespace.namespace.as_str();
    let found = session.api.resource_called(&args.kind).await.map_err(|error| unreachable(&error))?;
    let resource = found.ok_or_else(|| Problem::new(Code::UnknownKind, format!("no kind is called {}", args.kind)))?;
    let path = resource.path(namespace, Some(&args.name));
    let is_cluster = resource.kind == "Cluster" && resource.group == "cluster.x-k8s.io";
    let Some(object) = session.api.get(&path).await.map_err(|error| unreachable(&error))? else {
        let begun = if is_cluster { begun(directory, namespace, &args.name)? } else { Vec::new() };
        if begun.is_empty() {
            return Err(Problem::new(Code::NotFound, format!("there is no {} {} in the namespace {namespace}", resource.kind, args.name))
                .remedy(format!("`talosphere get {} -A` lists them; -n names the namespace", resource.plural)));
        }
        seams.printer.line(format!("{} is gone; its deletion is not proven yet", resource.display(&args.name)));
        for look in begun {
            let login = look.login(&session.api).await?;
            finish(args, timeout, &look, login, directory, session, seams).await?;
        }
        return Ok(());
    };
    let uid = object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned();
    // The way into vCenter is learned, and kept, while the objects that describe it are still there.
    let prepared = if is_cluster {
        let look = preflight::Look::prepare(&session.api, namespace, &object).await?;
        let login = look.login(&session.api).await?;
        directory.write(&record(namespace, &args.name, &uid), &serde_json::to_string(&look).unwrap_or_default())?;
        Some((look, login))
    } else {
        None
    };
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "preconditions": {"uid": uid}});
    match session.api.send(http::Method::DELETE, &path, Some("application/json"), Some(&options)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(unreachable(&error)),
    }
    seams.printer.line(format!("{} is being deleted", resource.display(&args.name)));
    if let Some((look, login)) = prepared {
        return finish(args, timeout, &look, login, directory, session, seams).await;
    }
    let (shown, kind) = (resource.display(&args.name), resource.kind.clone());
    until(session, seams, if resource.is_namespaced { namespace } else { "" }, &[resource.api_resource()], timeout, |objects| {
        let live =
            objects.get(&kind, &args.name).filter(|live| live.pointer("/metadata/uid").and_then(Value::as_str) == Some(uid.as_str()));
        let Some(live) = live else { return Step::Done { tree: None, value: () } };
        let holds: Vec<&str> = finalizers(live).collect();
        Step::Wait { tree: None, waiting: vec![format!("{shown} is held by its finalizers: {}", holds.join(", "))] }
    })
    .await?;
    seams.printer.line(format!("{shown} deleted"));
    Ok(())
}

/// Where a deletion that is not proven yet is kept.
fn record(namespace: &str, cluster: &str, uid: &str) -> String {
    format!("{}/{uid}", records(namespace, cluster))
}

fn records(namespace: &str, cluster: &str) -> String {
    format!("deletions/{namespace}/{cluster}")
}

/// The deletions of a cluster that were begun and not proven.
fn begun(directory: &StateDirectory, namespace: &str, cluster: &str) -> Result<Vec<preflight::Look>, Problem> {
    let folder = records(namespace, cluster);
    let mut names: Vec<String> = Vec::new();
    if let Ok(entries) = std::fs::read_dir(directory.join(&folder)) {
        names.extend(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()));
    }
    names.sort();
    let mut looks = Vec::new();
    for name in names {
        let text = directory.read_if_there(&format!("{folder}/{name}"))?.unwrap_or_default();
        // A file that was being written when the process died is none: the Cluster was not deleted then.
        looks.extend(serde_json::from_str::<preflight::Look>(&text));
    }
    Ok(looks)
}

/// Follows a deletion to its end, proves it, and takes away what was made for the cluster only.
async fn finish(
    args: &Delete,
    timeout: Duration,
    look: &preflight::Look,
    login: Option<preflight::Login>,
    directory: &StateDirectory,
    session: &mut Session,
    seams: &Seams,
) -> Result<(), Problem> {
    let (namespace, name) = (args.namespace.namespace.as_str(), args.name.clone());
    until(session, seams, namespace, &remaining_kinds(), timeout, |objects| {
        let left: Vec<String> = crate::tree::remains(objects, &name, &look.cluster);
        let tree = tree(objects, &name);
        if left.is_empty() { Step::Done { tree, value: () } } else { Step::Wait { tree, waiting: left } }
    })
    .await?;
    let from_environment = || {
        let value = |name: &str| seams.environment.non_empty(name).map(str::to_owned);
        let (user, password) = value("VSPHERE_USERNAME").zip(value("VSPHERE_PASSWORD"))?;
        Some(preflight::Login { user, password, source: "VSPHERE_USERNAME and VSPHERE_PASSWORD".to_owned() })
    };
    let login = login.or_else(from_environment);
    let looked = prove(args, look, login.as_ref(), session, namespace, seams).await?;
    if let Some((place, secret)) = look.secret() {
        forget_secret(session, place, secret, seams).await?;
    }
    let _ = std::fs::remove_dir_all(directory.join(format!("clusters/{namespace}/{name}")));
    let _ = std::fs::remove_file(directory.join(record(namespace, &name, &look.cluster)));
    seams.printer.line(format!("Cluster {name} deleted, 0 left behind ({looked})"));
    Ok(())
}

/// Deletes the Secret with the login if `up` made it and no cluster uses it. A user's own is left alone.
async fn forget_secret(session: &Session, namespace: &str, name: &str, seams: &Seams) -> Result<(), Problem> {
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    let Some(secret) = session.api.get(&path).await.map_err(|error| unreachable(&error))? else { return Ok(()) };
    if secret.pointer("/metadata/annotations").is_none_or(|known| known.get(super::up::MADE_BY_UP).is_none()) {
        return Ok(());
    }
    let clusters = format!("/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/{namespace}/vsphereclusters");
    let list = session.api.send(http::Method::GET, &clusters, None, None).await.map_err(|error| unreachable(&error))?;
    let mut users = list.get("items").and_then(Value::as_array).into_iter().flatten();
    if users.any(|cluster| cluster.pointer("/spec/identityRef/name").and_then(Value::as_str) == Some(name)) {
        return Ok(());
    }
    match session.api.send(http::Method::DELETE, &path, None, None).await {
        Ok(_) => seams.printer.line(format!("secret/{name} deleted, which was made with the cluster")),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(unreachable(&error)),
    }
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

/// Counts what is left of a deleted cluster - generated Secrets, claims, addresses; VMs by a look in vCenter - and tells where was looked.
async fn prove(
    args: &Delete,
    look: &preflight::Look,
    login: Option<&preflight::Login>,
    session: &Session,
    namespace: &str,
    seams: &Seams,
) -> Result<String, Problem> {
    let mut left = listed(args, session, namespace).await?;
    let (machines, looked) = look.left(login, seams).await?;
    left.extend(machines);
    if left.is_empty() {
        return Ok(looked);
    }
    Err(Problem::new(Code::LeftBehind, format!("Cluster {} is deleted, but {} left behind", args.name, left.len()))
        .seen_all(left)
        .remedy("run the same command again; what stays is to be removed by hand"))
}

#[cfg(test)]
mod tests {
    use super::question;

    #[test]
    fn machines_are_named_where_they_go_too() {
        assert_eq!(question("Clusters", "x"), "Delete x and every machine of it?");
        assert_eq!(question("md", "x"), "Delete x and every machine of it?");
        assert_eq!(question("secret", "x"), "Delete x?");
    }
}
