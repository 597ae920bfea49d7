//! The secrets bundle: everything a cluster's machines and clients trust, made once and never again.
//!
//! The YAML is what `talosctl gen secrets` and the upstream bootstrap provider write: lower-case keys, four spaces, PEM texts in base64.
//! The cluster id is opaque (older releases write URL-safe base64, newer ones standard): it is kept as it is and never decoded. A bundle
//! that was redacted for display is refused, since a cluster made from it could never be joined again. `Debug` shows no secret.

mod format;

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use jiff::{SignedDuration, Timestamp};
use runtime::clock::Clock;
use runtime::keys::{KeyAlgorithm, KeyError, KeySource, PrivateKey};
use runtime::random::Random;
use runtime::x509::{Authority, X509Error};
use thiserror::Error;

use crate::contract::Contract;
use crate::yaml::YamlError;

/// What stands in place of a secret in a redacted text.
pub const REDACTED: &str = "******";
/// How long certificate authorities live: ten years of 365 days.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(87_600 * 3600);
/// New authorities are valid a little before now, for machines whose clock is behind.
const BACKDATE: SignedDuration = SignedDuration::from_hours(1);
const TOKEN_ALPHABET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Why a bundle cannot be used.
#[derive(Debug, Error)]
pub enum SecretsError {
    #[error("the secrets bundle is {0}")]
    Yaml(#[from] YamlError),
    #[error("the secrets bundle has no {path}; a complete one comes from `talosctl gen secrets`")]
    Missing { path: &'static str },
    #[error("{path} in the secrets bundle is redacted ({REDACTED}): use the original, not one printed for display")]
    Redacted { path: &'static str },
    #[error("{path} in the secrets bundle is not base64 of a PEM text")]
    NotBase64 { path: &'static str },
    #[error("{path} in the secrets bundle cannot be used: {reason}")]
    Invalid { path: &'static str, reason: String },
    #[error("the secrets bundle has both an AES-CBC and a secretbox encryption secret; exactly one belongs there")]
    TwoEncryptionSecrets,
    #[error("a secret could not be made: {0}")]
    Generation(String),
}

impl From<KeyError> for SecretsError {
    fn from(error: KeyError) -> Self {
        Self::Generation(error.to_string())
    }
}

impl From<X509Error> for SecretsError {
    fn from(error: X509Error) -> Self {
        Self::Generation(error.to_string())
    }
}

/// How secrets of the cluster's own database are encrypted. Clusters born with contract 1.2 or older use AES-CBC for ever.
#[derive(Clone, PartialEq, Eq)]
pub enum EncryptionSecret {
    Secretbox(String),
    AesCbc(String),
}

/// A certificate and its key as PEM texts.
#[derive(Clone, PartialEq, Eq)]
pub struct PemPair {
    pub certificate: String,
    pub key: String,
}

impl fmt::Debug for PemPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PemPair")
    }
}

impl PemPair {
    fn of(authority: &Authority) -> Self {
        Self { certificate: authority.certificate_pem.clone(), key: authority.key.to_pem() }
    }

    /// Parses both and checks that they belong together.
    ///
    /// # Errors
    /// When they do not.
    pub fn authority(&self) -> Result<Authority, X509Error> {
        Authority::from_pem(&self.certificate, &self.key)
    }
}

/// A cluster's secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    pub cluster_id: String,
    pub cluster_secret: String,
    pub bootstrap_token: String,
    pub encryption: EncryptionSecret,
    /// The token by which machines join the trust daemon.
    pub trustd_token: String,
    pub etcd: PemPair,
    pub kubernetes: PemPair,
    pub aggregator: PemPair,
    /// The key that signs service-account tokens, as PEM.
    pub service_account_key: String,
    /// The authority of the machine API.
    pub os: PemPair,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bundle")
    }
}

impl Bundle {
    /// Makes a new bundle. Authorities are valid from an hour ago for ten years.
    ///
    /// # Errors
    /// When a key cannot be made.
    pub async fn generate(contract: Contract, keys: &dyn KeySource, random: &Random, clock: &Clock) -> Result<Self, SecretsError> {
        let now = clock.now_seconds();
        let not_before = now.checked_sub(BACKDATE).unwrap_or(now);
        let not_after = not_before.checked_add(AUTHORITY_LIFETIME).unwrap_or(Timestamp::MAX);
        let make = async |algorithm, organizations: &[&str], label: &str| -> Result<PemPair, SecretsError> {
            let key = keys.generate(algorithm).await?;
            let authority = Authority::self_signed(organizations, None, key, not_before, not_after, &random.child(label))?;
            Ok(PemPair::of(&authority))
        };
        let etcd = make(KeyAlgorithm::EcdsaP256, &["etcd"], "etcd").await?;
        let kubernetes = make(KeyAlgorithm::EcdsaP256, &["kubernetes"], "kubernetes").await?;
        let aggregator = make(KeyAlgorithm::EcdsaP256, &[], "aggregator").await?;
        let os = make(KeyAlgorithm::Ed25519, &["talos"], "os").await?;
        let service_account = if contract.has_rsa_service_account_key() { KeyAlgorithm::Rsa4096 } else { KeyAlgorithm::EcdsaP256 };
        Ok(Self {
            cluster_id: URL_SAFE.encode(random.bytes::<32>()),
            cluster_secret: STANDARD.encode(random.bytes::<32>()),
            bootstrap_token: token(random),
            encryption: EncryptionSecret::Secretbox(STANDARD.encode(random.bytes::<32>())),
            trustd_token: token(random),
            etcd,
            kubernetes,
            aggregator,
            service_account_key: keys.generate(service_account).await?.to_pem(),
            os,
        })
    }

