//! The command line: kubectl's grammar and meanings wherever there is one.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::problem::{Code, Problem};

/// Turns Cluster API manifests into running Talos Linux clusters on VMware vSphere, and keeps them running.
#[derive(Debug, Parser)]
#[command(name = "talosphere", version, disable_help_subcommand = true, args_override_self = true, max_term_width = 100)]
pub struct Cli {
    /// Where state is kept [env: TALOSPHERE_STATE] [default: $XDG_STATE_HOME/talosphere; of `demo`: a folder that goes with it]
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// More on standard error: -v steps, -vv everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// A cluster on the simulator, in this process, with live progress
    Demo(Demo),
    /// The simulator as its own process, for any client
    Simulate(Simulate),
    /// Templates and environment files to manifests
    Render(Render),
    /// Render, check, apply, wait, write kubeconfig and talosconfig; run again to continue
    Up(Up),
    /// The API and the controllers in the foreground
    Serve(Serve),
    /// Objects in a table, or as YAML or JSON
    Get(Get),
    /// The tree of a cluster: what is ready, what waits for what
    Describe(Describe),
    /// The administrator's kubeconfig of a cluster
    Kubeconfig(OfCluster),
    /// The talosconfig of a cluster
    Talosconfig(OfCluster),
    /// The Talos API of a cluster's nodes; no address needed
    Talos(Talos),
    /// Change the number of machines
    Scale(Scale),
    /// Another version of Kubernetes or Talos, by replacing every machine: control planes first, then workers
    Upgrade(Upgrade),
    /// A change that is rolled out to machines: how far it is, stop, continue, repeat, take back
    Rollout(Rollout),
    /// What was lost and does not come back by itself
    Repair(Repair),
    /// Delete clusters and other objects, and prove that nothing is left
    Delete(Delete),
    /// What an error code means and what to do
    Error(ErrorPage),
}

