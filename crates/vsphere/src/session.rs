//! One session for one server and account: logged in when first needed, by one caller while the others wait; again when the server has forgotten it.
//!
//! ```text
//!            first call                 NotAuthenticated
//!   (none) ------------> logged in -------------------> (none) --> again, then the call once more
//!      |  InvalidLogin
//!      +-------------> refused: no attempt before the delay has passed (5 min, doubling to 40); other credentials are another session
//! ```
//!
//! A wrong password never loops: it would lock the account. A session that was ended from our side stays so: other credentials have taken its place.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use runtime::clock::Clock;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use vsphere_wire::ManagedObjectReference;
use vsphere_wire::method::{Login, Logout, Method, RetrieveServiceContent};
use vsphere_wire::service::ServiceContent;

use crate::connection::{Connection, Failure};
use crate::error::{FaultReport, VSphereError};

/// How long a refused login is not repeated, at first and at most. SSO locks an account after five attempts in three minutes, for five minutes.
const REFUSED_FIRST: Duration = Duration::from_secs(300);
const REFUSED_MOST: Duration = Duration::from_secs(2400);

/// A password: shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one call that sends it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A session as it stands.
#[derive(Debug)]
pub(crate) struct LoggedIn {
    pub cookie: String,
    pub content: ServiceContent,
    /// Counts logins: what belongs to an older one (collectors, views) is gone.
    pub number: u64,
}

#[derive(Debug, Default)]
struct State {
    is_ended: bool,
    login: Option<Arc<LoggedIn>>,
    logins: u64,
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    until: Instant,
    delay: Duration,
    error: VSphereError,
}

/// The session of one account with one server.
#[derive(Debug)]
pub(crate) struct Session {
    pub connection: Connection,
    user: String,
    password: Secret,
    clock: Clock,
    state: Mutex<State>,
    has_signed_in: watch::Sender<bool>,
}

impl Session {
    pub(crate) fn new(connection: Connection, user: &str, password: Secret, clock: Clock) -> Self {
        Self { connection, user: user.to_owned(), password, clock, state: Mutex::default(), has_signed_in: watch::Sender::new(false) }
    }

    /// The session, made when there is none.
    pub(crate) async fn current(&self) -> Result<Arc<LoggedIn>, VSphereError> {
        let mut state = self.state.lock().await;
        if state.is_ended {
            let reason = "this session was ended here, because other credentials are used now".to_owned();
            return Err(VSphereError::Unreachable { server: self.connection.server.clone(), reason });
        }
        if let Some(login) = &state.login {
            return Ok(login.clone());
        }
        if let Some(refused) = &state.refused
            && self.clock.instant() < refused.until
        {
            return Err(refused.error.clone());
        }
        match self.log_in(state.logins + 1).await {
            Ok(login) => {
                let login = Arc::new(login);
                state.refused = None;
                state.logins = login.number;
                state.login = Some(login.clone());
                self.has_signed_in.send_replace(true);
                Ok(login)
            }
            Err(error) => {
                if let VSphereError::Login { server, user, reason, .. } = &error {
                    let delay = state.refused.as_ref().map_or(REFUSED_FIRST, |refused| (refused.delay * 2).min(REFUSED_MOST));
                    let retry_minutes = delay.as_secs() / 60;
                    let error = VSphereError::Login { server: server.clone(), user: user.clone(), reason: reason.clone(), retry_minutes };
                    state.refused = Some(Refused { until: self.clock.instant() + delay, delay, error: error.clone() });
                    return Err(error);
                }
                Err(error)
            }
        }
    }

