//! Create, read, update, patch, delete: codes, reasons, messages and what is stored.

use apiserver::ApiServer;
use serde_json::{Value, json};

use crate::support::{ask, ask_form, config_map, patch, send, server, settle, thing};

const THINGS: &str = "/apis/test.example/v1/namespaces/default/things";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(start_paused = true)]
async fn a_created_object_has_its_system_metadata() {
    let server = server().await;
    let mut wanted = thing("a");
    wanted["metadata"]["uid"] = json!("mine");
    wanted["metadata"]["generation"] = json!(9);
    wanted["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    wanted["status"] = json!({"phase": "Wished"});
    let made = ask(&server, "POST", THINGS, wanted).await.expect(201);
    assert_eq!(made["metadata"]["creationTimestamp"], crate::support::START);
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_ne!(made["metadata"]["uid"], "mine");
    assert_eq!(made["spec"]["replicas"], 1, "the schema's default");
    assert_eq!(made.get("status"), None, "status is not set on creation");
    assert_eq!(made["metadata"].get("managedFields"), None);
    assert_eq!(ask(&server, "GET", &format!("{THINGS}/a"), Value::Null).await.expect(200), made);
}

#[tokio::test(start_paused = true)]
async fn refusals_have_their_code_and_reason() {
    let server = server().await;
    ask(&server, "POST", THINGS, thing("taken")).await.expect(201);
    let without = |field: &str| {
        let mut object = thing("x");
        object.as_object_mut().unwrap().remove(field);
        object
    };
    let with = |path: &str, value: Value| {
        let mut object = thing("x");
        *object.pointer_mut(path).unwrap() = value;
        object
    };
    for (object, code, reason, message) in [
        (thing("taken"), 409, "AlreadyExists", "things.test.example \"taken\" already exists"),
        (thing("Bad"), 422, "Invalid", "Thing.test.example \"Bad\" is invalid: metadata.name: Invalid value: \"Bad\""),
        (with("/metadata", json!({})), 422, "Invalid", "metadata.name: Required value: name or generateName is required"),
        (without("spec"), 201, "", ""),
        (with("/spec", json!({})), 422, "Invalid", "spec.size: Required value"),
        (
            with("/spec/size", json!("huge")),
            422,
            "Invalid",
            "spec.size: Unsupported value: \"huge\": supported values: \"small\", \"large\"",
        ),
        (
            with("/spec/size", json!(3)),
            422,
            "Invalid",
            "spec.size: Invalid value: \"integer\": spec.size in body must be of type string: \"integer\"",
        ),
        (
            with("/apiVersion", json!("other/v1")),
            400,
            "BadRequest",
            "the API version in the data (other/v1) does not match the expected API version (test.example/v1)",
        ),
        (
            with("/metadata", json!({"name": "x", "namespace": "other"})),
            400,
            "BadRequest",
            "does not match the namespace sent on the request",
        ),
        (
            with("/metadata", json!({"name": "x", "resourceVersion": "5"})),
            400,
            "BadRequest",
            "resourceVersion should not be set on objects to be created",
        ),
        (with("/metadata", json!({"name": "y", "labels": {"a b": "c"}})), 422, "Invalid", "metadata.labels: Invalid value: \"a b\""),
    ] {
        let answered = ask(&server, "POST", THINGS, object.clone()).await;
        assert_eq!((answered.code, answered.reason()), (code, reason), "{object} {}", answered.body);
        assert!(answered.message().contains(message), "{} lacks {message}", answered.body);
    }
    for (method, path, code, reason) in [
        ("GET", "/apis/test.example/v1/namespaces/default/things/none", 404, "NotFound"),
        ("GET", "/api/v1/nosuch", 404, "NotFound"),
        ("GET", "/apis/test.example/v9/things", 404, "NotFound"),
        ("GET", "/apis/test.example/v1/namespaces/default/orbs", 404, "NotFound"),
        ("DELETE", "/apis/test.example/v1/namespaces/default/things/none", 404, "NotFound"),
        ("POST", "/apis/test.example/v1/things", 405, "MethodNotAllowed"),
        ("PUT", "/apis/test.example/v1/namespaces/default/things", 405, "MethodNotAllowed"),
        ("DELETE", "/api/v1/namespaces", 405, "MethodNotAllowed"),
        ("GET", "/api/v1/configmaps?resourceVersion=abc", 400, "BadRequest"),
        ("GET", "/api/v1/configmaps?resourceVersion=99999", 504, "Timeout"),
        ("GET", "/api/v1/configmaps?labelSelector=%3D%3D", 400, "BadRequest"),
        ("GET", "/api/v1/configmaps?fieldSelector=data.a%3D1", 400, "BadRequest"),
        ("GET", "/api/v1/configmaps?continue=xx", 400, "BadRequest"),
        ("POST", "/api/v1/namespaces/none/configmaps", 404, "NotFound"),
    ] {
        let answered = ask(&server, method, path, if method == "POST" { config_map("x") } else { Value::Null }).await;
        assert_eq!((answered.code, answered.reason()), (code, reason), "{method} {path} {}", answered.body);
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_and_answers_have_the_forms_that_were_asked_for() {
    let server = server().await;
    let cbor = send(&server, "POST", MAPS, &[("content-type", "application/cbor")], b"x".to_vec()).await;
    assert_eq!(cbor.status(), 415);
    let yaml = send(
        &server,
        "POST",
        MAPS,
        &[("content-type", "application/yaml")],
        b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: yam}\ndata: {a: 'on'}\n".to_vec(),
    )
    .await;
    assert_eq!(yaml.status(), 201);
    assert_eq!(ask(&server, "GET", &format!("{MAPS}/yam"), Value::Null).await.expect(200)["data"]["a"], "on");
    let frame =
        hex::decode("6b3873000a0f0a02763112094e616d657370616365121c0a140a0464656d6f12001a0022002a0032003800420012001a020a001a002200")
            .unwrap();
    let made = send(&server, "POST", "/api/v1/namespaces", &[("content-type", "application/vnd.kubernetes.protobuf")], frame).await;
    assert_eq!(made.status(), 201);
    assert_eq!(ask(&server, "GET", "/api/v1/namespaces/demo", Value::Null).await.expect(200)["status"]["phase"], "Active");
    assert_eq!(ask_form(&server, MAPS, "application/cbor").await.code, 406);
    let table = ask_form(&server, MAPS, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await.expect(200);
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][0], "yam");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let metadata =
        ask_form(&server, &format!("{MAPS}/yam"), "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").await.expect(200);
    assert_eq!((metadata["kind"].as_str(), metadata.get("data")), (Some("PartialObjectMetadata"), None));
    let list = ask_form(&server, MAPS, "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").await.expect(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["name"], "yam");
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_are_named_warned_of_or_passed_over() {
    let server = server().await;
    let mut object = thing("a");
    object["spec"]["sise"] = json!(1);
    let strict = ask(&server, "POST", &format!("{THINGS}?fieldValidation=Strict"), object.clone()).await;
    assert_eq!(
        strict.message(),
        "Thing in version \"v1\" cannot be handled as a Thing: strict decoding error: unknown field \"spec.sise\""
    );
    assert_eq!(strict.code, 400);
    let warned = ask(&server, "POST", &format!("{THINGS}?fieldValidation=Warn"), object.clone()).await;
    assert_eq!(warned.warnings(), ["299 - \"unknown field \\\"spec.sise\\\"\""]);
    assert_eq!(warned.expect(201)["spec"].get("sise"), None, "unknown fields are pruned");
    object["metadata"]["name"] = json!("b");
    let ignored = ask(&server, "POST", &format!("{THINGS}?fieldValidation=Ignore"), object).await;
    assert!(ignored.warnings().is_empty());
    ignored.expect(201);
    let mut map = config_map("m");
    map["date"] = json!({"a": "b"});
    let strict = ask(&server, "POST", &format!("{MAPS}?fieldValidation=Strict"), map).await;
    assert!(strict.message().ends_with("unknown field \"date\""), "{}", strict.body);
    assert_eq!(ask(&server, "POST", &format!("{MAPS}?fieldValidation=Perhaps"), config_map("m")).await.code, 422);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_leaves_nothing_behind() {
    let server = server().await;
    let before = server.revision();
    let shown = ask(&server, "POST", &format!("{THINGS}?dryRun=All"), thing("a")).await.expect(201);
    assert_eq!(shown["spec"]["replicas"], 1);
    ask(&server, "GET", &format!("{THINGS}/a"), Value::Null).await.expect(404);
    assert_eq!(server.revision(), before);
    ask(&server, "POST", THINGS, thing("a")).await.expect(201);
    let before = server.revision();
    let patched = patch(&server, "merge", &format!("{THINGS}/a?dryRun=All"), json!({"spec": {"size": "large"}})).await.expect(200);
    assert_eq!(patched["spec"]["size"], "large");
    ask(&server, "DELETE", &format!("{THINGS}/a?dryRun=All"), Value::Null).await.expect(200);
    assert_eq!(ask(&server, "GET", &format!("{THINGS}/a"), Value::Null).await.expect(200)["spec"]["size"], "small");
    assert_eq!(server.revision(), before);
    assert_eq!(ask(&server, "POST", &format!("{THINGS}?dryRun=Some"), thing("b")).await.code, 422);
}

#[tokio::test(start_paused = true)]
async fn updates_are_guarded_by_the_resource_version() {
    let server = server().await;
    let first = ask(&server, "POST", THINGS, thing("a")).await.expect(201);
    let path = format!("{THINGS}/a");
    let mut wanted = first.clone();
    wanted["spec"]["size"] = json!("large");
    let second = ask(&server, "PUT", &path, wanted.clone()).await.expect(200);
    assert_eq!((second["metadata"]["generation"].as_u64(), second["metadata"]["uid"].clone()), (Some(2), first["metadata"]["uid"].clone()));
    let stale = ask(&server, "PUT", &path, wanted.clone()).await;
    assert_eq!(
        (stale.code, stale.message()),
        (
            409,
            "Operation cannot be fulfilled on things.test.example \"a\": the object has been modified; please apply your changes to the latest version and try again"
        )
    );
    wanted["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let unguarded = ask(&server, "PUT", &path, wanted).await;
    assert!(unguarded.message().contains("metadata.resourceVersion: Invalid value: 0"), "{}", unguarded.body);
    let stale = patch(&server, "merge", &path, json!({"metadata": {"resourceVersion": "1"}, "spec": {"size": "small"}})).await;
    assert_eq!(stale.reason(), "Conflict");
    let foreign = patch(&server, "merge", &path, json!({"metadata": {"uid": "other"}})).await;
    assert_eq!(foreign.reason(), "Conflict");
    // Built-in kinds may be replaced without one.
    ask(&server, "POST", MAPS, config_map("m")).await.expect(201);
    let mut map = config_map("m");
    map["data"]["a"] = json!("2");
    assert_eq!(ask(&server, "PUT", &format!("{MAPS}/m"), map).await.expect(200)["data"]["a"], "2");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_changes_nothing_leaves_no_revision() {
    let server = server().await;
    let made = ask(&server, "POST", THINGS, thing("a")).await.expect(201);
    let before = server.revision();
    let same = patch(&server, "merge", &format!("{THINGS}/a"), json!({"spec": {"size": "small"}})).await.expect(200);
    assert_eq!(same, made);
    ask(&server, "PUT", &format!("{THINGS}/a"), made).await.expect(200);
    assert_eq!(server.revision(), before);
}

#[tokio::test(start_paused = true)]
async fn status_and_object_leave_each_other_alone() {
    let server = server().await;
    ask(&server, "POST", THINGS, thing("a")).await.expect(201);
    let path = format!("{THINGS}/a");
    let change = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"size": "large"}, "status": {"phase": "Up"}});
    let by_status = patch(&server, "merge", &format!("{path}/status"), change.clone()).await.expect(200);
    assert_eq!(by_status["status"]["phase"], "Up");
    assert_eq!(by_status["spec"]["size"], "small");
    assert_eq!(by_status["metadata"].get("labels"), None);
    assert_eq!(by_status["metadata"]["generation"], 1);
    let mut change = change;
    change["status"]["phase"] = json!("Down");
    let by_object = patch(&server, "merge", &path, change).await.expect(200);
    assert_eq!((by_object["status"]["phase"].as_str(), by_object["spec"]["size"].as_str()), (Some("Up"), Some("large")));
    assert_eq!(by_object["metadata"]["generation"], 2);
    let labelled = patch(&server, "merge", &path, json!({"metadata": {"labels": {"z": "1"}}})).await.expect(200);
    assert_eq!(labelled["metadata"]["generation"], 2, "metadata is no specification");
    let wrong = patch(&server, "merge", &format!("{path}/status"), json!({"status": {"phase": 3}})).await;
    assert!(wrong.message().contains("status.phase in body must be of type string"), "{}", wrong.body);
    // Nodes: labels may come along with the status.
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"podCIDR": "x"}, "status": {"capacity": {"cpu": "2"}}});
    let node = ask(&server, "POST", "/api/v1/nodes", node).await.expect(201);
    assert_eq!(node["status"]["capacity"]["cpu"], "2");
    let node = patch(&server, "strategic", "/api/v1/nodes/n/status", json!({"metadata": {"labels": {"a": "b"}}, "spec": {"podCIDR": "y"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})).await.expect(200);
    assert_eq!((node["metadata"]["labels"]["a"].as_str(), node["spec"]["podCIDR"].as_str()), (Some("b"), Some("x")));
}

