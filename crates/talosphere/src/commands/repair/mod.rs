//! `repair etcd`: what is left of an etcd that lost its quorum, what can be done about it in the order of what is lost by it, and the doing.
//!
//! Without a majority nobody may add, remove or write anything, and the API of the cluster is away. Three ways lead back ([`options`]):
//! switching machines on, which loses nothing; beginning anew with the data of the newest member that answers; beginning anew with a snapshot
//! that somebody has kept. The command never takes one that loses more while a better one has not been tried, and never one that makes a
//! better one impossible. Nothing is done before it was shown and confirmed.
//!
//! ```text
//!   look -> options -> confirmed -> power on: the controllers do it; the quorum is waited for; a try that fails is stored
//!                                -> anew: file safe -> recorded on the TalosControlPlane -> `recover` -> the others join again
//! ```

pub mod look;
pub mod options;
pub mod recover;
mod show;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use controllers::taloscontrolplane::recovery::{ETCD_RECOVERY, Recovery};
use runtime::reconcile::explain;

use self::look::{Look, POWER_ON, Try, look};
use self::options::{Choice, Kept, Way, check_owner, choose, options, stand};
use self::recover::{Run, Safe, annotate};
use super::{duration, snapshot};
use crate::cli::RepairEtcd;
use crate::follow::{Goal, until};
use crate::host::session::Session;
use crate::names::within;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::signal::interrupted;
use crate::state::StateDirectory;
use crate::tree::kinds;

/// How long members that are switched on are waited for.
const COME_BACK: Duration = Duration::from_secs(10 * 60);
/// How often it is looked again.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// Runs the command.
///
/// # Errors
/// With what speaks against it, or what stands in the way.
pub async fn run(args: &RepairEtcd, directory: &StateDirectory, seams: &Seams) -> Result<(), Problem> {
    let timeout = duration("--timeout", &args.timeout)?;
    let kept = kept(args)?;
    let session = Session::reading(directory, "repair", seams).await?;
    let shown = preview(args, kept.as_ref(), &session, seams).await;
    session.close(seams).await;
    let (look, choice) = shown?;
    if args.dry_run {
        return Ok(());
    }
    if !args.yes {
        let question = format!("Repair etcd of Cluster {} with {}, which loses {}?", look.cluster, choice.way.flag(), choice.loses);
        if !seams.printer.confirm(&question)? {
            return Err(Problem::new(Code::Unconfirmed, format!("etcd of Cluster {} was not repaired", look.cluster)));
        }
    }
    let folder = recover::folder(directory, &look.namespace, &look.cluster);
    let mut session = Session::changing(directory, "repair", seams).await?;
    let failed = session.failed();
    let outcome = tokio::select! {
        outcome = carry_out(args, kept.as_ref(), &folder, timeout, &mut session, seams) => outcome,
        problem = failed => Err(problem),
        () = interrupted() => Err(Problem::new(Code::Interrupted, "interrupted; what was begun is recorded").remedy("run the same command again to continue")),
    };
    session.close(seams).await;
    outcome
}

/// The snapshot that is given, looked at.
///
/// # Errors
/// When it is no whole database of etcd.
pub fn kept(args: &RepairEtcd) -> Result<Option<Kept>, Problem> {
    let Some(file) = &args.from_snapshot else { return Ok(None) };
    let database = snapshot::inspect(file).map_err(|error| {
        Problem::new(Code::SnapshotRefused, format!("{} cannot be used", file.display()))
            .because(explain(&error))
            .remedy("give a whole snapshot, made by `talosphere talos -c CLUSTER etcd snapshot FILE` or `talosctl etcd snapshot FILE`")
    })?;
    Ok(Some(Kept { file: file.clone(), database }))
}

fn wanted(args: &RepairEtcd) -> Option<Way> {
    let member = args.from_member.clone().map(Way::FromMember);
    let file = args.from_snapshot.clone().map(|file| Way::FromSnapshot(Some(file)));
    args.power_on.then_some(Way::PowerOn).or(member).or(file)
}

/// Looks, shows what is seen and what can be done, and picks.
///
/// # Errors
/// When etcd has its quorum, or what is asked for is refused.
pub async fn preview(args: &RepairEtcd, kept: Option<&Kept>, session: &Session, seams: &Seams) -> Result<(Look, Choice), Problem> {
    let (look, choices) = see(args, kept, session, seams).await?;
    show::print(&look, &choices, args.output.output, seams)?;
    let choice = pick(args, &look, &choices, kept)?;
    Ok((look, choice))
}

async fn see(args: &RepairEtcd, kept: Option<&Kept>, session: &Session, seams: &Seams) -> Result<(Look, Vec<Choice>), Problem> {
    let namespace = args.namespace.namespace.as_str();
    let way = look::Way::to(&session.api, namespace, &args.cluster, seams).await?;
    let look = look(&session.api, namespace, &args.cluster, &way, true, seams).await?;
    let choices = match &look.recovery {
        Some(recovery) => vec![going_on(recovery)],
        None if look.has_quorum() => Vec::new(),
        None => options(&look, kept),
    };
    Ok((look, choices))
}

