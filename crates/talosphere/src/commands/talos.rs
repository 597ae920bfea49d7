//! `talos`: the Talos API of a managed cluster's nodes. Addresses, certificates and the way there are known; none is typed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt as _;
use serde_json::{Value, json};
use talos::client::{TalosApi, TalosDialer, TalosError};
use talos::clientconfig::ClientIdentity;

use super::clusters::{Machine, identity, machines};
use super::snapshot;
use crate::apply::Api;
use crate::cli::{EtcdCommand, Output, Talos, TalosCommand};
use crate::host::session::Session;
use crate::host::wiring;
use crate::output::table::columns;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::state::StateDirectory;

/// Where a cluster is looked for when no namespace is named and none has it.
const DEFAULT: &str = "default";

/// Rows of one node, or why there are none.
type Rows = Result<Vec<Vec<String>>, TalosError>;

/// Runs the command.
///
/// # Errors
/// When the cluster has no nodes, or none of those asked for answers.
pub async fn run(args: &Talos, directory: &StateDirectory, seams: &Seams) -> Result<(), Problem> {
    let cluster = cluster(args)?;
    let is_formless = matches!(args.command, TalosCommand::Dmesg | TalosCommand::Etcd { command: EtcdCommand::Snapshot(_) });
    if is_formless && args.output != Output::Table {
        return Err(Problem::new(Code::BadFlag, "messages and snapshots have one form only").remedy("leave out -o"));
    }
    let session = Session::reading(directory, "talos", seams).await?;
    let found = nodes(args, cluster, &session.api).await;
    session.close(seams).await;
    ask(args, cluster, found?, seams).await
}

/// Asks over an API that is at hand.
///
/// # Errors
/// As [`run`].
pub async fn over(args: &Talos, api: &Api, seams: &Seams) -> Result<(), Problem> {
    let cluster = cluster(args)?;
    ask(args, cluster, nodes(args, cluster, api).await?, seams).await
}

fn cluster(args: &Talos) -> Result<&str, Problem> {
    args.cluster.as_deref().ok_or_else(|| {
        Problem::new(Code::BadFlag, "the cluster is not named").remedy("name it with -c; `talosphere get clusters -A` lists them")
    })
}

/// What the nodes of a cluster are asked with, and its machines.
async fn nodes(args: &Talos, cluster: &str, api: &Api) -> Result<(ClientIdentity, Vec<Machine>), Problem> {
    let namespace = namespace(api, args, cluster).await?;
    let identity = identity(api, &namespace, cluster).await?;
    let machines = machines(api, &namespace, cluster).await?;
    if machines.is_empty() {
        return Err(Problem::new(Code::NotFound, format!("Cluster {cluster} has no machines yet"))
            .remedy(format!("`talosphere describe cluster {cluster} -n {namespace}` shows what is waited for")));
    }
    Ok((identity, machines))
}

async fn ask(args: &Talos, cluster: &str, (identity, machines): (ClientIdentity, Vec<Machine>), seams: &Seams) -> Result<(), Problem> {
    let chosen = choose(args, cluster, machines)?;
    let dialer = wiring::nodes(seams);
    let is_etcd = matches!(args.command, TalosCommand::Etcd { .. });
    if let Some(worker) = chosen.iter().find(|machine| is_etcd && !machine.is_control_plane && !args.nodes.is_empty()) {
        return Err(Problem::new(Code::BadFlag, format!("Machine {} is a worker: etcd runs on control planes only", worker.name))
            .remedy("name control planes with -n, or none for all of them"));
    }
    let only_planes = is_etcd && args.nodes.is_empty();
    let chosen: Vec<Machine> = chosen.into_iter().filter(|machine| !only_planes || machine.is_control_plane).collect();
    match &args.command {
        TalosCommand::Dmesg => dmesg(&chosen, &dialer, &identity, seams).await,
        TalosCommand::Version => tabled(args, &chosen, &dialer, &identity, &["TAG", "PLATFORM", "ARCH"], version, seams).await.map(drop),
        TalosCommand::Services => {
            let heads = ["SERVICE", "STATE", "HEALTH", "LAST MESSAGE"];
            tabled(args, &chosen, &dialer, &identity, &heads, services, seams).await.map(drop)
        }
        TalosCommand::Etcd { command: EtcdCommand::Snapshot(wanted) } => snapshot::run(wanted, &chosen, &dialer, &identity, seams).await,
        TalosCommand::Etcd { command: EtcdCommand::Members } => {
            let heads = ["ID", "HOSTNAME", "PEER URLS", "LEARNER"];
            let rows = tabled(args, &chosen, &dialer, &identity, &heads, members, seams).await?;
            if let Some(told) = agreement(&rows) {
                seams.printer.note(told);
            }
            Ok(())
        }
    }
}

