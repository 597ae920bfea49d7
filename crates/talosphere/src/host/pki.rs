//! The embedded API server's authority and the identities it made: the server's, anew at each start, and the administrator's, kept.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use runtime::http::{Connector, kube_client};
use runtime::keys::{KeyAlgorithm, PrivateKey};
use runtime::net::TcpDialer;
use runtime::tls::{ClientAuth, ClientTls, Identity, ServerTls, authorities, client_authorities};
use runtime::x509::{Authority, Facts, Leaf, Usages, certificate_from_pem, certificate_to_pem};
use serde_json::{Value, json};

use crate::problem::{Code, Problem};
use crate::seams::Seams;
use crate::state::StateDirectory;

/// The authority lives ten years, what it issues one; an identity is made anew when less than a month of it is left.
const AUTHORITY_HOURS: i64 = 87_600;
const LEAF_HOURS: i64 = 8_760;
const RENEW_HOURS: i64 = 720;
/// Certificates are valid from before they are made, for hosts whose clocks are behind.
const BACKDATE_HOURS: i64 = 1;

/// Files in the state directory.
const AUTHORITY: (&str, &str) = ("pki/authority.pem", "pki/authority.key");
const ADMIN: (&str, &str) = ("pki/admin.pem", "pki/admin.key");

/// The keys of one state directory.
#[derive(Debug)]
pub struct Pki {
    authority: Authority,
    admin_certificate: String,
    admin_key: PrivateKey,
}

fn failed(what: &str, error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::StateUnusable, format!("the API server's {what} cannot be used"))
        .because(error.to_string())
        .remedy("restore the folder pki of the state directory from a backup; or remove it, and write the kubeconfigs of this API anew")
}

fn after(time: Timestamp, hours: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_hours(hours)).unwrap_or(Timestamp::MAX)
}

impl Pki {
    /// Reads the keys, making what is missing or about to expire.
    ///
    /// # Errors
    /// When the directory cannot be read or written, or holds something that is no key.
    pub async fn open(directory: &StateDirectory, seams: &Seams) -> Result<Self, Problem> {
        let now = seams.clock.now();
        let authority = match (directory.read_if_there(AUTHORITY.0)?, directory.read_if_there(AUTHORITY.1)?) {
            (Some(certificate), Some(key)) => Authority::from_pem(&certificate, &key).map_err(|error| failed("authority", error))?,
            (Some(_), None) => {
                return Err(failed("authority", format!("{} is there without {}, its key", AUTHORITY.0, AUTHORITY.1)));
            }
            // The key is written first: one without a certificate was never in use.
            (None, _) => {
                let key = seams.keys.generate(KeyAlgorithm::EcdsaP256).await.map_err(|error| failed("authority", error))?;
                let random = seams.random.child("authority");
                let (from, until) = (after(now, -BACKDATE_HOURS), after(now, AUTHORITY_HOURS));
                let authority =
                    Authority::self_signed(&["talosphere"], None, key, from, until, &random).map_err(|error| failed("authority", error))?;
                directory.write(AUTHORITY.1, &authority.key.to_pem())?;
                directory.write(AUTHORITY.0, &authority.certificate_pem)?;
                authority
            }
        };
        let kept = match (directory.read_if_there(ADMIN.0)?, directory.read_if_there(ADMIN.1)?) {
            (Some(certificate), Some(key)) => kept_admin(&authority, certificate, &key, now),
            _ => None,
        };
        if let Some((admin_certificate, admin_key)) = kept {
            return Ok(Self { authority, admin_certificate, admin_key });
        }
        let admin_key = seams.keys.generate(KeyAlgorithm::EcdsaP256).await.map_err(|error| failed("administrator's key", error))?;
        let leaf = Leaf {
            organizations: vec!["system:masters".to_owned()],
            common_name: Some("talosphere-admin".to_owned()),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            usages: Usages::CLIENT,
            not_before: after(now, -BACKDATE_HOURS),
            not_after: after(now, LEAF_HOURS),
        };
        let certificate = authority
            .issue(&leaf, &admin_key, &seams.random.child("admin"))
            .map_err(|error| failed("administrator's certificate", error))?;
        let admin_certificate = certificate_to_pem(&certificate);
        directory.write(ADMIN.1, &admin_key.to_pem())?;
        directory.write(ADMIN.0, &admin_certificate)?;
        Ok(Self { authority, admin_certificate, admin_key })
    }