    /// Reads a bundle: YAML, or the JSON of the same structure with its Go names.
    ///
    /// # Errors
    /// When it is incomplete, redacted, or its parts cannot be used.
    pub fn from_yaml(text: &str) -> Result<Self, SecretsError> {
        let bundle = format::read(text)?;
        bundle.validate()?;
        Ok(bundle)
    }

    /// Reads the older layout of the upstream provider: a Secret with the keys `certs`, `kubeSecrets` and `trustdInfo`. Such clusters
    /// have no id and no discovery secret; both are derived from the machine API's key, so that every reading gives the same.
    ///
    /// # Errors
    /// As [`Bundle::from_yaml`].
    pub fn from_legacy(certs: &str, kube_secrets: &str, trustd_info: &str) -> Result<Self, SecretsError> {
        let bundle = format::read_legacy(certs, kube_secrets, trustd_info)?;
        bundle.validate()?;
        Ok(bundle)
    }

    /// Writes the bundle as `talosctl gen secrets` does.
    pub fn to_yaml(&self) -> String {
        format::write(self)
    }

    /// Checks that every part is there and can be used.
    ///
    /// # Errors
    /// Naming the first part that cannot.
    pub fn validate(&self) -> Result<(), SecretsError> {
        let texts = [
            ("cluster.id", &self.cluster_id),
            ("cluster.secret", &self.cluster_secret),
            ("secrets.bootstraptoken", &self.bootstrap_token),
            ("trustdinfo.token", &self.trustd_token),
        ];
        for (path, text) in texts {
            if text.is_empty() {
                return Err(SecretsError::Missing { path });
            }
            if text == REDACTED {
                return Err(SecretsError::Redacted { path });
            }
        }
        let (EncryptionSecret::Secretbox(encryption) | EncryptionSecret::AesCbc(encryption)) = &self.encryption;
        for (path, text) in [("cluster.secret", &self.cluster_secret), ("secrets.secretboxencryptionsecret", encryption)] {
            let length = STANDARD.decode(text).map_err(|_| SecretsError::NotBase64 { path })?.len();
            if path == "cluster.secret" && length != 32 {
                return Err(SecretsError::Invalid { path, reason: format!("it has {length} bytes, expected 32") });
            }
        }
        let pairs = [
            ("certs.etcd", &self.etcd),
            ("certs.k8s", &self.kubernetes),
            ("certs.k8saggregator", &self.aggregator),
            ("certs.os", &self.os),
        ];
        for (path, pair) in pairs {
            pair.authority().map_err(|error| SecretsError::Invalid { path, reason: error.to_string() })?;
        }
        PrivateKey::from_pem(&self.service_account_key)
            .map_err(|error| SecretsError::Invalid { path: "certs.k8sserviceaccount.key", reason: error.to_string() })?;
        Ok(())
    }
}

/// `xxxxxx.yyyyyyyyyyyyyyyy`, unbiased.
fn token(random: &Random) -> String {
    format!("{}.{}", random.characters(6, TOKEN_ALPHABET), random.characters(16, TOKEN_ALPHABET))
}
