//! The way into the simulated network from real sockets: an HTTP proxy that understands CONNECT and nothing else.
//!
//! One listener serves every address of the network, without a socket per VM, so that the addresses in a user's own manifests work
//! unchanged. It never connects to anything outside the simulation.

use std::io;
use std::sync::Arc;

use runtime::net::{BoxStream, Dialer, Listener};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

/// A longer request head is refused.
const MAX_HEAD: usize = 16 * 1024;

/// Serves CONNECT on `listener` until `shutdown`, each stream to where `network` finds the host.
pub async fn serve(mut listener: Box<dyn Listener>, network: Arc<dyn Dialer>, shutdown: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the proxy takes no further connections");
                return;
            }
        };
        let network = network.clone();
        let ended = shutdown.clone();
        tokio::spawn(async move {
            let result = tokio::select! {
                () = ended.cancelled() => Ok(()),
                result = connect(stream, network) => result,
            };
            if let Err(error) = result {
                tracing::debug!(%peer, %error, "a stream through the proxy broke off");
            }
        });
    }
}

async fn connect(mut stream: BoxStream, network: Arc<dyn Dialer>) -> io::Result<()> {
    let head = match read_head(&mut stream).await? {
        Some(head) => head,
        None => return answer(&mut stream, "431 Request Header Fields Too Large", "the request head is too long").await,
    };
    let mut words = head.split_ascii_whitespace();
    let (Some("CONNECT"), Some(authority)) = (words.next(), words.next()) else {
        return answer(&mut stream, "405 Method Not Allowed\r\nAllow: CONNECT", "this proxy serves CONNECT only").await;
    };
    let target = authority.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        port.parse::<u16>().ok().filter(|_| !host.is_empty()).map(|port| (host, port))
    });
    let Some((host, port)) = target else {
        return answer(&mut stream, "400 Bad Request", "CONNECT wants host:port").await;
    };
    let mut far = match network.dial(host, port).await {
        Ok(far) => far,
        Err(error) => {
            let status = if error.kind() == io::ErrorKind::TimedOut { "504 Gateway Timeout" } else { "502 Bad Gateway" };
            return answer(&mut stream, status, &error.to_string()).await;
        }
    };
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    match tokio::io::copy_bidirectional(&mut stream, &mut far).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn answer(stream: &mut BoxStream, status: &str, text: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len() + 1);
    stream.write_all(format!("{head}{text}\n").as_bytes()).await?;
    stream.shutdown().await
}

/// The head up to its empty line, byte by byte so that nothing of what follows is taken; `None` when it is too long.
async fn read_head(stream: &mut BoxStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Ok(None);
        }
        head.push(stream.read_u8().await?);
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::clock::Clock;
    use runtime::net::ProxyDialer;

    use super::*;
    use crate::network::Network;

    #[tokio::test]
    async fn real_sockets_reach_simulated_addresses() {
        let network = Network::new(Clock::system(), Duration::ZERO);
        let mut host = network.listen("10.9.8.7", 6443);
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(Box::new(socket), Arc::new(network.clone()), shutdown.clone()));
        let proxy = ProxyDialer::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let (near, far) = tokio::join!(proxy.dial("10.9.8.7", 6443), host.accept());
        let (mut near, (mut far, _)) = (near.unwrap(), far.unwrap());
        far.write_all(b"from the node").await.unwrap();
        let mut bytes = [0; 13];
        near.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"from the node");
        assert_eq!(proxy.dial("10.9.8.7", 22).await.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(proxy.dial("10.9.8.8", 22).await.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
        shutdown.cancel();
        server.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn other_requests_are_refused_with_a_reason() {
        let network = Network::new(Clock::system(), Duration::ZERO);
        for (request, status) in [
            ("GET http://10.0.0.1/ HTTP/1.1\r\n\r\n".to_owned(), "HTTP/1.1 405 "),
            ("CONNECT 10.0.0.1 HTTP/1.1\r\n\r\n".to_owned(), "HTTP/1.1 400 "),
            ("CONNECT 10.0.0.1:6443 HTTP/1.1\r\n\r\n".to_owned(), "HTTP/1.1 502 "),
            (format!("CONNECT {} HTTP/1.1\r\n\r\n", "x".repeat(20_000)), "HTTP/1.1 431 "),
        ] {
            let (mut near, far) = tokio::io::duplex(64 * 1024);
            near.write_all(request.as_bytes()).await.unwrap();
            connect(Box::new(far), Arc::new(network.clone())).await.unwrap();
            let mut text = String::new();
            near.read_to_string(&mut text).await.unwrap();
            assert!(text.starts_with(status), "{text}");
        }
    }
}
