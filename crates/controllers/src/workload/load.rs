//! What is on a Node, read for a drain: its pods, what became of their evictions, and the volumes attached to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

/// What a look at a Node is for. Pods are read each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Labels of namespaces: some rule selects by them.
    pub namespaces: bool,
    /// Attachments and their volumes.
    pub volumes: bool,
}

/// A volume that is attached to a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its PersistentVolume, else its attachment.
    pub name: String,
    /// As the Node calls it in `status.volumesAttached`; none when it is no volume of a CSI driver.
    pub device: Option<String>,
    /// Namespace and name of the claim that it is bound to.
    pub claim: Option<(String, String)>,
}

/// What became of an eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The look after which it was asked for.
    pub round: u64,
    /// Why it was refused, in the API's words; none when it was not.
    pub refusal: Option<String>,
}

/// What a look brought.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    pub pods: Vec<Arc<Pod>>,
    /// Labels of namespaces, where they were asked for.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// None where they were not asked for.
    pub volumes: Option<Vec<Attached>>,
}

/// What is known of a Node's load.
#[derive(Clone, Debug)]
pub struct Load {
    /// When somebody looked last, successfully or not.
    pub at: Timestamp,
    /// How many looks succeeded. Nothing is known before the first one.
    pub round: u64,
    pub looked: Looked,
    /// By uid of the pod.
    pub attempts: BTreeMap<String, Attempt>,
    /// Why the last look failed; none when it did not.
    pub failure: Option<String>,
}

impl Load {
    /// Before the first look.
    pub fn unknown(at: Timestamp) -> Self {
        Self { at, round: 0, looked: Looked::default(), attempts: BTreeMap::new(), failure: None }
    }
}

/// A pod to be evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Another grace period than the pod's own.
    pub grace_seconds: Option<u32>,
    /// The look that showed the pod.
    pub round: u64,
}
