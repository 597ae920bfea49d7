//! Kinds of the core group, pods' status included.
//!
//! Field numbers, names and what an empty value means stand upstream in the struct tags of k8s.io/api v0.33.

use super::metadata::{CONDITION, OBJECT_META};
use super::pods::{POD_SPEC, RESOURCE_REQUIREMENTS};
use super::volumes::{LOCAL_OBJECT_REFERENCE, PERSISTENT_VOLUME_CLAIM_SPEC};
use crate::protobuf::Field;
use crate::protobuf::Kind::{BytesMap, Flag, IntOrString, Message, MicroTime, Quantities, Text, Texts, Time, Whole};
use crate::protobuf::{field, kept, kept_list, list};

pub(super) const NAMESPACE_SPEC: &[Field] = &[list(1, "finalizers", Text)];

pub(super) const NAMESPACE_CONDITION: &[Field] = &[
    kept(1, "type", Text),
    kept(2, "status", Text),
    field(4, "lastTransitionTime", Time),
    field(5, "reason", Text),
    field(6, "message", Text),
];

pub(super) const NAMESPACE_STATUS: &[Field] = &[field(1, "phase", Text), list(2, "conditions", Message(NAMESPACE_CONDITION))];

pub(super) const NAMESPACE: &[Field] =
    &[field(1, "metadata", Message(OBJECT_META)), field(2, "spec", Message(NAMESPACE_SPEC)), field(3, "status", Message(NAMESPACE_STATUS))];

pub(super) const CONFIG_MAP: &[Field] =
    &[field(1, "metadata", Message(OBJECT_META)), kept(4, "immutable", Flag), field(2, "data", Texts), field(3, "binaryData", BytesMap)];

pub(super) const SECRET: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    kept(5, "immutable", Flag),
    field(2, "data", BytesMap),
    field(4, "stringData", Texts),
    field(3, "type", Text),
];

pub(super) const OBJECT_REFERENCE: &[Field] = &[
    field(1, "kind", Text),
    field(2, "namespace", Text),
    field(3, "name", Text),
    field(4, "uid", Text),
    field(5, "apiVersion", Text),
    field(6, "resourceVersion", Text),
    field(7, "fieldPath", Text),
];

pub(super) const SERVICE_ACCOUNT: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    list(2, "secrets", Message(OBJECT_REFERENCE)),
    list(3, "imagePullSecrets", Message(LOCAL_OBJECT_REFERENCE)),
    kept(4, "automountServiceAccountToken", Flag),
];

pub(super) const EVENT_SOURCE: &[Field] = &[field(1, "component", Text), field(2, "host", Text)];

pub(super) const EVENT_SERIES: &[Field] = &[field(1, "count", Whole), field(2, "lastObservedTime", MicroTime)];

pub(super) const EVENT: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    field(2, "involvedObject", Message(OBJECT_REFERENCE)),
    field(3, "reason", Text),
    field(4, "message", Text),
    field(5, "source", Message(EVENT_SOURCE)),
    field(6, "firstTimestamp", Time),
    field(7, "lastTimestamp", Time),
    field(8, "count", Whole),
    field(9, "type", Text),
    field(10, "eventTime", MicroTime),
    kept(11, "series", Message(EVENT_SERIES)),
    field(12, "action", Text),
    kept(13, "related", Message(OBJECT_REFERENCE)),
    kept(14, "reportingComponent", Text),
    kept(15, "reportingInstance", Text),
];

pub(super) const TAINT: &[Field] = &[kept(1, "key", Text), field(2, "value", Text), kept(3, "effect", Text), kept(4, "timeAdded", Time)];

pub(super) const CONFIG_MAP_NODE_CONFIG_SOURCE: &[Field] = &[
    kept(1, "namespace", Text),
    kept(2, "name", Text),
    field(3, "uid", Text),
    field(4, "resourceVersion", Text),
    kept(5, "kubeletConfigKey", Text),
];

pub(super) const NODE_CONFIG_SOURCE: &[Field] = &[kept(2, "configMap", Message(CONFIG_MAP_NODE_CONFIG_SOURCE))];

