//! The referee: govc, which nobody here wrote, works with the simulated vCenter.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use runtime::clock::Clock;
use runtime::keys::Prepared;
use runtime::log::Log;
use runtime::random::Random;
use runtime::tls::Tls;
use simulator::{Config, Simulator};
use tokio::net::TcpListener;

use super::support::*;
use crate::referee::referee;

#[derive(Clone)]
struct Govc {
    program: PathBuf,
    url: String,
    password: &'static str,
}

impl Govc {
    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", std::env::temp_dir())
            .env("GOVC_URL", &self.url)
            .env("GOVC_USERNAME", USER)
            .env("GOVC_PASSWORD", self.password)
            .env("GOVC_INSECURE", "true")
            .env("GOVC_PERSIST_SESSION", "false")
            .env("GOVC_DATACENTER", "dc1");
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(output.status.success(), "govc {arguments:?}\n{out}\n{err}");
        out
    }

    async fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(!output.status.success(), "govc {arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn govc_works_with_the_simulated_vcenter() {
    let Some(program) = tokio::task::spawn_blocking(|| referee("govc")).await.unwrap() else { return };
    let clock = Clock::system();
    let random = Random::seeded(11);
    let keys = Arc::new(Prepared::new(random.child("keys")));
    let config = Config::new(site(), clock.clone(), random, Log::passing(clock.clone()), Tls::real(clock), keys);
    let simulator = Arc::new(Simulator::start(config).await.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let govc = Govc { program, url: format!("https://{}/sdk", listener.local_addr().unwrap()), password: PASSWORD };
    let served = simulator.clone();
    let server = tokio::spawn(async move { served.serve_vcenter(Box::new(listener)).await });

    assert!(govc.ok(&["about"]).await.contains("VirtualCenter"));
    let found = govc.ok(&["find", "/dc1"]).await;
    for path in [
        "/dc1/vm/talos",
        "/dc1/vm/team",
        "/dc1/datastore/datastore5",
        "/dc1/network/VM Network",
        "/dc1/network/pg-talos",
        "/dc1/host/cluster1/Resources",
    ] {
        assert!(found.lines().any(|line| line == path), "{path} in\n{found}");
    }
    assert_eq!(govc.ok(&["find", "/dc1", "-type", "m", "-name", "talos"]).await.trim(), "/dc1/vm/talos");
    assert!(govc.ok(&["ls", "/dc1/vm"]).await.contains("/dc1/vm/bare"));
    assert!(govc.ok(&["snapshot.tree", "-vm", "talos"]).await.contains("linked-clone-base"));

    let clone = |name: &'static str| {
        let govc = govc.clone();
        async move {
            let arguments = [
                "vm.clone",
                "-vm",
                "talos",
                "-on=false",
                "-link",
                "-snapshot",
                "linked-clone-base",
                "-folder",
                "team",
                "-ds",
                "datastore6",
                "-pool",
                "/dc1/host/cluster1/Resources",
                "-c",
                "4",
                "-m",
                "4096",
                name,
            ];
            govc.run(&arguments).await
        }
    };
    let made = clone("node1").await;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let again = clone("node1").await;
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("already exists"), "{again:?}");
    govc.ok(&["vm.change", "-vm", "node1", "-e", "guestinfo.talos.config=dmVyc2lvbg=="]).await;
    let info = govc.ok(&["vm.info", "-e", "node1"]).await;
    for part in ["node1", "4096MB", "4 vCPU(s)", "poweredOff", "guestinfo.talos.config"] {
        assert!(info.contains(part), "{part} in\n{info}");
    }
    let json = govc.ok(&["vm.info", "-json", "node1"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let truth = simulator.truth().vms.into_iter().find(|vm| vm.name == "node1").unwrap();
    let seen = &json["virtualMachines"][0];
    assert_eq!(seen["config"]["uuid"], truth.bios_uuid);
    assert_eq!(seen["config"]["instanceUuid"], truth.instance_uuid);
    let devices = seen["config"]["hardware"]["device"].as_array().unwrap();
    let disk = devices.iter().find(|device| device["key"] == 2000).unwrap();
    assert_eq!(disk["backing"]["parent"]["fileName"], "[datastore5] talos/talos.vmdk");

    govc.ok(&["vm.network.add", "-vm", "node1", "-net", "pg-talos", "-net.adapter", "vmxnet3"]).await;
    govc.ok(&["vm.disk.create", "-vm", "node1", "-name", "node1/data", "-size", "1G", "-ds", "datastore6"]).await;
    govc.ok(&["vm.power", "-on", "node1"]).await;
    assert!(govc.fails(&["vm.power", "-on", "node1"]).await.contains("current state"));
    assert!(govc.ok(&["vm.info", "node1"]).await.contains("poweredOn"));
    let truth = simulator.truth().vms.into_iter().find(|vm| vm.name == "node1").unwrap();
    assert_eq!((truth.nics.len(), truth.disks.len(), truth.powered_on), (2, 3, true));
    govc.ok(&["object.collect", "-s", "vm/team/node1", "runtime.powerState"]).await;
    govc.ok(&["vm.power", "-off", "node1"]).await;
    govc.ok(&["vm.destroy", "node1"]).await;
    assert!(simulator.truth().vms.iter().all(|vm| vm.name != "node1"));
    govc.ok(&["folder.create", "/dc1/vm/team/below"]).await;
    assert!(govc.fails(&["folder.create", "/dc1/vm/team/below"]).await.contains("already exists"));
    govc.ok(&["object.destroy", "/dc1/vm/team/below"]).await;

    let stranger = Govc { password: "wrong", ..govc };
    assert!(stranger.fails(&["find", "/dc1"]).await.contains("incorrect user name or password"));
    simulator.close();
    server.await.unwrap();
}
