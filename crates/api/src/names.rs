//! Labels, annotations, finalizers, secret names and keys, as the upstream projects spell them; plus a few of our own.
//!
//! Controllers, `describe` and users' scripts find each other through these words, so they are written once, here.

/// Group of Cluster, Machine, MachineSet, MachineDeployment, MachineHealthCheck.
pub const CLUSTER_GROUP: &str = "cluster.x-k8s.io";
/// Group of TalosControlPlane.
pub const CONTROL_PLANE_GROUP: &str = "controlplane.cluster.x-k8s.io";
/// Group of TalosConfig and TalosConfigTemplate.
pub const BOOTSTRAP_GROUP: &str = "bootstrap.cluster.x-k8s.io";
/// Group of the vSphere kinds.
pub const INFRASTRUCTURE_GROUP: &str = "infrastructure.cluster.x-k8s.io";
/// Group of pools, claims and addresses.
pub const IPAM_GROUP: &str = "ipam.cluster.x-k8s.io";
/// Group of ClusterResourceSet and its binding.
pub const ADDONS_GROUP: &str = "addons.cluster.x-k8s.io";
/// Group of clusterctl's inventory.
pub const CLUSTERCTL_GROUP: &str = "clusterctl.cluster.x-k8s.io";

/// Labels.
pub mod labels {
    /// Cluster that an object belongs to.
    pub const CLUSTER_NAME: &str = "cluster.x-k8s.io/cluster-name";
    /// Present (empty) on control-plane machines.
    pub const CONTROL_PLANE: &str = "cluster.x-k8s.io/control-plane";
    /// Control plane that a machine belongs to.
    pub const CONTROL_PLANE_NAME: &str = "cluster.x-k8s.io/control-plane-name";
    /// MachineDeployment that an object belongs to.
    pub const DEPLOYMENT_NAME: &str = "cluster.x-k8s.io/deployment-name";
    /// MachineSet that a machine belongs to.
    pub const SET_NAME: &str = "cluster.x-k8s.io/set-name";
    /// MachinePool that an object belongs to.
    pub const POOL_NAME: &str = "cluster.x-k8s.io/pool-name";
    /// Provider that an object or CRD belongs to.
    pub const PROVIDER: &str = "cluster.x-k8s.io/provider";
    /// Restricts which controllers look at an object.
    pub const WATCH_FILTER: &str = "cluster.x-k8s.io/watch-filter";
    /// Pods that a drain leaves alone carry this with the value `skip`.
    pub const DRAIN: &str = "cluster.x-k8s.io/drain";
    /// Machine may be interrupted.
    pub const INTERRUPTIBLE: &str = "cluster.x-k8s.io/interruptible";
    /// Hash of the machine template, on MachineSets and their machines.
    pub const MACHINE_TEMPLATE_HASH: &str = "machine-template-hash";
    /// ESXi host of a machine; lands on its Node.
    pub const ESXI_HOST: &str = "node.cluster.x-k8s.io/esxi-host";
    /// Node role label of control planes.
    pub const NODE_ROLE_CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
    /// clusterctl's component label.
    pub const CLUSTERCTL: &str = "clusterctl.cluster.x-k8s.io";
    /// clusterctl's label for its own inventory.
    pub const CLUSTERCTL_CORE: &str = "clusterctl.cluster.x-k8s.io/core";
    /// clusterctl moves objects of a CRD with this label.
    pub const CLUSTERCTL_MOVE: &str = "clusterctl.cluster.x-k8s.io/move";
    /// clusterctl moves objects of a CRD with this label and all that they own.
    pub const CLUSTERCTL_MOVE_HIERARCHY: &str = "clusterctl.cluster.x-k8s.io/move-hierarchy";
}

