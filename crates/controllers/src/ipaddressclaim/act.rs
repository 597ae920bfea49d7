//! Carries out a claim's steps.

use std::net::IpAddr;
use std::sync::Arc;

use api::ipam::{IPAddress, IPAddressClaim, IPAddressSpec};
use api::meta::NameReference;
use api::names::{finalizers, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use runtime::reconcile::{Error, ObjectKey};

use super::plan::{Observed, Step};
use crate::Wiring;
use crate::edit::{Edit, cluster_name, controller_of};
use crate::inclusterippool::ledger::Ledger;
use crate::inclusterippool::{Pool, Pools};

/// The writers that steps go through.
#[derive(Clone)]
pub struct Act {
    pub wiring: Wiring,
    pub pools: Pools,
}

impl Act {
    /// Carries out one step of a claim; twice is as once.
    ///
    /// # Errors
    /// As the API answers; a conflict when the plan was made on an old view.
    pub async fn step(&self, observed: &Observed, step: &Step) -> Result<(), Error> {
        let claim = &observed.claim;
        let key = ObjectKey::of(&claim.metadata);
        let word = match step {
            Step::Protect => {
                Edit::of(&claim.metadata).finalizer(finalizers::RELEASE_ADDRESS).apply(&self.pools.claims).await?;
                "protect"
            }
            Step::Reserve { ledger, .. } => {
                self.write(observed.pool.as_ref(), ledger).await?;
                "reserve"
            }
            Step::Create(address) => {
                self.create(observed, *address).await?;
                "create-address"
            }
            Step::Free => {
                self.free(observed.address.as_ref()).await?;
                "free-address"
            }
            Step::Return { ledger } => {
                self.write(observed.pool.as_ref(), ledger).await?;
                "return"
            }
            Step::Unprotect => {
                let latest = self.pools.claims.get(&key).unwrap_or_else(|| Arc::clone(claim));
                Edit::of(&latest.metadata).without_finalizer(finalizers::RELEASE_ADDRESS).apply(&self.pools.claims).await?;
                "unprotect"
            }
        };
        self.wiring.log.record(super::NAME, word, format_args!("IPAddressClaim {key}"), "ok");
        Ok(())
    }

    /// Carries out one step for an IPAddress whose claim is gone.
    ///
    /// # Errors
    /// As the API answers.
    pub async fn orphan(&self, address: &Arc<IPAddress>, pool: Option<&Pool>, step: &Step) -> Result<(), Error> {
        match step {
            Step::Return { ledger } => self.write(pool, ledger).await?,
            _ => self.free(Some(address)).await?,
        }
        let key = ObjectKey::of(&address.metadata);
        self.wiring.log.record(super::NAME, "free-orphan", format_args!("IPAddress {key}"), "ok");
        Ok(())
    }

    async fn write(&self, pool: Option<&Pool>, ledger: &Ledger) -> Result<(), Error> {
        if let Some(pool) = pool {
            self.pools.write_ledger(pool, ledger).await?;
        }
        Ok(())
    }

    async fn create(&self, observed: &Observed, address: IpAddr) -> Result<(), Error> {
        let Some(pool) = &observed.pool else { return Ok(()) };
        let object = ip_address(&observed.claim, pool, address);
        match self.pools.addresses.create(&object).await {
            Ok(_) => Ok(()),
            // Made by a run that did not live to see it.
            Err(error) if error.is_already_exists() => {
                self.pools.addresses.fetch(&ObjectKey::of(&object.metadata)).await?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn free(&self, address: Option<&Arc<IPAddress>>) -> Result<(), Error> {
        let Some(address) = address else { return Ok(()) };
        let addresses = &self.pools.addresses;
        // Deleted first: without its finalizer it must not stay behind as if it were in use.
        addresses.delete(&address.metadata, None).await?;
        let Some(left) = addresses.fetch(&ObjectKey::of(&address.metadata)).await? else { return Ok(()) };
        if left.metadata.uid == address.metadata.uid {
            match Edit::of(&left.metadata).without_finalizer(finalizers::PROTECT_ADDRESS).apply(addresses).await {
                Err(error) if error.is_not_found() => {}
                other => drop(other?),
            }
        }
        Ok(())
    }
}

/// The IPAddress of a claim: its name, owners, labels and finalizer are upstream's.
pub fn ip_address(claim: &IPAddressClaim, pool: &Pool, address: IpAddr) -> IPAddress {
    let mut metadata = ObjectMeta {
        name: claim.metadata.name.clone(),
        namespace: claim.metadata.namespace.clone(),
        finalizers: Some(vec![finalizers::PROTECT_ADDRESS.to_owned()]),
        owner_references: Some(vec![controller_of(claim), pool.owner.clone()]),
        ..ObjectMeta::default()
    };
    let cluster = claim.spec.cluster_name.as_deref().or_else(|| cluster_name(&claim.metadata));
    if let Some(cluster) = cluster {
        metadata.labels = Some([(labels::CLUSTER_NAME.to_owned(), cluster.to_owned())].into());
    }
    IPAddress {
        metadata,
        spec: IPAddressSpec {
            address: address.to_string(),
            claim_ref: NameReference { name: claim.name_any() },
            gateway: pool.spec.gateway.clone().filter(|gateway| !gateway.is_empty()),
            pool_ref: claim.spec.pool_ref.clone(),
            prefix: Some(pool.spec.prefix),
        },
    }
}
