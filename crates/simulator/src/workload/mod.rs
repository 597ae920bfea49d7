//! The Kubernetes that simulated nodes form: an API server for each etcd cluster, and those who act in it.
//!
//! ```text
//! endpoint   :6443 of every control plane, while its etcd member serves      manifests   what Talos applies at the first start
//! kubelet    registers the node, its static pods, its lease                  access      credentials for pods that ask Talos for them
//! controllers   pods of daemon sets and deployments, lost nodes, taints      cloud_provider   the vSphere provider's stand-in
//! ```
//!
//! The data belongs to the etcd cluster, not to a machine: it is there again when a majority is. Actors work on acknowledged writes and wait
//! for changes; nothing polls. Simplified: deployments own their pods without replica sets, images are never missing, nobody runs in a pod.

mod access;
mod cache;
mod client;
mod cloud_provider;
mod controllers;
pub(crate) mod endpoint;
pub(crate) mod kubelet;
mod manifests;
mod node;
mod pods;
#[cfg(test)]
mod tests;
mod truth;

pub(crate) use access::definition as talos_definition;
pub use truth::Pods;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use apiserver::{ApiServer, Builtins, MemoryJournal, Options};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::node::Nodes;
use crate::node::configuration::Configuration;
use crate::node::etcd::EtcdClusterId;
use crate::node::state::realm_of;
use cache::Cache;
use client::Client;

/// One cluster's Kubernetes.
#[derive(Debug)]
pub(crate) struct Workload {
    pub cluster: EtcdClusterId,
    pub realm: String,
    pub api: ApiServer,
    /// Where its data lies: etcd's own database, as it were.
    pub journal: MemoryJournal,
    cache: Mutex<Cache>,
    changed: watch::Sender<u64>,
    /// Whether the manifests of the first start were applied.
    has_manifests: tokio::sync::Mutex<bool>,
    ended: CancellationToken,
}

impl Workload {
    /// The cluster's Kubernetes; made when the first control plane asks for it.
    pub(crate) async fn of(nodes: &Nodes, cluster: EtcdClusterId, configuration: &Configuration) -> Result<Arc<Self>, String> {
        let cell = nodes.state().workloads.entry(cluster).or_default().clone();
        cell.get_or_try_init(|| Self::open(nodes, cluster, configuration)).await.cloned()
    }

    async fn open(nodes: &Nodes, cluster: EtcdClusterId, configuration: &Configuration) -> Result<Arc<Self>, String> {
        let options = nodes.options();
        let random = options.random.child(&format!("workload {cluster}"));
        let journal = match nodes.state().restored.get(&cluster) {
            Some(contents) => MemoryJournal::holding(contents.clone()),
            None => MemoryJournal::default(),
        };
        let mut server = Options::new(options.clock.clone(), random, Box::new(journal.clone()));
        server.builtins = Builtins::Workload;
        server.version.clone_from(&configuration.kubernetes_version);
        if configuration.talos_access.is_some() {
            server.crds = nodes.talos_definitions();
        }
        let api = ApiServer::open(server).await.map_err(|error| error.to_string())?;
        let workload = Arc::new(Self {
            cluster,
            realm: realm_of(configuration),
            api,
            journal,
            cache: Mutex::default(),
            changed: watch::channel(0).0,
            has_manifests: tokio::sync::Mutex::new(false),
            ended: CancellationToken::new(),
        });
        // Namespaces that every cluster has; everything, in one that was recovered.
        workload.cache().fill(&workload.api);
        let weak = Arc::downgrade(&workload);
        workload.api.on_acknowledged(move |write| {
            let Some(workload) = weak.upgrade() else { return };
            let matters = workload.cache().take(write);
            if matters {
                workload.changed.send_modify(|count| *count += 1);
            }
        });
        let (own, nodes, ended) = (workload.clone(), nodes.clone(), workload.ended.clone());
        tokio::spawn(async move {
            ended.run_until_cancelled(controllers::run(&nodes, &own)).await;
        });
        Ok(workload)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self, user: &str, groups: &[&str]) -> Client {
        Client::new(&self.api, user, groups)
    }

    /// Whether some control plane answers requests for this cluster now.
    pub(crate) fn is_served(&self, nodes: &Nodes) -> bool {
        let state = nodes.state();
        state
            .in_realm(&self.realm)
            .any(|(id, _)| state.serves_api(id) && state.etcd_data(id).is_some_and(|(cluster, _)| cluster == self.cluster))
    }

    /// Ends it: its data is on no disk any more.
    pub(crate) fn end(&self) {
        self.ended.cancel();
        tokio::spawn(self.api.clone().close());
    }
}