#[tokio::test(start_paused = true)]
async fn patches_of_each_type_are_carried_out_or_refused() {
    let server = server().await;
    ask(&server, "POST", THINGS, thing("a")).await.expect(201);
    let path = format!("{THINGS}/a");
    let json_patch =
        json!([{"op": "test", "path": "/spec/size", "value": "small"}, {"op": "replace", "path": "/spec/size", "value": "large"}]);
    assert_eq!(patch(&server, "json", &path, json_patch.clone()).await.expect(200)["spec"]["size"], "large");
    assert_eq!(patch(&server, "json", &path, json_patch).await.code, 422, "a failed test");
    let strategic = patch(&server, "strategic", &path, json!({"spec": {}})).await;
    assert_eq!((strategic.code, strategic.reason()), (415, "UnsupportedMediaType"));
    let apply = patch(&server, "application/apply-patch+yaml", &path, json!({})).await;
    assert_eq!(apply.code, 415);
    assert!(apply.message().contains("server-side apply is not served"), "{}", apply.body);
    ask(&server, "POST", MAPS, config_map("m")).await.expect(201);
    let map = patch(&server, "strategic", &format!("{MAPS}/m"), json!({"data": {"z": "2"}})).await.expect(200);
    assert_eq!(map["data"], json!({"a": "1", "z": "2"}));
    let missing = patch(&server, "merge", &format!("{MAPS}/none"), json!({})).await;
    assert_eq!(missing.code, 404);
}

