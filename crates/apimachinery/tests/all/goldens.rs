//! What a genuine kube-apiserver said and did, and what this crate says and does in its place.

use apimachinery::field::FieldError;
use apimachinery::gvk::{GroupKind, GroupResource};
use apimachinery::names::NameRule;
use apimachinery::schema::{Schema, scale_spec_errors};
use apimachinery::selector::LabelSelector;
use apimachinery::status::{self, StatusError};
use apimachinery::table::Columns;
use apimachinery::{meta, patch, protobuf};
use serde_json::{Value, json};

use crate::exchange::{self, Exchange};

fn find<'a>(exchanges: &'a [Exchange], file: &str) -> &'a Exchange {
    exchanges.iter().find(|e| e.file.starts_with(file)).unwrap_or_else(|| panic!("no exchange {file}"))
}

/// The schema of one version of a kind, with the reference definitions it is served by.
fn schema(definitions: &[Value], plural: &str, version: &str) -> Schema {
    let definition = definitions
        .iter()
        .find(|d| d["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(&format!("{plural}."))))
        .unwrap_or_else(|| panic!("no definition of {plural}"));
    let versions = definition["spec"]["versions"].as_array().unwrap();
    let found = versions.iter().find(|v| v["name"] == version).unwrap_or_else(|| panic!("{plural} has no {version}"));
    Schema::from_openapi(&found["schema"]["openAPIV3Schema"]).unwrap()
}

#[test]
fn every_definition_in_use_is_read() {
    let Some(definitions) = exchange::definitions() else { return };
    let mut count = 0;
    for definition in &definitions {
        for version in definition["spec"]["versions"].as_array().unwrap() {
            let schema = Schema::from_openapi(&version["schema"]["openAPIV3Schema"]).unwrap();
            assert_eq!(schema.unread_rules(), Vec::<String>::new());
            Columns::custom(version.get("additionalPrinterColumns")).unwrap();
            count += 1;
        }
    }
    assert!(count > 40, "only {count} versions");
}

#[test]
fn objects_are_defaulted_and_kept_as_the_genuine_server_does() {
    let (Some(exchanges), Some(definitions)) = (exchange::all(), exchange::definitions()) else { return };
    let mut count = 0;
    for exchange in exchanges.iter().filter(|e| e.method == "POST" && e.status == 201 && e.content_type == "application/json") {
        let path: Vec<&str> = exchange.target.split('?').next().unwrap().split('/').collect();
        let ["", "apis", _, version, "namespaces", _, plural] = path.as_slice() else { continue };
        if exchange.target.contains("dryRun") {
            // Pools are stored in another version, whose schema has dropped fields of this one.
            continue;
        }
        let schema = schema(&definitions, plural, version);
        let mut object: Value = serde_json::from_slice(&exchange.request).unwrap();
        assert_eq!(schema.prune(&mut object), Vec::<String>::new(), "{}", exchange.file);
        schema.default(&mut object);
        assert_eq!(schema.validate(&object, None), [], "{}", exchange.file);
        assert_eq!(object["spec"], exchange.answer_json().unwrap()["spec"], "{}", exchange.file);
        count += 1;
    }
    assert_eq!(count, 7);
}

#[test]
fn an_unknown_field_is_refused_in_the_same_words() {
    let (Some(exchanges), Some(definitions)) = (exchange::all(), exchange::definitions()) else { return };
    let exchange = find(&exchanges, "28-unknown-field/05-POST");
    let mut object: Value = serde_json::from_slice(&exchange.request).unwrap();
    let unknown = schema(&definitions, "clusters", "v1beta1").prune(&mut object);
    let errors: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    assert_eq!(StatusError::strict_decoding("Cluster", "v1beta1", &errors).to_json(), exchange.answer_json().unwrap());
}

#[test]
fn an_invalid_object_is_refused_in_the_same_words() {
    let (Some(exchanges), Some(definitions)) = (exchange::all(), exchange::definitions()) else { return };
    let exchange = find(&exchanges, "29-invalid-value/04-POST");
    let object: Value = serde_json::from_slice(&exchange.request).unwrap();
    let mut errors = schema(&definitions, "machinedeployments", "v1beta1").validate(&object, None);
    errors.extend(scale_spec_errors(&object, ".spec.replicas"));
    let kind = GroupKind::new("cluster.x-k8s.io", "MachineDeployment");
    assert_eq!(StatusError::invalid(&kind, "bad", errors).to_json(), exchange.answer_json().unwrap());
}

#[test]
fn every_recorded_error_has_its_constructor() {
    let Some(exchanges) = exchange::all() else { return };
    let clusters = GroupResource::new("cluster.x-k8s.io", "clusters");
    let config_maps = GroupResource::new("", "configmaps");
    let bad_name = meta::validate(&json!({"metadata": {"name": "Bad_Name", "namespace": "default"}}), true, NameRule::Subdomain);
    let selector = LabelSelector::parse("==").unwrap_err();
    let patches = ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
    let bodies = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
    let initial =
        FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled");
    for (file, error) in [
        ("30-not-found/02-GET", StatusError::not_found(&clusters, "nosuch")),
        ("31-already-exists/03-POST", StatusError::already_exists(&clusters, "vmware-test")),
        ("32-replace-stale/04-PUT", StatusError::modified(&config_maps, "a")),
        ("20-patch-strategic-on-custom/03-PATCH", StatusError::unsupported_media_type(&patches)),
        ("46-raw/05-GET", StatusError::invalid(&GroupKind::new("meta.k8s.io", "ListOptions"), "", vec![initial])),
        ("46-raw/07-GET", StatusError::too_large_resource_version(999_999_999, 371)),
        ("46-raw/08-GET", StatusError::malformed_resource_version("abc")),
        ("46-raw/09-GET", StatusError::bad_request(selector.to_string())),
        ("46-raw/10-GET", StatusError::unknown_resource()),
        ("46-raw/12-POST", StatusError::unsupported_media_type(&bodies)),
        ("46-raw/13-POST", StatusError::invalid(&GroupKind::new("", "ConfigMap"), "Bad_Name", bad_name)),
    ] {
        let exchange = find(&exchanges, file);
        assert_eq!(error.to_json(), exchange.answer_json().unwrap(), "{file}");
        assert_eq!(error.code, exchange.status, "{file}");
    }
    let watch = find(&exchanges, "46-raw/06-GET").answer_json().unwrap();
    assert_eq!(StatusError::too_old(1, 2).to_json(), watch["object"]);
}

#[test]
fn a_deletion_is_answered_in_the_same_words() {
    let Some(exchanges) = exchange::all() else { return };
    let answer = find(&exchanges, "42-delete-cascade/02-DELETE").answer_json().unwrap();
    let resource = GroupResource::new("cluster.x-k8s.io", "machinedeployments");
    assert_eq!(status::success(&resource, "vmware-test-workers", answer["details"]["uid"].as_str().unwrap()), answer);
}

#[test]
fn protobuf_bodies_of_kubectl_are_read() {
    let Some(exchanges) = exchange::all() else { return };
    for (file, expected) in [
        ("03-create-namespace/02-POST", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}})),
        (
            "04-create-configmap/02-POST",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "demo"}, "data": {"x": "1"}}),
        ),
        (
            "05-create-secret/02-POST",
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "demo"}, "data": {"username": "dQ=="}}),
        ),
        (
            "34-auth-can-i/03-POST",
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                   "spec": {"resourceAttributes": {"namespace": "demo", "verb": "get", "group": "cluster.x-k8s.io", "resource": "clusters"}},
                   "status": {"allowed": false}}),
        ),
        ("35-auth-whoami/02-POST", json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})),
    ] {
        assert_eq!(protobuf::decode(&find(&exchanges, file).request).unwrap(), expected, "{file}");
    }
    let bodies: Vec<&Exchange> = exchanges.iter().filter(|e| e.content_type == protobuf::MEDIA_TYPE).collect();
    assert_eq!(bodies.len(), 6);
    for body in bodies {
        assert!(protobuf::decode(&body.request).is_ok(), "{}", body.file);
    }
}

