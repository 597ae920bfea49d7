//! The specification of pods.
//!
//! Field numbers, names and what an empty value means stand upstream in the struct tags of k8s.io/api v0.33.

use super::metadata::{LABEL_SELECTOR, OBJECT_META};
use super::volumes::{LOCAL_OBJECT_REFERENCE, OBJECT_FIELD_SELECTOR, RESOURCE_FIELD_SELECTOR, VOLUME};
use crate::protobuf::Field;
use crate::protobuf::Kind::{Flag, IntOrString, Message, Quantities, Text, Texts, Whole};
use crate::protobuf::{field, inline, kept, kept_list, list};

pub(super) const CONTAINER_PORT: &[Field] = &[
    field(1, "name", Text),
    field(2, "hostPort", Whole),
    kept(3, "containerPort", Whole),
    field(4, "protocol", Text),
    field(5, "hostIP", Text),
];

pub(super) const CONFIG_MAP_ENV_SOURCE: &[Field] = &[inline(1, LOCAL_OBJECT_REFERENCE), kept(2, "optional", Flag)];

pub(super) const SECRET_ENV_SOURCE: &[Field] = &[inline(1, LOCAL_OBJECT_REFERENCE), kept(2, "optional", Flag)];

pub(super) const ENV_FROM_SOURCE: &[Field] =
    &[field(1, "prefix", Text), kept(2, "configMapRef", Message(CONFIG_MAP_ENV_SOURCE)), kept(3, "secretRef", Message(SECRET_ENV_SOURCE))];

pub(super) const CONFIG_MAP_KEY_SELECTOR: &[Field] = &[inline(1, LOCAL_OBJECT_REFERENCE), kept(2, "key", Text), kept(3, "optional", Flag)];

pub(super) const SECRET_KEY_SELECTOR: &[Field] = &[inline(1, LOCAL_OBJECT_REFERENCE), kept(2, "key", Text), kept(3, "optional", Flag)];

pub(super) const ENV_VAR_SOURCE: &[Field] = &[
    kept(1, "fieldRef", Message(OBJECT_FIELD_SELECTOR)),
    kept(2, "resourceFieldRef", Message(RESOURCE_FIELD_SELECTOR)),
    kept(3, "configMapKeyRef", Message(CONFIG_MAP_KEY_SELECTOR)),
    kept(4, "secretKeyRef", Message(SECRET_KEY_SELECTOR)),
];

pub(super) const ENV_VAR: &[Field] = &[kept(1, "name", Text), field(2, "value", Text), kept(3, "valueFrom", Message(ENV_VAR_SOURCE))];

pub(super) const RESOURCE_CLAIM: &[Field] = &[kept(1, "name", Text), field(2, "request", Text)];

pub(super) const RESOURCE_REQUIREMENTS: &[Field] =
    &[field(1, "limits", Quantities), field(2, "requests", Quantities), list(3, "claims", Message(RESOURCE_CLAIM))];

pub(super) const CONTAINER_RESIZE_POLICY: &[Field] = &[kept(1, "resourceName", Text), kept(2, "restartPolicy", Text)];

pub(super) const VOLUME_MOUNT: &[Field] = &[
    kept(1, "name", Text),
    field(2, "readOnly", Flag),
    kept(7, "recursiveReadOnly", Text),
    kept(3, "mountPath", Text),
    field(4, "subPath", Text),
    kept(5, "mountPropagation", Text),
    field(6, "subPathExpr", Text),
];

pub(super) const VOLUME_DEVICE: &[Field] = &[kept(1, "name", Text), kept(2, "devicePath", Text)];

pub(super) const EXEC_ACTION: &[Field] = &[list(1, "command", Text)];

pub(super) const HTTP_HEADER: &[Field] = &[kept(1, "name", Text), kept(2, "value", Text)];

pub(super) const HTTP_GET_ACTION: &[Field] = &[
    field(1, "path", Text),
    kept(2, "port", IntOrString),
    field(3, "host", Text),
    field(4, "scheme", Text),
    list(5, "httpHeaders", Message(HTTP_HEADER)),
];

pub(super) const TCP_SOCKET_ACTION: &[Field] = &[kept(1, "port", IntOrString), field(2, "host", Text)];

pub(super) const GRPC_ACTION: &[Field] = &[kept(1, "port", Whole), kept(2, "service", Text)];

pub(super) const PROBE_HANDLER: &[Field] = &[
    kept(1, "exec", Message(EXEC_ACTION)),
    kept(2, "httpGet", Message(HTTP_GET_ACTION)),
    kept(3, "tcpSocket", Message(TCP_SOCKET_ACTION)),
    kept(4, "grpc", Message(GRPC_ACTION)),
];

