//! `simulate`: a vCenter and a VM network in the place of real ones, for any client.

use std::sync::Arc;

use simulator::{Latency, Simulator};
use tokio::net::TcpListener;

use super::input;
use crate::cli::Simulate;
use crate::environment::Environment;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::signal::interrupted;
use crate::site::{Login, site};

/// What the templates of a site may use before the site exists; everything else wins over it.
pub const DEFAULTS: &str = "VSPHERE_TLS_THUMBPRINT=00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00\n";

/// The name under which the simulator's own values are told.
pub const SIMULATOR: &str = "the simulator";

/// The login to the simulated vCenter: the environment's, else one made up.
pub fn login(environment: &Environment, seams: &Seams) -> Login {
    let user = environment.non_empty("VSPHERE_USERNAME").unwrap_or("administrator@vsphere.local").to_owned();
    let made_up = || seams.random.child("password").characters(20, b"abcdefghjkmnpqrstuvwxyzABCDEFGHJKMNPQRSTUVWXYZ23456789");
    let password = environment.non_empty("VSPHERE_PASSWORD").map_or_else(made_up, str::to_owned);
    Login { user, password }
}

/// Values that `simulate` and `demo` know themselves: the login, and a thumbprint until there is one.
pub fn own_values(login: &Login) -> Vec<(String, String)> {
    let quoted = |text: &str| text.replace('\'', "'\\''");
    let text = format!("{DEFAULTS}VSPHERE_USERNAME='{}'\nVSPHERE_PASSWORD='{}'\n", quoted(&login.user), quoted(&login.password));
    vec![(SIMULATOR.to_owned(), text)]
}

/// Files beside the `-f` files, by base name: what the simulator serves for URLs of that base name.
pub fn neighbours(files: &[std::path::PathBuf], texts: &[(String, String)]) -> std::collections::BTreeMap<String, String> {
    let mut found = std::collections::BTreeMap::new();
    let base = |path: &std::path::Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    for file in files {
        let folder = if file.is_dir() { file.clone() } else { file.parent().map(std::path::Path::to_path_buf).unwrap_or_default() };
        let folder = if folder.as_os_str().is_empty() { std::path::PathBuf::from(".") } else { folder };
        for path in std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())) {
            let is_manifest = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
            if let (true, Some(name), Ok(text)) = (is_manifest, base(&path), std::fs::read_to_string(&path)) {
                found.insert(name, text);
            }
        }
    }
    for (name, text) in texts {
        if let Some(name) = base(std::path::Path::new(name)) {
            found.insert(name, text.clone());
        }
    }
    found
}

/// Quotes a value for a shell.
fn quoted(text: &str) -> String {
    let is_plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c));
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Runs the command until it is interrupted.
///
/// # Errors
/// When the manifests cannot be rendered, name no vCenter, or an address cannot be listened on.
pub async fn run(args: Simulate, seams: &Seams) -> Result<(), Problem> {
    let login = login(&seams.environment, seams);
    let values = input::values(&args.input, &own_values(&login), seams)?;
    let files = input::read_all(&args.input.files)?;
    let rendered = input::manifests(&files, &values)?;
    let site = site(&rendered.manifests, &login, &args.templates)?;
    let server = site.server.clone();
    let simulator = start(site, args.speed, neighbours(&args.input.files, &[]), seams).await?;
    let listen = |port: u16| {
        let address = (args.listen.clone(), port);
        async move {
            let busy = |error: std::io::Error| {
                Problem::new(Code::Network, format!("cannot listen on {}:{}", address.0, address.1)).because(error.to_string())
            };
            TcpListener::bind((address.0.as_str(), address.1)).await.map_err(busy)
        }
    };
    let (proxy, vcenter) = (listen(0).await?, listen(0).await?);
    let address = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    let exports = [
        ("VSPHERE_USERNAME", login.user.clone()),
        ("VSPHERE_PASSWORD", login.password.clone()),
        ("VSPHERE_TLS_THUMBPRINT", simulator.vcenter_thumbprint()),
        ("TALOSPHERE_PROXY", format!("http://{}", address(&proxy))),
        ("GOVC_URL", format!("https://{}/sdk", address(&vcenter))),
        ("GOVC_USERNAME", login.user.clone()),
        ("GOVC_PASSWORD", login.password.clone()),
        ("GOVC_INSECURE", "true".to_owned()),
    ];
    let text: String = exports.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value))).collect();
    seams.printer.data(&text);
    seams.printer.line(format!("the vCenter {server} is simulated; evaluate the lines above in the shell that runs `talosphere up`"));
    tokio::select! {
        () = simulator.serve_proxy(Box::new(proxy)) => {}
        () = simulator.serve_vcenter(Box::new(vcenter)) => {}
        () = interrupted() => {}
    }
    Ok(())
}

/// By what real times are divided at `--speed 1`, so that a cluster is there in about ten seconds.
const REAL_TO_DEMO: f64 = 10.0;

/// A simulator for a site. `files` are served for the URLs of machine configurations, by base name.
///
/// # Errors
/// When its certificate cannot be made.
pub async fn start(
    site: simulator::vcenter::Site,
    speed: f64,
    files: std::collections::BTreeMap<String, String>,
    seams: &Seams,
) -> Result<Arc<Simulator>, Problem> {
    if !speed.is_finite() || speed < 0.0 {
        return Err(Problem::new(Code::BadFlag, format!("--speed {speed} is not a factor"))
            .remedy("0 for no delays, 1 for about ten seconds, 10 for one"));
    }
    let factor = if speed > 0.0 { 1.0 / (REAL_TO_DEMO * speed) } else { 0.0 };
    let (clock, random) = (seams.clock.clone(), seams.random.child("simulator"));
    let mut config = simulator::Config::new(site, clock, random, seams.log.clone(), seams.tls.clone(), seams.keys.clone());
    config.latency = Latency::scaled(factor);
    config.manifests = files;
    let started = Simulator::start(config).await;
    let simulator =
        started.map_err(|error| Problem::new(Code::Internal, "the simulator cannot start").because(runtime::reconcile::explain(&error)))?;
    Ok(Arc::new(simulator))
}
