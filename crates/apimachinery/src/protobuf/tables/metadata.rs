//! Metadata of objects, label selectors, conditions and the options of a deletion.
//!
//! Field numbers, names and what an empty value means stand upstream in the struct tags of k8s.io/api v0.33.

use crate::protobuf::Field;
use crate::protobuf::Kind::{Flag, Json, Message, Text, Texts, Time, Whole};
use crate::protobuf::{field, kept, list};

pub(super) const OWNER_REFERENCE: &[Field] = &[
    kept(5, "apiVersion", Text),
    kept(1, "kind", Text),
    kept(3, "name", Text),
    kept(4, "uid", Text),
    kept(6, "controller", Flag),
    kept(7, "blockOwnerDeletion", Flag),
];

pub(super) const MANAGED_FIELDS_ENTRY: &[Field] = &[
    field(1, "manager", Text),
    field(2, "operation", Text),
    field(3, "apiVersion", Text),
    kept(4, "time", Time),
    field(6, "fieldsType", Text),
    kept(7, "fieldsV1", Json),
    field(8, "subresource", Text),
];

pub(super) const OBJECT_META: &[Field] = &[
    field(1, "name", Text),
    field(2, "generateName", Text),
    field(3, "namespace", Text),
    field(4, "selfLink", Text),
    field(5, "uid", Text),
    field(6, "resourceVersion", Text),
    field(7, "generation", Whole),
    field(8, "creationTimestamp", Time),
    kept(9, "deletionTimestamp", Time),
    kept(10, "deletionGracePeriodSeconds", Whole),
    field(11, "labels", Texts),
    field(12, "annotations", Texts),
    list(13, "ownerReferences", Message(OWNER_REFERENCE)),
    list(14, "finalizers", Text),
    list(17, "managedFields", Message(MANAGED_FIELDS_ENTRY)),
];

pub(super) const LABEL_SELECTOR_REQUIREMENT: &[Field] = &[kept(1, "key", Text), kept(2, "operator", Text), list(3, "values", Text)];

pub(super) const LABEL_SELECTOR: &[Field] =
    &[field(1, "matchLabels", Texts), list(2, "matchExpressions", Message(LABEL_SELECTOR_REQUIREMENT))];

pub(super) const CONDITION: &[Field] = &[
    kept(1, "type", Text),
    kept(2, "status", Text),
    field(3, "observedGeneration", Whole),
    field(4, "lastTransitionTime", Time),
    kept(5, "reason", Text),
    kept(6, "message", Text),
];

pub(super) const FIELD_SELECTOR_REQUIREMENT: &[Field] = &[kept(1, "key", Text), kept(2, "operator", Text), list(3, "values", Text)];

pub(super) const PRECONDITIONS: &[Field] = &[kept(1, "uid", Text), kept(2, "resourceVersion", Text)];

pub(super) const DELETE_OPTIONS: &[Field] = &[
    kept(1, "gracePeriodSeconds", Whole),
    kept(2, "preconditions", Message(PRECONDITIONS)),
    kept(3, "orphanDependents", Flag),
    kept(4, "propagationPolicy", Text),
    list(5, "dryRun", Text),
    kept(6, "ignoreStoreReadErrorWithClusterBreakingPotential", Flag),
];
