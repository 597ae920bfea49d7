//! Private keys, made from handed-in randomness and written in the forms that Talos and Kubernetes read.
//!
//! A key is never printed: `Debug` shows its algorithm only. ring serves TLS alone; keys for certificates are made and used here, so
//! that one seed gives the same keys and the same signatures (P-256 signs deterministically after RFC 6979, Ed25519 and RSA PKCS#1 v1.5
//! always do). RSA keys cost up to seconds: the product makes them on a blocking thread, seeded runs take them from a small pool that
//! is made once per process ([`Prepared`], which does not exist in the product's default build).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::KeypairBytes;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::pkcs8::EncodePrivateKey as _;
use rsa::pkcs1::{DecodeRsaPrivateKey as _, EncodeRsaPrivateKey as _, EncodeRsaPublicKey as _};
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::signature::SignatureEncoding as _;
use rsa::traits::PublicKeyParts as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use crate::pem::{self, PemError};
use crate::random::Random;

/// The length of the RSA keys that are made; ones that are read may have any.
const RSA_BITS: usize = 4096;

/// What stands before the 32 bytes of an Ed25519 key in PKCS#8 version 1 (RFC 8410, 7).
const ED25519_PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// What kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyAlgorithm {
    Ed25519,
    EcdsaP256,
    /// RSA; made with 4096 bits, read with any.
    Rsa4096,
}

/// Why a key cannot be had.
#[derive(Debug, Error)]
pub enum KeyError {
    #[error("the private key cannot be read: {0}")]
    Pem(#[from] PemError),
    #[error("the private key has the label {label:?}; known are EC PRIVATE KEY, RSA PRIVATE KEY, ED25519 PRIVATE KEY and PRIVATE KEY")]
    Label { label: String },
    #[error(
        "the private key under the label {label:?} cannot be read: it is neither Ed25519, nor ECDSA on P-256, nor RSA, or it is broken"
    )]
    Malformed { label: String },
    #[error("a key could not be made: {reason}")]
    Generation { reason: String },
    #[error("a key could not be written: {reason}")]
    Encoding { reason: String },
}

/// A private key. Cheap to clone.
#[derive(Clone)]
pub struct PrivateKey(Arc<Inner>);

struct Inner {
    material: Material,
    pkcs8: Vec<u8>,
    /// As it stands in a certificate's bit string.
    public: Vec<u8>,
}

#[allow(clippy::large_enum_variant)] // always behind an Arc
enum Material {
    Ed25519(ed25519_dalek::SigningKey),
    EcdsaP256(p256::ecdsa::SigningKey),
    Rsa(rsa::pkcs1v15::SigningKey<rsa::sha2::Sha256>, rsa::PrivateKey),
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?})", self.algorithm())
    }
}

impl PrivateKey {
    fn from_ed25519(key: ed25519_dalek::SigningKey) -> Result<Self, KeyError> {
        // Version 1 of PKCS#8: without the public key, as Go writes it (48 bytes).
        let pkcs8 = [&ED25519_PKCS8_PREFIX[..], &key.to_bytes()[..]].concat();
        let public = key.verifying_key().to_bytes().to_vec();
        Ok(Self(Arc::new(Inner { material: Material::Ed25519(key), pkcs8, public })))
    }

    fn from_p256(key: &p256::SecretKey) -> Result<Self, KeyError> {
        let pkcs8 = key.to_pkcs8_der().map_err(encoding)?.as_bytes().to_vec();
        let public = key.public_key().to_sec1_point(false).as_bytes().to_vec();
        Ok(Self(Arc::new(Inner { material: Material::EcdsaP256(key.into()), pkcs8, public })))
    }

    fn from_rsa(key: rsa::PrivateKey) -> Result<Self, KeyError> {
        let pkcs8 = key.to_pkcs8_der().map_err(encoding)?.as_bytes().to_vec();
        let public = key.to_public_key().to_pkcs1_der().map_err(encoding)?.as_bytes().to_vec();
        let signer = rsa::pkcs1v15::SigningKey::new(key.clone());
        Ok(Self(Arc::new(Inner { material: Material::Rsa(signer, key), pkcs8, public })))
    }

