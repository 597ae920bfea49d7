//! The spokes of every kind: which steps lead to them.
//!
//! Where the facts come from: upstream's CRDs of both versions, field by field. Two words that deserve a reason: `join` is accepted by
//! TalosConfig v1alpha3 and stored as `worker`; v1alpha4 of MachineHealthCheck, gone upstream, is v1beta1 without Machine conditions.

use serde_json::{Value, json};

use super::schema::{self, Limits};
use super::{Custom, Step};
use crate::schema::structural;

/// The spoke versions of a kind: version, limits that its schema keeps, steps from the hub. Empty for kinds with one version.
pub fn spokes(group: &str, kind: &str) -> Vec<(&'static str, Limits, Vec<Step>)> {
    match (group, kind) {
        ("cluster.x-k8s.io", "Cluster") => vec![("v1beta1", Limits::Upper, cluster())],
        ("cluster.x-k8s.io", "Machine") => vec![("v1beta1", Limits::Upper, machine())],
        ("cluster.x-k8s.io", "MachineSet") => vec![("v1beta1", Limits::Upper, machine_set())],
        ("cluster.x-k8s.io", "MachineDeployment") => vec![("v1beta1", Limits::Upper, machine_deployment())],
        ("cluster.x-k8s.io", "MachineDrainRule") => vec![("v1beta1", Limits::Hub, Vec::new())],
        ("cluster.x-k8s.io", "MachineHealthCheck") => {
            vec![("v1alpha4", Limits::Upper, machine_health_check_alpha()), ("v1beta1", Limits::Upper, machine_health_check())]
        }
        ("addons.cluster.x-k8s.io", "ClusterResourceSet") => vec![("v1beta1", Limits::Upper, resource_set())],
        ("addons.cluster.x-k8s.io", "ClusterResourceSetBinding") => {
            vec![("v1beta1", Limits::Upper, vec![Step::Schema(|root| optional(root, "spec", "clusterName"))])]
        }
        ("bootstrap.cluster.x-k8s.io", "TalosConfig") => vec![("v1alpha3", Limits::None, talos_config())],
        ("bootstrap.cluster.x-k8s.io", "TalosConfigTemplate") => {
            vec![("v1alpha3", Limits::None, vec![join("spec.template.spec.generateType")])]
        }
        ("infrastructure.cluster.x-k8s.io", "VSphereCluster") => vec![("v1beta1", Limits::None, vsphere_cluster())],
        ("infrastructure.cluster.x-k8s.io", "VSphereClusterTemplate") => vec![("v1beta1", Limits::None, vsphere_cluster_template())],
        ("infrastructure.cluster.x-k8s.io", "VSphereMachine") => vec![("v1beta1", Limits::None, vsphere_machine())],
        ("infrastructure.cluster.x-k8s.io", "VSphereMachineTemplate") => vec![("v1beta1", Limits::None, vsphere_machine_template())],
        ("infrastructure.cluster.x-k8s.io", "VSphereVM") => vec![("v1beta1", Limits::None, vsphere_vm())],
        ("infrastructure.cluster.x-k8s.io", "VSphereClusterIdentity") => {
            let mut steps = conditions("v1beta2", "v1beta1");
            steps.push(Step::Schema(|root| optional(root, "spec", "secretName")));
            vec![("v1beta1", Limits::None, steps)]
        }
        ("infrastructure.cluster.x-k8s.io", "VSphereDeploymentZone") => vec![("v1beta1", Limits::None, deployment_zone())],
        ("infrastructure.cluster.x-k8s.io", "VSphereFailureDomain") => vec![("v1beta1", Limits::None, failure_domain())],
        ("ipam.cluster.x-k8s.io", "InClusterIPPool" | "GlobalInClusterIPPool") => vec![("v1alpha1", Limits::None, pool())],
        ("ipam.cluster.x-k8s.io", "IPAddressClaim") => {
            vec![("v1alpha1", Limits::Upper, claim_alpha()), ("v1beta1", Limits::Upper, claim())]
        }
        ("ipam.cluster.x-k8s.io", "IPAddress") => {
            vec![
                ("v1alpha1", Limits::Upper, vec![Step::Schema(address_schema)]),
                ("v1beta1", Limits::Upper, vec![Step::Schema(address_schema)]),
            ]
        }
        _ => Vec::new(),
    }
}