pub(super) const PROBE: &[Field] = &[
    inline(1, PROBE_HANDLER),
    field(2, "initialDelaySeconds", Whole),
    field(3, "timeoutSeconds", Whole),
    field(4, "periodSeconds", Whole),
    field(5, "successThreshold", Whole),
    field(6, "failureThreshold", Whole),
    kept(7, "terminationGracePeriodSeconds", Whole),
];

pub(super) const SLEEP_ACTION: &[Field] = &[kept(1, "seconds", Whole)];

pub(super) const LIFECYCLE_HANDLER: &[Field] = &[
    kept(1, "exec", Message(EXEC_ACTION)),
    kept(2, "httpGet", Message(HTTP_GET_ACTION)),
    kept(3, "tcpSocket", Message(TCP_SOCKET_ACTION)),
    kept(4, "sleep", Message(SLEEP_ACTION)),
];

pub(super) const LIFECYCLE: &[Field] =
    &[kept(1, "postStart", Message(LIFECYCLE_HANDLER)), kept(2, "preStop", Message(LIFECYCLE_HANDLER)), kept(3, "stopSignal", Text)];

pub(super) const CAPABILITIES: &[Field] = &[list(1, "add", Text), list(2, "drop", Text)];

pub(super) const SE_LINUX_OPTIONS: &[Field] =
    &[field(1, "user", Text), field(2, "role", Text), field(3, "type", Text), field(4, "level", Text)];

pub(super) const WINDOWS_SECURITY_CONTEXT_OPTIONS: &[Field] = &[
    kept(1, "gmsaCredentialSpecName", Text),
    kept(2, "gmsaCredentialSpec", Text),
    kept(3, "runAsUserName", Text),
    kept(4, "hostProcess", Flag),
];

pub(super) const SECCOMP_PROFILE: &[Field] = &[kept(1, "type", Text), kept(2, "localhostProfile", Text)];

pub(super) const APP_ARMOR_PROFILE: &[Field] = &[kept(1, "type", Text), kept(2, "localhostProfile", Text)];

pub(super) const SECURITY_CONTEXT: &[Field] = &[
    kept(1, "capabilities", Message(CAPABILITIES)),
    kept(2, "privileged", Flag),
    kept(3, "seLinuxOptions", Message(SE_LINUX_OPTIONS)),
    kept(10, "windowsOptions", Message(WINDOWS_SECURITY_CONTEXT_OPTIONS)),
    kept(4, "runAsUser", Whole),
    kept(8, "runAsGroup", Whole),
    kept(5, "runAsNonRoot", Flag),
    kept(6, "readOnlyRootFilesystem", Flag),
    kept(7, "allowPrivilegeEscalation", Flag),
    kept(9, "procMount", Text),
    kept(11, "seccompProfile", Message(SECCOMP_PROFILE)),
    kept(12, "appArmorProfile", Message(APP_ARMOR_PROFILE)),
];

pub(super) const CONTAINER: &[Field] = &[
    kept(1, "name", Text),
    field(2, "image", Text),
    list(3, "command", Text),
    list(4, "args", Text),
    field(5, "workingDir", Text),
    list(6, "ports", Message(CONTAINER_PORT)),
    list(19, "envFrom", Message(ENV_FROM_SOURCE)),
    list(7, "env", Message(ENV_VAR)),
    field(8, "resources", Message(RESOURCE_REQUIREMENTS)),
    list(23, "resizePolicy", Message(CONTAINER_RESIZE_POLICY)),
    kept(24, "restartPolicy", Text),
    list(9, "volumeMounts", Message(VOLUME_MOUNT)),
    list(21, "volumeDevices", Message(VOLUME_DEVICE)),
    kept(10, "livenessProbe", Message(PROBE)),
    kept(11, "readinessProbe", Message(PROBE)),
    kept(22, "startupProbe", Message(PROBE)),
    kept(12, "lifecycle", Message(LIFECYCLE)),
    field(13, "terminationMessagePath", Text),
    field(20, "terminationMessagePolicy", Text),
    field(14, "imagePullPolicy", Text),
    kept(15, "securityContext", Message(SECURITY_CONTEXT)),
    field(16, "stdin", Flag),
    field(17, "stdinOnce", Flag),
    field(18, "tty", Flag),
];

