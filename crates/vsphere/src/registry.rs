//! All vCenters of a process: one client, hence one session and one watch, per server, account and thumbprint.
//!
//! When an account signs in with another password than before, its earlier clients are closed. Not sooner: of two passwords only the right one gets that far, and a client
//! that was refused has to be kept, because it knows when it may try again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use runtime::clock::Clock;
use runtime::random::Random;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use crate::client::Client;
use crate::connection::{Counters, Transport, Trust};
use crate::vcenter::{Credentials, VCenter, VCenters};
use crate::watch::{Change, Listener, Listeners};

/// How servers are recognized for which the manifests give no thumbprint.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// Authorities that count, the system's and the user's.
    pub authorities: Vec<CertificateDer<'static>>,
    /// A person said that servers need not be verified.
    pub is_insecure: bool,
}

/// The password only as a hash: a key is kept for as long as the process runs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    server: String,
    user: String,
    password: [u8; 32],
    thumbprint: Option<String>,
}

/// The vCenters of a process.
pub struct Registry {
    transport: Transport,
    verification: Verification,
    clock: Clock,
    random: Random,
    counters: Counters,
    listeners: Listeners,
    clients: Clients,
}

type Clients = Arc<Mutex<BTreeMap<Key, Arc<Client>>>>;

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// No vCenter yet.
    pub fn new(transport: Transport, verification: Verification, clock: &Clock, random: &Random) -> Self {
        Self {
            transport,
            verification,
            clock: clock.clone(),
            random: random.child("vsphere"),
            counters: Counters::default(),
            listeners: Listeners::default(),
            clients: Clients::default(),
        }
    }

    /// Calls so far, by method, of all vCenters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn trust(&self, thumbprint: Option<&str>) -> Option<Trust> {
        match thumbprint {
            Some(thumbprint) => Some(Trust::Thumbprint(thumbprint.to_owned())),
            None if self.verification.is_insecure => Some(Trust::Insecure),
            None if !self.verification.authorities.is_empty() => Some(Trust::Authorities(self.verification.authorities.clone())),
            None => None,
        }
    }
}

/// Closes the earlier clients of an account once `client` has signed in.
async fn succeed(clients: Clients, client: Arc<Client>, earlier: Vec<Key>, listeners: Listeners) {
    client.signed_in().await;
    let closing: Vec<Arc<Client>> = {
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        earlier.iter().filter_map(|key| clients.remove(key)).collect()
    };
    for old in closing {
        old.close().await;
    }
    // Who waited for something that the closed watch would have told looks again.
    listeners.tell(client.server(), &Change::Link);
}

#[async_trait]
impl VCenters for Registry {
    fn vcenter(&self, credentials: &Credentials) -> Arc<dyn VCenter> {
        let thumbprint = credentials.thumbprint.as_deref().map(str::trim).filter(|text| !text.is_empty());
        let key = Key {
            server: credentials.server.clone(),
            user: credentials.user.clone(),
            password: Sha256::digest(credentials.password.reveal()).into(),
            thumbprint: thumbprint.map(|text| text.replace(':', "").to_ascii_uppercase()),
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clients.get(&key) {
            return known.clone();
        }
        let trust = self.trust(thumbprint);
        let client = Client::new(credentials, trust.as_ref(), &self.transport, &self.counters, &self.listeners, &self.clock, &self.random);
        let client = Arc::new(client);
        let is_earlier = |other: &&Key| other.server == key.server && other.user == key.user && other.password != key.password;
        let earlier: Vec<Key> = clients.keys().filter(is_earlier).cloned().collect();
        clients.insert(key, client.clone());
        if !earlier.is_empty() {
            tokio::spawn(succeed(self.clients.clone(), client.clone(), earlier, self.listeners.clone()));
        }
        client
    }

    fn subscribe(&self, listener: Listener) {
        self.listeners.add(listener);
    }

    async fn close(&self) {
        let clients: Vec<Arc<Client>> =
            std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner)).into_values().collect();
        for client in clients {
            client.close().await;
        }
    }
}