/// The hub version of a kind of ours; `None` for others.
pub fn hub(group: &str, kind: &str) -> Option<&'static str> {
    crate::crds::kinds().iter().find(|known| known.group == group && known.kind == kind).map(|known| known.hub)
}

/// `apiVersion` for a reference that has only group and kind: the version that we store, v1beta1 for kinds that we do not know.
pub fn api_version(group: &str, kind: &str) -> String {
    match group {
        "" => "v1".to_owned(),
        _ => format!("{group}/{}", hub(group, kind).unwrap_or("v1beta1")),
    }
}

fn moved(hub: impl Into<String>, spoke: impl Into<String>) -> Step {
    Step::Move { hub: hub.into(), spoke: spoke.into() }
}

fn seconds(hub: impl Into<String>, spoke: impl Into<String>) -> Step {
    Step::Seconds { hub: hub.into(), spoke: spoke.into() }
}

/// metav1 conditions step aside into a block of the spoke, and the older ones take their place.
fn conditions(block: &str, deprecated: &str) -> Vec<Step> {
    vec![
        moved("status.conditions", format!("status.{block}.conditions")),
        moved(format!("status.deprecated.{deprecated}.conditions"), "status.conditions"),
    ]
}

fn failure(deprecated: &str) -> [Step; 2] {
    ["failureMessage", "failureReason"].map(|name| moved(format!("status.deprecated.{deprecated}.{name}"), format!("status.{name}")))
}

fn cluster() -> Vec<Step> {
    let mut steps = conditions("v1beta2", "v1beta1");
    steps.extend(failure("v1beta1"));
    steps.extend([
        moved("status.controlPlane", "status.v1beta2.controlPlane"),
        moved("status.workers", "status.v1beta2.workers"),
        moved("status.initialization.infrastructureProvisioned", "status.infrastructureReady"),
        moved("status.initialization.controlPlaneInitialized", "status.controlPlaneReady"),
        Step::FailureDomains("status.failureDomains".to_owned()),
        Step::Reference("spec.controlPlaneRef".to_owned()),
        Step::Reference("spec.infrastructureRef".to_owned()),
        // The older version took an empty endpoint with its zero values, which clients still send.
        Step::Schema(|root| {
            for path in ["spec.controlPlaneEndpoint.host", "spec.controlPlaneEndpoint.port", "spec.clusterNetwork.apiServerPort"] {
                without(root, path, &["minLength", "maximum"]);
            }
        }),
    ]);
    steps
}

/// The specification of a machine, wherever it stands.
fn machine_spec(at: &str) -> Vec<Step> {
    vec![
        Step::Reference(format!("{at}.bootstrap.configRef")),
        Step::Reference(format!("{at}.infrastructureRef")),
        seconds(format!("{at}.deletion.nodeDeletionTimeoutSeconds"), format!("{at}.nodeDeletionTimeout")),
        seconds(format!("{at}.deletion.nodeDrainTimeoutSeconds"), format!("{at}.nodeDrainTimeout")),
        seconds(format!("{at}.deletion.nodeVolumeDetachTimeoutSeconds"), format!("{at}.nodeVolumeDetachTimeout")),
    ]
}

fn machine() -> Vec<Step> {
    let mut steps = conditions("v1beta2", "v1beta1");
    steps.extend(failure("v1beta1"));
    steps.extend(machine_spec("spec"));
    steps.extend([
        moved("status.initialization.bootstrapDataSecretCreated", "status.bootstrapReady"),
        moved("status.initialization.infrastructureProvisioned", "status.infrastructureReady"),
        Step::NameReference { path: "status.nodeRef".to_owned(), kind: "Node", namespaced: false },
        Step::HubOnly("spec.minReadySeconds".to_owned()),
        Step::HubOnly("status.failureDomain".to_owned()),
        Step::Schema(|root| without(root, "status.addresses", &["maxItems"])),
    ]);
    steps
}

