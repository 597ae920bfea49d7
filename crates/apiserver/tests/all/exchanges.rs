//! Replays what kubectl 1.32 asked a genuine kube-apiserver, in order, against this server.
//!
//! Status, reason, message and content of every answer agree with the recording but for what is different by nature: UIDs, revisions,
//! times, ages, the descriptions of columns, and `managedFields`, which only server-side apply needs. What the recorded client took from
//! an answer (a revision, a UID) is replaced by what our answer had in its place. Streams of watches stay open to the end, as in the
//! recording, and are compared whole.
//!
//! Every recorded exchange is replayed or listed with a reason; the list names nothing that is not there.

#[path = "../../../apimachinery/tests/all/exchange.rs"]
mod exchange;

use std::collections::BTreeMap;

use apimachinery::{meta, patch, protobuf};
use apiserver::{ApiServer, Body, MemoryJournal, Options, User};
use bytes::Bytes;
use exchange::Exchange;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use runtime::clock::Clock;
use runtime::random::Random;
use serde_json::{Value, json};
use tower::Service as _;

/// How an exchange that is not replayed as it is, is dealt with; by the beginning of its name.
enum Instead {
    /// Not sent.
    Nothing,
    /// The recorded outcome is brought about by a merge patch, since later exchanges build on it.
    Outcome,
    /// Sent, and compared by a function of its own.
    Own(fn(&Exchange, &Value)),
}

const LISTED: &[(&str, Instead, &str)] = &[
    ("01-discovery/02-GET-api", Instead::Own(discovery), "fewer built-in kinds are served; those that are agree entry by entry"),
    ("01-discovery/03-GET-apis", Instead::Own(discovery), "fewer built-in groups are served; those that are agree entry by entry"),
    ("06-apply-new/02-GET-openapi", Instead::Own(openapi_index), "fewer groups; each has its document, at an address with a hash of ours"),
    ("06-apply-new/05-GET-openapi", Instead::Own(openapi_document), "descriptions are ours; operations and parameters agree"),
    ("06-apply-new/06-GET-openapi", Instead::Own(openapi_document), "descriptions are ours; operations and parameters agree"),
    ("07-apply-again/02-GET-openapi", Instead::Own(openapi_index), "as above"),
    ("08-apply-server-side/02-GET-openapi", Instead::Own(openapi_index), "as above"),
    ("08-apply-server-side/", Instead::Outcome, "server-side apply comes later"),
    ("09-apply-conflict/02-GET-openapi", Instead::Own(openapi_index), "as above"),
    ("09-apply-conflict/03-PATCH", Instead::Nothing, "server-side apply comes later"),
    ("14-get-category/02-GET-api", Instead::Nothing, "answered 304 to a header that the recording left out"),
    ("14-get-category/03-GET-apis", Instead::Nothing, "answered 304 to a header that the recording left out"),
    ("14-get-category/16-GET", Instead::Nothing, "KubeadmControlPlane is no kind of this product"),
    ("14-get-category/19-GET", Instead::Own(columns), "a newer definition finds the endpoint, which the recorded one looked for in vain"),
    ("25-explain/02-GET-openapi", Instead::Own(openapi_index), "as above"),
    ("26-diff/03-GET-openapi-v3", Instead::Nothing, "answered 304 to a header that the recording left out"),
    ("26-diff/04-GET-openapi-v2", Instead::Nothing, "OpenAPI version 2 is not served; kubectl does without"),
    ("27-dry-run-server/02-GET-openapi", Instead::Nothing, "answered 304 to a header that the recording left out"),
    ("27-dry-run-server/03-GET-openapi", Instead::Own(openapi_document), "descriptions are ours; operations and parameters agree"),
    ("27-dry-run-server/06-POST", Instead::Nothing, "pools need a conversion, which is the kinds' own and not given to this server"),
    ("27-dry-run-server/09-POST", Instead::Nothing, "pools need a conversion, which is the kinds' own and not given to this server"),
    ("28-unknown-field/02-GET-openapi", Instead::Own(openapi_index), "as above"),
    ("31-already-exists/02-GET-openapi", Instead::Nothing, "answered 304 to a header that the recording left out"),
    ("32-replace-stale/02-GET-openapi", Instead::Own(openapi_index), "as above"),
    ("34-auth-can-i/02-GET", Instead::Own(resource_list), "the order of kinds is ours"),
    ("36-create-token/02-POST", Instead::Nothing, "tokens of service accounts are not issued: clients have certificates"),
    ("38-chunked/", Instead::Own(chunk), "other definitions are installed"),
    (
        "45-delete-namespace/05-GET",
        Instead::Own(last_frame),
        "the conditions that say how far the emptying is are not kept; the end is the same",
    ),
    ("46-raw/02-GET-livez", Instead::Nothing, "other parts make up this server, so others report"),
    ("46-raw/03-GET-readyz", Instead::Nothing, "other parts make up this server, so others report"),
    ("46-raw/04-GET-openapi", Instead::Own(openapi_index), "as above"),
    ("46-raw/05-GET", Instead::Nothing, "the recorded server has streaming lists turned off; this one serves them"),
    ("46-raw/06-GET", Instead::Nothing, "this server is younger and still has the revision asked for"),
];

