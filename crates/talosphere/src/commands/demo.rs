//! `demo`: a cluster on the simulator, in this process.
//!
//! Everything on our side is the product: the same commands, API, controllers and clients as for a real vCenter, over the simulator's
//! network. Only its clock for cloning and booting runs faster.

use std::path::{Path, PathBuf};

use tokio::net::TcpListener;

use super::simulate::{login, neighbours, own_values, start};
use super::up::{Order, bring_up};
use super::{duration, input};
use crate::cli::Demo;
use crate::environment::Environment;
use crate::host::session::Session;
use crate::problem::{Code, Problem};
use crate::render::values::Values;
use crate::seams::Seams;
use crate::signal::interrupted;
use crate::site::{Login, site};
use crate::state::{INSTALLATION, STORE, StateDirectory};

/// The demo's own manifests, in the binary so that it needs no file.
pub const EXAMPLES: &[(&str, &str)] =
    &[("ipam.yaml", include_str!("../../../../examples/ipam.yaml")), ("standard.yaml", include_str!("../../../../examples/standard.yaml"))];
/// What belongs into the demo's cluster.
pub const EXAMPLE_WORKLOAD: &[(&str, &str)] = &[("cpi-secrets.yaml", include_str!("../../../../examples/cpi-secrets.yaml"))];
/// What the machine configurations of the demo name by URL.
pub const EXAMPLE_NEIGHBOURS: &[(&str, &str)] =
    &[("cpi.yaml", include_str!("../../../../examples/cpi.yaml")), ("vm-tools.yaml", include_str!("../../../../examples/vm-tools.yaml"))];
/// The demo's values.
pub const EXAMPLE_VALUES: (&str, &str) = ("standard.env", include_str!("../../../../examples/standard.env"));

