//! The recorded exchanges of govc with govmomi's simulator: every file is read and written again without loss.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vsphere_wire::value::is_equivalent;
use vsphere_wire::{Element, Envelope, Request, Response};

fn recordings() -> Option<Vec<(PathBuf, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference/vsphere/exchanges");
    if !folder.is_dir() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "the reference data is missing: {}", folder.display());
        println!("skipped: no reference data");
        return None;
    }
    let mut found = Vec::new();
    for command in std::fs::read_dir(&folder).unwrap() {
        for file in std::fs::read_dir(command.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "xml") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 200, "only {} recordings", found.len());
    Some(found)
}

#[test]
fn every_recording_survives_the_tree() {
    let Some(recordings) = recordings() else { return };
    for (path, text) in recordings {
        let tree = Element::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let again = Element::parse(&tree.to_document()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(tree, again, "{}", path.display());
        let envelope = Envelope::parse(&text).unwrap();
        assert_eq!(envelope, Envelope::parse(&envelope.to_document()).unwrap(), "{}", path.display());
    }
}

#[test]
fn every_recording_survives_the_typed_messages() {
    let Some(recordings) = recordings() else { return };
    let mut typed: BTreeMap<String, usize> = BTreeMap::new();
    let mut untyped: BTreeMap<String, usize> = BTreeMap::new();
    for (path, text) in recordings {
        let envelope = Envelope::parse(&text).unwrap();
        let again = if let Some(fault) = envelope.fault().unwrap() {
            *typed.entry("Fault".to_owned()).or_default() += 1;
            fault.to_element()
        } else if path.to_string_lossy().ends_with(".req.xml") {
            let request = Request::read(&envelope.body).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let strict = Request::read_strictly(&envelope.body).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(request, strict);
            let counter = if matches!(request, Request::Other(_)) { &mut untyped } else { &mut typed };
            *counter.entry(request.name().to_owned()).or_default() += 1;
            request.to_element()
        } else {
            let response = Response::read(&envelope.body).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            response.to_element()
        };
        assert!(is_equivalent(&envelope.body, &again), "{}:\n{:#?}\n{:#?}", path.display(), envelope.body, again);
    }
    // What the recordings hold beyond the list of typed methods: the import of an OVA, the datastore browser and event history.
    let untyped: Vec<&str> = untyped.keys().map(String::as_str).collect();
    let known = [
        "CreateCollectorForEvents",
        "CreateImportSpec",
        "DestroyCollector",
        "HttpNfcLeaseComplete",
        "ImportVApp",
        "ResetListView",
        "SearchDatastore_Task",
        "SetCollectorPageSize",
    ];
    assert_eq!(untyped, known);
    assert_eq!(typed["WaitForUpdatesEx"], 21);
    assert!(typed.contains_key("CloneVM_Task") && typed.contains_key("ReconfigVM_Task") && typed.contains_key("Fault"), "{typed:?}");
}

#[test]
fn values_inside_answers_read_as_their_types() {
    use vsphere_wire::service::{TaskInfo, TaskInfoState};
    let Some(recordings) = recordings() else { return };
    let mut states = Vec::new();
    for (path, text) in recordings.iter().filter(|(path, _)| path.to_string_lossy().contains("WaitForUpdatesEx.res")) {
        let Response::WaitForUpdatesEx(Some(set)) = Response::read(&Envelope::parse(text).unwrap().body).unwrap() else {
            panic!("{}", path.display())
        };
        for change in set.filters.iter().flat_map(|filter| &filter.objects).flat_map(|object| &object.changes) {
            let Some(value) = &change.value else { continue };
            if value.type_name.local == "TaskInfo" {
                let info: TaskInfo = value.decode().unwrap();
                if let Some(error) = &info.error {
                    assert!(["InvalidPowerState", "FileNotFound"].contains(&error.fault.kind()), "{}: {error:?}", path.display());
                    assert!(error.message.is_some());
                }
                let again = vsphere_wire::AnyValue::of(&info);
                assert!(is_equivalent(again.content(), value.content()), "{}", path.display());
                states.push(info.state);
            }
        }
    }
    assert!(states.contains(&TaskInfoState::Running) && states.contains(&TaskInfoState::Success) && states.contains(&TaskInfoState::Error));
}

#[test]
fn a_whole_machine_specification_reads_as_its_type() {
    use vsphere_wire::machine::VirtualMachineConfigSpec;
    let Some(recordings) = recordings() else { return };
    let (_, text) = recordings.iter().find(|(path, _)| path.to_string_lossy().ends_with("04-ImportVApp.req.xml")).unwrap();
    let body = Envelope::parse(text).unwrap().body;
    let element = body.child("spec").and_then(|spec| spec.child("configSpec")).unwrap();
    let spec: VirtualMachineConfigSpec = vsphere_wire::value::read_strictly(element).unwrap();
    let mut again = Element::named(element.name.clone());
    vsphere_wire::Value::write(&spec, &mut again);
    assert!(is_equivalent(element, &again), "{element:#?}\n{again:#?}");
    let disk = spec.device_changes.iter().map(|change| &change.device).find(|device| device.is_disk()).unwrap();
    assert!(disk.capacity().unwrap() > 0 && disk.controller_key.is_some() && disk.unit_number.is_some());
    let card = spec.device_changes.iter().map(|change| &change.device).find(|device| device.is_ethernet()).unwrap();
    assert_eq!(card.backing.as_ref().unwrap().device_name.as_deref(), Some("VM Network"));
}
