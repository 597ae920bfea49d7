//! Properties over random histories, against a naive model: what acknowledged writes add up to is what is listed, watched and kept.
//!
//! The model is a map that follows the tap of acknowledged writes, in their order. It knows nothing of the server's indices, rings or
//! chores, so that a mistake in those shows as a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use apiserver::{Acknowledged, ApiServer, MemoryJournal};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{Watching, ask, options, patch, settle};

/// Group and plural name, namespace, name.
type Key = (String, String, String);

#[derive(Clone, Debug)]
enum Step {
    /// Makes an object owned by these (places of living objects, counted around), held by a finalizer or not.
    Create {
        place: usize,
        owners: Vec<(usize, bool)>,
        is_held: bool,
    },
    /// Labels an object, so that it enters or leaves the watched selection.
    Label {
        place: usize,
        is_on: bool,
    },
    Status {
        place: usize,
    },
    /// Replaces the object with a stale revision.
    Stale {
        place: usize,
    },
    Delete {
        place: usize,
        policy: usize,
    },
    Release {
        place: usize,
    },
    Restart,
}

const POLICIES: [&str; 3] = ["Background", "Foreground", "Orphan"];

/// Twelve places where objects may be: things in two namespaces, orbs of the cluster.
fn key(place: usize) -> Key {
    let name = format!("o{}", place % 4);
    match place / 4 {
        0 => ("things".to_owned(), "default".to_owned(), name),
        1 => ("things".to_owned(), "kube-public".to_owned(), name),
        _ => ("orbs".to_owned(), String::new(), name),
    }
}

fn collection(key: &Key) -> String {
    if key.1.is_empty() { "/apis/test.example/v1/orbs".to_owned() } else { format!("/apis/test.example/v1/namespaces/{}/things", key.1) }
}

