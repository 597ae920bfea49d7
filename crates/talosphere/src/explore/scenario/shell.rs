//! What is typed in a scenario's terminals: `talosphere` is parsed by its own command line and carried out by its own commands, as a client
//! of the process that runs `talosphere serve`; `kubectl` is played.
//!
//! Commands end by themselves or with the process; nothing here asks a question.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use apiserver::User;
use clap::Parser as _;

use super::super::player::Player;
use super::kubectl::Kubectl;
use super::script::Script;
use super::transcript::{Names, Said};
use crate::apply::Api;
use crate::cli::{self, Cli, Command};
use crate::commands::demo::{EXAMPLE_NEIGHBOURS, EXAMPLE_VALUES, EXAMPLE_WORKLOAD, EXAMPLES, Material, Scratch};
use crate::commands::up::{Order, bring_up};
use crate::commands::{delete, describe, duration, get, repair, rollout, scale, talos, upgrade};
use crate::environment::Environment;
use crate::host::session::Session;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::site::Login;
use crate::state::StateDirectory;

/// A command on its way to its end.
pub type Running = Pin<Box<dyn Future<Output = Result<(), Problem>>>>;

/// The files that a user has at hand, and the state directory.
#[derive(Debug)]
pub struct Shell {
    files: BTreeMap<String, String>,
    directory: StateDirectory,
    _scratch: Scratch,
}

/// Splits a line as a shell does: blanks, single and double quotes.
///
/// # Errors
/// When a quote is not closed.
fn words(line: &str) -> Result<Vec<String>, Problem> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quote.is_some() { Err(Problem::new(Code::BadFlag, format!("a quote is not closed: {line}"))) } else { Ok(words) }
}

/// The argument of a flag; both are taken out.
fn taken(words: &mut Vec<String>, flag: &str) -> Option<String> {
    let at = words.iter().position(|word| word == flag)?;
    words.remove(at);
    (at < words.len()).then(|| words.remove(at))
}

impl Shell {
    /// With the examples, and with what the script has beside or instead of them.
    ///
    /// # Errors
    /// When an edit finds nothing to change, or there is no room for a state directory.
    pub fn new(script: &Script) -> Result<Self, Problem> {
        let examples = EXAMPLES.iter().chain(EXAMPLE_WORKLOAD).chain(EXAMPLE_NEIGHBOURS).chain([&EXAMPLE_VALUES]);
        let mut all: BTreeMap<String, String> = examples.map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        all.extend(script.files.clone());
        for (name, edit) in script.edits.iter().flat_map(|(name, edits)| edits.iter().map(move |edit| (name, edit))) {
            let text = all.get_mut(name).filter(|text| text.contains(&edit.from)).ok_or_else(|| {
                Problem::new(Code::BadYaml, format!("{}: there is nothing to edit in {name}", script.file)).seen(edit.from.clone())
            })?;
            *text = text.replace(&edit.from, &edit.to);
        }
        let unique = format!("talosphere-scenario-{}-{}", std::process::id(), script.file);
        let scratch = Scratch(std::env::temp_dir().join(unique));
        let directory = StateDirectory::open(&scratch.0)?;
        Ok(Self { files: all, directory, _scratch: scratch })
    }

    /// Where state is kept.
    pub fn place(&self) -> String {
        self.directory.path().display().to_string()
    }

    /// Begins a command.
    ///
    /// # Errors
    /// When it is none, or one that scenarios do not know.
    pub fn begin(&self, line: &str, player: &Player, names: &Names, said: &Said) -> Result<Running, Problem> {
        let mut words = words(line)?;
        let heard = said.clone();
        let printer = player.world.seams.printer.kept(move |spoken, text| heard.hear(spoken, text));
        let seams = Seams { printer, ..player.world.seams.clone() };
        if words.first().is_some_and(|word| word == "kubectl") {
            return self.kubectl(words.split_off(1), player, names, seams);
        }
        let cli = Cli::try_parse_from(&words).map_err(|error| Problem::new(Code::BadFlag, error.to_string()))?;
        self.product(cli.command, player, seams)
    }