    /// Makes a key at once. RSA takes up to seconds: see [`Generator`].
    ///
    /// # Errors
    /// When the algorithm's library refuses.
    fn make(algorithm: KeyAlgorithm, random: &Random, rsa_bits: usize) -> Result<Self, KeyError> {
        match algorithm {
            KeyAlgorithm::Ed25519 => Self::from_ed25519(ed25519_dalek::SigningKey::from_bytes(&random.bytes())),
            KeyAlgorithm::EcdsaP256 => loop {
                let bytes: [u8; 32] = random.bytes();
                if let Ok(key) = p256::SecretKey::from_slice(&bytes) {
                    break Self::from_p256(&key);
                }
            },
            KeyAlgorithm::Rsa4096 => {
                let key = rsa::PrivateKey::new(&mut random.clone(), rsa_bits)
                    .map_err(|error| KeyError::Generation { reason: error.to_string() })?;
                Self::from_rsa(key)
            }
        }
    }

    /// The kind of key.
    pub fn algorithm(&self) -> KeyAlgorithm {
        match self.0.material {
            Material::Ed25519(_) => KeyAlgorithm::Ed25519,
            Material::EcdsaP256(_) => KeyAlgorithm::EcdsaP256,
            Material::Rsa(..) => KeyAlgorithm::Rsa4096,
        }
    }

    /// The modulus length of an RSA key, in bits.
    pub fn rsa_bits(&self) -> Option<u32> {
        match &self.0.material {
            Material::Rsa(_, key) => Some(key.n().bit_width()),
            _ => None,
        }
    }

    /// PKCS#8 (version 1) bytes.
    pub fn to_pkcs8_der(&self) -> Vec<u8> {
        self.0.pkcs8.clone()
    }

    /// PEM as Talos writes it: Ed25519 as PKCS#8 under `ED25519 PRIVATE KEY`, ECDSA as SEC1, RSA as PKCS#1.
    pub fn to_pem(&self) -> String {
        match &self.0.material {
            Material::Ed25519(_) => pem::encode("ED25519 PRIVATE KEY", &self.0.pkcs8),
            Material::EcdsaP256(key) => match p256::SecretKey::from(key.as_nonzero_scalar()).to_sec1_der() {
                Ok(der) => pem::encode("EC PRIVATE KEY", &der),
                Err(_) => pem::encode("PRIVATE KEY", &self.0.pkcs8),
            },
            Material::Rsa(_, key) => match key.to_pkcs1_der() {
                Ok(der) => pem::encode("RSA PRIVATE KEY", der.as_bytes()),
                Err(_) => pem::encode("PRIVATE KEY", &self.0.pkcs8),
            },
        }
    }

