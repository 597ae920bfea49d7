//! Rule 1: one etcd per cluster. Machines of one realm - with one Talos authority - are meant to be one cluster.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, violation};
use crate::node::NodesTruth;
use crate::node::state::BootstrapCall;

/// Which calls were looked at.
#[derive(Debug, Default)]
pub(super) struct Memory {
    looked_at: usize,
    calls: Vec<BootstrapCall>,
}

impl Memory {
    pub fn check(&mut self, truth: &NodesTruth) -> Vec<Violation> {
        let mut found = Vec::new();
        for call in truth.bootstraps.iter().skip(self.looked_at) {
            // Another machine may be chosen only once the first one's disk is gone for good. A recovery may be anywhere, but nobody may
            // still hold data of the cluster that it takes the place of: that would be a second one, which is looked for below.
            let is_first = call.recovered.is_none();
            let earlier = self
                .calls
                .iter()
                .filter(|other| is_first && other.realm == call.realm && other.disk != call.disk && truth.disks.contains(&other.disk));
            for other in earlier {
                let evidence = format!("{} at {}, {} at {}", other.vm, other.at, call.vm, call.at);
                found.push(violation(1, "bootstrap was sent to two machines of one cluster", evidence));
            }
            self.calls.push(call.clone());
        }
        self.looked_at = self.looked_at.max(truth.bootstraps.len());
        let mut by_realm: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for cluster in &truth.etcd {
            by_realm.entry(&cluster.realm).or_default().insert(cluster.id.to_string());
        }
        for clusters in by_realm.values().filter(|clusters| clusters.len() > 1) {
            let names: Vec<&str> = clusters.iter().map(String::as_str).collect();
            found.push(violation(
                1,
                "one cluster's machines form more than one etcd cluster",
                format!("etcd clusters {}", names.join(", ")),
            ));
        }
        found
    }
}
