//! An administrator's kubeconfig, made from the Kubernetes authority alone: no node needs to answer, so it exists before the cluster does.
//!
//! Names are as Cluster API gives them: context `<cluster>-admin@<cluster>`. The certificate's organization is `system:masters`; it cannot
//! be revoked but by changing the authority, so it lives a year and no longer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use runtime::clock::Clock;
use runtime::keys::{KeyAlgorithm, KeyError, KeySource};
use runtime::random::Random;
use runtime::x509::{Facts, Leaf, Usages, X509Error, certificate_from_pem, certificate_to_pem};
use serde_json::{Value, json};
use thiserror::Error;

use crate::clientconfig::is_due;
use crate::secrets::PemPair;
use crate::yaml::{self, Layout};

/// How long the client certificate lives.
pub const LIFETIME: SignedDuration = SignedDuration::from_hours(8760);
const BACKDATE: SignedDuration = SignedDuration::from_hours(1);

/// Why a kubeconfig cannot be made.
#[derive(Debug, Error)]
pub enum KubeconfigError {
    #[error("the client certificate cannot be issued: {0}")]
    Authority(#[from] X509Error),
    #[error("the client key cannot be made: {0}")]
    Key(#[from] KeyError),
}

/// What a kubeconfig is made from.
#[derive(Clone, Debug)]
pub struct KubeconfigInput<'a> {
    pub cluster_name: &'a str,
    /// `https://host:port`.
    pub server: &'a str,
    /// A proxy on the way to it, when there is one.
    pub proxy_url: Option<&'a str>,
}

/// Issues a client certificate and writes the kubeconfig.
///
/// # Errors
/// When the authority cannot sign or a key cannot be made.
pub async fn generate(
    input: &KubeconfigInput<'_>,
    authority: &PemPair,
    keys: &dyn KeySource,
    random: &Random,
    clock: &Clock,
) -> Result<String, KubeconfigError> {
    let now = clock.now_seconds();
    let signer = authority.authority()?;
    let key = keys.generate(KeyAlgorithm::EcdsaP256).await?;
    let leaf = Leaf {
        organizations: vec!["system:masters".to_owned()],
        common_name: Some("kubernetes-admin".to_owned()),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        usages: Usages::CLIENT,
        not_before: now.checked_sub(BACKDATE).unwrap_or(now),
        not_after: now.checked_add(LIFETIME).unwrap_or(Timestamp::MAX),
    };
    let certificate = signer.issue(&leaf, &key, random)?;
    let (cluster, user) = (input.cluster_name, format!("{}-admin", input.cluster_name));
    let context = format!("{user}@{cluster}");
    let mut connection = json!({ "certificate-authority-data": STANDARD.encode(&authority.certificate), "server": input.server });
    if let Some(url) = input.proxy_url {
        connection["proxy-url"] = json!(url);
    }
    let document = json!({
        "apiVersion": "v1",
        "clusters": [{ "cluster": connection, "name": cluster }],
        "contexts": [{ "context": { "cluster": cluster, "user": user }, "name": context }],
        "current-context": context,
        "kind": "Config",
        "preferences": {},
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(certificate_to_pem(&certificate)),
                "client-key-data": STANDARD.encode(key.to_pem()),
            },
        }],
    });
    Ok(yaml::write(&document, Layout::Sorted))
}

/// What of a kubeconfig decides whether it is to be made anew.
#[derive(Clone, Debug)]
pub struct Written {
    server: Option<String>,
    proxy_url: Option<String>,
    /// PEM.
    authority: Option<String>,
    /// From when until when its certificate holds.
    life: Option<(Timestamp, Timestamp)>,
}

impl Written {
    /// Reads a kubeconfig; none when it is not YAML.
    pub fn read(kubeconfig: &str) -> Option<Self> {
        let document = yaml::read(kubeconfig).ok()?.into_iter().next()?;
        let text = |path: &str| document.pointer(path).and_then(Value::as_str);
        let decoded = |path: &str| String::from_utf8(STANDARD.decode(text(path)?).ok()?).ok();
        let facts = decoded("/users/0/user/client-certificate-data").and_then(|pem| Facts::read(&certificate_from_pem(&pem).ok()?).ok());
        Some(Self {
            server: text("/clusters/0/cluster/server").map(str::to_owned),
            proxy_url: text("/clusters/0/cluster/proxy-url").map(str::to_owned),
            authority: decoded("/clusters/0/cluster/certificate-authority-data"),
            life: facts.map(|facts| (facts.not_before, facts.not_after)),
        })
    }

    /// Whether it is to be made anew: for another server or proxy, by another authority, or seven tenths through its life.
    pub fn is_stale(&self, input: &KubeconfigInput<'_>, authority: &PemPair, now: Timestamp) -> bool {
        self.server.as_deref() != Some(input.server)
            || self.proxy_url.as_deref() != input.proxy_url
            || self.authority.as_deref() != Some(authority.certificate.as_str())
            || self.life.is_none_or(|(not_before, not_after)| is_due(not_before, not_after, now))
    }
}
