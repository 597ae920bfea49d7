//! Admission and conversion that are handed in: when they are asked, what they are shown, what becomes of their answers.

use std::sync::{Arc, Mutex};

use apimachinery::admission::{Admission, Conversion, Lookup, Operation, Request};
use apimachinery::{GroupKind, StatusError, meta};
use apiserver::{ApiServer, MemoryJournal, Options};
use serde_json::{Value, json};

use crate::support::{Watching, ask, options, patch, settle, thing};

const THINGS: &str = "/apis/test.example/v1/namespaces/default/things";
const BETA: &str = "/apis/test.example/v1beta1/namespaces/default/things";

/// Notes every request; fills in a note; knows no two large things in a namespace, and none that is called `never`.
#[derive(Debug, Default)]
struct Rules {
    asked: Mutex<Vec<String>>,
}

impl Rules {
    fn write(&self, word: &str, request: &Request<'_>) {
        let (operation, subresource) = (format!("{:?}", request.operation), request.subresource.unwrap_or("-"));
        let namespace = request.namespace.unwrap_or("-");
        let old = request.old.map_or("-", |old| old["spec"]["size"].as_str().unwrap_or("?"));
        self.asked.lock().unwrap().push(format!(
            "{word} {} {operation} {subresource} {namespace}/{} {old} {}",
            request.gvk.version, request.name, request.dry_run
        ));
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Admission for Rules {
    fn mutate(&self, request: &Request<'_>, object: &mut Value, _: &dyn Lookup) -> Result<(), StatusError> {
        if request.gvk.kind != "Thing" {
            return Ok(());
        }
        self.write("mutate", request);
        if object["spec"]["note"].is_null() {
            object["spec"]["note"] = json!("v1:filled in");
        }
        if object["spec"]["size"].is_null() {
            object["spec"]["size"] = json!("small");
        }
        Ok(())
    }

    fn validate(&self, request: &Request<'_>, object: Option<&Value>, lookup: &dyn Lookup) -> Result<Vec<String>, StatusError> {
        if request.gvk.kind != "Thing" {
            return Ok(Vec::new());
        }
        self.write("validate", request);
        let resource = apimachinery::GroupResource::new("test.example", "things");
        if request.operation == Operation::Delete {
            assert!(object.is_none());
            return if request.name == "kept" { Err(StatusError::forbidden(&resource, "kept", "it is kept")) } else { Ok(Vec::new()) };
        }
        let object = object.unwrap();
        assert_eq!(object["apiVersion"], "test.example/v1", "always as it is stored");
        if meta::name(object) == "never" {
            return Err(StatusError::forbidden(&resource, "never", "it may never be"));
        }
        let kind = GroupKind::new("test.example", "Thing");
        let others = lookup.list(&kind, request.namespace);
        let is_large = |object: &Value| object["spec"]["size"] == "large";
        if is_large(object) && others.iter().any(|other| meta::name(other) != request.name && is_large(other)) {
            return Ok(vec!["there is a large one already".to_owned()]);
        }
        Ok(Vec::new())
    }
}

/// In `v1`, notes begin with `v1:`.
#[derive(Debug)]
struct Notes;

impl Conversion for Notes {
    fn convert(&self, mut object: Value, to_version: &str) -> Result<Value, StatusError> {
        let note = object["spec"]["note"].as_str().map(str::to_owned);
        if note.as_deref() == Some("unspeakable") {
            return Err(StatusError::internal("this note cannot be said otherwise"));
        }
        if let Some(note) = note {
            object["spec"]["note"] = match to_version {
                "v1" => json!(format!("v1:{note}")),
                _ => json!(note.strip_prefix("v1:").unwrap_or(&note)),
            };
        }
        object["apiVersion"] = json!(format!("test.example/{to_version}"));
        Ok(object)
    }
}

async fn start() -> (ApiServer, Arc<Rules>) {
    let rules = Arc::new(Rules::default());
    let options = Options { admission: rules.clone(), conversion: Arc::new(Notes), ..options(MemoryJournal::new()) };
    (ApiServer::open(options).await.unwrap(), rules)
}

#[tokio::test(start_paused = true)]
async fn rules_are_asked_once_for_each_write() {
    let (server, rules) = start().await;
    let made = ask(&server, "POST", THINGS, thing("a")).await.expect(201);
    assert_eq!(made["spec"]["note"], "v1:filled in");
    assert_eq!(rules.taken(), ["mutate v1 Create - default/a - false", "validate v1 Create - default/a - false"]);
    patch(&server, "merge", &format!("{THINGS}/a"), json!({"spec": {"size": "large"}})).await.expect(200);
    assert_eq!(rules.taken(), ["mutate v1 Update - default/a small false", "validate v1 Update - default/a small false"]);
    patch(&server, "merge", &format!("{THINGS}/a/status"), json!({"status": {"phase": "Up"}})).await.expect(200);
    assert_eq!(rules.taken(), ["mutate v1 Update status default/a large false", "validate v1 Update status default/a large false"]);
    patch(&server, "merge", &format!("{THINGS}/a"), json!({"spec": {"size": "large"}})).await.expect(200);
    assert!(rules.taken().is_empty(), "nothing changes, nothing is asked");
    ask(&server, "POST", &format!("{THINGS}?dryRun=All"), thing("b")).await.expect(201);
    assert_eq!(rules.taken(), ["mutate v1 Create - default/b - true", "validate v1 Create - default/b - true"]);
    ask(&server, "DELETE", &format!("{THINGS}/a"), Value::Null).await.expect(200);
    assert_eq!(rules.taken(), ["validate v1 Delete - default/a large false"]);
}

#[tokio::test(start_paused = true)]
async fn their_answers_reach_the_client() {
    let (server, rules) = start().await;
    let refused = ask(&server, "POST", THINGS, thing("never")).await;
    assert_eq!((refused.code, refused.message()), (403, "things.test.example \"never\" is forbidden: it may never be"));
    let mut large = thing("one");
    large["spec"]["size"] = json!("large");
    assert!(ask(&server, "POST", THINGS, large.clone()).await.warnings().is_empty());
    large["metadata"]["name"] = json!("two");
    let warned = ask(&server, "POST", THINGS, large).await;
    assert_eq!(warned.warnings(), ["299 - \"there is a large one already\""]);
    warned.expect(201);
    ask(&server, "POST", THINGS, thing("kept")).await.expect(201);
    assert_eq!(ask(&server, "DELETE", &format!("{THINGS}/kept"), Value::Null).await.code, 403);
    ask(&server, "GET", &format!("{THINGS}/kept"), Value::Null).await.expect(200);
    // What is required may be filled in; what has the wrong type is never shown to rules.
    let mut bare = thing("bare");
    bare["spec"] = json!({});
    assert_eq!(ask(&server, "POST", THINGS, bare).await.expect(201)["spec"]["size"], "small");
    rules.taken();
    let mut wrong = thing("wrong");
    wrong["spec"]["size"] = json!(7);
    assert_eq!(ask(&server, "POST", THINGS, wrong).await.code, 422);
    assert!(rules.taken().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_version_is_converted_at_the_border() {
    let (server, _) = start().await;
    let mut object = thing("a");
    object["apiVersion"] = json!("test.example/v1beta1");
    object["spec"]["note"] = json!("hello");
    let mut beta = Watching::start(&server, &format!("{BETA}?watch=true")).await;
    let made = ask(&server, "POST", BETA, object).await.expect(201);
    assert_eq!(made["spec"]["note"], "hello");
    assert_eq!(ask(&server, "GET", &format!("{THINGS}/a"), Value::Null).await.expect(200)["spec"]["note"], "v1:hello");
    let patched = patch(
        &server,
        "json",
        &format!("{BETA}/a"),
        json!([{"op": "test", "path": "/spec/note", "value": "hello"}, {"op": "replace", "path": "/spec/note", "value": "bye"}]),
    )
    .await
    .expect(200);
    assert_eq!((patched["spec"]["note"].as_str(), patched["apiVersion"].as_str()), (Some("bye"), Some("test.example/v1beta1")));
    assert_eq!(ask(&server, "GET", BETA, Value::Null).await.expect(200)["items"][0]["spec"]["note"], "bye");
    let notes: Vec<String> = beta.due().await.iter().map(|frame| frame["object"]["spec"]["note"].as_str().unwrap().to_owned()).collect();
    assert_eq!(notes, ["hello", "bye"]);
    let before = server.revision();
    patch(&server, "merge", &format!("{BETA}/a"), json!({"spec": {"note": "bye"}})).await.expect(200);
    assert_eq!(server.revision(), before);
    let scaled = patch(&server, "merge", &format!("{BETA}/a/scale"), json!({"spec": {"replicas": 4}})).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 4);
    patch(&server, "merge", &format!("{BETA}/a/status"), json!({"status": {"phase": "Up"}})).await.expect(200);
    let stored = ask(&server, "GET", &format!("{THINGS}/a"), Value::Null).await.expect(200);
    assert_eq!(
        (stored["spec"]["replicas"].as_i64(), stored["status"]["phase"].as_str(), stored["spec"]["note"].as_str()),
        (Some(4), Some("Up"), Some("v1:bye"))
    );
    // A value of the wrong type is named before it is converted, by the user's own path.
    let mut wrong = thing("wrong");
    wrong["apiVersion"] = json!("test.example/v1beta1");
    wrong["spec"]["note"] = json!(7);
    let refused = ask(&server, "POST", BETA, wrong).await;
    assert!(refused.message().contains("spec.note in body must be of type string"), "{}", refused.body);
    let mut unspeakable = thing("u");
    unspeakable["apiVersion"] = json!("test.example/v1beta1");
    unspeakable["spec"]["note"] = json!("unspeakable");
    assert_eq!(ask(&server, "POST", BETA, unspeakable).await.code, 500);
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn collection_waits_for_rules_that_refuse() {
    let (server, _) = start().await;
    let owner = ask(&server, "POST", THINGS, thing("owner")).await.expect(201);
    let mut kept = thing("kept");
    kept["metadata"]["ownerReferences"] = json!([crate::support::owned_by(&owner, true)]);
    ask(&server, "POST", THINGS, kept).await.expect(201);
    ask(&server, "DELETE", &format!("{THINGS}/owner"), Value::Null).await.expect(200);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    ask(&server, "GET", &format!("{THINGS}/kept"), Value::Null).await.expect(200);
}
