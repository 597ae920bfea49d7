//! The kinds that are there without a definition: names, scope, subresources, as data.
//!
//! A management server has what controllers, clusterctl and kubectl expect of any cluster; a workload server has in addition what nodes,
//! network add-ons and cloud providers need. Objects of these kinds are data: nothing is scheduled, no token is issued, no rule of RBAC is
//! enforced. What little behaviour they have is in `strategy`.

mod schemas;

pub use schemas::schema;

/// Which kinds a server has built in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Builtins {
    /// A management cluster: the embedded host.
    #[default]
    Management,
    /// A cluster that was made: nodes and what runs on them.
    Workload,
}

/// One kind.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub is_namespaced: bool,
    pub has_status: bool,
    pub has_scale: bool,
    /// Whether `metadata.generation` counts changes of the specification.
    pub has_generation: bool,
    /// Other subresources, as discovery names them.
    pub extra: &'static [&'static str],
    /// Only on workload servers.
    pub is_workload_only: bool,
}

const BASE: Builtin = Builtin {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    is_namespaced: true,
    has_status: false,
    has_scale: false,
    has_generation: false,
    extra: &[],
    is_workload_only: false,
};

const CLUSTER: Builtin = Builtin { is_namespaced: false, ..BASE };
const RBAC: &str = "rbac.authorization.k8s.io";

