//! Addresses of a machine: which claims it needs, which addresses it has, and how they get into its configuration. Pure.
//!
//! Addresses given beforehand (from pools, or fixed) count at once; only cards without any wait for what VMware tools report. Static addresses are matched by the MAC that
//! vCenter chose, so they are the last patch of the machine configuration, after the clone.

use std::fmt::Write as _;
use std::net::IpAddr;

use api::infrastructure::{NetworkDevice, NetworkStatus, VSphereVM};
use api::ipam::{IPAddress, IPAddressClaim};
use api::meta::ContractReference;
use std::sync::Arc;
use talos::config::{ConfigError, NetworkSettings, with_network};
use vsphere::{GuestState, VirtualMachine};

/// An address claim that the machine needs.
#[derive(Clone, Debug)]
pub struct Claim {
    /// `<vm>-<device>-<pool>`.
    pub name: String,
    /// The place of the card.
    pub device: usize,
    pub pool: ContractReference,
    /// The claim, when it is there.
    pub claim: Option<Arc<IPAddressClaim>>,
    /// Its address, when it has one.
    pub address: Option<Arc<IPAddress>>,
}

/// The claims that a machine needs, in order; none is looked up yet.
pub fn wanted_claims(vm: &VSphereVM) -> Vec<Claim> {
    let name = vm.metadata.name.as_deref().unwrap_or_default();
    let devices = vm.spec.clone.network.devices.iter().enumerate();
    let claims = devices.flat_map(|(device, card)| {
        card.addresses_from_pools.iter().enumerate().map(move |(pool, reference)| Claim {
            name: format!("{name}-{device}-{pool}"),
            device,
            pool: reference.clone(),
            claim: None,
            address: None,
        })
    });
    claims.collect()
}

/// The addresses of one card that are known beforehand, with prefixes.
fn given(card: &NetworkDevice, device: usize, claims: &[Claim]) -> Vec<String> {
    let fixed = card.ip_addrs.iter().cloned();
    let claimed = claims.iter().filter(|claim| claim.device == device).filter_map(|claim| claim.address.as_ref()).map(|address| {
        let prefix = address.spec.prefix.unwrap_or(if address.spec.address.contains(':') { 128 } else { 32 });
        format!("{}/{prefix}", address.spec.address)
    });
    fixed.chain(claimed).collect()
}

fn without_prefix(address: &str) -> String {
    address.split('/').next().unwrap_or_default().to_owned()
}

/// The gateway of one family: the card's own, or that of the pool which gave an address.
fn gateway(own: Option<&String>, device: usize, claims: &[Claim], is_v6: bool) -> Option<String> {
    let own = own.filter(|gateway| !gateway.is_empty()).cloned();
    own.or_else(|| {
        let addresses = claims.iter().filter(|claim| claim.device == device).filter_map(|claim| claim.address.as_ref());
        let gateways = addresses.filter_map(|address| address.spec.gateway.clone()).filter(|gateway| !gateway.is_empty());
        gateways.into_iter().find(|gateway| gateway.contains(':') == is_v6)
    })
}

/// The settings for Talos. `macs` are the cards' in their order.
pub fn settings(vm: &VSphereVM, claims: &[Claim], macs: &[String]) -> NetworkSettings {
    let spec = &vm.spec.clone.network;
    let mut settings = NetworkSettings { hostname: vm.metadata.name.clone(), ..NetworkSettings::default() };
    for (device, card) in spec.devices.iter().enumerate() {
        for (list, more) in [(&mut settings.nameservers, &card.nameservers), (&mut settings.search_domains, &card.search_domains)] {
            for text in more {
                if !list.contains(text) {
                    list.push(text.clone());
                }
            }
        }
        // Routes for the whole machine go with its first card.
        let shared = spec.routes.iter().filter(|_| device == 0);
        settings.devices.push(talos::config::NetworkDevice {
            mac: macs.get(device).cloned(),
            interface: card.device_name.clone().filter(|name| !name.is_empty()),
            addresses: given(card, device, claims),
            gateway4: gateway(card.gateway4.as_ref(), device, claims, false),
            gateway6: gateway(card.gateway6.as_ref(), device, claims, true),
            dhcp4: card.dhcp4 == Some(true),
            dhcp6: card.dhcp6 == Some(true),
            mtu: card.mtu.and_then(|mtu| u32::try_from(mtu).ok()),
            routes: card
                .routes
                .iter()
                .chain(shared)
                .map(|route| talos::config::Route {
                    to: route.to.clone(),
                    via: route.via.clone(),
                    metric: u32::try_from(route.metric).ok().filter(|metric| *metric > 0),
                })
                .collect(),
        });
    }
    settings
}

