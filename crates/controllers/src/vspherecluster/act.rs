//! Carries out a VSphereCluster's steps.

use std::sync::Arc;

use api::infrastructure::VSphereCluster;
use api::names::finalizers;
use runtime::reconcile::{Error, ObjectKey, Store};
use serde_json::json;

use super::identity::Identities;
use super::plan::{Observed, Step};
use crate::Wiring;
use crate::edit::Edit;

/// The writers that steps go through.
#[derive(Clone, Debug)]
pub struct Act {
    pub wiring: Wiring,
    pub store: Store<VSphereCluster>,
    pub identities: Identities,
}

impl Act {
    /// Carries out one step; twice is as once.
    ///
    /// # Errors
    /// As the API answers.
    pub async fn step(&self, observed: &Observed, step: &Step) -> Result<(), Error> {
        let key = ObjectKey::of(&observed.object.metadata);
        let meta = self.store.get(&key).unwrap_or_else(|| Arc::clone(&observed.object)).metadata.clone();
        let secret = observed.secret.as_ref().map(|secret| &secret.metadata);
        let word = match step {
            Step::AddFinalizer => {
                Edit::of(&meta).finalizer(finalizers::VSPHERE_CLUSTER).apply(&self.store).await?;
                "add-finalizer"
            }
            Step::RemoveFinalizer => {
                Edit::of(&meta).without_finalizer(finalizers::VSPHERE_CLUSTER).apply(&self.store).await?;
                "remove-finalizer"
            }
            Step::ProtectSecret => {
                if let Some(secret) = secret {
                    Edit::of(secret).finalizer(finalizers::IDENTITY_SECRET).apply(&self.identities.secrets).await?;
                }
                "protect-secret"
            }
            Step::ReleaseSecret => {
                if let Some(secret) = secret {
                    Edit::of(secret).without_finalizer(finalizers::IDENTITY_SECRET).apply(&self.identities.secrets).await?;
                }
                "release-secret"
            }
            Step::CopyEndpoint { host, port } => {
                Edit::of(&meta).spec("controlPlaneEndpoint", json!({"host": host, "port": port})).apply(&self.store).await?;
                "copy-endpoint"
            }
        };
        self.wiring.log.record("vspherecluster", word, format_args!("VSphereCluster {key}"), "ok");
        Ok(())
    }
}