/// Replica counts: the hub's step aside, the older ones take their place.
fn counts(older: &[&str]) -> Vec<Step> {
    let mut steps: Vec<Step> = ["availableReplicas", "readyReplicas", "upToDateReplicas"]
        .map(|name| moved(format!("status.{name}"), format!("status.v1beta2.{name}")))
        .into();
    steps.extend(conditions("v1beta2", "v1beta1"));
    steps.extend(older.iter().map(|name| moved(format!("status.deprecated.v1beta1.{name}"), format!("status.{name}"))));
    steps
}

fn machine_set() -> Vec<Step> {
    let mut steps = counts(&["availableReplicas", "readyReplicas", "fullyLabeledReplicas"]);
    steps.extend(failure("v1beta1"));
    steps.extend(machine_spec("spec.template.spec"));
    steps.extend([
        moved("spec.template.spec.minReadySeconds", "spec.minReadySeconds"),
        moved("spec.deletion.order", "spec.deletePolicy"),
        moved("spec.machineNaming", "spec.machineNamingStrategy"),
        Step::Schema(|root| optional(root, "spec", "template")),
        Step::Schema(|root| optional(root, "spec.template", "spec")),
    ]);
    steps
}

fn machine_deployment() -> Vec<Step> {
    let mut steps = counts(&["availableReplicas", "readyReplicas", "unavailableReplicas", "updatedReplicas"]);
    steps.extend(machine_spec("spec.template.spec"));
    steps.extend([
        moved("spec.template.spec.minReadySeconds", "spec.minReadySeconds"),
        moved("spec.machineNaming", "spec.machineNamingStrategy"),
        moved("spec.rollout.after", "spec.rolloutAfter"),
        moved("spec.rollout.strategy", "spec.strategy"),
        moved("spec.deletion.order", "spec.strategy.rollingUpdate.deletePolicy"),
        moved("spec.remediation.maxInFlight", "spec.strategy.remediation.maxInFlight"),
        Step::SpokeOnly { path: "spec.progressDeadlineSeconds".to_owned(), schema: json!({"type": "integer", "format": "int32"}) },
        Step::SpokeOnly { path: "spec.revisionHistoryLimit".to_owned(), schema: json!({"type": "integer", "format": "int32"}) },
        Step::Schema(|root| optional(root, "spec.strategy", "type")),
        Step::Schema(|root| optional(root, "spec.template", "spec")),
    ]);
    steps
}

fn machine_health_check() -> Vec<Step> {
    let mut steps = conditions("v1beta2", "v1beta1");
    steps.extend([
        moved("spec.checks.unhealthyNodeConditions", "spec.unhealthyConditions"),
        moved("spec.checks.unhealthyMachineConditions", "spec.unhealthyMachineConditions"),
        seconds("spec.checks.nodeStartupTimeoutSeconds", "spec.nodeStartupTimeout"),
        Step::SecondsInList { list: "spec.unhealthyConditions".to_owned(), hub: "timeoutSeconds", spoke: "timeout" },
        Step::SecondsInList { list: "spec.unhealthyMachineConditions".to_owned(), hub: "timeoutSeconds", spoke: "timeout" },
        moved("spec.remediation.triggerIf.unhealthyLessThanOrEqualTo", "spec.maxUnhealthy"),
        moved("spec.remediation.triggerIf.unhealthyInRange", "spec.unhealthyRange"),
        moved("spec.remediation.templateRef", "spec.remediationTemplate"),
        Step::VersionedReference("spec.remediationTemplate".to_owned()),
    ]);
    steps
}

fn machine_health_check_alpha() -> Vec<Step> {
    let mut steps = machine_health_check();
    steps.extend([
        Step::HubOnly("spec.unhealthyMachineConditions".to_owned()),
        Step::HubOnly("status.v1beta2".to_owned()),
        Step::Schema(|root| {
            if let Some(spec) = schema::find(root, "spec") {
                schema::require(spec, "unhealthyConditions");
            }
            if let Some(list) = schema::find(root, "spec.unhealthyConditions").and_then(Value::as_object_mut) {
                list.insert("minItems".to_owned(), json!(1));
            }
        }),
    ]);
    steps
}

