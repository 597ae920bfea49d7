//! The server on a listener: TLS with client certificates, HTTP/1.1 and HTTP/2.
//!
//! The common name of a client's certificate is its user, the organizations are its groups. A client without a certificate is anonymous and
//! is answered 401 beyond health and version. At the end, requests in work are finished within a limit; watches end at once.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use runtime::net::{BoxStream, Listener};
use runtime::tls::{ServerTls, Tls};
use runtime::x509::Facts;
use rustls_pki_types::CertificateDer;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::options::User;
use crate::server::ApiServer;

/// How long requests in work may take once the end was asked for.
const GRACE: Duration = Duration::from_secs(2);

/// How long the listener rests after a failure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The user a verified chain stands for.
fn user_of(chain: &[CertificateDer<'static>]) -> User {
    let Some(facts) = chain.first().and_then(|leaf| Facts::read(leaf).ok()) else { return User::anonymous() };
    match facts.common_name.filter(|name| !name.is_empty()) {
        Some(name) => User::new(name, facts.organizations),
        None => User::anonymous(),
    }
}

impl ApiServer {
    /// Serves connections from `listener` until `shutdown` or the server's own end.
    pub async fn serve(&self, mut listener: Box<dyn Listener>, tls: Tls, server: ServerTls, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        let closing = self.inner.closing.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = closing.cancelled() => break,
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (this, tls, server, shutdown) = (self.clone(), tls.clone(), server.clone(), shutdown.clone());
                    connections.spawn(async move { this.serve_connection(stream, &peer, &tls, &server, &shutdown).await });
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotConnected => {
                    tracing::debug!(%error, "no further connection can come");
                    break;
                }
                Err(error) => {
                    // A connection that broke before it was taken, or too many files for now: others may come.
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.inner.clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, drained).await.is_err() {
            tracing::debug!("connections were cut off at the end");
        }
    }

    async fn serve_connection(&self, stream: BoxStream, peer: &str, tls: &Tls, server: &ServerTls, shutdown: &CancellationToken) {
        let secured = match tls.accept(stream, server).await {
            Ok(secured) => secured,
            Err(error) => {
                tracing::debug!(peer, %error, "a connection was not secured");
                return;
            }
        };
        let service = TowerToHyperService::new(self.service(&user_of(&secured.peer)));
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new());
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30)).max_concurrent_streams(1000);
        let connection = builder.serve_connection(TokioIo::new(secured.stream), service);
        tokio::pin!(connection);
        let closing = self.inner.closing.clone();
        let result = tokio::select! {
            biased;
            result = connection.as_mut() => result,
            () = async { tokio::select! { () = shutdown.cancelled() => {}, () = closing.cancelled() => {} } } => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(peer, %error, "a connection ended badly");
        }
    }
}
