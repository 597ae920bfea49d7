//! The certificates a machine makes for itself, from the authorities of the configuration it received.
//!
//! A control plane signs with the authority's key; a worker has none and is signed for by a control plane's trustd, which wants the
//! token that both configurations carry. In maintenance mode the machine signs itself, anew at every boot.

use std::net::IpAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use runtime::keys::{KeyAlgorithm, KeyError, KeySource, PrivateKey};
use runtime::random::Random;
use runtime::tls::{ClientAuth, Identity, ServerTls, TlsError, client_authorities};
use runtime::x509::{Authority, Leaf, Usages, X509Error, certificate_from_pem};
use thiserror::Error;

use super::configuration::{Configuration, KeyPair};

/// How long a certificate of the machine API is good for.
pub const API_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// After this time a new one is made.
pub const API_RENEWAL: Duration = Duration::from_secs(12 * 3600);
/// How long a certificate of the Kubernetes API server is good for, and a client's.
pub const KUBERNETES_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum CertificateError {
    #[error(transparent)]
    Certificate(#[from] X509Error),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the authority has no private key")]
    NoKey,
}

/// The signing authority of a pair.
pub fn authority(pair: &KeyPair) -> Result<Authority, CertificateError> {
    let key = pair.key.as_deref().ok_or(CertificateError::NoKey)?;
    Ok(Authority::from_pem(&pair.certificate, key)?)
}

/// A key of the authority's own kind. RSA authorities get ECDSA leaves: a fresh RSA key would take seconds.
async fn key_like(authority: &Authority, keys: &dyn KeySource) -> Result<PrivateKey, KeyError> {
    let algorithm = match authority.key.algorithm() {
        KeyAlgorithm::Ed25519 => KeyAlgorithm::Ed25519,
        KeyAlgorithm::EcdsaP256 | KeyAlgorithm::Rsa4096 => KeyAlgorithm::EcdsaP256,
    };
    keys.generate(algorithm).await
}

/// What a certificate is to say.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub organizations: Vec<String>,
    pub common_name: Option<String>,
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub usages: Usages,
    pub lifetime: Duration,
}

/// A certificate of `authority`, with a new key.
pub async fn issue(
    authority: &Authority,
    wanted: &Wanted,
    now: Timestamp,
    keys: &dyn KeySource,
    random: &Random,
) -> Result<(Identity, PrivateKey), CertificateError> {
    let key = key_like(authority, keys).await?;
    let lifetime = SignedDuration::try_from(wanted.lifetime).unwrap_or(SignedDuration::MAX);
    let leaf = Leaf {
        organizations: wanted.organizations.clone(),
        common_name: wanted.common_name.clone(),
        dns_names: wanted.names.clone(),
        ip_addresses: wanted.addresses.clone(),
        usages: wanted.usages,
        // A little back, as nodes' clocks differ.
        not_before: now.checked_sub(SignedDuration::from_secs(10)).unwrap_or(now),
        not_after: now.checked_add(lifetime).unwrap_or(Timestamp::MAX),
    };
    let certificate = authority.issue(&leaf, &key, random)?;
    Ok((Identity { chain: vec![certificate], key: key.as_rustls() }, key))
}

/// What the machine API shows: the machine's addresses and names, signed by the Talos authority.
pub fn machine_api(configuration: &Configuration, hostname: &str, addresses: &[IpAddr]) -> Wanted {
    let mut names = vec![hostname.to_owned()];
    let mut addresses = addresses.to_vec();
    addresses.push(IpAddr::from([127, 0, 0, 1]));
    for san in &configuration.cert_sans {
        match san.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(san.clone()),
        }
    }
    let common_name = Some(hostname.to_owned());
    Wanted { organizations: Vec::new(), common_name, names, addresses, usages: Usages::SERVER, lifetime: API_LIFETIME }
}

