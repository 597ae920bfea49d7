//! Kinds of the groups apps, autoscaling, coordination.k8s.io, events.k8s.io, policy and rbac.authorization.k8s.io.
//!
//! Field numbers, names and what an empty value means stand upstream in the struct tags of k8s.io/api v0.33.

use super::core::{EVENT_SOURCE, OBJECT_REFERENCE, PERSISTENT_VOLUME_CLAIM};
use super::metadata::{DELETE_OPTIONS, LABEL_SELECTOR, OBJECT_META};
use super::pods::POD_TEMPLATE_SPEC;
use crate::protobuf::Field;
use crate::protobuf::Kind::{Flag, IntOrString, Message, MicroTime, Text, Time, Whole};
use crate::protobuf::{field, kept, kept_list, list};

pub(super) const ROLLING_UPDATE_DEPLOYMENT: &[Field] = &[kept(1, "maxUnavailable", IntOrString), kept(2, "maxSurge", IntOrString)];

pub(super) const DEPLOYMENT_STRATEGY: &[Field] = &[field(1, "type", Text), kept(2, "rollingUpdate", Message(ROLLING_UPDATE_DEPLOYMENT))];

pub(super) const DEPLOYMENT_SPEC: &[Field] = &[
    kept(1, "replicas", Whole),
    kept(2, "selector", Message(LABEL_SELECTOR)),
    field(3, "template", Message(POD_TEMPLATE_SPEC)),
    field(4, "strategy", Message(DEPLOYMENT_STRATEGY)),
    field(5, "minReadySeconds", Whole),
    kept(6, "revisionHistoryLimit", Whole),
    field(7, "paused", Flag),
    kept(9, "progressDeadlineSeconds", Whole),
];

pub(super) const DEPLOYMENT_CONDITION: &[Field] = &[
    kept(1, "type", Text),
    kept(2, "status", Text),
    field(6, "lastUpdateTime", Time),
    field(7, "lastTransitionTime", Time),
    field(4, "reason", Text),
    field(5, "message", Text),
];

pub(super) const DEPLOYMENT_STATUS: &[Field] = &[
    field(1, "observedGeneration", Whole),
    field(2, "replicas", Whole),
    field(3, "updatedReplicas", Whole),
    field(7, "readyReplicas", Whole),
    field(4, "availableReplicas", Whole),
    field(5, "unavailableReplicas", Whole),
    kept(9, "terminatingReplicas", Whole),
    list(6, "conditions", Message(DEPLOYMENT_CONDITION)),
    kept(8, "collisionCount", Whole),
];

pub(super) const DEPLOYMENT: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    field(2, "spec", Message(DEPLOYMENT_SPEC)),
    field(3, "status", Message(DEPLOYMENT_STATUS)),
];

pub(super) const ROLLING_UPDATE_DAEMON_SET: &[Field] = &[kept(1, "maxUnavailable", IntOrString), kept(2, "maxSurge", IntOrString)];

pub(super) const DAEMON_SET_UPDATE_STRATEGY: &[Field] =
    &[field(1, "type", Text), kept(2, "rollingUpdate", Message(ROLLING_UPDATE_DAEMON_SET))];

pub(super) const DAEMON_SET_SPEC: &[Field] = &[
    kept(1, "selector", Message(LABEL_SELECTOR)),
    field(2, "template", Message(POD_TEMPLATE_SPEC)),
    field(3, "updateStrategy", Message(DAEMON_SET_UPDATE_STRATEGY)),
    field(4, "minReadySeconds", Whole),
    kept(6, "revisionHistoryLimit", Whole),
];

pub(super) const DAEMON_SET_CONDITION: &[Field] = &[
    kept(1, "type", Text),
    kept(2, "status", Text),
    field(3, "lastTransitionTime", Time),
    field(4, "reason", Text),
    field(5, "message", Text),
];

