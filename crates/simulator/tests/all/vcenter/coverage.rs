//! Every method is called, and the same seed gives the same world.

use simulator::Latency;
use simulator::hooks::VCENTER;
use simulator::hypervisor::{Hypervisor, ToolsReport, VmId};
use vsphere_wire::Request;
use vsphere_wire::machine::VirtualMachineConfigSpec;
use vsphere_wire::method::*;
use vsphere_wire::property::RetrieveOptions;

use super::support::*;

#[tokio::test(start_paused = true)]
async fn every_method_of_the_wire_is_served() {
    let world = World::start(slow()).await;
    let client = world.client().await;
    client.content().await;
    let now = client.call(CurrentTime { this: singleton("ServiceInstance") }).await.unwrap();
    assert_eq!(now, world.clock.now());
    let task = client.clone_task("talos", "node1", true).await.unwrap();
    let vm = client.outcome(&task).await.unwrap().unwrap();
    let doomed = client.clone_task("talos", "node2", true).await.unwrap();
    client.call(CancelTask { this: doomed }).await.unwrap();
    let uuid = client.text(&vm, "config.uuid").await.to_ascii_uppercase();
    let by_uuid =
        FindByUuid { this: singleton("SearchIndex"), datacenter: None, uuid: uuid.clone(), is_vm_search: true, is_instance_uuid: None };
    assert_eq!(client.call(by_uuid).await.unwrap().as_ref(), Some(&vm));
    let datacenter = client.at("dc1").await;
    let all = FindAllByUuid { this: singleton("SearchIndex"), datacenter, uuid, is_vm_search: true, is_instance_uuid: Some(false) };
    assert_eq!(client.call(all).await.unwrap(), std::slice::from_ref(&vm));

    let spec = VirtualMachineConfigSpec { cpus: Some(6), ..VirtualMachineConfigSpec::default() };
    let task = client.call(ReconfigureVm { this: vm.clone(), spec }).await.unwrap();
    client.outcome(&task).await.unwrap();
    let task = client.call(PowerOnVm { this: vm.clone(), host: None }).await.unwrap();
    client.outcome(&task).await.unwrap();
    assert_eq!(client.call(ShutdownGuest { this: vm.clone() }).await.unwrap_err().kind(), "ToolsUnavailable");
    world.simulator.vcenter().report_tools(&VmId(vm.id.clone()), Some(ToolsReport::default()));
    client.call(ShutdownGuest { this: vm.clone() }).await.unwrap();
    world.clock.sleep(seconds(10)).await;
    assert_eq!(client.text(&vm, "runtime.powerState").await, "poweredOff");
    let off = client.call(PowerOffVm { this: vm.clone() }).await.unwrap();
    assert_eq!(client.outcome(&off).await.unwrap_err().kind(), "InvalidPowerState");
    let snapshot = CreateSnapshot {
        this: vm.clone(),
        name: "before".to_owned(),
        description: Some("x".to_owned()),
        with_memory: false,
        is_quiesced: false,
    };
    let task = client.call(snapshot).await.unwrap();
    let snapshot = client.outcome(&task).await.unwrap().unwrap();
    assert_eq!(client.property(&snapshot, "vm").await.unwrap().decode::<vsphere_wire::ManagedObjectReference>().unwrap(), vm);
    let task = client.call(Rename { this: vm.clone(), new_name: "renamed/with a slash".to_owned() }).await.unwrap();
    client.outcome(&task).await.unwrap();
    assert_eq!(client.at("dc1/vm/team/renamed%2fwith a slash").await, Some(vm.clone()));
    client.call(MarkAsTemplate { this: vm.clone() }).await.unwrap();
    let pool = client.at("dc1/host/cluster1/Resources").await.unwrap();
    client.call(MarkAsVirtualMachine { this: vm.clone(), pool, host: None }).await.unwrap();
    let folder = client.at("dc1/vm/team").await.unwrap();
    client.call(CreateFolder { this: folder.clone(), name: "below".to_owned() }).await.unwrap();

    let view = CreateContainerView { this: singleton("ViewManager"), container: folder, kinds: Vec::new(), is_recursive: false };
    let view = client.call(view).await.unwrap();
    let list = client.call(CreateListView { this: singleton("ViewManager"), objects: vec![vm.clone()] }).await.unwrap();
    client.call(ModifyListView { this: list.clone(), added: Vec::new(), removed: vec![vm.clone()] }).await.unwrap();
    let filter = CreateFilter { this: collector(), spec: view_spec(&view, &["name"]), is_partial: false };
    let filter = client.call(filter).await.unwrap();
    let options = RetrieveOptions { max_objects: Some(1) };
    let specs = vec![view_spec(&client.whole_inventory().await, &["name"])];
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let call = RetrievePropertiesEx { this: collector(), specs: specs.clone(), options: options.clone() };
        tokens.push(client.call(call).await.unwrap().unwrap().token.unwrap());
    }
    client.call(ContinueRetrievePropertiesEx { this: collector(), token: tokens.remove(0) }).await.unwrap();
    client.call(CancelRetrievePropertiesEx { this: collector(), token: tokens.remove(0) }).await.unwrap();
    client.call(CancelWaitForUpdates { this: collector() }).await.unwrap();
    client.call(DestroyPropertyFilter { this: filter.clone() }).await.unwrap();
    assert_eq!(client.call(DestroyPropertyFilter { this: filter }).await.unwrap_err().kind(), "ManagedObjectNotFound");
    client.call(DestroyView { this: list }).await.unwrap();
    let task = client.call(Destroy { this: vm }).await.unwrap();
    client.outcome(&task).await.unwrap();
    client.call(Logout { this: singleton("SessionManager") }).await.unwrap();

    let counts = world.hooks.counts();
    for method in Request::NAMES {
        assert!(counts.contains_key(&(VCENTER, (*method).to_owned())), "{method} was never called");
    }
}

async fn story() -> String {
    let world = World::start(slow()).await;
    let client = world.client().await;
    let mut tasks = Vec::new();
    for number in 0..12 {
        tasks.push(client.clone_task("talos", &format!("node{number}"), number % 3 > 0).await.unwrap());
    }
    let ends: Vec<_> = tasks
        .into_iter()
        .map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                let vm = client.outcome(&task).await.unwrap().unwrap();
                let task = client.call(PowerOnVm { this: vm, host: None }).await.unwrap();
                client.outcome(&task).await.unwrap();
            })
        })
        .collect();
    for end in ends {
        end.await.unwrap();
    }
    let entries: Vec<String> = world.log.entries().iter().map(ToString::to_string).collect();
    format!("{}\n{:#?}", entries.join("\n"), world.simulator.truth().vms)
}

#[test]
fn the_same_seed_gives_the_same_world() {
    let run = || {
        let seed = tokio::runtime::RngSeed::from_bytes(b"one seed");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).rng_seed(seed).build().unwrap();
        runtime.block_on(story())
    };
    let (first, second) = (run(), run());
    assert!(first.lines().count() > 100);
    assert_eq!(first, second);
}

#[tokio::test(start_paused = true)]
async fn no_call_is_answered_late_when_nothing_takes_time() {
    let world = World::start(Latency::none()).await;
    let client = world.client().await;
    let before = world.clock.now();
    let task = client.clone_task("talos", "node1", true).await.unwrap();
    client.outcome(&task).await.unwrap();
    assert_eq!(world.clock.now(), before);
}