/// Before these the server's own tasks come to rest, as they had when the recording was made.
const RESTED: &[&str] = &["43-delete-foreground/04-GET"];

fn listed(file: &str) -> Option<&'static Instead> {
    if file.contains("GET-version") {
        return Some(&Instead::Own(version));
    }
    LISTED.iter().find(|(prefix, ..)| file.starts_with(prefix)).map(|(_, instead, _)| instead)
}

/// The reference definitions, cut to the versions that the recorded server had.
fn definitions(exchanges: &[Exchange]) -> Option<Vec<Value>> {
    let discovery = exchanges.iter().find(|e| e.file.starts_with("01-discovery/03-GET-apis")).unwrap().answer_json().unwrap();
    let mut definitions = exchange::definitions()?;
    for definition in &mut definitions {
        let (group, plural) = (definition["spec"]["group"].clone(), definition["spec"]["names"]["plural"].clone());
        let items = discovery["items"].as_array().unwrap().iter().filter(|item| item["metadata"]["name"] == group);
        let versions = items.flat_map(|item| item["versions"].as_array().unwrap());
        let served = versions.filter(|v| v["resources"].as_array().unwrap().iter().any(|r| r["resource"] == plural));
        let names: Vec<Value> = served.map(|v| v["version"].clone()).collect();
        if let Some(list) = definition["spec"]["versions"].as_array_mut() {
            list.retain(|version| names.contains(&version["name"]));
            for version in list {
                version["storage"] = json!(version["name"] == names[0]);
            }
        }
    }
    definitions.retain(|definition| definition["spec"]["versions"].as_array().is_some_and(|list| !list.is_empty()));
    Some(definitions)
}

async fn open(definitions: Vec<Value>) -> ApiServer {
    let clock = Clock::starting_at("2026-11-23T10:12:00Z".parse().unwrap());
    let options = Options::new(clock, Random::seeded(1), Box::new(MemoryJournal::new()));
    ApiServer::open(Options { crds: definitions.into(), ..options }).await.unwrap()
}

async fn settle() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

/// What the recorded client took from answers, and what stands in its place here.
#[derive(Default)]
struct Taken(BTreeMap<String, String>);

impl Taken {
    fn learn(&mut self, recorded: &Value, ours: &Value) {
        match (recorded, ours) {
            (Value::Object(recorded), Value::Object(ours)) => {
                for (key, value) in recorded {
                    let Some(other) = ours.get(key) else { continue };
                    match (key.as_str(), value, other) {
                        ("uid" | "resourceVersion" | "continue", Value::String(theirs), Value::String(mine)) if !theirs.is_empty() => {
                            self.0.insert(theirs.clone(), mine.clone());
                        }
                        _ => self.learn(value, other),
                    }
                }
            }
            (Value::Array(recorded), Value::Array(ours)) => {
                recorded.iter().zip(ours).for_each(|(recorded, ours)| self.learn(recorded, ours));
            }
            _ => {}
        }
    }