pub(super) const DAEMON_SET_STATUS: &[Field] = &[
    kept(1, "currentNumberScheduled", Whole),
    kept(2, "numberMisscheduled", Whole),
    kept(3, "desiredNumberScheduled", Whole),
    kept(4, "numberReady", Whole),
    field(5, "observedGeneration", Whole),
    field(6, "updatedNumberScheduled", Whole),
    field(7, "numberAvailable", Whole),
    field(8, "numberUnavailable", Whole),
    kept(9, "collisionCount", Whole),
    list(10, "conditions", Message(DAEMON_SET_CONDITION)),
];

pub(super) const DAEMON_SET: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    field(2, "spec", Message(DAEMON_SET_SPEC)),
    field(3, "status", Message(DAEMON_SET_STATUS)),
];

pub(super) const REPLICA_SET_SPEC: &[Field] = &[
    kept(1, "replicas", Whole),
    field(4, "minReadySeconds", Whole),
    kept(2, "selector", Message(LABEL_SELECTOR)),
    field(3, "template", Message(POD_TEMPLATE_SPEC)),
];

pub(super) const REPLICA_SET_CONDITION: &[Field] = &[
    kept(1, "type", Text),
    kept(2, "status", Text),
    field(3, "lastTransitionTime", Time),
    field(4, "reason", Text),
    field(5, "message", Text),
];

pub(super) const REPLICA_SET_STATUS: &[Field] = &[
    kept(1, "replicas", Whole),
    field(2, "fullyLabeledReplicas", Whole),
    field(4, "readyReplicas", Whole),
    field(5, "availableReplicas", Whole),
    kept(7, "terminatingReplicas", Whole),
    field(3, "observedGeneration", Whole),
    list(6, "conditions", Message(REPLICA_SET_CONDITION)),
];

pub(super) const REPLICA_SET: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    field(2, "spec", Message(REPLICA_SET_SPEC)),
    field(3, "status", Message(REPLICA_SET_STATUS)),
];

pub(super) const ROLLING_UPDATE_STATEFUL_SET_STRATEGY: &[Field] = &[kept(1, "partition", Whole), kept(2, "maxUnavailable", IntOrString)];

pub(super) const STATEFUL_SET_UPDATE_STRATEGY: &[Field] =
    &[field(1, "type", Text), kept(2, "rollingUpdate", Message(ROLLING_UPDATE_STATEFUL_SET_STRATEGY))];

pub(super) const STATEFUL_SET_PERSISTENT_VOLUME_CLAIM_RETENTION_POLICY: &[Field] =
    &[field(1, "whenDeleted", Text), field(2, "whenScaled", Text)];

pub(super) const STATEFUL_SET_ORDINALS: &[Field] = &[kept(1, "start", Whole)];

pub(super) const STATEFUL_SET_SPEC: &[Field] = &[
    kept(1, "replicas", Whole),
    kept(2, "selector", Message(LABEL_SELECTOR)),
    field(3, "template", Message(POD_TEMPLATE_SPEC)),
    list(4, "volumeClaimTemplates", Message(PERSISTENT_VOLUME_CLAIM)),
    kept(5, "serviceName", Text),
    field(6, "podManagementPolicy", Text),
    field(7, "updateStrategy", Message(STATEFUL_SET_UPDATE_STRATEGY)),
    kept(8, "revisionHistoryLimit", Whole),
    field(9, "minReadySeconds", Whole),
    kept(10, "persistentVolumeClaimRetentionPolicy", Message(STATEFUL_SET_PERSISTENT_VOLUME_CLAIM_RETENTION_POLICY)),
    kept(11, "ordinals", Message(STATEFUL_SET_ORDINALS)),
];

pub(super) const STATEFUL_SET_CONDITION: &[Field] = &[
    kept(1, "type", Text),
    kept(2, "status", Text),
    field(3, "lastTransitionTime", Time),
    field(4, "reason", Text),
    field(5, "message", Text),
];

pub(super) const STATEFUL_SET_STATUS: &[Field] = &[
    field(1, "observedGeneration", Whole),
    kept(2, "replicas", Whole),
    field(3, "readyReplicas", Whole),
    field(4, "currentReplicas", Whole),
    field(5, "updatedReplicas", Whole),
    field(6, "currentRevision", Text),
    field(7, "updateRevision", Text),
    kept(9, "collisionCount", Whole),
    list(10, "conditions", Message(STATEFUL_SET_CONDITION)),
    kept(11, "availableReplicas", Whole),
];

