//! Issuing and reading X.509 certificates: authorities, and the leaves that they sign.
//!
//! The shape is the one Talos gives its own (serial of 128 random bits, subject and authority key identifiers, critical key usage).
//! The issuer's name is copied from the authority's bytes, never rebuilt, so that imported authorities with any subject, also an
//! empty one, work. Several organizations may stand in one subject: Talos keeps its roles there.

mod der;

use std::net::IpAddr;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use sha1::Digest as _;
use thiserror::Error;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::keys::{KeyAlgorithm, KeyError, PrivateKey};
use crate::pem::{self, PemError};
use crate::random::Random;

/// Why a certificate cannot be issued or read.
#[derive(Debug, Error)]
pub enum X509Error {
    #[error("the certificate cannot be read: {0}")]
    Pem(#[from] PemError),
    #[error("the PEM block is labelled {label:?}, expected CERTIFICATE")]
    Label { label: String },
    #[error("the certificate is not valid DER: {reason}")]
    Malformed { reason: String },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the private key does not belong to the certificate: their public keys differ")]
    KeyMismatch,
    #[error("{name:?} cannot stand in a certificate: it is not ASCII")]
    Name { name: String },
}

/// What a leaf certificate may be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usages {
    pub client_auth: bool,
    pub server_auth: bool,
}

impl Usages {
    /// For a client.
    pub const CLIENT: Self = Self { client_auth: true, server_auth: false };
    /// For a server.
    pub const SERVER: Self = Self { client_auth: false, server_auth: true };
    /// For both.
    pub const BOTH: Self = Self { client_auth: true, server_auth: true };
}

/// A certificate to be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub organizations: Vec<String>,
    pub common_name: Option<String>,
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
    pub usages: Usages,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// A certificate authority with its private key.
#[derive(Clone, Debug)]
pub struct Authority {
    pub certificate_der: CertificateDer<'static>,
    pub certificate_pem: String,
    pub key: PrivateKey,
}

impl Authority {
    /// Reads an authority.
    ///
    /// # Errors
    /// When one part cannot be read or they do not belong together.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, X509Error> {
        let der = certificate_from_pem(certificate)?;
        let key = PrivateKey::from_pem(key)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(malformed)?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key() {
            return Err(X509Error::KeyMismatch);
        }
        Ok(Self { certificate_der: der, certificate_pem: certificate.to_owned(), key })
    }

    /// A new authority that signs itself. The subject is empty without organizations and common name.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn self_signed(
        organizations: &[&str],
        common_name: Option<&str>,
        key: PrivateKey,
        not_before: Timestamp,
        not_after: Timestamp,
        random: &Random,
    ) -> Result<Self, X509Error> {
        let organizations: Vec<String> = organizations.iter().map(|name| (*name).to_owned()).collect();
        let subject = der::name(&organizations, common_name);
        let extensions = [
            der::key_usage(&[der::DIGITAL_SIGNATURE, der::KEY_CERT_SIGN]),
            der::extended_key_usage(Usages::BOTH),
            der::basic_constraints(true),
            der::subject_key_identifier(&key_identifier(&key)),
        ];
        let certificate_der = sign(&subject, &subject, not_before, not_after, &key, &key, &extensions, random)?;
        let certificate_pem = pem::encode("CERTIFICATE", &certificate_der);
        Ok(Self { certificate_der, certificate_pem, key })
    }

    /// Issues a certificate for `key`. Its serial comes from `random`.
    ///
    /// # Errors
    /// When our own certificate cannot be read or the key cannot sign.
    pub fn issue(&self, leaf: &Leaf, key: &PrivateKey, random: &Random) -> Result<CertificateDer<'static>, X509Error> {
        let (_, own) = X509Certificate::from_der(&self.certificate_der).map_err(malformed)?;
        let issuer = own.subject().as_raw();
        let subject = der::name(&leaf.organizations, leaf.common_name.as_deref());
        let mut usage = vec![der::DIGITAL_SIGNATURE];
        if key.algorithm() != KeyAlgorithm::Ed25519 {
            usage.push(der::KEY_ENCIPHERMENT);
        }
        let mut extensions = vec![
            der::key_usage(&usage),
            der::extended_key_usage(leaf.usages),
            der::basic_constraints(false),
            der::subject_key_identifier(&key_identifier(key)),
            der::authority_key_identifier(&subject_key_id(&own).unwrap_or_else(|| key_identifier(&self.key).to_vec())),
        ];
        if !leaf.dns_names.is_empty() || !leaf.ip_addresses.is_empty() {
            for name in &leaf.dns_names {
                if !name.is_ascii() {
                    return Err(X509Error::Name { name: name.clone() });
                }
            }
            let is_only_name = leaf.organizations.is_empty() && leaf.common_name.is_none();
            extensions.push(der::subject_alternative_names(&leaf.dns_names, &leaf.ip_addresses, is_only_name));
        }
        sign(issuer, &subject, leaf.not_before, leaf.not_after, key, &self.key, &extensions, random)
    }

    /// What the certificate says.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn facts(&self) -> Result<Facts, X509Error> {
        Facts::read(&self.certificate_der)
    }
}

