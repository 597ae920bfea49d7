//! The server on sockets: who a certificate stands for, both versions of HTTP, and the end. Also without encryption, in memory.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use apiserver::ApiServer;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use runtime::clock::Clock;
use runtime::http::{Connector, client};
use runtime::keys::{KeyAlgorithm, KeySource as _, Prepared};
use runtime::net::{Dialer, Listener, MemoryNetwork, TcpDialer};
use runtime::random::Random;
use runtime::tls::{ClientAuth, ClientTls, Identity, ServerTls, Tls, authorities, client_authorities};
use runtime::x509::{Authority, Leaf, Usages};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::support::{START, server};

/// A certificate authority and what it issued.
pub struct Pki {
    pub authority: Authority,
    random: Random,
    keys: Prepared,
}

impl Pki {
    /// A new authority.
    pub async fn new() -> Self {
        let random = Random::seeded(3);
        let keys = Prepared::new(random.child("keys"));
        let key = keys.generate(KeyAlgorithm::EcdsaP256).await.unwrap();
        let authority =
            Authority::self_signed(&["test"], None, key, START.parse().unwrap(), "2036-01-01T00:00:00Z".parse().unwrap(), &random).unwrap();
        Self { authority, random, keys }
    }

    /// A certificate, its chain and its key; PEM texts of both as well.
    pub async fn issue(&self, name: &str, groups: &[&str], usages: Usages) -> (Identity, String, String) {
        let leaf = Leaf {
            organizations: groups.iter().map(|group| (*group).to_owned()).collect(),
            common_name: Some(name.to_owned()).filter(|name| !name.is_empty()),
            dns_names: vec!["localhost".to_owned()],
            ip_addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            usages,
            not_before: START.parse().unwrap(),
            not_after: "2036-01-01T00:00:00Z".parse().unwrap(),
        };
        let key = self.keys.generate(KeyAlgorithm::EcdsaP256).await.unwrap();
        let certificate = self.authority.issue(&leaf, &key, &self.random).unwrap();
        let pem = runtime::x509::certificate_to_pem(&certificate);
        (Identity { chain: vec![certificate], key: key.as_rustls() }, pem, key.to_pem())
    }

    /// What a server brings.
    pub async fn server(&self) -> ServerTls {
        let (identity, ..) = self.issue("apiserver", &[], Usages::SERVER).await;
        let clients = client_authorities(std::slice::from_ref(&self.authority.certificate_der)).unwrap();
        ServerTls { identity, clients: ClientAuth::Optional(clients), alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()] }
    }

    fn client(&self, identity: Option<Identity>, alpn: &str) -> ClientTls {
        let verifier = authorities(std::slice::from_ref(&self.authority.certificate_der)).unwrap();
        ClientTls { verifier, identity, server_name: None, alpn: vec![alpn.as_bytes().to_vec()] }
    }
}

struct Served {
    server: ApiServer,
    pki: Pki,
    tls: Tls,
    dialer: Arc<dyn Dialer>,
    authority: String,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn start(server: ApiServer, tls: Tls, dialer: Arc<dyn Dialer>, listener: Box<dyn Listener>, port: u16) -> Self {
        let pki = Pki::new().await;
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn({
            let (server, tls, own, shutdown) = (server.clone(), tls.clone(), pki.server().await, shutdown.clone());
            async move { server.serve(listener, tls, own, shutdown).await }
        });
        Self { server, pki, tls, dialer, authority: format!("127.0.0.1:{port}"), shutdown, serving }
    }