/// Every built-in kind, in the order of discovery.
pub const ALL: &[Builtin] = &[
    Builtin { kind: "ConfigMap", plural: "configmaps", singular: "configmap", short_names: &["cm"], ..BASE },
    Builtin { kind: "Endpoints", plural: "endpoints", singular: "endpoints", short_names: &["ep"], ..BASE },
    Builtin { kind: "Event", plural: "events", singular: "event", short_names: &["ev"], ..BASE },
    Builtin {
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short_names: &["ns"],
        has_status: true,
        extra: &["finalize"],
        ..CLUSTER
    },
    Builtin { kind: "Node", plural: "nodes", singular: "node", short_names: &["no"], has_status: true, ..CLUSTER },
    Builtin {
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        singular: "persistentvolumeclaim",
        short_names: &["pvc"],
        has_status: true,
        ..BASE
    },
    Builtin {
        kind: "PersistentVolume",
        plural: "persistentvolumes",
        singular: "persistentvolume",
        short_names: &["pv"],
        has_status: true,
        ..CLUSTER
    },
    Builtin {
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        has_status: true,
        has_generation: true,
        extra: &["eviction"],
        ..BASE
    },
    Builtin { kind: "Secret", plural: "secrets", singular: "secret", ..BASE },
    Builtin { kind: "ServiceAccount", plural: "serviceaccounts", singular: "serviceaccount", short_names: &["sa"], ..BASE },
    Builtin {
        kind: "Service",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        has_status: true,
        ..BASE
    },
    Builtin { kind: "LimitRange", plural: "limitranges", singular: "limitrange", short_names: &["limits"], is_workload_only: true, ..BASE },
    Builtin {
        kind: "ResourceQuota",
        plural: "resourcequotas",
        singular: "resourcequota",
        short_names: &["quota"],
        has_status: true,
        is_workload_only: true,
        ..BASE
    },
    Builtin {
        group: "admissionregistration.k8s.io",
        kind: "MutatingWebhookConfiguration",
        plural: "mutatingwebhookconfigurations",
        singular: "mutatingwebhookconfiguration",
        categories: &["api-extensions"],
        has_generation: true,
        is_workload_only: true,
        ..CLUSTER
    },
    Builtin {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingWebhookConfiguration",
        plural: "validatingwebhookconfigurations",
        singular: "validatingwebhookconfiguration",
        categories: &["api-extensions"],
        has_generation: true,
        is_workload_only: true,
        ..CLUSTER
    },
    Builtin {
        group: "apiextensions.k8s.io",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        singular: "customresourcedefinition",
        short_names: &["crd", "crds"],
        categories: &["api-extensions"],
        has_status: true,
        has_generation: true,
        ..CLUSTER
    },
    Builtin {
        group: "apps",
        kind: "DaemonSet",
        plural: "daemonsets",
        singular: "daemonset",
        short_names: &["ds"],
        categories: &["all"],
        has_status: true,
        has_generation: true,
        ..BASE
    },
    Builtin {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short_names: &["deploy"],
        categories: &["all"],
        has_status: true,
        has_scale: true,
        has_generation: true,
        ..BASE
    },
    Builtin {
        group: "apps",
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short_names: &["rs"],
        categories: &["all"],
        has_status: true,
        has_scale: true,
        has_generation: true,
        ..BASE
    },
    Builtin {
        group: "apps",
        kind: "StatefulSet",
        plural: "statefulsets",
        singular: "statefulset",
        short_names: &["sts"],
        categories: &["all"],
        has_status: true,
        has_scale: true,
        has_generation: true,
        ..BASE
    },
    Builtin {
        group: "batch",
        kind: "Job",
        plural: "jobs",
        singular: "job",
        categories: &["all"],
        has_status: true,
        has_generation: true,
        is_workload_only: true,
        ..BASE
    },
    Builtin {
        group: "batch",
        kind: "CronJob",
        plural: "cronjobs",
        singular: "cronjob",
        short_names: &["cj"],
        categories: &["all"],
        has_status: true,
        has_generation: true,
        is_workload_only: true,
        ..BASE
    },
    Builtin {
        group: "certificates.k8s.io",
        kind: "CertificateSigningRequest",
        plural: "certificatesigningrequests",
        singular: "certificatesigningrequest",
        short_names: &["csr"],
        has_status: true,
        extra: &["approval"],
        is_workload_only: true,
        ..CLUSTER
    },
    Builtin { group: "coordination.k8s.io", kind: "Lease", plural: "leases", singular: "lease", ..BASE },
    Builtin {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        plural: "endpointslices",
        singular: "endpointslice",
        has_generation: true,
        is_workload_only: true,
        ..BASE
    },
    Builtin { group: "events.k8s.io", kind: "Event", plural: "events", singular: "event", short_names: &["ev"], ..BASE },
    Builtin {
        group: "networking.k8s.io",
        kind: "Ingress",
        plural: "ingresses",
        singular: "ingress",
        short_names: &["ing"],
        has_status: true,
        has_generation: true,
        is_workload_only: true,
        ..BASE
    },
    Builtin {
        group: "networking.k8s.io",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        singular: "networkpolicy",
        short_names: &["netpol"],
        has_generation: true,
        is_workload_only: true,
        ..BASE
    },
    Builtin {
        group: "policy",
        kind: "PodDisruptionBudget",
        plural: "poddisruptionbudgets",
        singular: "poddisruptionbudget",
        short_names: &["pdb"],
        has_status: true,
        has_generation: true,
        ..BASE
    },
    Builtin { group: RBAC, kind: "ClusterRoleBinding", plural: "clusterrolebindings", singular: "clusterrolebinding", ..CLUSTER },
    Builtin { group: RBAC, kind: "ClusterRole", plural: "clusterroles", singular: "clusterrole", ..CLUSTER },
    Builtin { group: RBAC, kind: "RoleBinding", plural: "rolebindings", singular: "rolebinding", ..BASE },
    Builtin { group: RBAC, kind: "Role", plural: "roles", singular: "role", ..BASE },
    Builtin {
        group: "scheduling.k8s.io",
        kind: "PriorityClass",
        plural: "priorityclasses",
        singular: "priorityclass",
        short_names: &["pc"],
        has_generation: true,
        is_workload_only: true,
        ..CLUSTER
    },
    Builtin { group: "storage.k8s.io", kind: "CSIDriver", plural: "csidrivers", singular: "csidriver", is_workload_only: true, ..CLUSTER },
    Builtin { group: "storage.k8s.io", kind: "CSINode", plural: "csinodes", singular: "csinode", is_workload_only: true, ..CLUSTER },
    Builtin {
        group: "storage.k8s.io",
        kind: "StorageClass",
        plural: "storageclasses",
        singular: "storageclass",
        short_names: &["sc"],
        is_workload_only: true,
        ..CLUSTER
    },
    Builtin {
        group: "storage.k8s.io",
        kind: "VolumeAttachment",
        plural: "volumeattachments",
        singular: "volumeattachment",
        has_status: true,
        is_workload_only: true,
        ..CLUSTER
    },
];
