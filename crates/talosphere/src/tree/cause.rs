//! Why a Machine is not there yet: the deepest object that says something, in its own words. Pure.
//!
//! A Machine's own conditions repeat what the objects below it say. The way down is TalosConfig, VSphereMachine, VSphereVM,
//! IPAddressClaim; what all machines of a cluster wait for - a vCenter that does not answer, a Secret that is missing - is told by the
//! VSphereCluster.

use serde_json::Value;

use super::{Objects, has_owner, is_deleting, text};

/// Reasons that waiting alone does not cure: somebody must do something.
const FAILING: &[&str] = &[
    "ApplyFailed",
    "BootstrapNodeLost",
    "BootstrapTemplateCloningFailed",
    "ClientConfigGenerationFailed",
    "CloningFailed",
    "CredentialsNotAvailable",
    "DataSecretGenerationFailed",
    "HeldByFinalizer",
    "InfrastructureTemplateCloningFailed",
    "InvalidConfiguration",
    "NameTaken",
    "NotFoundByBIOSUUID",
    "PoolExhausted",
    "PoolInvalid",
    "PoolNotFound",
    "PoweringOnFailed",
    "RetrievingResourceFailed",
    "TaskFailure",
    "VSphereVMGone",
    "VCenterUnreachable",
    "WrongSecretType",
];

/// Of an object that is being deleted and that a finalizer of somebody else's holds.
pub(super) const HELD: &str = "HeldByFinalizer";

/// Whether a condition's reason calls for a person.
pub(super) fn needs_a_person(reason: &str) -> bool {
    FAILING.contains(&reason)
}

/// What one object says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    pub kind: &'static str,
    pub name: String,
    pub reason: String,
    /// In one line.
    pub message: String,
    pub since: Option<String>,
}

impl Cause {
    /// Reason and message; of a Machine the message alone, since the reason says how its Node was looked for.
    pub fn why(&self) -> String {
        if self.kind == "Machine" && !self.message.is_empty() {
            // The name of a condition that does not hold reads as if it did.
            self.message.strip_prefix("VirtualMachineProvisioned: ").unwrap_or(&self.message).to_owned()
        } else {
            why(&self.reason, &self.message)
        }
    }

    /// As told after the name of the object `of`, which it may share.
    pub fn told(&self, of: &str) -> String {
        if self.kind == "Machine" {
            self.why()
        } else if self.name == of {
            format!("{}: {}", self.kind, self.why())
        } else {
            format!("{} {}: {}", self.kind, self.name, self.why())
        }
    }
}

/// Reason and message in one line.
pub(super) fn why(reason: &str, message: &str) -> String {
    let message = clean(message);
    if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") }
}

/// A message in one line, without the bullets of a summary.
pub(super) fn clean(message: &str) -> String {
    let lines = message.lines().map(|line| line.trim().trim_start_matches("* ").trim()).filter(|line| !line.is_empty());
    let mut shown = String::new();
    for line in lines {
        if !shown.is_empty() {
            // A line that ends in a colon opens the list below it.
            shown.push_str(if shown.ends_with(':') { " " } else { "; " });
        }
        shown.push_str(line);
    }
    shown
}

/// The first of these conditions that does not hold.
fn said(kind: &'static str, object: &Value, conditions: &[&str]) -> Option<Cause> {
    let says =
        |found: &&Value| text(found, "/status") != "True" && !(text(found, "/reason").is_empty() && text(found, "/message").is_empty());
    let found = conditions.iter().find_map(|name| super::condition(object, name).filter(says))?;
    let since = text(found, "/lastTransitionTime");
    Some(Cause {
        kind,
        name: text(object, "/metadata/name").to_owned(),
        reason: text(found, "/reason").to_owned(),
        message: clean(text(found, "/message")),
        since: (!since.is_empty()).then(|| since.to_owned()),
    })
}

/// What the infrastructure of a cluster waits for.
pub(super) fn of_infrastructure(objects: &Objects, cluster: &str) -> Option<Cause> {
    let cluster = objects.get("Cluster", cluster)?;
    let infrastructure = objects.get("VSphereCluster", text(cluster, "/spec/infrastructureRef/name"))?;
    said("VSphereCluster", infrastructure, &["VCenterAvailable", "Ready"])
}

/// What keeps a Machine that is being deleted from going, where waiting alone may not help: a finalizer of somebody else's, or its VM.
pub(super) fn of_deletion(objects: &Objects, machine: &Value) -> Option<Cause> {
    if !is_deleting(machine) {
        return None;
    }
    if let Some(message) = super::held_by(machine) {
        let name = text(machine, "/metadata/name").to_owned();
        return Some(Cause { kind: "Machine", name, reason: HELD.to_owned(), message, since: None });
    }
    let vm = objects.get("VSphereVM", text(machine, "/metadata/name"))?;
    said("VSphereVM", vm, &["VCenterAvailable", "VirtualMachineProvisioned"]).filter(|cause| needs_a_person(&cause.reason))
}

