//! Many clusters of one control plane and one worker in one process: what they cost until they are ready, and then.
//!
//! Everything is in memory on paused time: no simulated delays, ready-made RSA keys, plain streams. Each number of clusters has a process
//! of its own, so that its memory is its own as well.

use std::process::Command;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use talosphere::commands::demo::Material;

use super::world::{Setup, World, run};
use super::{figure, memory_of, note, own_cpu};

/// The numbers of clusters; the first and the last are compared.
const NUMBERS: [u32; 5] = [10, 30, 100, 300, 1000];
/// For how long ready clusters are watched, virtual time.
const IDLE: Duration = Duration::from_secs(600);
/// The argument that makes this process the one of a number of clusters.
const ALONE: &str = "--clusters=";

/// What one number of clusters costs.
struct Cost {
    clusters: u32,
    /// CPU seconds until all are ready.
    ready: f64,
    /// Share of a core when nothing happens, in percent.
    idle: f64,
    /// Most resident memory, MiB.
    memory: f64,
}

/// Does the work of a process of its own, if this is one.
pub fn is_alone() -> bool {
    let wanted = std::env::args().find_map(|argument| argument.strip_prefix(ALONE)?.parse::<u32>().ok());
    if let Some(clusters) = wanted {
        let cost = bring_up(clusters);
        println!("{} {} {} {}", cost.clusters, cost.ready, cost.idle, cost.memory);
    }
    wanted.is_some()
}

/// A pool range for each cluster, out of networks of their own.
fn ranges(material: &mut Material) {
    material.workload.clear();
    for (name, text) in &mut material.files {
        if name == "ipam.yaml" {
            *text = text.replace("10.20.0.", "${NETWORK}.");
        }
    }
    material.set.extend(of_cluster(0));
}

fn of_cluster(number: u32) -> [String; 3] {
    let network = format!("10.{}.{}", 32 + number / 250, number % 250);
    [format!("CLUSTER_NAME=c{number}"), format!("CONTROL_PLANE_ENDPOINT=c{number}.k8s.example.com"), format!("NETWORK={network}")]
}

fn bring_up(clusters: u32) -> Cost {
    run(1, async {
        let setup = Setup { speed: 0.0, edit: Some(ranges), is_checked: false, ..Setup::new(1, 1, 1) };
        let mut world = World::start(&setup).await;
        let before = own_cpu();
        let shared = world.material.set.len();
        for number in 0..clusters {
            // Those of the one before would be read again for each that follows.
            world.material.set.truncate(shared);
            world.material.set.extend(of_cluster(number));
            let order = world.material.order(&world.simulator.vcenter_thumbprint(), Some("default")).unwrap();
            let (user, password) = order.login.clone().unwrap();
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("c{number}")},
                "stringData": {"username": user, "password": password}});
            let api = world.api();
            api.send(Method::POST, "/api/v1/namespaces/default/secrets", Some("application/json"), Some(&secret)).await.unwrap();
            for manifest in &order.manifests {
                api.apply(manifest, "default").await.unwrap();
            }
        }
        let is_ready = |machine: &Value| {
            let conditions = machine.pointer("/status/conditions").and_then(Value::as_array);
            conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
        };
        let ready = || world.server.snapshot_of("cluster.x-k8s.io", "machines").iter().filter(|machine| is_ready(machine)).count();
        let (mut waited, wanted) = (0, usize::try_from(2 * clusters).unwrap());
        while ready() < wanted {
            waited += 1;
            assert!(waited < 3600, "{} of {wanted} machines are ready", ready());
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let up = own_cpu();
        // What follows the last machine is no idling.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = own_cpu();
        tokio::time::sleep(IDLE).await;
        let idle = (own_cpu() - begun) / IDLE.as_secs_f64() * 100.0;
        Cost { clusters, ready: up - before, idle, memory: memory_of(std::process::id(), "VmHWM") }
    })
}

fn alone(clusters: u32) -> Cost {
    let output = Command::new(std::env::current_exe().unwrap()).arg(format!("{ALONE}{clusters}")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    Cost { clusters, ready: numbers[1], idle: numbers[2], memory: numbers[3] }
}

/// Prints what they cost; `UPDATE=1` draws it again for the docs.
pub fn clusters() {
    let costs = NUMBERS.map(alone);
    let [few, .., many] = &costs;
    let each = |cost: &Cost| cost.ready / f64::from(cost.clusters);
    figure("1000 clusters of one control plane and one worker, in memory: CPU", many.ready, "s", 180.0);
    figure("  most resident memory", many.memory, "MiB", 1536.0);
    figure("  share of a core when nothing happens", many.idle, "%", 5.0);
    figure("  cost of a cluster at 1000 beside that at 10", each(many) / each(few), "times", 1.2);
    for cost in &costs {
        let all = (each(cost) * 1000.0, cost.idle, cost.memory);
        note(&format!("{} clusters: {:.0} ms of CPU each, {:.2} % of a core idle, {:.0} MiB", cost.clusters, all.0, all.1, all.2));
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(super::root().join("docs/clusters.svg"), draw(&costs)).unwrap();
    }
}

/// Milliseconds of CPU for a cluster over the number of clusters, which grows to the right by powers of ten.
fn draw(costs: &[Cost]) -> String {
    let most = costs.iter().map(|cost| cost.ready / f64::from(cost.clusters) * 1000.0).fold(0.0, f64::max);
    let x = |clusters: u32| 60.0 + (f64::from(clusters).log10() - 1.0) * 250.0;
    let y = |each: f64| 240.0 - each / most * 190.0;
    let each = |cost: &Cost| cost.ready / f64::from(cost.clusters) * 1000.0;
    let line: Vec<String> = costs.iter().map(|cost| format!("{:.1},{:.1}", x(cost.clusters), y(each(cost)))).collect();
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 620 290\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"620\" height=\"290\" fill=\"white\"/>\n<path d=\"M60 40V240H590\" fill=\"none\" stroke=\"black\"/>\n<text x=\"60\" y=\"25\">CPU until ready for each cluster of one control plane and one worker, ms</text>\n<text x=\"590\" y=\"282\" text-anchor=\"end\">clusters in one process</text>\n",
    );
    svg.push_str(&format!("<polyline points=\"{}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"2\"/>\n", line.join(" ")));
    for cost in costs {
        let (x, y, each) = (x(cost.clusters), y(each(cost)), each(cost));
        svg.push_str(&format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#06c\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{each:.0}</text><text x=\"{x:.1}\" y=\"258\" text-anchor=\"middle\">{}</text>\n", y - 10.0, cost.clusters));
    }
    svg.push_str("</svg>\n");
    svg
}