    fn target(&self, target: &str) -> String {
        let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
        // A hash of an OpenAPI document is another server's.
        let parts = query.split('&').filter(|part| !part.starts_with("hash=")).map(|part| match part.split_once('=') {
            Some((key @ ("resourceVersion" | "continue"), value)) => format!("{key}={}", self.0.get(value).map_or(value, String::as_str)),
            Some(("fieldSelector", value)) => {
                let mut value = value.to_owned();
                for (theirs, mine) in self.0.iter().filter(|(theirs, _)| theirs.len() == 36) {
                    value = value.replace(theirs, mine);
                }
                format!("fieldSelector={value}")
            }
            _ => part.to_owned(),
        });
        format!("{path}?{}", parts.collect::<Vec<_>>().join("&"))
    }

    fn body(&self, body: &[u8]) -> Vec<u8> {
        let Ok(mut value) = serde_json::from_slice::<Value>(body) else { return body.to_vec() };
        let theirs = meta::resource_version(&value).map(str::to_owned);
        if let Some(mine) = theirs.and_then(|theirs| self.0.get(&theirs)) {
            meta::set(&mut value, "resourceVersion", mine.as_str());
            return value.to_string().into_bytes();
        }
        body.to_vec()
    }
}

async fn send(server: &ApiServer, method: &str, target: &str, accept: &str, content_type: &str, body: Vec<u8>) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in [("accept", accept), ("content-type", content_type)] {
        if !value.is_empty() {
            request = request.header(name, value);
        }
    }
    let user = User::admin("admin");
    server.service(&user).call(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap()
}

fn is_time(text: &str) -> bool {
    text.len() >= 20 && text.as_bytes()[10] == b'T' && text.parse::<jiff::Timestamp>().is_ok()
}

fn is_age(text: &str) -> bool {
    text.len() < 8
        && text.ends_with(['s', 'm', 'h'])
        && text[..text.len() - 1].bytes().all(|b| b.is_ascii_digit() || b == b'm' || b == b'h')
}

/// Takes out what differs by nature.
fn normal(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.shift_remove("managedFields");
            // The genuine server leaves an empty token in some lists, and the kind out of the items of some.
            if map.get("continue") == Some(&json!("")) {
                map.shift_remove("continue");
            }
            if map.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List")) {
                for item in map.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
                    item.shift_remove("kind");
                    item.shift_remove("apiVersion");
                }
            }
            for (key, below) in map.iter_mut() {
                let known = below.as_str().is_some_and(|text| !text.is_empty());
                match key.as_str() {
                    "uid" if known => *below = json!("UID"),
                    "resourceVersion" if known => *below = json!("REVISION"),
                    "continue" if known => *below = json!("TOKEN"),
                    "cells" => {
                        for cell in below.as_array_mut().into_iter().flatten() {
                            if cell.as_str().is_some_and(is_age) {
                                *cell = json!("AGE");
                            }
                            normal(cell);
                        }
                    }
                    "columnDefinitions" => {
                        for column in below.as_array_mut().into_iter().flatten() {
                            column["description"] = json!("");
                        }
                    }
                    "message" => {
                        if let Some((text, _)) = below.as_str().and_then(|text| text.split_once(", current: ")) {
                            *below = json!(format!("{text}, current: N"));
                        }
                    }
                    _ => normal(below),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(normal),
        Value::String(text) if is_time(text) => *value = json!("TIME"),
        _ => {}
    }
}

/// The recorded answer as JSON; `None` when it is a text, or a list in protobuf.
fn recorded(exchange: &Exchange) -> Option<Value> {
    if protobuf::is_frame(&exchange.answer) { protobuf::decode(&exchange.answer).ok() } else { exchange.answer_json() }
}

fn frames(bytes: &[u8]) -> Vec<Value> {
    bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// Differences, one a line: the path, theirs, ours.
fn differences(theirs: &Value, ours: &Value, path: &str, out: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let (a, b) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                differences(a, b, &format!("{path}.{key}"), out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| differences(a, b, &format!("{path}[{i}]"), out));
        }
        (a, b) if a == b => {}
        (a, b) => out.push(format!("{path}: recorded {a}, ours {b}")),
    }
}

struct Replay {
    server: ApiServer,
    taken: Taken,
    /// Streams that stay open, with the exchange they belong to and what has come so far.
    watches: Vec<(Exchange, Response<Body>)>,
    failures: Vec<String>,
}

impl Replay {
    fn fail(&mut self, exchange: &Exchange, what: String) {
        self.failures.push(format!("{} {} {}\n    {what}", exchange.file, exchange.method, exchange.target));
    }

