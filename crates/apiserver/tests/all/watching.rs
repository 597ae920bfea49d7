//! Watches: what is told, from which revision, in which form, and how a watch ends.

use serde_json::{Value, json};

use crate::support::{Watching, ask, config_map, patch, server, thing, told};

const THINGS: &str = "/apis/test.example/v1/namespaces/default/things";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(kind, name)| ((*kind).to_owned(), (*name).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_what_happens() {
    let server = server().await;
    ask(&server, "POST", THINGS, thing("a")).await.expect(201);
    let list = ask(&server, "GET", THINGS, Value::Null).await.expect(200);
    let since = list["metadata"]["resourceVersion"].as_str().unwrap();
    ask(&server, "POST", THINGS, thing("b")).await.expect(201);
    let mut watch = Watching::start(&server, &format!("{THINGS}?watch=1&resourceVersion={since}")).await;
    patch(&server, "merge", &format!("{THINGS}/a"), json!({"spec": {"note": "x"}})).await.expect(200);
    let last = ask(&server, "GET", &format!("{THINGS}/b"), Value::Null).await.expect(200);
    ask(&server, "DELETE", &format!("{THINGS}/b"), Value::Null).await.expect(200);
    ask(&server, "POST", MAPS, config_map("other")).await.expect(201);
    let frames = watch.due().await;
    assert_eq!(told(&frames), pairs(&[("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]));
    let deleted = frames[2]["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(deleted > last["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap(), "a deletion has its own revision");
}

#[tokio::test(start_paused = true)]
async fn without_a_revision_everything_is_told_first() {
    let server = server().await;
    for name in ["b", "a"] {
        ask(&server, "POST", THINGS, thing(name)).await.expect(201);
    }
    for path in [format!("{THINGS}?watch=true"), format!("{THINGS}?watch=true&resourceVersion=0")] {
        let mut watch = Watching::start(&server, &path).await;
        assert_eq!(told(&watch.due().await), pairs(&[("ADDED", "a"), ("ADDED", "b")]));
    }
    let path = format!("{THINGS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let mut watch = Watching::start(&server, &path).await;
    let frames = watch.due().await;
    assert_eq!(told(&frames), pairs(&[("ADDED", "a"), ("ADDED", "b"), ("BOOKMARK", "")]));
    assert_eq!(frames[2]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(frames[2]["object"]["kind"], "Thing");
    let wrong = ask(&server, "GET", &format!("{THINGS}?watch=true&sendInitialEvents=true"), Value::Null).await;
    assert_eq!(wrong.code, 422);
}

#[tokio::test(start_paused = true)]
async fn a_selector_sees_objects_come_and_go() {
    let server = server().await;
    let mut watch = Watching::start(&server, &format!("{THINGS}?watch=true&labelSelector=on%3Dyes")).await;
    ask(&server, "POST", THINGS, thing("a")).await.expect(201);
    assert!(watch.due().await.is_empty());
    let label = |value: Value| json!({"metadata": {"labels": {"on": value}}});
    patch(&server, "merge", &format!("{THINGS}/a"), label(json!("yes"))).await.expect(200);
    patch(&server, "merge", &format!("{THINGS}/a"), json!({"spec": {"note": "x"}})).await.expect(200);
    let gone = patch(&server, "merge", &format!("{THINGS}/a"), label(json!("no"))).await.expect(200);
    patch(&server, "merge", &format!("{THINGS}/a"), json!({"spec": {"note": "y"}})).await.expect(200);
    let frames = watch.due().await;
    assert_eq!(told(&frames), pairs(&[("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]));
    assert_eq!(frames[2]["object"]["metadata"]["labels"]["on"], "yes", "as it last was inside");
    assert_eq!(frames[2]["object"]["metadata"]["resourceVersion"], gone["metadata"]["resourceVersion"]);
    let mut one = Watching::start(&server, &format!("{THINGS}?watch=true&fieldSelector=metadata.name%3Db")).await;
    ask(&server, "POST", THINGS, thing("b")).await.expect(201);
    assert_eq!(told(&one.due().await), pairs(&[("ADDED", "b")]));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_known_is_told_as_expired() {
    let server = server().await;
    ask(&server, "POST", MAPS, config_map("m")).await.expect(201);
    let first = ask(&server, "GET", &format!("{MAPS}?limit=1"), Value::Null).await.expect(200);
    ask(&server, "POST", MAPS, config_map("n")).await.expect(201);
    let since = first["metadata"]["resourceVersion"].as_str().unwrap();
    let paged = ask(&server, "GET", &format!("{MAPS}?limit=1"), Value::Null).await.expect(200);
    let token = paged["metadata"]["continue"].as_str().unwrap();
    for index in 0..2100 {
        patch(&server, "merge", &format!("{MAPS}/m"), json!({"data": {"a": index.to_string()}})).await.expect(200);
    }
    for revision in [since, "999999"] {
        let mut watch = Watching::start(&server, &format!("{MAPS}?watch=true&resourceVersion={revision}")).await;
        let frame = watch.next().await.unwrap();
        assert_eq!(
            (frame["type"].as_str(), frame["object"]["code"].as_u64(), frame["object"]["reason"].as_str()),
            (Some("ERROR"), Some(410), Some("Expired"))
        );
        assert!(watch.next().await.is_none());
    }
    let expired = ask(&server, "GET", &format!("{MAPS}?limit=1&continue={token}"), Value::Null).await;
    assert_eq!((expired.code, expired.reason()), (410, "Expired"));
    let fresh = expired.body["metadata"]["continue"].as_str().unwrap();
    let rest = ask(&server, "GET", &format!("{MAPS}?limit=5&continue={fresh}"), Value::Null).await.expect(200);
    assert_eq!(rest["items"][0]["metadata"]["name"], "n");
    assert_eq!(ask(&server, "GET", &format!("{MAPS}?resourceVersion={since}&resourceVersionMatch=Exact"), Value::Null).await.code, 410);
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_in_time_with_a_bookmark() {
    let server = server().await;
    let mut watch = Watching::start(
        &server,
        &format!("{THINGS}?watch=true&resourceVersion={}&timeoutSeconds=90&allowWatchBookmarks=true", server.revision()),
    )
    .await;
    let start = tokio::time::Instant::now();
    ask(&server, "POST", MAPS, config_map("m")).await.expect(201);
    let frame = watch.next().await.unwrap();
    assert_eq!((frame["type"].as_str(), start.elapsed().as_secs()), (Some("BOOKMARK"), 60), "another kind moved the revision on");
    assert_eq!(frame["object"]["metadata"]["resourceVersion"], server.revision().to_string());
    assert!(watch.next().await.is_none(), "nothing new, so no second bookmark");
    assert_eq!(start.elapsed().as_secs(), 90);
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_is_cut_off() {
    let server = server().await;
    let mut watch = Watching::start(&server, &format!("{MAPS}?watch=true&resourceVersion={}", server.revision())).await;
    ask(&server, "POST", MAPS, config_map("m")).await.expect(201);
    for index in 0..1100 {
        patch(&server, "merge", &format!("{MAPS}/m"), json!({"data": {"a": index.to_string()}})).await.expect(200);
    }
    let mut count = 0;
    while watch.next().await.is_some() {
        count += 1;
    }
    assert_eq!(count, 1024, "what was queued is told, then the stream ends");
    // It resumes by revision.
    let since = server.revision() - 80;
    let mut again = Watching::start(&server, &format!("{MAPS}?watch=true&resourceVersion={since}")).await;
    assert_eq!(again.due().await.len(), 80);
}

#[tokio::test(start_paused = true)]
async fn watches_have_forms_and_versions() {
    let server = server().await;
    let mut table =
        Watching::start_as(&server, &format!("{THINGS}?watch=true"), "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await;
    let mut metadata = Watching::start_as(
        &server,
        &format!("{THINGS}?watch=true"),
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json",
    )
    .await;
    let mut beta = Watching::start(&server, "/apis/test.example/v1beta1/things?watch=true").await;
    ask(&server, "POST", THINGS, thing("a")).await.expect(201);
    let frame = table.next().await.unwrap();
    assert_eq!((frame["object"]["kind"].as_str(), frame["object"]["rows"][0]["cells"][0].as_str()), (Some("Table"), Some("a")));
    assert_eq!(metadata.next().await.unwrap()["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(beta.next().await.unwrap()["object"]["apiVersion"], "test.example/v1beta1");
}

#[tokio::test(start_paused = true)]
async fn watches_end_when_the_server_closes() {
    let server = server().await;
    let mut watch = Watching::start(&server, &format!("{THINGS}?watch=true")).await;
    let other = server.clone();
    other.close().await;
    assert!(watch.next().await.is_none());
    assert_eq!(ask(&server, "GET", THINGS, Value::Null).await.code, 503);
}