/// What a Machine waits for.
pub(super) fn of_machine(objects: &Objects, machine: &Value) -> Option<Cause> {
    let name = text(machine, "/metadata/name");
    let cluster = text(machine, "/spec/clusterName");
    let of_cluster = |cause: &Cause| {
        let is_shared =
            matches!(cause.reason.as_str(), "WaitingForClusterInfrastructure" | "VCenterUnreachable" | "CredentialsNotAvailable");
        of_infrastructure(objects, cluster).filter(|_| is_shared)
    };
    let own = || {
        said(
            "Machine",
            machine,
            &["BootstrapConfigReady", "InfrastructureReady", "NodeHealthy", "NodeReady", "HealthCheckSucceeded", "Ready"],
        )
    };
    if is_deleting(machine) {
        return None;
    }
    if matches!(text(machine, "/status/phase"), "Running" | "Provisioned") {
        return own();
    }
    if let Some(config) = objects.get("TalosConfig", text(machine, "/spec/bootstrap/configRef/name")) {
        let client = said("TalosConfig", config, &["ClientConfigAvailable"]).filter(|cause| needs_a_person(&cause.reason));
        if let Some(cause) = said("TalosConfig", config, &["DataSecretAvailable"]).or(client) {
            return of_cluster(&cause).or(Some(cause));
        }
    }
    if let Some(vm) = objects.get("VSphereVM", name) {
        let claims = objects.of_kind("IPAddressClaim").filter(|claim| has_owner(claim, "VSphereVM", name));
        let mut claims: Vec<Cause> = claims.filter_map(|claim| said("IPAddressClaim", claim, &["Ready"])).collect();
        claims.sort_by_key(|cause| !needs_a_person(&cause.reason));
        let own = said("VSphereVM", vm, &["VCenterAvailable", "IPAddressClaimsFulfilled", "VirtualMachineProvisioned"]);
        if let Some(cause) = claims.into_iter().next().or(own) {
            return of_cluster(&cause).or(Some(cause));
        }
    }
    let infrastructure = objects.get("VSphereMachine", text(machine, "/spec/infrastructureRef/name"));
    if let Some(cause) = infrastructure.and_then(|object| said("VSphereMachine", object, &["VirtualMachineProvisioned", "Ready"])) {
        return of_cluster(&cause).or(Some(cause));
    }
    own()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bullets_become_one_line() {
        assert_eq!(
            clean("* Machine m:\n  * NodeReady: kubelet is down\n  * Other: x\n"),
            "Machine m: NodeReady: kubelet is down; Other: x"
        );
        assert_eq!(clean("plain"), "plain");
    }

    #[test]
    fn the_deepest_object_speaks() {
        let said =
            |kind: &str, reason: &str, message: &str| json!([{"type": kind, "status": "False", "reason": reason, "message": message}]);
        let machine = json!({"metadata": {"name": "m"}, "spec": {"clusterName": "c", "infrastructureRef": {"name": "m"},
            "bootstrap": {"configRef": {"name": "m"}}}, "status": {"phase": "Provisioning", "conditions": said("Ready", "NotReady", "* all")}});
        let mut objects = Objects::default();
        let spoken = |objects: &Objects| of_machine(objects, &machine).map(|cause| cause.told("m")).unwrap_or_default();
        assert_eq!(spoken(&objects), "all");
        let mut put =
            |kind: &str, conditions: Value| objects.put(kind, json!({"metadata": {"name": "m"}, "status": {"conditions": conditions}}));
        put("VSphereMachine", said("VirtualMachineProvisioned", "Cloning", "the VM is cloned"));
        assert_eq!(spoken(&objects), "VSphereMachine: Cloning: the VM is cloned");
        let mut put = |kind: &str, object: Value| objects.put(kind, object);
        put(
            "VSphereVM",
            json!({"metadata": {"name": "m"}, "status": {"conditions": said("IPAddressClaimsFulfilled", "W", "waiting for m-0")}}),
        );
        put(
            "IPAddressClaim",
            json!({"metadata": {"name": "m-0", "ownerReferences": [{"kind": "VSphereVM", "name": "m"}]},
            "status": {"conditions": said("Ready", "PoolExhausted", "no free address: 10.0.0.1 by x")}}),
        );
        assert_eq!(spoken(&objects), "IPAddressClaim m-0: PoolExhausted: no free address: 10.0.0.1 by x");
        objects.put("TalosConfig", json!({"metadata": {"name": "m"}, "status": {"conditions": said("DataSecretAvailable", "WaitingForClusterInfrastructure", "wait")}}));
        assert_eq!(spoken(&objects), "TalosConfig: WaitingForClusterInfrastructure: wait");
        objects.put("Cluster", json!({"metadata": {"name": "c"}, "spec": {"infrastructureRef": {"name": "v"}}}));
        objects.put(
            "VSphereCluster",
            json!({"metadata": {"name": "v"}, "status": {"conditions": said("VCenterAvailable", "VCenterUnreachable", "refused")}}),
        );
        assert_eq!(spoken(&objects), "VSphereCluster v: VCenterUnreachable: refused");
    }
}