#[test]
fn protobuf_answers_read_as_the_objects_that_json_shows_later() {
    let Some(exchanges) = exchange::all() else { return };
    let created = protobuf::decode(&find(&exchanges, "04-create-configmap/02-POST").answer).unwrap();
    assert_eq!(created, find(&exchanges, "33-edit-configmap-smp/02-GET").answer_json().unwrap());
    let created = protobuf::decode(&find(&exchanges, "03-create-namespace/02-POST").answer).unwrap();
    assert_eq!(created, find(&exchanges, "28-unknown-field/04-GET").answer_json().unwrap());
}

#[test]
fn patches_have_the_recorded_effect() {
    let Some(exchanges) = exchange::all() else { return };
    for (before, file, kind) in [
        ("18-patch-merge/02-GET", "18-patch-merge/03-PATCH", None),
        ("16-label/02-GET", "16-label/03-PATCH", None),
        ("19-patch-json/02-GET", "19-patch-json/03-PATCH", None),
        ("33-edit-configmap-smp/02-GET", "33-edit-configmap-smp/03-PATCH", Some(GroupKind::new("", "ConfigMap"))),
    ] {
        let mut object = find(&exchanges, before).answer_json().unwrap();
        let exchange = find(&exchanges, file);
        let change: Value = serde_json::from_slice(&exchange.request).unwrap();
        match (exchange.content_type.as_str(), kind) {
            ("application/json-patch+json", _) => patch::json_patch(&mut object, &change).unwrap(),
            ("application/merge-patch+json", _) => patch::merge_patch(&mut object, &change),
            (_, Some(kind)) => patch::strategic_merge(&mut object, &change, &kind).unwrap(),
            (other, None) => panic!("{other}"),
        }
        let mut after = exchange.answer_json().unwrap();
        for object in [&mut object, &mut after] {
            for field in ["managedFields", "resourceVersion", "generation"] {
                meta::unset(object, field);
            }
        }
        assert_eq!(object, after, "{file}");
    }
}