    fn product(&self, command: Command, player: &Player, seams: Seams) -> Result<Running, Problem> {
        let (api, directory) = (player.world.api(), self.directory.clone());
        Ok(match command {
            Command::Up(args) => {
                let order = self.order(&args, player)?;
                let timeout = duration("--timeout", &args.timeout)?;
                Box::pin(async move { bring_up(&mut Session::over(api), &order, Some(&directory), timeout, &seams).await })
            }
            Command::Get(args) => Box::pin(async move { get::get(&args, &Session::over(api), &seams).await }),
            Command::Describe(args) => Box::pin(async move {
                let objects = describe::look(&args, &Session::over(api), &seams).await;
                describe::show(&args, &objects, &seams)
            }),
            Command::Scale(args) if args.dry_run => Box::pin(async move { scale::preview(&args, &api, &seams).await }),
            Command::Scale(args) => {
                let timeout = duration("--timeout", &args.timeout)?;
                Box::pin(async move { scale::carry_out(&args, timeout, &mut Session::over(api), &seams).await })
            }
            Command::Upgrade(args) if args.dry_run => {
                Box::pin(async move { upgrade::preview(&args, args.output.output, &api, &seams).await })
            }
            Command::Upgrade(args) => {
                let (timeout, wanted) = (duration("--timeout", &args.timeout)?, upgrade::wanted(&args)?);
                Box::pin(async move { upgrade::carry_out(&args, &wanted, timeout, &mut Session::over(api), &seams).await })
            }
            Command::Rollout(args) => Box::pin(async move { rollout::carry_out(&args.command, &mut Session::over(api), &seams).await }),
            Command::Delete(args) if args.dry_run => Box::pin(async move { delete::preview(&args, &api, &seams).await }),
            Command::Delete(args) => {
                let timeout = duration("--timeout", &args.timeout)?;
                Box::pin(async move { delete::carry_out(&args, timeout, &directory, &mut Session::over(api), &seams).await })
            }
            Command::Repair(args) => {
                let cli::RepairCommand::Etcd(args) = args.command;
                let (timeout, kept) = (duration("--timeout", &args.timeout)?, repair::kept(&args)?);
                let folder = repair::recover::folder(&directory, &args.namespace.namespace, &args.cluster);
                Box::pin(async move {
                    let mut session = Session::over(api);
                    repair::preview(&args, kept.as_ref(), &session, &seams).await?;
                    if args.dry_run {
                        return Ok(());
                    }
                    repair::carry_out(&args, kept.as_ref(), &folder, timeout, &mut session, &seams).await
                })
            }
            Command::Talos(args) => Box::pin(async move { talos::over(&args, &api, &seams).await }),
            other => return Err(Problem::new(Code::BadFlag, format!("scenarios know no such command: {other:?}"))),
        })
    }

    fn file(&self, path: &std::path::Path) -> Result<(String, String), Problem> {
        let name = path.display().to_string();
        let text = self.files.get(&name).cloned();
        text.map(|text| (name.clone(), text))
            .ok_or_else(|| Problem::new(Code::UnreadableFile, format!("{name} cannot be read")).because("there is no such file"))
    }

    /// What `up` is to bring up, from the scenario's files; the login is the simulator's.
    fn order(&self, args: &cli::Up, player: &Player) -> Result<Order, Problem> {
        let read = |paths: &[PathBuf]| paths.iter().map(|path| self.file(path)).collect::<Result<Vec<_>, _>>();
        let own = &player.world.material;
        // The first source is the simulator's own.
        let mut sources: Vec<(String, String)> = own.sources.iter().take(1).cloned().collect();
        sources.extend(read(&args.input.env_files)?);
        let material = Material {
            files: read(&args.input.files)?,
            workload: read(&args.workload)?,
            neighbours: BTreeMap::new(),
            sources,
            environment: Environment::default(),
            login: Login { user: own.login.user.clone(), password: own.login.password.clone() },
            set: args.input.set.clone(),
        };
        material.order(&player.world.simulator.vcenter_thumbprint(), Some(&args.namespace.namespace))
    }

    fn kubectl(&self, mut words: Vec<String>, player: &Player, names: &Names, seams: Seams) -> Result<Running, Problem> {
        let is_workload = taken(&mut words, "--kubeconfig").is_some();
        let namespace = taken(&mut words, "-n").unwrap_or_else(|| "default".to_owned());
        let api = if is_workload {
            let server = player.world.simulator.nodes().workload_apis().pop();
            let server = server.ok_or_else(|| Problem::new(Code::NotFound, "the cluster has no API yet"))?;
            Api::new(kube::Client::new(server.service(&User::admin("admin")), "default"))
        } else {
            player.world.api()
        };
        let (checker, within) = (player.world.watch.checker().cloned(), namespace.clone());
        let deletes = move |plural: &str, name: &str| {
            if let Some(checker) = checker.as_ref().filter(|_| !is_workload) {
                checker.person_writes(plural, &within, name);
            }
        };
        let files = self.files.iter().map(|(name, text)| (name.clone(), names.fill(text))).collect();
        let kubectl = Kubectl { api, namespace, files, printer: seams.printer, deletes: Box::new(deletes) };
        Ok(Box::pin(async move {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            kubectl.run(&words).await
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_as_a_shell_does() {
        let line = r#"kubectl patch md w -p '{"a": "b c"}' "" x"y z""#;
        assert_eq!(words(line).unwrap(), ["kubectl", "patch", "md", "w", "-p", r#"{"a": "b c"}"#, "", "xy z"]);
        assert!(words("kubectl 'x").is_err());
        let mut line = words("get machines -n team").unwrap();
        assert_eq!((taken(&mut line, "-n").as_deref(), line.len()), (Some("team"), 2));
    }
}
