//! What survives: restarts on both journals, torn and lost tails, and the planted defect that acknowledges too early.

use std::sync::{Arc, Mutex};

use apiserver::journal::Fault;
use apiserver::{Acknowledged, ApiServer, Journal as _, JournalError, MemoryJournal, OpenError, RedbJournal};
use runtime::defects::{Defect, Defects};
use serde_json::{Value, json};

use crate::support::{Watching, ask, config_map, options, owned_by, patch, settle, thing};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const THINGS: &str = "/apis/test.example/v1/namespaces/default/things";

fn listen(server: &ApiServer) -> Arc<Mutex<Vec<Acknowledged>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let tap = heard.clone();
    server.on_acknowledged(move |acknowledged| tap.lock().unwrap().push(acknowledged.clone()));
    heard
}

#[tokio::test(start_paused = true)]
async fn a_restart_finds_everything_as_it_was() {
    let journal = MemoryJournal::new();
    let server = ApiServer::open(options(journal.clone())).await.unwrap();
    let owner = ask(&server, "POST", THINGS, thing("owner")).await.expect(201);
    let mut child = thing("child");
    child["metadata"]["ownerReferences"] = json!([owned_by(&owner, true)]);
    ask(&server, "POST", THINGS, child).await.expect(201);
    ask(&server, "POST", MAPS, config_map("gone")).await.expect(201);
    ask(&server, "DELETE", &format!("{MAPS}/gone"), Value::Null).await.expect(200);
    let (before, id, revision) = (server.snapshot(), server.cluster_id().to_owned(), server.revision());
    server.close().await;
    let again = ApiServer::open(options(journal)).await.unwrap();
    assert_eq!((again.snapshot(), again.cluster_id(), again.revision()), (before, id.as_str(), revision));
    // Revisions go on, indices work, and watches from before are told to list again.
    let next = ask(&again, "POST", MAPS, config_map("next")).await.expect(201);
    assert_eq!(next["metadata"]["resourceVersion"], (revision + 1).to_string());
    let mut old = Watching::start(&again, &format!("{MAPS}?watch=true&resourceVersion={}", revision - 1)).await;
    assert_eq!(old.next().await.unwrap()["object"]["code"], 410);
    ask(&again, "DELETE", &format!("{THINGS}/owner"), Value::Null).await.expect(200);
    settle().await;
    ask(&again, "GET", &format!("{THINGS}/child"), Value::Null).await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn deletions_that_were_asked_for_are_finished_after_a_restart() {
    let journal = MemoryJournal::new();
    let server = ApiServer::open(options(journal.clone())).await.unwrap();
    ask(&server, "POST", "/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}))
        .await
        .expect(201);
    ask(&server, "POST", "/api/v1/namespaces/demo/configmaps", config_map("m")).await.expect(201);
    // The server's own task has no chance to run before the end.
    ask(&server, "DELETE", "/api/v1/namespaces/demo", Value::Null).await.expect(200);
    let crashed = server.snapshot().len();
    drop(server);
    let again = ApiServer::open(options(journal)).await.unwrap();
    settle().await;
    assert_eq!(again.snapshot().len(), crashed - 2);
    ask(&again, "GET", "/api/v1/namespaces/demo", Value::Null).await.expect(404);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_not_be_durable_is_not_acknowledged() {
    for (fault, survives) in [(Fault::Before, false), (Fault::Torn, false), (Fault::After, true)] {
        let journal = MemoryJournal::new();
        let server = ApiServer::open(options(journal.clone())).await.unwrap();
        let heard = listen(&server);
        ask(&server, "POST", MAPS, config_map("safe")).await.expect(201);
        journal.fail_at(journal.appends() + 1, fault);
        let failed = ask(&server, "POST", MAPS, config_map("doubtful")).await;
        assert_eq!((failed.code, failed.reason()), (503, "ServiceUnavailable"), "{fault:?}");
        ask(&server, "GET", &format!("{MAPS}/doubtful"), Value::Null).await.expect(404);
        assert_eq!(ask(&server, "POST", MAPS, config_map("later")).await.code, 503, "nothing is accepted after that");
        assert_eq!(ask(&server, "GET", "/readyz", Value::Null).await.code, 500);
        assert_eq!(heard.lock().unwrap().len(), 1);
        let again = ApiServer::open(options(journal)).await.unwrap();
        assert_eq!(ask(&again, "GET", &format!("{MAPS}/safe"), Value::Null).await.code, 200);
        assert_eq!(ask(&again, "GET", &format!("{MAPS}/doubtful"), Value::Null).await.code == 200, survives, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_replaced_writes_no_more() {
    let journal = MemoryJournal::new();
    let first = ApiServer::open(options(journal.clone())).await.unwrap();
    let second = ApiServer::open(options(journal)).await.unwrap();
    assert_eq!(ask(&first, "POST", MAPS, config_map("m")).await.code, 503);
    ask(&second, "POST", MAPS, config_map("m")).await.expect(201);
}

/// Rule 8, as the checker of a simulated run sees it: what was acknowledged is there after a crash.
async fn lost_after_crash(defects: Defects) -> usize {
    let journal = MemoryJournal::new();
    let server = ApiServer::open(apiserver::Options { defects, ..options(journal.clone()) }).await.unwrap();
    let heard = listen(&server);
    for name in ["a", "b"] {
        ask(&server, "POST", MAPS, config_map(name)).await.expect(201);
    }
    server.crash();
    assert_eq!(ask(&server, "POST", MAPS, config_map("c")).await.code, 503);
    server.close().await;
    let again = ApiServer::open(options(journal)).await.unwrap();
    let heard = heard.lock().unwrap();
    let stored: Vec<Value> = again.snapshot_of("", "configmaps");
    heard.iter().filter(|acknowledged| !stored.iter().any(|object| object["metadata"]["name"] == acknowledged.name)).count()
}

#[tokio::test(start_paused = true)]
async fn the_planted_defect_loses_an_acknowledged_write() {
    assert_eq!(lost_after_crash(Defects::none()).await, 0);
    assert_eq!(lost_after_crash(Defects::planted([Defect::AcknowledgeEarly])).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_tail_is_noticed_by_watchers() {
    let journal = MemoryJournal::new();
    let server = ApiServer::open(options(journal.clone())).await.unwrap();
    ask(&server, "POST", MAPS, config_map("a")).await.expect(201);
    ask(&server, "POST", MAPS, config_map("b")).await.expect(201);
    let seen = server.revision();
    drop(server);
    journal.lose_tail(1);
    let again = ApiServer::open(options(journal)).await.unwrap();
    ask(&again, "GET", &format!("{MAPS}/a"), Value::Null).await.expect(200);
    ask(&again, "GET", &format!("{MAPS}/b"), Value::Null).await.expect(404);
    let mut watch = Watching::start(&again, &format!("{MAPS}?watch=true&resourceVersion={seen}")).await;
    assert_eq!(watch.next().await.unwrap()["object"]["code"], 410, "a revision that was never kept is not resumed from");
}

#[tokio::test]
async fn a_file_keeps_everything_and_has_one_holder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let server = ApiServer::open(options(RedbJournal::open(&path).unwrap())).await.unwrap();
    let heard = listen(&server);
    // Many at once, so that they are committed in groups.
    let writes: Vec<_> = (0..64)
        .map(|index| {
            let server = server.clone();
            tokio::spawn(async move { ask(&server, "POST", MAPS, config_map(&format!("m{index}"))).await.expect(201) })
        })
        .collect();
    for write in writes {
        write.await.unwrap();
    }
    // Several writers of one object: each change is decided on the one before.
    let counters: Vec<_> = (0..16)
        .map(|index| {
            let server = server.clone();
            tokio::spawn(async move {
                patch(&server, "merge", &format!("{MAPS}/m0"), json!({"data": {format!("k{index}"): "x"}})).await.expect(200)
            })
        })
        .collect();
    for counter in counters {
        counter.await.unwrap();
    }
    let merged = ask(&server, "GET", &format!("{MAPS}/m0"), Value::Null).await.expect(200);
    assert_eq!(merged["data"].as_object().unwrap().len(), 17);
    let revisions: Vec<u64> = heard.lock().unwrap().iter().map(|acknowledged| acknowledged.revision).collect();
    assert_eq!(revisions.len(), 80);
    assert!(revisions.is_sorted());
    assert!(matches!(RedbJournal::open(&path), Err(JournalError::Held { .. })));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "it holds secrets");
    let (before, id) = (server.snapshot(), server.cluster_id().to_owned());
    // Whoever still holds a part of the server does not hold its file.
    let (client, watch) = (server.service(&apiserver::User::admin("x")), Watching::start(&server, &format!("{MAPS}?watch=true")).await);
    server.close().await;
    let again = ApiServer::open(options(RedbJournal::open(&path).unwrap())).await.unwrap();
    drop((client, watch));
    assert_eq!((again.snapshot(), again.cluster_id()), (before, id.as_str()));
    again.close().await;
}

#[tokio::test]
async fn damaged_and_newer_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    {
        let mut journal = RedbJournal::open(&path).unwrap();
        journal.load().unwrap();
        journal.name("id").unwrap();
        let record =
            apiserver::journal::Record { revision: 1, key: "/configmaps/default/x".to_owned(), value: Some("not an object".into()) };
        journal.append(&[record]).unwrap();
    }
    let refused = ApiServer::open(options(RedbJournal::open(&path).unwrap())).await.unwrap_err();
    assert!(matches!(&refused, OpenError::Object { key, .. } if key == "/configmaps/default/x"), "{refused}");
    let newer = folder.path().join("newer.redb");
    {
        let database = redb::Database::create(&newer).unwrap();
        let write = database.begin_write().unwrap();
        write
            .open_table(redb::TableDefinition::<&str, &[u8]>::new("meta"))
            .unwrap()
            .insert("format", 99_u64.to_be_bytes().as_slice())
            .unwrap();
        write.commit().unwrap();
    }
    let refused = RedbJournal::open(&newer).unwrap().load().unwrap_err();
    assert_eq!(refused.to_string(), "the state has format 99, this version reads up to 1; use the newer version that wrote it");
    assert!(matches!(RedbJournal::open(folder.path().join("no/such/folder/state.redb")), Err(JournalError::File { .. })));
}

/// What a process holds in memory, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(start_paused = true)]
async fn a_thousand_servers_fit_in_a_process() {
    let definitions: apiserver::CrdSet = crate::support::definitions().into();
    let before = resident();
    let mut servers = Vec::new();
    for _ in 0..1000 {
        let options =
            apiserver::Options { crds: definitions.clone(), builtins: apiserver::Builtins::Workload, ..options(MemoryJournal::new()) };
        servers.push(ApiServer::open(options).await.unwrap());
    }
    for server in servers.iter().step_by(100) {
        ask(server, "POST", THINGS, thing("a")).await.expect(201);
    }
    let each = resident().saturating_sub(before) / servers.len();
    // Other tests of this process allocate beside it, so the limit is a wide one.
    assert!(each < 150_000, "{each} bytes each");
}