    async fn log_in(&self, number: u64) -> Result<LoggedIn, VSphereError> {
        let instance = ManagedObjectReference::new("ServiceInstance", "ServiceInstance");
        let (content, early) = self
            .connection
            .call(&RetrieveServiceContent { this: instance }, None)
            .await
            .map_err(|failure| self.explain("reading the service content", failure))?;
        if content.about.api_type != "VirtualCenter" {
            let reason = format!("it is a {} ({}), not a vCenter", content.about.api_type, content.about.full_name);
            return Err(VSphereError::Server { server: self.connection.server.clone(), reason });
        }
        let Some(manager) = content.session_manager.clone() else {
            let reason = "it has no session manager".to_owned();
            return Err(VSphereError::Server { server: self.connection.server.clone(), reason });
        };
        let login = Login {
            this: manager,
            user_name: self.user.clone(),
            password: self.password.reveal().to_owned(),
            locale: Some("en_US".to_owned()),
        };
        match self.connection.call(&login, early.as_deref()).await {
            Ok((_, cookie)) => match cookie.or(early) {
                Some(cookie) => Ok(LoggedIn { cookie, content, number }),
                None => {
                    let reason = "it answered the login without a session cookie".to_owned();
                    Err(VSphereError::Server { server: self.connection.server.clone(), reason })
                }
            },
            Err(Failure::Fault(fault)) if matches!(fault.kind(), "InvalidLogin" | "NoPermission" | "InvalidLocale") => {
                Err(VSphereError::Login {
                    server: self.connection.server.clone(),
                    user: self.user.clone(),
                    reason: FaultReport::of_call(&fault).to_string(),
                    retry_minutes: REFUSED_FIRST.as_secs() / 60,
                })
            }
            Err(failure) => Err(self.explain("logging in", failure)),
        }
    }

    /// Forgets this login, unless a later one has taken its place.
    pub(crate) async fn forget(&self, number: u64) {
        let mut state = self.state.lock().await;
        if state.login.as_ref().is_some_and(|login| login.number == number) {
            state.login = None;
        }
    }

    /// Makes a call in the session. A call that the server refuses because the session is gone has had no effect: it is made once more in a new session.
    pub(crate) async fn call<M: Method>(
        &self,
        action: impl Fn() -> String,
        method: impl Fn(&ServiceContent) -> M,
    ) -> Result<M::Output, VSphereError> {
        let mut is_repeated = false;
        loop {
            let login = self.current().await?;
            match self.connection.call(&method(&login.content), Some(&login.cookie)).await {
                Ok((output, _)) => return Ok(output),
                Err(Failure::Fault(fault)) if fault.kind() == "NotAuthenticated" && !is_repeated => {
                    self.forget(login.number).await;
                    is_repeated = true;
                }
                Err(failure) => return Err(self.explain(&action(), failure)),
            }
        }
    }

    /// Makes a call in exactly this login: for what belongs to it (collectors, views, filters).
    pub(crate) async fn call_in<M: Method>(&self, login: &LoggedIn, action: &str, method: &M) -> Result<M::Output, VSphereError> {
        match self.connection.call(method, Some(&login.cookie)).await {
            Ok((output, _)) => Ok(output),
            Err(failure) => {
                if is_session_gone(&failure) {
                    self.forget(login.number).await;
                }
                Err(self.explain(action, failure))
            }
        }
    }

    /// As [`Self::call_in`], for a call that may stay open for `limit`.
    pub(crate) async fn poll_in<M: Method>(
        &self,
        login: &LoggedIn,
        action: &str,
        method: &M,
        limit: Duration,
    ) -> Result<M::Output, VSphereError> {
        match self.connection.poll(method, Some(&login.cookie), limit).await {
            Ok(output) => Ok(output),
            Err(failure) => {
                if is_session_gone(&failure) {
                    self.forget(login.number).await;
                }
                Err(self.explain(action, failure))
            }
        }
    }

    /// Completes at the first login.
    pub(crate) async fn signed_in(&self) {
        let _ = self.has_signed_in.subscribe().wait_for(|has_signed_in| *has_signed_in).await;
    }

    /// Logs out, when there is a session. There is none any more after this.
    pub(crate) async fn log_out(&self) {
        let login = {
            let mut state = self.state.lock().await;
            state.is_ended = true;
            state.login.take()
        };
        let Some(login) = login else { return };
        let Some(manager) = login.content.session_manager.clone() else { return };
        if let Err(failure) = self.connection.call(&Logout { this: manager }, Some(&login.cookie)).await {
            tracing::debug!(server = %self.connection.server, error = %self.explain("logging out", failure), "not logged out");
        }
    }

    fn explain(&self, action: &str, failure: Failure) -> VSphereError {
        match failure {
            Failure::Other(error) => error,
            Failure::Fault(fault) => VSphereError::Fault { action: action.to_owned(), fault: Box::new(FaultReport::of_call(&fault)) },
        }
    }
}

fn is_session_gone(failure: &Failure) -> bool {
    matches!(failure, Failure::Fault(fault) if fault.kind() == "NotAuthenticated")
}
