//! What govc asked govmomi's simulator, asked of ours: the answers must agree in shape - the same kinds of objects, properties, types and
//! faults - for the methods that ours has. The recordings are read where they lie; names and ids are mapped, values may differ.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use simulator::Latency;
use simulator::vcenter::{Datacenter, Site, Template};
use vsphere_wire::method::*;
use vsphere_wire::{Element, Envelope, ManagedObjectReference as Reference, Request, Value as _};

use super::support::*;

/// Folders that are not replayed, and why.
const LEFT_OUT: [(&str, &str); 6] = [
    ("events", "event history collectors: no client of ours reads them"),
    ("import-ova", "import of an OVA is a later part of the product"),
    ("tags-attach", "REST: tags are a later part of the product"),
    ("tags-category", "REST"),
    ("tags-create", "REST"),
    ("tags-ls", "REST"),
];

fn recordings() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference/vsphere/exchanges");
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{} is missing", folder.display());
    println!("skipped: {} is missing", folder.display());
    None
}

/// The laboratory of the recordings.
async fn laboratory() -> (World, Client, BTreeMap<String, Reference>) {
    let mut lab = Site::new(SERVER, USER, PASSWORD);
    let mut datacenter = Datacenter::new("DC0");
    datacenter.add_datastore("LocalDS_0");
    datacenter.add_network("VM Network");
    datacenter.resource_pools.push("DC0_C0/Resources".to_owned());
    for name in ["tmpl", "imported"] {
        let template = Template { name: name.to_owned(), talos_version: None, disks_gib: vec![8], has_snapshot: true };
        datacenter.templates.push(template);
    }
    lab.datacenters.push(datacenter);
    let world = World::with(config(lab, Latency::none())).await;
    let client = world.client().await;
    let mut ids = BTreeMap::new();
    for (recorded, path) in [
        ("vm-50", "DC0/vm/tmpl"),
        ("vm-55", "DC0/vm/imported"),
        ("group-2", "DC0/vm"),
        ("datastore-46", "DC0/datastore/LocalDS_0"),
        ("resgroup-14", "DC0/host/DC0_C0/Resources"),
        ("datacenter-1", "DC0"),
    ] {
        ids.insert(recorded.to_owned(), client.at(path).await.unwrap_or_else(|| panic!("{path}")));
    }
    let snapshot = client.property(&ids["vm-50"], "snapshot.currentSnapshot").await.unwrap().decode().unwrap();
    ids.insert("snapshot-57".to_owned(), snapshot);
    let browser = client.property(&ids["datastore-46"], "browser").await.unwrap().decode().unwrap();
    ids.insert("hostdatastorebrowser-47".to_owned(), browser);
    (world, client, ids)
}

/// What the recorded commands found done already.
async fn prepare(world: &World, client: &Client, folder: &str, ids: &mut BTreeMap<String, Reference>) {
    let pool = client.at("DC0/host/DC0_C0/Resources").await.unwrap();
    if !matches!(folder, "about" | "clone-linked" | "login-wrong-password") {
        let id = world.simulator.vcenter().person().create_vm("/DC0/vm", "node1").unwrap();
        ids.insert("vm-61".to_owned(), Reference::new("VirtualMachine", id.0.clone()));
        if matches!(folder, "power-off" | "power-on-twice" | "destroy-powered-on") {
            world.simulator.vcenter().person().power_on(&id).unwrap();
        }
    }
    if matches!(folder, "snapshot-create" | "mark-template") {
        for vm in ["vm-50", "vm-55"] {
            client.call(MarkAsVirtualMachine { this: ids[vm].clone(), pool: pool.clone(), host: None }).await.unwrap();
        }
    }
    if folder == "snapshot-create" {
        ids.remove("snapshot-57");
    }
    if folder == "tasks" {
        // The recorded list of recent tasks, one of ours for each.
        for number in 7..=80 {
            if let Ok(task) = client.call(PowerOnVm { this: ids["vm-61"].clone(), host: None }).await {
                ids.insert(format!("task-{number}"), task);
            }
        }
    }
}

/// A task's result, wherever it stands.
fn task_result(element: &Element) -> Option<Reference> {
    let own = element.child("result").and_then(|result| Reference::read(result).ok());
    own.or_else(|| element.children.iter().find_map(task_result))
}

fn translate(element: &mut Element, ids: &BTreeMap<String, Reference>, version: &str) {
    if let Some(known) = ids.get(&element.text)
        && element.attribute("type").is_some()
    {
        element.text.clone_from(&known.id);
    }
    match (element.local(), element.text.as_str()) {
        ("password", "********") => element.text = PASSWORD.to_owned(),
        ("userName", _) => element.text = USER.to_owned(),
        ("version", "-") => element.text = version.to_owned(),
        // vcsim's machines have their SCSI controller there.
        ("controllerKey", "202") => element.text = "1000".to_owned(),
        _ => {}
    }
    for child in &mut element.children {
        translate(child, ids, version);
    }
}

/// What is compared of an answer: for each kind of object the properties with their types, results by type, faults with their members.
#[derive(Debug, Default, PartialEq)]
struct Shape {
    body: String,
    results: BTreeSet<String>,
    properties: BTreeMap<String, BTreeSet<String>>,
}

fn shape(envelope: &Envelope) -> Shape {
    let mut shape = Shape { body: envelope.body.local().to_owned(), ..Shape::default() };
    if let Some(fault) = envelope.fault().unwrap() {
        shape.results.insert(format!("fault {}", fault.kind()));
        return shape;
    }
    for result in envelope.body.children_named("returnval") {
        shape.results.insert(result.attribute("type").unwrap_or("data").to_owned());
        gather(result, &mut shape);
    }
    shape
}

