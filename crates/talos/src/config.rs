//! Machine configuration: generated from a bundle and a few inputs, then patched, then given its network settings, in this order.
//!
//! A configuration is never patched twice with the same patches (lists would grow): it is always rendered anew from its inputs. The
//! result is text that Talos reads strictly, so that every key is checked against the ones it knows before it is handed out.

mod generate;
mod known;
mod network;

use std::fmt;

use serde_json::Value;
use thiserror::Error;

use crate::patch::PatchError;
use crate::secrets::{Bundle, EncryptionSecret, PemPair, SecretsError};
use crate::yaml::{self, Layout, YamlError};

pub use generate::{Cni, Input, generate};
pub use network::{NetworkDevice, NetworkSettings, Route, with_network};

/// Why a configuration cannot be made or read.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("the machine configuration is {0}")]
    Yaml(#[from] YamlError),
    #[error("the machine configuration has no document with version: v1alpha1")]
    NoLegacyDocument,
    #[error("the machine configuration has the document {name} twice")]
    Duplicate { name: String },
    #[error("the machine configuration has {path}, which Talos does not know{}", hint(.known))]
    UnknownKey { path: String, known: Vec<String> },
    #[error("the machine configuration's {path} is not {expected}")]
    Type { path: String, expected: &'static str },
    #[error("generateType {text:?} is not known: controlplane, worker, init, none, or join (which is worker)")]
    MachineType { text: String },
    #[error("{what} {value:?} is not usable: {reason}")]
    Input { what: &'static str, value: String, reason: &'static str },
    #[error(transparent)]
    Patch(#[from] PatchError),
}

fn hint(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!("; similar keys: {}", known.join(", ")) }
}

/// What a machine is in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MachineType {
    /// Bootstraps etcd by itself on its first boot. Dangerous, kept because the resource type lists it.
    Init,
    ControlPlane,
    Worker,
}

impl MachineType {
    /// Reads a `generateType`. `None` stands for `none`: the configuration is given whole.
    ///
    /// # Errors
    /// When the text is none of the known ones.
    pub fn from_generate_type(text: &str) -> Result<Option<Self>, ConfigError> {
        match text {
            "init" => Ok(Some(Self::Init)),
            "controlplane" => Ok(Some(Self::ControlPlane)),
            "worker" | "join" | "" => Ok(Some(Self::Worker)),
            "none" => Ok(None),
            _ => Err(ConfigError::MachineType { text: text.to_owned() }),
        }
    }

    /// As it stands in `machine.type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::ControlPlane => "controlplane",
            Self::Worker => "worker",
        }
    }

    /// Whether it runs etcd and the Kubernetes API.
    pub fn is_control_plane(self) -> bool {
        self != Self::Worker
    }
}

impl fmt::Display for MachineType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A machine configuration: one `v1alpha1` document and, from contract 1.12 on, documents beside it. `Debug` shows no secret.
#[derive(Clone, PartialEq)]
pub struct MachineConfig {
    documents: Vec<Value>,
    layout: Layout,
}

impl fmt::Debug for MachineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MachineConfig({} documents)", self.documents.len())
    }
}

impl MachineConfig {
    pub(crate) fn new(documents: Vec<Value>, layout: Layout) -> Self {
        Self { documents, layout }
    }