fn resource_set() -> Vec<Step> {
    let mut steps = conditions("v1beta2", "v1beta1");
    steps.push(Step::Schema(|root| optional(root, "spec", "resources")));
    steps
}

fn join(path: &str) -> Step {
    Step::Word { path: path.to_owned(), hub: "worker", spoke: "join" }
}

fn talos_config() -> Vec<Step> {
    let mut steps = conditions("v1beta2Status", "v1beta");
    // That version's block is called differently from all others.
    steps.extend(failure("v1beta"));
    steps.extend([moved("status.initialization.dataSecretCreated", "status.ready"), join("spec.generateType")]);
    steps
}

fn vsphere_cluster() -> Vec<Step> {
    let mut steps = conditions("v1beta2", "v1beta1");
    steps.extend([
        moved("status.initialization.provisioned", "status.ready"),
        Step::FailureDomains("status.failureDomains".to_owned()),
        Step::Schema(|root| cluster_spec(root, "spec")),
    ]);
    steps
}

fn vsphere_cluster_template() -> Vec<Step> {
    vec![
        Step::HubOnly("spec.template.metadata".to_owned()),
        Step::Schema(|root| {
            cluster_spec(root, "spec.template.spec");
            if let Some(template) = schema::find(root, "spec.template") {
                schema::require(template, "spec");
            }
        }),
    ]
}

fn cluster_spec(root: &mut Value, at: &str) {
    optional(root, at, "server");
    without(root, &format!("{at}.controlPlaneEndpoint.port"), &["maximum"]);
}

fn clone_spec(at: &str) -> Vec<Step> {
    vec![
        seconds(format!("{at}.guestSoftPowerOffTimeoutSeconds"), format!("{at}.guestSoftPowerOffTimeout")),
        Step::SpokeOnly { path: format!("{at}.network.preferredAPIServerCidr"), schema: json!({"type": "string"}) },
    ]
}

fn machine_clone_spec(at: &str) -> Vec<Step> {
    let mut steps = clone_spec(at);
    steps.extend([
        moved(format!("{at}.naming"), format!("{at}.namingStrategy")),
        Step::SpokeOnly { path: format!("{at}.failureDomain"), schema: json!({"type": "string"}) },
    ]);
    steps
}

/// What the older vSphere schemas say about a clone specification: free words where the hub has enumerations, and one default.
fn clone_schema(root: &mut Value, at: &str) {
    without(root, &format!("{at}.cloneMode"), &["enum"]);
    if let Some(mode) = schema::find(root, &format!("{at}.powerOffMode")).and_then(Value::as_object_mut) {
        mode.insert("default".to_owned(), json!("hard"));
    }
    network_schema(root, &format!("{at}.network.devices"));
}

/// Network cards and networks: the group of a pool may be left out.
fn network_schema(root: &mut Value, list: &str) {
    let Some(card) = schema::find(root, list).and_then(|list| list.get_mut("items")) else { return };
    if let Some(pool) = schema::find(card, "addressesFromPools").and_then(|pools| pools.get_mut("items")) {
        local_reference(pool);
    }
    for family in ["dhcp4Overrides", "dhcp6Overrides"] {
        without(card, &format!("{family}.routeMetric"), &["format"]);
    }
}

/// A reference whose group may be left out.
fn local_reference(reference: &mut Value) {
    schema::unrequire(reference, "apiGroup");
    if let Some(map) = reference.as_object_mut() {
        map.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    }
}

fn vsphere_machine() -> Vec<Step> {
    let mut steps = conditions("v1beta2", "v1beta1");
    steps.extend(failure("v1beta1"));
    steps.extend(machine_clone_spec("spec"));
    steps.extend([moved("status.initialization.provisioned", "status.ready"), Step::Schema(|root| clone_schema(root, "spec"))]);
    steps
}

fn vsphere_machine_template() -> Vec<Step> {
    let mut steps = machine_clone_spec("spec.template.spec");
    steps.push(Step::Schema(|root| {
        clone_schema(root, "spec.template.spec");
        if let Some(template) = schema::find(root, "spec.template") {
            schema::require(template, "spec");
        }
    }));
    steps
}

