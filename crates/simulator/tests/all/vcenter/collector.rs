//! Property collectors: what is selected, what is told, when a wait ends.

use simulator::Latency;
use vsphere_wire::method::*;
use vsphere_wire::property::*;
use vsphere_wire::{AnyValue, ManagedObjectReference as Reference};

use super::support::*;

async fn wait(client: &Client, version: Option<String>, seconds: i32) -> Option<UpdateSet> {
    let options = Some(WaitOptions { max_wait_seconds: Some(seconds), max_object_updates: None });
    client.call(WaitForUpdatesEx { this: collector(), version, options }).await.unwrap()
}

async fn watch_team(client: &Client, paths: &[&str]) -> Reference {
    let folder = client.at("dc1/vm/team").await.unwrap();
    let view = CreateContainerView {
        this: singleton("ViewManager"),
        container: folder,
        kinds: vec!["VirtualMachine".to_owned()],
        is_recursive: true,
    };
    let view = client.call(view).await.unwrap();
    client.call(CreateFilter { this: collector(), spec: view_spec(&view, paths), is_partial: false }).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_a_change_and_only_then() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let person = world.simulator.vcenter().person();
    let vm = person.create_vm("/dc1/vm/team", "one").unwrap();
    watch_team(&client, &["name", "runtime.powerState"]).await;
    let first = wait(&client, None, 60).await.unwrap();
    assert_eq!(first.filters[0].objects[0].kind, ObjectUpdateKind::Enter);
    assert_eq!(first.filters[0].objects[0].changes.len(), 2);

    let before = world.clock.instant();
    assert!(wait(&client, Some(first.version.clone()), 60).await.is_none());
    assert_eq!((world.clock.instant() - before).as_secs(), 60);

    let waiter = {
        let (client, version) = (client.clone(), first.version.clone());
        tokio::spawn(async move { wait(&client, Some(version), 600).await })
    };
    world.clock.sleep(seconds(5)).await;
    // Nothing of what is watched changes.
    person.set_variable(&vm, "note", "x").unwrap();
    world.clock.sleep(seconds(5)).await;
    assert!(!waiter.is_finished());
    person.power_on(&vm).unwrap();
    let second = waiter.await.unwrap().unwrap();
    let update = &second.filters[0].objects[0];
    assert_eq!(update.kind, ObjectUpdateKind::Modify);
    assert_eq!(update.changes.len(), 1);
    assert_eq!(
        (update.changes[0].name.as_str(), update.changes[0].value.as_ref().unwrap().text()),
        ("runtime.powerState", Some("poweredOn"))
    );

    person.delete(&vm).unwrap();
    let third = wait(&client, Some(second.version), 60).await.unwrap();
    assert_eq!(third.filters[0].objects[0].kind, ObjectUpdateKind::Leave);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_comes_again_and_a_strange_version_is_refused() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let person = world.simulator.vcenter().person();
    let vm = person.create_vm("/dc1/vm/team", "one").unwrap();
    watch_team(&client, &["name", "guest.hostName"]).await;
    let first = wait(&client, None, 60).await.unwrap();
    person.rename(&vm, "two").unwrap();
    let second = wait(&client, Some(first.version.clone()), 60).await.unwrap();
    person.rename(&vm, "three").unwrap();
    assert_eq!(wait(&client, Some(first.version), 60).await.unwrap(), second, "its reply was lost");
    let third = wait(&client, Some(second.version), 60).await.unwrap();
    assert_eq!(third.filters[0].objects[0].changes[0].value, Some(AnyValue::string("three")));
    let strange = WaitForUpdatesEx { this: collector(), version: Some("4711".to_owned()), options: None };
    assert_eq!(client.call(strange).await.unwrap_err().kind(), "InvalidCollectorVersion");
    let anew = wait(&client, None, 60).await.unwrap();
    assert_eq!(anew.filters[0].objects[0].kind, ObjectUpdateKind::Enter);
}

#[tokio::test(start_paused = true)]
async fn many_updates_come_in_pieces() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let person = world.simulator.vcenter().person();
    for number in 0..5 {
        person.create_vm("/dc1/vm/team", &format!("vm{number}")).unwrap();
    }
    watch_team(&client, &["name"]).await;
    let mut names = Vec::new();
    let mut version = None;
    let mut truncated = Vec::new();
    while names.len() < 5 {
        let options = Some(WaitOptions { max_wait_seconds: Some(0), max_object_updates: Some(2) });
        let set = client.call(WaitForUpdatesEx { this: collector(), version, options }).await.unwrap().unwrap();
        version = Some(set.version);
        truncated.push(set.is_truncated == Some(true));
        names.extend(set.filters[0].objects.iter().map(|update| update.changes[0].value.clone().unwrap().text().unwrap().to_owned()));
    }
    names.sort();
    assert_eq!(names, ["vm0", "vm1", "vm2", "vm3", "vm4"]);
    assert_eq!(truncated, [true, true, false]);
    assert!(wait(&client, version, 0).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_second_wait_cancels_the_first_and_so_does_cancelling() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    watch_team(&client, &["name"]).await;
    let waiting = |client: Client| {
        tokio::spawn(async move { client.call(WaitForUpdatesEx { this: collector(), version: None, options: None }).await })
    };
    let first = waiting(client.clone());
    world.clock.sleep(seconds(1)).await;
    let second = waiting(client.clone());
    assert_eq!(first.await.unwrap().unwrap_err().kind(), "RequestCanceled");
    world.clock.sleep(seconds(1)).await;
    client.call(CancelWaitForUpdates { this: collector() }).await.unwrap();
    assert_eq!(second.await.unwrap().unwrap_err().kind(), "RequestCanceled");
}