/// What the Kubernetes API server shows.
pub fn kubernetes_api(configuration: &Configuration, hostname: &str, addresses: &[IpAddr]) -> Wanted {
    let cluster = &configuration.cluster;
    let mut names: Vec<String> = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).to_vec();
    names.push(format!("kubernetes.default.svc.{}", cluster.dns_domain));
    names.push("localhost".to_owned());
    names.push(hostname.to_owned());
    let mut addresses = addresses.to_vec();
    addresses.push(IpAddr::from([127, 0, 0, 1]));
    addresses.extend(cluster.service_subnets.iter().filter_map(|subnet| first_service_address(subnet)));
    for san in cluster.api_server_sans.iter().chain(&configuration.cert_sans).chain([&cluster.endpoint_host]) {
        match san.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(san.clone()),
        }
    }
    names.dedup();
    Wanted {
        organizations: vec!["kube-master".to_owned()],
        common_name: Some("kube-apiserver".to_owned()),
        names,
        addresses,
        usages: Usages::SERVER,
        lifetime: KUBERNETES_LIFETIME,
    }
}

/// The address of the service `kubernetes`: the first of the network. Host bits in the text do not count.
pub fn first_service_address(subnet: &str) -> Option<IpAddr> {
    let (address, prefix) = super::links::parse_cidr(subnet)?;
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Some(IpAddr::V4(((u32::from(address) & mask) | 1).into()))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Some(IpAddr::V6(((u128::from(address) & mask) | 1).into()))
        }
    }
}

/// The server's side of the machine API: clients of the Talos authority only.
pub fn machine_api_tls(configuration: &Configuration, identity: Identity) -> Result<ServerTls, CertificateError> {
    let mut roots = vec![certificate_from_pem(&configuration.os_ca.certificate)?];
    for accepted in &configuration.accepted_os_cas {
        roots.push(certificate_from_pem(accepted)?);
    }
    let clients = ClientAuth::Required(client_authorities(&roots)?);
    Ok(ServerTls { identity, clients, alpn: vec![b"h2".to_vec()] })
}

/// The server's side of the Kubernetes API: clients of the Kubernetes authority, or without a certificate.
pub fn kubernetes_api_tls(configuration: &Configuration, identity: Identity) -> Result<ServerTls, CertificateError> {
    let root = certificate_from_pem(&configuration.cluster.kubernetes_ca.certificate)?;
    let clients = ClientAuth::Optional(client_authorities(&[root])?);
    Ok(ServerTls { identity, clients, alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()] })
}

/// The server's side in maintenance mode: signed by nobody, open to everybody.
pub async fn maintenance_tls(
    addresses: &[IpAddr],
    now: Timestamp,
    keys: &dyn KeySource,
    random: &Random,
) -> Result<ServerTls, CertificateError> {
    let key = keys.generate(KeyAlgorithm::Ed25519).await?;
    let until = now.checked_add(SignedDuration::from_hours(24)).unwrap_or(now);
    let own = Authority::self_signed(&[], None, key, now.checked_sub(SignedDuration::from_secs(10)).unwrap_or(now), until, random)?;
    let name = "maintenance-service.talos.dev".to_owned();
    let wanted = Wanted {
        organizations: Vec::new(),
        common_name: Some(name.clone()),
        names: vec![name],
        addresses: addresses.to_vec(),
        usages: Usages::SERVER,
        lifetime: API_LIFETIME,
    };
    let (identity, _) = issue(&own, &wanted, now, keys, random).await?;
    Ok(ServerTls { identity, clients: ClientAuth::None, alpn: vec![b"h2".to_vec()] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_service_address_ignores_host_bits() {
        for (subnet, expected) in [("10.96.0.0/12", "10.96.0.1"), ("10.96.128.0/12", "10.96.0.1"), ("fd00:10:96::/112", "fd00:10:96::1")] {
            assert_eq!(first_service_address(subnet).unwrap().to_string(), expected);
        }
        assert_eq!(first_service_address("nonsense"), None);
    }
}