#[tokio::test(start_paused = true)]
async fn scale_is_read_and_set() {
    let server = server().await;
    ask(&server, "POST", THINGS, thing("a")).await.expect(201);
    let path = format!("{THINGS}/a/scale");
    let scale = ask(&server, "GET", &path, Value::Null).await.expect(200);
    assert_eq!(
        (scale["kind"].as_str(), scale["spec"]["replicas"].as_i64(), scale["status"]["replicas"].as_i64()),
        (Some("Scale"), Some(1), Some(0))
    );
    let scaled = patch(&server, "merge", &path, json!({"spec": {"replicas": 5}})).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 5);
    let object = ask(&server, "GET", &format!("{THINGS}/a"), Value::Null).await.expect(200);
    assert_eq!((object["spec"]["replicas"].as_i64(), object["metadata"]["generation"].as_i64()), (Some(5), Some(2)));
    let stale = ask(&server, "PUT", &path, scale).await;
    assert_eq!(stale.reason(), "Conflict");
    assert_eq!(patch(&server, "merge", &path, json!({"spec": {"replicas": -1}})).await.code, 422);
    let mut many = thing("b");
    many["spec"]["replicas"] = json!("many");
    let refused = ask(&server, "POST", THINGS, many).await;
    assert!(refused.message().contains(".spec.replicas accessor error: many is of the type string, expected int64"), "{}", refused.body);
}

