//! A kubeconfig as connection settings: the server's address and name, its authority, our certificate.
//!
//! Only what Cluster API's kubeconfig secrets hold is read: embedded data, one context in use. Files, plugins and a proxy are not: the way
//! to the network is the handed-in dialer's matter. Never shows content in an error.

use base64::Engine as _;
use runtime::tls::{ClientTls, Identity, authorities};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use thiserror::Error;

/// A kubeconfig that cannot be used.
#[derive(Debug, Error)]
pub enum KubeconfigError {
    #[error("the kubeconfig is not valid YAML")]
    Yaml,
    #[error("the kubeconfig has no {0}")]
    Missing(&'static str),
    #[error("the kubeconfig's {0} is not usable")]
    Unusable(&'static str),
}

/// Connection settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of the server, brackets around an IPv6 address.
    pub authority: String,
    /// The name that the server's certificate is checked against.
    pub host: String,
    pub port: u16,
    pub tls: ClientTls,
}

/// Reads the current context (or the only one) of a kubeconfig.
///
/// # Errors
/// When something is missing or not usable.
pub fn parse(text: &str) -> Result<Settings, KubeconfigError> {
    let documents = talos::yaml::read(text).map_err(|_| KubeconfigError::Yaml)?;
    let config = documents.into_iter().next().ok_or(KubeconfigError::Missing("content"))?;
    let context = named(&config, "contexts", config.get("current-context").and_then(Value::as_str)).map(|entry| &entry["context"]);
    let name = |field: &str| context.and_then(|context| context.get(field)).and_then(Value::as_str);
    let cluster = &named(&config, "clusters", name("cluster")).ok_or(KubeconfigError::Missing("cluster"))?["cluster"];
    let user = &named(&config, "users", name("user")).ok_or(KubeconfigError::Missing("user"))?["user"];

    let server = cluster.get("server").and_then(Value::as_str).ok_or(KubeconfigError::Missing("server"))?;
    let uri: http::Uri = server.parse().map_err(|_| KubeconfigError::Unusable("server"))?;
    let authority = uri.authority().ok_or(KubeconfigError::Unusable("server"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(443);
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };

    let roots = certificates(cluster, "certificate-authority-data")?;
    let verifier = authorities(&roots).map_err(|_| KubeconfigError::Unusable("certificate-authority-data"))?;
    let chain = certificates(user, "client-certificate-data")?;
    let key =
        PrivateKeyDer::from_pem_slice(&decoded(user, "client-key-data")?).map_err(|_| KubeconfigError::Unusable("client-key-data"))?;
    let tls = ClientTls {
        verifier,
        identity: Some(Identity { chain, key }),
        server_name: Some(host.clone()),
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    Ok(Settings { authority: format!("{bracketed}:{port}"), host, port, tls })
}

/// The entry of a list that has this name, or the first one.
fn named<'a>(config: &'a Value, list: &str, name: Option<&str>) -> Option<&'a Value> {
    let entries = config.get(list)?.as_array()?;
    match name.filter(|name| !name.is_empty()) {
        Some(name) => entries.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some(name)),
        None => entries.first(),
    }
}

fn decoded(part: &Value, field: &'static str) -> Result<Vec<u8>, KubeconfigError> {
    let text = part.get(field).and_then(Value::as_str).ok_or(KubeconfigError::Missing(field))?;
    base64::engine::general_purpose::STANDARD.decode(text.trim()).map_err(|_| KubeconfigError::Unusable(field))
}

fn certificates(part: &Value, field: &'static str) -> Result<Vec<CertificateDer<'static>>, KubeconfigError> {
    let pem = decoded(part, field)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|_| KubeconfigError::Unusable(field))?;
    if certificates.is_empty() { Err(KubeconfigError::Unusable(field)) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_without_parts_says_which() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(error("a: [b"), "the kubeconfig is not valid YAML");
        assert_eq!(error("clusters: []"), "the kubeconfig has no cluster");
        let text = "clusters: [{name: c, cluster: {server: 'https://a:6443'}}]\nusers: [{name: u, user: {}}]";
        assert_eq!(error(text), "the kubeconfig has no certificate-authority-data");
        let text = "current-context: x\ncontexts: [{name: x, context: {cluster: d}}]\nclusters: [{name: c, cluster: {}}]";
        assert_eq!(error(text), "the kubeconfig has no cluster");
    }

    #[test]
    fn the_kubeconfig_of_a_genuine_control_plane_is_read() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/kubernetes/objects/bootstrap/kubeconfig");
        let Ok(text) = std::fs::read_to_string(path) else {
            assert!(std::option_env!("CI").is_none(), "reference data is missing");
            return;
        };
        let settings = parse(&text).unwrap();
        assert_eq!((settings.host.as_str(), settings.port), ("vmware-k8s-api.lelund.eu", 6443));
        assert_eq!(settings.authority, "vmware-k8s-api.lelund.eu:6443");
        assert_eq!(settings.tls.identity.unwrap().chain.len(), 1);
    }
}
