//! MachineHealthCheck: which machines count as unhealthy, and when they may be replaced.

use crate::conditions::{Condition, DeprecatedConditions, Status};
use crate::meta::{IntOrString, LabelSelector};
use crate::object::{object, resource};
use crate::schema::{API_VERSION, CONDITION_TYPE, KIND, OBJECT_NAME, UNHEALTHY_RANGE};

resource! {
    /// MachineHealthCheck is the Schema of a check on machines.
    MachineHealthCheck: NamespaceResourceScope, "cluster.x-k8s.io" / "v1beta2", "machinehealthchecks" {
        /// What is wanted.
        spec: MachineHealthCheckSpec,
        /// What was observed.
        status: Option<MachineHealthCheckStatus>,
    }
}

object! {
    /// Desired state of a MachineHealthCheck.
    pub struct MachineHealthCheckSpec {
        /// What is looked at.
        pub checks: HealthChecks,
        /// Cluster that it belongs to.
        #[schemars(length(min = 1, max = 63))]
        pub cluster_name: String,
        /// What is done.
        pub remediation: HealthRemediation,
        /// Machines that are looked at.
        pub selector: LabelSelector,
    }
    required ["clusterName", "selector"]
}

object! {
    /// What makes a machine unhealthy.
    #[schemars(extend("minProperties" = 1))]
    pub struct HealthChecks {
        /// Seconds until a machine must have its Node; 0 waits for ever.
        #[schemars(range(min = 0))]
        pub node_startup_timeout_seconds: Option<i32>,
        /// Conditions of the Machine.
        #[schemars(length(min = 1, max = 100))]
        pub unhealthy_machine_conditions: Vec<UnhealthyMachineCondition>,
        /// Conditions of the Node.
        #[schemars(length(min = 1, max = 100))]
        pub unhealthy_node_conditions: Vec<UnhealthyNodeCondition>,
    }
}

object! {
    /// A condition of a Node that makes its machine unhealthy.
    pub struct UnhealthyNodeCondition {
        /// Bad state.
        #[schemars(length(min = 1))]
        pub status: String,
        /// Seconds that the bad state may last.
        #[schemars(range(min = 0))]
        pub timeout_seconds: i32,
        /// Type of the condition.
        #[serde(rename = "type")]
        #[schemars(length(min = 1))]
        pub type_: String,
    }
    required ["status", "timeoutSeconds", "type"]
}

object! {
    /// A condition of a Machine that makes it unhealthy.
    pub struct UnhealthyMachineCondition {
        /// Bad state.
        pub status: Status,
        /// Seconds that the bad state may last.
        #[schemars(range(min = 0))]
        pub timeout_seconds: i32,
        /// Type of the condition.
        #[serde(rename = "type")]
        #[schemars(length(min = 1, max = 316), extend("pattern" = CONDITION_TYPE, "x-kubernetes-validations" = [{
            "rule": "!(self in ['Ready','Available','HealthCheckSucceeded','OwnerRemediated','ExternallyRemediated'])",
            "message": "must not be Ready, Available, HealthCheckSucceeded, OwnerRemediated or ExternallyRemediated",
        }]))]
        pub type_: String,
    }
    required ["status", "timeoutSeconds", "type"]
}

object! {
    /// What is done about unhealthy machines.
    #[schemars(extend("minProperties" = 1))]
    pub struct HealthRemediation {
        /// Template of an object that does it from outside.
        pub template_ref: Option<RemediationTemplate>,
        /// When it may be done.
        pub trigger_if: RemediationTrigger,
    }
}

object! {
    /// Template of an object that remediates from outside.
    pub struct RemediationTemplate {
        /// API version, group included.
        #[schemars(length(min = 1, max = 317), extend("pattern" = API_VERSION))]
        pub api_version: String,
        /// Kind.
        #[schemars(length(min = 1, max = 63), extend("pattern" = KIND))]
        pub kind: String,
        /// Name.
        #[schemars(length(min = 1, max = 253), extend("pattern" = OBJECT_NAME))]
        pub name: String,
    }
    required ["apiVersion", "kind", "name"]
}

object! {
    /// How many machines may be unhealthy for remediation to go on.
    #[schemars(extend("minProperties" = 1))]
    pub struct RemediationTrigger {
        /// A range, `[1-3]`; wins over the other.
        #[schemars(length(min = 1, max = 32), extend("pattern" = UNHEALTHY_RANGE))]
        pub unhealthy_in_range: Option<String>,
        /// At most so many; 100 % when absent.
        pub unhealthy_less_than_or_equal_to: Option<IntOrString>,
    }
}

object! {
    /// Observed state of a MachineHealthCheck.
    #[schemars(extend("minProperties" = 1))]
    pub struct MachineHealthCheckStatus {
        /// Conditions.
        #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
        pub conditions: Vec<Condition>,
        /// Healthy machines.
        #[schemars(range(min = 0))]
        pub current_healthy: Option<i32>,
        /// What the v1beta1 generation says.
        pub deprecated: DeprecatedConditions,
        /// Machines that the selector finds.
        #[schemars(range(min = 0))]
        pub expected_machines: Option<i32>,
        /// Generation that was observed.
        #[schemars(range(min = 1))]
        pub observed_generation: Option<i64>,
        /// Machines that may be replaced now.
        #[schemars(range(min = 0))]
        pub remediations_allowed: Option<i32>,
        /// Names of the machines.
        #[schemars(length(max = 10000), inner(length(min = 1, max = 253)))]
        pub targets: Vec<String>,
    }
}