#[tokio::test(start_paused = true)]
async fn selections_go_along_properties_and_in_circles() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let person = world.simulator.vcenter().person();
    person.create_vm("/dc1/vm/team", "one").unwrap();
    let vm = client.at("dc1/vm/team/one").await.unwrap();
    // As govc finds an object's path: parents of any entity, again and again.
    let parents = TraversalSpec {
        name: Some("up".to_owned()),
        selections: vec![Selection::Named("up".to_owned())],
        ..TraversalSpec::along("ManagedEntity", "parent")
    };
    let filter = PropertyFilterSpec {
        property_sets: vec![property_set("ManagedEntity", &["name", "parent"])],
        object_sets: vec![ObjectSpec { object: vm, is_skipped: None, selections: vec![Selection::Traversal(parents)] }],
        report_missing_objects: None,
    };
    let call = RetrievePropertiesEx { this: collector(), specs: vec![filter], options: RetrieveOptions::default() };
    let result = client.call(call).await.unwrap().unwrap();
    let names: Vec<String> = result.objects.iter().map(|object| object.property("name").unwrap().text().unwrap().to_owned()).collect();
    assert_eq!(names, ["one", "team", "vm", "dc1", "Datacenters"]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_exist_is_named() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let folder = client.at("dc1/vm/team").await.unwrap();
    let error = client.properties(&folder, &["nonsense"]).await.unwrap_err();
    assert_eq!(error.fault().detail("name"), Some("nonsense"));
    let nowhere = Reference::new("VirtualMachine", "vm-9999");
    assert_eq!(client.properties(&nowhere, &["name"]).await.unwrap_err().kind(), "ManagedObjectNotFound");
    let create = CreateFilter { this: collector(), spec: spec(&nowhere, &["name"]), is_partial: false };
    assert_eq!(client.call(create).await.unwrap_err().kind(), "ManagedObjectNotFound");
    let mut strange = spec(&folder, &["name"]);
    strange.property_sets[0].kind = "Nonsense".to_owned();
    let call = RetrievePropertiesEx { this: collector(), specs: vec![strange], options: RetrieveOptions::default() };
    assert_eq!(client.call(call).await.unwrap_err().kind(), "InvalidArgument");
}

#[tokio::test(start_paused = true)]
async fn every_property_of_every_object_can_be_read_at_once() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let root = client.content().await.root_folder;
    let view = CreateContainerView { this: singleton("ViewManager"), container: root, kinds: Vec::new(), is_recursive: true };
    let view = client.call(view).await.unwrap();
    let filter = PropertyFilterSpec {
        property_sets: vec![PropertySpec { kind: "ManagedEntity".to_owned(), is_all: Some(true), paths: Vec::new() }],
        object_sets: vec![ObjectSpec {
            object: view,
            is_skipped: Some(true),
            selections: vec![Selection::Traversal(TraversalSpec::along("ContainerView", "view"))],
        }],
        report_missing_objects: None,
    };
    let call = RetrievePropertiesEx { this: collector(), specs: vec![filter], options: RetrieveOptions::default() };
    let result = client.call(call).await.unwrap().unwrap();
    let kinds: std::collections::BTreeSet<&str> = result.objects.iter().map(|object| object.object.kind.as_str()).collect();
    for kind in [
        "ClusterComputeResource",
        "Datacenter",
        "Datastore",
        "DistributedVirtualPortgroup",
        "Folder",
        "HostSystem",
        "Network",
        "ResourcePool",
        "VirtualMachine",
        "VmwareDistributedVirtualSwitch",
    ] {
        assert!(kinds.contains(kind), "{kind}");
    }
    let vm = result.objects.iter().find(|object| object.object.kind == "VirtualMachine").unwrap();
    assert!(vm.property("summary").is_some() && vm.property("config").is_some() && vm.property("snapshot").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_list_view_watches_tasks_that_come_and_go() {
    let world = World::start(slow()).await;
    let client = world.client().await;
    let list = client.call(CreateListView { this: singleton("ViewManager"), objects: Vec::new() }).await.unwrap();
    let mut filter = view_spec(&list, &["info.state"]);
    filter.property_sets[0].kind = "Task".to_owned();
    client.call(CreateFilter { this: collector(), spec: filter, is_partial: false }).await.unwrap();
    let waiter = {
        let client = client.clone();
        tokio::spawn(async move { wait(&client, None, 600).await.unwrap() })
    };
    world.clock.sleep(seconds(5)).await;
    let task = client.clone_task("talos", "node1", true).await.unwrap();
    let nowhere = Reference::new("Task", "task-9999");
    let call = ModifyListView { this: list.clone(), added: vec![task.clone(), nowhere.clone()], removed: Vec::new() };
    assert_eq!(client.call(call).await.unwrap(), [nowhere]);
    let set = waiter.await.unwrap();
    assert_eq!(set.filters[0].objects[0].object, task);
    let set = wait(&client, Some(set.version), 600).await.unwrap();
    assert_eq!(set.filters[0].objects[0].changes[0].value.as_ref().unwrap().text(), Some("success"));
    client.call(ModifyListView { this: list, added: Vec::new(), removed: vec![task] }).await.unwrap();
    let set = wait(&client, Some(set.version), 600).await.unwrap();
    assert_eq!(set.filters[0].objects[0].kind, ObjectUpdateKind::Leave);
}