#[tokio::test(start_paused = true)]
async fn names_are_generated() {
    let server = server().await;
    let mut object = thing("x");
    object["metadata"] = json!({"generateName": "gen-"});
    let (one, two) =
        (ask(&server, "POST", THINGS, object.clone()).await.expect(201), ask(&server, "POST", THINGS, object).await.expect(201));
    let name = one["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
    let both = json!({"apiVersion": "test.example/v1", "kind": "Thing", "metadata": {"name": name, "generateName": "gen-"}, "spec": {"size": "small"}});
    assert_eq!(ask(&server, "POST", THINGS, both).await.reason(), "AlreadyExists");
}

#[tokio::test(start_paused = true)]
async fn deletion_knows_preconditions_and_finalizers() {
    let server = server().await;
    let mut object = thing("a");
    object["metadata"]["finalizers"] = json!(["test.example/hold"]);
    let made = ask(&server, "POST", THINGS, object).await.expect(201);
    let path = format!("{THINGS}/a");
    for preconditions in [json!({"uid": "other"}), json!({"resourceVersion": "1"})] {
        assert_eq!(ask(&server, "DELETE", &path, json!({"preconditions": preconditions})).await.reason(), "Conflict");
    }
    assert_eq!(ask(&server, "DELETE", &path, json!({"propagationPolicy": "Sideways"})).await.code, 422);
    let marked = ask(&server, "DELETE", &path, json!({"preconditions": {"uid": made["metadata"]["uid"]}})).await.expect(200);
    assert_eq!(marked["metadata"]["deletionTimestamp"], crate::support::START);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(marked["metadata"]["generation"], 2);
    let before = server.revision();
    ask(&server, "DELETE", &path, Value::Null).await.expect(200);
    assert_eq!(server.revision(), before, "deleting again changes nothing");
    let added = patch(&server, "json", &path, json!([{"op": "add", "path": "/metadata/finalizers/-", "value": "test.example/more"}])).await;
    assert!(
        added.message().contains(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{\"test.example/more\"}"
        ),
        "{}",
        added.body
    );
    let revived = patch(&server, "merge", &path, json!({"metadata": {"deletionTimestamp": null}})).await.expect(200);
    assert_eq!(revived["metadata"]["deletionTimestamp"], crate::support::START, "a deletion is not taken back");
    patch(&server, "merge", &path, json!({"metadata": {"finalizers": null}})).await.expect(200);
    ask(&server, "GET", &path, Value::Null).await.expect(404);
    ask(&server, "POST", THINGS, thing("b")).await.expect(201);
    let gone = ask(&server, "DELETE", &format!("{THINGS}/b"), Value::Null).await.expect(200);
    assert_eq!(
        (gone["kind"].as_str(), gone["status"].as_str(), gone["details"]["kind"].as_str()),
        (Some("Status"), Some("Success"), Some("things"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_collection_is_deleted_by_selector() {
    let server = server().await;
    for (name, tier) in [("a", "gold"), ("b", "gold"), ("c", "tin")] {
        let mut object = thing(name);
        object["metadata"]["labels"] = json!({"tier": tier});
        ask(&server, "POST", THINGS, object).await.expect(201);
    }
    let deleted = ask(&server, "DELETE", &format!("{THINGS}?labelSelector=tier%3Dgold"), Value::Null).await.expect(200);
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = ask(&server, "GET", THINGS, Value::Null).await.expect(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(left["items"][0]["metadata"]["name"], "c");
}

#[tokio::test(start_paused = true)]
async fn lists_are_selected_and_paged() {
    let server = server().await;
    for index in 0..7 {
        let mut object = thing(&format!("t{index}"));
        object["metadata"]["labels"] = json!({"parity": if index % 2 == 0 { "even" } else { "odd" }});
        ask(&server, "POST", THINGS, object).await.expect(201);
    }
    for (selector, count) in [
        ("labelSelector=parity%3Deven", 4),
        ("labelSelector=parity%21%3Deven", 3),
        ("labelSelector=parity+in+%28odd%2Ceven%29", 7),
        ("fieldSelector=metadata.name%3Dt3", 1),
        ("fieldSelector=metadata.namespace%3Dother", 0),
    ] {
        let list = ask(&server, "GET", &format!("{THINGS}?{selector}"), Value::Null).await.expect(200);
        assert_eq!(list["items"].as_array().unwrap().len(), count, "{selector}");
    }
    let first = ask(&server, "GET", &format!("{THINGS}?limit=3"), Value::Null).await.expect(200);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    // What happens between pages does not show.
    ask(&server, "DELETE", &format!("{THINGS}/t4"), Value::Null).await.expect(200);
    ask(&server, "POST", THINGS, thing("t35")).await.expect(201);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = ask(&server, "GET", &format!("{THINGS}?limit=3&continue={token}"), Value::Null).await.expect(200);
    let names: Vec<&str> = second["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["t3", "t4", "t5"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = ask(&server, "GET", &format!("{THINGS}?limit=3&continue={token}"), Value::Null).await.expect(200);
    assert_eq!(last["metadata"].get("continue"), None);
    assert_eq!(last["items"].as_array().unwrap().len(), 1);
    let old = first["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = ask(&server, "GET", &format!("{THINGS}?resourceVersion={old}&resourceVersionMatch=Exact"), Value::Null).await.expect(200);
    assert_eq!(exact["items"].as_array().unwrap().len(), 7);
    assert_eq!(ask(&server, "GET", &format!("{THINGS}?resourceVersionMatch=Exact"), Value::Null).await.code, 422);
}

#[tokio::test(start_paused = true)]
async fn secrets_and_config_maps_have_their_rules() {
    let server = server().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"user": "u"}, "data": {"p": "eA=="}});
    let made = ask(&server, "POST", secrets, secret).await.expect(201);
    assert_eq!(
        (&made["data"], made["type"].as_str(), made.get("stringData")),
        (&json!({"p": "eA==", "user": "dQ=="}), Some("Opaque"), None)
    );
    let typed = patch(&server, "merge", &format!("{secrets}/s"), json!({"type": "other"})).await;
    assert!(typed.message().contains("type: Invalid value: \"other\": field is immutable"), "{}", typed.body);
    let broken = patch(&server, "merge", &format!("{secrets}/s"), json!({"data": {"p": "%%"}})).await;
    assert!((400..500).contains(&broken.code), "{}", broken.body);
    let keyed = patch(&server, "merge", &format!("{secrets}/s"), json!({"data": {"a/b": "eA=="}})).await;
    assert!(keyed.message().contains("data[a/b]: Invalid value: \"a/b\""), "{}", keyed.body);
    let listed = ask(&server, "GET", &format!("{secrets}?fieldSelector=type%3DOpaque"), Value::Null).await.expect(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let mut fixed = config_map("m");
    fixed["immutable"] = json!(true);
    ask(&server, "POST", MAPS, fixed).await.expect(201);
    let changed = patch(&server, "merge", &format!("{MAPS}/m"), json!({"data": {"a": "2"}})).await;
    assert!(changed.message().contains("field is immutable when `immutable` is set"), "{}", changed.body);
}

#[tokio::test(start_paused = true)]
async fn wrong_types_in_built_in_kinds_cannot_be_read() {
    let server = server().await;
    let mut map = config_map("m");
    map["data"]["a"] = json!(1);
    let refused = ask(&server, "POST", MAPS, map).await;
    assert_eq!(refused.code, 400);
    assert!(
        refused.message().starts_with("ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number"),
        "{}",
        refused.body
    );
}

#[tokio::test(start_paused = true)]
async fn old_events_are_forgotten() {
    let server = server().await;
    let events = "/api/v1/namespaces/default/events";
    let event = |name: &str| json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "involvedObject": {"namespace": "default"}, "lastTimestamp": null});
    ask(&server, "POST", events, event("old")).await.expect(201);
    tokio::time::sleep(std::time::Duration::from_secs(50 * 60)).await;
    ask(&server, "POST", events, event("new")).await.expect(201);
    tokio::time::sleep(std::time::Duration::from_secs(25 * 60)).await;
    ask(&server, "GET", &format!("{events}/old"), Value::Null).await.expect(404);
    ask(&server, "GET", &format!("{events}/new"), Value::Null).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn events_are_seen_through_both_groups() {
    let server = server().await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Thing", "name": "a", "namespace": "default", "uid": "u"}, "note": "it happened", "reason": "Happened", "type": "Normal",
        "reportingController": "test", "reportingInstance": "test-1", "action": "Do",
    });
    let made = ask(&server, "POST", "/apis/events.k8s.io/v1/namespaces/default/events", event).await.expect(201);
    assert_eq!(made["note"], "it happened");
    let selector = "involvedObject.kind%3DThing%2CinvolvedObject.name%3Da%2CinvolvedObject.uid%3Du%2CinvolvedObject.namespace%3Ddefault";
    let core = ask(&server, "GET", &format!("/api/v1/namespaces/default/events?fieldSelector={selector}"), Value::Null).await.expect(200);
    assert_eq!((core["items"][0]["message"].as_str(), core["items"][0]["apiVersion"].as_str()), (Some("it happened"), Some("v1")));
    let patched = patch(
        &server,
        "merge",
        "/apis/events.k8s.io/v1/namespaces/default/events/e",
        json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}}),
    )
    .await
    .expect(200);
    assert_eq!((patched["series"]["count"].as_i64(), patched["note"].as_str()), (Some(2), Some("it happened")));
}

#[tokio::test(start_paused = true)]
async fn other_versions_show_the_same_objects() {
    let server = server().await;
    let mut object = thing("a");
    object["apiVersion"] = json!("test.example/v1beta1");
    let path = "/apis/test.example/v1beta1/namespaces/default/things";
    assert_eq!(ask(&server, "POST", path, object).await.expect(201)["apiVersion"], "test.example/v1beta1");
    assert_eq!(ask(&server, "GET", &format!("{THINGS}/a"), Value::Null).await.expect(200)["apiVersion"], "test.example/v1");
    let patched = patch(&server, "merge", &format!("{path}/a"), json!({"spec": {"size": "large"}})).await.expect(200);
    assert_eq!((patched["apiVersion"].as_str(), patched["metadata"]["generation"].as_i64()), (Some("test.example/v1beta1"), Some(2)));
    assert_eq!(server.snapshot_of("test.example", "things")[0]["apiVersion"], "test.example/v1");
}

#[tokio::test(start_paused = true)]
async fn pods_are_evicted_as_their_budget_allows() {
    let server = server().await;
    let pods = "/api/v1/namespaces/default/pods";
    for name in ["p1", "p2"] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "x"}}, "spec": {"nodeName": "n", "containers": []}});
        ask(&server, "POST", pods, pod).await.expect(201);
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        patch(&server, "merge", &format!("{pods}/{name}/status"), ready).await.expect(200);
    }
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    ask(&server, "POST", "/apis/policy/v1/namespaces/default/poddisruptionbudgets", budget).await.expect(201);
    let eviction = |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}});
    ask(&server, "POST", &format!("{pods}/p1/eviction"), eviction("p1")).await.expect(201);
    let refused = ask(&server, "POST", &format!("{pods}/p2/eviction"), eviction("p2")).await;
    assert_eq!((refused.code, refused.reason()), (429, "TooManyRequests"));
    assert_eq!(
        refused.body["details"]["causes"][0]["message"], "The disruption budget b needs 1 healthy pods and has 1 currently",
        "the one that is stopping counts no more"
    );
    delete_now(&server, &format!("{pods}/p1")).await;
    assert_eq!(
        ask(&server, "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn", Value::Null).await.expect(200)["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

/// As a kubelet deletes the pod that it has stopped.
async fn delete_now(server: &ApiServer, path: &str) {
    ask(server, "DELETE", path, json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0})).await.expect(200);
    ask(server, "GET", path, Value::Null).await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_given_grace_until_its_kubelet_has_stopped_it() {
    let server = server().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    for (name, spec) in [
        ("own", json!({"nodeName": "n", "containers": [], "terminationGracePeriodSeconds": 60})),
        ("default", json!({"nodeName": "n", "containers": []})),
        ("homeless", json!({"containers": []})),
        ("ended", json!({"nodeName": "n", "containers": []})),
    ] {
        ask(&server, "POST", pods, pod(name, spec)).await.expect(201);
    }
    patch(&server, "merge", &format!("{pods}/ended/status"), json!({"status": {"phase": "Succeeded"}})).await.expect(200);
    let get = async |name: &str| ask(&server, "GET", &format!("{pods}/{name}"), Value::Null).await;
    for (name, grace) in [("own", 60), ("default", 30)] {
        ask(&server, "DELETE", &format!("{pods}/{name}"), Value::Null).await.expect(200);
        assert_eq!(get(name).await.expect(200)["metadata"]["deletionGracePeriodSeconds"], grace);
    }
    for name in ["homeless", "ended"] {
        ask(&server, "DELETE", &format!("{pods}/{name}"), Value::Null).await.expect(200);
        assert_eq!(get(name).await.code, 404, "{name} has nothing to stop");
    }
    // What still changes is not gone, and grace only ever shrinks.
    let until = get("own").await.expect(200)["metadata"]["deletionTimestamp"].clone();
    patch(&server, "merge", &format!("{pods}/own/status"), json!({"status": {"message": "stopping"}})).await.expect(200);
    ask(&server, "DELETE", &format!("{pods}/own?gracePeriodSeconds=90"), Value::Null).await.expect(200);
    assert_eq!(get("own").await.expect(200)["metadata"]["deletionTimestamp"], until);
    ask(&server, "DELETE", &format!("{pods}/own?gracePeriodSeconds=5"), Value::Null).await.expect(200);
    assert_eq!(get("own").await.expect(200)["metadata"]["deletionGracePeriodSeconds"], 5);
    delete_now(&server, &format!("{pods}/own")).await;
}

#[tokio::test(start_paused = true)]
async fn an_unready_pod_is_evicted_only_while_the_others_keep_the_budget() {
    let server = server().await;
    let pods = "/api/v1/namespaces/default/pods";
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    for (name, phase, is_ready) in
        [("good", "Running", true), ("bad", "Running", false), ("worse", "Running", false), ("done", "Succeeded", false)]
    {
        let pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "x"}}, "spec": {"containers": []}});
        ask(&server, "POST", pods, pod).await.expect(201);
        let conditions = json!([{"type": "Ready", "status": if is_ready { "True" } else { "False" }}]);
        patch(&server, "merge", &format!("{pods}/{name}/status"), json!({"status": {"phase": phase, "conditions": conditions}}))
            .await
            .expect(200);
    }
    let budget = |needed: i64, policy: &str| {
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
            "spec": {"minAvailable": needed, "unhealthyPodEvictionPolicy": policy, "selector": {"matchLabels": {"app": "x"}}}})
    };
    ask(&server, "POST", budgets, budget(2, "IfHealthyBudget")).await.expect(201);
    let evict = async |name: &str| {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}});
        ask(&server, "POST", &format!("{pods}/{name}/eviction"), eviction).await.code
    };
    assert_eq!(evict("bad").await, 429, "one healthy of two needed");
    assert_eq!(evict("done").await, 201, "what has ended disrupts nothing");
    patch(&server, "merge", &format!("{budgets}/b"), budget(1, "IfHealthyBudget")).await.expect(200);
    assert_eq!((evict("good").await, evict("bad").await), (429, 201));
    patch(&server, "merge", &format!("{budgets}/b"), budget(3, "AlwaysAllow")).await.expect(200);
    assert_eq!((evict("good").await, evict("worse").await), (429, 201));
    let second = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "c"}, "spec": {"minAvailable": 0, "selector": {"matchLabels": {"app": "x"}}}});
    ask(&server, "POST", budgets, second).await.expect(201);
    assert_eq!(evict("good").await, 500, "two budgets");
}

