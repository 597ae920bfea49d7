//! Names, columns, subresources and labels of every kind, as upstream's CustomResourceDefinitions have them.
//!
//! Columns are written as `Name:type@priority=.json.path`, joined by `; ` (type `string` and priority 0 are left out).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::names::{
    ADDONS_GROUP, BOOTSTRAP_GROUP, CLUSTER_GROUP, CLUSTERCTL_GROUP, CONTROL_PLANE_GROUP, INFRASTRUCTURE_GROUP, IPAM_GROUP, labels,
};
use crate::schema::structural;
use crate::{addons, bootstrap, cluster, clusterctl, controlplane, infrastructure, ipam};

/// One kind.
#[derive(Debug)]
pub struct Kind {
    /// API group.
    pub group: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Resource name.
    pub plural: &'static str,
    /// Short resource names.
    pub short_names: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub is_namespaced: bool,
    /// Stored version.
    pub hub: &'static str,
    /// Whether it has the scale subresource.
    pub is_scalable: bool,
    /// Schema of the stored version.
    pub(super) schema: fn() -> Value,
    /// Fields that an object of the stored version must have.
    pub(super) required: &'static [&'static str],
    /// Versions that are deprecated.
    pub(super) deprecated: &'static [&'static str],
    status: &'static [&'static str],
    columns: &'static [(&'static str, &'static str)],
    provider: &'static str,
    contracts: &'static [(&'static str, &'static str)],
    clusterctl: &'static [(&'static str, &'static str)],
}

/// One printer column.
#[derive(Debug)]
pub struct Column {
    name: &'static str,
    type_: &'static str,
    priority: i32,
    path: &'static str,
}

impl Column {
    fn parse(text: &'static str) -> Option<Self> {
        let (head, path) = text.split_once('=')?;
        let (head, priority) = match head.split_once('@') {
            Some((head, priority)) => (head, priority.parse().ok()?),
            None => (head, 0),
        };
        let (name, type_) = head.split_once(':').unwrap_or((head, "string"));
        Some(Self { name, type_, priority, path })
    }

    pub(super) fn to_json(&self) -> Value {
        let mut column = json!({"name": self.name, "type": self.type_, "jsonPath": self.path});
        if let (true, Some(map)) = (self.priority != 0, column.as_object_mut()) {
            map.insert("priority".to_owned(), json!(self.priority));
        }
        column
    }
}

impl Kind {
    pub(super) fn columns(&self, version: &str) -> Vec<Column> {
        let text = self.columns.iter().find(|(name, _)| *name == version).map_or("", |(_, text)| *text);
        text.split("; ").filter_map(Column::parse).collect()
    }

    pub(super) fn has_status(&self, version: &str) -> bool {
        self.status.contains(&version)
    }

    /// Contract labels (which versions speak which contract) and clusterctl's labels.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let mut map = BTreeMap::from([(labels::CLUSTERCTL.to_owned(), String::new())]);
        if !self.provider.is_empty() {
            map.insert(labels::PROVIDER.to_owned(), self.provider.to_owned());
        }
        map.extend(self.contracts.iter().map(|(contract, versions)| (format!("{CLUSTER_GROUP}/{contract}"), (*versions).to_owned())));
        map.extend(self.clusterctl.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        map
    }
}

const AGE: &str = "Age:date=.metadata.creationTimestamp";
const BETA: &[(&str, &str)] = &[("v1beta1", "v1beta1"), ("v1beta2", "v1beta2")];
const MOVE_HIERARCHY: &[(&str, &str)] = &[(labels::CLUSTERCTL_MOVE_HIERARCHY, "")];
const POOL_V1ALPHA2: &str = "Addresses=.spec.addresses; Total:integer=.status.ipAddresses.total; Free:integer=.status.ipAddresses.free; \
     Used:integer=.status.ipAddresses.used";
const POOL_REFERENCE: &str = "Pool Name=.spec.poolRef.name; Pool Kind=.spec.poolRef.kind; Age:date=.metadata.creationTimestamp";
const ADDRESS: &str =
    "Address=.spec.address; Pool Name=.spec.poolRef.name; Pool Kind=.spec.poolRef.kind; Age:date=.metadata.creationTimestamp";
const HEALTH_CHECK: &str = "Cluster=.spec.clusterName; ExpectedMachines:integer=.status.expectedMachines; MaxUnhealthy=.spec.maxUnhealthy; \
     CurrentHealthy:integer=.status.currentHealthy; Age:date=.metadata.creationTimestamp";
