//! The real kubectl against the server, over TLS on loopback. Skipped with a message where kubectl is absent; with `CI=true` that is a failure.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use apiserver::{ApiServer, MemoryJournal, Options};
use runtime::clock::Clock;
use runtime::random::Random;
use runtime::tls::Tls;
use runtime::x509::Usages;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::serving::Pki;
use crate::support::definitions;

/// kubectl with its own home, a kubeconfig for the server, and nothing of the caller's environment.
struct Kubectl {
    home: tempfile::TempDir,
    path: String,
    /// Features that are not on by default.
    features: Vec<&'static str>,
}

impl Kubectl {
    async fn run(&self, arguments: &str, input: &str) -> (bool, String) {
        let home = self.home.path().to_owned();
        let (path, input, features) = (self.path.clone(), input.to_owned(), self.features.clone());
        let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        let run = move || {
            let mut child = Command::new("kubectl")
                .args(["--cache-dir", &home.join("cache").display().to_string()])
                .args(arguments)
                .env_clear()
                .env("PATH", path)
                .env("HOME", &home)
                .env("KUBECONFIG", home.join("config"))
                .envs(features.iter().map(|feature| (format!("KUBE_FEATURE_{feature}"), "true")))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            (output.status.success(), text)
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    /// What a command that must succeed prints.
    #[track_caller]
    fn ok<'a>(&'a self, arguments: &'a str) -> impl Future<Output = String> + 'a {
        self.fed(arguments, "")
    }

    async fn fed(&self, arguments: &str, input: &str) -> String {
        let (is_ok, text) = self.run(arguments, input).await;
        assert!(is_ok, "kubectl {arguments}: {text}");
        text
    }

    /// What a command that must fail prints.
    async fn fails(&self, arguments: &str, input: &str) -> String {
        let (is_ok, text) = self.run(arguments, input).await;
        assert!(!is_ok, "kubectl {arguments} should fail: {text}");
        text
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[allow(clippy::disallowed_methods)] // a test looks for the tool it needs
async fn start() -> Option<(ApiServer, Kubectl, CancellationToken)> {
    let path = std::env::var("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join("kubectl").is_file());
    if !is_there {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "kubectl is not on PATH, and CI needs it");
        eprintln!("skipped: kubectl is not on PATH");
        return None;
    }
    // kubectl checks certificates by the machine's clock, so the server shows it too; the certificates hold for ten years.
    let clock = Clock::system();
    let options = Options { crds: definitions().into(), ..Options::new(clock.clone(), Random::seeded(1), Box::new(MemoryJournal::new())) };
    let server = ApiServer::open(options).await.unwrap();
    let pki = Pki::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shutdown = CancellationToken::new();
    tokio::spawn({
        let (server, own, shutdown) = (server.clone(), pki.server().await, shutdown.clone());
        async move { server.serve(Box::new(listener), Tls::real(clock), own, shutdown).await }
    });
    let home = tempfile::tempdir().unwrap();
    let (_, certificate, key) = pki.issue("ann", &["system:masters"], Usages::CLIENT).await;
    for (name, text) in [("ca.crt", &pki.authority.certificate_pem), ("tls.crt", &certificate), ("tls.key", &key)] {
        write(&home.path().join(name), text);
    }
    let at = home.path().display();
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u, namespace: default}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority: '{at}/ca.crt'}}}}]\n\
         users: [{{name: u, user: {{client-certificate: '{at}/tls.crt', client-key: '{at}/tls.key'}}}}]\n"
    );
    write(&home.path().join("config"), &config);
    Some((server, Kubectl { home, path, features: Vec::new() }, shutdown))
}

