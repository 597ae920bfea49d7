//! Who may call, and for how long.

use simulator::Latency;
use vsphere_wire::method::*;
use vsphere_wire::property::{PropertyFilterSpec, RetrieveOptions, WaitOptions};
use vsphere_wire::service::TaskInfoState;

use super::support::*;

#[tokio::test(start_paused = true)]
async fn nothing_but_the_service_itself_is_open_to_strangers() {
    let world = World::start(Latency::none()).await;
    let stranger = world.stranger();
    let content = stranger.content().await;
    assert_eq!(content.about.api_type, "VirtualCenter");
    let find = FindByInventoryPath { this: singleton("SearchIndex"), inventory_path: "dc1".to_owned() };
    assert_eq!(stranger.call(find).await.unwrap_err().kind(), "NotAuthenticated");
    let session = stranger.properties(&singleton("SessionManager"), &["currentSession"]).await.unwrap();
    assert_eq!((session.properties.len(), session.missing[0].fault.fault.kind()), (0, "NotAuthenticated"));
    let root = stranger.properties(&content.root_folder, &["name"]).await;
    assert_eq!(root.unwrap_err().kind(), "NotAuthenticated");
}

#[tokio::test(start_paused = true)]
async fn a_login_wants_the_password_and_no_session() {
    let world = World::start(Latency::none()).await;
    let stranger = world.stranger();
    let login = |password: &str| Login {
        this: singleton("SessionManager"),
        user_name: USER.to_owned(),
        password: password.to_owned(),
        locale: None,
    };
    assert_eq!(stranger.call(login("wrong")).await.unwrap_err().kind(), "InvalidLogin");
    let key = stranger.login().await.unwrap();
    assert_eq!(stranger.call(login(PASSWORD)).await.unwrap_err().kind(), "InvalidLogin", "on a session that lives");
    let current = stranger.property(&singleton("SessionManager"), "currentSession").await.unwrap();
    assert_eq!(current.content().child_text("key"), Some(key.as_str()));
    stranger.call(Logout { this: singleton("SessionManager") }).await.unwrap();
    assert_eq!(stranger.call(Logout { this: singleton("SessionManager") }).await.unwrap_err().kind(), "NotAuthenticated");
    assert_eq!(world.simulator.vcenter().sessions(), 0);
    assert!(world.log.entries().iter().all(|entry| !entry.to_string().contains(PASSWORD)));
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_ends_with_all_that_belongs_to_it() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let root = client.content().await.root_folder;
    let view = CreateContainerView {
        this: singleton("ViewManager"),
        container: root.clone(),
        kinds: vec!["VirtualMachine".to_owned()],
        is_recursive: true,
    };
    let view = client.call(view).await.unwrap();
    world.clock.sleep(seconds(29 * 60)).await;
    client.properties(&root, &["name"]).await.unwrap();
    world.clock.sleep(seconds(29 * 60)).await;
    client.properties(&view, &["view"]).await.unwrap();
    world.clock.sleep(seconds(31 * 60)).await;
    assert_eq!(client.properties(&root, &["name"]).await.unwrap_err().kind(), "NotAuthenticated");
    client.login().await.unwrap();
    assert_eq!(client.properties(&view, &["view"]).await.unwrap_err().kind(), "ManagedObjectNotFound");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_waits_is_not_idle() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let root = client.content().await.root_folder;
    client.call(CreateFilter { this: collector(), spec: spec(&root, &["name"]), is_partial: false }).await.unwrap();
    let mut version = None;
    for _ in 0..2 {
        let options = Some(WaitOptions { max_wait_seconds: Some(40 * 60), max_object_updates: None });
        let set = client.call(WaitForUpdatesEx { this: collector(), version: version.clone(), options }).await.unwrap();
        version = set.map(|set| set.version).or(version);
    }
    client.properties(&root, &["name"]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_service_ends_sessions_and_wakes_who_waits() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let root = client.content().await.root_folder;
    client.call(CreateFilter { this: collector(), spec: spec(&root, &["name"]), is_partial: false }).await.unwrap();
    let first = client.call(WaitForUpdatesEx { this: collector(), version: None, options: None }).await.unwrap().unwrap();
    let waiter = {
        let client = client.clone();
        tokio::spawn(async move { client.call(WaitForUpdatesEx { this: collector(), version: Some(first.version), options: None }).await })
    };
    world.clock.sleep(seconds(5)).await;
    world.simulator.vcenter().end_sessions();
    assert_eq!(waiter.await.unwrap().unwrap_err().kind(), "NotAuthenticated");
}

#[tokio::test(start_paused = true)]
async fn a_task_is_forgotten_after_a_while() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let first = client.clone_task("talos", "node1", true).await.unwrap();
    assert_eq!(client.task_info(&first).await.state, TaskInfoState::Success);
    world.clock.sleep(seconds(11 * 60)).await;
    client.clone_task("talos", "node2", true).await.unwrap();
    assert_eq!(client.properties(&first, &["info"]).await.unwrap_err().kind(), "ManagedObjectNotFound");
}

#[tokio::test(start_paused = true)]
async fn a_request_out_of_order_or_with_unknown_elements_is_refused() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let body = |inner: &str| {
        format!(
            "<Envelope xmlns=\"http://schemas.xmlsoap.org/soap/envelope/\"><Body>\
             <FindByUuid xmlns=\"urn:vim25\"><_this type=\"SearchIndex\">SearchIndex</_this>{inner}</FindByUuid></Body></Envelope>"
        )
    };
    client.raw(body("<uuid>x</uuid><vmSearch>true</vmSearch>")).await.unwrap();
    for wrong in ["<vmSearch>true</vmSearch><uuid>x</uuid>", "<uuid>x</uuid><vmSearch>true</vmSearch><hint>y</hint>", "<uuid>x</uuid>"] {
        assert_eq!(client.raw(body(wrong)).await.unwrap_err().kind(), "InvalidRequest", "{wrong}");
    }
    assert_eq!(client.raw("<nonsense/>".to_owned()).await.unwrap_err().kind(), "InvalidRequest");
    let unknown = body("").replace("FindByUuid", "FindEverything");
    assert_eq!(client.raw(unknown).await.unwrap_err().kind(), "NotImplemented");
    let mut lenient = config(site(), Latency::none());
    lenient.is_strict = false;
    let world = World::with(lenient).await;
    let client = world.client().await;
    client.raw(body("<vmSearch>true</vmSearch><uuid>x</uuid>")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn large_readings_come_in_pages() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let person = world.simulator.vcenter().person();
    for number in 0..5 {
        person.create_vm("/dc1/vm/team", &format!("vm{number}")).unwrap();
    }
    let folder = client.at("dc1/vm/team").await.unwrap();
    let view = CreateContainerView { this: singleton("ViewManager"), container: folder, kinds: Vec::new(), is_recursive: true };
    let view = client.call(view).await.unwrap();
    let specs: Vec<PropertyFilterSpec> = vec![view_spec(&view, &["name"])];
    let options = RetrieveOptions { max_objects: Some(2) };
    let first = client.call(RetrievePropertiesEx { this: collector(), specs, options }).await.unwrap().unwrap();
    assert_eq!(first.objects.len(), 2);
    let token = first.token.unwrap();
    let rest = client.call(ContinueRetrievePropertiesEx { this: collector(), token: token.clone() }).await.unwrap();
    assert_eq!((rest.objects.len(), rest.token), (3, None));
    let again = client.call(ContinueRetrievePropertiesEx { this: collector(), token }).await;
    assert_eq!(again.unwrap_err().kind(), "InvalidArgument");
}