const DRAIN_RULE: &str = "Behavior=.spec.drain.behavior; Order=.spec.drain.order; Age:date=.metadata.creationTimestamp";

const BLANK: Kind = Kind {
    group: "",
    kind: "",
    plural: "",
    short_names: &[],
    is_namespaced: true,
    hub: "v1beta2",
    is_scalable: false,
    schema: || Value::Null,
    required: &["spec"],
    deprecated: &["v1beta1"],
    status: &["v1beta1", "v1beta2"],
    columns: &[],
    provider: "",
    contracts: BETA,
    clusterctl: &[],
};
const CORE: Kind = Kind { group: CLUSTER_GROUP, provider: "cluster-api", ..BLANK };
const VSPHERE: Kind = Kind { group: INFRASTRUCTURE_GROUP, provider: "infrastructure-vsphere", ..BLANK };
const TALOS: Kind = Kind {
    group: BOOTSTRAP_GROUP,
    provider: "bootstrap-talos",
    hub: "v1beta1",
    required: &[],
    deprecated: &[],
    status: &["v1alpha3", "v1beta1"],
    contracts: &[("v1beta1", "v1alpha3"), ("v1beta2", "v1beta1")],
    ..BLANK
};
const POOL: Kind = Kind {
    group: IPAM_GROUP,
    provider: "ipam-in-cluster",
    hub: "v1alpha2",
    required: &[],
    deprecated: &["v1alpha1"],
    status: &["v1alpha1", "v1alpha2"],
    contracts: &[("v1beta1", "v1alpha1_v1alpha2"), ("v1beta2", "v1alpha2")],
    clusterctl: MOVE_HIERARCHY,
    ..BLANK
};

static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let mut all = core();
    all.extend(addons_and_ipam());
    all.extend(talos());
    all.extend(vsphere());
    all.sort_by(|a, b| (a.plural, a.group).cmp(&(b.plural, b.group)));
    all
});

/// All kinds, ordered by resource name.
pub fn kinds() -> &'static [Kind] {
    &KINDS
}