pub(super) const NODE_SPEC: &[Field] = &[
    field(1, "podCIDR", Text),
    list(7, "podCIDRs", Text),
    field(3, "providerID", Text),
    field(4, "unschedulable", Flag),
    list(5, "taints", Message(TAINT)),
    kept(6, "configSource", Message(NODE_CONFIG_SOURCE)),
    field(2, "externalID", Text),
];

pub(super) const NODE_CONDITION: &[Field] = &[
    kept(1, "type", Text),
    kept(2, "status", Text),
    field(3, "lastHeartbeatTime", Time),
    field(4, "lastTransitionTime", Time),
    field(5, "reason", Text),
    field(6, "message", Text),
];

pub(super) const NODE_ADDRESS: &[Field] = &[kept(1, "type", Text), kept(2, "address", Text)];

pub(super) const DAEMON_ENDPOINT: &[Field] = &[kept(1, "Port", Whole)];

pub(super) const NODE_DAEMON_ENDPOINTS: &[Field] = &[field(1, "kubeletEndpoint", Message(DAEMON_ENDPOINT))];

pub(super) const NODE_SWAP_STATUS: &[Field] = &[kept(1, "capacity", Whole)];

pub(super) const NODE_SYSTEM_INFO: &[Field] = &[
    kept(1, "machineID", Text),
    kept(2, "systemUUID", Text),
    kept(3, "bootID", Text),
    kept(4, "kernelVersion", Text),
    kept(5, "osImage", Text),
    kept(6, "containerRuntimeVersion", Text),
    kept(7, "kubeletVersion", Text),
    kept(8, "kubeProxyVersion", Text),
    kept(9, "operatingSystem", Text),
    kept(10, "architecture", Text),
    kept(11, "swap", Message(NODE_SWAP_STATUS)),
];

pub(super) const CONTAINER_IMAGE: &[Field] = &[kept_list(1, "names", Text), field(2, "sizeBytes", Whole)];

pub(super) const ATTACHED_VOLUME: &[Field] = &[kept(1, "name", Text), kept(2, "devicePath", Text)];

pub(super) const NODE_CONFIG_STATUS: &[Field] = &[
    kept(1, "assigned", Message(NODE_CONFIG_SOURCE)),
    kept(2, "active", Message(NODE_CONFIG_SOURCE)),
    kept(3, "lastKnownGood", Message(NODE_CONFIG_SOURCE)),
    field(4, "error", Text),
];

pub(super) const NODE_RUNTIME_HANDLER_FEATURES: &[Field] = &[kept(1, "recursiveReadOnlyMounts", Flag), kept(2, "userNamespaces", Flag)];

pub(super) const NODE_RUNTIME_HANDLER: &[Field] = &[kept(1, "name", Text), kept(2, "features", Message(NODE_RUNTIME_HANDLER_FEATURES))];

pub(super) const NODE_FEATURES: &[Field] = &[kept(1, "supplementalGroupsPolicy", Flag)];

pub(super) const NODE_STATUS: &[Field] = &[
    field(1, "capacity", Quantities),
    field(2, "allocatable", Quantities),
    field(3, "phase", Text),
    list(4, "conditions", Message(NODE_CONDITION)),
    list(5, "addresses", Message(NODE_ADDRESS)),
    field(6, "daemonEndpoints", Message(NODE_DAEMON_ENDPOINTS)),
    field(7, "nodeInfo", Message(NODE_SYSTEM_INFO)),
    list(8, "images", Message(CONTAINER_IMAGE)),
    list(9, "volumesInUse", Text),
    list(10, "volumesAttached", Message(ATTACHED_VOLUME)),
    kept(11, "config", Message(NODE_CONFIG_STATUS)),
    list(12, "runtimeHandlers", Message(NODE_RUNTIME_HANDLER)),
    kept(13, "features", Message(NODE_FEATURES)),
];

pub(super) const NODE: &[Field] =
    &[field(1, "metadata", Message(OBJECT_META)), field(2, "spec", Message(NODE_SPEC)), field(3, "status", Message(NODE_STATUS))];

