//! The client configuration (`talosconfig`): where a cluster's machine API is and the certificate that opens it.
//!
//! Endpoints are control planes' own addresses, never the VIP: it is gone when etcd has no quorum, exactly when this file is needed.
//! Certificates are valid from a little before now, because a node whose clock is behind would refuse one from now.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use runtime::clock::Clock;
use runtime::keys::{KeyError, KeySource, PrivateKey};
use runtime::random::Random;
use runtime::x509::{Authority, Facts, Leaf, Usages, X509Error, certificate_from_pem, certificate_to_pem};
use serde_json::{Value, json};
use thiserror::Error;

use crate::secrets::Bundle;
use crate::yaml::{self, Layout, YamlError};

/// The role that may do everything.
pub const ADMIN: &str = "os:admin";
/// How long a client certificate lives.
pub const LIFETIME: SignedDuration = SignedDuration::from_hours(8760);
const BACKDATE: SignedDuration = SignedDuration::from_hours(1);

/// Why a client configuration cannot be made or read.
#[derive(Debug, Error)]
pub enum ClientConfigError {
    #[error("the client configuration is {0}")]
    Yaml(#[from] YamlError),
    #[error("the client configuration has no {path}")]
    Missing { path: String },
    #[error("{path} in the client configuration cannot be used: {reason}")]
    Invalid { path: String, reason: String },
    #[error("the client certificate cannot be issued: {0}")]
    Authority(#[from] X509Error),
    #[error("the client key cannot be made: {0}")]
    Key(#[from] KeyError),
}

/// A client certificate of a cluster's machine API, with its key and the authority that nodes are verified by. `Debug` shows no secret.
#[derive(Clone)]
pub struct ClientIdentity {
    /// PEM.
    pub ca: String,
    /// PEM.
    pub certificate: String,
    pub key: PrivateKey,
    /// From when until when the certificate holds, once somebody asked; none when it cannot be read.
    life: OnceLock<Option<(Timestamp, Timestamp)>>,
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientIdentity")
    }
}

impl ClientIdentity {
    /// Issues a certificate with these roles. Its key is of the authority's kind, which need not be Ed25519.
    ///
    /// # Errors
    /// When the bundle's authority cannot sign or a key cannot be made.
    pub async fn issue(
        bundle: &Bundle,
        roles: &[&str],
        keys: &dyn KeySource,
        random: &Random,
        clock: &Clock,
    ) -> Result<Self, ClientConfigError> {
        let authority = bundle.os.authority()?;
        let key = keys.generate(authority.key.algorithm()).await?;
        Self::sign(&authority, roles, key, random, clock.now_seconds())
    }

    fn sign(authority: &Authority, roles: &[&str], key: PrivateKey, random: &Random, now: Timestamp) -> Result<Self, ClientConfigError> {
        let not_before = now.checked_sub(BACKDATE).unwrap_or(now);
        let leaf = Leaf {
            organizations: roles.iter().map(|role| (*role).to_owned()).collect(),
            common_name: None,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            usages: Usages::CLIENT,
            not_before,
            not_after: now.checked_add(LIFETIME).unwrap_or(Timestamp::MAX),
        };
        let certificate = authority.issue(&leaf, &key, random)?;
        Ok(Self { ca: authority.certificate_pem.clone(), certificate: certificate_to_pem(&certificate), key, life: OnceLock::new() })
    }

    /// What the certificate says: roles as organizations, and until when it holds.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn facts(&self) -> Result<Facts, X509Error> {
        Facts::read(&certificate_from_pem(&self.certificate)?)
    }

    /// From when until when the certificate holds; none when it cannot be read.
    pub fn life(&self) -> Option<(Timestamp, Timestamp)> {
        *self.life.get_or_init(|| self.facts().ok().map(|facts| (facts.not_before, facts.not_after)))
    }

    /// Whether seven tenths of its life are over, or it cannot be read: time for a new one.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.life().is_none_or(|(not_before, not_after)| is_due(not_before, not_after, now))
    }
}

/// Whether seven tenths of a certificate's life are over.
pub(crate) fn is_due(not_before: Timestamp, not_after: Timestamp, now: Timestamp) -> bool {
    let life = not_after.duration_since(not_before).as_secs();
    now.duration_since(not_before).as_secs() * 10 >= life * 7
}

/// A context of a client configuration.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The cluster's name.
    pub context: String,
    /// Control planes' addresses.
    pub endpoints: Vec<String>,
    pub identity: ClientIdentity,
    /// A proxy to dial through, when the nodes' network is reached by one.
    pub proxy_url: Option<String>,
}

impl ClientConfig {
    /// Writes it as talosctl does.
    pub fn to_yaml(&self) -> String {
        let mut context = json!({
            "endpoints": self.endpoints,
            "ca": STANDARD.encode(&self.identity.ca),
            "crt": STANDARD.encode(&self.identity.certificate),
            "key": STANDARD.encode(self.identity.key.to_pem()),
        });
        if let Some(url) = &self.proxy_url {
            context["proxy-url"] = json!(url);
        }
        yaml::write(&json!({ "context": self.context, "contexts": { self.context.as_str(): context } }), Layout::Structured)
    }

    /// Reads the current context.
    ///
    /// # Errors
    /// When it is not there or its certificate or key cannot be used.
    pub fn from_yaml(text: &str) -> Result<Self, ClientConfigError> {
        let missing = |path: &str| ClientConfigError::Missing { path: path.to_owned() };
        let document = yaml::read(text)?.into_iter().next().ok_or_else(|| missing("context"))?;
        let name = document.get("context").and_then(Value::as_str).ok_or_else(|| missing("context"))?;
        let context = document.get("contexts").and_then(|all| all.get(name)).ok_or_else(|| missing(&format!("contexts.{name}")))?;
        let pem = |part: &str| -> Result<String, ClientConfigError> {
            let path = format!("contexts.{name}.{part}");
            let encoded = context.get(part).and_then(Value::as_str).ok_or_else(|| missing(&path))?;
            let bytes = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            bytes.ok_or_else(|| ClientConfigError::Invalid { path, reason: "it is not base64 of a PEM text".to_owned() })
        };
        let key = PrivateKey::from_pem(&pem("key")?)
            .map_err(|error| ClientConfigError::Invalid { path: format!("contexts.{name}.key"), reason: error.to_string() })?;
        let texts = |part: &str| -> Vec<String> {
            context.get(part).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Ok(Self {
            context: name.to_owned(),
            endpoints: texts("endpoints"),
            identity: ClientIdentity { ca: pem("ca")?, certificate: pem("crt")?, key, life: OnceLock::new() },
            proxy_url: context.get("proxy-url").and_then(Value::as_str).map(str::to_owned),
        })
    }
}
