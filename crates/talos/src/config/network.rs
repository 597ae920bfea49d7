//! Network settings of one machine: the last patch, after the user's, applied when addresses are known and the NICs' MACs are chosen.
//!
//! NICs are matched by MAC, because the order of names follows the PCI bus; a user's own entry for the same NIC (by MAC or by the name
//! that the NIC will have) is completed, not repeated. A host name that is there already stays: somebody asked for it.

use serde_json::{Map, Value, json};

use super::{ConfigError, MachineConfig, document_name};

/// What one machine is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Set unless the configuration has one.
    pub hostname: Option<String>,
    pub devices: Vec<NetworkDevice>,
    /// Added to the ones that the configuration has.
    pub nameservers: Vec<String>,
    pub search_domains: Vec<String>,
}

/// One NIC. Devices stand in the order of the VM's hardware: the first is `eth0` in the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkDevice {
    /// The MAC that vCenter chose; any case. Without one the device is matched by `interface` or by its place.
    pub mac: Option<String>,
    /// The name in the guest, when it is known.
    pub interface: Option<String>,
    /// With prefix: `172.16.42.230/24`.
    pub addresses: Vec<String>,
    pub gateway4: Option<String>,
    pub gateway6: Option<String>,
    pub dhcp4: bool,
    pub dhcp6: bool,
    pub mtu: Option<u32>,
    pub routes: Vec<Route>,
}

/// A route of a NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// CIDR of the destination.
    pub to: String,
    /// The gateway's address.
    pub via: String,
    pub metric: Option<u32>,
}

/// Gives a machine's configuration (YAML) its network settings.
///
/// # Errors
/// When the configuration cannot be read or its network section has another shape.
pub fn with_network(config_yaml: &str, settings: &NetworkSettings) -> Result<String, ConfigError> {
    let mut config = MachineConfig::from_yaml(config_yaml)?;
    if let Some(hostname) = &settings.hostname
        && hostname_of(&config).is_none()
    {
        set_hostname(&mut config, hostname)?;
    }
    let network = section(config.legacy_mut()?, &["machine", "network"])?;
    if !settings.devices.is_empty() {
        let interfaces = list(network, "interfaces")?;
        for (place, device) in settings.devices.iter().enumerate() {
            add_device(interfaces, place, device);
        }
    }
    for (key, added) in [("nameservers", &settings.nameservers), ("searchDomains", &settings.search_domains)] {
        if added.is_empty() {
            continue;
        }
        let present = list(network, key)?;
        for text in added {
            if !present.iter().any(|value| value.as_str() == Some(text)) {
                present.push(json!(text));
            }
        }
    }
    Ok(config.to_yaml())
}

/// The host name that a configuration asks for.
pub(crate) fn hostname_of(config: &MachineConfig) -> Option<&str> {
    let legacy = config.legacy().ok()?.pointer("/machine/network/hostname").and_then(Value::as_str).filter(|name| !name.is_empty());
    legacy.or_else(|| hostname_document(config.documents()).and_then(|document| document.get("hostname")).and_then(Value::as_str))
}

fn hostname_document(documents: &[Value]) -> Option<&Value> {
    documents.iter().find(|document| document.get("kind").and_then(Value::as_str) == Some("HostnameConfig"))
}

/// Sets the host name where the configuration keeps it: in a `HostnameConfig` document if there is one, else in the network section.
/// Both at once would be a conflict for Talos.
pub(crate) fn set_hostname(config: &mut MachineConfig, hostname: &str) -> Result<(), ConfigError> {
    if hostname_document(config.documents()).is_some() {
        let replacement = json!({ "apiVersion": "v1alpha1", "kind": "HostnameConfig", "auto": "off", "hostname": hostname });
        let wanted = document_name(&replacement);
        for document in config.documents_mut() {
            if document_name(document) == wanted {
                *document = replacement.clone();
            }
        }
        return Ok(());
    }
    let network = section(config.legacy_mut()?, &["machine", "network"])?;
    let mut entries = Map::new();
    entries.insert("hostname".to_owned(), json!(hostname));
    entries.extend(std::mem::take(network).into_iter().filter(|(key, _)| key != "hostname"));
    *network = entries;
    Ok(())
}

/// The section at `path`, made where it is missing.
fn section<'a>(document: &'a mut Value, path: &[&str]) -> Result<&'a mut Map<String, Value>, ConfigError> {
    let mut value = document;
    for name in path {
        let map = value.as_object_mut().ok_or_else(|| wrong(path, "a section with keys"))?;
        value = map.entry(*name).or_insert_with(|| json!({}));
        if value.is_null() {
            *value = json!({});
        }
    }
    value.as_object_mut().ok_or_else(|| wrong(path, "a section with keys"))
}

fn list<'a>(section: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Vec<Value>, ConfigError> {
    let value = section.entry(key).or_insert_with(|| json!([]));
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut().ok_or_else(|| wrong(&["machine", "network", key], "a list"))
}

fn wrong(path: &[&str], expected: &'static str) -> ConfigError {
    ConfigError::Type { path: format!("/{}", path.join("/")), expected }
}

