//! `describe cluster`: the tree, once.

use super::clusters;
use crate::cli::{Describe, Output};
use crate::follow::Follower;
use crate::host::session::Session;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::state::StateDirectory;
use crate::tree::{Objects, tree, verdict, warnings};

/// Runs the command.
///
/// # Errors
/// When there is no such cluster.
pub async fn run(args: &Describe, directory: &StateDirectory, seams: &Seams) -> Result<(), Problem> {
    if !matches!(args.kind.to_lowercase().as_str(), "cluster" | "clusters" | "cl") {
        return Err(Problem::new(Code::BadFlag, format!("describe knows clusters, not {}", args.kind))
            .remedy(format!("talosphere describe cluster NAME; `talosphere get {} {} -o yaml` shows one object", args.kind, args.name)));
    }
    let session = Session::reading(directory, "describe", seams).await?;
    let objects = look(args, &session, seams).await;
    session.close(seams).await;
    show(args, &objects, seams)
}

/// The objects that the tree is made of.
pub async fn look(args: &Describe, session: &Session, seams: &Seams) -> Objects {
    let follower = Follower::start(session.api.client().clone(), &crate::tree::kinds(), seams);
    follower.synced().await;
    follower.objects(&args.namespace.namespace)
}

/// Prints the tree.
///
/// # Errors
/// When there is no such cluster.
pub fn show(args: &Describe, objects: &Objects, seams: &Seams) -> Result<(), Problem> {
    let found = tree(objects, &args.name).ok_or_else(|| clusters::missing(&args.name, &args.namespace.namespace))?;
    let verdict = verdict(objects, &args.name);
    let warnings = warnings(objects, &args.name);
    match args.output.output {
        Output::Json | Output::Yaml => {
            let mut value = found.to_value();
            if let Some(map) = value.as_object_mut() {
                map.insert("isReady".to_owned(), verdict.is_ready.into());
                map.insert("waitingFor".to_owned(), verdict.waiting.into());
                map.insert("notes".to_owned(), verdict.notes.into());
                map.insert("warnings".to_owned(), warnings.into());
            }
            seams.printer.value(&value, args.output.output == Output::Json)?;
        }
        Output::Name => seams.printer.data(&format!("cluster.cluster.x-k8s.io/{}", args.name)),
        Output::Table | Output::Wide => {
            seams.printer.tree(&found, args.output.output == Output::Wide);
            let text = if verdict.is_ready {
                "ready: every Machine runs, every Node is ready".to_owned()
            } else {
                format!("not ready:\n  {}", verdict.waiting.join("\n  "))
            };
            seams.printer.data(&text);
            for note in &verdict.notes {
                seams.printer.data(&format!("note: {note}"));
            }
            for warning in &warnings {
                seams.printer.data(&format!("warning: {warning}"));
            }
        }
    }
    Ok(())
}