    fn compare(&mut self, exchange: &Exchange, mut theirs: Value, mut ours: Value) {
        self.taken.learn(&theirs, &ours);
        normal(&mut theirs);
        normal(&mut ours);
        let mut found = Vec::new();
        differences(&theirs, &ours, "", &mut found);
        if !found.is_empty() {
            self.fail(exchange, found.join("\n    "));
        }
    }

    async fn ask(&self, exchange: &Exchange) -> (u16, Bytes) {
        let (target, body) = (self.taken.target(&exchange.target), self.taken.body(&exchange.request));
        let response = send(&self.server, &exchange.method, &target, &exchange.accept, &exchange.content_type, body).await;
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    }

    /// Brings about what the recorded answer shows.
    async fn bring_about(&mut self, exchange: &Exchange) {
        let path = exchange.target.split('?').next().unwrap();
        let theirs = recorded(exchange).unwrap();
        let response = send(&self.server, "GET", path, "application/json", "", Vec::new()).await;
        assert_eq!(response.status(), 200, "{}", exchange.file);
        let ours: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        let wanted = |object: &Value| json!({"metadata": {"annotations": object["metadata"]["annotations"]}, "spec": object["spec"]});
        let change = patch::merge_diff(&wanted(&ours), &wanted(&theirs));
        let body = change.to_string().into_bytes();
        let response = send(&self.server, "PATCH", path, "application/json", "application/merge-patch+json", body).await;
        assert_eq!(response.status(), 200, "{}", exchange.file);
        let ours: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        self.compare(exchange, theirs, ours);
    }

    async fn replay(&mut self, exchange: Exchange) {
        if exchange.target.contains("watch=true") && !matches!(listed(&exchange.file), Some(Instead::Nothing)) {
            let target = self.taken.target(&exchange.target);
            let response = send(&self.server, &exchange.method, &target, &exchange.accept, "", Vec::new()).await;
            assert_eq!(response.status().as_u16(), exchange.status, "{}", exchange.file);
            self.watches.push((exchange, response));
            return;
        }
        match listed(&exchange.file) {
            Some(Instead::Nothing) => {}
            Some(Instead::Outcome) => self.bring_about(&exchange).await,
            instead => {
                let (status, bytes) = self.ask(&exchange).await;
                if status != exchange.status {
                    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
                    return self.fail(&exchange, format!("recorded {}, ours {status}: {text}", exchange.status));
                }
                let ours = serde_json::from_slice::<Value>(&bytes).ok();
                match (recorded(&exchange), ours, instead) {
                    (Some(theirs), Some(ours), Some(Instead::Own(compare))) => {
                        self.taken.learn(&theirs, &ours);
                        compare(&exchange, &ours);
                    }
                    (Some(theirs), Some(ours), _) => self.compare(&exchange, theirs, ours),
                    // A list in protobuf: those that kubectl asked for so are empty.
                    (None, Some(ours), _) => assert_eq!(ours["items"], json!([]), "{}", exchange.file),
                    (None, None, _) => assert_eq!(bytes, exchange.answer, "{}", exchange.file),
                    (Some(_), None, _) => self.fail(&exchange, "our answer is no JSON".to_owned()),
                }
            }
        }
    }