    /// Reads the first private key of a PEM text, under any of the labels in use.
    ///
    /// # Errors
    /// When there is none, or its kind is not one of ours.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let blocks = pem::decode(text)?;
        let block =
            blocks.iter().find(|block| block.label.ends_with("PRIVATE KEY")).or(blocks.first()).ok_or(KeyError::Pem(PemError::Empty))?;
        let malformed = || KeyError::Malformed { label: block.label.clone() };
        match block.label.as_str() {
            "EC PRIVATE KEY" => {
                let key = p256::SecretKey::from_sec1_der(&block.der).or_else(|_| p256::SecretKey::from_pkcs8_der(&block.der));
                Self::from_p256(&key.map_err(|_| malformed())?)
            }
            "RSA PRIVATE KEY" => Self::from_rsa(rsa::PrivateKey::from_pkcs1_der(&block.der).map_err(|_| malformed())?),
            "ED25519 PRIVATE KEY" | "PRIVATE KEY" => Self::from_pkcs8_der(&block.der).map_err(|_| malformed()),
            label => Err(KeyError::Label { label: label.to_owned() }),
        }
    }

    /// Reads PKCS#8, version 1 or 2.
    ///
    /// # Errors
    /// When the bytes are no key of a known kind.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        if let Ok(pair) = KeypairBytes::from_pkcs8_der(der) {
            return Self::from_ed25519(ed25519_dalek::SigningKey::from_bytes(&pair.secret_key));
        }
        if let Ok(key) = p256::SecretKey::from_pkcs8_der(der) {
            return Self::from_p256(&key);
        }
        if let Ok(key) = rsa::PrivateKey::from_pkcs8_der(der) {
            return Self::from_rsa(key);
        }
        Err(KeyError::Malformed { label: "PRIVATE KEY".to_owned() })
    }

    /// For rustls.
    pub fn as_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.pkcs8.clone()))
    }

    /// The public key as it stands in a certificate: the bit string's content, without its algorithm.
    pub fn public_key(&self) -> &[u8] {
        &self.0.public
    }

    /// Signs with the algorithm's usual hash: SHA-256 for ECDSA and RSA. ECDSA signatures are in DER.
    ///
    /// # Errors
    /// When the library refuses (an RSA key that is too short).
    pub fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let refused = |error: rsa::signature::Error| KeyError::Generation { reason: error.to_string() };
        match &self.0.material {
            Material::Ed25519(key) => Ok(key.sign(message).to_bytes().to_vec()),
            Material::EcdsaP256(key) => {
                let signature: p256::ecdsa::DerSignature = key.try_sign(message).map_err(refused)?;
                Ok(signature.as_bytes().to_vec())
            }
            Material::Rsa(key, _) => {
                let signature: rsa::pkcs1v15::Signature = key.try_sign(message).map_err(refused)?;
                Ok(signature.to_vec())
            }
        }
    }
}

fn encoding(error: impl fmt::Display) -> KeyError {
    KeyError::Encoding { reason: error.to_string() }
}

