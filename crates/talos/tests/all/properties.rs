//! Properties of generated secrets and configurations, over seeds.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use proptest::prelude::*;
use runtime::clock::Clock;
use runtime::keys::{KeySource, Prepared, PrivateKey};
use runtime::random::Random;
use runtime::x509::Facts;
use serde_json::Value;
use talos::clientconfig::{ADMIN, ClientConfig, ClientIdentity};
use talos::config::{Input, MachineConfig, MachineType, generate};
use talos::contract::Contract;
use talos::kubeconfig::{self, KubeconfigInput};
use talos::secrets::{Bundle, SecretsError};

const NOW: &str = "2026-01-01T00:00:00Z";

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

struct World {
    keys: Arc<dyn KeySource>,
    random: Random,
    clock: Clock,
}

fn world(seed: u64) -> World {
    let random = Random::seeded(seed);
    World { keys: Arc::new(Prepared::new(random.child("keys"))), random, clock: Clock::starting_at(NOW.parse().unwrap()) }
}

fn bundle(seed: u64, contract: &str) -> Bundle {
    run(async {
        let world = world(seed);
        Bundle::generate(contract.parse().unwrap(), &*world.keys, &world.random, &world.clock).await.unwrap()
    })
}

fn is_token(text: &str) -> bool {
    let (left, right) = text.split_once('.').unwrap_or_default();
    left.len() == 6 && right.len() == 16 && (left.to_owned() + right).bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

/// Every text in the tree, decoded from base64 where it is base64.
fn texts(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.values().for_each(|inner| texts(inner, out)),
        Value::Array(items) => items.iter().for_each(|inner| texts(inner, out)),
        Value::String(text) => {
            out.push(text.clone());
            out.extend(STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok()));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_bundle_is_complete_and_survives_its_text(seed: u64, minor in 3u32..=13) {
        let contract = format!("v1.{minor}");
        let made = bundle(seed, &contract);
        made.validate().unwrap();
        prop_assert!(is_token(&made.bootstrap_token) && is_token(&made.trustd_token));
        prop_assert_eq!(STANDARD.decode(&made.cluster_secret).unwrap().len(), 32);
        prop_assert_eq!(Bundle::from_yaml(&made.to_yaml()).unwrap().to_yaml(), made.to_yaml());
        prop_assert_eq!(bundle(seed, &contract).to_yaml(), made.to_yaml());
        for (pair, organizations) in [(&made.etcd, vec!["etcd"]), (&made.kubernetes, vec!["kubernetes"]), (&made.aggregator, vec![]), (&made.os, vec!["talos"])] {
            let facts = pair.authority().unwrap().facts().unwrap();
            prop_assert_eq!(facts.organizations, organizations);
            prop_assert_eq!(facts.not_after.duration_since(facts.not_before).as_hours(), 87_600);
            prop_assert!(facts.is_authority && facts.authority_key_id.is_none() && facts.subject_key_id.is_some());
        }
        prop_assert!(made.os.key.starts_with("-----BEGIN ED25519 PRIVATE KEY-----\n"));
        let label = if minor > 6 { "RSA" } else { "EC" };
        let starts = format!("-----BEGIN {label} PRIVATE KEY-----\n");
        prop_assert!(made.service_account_key.starts_with(&starts));
    }

    #[test]
    fn a_worker_holds_no_key_and_shares_the_authorities(seed: u64, minor in 3u32..=13) {
        let contract: Contract = format!("v1.{minor}").parse().unwrap();
        let bundle = bundle(seed, "v1.4");
        let input = Input::new("c", "https://10.0.0.1:6443", "v1.30.0", contract, &bundle);
        let (plane, worker) = (generate(&input, MachineType::ControlPlane).unwrap(), generate(&input, MachineType::Worker).unwrap());
        let mut found = Vec::new();
        worker.documents().iter().for_each(|document| texts(document, &mut found));
        prop_assert!(found.iter().all(|text| !text.contains("PRIVATE KEY")));
        for path in ["/machine/ca/crt", "/cluster/ca/crt"] {
            prop_assert_eq!(plane.legacy().unwrap().pointer(path), worker.legacy().unwrap().pointer(path));
        }
        for config in [&plane, &worker] {
            config.check_keys().unwrap();
            let text = config.to_yaml();
            prop_assert_eq!(MachineConfig::from_yaml(&text).unwrap().to_yaml(), text);
        }
        prop_assert_eq!(plane.kubernetes_authority().unwrap().key, bundle.kubernetes.key.clone());
        prop_assert_eq!(worker.kubernetes_authority(), None);
        let read = MachineConfig::from_yaml(&plane.to_yaml()).unwrap();
        prop_assert!(read.bundle().unwrap() == bundle, "a control plane's configuration holds the whole bundle");
        prop_assert!(worker.bundle().is_err());
    }
}

#[test]
fn client_credentials_are_backdated_and_read_back() {
    run(async {
        let world = world(7);
        let bundle = Bundle::generate("v1.4".parse().unwrap(), &*world.keys, &world.random, &world.clock).await.unwrap();
        let identity = ClientIdentity::issue(&bundle, &[ADMIN], &*world.keys, &world.random, &world.clock).await.unwrap();
        let now: Timestamp = NOW.parse().unwrap();
        let facts = identity.facts().unwrap();
        assert_eq!(facts.organizations, [ADMIN]);
        assert_eq!(facts.common_name, None);
        assert!(facts.not_before < now);
        assert!(!identity.is_due(now));
        assert!(identity.is_due(now + jiff::SignedDuration::from_hours(6200)));
        let config =
            ClientConfig { context: "c".into(), endpoints: vec!["10.0.0.1".into()], identity, proxy_url: Some("http://p:1".into()) };
        let read = ClientConfig::from_yaml(&config.to_yaml()).unwrap();
        assert_eq!(read.to_yaml(), config.to_yaml());
        assert!(PrivateKey::from_pem(&read.identity.key.to_pem()).is_ok());

        let input = KubeconfigInput { cluster_name: "c", server: "https://c:6443", proxy_url: None };
        let text = kubeconfig::generate(&input, &bundle.kubernetes, &*world.keys, &world.random, &world.clock).await.unwrap();
        assert!(text.contains("current-context: c-admin@c\n"));
        let written = kubeconfig::Written::read(&text).unwrap();
        assert!(!written.is_stale(&input, &bundle.kubernetes, now));
        assert!(written.is_stale(&KubeconfigInput { server: "https://d:6443", ..input.clone() }, &bundle.kubernetes, now));
        assert!(written.is_stale(&KubeconfigInput { proxy_url: Some("http://p:1"), ..input.clone() }, &bundle.kubernetes, now));
        assert!(written.is_stale(&input, &bundle.etcd, now));
        assert!(written.is_stale(&input, &bundle.kubernetes, now + jiff::SignedDuration::from_hours(6200)));
    });
}

#[test]
fn an_unusable_bundle_is_refused_by_the_part() {
    let text = bundle(1, "v1.4").to_yaml();
    let replaced = |path: &str, with: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(path)).unwrap();
        text.replacen(line.trim_start(), &format!("{path} {with}"), 1)
    };
    let error = |text: &str| Bundle::from_yaml(text).unwrap_err();
    assert!(matches!(error(&replaced("token:", "\"\"")), SecretsError::Missing { path: "trustdinfo.token" }));
    assert!(matches!(error(&replaced("key:", "'******'")), SecretsError::Redacted { path: "certs.etcd.key" }));
    assert!(matches!(error(&replaced("crt:", "'*x*'")), SecretsError::NotBase64 { path: "certs.etcd.crt" }));
    assert!(matches!(error(&replaced("crt:", &STANDARD.encode("text"))), SecretsError::Invalid { path: "certs.etcd", .. }));
    assert!(matches!(error(&replaced("secret:", &STANDARD.encode("short"))), SecretsError::Invalid { path: "cluster.secret", .. }));
    let two = text.replacen("secrets:\n", "secrets:\n    aescbcencryptionsecret: AAAA\n", 1);
    assert!(matches!(error(&two), SecretsError::TwoEncryptionSecrets));
    let aes = text.replace("secretboxencryptionsecret", "aescbcencryptionsecret");
    assert_eq!(Bundle::from_yaml(&aes).unwrap().to_yaml(), aes);
    let go = text.replace("bootstraptoken", "BootstrapToken").replace("trustdinfo", "TrustdInfo").replace("k8saggregator", "K8sAggregator");
    assert_eq!(Bundle::from_yaml(&go).unwrap().to_yaml(), text, "the JSON's names are read as well");
    let error = SecretsError::Invalid { path: "certs.etcd", reason: String::new() };
    assert!(!error.to_string().contains("PRIVATE"));
    assert_eq!(format!("{:?}", bundle(1, "v1.4")), "Bundle");
}

