//! Rule 7: secrets are made once and are seen nowhere.
//!
//! What is secret is learned from the truth: passwords and tokens and private keys out of the management server's Secrets and out of the
//! machine configurations that stand in the virtual machines' settings. A violation names where and which, never the value.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::objects::{Key, Objects, is_deleting, text};
use super::{Violation, violation};
use crate::Truth;
use crate::hypervisor::VmId;

/// Shorter texts are in every log by accident.
const SHORTEST: usize = 6;
/// Keys whose value is secret, in lower case without dashes.
const SECRET_KEYS: [&str; 16] = [
    "key",
    "token",
    "secret",
    "bootstraptoken",
    "secretboxencryptionsecret",
    "aescbcencryptionsecret",
    "privatekey",
    "clustersecret",
    "clientkeydata",
    "password",
    "passwd",
    "accesskey",
    "tls.key",
    "tlskey",
    "apikey",
    "credentials",
];

/// What must not be seen.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Value, and what it is.
    secrets: BTreeMap<String, String>,
    /// Digests of the texts that were read already.
    read: BTreeSet<[u8; 32]>,
    /// The encoded configuration last seen in a machine's settings, by machine and key: most events change none.
    settings: BTreeMap<(VmId, &'static str), String>,
}

impl Memory {
    pub fn add(&mut self, what: &str, value: &str) {
        let value = value.trim();
        if value.len() >= SHORTEST {
            self.secrets.entry(value.to_owned()).or_insert_with(|| what.to_owned());
        }
    }

    /// Learns what a Secret of the management server holds.
    pub fn learn(&mut self, object: &Value) {
        if text(object, "/kind") != "Secret" {
            return;
        }
        let name = format!("Secret {}/{}", text(object, "/metadata/namespace"), text(object, "/metadata/name"));
        for (key, value) in object.get("data").and_then(Value::as_object).into_iter().flatten() {
            let bytes = value.as_str().and_then(|value| base64::engine::general_purpose::STANDARD.decode(value).ok());
            let Some(content) = bytes.and_then(|bytes| String::from_utf8(bytes).ok()) else { continue };
            let what = format!("{key} of {name}");
            if is_secret_key(key) || key.ends_with(".password") {
                self.learn_value(&what, &content);
            } else {
                self.learn_document(&what, &content);
            }
        }
    }

    /// A value under a key that says it is secret: itself, and the lines of a key in it.
    fn learn_value(&mut self, what: &str, value: &str) {
        if value.chars().all(|c| c == '*') {
            return;
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(value.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        for content in [Some(value.to_owned()), decoded].into_iter().flatten() {
            if content.contains("-----BEGIN") {
                if content.contains("PRIVATE KEY") {
                    for line in content.lines().filter(|line| !line.starts_with("-----")) {
                        self.add(what, line);
                    }
                }
            } else if !content.trim().contains('\n') {
                self.add(what, &content);
            }
        }
    }

    /// A YAML text: the values under secret keys.
    fn learn_document(&mut self, what: &str, content: &str) {
        if !self.read.insert(Sha256::digest(content).into()) {
            return;
        }
        for document in serde_saphyr::from_multiple::<Value>(content).unwrap_or_default() {
            self.walk(what, &document);
        }
    }

    fn walk(&mut self, what: &str, value: &Value) {
        match value {
            Value::Object(map) => {
                for (key, below) in map {
                    match below.as_str() {
                        Some(scalar) if is_secret_key(key) => self.learn_value(&format!("{key} in {what}"), scalar),
                        _ => self.walk(what, below),
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|element| self.walk(what, element)),
            _ => {}
        }
    }

    /// Learns from the settings of the virtual machines.
    pub fn look_at(&mut self, truth: &Truth) {
        for vm in &truth.vms {
            for key in ["guestinfo.talos.config", "guestinfo.userdata"] {
                let Some(encoded) = vm.extra_config.get(key).filter(|value| !value.is_empty()) else { continue };
                let last = self.settings.entry((vm.id.clone(), key)).or_default();
                if last == encoded {
                    continue;
                }
                last.clone_from(encoded);
                let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok();
                if let Some(content) = bytes.and_then(|bytes| String::from_utf8(bytes).ok()) {
                    self.learn_document(&format!("the machine configuration of {}", vm.name), &content);
                }
            }
        }
    }

    /// Whether a text shows a secret.
    pub fn saw(&self, source: &str, seen: &str) -> Vec<Violation> {
        let shown = self.secrets.iter().filter(|(value, _)| seen.contains(value.as_str()));
        shown.map(|(_, what)| violation(7, "a secret was shown", format!("{what}, in {source}"))).collect()
    }

    /// A write: the bundle is made once, and no event or condition shows a secret.
    pub fn wrote(&mut self, objects: &Objects, key: &Key, before: Option<&Value>, after: Option<&Value>) -> Vec<Violation> {
        let mut found = Vec::new();
        if key.is("", "secrets") {
            if let Some(object) = after {
                self.learn(object);
            }
            found.extend(bundle(objects, key, before, after));
            return found;
        }
        let Some(object) = after else { return found };
        if key.resource == "events" {
            for pointer in ["/message", "/note", "/reason"] {
                found.extend(self.saw(&format!("event {}/{}", key.namespace, key.name), text(object, pointer)));
            }
        }
        for pointer in ["/status/conditions", "/status/deprecated/v1beta1/conditions", "/status/v1beta2/conditions"] {
            for condition in object.pointer(pointer).and_then(Value::as_array).into_iter().flatten() {
                found.extend(self.saw(&format!("condition {} of {key}", text(condition, "/type")), text(condition, "/message")));
            }
        }
        for pointer in ["/status/failureMessage", "/status/deprecated/v1beta1/failureMessage"] {
            found.extend(self.saw(&format!("failure of {key}"), text(object, pointer)));
        }
        found
    }
}

fn is_secret_key(key: &str) -> bool {
    let plain = key.to_lowercase().replace(['-', '_'], "");
    SECRET_KEYS.contains(&plain.as_str())
}

/// The bundle of a cluster: `<cluster>-talos`.
fn bundle(objects: &Objects, key: &Key, before: Option<&Value>, after: Option<&Value>) -> Vec<Violation> {
    let (Some(cluster), Some(before)) = (key.name.strip_suffix("-talos"), before) else { return Vec::new() };
    let bundle = |object: &Value| object.pointer("/data/bundle").cloned();
    let Some(old) = bundle(before) else { return Vec::new() };
    let clusters =
        Key { group: "cluster.x-k8s.io".into(), resource: "clusters".into(), namespace: key.namespace.clone(), name: cluster.into() };
    let lives = objects.get(&clusters).is_some_and(|object| !is_deleting(object));
    match after {
        Some(after) if bundle(after) != Some(old) => vec![violation(7, "a secrets bundle was overwritten", key.to_string())],
        None if lives => vec![violation(7, "a secrets bundle was deleted while its cluster lives", key.to_string())],
        _ => Vec::new(),
    }
}
