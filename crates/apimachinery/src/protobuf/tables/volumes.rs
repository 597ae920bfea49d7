//! Volumes of pods.
//!
//! Field numbers, names and what an empty value means stand upstream in the struct tags of k8s.io/api v0.33.

use super::metadata::{LABEL_SELECTOR, OBJECT_META};
use crate::protobuf::Field;
use crate::protobuf::Kind::{Flag, Message, Quantities, Quantity, Text, Texts, Whole};
use crate::protobuf::{field, inline, kept, kept_list, list};

pub(super) const LOCAL_OBJECT_REFERENCE: &[Field] = &[field(1, "name", Text)];

pub(super) const HOST_PATH_VOLUME_SOURCE: &[Field] = &[kept(1, "path", Text), kept(2, "type", Text)];

pub(super) const EMPTY_DIR_VOLUME_SOURCE: &[Field] = &[field(1, "medium", Text), kept(2, "sizeLimit", Quantity)];

pub(super) const GCE_PERSISTENT_DISK_VOLUME_SOURCE: &[Field] =
    &[kept(1, "pdName", Text), field(2, "fsType", Text), field(3, "partition", Whole), field(4, "readOnly", Flag)];

pub(super) const AWS_ELASTIC_BLOCK_STORE_VOLUME_SOURCE: &[Field] =
    &[kept(1, "volumeID", Text), field(2, "fsType", Text), field(3, "partition", Whole), field(4, "readOnly", Flag)];

pub(super) const GIT_REPO_VOLUME_SOURCE: &[Field] = &[kept(1, "repository", Text), field(2, "revision", Text), field(3, "directory", Text)];

pub(super) const KEY_TO_PATH: &[Field] = &[kept(1, "key", Text), kept(2, "path", Text), kept(3, "mode", Whole)];

pub(super) const SECRET_VOLUME_SOURCE: &[Field] =
    &[field(1, "secretName", Text), list(2, "items", Message(KEY_TO_PATH)), kept(3, "defaultMode", Whole), kept(4, "optional", Flag)];

pub(super) const NFS_VOLUME_SOURCE: &[Field] = &[kept(1, "server", Text), kept(2, "path", Text), field(3, "readOnly", Flag)];

pub(super) const ISCSI_VOLUME_SOURCE: &[Field] = &[
    kept(1, "targetPortal", Text),
    kept(2, "iqn", Text),
    kept(3, "lun", Whole),
    field(4, "iscsiInterface", Text),
    field(5, "fsType", Text),
    field(6, "readOnly", Flag),
    list(7, "portals", Text),
    field(8, "chapAuthDiscovery", Flag),
    field(11, "chapAuthSession", Flag),
    kept(10, "secretRef", Message(LOCAL_OBJECT_REFERENCE)),
    kept(12, "initiatorName", Text),
];

pub(super) const GLUSTERFS_VOLUME_SOURCE: &[Field] = &[kept(1, "endpoints", Text), kept(2, "path", Text), field(3, "readOnly", Flag)];

pub(super) const PERSISTENT_VOLUME_CLAIM_VOLUME_SOURCE: &[Field] = &[kept(1, "claimName", Text), field(2, "readOnly", Flag)];

pub(super) const RBD_VOLUME_SOURCE: &[Field] = &[
    kept_list(1, "monitors", Text),
    kept(2, "image", Text),
    field(3, "fsType", Text),
    field(4, "pool", Text),
    field(5, "user", Text),
    field(6, "keyring", Text),
    kept(7, "secretRef", Message(LOCAL_OBJECT_REFERENCE)),
    field(8, "readOnly", Flag),
];

pub(super) const FLEX_VOLUME_SOURCE: &[Field] = &[
    kept(1, "driver", Text),
    field(2, "fsType", Text),
    kept(3, "secretRef", Message(LOCAL_OBJECT_REFERENCE)),
    field(4, "readOnly", Flag),
    field(5, "options", Texts),
];