    async fn compare_watches(&mut self) {
        for (exchange, mut response) in std::mem::take(&mut self.watches) {
            let mut bytes = Vec::new();
            loop {
                tokio::select! {
                    biased;
                    frame = response.frame() => match frame {
                        Some(frame) => bytes.extend_from_slice(&frame.unwrap().into_data().unwrap()),
                        None => break,
                    },
                    () = settle() => break,
                }
            }
            let ours: Vec<Value> = frames(&bytes).into_iter().filter(|frame| frame["type"] != "BOOKMARK").collect();
            let theirs: Vec<Value> = frames(&exchange.answer).into_iter().filter(|frame| frame["type"] != "BOOKMARK").collect();
            match listed(&exchange.file) {
                Some(Instead::Own(compare)) => compare(&exchange, &json!(ours)),
                _ => self.compare(&exchange, json!(theirs), json!(ours)),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn recorded_exchanges_are_answered_alike() {
    let Some(exchanges) = exchange::all() else { return };
    let Some(definitions) = definitions(&exchanges) else { return };
    let server = open(definitions).await;
    let mut replay = Replay { server, taken: Taken::default(), watches: Vec::new(), failures: Vec::new() };
    let mut folder = String::new();
    for exchange in exchanges {
        let this = exchange.file.split('/').next().unwrap().to_owned();
        if this != folder {
            settle().await;
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
            folder = this;
        }
        if RESTED.iter().any(|prefix| exchange.file.starts_with(prefix)) {
            settle().await;
        }
        replay.replay(exchange).await;
    }
    settle().await;
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    replay.compare_watches().await;
    assert!(replay.failures.is_empty(), "{} differ:\n{}", replay.failures.len(), replay.failures.join("\n"));
}

#[test]
fn the_list_names_what_is_there() {
    let Some(exchanges) = exchange::all() else { return };
    for (prefix, ..) in LISTED {
        assert!(exchanges.iter().any(|e| e.file.starts_with(prefix)), "{prefix} is listed and not recorded");
    }
    let nothing = exchanges.iter().filter(|e| matches!(listed(&e.file), Some(Instead::Nothing))).count();
    assert!(nothing * 10 < exchanges.len(), "{nothing} of {} are not sent", exchanges.len());
}

fn version(exchange: &Exchange, ours: &Value) {
    let theirs = exchange.answer_json().unwrap();
    for field in ["major", "minor", "gitVersion", "platform"] {
        assert_eq!(ours[field], theirs[field], "{}: {field}", exchange.file);
    }
}

/// The columns and the number of rows.
fn columns(exchange: &Exchange, ours: &Value) {
    let (mut theirs, mut ours) = (exchange.answer_json().unwrap(), ours.clone());
    normal(&mut theirs);
    normal(&mut ours);
    assert_eq!(ours["columnDefinitions"], theirs["columnDefinitions"], "{}", exchange.file);
    assert_eq!(ours["rows"].as_array().map(Vec::len), theirs["rows"].as_array().map(Vec::len), "{}", exchange.file);
}

/// The end of a watch.
fn last_frame(exchange: &Exchange, ours: &Value) {
    let theirs = frames(&exchange.answer);
    let (theirs, ours) = (theirs.last().unwrap(), ours.as_array().and_then(|list| list.last()).unwrap());
    assert_eq!(ours["type"], theirs["type"], "{}", exchange.file);
    assert_eq!(ours["object"]["metadata"]["name"], theirs["object"]["metadata"]["name"], "{}", exchange.file);
}

/// A page of definitions: as many rows, and a token for the next page unless it is the last.
fn chunk(exchange: &Exchange, ours: &Value) {
    let theirs = exchange.answer_json().unwrap();
    let is_last = theirs["metadata"].get("continue").is_none();
    let rows = |table: &Value| table["rows"].as_array().unwrap().len();
    assert!(is_last || rows(ours) == rows(&theirs), "{}: {} rows", exchange.file, rows(ours));
    for field in ["continue", "remainingItemCount"] {
        assert_eq!(ours["metadata"].get(field).is_some(), !is_last, "{}: {field}", exchange.file);
    }
    for table in [ours, &theirs] {
        assert_eq!(table["rows"][0]["cells"].as_array().unwrap().len(), table["columnDefinitions"].as_array().unwrap().len());
        assert!(table["rows"][0]["cells"][1].as_str().is_some_and(is_time), "{}", exchange.file);
    }
}

/// Every kind that both serve is described alike.
fn discovery(exchange: &Exchange, ours: &Value) {
    let mut theirs = BTreeMap::new();
    let entries = |document: &Value, out: &mut BTreeMap<String, Value>| {
        for item in document["items"].as_array().unwrap() {
            for version in item["versions"].as_array().unwrap() {
                for resource in version["resources"].as_array().unwrap() {
                    let mut resource = resource.clone();
                    for name in ["verbs", "shortNames", "categories"] {
                        if let Some(Value::Array(list)) = resource.get_mut(name) {
                            list.sort_by_key(ToString::to_string);
                        }
                    }
                    let at = format!("{}/{}/{}", item["metadata"]["name"], version["version"], resource["resource"]);
                    out.insert(at, resource);
                }
            }
        }
    };
    entries(&exchange.answer_json().unwrap(), &mut theirs);
    let mut mine = BTreeMap::new();
    entries(ours, &mut mine);
    let mut found = Vec::new();
    let mut common = 0;
    for (at, resource) in &mine {
        if let Some(recorded) = theirs.get(at) {
            common += 1;
            let of = |resource: &Value| {
                let mut resource = resource.clone();
                let subresources = resource.as_object_mut().unwrap().shift_remove("subresources");
                let names = subresources.iter().flat_map(|list| list.as_array().unwrap());
                let known: BTreeMap<String, Value> = names.map(|s| (s["subresource"].to_string(), s["responseKind"].clone())).collect();
                (resource, known)
            };
            let ((theirs, their_parts), (mine, my_parts)) = (of(recorded), of(resource));
            differences(&theirs, &mine, at, &mut found);
            for (name, kind) in my_parts {
                differences(their_parts.get(&name).unwrap_or(&Value::Null), &kind, &format!("{at}/{name}"), &mut found);
            }
        }
    }
    assert!(found.is_empty(), "{}:\n{}", exchange.file, found.join("\n"));
    assert!(common >= 11, "{}: only {common} in common", exchange.file);
}

fn resource_list(exchange: &Exchange, ours: &Value) {
    let sorted = |document: &Value| {
        let mut list = document["resources"].as_array().unwrap().clone();
        for resource in &mut list {
            let map = resource.as_object_mut().unwrap();
            map.shift_remove("storageVersionHash");
            map["verbs"].as_array_mut().unwrap().sort_by_key(ToString::to_string);
        }
        list.sort_by_key(|resource| resource["name"].to_string());
        Value::Array(list)
    };
    let theirs = exchange.answer_json().unwrap();
    let mut found = Vec::new();
    differences(&sorted(&theirs), &sorted(ours), "", &mut found);
    assert!(found.is_empty() && ours["groupVersion"] == theirs["groupVersion"], "{}:\n{}", exchange.file, found.join("\n"));
}

fn openapi_index(exchange: &Exchange, ours: &Value) {
    let theirs = exchange.answer_json().unwrap();
    let mut common = 0;
    for (path, entry) in ours["paths"].as_object().unwrap() {
        if let Some(recorded) = theirs["paths"].get(path) {
            let address = |entry: &Value| entry["serverRelativeURL"].as_str().unwrap().split_once("?hash=").unwrap().0.to_owned();
            assert_eq!(address(entry), address(recorded));
            common += 1;
        }
    }
    assert!(common > 15, "{}: only {common} in common", exchange.file);
}

/// Every recorded operation is there with its identity, action and parameters, and every schema of a kind.
fn openapi_document(exchange: &Exchange, ours: &Value) {
    let theirs = exchange.answer_json().unwrap();
    let names = |list: &Value| {
        let mut names: Vec<String> = list.as_array().into_iter().flatten().map(|p| p["name"].as_str().unwrap().to_owned()).collect();
        // For the store of a genuine server, when it cannot read an object.
        names.retain(|name| name != "ignoreStoreReadErrorWithClusterBreakingPotential");
        names.sort();
        names
    };
    for (path, methods) in theirs["paths"].as_object().unwrap() {
        if path.contains("prefixpools") {
            continue;
        }
        for (method, recorded) in methods.as_object().unwrap() {
            let mine = &ours["paths"][path][method];
            if method == "parameters" {
                assert_eq!(names(mine), names(recorded), "{path}");
                continue;
            }
            for field in ["operationId", "tags", "x-kubernetes-action", "x-kubernetes-group-version-kind"] {
                assert_eq!(mine[field], recorded[field], "{}: {method} {path} {field}", exchange.file);
            }
            assert_eq!(names(&mine["parameters"]), names(&recorded["parameters"]), "{}: {method} {path}", exchange.file);
            assert_eq!(
                mine["responses"].as_object().unwrap().contains_key("200"),
                recorded["responses"].as_object().unwrap().contains_key("200")
            );
        }
    }
    for (name, schema) in theirs["components"]["schemas"].as_object().unwrap() {
        let mine = &ours["components"]["schemas"][name];
        if name.starts_with("io.x-k8s") {
            let properties =
                |schema: &Value| schema["properties"].as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
            assert_eq!(mine["x-kubernetes-group-version-kind"], schema["x-kubernetes-group-version-kind"], "{name}");
            assert_eq!(properties(mine), properties(schema), "{name}");
        }
    }
}