    /// On a real socket, with real TLS. The clock stands at the time the certificates were made for.
    async fn on_socket() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let clock = Clock::starting_at(START.parse().unwrap());
        Self::start(server().await, Tls::real(clock), Arc::new(TcpDialer), Box::new(listener), port).await
    }

    async fn ask(&self, identity: Option<Identity>, alpn: &str, path: &str) -> (StatusCode, http::Version, Value) {
        let connector = Connector::secured(self.dialer.clone(), self.tls.clone(), self.pki.client(identity, alpn));
        let request = Request::builder().uri(format!("https://{}{path}", self.authority)).body(Full::new(Bytes::new())).unwrap();
        let response = client(connector).request(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (head.status, head.version, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

#[tokio::test]
async fn certificates_say_who_asks() {
    let served = Served::on_socket().await;
    let (admin, ..) = served.pki.issue("ann", &["system:masters", "team"], Usages::CLIENT).await;
    for (alpn, version) in [("http/1.1", http::Version::HTTP_11), ("h2", http::Version::HTTP_2)] {
        let (code, spoken, body) = served.ask(Some(admin.clone()), alpn, "/api/v1/namespaces").await;
        assert_eq!((code, spoken, body["kind"].as_str()), (StatusCode::OK, version, Some("NamespaceList")));
    }
    let (nameless, ..) = served.pki.issue("", &["team"], Usages::CLIENT).await;
    for identity in [None, Some(nameless)] {
        let (code, _, body) = served.ask(identity.clone(), "h2", "/api/v1/namespaces").await;
        assert_eq!((code, body["reason"].as_str()), (StatusCode::UNAUTHORIZED, Some("Unauthorized")));
        assert_eq!(served.ask(identity, "http/1.1", "/version").await.0, StatusCode::OK);
    }
    // A certificate of another authority is no credential at all.
    let (stranger, ..) = Pki { authority: Pki::other().await, ..Pki::new().await }.issue("eve", &["system:masters"], Usages::CLIENT).await;
    let connector = Connector::secured(served.dialer.clone(), served.tls.clone(), served.pki.client(Some(stranger), "h2"));
    let request = Request::builder().uri(format!("https://{}/api", served.authority)).body(Full::new(Bytes::new())).unwrap();
    assert!(client(connector).request(request).await.is_err());
    served.server.close().await;
    served.serving.await.unwrap();
}

impl Pki {
    async fn other() -> Authority {
        let random = Random::seeded(4);
        let key = Prepared::new(random.child("keys")).generate(KeyAlgorithm::EcdsaP256).await.unwrap();
        Authority::self_signed(&["other"], None, key, START.parse().unwrap(), "2036-01-01T00:00:00Z".parse().unwrap(), &random).unwrap()
    }
}

#[tokio::test]
async fn the_end_is_graceful() {
    let served = Served::on_socket().await;
    let (admin, ..) = served.pki.issue("ann", &["system:masters"], Usages::CLIENT).await;
    let connector = Connector::secured(served.dialer.clone(), served.tls.clone(), served.pki.client(Some(admin), "http/1.1"));
    let request =
        Request::builder().uri(format!("https://{}/api/v1/namespaces?watch=true", served.authority)).body(Full::new(Bytes::new())).unwrap();
    let mut watch = client(connector).request(request).await.unwrap().into_body();
    assert!(watch.frame().await.unwrap().is_ok(), "the watch runs");
    let start = std::time::Duration::from_secs(4);
    served.shutdown.cancel();
    let server = served.server.clone();
    let ended = tokio::time::timeout(start, async {
        server.close().await;
        while let Some(frame) = watch.frame().await {
            if frame.is_err() {
                break;
            }
        }
        served.serving.await.unwrap();
    });
    ended.await.expect("a watch does not hold the end up");
    assert!(tokio::net::TcpStream::connect(&served.authority).await.is_err(), "nothing listens any more");
}

#[tokio::test(start_paused = true)]
async fn in_memory_the_same_without_encryption() {
    let network = MemoryNetwork::default();
    let listener = network.listen("127.0.0.1", 6443);
    let clock = Clock::starting_at(START.parse().unwrap());
    let served = Served::start(server().await, Tls::clear(clock), Arc::new(network), Box::new(listener), 6443).await;
    let (admin, ..) = served.pki.issue("ann", &["system:masters"], Usages::CLIENT).await;
    assert_eq!(served.ask(Some(admin), "h2", "/apis/test.example/v1/things").await.0, StatusCode::OK);
    assert_eq!(served.ask(None, "h2", "/apis/test.example/v1/things").await.0, StatusCode::UNAUTHORIZED);
    served.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), served.serving).await.unwrap().unwrap();
}
