//! The journey as a new user types it: the simulator as one process, everything else as others, from manifests to nothing left.

use super::process::{Shell, examples, kubectl};
use super::transcript::Transcript;

#[test]
fn from_manifests_to_a_cluster_and_back() {
    let mut shell = Shell::new();
    examples(&shell);
    let simulator = shell.start(&["simulate", "-f", "ipam.yaml", "-f", "standard.yaml", "--env", "standard.env", "--speed", "0"]);
    simulator.until("the simulator's export lines", |simulator| simulator.stdout().contains("GOVC_INSECURE"));
    shell.evaluate(&simulator.stdout());
    let mut transcript = Transcript::new(&shell);
    for name in ["VSPHERE_PASSWORD", "VSPHERE_TLS_THUMBPRINT"] {
        transcript.hide(&shell.environment[name].clone(), name);
    }
    transcript.add("talosphere simulate -f ipam.yaml -f standard.yaml --env standard.env > simulator.env &", &simulator.stdout(), "");
    transcript.ok(&shell, "talosphere render -f standard.yaml --env standard.env | head -12");
    transcript.ok(&shell, "talosphere up -f ipam.yaml -f standard.yaml --workload cpi-secrets.yaml --env standard.env -n team");
    transcript.ok(&shell, "talosphere describe cluster demo -n team");
    if kubectl().is_some() {
        transcript.ok(&shell, "talosphere kubeconfig demo -n team > k.yaml && kubectl --kubeconfig k.yaml get nodes");
    }
    transcript.ok(&shell, "talosphere talosconfig demo -n team > t.yaml");
    for command in ["version", "services", "etcd members"] {
        transcript.ok(&shell, &format!("talosphere talos -c demo --namespace team {command}"));
    }
    transcript.ok(&shell, "talosphere talos -c demo --namespace team -n 10.20.0.11 dmesg | head -5");
    transcript.ok(&shell, "talosphere scale machinedeployment/demo-workers --replicas 5 -n team");
    transcript.ok(&shell, "talosphere get machinedeployments -n team");
    let error = shell.fails("talosphere delete cluster demo -n team", 3);
    transcript.add("talosphere delete cluster demo -n team", "", &error);
    let deleted = shell.run("talosphere delete cluster demo -n team --yes");
    let text = String::from_utf8_lossy(&deleted.stderr).into_owned();
    assert!(deleted.status.success() && text.contains("0 left behind"), "{text}");
    transcript.add("talosphere delete cluster demo -n team --yes", "", &text);
    simulator.end();
    transcript.check("journey.txt");
}