fn add_device(interfaces: &mut Vec<Value>, place: usize, device: &NetworkDevice) {
    let mac = device.mac.as_deref().map(str::to_ascii_lowercase);
    let name = device.interface.clone().unwrap_or_else(|| format!("eth{place}"));
    let is_same = |entry: &Value| {
        let selected = entry.pointer("/deviceSelector/hardwareAddr").and_then(Value::as_str);
        let is_by_mac = mac.is_some() && selected.map(str::to_ascii_lowercase) == mac;
        is_by_mac || entry.get("interface").and_then(Value::as_str) == Some(name.as_str())
    };
    let index = interfaces.iter().position(is_same).unwrap_or_else(|| {
        let selector = match &mac {
            Some(mac) => json!({ "deviceSelector": { "hardwareAddr": mac } }),
            None => json!({ "interface": name }),
        };
        interfaces.push(selector);
        interfaces.len() - 1
    });
    let Some(entry) = interfaces.get_mut(index).and_then(Value::as_object_mut) else { return };
    extend(entry, "addresses", device.addresses.iter().map(|address| json!(address)));
    let default = |to: &str, via: &Option<String>| via.as_ref().map(|via| json!({ "network": to, "gateway": via }));
    let routes = device.routes.iter().map(|route| match route.metric {
        Some(metric) => json!({ "network": route.to, "gateway": route.via, "metric": metric }),
        None => json!({ "network": route.to, "gateway": route.via }),
    });
    extend(entry, "routes", default("0.0.0.0/0", &device.gateway4).into_iter().chain(default("::/0", &device.gateway6)).chain(routes));
    if let Some(mtu) = device.mtu {
        entry.insert("mtu".to_owned(), json!(mtu));
    }
    entry.insert("dhcp".to_owned(), json!(device.dhcp4 || device.dhcp6));
    if device.dhcp6 {
        entry.insert("dhcpOptions".to_owned(), json!({ "ipv4": device.dhcp4, "ipv6": true }));
    }
}

/// Appends what is not there yet.
fn extend(entry: &mut Map<String, Value>, key: &str, added: impl Iterator<Item = Value>) {
    let mut values = entry.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    for value in added {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    if !values.is_empty() {
        entry.insert(key.to_owned(), Value::Array(values));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> NetworkDevice {
        NetworkDevice {
            mac: Some("00:50:56:AA:bb:01".into()),
            addresses: vec!["172.16.42.230/24".into()],
            gateway4: Some("172.16.42.1".into()),
            ..NetworkDevice::default()
        }
    }

    fn settings() -> NetworkSettings {
        NetworkSettings {
            hostname: Some("demo-cp-x7k2p".into()),
            devices: vec![device()],
            nameservers: vec!["172.16.42.1".into()],
            search_domains: Vec::new(),
        }
    }

    fn network(yaml: &str) -> Value {
        MachineConfig::from_yaml(yaml).unwrap().legacy().unwrap().pointer("/machine/network").cloned().unwrap()
    }

    #[test]
    fn a_static_address_is_bound_to_the_mac() {
        let yaml = with_network("version: v1alpha1\nmachine:\n    type: worker\n    network: {}\n", &settings()).unwrap();
        assert_eq!(
            network(&yaml),
            json!({
                "hostname": "demo-cp-x7k2p",
                "interfaces": [{
                    "deviceSelector": { "hardwareAddr": "00:50:56:aa:bb:01" },
                    "addresses": ["172.16.42.230/24"],
                    "routes": [{ "network": "0.0.0.0/0", "gateway": "172.16.42.1" }],
                    "dhcp": false,
                }],
                "nameservers": ["172.16.42.1"],
            })
        );
        assert!(MachineConfig::from_yaml(&yaml).unwrap().check_keys().is_ok());
    }

    #[test]
    fn a_users_entry_for_the_nic_is_completed_and_the_host_name_kept() {
        let user = "version: v1alpha1\nmachine:\n  network:\n    hostname: mine\n    nameservers: [172.16.42.1]\n    interfaces:\n    - interface: eth0\n      vip: {ip: 172.16.42.9}\n";
        let value = network(&with_network(user, &settings()).unwrap());
        assert_eq!(value["hostname"], "mine");
        assert_eq!(value["nameservers"], json!(["172.16.42.1"]));
        assert_eq!(value["interfaces"].as_array().unwrap().len(), 1);
        assert_eq!(value["interfaces"][0]["vip"]["ip"], "172.16.42.9");
        assert_eq!(value["interfaces"][0]["addresses"], json!(["172.16.42.230/24"]));
        let again = with_network(&with_network(user, &settings()).unwrap(), &settings()).unwrap();
        assert_eq!(network(&again), value, "a second application changes nothing");
    }

    #[test]
    fn a_host_name_document_takes_the_name() {
        let yaml = "version: v1alpha1\nmachine:\n    type: worker\n---\napiVersion: v1alpha1\nkind: HostnameConfig\nauto: stable\n";
        let text = with_network(yaml, &settings()).unwrap();
        let config = MachineConfig::from_yaml(&text).unwrap();
        assert_eq!(
            config.documents()[1],
            json!({ "apiVersion": "v1alpha1", "kind": "HostnameConfig", "auto": "off", "hostname": "demo-cp-x7k2p" })
        );
        assert_eq!(network(&text).get("hostname"), None);
        assert!(text.contains("auto: \"off\""), "quoted for readers of YAML 1.1");
    }
}
