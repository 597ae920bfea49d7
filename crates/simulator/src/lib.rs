//! The simulated world and the faces it shows: vCenter, Talos nodes, workload Kubernetes, network; and the rule checker.