pub(super) const CINDER_VOLUME_SOURCE: &[Field] = &[
    kept(1, "volumeID", Text),
    field(2, "fsType", Text),
    field(3, "readOnly", Flag),
    kept(4, "secretRef", Message(LOCAL_OBJECT_REFERENCE)),
];

pub(super) const CEPH_FS_VOLUME_SOURCE: &[Field] = &[
    kept_list(1, "monitors", Text),
    field(2, "path", Text),
    field(3, "user", Text),
    field(4, "secretFile", Text),
    kept(5, "secretRef", Message(LOCAL_OBJECT_REFERENCE)),
    field(6, "readOnly", Flag),
];

pub(super) const FLOCKER_VOLUME_SOURCE: &[Field] = &[field(1, "datasetName", Text), field(2, "datasetUUID", Text)];

pub(super) const OBJECT_FIELD_SELECTOR: &[Field] = &[field(1, "apiVersion", Text), kept(2, "fieldPath", Text)];

pub(super) const RESOURCE_FIELD_SELECTOR: &[Field] =
    &[field(1, "containerName", Text), kept(2, "resource", Text), field(3, "divisor", Quantity)];

pub(super) const DOWNWARD_API_VOLUME_FILE: &[Field] = &[
    kept(1, "path", Text),
    kept(2, "fieldRef", Message(OBJECT_FIELD_SELECTOR)),
    kept(3, "resourceFieldRef", Message(RESOURCE_FIELD_SELECTOR)),
    kept(4, "mode", Whole),
];

pub(super) const DOWNWARD_API_VOLUME_SOURCE: &[Field] =
    &[list(1, "items", Message(DOWNWARD_API_VOLUME_FILE)), kept(2, "defaultMode", Whole)];

pub(super) const FC_VOLUME_SOURCE: &[Field] =
    &[list(1, "targetWWNs", Text), kept(2, "lun", Whole), field(3, "fsType", Text), field(4, "readOnly", Flag), list(5, "wwids", Text)];

pub(super) const AZURE_FILE_VOLUME_SOURCE: &[Field] =
    &[kept(1, "secretName", Text), kept(2, "shareName", Text), field(3, "readOnly", Flag)];

pub(super) const CONFIG_MAP_VOLUME_SOURCE: &[Field] =
    &[inline(1, LOCAL_OBJECT_REFERENCE), list(2, "items", Message(KEY_TO_PATH)), kept(3, "defaultMode", Whole), kept(4, "optional", Flag)];

pub(super) const VSPHERE_VIRTUAL_DISK_VOLUME_SOURCE: &[Field] =
    &[kept(1, "volumePath", Text), field(2, "fsType", Text), field(3, "storagePolicyName", Text), field(4, "storagePolicyID", Text)];

pub(super) const QUOBYTE_VOLUME_SOURCE: &[Field] = &[
    kept(1, "registry", Text),
    kept(2, "volume", Text),
    field(3, "readOnly", Flag),
    field(4, "user", Text),
    field(5, "group", Text),
    field(6, "tenant", Text),
];

pub(super) const AZURE_DISK_VOLUME_SOURCE: &[Field] = &[
    kept(1, "diskName", Text),
    kept(2, "diskURI", Text),
    kept(3, "cachingMode", Text),
    kept(4, "fsType", Text),
    kept(5, "readOnly", Flag),
    kept(6, "kind", Text),
];

pub(super) const PHOTON_PERSISTENT_DISK_VOLUME_SOURCE: &[Field] = &[kept(1, "pdID", Text), field(2, "fsType", Text)];

pub(super) const SECRET_PROJECTION: &[Field] =
    &[inline(1, LOCAL_OBJECT_REFERENCE), list(2, "items", Message(KEY_TO_PATH)), kept(4, "optional", Flag)];

pub(super) const DOWNWARD_API_PROJECTION: &[Field] = &[list(1, "items", Message(DOWNWARD_API_VOLUME_FILE))];

