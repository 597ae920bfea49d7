//! MachineDrainRule: which pods a drain evicts, waits for or leaves alone.

use crate::meta::LabelSelector;
use crate::object::{object, resource, words};

resource! {
    /// MachineDrainRule is the Schema of a rule for drains.
    MachineDrainRule: NamespaceResourceScope, "cluster.x-k8s.io" / "v1beta2", "machinedrainrules" {
        /// The rule.
        spec: MachineDrainRuleSpec,
    }
}

object! {
    /// A rule for drains.
    pub struct MachineDrainRuleSpec {
        /// What happens to the pods.
        pub drain: DrainRule,
        /// Machines that it is for; all when absent.
        #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
            "rule": "self.all(x, self.exists_one(y, x == y))", "message": "entries in machines must be unique",
        }]))]
        pub machines: Vec<DrainMachineSelector>,
        /// Pods that it is for; all when absent.
        #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
            "rule": "self.all(x, self.exists_one(y, x == y))", "message": "entries in pods must be unique",
        }]))]
        pub pods: Vec<DrainPodSelector>,
    }
    required ["drain"]
}

words! {
    /// What happens to pods in a drain.
    pub enum DrainBehavior {
        /// They are evicted.
        Drain = "Drain",
        /// They are left alone.
        Skip = "Skip",
        /// They are waited for.
        WaitCompleted = "WaitCompleted",
    }
}

object! {
    /// What happens to pods, and when.
    pub struct DrainRule {
        /// What happens.
        pub behavior: DrainBehavior,
        /// Lower orders come first; 0 when absent.
        pub order: Option<i32>,
    }
    required ["behavior"]
}

object! {
    /// Machines of a drain rule.
    #[schemars(extend("minProperties" = 1))]
    pub struct DrainMachineSelector {
        /// Their clusters.
        pub cluster_selector: Option<LabelSelector>,
        /// Their labels.
        pub selector: Option<LabelSelector>,
    }
}

object! {
    /// Pods of a drain rule.
    #[schemars(extend("minProperties" = 1))]
    pub struct DrainPodSelector {
        /// Their namespaces.
        pub namespace_selector: Option<LabelSelector>,
        /// Their labels.
        pub selector: Option<LabelSelector>,
    }
}