/// Which manifests, with which values.
#[derive(Clone, Debug, Default, Args)]
pub struct Input {
    /// Manifest or template; may be repeated; `-` is standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// File of `NAME=value` or `export NAME=value` lines; may be repeated, a later file wins
    #[arg(long = "env", value_name = "FILE")]
    pub env_files: Vec<PathBuf>,
    /// Value of a template variable; wins over the environment and over --env files
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub struct Namespace {
    /// Namespace
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

#[derive(Debug, Args)]
pub struct Demo {
    #[command(flatten)]
    pub input: Input,
    /// Files that belong to the new cluster, applied when its API answers
    #[arg(long, value_name = "FILE")]
    pub workload: Vec<PathBuf>,
    /// End when the cluster is ready
    #[arg(long)]
    pub exit_when_ready: bool,
    /// Divides the simulated times to clone and boot; 0 makes them zero
    #[arg(long, default_value_t = 1.0)]
    pub speed: f64,
    /// Give up when the cluster is not ready after this time
    #[arg(long, default_value = "15m", value_name = "DURATION")]
    pub timeout: String,
}

#[derive(Debug, Args)]
pub struct Simulate {
    #[command(flatten)]
    pub input: Input,
    /// A further template: its name and Talos version; `NAME=VERSION,no-snapshot` makes one without snapshot
    #[arg(long = "template", value_name = "NAME=VERSION[,no-snapshot]")]
    pub templates: Vec<String>,
    /// Divides the simulated times to clone and boot; 0 makes them zero
    #[arg(long, default_value_t = 1.0)]
    pub speed: f64,
    /// Address to listen on for vCenter and for the proxy
    #[arg(long, default_value = "127.0.0.1")]
    pub listen: String,
}

#[derive(Debug, Args)]
pub struct Render {
    #[command(flatten)]
    pub input: Input,
    /// Show each variable, its value and where it came from, instead of the manifests
    #[arg(long)]
    pub show_values: bool,
}

#[derive(Debug, Args)]
pub struct Up {
    #[command(flatten)]
    pub input: Input,
    /// Files that belong to the new cluster, applied when its API answers
    #[arg(long, value_name = "FILE")]
    pub workload: Vec<PathBuf>,
    #[command(flatten)]
    pub namespace: Namespace,
    /// Give up after this time; the state is kept (`90s`, `30m`, `2h`)
    #[arg(long, default_value = "60m", value_name = "DURATION")]
    pub timeout: String,
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Write a kubeconfig for this API here
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: String,
    /// Controllers to leave out, by name
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub without: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Wide,
    Name,
    Json,
    Yaml,
}

#[derive(Clone, Debug, Args)]
pub struct OutputFlag {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct Get {
    /// Kind, plural or short name: `machines`, `tcp`; several with commas
    pub kind: String,
    pub name: Option<String>,
    #[command(flatten)]
    pub namespace: Namespace,
    /// All namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Debug, Args)]
pub struct Describe {
    /// `cluster`
    pub kind: String,
    pub name: String,
    #[command(flatten)]
    pub namespace: Namespace,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Debug, Args)]
pub struct OfCluster {
    pub cluster: String,
    #[command(flatten)]
    pub namespace: Namespace,
}

#[derive(Debug, Args)]
pub struct Talos {
    /// Cluster (needed)
    #[arg(short, long, global = true)]
    pub cluster: Option<String>,
    /// Nodes, by address or name; all of the cluster when absent
    #[arg(short, long, global = true, value_delimiter = ',')]
    pub nodes: Vec<String>,
    /// Namespace of the cluster; the one that has a cluster of this name when absent
    #[arg(long, global = true)]
    pub namespace: Option<String>,
    /// Form of the output
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Output,
    #[command(subcommand)]
    pub command: TalosCommand,
}

#[derive(Debug, Subcommand)]
pub enum TalosCommand {
    /// The kernel's and Talos's messages
    Dmesg,
    /// The Talos version of each node
    Version,
    /// Services, their state and health
    #[command(alias = "service")]
    Services,
    /// etcd
    Etcd {
        #[command(subcommand)]
        command: EtcdCommand,
    },
}

#[derive(Debug, Subcommand)]
pub enum EtcdCommand {
    /// The members as each node sees them
    Members,
    /// Write a snapshot of etcd, from which a cluster that lost its quorum can be restored
    Snapshot(EtcdSnapshot),
}

#[derive(Debug, Args)]
pub struct EtcdSnapshot {
    /// The file to write. It holds all of the cluster's Secrets: only its owner may read it
    pub file: std::path::PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Scale {
    /// What to scale: `machinedeployment/NAME`, `taloscontrolplane/NAME`
    #[arg(value_name = "KIND/NAME")]
    pub target: String,
    #[arg(long)]
    pub replicas: u32,
    #[command(flatten)]
    pub namespace: Namespace,
    /// List the Machines that would come or go, and why; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not wait until the machines are there
    #[arg(long)]
    pub no_wait: bool,
    /// Give up waiting after this time
    #[arg(long, default_value = "60m", value_name = "DURATION")]
    pub timeout: String,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Debug, Args)]
pub struct Upgrade {
    pub cluster: String,
    /// Kubernetes version, such as v1.33.0
    #[arg(long, value_name = "VERSION", required_unless_present_any = ["template", "abort"])]
    pub kubernetes: Option<String>,
    /// Talos release that the VM template holds, for which configurations are written from now on, such as v1.10
    #[arg(long, value_name = "VERSION", requires = "template")]
    pub talos: Option<String>,
    /// VM template in vCenter that all machines are made from; copies of the VSphereMachineTemplates are made for it
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
    #[command(flatten)]
    pub namespace: Namespace,
    /// List the Machines that would be replaced, in order and why, and what that needs; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Stop an upgrade that is under way: pause it where it is; the rest stays as it is
    #[arg(long, conflicts_with_all = ["kubernetes", "talos", "template", "dry_run"])]
    pub abort: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Give up waiting after this time; what is stored by then is still rolled out
    #[arg(long, default_value = "2h", value_name = "DURATION")]
    pub timeout: String,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Debug, Args)]
pub struct Repair {
    #[command(subcommand)]
    pub command: RepairCommand,
}

#[derive(Debug, Subcommand)]
pub enum RepairCommand {
    /// An etcd that lost its quorum: what is left, what can be done in the order of what is lost by it, and the doing
    Etcd(RepairEtcd),
}

#[derive(Debug, Args)]
pub struct RepairEtcd {
    pub cluster: String,
    #[command(flatten)]
    pub namespace: Namespace,
    /// Switch machines on and wait for their members: nothing is lost
    #[arg(long, group = "way")]
    pub power_on: bool,
    /// Begin etcd anew with the data of this control plane's member
    #[arg(long, group = "way", value_name = "MACHINE")]
    pub from_member: Option<String>,
    /// Begin etcd anew with a snapshot, as `talos etcd snapshot` writes it
    #[arg(long, group = "way", value_name = "FILE")]
    pub from_snapshot: Option<PathBuf>,
    /// Show how etcd stands and what can be done; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Give up waiting after this time; what was begun is recorded
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    pub timeout: String,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Debug, Args)]
pub struct Rollout {
    #[command(subcommand)]
    pub command: RolloutCommand,
}

#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// How far a rollout is; waits for its end
    Status(RolloutStatus),
    /// Replace no Machines until `resume`
    Pause(RolloutChange),
    /// Go on with what was paused
    Resume(RolloutChange),
    /// Replace every Machine by one like it
    Restart(RolloutChange),
    /// Back to a former revision
    Undo(RolloutUndo),
    /// The revisions that are kept, and what each changed
    History(RolloutHistory),
}

