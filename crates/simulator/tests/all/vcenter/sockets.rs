//! Real sockets, real TLS: directly, and through the proxy under the address of the manifests.

use std::sync::Arc;

use runtime::clock::Clock;
use runtime::keys::Prepared;
use runtime::log::Log;
use runtime::net::{ProxyDialer, TcpDialer};
use runtime::random::Random;
use runtime::tls::Tls;
use simulator::{Config, Simulator};
use tokio::net::TcpListener;

use super::support::*;

#[tokio::test]
async fn vcenter_is_reached_directly_and_through_the_proxy() {
    let clock = Clock::system();
    let random = Random::seeded(9);
    let keys = Arc::new(Prepared::new(random.child("keys")));
    let config = Config::new(site(), clock.clone(), random, Log::passing(clock.clone()), Tls::real(clock.clone()), keys);
    let simulator = Arc::new(Simulator::start(config).await.unwrap());
    let direct = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (direct_port, proxy_port) = (direct.local_addr().unwrap().port(), proxy.local_addr().unwrap().port());
    let (first, second) = (simulator.clone(), simulator.clone());
    let servers = [
        tokio::spawn(async move { first.serve_vcenter(Box::new(direct)).await }),
        tokio::spawn(async move { second.serve_proxy(Box::new(proxy)).await }),
    ];
    let print = simulator.vcenter_thumbprint();
    let tls = || Tls::real(clock.clone());
    let direct = Client::new(Arc::new(TcpDialer), tls(), &format!("127.0.0.1:{direct_port}"), &print);
    let proxy = Arc::new(ProxyDialer::parse(&format!("http://127.0.0.1:{proxy_port}")).unwrap());
    let proxied = Client::new(proxy.clone(), tls(), SERVER, &print);
    for client in [direct, proxied] {
        client.login().await.unwrap();
        assert!(client.at("dc1/vm/talos").await.is_some());
    }
    assert_eq!(simulator.vcenter().sessions(), 2);
    let wrong = Client::new(proxy, tls(), SERVER, "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33");
    let CallError::Broken(why) = wrong.login().await.unwrap_err() else { panic!("the certificate was another one") };
    assert!(why.contains(&print), "{why}");
    simulator.close();
    for server in servers {
        server.await.unwrap();
    }
}