/// Where the cluster is: in the namespace that is named, or in the only one that has a cluster of this name when none is.
async fn namespace(api: &Api, args: &Talos, cluster: &str) -> Result<String, Problem> {
    if let Some(namespace) = &args.namespace {
        return Ok(namespace.clone());
    }
    let list = api.get("/apis/cluster.x-k8s.io/v1beta2/clusters").await.map_err(|error| crate::apply::unreachable(&error))?;
    let items = list.as_ref().and_then(|list| list["items"].as_array()).cloned().unwrap_or_default();
    let of_name = items.iter().filter(|item| item["metadata"]["name"] == cluster);
    let found: Vec<&str> = of_name.filter_map(|item| item["metadata"]["namespace"].as_str()).collect();
    match found[..] {
        [only] => Ok(only.to_owned()),
        [] => Ok(DEFAULT.to_owned()),
        _ if found.contains(&DEFAULT) => Ok(DEFAULT.to_owned()),
        _ => Err(Problem::new(Code::BadFlag, format!("there is more than one Cluster {cluster}"))
            .seen(format!("in the namespaces {}", found.join(", ")))
            .remedy("say which one with --namespace")),
    }
}

/// The machines that `-n` names, all when it names none.
fn choose(args: &Talos, cluster: &str, machines: Vec<Machine>) -> Result<Vec<Machine>, Problem> {
    if args.nodes.is_empty() {
        return Ok(machines);
    }
    args.nodes
        .iter()
        .map(|wanted| {
            let is_it = |machine: &&Machine| machine.name == *wanted || machine.node == *wanted || machine.address.as_ref() == Some(wanted);
            machines.iter().find(is_it).cloned().ok_or_else(|| {
                let known: Vec<String> =
                    machines.iter().map(|machine| machine.address.clone().unwrap_or_else(|| machine.name.clone())).collect();
                Problem::new(Code::NotFound, format!("{wanted} is no node of Cluster {cluster}"))
                    .seen(format!("its nodes: {}", known.join(", ")))
                    .remedy("name one of them, or none for all")
            })
        })
        .collect()
}

pub(super) async fn connect(machine: &Machine, dialer: &dyn TalosDialer, identity: &ClientIdentity) -> Result<Arc<dyn TalosApi>, Problem> {
    let Some(address) = &machine.address else {
        return Err(Problem::new(Code::NodeUnreachable, format!("Machine {} has no address yet", machine.name))
            .remedy("`talosphere describe cluster` shows what it waits for"));
    };
    dialer.connect(address, identity).await.map_err(|error| unreachable(machine, &error))
}

pub(super) fn unreachable(machine: &Machine, error: &TalosError) -> Problem {
    let shown = machine.address.as_deref().unwrap_or(&machine.name);
    let problem = Problem::new(Code::NodeUnreachable, format!("node {shown} (Machine {}): {error}", machine.name));
    match error {
        TalosError::Unreachable { .. } => problem,
        // It did answer.
        _ => problem.remedy(format!("`talosphere talos -c CLUSTER -n {shown} services` and `dmesg` tell what the node is doing")),
    }
}

async fn version(api: Arc<dyn TalosApi>) -> Rows {
    let version = api.version().await?;
    Ok(vec![vec![version.tag, version.platform, version.arch]])
}

async fn services(api: Arc<dyn TalosApi>) -> Rows {
    let health = |is_healthy: Option<bool>| match is_healthy {
        Some(true) => "OK",
        Some(false) => "Fail",
        None => "?",
    };
    let services = api.services().await?;
    Ok(services
        .into_iter()
        .map(|service| vec![service.id, service.state, health(service.is_healthy).to_owned(), service.message])
        .collect())
}

async fn members(api: Arc<dyn TalosApi>) -> Rows {
    let members = api.etcd_members().await?;
    Ok(members
        .into_iter()
        .map(|member| vec![member.id.to_string(), member.hostname, member.peer_urls.join(","), member.is_learner.to_string()])
        .collect())
}

