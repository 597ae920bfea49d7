//! Ranges of addresses as pools write them: `10.0.0.5`, `10.0.0.5-10.0.0.9`, `10.0.0.0/28`. A reading of our own, so that a mistake in the
//! product's is seen.

use std::net::IpAddr;

use crate::node::links::parse_cidr;

/// Whether `address` is in the range.
pub(super) fn contains(range: &str, address: IpAddr) -> bool {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => (4, u128::from(u32::from(address))),
        IpAddr::V6(address) => (6, u128::from(address)),
    };
    let wanted = number(address);
    if let Some((first, last)) = range.split_once('-') {
        let bounds = (first.trim().parse(), last.trim().parse());
        let (Ok(first), Ok(last)) = bounds else { return false };
        return number(first) <= wanted && wanted <= number(last) && number(first).0 == wanted.0;
    }
    if let Some((base, prefix)) = parse_cidr(range.trim()) {
        let (family, base) = number(base);
        let bits = if family == 4 { 32 } else { 128 };
        let shift = u32::from(bits - prefix.min(bits));
        let network = |value: u128| value.checked_shr(shift).unwrap_or(0);
        return family == wanted.0 && network(base) == network(wanted.1);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_their_addresses() {
        for (range, address, expected) in [
            ("10.0.0.5", "10.0.0.5", true),
            ("10.0.0.5", "10.0.0.6", false),
            ("10.0.0.5-10.0.0.9", "10.0.0.9", true),
            ("10.0.0.5-10.0.0.9", "10.0.0.10", false),
            ("10.0.0.0/28", "10.0.0.15", true),
            ("10.0.0.0/28", "10.0.0.16", false),
            ("fd00::/64", "fd00::7", true),
            ("fd00::/64", "10.0.0.1", false),
            ("0.0.0.0/0", "10.0.0.1", true),
            ("nonsense", "10.0.0.1", false),
        ] {
            assert_eq!(contains(range, address.parse().unwrap()), expected, "{address} in {range}");
        }
    }
}
