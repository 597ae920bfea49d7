//! The referee: govmomi's simulated vCenter, which nobody here wrote, over real sockets and real TLS.
//!
//! Where it differs from a real vCenter (a clone drops `extraConfig` and UUIDs of its specification), the test does not look.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use runtime::clock::Clock;
use runtime::net::TcpDialer;
use runtime::random::Random;
use runtime::tls::Tls;
use vsphere::spec::{Delivery, delivery_spec, is_delivered};
use vsphere::{
    Credentials, Marker, PlacementRequest, Reaction, Registry, Secret, TaskState, Transport, VCenters, VSphereError, Verification,
    VirtualMachinePowerState,
};

use crate::referee::referee;
use crate::world::{ended, owner, request};

/// A running vcsim: it ends with its standard input.
struct Vcsim {
    child: Child,
    server: String,
    thumbprint: String,
}

impl Vcsim {
    fn start() -> Option<Self> {
        let mut child = Command::new(referee("vcsim")?).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let (server, thumbprint) = line.trim().split_once(' ').unwrap();
        let (server, thumbprint) = (server.to_owned(), thumbprint.to_owned());
        Some(Self { child, server, thumbprint })
    }
}

impl Drop for Vcsim {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn placement() -> PlacementRequest {
    PlacementRequest {
        datacenter: "*".to_owned(),
        folder: String::new(),
        datastore: "LocalDS_0".to_owned(),
        resource_pool: "DC0_C0/Resources".to_owned(),
        template: "DC0_C0_RP0_VM0".to_owned(),
        snapshot: Some("base".to_owned()),
        networks: vec!["VM Network".to_owned(), "DC0_DVPG0".to_owned()],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_works_with_vcsim() {
    let Some(vcsim) = tokio::task::spawn_blocking(Vcsim::start).await.unwrap() else { return };
    let clock = Clock::system();
    let transport = Transport { dialer: Arc::new(TcpDialer), tls: Tls::real(clock.clone()), user_agent: "test".to_owned() };
    let registry = Registry::new(transport, Verification::default(), &clock, &Random::seeded(1));
    let credentials = Credentials {
        server: vcsim.server.clone(),
        user: "referee".to_owned(),
        password: Secret::new("right-horse"),
        thumbprint: Some(vcsim.thumbprint.clone()),
    };
    let wrong = Credentials { password: Secret::new("wrong-horse"), ..credentials.clone() };
    assert_eq!(registry.vcenter(&wrong).about().await.unwrap_err().reaction(), Reaction::Credentials);
    let other = Credentials { thumbprint: Some(vcsim.thumbprint.replace(':', "").chars().rev().collect()), ..credentials.clone() };
    let error = registry.vcenter(&other).about().await.unwrap_err();
    assert!(matches!(&error, VSphereError::Thumbprint { presented, .. } if *presented == vcsim.thumbprint), "{error:?}");

    let vcenter = registry.vcenter(&credentials);
    assert!(vcenter.about().await.unwrap().full_name.contains("vCenter"));
    let ambiguous = vcenter.place(&PlacementRequest { resource_pool: "*/Resources".to_owned(), ..placement() }).await.unwrap_err();
    assert!(matches!(&ambiguous, VSphereError::Ambiguous { found, .. } if found.len() == 2), "{ambiguous}");
    let missing = vcenter.place(&PlacementRequest { template: "DC0_C0_RP0_VM9".to_owned(), ..placement() }).await.unwrap_err();
    assert!(missing.to_string().contains("DC0_C0_RP0_VM0"), "{missing}");

    let placed = vcenter.place(&placement()).await.unwrap();
    assert_eq!((placed.folder_path.as_str(), placed.networks.len()), ("/DC0/vm", 2));
    assert!(placed.networks[1].backing.port.is_some());
    let wanted = request("node", 1);
    assert_eq!(vcenter.find_named(&placed.folder_path, "node").await.unwrap(), None);
    let (task, _) = vcenter.clone_machine(&placed, &wanted).await.unwrap();
    let TaskState::Succeeded(Some(reference)) = ended(&*vcenter, &task).await else { panic!("not cloned") };
    assert_eq!(vcenter.find_named(&placed.folder_path, "node").await.unwrap(), Some(reference.clone()));

    let machine = vcenter.machine(&reference).await.unwrap().unwrap();
    assert_eq!((machine.name.as_str(), machine.nics().len()), ("node", 2));
    assert!(machine.nics().iter().all(|nic| nic.mac_address.is_some()) && !machine.bios_uuid.is_empty());
    assert!(!machine.disks().is_empty() && machine.foreign_disks().is_empty(), "{:#?}", machine.disks());
    let delivery = Delivery {
        marker: Marker::new(owner(), &machine.instance_uuid),
        disks: machine.own_disks(),
        userdata: "version: v1alpha1".to_owned(),
        metadata: "instance-id: node".to_owned(),
    };
    let task = vcenter.reconfigure(&reference, delivery_spec(&delivery)).await.unwrap();
    assert_eq!(ended(&*vcenter, &task).await, TaskState::Succeeded(None));
    assert!(is_delivered(&delivery, &vcenter.machine(&reference).await.unwrap().unwrap().extra_config));

    let task = vcenter.power_on(&reference).await.unwrap();
    assert_eq!(ended(&*vcenter, &task).await, TaskState::Succeeded(None));
    let again = vcenter.power_on(&reference).await.unwrap();
    let TaskState::Failed(report) = ended(&*vcenter, &again).await else { panic!("powered on twice") };
    assert_eq!((report.kind.as_str(), report.reaction()), ("InvalidPowerState", Reaction::Done));
    for _ in 0..100 {
        if vcenter.seen(&reference).is_some_and(|seen| seen.power == "poweredOn") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(vcenter.seen(&reference).unwrap().power, "poweredOn", "the long poll tells");

    let duplicate = vcenter.clone_machine(&placed, &request("node", 2)).await.unwrap().0;
    let TaskState::Failed(report) = ended(&*vcenter, &duplicate).await else { panic!("cloned twice") };
    assert_eq!(report.reaction(), Reaction::Duplicate);
    let task = vcenter.power_off(&reference).await.unwrap();
    assert_eq!(ended(&*vcenter, &task).await, TaskState::Succeeded(None));
    assert_eq!(vcenter.machine(&reference).await.unwrap().unwrap().power, VirtualMachinePowerState::PoweredOff);
    let task = vcenter.destroy(&reference).await.unwrap();
    assert_eq!(ended(&*vcenter, &task).await, TaskState::Succeeded(None));
    assert_eq!(vcenter.machine(&reference).await.unwrap(), None);
    registry.close().await;
}
