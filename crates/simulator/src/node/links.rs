//! Which addresses a machine gives its network adapters.
//!
//! The machine configuration and the platform's metadata each name adapters, by name or MAC; an adapter that neither names asks DHCP.
//! Pure but for the leases, which the simulated DHCP servers keep.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::configuration::{Adapter, Interface, bare};
use super::guestinfo::Metadata;
use crate::hypervisor::Nic;

/// What becomes of one adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// `eth0` and so on, in the order of the adapters.
    pub name: String,
    pub mac: String,
    /// The port group it is plugged into.
    pub network: String,
    /// Address and prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    pub uses_dhcp: bool,
    /// A shared address to compete for.
    pub vip: Option<IpAddr>,
}

/// Address and prefix length of a text with or without a slash.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let address: IpAddr = bare(text).parse().ok()?;
    let host = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match text.split_once('/') {
        Some((_, prefix)) => prefix.parse().ok().filter(|prefix| *prefix <= host)?,
        None => host,
    };
    Some((address, prefix))
}

/// What the configuration and the metadata say about each adapter.
pub fn plan(nics: &[Nic], interfaces: &[Interface], metadata: &Metadata) -> Vec<Link> {
    let has_mac = |mac: &str| nics.iter().any(|nic| nic.mac == mac);
    nics.iter()
        .enumerate()
        .map(|(index, nic)| {
            let name = format!("eth{index}");
            let mut link = Link {
                name: name.clone(),
                mac: nic.mac.clone(),
                network: nic.network.clone(),
                addresses: Vec::new(),
                uses_dhcp: false,
                vip: None,
            };
            let mut is_named = false;
            for interface in interfaces {
                let is_meant = match &interface.adapter {
                    Adapter::Name(wanted) => *wanted == name,
                    Adapter::Hardware(mac) => mac.eq_ignore_ascii_case(&nic.mac),
                    Adapter::Any => true,
                };
                if is_meant {
                    is_named = true;
                    link.addresses.extend(interface.addresses.iter().filter_map(|text| parse_cidr(text)));
                    link.uses_dhcp |= interface.dhcp;
                    link.vip = link.vip.or_else(|| interface.vip.as_deref().and_then(|vip| vip.parse().ok()));
                }
            }
            for adapter in &metadata.adapters {
                let by_mac = adapter.mac.as_deref().filter(|mac| has_mac(mac));
                let is_meant = match by_mac {
                    Some(mac) => mac == nic.mac && adapter.name.starts_with("eth"),
                    None => adapter.name == name,
                };
                if is_meant {
                    is_named = true;
                    link.addresses.extend(adapter.addresses.iter().filter(|text| text.contains('/')).filter_map(|text| parse_cidr(text)));
                    link.uses_dhcp |= adapter.dhcp4;
                }
            }
            link.uses_dhcp |= !is_named;
            link.addresses.sort_unstable();
            link.addresses.dedup();
            link
        })
        .collect()
}

/// A DHCP server's range on one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpPool {
    /// The port group; empty for any.
    pub network: String,
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
    pub prefix: u8,
}

/// The DHCP servers and their leases. A MAC keeps its address.
#[derive(Clone, Debug, Default)]
pub struct Dhcp {
    pools: Vec<DhcpPool>,
    leases: BTreeMap<String, (IpAddr, u8)>,
}

impl Dhcp {
    pub fn new(pools: Vec<DhcpPool>) -> Self {
        Self { pools, leases: BTreeMap::new() }
    }

    /// The address for `mac` on `network`; `None` when no server answers there or it has none left. `is_taken` says what others hold.
    pub fn lease(&mut self, mac: &str, network: &str, is_taken: &dyn Fn(IpAddr) -> bool) -> Option<(IpAddr, u8)> {
        if let Some(lease) = self.leases.get(mac) {
            return Some(*lease);
        }
        let pool =
            self.pools.iter().find(|pool| pool.network == network).or_else(|| self.pools.iter().find(|pool| pool.network.is_empty()))?;
        let leased: Vec<IpAddr> = self.leases.values().map(|(address, _)| *address).collect();
        let free = (u32::from(pool.first)..=u32::from(pool.last)).map(|bits| IpAddr::V4(Ipv4Addr::from(bits)));
        let address = free.into_iter().find(|address| !leased.contains(address) && !is_taken(*address))?;
        self.leases.insert(mac.to_owned(), (address, pool.prefix));
        Some((address, pool.prefix))
    }