/// What a certificate says, as far as we ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub organizations: Vec<String>,
    pub common_name: Option<String>,
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub is_authority: bool,
    /// The identifier of its own key.
    pub subject_key_id: Option<Vec<u8>>,
    /// The identifier of the key that signed it.
    pub authority_key_id: Option<Vec<u8>>,
}

impl Facts {
    /// Reads a certificate.
    ///
    /// # Errors
    /// When it is not one.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, X509Error> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(malformed)?;
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().unwrap_or_default().to_owned();
        let time = |at: x509_parser::time::ASN1Time| {
            Timestamp::from_second(at.timestamp()).map_err(|error| X509Error::Malformed { reason: error.to_string() })
        };
        let mut dns_names = Vec::new();
        let mut ip_addresses = Vec::new();
        if let Ok(Some(names)) = parsed.subject_alternative_name() {
            for name in &names.value.general_names {
                match name {
                    GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => ip_addresses.extend(address(bytes)),
                    _ => {}
                }
            }
        }
        Ok(Self {
            organizations: parsed.subject().iter_organization().map(text).collect(),
            common_name: parsed.subject().iter_common_name().next().map(text),
            dns_names,
            ip_addresses,
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
            is_authority: parsed.is_ca(),
            subject_key_id: subject_key_id(&parsed),
            authority_key_id: authority_key_id(&parsed),
        })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn subject_key_id(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

fn authority_key_id(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    })
}

/// The key identifier we give: SHA-1 over the public key (RFC 5280, 4.2.1.2, method 1).
fn key_identifier(key: &PrivateKey) -> [u8; 20] {
    sha1::Sha1::digest(key.public_key()).into()
}

fn malformed(error: impl std::fmt::Display) -> X509Error {
    X509Error::Malformed { reason: error.to_string() }
}

/// Reads the first certificate of a PEM text.
///
/// # Errors
/// When there is none.
pub fn certificate_from_pem(text: &str) -> Result<CertificateDer<'static>, X509Error> {
    certificates_from_pem(text)?.into_iter().next().ok_or(X509Error::Pem(PemError::Empty))
}

/// Reads all certificates of a PEM text, in order.
///
/// # Errors
/// When there is none or a block is something else.
pub fn certificates_from_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, X509Error> {
    pem::decode(text)?
        .into_iter()
        .map(|block| {
            if block.label != "CERTIFICATE" {
                return Err(X509Error::Label { label: block.label });
            }
            X509Certificate::from_der(&block.der).map_err(malformed)?;
            Ok(CertificateDer::from(block.der))
        })
        .collect()
}

/// Writes a certificate as PEM.
pub fn certificate_to_pem(certificate: &CertificateDer<'_>) -> String {
    pem::encode("CERTIFICATE", certificate)
}