const THING: &str = "apiVersion: test.example/v1\nkind: Thing\nmetadata:\n  name: a\nspec:\n  size: small\n  note: 'on'\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_everyday_commands_work() {
    let Some((server, kubectl, shutdown)) = start().await else { return };
    assert!(kubectl.ok("version").await.contains("Server Version: v1.33"));
    assert!(kubectl.ok("api-resources --api-group=test.example").await.contains("things"));
    assert_eq!(kubectl.ok("create ns demo").await, "namespace/demo created\n");
    assert_eq!(kubectl.ok("create secret generic s --from-literal=username=u -n demo").await, "secret/s created\n");
    assert_eq!(kubectl.ok("get secret s -n demo -o jsonpath={.data.username}").await, "dQ==");
    assert_eq!(kubectl.ok("create cm m --from-literal=x=1 -n demo").await, "configmap/m created\n");
    assert_eq!(kubectl.fed("apply -f - -n demo", THING).await, "thing.test.example/a created\n");
    assert_eq!(kubectl.fed("apply -f - -n demo", THING).await, "thing.test.example/a unchanged\n");
    assert_eq!(kubectl.fed("apply -f - -n demo", &THING.replace("small", "large")).await, "thing.test.example/a configured\n");
    let unknown = kubectl.fails("apply -f - -n demo", &THING.replace("note", "nute")).await;
    assert!(unknown.contains("strict decoding error: unknown field \"spec.nute\""), "{unknown}");
    let invalid = kubectl.fails("apply --validate=false -f - -n demo", &THING.replace("small", "huge")).await;
    assert!(invalid.contains("The Thing \"a\" is invalid: spec.size: Unsupported value: \"huge\""), "{invalid}");
    let table = kubectl.ok("get things -n demo").await;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((lines[0].as_slice(), &lines[1][..2]), (&["NAME", "SIZE", "AGE"] as &[&str], &["a", "large"] as &[&str]));
    assert!(kubectl.ok("get th,cm -A").await.contains("thing.test.example/a"));
    assert!(kubectl.ok("get toys -n demo").await.contains("large"), "by category");
    let yaml = kubectl.ok("get thing a -n demo -o yaml").await;
    assert!(yaml.contains("note: \"on\"") && yaml.contains("size: large") && yaml.contains("kind: Thing"), "{yaml}");
    assert!(kubectl.ok("get pods -A").await.contains("No resources found"));
    assert!(kubectl.ok("get nodes").await.contains("No resources found"));
    assert_eq!(kubectl.ok("label thing a tier=gold -n demo").await, "thing.test.example/a labeled\n");
    assert_eq!(kubectl.ok("annotate thing a note=x -n demo").await, "thing.test.example/a annotated\n");
    assert!(kubectl.ok("get things -l tier=gold -n demo -o name").await.contains("thing.test.example/a"));
    assert_eq!(kubectl.ok("scale thing a --replicas=5 -n demo").await, "thing.test.example/a scaled\n");
    assert_eq!(kubectl.ok("get thing a -n demo -o jsonpath={.spec.replicas}").await, "5");
    assert!(kubectl.ok("describe thing a -n demo").await.contains("Size:"));
    assert!(kubectl.ok("describe ns demo").await.contains("Active"));
    assert_eq!(kubectl.ok("patch cm m -n demo -p {\"data\":{\"z\":\"2\"}}").await, "configmap/m patched\n");
    assert_eq!(
        kubectl.ok("patch thing a -n demo --subresource=status --type merge -p {\"status\":{\"phase\":\"Up\"}}").await,
        "thing.test.example/a patched\n"
    );
    assert!(kubectl.ok("wait --for=jsonpath={.status.phase}=Up thing/a -n demo --timeout=10s").await.contains("condition met"));
    assert_eq!(kubectl.ok("auth can-i get things -n demo").await, "yes\n");
    assert!(kubectl.ok("auth whoami").await.contains("ann"));
    assert!(
        kubectl.fails("get thing none -n demo", "").await.contains("Error from server (NotFound): things.test.example \"none\" not found")
    );
    assert!(kubectl.ok("get crd").await.contains("things.test.example"));
    assert!(kubectl.ok("get crd --chunk-size=1 -o name").await.lines().count() == 2);
    assert_eq!(
        kubectl.fed("apply --dry-run=server -f - -n demo", &THING.replace("name: a", "name: dry")).await,
        "thing.test.example/dry created (server dry run)\n"
    );
    shutdown.cancel();
    server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_are_waited_for() {
    let Some((server, kubectl, shutdown)) = start().await else { return };
    kubectl.ok("create ns demo").await;
    kubectl.fed("apply -f - -n demo", THING).await;
    assert_eq!(kubectl.ok("delete thing a -n demo --timeout=20s").await, "thing.test.example \"a\" deleted\n");
    kubectl.fed("apply -f - -n demo", THING).await;
    assert_eq!(kubectl.ok("delete thing a -n demo --cascade=foreground --timeout=20s").await, "thing.test.example \"a\" deleted\n");
    let watching = kubectl.ok("get things -n demo -o name --watch --request-timeout=5s");
    let changing = async {
        kubectl.fed("apply -f - -n demo", THING).await;
        kubectl.fed("apply -f - -n demo", &THING.replace("name: a", "name: b")).await;
    };
    let ((_, seen), ()) = tokio::join!(async { (true, watching.await) }, changing);
    assert!(seen.contains("thing.test.example/a") && seen.contains("thing.test.example/b"), "{seen}");
    let both = format!("{THING}---\n{}", THING.replace("name: a", "name: b"));
    assert_eq!(
        kubectl.fed("delete -f - -n demo --timeout=20s", &both).await,
        "thing.test.example \"a\" deleted\nthing.test.example \"b\" deleted\n"
    );
    kubectl.ok("create cm left --from-literal=x=1 -n demo").await;
    assert_eq!(kubectl.ok("delete ns demo --timeout=20s").await, "namespace \"demo\" deleted\n");
    assert!(kubectl.fails("get ns demo", "").await.contains("NotFound"));
    assert!(kubectl.fails("delete ns default", "").await.contains("this namespace may not be deleted"));
    shutdown.cancel();
    server.close().await;
}

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: d\nspec:\n  replicas: 2\n  selector:\n    matchLabels: {a: d}\n  \
template:\n    metadata:\n      labels: {a: d}\n    spec:\n      containers:\n      - name: one\n        image: i:1\n        env: [{name: FIRST, value: 'x'}, {name: SECOND, value: 'y'}]\n";

