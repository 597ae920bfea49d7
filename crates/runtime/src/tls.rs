//! TLS on a stream, with the peer's certificate always verified at handed-in time.
//!
//! [`Tls::real`] encrypts. [`Tls::clear`], for deterministic runs, exchanges and verifies the same chains with the same verifiers but
//! sends the bytes as they are: a wrong certificate fails there as it does on a real socket, and no random byte is drawn.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig, SignatureScheme};
use sha1::Digest as _;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::clock::Clock;
use crate::net::BoxStream;

/// A handshake must be over within this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// No certificate of a chain, and no protocol name, is longer.
const MAX_FRAME: u32 = 64 * 1024;

/// Why a handshake failed.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The stream broke, or the peer does not speak TLS.
    #[error("the TLS handshake broke off")]
    Io(#[source] io::Error),
    /// The peer's certificate was not accepted by us.
    #[error("the peer's certificate is not trusted: {reason}")]
    Untrusted { reason: String },
    /// The peer's certificate has another thumbprint than the one expected.
    #[error("the peer's certificate has the thumbprint {presented}, expected {expected}")]
    Thumbprint { expected: String, presented: String },
    /// The peer did not accept our certificate, or wants one.
    #[error("the peer refused our certificate: {reason}")]
    Refused { reason: String },
    /// Our own side is not usable.
    #[error("TLS cannot be set up: {reason}")]
    Setup { reason: String },
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// A certificate chain, leaf first, and the leaf's private key.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// What a client brings to a handshake.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub verifier: Arc<dyn ServerCertVerifier>,
    /// Presented when the server asks for a certificate.
    pub identity: Option<Identity>,
    /// The name the server's certificate is checked against; the dialled host when absent.
    pub server_name: Option<String>,
    /// Protocols offered by ALPN, most wanted first: `h2`, `http/1.1`.
    pub alpn: Vec<Vec<u8>>,
}

/// Whether a server asks its clients for certificates.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    None,
    /// A certificate is asked for; a client without one is let in and shows no chain.
    Optional(Arc<dyn ClientCertVerifier>),
    Required(Arc<dyn ClientCertVerifier>),
}

/// What a server brings to a handshake.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub identity: Identity,
    pub clients: ClientAuth,
    pub alpn: Vec<Vec<u8>>,
}

/// A stream after its handshake.
pub struct Secured {
    pub stream: BoxStream,
    /// The peer's verified chain, leaf first; empty when it showed none.
    pub peer: Vec<CertificateDer<'static>>,
    pub alpn: Option<Vec<u8>>,
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("alpn", &self.alpn).finish_non_exhaustive()
    }
}

/// The ring provider: the one crypto provider in the binary.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Verifies servers against certificate authorities (DER). Name or address must match.
///
/// # Errors
/// When no authority is given or one is unusable.
pub fn authorities(roots: &[CertificateDer<'_>]) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(root_store(roots)?, provider())
        .build()
        .map_err(|error| TlsError::Setup { reason: error.to_string() })?;
    Ok(verifier)
}

/// Verifies clients against certificate authorities (DER). Clients without a certificate are left to [`ClientAuth`].
///
/// # Errors
/// When no authority is given or one is unusable.
pub fn client_authorities(roots: &[CertificateDer<'_>]) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(root_store(roots)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::Setup { reason: error.to_string() })
}

fn root_store(roots: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone().into_owned()).map_err(|error| TlsError::Setup { reason: error.to_string() })?;
    }
    Ok(Arc::new(store))
}

/// The SHA-1 thumbprint of a certificate: upper-case hex pairs with colons, as vSphere prints it.
pub fn sha1_thumbprint(certificate: &CertificateDer<'_>) -> String {
    colon_hex(&sha1::Sha1::digest(certificate))
}

/// The SHA-256 thumbprint of a certificate, in the same form.
pub fn sha256_thumbprint(certificate: &CertificateDer<'_>) -> String {
    colon_hex(&sha2::Sha256::digest(certificate))
}

fn colon_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// Accepts exactly the server whose certificate has this thumbprint (SHA-1 or SHA-256, hex, colons optional, any case).
pub fn thumbprint(expected: &str) -> Arc<dyn ServerCertVerifier> {
    let digits: String = expected.chars().filter(char::is_ascii_hexdigit).collect();
    Arc::new(Pinned { expected: Some(digits.to_ascii_uppercase()), shown: expected.to_owned(), provider: provider() })
}

/// Accepts any server: for an explicit "insecure" only, and for reading a certificate in order to show it.
pub fn any_server() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Pinned { expected: None, shown: String::new(), provider: provider() })
}

#[derive(Debug)]
struct Pinned {
    expected: Option<String>,
    shown: String,
    provider: Arc<CryptoProvider>,
}