impl rcgen::PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.0.material {
            Material::Ed25519(_) => &rcgen::PKCS_ED25519,
            Material::EcdsaP256(_) => &rcgen::PKCS_ECDSA_P256_SHA256,
            Material::Rsa(..) => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.sign_message(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// Where keys come from.
#[async_trait]
pub trait KeySource: fmt::Debug + Send + Sync {
    /// A new key.
    ///
    /// # Errors
    /// When it cannot be made.
    async fn generate(&self, algorithm: KeyAlgorithm) -> Result<PrivateKey, KeyError>;
}

/// The product's source: every key is new; RSA is made on a blocking thread.
#[derive(Clone, Debug)]
pub struct Generator {
    random: Random,
}

impl Generator {
    pub fn new(random: Random) -> Self {
        Self { random }
    }
}

#[async_trait]
impl KeySource for Generator {
    async fn generate(&self, algorithm: KeyAlgorithm) -> Result<PrivateKey, KeyError> {
        if algorithm != KeyAlgorithm::Rsa4096 {
            return PrivateKey::make(algorithm, &self.random, RSA_BITS);
        }
        let random = self.random.clone();
        tokio::task::spawn_blocking(move || PrivateKey::make(algorithm, &random, RSA_BITS))
            .await
            .map_err(|error| KeyError::Generation { reason: error.to_string() })?
    }
}

/// A source for seeded runs: the same keys for the same seed, RSA ones (2048 bits) out of a pool of two that is made on first use.
#[derive(Clone, Debug)]
pub struct Prepared {
    random: Random,
}

impl Prepared {
    pub fn new(random: Random) -> Self {
        Self { random }
    }

    #[expect(clippy::disallowed_methods, reason = "the pool is for seeded runs")]
    fn pooled(slot: usize) -> Result<PrivateKey, KeyError> {
        static POOL: [std::sync::OnceLock<Option<PrivateKey>>; 2] = [const { std::sync::OnceLock::new() }; 2];
        let missing = || KeyError::Generation { reason: "the pool of prepared RSA keys is empty".to_owned() };
        let cell = POOL.get(slot).ok_or_else(missing)?;
        let seed = u64::try_from(slot).unwrap_or(0);
        cell.get_or_init(|| PrivateKey::make(KeyAlgorithm::Rsa4096, &Random::seeded(0x7a_1050 + seed), 2048).ok())
            .clone()
            .ok_or_else(missing)
    }
}

#[async_trait]
impl KeySource for Prepared {
    async fn generate(&self, algorithm: KeyAlgorithm) -> Result<PrivateKey, KeyError> {
        if algorithm == KeyAlgorithm::Rsa4096 {
            return Self::pooled(usize::try_from(self.random.below(2)).unwrap_or(0));
        }
        PrivateKey::make(algorithm, &self.random, RSA_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [KeyAlgorithm; 3] = [KeyAlgorithm::Ed25519, KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa4096];

    async fn key(seed: u64, algorithm: KeyAlgorithm) -> PrivateKey {
        Prepared::new(Random::seeded(seed)).generate(algorithm).await.unwrap()
    }

    #[tokio::test]
    async fn each_kind_has_its_label_and_is_read_back() {
        for (algorithm, label) in ALL.into_iter().zip(["ED25519 PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"]) {
            let key = key(1, algorithm).await;
            let text = key.to_pem();
            assert!(text.starts_with(&format!("-----BEGIN {label}-----\n")), "{label}");
            assert!(text.ends_with(&format!("-----END {label}-----\n")), "{label}");
            for form in [text, pem::encode("PRIVATE KEY", &key.to_pkcs8_der())] {
                let read = PrivateKey::from_pem(&form).unwrap();
                assert_eq!(read.algorithm(), algorithm);
                assert_eq!(read.to_pkcs8_der(), key.to_pkcs8_der());
                assert_eq!(read.public_key(), key.public_key());
            }
        }
    }

    #[tokio::test]
    async fn an_ed25519_key_is_48_bytes_of_pkcs8_version_1() {
        let key = key(1, KeyAlgorithm::Ed25519).await;
        let block = pem::decode(&key.to_pem()).unwrap().remove(0);
        assert_eq!(block.der.len(), 48);
        assert_eq!(block.der[..5], [0x30, 46, 2, 1, 0]);
    }

    #[tokio::test]
    async fn rustls_loads_and_verifies_every_kind() {
        for algorithm in ALL {
            let key = key(2, algorithm).await;
            let loaded = rustls::crypto::ring::sign::any_supported_type(&key.as_rustls()).unwrap();
            let spki = loaded.public_key().expect("a public key");
            let own = rcgen::PublicKeyData::subject_public_key_info(&key);
            assert_eq!(spki.as_ref(), own, "{algorithm:?}");
        }
    }

    #[tokio::test]
    async fn one_seed_gives_the_same_keys_and_signatures() {
        for algorithm in ALL {
            let (first, second, other) = (key(3, algorithm).await, key(3, algorithm).await, key(5, algorithm).await);
            assert_eq!(first.to_pem(), second.to_pem());
            assert_eq!(first.sign_message(b"m").unwrap(), second.sign_message(b"m").unwrap());
            if algorithm != KeyAlgorithm::Rsa4096 {
                assert_ne!(first.to_pem(), other.to_pem());
            }
        }
    }

    #[test]
    fn unreadable_keys_say_why() {
        let error = PrivateKey::from_pem(&pem::encode("DSA PRIVATE KEY", &[1])).unwrap_err();
        assert!(error.to_string().contains("\"DSA PRIVATE KEY\""), "{error}");
        for label in ["EC PRIVATE KEY", "RSA PRIVATE KEY", "ED25519 PRIVATE KEY", "PRIVATE KEY"] {
            let error = PrivateKey::from_pem(&pem::encode(label, &[1, 2, 3])).unwrap_err();
            assert!(matches!(error, KeyError::Malformed { .. }), "{label}: {error}");
        }
    }

    #[tokio::test]
    async fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", key(1, KeyAlgorithm::Ed25519).await), "PrivateKey(Ed25519)");
    }
}