    /// Reads a configuration.
    ///
    /// # Errors
    /// When it is not YAML, or has a document twice.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let documents = yaml::read(text)?;
        let mut seen = std::collections::BTreeSet::new();
        for document in &documents {
            let name = document_name(document);
            if !seen.insert(name.clone()) {
                return Err(ConfigError::Duplicate { name });
            }
        }
        let is_two_spaced = text.lines().any(|line| line.starts_with("  ") && !line[2..].starts_with(' '));
        Ok(Self { documents, layout: if is_two_spaced { Layout::Sorted } else { Layout::Structured } })
    }

    /// Writes the configuration.
    pub fn to_yaml(&self) -> String {
        yaml::write_all(&self.documents, self.layout)
    }

    /// All documents, in order.
    pub fn documents(&self) -> &[Value] {
        &self.documents
    }

    pub(crate) fn documents_mut(&mut self) -> &mut Vec<Value> {
        &mut self.documents
    }

    pub(crate) fn set_layout(&mut self, layout: Layout) {
        self.layout = layout;
    }

    /// The `v1alpha1` document.
    ///
    /// # Errors
    /// When there is none.
    pub fn legacy(&self) -> Result<&Value, ConfigError> {
        self.documents.iter().find(|document| is_legacy(document)).ok_or(ConfigError::NoLegacyDocument)
    }

    pub(crate) fn legacy_mut(&mut self) -> Result<&mut Value, ConfigError> {
        self.documents.iter_mut().find(|document| is_legacy(document)).ok_or(ConfigError::NoLegacyDocument)
    }

    /// What `machine.type` says.
    ///
    /// # Errors
    /// When the document or the type is missing or unknown.
    pub fn machine_type(&self) -> Result<MachineType, ConfigError> {
        let text = self.legacy()?.pointer("/machine/type").and_then(Value::as_str).unwrap_or_default();
        MachineType::from_generate_type(text)?.ok_or_else(|| ConfigError::MachineType { text: text.to_owned() })
    }

    /// Checks that Talos knows every key of the `v1alpha1` document. It refuses a configuration with an unknown one.
    ///
    /// # Errors
    /// Naming the first unknown key and its neighbours.
    pub fn check_keys(&self) -> Result<(), ConfigError> {
        known::check(self.legacy()?)
    }

    /// The Kubernetes authority in it (certificate and key as PEM), when it has one with a key: control planes only.
    pub fn kubernetes_authority(&self) -> Option<PemPair> {
        let legacy = self.legacy().ok()?;
        let part = |name: &str| generate::decode_pem(legacy.pointer(&format!("/cluster/ca/{name}"))?.as_str()?);
        Some(PemPair { certificate: part("crt")?, key: part("key").filter(|key| !key.is_empty())? })
    }

    /// The secrets bundle that a control plane's configuration was made from: every part of it stands there. A worker's lacks the keys.
    ///
    /// # Errors
    /// Naming the first part that is not there or cannot be used.
    pub fn bundle(&self) -> Result<Bundle, SecretsError> {
        let legacy = self.legacy().ok();
        let found = |path: &str| legacy?.pointer(path)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let text = |path: &'static str| found(path).ok_or(SecretsError::Missing { path });
        let pem = |path: &'static str| generate::decode_pem(&text(path)?).ok_or(SecretsError::NotBase64 { path });
        let pair = |certificate, key| Ok::<_, SecretsError>(PemPair { certificate: pem(certificate)?, key: pem(key)? });
        let encryption = match found("/cluster/aescbcEncryptionSecret") {
            Some(secret) => EncryptionSecret::AesCbc(secret),
            None => EncryptionSecret::Secretbox(text("/cluster/secretboxEncryptionSecret")?),
        };
        let bundle = Bundle {
            cluster_id: text("/cluster/id")?,
            cluster_secret: text("/cluster/secret")?,
            bootstrap_token: text("/cluster/token")?,
            encryption,
            trustd_token: text("/machine/token")?,
            etcd: pair("/cluster/etcd/ca/crt", "/cluster/etcd/ca/key")?,
            kubernetes: pair("/cluster/ca/crt", "/cluster/ca/key")?,
            aggregator: pair("/cluster/aggregatorCA/crt", "/cluster/aggregatorCA/key")?,
            service_account_key: pem("/cluster/serviceAccount/key")?,
            os: pair("/machine/ca/crt", "/machine/ca/key")?,
        };
        bundle.validate()?;
        Ok(bundle)
    }
}

pub(crate) fn is_legacy(document: &Value) -> bool {
    document.get("kind").is_none() && document.get("apiVersion").is_none()
}

/// `kind` and `name` of a document, for matching and for messages.
pub(crate) fn document_name(document: &Value) -> String {
    if is_legacy(document) {
        return "v1alpha1".to_owned();
    }
    let part = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
    [part("apiVersion"), part("kind"), part("name")].join(" ").trim_end().to_owned()
}

/// A configuration and what its patches are to be warned about.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    pub config: MachineConfig,
    /// For a person: what a patch has dropped, and what comes of it.
    pub warnings: Vec<String>,
}

/// The patches of a TalosConfig, applied in this order: JSON patches, then strategic ones, then the host name.
#[derive(Clone, Debug, Default)]
pub struct Patches<'a> {
    /// Operations of RFC 6902: objects with `op`, `path`, `value`.
    pub json: &'a [Value],
    /// Partial configurations, each one YAML text.
    pub strategic: &'a [String],
    /// A host name to be set, when the user asked for one.
    pub hostname: Option<&'a str>,
}

/// Generates a configuration and patches it.
///
/// # Errors
/// When an input is unusable, a patch cannot be applied, or the result has a key that Talos does not know.
pub fn render(input: &Input<'_>, machine: MachineType, patches: &Patches<'_>) -> Result<Rendered, ConfigError> {
    patched(generate(input, machine)?, patches)
}

/// Patches a configuration that was given whole (`generateType: none`).
///
/// # Errors
/// As [`render`].
pub fn patched(mut config: MachineConfig, patches: &Patches<'_>) -> Result<Rendered, ConfigError> {
    let mut warnings = Vec::new();
    if !patches.json.is_empty() {
        warnings = crate::patch::json(&mut config, patches.json)?;
    }
    for (index, text) in patches.strategic.iter().enumerate() {
        crate::patch::strategic(&mut config, text).map_err(|error| PatchError::Strategic { index, source: Box::new(error) })?;
    }
    if let Some(hostname) = patches.hostname {
        network::set_hostname(&mut config, hostname)?;
    }
    if config.legacy().is_ok() {
        config.check_keys()?;
    }
    Ok(Rendered { config, warnings })
}