/// Annotations.
pub mod annotations {
    /// Present: nobody reconciles the object.
    pub const PAUSED: &str = "cluster.x-k8s.io/paused";
    /// Template that an object was cloned from: name.
    pub const CLONED_FROM_NAME: &str = "cluster.x-k8s.io/cloned-from-name";
    /// Template that an object was cloned from: `Kind.group`.
    pub const CLONED_FROM_GROUPKIND: &str = "cluster.x-k8s.io/cloned-from-groupkind";
    /// Machine goes first when scaling down.
    pub const DELETE_MACHINE: &str = "cluster.x-k8s.io/delete-machine";
    /// MachineSet creates no machines while present.
    pub const DISABLE_MACHINE_CREATE: &str = "cluster.x-k8s.io/disable-machine-create";
    /// Machine is not remediated.
    pub const SKIP_REMEDIATION: &str = "cluster.x-k8s.io/skip-remediation";
    /// On a MachineSet: how often in a row it has replaced Machines that did not last, and when it last began to. Ours.
    pub const REMEDIATION_ROUNDS: &str = "talosphere.dev/remediation-rounds";
    /// Machine is to be remediated.
    pub const REMEDIATE_MACHINE: &str = "cluster.x-k8s.io/remediate-machine";
    /// Infrastructure is managed from outside.
    pub const MANAGED_BY: &str = "cluster.x-k8s.io/managed-by";
    /// Replica count is managed from outside.
    pub const REPLICAS_MANAGED_BY: &str = "cluster.x-k8s.io/replicas-managed-by";
    /// Lower bound of the cluster autoscaler.
    pub const AUTOSCALER_MIN_SIZE: &str = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-min-size";
    /// Upper bound of the cluster autoscaler.
    pub const AUTOSCALER_MAX_SIZE: &str = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size";
    /// Revision of a MachineDeployment, on it and on its MachineSets.
    pub const REVISION: &str = "machinedeployment.clusters.x-k8s.io/revision";
    /// Earlier revisions of a MachineSet that was reused.
    pub const REVISION_HISTORY: &str = "machinedeployment.clusters.x-k8s.io/revision-history";
    /// Desired replicas of a MachineDeployment, on its MachineSets.
    pub const DESIRED_REPLICAS: &str = "machinedeployment.clusters.x-k8s.io/desired-replicas";
    /// Most replicas of a MachineDeployment including surge, on its MachineSets.
    pub const MAX_REPLICAS: &str = "machinedeployment.clusters.x-k8s.io/max-replicas";
    /// Comma-separated preflight checks that a MachineSet skips.
    pub const SKIP_PREFLIGHT_CHECKS: &str = "machineset.cluster.x-k8s.io/skip-preflight-checks";
    /// Machine is not drained.
    pub const EXCLUDE_NODE_DRAINING: &str = "machine.cluster.x-k8s.io/exclude-node-draining";
    /// Machine's volumes are not waited for.
    pub const EXCLUDE_WAIT_FOR_VOLUME_DETACH: &str = "machine.cluster.x-k8s.io/exclude-wait-for-node-volume-detach";
    /// When a machine's certificates end.
    pub const CERTIFICATES_EXPIRY: &str = "machine.cluster.x-k8s.io/certificates-expiry";
    /// Prefix: somebody wants to act before the drain.
    pub const PRE_DRAIN_HOOK_PREFIX: &str = "pre-drain.delete.hook.machine.cluster.x-k8s.io";
    /// Prefix: somebody wants to act before the machine's infrastructure goes.
    pub const PRE_TERMINATE_HOOK_PREFIX: &str = "pre-terminate.delete.hook.machine.cluster.x-k8s.io";
    /// On a Node: its cluster's name.
    pub const NODE_CLUSTER_NAME: &str = "cluster.x-k8s.io/cluster-name";
    /// On a Node: its cluster's namespace.
    pub const NODE_CLUSTER_NAMESPACE: &str = "cluster.x-k8s.io/cluster-namespace";
    /// On a Node: its machine.
    pub const NODE_MACHINE: &str = "cluster.x-k8s.io/machine";
    /// On a Node: kind of its machine's owner.
    pub const NODE_OWNER_KIND: &str = "cluster.x-k8s.io/owner-kind";
    /// On a Node: name of its machine's owner.
    pub const NODE_OWNER_NAME: &str = "cluster.x-k8s.io/owner-name";
    /// On a Node: labels that came from the machine.
    pub const NODE_LABELS_FROM_MACHINE: &str = "cluster.x-k8s.io/labels-from-machine";
    /// On a Node: annotations that came from the machine.
    pub const NODE_ANNOTATIONS_FROM_MACHINE: &str = "cluster.x-k8s.io/annotations-from-machine";
    /// On a Node: taints that came from the machine.
    pub const NODE_TAINTS_FROM_MACHINE: &str = "cluster.x-k8s.io/taints-from-machine";
    /// A control-plane machine has been told to leave etcd.
    pub const ETCD_LEAVING: &str = "controlplane.cluster.x-k8s.io/etcd-leaving";
    /// A pool with this annotation may be deleted although it has addresses.
    pub const SKIP_VALIDATE_DELETE: &str = "ipam.cluster.x-k8s.io/skip-validate-delete-webhook";
    /// clusterctl is about to delete the object after a move; its outside resources stay.
    pub const DELETE_FOR_MOVE: &str = "clusterctl.cluster.x-k8s.io/delete-for-move";
    /// clusterctl waits for this to go before it moves an object.
    pub const BLOCK_MOVE: &str = "clusterctl.cluster.x-k8s.io/block-move";
    /// What kubectl apply saw last.
    pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
    /// What the stored version of an object cannot express, kept for the version it was written in. Ours.
    pub const CONVERSION_DATA: &str = "talosphere.dev/conversion-data";
    /// How long a drain of a Machine may take, as a Go duration: on the Machine, or on its control plane. `0s` is no limit. Ours.
    pub const NODE_DRAIN_TIMEOUT: &str = "talosphere.dev/node-drain-timeout";
    /// When addresses of a pool were released and by whom they were held, for the rest before reuse. Ours.
    pub const POOL_LEDGER: &str = "talosphere.dev/address-ledger";
    /// On a VSphereVM: a clone was asked for, and what is needed to find the machine and to prove whose it is. Ours.
    pub const CLONE_INTENT: &str = "talosphere.dev/clone-intent";
    /// The network that a pool's addresses belong to, where networks use the same addresses. Pools of one network, as those without it
    /// are, never give out an address twice. Ours.
    pub const POOL_NETWORK: &str = "talosphere.dev/network";
}