#[tokio::test(start_paused = true)]
async fn definitions_come_change_and_go() {
    let server = server().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut definition = crate::support::definitions().remove(0);
    definition["metadata"]["name"] = json!("bits.other.example");
    definition["spec"]["group"] = json!("other.example");
    definition["spec"]["names"] = json!({"plural": "bits", "kind": "Bit"});
    let made = ask(&server, "POST", path, definition.clone()).await.expect(201);
    let conditions = made["status"]["conditions"].as_array().unwrap();
    assert!(
        ["Established", "NamesAccepted"]
            .iter()
            .all(|kind| conditions.iter().any(|condition| condition["type"] == *kind && condition["status"] == "True"))
    );
    assert_eq!(made["spec"]["names"]["listKind"], "BitList");
    let bits = "/apis/other.example/v1/namespaces/default/bits";
    let bit = json!({"apiVersion": "other.example/v1", "kind": "Bit", "metadata": {"name": "b", "finalizers": ["x.example/y"]}, "spec": {"size": "small"}});
    ask(&server, "POST", bits, bit).await.expect(201);
    let change = json!([{"op": "replace", "path": "/spec/versions/1/schema/openAPIV3Schema/properties/spec/properties/size/enum", "value": ["tiny"]}]);
    patch(&server, "json", &format!("{path}/bits.other.example"), change).await.expect(200);
    assert_eq!(patch(&server, "merge", &format!("{bits}/b"), json!({"spec": {"size": "large"}})).await.code, 422, "the new schema holds");
    ask(&server, "DELETE", &format!("{path}/bits.other.example"), Value::Null).await.expect(200);
    settle().await;
    ask(&server, "GET", &format!("{path}/bits.other.example"), Value::Null).await.expect(200);
    assert_eq!(
        ask(
            &server,
            "POST",
            bits,
            json!({"apiVersion": "other.example/v1", "kind": "Bit", "metadata": {"name": "c"}, "spec": {"size": "tiny"}})
        )
        .await
        .code,
        405
    );
    patch(&server, "merge", &format!("{bits}/b"), json!({"metadata": {"finalizers": null}})).await.expect(200);
    settle().await;
    ask(&server, "GET", &format!("{path}/bits.other.example"), Value::Null).await.expect(404);
    ask(&server, "GET", bits, Value::Null).await.expect(404);
    definition["metadata"]["name"] = json!("wrong.other.example");
    assert_eq!(ask(&server, "POST", path, definition).await.code, 422);
}