/// The machine configuration with its network settings.
///
/// # Errors
/// When the configuration is none that Talos reads.
pub fn userdata(config: &str, vm: &VSphereVM, claims: &[Claim], macs: &[String]) -> Result<String, ConfigError> {
    with_network(config, &settings(vm, claims, macs))
}

/// MAC addresses that stand for those that are not known yet, to learn the size of the configuration.
pub fn placeholder_macs(vm: &VSphereVM) -> Vec<String> {
    vm.spec.clone.network.devices.iter().map(|_| "00:50:56:00:00:00".to_owned()).collect()
}

/// Network settings in the form of cloud-init (version 2), as upstream writes them. Talos may ignore them.
pub fn metadata(vm: &VSphereVM, claims: &[Claim], macs: &[String]) -> String {
    let name = vm.metadata.name.as_deref().unwrap_or_default();
    let settings = settings(vm, claims, macs);
    let mut text = format!(
        "instance-id: {name:?}\nlocal-hostname: {name:?}\nwait-on-network:\n  ipv4: false\n  ipv6: false\nnetwork:\n  version: 2\n  ethernets:\n"
    );
    let is_set = |flag: bool| if flag { "true" } else { "false" };
    for (index, (device, card)) in settings.devices.iter().zip(&vm.spec.clone.network.devices).enumerate() {
        let mac = device.mac.as_deref().unwrap_or_default();
        let interface = device.interface.clone().unwrap_or_else(|| format!("eth{index}"));
        let _ = write!(
            text,
            "    id{index}:\n      match:\n        macaddress: {mac:?}\n      set-name: {interface:?}\n      wakeonlan: true\n"
        );
        let _ = write!(text, "      dhcp4: {}\n      dhcp6: {}\n      accept-ra: false\n", is_set(device.dhcp4), is_set(device.dhcp6));
        list(&mut text, 6, "addresses", &device.addresses);
        for (key, gateway) in [("gateway4", &device.gateway4), ("gateway6", &device.gateway6)] {
            if let Some(gateway) = gateway {
                let _ = writeln!(text, "      {key}: {gateway:?}");
            }
        }
        if let Some(mtu) = device.mtu {
            let _ = writeln!(text, "      mtu: {mtu}");
        }
        if !device.routes.is_empty() {
            text.push_str("      routes:\n");
            for route in &device.routes {
                let _ = write!(text, "      - to: {:?}\n        via: {:?}\n", route.to, route.via);
                if let Some(metric) = route.metric {
                    let _ = writeln!(text, "        metric: {metric}");
                }
            }
        }
        if !card.nameservers.is_empty() || !card.search_domains.is_empty() {
            text.push_str("      nameservers:\n");
            list(&mut text, 8, "addresses", &card.nameservers);
            list(&mut text, 8, "search", &card.search_domains);
        }
    }
    text
}

fn list(text: &mut String, indent: usize, key: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    let space = " ".repeat(indent);
    let _ = writeln!(text, "{space}{key}:");
    for item in items {
        let _ = writeln!(text, "{space}- {item:?}");
    }
}

/// The MAC addresses of a machine's cards, in the order of the specification.
pub fn macs(machine: &VirtualMachine) -> Vec<String> {
    machine.nics().iter().map(|nic| nic.mac_address.clone().unwrap_or_default().to_ascii_lowercase()).collect()
}

/// The cards of a machine as the status tells them.
pub fn cards(vm: &VSphereVM, claims: &[Claim], macs: &[String], guest: &GuestState, vip: Option<IpAddr>) -> Vec<NetworkStatus> {
    let devices = vm.spec.clone.network.devices.iter().enumerate();
    let known = devices.zip(macs).map(|((device, card), mac)| {
        let mut addresses: Vec<String> = given(card, device, claims).iter().map(|address| without_prefix(address)).collect();
        if addresses.is_empty() {
            addresses = reported(guest, mac, vip);
        }
        NetworkStatus { connected: Some(true), ip_addrs: addresses, mac_addr: mac.clone(), network_name: Some(card.network_name.clone()) }
    });
    known.collect()
}

/// What tools report for one card: without link-local addresses, and without the cluster's virtual address, which may move away.
fn reported(guest: &GuestState, mac: &str, vip: Option<IpAddr>) -> Vec<String> {
    let nics = guest.nics.iter().filter(|nic| nic.mac_address.as_deref().is_some_and(|known| known.eq_ignore_ascii_case(mac)));
    let addresses = nics.flat_map(|nic| match &nic.ip_config {
        Some(config) if !config.addresses.is_empty() => config.addresses.iter().map(|entry| entry.address.clone()).collect::<Vec<_>>(),
        _ => nic.addresses.clone(),
    });
    let usable = |text: &String| {
        let Ok(address) = text.parse::<IpAddr>() else { return false };
        let is_local = match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback(),
            IpAddr::V6(v6) => v6.is_loopback() || (v6.segments()[0] & 0xffc0) == 0xfe80,
        };
        !is_local && Some(address) != vip
    };
    let mut addresses: Vec<String> = addresses.filter(usable).collect();
    // IPv4 first, otherwise as reported.
    addresses.sort_by_key(|text| text.contains(':'));
    addresses.dedup();
    addresses
}

