//! Who signs in to a cluster's vCenter: the secret that its VSphereCluster refers to, directly or through a VSphereClusterIdentity.
//!
//! Contents of a secret never get into a message; only its name and its keys do.

use api::infrastructure::{IdentityKind, IdentityReference, VSphereCluster, VSphereClusterIdentity};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use runtime::reconcile::{ObjectKey, Store, Stores};
use thiserror::Error;
use vsphere::{Credentials, Secret as Password};

/// Where secrets of VSphereClusterIdentities lie: the namespace that upstream's controller runs in.
pub const IDENTITY_NAMESPACE: &str = "capv-system";

/// Why nobody can sign in.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum IdentityError {
    /// No reference.
    #[error("VSphereCluster {cluster} has no identityRef: name a Secret with username and password there")]
    None { cluster: String },
    /// The secret is not there.
    #[error("secret {secret}, which holds the vCenter credentials, does not exist: create it with the keys username and password")]
    Missing { secret: String },
    /// A key is not there, or empty.
    #[error("secret {secret} has no {key}: vCenter credentials need the keys username and password")]
    Key { secret: String, key: &'static str },
    /// A value is no text.
    #[error("{key} in secret {secret} is not UTF-8 text")]
    Text { secret: String, key: &'static str },
    /// The identity is not there.
    #[error("VSphereClusterIdentity {identity} does not exist")]
    NoIdentity { identity: String },
    /// The namespace may not use it.
    #[error("VSphereClusterIdentity {identity} does not allow namespace {namespace} (spec.allowedNamespaces)")]
    NotAllowed { identity: String, namespace: String },
}

/// The stores that identities are read from.
#[derive(Clone, Debug)]
pub struct Identities {
    pub secrets: Store<Secret>,
    identities: Store<VSphereClusterIdentity>,
    namespaces: Store<Namespace>,
}

impl Identities {
    /// Opens them.
    pub fn new(stores: &Stores) -> Self {
        Self { secrets: stores.get(), identities: stores.get(), namespaces: stores.get() }
    }

    /// The secret behind a cluster's identity, when it is one of its own (not of a shared identity).
    pub fn own_secret(cluster: &VSphereCluster) -> Option<ObjectKey> {
        let reference = cluster.spec.identity_ref.as_ref().filter(|reference| reference.kind == IdentityKind::Secret)?;
        Some(ObjectKey { namespace: cluster.metadata.namespace.clone(), name: reference.name.clone() })
    }

    fn secret_of(&self, cluster: &VSphereCluster, reference: &IdentityReference) -> Result<ObjectKey, IdentityError> {
        let namespace = cluster.metadata.namespace.clone().unwrap_or_default();
        if reference.kind == IdentityKind::Secret {
            return Ok(ObjectKey::namespaced(namespace, &reference.name));
        }
        let identity = reference.name.clone();
        let found = self.identities.get(&ObjectKey::cluster_scoped(&identity));
        let found = found.ok_or_else(|| IdentityError::NoIdentity { identity: identity.clone() })?;
        let labels = self.namespaces.get(&ObjectKey::cluster_scoped(&namespace)).and_then(|found| found.metadata.labels.clone());
        let allowed = found.spec.allowed_namespaces.as_ref().and_then(|allowed| allowed.selector.as_ref());
        if allowed.is_some_and(|selector| selector.matches(&labels.unwrap_or_default())) {
            Ok(ObjectKey::namespaced(IDENTITY_NAMESPACE, &found.spec.secret_name))
        } else {
            Err(IdentityError::NotAllowed { identity, namespace })
        }
    }

    /// The credentials for `server`, in the name of the cluster's identity.
    ///
    /// # Errors
    /// When the identity cannot be read.
    pub fn credentials(&self, cluster: &VSphereCluster, server: &str, thumbprint: Option<&str>) -> Result<Credentials, IdentityError> {
        let name = cluster.metadata.name.clone().unwrap_or_default();
        let reference = cluster.spec.identity_ref.as_ref().ok_or(IdentityError::None { cluster: name })?;
        let key = self.secret_of(cluster, reference)?;
        let secret = self.secrets.get(&key).ok_or_else(|| IdentityError::Missing { secret: key.to_string() })?;
        let user = text(&secret, &key, "username")?;
        let password = text(&secret, &key, "password")?;
        Ok(Credentials { server: server.to_owned(), user, password: Password::new(password), thumbprint: thumbprint.map(str::to_owned) })
    }
}

fn text(secret: &Secret, name: &ObjectKey, key: &'static str) -> Result<String, IdentityError> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key)).filter(|bytes| !bytes.0.is_empty());
    let bytes = bytes.ok_or_else(|| IdentityError::Key { secret: name.to_string(), key })?;
    let text = std::str::from_utf8(&bytes.0).map_err(|_| IdentityError::Text { secret: name.to_string(), key })?;
    // A line end that an editor or a shell put there is never part of it.
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
