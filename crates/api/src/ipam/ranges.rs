//! Sets of IP addresses as pools write them: single addresses, `first-last` ranges and CIDR ranges of one family.
//!
//! A set is a sorted list of ranges that neither overlap nor touch, so that a /64 costs as much as one address. Pure arithmetic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why a text is no set of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither an address nor a range.
    #[error("must be an IP address, a range such as 10.0.0.10-10.0.0.20, or a CIDR such as 10.0.0.0/28")]
    Syntax(String),
    /// The first address of a range comes after its last.
    #[error("the first address of the range comes after the last")]
    Reversed(String),
    /// IPv4 and IPv6 in one set.
    #[error("IPv4 and IPv6 addresses cannot be mixed in one pool")]
    MixedFamilies(String),
}

/// The number of an address and whether it is IPv6.
fn number(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(v4) => (false, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => (true, u128::from(v6)),
    }
}

fn address(is_v6: bool, number: u128) -> IpAddr {
    if is_v6 { IpAddr::V6(Ipv6Addr::from(number)) } else { IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))) }
}

/// A network: an address and the length of its prefix. Host bits are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    is_v6: bool,
    first: u128,
    prefix: u8,
}

impl Network {
    /// Reads CIDR form; host bits are accepted and dropped.
    ///
    /// # Errors
    /// When the text is no CIDR.
    pub fn parse(text: &str) -> Result<Self, RangeError> {
        let (host, prefix) = text.split_once('/').ok_or_else(|| RangeError::Syntax(text.to_owned()))?;
        let host: IpAddr = host.parse().map_err(|_| RangeError::Syntax(text.to_owned()))?;
        let prefix: u8 = prefix.parse().map_err(|_| RangeError::Syntax(text.to_owned()))?;
        Self::around(host, prefix).ok_or_else(|| RangeError::Syntax(text.to_owned()))
    }

    /// The network of a prefix length that an address is in; `None` if the prefix is too long for its family.
    pub fn around(host: IpAddr, prefix: u8) -> Option<Self> {
        let (is_v6, number) = number(host);
        let bits = if is_v6 { 128 } else { 32 };
        if prefix > bits {
            return None;
        }
        let size = Self::size_mask(bits - prefix);
        Some(Self { is_v6, first: number & !size, prefix })
    }

    fn size_mask(host_bits: u8) -> u128 {
        if host_bits >= 128 { u128::MAX } else { (1 << host_bits) - 1 }
    }

    fn last_number(self) -> u128 {
        let bits = if self.is_v6 { 128 } else { 32 };
        self.first | Self::size_mask(bits - self.prefix)
    }

    /// Length of the prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// First address: the network's own.
    pub fn first(self) -> IpAddr {
        address(self.is_v6, self.first)
    }

    /// Last address: for IPv4 the broadcast address.
    pub fn last(self) -> IpAddr {
        address(self.is_v6, self.last_number())
    }

    /// First and last address without the network's first and last; all of it if it has no more than two.
    pub fn inner(self) -> (IpAddr, IpAddr) {
        let (first, last) = (self.first, self.last_number());
        if last - first < 2 {
            return (self.first(), self.last());
        }
        (address(self.is_v6, first + 1), address(self.is_v6, last - 1))
    }

    /// True if the address is in the network.
    pub fn contains(self, host: IpAddr) -> bool {
        let (is_v6, number) = number(host);
        is_v6 == self.is_v6 && (self.first..=self.last_number()).contains(&number)
    }
}

/// A set of addresses of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    is_v6: bool,
    ranges: Vec<(u128, u128)>,
}