/// Finalizers.
pub mod finalizers {
    /// On Cluster.
    pub const CLUSTER: &str = "cluster.cluster.x-k8s.io";
    /// On Machine.
    pub const MACHINE: &str = "machine.cluster.x-k8s.io";
    /// On MachineSet.
    pub const MACHINE_SET: &str = "cluster.x-k8s.io/machineset";
    /// On MachineDeployment.
    pub const MACHINE_DEPLOYMENT: &str = "cluster.x-k8s.io/machinedeployment";
    /// On TalosControlPlane.
    pub const TALOS_CONTROL_PLANE: &str = "talos.controlplane.cluster.x-k8s.io";
    /// On TalosConfig, of old releases: only ever removed.
    pub const TALOS_CONFIG: &str = "talosconfig.bootstrap.cluster.x-k8s.io";
    /// On VSphereCluster.
    pub const VSPHERE_CLUSTER: &str = "vspherecluster.infrastructure.cluster.x-k8s.io";
    /// On VSphereMachine.
    pub const VSPHERE_MACHINE: &str = "vspheremachine.infrastructure.cluster.x-k8s.io";
    /// On VSphereVM.
    pub const VSPHERE_VM: &str = "vspherevm.infrastructure.cluster.x-k8s.io";
    /// On IPAddressClaim, by the VSphereVM that uses it.
    pub const IP_CLAIM_PROTECTION: &str = "vspherevm.infrastructure.cluster.x-k8s.io/ip-claim-protection";
    /// On the identity Secret.
    pub const IDENTITY_SECRET: &str = "vspherecluster/infrastructure.cluster.x-k8s.io";
    /// On VSphereClusterIdentity's Secret.
    pub const CLUSTER_IDENTITY: &str = "vsphereclusteridentity/infrastructure.cluster.x-k8s.io";
    /// On VSphereDeploymentZone.
    pub const DEPLOYMENT_ZONE: &str = "vspheredeploymentzone.infrastructure.cluster.x-k8s.io";
    /// On ClusterResourceSet.
    pub const CLUSTER_RESOURCE_SET: &str = "addons.cluster.x-k8s.io";
    /// On IPAddressClaim.
    pub const RELEASE_ADDRESS: &str = "ipam.cluster.x-k8s.io/ReleaseAddress";
    /// On IPAddress.
    pub const PROTECT_ADDRESS: &str = "ipam.cluster.x-k8s.io/ProtectAddress";
    /// On pools while addresses exist.
    pub const PROTECT_POOL: &str = "ipam.cluster.x-k8s.io/ProtectPool";
}

/// Secrets: names, keys, types.
pub mod secrets {
    /// Type of the secrets that Cluster API makes.
    pub const TYPE: &str = "cluster.x-k8s.io/secret";
    /// Type of secrets that a ClusterResourceSet may apply.
    pub const RESOURCE_SET_TYPE: &str = "addons.cluster.x-k8s.io/resource-set";
    /// Key of kubeconfig and bootstrap data.
    pub const VALUE: &str = "value";
    /// Key of the Talos secrets bundle.
    pub const BUNDLE: &str = "bundle";
    /// Key of the Talos client configuration.
    pub const TALOSCONFIG: &str = "talosconfig";
    /// Key of a certificate.
    pub const TLS_CERTIFICATE: &str = "tls.crt";
    /// Key of a private key.
    pub const TLS_KEY: &str = "tls.key";

    /// Secret with the administrator's kubeconfig.
    pub fn kubeconfig(cluster: &str) -> String {
        format!("{cluster}-kubeconfig")
    }
    /// Secret with the Kubernetes CA.
    pub fn ca(cluster: &str) -> String {
        format!("{cluster}-ca")
    }
    /// Secret with the Talos secrets bundle.
    pub fn talos(cluster: &str) -> String {
        format!("{cluster}-talos")
    }
    /// Secret with the Talos client configuration.
    pub fn talosconfig(cluster: &str) -> String {
        format!("{cluster}-talosconfig")
    }
    /// Secret with a machine's configuration.
    pub fn bootstrap_data(machine: &str) -> String {
        format!("{machine}-bootstrap-data")
    }
}
