//! A store under every order in which a watch and our own answers can come.

use k8s_openapi::api::core::v1::ConfigMap;
use proptest::prelude::*;
use serde_json::json;

use super::fake::Fake;
use crate::reconcile::{ObjectKey, Store};

fn object(name: &str, uid: u64, revision: u64) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("{name}-{uid}"), "resourceVersion": revision.to_string(),
            "labels": {"cluster.x-k8s.io/cluster-name": if revision.is_multiple_of(2) { "even" } else { "odd" }},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": format!("owner-{}", revision % 3)}]},
    }))
    .unwrap()
}

#[derive(Clone, Debug)]
enum Told {
    Put(ConfigMap),
    Delete(ConfigMap),
}

/// A true history of a few objects: (name index, whether it is a deletion).
fn history() -> impl Strategy<Value = Vec<(usize, bool)>> {
    proptest::collection::vec((0..3usize, proptest::bool::weighted(0.3)), 1..30)
}

fn truth(script: &[(usize, bool)]) -> (Vec<Told>, Vec<ConfigMap>) {
    let names = ["a", "b", "c"];
    let mut live: [Option<(u64, u64)>; 3] = [None; 3];
    let mut told = Vec::new();
    let mut revision = 0;
    for &(who, is_deletion) in script {
        revision += 1;
        match (live[who], is_deletion) {
            (Some((uid, _)), true) => {
                live[who] = None;
                told.push(Told::Delete(object(names[who], uid, revision)));
            }
            (None, true) => {}
            (known, false) => {
                let uid = known.map_or(revision, |(uid, _)| uid);
                live[who] = Some((uid, revision));
                told.push(Told::Put(object(names[who], uid, revision)));
            }
        }
    }
    let end = names.iter().zip(live).filter_map(|(name, live)| live.map(|(uid, revision)| object(name, uid, revision))).collect();
    (told, end)
}

fn shown(store: &Store<ConfigMap>) -> Vec<(String, Option<String>)> {
    store.all().iter().map(|o| (ObjectKey::of(&o.metadata).name, o.metadata.resource_version.clone())).collect()
}

fn forget(store: &Store<ConfigMap>, object: &ConfigMap) {
    let meta = &object.metadata;
    store.saw_deletion(&ObjectKey::of(meta), meta.uid.as_deref(), meta.resource_version.as_deref());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The watch tells the history in order; answers to our writes come in at any moment after the write, some of them late.
    /// Revisions never go back, the indices agree with the objects, and at the end all is as on the server.
    #[test]
    fn a_store_ends_as_the_server_is(script in history(), lead in proptest::collection::vec((0..30usize, 0..6usize), 0..10)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _guard = runtime.enter();
        let (told, end) = truth(&script);
        let store: Store<ConfigMap> = Store::new(Fake::default().client(), (), false);
        let mut highest: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
        for (position, event) in told.iter().enumerate() {
            // Answers to writes that lie up to five events ahead of the watch, or any distance behind it.
            for (index, ahead) in &lead {
                let at = index + ahead;
                if at >= told.len() || at > position + 5 || (at + ahead) % 7 != position % 7 {
                    continue;
                }
                match &told[at] {
                    Told::Put(object) => drop(store.wrote(object.clone())),
                    Told::Delete(object) => store.removed(&object.metadata),
                }
            }
            match event {
                Told::Put(object) => store.saw(object.clone()),
                Told::Delete(object) => forget(&store, object),
            }
            for object in store.all() {
                let uid = object.metadata.uid.clone().unwrap();
                let revision: u64 = object.metadata.resource_version.as_ref().unwrap().parse().unwrap();
                let before = highest.insert(uid.clone(), revision).unwrap_or(0);
                prop_assert!(revision >= before, "{uid} went from {before} back to {revision}");
            }
            let by_label = store.of_cluster("default", "even").len() + store.of_cluster("default", "odd").len();
            let by_owner: usize = (0..3).map(|n| store.owned_by(&format!("owner-{n}")).len()).sum();
            prop_assert_eq!((by_label, by_owner), (store.all().len(), store.all().len()));
        }
        let expected: Vec<_> = end.iter().map(|o| (o.metadata.name.clone().unwrap(), o.metadata.resource_version.clone())).collect();
        prop_assert_eq!(shown(&store), expected);
    }
}

#[tokio::test]
async fn a_list_keeps_what_we_wrote_since_and_drops_what_is_gone() {
    let store: Store<ConfigMap> = Store::new(Fake::default().client(), (), false);
    store.relisted(vec![object("a", 1, 1), object("b", 2, 2)], "2");
    store.wrote(object("c", 9, 9));
    store.removed(&object("b", 2, 2).metadata);
    store.relisted(vec![object("a", 1, 4), object("b", 2, 2)], "5");
    assert_eq!(shown(&store), [("a".into(), Some("4".into())), ("c".into(), Some("9".into()))]);
    store.relisted(vec![object("a", 1, 4)], "10");
    assert_eq!(shown(&store), [("a".into(), Some("4".into()))]);
    // A new object of the old name is not the one that is gone.
    store.saw(object("b", 11, 11));
    assert_eq!(store.all().len(), 2);
}

#[tokio::test]
async fn a_late_answer_brings_nothing_back() {
    let store: Store<ConfigMap> = Store::new(Fake::default().client(), (), false);
    store.saw(object("a", 1, 1));
    forget(&store, &object("a", 1, 3));
    store.wrote(object("a", 1, 2));
    assert_eq!(store.all().len(), 0);
}

#[tokio::test]
async fn indices_made_later_hold_what_is_there() {
    let store: Store<ConfigMap> = Store::new(Fake::default().client(), (), false);
    store.saw(object("a", 1, 1));
    store.index("first letter", |o| o.metadata.name.iter().map(|name| name[..1].to_owned()).collect());
    store.saw(object("b", 2, 2));
    assert_eq!(store.indexed("first letter", "a").len(), 1);
    assert_eq!(store.indexed("first letter", "b").len(), 1);
    forget(&store, &object("a", 1, 3));
    assert_eq!(store.indexed("first letter", "a").len(), 0);
    assert_eq!(store.indexed("no such index", "a").len(), 0);
}
