//! Discovery, health, version and the questions that clients ask about themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apiserver::User;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use serde_json::{Value, json};
use tower::Service as _;

use crate::support::{ask, ask_form, server};

#[tokio::test(start_paused = true)]
async fn everything_served_is_found() {
    let server = server().await;
    let groups = ask(&server, "GET", "/apis", Value::Null).await.expect(200);
    let names: Vec<&str> = groups["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
    assert!(
        ["apps", "rbac.authorization.k8s.io", "events.k8s.io", "coordination.k8s.io", "authorization.k8s.io", "test.example"]
            .iter()
            .all(|name| names.contains(name)),
        "{names:?}"
    );
    let own = ask(&server, "GET", "/apis/test.example", Value::Null).await.expect(200);
    assert_eq!(own["preferredVersion"]["version"], "v1");
    let list = ask(&server, "GET", "/apis/test.example/v1", Value::Null).await.expect(200);
    let resources: Vec<&str> = list["resources"].as_array().unwrap().iter().map(|resource| resource["name"].as_str().unwrap()).collect();
    assert_eq!(resources, ["orbs", "things", "things/scale", "things/status"]);
    let things = &list["resources"][1];
    assert_eq!(
        (&things["shortNames"], &things["categories"], things["singularName"].as_str()),
        (&json!(["th"]), &json!(["toys"]), Some("thing"))
    );
    assert_eq!(ask(&server, "GET", "/apis/test.example/v7", Value::Null).await.code, 404);
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let answered = ask_form(&server, "/apis", aggregated).await;
    assert_eq!(answered.headers["content-type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    assert_eq!(answered.body["kind"], "APIGroupDiscoveryList");
    let older =
        ask_form(&server, "/apis", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json").await;
    assert_eq!(older.body["kind"], "APIGroupList", "older clients misread version 2");
    assert_eq!(ask(&server, "GET", "/version", Value::Null).await.expect(200)["minor"], "33");
    assert_eq!(ask(&server, "GET", "/openapi/v3", Value::Null).await.code, 200);
}

#[tokio::test(start_paused = true)]
async fn readiness_names_what_it_waits_for() {
    let server = server().await;
    let is_ready = Arc::new(AtomicBool::new(false));
    let asked = is_ready.clone();
    server
        .add_ready_check("controllers/machine", move || if asked.load(Ordering::Relaxed) { Ok(()) } else { Err("not started".to_owned()) });
    assert_eq!(ask(&server, "GET", "/healthz", Value::Null).await.body, "ok");
    let waiting = ask(&server, "GET", "/readyz", Value::Null).await;
    assert_eq!((waiting.code, waiting.body.as_str().unwrap().contains("[-]controllers/machine failed: not started")), (500, true));
    is_ready.store(true, Ordering::Relaxed);
    assert_eq!(ask(&server, "GET", "/readyz", Value::Null).await.body, "ok");
    let verbose = ask(&server, "GET", "/readyz?verbose", Value::Null).await;
    assert!(verbose.body.as_str().unwrap().contains("[+]controllers/machine ok\nreadyz check passed"), "{}", verbose.body);
}

#[tokio::test(start_paused = true)]
async fn users_are_told_who_they_are() {
    let server = server().await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = ask(&server, "POST", path, json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})).await.expect(201);
    assert_eq!(me["status"]["userInfo"]["username"], "tester");
    assert_eq!(me["status"]["userInfo"]["groups"], json!(["system:masters", "system:authenticated"]));
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let may = ask(&server, "POST", path, json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "things"}}})).await.expect(201);
    assert_eq!(may["status"]["allowed"], true);
    for (path, code) in [("/api/v1/namespaces", 401), ("/apis", 401), ("/healthz", 200), ("/readyz", 200), ("/version", 200)] {
        let request = Request::builder().uri(path).body(Empty::<bytes::Bytes>::new()).unwrap();
        let answer = server.service(&User::anonymous()).call(request).await.unwrap();
        assert_eq!(answer.status(), code, "{path}");
        drop(answer.into_body().collect().await);
    }
}