fn core() -> Vec<Kind> {
    vec![
        Kind {
            kind: "Cluster",
            plural: "clusters",
            short_names: &["cl"],
            schema: structural::<cluster::Cluster>,
            columns: &[
                (
                    "v1beta1",
                    "ClusterClass=.spec.topology.class; Phase=.status.phase; Age:date=.metadata.creationTimestamp; Version=.spec.topology.version",
                ),
                (
                    "v1beta2",
                    "ClusterClass=.spec.topology.classRef.name; Available=.status.conditions[?(@.type==\"Available\")].status; \
                     CP Desired:integer=.status.controlPlane.desiredReplicas; CP Current:integer@10=.status.controlPlane.replicas; \
                     CP Ready:integer@10=.status.controlPlane.readyReplicas; CP Available:integer=.status.controlPlane.availableReplicas; \
                     CP Up-to-date:integer=.status.controlPlane.upToDateReplicas; W Desired:integer=.status.workers.desiredReplicas; \
                     W Current:integer@10=.status.workers.replicas; W Ready:integer@10=.status.workers.readyReplicas; \
                     W Available:integer=.status.workers.availableReplicas; W Up-to-date:integer=.status.workers.upToDateReplicas; \
                     Paused@10=.status.conditions[?(@.type==\"Paused\")].status; Phase=.status.phase; \
                     Age:date=.metadata.creationTimestamp; Version=.spec.topology.version",
                ),
            ],
            ..CORE
        },
        Kind {
            kind: "Machine",
            plural: "machines",
            short_names: &["ma"],
            schema: structural::<cluster::Machine>,
            columns: &[
                (
                    "v1beta1",
                    "Cluster=.spec.clusterName; NodeName=.status.nodeRef.name; ProviderID=.spec.providerID; Phase=.status.phase; \
                     Age:date=.metadata.creationTimestamp; Version=.spec.version",
                ),
                (
                    "v1beta2",
                    "Cluster=.spec.clusterName; Node Name=.status.nodeRef.name; Provider ID@10=.spec.providerID; \
                     Failure domain=.status.failureDomain; Ready=.status.conditions[?(@.type==\"Ready\")].status; \
                     Available=.status.conditions[?(@.type==\"Available\")].status; \
                     Up-to-date=.status.conditions[?(@.type==\"UpToDate\")].status; \
                     Internal-IP@10=.status.addresses[?(@.type==\"InternalIP\")].address; \
                     External-IP@10=.status.addresses[?(@.type==\"ExternalIP\")].address; OS-Image@10=.status.nodeInfo.osImage; \
                     Paused@10=.status.conditions[?(@.type==\"Paused\")].status; Phase=.status.phase; \
                     Age:date=.metadata.creationTimestamp; Version=.spec.version",
                ),
            ],
            ..CORE
        },
        Kind {
            kind: "MachineSet",
            plural: "machinesets",
            short_names: &["ms"],
            is_scalable: true,
            schema: structural::<cluster::MachineSet>,
            columns: &[
                (
                    "v1beta1",
                    "Cluster=.spec.clusterName; Desired:integer@10=.spec.replicas; Replicas:integer=.status.replicas; \
                     Ready:integer=.status.readyReplicas; Available:integer=.status.availableReplicas; \
                     Age:date=.metadata.creationTimestamp; Version=.spec.template.spec.version",
                ),
                (
                    "v1beta2",
                    "Cluster=.spec.clusterName; Desired:integer=.spec.replicas; Current:integer=.status.replicas; \
                     Ready:integer=.status.readyReplicas; Available:integer=.status.availableReplicas; \
                     Up-to-date:integer=.status.upToDateReplicas; Paused@10=.status.conditions[?(@.type==\"Paused\")].status; \
                     Age:date=.metadata.creationTimestamp; Version=.spec.template.spec.version",
                ),
            ],
            ..CORE
        },
        Kind {
            kind: "MachineDeployment",
            plural: "machinedeployments",
            short_names: &["md"],
            is_scalable: true,
            schema: structural::<cluster::MachineDeployment>,
            columns: &[
                (
                    "v1beta1",
                    "Cluster=.spec.clusterName; Desired:integer@10=.spec.replicas; Replicas:integer=.status.replicas; \
                     Ready:integer=.status.readyReplicas; Updated:integer=.status.updatedReplicas; \
                     Unavailable:integer=.status.unavailableReplicas; Phase=.status.phase; Age:date=.metadata.creationTimestamp; \
                     Version=.spec.template.spec.version",
                ),
                (
                    "v1beta2",
                    "Cluster=.spec.clusterName; Available=.status.conditions[?(@.type==\"Available\")].status; \
                     Desired:integer=.spec.replicas; Current:integer=.status.replicas; Ready:integer=.status.readyReplicas; \
                     Available:integer=.status.availableReplicas; Up-to-date:integer=.status.upToDateReplicas; \
                     Paused@10=.status.conditions[?(@.type==\"Paused\")].status; Phase=.status.phase; \
                     Age:date=.metadata.creationTimestamp; Version=.spec.template.spec.version",
                ),
            ],
            ..CORE
        },
        Kind {
            kind: "MachineHealthCheck",
            plural: "machinehealthchecks",
            short_names: &["mhc", "mhcs"],
            schema: structural::<cluster::MachineHealthCheck>,
            deprecated: &["v1alpha4", "v1beta1"],
            status: &["v1alpha4", "v1beta1", "v1beta2"],
            columns: &[
                ("v1alpha4", HEALTH_CHECK),
                ("v1beta1", HEALTH_CHECK),
                (
                    "v1beta2",
                    "Cluster=.spec.clusterName; Replicas:integer=.status.expectedMachines; Healthy:integer=.status.currentHealthy; \
                     Paused@10=.status.conditions[?(@.type==\"Paused\")].status; Age:date=.metadata.creationTimestamp",
                ),
            ],
            ..CORE
        },
        Kind {
            kind: "MachineDrainRule",
            plural: "machinedrainrules",
            schema: structural::<cluster::MachineDrainRule>,
            required: &["metadata", "spec"],
            status: &[],
            columns: &[("v1beta1", DRAIN_RULE), ("v1beta2", DRAIN_RULE)],
            ..CORE
        },
        Kind {
            group: CLUSTERCTL_GROUP,
            kind: "Provider",
            plural: "providers",
            hub: "v1alpha3",
            schema: structural::<clusterctl::Provider>,
            required: &[],
            status: &[],
            columns: &[("v1alpha3", "Age:date=.metadata.creationTimestamp; Type=.type; Provider=.providerName; Version=.version")],
            provider: "",
            contracts: &[],
            clusterctl: &[(labels::CLUSTERCTL_CORE, "inventory")],
            ..BLANK
        },
    ]
}