pub(super) const CONFIG_MAP_PROJECTION: &[Field] =
    &[inline(1, LOCAL_OBJECT_REFERENCE), list(2, "items", Message(KEY_TO_PATH)), kept(4, "optional", Flag)];

pub(super) const SERVICE_ACCOUNT_TOKEN_PROJECTION: &[Field] =
    &[field(1, "audience", Text), kept(2, "expirationSeconds", Whole), kept(3, "path", Text)];

pub(super) const CLUSTER_TRUST_BUNDLE_PROJECTION: &[Field] = &[
    kept(1, "name", Text),
    kept(2, "signerName", Text),
    kept(3, "labelSelector", Message(LABEL_SELECTOR)),
    kept(5, "optional", Flag),
    kept(4, "path", Text),
];

pub(super) const VOLUME_PROJECTION: &[Field] = &[
    kept(1, "secret", Message(SECRET_PROJECTION)),
    kept(2, "downwardAPI", Message(DOWNWARD_API_PROJECTION)),
    kept(3, "configMap", Message(CONFIG_MAP_PROJECTION)),
    kept(4, "serviceAccountToken", Message(SERVICE_ACCOUNT_TOKEN_PROJECTION)),
    kept(5, "clusterTrustBundle", Message(CLUSTER_TRUST_BUNDLE_PROJECTION)),
];

pub(super) const PROJECTED_VOLUME_SOURCE: &[Field] = &[kept_list(1, "sources", Message(VOLUME_PROJECTION)), kept(2, "defaultMode", Whole)];

pub(super) const PORTWORX_VOLUME_SOURCE: &[Field] = &[kept(1, "volumeID", Text), field(2, "fsType", Text), field(3, "readOnly", Flag)];

pub(super) const SCALE_IO_VOLUME_SOURCE: &[Field] = &[
    kept(1, "gateway", Text),
    kept(2, "system", Text),
    kept(3, "secretRef", Message(LOCAL_OBJECT_REFERENCE)),
    field(4, "sslEnabled", Flag),
    field(5, "protectionDomain", Text),
    field(6, "storagePool", Text),
    field(7, "storageMode", Text),
    field(8, "volumeName", Text),
    field(9, "fsType", Text),
    field(10, "readOnly", Flag),
];

pub(super) const STORAGE_OS_VOLUME_SOURCE: &[Field] = &[
    field(1, "volumeName", Text),
    field(2, "volumeNamespace", Text),
    field(3, "fsType", Text),
    field(4, "readOnly", Flag),
    kept(5, "secretRef", Message(LOCAL_OBJECT_REFERENCE)),
];

pub(super) const CSI_VOLUME_SOURCE: &[Field] = &[
    kept(1, "driver", Text),
    kept(2, "readOnly", Flag),
    kept(3, "fsType", Text),
    field(4, "volumeAttributes", Texts),
    kept(5, "nodePublishSecretRef", Message(LOCAL_OBJECT_REFERENCE)),
];

pub(super) const VOLUME_RESOURCE_REQUIREMENTS: &[Field] = &[field(1, "limits", Quantities), field(2, "requests", Quantities)];

pub(super) const TYPED_LOCAL_OBJECT_REFERENCE: &[Field] = &[kept(1, "apiGroup", Text), kept(2, "kind", Text), kept(3, "name", Text)];

pub(super) const TYPED_OBJECT_REFERENCE: &[Field] =
    &[kept(1, "apiGroup", Text), kept(2, "kind", Text), kept(3, "name", Text), kept(4, "namespace", Text)];

pub(super) const PERSISTENT_VOLUME_CLAIM_SPEC: &[Field] = &[
    list(1, "accessModes", Text),
    kept(4, "selector", Message(LABEL_SELECTOR)),
    field(2, "resources", Message(VOLUME_RESOURCE_REQUIREMENTS)),
    field(3, "volumeName", Text),
    kept(5, "storageClassName", Text),
    kept(6, "volumeMode", Text),
    kept(7, "dataSource", Message(TYPED_LOCAL_OBJECT_REFERENCE)),
    kept(8, "dataSourceRef", Message(TYPED_OBJECT_REFERENCE)),
    kept(9, "volumeAttributesClassName", Text),
];

