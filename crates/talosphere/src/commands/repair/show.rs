//! How `repair` shows what it sees and what can be done: for people, and the same for programs.

use serde_json::{Value, json};

use super::look::{Look, Node, Plane, Vm};
use super::options::{Choice, Verdict, stand};
use crate::cli::Output;
use crate::output::table::columns;
use crate::problem::Problem;
use crate::seams::Seams;

fn vm(plane: &Plane) -> &'static str {
    match plane.vm {
        Vm::On => "on",
        Vm::Off => "off",
        Vm::Gone => "gone",
        Vm::Unknown(_) => "unknown",
    }
}

fn etcd(plane: &Plane) -> String {
    match &plane.node {
        Node::Silent(_) => "does not answer".to_owned(),
        Node::Answers(etcd) if !etcd.has_data => format!("{}, no data", etcd.state),
        Node::Answers(etcd) if etcd.leader.is_none() => format!("{}, no leader", etcd.state),
        Node::Answers(etcd) if etcd.leader == etcd.member => format!("{}, leads", etcd.state),
        Node::Answers(etcd) => etcd.state.clone(),
    }
}

fn member(plane: &Plane) -> Option<String> {
    plane.etcd().and_then(|etcd| etcd.member).or(plane.recorded).map(|id| id.to_string())
}

/// Each control plane in a row.
pub fn table(look: &Look) -> String {
    let rows: Vec<Vec<String>> = look
        .planes
        .iter()
        .map(|plane| {
            let index = plane.etcd().and_then(|etcd| etcd.index).map_or_else(|| "-".to_owned(), |index| index.to_string());
            vec![
                plane.name().to_owned(),
                plane.machine.address.clone().unwrap_or_else(|| "-".to_owned()),
                vm(plane).to_owned(),
                etcd(plane),
                member(plane).unwrap_or_else(|| "-".to_owned()),
                index,
            ]
        })
        .collect();
    columns(&["CONTROL PLANE", "ADDRESS", "MACHINE", "ETCD", "MEMBER", "ENTRY"], &rows)
}

fn verdict(choice: &Choice) -> (&'static str, Option<&str>) {
    match &choice.verdict {
        Verdict::Recommended => ("recommended", None),
        Verdict::Possible => ("possible", None),
        Verdict::Refused(why) => ("refused", Some(why)),
    }
}

/// The state and the options.
///
/// # Errors
/// When the form cannot be written.
pub fn print(look: &Look, choices: &[Choice], output: Output, seams: &Seams) -> Result<(), Problem> {
    match output {
        form @ (Output::Json | Output::Yaml) => seams.printer.value(&value(look, choices), form == Output::Json),
        Output::Name => {
            choices.iter().filter(|choice| !matches!(choice.verdict, Verdict::Refused(_))).for_each(|choice| {
                seams.printer.data(&choice.way.flag());
            });
            Ok(())
        }
        Output::Table | Output::Wide => {
            seams.printer.data(&table(look));
            seams.printer.data(&text(look, choices));
            Ok(())
        }
    }
}

fn text(look: &Look, choices: &[Choice]) -> String {
    let mut lines = Vec::new();
    if look.has_quorum() {
        lines.push(format!("etcd of Cluster {} has its quorum", look.cluster));
    } else if look.planes.iter().all(|plane| plane.etcd().is_none()) {
        lines.push(format!("no control plane of Cluster {} answers: whether etcd has its quorum is not known", look.cluster));
    } else {
        let since = look.unhealthy_since.map(|since| format!("; it was last seen whole at {}", since.strftime("%F %T UTC")));
        lines.push(format!("etcd of Cluster {} has lost its quorum{}", look.cluster, since.unwrap_or_default()));
    }
    for plane in look.planes.iter().filter(|plane| plane.etcd().is_none()) {
        let told = plane.vm_told.as_ref().map(|told| format!(" ({told})")).unwrap_or_default();
        lines.push(format!("  {}: {}{told}", plane.name(), stand(plane)));
    }
    if let Some(recovery) = &look.recovery {
        let since = recovery.since.strftime("%F %T UTC");
        lines.push(format!("a recovery from {} at revision {} is under way since {since}", recovery.source(), recovery.revision));
    }
    for choice in choices {
        let (word, why) = verdict(choice);
        lines.push(format!("{} ({word})", choice.way.flag()));
        lines.push(format!("  does:  {}", choice.does));
        lines.push(format!("  loses: {}", choice.loses));
        lines.extend(why.map(|why| format!("  why not: {why}")));
    }
    lines.join("\n") + "\n"
}

fn value(look: &Look, choices: &[Choice]) -> Value {
    let planes: Vec<Value> = look
        .planes
        .iter()
        .map(|plane| {
            let known = plane.etcd();
            json!({
                "machine": plane.name(), "address": plane.machine.address, "vm": vm(plane), "etcd": etcd(plane), "member": member(plane),
                "entry": known.and_then(|etcd| etcd.index), "hasData": known.map(|etcd| etcd.has_data),
                "leads": known.map(|etcd| etcd.leader.is_some() && etcd.leader == etcd.member),
            })
        })
        .collect();
    let options: Vec<Value> = choices
        .iter()
        .map(|choice| {
            let (word, why) = verdict(choice);
            json!({"option": choice.way.flag(), "does": choice.does, "loses": choice.loses, "verdict": word, "why": why})
        })
        .collect();
    let is_known = look.planes.iter().any(|plane| plane.etcd().is_some());
    json!({
        "cluster": look.cluster, "namespace": look.namespace, "hasQuorum": is_known.then(|| look.has_quorum()),
        "lastSeenWhole": look.unhealthy_since.map(|since| since.to_string()), "controlPlanes": planes, "options": options,
        "recovery": look.recovery,
    })
}