fn addons_and_ipam() -> Vec<Kind> {
    vec![
        Kind {
            group: ADDONS_GROUP,
            kind: "ClusterResourceSet",
            plural: "clusterresourcesets",
            schema: structural::<addons::ClusterResourceSet>,
            columns: &[
                ("v1beta1", AGE),
                (
                    "v1beta2",
                    "Applied=.status.conditions[?(@.type==\"ResourcesApplied\")].status; \
                     Paused@10=.status.conditions[?(@.type==\"Paused\")].status; Age:date=.metadata.creationTimestamp",
                ),
            ],
            ..CORE
        },
        Kind {
            group: ADDONS_GROUP,
            kind: "ClusterResourceSetBinding",
            plural: "clusterresourcesetbindings",
            schema: structural::<addons::ClusterResourceSetBinding>,
            status: &["v1beta1"],
            columns: &[("v1beta1", AGE), ("v1beta2", "Cluster=.spec.clusterName; Age:date=.metadata.creationTimestamp")],
            ..CORE
        },
        Kind {
            group: IPAM_GROUP,
            kind: "IPAddressClaim",
            plural: "ipaddressclaims",
            schema: structural::<ipam::IPAddressClaim>,
            status: &["v1alpha1", "v1beta1", "v1beta2"],
            columns: &[("v1alpha1", POOL_REFERENCE), ("v1beta1", POOL_REFERENCE), ("v1beta2", POOL_REFERENCE)],
            ..CORE
        },
        Kind {
            group: IPAM_GROUP,
            kind: "IPAddress",
            plural: "ipaddresses",
            schema: structural::<ipam::IPAddress>,
            status: &[],
            columns: &[("v1alpha1", ADDRESS), ("v1beta1", ADDRESS), ("v1beta2", ADDRESS)],
            ..CORE
        },
        Kind {
            kind: "InClusterIPPool",
            plural: "inclusterippools",
            schema: structural::<ipam::InClusterIPPool>,
            columns: &[
                (
                    "v1alpha1",
                    "Subnet=.spec.subnet; First=.spec.start; Last=.spec.end; Addresses=.spec.addresses; \
                     Total:integer=.status.ipAddresses.total; Free:integer=.status.ipAddresses.free; \
                     Used:integer=.status.ipAddresses.used",
                ),
                ("v1alpha2", POOL_V1ALPHA2),
            ],
            ..POOL
        },
        Kind {
            kind: "GlobalInClusterIPPool",
            plural: "globalinclusterippools",
            is_namespaced: false,
            schema: structural::<ipam::GlobalInClusterIPPool>,
            columns: &[
                (
                    "v1alpha1",
                    "Subnet=.spec.subnet; First=.spec.start; Last=.spec.end; Total:integer=.status.ipAddresses.total; \
                     Free:integer=.status.ipAddresses.free; Used:integer=.status.ipAddresses.used",
                ),
                ("v1alpha2", POOL_V1ALPHA2),
            ],
            ..POOL
        },
    ]
}

fn talos() -> Vec<Kind> {
    vec![
        Kind {
            group: CONTROL_PLANE_GROUP,
            kind: "TalosControlPlane",
            plural: "taloscontrolplanes",
            short_names: &["tcp"],
            hub: "v1alpha3",
            is_scalable: true,
            schema: structural::<controlplane::TalosControlPlane>,
            status: &["v1alpha3"],
            columns: &[(
                "v1alpha3",
                "Ready:boolean=.status.ready; Initialized:boolean=.status.initialized; Replicas:integer=.status.replicas; \
                 Ready Replicas:integer=.status.readyReplicas; Unavailable Replicas:integer=.status.unavailableReplicas",
            )],
            provider: "control-plane-talos",
            contracts: &[("v1alpha3", "v1alpha3"), ("v1alpha4", "v1alpha3"), ("v1beta1", "v1alpha3")],
            ..TALOS
        },
        Kind {
            kind: "TalosConfig",
            plural: "talosconfigs",
            schema: structural::<bootstrap::TalosConfig>,
            columns: &[(
                "v1beta1",
                "Cluster=.metadata.labels['cluster\\.x-k8s\\.io/cluster-name']; Initialized=.status.initialization.dataSecretCreated; \
                 Bootstrap secret=.status.dataSecretName; Age:date=.metadata.creationTimestamp",
            )],
            ..TALOS
        },
        Kind {
            kind: "TalosConfigTemplate",
            plural: "talosconfigtemplates",
            schema: structural::<bootstrap::TalosConfigTemplate>,
            columns: &[(
                "v1beta1",
                "ClusterClass=.metadata.ownerReferences[?(@.kind==\"ClusterClass\")].name; \
                 Cluster=.metadata.ownerReferences[?(@.kind==\"Cluster\")].name; Age:date=.metadata.creationTimestamp",
            )],
            ..TALOS
        },
    ]
}

