//! `rollout`: how far a change is, and the ways to stop, continue, repeat and take back one. kubectl's grammar. Of MachineDeployments; of
//! control planes, which keep no revisions, what can be.

pub mod control_plane;
pub mod revisions;

use api::cluster::{Machine, MachineDeployment};
use controllers::edit::is_deleting;
use controllers::machinedeployment::plan::{is_rollout_paused, revision};
use controllers::machinedeployment::template::differences;
use http::Method;
use serde_json::{Value, json};

use self::revisions::{Family, template_of, waiting};
use super::duration;
use super::preview::{Inventory, Preview, counted, list, read};
use crate::apply::{Api, Resource, unreachable};
use crate::cli::{Output, Rollout, RolloutChange, RolloutCommand, RolloutTarget, RolloutUndo};
use crate::follow::{Step, until};
use crate::host::session::Session;
use crate::names::within;
use crate::output::table::columns;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::signal::interrupted;
use crate::state::StateDirectory;
use crate::tree::{kinds, tree};

const MERGE: &str = "application/merge-patch+json";

/// Runs the command.
///
/// # Errors
/// When there is no such deployment, it is in no state for this, or the API refuses.
pub async fn run(args: &Rollout, directory: &StateDirectory, seams: &Seams) -> Result<(), Problem> {
    let is_reading = match &args.command {
        RolloutCommand::Status(status) => !status.watch,
        RolloutCommand::History(_) => true,
        RolloutCommand::Pause(change) | RolloutCommand::Resume(change) | RolloutCommand::Restart(change) => change.dry_run,
        RolloutCommand::Undo(undo) => undo.change.dry_run,
    };
    if is_reading {
        let mut session = Session::reading(directory, "rollout", seams).await?;
        let outcome = carry_out(&args.command, &mut session, seams).await;
        session.close(seams).await;
        return outcome;
    }
    let mut session = Session::existing(directory, "rollout", seams).await?;
    let failed = session.failed();
    let outcome = tokio::select! {
        outcome = carry_out(&args.command, &mut session, seams) => outcome,
        problem = failed => Err(problem),
        () = interrupted() => Err(Problem::new(Code::Interrupted, "interrupted; the rollout goes on while controllers run").remedy("run the same command again")),
    };
    session.close(seams).await;
    outcome
}

/// Carries a subcommand out.
///
/// # Errors
/// As [`run`].
pub async fn carry_out(command: &RolloutCommand, session: &mut Session, seams: &Seams) -> Result<(), Problem> {
    let found = session.api.resource_called(command.target().parts()?.0).await.map_err(|error| unreachable(&error))?;
    if let Some(resource) = found.filter(|resource| resource.kind == "TalosControlPlane") {
        return control_plane::carry_out(command, &resource, session, seams).await;
    }
    match command {
        RolloutCommand::Status(args) => {
            let timeout = duration("--timeout", &args.timeout)?;
            let mut found = Found::look(&args.target, &session.api).await?;
            if args.watch {
                follow(&found, timeout, session, seams).await?;
                found = Found::look(&args.target, &session.api).await?;
            }
            match args.output.output {
                Output::Json | Output::Yaml => seams.printer.value(&found.family.progress(), args.output.output == Output::Json)?,
                Output::Name => seams.printer.data(&found.shown()),
                Output::Table | Output::Wide => {
                    let told = match waiting(&found.family.deployment) {
                        None => format!("{} is rolled out", found.shown()),
                        Some(waiting) => format!("{} is not rolled out: {waiting}", found.shown()),
                    };
                    seams.printer.data(&told);
                }
            }
            Ok(())
        }
        RolloutCommand::History(args) => {
            let found = Found::look(&args.target, &session.api).await?;
            let history = found.family.history();
            match args.output.output {
                Output::Json | Output::Yaml => seams.printer.value(&Value::Array(history), args.output.output == Output::Json),
                Output::Name => {
                    let names = history.iter().filter_map(|entry| entry.get("machineSet")?.as_str());
                    names.for_each(|name| seams.printer.data(&format!("machineset.cluster.x-k8s.io/{name}")));
                    Ok(())
                }
                Output::Table | Output::Wide => {
                    seams.printer.data(&table(&history));
                    Ok(())
                }
            }
        }
        RolloutCommand::Pause(args) => {
            let found = Found::look(&args.target, &session.api).await?;
            if is_rollout_paused(&found.family.deployment) {
                return Err(found.refuse("is paused already", "spec.paused is true", "resume"));
            }
            if args.dry_run {
                let replaced = found.family.outdated(seams.clock.now());
                return found.list("would not be replaced while it is paused", replaced, args, session, seams).await;
            }
            found.merge(&json!({"spec": {"paused": true}}), &session.api).await?;
            seams.printer.line(format!("{} paused: it is scaled, but its Machines are not replaced", found.shown()));
            Ok(())
        }
        RolloutCommand::Resume(args) => {
            let found = Found::look(&args.target, &session.api).await?;
            if !is_rollout_paused(&found.family.deployment) {
                return Err(found.refuse("is not paused", "spec.paused is not true", "status"));
            }
            if args.dry_run {
                return found.list("would be replaced", found.family.outdated(seams.clock.now()), args, session, seams).await;
            }
            found.merge(&json!({"spec": {"paused": false}}), &session.api).await?;
            found.done("resumed", seams);
            Ok(())
        }
        RolloutCommand::Restart(args) => {
            let found = Found::look(&args.target, &session.api).await?;
            found.refuse_paused("restart")?;
            let now = seams.clock.now_seconds();
            if let Some(after) = found.family.deployment.spec.rollout.after.as_ref().map(|after| after.0).filter(|after| *after > now) {
                return Err(Problem::new(Code::RolloutRefused, format!("{} has a restart to come", found.shown()))
                    .because(format!("spec.rollout.after is {after}: all Machines that are older are replaced then"))
                    .remedy("wait for it, or take spec.rollout.after out first"));
            }
            if args.dry_run {
                let replaced = found.family.replaced(|_| vec!["older than the restart".to_owned()]);
                return found.list("would be replaced", replaced, args, session, seams).await;
            }
            found.merge(&json!({"spec": {"rollout": {"after": now.to_string()}}}), &session.api).await?;
            found.done("restarted", seams);
            Ok(())
        }
        RolloutCommand::Undo(args) => {
            let found = Found::look(&args.change.target, &session.api).await?;
            found.refuse_paused("undo")?;
            undo(&found, args, session, seams).await
        }
    }
}

