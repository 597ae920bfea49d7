//! What a machine finds in its `guestinfo` variables: the machine configuration and the platform's network settings.
//!
//! Values are plain standard base64; a declared encoding is ignored, as Talos ignores it. Compressed values and the OVF environment,
//! which a real node reads as well, are not modelled: a compressed value is an error that says so.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde::Deserialize;
use thiserror::Error;

/// The variables that may hold the configuration, first non-empty one wins.
const CONFIGURATION_KEYS: [&str; 2] = ["guestinfo.talos.config", "guestinfo.userdata"];
const METADATA_KEY: &str = "guestinfo.metadata";

/// What cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GuestinfoError {
    #[error("failed to decode {key}: it is not standard base64")]
    Encoding { key: &'static str },
    #[error("{key} holds compressed data, which the simulated machine does not unpack")]
    Compressed { key: &'static str },
    #[error("failed to parse {METADATA_KEY}: {reason}")]
    Metadata { reason: String },
    #[error("network-config metadata version={version} is not supported")]
    Version { version: i64 },
}

/// The machine configuration, decoded; `None` when every variable is empty.
pub fn configuration(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Vec<u8>>, GuestinfoError> {
    for key in CONFIGURATION_KEYS {
        let Some(value) = get(key).filter(|value| !value.trim().is_empty()) else { continue };
        return decode(key, &value).map(Some);
    }
    Ok(None)
}

fn decode(key: &'static str, value: &str) -> Result<Vec<u8>, GuestinfoError> {
    let compact: String = value.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(compact.trim()).map_err(|_| GuestinfoError::Encoding { key })?;
    if bytes.starts_with(&[0x1f, 0x8b]) { Err(GuestinfoError::Compressed { key }) } else { Ok(bytes) }
}

/// The platform's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    pub hostname: Option<String>,
    pub adapters: Vec<MetadataAdapter>,
}

/// One entry under `ethernets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataAdapter {
    /// As it stands there: it matches only when it is lower case.
    pub mac: Option<String>,
    /// The name that counts when no adapter has the MAC.
    pub name: String,
    pub dhcp4: bool,
    /// With prefix length.
    pub addresses: Vec<String>,
}

#[derive(Deserialize)]
struct RawMetadata {
    #[serde(rename = "local-hostname", default)]
    local_hostname: String,
    #[serde(default)]
    network: RawNetwork,
}

#[derive(Default, Deserialize)]
struct RawNetwork {
    #[serde(default)]
    version: i64,
    #[serde(default)]
    ethernets: BTreeMap<String, RawEthernet>,
}

#[derive(Deserialize)]
struct RawEthernet {
    #[serde(rename = "match", default)]
    matching: RawMatch,
    #[serde(rename = "set-name", default)]
    set_name: Option<String>,
    #[serde(default)]
    dhcp4: bool,
    #[serde(default)]
    addresses: Vec<String>,
}

#[derive(Default, Deserialize)]
struct RawMatch {
    #[serde(default)]
    macaddress: Option<String>,
}

/// The platform's settings; the default when there are none. Read at every boot, unlike the configuration.
pub fn metadata(get: &dyn Fn(&str) -> Option<String>) -> Result<Metadata, GuestinfoError> {
    let Some(value) = get(METADATA_KEY).filter(|value| !value.trim().is_empty()) else { return Ok(Metadata::default()) };
    let bytes = decode(METADATA_KEY, &value)?;
    let wrong = |reason: String| GuestinfoError::Metadata { reason };
    let text = String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
    let raw: RawMetadata = serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if raw.network.version != 2 {
        return Err(GuestinfoError::Version { version: raw.network.version });
    }
    let adapters = raw.network.ethernets.into_iter().map(|(id, ethernet)| MetadataAdapter {
        mac: ethernet.matching.macaddress,
        name: ethernet.set_name.unwrap_or(id),
        dhcp4: ethernet.dhcp4,
        addresses: ethernet.addresses,
    });
    Ok(Metadata { hostname: Some(raw.local_hostname).filter(|name| !name.is_empty()), adapters: adapters.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::test_support::{base64, reference};

    fn variables(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<> {
        let map: BTreeMap<String, String> = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        move |key| map.get(key).cloned()
    }

    #[test]
    fn the_first_variable_that_is_not_empty_holds_the_configuration() {
        let (one, two) = (base64("one"), base64("two"));
        for (pairs, expected) in [
            (vec![("guestinfo.talos.config", one.as_str()), ("guestinfo.userdata", &two)], Some("one")),
            (vec![("guestinfo.talos.config", ""), ("guestinfo.userdata", &two)], Some("two")),
            (vec![("guestinfo.userdata", &two), ("guestinfo.userdata.encoding", "plain")], Some("two")),
            (vec![], None),
        ] {
            let read = configuration(&variables(&pairs)).unwrap();
            assert_eq!(read.map(|bytes| String::from_utf8(bytes).unwrap()).as_deref(), expected);
        }
    }

    #[test]
    fn only_base64_is_read() {
        let plain = configuration(&variables(&[("guestinfo.talos.config", "version: v1alpha1")]));
        assert_eq!(plain, Err(GuestinfoError::Encoding { key: "guestinfo.talos.config" }));
        let compressed = configuration(&variables(&[("guestinfo.userdata", "H4sIAAAAAAAAAw==")]));
        assert_eq!(compressed, Err(GuestinfoError::Compressed { key: "guestinfo.userdata" }));
        let wrapped = base64("wrapped over lines").replace("IG", "IG\r\n");
        assert_eq!(configuration(&variables(&[("guestinfo.userdata", &wrapped)])).unwrap().unwrap(), b"wrapped over lines");
    }

    #[test]
    fn genuine_metadata_is_understood() {
        let Some(text) = reference("talos/vmware-metadata/metadata-match-by-mac.yaml") else { return };
        let read = metadata(&variables(&[("guestinfo.metadata", &base64(&text))])).unwrap();
        assert_eq!(read.hostname.as_deref(), Some("vmware-test-controlplane-zhnhr"));
        assert_eq!(read.adapters[0].mac.as_deref(), Some("68:05:ca:b8:f1:f9"));
        assert_eq!(read.adapters[0].addresses, ["192.168.0.230/24"]);
        assert!(!read.adapters[0].dhcp4);
    }

    #[test]
    fn metadata_without_network_version_2_is_an_error() {
        let text = base64("local-hostname: node-1\n");
        assert_eq!(metadata(&variables(&[("guestinfo.metadata", &text)])), Err(GuestinfoError::Version { version: 0 }));
        assert_eq!(metadata(&variables(&[])), Ok(Metadata::default()));
    }
}