#[test]
fn the_older_layout_is_read() {
    let made = bundle(3, "v1.4");
    let document = talos::yaml::read(&made.to_yaml()).unwrap().remove(0);
    let part = |name: &str| talos::yaml::write(&document[name], talos::yaml::Layout::Structured);
    let read = Bundle::from_legacy(&part("certs"), &part("secrets"), &part("trustdinfo")).unwrap();
    assert_eq!(read.os, made.os);
    assert_eq!(Bundle::from_legacy(&part("certs"), &part("secrets"), &part("trustdinfo")).unwrap().to_yaml(), read.to_yaml());
    assert_eq!(read.trustd_token, made.trustd_token);
    assert_eq!(read.bootstrap_token, made.bootstrap_token);
}

#[test]
fn an_authority_signs_what_its_leaf_says() {
    run(async {
        let world = world(9);
        let bundle = Bundle::generate("v1.8".parse().unwrap(), &*world.keys, &world.random, &world.clock).await.unwrap();
        let identity = ClientIdentity::issue(&bundle, &["os:reader", ADMIN], &*world.keys, &world.random, &world.clock).await.unwrap();
        let der = runtime::x509::certificate_from_pem(&identity.certificate).unwrap();
        let facts = Facts::read(&der).unwrap();
        assert_eq!(facts.authority_key_id, bundle.os.authority().unwrap().facts().unwrap().subject_key_id);
        assert_eq!(facts.organizations, ["os:admin", "os:reader"]);
    });
}