/// The former template again. Its revision moves on.
async fn undo(found: &Found, args: &RolloutUndo, session: &Session, seams: &Seams) -> Result<(), Problem> {
    let (family, api) = (&found.family, &session.api);
    let to = args.to_revision.filter(|revision| *revision != 0);
    let Some(former) = family.former(to) else {
        let what = to.map_or_else(|| "no former revision".to_owned(), |revision| format!("no revision {revision}"));
        let known = family.sets.iter().map(|set| revision(set).to_string()).collect::<Vec<_>>().join(", ");
        return Err(Problem::new(Code::NotFound, format!("{} has {what}", found.shown()))
            .seen(format!("revisions that are kept: {known}"))
            .remedy(format!("`talosphere rollout history {}` lists them", found.asked())));
    };
    let template = template_of(former);
    let changes = differences(&family.deployment.spec.template, &template);
    if changes.is_empty() {
        seams.printer.line(format!("{} is as in revision {} already; nothing is changed", found.shown(), revision(former)));
        return Ok(());
    }
    if args.change.dry_run {
        let replaced = family.replaced(|set| differences(&set.spec.template, &template));
        let what = format!("would be replaced by Machines of revision {}", revision(former));
        return found.list(&what, replaced, &args.change, session, seams).await;
    }
    let patch = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": family.deployment.metadata.resource_version},
        {"op": "replace", "path": "/spec/template", "value": template},
    ]);
    api.send(Method::PATCH, &found.path, Some("application/json-patch+json"), Some(&patch)).await.map_err(|error| unreachable(&error))?;
    found.done(&format!("rolled back to revision {}: {}", revision(former), changes.join("; ")), seams);
    Ok(())
}

/// The deployment that a command is about.
struct Found {
    resource: Resource,
    path: String,
    name: String,
    namespace: String,
    family: Family,
}

impl Found {
    async fn look(target: &RolloutTarget, api: &Api) -> Result<Self, Problem> {
        let (kind, name) = target.parts()?;
        let namespace = target.namespace.namespace.clone();
        let found = api.resource_called(kind).await.map_err(|error| unreachable(&error))?;
        let resource = found.ok_or_else(|| Problem::new(Code::UnknownKind, format!("no kind is called {kind}")))?;
        if resource.kind != "MachineDeployment" {
            return Err(Problem::new(Code::BadFlag, format!("{} has no rollout of its own", resource.display(name)))
                .remedy("name one that has: talosphere rollout status machinedeployment/NAME, or taloscontrolplane/NAME"));
        }
        // In the stored version, whichever the server prefers.
        let at = |plural: &str| format!("/apis/cluster.x-k8s.io/v1beta2/namespaces/{namespace}/{plural}");
        let path = format!("{}/{name}", at("machinedeployments"));
        let Some(object) = api.get(&path).await.map_err(|error| unreachable(&error))? else {
            return Err(Problem::new(Code::NotFound, format!("there is no MachineDeployment {name} in the namespace {namespace}"))
                .remedy("`talosphere get machinedeployments -A` lists them; -n names the namespace"));
        };
        let deployment: MachineDeployment = read(object)?;
        if is_deleting(&deployment.metadata) {
            return Err(Problem::new(Code::BeingDeleted, format!("MachineDeployment {name} is being deleted")));
        }
        let family = Family::of(deployment, list(api, &at("machinesets")).await?, list(api, &at("machines")).await?);
        Ok(Self { resource, path, name: name.to_owned(), namespace, family })
    }