/// The presented thumbprint was another one.
#[derive(Debug, Error)]
#[error("thumbprint {presented}, expected {expected}")]
struct Mismatch {
    expected: String,
    presented: String,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(expected) = &self.expected else { return Ok(ServerCertVerified::assertion()) };
        let presented = if expected.len() == 64 { sha256_thumbprint(end_entity) } else { sha1_thumbprint(end_entity) };
        if presented.replace(':', "") == *expected {
            return Ok(ServerCertVerified::assertion());
        }
        let mismatch = Mismatch { expected: self.shown.clone(), presented };
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Secures streams. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls {
    clock: Clock,
    is_clear: bool,
}

impl Tls {
    /// Real TLS 1.2 and 1.3.
    pub fn real(clock: Clock) -> Self {
        Self { clock, is_clear: false }
    }

    /// Chains exchanged and verified, nothing encrypted.
    pub fn clear(clock: Clock) -> Self {
        Self { clock, is_clear: true }
    }

    /// The clock certificates are checked by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The client's side of a handshake with `host`.
    ///
    /// # Errors
    /// When the peer is not trusted, does not trust us, or the stream breaks.
    pub async fn connect(&self, stream: BoxStream, host: &str, tls: &ClientTls) -> Result<Secured, TlsError> {
        let name = tls.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(|error| TlsError::Setup { reason: format!("server name: {error}") })?;
        let handshake =
            async { if self.is_clear { self.connect_clear(stream, &name, tls).await } else { self.connect_real(stream, name, tls).await } };
        within_limit(handshake).await
    }

    /// The server's side of a handshake.
    ///
    /// # Errors
    /// When the client is not trusted, does not trust us, or the stream breaks.
    pub async fn accept(&self, stream: BoxStream, tls: &ServerTls) -> Result<Secured, TlsError> {
        let handshake = async { if self.is_clear { self.accept_clear(stream, tls).await } else { self.accept_real(stream, tls).await } };
        within_limit(handshake).await
    }

    async fn connect_real(&self, stream: BoxStream, name: ServerName<'static>, tls: &ClientTls) -> Result<Secured, TlsError> {
        let builder = ClientConfig::builder_with_details(provider(), Arc::new(self.clock.clone()))
            .with_safe_default_protocol_versions()
            .map_err(setup)?
            .dangerous()
            .with_custom_certificate_verifier(tls.verifier.clone());
        let mut config = match &tls.identity {
            Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).map_err(setup)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = tls.alpn.clone();
        let secured = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(handshake_error)?;
        let (_, session) = secured.get_ref();
        let peer = session.peer_certificates().unwrap_or_default().to_vec();
        let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
        Ok(Secured { stream: Box::new(secured), peer, alpn })
    }

