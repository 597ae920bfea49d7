//! Writes the few DER shapes that a certificate is made of (X.690; RFC 5280, 4.1). Reading is left to x509-parser.

use std::net::IpAddr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Usages;
use crate::keys::KeyAlgorithm;

/// Bits of the key usage extension, counted from the left (RFC 5280, 4.2.1.3).
pub(super) const DIGITAL_SIGNATURE: u8 = 0;
pub(super) const KEY_ENCIPHERMENT: u8 = 2;
pub(super) const KEY_CERT_SIGN: u8 = 5;

// Object identifiers, as their DER content.
const ORGANIZATION: &[u8] = &[0x55, 4, 10];
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// A value under `tag`.
pub(super) fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    if length < 0x80 {
        out.push(u8::try_from(length).unwrap_or(0x7f));
    } else {
        let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        out.push(0x80 | u8::try_from(bytes.len()).unwrap_or(0x7f));
        out.extend(bytes);
    }
    out.extend_from_slice(content);
    out
}

pub(super) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tagged(0x30, &parts.concat())
}

/// A non-negative integer from big-endian bytes.
pub(super) fn integer(bytes: &[u8]) -> Vec<u8> {
    let mut content: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    if content.first().is_none_or(|byte| *byte & 0x80 != 0) {
        content.insert(0, 0);
    }
    tagged(2, &content)
}

pub(super) fn bit_string(bytes: &[u8], unused_bits: u8) -> Vec<u8> {
    tagged(3, &[&[unused_bits], bytes].concat())
}

fn object_id(content: &[u8]) -> Vec<u8> {
    tagged(6, content)
}

/// Seconds; UTCTime up to 2049, GeneralizedTime from 2050 on (RFC 5280, 4.1.2.5).
pub(super) fn time(at: Timestamp) -> Vec<u8> {
    let at = at.to_zoned(TimeZone::UTC);
    let rest = format!("{:02}{:02}{:02}{:02}{:02}Z", at.month(), at.day(), at.hour(), at.minute(), at.second());
    if (1950..2050).contains(&at.year()) {
        tagged(0x17, format!("{:02}{rest}", at.year() % 100).as_bytes())
    } else {
        tagged(0x18, format!("{:04}{rest}", at.year()).as_bytes())
    }
}

/// A distinguished name: all organizations in one set, as Go writes them, then the common name.
pub(super) fn name(organizations: &[String], common_name: Option<&str>) -> Vec<u8> {
    let mut parts = Vec::new();
    if !organizations.is_empty() {
        let mut values: Vec<Vec<u8>> = organizations.iter().map(|value| attribute(ORGANIZATION, value)).collect();
        values.sort(); // DER orders the members of a set
        parts.push(tagged(0x31, &values.concat()));
    }
    if let Some(value) = common_name {
        parts.push(tagged(0x31, &attribute(COMMON_NAME, value)));
    }
    sequence(&parts)
}

fn attribute(kind: &[u8], value: &str) -> Vec<u8> {
    let is_printable = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte));
    sequence(&[object_id(kind), tagged(if is_printable { 0x13 } else { 0x0c }, value.as_bytes())])
}

/// The algorithm of a signature made by a key of this kind.
pub(super) fn signature_algorithm(key: KeyAlgorithm) -> Vec<u8> {
    match key {
        KeyAlgorithm::Ed25519 => sequence(&[object_id(ED25519)]),
        KeyAlgorithm::EcdsaP256 => sequence(&[object_id(ECDSA_SHA256)]),
        KeyAlgorithm::Rsa4096 => sequence(&[object_id(RSA_SHA256), tagged(5, &[])]),
    }
}

/// SubjectPublicKeyInfo.
pub(super) fn public_key(kind: KeyAlgorithm, key: &[u8]) -> Vec<u8> {
    let algorithm = match kind {
        KeyAlgorithm::Ed25519 => sequence(&[object_id(ED25519)]),
        KeyAlgorithm::EcdsaP256 => sequence(&[object_id(EC_PUBLIC_KEY), object_id(P256)]),
        KeyAlgorithm::Rsa4096 => sequence(&[object_id(RSA_ENCRYPTION), tagged(5, &[])]),
    };
    sequence(&[algorithm, bit_string(key, 0)])
}

/// An extension; `arc` is the last arc of its identifier below 2.5.29.
fn extension(arc: u8, is_critical: bool, content: &[u8]) -> Vec<u8> {
    let mut parts = vec![object_id(&[0x55, 0x1d, arc])];
    if is_critical {
        parts.push(tagged(1, &[0xff]));
    }
    parts.push(tagged(4, content));
    sequence(&parts)
}

pub(super) fn key_usage(bits: &[u8]) -> Vec<u8> {
    let byte = bits.iter().fold(0u8, |byte, bit| byte | 0x80u8 >> bit);
    let unused = u8::try_from(byte.trailing_zeros()).unwrap_or(0);
    extension(15, true, &bit_string(&[byte], unused))
}

pub(super) fn extended_key_usage(usages: Usages) -> Vec<u8> {
    let mut parts = Vec::new();
    if usages.server_auth {
        parts.push(object_id(SERVER_AUTH));
    }
    if usages.client_auth {
        parts.push(object_id(CLIENT_AUTH));
    }
    extension(37, false, &sequence(&parts))
}

pub(super) fn basic_constraints(is_authority: bool) -> Vec<u8> {
    let parts = if is_authority { vec![tagged(1, &[0xff])] } else { vec![] };
    extension(19, true, &sequence(&parts))
}

pub(super) fn subject_key_identifier(id: &[u8]) -> Vec<u8> {
    extension(14, false, &tagged(4, id))
}

pub(super) fn authority_key_identifier(id: &[u8]) -> Vec<u8> {
    extension(35, false, &sequence(&[tagged(0x80, id)]))
}

pub(super) fn subject_alternative_names(dns_names: &[String], addresses: &[IpAddr], is_only_name: bool) -> Vec<u8> {
    let mut parts: Vec<Vec<u8>> = dns_names.iter().map(|name| tagged(0x82, name.as_bytes())).collect();
    parts.extend(addresses.iter().map(|address| match address {
        IpAddr::V4(four) => tagged(0x87, &four.octets()),
        IpAddr::V6(sixteen) => tagged(0x87, &sixteen.octets()),
    }));
    extension(17, is_only_name, &sequence(&parts))
}