pub(super) const POD_CONDITION: &[Field] = &[
    kept(1, "type", Text),
    field(7, "observedGeneration", Whole),
    kept(2, "status", Text),
    field(3, "lastProbeTime", Time),
    field(4, "lastTransitionTime", Time),
    field(5, "reason", Text),
    field(6, "message", Text),
];

pub(super) const HOST_IP: &[Field] = &[kept(1, "ip", Text)];

pub(super) const POD_IP: &[Field] = &[kept(1, "ip", Text)];

pub(super) const CONTAINER_STATE_WAITING: &[Field] = &[field(1, "reason", Text), field(2, "message", Text)];

pub(super) const CONTAINER_STATE_RUNNING: &[Field] = &[field(1, "startedAt", Time)];

pub(super) const CONTAINER_STATE_TERMINATED: &[Field] = &[
    kept(1, "exitCode", Whole),
    field(2, "signal", Whole),
    field(3, "reason", Text),
    field(4, "message", Text),
    field(5, "startedAt", Time),
    field(6, "finishedAt", Time),
    field(7, "containerID", Text),
];

pub(super) const CONTAINER_STATE: &[Field] = &[
    kept(1, "waiting", Message(CONTAINER_STATE_WAITING)),
    kept(2, "running", Message(CONTAINER_STATE_RUNNING)),
    kept(3, "terminated", Message(CONTAINER_STATE_TERMINATED)),
];

pub(super) const VOLUME_MOUNT_STATUS: &[Field] =
    &[kept(1, "name", Text), kept(2, "mountPath", Text), field(3, "readOnly", Flag), kept(4, "recursiveReadOnly", Text)];

pub(super) const LINUX_CONTAINER_USER: &[Field] = &[kept(1, "uid", Whole), kept(2, "gid", Whole), list(3, "supplementalGroups", Whole)];

pub(super) const CONTAINER_USER: &[Field] = &[kept(1, "linux", Message(LINUX_CONTAINER_USER))];

pub(super) const RESOURCE_HEALTH: &[Field] = &[kept(1, "resourceID", Text), field(2, "health", Text)];

pub(super) const RESOURCE_STATUS: &[Field] = &[kept(1, "name", Text), list(2, "resources", Message(RESOURCE_HEALTH))];

pub(super) const CONTAINER_STATUS: &[Field] = &[
    kept(1, "name", Text),
    field(2, "state", Message(CONTAINER_STATE)),
    field(3, "lastState", Message(CONTAINER_STATE)),
    kept(4, "ready", Flag),
    kept(5, "restartCount", Whole),
    kept(6, "image", Text),
    kept(7, "imageID", Text),
    field(8, "containerID", Text),
    kept(9, "started", Flag),
    field(10, "allocatedResources", Quantities),
    kept(11, "resources", Message(RESOURCE_REQUIREMENTS)),
    list(12, "volumeMounts", Message(VOLUME_MOUNT_STATUS)),
    kept(13, "user", Message(CONTAINER_USER)),
    list(14, "allocatedResourcesStatus", Message(RESOURCE_STATUS)),
    kept(15, "stopSignal", Text),
];

pub(super) const POD_RESOURCE_CLAIM_STATUS: &[Field] = &[kept(1, "name", Text), kept(2, "resourceClaimName", Text)];

pub(super) const POD_STATUS: &[Field] = &[
    field(17, "observedGeneration", Whole),
    field(1, "phase", Text),
    list(2, "conditions", Message(POD_CONDITION)),
    field(3, "message", Text),
    field(4, "reason", Text),
    field(11, "nominatedNodeName", Text),
    field(5, "hostIP", Text),
    list(16, "hostIPs", Message(HOST_IP)),
    field(6, "podIP", Text),
    list(12, "podIPs", Message(POD_IP)),
    kept(7, "startTime", Time),
    list(10, "initContainerStatuses", Message(CONTAINER_STATUS)),
    list(8, "containerStatuses", Message(CONTAINER_STATUS)),
    field(9, "qosClass", Text),
    list(13, "ephemeralContainerStatuses", Message(CONTAINER_STATUS)),
    field(14, "resize", Text),
    list(15, "resourceClaimStatuses", Message(POD_RESOURCE_CLAIM_STATUS)),
];

