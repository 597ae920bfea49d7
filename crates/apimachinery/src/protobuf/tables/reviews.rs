//! Reviews: who one is and what one may do.
//!
//! Field numbers, names and what an empty value means stand upstream in the struct tags of k8s.io/api v0.33.

use super::metadata::{FIELD_SELECTOR_REQUIREMENT, LABEL_SELECTOR_REQUIREMENT, OBJECT_META};
use crate::protobuf::Field;
use crate::protobuf::Kind::{Flag, Message, Text, TextLists, Time, Whole};
use crate::protobuf::{field, kept, kept_list, list};

pub(super) const USER_INFO: &[Field] =
    &[field(1, "username", Text), field(2, "uid", Text), list(3, "groups", Text), field(4, "extra", TextLists)];

pub(super) const SELF_SUBJECT_REVIEW_STATUS: &[Field] = &[field(1, "userInfo", Message(USER_INFO))];

pub(super) const SELF_SUBJECT_REVIEW: &[Field] =
    &[field(1, "metadata", Message(OBJECT_META)), field(2, "status", Message(SELF_SUBJECT_REVIEW_STATUS))];

pub(super) const BOUND_OBJECT_REFERENCE: &[Field] =
    &[field(1, "kind", Text), field(2, "apiVersion", Text), field(3, "name", Text), field(4, "uid", Text)];

pub(super) const TOKEN_REQUEST_SPEC: &[Field] =
    &[kept_list(1, "audiences", Text), kept(4, "expirationSeconds", Whole), kept(3, "boundObjectRef", Message(BOUND_OBJECT_REFERENCE))];

pub(super) const TOKEN_REQUEST_STATUS: &[Field] = &[kept(1, "token", Text), field(2, "expirationTimestamp", Time)];

pub(super) const TOKEN_REQUEST: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    field(2, "spec", Message(TOKEN_REQUEST_SPEC)),
    field(3, "status", Message(TOKEN_REQUEST_STATUS)),
];

pub(super) const TOKEN_REVIEW_SPEC: &[Field] = &[field(1, "token", Text), list(2, "audiences", Text)];

pub(super) const TOKEN_REVIEW_STATUS: &[Field] =
    &[field(1, "authenticated", Flag), field(2, "user", Message(USER_INFO)), list(4, "audiences", Text), field(3, "error", Text)];

pub(super) const TOKEN_REVIEW: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    field(2, "spec", Message(TOKEN_REVIEW_SPEC)),
    field(3, "status", Message(TOKEN_REVIEW_STATUS)),
];

pub(super) const FIELD_SELECTOR_ATTRIBUTES: &[Field] =
    &[field(1, "rawSelector", Text), list(2, "requirements", Message(FIELD_SELECTOR_REQUIREMENT))];

pub(super) const LABEL_SELECTOR_ATTRIBUTES: &[Field] =
    &[field(1, "rawSelector", Text), list(2, "requirements", Message(LABEL_SELECTOR_REQUIREMENT))];

pub(super) const RESOURCE_ATTRIBUTES: &[Field] = &[
    field(1, "namespace", Text),
    field(2, "verb", Text),
    field(3, "group", Text),
    field(4, "version", Text),
    field(5, "resource", Text),
    field(6, "subresource", Text),
    field(7, "name", Text),
    kept(8, "fieldSelector", Message(FIELD_SELECTOR_ATTRIBUTES)),
    kept(9, "labelSelector", Message(LABEL_SELECTOR_ATTRIBUTES)),
];

pub(super) const NON_RESOURCE_ATTRIBUTES: &[Field] = &[field(1, "path", Text), field(2, "verb", Text)];

pub(super) const SELF_SUBJECT_ACCESS_REVIEW_SPEC: &[Field] =
    &[kept(1, "resourceAttributes", Message(RESOURCE_ATTRIBUTES)), kept(2, "nonResourceAttributes", Message(NON_RESOURCE_ATTRIBUTES))];

pub(super) const SUBJECT_ACCESS_REVIEW_STATUS: &[Field] =
    &[kept(1, "allowed", Flag), field(4, "denied", Flag), field(2, "reason", Text), field(3, "evaluationError", Text)];

pub(super) const SELF_SUBJECT_ACCESS_REVIEW: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    field(2, "spec", Message(SELF_SUBJECT_ACCESS_REVIEW_SPEC)),
    field(3, "status", Message(SUBJECT_ACCESS_REVIEW_STATUS)),
];

pub(super) const SUBJECT_ACCESS_REVIEW_SPEC: &[Field] = &[
    kept(1, "resourceAttributes", Message(RESOURCE_ATTRIBUTES)),
    kept(2, "nonResourceAttributes", Message(NON_RESOURCE_ATTRIBUTES)),
    field(3, "user", Text),
    list(4, "groups", Text),
    field(5, "extra", TextLists),
    field(6, "uid", Text),
];

pub(super) const SUBJECT_ACCESS_REVIEW: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    field(2, "spec", Message(SUBJECT_ACCESS_REVIEW_SPEC)),
    field(3, "status", Message(SUBJECT_ACCESS_REVIEW_STATUS)),
];

pub(super) const SELF_SUBJECT_RULES_REVIEW_SPEC: &[Field] = &[field(1, "namespace", Text)];

pub(super) const RESOURCE_RULE: &[Field] =
    &[kept_list(1, "verbs", Text), list(2, "apiGroups", Text), list(3, "resources", Text), list(4, "resourceNames", Text)];

pub(super) const NON_RESOURCE_RULE: &[Field] = &[kept_list(1, "verbs", Text), list(2, "nonResourceURLs", Text)];

pub(super) const SUBJECT_RULES_REVIEW_STATUS: &[Field] = &[
    kept_list(1, "resourceRules", Message(RESOURCE_RULE)),
    kept_list(2, "nonResourceRules", Message(NON_RESOURCE_RULE)),
    kept(3, "incomplete", Flag),
    field(4, "evaluationError", Text),
];

pub(super) const SELF_SUBJECT_RULES_REVIEW: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    field(2, "spec", Message(SELF_SUBJECT_RULES_REVIEW_SPEC)),
    field(3, "status", Message(SUBJECT_RULES_REVIEW_STATUS)),
];

pub(super) const LOCAL_SUBJECT_ACCESS_REVIEW: &[Field] = &[
    field(1, "metadata", Message(OBJECT_META)),
    field(2, "spec", Message(SUBJECT_ACCESS_REVIEW_SPEC)),
    field(3, "status", Message(SUBJECT_ACCESS_REVIEW_STATUS)),
];