#[test]
fn built_in_columns_are_those_of_the_genuine_server() {
    let Some(exchanges) = exchange::all() else { return };
    for (file, group, kind) in [
        ("30-not-found/03-GET", "", "Namespace"),
        ("37-events/02-GET", "", "Event"),
        ("38-chunked/02-GET", "apiextensions.k8s.io", "CustomResourceDefinition"),
        ("40-get-nodes/02-GET", "", "Node"),
        ("41-get-pods-all/02-GET", "", "Pod"),
    ] {
        let exchange = find(&exchanges, file);
        assert!(exchange.accept.contains("as=Table"), "{file}");
        let mut recorded = exchange.answer_json().unwrap()["columnDefinitions"].clone();
        let mut ours = Columns::builtin(&GroupKind::new(group, kind)).definitions();
        for columns in [&mut recorded, &mut ours] {
            for column in columns.as_array_mut().unwrap() {
                // The descriptions are in our own words.
                assert!(column.as_object_mut().unwrap().shift_remove("description").is_some_and(|d| d != ""));
            }
        }
        assert_eq!(ours, recorded, "{kind}");
    }
}

#[test]
fn custom_columns_print_what_the_genuine_server_prints() {
    let (Some(exchanges), Some(definitions)) = (exchange::all(), exchange::definitions()) else { return };
    // The table of machine deployments and the object itself, which was read a moment later.
    let table = find(&exchanges, "11-get-wide/02-GET").answer_json().unwrap();
    let object = find(&exchanges, "22-scale/02-GET").answer_json().unwrap();
    let definition = definitions.iter().find(|d| d["metadata"]["name"] == "machinedeployments.cluster.x-k8s.io").unwrap();
    let version = definition["spec"]["versions"].as_array().unwrap().iter().find(|v| v["name"] == "v1beta1").unwrap();
    let mut with_age: Vec<Value> = table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    let columns = Columns::custom(version.get("additionalPrinterColumns")).unwrap();
    let ours: Vec<Value> = columns.definitions().as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    // Newer definitions of Cluster API have further columns; those of the recording are among them, in its order.
    with_age.retain(|name| ours.contains(name));
    let cells = columns.cells(&object, "2026-11-23T10:13:15Z".parse().unwrap());
    for (name, cell) in ours.iter().zip(&cells) {
        let names = table["columnDefinitions"].as_array().unwrap();
        if let Some(at) = names.iter().position(|c| c["name"] == *name) {
            assert_eq!(*cell, table["rows"][0]["cells"][at], "{name}");
        }
    }
    assert!(with_age.len() >= 8, "{with_age:?}");
}
