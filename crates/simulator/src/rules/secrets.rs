//! Rule 7: secrets are made once and are seen nowhere.
//!
//! What is secret is learned from the truth: passwords and tokens and private keys out of the management server's Secrets and out of the
//! machine configurations that stand in the virtual machines' settings. A violation names where and which, never the value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;

use apimachinery::meta;
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

/// A set of pairs of bytes.
struct Starts(Box<[u64; 1024]>);

impl Default for Starts {
    fn default() -> Self {
        Self(Box::new([0; 1024]))
    }
}

impl fmt::Debug for Starts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Starts")
    }
}

impl Starts {
    /// Word and bit of the pair that `text` begins with.
    fn place(text: &[u8]) -> Option<(usize, u64)> {
        let [first, second, ..] = text else { return None };
        Some((usize::from(*first) << 2 | usize::from(*second) >> 6, 1 << (second & 63)))
    }

    fn add(&mut self, text: &[u8]) {
        if let Some((word, bit)) = Self::place(text) {
            self.0[word] |= bit;
        }
    }

    fn has(&self, text: &[u8]) -> bool {
        Self::place(text).is_some_and(|(word, bit)| self.0[word] & bit != 0)
    }
}

/// What must not be seen.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Value, and what it is.
    secrets: BTreeMap<Vec<u8>, String>,
    /// The pairs of bytes that secrets begin with, a bit for each: a text is looked through once, however many secrets there are.
    starts: Starts,
    /// Digests of the texts that were read already.
    read: BTreeSet<[u8; 32]>,
    /// The encoded configuration last seen in a machine's settings, by machine and key: most events change none.
    settings: BTreeMap<(VmId, &'static str), String>,
    /// What the bundle of each cluster that lives holds, by the cluster's uid.
    bundles: BTreeMap<String, Value>,
}

impl Memory {
    pub fn add(&mut self, what: &str, value: &str) {
        let value = value.trim();
        if value.len() >= SHORTEST {
            self.starts.add(value.as_bytes());
            self.secrets.entry(value.as_bytes().to_vec()).or_insert_with(|| what.to_owned());
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
                // A taint's key names it.
                let is_taint = map.contains_key("effect");
                for (key, below) in map {
                    match below.as_str() {
                        Some(_) if is_taint && key == "key" => {}
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
    pub fn saw(&self, source: impl fmt::Display, seen: &str) -> Vec<Violation> {
        let seen = seen.as_bytes();
        let mut shown: BTreeMap<&[u8], &str> = BTreeMap::new();
        for (at, start) in seen.windows(2).enumerate().filter(|(_, start)| self.starts.has(start)) {
            let alike = self.secrets.range::<[u8], _>((Bound::Included(start), Bound::Unbounded));
            let alike = alike.take_while(|(value, _)| value.starts_with(start));
            shown.extend(alike.filter(|(value, _)| seen[at..].starts_with(value)).map(|(value, what)| (value.as_slice(), what.as_str())));
        }
        shown.into_values().map(|what| violation(7, "a secret was shown", format!("{what}, in {source}"))).collect()
    }

    /// The bundle of a cluster, `<cluster>-talos`: never overwritten, never taken away, and never made with other content, while the
    /// cluster lives.
    fn bundle(&mut self, objects: &Objects, key: &Key, before: Option<&Value>, after: Option<&Value>) -> Vec<Violation> {
        let Some(cluster) = key.name.strip_suffix("-talos") else { return Vec::new() };
        let clusters =
            Key { group: "cluster.x-k8s.io".into(), resource: "clusters".into(), namespace: key.namespace.clone(), name: cluster.into() };
        let living = objects.get(&clusters).filter(|object| !is_deleting(object)).map(|object| text(object, "/metadata/uid").to_owned());
        let raw = |object: Option<&Value>| object.and_then(|object| object.pointer("/data/bundle").cloned());
        let mut found = Vec::new();
        match (raw(before), raw(after)) {
            (Some(old), new) if after.is_some() && new.as_ref() != Some(&old) => {
                found.push(violation(7, "a secrets bundle was overwritten", key.to_string()));
            }
            (Some(_), None) if living.is_some() => {
                found.push(violation(7, "a secrets bundle was deleted while its cluster lives", key.to_string()));
            }
            _ => {}
        }
        let Some(uid) = living else { return found };
        if let Some(old) = before.and_then(content) {
            self.bundles.entry(uid.clone()).or_insert(old);
        }
        if let Some(new) = after.and_then(content) {
            let known = self.bundles.entry(uid).or_insert_with(|| new.clone());
            if before.is_none() && *known != new {
                found.push(violation(7, "another secrets bundle was made for a cluster that lives", key.to_string()));
            }
        }
        found
    }

    /// A write: the bundle is made once, and no event or condition shows a secret.
    pub fn wrote(&mut self, objects: &Objects, key: &Key, before: Option<&Value>, after: Option<&Value>) -> Vec<Violation> {
        let mut found = Vec::new();
        if key.is("", "secrets") {
            if let Some(object) = after {
                self.learn(object);
            }
            found.extend(self.bundle(objects, key, before, after));
            return found;
        }
        let Some(object) = after else { return found };
        if key.resource == "events" {
            for pointer in ["/message", "/note", "/reason"] {
                found.extend(self.saw(format_args!("event {}/{}", key.namespace, key.name), text(object, pointer)));
            }
        }
        for pointer in ["/status/conditions", "/status/deprecated/v1beta1/conditions", "/status/v1beta2/conditions"] {
            for condition in meta::pointer(object, pointer).and_then(Value::as_array).into_iter().flatten() {
                found.extend(self.saw(format_args!("condition {} of {key}", text(condition, "/type")), text(condition, "/message")));
            }
        }
        for pointer in ["/status/failureMessage", "/status/deprecated/v1beta1/failureMessage"] {
            found.extend(self.saw(format_args!("failure of {key}"), text(object, pointer)));
        }
        found
    }
}

fn is_secret_key(key: &str) -> bool {
    let plain = key.to_lowercase().replace(['-', '_'], "");
    SECRET_KEYS.contains(&plain.as_str())
}

/// What a bundle's Secret holds, however it is written.
fn content(secret: &Value) -> Option<Value> {
    let encoded = secret.pointer("/data/bundle")?.as_str()?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    let document = String::from_utf8(bytes).ok().and_then(|content| serde_saphyr::from_str::<Value>(&content).ok());
    Some(document.unwrap_or_else(|| Value::String(encoded.to_owned())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_taint_is_no_secret_and_a_key_is() {
        let mut memory = Memory::default();
        memory.learn_document("a document", "taints:\n- key: example.com/taint\n  effect: NoSchedule\nca:\n  key: abcdefgh\n");
        assert!(memory.saw("a text", "it has example.com/taint").is_empty());
        assert_eq!(memory.saw("a text", "it is abcdefgh").len(), 1);
    }

    proptest! {
        #[test]
        fn a_secret_is_seen_wherever_it_stands(
            secrets in proptest::collection::vec("[abé]{6,9}", 0..12),
            text in "[abé ]{0,60}",
        ) {
            let mut memory = Memory::default();
            for secret in &secrets {
                memory.add("a secret", secret);
            }
            let is_shown = secrets.iter().any(|secret| text.contains(secret.as_str()));
            prop_assert_eq!(!memory.saw("a text", &text).is_empty(), is_shown);
        }
    }
}