fn vsphere_vm() -> Vec<Step> {
    let mut steps = conditions("v1beta2", "v1beta1");
    steps.extend(failure("v1beta1"));
    steps.extend(clone_spec("spec"));
    steps.extend([
        Step::NameReference { path: "spec.bootstrapRef".to_owned(), kind: "Secret", namespaced: true },
        Step::Schema(|root| {
            clone_schema(root, "spec");
            without(root, "status.cloneMode", &["enum"]);
        }),
    ]);
    steps
}

fn deployment_zone() -> Vec<Step> {
    let mut steps = conditions("v1beta2", "v1beta1");
    steps.push(Step::Schema(|root| {
        optional(root, "spec", "failureDomain");
        if let Some(spec) = schema::find(root, "spec") {
            schema::require(spec, "placementConstraint");
        }
    }));
    steps
}

fn failure_domain() -> Vec<Step> {
    let mut steps: Vec<Step> = ["region", "zone"]
        .map(|tag| Step::SpokeOnly { path: format!("spec.{tag}.autoConfigure"), schema: json!({"type": "boolean"}) })
        .into();
    steps.push(Step::Schema(|root| network_schema(root, "spec.topology.networkConfigurations")));
    steps
}

fn local_references(root: &mut Value) {
    if let Some(pool) = schema::find(root, "spec.poolRef") {
        local_reference(pool);
    }
    for path in ["spec.poolRef.apiGroup", "spec.poolRef.kind", "spec.poolRef.name"] {
        without(root, path, &["minLength", "maxLength", "pattern"]);
    }
    for path in ["status.addressRef", "spec.claimRef"] {
        if let Some(reference) = schema::find(root, path) {
            schema::unrequire(reference, "name");
            local_reference(reference);
        }
        if let Some(name) = schema::find(root, &format!("{path}.name")).and_then(Value::as_object_mut) {
            name.retain(|key, _| key == "type" || key == "description");
            name.insert("default".to_owned(), json!(""));
        }
    }
}

fn claim() -> Vec<Step> {
    let mut steps = conditions("v1beta2", "v1beta1");
    steps.push(Step::Schema(local_references));
    steps
}

fn claim_alpha() -> Vec<Step> {
    let mut steps = claim();
    steps.extend([Step::HubOnly("spec.clusterName".to_owned()), Step::HubOnly("status.v1beta2".to_owned())]);
    steps
}

fn address_schema(root: &mut Value) {
    local_references(root);
    without(root, "spec.prefix", &["maximum", "format"]);
}

/// Pools of the first version: start and end, or a subnet, or addresses.
static POOL: Custom = Custom { to_spoke: |_| {}, to_hub: crate::ipam::ranges_of_first_version, schema: pool_schema };

fn pool() -> Vec<Step> {
    vec![
        Step::HubOnly("spec.addressReuseGracePeriodSeconds".to_owned()),
        Step::HubOnly("spec.allocateReservedIPAddresses".to_owned()),
        Step::HubOnly("spec.excludedAddresses".to_owned()),
        Step::Custom(&POOL),
    ]
}

fn pool_schema(root: &mut Value) {
    if let Some(spec) = schema::find(root, "spec") {
        schema::unrequire(spec, "addresses");
        schema::unrequire(spec, "prefix");
    }
    for (name, description) in [("start", "First address."), ("end", "Last address."), ("subnet", "Network in CIDR form.")] {
        let mut field = structural::<String>();
        if let Some(map) = field.as_object_mut() {
            map.insert("description".to_owned(), json!(description));
        }
        schema::put(root, &format!("spec.{name}"), field);
    }
}

fn optional(root: &mut Value, at: &str, name: &str) {
    if let Some(place) = schema::find(root, at) {
        schema::unrequire(place, name);
    }
}

fn without(root: &mut Value, path: &str, keys: &[&str]) {
    if let Some(map) = schema::find(root, path).and_then(Value::as_object_mut) {
        map.retain(|key, _| !keys.contains(&key.as_str()));
    }
}