pub(super) const EPHEMERAL_CONTAINER_COMMON: &[Field] = &[
    kept(1, "name", Text),
    field(2, "image", Text),
    list(3, "command", Text),
    list(4, "args", Text),
    field(5, "workingDir", Text),
    list(6, "ports", Message(CONTAINER_PORT)),
    list(19, "envFrom", Message(ENV_FROM_SOURCE)),
    list(7, "env", Message(ENV_VAR)),
    field(8, "resources", Message(RESOURCE_REQUIREMENTS)),
    list(23, "resizePolicy", Message(CONTAINER_RESIZE_POLICY)),
    kept(24, "restartPolicy", Text),
    list(9, "volumeMounts", Message(VOLUME_MOUNT)),
    list(21, "volumeDevices", Message(VOLUME_DEVICE)),
    kept(10, "livenessProbe", Message(PROBE)),
    kept(11, "readinessProbe", Message(PROBE)),
    kept(22, "startupProbe", Message(PROBE)),
    kept(12, "lifecycle", Message(LIFECYCLE)),
    field(13, "terminationMessagePath", Text),
    field(20, "terminationMessagePolicy", Text),
    field(14, "imagePullPolicy", Text),
    kept(15, "securityContext", Message(SECURITY_CONTEXT)),
    field(16, "stdin", Flag),
    field(17, "stdinOnce", Flag),
    field(18, "tty", Flag),
];

pub(super) const EPHEMERAL_CONTAINER: &[Field] = &[inline(1, EPHEMERAL_CONTAINER_COMMON), field(2, "targetContainerName", Text)];

pub(super) const SYSCTL: &[Field] = &[kept(1, "name", Text), kept(2, "value", Text)];

pub(super) const POD_SECURITY_CONTEXT: &[Field] = &[
    kept(1, "seLinuxOptions", Message(SE_LINUX_OPTIONS)),
    kept(8, "windowsOptions", Message(WINDOWS_SECURITY_CONTEXT_OPTIONS)),
    kept(2, "runAsUser", Whole),
    kept(6, "runAsGroup", Whole),
    kept(3, "runAsNonRoot", Flag),
    list(4, "supplementalGroups", Whole),
    kept(12, "supplementalGroupsPolicy", Text),
    kept(5, "fsGroup", Whole),
    list(7, "sysctls", Message(SYSCTL)),
    kept(9, "fsGroupChangePolicy", Text),
    kept(10, "seccompProfile", Message(SECCOMP_PROFILE)),
    kept(11, "appArmorProfile", Message(APP_ARMOR_PROFILE)),
    kept(13, "seLinuxChangePolicy", Text),
];

pub(super) const NODE_SELECTOR_REQUIREMENT: &[Field] = &[kept(1, "key", Text), kept(2, "operator", Text), list(3, "values", Text)];

pub(super) const NODE_SELECTOR_TERM: &[Field] =
    &[list(1, "matchExpressions", Message(NODE_SELECTOR_REQUIREMENT)), list(2, "matchFields", Message(NODE_SELECTOR_REQUIREMENT))];

pub(super) const NODE_SELECTOR: &[Field] = &[kept_list(1, "nodeSelectorTerms", Message(NODE_SELECTOR_TERM))];

pub(super) const PREFERRED_SCHEDULING_TERM: &[Field] = &[kept(1, "weight", Whole), field(2, "preference", Message(NODE_SELECTOR_TERM))];

pub(super) const NODE_AFFINITY: &[Field] = &[
    kept(1, "requiredDuringSchedulingIgnoredDuringExecution", Message(NODE_SELECTOR)),
    list(2, "preferredDuringSchedulingIgnoredDuringExecution", Message(PREFERRED_SCHEDULING_TERM)),
];

pub(super) const POD_AFFINITY_TERM: &[Field] = &[
    kept(1, "labelSelector", Message(LABEL_SELECTOR)),
    list(2, "namespaces", Text),
    kept(3, "topologyKey", Text),
    kept(4, "namespaceSelector", Message(LABEL_SELECTOR)),
    list(5, "matchLabelKeys", Text),
    list(6, "mismatchLabelKeys", Text),
];

pub(super) const WEIGHTED_POD_AFFINITY_TERM: &[Field] =
    &[kept(1, "weight", Whole), field(2, "podAffinityTerm", Message(POD_AFFINITY_TERM))];

pub(super) const POD_AFFINITY: &[Field] = &[
    list(1, "requiredDuringSchedulingIgnoredDuringExecution", Message(POD_AFFINITY_TERM)),
    list(2, "preferredDuringSchedulingIgnoredDuringExecution", Message(WEIGHTED_POD_AFFINITY_TERM)),
];

pub(super) const POD_ANTI_AFFINITY: &[Field] = &[
    list(1, "requiredDuringSchedulingIgnoredDuringExecution", Message(POD_AFFINITY_TERM)),
    list(2, "preferredDuringSchedulingIgnoredDuringExecution", Message(WEIGHTED_POD_AFFINITY_TERM)),
];