    fn shown(&self) -> String {
        self.resource.display(&self.name)
    }

    /// As the user would type it.
    fn asked(&self) -> String {
        format!("machinedeployment/{}{}", self.name, within(&self.namespace))
    }

    fn refuse(&self, what: &str, seen: &str, instead: &str) -> Problem {
        Problem::new(Code::RolloutRefused, format!("{} {what}", self.shown()))
            .seen(seen)
            .remedy(format!("talosphere rollout {instead} {}", self.asked()))
    }

    fn refuse_paused(&self, word: &str) -> Result<(), Problem> {
        if is_rollout_paused(&self.family.deployment) {
            let refused = self.refuse(&format!("is paused: no {word}"), "spec.paused is true", "resume");
            return Err(refused.because("a change of a paused rollout would wait without a sign, and be carried out with others later"));
        }
        Ok(())
    }

    async fn merge(&self, patch: &Value, api: &Api) -> Result<(), Problem> {
        api.send(Method::PATCH, &self.path, Some(MERGE), Some(patch)).await.map_err(|error| unreachable(&error))?;
        Ok(())
    }

    fn done(&self, what: &str, seams: &Seams) {
        seams.printer.line(format!("{} {what}", self.shown()));
        seams.printer.line(format!("`talosphere rollout status {}` follows it", self.asked()));
    }

    /// What a dry run lists.
    async fn list(
        &self,
        what: &str,
        replaced: Vec<(&Machine, String)>,
        args: &RolloutChange,
        session: &Session,
        seams: &Seams,
    ) -> Result<(), Problem> {
        let inventory = Inventory::read(&session.api, &self.namespace).await?;
        let how = if replaced.is_empty() { Vec::new() } else { vec![self.family.way()] };
        let machines: Vec<_> = replaced.into_iter().map(|(machine, why)| inventory.going(machine, why)).collect();
        let preview = Preview { summary: format!("{} {what}", counted(machines.len(), "Machine")), machines, how, ..Preview::default() };
        preview.print(args.output.output, seams)
    }
}

/// Follows a rollout to its end.
async fn follow(found: &Found, timeout: std::time::Duration, session: &mut Session, seams: &Seams) -> Result<(), Problem> {
    let cluster = found.family.deployment.spec.cluster_name.as_str();
    until(session, seams, &found.namespace, &kinds(), timeout, |objects| {
        let tree = tree(objects, cluster);
        let Some(object) = objects.get("MachineDeployment", &found.name) else {
            return Step::Fail(Problem::new(Code::BeingDeleted, format!("MachineDeployment {} was deleted meanwhile", found.name)));
        };
        let deployment: MachineDeployment = match read(object.clone()) {
            Ok(deployment) => deployment,
            Err(problem) => return Step::Fail(problem),
        };
        let Some(waiting) = waiting(&deployment) else { return Step::Done { tree, value: () } };
        if is_deleting(&deployment.metadata) {
            return Step::Fail(Problem::new(Code::BeingDeleted, format!("MachineDeployment {} is being deleted", found.name)));
        }
        if is_rollout_paused(&deployment) {
            let paused = Problem::new(Code::NotRolledOut, format!("the rollout of {} is paused", found.shown()));
            return Step::Fail(paused.seen(waiting).remedy(format!("talosphere rollout resume {}", found.asked())));
        }
        Step::Wait { tree, waiting: vec![waiting] }
    })
    .await
}

fn table(history: &[Value]) -> String {
    let text = |entry: &Value, field: &str| match entry.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let rows = history.iter().enumerate().map(|(index, entry)| {
        let changes: Vec<&str> = entry.get("changes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let changed = match (index, changes.is_empty()) {
            (0, _) => "<oldest that is kept>".to_owned(),
            (_, true) => "<restarted>".to_owned(),
            _ => changes.join("; "),
        };
        vec![text(entry, "revision"), text(entry, "machineSet"), text(entry, "replicas"), changed]
    });
    columns(&["REVISION", "MACHINESET", "REPLICAS", "CHANGED"], &rows.collect::<Vec<_>>())
}