fn vsphere() -> Vec<Kind> {
    vec![
        Kind {
            kind: "VSphereCluster",
            plural: "vsphereclusters",
            schema: structural::<infrastructure::VSphereCluster>,
            columns: &[
                (
                    "v1beta1",
                    "Ready=.status.ready; Server=.spec.server; ControlPlaneEndpoint@1=.spec.controlPlaneEndpoint.host; \
                     Age:date=.metadata.creationTimestamp",
                ),
                (
                    "v1beta2",
                    "Cluster=.metadata.labels['cluster\\.x-k8s\\.io/cluster-name']; Server=.spec.server; \
                     ControlPlane Endpoint=.spec.controlPlaneEndpoint.host; \
                     Paused@10=.status.conditions[?(@.type==\"Paused\")].status; Provisioned=.status.initialization.provisioned; \
                     Age:date=.metadata.creationTimestamp",
                ),
            ],
            ..VSPHERE
        },
        Kind {
            kind: "VSphereClusterTemplate",
            plural: "vsphereclustertemplates",
            schema: structural::<infrastructure::VSphereClusterTemplate>,
            required: &[],
            status: &[],
            columns: &[(
                "v1beta2",
                "ClusterClass=.metadata.ownerReferences[?(@.kind==\"ClusterClass\")].name; Age:date=.metadata.creationTimestamp",
            )],
            ..VSPHERE
        },
        Kind {
            kind: "VSphereMachine",
            plural: "vspheremachines",
            schema: structural::<infrastructure::VSphereMachine>,
            columns: &[
                (
                    "v1beta1",
                    "Cluster=.metadata.labels.cluster\\.x-k8s\\.io/cluster-name; Ready=.status.ready; ProviderID=.spec.providerID; \
                     Machine@1=.metadata.ownerReferences[?(@.kind==\"Machine\")].name; Age:date=.metadata.creationTimestamp",
                ),
                (
                    "v1beta2",
                    "Cluster=.metadata.labels['cluster\\.x-k8s\\.io/cluster-name']; Provider ID@10=.spec.providerID; \
                     Template@10=.spec.template; Paused@10=.status.conditions[?(@.type==\"Paused\")].status; \
                     Provisioned=.status.initialization.provisioned; Age:date=.metadata.creationTimestamp",
                ),
            ],
            ..VSPHERE
        },
        Kind {
            kind: "VSphereMachineTemplate",
            plural: "vspheremachinetemplates",
            schema: structural::<infrastructure::VSphereMachineTemplate>,
            required: &[],
            status: &[],
            columns: &[(
                "v1beta2",
                "ClusterClass=.metadata.ownerReferences[?(@.kind==\"ClusterClass\")].name; \
                 Cluster=.metadata.ownerReferences[?(@.kind==\"Cluster\")].name; Age:date=.metadata.creationTimestamp",
            )],
            ..VSPHERE
        },
        Kind { kind: "VSphereVM", plural: "vspherevms", schema: structural::<infrastructure::VSphereVM>, ..VSPHERE },
        Kind {
            kind: "VSphereClusterIdentity",
            plural: "vsphereclusteridentities",
            is_namespaced: false,
            schema: structural::<infrastructure::VSphereClusterIdentity>,
            clusterctl: MOVE_HIERARCHY,
            ..VSPHERE
        },
        Kind {
            kind: "VSphereDeploymentZone",
            plural: "vspheredeploymentzones",
            is_namespaced: false,
            schema: structural::<infrastructure::VSphereDeploymentZone>,
            clusterctl: MOVE_HIERARCHY,
            ..VSPHERE
        },
        Kind {
            kind: "VSphereFailureDomain",
            plural: "vspherefailuredomains",
            is_namespaced: false,
            schema: structural::<infrastructure::VSphereFailureDomain>,
            status: &[],
            clusterctl: MOVE_HIERARCHY,
            ..VSPHERE
        },
    ]
}
