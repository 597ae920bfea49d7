//! A command's way to the API: as the owner of the state directory, or as the client of the process that owns it.
//!
//! A command that changes things becomes the owner when nobody is. When the owner it was a client of goes away - its goal reached, or
//! killed - the command takes the directory over and goes on: ownership passes to whoever still has something to wait for.

use controllers::Selection;

use super::pki::Pki;
use super::{Host, Work};
use crate::apply::Api;
use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::state::StateDirectory;

/// A connection to the API, and the host behind it when that is ours.
#[derive(Debug)]
pub struct Session {
    pub api: Api,
    host: Option<Host>,
    /// None for an API that is not found through a state directory.
    place: Option<(StateDirectory, String)>,
}

/// For how long a directory is waited for whose owner does not answer: it starts, or it ends, which takes it a few seconds.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

fn needs_store(directory: &StateDirectory) -> Result<(), Problem> {
    if directory.has_store() {
        return Ok(());
    }
    Err(Problem::new(Code::NotFound, format!("there is no state in {}", directory.path().display()))
        .remedy("make a cluster with `talosphere up`, or name the state directory with --state"))
}

impl Session {
    /// For a command that changes things: client of the owner, else owner.
    ///
    /// # Errors
    /// When the directory is not usable, or owned by a process that does not answer.
    pub async fn changing(directory: &StateDirectory, command: &str, seams: &Seams) -> Result<Self, Problem> {
        Self::open(directory, command, seams, || Work::Controllers(Selection::all())).await
    }

    /// For a command that changes what is there, and so has nothing to do where nothing is.
    ///
    /// # Errors
    /// As [`Session::changing`], and when there is no state.
    pub async fn existing(directory: &StateDirectory, command: &str, seams: &Seams) -> Result<Self, Problem> {
        needs_store(directory)?;
        Self::changing(directory, command, seams).await
    }

    /// For a command that only reads: client of the owner, else a look at the store that starts nothing.
    ///
    /// # Errors
    /// As [`Session::changing`].
    pub async fn reading(directory: &StateDirectory, command: &str, seams: &Seams) -> Result<Self, Problem> {
        needs_store(directory)?;
        let session = Self::open(directory, command, seams, || Work::Look).await?;
        if session.is_owner() {
            let since = directory.stopped_since().map(|time| format!(" since {}", time.strftime("%F %T UTC"))).unwrap_or_default();
            seams.printer.note(format!("note: controllers stopped{since}; start them with `talosphere serve` or `talosphere up`"));
        }
        Ok(session)
    }

    /// Over an API that is at hand and does not go away.
    pub fn over(api: Api) -> Self {
        Self { api, host: None, place: None }
    }

    async fn open(directory: &StateDirectory, command: &str, seams: &Seams, work: impl Fn() -> Work) -> Result<Self, Problem> {
        let limit = seams.clock.instant() + PATIENCE;
        loop {
            if let Some(ownership) = directory.try_own()? {
                let host = Host::start(seams, ownership, work(), "127.0.0.1:0", command).await?;
                host.ready().await;
                let api = Api::new(host.client());
                return Ok(Self { api, host: Some(host), place: Some((directory.clone(), command.to_owned())) });
            }
            if let Some(owner) = directory.owner() {
                let pki = Pki::open(directory, seams).await?;
                let api = Api::new(pki.client(&owner.address, seams)?);
                if api.send(http::Method::GET, "/version", None, None).await.is_ok() {
                    return Ok(Self { api, host: None, place: Some((directory.clone(), command.to_owned())) });
                }
            }
            if seams.clock.instant() >= limit {
                let owner = directory.owner();
                let who = owner.map(|owner| format!("process {} (`talosphere {}`, {})", owner.process, owner.command, owner.address));
                return Err(Problem::new(
                    Code::StateBusy,
                    format!("the state directory {} is owned by another process", directory.path().display()),
                )
                .because(format!(
                    "{} holds its lock but does not answer",
                    who.unwrap_or_else(|| "a process that tells no address".to_owned())
                ))
                .remedy("end that process, or use another directory with --state DIR"));
            }
            seams.clock.sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Whether the API is this process's own, and stays.
    pub fn is_owner(&self) -> bool {
        self.host.is_some() || self.place.is_none()
    }

    /// The host, when it is ours.
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// Takes the owner's place, or finds the next owner, after the connection was lost.
    ///
    /// # Errors
    /// As [`Session::changing`].
    pub async fn again(&mut self, seams: &Seams) -> Result<(), Problem> {
        let (None, Some((directory, command))) = (&self.host, self.place.clone()) else { return Ok(()) };
        let next = Self::changing(&directory, &command, seams).await?;
        self.api = next.api;
        self.host = next.host;
        if self.host.is_some() {
            seams.printer.line("the owner of the state directory ended; this command goes on in its place");
        }
        Ok(())
    }

    /// Completes when the state is ours and cannot be written any more; never otherwise.
    pub fn failed(&self) -> impl Future<Output = Problem> + use<> {
        let server = self.host.as_ref().map(|host| host.server.clone());
        async move {
            match server {
                Some(server) => super::unwritable(&server).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Ends what is ours.
    pub async fn close(self, seams: &Seams) {
        if let Some(host) = self.host {
            host.stop(seams).await;
        }
    }
}