fn path(key: &Key) -> String {
    format!("{}/{}", collection(key), key.2)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = 0..12_usize;
    let owners = proptest::collection::vec((0..12_usize, any::<bool>()), 0..3);
    let step = prop_oneof![
        6 => (place.clone(), owners, proptest::bool::weighted(0.2)).prop_map(|(place, owners, is_held)| Step::Create { place, owners, is_held }),
        2 => (place.clone(), any::<bool>()).prop_map(|(place, is_on)| Step::Label { place, is_on }),
        1 => place.clone().prop_map(|place| Step::Status { place }),
        1 => place.clone().prop_map(|place| Step::Stale { place }),
        3 => (place.clone(), 0..3_usize).prop_map(|(place, policy)| Step::Delete { place, policy }),
        2 => place.prop_map(|place| Step::Release { place }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What acknowledged writes add up to.
#[derive(Default)]
struct Model {
    revision: u64,
    objects: BTreeMap<Key, Value>,
    /// Deletions that a user asked for, by uid.
    asked: BTreeSet<String>,
    broken: Vec<String>,
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

fn holds(object: &Value, finalizer: &str) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|held| held.iter().any(|one| one == finalizer))
}

fn is_deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

fn owner_uids(object: &Value) -> Vec<String> {
    let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    owners.map(|owner| owner["uid"].as_str().unwrap_or_default().to_owned()).collect()
}

impl Model {
    fn hear(&mut self, heard: &Acknowledged) {
        if heard.revision <= self.revision {
            self.broken.push(format!("revision {} after {}", heard.revision, self.revision));
        }
        self.revision = heard.revision;
        if heard.group != "test.example" {
            return;
        }
        let key = (heard.resource.clone(), heard.namespace.clone(), heard.name.clone());
        let object: Option<Value> = heard.object.as_ref().map(|bytes| serde_json::from_slice(bytes).unwrap());
        let before = self.objects.get(&key).cloned();
        let goes = match (&before, &object) {
            (Some(before), None) => Some(before.clone()),
            (Some(before), Some(after)) if !is_deleting(before) && is_deleting(after) => Some(before.clone()),
            _ => None,
        };
        if let Some(goes) = goes.filter(|goes| !self.asked.contains(&uid(goes)) && !is_deleting(goes)) {
            // Nobody asked for it: garbage collection did it, so no owner may be alive.
            for owner in owner_uids(&goes) {
                let alive = self.objects.values().find(|object| uid(object) == owner);
                if alive.is_some_and(|owner| !(is_deleting(owner) && holds(owner, "foregroundDeletion"))) {
                    self.broken.push(format!("{key:?} was collected although its owner {owner} is alive"));
                }
            }
        }
        match object {
            Some(object) => {
                if object["metadata"]["resourceVersion"].as_str() != Some(heard.revision.to_string().as_str()) {
                    self.broken.push(format!("{key:?} does not carry its revision"));
                }
                self.objects.insert(key, object);
            }
            None => drop(self.objects.remove(&key)),
        }
    }

    /// What the tasks of the server must have done when they rest.
    fn check_rest(&self) -> Result<(), TestCaseError> {
        let alive: BTreeSet<String> = self.objects.values().map(uid).collect();
        for (key, object) in &self.objects {
            let owners = owner_uids(object);
            let is_garbage = !owners.is_empty() && owners.iter().all(|owner| !alive.contains(owner));
            prop_assert!(!is_garbage || is_deleting(object), "{key:?} has no owner left and is not collected: {object}");
            if is_deleting(object) && holds(object, "foregroundDeletion") {
                let waits_for = self.objects.values().filter(|other| {
                    let references = other["metadata"]["ownerReferences"].as_array().into_iter().flatten();
                    references.into_iter().any(|owner| owner["uid"] == object["metadata"]["uid"] && owner["blockOwnerDeletion"] == true)
                });
                let waits_for: Vec<&Value> = waits_for.collect();
                prop_assert!(!waits_for.is_empty(), "{key:?} waits for nothing");
            }
            prop_assert!(!(is_deleting(object) && holds(object, "orphan")), "{key:?} still waits to set its dependents free");
        }
        Ok(())
    }
}

/// A view that is kept up by a watch from a list's revision.
struct Follower {
    watch: Watching,
    view: BTreeMap<Key, Value>,
    kind: &'static str,
    selector: &'static str,
}

impl Follower {
    async fn start(server: &ApiServer, kind: &'static str, selector: &'static str) -> Self {
        let base = format!("/apis/test.example/v1/{kind}?labelSelector={selector}");
        let list = ask(server, "GET", &base, Value::Null).await.expect(200);
        let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
        let watch = Watching::start(server, &format!("{base}&watch=true&resourceVersion={revision}&timeoutSeconds=999999")).await;
        let view = list["items"].as_array().unwrap().iter().map(|object| (own_key(kind, object), object.clone())).collect();
        Self { watch, view, kind, selector }
    }

    async fn follow(&mut self) -> Result<(), TestCaseError> {
        let mut last = 0;
        for frame in self.watch.due().await {
            let object = &frame["object"];
            let key = own_key(self.kind, object);
            let revision: u64 = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().parse().unwrap_or(0);
            prop_assert!(revision > last, "events come in the order of revisions");
            last = revision;
            let known = self.view.contains_key(&key);
            match frame["type"].as_str().unwrap_or_default() {
                "ADDED" => prop_assert!(!known, "{key:?} was added twice"),
                "MODIFIED" => prop_assert!(known, "{key:?} changed before it was added"),
                "DELETED" => {
                    prop_assert!(known, "{key:?} went before it was added");
                    self.view.remove(&key);
                    continue;
                }
                other => prop_assert!(false, "an unexpected {other}: {object}"),
            }
            self.view.insert(key, object.clone());
        }
        Ok(())
    }
}

fn own_key(kind: &str, object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (kind.to_owned(), text("namespace"), text("name"))
}

async fn listen(server: &ApiServer, model: &Arc<Mutex<Model>>) {
    let heard = model.clone();
    server.on_acknowledged(move |acknowledged| heard.lock().unwrap().hear(acknowledged));
}

/// Carries one step out and compares its answer with what the model expects.
async fn take(server: &ApiServer, model: &Arc<Mutex<Model>>, step: &Step) -> Result<(), TestCaseError> {
    let present = |place: usize| model.lock().unwrap().objects.get(&key(place)).cloned();
    match step {
        Step::Create { place, owners, is_held } => {
            let key = key(*place);
            let references: Vec<Value> = owners
                .iter()
                .filter_map(|(place, blocks)| present(*place).map(|owner| (owner, *blocks)))
                .map(|(owner, blocks)| {
                    json!({"apiVersion": "test.example/v1", "kind": owner["kind"], "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "blockOwnerDeletion": blocks})
                })
                .collect();
            let finalizers = if *is_held { json!(["test.example/hold"]) } else { json!([]) };
            let kind = if key.0 == "orbs" { "Orb" } else { "Thing" };
            let object = json!({
                "apiVersion": "test.example/v1", "kind": kind,
                "metadata": {"name": key.2, "finalizers": finalizers, "ownerReferences": references}, "spec": {"size": "small"},
            });
            let expected = if present(*place).is_some() { 409 } else { 201 };
            prop_assert_eq!(ask(server, "POST", &collection(&key), object).await.code, expected);
        }
        Step::Label { place, is_on } => {
            let expected = if present(*place).is_some() { 200 } else { 404 };
            let label = json!({"metadata": {"labels": {"on": is_on.to_string()}}});
            prop_assert_eq!(patch(server, "merge", &path(&key(*place)), label).await.code, expected);
        }
        Step::Status { place } => {
            let key = key(*place);
            let expected = if key.0 == "things" && present(*place).is_some() { 200 } else { 404 };
            let phase = json!({"status": {"phase": format!("{}", server.revision())}});
            prop_assert_eq!(patch(server, "merge", &format!("{}/status", path(&key)), phase).await.code, expected);
        }
        Step::Stale { place } => {
            if let Some(mut object) = present(*place) {
                object["metadata"]["resourceVersion"] = json!("1");
                prop_assert_eq!(ask(server, "PUT", &path(&key(*place)), object).await.code, 409);
            }
        }
        Step::Delete { place, policy } => {
            let expected = match present(*place) {
                Some(object) => {
                    model.lock().unwrap().asked.insert(uid(&object));
                    200
                }
                None => 404,
            };
            let options = json!({"propagationPolicy": POLICIES[*policy]});
            prop_assert_eq!(ask(server, "DELETE", &path(&key(*place)), options).await.code, expected);
        }
        Step::Release { place } => {
            if let Some(object) = present(*place) {
                let kept: Vec<&Value> =
                    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter(|held| *held != "test.example/hold").collect();
                prop_assert_eq!(patch(server, "merge", &path(&key(*place)), json!({"metadata": {"finalizers": kept}})).await.code, 200);
            }
        }
        Step::Restart => {}
    }
    Ok(())
}

async fn listed(server: &ApiServer, kind: &'static str) -> BTreeMap<Key, Value> {
    let list = ask(server, "GET", &format!("/apis/test.example/v1/{kind}"), Value::Null).await.expect(200);
    list["items"].as_array().unwrap().iter().map(|object| (own_key(kind, object), object.clone())).collect()
}

/// Pages of every size hold each object once, at one revision.
async fn check_pages(server: &ApiServer, kind: &'static str, expected: &BTreeMap<Key, Value>) -> Result<(), TestCaseError> {
    for limit in [1, 2, 5] {
        let mut keys = Vec::new();
        let mut token = String::new();
        let mut revisions = BTreeSet::new();
        loop {
            let page =
                ask(server, "GET", &format!("/apis/test.example/v1/{kind}?limit={limit}&continue={token}"), Value::Null).await.expect(200);
            keys.extend(page["items"].as_array().unwrap().iter().map(|object| own_key(kind, object)));
            revisions.insert(page["metadata"]["resourceVersion"].to_string());
            match page["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
                Some(next) => next.clone_into(&mut token),
                None => break,
            }
        }
        prop_assert_eq!(keys, expected.keys().cloned().collect::<Vec<_>>());
        prop_assert_eq!(revisions.len(), 1);
    }
    Ok(())
}

async fn history(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let journal = MemoryJournal::new();
    let mut server = ApiServer::open(options(journal.clone())).await.unwrap();
    let model = Arc::new(Mutex::new(Model { revision: server.revision(), ..Model::default() }));
    listen(&server, &model).await;
    let mut followers = Vec::new();
    for (kind, selector) in [("things", ""), ("orbs", ""), ("things", "on%3Dtrue")] {
        followers.push(Follower::start(&server, kind, selector).await);
    }
    for (number, step) in steps.iter().enumerate() {
        if matches!(step, Step::Restart) {
            for follower in &mut followers {
                follower.follow().await?;
            }
            server.close().await;
            server = ApiServer::open(options(journal.clone())).await.unwrap();
            listen(&server, &model).await;
            for follower in &mut followers {
                let again = Follower::start(&server, follower.kind, follower.selector).await;
                prop_assert_eq!(&again.view, &follower.view, "a restart changes nothing");
                *follower = again;
            }
        }
        take(&server, &model, step).await?;
        // Sometimes the next request comes before the server's own tasks have done their part.
        if number % 3 != 0 {
            settle().await;
        }
    }
    settle().await;
    for follower in &mut followers {
        follower.follow().await?;
    }
    let model = std::mem::take(&mut *model.lock().unwrap());
    prop_assert_eq!(&model.broken, &Vec::<String>::new());
    model.check_rest()?;
    for kind in ["things", "orbs"] {
        let expected: BTreeMap<Key, Value> =
            model.objects.iter().filter(|(key, _)| key.0 == kind).map(|(key, object)| (key.clone(), object.clone())).collect();
        prop_assert_eq!(&listed(&server, kind).await, &expected);
        check_pages(&server, kind, &expected).await?;
    }
    for follower in &followers {
        let expected: BTreeMap<Key, Value> = model
            .objects
            .iter()
            .filter(|(key, object)| {
                key.0 == follower.kind && (follower.selector.is_empty() || object["metadata"]["labels"]["on"] == "true")
            })
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        prop_assert_eq!(&follower.view, &expected, "a watch from a list's revision replays the difference");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn histories_add_up(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(history(steps))?;
    }
}
