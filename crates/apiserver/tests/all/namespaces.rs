//! Namespaces: those that are always there, and how one is emptied and goes.

use serde_json::{Value, json};

use crate::support::{ask, config_map, patch, server, settle, thing};

#[tokio::test(start_paused = true)]
async fn every_server_has_the_usual_ones() {
    let server = server().await;
    let list = ask(&server, "GET", "/api/v1/namespaces", Value::Null).await.expect(200);
    let names: Vec<&str> = list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    for name in ["default", "kube-system", "kube-public"] {
        let refused = ask(&server, "DELETE", &format!("/api/v1/namespaces/{name}"), Value::Null).await;
        assert_eq!(
            (refused.code, refused.message().to_owned()),
            (403, format!("namespaces {name:?} is forbidden: this namespace may not be deleted"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_namespace_is_emptied_first() {
    let server = server().await;
    let made = ask(&server, "POST", "/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}))
        .await
        .expect(201);
    assert_eq!(
        (made["spec"]["finalizers"][0].as_str(), made["metadata"]["labels"]["kubernetes.io/metadata.name"].as_str()),
        (Some("kubernetes"), Some("demo"))
    );
    ask(&server, "POST", "/api/v1/namespaces/demo/configmaps", config_map("m")).await.expect(201);
    let mut held = thing("held");
    held["metadata"]["finalizers"] = json!(["test.example/hold"]);
    ask(&server, "POST", "/apis/test.example/v1/namespaces/demo/things", held).await.expect(201);
    let marked = ask(&server, "DELETE", "/api/v1/namespaces/demo", Value::Null).await.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let refused = ask(&server, "POST", "/api/v1/namespaces/demo/configmaps", config_map("late")).await;
    assert_eq!((refused.code, refused.reason()), (403, "Forbidden"));
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "NamespaceTerminating");
    settle().await;
    ask(&server, "GET", "/api/v1/namespaces/demo/configmaps/m", Value::Null).await.expect(404);
    let waiting = ask(&server, "GET", "/api/v1/namespaces/demo", Value::Null).await.expect(200);
    let messages: Vec<&str> =
        waiting["status"]["conditions"].as_array().unwrap().iter().map(|condition| condition["message"].as_str().unwrap()).collect();
    assert_eq!(
        messages,
        [
            "Some resources are remaining: things.test.example has 1 resource instances",
            "Some content in the namespace has finalizers remaining: test.example/hold in 1 resource instances"
        ]
    );
    patch(&server, "merge", "/apis/test.example/v1/namespaces/demo/things/held", json!({"metadata": {"finalizers": []}})).await.expect(200);
    settle().await;
    ask(&server, "GET", "/api/v1/namespaces/demo", Value::Null).await.expect(404);
    ask(&server, "POST", "/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}))
        .await
        .expect(201);
}

#[tokio::test(start_paused = true)]
async fn finalizers_of_the_specification_are_taken_by_finalize_only() {
    let server = server().await;
    ask(&server, "POST", "/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}))
        .await
        .expect(201);
    let kept = patch(&server, "merge", "/api/v1/namespaces/demo", json!({"spec": {"finalizers": []}})).await.expect(200);
    assert_eq!(kept["spec"]["finalizers"][0], "kubernetes");
    let mut object = kept;
    object["spec"]["finalizers"] = json!(["kubernetes", "test.example/mine"]);
    let both = ask(&server, "PUT", "/api/v1/namespaces/demo/finalize", object).await.expect(200);
    assert_eq!(both["spec"]["finalizers"].as_array().unwrap().len(), 2);
    ask(&server, "DELETE", "/api/v1/namespaces/demo", Value::Null).await.expect(200);
    settle().await;
    let mut object = ask(&server, "GET", "/api/v1/namespaces/demo", Value::Null).await.expect(200);
    assert_eq!(object["spec"]["finalizers"], json!(["test.example/mine"]));
    object["spec"]["finalizers"] = json!([]);
    ask(&server, "PUT", "/api/v1/namespaces/demo/finalize", object).await.expect(200);
    ask(&server, "GET", "/api/v1/namespaces/demo", Value::Null).await.expect(404);
}