    async fn accept_real(&self, stream: BoxStream, tls: &ServerTls) -> Result<Secured, TlsError> {
        let builder = ServerConfig::builder_with_details(provider(), Arc::new(self.clock.clone()))
            .with_safe_default_protocol_versions()
            .map_err(setup)?;
        let builder = match &tls.clients {
            ClientAuth::None => builder.with_no_client_auth(),
            ClientAuth::Optional(verifier) | ClientAuth::Required(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        };
        let mut config = builder.with_single_cert(tls.identity.chain.clone(), tls.identity.key.clone_key()).map_err(setup)?;
        config.alpn_protocols = tls.alpn.clone();
        let secured = TlsAcceptor::from(Arc::new(config)).accept(stream).await.map_err(handshake_error)?;
        let (_, session) = secured.get_ref();
        let peer = session.peer_certificates().unwrap_or_default().to_vec();
        if peer.is_empty() && matches!(tls.clients, ClientAuth::Required(_)) {
            return Err(TlsError::Untrusted { reason: "the client showed no certificate".to_owned() });
        }
        let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
        Ok(Secured { stream: Box::new(secured), peer, alpn })
    }

    async fn connect_clear(&self, mut stream: BoxStream, name: &ServerName<'_>, tls: &ClientTls) -> Result<Secured, TlsError> {
        let chain = tls.identity.as_ref().map(|identity| identity.chain.clone()).unwrap_or_default();
        let chain: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
        write_frames(&mut stream, &chain).await?;
        write_frames(&mut stream, &tls.alpn.iter().map(Vec::as_slice).collect::<Vec<_>>()).await?;
        let peer = read_chain(&mut stream).await?;
        let alpn = read_frames(&mut stream).await?.into_iter().next();
        let verdict = read_frames(&mut stream).await?;
        let (leaf, rest) = peer.split_first().ok_or_else(|| TlsError::Untrusted { reason: "no certificate".to_owned() })?;
        tls.verifier.verify_server_cert(leaf, rest, name, &[], self.unix_time()?).map_err(rustls_error)?;
        if let Some(reason) = verdict.first() {
            return Err(TlsError::Refused { reason: String::from_utf8_lossy(reason).into_owned() });
        }
        Ok(Secured { stream, peer, alpn })
    }

    async fn accept_clear(&self, mut stream: BoxStream, tls: &ServerTls) -> Result<Secured, TlsError> {
        let mut peer = read_chain(&mut stream).await?;
        let offered = read_frames(&mut stream).await?;
        let alpn = tls.alpn.iter().find(|ours| offered.contains(ours)).cloned();
        let chain: Vec<&[u8]> = tls.identity.chain.iter().map(AsRef::as_ref).collect();
        write_frames(&mut stream, &chain).await?;
        write_frames(&mut stream, &alpn.iter().map(Vec::as_slice).collect::<Vec<_>>()).await?;
        let verdict = match (&tls.clients, peer.split_first()) {
            (ClientAuth::None, _) => {
                peer = Vec::new();
                Ok(())
            }
            (ClientAuth::Optional(_), None) => Ok(()),
            (ClientAuth::Required(_), None) => Err("a certificate is required".to_owned()),
            (ClientAuth::Optional(verifier) | ClientAuth::Required(verifier), Some((leaf, rest))) => {
                verifier.verify_client_cert(leaf, rest, self.unix_time()?).map(drop).map_err(|error| error.to_string())
            }
        };
        match verdict {
            Ok(()) => {
                write_frames(&mut stream, &[]).await?;
                Ok(Secured { stream, peer, alpn })
            }
            Err(reason) => {
                write_frames(&mut stream, &[reason.as_bytes()]).await?;
                Err(TlsError::Untrusted { reason })
            }
        }
    }

    fn unix_time(&self) -> Result<UnixTime, TlsError> {
        use rustls::time_provider::TimeProvider as _;
        self.clock.current_time().ok_or_else(|| TlsError::Setup { reason: "the clock is before 1970".to_owned() })
    }
}

#[allow(clippy::disallowed_methods)] // a limit on the peer, on tokio's clock
async fn within_limit(handshake: impl Future<Output = Result<Secured, TlsError>>) -> Result<Secured, TlsError> {
    tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or_else(|_| {
        let text = format!("no end of the handshake within {HANDSHAKE_TIMEOUT:?}");
        Err(TlsError::Io(io::Error::new(io::ErrorKind::TimedOut, text)))
    })
}

#[allow(clippy::needless_pass_by_value)] // as `map_err` hands it over
fn setup(error: rustls::Error) -> TlsError {
    TlsError::Setup { reason: error.to_string() }
}

fn handshake_error(error: io::Error) -> TlsError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => rustls_error(inner.clone()),
        None => TlsError::Io(error),
    }
}

fn rustls_error(error: rustls::Error) -> TlsError {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => match other.downcast_ref::<Mismatch>() {
            Some(mismatch) => TlsError::Thumbprint { expected: mismatch.expected.clone(), presented: mismatch.presented.clone() },
            None => TlsError::Untrusted { reason: other.to_string() },
        },
        rustls::Error::InvalidCertificate(error) => TlsError::Untrusted { reason: error.to_string() },
        rustls::Error::AlertReceived(alert) => TlsError::Refused { reason: format!("{alert:?}") },
        other => TlsError::Io(io::Error::new(io::ErrorKind::InvalidData, other)),
    }
}

async fn write_frames(stream: &mut BoxStream, frames: &[&[u8]]) -> Result<(), TlsError> {
    let count = u32::try_from(frames.len()).unwrap_or(u32::MAX);
    let mut bytes = count.to_be_bytes().to_vec();
    for frame in frames {
        bytes.extend(u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(*frame);
    }
    stream.write_all(&bytes).await.map_err(TlsError::Io)
}

async fn read_frames(stream: &mut BoxStream) -> Result<Vec<Vec<u8>>, TlsError> {
    let count = stream.read_u32().await.map_err(TlsError::Io)?;
    if count > 64 {
        return Err(TlsError::Io(io::Error::new(io::ErrorKind::InvalidData, "not a handshake")));
    }
    let mut frames = Vec::new();
    for _ in 0..count {
        let length = stream.read_u32().await.map_err(TlsError::Io)?;
        if length > MAX_FRAME {
            return Err(TlsError::Io(io::Error::new(io::ErrorKind::InvalidData, "not a handshake")));
        }
        let mut frame = vec![0; usize::try_from(length).unwrap_or(0)];
        stream.read_exact(&mut frame).await.map_err(TlsError::Io)?;
        frames.push(frame);
    }
    Ok(frames)
}

async fn read_chain(stream: &mut BoxStream) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    Ok(read_frames(stream).await?.into_iter().map(CertificateDer::from).collect())
}
