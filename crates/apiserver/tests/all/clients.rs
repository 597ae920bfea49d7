//! kube's client, watcher and event recorder against the server, in process: what controllers use.

use apiserver::User;
use futures::{StreamExt as _, TryStreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, ObjectReference, Secret};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind, PartialObjectMeta};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::watcher::{self, Event as Told};
use kube::{Client, Resource as _};
use serde_json::json;

use crate::support::{server, thing};

fn things(client: &Client) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("test.example", "v1", "Thing"), "things");
    Api::default_namespaced_with(client.clone(), &resource)
}

#[tokio::test(start_paused = true)]
async fn objects_are_made_changed_and_deleted() {
    let server = server().await;
    let client = server.client(&User::admin("controllers"));
    let api = things(&client);
    let made = api.create(&PostParams::default(), &serde_json::from_value(thing("a")).unwrap()).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    let status = api.patch_status("a", &PatchParams::default(), &Patch::Merge(json!({"status": {"phase": "Up"}}))).await.unwrap();
    assert_eq!(status.data["status"]["phase"], "Up");
    let patch: json_patch::Patch = serde_json::from_value(json!([{"op": "test", "path": "/spec/size", "value": "large"}])).unwrap();
    let failed = api.patch("a", &PatchParams::default(), &Patch::Json::<()>(patch)).await.unwrap_err();
    assert!(matches!(&failed, kube::Error::Api(status) if status.code == 422), "{failed}");
    let missing = api.get("none").await.unwrap_err();
    assert!(matches!(&missing, kube::Error::Api(status) if status.is_not_found()), "{missing}");
    assert!(api.get_opt("none").await.unwrap().is_none());
    let twice = api.create(&PostParams::default(), &serde_json::from_value(thing("a")).unwrap()).await.unwrap_err();
    assert!(matches!(&twice, kube::Error::Api(status) if status.reason == "AlreadyExists"), "{twice}");
    let scale = api.get_scale("a").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(1));
    let gone = api.delete("a", &DeleteParams::background()).await.unwrap();
    assert!(gone.is_right(), "gone at once");
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn typed_built_in_kinds_go_both_ways() {
    let server = server().await;
    let client = server.client(&User::admin("controllers"));
    let namespaces: Api<Namespace> = Api::all(client.clone());
    assert_eq!(namespaces.list(&ListParams::default()).await.unwrap().items.len(), 4);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    let secret = serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}})).unwrap();
    let made = secrets.create(&PostParams::default(), &secret).await.unwrap();
    assert_eq!(made.data.unwrap()["a"].0, b"b");
    let nodes: Api<Node> = Api::all(client.clone());
    let node =
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let cordoned = nodes.cordon("n").await.unwrap();
    assert_eq!(cordoned.spec.unwrap().unschedulable, Some(true));
    let maps: Api<PartialObjectMeta<ConfigMap>> = Api::default_namespaced(client);
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn watchers_follow_every_change() {
    let server = server().await;
    let client = server.client(&User::admin("controllers"));
    let api = things(&client);
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        api.create(&PostParams::default(), &serde_json::from_value(thing("a")).unwrap()).await.unwrap();
        let stream = watcher::watcher(api.clone(), config);
        pin_mut!(stream);
        let mut seen = Vec::new();
        let mut told = async || match stream.next().await.unwrap().unwrap() {
            Told::Init => "init".to_owned(),
            Told::InitApply(object) => format!("init {}", object.meta().name.clone().unwrap()),
            Told::InitDone => "done".to_owned(),
            Told::Apply(object) => format!("apply {}", object.meta().name.clone().unwrap()),
            Told::Delete(object) => format!("delete {}", object.meta().name.clone().unwrap()),
        };
        for _ in 0..3 {
            seen.push(told().await);
        }
        api.create(&PostParams::default(), &serde_json::from_value(thing("b")).unwrap()).await.unwrap();
        seen.push(told().await);
        api.patch("b", &PatchParams::default(), &Patch::Merge(json!({"spec": {"note": "x"}}))).await.unwrap();
        seen.push(told().await);
        for name in ["a", "b"] {
            api.delete(name, &DeleteParams::default()).await.unwrap();
            seen.push(told().await);
        }
        assert_eq!(seen, ["init", "init a", "done", "apply b", "apply b", "delete a", "delete b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_survives_many_hours() {
    let server = server().await;
    let client = server.client(&User::admin("controllers"));
    let api = things(&client);
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let watching = tokio::spawn({
        let api = api.clone();
        async move {
            let stream = watcher::watcher(api, watcher::Config::default());
            pin_mut!(stream);
            while let Some(event) = stream.try_next().await.unwrap() {
                sender.send(event).unwrap();
            }
        }
    });
    tokio::time::sleep(std::time::Duration::from_secs(100 * 3600)).await;
    api.create(&PostParams::default(), &serde_json::from_value(thing("late")).unwrap()).await.unwrap();
    let mut inits = 0;
    loop {
        match receiver.recv().await.unwrap() {
            Told::Init => inits += 1,
            Told::Apply(object) => {
                assert_eq!(object.meta().name.as_deref(), Some("late"));
                break;
            }
            _ => {}
        }
    }
    assert_eq!(inits, 1, "the watch was resumed by revision, never listed again");
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn recorded_events_are_described() {
    let server = server().await;
    let client = server.client(&User::admin("controllers"));
    let object = ObjectReference {
        kind: Some("Thing".into()),
        name: Some("a".into()),
        namespace: Some("default".into()),
        uid: Some("u".into()),
        api_version: Some("test.example/v1".into()),
        ..ObjectReference::default()
    };
    let recorder = Recorder::new(client.clone(), Reporter { controller: "test".into(), instance: Some("test-0".into()) });
    let event = Event {
        type_: EventType::Normal,
        reason: "Made".into(),
        note: Some("it was made".into()),
        action: "Making".into(),
        secondary: None,
    };
    recorder.publish(&event, &object).await.unwrap();
    recorder.publish(&event, &object).await.unwrap();
    let events: Api<k8s_openapi::api::core::v1::Event> = Api::default_namespaced(client);
    let found = events.list(&ListParams::default().fields("involvedObject.name=a,involvedObject.uid=u")).await.unwrap();
    assert_eq!(found.items.len(), 1, "the second one made it a series");
    assert_eq!(found.items[0].message.as_deref(), Some("it was made"));
    assert_eq!(found.items[0].series.as_ref().and_then(|series| series.count), Some(2));
}
