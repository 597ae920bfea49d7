//! Every resource that discovery names answers every verb that discovery lists for it, on both kinds of server.

use apiserver::{ApiServer, Builtins, MemoryJournal, Options};
use serde_json::{Value, json};

use crate::support::{Watching, ask, definitions, options, patch};

/// What an object of a kind needs beside its name.
fn minimal(api_version: &str, kind: &str, name: &str) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}});
    match kind {
        "Thing" => object["spec"] = json!({"size": "small"}),
        "RoleBinding" | "ClusterRoleBinding" => {
            object["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"})
        }
        "CustomResourceDefinition" => {
            let mut definition = definitions().remove(1);
            definition["metadata"]["name"] = json!("cogs.other.example");
            definition["spec"]["group"] = json!("other.example");
            definition["spec"]["names"] = json!({"plural": "cogs", "kind": "Cog"});
            return definition;
        }
        _ => {}
    }
    object
}

fn verbs(resource: &Value) -> Vec<&str> {
    resource["verbs"].as_array().unwrap().iter().map(|verb| verb.as_str().unwrap()).collect()
}

async fn exercise(server: &ApiServer, base: &str, group_version: &str, resource: &Value) {
    let (plural, kind) = (resource["name"].as_str().unwrap(), resource["kind"].as_str().unwrap());
    let space = if resource["namespaced"] == true { "namespaces/default/" } else { "" };
    let at = format!("{base}/{space}{plural}");
    let object = minimal(group_version, kind, "x1");
    if verbs(resource) == ["create"] {
        ask(server, "POST", &at, json!({"apiVersion": group_version, "kind": kind, "spec": {}})).await.expect(201);
        return;
    }
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let one = format!("{at}/{name}");
    for verb in verbs(resource) {
        // Each verb finds the object there and leaves it there, or makes it anew.
        let present = ask(server, "GET", &one, Value::Null).await;
        if verb != "create" && present.code == 404 {
            ask(server, "POST", &at, object.clone()).await.expect(201);
        }
        if verb == "create" && present.code == 200 {
            ask(server, "DELETE", &one, Value::Null).await.expect(200);
            crate::support::settle().await;
        }
        match verb {
            "create" => drop(ask(server, "POST", &at, object.clone()).await.expect(201)),
            "get" => assert_eq!(ask(server, "GET", &one, Value::Null).await.expect(200)["kind"], kind),
            "list" => {
                let list = ask(server, "GET", &at, Value::Null).await.expect(200);
                assert!(list["items"].as_array().unwrap().iter().any(|item| item["metadata"]["name"] == *name), "{at}");
                let table = crate::support::ask_form(server, &at, "application/json;as=Table;v=v1;g=meta.k8s.io").await.expect(200);
                let (columns, cells) =
                    (table["columnDefinitions"].as_array().unwrap().len(), table["rows"][0]["cells"].as_array().unwrap().len());
                assert_eq!(columns, cells, "{at}");
            }
            "watch" => {
                let mut watch = Watching::start(server, &format!("{at}?watch=true")).await;
                assert_eq!(watch.next().await.unwrap()["type"], "ADDED", "{at}");
            }
            "patch" => {
                let patched = patch(server, "merge", &one, json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
                assert_eq!(patched["metadata"]["labels"]["a"], "b");
            }
            "update" => {
                let mut present = ask(server, "GET", &one, Value::Null).await.expect(200);
                present["metadata"]["annotations"] = json!({"c": "d"});
                assert_eq!(ask(server, "PUT", &one, present).await.expect(200)["metadata"]["annotations"]["c"], "d");
            }
            "delete" => {
                ask(server, "DELETE", &one, Value::Null).await.expect(200);
                crate::support::settle().await;
                ask(server, "GET", &one, Value::Null).await.expect(404);
            }
            "deletecollection" => {
                ask(server, "DELETE", &format!("{at}?fieldSelector=metadata.name%3D{name}"), Value::Null).await.expect(200);
                crate::support::settle().await;
                ask(server, "GET", &one, Value::Null).await.expect(404);
            }
            other => panic!("{at}: discovery lists {other}, which nothing here exercises"),
        }
    }
}

/// Subresources, by what follows the slash.
async fn exercise_subresource(server: &ApiServer, base: &str, group_version: &str, owner: &Value, subresource: &Value) {
    let (plural, kind) = (owner["name"].as_str().unwrap(), owner["kind"].as_str().unwrap());
    let space = if owner["namespaced"] == true { "namespaces/default/" } else { "" };
    let at = format!("{base}/{space}{plural}");
    let object = minimal(group_version, kind, "x2");
    let one = format!("{at}/{}", object["metadata"]["name"].as_str().unwrap());
    if ask(server, "GET", &one, Value::Null).await.code == 404 {
        ask(server, "POST", &at, object).await.expect(201);
    }
    let name = subresource["name"].as_str().unwrap().split('/').nth(1).unwrap();
    let path = format!("{one}/{name}");
    for verb in verbs(subresource) {
        match (name, verb) {
            ("eviction", "create") => drop(
                ask(server, "POST", &path, json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "x2"}}))
                    .await
                    .expect(201),
            ),
            (_, "get") => drop(ask(server, "GET", &path, Value::Null).await.expect(200)),
            (_, "patch") => drop(patch(server, "merge", &path, json!({})).await.expect(200)),
            (_, "update") => {
                let read = if matches!(name, "finalize" | "approval") { &one } else { &path };
                let present = ask(server, "GET", read, Value::Null).await.expect(200);
                ask(server, "PUT", &path, present).await.expect(200);
            }
            (name, verb) => panic!("{path}: nothing here exercises {verb} on {name}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_resource_answers_every_verb() {
    for builtins in [Builtins::Management, Builtins::Workload] {
        let server = ApiServer::open(Options { builtins, ..options(MemoryJournal::new()) }).await.unwrap();
        let groups = ask(&server, "GET", "/apis", Value::Null).await.expect(200);
        let mut bases = vec![("/api/v1".to_owned(), "v1".to_owned())];
        for group in groups["groups"].as_array().unwrap() {
            for version in group["versions"].as_array().unwrap() {
                let name = version["groupVersion"].as_str().unwrap();
                bases.push((format!("/apis/{name}"), name.to_owned()));
            }
        }
        let mut count = 0;
        for (base, group_version) in bases {
            let list = ask(&server, "GET", &base, Value::Null).await.expect(200);
            let resources = list["resources"].as_array().unwrap();
            for resource in resources {
                let name = resource["name"].as_str().unwrap();
                match name.split_once('/') {
                    None => exercise(&server, &base, &group_version, resource).await,
                    Some((owner, _)) => {
                        let owner = resources.iter().find(|resource| resource["name"] == owner).unwrap();
                        exercise_subresource(&server, &base, &group_version, owner, resource).await;
                    }
                }
                count += 1;
            }
        }
        assert!(count > if builtins == Builtins::Management { 45 } else { 65 }, "{count} resources");
    }
}