/// The only option while a recovery is under way.
fn going_on(recovery: &Recovery) -> Choice {
    let way = recovery.from.clone().map_or(Way::FromSnapshot(None), Way::FromMember);
    let does = format!("go on with the recovery from {} that was begun at {}", recovery.source(), recovery.since.strftime("%F %T UTC"));
    let loses = format!("everything after revision {} that no one but machines that are given up had", recovery.revision);
    Choice { way, does, loses, verdict: options::Verdict::Recommended }
}

fn pick(args: &RepairEtcd, look: &Look, choices: &[Choice], kept: Option<&Kept>) -> Result<Choice, Problem> {
    let shown = format!("`talosphere describe cluster {}{}` shows how it stands", look.cluster, within(&look.namespace));
    if look.is_paused {
        return Err(Problem::new(Code::RepairRefused, format!("Cluster {} is paused", look.cluster))
            .because("no controller does anything for it meanwhile: no machine is switched on, deleted or made")
            .remedy(
                "take the pause back first: spec.paused of the Cluster, or the annotation cluster.x-k8s.io/paused of its TalosControlPlane",
            ));
    }
    if let (Some(recovery), [going_on]) = (&look.recovery, choices) {
        let asked = wanted(args);
        let is_same = match (&asked, kept) {
            (None, _) => true,
            (Some(Way::FromMember(name)), _) => recovery.from.as_ref() == Some(name),
            (_, Some(kept)) => hex::encode(kept.database.digest) == recovery.digest,
            _ => false,
        };
        if !is_same {
            return Err(Problem::new(Code::RepairRefused, format!("another recovery of etcd of Cluster {} is under way", look.cluster))
                .because(format!("it was begun from {} at {}; what it wiped is gone", recovery.source(), recovery.since))
                .remedy(format!("talosphere repair etcd {}{} --yes", look.cluster, within(&look.namespace))));
        }
        return Ok(going_on.clone());
    }
    if look.has_quorum() {
        return Err(Problem::new(
            Code::EtcdHasQuorum,
            format!("etcd of Cluster {} has its quorum: there is nothing to recover", look.cluster),
        )
        .because("a recovery takes the place of all that is stored, and everything since its data was written would be lost")
        .remedy(format!("single members are replaced by the controllers; {shown}")));
    }
    if look.control_plane.status.as_ref().and_then(|status| status.bootstrapped) != Some(true) {
        return Err(Problem::new(Code::RepairRefused, format!("etcd of Cluster {} has not been seen to begin yet", look.cluster))
            .because("what has not begun has lost nothing, and is bootstrapped by the controllers")
            .remedy(shown));
    }
    if let Some(kept) = kept {
        check_owner(look, kept)?;
    }
    choose(look, choices, wanted(args).as_ref())
}

/// Repairs, after having looked once more.
///
/// # Errors
/// As [`run`].
pub async fn carry_out(
    args: &RepairEtcd,
    kept: Option<&Kept>,
    folder: &Path,
    timeout: Duration,
    session: &mut Session,
    seams: &Seams,
) -> Result<(), Problem> {
    let begun = seams.clock.instant();
    let left = || (begun + timeout).saturating_duration_since(seams.clock.instant());
    let namespace = args.namespace.namespace.clone();
    let way = look::Way::to(&session.api, &namespace, &args.cluster, seams).await?;
    let (look, choices) = see(args, kept, session, seams).await?;
    let choice = pick(args, &look, &choices, kept)?;
    match choice.way {
        Way::PowerOn => power_on(&look, &way, left(), session, seams).await?,
        Way::FromMember(_) | Way::FromSnapshot(_) => {
            let safe = safe(&look, &choice, kept, &way, folder).await?;
            begin(&look, &choice, &safe, session, seams).await?;
            anew(&look, &safe, &way, left(), session, seams).await?;
        }
    }
    let mut goal = Goal::running(&args.cluster);
    until(session, seams, &namespace, &kinds(), left(), |objects| goal.step(objects)).await?;
    let after = self::look::look(&session.api, &namespace, &args.cluster, &way, true, seams).await?;
    seams.printer.data(&show::table(&after));
    seams.printer.line(format!("etcd of Cluster {} is whole again, with {} members", args.cluster, after.planes.len()));
    Ok(())
}