impl Addresses {
    /// Reads a list of addresses, ranges and CIDRs.
    ///
    /// # Errors
    /// When an entry cannot be read, or the families are mixed; the error holds the entry.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, RangeError> {
        let mut set = Self::default();
        for (at, entry) in entries.iter().enumerate() {
            let (is_v6, range) = Self::entry(entry.as_ref())?;
            if at > 0 && is_v6 != set.is_v6 {
                return Err(RangeError::MixedFamilies(entry.as_ref().to_owned()));
            }
            set.is_v6 = is_v6;
            set.ranges.push(range);
        }
        set.normalize();
        Ok(set)
    }

    fn entry(text: &str) -> Result<(bool, (u128, u128)), RangeError> {
        let syntax = || RangeError::Syntax(text.to_owned());
        if let Some((first, last)) = text.split_once('-') {
            let (first_is_v6, first) = number(first.trim().parse().map_err(|_| syntax())?);
            let (last_is_v6, last) = number(last.trim().parse().map_err(|_| syntax())?);
            if first_is_v6 != last_is_v6 {
                return Err(RangeError::MixedFamilies(text.to_owned()));
            }
            if first > last {
                return Err(RangeError::Reversed(text.to_owned()));
            }
            return Ok((first_is_v6, (first, last)));
        }
        if text.contains('/') {
            let network = Network::parse(text)?;
            return Ok((network.is_v6, (network.first, network.last_number())));
        }
        let (is_v6, number) = number(text.parse().map_err(|_| syntax())?);
        Ok((is_v6, (number, number)))
    }

    fn normalize(&mut self) {
        self.ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(self.ranges.len());
        for (first, last) in self.ranges.drain(..) {
            match merged.last_mut() {
                Some(previous) if first <= previous.1.saturating_add(1) => previous.1 = previous.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        self.ranges = merged;
    }

    /// Takes an address out.
    pub fn remove(&mut self, host: IpAddr) {
        let (is_v6, number) = number(host);
        if is_v6 != self.is_v6 {
            return;
        }
        self.remove_range(number, number);
    }

    /// Takes all addresses of another set out.
    pub fn remove_all(&mut self, other: &Self) {
        if other.is_v6 == self.is_v6 {
            for (first, last) in &other.ranges {
                self.remove_range(*first, *last);
            }
        }
    }

    fn remove_range(&mut self, from: u128, to: u128) {
        let mut left = Vec::with_capacity(self.ranges.len() + 1);
        for (first, last) in self.ranges.drain(..) {
            if last < from || first > to {
                left.push((first, last));
                continue;
            }
            if first < from {
                left.push((first, from - 1));
            }
            if last > to {
                left.push((to + 1, last));
            }
        }
        self.ranges = left;
    }

    /// True if the address is in the set.
    pub fn contains(&self, host: IpAddr) -> bool {
        let (is_v6, number) = number(host);
        is_v6 == self.is_v6 && self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }

    /// Number of addresses, at most `u128::MAX`.
    pub fn len(&self) -> u128 {
        self.ranges.iter().fold(0_u128, |sum, (first, last)| sum.saturating_add((last - first).saturating_add(1)))
    }

    /// True if there is no address.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// True for a set of IPv6 addresses.
    pub fn is_v6(&self) -> bool {
        self.is_v6
    }

    /// All addresses in ascending order; lazily, a set may be huge.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ranges.iter().flat_map(|(first, last)| (*first..=*last).map(|number| address(self.is_v6, number)))
    }

    /// Whether an address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let meets = |(first, last): &(u128, u128)| other.ranges.iter().any(|(from, to)| first <= to && from <= last);
        self.is_v6 == other.is_v6 && self.ranges.iter().any(meets)
    }

    /// The first addresses of the blocks that the set lies in, of 256 addresses (IPv6: 2^64); none when there are more than `most`.
    pub fn blocks(&self, most: usize) -> Option<Vec<IpAddr>> {
        let bits = if self.is_v6 { 64 } else { 8 };
        let mut blocks = std::collections::BTreeSet::new();
        for (first, last) in &self.ranges {
            for block in (first >> bits)..=(last >> bits) {
                blocks.insert(block);
                if blocks.len() > most {
                    return None;
                }
            }
        }
        Some(blocks.into_iter().map(|block| address(self.is_v6, block << bits)).collect())
    }

    /// The lowest and the highest address.
    pub fn bounds(&self) -> Option<(IpAddr, IpAddr)> {
        let (first, last) = (self.ranges.first()?.0, self.ranges.last()?.1);
        Some((address(self.is_v6, first), address(self.is_v6, last)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_in_all_three_forms() {
        let set = Addresses::parse(&["10.0.0.4/30", "10.0.0.1", "10.0.0.20-10.0.0.22", "10.0.0.8"]).unwrap();
        let all: Vec<String> = set.iter().map(|one| one.to_string()).collect();
        assert_eq!(all, ["10.0.0.1", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8", "10.0.0.20", "10.0.0.21", "10.0.0.22"]);
        assert_eq!(set.len(), 9);
        assert_eq!(Addresses::parse(&["fd00::/64"]).unwrap().len(), 1 << 64);
        assert_eq!(Addresses::parse(&["::/0"]).unwrap().len(), u128::MAX);
    }

    #[test]
    fn wrong_entries_say_what_is_wrong() {
        assert!(matches!(Addresses::parse(&["10.0.0"]), Err(RangeError::Syntax(_))));
        assert!(matches!(Addresses::parse(&["10.0.0.9-10.0.0.1"]), Err(RangeError::Reversed(_))));
        assert!(matches!(Addresses::parse(&["10.0.0.9", "fd00::1"]), Err(RangeError::MixedFamilies(_))));
        assert!(matches!(Addresses::parse(&["10.0.0.0/33"]), Err(RangeError::Syntax(_))));
    }

    #[test]
    fn networks_drop_host_bits() {
        let network = Network::parse("10.96.128.0/12").unwrap();
        assert_eq!((network.first().to_string(), network.last().to_string()), ("10.96.0.0".to_owned(), "10.111.255.255".to_owned()));
        let (first, last) = Network::parse("10.0.0.0/24").unwrap().inner();
        assert_eq!((first.to_string(), last.to_string()), ("10.0.0.1".to_owned(), "10.0.0.254".to_owned()));
    }

    proptest! {
        #[test]
        fn sets_agree_with_a_plain_model(entries in prop::collection::vec((0_u8..40, 0_u8..6), 1..6), gone in prop::collection::vec(0_u8..48, 0..6)) {
            let texts: Vec<String> = entries.iter().map(|(first, size)| format!("10.0.0.{first}-10.0.0.{}", first + size)).collect();
            let mut set = Addresses::parse(&texts).unwrap();
            let mut model: std::collections::BTreeSet<u8> = entries.iter().flat_map(|(first, size)| *first..=first + size).collect();
            for number in gone {
                set.remove(IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)));
                model.remove(&number);
            }
            let all: Vec<IpAddr> = set.iter().collect();
            let expected: Vec<IpAddr> = model.iter().map(|number| IpAddr::V4(Ipv4Addr::new(10, 0, 0, *number))).collect();
            prop_assert_eq!(all, expected);
            prop_assert_eq!(set.len(), model.len() as u128);
        }
    }
}