#[allow(clippy::too_many_arguments)]
fn sign(
    issuer: &[u8],
    subject: &[u8],
    not_before: Timestamp,
    not_after: Timestamp,
    key: &PrivateKey,
    signer: &PrivateKey,
    extensions: &[Vec<u8>],
    random: &Random,
) -> Result<CertificateDer<'static>, X509Error> {
    let algorithm = der::signature_algorithm(signer.algorithm());
    let body = der::sequence(&[
        der::tagged(0xa0, &der::integer(&[2])),
        der::integer(&random.bytes::<16>()),
        algorithm.clone(),
        issuer.to_vec(),
        der::sequence(&[der::time(not_before), der::time(not_after)]),
        subject.to_vec(),
        der::public_key(key.algorithm(), key.public_key()),
        der::tagged(0xa3, &der::sequence(extensions)),
    ]);
    let signature = signer.sign_message(&body)?;
    Ok(CertificateDer::from(der::sequence(&[body, algorithm, der::bit_string(&signature, 0)])))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::keys::{KeySource as _, Prepared};
    use crate::tls::{ClientAuth, ClientTls, Identity, ServerTls, Tls, TlsError, authorities, client_authorities};

    const ALL: [KeyAlgorithm; 3] = [KeyAlgorithm::Ed25519, KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa4096];

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    async fn authority(seed: u64, algorithm: KeyAlgorithm, organizations: &[&str]) -> Authority {
        let random = Random::seeded(seed);
        let key = Prepared::new(random.child("key")).generate(algorithm).await.unwrap();
        Authority::self_signed(organizations, None, key, at("2026-01-01T00:00:00Z"), at("2055-01-01T00:00:00Z"), &random).unwrap()
    }

    fn leaf(usages: Usages) -> Leaf {
        Leaf {
            organizations: vec!["os:reader".into(), "os:admin".into()],
            common_name: Some("node".into()),
            dns_names: vec!["node.example".into()],
            ip_addresses: vec!["10.0.0.4".parse().unwrap(), "fd00::4".parse().unwrap()],
            usages,
            not_before: at("2026-01-01T00:00:00Z"),
            not_after: at("2027-01-01T00:00:00Z"),
        }
    }

    #[tokio::test]
    async fn a_leaf_says_what_was_asked_and_who_signed() {
        for (ca, own) in ALL.into_iter().flat_map(|ca| ALL.map(|own| (ca, own))) {
            let authority = authority(1, ca, &["talos"]).await;
            let key = Prepared::new(Random::seeded(9)).generate(own).await.unwrap();
            let der = authority.issue(&leaf(Usages::CLIENT), &key, &Random::seeded(2)).unwrap();
            let facts = Facts::read(&der).unwrap();
            assert_eq!(facts.organizations, ["os:admin", "os:reader"]);
            assert_eq!(facts.common_name.as_deref(), Some("node"));
            assert_eq!(facts.ip_addresses, leaf(Usages::CLIENT).ip_addresses);
            assert_eq!(facts.dns_names, ["node.example"]);
            assert!(!facts.is_authority);
            let issuer = authority.facts().unwrap();
            assert!(issuer.is_authority);
            assert_eq!(issuer.authority_key_id, None);
            assert_eq!(facts.authority_key_id, issuer.subject_key_id);
            assert_eq!(issuer.not_after, at("2055-01-01T00:00:00Z"));
        }
    }

    #[tokio::test]
    async fn one_seed_gives_the_same_certificate() {
        let first = authority(1, KeyAlgorithm::EcdsaP256, &["etcd"]).await;
        assert_eq!(first.certificate_pem, authority(1, KeyAlgorithm::EcdsaP256, &["etcd"]).await.certificate_pem);
        let read = Authority::from_pem(&first.certificate_pem, &first.key.to_pem()).unwrap();
        assert_eq!(read.certificate_der, first.certificate_der);
        let other = authority(2, KeyAlgorithm::EcdsaP256, &["etcd"]).await;
        assert!(matches!(Authority::from_pem(&first.certificate_pem, &other.key.to_pem()), Err(X509Error::KeyMismatch)));
    }

    /// Both sides present certificates of the given authorities and verify against `trusted`.
    async fn handshake(issuer: &Authority, trusted: &Authority, usages: Usages) -> (Result<(), TlsError>, Result<(), TlsError>) {
        let tls = Tls::clear(Clock::starting_at(at("2026-06-01T00:00:00Z")));
        let random = Random::seeded(4);
        let mut identities = Vec::new();
        for label in ["server", "client"] {
            let key = Prepared::new(random.child(label)).generate(KeyAlgorithm::Ed25519).await.unwrap();
            let der = issuer.issue(&leaf(usages), &key, &random).unwrap();
            identities.push(Identity { chain: vec![der], key: key.as_rustls() });
        }
        let roots = [trusted.certificate_der.clone()];
        let client =
            ClientTls { verifier: authorities(&roots).unwrap(), identity: identities.pop(), server_name: None, alpn: vec![b"h2".to_vec()] };
        let server = ServerTls {
            identity: identities.pop().unwrap(),
            clients: ClientAuth::Required(client_authorities(&roots).unwrap()),
            alpn: vec![b"h2".to_vec()],
        };
        let (near, far) = tokio::io::duplex(1 << 16);
        let (left, right) = tokio::join!(
            tokio::time::timeout(Duration::from_secs(60), tls.connect(Box::new(near), "10.0.0.4", &client)),
            tokio::time::timeout(Duration::from_secs(60), tls.accept(Box::new(far), &server)),
        );
        (left.unwrap().map(drop), right.unwrap().map(drop))
    }

    #[tokio::test(start_paused = true)]
    async fn chains_verify_with_webpki_also_under_an_empty_subject() {
        for algorithm in ALL {
            for organizations in [&["talos"][..], &[]] {
                let authority = authority(1, algorithm, organizations).await;
                let (client, server) = handshake(&authority, &authority, Usages::BOTH).await;
                client.unwrap();
                server.unwrap();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_authority_of_the_same_name_and_a_wrong_usage_are_refused() {
        let (ours, theirs) = (authority(1, KeyAlgorithm::Ed25519, &["talos"]).await, authority(2, KeyAlgorithm::Ed25519, &["talos"]).await);
        let (client, _) = handshake(&theirs, &ours, Usages::BOTH).await;
        assert!(matches!(client, Err(TlsError::Untrusted { .. })), "{client:?}");
        let (client, _) = handshake(&ours, &ours, Usages::CLIENT).await;
        assert!(matches!(client, Err(TlsError::Untrusted { .. })), "{client:?}");
    }
}