/// The controllers switch on what is off, and a majority of the members elects a leader by itself.
async fn power_on(look: &Look, way: &look::Way, left: Duration, session: &mut Session, seams: &Seams) -> Result<(), Problem> {
    let limit = seams.clock.instant() + left.min(COME_BACK);
    seams.printer.line(format!("the members of etcd of Cluster {} are switched on and waited for", look.cluster));
    loop {
        let now = self::look::look(&session.api, &look.namespace, &look.cluster, way, false, seams).await?;
        if now.has_quorum() {
            annotate(&session.api, &now, &[(POWER_ON, None)], seams).await?;
            seams.printer.line(format!("etcd of Cluster {} has its quorum again; nothing was lost", look.cluster));
            return Ok(());
        }
        if seams.clock.instant() >= limit {
            let silent: Vec<String> =
                now.planes.iter().filter(|plane| plane.etcd().is_none()).map(|plane| plane.name().to_owned()).collect();
            let tried = Try { at: seams.clock.now_seconds(), silent };
            let text = serde_json::to_string(&tried).unwrap_or_default();
            annotate(&session.api, &now, &[(POWER_ON, Some(text))], seams).await?;
            let seen = now.planes.iter().filter(|plane| plane.etcd().is_none()).map(|plane| {
                let told = plane.vm_told.clone().unwrap_or_else(|| match &plane.node {
                    look::Node::Silent(why) => why.clone(),
                    look::Node::Answers(_) => String::new(),
                });
                format!("{}: {told}", plane.name())
            });
            return Err(Problem::new(Code::NotReadyInTime, format!("etcd of Cluster {} has not its quorum again", look.cluster))
                .because(format!("not enough members came back within {} minutes", left.min(COME_BACK).as_secs() / 60))
                .seen_all(seen)
                .remedy(format!(
                    "correct what the lines name and run the same command again; or `talosphere repair etcd {}{}`, which may now go on without them",
                    look.cluster,
                    within(&look.namespace)
                )));
        }
        seams.clock.sleep(LOOK_AGAIN).await;
    }
}

/// The data that etcd begins anew with, where it survives this command.
async fn safe(look: &Look, choice: &Choice, kept: Option<&Kept>, way: &look::Way, folder: &Path) -> Result<Safe, Problem> {
    if let Some(recovery) = &look.recovery {
        return match (recover::find(recovery, folder), kept) {
            (Err(_), Some(kept)) => recover::keep(&kept.file, &kept.database, folder),
            (found, _) => found,
        };
    }
    match (&choice.way, kept) {
        (Way::FromSnapshot(_), Some(kept)) => recover::keep(&kept.file, &kept.database, folder),
        (Way::FromMember(name), _) => match look.plane(name) {
            Some(plane) => recover::fetch(plane, look, way, folder).await,
            None => Err(Problem::new(Code::RepairRefused, format!("{name} is gone"))),
        },
        _ => Err(Problem::new(Code::RepairRefused, "no snapshot is given").remedy("name it with --from-snapshot FILE")),
    }
}

/// Records the recovery, before anything is touched.
async fn begin(look: &Look, choice: &Choice, safe: &Safe, session: &Session, seams: &Seams) -> Result<(), Problem> {
    if look.recovery.is_some() {
        return Ok(());
    }
    let silent = look.planes.iter().filter(|plane| plane.etcd().is_none());
    let given_up: BTreeSet<String> = silent.clone().map(|plane| plane.name().to_owned()).collect();
    let recovery = Recovery {
        since: seams.clock.now_seconds(),
        from: if let Way::FromMember(name) = &choice.way { Some(name.clone()) } else { None },
        revision: safe.database.revision,
        digest: hex::encode(safe.database.digest),
        has_digest: safe.database.has_digest,
        given_up,
        onto: None,
    };
    seams.printer.line(format!("{} holds {} at revision {}", safe.path.display(), recovery.source(), recovery.revision));
    for plane in silent {
        seams.printer.line(format!("{} is given up: {}", plane.name(), stand(plane)));
    }
    annotate(&session.api, look, &[(ETCD_RECOVERY, Some(recovery.text()))], seams).await
}

/// Carries the recovery out.
async fn anew(look: &Look, safe: &Safe, way: &look::Way, left: Duration, session: &Session, seams: &Seams) -> Result<(), Problem> {
    let limit = seams.clock.instant() + left;
    let mut run = Run::new(&session.api, way, safe, seams);
    loop {
        let now = self::look::look(&session.api, &look.namespace, &look.cluster, way, false, seams).await?;
        let Some(recovery) = &now.recovery else {
            return Err(Problem::new(Code::RepairRefused, format!("the recovery of Cluster {} was ended by somebody else", look.cluster)));
        };
        let Some(waiting) = run.step(&now, recovery).await? else { break };
        if seams.clock.instant() >= limit {
            return Err(Problem::new(Code::NotReadyInTime, format!("etcd of Cluster {} does not lead again yet", look.cluster))
                .seen_all(waiting)
                .remedy("run the same command again to continue"));
        }
        seams.clock.sleep(LOOK_AGAIN).await;
    }
    seams
        .printer
        .line(format!("etcd of Cluster {} leads again at revision {} or later; the others join it", look.cluster, safe.database.revision));
    Ok(())
}
