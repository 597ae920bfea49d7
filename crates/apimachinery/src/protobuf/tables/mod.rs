//! Field numbers of the messages, one file for what belongs together, and the kinds by name.

mod core;
mod groups;
mod metadata;
mod pods;
mod reviews;
mod volumes;

use super::Field;

/// The message of a kind; `None` for one that is not read.
pub(super) fn of(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    // Options of a deletion come under the version of the group they are sent to.
    if kind == "DeleteOptions" {
        return Some(metadata::DELETE_OPTIONS);
    }
    Some(match (api_version, kind) {
        ("v1", "Namespace") => core::NAMESPACE,
        ("v1", "ConfigMap") => core::CONFIG_MAP,
        ("v1", "Secret") => core::SECRET,
        ("v1", "ServiceAccount") => core::SERVICE_ACCOUNT,
        ("v1", "Event") => core::EVENT,
        ("v1", "Node") => core::NODE,
        ("v1", "Pod") => core::POD,
        ("v1", "Service") => core::SERVICE,
        ("apps/v1", "Deployment") => groups::DEPLOYMENT,
        ("apps/v1", "DaemonSet") => groups::DAEMON_SET,
        ("apps/v1", "ReplicaSet") => groups::REPLICA_SET,
        ("apps/v1", "StatefulSet") => groups::STATEFUL_SET,
        ("rbac.authorization.k8s.io/v1", "Role") => groups::ROLE,
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => groups::CLUSTER_ROLE,
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => groups::ROLE_BINDING,
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => groups::CLUSTER_ROLE_BINDING,
        ("coordination.k8s.io/v1", "Lease") => groups::LEASE,
        ("events.k8s.io/v1", "Event") => groups::EVENTS_EVENT,
        ("authentication.k8s.io/v1", "SelfSubjectReview") => reviews::SELF_SUBJECT_REVIEW,
        ("authentication.k8s.io/v1", "TokenRequest") => reviews::TOKEN_REQUEST,
        ("authentication.k8s.io/v1", "TokenReview") => reviews::TOKEN_REVIEW,
        ("authorization.k8s.io/v1", "SelfSubjectAccessReview") => reviews::SELF_SUBJECT_ACCESS_REVIEW,
        ("authorization.k8s.io/v1", "SubjectAccessReview") => reviews::SUBJECT_ACCESS_REVIEW,
        ("authorization.k8s.io/v1", "SelfSubjectRulesReview") => reviews::SELF_SUBJECT_RULES_REVIEW,
        ("authorization.k8s.io/v1", "LocalSubjectAccessReview") => reviews::LOCAL_SUBJECT_ACCESS_REVIEW,
        ("policy/v1", "Eviction") => groups::EVICTION,
        ("autoscaling/v1", "Scale") => groups::SCALE,
        _ => return None,
    })
}
