//! What each command does, one file each.

pub mod clusters;
pub mod delete;
pub mod demo;
pub mod describe;
pub mod errors;
pub mod get;
pub mod input;
pub mod preflight;
pub mod preview;
pub mod render;
pub mod repair;
pub mod rollout;
pub mod scale;
pub mod serve;
pub mod simulate;
pub mod snapshot;
pub mod talos;
pub mod up;
pub mod upgrade;

use std::path::PathBuf;

use crate::cli::{Cli, Command, RepairCommand};
use crate::names;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::state::StateDirectory;

/// Runs a command to its end.
///
/// # Errors
/// With what the user is to be told.
pub async fn run(cli: Cli, seams: &Seams) -> Result<(), Problem> {
    check_names(&cli.command)?;
    let state = || state(cli.state.clone(), seams);
    match cli.command {
        Command::Demo(args) => demo::run(args, cli.state, seams).await,
        Command::Simulate(args) => simulate::run(args, seams).await,
        Command::Render(args) => render::run(&args, seams),
        Command::Up(args) => up::run(&args, &state()?, seams).await,
        Command::Serve(args) => serve::run(&args, &state()?, seams).await,
        Command::Get(args) => get::run(&args, &state()?, seams).await,
        Command::Describe(args) => describe::run(&args, &state()?, seams).await,
        Command::Kubeconfig(args) => clusters::kubeconfig(&args, &state()?, seams).await,
        Command::Talosconfig(args) => clusters::talosconfig(&args, &state()?, seams).await,
        Command::Talos(args) => talos::run(&args, &state()?, seams).await,
        Command::Scale(args) => scale::run(&args, &state()?, seams).await,
        Command::Upgrade(args) => upgrade::run(&args, &state()?, seams).await,
        Command::Repair(args) => match args.command {
            RepairCommand::Etcd(args) => repair::run(&args, &state()?, seams).await,
        },
        Command::Rollout(args) => rollout::run(&args, &state()?, seams).await,
        Command::Delete(args) => delete::run(&args, &state()?, seams).await,
        Command::Error(args) => errors::run(&args, seams),
    }
}

/// Refuses names on the command line that no object can have.
fn check_names(command: &Command) -> Result<(), Problem> {
    match command {
        Command::Up(args) => names::namespace(&args.namespace.namespace),
        Command::Get(args) => {
            names::namespace(&args.namespace.namespace)?;
            args.name.as_deref().map_or(Ok(()), |name| names::object(&args.kind, name))?;
            let named = args.kind.split(',').filter_map(|kind| kind.split_once('/'));
            named.into_iter().try_for_each(|(kind, name)| names::object(kind, name))
        }
        Command::Describe(args) => {
            names::namespace(&args.namespace.namespace)?;
            names::object(&args.kind, &args.name)
        }
        Command::Kubeconfig(args) | Command::Talosconfig(args) => {
            names::namespace(&args.namespace.namespace)?;
            names::object("cluster", &args.cluster)
        }
        Command::Talos(args) => {
            args.namespace.as_deref().map_or(Ok(()), names::namespace)?;
            args.cluster.as_deref().map_or(Ok(()), |name| names::object("cluster", name))
        }
        Command::Scale(args) => {
            names::namespace(&args.namespace.namespace)?;
            let named = args.target.split_once('/').filter(|(kind, name)| !kind.is_empty() && !name.is_empty());
            named.map_or(Ok(()), |(kind, name)| names::object(kind, name))
        }
        Command::Repair(args) => {
            let RepairCommand::Etcd(args) = &args.command;
            names::namespace(&args.namespace.namespace)?;
            names::object("cluster", &args.cluster)
        }
        Command::Upgrade(args) => {
            names::namespace(&args.namespace.namespace)?;
            names::object("cluster", &args.cluster)
        }
        Command::Rollout(args) => {
            let target = args.command.target();
            names::namespace(&target.namespace.namespace)?;
            let (kind, name) = target.parts()?;
            names::object(kind, name)
        }
        Command::Delete(args) => {
            names::namespace(&args.namespace.namespace)?;
            names::object(&args.kind, &args.name)
        }
        Command::Demo(_) | Command::Simulate(_) | Command::Render(_) | Command::Serve(_) | Command::Error(_) => Ok(()),
    }
}

/// The longest duration that a flag takes: ten years.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(10 * 365 * 24 * 3600);

/// The state directory: the flag's or the variable's, else the one under the XDG state home.
fn state(given: Option<PathBuf>, seams: &Seams) -> Result<StateDirectory, Problem> {
    let path = given.or_else(|| seams.environment.state_directory()).ok_or_else(|| {
        Problem::new(Code::StateUnusable, "there is no place for state: HOME is not set")
            .remedy("name a directory with --state DIR or TALOSPHERE_STATE")
    })?;
    StateDirectory::open(&path)
}

/// A duration as Go writes it: `90s`, `30m`, `1h30m`; the unit is needed.
///
/// # Errors
/// When the text is no such duration, with the likely meaning.
pub fn duration(flag: &str, text: &str) -> Result<std::time::Duration, Problem> {
    let wrong = |remedy: String| Problem::new(Code::BadFlag, format!("{flag} {text} is not a duration")).remedy(remedy);
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
        return Err(wrong(format!("write the unit: {text}s for seconds, {text}m for minutes")));
    }
    let mut total = std::time::Duration::ZERO;
    let mut number = String::new();
    let mut rest = text.chars().peekable();
    let mut any = false;
    while let Some(c) = rest.next() {
        if c.is_ascii_digit() || c == '.' {
            number.push(c);
            continue;
        }
        let unit = match (c, rest.peek()) {
            ('m', Some('s')) => {
                rest.next();
                0.001
            }
            ('h', _) => 3600.0,
            ('m', _) => 60.0,
            ('s', _) => 1.0,
            _ => return Err(wrong("write it as 90s, 30m or 1h30m".to_owned())),
        };
        let value: f64 = number.parse().map_err(|_| wrong("write it as 90s, 30m or 1h30m".to_owned()))?;
        let part = std::time::Duration::try_from_secs_f64(value * unit).ok();
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= LONGEST)
            .ok_or_else(|| wrong("write no more than ten years (87600h)".to_owned()))?;
        number.clear();
        any = true;
    }
    if !any || !number.is_empty() {
        return Err(wrong("write it as 90s, 30m or 1h30m".to_owned()));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("--timeout", "90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("--timeout", "1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("--timeout", "250ms").unwrap(), Duration::from_millis(250));
        assert!(duration("--timeout", "80").unwrap_err().to_string().contains("80s for seconds"));
        for text in
            ["", "s", "1x", "m5", "5m3", "-5s", "1e30h", "9999999999999999999h", "10000000000000000000s10000000000000000000s", "100000h"]
        {
            assert!(duration("--timeout", text).is_err(), "{text}");
        }
    }
}