pub(super) const AFFINITY: &[Field] = &[
    kept(1, "nodeAffinity", Message(NODE_AFFINITY)),
    kept(2, "podAffinity", Message(POD_AFFINITY)),
    kept(3, "podAntiAffinity", Message(POD_ANTI_AFFINITY)),
];

pub(super) const TOLERATION: &[Field] = &[
    field(1, "key", Text),
    field(2, "operator", Text),
    field(3, "value", Text),
    field(4, "effect", Text),
    kept(5, "tolerationSeconds", Whole),
];

pub(super) const HOST_ALIAS: &[Field] = &[kept(1, "ip", Text), list(2, "hostnames", Text)];

pub(super) const POD_DNS_CONFIG_OPTION: &[Field] = &[field(1, "name", Text), kept(2, "value", Text)];

pub(super) const POD_DNS_CONFIG: &[Field] =
    &[list(1, "nameservers", Text), list(2, "searches", Text), list(3, "options", Message(POD_DNS_CONFIG_OPTION))];

pub(super) const POD_READINESS_GATE: &[Field] = &[kept(1, "conditionType", Text)];

pub(super) const TOPOLOGY_SPREAD_CONSTRAINT: &[Field] = &[
    kept(1, "maxSkew", Whole),
    kept(2, "topologyKey", Text),
    kept(3, "whenUnsatisfiable", Text),
    kept(4, "labelSelector", Message(LABEL_SELECTOR)),
    kept(5, "minDomains", Whole),
    kept(6, "nodeAffinityPolicy", Text),
    kept(7, "nodeTaintsPolicy", Text),
    list(8, "matchLabelKeys", Text),
];

pub(super) const POD_OS: &[Field] = &[kept(1, "name", Text)];

pub(super) const POD_SCHEDULING_GATE: &[Field] = &[kept(1, "name", Text)];

pub(super) const POD_RESOURCE_CLAIM: &[Field] =
    &[kept(1, "name", Text), kept(3, "resourceClaimName", Text), kept(4, "resourceClaimTemplateName", Text)];

pub(super) const POD_SPEC: &[Field] = &[
    list(1, "volumes", Message(VOLUME)),
    list(20, "initContainers", Message(CONTAINER)),
    kept_list(2, "containers", Message(CONTAINER)),
    list(34, "ephemeralContainers", Message(EPHEMERAL_CONTAINER)),
    field(3, "restartPolicy", Text),
    kept(4, "terminationGracePeriodSeconds", Whole),
    kept(5, "activeDeadlineSeconds", Whole),
    field(6, "dnsPolicy", Text),
    field(7, "nodeSelector", Texts),
    field(8, "serviceAccountName", Text),
    field(9, "serviceAccount", Text),
    kept(21, "automountServiceAccountToken", Flag),
    field(10, "nodeName", Text),
    field(11, "hostNetwork", Flag),
    field(12, "hostPID", Flag),
    field(13, "hostIPC", Flag),
    kept(27, "shareProcessNamespace", Flag),
    kept(14, "securityContext", Message(POD_SECURITY_CONTEXT)),
    list(15, "imagePullSecrets", Message(LOCAL_OBJECT_REFERENCE)),
    field(16, "hostname", Text),
    field(17, "subdomain", Text),
    kept(18, "affinity", Message(AFFINITY)),
    field(19, "schedulerName", Text),
    list(22, "tolerations", Message(TOLERATION)),
    list(23, "hostAliases", Message(HOST_ALIAS)),
    field(24, "priorityClassName", Text),
    kept(25, "priority", Whole),
    kept(26, "dnsConfig", Message(POD_DNS_CONFIG)),
    list(28, "readinessGates", Message(POD_READINESS_GATE)),
    kept(29, "runtimeClassName", Text),
    kept(30, "enableServiceLinks", Flag),
    kept(31, "preemptionPolicy", Text),
    field(32, "overhead", Quantities),
    list(33, "topologySpreadConstraints", Message(TOPOLOGY_SPREAD_CONSTRAINT)),
    kept(35, "setHostnameAsFQDN", Flag),
    kept(36, "os", Message(POD_OS)),
    kept(37, "hostUsers", Flag),
    list(38, "schedulingGates", Message(POD_SCHEDULING_GATE)),
    list(39, "resourceClaims", Message(POD_RESOURCE_CLAIM)),
    kept(40, "resources", Message(RESOURCE_REQUIREMENTS)),
];

pub(super) const POD_TEMPLATE_SPEC: &[Field] = &[field(1, "metadata", Message(OBJECT_META)), field(2, "spec", Message(POD_SPEC))];