/// Asks every machine and prints one table; a machine that does not answer is told, and fails the command only when none does.
async fn tabled<F>(
    args: &Talos,
    machines: &[Machine],
    dialer: &dyn TalosDialer,
    identity: &ClientIdentity,
    heads: &[&str],
    ask: impl Fn(Arc<dyn TalosApi>) -> F,
    seams: &Seams,
) -> Result<Vec<Vec<String>>, Problem>
where
    F: Future<Output = Rows>,
{
    let mut rows = Vec::new();
    let mut problems = Vec::new();
    for machine in machines {
        let answer = match connect(machine, dialer, identity).await {
            Ok(api) => ask(api).await.map_err(|error| unreachable(machine, &error)),
            Err(problem) => Err(problem),
        };
        match answer {
            Ok(answer) => rows.extend(answer.into_iter().map(|row| [vec![machine.address.clone().unwrap_or_default()], row].concat())),
            Err(problem) => problems.push(problem),
        }
    }
    if rows.is_empty() {
        let mut problems = problems.into_iter();
        let first = problems.next().unwrap_or_else(|| Problem::new(Code::NodeUnreachable, "no node answered"));
        return Err(problems.fold(first, |first, other| first.seen(other.what)));
    }
    for problem in problems {
        seams.printer.line(format!("warning: {}", problem.what));
    }
    let heads: Vec<&str> = [&["NODE"], heads].concat();
    match args.output {
        form @ (Output::Json | Output::Yaml) => {
            let keys: Vec<String> = heads.iter().map(|head| head.to_lowercase().replace(' ', "_")).collect();
            // A cell that says yes or no is a boolean as data.
            let typed = |cell: &String| cell.parse::<bool>().map_or_else(|_| json!(cell), |is_so| json!(is_so));
            let list: Vec<Value> =
                rows.iter().map(|row| keys.iter().zip(row).map(|(key, cell)| (key.clone(), typed(cell))).collect()).collect();
            seams.printer.value(&Value::Array(list), form == Output::Json)?;
        }
        Output::Name => {
            let is_version = matches!(args.command, TalosCommand::Version);
            // A node has one version, but many services and members.
            let parts = if is_version { 1 } else { 2 };
            rows.iter().for_each(|row| seams.printer.data(&row.iter().take(parts).cloned().collect::<Vec<_>>().join("/")));
        }
        Output::Table | Output::Wide => seams.printer.data(&columns(&heads, &rows)),
    }
    Ok(rows)
}

/// Whether the members that each node names are the same ones. One node alone agrees with nobody.
fn agreement(rows: &[Vec<String>]) -> Option<String> {
    let mut views: BTreeMap<&str, BTreeSet<Vec<&str>>> = BTreeMap::new();
    for row in rows {
        if let [node, id, _, _, learner] = row.as_slice() {
            views.entry(node).or_default().insert(vec![id, learner]);
        }
    }
    let mut others = views.iter();
    let (first, members) = others.next()?;
    let differing: Vec<&str> = others.clone().filter(|(_, other)| *other != members).map(|(node, _)| *node).collect();
    match (views.len(), differing.is_empty()) {
        (..2, _) => None,
        (nodes, true) => Some(format!("note: all {nodes} nodes name the same {} members", members.len())),
        (_, false) => Some(format!(
            "warning: not all nodes name the same members as {first}: {}; a change is under way, or they cannot reach each other",
            differing.join(", ")
        )),
    }
}

async fn dmesg(machines: &[Machine], dialer: &dyn TalosDialer, identity: &ClientIdentity, seams: &Seams) -> Result<(), Problem> {
    for machine in machines {
        let api = connect(machine, dialer, identity).await?;
        let mut stream = api.dmesg(false, false).await.map_err(|error| unreachable(machine, &error))?;
        let node = machine.address.as_deref().unwrap_or(&machine.name);
        let mut text = Vec::new();
        while let Some(chunk) = stream.next().await {
            text.extend(chunk.map_err(|error| unreachable(machine, &error))?);
        }
        let lines: String = String::from_utf8_lossy(&text)
            .lines()
            .map(|line| if machines.len() > 1 { format!("{node}: {line}\n") } else { format!("{line}\n") })
            .collect();
        seams.printer.data(&lines);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::agreement;

    #[test]
    fn nodes_that_name_the_same_members_agree() {
        let row = |node: &str, id: &str, learner: &str| [node, id, "h", "u", learner].map(str::to_owned).to_vec();
        let one = [row("a", "1", "false"), row("a", "2", "false")];
        assert_eq!(agreement(&one), None);
        let both = [&one[..], &[row("b", "2", "false"), row("b", "1", "false")]].concat();
        assert_eq!(agreement(&both).unwrap(), "note: all 2 nodes name the same 2 members");
        let parted = [&both[..], &[row("d", "1", "false"), row("d", "2", "true")]].concat();
        assert!(agreement(&parted).unwrap().starts_with("warning: not all nodes name the same members as a: d;"));
    }
}
