//! `get`: objects as the API server tables them, or as YAML or JSON.

use serde_json::{Value, json};

use crate::apply::{Resource, unreachable};
use crate::cli::{Get, Output};
use crate::host::session::Session;
use crate::output::table::of_answer;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::state::StateDirectory;

/// Runs the command.
///
/// # Errors
/// When the kind or the object is not there.
pub async fn run(args: &Get, directory: &StateDirectory, seams: &Seams) -> Result<(), Problem> {
    let session = Session::reading(directory, "get", seams).await?;
    let outcome = get(args, &session, seams).await;
    session.close(seams).await;
    outcome
}

/// What is asked for: a kind, and one of its objects or all of them.
struct Asked<'a> {
    resource: Resource,
    name: Option<&'a str>,
    path: String,
}

/// Reads and prints.
///
/// # Errors
/// As [`run`].
pub async fn get(args: &Get, session: &Session, seams: &Seams) -> Result<(), Problem> {
    let namespace = if args.all_namespaces { "" } else { args.namespace.namespace.as_str() };
    let mut asked = Vec::new();
    for kind in args.kind.split(',').filter(|kind| !kind.is_empty()) {
        let (kind, name) = kind.split_once('/').map_or((kind, args.name.as_deref()), |(kind, name)| (kind, Some(name)));
        let found = session.api.resource_called(kind).await.map_err(|error| unreachable(&error))?;
        let resource = found.ok_or_else(|| unknown(kind))?;
        if args.all_namespaces && name.is_some() {
            return Err(Problem::new(Code::BadFlag, "an object is asked for by its name and in all namespaces")
                .remedy("leave out -A and name the namespace with -n, or leave out the name"));
        }
        asked.push(Asked { path: resource.path(namespace, name), resource, name });
    }
    match args.output.output {
        Output::Table | Output::Wide => tables(args, &asked, session, seams).await,
        form => {
            let mut items = Vec::new();
            for one in &asked {
                let value = session.api.send(http::Method::GET, &one.path, None, None).await.map_err(|error| missing(&error, one, args))?;
                match value.get("items").and_then(Value::as_array) {
                    Some(list) => items.extend(list.iter().map(|item| (one, with_kind(item.clone(), &one.resource)))),
                    None => items.push((one, value)),
                }
            }
            if form == Output::Name {
                for (one, item) in &items {
                    let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                    seams.printer.data(&one.resource.display(name));
                }
                return Ok(());
            }
            let is_one = matches!(asked.as_slice(), [one] if one.name.is_some());
            let mut items = items.into_iter().map(|(_, item)| item);
            let value = match items.next() {
                Some(item) if is_one => item,
                first => json!({
                    "apiVersion": "v1", "items": first.into_iter().chain(items).collect::<Vec<_>>(), "kind": "List",
                    "metadata": {"resourceVersion": ""},
                }),
            };
            seams.printer.value(&value, form == Output::Json)
        }
    }
}

/// One table for each kind; the names say the kind when there are several.
async fn tables(args: &Get, asked: &[Asked<'_>], session: &Session, seams: &Seams) -> Result<(), Problem> {
    let mut shown = Vec::new();
    for one in asked {
        let table = session.api.table(&one.path).await.map_err(|error| missing(&error, one, args))?;
        if table.get("rows").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            continue;
        }
        let prefix = if asked.len() > 1 { one.resource.display("") } else { String::new() };
        let with_namespace = args.all_namespaces && one.resource.is_namespaced;
        shown.push(of_answer(&table, args.output.output == Output::Wide, with_namespace, &prefix));
    }
    if shown.is_empty() {
        let place = if args.all_namespaces || asked.iter().all(|one| !one.resource.is_namespaced) {
            String::new()
        } else {
            format!(" in {} namespace", args.namespace.namespace)
        };
        seams.printer.note(format!("No resources found{place}."));
        return Ok(());
    }
    seams.printer.data(&shown.join("\n"));
    Ok(())
}

/// An item of a list, with what a list leaves out of its items.
fn with_kind(mut item: Value, resource: &Resource) -> Value {
    if let Some(map) = item.as_object_mut() {
        map.entry("apiVersion").or_insert_with(|| resource.api_resource().api_version.into());
        map.entry("kind").or_insert_with(|| resource.kind.clone().into());
    }
    item
}

fn unknown(kind: &str) -> Problem {
    Problem::new(Code::UnknownKind, format!("no kind is called {kind}")).remedy(
        "the kinds are those of Cluster API and its Talos, vSphere and IPAM providers, such as clusters, machines, machinedeployments, taloscontrolplanes, \
         vspherevms, inclusterippools; and core kinds, such as secrets and namespaces",
    )
}

fn missing(error: &kube::Error, asked: &Asked<'_>, args: &Get) -> Problem {
    match (error, asked.name) {
        (kube::Error::Api(status), Some(name)) if status.code == 404 => {
            let (kind, namespace) = (&asked.resource.kind, &args.namespace.namespace);
            let place = if asked.resource.is_namespaced { format!(" in the namespace {namespace}") } else { String::new() };
            Problem::new(Code::NotFound, format!("there is no {kind} {name}{place}"))
                .remedy(format!("`talosphere get {} -A` lists them; -n names the namespace", asked.resource.plural))
        }
        _ => unreachable(error),
    }
}
