//! `serve`: the API and the controllers in the foreground.

use controllers::{REGISTRATIONS, Selection};

use crate::cli::Serve;
use crate::host::{Host, Work};
use crate::problem::{Code, Problem};
use crate::render::yaml;
use crate::seams::Seams;
use crate::signal::interrupted;
use crate::state::{StateDirectory, write_private};

/// Runs the command until it is interrupted.
///
/// # Errors
/// When the directory is owned by another process, or the API cannot start.
pub async fn run(args: &Serve, directory: &StateDirectory, seams: &Seams) -> Result<(), Problem> {
    let taken: Vec<String> = args.without.iter().map(|name| format!("-{name}")).collect();
    let selection = Selection::parse(&taken.join(",")).map_err(|error| {
        Problem::new(Code::BadFlag, error.to_string())
            .remedy(format!("--without takes {}", REGISTRATIONS.iter().map(|r| r.name).collect::<Vec<_>>().join(", ")))
    })?;
    let Some(ownership) = directory.try_own()? else {
        let owner = directory
            .owner()
            .map(|owner| format!("process {} (`talosphere {}`) serves it at https://{}", owner.process, owner.command, owner.address));
        return Err(Problem::new(
            Code::StateBusy,
            format!("the state directory {} is owned by another process", directory.path().display()),
        )
        .because(owner.unwrap_or_else(|| "its lock is held".to_owned()))
        .remedy("use that one, or name another directory with --state DIR"));
    };
    let host = Host::start(seams, ownership, Work::Controllers(selection), &args.listen, "serve").await?;
    let text = yaml::write(&host.pki.kubeconfig(&host.address.to_string())).map_err(|error| Problem::new(Code::Internal, error))?;
    if let Some(path) = &args.kubeconfig
        && let Err(error) = write_private(path, &text)
    {
        host.stop(seams).await;
        return Err(Problem::new(Code::UnreadableFile, format!("{} cannot be written", path.display()))
            .because(error.to_string())
            .remedy("name another file with --kubeconfig"));
    }
    host.ready().await;
    seams.printer.line(format!("the API answers at https://{}; state in {}", host.address, directory.path().display()));
    if let Some(path) = &args.kubeconfig {
        seams.printer.note(format!("  kubectl --kubeconfig {} get clusters -A", path.display()));
    }
    let outcome = tokio::select! {
        () = interrupted() => {
            seams.printer.line("stopping");
            Ok(())
        }
        problem = host.failed() => Err(problem),
    };
    host.stop(seams).await;
    outcome
}
