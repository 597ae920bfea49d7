//! What the rule checker may know of the clusters: the pods on a node. They are read when they are asked for, since a world has many and is
//! looked at after every event.

use std::sync::Arc;

use serde_json::Value;

use super::Workload;
use super::cache::text;

/// The pods of all clusters.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    workloads: Vec<Arc<Workload>>,
    others: Vec<Arc<Value>>,
}

impl Pods {
    pub(crate) fn of(workloads: Vec<Arc<Workload>>) -> Self {
        Self { workloads, others: Vec::new() }
    }

    /// These, of no cluster.
    #[cfg(test)]
    pub(crate) fn given(pods: Vec<Value>) -> Self {
        Self { workloads: Vec::new(), others: pods.into_iter().map(Arc::new).collect() }
    }

    /// The pods on a node.
    pub fn on(&self, node: &str) -> Vec<Arc<Value>> {
        let of_clusters = self.workloads.iter().flat_map(|workload| workload.cache().list("pods"));
        of_clusters.chain(self.others.iter().cloned()).filter(|pod| text(pod, "/spec/nodeName") == node).collect()
    }
}
