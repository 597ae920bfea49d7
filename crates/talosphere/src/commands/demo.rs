//! `demo`: a cluster on the simulator, in this process.
//!
//! Everything on our side is the product: the same commands, API, controllers and clients as for a real vCenter, over the simulator's
//! network. Only its clock for cloning and booting runs faster.

use std::path::PathBuf;

use tokio::net::TcpListener;

use super::simulate::{login, neighbours, own_values, start};
use super::up::{Order, bring_up};
use super::{input, interrupted};
use crate::cli::Demo;
use crate::environment::Environment;
use crate::host::session::Session;
use crate::problem::{Code, Problem};
use crate::render::values::Values;
use crate::seams::Seams;
use crate::site::site;
use crate::state::StateDirectory;

/// The demo's own manifests, in the binary so that it needs no file.
pub const EXAMPLES: &[(&str, &str)] = &[
    ("ipam.yaml", include_str!("../../../../examples/ipam.yaml")),
    ("standard.yaml", include_str!("../../../../examples/standard.yaml")),
];
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

/// A folder that goes with the demo.
struct Scratch(PathBuf);

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
    // A clash of names between the demo and the user's own environment would be a surprise: the demo's own files use their own values.
    let is_own = args.input.files.is_empty();
    let (files, workload, further) = if is_own {
        (owned(EXAMPLES), owned(EXAMPLE_WORKLOAD), owned(EXAMPLE_NEIGHBOURS))
    } else {
        (input::read_all(&args.input.files)?, input::read_all(&args.workload)?, Vec::new())
    };
    let environment = if is_own { Environment::default() } else { seams.environment.clone() };
    let login = login(&environment, seams);
    let mut sources = own_values(&login);
    if is_own {
        sources.push((EXAMPLE_VALUES.0.to_owned(), EXAMPLE_VALUES.1.to_owned()));
    }
    sources.extend(input::read_all(&args.input.env_files)?);
    let first = Values::new(&args.input.set, environment.clone(), &sources)?;
    let site = site(&input::manifests(&files, &first)?.manifests, &login, &[])?;
    let namespace = first.non_empty("MGMT_NAMESPACE").unwrap_or_else(|| "default".to_owned());
    let simulator = start(site, args.speed, neighbours(&args.input.files, &further), seams).await?;

    // The manifests once more, with the thumbprint that the simulated vCenter has.
    let mut set = args.input.set.clone();
    set.push(format!("VSPHERE_TLS_THUMBPRINT={}", simulator.vcenter_thumbprint()));
    let values = Values::new(&set, environment, &sources)?;
    let order = Order::new(input::manifests(&files, &values)?.manifests, input::manifests(&workload, &values)?.manifests, &namespace, &values)?;

    let proxy = TcpListener::bind("127.0.0.1:0").await.map_err(|error| Problem::new(Code::Network, "no port on loopback").because(error.to_string()))?;
    let address = proxy.local_addr().map_err(|error| Problem::new(Code::Network, "no port on loopback").because(error.to_string()))?;
    simulator.serve_proxy(Box::new(proxy));
    let seams = Seams { dialer: simulator.network(), proxy: Some(format!("http://{address}")), ..seams.clone() };

    let scratch = Scratch(std::env::temp_dir().join(format!("talosphere-demo-{}", std::process::id())));
    let directory = StateDirectory::open(&state.unwrap_or_else(|| scratch.0.clone()))?;
    let mut session = Session::changing(&directory, "demo", &seams).await?;
    let outcome = tokio::select! {
        outcome = bring_up(&mut session, &order, &directory, std::time::Duration::from_secs(3600), &seams) => outcome,
        () = interrupted() => Err(Problem::new(Code::Interrupted, "interrupted")),
    };
    if outcome.is_ok() && !args.exit_when_ready {
        if let Some(host) = session.host() {
            let text = crate::render::yaml::write(&host.pki.kubeconfig(&host.address.to_string())).map_err(|error| Problem::new(Code::Internal, error))?;
            let path = directory.write("kubeconfig", &text)?;
            seams.printer.note(format!("  kubectl --kubeconfig {} get clusters,machines,vspherevms -A   # the API that manages it", path.display()));
        }
        seams.printer.note("It stays up until interrupted (Ctrl-C).");
        interrupted().await;
    }
    session.close(&seams).await;
    drop(scratch);
    outcome
}