pub(super) const STATEFUL_SET: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    field(2, "spec", Message(STATEFUL_SET_SPEC)),
    field(3, "status", Message(STATEFUL_SET_STATUS)),
];

pub(super) const POLICY_RULE: &[Field] = &[
    kept_list(1, "verbs", Text),
    list(2, "apiGroups", Text),
    list(3, "resources", Text),
    list(4, "resourceNames", Text),
    list(5, "nonResourceURLs", Text),
];

pub(super) const ROLE: &[Field] = &[field(1, "metadata", Message(OBJECT_META)), kept_list(2, "rules", Message(POLICY_RULE))];

pub(super) const AGGREGATION_RULE: &[Field] = &[list(1, "clusterRoleSelectors", Message(LABEL_SELECTOR))];

pub(super) const CLUSTER_ROLE: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    kept_list(2, "rules", Message(POLICY_RULE)),
    kept(3, "aggregationRule", Message(AGGREGATION_RULE)),
];

pub(super) const SUBJECT: &[Field] =
    &[kept(1, "kind", Text), field(2, "apiGroup", Text), kept(3, "name", Text), field(4, "namespace", Text)];

pub(super) const ROLE_REF: &[Field] = &[kept(1, "apiGroup", Text), kept(2, "kind", Text), kept(3, "name", Text)];

pub(super) const ROLE_BINDING: &[Field] =
    &[field(1, "metadata", Message(OBJECT_META)), list(2, "subjects", Message(SUBJECT)), field(3, "roleRef", Message(ROLE_REF))];

pub(super) const CLUSTER_ROLE_BINDING: &[Field] =
    &[field(1, "metadata", Message(OBJECT_META)), list(2, "subjects", Message(SUBJECT)), field(3, "roleRef", Message(ROLE_REF))];

pub(super) const LEASE_SPEC: &[Field] = &[
    kept(1, "holderIdentity", Text),
    kept(2, "leaseDurationSeconds", Whole),
    kept(3, "acquireTime", MicroTime),
    kept(4, "renewTime", MicroTime),
    kept(5, "leaseTransitions", Whole),
    kept(6, "strategy", Text),
    kept(7, "preferredHolder", Text),
];

pub(super) const LEASE: &[Field] = &[field(1, "metadata", Message(OBJECT_META)), field(2, "spec", Message(LEASE_SPEC))];

pub(super) const EVENTS_SERIES: &[Field] = &[kept(1, "count", Whole), field(2, "lastObservedTime", MicroTime)];

pub(super) const EVENTS_EVENT: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    field(2, "eventTime", MicroTime),
    kept(3, "series", Message(EVENTS_SERIES)),
    field(4, "reportingController", Text),
    field(5, "reportingInstance", Text),
    field(6, "action", Text),
    field(7, "reason", Text),
    field(8, "regarding", Message(OBJECT_REFERENCE)),
    kept(9, "related", Message(OBJECT_REFERENCE)),
    field(10, "note", Text),
    field(11, "type", Text),
    field(12, "deprecatedSource", Message(EVENT_SOURCE)),
    field(13, "deprecatedFirstTimestamp", Time),
    field(14, "deprecatedLastTimestamp", Time),
    field(15, "deprecatedCount", Whole),
];

pub(super) const EVICTION: &[Field] = &[field(1, "metadata", Message(OBJECT_META)), kept(2, "deleteOptions", Message(DELETE_OPTIONS))];

pub(super) const SCALE_SPEC: &[Field] = &[field(1, "replicas", Whole)];

pub(super) const SCALE_STATUS: &[Field] = &[kept(1, "replicas", Whole), field(2, "selector", Text)];

pub(super) const SCALE: &[Field] =
    &[field(1, "metadata", Message(OBJECT_META)), field(2, "spec", Message(SCALE_SPEC)), field(3, "status", Message(SCALE_STATUS))];