/// The cards that have no address yet although they are to have one.
pub fn without_address<'a>(vm: &'a VSphereVM, cards: &'a [NetworkStatus]) -> Vec<&'a str> {
    let devices = vm.spec.clone.network.devices.iter();
    let lacking = devices.zip(cards).filter(|(card, status)| card.skip_ip_allocation != Some(true) && status.ip_addrs.is_empty());
    lacking.map(|(card, _)| card.network_name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vsphere::GuestNicInfo;

    fn vm() -> VSphereVM {
        let card = NetworkDevice {
            network_name: "VM Network".to_owned(),
            gateway4: Some("172.16.42.1".to_owned()),
            nameservers: vec!["172.16.42.1".to_owned()],
            addresses_from_pools: vec![ContractReference { name: "pool".to_owned(), ..ContractReference::default() }],
            ..NetworkDevice::default()
        };
        let mut vm = VSphereVM::default();
        vm.metadata.name = Some("vmware-test-controlplane-6r7v6".to_owned());
        vm.spec.clone.network.devices = vec![card];
        vm
    }

    fn claims(vm: &VSphereVM) -> Vec<Claim> {
        let mut claims = wanted_claims(vm);
        let mut address = IPAddress::default();
        address.spec.address = "172.16.42.230".to_owned();
        address.spec.prefix = Some(24);
        address.spec.gateway = Some("172.16.42.254".to_owned());
        claims[0].address = Some(Arc::new(address));
        claims
    }

    #[test]
    fn claims_are_named_by_card_and_pool() {
        let claims = wanted_claims(&vm());
        assert_eq!(claims.iter().map(|claim| claim.name.as_str()).collect::<Vec<_>>(), ["vmware-test-controlplane-6r7v6-0-0"]);
    }

    #[test]
    fn metadata_is_what_upstream_writes() {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference/kubernetes/objects/vm-extraconfig.yaml");
        #[allow(clippy::disallowed_methods)]
        let Ok(text) = std::fs::read_to_string(&folder) else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "the reference data is missing: {}", folder.display());
            return;
        };
        let golden: serde_json::Value = serde_saphyr::from_str(text.split("---\n").nth(1).unwrap()).unwrap();
        let vm = vm();
        let own = metadata(&vm, &claims(&vm), &["00:0c:29:33:37:31".to_owned()]);
        let own: serde_json::Value = serde_saphyr::from_str(&own).unwrap();
        assert_eq!(own, golden);
    }

    #[test]
    fn the_pools_gateway_is_used_where_the_card_names_none() {
        let mut vm = vm();
        let with_own = settings(&vm, &claims(&vm), &[]);
        assert_eq!(with_own.devices[0].gateway4.as_deref(), Some("172.16.42.1"));
        vm.spec.clone.network.devices[0].gateway4 = None;
        let settings = settings(&vm, &claims(&vm), &["m".to_owned()]);
        assert_eq!(settings.devices[0].gateway4.as_deref(), Some("172.16.42.254"));
        assert_eq!(settings.devices[0].addresses, ["172.16.42.230/24"]);
        assert_eq!(settings.hostname.as_deref(), Some("vmware-test-controlplane-6r7v6"));
    }

    #[test]
    fn given_addresses_count_at_once_and_reported_ones_are_filtered() {
        let mut vm = vm();
        let nic = GuestNicInfo {
            network: None,
            addresses: ["fe80::1", "169.254.0.1", "10.0.0.9", "10.0.0.5", "fd00::5"].map(str::to_owned).to_vec(),
            mac_address: Some("00:0C:29:33:37:31".to_owned()),
            is_connected: true,
            device_key: 4000,
            dns_config: None,
            ip_config: None,
            netbios_config: None,
        };
        let guest = GuestState { host_name: None, nics: vec![nic] };
        let macs = ["00:0c:29:33:37:31".to_owned()];
        let known = cards(&vm, &claims(&vm), &macs, &guest, None);
        assert_eq!(known[0].ip_addrs, ["172.16.42.230"]);
        vm.spec.clone.network.devices[0].addresses_from_pools.clear();
        vm.spec.clone.network.devices[0].dhcp4 = Some(true);
        let vip = "10.0.0.9".parse().ok();
        let cards_of = |guest: &GuestState| cards(&vm, &[], &macs, guest, vip);
        assert_eq!(cards_of(&guest)[0].ip_addrs, ["10.0.0.5", "fd00::5"]);
        let silent = cards_of(&GuestState::default());
        assert_eq!(without_address(&vm, &silent), ["VM Network"]);
    }
}
