//! The formats that a string can be asked to have. An unknown format holds for everything, as upstream.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Whether a text has a format.
pub(super) fn holds(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => is_date_time(text),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => is_duration(text),
        "byte" => STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "ip" => text.parse::<IpAddr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text),
        "hostname" => is_hostname(text),
        "uri" => is_uri(text),
        "email" => text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@')),
        _ => true,
    }
}

fn is_date_time(text: &str) -> bool {
    // A space in place of the T is not accepted, which jiff would do.
    text.as_bytes().get(10).is_some_and(|b| matches!(b, b'T' | b't')) && text.parse::<jiff::Timestamp>().is_ok()
}

/// Go's notation, such as `1h30m`, `-1.5s` and `0`, or a number with a word, such as `3 days`.
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 14] = ["ns", "us", "µs", "μs", "ms", "s", "m", "h", "d", "w", "day", "days", "week", "weeks"];
    let mut rest = text.trim().trim_start_matches(['+', '-']);
    if rest == "0" {
        return true;
    }
    let mut seen = false;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        if digits == 0 || rest[..digits].parse::<f64>().is_err() {
            return false;
        }
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        if !UNITS.contains(&&rest[..letters]) {
            return false;
        }
        rest = rest[letters..].trim_start();
        seen = true;
    }
    seen
}

fn is_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    match (address.parse::<IpAddr>(), prefix.parse::<u8>()) {
        (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
        (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
        _ => false,
    }
}

fn is_mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_uuid(text: &str) -> bool {
    let compact: String = text.chars().filter(|c| *c != '-').collect();
    compact.len() == 32 && compact.bytes().all(|b| b.is_ascii_hexdigit()) && (text.len() == 32 || text.len() == 36)
}

fn is_hostname(text: &str) -> bool {
    let label = |part: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        part.len() <= 63
            && edge(part.as_bytes().first())
            && edge(part.as_bytes().last())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 255 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

fn is_uri(text: &str) -> bool {
    let scheme = |text: &str| {
        let first = text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
        first && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    };
    !text.contains(char::is_whitespace) && (text.starts_with('/') || text.split_once(':').is_some_and(|(name, _)| scheme(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_hold_or_not() {
        for (format, yes, no) in [
            ("date-time", "2026-11-23T10:13:12Z", "2026-11-23 10:13:12Z"),
            ("date-time", "2026-11-23T10:13:12.5+01:00", "yesterday"),
            ("date", "2026-11-23", "2026-13-01"),
            ("duration", "1h30m", "1x"),
            ("duration", "0", ""),
            ("byte", "aGk=", "a"),
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv6", "fe80::1", "10.0.0.1"),
            ("cidr", "10.96.128.0/12", "10.0.0.0/33"),
            ("mac", "00:50:56:aa:bb:cc", "00:50:56"),
            ("uuid", "4a47a19d-95a4-441e-8ef4-4c6283433a73", "4a47"),
            ("hostname", "vc.example.com", "-a"),
            ("uri", "https://example.com/x", "no uri"),
        ] {
            assert!(holds(format, yes), "{format} {yes}");
            assert!(!holds(format, no), "{format} {no}");
        }
        assert!(holds("password", "anything"));
    }
}