pub(super) const POD: &[Field] =
    &[field(1, "metadata", Message(OBJECT_META)), field(2, "spec", Message(POD_SPEC)), field(3, "status", Message(POD_STATUS))];

pub(super) const SERVICE_PORT: &[Field] = &[
    field(1, "name", Text),
    field(2, "protocol", Text),
    kept(6, "appProtocol", Text),
    kept(3, "port", Whole),
    field(4, "targetPort", IntOrString),
    field(5, "nodePort", Whole),
];

pub(super) const CLIENT_IP_CONFIG: &[Field] = &[kept(1, "timeoutSeconds", Whole)];

pub(super) const SESSION_AFFINITY_CONFIG: &[Field] = &[kept(1, "clientIP", Message(CLIENT_IP_CONFIG))];

pub(super) const SERVICE_SPEC: &[Field] = &[
    list(1, "ports", Message(SERVICE_PORT)),
    field(2, "selector", Texts),
    field(3, "clusterIP", Text),
    list(18, "clusterIPs", Text),
    field(4, "type", Text),
    list(5, "externalIPs", Text),
    field(7, "sessionAffinity", Text),
    field(8, "loadBalancerIP", Text),
    list(9, "loadBalancerSourceRanges", Text),
    field(10, "externalName", Text),
    field(11, "externalTrafficPolicy", Text),
    field(12, "healthCheckNodePort", Whole),
    field(13, "publishNotReadyAddresses", Flag),
    kept(14, "sessionAffinityConfig", Message(SESSION_AFFINITY_CONFIG)),
    list(19, "ipFamilies", Text),
    kept(17, "ipFamilyPolicy", Text),
    kept(20, "allocateLoadBalancerNodePorts", Flag),
    kept(21, "loadBalancerClass", Text),
    kept(22, "internalTrafficPolicy", Text),
    kept(23, "trafficDistribution", Text),
];

pub(super) const PORT_STATUS: &[Field] = &[kept(1, "port", Whole), kept(2, "protocol", Text), kept(3, "error", Text)];

pub(super) const LOAD_BALANCER_INGRESS: &[Field] =
    &[field(1, "ip", Text), field(2, "hostname", Text), kept(3, "ipMode", Text), list(4, "ports", Message(PORT_STATUS))];

pub(super) const LOAD_BALANCER_STATUS: &[Field] = &[list(1, "ingress", Message(LOAD_BALANCER_INGRESS))];

pub(super) const SERVICE_STATUS: &[Field] =
    &[field(1, "loadBalancer", Message(LOAD_BALANCER_STATUS)), list(2, "conditions", Message(CONDITION))];

pub(super) const SERVICE: &[Field] =
    &[field(1, "metadata", Message(OBJECT_META)), field(2, "spec", Message(SERVICE_SPEC)), field(3, "status", Message(SERVICE_STATUS))];

pub(super) const PERSISTENT_VOLUME_CLAIM_CONDITION: &[Field] = &[
    kept(1, "type", Text),
    kept(2, "status", Text),
    field(3, "lastProbeTime", Time),
    field(4, "lastTransitionTime", Time),
    field(5, "reason", Text),
    field(6, "message", Text),
];

pub(super) const MODIFY_VOLUME_STATUS: &[Field] = &[field(1, "targetVolumeAttributesClassName", Text), kept(2, "status", Text)];

pub(super) const PERSISTENT_VOLUME_CLAIM_STATUS: &[Field] = &[
    field(1, "phase", Text),
    list(2, "accessModes", Text),
    field(3, "capacity", Quantities),
    list(4, "conditions", Message(PERSISTENT_VOLUME_CLAIM_CONDITION)),
    field(5, "allocatedResources", Quantities),
    field(7, "allocatedResourceStatuses", Texts),
    kept(8, "currentVolumeAttributesClassName", Text),
    kept(9, "modifyVolumeStatus", Message(MODIFY_VOLUME_STATUS)),
];

pub(super) const PERSISTENT_VOLUME_CLAIM: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    field(2, "spec", Message(PERSISTENT_VOLUME_CLAIM_SPEC)),
    field(3, "status", Message(PERSISTENT_VOLUME_CLAIM_STATUS)),
];