fn owned(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

/// The demo's order and everything the simulator needs for it.
#[derive(Debug)]
pub struct Material {
    /// Manifests and what belongs into the cluster: names and texts.
    pub files: Vec<(String, String)>,
    pub workload: Vec<(String, String)>,
    /// What the simulator serves for URLs, by base name.
    pub neighbours: std::collections::BTreeMap<String, String>,
    /// Environment files, the simulator's own values first.
    pub sources: Vec<(String, String)>,
    pub environment: Environment,
    pub login: Login,
    pub set: Vec<String>,
}

impl Material {
    /// What the simulated vCenter must contain.
    ///
    /// # Errors
    /// As rendering does.
    pub fn site(&self) -> Result<simulator::vcenter::Site, Problem> {
        self.site_with(&[])
    }

    /// The same, with further templates as `simulate --template` names them.
    ///
    /// # Errors
    /// As rendering does, and when a template is malformed.
    pub fn site_with(&self, templates: &[String]) -> Result<simulator::vcenter::Site, Problem> {
        let values = Values::new(&self.set, self.environment.clone(), &self.sources)?;
        site(&input::manifests(&self.files, &values)?.manifests, &self.login, templates)
    }

    /// The order, with the thumbprint that the simulated vCenter has.
    ///
    /// # Errors
    /// As rendering does.
    pub fn order(&self, thumbprint: &str, namespace: Option<&str>) -> Result<Order, Problem> {
        let mut set = self.set.clone();
        set.push(format!("VSPHERE_TLS_THUMBPRINT={thumbprint}"));
        let values = Values::new(&set, self.environment.clone(), &self.sources)?;
        let namespace = namespace.map(str::to_owned).or_else(|| values.non_empty("MGMT_NAMESPACE")).unwrap_or_else(|| "default".to_owned());
        let (manifests, workload) =
            (input::manifests(&self.files, &values)?.manifests, input::manifests(&self.workload, &values)?.manifests);
        Order::new(manifests, workload, &namespace, &values)
    }
}

/// The demo's own files. They use their own values only: a clash of names with the user's environment would be a surprise.
pub fn own_material(seams: &Seams) -> Material {
    let environment = Environment::default();
    let login = login(&environment, seams);
    let mut sources = own_values(&login);
    sources.push((EXAMPLE_VALUES.0.to_owned(), EXAMPLE_VALUES.1.to_owned()));
    let files = owned(EXAMPLES);
    Material {
        neighbours: neighbours(&[], &owned(EXAMPLE_NEIGHBOURS)),
        workload: owned(EXAMPLE_WORKLOAD),
        files,
        sources,
        environment,
        login,
        set: Vec::new(),
    }
}

/// The user's files.
fn material(args: &Demo, seams: &Seams) -> Result<Material, Problem> {
    let mut material = if args.input.files.is_empty() {
        own_material(seams)
    } else {
        let login = login(&seams.environment, seams);
        Material {
            files: input::read_all(&args.input.files)?,
            workload: input::read_all(&args.workload)?,
            neighbours: neighbours(&args.input.files, &[]),
            sources: own_values(&login),
            environment: seams.environment.clone(),
            login,
            set: Vec::new(),
        }
    };
    material.sources.extend(input::read_all(&args.input.env_files)?);
    material.set.clone_from(&args.input.set);
    Ok(material)
}

/// A folder that goes with the demo.
#[derive(Debug)]
pub struct Scratch(pub PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the command.
///
/// # Errors
/// With what stands in the way.
pub async fn run(args: Demo, state: Option<PathBuf>, seams: &Seams) -> Result<(), Problem> {
    let timeout = duration("--timeout", &args.timeout)?;
    let material = material(&args, seams)?;
    let simulator = start(material.site()?, args.speed, material.neighbours.clone(), seams).await?;
    let order = material.order(&simulator.vcenter_thumbprint(), None)?;
    let proxy = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(|error| Problem::new(Code::Network, "no port on loopback").because(error.to_string()))?;
    let address = proxy.local_addr().map_err(|error| Problem::new(Code::Network, "no port on loopback").because(error.to_string()))?;
    tokio::spawn({
        let simulator = simulator.clone();
        async move { simulator.serve_proxy(Box::new(proxy)).await }
    });
    let seams = Seams { dialer: simulator.network(), proxy: Some(format!("http://{address}")), ..seams.clone() };

    let scratch = Scratch(std::env::temp_dir().join(format!("talosphere-demo-{}", std::process::id())));
    let directory = match &state {
        Some(path) => claimed(path)?,
        None => StateDirectory::open(&scratch.0)?,
    };
    let mut session = Session::changing(&directory, "demo", &seams).await?;
    // What ends with the demo is of no use to anybody: no files are written for it.
    let files = (!args.exit_when_ready).then_some(&directory);
    let outcome = tokio::select! {
        outcome = bring_up(&mut session, &order, files, timeout, &seams) => outcome,
        () = interrupted() => Err(Problem::new(Code::Interrupted, "interrupted").remedy("run the command again; it begins anew")),
    };
    if outcome.is_ok() && args.exit_when_ready {
        seams.printer.line("the demo ends, and its cluster with it; without --exit-when-ready it stays up");
    } else if outcome.is_ok() {
        if let Some(host) = session.host() {
            let text = crate::render::yaml::write(&host.pki.kubeconfig(&host.address.to_string()))
                .map_err(|error| Problem::new(Code::Internal, error))?;
            let path = directory.write("kubeconfig", &text)?;
            seams
                .printer
                .note(format!("  kubectl --kubeconfig {} get clusters,machines,vspherevms -A   # the API that manages it", path.display()));
        }
        seams.printer.note("It stays up until interrupted (Ctrl-C).");
        interrupted().await;
    }
    session.close(&seams).await;
    drop(scratch);
    outcome
}

/// What marks a state directory as a demo's.
const MARK: &str = "demo";

/// The state directory that `--state` names: a new one, or one that a demo has left. What that demo stored is of no use without its
/// simulator and is thrown away; a directory with other clusters is never touched.
fn claimed(path: &Path) -> Result<StateDirectory, Problem> {
    let directory = StateDirectory::open(path)?;
    let busy = || {
        Problem::new(Code::StateBusy, format!("the state directory {} is owned by another process", path.display()))
            .remedy("name another directory with --state, or none")
    };
    let ownership = directory.try_own()?.ok_or_else(busy)?;
    if directory.has_store() {
        if directory.read(MARK).is_err() {
            return Err(Problem::new(
                Code::StateUnusable,
                format!("the state directory {} holds the state of other clusters", path.display()),
            )
            .because("a demo begins with an empty state of its own, and its machines end with it")
            .remedy("name another directory with --state, or none"));
        }
        // The id goes first: without its store it would tell of a loss.
        for name in [INSTALLATION, STORE] {
            let file = directory.join(name);
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Problem::new(Code::StateUnusable, format!("{} of the last demo cannot be removed", file.display()))
                        .because(error.to_string())
                        .remedy("name another directory with --state, or none"));
                }
                _ => {}
            }
        }
    }
    directory.write(MARK, "made by `talosphere demo`\n")?;
    drop(ownership);
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_takes_only_a_directory_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let first = claimed(&path).unwrap();
        std::fs::write(first.join(STORE), "old").unwrap();
        std::fs::write(first.join(INSTALLATION), "old").unwrap();
        let again = claimed(&path).unwrap();
        assert!(!again.has_store(), "what the last demo stored is gone");
        again.check().unwrap();
        let other = StateDirectory::open(&folder.path().join("other")).unwrap();
        std::fs::write(other.join(STORE), "precious").unwrap();
        let problem = claimed(other.path()).unwrap_err();
        assert!(problem.code == Code::StateUnusable && other.has_store(), "{problem}");
    }
}