/// What is rolled out.
#[derive(Debug, Args)]
pub struct RolloutTarget {
    /// `machinedeployment/NAME`; of `status`, `pause` and `resume` also `taloscontrolplane/NAME`
    #[arg(value_name = "KIND/NAME", required = true, num_args = 1..=2)]
    pub target: Vec<String>,
    #[command(flatten)]
    pub namespace: Namespace,
}

impl RolloutTarget {
    /// Kind and name: `md/NAME`, or `md NAME`.
    ///
    /// # Errors
    /// When one of them is missing.
    pub fn parts(&self) -> Result<(&str, &str), Problem> {
        let parts = match self.target.as_slice() {
            [one] => one.split_once('/'),
            [kind, name] if !kind.contains('/') => Some((kind.as_str(), name.as_str())),
            _ => None,
        };
        parts.filter(|(kind, name)| !kind.is_empty() && !name.is_empty()).ok_or_else(|| {
            Problem::new(Code::BadFlag, format!("{} does not name what is rolled out", self.target.join(" ")))
                .remedy("write it as machinedeployment/NAME or taloscontrolplane/NAME")
        })
    }
}

#[derive(Debug, Args)]
pub struct RolloutStatus {
    #[command(flatten)]
    pub target: RolloutTarget,
    /// Wait for the end; `--watch=false` tells how far it is
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub watch: bool,
    /// Give up waiting after this time; the rollout goes on
    #[arg(long, default_value = "60m", value_name = "DURATION")]
    pub timeout: String,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Debug, Args)]
pub struct RolloutChange {
    #[command(flatten)]
    pub target: RolloutTarget,
    /// List the Machines that it is about, and why; change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Debug, Args)]
pub struct RolloutUndo {
    #[command(flatten)]
    pub change: RolloutChange,
    /// The revision to go back to; the last one before the present when absent or 0
    #[arg(long, value_name = "N")]
    pub to_revision: Option<i64>,
}

#[derive(Debug, Args)]
pub struct RolloutHistory {
    #[command(flatten)]
    pub target: RolloutTarget,
    #[command(flatten)]
    pub output: OutputFlag,
}

impl RolloutCommand {
    /// What it is about.
    pub fn target(&self) -> &RolloutTarget {
        match self {
            Self::Status(args) => &args.target,
            Self::Pause(args) | Self::Resume(args) | Self::Restart(args) => &args.target,
            Self::Undo(args) => &args.change.target,
            Self::History(args) => &args.target,
        }
    }
}

#[derive(Debug, Args)]
pub struct Delete {
    /// `cluster`, or another kind
    pub kind: String,
    pub name: String,
    #[command(flatten)]
    pub namespace: Namespace,
    /// List the Machines that would go with it, in order; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Give up waiting after this time; deletion goes on
    #[arg(long, default_value = "60m", value_name = "DURATION")]
    pub timeout: String,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Debug, Args)]
pub struct ErrorPage {
    /// The code, such as TS102; all codes when absent
    pub code: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_stand_before_and_behind_a_subcommand_and_the_last_one_wins() {
        let cli =
            Cli::try_parse_from(["talosphere", "talos", "dmesg", "-c", "demo", "-n", "a,b", "-n", "c", "--namespace", "team"]).unwrap();
        let Command::Talos(talos) = cli.command else { panic!("{cli:?}") };
        assert_eq!((talos.cluster.as_deref(), talos.namespace.as_deref()), (Some("demo"), Some("team")));
        assert_eq!(talos.nodes, ["a", "b", "c"]);
        let cli = Cli::try_parse_from(["talosphere", "get", "machines", "-n", "a", "-n", "b", "-o", "json", "-o", "yaml"]).unwrap();
        let Command::Get(get) = cli.command else { panic!("{cli:?}") };
        assert_eq!((get.namespace.namespace.as_str(), get.output.output), ("b", Output::Yaml));
    }
}