    /// What the server brings to a handshake when it listens on `address`.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub async fn server(&self, address: IpAddr, seams: &Seams) -> Result<ServerTls, Problem> {
        let now = seams.clock.now();
        let key = seams.keys.generate(KeyAlgorithm::EcdsaP256).await.map_err(|error| failed("server key", error))?;
        let mut ip_addresses = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        if !address.is_unspecified() && !ip_addresses.contains(&address) {
            ip_addresses.push(address);
        }
        let leaf = Leaf {
            organizations: Vec::new(),
            common_name: Some("talosphere".to_owned()),
            dns_names: vec!["localhost".to_owned(), "kubernetes".to_owned()],
            ip_addresses,
            usages: Usages::SERVER,
            not_before: after(now, -BACKDATE_HOURS),
            not_after: after(now, LEAF_HOURS),
        };
        let certificate =
            self.authority.issue(&leaf, &key, &seams.random.child("server")).map_err(|error| failed("server certificate", error))?;
        let clients =
            client_authorities(std::slice::from_ref(&self.authority.certificate_der)).map_err(|error| failed("authority", error))?;
        Ok(ServerTls {
            identity: Identity { chain: vec![certificate], key: key.as_rustls() },
            clients: ClientAuth::Optional(clients),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        })
    }

    /// The administrator's client for the server that answers at `address` (`127.0.0.1:port`).
    ///
    /// # Errors
    /// When the address or a certificate is not usable.
    pub fn client(&self, address: &str, seams: &Seams) -> Result<kube::Client, Problem> {
        let certificate = certificate_from_pem(&self.admin_certificate).map_err(|error| failed("administrator's certificate", error))?;
        let tls = ClientTls {
            verifier: authorities(std::slice::from_ref(&self.authority.certificate_der)).map_err(|error| failed("authority", error))?,
            identity: Some(Identity { chain: vec![certificate], key: self.admin_key.as_rustls() }),
            server_name: None,
            alpn: vec![b"http/1.1".to_vec()],
        };
        let connector = Connector::secured(Arc::new(TcpDialer), seams.tls.clone(), tls);
        kube_client(connector, address, "default").map_err(|error| failed("address", error))
    }

    /// A kubeconfig for the administrator.
    pub fn kubeconfig(&self, address: &str) -> Value {
        let encode = |text: &str| STANDARD.encode(text);
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "talosphere", "cluster": {
                "server": format!("https://{address}"), "certificate-authority-data": encode(&self.authority.certificate_pem),
            }}],
            "users": [{"name": "talosphere-admin", "user": {
                "client-certificate-data": encode(&self.admin_certificate), "client-key-data": encode(&self.admin_key.to_pem()),
            }}],
            "contexts": [{"name": "talosphere", "context": {"cluster": "talosphere", "user": "talosphere-admin"}}],
            "current-context": "talosphere",
        })
    }
}

/// The administrator's identity as kept, if this authority issued it and it lasts long enough.
fn kept_admin(authority: &Authority, certificate: String, key: &str, now: Timestamp) -> Option<(String, PrivateKey)> {
    let facts = Facts::read(&certificate_from_pem(&certificate).ok()?).ok()?;
    let is_ours = facts.authority_key_id == authority.facts().ok()?.subject_key_id;
    let key = PrivateKey::from_pem(key).ok()?;
    (is_ours && facts.not_after > after(now, RENEW_HOURS)).then_some((certificate, key))
}
