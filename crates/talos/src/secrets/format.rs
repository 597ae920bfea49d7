//! The bundle's text: reading any form that is in use, writing the one that upstream writes.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Bundle, EncryptionSecret, PemPair, REDACTED, SecretsError};
use crate::yaml::{self, Layout};

/// A value below `document`. Key names are compared without regard to case: the YAML has them in lower case, the JSON in Go's case.
fn find<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(document, |value, name| value.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

fn text(document: &Value, path: &'static str) -> Result<String, SecretsError> {
    match find(document, path) {
        Some(Value::String(text)) if text == REDACTED => Err(SecretsError::Redacted { path }),
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::Null | Value::String(_)) | None => Err(SecretsError::Missing { path }),
        Some(Value::Number(number)) => Ok(number.to_string()), // an all-digit token, written without quotes
        Some(_) => Err(SecretsError::Invalid { path, reason: "it is not text".to_owned() }),
    }
}

fn pem(document: &Value, path: &'static str) -> Result<String, SecretsError> {
    let encoded: String = text(document, path)?.split_whitespace().collect();
    let bytes = STANDARD.decode(encoded).map_err(|_| SecretsError::NotBase64 { path })?;
    String::from_utf8(bytes).map_err(|_| SecretsError::NotBase64 { path })
}

fn pair(document: &Value, certificate: &'static str, key: &'static str) -> Result<PemPair, SecretsError> {
    Ok(PemPair { certificate: pem(document, certificate)?, key: pem(document, key)? })
}

fn encryption(document: &Value, secretbox: &'static str, aes_cbc: &'static str) -> Result<EncryptionSecret, SecretsError> {
    match (text(document, secretbox), text(document, aes_cbc)) {
        (Ok(_), Ok(_)) => Err(SecretsError::TwoEncryptionSecrets),
        (Ok(secret), Err(SecretsError::Missing { .. })) => Ok(EncryptionSecret::Secretbox(secret)),
        (Err(SecretsError::Missing { .. }), Ok(secret)) => Ok(EncryptionSecret::AesCbc(secret)),
        (Err(error), Err(SecretsError::Missing { .. }) | Ok(_)) | (_, Err(error)) => Err(error),
    }
}

fn document(text: &str) -> Result<Value, SecretsError> {
    yaml::read(text)?.into_iter().next().ok_or(SecretsError::Missing { path: "cluster.id" })
}

pub(super) fn read(text_of: &str) -> Result<Bundle, SecretsError> {
    let document = document(text_of)?;
    let document = &document;
    Ok(Bundle {
        cluster_id: text(document, "cluster.id")?,
        cluster_secret: text(document, "cluster.secret")?,
        bootstrap_token: text(document, "secrets.bootstraptoken")?,
        encryption: encryption(document, "secrets.secretboxencryptionsecret", "secrets.aescbcencryptionsecret")?,
        trustd_token: text(document, "trustdinfo.token")?,
        etcd: pair(document, "certs.etcd.crt", "certs.etcd.key")?,
        kubernetes: pair(document, "certs.k8s.crt", "certs.k8s.key")?,
        aggregator: pair(document, "certs.k8saggregator.crt", "certs.k8saggregator.key")?,
        service_account_key: pem(document, "certs.k8sserviceaccount.key")?,
        os: pair(document, "certs.os.crt", "certs.os.key")?,
    })
}

pub(super) fn read_legacy(certs: &str, kube_secrets: &str, trustd_info: &str) -> Result<Bundle, SecretsError> {
    let (certs, kube, trustd) = (document(certs)?, document(kube_secrets)?, document(trustd_info)?);
    let os = pair(&certs, "os.crt", "os.key")?;
    let derived = |label: &str| Sha256::new().chain_update(label).chain_update(&os.key).finalize();
    Ok(Bundle {
        cluster_id: URL_SAFE.encode(derived("cluster id")),
        cluster_secret: STANDARD.encode(derived("cluster secret")),
        bootstrap_token: text(&kube, "bootstraptoken")?,
        encryption: encryption(&kube, "secretboxencryptionsecret", "aescbcencryptionsecret")?,
        trustd_token: text(&trustd, "token")?,
        etcd: pair(&certs, "etcd.crt", "etcd.key")?,
        kubernetes: pair(&certs, "k8s.crt", "k8s.key")?,
        aggregator: pair(&certs, "k8saggregator.crt", "k8saggregator.key")?,
        service_account_key: pem(&certs, "k8sserviceaccount.key")?,
        os,
    })
}

pub(super) fn write(bundle: &Bundle) -> String {
    let pair = |pair: &PemPair| json!({ "crt": STANDARD.encode(&pair.certificate), "key": STANDARD.encode(&pair.key) });
    let mut secrets = json!({ "bootstraptoken": bundle.bootstrap_token });
    match &bundle.encryption {
        EncryptionSecret::Secretbox(secret) => secrets["secretboxencryptionsecret"] = json!(secret),
        EncryptionSecret::AesCbc(secret) => secrets["aescbcencryptionsecret"] = json!(secret),
    }
    let document = json!({
        "cluster": { "id": bundle.cluster_id, "secret": bundle.cluster_secret },
        "secrets": secrets,
        "trustdinfo": { "token": bundle.trustd_token },
        "certs": {
            "etcd": pair(&bundle.etcd),
            "k8s": pair(&bundle.kubernetes),
            "k8saggregator": pair(&bundle.aggregator),
            "k8sserviceaccount": { "key": STANDARD.encode(&bundle.service_account_key) },
            "os": pair(&bundle.os),
        },
    });
    yaml::write(&document, Layout::Structured)
}
