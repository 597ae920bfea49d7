//! Garbage collection by owner references, each way of deleting an owner.

use apiserver::ApiServer;
use serde_json::{Value, json};

use crate::support::{ask, owned_by, patch, server, settle, thing};

const THINGS: &str = "/apis/test.example/v1/namespaces/default/things";

async fn make(server: &ApiServer, name: &str, owners: Vec<Value>) -> Value {
    let mut object = thing(name);
    object["metadata"]["ownerReferences"] = json!(owners);
    ask(server, "POST", THINGS, object).await.expect(201)
}

async fn names(server: &ApiServer) -> Vec<String> {
    let list = ask(server, "GET", THINGS, Value::Null).await.expect(200);
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn in_the_background_dependents_follow() {
    let server = server().await;
    let owner = make(&server, "owner", vec![]).await;
    let middle = make(&server, "middle", vec![owned_by(&owner, true)]).await;
    make(&server, "leaf", vec![owned_by(&middle, true)]).await;
    make(&server, "other", vec![]).await;
    ask(&server, "DELETE", &format!("{THINGS}/owner"), json!({"propagationPolicy": "Background"})).await.expect(200);
    settle().await;
    assert_eq!(names(&server).await, ["other"]);
}

#[tokio::test(start_paused = true)]
async fn an_object_with_a_live_owner_stays() {
    let server = server().await;
    let (first, second) = (make(&server, "first", vec![]).await, make(&server, "second", vec![]).await);
    make(&server, "shared", vec![owned_by(&first, true), owned_by_second(&second)]).await;
    ask(&server, "DELETE", &format!("{THINGS}/first"), Value::Null).await.expect(200);
    settle().await;
    assert_eq!(names(&server).await, ["second", "shared"]);
    let shared = ask(&server, "GET", &format!("{THINGS}/shared"), Value::Null).await.expect(200);
    assert_eq!(shared["metadata"]["ownerReferences"].as_array().unwrap().len(), 1, "the reference to the owner that is gone went");
}

fn owned_by_second(owner: &Value) -> Value {
    let mut reference = owned_by(owner, false);
    reference["controller"] = json!(false);
    reference
}

#[tokio::test(start_paused = true)]
async fn an_absent_owner_is_as_good_as_a_deleted_one() {
    let server = server().await;
    let mut ghost = thing("ghost");
    ghost["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    make(&server, "orphan", vec![owned_by(&ghost, true)]).await;
    // What is not served here is not known to be absent.
    make(&server, "kept", vec![json!({"apiVersion": "unknown.example/v1", "kind": "Unknown", "name": "x", "uid": "y"})]).await;
    settle().await;
    assert_eq!(names(&server).await, ["kept"]);
}

#[tokio::test(start_paused = true)]
async fn in_the_foreground_the_owner_waits() {
    let server = server().await;
    let owner = make(&server, "owner", vec![]).await;
    let mut held = thing("held");
    held["metadata"]["ownerReferences"] = json!([owned_by(&owner, true)]);
    held["metadata"]["finalizers"] = json!(["test.example/hold"]);
    ask(&server, "POST", THINGS, held).await.expect(201);
    make(&server, "free", vec![owned_by(&owner, false)]).await;
    let marked = ask(&server, "DELETE", &format!("{THINGS}/owner"), json!({"propagationPolicy": "Foreground"})).await.expect(200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    settle().await;
    assert_eq!(names(&server).await, ["held", "owner"], "what does not hold the owner is gone, what does is waited for");
    patch(&server, "merge", &format!("{THINGS}/held"), json!({"metadata": {"finalizers": null}})).await.expect(200);
    settle().await;
    assert!(names(&server).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn dependents_of_waiting_dependents_go_first() {
    let server = server().await;
    let owner = make(&server, "owner", vec![]).await;
    let middle = make(&server, "middle", vec![owned_by(&owner, true)]).await;
    let mut leaf = thing("leaf");
    leaf["metadata"]["ownerReferences"] = json!([owned_by(&middle, true)]);
    leaf["metadata"]["finalizers"] = json!(["test.example/hold"]);
    ask(&server, "POST", THINGS, leaf).await.expect(201);
    ask(&server, "DELETE", &format!("{THINGS}/owner"), json!({"propagationPolicy": "Foreground"})).await.expect(200);
    settle().await;
    assert_eq!(names(&server).await, ["leaf", "middle", "owner"]);
    patch(&server, "merge", &format!("{THINGS}/leaf"), json!({"metadata": {"finalizers": null}})).await.expect(200);
    settle().await;
    assert!(names(&server).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn orphans_are_set_free() {
    let server = server().await;
    let owner = make(&server, "owner", vec![]).await;
    make(&server, "child", vec![owned_by(&owner, true)]).await;
    ask(&server, "DELETE", &format!("{THINGS}/owner"), json!({"propagationPolicy": "Orphan"})).await.expect(200);
    settle().await;
    assert_eq!(names(&server).await, ["child"]);
    let child = ask(&server, "GET", &format!("{THINGS}/child"), Value::Null).await.expect(200);
    assert_eq!(child["metadata"].get("ownerReferences"), None);
}

#[tokio::test(start_paused = true)]
async fn an_owner_of_the_same_name_is_another_one() {
    let server = server().await;
    let owner = make(&server, "owner", vec![]).await;
    make(&server, "child", vec![owned_by(&owner, true)]).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        ask(&server, "DELETE", &format!("{THINGS}/owner"), Value::Null).await.expect(200);
        held.push(make(&server, "owner", vec![]).await);
    }
    settle().await;
    assert_eq!(names(&server).await, ["owner"]);
    assert_ne!(held[0]["metadata"]["uid"], held[1]["metadata"]["uid"]);
}

#[tokio::test(start_paused = true)]
async fn objects_of_the_cluster_own_across_namespaces() {
    let server = server().await;
    let orb = json!({"apiVersion": "test.example/v1", "kind": "Orb", "metadata": {"name": "o"}});
    let orb = ask(&server, "POST", "/apis/test.example/v1/orbs", orb).await.expect(201);
    make(&server, "child", vec![owned_by(&orb, true)]).await;
    settle().await;
    assert_eq!(names(&server).await, ["child"]);
    ask(&server, "DELETE", "/apis/test.example/v1/orbs/o", Value::Null).await.expect(200);
    settle().await;
    assert!(names(&server).await.is_empty());
}