pub(super) const PERSISTENT_VOLUME_CLAIM_TEMPLATE: &[Field] =
    &[field(1, "metadata", Message(OBJECT_META)), field(2, "spec", Message(PERSISTENT_VOLUME_CLAIM_SPEC))];

pub(super) const EPHEMERAL_VOLUME_SOURCE: &[Field] = &[kept(1, "volumeClaimTemplate", Message(PERSISTENT_VOLUME_CLAIM_TEMPLATE))];

pub(super) const IMAGE_VOLUME_SOURCE: &[Field] = &[field(1, "reference", Text), field(2, "pullPolicy", Text)];

pub(super) const VOLUME_SOURCE: &[Field] = &[
    kept(1, "hostPath", Message(HOST_PATH_VOLUME_SOURCE)),
    kept(2, "emptyDir", Message(EMPTY_DIR_VOLUME_SOURCE)),
    kept(3, "gcePersistentDisk", Message(GCE_PERSISTENT_DISK_VOLUME_SOURCE)),
    kept(4, "awsElasticBlockStore", Message(AWS_ELASTIC_BLOCK_STORE_VOLUME_SOURCE)),
    kept(5, "gitRepo", Message(GIT_REPO_VOLUME_SOURCE)),
    kept(6, "secret", Message(SECRET_VOLUME_SOURCE)),
    kept(7, "nfs", Message(NFS_VOLUME_SOURCE)),
    kept(8, "iscsi", Message(ISCSI_VOLUME_SOURCE)),
    kept(9, "glusterfs", Message(GLUSTERFS_VOLUME_SOURCE)),
    kept(10, "persistentVolumeClaim", Message(PERSISTENT_VOLUME_CLAIM_VOLUME_SOURCE)),
    kept(11, "rbd", Message(RBD_VOLUME_SOURCE)),
    kept(12, "flexVolume", Message(FLEX_VOLUME_SOURCE)),
    kept(13, "cinder", Message(CINDER_VOLUME_SOURCE)),
    kept(14, "cephfs", Message(CEPH_FS_VOLUME_SOURCE)),
    kept(15, "flocker", Message(FLOCKER_VOLUME_SOURCE)),
    kept(16, "downwardAPI", Message(DOWNWARD_API_VOLUME_SOURCE)),
    kept(17, "fc", Message(FC_VOLUME_SOURCE)),
    kept(18, "azureFile", Message(AZURE_FILE_VOLUME_SOURCE)),
    kept(19, "configMap", Message(CONFIG_MAP_VOLUME_SOURCE)),
    kept(20, "vsphereVolume", Message(VSPHERE_VIRTUAL_DISK_VOLUME_SOURCE)),
    kept(21, "quobyte", Message(QUOBYTE_VOLUME_SOURCE)),
    kept(22, "azureDisk", Message(AZURE_DISK_VOLUME_SOURCE)),
    kept(23, "photonPersistentDisk", Message(PHOTON_PERSISTENT_DISK_VOLUME_SOURCE)),
    kept(26, "projected", Message(PROJECTED_VOLUME_SOURCE)),
    kept(24, "portworxVolume", Message(PORTWORX_VOLUME_SOURCE)),
    kept(25, "scaleIO", Message(SCALE_IO_VOLUME_SOURCE)),
    kept(27, "storageos", Message(STORAGE_OS_VOLUME_SOURCE)),
    kept(28, "csi", Message(CSI_VOLUME_SOURCE)),
    kept(29, "ephemeral", Message(EPHEMERAL_VOLUME_SOURCE)),
    kept(30, "image", Message(IMAGE_VOLUME_SOURCE)),
];

pub(super) const VOLUME: &[Field] = &[kept(1, "name", Text), inline(2, VOLUME_SOURCE)];