fn gather(element: &Element, shape: &mut Shape) {
    if let Some(object) = element.child("obj").filter(|_| element.child("propSet").is_some() || element.child("kind").is_some()) {
        let kind = object.attribute("type").unwrap_or_default().to_owned();
        let update = element.child_text("kind").unwrap_or_default();
        let properties = shape.properties.entry(kind).or_default();
        if !update.is_empty() {
            properties.insert(format!("update {update}"));
        }
        for property in element.children_named("propSet").chain(element.children_named("changeSet")) {
            let value = property.child("val");
            let kind = value.and_then(Element::type_local).unwrap_or_default();
            properties.insert(format!("{}: {kind}", property.child_text("name").unwrap_or_default()));
            if let Some(error) = value.and_then(|value| value.child("error")) {
                properties.insert(format!("error {}", error.child("fault").and_then(Element::type_local).unwrap_or_default()));
            }
            if let Some(state) = value.and_then(|value| value.child_text("state")) {
                properties.insert(format!("state {state}"));
            }
            if let Some(result) = value.and_then(|value| value.child("result")) {
                properties.insert(format!("result {}", result.type_local().unwrap_or_default()));
            }
        }
        return;
    }
    for child in &element.children {
        gather(child, shape);
    }
}

/// Where ours may differ, and why.
fn differs_rightly(folder: &str, step: &str, theirs: &Shape, ours: &Shape) -> bool {
    match (folder, step) {
        // With no delays a task of ours is over before it is looked at; theirs is seen running first.
        (_, "WaitForUpdatesEx") if theirs.properties.get("Task").is_some_and(|task| task.contains("state running")) => {
            ours.properties.get("Task").is_some_and(|task| task.contains("state success"))
        }
        // vcsim tells everything again whatever the version, and its tasks had other ends.
        ("tasks", "WaitForUpdatesEx") => ours.properties.get("Task").is_some_and(|task| task.contains("info: TaskInfo")),
        // A reading of all properties: ours has no more locales than it needs.
        ("sessions", _) => ours.properties.get("SessionManager").is_some_and(|session| session.contains("currentSession: UserSession")),
        _ => false,
    }
}

async fn replay(folder: &str, path: &std::path::Path) -> usize {
    let (world, client, mut ids) = laboratory().await;
    prepare(&world, &client, folder, &mut ids).await;
    let mut files: Vec<PathBuf> = path.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut version = String::new();
    let mut compared = 0;
    let mut last_result = None;
    let stranger = world.stranger();
    for file in files.iter().filter(|file| file.to_string_lossy().ends_with(".req.xml")) {
        let step = file.file_name().unwrap().to_string_lossy().replace(".req.xml", "");
        let answer = PathBuf::from(file.to_string_lossy().replace(".req.xml", ".res.xml"));
        let Ok(answer) = std::fs::read_to_string(answer) else { continue };
        let theirs = Envelope::parse(&answer).unwrap();
        let mut request = Envelope::parse(&std::fs::read_to_string(file).unwrap()).unwrap();
        translate(&mut request.body, &ids, &version);
        if folder == "login-wrong-password" && request.body.local() == "Login" {
            request.body.children.iter_mut().filter(|child| child.local() == "password").for_each(|child| child.text = "wrong".to_owned());
        }
        // Whoever signs in does so afresh.
        let caller = if matches!(folder, "about" | "login-wrong-password") { &stranger } else { &client };
        let method = request.body.local().to_owned();
        assert!(
            Request::NAMES.contains(&method.as_str()) || matches!(method.as_str(), "SearchDatastore_Task" | "ResetListView"),
            "{folder}/{step}: a method that is not ours"
        );
        if let (Some(theirs), Some(ours)) = (task_result(&theirs.body), &last_result) {
            ids.insert(theirs.id, Reference::clone(ours));
        }
        let call = tokio::time::timeout(seconds(60), caller.raw(request.to_document()));
        let ours = match call.await {
            Ok(Ok(envelope)) => envelope,
            Ok(Err(CallError::Fault(fault))) => Envelope::new(fault.to_element()),
            Ok(Err(error)) => panic!("{folder}/{step}: {error:?}"),
            // The second look at a task that was over at the first.
            Err(_) if method == "WaitForUpdatesEx" && compared > 0 => continue,
            Err(_) => panic!("{folder}/{step}: no answer"),
        };
        if let (Some(theirs), Some(ours)) = (theirs.body.child("returnval"), ours.body.child("returnval")) {
            if let (Ok(theirs), Ok(ours)) = (Reference::read(theirs), Reference::read(ours)) {
                ids.insert(theirs.id, ours);
            }
            if let Some(told) = ours.child_text("version") {
                told.clone_into(&mut version);
            }
        }
        last_result = task_result(&ours.body).or(last_result);
        let (theirs, ours) = (shape(&theirs), shape(&ours));
        assert!(theirs == ours || differs_rightly(folder, &method, &theirs, &ours), "{folder}/{step}\ntheirs {theirs:#?}\nours {ours:#?}");
        compared += 1;
    }
    compared
}

#[tokio::test(start_paused = true)]
async fn answers_have_the_shape_of_the_recorded_ones() {
    let Some(recordings) = recordings() else { return };
    let mut folders: Vec<PathBuf> = recordings.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut compared = 0;
    for path in folders {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !LEFT_OUT.iter().any(|(left_out, _)| *left_out == name) {
            compared += replay(&name, &path).await;
        }
    }
    assert!(compared > 120, "only {compared} exchanges were compared");
}