    /// Gives the lease of `mac` back.
    pub fn release(&mut self, mac: &str) {
        self.leases.remove(mac);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::guestinfo::MetadataAdapter;

    fn nics() -> Vec<Nic> {
        ["00:50:56:aa:00:01", "00:50:56:aa:00:02"].map(|mac| Nic { mac: mac.into(), network: "VM Network".into() }).to_vec()
    }

    fn interface(adapter: Adapter, addresses: &[&str]) -> Interface {
        Interface { adapter, addresses: addresses.iter().map(|text| (*text).to_owned()).collect(), dhcp: false, vip: None }
    }

    fn metadata(mac: Option<&str>, name: &str) -> Metadata {
        let adapter =
            MetadataAdapter { mac: mac.map(str::to_owned), name: name.into(), dhcp4: false, addresses: vec!["10.0.0.5/24".into()] };
        Metadata { hostname: None, adapters: vec![adapter] }
    }

    fn summary(links: &[Link]) -> Vec<(usize, bool)> {
        links.iter().map(|link| (link.addresses.len(), link.uses_dhcp)).collect()
    }

    #[test]
    fn an_adapter_nobody_names_asks_dhcp() {
        assert_eq!(summary(&plan(&nics(), &[], &Metadata::default())), [(0, true), (0, true)]);
        let by_name = [interface(Adapter::Name("eth1".into()), &["10.0.0.7/24"])];
        assert_eq!(summary(&plan(&nics(), &by_name, &Metadata::default())), [(0, true), (1, false)]);
    }

    #[test]
    fn the_configuration_matches_hardware_addresses_in_any_case() {
        let by_mac = [interface(Adapter::Hardware("00:50:56:AA:00:02".into()), &["10.0.0.7/24"])];
        let links = plan(&nics(), &by_mac, &Metadata::default());
        assert_eq!(summary(&links), [(0, true), (1, false)]);
        assert_eq!(links[1].addresses, [("10.0.0.7".parse().unwrap(), 24)]);
    }

    #[test]
    fn metadata_matches_lower_case_addresses_or_else_the_name() {
        let cases = [
            (Some("00:50:56:aa:00:02"), "eth0", [(0, true), (1, false)]),
            (Some("00:50:56:aa:00:02"), "ens192", [(0, true), (0, true)]),
            (Some("00:50:56:AA:00:02"), "eth0", [(1, false), (0, true)]),
            (None, "eth1", [(0, true), (1, false)]),
            (None, "id0", [(0, true), (0, true)]),
        ];
        for (mac, name, expected) in cases {
            assert_eq!(summary(&plan(&nics(), &[], &metadata(mac, name))), expected, "{mac:?} {name}");
        }
    }

    #[test]
    fn leases_are_kept_and_run_out() {
        let pool =
            DhcpPool { network: "VM Network".into(), first: "10.1.0.10".parse().unwrap(), last: "10.1.0.11".parse().unwrap(), prefix: 24 };
        let mut dhcp = Dhcp::new(vec![pool]);
        let taken: IpAddr = "10.1.0.10".parse().unwrap();
        let first = dhcp.lease("a", "VM Network", &|address| address == taken).unwrap();
        assert_eq!(first.0.to_string(), "10.1.0.11");
        assert_eq!(dhcp.lease("a", "VM Network", &|_| false), Some(first));
        assert!(dhcp.lease("b", "other", &|_| false).is_none(), "no server there");
        assert!(dhcp.lease("b", "VM Network", &|_| false).is_some());
        assert!(dhcp.lease("c", "VM Network", &|_| false).is_none(), "none left");
        dhcp.release("a");
        assert_eq!(dhcp.lease("c", "VM Network", &|_| false), Some(first));
    }
}