/// kubectl takes merge keys of the built-in kinds from itself, and the parameters of operations from OpenAPI.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn built_in_kinds_are_applied_and_kinds_explained() {
    let Some((server, kubectl, shutdown)) = start().await else { return };
    assert_eq!(kubectl.fed("apply -f -", DEPLOYMENT).await, "deployment.apps/d created\n");
    assert_eq!(kubectl.fed("apply -f -", DEPLOYMENT).await, "deployment.apps/d unchanged\n");
    let changed = DEPLOYMENT.replace("i:1", "i:2").replace("{name: FIRST, value: 'x'}, ", "");
    assert_eq!(kubectl.fed("apply -f -", &changed).await, "deployment.apps/d configured\n");
    let containers =
        "get deployment d -o jsonpath={.spec.template.spec.containers[*].image}:{.spec.template.spec.containers[0].env[*].name}";
    assert_eq!(kubectl.ok(containers).await, "i:2:SECOND");
    assert_eq!(kubectl.ok("rollout restart deployment d").await, "deployment.apps/d restarted\n");
    assert_eq!(kubectl.ok("scale deployment d --replicas=3").await, "deployment.apps/d scaled\n");
    let wide = kubectl.ok("get deployments -o wide").await;
    assert!(wide.contains("CONTAINERS") && wide.contains("0/3") && wide.contains("a=d"), "{wide}");
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: node}\n";
    assert_eq!(kubectl.fed("create -f -", node).await, "node/node created\n");
    assert_eq!(kubectl.ok("cordon node").await, "node/node cordoned\n");
    assert_eq!(kubectl.ok("taint node node a=b:NoSchedule").await, "node/node tainted\n");
    assert!(kubectl.ok("get nodes").await.contains("SchedulingDisabled"));
    assert!(kubectl.ok("explain things.spec.size").await.contains("FIELD: size <string>"));
    assert!(kubectl.ok("explain secret.stringData").await.contains("VERSION:    v1"));
    assert!(kubectl.ok("explain things.metadata.labels").await.contains("map[string]string"));
    shutdown.cancel();
    server.close().await;
}

/// Reads the list's state with the way newer clients start a watch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_with_streamed_lists_works() {
    let Some((server, mut kubectl, shutdown)) = start().await else { return };
    kubectl.fed("apply -f -", THING).await;
    let raw = kubectl.ok("get --raw /api/v1/namespaces?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1").await;
    assert!(raw.contains("k8s.io/initial-events-end"), "{raw}");
    // What newer clients do by default: without the bookmark they would wait for ever.
    kubectl.features.push("WatchListClient");
    kubectl.ok("patch thing a --subresource=status --type merge -p {\"status\":{\"phase\":\"Up\"}}").await;
    assert!(kubectl.ok("wait --for=jsonpath={.status.phase}=Up thing/a --timeout=10s").await.contains("condition met"));
    assert_eq!(kubectl.ok("delete thing a --timeout=20s").await, "thing.test.example \"a\" deleted\n");
    shutdown.cancel();
    server.close().await;
}
