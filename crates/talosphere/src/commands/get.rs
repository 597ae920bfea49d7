//! `get`: objects as the API server tables them, or as YAML or JSON.

use crate::apply::unreachable;
use crate::cli::{Get, Output};
use crate::host::session::Session;
use crate::output::table::of_answer;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::state::StateDirectory;
use serde_json::Value;

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

async fn get(args: &Get, session: &Session, seams: &Seams) -> Result<(), Problem> {
    let kinds: Vec<&str> = args.kind.split(',').filter(|kind| !kind.is_empty()).collect();
    let shows_kind = kinds.len() > 1;
    for kind in kinds {
        let (kind, name) = kind.split_once('/').map_or((kind, args.name.as_deref()), |(kind, name)| (kind, Some(name)));
        let found = session.api.resource_called(kind).await.map_err(|error| unreachable(&error))?;
        let resource = found.ok_or_else(|| Problem::new(Code::UnknownKind, format!("no kind is called {kind}")))?;
        let namespace = if args.all_namespaces { "" } else { args.namespace.namespace.as_str() };
        let path = resource.path(namespace, name);
        match args.output.output {
            Output::Table | Output::Wide => {
                let table = session.api.table(&path).await.map_err(|error| unreachable(&error))?;
                let is_empty = table.get("rows").and_then(Value::as_array).is_none_or(Vec::is_empty);
                if is_empty {
                    seams.printer.note(format!("no {} found", resource.plural));
                    continue;
                }
                if shows_kind {
                    seams.printer.data(&format!("# {}", resource.plural));
                }
                seams.printer.data(&of_answer(&table, args.output.output == Output::Wide, args.all_namespaces && resource.is_namespaced));
            }
            form => {
                let value = session.api.send(http::Method::GET, &path, None, None).await.map_err(|error| unreachable(&error))?;
                if form == Output::Name {
                    let items = value.get("items").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![value.clone()]);
                    for item in items {
                        let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                        seams.printer.data(&resource.display(name));
                    }
                } else {
                    seams.printer.value(&value, form == Output::Json)?;
                }
            }
        }
    }
    Ok(())
}
